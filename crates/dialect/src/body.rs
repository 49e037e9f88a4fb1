//! The body of a request in whichever dialect: its members, read once, each of the kind that it must be.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::value::RawValue;

use crate::error::RequestError;
use crate::json::{self, Splice};
use crate::request::RequestLimits;

/// A top-level member of the body, in the place where the client put it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member<'a> {
    /// The key with its escapes resolved.
    pub(crate) name: Cow<'a, str>,
    pub(crate) key: Range<usize>,
    pub(crate) value: Range<usize>,
}

/// Kinds of JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Number,
    Text,
    List,
    Object,
}

/// Members by their names, and what each may be besides `null`.
pub(crate) type Reads = &'static [(&'static str, &'static [Kind])];

/// An object of bounded depth, with its members.
#[derive(Clone, Debug)]
pub(crate) struct Body<'a> {
    text: &'a str,
    members: Vec<Member<'a>>,
}

impl<'a> Body<'a> {
    /// Reads a body. A second one of the members that are read, also in another case, is refused, and
    /// so is one of `others`: a provider that takes the other one would serve a request that was never
    /// priced. (Go's `encoding/json` ignores case and takes the last.)
    ///
    /// # Errors
    /// Not JSON, not an object, too deep, too many members, a member given twice or of a wrong kind.
    pub(crate) fn read(
        body: &'a [u8],
        limits: &RequestLimits,
        reads: Reads,
        others: &[&'static str],
    ) -> Result<Self, RequestError> {
        let (text, members) = object(body, limits)?;
        let names = reads.iter().map(|(name, _)| *name);
        refuse_doubles(&members, names.chain(others.iter().copied()))?;
        let body = Self { text, members };
        for (name, kinds) in reads {
            if let Some(json) = body.get(name)
                && !kinds.contains(&kind(json))
            {
                let wanted: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
                let message = format!("`{name}` must be {}.", wanted.join(" or "));
                return Err(RequestError::param(*name, message));
            }
        }
        Ok(body)
    }

    /// The text that it was read from.
    pub(crate) const fn text(&self) -> &'a str {
        self.text
    }

    /// Its members, as they were sent.
    pub(crate) fn members(&self) -> &[Member<'a>] {
        &self.members
    }

    /// Where a member's value is, also where it is `null`.
    pub(crate) fn place(&self, name: &str) -> Option<Range<usize>> {
        let mut members = self.members.iter().rev();
        let member = members.find(|member| member.name == name)?;
        Some(member.value.clone())
    }

    /// Where a member's value is; the last one where it is given twice. `null` counts as absent.
    pub(crate) fn span(&self, name: &str) -> Option<Range<usize>> {
        self.place(name)
            .filter(|at| json::slice(self.text, at) != "null")
    }

    /// The JSON of a member, likewise.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.span(name).map(|at| json::slice(self.text, &at))
    }

    /// A member that is a text, decoded.
    pub(crate) fn string(&self, name: &str) -> Option<Cow<'a, str>> {
        let json = self.get(name).filter(|json| kind(json) == Kind::Text)?;
        Some(json::unescape(json::inside(json)))
    }

    /// The model that is asked for.
    pub(crate) fn model(&self, limits: &RequestLimits) -> Result<Cow<'a, str>, RequestError> {
        read_model(self.get("model"), limits)
    }

    /// Whether the answer is to be streamed.
    pub(crate) fn stream(&self) -> bool {
        self.get("stream") == Some("true")
    }

    /// A limit in tokens.
    pub(crate) fn limit(&self, name: &'static str) -> Result<Option<u64>, RequestError> {
        let Some(json) = self.get(name) else {
            return Ok(None);
        };
        match json.parse::<u32>() {
            Ok(limit @ 1..) => Ok(Some(u64::from(limit))),
            Ok(0) | Err(_) => Err(RequestError::param(
                name,
                format!("`{name}` must be an integer from 1 to {}.", u32::MAX),
            )),
        }
    }
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::List => "a list",
            Self::Object => "an object",
        }
    }
}

