//! The body of an answer: performs a script's steps while the connection asks for more.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::vec::IntoIter;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::chunk::{self, Envelope};
use crate::gates::Gates;
use crate::script::{Cut, Report, Step, Text, Wait, Words};
use crate::stats::Progress;
use crate::wire::Ending;
use crate::words::Passage;

/// The connection is to be broken off, as the script says.
#[derive(Debug)]
pub(crate) struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the script cuts the connection")
    }
}

impl std::error::Error for Broken {}

/// A body.
#[derive(Debug)]
pub(crate) enum Answer {
    /// All at once, with its length.
    Whole(Option<Bytes>),
    Steps(Box<Performance>),
}

/// What performing needs to know of the request and the provider.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) envelope: Envelope,
    pub(crate) choices: u32,
    pub(crate) prompt_tokens: u64,
    pub(crate) wants_usage: bool,
    /// Words are sent as they are, for the text inside a plain answer.
    pub(crate) bare: bool,
    pub(crate) split_bytes: Option<usize>,
    pub(crate) gates: Arc<Gates>,
    pub(crate) ending: Ending,
    pub(crate) progress: Progress,
}

/// A script being performed.
pub(crate) struct Performance {
    scene: Scene,
    steps: IntoIter<Step>,
    /// Words being said, and the place of the next.
    saying: Option<(Words, u64)>,
    next: VecDeque<Act>,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// What a split leaves of the last send.
    rest: Bytes,
    /// Bytes were handed out that the connection may still hold back.
    unflushed: bool,
    said: u64,
}

enum Act {
    Send(Bytes),
    /// A word or a piece of a tool call.
    Say(Bytes),
    Wait(Wait),
    Cut(Cut),
}

impl std::fmt::Debug for Performance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Performance")
            .field("scene", &self.scene)
            .finish_non_exhaustive()
    }
}

/// A wait as a future. Also used before the head.
pub(crate) fn wait(wait: Wait, gates: &Gates) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    match wait {
        Wait::Pause(pause) => Box::pin(tokio::time::sleep(pause)),
        Wait::Gate(gate) => Box::pin(gates.passed(gate)),
        Wait::Stall => Box::pin(std::future::pending()),
    }
}

impl Performance {
    pub(crate) fn new(steps: Vec<Step>, scene: Scene) -> Self {
        Self {
            scene,
            steps: steps.into_iter(),
            saying: None,
            next: VecDeque::new(),
            waiting: None,
            rest: Bytes::new(),
            unflushed: false,
            said: 0,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
                self.unflushed = false; // the connection flushes whenever a body is not ready
                self.scene.progress.goes_on();
            }
            if !self.rest.is_empty() {
                if self.scene.split_bytes.is_some() && self.unflushed {
                    return self.flush_first(cx);
                }
                let most = self.scene.split_bytes.unwrap_or(usize::MAX);
                let piece = self.rest.split_to(most.min(self.rest.len()));
                self.unflushed = true;
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            match self.act() {
                Some(Act::Send(bytes)) => self.rest = bytes,
                Some(Act::Say(bytes)) => {
                    self.scene.progress.chunk();
                    self.rest = bytes;
                }
                Some(Act::Wait(what)) => {
                    let at_gate = matches!(what, Wait::Gate(_));
                    self.scene.progress.waits(at_gate);
                    self.waiting = Some(wait(what, &self.scene.gates));
                }
                Some(Act::Cut(cut)) if self.unflushed => {
                    self.next.push_front(Act::Cut(cut));
                    return self.flush_first(cx);
                }
                Some(Act::Cut(cut)) => {
                    self.scene.ending.set(cut);
                    self.scene.progress.cut();
                    return Poll::Ready(Some(Err(Broken)));
                }
                None => {
                    self.scene.progress.completed();
                    return Poll::Ready(None);
                }
            }
        }
    }

