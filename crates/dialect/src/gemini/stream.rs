//! From Google's stream events to the client's chunks.

use tokens::Usage;

use super::arguments::Arguments;
use super::call::{self, CallIds};
use super::raw::{RawCall, RawCandidate, RawPart, RawResponse, extra_content};
use super::reason::finish_reason;
use super::report::Counts;
use crate::client::ChunkTemplate;
use crate::compose::{Composer, literal};
use crate::error::{DecodeError, UpstreamError, UsageFault};
use crate::json;
use crate::object;
use crate::openai::{Delta, Ending, TextKind};
use crate::origin::Origin;
use crate::sse::SseEvent;

/// Choices that a stream may have, as in a request.
const CHOICES_MAX: u32 = 128;

/// One choice, as far as it has come.
#[derive(Debug)]
struct Choice {
    index: u32,
    calls: u32,
    images: u32,
    /// A call whose arguments come in pieces: its place among the calls.
    open: Option<(u32, Arguments)>,
    finished: bool,
}

/// Decodes one stream. Holds only counts between events, and the arguments of a call in pieces.
#[derive(Debug)]
pub struct GeminiDecoder {
    origin: Origin,
    begun: Option<Begun>,
    choices: Vec<Choice>,
    usage: Option<Result<Usage, UsageFault>>,
    failed: bool,
    skipped: u64,
}

/// What is known once the first event has come.
#[derive(Debug)]
struct Begun {
    composer: Composer,
    ids: CallIds,
}

impl GeminiDecoder {
    /// A decoder for one stream; `origin` is what it is called where it does not say so.
    #[must_use]
    pub const fn new(origin: Origin) -> Self {
        Self {
            origin,
            begun: None,
            choices: Vec::new(),
            usage: None,
            failed: false,
            skipped: 0,
        }
    }

    /// Reads one event and adds what it means to `out`.
    ///
    /// # Errors
    /// An event that is not one of Google's.
    pub fn push(&mut self, event: &SseEvent, out: &mut Vec<Delta>) -> Result<(), DecodeError> {
        if event.data.trim_ascii().is_empty() {
            return Ok(());
        }
        let text = object::text(&event.data)?;
        if event.event.as_deref() == Some(b"error") {
            let error = json::find(text, &["error".into()]);
            let error = error.map_or(text, |at| json::slice(text, &at));
            self.fail(Box::new(UpstreamError::from_json(error)), out);
            return Ok(());
        }
        let raw = RawResponse::read(text)?;
        if let Some(error) = raw.failure() {
            self.fail(error, out);
            return Ok(());
        }
        let counts = raw
            .usage_metadata
            .map(|usage| (usage.get(), Counts::read(usage.get())));
        let blocked = raw.blocked();
        let candidates = raw.candidates.as_deref().unwrap_or_default();
        if candidates.is_empty() && blocked.is_none() && counts.is_none() {
            self.skipped = self.skipped.saturating_add(1);
            return Ok(());
        }
        let Self { begun, origin, .. } = self;
        let mut begun = begun.take().unwrap_or_else(|| Begun::new(origin, &raw));
        let mut first = match &counts {
            Some((_, Ok(Some(counts)))) => counts.prompt().ok(),
            Some((_, Ok(None) | Err(_))) | None => None,
        };
        let read = self.candidates(&mut begun, candidates, blocked, &mut first, out);
        let counted = read.and_then(|()| match counts {
            Some((report, counts)) => self.report(&begun, counts, report, out),
            None => Ok(()),
        });
        self.begun = Some(begun);
        counted
    }

    /// The last usage reported; an unusable last report is a fault, not the one before it.
    #[must_use]
    pub const fn usage(&self) -> Option<Result<Usage, UsageFault>> {
        self.usage
    }

    /// What the chunks of this stream have in common, once it has begun.
    #[must_use]
    pub fn template(&self) -> Option<&ChunkTemplate> {
        self.begun.as_ref().map(|begun| begun.composer.template())
    }

    /// How many events and parts were skipped because a chat has none of their kind.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// How the stream has ended, if no more comes: Google's has no last event of its own.
    #[must_use]
    pub fn ending(&self) -> Ending {
        if self.is_finished() && !self.failed {
            Ending::Finished
        } else {
            Ending::Cut
        }
    }

