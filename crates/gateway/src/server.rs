//! The listener: bounded connections, time limits on slow clients, and a shutdown that lets streams end.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore};
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
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(bounds.write_timeout));
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection(TokioIo::new(Box::pin(stream)), service);
        let connection = graceful.watch(connection.into_owned());
        tokio::spawn(async move {
            // A client that resets its connection is no news.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(bounds.grace, graceful.shutdown()).await;
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
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
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot listen on {address}: {error}; choose another with --listen"),
        )
    })
}
