//! JSON in the making: objects, lists and the body of a request.

use bytes::Bytes;

use crate::json;
use crate::quirks::Quirks;

/// Adds items to a list of them.
pub(crate) fn join(list: &mut String, items: &str) {
    if !list.is_empty() && !items.is_empty() {
        list.push(',');
    }
    list.push_str(items);
}

/// A JSON object, member by member. Values are JSON.
#[derive(Debug)]
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn new() -> Self {
        Self(String::from("{"))
    }

    pub(crate) fn put(&mut self, name: &str, value: &str) -> &mut Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&json::quote(name));
        self.0.push(':');
        self.0.push_str(value);
        self
    }

    pub(crate) fn put_some(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.put(name, value);
        }
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.len() == 1
    }

    pub(crate) fn end(&self) -> String {
        format!("{}}}", self.0)
    }
}

/// A request's body, member by member; those that the provider's file sets are its own.
pub(crate) struct Body<'a> {
    object: Object,
    quirks: &'a Quirks,
}

impl<'a> Body<'a> {
    pub(crate) fn new(quirks: &'a Quirks) -> Self {
        Self {
            object: Object::new(),
            quirks,
        }
    }

    pub(crate) fn put(&mut self, name: &str, value: &str) {
        if !self.quirks.set.contains_key(name) {
            self.object.put(name, value);
        }
    }

    pub(crate) fn put_some(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    pub(crate) fn end(mut self) -> Bytes {
        for (name, value) in &self.quirks.set {
            self.object.put(name, &value.to_string());
        }
        Bytes::from(self.object.end())
    }
}
