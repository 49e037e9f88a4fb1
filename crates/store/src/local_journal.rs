//! The local journal: an append-only record on this machine of what every request owes, so that a killed process loses nothing.
//!
//! A record is one `write()`, done before the world sees what it is about: before a request goes
//! upstream, before output goes to the client, before a settlement is sent. The page cache
//! outlives the process, so that is enough for `kill -9`; for a loss of power the file is synced
//! [every 50 ms](SYNC_EVERY). A segment is deleted when all that it says is in the database.

mod lost;
mod record;
mod recover;
mod segment;

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Display,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use billing::{LocalJournal, NotRecorded, ReplicaId, RequestFacts, RequestId, Settlement};

use self::{
    lost::Earlier,
    record::Writer,
    segment::{Books, HEAD_BYTES},
};
use crate::{Store, StoreError};

/// A segment is followed by another one at this size.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// With this much in it and nothing owed, it is followed by an empty one, so that a start is quick.
const SEGMENT_BYTES_IDLE: u64 = 1 << 20;
/// With more segments than this, the oldest one's records that still matter are written again.
const SEGMENTS_MAX: usize = 4;
/// So many records are written again in one go.
const CARRIED_MAX: usize = 256;
/// A loss of power costs what was written in this time.
const SYNC_EVERY: Duration = Duration::from_millis(50);

/// The open journal of this process. The last owner that goes lets go of the folder.
#[derive(Debug)]
pub(crate) struct JournalFile {
    folder: PathBuf,
    books: Books,
    segment_bytes_max: u64,
    failing: AtomicBool,
    state: Mutex<State>,
    /// Held as long as the journal lives; the operating system lets go of it when the process dies.
    _lock: File,
}

#[derive(Debug)]
struct State {
    file: Arc<File>,
    number: u64,
    end: u64,
    replica: ReplicaId,
    /// Where the newest record of every request is that is not in the database yet.
    live: HashMap<RequestId, Place>,
    /// How many of them each segment has; the last one is the current one.
    segments: BTreeMap<u64, usize>,
    /// Records of settlements that could not be written yet.
    unwritten: BTreeMap<RequestId, Vec<u8>>,
    buffer: Vec<u8>,
    unsynced: bool,
    folder_unsynced: bool,
    /// Segments that were left before they were synced.
    unsynced_before: Vec<Arc<File>>,
    /// The segment was begun to see whether writing works again, and is not proved yet.
    fresh: bool,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    segment: u64,
    at: u64,
    bytes: usize,
}

/// Takes the folder, books what earlier lives left in it, and begins a segment for this replica.
///
/// # Errors
/// [`StoreError::LocalJournalInUse`], [`StoreError::LocalJournal`], and the database's: then
/// everything is left as it was, to be tried again.
pub(crate) async fn open(
    store: &Store,
    folder: &Path,
    replica: ReplicaId,
) -> Result<Arc<JournalFile>, StoreError> {
    let books = books(store)?;
    let lock = own(folder)?;
    let reading = folder.to_owned();
    let read = tokio::task::spawn_blocking(move || Earlier::read(&reading, &books)).await;
    let earlier = read.map_err(|error| problem(folder, &error))??;
    let lost = &earlier.lost;
    recover::book(store, lost).await?;
    if lost.settled.len() + lost.running.len() + lost.started > 0 {
        tracing::warn!(
            settled = lost.settled.len(),
            running = lost.running.len(),
            started = lost.started,
            "an earlier life of this gateway was lost; what its requests owed by the local journal is booked"
        );
    }
    let number = earlier.last + 1;
    let journal = JournalFile::begin(folder, books, number, replica, SEGMENT_BYTES_MAX, lock)?;
    earlier.put_away()?;
    Ok(journal)
}

/// Names the books without telling anything about them.
fn books(store: &Store) -> Result<Books, StoreError> {
    let digest = store.pepper()?.digest("the local journal's books").0;
    let mut books = Books::default();
    books.copy_from_slice(digest.split_at(size_of::<Books>()).0);
    Ok(books)
}

/// Makes the folder, readable by nobody else, and locks it.
fn own(folder: &Path) -> Result<File, StoreError> {
    let made = || -> io::Result<File> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
            builder.mode(0o700);
            builder.create(folder)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        }
        #[cfg(not(unix))]
        builder.create(folder)?;
        private(&mut File::options())
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join("lock"))
    };
    let file = made().map_err(|error| problem(folder, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::LocalJournalInUse {
            folder: folder.display().to_string(),
        }),
        Err(TryLockError::Error(error)) => Err(problem(folder, &error)),
    }
}

