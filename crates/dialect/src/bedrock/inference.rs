//! Parameters beside messages and tools, and those that Bedrock passes on to a family of models.

use crate::anthropic::thinking::Plan;
use crate::error::RequestError;
use crate::json;
use crate::source::{Form, Object, Source};

/// Families of models that have parameters of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Claude,
    Nova,
    GptOss,
    Other,
}

impl Family {
    /// By the model's id, which names it also inside the name of a profile or of a region's group.
    fn of(model: &str) -> Self {
        let families = [
            ("anthropic.", Self::Claude),
            ("amazon.nova", Self::Nova),
            ("openai.gpt-oss", Self::GptOss),
        ];
        let found = families.iter().find(|(part, _)| model.contains(part));
        found.map_or(Self::Other, |(_, family)| *family)
    }
}

/// The limit, sampling and stop sequences.
pub(super) fn inference(source: &Source<'_>, plan: &Plan) -> Result<Option<String>, RequestError> {
    let mut out = Object::new();
    if let Some(limit) = source.output_limit() {
        out.put("maxTokens", &limit.to_string());
    }
    for (name, theirs) in [("temperature", "temperature"), ("top_p", "topP")] {
        let Some(number) = source.number(name)? else {
            continue;
        };
        // It is the default, and models that take no other refuse to hear even that.
        let default = number
            .parse::<f64>()
            .is_ok_and(|number| (number - 1.0).abs() < f64::EPSILON);
        if !source.edit.features.sampling || plan.thinks() {
            if !default {
                let message = format!(
                    "`{name}` is not supported by this model, or not while it reasons: leave it out."
                );
                source.cannot(name, message)?;
            }
        } else {
            out.put(theirs, &number);
        }
    }
    let stops = source.stop_sequences()?;
    if !stops.is_empty() {
        out.put("stopSequences", &format!("[{}]", stops.join(",")));
    }
    Ok((!out.is_empty()).then(|| out.end()))
}

/// What Bedrock passes on as it is: `top_k` and how much to think, in the words of the model's family.
pub(super) fn model_fields(
    source: &Source<'_>,
    plan: &Plan,
) -> Result<Option<String>, RequestError> {
    let family = Family::of(source.edit.upstream_model);
    let mut out = Object::new();
    if let Some(top_k) = source.number("top_k")? {
        match family {
            Family::Claude => {
                out.put("top_k", &top_k);
            }
            Family::Nova => {
                out.put("inferenceConfig", &format!(r#"{{"topK":{top_k}}}"#));
            }
            Family::GptOss | Family::Other => {
                source.cannot(
                    "top_k",
                    "`top_k` is not supported by this model: leave it out.",
                )?;
            }
        }
    }
    let effort = plan.effort.map(|effort| json::quote(effort.as_str()));
    match family {
        Family::Claude => {
            out.put_some("thinking", plan.thinking.as_deref());
            if let Some(effort) = effort {
                out.put("output_config", &format!(r#"{{"effort":{effort}}}"#));
            }
        }
        Family::Nova => {
            if let Some(effort) = effort {
                let config = format!(r#"{{"type":"enabled","maxReasoningEffort":{effort}}}"#);
                out.put("reasoningConfig", &config);
            }
        }
        Family::GptOss => {
            out.put_some("reasoning_effort", effort.as_deref());
        }
        Family::Other => {
            if plan.thinks() || effort.is_some() {
                source.cannot(
                    "reasoning_effort",
                    "How much this model reasons cannot be chosen: leave `reasoning_effort` out.",
                )?;
            }
        }
    }
    Ok((!out.is_empty()).then(|| out.end()))
}

/// `response_format`; the schema travels as a text.
pub(super) fn output_config(source: &Source<'_>) -> Result<Option<String>, RequestError> {
    match Form::read(source)? {
        Form::Text => Ok(None),
        Form::Json => {
            source.cannot(
                "response_format",
                "This model has no JSON mode without a schema: send `json_schema`.",
            )?;
            Ok(None)
        }
        Form::Schema { schema, name } => {
            let mut named = Object::new();
            named
                .put("schema", &json::quote(schema))
                .put_some("name", name);
            Ok(Some(format!(
                r#"{{"textFormat":{{"type":"json_schema","structure":{{"jsonSchema":{}}}}}}}"#,
                named.end()
            )))
        }
    }
}
