//! Times of the parts of the request path: framer, decoder, meter, hold and settlement, and all of them together.

#![expect(clippy::unwrap_used, reason = "a bench is a test")]

use std::{hint::black_box, sync::Arc, time::Duration};

use bench_path::{ANSWER, CHUNKS, REQUEST, Work, events};
use billing::{Meter, Output, Price, Prompt, Rates, Slot, Text};
use bytes::Bytes;
use dialect::{
    ChatRequest, Delta, Dialect, EVENT_BYTES_MAX, Framing, Origin, Quirks, RequestLimits, SseEvent,
};
use divan::{Bencher, counter::ItemsCount};
use tokens::{Encoding, Factor, Tokenizer, Usage};

fn main() {
    divan::Divan::from_args()
        .max_time(Duration::from_secs(2))
        .main();
}

fn split() -> Vec<SseEvent> {
    let mut framer = Framing::Sse.framer(EVENT_BYTES_MAX);
    framer.push(Bytes::from(events()));
    std::iter::from_fn(|| framer.next())
        .map(Result::unwrap)
        .collect()
}

#[divan::bench]
fn framer(bencher: Bencher<'_, '_>) {
    let bytes = Bytes::from(events());
    let bencher = bencher.counter(ItemsCount::new(CHUNKS));
    bencher.bench_local(|| {
        let mut framer = Framing::Sse.framer(EVENT_BYTES_MAX);
        framer.push(bytes.clone());
        std::iter::from_fn(|| framer.next()).count()
    });
}

#[divan::bench]
fn decoder(bencher: Bencher<'_, '_>) {
    let events = split();
    let quirks = Arc::new(Quirks::default());
    let bencher = bencher.counter(ItemsCount::new(CHUNKS));
    bencher.bench_local(|| {
        let mut decoder = Dialect::OpenAi.decoder(quirks.clone(), Origin::default());
        let mut deltas: Vec<Delta> = Vec::new();
        for event in &events {
            decoder.push(event.clone(), &mut deltas).unwrap();
        }
        deltas
    });
}

#[divan::bench]
fn answer() -> dialect::Answer {
    let body = Bytes::from_static(ANSWER.as_bytes());
    Dialect::OpenAi
        .decode(body, &Quirks::default(), Origin::default())
        .unwrap()
}

#[divan::bench]
fn request() -> bool {
    let limits = RequestLimits::default();
    ChatRequest::parse(black_box(REQUEST.as_bytes()), &limits)
        .unwrap()
        .stream()
}

#[divan::bench]
fn meter(bencher: Bencher<'_, '_>) {
    let rate = billing::Credits::from_nanos(1_000_000_000);
    let price = Arc::new(Price::new(Rates::plain(rate, rate), vec![]).unwrap());
    let tokenizer = Tokenizer::new(Encoding::O200kBase, Factor::EXACT);
    let text = Text {
        slot: Slot {
            choice: 0,
            part: 0,
            output: Output::Completion,
        },
        text: " word",
    };
    let bencher = bencher.counter(ItemsCount::new(CHUNKS));
    bencher.bench_local(|| {
        let prompt = Prompt::Exact(Usage::default());
        let mut meter = Meter::new(price.clone(), tokenizer, prompt);
        for _ in 0..CHUNKS {
            black_box(meter.cost(&meter.bound_with(&[text])).unwrap());
            meter.push(text);
        }
        meter
    });
}

#[divan::bench]
fn hold_and_settle(bencher: Bencher<'_, '_>) {
    let mut work = Work::new().unwrap();
    bencher.bench_local(move || work.hold_and_settle().unwrap());
}

#[divan::bench]
fn plain(bencher: Bencher<'_, '_>) {
    let mut work = Work::new().unwrap();
    bencher.bench_local(move || work.plain().unwrap());
}

#[divan::bench]
fn streamed(bencher: Bencher<'_, '_>) {
    let mut work = Work::new().unwrap();
    bencher.bench_local(move || work.streamed().unwrap());
}
