//! What a forwarded request asks for: read from JSON or a form, bounded before it runs, counted where nobody reports.

use billing::{Prompt, Rates};
use bytes::Bytes;
use dialect::{Endpoint, Forwarded, RequestLimits};
use serde_json::{Map, Value};
use tokens::{OFF_THREAD_BYTES_MIN, Tokenizer, Usage};

use super::relay::Sold;
use crate::{
    arrival::Asked,
    audio_length::{self, Length},
    catalogue::Model,
    error::ApiError,
    form::Form,
};

/// Tokens that a model may put around each input: what begins and ends a text.
const FRAME_TOKENS: u64 = 8;
/// Tokens of an image that is edited, at most (OpenAI's guide "Images and vision": high input
/// fidelity, 6,240 and some tiles).
const IMAGE_TOKENS_MAX: u64 = 8_192;
/// Output tokens of the partial images of a stream: 100 each, three at most (OpenAI's guide "Image
/// generation").
const PARTIAL_TOKENS_MAX: u64 = 300;
/// Audio tokens of a second that is heard, at most. Gemini counts 32, OpenAI fewer.
const HEARD_TOKENS_PER_SECOND_MAX: u64 = 50;
/// The same where nobody reports it: OpenAI's price of a minute is that of 1,000 tokens.
const HEARD_TOKENS_PER_MINUTE: u64 = 1_000;
/// Audio tokens of a character that is read aloud, at most: slow speech.
const SPOKEN_TOKENS_PER_CHARACTER_MAX: u64 = 10;
/// Audio tokens of five characters where nobody reports them: 15 characters and 21 tokens a second.
const SPOKEN_TOKENS_PER_FIVE_CHARACTERS: u64 = 7;

/// The fields that forms may have. Source: OpenAI's API reference.
const TRANSCRIPTION_FIELDS: &[&str] = &[
    "file",
    "model",
    "language",
    "languages",
    "keywords",
    "prompt",
    "response_format",
    "temperature",
    "timestamp_granularities",
    "include",
    "stream",
    "chunking_strategy",
    "known_speaker_names",
    "known_speaker_references",
];
const TRANSLATION_FIELDS: &[&str] = &["file", "model", "prompt", "response_format", "temperature"];
const EDIT_FIELDS: &[&str] = &[
    "image",
    "mask",
    "prompt",
    "model",
    "n",
    "size",
    "quality",
    "background",
    "input_fidelity",
    "output_format",
    "output_compression",
    "partial_images",
    "response_format",
    "safety_identifier",
    "stream",
    "user",
];

/// A request as it was read.
pub(super) struct Work {
    endpoint: Endpoint,
    /// What is read of it: its body, or the fields of its form.
    json: Bytes,
    form: Option<Form>,
    /// Of the recording in it.
    length: Option<Length>,
    /// Images in it.
    images: u64,
}

/// What a request may consume of a model.
pub(super) struct Estimate {
    pub(super) tokenizer: Tokenizer,
    /// At most, without output tokens.
    bound: Usage,
    /// What is sold by the piece, and what is made, where nobody reports.
    pieces: Usage,
    /// Output tokens at most.
    pub(super) output_max: u64,
    /// Whether the model is sold by tokens, where others of its kind are sold by the piece.
    pub(super) by_tokens: bool,
}

impl Work {
    /// Reads a request.
    ///
    /// # Errors
    /// 400: a form that is none, or has fields that nobody here knows.
    pub(super) async fn read(endpoint: Endpoint, asked: &Asked) -> Result<Self, ApiError> {
        let known = match endpoint {
            Endpoint::Transcriptions => TRANSCRIPTION_FIELDS,
            Endpoint::Translations => TRANSLATION_FIELDS,
            Endpoint::ImageEdits => EDIT_FIELDS,
            Endpoint::Chat
            | Endpoint::Completions
            | Endpoint::Embeddings
            | Endpoint::Moderations
            | Endpoint::Rerank
            | Endpoint::ImageGenerations
            | Endpoint::Speech => {
                return Ok(Self {
                    endpoint,
                    json: asked.body.clone(),
                    form: None,
                    length: None,
                    images: 0,
                });
            }
        };
        let form = Form::read(&asked.parts.headers, &asked.body, known).await?;
        let (length, images) = if endpoint == Endpoint::ImageEdits {
            let images = form.files("image").count() + form.files("mask").count();
            (None, u64::try_from(images).unwrap_or(u64::MAX))
        } else {
            (Some(length(&form).await?), 0)
        };
        if endpoint == Endpoint::ImageEdits && images == 0 {
            return Err(missing("image"));
        }
        Ok(Self {
            endpoint,
            json: Bytes::from(fields(&form).to_string()),
            form: Some(form),
            length,
            images,
        })
    }

