//! The client's chat request: parsed once and borrowed, only for what the gateway needs to know.
//!
//! Source of the shape: OpenAI's API reference, "Create chat completion".

use std::borrow::Cow;
use std::ops::Range;

use serde_json::value::RawValue;

use crate::error::RequestError;
use crate::json;

/// Bounds on a request body. Its size in bytes is bounded where it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Most brackets inside each other; the body itself is the first.
    pub depth_max: usize,
    /// Most top-level members.
    pub members_max: usize,
    /// Most messages.
    pub messages_max: usize,
    /// Most bytes of the model name.
    pub model_bytes_max: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            depth_max: 64,
            members_max: 1024,
            messages_max: 65_536,
            model_bytes_max: 256,
        }
    }
}

/// A top-level member of the body, in the place where the client put it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member<'a> {
    /// The key with its escapes resolved.
    pub(crate) name: Cow<'a, str>,
    pub(crate) key: Range<usize>,
    pub(crate) value: Range<usize>,
}

/// A chat request that is sound as far as the gateway reads it; everything else is the provider's to judge.
#[derive(Clone, Debug)]
pub struct ChatRequest<'a> {
    text: &'a str,
    members: Vec<Member<'a>>,
    model: Cow<'a, str>,
    stream: bool,
    include_usage: bool,
    output_limit: Option<u64>,
    choices: u32,
    messages: usize,
    unwatchable: Option<&'static str>,
}

/// Kinds of JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Bool,
    Number,
    Text,
    List,
    Object,
}

/// The members that are read, and what each may be besides `null`.
///
/// A second one of these, also in another case, is refused: a provider that takes the other one would
/// serve a request that was never priced. (Go's `encoding/json` ignores case and takes the last.)
const READ: &[(&str, Kind)] = &[
    ("model", Kind::Text),
    ("messages", Kind::List),
    ("stream", Kind::Bool),
    ("stream_options", Kind::Object),
    ("max_tokens", Kind::Number),
    ("max_completion_tokens", Kind::Number),
    ("n", Kind::Number),
    ("tools", Kind::List),
    ("functions", Kind::List),
    ("response_format", Kind::Object),
    ("modalities", Kind::List),
    ("audio", Kind::Object),
    ("prediction", Kind::Object),
    ("user", Kind::Text),
    // Groq and OpenRouter: reasoning that is billed but not shown.
    ("reasoning_format", Kind::Text),
    ("include_reasoning", Kind::Bool),
    ("reasoning", Kind::Object),
];

/// Most choices that one request may ask for, as at OpenAI.
const CHOICES_MAX: u64 = 128;

impl<'a> ChatRequest<'a> {
    /// Reads a request body.
    ///
    /// # Errors
    /// What CONTRACT 3 answers with 400: not JSON, a wrong shape, a number out of range, a member
    /// that is read given twice. The error names the parameter and never repeats what was sent.
    pub fn parse(body: &'a [u8], limits: &RequestLimits) -> Result<Self, RequestError> {
        let text = std::str::from_utf8(body)
            .map_err(|_| RequestError::body("The request body is not valid UTF-8."))?;
        if json::deeper_than(body, limits.depth_max) {
            return Err(RequestError::body(format!(
                "The request body nests deeper than {} levels.",
                limits.depth_max
            )));
        }
        serde_json::from_str::<&RawValue>(text).map_err(|error| {
            RequestError::body(format!(
                "The request body is not valid JSON (line {}, column {}).",
                error.line(),
                error.column()
            ))
        })?;
        let start = text.len() - text.trim_ascii_start().len();
        if !text.trim_ascii_start().starts_with('{') {
            return Err(RequestError::body(
                "The request body must be a JSON object.",
            ));
        }
        let mut members = Vec::with_capacity(16);
        for member in json::members(text, start) {
            if members.len() == limits.members_max {
                return Err(RequestError::body("The request body has too many members."));
            }
            let name = member.name(text);
            members.push(Member {
                name,
                key: member.key,
                value: member.value,
            });
        }
        refuse_doubles(&members)?;
        let mut request = Self {
            text,
            members,
            model: Cow::Borrowed(""),
            stream: false,
            include_usage: false,
            output_limit: None,
            choices: 1,
            messages: 0,
            unwatchable: None,
        };
        request.read(limits)?;
        Ok(request)
    }

