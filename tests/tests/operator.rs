//! The operator's side, end to end: credits, keys, limits, sums, metrics, readiness, and what is never logged.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use billing::Credits;
use http::Method;
use mock_provider::Script;
use serde_json::{Value, json};
use tests::{
    ADMIN_KEY, Books, CANARY_PROVIDER_KEY, Customer, Gateway, PROMPT_TOKENS, Place, Plain, chat,
    credits, eventually, metric, streamed, tokens_cost, usage,
};
use throwaway_postgres::{Cluster, Stop};
use tracing_subscriber::fmt::MakeWriter;

/// Adds credits with an idempotency key.
async fn add(gateway: &Gateway, customer: &Customer, once: &str, body: &Value) -> Plain {
    let path = format!("/admin/v1/accounts/{}/credits", customer.account_id);
    let request = gateway.call(Method::POST, &path, ADMIN_KEY);
    let request = request
        .header("idempotency-key", once)
        .body(body.to_string());
    Plain::read(request.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn x3_a_repeated_payment_credits_once() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let customer = gateway.customer("0").await;
        let body = json!({"amount": "2.5", "reference": "pay_1"});
        let first = add(&gateway, &customer, "event-1", &body).await.expect(201);
        assert_eq!(first.header("idempotent-replayed"), "");
        for _ in 0..3 {
            let again = add(&gateway, &customer, "event-1", &body).await.expect(200);
            assert_eq!(again.header("idempotent-replayed"), "true");
            assert_eq!(again.json(), first.json());
        }
        let other = add(&gateway, &customer, "event-1", &json!({"amount": "9"})).await;
        assert_eq!(other.expect(409).code(), "conflict");
        assert_eq!(gateway.settled_balance(&customer).await, credits("2.5"));
        // Twenty at once.
        let answers = futures_util::future::join_all((0..20).map(|_| {
            let body = json!({"amount": "1"});
            let (gateway, customer) = (&gateway, &customer);
            async move { add(gateway, customer, "event-2", &body).await.status }
        }))
        .await;
        assert_eq!(
            answers.iter().filter(|status| **status == 201).count(),
            1,
            "{answers:?}"
        );
        assert!(
            answers.iter().all(|status| matches!(status, 200 | 201)),
            "{answers:?}"
        );
        assert_eq!(gateway.settled_balance(&customer).await, credits("3.5"));
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_amounts_that_would_harm_are_refused() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let customer = gateway.customer("2").await;
        let path = format!("/accounts/{}/credits", customer.account_id);
        for (amount, kind, status) in [
            (json!("-1"), "purchase", 400),
            (json!("0"), "purchase", 400),
            (json!("-1"), "promo", 400),
            (json!(1.5), "purchase", 400),
            (json!("1e9"), "purchase", 400),
            (json!("0.0000000001"), "purchase", 400),
            (json!("99999999999999999999"), "purchase", 400),
            (json!("1"), "gift", 400),
            (json!("-2.000000001"), "adjustment", 409),
            (json!("-3"), "refund", 409),
            (json!("-0.5"), "adjustment", 201),
            (json!("-1.5"), "refund", 201),
        ] {
            let body = Some(json!({"amount": amount, "kind": kind}));
            let answer = gateway.admin(Method::POST, &path, body).await;
            assert_eq!(answer.status, status, "{amount} {kind}: {:?}", answer.body);
        }
        assert_eq!(gateway.settled_balance(&customer).await, Credits::ZERO);
        let _ = gateway
            .chat(&customer, chat("m", json!({})))
            .await
            .expect(402);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c7_an_adjustment_does_not_take_what_a_running_request_holds() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let script = Script::new()
            .gate_before_head("go")
            .tokens(5)
            .finish("length");
        let script = script.usage_json(&usage(PROMPT_TOKENS, 5));
        gateway.provider.script("m", script);
        let customer = gateway.customer(tokens_cost(PROMPT_TOKENS + 5)).await;
        let body = chat("m", json!({"max_tokens": 5}));
        let running = tokio::spawn(gateway.chat_request(&customer, body).send());
        gateway
            .provider
            .wait_for(|stats| stats.at_gates == 1)
            .await
            .unwrap();
        let path = format!("/accounts/{}/credits", customer.account_id);
        let body = Some(json!({"amount": "-0.000001", "kind": "adjustment"}));
        let _ = gateway.admin(Method::POST, &path, body).await.expect(409);
        gateway.provider.open("go");
        assert_eq!(running.await.unwrap().unwrap().status(), 200);
        assert_eq!(gateway.settled_balance(&customer).await, Credits::ZERO);
        gateway.finish().await;
    }
}

