//! The stream counter against tiktoken-rs: any split into deltas, and the longest beginning that fits.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::panic::catch_unwind;

use proptest::prelude::*;
use tokens::{Encoding, Factor, StreamCounter, Tokenizer};

const BOTH: [Encoding; 2] = [Encoding::O200kBase, Encoding::Cl100kBase];

fn exactly(encoding: Encoding) -> Tokenizer {
    Tokenizer::new(encoding, Factor::EXACT)
}

fn oracle(encoding: Encoding, text: &str) -> u64 {
    let theirs = match encoding {
        Encoding::O200kBase => tiktoken_rs::o200k_base_singleton(),
        Encoding::Cl100kBase => tiktoken_rs::cl100k_base_singleton(),
        Encoding::Given(given) => unreachable!("tiktoken has no {given:?}"),
    };
    theirs.encode_ordinary(text).len() as u64
}

/// Texts of words, scripts, spaces, digits, emoji and code, mixed, so that every rule of the
/// splitting meets every other.
fn mixed_text(atoms_max: usize) -> impl Strategy<Value = String> {
    let atom = prop_oneof![
        4 => "[a-z]{1,8}",
        2 => "[A-Z]{1,4}",
        2 => "[A-Z][a-z]{1,6}",
        3 => " {1,4}",
        2 => "[ \t\r\n\u{a0}\u{3000}]{1,5}",
        2 => "[0-9]{1,9}",
        2 => "[!-/:-@\\[-`{-~]{1,4}",
        2 => "'(s|t|re|ve|m|ll|d|S|LL|x|r|l|v)",
        2 => "[日本語漢字仮名交文]{1,6}",
        1 => "[ぁ-んァ-ヶー。、]{1,6}",
        1 => "[가-힣]{1,4}",
        1 => "[а-яА-Я]{1,6}",
        1 => "[\u{905}-\u{914}\u{93e}-\u{94d}]{1,6}",
        1 => "[\u{e01}-\u{e3a}]{1,6}",
        1 => "[\u{621}-\u{64a}\u{64b}-\u{652}]{1,5}",
        1 => "[a-z][\u{300}-\u{345}]{1,3}",
        1 => "[😀👍🏽🇩🇪👩\u{200d}❤\u{fe0f}]{1,5}",
        1 => "[ǅʰªß¼Ⅷ٣]{1,3}",
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(atom, 0..atoms_max).prop_map(|atoms| atoms.concat())
}

fn deltas(text: &str, sizes: &[usize]) -> Vec<String> {
    let (mut rest, mut found) = (text, Vec::new());
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at(rest.ceil_char_boundary(*size.max(&1)));
        found.push(now.to_owned());
        rest = later;
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_whole_counts_as_the_oracle_counts(text in mixed_text(40)) {
        for encoding in BOTH {
            prop_assert_eq!(exactly(encoding).count(&text), oracle(encoding, &text));
        }
    }

    #[test]
    fn any_split_counts_as_the_whole_at_every_delta(
        text in mixed_text(40),
        sizes in prop::collection::vec(1..30_usize, 1..8),
    ) {
        for encoding in BOTH {
            let mut counter = StreamCounter::new(exactly(encoding));
            let mut so_far = String::new();
            for delta in deltas(&text, &sizes) {
                counter.push(&delta);
                so_far.push_str(&delta);
                let bound = counter.upper_bound();
                let count = counter.exact();
                prop_assert_eq!(count, oracle(encoding, &so_far), "{:?}", so_far);
                prop_assert!(bound >= count);
                prop_assert_eq!(counter.upper_bound(), count);
            }
            prop_assert!(counter.is_exact());
        }
    }

    #[test]
    fn the_longest_beginning_that_fits_is_the_one_brute_force_finds(
        pushed in mixed_text(6),
        delta in mixed_text(12),
        share in 0..=110_u64,
        counted_before in any::<bool>(),
    ) {
        for encoding in BOTH {
            let whole = format!("{pushed}{delta}");
            let limit = oracle(encoding, &whole) * share / 100;
            let mut counter = StreamCounter::new(exactly(encoding));
            counter.push(&pushed);
            if counted_before {
                counter.exact();
            }
            let longest = (0..=delta.len())
                .rev()
                .filter(|end| delta.is_char_boundary(*end))
                .find(|end| oracle(encoding, &whole[..pushed.len() + end]) <= limit);
            let fits = counter.fit(&delta, limit);
            prop_assert_eq!(fits, longest.unwrap_or(0), "{:?} + {:?} within {}", pushed, delta, limit);
            prop_assert_eq!(counter.exact(), oracle(encoding, &pushed), "fit appended");
        }
    }

    /// The worst case needs no tokenizer: neither its own count nor tiktoken's is above it, for any
    /// characters there are and whatever a model makes of a token.
    #[test]
    fn the_bound_is_never_below_what_tiktoken_counts(
        text in prop_oneof![mixed_text(40), any::<String>(), "\\PC{0,200}", "[\u{0}-\u{20}\u{80}-\u{ffff}]{0,100}"],
        factor in 250..=4000_u32, sizes in prop::collection::vec(1_usize..9, 1..20),
    ) {
        for encoding in BOTH {
            let factor = Factor::new(factor).unwrap();
            let tokenizer = Tokenizer::new(encoding, factor);
            let truth = factor.scale(oracle(encoding, &text));
            prop_assert!(truth <= tokenizer.upper_bound(text.len()));
            let mut counter = StreamCounter::new(tokenizer);
            let mut so_far = String::new();
            for delta in deltas(&text, &sizes) {
                counter.push(&delta);
                so_far.push_str(&delta);
                prop_assert!(factor.scale(oracle(encoding, &so_far)) <= counter.upper_bound());
            }
        }
    }

    #[test]
    fn a_factor_scales_the_total_once(text in mixed_text(20), factor in 250..=4000_u32) {
        let factor = Factor::new(factor).unwrap();
        let mut counter = StreamCounter::new(Tokenizer::new(Encoding::O200kBase, factor));
        for delta in deltas(&text, &[3]) {
            counter.push(&delta);
            let bound = counter.upper_bound();
            prop_assert!(bound >= counter.exact());
        }
        let whole = factor.scale(oracle(Encoding::O200kBase, &text));
        prop_assert_eq!(counter.exact(), whole);
        let mut fresh = StreamCounter::new(Tokenizer::new(Encoding::O200kBase, factor));
        let fits = fresh.fit(&text, whole / 2);
        fresh.push(&text[..fits]);
        prop_assert!(fresh.exact() <= whole / 2);
    }
}

/// Long runs without a space: what a broken or hostile model streams.
fn runs() -> Vec<(&'static str, String)> {
    let mut state = 7_u64;
    let mut letters = String::new();
    while letters.len() < 10_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        letters.push(char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap()));
    }
    let long = |unit: &str| unit.repeat(10_000 / unit.len());
    vec![
        ("a", long("a")),
        ("random letters", letters),
        ("underscores", long("_")),
        ("newlines", long("\n")),
        ("spaces", long(" ")),
        ("tabs", long("\t")),
        ("no-break spaces", long("\u{a0}")),
        ("blank lines", long(" \n")),
        ("Chinese", long("漢字仮名交じり文日本語")),
        ("Thai", long("สวัสดีครับยินดีต้อนรับ")),
        ("emoji", long("😀👍🏽")),
        ("digits", long("1234567890")),
        ("Devanagari", long("नमस्तेदुनिया")),
        ("capitals", long("ABCDEFG")),
        ("camel", long("camelCase")),
        ("base64", long("aGVsbG8gd29ybGQ9Kys/")),
        ("rules", long("=-=-==--")),
        ("hyphens", long("-")),
        ("equals signs", long("=")),
    ]
}

