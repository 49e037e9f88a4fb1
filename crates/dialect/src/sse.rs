//! Server-sent events: bytes in any split become bounded events, and JSON becomes an event again.
//!
//! The rules are those of the WHATWG HTML standard, section 9.2.6, with one addition: an event that
//! the end of the stream leaves without its blank line is delivered instead of dropped.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use memchr::{memchr, memchr2};

use crate::error::FrameError;

/// What ends a chat stream, as sent on the wire.
pub const DONE_EVENT: &[u8] = b"data: [DONE]\n\n";

/// The data of the event that ends a chat stream.
pub const DONE: &[u8] = b"[DONE]";

/// The largest event accepted unless configured otherwise: 1 MiB.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseEvent {
    /// The data lines joined by line feeds; valid UTF-8 when it comes from an [`SseFramer`]. A slice
    /// of the pushed bytes when the event has one data line that lies inside one push.
    pub data: Bytes,
    /// The name in the `event` field; `None` when there is none or it is empty.
    pub event: Option<Bytes>,
}

impl SseEvent {
    /// An event without a name.
    #[must_use]
    pub const fn data(data: Bytes) -> Self {
        Self { data, event: None }
    }
}

/// Cuts a byte stream into events.
///
/// Push what arrives, then call [`next`](Self::next) until it returns `None`; at the end of the
/// stream call [`finish`](Self::finish) until it returns `None`. Time is linear in the bytes pushed;
/// memory is bounded by `event_bytes_max` plus what was pushed and not yet read.
#[derive(Debug)]
pub struct SseFramer {
    event_bytes_max: usize,
    /// Pushed and not yet read; the first is being read from `at`.
    pushed: VecDeque<Bytes>,
    at: usize,
    /// The part of a line that earlier pushes ended in.
    partial: BytesMut,
    data: Data,
    event: Option<Bytes>,
    /// The last line ended in CR: a line feed that follows belongs to it.
    after_cr: bool,
    first_line: bool,
    failed: bool,
}

/// The data lines of the event being read.
#[derive(Debug)]
enum Data {
    None,
    One(Bytes),
    Many(BytesMut),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(line) => line.len() + 1,
            Self::Many(lines) => lines.len() + 1,
        }
    }

    fn add(&mut self, line: Bytes) {
        *self = match std::mem::replace(self, Self::None) {
            Self::None => Self::One(line),
            Self::One(first) => {
                let mut lines = BytesMut::with_capacity(first.len() + line.len() + 1);
                lines.put(first);
                lines.put_u8(b'\n');
                lines.put(line);
                Self::Many(lines)
            }
            Self::Many(mut lines) => {
                lines.put_u8(b'\n');
                lines.put(line);
                Self::Many(lines)
            }
        };
    }

    fn take(&mut self) -> Option<Bytes> {
        match std::mem::replace(self, Self::None) {
            Self::None => None,
            Self::One(line) => Some(line),
            Self::Many(lines) => Some(lines.freeze()),
        }
    }
}

impl Default for SseFramer {
    fn default() -> Self {
        Self::new(EVENT_BYTES_MAX)
    }
}

impl SseFramer {
    /// A framer that refuses a line or an event of more than `event_bytes_max` bytes. A data line
    /// counts one byte more than its text, so that empty lines count too.
    #[must_use]
    pub fn new(event_bytes_max: usize) -> Self {
        Self {
            event_bytes_max,
            pushed: VecDeque::new(),
            at: 0,
            partial: BytesMut::new(),
            data: Data::None,
            event: None,
            after_cr: false,
            first_line: true,
            failed: false,
        }
    }

    /// Takes what arrived, without copying it.
    pub fn push(&mut self, bytes: Bytes) {
        if !self.failed && !bytes.is_empty() {
            self.pushed.push_back(bytes);
        }
    }

