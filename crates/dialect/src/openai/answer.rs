//! A plain answer, not streamed: the whole body at once.

use bytes::Bytes;
use tokens::Usage;

use super::chunk;
use super::report::Counts;
use super::stream::{ChunkUsage, TextRef, usage_spans};
use crate::client::{Bill, splice_bill};
use crate::error::{DecodeError, UpstreamError, UsageFault};
use crate::json;
use crate::object;
use crate::quirks::Quirks;
use crate::service_tier;

/// A decoded answer, with the bytes as the provider sent them.
#[derive(Debug)]
pub struct Answer {
    bytes: Bytes,
    found: chunk::Found,
    usage: Option<Result<Usage, UsageFault>>,
    usage_at: Option<std::ops::Range<usize>>,
    /// The provider's own usage object, where the answer was composed from another dialect.
    report: Option<Box<str>>,
}

/// Reads the body of a 200 answer.
///
/// # Errors
/// Not JSON, no `choices`, or an error inside ([`DecodeError::Upstream`]; OpenRouter does that).
pub(crate) fn decode(body: Bytes, quirks: &Quirks) -> Result<Answer, DecodeError> {
    let text = object::text(&body)?;
    let found = chunk::find(text)?;
    if let Some(error) = &found.error {
        let error = UpstreamError::from_json(json::slice(text, error));
        return Err(DecodeError::Upstream(Box::new(error)));
    }
    if found.choices.is_none() {
        return Err(DecodeError::shape("no choices"));
    }
    let usage_at = usage_spans(text, found.usage.clone(), quirks, || true)
        .first()
        .cloned();
    let usage = usage_at
        .as_ref()
        .and_then(|span| Counts::read(json::slice(text, span)))
        .map(|counts| counts.and_then(|counts| counts.usage(quirks)));
    Ok(Answer {
        bytes: body,
        found,
        usage,
        usage_at,
        report: None,
    })
}

impl Answer {
    /// An answer in another dialect that travels as it came, with what was found in it.
    pub(crate) fn as_it_came(
        bytes: Bytes,
        mut found: chunk::Found,
        reported: Option<ChunkUsage>,
    ) -> Self {
        found.choices = Some(1);
        let Some(reported) = reported else {
            return Self::composed(bytes, found, None, None);
        };
        found.usage = reported.spans.first().cloned();
        Self::composed(bytes, found, Some(reported.usage), reported.report)
    }

    /// An answer that was composed from another dialect, with the usage as its provider wrote it.
    pub(crate) const fn composed(
        bytes: Bytes,
        found: chunk::Found,
        usage: Option<Result<Usage, UsageFault>>,
        report: Option<Box<str>>,
    ) -> Self {
        Self {
            bytes,
            found,
            usage,
            usage_at: None,
            report,
        }
    }

    /// The answer as it came.
    #[must_use]
    pub const fn json(&self) -> &Bytes {
        &self.bytes
    }

    /// Its texts: what to count where no usage is reported.
    pub fn texts(&self) -> impl ExactSizeIterator<Item = TextRef<'_>> {
        self.found.texts(&self.bytes)
    }

    /// How many choices it has.
    #[must_use]
    pub fn choices(&self) -> u32 {
        self.found.choices.unwrap_or(0)
    }

    /// The usage it reports; `None` when it reports none.
    #[must_use]
    pub const fn usage(&self) -> Option<Result<Usage, UsageFault>> {
        self.usage
    }

    /// The usage object as the provider wrote it; `None` when it is longer than a report can be.
    #[must_use]
    pub fn usage_text(&self) -> Option<&str> {
        if let Some(report) = &self.report {
            return Some(report);
        }
        let text = std::str::from_utf8(&self.bytes).unwrap_or_default();
        chunk::report_text(text, self.usage_at.as_ref()?)
    }

    /// Where its usage object is, where that can be billed.
    pub(crate) fn usage_span(&self) -> Option<std::ops::Range<usize>> {
        let reported = self.usage.is_some_and(|usage| usage.is_ok());
        self.found.usage.clone().filter(|_| reported)
    }

    /// The service tier that the provider says it served by, in its own word.
    #[must_use]
    pub fn service_tier(&self) -> Option<String> {
        let text = std::str::from_utf8(&self.bytes).unwrap_or_default();
        service_tier::named(text, self.usage_text())
    }

    /// The answer with the bill in its usage, which is written where there is none or none that can
    /// be trusted; every other byte stays.
    #[must_use]
    pub fn with_bill(&self, bill: &Bill<'_>) -> Bytes {
        let reported = self.usage.is_some_and(|usage| usage.is_ok());
        let text = std::str::from_utf8(&self.bytes).unwrap_or_default();
        splice_bill(text, self.found.usage.clone().filter(|_| reported), bill)
    }
}
