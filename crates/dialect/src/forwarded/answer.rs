//! The answer to a forwarded request: what it says it took, by whichever of the names that providers use.

use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use tokens::{Usage, UsageSource};

use crate::client::{Bill, set_usage, splice_bill, usage_json};
use crate::counts::{Json, count, fresh_prompt, inner, object, wide};
use crate::endpoint::Endpoint;
use crate::error::{DecodeError, UpstreamError, UsageFault};
use crate::json::{self, Splice};
use crate::object;
use crate::openai::report_text;
use crate::service_tier;

/// Where usage is, apart from `/usage`: Cohere bills by the one, and counts in the other; events of
/// OpenAI's Responses have it in the response.
const ELSEWHERE: [[&str; 2]; 3] = [
    ["meta", "billed_units"],
    ["meta", "tokens"],
    ["response", "usage"],
];

/// An answer that is JSON, with the bytes as the provider sent them.
#[derive(Debug)]
pub struct ForwardedAnswer {
    endpoint: Endpoint,
    bytes: Bytes,
    usage: Option<Result<Usage, UsageFault>>,
    /// The object that it was read from.
    usage_at: Option<Range<usize>>,
    /// The top-level usage object, which the bill is written into.
    top: Option<Range<usize>>,
}

#[derive(Deserialize)]
struct RawUsage<'a> {
    #[serde(borrow, default)]
    prompt_tokens: Json<'a>,
    #[serde(borrow, default)]
    input_tokens: Json<'a>,
    #[serde(borrow, default)]
    completion_tokens: Json<'a>,
    #[serde(borrow, default)]
    output_tokens: Json<'a>,
    #[serde(borrow, default)]
    total_tokens: Json<'a>,
    #[serde(borrow, default)]
    input_tokens_details: Json<'a>,
    /// OpenAI's transcriptions write it without the s.
    #[serde(borrow, default)]
    input_token_details: Json<'a>,
    #[serde(borrow, default)]
    prompt_tokens_details: Json<'a>,
    #[serde(borrow, default)]
    output_tokens_details: Json<'a>,
    /// Cohere.
    #[serde(borrow, default)]
    search_units: Json<'a>,
    /// OpenAI's transcriptions by the second; may have a fraction.
    #[serde(borrow, default)]
    seconds: Json<'a>,
    /// Mistral.
    #[serde(borrow, default)]
    prompt_audio_seconds: Json<'a>,
}

#[derive(Default, Deserialize)]
struct RawDetails<'a> {
    #[serde(borrow, default)]
    cached_tokens: Json<'a>,
    #[serde(borrow, default)]
    text_tokens: Json<'a>,
    #[serde(borrow, default)]
    audio_tokens: Json<'a>,
    #[serde(borrow, default)]
    image_tokens: Json<'a>,
    #[serde(borrow, default)]
    reasoning_tokens: Json<'a>,
}

impl ForwardedAnswer {
    /// Reads the body of a 200 answer.
    ///
    /// # Errors
    /// Not a JSON object, or an error in place of an answer ([`DecodeError::Upstream`]).
    pub fn decode(endpoint: Endpoint, body: Bytes) -> Result<Self, DecodeError> {
        let text = object::text(&body)?;
        serde_json::from_str::<&serde_json::value::RawValue>(text)?;
        let start = text.len() - text.trim_ascii_start().len();
        if !text.trim_ascii_start().starts_with('{') {
            return Err(DecodeError::shape("not an object"));
        }
        let mut top = None;
        let mut duration = None;
        for member in json::members(text, start) {
            let value = json::slice(text, &member.value);
            match member.name(text).as_ref() {
                "error" if value != "null" => {
                    let error = UpstreamError::from_json(value);
                    return Err(DecodeError::Upstream(Box::new(error)));
                }
                "usage" if value.starts_with('{') => top = Some(member.value),
                "duration" => duration = milliseconds(value),
                _ => {}
            }
        }
        let elsewhere = || {
            ELSEWHERE.iter().find_map(|path| {
                let steps = path.map(String::from);
                json::find(text, &steps)
            })
        };
        let usage_at = top.clone().or_else(elsewhere);
        let read = usage_at
            .as_ref()
            .and_then(|at| usage(endpoint, json::slice(text, at)).transpose());
        // OpenAI's verbose transcriptions of before they had a usage.
        let usage = read.or_else(|| {
            let milliseconds = duration?;
            Some(Ok(Usage {
                milliseconds,
                ..Usage::default()
            }))
        });
        Ok(Self {
            endpoint,
            usage,
            usage_at,
            top,
            bytes: body,
        })
    }

