//! Counting what a provider has counted too: a few requests of each model, off the request path, to learn from.

use std::{sync::Arc, time::Duration, time::Instant};

use billing::{Charge, Counted, End, Sample, Settled, Slot, Text};
use bytes::Bytes;
use dialect::{ChatRequest, RequestLimits};
use store::StoreError;
use tokens::{Factor, Lesson, Side, Usage};
use tokio::sync::Semaphore;

use crate::{
    admit::billable,
    app::{App, Shared},
    bill::{CONTENT_PART, REASONING_PART, REFUSAL_PART},
    catalogue::Model,
    learning::Known,
    watch::Watched,
};

/// A request or an answer longer than this is not counted, in bytes: the longest takes a thread for
/// about 25 milliseconds.
const SAMPLE_BYTES_MAX: usize = 128 * 1024;
/// What was learned is written down, and what others have learned is read, this often.
const EXCHANGE_EVERY: Duration = Duration::from_secs(60);

/// A request that is to be counted when its answer has come.
#[derive(Clone, Debug)]
pub struct Wanted {
    model: Arc<Model>,
    body: Bytes,
    /// Whether all of its output is shown.
    shown: bool,
}

/// Sees to it that one request is counted at a time, whatever the traffic.
#[derive(Clone, Debug)]
pub struct Counting(Arc<Semaphore>);

impl Default for Counting {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// Whether a request that goes upstream is to be counted when its answer has come.
#[must_use]
pub fn wanted(
    app: &App,
    request: &ChatRequest<'_>,
    body: &Bytes,
    model: &Arc<Model>,
    now: Instant,
) -> Option<Wanted> {
    let per_minute = app.settings.samples_per_minute;
    let chat = request.prompt().is_none();
    if !chat || body.len() > SAMPLE_BYTES_MAX || !model.learning.takes(per_minute, now) {
        return None;
    }
    let hides = model
        .provider
        .dialect
        .hides_output(request, &model.features);
    Some(Wanted {
        model: model.clone(),
        body: body.clone(),
        shown: !model.hidden_output && request.unwatchable().is_none() && !hides,
    })
}

/// Ends a charge. Where its provider has reported the usage and the request is wanted, its settlement
/// goes on its way when it is counted, which nobody waits for. `texts` are those of an answer that
/// the charge has not seen.
pub fn finish<'a, T: Iterator<Item = Text<'a>>>(
    app: &Shared,
    charge: Charge,
    end: End,
    watched: &Watched,
    texts: impl FnOnce() -> T,
) -> Option<Settled> {
    let Some(wanted) = watched.take_wanted() else {
        return charge.finish(end);
    };
    if !matches!(end, End::Completed) || !charge.is_reported() {
        return charge.finish(end);
    }
    // Only what will be counted takes the turn: another one may want it at this moment.
    let Ok(turn) = app.counting.0.clone().try_acquire_owned() else {
        return charge.finish(end);
    };
    let mut room = SAMPLE_BYTES_MAX;
    let mut texts_owned = Vec::new();
    for text in texts() {
        match room.checked_sub(text.text.len()) {
            Some(left) => room = left,
            None => return charge.finish(end),
        }
        texts_owned.push((text.slot, text.text.to_owned()));
    }
    let (settled, sample) = charge.finish_sampled(end)?;
    let metrics = app.metrics.clone();
    tokio::task::spawn_blocking(move || {
        let learning = wanted.model.learning.clone();
        count(&wanted, sample, &texts_owned);
        metrics.show_factors(&learning);
        drop(turn);
    });
    Some(settled)
}

/// Counts a request and its answer, learns from what its provider has counted, and sends the
/// settlement with both.
fn count(wanted: &Wanted, mut sample: Sample, texts: &[(Slot, String)]) {
    let Some(reported) = sample.reported().copied() else {
        return;
    };
    // It parsed when it came in.
    let Ok(request) = ChatRequest::parse(&wanted.body, &RequestLimits::default()) else {
        return;
    };
    let rules = wanted.model.prompt_rules();
    let parts: Vec<_> = request.parts().into_iter().filter_map(billable).collect();
    let prompt = rules.measure(&parts);
    for (slot, text) in texts {
        let slot = *slot;
        sample.push(Text { slot, text });
    }
    let output = sample.plain_output();
    let learning = &wanted.model.learning;
    let now = Instant::now();
    if let Some(lesson) = prompt.lesson(&reported) {
        learning.learn(Side::Prompt, lesson, now);
    }
    if let Some(lesson) = output_lesson(&output, &reported, wanted.shown) {
        learning.learn(Side::Completion, lesson, now);
    }
    let factor = learning.factor(Side::Completion);
    let completion = counted_output(&output, &reported, wanted.shown, factor);
    sample.send(completion.map(|completion| Counted {
        prompt: rules.usage(&prompt).prompt_total(),
        completion,
    }));
}

/// What we count of an answer. Reasoning that is reported apart is taken from the report: it may be
/// shown in part, or told again in other words. Nothing where some output is hidden and not named.
fn counted_output(
    output: &[(Slot, u64)],
    reported: &Usage,
    shown: bool,
    factor: Factor,
) -> Option<u64> {
    let apart = reported.reasoning > 0;
    if !(shown || apart) {
        return None;
    }
    let counts = |slot: &Slot| !(apart && slot.part == REASONING_PART);
    let plain: u64 = output
        .iter()
        .filter(|(slot, _)| counts(slot))
        .map(|(_, tokens)| tokens)
        .sum();
    Some(factor.scale(plain).saturating_add(reported.reasoning))
}

/// What a report says about the factor of the output. Nothing where the two are not of the same
/// text: reasoning that may be hidden in the figure, sound, and calls of tools, which every provider
/// writes out in its own way.
fn output_lesson(output: &[(Slot, u64)], reported: &Usage, shown: bool) -> Option<Lesson> {
    let reasoning_apart = reported.reasoning > 0;
    if reported.audio_completion > 0 || !(shown || reasoning_apart) {
        return None;
    }
    let mut content = 0;
    for (slot, tokens) in output {
        match slot.part {
            CONTENT_PART | REFUSAL_PART => content += tokens,
            REASONING_PART if reasoning_apart => {}
            _ => return None,
        }
    }
    Lesson::new(content, reported.completion)
}

/// Reads what all replicas have learned so far.
///
/// # Errors
/// The store cannot be read.
pub async fn load(app: &App) -> Result<(), StoreError> {
    for stored in app.store.token_factors().await? {
        let known = Known {
            estimate: stored.estimate,
            compared: stored.compared,
            updated_at: stored.updated_at,
        };
        for model in app.catalogue.models() {
            if model.learning.is_of(&stored) {
                model.learning.know(stored.side, known);
            }
        }
    }
    for model in app.catalogue.models() {
        if model.learning.show(Side::Prompt).known.is_some()
            || model.learning.show(Side::Completion).known.is_some()
        {
            app.metrics.show_factors(&model.learning);
        }
    }
    Ok(())
}

/// Writes down what was learned here, all of it where it is `urgent`, and reads what is known then.
///
/// # Errors
/// The store cannot be reached: what was to be written waits for the next time.
pub async fn exchange(app: &App, urgent: bool) -> Result<(), StoreError> {
    let now = Instant::now();
    let models = app.catalogue.models();
    let told: Vec<_> = models
        .iter()
        .flat_map(|model| model.learning.tell(urgent, now))
        .collect();
    let rows: Vec<_> = told.iter().map(|told| told.row()).collect();
    let written = app.store.learn_token_factors(&rows).await;
    drop(rows);
    if let Err(error) = written {
        for told in told {
            told.untold(now);
        }
        return Err(error);
    }
    load(app).await
}

/// Exchanges what is learned with the other replicas, until it is dropped.
pub async fn exchange_regularly(app: &App) {
    let mut failing = false;
    loop {
        tokio::time::sleep(EXCHANGE_EVERY).await;
        let exchanged = exchange(app, false).await;
        if let Err(error) = &exchanged
            && !failing
        {
            tracing::warn!(%error, "what was learned about tokenizers cannot be written down now");
        }
        failing = exchanged.is_err();
    }
}

#[cfg(test)]
mod tests {
    use billing::Output;

