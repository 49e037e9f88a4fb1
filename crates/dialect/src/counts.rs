//! Reads the members of a provider's usage object: an object is one, a count is digits, everything else is a fault.

use serde::Deserialize;
use serde_json::value::RawValue;
use tokens::Usage;

use crate::error::UsageFault;

/// A member that may be missing. A `null` is missing too.
pub(crate) type Json<'a> = Option<&'a RawValue>;

/// An object's members, of which any may be missing.
pub(crate) fn object<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, UsageFault> {
    if !json.starts_with('{') {
        return Err(UsageFault::NotAnObject);
    }
    serde_json::from_str(json).map_err(|_| UsageFault::NotAnObject)
}

/// The same of an object inside another one, which may be missing.
pub(crate) fn inner<'a, T: Deserialize<'a> + Default>(raw: Json<'a>) -> Result<T, UsageFault> {
    raw.map_or_else(|| Ok(T::default()), |raw| object(raw.get()))
}

/// The first of several names for one count that is given.
pub(crate) fn count(field: &'static str, names: &[Json<'_>]) -> Result<Option<u32>, UsageFault> {
    let Some(json) = names.iter().flatten().next() else {
        return Ok(None);
    };
    let digits = json.get();
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UsageFault::NotACount { field });
    }
    digits
        .parse()
        .map(Some)
        .map_err(|_| UsageFault::TooLarge { field })
}

/// What of a prompt was not in a cache, taken apart. Cached tokens, audio and images may overlap (a
/// cached image is both). No count of the overlap is reported, so cache comes first, then audio, then
/// images, each at most what is left: no token is in two buckets, and the cheapest of its prices applies.
pub(crate) fn fresh_prompt(fresh: u64, audio: u64, image: u64) -> Usage {
    let audio_prompt = audio.min(fresh);
    let image_prompt = image.min(fresh - audio_prompt);
    Usage {
        prompt: fresh - audio_prompt - image_prompt,
        audio_prompt,
        image_prompt,
        ..Usage::default()
    }
}

/// A missing count is none.
pub(crate) fn wide(count: Option<u32>) -> u64 {
    count.map_or(0, u64::from)
}
