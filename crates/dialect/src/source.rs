//! What a request in another dialect is written from: the client's members, read in the words of OpenAI's API.

mod members;
mod part;
mod tools;
mod write;

use crate::error::RequestError;
use crate::json;
use crate::openai::Edit;
use crate::quirks::Quirks;
use crate::request::ChatRequest;

pub(crate) use members::{Form, Reasoning, Vocabulary};
pub(crate) use part::{Part, address, data_url, parts};
pub(crate) use tools::{Choice, Function, openai_tools, schema};
pub(crate) use write::{Body, Object, join};

/// What is being encoded.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) request: &'a ChatRequest<'a>,
    pub(crate) edit: &'a Edit<'a>,
    pub(crate) quirks: &'a Quirks,
}

impl<'a> Source<'a> {
    /// The JSON of a member that the client sent, unless the provider's file leaves it out or sets it.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
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
    pub(crate) fn cannot(
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
    pub(crate) fn member<'j>(object: &'j str, name: &str) -> Option<&'j str> {
        json::find(object, &[name.to_owned()]).map(|at| json::slice(object, &at))
    }

    /// A number that the client sent, moved into the range of the provider's file.
    ///
    /// # Errors
    /// Not a number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<String>, RequestError> {
        let Some(sent) = self.get(name) else {
            return Ok(None);
        };
        if sent.parse::<f64>().is_err() {
            let message = format!("`{name}` must be a number.");
            return Err(RequestError::param(name.to_owned(), message));
        }
        let clamp = self.quirks.clamp.get(name);
        let bound = clamp.and_then(|clamp| clamp.beyond(sent));
        Ok(Some(
            bound.map_or_else(|| sent.to_owned(), ToString::to_string),
        ))
    }

    /// The limit on output tokens: the client's or what is affordable, whichever is less.
    pub(crate) fn output_limit(&self) -> Option<u64> {
        let limits = [self.request.output_limit(), self.edit.output_limit];
        limits.into_iter().flatten().min()
    }

    /// `stop`, a string or a list, as the literals of a list.
    ///
    /// # Errors
    /// An item that is no string.
    pub(crate) fn stop_sequences(&self) -> Result<Vec<&'a str>, RequestError> {
        let Some(sent) = self.get("stop") else {
            return Ok(Vec::new());
        };
        let items: Vec<&str> = if sent.starts_with('[') {
            json::elements(sent, 0)
                .map(|at| json::slice(sent, &at))
                .collect()
        } else {
            vec![sent]
        };
        if items.iter().any(|item| !item.starts_with('"')) {
            return Err(RequestError::param(
                "stop",
                "`stop` must be a string or a list of strings.",
            ));
        }
        Ok(items)
    }

    /// The messages, in order.
    pub(crate) fn messages(&self) -> impl Iterator<Item = Message<'a>> {
        let list = self.request.get("messages").unwrap_or_default();
        json::elements(list, 0)
            .enumerate()
            .map(|(place, at)| Message {
                place: format!("messages[{place}]"),
                json: json::slice(list, &at),
            })
    }
}

/// One message, as the client wrote it.
pub(crate) struct Message<'a> {
    /// `messages[3]`, for errors.
    pub(crate) place: String,
    pub(crate) json: &'a str,
}

impl<'a> Message<'a> {
    /// The JSON of a member; `None` when it is null.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        Source::member(self.json, name)
    }

    /// A member that is a string literal.
    pub(crate) fn literal(&self, name: &str) -> Option<&'a str> {
        literal(self.json, name)
    }

    /// Whose message it is.
    ///
    /// # Errors
    /// Another role than these.
    pub(crate) fn role(&self) -> Result<Role, RequestError> {
        match self.get("role").map(json::inside) {
            Some("system" | "developer") => Ok(Role::System),
            Some("user") => Ok(Role::User),
            Some("assistant") => Ok(Role::Assistant),
            Some("tool") => Ok(Role::Tool),
            Some(_) | None => Err(self.error(
                "role",
                "`role` must be system, developer, user, assistant or tool for this model.",
            )),
        }
    }

    /// The id of the call that a tool's message answers, a literal.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn tool_call_id(&self) -> Result<&'a str, RequestError> {
        let missing = "A tool's message needs its `tool_call_id`.";
        self.literal("tool_call_id")
            .ok_or_else(|| self.error("tool_call_id", missing))
    }

    /// Refuses the call that an assistant's message has in the form before `tool_calls`.
    ///
    /// # Errors
    /// It has one, and nothing may be left out.
    pub(crate) fn refuse_function_call(&self, source: &Source<'_>) -> Result<(), RequestError> {
        if self.get("function_call").is_none() {
            return Ok(());
        }
        source.cannot(
            format!("{}.function_call", self.place),
            "`function_call` is not supported by the provider of this model: send `tool_calls`.",
        )
    }

    /// An error about a member.
    pub(crate) fn error(&self, member: &str, message: &'static str) -> RequestError {
        RequestError::param(format!("{}.{member}", self.place), message)
    }

    /// The calls of an assistant's message.
    ///
    /// # Errors
    /// A call that is none of a function, or without its name, or with arguments that are no object.
    pub(crate) fn calls(&self) -> Result<Vec<Call<'a>>, RequestError> {
        let calls = self.get("tool_calls").unwrap_or_default();
        let wrong = |what| Err(self.error("tool_calls", what));
        let mut out = Vec::new();
        for at in json::elements(calls, 0) {
            let call = json::slice(calls, &at);
            let Some(function) = Source::member(call, "function") else {
                return wrong(
                    "Only calls of functions are supported by the provider of this model.",
                );
            };
            let (Some(id), Some(name)) = (literal(call, "id"), literal(function, "name")) else {
                return wrong("A call needs its id and the name of its function.");
            };
            let Some(arguments) = arguments(literal(function, "arguments")) else {
                return wrong("The arguments of a call must be a JSON object.");
            };
            out.push(Call {
                id,
                name,
                arguments,
            });
        }
        Ok(out)
    }
}

/// Whose a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Instructions: `system` or `developer`.
    System,
    User,
    Assistant,
    Tool,
}

/// A call of a function that the assistant has made.
pub(crate) struct Call<'a> {
    /// A literal.
    pub(crate) id: &'a str,
    /// A literal.
    pub(crate) name: &'a str,
    /// A JSON object.
    pub(crate) arguments: String,
}

/// The object that a call's arguments, a literal, are; none are an empty one.
fn arguments(literal: Option<&str>) -> Option<String> {
    let text = json::unescape(json::inside(literal.unwrap_or_default()));
    let trimmed = text.trim_ascii();
    if trimmed.is_empty() || trimmed == "null" {
        return Some("{}".to_owned());
    }
    let sound =
        trimmed.starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(trimmed).is_ok();
    sound.then(|| trimmed.to_owned())
}

/// A member of `object` that is a string literal.
pub(crate) fn literal<'j>(object: &'j str, name: &str) -> Option<&'j str> {
    Source::member(object, name).filter(|json| json.starts_with('"'))
}
