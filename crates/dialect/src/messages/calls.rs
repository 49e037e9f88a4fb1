//! What a chunk or an answer says beside its texts: calls, details of reasoning, why it ends.

use std::borrow::Cow;

use serde::Deserialize;
use smallvec::SmallVec;

use crate::counts::Json;

#[derive(Deserialize)]
pub(crate) struct RawChunk<'a> {
    #[serde(borrow, default)]
    pub(crate) choices: SmallVec<[RawChoice<'a>; 1]>,
}

#[derive(Deserialize)]
pub(crate) struct RawChoice<'a> {
    #[serde(default)]
    pub(crate) index: u32,
    #[serde(borrow, default)]
    pub(crate) delta: Option<RawDelta<'a>>,
    /// Of a plain answer.
    #[serde(borrow, default)]
    pub(crate) message: Option<RawDelta<'a>>,
    #[serde(borrow, default)]
    pub(crate) finish_reason: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
pub(crate) struct RawDelta<'a> {
    #[serde(borrow, default)]
    pub(crate) tool_calls: Option<SmallVec<[RawCall<'a>; 1]>>,
    #[serde(borrow, default)]
    pub(crate) reasoning_details: Json<'a>,
}

#[derive(Deserialize)]
pub(crate) struct RawCall<'a> {
    #[serde(default)]
    pub(crate) index: Option<u32>,
    #[serde(borrow, default)]
    pub(crate) id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(crate) function: Option<RawFunction<'a>>,
    #[serde(borrow, default)]
    pub(crate) custom: Option<RawFunction<'a>>,
}

#[derive(Deserialize)]
pub(crate) struct RawFunction<'a> {
    #[serde(borrow, default)]
    pub(crate) name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(crate) arguments: Option<Cow<'a, str>>,
    /// Of a custom tool.
    #[serde(borrow, default)]
    pub(crate) input: Option<Cow<'a, str>>,
}
