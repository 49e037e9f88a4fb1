//! From the lines of Ollama's streams to the client's chunks.

use tokens::Usage;

use super::answer::read;
use crate::client::ChunkTemplate;
use crate::compose::{Composer, literal};
use crate::error::{DecodeError, UpstreamError, UsageFault};
use crate::object;
use crate::openai::{Delta, Ending, TextKind};
use crate::origin::Origin;
use crate::sse::SseEvent;

/// Decodes one stream. Holds only counts between lines.
#[derive(Debug)]
pub struct OllamaDecoder {
    origin: Origin,
    composer: Option<Composer>,
    calls: u32,
    usage: Option<Result<Usage, UsageFault>>,
    done: bool,
    failed: bool,
}

impl OllamaDecoder {
    /// A decoder for one stream.
    #[must_use]
    pub const fn new(origin: Origin) -> Self {
        Self {
            origin,
            composer: None,
            calls: 0,
            usage: None,
            done: false,
            failed: false,
        }
    }

    /// Reads one line and adds what it means to `out`. After the line that says `done`, and
    /// after an error, nothing is read.
    ///
    /// # Errors
    /// A line that is not one of Ollama's.
    pub fn push(&mut self, event: &SseEvent, out: &mut Vec<Delta>) -> Result<(), DecodeError> {
        if self.done || self.failed || event.data.trim_ascii().is_empty() {
            return Ok(());
        }
        let text = object::text(&event.data)?;
        let line = read(text)?;
        if let Some(error) = line.error {
            self.failed = true;
            out.push(Delta::Error(Box::new(UpstreamError::from_json(
                error.get(),
            ))));
            return Ok(());
        }
        if line.message.is_none() && !line.done {
            return Err(DecodeError::shape("no message"));
        }
        let composer = Composer::begun(&mut self.composer, &self.origin, &line.model, out)?;
        if let Some(message) = &line.message {
            if let Some(text) = literal(message.thinking)? {
                out.push(Delta::Chunk(composer.say(TextKind::Reasoning, text)?));
            }
            if let Some(text) = literal(message.content)? {
                out.push(Delta::Chunk(composer.say(TextKind::Content, text)?));
            }
            for call in message.tool_calls.iter().flatten() {
                let place = self.calls;
                let [id, name, arguments] = call.whole(&self.origin, place)?;
                self.calls = place.saturating_add(1);
                out.push(Delta::Chunk(composer.call(place, &id, &name)?));
                out.push(Delta::Chunk(composer.arguments(place, &arguments)?));
            }
        }
        if line.done {
            let (reason, native) = line.reason(self.calls > 0);
            out.push(Delta::Chunk(composer.finish(reason, native)?));
            if let Some(usage) = line.usage() {
                self.usage = Some(usage);
                out.push(Delta::Chunk(composer.usage(usage, &line.report())?));
            }
            self.done = true;
            out.push(Delta::Done);
        }
        Ok(())
    }

    /// The usage reported; a fault when it is unusable.
    #[must_use]
    pub const fn usage(&self) -> Option<Result<Usage, UsageFault>> {
        self.usage
    }

    /// What the chunks of this stream have in common, once it has begun.
    #[must_use]
    pub fn template(&self) -> Option<&ChunkTemplate> {
        self.composer.as_ref().map(Composer::template)
    }

    /// How the stream has ended, if no more comes.
    #[must_use]
    pub const fn ending(&self) -> Ending {
        if self.done { Ending::Done } else { Ending::Cut }
    }
}