/// Asks until a key gets this status, within a second.
async fn within_a_second(gateway: &Gateway, customer: &Customer, status: u16) {
    let begun = std::time::Instant::now();
    eventually("the change of a key is known", async || {
        let answer = gateway.get(&customer.secret, "/v1/models").await;
        (answer.status == status).then_some(())
    })
    .await;
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_stops_within_a_second_on_every_gateway() {
    let one = Gateway::start(Books::Postgres).await;
    let two = one.beside().await;
    let customer = one.customer("1").await;
    for gateway in [&one, &two] {
        let _ = gateway
            .get(&customer.secret, "/v1/models")
            .await
            .expect(200);
    }
    let path = format!("/keys/{}", customer.key_id);
    let _ = one.admin(Method::DELETE, &path, None).await.expect(200);
    within_a_second(&two, &customer, 401).await;
    within_a_second(&one, &customer, 401).await;
    // A disabled account, and enabled again.
    let customer = one.customer("1").await;
    let path = format!("/accounts/{}", customer.account_id);
    for (disabled, status) in [(true, 403), (false, 200)] {
        let _ = two.get(&customer.secret, "/v1/models").await;
        let patch = Some(json!({"disabled": disabled}));
        let _ = one.admin(Method::PATCH, &path, patch).await.expect(200);
        within_a_second(&two, &customer, status).await;
        within_a_second(&one, &customer, status).await;
    }
    two.leave().await;
    one.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_has_a_new_secret_and_the_same_account() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let old = gateway.customer("1").await;
        let path = format!("/keys/{}/rotate", old.key_id);
        let rotated = gateway.admin(Method::POST, &path, None).await.expect(200);
        assert_eq!(rotated.header("cache-control"), "no-store");
        let new = Customer::of(&rotated.json());
        assert_eq!(
            (&new.key_id, &new.account_id),
            (&old.key_id, &old.account_id)
        );
        assert_ne!(new.secret, old.secret);
        let _ = gateway.get(&new.secret, "/v1/models").await.expect(200);
        within_a_second(&gateway, &old, 401).await;
        // No secret is shown again.
        for path in ["/keys".to_owned(), format!("/keys/{}", new.key_id)] {
            let shown = gateway.admin(Method::GET, &path, None).await.expect(200);
            let text = String::from_utf8(shown.body.to_vec()).unwrap();
            assert!(
                !text.contains(&new.secret) && !text.contains(&old.secret),
                "{text}"
            );
        }
        gateway.finish().await;
    }
}

fn amount(value: &Value) -> Credits {
    value.as_str().unwrap().parse().unwrap()
}

fn sum<'a>(rows: impl Iterator<Item = &'a Value>) -> Credits {
    rows.map(amount)
        .fold(Credits::ZERO, |sum, one| sum.checked_add(one).unwrap())
}

