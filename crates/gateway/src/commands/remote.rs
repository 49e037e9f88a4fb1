//! Calls to the admin API of a running gateway.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Method, header};
use reqwest::{Url, redirect};
use serde_json::Value;

use super::CommandError;
use crate::{cli::Remote, settings::Secret};

/// To connect and be answered: the audit of a large ledger takes its time.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// An answer at most, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A call.
pub(super) struct Call {
    method: Method,
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    idempotency_key: Option<String>,
}

impl Call {
    /// A call to `/admin/v1` and these parts of a path, which may hold any text.
    pub(super) fn new(method: Method, path: &[&str]) -> Self {
        Self {
            method,
            path: path.iter().map(|part| (*part).to_owned()).collect(),
            query: Vec::new(),
            body: None,
            idempotency_key: None,
        }
    }

    /// Adds a parameter, where there is a value.
    pub(super) fn query(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.query
            .extend(value.map(|value| (name, value.to_string())));
        self
    }

    /// Sends a body; members that are `null` are left out.
    pub(super) fn body(mut self, mut body: Value) -> Self {
        if let Some(members) = body.as_object_mut() {
            members.retain(|_, value| !value.is_null());
        }
        self.body = Some(body);
        self
    }

    /// Makes the call safe to repeat.
    pub(super) fn once(mut self, key: String) -> Self {
        self.idempotency_key = Some(key);
        self
    }

    /// Makes the call and gives the JSON of its answer.
    pub(super) async fn send(self, remote: &Remote) -> Result<Value, CommandError> {
        let key = remote.admin_key.as_ref().ok_or(CommandError::NoAdminKey)?;
        let url = self.url(remote)?;
        let no_answer = |error: reqwest::Error| CommandError::NoAnswer {
            url: remote.url.clone(),
            problem: cause(&error),
        };
        let client = reqwest::Client::builder()
            // A redirect would carry the admin key to another host.
            .redirect(redirect::Policy::none())
            .timeout(ANSWER_WITHIN)
            .build()
            .map_err(no_answer)?;
        let mut request = client
            .request(self.method, url)
            .header(header::AUTHORIZATION, bearer(key)?);
        if let Some(name) = self.idempotency_key {
            request = request.header("idempotency-key", name);
        }
        if let Some(body) = self.body {
            request = request
                .header(header::CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        let response = request.send().await.map_err(no_answer)?;
        let status = response.status();
        let request_id = response
            .headers()
            .get("x-request-id")
            .and_then(|value| value.to_str().ok())
            .unwrap_or("no x-request-id")
            .to_owned();
        let mut bytes = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(part) = stream.next().await {
            let part: Bytes = part.map_err(no_answer)?;
            if bytes.len() + part.len() > ANSWER_BYTES_MAX {
                return Err(not_tollway(remote));
            }
            bytes.extend_from_slice(&part);
        }
        let value: Value = serde_json::from_slice(&bytes).map_err(|_| not_tollway(remote))?;
        if status.is_success() {
            return Ok(value);
        }
        let error = &value["error"];
        let text = |name: &str| error[name].as_str().map(str::to_owned);
        match (text("message"), text("code")) {
            (Some(message), Some(code)) => Err(CommandError::Refused {
                status: status.as_u16(),
                code,
                message,
                request_id,
            }),
            _ => Err(not_tollway(remote)),
        }
    }

    fn url(&self, remote: &Remote) -> Result<Url, CommandError> {
        let wrong = || {
            CommandError::Argument(format!(
                "{:?} is not the address of a gateway; write it as http://127.0.0.1:8402",
                remote.url
            ))
        };
        let mut url = Url::parse(&remote.url).map_err(|_| wrong())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong());
        }
        url.path_segments_mut()
            .map_err(|()| wrong())?
            .pop_if_empty()
            .extend(["admin", "v1"])
            .extend(&self.path);
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }
}

fn bearer(key: &Secret) -> Result<http::HeaderValue, CommandError> {
    let mut value =
        http::HeaderValue::from_str(&format!("Bearer {}", key.expose())).map_err(|_| {
            CommandError::Argument("the admin key has a character that no header can carry".into())
        })?;
    value.set_sensitive(true);
    Ok(value)
}

fn not_tollway(remote: &Remote) -> CommandError {
    CommandError::NotTollway {
        url: remote.url.clone(),
    }
}

/// The innermost cause: reqwest's own text only says that a request failed.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if error.is_timeout() {
        return "it took too long".into();
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(url: &str) -> Remote {
        Remote {
            url: url.into(),
            admin_key: None,
            json: false,
        }
    }

    #[test]
    fn addresses() {
        let call =
            || Call::new(Method::GET, &["keys", "key_/../accounts?x"]).query("cursor", Some("a&b"));
        for (base, url) in [
            (
                "http://h:1",
                Some("http://h:1/admin/v1/keys/key_%2F..%2Faccounts%3Fx?cursor=a%26b"),
            ),
            (
                "http://h:1/t/",
                Some("http://h:1/t/admin/v1/keys/key_%2F..%2Faccounts%3Fx?cursor=a%26b"),
            ),
            ("ftp://h", None),
            ("h:1", None),
            ("", None),
        ] {
            let made = call().url(&remote(base)).ok().map(String::from);
            assert_eq!(made.as_deref(), url, "{base}");
        }
    }

    #[test]
    fn members_without_a_value_are_not_sent() {
        let call = Call::new(Method::POST, &["keys"]).body(serde_json::json!({"a": null, "b": 1}));
        assert_eq!(call.body.unwrap().to_string(), r#"{"b":1}"#);
    }
}
