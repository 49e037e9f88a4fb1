//! An answer or an event as Google writes it: both have one shape, an event with the parts that are new.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::logprobs::RawLogprobs;
use crate::compose::literal;
use crate::counts::Json;
use crate::error::{DecodeError, UpstreamError};
use crate::json;
use crate::object;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawResponse<'a> {
    #[serde(borrow, default)]
    pub(super) candidates: Option<Vec<RawCandidate<'a>>>,
    #[serde(borrow, default)]
    pub(super) prompt_feedback: Option<RawFeedback<'a>>,
    #[serde(borrow, default)]
    pub(super) usage_metadata: Json<'a>,
    #[serde(borrow, default)]
    pub(super) model_version: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) response_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) error: Json<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawCandidate<'a> {
    #[serde(default)]
    pub(super) index: Option<u32>,
    #[serde(borrow, default)]
    content: Option<RawContent<'a>>,
    #[serde(borrow, default)]
    pub(super) finish_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) logprobs_result: Option<RawLogprobs<'a>>,
}

#[derive(Deserialize)]
struct RawContent<'a> {
    #[serde(borrow, default)]
    parts: Option<Vec<RawPart<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawPart<'a> {
    #[serde(borrow, default)]
    text: Json<'a>,
    #[serde(default)]
    thought: Option<bool>,
    #[serde(borrow, default)]
    thought_signature: Json<'a>,
    #[serde(borrow, default)]
    pub(super) function_call: Option<RawCall<'a>>,
    #[serde(borrow, default)]
    inline_data: Option<RawBlob<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBlob<'a> {
    #[serde(borrow, default)]
    mime_type: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Json<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawCall<'a> {
    #[serde(borrow, default)]
    pub(super) id: Json<'a>,
    #[serde(borrow, default)]
    pub(super) name: Json<'a>,
    #[serde(borrow, default)]
    pub(super) args: Json<'a>,
    #[serde(borrow, default)]
    pub(super) partial_args: Option<Vec<RawPartial<'a>>>,
    #[serde(default)]
    pub(super) will_continue: Option<bool>,
}

/// A piece of an argument.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawPartial<'a> {
    #[serde(borrow, default)]
    pub(super) json_path: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) string_value: Json<'a>,
    #[serde(borrow, default)]
    pub(super) number_value: Json<'a>,
    #[serde(borrow, default)]
    pub(super) bool_value: Json<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawFeedback<'a> {
    #[serde(borrow, default)]
    pub(super) block_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    block_reason_message: Json<'a>,
}

impl<'a> RawResponse<'a> {
    /// Reads a whole answer or the data of one event. Google puts some errors into a list.
    ///
    /// # Errors
    /// No such object.
    pub(super) fn read(text: &'a str) -> Result<Self, DecodeError> {
        let mut text = text.trim_ascii();
        if text.starts_with('[') {
            let first = json::elements(text, 0).next();
            text = first.map_or("", |at| json::slice(text, &at));
        }
        object::read(text)
    }

    /// The error that it has in place of an answer.
    pub(super) fn failure(&self) -> Option<Box<UpstreamError>> {
        let error = self.error?;
        Some(Box::new(UpstreamError::from_json(error.get())))
    }

    /// Why the prompt was not answered at all: Google's word, and its sentence as a literal.
    pub(super) fn blocked(&self) -> Option<(&str, Option<&'a str>)> {
        let feedback = self.prompt_feedback.as_ref()?;
        let why = feedback.block_reason.as_deref()?;
        let message = feedback.block_reason_message.map(RawValue::get);
        Some((why, message.filter(|message| message.starts_with('"'))))
    }
}

impl<'a> RawCandidate<'a> {
    /// The parts of its content.
    pub(super) fn parts(&self) -> &[RawPart<'a>] {
        let content = self.content.as_ref();
        content
            .and_then(|content| content.parts.as_deref())
            .unwrap_or_default()
    }
}

impl<'a> RawPart<'a> {
    /// Its text, a literal, unless that is a thought.
    ///
    /// # Errors
    /// A text that is no string.
    pub(super) fn said(&self) -> Result<Option<&'a str>, DecodeError> {
        if self.is_thought() {
            Ok(None)
        } else {
            literal(self.text)
        }
    }

    /// Its thought, a literal.
    ///
    /// # Errors
    /// A text that is no string.
    pub(super) fn thought(&self) -> Result<Option<&'a str>, DecodeError> {
        if self.is_thought() {
            literal(self.text)
        } else {
            Ok(None)
        }
    }

    /// What must be sent back with it, a literal.
    ///
    /// # Errors
    /// No string.
    pub(super) fn signature(&self) -> Result<Option<&'a str>, DecodeError> {
        literal(self.thought_signature)
    }

    /// An image, as the client's part of a message.
    ///
    /// # Errors
    /// Data that is no string.
    pub(super) fn image(&self, index: u32) -> Result<Option<String>, DecodeError> {
        let Some(blob) = &self.inline_data else {
            return Ok(None);
        };
        let data = literal(blob.data)?;
        let plain = |kind: &&str| {
            kind.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"/+.-".contains(&b))
        };
        let kind = Some(blob.mime_type.as_ref())
            .filter(|kind| kind.starts_with("image/"))
            .filter(plain);
        Ok(kind.zip(data).map(|(kind, data)| {
            format!(
                r#"{{"type":"image_url","index":{index},"image_url":{{"url":"data:{kind};base64,{}"}}}}"#,
                json::inside(data)
            )
        }))
    }

    /// Whether it is a text that says nothing, as at the end of a stream.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_some_and(|text| text.get() == r#""""#)
    }

    fn is_thought(&self) -> bool {
        self.thought == Some(true)
    }
}

/// The member in which a signature travels, as on Google's own endpoint for OpenAI's clients; they
/// send it back with the message or the call that it stands in.
pub(super) fn extra_content(signature: &str) -> String {
    format!(r#""extra_content":{{"google":{{"thought_signature":{signature}}}}}"#)
}
