//! What an operator writes beside accounts and keys: bounded names and notes, and fields that can be cleared.

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// The operator's own notes as JSON at most, in bytes.
const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Characters of a name at most.
const NAME_CHARS_MAX: usize = 200;

/// The operator's own notes: a JSON object of at most 16 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(value_type = Object)]
pub struct Metadata(pub Map<String, Value>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = Map::deserialize(deserializer)?;
        let bytes = serde_json::to_vec(&map).map_err(de::Error::custom)?;
        if bytes.len() > METADATA_BYTES_MAX {
            return Err(de::Error::custom(format!(
                "metadata has at most {METADATA_BYTES_MAX} bytes as JSON, this has {}",
                bytes.len()
            )));
        }
        // Postgres keeps no NUL in a text, escaped or not.
        if memchr::memmem::find(&bytes, br"\u0000").is_some() {
            return Err(de::Error::custom(
                "metadata has a NUL character; take it out",
            ));
        }
        Ok(Self(map))
    }
}

/// A name: 1 to 200 characters, none of them a control character (names are printed on terminals).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(value_type = String, min_length = 1, max_length = 200)]
pub struct Name(pub String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let count = text.chars().count();
        if text.trim().is_empty() || count > NAME_CHARS_MAX || text.chars().any(char::is_control) {
            return Err(de::Error::custom(format!(
                "a name has 1 to {NAME_CHARS_MAX} characters, not only spaces and no control characters"
            )));
        }
        Ok(Self(text))
    }
}

/// For a field of a PATCH: absent is `None`, `null` is `Some(None)`.
///
/// # Errors
/// Those of the value.
pub fn clearable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// For a field of a PATCH that cannot be cleared: `null` is refused and not taken for absent.
///
/// # Errors
/// Those of the value, which `null` is not.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(text: &str) -> Result<Metadata, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn metadata_is_a_bounded_object() {
        assert!(metadata(r#"{"a":[1,{"b":null}]}"#).is_ok());
        for bad in [r#"[]"#, r#""x""#, "null", r#"{"a":"\u0000"}"#] {
            assert!(metadata(bad).is_err(), "{bad}");
        }
        let filled = |n: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(n));
        assert!(metadata(&filled(METADATA_BYTES_MAX - 8)).is_ok());
        assert!(metadata(&filled(METADATA_BYTES_MAX - 7)).is_err());
    }

    #[test]
    fn names() {
        let name = |text: &str| serde_json::from_value::<Name>(Value::String(text.to_owned()));
        assert!(name("Ada 🦀").is_ok());
        for bad in ["", "  ", "a\u{1b}[2J", "a\0", &"x".repeat(201)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }
}
