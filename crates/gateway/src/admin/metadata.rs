//! The operator's own notes beside accounts and keys, and how fields of a PATCH are told apart: absent, null, set.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// The operator's own notes: a JSON object of at most 16 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[schema(value_type = Object)]
pub struct Metadata(pub Map<String, Value>);

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

    #[derive(Deserialize)]
    struct Patch {
        #[serde(default, deserialize_with = "clearable")]
        limit: Option<Option<u8>>,
        #[serde(default, deserialize_with = "present")]
        name: Option<u8>,
    }

    #[test]
    fn absent_null_and_set_are_three_things() {
        let read = |text: &str| {
            serde_json::from_str::<Patch>(text)
                .ok()
                .map(|p| (p.limit, p.name))
        };
        for (text, fields) in [
            ("{}", Some((None, None))),
            (r#"{"limit":null}"#, Some((Some(None), None))),
            (r#"{"limit":1,"name":2}"#, Some((Some(Some(1)), Some(2)))),
            (r#"{"name":null}"#, None),
        ] {
            assert_eq!(read(text), fields, "{text}");
        }
    }
}
