//! Chunks that differ from the one before them in their text alone, as most do: read without being parsed.

use std::ops::Range;

use memchr::memchr2;
use smallvec::SmallVec;

use super::chunk::{Found, Text};
use crate::json;

/// Longer chunks are not kept: those of streams have some hundred bytes.
const CHUNK_BYTES_MAX: usize = 4096;

/// The last chunk that was parsed, and where in it stands what changes from chunk to chunk.
///
/// A JSON text in which one string stands in the place of another is JSON of the same shape. So what
/// was found in one such text is in the other, too.
#[derive(Debug, Default)]
pub(crate) struct Alike {
    bytes: Vec<u8>,
    /// The strings that may be others, in order, quotes included. Empty where nothing is like it.
    gaps: SmallVec<[Range<usize>; 2]>,
    /// Which of them is the text.
    text_gap: usize,
    found: Found,
}

/// A string at the beginning of some bytes.
struct Literal {
    /// Its length, quotes included.
    len: usize,
    escaped: bool,
}

impl Alike {
    /// Remembers a chunk that was parsed, and reports no usage.
    pub(crate) fn remember(&mut self, chunk: &str, found: &Found) {
        self.gaps.clear();
        let [text] = found.texts.as_slice() else {
            return;
        };
        let is_string = chunk.as_bytes().get(text.raw().start) == Some(&b'"');
        let is_short = chunk.len() <= CHUNK_BYTES_MAX;
        if !is_string || !is_short || found.usage.is_some() || found.error.is_some() {
            return;
        }
        self.gaps.push(text.raw());
        self.text_gap = 0;
        if let Some(filler) = &found.filler {
            let first = filler.start < text.raw().start;
            self.text_gap = usize::from(first);
            self.gaps.insert(usize::from(!first), filler.clone());
        }
        self.bytes.clear();
        self.bytes.extend_from_slice(chunk.as_bytes());
        self.found = Found {
            texts: found.texts.clone(),
            filler: None,
            usage: None,
            error: None,
            ..*found
        };
    }

    /// Nothing is like what came last.
    pub(crate) fn forget(&mut self) {
        self.gaps.clear();
    }

    /// What is in a chunk, where it is like the one that is remembered.
    pub(crate) fn read(&self, chunk: &[u8]) -> Option<Found> {
        let (mut at, mut from) = (0, 0);
        let mut text = None;
        for (place, gap) in self.gaps.iter().enumerate() {
            let same = self.bytes.get(from..gap.start)?;
            let rest = chunk.get(at..)?.strip_prefix(same)?;
            at += same.len();
            let literal = literal(rest)?;
            if place == self.text_gap {
                text = Some((at..at + literal.len, literal.escaped));
            }
            at += literal.len;
            from = gap.end;
        }
        let (span, escaped) = text.filter(|(span, _)| span.len() > 2)?;
        if chunk.get(at..)? != self.bytes.get(from..)? {
            return None;
        }
        let inside = chunk.get(span.start + 1..span.end - 1)?;
        let inside = std::str::from_utf8(inside).ok()?;
        let before = self.found.texts.first()?;
        let text = Text {
            choice: before.choice,
            kind: before.kind,
            raw: u32::try_from(span.start).ok()?..u32::try_from(span.end).ok()?,
            decoded: escaped.then(|| json::unescape(inside).into()),
        };
        Some(Found {
            texts: SmallVec::from_buf([text]),
            choices: self.found.choices,
            finished: self.found.finished,
            seen: self.found.seen,
            ..Found::default()
        })
    }
}

