//! What providers report, the buckets that it is, and what it costs: every row of a table through the decoders and the built-in prices.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what failed by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use billing::ServiceTier;
use bytes::Bytes;
use dialect::{
    ClientDialect, Dialect, Endpoint, ForwardedAnswer, Origin, Pair, Quirks, SseEvent, UsageFault,
};
use gateway::provider_file::{BUILTIN_PROVIDERS, ProviderFile};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokens::{Bucket, Usage};

/// When a row is charged that does not say so: a Wednesday, in nobody's cheaper hours.
const USUALLY: &str = "2026-11-25T08:00:00Z";
const TABLE: &str = include_str!("usage_costs/table.txt");
/// What a report is read as: `None` where there is none.
type Read = Option<Result<Usage, UsageFault>>;

/// A row of the table.
struct Row<'a> {
    line: &'a str,
    provider: &'a str,
    model: &'a str,
    tier: ServiceTier,
    /// When it was admitted.
    moment: Timestamp,
    /// The operator's own price, where nothing is built in.
    own: Option<&'a str>,
    endpoint: &'a str,
    /// Where a stream has the object, if not at its usual place; of a response, what it did besides.
    place: &'a str,
    usage: &'a str,
    expected: Usage,
    nanos: i64,
}

impl<'a> Row<'a> {
    fn read(line: &'a str) -> Self {
        let columns: Vec<&str> = line.split(" | ").collect();
        let [named, endpoint, _, usage, buckets, nanos] = columns[..] else {
            panic!("not six columns: {line}");
        };
        let (named, own) = match named.split_once(" at ") {
            Some((named, own)) => (named, Some(own)),
            None => (named, None),
        };
        let (named, moment) = named.split_once(" on ").unwrap_or((named, USUALLY));
        let (full, tier) = named.split_once('@').unwrap_or((named, "standard"));
        let (provider, model) = full.split_once('/').unwrap();
        let (endpoint, place) = endpoint.split_once('@').unwrap_or((endpoint, ""));
        let mut expected = Usage::default();
        for (name, count) in buckets
            .split_whitespace()
            .map(|b| b.split_once('=').unwrap())
        {
            let known = Bucket::ALL.into_iter().find(|b| b.as_str() == name);
            *expected.get_mut(known.unwrap()) = count.parse().unwrap();
        }
        Self {
            line,
            provider,
            model,
            tier: ServiceTier::parse(tier).unwrap(),
            moment: moment.parse().unwrap(),
            own,
            endpoint,
            place,
            usage,
            expected,
            nanos: nanos.parse().unwrap(),
        }
    }

