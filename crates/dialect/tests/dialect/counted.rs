//! Our count of every recorded answer of OpenAI's models beside what was billed for it, and of the one prompt whose text is known.
//!
//! `cargo xtask fixtures --from DIR` shows the table. A recording is an answer without its request, so
//! a prompt can be judged only where the recording's project tells its text. What is counted is what
//! the client is shown; around that OpenAI's newer models write the framing of the harmony format
//! (github.com/openai/harmony, "Response format"), which is billed too.

use dialect::{ChatRequest, RequestLimits};
use serde_json::Value;
use tokens::{Encoding, Factor, ImageRule, Part, PromptRules, Tokenizer};

use crate::every_recording::{files, root};

/// What vercel/ai's examples ask for where they record plain text.
const KNOWN_PROMPT: (&str, &str) = (
    "openai-text.",
    "Invent a new holiday and describe its traditions.",
);
/// A count may be off by the hundredth part, and by a token: the one that ends an answer is not
/// always billed.
const OFF_PARTS_MAX: u64 = 100;
/// `<|channel|>final<|message|>` and `<|return|>`.
const HARMONY_MESSAGE: u64 = 4;
/// `<|channel|>commentary to=functions.` before a name, and behind it ` <|constrain|>json<|message|>`
/// and `<|call|>`.
const HARMONY_CALL: u64 = 11;
/// Recordings whose texts were changed after they were billed.
const CHANGED: [&str; 5] = [
    "azure-text.1.json",
    "azure-text.1.chunks.txt",
    "azure-tool-call.1.json",
    "azure-tool-call.1.chunks.txt",
    "parallel-tool-call-wrapper.1.json",
];

/// An answer: what was billed, what was said and called, and what else is in it.
struct Answer {
    model: String,
    prompt: u64,
    output: u64,
    reasoning: u64,
    said: Vec<String>,
    called: Vec<(String, String)>,
    other: Option<String>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// The answer in a file; of a stream the one that its last event tells, or that its chunks add up to.
fn answer(content: &str, streamed: bool) -> Option<Answer> {
    let lines: Vec<&str> = if streamed {
        content.lines().collect()
    } else {
        vec![content]
    };
    let events = lines.iter().map(|line| serde_json::from_str(line).ok());
    let events: Vec<Value> = events.collect::<Option<_>>()?;
    let last = events.last()?;
    if last["type"] == "response.completed" {
        responses(&last["response"])
    } else if last["object"] == "response" {
        responses(last)
    } else if last["choices"].is_array() {
        chat(&events)
    } else {
        None
    }
}

fn responses(response: &Value) -> Option<Answer> {
    let usage = &response["usage"];
    let mut answer = Answer {
        model: text(&response["model"]),
        prompt: number(&usage["input_tokens"]),
        output: usage["output_tokens"].as_u64()?,
        reasoning: number(&usage["output_tokens_details"]["reasoning_tokens"]),
        said: Vec::new(),
        called: Vec::new(),
        other: None,
    };
    for item in response["output"].as_array()? {
        match text(&item["type"]).as_str() {
            "message" => {
                let parts = item["content"].as_array().into_iter().flatten();
                answer.said.extend(parts.map(|part| text(&part["text"])));
            }
            "function_call" => {
                let call = (text(&item["name"]), text(&item["arguments"]));
                answer.called.push(call);
            }
            other => answer.other = Some(other.to_owned()),
        }
    }
    Some(answer)
}

fn chat(events: &[Value]) -> Option<Answer> {
    let reports = events.iter().rev().map(|event| &event["usage"]);
    let usage = reports.clone().find(|usage| usage.is_object())?;
    let models = events.iter().map(|event| text(&event["model"]));
    let mut said = String::new();
    let mut other = None;
    for event in events {
        let choice = &event["choices"][0];
        for message in [&choice["delta"], &choice["message"]] {
            said.push_str(&text(&message["content"]));
            if message["tool_calls"].is_array() {
                other = Some("a chat's tool calls".to_owned());
            }
        }
        said.push_str(&text(&choice["text"]));
    }
    Some(Answer {
        model: models.clone().find(|model| !model.is_empty())?,
        prompt: number(&usage["prompt_tokens"]),
        output: usage["completion_tokens"].as_u64()?,
        reasoning: number(&usage["completion_tokens_details"]["reasoning_tokens"]),
        said: vec![said],
        called: Vec::new(),
        other,
    })
}

/// Why an answer's output cannot be judged.
fn aside(name: &str, answer: &Answer) -> Option<String> {
    if CHANGED.contains(&name) {
        return Some("its text was changed after it was billed".into());
    }
    if answer.output == 0 {
        return Some("its usage is of another request".into());
    }
    if answer.reasoning > 0 {
        return Some("hidden reasoning is in the figure, known to within 64 tokens".into());
    }
    let other = answer.other.as_ref()?;
    Some(format!("{other}: written for a tool of the provider"))
}

/// Our count, and the framing that is billed with it.
fn counted(tokenizer: Tokenizer, answer: &Answer) -> (u64, u64) {
    let said = answer.said.iter().map(|said| tokenizer.count(said));
    let called = answer.called.iter();
    let called = called.map(|(name, json)| tokenizer.count(name) + tokenizer.count(json));
    let newer = ["gpt-5", "gpt-6"];
    let harmony = newer.iter().any(|begins| answer.model.starts_with(begins));
    let framing = if harmony {
        HARMONY_MESSAGE * answer.said.len() as u64 + HARMONY_CALL * answer.called.len() as u64
    } else {
        0
    };
    (said.sum::<u64>() + called.sum::<u64>(), framing)
}

fn is_near(count: u64, billed: u64) -> bool {
    count.abs_diff(billed) <= (billed / OFF_PARTS_MAX).max(1)
}

/// What OpenAI's API reference shows as asked and billed ("Create chat completion": Default,
/// Logprobs, Functions), each with a prompt of text and tools alone. The last was billed in 2023, when
/// the models had the older encoding; the texts of the others are as long in both.
const REFERENCE: [(&str, u64); 3] = [
    (
        r#"{"model":"m","messages":[{"role":"developer","content":"You are a helpful assistant."},{"role":"user","content":"Hello!"}]}"#,
        19,
    ),
    (
        r#"{"model":"m","messages":[{"role":"user","content":"Hello!"}],"logprobs":true,"top_logprobs":2}"#,
        9,
    ),
    (
        r#"{"model":"gpt-5.4","messages":[{"role":"user","content":"What is the weather like in Boston today?"}],
        "tools":[{"type":"function","function":{"name":"get_current_weather","description":"Get the current weather in a given location",
        "parameters":{"type":"object","properties":{"location":{"type":"string","description":"The city and state, e.g. San Francisco, CA"},
        "unit":{"type":"string","enum":["celsius","fahrenheit"]}},"required":["location"]}}}],"tool_choice":"auto"}"#,
        82,
    ),
];

