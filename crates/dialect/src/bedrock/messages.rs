//! Messages: instructions apart, turns that alternate, results of tools in the user's turn.

use crate::error::RequestError;
use crate::json;
use crate::source::{Message, Object, Part, Role, Source, data_url, join, literal, parts};

/// The kinds of image that Bedrock reads, and its names for them.
const IMAGES: [(&str, &str); 5] = [
    ("image/png", "png"),
    ("image/jpeg", "jpeg"),
    ("image/jpg", "jpeg"),
    ("image/gif", "gif"),
    ("image/webp", "webp"),
];
/// The kinds of document.
const DOCUMENTS: [(&str, &str); 9] = [
    ("application/pdf", "pdf"),
    ("text/csv", "csv"),
    ("application/msword", "doc"),
    (
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "docx",
    ),
    ("application/vnd.ms-excel", "xls"),
    (
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "xlsx",
    ),
    ("text/html", "html"),
    ("text/plain", "txt"),
    ("text/markdown", "md"),
];
/// Longest name of a document.
const DOCUMENT_NAME_CHARS_MAX: usize = 200;

/// The instructions and the conversation, each as the items of a list.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub(super) system: String,
    pub(super) turns: String,
    /// A tool was called or answered.
    pub(super) called: bool,
    /// The last turn of the assistant called a tool and its thinking was not sent back.
    pub(super) signature_lost: bool,
    turn: Option<&'static str>,
    documents: usize,
}

/// Where the points may lie up to which the provider keeps what it read: the content of a tool's
/// result has none in it.
#[derive(Clone, Copy)]
enum Points {
    Between,
    After,
}

