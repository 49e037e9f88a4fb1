//! From a request to its answer.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{self, Answer, Broken, Performance, Scene};
use crate::chunk::{Envelope, Shape, json_text};
use crate::embeddings::EmbeddingRequest;
use crate::objects::Given;
use crate::plain::{self, Content};
use crate::reply::{DEMO_MODEL, sensible};
use crate::request::Asked;
use crate::script::{Script, Step, Wait};
use crate::server::{SeenRequest, State};
use crate::stats::Progress;
use crate::wire::Ending;
use crate::{fault_models, faults, judged, media, messages};

const BODY_BYTES_MAX: usize = 64 << 20;
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

/// The paths that take a request to a model, images and audio apart.
const POSTED: [&str; 7] = [
    "/chat/completions",
    "/responses",
    "/completions",
    "/messages",
    "/embeddings",
    "/moderations",
    "/rerank",
];

fn is_media(path: &str) -> bool {
    path.starts_with("/images/") || path.starts_with("/audio/")
}

type Answered = Result<Response<Answer>, Broken>;

/// Answers one request.
pub(crate) async fn handle(
    state: Arc<State>,
    ending: Ending,
    request: Request<Incoming>,
) -> Answered {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Ok(refusal(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is too large",
            ));
        }
        Err(_) => return Err(Broken),
    };
    let path = parts.uri.path().to_owned();
    let method = parts.method.clone();
    state.saw(SeenRequest {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        headers: parts.headers,
        body: body.clone(),
    });
    let mut progress = Progress::begin(&state.tally);
    let stage = Stage {
        state: &state,
        ending,
    };
    if let Some(script) = state.script_for(&path) {
        let asked = serde_json::from_slice(&body).unwrap_or_default();
        return stage.play(script, &asked, Shape::Chat, progress).await;
    }
    let below = path.strip_prefix("/v1").unwrap_or(&path);
    if method == Method::POST && (POSTED.contains(&below) || is_media(below)) {
        return stage.post(below, &body, progress).await;
    }
    if let Some(path) = below.strip_prefix("/responses/") {
        progress.completed();
        return Ok(match state.kept_responses.about(&method, path) {
            Some(answer) => document(StatusCode::OK, answer.to_string()),
            None => refusal(StatusCode::NOT_FOUND, "no such response"),
        });
    }
    if let Some(given) = state.given(&method, below, &body) {
        progress.completed();
        return Ok(given_out(given));
    }
    let answer = match (&method, below) {
        (&Method::GET, "/models") => models(),
        (_, "/models") => wrong_method("GET"),
        (_, path) if POSTED.contains(&path) => wrong_method("POST"),
        (&Method::GET, path) if path.starts_with("/models/") => {
            let id = path.trim_start_matches("/models/");
            document(StatusCode::OK, model(id).to_string())
        }
        (_, _) => {
            // Other dialects say the model in the body too; without a script this path is unknown.
            let asked: Asked<'_> = serde_json::from_slice(&body).unwrap_or_default();
            if let Some(script) = state.script_for(&asked.model) {
                return stage.play(script, &asked, Shape::Chat, progress).await;
            }
            refusal(StatusCode::NOT_FOUND, "unknown path")
        }
    };
    progress.completed();
    Ok(answer)
}

/// Where scripts are played: the provider and the connection.
struct Stage<'a> {
    state: &'a State,
    ending: Ending,
}

