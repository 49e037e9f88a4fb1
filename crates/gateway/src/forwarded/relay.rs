//! An answer that is passed on as it comes: events with their bill, audio out of events, or plain audio.

use std::{
    io,
    time::{Duration, Instant},
};

use axum::{body::Body, response::Response};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use billing::{Charge, End, Output, Slot, Text, Verdict};
use bytes::{Bytes, BytesMut};
use dialect::{
    DONE, Endpoint, ForwardedAnswer, Keep, SseEvent, SseFramer, StreamNames, StreamWriter,
    write_event,
};
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use http::{HeaderValue, header};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::Value;
use tokens::Usage;

use crate::{
    admit, answer,
    app::Shared,
    arrival::Asked,
    bill::with_bill,
    catalogue::Model,
    credit::Search,
    error::ApiError,
    settings::Settings,
    stream::{origin, unix_seconds},
    upstream::{Failure, Reply},
    watch::Watched,
};

/// What is passed on as it comes, in bytes at most: hours of audio.
const AUDIO_BYTES_MAX: usize = 1 << 30;

type Upstream = BoxStream<'static, Result<Bytes, Failure>>;

/// The members of an event that are read.
#[derive(Default, Deserialize)]
struct Event {
    #[serde(default)]
    r#type: Option<String>,
    /// Text of a transcript.
    #[serde(default)]
    delta: Option<String>,
    /// Audio in base64.
    #[serde(default)]
    audio: Option<String>,
}

/// What an answer in events is charged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sold {
    /// What is sold by the piece.
    pub(crate) pieces: Usage,
    /// Whether text that comes is counted.
    pub(crate) by_tokens: bool,
    /// Whether the events are of a shape that nobody here knows: any end of them is one.
    pub(crate) unknown: bool,
}

/// Events on their way to a client.
pub(crate) struct Relay {
    app: Shared,
    watched: Watched,
    charge: Option<Charge>,
    upstream: Upstream,
    framer: SseFramer,
    endpoint: Endpoint,
    /// Only the audio in the events is passed on.
    audio_alone: bool,
    writer: Option<StreamWriter>,
    sold: Sold,
    out: BytesMut,
    /// The event that ends the answer has come.
    finished: bool,
    broken: bool,
    opened: bool,
    failure: Option<Failure>,
}

impl Relay {
    /// The events of an answer.
    pub(crate) fn new(
        endpoint: Endpoint,
        asked: &Asked,
        charge: Charge,
        sold: Sold,
        response: Reply,
    ) -> Self {
        let app = asked.app.clone();
        Self {
            framer: SseFramer::new(app.settings.answer_bytes_max.min(AUDIO_BYTES_MAX)),
            watched: asked.watched.clone(),
            charge: Some(charge),
            upstream: response.into_body().into_data_stream().boxed(),
            endpoint,
            audio_alone: false,
            writer: None,
            sold,
            out: BytesMut::new(),
            finished: false,
            broken: false,
            opened: false,
            failure: None,
            app,
        }
    }

    /// Waits for the first event, so that what fails before it keeps its status, and passes on what
    /// comes: the events, or their audio alone.
    ///
    /// # Errors
    /// What failed before anything was promised.
    pub(crate) async fn open(
        mut self,
        model: &Model,
        audio_alone: bool,
    ) -> Result<Response, (Failure, Option<Charge>)> {
        let names = StreamNames {
            origin: origin(&self.watched, model),
            clock: unix_seconds,
            repeated: String::new(),
            tier: String::new(),
            keep: Keep::Nobody,
        };
        self.writer = Some(StreamWriter::chat(names, false));
        self.audio_alone = audio_alone;
        while self.out.is_empty() && self.failure.is_none() && self.charge.is_some() {
            let limit = self.app.settings.first_byte_timeout;
            self.step(limit).await;
        }
        if let Some(failure) = self.failure.take() {
            return Err((failure, self.charge.take()));
        }
        self.opened = true;
        self.watched.opened();
        let events = stream::unfold(self, Self::next);
        let body = Body::from_stream(events);
        let mut response = answer::events(body);
        if audio_alone {
            let kind = HeaderValue::from_static("application/octet-stream");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        Ok(response)
    }

    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        loop {
            if !self.out.is_empty() {
                let bytes = self.out.split().freeze();
                return Some((Ok(bytes), self));
            }
            if std::mem::take(&mut self.broken) {
                return Some((Err(io::Error::other("the answer broke off")), self));
            }
            self.charge.as_ref()?;
            let limit = self.app.settings.idle_timeout;
            self.step(limit).await;
        }
    }