    /// The usage it reports; `None` when it reports none. What it does not name is none of it: pieces
    /// that were asked for are the asker's to add.
    #[must_use]
    pub const fn usage(&self) -> Option<Result<Usage, UsageFault>> {
        self.usage
    }

    /// The usage object as the provider wrote it; `None` when it is longer than a report can be.
    #[must_use]
    pub fn usage_text(&self) -> Option<&str> {
        report_text(self.text(), self.usage_at.as_ref()?)
    }

    /// The service tier that the provider says it served by, in its own word.
    #[must_use]
    pub fn service_tier(&self) -> Option<String> {
        service_tier::named(self.text(), self.usage_text())
    }

    /// How many things are in its `data`: images that were made.
    #[must_use]
    pub fn data(&self) -> Option<u64> {
        let at = json::find(self.text(), &["data".into()])?;
        u64::try_from(json::elements(self.text(), at.start).count()).ok()
    }

    /// The answer with the bill in its usage, which is written where there is none or none that can
    /// be trusted; every other byte stays.
    #[must_use]
    pub fn with_bill(&self, bill: &Bill<'_>) -> Bytes {
        let reported =
            self.usage.is_some_and(|usage| usage.is_ok()) && bill.source == UsageSource::Reported;
        if let Some(top) = self.top.clone().filter(|_| reported) {
            return splice_bill(self.text(), Some(top), bill);
        }
        let mut splice = Splice::default();
        set_usage(
            self.text(),
            composed_usage(self.endpoint, bill),
            &mut splice,
        );
        Bytes::from(splice.apply(self.text()))
    }

    fn text(&self) -> &str {
        // Checked when it was decoded.
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }
}