    use super::*;

    fn slot(part: u32) -> Slot {
        Slot {
            choice: 0,
            part,
            output: Output::Completion,
        }
    }

    fn reported(completion: u64, reasoning: u64) -> Usage {
        Usage {
            completion,
            reasoning,
            ..Usage::default()
        }
    }

    #[test]
    fn only_texts_that_both_have_counted_teach() {
        let text = [(slot(CONTENT_PART), 100)];
        assert!(output_lesson(&text, &reported(120, 0), true).is_some());
        assert!(output_lesson(&text, &reported(120, 0), false).is_none());
        assert!(output_lesson(&text, &reported(120, 900), false).is_some());
        let thoughts = [(slot(CONTENT_PART), 100), (slot(REASONING_PART), 50)];
        assert!(output_lesson(&thoughts, &reported(120, 0), true).is_none());
        assert_eq!(
            output_lesson(&thoughts, &reported(120, 60), true),
            Lesson::new(100, 120)
        );
        let ours = |shown, reasoning| {
            counted_output(&thoughts, &reported(120, reasoning), shown, Factor::EXACT)
        };
        assert_eq!((ours(true, 0), ours(false, 0)), (Some(150), None));
        assert_eq!(ours(false, 60), Some(160));
        let call = [(slot(CONTENT_PART), 100), (slot(2), 20)];
        assert!(output_lesson(&call, &reported(140, 0), true).is_none());
    }
}
