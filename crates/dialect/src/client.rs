//! What the gateway itself writes to a client: errors (CONTRACT 3), usage with its cost, the last chunk.

use std::ops::Range;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokens::{Bucket, Usage, UsageSource};

use crate::json::{self, Splice};

/// An error in OpenAI's shape. `metadata` is any value that serialises to a JSON object.
#[derive(Clone, Copy, Debug)]
pub struct ErrorBody<'a, M> {
    /// What happened and what to do next.
    pub message: &'a str,
    /// `type`.
    pub kind: &'a str,
    /// The parameter at fault.
    pub param: Option<&'a str>,
    /// `code`.
    pub code: &'a str,
    /// Figures beside the message.
    pub metadata: Option<M>,
}

#[derive(Serialize)]
struct Wrapper<T> {
    error: T,
}

#[derive(Serialize)]
struct PlainError<'a, M> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: &'a str,
    metadata: Option<&'a M>,
}

#[derive(Serialize)]
struct StreamError<'a, M> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: &'a str,
    status: u16,
    usage: Option<&'a RawValue>,
    metadata: Option<&'a M>,
}

impl<M: Serialize> ErrorBody<'_, M> {
    /// The body of an HTTP answer.
    ///
    /// # Errors
    /// `metadata` does not serialise.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Wrapper {
            error: PlainError {
                message: self.message,
                r#type: self.kind,
                param: self.param,
                code: self.code,
                metadata: self.metadata.as_ref(),
            },
        })
    }

    /// The data of the event that ends a stream with an error: the same fields, the HTTP status that
    /// can no longer be sent, and the usage (from [`usage_json`]) where the client is charged.
    ///
    /// # Errors
    /// `metadata` does not serialise, or `usage` is not JSON.
    pub fn to_stream_json(
        &self,
        status: u16,
        usage: Option<&str>,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let usage = usage.map(serde_json::from_str::<&RawValue>).transpose()?;
        serde_json::to_vec(&Wrapper {
            error: StreamError {
                message: self.message,
                r#type: self.kind,
                param: self.param,
                code: self.code,
                status,
                usage,
                metadata: self.metadata.as_ref(),
            },
        })
    }
}

/// What a request is charged, as a client is shown it.
#[derive(Clone, Copy, Debug)]
pub struct Bill<'a> {
    /// The usage that is charged.
    pub usage: &'a Usage,
    /// Reported: the provider's own usage object is kept, its unknown members too. Counted: it is
    /// replaced by ours.
    pub source: UsageSource,
    /// Credits, as a decimal string.
    pub cost: &'a str,
    /// Written as `cost_details`; what the provider sends under that name is what the operator pays,
    /// and is replaced or taken out.
    pub cost_details: Option<&'a RawValue>,
}

