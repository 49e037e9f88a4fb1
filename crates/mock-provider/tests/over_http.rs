//! The provider as clients see it: reqwest for what HTTP allows, raw sockets for the rest.

#![expect(clippy::unwrap_used, reason = "a test says what failed by panicking")]

use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mock_provider::{Cut, MockProvider, Script, Stats, fault_models};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const CHAT: &str = "/chat/completions";

async fn start() -> (MockProvider, Client) {
    // Fails when another test of this process was first, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    (MockProvider::start(ANY_PORT).await.unwrap(), client)
}

fn chat(model: &str, more: Value) -> Value {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "one two"}]});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn streamed(model: &str) -> Value {
    chat(
        model,
        json!({"stream": true, "stream_options": {"include_usage": true}}),
    )
}

async fn post(client: &Client, provider: &MockProvider, path: &str, body: &Value) -> Response {
    let request = client.post(provider.url() + path).body(body.to_string());
    request.send().await.unwrap()
}

async fn plain(client: &Client, provider: &MockProvider, body: &Value) -> Value {
    let text = post(client, provider, CHAT, body).await.text().await;
    serde_json::from_str(&text.unwrap()).unwrap()
}

/// The data of each event; everything between events must be as the format says.
fn events(text: &str) -> Vec<&str> {
    text.split_terminator("\n\n")
        .map(|event| event.strip_prefix("data: ").unwrap())
        .collect()
}

/// The chunks of a stream that ends with `[DONE]`.
async fn chunks(client: &Client, provider: &MockProvider, body: &Value) -> Vec<Value> {
    let text = post(client, provider, CHAT, body)
        .await
        .text()
        .await
        .unwrap();
    let mut events = events(&text);
    assert_eq!(events.pop(), Some("[DONE]"));
    let parsed = events.iter().map(|event| serde_json::from_str(event));
    parsed.collect::<Result<_, _>>().unwrap()
}

fn words(chunks: &[Value]) -> Vec<&str> {
    let contents = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"]["content"]);
    contents
        .filter_map(Value::as_str)
        .filter(|word| !word.is_empty())
        .collect()
}

#[tokio::test]
async fn a_plain_answer_and_its_stream_are_the_same() {
    let (provider, client) = start().await;
    let whole = plain(&client, &provider, &chat("m", json!({}))).await;
    let chunks = chunks(&client, &provider, &streamed("m")).await;
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(words(&chunks).concat(), text);
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["model"], "m");
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");

    let counted = tiktoken_rs::o200k_base()
        .unwrap()
        .encode_ordinary(text)
        .len();
    assert_eq!(whole["usage"]["prompt_tokens"], 2 + 3);
    assert_eq!(whole["usage"]["completion_tokens"], counted);
    assert_eq!(whole["usage"]["total_tokens"], 5 + counted);

    assert_eq!(chunks[0]["object"], "chat.completion.chunk");
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(words(&chunks).len(), counted);
    let [.., finish, usage] = &chunks[..] else {
        panic!("too short")
    };
    assert_eq!(finish["choices"][0]["finish_reason"], "stop");
    assert_eq!(finish["usage"], Value::Null);
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"], whole["usage"]);
}

#[tokio::test]
async fn usage_is_streamed_only_when_asked_for() {
    let (provider, client) = start().await;
    let body = chat("m", json!({"stream": true}));
    let response = post(&client, &provider, CHAT, &body).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert!(!response.text().await.unwrap().contains("usage"));
}

