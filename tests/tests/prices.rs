//! Prices: what an answer says that it cost is what the books took, part by part, and what the provider is owed lies beside it.

use billing::Credits;
use gateway::{admin::drift, prices::Markup};
use http::Method;
use mock_provider::{MockProvider, Script};
use serde_json::{Value, json};
use tests::{
    ADMIN_KEY, Books, Customer, Gateway, KEY_VARIABLE, Launch, PROMPT, PROMPT_TOKENS, Place, Plain,
    Program, Streaming, chat, clock_of, eventually, form, metric, tokens_cost,
};

const OUTPUT: u64 = 5;

/// An answer by a service tier of the provider's own choice.
fn answer(tier: &str) -> Script {
    Script::new()
        .tokens(OUTPUT)
        .usage_json(&format!(
            r#"{{"prompt_tokens":{PROMPT_TOKENS},"completion_tokens":{OUTPUT},"total_tokens":{},"service_tier":"{tier}"}}"#,
            PROMPT_TOKENS + OUTPUT
        ))
        .done()
}

async fn ask(gateway: &Gateway, customer: &Customer, body: Value) -> Plain {
    let request = gateway.chat_request(customer, body.to_string());
    Plain::read(request.send().await.unwrap()).await
}

fn amount(value: &Value) -> Credits {
    value.as_str().unwrap().parse().unwrap()
}

