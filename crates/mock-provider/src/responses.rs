//! Answers in OpenAI's Responses: the events of its streams as steps of a script, whole responses, and those that are kept.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::script::{Script, Step, Wait};
use crate::words::Passage;

/// What an answer says that nobody has written a script for, in words of a token each.
const WORDS: u64 = 40;
/// Responses that are kept at most.
const KEPT_MAX: usize = 1_024;

/// The responses that this provider keeps.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    all: Mutex<HashMap<String, (Value, Value)>>,
}

impl Script {
    /// These events, numbered as they come and framed as OpenAI frames them.
    #[must_use]
    pub fn response_events(self, events: &[Value]) -> Self {
        events
            .iter()
            .enumerate()
            .fold(self, |script, (number, event)| {
                script.response_event(number, event)
            })
    }

    /// An event with this number.
    #[must_use]
    pub fn response_event(self, number: usize, event: &Value) -> Self {
        let mut event = event.clone();
        let name = event["type"].as_str().unwrap_or_default().to_owned();
        event["sequence_number"] = json!(number);
        self.raw(format!("event: {name}\ndata: {event}\n\n"))
    }
}

impl Kept {
    /// A sensible answer to a request, which is kept where the request does not forbid it.
    pub(crate) fn answer(&self, body: &Value, pause: Duration) -> Script {
        let before = match body["previous_response_id"].as_str() {
            None => 0,
            Some(id) => match self.lock().get(id) {
                Some((response, _)) => response["usage"]["total_tokens"].as_u64().unwrap_or(0),
                None => return Script::error(400),
            },
        };
        let number = self.lock().len();
        let id = format!("resp_mock_{number}");
        let response = whole(&id, body, before);
        let mut all = self.lock();
        if response["store"] == true && all.len() < KEPT_MAX {
            all.insert(id, (response.clone(), items(body)));
        }
        drop(all);
        if body["stream"].as_bool() != Some(true) {
            return Script::new().raw(response.to_string());
        }
        stream(&response, pause)
    }