#[test]
fn long_runs_count_exactly_with_little_kept() {
    for encoding in BOTH {
        for (name, text) in runs() {
            for size in [7, 900, 40_000] {
                let mut counter = StreamCounter::new(exactly(encoding));
                let mut longest = 0;
                for delta in deltas(&text, &[size]) {
                    counter.push(&delta);
                    counter.exact();
                    longest = longest.max(counter.pending_bytes());
                }
                assert_eq!(
                    counter.exact(),
                    oracle(encoding, &text),
                    "{encoding} {name} by {size}"
                );
                assert!(counter.is_exact(), "{encoding} {name} by {size}");
                assert!(
                    longest < 4096,
                    "{encoding} {name} by {size}: {longest} bytes kept"
                );
            }
        }
    }
}

#[test]
fn a_limit_cuts_long_runs_where_the_whole_text_would_be_cut() {
    for encoding in BOTH {
        for (name, text) in runs() {
            let limit = exactly(encoding).count(&text) / 2;
            let mut counter = StreamCounter::new(exactly(encoding));
            let first = text.floor_char_boundary(3_000);
            counter.push(&text[..first]);
            let fits = first + counter.fit(&text[first..], limit);
            let count = exactly(encoding).count(&text[..fits]);
            assert!(count <= limit, "{encoding} {name}: {count} > {limit}");
            // No longer beginning fits: the next 100 characters are tried.
            for (at, _) in text[fits..].char_indices().skip(1).take(100) {
                let longer = exactly(encoding).count(&text[..fits + at]);
                assert!(longer > limit, "{encoding} {name}: {at} more bytes fit");
            }
        }
    }
}

