//! Messages as Google's contents: instructions apart, results of tools by name and in the order of their calls.

use std::borrow::Cow;

use super::part;
use crate::error::RequestError;
use crate::json;
use crate::source::{Message, Role, Source, join};

/// What Google takes in place of a signature that was not sent back, so that a conversation can go on
/// which another model began. Source: its guide "Thought signatures".
const NO_SIGNATURE: &str = r#""skip_thought_signature_validator""#;

/// The instructions as a list of parts, and the conversation as a list of contents.
#[derive(Debug, Default)]
pub(super) struct Contents<'a> {
    pub(super) system: String,
    pub(super) turns: String,
    turn: Option<Turn>,
    /// The id and the name (a literal) of every call so far.
    calls: Vec<(Cow<'a, str>, &'a str)>,
    /// Results that wait for their turn to end: which call's, and the part.
    results: Vec<(usize, String)>,
}

/// Who a turn is of. Results of tools have one of their own, right after the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    User,
    Model,
    Results,
}

impl<'a> Contents<'a> {
    /// Writes all messages.
    ///
    /// # Errors
    /// A message that cannot be said in Google's dialect.
    pub(super) fn write(source: &Source<'a>) -> Result<Self, RequestError> {
        let mut all = Self::default();
        for message in source.messages() {
            all.message(source, &message)?;
        }
        all.close();
        if all.turns.is_empty() {
            // Google wants at least one content beside the instructions.
            if all.system.is_empty() {
                return Err(RequestError::param(
                    "messages",
                    "The messages say nothing: send at least one with content.",
                ));
            }
            let system = std::mem::take(&mut all.system);
            all.turns = format!(r#"{{"role":"user","parts":[{system}]}}"#);
        }
        Ok(all)
    }

    fn message(&mut self, source: &Source<'_>, message: &Message<'a>) -> Result<(), RequestError> {
        match message.role()? {
            Role::System => {
                let mut parts = String::new();
                part::content(source, message, &mut parts)?;
                join(&mut self.system, &parts);
                Ok(())
            }
            Role::User => {
                let mut parts = String::new();
                part::content(source, message, &mut parts)?;
                self.say(Turn::User, &parts);
                Ok(())
            }
            Role::Assistant => self.assistant(source, message),
            Role::Tool => self.result(source, message),
        }
    }

    fn assistant(
        &mut self,
        source: &Source<'_>,
        message: &Message<'a>,
    ) -> Result<(), RequestError> {
        message.refuse_function_call(source)?;
        let mut parts = String::new();
        part::content(source, message, &mut parts)?;
        if let Some(signature) = signature(message.json) {
            sign(&mut parts, signature);
        }
        let list = message.get("tool_calls").unwrap_or_default();
        let raw: Vec<&str> = json::elements(list, 0)
            .map(|at| json::slice(list, &at))
            .collect();
        // Models with levels of thinking refuse a turn whose first call is not signed.
        let must_sign = !source.edit.features.effort.is_empty();
        for (place, call) in message.calls()?.into_iter().enumerate() {
            let own = raw.get(place).and_then(|raw| signature(raw));
            let signature = own.or((must_sign && place == 0).then_some(NO_SIGNATURE));
            let signed = signature
                .map(|signature| format!(r#","thoughtSignature":{signature}"#))
                .unwrap_or_default();
            let (name, args) = (call.name, &call.arguments);
            join(
                &mut parts,
                &format!(r#"{{"functionCall":{{"name":{name},"args":{args}}}{signed}}}"#),
            );
            self.calls
                .push((json::unescape(json::inside(call.id)), call.name));
        }
        self.say(Turn::Model, &parts);
        Ok(())
    }

    fn result(&mut self, source: &Source<'_>, message: &Message<'a>) -> Result<(), RequestError> {
        let id = json::unescape(json::inside(message.tool_call_id()?));
        let call = self.calls.iter().rposition(|(other, _)| *other == id);
        let named = call.and_then(|call| self.calls.get(call));
        let Some(name) = named.map(|(_, name)| *name).or(message.literal("name")) else {
            return Err(message.error(
                "tool_call_id",
                "No call of an assistant's message before this one has this id.",
            ));
        };
        let response = part::response(source, message)?;
        if self.turn != Some(Turn::Results) {
            self.close();
            self.turn = Some(Turn::Results);
        }
        self.results.push((
            call.unwrap_or(usize::MAX),
            format!(r#"{{"functionResponse":{{"name":{name},"response":{response}}}}}"#),
        ));
        Ok(())
    }

    /// Adds parts to the turn, which is begun where the last one was another's. A message without any
    /// is left out: Google refuses it.
    fn say(&mut self, turn: Turn, parts: &str) {
        if parts.is_empty() {
            return;
        }
        if self.turn == Some(turn) {
            self.turns.push(',');
        } else {
            self.close();
            self.open(turn);
            self.turn = Some(turn);
        }
        self.turns.push_str(parts);
    }

    fn open(&mut self, turn: Turn) {
        if !self.turns.is_empty() {
            self.turns.push(',');
        }
        self.turns.push_str(match turn {
            Turn::User | Turn::Results => r#"{"role":"user","parts":["#,
            Turn::Model => r#"{"role":"model","parts":["#,
        });
    }

    fn close(&mut self) {
        match self.turn.take() {
            None => {}
            Some(Turn::User | Turn::Model) => self.turns.push_str("]}"),
            Some(Turn::Results) => {
                // Two calls of one function are told apart by their order alone.
                self.results.sort_by_key(|(call, _)| *call);
                let parts: Vec<String> = self.results.drain(..).map(|(_, part)| part).collect();
                self.open(Turn::Results);
                self.turns.push_str(&parts.join(","));
                self.turns.push_str("]}");
            }
        }
    }
}

/// The signature that a message or a call brings back: where this dialect puts it.
fn signature(object: &str) -> Option<&str> {
    let steps = ["extra_content", "google", "thought_signature"].map(String::from);
    let at = json::find(object, &steps)?;
    Some(json::slice(object, &at)).filter(|literal| literal.starts_with('"'))
}

/// Signs the last of the parts; a signature without one gets an empty text.
fn sign(parts: &mut String, signature: &str) {
    match parts.strip_suffix('}') {
        Some(open) => *parts = format!(r#"{open},"thoughtSignature":{signature}}}"#),
        None => parts.push_str(&format!(r#"{{"text":"","thoughtSignature":{signature}}}"#)),
    }
}