    /// What each way of reading makes of it, and the way's name.
    fn readings(&self, dialect: Dialect, quirks: &Quirks) -> Vec<(&'static str, Read)> {
        let report = || serde_json::from_str::<Value>(self.usage).unwrap();
        match self.endpoint {
            "chat" | "completions" => {
                let pair = Pair::new(ClientDialect::Chat, dialect, quirks);
                vec![
                    ("plain", plain(pair, dialect, quirks, &report())),
                    ("streamed", self.streamed(pair, dialect, quirks, &report())),
                ]
            }
            "messages" => [
                (ClientDialect::Chat, "plain", "streamed"),
                (
                    ClientDialect::Messages,
                    "plain, as it is",
                    "streamed, as it is",
                ),
            ]
            .into_iter()
            .flat_map(|(client, a, b)| {
                let pair = Pair::new(client, dialect, quirks);
                [
                    (a, plain(pair, dialect, quirks, &report())),
                    (b, self.streamed(pair, dialect, quirks, &report())),
                ]
            })
            .collect(),
            "responses" => {
                let pair = Pair::new(ClientDialect::Responses, dialect, quirks);
                assert!(pair.is_native(), "{}", self.line);
                let body = Bytes::from(response(self.place, &report()).to_string());
                let answer = pair.decode(body, quirks, Origin::default()).unwrap();
                let streamed = response_events(self.place, &report());
                vec![
                    ("plain, as it is", answer.usage()),
                    ("streamed, as it is", self.pushed(pair, quirks, streamed)),
                ]
            }
            endpoint => {
                let known: Endpoint = serde_json::from_value(json!(endpoint)).unwrap();
                let body = match self.usage.strip_prefix("meta:") {
                    Some(meta) => format!(r#"{{"id":"x","meta":{meta}}}"#),
                    None => format!(r#"{{"data":[],"usage":{}}}"#, self.usage),
                };
                let answer = ForwardedAnswer::decode(known, Bytes::from(body));
                vec![("forwarded", answer.unwrap().usage())]
            }
        }
    }

    fn streamed(&self, pair: Pair, dialect: Dialect, quirks: &Quirks, report: &Value) -> Read {
        self.pushed(pair, quirks, events(dialect, self.place, report))
    }

    fn pushed(&self, pair: Pair, quirks: &Quirks, events: Vec<(&'static str, Value)>) -> Read {
        let mut decoder = pair.decoder(Arc::new(quirks.clone()), Origin::default());
        let mut out = Vec::new();
        for (name, data) in events {
            let event = SseEvent {
                event: (!name.is_empty()).then(|| Bytes::from(name)),
                ..SseEvent::data(Bytes::from(data.to_string()))
            };
            let pushed = decoder.push(event, &mut out);
            pushed.unwrap_or_else(|error| panic!("{error}: {data}: {}", self.line));
        }
        decoder.usage()
    }

    /// What the row's usage costs, in nano-credits.
    fn cost(&self, files: &BTreeMap<String, ProviderFile>) -> i64 {
        let file = &files[self.provider];
        let model = file.models.iter().find(|model| model.id == self.model);
        let mut model = model
            .unwrap_or_else(|| panic!("no such model: {}", self.line))
            .clone();
        if let Some((prompt, completion)) = self.own.and_then(|own| own.split_once('/')) {
            let own = format!(r#"price = {{ prompt = "{prompt}", completion = "{completion}" }}"#);
            model.override_price(toml::from_str(&own).unwrap());
        }
        let book = model.book().unwrap();
        let offer = book.at(self.moment.as_second());
        let offer = offer.unwrap_or_else(|| panic!("no price: {}", self.line));
        let priced = offer
            .of(self.tier)
            .unwrap_or_else(|| panic!("no such tier: {}", self.line));
        priced.price.cost(&self.expected).unwrap().nanos()
    }
}

fn plain(pair: Pair, dialect: Dialect, quirks: &Quirks, report: &Value) -> Read {
    let body = Bytes::from(answer(dialect, report).to_string());
    pair.decode(body, quirks, Origin::default())
        .unwrap()
        .usage()
}

/// An answer with this report. Source of the shapes: the providers' API references.
fn answer(dialect: Dialect, report: &Value) -> Value {
    match dialect {
        Dialect::OpenAi => json!({
            "id": "x", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
            "usage": report,
        }),
        Dialect::Anthropic | Dialect::AnthropicVertex => json!({
            "id": "x", "type": "message", "role": "assistant", "model": "m",
            "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn", "stop_sequence": null,
            "usage": report,
        }),
        Dialect::Gemini => json!({
            "candidates": [{"content": {"role": "model", "parts": [{"text": "hi"}]}, "finishReason": "STOP", "index": 0}],
            "usageMetadata": report, "modelVersion": "m", "responseId": "x",
        }),
        Dialect::Bedrock => json!({
            "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}}, "stopReason": "end_turn",
            "usage": report, "metrics": {"latencyMs": 1},
        }),
        Dialect::Cohere => json!({
            "id": "x", "finish_reason": "COMPLETE",
            "message": {"role": "assistant", "content": [{"type": "text", "text": "hi"}]}, "usage": report,
        }),
        Dialect::Ollama => {
            let mut line = json!({
                "model": "m", "created_at": "2026-01-31T00:00:00Z", "message": {"role": "assistant", "content": "hi"},
                "done": true, "done_reason": "stop",
            });
            line.as_object_mut()
                .unwrap()
                .extend(report.as_object().unwrap().clone());
            line
        }
    }
}

/// A response with this report, by OpenAI's API reference, and as many searches as `place` says.
fn response(place: &str, report: &Value) -> Value {
    let count = place.strip_prefix("searches=").unwrap_or("0");
    let search = json!({"id": "ws_x", "type": "web_search_call", "status": "completed",
        "action": {"type": "search", "query": "q", "sources": []}});
    let mut output = vec![search; count.parse().unwrap()];
    output.push(
        json!({"id": "msg_x", "type": "message", "status": "completed", "role": "assistant",
        "content": [{"type": "output_text", "text": "hi", "annotations": []}]}),
    );
    json!({"id": "resp_x", "object": "response", "created_at": 1, "status": "completed", "error": null,
        "incomplete_details": null, "model": "m", "output": output, "usage": report})
}

/// The events of the same as a stream.
fn response_events(place: &str, report: &Value) -> Vec<(&'static str, Value)> {
    let whole = response(place, report);
    let mut begun = whole.clone();
    begun["status"] = json!("in_progress");
    begun["output"] = json!([]);
    begun["usage"] = Value::Null;
    let mut events = vec![("", json!({"type": "response.created", "response": begun}))];
    for (index, item) in whole["output"].as_array().unwrap().iter().enumerate() {
        let mut begun = item.clone();
        begun["status"] = json!("in_progress");
        if begun["content"].is_array() {
            begun["content"] = json!([]);
        }
        let kinds = [
            ("response.output_item.added", &begun),
            ("response.output_item.done", item),
        ];
        for (kind, item) in kinds {
            let event = json!({"type": kind, "output_index": index, "item": item});
            events.push(("", event));
            if kind.ends_with("added") && item["type"] == "message" {
                let delta = json!({"type": "response.output_text.delta", "item_id": "msg_x",
                    "output_index": index, "content_index": 0, "delta": "hi", "logprobs": []});
                events.push(("", delta));
            }
        }
    }
    events.push(("", json!({"type": "response.completed", "response": whole})));
    events
}

/// The events of a stream with this report, by their names.
fn events(dialect: Dialect, place: &str, report: &Value) -> Vec<(&'static str, Value)> {
    match dialect {
        Dialect::OpenAi => openai_events(place, report),
        Dialect::Anthropic | Dialect::AnthropicVertex => {
            let mut begun = report.clone();
            begun["output_tokens"] = json!(1);
            let data = |data: Value| ("", data);
            vec![
                data(
                    json!({"type": "message_start", "message": {"id": "x", "type": "message", "role": "assistant",
                    "model": "m", "content": [], "stop_reason": null, "usage": begun}}),
                ),
                data(
                    json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
                ),
                data(
                    json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}}),
                ),
                data(json!({"type": "content_block_stop", "index": 0})),
                data(
                    json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": report}),
                ),
                data(json!({"type": "message_stop"})),
            ]
        }
        Dialect::Gemini => {
            let candidate = |text, reason| json!([{"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": reason, "index": 0}]);
            // The counts of a stream are totals so far.
            let begun =
                json!({"promptTokenCount": report["promptTokenCount"], "totalTokenCount": 1});
            vec![
                (
                    "",
                    json!({"candidates": candidate("h", Value::Null), "usageMetadata": begun}),
                ),
                (
                    "",
                    json!({"candidates": candidate("i", json!("STOP")), "usageMetadata": report}),
                ),
            ]
        }
        Dialect::Bedrock => vec![
            ("messageStart", json!({"role": "assistant"})),
            (
                "contentBlockDelta",
                json!({"contentBlockIndex": 0, "delta": {"text": "hi"}}),
            ),
            ("contentBlockStop", json!({"contentBlockIndex": 0})),
            ("messageStop", json!({"stopReason": "end_turn"})),
            (
                "metadata",
                json!({"usage": report, "metrics": {"latencyMs": 1}}),
            ),
        ],
        Dialect::Cohere => vec![
            (
                "",
                json!({"type": "message-start", "id": "x", "delta": {"message": {"role": "assistant"}}}),
            ),
            (
                "",
                json!({"type": "content-start", "index": 0,
                "delta": {"message": {"content": {"type": "text", "text": ""}}}}),
            ),
            (
                "",
                json!({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "hi"}}}}),
            ),
            ("", json!({"type": "content-end", "index": 0})),
            (
                "",
                json!({"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": report}}),
            ),
        ],
        Dialect::Ollama => {
            let said = json!({"role": "assistant", "content": "h"});
            vec![
                (
                    "",
                    json!({"model": "m", "created_at": "2026-01-31T00:00:00Z", "message": said, "done": false}),
                ),
                ("", answer(dialect, report)),
            ]
        }
    }
}

