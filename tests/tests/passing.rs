//! What passes through untouched and what must not: members, headers, routes, a provider's refusals.

use std::time::Duration;

use http::Method;
use mock_provider::{Cut, MockProvider, Script};
use serde_json::{Value, json};
use tests::{
    Books, CANARY_PROVIDER_KEY, Gateway, PROMPT_TOKENS, chat, count_tokens, credits, streamed,
    tokens_cost, usage,
};

/// The whole surface of a chat, spelt as no serialiser would: spaces, exponents, escapes, doubles
/// of unknown members, numbers of more digits than a float has.
const WHOLE: &str = r#" { "x_first" :  1.10, "model" : "m" ,"seed":1e2, "big":123456789012345678901234567890,
  "messages":[{"role":"system","content":"be \u0062rief"},
    {"role":"user","name":"Zo\u00eb","content":[{"type":"text","text":"caf\u00e9 \ud83e\udd80"},
      {"type":"image_url","image_url":{"url":"https://img.example/a.png","detail":"low"}},
      {"type":"input_audio","input_audio":{"data":"UklGRg==","format":"wav"}}]},
    {"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},
    {"role":"tool","tool_call_id":"c1","content":"42"}],
  "tools":[{"type":"function","function":{"name":"f","description":"d","strict":true,"parameters":{"type":"object","properties":{"a":{"type":"number","minimum":1.50}}}}}],
  "tool_choice":{"type":"function","function":{"name":"f"}}, "parallel_tool_calls":false,
  "response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}},
  "logprobs":true,"top_logprobs":5,"n":2,"temperature":0.70,"logit_bias":{"50256":-100},
  "stop":["\n\n","END"],"metadata":{"k":"v"},"x_twice":1,"x_twice":2,"x_null":null,"max_tokens":77}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_reaches_the_provider_byte_for_byte() {
    let gateway = Gateway::start(Books::Sqlite).await;
    gateway
        .provider
        .script("m", Script::new().tokens(1).finish("stop").usage());
    let customer = gateway.customer("10").await;
    let _ = gateway.chat(&customer, WHOLE).await.expect(200);
    let sent = gateway.provider.requests().pop().unwrap();
    assert_eq!(sent.body, WHOLE);
    assert_eq!(
        (sent.method.as_str(), sent.path.as_str()),
        ("POST", "/v1/chat/completions")
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_streamed_request_only_gains_what_asks_for_usage() {
    let gateway = Gateway::start(Books::Sqlite).await;
    gateway
        .provider
        .script("m", Script::new().role().tokens(1).finish("stop").done());
    let customer = gateway.customer("10").await;
    let asks = r#""stream_options":{"include_usage":true}"#;
    for (options, expected) in [
        ("", format!(",{asks}")),
        (
            r#","stream_options":{"include_usage":false}"#,
            format!(",{asks}"),
        ),
        (r#","stream_options":null"#, format!(",{asks}")),
        (
            r#","stream_options":{"x":1.0,"include_usage":true}"#,
            r#","stream_options":{"x":1.0,"include_usage":true}"#.to_owned(),
        ),
    ] {
        let start = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true"#;
        let body = format!("{start}{options}}}");
        let events = gateway.stream(&customer, body).await.rest().await;
        assert!(events.is_done());
        let sent = gateway.provider.requests().pop().unwrap();
        assert_eq!(sent.body, format!("{start}{expected}}}"));
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_reaches_the_client_byte_for_byte_but_for_its_cost() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let answer = |cost: &str| {
        format!(
            r#"{{ "id":"chatcmpl-1","object":"chat.completion" ,"created":1.70e9,"model":"real","x_extra":{{"deep":[1.10,null]}},"choices":[{{"index":0,"message":{{"role":"assistant","content":"caf\u00e9","x_more":1.0}},"logprobs":{{"content":[]}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,"x_queue_time":0.0010{cost}}},"system_fingerprint":null}}"#
        )
    };
    gateway.provider.script("m", Script::new().raw(answer("")));
    let customer = gateway.customer("10").await;
    let got = gateway
        .chat(&customer, chat("m", json!({})))
        .await
        .expect(200);
    let expected = answer(
        r#","cost":"0.000011","cost_details":{"prompt":"0.000009","completion":"0.000002"}"#,
    );
    assert_eq!(std::str::from_utf8(&got.body).unwrap(), expected);
    assert!(got.header("x-request-id").starts_with("req_"));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_reach_the_client_byte_for_byte() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let chunks = [
        r#"{"id":"c","object":"chat.completion.chunk","created":1,"model":"real","choices":[{"index":0,"delta":{"role":"assistant","content":""},"x":1.10}]}"#,
        r#"{ "id":"c","x_first":[1e2], "choices":[{"index":0,"delta":{"content":"caf\u00e9","reasoning_content":"hm"},"logprobs":{"content":[{"token":"a","logprob":-0.10}]}}],"x_groq":{"id":"r"}}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t","function":{"name":"f","arguments":"{\"a\":1.0}"}}]}}]}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#,
    ];
    let mut script = Script::new();
    for chunk in chunks {
        script = script.data(chunk);
    }
    gateway
        .provider
        .script("m", script.usage_json(&usage(9, 9)).done());
    let customer = gateway.customer("10").await;
    // Asked for or not: the usage chunk comes to whoever asked.
    for (ask, more) in [(false, 1), (true, 2)] {
        let body = chat(
            "m",
            json!({"stream": true, "stream_options": {"include_usage": ask}}),
        );
        let events = gateway.stream(&customer, body).await.rest().await;
        assert_eq!(&events.data[..chunks.len()], chunks);
        assert_eq!(events.data.len(), chunks.len() + more, "{:?}", events.data);
        assert_eq!(events.usages().len(), usize::from(ask));
        assert!(events.is_done());
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_header_of_the_clients_goes_upstream_and_no_key_comes_back() {
    let gateway = Gateway::start(Books::Sqlite).await;
    gateway.provider.script(
        "m",
        Script::new()
            .header("x-provider-secret", "SECRET")
            .header("set-cookie", "a=SECRET")
            .header("openai-organization", "SECRET")
            .tokens(1)
            .finish("stop"),
    );
    let customer = gateway.customer("10").await;
    for body in [chat("m", json!({})), streamed("m")] {
        let request = gateway
            .chat_request(&customer, body)
            .header("cookie", "session=1")
            .header("x-forwarded-for", "10.0.0.1")
            .header("x-api-key", "another")
            .header("api-key", "another")
            .header("openai-organization", "org-client")
            .header("traceparent", "00-1-1-01")
            .header("accept-encoding", "gzip, br");
        let answer = tests::Plain::read(request.send().await.unwrap())
            .await
            .expect(200);
        let seen = format!("{:?}{:?}", answer.headers, answer.body);
        assert!(
            !seen.contains("SECRET") && !seen.contains(CANARY_PROVIDER_KEY),
            "{seen}"
        );
        let sent = gateway.provider.requests().pop().unwrap();
        let mut names: Vec<&str> = sent.headers.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        let known = [
            "accept",
            "accept-encoding",
            "authorization",
            "content-length",
            "content-type",
            "host",
            "user-agent",
        ];
        assert!(names.iter().all(|name| known.contains(name)), "{names:?}");
        assert_eq!(
            sent.header("authorization"),
            Some(&*format!("Bearer {CANARY_PROVIDER_KEY}"))
        );
        assert_eq!(sent.header("accept-encoding"), Some("identity"));
        assert_eq!(sent.header("user-agent"), Some("tollway"));
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cost_is_the_same_in_usage_generation_charge_key_and_credits() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let script = Script::new()
            .role()
            .tokens(6)
            .finish("stop")
            .usage_json(&usage(PROMPT_TOKENS, 6));
        gateway.provider.script("m", script.done());
        let customer = gateway.customer("1").await;
        let answer = gateway.chat(&customer, streamed("m")).await.expect(200);
        let id = answer.header("x-request-id").to_owned();
        let path = format!("/v1/generation?id={id}");
        let generation = gateway
            .get(&customer.secret, &path)
            .await
            .expect(200)
            .json();
        let charge = gateway.charge(&customer).await;
        let cost = json!(tokens_cost(PROMPT_TOKENS + 6));
        assert_eq!(charge["id"], json!(id));
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(text.contains(&format!("\"cost\":{cost}")), "{text}");
        let key = gateway.get(&customer.secret, "/v1/key").await.json();
        let view = gateway.get(&customer.secret, "/v1/credits").await.json();
        for same in [
            &generation["cost"],
            &generation["usage"]["cost"],
            &charge["cost"],
            &charge["charged"],
            &key["usage"],
            &view["used"],
        ] {
            assert_eq!(same, &cost, "{generation:#} {charge:#} {key:#} {view:#}");
        }
        assert_eq!(generation["usage"]["completion_tokens"], 6);
        assert_eq!(generation["end"], "completed");
        assert_eq!(generation["stream"], true);
        // Nobody else's business.
        let other = gateway.customer("1").await;
        let _ = gateway.get(&other.secret, &path).await.expect(404);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_lead_to_the_providers_own() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("10").await;
    for (asked, upstream) in [
        ("m", "m"),
        ("mock/m", "m"),
        ("aliased", "real-name"),
        ("nick", "real-name"),
        ("mock/nick", "real-name"),
        ("shared", "shared-a"),
        ("backup/shared", "shared-b"),
    ] {
        let _ = gateway
            .chat(&customer, chat(asked, json!({})))
            .await
            .expect(200);
        let sent = gateway.provider.requests().pop().unwrap().json();
        assert_eq!(sent["model"], upstream, "{asked}");
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_fallback_is_priced_at_what_served() {
    let failures = [
        ("500", Script::error(500)),
        ("429", Script::error(429)),
        ("401", Script::error(401)),
        ("404", Script::error(404)),
        ("reset", Script::new().cut_before_head(Cut::Reset)),
        ("garbage", Script::new().raw("<html>")),
    ];
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let good = Script::new()
            .role()
            .tokens(4)
            .finish("stop")
            .usage_json(&usage(PROMPT_TOKENS, 4));
        gateway.provider.script("shared-b", good.done());
        for (name, failure) in failures.clone() {
            for body in [chat("shared", json!({"max_tokens": 4})), streamed("shared")] {
                gateway.provider.script("shared-a", failure.clone());
                let customer = gateway.customer("1").await;
                let _ = gateway.chat(&customer, &body).await.expect(200);
                let charge = gateway.charge(&customer).await;
                assert_eq!(charge["provider"], "backup", "{name}");
                let twice = tokens_cost(2 * (PROMPT_TOKENS + 4));
                assert_eq!(charge["charged"], json!(twice), "{name}");
                let left = credits("1").checked_sub(twice).unwrap();
                assert_eq!(gateway.settled_balance(&customer).await, left, "{name}");
            }
        }
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn x2_there_is_no_fallback_after_output_and_none_for_a_wrong_request() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("10").await;
    gateway
        .provider
        .script("shared-a", Script::new().role().tokens(3).cut(Cut::Close));
    let events = gateway
        .stream(&customer, streamed("shared"))
        .await
        .rest()
        .await;
    assert_eq!(count_tokens(&events.text()), 3);
    assert_eq!(events.error().unwrap()["code"], "upstream_error");
    for status in [400, 413, 422] {
        gateway.provider.script("shared-a", Script::error(status));
        let answer = gateway.chat(&customer, chat("shared", json!({}))).await;
        assert!((400..500).contains(&answer.status));
    }
    let asked = |model: &str| {
        let requests = gateway.provider.requests();
        requests
            .iter()
            .filter(|r| r.json()["model"] == model)
            .count()
    };
    assert_eq!((asked("shared-a"), asked("shared-b")), (4, 0));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_credit_for_the_cheap_target_alone_does_not_buy_the_dear_one() {
    let gateway = Gateway::start(Books::Sqlite).await;
    gateway.provider.script("shared-a", Script::error(500));
    let customer = gateway.customer(tokens_cost(PROMPT_TOKENS + 1)).await;
    let answer = gateway
        .chat(&customer, chat("shared", json!({"max_tokens": 1})))
        .await;
    assert!(matches!(answer.status, 402 | 502), "{}", answer.status);
    let all = tokens_cost(PROMPT_TOKENS + 1);
    assert_eq!(gateway.settled_balance(&customer).await, all);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_providers_refusals_are_mapped_and_its_words_stay_with_the_operator() {
    let gateway = Gateway::start_with(Books::Sqlite, |settings| {
        settings.first_byte_timeout = Duration::from_millis(500);
    })
    .await;
    let secret = r#"{"error":{"message":"SECRET org-123 sk-live","type":"SECRET","code":"context_length_exceeded"}}"#;
    for (upstream, status, code) in [
        (400, 400, "invalid_request"),
        (422, 400, "invalid_request"),
        (413, 413, "request_too_large"),
        (401, 502, "upstream_error"),
        (402, 502, "upstream_error"),
        (403, 502, "upstream_error"),
        (404, 502, "upstream_error"),
        (408, 504, "upstream_timeout"),
        (429, 429, "rate_limit_exceeded"),
        (500, 502, "upstream_error"),
        (503, 502, "upstream_error"),
        (504, 504, "upstream_timeout"),
        (529, 502, "upstream_error"),
        (302, 502, "upstream_error"),
        (418, 502, "upstream_error"),
    ] {
        for body in [chat("m", json!({})), streamed("m")] {
            let script = Script::error(upstream)
                .header("retry-after", "17")
                .raw(secret);
            gateway.provider.script("m", script);
            let customer = gateway.customer("1").await;
            let answer = gateway.chat(&customer, body).await;
            assert_eq!(
                (answer.status, answer.code()),
                (status, code.into()),
                "{upstream}"
            );
            let shown = format!("{:?}{:?}", answer.headers, answer.body);
            assert!(!shown.contains("SECRET"), "{upstream}: {shown}");
            let told = if status == 429 { "17" } else { "" };
            assert_eq!(answer.header("retry-after"), told, "{upstream}");
            assert_eq!(
                gateway.settled_balance(&customer).await,
                credits("1"),
                "{upstream}"
            );
            assert_eq!(
                gateway.charge(&customer).await["charged"],
                "0",
                "{upstream}"
            );
        }
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let elsewhere = MockProvider::start(([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let customer = gateway.customer("10").await;
    for status in [301, 302, 307, 308] {
        let target = format!("{}/chat/completions", elsewhere.url());
        gateway
            .provider
            .script("m", Script::error(status).header("location", &target));
        for body in [chat("m", json!({})), streamed("m")] {
            let answer = gateway.chat(&customer, body).await.expect(502);
            assert_eq!(answer.header("location"), "");
        }
    }
    assert_eq!(elsewhere.stats().connections, 0);
    assert_eq!(gateway.settled_balance(&customer).await, credits("10"));
    elsewhere.stop().await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_not_there_is_a_502() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("10").await;
    // Nothing listens any more, and connections of the pool are gone too.
    let stopped = MockProvider::start(([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let url = stopped.url();
    stopped.stop().await;
    let place = tests::Place::new(Books::Sqlite).await;
    let alone = Gateway::start_before(place, url).await;
    let other = alone.customer("10").await;
    for body in [chat("m", json!({})), streamed("m")] {
        let answer = alone.chat(&other, body).await.expect(502);
        assert_eq!(answer.code(), "upstream_error");
    }
    assert_eq!(alone.settled_balance(&other).await, credits("10"));
    alone.finish().await;
    let _ = gateway
        .chat(&customer, chat("m", json!({})))
        .await
        .expect(200);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_may_come_in_any_of_three_headers() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("10").await;
    for (name, value) in [
        ("authorization", format!("Bearer {}", customer.secret)),
        ("authorization", format!("bearer {}", customer.secret)),
        ("x-api-key", customer.secret.clone()),
        ("api-key", customer.secret.clone()),
    ] {
        let url = format!("http://{}/v1/models", gateway.addr());
        let answer = gateway.client.request(Method::GET, url).header(name, value);
        assert_eq!(answer.send().await.unwrap().status(), 200, "{name}");
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_names_its_request() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("10").await;
    let mut ids = Vec::new();
    for path in [
        "/v1/models",
        "/v1/key",
        "/nowhere",
        "/healthz",
        "/admin/v1/keys",
    ] {
        let answer = gateway.get(&customer.secret, path).await;
        ids.push(answer.header("x-request-id").to_owned());
    }
    let answer = gateway.chat(&customer, Value::Null).await;
    ids.push(answer.header("x-request-id").to_owned());
    assert!(
        ids.iter()
            .all(|id| id.starts_with("req_") && id.len() == 36),
        "{ids:?}"
    );
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 6);
    gateway.finish().await;
}
