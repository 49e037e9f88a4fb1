//! Every way a stream can end, row by row of the design's table: what the client sees and what is charged.

use std::time::Duration;

use billing::Credits;
use bytes::Bytes;
use gateway::settings::ClientGonePolicy;
use mock_provider::{Cut, Script};
use serde_json::{Value, json};
use tests::{
    Books, Customer, Gateway, PROMPT_TOKENS, chat, count_tokens, credits, in_time, metric,
    streamed, tokens_cost, unchanging, usage,
};

/// Far more credit than any of these needs.
const PLENTY: &str = "10";

/// How a stream is expected to end.
struct Row {
    name: &'static str,
    script: Script,
    /// Tokens that reach the client.
    delivered: u64,
    /// The code of the error event.
    error: Option<&'static str>,
    end: &'static str,
    source: &'static str,
    /// Tokens charged for, prompt and output.
    charged: u64,
}

async fn ends_as(gateway: &Gateway, row: Row) {
    let Row {
        name,
        script,
        delivered,
        error,
        end,
        source,
        charged,
    } = row;
    gateway.provider.script("m", script);
    let customer = gateway.customer(PLENTY).await;
    let mut stream = gateway.stream(&customer, streamed("m")).await;
    stream.read_tokens(delivered).await;
    // Where the script waits at a gate of this name, the failure comes after what was read.
    gateway.provider.open(name);
    let events = stream.rest().await;
    assert_eq!(count_tokens(&events.text()), delivered, "{name}");
    let code = events.error().map(|error| error["code"].clone());
    assert_eq!(
        code,
        error.map(|code| json!(code)),
        "{name}: {:?}",
        events.data
    );
    assert!(events.is_done(), "{name}: {:?}", events.data);
    if error.is_some() {
        assert!(
            events.finish_reasons().is_empty(),
            "{name}: {:?}",
            events.data
        );
    }
    let charge = gateway.charge(&customer).await;
    is_charged(name, &charge, end, source, tokens_cost(charged));
    let left = gateway.settled_balance(&customer).await;
    assert_eq!(
        left,
        credits(PLENTY).checked_sub(tokens_cost(charged)).unwrap(),
        "{name}"
    );
    // What the client was told is what was charged.
    let shown = events
        .usages()
        .pop()
        .or_else(|| events.error().map(|e| e["usage"].clone()));
    let cost = shown.unwrap_or_else(|| panic!("{name}: no usage"))["cost"].clone();
    assert_eq!(cost, charge["charged"], "{name}");
}

#[track_caller]
fn is_charged(name: &str, charge: &Value, end: &str, source: &str, charged: Credits) {
    assert_eq!(charge["end"], end, "{name}: {charge:#}");
    assert_eq!(charge["usage_source"], source, "{name}: {charge:#}");
    assert_eq!(charge["charged"], json!(charged), "{name}: {charge:#}");
    assert_eq!(charge["house_loss"], "0", "{name}: {charge:#}");
}

fn begun(tokens: u64) -> Script {
    Script::new().role().tokens(tokens)
}

