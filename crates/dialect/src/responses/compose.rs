//! From a Responses request to a chat request, member by member and item by item.

use super::request::ResponsesRequest;
use super::tools;
use crate::error::RequestError;
use crate::json;
use crate::messages::{Composed, Composing, Writing, literal, member};

/// Members that are translated, or have no effect on what is answered.
const KNOWN: [&str; 26] = [
    "model",
    "input",
    "instructions",
    "max_output_tokens",
    "stream",
    "temperature",
    "top_p",
    "top_logprobs",
    "parallel_tool_calls",
    "tools",
    "tool_choice",
    "text",
    "reasoning",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "service_tier",
    // Without effect: what is asked to be kept, shown or cut off is not.
    "metadata",
    "store",
    "include",
    "stream_options",
    "truncation",
    "max_tool_calls",
    "prompt_cache_retention",
    "background",
    "context_management",
];

/// A part that the provider has, and whose size only it knows.
const ELSEWHERE: &str = r#"{"type":"file","file":{"file_id":"elsewhere"}}"#;

pub(super) fn compose(
    request: &ResponsesRequest<'_>,
    target: &Composing<'_>,
) -> Result<Composed, RequestError> {
    let mut body = Writing::begin(target, request.text().len());
    check_members(request, &mut body);
    body.write("model", request.get("model").unwrap_or_default());
    let mut chat = Chat {
        native: target.native,
        ..Chat::default()
    };
    if let Some(instructions) = request.get("instructions") {
        chat.say(&format!(r#"{{"role":"system","content":{instructions}}}"#));
    }
    chat.items(request.get("input").unwrap_or_default(), &mut body)?;
    body.write("messages", &format!("[{}]", chat.messages));
    let limit = request.output_limit().map(|limit| limit.to_string());
    let name = target.quirks.output_limit_field.name();
    body.write_some(name, limit.as_deref());
    if request.stream() {
        body.write("stream", "true");
    }
    for name in ["temperature", "top_p"] {
        body.write_some(name, request.get(name));
    }
    for name in ["user", "safety_identifier", "prompt_cache_key"] {
        if let Some(value) = request.get(name) {
            body.hint(name, value);
        }
    }
    tools::write(request, &mut body);
    format(request, &mut body);
    let effort = request
        .get("reasoning")
        .and_then(|reasoning| literal(reasoning, "effort"));
    body.write_some("reasoning_effort", effort);
    // It decides about the price; what would be so anyway is not worth a refusal.
    match request.get("service_tier") {
        Some(tier) if target.native || tier == r#""default""# => body.hint("service_tier", tier),
        None | Some(r#""auto""#) => {}
        Some(tier) => body.write("service_tier", tier),
    }
    Ok(body.end())
}

fn check_members(request: &ResponsesRequest<'_>, body: &mut Writing<'_>) {
    for sent in request.members() {
        let name = sent.name.as_ref();
        let Some(value) = request.get(name) else {
            continue;
        };
        let without = match name {
            "previous_response_id" => {
                "There is no such response: send the whole conversation as `input`."
            }
            "conversation" => "Conversations are not kept here: use `previous_response_id`.",
            "background" if value == "true" => "Nothing runs in the background here.",
            "top_logprobs" if value != "0" => "Log probabilities are not given here.",
            _ if KNOWN.contains(&name) => continue,
            _ => "This member means nothing to the provider of this model: leave it out.",
        };
        body.beyond(name, without);
    }
}

/// The format of the answer, and how much it says.
fn format(request: &ResponsesRequest<'_>, body: &mut Writing<'_>) {
    let Some(text) = request.get("text") else {
        return;
    };
    body.write_some("verbosity", literal(text, "verbosity"));
    let Some(format) = member(text, "format") else {
        return;
    };
    match literal(format, "type").map(json::inside) {
        Some("json_schema") => {
            let mut named = String::new();
            for name in ["name", "description", "strict", "schema"] {
                if let Some(value) = member(format, name) {
                    let comma = if named.is_empty() { "" } else { "," };
                    named.push_str(&format!("{comma}\"{name}\":{value}"));
                }
            }
            body.write(
                "response_format",
                &format!(r#"{{"type":"json_schema","json_schema":{{{named}}}}}"#),
            );
        }
        Some("json_object") => body.write("response_format", r#"{"type":"json_object"}"#),
        Some("text") => {}
        Some(_) | None => body.beyond("text.format", "This format is not known."),
    }
}

/// The messages of a chat, as the items of a list, and the assistant's turn that is being gathered.
#[derive(Default)]
struct Chat {
    messages: String,
    turn: Option<Turn>,
    /// Whether it is only counted and held for.
    native: bool,
}

#[derive(Default)]
struct Turn {
    /// The inside of a literal.
    said: String,
    calls: Vec<String>,
}

impl Chat {
    fn say(&mut self, message: &str) {
        self.close();
        self.push(message);
    }

    fn push(&mut self, message: &str) {
        if !self.messages.is_empty() {
            self.messages.push(',');
        }
        self.messages.push_str(message);
    }

    /// Ends the assistant's turn.
    fn close(&mut self) {
        let Some(turn) = self.turn.take() else {
            return;
        };
        let mut message = format!(r#"{{"role":"assistant","content":"{}""#, turn.said);
        if !turn.calls.is_empty() {
            message.push_str(&format!(r#","tool_calls":[{}]"#, turn.calls.join(",")));
        }
        message.push('}');
        self.push(&message);
    }

    fn items(&mut self, input: &str, body: &mut Writing<'_>) -> Result<(), RequestError> {
        if input.starts_with('"') {
            self.say(&format!(r#"{{"role":"user","content":{input}}}"#));
            return Ok(());
        }
        for (place, at) in json::elements(input, 0).enumerate() {
            let item = json::slice(input, &at);
            let place = format!("input[{place}]");
            if !item.starts_with('{') {
                return Err(RequestError::param(place, "Every item must be an object."));
            }
            self.item(&place, item, body);
        }
        self.close();
        if self.messages.is_empty() && body.beyond.is_none() {
            return Err(RequestError::param("input", "`input` says nothing."));
        }
        Ok(())
    }

    fn item(&mut self, place: &str, item: &str, body: &mut Writing<'_>) {
        let kind = literal(item, "type").map_or("message", json::inside);
        match kind {
            "message" => self.message(place, item, body),
            "function_call" | "custom_tool_call" => match tools::call(item) {
                Some(call) => self.turn.get_or_insert_default().calls.push(call),
                None => body.beyond(place, "A call needs its `call_id` and its `name`."),
            },
            "function_call_output" | "custom_tool_call_output" => {
                let Some(id) = literal(item, "call_id") else {
                    body.beyond(place, "A tool's output needs its `call_id`.");
                    return;
                };
                let output = member(item, "output").unwrap_or(r#""""#);
                let content = if output.starts_with('"') {
                    output.to_owned()
                } else {
                    let parts = parts(place, output, body);
                    format!("[{}]", parts.join(","))
                };
                self.say(&format!(
                    r#"{{"role":"tool","tool_call_id":{id},"content":{content}}}"#
                ));
            }
            // What was thought comes back without being readable by another provider.
            "reasoning" => {}
            _ if self.native => self.unknown(item),
            _ => body.beyond(
                place,
                "Items of this type mean nothing to the provider of this model.",
            ),
        }
    }

    /// An item that only the provider understands, for the count: an image, or about its own text.
    fn unknown(&mut self, item: &str) {
        let image = member(item, "output")
            .and_then(|output| literal(output, "image_url"))
            .or_else(|| literal(item, "result"));
        let content = match image {
            Some(url) => format!(r#"[{{"type":"image_url","image_url":{{"url":{url}}}}}]"#),
            None => json::quote(item),
        };
        self.say(&format!(r#"{{"role":"user","content":{content}}}"#));
    }

    fn message(&mut self, place: &str, item: &str, body: &mut Writing<'_>) {
        let content = member(item, "content").unwrap_or(r#""""#);
        let role = literal(item, "role").map_or("user", json::inside);
        match role {
            "assistant" => {
                // One turn for each message; calls that follow belong to it.
                self.close();
                let turn = self.turn.get_or_insert_default();
                if content.starts_with('"') {
                    turn.said.push_str(json::inside(content));
                }
                for at in json::elements(content, 0) {
                    let part = json::slice(content, &at);
                    let text = literal(part, "text").or_else(|| literal(part, "refusal"));
                    turn.said.push_str(json::inside(text.unwrap_or_default()));
                }
            }
            "user" | "system" | "developer" => {
                let content = if content.starts_with('"') {
                    content.to_owned()
                } else {
                    let parts = parts(place, content, body);
                    format!("[{}]", parts.join(","))
                };
                self.say(&format!(r#"{{"role":"{role}","content":{content}}}"#));
            }
            _ => body.beyond(
                format!("{place}.role"),
                "`role` must be user, assistant, system or developer.",
            ),
        }
    }
}

fn names_a_file(part: &str) -> bool {
    member(part, "file_id").is_some_and(|id| id != "null")
}

fn parts(place: &str, content: &str, body: &mut Writing<'_>) -> Vec<String> {
    let mut parts = Vec::new();
    for (index, at) in json::elements(content, 0).enumerate() {
        let part = json::slice(content, &at);
        let said = match literal(part, "type").map(json::inside) {
            Some("input_text" | "output_text" | "text") => {
                literal(part, "text").map(|text| format!(r#"{{"type":"text","text":{text}}}"#))
            }
            // As a file: only the provider knows how large it is.
            Some("input_image") if body.target.native && names_a_file(part) => {
                Some(ELSEWHERE.to_owned())
            }
            Some("input_image") => literal(part, "image_url").map(|url| {
                let detail = literal(part, "detail")
                    .map(|detail| format!(r#","detail":{detail}"#))
                    .unwrap_or_default();
                format!(r#"{{"type":"image_url","image_url":{{"url":{url}{detail}}}}}"#)
            }),
            Some("input_file") => match literal(part, "file_data") {
                Some(data) => {
                    let name = literal(part, "filename").unwrap_or(r#""file""#);
                    Some(format!(
                        r#"{{"type":"file","file":{{"filename":{name},"file_data":{data}}}}}"#
                    ))
                }
                // Only the provider knows how much it is.
                None if body.target.native => Some(ELSEWHERE.to_owned()),
                None => None,
            },
            Some("input_audio") => member(part, "input_audio")
                .map(|audio| format!(r#"{{"type":"input_audio","input_audio":{audio}}}"#)),
            Some(_) | None => None,
        };
        match said {
            Some(said) => parts.push(said),
            None => body.beyond(
                format!("{place}.content[{index}]"),
                "This part cannot be said to the provider of this model: send texts, images and files along.",
            ),
        }
    }
    parts
}
