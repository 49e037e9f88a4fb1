//! The answer of a request with an Idempotency-Key, recorded while it is given and written down at its end.

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};
use dialect::StreamWriter;
use store::{Claim, KeptAnswer};
use tokio::sync::watch;

use crate::{app::Shared, error::ApiError, once};

/// Between two attempts to write an answer down.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Holds a claimed key. Dropped, it gives the key back where nothing can be owed for the request,
/// and else leaves word that it was charged: however a request ends, its key is never left behind.
pub struct Recording {
    /// Taken when it is closed.
    open: Option<Open>,
}

struct Open {
    app: Shared,
    claim: Claim,
    /// Closes when the key is settled: wakes those who wait.
    done: watch::Sender<()>,
    body: BytesMut,
    /// More came than is kept.
    too_long: bool,
    max_tokens: Option<u64>,
    /// Something may be owed for it.
    owing: bool,
}

/// What becomes of a claimed key.
enum Fate {
    /// Nothing is owed: the next request with it runs anew.
    GivenBack,
    /// The answer is given to whoever repeats the request.
    Kept(KeptAnswer),
    /// It was charged, and there is no answer to give.
    NotKept,
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").finish_non_exhaustive()
    }
}

impl Recording {
    /// Records for a claim that was made.
    #[must_use]
    pub fn new(app: Shared, claim: Claim, done: watch::Sender<()>) -> Self {
        Self {
            open: Some(Open {
                app,
                claim,
                done,
                body: BytesMut::new(),
                too_long: false,
                max_tokens: None,
                owing: false,
            }),
        }
    }

    /// The request goes upstream: something may be owed for it from now on.
    pub fn may_owe(&mut self) {
        self.set_owing(true);
    }

    /// The attempt failed and nothing is owed for it.
    pub fn owes_nothing(&mut self) {
        self.set_owing(false);
    }

    /// The lowered output limit that the answer's header names.
    pub fn max_tokens(&mut self, tokens: Option<u64>) {
        if let Some(open) = &mut self.open {
            open.max_tokens = tokens;
        }
    }

    /// A plain answer, whole.
    pub fn answered(mut self, body: &Bytes) {
        self.push(body);
        self.close(false);
    }

    /// A piece of a stream, as the client gets it.
    pub fn push(&mut self, piece: &[u8]) {
        let Some(open) = &mut self.open else {
            return;
        };
        let max = open.app.settings.idempotency_answer_bytes_max;
        if open.too_long || open.body.len() + piece.len() > max {
            open.too_long = true;
            open.body = BytesMut::new();
            return;
        }
        open.body.extend_from_slice(piece);
    }

    /// The stream has ended. One that nobody owes anything for is not kept.
    pub fn streamed(mut self, owing: bool) {
        self.set_owing(owing);
        if owing {
            self.close(true);
        }
    }

    /// The client left and the rest of the answer was not waited for any longer: whoever repeats
    /// the request gets what there is, and is told so.
    pub fn cut(mut self, writer: &mut StreamWriter) {
        if let Some(open) = &self.open {
            let request = open.claim.request;
            let mut end = BytesMut::new();
            ApiError::AnswerCut(request).end_stream(writer, request, None, None, None, &mut end);
            self.push(&end);
        }
        self.close(true);
    }

    fn set_owing(&mut self, owing: bool) {
        if let Some(open) = &mut self.open {
            open.owing = owing;
        }
    }

    fn close(&mut self, stream: bool) {
        let Some(mut open) = self.open.take() else {
            return;
        };
        let fate = if open.too_long {
            Fate::NotKept
        } else {
            Fate::Kept(KeptAnswer {
                stream,
                max_tokens: open.max_tokens,
                body: std::mem::take(&mut open.body).into(),
            })
        };
        open.settle(fate);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            let fate = if open.owing {
                Fate::NotKept
            } else {
                Fate::GivenBack
            };
            open.settle(fate);
        }
    }
}

impl Open {
    /// Writes down what becomes of the key, in the background.
    fn settle(self, fate: Fate) {
        // Without a runtime the process ends: the claim falls with its replica.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(self.write(fate));
        }
    }

    async fn write(self, mut fate: Fate) {
        // Bounds what waits in memory while the books are away.
        let place = self.app.once.closing();
        if place.is_none() && matches!(fate, Fate::Kept(_)) {
            fate = Fate::NotKept;
        }
        let limits = once::limits(&self.app.settings);
        let give_up = tokio::time::Instant::now() + limits.kept_for;
        let mut pause = RETRY_FIRST;
        loop {
            let store = &self.app.store;
            let written = match &fate {
                Fate::GivenBack => store.release_claim(&self.claim).await,
                Fate::Kept(answer) => store.keep_answer(&self.claim, Some(answer), &limits).await,
                Fate::NotKept => store.keep_answer(&self.claim, None, &limits).await,
            };
            let Err(error) = written else {
                break;
            };
            if pause == RETRY_FIRST {
                tracing::warn!(
                    request_id = %self.claim.request, %error,
                    "the answer of an idempotent request cannot be written down yet"
                );
            }
            // Its key has expired by then.
            if tokio::time::Instant::now() >= give_up {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
        self.app.once.ended(&self.claim);
        drop(self.done);
    }
}
