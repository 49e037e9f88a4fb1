//! An open model that is counted by its own `tokenizer.json`: what the library makes of a text is what the program quotes, charges and cuts by.

use std::path::Path;
use std::sync::LazyLock;

use http::Method;
use mock_provider::{MockProvider, Script};
use serde_json::{Value, json};
use tests::{ADMIN_KEY, Books, Customer, KEY_VARIABLE, Launch, Place, Plain, Program, tokens_cost};
use tokenizers::Tokenizer;

/// GPT-2's tokens beside its `<|endoftext|>`.
const VOCABULARY: u32 = 50_256;
/// Tokens around a prompt of one message: 3 for the message, 1 for its role, 3 for the reply.
const FRAMING: u64 = 3 + 1 + 3;

/// The file of GPT-2, as the model comes with it, and the library that reads it.
static GPT2: LazyLock<(String, Tokenizer)> = LazyLock::new(|| {
    let json = gpt2().to_string();
    let tokenizer = Tokenizer::from_bytes(&json).unwrap();
    (json, tokenizer)
});

/// Texts that it cuts in many ways, some of them much finer than GPT-4o's tokenizer does.
const TEXTS: [&str; 6] = [
    "The quick brown fox jumps over the lazy dog; it isn't tired, and won't be for 1234 years.",
    "fn main() {\n    let n: u32 = 40 + 2;\n    println!(\"{n}\");\n}\n",
    "Ранним утром поезд медленно отошёл от маленькой станции.",
    "東京は日本の首都です。人口は約千四百万人。",
    "{\"a\": [1.10, true, null], \"b\": {\"c\": \"\\u00e9\"}}",
    "So   many    spaces\n\n\nand 🦀🦀 crabs — naïve café",
];

/// GPT-2's `tokenizer.json`, out of its published ranks: the characters that stand for bytes, each
/// token's number, and for each token the two that it is merged from.
fn gpt2() -> Value {
    let ranks = tiktoken_rs::r50k_base().unwrap();
    let tokens: Vec<Vec<u8>> = (0..VOCABULARY)
        .map(|rank| ranks.decode_bytes(&[rank]).unwrap())
        .collect();
    let numbers: std::collections::HashMap<&[u8], usize> = tokens
        .iter()
        .enumerate()
        .map(|(number, token)| (token.as_slice(), number))
        .collect();
    let characters = byte_characters();
    let written = |bytes: &[u8]| -> String {
        bytes
            .iter()
            .map(|byte| characters[*byte as usize])
            .collect()
    };
    let mut merges = Vec::new();
    for (number, token) in tokens.iter().enumerate().filter(|(_, t)| t.len() > 1) {
        // Its bytes, merged as far as the tokens before it go: two parts are left.
        let mut parts: Vec<&[u8]> = token.chunks(1).collect();
        while parts.len() > 2 {
            let pair = |at: usize| &token[start(&parts, at)..start(&parts, at + 2)];
            let known = |at: usize| numbers.get(pair(at)).filter(|n| **n < number);
            let best = (0..parts.len() - 1)
                .filter_map(|at| Some((known(at)?, at)))
                .min();
            let (_, at) = best.unwrap();
            let joined = pair(at);
            parts.splice(at..at + 2, [joined]);
        }
        merges.push(json!([written(parts[0]), written(parts[1])]));
    }
    let mut vocabulary: serde_json::Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(number, token)| (written(token), json!(number)))
        .collect();
    vocabulary.insert("<|endoftext|>".into(), json!(VOCABULARY));
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": VOCABULARY, "content": "<|endoftext|>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": true, "special": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges},
    })
}

/// Where a part begins among the bytes that all of them are.
fn start(parts: &[&[u8]], at: usize) -> usize {
    parts[..at].iter().map(|part| part.len()).sum()
}

/// GPT-2's characters for bytes: printable ones stand for themselves.
fn byte_characters() -> Vec<char> {
    let mut next = 256;
    let of = (0..256_u32).map(|byte| {
        let printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let shown = if printable { byte } else { next };
        next += u32::from(!printable);
        char::from_u32(shown).unwrap()
    });
    of.collect()
}

/// What the library makes of a text.
fn theirs(text: &str) -> u64 {
    GPT2.1.encode_fast(text, false).unwrap().len() as u64
}