    fn read(&mut self, limits: &RequestLimits) -> Result<(), RequestError> {
        for (name, expected) in READ {
            if let Some(json) = self.get(name)
                && kind(json) != *expected
            {
                return Err(RequestError::param(
                    *name,
                    format!("`{name}` must be {}.", expected.name()),
                ));
            }
        }
        self.model = read_model(self.get("model"), limits)?;
        self.messages = self.read_messages(limits)?;
        self.stream = self.get("stream") == Some("true");
        self.include_usage = self.stream && self.read_include_usage()?;
        self.output_limit = self.read_output_limit()?;
        self.choices = match self.get("n") {
            None => 1,
            Some(json) => match json.parse::<u64>() {
                Ok(count @ 1..=CHOICES_MAX) => u32::try_from(count).unwrap_or(u32::MAX),
                Ok(_) | Err(_) => {
                    return Err(RequestError::param(
                        "n",
                        "`n` must be an integer from 1 to 128.",
                    ));
                }
            },
        };
        self.unwatchable = self.read_unwatchable();
        Ok(())
    }

    fn read_messages(&self, limits: &RequestLimits) -> Result<usize, RequestError> {
        let wrong = |message: &'static str| Err(RequestError::param("messages", message));
        let Some(list) = self.span("messages") else {
            return wrong("`messages` is missing: send a list of at least one message.");
        };
        let mut count = 0;
        for message in json::elements(self.text, list.start) {
            count += 1;
            if count > limits.messages_max {
                return wrong("`messages` has too many messages.");
            }
            if kind(json::slice(self.text, &message)) != Kind::Object {
                return wrong("Every message must be an object.");
            }
            for member in json::members(self.text, message.start) {
                let value = kind(json::slice(self.text, &member.value));
                match member.name(self.text).as_ref() {
                    "role" if value != Kind::Text => return wrong("`role` must be a string."),
                    "content" if !matches!(value, Kind::Text | Kind::List | Kind::Null) => {
                        return wrong("`content` must be a string or a list of parts.");
                    }
                    _ => {}
                }
            }
        }
        if count == 0 {
            return wrong("`messages` is empty: send at least one message.");
        }
        Ok(count)
    }

    fn read_include_usage(&self) -> Result<bool, RequestError> {
        let Some(options) = self.span("stream_options") else {
            return Ok(false);
        };
        let mut asked = None;
        for member in json::members(self.text, options.start) {
            if member.name(self.text) != "include_usage" {
                continue;
            }
            let value = json::slice(self.text, &member.value);
            let wrong = match kind(value) {
                Kind::Bool | Kind::Null => asked.is_some(),
                Kind::Number | Kind::Text | Kind::List | Kind::Object => true,
            };
            if wrong {
                return Err(RequestError::param(
                    "stream_options.include_usage",
                    "`include_usage` must be given once, as true or false.",
                ));
            }
            asked = Some(value == "true");
        }
        Ok(asked.unwrap_or(false))
    }

