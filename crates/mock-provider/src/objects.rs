//! Files and batches, kept in memory: a batch is worked off when it is looked at for the first time.
//!
//! A request's `user` says what becomes of it: `fail`, `gone` (without a word), `much` (it takes
//! more than it allowed), `slow` (its batch is never over), `lost` (its batch is not known any more).

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Method, StatusCode};
use memchr::memmem;
use serde_json::{Value, json};

use crate::media::field;
use crate::request::words_of_value;

/// What every line of a batch is answered with.
const ANSWER: &str = "All is well";
/// So many tokens are reported where a request's user is `much`: far more than it allowed.
const MUCH: u64 = 1_000_000;
/// Objects of each kind at most.
const OBJECTS_MAX: usize = 1024;

/// What was made.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    made: u64,
    files: BTreeMap<String, (Value, Bytes)>,
    batches: BTreeMap<String, Value>,
}

/// An answer: a document, or the bytes of a file.
pub(crate) enum Given {
    Document(StatusCode, Value),
    Bytes(Bytes),
}

impl Objects {
    /// Answers a path about files or batches; `None` for any other.
    pub(crate) fn answer(&mut self, method: &Method, path: &str, body: &Bytes) -> Option<Given> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let done = |value: Value| Some(Given::Document(StatusCode::OK, value));
        let nothing = || {
            let error =
                json!({"error": {"message": "no such object", "type": "invalid_request_error"}});
            Some(Given::Document(StatusCode::NOT_FOUND, error))
        };
        match (method, parts.as_slice()) {
            (&Method::POST, ["files"]) => done(self.upload(body)),
            (&Method::GET, ["files", id]) => match self.files.get(*id) {
                Some((about, _)) => done(about.clone()),
                None => nothing(),
            },
            (&Method::GET, ["files", id, "content"]) => match self.files.get(*id) {
                Some((_, bytes)) => Some(Given::Bytes(bytes.clone())),
                None => nothing(),
            },
            (&Method::DELETE, ["files", id]) => match self.files.remove(*id) {
                Some(_) => done(json!({"id": id, "object": "file", "deleted": true})),
                None => nothing(),
            },
            (&Method::POST, ["batches"]) => done(self.begin(body)),
            (&Method::GET, ["batches", id]) => match self.batch(id) {
                Some(batch) => done(batch),
                None => nothing(),
            },
            (&Method::POST, ["batches", id, "cancel"]) => match self.batches.get_mut(*id) {
                Some(batch) => {
                    batch["status"] = "cancelled".into();
                    done(batch.clone())
                }
                None => nothing(),
            },
            _ => None,
        }
    }

    fn name(&mut self, prefix: &str) -> String {
        self.made += 1;
        format!("{prefix}mock{:06}", self.made)
    }

    fn upload(&mut self, body: &Bytes) -> Value {
        let (name, bytes) = file(body).unwrap_or_default();
        self.keep(&name, field(body, "purpose"), bytes)
    }

    fn keep(&mut self, name: &str, purpose: &str, bytes: Bytes) -> Value {
        let id = self.name("file-");
        let about = json!({"id": id, "object": "file", "bytes": bytes.len(), "created_at": 1_700_000_000,
            "filename": name, "purpose": purpose, "status": "processed"});
        if self.files.len() < OBJECTS_MAX {
            self.files.insert(id, (about.clone(), bytes));
        }
        about
    }

    fn begin(&mut self, body: &Bytes) -> Value {
        let asked: Value = serde_json::from_slice(body).unwrap_or_default();
        let id = self.name("batch_");
        let batch = json!({"id": id, "object": "batch", "endpoint": asked["endpoint"],
            "input_file_id": asked["input_file_id"], "completion_window": "24h", "status": "in_progress",
            "output_file_id": null, "error_file_id": null, "created_at": 1_700_000_000});
        if self.batches.len() < OBJECTS_MAX {
            self.batches.insert(id, batch.clone());
        }
        batch
    }

    /// A batch, worked off.
    fn batch(&mut self, id: &str) -> Option<Value> {
        let batch = self.batches.get(id)?.clone();
        if batch["status"] != "in_progress" {
            return Some(batch);
        }
        let input = batch["input_file_id"].as_str().unwrap_or_default();
        let lines = self.files.get(input).map(|(_, bytes)| bytes.clone());
        let of = |user: &str| {
            let mark = format!("\"user\":\"{user}\"");
            let lines = lines.as_ref();
            lines.is_some_and(|lines| memmem::find(lines, mark.as_bytes()).is_some())
        };
        if of("slow") {
            return Some(batch);
        }
        if of("lost") {
            return None;
        }
        let (mut output, mut errors) = (String::new(), String::new());
        for line in lines.unwrap_or_default().split(|byte| *byte == b'\n') {
            let Ok(request) = serde_json::from_slice::<Value>(line) else {
                continue;
            };
            if request["body"]["user"] == "gone" {
                continue;
            }
            if request["body"]["user"] == "fail" {
                errors.push_str(&failed(&request).to_string());
                errors.push('\n');
            } else {
                output.push_str(&answered(&request).to_string());
                output.push('\n');
            }
        }
        let mut keep = |text: String| {
            (!text.is_empty())
                .then(|| self.keep("results.jsonl", "batch_output", text.into())["id"].clone())
        };
        let (output, errors) = (keep(output), keep(errors));
        let batch = self.batches.get_mut(id)?;
        batch["status"] = "completed".into();
        batch["output_file_id"] = output.unwrap_or_default();
        batch["error_file_id"] = errors.unwrap_or_default();
        Some(batch.clone())
    }
}

fn answered(request: &Value) -> Value {
    let read = words_of_value(&request["body"]["messages"]).max(1);
    let written = match request["body"]["user"].as_str() {
        Some("much") => MUCH,
        _ => words_of_value(&Value::from(ANSWER)),
    };
    let body = json!({"id": "chatcmpl-mock", "object": "chat.completion", "model": request["body"]["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}});
    json!({"id": "batch_req_mock", "custom_id": request["custom_id"],
        "response": {"status_code": 200, "request_id": "r", "body": body}, "error": null})
}

fn failed(request: &Value) -> Value {
    json!({"id": "batch_req_mock", "custom_id": request["custom_id"],
        "response": {"status_code": 400, "request_id": "r", "body": {"error": {"message": "no"}}}, "error": null})
}

/// The file in a form: its name and bytes.
fn file(form: &Bytes) -> Option<(String, Bytes)> {
    let boundary = form.get(..memmem::find(form, b"\r\n")?)?;
    let head = memmem::find(form, b"filename=\"")?;
    let rest = form.get(head + 10..)?;
    let name = rest.get(..memchr::memchr(b'"', rest)?)?;
    let start = head + 10 + memmem::find(rest, b"\r\n\r\n")? + 4;
    let end_mark = [b"\r\n", boundary].concat();
    let length = memmem::find(form.get(start..)?, &end_mark)?;
    let name = String::from_utf8_lossy(name).into_owned();
    Some((name, form.slice(start..start + length)))
}