async fn program(place: &Place, provider: &MockProvider, tokenizer: &Path) -> Program {
    let file = format!(
        "name = \"open\"\ndialect = \"openai\"\nbase_url = \"{}\"\napi_key_env = \"{KEY_VARIABLE}\"\n\
         [[models]]\nid = \"gpt2\"\ntokenizer_json = {tokenizer:?}\ncontext_window = 128000\n\
         max_output_tokens = 16384\nprice = {{ prompt = \"1\", completion = \"1\" }}\n",
        provider.url()
    );
    let launch = Launch {
        database_url: place.url().to_owned(),
        providers: vec![("open".to_owned(), file)],
        variables: vec![("TOLLWAY_ADMIN_KEY".to_owned(), ADMIN_KEY.to_owned())],
        log: None,
    };
    let start = tokio::task::spawn_blocking(move || Program::launch(&launch));
    start.await.unwrap()
}

fn chat(prompt: &str, stream: bool) -> Value {
    json!({"model": "gpt2", "stream": stream, "messages": [{"role": "user", "content": prompt}]})
}

async fn quoted(program: &Program, customer: &Customer, prompt: &str) -> u64 {
    let call = program.call(Method::POST, "/v1/quote", &customer.secret);
    let call = call.header("content-type", "application/json");
    let call = call.body(chat(prompt, false).to_string());
    let quote = Plain::read(call.send().await.unwrap()).await.expect(200);
    quote.json()["prompt_tokens"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_model_is_quoted_charged_and_cut_by_its_own_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gpt2.json");
    std::fs::write(&path, &GPT2.0).unwrap();
    // The file is GPT-2's: the library cuts by it as tiktoken does by the ranks.
    let ranks = tiktoken_rs::r50k_base().unwrap();
    let long: String = TEXTS.iter().cycle().take(400).copied().collect();
    for text in TEXTS.into_iter().chain([long.as_str()]) {
        assert_eq!(
            theirs(text),
            ranks.encode_ordinary(text).len() as u64,
            "{text}"
        );
    }
    let place = Place::new(Books::Sqlite).await;
    let provider = MockProvider::start(([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let program = program(&place, &provider, &path).await;
    let customer = program.customer("10").await;
    for text in TEXTS {
        assert_eq!(
            quoted(&program, &customer, text).await,
            FRAMING + theirs(text),
            "{text}"
        );
    }
    // Of a long text a piece's last word may be cut otherwise.
    let (ours, truth) = (
        quoted(&program, &customer, &long).await,
        FRAMING + theirs(&long),
    );
    assert!(ours.abs_diff(truth) * 1_000 <= truth, "{ours} {truth}");

    // Nothing is reported: what is charged is what the library counts.
    let answer = TEXTS.concat();
    let script = Script::new().words(&answer).finish("stop").done();
    provider.script("gpt2", script);
    let events = program
        .stream(&customer, chat(TEXTS[0], true))
        .await
        .rest()
        .await;
    assert_eq!(events.text(), answer);
    let charge = program.charge(&customer).await;
    assert_eq!(charge["usage_source"], "counted");
    let counted = |charge: &Value| {
        let usage = &charge["usage"];
        ["prompt_tokens", "completion_tokens"].map(|name| usage[name].as_u64().unwrap())
    };
    assert_eq!(
        counted(&charge),
        [FRAMING + theirs(TEXTS[0]), theirs(&answer)]
    );

    // Credit for so many tokens: the stream ends where the library counts as many.
    for paid in [40, 41, 42, 87] {
        let poor = program.customer(tokens_cost(paid)).await;
        let events = program
            .stream(&poor, chat(TEXTS[0], true))
            .await
            .rest()
            .await;
        assert_eq!(events.error().unwrap()["code"], "insufficient_quota");
        let said = events.text();
        assert!(answer.starts_with(&said));
        let charge = program.charge(&poor).await;
        let [prompt, completion] = counted(&charge);
        assert_eq!(
            (prompt, completion),
            (FRAMING + theirs(TEXTS[0]), theirs(&said)),
            "{paid}"
        );
        // Where a character is of several tokens all of them go, or none.
        assert!(
            paid - 3 < prompt + completion && prompt + completion <= paid,
            "{paid} {said:?}"
        );
    }
    tokio::task::spawn_blocking(move || program.kill())
        .await
        .unwrap();
}
