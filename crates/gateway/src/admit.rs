//! Admission: what a request may cost at most, and a hold of that, or the reason why not.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use billing::{BudgetId, Credits, Hold, Meter, Path, Price, Prompt, Reserved};
use bytes::Bytes;
use dialect::{ChatRequest, RequestLimits};
use store::{Ledger, Shortfall};
use tokens::{OFF_THREAD_BYTES_MIN, Part, PromptRules, Tokenizer, Usage};

use crate::{
    catalogue::Model,
    error::{ApiError, PaymentReason, PaymentRequired, Scope},
    words::Words,
};

/// The tokenizer runs at admission when the prompt's byte bound costs more than this share
/// (one in so many) of what is free in memory: then the difference may decide.
const EXACT_SHARE: i64 = 100;
/// Output that the first hold of a visible stream covers, in tokens per choice.
const FIRST_SLICE_TOKENS: u64 = 512;
/// Rounds of asking for credit: each fails only when another request took what came.
const ROUNDS_MAX: usize = 64;
/// How long admission looks for credit in all.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What a request may consume of a model.
#[derive(Debug)]
pub struct Ask {
    /// The prompt, counted or bounded.
    pub prompt: Prompt,
    /// Output at most, per choice, in tokens.
    pub output_limit: u64,
    /// Choices.
    pub choices: u64,
    /// Whether every token of the output passes by, so that the hold can grow with it.
    pub visible: bool,
    body_bytes: usize,
    /// Whether the prompt has files, or sound that is elsewhere, whose tokens only the provider knows.
    files: bool,
    /// Output without which the request is refused, per choice, in tokens.
    least_output: u64,
}

/// A hold and what it allows.
#[derive(Debug)]
pub struct Admitted {
    /// The credits set aside.
    pub hold: Hold,
    /// How the request is counted.
    pub meter: Meter,
    /// The output limit per choice that is affordable, where it is lower than what was asked.
    pub clamped: Option<u64>,
}

impl Ask {
    /// Reads from a request what it may consume of a model.
    #[must_use]
    pub fn new(request: &ChatRequest<'_>, body: &Bytes, model: &Model) -> Self {
        let mut asked = request
            .output_limit()
            .unwrap_or_else(|| u64::from(model.output_tokens_max));
        if request.echo() {
            asked = asked.saturating_add(model.rules.upper_bound(body.len(), 0));
        }
        let files = has(request, body, &FILES, |part| match part {
            Part::File { .. } => true,
            Part::Audio { bytes, .. } => *bytes == usize::MAX,
            Part::Message
            | Part::Name(_)
            | Part::Text(_)
            | Part::Image { .. }
            | Part::Tool { .. }
            | Part::Schema(_) => false,
        }) > 0;
        Self {
            prompt: prompt(request, body, model, files),
            files,
            output_limit: asked.min(u64::from(model.context_window)),
            choices: u64::from(request.choices()),
            visible: request.stream()
                && !model.hidden_output
                && request.unwatchable().is_none()
                && !model
                    .provider
                    .dialect
                    .hides_output(request, &model.features),
            body_bytes: body.len(),
            least_output: 1,
        }
    }

    /// A request whose worst case is known and cannot be lowered: `output` tokens beside the prompt.
    #[must_use]
    pub const fn whole(prompt: Prompt, output: u64, body_bytes: usize) -> Self {
        Self {
            prompt,
            output_limit: output,
            choices: 1,
            visible: false,
            body_bytes,
            files: false,
            least_output: output,
        }
    }

    /// The same for a request that goes upstream in the client's own dialect, as `sent`: what the
    /// chat that is counted leaves out is held for, too. A limit that is lowered below `least_output`
    /// would be refused upstream.
    #[must_use]
    pub fn as_it_came(mut self, sent: &Bytes, model: &Model, least_output: u64) -> Self {
        let bound = model.prompt_rules().upper_bound(sent.len(), 0);
        self.hold_prompt(|prompt| prompt.prompt = prompt.prompt.max(bound));
        // A visible stream has the limit that its client named.
        if !self.visible {
            self.least_output = least_output.min(self.output_limit);
        }
        self
    }

    /// The same for a request that lets the provider search so often: what is found becomes part
    /// of the prompt, as much as the model can read.
    #[must_use]
    pub fn searching(mut self, searches: u64, model: &Model) -> Self {
        let window = u64::from(model.context_window);
        self.hold_prompt(|prompt| {
            prompt.prompt = window;
            prompt.searches = searches;
        });
        self.visible = false;
        self.files = true;
        self
    }