/// Files that are made are for this user alone.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

fn problem(path: &Path, problem: &dyn Display) -> StoreError {
    StoreError::LocalJournal {
        path: path.display().to_string(),
        problem: problem.to_string(),
    }
}

impl JournalFile {
    fn begin(
        folder: &Path,
        books: Books,
        number: u64,
        replica: ReplicaId,
        segment_bytes_max: u64,
        lock: File,
    ) -> Result<Arc<Self>, StoreError> {
        let (file, end) =
            begin_segment(folder, &books, number, replica).map_err(|e| problem(folder, &e))?;
        let journal = Arc::new(Self {
            folder: folder.to_owned(),
            books,
            segment_bytes_max,
            failing: AtomicBool::new(false),
            state: Mutex::new(State {
                file: Arc::new(file),
                number,
                end,
                replica,
                live: HashMap::new(),
                segments: BTreeMap::from([(number, 0)]),
                unwritten: BTreeMap::new(),
                buffer: Vec::new(),
                unsynced: true,
                folder_unsynced: true,
                unsynced_before: Vec::new(),
                fresh: false,
            }),
            _lock: lock,
        });
        let weak = Arc::downgrade(&journal);
        thread::Builder::new()
            .name("local-journal".into())
            .spawn(move || {
                loop {
                    thread::sleep(SYNC_EVERY);
                    match weak.upgrade() {
                        Some(journal) => journal.tick(),
                        None => return,
                    }
                }
            })
            .map_err(|error| problem(folder, &error))?;
        Ok(journal)
    }

    /// Whether the last attempt to write failed: no request may be admitted.
    pub(crate) fn failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// From here on leases are taken under this name.
    pub(crate) fn replica(&self, id: ReplicaId) {
        let mut state = self.lock();
        state.replica = id;
        let mut bytes = Vec::new();
        Writer(&mut bytes).replica(id);
        if let Err(error) = self.append(&mut state, &bytes) {
            self.fail(&error);
        }
    }

    /// These requests are in the database: the journal need not know them any more.
    pub(crate) fn committed(&self, requests: impl Iterator<Item = RequestId> + Clone) {
        let mut state = self.lock();
        let mut bytes = std::mem::take(&mut state.buffer);
        bytes.clear();
        Writer(&mut bytes).committed(requests.clone());
        if !self.failing() {
            // Without this record they are booked again by the next start, without effect.
            if let Err(error) = self.append(&mut state, &bytes) {
                self.fail(&error);
            }
        }
        state.buffer = bytes;
        for request in requests {
            state.forget(request);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the newest record of a request; `keep` what cannot be written, for later.
    fn write(
        &self,
        request: RequestId,
        keep: bool,
        record: impl FnOnce(&mut Writer<'_>),
    ) -> Result<(), NotRecorded> {
        let mut state = self.lock();
        let mut bytes = std::mem::take(&mut state.buffer);
        bytes.clear();
        record(&mut Writer(&mut bytes));
        let written = if self.failing() {
            Err(NotRecorded)
        } else {
            self.append(&mut state, &bytes).map_err(|error| {
                self.fail(&error);
                NotRecorded
            })
        };
        match written {
            Ok(place) => state.place(request, place),
            Err(NotRecorded) if keep => {
                state.unwritten.insert(request, bytes.clone());
            }
            Err(NotRecorded) => {}
        }
        state.buffer = bytes;
        written.map(|_| ())
    }

    /// Appends bytes to the current segment, or to a new one where that is full.
    fn append(&self, state: &mut State, bytes: &[u8]) -> io::Result<Place> {
        let length = bytes.len() as u64;
        if state.end + length > self.segment_bytes_max && state.end > HEAD_BYTES as u64 {
            self.rotate(state)?;
        }
        let at = state.end;
        if let Err(error) = (&*state.file).write_all(bytes) {
            // A piece of a record would be read as damage.
            let cut = state.file.set_len(at).is_ok();
            let left = state.file.metadata().map(|meta| meta.len());
            state.end = left.ok().filter(|len| !cut && *len > at).unwrap_or(at);
            return Err(error);
        }
        state.end += length;
        state.unsynced = true;
        Ok(Place {
            segment: state.number,
            at,
            bytes: bytes.len(),
        })
    }

    fn rotate(&self, state: &mut State) -> io::Result<()> {
        let number = state.number + 1;
        let (file, end) = begin_segment(&self.folder, &self.books, number, state.replica)?;
        let before = std::mem::replace(&mut state.file, Arc::new(file));
        if state.unsynced {
            state.unsynced_before.push(before);
        }
        (state.number, state.end) = (number, end);
        state.segments.insert(number, 0);
        (state.unsynced, state.folder_unsynced) = (true, true);
        Ok(())
    }

    /// No new requests until writing works again. Said once.
    fn fail(&self, error: &io::Error) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(
                %error, folder = %self.folder.display(),
                "the local journal cannot be written: no new requests until it can"
            );
        }
    }

    /// What the thread does.
    fn tick(&self) {
        if self.failing() {
            self.probe();
        }
        self.sync();
        let old = self.lock().take_done();
        for number in old {
            let path = segment::path(&self.folder, number);
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(%error, segment = %path.display(), "a segment of the local journal cannot be deleted");
            }
        }
        if !self.failing()
            && let Err(error) = self.make_room()
        {
            self.fail(&error);
        }
    }

