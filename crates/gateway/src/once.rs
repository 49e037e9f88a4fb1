//! Requests with an Idempotency-Key: one of them runs, everybody else who sends it waits and gets the same answer.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::response::Response;
use billing::{AccountId, RequestId};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use store::{Claim, Claimed, IdempotencyKey, KeepLimits, KeyRecord, RequestHash, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::{
    answer,
    app::{ReplayOf, Shared},
    error::ApiError,
    input::invalid,
    recording::Recording,
    settings::Settings,
};

/// The header that makes a call with effect safe to repeat.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Says that the answer is that of an earlier call.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Callers of one replica that may wait for another one's answer.
const WAITERS_MAX: usize = 512;
/// Answers of one replica that may wait to be written down.
const CLOSING_MAX: usize = 256;
/// Between two looks at a request that runs on another replica: short at first.
const LOOK_FIRST: Duration = Duration::from_millis(15);
const LOOK_MAX: Duration = Duration::from_millis(500);

/// The requests with a key that run on this replica, and who waits for them.
#[derive(Debug)]
pub struct Once {
    running: Mutex<HashMap<Name, Running>>,
    waiters: Arc<Semaphore>,
    closing: Arc<Semaphore>,
    /// How many run.
    count: watch::Sender<usize>,
}

/// An account's key.
type Name = (AccountId, String);

#[derive(Clone, Debug)]
struct Running {
    hash: RequestHash,
    request: RequestId,
    /// Closes when the answer is written down.
    done: watch::Receiver<()>,
}

/// What a caller with a key does.
pub enum Turn {
    /// It is the one that runs.
    Run(Recording),
    /// It gets the answer of the one that ran.
    Replay(Response),
}

/// Tells a request's own task that its client has left.
pub type Gone = oneshot::Receiver<()>;

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Run(_) => "Run",
            Self::Replay(_) => "Replay",
        })
    }
}

impl Default for Once {
    fn default() -> Self {
        Self {
            running: Mutex::default(),
            waiters: Arc::new(Semaphore::new(WAITERS_MAX)),
            closing: Arc::new(Semaphore::new(CLOSING_MAX)),
            count: watch::Sender::new(0),
        }
    }
}

/// The call's Idempotency-Key. Two of them could mean either, so they are refused.
///
/// # Errors
/// 400 that names the header.
pub fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, ApiError> {
    let mut all = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = all.next() else {
        return Ok(None);
    };
    if all.next().is_some() {
        return Err(invalid("Idempotency-Key", "is there twice; send it once"));
    }
    // What is not text is refused like any other key of the wrong letters.
    Ok(Some(IdempotencyKey::new(
        value.to_str().unwrap_or_default(),
    )?))
}

/// The bounds of what is kept, as they are set.
#[must_use]
pub fn limits(settings: &Settings) -> KeepLimits {
    KeepLimits {
        kept_for: settings.idempotency_kept,
        keys_max: u32::try_from(settings.idempotency_keys_max).unwrap_or(u32::MAX),
        account_bytes_max: settings.idempotency_account_bytes_max as u64,
    }
}

