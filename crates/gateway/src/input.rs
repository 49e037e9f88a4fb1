//! What a call brings: its JSON body, its query and the id in its path, each refused by name where it is wrong.

use std::{borrow::Cow, fmt::Display, str::FromStr, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
};
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use store::{Cursor, PAGE_ROWS_MAX, Page};

use crate::{app::Shared, error::ApiError, shape::Time};

/// Body of a call to the admin API at most, in bytes.
pub const CALL_BYTES_MAX: usize = 64 * 1024;
/// Characters of a parser's message that are passed on: it may quote the whole body.
const MESSAGE_CHARS_MAX: usize = 300;

/// The JSON body of a call to the admin API.
#[derive(Clone, Copy, Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Shared> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Shared) -> Result<Self, ApiError> {
        let bytes = read(request.into_body(), app.settings.body_timeout).await?;
        parse(&bytes).map(Self)
    }
}

/// The id in a path, under its parameter's name.
#[derive(Clone, Copy, Debug)]
pub struct Id<T>(pub T);

impl<T, S> FromRequestParts<S> for Id<T>
where
    T: FromStr<Err: Display>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| invalid("id", "the path is not valid UTF-8 once it is decoded"))?;
        text.parse()
            .map(Self)
            .map_err(|error: T::Err| invalid("id", error))
    }
}

/// The parameters of a query, each taken by name; what is left over is refused.
#[derive(Debug)]
pub struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::try_from_uri(&parts.uri).map_err(|error| ApiError::Invalid {
            param: None,
            message: short(&error.body_text()).into(),
        })?;
        Ok(Self(pairs))
    }
}

impl Parameters {
    /// Takes a parameter as text.
    ///
    /// # Errors
    /// It is there twice, has a control character, or is empty: an empty filter would silently
    /// match everything.
    pub fn text(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        let mut found = None;
        while let Some(at) = self.0.iter().position(|(key, _)| key == name) {
            let (_, value) = self.0.swap_remove(at);
            if found.replace(value).is_some() {
                return Err(invalid(name, "is there twice; pass it once"));
            }
        }
        match found {
            Some(value) if value.is_empty() => {
                Err(invalid(name, "is empty; leave it out or give it a value"))
            }
            // Postgres takes no NUL in a text; no name has any of the others either.
            Some(value) if value.chars().any(char::is_control) => {
                Err(invalid(name, "has a control character"))
            }
            found => Ok(found),
        }
    }

    /// Leaves out a parameter that has no effect here, however often it is there.
    pub fn skip(&mut self, name: &str) {
        self.0.retain(|(key, _)| key != name);
    }

    /// Takes a parameter that `read` understands.
    ///
    /// # Errors
    /// As [`Self::text`], or what `read` says.
    pub fn read<T, E: Display>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ApiError> {
        self.text(name)?
            .map(|text| read(&text).map_err(|error| invalid(name, error)))
            .transpose()
    }

