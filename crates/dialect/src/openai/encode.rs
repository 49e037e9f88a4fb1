//! From the client's request to the provider's: only what must change is spliced, every other byte travels.

use std::borrow::Cow;

use bytes::Bytes;

use crate::body::{Member, leave_out};
use crate::error::RequestError;
use crate::features::Features;
use crate::framing::Framing;
use crate::json::{self, Splice};
use crate::quirks::{OutputLimitField, Quirks, UsageHow};
use crate::request::ChatRequest;

/// What the gateway changes in a request before it goes upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit<'a> {
    /// The provider's name of the model.
    pub upstream_model: &'a str,
    /// The most output tokens of each choice. Written where the client named no limit or a higher
    /// one, under the client's own name for it; a lower one stays.
    pub output_limit: Option<u64>,
    /// The most output tokens that the model has at all, for dialects that must be told a limit.
    pub output_tokens_max: u64,
    /// What the model can do, for dialects that let models differ.
    pub features: &'a Features,
    /// Ask a stream to report its usage, where [`UsageHow`] says that asking makes it.
    pub ask_stream_usage: bool,
}

/// A request as it goes upstream, without what the gateway adds (host, credentials, content type).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireRequest {
    /// Path after the provider's base URL; begins with a slash.
    pub path: String,
    /// Headers that the provider's file asks for.
    pub headers: Vec<(String, String)>,
    /// JSON.
    pub body: Bytes,
}

impl WireRequest {
    /// Says that a stream is taken which is framed so, unless the provider's file says what is taken.
    pub fn accept(&mut self, framing: Framing) {
        let named = |(name, _): &(String, String)| name.eq_ignore_ascii_case("accept");
        if !self.headers.iter().any(named) {
            let accepted = framing.accepted().to_owned();
            self.headers.push(("accept".to_owned(), accepted));
        }
    }
}

/// What becomes of one member.
#[derive(Clone, Debug, Default, PartialEq)]
struct Fate<'a> {
    name: Option<Cow<'a, str>>,
    value: Option<Cow<'a, str>>,
    left_out: bool,
}

/// Where requests go, unless the provider's file says otherwise.
const PATH: &str = "/chat/completions";

const LIMITS: [&str; 2] = [
    OutputLimitField::MaxTokens.name(),
    OutputLimitField::MaxCompletionTokens.name(),
];

/// Writes `request` for a provider that speaks OpenAI's dialect with `quirks`.
///
/// # Errors
/// A member that the provider does not support, named in `param`.
pub(crate) fn encode(
    request: &ChatRequest<'_>,
    edit: &Edit<'_>,
    quirks: &Quirks,
) -> Result<WireRequest, RequestError> {
    let mut fates = Vec::with_capacity(request.members().len());
    for member in request.members() {
        fates.push(fate(request, member, edit, quirks)?);
    }
    leave_out_renamed_doubles(request.members(), &mut fates);
    let added = additions(request, &fates, edit, quirks);
    Ok(WireRequest {
        path: quirks.path_for(PATH, edit.upstream_model),
        headers: quirks.header_list(),
        body: write(request, &fates, &added),
    })
}

fn fate<'a>(
    request: &ChatRequest<'_>,
    member: &Member<'_>,
    edit: &Edit<'_>,
    quirks: &'a Quirks,
) -> Result<Fate<'a>, RequestError> {
    let name = member.name.as_ref();
    let sent = json::slice(request.body(), &member.value);
    let mut fate = Fate::default();
    if let Some(limit) = renamed_limit(quirks, name) {
        let message = format!("`{name}` is not supported: use `{limit}`.");
        return Err(RequestError::param(name.to_owned(), message));
    }
    if let Some(value) = quirks.set.get(name) {
        fate.value = Some(Cow::Owned(value.to_string()));
    } else if name == "model" {
        fate.value = Some(Cow::Owned(json::quote(edit.upstream_model)));
    } else if quirks.unsupported.iter().any(|other| other == name) {
        if sent != "null" && !quirks.drop_unsupported {
            let message =
                format!("`{name}` is not supported by the provider of this model: leave it out.");
            return Err(RequestError::param(name.to_owned(), message));
        }
        fate.left_out = true;
    } else if quirks.drop.iter().any(|other| other == name) {
        fate.left_out = true;
    } else if LIMITS.contains(&name) {
        let lowered = edit
            .output_limit
            .filter(|limit| request.output_limit() > Some(*limit));
        if sent != "null" {
            fate.value = lowered.map(|limit| Cow::Owned(limit.to_string()));
        } else {
            // A null beside the member that carries the limit could become its double by renaming.
            fate.left_out = edit.output_limit.is_some() || request.output_limit().is_some();
        }
    } else if name == "stream_options" && asks(request, edit, quirks) {
        fate.value = with_include_usage(sent).map(Cow::Owned);
    }
    if let Some(clamp) = quirks.clamp.get(name) {
        let value = fate.value.as_deref().unwrap_or(sent);
        if let Some(bound) = clamp.beyond(value) {
            fate.value = Some(Cow::Owned(bound.to_string()));
        }
    }
    fate.name = quirks
        .rename
        .get(name)
        .map(|new| Cow::Borrowed(new.as_str()));
    Ok(fate)
}

