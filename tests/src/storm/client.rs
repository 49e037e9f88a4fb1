//! A client that writes down exactly what it received, however that ended.

use std::time::{Duration, Instant};

use auditor::{Answer, Outcome, Reported, Shown};
use eventsource_stream::Eventsource as _;
use futures_util::StreamExt as _;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};

use super::models::{Model, REPORTED_PROMPT, Says, TOO_MUCH, storm_model};
use crate::{Account, PROMPT, PROMPT_TOKENS, Target, count_tokens};

/// Longer than anything takes on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(90);
/// A stream's checkpoint is written every three seconds, and then on its way into the database.
const CHECKPOINT_AGE_MAX: Duration = Duration::from_millis(3_000 + 2_500);

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// The model.
    pub model: &'static Model,
    /// As a stream.
    pub stream: bool,
    /// With usage in it.
    pub include_usage: bool,
    /// The output limit.
    pub max_tokens: Option<u64>,
    /// Hangs up after so many pieces of output; zero: before the head.
    pub leave_after: Option<u64>,
}

impl Wish {
    /// A whole stream of a model, with usage.
    #[must_use]
    pub fn stream(model: &str, max_tokens: Option<u64>) -> Self {
        Self {
            model: storm_model(model),
            stream: true,
            include_usage: true,
            max_tokens,
            leave_after: None,
        }
    }

    /// A plain answer of a model.
    #[must_use]
    pub fn plain(model: &str, max_tokens: Option<u64>) -> Self {
        Self {
            stream: false,
            include_usage: false,
            ..Self::stream(model, max_tokens)
        }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Taken {
    /// For the auditor.
    pub answer: Answer,
    /// When it began.
    pub began: Instant,
    /// When it was over.
    pub ended: Instant,
    /// The error's metadata, where there was one.
    pub metadata: Value,
}

/// Asks, and reads to whatever end there is.
pub async fn ask(client: &Client, target: &Target, account: &Account, wish: &Wish) -> Taken {
    let key = account.key();
    let mut reading = Reading::new(target, account, &key.id, wish);
    let request = request(client, target, &key.secret, wish);
    if wish.leave_after == Some(0) {
        // The request is on its way, and nobody waits for its answer.
        let gone = tokio::time::timeout(Duration::from_millis(3), request.send()).await;
        if let Ok(Ok(response)) = &gone {
            reading.head(response);
        }
        return reading.end(Outcome::HungUp);
    }
    let answer = async {
        match request.send().await {
            Ok(response) => {
                reading.head(&response);
                if response.status() != 200 {
                    reading.refusal(response).await
                } else if wish.stream {
                    reading.stream(response).await
                } else {
                    reading.plain(response).await
                }
            }
            Err(_) => Outcome::Lost,
        }
    };
    let outcome = match tokio::time::timeout(ANSWER_MAX, answer).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("no end of an answer of {} in {ANSWER_MAX:?}", target.name),
    };
    reading.end(outcome)
}

fn request(client: &Client, target: &Target, secret: &str, wish: &Wish) -> RequestBuilder {
    let mut body = json!({
        "model": wish.model.id,
        "messages": [{"role": "user", "content": PROMPT}],
    });
    if let Some(limit) = wish.max_tokens {
        body["max_tokens"] = limit.into();
    }
    if wish.stream {
        body["stream"] = true.into();
        body["stream_options"] = json!({"include_usage": wish.include_usage});
    }
    client
        .post(format!("http://{}/v1/chat/completions", target.addr))
        .bearer_auth(secret)
        .header("content-type", "application/json")
        .body(body.to_string())
}

struct Reading<'a> {
    wish: &'a Wish,
    text: String,
    pieces: u64,
    /// When each piece came, for what a checkpoint must have.
    times: Vec<Instant>,
    /// The limit that the provider was given.
    limit: Option<u64>,
    answer: Answer,
    metadata: Value,
    began: Instant,
}

impl<'a> Reading<'a> {
    fn new(target: &Target, account: &Account, key_id: &str, wish: &'a Wish) -> Self {
        Self {
            wish,
            text: String::new(),
            pieces: 0,
            times: Vec::new(),
            limit: wish.max_tokens,
            metadata: Value::Null,
            began: Instant::now(),
            answer: Answer {
                request_id: None,
                account_id: account.id.clone(),
                key_id: key_id.to_owned(),
                replica: target.name.clone(),
                model: wish.model.id.to_owned(),
                status: 0,
                code: String::new(),
                outcome: Outcome::Lost,
                prompt_tokens: PROMPT_TOKENS,
                output_tokens: 0,
                output_tokens_max: 0,
                output_tokens_certain: 0,
                reported: None,
                shown: None,
                acknowledged: false,
                at_risk: false,
            },
        }
    }