    fn is_finished(&self) -> bool {
        !self.choices.is_empty() && self.choices.iter().all(|choice| choice.finished)
    }

    fn fail(&mut self, error: Box<UpstreamError>, out: &mut Vec<Delta>) {
        self.failed = true;
        out.push(Delta::Error(error));
    }

    fn candidates(
        &mut self,
        begun: &mut Begun,
        candidates: &[RawCandidate<'_>],
        blocked: Option<(&str, Option<&str>)>,
        first: &mut Option<Usage>,
        out: &mut Vec<Delta>,
    ) -> Result<(), DecodeError> {
        for (place, candidate) in candidates.iter().enumerate() {
            let index = candidate.index.or_else(|| u32::try_from(place).ok());
            let index = index.filter(|index| *index < CHOICES_MAX);
            let index = index.ok_or(DecodeError::shape("too many candidates"))?;
            let at = self.choice(begun, index, first, out)?;
            if let Some(choice) = self.choices.get_mut(at) {
                self.skipped += choice.take(begun, candidate, out)?;
            }
        }
        if let Some((why, message)) = blocked
            && candidates.is_empty()
        {
            let at = self.choice(begun, 0, first, out)?;
            if let Some(choice) = self.choices.get_mut(at) {
                choice.refused(begun, why, message, out)?;
            }
        }
        Ok(())
    }

    /// Where a choice is; it is begun where it has not been.
    fn choice(
        &mut self,
        begun: &Begun,
        index: u32,
        first: &mut Option<Usage>,
        out: &mut Vec<Delta>,
    ) -> Result<usize, DecodeError> {
        let known = self.choices.iter().position(|choice| choice.index == index);
        if let Some(at) = known {
            return Ok(at);
        }
        let mut piece = begun.composer.delta_of(index);
        piece.raw(r#""role":"assistant","content":"""#);
        let mut chunk = piece.end_chunk(None)?;
        if self.choices.is_empty() {
            chunk.prompt = first.take().map(Box::new);
        }
        out.push(Delta::Chunk(chunk));
        self.choices.push(Choice {
            index,
            calls: 0,
            images: 0,
            open: None,
            finished: false,
        });
        Ok(self.choices.len() - 1)
    }

    /// Takes in the usage of an event. What is reported before the end is a part of it.
    fn report(
        &mut self,
        begun: &Begun,
        counts: Result<Option<Counts>, UsageFault>,
        report: &str,
        out: &mut Vec<Delta>,
    ) -> Result<(), DecodeError> {
        if !self.is_finished() {
            return Ok(());
        }
        let usage = match counts {
            Ok(None) => return Ok(()),
            Ok(Some(counts)) => counts.usage(),
            Err(fault) => Err(fault),
        };
        self.usage = Some(usage);
        out.push(Delta::Chunk(begun.composer.usage(usage, report)?));
        Ok(())
    }
}

impl Begun {
    fn new(origin: &Origin, raw: &RawResponse<'_>) -> Self {
        let id = raw.response_id.as_deref().unwrap_or(&origin.id);
        let model = raw.model_version.as_deref().unwrap_or(&origin.model);
        Self {
            composer: Composer::new(id, origin.created, model),
            ids: CallIds::new(id),
        }
    }
}

impl Choice {
    /// Writes what an event adds to the choice; returns how many parts a chat has no place for.
    fn take(
        &mut self,
        begun: &mut Begun,
        candidate: &RawCandidate<'_>,
        out: &mut Vec<Delta>,
    ) -> Result<u64, DecodeError> {
        let mut skipped = 0;
        let mut logprobs = candidate
            .logprobs_result
            .as_ref()
            .and_then(|raw| raw.json());
        for part in candidate.parts() {
            if let Some(call) = &part.function_call {
                self.call(begun, call, part.signature()?, out)?;
                continue;
            }
            let said = part.said()?.is_some();
            let mut piece = begun.composer.delta_of(self.index);
            if !self.says(&mut piece, part)? {
                skipped += u64::from(!part.is_empty());
                continue;
            }
            if said {
                piece.logprobs(logprobs.take());
            }
            out.push(Delta::Chunk(piece.end_chunk(None)?));
        }
        if let Some(reason) = candidate.finish_reason.as_deref()
            && !self.finished
        {
            self.close(begun, out)?;
            self.finished = true;
            let mut piece = begun.composer.delta_of(self.index);
            piece.logprobs(logprobs);
            let finish = (finish_reason(reason, self.calls > 0), reason);
            out.push(Delta::Chunk(piece.end_chunk(Some(finish))?));
        }
        Ok(skipped)
    }

    /// Writes a part that is no call; false where it says nothing.
    fn says(
        &mut self,
        piece: &mut crate::compose::Piece,
        part: &RawPart<'_>,
    ) -> Result<bool, DecodeError> {
        let mut any = false;
        if let Some(text) = part.thought()? {
            piece
                .raw(r#""reasoning_content":"#)
                .text(TextKind::Reasoning, text);
            any = true;
        }
        if let Some(text) = part.said()? {
            piece.raw(r#""content":"#).text(TextKind::Content, text);
            any = true;
        }
        if let Some(image) = part.image(self.images)? {
            self.images = self.images.saturating_add(1);
            piece
                .raw(if any { "," } else { "" })
                .raw(&format!(r#""images":[{image}]"#));
            any = true;
        }
        if let Some(signature) = part.signature()? {
            piece
                .raw(if any { "," } else { "" })
                .raw(&extra_content(signature));
            any = true;
        }
        Ok(any)
    }

    fn call(
        &mut self,
        begun: &mut Begun,
        raw: &RawCall<'_>,
        signature: Option<&str>,
        out: &mut Vec<Delta>,
    ) -> Result<(), DecodeError> {
        let goes_on = raw.will_continue == Some(true);
        let Some(name) = literal(raw.name)? else {
            return self.goes_on(begun, raw, goes_on, out);
        };
        self.close(begun, out)?;
        let index = self.calls;
        self.calls = self.calls.saturating_add(1);
        let id = begun.ids.of(raw)?;
        let mut piece = begun.composer.delta_of(self.index);
        piece.raw(r#""tool_calls":["#);
        call::begin(&mut piece, Some(index), &id, name);
        if goes_on {
            let mut arguments = Arguments::new();
            for part in raw.partial_args.iter().flatten() {
                arguments.add(part)?;
            }
            self.open = Some((index, arguments));
            piece.raw(r#""""#);
        } else {
            piece.text(TextKind::ToolCall, &call::whole(raw)?);
        }
        call::end(&mut piece, signature);
        piece.raw("]");
        out.push(Delta::Chunk(piece.end_chunk(None)?));
        Ok(())
    }

    /// More of the call that is open.
    fn goes_on(
        &mut self,
        begun: &Begun,
        raw: &RawCall<'_>,
        goes_on: bool,
        out: &mut Vec<Delta>,
    ) -> Result<(), DecodeError> {
        let Some((_, arguments)) = &mut self.open else {
            let empty = raw.args.is_none() && raw.partial_args.is_none();
            return if empty {
                Ok(())
            } else {
                Err(DecodeError::shape("a call without a name"))
            };
        };
        for part in raw.partial_args.iter().flatten() {
            arguments.add(part)?;
        }
        if goes_on {
            Ok(())
        } else {
            self.close(begun, out)
        }
    }

    /// Writes the arguments of the call that is open, which is complete.
    fn close(&mut self, begun: &Begun, out: &mut Vec<Delta>) -> Result<(), DecodeError> {
        let Some((index, arguments)) = self.open.take() else {
            return Ok(());
        };
        let mut piece = begun.composer.delta_of(self.index);
        piece
            .raw(&format!(
                r#""tool_calls":[{{"index":{index},"function":{{"arguments":"#
            ))
            .text(TextKind::ToolCall, &json::quote(&arguments.json()))
            .raw("}}]");
        out.push(Delta::Chunk(piece.end_chunk(None)?));
        Ok(())
    }

    /// The prompt was not answered. Google's sentence about it is not the model's, and not billed.
    fn refused(
        &mut self,
        begun: &Begun,
        why: &str,
        message: Option<&str>,
        out: &mut Vec<Delta>,
    ) -> Result<(), DecodeError> {
        if std::mem::replace(&mut self.finished, true) {
            return Ok(());
        }
        let mut piece = begun.composer.delta_of(self.index);
        if let Some(message) = message {
            piece.raw(r#""refusal":"#).raw(message);
        }
        out.push(Delta::Chunk(
            piece.end_chunk(Some(("content_filter", why)))?,
        ));
        Ok(())
    }
}
