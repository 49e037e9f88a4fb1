//! Responses that are kept: what goes on with one, what is known of one that is over, and its input as a list.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, json};

use super::request::ResponsesRequest;
use crate::body::leave_out;
use crate::error::RequestError;
use crate::json::{self, Splice};
use crate::messages::{literal, member};

/// The longest id of a response.
const ID_BYTES_MAX: usize = 256;

/// What is known of a response that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedResponse {
    /// Its id.
    pub id: String,
    /// Whether it says that it is kept.
    pub stored: bool,
    /// Tokens of its input and its output: what a request that goes on with it begins with.
    pub tokens: u64,
    /// Those of them that were thought, which most providers do not read again.
    pub thought: u64,
}

#[derive(Deserialize)]
struct RawFinished<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(default)]
    store: Option<bool>,
    #[serde(default)]
    usage: Option<RawTokens>,
}

#[derive(Default, Deserialize)]
struct RawTokens {
    #[serde(default)]
    input_tokens: u64,
    #[serde(default)]
    output_tokens: u64,
    #[serde(default)]
    output_tokens_details: Option<RawDetails>,
}

#[derive(Default, Deserialize)]
struct RawDetails {
    #[serde(default)]
    reasoning_tokens: u64,
}

impl FinishedResponse {
    /// Reads a response; `None` where it is none, or has an id that no address could carry.
    #[must_use]
    pub fn read(response: &[u8]) -> Option<Self> {
        let raw: RawFinished<'_> = serde_json::from_slice(response).ok()?;
        // It becomes part of an address.
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if raw.id.is_empty() || raw.id.len() > ID_BYTES_MAX || !raw.id.bytes().all(sound) {
            return None;
        }
        let usage = raw.usage.unwrap_or_default();
        let details = usage.output_tokens_details.unwrap_or_default();
        Some(Self {
            id: raw.id.into_owned(),
            // Those who keep them all do not all say so.
            stored: raw.store != Some(false),
            tokens: usage.input_tokens.saturating_add(usage.output_tokens),
            thought: details.reasoning_tokens,
        })
    }
}

impl<'a> ResponsesRequest<'a> {
    /// Whether its response may be kept: unless it says no.
    #[must_use]
    pub fn stores(&self) -> bool {
        self.get("store") != Some("false")
    }

