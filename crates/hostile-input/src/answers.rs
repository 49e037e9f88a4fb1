//! What providers answer, plain and streamed, as it is read, metered, cut and written to each kind of client.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dialect::{
    Answer, Bill, Chunk, ClientDialect, Delta, Dialect, Ending, Endpoint, ForwardedAnswer, Framing,
    Keep, Origin, Pair, Quirks, StreamNames, TextRef,
};
use tokens::{Usage, UsageSource};

use crate::{assert_json, choice, pick, quirks};

const EVENT_BYTES_MAX: usize = 64 * 1024;

fn origin() -> Origin {
    Origin {
        created: 1_700_000_000,
        id: "req_1".into(),
        model: "m".into(),
    }
}

fn names() -> StreamNames {
    StreamNames {
        origin: origin(),
        clock: || 1_700_000_001,
        // What a response says again of its request; no other dialect looks at it.
        repeated: r#""instructions":null"#.into(),
        tier: r#""default""#.into(),
        keep: Keep::Gateway,
    }
}

fn billed<T>(reported: bool, take: impl FnOnce(&Bill<'_>) -> T) -> T {
    let usage = Usage {
        prompt: 3,
        completion: 4,
        ..Usage::default()
    };
    let source = if reported {
        UsageSource::Reported
    } else {
        UsageSource::Counted
    };
    take(&Bill {
        usage: &usage,
        source,
        cost: "0.001",
        cost_details: None,
    })
}

/// Half of each text, between two characters: what a customer may have paid for.
fn halves<'a>(texts: impl Iterator<Item = TextRef<'a>>) -> Vec<usize> {
    let half = |text: TextRef<'_>| text.text.floor_char_boundary(text.text.len() / 2);
    texts.map(half).collect()
}

/// A provider's answer of one dialect.
pub(crate) fn body(dialect: Dialect, data: &[u8]) {
    let Some((mut choice, rest)) = choice(data) else {
        return;
    };
    let quirks = quirks(&mut choice);
    let clients = [
        ClientDialect::Chat,
        ClientDialect::Messages,
        ClientDialect::Responses,
    ];
    let Some(client) = pick(&mut choice, &clients) else {
        return;
    };
    let pair = Pair::new(client, dialect, &quirks);
    if choice % 2 == 0 {
        plain(pair, &quirks, rest);
    } else {
        Stream::new(pair, quirks).play(dialect.framing(), rest);
    }
}

fn plain(pair: Pair, quirks: &Quirks, body: &[u8]) {
    let Ok(answer) = pair.decode(Bytes::copy_from_slice(body), quirks, origin()) else {
        return;
    };
    check_answer(pair, &answer);
}

fn check_answer(pair: Pair, answer: &Answer) {
    assert_json("an answer", answer.json());
    let _ = (answer.usage(), answer.usage_text(), answer.choices());
    let _ = (answer.service_tier(), answer.texts().count());
    for reported in [true, false] {
        let bytes = billed(reported, |bill| pair.answer(answer, bill, &names()));
        assert_json("an answer with its bill", &bytes);
    }
}

/// A stream on its way from a provider to a client.
struct Stream {
    pair: Pair,
    decoder: dialect::Decoder,
    writer: dialect::StreamWriter,
    out: BytesMut,
    failed: bool,
    done: bool,
}

impl Stream {
    fn new(pair: Pair, quirks: Quirks) -> Self {
        Self {
            pair,
            decoder: pair.decoder(Arc::new(quirks), origin()),
            writer: pair.writer(names(), true),
            out: BytesMut::new(),
            failed: false,
            done: false,
        }
    }

    fn play(mut self, framing: Framing, bytes: &[u8]) {
        let mut framer = framing.framer(EVENT_BYTES_MAX);
        framer.push(Bytes::copy_from_slice(bytes));
        let mut deltas = Vec::new();
        while let Some(event) = framer.next().or_else(|| framer.finish()) {
            deltas.clear();
            let read = event.map_err(|error| error.to_string());
            let read = read.and_then(|event| {
                let pushed = self.decoder.push(event, &mut deltas);
                pushed.map_err(|error| error.to_string())
            });
            for delta in &deltas {
                if !self.failed {
                    self.delta(delta);
                }
            }
            // Nothing is read after an error.
            self.failed |= read.is_err();
            if self.failed {
                break;
            }
        }
        let _ = (self.decoder.usage(), self.decoder.skipped());
        self.end();
        self.check_written();
    }

    fn delta(&mut self, delta: &Delta) {
        match delta {
            Delta::Chunk(chunk) => {
                assert!(!self.done, "a chunk after the end");
                self.chunk(chunk);
            }
            Delta::Done => self.done = true,
            Delta::Error(_) => {
                assert!(!self.done, "an error after the end");
                self.failed = true;
            }
        }
    }

    fn chunk(&mut self, chunk: &Chunk) {
        assert_json("a chunk", chunk.json());
        let _ = (chunk.usage(), chunk.prompt_usage(), chunk.usage_text());
        let _ = (chunk.service_tier(), chunk.has_text());
        let keep = halves(chunk.texts());
        assert_json("a chunk that was cut", &chunk.cut(&keep));
        // A stream may be cut at any of its chunks, and is over then.
        let mut cut = self.pair.writer(names(), true);
        let mut out = BytesMut::new();
        cut.cut(chunk, &keep, &mut out);
        check_events(&out);
        let bills = self.writer.bills(chunk);
        let (writer, out) = (&mut self.writer, &mut self.out);
        billed(true, |bill| writer.chunk(chunk, bills.then_some(bill), out));
    }

    fn end(&mut self) {
        let whole = self.decoder.ending() != Ending::Cut && !self.failed;
        let template = self.decoder.template();
        let (writer, out) = (&mut self.writer, &mut self.out);
        billed(false, |bill| {
            if whole {
                writer.complete(Some(bill), template, out);
            } else {
                let error = dialect::ErrorBody::<()> {
                    message: "gone",
                    kind: "upstream_error",
                    param: None,
                    code: "upstream_failed",
                    metadata: None,
                };
                writer.fail(&error, 502, Some(bill), template, out);
            }
        });
        if let Some(kept) = self.writer.kept() {
            assert_json("a response that is kept", kept.as_bytes());
        }
    }

    fn check_written(&self) {
        check_events(&self.out);
    }
}

/// What a client gets is events, each with a JSON text or the end.
fn check_events(written: &[u8]) {
    let mut framer = Framing::Sse.framer(usize::MAX);
    framer.push(Bytes::copy_from_slice(written));
    while let Some(event) = framer.next() {
        assert!(event.is_ok(), "{event:?}");
        let Ok(event) = event else { return };
        if event.data != dialect::DONE {
            assert_json("an event for a client", &event.data);
        }
    }
    assert!(framer.finish().is_none(), "half an event for a client");
}

/// An answer of an endpoint beside the chats.
pub(crate) fn forwarded(data: &[u8]) {
    let Some((mut choice, rest)) = choice(data) else {
        return;
    };
    let Some(endpoint) = pick(&mut choice, &Endpoint::ALL) else {
        return;
    };
    let Ok(answer) = ForwardedAnswer::decode(endpoint, Bytes::copy_from_slice(rest)) else {
        return;
    };
    let _ = (answer.usage(), answer.usage_text(), answer.data());
    for reported in [true, false] {
        let bytes = billed(reported, |bill| answer.with_bill(bill));
        assert_json("an answer with its bill", &bytes);
    }
}
