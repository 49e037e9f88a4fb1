//! The routes of responses that are kept, and their shapes.

use serde_json::{Value, json};

use crate::responses;

use super::{
    route::{Route, client},
    schemas::{Schemas, response_answer, response_body, schema},
};

const JSON: &str = "application/json";
/// What every one of them refuses beside what all routes do.
const REFUSALS: &[&str] = &["400", "404", "429", "502", "504"];
const INCLUDE: (&str, &str) = (
    "include",
    "What is to be shown beside, where the provider keeps it.",
);

pub(super) const RETRIEVE: Route = client(
    "get",
    "/v1/responses/{id}",
    "getResponse",
    "A response that was kept; for the key that made it.",
)
.query(&[
    INCLUDE,
    (
        "stream",
        "Only `false`: what is over is not streamed again.",
    ),
])
.gives(&[("200", "The response.", &[(JSON, response_answer)])])
.refuses(REFUSALS);

pub(super) const DELETE: Route = client(
    "delete",
    "/v1/responses/{id}",
    "deleteResponse",
    "Forget a response, here and at its provider.",
)
.gives(&[(
    "200",
    "What is left of it.",
    &[(JSON, schema::<responses::DeletedResponse>)],
)])
.refuses(REFUSALS);

pub(super) const INPUT_ITEMS: Route = client(
    "get",
    "/v1/responses/{id}/input_items",
    "listResponseInputItems",
    "What was sent for a response, with what was said before it.",
)
.query(&[
    (
        "limit",
        "Items of the page, 1 to 100; 20 where it is left out.",
    ),
    ("order", "`desc`, the newest first, or `asc`."),
    ("after", "The id of the last item of the page before."),
    INCLUDE,
])
.gives(&[("200", "The items.", &[(JSON, items)])])
.refuses(REFUSALS);

pub(super) const CANCEL: Route = client(
    "post",
    "/v1/responses/{id}/cancel",
    "cancelResponse",
    "Refused: nothing runs in the background.",
)
.refuses(REFUSALS);

pub(super) const COUNT: Route = client(
    "post",
    "/v1/responses/input_tokens",
    "countResponseTokens",
    "Count the tokens of a response's request; nothing is spent.",
)
.takes(response_body)
.gives(&[(
    "200",
    "The count.",
    &[(JSON, schema::<responses::InputTokens>)],
)])
.refuses(&["400", "404", "413"]);

/// OpenAI's list of items.
fn items(schemas: &mut Schemas) -> Value {
    schemas.put(
        "ResponseItemList",
        json!({
            "type": "object",
            "description": "Items as they were sent, each with an id.",
            "required": ["object", "data", "first_id", "last_id", "has_more"],
            "properties": {
                "object": {"type": "string", "enum": ["list"]},
                "data": {"type": "array", "items": {"type": "object", "additionalProperties": true}},
                "first_id": {"type": "string"},
                "last_id": {"type": "string"},
                "has_more": {"type": "boolean"},
            },
            "additionalProperties": true,
        }),
    )
}