/// The kind of a value that serde has accepted.
pub(crate) fn kind(json: &str) -> Kind {
    match json.as_bytes().first() {
        Some(b'"') => Kind::Text,
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::List,
        Some(b't' | b'f') => Kind::Bool,
        Some(b'n') | None => Kind::Null,
        Some(_) => Kind::Number,
    }
}

/// The top-level members of a request body, which is an object of bounded depth.
///
/// # Errors
/// Not JSON, not an object, too deep, too many members.
fn object<'a>(
    body: &'a [u8],
    limits: &RequestLimits,
) -> Result<(&'a str, Vec<Member<'a>>), RequestError> {
    let text = std::str::from_utf8(body)
        .map_err(|_| RequestError::body("The request body is not valid UTF-8."))?;
    if json::deeper_than(body, limits.depth_max) {
        return Err(RequestError::body(format!(
            "The request body nests deeper than {} levels.",
            limits.depth_max
        )));
    }
    serde_json::from_str::<&RawValue>(text).map_err(|error| {
        RequestError::body(format!(
            "The request body is not valid JSON (line {}, column {}).",
            error.line(),
            error.column()
        ))
    })?;
    let start = text.len() - text.trim_ascii_start().len();
    if !text.trim_ascii_start().starts_with('{') {
        return Err(RequestError::body(
            "The request body must be a JSON object.",
        ));
    }
    let mut members = Vec::with_capacity(16);
    for member in json::members(text, start) {
        if members.len() == limits.members_max {
            return Err(RequestError::body("The request body has too many members."));
        }
        let name = member.name(text);
        members.push(Member {
            name,
            key: member.key,
            value: member.value,
        });
    }
    Ok((text, members))
}

/// Leaves a member out of a body. With a member before it that is `kept` goes the comma before it,
/// else the comma after it.
pub(crate) fn leave_out(members: &[Member<'_>], index: usize, kept: bool, splice: &mut Splice<'_>) {
    let Some(member) = members.get(index) else {
        return;
    };
    let before = index.checked_sub(1).and_then(|before| members.get(before));
    let span = match (before.filter(|_| kept), members.get(index + 1)) {
        (Some(before), _) => before.value.end..member.value.end,
        (None, Some(next)) => member.key.start..next.key.start,
        (None, None) => member.key.start..member.value.end,
    };
    splice.replace(span, "");
}

/// Refuses a second one of the members that are read, also in another case.
fn refuse_doubles(
    members: &[Member<'_>],
    names: impl Iterator<Item = &'static str>,
) -> Result<(), RequestError> {
    for name in names {
        let meant = members
            .iter()
            .filter(|member| same_ignoring_case(&member.name, name));
        let (mut exact, mut other) = (0, 0);
        for member in meant {
            if member.name == name {
                exact += 1;
            } else {
                other += 1;
            }
        }
        if exact > 1 || other > 0 {
            return Err(RequestError::param(
                name,
                format!("`{name}` must be given once and in lower case."),
            ));
        }
    }
    Ok(())
}

/// Equal under the folding of Go's `encoding/json`: ASCII case, and the two letters outside ASCII that
/// fold into it, long s and the Kelvin sign. `name` is lower case.
fn same_ignoring_case(key: &str, name: &str) -> bool {
    let folded = key.chars().map(|letter| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        plain => plain.to_ascii_lowercase(),
    });
    folded.eq(name.chars())
}

fn read_model<'a>(
    json: Option<&'a str>,
    limits: &RequestLimits,
) -> Result<Cow<'a, str>, RequestError> {
    let wrong = |message: &'static str| Err(RequestError::param("model", message));
    let Some(json) = json else {
        return wrong("`model` is missing: name one of the models of GET /v1/models.");
    };
    let model = json::unescape(json::inside(json));
    if model.is_empty() {
        return wrong("`model` is empty: name one of the models of GET /v1/models.");
    }
    if model.len() > limits.model_bytes_max {
        return wrong("`model` is too long to be the name of a model.");
    }
    if model.chars().any(char::is_control) {
        return wrong("`model` has control characters.");
    }
    Ok(model)
}
