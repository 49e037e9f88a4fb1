//! Parts of a message's content as Google's parts: texts, images, documents, audio, video.

use crate::error::RequestError;
use crate::json;
use crate::source::{Message, Source, address, data_url, join, literal};

/// The kinds of image that Google reads.
const IMAGES: [&str; 5] = [
    "image/png",
    "image/jpeg",
    "image/webp",
    "image/heic",
    "image/heif",
];
/// The kinds of file.
const FILES: [&str; 2] = ["application/pdf", "text/plain"];
/// Audio formats and their kinds.
const AUDIO: [(&str, &str); 6] = [
    ("wav", "audio/wav"),
    ("mp3", "audio/mp3"),
    ("aiff", "audio/aiff"),
    ("aac", "audio/aac"),
    ("ogg", "audio/ogg"),
    ("flac", "audio/flac"),
];
/// Endings of addresses and the kinds that they name.
const ENDINGS: [(&str, &str); 12] = [
    (".png", "image/png"),
    (".jpg", "image/jpeg"),
    (".jpeg", "image/jpeg"),
    (".webp", "image/webp"),
    (".heic", "image/heic"),
    (".heif", "image/heif"),
    (".pdf", "application/pdf"),
    (".txt", "text/plain"),
    (".mp4", "video/mp4"),
    (".mov", "video/mov"),
    (".mpeg", "video/mpeg"),
    (".webm", "video/webm"),
];
/// Hosts whose files are the operator's: Google serves them by the operator's key.
const OPERATORS_HOSTS: [&str; 1] = ["generativelanguage.googleapis.com"];
/// Hosts of videos, which cost far more than an image.
const VIDEO_HOSTS: [&str; 4] = [
    "youtube.com",
    "www.youtube.com",
    "m.youtube.com",
    "youtu.be",
];

/// Writes the content of a message as parts.
///
/// # Errors
/// A part that Google has no part for.
pub(super) fn content(
    source: &Source<'_>,
    message: &Message<'_>,
    out: &mut String,
) -> Result<(), RequestError> {
    let Some(content) = message.get("content") else {
        return Ok(());
    };
    if content.starts_with('"') {
        text(content, out);
        return Ok(());
    }
    for (place, at) in json::elements(content, 0).enumerate() {
        let part = json::slice(content, &at);
        if part.starts_with('"') {
            text(part, out);
            continue;
        }
        let (written, wish) = match Source::member(part, "type").map(json::inside) {
            Some(kind @ ("text" | "refusal")) => {
                if let Some(said) = literal(part, kind) {
                    text(said, out);
                    continue;
                }
                (None, "A text part needs its `text`.")
            }
            Some("image_url") => (
                image(part),
                "Images are taken as https addresses, or as data URLs of PNG, JPEG, WebP, HEIC or HEIF.",
            ),
            Some("file") => (
                file(part),
                "Files are taken as `file_data`: a data URL of a PDF or plain text, or its https address.",
            ),
            Some("input_audio") => (
                audio(part),
                "Audio is taken as `data` and a `format` of wav, mp3, aiff, aac, ogg or flac.",
            ),
            Some("video_url") => (
                video(part),
                "Videos are taken as https addresses, or as data URLs.",
            ),
            // Thinking is sent back by its signature alone.
            Some("thinking" | "redacted_thinking") => continue,
            Some(_) | None => (
                None,
                "Parts of this type are not supported by the provider of this model.",
            ),
        };
        match written {
            Some(written) => join(out, &written),
            None => source.cannot(format!("{}.content[{place}]", message.place), wish)?,
        }
    }
    Ok(())
}