#[test]
fn what_the_reference_asks_is_counted_as_it_was_billed() {
    for encoding in [Encoding::Cl100kBase, Encoding::O200kBase] {
        let rules = PromptRules::new(Tokenizer::new(encoding, Factor::EXACT), ImageRule::Gpt4o);
        for (body, billed) in REFERENCE {
            let request = ChatRequest::parse(body.as_bytes(), &RequestLimits::default()).unwrap();
            let count = rules.count(&request.parts()).prompt_total();
            println!("{encoding}: {billed} billed, {count} counted");
            let older = encoding == Encoding::Cl100kBase;
            assert!(count == billed || !older && billed == 82, "{body}");
            assert!(billed <= rules.upper_bound(body.len(), 0), "{body}");
        }
    }
}

#[test]
fn every_recording_of_openai_is_counted_as_it_was_billed() {
    let root = root();
    let mut paths = Vec::new();
    files(&root, &mut paths);
    if paths.is_empty() {
        println!("no recordings at {}: nothing to count", root.display());
        return;
    }
    let (mut judged, mut ours, mut theirs, mut wrong) = (0, 0, 0, Vec::new());
    println!("| recording | model | billed | counted | framing |");
    println!("|---|---|---|---|---|");
    for path in &paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let content = std::fs::read_to_string(path).unwrap();
        let Some(answer) = answer(&content, name.ends_with(".txt")) else {
            continue;
        };
        let model = answer.model.split(':').next().unwrap_or_default();
        let Some(encoding) = Tokenizer::for_model(model) else {
            println!("| {name} | {model} | its tokenizer is not published | | |");
            continue;
        };
        let tokenizer = Tokenizer::new(encoding, Factor::EXACT);
        if let Some(why) = aside(&name, &answer) {
            println!("| {name} | {model} | {why} | | |");
        } else {
            let (count, framing) = counted(tokenizer, &answer);
            judged += 1;
            ours += count + framing;
            theirs += answer.output;
            println!(
                "| {name} | {model} | {} | {count} | {framing} |",
                answer.output
            );
            if !is_near(count + framing, answer.output) {
                wrong.push(name.clone());
            }
        }
        if name.starts_with(KNOWN_PROMPT.0) {
            let rules = PromptRules::new(tokenizer, ImageRule::Gpt4o);
            let parts = [Part::Message, Part::Text(KNOWN_PROMPT.1.into())];
            let count = rules.count(&parts).prompt_total();
            println!("| its prompt | {model} | {} | {count} | |", answer.prompt);
            if count != answer.prompt {
                wrong.push(format!("the prompt of {name}"));
            }
        }
    }
    println!("{judged} answers judged: {ours} tokens counted, {theirs} billed");
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(judged > 0 && ours.abs_diff(theirs) * OFF_PARTS_MAX <= theirs);
}
