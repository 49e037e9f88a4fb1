//! A settlement that waits a moment for our own count of what the provider reported.

use tokens::Usage;
use tokio::sync::mpsc::OwnedPermit;

use crate::{Counted, Meter, Settlement, Slot, Text};

/// What is left to do for a request that is sampled: count what its provider has counted, and send
/// the settlement with both. The money is settled already. Dropping it sends the settlement without
/// the count.
#[derive(Debug)]
pub struct Sample {
    meter: Meter,
    waiting: Option<(OwnedPermit<Settlement>, Settlement)>,
}

impl Sample {
    pub(crate) const fn new(
        meter: Meter,
        place: OwnedPermit<Settlement>,
        settlement: Settlement,
    ) -> Self {
        Self {
            meter,
            waiting: Some((place, settlement)),
        }
    }

    /// What the provider reported, where that is what was charged for.
    #[must_use]
    pub fn reported(&self) -> Option<&Usage> {
        self.meter.reported()
    }

    /// Takes in a piece of an answer that the meter has not seen. Tokenizes: call it where
    /// blocking is allowed.
    pub fn push(&mut self, text: Text<'_>) {
        self.meter.push(text);
    }

    /// The encoding's own count of each text of the answer, before the tokenizer's factor.
    /// Tokenizes: call it where blocking is allowed.
    #[must_use]
    pub fn plain_output(&mut self) -> Vec<(Slot, u64)> {
        self.meter.plain_output()
    }

    /// Sends the settlement with what was counted; nothing where that is of no use.
    pub fn send(mut self, counted: Option<Counted>) {
        if let Some((_, settlement)) = &mut self.waiting {
            settlement.counted = counted;
        }
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        if let Some((place, settlement)) = self.waiting.take() {
            place.send(settlement);
        }
    }
}
