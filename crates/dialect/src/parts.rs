//! What a request's prompt consists of, for counting: messages, tools, images, audio, files, schemas.
//!
//! Members that are given twice are counted twice: it is not known which one the provider reads.

use std::borrow::Cow;
use std::ops::Range;

use tokens::{Detail, Part, data_url_size, sound_millis};

use crate::json::{self, Member};
use crate::request::ChatRequest;

/// Roles that [`Part::Message`] covers; any other is counted as text beside it.
const ROLES: [&str; 6] = [
    "system",
    "developer",
    "user",
    "assistant",
    "tool",
    "function",
];

impl<'a> ChatRequest<'a> {
    /// Everything in the request that costs prompt tokens, in order. Texts without escapes are
    /// borrowed from the body.
    ///
    /// What has no size that could be read from the request (a file by its id or address) is a file
    /// of `usize::MAX` bytes, which counts as the whole context window. Parts of unknown types count
    /// as their JSON.
    #[must_use]
    pub fn parts(&self) -> Vec<Part<'a>> {
        let mut parts = Parts {
            text: self.body(),
            out: Vec::with_capacity(self.messages() * 2),
        };
        for member in self.members() {
            let value = member.value.clone();
            match member.name.as_ref() {
                "messages" => {
                    for message in json::elements(parts.text, value.start) {
                        parts.message(message.start);
                    }
                }
                "tools" => {
                    for tool in json::elements(parts.text, value.start) {
                        parts.tool(tool);
                    }
                }
                "functions" => {
                    for function in json::elements(parts.text, value.start) {
                        parts.definition(function.start);
                    }
                }
                "response_format" => parts.schema(value.start),
                // Cohere, vLLM: texts that the provider puts into the prompt.
                "documents" => parts.raw(&value),
                _ => {}
            }
        }
        parts.out
    }
}

struct Parts<'a> {
    text: &'a str,
    out: Vec<Part<'a>>,
}

impl<'a> Parts<'a> {
    fn message(&mut self, start: usize) {
        self.out.push(Part::Message);
        for member in json::members(self.text, start) {
            let name = member.name(self.text);
            match (name.as_ref(), self.string(&member.value)) {
                ("role", Some(role)) if ROLES.contains(&role.as_ref()) => {}
                ("name", Some(author)) => self.out.push(Part::Name(author)),
                // OpenAI's cookbook counts every string of a message.
                (_, Some(text)) => self.text(text),
                ("content", None) => {
                    for part in json::elements(self.text, member.value.start) {
                        self.part(&part);
                    }
                }
                ("tool_calls", None) => {
                    for call in json::elements(self.text, member.value.start) {
                        self.strings_of(call.start, &["function", "custom"]);
                    }
                }
                ("function_call", None) => self.strings(member.value.start),
                (_, None) => {}
            }
        }
    }

    /// One part of a message's content.
    fn part(&mut self, span: &Range<usize>) {
        if let Some(text) = self.string(span) {
            self.text(text);
            return;
        }
        let mut known = false;
        for member in json::members(self.text, span.start) {
            let value = &member.value;
            known |= match member.name(self.text).as_ref() {
                "text" | "refusal" | "thinking" => {
                    if let Some(text) = self.string(value) {
                        self.text(text);
                    } else {
                        for step in json::elements(self.text, value.start) {
                            self.part(&step);
                        }
                    }
                    true
                }
                "image_url" => {
                    self.image(value);
                    true
                }
                "input_audio" => {
                    let data = self.member_string(value.start, "data");
                    let millis = data.as_deref().and_then(sound_millis);
                    let bytes = data.map_or(usize::MAX, |data| decoded_bytes(&data));
                    self.out.push(Part::Audio { bytes, millis });
                    true
                }
                "file" => {
                    let data = self.member_string(value.start, "file_data");
                    self.file(data);
                    true
                }
                "video_url" => {
                    let url = self
                        .string(value)
                        .or_else(|| self.member_string(value.start, "url"));
                    self.file(url);
                    true
                }
                _ => false,
            };
        }
        if !known {
            self.raw(span);
        }
    }

