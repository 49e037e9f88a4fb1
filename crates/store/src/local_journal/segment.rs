//! A segment of the local journal: its name, its head, and reading it whatever became of it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::record::{Found, Record, find, next};

/// The first bytes of every segment.
const MAGIC: [u8; 8] = *b"TOLLWAYJ";
/// How records are written. A segment of another version is refused, never guessed at.
const VERSION: u32 = 1;
/// Magic, version, the books it belongs to, a checksum.
pub(crate) const HEAD_BYTES: usize = 32;
const EXTENSION: &str = "journal";

/// Which database the records are for: a digest that tells nothing about it.
pub(crate) type Books = [u8; 16];

/// What a segment turned out to be.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Stretches that hold no record or one that is not understood: from, to.
    pub(crate) damage: Vec<(usize, usize)>,
    /// Where a last record begins that was being written when the process died.
    pub(crate) torn: Option<usize>,
}

/// Why a segment cannot be read at all.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is of this version.
    Version(u32),
    /// It belongs to another database.
    OtherBooks,
}

/// The head of a segment for these books.
pub(crate) fn head(books: &Books) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(books);
    let sum = crc32fast::hash(&head);
    head.extend_from_slice(&sum.to_le_bytes());
    head
}

/// The path of the segment with this number.
pub(crate) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}.{EXTENSION}"))
}

/// The segments of a folder in order; other files are none of ours.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str());
        let ours = path.extension().is_some_and(|ext| ext == EXTENSION);
        if let Some(number) = name.filter(|_| ours).and_then(|name| name.parse().ok()) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Reads a segment, and hands on every record that is whole, in their order. Only the `last`
/// segment can have been torn by the death of its writer.
pub(crate) fn scan(
    bytes: &[u8],
    books: &Books,
    last: bool,
    mut each: impl FnMut(Record),
) -> Result<Scan, Refused> {
    let mut scan = Scan::default();
    let mut at = match read_head(bytes, books)? {
        true => HEAD_BYTES,
        false if last && is_torn_head(bytes) => {
            scan.torn = Some(0);
            return Ok(scan);
        }
        // Records carry checksums of their own and are found without the head.
        false => {
            let first = next(bytes, 0).unwrap_or(bytes.len());
            scan.damage.push((0, first));
            first
        }
    };
    while at < bytes.len() {
        match find(bytes, at) {
            Found::Record(record, end) => {
                each(record);
                at = end;
            }
            Found::Unknown(end) => {
                scan.damage.push((at, end));
                at = end;
            }
            found @ (Found::Cut | Found::Nothing) => match next(bytes, at + 1) {
                Some(whole) => {
                    scan.damage.push((at, whole));
                    at = whole;
                }
                None => {
                    // After a loss of power the end may be zeros that were never written.
                    let unwritten = bytes.get(at..).is_some_and(|b| b.iter().all(|b| *b == 0));
                    if last && (found == Found::Cut || unwritten) {
                        scan.torn = Some(at);
                    } else {
                        scan.damage.push((at, bytes.len()));
                    }
                    break;
                }
            },
        }
    }
    Ok(scan)
}

/// Whether the head is whole and ours.
fn read_head(bytes: &[u8], books: &Books) -> Result<bool, Refused> {
    let Some(stored) = bytes.get(..HEAD_BYTES) else {
        return Ok(false);
    };
    let ours = head(books);
    if stored == ours {
        return Ok(true);
    }
    let (fields, sum) = stored.split_at(HEAD_BYTES - 4);
    if !fields.starts_with(&MAGIC) || crc32fast::hash(fields).to_le_bytes() != sum {
        return Ok(false);
    }
    let version = fields.get(8..12).and_then(|four| four.try_into().ok());
    match version.map(u32::from_le_bytes) {
        Some(VERSION) => Err(Refused::OtherBooks),
        Some(version) => Err(Refused::Version(version)),
        None => Ok(false),
    }
}