    /// A request about a response that may be kept: its answer, or nothing where there is none.
    pub(crate) fn about(&self, method: &Method, path: &str) -> Option<Value> {
        let mut all = self.lock();
        let (id, more) = path.split_once('/').unwrap_or((path, ""));
        let (response, input) = all.get(id)?;
        match (method, more) {
            (&Method::GET, "") => Some(response.clone()),
            (&Method::GET, "input_items") => Some(json!({"object": "list", "data": input,
                "has_more": false, "first_id": "item_0", "last_id": "item_0"})),
            (&Method::DELETE, "") => {
                all.remove(id);
                Some(json!({"id": id, "object": "response", "deleted": true}))
            }
            (_, _) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Value, Value)>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn whole(id: &str, body: &Value, before: u64) -> Value {
    let most = body["max_output_tokens"].as_u64().unwrap_or(WORDS);
    let count = most.min(WORDS);
    let cut = count < WORDS;
    let passage = Passage::new(0, Some(count));
    let text: String = (0..count).map_while(|place| passage.get(place)).collect();
    let prompt = before + prompt_tokens(body);
    let output = match called_tool(body) {
        Some(name) => json!([{"id": "fc_mock", "type": "function_call", "status": "completed",
            "call_id": "call_mock", "name": name, "arguments": r#"{"city":"Bern","days":3}"#}]),
        None => json!([{"id": "msg_mock", "type": "message", "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]}]),
    };
    json!({
        "id": id, "object": "response", "created_at": 1_700_000_000,
        "status": if cut { "incomplete" } else { "completed" },
        "incomplete_details": if cut { json!({"reason": "max_output_tokens"}) } else { Value::Null },
        "background": false, "error": null, "instructions": body["instructions"],
        "max_output_tokens": body["max_output_tokens"], "model": body["model"], "output": output,
        "parallel_tool_calls": true, "previous_response_id": body["previous_response_id"],
        "reasoning": {"effort": null, "summary": null}, "store": body["store"].as_bool() != Some(false),
        "temperature": 1.0, "text": {"format": {"type": "text"}}, "tool_choice": "auto",
        "tools": body["tools"].as_array().cloned().unwrap_or_default(), "top_p": 1.0,
        "truncation": "disabled", "user": null, "metadata": {},
        "usage": {"input_tokens": prompt, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": count, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + count},
    })
}

fn stream(response: &Value, pause: Duration) -> Script {
    let mut begun = response.clone();
    begun["status"] = json!("in_progress");
    begun["output"] = json!([]);
    begun["usage"] = Value::Null;
    begun["incomplete_details"] = Value::Null;
    let mut events = vec![
        json!({"type": "response.created", "response": begun}),
        json!({"type": "response.in_progress", "response": begun}),
    ];
    let item = &response["output"][0];
    let mut empty = item.clone();
    empty["status"] = json!("in_progress");
    let place = json!({"item_id": item["id"], "output_index": 0});
    let at = |kind: &str, more: Value| {
        let mut event = place.clone();
        event["type"] = json!(kind);
        for (name, value) in more.as_object().into_iter().flatten() {
            event[name] = value.clone();
        }
        event
    };
    if item["type"] == "function_call" {
        empty["arguments"] = json!("");
        events
            .push(json!({"type": "response.output_item.added", "output_index": 0, "item": empty}));
        let arguments = item["arguments"].as_str().unwrap_or_default();
        let (first, last) = arguments.split_at(arguments.len() / 2);
        let kind = "response.function_call_arguments";
        for piece in [first, last] {
            events.push(at(&format!("{kind}.delta"), json!({"delta": piece})));
        }
        let done = json!({"arguments": arguments, "name": item["name"]});
        events.push(at(&format!("{kind}.done"), done));
    } else {
        let part = &item["content"][0];
        let mut none = part.clone();
        none["text"] = json!("");
        empty["content"] = json!([]);
        events
            .push(json!({"type": "response.output_item.added", "output_index": 0, "item": empty}));
        let first = json!({"content_index": 0, "part": none});
        events.push(at("response.content_part.added", first));
        let text = part["text"].as_str().unwrap_or_default();
        for word in text.split_inclusive(' ') {
            let delta = json!({"content_index": 0, "delta": word, "logprobs": []});
            events.push(at("response.output_text.delta", delta));
        }
        let done = json!({"content_index": 0, "text": text, "logprobs": []});
        events.push(at("response.output_text.done", done));
        let part = json!({"content_index": 0, "part": part});
        events.push(at("response.content_part.done", part));
    }
    events.push(json!({"type": "response.output_item.done", "output_index": 0, "item": item}));
    let last = response["status"].as_str().unwrap_or_default();
    events.push(json!({"type": format!("response.{last}"), "response": response}));
    let all = events.iter().enumerate();
    all.fold(Script::new(), |script, (number, event)| {
        let word = event["type"] == "response.output_text.delta" && !pause.is_zero();
        let script = if word {
            script.step(Step::Wait(Wait::Pause(pause)))
        } else {
            script
        };
        script.response_event(number, event)
    })
}

/// The items of a request, a text as one.
fn items(body: &Value) -> Value {
    match body["input"].as_str() {
        Some(text) => json!([{"id": "item_0", "type": "message", "role": "user",
            "status": "completed", "content": [{"type": "input_text", "text": text}]}]),
        None => body["input"].clone(),
    }
}

/// The words of all texts and three for each item, as this provider counts everywhere.
fn prompt_tokens(body: &Value) -> u64 {
    let words = |text: &Value| {
        let text = text.as_str().unwrap_or_default();
        text.split_whitespace().count()
    };
    let items = items(body);
    let items = items.as_array().map_or(&[][..], Vec::as_slice);
    let of_items: usize = items
        .iter()
        .map(|item| {
            let parts = item["content"].as_array().into_iter().flatten();
            3 + words(&item["content"]) + parts.map(|part| words(&part["text"])).sum::<usize>()
        })
        .sum();
    u64::try_from(of_items + words(&body["instructions"])).unwrap_or(u64::MAX)
}

fn called_tool(body: &Value) -> Option<&str> {
    let first = body["tools"].get(0)?["name"].as_str()?;
    let input = items(body);
    let last = input.as_array()?.last()?.to_string();
    let forced = body["tool_choice"] == "required" || body["tool_choice"].is_object();
    (forced || last.to_ascii_lowercase().contains("call the tool")).then_some(first)
}
