//! Recorded traffic of real providers, where it lies beside the checkout: every chat recording decodes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dialect::{Delta, Dialect, Ending, Quirks, SseEvent, TextKind, UpstreamError};
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
    let mut decoder = Dialect::OpenAi.decoder(Arc::new(quirks), 0);
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
    let answer = Dialect::OpenAi
        .decode(Bytes::from(text), quirks, 0)
        .unwrap();
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

/// A recording that ends in an error on purpose: half of an answer, and another one after it.
const SPLICED: &str = "spliced-message-start.chunks.txt";

/// The texts and the output tokens that a recording has, read without the decoder.
fn said_and_billed(events: &[serde_json::Value]) -> (String, u64) {
    let mut said = String::new();
    let mut billed = 0;
    for event in events {
        for block in event["content"].as_array().into_iter().flatten() {
            if block["type"] == "text" {
                said.push_str(block["text"].as_str().unwrap_or_default());
            }
        }
        if event["type"] == "content_block_start" && event["content_block"]["type"] == "text" {
            said.push_str(event["content_block"]["text"].as_str().unwrap_or_default());
        }
        if event["delta"]["type"] == "text_delta" {
            said.push_str(event["delta"]["text"].as_str().unwrap_or_default());
        }
        billed = event["usage"]["output_tokens"].as_u64().unwrap_or(billed);
    }
    (said, billed)
}

/// What the decoder makes of Anthropic's events, or of a whole message.
fn anthropic(text: &str, streamed: bool) -> Result<(String, Usage), dialect::DecodeError> {
    if !streamed {
        let body = Bytes::from(text.to_owned());
        let answer = Dialect::Anthropic.decode(body, &Quirks::default(), 0)?;
        let said = answer.texts().filter(|text| text.kind == TextKind::Content);
        let said = said.map(|text| text.text).collect();
        return Ok((said, answer.usage().unwrap().unwrap()));
    }
    let mut decoder = Dialect::Anthropic.decoder(Arc::default(), 0);
    let mut out = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        // One file holds the answers of several requests.
        if decoder.ending() == Ending::Done {
            decoder = Dialect::Anthropic.decoder(Arc::default(), 0);
        }
        decoder.push(SseEvent::data(Bytes::from(line.to_owned())), &mut out)?;
    }
    let mut said = String::new();
    for delta in &out {
        if let Delta::Chunk(chunk) = delta {
            for text in chunk.texts().filter(|text| text.kind == TextKind::Content) {
                said.push_str(text.text);
            }
        }
    }
    assert!(matches!(out.last(), Some(Delta::Done)));
    Ok((said, decoder.usage().unwrap().unwrap()))
}

#[test]
fn every_recorded_message_of_anthropic_decodes() {
    let folder = root().join("vercel-ai/packages/anthropic/src/__fixtures__");
    if !folder.is_dir() {
        println!("no recordings at {}: nothing to decode", folder.display());
        return;
    }
    let mut paths = Vec::new();
    files(&folder, &mut paths);
    assert!(!paths.is_empty());
    println!("| recording | bytes | prompt | cached | written | completion | reasoning |");
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let streamed = name.ends_with(".chunks.txt");
        let events: Vec<serde_json::Value> = if streamed {
            let lines = text.lines().filter(|line| !line.is_empty());
            lines
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        } else {
            vec![serde_json::from_str(&text).unwrap()]
        };
        if name == SPLICED {
            assert!(anthropic(&text, streamed).is_err(), "{name}");
            println!("| {name} | refused: two answers in one |");
            continue;
        }
        let (said, billed) = said_and_billed(&events);
        let (decoded, usage) =
            anthropic(&text, streamed).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(decoded, said, "{name}");
        assert_eq!(usage.completion_total(), billed, "{name}");
        println!(
            "| {name} | {} | {} | {} | {} | {} | {} |",
            decoded.len(),
            usage.prompt,
            usage.cached_prompt,
            usage.cache_write_5m + usage.cache_write_1h,
            usage.completion,
            usage.reasoning
        );
    }
}