impl Stage<'_> {
    /// A request to a model.
    async fn post(self, path: &str, body: &Bytes, progress: Progress) -> Answered {
        match path {
            "/completions" => self.complete(body, Shape::Text, progress).await,
            "/messages" => self.message(body, progress).await,
            "/responses" => self.respond(body, progress).await,
            "/embeddings" => self.embed(body, progress).await,
            "/moderations" => self.document(body, judged::moderation, progress).await,
            "/rerank" => self.document(body, judged::rerank, progress).await,
            path if is_media(path) => self.media(path, body, progress).await,
            _ => self.complete(body, Shape::Chat, progress).await,
        }
    }

    async fn complete(self, body: &Bytes, shape: Shape, mut progress: Progress) -> Answered {
        let asked: Asked<'_> = match serde_json::from_slice(body) {
            Ok(asked) => asked,
            Err(error) => {
                progress.completed();
                let text = format!("the body does not fit: {error}");
                return Ok(refusal(StatusCode::BAD_REQUEST, &text));
            }
        };
        let pause = self.state.pause();
        let script = self
            .state
            .script_for(&asked.model)
            .or_else(|| faults::script(&asked, pause))
            .unwrap_or_else(|| sensible(&asked, shape, pause));
        self.play(script, &asked, shape, progress).await
    }

    /// Anthropic's dialect.
    async fn message(self, body: &Bytes, progress: Progress) -> Answered {
        // Its content is not OpenAI's: only the model and the stream are read as such.
        let whole: Value = serde_json::from_slice(body).unwrap_or_default();
        let about = json!({"model": whole["model"], "stream": whole["stream"]}).to_string();
        let asked: Asked<'_> = serde_json::from_str(&about).unwrap_or_default();
        let script = self.state.script_for(&asked.model);
        let script = script.unwrap_or_else(|| messages::sensible(&whole, self.state.pause()));
        self.play(script, &asked, Shape::Chat, progress).await
    }

    /// OpenAI's Responses.
    async fn respond(self, body: &Bytes, progress: Progress) -> Answered {
        let whole: Value = serde_json::from_slice(body).unwrap_or_default();
        let about = json!({"model": whole["model"], "stream": whole["stream"]}).to_string();
        let asked: Asked<'_> = serde_json::from_str(&about).unwrap_or_default();
        let kept = &self.state.kept_responses;
        let script = self.state.script_for(&asked.model);
        let script = script.unwrap_or_else(|| kept.answer(&whole, self.state.pause()));
        self.play(script, &asked, Shape::Chat, progress).await
    }

    async fn embed(self, body: &Bytes, progress: Progress) -> Answered {
        let answer = |body: &Value| EmbeddingRequest::deserialize(body).ok()?.answer();
        self.document(body, answer, progress).await
    }

    /// An endpoint whose answers are one document. A script answers here too, and a fault that is
    /// not about the words of a chat.
    async fn document(
        self,
        body: &Bytes,
        answer: impl FnOnce(&Value) -> Option<Value>,
        mut progress: Progress,
    ) -> Answered {
        let asked: Asked<'_> = serde_json::from_slice(body).unwrap_or_default();
        let chats = |script: &Script| script.steps.iter().any(|step| matches!(step, Step::Role));
        let fault = || faults::script(&asked, self.state.pause()).filter(|script| !chats(script));
        if let Some(script) = self.state.script_for(&asked.model).or_else(fault) {
            return self.play(script, &asked, Shape::Chat, progress).await;
        }
        progress.completed();
        let request: Value = serde_json::from_slice(body).unwrap_or_default();
        Ok(match answer(&request) {
            Some(answer) => document(StatusCode::OK, answer.to_string()),
            None => refusal(StatusCode::BAD_REQUEST, "nothing that can be answered"),
        })
    }

    /// Images and audio, asked for in JSON or in a form. A script answers here too.
    async fn media(self, path: &str, body: &Bytes, mut progress: Progress) -> Answered {
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |name: &str| match &json[name] {
            Value::String(text) => text.clone(),
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => media::field(body, name).to_owned(),
        };
        let model = text("model");
        if let Some(script) = self.state.script_for(&model) {
            return self
                .play(script, &Asked::default(), Shape::Chat, progress)
                .await;
        }
        let streams = matches!(text("stream").as_str(), "true" | "True");
        progress.completed();
        let answer = match path {
            "/images/generations" | "/images/edits" => {
                let count = text("n").parse().unwrap_or(1);
                media::images(&model, &text("prompt"), count, streams)
            }
            "/audio/speech" => media::speech(&text("input"), text("stream_format") == "sse"),
            "/audio/transcriptions" | "/audio/translations" => {
                media::heard(&model, &text("response_format"), streams)
            }
            _ => return Ok(refusal(StatusCode::NOT_FOUND, "unknown path")),
        };
        let mut response = document(StatusCode::OK, answer.body);
        let kind = HeaderValue::from_static(answer.kind);
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Ok(response)
    }

    async fn play(
        self,
        script: Script,
        asked: &Asked<'_>,
        shape: Shape,
        mut progress: Progress,
    ) -> Answered {
        self.wait(&script.before_head, &mut progress).await;
        if let Some(cut) = script.no_head {
            self.ending.set(cut);
            progress.completed();
            return Err(Broken);
        }
        let streams = asked.streams() || script.always_streams;
        let choices = script.choices.unwrap_or(asked.choices());
        let wants_usage = asked.wants_usage();
        let scene = Scene {
            envelope: Envelope::new(shape, &asked.model, streams && wants_usage),
            choices,
            prompt_tokens: asked.prompt_tokens(),
            wants_usage,
            bare: !streams,
            split_bytes: script.split_bytes,
            gates: Arc::clone(&self.state.gates),
            ending: self.ending.clone(),
            progress,
        };
        let answered = if !script.status.is_success() {
            self.fail(&script, scene).await
        } else if streams {
            stream(&script, scene)
        } else {
            self.plain(&script, scene).await
        };
        Ok(with_headers(answered, script.headers))
    }

    async fn wait(&self, waits: &[Wait], progress: &mut Progress) {
        for wait in waits {
            progress.waits(matches!(wait, Wait::Gate(_)));
            answer::wait(wait.clone(), &self.state.gates).await;
            progress.goes_on();
        }
    }

    /// An error answer: the raw bytes of the script, or an error object.
    async fn fail(&self, script: &Script, scene: Scene) -> Response<Answer> {
        let status = script.status;
        let raw = script.steps.iter().any(|step| matches!(step, Step::Raw(_)));
        if raw {
            return self.plain(script, scene).await;
        }
        let mut progress = scene.progress;
        progress.completed();
        let code = status.as_u16();
        let body = json!({"error": {"message": format!("mock status {code}"),
            "type": "mock_error", "param": null, "code": format!("mock_{code}")}});
        document(status, body.to_string())
    }

    async fn plain(&self, script: &Script, mut scene: Scene) -> Response<Answer> {
        let folded = plain::fold(script, &scene.envelope, scene.choices, scene.prompt_tokens);
        self.wait(&folded.waits, &mut scene.progress).await;
        let status = if folded.failed {
            StatusCode::INTERNAL_SERVER_ERROR
        } else {
            script.status
        };
        let (steps, length) = match folded.content {
            Content::Whole(body) if scene.split_bytes.is_none() => {
                scene.progress.completed();
                return document(status, body);
            }
            Content::Whole(body) => {
                let length = body.len();
                (vec![Step::Raw(body)], Some(length))
            }
            Content::Half(body, cut) => {
                let half = body.slice(..body.len() / 2);
                (vec![Step::Raw(half), Step::Cut(cut)], Some(body.len()))
            }
            Content::Endless(start, step) => (vec![Step::Raw(start), step], None),
        };
        scene.choices = 1;
        let mut response = performed(steps, scene);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        if let Some(length) = length {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        response
    }
}

