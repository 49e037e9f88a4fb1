//! Responses that are kept: what goes on with one, what is known of one that is over, and its input as a list.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::{Value, json};

use super::request::ResponsesRequest;
use crate::body::leave_out;
use crate::error::RequestError;
use crate::json::{self, Splice};
use crate::messages::{literal, member};

/// The longest id of a response, and of an item.
const ID_BYTES_MAX: usize = 256;
/// Items of a response whose ids are told.
const ITEMS_MAX: usize = 512;

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
    /// The ids of what it said, by which a request may name it again.
    pub items: Vec<String>,
}

#[derive(Deserialize)]
struct RawFinished<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(default)]
    store: Option<bool>,
    #[serde(default)]
    usage: Option<RawTokens>,
    #[serde(default)]
    output: Vec<RawItem>,
}

#[derive(Deserialize)]
struct RawItem {
    #[serde(default)]
    id: Option<String>,
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
            items: raw
                .output
                .into_iter()
                .filter_map(|item| item.id)
                .filter(|id| (1..=ID_BYTES_MAX).contains(&id.len()))
                .take(ITEMS_MAX)
                .collect(),
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

    /// The places and ids of items that its input names in place of saying them.
    #[must_use]
    pub fn references(&self) -> Vec<(usize, String)> {
        let input = self.get("input").unwrap_or_default();
        let items = json::elements(input, 0).enumerate();
        items
            .filter_map(|(place, at)| Some((place, referenced(json::slice(input, &at))?)))
            .collect()
    }

    /// The request with these items in the place of their ids. What was thought is left out, but for
    /// what its provider can read again.
    #[must_use]
    pub fn with_items(&self, said: &BTreeMap<String, String>) -> Vec<u8> {
        let input = self.get("input").unwrap_or_default();
        let items = json::elements(input, 0).map(|at| json::slice(input, &at));
        let items: Vec<&str> = items
            .map(|item| match referenced(item) {
                Some(id) => said.get(&id).map_or(item, String::as_str),
                None => item,
            })
            .filter(|item| referenced(item).is_some() || can_be_read_again(item))
            .collect();
        let mut splice = Splice::default();
        if let Some(member) = self.members().iter().find(|member| member.name == "input") {
            splice.replace(member.value.clone(), format!("[{}]", items.join(",")));
        }
        splice.apply(self.text())
    }

    /// The request with all that was said before: what was sent and what was answered, as lists of
    /// items. What was thought is left out, but for what its provider can read again.
    ///
    /// # Errors
    /// A list that is none.
    pub fn after(&self, input: &str, response: &str) -> Result<Vec<u8>, RequestError> {
        let output = member(response, "output").unwrap_or("[]");
        let said = json::elements(output, 0).map(|at| json::slice(output, &at));
        let said = said.filter(|item| can_be_read_again(item));
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

/// What an item names in place of saying it. Its type may be left out, as OpenAI's document has it.
pub(crate) fn referenced(item: &str) -> Option<String> {
    let kind = member(item, "type").filter(|kind| *kind != "null");
    let bare = || {
        ["role", "content", "output"]
            .iter()
            .all(|name| member(item, name).is_none())
    };
    let names = match kind {
        Some(kind) => json::unescape(json::inside(kind)) == "item_reference",
        None => bare(),
    };
    let id = literal(item, "id").filter(|_| names)?;
    Some(json::unescape(json::inside(id)).into_owned())
}

/// What a response said by these ids, as its items in JSON.
#[must_use]
pub fn items_of(response: &str, ids: &[&str]) -> BTreeMap<String, String> {
    let output = member(response, "output").unwrap_or("[]");
    let items = json::elements(output, 0).map(|at| json::slice(output, &at));
    items
        .filter_map(|item| {
            let id = json::unescape(json::inside(literal(item, "id")?)).into_owned();
            ids.contains(&id.as_str()).then(|| (id, item.to_owned()))
        })
        .collect()
}

/// Whether a provider makes something of an item that it did not keep: of a thought only where it is
/// there, encrypted.
fn can_be_read_again(item: &str) -> bool {
    literal(item, "type") != Some(r#""reasoning""#) || literal(item, "encrypted_content").is_some()
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
    fn what_is_named_takes_the_place_of_its_id() {
        let response = r#"{"id":"resp_1","output":[{"type":"reasoning","id":"rs_1"},{"id":"m\u0073g_1","type":"message","content":[ ]}]}"#;
        let body = r#"{"input": [{"role":"user","content":"a"}, {"type":"item_reference","id":"rs_1"},{"id":"msg_1"},{"id":"x","type":null}],"model":"m"}"#;
        let request = ResponsesRequest::parse(body.as_bytes(), &RequestLimits::default()).unwrap();
        let named = request.references();
        let ids: Vec<&str> = named.iter().map(|(_, id)| id.as_str()).collect();
        assert_eq!(ids, ["rs_1", "msg_1", "x"]);
        let said = items_of(response, &ids);
        assert_eq!(
            String::from_utf8(request.with_items(&said)).unwrap(),
            r#"{"input": [{"role":"user","content":"a"},{"id":"m\u0073g_1","type":"message","content":[ ]},{"id":"x","type":null}],"model":"m"}"#
        );
        let finished = FinishedResponse::read(response.as_bytes()).unwrap();
        assert_eq!(finished.items, ["rs_1", "msg_1"]);
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
