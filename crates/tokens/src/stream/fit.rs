//! The longest beginning of a delta whose count stays within a limit.

use bpe_openai::appendable_encoder::AppendableEncoder;

use super::StreamCounter;
use crate::Encoding;

/// How far the text is advanced at a time while a limit is searched, in bytes.
const SEARCH_BYTES: usize = 512;
/// How much the count of a beginning may differ from the position it has in the whole text's
/// tokens: beginnings within this of the limit are counted one by one.
const SEARCH_SLACK_TOKENS: u64 = 4;

/// The search for the longest beginning of a delta that fits.
pub(super) struct Search<'a> {
    ahead: StreamCounter,
    delta: &'a str,
    /// The most tokens, before the factor.
    limit: u64,
    /// The tail of the counter and the whole delta.
    text: String,
    tail_bytes: usize,
    /// What was committed when: the states `ahead` went through.
    states: Vec<State>,
}

/// A boundary in the text that every beginning of at least `seen` bytes has.
struct State {
    seen: usize,
    boundary: usize,
    tokens: u64,
}

impl<'a> Search<'a> {
    pub(super) fn new(counter: &StreamCounter, delta: &'a str, limit: u64) -> Self {
        let ahead = counter.clone();
        let tail_bytes = counter.text.len();
        let start = State {
            seen: tail_bytes,
            boundary: 0,
            tokens: counter.committed,
        };
        Self {
            text: [counter.text.as_str(), delta].concat(),
            ahead,
            delta,
            limit,
            tail_bytes,
            states: vec![start],
        }
    }

    pub(super) fn run(mut self) -> usize {
        let end = self.advance();
        if end == self.text.len() && self.ahead.plain_exact() <= self.limit {
            return self.delta.len();
        }
        let fits = self.states.last().map_or(0, |state| state.boundary);
        // A state holds for beginnings that contain what it has seen. The last boundary fits, so
        // the latest state that had seen no more than that is where the answer is.
        let windows = self
            .states
            .iter()
            .rev()
            .skip_while(|state| state.seen > fits);
        let first = self.states.first();
        windows
            .chain(first)
            .find_map(|window| self.longest(window, end))
            .unwrap_or(0)
    }

    /// The longest beginning between what `window` has seen and `end` that fits, as bytes of the
    /// delta.
    fn longest(&self, window: &State, end: usize) -> Option<usize> {
        let text = self.text.get(window.boundary..end)?;
        let slack = self.limit.saturating_add(SEARCH_SLACK_TOKENS);
        let fits = |at: &usize| {
            let beginning = text.get(..*at).unwrap_or_default();
            window.tokens + self.ahead.tokenizer.plain_count(beginning) <= self.limit
        };
        likely_counts(self.ahead.encoding(), text)
            .into_iter()
            .rev()
            .take_while(|(at, _)| window.boundary + at >= window.seen)
            .filter(|(_, tokens)| window.tokens + tokens <= slack)
            .map(|(at, _)| at)
            .find(fits)
            .map(|at| window.boundary + at - self.tail_bytes)
    }

    /// Commits block by block until what is committed reaches the limit, and returns how much of
    /// the text that took: no longer beginning fits.
    fn advance(&mut self) -> usize {
        let mut rest = self.delta;
        let mut seen = self.tail_bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.ceil_char_boundary(SEARCH_BYTES));
            self.ahead.push(now);
            self.ahead.commit();
            seen += now.len();
            rest = later;
            if self.ahead.committed >= self.limit {
                break;
            }
            self.states.push(State {
                seen,
                boundary: seen - self.ahead.text.len(),
                tokens: self.ahead.committed,
            });
        }
        seen
    }
}

/// Every place between two characters of `text`, the end included and the start too, and what the
/// text before it counts, as far as that can be told in one go: exact inside one piece.
fn likely_counts(encoding: Encoding, text: &str) -> Vec<(usize, u64)> {
    let mut places = vec![(0, 0)];
    let (mut start, mut before) = (0, 0);
    for piece in encoding.pieces(text) {
        let counts = match encoding {
            Encoding::O200kBase | Encoding::Cl100kBase => counts(encoding, piece),
            Encoding::Given(given) => given.counts(piece),
        };
        for (at, tokens) in (1..).zip(&counts) {
            if piece.is_char_boundary(at) {
                places.push((start + at, before + tokens));
            }
        }
        start += piece.len();
        before += counts.last().copied().unwrap_or(0);
    }
    places
}

/// The tokens of each beginning of a piece, from its first byte on.
fn counts(encoding: Encoding, piece: &str) -> Vec<u64> {
    let Some(vocabulary) = encoding.vocabulary() else {
        return Vec::new();
    };
    let mut encoder = AppendableEncoder::new(vocabulary);
    let counts = piece.bytes().map(|byte| {
        encoder.push(byte);
        encoder.token_count() as u64
    });
    counts.collect()
}
