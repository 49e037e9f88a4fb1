//! The way to a provider: one client, its time limits, and what a failure means for the next attempt.

mod client;

use std::time::Duration;

use bytes::Bytes;
use dialect::{DecodeError, UpstreamError, WireRequest};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::BodyExt as _;

pub use client::{ClientError, HttpClient, Reply, ReplyBody};

use crate::{catalogue::Provider, credentials::CredentialsError, settings::Settings};

/// An error body of a provider is read up to this many bytes.
const ERROR_BYTES_MAX: usize = 64 * 1024;
/// Seconds to wait where a provider that takes no more does not say how long.
const RETRY_AFTER_S: u32 = 1;
/// Sends requests to providers.
#[derive(Clone, Debug)]
pub struct Upstream {
    client: HttpClient,
    first_byte_timeout: Duration,
}

/// A request that is passed on.
#[derive(Debug)]
pub struct Passed {
    /// Its method.
    pub method: Method,
    /// Its path below the base URL, with nothing in it that is escaped.
    pub path: String,
    /// Its query, as the client wrote it.
    pub query: Option<String>,
    /// What of its headers travels.
    pub headers: HeaderMap,
    /// Its body, where it has one.
    pub body: Option<Bytes>,
    /// In place of that, a body that comes piece by piece.
    pub coming: Option<reqwest::Body>,
}

/// Why a provider gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// No connection.
    #[error("cannot connect")]
    Connect,
    /// The request could not be authenticated, and was not sent.
    #[error("no credentials: {0}")]
    Credentials(#[from] CredentialsError),
    /// The connection broke before the answer, or in it.
    #[error("the connection broke")]
    Broken,
    /// Nothing came in time.
    #[error("no answer in time")]
    Timeout,
    /// It refused the request.
    #[error("answered {status}")]
    Refused {
        /// With this status.
        status: StatusCode,
        /// Saying this.
        error: Box<UpstreamError>,
    },
    /// It answered something that is not its dialect.
    #[error("answered something else than its dialect: {0}")]
    Garbage(String),
    /// It reported an error inside a successful answer.
    #[error("reported an error inside its answer")]
    Inside(Box<UpstreamError>),
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Upstream(error) => Self::Inside(error),
            DecodeError::Shape { .. } | DecodeError::Utf8 | DecodeError::TooLarge => {
                Self::Garbage(error.to_string())
            }
        }
    }
}

impl Failure {
    /// The `kind` label of `tollway_upstream_errors_total`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Credentials(_) => "credentials",
            Self::Broken => "broken",
            Self::Timeout => "timeout",
            Self::Refused { status, .. } if status.as_u16() == 429 => "rate_limited",
            Self::Refused { status, .. } if matches!(status.as_u16(), 401..=403) => {
                "refused_operator"
            }
            Self::Refused { status, .. } if status.is_client_error() => "refused_request",
            Self::Refused { .. } => "server_error",
            Self::Garbage(_) => "garbage",
            Self::Inside(_) => "error_in_answer",
        }
    }

    /// Seconds to wait before another try, where the provider takes no more for now.
    #[must_use]
    pub fn retry_after(&self) -> Option<u32> {
        match self {
            Self::Refused { status, error } if status.as_u16() == 429 => {
                Some(error.retry_after.unwrap_or(RETRY_AFTER_S))
            }
            Self::Refused { .. }
            | Self::Connect
            | Self::Credentials(_)
            | Self::Broken
            | Self::Timeout
            | Self::Garbage(_)
            | Self::Inside(_) => None,
        }
    }

    /// True where another target may do better. A request that the provider found wrong is
    /// wrong everywhere.
    #[must_use]
    pub fn another_target_may_help(&self) -> bool {
        match self {
            Self::Refused { status, .. } => !matches!(status.as_u16(), 400 | 413 | 422),
            Self::Connect
            | Self::Credentials(_)
            | Self::Broken
            | Self::Timeout
            | Self::Garbage(_)
            | Self::Inside(_) => true,
        }
    }

    /// True where the same target surely did not start on the request, so that asking it again
    /// cannot make it work twice.
    #[must_use]
    pub fn same_target_may_help(&self) -> bool {
        match self {
            Self::Connect => true,
            Self::Refused { status, .. } => matches!(status.as_u16(), 502 | 503 | 529),
            Self::Credentials(_)
            | Self::Broken
            | Self::Timeout
            | Self::Garbage(_)
            | Self::Inside(_) => false,
        }
    }
}

impl Upstream {
    /// The client under these settings.
    ///
    /// # Errors
    /// No TLS, which would be a broken build.
    pub fn new(settings: &Settings) -> Result<Self, ClientError> {
        Ok(Self {
            client: HttpClient::new(settings.connect_timeout)?,
            first_byte_timeout: settings.first_byte_timeout,
        })
    }