    /// The same for a request that goes on with what its provider remembers: so many tokens, of
    /// which those that were `thought` may not be read again.
    #[must_use]
    pub fn remembering(mut self, tokens: u64, thought: u64) -> Self {
        let add = |usage: &mut Usage, tokens| usage.prompt = usage.prompt.saturating_add(tokens);
        let read = tokens.saturating_sub(thought);
        let none = Prompt::Exact(Usage::default());
        self.prompt = match std::mem::replace(&mut self.prompt, none) {
            Prompt::AtMost(mut bound, count) => {
                add(&mut bound, tokens);
                let count = move || {
                    let mut usage = count();
                    add(&mut usage, read);
                    usage
                };
                Prompt::AtMost(bound, Box::new(count))
            }
            Prompt::Exact(mut usage) => {
                add(&mut usage, read);
                Prompt::Exact(usage)
            }
        };
        self
    }

    fn hold_prompt(&mut self, raise: impl FnOnce(&mut Usage)) {
        let bound = Prompt::Exact(Usage::default());
        self.prompt = match std::mem::replace(&mut self.prompt, bound) {
            Prompt::AtMost(mut bound, count) => {
                raise(&mut bound);
                Prompt::AtMost(bound, count)
            }
            Prompt::Exact(mut usage) => {
                raise(&mut usage);
                Prompt::Exact(usage)
            }
        };
    }

    /// Counts the prompt where it was only bounded and can be counted; large ones off the async
    /// threads.
    pub async fn count(&mut self) -> Usage {
        let bound = *self.prompt.at_most();
        if self.files {
            return bound;
        }
        let usage = match std::mem::replace(&mut self.prompt, Prompt::Exact(bound)) {
            Prompt::Exact(usage) => usage,
            Prompt::AtMost(_, count) if self.body_bytes < OFF_THREAD_BYTES_MIN => count(),
            Prompt::AtMost(_, count) => tokio::task::spawn_blocking(count).await.unwrap_or(bound),
        };
        self.prompt = Prompt::Exact(usage);
        usage
    }

    /// Whether counting the prompt can make it smaller.
    const fn is_bounded(&self) -> bool {
        match self.prompt {
            Prompt::AtMost(..) => !self.files,
            Prompt::Exact(_) => false,
        }
    }

    /// The prompt with this much output per choice, at their dearest.
    ///
    /// # Errors
    /// More than fits.
    pub fn cost(&self, price: &Price, output: u64) -> Result<Credits, ApiError> {
        let output = output.saturating_mul(self.choices);
        Ok(price.worst_cost(self.prompt.at_most(), output)?)
    }

    /// Without this the request is refused: the prompt, and one token of output where output can be
    /// lowered.
    ///
    /// # Errors
    /// More than fits.
    pub fn least(&self, price: &Price) -> Result<Credits, ApiError> {
        self.cost(price, self.least_output)
    }

    /// What the hold should cover.
    fn comfortable(&self, price: &Price) -> Result<Credits, ApiError> {
        let output = if self.visible {
            self.output_limit.min(FIRST_SLICE_TOKENS)
        } else {
            self.output_limit
        };
        self.cost(price, output)
    }

    /// True where the bound is so much of what is free that the exact count may decide.
    fn bound_is_dear(&self, price: &Price, free: Credits) -> Result<bool, ApiError> {
        let bound = price.worst_cost(self.prompt.at_most(), 0)?;
        Ok(bound.is_positive() && bound.nanos().saturating_mul(EXACT_SHARE) > free.nanos())
    }

    /// The output limit that `credits` cover, where that is lower than what was asked.
    fn clamp(&self, price: &Price, credits: Credits) -> Result<Option<u64>, ApiError> {
        if self.visible || self.cost(price, self.output_limit)? <= credits {
            return Ok(None);
        }
        let tokens = price.affordable_output(self.prompt.at_most(), credits)?;
        Ok(Some((tokens / self.choices.max(1)).max(1)))
    }
}

/// A bound on the prompt, and a way to count it later.
fn prompt(request: &ChatRequest<'_>, body: &Bytes, model: &Model, files: bool) -> Prompt {
    let images = || {
        has(request, body, &IMAGES, |part| {
            matches!(part, Part::Image { .. })
        })
    };
    let tokens = if files {
        u64::from(model.context_window)
    } else {
        model.prompt_rules().upper_bound(body.len(), images())
    };
    let bound = Usage {
        prompt: tokens,
        ..Usage::default()
    };
    let body = body.clone();
    let rules = model.prompt_rules();
    if request.prompt().is_some() {
        return Prompt::AtMost(bound, Box::new(move || completion(&body, &rules, bound)));
    }
    let count = move || match ChatRequest::parse(&body, &RequestLimits::default()) {
        Ok(request) => {
            let parts: Vec<_> = request.parts().into_iter().filter_map(billable).collect();
            rules.count(&parts)
        }
        // Cannot be: it parsed when it came in.
        Err(_) => bound,
    };
    Prompt::AtMost(bound, Box::new(count))
}

