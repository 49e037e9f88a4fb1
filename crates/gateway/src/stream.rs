//! A stream from a provider to a client: every event metered, covered before it is delivered, settled once.

use std::{
    collections::VecDeque,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use billing::{Charge, Credits, End, Settled, Text, Verdict};
use bytes::BytesMut;
use dialect::{Bill, Chunk, Decoder, Delta, Ending, Framer, Framing, Origin, StreamWriter};
use futures_util::future::BoxFuture;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use smallvec::SmallVec;
use store::Shortfall;
use tokens::OFF_THREAD_BYTES_MIN;
use tokio::time::Sleep;

use crate::{
    admit,
    app::Shared,
    arrival::Asked,
    bill::{off_thread_if, piece, tier_of, with_bill},
    catalogue::Model,
    counting,
    credit::Search,
    error::ApiError,
    upstream::{Failure, Reply, ReplyBody},
    watch::Watched,
};

/// What a running stream has consumed is written down this often.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(3);
/// Output is handed on when this much of it has gathered, even if more has arrived.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// Events that follow each other closer than this come in a burst.
const BURST_GAP: Duration = Duration::from_millis(5);
/// After the end of an answer its connection is read for this long at most, to be used again.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// One stream.
pub struct Stream {
    app: Shared,
    pub(crate) watched: Watched,
    /// Present until the stream is settled.
    pub(crate) charge: Option<Charge>,
    upstream: Option<ReplyBody>,
    framer: Framer,
    decoder: Decoder,
    deltas: Vec<Delta>,
    queue: VecDeque<Item>,
    /// Written and not handed on.
    pub(crate) out: BytesMut,
    /// Writes it in the client's dialect.
    pub(crate) writer: StreamWriter,
    pub(crate) state: State,
    /// Whether something is owed for it; known once it is settled.
    pub(crate) owing: bool,
    search: Search,
    idle: Pin<Box<Sleep>>,
    last_read: Instant,
    /// Since when what was read had no output: counted by what is read, so that a client that
    /// reads slowly does not make the provider late.
    quiet_since: Option<Instant>,
    burst: Burst,
    last_checkpoint: Instant,
    /// There was output since.
    checkpoint_lacks: bool,
    cut_now: BoxFuture<'static, ()>,
}

/// What the client knows of the stream.
pub enum State {
    /// Nothing yet, so a failure can still have its real status.
    Unopened,
    /// It failed before anything was promised.
    NotOpened(Failure),
    /// The status is sent: failures travel inside.
    Open,
    /// The client is gone, and the provider's own figure is waited for.
    Drained,
}

/// Whether events come one by one or many at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Burst {
    /// Each is handed on as it comes.
    No,
    /// The last came right after the one before it: more may be on its way.
    Running,
    /// The connection to the provider was given a turn since; what it read is here.
    TurnGiven,
}

/// What waits to be taken in.
enum Item {
    Delta(Delta),
    /// The provider failed after what came before.
    Failed(Failure),
}

/// Whether an item could be taken in.
enum Step {
    Done,
    Lacks(Credits),
}

impl Stream {
    /// A stream over a provider's answer.
    pub fn new(
        asked: &Asked,
        charge: Charge,
        framing: Framing,
        decoder: Decoder,
        writer: StreamWriter,
        reply: Reply,
    ) -> Self {
        let (app, watched) = (asked.app.clone(), asked.watched.clone());
        let now = Instant::now();
        let mut cut = app.cut_streams.clone();
        let first_byte = app.settings.first_byte_timeout;
        Self {
            framer: framing.framer(app.settings.event_bytes_max),
            decoder,
            watched,
            charge: Some(charge),
            upstream: Some(reply.into_body()),
            deltas: Vec::new(),
            queue: VecDeque::new(),
            out: BytesMut::new(),
            writer,
            state: State::Unopened,
            owing: false,
            search: Search::Enough,
            idle: Box::pin(tokio::time::sleep(first_byte)),
            last_read: now,
            quiet_since: None,
            burst: Burst::No,
            last_checkpoint: now,
            checkpoint_lacks: false,
            cut_now: Box::pin(async move {
                // An error means that nobody can cut any more: wait for ever.
                if cut.wait_for(|cut| *cut).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }),
            app,
        }
    }

