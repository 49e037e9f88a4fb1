//! The framers: however a stream's bytes are cut, its events are the same, and none is too large.

use bytes::Bytes;
use dialect::Framing;

use crate::{choice, pick};

/// The most bytes of an event here: small, so that inputs come across it.
const EVENT_BYTES_MAX: usize = 512;

/// The events of a stream whose bytes come in these pieces: names and data, or why there is none.
fn framed<'a>(
    framing: Framing,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Vec<Result<(Option<Bytes>, Bytes), String>> {
    let mut framer = framing.framer(EVENT_BYTES_MAX);
    let mut events = Vec::new();
    for piece in pieces {
        framer.push(Bytes::copy_from_slice(piece));
        while let Some(event) = framer.next() {
            events.push(event);
        }
    }
    while let Some(event) = framer.finish() {
        events.push(event);
    }
    let events = events.into_iter().map(|event| match event {
        Ok(event) => Ok((event.event, event.data)),
        Err(error) => Err(error.to_string()),
    });
    events.collect()
}

/// See the module.
pub(crate) fn body(data: &[u8]) {
    let Some((mut choice, rest)) = choice(data) else {
        return;
    };
    let framings = [Framing::Sse, Framing::Lines, Framing::AwsEventStream];
    let Some(framing) = pick(&mut choice, &framings) else {
        return;
    };
    let whole = framed(framing, std::iter::once(rest));
    for event in whole.iter().flatten() {
        assert!(event.1.len() <= EVENT_BYTES_MAX, "{} bytes", event.1.len());
    }
    assert_eq!(framed(framing, rest.chunks(1)), whole, "by the byte");
    assert_eq!(framed(framing, rest.chunks(choice + 2)), whole, "in pieces");
}
