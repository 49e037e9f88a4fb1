//! The HTTP client of the request path: pooled connections of hyper's, and reqwest where a proxy stands between.

use std::{
    error::Error as _,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, Uri, uri::Scheme};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::{self, connect::HttpConnector},
        proxy::matcher::Matcher,
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use reqwest::redirect;
use rustls_platform_verifier::ConfigVerifierExt as _;
use tokio::net::TcpStream;
use tower::Service;

use super::Failure;

/// Idle connections kept per provider.
const IDLE_CONNECTIONS_MAX: usize = 1024;
/// How long they are kept: below the minute after which common load balancers close.
const IDLE_CONNECTION_AGE_MAX: Duration = Duration::from_secs(50);
/// A connection on which nothing moves is asked for a sign of life after this time, and this often.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// So many signs of life may be missing.
const KEEPALIVE_RETRIES: u32 = 3;
/// What was sent and is not acknowledged for so long breaks its connection.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// How often a request is sent again that the provider's HTTP/2 side says it has not looked at.
const NOT_BEGUN_RETRIES: u8 = 2;

/// What a provider answers: its head is here, its body comes.
pub type Reply = Response<ReplyBody>;

/// Sends requests, over connections that are kept.
#[derive(Clone, Debug)]
pub struct HttpClient {
    direct: legacy::Client<Connector, Full<Bytes>>,
    /// For what goes through a proxy, and for what is not on the request path.
    other: reqwest::Client,
    /// The proxies that the environment names (`HTTPS_PROXY` and its like).
    proxies: std::sync::Arc<Matcher>,
}

/// The body of a [`Reply`].
#[derive(Debug)]
pub enum ReplyBody {
    /// Straight from the provider.
    Direct(Incoming),
    /// Through a proxy.
    Proxied(reqwest::Body),
}

/// Why the client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// reqwest's part of it.
    #[error(transparent)]
    Reqwest(#[from] reqwest::Error),
    /// TLS without certificates to trust.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

impl HttpClient {
    /// A client whose connections stand within `connect_timeout`, TLS included.
    ///
    /// # Errors
    /// No TLS, which would be a broken build.
    pub fn new(connect_timeout: Duration) -> Result<Self, ClientError> {
        let other = reqwest::Client::builder()
            // A redirect to another host would carry the provider's key along.
            .redirect(redirect::Policy::none())
            .connect_timeout(connect_timeout)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_CONNECTION_AGE_MAX)
            .tcp_nodelay(true)
            .build()?;
        let direct = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_CONNECTION_AGE_MAX)
            .build(Connector::new(connect_timeout)?);
        Ok(Self {
            direct,
            other,
            proxies: std::sync::Arc::new(Matcher::from_env()),
        })
    }

    /// The client for what is not on the request path.
    pub(super) const fn other(&self) -> &reqwest::Client {
        &self.other
    }

    /// Sends a request whose body comes piece by piece, and waits for the head of the answer.
    ///
    /// # Errors
    /// [`Failure::Connect`], [`Failure::Broken`].
    pub(super) async fn send_on(
        &self,
        head: Request<Bytes>,
        body: reqwest::Body,
    ) -> Result<Reply, Failure> {
        let mut request = reqwest::Request::try_from(head).map_err(|_| Failure::Connect)?;
        *request.body_mut() = Some(body);
        let answer = self.other.execute(request).await;
        let answer = answer.map_err(|error| from_reqwest(&error))?;
        Ok(Response::from(answer).map(ReplyBody::Proxied))
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// [`Failure::Connect`], [`Failure::Broken`].
    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Reply, Failure> {
        if self.proxies.intercept(request.uri()).is_some() {
            let request = reqwest::Request::try_from(request).map_err(|_| Failure::Connect)?;
            let answer = Box::pin(self.other.execute(request)).await;
            let answer = answer.map_err(|error| from_reqwest(&error))?;
            return Ok(Response::from(answer).map(ReplyBody::Proxied));
        }
        let (head, body) = request.into_parts();
        // Without TLS nobody chooses HTTP/2.
        let retries = if head.uri.scheme() == Some(&Scheme::HTTPS) {
            NOT_BEGUN_RETRIES
        } else {
            0
        };
        for _ in 0..retries {
            let again = Request::from_parts(head.clone(), Full::new(body.clone()));
            match self.direct.request(again).await {
                Err(error) if was_not_begun(&error) => {}
                answer => return reply(answer),
            }
        }
        let last = Request::from_parts(head, Full::new(body));
        reply(self.direct.request(last).await)
    }
}

fn reply(answer: Result<Response<Incoming>, legacy::Error>) -> Result<Reply, Failure> {
    match answer {
        Ok(answer) => Ok(answer.map(ReplyBody::Direct)),
        Err(error) if error.is_connect() => Err(Failure::Connect),
        Err(_) => Err(Failure::Broken),
    }
}

/// The other side says over HTTP/2 that it has not looked at the request (RFC 9113, 8.7): it closes
/// in order, or takes no more streams.
fn was_not_begun(error: &legacy::Error) -> bool {
    let cause = error.source().and_then(|error| error.source());
    let Some(error) = cause.and_then(|cause| cause.downcast_ref::<h2::Error>()) else {
        return false;
    };
    let closes = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    let refuses = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (closes || refuses)
}

/// What became of a connection, without its address.
fn from_reqwest(error: &reqwest::Error) -> Failure {
    if error.is_connect() {
        Failure::Connect
    } else if error.is_timeout() {
        Failure::Timeout
    } else {
        Failure::Broken
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match self.get_mut() {
            Self::Direct(body) => Pin::new(body).poll_frame(cx).map_err(|_| Failure::Broken),
            Self::Proxied(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|error| from_reqwest(&error)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Direct(body) => body.is_end_stream(),
            Self::Proxied(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Direct(body) => body.size_hint(),
            Self::Proxied(body) => body.size_hint(),
        }
    }
}

/// Makes connections: TCP, and TLS where the address asks for it, which then chooses the version of
/// HTTP. All of it within one time.
#[derive(Clone, Debug)]
struct Connector {
    https: HttpsConnector<HttpConnector>,
    timeout: Duration,
}

impl Connector {
    fn new(timeout: Duration) -> Result<Self, rustls::Error> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(timeout));
        http.set_keepalive(Some(KEEPALIVE));
        http.set_keepalive_interval(Some(KEEPALIVE));
        http.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        #[cfg(target_os = "linux")]
        http.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(rustls::ClientConfig::with_platform_verifier()?)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(http);
        Ok(Self { https, timeout })
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.https.call(to);
        let within = tokio::time::timeout(self.timeout, connecting);
        Box::pin(async move {
            within
                .await
                .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
        })
    }
}
