//! The running server: its address, its scripts, and what it has seen.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::gates::Gates;
use crate::objects::{Given, Objects};
use crate::responses::Kept;
use crate::routes;
use crate::script::Script;
use crate::stats::{Stats, Tally, WaitTimeout};
use crate::wire::{Ending, Wire};

const CONNECTIONS_MAX: usize = 20_000;
const SEEN_MAX: usize = 1_024;
const SEEN_BYTES_MAX: usize = 16 << 20;
/// Also how long an idle connection is kept: longer than a client's pool keeps it.
const HEAD_LIMIT: Duration = Duration::from_secs(120);
/// Out of file descriptors, accepting fails at once, again and again.
const ACCEPT_RETRY: Duration = Duration::from_millis(20);

/// A provider that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct MockProvider {
    addr: SocketAddr,
    state: Arc<State>,
    /// Dropping it stops the server.
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    /// `GET`, `POST`.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// All headers, the key in `authorization` included.
    pub headers: HeaderMap,
    /// The body's bytes.
    pub body: Bytes,
}

impl SeenRequest {
    /// A header's value, if it is there and is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON; null where it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl MockProvider {
    /// Starts a provider at this address; port 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let state = Arc::new(State::new());
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve(listener, Arc::clone(&state), stopped));
        Ok(Self {
            addr,
            state,
            stop,
            server,
        })
    }

    /// What a client takes as its base URL: `http://127.0.0.1:PORT/v1`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// The address bound.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on answers a model as the script says, instead of any script before. In place of a
    /// model a path may be given (`/v1/messages`), for requests in other dialects.
    pub fn script(&self, model: &str, script: Script) {
        self.state.plays(|plays| {
            plays.entry(model.to_owned()).or_default().standing = Some(script);
        });
    }

    /// Answers one request for this model (or path) as the script says, before any standing
    /// script. Called again, it adds to those that wait.
    pub fn script_once(&self, model: &str, script: Script) {
        self.state.plays(|plays| {
            let play = plays.entry(model.to_owned()).or_default();
            play.once.push_back(script);
        });
    }

    /// Forgets all scripts of this model (or path).
    pub fn unscript(&self, model: &str) {
        self.state.plays(|plays| {
            plays.remove(model);
        });
    }

    /// Lets everybody pass who waits at this gate or comes to it later.
    pub fn open(&self, gate: &str) {
        self.state.gates.open(gate);
    }

    /// Pauses this long before each word of models without a script, `demo` excepted.
    pub fn set_pause(&self, pause: Duration) {
        let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        self.state.pause_us.store(micros, Ordering::Relaxed);
    }

    /// The last requests, oldest first: at most 1,024, and at most 16 MiB of bodies.
    #[must_use]
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.state.seen().requests.iter().cloned().collect()
    }

    /// The counts as they are now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.state.tally.read()
    }

    /// Waits until the counts are as wished, looking at each change of them, and returns them.
    ///
    /// # Errors
    /// They were not within 30 s.
    pub async fn wait_for(&self, holds: impl Fn(&Stats) -> bool) -> Result<Stats, WaitTimeout> {
        self.state.tally.wait_for(holds).await
    }

    /// Stops listening, breaks all connections off, and waits until that is done.
    pub async fn stop(self) {
        drop(self.stop);
        // Fails only where the task was lost, which is as good as stopped.
        let _ = self.server.await;
    }

    /// Waits for ever, for a program that does nothing else.
    pub async fn run(self) {
        let _running = self.stop;
        let _ = self.server.await;
    }
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) tally: Tally,
    pub(crate) gates: Arc<Gates>,
    plays: Mutex<HashMap<String, Play>>,
    seen: Mutex<Seen>,
    objects: Mutex<Objects>,
    pause_us: AtomicU64,
    pub(crate) kept_responses: Kept,
}

#[derive(Debug, Default)]
struct Play {
    once: VecDeque<Script>,
    standing: Option<Script>,
}

#[derive(Debug, Default)]
struct Seen {
    requests: VecDeque<SeenRequest>,
    bytes: usize,
}

impl State {
    fn new() -> Self {
        Self {
            tally: Tally::default(),
            gates: Arc::new(Gates::new()),
            plays: Mutex::default(),
            seen: Mutex::default(),
            objects: Mutex::default(),
            pause_us: AtomicU64::new(0),
            kept_responses: Kept::default(),
        }
    }

    pub(crate) fn pause(&self) -> Duration {
        Duration::from_micros(self.pause_us.load(Ordering::Relaxed))
    }

    /// The script for a model or path, taking the next of those for one request first.
    pub(crate) fn script_for(&self, model: &str) -> Option<Script> {
        self.plays(|plays| {
            let play = plays.get_mut(model)?;
            play.once.pop_front().or_else(|| play.standing.clone())
        })
    }

    /// Keeps a request, and forgets the oldest ones beyond the bounds.
    pub(crate) fn saw(&self, request: SeenRequest) {
        let mut seen = self.seen();
        seen.bytes += request.body.len();
        seen.requests.push_back(request);
        while seen.requests.len() > SEEN_MAX || seen.bytes > SEEN_BYTES_MAX {
            let Some(oldest) = seen.requests.pop_front() else {
                break;
            };
            seen.bytes -= oldest.body.len();
        }
    }

    /// Answers a path about files or batches; `None` for any other.
    pub(crate) fn given(&self, method: &Method, path: &str, body: &Bytes) -> Option<Given> {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.answer(method, path, body)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plays<T>(&self, with: impl FnOnce(&mut HashMap<String, Play>) -> T) -> T {
        with(&mut self.plays.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn serve(listener: TcpListener, state: Arc<State>, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&state)));
                }
                Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn connection(stream: TcpStream, state: Arc<State>) {
    let _open = OpenConnection::count(&state.tally);
    // Each chunk is to leave at once; without this the last one waits for 40 ms.
    let _ = stream.set_nodelay(true);
    let ending = Ending::default();
    let wire = Wire::new(stream, ending.clone());
    let service =
        service_fn(move |request| routes::handle(Arc::clone(&state), ending.clone(), request));
    // Ends with an error whenever a script cuts or a client hangs up: both are counted elsewhere.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(wire), service)
        .await;
}

struct OpenConnection(Tally);

impl OpenConnection {
    fn count(tally: &Tally) -> Self {
        tally.change(|stats| {
            stats.connections += 1;
            stats.open_connections += 1;
        });
        Self(tally.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.change(|stats| stats.open_connections -= 1);
    }
}