    /// The id of the response that it goes on with.
    #[must_use]
    pub fn previous(&self) -> Option<Cow<'a, str>> {
        let id = self.get("previous_response_id")?;
        Some(json::unescape(json::inside(id)))
    }

    /// Its input as a list of items.
    #[must_use]
    pub fn items(&self) -> String {
        let input = self.get("input").unwrap_or("[]");
        if input.starts_with('"') {
            format!(r#"[{{"type":"message","role":"user","content":{input}}}]"#)
        } else {
            input.to_owned()
        }
    }

    /// The request with all that was said before: what was sent and what was answered, as lists of
    /// items. What was thought is left out, but for what its provider can read again.
    ///
    /// # Errors
    /// A list that is none.
    pub fn after(&self, input: &str, response: &str) -> Result<Vec<u8>, RequestError> {
        let output = member(response, "output").unwrap_or("[]");
        let said = json::elements(output, 0).map(|at| json::slice(output, &at));
        let said = said.filter(|item| {
            literal(item, "type") != Some(r#""reasoning""#)
                || literal(item, "encrypted_content").is_some()
        });
        let sent = self.items();
        let lists = [input, &sent].map(|list| inside(list));
        let ([Some(before), Some(sent)], said) = (lists, said.collect::<Vec<_>>()) else {
            let message = "The response that this goes on with cannot be read.";
            return Err(RequestError::param("previous_response_id", message));
        };
        let mut pieces = vec![before];
        pieces.extend(said);
        pieces.push(sent);
        pieces.retain(|piece| !piece.is_empty());
        let items = format!("[{}]", pieces.join(","));
        let mut splice = Splice::default();
        let (mut kept, mut written) = (false, false);
        let members = self.members();
        for (index, member) in members.iter().enumerate() {
            if member.name == "previous_response_id" {
                leave_out(members, index, kept, &mut splice);
                continue;
            }
            kept = true;
            if member.name == "input" {
                splice.replace(member.value.clone(), items.as_str());
                written = true;
            }
        }
        if !written && let Some(last) = members.last() {
            splice.insert(last.value.end, format!(",\"input\":{items}"));
        }
        Ok(splice.apply(self.text()))
    }
}

/// What stands between the brackets of a list.
fn inside(list: &str) -> Option<&str> {
    let inside = list.trim_ascii().strip_prefix('[')?.strip_suffix(']')?;
    Some(inside.trim_ascii())
}

/// The items of a response's input as a list shows them, in the order in which they were sent: each
/// with an id, a text as a list of parts.
#[must_use]
pub fn listed_input(input: &str, response_id: &str) -> Vec<(String, String)> {
    let name = response_id.strip_prefix("resp_").unwrap_or(response_id);
    let items = json::elements(input, 0).enumerate();
    items
        .map(|(place, at)| listed(json::slice(input, &at), &format!("{name}_in{place}")))
        .collect()
}

fn listed(item: &str, name: &str) -> (String, String) {
    let mut value: Value = serde_json::from_str(item).unwrap_or_default();
    let Some(members) = value.as_object_mut() else {
        return (name.to_owned(), item.to_owned());
    };
    let kind = members.entry("type").or_insert_with(|| json!("message"));
    let prefix = match kind.as_str() {
        Some("message") => "msg",
        Some("function_call") => "fc",
        Some("custom_tool_call") => "ctc",
        Some(_) | None => "item",
    };
    let message = kind == "message";
    let id = members
        .entry("id")
        .or_insert_with(|| json!(format!("{prefix}_{name}")));
    let id = id.as_str().unwrap_or(name).to_owned();
    if message {
        let role = members.entry("role").or_insert_with(|| json!("user"));
        let part = if role == "assistant" {
            "output_text"
        } else {
            "input_text"
        };
        if let Some(text) = members.get("content").and_then(Value::as_str) {
            let mut part = json!({"type": part, "text": text});
            if part["type"] == "output_text" {
                part["annotations"] = json!([]);
            }
            let parts = json!([part]);
            members.insert("content".to_owned(), parts);
        }
        members
            .entry("status")
            .or_insert_with(|| json!("completed"));
    }
    (id, value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestLimits;

    fn after(body: &str, input: &str, response: &str) -> String {
        let request = ResponsesRequest::parse(body.as_bytes(), &RequestLimits::default()).unwrap();
        String::from_utf8(request.after(input, response).unwrap()).unwrap()
    }

    #[test]
    fn what_was_said_before_comes_first() {
        let response = r#"{"id":"resp_1","output":[{"type":"reasoning","id":"rs_1"},{"type":"reasoning","encrypted_content":"e"},{"type":"message","role":"assistant","content":[]}]}"#;
        let said = r#"{"type":"reasoning","encrypted_content":"e"},{"type":"message","role":"assistant","content":[]}"#;
        let sent = r#"{"type":"message","role":"user","content":"b"}"#;
        assert_eq!(
            after(
                r#"{"model":"m","previous_response_id":"resp_1", "input":"b"}"#,
                r#"[{"role":"user","content":"a"}]"#,
                response
            ),
            format!(r#"{{"model":"m", "input":[{{"role":"user","content":"a"}},{said},{sent}]}}"#)
        );
        assert_eq!(
            after(
                r#"{"input":[{"a":1} ],"previous_response_id":"resp_1","model":"m"}"#,
                "[]",
                response
            ),
            format!(r#"{{"input":[{said},{{"a":1}}],"model":"m"}}"#)
        );
    }

    #[test]
    fn what_is_over_says_what_it_comes_to() {
        let read = |json: &str| FinishedResponse::read(json.as_bytes());
        let finished = read(
            r#"{"id":"resp_1","usage":{"input_tokens":3,"output_tokens":5,"output_tokens_details":{"reasoning_tokens":2}}}"#,
        )
        .unwrap();
        assert_eq!((finished.tokens, finished.thought), (8, 2));
        assert!(finished.stored);
        assert!(
            !read(r#"{"id":"resp_1","store":false,"usage":null}"#)
                .unwrap()
                .stored
        );
        for none in ["{}", r#"{"id":""}"#, r#"{"id":"resp_1/../x"}"#] {
            assert_eq!(read(none), None);
        }
    }

    #[test]
    fn input_is_listed_with_ids_and_parts() {
        let input = r#"[{"role":"user","content":"a"},{"id":"own","type":"function_call","call_id":"c"},{"type":"message","role":"assistant","content":"b"}]"#;
        let listed = listed_input(input, "resp_7");
        let ids: Vec<&str> = listed.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["msg_7_in0", "own", "msg_7_in2"]);
        let first: Value = serde_json::from_str(&listed[0].1).unwrap();
        assert_eq!(
            first,
            json!({"id": "msg_7_in0", "type": "message", "role": "user", "status": "completed",
                "content": [{"type": "input_text", "text": "a"}]})
        );
        let last: Value = serde_json::from_str(&listed[2].1).unwrap();
        assert_eq!(last["content"][0]["type"], "output_text");
    }
}