/// What a tool answered, as a JSON object: its own where it is one.
///
/// # Errors
/// A part that is no text.
pub(super) fn response(source: &Source<'_>, message: &Message<'_>) -> Result<String, RequestError> {
    let mut said = String::new();
    let content = message.get("content").unwrap_or(r#""""#);
    if content.starts_with('"') {
        said.push_str(&json::unescape(json::inside(content)));
    }
    for (place, at) in json::elements(content, 0).enumerate() {
        let part = json::slice(content, &at);
        let text = if part.starts_with('"') {
            Some(part)
        } else {
            literal(part, "text")
        };
        match text {
            Some(text) => said.push_str(&json::unescape(json::inside(text))),
            None => source.cannot(
                format!("{}.content[{place}]", message.place),
                "What a tool answers is taken as text for this model.",
            )?,
        }
    }
    let trimmed = said.trim_ascii();
    let object =
        trimmed.starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(trimmed).is_ok();
    Ok(if object {
        trimmed.to_owned()
    } else {
        format!(r#"{{"output":{}}}"#, json::quote(&said))
    })
}

/// A text; empty ones are refused by some models.
fn text(literal: &str, out: &mut String) {
    if !json::inside(literal).is_empty() {
        join(out, &format!(r#"{{"text":{literal}}}"#));
    }
}

fn image(part: &str) -> Option<String> {
    let (url, _) = address(part, "image_url")?;
    let url = json::unescape(json::inside(url));
    match data_url(&url) {
        Some((kind, data)) => {
            let kind = kind.to_ascii_lowercase();
            let kind = if kind == "image/jpg" {
                "image/jpeg"
            } else {
                &kind
            };
            IMAGES.contains(&kind).then(|| inline(kind, data))
        }
        None => {
            let kind = kind_by_ending(&url).unwrap_or("image/jpeg");
            let host = host(&url)?;
            (IMAGES.contains(&kind) && !VIDEO_HOSTS.contains(&host.as_str()))
                .then(|| by_address(kind, &url))
        }
    }
}

fn file(part: &str) -> Option<String> {
    let file = Source::member(part, "file")?;
    let data = json::unescape(json::inside(literal(file, "file_data")?));
    match data_url(&data) {
        Some((kind, data)) => {
            let kind = kind.to_ascii_lowercase();
            FILES.contains(&kind.as_str()).then(|| inline(&kind, data))
        }
        None => {
            let host = host(&data)?;
            let kind = kind_by_ending(&data).unwrap_or("application/pdf");
            (FILES.contains(&kind) && !VIDEO_HOSTS.contains(&host.as_str()))
                .then(|| by_address(kind, &data))
        }
    }
}

fn audio(part: &str) -> Option<String> {
    let audio = Source::member(part, "input_audio")?;
    let format = json::unescape(json::inside(literal(audio, "format")?));
    let (_, kind) = AUDIO.iter().find(|(name, _)| *name == format)?;
    let data = json::unescape(json::inside(literal(audio, "data")?));
    Some(inline(kind, &data))
}

fn video(part: &str) -> Option<String> {
    let (url, _) = address(part, "video_url")?;
    let url = json::unescape(json::inside(url));
    match data_url(&url) {
        Some((kind, data)) => kind.starts_with("video/").then(|| inline(kind, data)),
        None => {
            host(&url)?;
            let kind = kind_by_ending(&url).unwrap_or("video/mp4");
            kind.starts_with("video/").then(|| by_address(kind, &url))
        }
    }
}

fn inline(kind: &str, data: &str) -> String {
    format!(
        r#"{{"inlineData":{{"mimeType":{},"data":{}}}}}"#,
        json::quote(kind),
        json::quote(data)
    )
}

/// Something that Google fetches itself.
fn by_address(kind: &str, url: &str) -> String {
    format!(
        r#"{{"fileData":{{"mimeType":"{kind}","fileUri":{}}}}}"#,
        json::quote(url)
    )
}

/// The kind that the ending of an address names.
fn kind_by_ending(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.to_ascii_lowercase();
    let found = ENDINGS.iter().find(|(ending, _)| path.ends_with(ending));
    found.map(|(_, kind)| *kind)
}

/// The host of an https address, in lower case; `None` for any other address, and for a host whose
/// files are the operator's.
fn host(url: &str) -> Option<String> {
    let rest = url.strip_prefix("https://")?;
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    let host = authority.rsplit('@').next()?;
    let host = host.split(':').next()?.trim_end_matches('.');
    let host = host.to_ascii_lowercase();
    (!host.is_empty() && !OPERATORS_HOSTS.contains(&host.as_str())).then_some(host)
}