/// The prompt of a text completion, counted.
fn completion(body: &Bytes, rules: &PromptRules, bound: Usage) -> Usage {
    let request = ChatRequest::parse_completion(body, &RequestLimits::default());
    let Some(inputs) = request.as_ref().ok().and_then(ChatRequest::prompt) else {
        // Cannot be: it parsed when it came in.
        return bound;
    };
    let texts = inputs
        .texts
        .iter()
        .map(|text| rules.tokenizer().count(text));
    Usage {
        prompt: texts.fold(inputs.tokens, u64::saturating_add),
        ..Usage::default()
    }
}

/// A part as it is counted for a bill when the provider has not reported: nobody pays for the
/// worst case of a file. What is given by its id or address counts as nothing, sound too; a file that
/// is sent along as a token for every four bytes, which is about what text has.
pub(crate) fn billable(part: Part<'_>) -> Option<Part<'_>> {
    match part {
        Part::File { bytes: usize::MAX }
        | Part::Audio {
            bytes: usize::MAX, ..
        } => None,
        Part::File { bytes } => Some(Part::File {
            bytes: bytes.div_ceil(4),
        }),
        Part::Message
        | Part::Name(_)
        | Part::Text(_)
        | Part::Image { .. }
        | Part::Audio { .. }
        | Part::Tool { .. }
        | Part::Schema(_) => Some(part),
    }
}

/// Words that are in every request with a file, a video or a sound.
static FILES: LazyLock<Words> = LazyLock::new(|| Words::new(&["file", "video", "audio"]));
/// The word that is in every request with an image.
static IMAGES: LazyLock<Words> = LazyLock::new(|| Words::new(&["image"]));

/// How many parts of a kind a request has. Most have none, which a search of the text for the
/// kind's words tells sooner than taking it apart (an escape hides nothing: writing a letter of
/// a word as one is found too).
fn has(
    request: &ChatRequest<'_>,
    body: &[u8],
    words: &Words,
    is: impl Fn(&Part<'_>) -> bool,
) -> usize {
    if !words.may_be_in(body) {
        return 0;
    }
    request.parts().iter().filter(|part| is(part)).count()
}

/// Loads a vocabulary in the background when the first request that may be counted with it is here:
/// one that is not used takes tens of megabytes.
fn load_soon(tokenizer: Tokenizer) {
    if tokenizer.begins_loading() {
        tokio::task::spawn_blocking(move || tokenizer.warm_up());
    }
}

/// Sets credits aside for a request.
///
/// # Errors
/// 402 with the reason, or 503 when the books cannot be asked.
pub async fn hold(
    ledger: &Ledger,
    path: &Path,
    price: &Arc<Price>,
    model: &Model,
    mut ask: Ask,
) -> Result<Admitted, ApiError> {
    load_soon(model.tokenizer);
    let permit = ledger.reserve()?;
    let deadline = Instant::now() + WAIT_MAX;
    let large = ask.body_bytes >= OFF_THREAD_BYTES_MIN;
    if large || ask.bound_is_dear(price, path.free(Instant::now()))? {
        Box::pin(ask.count()).await;
    }
    let mut least = ask.least(price)?;
    let mut want = ask.comfortable(price)?.max(least);
    for _ in 0..ROUNDS_MAX {
        if let Ok(reserved) = Reserved::take(path, want, Instant::now()) {
            for budget in path.budgets() {
                ledger.refill_soon(budget);
            }
            return Ok(Admitted {
                clamped: ask.clamp(price, reserved.amount())?,
                hold: Hold::new(reserved, permit),
                meter: Meter::new(price.clone(), model.output_tokenizer(), ask.prompt),
            });
        }
        // On the heap, as all that most requests do not wait for: they would be larger for it.
        match Box::pin(ledger.obtain(path, want, want, deadline)).await {
            Ok(()) => {}
            Err(shortfall) if shortfall.unavailable => return Err(ApiError::Unaccountable),
            // Not all of it is there: be content with what is.
            Err(shortfall) => {
                if shortfall.available < least && ask.is_bounded() {
                    // The prompt may be smaller than its bound by just what is lacking.
                    Box::pin(ask.count()).await;
                    least = ask.least(price)?;
                    want = ask.comfortable(price)?.max(least);
                }
                if shortfall.available < least {
                    return Err(refused(&shortfall, least, Credits::ZERO));
                }
                want = shortfall.available.min(want);
            }
        }
    }
    Err(ApiError::Unaccountable)
}

/// Sees that there is any credit at all, for what costs nothing but is not for everybody.
///
/// # Errors
/// 402 with the reason, or 503 when the books cannot be asked.
pub async fn solvent(ledger: &Ledger, path: &Path) -> Result<(), ApiError> {
    set_aside(ledger, path, Credits::from_nanos(1))
        .await
        .map(drop)
}

/// Sets so much credit aside, all or none.
///
/// # Errors
/// As [`solvent`].
pub async fn set_aside(
    ledger: &Ledger,
    path: &Path,
    amount: Credits,
) -> Result<Reserved, ApiError> {
    let deadline = Instant::now() + WAIT_MAX;
    for _ in 0..ROUNDS_MAX {
        if let Ok(reserved) = Reserved::take(path, amount, Instant::now()) {
            return Ok(reserved);
        }
        match Box::pin(ledger.obtain(path, amount, amount, deadline)).await {
            Ok(()) => {}
            Err(shortfall) if shortfall.unavailable => return Err(ApiError::Unaccountable),
            Err(shortfall) => return Err(refused(&shortfall, amount, Credits::ZERO)),
        }
    }
    Err(ApiError::Unaccountable)
}

/// The 402 for a shortfall of a request that holds `own` already.
#[must_use]
pub fn refused(shortfall: &Shortfall, required: Credits, own: Credits) -> ApiError {
    let scope = match shortfall.budget {
        BudgetId::Account(_) => Scope::Account,
        BudgetId::Key(..) => Scope::Key,
    };
    let held = shortfall
        .held
        .saturating_sub(own)
        .at_least_zero()
        .saturating_add(shortfall.leased_elsewhere);
    let reason = if shortfall.available.saturating_add(held) >= required {
        PaymentReason::HeldByRunningRequests
    } else {
        match scope {
            Scope::Account => PaymentReason::CreditsExhausted,
            Scope::Key => PaymentReason::KeyLimitReached,
        }
    };
    ApiError::PaymentRequired(Box::new(PaymentRequired {
        reason,
        scope,
        // What a running request found, it has taken.
        available: if own.is_zero() {
            shortfall.available
        } else {
            Credits::ZERO
        },
        held,
        required,
        affordable_tokens: 0,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalogue::Catalogue, provider_file::ProviderFile};

    fn model() -> Arc<Model> {
        let text = r#"
            name = "p"
            dialect = "openai"
            base_url = "https://p.example/v1"
            api_key_env = "KEY"
            [[models]]
            id = "m"
            context_window = 50_000
            price = { prompt = "1", completion = "1" }
        "#;
        let file = ProviderFile::parse("p.toml", text).unwrap();
        let files = vec![("p.toml".to_owned(), file)];
        let catalogue = Catalogue::new(files, &[], |_| Some("x".into()), &mut Vec::new());
        catalogue.resolve("m")[0].clone()
    }

    /// What is set aside for a prompt without counting, and what is billed where nobody reports.
    fn prompt_of(part: &str) -> (u64, u64) {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":[{part}]}}]}}"#);
        let body = Bytes::from(body);
        let request = ChatRequest::parse(&body, &RequestLimits::default()).unwrap();
        let model = model();
        let held = Ask::new(&request, &body, &model)
            .prompt
            .at_most()
            .prompt_total();
        let parts: Vec<_> = request.parts().into_iter().filter_map(billable).collect();
        (held, model.prompt_rules().count(&parts).prompt_total())
    }

    #[test]
    fn what_is_elsewhere_is_held_for_at_its_most_and_billed_as_nothing() {
        let (_, framing) = prompt_of("");
        for part in [
            r#"{"type":"file","file":{"file_id":"f"}}"#,
            r#"{"type":"video_url","video_url":{"url":"https://v.example/a.mp4"}}"#,
            r#"{"type":"input_audio","input_audio":{"format":"wav"}}"#,
            r#"{"type":"input_audio","input_\u0061udio":{"url":"https://v.example/a.wav"}}"#,
        ] {
            assert_eq!(prompt_of(part), (50_000, framing), "{part}");
        }
        // What is sent along has a size.
        let sent = r#"{"type":"input_audio","input_audio":{"data":"UklGRg==","format":"wav"}}"#;
        let (held, billed) = prompt_of(sent);
        assert!(
            billed > framing && billed <= held && held < 1_000,
            "{held} {billed}"
        );
    }
}