/// Waits for the turn of a caller with a key: to run, or to get what another one got. Called in
/// a task of its own, because a claim that was begun must not be forgotten when a client leaves.
///
/// # Errors
/// 409 while another one runs and where its answer is not kept, 422 for a key that came with
/// another request, 429 for too many keys, 503 when the books cannot be asked.
pub async fn turn(
    app: &Shared,
    claim: Claim,
    arrived: Instant,
    gone: &mut Gone,
) -> Result<Turn, ApiError> {
    let deadline = arrived + app.settings.idempotency_wait;
    let limits = limits(&app.settings);
    let mut place: Option<OwnedSemaphorePermit> = None;
    let mut pause = LOOK_FIRST;
    loop {
        let here = app.once.running(&claim);
        let (request, done) = match here {
            Some(running) if running.hash != claim.hash => return Err(ApiError::KeyReused),
            Some(running) => (running.request, Some(running.done)),
            None => match app.store.claim(&claim, &limits).await {
                Ok(Claimed::Granted) => return app.once.run(app, claim, gone),
                Ok(Claimed::Running { request, .. }) => (request, None),
                Ok(Claimed::Answered { request, answer }) => {
                    return Ok(Turn::Replay(replay(request, answer)));
                }
                Ok(Claimed::NotKept { request }) => return Err(ApiError::AnswerNotKept(request)),
                Ok(Claimed::OtherRequest) => return Err(ApiError::KeyReused),
                Ok(Claimed::TooMany) => return Err(ApiError::TooManyKeys),
                Err(error) => {
                    // Whether it was made is not known: then nobody else could ever make it.
                    give_back(app, claim);
                    return Err(error.into());
                }
            },
        };
        if place.is_none() {
            place = app.once.waiters.clone().try_acquire_owned().ok();
        }
        if place.is_none() || Instant::now() >= deadline {
            return Err(ApiError::StillRunning(request));
        }
        let until = deadline.min(Instant::now() + pause);
        let wait = async {
            match done {
                // It says so when it is done: no need to look.
                Some(mut done) => {
                    let done = async { while done.changed().await.is_ok() {} };
                    let _ = tokio::time::timeout_at(deadline.into(), done).await;
                }
                None => tokio::time::sleep_until(until.into()).await,
            }
        };
        tokio::select! {
            () = wait => {}
            // Nobody is there any more to run it for.
            _ = &mut *gone => return Err(ApiError::StillRunning(request)),
        }
        pause = (pause * 2).min(LOOK_MAX);
    }
}

impl Once {
    /// Waits until every answer is written down, or `limit` is over.
    pub async fn finish(&self, limit: Duration) {
        let mut count = self.count.subscribe();
        let none = count.wait_for(|count| *count == 0);
        let _ = tokio::time::timeout(limit, none).await;
    }

    /// A place among the answers that wait to be written down.
    pub(crate) fn closing(&self) -> Option<OwnedSemaphorePermit> {
        self.closing.clone().try_acquire_owned().ok()
    }

    /// It is over: whoever waits here for it may look.
    pub(crate) fn ended(&self, claim: &Claim) {
        let mut running = self.lock();
        let name = name(claim);
        if running
            .get(&name)
            .is_some_and(|running| running.request == claim.request)
        {
            running.remove(&name);
        }
        self.count.send_replace(running.len());
    }

    fn run(&self, app: &Shared, claim: Claim, gone: &mut Gone) -> Result<Turn, ApiError> {
        let (done, receiver) = watch::channel(());
        let running = Running {
            hash: claim.hash,
            request: claim.request,
            done: receiver,
        };
        let request = claim.request;
        {
            let mut all = self.lock();
            all.insert(name(&claim), running);
            self.count.send_replace(all.len());
        }
        let recording = Recording::new(app.clone(), claim, done);
        // From here on the recording gives the key back where nothing becomes of the request.
        if !matches!(gone.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            return Err(ApiError::StillRunning(request));
        }
        Ok(Turn::Run(recording))
    }

    fn running(&self, claim: &Claim) -> Option<Running> {
        self.lock().get(&name(claim)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one request claims.
///
/// # Errors
/// [`StoreError::Empty`]: never on a store that serves.
pub fn claim(
    app: &Shared,
    key: &KeyRecord,
    once: IdempotencyKey,
    path: &str,
    body: &Bytes,
    request: RequestId,
) -> Result<Claim, StoreError> {
    Ok(Claim {
        account: key.account_id,
        key: once,
        hash: app.store.request_hash("POST", path, key.key_id, body)?,
        request,
        replica: app.ledger.escrow().replica(),
    })
}

/// Gives a key back in the background.
fn give_back(app: &Shared, claim: Claim) {
    let (done, _) = watch::channel(());
    drop(Recording::new(app.clone(), claim, done));
}

fn name(claim: &Claim) -> Name {
    (claim.account, claim.key.as_str().to_owned())
}

/// The answer of an earlier request, as its own client got it.
fn replay(request: RequestId, kept: store::KeptAnswer) -> Response {
    let body = Bytes::from(kept.body);
    let mut response = if kept.stream {
        answer::events(body.into())
    } else {
        answer::json(body)
    };
    let headers = response.headers_mut();
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    if let Some(tokens) = kept.max_tokens {
        headers.insert(answer::X_MAX_TOKENS, HeaderValue::from(tokens));
    }
    response.extensions_mut().insert(ReplayOf(request));
    response
}
