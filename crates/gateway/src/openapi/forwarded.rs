//! The schemas of the endpoints beyond chat: only what the gateway itself reads and writes.

use serde_json::{Value, json};

use super::schemas::Schemas;

/// A body with these members, of which some must be there.
fn body(description: &str, required: &[&str], mut properties: Value) -> Value {
    let usual = if required.contains(&"model") {
        "An id of GET /v1/models."
    } else {
        "An id of GET /v1/models; left out: the one that OpenAI takes."
    };
    properties["model"] = json!({"type": "string", "description": usual});
    json!({
        "type": "object",
        "description": format!("{description}; members that are not listed travel on untouched."),
        "required": required,
        "properties": properties,
        "additionalProperties": true,
    })
}

/// A text, a list of texts, or tokens.
fn inputs() -> Value {
    let token = json!({"type": "integer", "minimum": 0});
    json!({"oneOf": [
        {"type": "string"},
        {"type": "array", "minItems": 1, "items": {"type": "string"}},
        {"type": "array", "minItems": 1, "items": token},
        {"type": "array", "minItems": 1, "items": {"type": "array", "minItems": 1, "items": token}},
    ]})
}

/// OpenAI's text completion.
pub(super) fn completion_body(schemas: &mut Schemas) -> Value {
    let properties = json!({
        "prompt": inputs(),
        "stream": {"type": "boolean"},
        "max_tokens": {"type": "integer", "minimum": 1},
        "n": {"type": "integer", "minimum": 1, "maximum": 128},
        "best_of": {"type": "integer", "minimum": 1, "maximum": 128},
        "echo": {"type": "boolean"},
        "suffix": {"type": "string"},
    });
    let schema = body("OpenAI's text completion", &["model", "prompt"], properties);
    schemas.put("CompletionRequest", schema)
}

/// OpenAI's embeddings.
pub(super) fn embedding_body(schemas: &mut Schemas) -> Value {
    let properties = json!({
        "input": inputs(),
        "encoding_format": {"type": "string", "enum": ["float", "base64"]},
        "dimensions": {"type": "integer", "minimum": 1},
    });
    let schema = body(
        "OpenAI's embedding request",
        &["model", "input"],
        properties,
    );
    schemas.put("EmbeddingRequest", schema)
}

/// OpenAI's moderations.
pub(super) fn moderation_body(schemas: &mut Schemas) -> Value {
    let properties = json!({"input": {"oneOf": [
        {"type": "string"},
        {"type": "array", "minItems": 1, "items": {"type": ["string", "object"]}},
    ]}});
    let schema = body("OpenAI's moderation request", &["input"], properties);
    schemas.put("ModerationRequest", schema)
}

/// The rerank request of Cohere, Jina and Voyage.
pub(super) fn rerank_body(schemas: &mut Schemas) -> Value {
    let properties = json!({
        "query": {"type": "string", "minLength": 1},
        "documents": {"type": "array", "minItems": 1, "items": {"type": ["string", "object"]}},
        "top_n": {"type": "integer", "minimum": 1},
    });
    let required = ["model", "query", "documents"];
    let schema = body(
        "A rerank request as at Cohere, Jina and Voyage",
        &required,
        properties,
    );
    schemas.put("RerankRequest", schema)
}

/// OpenAI's images.
pub(super) fn image_body(schemas: &mut Schemas) -> Value {
    let properties = json!({
        "prompt": {"type": "string", "minLength": 1},
        "n": {"type": "integer", "minimum": 1, "maximum": 10},
        "size": {"type": "string"},
        "quality": {"type": "string"},
        "stream": {"type": "boolean"},
    });
    let schema = body("OpenAI's image request", &["prompt"], properties);
    schemas.put("ImageRequest", schema)
}

/// OpenAI's edits of images.
pub(super) fn edit_form(schemas: &mut Schemas) -> Value {
    let file = json!({"type": "string", "contentMediaType": "application/octet-stream"});
    let properties = json!({
        "image": file,
        "mask": file,
        "prompt": {"type": "string", "minLength": 1},
        "n": {"type": "integer", "minimum": 1, "maximum": 10},
        "size": {"type": "string"},
        "quality": {"type": "string"},
        "stream": {"type": "boolean"},
    });
    let mut schema = body("OpenAI's edit of images", &["prompt", "image"], properties);
    schema["description"] =
        "OpenAI's edit of images; fields that OpenAI does not have are refused.".into();
    schemas.put("ImageEditForm", schema)
}

/// OpenAI's speech.
pub(super) fn speech_body(schemas: &mut Schemas) -> Value {
    let properties = json!({
        "input": {"type": "string", "minLength": 1},
        "voice": {"type": ["string", "object"]},
        "instructions": {"type": "string"},
        "stream_format": {"type": "string", "enum": ["audio", "sse"]},
    });
    let schema = body("OpenAI's speech request", &["model", "input"], properties);
    schemas.put("SpeechRequest", schema)
}

/// OpenAI's transcriptions and translations.
pub(super) fn transcription_form(schemas: &mut Schemas) -> Value {
    let properties = json!({
        "file": {"type": "string", "contentMediaType": "application/octet-stream"},
        "prompt": {"type": "string"},
        "response_format": {"type": "string"},
        "stream": {"type": "boolean"},
    });
    let mut schema = body("A recording", &["model", "file"], properties);
    schema["description"] =
        "OpenAI's transcription; fields that OpenAI does not have are refused.".into();
    schemas.put("TranscriptionForm", schema)
}

/// A file that is sent.
pub(super) fn file_form(schemas: &mut Schemas) -> Value {
    let schema = json!({
        "type": "object",
        "description": "OpenAI's form with a file, passed on as it is.",
        "required": ["file", "purpose"],
        "properties": {
            "file": {"type": "string", "contentMediaType": "application/octet-stream"},
            "purpose": {"type": "string"},
        },
        "additionalProperties": true,
    });
    schemas.put("FileForm", schema)
}

/// OpenAI's batch.
pub(super) fn batch_body(schemas: &mut Schemas) -> Value {
    let schema = json!({
        "type": "object",
        "description": "OpenAI's batch; members that are not listed travel on untouched.",
        "required": ["input_file_id", "endpoint"],
        "properties": {
            "input_file_id": {"type": "string", "description": "A file of this key's with one request to one model on each line."},
            "endpoint": {"type": "string", "enum": ["/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings", "/v1/moderations"]},
            "completion_window": {"type": "string"},
        },
        "additionalProperties": true,
    });
    schemas.put("BatchRequest", schema)
}

/// Bytes.
pub(super) fn binary(_: &mut Schemas) -> Value {
    json!({"type": "string", "contentMediaType": "application/octet-stream"})
}

/// An answer as the provider sent it, with the bill in its usage.
pub(super) fn billed_answer(schemas: &mut Schemas) -> Value {
    let schema = json!({
        "type": "object",
        "description": "The provider's answer; usage is added where it has none.",
        "properties": {"usage": {
            "type": "object",
            "properties": {"cost": {"type": "string", "description": "Credits that were taken.", "examples": ["0.0125"]}},
            "additionalProperties": true,
        }},
        "additionalProperties": true,
    });
    schemas.put("BilledAnswer", schema)
}
