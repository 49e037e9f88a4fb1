//! The body of a streamed answer, as the HTTP server polls it, and what becomes of it when nobody does.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use billing::Charge;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body::{Body, Frame};
use tokio::task::JoinHandle;

use crate::{
    kept::Keeping,
    recording::Recording,
    settings::ClientGonePolicy,
    stream::{State, Stream},
    upstream::Failure,
};

/// A metered stream as a body. Dropped before its end, its client is gone.
pub struct MeteredBody {
    /// Absent only while it is being dropped.
    stream: Option<Box<Stream>>,
    /// Of a request with an Idempotency-Key.
    recording: Option<Recording>,
    /// Of a response that is kept.
    keeping: Option<Keep>,
    policy: ClientGonePolicy,
    drain_max: Duration,
}

/// A response that is kept before its end is handed on.
enum Keep {
    /// Once it has come.
    Then(Keeping),
    /// It is being written down, in a task that outlives the client.
    Now(JoinHandle<()>),
}

/// A stream that failed before anything was promised to the client.
pub struct NotOpened {
    /// Nothing is owed for it if another attempt is made.
    pub charge: Option<Charge>,
    /// What happened.
    pub failure: Failure,
}

impl MeteredBody {
    /// Waits for the provider's first event, so that an error before it keeps its real status.
    ///
    /// # Errors
    /// [`NotOpened`] gives the charge back.
    pub async fn open(
        stream: Stream,
        policy: ClientGonePolicy,
        drain_max: Duration,
    ) -> Result<Self, Box<NotOpened>> {
        let mut body = Self {
            stream: Some(Box::new(stream)),
            recording: None,
            keeping: None,
            policy,
            drain_max,
        };
        std::future::poll_fn(|cx| match &mut body.stream {
            Some(stream) => stream.poll_gather(cx),
            None => Poll::Ready(()),
        })
        .await;
        body.opened()
    }

    /// Records what is given to the client. Such a stream is read on when the client leaves,
    /// whatever the policy: it said that it will come back for the answer.
    pub fn record(&mut self, recording: Recording) {
        self.recording = Some(recording);
        self.policy = ClientGonePolicy::Drain;
    }

    /// Keeps the response that this is the stream of, if it comes whole.
    pub(crate) fn keep(&mut self, keeping: Option<Keeping>) {
        self.keeping = keeping.map(Keep::Then);
    }

    fn opened(mut self) -> Result<Self, Box<NotOpened>> {
        let Some(mut stream) = self.stream.take() else {
            return Ok(self);
        };
        match std::mem::replace(&mut stream.state, State::Open) {
            State::NotOpened(failure) => Err(Box::new(NotOpened {
                charge: stream.charge.take(),
                failure,
            })),
            State::Unopened | State::Open | State::Drained => {
                stream.watched.opened();
                self.stream = Some(stream);
                Ok(self)
            }
        }
    }
}

impl Body for MeteredBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(None);
        };
        if stream.gathers() {
            ready!(stream.poll_gather(cx));
        }
        if stream.out.is_empty() {
            return Poll::Ready(None);
        }
        if stream.charge.is_none() {
            ready!(poll_keep(&mut this.keeping, stream, cx));
        }
        stream.write_progress();
        let bytes = stream.out.split().freeze();
        let ended = stream.charge.is_none().then_some(stream.owing);
        if let Some(recording) = &mut this.recording {
            recording.push(&bytes);
        }
        if let Some(owing) = ended
            && let Some(recording) = this.recording.take()
        {
            recording.streamed(owing);
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream
            .as_ref()
            .is_none_or(|stream| stream.charge.is_none() && stream.out.is_empty())
    }
}

impl Drop for MeteredBody {
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else {
            return;
        };
        let recording = self.recording.take();
        let keeping = self.keeping.take();
        let drained = self.policy == ClientGonePolicy::Drain
            && matches!(stream.state, State::Open)
            && stream.charge.is_some();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if drained => {
                stream.state = State::Drained;
                runtime.spawn(drain(stream, self.drain_max, recording, keeping));
            }
            Ok(_) | Err(_) => leave(stream, recording),
        }
    }
}

/// Ready when the response is written down, where it has come whole and is kept.
fn poll_keep(keep: &mut Option<Keep>, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        *keep = match keep.take() {
            None => return Poll::Ready(()),
            Some(Keep::Then(keeping)) => stream.writer.kept().map(|response| {
                // The client may leave: it was told by then that the response is kept.
                Keep::Now(tokio::spawn(keeping.keep(response.into())))
            }),
            Some(Keep::Now(mut task)) => {
                if task.poll_unpin(cx).is_pending() {
                    *keep = Some(Keep::Now(task));
                    return Poll::Pending;
                }
                None
            }
        };
    }
}

/// Reads on for a client that is gone, so that it is charged by the provider's own figure.
async fn drain(
    mut stream: Box<Stream>,
    limit: Duration,
    mut recording: Option<Recording>,
    keeping: Option<Keep>,
) {
    let read = async {
        while stream.charge.is_some() {
            let read = stream.out.split();
            if let Some(recording) = &mut recording {
                recording.push(&read);
            }
            std::future::poll_fn(|cx| stream.poll_gather(cx)).await;
        }
    };
    let _ = tokio::time::timeout(limit, read).await;
    if let (Some(Keep::Then(keeping)), Some(response)) = (keeping, stream.writer.kept()) {
        keeping.keep(response.into()).await;
    }
    leave(stream, recording);
}

/// Lets a stream go: settles what is not settled, and ends its recording with what there is.
fn leave(mut stream: Box<Stream>, recording: Option<Recording>) {
    if let Some(mut recording) = recording {
        recording.push(&stream.out.split());
        if stream.charge.is_some() {
            recording.cut(&mut stream.writer);
        } else {
            recording.streamed(stream.owing);
        }
    }
    stream.abandon();
}