    /// Tries in a new segment whether writing works again; then first writes what could not be
    /// written before.
    fn probe(&self) {
        let mut state = self.lock();
        if !state.fresh && self.rotate(&mut state).is_err() {
            return;
        }
        state.fresh = true;
        while let Some((request, bytes)) = state.unwritten.pop_first() {
            match self.append(&mut state, &bytes) {
                Ok(place) => state.place(request, place),
                Err(_) => {
                    state.unwritten.insert(request, bytes);
                    return;
                }
            }
        }
        if state.file.sync_data().is_ok() {
            state.fresh = false;
            self.failing.store(false, Ordering::Relaxed);
            tracing::info!("the local journal can be written again");
        }
    }

    /// Puts what was written onto the disk, without keeping writers waiting.
    fn sync(&self) {
        let mut state = self.lock();
        let mut files = std::mem::take(&mut state.unsynced_before);
        if std::mem::take(&mut state.unsynced) {
            files.push(Arc::clone(&state.file));
        }
        let folder = std::mem::take(&mut state.folder_unsynced);
        drop(state);
        let synced = files.iter().try_for_each(|file| file.sync_data());
        let synced = synced.and_then(|()| match folder {
            true => File::open(&self.folder)?.sync_all(),
            false => Ok(()),
        });
        // It is not tried again: after such an error nobody knows what is on the disk. A new
        // segment is begun, as after a failed write.
        if let Err(error) = synced {
            self.fail(&error);
        }
    }

    /// Keeps the segments few: begins a new one when nothing in this one matters, and writes
    /// again what of the oldest one does.
    fn make_room(&self) -> io::Result<()> {
        let mut state = self.lock();
        if state.live.is_empty() && state.unwritten.is_empty() && state.end > SEGMENT_BYTES_IDLE {
            return self.rotate(&mut state);
        }
        let oldest = state.segments.first_key_value().map(|(number, _)| *number);
        let Some(oldest) = oldest.filter(|_| state.segments.len() > SEGMENTS_MAX) else {
            return Ok(());
        };
        let mut file = File::open(segment::path(&self.folder, oldest))?;
        let left: Vec<(RequestId, Place)> = state
            .live
            .iter()
            .filter(|(_, place)| place.segment == oldest)
            .take(CARRIED_MAX)
            .map(|(request, place)| (*request, *place))
            .collect();
        for (request, place) in left {
            let mut bytes = vec![0; place.bytes];
            file.seek(SeekFrom::Start(place.at))?;
            file.read_exact(&mut bytes)?;
            let place = self.append(&mut state, &bytes)?;
            state.place(request, place);
        }
        Ok(())
    }
}

impl LocalJournal for JournalFile {
    fn started(&self, facts: &RequestFacts, lease: ReplicaId) -> Result<(), NotRecorded> {
        self.write(facts.request_id, false, |writer| {
            writer.started(facts, lease);
        })
    }

    fn progressed(&self, so_far: &Settlement) {
        // Where it cannot be written, the checkpoints in the database are what is left.
        let _ = self.write(so_far.facts.request_id, false, |writer| {
            writer.progressed(so_far);
        });
    }