/// The text and the usage of Google's events, or of a whole answer, read without the decoder.
fn google_said_and_billed(events: &[serde_json::Value]) -> (String, usize, Usage) {
    let mut said = String::new();
    let mut calls = 0;
    let mut usage = Usage::default();
    for event in events {
        for part in event["candidates"][0]["content"]["parts"]
            .as_array()
            .into_iter()
            .flatten()
        {
            if part["thought"] != true {
                said.push_str(part["text"].as_str().unwrap_or_default());
            }
            calls += usize::from(part["functionCall"]["name"].is_string());
        }
        let count = |name: &str| event["usageMetadata"][name].as_u64().unwrap_or(0);
        if count("promptTokenCount") > 0 {
            usage = Usage {
                prompt: count("promptTokenCount") - count("cachedContentTokenCount"),
                cached_prompt: count("cachedContentTokenCount"),
                completion: count("candidatesTokenCount"),
                reasoning: count("thoughtsTokenCount"),
                ..Usage::default()
            };
        }
    }
    (said, calls, usage)
}

/// What the decoder makes of the same: the text, the calls, the usage.
fn google(text: &str, streamed: bool) -> (String, usize, Usage) {
    let calls = |json: &[u8], member: &str| {
        let value: serde_json::Value = serde_json::from_slice(json).unwrap();
        let calls = value["choices"][0][member]["tool_calls"]
            .as_array()
            .cloned();
        let named = |call: &serde_json::Value| call["function"]["name"].is_string();
        calls.unwrap_or_default().into_iter().filter(named).count()
    };
    if !streamed {
        let body = Bytes::from(text.to_owned());
        let answer = Dialect::Gemini.decode(body, &Quirks::default(), 0).unwrap();
        let said = answer.texts().filter(|text| text.kind == TextKind::Content);
        let said = said.map(|text| text.text).collect();
        let usage = answer.usage().unwrap().unwrap();
        return (said, calls(answer.json(), "message"), usage);
    }
    let mut decoder = Dialect::Gemini.decoder(Arc::default(), 0);
    let mut out = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        decoder
            .push(SseEvent::data(Bytes::from(line.to_owned())), &mut out)
            .unwrap();
    }
    let mut said = String::new();
    let mut called = 0;
    for delta in &out {
        let Delta::Chunk(chunk) = delta else {
            panic!("{delta:?}")
        };
        called += calls(chunk.json(), "delta");
        for text in chunk.texts().filter(|text| text.kind == TextKind::Content) {
            said.push_str(text.text);
        }
    }
    assert_eq!(decoder.skipped(), 0);
    assert_eq!(decoder.ending(), Ending::Finished);
    (said, called, decoder.usage().unwrap().unwrap())
}

#[test]
fn every_recorded_answer_of_google_decodes() {
    let folder = root().join("vercel-ai/packages/google/src/__fixtures__");
    if !folder.is_dir() {
        println!("no recordings at {}: nothing to decode", folder.display());
        return;
    }
    let mut paths = Vec::new();
    files(&folder, &mut paths);
    assert!(!paths.is_empty());
    println!("| recording | bytes | calls | prompt | cached | completion | reasoning |");
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        if name == "google-429-retry-info.json" {
            let error = UpstreamError::from_body(429, None, text.as_bytes());
            assert_eq!(error.retry_after, Some(35));
            println!("| {name} | an error: come back in 35 s |");
            continue;
        }
        let streamed = name.ends_with(".chunks.txt");
        let parsed = |text: &str| serde_json::from_str(text).unwrap();
        let events: Vec<serde_json::Value> = if streamed {
            let lines = text.lines().filter(|line| !line.is_empty());
            lines.map(parsed).collect()
        } else {
            vec![parsed(&text)]
        };
        let (said, calls, usage) = google(&text, streamed);
        assert_eq!(
            (said, calls, usage),
            google_said_and_billed(&events),
            "{name}"
        );
        println!(
            "| {name} | {} | {calls} | {} | {} | {} | {} |",
            google(&text, streamed).0.len(),
            usage.prompt,
            usage.cached_prompt,
            usage.completion,
            usage.reasoning
        );
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