#[tokio::test]
async fn limits_and_choices_are_honoured() {
    let (provider, client) = start().await;
    for (limits, expected, end) in [
        (json!({"max_tokens": 3}), 3, "length"),
        (
            json!({"max_completion_tokens": 4, "max_tokens": 9}),
            4,
            "length",
        ),
        (json!({"max_tokens": 0}), 0, "length"),
        (json!({"max_tokens": 100_000}), 73, "stop"),
    ] {
        let whole = plain(&client, &provider, &chat("m", limits.clone())).await;
        assert_eq!(whole["usage"]["completion_tokens"], expected, "{limits}");
        assert_eq!(whole["choices"][0]["finish_reason"], end, "{limits}");
    }
    let mut body = streamed("mock-words-300");
    body["n"] = json!(2);
    body["max_tokens"] = json!(200);
    let chunks = chunks(&client, &provider, &body).await;
    assert_eq!(chunks.last().unwrap()["usage"]["completion_tokens"], 400);
    let second = chunks
        .iter()
        .filter(|chunk| chunk["choices"][0]["index"] == 1);
    assert_eq!(second.count(), 202); // role, words, finish
    let whole = plain(
        &client,
        &provider,
        &chat("m", json!({"n": 3, "max_tokens": 2})),
    )
    .await;
    assert_eq!(whole["choices"].as_array().unwrap().len(), 3);
    assert_eq!(whole["usage"]["completion_tokens"], 6);
}

