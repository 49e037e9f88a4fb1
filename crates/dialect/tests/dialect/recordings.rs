//! Recorded traffic of real providers, where it lies beside the checkout: every chat recording decodes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dialect::{Delta, Dialect, Quirks, SseEvent};
use tokens::Usage;

/// Recordings of OpenAI-compatible chat APIs: folder, and the quirks that its provider has.
const PROVIDERS: &[(&str, &str)] = &[
    ("alibaba", ""),
    ("azure", ""),
    ("deepseek", ""),
    ("groq", "usage_at=['/usage','/x_groq/usage']"),
    ("mistral", ""),
    ("moonshotai", "usage_at=['/usage','/choices/0/usage']"),
    ("openai", ""),
    ("openai-compatible", "reasoning='beside'"),
    ("perplexity", ""),
    ("xai", "reasoning='beside'"),
];

fn root() -> PathBuf {
    std::env::var_os("TOLLWAY_FIXTURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"),
        PathBuf::from,
    )
}

fn files(folder: &Path, out: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else {
            out.push(path);
        }
    }
    out.sort();
}

fn is_chat(json: &str) -> bool {
    let value: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    value
        .get("choices")
        .is_some_and(serde_json::Value::is_array)
}

struct Row {
    chunks: usize,
    texts: usize,
    text_bytes: usize,
    usage: Usage,
}

fn stream(text: &str, quirks: Quirks) -> Row {
    let mut decoder = Dialect::OpenAi.decoder(Arc::new(quirks));
    let mut row = Row {
        chunks: 0,
        texts: 0,
        text_bytes: 0,
        usage: Usage::default(),
    };
    let mut out = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        decoder
            .push(SseEvent::data(Bytes::from(line.to_owned())), &mut out)
            .unwrap();
        for delta in out.drain(..) {
            let Delta::Chunk(chunk) = delta else {
                panic!("{line}")
            };
            assert_eq!(chunk.json(), line);
            row.chunks += 1;
            row.texts += chunk.texts().len();
            row.text_bytes += chunk.texts().map(|text| text.text.len()).sum::<usize>();
        }
    }
    assert_eq!(decoder.skipped(), 0);
    row.usage = decoder
        .usage()
        .expect("usage is reported")
        .expect("usage is sound");
    row
}

fn answer(text: String, quirks: &Quirks) -> Row {
    let answer = Dialect::OpenAi.decode(Bytes::from(text), quirks).unwrap();
    Row {
        chunks: 1,
        texts: answer.texts().len(),
        text_bytes: answer.texts().map(|text| text.text.len()).sum(),
        usage: answer
            .usage()
            .expect("usage is reported")
            .expect("usage is sound"),
    }
}

#[test]
fn every_recorded_chat_decodes() {
    let packages = root().join("vercel-ai/packages");
    if !packages.is_dir() {
        println!("no recordings at {}: nothing to decode", packages.display());
        return;
    }
    let mut decoded = 0;
    println!("| recording | chunks | texts | bytes | prompt | cached | completion | reasoning |");
    for (provider, quirks) in PROVIDERS {
        let quirks: Quirks = toml::from_str(quirks).unwrap();
        let mut paths = Vec::new();
        files(&packages.join(provider), &mut paths);
        for path in paths {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            let streamed = name.ends_with(".chunks.txt");
            if !is_chat(if streamed {
                text.lines().next().unwrap_or_default()
            } else {
                &text
            }) {
                continue;
            }
            let row = if streamed {
                stream(&text, quirks.clone())
            } else {
                answer(text, &quirks)
            };
            let Row {
                chunks,
                texts,
                text_bytes,
                usage,
            } = row;
            println!(
                "| {provider}/{name} | {chunks} | {texts} | {text_bytes} | {} | {} | {} | {} |",
                usage.prompt, usage.cached_prompt, usage.completion, usage.reasoning
            );
            decoded += 1;
        }
    }
    println!("{decoded} recordings decoded");
    assert!(
        decoded > 0,
        "no chat recording found in {}",
        packages.display()
    );
}