/// A head that was being written when the process died, with nothing behind it.
fn is_torn_head(bytes: &[u8]) -> bool {
    bytes.len() < HEAD_BYTES || bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use billing::End;
    use proptest::prelude::*;

    use super::*;
    use crate::local_journal::record::{Writer, tests::settlement};

    const BOOKS: Books = [3; 16];

    /// What a segment says, and what it turned out to be.
    fn scanned(bytes: &[u8], books: &Books, last: bool) -> Result<(Vec<Record>, Scan), Refused> {
        let mut records = Vec::new();
        let scan = scan(bytes, books, last, |record| records.push(record))?;
        Ok((records, scan))
    }

    /// A segment of `count` records, and where each of them begins.
    fn segment(count: u64) -> (Vec<u8>, Vec<usize>, Vec<Record>) {
        let mut bytes = head(&BOOKS);
        let (mut starts, mut records) = (Vec::new(), Vec::new());
        for n in 0..count {
            starts.push(bytes.len());
            let one = settlement(n, End::Completed);
            if n.is_multiple_of(2) {
                Writer(&mut bytes).progressed(&one);
                records.push(Record::Progressed(one));
            } else {
                Writer(&mut bytes).settled(&one);
                records.push(Record::Settled(one));
            }
        }
        (bytes, starts, records)
    }

    #[test]
    fn a_torn_last_record_is_ignored_and_only_in_the_last_segment() {
        let (bytes, starts, records) = segment(3);
        for end in starts[2]..bytes.len() {
            let cut = &bytes[..end];
            let (found, read) = scanned(cut, &BOOKS, true).unwrap();
            assert_eq!(found, records[..2], "{end}");
            assert_eq!(read.damage, [], "{end}");
            assert_eq!(read.torn, (end > starts[2]).then_some(starts[2]), "{end}");
            let (_, read) = scanned(cut, &BOOKS, false).unwrap();
            assert_eq!(read.damage.len(), usize::from(end > starts[2]), "{end}");
        }
    }

    #[test]
    fn damage_in_the_middle_is_named_and_stops_nothing() {
        let (bytes, starts, records) = segment(5);
        for at in starts[1]..starts[2] {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            let (found, read) = scanned(&bad, &BOOKS, true).unwrap();
            let mut left = records.clone();
            left.remove(1);
            assert_eq!(found, left, "{at}");
            assert_eq!(read.damage, [(starts[1], starts[2])], "{at}");
            assert_eq!(read.torn, None, "{at}");
        }
    }

    #[test]
    fn a_damaged_last_record_is_not_taken_for_a_torn_one() {
        let (mut bytes, starts, _) = segment(2);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let (_, read) = scanned(&bytes, &BOOKS, true).unwrap();
        assert_eq!(read.damage, [(starts[1], bytes.len())]);
        assert_eq!(read.torn, None);
    }

    #[test]
    fn zeros_at_the_end_were_never_written() {
        let (mut bytes, _, records) = segment(2);
        let end = bytes.len();
        bytes.extend([0; 4096]);
        let (found, read) = scanned(&bytes, &BOOKS, true).unwrap();
        assert_eq!((found, read.torn), (records, Some(end)));
    }

    #[test]
    fn a_damaged_head_hides_no_record() {
        let (bytes, starts, records) = segment(2);
        for at in 0..HEAD_BYTES {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            let (found, read) = scanned(&bad, &BOOKS, true).unwrap();
            assert_eq!(found, records);
            assert_eq!(read.damage, [(0, starts[0])]);
        }
    }

    #[test]
    fn another_version_and_other_books_are_refused() {
        let (bytes, _, _) = segment(1);
        assert_eq!(
            scanned(&bytes, &[4; 16], true).unwrap_err(),
            Refused::OtherBooks
        );
        let mut head = head(&BOOKS);
        head[8] = 9;
        let sum = crc32fast::hash(&head[..HEAD_BYTES - 4]);
        head[HEAD_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(
            scanned(&head, &BOOKS, true).unwrap_err(),
            Refused::Version(9)
        );
    }

    proptest! {
        #[test]
        fn whatever_happens_to_a_file_no_record_is_made_up(
            thousandths in 0..=1000_usize,
            flips in proptest::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 0..6),
            last: bool,
        ) {
            let (mut bytes, _, records) = segment(12);
            bytes.truncate(bytes.len() * thousandths / 1000);
            for (at, bits) in flips {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] ^= bits;
                }
            }
            if let Ok((found, read)) = scanned(&bytes, &BOOKS, last) {
                let mut whole = records.iter();
                for record in &found {
                    prop_assert!(whole.any(|one| one == record), "{record:?}");
                }
                let stretches = read.damage.iter().map(|(from, to)| to - from).sum::<usize>();
                prop_assert!(stretches <= bytes.len());
                let missing = found.len() < records.len();
                let told = !read.damage.is_empty() || read.torn.is_some();
                // What was cut off between two records leaves no trace; nothing else is silent.
                prop_assert!(!missing || told || bytes.len() < segment(12).0.len());
            }
        }
    }
}
