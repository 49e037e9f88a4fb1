//! Every file of recorded traffic beside the checkout, one row each: decoded and compared with a second reading, or why not.
//!
//! `cargo xtask fixtures --from DIR` runs this and shows the table. What a file holds is told by its
//! content, so that a recording in a new folder is read like the others; the second reading shares no
//! code with the decoders.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dialect::{Delta, Dialect, Ending, Quirks, SseEvent, TextKind};
use serde_json::Value;
use tokens::Usage;

/// What a folder's provider deviates by.
const QUIRKS: &[(&str, &str)] = &[
    ("groq", "usage_at=['/usage','/x_groq/usage']"),
    ("moonshotai", "usage_at=['/usage','/choices/0/usage']"),
    ("openai-compatible", "reasoning='beside'"),
    ("xai", "reasoning='beside'"),
];

/// A recording that ends in an error on purpose: half of an answer, and another one after it.
const SPLICED: &str = "spliced-message-start.chunks.txt";

/// The text, and the tokens of prompt and output where usage is reported.
type Reading = (String, Option<(u64, u64)>);

pub(crate) fn root() -> PathBuf {
    std::env::var_os("TOLLWAY_FIXTURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"),
        PathBuf::from,
    )
}

/// JSON and lines of JSON below a folder, but for schemas of whole APIs.
pub(crate) fn files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            files(&path, out);
        } else if name.ends_with(".chunks.txt") || name.ends_with(".json") && name != "openapi.json"
        {
            out.push(path);
        }
    }
    out.sort();
}

/// What the events of a file are of, or why no chat dialect reads them.
fn dialect_of(events: &[Value]) -> Result<Dialect, String> {
    let first = &events[0];
    let has = |name: &str| !first[name].is_null();
    let kind = first["type"].as_str().unwrap_or_default();
    let object = first["object"].as_str().unwrap_or_default();
    if first["choices"].is_array() && object != "text_completion" {
        Ok(Dialect::OpenAi)
    } else if kind == "message" || kind == "message_start" {
        Ok(Dialect::Anthropic)
    } else if has("candidates") || has("usageMetadata") {
        Ok(Dialect::Gemini)
    } else if kind == "message-start" || has("message") && has("finish_reason") {
        Ok(Dialect::Cohere)
    } else if has("output") && has("stopReason")
        || events.iter().any(|event| !event["messageStop"].is_null())
    {
        Ok(Dialect::Bedrock)
    } else if has("message") && has("done") {
        Ok(Dialect::Ollama)
    } else if kind.starts_with("response.") || object == "response" {
        Err("of the Responses API, which no provider is asked in".into())
    } else {
        let names: Vec<&str> = first
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect();
        Err(format!("no chat: {}", names.join(", ")))
    }
}

