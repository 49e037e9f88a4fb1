//! What is changed in a chunk before a client sees it: usage taken out, cost put in, texts cut.

use std::ops::Range;

use bytes::Bytes;

use super::chunk::REASONING;
use super::stream::Chunk;
use crate::client::{Bill, splice_bill};
use crate::json::{self, Splice};

impl Chunk {
    /// The chunk for a client that did not ask for usage: `None` where it holds nothing else, the
    /// original bytes where it holds none, else with `null` in its place.
    #[must_use]
    pub fn without_usage(&self) -> Option<Bytes> {
        let Some(found) = &self.usage else {
            return Some(self.bytes.clone());
        };
        if self.is_without_choices() {
            return None;
        }
        let mut splice = Splice::default();
        for span in &found.spans {
            splice.replace(span.clone(), "null");
        }
        Some(Bytes::from(splice.apply(self.text())))
    }

    /// The chunk with the bill in its usage, which is written where there is none or none that can be
    /// trusted.
    #[must_use]
    pub fn with_bill(&self, bill: &Bill<'_>) -> Bytes {
        let reported = self.usage().is_some_and(|usage| usage.is_ok());
        splice_bill(
            self.text(),
            self.found.usage.clone().filter(|_| reported),
            bill,
        )
    }

    /// The chunk with each of its texts cut to the given bytes, in the order of
    /// [`texts`](Self::texts); texts without a figure are dropped.
    ///
    /// A figure inside a character means the character is dropped. Finish reasons become null, usage
    /// and log probabilities (which repeat the text) too, and what repeats or replaces text in
    /// another form (audio, images, reasoning details) is taken out; all other bytes stay.
    #[must_use]
    pub fn cut(&self, keep: &[usize]) -> Vec<u8> {
        let text = self.text();
        let mut splice = Splice::default();
        for (index, found) in self.found.texts.iter().enumerate() {
            let keep = keep.get(index).copied().unwrap_or(0);
            let raw = json::slice(text, &found.raw());
            if !raw.starts_with('"') {
                if keep < raw.len() {
                    splice.replace(found.raw(), "null");
                }
                continue;
            }
            let inside = json::inside(raw);
            let kept = json::raw_prefix(inside, keep);
            if kept < inside.len() {
                let from = found.raw().start + 1 + kept;
                splice.replace(from..from + inside.len() - kept, "");
            }
        }
        for span in self.usage.iter().flat_map(|found| &found.spans) {
            splice.replace(span.clone(), "null");
        }
        let start = text.len() - text.trim_ascii_start().len();
        for member in json::members(text, start) {
            if member.name(text) == "choices" {
                for choice in json::elements(text, member.value.start) {
                    self.cut_choice(text, choice, keep, &mut splice);
                }
            }
        }
        splice.apply(text)
    }

    fn cut_choice(
        &self,
        text: &str,
        choice: Range<usize>,
        keep: &[usize],
        splice: &mut Splice<'_>,
    ) {
        let members: Vec<_> = json::members(text, choice.start).collect();
        let has_delta = members.iter().any(|member| {
            member.name(text) == "delta" && json::slice(text, &member.value) != "null"
        });
        for member in members {
            match member.name(text).as_ref() {
                "finish_reason" | "native_finish_reason" | "logprobs" => {
                    splice.replace(member.value, "null");
                }
                "delta" => self.cut_delta(text, member.value, keep, splice),
                "message" if has_delta => splice.replace(member.value, "null"),
                "message" => self.cut_delta(text, member.value, keep, splice),
                _ => {}
            }
        }
    }

    fn cut_delta(&self, text: &str, delta: Range<usize>, keep: &[usize], splice: &mut Splice<'_>) {
        for member in json::members(text, delta.start) {
            let name = member.name(text);
            let calls = matches!(name.as_ref(), "tool_calls" | "function_call");
            let carrier = matches!(name.as_ref(), "audio" | "images");
            let reasoning = REASONING.contains(&name.as_ref());
            // Reasoning that was not counted repeats what was; a call of which nothing is left
            // would reach the client as a call without a name.
            let gone = carrier
                || reasoning && !self.any_text_in(&member.value, |_| true)
                || calls
                    && !self.any_text_in(&member.value, |i| keep.get(i).is_some_and(|k| *k > 0));
            if gone {
                splice.clear(&member.value);
                splice.replace(member.value, "null");
            }
        }
    }

    fn any_text_in(&self, span: &Range<usize>, which: impl Fn(usize) -> bool) -> bool {
        self.found.texts.iter().enumerate().any(|(index, text)| {
            let raw = text.raw();
            span.start <= raw.start && raw.end <= span.end && which(index)
        })
    }
}