    /// Takes in one event that is there, or reads on.
    async fn step(&mut self, limit: Duration) {
        if let Some(event) = self.framer.next() {
            match event {
                Ok(event) => self.take(event).await,
                Err(error) => self.fail(Failure::Garbage(error.to_string())),
            }
            return;
        }
        match tokio::time::timeout(limit, self.upstream.next()).await {
            Ok(Some(Ok(bytes))) => self.framer.push(bytes),
            Ok(Some(Err(failure))) => self.fail(failure),
            Ok(None) if self.finished || self.sold.unknown => self.complete(),
            Ok(None) => self.fail(Failure::Broken),
            Err(_) => self.fail(Failure::Timeout),
        }
    }

    async fn take(&mut self, event: SseEvent) {
        let data = event.data.trim_ascii();
        if data.is_empty() {
            return;
        }
        if data == DONE {
            if self.finished || self.sold.unknown {
                self.out.extend_from_slice(dialect::DONE_EVENT);
            }
            return;
        }
        let read: Event = serde_json::from_slice(data).unwrap_or_default();
        let kind = read.r#type.as_deref().unwrap_or("");
        let decoded = ForwardedAnswer::decode(self.endpoint, event.data.clone());
        let answer = match decoded {
            Ok(_) if kind == "error" => {
                return self.fail(Failure::Inside(Box::default()));
            }
            Ok(answer) => answer,
            Err(error) => return self.fail(error.into()),
        };
        if kind.ends_with(".done") || kind.ends_with(".completed") {
            self.finished = true;
        }
        let judged = self.judge(&answer, &read, data).await;
        match judged {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return self.end(End::UpstreamFailed, &error),
        }
        if self.audio_alone {
            match read.audio.map(|audio| BASE64_STANDARD.decode(audio)) {
                Some(Ok(audio)) => self.out.extend_from_slice(&audio),
                Some(Err(_)) => self.fail(Failure::Garbage("audio that is no base64".into())),
                None => {}
            }
            return;
        }
        if let Some(name) = &event.event {
            self.out.extend_from_slice(b"event: ");
            self.out.extend_from_slice(name);
            self.out.extend_from_slice(b"\n");
        }
        if answer.usage().is_some_and(|usage| usage.is_ok()) {
            self.write_billed(&answer, &event.data);
        } else {
            write_event(&mut self.out, &event.data);
        }
    }

    /// Takes in what an event says it took, and its text. False where credit is used up.
    async fn judge(
        &mut self,
        answer: &ForwardedAnswer,
        event: &Event,
        data: &[u8],
    ) -> Result<bool, ApiError> {
        let now = Instant::now();
        let Some(charge) = &mut self.charge else {
            return Ok(false);
        };
        charge.mark_first_output(now);
        self.watched.output(now);
        match answer.usage() {
            Some(Ok(usage)) => {
                let usage = super::work::complete(&self.sold.pieces, usage, None);
                charge.report(usage, answer.usage_text().map(Into::into));
                answer::cover(&self.app, charge).await?;
            }
            Some(Err(fault)) => self.watched.usage_fault(fault),
            None => {}
        }
        let texts_of_any;
        let text = if self.sold.unknown {
            texts_of_any = said(data);
            Some(texts_of_any.as_str()).filter(|text| !text.is_empty())
        } else {
            event.delta.as_deref().filter(|_| self.sold.by_tokens)
        };
        let Some(text) = text else {
            return Ok(true);
        };
        let slot = Slot {
            choice: 0,
            part: 0,
            output: Output::Completion,
        };
        let texts = [Text { slot, text }];
        loop {
            match charge.observe(&texts, Instant::now())? {
                Verdict::Continue => return Ok(true),
                Verdict::NeedsCredit { least, .. } => {
                    let mut search = Search::begin(&self.app.ledger, charge, least);
                    std::future::poll_fn(|cx| search.poll(cx, &self.app.ledger, charge)).await;
                    if let Search::Refused(shortfall) = search {
                        let own = charge.held();
                        let error = admit::refused(&shortfall, least, own);
                        self.end(End::CreditsExhausted, &error);
                        return Ok(false);
                    }
                }
            }
        }
    }