/// A second reading of the same events.
fn second(dialect: Dialect, events: &[Value], beside: bool) -> Reading {
    let mut said = String::new();
    let mut usage = None;
    for event in events {
        match dialect {
            Dialect::OpenAi => openai(event, beside, &mut said, &mut usage),
            Dialect::Anthropic | Dialect::AnthropicVertex => {
                anthropic(event, &mut said, &mut usage)
            }
            Dialect::Cohere => cohere(event, &mut said, &mut usage),
            Dialect::Bedrock => bedrock(event, &mut said, &mut usage),
            Dialect::Gemini => gemini(event, &mut said, &mut usage),
            Dialect::Ollama => {
                said.push_str(text(&event["message"]["content"]));
                add(
                    &mut usage,
                    &event["prompt_eval_count"],
                    number(&event["eval_count"]),
                );
            }
        }
    }
    (said, usage)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// The last report counts.
fn add(usage: &mut Option<(u64, u64)>, prompt: &Value, output: u64) {
    if let Some(prompt) = prompt.as_u64() {
        *usage = Some((prompt, output));
    }
}

fn openai(event: &Value, beside: bool, said: &mut String, usage: &mut Option<(u64, u64)>) {
    for choice in event["choices"].as_array().into_iter().flatten() {
        let message = if choice["delta"].is_object() {
            &choice["delta"]
        } else {
            &choice["message"]
        };
        said.push_str(text(&message["content"]));
        for part in message["content"].as_array().into_iter().flatten() {
            said.push_str(text(&part["text"]));
        }
    }
    let places = ["/usage", "/x_groq/usage", "/choices/0/usage"];
    let found = places
        .iter()
        .filter_map(|at| event.pointer(at))
        .find(|found| found.is_object());
    if let Some(found) = found {
        let (prompt, output) = (&found["prompt_tokens"], number(&found["completion_tokens"]));
        // What is neither in the prompt nor in the completion is reasoning.
        let rest = number(&found["total_tokens"]).saturating_sub(number(prompt));
        add(
            usage,
            prompt,
            if beside { output.max(rest) } else { output },
        );
    }
}

fn anthropic(event: &Value, said: &mut String, usage: &mut Option<(u64, u64)>) {
    for block in event["content"].as_array().into_iter().flatten() {
        if block["type"] == "text" {
            said.push_str(text(&block["text"]));
        }
    }
    if event["content_block"]["type"] == "text" {
        said.push_str(text(&event["content_block"]["text"]));
    }
    if event["delta"]["type"] == "text_delta" {
        said.push_str(text(&event["delta"]["text"]));
    }
    let report = if event["usage"].is_object() {
        &event["usage"]
    } else {
        &event["message"]["usage"]
    };
    if report["output_tokens"].is_u64() {
        // The end may leave out what the beginning has said of the prompt.
        let known = usage.map_or(0, |(prompt, _)| prompt);
        let cache = number(&report["cache_read_input_tokens"])
            + number(&report["cache_creation_input_tokens"]);
        let prompt = report["input_tokens"]
            .as_u64()
            .map_or(known, |fresh| fresh + cache);
        *usage = Some((prompt, number(&report["output_tokens"])));
    }
}

fn cohere(event: &Value, said: &mut String, usage: &mut Option<(u64, u64)>) {
    for part in event["message"]["content"].as_array().into_iter().flatten() {
        said.push_str(text(&part["text"]));
    }
    said.push_str(text(&event["delta"]["message"]["content"]["text"]));
    for report in [&event["usage"], &event["delta"]["usage"]] {
        let billed = &report["billed_units"];
        add(
            usage,
            &billed["input_tokens"],
            number(&billed["output_tokens"]),
        );
    }
}

fn bedrock(event: &Value, said: &mut String, usage: &mut Option<(u64, u64)>) {
    for block in event["output"]["message"]["content"]
        .as_array()
        .into_iter()
        .flatten()
    {
        said.push_str(text(&block["text"]));
    }
    said.push_str(text(&event["contentBlockDelta"]["delta"]["text"]));
    for report in [&event["usage"], &event["metadata"]["usage"]] {
        if let Some(input) = report["inputTokens"].as_u64() {
            let cache =
                number(&report["cacheReadInputTokens"]) + number(&report["cacheWriteInputTokens"]);
            *usage = Some((input + cache, number(&report["outputTokens"])));
        }
    }
}

fn gemini(event: &Value, said: &mut String, usage: &mut Option<(u64, u64)>) {
    for part in event["candidates"][0]["content"]["parts"]
        .as_array()
        .into_iter()
        .flatten()
    {
        if part["thought"] != true {
            said.push_str(text(&part["text"]));
        }
    }
    let report = &event["usageMetadata"];
    if let Some(prompt) = report["promptTokenCount"].as_u64() {
        let output =
            number(&report["candidatesTokenCount"]) + number(&report["thoughtsTokenCount"]);
        *usage = Some((prompt + number(&report["toolUsePromptTokenCount"]), output));
    }
}

/// What the decoder makes of a stream.
fn stream(dialect: Dialect, lines: &[&str], quirks: &Quirks) -> Result<Reading, String> {
    let quirks = Arc::new(quirks.clone());
    let mut decoder = dialect.decoder(Arc::clone(&quirks), 0);
    let mut out = Vec::new();
    for line in lines {
        // One file may hold the answers of several requests.
        if decoder.ending() == Ending::Done {
            decoder = dialect.decoder(Arc::clone(&quirks), 0);
        }
        let pushed = decoder.push(event(dialect, line), &mut out);
        pushed.map_err(|error| error.to_string())?;
    }
    let mut said = String::new();
    for delta in &out {
        match delta {
            Delta::Chunk(chunk) => chunk
                .texts()
                .filter(|text| text.kind == TextKind::Content)
                .for_each(|text| said.push_str(text.text)),
            Delta::Done => {}
            Delta::Error(error) => return Err(format!("{error:?}")),
        }
    }
    Ok((said, sums(decoder.usage())?))
}

/// A line as its framing would give it. Bedrock's recordings have the name of the event around it.
fn event(dialect: Dialect, line: &str) -> SseEvent {
    let data = |json: &str| SseEvent::data(Bytes::copy_from_slice(json.as_bytes()));
    match dialect {
        Dialect::Bedrock => {
            let value: Value = serde_json::from_str(line).unwrap();
            let (name, inner) = value.as_object().unwrap().iter().next().unwrap();
            SseEvent {
                event: Some(Bytes::from(name.clone())),
                ..data(&inner.to_string())
            }
        }
        Dialect::OpenAi
        | Dialect::Anthropic
        | Dialect::AnthropicVertex
        | Dialect::Gemini
        | Dialect::Cohere
        | Dialect::Ollama => data(line),
    }
}

fn sums(usage: Option<Result<Usage, dialect::UsageFault>>) -> Result<Option<(u64, u64)>, String> {
    let usage = usage.transpose().map_err(|fault| fault.to_string())?;
    Ok(usage.map(|usage| (usage.prompt_total(), usage.completion_total())))
}

fn plain(dialect: Dialect, body: &str, quirks: &Quirks) -> Result<Reading, String> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let answer = dialect
        .decode(body, quirks, 0)
        .map_err(|error| error.to_string())?;
    let said = answer.texts().filter(|text| text.kind == TextKind::Content);
    Ok((said.map(|text| text.text).collect(), sums(answer.usage())?))
}