    /// Gathers output: ready when some must be handed on, and at the end.
    pub fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Within a burst nobody waits for the news: it is looked for when the burst is over.
        if self.is_open()
            && self.burst != Burst::TurnGiven
            && self.cut_now.as_mut().poll(cx).is_ready()
        {
            self.end_with(End::GatewayLost, &ApiError::Stopping);
        }
        loop {
            let Some(charge) = &mut self.charge else {
                return Poll::Ready(());
            };
            if matches!(self.state, State::NotOpened(_)) || self.out.len() >= WRITE_BYTES_MAX {
                return Poll::Ready(());
            }
            if self.search.poll(cx, &self.app.ledger, charge).is_pending() {
                return self.pause(cx);
            }
            let moved = match self.queue.pop_front() {
                Some(item) => {
                    self.take(item);
                    Poll::Ready(())
                }
                None => self.poll_upstream(cx),
            };
            if moved.is_pending() {
                return self.pause(cx);
            }
        }
    }

    /// Whether output is to be gathered before anything is handed on.
    pub fn gathers(&self) -> bool {
        self.charge.is_some() && (self.out.is_empty() || self.burst == Burst::TurnGiven)
    }

    /// The client is gone: settles for what was delivered.
    pub fn abandon(mut self) {
        if let Some(charge) = self.charge.take() {
            let large = charge.pending_bytes() >= OFF_THREAD_BYTES_MIN;
            let settled = off_thread_if(large, || charge.abandon());
            self.watched.settled(End::ClientGone, settled);
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Nothing more can be done now: hand on what was gathered, else wait. Within a burst the HTTP
    /// client reads on only in a turn of its own, and gets it before anything is written.
    fn pause(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.out.is_empty() {
            return Poll::Pending;
        }
        if self.burst == Burst::Running {
            self.burst = Burst::TurnGiven;
            // Goes behind what is ready to run already: the connection, which was just asked for more.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.burst = Burst::No;
        Poll::Ready(())
    }

    /// Reads once from upstream and decodes what came.
    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(upstream) = &mut self.upstream else {
            // Everything was taken in, and the end of the file left an end in the queue.
            self.fail(Failure::Broken);
            return Poll::Ready(());
        };
        match Pin::new(upstream).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let now = Instant::now();
                let gap = now.saturating_duration_since(self.last_read);
                self.last_read = now;
                self.burst = if gap < BURST_GAP {
                    Burst::Running
                } else {
                    Burst::No
                };
                if let Ok(bytes) = frame.into_data() {
                    self.framer.push(bytes);
                    self.decode();
                }
                if self.queue.is_empty() {
                    self.end_when_quiet(self.last_read);
                }
            }
            Poll::Ready(Some(Err(failure))) => self.fail(failure),
            Poll::Ready(None) => {
                self.upstream = None;
                self.end_of_file();
            }
            Poll::Pending => return self.poll_idle(cx),
        }
        Poll::Ready(())
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = match self.state {
            State::Unopened | State::NotOpened(_) => self.app.settings.first_byte_timeout,
            State::Open | State::Drained => self.app.settings.idle_timeout,
        };
        let due = self.last_read + limit;
        // It was set for the first byte, which may be waited for longer than the next.
        let look = self.next_look(due);
        if self.idle.deadline() > look.into() {
            self.idle.as_mut().reset(look.into());
        }
        while self.idle.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now >= due {
                self.fail(Failure::Timeout);
                return Poll::Ready(());
            }
            if self.checkpoint_lacks {
                self.checkpoint_when_due(now);
            }
            let look = self.next_look(due);
            self.idle.as_mut().reset(look.into());
        }
        Poll::Pending
    }

    /// Until when nothing needs to be done while nothing comes: a checkpoint does not wait for the
    /// next output.
    fn next_look(&self, due: Instant) -> Instant {
        if self.checkpoint_lacks {
            due.min(self.last_checkpoint + CHECKPOINT_EVERY)
        } else {
            due
        }
    }

    /// Something came that was no output.
    fn end_when_quiet(&mut self, now: Instant) {
        let since = *self.quiet_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= self.app.settings.output_timeout {
            self.fail(Failure::Timeout);
        }
    }

    fn decode(&mut self) {
        while let Some(event) = self.framer.next() {
            let decoded = match event {
                Ok(event) => self
                    .decoder
                    .push(event, &mut self.deltas)
                    .map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            self.queue.extend(self.deltas.drain(..).map(Item::Delta));
            if let Err(what) = decoded {
                self.queue.push_back(Item::Failed(Failure::Garbage(what)));
                return;
            }
        }
    }

    fn end_of_file(&mut self) {
        if let Some(Ok(event)) = self.framer.finish() {
            // Its blank line is missing, but JSON that is whole is not lost.
            let _ = self.decoder.push(event, &mut self.deltas);
            self.queue.extend(self.deltas.drain(..).map(Item::Delta));
        }
        match self.decoder.ending() {
            Ending::Done => {}
            Ending::Finished => self.queue.push_back(Item::Delta(Delta::Done)),
            Ending::Cut => self.queue.push_back(Item::Failed(Failure::Broken)),
        }
    }

    /// Takes in one item, or puts it back to wait for credit.
    fn take(&mut self, item: Item) {
        let taken = match &item {
            Item::Delta(Delta::Chunk(chunk)) => self.take_chunk(chunk),
            Item::Delta(Delta::Done) => {
                self.complete();
                Ok(Step::Done)
            }
            Item::Delta(Delta::Error(error)) => {
                self.fail(Failure::Inside(error.clone()));
                Ok(Step::Done)
            }
            Item::Failed(failure) => {
                self.fail(failure.clone());
                Ok(Step::Done)
            }
        };
        match taken {
            Ok(Step::Done) => {}
            Ok(Step::Lacks(least)) => {
                if let Some(charge) = &self.charge {
                    self.search = Search::begin(&self.app.ledger, charge, least);
                    self.queue.push_front(item);
                }
            }
            Err(error) => self.end_with(End::UpstreamFailed, &error),
        }
    }

    /// Covers a chunk and writes it. Until all of it is covered nothing of it is written, and
    /// what was taken in already is not taken in again.
    fn take_chunk(&mut self, chunk: &Chunk) -> Result<Step, ApiError> {
        let now = Instant::now();
        let refused = match self.search {
            Search::Refused(shortfall) => Some(shortfall),
            Search::Enough | Search::Asked(_) | Search::Rest(..) => None,
        };
        let Some(charge) = &mut self.charge else {
            return Ok(Step::Done);
        };
        if let Some(prompt) = chunk.prompt_usage() {
            charge.know_prompt(*prompt);
        }
        if let Some(Ok(usage)) = chunk.usage() {
            if let Some(tier) = tier_of(chunk.service_tier()) {
                charge.served_by(tier);
            }
            charge.report(usage, chunk.usage_text().map(Into::into));
            let lacking = charge.lacking()?;
            let covered = !lacking.is_positive() || charge.grow(lacking, now);
            // What is refused here is a house loss: the provider has delivered it.
            if !covered && refused.is_none() {
                return Ok(Step::Lacks(lacking));
            }
        }
        let texts: SmallVec<[Text<'_>; 2]> = chunk.texts().map(piece).collect();
        let bytes: usize = texts.iter().map(|text| text.text.len()).sum();
        let verdict = off_thread_if(bytes >= OFF_THREAD_BYTES_MIN, || {
            charge.observe(&texts, now)
        })?;
        if let Verdict::NeedsCredit { least, .. } = verdict {
            let Some(shortfall) = refused else {
                return Ok(Step::Lacks(least));
            };
            self.exhaust(chunk, &texts, &shortfall, least)?;
            return Ok(Step::Done);
        }
        if !texts.is_empty() {
            self.quiet_since = None;
            charge.mark_first_output(now);
            self.watched.output(now);
            self.checkpoint_lacks = true;
        }
        self.write_chunk(chunk)?;
        self.search = Search::Enough;
        self.checkpoint_when_due(now);
        if texts.is_empty() {
            self.end_when_quiet(now);
        }
        Ok(Step::Done)
    }

    /// Hands a chunk on, with the bill so far where the client's dialect shows it here.
    fn write_chunk(&mut self, chunk: &Chunk) -> Result<(), ApiError> {
        if let Some(Err(fault)) = chunk.usage() {
            self.watched.usage_fault(fault);
        }
        match &mut self.charge {
            Some(charge) if self.writer.bills(chunk) => {
                let settled = charge.quote(End::Completed)?;
                with_bill(&settled, |bill| {
                    self.writer.chunk(chunk, Some(bill), &mut self.out);
                });
            }
            Some(_) | None => self.writer.chunk(chunk, None, &mut self.out),
        }
        Ok(())
    }

    /// The provider is done.
    fn complete(&mut self) {
        let Some(charge) = self.charge.take() else {
            return;
        };
        let end = match self.state {
            State::Drained => End::ClientGone,
            State::Unopened | State::NotOpened(_) | State::Open => End::Completed,
        };
        let settled = self.settle(charge, end);
        let (writer, out) = (&mut self.writer, &mut self.out);
        let template = self.decoder.template();
        match &settled {
            Some(settled) => with_bill(settled, |bill| writer.complete(Some(bill), template, out)),
            None => writer.complete(None, template, out),
        }
        self.watched.settled(end, settled);
        self.queue.clear();
        if let Some(upstream) = self.upstream.take() {
            // The few bytes that end the message decide whether the connection can be used again.
            tokio::spawn(tokio::time::timeout(LINGER_MAX, read_out(upstream)));
        }
    }

    /// No more credit is to be had: cut at the last affordable token, say why, hang up.
    fn exhaust(
        &mut self,
        chunk: &Chunk,
        texts: &[Text<'_>],
        shortfall: &Shortfall,
        least: Credits,
    ) -> Result<(), ApiError> {
        let Some(charge) = &mut self.charge else {
            return Ok(());
        };
        let own = charge.held();
        let keep = charge.cut(texts)?;
        if keep.iter().any(|bytes| *bytes > 0) {
            self.writer.cut(chunk, &keep, &mut self.out);
        }
        if shortfall.unavailable {
            self.end_with(End::GatewayLost, &ApiError::Unaccountable);
        } else {
            let error = admit::refused(shortfall, least, own);
            self.end_with(End::CreditsExhausted, &error);
        }
        Ok(())
    }

    /// The provider failed: inside the stream where it is open, else as an answer of its own.
    fn fail(&mut self, failure: Failure) {
        let output = self.charge.as_ref().is_some_and(Charge::has_output);
        if matches!(self.state, State::Unopened) && !output {
            self.upstream = None;
            self.queue.clear();
            self.state = State::NotOpened(failure);
            return;
        }
        self.watched.upstream_failed(&failure);
        self.end_with(End::UpstreamFailed, &ApiError::Upstream(failure));
    }

    /// Settles, and writes the end of CONTRACT 3 in the client's dialect.
    fn end_with(&mut self, end: End, error: &ApiError) {
        self.upstream = None;
        self.queue.clear();
        let Some(charge) = self.charge.take() else {
            return;
        };
        let settled = self.settle(charge, end);
        let request_id = self.watched.request_id();
        let top_up_url = self.app.settings.top_up_url.as_deref();
        let (writer, out) = (&mut self.writer, &mut self.out);
        let template = self.decoder.template();
        let mut write = |bill: Option<&Bill<'_>>| {
            error.end_stream(writer, request_id, top_up_url, bill, template, out);
        };
        match &settled {
            Some(settled) => with_bill(settled, |bill| write(Some(bill))),
            None => write(None),
        }
        self.watched.failed(error);
        self.watched.settled(end, settled);
    }

    /// Ends the charge.
    fn settle(&mut self, charge: Charge, end: End) -> Option<Settled> {
        let large = charge.pending_bytes() >= OFF_THREAD_BYTES_MIN;
        let settled = off_thread_if(large, || {
            counting::finish(&self.app, charge, end, &self.watched, std::iter::empty)
        });
        // A free answer that came whole is one, too.
        self.owing = matches!(end, End::Completed | End::ClientGone)
            || settled.is_some_and(|settled| settled.charged.is_positive());
        settled
    }

    /// What is in `out` goes to the client next: a local journal knows of it before that.
    pub fn write_progress(&mut self) {
        let Some(charge) = &mut self.charge else {
            return;
        };
        let large = charge.progress_bytes() >= OFF_THREAD_BYTES_MIN;
        let written = off_thread_if(large, || charge.progress(Instant::now()));
        if let Err(error) = written {
            tracing::error!(%error, "what a stream has cost cannot be written down");
        }
    }

    fn checkpoint_when_due(&mut self, now: Instant) {
        if now.saturating_duration_since(self.last_checkpoint) < CHECKPOINT_EVERY {
            return;
        }
        self.last_checkpoint = now;
        self.checkpoint_lacks = false;
        if let Some(charge) = &mut self.charge
            && let Ok(Some(checkpoint)) = charge.checkpoint()
        {
            self.app.ledger.checkpoint(checkpoint);
        }
    }
}

async fn read_out(mut upstream: ReplyBody) {
    while let Some(Ok(_)) = upstream.frame().await {}
}

/// What an answer is called whose provider does not say it.
pub(crate) fn origin(watched: &Watched, model: &Model) -> Origin {
    Origin {
        created: unix_seconds(),
        id: watched.request_id().to_string().into(),
        model: model.id.clone(),
    }
}

/// For what must say when it was made and whose provider does not.
pub(crate) fn unix_seconds() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |age| age.as_secs())
}
