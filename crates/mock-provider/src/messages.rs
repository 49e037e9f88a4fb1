//! Answers in Anthropic's dialect: the events of its streams as steps of a script, and whole messages.

use std::time::Duration;

use serde_json::{Value, json};

use crate::chunk::json_text;
use crate::reply::{sample, sample_arguments};
use crate::script::{Script, Step, Wait};
use crate::words::Passage;

/// How many pieces the arguments of a call come in.
const ARGUMENT_PIECES: usize = 3;
/// What an answer says that nobody has written a script for, in words of a token each.
const WORDS: u64 = 20;

/// The blocks of a scripted message are numbered as they come; text goes on in the block before it.
impl Script {
    /// `message_start` with this usage (JSON), and a ping, as Anthropic sends them.
    #[must_use]
    pub fn message_start(self, usage: &str) -> Self {
        let start = format!(
            r#"{{"type":"message_start","message":{{"id":"msg_mock","type":"message","role":"assistant","model":"claude-mock","content":[],"stop_reason":null,"stop_sequence":null,"usage":{usage}}}}}"#
        );
        self.message_event("message_start", &start)
            .message_event("ping", r#"{"type":"ping"}"#)
    }

    /// A block that says these pieces of text, each an event of its own.
    #[must_use]
    pub fn says(self, block: u32, pieces: &[&str]) -> Self {
        let begun = self.text_begins(block);
        begun.says_on(block, pieces).block_ends(block)
    }

    /// The beginning of a block of text.
    #[must_use]
    pub fn text_begins(self, block: u32) -> Self {
        self.block_begins(block, r#"{"type":"text","text":""}"#)
    }

    /// More text in a block that has begun.
    #[must_use]
    pub fn says_on(self, block: u32, pieces: &[&str]) -> Self {
        pieces.iter().fold(self, |script, piece| {
            let text = json_text(piece);
            script.block_delta(block, &format!(r#"{{"type":"text_delta","text":{text}}}"#))
        })
    }

    /// This many words of the built-in text, each one `o200k_base` token, in a block that has begun.
    #[must_use]
    pub fn says_tokens(self, block: u32, count: u64, pause: Duration) -> Self {
        let passage = Passage::new(0, Some(count));
        let words = (0..count).map_while(|place| passage.get(place));
        words.fold(self, |script, word| {
            let script = if pause.is_zero() {
                script
            } else {
                script.step(Step::Wait(Wait::Pause(pause)))
            };
            script.says_on(block, &[word])
        })
    }

    /// A block that thinks these pieces and is signed.
    #[must_use]
    pub fn thinks(self, block: u32, pieces: &[&str], signature: &str) -> Self {
        let begun = self.block_begins(block, r#"{"type":"thinking","thinking":"","signature":""}"#);
        let thought = pieces.iter().fold(begun, |script, piece| {
            let text = json_text(piece);
            script.block_delta(
                block,
                &format!(r#"{{"type":"thinking_delta","thinking":{text}}}"#),
            )
        });
        let signature = json_text(signature);
        thought
            .block_delta(
                block,
                &format!(r#"{{"type":"signature_delta","signature":{signature}}}"#),
            )
            .block_ends(block)
    }

    /// A block that calls a tool with these arguments (JSON), in pieces.
    #[must_use]
    pub fn uses_tool(self, block: u32, id: &str, name: &str, arguments: &str) -> Self {
        let (id, name) = (json_text(id), json_text(name));
        let begun = self.block_begins(
            block,
            &format!(r#"{{"type":"tool_use","id":{id},"name":{name},"input":{{}}}}"#),
        );
        let letters: Vec<char> = arguments.chars().collect();
        let size = letters.len().div_ceil(ARGUMENT_PIECES).max(1);
        letters
            .chunks(size)
            .fold(begun, |script, piece| {
                let piece = json_text(&piece.iter().collect::<String>());
                script.block_delta(
                    block,
                    &format!(r#"{{"type":"input_json_delta","partial_json":{piece}}}"#),
                )
            })
            .block_ends(block)
    }

    /// The end of a block.
    #[must_use]
    pub fn block_ends(self, block: u32) -> Self {
        self.message_event(
            "content_block_stop",
            &format!(r#"{{"type":"content_block_stop","index":{block}}}"#),
        )
    }

    /// `message_delta` with the reason and this usage (JSON), and `message_stop`.
    #[must_use]
    pub fn message_ends(self, reason: &str, usage: &str) -> Self {
        let reason = json_text(reason);
        self.message_event(
            "message_delta",
            &format!(
                r#"{{"type":"message_delta","delta":{{"stop_reason":{reason},"stop_sequence":null}},"usage":{usage}}}"#
            ),
        )
        .message_event("message_stop", r#"{"type":"message_stop"}"#)
    }

    /// An `error` event of this type.
    #[must_use]
    pub fn message_error(self, kind: &str) -> Self {
        let kind = json_text(kind);
        self.message_event(
            "error",
            &format!(r#"{{"type":"error","error":{{"type":{kind},"message":"scripted"}}}}"#),
        )
    }

    /// An event of this name with this data, framed as Anthropic frames it.
    #[must_use]
    pub fn message_event(self, name: &str, data: &str) -> Self {
        self.raw(format!("event: {name}\ndata: {data}\n\n"))
    }

    fn block_begins(self, block: u32, content: &str) -> Self {
        self.message_event(
            "content_block_start",
            &format!(
                r#"{{"type":"content_block_start","index":{block},"content_block":{content}}}"#
            ),
        )
    }

    fn block_delta(self, block: u32, delta: &str) -> Self {
        self.message_event(
            "content_block_delta",
            &format!(r#"{{"type":"content_block_delta","index":{block},"delta":{delta}}}"#),
        )
    }
}

/// A sensible answer to a Messages request: a call where a tool is demanded or asked for in words,
/// else pleasant words within its limit.
pub(crate) fn sensible(body: &Value, pause: Duration) -> Script {
    let most = body["max_tokens"].as_u64().unwrap_or(0);
    let prompt = prompt_tokens(body);
    if let Some(name) = called_tool(body) {
        let arguments = arguments(body, name);
        let script = match body["stream"].as_bool() {
            Some(true) => Script::new()
                .message_start(&usage(prompt, 1))
                .uses_tool(0, "toolu_mock", name, &arguments.to_string())
                .message_ends("tool_use", &usage(prompt, 5)),
            Some(false) | None => {
                let call = json!({"type": "tool_use", "id": "toolu_mock", "name": name,
                    "input": arguments, "caller": {"type": "direct"}});
                Script::new().raw(message(&[call], "tool_use", prompt, 5))
            }
        };
        return script;
    }
    if let Some(schema) = body["output_config"]["format"].get("schema") {
        let text = sample(schema).to_string();
        return match body["stream"].as_bool() {
            Some(true) => Script::new()
                .message_start(&usage(prompt, 1))
                .says(0, &[&text])
                .message_ends("end_turn", &usage(prompt, 5)),
            Some(false) | None => {
                let said = json!({"type": "text", "text": text, "citations": null});
                Script::new().raw(message(&[said], "end_turn", prompt, 5))
            }
        };
    }
    let count = most.min(WORDS);
    let reason = if most < WORDS {
        "max_tokens"
    } else {
        "end_turn"
    };
    if body["stream"].as_bool() == Some(true) {
        return Script::new()
            .message_start(&usage(prompt, 1))
            .text_begins(0)
            .says_tokens(0, count, pause)
            .block_ends(0)
            .message_ends(reason, &usage(prompt, count));
    }
    let passage = Passage::new(0, Some(count));
    let text: String = (0..count).map_while(|place| passage.get(place)).collect();
    let said = json!({"type": "text", "text": text, "citations": null});
    Script::new().raw(message(&[said], reason, prompt, count))
}

fn message(content: &[Value], reason: &str, prompt: u64, output: u64) -> String {
    let usage: Value = json!({"input_tokens": prompt, "output_tokens": output, "cache_creation": null,
        "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "inference_geo": null,
        "output_tokens_details": null, "server_tool_use": null, "service_tier": "standard"});
    json!({"id": "msg_mock", "type": "message", "role": "assistant", "model": "claude-mock",
        "content": content, "stop_reason": reason, "stop_sequence": null, "stop_details": null,
        "container": null, "usage": usage})
    .to_string()
}

fn usage(prompt: u64, output: u64) -> String {
    format!(r#"{{"input_tokens":{prompt},"output_tokens":{output}}}"#)
}

/// Arguments that fit the tool; a journey's are the usual ones.
fn arguments(body: &Value, name: &str) -> Value {
    let tools = body["tools"].as_array();
    let tool = tools.and_then(|tools| tools.iter().find(|tool| tool["name"] == name));
    let schema = tool.map_or(&Value::Null, |tool| &tool["input_schema"]);
    if schema["properties"].is_object() && schema["properties"]["city"].is_null() {
        return sample_arguments(schema);
    }
    json!({"city": "Bern", "days": 3})
}

/// The words of all texts and three for each message, as this provider counts everywhere.
fn prompt_tokens(body: &Value) -> u64 {
    let list = body["messages"].as_array();
    let messages = list.map_or(&[][..], Vec::as_slice);
    let texts = messages.iter().flat_map(texts_of);
    let words: usize = texts.map(|text| text.split_whitespace().count()).sum();
    let all = words.saturating_add(messages.len().saturating_mul(3));
    u64::try_from(all).unwrap_or(u64::MAX)
}

/// The texts of a message, whose content may be one text.
fn texts_of(message: &Value) -> impl Iterator<Item = &str> {
    let content = &message["content"];
    let blocks = content.as_array().into_iter().flatten();
    let texts = blocks.filter_map(|block| block["text"].as_str());
    content.as_str().into_iter().chain(texts)
}

fn called_tool(body: &Value) -> Option<&str> {
    let first = body["tools"].get(0)?["name"].as_str()?;
    let choice = &body["tool_choice"];
    let last = body["messages"].as_array()?.last()?;
    let last = texts_of(last).last().unwrap_or_default();
    match choice["type"].as_str() {
        Some("tool") => choice["name"].as_str(),
        Some("any") => Some(first),
        Some("none") => None,
        Some(_) | None => last
            .to_ascii_lowercase()
            .contains("call the tool")
            .then_some(first),
    }
}