fn stream(script: &Script, scene: Scene) -> Response<Answer> {
    let mut response = performed(script.steps.clone(), scene);
    *response.status_mut() = script.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, EVENTS);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn performed(steps: Vec<Step>, mut scene: Scene) -> Response<Answer> {
    scene.progress.streams();
    let performance = Performance::new(steps, scene);
    Response::new(Answer::Steps(Box::new(performance)))
}

fn with_headers(
    mut response: Response<Answer>,
    headers: Vec<(http::HeaderName, HeaderValue)>,
) -> Response<Answer> {
    for (name, value) in headers {
        if name == CONTENT_TYPE {
            response.headers_mut().insert(name, value);
        } else {
            response.headers_mut().append(name, value);
        }
    }
    response
}

fn document(status: StatusCode, body: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(Some(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn given_out(given: Given) -> Response<Answer> {
    match given {
        Given::Document(status, value) => document(status, value.to_string()),
        Given::Bytes(bytes) => {
            let mut response = document(StatusCode::OK, bytes);
            let kind = HeaderValue::from_static("application/octet-stream");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
    }
}

fn refusal(status: StatusCode, message: &str) -> Response<Answer> {
    let message = json_text(message);
    let body = format!(
        r#"{{"error":{{"message":{message},"type":"invalid_request_error","param":null,"code":null}}}}"#
    );
    document(status, body)
}

fn wrong_method(allowed: &'static str) -> Response<Answer> {
    let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "wrong method");
    let allowed = HeaderValue::from_static(allowed);
    response.headers_mut().insert(ALLOW, allowed);
    response
}

fn model(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "mock"})
}

fn models() -> Response<Answer> {
    let ids = [DEMO_MODEL, "mock-gpt"].into_iter().chain(fault_models());
    let list: Vec<Value> = ids.map(model).collect();
    let body = json!({"object": "list", "data": list});
    document(StatusCode::OK, body.to_string())
}
