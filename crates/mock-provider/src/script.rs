//! A script: what a model answers, step by step, right or wrong.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::words::{self, Passage};

/// What a model answers. Calls add steps in the order of the answer; a new script is an empty 200.
///
/// A streaming request gets the steps one by one. A plain request gets one JSON document made of
/// them (waits come before its head; words, tool calls, finish and usage are gathered), unless the
/// script has raw bytes: then those are the body.
#[derive(Clone, Debug)]
pub struct Script {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) before_head: Vec<Wait>,
    pub(crate) no_head: Option<Cut>,
    pub(crate) steps: Vec<Step>,
    pub(crate) split_bytes: Option<usize>,
    pub(crate) choices: Option<u32>,
    pub(crate) always_streams: bool,
}

/// How a connection is broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The connection is closed in order (FIN), too early for HTTP.
    Close,
    /// The connection is reset (RST).
    Reset,
}

#[derive(Clone, Debug)]
pub(crate) enum Wait {
    Pause(Duration),
    Gate(String),
    /// For ever.
    Stall,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Role,
    Words(Words),
    ToolCall {
        id: String,
        name: String,
        pieces: Vec<String>,
    },
    Finish(String),
    /// Only for a client that asked for usage, or for a plain request.
    Usage(Report),
    /// A chunk with these `choices` and, whoever asked, this `usage`: both JSON.
    Chunk {
        choices: String,
        usage: Option<String>,
    },
    /// An error object: an event in a stream, the body and a status 500 in a plain answer.
    Error(String),
    Raw(Bytes),
    /// The same words again and again, without an end.
    Endless(Duration),
    Done,
    Wait(Wait),
    Cut(Cut),
}

#[derive(Clone, Debug)]
pub(crate) struct Words {
    pub(crate) text: Text,
    pub(crate) pause: Duration,
    /// Each chunk also says the usage so far.
    pub(crate) running_usage: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Text {
    BuiltIn(Passage),
    Own(Arc<[String]>),
}

impl Text {
    pub(crate) fn get(&self, place: u64) -> Option<&str> {
        match self {
            Self::BuiltIn(passage) => passage.get(place),
            Self::Own(pieces) => pieces.get(usize::try_from(place).ok()?).map(String::as_str),
        }
    }
}

/// What a usage object says.
#[derive(Clone, Debug)]
pub(crate) enum Report {
    /// The truth by this provider's own rule: words of the prompt plus three a message, and the
    /// word chunks sent.
    Counted,
    /// Any JSON.
    Json(String),
}

impl Default for Script {
    fn default() -> Self {
        Self::new()
    }
}

impl Script {
    /// An empty answer: 200 and nothing after it, not even `[DONE]`.
    #[must_use]
    pub fn new() -> Self {
        Self {
            status: StatusCode::OK,
            headers: Vec::new(),
            before_head: Vec::new(),
            no_head: None,
            steps: Vec::new(),
            split_bytes: None,
            choices: None,
            always_streams: false,
        }
    }

    /// A whole, sensible answer: role, a chunk for each word, `stop`, usage if asked for, `[DONE]`.
    #[must_use]
    pub fn answer(text: &str) -> Self {
        Self::new().role().words(text).finish("stop").usage().done()
    }

    /// An error answer: this status with an OpenAI error body, unless raw bytes are added.
    /// A number that is no status (100 to 999) becomes 500.
    #[must_use]
    pub fn error(status: u16) -> Self {
        Self::new().status(status)
    }

    /// The status of the answer. A number that is no status (100 to 999) becomes 500.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self
    }