fn sum(parts: &Value) -> Credits {
    let parts = parts.as_object().unwrap().values();
    parts.fold(Credits::ZERO, |sum, part| {
        sum.checked_add(amount(part)).unwrap()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_add_up_to_the_ledger() {
    let gateway = Gateway::start_with(Books::Sqlite, |settings| {
        let markup = |factor: &str, model: Option<&str>| Markup {
            factor: factor.parse().unwrap(),
            account: None,
            group: None,
            model: model.map(Into::into),
        };
        settings.markups = vec![markup("1.1", None), markup("2", Some("*/tiered"))];
    })
    .await;
    let customer = gateway.customer("1").await;
    let mut said = Credits::ZERO;
    let plain = tokens_cost(PROMPT_TOKENS + OUTPUT).nanos();
    // What is asked for, what the provider says it served by, the thousandths of the plain price
    // that the provider takes, and those that the customer pays.
    let table = [
        ("m", None, "default", 1_000, 1_100),
        ("tiered", None, "default", 1_000, 2_000),
        ("tiered", Some("flex"), "flex", 500, 1_000),
        ("tiered", Some("flex"), "default", 1_000, 2_000),
        ("tiered", Some("priority"), "priority", 3_000, 6_000),
        ("tiered", Some("priority"), "default", 1_000, 2_000),
        ("tiered", Some("auto"), "priority", 3_000, 6_000),
    ];
    for (place, (model, asked, served, provider, customer_pays)) in table.into_iter().enumerate() {
        gateway.provider.script(model, answer(served));
        let mut body = chat(model, json!({"max_tokens": 50}));
        if let Some(asked) = asked {
            body["service_tier"] = asked.into();
        }
        let plain_answer = ask(&gateway, &customer, body).await;
        assert_eq!(plain_answer.status, 200, "{}", plain_answer.json());
        let usage = &plain_answer.json()["usage"];
        let cost = amount(&usage["cost"]);
        assert_eq!(
            cost.nanos(),
            plain * customer_pays / 1_000,
            "{model} {asked:?} {served}"
        );
        assert_eq!(sum(&usage["cost_details"]), cost);
        said = said.checked_add(cost).unwrap();
        let owed = gateway.charges(&customer, place + 1).await;
        let newest = owed.first().unwrap();
        assert_eq!(amount(&newest["charged"]), cost);
        assert_eq!(
            amount(&newest["provider_cost"]).nanos(),
            plain * provider / 1_000
        );
    }
    // Nobody wrote what priority costs here.
    let refused = ask(&gateway, &customer, {
        let mut body = chat("m", json!({"max_tokens": 50}));
        body["service_tier"] = "priority".into();
        body
    })
    .await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["error"]["param"], "service_tier");
    let left = gateway.settled_balance(&customer).await;
    assert_eq!(left.checked_add(said).unwrap(), "1".parse().unwrap());
    gateway.finish().await;
}

/// The cost that the last of these values names, wherever its dialect has the usage.
fn cost_in(values: &[Value]) -> Option<Credits> {
    let mut named = values.iter().filter_map(|value| {
        let usage = [&value["usage"], &value["response"]["usage"]];
        let named = usage.into_iter().find(|usage| usage["cost"].is_string())?;
        let cost = amount(&named["cost"]);
        if named["cost_details"].is_object() {
            assert_eq!(sum(&named["cost_details"]), cost, "{value}");
        }
        Some(cost)
    });
    named.next_back()
}

/// Sends it, and gives what the answer says that it cost, with the id of the request.
async fn told(request: reqwest::RequestBuilder, streams: bool) -> (Option<Credits>, String) {
    let response = request.send().await.unwrap();
    let id = response.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    if streams {
        assert_eq!(response.status(), 200);
        return (cost_in(&Streaming::new(response).rest().await.chunks()), id);
    }
    let answer = Plain::read(response).await.expect(200);
    let header = answer.header("x-tollway-cost");
    if header.is_empty()
        && answer
            .header("content-type")
            .starts_with("application/json")
    {
        return (cost_in(&[answer.json()]), id);
    }
    (header.parse().ok(), id)
}

/// Every endpoint once plain and, where it has them, as events; each costs something.
fn every_request(gateway: &Gateway, customer: &Customer) -> Vec<(reqwest::RequestBuilder, bool)> {
    let call = |path: &str| gateway.call(Method::POST, path, &customer.secret);
    let bodies = [
        ("chat/completions", chat("m", json!({"max_tokens": 50}))),
        (
            "chat/completions",
            chat("cached", json!({"max_tokens": 50})),
        ),
        (
            "chat/completions",
            chat(
                "fee",
                json!({"max_tokens": 50, "stream": true, "stream_options": {"include_usage": true}}),
            ),
        ),
        (
            "completions",
            json!({"model": "text", "prompt": "a b c", "max_tokens": 9}),
        ),
        (
            "completions",
            json!({"model": "text", "prompt": "a b c", "max_tokens": 9, "stream": true, "stream_options": {"include_usage": true}}),
        ),
        (
            "responses",
            json!({"model": "odd", "input": PROMPT, "max_output_tokens": 50}),
        ),
        (
            "responses",
            json!({"model": "m", "input": PROMPT, "max_output_tokens": 50, "stream": true}),
        ),
        (
            "messages",
            json!({"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": PROMPT}]}),
        ),
        (
            "messages",
            json!({"model": "odd", "max_tokens": 50, "stream": true, "messages": [{"role": "user", "content": PROMPT}]}),
        ),
        (
            "embeddings",
            json!({"model": "embed", "input": ["one two", "three"]}),
        ),
        ("moderations", json!({"model": "moderate", "input": "fine"})),
        (
            "rerank",
            json!({"model": "rerank", "query": "which", "documents": ["a", "b"]}),
        ),
        (
            "images/generations",
            json!({"model": "picture", "prompt": "a cat", "size": "1792x1024", "quality": "hd"}),
        ),
        (
            "images/generations",
            json!({"model": "picture-tokens", "prompt": "a fat cat"}),
        ),
        (
            "images/generations",
            json!({"model": "picture-tokens", "prompt": "a fat cat", "stream": true}),
        ),
        (
            "audio/speech",
            json!({"model": "speak", "input": "twelve chars", "voice": "alloy"}),
        ),
        (
            "audio/speech",
            json!({"model": "speak-tokens", "input": "twelve chars", "voice": "alloy"}),
        ),
        (
            "audio/speech",
            json!({"model": "speak-tokens", "input": "twelve chars", "voice": "alloy", "stream_format": "sse"}),
        ),
    ];
    let mut requests: Vec<_> = bodies
        .into_iter()
        .map(|(path, body)| {
            let streams = body["stream"] == true || body["stream_format"] == "sse";
            let request = call(&format!("/v1/{path}")).header("content-type", "application/json");
            (request.body(body.to_string()), streams)
        })
        .collect();
    let mut sound = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    sound.extend(8_000_u32.to_le_bytes());
    sound.extend(16_000_u32.to_le_bytes());
    sound.extend(b"\x02\0\x10\0data\0\0\0\0");
    sound.resize(sound.len() + 48_000, 0);
    for (path, model) in [
        ("/v1/audio/transcriptions", "hear"),
        ("/v1/audio/transcriptions", "hear-tokens"),
        ("/v1/audio/translations", "hear"),
    ] {
        let form = form(&[("model", model)], &[("file", &sound)]);
        requests.push((form.onto(call(path)), false));
    }
    let form = form(
        &[("model", "picture"), ("prompt", "a hat")],
        &[("image", b"PNG")],
    );
    requests.push((form.onto(call("/v1/images/edits")), false));
    requests
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_says_what_the_ledger_took_with_the_markup_of_a_group() {
    let gateway = Gateway::start_with(Books::Sqlite, |settings| {
        let markup = |factor: &str, group: Option<&str>| Markup {
            factor: factor.parse().unwrap(),
            account: None,
            group: group.map(Into::into),
            model: None,
        };
        // A factor that no price divides by.
        settings.markups = vec![markup("9", None), markup("1.337", Some("gold"))];
    })
    .await;
    let account = json!({"name": "golden", "metadata": {"price_group": "gold"}});
    let account = gateway
        .admin(Method::POST, "/accounts", Some(account))
        .await;
    let id = account.expect(201).json()["id"].clone();
    let key = json!({"name": "test", "account_id": id, "credits": "10"});
    let customer = gateway.customer_with(key).await;
    let requests = every_request(&gateway, &customer);
    let count = requests.len();
    let mut all = Credits::ZERO;
    for (place, (request, streams)) in requests.into_iter().enumerate() {
        let (said, id) = told(request, streams).await;
        let path = format!("/v1/generation?id={id}");
        let booked = eventually("it is booked", async || {
            let answer = gateway.get(&customer.secret, &path).await;
            (answer.status == 200).then(|| amount(&answer.json()["cost"]))
        })
        .await;
        assert!(booked > Credits::ZERO, "request {place} was free");
        // Audio whose tokens are told at its end has no place for its cost.
        assert!(
            said.is_none_or(|said| said == booked),
            "{place}: {said:?} {booked}"
        );
        all = all.checked_add(booked).unwrap();
    }
    let charges = gateway.charges(&customer, count).await;
    let (charged, owed) = charges.iter().fold((0, 0), |(charged, owed), charge| {
        assert_eq!(charge["charged"], charge["cost"]);
        let (more, owes) = (amount(&charge["charged"]), amount(&charge["provider_cost"]));
        // The markup, but for what is rounded up to a nano-credit in each rate of it.
        assert!(more.nanos() * 1_000 >= owes.nanos() * 1_337, "{charge}");
        (charged + more.nanos(), owed + owes.nanos())
    });
    assert_eq!(charged, all.nanos());
    assert!(charged * 1_000 < owed * 1_338, "{charged} {owed}");
    let left = gateway.settled_balance(&customer).await;
    assert_eq!(left.checked_add(all).unwrap(), "10".parse().unwrap());
    let sums = gateway.admin(Method::GET, "/usage", None).await.expect(200);
    assert_eq!(amount(&sums.json()["data"][0]["charged"]), all);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_without_a_price_and_a_model_without_one_are_refused() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1").await;
    for tier in [json!("ultrafast"), json!("batch"), json!(1)] {
        let body = chat("tiered", json!({"max_tokens": 5, "service_tier": tier}));
        let refused = ask(&gateway, &customer, body).await;
        assert_eq!(refused.status, 400, "{tier}");
        assert_eq!(refused.json()["error"]["param"], "service_tier");
    }
    let embed = |tier: &str| {
        let body = json!({"model": "embed", "input": "one two", "service_tier": tier});
        let request = gateway.call(Method::POST, "/v1/embeddings", &customer.secret);
        request.body(body.to_string())
    };
    let answer = Plain::read(embed("priority").send().await.unwrap()).await;
    assert_eq!(answer.expect(400).json()["error"]["param"], "service_tier");
    let answer = Plain::read(embed("flex").send().await.unwrap()).await;
    assert_eq!(answer.expect(200).json()["usage"]["cost"], "0.000002");
    // The error says which file to edit.
    let refused = ask(&gateway, &customer, chat("unpriced", json!({}))).await;
    assert_eq!(refused.status, 503);
    let message = refused.json()["error"]["message"].to_string();
    assert!(message.contains("mock/unpriced"), "{message}");
    assert!(
        message.contains("mock.toml") && message.contains("own prices"),
        "{message}"
    );
    assert!(
        gateway
            .provider
            .requests()
            .iter()
            .all(|seen| seen.json()["model"] != "unpriced")
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drift_of_these_days_is_a_metric() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1").await;
    // Twice as much as it is.
    let reported = format!(
        r#"{{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{}}}"#,
        2 * PROMPT_TOKENS,
        2 * OUTPUT,
        2 * (PROMPT_TOKENS + OUTPUT)
    );
    let script = Script::new().tokens(OUTPUT).usage_json(&reported).done();
    gateway.provider.script("learner", script);
    let answer = ask(
        &gateway,
        &customer,
        chat("learner", json!({"max_tokens": 50})),
    )
    .await;
    assert_eq!(answer.status, 200);
    let charge = gateway.charge(&customer).await;
    drift::show(gateway.app()).await.unwrap();
    let text = gateway.metrics().await;
    for side in ["prompt", "completion"] {
        let name =
            format!(r#"tollway_drift_ratio{{model="learner",provider="mock",side="{side}"}}"#);
        let tokens = &charge["counted"][format!("{side}_tokens")];
        let truth = &charge["usage"][format!("{side}_tokens")];
        let (tokens, truth) = (tokens.as_f64().unwrap(), truth.as_f64().unwrap());
        let shown = metric(&text, &name).unwrap();
        assert!(
            (shown - (tokens / truth - 1.0)).abs() < 0.001,
            "{side}: {shown}"
        );
        assert!(shown < -0.3, "{side}: {shown}");
    }
    gateway.finish().await;
}

/// A model that is cheaper at noon on working days, and cheaper all weekend, by the clocks of Shanghai.
fn cheaper_hours(url: &str) -> String {
    format!(
        "name = \"hours\"\ndialect = \"openai\"\nbase_url = \"{url}\"\napi_key_env = \"{KEY_VARIABLE}\"\n\
         [[models]]\nid = \"m\"\ntokenizer = \"o200k_base\"\ncontext_window = 1000\nprice = {{ prompt = \"8\", completion = \"8\" }}\n\
         price_hours = [\n\
         {{ from = \"12:00\", to = \"14:00\", days = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\"], time_zone = \"Asia/Shanghai\", factor = \"0.25\" }},\n\
         {{ days = [\"sat\", \"sun\"], time_zone = \"Asia/Shanghai\", factor = \"0.5\" }},\n]\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_charged_by_the_hour_of_its_admission() {
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    let set = |time: &str| {
        let next = folder.path().join("next");
        std::fs::write(&next, time).unwrap();
        std::fs::rename(&next, &clock).unwrap();
    };
    set("2026-11-27 12:00:00");
    let place = Place::new(Books::Sqlite).await;
    let provider = MockProvider::start(([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    provider.script("m", answer("default"));
    let mut variables = clock_of(&clock);
    variables.push(("TOLLWAY_ADMIN_KEY".to_owned(), ADMIN_KEY.to_owned()));
    variables.push(("TZ".to_owned(), "UTC".to_owned()));
    let launch = Launch {
        database_url: place.url().to_owned(),
        providers: vec![("hours".to_owned(), cheaper_hours(&provider.url()))],
        variables,
        log: None,
    };
    let start = tokio::task::spawn_blocking(move || Program::launch(&launch));
    let program = start.await.unwrap();
    let customer = program.customer("1").await;
    let mut charged = Credits::ZERO;
    // The last second before each edge and the first behind it; 2026-11-27 is a Friday.
    for (time, times) in [
        ("2026-11-27 15:59:59", 8),
        ("2026-11-27 16:00:00", 4),
        ("2026-11-28 05:00:00", 4),
        ("2026-11-29 15:59:59", 4),
        ("2026-11-29 16:00:00", 8),
        ("2026-11-30 03:59:59", 8),
        ("2026-11-30 04:00:00", 2),
        ("2026-11-30 05:59:59", 2),
        ("2026-11-30 06:00:00", 8),
    ] {
        set(time);
        let body = chat("hours/m", json!({"max_tokens": 50}));
        let told = program.chat(&customer, body).await.expect(200).json();
        let cost = amount(&told["usage"]["cost"]);
        assert_eq!(
            cost,
            tokens_cost(times * (PROMPT_TOKENS + OUTPUT)),
            "{time}"
        );
        charged = charged.checked_add(cost).unwrap();
    }
    let left = program.settled_balance(&customer).await;
    assert_eq!(left.checked_add(charged).unwrap(), "1".parse().unwrap());
    tokio::task::spawn_blocking(move || program.kill())
        .await
        .unwrap();
}
