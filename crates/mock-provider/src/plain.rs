//! A script folded into one document, for a client that did not ask for a stream.

use bytes::Bytes;

use crate::chunk::{self, Envelope, json_text};
use crate::script::{Cut, Report, Script, Step, Text, Wait};

/// A plain answer.
#[derive(Debug)]
pub(crate) struct Plain {
    /// The script's waits, wherever they are in it: all before the head.
    pub(crate) waits: Vec<Wait>,
    pub(crate) content: Content,
    /// An error event makes the whole answer an error.
    pub(crate) failed: bool,
}

#[derive(Debug)]
pub(crate) enum Content {
    Whole(Bytes),
    /// Half of the body, under the length of the whole, then the end of the connection.
    Half(Bytes, Cut),
    /// The beginning of a document whose text never ends, and the script's step for it.
    Endless(Bytes, Step),
}

#[derive(Debug, Default)]
struct Gathered {
    text: String,
    calls: Vec<String>,
    finish: Option<String>,
    usage: Option<Report>,
    raw: Option<Vec<u8>>,
    error: Option<String>,
    cut: Option<Cut>,
    endless: Option<Step>,
    waits: Vec<Wait>,
    said: u64,
}

/// Gathers a script into a document with this many choices.
pub(crate) fn fold(
    script: &Script,
    envelope: &Envelope,
    choices: u32,
    prompt_tokens: u64,
) -> Plain {
    let mut found = Gathered::default();
    for step in &script.steps {
        found.gather(step);
    }
    if let Some(step) = found.endless {
        return Plain {
            waits: found.waits,
            content: Content::Endless(envelope.answer_before_text().into(), step),
            failed: false,
        };
    }
    let failed = found.error.is_some();
    let usage = found.usage.as_ref().map(|report| match report {
        Report::Counted => {
            let completion = found.said.saturating_mul(u64::from(choices));
            chunk::usage(prompt_tokens, completion)
        }
        Report::Json(json) => json.clone(),
    });
    let body = match (found.error, found.raw) {
        (Some(error), _) => error.into_bytes(),
        (None, Some(raw)) => raw,
        (None, None) => {
            let finish = found
                .finish
                .map_or("null".to_owned(), |one| json_text(&one));
            let calls = (!found.calls.is_empty()).then(|| format!("[{}]", found.calls.join(",")));
            let list: Vec<String> = (0..choices)
                .map(|index| envelope.choice(index, &found.text, calls.as_deref(), &finish))
                .collect();
            let list = format!("[{}]", list.join(","));
            envelope.answer(&list, usage.as_deref()).into_bytes()
        }
    };
    let body = Bytes::from(body);
    Plain {
        waits: found.waits,
        content: match found.cut {
            Some(cut) => Content::Half(body, cut),
            None => Content::Whole(body),
        },
        failed,
    }
}

impl Gathered {
    fn gather(&mut self, step: &Step) {
        match step {
            Step::Role | Step::Done => {}
            Step::Words(words) => self.say(&words.text, words.running_usage),
            Step::ToolCall { id, name, pieces } => {
                self.said += 1 + u64::try_from(pieces.len()).unwrap_or(0);
                let (id, name) = (json_text(id), json_text(name));
                let arguments = json_text(&pieces.concat());
                self.calls.push(format!(
                    r#"{{"id":{id},"type":"function","function":{{"name":{name},"arguments":{arguments}}}}}"#
                ));
            }
            Step::Finish(reason) => self.finish = Some(reason.clone()),
            Step::Usage(report) => self.usage = Some(report.clone()),
            Step::Chunk { usage, .. } => {
                if let Some(usage) = usage {
                    self.usage = Some(Report::Json(usage.clone()));
                }
            }
            Step::Error(json) => self.error = Some(json.clone()),
            Step::Raw(bytes) => self.raw.get_or_insert_default().extend_from_slice(bytes),
            Step::Endless(_) => self.endless = Some(step.clone()),
            Step::Wait(wait) => self.waits.push(wait.clone()),
            Step::Cut(cut) => self.cut = Some(*cut),
        }
    }

    fn say(&mut self, text: &Text, running_usage: bool) {
        let words = (0..).map_while(|place| text.get(place));
        for word in words {
            self.said += 1;
            self.text.push_str(word);
        }
        if running_usage {
            self.usage = Some(Report::Counted);
        }
    }
}
