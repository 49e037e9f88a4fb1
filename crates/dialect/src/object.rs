//! A provider's JSON object, read into a struct that borrows from its text.

use serde::Deserialize;

use crate::error::DecodeError;

/// Reads an object.
///
/// # Errors
/// Not JSON, no object, one without what `T` needs, or so long that a place in it is above `u32::MAX`.
pub(crate) fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, DecodeError> {
    if u32::try_from(text.len()).is_err() {
        return Err(DecodeError::TooLarge);
    }
    // A derived struct would also take a list of its members.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(DecodeError::shape("not an object"));
    }
    Ok(serde_json::from_str(text)?)
}

/// The text of a body, or of the data of an event.
///
/// # Errors
/// Not UTF-8.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8)
}
