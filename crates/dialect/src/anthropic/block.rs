//! A block of content, as a plain answer has it whole and a stream at its beginning.

use std::borrow::Cow;

use serde::Deserialize;

pub(super) use crate::compose::literal;
use crate::counts::Json;
use crate::error::DecodeError;

/// How `reasoning_details` name thinking that only this provider can read back.
pub(super) const FORMAT: &str = r#""format":"anthropic-claude-v1""#;

#[derive(Deserialize)]
pub(super) struct RawBlock<'a> {
    #[serde(borrow, default)]
    pub(super) r#type: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) text: Json<'a>,
    #[serde(borrow, default)]
    pub(super) thinking: Json<'a>,
    #[serde(borrow, default)]
    pub(super) signature: Json<'a>,
    #[serde(borrow, default)]
    pub(super) data: Json<'a>,
    #[serde(borrow, default)]
    id: Json<'a>,
    #[serde(borrow, default)]
    name: Json<'a>,
    #[serde(borrow, default)]
    pub(super) input: Json<'a>,
}

impl<'a> RawBlock<'a> {
    /// Of a call: its id and the name of what is called.
    ///
    /// # Errors
    /// One of them is missing, empty or no string.
    pub(super) fn call(&self) -> Result<(&'a str, &'a str), DecodeError> {
        let wrong = || DecodeError::shape("a call without a name");
        let name = literal(self.name)?.ok_or_else(wrong)?;
        let id = literal(self.id)?.ok_or_else(wrong)?;
        Ok((id, name))
    }

    /// Of a call, as it was sent: the name of what is called, and the arguments it begins with.
    pub(super) const fn call_raw(&self) -> (Json<'a>, Json<'a>) {
        (self.name, self.input)
    }

    /// Of thinking that only the provider can read: its place among the reasoning details and what
    /// it says.
    ///
    /// # Errors
    /// Its data is no string.
    pub(super) fn encrypted(&self, detail: u32) -> Result<String, DecodeError> {
        let data = literal(self.data)?.unwrap_or(r#""""#);
        Ok(format!(
            r#""type":"reasoning.encrypted","index":{detail},{FORMAT},"data":{data}"#
        ))
    }
}