    fn head(&mut self, response: &Response) {
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        self.answer.status = response.status().as_u16();
        self.answer.request_id = header("x-request-id")
            .and_then(|id| id.strip_prefix("req_"))
            .map(str::to_owned);
        if let Some(clamped) = header("x-tollway-max-tokens") {
            self.limit = clamped.parse().ok();
        }
    }

    async fn refusal(&mut self, response: Response) -> Outcome {
        let status = response.status().as_u16();
        let Ok(body) = response.bytes().await else {
            return Outcome::Lost;
        };
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        self.error(&body["error"]);
        match status {
            502 | 504 => Outcome::Failed,
            _ => Outcome::Refused,
        }
    }

    async fn plain(&mut self, response: Response) -> Outcome {
        let Ok(body) = response.bytes().await else {
            return Outcome::Lost;
        };
        let body: Value = serde_json::from_slice(&body).unwrap();
        let text = body["choices"][0]["message"]["content"].as_str();
        self.text = text.unwrap_or_default().to_owned();
        self.usage(&body["usage"]);
        Outcome::Finished
    }

    async fn stream(&mut self, response: Response) -> Outcome {
        let mut events = response.bytes_stream().eventsource();
        let mut outcome = Outcome::Finished;
        while let Some(event) = events.next().await {
            let Ok(event) = event else {
                return Outcome::Lost;
            };
            if event.data == "[DONE]" {
                return outcome;
            }
            let chunk: Value = serde_json::from_str(&event.data).unwrap();
            if let Some(error) = chunk.get("error") {
                outcome = self.error(error);
            }
            self.usage(&chunk["usage"]);
            let content = chunk["choices"][0]["delta"]["content"].as_str();
            if let Some(text) = content.filter(|text| !text.is_empty()) {
                self.text.push_str(text);
                self.pieces += 1;
                self.times.push(Instant::now());
            }
            if self
                .wish
                .leave_after
                .is_some_and(|after| self.pieces >= after)
            {
                return Outcome::HungUp;
            }
        }
        // The connection ended in order, and the stream did not.
        Outcome::Lost
    }

    fn error(&mut self, error: &Value) -> Outcome {
        self.answer.code = error["code"].as_str().unwrap_or_default().to_owned();
        self.metadata = error["metadata"].clone();
        match self.answer.code.as_str() {
            "insufficient_quota" => Outcome::Exhausted,
            "unavailable" => Outcome::Stopped,
            _ => Outcome::Failed,
        }
    }

    fn usage(&mut self, usage: &Value) {
        if let (Some(prompt), Some(completion), Some(cost)) = (
            usage["prompt_tokens"].as_u64(),
            usage["completion_tokens"].as_u64(),
            usage["cost"].as_str(),
        ) {
            self.answer.shown = Some(Shown {
                prompt,
                completion,
                cost: cost.to_owned(),
            });
        }
    }

    fn end(mut self, outcome: Outcome) -> Taken {
        let ended = Instant::now();
        let said = count_tokens(&self.text);
        let model = self.wish.model;
        let limit = self.limit.unwrap_or(u64::MAX);
        self.answer.outcome = outcome;
        self.answer.output_tokens = said;
        self.answer.output_tokens_max = model.words_max.min(limit);
        let certain = |at: &&Instant| ended.duration_since(**at) > CHECKPOINT_AGE_MAX;
        self.answer.output_tokens_certain = match outcome {
            Outcome::Lost => self.times.iter().filter(certain).count() as u64,
            Outcome::Finished
            | Outcome::HungUp
            | Outcome::Failed
            | Outcome::Exhausted
            | Outcome::Stopped
            | Outcome::Refused => 0,
        };
        let completion = match model.says {
            Says::Nothing => None,
            Says::Truth | Says::Exactly if outcome == Outcome::HungUp => {
                Some(self.answer.output_tokens_max)
            }
            Says::Truth | Says::Exactly => Some(said),
            Says::TooMuch => Some(self.limit.unwrap_or(said) + TOO_MUCH),
        };
        self.answer.reported = completion.map(|completion| Reported {
            prompt: match model.says {
                Says::Exactly => PROMPT_TOKENS,
                Says::Truth | Says::TooMuch | Says::Nothing => REPORTED_PROMPT,
            },
            completion,
        });
        Taken {
            answer: self.answer,
            began: self.began,
            ended,
            metadata: self.metadata,
        }
    }
}
