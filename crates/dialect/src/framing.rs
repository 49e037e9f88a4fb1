//! How a stream is cut into events: server-sent events, a JSON text on each line, or AWS's frames.

use bytes::{Bytes, BytesMut};
use memchr::memchr;

use crate::error::FrameError;
use crate::event_stream::EventStreamFramer;
use crate::sse::{SseEvent, SseFramer};

/// How a dialect frames its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Sse,
    /// A JSON text on each line (NDJSON).
    Lines,
    /// AWS's binary event stream.
    AwsEventStream,
}

impl Framing {
    /// Whether an answer with this `content-type` is a stream so framed.
    #[must_use]
    pub fn is_named_by(self, content_type: &str) -> bool {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let names: &[&str] = match self {
            Self::Sse => &["text/event-stream"],
            Self::Lines => &["application/x-ndjson", "application/jsonl"],
            Self::AwsEventStream => &["application/vnd.amazon.eventstream"],
        };
        names.iter().any(|name| kind.eq_ignore_ascii_case(name))
    }

    /// What a request for a stream says it takes: some providers stream only then. Refusals are JSON.
    #[must_use]
    pub const fn accepted(self) -> &'static str {
        match self {
            Self::Sse => "text/event-stream, application/json;q=0.9",
            Self::Lines => "application/x-ndjson, application/json;q=0.9",
            Self::AwsEventStream => "application/vnd.amazon.eventstream, application/json;q=0.9",
        }
    }

    /// A framer that refuses an event of more than `event_bytes_max` bytes.
    #[must_use]
    pub fn framer(self, event_bytes_max: usize) -> Framer {
        match self {
            Self::Sse => Framer::Sse(Box::new(SseFramer::new(event_bytes_max))),
            Self::Lines => Framer::Lines(LineFramer::new(event_bytes_max)),
            Self::AwsEventStream => Framer::AwsEventStream(EventStreamFramer::new(event_bytes_max)),
        }
    }
}

/// Cuts the bytes of one stream into events. Used as [`SseFramer`] is.
#[derive(Debug)]
pub enum Framer {
    /// Server-sent events.
    Sse(Box<SseFramer>),
    /// A JSON text on each line.
    Lines(LineFramer),
    /// AWS's binary event stream.
    AwsEventStream(EventStreamFramer),
}

impl Framer {
    /// Takes what arrived.
    pub fn push(&mut self, bytes: Bytes) {
        match self {
            Self::Sse(framer) => framer.push(bytes),
            Self::Lines(framer) => framer.push(&bytes),
            Self::AwsEventStream(framer) => framer.push(&bytes),
        }
    }

    /// The next event, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError::Utf8`] spoils one event; the ones after it can be read. Every other is final.
    #[expect(
        clippy::should_implement_trait,
        reason = "None means more bytes are needed, not the end"
    )]
    pub fn next(&mut self) -> Option<Result<SseEvent, FrameError>> {
        match self {
            Self::Sse(framer) => framer.next(),
            Self::Lines(framer) => framer.next(),
            Self::AwsEventStream(framer) => framer.next(),
        }
    }

    /// Call at the end of the stream until it returns `None`: what is still buffered and whole.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn finish(&mut self) -> Option<Result<SseEvent, FrameError>> {
        match self {
            Self::Sse(framer) => framer.finish(),
            Self::Lines(framer) => framer.finish(),
            Self::AwsEventStream(framer) => framer.finish(),
        }
    }
}

/// Cuts a byte stream into lines, each the data of an event without a name. Empty lines are none.
#[derive(Debug)]
pub struct LineFramer {
    event_bytes_max: usize,
    buffer: BytesMut,
    /// So much of the buffer has no line end.
    searched: usize,
    failed: bool,
}

