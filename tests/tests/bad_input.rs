//! What is refused before it costs anybody anything: each case one line, with the row of CONTRACT 3 it gets.

use std::{net::SocketAddr, time::Duration};

use billing::Credits;
use http::Method;
use serde_json::{Value, json};
use tests::{ADMIN_KEY, Books, Customer, Gateway, Plain, chat, credits, in_time};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const START: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]"#;

/// A body, and the parameter that the refusal names.
fn wrong_bodies() -> Vec<(String, Option<&'static str>)> {
    let with = |more: &str| format!("{START},{more}}}");
    let mut rows = vec![
        (String::new(), None),
        ("not json".into(), None),
        ("null".into(), None),
        ("[]".into(), None),
        ("\"text\"".into(), None),
        ("{".into(), None),
        (format!("{START}}} x"), None),
        (format!("{START},}}"), None),
        (format!("{START},\"a\":01}}"), None),
        (format!("{START},\"a\":NaN}}"), None),
        (format!("{START},'a':1}}"), None),
        ("\u{feff}{}".into(), None),
        ("[".repeat(100_000), None),
        ("{\"a\":".repeat(100_000), None),
        (
            with(&format!("\"deep\":{}1{}", "[".repeat(70), "]".repeat(70))),
            None,
        ),
        ("{}".into(), Some("model")),
        (r#"{"messages":[]}"#.into(), Some("model")),
        (
            r#"{"model":"","messages":[{"role":"user","content":"x"}]}"#.into(),
            Some("model"),
        ),
        (
            r#"{"model":7,"messages":[{"role":"user","content":"x"}]}"#.into(),
            Some("model"),
        ),
        (
            r#"{"model":null,"messages":[{"role":"user","content":"x"}]}"#.into(),
            Some("model"),
        ),
        (
            r#"{"model":"a\u0000b","messages":[{"role":"user","content":"x"}]}"#.into(),
            Some("model"),
        ),
        (
            format!(r#"{{"model":"{}","messages":[{{}}]}}"#, "m".repeat(300)),
            Some("model"),
        ),
        (r#"{"model":"m"}"#.into(), Some("messages")),
        (r#"{"model":"m","messages":[]}"#.into(), Some("messages")),
        (r#"{"model":"m","messages":"hi"}"#.into(), Some("messages")),
        (
            r#"{"model":"m","messages":["hi"]}"#.into(),
            Some("messages"),
        ),
        (
            r#"{"model":"m","messages":[{"role":1}]}"#.into(),
            Some("messages"),
        ),
        (
            r#"{"model":"m","messages":[{"role":"user","content":5}]}"#.into(),
            Some("messages"),
        ),
        // Twice, also in another case: a provider might take the other one.
        (with(r#""model":"free""#), Some("model")),
        (with(r#""Model":"free""#), Some("model")),
        (with(r#""stream":false,"stream":true"#), Some("stream")),
        (with(r#""n":1,"n":9"#), Some("n")),
        (with(r#""stream":"yes""#), Some("stream")),
        (with(r#""stream":1"#), Some("stream")),
        (
            with(r#""stream":true,"stream_options":[]"#),
            Some("stream_options"),
        ),
        (
            with(r#""stream":true,"stream_options":{"include_usage":"yes"}"#),
            Some("stream_options.include_usage"),
        ),
        (with(r#""tools":{}"#), Some("tools")),
        (with(r#""response_format":"json""#), Some("response_format")),
        (
            with(r#""max_tokens":5,"max_completion_tokens":6"#),
            Some("max_tokens"),
        ),
    ];
    // P7: a negative amount must not become a credit; L6: nor a large one.
    let absurd = [
        "-1",
        "0",
        "1.5",
        "1e3",
        "\"5\"",
        "true",
        "[]",
        "-0",
        "4294967296",
        "9223372036854775807",
        "99999999999999999999999",
        "-9223372036854775808",
    ];
    for number in absurd {
        for name in ["max_tokens", "max_completion_tokens", "n"] {
            rows.push((with(&format!("\"{name}\":{number}")), Some(name)));
        }
    }
    rows.push((with("\"n\":129"), Some("n")));
    rows
}

/// Everything a refusal must be: the row, a message that helps, nothing of the input in it.
#[track_caller]
fn is_refused(name: &str, answer: &Plain, status: u16, code: &str, param: Option<&str>) {
    let name: String = name.chars().take(120).collect();
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (status, code),
        "{name}: {:?}",
        answer.body
    );
    let body = answer.json();
    let error = body["error"].as_object().unwrap();
    let mut names: Vec<&String> = error.keys().collect();
    names.sort();
    assert_eq!(
        names,
        ["code", "message", "metadata", "param", "type"],
        "{name}"
    );
    assert_eq!(error["param"], json!(param), "{name}: {body}");
    let message = error["message"].as_str().unwrap();
    assert!((15..400).contains(&message.len()), "{name}: {message}");
    assert!(answer.header("x-request-id").starts_with("req_"), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_l6_wrong_bodies_are_refused_by_name_and_cost_nothing() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("10").await;
    for (body, param) in wrong_bodies() {
        let answer = gateway.chat(&customer, &body).await;
        is_refused(&body, &answer, 400, "invalid_request", param);
    }
    let bytes = gateway.call(Method::POST, "/v1/chat/completions", &customer.secret);
    let answer = Plain::read(
        bytes
            .body(b"{\"model\":\"\xff\"}".to_vec())
            .send()
            .await
            .unwrap(),
    );
    is_refused("not utf-8", &answer.await, 400, "invalid_request", None);
    nothing_happened(&gateway, &customer).await;
    gateway.finish().await;
}

/// Nothing reached the provider, nothing is held, nothing was charged, and the next one is served.
async fn nothing_happened(gateway: &Gateway, customer: &Customer) {
    assert_eq!(gateway.provider.stats().requests, 0);
    gateway.charges(customer, 0).await;
    let balance = gateway.balance(customer).await;
    assert_eq!(
        (balance.available, balance.held),
        (credits("10"), Credits::ZERO)
    );
    assert_eq!(
        tests::metric(&gateway.metrics().await, "tollway_panics_total"),
        Some(0.0)
    );
    let _ = gateway
        .chat(customer, chat("m", json!({})))
        .await
        .expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_paths_methods_and_models() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("10").await;
    let body = chat("m", json!({}));
    let rows = [
        (Method::POST, "/v1/chat/completion", 404, "not_found", ""),
        (Method::GET, "/", 404, "not_found", ""),
        (Method::GET, "/v1", 404, "not_found", ""),
        (Method::POST, "/v1/chat/completions/", 404, "not_found", ""),
        (
            Method::GET,
            "/v1/models/no-such",
            404,
            "model_not_found",
            "",
        ),
        (
            Method::GET,
            "/v1/embeddings",
            405,
            "method_not_allowed",
            "POST",
        ),
        (
            Method::DELETE,
            "/v1/chat/completions",
            405,
            "method_not_allowed",
            "POST",
        ),
        (
            Method::POST,
            "/v1/models",
            405,
            "method_not_allowed",
            "GET,HEAD",
        ),
        (
            Method::POST,
            "/v1/key",
            405,
            "method_not_allowed",
            "GET,HEAD",
        ),
        (Method::PUT, "/v1/quote", 405, "method_not_allowed", "POST"),
        (
            Method::POST,
            "/healthz",
            405,
            "method_not_allowed",
            "GET,HEAD",
        ),
    ];
    for (method, path, status, code, allow) in rows {
        let name = format!("{method} {path}");
        let request = gateway
            .call(method, path, &customer.secret)
            .body(body.to_string());
        let answer = Plain::read(request.send().await.unwrap()).await;
        let param = (code == "model_not_found").then_some("model");
        is_refused(&name, &answer, status, code, param);
        assert_eq!(answer.header("allow"), allow, "{name}");
    }
    for model in [
        "no-such",
        "M",
        "mock/no-such",
        "other/m",
        " m",
        "m ",
        "../m",
    ] {
        let answer = gateway.chat(&customer, chat(model, json!({}))).await;
        is_refused(model, &answer, 404, "model_not_found", Some("model"));
    }
    nothing_happened(&gateway, &customer).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_compressed_bodies() {
    let gateway = Gateway::start_with(Books::Sqlite, |settings| {
        settings.body_bytes_max = 64 * 1024;
    })
    .await;
    let customer = gateway.customer("10").await;
    let long = format!("{START},\"x\":\"{}\"}}", "y".repeat(64 * 1024));
    // Announced: refused before it is read.
    let answer = gateway.chat(&customer, &long).await;
    is_refused("announced", &answer, 413, "request_too_large", None);
    // Not announced: refused at the bound.
    let pieces: Vec<Result<String, std::io::Error>> =
        (0..1024).map(|_| Ok("z".repeat(1024))).collect();
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let request = gateway.call(Method::POST, "/v1/chat/completions", &customer.secret);
    let answer = Plain::read(request.body(body).send().await.unwrap()).await;
    is_refused("chunked", &answer, 413, "request_too_large", None);
    // A client that is still sending gets to read why it was refused.
    let wrong = gateway
        .call(Method::POST, "/v1/chat/completions", "sk-tw-unknown")
        .body(format!("{START},\"x\":\"{}\"}}", "y".repeat(8 << 20)));
    let answer = Plain::read(wrong.send().await.unwrap()).await;
    is_refused(
        "large and without a key",
        &answer,
        401,
        "invalid_api_key",
        None,
    );
    // Exactly the bound is taken.
    let room = 64 * 1024 - START.len() - r#","x":""}"#.len();
    let fits = format!("{START},\"x\":\"{}\"}}", "y".repeat(room));
    assert_eq!(fits.len(), 64 * 1024);
    for encoding in ["gzip", "br", "zstd", "deflate", "identity, gzip"] {
        let request = gateway
            .chat_request(&customer, &fits)
            .header("content-encoding", encoding);
        let answer = Plain::read(request.send().await.unwrap()).await;
        is_refused(encoding, &answer, 400, "invalid_request", None);
    }
    nothing_happened(&gateway, &customer).await;
    let _ = gateway.chat(&customer, &fits).await.expect(200);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_not_in_force() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("10").await;
    let make = async |call: Value| gateway.customer_with(call).await;
    let revoked = make(json!({"name": "revoked", "credits": "1"})).await;
    let path = format!("/keys/{}", revoked.key_id);
    let _ = gateway.admin(Method::DELETE, &path, None).await.expect(200);
    let disabled = make(json!({"name": "disabled", "credits": "1"})).await;
    let path = format!("/accounts/{}", disabled.account_id);
    let patch = Some(json!({"disabled": true}));
    let _ = gateway.admin(Method::PATCH, &path, patch).await.expect(200);
    let expired = make(json!({"name": "expired", "credits": "1"})).await;
    let path = format!("/keys/{}", expired.key_id);
    let patch = Some(json!({"expires_at": "2020-01-01T00:00:00Z"}));
    let _ = gateway.admin(Method::PATCH, &path, patch).await.expect(200);
    let narrow = make(json!({"name": "narrow", "credits": "1", "models": ["free"]})).await;
    let flipped = {
        let mut secret = customer.secret.clone().into_bytes();
        let last = secret.last_mut().unwrap();
        *last = if *last == b'a' { b'b' } else { b'a' };
        String::from_utf8(secret).unwrap()
    };
    let rows = vec![
        (
            "unknown",
            "sk-tw-unknown".to_owned(),
            401,
            "invalid_api_key",
        ),
        ("flipped", flipped, 401, "invalid_api_key"),
        (
            "the admin key",
            ADMIN_KEY.to_owned(),
            401,
            "invalid_api_key",
        ),
        ("long", "s".repeat(5_000), 401, "invalid_api_key"),
        ("revoked", revoked.secret, 401, "invalid_api_key"),
        ("expired", expired.secret, 401, "invalid_api_key"),
        ("disabled", disabled.secret, 403, "not_permitted"),
        ("narrow", narrow.secret.clone(), 403, "not_permitted"),
    ];
    for (name, key, status, code) in rows {
        let request = gateway.call(Method::POST, "/v1/chat/completions", &key);
        let body = chat("m", json!({})).to_string();
        let answer = Plain::read(request.body(body).send().await.unwrap()).await;
        is_refused(name, &answer, status, code, None);
        assert_eq!(
            answer.header("www-authenticate"),
            if status == 401 { "Bearer" } else { "" }
        );
    }
    let url = format!("http://{}/v1/chat/completions", gateway.addr());
    let bare = gateway
        .client
        .post(&url)
        .body(chat("m", json!({})).to_string());
    let answer = Plain::read(bare.send().await.unwrap()).await;
    is_refused("no key", &answer, 401, "invalid_api_key", None);
    let basic = gateway
        .client
        .post(&url)
        .header("authorization", "Basic Zm9vOmJhcg==");
    let answer = Plain::read(basic.send().await.unwrap()).await;
    is_refused("another scheme", &answer, 401, "invalid_api_key", None);
    // A client is no operator, and nobody is without a key.
    for key in [customer.secret.as_str(), "", "sk-tw-x"] {
        for path in ["/admin/v1/keys", "/admin/v1/audit", "/admin/v1/nowhere"] {
            let answer = gateway.get(key, path).await;
            assert!(
                matches!(answer.status, 401 | 404),
                "{path}: {}",
                answer.status
            );
        }
    }
    let narrowed = Customer {
        secret: narrow.secret,
        ..narrow
    };
    let _ = gateway
        .get(&narrowed.secret, "/v1/models/m")
        .await
        .expect(403);
    let list = gateway
        .get(&narrowed.secret, "/v1/models")
        .await
        .expect(200)
        .json();
    let ids: Vec<&Value> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["id"])
        .collect();
    assert_eq!(ids, ["free", "mock/free"]);
    nothing_happened(&gateway, &customer).await;
    let _ = gateway
        .chat(&narrowed, chat("free", json!({})))
        .await
        .expect(200);
    gateway.finish().await;
}

/// Sends bytes on a connection of its own and returns what comes until the other side closes.
async fn raw(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    // Who is refused early may not get everything sent.
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    // A reset is an end too.
    let _ = in_time("the connection is closed", socket.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// A connection that closes on what it did not read takes the next request with it, and nobody says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_leaves_its_connection_to_the_next_request() {
    let gateway = Gateway::start(Books::Sqlite).await;
    // More than the server takes in with the head.
    let body = "x".repeat(1 << 20);
    let next = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    for (line, status) in [
        ("POST /v1/nowhere", "404"),
        ("POST /v1/models", "405"),
        ("POST /admin/v1/audit", "401"),
        ("POST /admin/v1/keys", "401"),
        ("POST /v1/chat/completions", "401"),
    ] {
        let length = body.len();
        let request =
            format!("{line} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}{next}");
        let answers = raw(gateway.addr(), request.as_bytes()).await;
        let first = format!("HTTP/1.1 {status} ");
        assert!(answers.starts_with(&first), "{line}: {answers}");
        assert!(answers.contains("HTTP/1.1 200 OK"), "{line}: {answers}");
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_malformed_clients_are_shut_out_in_time() {
    let gateway = Gateway::start_with(Books::Sqlite, |settings| {
        settings.header_timeout = Duration::from_millis(300);
        settings.body_timeout = Duration::from_millis(300);
    })
    .await;
    let customer = gateway.customer("10").await;
    let head = |more: &str| {
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{more}",
            customer.secret
        )
    };
    let half = head("content-length: 1000\r\n\r\n{\"model\":\"m\",");
    let rows = [
        ("half a request line", "POST /v1/ch".to_owned(), ""),
        ("half the headers", head("content-le"), ""),
        ("nothing at all", String::new(), ""),
        (
            "half of what begins HTTP/2",
            "PRI * HTTP/2.0\r\n".to_owned(),
            "",
        ),
        (
            "a header with a control character",
            head("x-a: b\u{1}c\r\n\r\n"),
            "HTTP/1.1 400",
        ),
        (
            "a header with a line break alone",
            head("x-a: b\rc: d\r\n\r\n"),
            "HTTP/1.1 400",
        ),
        (
            "a header name with a space",
            head("x a: b\r\n\r\n"),
            "HTTP/1.1 400",
        ),
        (
            "two lengths",
            head("content-length: 5\r\ncontent-length: 6\r\n\r\nhello"),
            "HTTP/1.1 400",
        ),
        (
            "no number of bytes",
            head("content-length: -5\r\n\r\n"),
            "HTTP/1.1 400",
        ),
        ("half a body", half, "HTTP/1.1 400"),
        (
            "garbage",
            "\u{0}\u{1}\u{2}\r\n\r\n".to_owned(),
            "HTTP/1.1 400",
        ),
    ];
    for (name, bytes, begins) in rows {
        let answer = raw(gateway.addr(), bytes.as_bytes()).await;
        let fits = if begins.is_empty() {
            answer.is_empty() || answer.starts_with("HTTP/1.1 408")
        } else {
            answer.starts_with(begins)
        };
        assert!(fits, "{name}: {answer:?}");
    }
    // A client that leaves in the middle of its body.
    let mut socket = TcpStream::connect(gateway.addr()).await.unwrap();
    socket
        .write_all(head("content-length: 1000\r\n\r\n{").as_bytes())
        .await
        .unwrap();
    drop(socket);
    // A body of two lengths is the classic of smuggling: whichever counts, only one request is seen.
    let smuggled = format!(
        "{}GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n",
        head("content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")
    );
    let answer = raw(gateway.addr(), smuggled.as_bytes()).await;
    assert!(answer.matches("HTTP/1.1 200").count() == 0, "{answer}");
    nothing_happened(&gateway, &customer).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_prompt_of_one_letter_is_counted_and_the_gateway_stays_quick() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1000").await;
    for text in [
        "a".repeat(1 << 20),
        " ".repeat(1 << 20),
        "\u{1F980}".repeat(1 << 18),
    ] {
        let body = json!({"model": "m", "max_tokens": 1,
            "messages": [{"role": "user", "content": text}]});
        let _ = gateway.chat(&customer, &body).await.expect(200);
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_more_than_may_be_in_flight_is_told_to_come_back() {
    let gateway = Gateway::start_with(Books::Sqlite, |settings| settings.requests_max = 2).await;
    let script = mock_provider::Script::new()
        .gate_before_head("go")
        .tokens(1)
        .finish("stop");
    gateway.provider.script("m", script);
    let customer = gateway.customer("10").await;
    let running: Vec<_> = (0..2)
        .map(|_| tokio::spawn(gateway.chat_request(&customer, chat("m", json!({}))).send()))
        .collect();
    gateway
        .provider
        .wait_for(|stats| stats.at_gates == 2)
        .await
        .unwrap();
    let answer = gateway.chat(&customer, chat("m", json!({}))).await;
    is_refused("busy", &answer, 503, "unavailable", None);
    assert_eq!(answer.header("retry-after"), "1");
    gateway.provider.open("go");
    for request in running {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    gateway.charges(&customer, 2).await;
    gateway.finish().await;
}
