//! The schemas of the document: derived from the types that go over the wire, and by hand for OpenAI's own.

use std::collections::BTreeMap;

use dialect::ClientDialect;
use serde_json::{Value, json};
use utoipa::{
    ToSchema,
    openapi::{RefOr, schema},
};

/// Gives the schema of a body, and adds what it refers to.
pub(super) type Schema = fn(&mut Schemas) -> Value;

/// The schemas that the document refers to.
#[derive(Default)]
pub(super) struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    /// Adds a schema that is written by hand, and refers to it.
    pub(super) fn put(&mut self, name: &str, schema: Value) -> Value {
        self.0.insert(name.into(), schema);
        reference(name)
    }

    pub(super) fn into_value(self) -> Value {
        self.0.into_iter().collect()
    }

    /// What a refusal means, and its schema: the table of CONTRACT 3.
    pub(super) fn refusal(
        &mut self,
        status: &str,
        dialect: ClientDialect,
    ) -> (&'static str, Value) {
        let description = match status {
            "400" => {
                "The request is wrong: not JSON, a wrong shape, or a parameter that `param` names."
            }
            "401" => "The key is missing, unknown, revoked or expired.",
            "402" => {
                "Paying is what is missing. `metadata` says why, and how much would do. Final, unless x-should-retry is true."
            }
            "403" => "The key may not do this.",
            "404" => "There is no such thing.",
            "409" => {
                "The Idempotency-Key was used with another body, the amount would take the balance below zero, or it was decided before."
            }
            "413" => "The body is over the bound.",
            "429" => "Too fast; Retry-After says when to go on.",
            "502" => "The provider failed.",
            "503" => {
                "The gateway cannot account for the request now; Retry-After says when to try again."
            }
            "504" => "The provider was too slow.",
            "529" => "The provider or the gateway can take no more for now.",
            _ => "Refused.",
        };
        if dialect == ClientDialect::Messages {
            self.0
                .entry("MessageError".into())
                .or_insert_with(message_error);
            return (description, reference("MessageError"));
        }
        let name = if status == "402" {
            self.0
                .entry("PaymentRequired".into())
                .or_insert_with(payment_required);
            "PaymentRequired"
        } else {
            self.0.entry("Error".into()).or_insert_with(error);
            "Error"
        };
        (description, reference(name))
    }
}

/// The schema of a type, by reference.
pub(super) fn schema<T: ToSchema>(schemas: &mut Schemas) -> Value {
    let mut found: Vec<(String, RefOr<schema::Schema>)> = Vec::new();
    T::schemas(&mut found);
    let name = T::name().into_owned();
    found.push((name.clone(), T::schema()));
    for (name, schema) in found {
        // A schema is made of texts: it always serialises.
        schemas
            .0
            .insert(name, serde_json::to_value(schema).unwrap_or_default());
    }
    reference(&name)
}

/// The schema of a page of these.
pub(super) fn list<T: ToSchema>(schemas: &mut Schemas) -> Value {
    let name = format!("{}List", T::name());
    let row = schema::<T>(schemas);
    schemas.0.insert(
        name.clone(),
        json!({
            "type": "object",
            "required": ["object", "data", "has_more", "next_cursor"],
            "properties": {
                "object": {"type": "string", "enum": ["list"]},
                "data": {"type": "array", "items": row},
                "has_more": {"type": "boolean", "description": "Whether there is a next page."},
                "next_cursor": {"type": ["string", "null"], "description": "Pass it as cursor to get the next page."},
            },
        }),
    );
    reference(&name)
}

/// OpenAI's chat request.
pub(super) fn chat_body(schemas: &mut Schemas) -> Value {
    schemas.0.insert(
        "ChatRequest".into(),
        json!({
            "type": "object",
            "description": "OpenAI's chat completion request; members that are not listed travel on untouched.",
            "required": ["model", "messages"],
            "properties": {
                "model": {"type": "string", "description": "An id of GET /v1/models."},
                "messages": turns(&["system", "developer", "user", "assistant", "tool"], &["role"]),
                "stream": {"type": "boolean"},
                "stream_options": {
                    "type": "object",
                    "properties": {"include_usage": {"type": "boolean"}},
                    "additionalProperties": true,
                },
                "max_tokens": {"type": "integer", "minimum": 1},
                "max_completion_tokens": {"type": "integer", "minimum": 1},
                "n": {"type": "integer", "minimum": 1},
            },
            "additionalProperties": true,
        }),
    );
    reference("ChatRequest")
}

