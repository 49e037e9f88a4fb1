//! The listener: bounded connections, time limits on slow clients, and a shutdown that lets streams end.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
    time::Sleep,
};
use tokio_io_timeout::TimeoutStream;

/// Time limits and bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Open connections at most; more wait in the kernel's queue.
    pub connections_max: usize,
    /// From a connection, or the end of a request, to the end of the next request's headers.
    pub header_timeout: Duration,
    /// A client that takes nothing for this long is gone.
    pub write_timeout: Duration,
    /// How long open connections may go on after `stop`.
    pub grace: Duration,
}

/// Streams of one HTTP/2 connection at most.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// Headers of a request at most, in bytes.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// New connections that the kernel keeps until they are accepted; it may allow fewer
/// (`net.core.somaxconn`). Of more than that it forgets some, and their clients do not hear of it.
const BACKLOG: u32 = 4096;
/// Pause after the system refused a connection (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` on `listener` until `stop`, then waits for open connections within the grace.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    stop: impl Future<Output = ()>,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_buf_size(HEADER_BYTES_MAX as usize)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(Some(bounds.write_timeout))
        .keep_alive_timeout(bounds.header_timeout);
    let places = Arc::new(Semaphore::new(bounds.connections_max));
    let graceful = GracefulShutdown::new();
    let protocols = Arc::new(Protocols::of(builder));
    let (stopping, stopped) = watch::channel(());
    let mut stop = std::pin::pin!(stop);
    loop {
        let next = tokio::select! {
            next = accept(&listener, &places) => next,
            () = &mut stop => break,
        };
        let (stream, place) = match next {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; raise the limit of open files if this goes on");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let protocols = protocols.clone();
        let service = TowerToHyperService::new(router.clone());
        let watcher = graceful.watcher();
        let mut stopped = stopped.clone();
        tokio::spawn(async move {
            let heard = tokio::select! {
                heard = protocols.heard(&stream, bounds.header_timeout) => heard,
                // Who has said nothing until now is not waited for.
                _ = stopped.changed() => None,
            };
            drop(stopped);
            if let Some((builder, limit)) = heard {
                let mut stream = TimeoutStream::new(Opening::new(stream, limit));
                stream.set_write_timeout(Some(bounds.write_timeout));
                let connection = builder.serve_connection(TokioIo::new(Box::pin(stream)), service);
                // A client that resets its connection is no news.
                let _ = watcher.watch(connection).await;
            }
            drop(place);
        });
    }
    drop(listener);
    drop(stopping);
    let _ = tokio::time::timeout(bounds.grace, graceful.shutdown()).await;
}

/// The beginning of an HTTP/2 connection (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The ways to serve a connection. The one that finds out by reading reads the preface apart, which
/// costs each connection twice the buffer: hyper grows it for what comes behind.
struct Protocols {
    http1: Builder<TokioExecutor>,
    http2: Builder<TokioExecutor>,
    either: Builder<TokioExecutor>,
}

type Heard<'a> = (&'a Builder<TokioExecutor>, Option<Duration>);

impl Protocols {
    fn of(builder: Builder<TokioExecutor>) -> Self {
        Self {
            http1: builder.clone().http1_only(),
            http2: builder.clone().http2_only(),
            either: builder,
        }
    }

    /// Looks at what a client says first, and leaves it there: how it is served, and the time that it
    /// still has to say which HTTP it speaks, where it has not. `None` where it says nothing within
    /// `limit`, or is gone.
    async fn heard(&self, stream: &TcpStream, limit: Duration) -> Option<Heard<'_>> {
        let mut first = [0; PREFACE.len()];
        let peeked = tokio::time::timeout(limit, stream.peek(&mut first)).await;
        let first = first.get(..peeked.ok()?.ok()?)?;
        match first {
            [] => None,
            PREFACE => Some((&self.http2, None)),
            // Too little to tell.
            some if PREFACE.starts_with(some) => Some((&self.either, Some(limit))),
            _ => Some((&self.http1, None)),
        }
    }
}

/// A connection that breaks if it does not say in time which HTTP it speaks. Hyper's own limit
/// begins only when that is known: a client that says nothing would keep its place for ever.
struct Opening {
    stream: TcpStream,
    /// Present while what was read could still become the preface.
    limit: Option<Pin<Box<Sleep>>>,
    read: usize,
}

impl Opening {
    fn new(stream: TcpStream, limit: Option<Duration>) -> Self {
        Self {
            stream,
            limit: limit.map(|limit| Box::pin(tokio::time::sleep(limit))),
            read: 0,
        }
    }

    /// Takes note of what was read; an end decides too.
    fn note(&mut self, bytes: &[u8]) {
        let rest = PREFACE.get(self.read..).unwrap_or_default();
        self.read += bytes.len();
        if bytes.is_empty() || bytes.len() >= rest.len() || !rest.starts_with(bytes) {
            self.limit = None;
        }
    }
}

impl AsyncRead for Opening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let Some(limit) = &mut self.limit else {
            return polled;
        };
        if polled.is_pending() {
            ready!(limit.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.note(buffer.filled().get(before..).unwrap_or_default());
        polled
    }
}

impl AsyncWrite for Opening {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = places
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Without it the tail of every stream waits 40 ms for the client's acknowledgement.
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

/// Binds an address, with an error that says what to do.
///
/// # Errors
/// The address is taken or not ours.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    listen(address).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot listen on {address}: {error}; choose another with --listen"),
        )
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restart does not wait for the connections of the process before. On Windows this would
    // allow two to listen.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than the 128 that the kernel would keep unasked.
    const BURST: usize = 400;

    #[tokio::test]
    async fn a_burst_of_connections_finds_a_place() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let mut clients = Vec::new();
        for _ in 0..BURST {
            // The kernel answers for the listener; without a place it leaves the client waiting.
            let connected = TcpStream::connect(address);
            let connected = tokio::time::timeout(Duration::from_secs(30), connected).await;
            clients.push(connected.unwrap().unwrap());
        }
        for _ in 0..BURST {
            let accepted = tokio::time::timeout(Duration::from_secs(30), listener.accept()).await;
            accepted.unwrap().unwrap();
        }
    }
}