    fn image(&mut self, value: &Range<usize>) {
        // Mistral takes the address without an object around it.
        let url = self
            .string(value)
            .or_else(|| self.member_string(value.start, "url"));
        let detail = self.member_string(value.start, "detail");
        self.out.push(Part::Image {
            size: url.and_then(|url| data_url_size(&url)),
            detail: detail.map_or(Detail::Auto, |word| Detail::from_request(&word)),
        });
    }

    fn file(&mut self, data: Option<Cow<'a, str>>) {
        let inline =
            data.filter(|data| !data.starts_with("http://") && !data.starts_with("https://"));
        let bytes = inline.map_or(usize::MAX, |data| decoded_bytes(&data));
        self.out.push(Part::File { bytes });
    }

    fn tool(&mut self, span: Range<usize>) {
        let before = self.out.len();
        for member in json::members(self.text, span.start) {
            if matches!(member.name(self.text).as_ref(), "function" | "custom") {
                self.definition(member.value.start);
            }
        }
        if self.out.len() == before {
            self.raw(&span);
        }
    }

    /// `{name, description, parameters}`, or with `format` where a custom tool says how it is called.
    fn definition(&mut self, start: usize) {
        let (mut name, mut description, mut parameters) = (Cow::default(), Cow::default(), "");
        for Member { key, value } in json::members(self.text, start) {
            let member = Member {
                key,
                value: value.clone(),
            };
            match member.name(self.text).as_ref() {
                "name" => name = self.string(&value).unwrap_or_default(),
                "description" => description = self.string(&value).unwrap_or_default(),
                "parameters" | "format" => parameters = json::slice(self.text, &value),
                _ => {}
            }
        }
        self.out.push(Part::Tool {
            name,
            description,
            parameters,
        });
    }

    fn schema(&mut self, start: usize) {
        for member in json::members(self.text, start) {
            if matches!(
                member.name(self.text).as_ref(),
                "json_schema" | "schema" | "grammar"
            ) {
                self.out
                    .push(Part::Schema(json::slice(self.text, &member.value)));
            }
        }
    }

    /// The strings of the objects that are members of an object under one of `names`.
    fn strings_of(&mut self, start: usize, names: &[&str]) {
        for member in json::members(self.text, start) {
            if names.contains(&member.name(self.text).as_ref()) {
                self.strings(member.value.start);
            }
        }
    }

    fn strings(&mut self, start: usize) {
        for member in json::members(self.text, start) {
            match self.string(&member.value) {
                Some(text) => self.text(text),
                // Arguments that are not written as a string.
                None => self.raw(&member.value),
            }
        }
    }

    fn text(&mut self, text: Cow<'a, str>) {
        if !text.is_empty() {
            self.out.push(Part::Text(text));
        }
    }

    fn raw(&mut self, span: &Range<usize>) {
        let json = json::slice(self.text, span);
        if json != "null" {
            self.text(Cow::Borrowed(json));
        }
    }

    fn string(&self, span: &Range<usize>) -> Option<Cow<'a, str>> {
        let raw = json::slice(self.text, span);
        raw.starts_with('"')
            .then(|| json::unescape(json::inside(raw)))
    }

    /// A string member of the object at `start`; the longest where it is given more than once.
    fn member_string(&self, start: usize, name: &str) -> Option<Cow<'a, str>> {
        json::members(self.text, start)
            .filter(|member| member.name(self.text) == name)
            .filter_map(|member| self.string(&member.value))
            .max_by_key(|value| value.len())
    }
}

/// How many bytes a base64 text, or a data URL with one, decodes to at most.
fn decoded_bytes(data: &str) -> usize {
    let payload = match data.split_once(',') {
        Some((head, payload)) if head.starts_with("data:") => payload,
        Some(_) | None => data,
    };
    payload.trim_end_matches('=').len().saturating_mul(3) / 4
}