    /// Not being ready makes the connection write out what it has; being woken, it asks again.
    fn flush_first<T>(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        self.unflushed = false;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The next thing to do; nothing at the end of the script.
    fn act(&mut self) -> Option<Act> {
        loop {
            if let Some(act) = self.next.pop_front() {
                return Some(act);
            }
            if self.say() {
                continue;
            }
            let step = self.steps.next()?;
            self.perform(step);
        }
    }

    /// Prepares the next word, for each choice; false when there is none.
    fn say(&mut self) -> bool {
        let Some((words, place)) = &mut self.saying else {
            return false;
        };
        let Some(word) = words.text.get(*place) else {
            self.saying = None;
            return false;
        };
        *place += 1;
        if !words.pause.is_zero() {
            self.next.push_back(Act::Wait(Wait::Pause(words.pause)));
        }
        for choice in 0..self.scene.choices {
            self.said += 1;
            let usage = words
                .running_usage
                .then(|| chunk::usage(self.scene.prompt_tokens, self.said));
            let bytes = if self.scene.bare {
                Bytes::copy_from_slice(word.as_bytes())
            } else {
                self.scene.envelope.word(choice, word, usage.as_deref())
            };
            self.next.push_back(Act::Say(bytes));
        }
        true
    }

    fn perform(&mut self, step: Step) {
        let envelope = &self.scene.envelope;
        let choices = 0..self.scene.choices;
        match step {
            Step::Role => {
                let roles = choices.filter_map(|choice| envelope.role(choice));
                self.next.extend(roles.map(Act::Send));
            }
            Step::Words(words) => self.saying = Some((words, 0)),
            Step::Endless(pause) => {
                let words = Words {
                    text: Text::BuiltIn(Passage::new(0, Some(u64::MAX))),
                    pause,
                    running_usage: false,
                };
                self.saying = Some((words, 0));
            }
            Step::ToolCall { id, name, pieces } => {
                for choice in choices {
                    self.call_tool(choice, &id, &name, &pieces);
                }
            }
            Step::Finish(reason) => {
                let ends = choices.map(|choice| Act::Send(envelope.finish(choice, &reason)));
                self.next.extend(ends);
            }
            Step::Usage(report) if self.scene.wants_usage => {
                let usage = match report {
                    Report::Counted => chunk::usage(self.scene.prompt_tokens, self.said),
                    Report::Json(json) => json,
                };
                let bytes = envelope.chunk("[]", Some(&usage));
                self.next.push_back(Act::Send(bytes));
            }
            Step::Usage(_) => {}
            Step::Chunk { choices, usage } => {
                let bytes = envelope.chunk(&choices, usage.as_deref());
                self.next.push_back(Act::Send(bytes));
            }
            Step::Error(json) => {
                let event = format!("data: {json}\n\n");
                self.next.push_back(Act::Send(event.into()));
            }
            Step::Raw(bytes) => self.next.push_back(Act::Send(bytes)),
            Step::Done => {
                let done = Bytes::from_static(b"data: [DONE]\n\n");
                self.next.push_back(Act::Send(done));
            }
            Step::Wait(wait) => self.next.push_back(Act::Wait(wait)),
            Step::Cut(cut) => self.next.push_back(Act::Cut(cut)),
        }
    }

    /// First the name with empty arguments, then the arguments in pieces, as OpenAI sends them.
    fn call_tool(&mut self, choice: u32, id: &str, name: &str, pieces: &[String]) {
        let (id, name) = (chunk::json_text(id), chunk::json_text(name));
        let first = format!(
            r#"{{"tool_calls":[{{"index":0,"id":{id},"type":"function","function":{{"name":{name},"arguments":""}}}}]}}"#
        );
        let rest = pieces.iter().map(|piece| {
            let piece = chunk::json_text(piece);
            format!(r#"{{"tool_calls":[{{"index":0,"function":{{"arguments":{piece}}}}}]}}"#)
        });
        for delta in std::iter::once(first).chain(rest) {
            self.said += 1;
            let bytes = self.scene.envelope.delta(choice, &delta);
            self.next.push_back(Act::Say(bytes));
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Steps(performance) => performance.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Steps(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                let bytes = bytes.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(bytes).unwrap_or(u64::MAX))
            }
            Self::Steps(_) => SizeHint::default(),
        }
    }
}