#[tokio::test]
async fn a_tool_is_called_when_the_last_message_says_so() {
    let (provider, client) = start().await;
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let tools =
        json!([{"type": "function", "function": {"name": "weather", "parameters": parameters}}]);
    let quiet = plain(&client, &provider, &chat("m", json!({"tools": tools}))).await;
    assert_eq!(quiet["choices"][0]["finish_reason"], "stop");

    let messages = json!([{"role": "user", "content": "Please call the tool."}]);
    let mut body = chat("m", json!({"tools": tools, "messages": messages}));
    let whole = plain(&client, &provider, &body).await;
    let call = &whole["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(call["name"], "weather");
    assert_eq!(call["arguments"], r#"{"city":"demo"}"#);
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");

    body["stream"] = json!(true);
    let chunks = chunks(&client, &provider, &body).await;
    let calls: Vec<&Value> = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"]["tool_calls"][0])
        .filter(|call| !call.is_null())
        .collect();
    assert_eq!(calls[0]["function"]["name"], "weather");
    let pieces = calls
        .iter()
        .map(|call| call["function"]["arguments"].as_str().unwrap());
    let pieces: Vec<&str> = pieces.filter(|piece| !piece.is_empty()).collect();
    assert!(pieces.len() > 1);
    assert_eq!(pieces.concat(), r#"{"city":"demo"}"#);
}

#[tokio::test]
async fn the_other_endpoints_answer() {
    let (provider, client) = start().await;
    let format = json!({"response_format": {"type": "json_object"}});
    let whole = plain(&client, &provider, &chat("m", format)).await;
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(text).unwrap().is_object());

    let body = json!({"model": "m", "prompt": "a b c", "max_tokens": 2});
    let text = post(&client, &provider, "/completions", &body)
        .await
        .text()
        .await
        .unwrap();
    let whole: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(whole["object"], "text_completion");
    assert_eq!(whole["usage"]["total_tokens"], 5);
    let body = json!({"model": "m", "prompt": "a b c", "stream": true, "max_tokens": 2});
    let text = post(&client, &provider, "/completions", &body)
        .await
        .text()
        .await
        .unwrap();
    assert_eq!(events(&text).len(), 4); // two words, finish, [DONE]

    let body = json!({"model": "m", "input": ["a b", "c"], "dimensions": 4});
    let text = post(&client, &provider, "/embeddings", &body)
        .await
        .text()
        .await
        .unwrap();
    let floats: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(floats["data"][1]["embedding"].as_array().unwrap().len(), 4);
    assert_eq!(floats["usage"]["total_tokens"], 3);
    let body = json!({"model": "m", "input": "a b", "encoding_format": "base64"});
    let text = post(&client, &provider, "/embeddings", &body)
        .await
        .text()
        .await
        .unwrap();
    let base64: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(base64["data"][0]["embedding"].as_str().unwrap().len(), 44); // 32 bytes

    let models = client.get(provider.url() + "/models").send().await.unwrap();
    let models: Value = serde_json::from_str(&models.text().await.unwrap()).unwrap();
    let ids: Vec<&str> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    assert!(
        ids.contains(&"demo") && ids.contains(&"mock-hang"),
        "{ids:?}"
    );
}

#[tokio::test]
async fn what_is_wrong_is_refused() {
    let (provider, client) = start().await;
    for (method, path, body, status) in [
        (Method::POST, CHAT, "{", 400),
        (Method::POST, CHAT, r#"{"messages":5}"#, 400),
        (Method::POST, "/embeddings", "{}", 400),
        (Method::GET, CHAT, "", 405),
        (Method::POST, "/models", "", 405),
        (Method::POST, "/nothing", "{}", 404),
    ] {
        let request = client.request(method, provider.url() + path).body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{path} {body}");
        let error: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert!(error["error"]["message"].is_string(), "{path} {body}");
    }
}

#[tokio::test]
async fn faults_before_the_answer() {
    let (provider, client) = start().await;
    for stream in [true, false] {
        let ask = |model: &'static str| {
            let body = chat(model, json!({"stream": stream}));
            let request = client.post(provider.url() + CHAT).body(body.to_string());
            request.send()
        };
        for (model, status) in [
            ("mock-401", 401),
            ("any/mock-429", 429),
            ("mock-500", 500),
            ("mock-503", 503),
            ("mock-418", 418),
            ("mock-redirect", 307),
        ] {
            let response = ask(model).await.unwrap();
            assert_eq!(response.status(), status, "{model}");
            let waits = matches!(status, 429 | 503);
            assert_eq!(
                response.headers().contains_key("retry-after"),
                waits,
                "{model}"
            );
        }
        let html = ask("mock-html").await.unwrap();
        assert_eq!(html.headers()["content-type"], "text/html");
        assert!(html.text().await.unwrap().starts_with("<html>"));
        assert_eq!(
            ask("mock-empty")
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap()
                .len(),
            0
        );
        assert!(ask("mock-reset").await.is_err());
    }
}

#[tokio::test]
async fn faults_in_the_middle_of_the_answer() {
    let (provider, client) = start().await;
    for (model, cut) in [("mock-drop-midstream", 1), ("mock-close-midstream", 2)] {
        for body in [streamed(model), chat(model, json!({}))] {
            let response = post(&client, &provider, CHAT, &body).await;
            assert_eq!(response.status(), 200);
            assert!(response.bytes().await.is_err(), "{model}");
        }
        let cuts = provider
            .wait_for(|stats| stats.streams_cut == 2 * cut)
            .await;
        cuts.unwrap();
    }
    let text = |body: Value| {
        let (client, provider) = (&client, &provider);
        async move {
            post(client, provider, CHAT, &body)
                .await
                .text()
                .await
                .unwrap()
        }
    };
    let error = text(streamed("mock-error-midstream")).await;
    let last: Value = serde_json::from_str(events(&error).last().unwrap()).unwrap();
    assert!(last["error"]["message"].is_string());
    assert!(events(&error).len() > 10);
    let none = text(streamed("mock-no-usage")).await;
    assert!(!none.contains("total_tokens") && none.contains("[DONE]"));
    let none = text(chat("mock-no-usage", json!({}))).await;
    assert!(!none.contains("\"usage\":"));
    let none = text(streamed("mock-no-done")).await;
    assert!(none.contains("total_tokens") && !none.contains("[DONE]"));
    for body in [streamed("mock-badjson"), chat("mock-badjson", json!({}))] {
        let bad = text(body).await;
        let data = bad.trim_start_matches("data: ").split("\n\n");
        assert!(
            data.into_iter()
                .any(|one| serde_json::from_str::<Value>(one).is_err())
        );
    }
    assert!(text(streamed("mock-big-line")).await.len() > 4 << 20);
    let whole = text(streamed("mock-byte-by-byte")).await;
    assert!(events(&whole).len() > 70);
}

#[tokio::test]
async fn wrong_usage() {
    let (provider, client) = start().await;
    for (model, name, expected) in [
        ("mock-usage-negative", "completion_tokens", json!(-7)),
        (
            "mock-usage-huge",
            "completion_tokens",
            json!(1_000_000_000_000_000_000_u64),
        ),
        ("mock-usage-string", "completion_tokens", json!("7")),
        ("mock-usage-zero", "total_tokens", json!(0)),
        ("mock-usage-above", "completion_tokens", json!(1_010)),
        ("mock-cumulative", "completion_tokens", json!(10)),
    ] {
        let mut body = streamed(model);
        body["max_tokens"] = json!(10);
        let chunks = chunks(&client, &provider, &body).await;
        assert_eq!(chunks.last().unwrap()["usage"][name], expected, "{model}");
        let said = chunks
            .iter()
            .filter(|chunk| chunk["usage"].is_object())
            .count();
        assert_eq!(
            said,
            if model == "mock-cumulative" { 11 } else { 1 },
            "{model}"
        );
        let whole = plain(&client, &provider, &chat(model, json!({"max_tokens": 10}))).await;
        assert_eq!(whole["usage"][name], expected, "{model}");
    }
}

/// Reads until the text so far satisfies.
async fn read_until(response: &mut Response, holds: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    while !holds(&text) {
        let bytes = response.chunk().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    text
}

#[tokio::test]
async fn a_gate_holds_the_rest_back_until_it_is_opened() {
    let (provider, client) = start().await;
    let script = Script::new()
        .words("before it")
        .gate("g")
        .words("after it")
        .done();
    provider.script("m", script.clone().gate_before_head("head"));
    provider.open("head");
    let mut response = post(&client, &provider, CHAT, &streamed("m")).await;
    let before = read_until(&mut response, |text| text.contains(" it")).await;
    assert!(!before.contains("after"));
    let stats = provider
        .wait_for(|stats| stats.at_gates == 1)
        .await
        .unwrap();
    assert_eq!((stats.open_streams, stats.chunks), (1, 2));
    provider.open("g");
    let after = response.text().await.unwrap();
    assert!(after.contains("after") && after.ends_with("data: [DONE]\n\n"));
    let stats = provider
        .wait_for(|stats| stats.streams_completed == 1)
        .await
        .unwrap();
    assert_eq!(
        (stats.open_streams, stats.at_gates, stats.chunks),
        (0, 0, 4)
    );
    let whole = plain(&client, &provider, &chat("m", json!({}))).await;
    assert_eq!(
        whole["choices"][0]["message"]["content"],
        "before itafter it"
    );
}

#[tokio::test]
async fn a_client_that_hangs_up_is_noticed_whatever_the_script_does() {
    let (provider, client) = start().await;
    let day = Duration::from_secs(86_400);
    let begun = || Script::new().role();
    for (place, script) in [
        begun().pause(day),
        begun().gate("never"),
        begun().stall(),
        begun().words_paced("long words", day),
        begun().endless(Duration::ZERO),
        begun().endless(Duration::from_millis(1)),
    ]
    .into_iter()
    .enumerate()
    {
        provider.script("m", script);
        let mut response = post(&client, &provider, CHAT, &streamed("m")).await;
        read_until(&mut response, |text| text.contains("assistant")).await;
        let aborted = provider.stats().streams_aborted;
        assert_eq!(aborted, place as u64);
        let gone = Instant::now();
        drop(response);
        let noticed = provider
            .wait_for(|stats| stats.streams_aborted == aborted + 1)
            .await;
        let stats = noticed.unwrap();
        assert_eq!((stats.open_streams, stats.at_gates), (0, 0));
        assert!(gone.elapsed() < Duration::from_secs(5), "{place}");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_before_the_head_is_noticed() {
    let (provider, client) = start().await;
    let scripts = [
        Script::new().gate_before_head("never"),
        Script::new().stall_before_head(),
        Script::new().pause_before_head(Duration::from_secs(86_400)),
    ];
    let count = scripts.len() as u64;
    for (place, script) in scripts.into_iter().enumerate() {
        provider.script("m", script);
        let body = streamed("m").to_string();
        let asking = tokio::spawn(client.post(provider.url() + CHAT).body(body).send());
        let open = |stats: &Stats| stats.open_requests == 1;
        provider.wait_for(open).await.unwrap();
        asking.abort();
        let aborted = place as u64 + 1;
        let noticed = provider
            .wait_for(|stats| stats.requests_aborted == aborted)
            .await;
        assert_eq!(noticed.unwrap().open_requests, 0);
    }
    let stats = provider.stats();
    assert_eq!((stats.requests, stats.streams), (count, 0));
}

#[tokio::test]
async fn scripts_are_replaced_live_and_played_once_first() {
    let (provider, client) = start().await;
    let said = async |model: &str| {
        let response = post(&client, &provider, CHAT, &chat(model, json!({}))).await;
        let status = response.status().as_u16();
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        let text = body["choices"][0]["message"]["content"].as_str();
        (status, text.unwrap_or_default().to_owned())
    };
    provider.script("m", Script::answer("one"));
    assert_eq!(said("m").await, (200, "one".into()));
    provider.script("m", Script::answer("two"));
    provider.script_once("m", Script::error(500));
    provider.script_once("m", Script::error(429));
    assert_eq!(said("m").await.0, 500);
    assert_eq!(said("m").await.0, 429);
    assert_eq!(said("m").await, (200, "two".into()));
    assert_ne!(said("other").await.1, "two");
    provider.unscript("m");
    assert_ne!(said("m").await.1, "two");
}

#[tokio::test]
async fn a_script_for_a_path_serves_other_dialects() {
    let (provider, client) = start().await;
    let event = "event: message_start\ndata: {}\n\n";
    provider.script("/v1/messages", Script::new().raw(event).always_stream());
    let response = post(&client, &provider, "/messages", &json!({})).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.text().await.unwrap(), event);
    let refused = Script::error(529)
        .header("content-type", "text/x")
        .raw("busy");
    provider.script("claude", refused.header("x-a", "b"));
    let response = post(&client, &provider, "/other", &json!({"model": "claude"})).await;
    assert_eq!(response.status(), 529);
    assert_eq!(response.headers()["content-type"], "text/x");
    assert_eq!(response.headers()["x-a"], "b");
    assert_eq!(response.text().await.unwrap(), "busy");
}

/// Sends a request over a socket of our own and returns it.
async fn raw(provider: &MockProvider, body: &Value) -> TcpStream {
    let mut socket = TcpStream::connect(provider.addr()).await.unwrap();
    let body = body.to_string();
    let head = format!(
        "POST /v1{CHAT} HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).await.unwrap();
    socket
}

#[tokio::test]
async fn a_cut_is_a_close_or_a_reset_after_what_came_before() {
    let (provider, _client) = start().await;
    for (gate, cut, expected) in [
        ("a", Cut::Close, None),
        ("b", Cut::Reset, Some(ErrorKind::ConnectionReset)),
    ] {
        provider.script("m", Script::new().words("all of this").gate(gate).cut(cut));
        let mut socket = raw(&provider, &streamed("m")).await;
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains(" this") {
            assert_ne!(socket.read_buf(&mut text).await.unwrap(), 0);
        }
        provider.open(gate);
        let rest = socket.read_to_end(&mut text).await;
        assert_eq!(rest.err().map(|error| error.kind()), expected);
        let text = String::from_utf8(text).unwrap();
        assert!(!text.ends_with("0\r\n\r\n"), "the body was ended in order");
    }
    // Without a gate between: what was said is flushed first.
    provider.script("m", Script::new().words("all of this").cut(Cut::Close));
    let mut text = String::new();
    let mut socket = raw(&provider, &streamed("m")).await;
    socket.read_to_string(&mut text).await.unwrap();
    assert!(text.contains(" this"), "{text}");
    assert_eq!(provider.stats().streams_cut, 3);
}

#[tokio::test]
async fn writes_are_split_as_asked() {
    let (provider, client) = start().await;
    let script = Script::new().raw("0123456789").split(4).always_stream();
    provider.script("m", script);
    let mut socket = raw(&provider, &streamed("m")).await;
    let mut text = String::new();
    while !text.ends_with("0\r\n\r\n") {
        let mut bytes = [0; 4_096];
        let count = socket.read(&mut bytes).await.unwrap();
        text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "4\r\n0123\r\n4\r\n4567\r\n2\r\n89\r\n0\r\n\r\n");
    provider.script("m", Script::answer("whole").split(1));
    let whole = plain(&client, &provider, &chat("m", json!({}))).await;
    assert_eq!(whole["choices"][0]["message"]["content"], "whole");
}

#[tokio::test]
async fn requests_are_kept_within_bounds() {
    let (provider, client) = start().await;
    let url = provider.url() + CHAT + "?a=b";
    let request = client.post(url).header("authorization", "Bearer k");
    request
        .body(streamed("m").to_string())
        .send()
        .await
        .unwrap();
    let seen = provider.requests();
    let [one] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(
        (&*one.method, &*one.path),
        ("POST", "/v1/chat/completions?a=b")
    );
    assert_eq!(one.header("authorization"), Some("Bearer k"));
    assert_eq!(one.json(), streamed("m"));

    let big = "x".repeat(6 << 20);
    for n in 0..4 {
        let body = format!("{{\"n\":{n},\"big\":\"{big}\"}}");
        client
            .post(provider.url() + "/no")
            .body(body)
            .send()
            .await
            .unwrap();
    }
    let kept: Vec<Value> = provider
        .requests()
        .iter()
        .map(|one| one.json()["n"].clone())
        .collect();
    assert_eq!(kept, [json!(2), json!(3)]);
    assert_eq!(provider.stats().requests, 5);
}

#[tokio::test]
async fn the_demo_takes_its_time_and_others_do_not() {
    let (provider, client) = start().await;
    let begin = Instant::now();
    let mut body = streamed("demo");
    body["max_tokens"] = json!(10);
    chunks(&client, &provider, &body).await;
    assert!(begin.elapsed() >= Duration::from_millis(200));
    provider.set_pause(Duration::from_millis(30));
    let begin = Instant::now();
    body["model"] = json!("m");
    chunks(&client, &provider, &body).await;
    assert!(begin.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn no_fault_breaks_the_provider() {
    let (provider, client) = start().await;
    for model in fault_models() {
        for stream in [true, false] {
            let body = chat(model, json!({"stream": stream, "max_tokens": 2}));
            let ask = client.post(provider.url() + CHAT).body(body.to_string());
            let reading = tokio::spawn(async move { ask.send().await?.bytes().await });
            let ended = |stats: &Stats| stats.open_requests + stats.open_streams == 0;
            let waits = [
                "mock-hang",
                "mock-slow",
                "mock-stall-midstream",
                "mock-never-ends",
            ];
            if waits.contains(&model) {
                let begun = |stats: &Stats| !ended(stats);
                provider.wait_for(begun).await.unwrap();
                reading.abort();
            }
            let _ = reading.await;
            provider.wait_for(ended).await.unwrap();
        }
    }
    let asked = 2 * fault_models().count() as u64;
    let stats = provider.stats();
    assert_eq!(stats.requests, asked);
    let ended = stats.streams_completed + stats.streams_cut + stats.streams_aborted;
    assert_eq!(stats.streams, ended);
}

#[tokio::test]
async fn an_endless_plain_answer_grows_until_the_client_has_enough() {
    let (provider, client) = start().await;
    let body = chat("mock-never-ends", json!({}));
    let mut response = post(&client, &provider, CHAT, &body).await;
    let text = read_until(&mut response, |text| text.len() > 500).await;
    assert!(
        text.contains(r#""content":"Every word of this answer"#),
        "{text}"
    );
    drop(response);
    provider
        .wait_for(|stats| stats.streams_aborted == 1)
        .await
        .unwrap();
}

#[tokio::test]
async fn stopping_ends_open_streams() {
    let (provider, client) = start().await;
    provider.script("m", Script::new().role().stall());
    let response = post(&client, &provider, CHAT, &streamed("m")).await;
    let addr = provider.addr();
    provider.stop().await;
    assert!(response.bytes().await.is_err());
    assert!(TcpStream::connect(addr).await.is_err());
}

#[test]
fn the_program_prints_its_address() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mock-provider"))
        .args(["--listen", "127.0.0.1:0", "--delay-ms", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("http://").unwrap();
    let address = address.strip_suffix("/v1").unwrap();
    let connected = std::net::TcpStream::connect(address);
    child.kill().unwrap();
    child.wait().unwrap();
    connected.unwrap();

    let wrong = Command::new(env!("CARGO_BIN_EXE_mock-provider"))
        .arg("--no")
        .output()
        .unwrap();
    assert!(!wrong.status.success());
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("usage:"));
}
