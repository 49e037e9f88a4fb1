//! What clients say to Google alone, as on its own endpoint for OpenAI's clients: the member `google`, or `extra_body.google`.

use crate::error::RequestError;
use crate::json;
use crate::request::ChatRequest;
use crate::source::Source;

/// The members of the object that are taken over; each is JSON.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Google<'a> {
    /// `thinking_config`.
    pub(super) thinking: Option<&'a str>,
    /// `safety_settings`.
    pub(super) safety: Option<&'a str>,
}

impl<'a> Google<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// A member that would reach what is the operator's, such as cached content, or that has a fee.
    pub(super) fn read(source: &Source<'a>) -> Result<Self, RequestError> {
        if let Some(extra) = source.get("extra_body") {
            for member in json::members(extra, 0) {
                let name = member.name(extra);
                if name != "google" {
                    source.cannot(format!("extra_body.{name}"), NOT_TAKEN)?;
                }
            }
        }
        let mut google = Self::default();
        let Some(object) = object(source.request) else {
            return Ok(google);
        };
        for member in json::members(object, 0) {
            let value = json::slice(object, &member.value);
            let name = member.name(object);
            match (name.as_ref(), value.as_bytes().first()) {
                ("thinking_config" | "thinkingConfig", Some(b'{')) => google.thinking = Some(value),
                ("safety_settings" | "safetySettings", Some(b'[')) => google.safety = Some(value),
                (_, _) if value == "null" => {}
                (_, _) => source.cannot(format!("google.{name}"), NOT_TAKEN)?,
            }
        }
        Ok(google)
    }
}

const NOT_TAKEN: &str =
    "Of what is Google's own, `thinking_config` and `safety_settings` are supported.";

/// The `thinking_config` of a request, for asking whether it makes a model think.
pub(super) fn thinking<'a>(request: &ChatRequest<'a>) -> Option<&'a str> {
    let object = object(request)?;
    ["thinking_config", "thinkingConfig"]
        .iter()
        .find_map(|name| Source::member(object, name))
}

fn object<'a>(request: &ChatRequest<'a>) -> Option<&'a str> {
    let extra = request.get("extra_body");
    let nested = extra.and_then(|extra| Source::member(extra, "google"));
    request
        .get("google")
        .or(nested)
        .filter(|json| json.starts_with('{'))
}
