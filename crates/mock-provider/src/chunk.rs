//! The JSON around words: chunks of a stream and whole answers, for chats and plain completions.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};

/// Which endpoint's shape an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Chat,
    Text,
}

/// What every chunk of one answer says.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    shape: Shape,
    /// From `{"id"` to `"choices":`.
    chunk_start: String,
    answer_start: String,
    /// Streams that report usage say `"usage":null` on all other chunks, as OpenAI's do.
    null_usage: bool,
}

impl Envelope {
    pub(crate) fn new(shape: Shape, model: &str, null_usage: bool) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let created = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let model = json_text(model);
        let start = |kind: &str, object: &str| {
            format!(
                r#"{{"id":"{kind}-mock{count:012}","object":"{object}","created":{created},"model":{model},"system_fingerprint":"fp_mock","choices":"#
            )
        };
        let (chunk_start, answer_start) = match shape {
            Shape::Chat => (
                start("chatcmpl", "chat.completion.chunk"),
                start("chatcmpl", "chat.completion"),
            ),
            Shape::Text => (
                start("cmpl", "text_completion"),
                start("cmpl", "text_completion"),
            ),
        };
        Self {
            shape,
            chunk_start,
            answer_start,
            null_usage,
        }
    }

    /// A text completion has no chunk for the role.
    pub(crate) fn role(&self, choice: u32) -> Option<Bytes> {
        match self.shape {
            Shape::Chat => Some(self.delta(
                choice,
                r#"{"role":"assistant","content":"","refusal":null}"#,
            )),
            Shape::Text => None,
        }
    }

    pub(crate) fn word(&self, choice: u32, word: &str, usage: Option<&str>) -> Bytes {
        let word = json_text(word);
        match self.shape {
            Shape::Chat => self.one(
                choice,
                &[r#""delta":{"content":"#, &word, "}"],
                "null",
                usage,
            ),
            Shape::Text => self.one(choice, &[r#""text":"#, &word], "null", usage),
        }
    }

    pub(crate) fn delta(&self, choice: u32, delta: &str) -> Bytes {
        self.one(choice, &[r#""delta":"#, delta], "null", None)
    }

    pub(crate) fn finish(&self, choice: u32, reason: &str) -> Bytes {
        let empty = match self.shape {
            Shape::Chat => r#""delta":{}"#,
            Shape::Text => r#""text":"""#,
        };
        self.one(choice, &[empty], &json_text(reason), None)
    }

    /// A chunk with any choices; without usage it says null where the stream reports it.
    pub(crate) fn chunk(&self, choices: &str, usage: Option<&str>) -> Bytes {
        let mut text = self.open(choices.len() + usage.map_or(0, str::len));
        text.extend_from_slice(choices.as_bytes());
        self.close(text, usage)
    }

    /// A whole answer with these choices.
    pub(crate) fn answer(&self, choices: &str, usage: Option<&str>) -> String {
        let usage = usage.map_or(String::new(), |usage| format!(r#","usage":{usage}"#));
        format!("{}{choices}{usage}}}", self.answer_start)
    }

    /// A whole answer up to where its text goes.
    pub(crate) fn answer_before_text(&self) -> String {
        let open = match self.shape {
            Shape::Chat => r#"[{"index":0,"message":{"role":"assistant","content":""#,
            Shape::Text => r#"[{"index":0,"text":""#,
        };
        format!("{}{open}", self.answer_start)
    }

    /// One choice of a whole answer. `calls` is a JSON list of tool calls.
    pub(crate) fn choice(&self, index: u32, text: &str, calls: Option<&str>, end: &str) -> String {
        let content = if calls.is_some() && text.is_empty() {
            "null".to_owned()
        } else {
            json_text(text)
        };
        let calls = calls.map_or(String::new(), |calls| format!(r#","tool_calls":{calls}"#));
        match self.shape {
            Shape::Chat => format!(
                r#"{{"index":{index},"message":{{"role":"assistant","content":{content},"refusal":null{calls}}},"logprobs":null,"finish_reason":{end}}}"#
            ),
            Shape::Text => format!(
                r#"{{"index":{index},"text":{content},"logprobs":null,"finish_reason":{end}}}"#
            ),
        }
    }

    fn one(&self, choice: u32, inner: &[&str], finish: &str, usage: Option<&str>) -> Bytes {
        let inner_bytes: usize = inner.iter().map(|part| part.len()).sum();
        let mut text = self.open(inner_bytes + finish.len() + usage.map_or(0, str::len) + 80);
        // Writing to memory does not fail.
        let _ = write!(text, r#"[{{"index":{choice},"#);
        for part in inner {
            text.extend_from_slice(part.as_bytes());
        }
        text.extend_from_slice(br#","logprobs":null,"finish_reason":"#);
        text.extend_from_slice(finish.as_bytes());
        text.extend_from_slice(b"}]");
        self.close(text, usage)
    }

    fn open(&self, inner_bytes: usize) -> BytesMut {
        let mut text = BytesMut::with_capacity(self.chunk_start.len() + inner_bytes + 40);
        text.extend_from_slice(b"data: ");
        text.extend_from_slice(self.chunk_start.as_bytes());
        text
    }

    fn close(&self, mut text: BytesMut, usage: Option<&str>) -> Bytes {
        if let Some(usage) = usage {
            text.extend_from_slice(br#","usage":"#);
            text.extend_from_slice(usage.as_bytes());
        } else if self.null_usage {
            text.extend_from_slice(br#","usage":null"#);
        }
        text.extend_from_slice(b"}\n\n");
        text.freeze()
    }
}

/// A usage object that is true and complete.
pub(crate) fn usage(prompt: u64, completion: u64) -> String {
    let total = prompt.saturating_add(completion);
    format!(
        r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total},"prompt_tokens_details":{{"cached_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0}}}}"#
    )
}

/// A text as JSON, quotes included.
pub(crate) fn json_text(text: &str) -> String {
    // A text is always representable; the fallback is never used.
    serde_json::to_string(text).unwrap_or_default()
}