    fn settled(&self, settlement: &Settlement) {
        let _ = self.write(settlement.facts.request_id, true, |writer| {
            writer.settled(settlement);
        });
    }

    fn retracted(&self, request: RequestId) {
        // A request that only started owes nothing: there is nothing to write.
        self.lock().forget(request);
    }
}

impl State {
    fn place(&mut self, request: RequestId, place: Place) {
        if let Some(count) = self.segments.get_mut(&place.segment) {
            *count += 1;
        }
        if let Some(before) = self.live.insert(request, place) {
            self.release(before);
        }
    }

    fn forget(&mut self, request: RequestId) {
        self.unwritten.remove(&request);
        if let Some(before) = self.live.remove(&request) {
            self.release(before);
        }
    }

    fn release(&mut self, place: Place) {
        if let Some(count) = self.segments.get_mut(&place.segment) {
            *count = count.saturating_sub(1);
        }
    }

    /// The oldest segments that nothing matters in. Never one before another that stays: what a
    /// newer one says of a request overrules an older one.
    fn take_done(&mut self) -> Vec<u64> {
        let mut done = Vec::new();
        while let Some(first) = self.segments.first_entry()
            && *first.key() != self.number
            && *first.get() == 0
        {
            done.push(first.remove_entry().0);
        }
        done
    }
}

