//! Counting takes time linear in the bytes, whatever the text, and agrees with tiktoken-rs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Instant;

use tokens::{Encoding, Factor, StreamCounter, Tokenizer};

const MIB: usize = 1 << 20;
const BOTH: [Encoding; 2] = [Encoding::O200kBase, Encoding::Cl100kBase];

/// CPU time of this thread in milliseconds, so that a busy machine does not matter; elapsed time
/// where the system does not tell it.
fn cpu_ms(work: impl FnOnce()) -> f64 {
    let on_cpu = || {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    let (before, started) = (on_cpu(), Instant::now());
    work();
    match (before, on_cpu()) {
        (Some(before), Some(after)) => (after - before) as f64 / 1e6,
        (None, _) | (_, None) => started.elapsed().as_secs_f64() * 1e3,
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap() % bound
    }
}

fn generated(bytes: usize) -> Vec<(&'static str, String)> {
    let filled = |mut next: Box<dyn FnMut() -> String>| {
        let mut text = String::with_capacity(bytes + 8);
        while text.len() < bytes {
            text.push_str(&next());
        }
        text.truncate(text.floor_char_boundary(bytes));
        text
    };
    let repeated = |unit: &'static str| filled(Box::new(move || unit.to_owned()));
    let chars = |first: u32, count: u32| {
        let mut random = Random(42);
        filled(Box::new(move || {
            char::from_u32(first + random.below(count))
                .unwrap()
                .to_string()
        }))
    };
    let english =
        "It was the best of times, it was the worst of times; we had everything before us. ";
    let code = "fn main() {\n    let total: u64 = items.iter().map(|i| i.cost * 100).sum();\n}\n\n";
    let json =
        r#"{"id":4711,"name":"Ada","tags":["a","b"],"at":"2026-01-31T12:00:00Z","ok":true},"#;
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut random = Random(7);
    let base64 = filled(Box::new(move || {
        char::from(letters[random.below(64) as usize]).to_string()
    }));
    vec![
        ("English", repeated(english)),
        ("code", repeated(code)),
        ("JSON", repeated(json)),
        ("base64", base64),
        ("one letter", repeated("a")),
        ("random letters", chars(0x61, 26)),
        ("underscores", repeated("_")),
        ("newlines", repeated("\n")),
        ("Chinese", chars(0x4e00, 0x5000)),
        ("emoji", chars(0x1f600, 0x40)),
        ("spaces", repeated(" ")),
        ("tabs", repeated("\t")),
        ("no-break spaces", repeated("\u{a0}")),
        ("digits", chars(0x30, 10)),
    ]
}

/// `cargo xtask bench counting` shows its table.
#[test]
fn a_mebibyte_of_anything_is_linear() {
    let (one, two) = (generated(MIB), generated(2 * MIB));
    println!("| encoding | text | tokens | ms for a MiB | times English | as a stream |");
    println!("|---|---|---|---|---|---|");
    let mut worst = (0.0, String::new());
    for encoding in BOTH {
        let tokenizer = Tokenizer::new(encoding, Factor::EXACT);
        tokenizer.warm_up();
        let mut english = 0.0;
        for ((name, one), (_, two)) in one.iter().zip(&two) {
            let mut count = 0;
            let best = |text: &str, count: &mut u64| {
                let runs = (0..2).map(|_| cpu_ms(|| *count = tokenizer.count(text)));
                runs.fold(f64::INFINITY, f64::min)
            };
            let small = best(one, &mut count);
            let large = best(two, &mut 0);
            let streamed = cpu_ms(|| {
                let mut counter = StreamCounter::new(tokenizer);
                counter.push(one);
                assert_eq!(counter.exact(), count, "{encoding} {name}");
            });
            if english == 0.0 {
                english = small;
            }
            let times = small / english;
            println!("| {encoding} | {name} | {count} | {small:.1} | {times:.1} | {streamed:.1} |");
            if small > worst.0 {
                worst = (small, format!("{name} in {encoding}"));
            }
            // Some ticks of the CPU clock (4 ms) of slack; what is quadratic takes seconds.
            assert!(
                large < 3.0 * small + 20.0,
                "{encoding} {name}: {small:.1} ms, then {large:.1}"
            );
        }
    }
    println!("the worst: {} with {:.1} ms for a MiB", worst.1, worst.0);
}

#[test]
fn a_stream_costs_microseconds_a_delta() {
    for encoding in BOTH {
        let tokenizer = Tokenizer::new(encoding, Factor::EXACT);
        tokenizer.warm_up();
        for (name, text) in generated(24 * 1024) {
            let mut counter = StreamCounter::new(tokenizer);
            let mut deltas = 0;
            let ms = cpu_ms(|| {
                let mut rest = text.as_str();
                while !rest.is_empty() {
                    let (now, later) = rest.split_at(rest.ceil_char_boundary(5));
                    counter.push(now);
                    counter.exact();
                    rest = later;
                    deltas += 1;
                }
            });
            println!(
                "{encoding} {name}: {:.1} us a delta",
                ms * 1e3 / f64::from(deltas)
            );
            assert_eq!(counter.exact(), tokenizer.count(&text), "{encoding} {name}");
        }
    }
}

#[test]
fn a_small_limit_stops_early() {
    for encoding in BOTH {
        let tokenizer = Tokenizer::new(encoding, Factor::EXACT);
        tokenizer.warm_up();
        for (name, text) in generated(MIB) {
            let whole = cpu_ms(|| assert!(tokenizer.count_at_most(&text, u64::MAX).is_some()));
            let early = cpu_ms(|| assert_eq!(tokenizer.count_at_most(&text, 100), None));
            println!("{encoding} {name}: {early:.2} ms instead of {whole:.1}");
            // Three clock ticks of slack.
            assert!(early < whole / 2.0 + 12.0, "{encoding} {name}");
        }
    }
}

#[test]
fn a_limit_in_a_large_delta_is_found_in_linear_time() {
    for encoding in BOTH {
        let tokenizer = Tokenizer::new(encoding, Factor::EXACT);
        tokenizer.warm_up();
        for (name, text) in generated(256 * 1024) {
            let half = tokenizer.count(&text) / 2;
            let mut counter = StreamCounter::new(tokenizer);
            let mut fits = 0;
            let ms = cpu_ms(|| fits = counter.fit(&text, half));
            println!("{encoding} {name}: {ms:.1} ms to cut 256 KiB at half");
            assert!(tokenizer.count(&text[..fits]) <= half);
            assert!(fits > text.len() / 3, "{encoding} {name}: {fits}");
            let mut open = StreamCounter::new(tokenizer);
            open.push(&text[..text.floor_char_boundary(5000)]);
            let limit = open.exact() + 5;
            let delta = &text[..text.floor_char_boundary(60)];
            let ms = cpu_ms(|| (0..20).for_each(|_| fits = open.fit(delta, limit)));
            println!(
                "{encoding} {name}: {:.2} ms to cut a small delta",
                ms / 20.0
            );
        }
    }
}

#[test]
fn the_counts_are_tiktokens() {
    for encoding in BOTH {
        let theirs = match encoding {
            Encoding::O200kBase => tiktoken_rs::o200k_base_singleton(),
            Encoding::Cl100kBase => tiktoken_rs::cl100k_base_singleton(),
            Encoding::Given(given) => unreachable!("tiktoken has no {given:?}"),
        };
        // The oracle panics on 999,999 characters of white space, so it is asked for fewer.
        for (name, text) in generated(256 * 1024) {
            let expected = theirs.encode_ordinary(&text).len() as u64;
            let counted = Tokenizer::new(encoding, Factor::EXACT).count(&text);
            assert_eq!(counted, expected, "{encoding} {name}");
        }
    }
}
