//! Parameters beside messages, tools and thinking: each is translated, without effect, or refused by name.

use crate::error::RequestError;
use crate::json;
use crate::source::{Form, Object, Source, Vocabulary};

/// Stop sequences that Google takes at most.
const STOPS_MAX: usize = 5;

/// What becomes of each member.
pub(super) const MEMBERS: Vocabulary = Vocabulary {
    translated: &[
        "seed",
        "n",
        "presence_penalty",
        "frequency_penalty",
        "logprobs",
        "top_logprobs",
        "modalities",
        "parallel_tool_calls",
        "google",
        "extra_body",
    ],
    native: &[],
    no_effect: &["user", "safety_identifier"],
};

/// Numbers that travel as they are, under Google's name.
const NUMBERS: [(&str, &str); 6] = [
    ("temperature", "temperature"),
    ("top_p", "topP"),
    ("top_k", "topK"),
    ("seed", "seed"),
    ("presence_penalty", "presencePenalty"),
    ("frequency_penalty", "frequencyPenalty"),
];

/// The `generationConfig`; `None` where there is nothing to say.
///
/// # Errors
/// A value that Google does not have.
pub(super) fn generation_config(
    source: &Source<'_>,
    thinking: Option<&str>,
) -> Result<Option<String>, RequestError> {
    let mut config = Object::new();
    if let Some(limit) = source.output_limit() {
        config.put("maxOutputTokens", &limit.to_string());
    }
    if source.request.choices() > 1 {
        config.put("candidateCount", &source.request.choices().to_string());
    }
    for (name, theirs) in NUMBERS {
        config.put_some(theirs, source.number(name)?.as_deref());
    }
    config.put_some("stopSequences", stop_sequences(source)?.as_deref());
    if source.get("logprobs") == Some("true") {
        config.put("responseLogprobs", "true");
        let top = source.number("top_logprobs")?;
        config.put_some("logprobs", top.filter(|top| top != "0").as_deref());
    }
    match Form::read(source)? {
        Form::Text => {}
        Form::Json => {
            config.put("responseMimeType", r#""application/json""#);
        }
        Form::Schema { schema, .. } => {
            config
                .put("responseMimeType", r#""application/json""#)
                .put("responseJsonSchema", schema);
        }
    }
    config.put_some("responseModalities", modalities(source)?.as_deref());
    config.put_some("thinkingConfig", thinking);
    Ok((!config.is_empty()).then(|| config.end()))
}

fn stop_sequences(source: &Source<'_>) -> Result<Option<String>, RequestError> {
    let mut stops = source.stop_sequences()?;
    if stops.len() > STOPS_MAX {
        source.cannot("stop", "This model takes five stop sequences at most.")?;
        stops.truncate(STOPS_MAX);
    }
    Ok((!stops.is_empty()).then(|| format!("[{}]", stops.join(","))))
}

/// `modalities`, where they are more than text.
fn modalities(source: &Source<'_>) -> Result<Option<String>, RequestError> {
    let Some(sent) = source.get("modalities") else {
        return Ok(None);
    };
    let mut kinds: Vec<&str> = Vec::new();
    for at in json::elements(sent, 0) {
        match json::inside(json::slice(sent, &at)) {
            "text" => kinds.push(r#""TEXT""#),
            "image" => kinds.push(r#""IMAGE""#),
            _ => source.cannot(
                "modalities",
                "This model's provider answers in text and images only.",
            )?,
        }
    }
    let more = kinds.iter().any(|kind| *kind != r#""TEXT""#);
    Ok(more.then(|| format!("[{}]", kinds.join(","))))
}
