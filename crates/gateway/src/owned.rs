//! Whose an object at a provider is: what a request names is its own key's, or nobody's.

use std::{collections::HashSet, sync::LazyLock};

use serde_json::Value;
use store::{KeyRecord, OwnedObject, Owner, Store};

use crate::{app::Shared, error::ApiError, words::Words};

/// Names that one request may have at most.
const NAMES_MAX: usize = 20_000;
/// The name of an object has so many bytes.
const NAME_BYTES: std::ops::RangeInclusive<usize> = 5..=256;

/// Members of requests to models that refer to objects.
const REFERENCES: [&str; 5] = [
    "file_id",
    "file_ids",
    "vector_store_ids",
    "container",
    "container_id",
];

/// What a request names that could be an object.
#[derive(Debug, Default)]
pub struct Names(HashSet<String>);

/// What is known of the objects that a request names.
#[derive(Debug)]
pub struct Known {
    asker: Owner,
    objects: Vec<OwnedObject>,
}

/// The key that asks, as an owner.
#[must_use]
pub fn owner(key: &KeyRecord) -> Owner {
    Owner {
        account: key.account_id,
        key: key.key_id,
    }
}

impl Names {
    /// Adds a text, where it could be a name.
    pub fn add(&mut self, text: &str) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if NAME_BYTES.contains(&text.len()) && text.bytes().all(plain) && !self.0.contains(text) {
            self.0.insert(text.to_owned());
        }
    }

    /// Adds every text in a document, names of members too.
    pub fn add_json(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.add(text),
            Value::Array(items) => items.iter().for_each(|item| self.add_json(item)),
            Value::Object(members) => {
                for (name, value) in members {
                    self.add(name);
                    self.add_json(value);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Adds the texts under those members of a request to a model that refer to objects.
    fn add_references(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.add_references(item)),
            Value::Object(members) => {
                for (name, value) in members {
                    if REFERENCES.contains(&name.as_str()) {
                        self.add_json(value);
                    } else {
                        self.add_references(value);
                    }
                }
            }
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Adds the values of a query.
    pub fn add_query(&mut self, query: &str) {
        for pair in query.split('&') {
            let (_, value) = pair.split_once('=').unwrap_or((pair, pair));
            self.add(&unescaped(value));
        }
    }

    /// Asks the books about them.
    ///
    /// # Errors
    /// 400 where there are too many, 503 where the books cannot be asked.
    pub async fn look_up(&self, store: &Store, key: &KeyRecord) -> Result<Known, ApiError> {
        if self.0.len() > NAMES_MAX {
            return Err(ApiError::Invalid {
                param: None,
                message: "This request names too many things. Send fewer at once.".into(),
            });
        }
        let names: Vec<&str> = self.0.iter().map(String::as_str).collect();
        Ok(Known {
            asker: owner(key),
            objects: store.objects(&names).await?,
        })
    }
}

impl Known {
    /// The objects that the key that asks owns.
    pub fn mine(&self) -> impl Iterator<Item = &OwnedObject> {
        let of_asker = |object: &&OwnedObject| object.owner == self.asker;
        self.objects.iter().filter(of_asker)
    }

    /// The key's own object of this name, wherever it is.
    ///
    /// # Errors
    /// 404: nobody's, or somebody else's; which of them is not told.
    pub fn own(&self, id: &str) -> Result<&OwnedObject, ApiError> {
        self.mine()
            .find(|object| object.id == id)
            .ok_or_else(nothing)
    }

    /// Refuses what somebody else owns at the provider that is asked, and results that are not paid
    /// for.
    ///
    /// # Errors
    /// 404.
    pub fn allow(&self, provider: &str) -> Result<(), ApiError> {
        self.allow_where(|object| object.provider == provider)
    }

    /// The same at any provider.
    fn allow_anywhere(&self) -> Result<(), ApiError> {
        self.allow_where(|_| true)
    }

    fn allow_where(&self, here: impl Fn(&OwnedObject) -> bool) -> Result<(), ApiError> {
        for object in self.objects.iter().filter(|object| here(object)) {
            if object.owner != self.asker {
                return Err(nothing());
            }
            if object.made_by.is_some() && !object.paid {
                return Err(ApiError::NotFound(
                    "These results are not paid for yet: get their content first.".into(),
                ));
            }
        }
        Ok(())
    }
}

/// Refuses a request to a model that names what somebody else has made, and tells what of the key's own
/// it names. Nothing is asked of the books where the request names nothing.
///
/// # Errors
/// 404 for what is not the key's own, 503 where the books cannot be asked.
pub async fn guard(
    app: &Shared,
    key: &KeyRecord,
    body: &[u8],
) -> Result<Vec<OwnedObject>, ApiError> {
    static NAMES: LazyLock<Words> = LazyLock::new(|| Words::new(&REFERENCES));
    if !NAMES.may_be_in(body) {
        return Ok(Vec::new());
    }
    let mut names = Names::default();
    names.add_references(&serde_json::from_slice(body).unwrap_or_default());
    if names.0.is_empty() {
        return Ok(Vec::new());
    }
    // On the heap: few requests wait for it, and all would be larger for it.
    let known = Box::pin(names.look_up(&app.store, key)).await?;
    known.allow_anywhere()?;
    Ok(known.objects)
}

/// What is said of an object that is not the key's own, whether or not there is one.
pub fn nothing() -> ApiError {
    ApiError::NotFound("This key has made nothing of this name.".into())
}

/// A value of a query without its escapes; what is escaped wrongly stays.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digit = |at: usize| char::from(*after.get(at)?).to_digit(16);
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_found_wherever_they_stand() {
        let mut names = Names::default();
        names.add_json(&json!({
            "training_file": "file-abc", "list": [{"id": "vs_1234"}], "text": "two words",
            "file-key": 1, "short": "ab", "n": 12345678
        }));
        names.add_query("after=file%2dxyz&limit=20&batch_77");
        let mut found: Vec<&str> = names.0.iter().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                "batch_77",
                "file-abc",
                "file-key",
                "file-xyz",
                "short",
                "training_file",
                "vs_1234"
            ]
        );
        assert_eq!(unescaped("a%2"), "a%2");
    }
}