/// The messages of a conversation.
fn turns(roles: &[&str], required: &[&str]) -> Value {
    json!({
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "required": required,
            "properties": {
                "role": {"type": "string", "enum": roles},
                "content": {"type": ["string", "array", "null"], "items": {"type": "object", "additionalProperties": true}},
            },
            "additionalProperties": true,
        },
    })
}

/// OpenAI's chat answer.
pub(super) fn chat_answer(schemas: &mut Schemas) -> Value {
    schemas.0.insert(
        "ChatAnswer".into(),
        json!({
            "type": "object",
            "description": "OpenAI's chat completion, as the provider sent it.",
            "properties": {
                "id": {"type": "string"},
                "choices": {"type": "array", "items": {"type": "object", "additionalProperties": true}},
                "usage": {
                    "type": "object",
                    "properties": {
                        "prompt_tokens": {"type": "integer"},
                        "completion_tokens": {"type": "integer"},
                        "total_tokens": {"type": "integer"},
                        "cost": {"type": "string", "description": "Credits that were taken.", "examples": ["0.0125"]},
                    },
                    "additionalProperties": true,
                },
            },
            "additionalProperties": true,
        }),
    );
    reference("ChatAnswer")
}

/// OpenAI's request for a response.
pub(super) fn response_body(schemas: &mut Schemas) -> Value {
    schemas.0.insert(
        "ResponseRequest".into(),
        json!({
            "type": "object",
            "description": "OpenAI's request for a response. Unless `store` is false it is kept for the key that made it.",
            "required": ["model", "input"],
            "properties": {
                "model": {"type": "string", "description": "An id of GET /v1/models."},
                "input": {"type": ["string", "array"], "items": {"type": "object", "additionalProperties": true}},
                "instructions": {"type": ["string", "null"]},
                "max_output_tokens": {"type": ["integer", "null"], "minimum": 1},
                "stream": {"type": ["boolean", "null"]},
                "store": {"type": ["boolean", "null"]},
                "previous_response_id": {"type": ["string", "null"], "description": "Goes on with a response of this key's."},
            },
            "additionalProperties": true,
        }),
    );
    reference("ResponseRequest")
}

/// OpenAI's response.
pub(super) fn response_answer(schemas: &mut Schemas) -> Value {
    schemas.0.insert(
        "Response".into(),
        json!({
            "type": "object",
            "description": "OpenAI's response.",
            "properties": {
                "id": {"type": "string"},
                "status": {"type": "string", "enum": ["completed", "incomplete", "failed", "in_progress"]},
                "output": {"type": "array", "items": {"type": "object", "additionalProperties": true}},
                "usage": {
                    "type": ["object", "null"],
                    "properties": {
                        "input_tokens": {"type": "integer"},
                        "output_tokens": {"type": "integer"},
                        "total_tokens": {"type": "integer"},
                        "cost": {"type": "string", "description": "Credits that were taken.", "examples": ["0.0125"]},
                    },
                    "additionalProperties": true,
                },
            },
            "additionalProperties": true,
        }),
    );
    reference("Response")
}

/// A stream of a response's events.
pub(super) fn response_event(_: &mut Schemas) -> Value {
    json!({
        "type": ["string", "object", "array"],
        "description": "OpenAI's events from response.created to response.completed or response.incomplete; response.failed and an `error` event where the stream ended early.",
    })
}

/// Anthropic's request for a message.
pub(super) fn message_body(schemas: &mut Schemas) -> Value {
    schemas.0.insert(
        "MessageRequest".into(),
        json!({
            "type": "object",
            "description": "Anthropic's request for a message. Before a provider that speaks Messages, members that are not listed travel on untouched.",
            "required": ["model", "messages"],
            "properties": {
                "model": {"type": "string", "description": "An id of GET /v1/models."},
                "messages": turns(&["user", "assistant"], &["role", "content"]),
                "max_tokens": {"type": "integer", "minimum": 1, "description": "Needed, except for counting."},
                "stream": {"type": "boolean"},
            },
            "additionalProperties": true,
        }),
    );
    reference("MessageRequest")
}

