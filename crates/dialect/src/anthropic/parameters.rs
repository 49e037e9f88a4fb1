//! Parameters beside messages, tools and thinking: each is translated, without effect, or refused by name.

use super::encode::{Source, VERSION};
use super::thinking::Plan;
use crate::error::RequestError;
use crate::json;
use crate::source::Vocabulary;

/// The version from which temperature and its kin are refused, whatever the model.
const NO_SAMPLING_VERSION: &str = "2026-10-21";

/// What becomes of each member.
pub(super) const MEMBERS: Vocabulary = Vocabulary {
    translated: &[
        "parallel_tool_calls",
        "user",
        "safety_identifier",
        "thinking",
        "output_config",
    ],
    native: &["cache_control"],
    no_effect: &[],
};

/// Anthropic must be told a limit: the client's, what is affordable, or all that the model has.
pub(super) fn output_limit(source: &Source<'_>) -> u64 {
    let limits = [
        source.request.output_limit(),
        source.edit.output_limit,
        Some(source.edit.output_tokens_max),
    ];
    limits.into_iter().flatten().min().unwrap_or(1).max(1)
}

/// Temperature and its kin. Their defaults are left out: some models refuse to hear even those.
pub(super) fn sampling<'a>(
    source: &Source<'a>,
    headers: &[(String, String)],
    thinks: bool,
) -> Result<Vec<(&'static str, &'a str)>, RequestError> {
    let version = headers.iter().find(|(name, _)| name == VERSION.0);
    let refused = version.is_some_and(|(_, day)| day.as_str() >= NO_SAMPLING_VERSION);
    let possible = source.edit.features.sampling && !refused;
    let mut out = Vec::new();
    for name in ["temperature", "top_p", "top_k"] {
        let Some(sent) = source.get(name) else {
            continue;
        };
        let Ok(number) = sent.parse::<f64>() else {
            let message = format!("`{name}` must be a number.");
            return Err(RequestError::param(name, message));
        };
        let clamp = source.quirks.clamp.get(name);
        let bound = clamp.and_then(|clamp| clamp.beyond(sent));
        let number = bound.and_then(serde_json::Number::as_f64).unwrap_or(number);
        let (top, is_default) = match name {
            "top_k" => (f64::INFINITY, false),
            _ => (1.0, (number - 1.0).abs() < f64::EPSILON),
        };
        if is_default {
            continue;
        }
        if bound.is_some() {
            // A bound of the provider's file that is no default would have to be written anew.
            source.cannot(name, format!("`{name}` is out of the provider's range."))?;
            continue;
        }
        let both = name == "top_p" && out.iter().any(|(other, _)| *other == "temperature");
        let why = if !possible {
            Some("is not supported by this model: leave it out")
        } else if !(0.0..=top).contains(&number) {
            Some("must be from 0 to 1 for this model")
        } else if thinks {
            Some("cannot be combined with reasoning: leave one of them out")
        } else if both {
            Some("cannot be combined with `temperature`: leave one of them out")
        } else {
            None
        };
        match why {
            Some(why) => source.cannot(name, format!("`{name}` {why}."))?,
            None => out.push((name, sent)),
        }
    }
    Ok(out)
}

/// `stop`, a string or a list, as a list. Anthropic refuses sequences of white space alone.
pub(super) fn stop_sequences(source: &Source<'_>) -> Result<Option<String>, RequestError> {
    let items = source.stop_sequences()?;
    let mut kept = Vec::with_capacity(items.len());
    for item in items {
        if json::unescape(json::inside(item)).trim().is_empty() {
            source.cannot(
                "stop",
                "This model cannot stop at white space alone: send another stop sequence.",
            )?;
        } else {
            kept.push(item);
        }
    }
    Ok((!kept.is_empty()).then(|| format!("[{}]", kept.join(","))))
}

/// Effort and the format of the answer, or the client's own object.
pub(super) fn output_config(
    source: &Source<'_>,
    plan: &Plan,
) -> Result<Option<String>, RequestError> {
    let format = response_format(source)?;
    if let Some(own) = source.get("output_config") {
        if format.is_some() || plan.effort.is_some() {
            return Err(RequestError::param(
                "output_config",
                "`output_config` says what `reasoning_effort` and `response_format` say: send one or the other.",
            ));
        }
        return Ok(Some(own.to_owned()));
    }
    let effort = plan
        .effort
        .map(|effort| format!(r#""effort":"{}""#, effort.as_str()));
    let members: Vec<String> = effort.into_iter().chain(format).collect();
    Ok((!members.is_empty()).then(|| format!("{{{}}}", members.join(","))))
}

/// `response_format` as the `format` member of `output_config`.
fn response_format(source: &Source<'_>) -> Result<Option<String>, RequestError> {
    let Some(sent) = source.get("response_format") else {
        return Ok(None);
    };
    let kind = Source::member(sent, "type").unwrap_or_default();
    match json::inside(kind) {
        "text" => Ok(None),
        "json_schema" => {
            let named = Source::member(sent, "json_schema").unwrap_or_default();
            match Source::member(named, "schema").filter(|schema| schema.starts_with('{')) {
                Some(schema) => Ok(Some(format!(
                    r#""format":{{"type":"json_schema","schema":{schema}}}"#
                ))),
                None => Err(RequestError::param(
                    "response_format",
                    "`response_format.json_schema.schema` is missing.",
                )),
            }
        }
        _ => {
            source.cannot(
                "response_format",
                "This model has no JSON mode without a schema: send `json_schema`.",
            )?;
            Ok(None)
        }
    }
}

/// Who the request is for: an opaque id, so that the provider can tell users apart.
pub(super) fn metadata(source: &Source<'_>) -> Option<String> {
    let user = source
        .get("safety_identifier")
        .or_else(|| source.get("user"))?;
    user.starts_with('"')
        .then(|| format!(r#"{{"user_id":{user}}}"#))
}
