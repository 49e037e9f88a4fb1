//! A canary for every endpoint that costs something: an empty account is refused on it.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};
use store::{NewObject, ObjectKind, Owner};
use tests::{Books, Gateway, Plain, chat, streamed};

/// The routes of clients as the program has them.
const ROUTES: &str = include_str!("../../crates/gateway/src/app.rs");
/// Those that cost nothing.
const FREE: [&str; 14] = [
    // Who takes something away may do so without credit.
    "/v1/batches/{id}/cancel",
    "/v1/files/{id}",
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
const FORMS: [(&str, &str, &str); 5] = [
    ("/v1/files", "", "file"),
    ("/v1/audio/transcriptions", "hear", "file"),
    ("/v1/audio/transcriptions", "hear-tokens", "file"),
    ("/v1/audio/translations", "hear", "file"),
    ("/v1/images/edits", "picture", "image"),
];

/// What it asks for of what it has made: method, path and body.
fn own(file: &str) -> Vec<(Method, &'static str, Value)> {
    let batch = json!({"input_file_id": file, "endpoint": "/v1/chat/completions"});
    vec![
        (Method::GET, "/v1/files", Value::Null),
        (Method::GET, "/v1/files/{id}", Value::Null),
        (Method::GET, "/v1/files/{id}/content", Value::Null),
        (Method::GET, "/v1/batches", Value::Null),
        (Method::POST, "/v1/batches", batch),
        (Method::GET, "/v1/batches/{id}", Value::Null),
    ]
}

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
    let maker = Owner {
        account: customer.account_id.parse().unwrap(),
        key: customer.key_id.parse().unwrap(),
    };
    for (id, kind) in [
        ("file-own", ObjectKind::File),
        ("batch_own", ObjectKind::Batch),
    ] {
        let new = NewObject {
            owner: maker,
            provider: "mock",
            id,
            kind,
            about: None,
            made_by: None,
            batch: None,
        };
        assert!(gateway.app().store.own(&new).await.unwrap());
    }
    for (method, path, body) in own("file-own") {
        let id = if path.contains("files") {
            "file-own"
        } else {
            "batch_own"
        };
        let request = gateway.call(method.clone(), &path.replace("{id}", id), &customer.secret);
        let sent = request.body(body.to_string()).send().await.unwrap();
        let answer = Plain::read(sent).await;
        assert_eq!(answer.status, 402, "{method} {path}: {:?}", answer.body);
        asked.insert(path);
    }
    asked.remove("/v1/files/{id}");
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
        .filter(|(_, methods)| {
            let refuses = |method: &str| !methods[method]["responses"]["402"].is_null();
            refuses("post") || refuses("get")
        })
        .map(|(path, _)| path.as_str())
        .filter(|path| !FREE.contains(path))
        .collect();
    assert_eq!(documented, asked, "each is documented to refuse");
    gateway.finish().await;
}
