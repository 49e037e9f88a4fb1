//! The stream counter: the exact count of a text that arrives in pieces, without ever keeping it.

mod fit;

use crate::{
    Encoding, Tokenizer,
    inside::{Cut, any_cut, lasting_cut},
};

/// How much text is copied aside before any of it is tokenized, in bytes.
pub const PENDING_BYTES_MAX: usize = 16 * 1024;
/// A tail longer than this is cut inside a piece, in bytes.
const TAIL_BYTES: usize = 2 * 1024;
/// A tail longer than this is cut even where the cut may not last, in bytes.
const TAIL_BYTES_MAX: usize = 8 * 1024;
/// How many pieces at the end of a text can still change when it goes on.
///
/// A piece changes only when the splitting of it looked at the end of the text, and then at most
/// one piece follows it: upper-case letters that wait for a lower-case one, white space after its
/// last line break, an apostrophe that waits to become a contraction.
const OPEN_PIECES: usize = 2;

/// Counts one text that grows: one choice's one kind of output.
///
/// The count is that of the whole text, however it was split into deltas: what can no longer
/// change is counted and dropped, the last pieces are kept. Only a run of more than 8 KiB in which
/// no lasting cut is found (for example white space of thousands of characters after a line
/// break) is cut where it may have to be cut, which can be one or two tokens off per 8 KiB; from
/// then on [`StreamCounter::is_exact`] is false.
///
/// A new counter owns no memory beyond its 96 bytes. It keeps what was pushed since the last count,
/// so it holds at most 32 KiB, and after a count of text with spaces in it some tens of bytes.
#[derive(Clone, Debug)]
pub struct StreamCounter {
    tokenizer: Tokenizer,
    inexact: bool,
    /// The text that is not committed: the tail, then what was pushed since.
    text: String,
    /// How much of `text` was pushed since it was last looked at.
    unseen: usize,
    /// How long `text` was when no lasting cut was found in it.
    tried: usize,
    /// The tokens before `text`, before the factor.
    committed: u64,
    /// The tokens of `text`, before the factor, if nothing was pushed since they were counted.
    tail: Option<u64>,
}

impl StreamCounter {
    /// A counter of the empty text.
    #[must_use]
    pub const fn new(tokenizer: Tokenizer) -> Self {
        Self {
            tokenizer,
            inexact: false,
            text: String::new(),
            unseen: 0,
            tried: 0,
            committed: 0,
            tail: Some(0),
        }
    }

    /// Appends `delta`. It is only copied, until [`PENDING_BYTES_MAX`] have come together; then
    /// they are tokenized (1 to 3 ms).
    pub fn push(&mut self, delta: &str) {
        let mut rest = delta;
        while !rest.is_empty() {
            self.tail = None;
            let room = PENDING_BYTES_MAX.saturating_sub(self.unseen);
            let (now, later) = rest.split_at(rest.floor_char_boundary(room));
            self.text.push_str(now);
            self.unseen += now.len();
            rest = later;
            if !rest.is_empty() || self.unseen >= PENDING_BYTES_MAX {
                self.commit();
            }
        }
    }

    /// A number that [`StreamCounter::exact`] does not exceed, without tokenizing: what is
    /// committed, and a token for each byte that is not. Directly after `exact` it is exact.
    #[must_use]
    pub fn upper_bound(&self) -> u64 {
        let open = self.tail.unwrap_or(self.text.len() as u64);
        self.tokenizer.factor().scale(self.committed + open)
    }

    /// The tokens of everything pushed so far, as if it were counted at once.
    pub fn exact(&mut self) -> u64 {
        let plain = self.plain_exact();
        self.tokenizer.factor().scale(plain)
    }

    /// The encoding's own count of everything pushed so far, before the factor.
    pub fn plain(&mut self) -> u64 {
        self.plain_exact()
    }

    /// How many leading bytes of `delta` may be appended so that the count stays at most
    /// `at_most_total`: as many as possible, ending between two characters. Appends nothing.
    ///
    /// The count of a text is not monotone (one more letter can join two tokens), so the answer is
    /// the longest beginning that fits, not the first that is full. It costs a few milliseconds
    /// at most for a delta of some KiB, and is linear in the delta.
    pub fn fit(&mut self, delta: &str, at_most_total: u64) -> usize {
        let limit = self.tokenizer.factor().most_within(at_most_total);
        let bytes = self.text.len() as u64 + delta.len() as u64;
        if self.committed.saturating_add(bytes) <= limit {
            return delta.len();
        }
        self.plain_exact();
        if self.committed > limit {
            return 0;
        }
        fit::Search::new(self, delta, limit).run()
    }

    /// The bytes that the next [`StreamCounter::exact`] tokenizes.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.text.len()
    }

    /// False once a run had to be cut where the cut may not last; see the type.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        !self.inexact
    }

    fn encoding(&self) -> Encoding {
        self.tokenizer.encoding()
    }

    fn plain_exact(&mut self) -> u64 {
        let tail = match self.tail {
            Some(tail) => tail,
            None => {
                self.commit();
                self.tokenizer.plain_count(&self.text)
            }
        };
        self.tail = Some(tail);
        self.committed + tail
    }

    /// Counts and drops what no continuation can change.
    fn commit(&mut self) {
        self.unseen = 0;
        let mut open: [Option<&str>; OPEN_PIECES] = [None; OPEN_PIECES];
        let (mut bytes, mut tokens) = (0, 0);
        for piece in self.encoding().pieces(&self.text) {
            if let Some(closed) = open[0] {
                bytes += closed.len();
                tokens += self.tokenizer.piece_count(closed);
            }
            open.rotate_left(1);
            open[OPEN_PIECES - 1] = Some(piece);
        }
        self.drop_counted(bytes, tokens);
        while self.text.len() > TAIL_BYTES && self.text.len() >= self.tried + TAIL_BYTES / 2 {
            self.cut_inside();
        }
    }

    /// Shortens a long tail by a cut inside its first piece.
    fn cut_inside(&mut self) {
        match self.place_inside() {
            Some((cut, lasts)) => {
                self.inexact |= !lasts;
                self.drop_counted(cut.bytes, cut.tokens);
            }
            None => self.tried = self.text.len(),
        }
    }

    /// Where to cut a long tail, and whether that cut lasts; nothing while it can still wait.
    fn place_inside(&self) -> Option<(Cut, bool)> {
        let encoding = self.encoding();
        let mut pieces = encoding.pieces(&self.text);
        let first = pieces.next()?;
        if let Some(cut) = lasting_cut(encoding, first) {
            return Some((cut, true));
        }
        if self.text.len() <= TAIL_BYTES_MAX {
            return None;
        }
        let all_of_it = Cut {
            bytes: first.len(),
            tokens: self.tokenizer.piece_count(first),
        };
        let followed = pieces.next().is_some();
        let inside = if followed {
            None
        } else {
            any_cut(encoding, first)
        };
        Some((inside.unwrap_or(all_of_it), false))
    }

    fn drop_counted(&mut self, bytes: usize, tokens: u64) {
        if bytes == 0 {
            return;
        }
        self.committed += tokens;
        self.text.drain(..bytes);
        self.tried = 0;
        if self.text.capacity() > TAIL_BYTES && self.text.len() < self.text.capacity() / 4 {
            self.text.shrink_to(0);
        }
    }
}