#[tokio::test(flavor = "multi_thread")]
async fn completed_streams() {
    let completed = |name, script, source, charged| Row {
        name,
        script,
        delivered: 4,
        error: None,
        end: "completed",
        source,
        charged,
    };
    let said = usage(PROMPT_TOKENS, 6);
    let counted = PROMPT_TOKENS + 4;
    let reported = PROMPT_TOKENS + 6;
    let word = r#"[{"index":0,"delta":{"content":""},"finish_reason":"stop"}]"#;
    let finished = || begun(4).finish("stop");
    let rows = [
        completed("reported", finished().usage_json(&said).done(), "reported", reported),
        completed("d3_nothing_reported", finished().done(), "counted", counted),
        completed("no_done_but_a_finish", finished().usage_json(&said), "reported", reported),
        completed("neither_done_nor_usage", finished(), "counted", counted),
        completed("done_twice", finished().usage_json(&said).done().done(), "reported", reported),
        completed(
            "more_after_done",
            finished().usage_json(&said).done().text(" more").error_event("late"),
            "reported",
            reported,
        ),
        completed(
            "the_last_event_without_its_blank_line",
            finished().usage_json(&said).raw("data: [DONE]\n"),
            "reported",
            reported,
        ),
        completed(
            "p2_usage_in_a_chunk_with_choices",
            begun(4).chunk(word, Some(&said)).done(),
            "reported",
            reported,
        ),
        completed(
            "repeated_usage_is_the_last_one",
            finished()
                .usage_json(&usage(PROMPT_TOKENS, 2))
                .usage_json(&said)
                .usage_json(&said)
                .done(),
            "reported",
            reported,
        ),
        completed("explicit_zero_is_zero", finished().usage_json(&usage(0, 0)).done(), "reported", 0),
        completed(
            "negative_usage",
            finished()
                .usage_json(r#"{"prompt_tokens":-5,"completion_tokens":-7,"total_tokens":-12}"#)
                .done(),
            "counted",
            counted,
        ),
        completed(
            "usage_of_strings",
            finished()
                .usage_json(r#"{"prompt_tokens":"9","completion_tokens":"6","total_tokens":"15"}"#)
                .done(),
            "counted",
            counted,
        ),
        completed(
            "absurd_usage",
            finished()
                .usage_json(
                    r#"{"prompt_tokens":1000000000000000000,"completion_tokens":1000000000000000000,"total_tokens":2000000000000000000}"#,
                )
                .done(),
            "counted",
            counted,
        ),
        completed("usage_null", finished().usage_json("null").done(), "counted", counted),
        completed("usage_of_nothing", finished().usage_json("{}").done(), "counted", counted),
    ];
    let gateway = Gateway::start(Books::Sqlite).await;
    for row in rows {
        ends_as(&gateway, row).await;
    }
    let text = gateway.metrics().await;
    let faults = metric(&text, "tollway_usage_faults_total{provider=\"mock\"}");
    assert_eq!(faults, Some(3.0), "{text}");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cumulative_usage_is_the_last_and_never_the_sum() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let script = Script::new()
        .role()
        .words_with_running_usage("one two three four")
        .finish("stop")
        .done();
    let row = Row {
        name: "cumulative",
        script,
        delivered: 4,
        error: None,
        end: "completed",
        source: "reported",
        // The mock's own rule: the words of the prompt, three a message, four of output.
        charged: 2 + 3 + 4,
    };
    ends_as(&gateway, row).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_streams_that_fail_upstream_after_output_say_so_and_cost_what_came() {
    let failed = |name, script, error| Row {
        name,
        script,
        delivered: 3,
        error: Some(error),
        end: "upstream_failed",
        source: "counted",
        charged: PROMPT_TOKENS + 3,
    };
    let rows = [
        failed(
            "cut_in_order",
            begun(3).gate("cut_in_order").cut(Cut::Close),
            "upstream_error",
        ),
        failed(
            "reset",
            begun(3).gate("reset").cut(Cut::Reset),
            "upstream_error",
        ),
        failed("ends_without_a_finish", begun(3), "upstream_error"),
        failed(
            "an_error_event",
            begun(3).error_event("SECRET-OF-THE-PROVIDER"),
            "upstream_error",
        ),
        failed(
            "an_event_named_error",
            begun(3).raw("event: error\ndata: {\"type\":\"error\",\"message\":\"SECRET\"}\n\n"),
            "upstream_error",
        ),
        failed(
            "not_json",
            begun(3).data("{\"id\":\"x\",\"choi").tokens(9).done(),
            "upstream_error",
        ),
        failed(
            "not_an_object",
            begun(3).data("[1,2]").tokens(9).done(),
            "upstream_error",
        ),
        failed(
            "not_text",
            begun(3).raw(&b"data: \xff\xfe\n\n"[..]).done(),
            "upstream_error",
        ),
        failed(
            "an_event_without_end",
            begun(3)
                .raw(format!("data: {}", "x".repeat(2 << 20)))
                .gate("never"),
            "upstream_error",
        ),
    ];
    let gateway = Gateway::start(Books::Sqlite).await;
    for row in rows {
        ends_as(&gateway, row).await;
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_a_stream_that_stalls_is_ended_after_the_idle_time() {
    let gateway = Gateway::start_with(Books::Sqlite, |settings| {
        // The wait for the first byte is longer, and over when the first byte has come.
        settings.idle_timeout = Duration::from_millis(500);
    })
    .await;
    let row = Row {
        name: "stalls",
        script: begun(3).stall(),
        delivered: 3,
        error: Some("upstream_timeout"),
        end: "upstream_failed",
        source: "counted",
        charged: PROMPT_TOKENS + 3,
    };
    ends_as(&gateway, row).await;
    let hung_up = gateway
        .provider
        .wait_for(|stats| stats.streams_aborted == 1);
    hung_up.await.unwrap();
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_comments_is_ended_after_the_time_for_output() {
    let gateway = Gateway::start_with(Books::Sqlite, |settings| {
        settings.output_timeout = Duration::from_millis(500);
    })
    .await;
    // Bytes never stop, and some of them are events; none has output.
    let nothing = |script: mock_provider::Script, _| {
        let event = ": still at it\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{}}]}\n\n";
        script.raw(event).pause(Duration::from_millis(20))
    };
    let row = Row {
        name: "comments",
        script: (0..500).fold(begun(3), nothing).stall(),
        delivered: 3,
        error: Some("upstream_timeout"),
        end: "upstream_failed",
        source: "counted",
        charged: PROMPT_TOKENS + 3,
    };
    ends_as(&gateway, row).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_inside_a_stream_has_the_contracts_form_and_no_secret() {
    let gateway = Gateway::start(Books::Sqlite).await;
    for ask in [true, false] {
        let script = begun(3).error_event("SECRET-OF-THE-PROVIDER");
        gateway.provider.script("m", script);
        let customer = gateway.customer(PLENTY).await;
        let body = chat(
            "m",
            json!({"stream": true, "stream_options": {"include_usage": ask}}),
        );
        let events = gateway.stream(&customer, body).await.rest().await;
        let error = events.error().unwrap();
        assert_eq!(error["status"], 502);
        assert_eq!(error["type"], "server_error");
        assert_eq!(error["usage"]["completion_tokens"], 3);
        assert!(error["message"].as_str().unwrap().len() > 20);
        assert_eq!(events.usages().len(), usize::from(ask), "{:?}", events.data);
        assert!(
            !format!("{events:?}").contains("SECRET"),
            "{:?}",
            events.data
        );
        assert!(events.is_done());
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l4_streams_that_fail_before_any_output_keep_their_status_and_cost_nothing() {
    let html = "<html><body>502 Bad Gateway</body></html>";
    let rows = [
        (
            "reset",
            Script::new().cut_before_head(Cut::Reset),
            502,
            "upstream_error",
        ),
        (
            "closed",
            Script::new().cut_before_head(Cut::Close),
            502,
            "upstream_error",
        ),
        ("empty", Script::new(), 502, "upstream_error"),
        (
            "cut at once",
            Script::new().cut(Cut::Close),
            502,
            "upstream_error",
        ),
        (
            "garbage",
            Script::new().data("{no json"),
            502,
            "upstream_error",
        ),
        (
            "an error event",
            Script::new().error_event("SECRET"),
            502,
            "upstream_error",
        ),
        (
            "html with 200",
            Script::new().header("content-type", "text/html").raw(html),
            502,
            "upstream_error",
        ),
        (
            "html as events",
            Script::new().raw(html),
            502,
            "upstream_error",
        ),
        (
            "never a head",
            Script::new().stall_before_head(),
            504,
            "upstream_timeout",
        ),
        (
            "never an event",
            Script::new().stall(),
            504,
            "upstream_timeout",
        ),
        (
            "comments alone",
            Script::new().raw(": wait\n\n").stall(),
            504,
            "upstream_timeout",
        ),
    ];
    let gateway = Gateway::start_with(Books::Sqlite, |settings| {
        settings.first_byte_timeout = Duration::from_millis(500);
    })
    .await;
    for (name, script, status, code) in rows {
        gateway.provider.script("m", script);
        let customer = gateway.customer(PLENTY).await;
        let answer = gateway.chat(&customer, streamed("m")).await;
        assert_eq!(
            (answer.status, answer.code()),
            (status, code.into()),
            "{name}"
        );
        assert!(!format!("{:?}", answer.body).contains("SECRET"), "{name}");
        let charge = gateway.charge(&customer).await;
        is_charged(name, &charge, "upstream_failed", "counted", Credits::ZERO);
        assert_eq!(
            gateway.settled_balance(&customer).await,
            credits(PLENTY),
            "{name}"
        );
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l4_a_stream_that_fails_after_its_role_alone_costs_nothing() {
    let gateway = Gateway::start(Books::Sqlite).await;
    gateway
        .provider
        .script("m", Script::new().role().gate("go").cut(Cut::Close));
    let customer = gateway.customer(PLENTY).await;
    let mut stream = gateway.stream(&customer, streamed("m")).await;
    let _ = stream.next().await.unwrap();
    gateway.provider.open("go");
    let events = stream.rest().await;
    assert_eq!(events.error().unwrap()["code"], "upstream_error");
    let charge = gateway.charge(&customer).await;
    is_charged("role", &charge, "upstream_failed", "counted", Credits::ZERO);
    gateway.finish().await;
}

/// Hangs up after `read` tokens; the provider has said that many and waits.
async fn client_leaves(gateway: &Gateway, customer: &Customer, read: u64) {
    let mut stream = gateway.stream(customer, streamed("m")).await;
    stream.read_tokens(read).await;
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_d2_a_client_that_leaves_an_idle_stream_pays_prompt_and_what_came() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        gateway.provider.script("m", begun(7).gate("never"));
        let customer = gateway.customer(PLENTY).await;
        client_leaves(&gateway, &customer, 7).await;
        let hung_up = gateway
            .provider
            .wait_for(|stats| stats.streams_aborted == 1);
        hung_up.await.unwrap();
        let charge = gateway.charge(&customer).await;
        is_charged(
            "idle",
            &charge,
            "client_gone",
            "counted",
            tokens_cost(PROMPT_TOKENS + 7),
        );
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_d4_a_client_that_leaves_a_busy_stream_pays_for_at_least_what_it_read() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let script = Script::new().role().endless(Duration::from_millis(1));
    gateway.provider.script("m", script);
    let customer = gateway.customer(PLENTY).await;
    client_leaves(&gateway, &customer, 40).await;
    let stats = gateway
        .provider
        .wait_for(|stats| stats.streams_aborted == 1);
    let said = stats.await.unwrap().chunks;
    let charge = gateway.charge(&customer).await;
    assert_eq!(charge["end"], "client_gone");
    let output = charge["usage"]["completion_tokens"].as_u64().unwrap();
    assert!((40..=said).contains(&output), "{output} of {said}");
    assert_eq!(
        charge["charged"],
        json!(tokens_cost(PROMPT_TOKENS + output))
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_a_client_that_leaves_before_the_first_byte_pays_the_prompt() {
    let gateway = Gateway::start(Books::Sqlite).await;
    for (name, script) in [
        ("no head", Script::new().gate_before_head("never")),
        ("no event", Script::new().gate("never")),
    ] {
        gateway.provider.script("m", script);
        let before = gateway.provider.stats();
        let customer = gateway.customer(PLENTY).await;
        let sending = tokio::spawn(gateway.chat_request(&customer, streamed("m")).send());
        let waits = gateway.provider.wait_for(|stats| stats.at_gates == 1);
        waits.await.unwrap();
        sending.abort();
        let left = gateway.provider.wait_for(|stats| {
            stats.requests_aborted + stats.streams_aborted
                > before.requests_aborted + before.streams_aborted
        });
        left.await.unwrap();
        let charge = gateway.charge(&customer).await;
        is_charged(
            name,
            &charge,
            "client_gone",
            "counted",
            tokens_cost(PROMPT_TOKENS),
        );
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d8_a_client_that_closes_right_after_done_pays_in_full() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let said = usage(PROMPT_TOKENS, 6);
    gateway
        .provider
        .script("m", begun(4).finish("stop").usage_json(&said).done());
    let customer = gateway.customer(PLENTY).await;
    let mut stream = gateway.stream(&customer, streamed("m")).await;
    while stream.next().await.unwrap() != "[DONE]" {}
    drop(stream);
    let charge = gateway.charge(&customer).await;
    is_charged(
        "done",
        &charge,
        "completed",
        "reported",
        tokens_cost(PROMPT_TOKENS + 6),
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drained_streams_are_charged_by_the_providers_figure() {
    let gateway = Gateway::start_with(Books::Sqlite, |settings| {
        settings.client_gone = ClientGonePolicy::Drain;
    })
    .await;
    let said = usage(PROMPT_TOKENS, 60);
    let script = begun(5)
        .gate("on")
        .tokens(20)
        .finish("stop")
        .usage_json(&said)
        .done();
    gateway.provider.script("m", script);
    let customer = gateway.customer(PLENTY).await;
    client_leaves(&gateway, &customer, 5).await;
    tests::eventually("the gateway sees that the client is gone", async || {
        let text = gateway.metrics().await;
        (metric(&text, "tollway_holds_open") == Some(1.0)).then_some(())
    })
    .await;
    gateway.provider.open("on");
    let whole = gateway
        .provider
        .wait_for(|stats| stats.streams_completed == 1);
    whole.await.unwrap();
    let charge = gateway.charge(&customer).await;
    is_charged(
        "drain",
        &charge,
        "client_gone",
        "reported",
        tokens_cost(PROMPT_TOKENS + 60),
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_ends_in_time_and_never_takes_more_than_there_is() {
    let gateway = Gateway::start_with(Books::Sqlite, |settings| {
        settings.client_gone = ClientGonePolicy::Drain;
        settings.drain_max = Duration::from_millis(300);
    })
    .await;
    gateway.provider.script("m", begun(5).stall());
    let customer = gateway.customer(PLENTY).await;
    client_leaves(&gateway, &customer, 5).await;
    let charge = gateway.charge(&customer).await;
    is_charged(
        "bounded",
        &charge,
        "client_gone",
        "counted",
        tokens_cost(PROMPT_TOKENS + 5),
    );
    let hung_up = gateway
        .provider
        .wait_for(|stats| stats.streams_aborted == 1);
    hung_up.await.unwrap();

    let script = Script::new().role().endless(Duration::from_micros(100));
    gateway.provider.script("m", script);
    let customer = gateway.customer(tokens_cost(PROMPT_TOKENS + 30)).await;
    client_leaves(&gateway, &customer, 5).await;
    let charge = gateway.charge(&customer).await;
    assert_eq!(
        charge["charged"],
        json!(tokens_cost(PROMPT_TOKENS + 30)),
        "{charge}"
    );
    assert_eq!(gateway.settled_balance(&customer).await, Credits::ZERO);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_holds_the_provider_back_and_pays_for_a_bounded_part() {
    let gateway = Gateway::start(Books::Sqlite).await;
    // 96 MiB in all: far beyond what every buffer on the way takes in.
    let text = "word ".repeat(12_000);
    let chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]});
    let event = Bytes::from(format!("data: {chunk}\n\n"));
    let mut script = Script::new().role();
    let events = (96 << 20) / event.len();
    for _ in 0..events {
        script = script.raw(event.clone());
    }
    gateway.provider.script("m", script.gate("all was sent"));
    let customer = gateway.customer("1000").await;
    let request = gateway.chat_request(&customer, streamed("m"));
    let response = in_time("the head", request.send()).await.unwrap();
    assert_eq!(response.status(), 200);
    let held = || gateway.app().ledger.stats().held;
    let nothing = tokens_cost(PROMPT_TOKENS);
    unchanging("what the stream holds", held, |held| held > nothing).await;
    assert_eq!(
        gateway.provider.stats().at_gates,
        0,
        "the provider was not held back"
    );
    drop(response);
    let charge = gateway.charge(&customer).await;
    assert_eq!(charge["end"], "client_gone");
    let output = charge["usage"]["completion_tokens"].as_u64().unwrap();
    let all = count_tokens(&text) * events as u64;
    assert!(output > 0 && output < all / 2, "{output} of {all}");
    let hung_up = gateway
        .provider
        .wait_for(|stats| stats.streams_aborted == 1);
    hung_up.await.unwrap();
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_a_stop_lets_streams_end_within_the_grace() {
    let mut gateway = Gateway::start(Books::Sqlite).await;
    gateway
        .provider
        .script("m", begun(3).gate("go").tokens(4).finish("stop").done());
    let customer = gateway.customer(PLENTY).await;
    let mut stream = gateway.stream(&customer, streamed("m")).await;
    stream.read_tokens(3).await;
    let stopping = gateway.begin_stop().unwrap();
    tests::eventually("nobody new is let in", async || {
        let connect = tokio::net::TcpStream::connect(gateway.addr());
        connect.await.is_err().then_some(())
    })
    .await;
    gateway.provider.open("go");
    let events = stream.rest().await;
    assert_eq!(events.error(), None);
    assert!(events.is_done());
    in_time("the stop", stopping).await.unwrap().unwrap();
    let gateway = gateway.restart().await;
    let charge = gateway.charge(&customer).await;
    is_charged(
        "grace",
        &charge,
        "completed",
        "counted",
        tokens_cost(PROMPT_TOKENS + 3 + 4),
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_a_stop_cuts_streams_after_the_grace_and_writes_what_they_cost() {
    for books in Books::ALL {
        let mut gateway = Gateway::start_with(books, |settings| {
            settings.shutdown_grace = Duration::from_millis(200);
        })
        .await;
        gateway.provider.script("m", begun(3).gate("never"));
        let customer = gateway.customer(PLENTY).await;
        let mut stream = gateway.stream(&customer, streamed("m")).await;
        stream.read_tokens(3).await;
        let stopping = gateway.begin_stop().unwrap();
        let events = stream.rest().await;
        let error = events.error().unwrap();
        assert_eq!(
            (&error["code"], &error["status"]),
            (&json!("unavailable"), &json!(503))
        );
        assert_eq!(error["usage"]["completion_tokens"], 3);
        assert!(events.is_done() && events.finish_reasons().is_empty());
        in_time("the stop", stopping).await.unwrap().unwrap();
        let gateway = gateway.restart().await;
        let charge = gateway.charge(&customer).await;
        is_charged(
            "cut",
            &charge,
            "gateway_lost",
            "counted",
            tokens_cost(PROMPT_TOKENS + 3),
        );
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_c7_reported_usage_above_the_hold_takes_what_is_there_and_never_more() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let above = PROMPT_TOKENS + 5_000;
        let said = usage(PROMPT_TOKENS, 5_000);
        gateway
            .provider
            .script("m", begun(4).finish("stop").usage_json(&said).done());
        // There: extended from the balance.
        let rich = gateway.customer(PLENTY).await;
        let events = gateway.stream(&rich, streamed("m")).await.rest().await;
        assert_eq!(events.error(), None);
        let charge = gateway.charge(&rich).await;
        is_charged(
            "extended",
            &charge,
            "completed",
            "reported",
            tokens_cost(above),
        );
        // Not there: the rest is the house's.
        let had = tokens_cost(PROMPT_TOKENS + 100);
        let poor = gateway.customer(had).await;
        let events = gateway.stream(&poor, streamed("m")).await.rest().await;
        assert_eq!(events.error(), None, "it was delivered: {:?}", events.data);
        assert_eq!(events.usages().pop().unwrap()["cost"], json!(had));
        let charge = gateway.charge(&poor).await;
        assert_eq!(charge["cost"], json!(tokens_cost(above)));
        assert_eq!(charge["charged"], json!(had));
        let loss = tokens_cost(above).checked_sub(had).unwrap();
        assert_eq!(charge["house_loss"], json!(loss));
        assert_eq!(gateway.settled_balance(&poor).await, Credits::ZERO);
        // The next top-up is not eaten by it.
        gateway.top_up(&poor, credits("1")).await;
        assert_eq!(gateway.settled_balance(&poor).await, credits("1"));
        let text = gateway.metrics().await;
        let lost = text
            .lines()
            .find(|line| line.starts_with("tollway_house_loss_credits_total{"));
        assert!(
            lost.is_some_and(|line| line.ends_with(&loss.to_string())),
            "{lost:?}"
        );
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_p3_cached_and_reasoning_tokens_are_charged_once_at_their_own_price() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let said = json!({"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 80},
        "completion_tokens_details": {"reasoning_tokens": 30}});
    let later = usage(100, 50);
    let script = begun(4)
        .finish("stop")
        .usage_json(&said.to_string())
        // A later chunk without the split does not wipe it.
        .usage_json(&later)
        .done();
    gateway.provider.script("cached", script);
    let customer = gateway.customer(PLENTY).await;
    let _ = gateway
        .stream(&customer, streamed("cached"))
        .await
        .rest()
        .await;
    let charge = gateway.charge(&customer).await;
    // 20 fresh at 4, 80 cached at 1, 20 visible at 8, 30 reasoning at 16.
    let nanos = 1_000 * (20 * 4 + 80 + 20 * 8 + 30 * 16);
    is_charged(
        "split",
        &charge,
        "completed",
        "reported",
        Credits::from_nanos(nanos),
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cost_is_rounded_up_once() {
    let gateway = Gateway::start(Books::Sqlite).await;
    // 7 tokens at 0.000001 and 5 at 0.333333333 credits per million: 0.007 + 1666.666665 nano.
    let said = usage(7, 5);
    gateway
        .provider
        .script("odd", begun(5).finish("stop").usage_json(&said).done());
    let customer = gateway.customer(PLENTY).await;
    let _ = gateway
        .stream(&customer, streamed("odd"))
        .await
        .rest()
        .await;
    let charge = gateway.charge(&customer).await;
    is_charged(
        "odd",
        &charge,
        "completed",
        "reported",
        Credits::from_nanos(1_667),
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_choice_is_counted_and_cut() {
    let gateway = Gateway::start(Books::Sqlite).await;
    gateway
        .provider
        .script("m", begun(10).finish("stop").done());
    let body = |n| {
        chat(
            "m",
            json!({"stream": true, "n": n, "stream_options": {"include_usage": true}}),
        )
    };
    let customer = gateway.customer(PLENTY).await;
    let events = gateway.stream(&customer, body(3)).await.rest().await;
    assert_eq!(events.finish_reasons().len(), 3);
    let charge = gateway.charge(&customer).await;
    is_charged(
        "three",
        &charge,
        "completed",
        "counted",
        tokens_cost(PROMPT_TOKENS + 30),
    );

    let customer = gateway.customer(tokens_cost(PROMPT_TOKENS + 21)).await;
    let events = gateway.stream(&customer, body(3)).await.rest().await;
    assert_eq!(events.error().unwrap()["usage"]["completion_tokens"], 21);
    assert_eq!(gateway.settled_balance(&customer).await, Credits::ZERO);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tool_calls_are_counted_where_nothing_is_reported() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let arguments = r#"{"city":"Paris","days":3}"#;
    let script = Script::new()
        .role()
        .tool_call("weather", arguments, 4)
        .finish("tool_calls");
    gateway.provider.script("m", script.done());
    let customer = gateway.customer(PLENTY).await;
    let events = gateway.stream(&customer, streamed("m")).await.rest().await;
    assert_eq!(events.finish_reasons(), ["tool_calls"]);
    let charge = gateway.charge(&customer).await;
    assert_eq!(charge["usage_source"], "counted");
    let output = charge["usage"]["completion_tokens"].as_u64().unwrap();
    let least = count_tokens(arguments);
    let most = count_tokens(arguments) + count_tokens("weather") + 8;
    assert!(
        (least..=most).contains(&output),
        "{output}, arguments alone are {least}"
    );
    gateway.finish().await;
}
