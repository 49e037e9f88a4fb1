//! What has happened so far, and waiting for it without sleeping.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Longer than any test waits for something that does happen.
const WAIT_LIMIT: Duration = Duration::from_secs(30);

/// Counts since the start, and what is going on now (`open_…`, `at_gates`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now.
    pub open_connections: u64,
    /// Requests whose body has arrived.
    pub requests: u64,
    /// Answers that are not streams being made now; they also wait before the head of a stream.
    pub open_requests: u64,
    /// Requests whose client hung up before the head, or the whole of a plain answer, was ready.
    pub requests_aborted: u64,
    /// Streams whose head was sent.
    pub streams: u64,
    /// Streams going on now, pauses and gates included.
    pub open_streams: u64,
    /// Streams that came to the end of their script.
    pub streams_completed: u64,
    /// Streams that their script cut.
    pub streams_cut: u64,
    /// Streams whose client hung up.
    pub streams_aborted: u64,
    /// Answers waiting at a closed gate now.
    pub at_gates: u64,
    /// Word and tool-call chunks sent. Brought up to date when a stream waits or ends.
    pub chunks: u64,
}

/// What was waited for did not happen within 30 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeout {
    /// How far things had come.
    pub stats: Stats,
}

impl std::fmt::Display for WaitTimeout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let limit_s = WAIT_LIMIT.as_secs();
        write!(f, "not within {limit_s} s; {:?}", self.stats)
    }
}

impl std::error::Error for WaitTimeout {}

/// The counts, shared by all connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    stats: Arc<watch::Sender<Stats>>,
}

impl Tally {
    pub(crate) fn read(&self) -> Stats {
        *self.stats.borrow()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Stats)) {
        self.stats.send_modify(change);
    }

    pub(crate) async fn wait_for(
        &self,
        holds: impl Fn(&Stats) -> bool,
    ) -> Result<Stats, WaitTimeout> {
        let mut changes = self.stats.subscribe();
        let held = changes.wait_for(|stats| holds(stats));
        match tokio::time::timeout(WAIT_LIMIT, held).await {
            Ok(Ok(stats)) => Ok(*stats),
            Ok(Err(_)) | Err(_) => Err(WaitTimeout { stats: self.read() }),
        }
    }
}

/// What an answer is, for the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Request,
    Stream,
    Ended,
}

/// Counts one answer from its beginning to whatever end it has: dropped early, it was aborted.
#[derive(Debug)]
pub(crate) struct Progress {
    tally: Tally,
    stage: Stage,
    at_gate: bool,
    chunks: u64,
}

impl Progress {
    pub(crate) fn begin(tally: &Tally) -> Self {
        tally.change(|stats| {
            stats.requests += 1;
            stats.open_requests += 1;
        });
        Self {
            tally: tally.clone(),
            stage: Stage::Request,
            at_gate: false,
            chunks: 0,
        }
    }

    /// The head of a stream is about to be sent.
    pub(crate) fn streams(&mut self) {
        if self.stage == Stage::Request {
            self.stage = Stage::Stream;
            self.tally.change(|stats| {
                stats.open_requests -= 1;
                stats.streams += 1;
                stats.open_streams += 1;
            });
        }
    }

    /// Kept here until the stream waits or ends: a burst costs no shared write for each chunk.
    pub(crate) fn chunk(&mut self) {
        self.chunks += 1;
    }

    pub(crate) fn waits(&mut self, at_gate: bool) {
        self.at_gate = at_gate;
        let chunks = std::mem::take(&mut self.chunks);
        if at_gate || chunks > 0 {
            self.tally.change(|stats| {
                stats.at_gates += u64::from(at_gate);
                stats.chunks += chunks;
            });
        }
    }

    pub(crate) fn goes_on(&mut self) {
        if std::mem::take(&mut self.at_gate) {
            self.tally.change(|stats| stats.at_gates -= 1);
        }
    }

    pub(crate) fn completed(&mut self) {
        self.end(|stats| stats.streams_completed += 1, |_stats| ());
    }

    pub(crate) fn cut(&mut self) {
        self.end(|stats| stats.streams_cut += 1, |_stats| ());
    }

    fn end(&mut self, stream: impl FnOnce(&mut Stats), request: impl FnOnce(&mut Stats)) {
        let stage = std::mem::replace(&mut self.stage, Stage::Ended);
        let (chunks, at_gate) = (self.chunks, self.at_gate);
        self.tally.change(|stats| match stage {
            Stage::Request => {
                stats.open_requests -= 1;
                stats.chunks += chunks;
                stats.at_gates -= u64::from(at_gate);
                request(stats);
            }
            Stage::Stream => {
                stats.open_streams -= 1;
                stats.chunks += chunks;
                stats.at_gates -= u64::from(at_gate);
                stream(stats);
            }
            Stage::Ended => {}
        });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.stage != Stage::Ended {
            self.end(
                |stats| stats.streams_aborted += 1,
                |stats| stats.requests_aborted += 1,
            );
        }
    }
}