    fn write_billed(&mut self, answer: &ForwardedAnswer, data: &[u8]) {
        let settled = self
            .charge
            .as_mut()
            .and_then(|charge| charge.quote(End::Completed).ok());
        match settled {
            Some(settled) => {
                let bytes = with_bill(&settled, |bill| answer.with_bill(bill));
                write_event(&mut self.out, &bytes);
            }
            None => write_event(&mut self.out, data),
        }
    }

    fn complete(&mut self) {
        if let Some(charge) = self.charge.take() {
            let settled = charge.finish(End::Completed);
            self.watched.settled(End::Completed, settled);
        }
    }

    fn fail(&mut self, failure: Failure) {
        if !self.opened && self.out.is_empty() {
            self.failure = Some(failure);
            return;
        }
        self.watched.upstream_failed(&failure);
        self.end(End::UpstreamFailed, &ApiError::Upstream(failure));
    }

    /// Settles, and writes the end of CONTRACT 3; audio alone breaks off.
    fn end(&mut self, end: End, error: &ApiError) {
        let Some(charge) = self.charge.take() else {
            return;
        };
        let settled = charge.finish(end);
        self.watched.settled(end, settled);
        self.watched.failed(error);
        self.upstream = stream::empty().boxed();
        let Some(writer) = self.writer.as_mut().filter(|_| !self.audio_alone) else {
            self.broken = true;
            return;
        };
        let top_up_url = self.app.settings.top_up_url.as_deref();
        let id = self.watched.request_id();
        match &settled {
            Some(settled) => with_bill(settled, |bill| {
                error.end_stream(writer, id, top_up_url, Some(bill), None, &mut self.out);
            }),
            None => error.end_stream(writer, id, top_up_url, None, None, &mut self.out),
        }
    }
}

/// The text in an event of a shape that nobody here knows: where OpenAI's endpoints and those after
/// them have it.
fn said(data: &[u8]) -> String {
    let event: Value = serde_json::from_slice(data).unwrap_or_default();
    let mut text = String::new();
    let choices = event["choices"].as_array().into_iter().flatten();
    let deltas = choices.flat_map(|choice| [&choice["delta"], choice]);
    // An event that says its type repeats at its end what came before.
    let plain = Some(&event).filter(|event| event["type"].is_null());
    for delta in deltas.chain([&event["delta"]]).chain(plain) {
        if let Some(said) = delta.as_str() {
            text.push_str(said);
        }
        for name in ["content", "reasoning_content", "text", "refusal"] {
            text.push_str(delta[name].as_str().unwrap_or(""));
        }
    }
    text
}

/// Bytes that are passed on as they come.
pub(crate) struct Passing {
    first: Bytes,
    rest: Upstream,
    idle: Duration,
}

/// Waits for the first bytes of an answer.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn first(response: Reply, settings: &Settings) -> Result<Passing, Failure> {
    let mut rest = response.into_body().into_data_stream().boxed();
    let first = tokio::time::timeout(settings.first_byte_timeout, rest.next())
        .await
        .map_err(|_| Failure::Timeout)?
        .ok_or(Failure::Broken)??;
    Ok(Passing {
        first,
        rest,
        idle: settings.idle_timeout,
    })
}

impl Passing {
    /// The body of the answer; `watched` follows it to its end. What breaks off upstream breaks off
    /// here.
    pub(crate) fn passed_on(self, watched: Watched) -> Body {
        let Self { first, rest, idle } = self;
        let state = (Some(first), rest, watched, 0_usize);
        let bytes = stream::unfold(
            state,
            move |(first, mut rest, watched, passed)| async move {
                let next = match first {
                    Some(first) => Ok(first),
                    None => match tokio::time::timeout(idle, rest.next()).await {
                        Ok(Some(Ok(bytes))) => Ok(bytes),
                        Ok(None) => return None,
                        Ok(Some(Err(_))) | Err(_) => Err(io::Error::other("the answer broke off")),
                    },
                };
                let passed = passed.saturating_add(next.as_ref().map_or(0, Bytes::len));
                let next = next.and_then(|bytes| {
                    let whole = passed <= AUDIO_BYTES_MAX;
                    whole
                        .then_some(bytes)
                        .ok_or_else(|| io::Error::other("the answer is too long"))
                });
                Some((next, (None, rest, watched, passed)))
            },
        );
        Body::from_stream(bytes)
    }
}