/// OpenAI's, with the report in a chunk of its own, in Groq's place or in Moonshot's.
fn openai_events(place: &str, report: &Value) -> Vec<(&'static str, Value)> {
    let chunk = |choices: Value| json!({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices});
    let said = chunk(
        json!([{"index": 0, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": null}]),
    );
    let mut end = chunk(json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]));
    match place {
        "x_groq" => end["x_groq"] = json!({"id": "req_x", "usage": report}),
        "choice" => end["choices"][0]["usage"] = report.clone(),
        _ => {
            let mut last = chunk(json!([]));
            last["usage"] = report.clone();
            return vec![("", said), ("", end), ("", last)];
        }
    }
    vec![("", said), ("", end)]
}

#[test]
fn every_report_is_the_buckets_and_costs_what_the_table_says() {
    let mut files = BTreeMap::new();
    for (name, text) in BUILTIN_PROVIDERS {
        let file = ProviderFile::parse(name, text).unwrap_or_else(|f| panic!("{f:?}"));
        files.insert(file.name.clone(), file);
    }
    let rows = TABLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let rows: Vec<Row<'_>> = rows.map(Row::read).collect();
    let (mut wrong, mut read, mut dialects) = (Vec::new(), 0, BTreeSet::new());
    for row in &rows {
        let file = &files[row.provider];
        dialects.insert(format!("{:?}", file.dialect));
        for (way, usage) in row.readings(file.dialect, &file.quirks) {
            read += 1;
            if usage != Some(Ok(row.expected)) {
                wrong.push(format!("{way}: {usage:?}\n  {}", row.line));
            }
        }
        let cost = row.cost(&files);
        if cost != row.nanos {
            wrong.push(format!("costs {cost}\n  {}", row.line));
        }
    }
    println!("{} rows of {dialects:?} in {read} readings", rows.len());
    assert!(
        wrong.is_empty(),
        "{} are wrong. Where a price was changed on purpose: python3 crates/gateway/tests/usage_costs/expect.py\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        rows.len() >= 180 && dialects.len() == 7,
        "{} {dialects:?}",
        rows.len()
    );
}
