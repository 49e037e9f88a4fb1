//! Paths that the gateway does not know: who may have them passed on, to whom, at what cost, and whose is what they make.

use gateway::passthrough::X_PROVIDER;
use http::Method;
use mock_provider::Script;
use serde_json::{Value, json};
use store::{NewObject, ObjectKind, Owner};
use tests::{Books, CANARY_PROVIDER_KEY, Customer, Gateway, Plain, Streaming, credits, form};

const STORES: &str = "/v1/vector_stores";
const STORE: &str = "/v1/vector_stores/vs_abc123";

async fn send(
    gateway: &Gateway,
    customer: &Customer,
    (method, path): (Method, &str),
    body: Option<&Value>,
    provider: Option<&str>,
) -> Plain {
    let mut request = gateway.call(method, path, &customer.secret);
    if let Some(body) = body {
        request = request.body(body.to_string());
    }
    if let Some(provider) = provider {
        request = request.header(X_PROVIDER, provider);
    }
    Plain::read(request.send().await.unwrap()).await
}

/// Makes the vector store `vs_abc123`.
async fn make(gateway: &Gateway, customer: &Customer, provider: &str) {
    let script = Script::new().raw(r#"{"id":"vs_abc123","object":"vector_store"}"#);
    gateway.provider.script(STORES, script.clone());
    gateway.provider.script(STORE, script);
    let body = json!({"name": "mine"});
    let post = (Method::POST, STORES);
    let made = send(gateway, customer, post, Some(&body), Some(provider)).await;
    assert_eq!(made.expect(200).json()["id"], "vs_abc123");
}

fn refused(answer: Plain, status: u16) -> String {
    let answer = answer.expect(status).json();
    assert!(answer["error"]["type"].is_string(), "{answer}");
    answer["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_makes_is_its_own() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let maker = gateway.customer("1").await;
        let other = gateway.customer("1").await;
        let call = json!({"name": "sibling", "account_id": maker.account_id});
        let sibling = gateway.customer_with(call).await;
        make(&gateway, &maker, "mock").await;
        let get = (Method::GET, STORE);
        let own = send(&gateway, &maker, get.clone(), None, None)
            .await
            .expect(200);
        assert_eq!(own.header("x-tollway-cost"), "0");
        let asked = gateway.provider.stats().requests;
        let tune = (Method::POST, "/v1/fine_tuning/jobs");
        let naming = json!({"training_file": "vs_abc123", "suffix": 1});
        let hidden = json!({"deep": [{"er": "vs_abc123"}]});
        for stranger in [&other, &sibling] {
            for (what, body) in [
                (get.clone(), None),
                ((Method::DELETE, STORE), None),
                (
                    (Method::POST, "/v1/vector_stores/vs_abc123/search"),
                    Some(&naming),
                ),
                (tune.clone(), Some(&naming)),
                (tune.clone(), Some(&hidden)),
                ((Method::GET, "/v1/vector_stores?after=vs%5Fabc123"), None),
            ] {
                let path = what.1;
                let answer = send(&gateway, stranger, what, body, None).await;
                assert_eq!(answer.status, 404, "{path}");
            }
        }
        assert_eq!(
            gateway.provider.stats().requests,
            asked,
            "nothing was asked"
        );
        // Nor does it become theirs where a provider gives them the name again.
        let again = send(&gateway, &other, (Method::POST, STORES), None, Some("mock")).await;
        let _ = refused(again, 404);
        gateway.provider.script(
            "/v1/fine_tuning/jobs",
            Script::new().raw(r#"{"id":"ftjob-1"}"#),
        );
        let _ = send(&gateway, &maker, tune, Some(&naming), None)
            .await
            .expect(200);
        let gone = send(&gateway, &maker, (Method::DELETE, STORE), None, None).await;
        let _ = gone.expect(200);
        let _ = refused(send(&gateway, &maker, get, None, None).await, 404);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_travels_is_chosen() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1").await;
    make(&gateway, &customer, "mock").await;
    let body = r#"{ "query": "a" , "n": 1.10 }"#;
    let path = format!("{STORE}/search?limit=3&order=asc");
    gateway.provider.script(
        "/v1/vector_stores/vs_abc123/search",
        Script::new().raw(r#"["any","shape"]"#).status(201),
    );
    let request = gateway.call(Method::POST, &path, &customer.secret);
    let request = request
        .header("openai-beta", "assistants=v2")
        .header("openai-organization", "org-theirs")
        .header("x-forwarded-for", "10.0.0.1")
        .header("cookie", "a=b")
        .header("api-key", &customer.secret)
        .body(body);
    let answer = Plain::read(request.send().await.unwrap()).await.expect(201);
    assert_eq!(&answer.body[..], br#"["any","shape"]"#);
    assert_eq!(answer.header("x-tollway-cost"), "0.0025");
    let seen = gateway.provider.requests().pop().unwrap();
    assert_eq!(seen.path, path);
    assert_eq!(&seen.body[..], body.as_bytes());
    let mut names: Vec<&str> = seen.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "accept-encoding",
            "authorization",
            "content-length",
            "content-type",
            "host",
            "openai-beta",
            "user-agent"
        ]
    );
    assert_eq!(
        seen.headers["authorization"],
        format!("Bearer {CANARY_PROVIDER_KEY}")
    );
    for path in [
        "/v1/vector_stores/../models",
        "/v1/vector_stores/vs_abc123%2Fsearch",
        "/v1/vector_stores/%2e%2e",
        "/v1/vector_stores//",
        "/v1/vector_stores/vs_abc123/",
        "/v1/nobody/has/this",
        "/v1/vector_stores/vs_abc123/files",
    ] {
        // The client would tidy up the path.
        let answer = raw_get(&gateway, &customer, path).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    let head = gateway.call(Method::PUT, STORES, &customer.secret);
    let _ = refused(Plain::read(head.send().await.unwrap()).await, 404);
    gateway.finish().await;
}

/// A request whose path is just this.
async fn raw_get(gateway: &Gateway, customer: &Customer, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(gateway.addr())
        .await
        .unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
        customer.secret
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_costs_what_its_rule_says() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("0.0025").await;
    make(&gateway, &customer, "mock").await;
    let search = (Method::POST, "/v1/vector_stores/vs_abc123/search");
    let path = search.1;
    for (script, status) in [
        (Script::error(404), 404),
        (Script::error(409), 409),
        (Script::error(400), 400),
        (Script::error(401), 502),
        (Script::error(500), 502),
        (Script::error(429), 429),
    ] {
        gateway.provider.script(path, script);
        let body = json!({"query": "a"});
        let answer = send(&gateway, &customer, search.clone(), Some(&body), None).await;
        let _ = refused(answer, status);
    }
    gateway.provider.script(path, Script::new().raw("{}"));
    let found = send(&gateway, &customer, search.clone(), None, None).await;
    assert_eq!(found.expect(200).header("x-tollway-cost"), "0.0025");
    assert_eq!(gateway.settled_balance(&customer).await, credits("0"));
    let asked = gateway.provider.stats().requests;
    for what in [search, (Method::GET, STORE), (Method::GET, STORES)] {
        let answer = send(&gateway, &customer, what, None, None)
            .await
            .expect(402);
        assert_eq!(answer.code(), "insufficient_quota");
    }
    assert_eq!(gateway.provider.stats().requests, asked);
    let charges = gateway.charges(&customer, 8).await;
    assert_eq!(charges[0]["model"], "POST /vector_stores/{id}/search");
    assert_eq!(charges[0]["charged"], "0.0025");
    assert_eq!(charges[0]["endpoint"], "passthrough");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_owner_names_its_provider() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1").await;
    let post = (Method::POST, STORES);
    let answer = send(&gateway, &customer, post.clone(), None, None).await;
    let message = refused(answer, 400);
    assert!(
        message.contains("mock") && message.contains("backup"),
        "{message}"
    );
    let answer = send(&gateway, &customer, post, None, Some("gemini")).await;
    let _ = refused(answer, 400);
    make(&gateway, &customer, "backup").await;
    // Whose it is says where it is.
    let got = send(&gateway, &customer, (Method::GET, STORE), None, None).await;
    let _ = got.expect(200);
    let charges = gateway.charges(&customer, 2).await;
    assert!(charges.iter().all(|charge| charge["provider"] == "backup"));
    gateway.finish().await;
    let gateway = Gateway::start_with(Books::Sqlite, |settings| {
        settings.passthrough_provider = Some("backup".into());
    })
    .await;
    let customer = gateway.customer("1").await;
    gateway.provider.script(STORES, Script::new().raw("{}"));
    let made = send(&gateway, &customer, (Method::POST, STORES), None, None).await;
    let _ = made.expect(200);
    assert_eq!(gateway.charge(&customer).await["provider"], "backup");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_charged_as_reported_else_as_counted() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1").await;
    let fim = (Method::POST, "/v1/fim/completions");
    let reports = r#"{"choices":[{"text":"x"}],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}"#;
    gateway
        .provider
        .script("/v1/fim/completions", Script::new().raw(reports));
    let body = json!({"model": "mock/aliased", "prompt": "fn main", "max_tokens": 9});
    let answer = send(&gateway, &customer, fim.clone(), Some(&body), None).await;
    let answer = answer.expect(200);
    assert_eq!(answer.json()["usage"]["cost"], "0.00001");
    assert_eq!(answer.header("x-tollway-cost"), "0.00001");
    assert_eq!(
        gateway.provider.requests().pop().unwrap().json()["model"],
        "real-name"
    );
    let silent = r#"{"choices":[{"text":"one two three"}]}"#;
    gateway
        .provider
        .script("/v1/fim/completions", Script::new().raw(silent));
    let answer = send(&gateway, &customer, fim.clone(), Some(&body), None).await;
    let _ = answer.expect(200);
    let charge = gateway.charges(&customer, 2).await.remove(0);
    assert_eq!(charge["usage_source"], "counted");
    assert!(
        charge["usage"]["completion"].as_u64().unwrap() >= 3,
        "{charge}"
    );
    for (body, param) in [
        (json!({"prompt": "a"}), "model"),
        (json!({"model": "shared", "prompt": "a"}), ""),
    ] {
        let answer = send(&gateway, &customer, fim.clone(), Some(&body), None).await;
        if param.is_empty() {
            let _ = answer.expect(200);
        } else {
            assert_eq!(answer.expect(400).json()["error"]["param"], param);
        }
    }
    let unknown = json!({"model": "nobody", "prompt": "a"});
    let answer = send(&gateway, &customer, fim.clone(), Some(&unknown), None).await;
    assert_eq!(answer.expect(404).code(), "model_not_found");
    // The worst case is 9 tokens of output and what the body can be at most.
    let poor = gateway.customer("0.00002").await;
    let _ = send(&gateway, &poor, fim, Some(&body), None)
        .await
        .expect(402);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_cut_when_its_credit_runs_out() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let event = |word: &str| {
        let event = json!({"choices": [{"index": 0, "delta": {"content": word}}]});
        format!("event: piece\ndata: {event}\n\n")
    };
    let usage =
        r#"{"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}}"#;
    let short = format!(
        "{}data: {usage}\n\ndata: [DONE]\n\n",
        event("one two three").repeat(2)
    );
    let stream = async |customer: &Customer| {
        let body = json!({"model": "m", "prompt": "a", "max_tokens": 20, "stream": true});
        let request = gateway.call(Method::POST, "/v1/fim/completions", &customer.secret);
        let sent = request.body(body.to_string()).send().await.unwrap();
        Streaming::new(sent).rest().await
    };
    gateway.provider.script(
        "/v1/fim/completions",
        Script::new().raw(short).always_stream(),
    );
    let customer = gateway.customer("1").await;
    let events = stream(&customer).await;
    assert!(events.is_done());
    assert_eq!(events.text(), "one two threeone two three");
    assert_eq!(events.usages()[0]["cost"], "0.000005");
    assert_eq!(gateway.charge(&customer).await["charged"], "0.000005");
    // It was asked for 20 tokens at most and does not keep to that.
    let endless = event("word word word ").repeat(400);
    gateway.provider.script(
        "/v1/fim/completions",
        Script::new().raw(endless).always_stream(),
    );
    let customer = gateway.customer("0.00012").await;
    let events = stream(&customer).await;
    let error = events.error().unwrap();
    assert_eq!(
        (&error["code"], &error["status"]),
        (&json!("insufficient_quota"), &json!(402))
    );
    let charge = gateway.charge(&customer).await;
    assert_eq!(charge["end"], "credits_exhausted");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_and_bytes_are_passed_on() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1").await;
    own(&gateway, &customer, "cntr_abc").await;
    own(&gateway, &customer, "vs_abc123").await;
    let path = "/v1/containers/cntr_abc/files";
    gateway
        .provider
        .script(path, Script::new().raw(r#"{"id":"cfile_1"}"#));
    let request = gateway.call(Method::POST, path, &customer.secret);
    let request = form(&[("name", "n")], &[("file", b"\x00\xff bytes")]).onto(request);
    let answer = Plain::read(request.send().await.unwrap()).await;
    let _ = answer.expect(200);
    let seen = gateway.provider.requests().pop().unwrap();
    assert!(seen.body.windows(8).any(|part| part == b"\x00\xff bytes"));
    let other = gateway.customer("1").await;
    own(&gateway, &other, "file-theirs").await;
    let request = gateway.call(Method::POST, path, &customer.secret);
    let request = form(&[("file_id", "file-theirs")], &[]).onto(request);
    let _ = refused(Plain::read(request.send().await.unwrap()).await, 404);
    let path = "/v1/vector_stores/vs_abc123/files/file-1/content";
    let bytes = Script::new()
        .raw(&b"\x00\x01\x02"[..])
        .header("content-type", "application/octet-stream");
    gateway.provider.script(path, bytes);
    let answer = send(&gateway, &customer, (Method::GET, path), None, None).await;
    let answer = answer.expect(200);
    assert_eq!(&answer.body[..], b"\x00\x01\x02");
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    // A method that one of the gateway's own paths does not have.
    let path = "/v1/chat/completions";
    gateway
        .provider
        .script(path, Script::new().raw(r#"{"object":"list"}"#));
    let answer = send(&gateway, &customer, (Method::GET, path), None, None).await;
    assert_eq!(answer.expect(200).json()["object"], "list");
    let wrong = send(&gateway, &customer, (Method::DELETE, path), None, None).await;
    assert_eq!(wrong.expect(405).header("allow"), "POST");
    gateway.finish().await;
}

/// Writes down that a key has made something at `mock`.
async fn own(gateway: &Gateway, customer: &Customer, id: &str) {
    let new = NewObject {
        owner: Owner {
            account: customer.account_id.parse().unwrap(),
            key: customer.key_id.parse().unwrap(),
        },
        provider: "mock",
        id,
        kind: ObjectKind::Other,
        about: None,
        made_by: None,
        batch: None,
    };
    assert!(gateway.app().store.own(&new).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_what_is_passed_on_refuses_an_empty_key() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("0").await;
    own(&gateway, &customer, "id-of-mine").await;
    let rules: Vec<String> = gateway
        .app()
        .catalogue
        .passages()
        .iter()
        .filter(|passage| &*passage.provider.name == "mock")
        .map(|passage| passage.rule.name.clone())
        .collect();
    assert!(rules.len() >= 10);
    for rule in rules {
        let (method, path) = rule.split_once(' ').unwrap();
        let path = path.replace("{id}", "id-of-mine").replace("{file_id}", "f");
        let what = (method.parse().unwrap(), &*format!("/v1{path}"));
        let body = json!({"model": "m"});
        let body = (method == "POST").then_some(&body);
        let answer = send(&gateway, &customer, what, body, Some("mock")).await;
        // Who takes away what was made may do so without credit.
        let expected = if method == "DELETE" { 404 } else { 402 };
        assert_eq!(answer.status, expected, "{rule}: {:?}", answer.body);
    }
    assert_eq!(gateway.provider.stats().requests, 1);
    gateway.finish().await;
}
