//! Any way of cutting a recorded stream into pieces gives the client the same chunks.

use mock_provider::Script;
use proptest::{
    prelude::{Strategy as _, any, prop},
    strategy::ValueTree as _,
    test_runner::{Config, TestRunner},
};
use serde_json::json;
use tests::{Books, Gateway, PROMPT_TOKENS, chat, tokens_cost};

/// As a provider's stream looks on a bad day: every kind of line end, comments, fields that mean
/// nothing, data over several lines, an id, a byte-order mark, an escape and a character of four bytes.
const RECORDED: &str = concat!(
    "\u{feff}: welcome\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
    "data:{\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Crab \u{1F980}\"}}]}\r\n\r\n",
    ": keep-alive\r\r",
    "id: 7\nretry: 10\nnonsense\ndata: {\"id\":\"c\",\ndata: \"choices\":[{\"index\":0,\ndata: \"delta\":{\"content\":\" and \\ud83e\\udd80\"}}]}\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" caf\u{e9}\"}}]}\r\r",
    "event: message\ndata: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":7,\"total_tokens\":16}}\n\n",
    "data: [DONE]\n\n",
);

/// The recording in pieces, each on the wire before the next.
fn in_pieces(ends: &[usize]) -> Script {
    let bytes = RECORDED.as_bytes();
    let mut script = Script::new();
    let mut start = 0;
    for (place, end) in ends.iter().copied().chain([bytes.len()]).enumerate() {
        if place > 0 {
            // An open gate makes the connection write out what it has.
            script = script.gate("open");
        }
        script = script.raw(bytes[start..end].to_vec());
        start = end;
    }
    script
}

async fn read(gateway: &Gateway, script: Script) -> Vec<String> {
    gateway.provider.script("m", script);
    let customer = gateway.customer("1").await;
    let body = chat(
        "m",
        json!({"stream": true, "stream_options": {"include_usage": true}}),
    );
    let events = gateway.stream(&customer, body).await.rest().await;
    let charge = gateway.charge(&customer).await;
    assert_eq!(charge["charged"], json!(tokens_cost(PROMPT_TOKENS + 7)));
    events.data
}

#[tokio::test(flavor = "multi_thread")]
async fn any_split_of_a_recorded_stream_gives_the_same_chunks() {
    let gateway = Gateway::start(Books::Sqlite).await;
    gateway.provider.open("open");
    let whole = read(&gateway, in_pieces(&[])).await;
    let texts: Vec<String> = whole
        .iter()
        .filter_map(|data| serde_json::from_str::<serde_json::Value>(data).ok())
        .filter_map(|chunk| Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned()))
        .collect();
    assert_eq!(texts.concat(), "Crab \u{1F980} and \u{1F980} caf\u{e9}");
    assert_eq!(
        (whole.len(), whole.last().map(String::as_str)),
        (7, Some("[DONE]"))
    );
    // One byte at a time, then every single place, in steps, then places at random.
    let last = RECORDED.len();
    let single: Vec<usize> = (1..last).collect();
    assert_eq!(read(&gateway, in_pieces(&single)).await, whole);
    for end in (1..last).step_by(7) {
        assert_eq!(
            read(&gateway, in_pieces(&[end])).await,
            whole,
            "cut at {end}"
        );
    }
    let ends = prop::collection::vec(any::<prop::sample::Index>(), 0..12);
    let ends = ends.prop_map(move |places| {
        let mut ends: Vec<usize> = places
            .iter()
            .map(|place| 1 + place.index(last - 1))
            .collect();
        ends.sort_unstable();
        ends.dedup();
        ends
    });
    let mut runner = TestRunner::new(Config::default());
    for _ in 0..60 {
        let ends = ends.new_tree(&mut runner).unwrap().current();
        assert_eq!(
            read(&gateway, in_pieces(&ends)).await,
            whole,
            "cut at {ends:?}"
        );
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_an_event_of_megabytes_arrives_whole() {
    let gateway = Gateway::start_with(Books::Sqlite, |settings| {
        settings.event_bytes_max = 17 << 20;
    })
    .await;
    let text = "word ".repeat(16 << 20 >> 3);
    let script = Script::new().role().text(&text).finish("stop").done();
    gateway.provider.script("m", script);
    let customer = gateway.customer("1000").await;
    let answer = gateway
        .chat(&customer, chat("m", json!({"stream": true})))
        .await
        .expect(200);
    let body = std::str::from_utf8(&answer.body).unwrap();
    assert!(body.contains(&text) && body.ends_with("data: [DONE]\n\n"));
    let charge = gateway.charge(&customer).await;
    assert_eq!(
        charge["usage"]["completion_tokens"],
        tests::count_tokens(&text)
    );
    gateway.finish().await;
}