    /// The next event, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError::Utf8`] spoils one event; the ones after it can be read.
    /// [`FrameError::TooLong`] is final: what is buffered is freed and nothing more comes.
    #[expect(
        clippy::should_implement_trait,
        reason = "None means more bytes are needed, not the end"
    )]
    pub fn next(&mut self) -> Option<Result<SseEvent, FrameError>> {
        loop {
            match self.next_line() {
                Ok(None) => return None,
                Ok(Some(line)) => match self.line(line) {
                    Ok(false) => {}
                    Ok(true) => {
                        if let Some(event) = self.dispatch() {
                            return Some(event);
                        }
                    }
                    Err(error) => return Some(Err(self.fail(error))),
                },
                Err(error) => return Some(Err(self.fail(error))),
            }
        }
    }

    /// Call at the end of the stream: what is still buffered is read as if a blank line followed.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn finish(&mut self) -> Option<Result<SseEvent, FrameError>> {
        if let Some(event) = self.next() {
            return Some(event);
        }
        let rest = self.partial.split().freeze();
        if !rest.is_empty()
            && let Err(error) = self.line(rest)
        {
            return Some(Err(self.fail(error)));
        }
        self.dispatch()
    }

    fn fail(&mut self, error: FrameError) -> FrameError {
        self.failed = true;
        self.pushed = VecDeque::new();
        self.at = 0;
        self.partial = BytesMut::new();
        self.data = Data::None;
        self.event = None;
        error
    }

    /// The next whole line without its end.
    fn next_line(&mut self) -> Result<Option<Bytes>, FrameError> {
        while let Some(buffer) = self.pushed.front() {
            if self.after_cr && self.at < buffer.len() {
                self.after_cr = false;
                if buffer.get(self.at) == Some(&b'\n') {
                    self.at += 1;
                }
            }
            let rest = buffer.get(self.at..).unwrap_or_default();
            let end = memchr2(b'\n', b'\r', rest);
            let length = self.partial.len() + end.unwrap_or(rest.len());
            if length > self.event_bytes_max {
                return Err(FrameError::TooLong {
                    max: self.event_bytes_max,
                });
            }
            let Some(end) = end else {
                self.partial.extend_from_slice(rest);
                self.next_push();
                continue;
            };
            let span = self.at..self.at + end;
            self.after_cr = rest.get(end) == Some(&b'\r');
            let line = if self.partial.is_empty() {
                buffer.slice(span.clone())
            } else {
                self.partial
                    .extend_from_slice(buffer.get(span.clone()).unwrap_or_default());
                self.partial.split().freeze()
            };
            self.at = span.end + 1;
            if self.at >= buffer.len() {
                self.next_push();
            }
            return Ok(Some(line));
        }
        Ok(None)
    }

    fn next_push(&mut self) {
        self.pushed.pop_front();
        self.at = 0;
    }

    /// Reads one line; `true` when it ends the event.
    fn line(&mut self, mut line: Bytes) -> Result<bool, FrameError> {
        if std::mem::take(&mut self.first_line) && line.starts_with(b"\xEF\xBB\xBF") {
            line = line.slice(3..);
        }
        if line.is_empty() {
            return Ok(true);
        }
        let colon = memchr(b':', &line);
        let name = line.get(..colon.unwrap_or(line.len())).unwrap_or_default();
        match name {
            b"data" => {
                let value = value(&line, colon);
                if self.data.len() + value.len() > self.event_bytes_max {
                    return Err(FrameError::TooLong {
                        max: self.event_bytes_max,
                    });
                }
                self.data.add(line.slice(value));
            }
            b"event" => self.event = Some(line.slice(value(&line, colon))),
            // A comment (no name), `id`, `retry`, or a field nobody knows.
            _ => {}
        }
        Ok(false)
    }

    fn dispatch(&mut self) -> Option<Result<SseEvent, FrameError>> {
        let event = self.event.take().filter(|name| !name.is_empty());
        let data = self.data.take()?;
        if std::str::from_utf8(&data).is_err() {
            return Some(Err(FrameError::Utf8));
        }
        Some(Ok(SseEvent { data, event }))
    }
}

/// The value of a field: after the colon and at most one space.
fn value(line: &Bytes, colon: Option<usize>) -> Range<usize> {
    let end = line.len();
    match colon {
        None => end..end,
        Some(colon) if line.get(colon + 1) == Some(&b' ') => colon + 2..end,
        Some(colon) => colon + 1..end,
    }
}

/// Writes `json` as one event. Line ends in it, which JSON allows only as white space, become spaces.
pub fn write_event(out: &mut impl BufMut, json: &[u8]) {
    out.put_slice(b"data: ");
    let mut rest = json;
    while let Some(at) = memchr2(b'\n', b'\r', rest) {
        let (line, tail) = rest.split_at(at);
        out.put_slice(line);
        out.put_u8(b' ');
        rest = tail.get(1..).unwrap_or_default();
    }
    out.put_slice(rest);
    out.put_slice(b"\n\n");
}
