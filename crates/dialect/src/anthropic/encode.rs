//! From the client's request to a Messages request: the whole of it, member by member.

use bytes::Bytes;

use super::messages::Messages;
use super::parameters::{
    NATIVE, check_members, metadata, output_config, output_limit, sampling, stop_sequences,
};
use super::thinking::{Plan, Wish};
use super::tools;
use crate::error::RequestError;
use crate::json;
use crate::openai::{Edit, WireRequest};
use crate::quirks::Quirks;
use crate::request::ChatRequest;

/// Where requests go, unless the provider's file says otherwise.
const PATH: &str = "/messages";
/// The header that pins the version of the API, and the version that this dialect was written for.
pub(super) const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");

/// What is being encoded.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) request: &'a ChatRequest<'a>,
    pub(super) edit: &'a Edit<'a>,
    pub(super) quirks: &'a Quirks,
}

impl<'a> Source<'a> {
    /// The JSON of a member that the client sent, unless the provider's file leaves it out or sets it.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        let dropped = self.quirks.drop.iter().any(|other| other == name);
        let set = self.quirks.set.contains_key(name);
        if dropped || set {
            None
        } else {
            self.request.get(name)
        }
    }

    /// Something that cannot be done: a 400 that names it, or left out where the provider's file or
    /// the route says so.
    pub(super) fn cannot(
        &self,
        param: impl Into<String>,
        message: impl Into<String>,
    ) -> Result<(), RequestError> {
        if self.quirks.drop_unsupported {
            Ok(())
        } else {
            Err(RequestError::param(param.into(), message.into()))
        }
    }

    /// The JSON of a member of the object at the beginning of `object`; `None` when it is null.
    pub(super) fn member<'j>(object: &'j str, name: &str) -> Option<&'j str> {
        json::find(object, &[name.to_owned()]).map(|at| json::slice(object, &at))
    }
}

/// Writes `request` for a provider that speaks Anthropic's dialect.
///
/// # Errors
/// What the provider cannot do, named in `param`.
pub(crate) fn encode(
    request: &ChatRequest<'_>,
    edit: &Edit<'_>,
    quirks: &Quirks,
) -> Result<WireRequest, RequestError> {
    let source = Source {
        request,
        edit,
        quirks,
    };
    check_members(&source)?;
    let mut headers = quirks.header_list();
    if !headers.iter().any(|(name, _)| name == VERSION.0) {
        headers.push((VERSION.0.to_owned(), VERSION.1.to_owned()));
    }
    let messages = Messages::write(&source)?;
    let choice = tools::choice(&source)?;
    let limit = output_limit(&source);
    let wish = Wish {
        forced_tools: choice.forced,
        signature_lost: messages.signature_lost,
        output_limit: limit,
    };
    let plan = Plan::of(&source, &wish)?;

    let mut body = Body::new(quirks, request.body().len());
    body.write("model", &json::quote(edit.upstream_model));
    body.write("max_tokens", &limit.to_string());
    if request.stream() {
        body.write("stream", "true");
    }
    if !messages.system.is_empty() {
        body.write("system", &format!("[{}]", messages.system));
    }
    body.write("messages", &format!("[{}]", messages.turns));
    if let Some(tools) = tools::write(&source)? {
        body.write("tools", &tools);
        body.write_some("tool_choice", choice.json.as_deref());
    }
    for (name, value) in sampling(&source, &headers, plan.thinks())? {
        body.write(name, value);
    }
    body.write_some("stop_sequences", stop_sequences(&source)?.as_deref());
    body.write_some("thinking", plan.thinking.as_deref());
    body.write_some("output_config", output_config(&source, &plan)?.as_deref());
    body.write_some("metadata", metadata(&source).as_deref());
    for name in NATIVE {
        body.write_some(name, source.get(name));
    }
    Ok(WireRequest {
        path: quirks.path_for(PATH, edit.upstream_model),
        headers,
        body: body.end(),
    })
}

/// The body, member by member; those that the provider's file sets are its own.
struct Body<'a> {
    json: String,
    quirks: &'a Quirks,
}

impl<'a> Body<'a> {
    fn new(quirks: &'a Quirks, request_bytes: usize) -> Self {
        let mut json = String::with_capacity(request_bytes + 512);
        json.push('{');
        Self { json, quirks }
    }

    fn write(&mut self, name: &str, value: &str) {
        if !self.quirks.set.contains_key(name) {
            self.member(name, value);
        }
    }

    fn write_some(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.write(name, value);
        }
    }

    fn member(&mut self, name: &str, value: &str) {
        if self.json.len() > 1 {
            self.json.push(',');
        }
        self.json.push_str(&json::quote(name));
        self.json.push(':');
        self.json.push_str(value);
    }

    fn end(mut self) -> Bytes {
        for (name, value) in &self.quirks.set {
            self.member(name, &value.to_string());
        }
        self.json.push('}');
        Bytes::from(self.json)
    }
}