/// Makes a segment with its head and the replica's name; the file, and where it ends.
fn begin_segment(
    folder: &Path,
    books: &Books,
    number: u64,
    replica: ReplicaId,
) -> io::Result<(File, u64)> {
    let mut bytes = segment::head(books);
    Writer(&mut bytes).replica(replica);
    let path = segment::path(folder, number);
    let mut options = File::options();
    let mut file = private(&mut options)
        .append(true)
        .create_new(true)
        .open(&path)?;
    match file.write_all(&bytes) {
        Ok(()) => Ok((file, bytes.len() as u64)),
        Err(error) => {
            // It would be in the way of the next attempt.
            let _ = fs::remove_file(&path);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use billing::End;
    use uuid::Uuid;

    use super::{lost::Lost, record::tests::settlement, *};

    const BOOKS: Books = [9; 16];
    const REPLICA: ReplicaId = ReplicaId::from_uuid(Uuid::from_u128(7));

    fn open(folder: &Path, segment_bytes_max: u64) -> Arc<JournalFile> {
        let lock = own(folder).unwrap();
        JournalFile::begin(folder, BOOKS, 1, REPLICA, segment_bytes_max, lock).unwrap()
    }

    /// What a life after this one would find.
    fn left(folder: &Path) -> Lost {
        Earlier::read(folder, &BOOKS).unwrap().lost
    }

    fn requests(of: &[Settlement]) -> Vec<RequestId> {
        of.iter().map(|one| one.facts.request_id).collect()
    }

    fn segments(folder: &Path) -> Vec<u64> {
        let list = segment::list(folder).unwrap();
        list.into_iter().map(|(number, _)| number).collect()
    }

    fn soon(what: &str, is: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is() {
            assert!(Instant::now() < deadline, "still not: {what}");
            // tidy: sleeps because it looks again, with a deadline, for what comes by itself.
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn the_last_word_on_every_request_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let journal = open(folder.path(), SEGMENT_BYTES_MAX);
        let [only, ran, ended, booked] = [1, 2, 3, 4].map(|n| settlement(n, End::GatewayLost));
        for one in [&only, &ran, &ended, &booked] {
            journal.started(&one.facts, REPLICA).unwrap();
        }
        let mut more = ran.clone();
        more.usage.completion += 5;
        journal.progressed(&ran);
        journal.progressed(&more);
        journal.progressed(&ended);
        let ended = Settlement {
            end: End::Completed,
            ..ended
        };
        journal.settled(&ended);
        journal.settled(&booked);
        journal.committed([booked.facts.request_id].into_iter());
        let lost = left(folder.path());
        assert_eq!(lost.started, 1);
        assert_eq!(lost.running, [more]);
        assert_eq!(lost.settled, [ended]);
        assert_eq!(lost.replicas.into_iter().collect::<Vec<_>>(), [REPLICA]);
    }

    #[test]
    fn a_second_process_is_refused_and_the_folder_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a/b");
        let journal = open(&place, SEGMENT_BYTES_MAX);
        assert!(matches!(
            own(&place),
            Err(StoreError::LocalJournalInUse { .. })
        ));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&place), 0o700);
            assert_eq!(mode(&segment::path(&place, 1)), 0o600);
            assert_eq!(mode(&place.join("lock")), 0o600);
        }
        drop(journal);
        soon("the folder is free", || own(&place).is_ok());
    }

    #[test]
    fn segments_go_when_all_they_say_is_booked_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let journal = open(folder.path(), 2048);
        let first = settlement(0, End::Completed);
        journal.settled(&first);
        let mut open_ones = vec![first.facts.request_id];
        for n in 1..200 {
            let one = settlement(n, End::Completed);
            journal.settled(&one);
            if n % 50 == 0 {
                open_ones.push(one.facts.request_id);
            } else {
                journal.committed([one.facts.request_id].into_iter());
            }
        }
        // All but the newest few are gone, and what is still owed was taken along.
        soon("old segments are gone", || {
            segments(folder.path()).len() <= SEGMENTS_MAX + 1
        });
        let mut found = requests(&left(folder.path()).settled);
        found.sort();
        assert_eq!(found, open_ones);
        journal.committed(open_ones.into_iter());
        soon("one is left", || segments(folder.path()).len() == 1);
        assert_eq!(left(folder.path()).settled, []);
    }

    #[test]
    fn a_quiet_journal_begins_anew_so_that_a_start_is_quick() {
        let folder = tempfile::tempdir().unwrap();
        let journal = open(folder.path(), SEGMENT_BYTES_MAX);
        for n in 0..SEGMENT_BYTES_IDLE / 200 {
            let one = settlement(n, End::Completed);
            journal.settled(&one);
            journal.committed([one.facts.request_id].into_iter());
        }
        soon("it is small", || {
            let list = segment::list(folder.path()).unwrap();
            let bytes: u64 = list
                .iter()
                .filter_map(|(_, path)| fs::metadata(path).ok())
                .map(|meta| meta.len())
                .sum();
            bytes < SEGMENT_BYTES_IDLE
        });
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_refuses_requests_keeps_settlements_and_heals() {
        let folder = tempfile::tempdir().unwrap();
        let journal = open(folder.path(), SEGMENT_BYTES_MAX);
        let [before, running, settled, booked, after] =
            [1, 2, 3, 4, 5].map(|n| settlement(n, End::Completed));
        journal.settled(&before);
        // The disk is full, and no new segment can be begun.
        let full = File::options().write(true).open("/dev/full").unwrap();
        let in_the_way = segment::path(folder.path(), 2);
        fs::create_dir(&in_the_way).unwrap();
        journal.lock().file = Arc::new(full);
        assert_eq!(journal.started(&after.facts, REPLICA), Err(NotRecorded));
        assert!(journal.failing());
        journal.progressed(&running);
        journal.settled(&settled);
        journal.settled(&booked);
        journal.committed([booked.facts.request_id].into_iter());
        journal.tick();
        assert!(journal.failing(), "there is no room yet");
        fs::remove_dir(&in_the_way).unwrap();
        soon("it is written again", || !journal.failing());
        journal.started(&after.facts, REPLICA).unwrap();
        let lost = left(folder.path());
        let mut found = requests(&lost.settled);
        found.sort();
        assert_eq!(found, requests(&[before, settled]));
        assert_eq!((lost.running.len(), lost.started), (0, 1));
    }

    #[test]
    fn a_piece_of_a_record_that_cannot_be_cut_off_hides_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let journal = open(folder.path(), SEGMENT_BYTES_MAX);
        let one = settlement(1, End::Completed);
        journal.settled(&one);
        // A handle that cannot write or cut: a disk that failed in the middle of a record.
        let path = segment::path(folder.path(), 1);
        let torn = File::options().append(true).open(&path).unwrap();
        (&torn).write_all(&[1, 2, 3]).unwrap();
        let read_only = File::open(&path).unwrap();
        journal.lock().file = Arc::new(read_only);
        assert_eq!(journal.started(&one.facts, REPLICA), Err(NotRecorded));
        soon("it is written again", || !journal.failing());
        let lost = left(folder.path());
        assert_eq!(lost.settled, [one]);
        assert_eq!(segments(folder.path()), [1, 2]);
    }
}