    /// Takes a parameter by its type's own syntax.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parsed<T: FromStr<Err: Display>>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<T>, ApiError> {
        self.read(name, T::from_str)
    }

    /// Takes a parameter that is one of a closed set.
    ///
    /// # Errors
    /// As [`Self::text`], or the set.
    pub fn one_of<T: Copy>(
        &mut self,
        name: &'static str,
        all: &[T],
        shown: impl Fn(T) -> &'static str,
    ) -> Result<Option<T>, ApiError> {
        self.read(name, |text| one_of(text, all, shown))
    }

    /// Takes a time.
    ///
    /// # Errors
    /// As [`Self::parsed`].
    pub fn time(&mut self, name: &'static str) -> Result<Option<jiff::Timestamp>, ApiError> {
        Ok(self.parsed::<Time>(name)?.map(|time| time.0))
    }

    /// Takes `limit` and `cursor` of a list that the store keeps.
    ///
    /// # Errors
    /// A limit that is not from 1 to [`PAGE_ROWS_MAX`], or not a cursor.
    pub fn page(&mut self) -> Result<Page, ApiError> {
        let limit = self.limit()?.unwrap_or(100);
        self.forget_empty_cursor();
        Ok(Page::new(limit, self.read("cursor", cursor)?))
    }

    /// Takes `limit` and `cursor` of a list in memory; the whole list where there is no limit.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub fn slice(&mut self) -> Result<(usize, usize), ApiError> {
        let limit = self.limit()?.map_or(usize::MAX, usize::from);
        self.forget_empty_cursor();
        let start = self.read("cursor", |text| {
            text.parse::<u32>()
                .map_err(|_| "not a cursor; pass next_cursor of the page before")
        })?;
        Ok((limit, start.map_or(0, |start| start as usize)))
    }

    /// Refuses what nobody took: a mistyped filter must not widen a list.
    ///
    /// # Errors
    /// The name of the first unknown parameter.
    pub fn finish(self) -> Result<(), ApiError> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => Err(ApiError::Invalid {
                message: short(&format!("unknown parameter {name:?}")).into(),
                param: Some(short(&name).into()),
            }),
        }
    }

    fn limit(&mut self) -> Result<Option<u16>, ApiError> {
        self.read("limit", |text| {
            text.parse()
                .ok()
                .filter(|limit| (1..=PAGE_ROWS_MAX).contains(limit))
                .ok_or_else(|| format!("expected a whole number from 1 to {PAGE_ROWS_MAX}"))
        })
    }

    /// `cursor=` is the first page, as a loop that starts with an empty text has it.
    fn forget_empty_cursor(&mut self) {
        self.0
            .retain(|(name, value)| name != "cursor" || !value.is_empty());
    }
}

/// The 400 for a parameter.
pub fn invalid(param: &'static str, problem: impl Display) -> ApiError {
    ApiError::Invalid {
        param: Some(param.into()),
        message: short(&format!("{param}: {problem}")).into(),
    }
}

/// The member of a closed set with this name, or a message that lists them.
///
/// # Errors
/// The list.
pub fn one_of<T: Copy>(
    text: &str,
    all: &[T],
    shown: impl Fn(T) -> &'static str,
) -> Result<T, String> {
    all.iter()
        .copied()
        .find(|one| shown(*one) == text)
        .ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|one| shown(*one)).collect();
            format!("expected one of {}", names.join(", "))
        })
}

fn cursor(text: &str) -> Result<Cursor, &'static str> {
    text.parse()
        .map_err(|_| "not a cursor; pass next_cursor of the page before")
}

async fn read(body: Body, within: Duration) -> Result<bytes::Bytes, ApiError> {
    let whole = Limited::new(body, CALL_BYTES_MAX).collect();
    let late = |_| ApiError::Invalid {
        param: None,
        message: "The request body did not arrive in time. Send it at once.".into(),
    };
    match tokio::time::timeout(within, whole).await.map_err(late)? {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge {
            max: CALL_BYTES_MAX,
        }),
        Err(_) => Err(ApiError::Invalid {
            param: None,
            message: "The request body broke off.".into(),
        }),
    }
}

/// Reads a body; the error names the member at fault.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let problem = error.into_inner();
        if !problem.is_data() {
            return not_json(&problem);
        }
        let problem = problem.to_string();
        let param = param_of(&path, &problem);
        let message = match &param {
            Some(param) => short(&format!("{param}: {problem}")),
            None => short(&problem),
        };
        ApiError::Invalid {
            param: param.map(|param| Cow::Owned(short(&param))),
            message: message.into(),
        }
    })?;
    json.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

fn not_json(problem: &serde_json::Error) -> ApiError {
    ApiError::Invalid {
        param: None,
        message: short(&format!("The request body is not JSON: {problem}.")).into(),
    }
}