    /// Adds a header; `content-type` replaces the usual one. What cannot be a header is left out.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) = (name.parse(), value.parse()) {
            self.headers.push((name, value));
        }
        self
    }

    /// Waits before status and headers are sent.
    #[must_use]
    pub fn pause_before_head(mut self, pause: Duration) -> Self {
        self.before_head.push(Wait::Pause(pause));
        self
    }

    /// Holds status and headers back until the gate is opened.
    #[must_use]
    pub fn gate_before_head(mut self, gate: &str) -> Self {
        self.before_head.push(Wait::Gate(gate.to_owned()));
        self
    }

    /// Never sends status and headers, and keeps the connection open.
    #[must_use]
    pub fn stall_before_head(mut self) -> Self {
        self.before_head.push(Wait::Stall);
        self
    }

    /// Breaks the connection off instead of sending status and headers.
    #[must_use]
    pub fn cut_before_head(mut self, cut: Cut) -> Self {
        self.no_head = Some(cut);
        self
    }

    /// The first chunk of a chat: `{"role":"assistant","content":""}`.
    #[must_use]
    pub fn role(self) -> Self {
        self.step(Step::Role)
    }

    /// A chunk for each word of the text, the space before it included.
    #[must_use]
    pub fn words(self, text: &str) -> Self {
        self.own_words(words::pieces(text), Duration::ZERO, false)
    }

    /// As [`Script::words`], with a pause before each.
    #[must_use]
    pub fn words_paced(self, text: &str, pause: Duration) -> Self {
        self.own_words(words::pieces(text), pause, false)
    }

    /// As [`Script::words`], each chunk with the usage so far: to be read as the last, not the sum.
    #[must_use]
    pub fn words_with_running_usage(self, text: &str) -> Self {
        self.own_words(words::pieces(text), Duration::ZERO, true)
    }

    /// One chunk with exactly this text.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.own_words(vec![text.to_owned()], Duration::ZERO, false)
    }

    /// This many chunks of the built-in text, each one `o200k_base` token.
    #[must_use]
    pub fn tokens(self, count: u64) -> Self {
        self.tokens_paced(count, Duration::ZERO)
    }

    /// As [`Script::tokens`], with a pause before each.
    #[must_use]
    pub fn tokens_paced(self, count: u64, pause: Duration) -> Self {
        self.passage(Passage::new(0, Some(count)), pause)
    }

    /// Chunks without an end, with a pause before each.
    #[must_use]
    pub fn endless(self, pause: Duration) -> Self {
        self.step(Step::Endless(pause))
    }

    /// A tool call whose arguments (JSON) come in this many pieces; finish with `tool_calls`.
    #[must_use]
    pub fn tool_call(self, name: &str, arguments: &str, pieces: usize) -> Self {
        let chars: Vec<char> = arguments.chars().collect();
        let size = chars.len().div_ceil(pieces.max(1)).max(1);
        self.step(Step::ToolCall {
            id: format!("call_mock_{name}"),
            name: name.to_owned(),
            pieces: chars
                .chunks(size)
                .map(|part| part.iter().collect())
                .collect(),
        })
    }

    /// The chunk with the finish reason: `stop`, `length`, `tool_calls`, `content_filter`.
    #[must_use]
    pub fn finish(self, reason: &str) -> Self {
        self.step(Step::Finish(reason.to_owned()))
    }

    /// The usage, true by this provider's rule, for a client that asked for it.
    #[must_use]
    pub fn usage(self) -> Self {
        self.step(Step::Usage(Report::Counted))
    }

    /// As [`Script::usage`], with this JSON as the usage object, however wrong.
    #[must_use]
    pub fn usage_json(self, json: &str) -> Self {
        self.step(Step::Usage(Report::Json(json.to_owned())))
    }

    /// A chunk with these `choices` and this `usage`, both JSON, whether or not usage was asked for.
    #[must_use]
    pub fn chunk(self, choices: &str, usage: Option<&str>) -> Self {
        self.step(Step::Chunk {
            choices: choices.to_owned(),
            usage: usage.map(str::to_owned),
        })
    }

    /// An error event as OpenAI's: `data: {"error":{…}}`.
    #[must_use]
    pub fn error_event(self, message: &str) -> Self {
        let message = serde_json::Value::from(message);
        self.step(Step::Error(format!(
            r#"{{"error":{{"message":{message},"type":"server_error","param":null,"code":null}}}}"#
        )))
    }

    /// An event with this data: `data: …` and a blank line.
    #[must_use]
    pub fn data(self, data: &str) -> Self {
        self.raw(format!("data: {data}\n\n"))
    }

    /// These bytes, as they are.
    #[must_use]
    pub fn raw(self, bytes: impl Into<Bytes>) -> Self {
        self.step(Step::Raw(bytes.into()))
    }

    /// `data: [DONE]`.
    #[must_use]
    pub fn done(self) -> Self {
        self.step(Step::Done)
    }

    /// Waits. What came before is on the wire by then.
    #[must_use]
    pub fn pause(self, pause: Duration) -> Self {
        self.step(Step::Wait(Wait::Pause(pause)))
    }

    /// Waits until the test opens the gate. What came before is on the wire by then.
    #[must_use]
    pub fn gate(self, gate: &str) -> Self {
        self.step(Step::Wait(Wait::Gate(gate.to_owned())))
    }

    /// Sends nothing more, for ever, and keeps the connection open.
    #[must_use]
    pub fn stall(self) -> Self {
        self.step(Step::Wait(Wait::Stall))
    }

    /// Breaks the connection off. What came before is on the wire by then, if the client reads; a
    /// reset can still take from the client what it has not read.
    #[must_use]
    pub fn cut(self, cut: Cut) -> Self {
        self.step(Step::Cut(cut))
    }

    /// Writes the body in pieces of this many bytes (at least one), each flushed by itself.
    #[must_use]
    pub fn split(mut self, bytes: usize) -> Self {
        self.split_bytes = Some(bytes.max(1));
        self
    }

    /// Answers with this many choices (1 to 128), whatever `n` the request has.
    #[must_use]
    pub fn choices(mut self, choices: u32) -> Self {
        self.choices = Some(choices.clamp(1, crate::request::CHOICES_MAX));
        self
    }

    /// Sends the steps one by one also where the body has no `"stream": true`: for dialects that
    /// say it in the path.
    #[must_use]
    pub fn always_stream(mut self) -> Self {
        self.always_streams = true;
        self
    }

    pub(crate) fn passage(self, passage: Passage, pause: Duration) -> Self {
        self.step(Step::Words(Words {
            text: Text::BuiltIn(passage),
            pause,
            running_usage: false,
        }))
    }

    pub(crate) fn own_words(self, pieces: Vec<String>, pause: Duration, usage: bool) -> Self {
        self.step(Step::Words(Words {
            text: Text::Own(pieces.into()),
            pause,
            running_usage: usage,
        }))
    }

    pub(crate) fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}
