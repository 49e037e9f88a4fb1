//! AWS's binary event stream: bytes in any split become bounded events.
//!
//! Source: Amazon's "Event stream encoding". A frame is its length, the length of its headers, a
//! checksum of both, the headers, the payload, and a checksum of all.

use aws_smithy_eventstream::frame::read_message_from;
use bytes::{Buf as _, Bytes, BytesMut};

use crate::error::FrameError;
use crate::sse::SseEvent;

/// What the name of an event begins with that is an exception.
pub(crate) const EXCEPTION: &[u8] = b"!";
/// Two lengths and their checksum.
const PRELUDE_BYTES: usize = 12;

/// Cuts a byte stream into frames, each an event: named by its type, with its payload as data. An
/// exception is named by its type too, after an exclamation mark.
#[derive(Debug)]
pub struct EventStreamFramer {
    event_bytes_max: usize,
    buffer: BytesMut,
    failed: bool,
}

impl EventStreamFramer {
    /// A framer that refuses a frame of more than `event_bytes_max` bytes.
    #[must_use]
    pub fn new(event_bytes_max: usize) -> Self {
        Self {
            event_bytes_max,
            buffer: BytesMut::new(),
            failed: false,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if !self.failed {
            self.buffer.extend_from_slice(bytes);
        }
    }

    pub(crate) fn next(&mut self) -> Option<Result<SseEvent, FrameError>> {
        if self.buffer.len() < PRELUDE_BYTES {
            return None;
        }
        let length = self.buffer.as_ref().get_u32();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > self.event_bytes_max {
            return Some(Err(self.fail(FrameError::TooLong {
                max: self.event_bytes_max,
            })));
        }
        if length < PRELUDE_BYTES {
            return Some(Err(self.fail(FrameError::Damaged)));
        }
        if self.buffer.len() < length {
            return None;
        }
        let mut frame = self.buffer.split_to(length).freeze();
        match event(&mut frame) {
            Ok(event) => Some(Ok(event)),
            Err(FrameError::Utf8) => Some(Err(FrameError::Utf8)),
            Err(error @ (FrameError::Damaged | FrameError::TooLong { .. })) => {
                Some(Err(self.fail(error)))
            }
        }
    }

    /// Half a frame at the end of the stream is damage.
    pub(crate) fn finish(&mut self) -> Option<Result<SseEvent, FrameError>> {
        if let Some(event) = self.next() {
            return Some(event);
        }
        (!self.buffer.is_empty()).then(|| Err(self.fail(FrameError::Damaged)))
    }

    fn fail(&mut self, error: FrameError) -> FrameError {
        self.failed = true;
        self.buffer = BytesMut::new();
        error
    }
}

fn event(frame: &mut Bytes) -> Result<SseEvent, FrameError> {
    let message = read_message_from(frame).map_err(|_| FrameError::Damaged)?;
    let header = |name: &str| {
        let mut headers = message.headers().iter();
        let found = headers.find(|header| header.name().as_str() == name)?;
        Some(found.value().as_string().ok()?.as_str())
    };
    let name = match header(":message-type") {
        Some("exception") => exception(header(":exception-type")),
        Some("error") => exception(header(":error-code")),
        Some(_) | None => {
            Bytes::copy_from_slice(header(":event-type").unwrap_or_default().as_bytes())
        }
    };
    let data = message.payload().clone();
    if std::str::from_utf8(&data).is_err() {
        return Err(FrameError::Utf8);
    }
    Ok(SseEvent {
        data,
        event: (!name.is_empty()).then_some(name),
    })
}

fn exception(kind: Option<&str>) -> Bytes {
    Bytes::from([EXCEPTION, kind.unwrap_or_default().as_bytes()].concat())
}