/// The string that begins here, if its escapes are of one letter.
fn literal(bytes: &[u8]) -> Option<Literal> {
    let rest = bytes.strip_prefix(b"\"")?;
    let mut len = 0;
    let mut escaped = false;
    loop {
        len += memchr2(b'"', b'\\', rest.get(len..)?)?;
        if rest.get(len) == Some(&b'"') {
            break;
        }
        let letter = rest.get(len + 1)?;
        if !br#""\/bfnrt"#.contains(letter) {
            return None;
        }
        escaped = true;
        len += 2;
    }
    let inside = rest.get(..len)?;
    let whole = !inside.iter().any(|byte| *byte < b' ') && std::str::from_utf8(inside).is_ok();
    whole.then_some(Literal {
        len: len + 2,
        escaped,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::openai::chunk::find;

    fn chunk(filler: &str, member: &str, text: &str, tail: &str) -> String {
        format!(
            r#"{{"id":"c",{filler}"choices":[{{"index":0,"delta":{{"{member}":{text}}},"finish_reason":null}}]{tail}}}"#
        )
    }

    fn remembered(text: &str) -> Alike {
        let mut alike = Alike::default();
        alike.remember(text, &find(text).unwrap());
        alike
    }

    #[test]
    fn chunks_that_differ_in_their_text_are_read_without_being_parsed() {
        for filler in ["", r#""obfuscation":"x7","#] {
            for tail in [
                "",
                r#","usage":null"#,
                r#","usage":null,"obfuscation":"aB""#,
            ] {
                if !filler.is_empty() && tail.contains("obfuscation") {
                    continue;
                }
                let alike = remembered(&chunk(filler, "content", r#""Hel""#, tail));
                for text in [r#""lo""#, r#""\n \"ü\" \\""#, r#"" ""#, r#""日本""#] {
                    let tail = tail.replace("aB", "another");
                    let filler = filler.replace("x7", "");
                    let next = chunk(&filler, "content", text, &tail);
                    let found = alike
                        .read(next.as_bytes())
                        .unwrap_or_else(|| panic!("{next}"));
                    assert_eq!(found, without_filler(find(&next).unwrap()), "{next}");
                }
            }
        }
    }

    #[test]
    fn every_other_chunk_is_parsed() {
        let alike = remembered(&chunk("", "content", r#""Hel""#, ""));
        for next in [
            chunk("", "content", r#""""#, ""),
            chunk("", "content", "null", ""),
            chunk("", "content", "[]", ""),
            chunk("", "content", "\"a\u{1}\"", ""),
            chunk("", "content", r#""\u00fc""#, ""),
            chunk("", "content", r#""\x""#, ""),
            chunk("", "content", r#""a","role":"x""#, ""),
            chunk("", "reasoning", r#""a""#, ""),
            chunk("", "content", r#""a""#, r#","usage":{"prompt_tokens":1}"#),
            chunk("", "content", r#""a""#, "") + " ",
            chunk("", "content", r#""a"#, ""),
            r#"{"id":"c"#.into(),
            String::new(),
        ] {
            assert!(alike.read(next.as_bytes()).is_none(), "{next}");
        }
        let bytes = chunk("", "content", r#""a""#, "").replace('a', "\u{7f}");
        let broken: Vec<u8> = bytes
            .bytes()
            .map(|b| if b == 0x7f { 0xff } else { b })
            .collect();
        assert!(alike.read(&broken).is_none());
        // Two texts, none, or one that is no string: nothing is like it.
        for first in [
            chunk("", "content", r#""a","reasoning":"b""#, ""),
            chunk("", "role", r#""assistant""#, ""),
            chunk("", "content", "7", ""),
            chunk("", "content", r#""a""#, r#","usage":{"prompt_tokens":1}"#),
        ] {
            assert!(
                remembered(&first).read(first.as_bytes()).is_none(),
                "{first}"
            );
        }
    }

    fn without_filler(found: Found) -> Found {
        Found {
            filler: None,
            ..found
        }
    }

    proptest! {
        /// Whatever is read without being parsed is what the parser finds.
        #[test]
        fn nothing_is_read_that_the_parser_reads_otherwise(
            first in any::<String>(),
            second in any::<String>(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            change in 0_u8..3,
            tail in prop::sample::select(vec!["", r#","obfuscation":"q""#, r#","usage":null"#]),
        ) {
            let text = |text: &str| serde_json::to_string(text).unwrap();
            let alike = remembered(&chunk("", "content", &text(&first), tail));
            let mut next = chunk("", "content", &text(&second), tail).into_bytes();
            let at = at.index(next.len());
            match change {
                0 => next[at] = byte,
                1 => next.insert(at, byte),
                _ => {}
            }
            if let Some(found) = alike.read(&next) {
                let next = std::str::from_utf8(&next).unwrap();
                prop_assert_eq!(found, without_filler(find(next).unwrap()));
            }
        }
    }
}