/// Traffic of every kind on two models.
async fn traffic(gateway: &Gateway, customer: &Customer) {
    let script = Script::new()
        .role()
        .tokens(8)
        .finish("stop")
        .usage_json(&usage(PROMPT_TOKENS, 8));
    gateway.provider.script("m", script.clone().done());
    gateway.provider.script("cached", script.done());
    for body in [
        chat("m", json!({})),
        streamed("m"),
        chat("cached", json!({})),
        streamed("cached"),
    ] {
        let _ = gateway.chat(customer, body).await.expect(200);
    }
    gateway.provider.script("m", Script::error(500));
    let _ = gateway
        .chat(customer, chat("m", json!({})))
        .await
        .expect(502);
    gateway.provider.script("m", Script::new().role().tokens(3));
    let _ = gateway.chat(customer, streamed("m")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_l2_sums_of_usage_charges_and_entries_are_one_figure() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let customer = gateway.customer("1").await;
        traffic(&gateway, &customer).await;
        let charges = gateway.charges(&customer, 6).await;
        let charged = sum(charges.iter().map(|charge| &charge["charged"]));
        assert!(charged > Credits::ZERO);
        let read = async |path: String| {
            let list = gateway
                .admin(Method::GET, &path, None)
                .await
                .expect(200)
                .json();
            list["data"].as_array().unwrap().clone()
        };
        let account = &customer.account_id;
        for by in [
            "",
            "&group_by=day",
            "&group_by=model",
            "&group_by=model,end",
            "&group_by=key,provider",
        ] {
            let rows = read(format!("/usage?account_id={account}{by}")).await;
            assert_eq!(sum(rows.iter().map(|row| &row["charged"])), charged, "{by}");
            let requests: u64 = rows
                .iter()
                .map(|row| row["requests"].as_u64().unwrap())
                .sum();
            assert_eq!(requests, 6, "{by}");
        }
        let entries = read(format!("/accounts/{account}/entries")).await;
        let balance = gateway.balance(&customer).await;
        assert_eq!(
            sum(entries.iter().map(|entry| &entry["amount"])),
            balance.total
        );
        assert_eq!(balance.total, credits("1").checked_sub(charged).unwrap());
        let view = gateway.get(&customer.secret, "/v1/credits").await.json();
        assert_eq!(amount(&view["used"]), charged);
        for (filter, count) in [
            ("end=completed", 4),
            ("end=upstream_failed", 2),
            ("model=cached", 2),
            ("from=2020-01-01&to=2020-01-02", 0),
        ] {
            let rows = read(format!("/charges?account_id={account}&{filter}")).await;
            assert_eq!(rows.len(), count, "{filter}");
        }
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o2_metrics_are_all_there_and_their_labels_are_bounded() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1").await;
    traffic(&gateway, &customer).await;
    for n in 0..5 {
        let model = format!("canary-model-{n}");
        let _ = gateway
            .chat(&customer, chat(&model, json!({"user": "canary-user"})))
            .await
            .expect(404);
    }
    let empty = gateway.customer("0").await;
    let _ = gateway.chat(&empty, chat("m", json!({}))).await.expect(402);
    let _ = gateway.get("canary-key", "/v1/canary-path").await;
    let _ = gateway
        .chat(
            &Customer {
                secret: "canary-secret".into(),
                ..empty
            },
            "{}",
        )
        .await
        .expect(401);
    // More than was held: a house loss of known size.
    let script = Script::new()
        .tokens(1)
        .finish("stop")
        .usage_json(&usage(PROMPT_TOKENS, 1_000));
    gateway.provider.script("m", script);
    let poor = gateway.customer(tokens_cost(PROMPT_TOKENS + 1)).await;
    let _ = gateway
        .chat(&poor, chat("m", json!({"max_tokens": 1})))
        .await
        .expect(200);
    gateway.charge(&poor).await;
    gateway.audit().await;
    let text = gateway.metrics().await;
    let chats = |model: &str, provider: &str, status: u16| {
        metric(
            &text,
            &format!(
                r#"tollway_requests_total{{endpoint="chat.completions",model="{model}",provider="{provider}",status="{status}"}}"#
            ),
        )
    };
    assert_eq!(chats("m", "mock", 200), Some(4.0), "{text}");
    assert_eq!(chats("m", "mock", 502), Some(1.0), "{text}");
    assert_eq!(chats("m", "mock", 402), Some(1.0), "{text}");
    assert_eq!(chats("cached", "mock", 200), Some(2.0), "{text}");
    assert_eq!(chats("other", "other", 404), Some(5.0), "{text}");
    assert_eq!(chats("other", "other", 401), Some(1.0), "{text}");
    for (name, value) in [
        ("tollway_request_duration_seconds_count", 14.0),
        ("tollway_streams_open", 0.0),
        ("tollway_holds_open", 0.0),
        ("tollway_held_credits", 0.0),
        ("tollway_journal_queue", 0.0),
        ("tollway_ledger_imbalance_credits", 0.0),
        (
            r#"tollway_payment_required_total{code="credits_exhausted",stage="admission"}"#,
            1.0,
        ),
        (
            r#"tollway_upstream_errors_total{kind="server_error",provider="mock"}"#,
            1.0,
        ),
        (
            r#"tollway_tokens_total{kind="completion",model="cached",provider="mock"}"#,
            16.0,
        ),
        (
            r#"tollway_tokens_total{kind="prompt",model="cached",provider="mock"}"#,
            18.0,
        ),
        (
            r#"tollway_credits_charged_total{model="cached",provider="mock"}"#,
            0.000_2,
        ),
        (
            r#"tollway_house_loss_credits_total{cause="usage_above_hold"}"#,
            0.000_999,
        ),
    ] {
        let got = metric(&text, name).unwrap_or(f64::NAN);
        assert!(
            (got - value).abs() < 1e-9,
            "{name} is {got}, not {value}\n{text}"
        );
    }
    for name in [
        "tollway_time_to_first_token_seconds_count",
        "tollway_overhead_seconds_count",
        "tollway_leased_credits",
        "tollway_journal_lag_seconds",
    ] {
        let got = metric(&text, name).unwrap_or(-1.0);
        assert!(got >= 0.0, "{name}\n{text}");
    }
    for secret in [
        "canary",
        &customer.secret,
        &customer.account_id,
        &customer.key_id,
    ] {
        assert!(!text.contains(secret), "{secret}\n{text}");
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_its_database_is_not_ready_and_gives_nothing_away() {
    let cluster = tokio::task::spawn_blocking(Cluster::start)
        .await
        .unwrap()
        .unwrap();
    let cluster = Arc::new(cluster);
    let at = |work: fn(&Cluster)| {
        let cluster = cluster.clone();
        async move {
            tokio::task::spawn_blocking(move || work(&cluster))
                .await
                .unwrap()
        }
    };
    let database = {
        let cluster = cluster.clone();
        tokio::task::spawn_blocking(move || cluster.fresh_database().unwrap())
            .await
            .unwrap()
    };
    let gateway = Gateway::start_at(Place::at(database), |_| ()).await;
    let script = Script::new()
        .role()
        .tokens(4)
        .gate("go")
        .tokens(4)
        .finish("stop")
        .done();
    gateway.provider.script("m", script);
    let customer = gateway.customer("1").await;
    let stranger = gateway.customer("1").await;
    assert_eq!(
        gateway.get("", "/readyz").await.expect(200).json()["store"],
        true
    );
    let mut stream = gateway.stream(&customer, streamed("m")).await;
    stream.read_tokens(4).await;
    at(|cluster| cluster.stop(Stop::Immediate).unwrap()).await;
    let ready = gateway.get("", "/readyz").await.expect(503).json();
    assert_eq!(
        (&ready["status"], &ready["store"]),
        (&json!("not_ready"), &json!(false))
    );
    let _ = gateway.get("", "/healthz").await.expect(200);
    // A key that was never seen cannot be looked up, so it is neither served nor called wrong.
    let refused = gateway
        .chat(&stranger, chat("m", json!({})))
        .await
        .expect(503);
    assert_eq!(
        (refused.code(), refused.header("retry-after")),
        ("unavailable".into(), "1")
    );
    // What runs goes on within what it holds.
    gateway.provider.open("go");
    let events = stream.rest().await;
    assert_eq!(
        (events.error(), events.finish_reasons()),
        (None, vec!["stop".to_owned()])
    );
    at(|cluster| cluster.restart().unwrap()).await;
    eventually("it is ready again", async || {
        (gateway.get("", "/readyz").await.status == 200).then_some(())
    })
    .await;
    let charge = gateway.charge(&customer).await;
    assert_eq!(
        charge["charged"],
        json!(tokens_cost(PROMPT_TOKENS + 8)),
        "{charge:#}"
    );
    eventually("strangers are served again", async || {
        let answer = gateway.chat(&stranger, chat("m", json!({}))).await;
        (answer.status == 200).then_some(())
    })
    .await;
    gateway.finish().await;
}

/// Everything that is logged, by any level.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_ever_logged() {
    let captured = Captured::default();
    // For the whole process: under nextest that is this test alone. Otherwise other tests' lines
    // are looked through too, which must be as clean.
    let _ = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(captured.clone())
        .try_init();
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1").await;
    let prompt = "canary-prompt-8241";
    let answer = "canary-answer-9177";
    let body = |stream: bool| {
        json!({"model": "m", "stream": stream, "user": "canary-user-5",
            "messages": [{"role": "user", "content": prompt}]})
    };
    let said = Script::new()
        .role()
        .text(answer)
        .finish("stop")
        .usage()
        .done();
    let failures = [
        said.clone(),
        Script::error(500).raw(answer),
        Script::error(400).raw(format!(
            r#"{{"error":{{"message":"{answer}","code":"x"}}}}"#
        )),
        Script::new().raw(answer),
        Script::new().role().text(answer).data("{broken"),
        Script::new().role().text(answer).error_event(answer),
        said.usage_json(r#"{"prompt_tokens":"canary-usage","completion_tokens":-1}"#),
    ];
    for script in failures {
        gateway.provider.script("m", script);
        for stream in [false, true] {
            let _ = gateway.chat(&customer, body(stream)).await;
        }
    }
    let _ = gateway
        .chat(&customer, format!("{{\"model\":\"{prompt}\""))
        .await
        .expect(400);
    let wrong = Customer {
        secret: "sk-tw-canary-wrong-key".into(),
        ..customer.clone()
    };
    let _ = gateway.chat(&wrong, body(false)).await.expect(401);
    let secret = customer.secret.clone();
    gateway.finish().await;
    let log = captured
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    // The test's own client logs what it does, at levels that the program does not print; the
    // gateway's lines are those of its own crates.
    let log: String = String::from_utf8_lossy(&log)
        .lines()
        .filter(|line| {
            !line.contains(" hyper") && !line.contains(" reqwest") && !line.contains(" h2::")
        })
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(
        log.contains("gateway") && log.contains("request_id"),
        "nothing was captured: {log}"
    );
    for canary in [
        prompt,
        answer,
        &secret,
        ADMIN_KEY,
        CANARY_PROVIDER_KEY,
        "canary-wrong-key",
        "canary-user",
        "canary-usage",
    ] {
        let line = log.lines().find(|line| line.contains(canary));
        assert_eq!(line, None, "{canary}");
    }
}
