//! How many requests each key has in flight: no key may take the places of all others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use billing::KeyId;

/// Requests in flight, by key; a key without any is not in it.
#[derive(Clone, Debug, Default)]
pub struct Places(Arc<Mutex<HashMap<KeyId, usize>>>);

/// One request's place, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    key: KeyId,
}

impl Places {
    /// A place for a request of this key, where it has fewer than `max`.
    #[must_use]
    pub fn enter(&self, key: KeyId, max: usize) -> Option<Place> {
        let mut counts = self.counts();
        let count = counts.entry(key).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Place {
            places: self.clone(),
            key,
        })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<KeyId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.counts();
        if let Some(count) = counts.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_key_has_so_many_places_and_no_more() {
        let places = Places::default();
        let [one, other] = [1, 2].map(|id| KeyId::from_uuid(Uuid::from_u128(id)));
        let first = places.enter(one, 2).unwrap();
        let second = places.enter(one, 2);
        assert!(second.is_some() && places.enter(one, 2).is_none());
        assert!(places.enter(other, 2).is_some());
        drop(first);
        assert!(places.enter(one, 2).is_some());
        drop(second);
        assert!(places.counts().is_empty(), "nothing is kept of the past");
    }
}
