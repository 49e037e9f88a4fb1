//! Messages: instructions apart, turns that alternate, results of tools in the user's turn.

use super::encode::Source;
use super::part;
use crate::error::RequestError;
use crate::json;
use crate::source::{Message, Role, join};

/// The instructions and the conversation, each as the items of a list.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub(super) system: String,
    pub(super) turns: String,
    /// The conversation stands in the middle of a tool's use and its thinking was not sent back.
    pub(super) signature_lost: bool,
    turn: Option<Turn>,
}

/// Who a turn is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    User,
    Assistant,
}

impl Messages {
    /// Writes all messages.
    ///
    /// # Errors
    /// A message that cannot be said in Anthropic's dialect.
    pub(super) fn write(source: &Source<'_>) -> Result<Self, RequestError> {
        let mut all = Self::default();
        for message in source.messages() {
            all.message(source, &message)?;
        }
        let last = all.turn;
        all.close();
        if all.turns.is_empty() {
            // Anthropic wants at least one message of the user's.
            if all.system.is_empty() {
                return Err(RequestError::param(
                    "messages",
                    "The messages say nothing: send at least one with content.",
                ));
            }
            let system = std::mem::take(&mut all.system);
            all.turns = format!(r#"{{"role":"user","content":[{system}]}}"#);
        }
        if all.turns.starts_with(r#"{"role":"assistant""#) {
            return Err(RequestError::param(
                "messages",
                "The first message beside instructions must be the user's for this model.",
            ));
        }
        if last == Some(Turn::Assistant) && !source.edit.features.prefill {
            return Err(RequestError::param(
                "messages",
                "This model cannot go on with an assistant's message: end with a user's.",
            ));
        }
        Ok(all)
    }

    fn message(&mut self, source: &Source<'_>, message: &Message<'_>) -> Result<(), RequestError> {
        match message.role()? {
            Role::System => self.instructions(source, message),
            Role::User => {
                let mut blocks = String::new();
                part::content(source, message, Turn::User, &mut blocks)?;
                self.say(Turn::User, &blocks);
                Ok(())
            }
            Role::Assistant => self.assistant(source, message),
            Role::Tool => self.tool_result(source, message),
        }
    }

    fn instructions(
        &mut self,
        source: &Source<'_>,
        message: &Message<'_>,
    ) -> Result<(), RequestError> {
        let mut blocks = String::new();
        part::content(source, message, Turn::User, &mut blocks)?;
        join(&mut self.system, &blocks);
        Ok(())
    }

    fn assistant(
        &mut self,
        source: &Source<'_>,
        message: &Message<'_>,
    ) -> Result<(), RequestError> {
        let mut blocks = String::new();
        part::reasoning(message, &mut blocks);
        part::content(source, message, Turn::Assistant, &mut blocks)?;
        let signed = blocks.contains(r#""signature":"#) || blocks.contains("redacted_thinking");
        message.refuse_function_call(source)?;
        let calls = message.calls()?;
        for call in &calls {
            let (id, name, input) = (call_id(call.id), call.name, &call.arguments);
            let block = format!(r#"{{"type":"tool_use","id":{id},"name":{name},"input":{input}}}"#);
            join(&mut blocks, &block);
        }
        // Only the last turn of the assistant matters: earlier thinking is left out by the provider.
        self.signature_lost = !calls.is_empty() && !signed;
        self.say(Turn::Assistant, &blocks);
        Ok(())
    }

    fn tool_result(
        &mut self,
        source: &Source<'_>,
        message: &Message<'_>,
    ) -> Result<(), RequestError> {
        let id = message.tool_call_id()?;
        let mut block = format!(r#"{{"type":"tool_result","tool_use_id":{}"#, call_id(id));
        let mut content = String::new();
        part::content(source, message, Turn::User, &mut content)?;
        if !content.is_empty() {
            block.push_str(&format!(r#","content":[{content}]"#));
        }
        if let Some(cache) = message.get("cache_control") {
            block.push_str(&format!(r#","cache_control":{cache}"#));
        }
        block.push('}');
        self.say(Turn::User, &block);
        Ok(())
    }

    /// Adds blocks to the turn, which is begun where the last one was the other's. A message without
    /// any is left out: Anthropic refuses it.
    fn say(&mut self, turn: Turn, blocks: &str) {
        if blocks.is_empty() {
            return;
        }
        if self.turn == Some(turn) {
            self.turns.push(',');
        } else {
            self.close();
            if !self.turns.is_empty() {
                self.turns.push(',');
            }
            self.turns.push_str(match turn {
                Turn::User => r#"{"role":"user","content":["#,
                Turn::Assistant => r#"{"role":"assistant","content":["#,
            });
            self.turn = Some(turn);
        }
        self.turns.push_str(blocks);
    }

    fn close(&mut self) {
        if self.turn.take().is_some() {
            self.turns.push_str("]}");
        }
    }
}

/// A call's id with the letters that Anthropic takes: ids of other providers may have others.
fn call_id(literal: &str) -> String {
    let id: String = json::unescape(json::inside(literal))
        .chars()
        .map(|letter| match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => letter,
            _ => '_',
        })
        .collect();
    format!("\"{id}\"")
}
