//! A canary for every endpoint that costs something: an empty account is refused on it.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};
use tests::{Books, Gateway, Plain, chat, streamed};

/// The routes of clients as the program has them.
const ROUTES: &str = include_str!("../../crates/gateway/src/app.rs");
/// Those that cost nothing.
const FREE: [&str; 12] = [
    "/v1/responses/compact",
    "/v1/responses/input_tokens",
    "/v1/responses/{id}",
    "/v1/responses/{id}/input_items",
    "/v1/responses/{id}/cancel",
    "/v1/messages/count_tokens",
    "/v1/models",
    "/v1/models/{*id}",
    "/v1/key",
    "/v1/credits",
    "/v1/generation",
    "/v1/quote",
];

/// What it asks for in forms: path, model and the name of the file.
const FORMS: [(&str, &str, &str); 4] = [
    ("/v1/audio/transcriptions", "hear", "file"),
    ("/v1/audio/transcriptions", "hear-tokens", "file"),
    ("/v1/audio/translations", "hear", "file"),
    ("/v1/images/edits", "picture", "image"),
];

/// What an empty account asks for, by path.
fn canaries() -> Vec<(&'static str, Value)> {
    vec![
        ("/v1/chat/completions", chat("m", json!({}))),
        ("/v1/chat/completions", streamed("m")),
        (
            "/v1/chat/completions",
            chat("hidden", json!({"stream": true})),
        ),
        ("/v1/chat/completions", chat("fee", json!({}))),
        ("/v1/responses", json!({"model": "m", "input": "a"})),
        (
            "/v1/responses",
            json!({"model": "m", "input": "a", "stream": true}),
        ),
        ("/v1/responses", json!({"model": "native", "input": "a"})),
        (
            "/v1/responses",
            json!({"model": "native-hidden", "input": "a", "stream": true}),
        ),
        (
            "/v1/responses",
            json!({"model": "native-search", "input": "a", "tools": [{"type": "web_search"}]}),
        ),
        ("/v1/messages", chat("m", json!({"max_tokens": 5}))),
        ("/v1/messages", chat("claude", json!({"max_tokens": 5}))),
        ("/v1/completions", json!({"model": "text", "prompt": "a"})),
        (
            "/v1/completions",
            json!({"model": "text", "prompt": [1, 2], "stream": true}),
        ),
        ("/v1/embeddings", json!({"model": "embed", "input": "a"})),
        ("/v1/embeddings", json!({"model": "embed", "input": [[1]]})),
        (
            "/v1/moderations",
            json!({"model": "moderate", "input": "a"}),
        ),
        (
            "/v1/rerank",
            json!({"model": "rerank", "query": "a", "documents": ["b"]}),
        ),
        (
            "/v1/rerank",
            json!({"model": "rerank-tokens", "query": "a", "documents": ["b"]}),
        ),
        (
            "/v1/images/generations",
            json!({"model": "picture", "prompt": "a cat"}),
        ),
        (
            "/v1/images/generations",
            json!({"model": "picture-tokens", "prompt": "a cat", "stream": true}),
        ),
        (
            "/v1/audio/speech",
            json!({"model": "speak", "input": "a", "voice": "v"}),
        ),
        (
            "/v1/audio/speech",
            json!({"model": "speak-tokens", "input": "a", "voice": "v", "stream_format": "sse"}),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_every_paid_endpoint_refuses_an_empty_key() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("0").await;
    let mut asked = BTreeSet::new();
    for (path, body) in canaries() {
        let request = gateway.call(Method::POST, path, &customer.secret);
        let sent = request.body(body.to_string()).send().await.unwrap();
        let answer = Plain::read(sent).await;
        assert_eq!(answer.status, 402, "{path} {body}: {:?}", answer.body);
        asked.insert(path);
    }
    for (path, model, name) in FORMS {
        // An edit must say what is to be done.
        let prompt = (name == "image").then_some(("prompt", "a hat"));
        let fields: Vec<_> = [("model", model)].into_iter().chain(prompt).collect();
        let form = tests::form(&fields, &[(name, b"no sound and no picture")]);
        let request = gateway.call(Method::POST, path, &customer.secret);
        let answer = Plain::read(form.onto(request).send().await.unwrap()).await;
        assert_eq!(answer.status, 402, "{path}: {:?}", answer.body);
        asked.insert(path);
    }
    assert_eq!(gateway.provider.stats().requests, 0);
    // A route that is not free and has no canary gives tokens away: add one above.
    let routes: BTreeSet<&str> = ROUTES
        .split('"')
        .filter(|text| text.starts_with("/v1/") && !FREE.contains(text))
        .collect();
    assert_eq!(routes, asked, "each has a canary");
    let document = gateway.get("", "/openapi.json").await.expect(200).json();
    let documented: BTreeSet<&str> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, methods)| !methods["post"]["responses"]["402"].is_null())
        .map(|(path, _)| path.as_str())
        .collect();
    assert_eq!(documented, asked, "each is documented to refuse");
    gateway.finish().await;
}