    /// What is read of it.
    ///
    /// # Errors
    /// 400.
    pub(super) fn request(&self) -> Result<Forwarded<'_>, ApiError> {
        let limits = RequestLimits::default();
        Ok(Forwarded::parse(self.endpoint, &self.json, &limits)?)
    }

    pub(super) const fn form(&self) -> Option<&Form> {
        self.form.as_ref()
    }

    /// Whether there is a recording in it.
    pub(super) const fn is_recording(&self) -> bool {
        self.length.is_some()
    }

    /// What it may consume of a model.
    pub(super) fn estimate(&self, request: &Forwarded<'_>, model: &Model) -> Estimate {
        let of_images = model.image_price(request.size(), request.quality());
        let priced = of_images.or(model.price.as_ref());
        let rates = priced.map(|(price, _)| price.base());
        let by_tokens = rates.is_some_and(|rates| sold_by_tokens(self.endpoint, rates));
        let asked = *request.pieces();
        let tokenizer = model.tokenizer;
        let inputs = request.inputs();
        let text = request.tokens(|text| tokenizer.upper_bound(text.len()));
        let framed = text.saturating_add(inputs.saturating_mul(FRAME_TOKENS));
        let window = u64::from(model.context_window).saturating_mul(inputs);
        let heard = self.length.unwrap_or(Length {
            likely_ms: 0,
            at_most_ms: 0,
        });
        let bound = Usage {
            prompt: if self.endpoint == Endpoint::Embeddings {
                // A longer one is refused by the provider, or cut.
                framed.min(window)
            } else {
                framed.saturating_add(self.images.saturating_mul(IMAGE_TOKENS_MAX))
            },
            audio_prompt: if by_tokens {
                heard
                    .at_most_ms
                    .saturating_mul(HEARD_TOKENS_PER_SECOND_MAX)
                    .div_ceil(1_000)
            } else {
                0
            },
            images: asked.images,
            characters: asked.characters,
            searches: asked.searches_max,
            milliseconds: heard.at_most_ms,
            ..Usage::default()
        };
        let mut pieces = Usage {
            images: asked.images,
            characters: asked.characters,
            searches: asked.searches,
            milliseconds: heard.likely_ms,
            ..Usage::default()
        };
        let output_max = if by_tokens {
            self.made(u64::from(model.output_tokens_max), &mut pieces)
        } else {
            0
        };
        Estimate {
            tokenizer,
            bound,
            pieces,
            output_max,
            by_tokens,
        }
    }

    /// Output tokens at most of a model that is sold by them and makes at most `output` at once. Adds
    /// to the pieces what is likely.
    fn made(&self, output: u64, pieces: &mut Usage) -> u64 {
        match self.endpoint {
            Endpoint::ImageGenerations | Endpoint::ImageEdits => {
                pieces.image_completion = pieces.images.saturating_mul(output);
                let each = output.saturating_add(PARTIAL_TOKENS_MAX);
                pieces.images.saturating_mul(each)
            }
            Endpoint::Speech => {
                let five = SPOKEN_TOKENS_PER_FIVE_CHARACTERS;
                pieces.audio_completion = pieces.characters.saturating_mul(five).div_ceil(5);
                let most = SPOKEN_TOKENS_PER_CHARACTER_MAX;
                pieces
                    .characters
                    .saturating_mul(most)
                    .saturating_add(FRAME_TOKENS)
            }
            Endpoint::Transcriptions | Endpoint::Translations => {
                let minute = HEARD_TOKENS_PER_MINUTE;
                pieces.audio_prompt = pieces.milliseconds.saturating_mul(minute).div_ceil(60_000);
                output
            }
            Endpoint::Chat
            | Endpoint::Completions
            | Endpoint::Embeddings
            | Endpoint::Moderations
            | Endpoint::Rerank => 0,
        }
    }

    /// The prompt: bounded by bytes, its text counted where that may decide.
    pub(super) fn prompt(&self, model: &Model, estimate: &Estimate) -> Prompt {
        let (endpoint, json) = (self.endpoint, self.json.clone());
        let (bound, tokenizer, images) = (estimate.bound, model.tokenizer, self.images);
        let count = move || match Forwarded::parse(endpoint, &json, &RequestLimits::default()) {
            Ok(request) => Usage {
                prompt: request
                    .tokens(|text| tokenizer.count(text))
                    .saturating_add(images.saturating_mul(IMAGE_TOKENS_MAX)),
                ..bound
            },
            // Cannot be: it parsed when it came in.
            Err(_) => bound,
        };
        Prompt::AtMost(bound, Box::new(count))
    }

    /// What it likely takes, where the worst case says more of the pieces.
    pub(super) fn likely(&self, estimate: &Estimate) -> Option<Usage> {
        let (bound, pieces) = (&estimate.bound, &estimate.pieces);
        let differs = bound.milliseconds != pieces.milliseconds
            || bound.searches != pieces.searches
            || bound.audio_prompt > 0
            || estimate.output_max > 0;
        let request = self.request().ok().filter(|_| differs)?;
        self.counted(&request, estimate, None)
    }

    /// What it took, where nobody reports: its text is counted, and `made` images were made. `None`
    /// where the meter counts the same.
    pub(super) fn counted(
        &self,
        request: &Forwarded<'_>,
        estimate: &Estimate,
        made: Option<u64>,
    ) -> Option<Usage> {
        if estimate.pieces == Usage::default() {
            return None;
        }
        let count = || request.tokens(|text| estimate.tokenizer.count(text));
        let large = self.json.len() >= OFF_THREAD_BYTES_MIN;
        let mut usage = Usage {
            prompt: crate::bill::off_thread_if(large, count),
            ..estimate.pieces
        };
        usage.images = made.map_or(usage.images, |made| made.min(usage.images));
        Some(usage)
    }
}

