//! One operation of the document, put together from what it takes, gives and refuses.

use super::schemas::Schema;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Who has an API key.
    Client,
    /// Who has the admin key.
    Operator,
    /// Anybody who reaches the address.
    Anybody,
}

/// One operation.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) access: Access,
    /// Parameters of the query: name and meaning.
    pub(crate) query: &'static [(&'static str, &'static str)],
    pub(super) body: Option<Schema>,
    /// Whether the body is a form with files in it.
    pub(super) form: bool,
    /// Status, meaning, and content by its type.
    pub(super) answers: &'static [Answer],
    /// Refusals beside those that all routes of this access have.
    pub(crate) refusals: &'static [&'static str],
    /// Whether it takes an Idempotency-Key.
    pub(crate) repeatable: bool,
}

pub(super) type Answer = (
    &'static str,
    &'static str,
    &'static [(&'static str, Schema)],
);

impl Route {
    pub(super) const fn new(
        access: Access,
        method: &'static str,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
    ) -> Self {
        Self {
            method,
            path,
            id,
            summary,
            access,
            query: &[],
            body: None,
            form: false,
            answers: &[],
            refusals: &[],
            repeatable: false,
        }
    }

    pub(super) const fn query(mut self, query: &'static [(&'static str, &'static str)]) -> Self {
        self.query = query;
        self
    }

    pub(super) const fn takes(mut self, body: Schema) -> Self {
        self.body = Some(body);
        self
    }

    pub(super) const fn takes_form(mut self, body: Schema) -> Self {
        self.body = Some(body);
        self.form = true;
        self
    }

    pub(super) const fn gives(mut self, answers: &'static [Answer]) -> Self {
        self.answers = answers;
        self
    }

    pub(super) const fn refuses(mut self, refusals: &'static [&'static str]) -> Self {
        self.refusals = refusals;
        self
    }

    pub(super) const fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }
}

pub(super) const fn client(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
) -> Route {
    Route::new(Access::Client, method, path, id, summary)
}

/// A request to a model, that costs something.
pub(super) const fn paid(path: &'static str, id: &'static str, summary: &'static str) -> Route {
    client("post", path, id, summary)
        .refuses(&[
            "400", "402", "404", "409", "413", "422", "429", "502", "504",
        ])
        .repeatable()
}

pub(super) const fn operator(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
) -> Route {
    Route::new(Access::Operator, method, path, id, summary)
}

pub(super) const fn anybody(path: &'static str, id: &'static str, summary: &'static str) -> Route {
    Route::new(Access::Anybody, "get", path, id, summary)
}