/// One row: decoded and equal, left aside, or wrong.
enum Row {
    Equal(Dialect, Reading),
    Aside(String),
    Wrong(String),
}

fn read(folder: &str, name: &str, content: &str) -> Row {
    let streamed = name.ends_with(".chunks.txt");
    let lines: Vec<&str> = if streamed {
        content.lines().filter(|line| !line.is_empty()).collect()
    } else {
        vec![content]
    };
    let events: Result<Vec<Value>, _> = lines
        .iter()
        .map(|line| serde_json::from_str(line))
        .collect();
    let Ok(events) = events else {
        return Row::Aside("no JSON".into());
    };
    let dialect = match dialect_of(&events) {
        Ok(dialect) => dialect,
        Err(why) => return Row::Aside(why),
    };
    let quirks = QUIRKS
        .iter()
        .find(|(known, _)| *known == folder)
        .map_or("", |(_, quirks)| quirks);
    let beside = quirks.contains("beside");
    let quirks: Quirks = toml::from_str(quirks).unwrap();
    let decoded = if streamed {
        stream(dialect, &lines, &quirks)
    } else {
        plain(dialect, content, &quirks)
    };
    let expected = second(dialect, &events, beside);
    match decoded {
        Err(_) if name == SPLICED => {
            Row::Aside("refused, as it must be: two answers in one".into())
        }
        Ok(_) if name == SPLICED => Row::Wrong("two answers in one were taken for one".into()),
        Err(error) => Row::Wrong(error),
        Ok(reading) if reading == expected => Row::Equal(dialect, reading),
        Ok(reading) => Row::Wrong(format!("decoded {reading:?}, read {expected:?}")),
    }
}

#[test]
fn every_recording_is_decoded_or_has_a_reason() {
    let root = root();
    let mut paths = Vec::new();
    files(&root, &mut paths);
    if paths.is_empty() {
        println!("no recordings at {}: nothing to decode", root.display());
        return;
    }
    let (mut equal, mut aside, mut wrong) = (0, 0, Vec::new());
    println!("| recording | dialect | bytes of text | prompt | output |");
    println!("|---|---|---|---|---|");
    for path in &paths {
        let place = path.strip_prefix(&root).unwrap().display().to_string();
        let folder = place
            .split_once("packages/")
            .map_or(place.as_str(), |(_, rest)| rest);
        let folder = folder.split('/').next().unwrap();
        let name = path.file_name().unwrap().to_string_lossy();
        match read(folder, &name, &std::fs::read_to_string(path).unwrap()) {
            Row::Equal(dialect, (said, usage)) => {
                equal += 1;
                let counts = usage.map_or("not reported | ".to_owned(), |(prompt, output)| {
                    format!("{prompt} | {output}")
                });
                println!("| {place} | {dialect:?} | {} | {counts} |", said.len());
            }
            Row::Aside(why) => {
                aside += 1;
                println!("| {place} | {why} | | | |");
            }
            Row::Wrong(what) => {
                println!("| {place} | WRONG: {what} | | | |");
                wrong.push(place);
            }
        }
    }
    println!(
        "{} recordings: {equal} decoded and equal, {aside} left aside, {} wrong",
        paths.len(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{wrong:?}");
}