/// A usage object with the cost, of the shape that the endpoint has at OpenAI: its SDKs check it.
fn composed_usage(endpoint: Endpoint, bill: &Bill<'_>) -> String {
    let usage = bill.usage;
    let (read, made) = (usage.prompt_total(), usage.completion_total());
    let tokens = |details: &str| {
        format!(
            r#""input_tokens":{read},{details}"output_tokens":{made},"total_tokens":{}"#,
            usage.total()
        )
    };
    let images = usage.image_prompt;
    let counts = match endpoint {
        Endpoint::ImageGenerations | Endpoint::ImageEdits => {
            let text = read.saturating_sub(images);
            let details = format!(
                r#""input_tokens_details":{{"text_tokens":{text},"image_tokens":{images}}},"#
            );
            format!(r#"{},"images":{}"#, tokens(&details), usage.images)
        }
        Endpoint::Transcriptions | Endpoint::Translations if usage.milliseconds > 0 => {
            let (whole, rest) = (usage.milliseconds / 1000, usage.milliseconds % 1000);
            format!(r#""type":"duration","seconds":{whole}.{rest:03}"#)
        }
        Endpoint::Transcriptions | Endpoint::Translations => {
            format!(r#""type":"tokens",{}"#, tokens(""))
        }
        Endpoint::Speech => tokens(""),
        Endpoint::Chat
        | Endpoint::Completions
        | Endpoint::Embeddings
        | Endpoint::Moderations
        | Endpoint::Rerank => return usage_json(bill),
    };
    let details = bill
        .cost_details
        .map(|details| format!(r#","cost_details":{}"#, details.get()))
        .unwrap_or_default();
    format!(r#"{{{counts},"cost":{}{details}}}"#, json::quote(bill.cost))
}

/// Reads a usage object; `None` when it says nothing.
pub(crate) fn usage(endpoint: Endpoint, json: &str) -> Result<Option<Usage>, UsageFault> {
    let raw: RawUsage<'_> = object(json)?;
    let details = [
        raw.input_tokens_details,
        raw.input_token_details,
        raw.prompt_tokens_details,
    ];
    let inside: RawDetails<'_> = inner(details.into_iter().flatten().next())?;
    let outside: RawDetails<'_> = inner(raw.output_tokens_details)?;
    let prompt = count("prompt_tokens", &[raw.prompt_tokens, raw.input_tokens])?;
    let completion = count(
        "completion_tokens",
        &[raw.completion_tokens, raw.output_tokens],
    )?;
    let total = count("total_tokens", &[raw.total_tokens])?;
    let searches = count("search_units", &[raw.search_units])?;
    let seconds = [raw.seconds, raw.prompt_audio_seconds];
    let milliseconds = match seconds.into_iter().flatten().next() {
        None => None,
        Some(json) => {
            Some(milliseconds(json.get()).ok_or(UsageFault::NotACount { field: "seconds" })?)
        }
    };
    let tokens = match (prompt, completion, total) {
        (None, None, None) => None,
        // Jina, Voyage: all of it was read.
        (None, None, Some(total)) => Some((u64::from(total), 0)),
        (prompt, completion, None) => Some((wide(prompt), wide(completion))),
        (Some(prompt), completion, Some(total)) => {
            // Some count a completion that an embedding does not have.
            let rest = total
                .checked_sub(prompt)
                .ok_or(UsageFault::TotalDisagrees)?;
            if completion.is_some_and(|completion| completion != rest) {
                return Err(UsageFault::TotalDisagrees);
            }
            Some((u64::from(prompt), u64::from(rest)))
        }
        (None, Some(completion), Some(total)) => {
            let rest = total
                .checked_sub(completion)
                .ok_or(UsageFault::TotalDisagrees)?;
            Some((u64::from(rest), u64::from(completion)))
        }
    };
    if tokens.is_none() && searches.is_none() && milliseconds.is_none() {
        return Ok(None);
    }
    let (prompt, completion) = tokens.unwrap_or_default();
    let mut usage = buckets(endpoint, prompt, completion, &inside, &outside)?;
    usage.searches = wide(searches);
    usage.milliseconds = milliseconds.unwrap_or(0);
    Ok(Some(usage))
}

/// Takes the totals apart by their details.
fn buckets(
    endpoint: Endpoint,
    prompt: u64,
    completion: u64,
    inside: &RawDetails<'_>,
    outside: &RawDetails<'_>,
) -> Result<Usage, UsageFault> {
    let cached = wide(count("cached_tokens", &[inside.cached_tokens])?);
    let audio = wide(count("prompt audio_tokens", &[inside.audio_tokens])?);
    let image = wide(count("prompt image_tokens", &[inside.image_tokens])?);
    let too_much = |field| UsageFault::PartExceedsTotal { field };
    if audio.saturating_add(image) > prompt {
        return Err(too_much("prompt audio_tokens"));
    }
    let fresh = prompt
        .checked_sub(cached)
        .ok_or(too_much("cached_tokens"))?;
    let text = count("output text_tokens", &[outside.text_tokens])?;
    let reasoning = wide(count("reasoning_tokens", &[outside.reasoning_tokens])?);
    let rest = completion
        .checked_sub(reasoning)
        .ok_or(too_much("reasoning_tokens"))?;
    let mut usage = Usage {
        cached_prompt: cached,
        reasoning,
        ..fresh_prompt(fresh, audio, image)
    };
    // What is not said to be text is what the endpoint makes.
    let made = match text {
        Some(text) => rest
            .checked_sub(u64::from(text))
            .ok_or(too_much("output text_tokens"))?,
        None => rest,
    };
    usage.completion = rest - made;
    match endpoint {
        Endpoint::ImageGenerations | Endpoint::ImageEdits => usage.image_completion = made,
        Endpoint::Speech => usage.audio_completion = made,
        Endpoint::Chat
        | Endpoint::Completions
        | Endpoint::Embeddings
        | Endpoint::Moderations
        | Endpoint::Rerank
        | Endpoint::Transcriptions
        | Endpoint::Translations => usage.completion = rest,
    }
    Ok(usage)
}

/// Seconds in decimal text, rounded up to a millisecond; `None` where it is no such number, or more
/// than a month.
fn milliseconds(json: &str) -> Option<u64> {
    const SECONDS_MAX: u64 = 31 * 24 * 3600;
    // Some write the number as a text.
    let (whole, fraction) = match json::inside(json).split_once('.') {
        Some((whole, fraction)) => (whole, fraction),
        None => (json::inside(json), ""),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let seconds: u64 = whole
        .parse()
        .ok()
        .filter(|seconds| *seconds <= SECONDS_MAX)?;
    let three = fraction.get(..3).unwrap_or(fraction);
    let scale = [1000, 100, 10, 1].get(three.len())?;
    let thousandths = three.parse::<u64>().unwrap_or(0) * scale;
    let more = fraction
        .get(3..)
        .is_some_and(|rest| rest.bytes().any(|digit| digit != b'0'));
    Some(seconds * 1000 + thousandths + u64::from(more))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(endpoint: Endpoint, json: &str) -> ForwardedAnswer {
        ForwardedAnswer::decode(endpoint, Bytes::from(json.to_owned())).unwrap()
    }

    fn check(endpoint: Endpoint, usage: &str, expected: Usage) {
        let answer = decode(endpoint, &format!(r#"{{"data":[],"usage":{usage}}}"#));
        assert_eq!(answer.usage(), Some(Ok(expected)), "{usage}");
        assert_eq!(answer.usage_text(), Some(usage));
    }

    #[test]
    fn usage_is_read_by_every_name() {
        let none = Usage::default();
        // OpenAI, "Create embeddings".
        check(
            Endpoint::Embeddings,
            r#"{"prompt_tokens":8,"total_tokens":8}"#,
            Usage { prompt: 8, ..none },
        );
        // Voyage, "Rerankers": the total alone.
        check(
            Endpoint::Rerank,
            r#"{"total_tokens":26}"#,
            Usage { prompt: 26, ..none },
        );
        // OpenAI, "Create image" with gpt-image-1.
        check(
            Endpoint::ImageGenerations,
            r#"{"total_tokens":100,"input_tokens":50,"output_tokens":50,"input_tokens_details":{"text_tokens":10,"image_tokens":40}}"#,
            Usage {
                prompt: 10,
                image_prompt: 40,
                image_completion: 50,
                ..none
            },
        );
        // OpenAI, "Create transcription" with gpt-4o-transcribe.
        check(
            Endpoint::Transcriptions,
            r#"{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":4,"audio_tokens":10},"output_tokens":45,"total_tokens":59}"#,
            Usage {
                prompt: 4,
                audio_prompt: 10,
                completion: 45,
                ..none
            },
        );
        // The same with whisper-1.
        check(
            Endpoint::Transcriptions,
            r#"{"type":"duration","seconds":9}"#,
            Usage {
                milliseconds: 9_000,
                ..none
            },
        );
        // OpenAI, "speech.audio.done".
        check(
            Endpoint::Speech,
            r#"{"input_tokens":14,"output_tokens":101,"total_tokens":115}"#,
            Usage {
                prompt: 14,
                audio_completion: 101,
                ..none
            },
        );
    }

    #[test]
    fn usage_that_nobody_reported_has_the_endpoints_shape() {
        let usage = Usage {
            prompt: 3,
            image_prompt: 4,
            images: 2,
            ..Usage::default()
        };
        let heard = Usage {
            milliseconds: 2_050,
            ..Usage::default()
        };
        let written = |endpoint, usage: &Usage| {
            let bill = Bill {
                usage,
                source: UsageSource::Counted,
                cost: "0.1",
                cost_details: None,
            };
            let answer = decode(endpoint, r#"{"a":1}"#);
            String::from_utf8(answer.with_bill(&bill).to_vec()).unwrap()
        };
        for (endpoint, usage, expected) in [
            (
                Endpoint::ImageEdits,
                &usage,
                r#""input_tokens":7,"input_tokens_details":{"text_tokens":3,"image_tokens":4},"output_tokens":0,"total_tokens":7,"images":2"#,
            ),
            (
                Endpoint::Transcriptions,
                &heard,
                r#""type":"duration","seconds":2.050"#,
            ),
            (
                Endpoint::Transcriptions,
                &usage,
                r#""type":"tokens","input_tokens":7,"output_tokens":0,"total_tokens":7"#,
            ),
        ] {
            let expected = format!(r#"{{"a":1,"usage":{{{expected},"cost":"0.1"}}}}"#);
            assert_eq!(written(endpoint, usage), expected);
        }
    }

    #[test]
    fn coheres_billed_units_are_searches() {
        let json = r#"{"results":[],"meta":{"api_version":{"version":"2"},"billed_units":{"search_units":2}}}"#;
        let answer = decode(Endpoint::Rerank, json);
        let expected = Usage {
            searches: 2,
            ..Usage::default()
        };
        assert_eq!(answer.usage(), Some(Ok(expected)));
        let bill = Bill {
            usage: &expected,
            source: UsageSource::Reported,
            cost: "0.004",
            cost_details: None,
        };
        let billed = String::from_utf8(answer.with_bill(&bill).to_vec()).unwrap();
        let read: serde_json::Value = serde_json::from_str(&billed).unwrap();
        assert_eq!(read["usage"]["cost"], "0.004");
        assert_eq!(read["meta"]["billed_units"]["search_units"], 2);
    }

    #[test]
    fn a_duration_is_rounded_up_to_a_millisecond() {
        for (text, expected) in [
            ("8.470000267028809", Some(8_471)),
            ("8.47", Some(8_470)),
            ("0", Some(0)),
            ("\"12.5\"", Some(12_500)),
            ("-1", None),
            ("1e3", None),
            ("99999999999", None),
            ("", None),
        ] {
            assert_eq!(milliseconds(text), expected, "{text}");
        }
        let answer = decode(Endpoint::Transcriptions, r#"{"text":"a","duration":2.5}"#);
        assert_eq!(answer.usage().unwrap().unwrap().milliseconds, 2_500);
    }

    #[test]
    fn what_cannot_be_is_a_fault_and_nothing_is_nothing() {
        for usage in [
            r#"{"prompt_tokens":8,"total_tokens":7}"#,
            r#"{"prompt_tokens":-1}"#,
            r#"{"prompt_tokens":1.5}"#,
            r#"{"input_tokens":4,"input_tokens_details":{"audio_tokens":5}}"#,
            r#"{"seconds":-4}"#,
        ] {
            let answer = decode(Endpoint::Embeddings, &format!(r#"{{"usage":{usage}}}"#));
            assert!(matches!(answer.usage(), Some(Err(_))), "{usage}");
        }
        for json in [
            r#"{}"#,
            r#"{"usage":null}"#,
            r#"{"usage":{}}"#,
            r#"{"usage":{"type":"x"}}"#,
        ] {
            assert_eq!(decode(Endpoint::Embeddings, json).usage(), None, "{json}");
        }
        for json in ["[]", "1", r#"{"error":{"message":"no"}}"#, "{"] {
            let read =
                ForwardedAnswer::decode(Endpoint::Embeddings, Bytes::from_static(json.as_bytes()));
            assert!(read.is_err(), "{json}");
        }
    }
}