    /// Sends a request and waits for the head of a 2xx answer.
    ///
    /// # Errors
    /// [`Failure`]; other statuses are [`Failure::Refused`].
    pub async fn send(&self, provider: &Provider, wire: WireRequest) -> Result<Reply, Failure> {
        let address = provider
            .address(&wire.path)
            .ok_or_else(|| Failure::Garbage("no address: see its base_url and paths".into()))?;
        let mut request = Request::new(wire.body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = address;
        *request.headers_mut() = headers(&wire.headers);
        self.execute(provider, request).await
    }

    /// Passes a request on, and waits for the head of a 2xx answer. The path is below the provider's
    /// base URL; of the client's headers those travel that were chosen.
    ///
    /// # Errors
    /// As [`Upstream::send`].
    pub async fn pass(&self, provider: &Provider, passed: Passed) -> Result<Reply, Failure> {
        let address = provider.address_of(&passed.path, passed.query.as_deref());
        let address = address.and_then(|url| Uri::try_from(String::from(url)).ok());
        let address =
            address.ok_or_else(|| Failure::Garbage("no address: see its base_url".into()))?;
        let mut all = headers(&[]);
        all.remove(header::CONTENT_TYPE);
        for (name, value) in &provider.quirks.headers {
            if let (Ok(name), Ok(value)) = (
                HeaderName::from_bytes(name.as_bytes()),
                HeaderValue::from_str(value),
            ) {
                all.insert(name, value);
            }
        }
        all.extend(passed.headers);
        let mut request = Request::new(passed.body.unwrap_or_default());
        *request.method_mut() = passed.method;
        *request.uri_mut() = address;
        *request.headers_mut() = all;
        match passed.coming {
            None => self.execute(provider, request).await,
            Some(body) => {
                let sent = async {
                    let credentials = &provider.credentials;
                    credentials.apply(&mut request, self.client.other()).await?;
                    self.client.send_on(request, body).await
                };
                self.judge(provider, sent).await
            }
        }
    }

    async fn execute(
        &self,
        provider: &Provider,
        mut request: Request<Bytes>,
    ) -> Result<Reply, Failure> {
        let sent = async {
            let credentials = &provider.credentials;
            credentials.apply(&mut request, self.client.other()).await?;
            let_others_come_as_far().await;
            self.client.send(request).await
        };
        self.judge(provider, sent).await
    }

    /// Waits for the head of an answer, and says what one means that is no success.
    async fn judge(
        &self,
        provider: &Provider,
        sent: impl Future<Output = Result<Reply, Failure>>,
    ) -> Result<Reply, Failure> {
        let response = tokio::time::timeout(self.first_byte_timeout, sent)
            .await
            .map_err(|_| Failure::Timeout)??;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let body = tokio::time::timeout(self.first_byte_timeout, error_body(response))
            .await
            .unwrap_or_default();
        let error = UpstreamError::from_body(status.as_u16(), retry_after.as_deref(), &body);
        let cause = provider.dialect.cause(status.as_u16(), &error);
        if cause == StatusCode::UNAUTHORIZED {
            provider.credentials.refused();
        }
        Err(Failure::Refused {
            status: StatusCode::from_u16(cause).unwrap_or(status),
            error: Box::new(error),
        })
    }
}

/// Lets all that is ready to run come to where it writes, too, before this writes. Writes that follow
/// one another closely find their reader awake; after a pause each of them has to wake it, which
/// costs more than the write. See docs/performance.md.
pub async fn let_others_come_as_far() {
    tokio::task::yield_now().await;
}

/// Makes ring the process's TLS, which reqwest and sqlx take by default. Calling it again changes
/// nothing: it only fails where a default is set already, which serves as well.
pub fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Headers upstream are ours alone: nothing of the client's travels, so nothing can be smuggled.
fn headers(own: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(own.len() + 5);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    // A compressed answer could expand without bound.
    headers.insert(
        header::ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    );
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("tollway"));
    for (name, value) in own {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(value),
        ) {
            headers.insert(name, value);
        }
    }
    headers
}

async fn error_body(response: Reply) -> Vec<u8> {
    let mut body = Vec::new();
    let mut reply = response.into_body();
    while let Some(Ok(frame)) = reply.frame().await {
        let bytes = frame.into_data().unwrap_or_default();
        let room = ERROR_BYTES_MAX - body.len();
        body.extend_from_slice(bytes.get(..room).unwrap_or(&bytes));
        if body.len() >= ERROR_BYTES_MAX {
            break;
        }
    }
    body
}
