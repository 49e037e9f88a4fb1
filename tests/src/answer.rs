//! What a client sees: plain answers, and streams read by an independent reader of events.

use std::pin::Pin;

use bytes::Bytes;
use eventsource_stream::Eventsource;
use futures_util::{Stream, StreamExt};
use http::HeaderMap;
use reqwest::Response;
use serde_json::Value;

use crate::eventually::in_time;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Plain {
    /// The HTTP status.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body's bytes.
    pub body: Bytes,
}

impl Plain {
    /// Reads an answer to its end.
    ///
    /// # Panics
    /// It breaks off, or does not end in time.
    pub async fn read(response: Response) -> Self {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = in_time("the end of an answer", response.bytes()).await;
        Self {
            status,
            headers,
            body: body.unwrap(),
        }
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// It is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {:?}", self.status, self.body))
    }

    /// The error's code; empty where there is none.
    #[must_use]
    pub fn code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .unwrap_or("")
            .to_owned()
    }

    /// A header's text; empty where there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        text(&self.headers, name)
    }

    /// The answer, which must have this status.
    ///
    /// # Panics
    /// It has another.
    #[must_use]
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?}", self.body);
        self
    }
}

type Reader = Pin<Box<dyn Stream<Item = Result<String, String>> + Send>>;

/// A stream that is being read.
pub struct Streaming {
    /// All headers.
    pub headers: HeaderMap,
    events: Reader,
    data: Vec<String>,
}

impl Streaming {
    /// The events of an answer.
    ///
    /// # Panics
    /// It is not a stream of events.
    #[must_use]
    pub fn new(response: Response) -> Self {
        let headers = response.headers().clone();
        assert!(
            text(&headers, "content-type").starts_with("text/event-stream"),
            "{} {headers:?}",
            response.status()
        );
        assert_eq!(response.status(), 200);
        let events = response.bytes_stream().eventsource().map(|event| {
            event
                .map(|event| event.data)
                .map_err(|error| error.to_string())
        });
        Self {
            headers,
            events: Box::pin(events),
            data: Vec::new(),
        }
    }

    /// The next event's data; `None` at the end.
    ///
    /// # Panics
    /// The stream breaks, or nothing comes in time.
    pub async fn next(&mut self) -> Option<String> {
        let event = in_time("the next event", self.events.next()).await?;
        let data = event.unwrap_or_else(|error| panic!("{error} after {:?}", self.data));
        self.data.push(data.clone());
        Some(data)
    }

    /// Reads on until the text so far has this many tokens or more.
    ///
    /// # Panics
    /// The stream ends before.
    pub async fn read_tokens(&mut self, tokens: u64) -> String {
        loop {
            let text = self.text();
            if crate::count_tokens(&text) >= tokens {
                return text;
            }
            let more = self.next().await;
            assert!(more.is_some(), "the stream ended after {:?}", self.data);
        }
    }

    /// The text so far.
    #[must_use]
    pub fn text(&self) -> String {
        content(&self.data)
    }

    /// Reads to the end.
    pub async fn rest(mut self) -> Events {
        while self.next().await.is_some() {}
        Events {
            headers: self.headers,
            data: self.data,
        }
    }
}

/// A stream that has ended.
#[derive(Clone, Debug)]
pub struct Events {
    /// All headers.
    pub headers: HeaderMap,
    /// Each event's data.
    pub data: Vec<String>,
}

impl Events {
    /// Every event that is JSON.
    #[must_use]
    pub fn chunks(&self) -> Vec<Value> {
        self.data
            .iter()
            .filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data}")))
            .collect()
    }

    /// The text of the first choice.
    #[must_use]
    pub fn text(&self) -> String {
        content(&self.data)
    }

    /// Every usage object that was sent.
    #[must_use]
    pub fn usages(&self) -> Vec<Value> {
        let chunks = self.chunks();
        let usages = chunks.iter().map(|chunk| chunk["usage"].clone());
        usages.filter(Value::is_object).collect()
    }

    /// The error that ended it.
    #[must_use]
    pub fn error(&self) -> Option<Value> {
        let mut errors = self.chunks().into_iter().filter_map(|mut chunk| {
            let error = chunk.get_mut("error")?.take();
            Some(error)
        });
        let error = errors.next();
        assert!(errors.next().is_none(), "two errors: {:?}", self.data);
        error
    }

    /// Every finish reason that was sent.
    #[must_use]
    pub fn finish_reasons(&self) -> Vec<String> {
        let chunks = self.chunks();
        let reasons = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"].as_array())
            .flatten()
            .filter_map(|choice| choice["finish_reason"].as_str());
        reasons.map(str::to_owned).collect()
    }

    /// Whether the last event, and only that, is `[DONE]`.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let dones = self.data.iter().filter(|data| *data == "[DONE]").count();
        dones == 1 && self.data.last().is_some_and(|data| data == "[DONE]")
    }
}

fn content(data: &[String]) -> String {
    data.iter()
        .filter_map(|data| serde_json::from_str::<Value>(data).ok())
        .filter_map(|chunk| {
            chunk["choices"][0]["delta"]["content"]
                .as_str()
                .map(str::to_owned)
        })
        .collect()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("")
}