impl LineFramer {
    /// A framer that refuses a line of more than `event_bytes_max` bytes.
    #[must_use]
    pub fn new(event_bytes_max: usize) -> Self {
        Self {
            event_bytes_max,
            buffer: BytesMut::new(),
            searched: 0,
            failed: false,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if !self.failed {
            self.buffer.extend_from_slice(bytes);
        }
    }

    fn next(&mut self) -> Option<Result<SseEvent, FrameError>> {
        loop {
            let rest = self.buffer.get(self.searched..).unwrap_or_default();
            let end = memchr(b'\n', rest).map(|end| self.searched + end);
            let length = end.unwrap_or(self.buffer.len());
            if length > self.event_bytes_max {
                self.failed = true;
                self.buffer = BytesMut::new();
                self.searched = 0;
                return Some(Err(FrameError::TooLong {
                    max: self.event_bytes_max,
                }));
            }
            let Some(end) = end else {
                self.searched = length;
                return None;
            };
            let line = self.buffer.split_to(end + 1).freeze();
            self.searched = 0;
            if let Some(event) = event(&line) {
                return Some(event);
            }
        }
    }

    fn finish(&mut self) -> Option<Result<SseEvent, FrameError>> {
        if let Some(event) = self.next() {
            return Some(event);
        }
        self.searched = 0;
        event(&self.buffer.split().freeze())
    }
}

/// The event of a line; `None` where there is nothing but white space on it.
fn event(line: &Bytes) -> Option<Result<SseEvent, FrameError>> {
    let text = line.trim_ascii();
    if text.is_empty() {
        return None;
    }
    Some(match std::str::from_utf8(text) {
        Ok(_) => Ok(SseEvent::data(line.slice_ref(text))),
        Err(_) => Err(FrameError::Utf8),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The data of all events of a stream that comes in these pieces.
    fn frame(pieces: &[&[u8]], max: usize) -> Vec<Result<Vec<u8>, FrameError>> {
        let mut framer = Framing::Lines.framer(max);
        let mut out = Vec::new();
        for piece in pieces {
            framer.push(Bytes::copy_from_slice(piece));
            while let Some(event) = framer.next() {
                out.push(event.map(|event| event.data.to_vec()));
            }
        }
        while let Some(event) = framer.finish() {
            out.push(event.map(|event| event.data.to_vec()));
        }
        out
    }

    fn lines(all: &[&str]) -> Vec<Result<Vec<u8>, FrameError>> {
        all.iter()
            .map(|line| Ok(line.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn lines_end_in_a_line_feed_and_the_last_one_where_the_stream_does() {
        assert_eq!(
            frame(&[b"{}\n[1]\r\n\n \n7"], 9),
            lines(&["{}", "[1]", "7"])
        );
        assert_eq!(frame(&[b"\n\r\n"], 9), []);
    }

    #[test]
    fn a_line_that_is_too_long_ends_it_and_one_that_is_no_text_does_not() {
        let too_long = Err(FrameError::TooLong { max: 4 });
        assert_eq!(
            frame(&[b"1234\n12345\n1\n"], 4),
            [lines(&["1234"]), vec![too_long.clone()]].concat()
        );
        assert_eq!(frame(&[b"123", b"45"], 4), [too_long]);
        assert_eq!(
            frame(&[b"\xff\n1\n"], 4),
            [vec![Err(FrameError::Utf8)], lines(&["1"])].concat()
        );
    }

    #[test]
    fn a_stream_is_told_by_its_content_type() {
        for (framing, kind, expected) in [
            (Framing::Sse, " Text/Event-Stream; charset=utf-8", true),
            (Framing::Sse, "application/json", false),
            (Framing::Sse, "text/event-streams", false),
            (Framing::Lines, "application/x-ndjson", true),
            (Framing::Lines, "text/event-stream", false),
        ] {
            assert_eq!(framing.is_named_by(kind), expected, "{kind}");
        }
    }

    proptest! {
        #[test]
        fn however_lines_are_cut_they_are_the_same(
            stream in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200),
            cuts in prop::collection::vec(0_usize..200, 0..9),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
            prop_assert_eq!(frame(&pieces, 60), frame(&[&stream], 60));
        }
    }
}