#[test]
fn credit_for_n_tokens_lets_n_tokens_through() {
    let text =
        "The quick brown fox jumps over the lazy dog, again and again, for 1234 days. ".repeat(20);
    for encoding in BOTH {
        let total = oracle(encoding, &text);
        for limit in 0..=total {
            let mut counter = StreamCounter::new(exactly(encoding));
            let mut through = String::new();
            for delta in deltas(&text, &[5, 1, 13]) {
                let fits = counter.fit(&delta, limit);
                counter.push(&delta[..fits]);
                through.push_str(&delta[..fits]);
                if fits < delta.len() {
                    break;
                }
            }
            assert_eq!(oracle(encoding, &through), limit, "{encoding}: {through:?}");
        }
    }
}

#[test]
fn every_limit_in_a_delta_of_several_blocks() {
    let code = "fn main() {\n    let total: u64 = items.iter().map(|i| i.cost * 100).sum();\n}\n\n";
    let prose = "Es wäre schön; 東京は日本の首都です。Привет, мир! It's 1234567 o'clock.  ";
    let chinese = "漢字仮名交じり文日本語";
    for encoding in BOTH {
        for unit in [code, prose, chinese] {
            let text = unit.repeat(1800 / unit.len());
            let ends = (0..=text.len()).filter(|end| text.is_char_boundary(*end));
            let counts = ends.map(|end| (end, exactly(encoding).count(&text[..end])));
            let counts = counts.collect::<Vec<_>>();
            for limit in 0..=exactly(encoding).count(&text) {
                let longest = counts.iter().rev().find(|(_, count)| *count <= limit);
                let fits = StreamCounter::new(exactly(encoding)).fit(&text, limit);
                assert_eq!(
                    Some(fits),
                    longest.map(|(end, _)| *end),
                    "{encoding} {limit}"
                );
            }
        }
    }
}

#[test]
fn a_run_that_cannot_be_cut_for_good_is_bounded_and_nearly_exact() {
    for encoding in BOTH {
        for (head, unit) in [("\n", " "), ("日", "A"), ("!\n", "/"), ("a", "日")] {
            let text = format!("{head}{}", unit.repeat(60_000 / unit.len()));
            let mut counter = StreamCounter::new(exactly(encoding));
            for delta in deltas(&text, &[100]) {
                counter.push(&delta);
                counter.exact();
                assert!(counter.pending_bytes() <= 9 * 1024, "{head:?} {unit:?}");
            }
            let off = counter.exact().abs_diff(oracle(encoding, &text));
            assert!(off <= 2, "{encoding} {head:?} {unit:?}: {off} off");
            assert!(off == 0 || !counter.is_exact());
        }
    }
}

#[test]
fn ten_thousand_open_streams_are_small() {
    assert!(
        size_of::<StreamCounter>() <= 96,
        "{}",
        size_of::<StreamCounter>()
    );
    assert!(size_of::<Tokenizer>() <= 24);
}

#[test]
fn what_panics_in_the_oracle_does_not_here() {
    let spaces = " ".repeat(1_000_000);
    let theirs = catch_unwind(|| oracle(Encoding::O200kBase, &spaces));
    assert!(
        theirs.is_err(),
        "the oracle learned to count a million spaces: widen its use here"
    );
    for encoding in BOTH {
        assert!(exactly(encoding).count(&spaces) >= 1_000_000 / 128);
    }
}
