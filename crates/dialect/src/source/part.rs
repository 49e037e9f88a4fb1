//! Parts of a message's content, as the client sends them.

use super::{Message, Source, literal};
use crate::json;

/// The parts of a message's content: a text alone is one part. Each with its place, for errors, and
/// its `cache_control`.
pub(crate) fn parts<'a>(message: &Message<'a>) -> Vec<(String, Part<'a>, Option<&'a str>)> {
    let Some(content) = message.get("content") else {
        return Vec::new();
    };
    if content.starts_with('"') {
        let place = format!("{}.content", message.place);
        return vec![(place, Part::Text(content), None)];
    }
    let part = |(place, at)| {
        let name = format!("{}.content[{place}]", message.place);
        let part = json::slice(content, &at);
        (
            name,
            Part::read(part),
            Source::member(part, "cache_control"),
        )
    };
    json::elements(content, 0).enumerate().map(part).collect()
}

/// A part of a message's content. Texts and addresses are literals.
pub(crate) enum Part<'a> {
    Text(&'a str),
    Image {
        /// An address or a data URL.
        url: &'a str,
        /// The client's object around it, where there is one.
        given: &'a str,
    },
    File {
        /// A data URL or an address; `None` where the file is named by an id.
        data: Option<&'a str>,
        name: Option<&'a str>,
    },
    /// Of another kind.
    Other,
}

impl<'a> Part<'a> {
    fn read(part: &'a str) -> Self {
        if part.starts_with('"') {
            return Self::Text(part);
        }
        let kind = Source::member(part, "type").map_or("", json::inside);
        let text = literal(part, if kind == "refusal" { "refusal" } else { "text" });
        match (kind, text) {
            ("text" | "refusal", Some(text)) => Self::Text(text),
            ("image_url", _) => match address(part, "image_url") {
                Some((url, given)) => Self::Image { url, given },
                None => Self::Other,
            },
            ("file", _) => {
                let file = Source::member(part, "file").unwrap_or_default();
                Self::File {
                    data: literal(file, "file_data"),
                    name: literal(file, "filename"),
                }
            }
            (_, _) => Self::Other,
        }
    }
}

/// The address in a member of a part, a literal, and what stands there: the address alone or an
/// object around it.
pub(crate) fn address<'a>(part: &'a str, member: &str) -> Option<(&'a str, &'a str)> {
    let given = Source::member(part, member)?;
    let bare = given.starts_with('"').then_some(given);
    Some((bare.or_else(|| literal(given, "url"))?, given))
}

/// The media type and the payload of a base64 data URL.
pub(crate) fn data_url(url: &str) -> Option<(&str, &str)> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    let kind = head.strip_suffix(";base64")?;
    Some((kind.split(';').next().unwrap_or(kind), data))
}
