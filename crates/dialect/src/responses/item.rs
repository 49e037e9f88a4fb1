//! One item of a response's output as a provider writes it, and the texts in it that the model wrote.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::counts::Json;
use crate::openai::chunk::{Finder, TextKind};

/// An item, or a part of one: what of it is output of the model.
#[derive(Deserialize)]
pub(super) struct RawItem<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    /// Of a call.
    #[serde(borrow, default)]
    name: Json<'a>,
    #[serde(borrow, default)]
    arguments: Json<'a>,
    #[serde(borrow, default)]
    input: Json<'a>,
    /// What is to be run.
    #[serde(borrow, default)]
    code: Json<'a>,
    #[serde(borrow, default)]
    action: Json<'a>,
    #[serde(borrow, default)]
    operation: Json<'a>,
    /// Of a message, and of what was thought.
    #[serde(borrow, default)]
    content: Json<'a>,
    #[serde(borrow, default)]
    summary: Json<'a>,
    /// Of a part.
    #[serde(borrow, default)]
    text: Json<'a>,
    #[serde(borrow, default)]
    refusal: Json<'a>,
    #[serde(borrow, default)]
    transcript: Json<'a>,
}

/// What a search did.
#[derive(Deserialize)]
struct RawAction<'a> {
    #[serde(borrow, default)]
    r#type: Option<Cow<'a, str>>,
}

impl<'a> RawItem<'a> {
    /// Whether it is a call of a search that is sold by the piece: pages that are opened are not.
    pub(super) fn is_search(&self) -> bool {
        if self.r#type != "web_search_call" {
            return false;
        }
        let kind = self
            .action
            .and_then(|action| serde_json::from_str::<RawAction<'_>>(action.get()).ok())
            .and_then(|action| action.r#type);
        kind.is_none_or(|kind| kind == "search")
    }

    /// Finds the name of what it calls.
    pub(super) fn find_name(&self, finder: &mut Finder<'a>) {
        if self.r#type.ends_with("_call") {
            finder.leaf(0, TextKind::ToolCall, self.name);
        }
    }

    /// Finds every other text in it.
    pub(super) fn find(&self, finder: &mut Finder<'a>) {
        let reasons = self.r#type.starts_with("reasoning") || self.r#type == "summary_text";
        let kind = if reasons {
            TextKind::Reasoning
        } else {
            TextKind::Content
        };
        parts(finder, self.summary);
        match self.content {
            Some(list) if list.get().starts_with('[') => parts(finder, Some(list)),
            other => finder.leaf(0, kind, other),
        }
        finder.leaf(0, kind, self.text);
        finder.leaf(0, TextKind::Refusal, self.refusal);
        finder.leaf(0, TextKind::Audio, self.transcript);
        for call in [self.arguments, self.input, self.code] {
            finder.leaf(0, TextKind::ToolCall, call);
        }
        if self.r#type.ends_with("_call") && self.r#type != "web_search_call" {
            finder.leaf(0, TextKind::ToolCall, self.action);
            finder.leaf(0, TextKind::ToolCall, self.operation);
        }
    }
}

/// The items of a list; what is no list, or none of items, has none.
pub(super) fn list<'a>(raw: Json<'a>) -> Vec<RawItem<'a>> {
    raw.map_or_else(Vec::new, |raw| {
        let elements: Vec<&'a RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
        let items = elements.into_iter();
        items
            .filter_map(|item| serde_json::from_str(item.get()).ok())
            .collect()
    })
}

fn parts<'a>(finder: &mut Finder<'a>, raw: Json<'a>) {
    for part in list(raw) {
        part.find(finder);
    }
}