/// OpenAI's usage object out of buckets, with the cost as a decimal string.
///
/// Cache writes and images are named only where there are any: OpenAI has no such counts.
#[must_use]
pub fn usage_json(bill: &Bill<'_>) -> String {
    let mut out = usage_members(bill.usage);
    out.push_str(r#","cost":"#);
    out.push_str(&json::quote(bill.cost));
    if let Some(details) = bill.cost_details {
        out.push_str(r#","cost_details":"#);
        out.push_str(details.get());
    }
    out.push('}');
    out
}

/// The same object without its cost and its closing brace.
pub(crate) fn usage_members(usage: &Usage) -> String {
    let writes = usage.cache_write_5m.saturating_add(usage.cache_write_1h);
    let some = |name: &str, count: u64| {
        if count == 0 {
            String::new()
        } else {
            format!(",\"{name}\":{count}")
        }
    };
    let pieces: String = Bucket::ALL
        .into_iter()
        .filter(|bucket| !bucket.is_prompt() && !bucket.is_completion())
        .map(|bucket| some(bucket.as_str(), usage.get(bucket)))
        .collect();
    format!(
        concat!(
            r#"{{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{},"#,
            r#""prompt_tokens_details":{{"cached_tokens":{},"audio_tokens":{}{}{}}},"#,
            r#""completion_tokens_details":{{"reasoning_tokens":{},"audio_tokens":{}{}}}{}"#
        ),
        usage.prompt_total(),
        usage.completion_total(),
        usage.total(),
        usage.cached_prompt,
        usage.audio_prompt,
        some("cache_write_tokens", writes),
        some("image_tokens", usage.image_prompt),
        usage.reasoning,
        usage.audio_completion,
        some("image_tokens", usage.image_completion),
        pieces,
    )
}

/// Puts the bill into `text`, an object. `usage` is the top-level usage object to keep, if any.
pub(crate) fn splice_bill(text: &str, usage: Option<Range<usize>>, bill: &Bill<'_>) -> Bytes {
    let keep = match bill.source {
        UsageSource::Reported => usage,
        UsageSource::Counted => None,
    };
    let mut splice = Splice::default();
    match keep {
        Some(object) => add_cost(text, object.start, bill, &mut splice),
        None => set_usage(text, usage_json(bill), &mut splice),
    }
    Bytes::from(splice.apply(text))
}

pub(crate) fn add_cost(text: &str, object: usize, bill: &Bill<'_>, splice: &mut Splice<'_>) {
    let details = bill.cost_details.map(RawValue::get);
    let mut missing = [
        Some(("cost", json::quote(bill.cost))),
        details.map(|raw| ("cost_details", raw.to_owned())),
    ];
    let mut end = object + 1;
    let mut empty = true;
    for member in json::members(text, object) {
        end = member.value.end;
        empty = false;
        match member.name(text).as_ref() {
            "cost" => {
                splice.replace(member.value, json::quote(bill.cost));
                missing[0] = None;
            }
            "cost_details" => {
                splice.replace(member.value, details.unwrap_or("null").to_owned());
                missing[1] = None;
            }
            // xAI: what the operator pays.
            "cost_in_usd_ticks" => splice.replace(member.value, "null"),
            _ => {}
        }
    }
    let mut added = String::new();
    for (name, value) in missing.into_iter().flatten() {
        if !std::mem::take(&mut empty) {
            added.push(',');
        }
        added.push_str(&format!("\"{name}\":{value}"));
    }
    splice.insert(end, added);
}

/// Writes `usage` as the top-level usage of an object.
pub(crate) fn set_usage(text: &str, usage: String, splice: &mut Splice<'_>) {
    let start = text.len() - text.trim_ascii_start().len();
    let mut end = start + 1;
    let mut empty = true;
    for member in json::members(text, start) {
        end = member.value.end;
        empty = false;
        if member.name(text) == "usage" {
            splice.replace(member.value, usage);
            return;
        }
    }
    let comma = if empty { "" } else { "," };
    splice.insert(end, format!("{comma}\"usage\":{usage}"));
}

/// What the chunks of one stream have in common, as raw JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkTemplate {
    id: String,
    created: String,
    model: String,
    object: String,
}

impl Default for ChunkTemplate {
    /// For a stream that broke before its first chunk.
    fn default() -> Self {
        Self {
            id: String::from("\"\""),
            created: String::from("0"),
            model: String::from("\"\""),
            object: String::from("\"chat.completion.chunk\""),
        }
    }
}

/// The longest value taken over into a template; a longer one is nothing that an id or a name can be.
const TEMPLATE_BYTES_MAX: usize = 1024;

impl ChunkTemplate {
    /// For a stream of which no chunk has come. `created` is in Unix seconds.
    #[must_use]
    pub fn new(id: &str, created: u64, model: &str) -> Self {
        Self {
            id: json::quote(id),
            created: created.to_string(),
            model: json::quote(model),
            ..Self::default()
        }
    }

    /// The beginning of a chunk, up to the value of its choices.
    pub(crate) fn head(&self) -> String {
        let Self {
            id,
            created,
            model,
            object,
        } = self;
        format!(r#"{{"id":{id},"object":{object},"created":{created},"model":{model},"choices":"#)
    }

    pub(crate) fn read(chunk: &str) -> Self {
        let mut template = Self::default();
        let start = chunk.len() - chunk.trim_ascii_start().len();
        for member in json::members(chunk, start) {
            let name = member.name(chunk);
            let field = match name.as_ref() {
                "id" => &mut template.id,
                "created" => &mut template.created,
                "model" => &mut template.model,
                "object" => &mut template.object,
                _ => continue,
            };
            let value = json::slice(chunk, &member.value);
            if value.len() <= TEMPLATE_BYTES_MAX {
                *field = value.to_owned();
            }
        }
        template
    }

    /// The chunk without choices that tells the usage: the last before `[DONE]` or before an error.
    #[must_use]
    pub fn usage_chunk(&self, bill: &Bill<'_>) -> Vec<u8> {
        format!(r#"{}[],"usage":{}}}"#, self.head(), usage_json(bill)).into_bytes()
    }
}