/// Anthropic's message.
pub(super) fn message_answer(schemas: &mut Schemas) -> Value {
    schemas.0.insert(
        "Message".into(),
        json!({
            "type": "object",
            "description": "Anthropic's message.",
            "properties": {
                "id": {"type": "string"},
                "content": {"type": "array", "items": {"type": "object", "additionalProperties": true}},
                "stop_reason": {"type": ["string", "null"]},
                "usage": {
                    "type": "object",
                    "properties": {
                        "input_tokens": {"type": "integer"},
                        "output_tokens": {"type": "integer"},
                        "cost": {"type": "string", "description": "Credits that were taken.", "examples": ["0.0125"]},
                    },
                    "additionalProperties": true,
                },
            },
            "additionalProperties": true,
        }),
    );
    reference("Message")
}

/// A stream of a message's events.
pub(super) fn message_event(_: &mut Schemas) -> Value {
    json!({
        "type": ["string", "object", "array"],
        "description": "Anthropic's events from message_start to message_stop; an `error` event in its place where the stream ended early.",
    })
}

/// A stream of server-sent events.
pub(super) fn chat_event(_: &mut Schemas) -> Value {
    json!({
        // A reader of events gives them one by one, or their text.
        "type": ["string", "object", "array"],
        "description": "Events `data: {chunk}`, at the end `data: [DONE]`; before it an event with `error`, where the stream ended early.",
    })
}

/// Text.
pub(super) fn text(_: &mut Schemas) -> Value {
    json!({"type": "string"})
}

/// A JSON document.
pub(super) fn document(_: &mut Schemas) -> Value {
    json!({"type": "object", "additionalProperties": true})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn error() -> Value {
    json!({
        "type": "object",
        "required": ["error"],
        "properties": {"error": error_object(&json!({"type": ["object", "null"]}), &json!({"type": "string"}))},
    })
}

/// An error of Anthropic's shape.
fn message_error() -> Value {
    json!({
        "type": "object",
        "required": ["type", "error", "request_id"],
        "properties": {
            "type": {"type": "string", "enum": ["error"]},
            "error": {
                "type": "object",
                "required": ["type", "message", "code"],
                "properties": {
                    "type": {"type": "string", "description": "Anthropic's word for it: billing_error for a 402."},
                    "message": {"type": "string", "description": "What happened and what to do next."},
                    "code": {"type": "string"},
                    "param": {"type": "string", "description": "The parameter at fault."},
                    "metadata": {"type": "object", "additionalProperties": true, "description": "Of a 402: as in PaymentRequired."},
                },
            },
            "request_id": {"type": "string"},
        },
    })
}

fn payment_required() -> Value {
    let amount = json!({"type": "string", "description": "Credits.", "examples": ["0.0125"]});
    let metadata = json!({
        "type": "object",
        "required": ["reason", "scope", "available", "held", "required", "affordable_tokens", "request_id"],
        "properties": {
            "reason": {"type": "string", "enum": ["credits_exhausted", "key_limit_reached", "held_by_running_requests"]},
            "scope": {"type": "string", "enum": ["account", "key"]},
            "available": amount,
            "held": amount,
            "required": amount,
            "affordable_tokens": {"type": "integer"},
            "top_up_url": {"type": ["string", "null"]},
            "request_id": {"type": "string"},
        },
    });
    let code = json!({"type": "string", "enum": ["insufficient_quota"]});
    json!({
        "type": "object",
        "required": ["error"],
        "properties": {"error": error_object(&metadata, &code)},
    })
}

fn error_object(metadata: &Value, code: &Value) -> Value {
    json!({
        "type": "object",
        "required": ["message", "type", "param", "code"],
        "properties": {
            "message": {"type": "string", "description": "What happened and what to do next."},
            "type": {"type": "string"},
            "param": {"type": ["string", "null"], "description": "The parameter at fault."},
            "code": code,
            "metadata": metadata,
        },
    })
}