impl Estimate {
    /// A report, and the pieces that it does not name.
    pub(super) fn complete(&self, report: Usage, made: Option<u64>) -> Usage {
        complete(&self.pieces, report, made)
    }

    /// What its events are charged by.
    pub(super) const fn sold(&self) -> Sold {
        Sold {
            pieces: self.pieces,
            by_tokens: self.by_tokens,
            unknown: false,
        }
    }
}

/// A report, and of `pieces` what it does not name.
pub(super) fn complete(pieces: &Usage, report: Usage, made: Option<u64>) -> Usage {
    let or = |reported: u64, asked: u64| if reported == 0 { asked } else { reported };
    let images = made.map_or(pieces.images, |made| made.min(pieces.images));
    Usage {
        images: or(report.images, images),
        characters: or(report.characters, pieces.characters),
        searches: or(report.searches, pieces.searches),
        milliseconds: or(report.milliseconds, pieces.milliseconds),
        ..report
    }
}

/// Whether what an endpoint makes or hears is sold by tokens.
fn sold_by_tokens(endpoint: Endpoint, rates: &Rates) -> bool {
    let some = |rate: Option<billing::Credits>| rate.is_some_and(|rate| !rate.is_zero());
    match endpoint {
        Endpoint::ImageGenerations | Endpoint::ImageEdits => {
            !rates.completion.is_zero() || some(rates.image_completion)
        }
        Endpoint::Speech => !rates.completion.is_zero() || some(rates.audio_completion),
        Endpoint::Transcriptions | Endpoint::Translations => {
            !rates.prompt.is_zero() || some(rates.audio_prompt)
        }
        Endpoint::Chat
        | Endpoint::Completions
        | Endpoint::Embeddings
        | Endpoint::Moderations
        | Endpoint::Rerank => false,
    }
}

/// The length of the recording in a form.
async fn length(form: &Form) -> Result<Length, ApiError> {
    let mut files = form.files("file");
    let Some(file) = files.next().cloned() else {
        return Err(missing("file"));
    };
    // A file that makes the reader panic is one that cannot be read.
    let bytes = file.clone();
    let read = tokio::task::spawn_blocking(move || audio_length::of(&bytes)).await;
    Ok(read.unwrap_or_else(|_| audio_length::bounded(&file)))
}

fn missing(name: &'static str) -> ApiError {
    ApiError::Invalid {
        param: Some(name.into()),
        message: format!("`{name}` is missing: send the file in this field of the form.").into(),
    }
}

/// The fields of a form that are read, as JSON.
fn fields(form: &Form) -> Value {
    let mut fields = Map::new();
    for name in ["model", "prompt", "size", "quality"] {
        if let Some(text) = form.text(name) {
            fields.insert(name.into(), text.into());
        }
    }
    if let Some(n) = form.text("n") {
        let number = n.parse::<u64>().map_or_else(|_| n.into(), Value::from);
        fields.insert("n".into(), number);
    }
    if let Some(stream) = form.text("stream") {
        let flag = match stream {
            "true" | "True" | "1" => true.into(),
            "false" | "False" | "0" => false.into(),
            other => other.into(),
        };
        fields.insert("stream".into(), flag);
    }
    fields.into()
}