/// The limit that the provider takes under `name`. A client that sent `name` itself would set a limit
/// that nobody has priced.
fn renamed_limit(quirks: &Quirks, name: &str) -> Option<&'static str> {
    let becomes = |limit: &&&str| quirks.rename.get(**limit).is_some_and(|new| new == name);
    if LIMITS.contains(&name) {
        None
    } else {
        LIMITS.iter().find(becomes).copied()
    }
}

/// A member is not renamed onto one that is there already.
fn leave_out_renamed_doubles(members: &[Member<'_>], fates: &mut [Fate<'_>]) {
    let kept: Vec<String> = members
        .iter()
        .zip(fates.iter())
        .filter(|(_, fate)| fate.name.is_none() && !fate.left_out)
        .map(|(member, _)| member.name.to_string())
        .collect();
    let mut renamed: Vec<String> = Vec::new();
    for fate in fates.iter_mut().filter(|fate| !fate.left_out) {
        if let Some(name) = fate.name.as_deref() {
            let taken = |names: &[String]| names.iter().any(|other| other == name);
            if taken(&kept) || taken(&renamed) {
                fate.left_out = true;
            } else {
                renamed.push(name.to_owned());
            }
        }
    }
}

/// Members that the client did not send.
fn additions<'a>(
    request: &ChatRequest<'_>,
    fates: &[Fate<'_>],
    edit: &Edit<'_>,
    quirks: &'a Quirks,
) -> Vec<(&'a str, Cow<'a, str>)> {
    let mut added = Vec::new();
    let carried = |(member, fate): (&Member<'_>, &Fate<'_>)| {
        LIMITS.contains(&member.name.as_ref())
            && !fate.left_out
            && json::slice(request.body(), &member.value) != "null"
    };
    // Also where the client's own member was dropped: a limit that was priced must arrive.
    let limit = edit
        .output_limit
        .into_iter()
        .chain(request.output_limit())
        .min();
    if let Some(limit) = limit
        && !request.members().iter().zip(fates).any(carried)
    {
        let name = quirks.output_limit_field.name();
        let name = quirks.rename.get(name).map_or(name, String::as_str);
        if !quirks.set.contains_key(name) {
            added.push((name, Cow::Owned(limit.to_string())));
        }
    }
    let has = |name: &str| request.members().iter().any(|member| member.name == name);
    if asks(request, edit, quirks) && !has("stream_options") {
        added.push(("stream_options", Cow::Borrowed(r#"{"include_usage":true}"#)));
    }
    for (name, value) in &quirks.set {
        if !has(name) {
            added.push((name.as_str(), Cow::Owned(value.to_string())));
        }
    }
    added
}

fn asks(request: &ChatRequest<'_>, edit: &Edit<'_>, quirks: &Quirks) -> bool {
    let by_asking = match quirks.usage_how {
        UsageHow::StreamOptions => true,
        UsageHow::Always | UsageHow::Never => false,
    };
    request.stream() && edit.ask_stream_usage && by_asking
}

/// `stream_options` with `include_usage` true; `None` when it already is.
fn with_include_usage(options: &str) -> Option<String> {
    if options == "null" {
        return Some(String::from(r#"{"include_usage":true}"#));
    }
    let mut splice = Splice::default();
    let mut last = None;
    for member in json::members(options, 0) {
        if member.name(options) == "include_usage" {
            if json::slice(options, &member.value) == "true" {
                return None;
            }
            splice.replace(member.value.clone(), "true");
        }
        last = Some(member.value.end);
    }
    if splice.is_empty() {
        match last {
            Some(end) => splice.insert(end, r#","include_usage":true"#),
            None => splice.insert(1, r#""include_usage":true"#),
        }
    }
    String::from_utf8(splice.apply(options)).ok()
}

fn write(request: &ChatRequest<'_>, fates: &[Fate<'_>], added: &[(&str, Cow<'_, str>)]) -> Bytes {
    let members = request.members();
    let mut splice = Splice::default();
    let mut kept_before = false;
    for (index, (member, fate)) in members.iter().zip(fates).enumerate() {
        if fate.left_out {
            leave_out(members, index, kept_before, &mut splice);
            continue;
        }
        kept_before = true;
        if let Some(name) = &fate.name {
            splice.replace(member.key.clone(), json::quote(name));
        }
        if let Some(value) = &fate.value {
            splice.replace(member.value.clone(), value.as_ref());
        }
    }
    let body = request.body();
    let end = members.last().map_or_else(
        || body.len() - body.trim_ascii_start().len() + 1,
        |last| last.value.end,
    );
    let mut tail = String::new();
    for (name, value) in added {
        if kept_before || !tail.is_empty() {
            tail.push(',');
        }
        tail.push_str(&json::quote(name));
        tail.push(':');
        tail.push_str(value);
    }
    if !tail.is_empty() {
        splice.insert(end, tail);
    }
    Bytes::from(splice.apply(body))
}