impl Messages {
    /// Writes all messages.
    ///
    /// # Errors
    /// A message that cannot be said in Bedrock's dialect.
    pub(super) fn write(source: &Source<'_>) -> Result<Self, RequestError> {
        let mut all = Self::default();
        for message in source.messages() {
            all.message(source, &message)?;
        }
        if all.turn.is_some() {
            all.turns.push_str("]}");
        }
        if all.turns.is_empty() && !all.system.is_empty() {
            // Bedrock wants at least one message of the user's.
            let system = std::mem::take(&mut all.system);
            all.turns = format!(r#"{{"role":"user","content":[{system}]}}"#);
        }
        if !all.turns.starts_with(r#"{"role":"user""#) {
            return Err(RequestError::param(
                "messages",
                "The first message beside instructions must be the user's for this model, and say something.",
            ));
        }
        if all.turn == Some("assistant") && !source.edit.features.prefill {
            return Err(RequestError::param(
                "messages",
                "This model cannot go on with an assistant's message: end with a user's.",
            ));
        }
        Ok(all)
    }

    fn message(&mut self, source: &Source<'_>, message: &Message<'_>) -> Result<(), RequestError> {
        let mut blocks = String::new();
        match message.role()? {
            Role::System => {
                self.content(source, message, &mut blocks, Points::Between)?;
                join(&mut self.system, &blocks);
            }
            Role::User => {
                self.content(source, message, &mut blocks, Points::Between)?;
                self.say("user", &blocks);
            }
            Role::Assistant => self.assistant(source, message)?,
            Role::Tool => {
                let id = message.tool_call_id()?;
                self.content(source, message, &mut blocks, Points::After)?;
                let id = call_id(id);
                let mut result = format!(
                    r#"{{"toolResult":{{"toolUseId":{id},"content":[{blocks}],"status":"success"}}}}"#
                );
                let inside = || parts(message).into_iter().rev().find_map(|part| part.2);
                if let Some(cache) = message.get("cache_control").or_else(inside) {
                    join(&mut result, &cache_point(cache));
                }
                self.called = true;
                self.say("user", &result);
            }
        }
        Ok(())
    }

    fn assistant(
        &mut self,
        source: &Source<'_>,
        message: &Message<'_>,
    ) -> Result<(), RequestError> {
        message.refuse_function_call(source)?;
        let mut blocks = reasoning(message);
        let signed = !blocks.is_empty();
        self.content(source, message, &mut blocks, Points::Between)?;
        let calls = message.calls()?;
        for call in &calls {
            let mut used = Object::new();
            used.put("toolUseId", &call_id(call.id))
                .put("name", call.name)
                .put("input", &call.arguments);
            join(&mut blocks, &format!(r#"{{"toolUse":{}}}"#, used.end()));
        }
        let said = !blocks.is_empty();
        if let Some(cache) = message.get("cache_control").filter(|_| said) {
            join(&mut blocks, &cache_point(cache));
        }
        self.called |= !calls.is_empty();
        self.signature_lost = !calls.is_empty() && !signed;
        self.say("assistant", &blocks);
        Ok(())
    }

    /// Adds blocks to the turn, which is begun where the last one was the other's.
    fn say(&mut self, role: &'static str, blocks: &str) {
        if blocks.is_empty() {
            return;
        }
        if self.turn == Some(role) {
            self.turns.push(',');
        } else {
            if self.turn.is_some() {
                self.turns.push_str("]},");
            }
            self.turns
                .push_str(&format!(r#"{{"role":"{role}","content":["#));
            self.turn = Some(role);
        }
        self.turns.push_str(blocks);
    }

    /// Parts as blocks. Blank texts are left out: Bedrock refuses them.
    fn content(
        &mut self,
        source: &Source<'_>,
        message: &Message<'_>,
        out: &mut String,
        points: Points,
    ) -> Result<(), RequestError> {
        for (place, part, cache) in &parts(message) {
            let block = match part {
                Part::Text(text) if json::unescape(json::inside(text)).trim().is_empty() => {
                    continue;
                }
                Part::Text(text) => Some(format!(r#"{{"text":{text}}}"#)),
                Part::Image { url, .. } => block("image", url, &IMAGES, None),
                Part::File { data, name } => {
                    self.documents += 1;
                    let name = document_name(*name, self.documents);
                    data.and_then(|data| block("document", data, &DOCUMENTS, Some(&name)))
                }
                Part::Other => None,
            };
            match block {
                Some(block) => join(out, &block),
                None => source.cannot(
                    place,
                    "This model's provider takes texts, and as data URLs images (PNG, JPEG, GIF, WebP) and documents (PDF, CSV, Word, Excel, HTML, text, Markdown).",
                )?,
            }
            if let (Some(cache), Points::Between) = (cache, points) {
                join(out, &cache_point(cache));
            }
        }
        Ok(())
    }
}

/// Everything up to here is to be kept, for as long as the client says.
pub(super) fn cache_point(cache: &str) -> String {
    let mut point = Object::new();
    point
        .put("type", r#""default""#)
        .put_some("ttl", literal(cache, "ttl"));
    format!(r#"{{"cachePoint":{}}}"#, point.end())
}

/// An image or a document out of a data URL; `None` where it is another address or kind.
fn block(kind: &str, url: &str, kinds: &[(&str, &str)], name: Option<&str>) -> Option<String> {
    let url = json::unescape(json::inside(url));
    let (media, data) = data_url(&url)?;
    let (_, format) = kinds
        .iter()
        .find(|(known, _)| media.eq_ignore_ascii_case(known))?;
    let mut out = Object::new();
    out.put("format", &json::quote(format))
        .put_some("name", name)
        .put("source", &format!(r#"{{"bytes":{}}}"#, json::quote(data)));
    Some(format!(r#"{{"{kind}":{}}}"#, out.end()))
}

/// A name that Bedrock takes and that no other document of the request has.
fn document_name(given: Option<&str>, number: usize) -> String {
    let given = json::unescape(json::inside(given.unwrap_or(r#""document""#))).into_owned();
    let stem = given
        .rsplit_once('.')
        .map_or(given.as_str(), |(stem, _)| stem);
    let clean: String = stem
        .chars()
        .take(DOCUMENT_NAME_CHARS_MAX)
        .map(|letter| match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '(' | ')' | '[' | ']' => letter,
            _ => '-',
        })
        .collect();
    json::quote(&format!("{clean} {number}"))
}

/// The thinking that the client sends back: `reasoning_details` as this dialect gives them. Without
/// its signature it would be refused.
fn reasoning(message: &Message<'_>) -> String {
    let mut out = String::new();
    let details = message.get("reasoning_details").unwrap_or_default();
    for at in json::elements(details, 0) {
        let detail = json::slice(details, &at);
        let format = literal(detail, "format").map(json::inside);
        if format.is_some_and(|format| !format.starts_with("bedrock")) {
            continue;
        }
        let kind = Source::member(detail, "type").map(json::inside);
        let block = match (kind, literal(detail, "signature"), literal(detail, "data")) {
            (Some("reasoning.text"), Some(signature), _) => {
                let mut text = Object::new();
                text.put("text", literal(detail, "text").unwrap_or(r#""""#))
                    .put("signature", signature);
                format!(r#"{{"reasoningText":{}}}"#, text.end())
            }
            (Some("reasoning.encrypted"), _, Some(data)) => {
                format!(r#"{{"redactedContent":{data}}}"#)
            }
            _ => continue,
        };
        join(&mut out, &format!(r#"{{"reasoningContent":{block}}}"#));
    }
    out
}

/// A call's id with the letters that Bedrock takes, at most 64: ids of other providers may have others.
fn call_id(literal: &str) -> String {
    let id: String = json::unescape(json::inside(literal))
        .chars()
        .take(64)
        .map(|letter| match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => letter,
            _ => '_',
        })
        .collect();
    format!("\"{id}\"")
}
