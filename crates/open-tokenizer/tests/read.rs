//! Small tokenizers of each usual kind, as their files have them, counted whole, in pieces and as streams.

#![expect(clippy::unwrap_used, reason = "a test says what failed by panicking")]

use proptest::prelude::*;
use serde_json::{Value, json};
use tokens::{Encoding, Factor, ImageRule, PromptRules, StreamCounter, Tokenizer};

/// GPT-2's characters for bytes: printable ones stand for themselves.
fn byte_characters() -> Vec<char> {
    let mut next = 256;
    let printable = |byte: u32| {
        (0x21..=0x7e).contains(&byte)
            || (0xa1..=0xac).contains(&byte)
            || (0xae..=0xff).contains(&byte)
    };
    let of = (0..256).map(|byte| {
        let character = if printable(byte) {
            byte
        } else {
            next += 1;
            next - 1
        };
        char::from_u32(character).unwrap()
    });
    of.collect()
}

/// Byte-level BPE, as GPT-2, Llama 3 and Qwen have it, with a few merges.
fn byte_level() -> Value {
    let mut vocabulary = serde_json::Map::new();
    for (id, character) in byte_characters().into_iter().enumerate() {
        vocabulary.insert(character.to_string(), json!(id));
    }
    let merges = [
        "t h", "th e", "Ġ the", "i n", "Ġ w", "o r", "Ġw or", "Ġwor d", "r e",
    ];
    for (at, merge) in merges.iter().enumerate() {
        vocabulary.insert(merge.replace(' ', ""), json!(256 + at));
    }
    json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": null, "normalizer": null,
        "added_tokens": [{"id": 300, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null, "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocabulary, "merges": merges},
    })
}

/// SentencePiece's unigrams behind a metaspace, as T5 and XLM have them.
fn unigram() -> Value {
    let mut vocabulary = vec![
        json!(["<unk>", 0.0]),
        json!(["▁the", -2.0]),
        json!(["▁word", -2.5]),
        json!(["s", -3.0]),
        json!(["▁", -4.0]),
    ];
    vocabulary.extend(
        ('a'..='z')
            .filter(|c| *c != 's')
            .map(|c| json!([c.to_string(), -5.0])),
    );
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "post_processor": null, "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": vocabulary, "byte_fallback": false},
    })
}

/// SentencePiece's pairs behind a normalizer that puts a space before every text, as Llama 2 has them.
fn prepended() -> Value {
    let mut vocabulary = serde_json::Map::new();
    vocabulary.insert("<unk>".into(), json!(0));
    for byte in 0..256 {
        vocabulary.insert(format!("<0x{byte:02X}>"), json!(1 + byte));
    }
    let letters: Vec<String> = ('a'..='z').chain(['▁', '.']).map(String::from).collect();
    for (at, letter) in letters.iter().enumerate() {
        vocabulary.insert(letter.clone(), json!(257 + at));
    }
    let merges = ["▁ t", "h e", "▁t he", "▁ w", "o r", "▁w or", "▁wor d"];
    for (at, merge) in merges.iter().enumerate() {
        vocabulary.insert(merge.replace(' ', ""), json!(300 + at));
    }
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "vocab": vocabulary, "merges": merges},
    })
}

fn tokenizer(json: &Value, name: &str) -> Tokenizer {
    let given = open_tokenizer::read(json.to_string().as_bytes(), name).unwrap();
    Tokenizer::new(Encoding::Given(given), Factor::EXACT)
}

/// What the library says of the whole text, which our pieces have to add up to.
fn whole(json: &Value, text: &str) -> u64 {
    let mut plain = tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap();
    plain.with_truncation(None).unwrap();
    plain.encode_fast(text, false).unwrap().len() as u64
}