    fn read_output_limit(&self) -> Result<Option<u64>, RequestError> {
        let read = |name: &'static str| match self.get(name) {
            None => Ok(None),
            Some(json) => match json.parse::<u32>() {
                Ok(limit @ 1..) => Ok(Some(u64::from(limit))),
                Ok(0) | Err(_) => Err(RequestError::param(
                    name,
                    format!("`{name}` must be an integer from 1 to {}.", u32::MAX),
                )),
            },
        };
        match (read("max_tokens")?, read("max_completion_tokens")?) {
            (Some(old), Some(new)) if old != new => Err(RequestError::param(
                "max_tokens",
                "`max_tokens` and `max_completion_tokens` differ: send one of them.",
            )),
            (old, new) => Ok(new.or(old)),
        }
    }

    fn read_unwatchable(&self) -> Option<&'static str> {
        let beyond_text = |list: Range<usize>| {
            json::elements(self.text, list.start)
                .any(|item| json::unescape(json::inside(json::slice(self.text, &item))) != "text")
        };
        if self.span("modalities").is_some_and(beyond_text) {
            return Some("modalities");
        }
        if self.get("prediction").is_some() {
            return Some("prediction");
        }
        if self.get("include_reasoning") == Some("false") {
            return Some("include_reasoning");
        }
        let hidden = |json: &str| json::unescape(json::inside(json)) == "hidden";
        if self.get("reasoning_format").is_some_and(hidden) {
            return Some("reasoning_format");
        }
        let excluded = |json: &str| {
            json::find(json, &["exclude".into()]).is_some_and(|at| json::slice(json, &at) == "true")
        };
        self.get("reasoning")
            .is_some_and(excluded)
            .then_some("reasoning")
    }

    /// The body as the client sent it.
    #[must_use]
    pub const fn body(&self) -> &'a str {
        self.text
    }

    /// The model asked for: 1 to 256 bytes (`model_bytes_max`), no control characters.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Whether the answer is to be streamed.
    #[must_use]
    pub const fn stream(&self) -> bool {
        self.stream
    }

    /// Whether the client asked for the usage chunk of a stream.
    #[must_use]
    pub const fn include_usage(&self) -> bool {
        self.include_usage
    }

    /// The client's own limit on output tokens of each choice: 1 to `u32::MAX`.
    #[must_use]
    pub const fn output_limit(&self) -> Option<u64> {
        self.output_limit
    }

    /// How many choices are to be generated (`n`): 1 to 128. The output limit holds for each.
    #[must_use]
    pub const fn choices(&self) -> u32 {
        self.choices
    }

    /// How many messages there are: at least 1.
    #[must_use]
    pub const fn messages(&self) -> usize {
        self.messages
    }

    /// The parameter that makes output which is billed but cannot be counted as it passes: audio and
    /// image output, predictions (the rejected tokens), reasoning that is not shown.
    ///
    /// Such a request holds its worst case (DESIGN 3, "Holds").
    #[must_use]
    pub const fn unwatchable(&self) -> Option<&'static str> {
        self.unwatchable
    }

    /// The JSON of a top-level member, as sent; the last one where it is given twice. `null` counts as absent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.span(name).map(|at| json::slice(self.text, &at))
    }

    pub(crate) fn members(&self) -> &[Member<'a>] {
        &self.members
    }

    pub(crate) fn span(&self, name: &str) -> Option<Range<usize>> {
        let member = self
            .members
            .iter()
            .rev()
            .find(|member| member.name == name)?;
        (json::slice(self.text, &member.value) != "null").then(|| member.value.clone())
    }
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::List => "a list",
            Self::Object => "an object",
        }
    }
}

/// The kind of a value that serde has accepted.
fn kind(json: &str) -> Kind {
    match json.as_bytes().first() {
        Some(b'"') => Kind::Text,
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::List,
        Some(b't' | b'f') => Kind::Bool,
        Some(b'n') | None => Kind::Null,
        Some(_) => Kind::Number,
    }
}

fn refuse_doubles(members: &[Member<'_>]) -> Result<(), RequestError> {
    for (name, _) in READ {
        let meant = members
            .iter()
            .filter(|member| same_ignoring_case(&member.name, name));
        let (mut exact, mut other) = (0, 0);
        for member in meant {
            if member.name == *name {
                exact += 1;
            } else {
                other += 1;
            }
        }
        if exact > 1 || other > 0 {
            return Err(RequestError::param(
                *name,
                format!("`{name}` must be given once and in lower case."),
            ));
        }
    }
    Ok(())
}

/// Equal under the folding of Go's `encoding/json`: ASCII case, and the two letters outside ASCII that
/// fold into it, long s and the Kelvin sign. `name` is lower case.
fn same_ignoring_case(key: &str, name: &str) -> bool {
    let folded = key.chars().map(|letter| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        plain => plain.to_ascii_lowercase(),
    });
    folded.eq(name.chars())
}

fn read_model<'a>(
    json: Option<&'a str>,
    limits: &RequestLimits,
) -> Result<Cow<'a, str>, RequestError> {
    let wrong = |message: &'static str| Err(RequestError::param("model", message));
    let Some(json) = json else {
        return wrong("`model` is missing: name one of the models of GET /v1/models.");
    };
    let model = json::unescape(json::inside(json));
    if model.is_empty() {
        return wrong("`model` is empty: name one of the models of GET /v1/models.");
    }
    if model.len() > limits.model_bytes_max {
        return wrong("`model` is too long to be the name of a model.");
    }
    if model.chars().any(char::is_control) {
        return wrong("`model` has control characters.");
    }
    Ok(model)
}