/// The member that a message of serde is about: the path where it knows one, else the first name
/// in backticks (`missing field` is reported for the object around it).
fn param_of(path: &str, problem: &str) -> Option<String> {
    let named = ["missing field", "unknown field", "duplicate field"]
        .iter()
        .any(|start| problem.starts_with(start));
    let name = problem.split('`').nth(1).filter(|_| named);
    match (path, name) {
        ("." | "?", name) => name.map(str::to_owned),
        (path, Some(name)) if path != name && !path.ends_with(&format!(".{name}")) => {
            Some(format!("{path}.{name}"))
        }
        (path, _) => Some(path.to_owned()),
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use billing::Credits;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the errors are looked at")]
    struct Call {
        amount: Credits,
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the errors are looked at")]
    struct Inner {
        until: Time,
    }

    fn refusal<T>(result: Result<T, ApiError>) -> (Option<String>, String) {
        match result.map(|_| ()) {
            Err(ApiError::Invalid { param, message }) => {
                (param.map(Cow::into_owned), message.into_owned())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_wrong_body_names_what_is_wrong() {
        for (body, param, part) in [
            (r#"{"amout":"1"}"#, Some("amout"), "unknown field"),
            (r#"{}"#, Some("amount"), "missing field"),
            (r#"{"amount":1}"#, Some("amount"), "expected"),
            (r#"{"amount":1.5}"#, Some("amount"), "expected"),
            (r#"{"amount":"1e3"}"#, Some("amount"), "decimal number"),
            (r#"{"amount":null}"#, Some("amount"), "null"),
            (
                r#"{"amount":"1","amount":"2"}"#,
                Some("amount"),
                "duplicate",
            ),
            (
                r#"{"amount":"1","inner":{}}"#,
                Some("inner.until"),
                "missing",
            ),
            (
                r#"{"amount":"1","inner":{"until":"x"}}"#,
                Some("inner.until"),
                "2026-01-31T",
            ),
            (
                r#"{"amount":"1","inner":{"until":"2026-01-31","x":1}}"#,
                Some("inner.x"),
                "unknown",
            ),
            ("[]", None, "invalid"),
            ("", None, "not JSON"),
            ("{", None, "not JSON"),
            (r#"{"amount":"1"} x"#, None, "not JSON"),
            ("\u{feff}{}", None, "not JSON"),
        ] {
            let (named, message) = refusal(parse::<Call>(body.as_bytes()));
            assert_eq!(named.as_deref(), param, "{body}: {message}");
            assert!(message.contains(part), "{body}: {message}");
        }
        let deep = format!("{{\"inner\":{}", "[".repeat(60_000));
        refusal(parse::<Call>(deep.as_bytes()));
        let long = format!("{{\"amount\":\"{}\"}}", "9".repeat(60_000));
        assert!(refusal(parse::<Call>(long.as_bytes())).1.len() < 1000);
        refusal(parse::<Call>(b"{\"amount\":\"\xff\"}"));
    }

    fn query(text: &str) -> Parameters {
        let uri: http::Uri = format!("/x?{text}").parse().unwrap();
        Parameters(Query::try_from_uri(&uri).unwrap().0)
    }

    #[test]
    fn parameters_are_taken_by_name_and_nothing_is_left() {
        let mut q = query("limit=5&from=2026-01-31&model=a%2Fb+c");
        assert_eq!(q.page().unwrap(), Page::new(5, None));
        assert!(q.time("from").unwrap().is_some());
        assert_eq!(q.text("model").unwrap().unwrap(), "a/b c");
        assert_eq!(q.text("other").unwrap(), None);
        q.finish().unwrap();
    }

    #[test]
    fn wrong_parameters_are_named() {
        for text in [
            "limit=0",
            "limit=1001",
            "limit=-1",
            "limit=x",
            "limit=",
            "limit=1&limit=2",
        ] {
            assert_eq!(
                refusal(query(text).page()).0.as_deref(),
                Some("limit"),
                "{text}"
            );
        }
        assert_eq!(
            refusal(query("cursor=x").page()).0.as_deref(),
            Some("cursor")
        );
        query("cursor=").page().unwrap();
        assert_eq!(
            refusal(query("acount_id=x").finish()).0.as_deref(),
            Some("acount_id")
        );
        assert_eq!(
            refusal(query("end=x").one_of("end", &billing::End::ALL, billing::End::as_str)).1,
            "end: expected one of completed, client_gone, upstream_failed, credits_exhausted, gateway_lost"
        );
    }
}