#[test]
fn tokens_are_those_of_the_file() {
    let bytes = tokenizer(&byte_level(), "bytes");
    // Ġthe, Ġword, s
    assert_eq!(bytes.count(" the words"), 3);
    assert_eq!(bytes.count("the"), 1);
    assert_eq!(bytes.count("日"), 3);
    // A special token is the characters it is written with, and nothing is cut off.
    assert_eq!(bytes.count("<|end|>"), 7);
    assert_eq!(bytes.count(&"x".repeat(100)), 100);
    let unigrams = tokenizer(&unigram(), "unigrams");
    assert_eq!(unigrams.count("the words"), 3);
    let prepended = tokenizer(&prepended(), "prepended");
    assert_eq!(prepended.count("the word"), 2);
    // What it has no letter for is its bytes.
    assert_eq!(prepended.count("the 日"), 2 + 3);
}

#[test]
fn a_long_text_is_what_the_library_counts_and_a_stream_is_the_same() {
    let text = "the word in the world there. some other words then the word\n".repeat(300);
    for (name, json) in [
        ("bytes", byte_level()),
        ("unigrams", unigram()),
        ("prepended", prepended()),
    ] {
        let tokenizer = tokenizer(&json, name);
        let (count, theirs) = (tokenizer.count(&text), whole(&json, &text));
        println!("{name}: {count} counted, {theirs} by the library");
        assert!(
            count.abs_diff(theirs) * 1000 <= theirs,
            "{name}: {count} {theirs}"
        );
        assert!(count <= tokenizer.upper_bound(text.len()));
        let mut stream = StreamCounter::new(tokenizer);
        for at in (0..text.len()).step_by(7) {
            stream.push(&text[at..text.len().min(at + 7)]);
            if at % 5 == 0 {
                stream.exact();
            }
        }
        assert_eq!(stream.exact(), count, "{name}");
        let fits = StreamCounter::new(tokenizer).fit(&text, count / 2);
        assert!(tokenizer.count(&text[..fits]) <= count / 2);
        assert!(tokenizer.count(&text[..fits + 16]) > count / 2, "{name}");
    }
}

/// The same pairs behind a normalizer that may make a text longer, as Qwen has them.
fn normalized(normalizer: &str) -> Value {
    let mut json = byte_level();
    json["normalizer"] = json!({"type": normalizer});
    json
}

/// The bound of a prompt, whose text may become longer before it is cut.
fn bound(json: &Value, name: &str, text: &str) -> u64 {
    PromptRules::new(tokenizer(json, name), ImageRule::Gpt4o).upper_bound(text.len(), 0)
}

#[test]
fn a_text_that_becomes_longer_stays_below_its_bound() {
    // The characters that Unicode names as those that grow most.
    for (form, text) in [
        ("NFC", "\u{1d160}"),
        ("NFD", "\u{390}"),
        ("NFKC", "\u{fdfa}"),
        ("NFKD", "\u{fdfa}"),
    ] {
        let (json, text) = (normalized(form), text.repeat(100));
        let (truth, bound) = (whole(&json, &text), bound(&json, form, &text));
        assert!(truth > text.len() as u64, "{form}: nothing has grown");
        assert!(truth <= bound, "{form}: {truth} {bound}");
    }
    // Without a normalizer a token is a byte at least.
    assert!(bound(&byte_level(), "bytes", "abc") < 9);
}

proptest! {
    #[test]
    fn no_text_is_above_the_bound(text in "\\PC{0,40}", form in 0_usize..4) {
        let form = ["NFC", "NFD", "NFKC", "NFKD"][form];
        let json = normalized(form);
        prop_assert!(whole(&json, &text) <= bound(&json, form, &text));
    }
}

#[test]
fn what_is_no_tokenizer_is_refused() {
    let refused = |json: &str| {
        open_tokenizer::read(json.as_bytes(), "x")
            .unwrap_err()
            .to_string()
    };
    for json in [
        "",
        "{}",
        "[]",
        r#"{"version":"1.0"}"#,
        r#"{"version":"9","model":{"type":"Magic"}}"#,
    ] {
        assert!(refused(json).contains("tokenizer.json"), "{json}");
    }
    let mut nothing = unigram();
    nothing["model"]["vocab"] = json!([]);
    assert!(open_tokenizer::read(nothing.to_string().as_bytes(), "x").is_err());
}
