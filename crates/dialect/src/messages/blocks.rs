//! Blocks of content as messages of a chat: results of tools apart, thinking where it can be sent back.

use super::compose::Writing;
use super::request::{literal, member};
use super::thought;
use crate::error::RequestError;
use crate::json;

/// The messages of a chat, as the items of a list.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    pub(super) messages: String,
}

/// Texts as one string literal, whose parts are written without being read.
#[derive(Default)]
struct Literal(String);

impl Literal {
    fn add(&mut self, literal: &str, between: &str) {
        let inside = json::inside(literal);
        if !self.0.is_empty() && !inside.is_empty() {
            self.0.push_str(between);
        }
        self.0.push_str(inside);
    }

    fn json(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

/// Between texts that stand apart, as it stands in a literal.
const PARAGRAPH: &str = r"\n\n";

impl Conversation {
    /// The instructions: a string or a list of texts.
    pub(super) fn system(&mut self, system: Option<&str>, body: &mut Writing<'_>) {
        let Some(system) = system else {
            return;
        };
        let mut said = Literal::default();
        if system.starts_with('"') {
            said.add(system, PARAGRAPH);
        }
        let (mut parts, mut marked) = (Vec::new(), false);
        for (place, at) in json::elements(system, 0).enumerate() {
            let block = json::slice(system, &at);
            let Some(text) = literal(block, "text") else {
                body.beyond(format!("system[{place}]"), "Instructions are texts.");
                continue;
            };
            said.add(text, PARAGRAPH);
            let part = Part::text(text).marked(body.mark(block));
            marked |= part.mark.is_some();
            parts.push(part);
        }
        if marked {
            let parts = list(&parts);
            self.say(&format!(r#"{{"role":"system","content":{parts}}}"#));
        } else if !said.0.is_empty() {
            self.say(&format!(r#"{{"role":"system","content":{}}}"#, said.json()));
        }
    }

    pub(super) fn turns(&mut self, list: &str, body: &mut Writing<'_>) -> Result<(), RequestError> {
        let mut last = "";
        for (place, at) in json::elements(list, 0).enumerate() {
            let message = json::slice(list, &at);
            let place = format!("messages[{place}]");
            let content = member(message, "content").unwrap_or("[]");
            last = literal(message, "role").map_or("", json::inside);
            if last == "assistant" {
                self.assistant(&place, content, body)?;
            } else {
                self.user(&place, content, body)?;
            }
        }
        if last == "assistant" {
            body.beyond(
                "messages",
                "This model cannot go on with an assistant's message: end with a user's.",
            );
        }
        Ok(())
    }

    fn say(&mut self, message: &str) {
        if !self.messages.is_empty() {
            self.messages.push(',');
        }
        self.messages.push_str(message);
    }

    fn user(
        &mut self,
        place: &str,
        content: &str,
        body: &mut Writing<'_>,
    ) -> Result<(), RequestError> {
        if content.starts_with('"') {
            self.say(&format!(r#"{{"role":"user","content":{content}}}"#));
            return Ok(());
        }
        let mut parts = Vec::new();
        for (index, at) in json::elements(content, 0).enumerate() {
            let block = json::slice(content, &at);
            let place = format!("{place}.content[{index}]");
            match kind(&place, block)? {
                "tool_result" => self.tool_result(&place, block, &mut parts, body),
                _ => {
                    part(&place, block, &mut parts, body)?;
                    if let (Some(last), Some(mark)) = (parts.last_mut(), body.mark(block)) {
                        last.mark = Some(mark.to_owned());
                    }
                }
            }
        }
        match &parts[..] {
            [] => {}
            [
                Part {
                    content: Content::Text(text),
                    mark: None,
                },
            ] => self.say(&format!(r#"{{"role":"user","content":{text}}}"#)),
            some => self.say(&format!(r#"{{"role":"user","content":{}}}"#, list(some))),
        }
        Ok(())
    }

    /// A result is a message of its own; what is no text in it follows in the user's.
    fn tool_result(
        &mut self,
        place: &str,
        block: &str,
        parts: &mut Vec<Part>,
        body: &mut Writing<'_>,
    ) {
        let Some(id) = literal(block, "tool_use_id") else {
            body.beyond(place, "A tool's result needs its `tool_use_id`.");
            return;
        };
        let mut said = Literal::default();
        let content = member(block, "content").unwrap_or("[]");
        if content.starts_with('"') {
            said.add(content, PARAGRAPH);
        }
        for at in json::elements(content, 0) {
            let inner = json::slice(content, &at);
            match literal(inner, "text") {
                Some(text) => said.add(text, PARAGRAPH),
                None => {
                    if let Err(error) = part(place, inner, parts, body) {
                        body.beyond.get_or_insert(error);
                    }
                }
            }
        }
        let (said, mark) = (said.json(), mark_member(body.mark(block)));
        self.say(&format!(
            r#"{{"role":"tool","tool_call_id":{id},"content":{said}{mark}}}"#
        ));
    }

    fn assistant(
        &mut self,
        place: &str,
        content: &str,
        body: &mut Writing<'_>,
    ) -> Result<(), RequestError> {
        let mut said = Literal::default();
        if content.starts_with('"') {
            said.add(content, "");
        }
        let (mut calls, mut details) = (Vec::new(), Vec::new());
        let mut mark = None;
        for (index, at) in json::elements(content, 0).enumerate() {
            let block = json::slice(content, &at);
            let place = format!("{place}.content[{index}]");
            mark = body.mark(block).or(mark);
            match kind(&place, block)? {
                "text" => said.add(literal(block, "text").unwrap_or_default(), ""),
                "tool_use" => match call(block) {
                    Some(call) => calls.push(call),
                    None => body.beyond(place, "A call needs its `id` and its `name`."),
                },
                "thinking" if body.target.native => {
                    said.add(literal(block, "thinking").unwrap_or_default(), "");
                }
                // Without a signature that its provider can read, thinking is not sent back.
                "thinking" => details.extend(thought::detail(block)),
                "redacted_thinking" => {}
                _ => unknown(&place, block, &mut said, body),
            }
        }
        let mut message = format!(r#"{{"role":"assistant","content":{}"#, said.json());
        if !details.is_empty() {
            let details = details.join(",");
            message.push_str(&format!(r#","reasoning_details":[{details}]"#));
        }
        if !calls.is_empty() {
            message.push_str(&format!(r#","tool_calls":[{}]"#, calls.join(",")));
        }
        message.push_str(&mark_member(mark));
        message.push('}');
        self.say(&message);
        Ok(())
    }
}

/// A part of a message, with what it says of being kept.
struct Part {
    content: Content,
    mark: Option<String>,
}

/// A text's literal, or the JSON of what is none.
enum Content {
    Text(String),
    Other(String),
}

impl Part {
    fn text(literal: impl Into<String>) -> Self {
        Self {
            content: Content::Text(literal.into()),
            mark: None,
        }
    }

    fn other(json: impl Into<String>) -> Self {
        Self {
            content: Content::Other(json.into()),
            mark: None,
        }
    }

    fn marked(self, mark: Option<&str>) -> Self {
        let mark = mark.map(str::to_owned);
        Self { mark, ..self }
    }

    fn json(&self) -> String {
        let mark = mark_member(self.mark.as_deref());
        match &self.content {
            Content::Text(text) => format!(r#"{{"type":"text","text":{text}{mark}}}"#),
            Content::Other(json) => {
                let open = json.strip_suffix('}').unwrap_or(json);
                format!("{open}{mark}}}")
            }
        }
    }
}

fn list(parts: &[Part]) -> String {
    let parts: Vec<String> = parts.iter().map(Part::json).collect();
    format!("[{}]", parts.join(","))
}

/// The member that says so, behind others.
pub(super) fn mark_member(mark: Option<&str>) -> String {
    mark.map(|mark| format!(r#","cache_control":{mark}"#))
        .unwrap_or_default()
}

fn kind<'j>(place: &str, block: &'j str) -> Result<&'j str, RequestError> {
    match literal(block, "type") {
        Some(kind) if block.starts_with('{') => Ok(json::inside(kind)),
        Some(_) | None => Err(RequestError::param(
            place.to_owned(),
            "Every block of content must be an object with a `type`.",
        )),
    }
}

/// A block that only Anthropic has: counted as its JSON.
fn unknown(place: &str, block: &str, said: &mut Literal, body: &mut Writing<'_>) {
    said.add(&json::quote(block), "");
    body.beyond(
        place,
        "Blocks of this type mean nothing to the provider of this model.",
    );
}

fn part(
    place: &str,
    block: &str,
    parts: &mut Vec<Part>,
    body: &mut Writing<'_>,
) -> Result<(), RequestError> {
    match kind(place, block)? {
        "text" => parts.extend(literal(block, "text").map(Part::text)),
        "image" => match member(block, "source").and_then(address) {
            Some(url) => parts.push(Part::other(format!(
                r#"{{"type":"image_url","image_url":{{"url":{url}}}}}"#
            ))),
            None => {
                // Counted as any image of unknown size.
                parts.push(Part::other(
                    r#"{"type":"image_url","image_url":{"url":""}}"#,
                ));
                body.beyond(place, "Images are taken as base64 or as an address.");
            }
        },
        "document" => document(place, block, parts, body),
        "search_result" => {
            let mut said = Literal::default();
            for name in ["title", "source"] {
                said.add(literal(block, name).unwrap_or_default(), PARAGRAPH);
            }
            let content = member(block, "content").unwrap_or("[]");
            for at in json::elements(content, 0) {
                let inner = json::slice(content, &at);
                said.add(literal(inner, "text").unwrap_or_default(), PARAGRAPH);
            }
            parts.push(Part::text(said.json()));
        }
        _ => {
            let mut said = Literal::default();
            unknown(place, block, &mut said, body);
            parts.push(Part::text(said.json()));
        }
    }
    Ok(())
}

fn document(place: &str, block: &str, parts: &mut Vec<Part>, body: &mut Writing<'_>) {
    let source = member(block, "source").unwrap_or("{}");
    let mut said = Literal::default();
    for name in ["title", "context"] {
        said.add(literal(block, name).unwrap_or_default(), PARAGRAPH);
    }
    match literal(source, "type").map(json::inside) {
        Some("text") => {
            said.add(literal(source, "data").unwrap_or_default(), PARAGRAPH);
            parts.push(Part::text(said.json()));
        }
        Some("content") => {
            let content = member(source, "content").unwrap_or("[]");
            if content.starts_with('"') {
                said.add(content, PARAGRAPH);
            }
            let mut inner = Vec::new();
            for at in json::elements(content, 0) {
                if let Err(error) = part(place, json::slice(content, &at), &mut inner, body) {
                    body.beyond.get_or_insert(error);
                }
            }
            if !said.0.is_empty() {
                parts.push(Part::text(said.json()));
            }
            parts.append(&mut inner);
        }
        kind => {
            let data = match kind {
                Some("base64") => address(source),
                Some(_) | None => None,
            };
            if data.is_none() {
                body.beyond(place, "Documents are taken as base64 or as text.");
            }
            let name = literal(block, "title").unwrap_or(r#""document.pdf""#);
            let data = data.unwrap_or_else(|| String::from(r#""https://""#));
            parts.push(Part::other(format!(
                r#"{{"type":"file","file":{{"filename":{name},"file_data":{data}}}}}"#
            )));
        }
    }
}

/// A source as the literal of an address or a data URL.
fn address(source: &str) -> Option<String> {
    match json::inside(literal(source, "type")?) {
        "url" => literal(source, "url").map(str::to_owned),
        "base64" => {
            let kind = json::inside(literal(source, "media_type")?);
            let data = json::inside(literal(source, "data")?);
            Some(format!("\"data:{kind};base64,{data}\""))
        }
        _ => None,
    }
}

fn call(block: &str) -> Option<String> {
    let (id, name) = (literal(block, "id")?, literal(block, "name")?);
    let arguments = json::quote(member(block, "input").unwrap_or("{}"));
    Some(format!(
        r#"{{"id":{id},"type":"function","function":{{"name":{name},"arguments":{arguments}}}}}"#
    ))
}
