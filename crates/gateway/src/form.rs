//! A form with files in it (multipart/form-data): read within its bounds, and written anew for a provider.

use std::convert::Infallible;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, header};
use memchr::memmem;
use uuid::Uuid;

use crate::error::ApiError;

/// Parts that a form has at most.
const PARTS_MAX: usize = 64;
/// A field that is no file has at most so many bytes.
const FIELD_BYTES_MAX: usize = 256 * 1024;

/// A form, with its parts as they came.
#[derive(Debug)]
pub struct Form {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    name: String,
    file_name: Option<String>,
    content_type: Option<String>,
    bytes: Bytes,
}

/// A form as it goes upstream.
#[derive(Debug)]
pub struct Written {
    /// Its content type, which names the boundary.
    pub content_type: String,
    /// Its bytes.
    pub body: Bytes,
}

impl Form {
    /// Reads a form that may have these fields and no others: one that nobody here knows could
    /// change what the request costs.
    ///
    /// # Errors
    /// 400: not a form, a field that is not known, or one of them given twice.
    pub async fn read(headers: &HeaderMap, body: &Bytes, known: &[&str]) -> Result<Self, ApiError> {
        Self::read_with(headers, body, Some(known)).await
    }

    /// Reads a form that may have any fields: one whose price does not depend on them.
    ///
    /// # Errors
    /// 400: not a form, or a field given twice that is no list.
    pub async fn read_any(headers: &HeaderMap, body: &Bytes) -> Result<Self, ApiError> {
        Self::read_with(headers, body, None).await
    }

    async fn read_with(
        headers: &HeaderMap,
        body: &Bytes,
        known: Option<&[&str]>,
    ) -> Result<Self, ApiError> {
        let boundary = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| multer::parse_boundary(value).ok());
        let Some(boundary) = boundary else {
            return Err(invalid(
                None,
                "Send this request as multipart/form-data, with the file in it.",
            ));
        };
        let broken = || invalid(None, "The form is broken, or not whole.");
        let mut form = Self { parts: Vec::new() };
        let mut rest = Parts::of(body, &boundary).ok_or_else(broken)?;
        while let Some((head, bytes)) = rest.next().ok_or_else(broken)? {
            let part = Part::read(&head, &boundary, bytes).await;
            form.push(part.ok_or_else(broken)?, known)?;
        }
        Ok(form)
    }

    fn push(&mut self, part: Part, known: Option<&[&str]>) -> Result<(), ApiError> {
        // A list or an object is written with brackets: `image[]`, `chunking_strategy[type]`.
        let (base, list) = match part.name.split_once('[') {
            Some((base, _)) => (base, true),
            None => (part.name.as_str(), false),
        };
        if let Some(known) = known.filter(|known| !known.contains(&base)) {
            let message = format!("The form may have these fields: {}.", known.join(", "));
            return Err(invalid(None, message));
        }
        let twice = !list && self.parts.iter().any(|other| other.name == part.name);
        // Several images come under one name too.
        if twice && !(part.is_file() && base == "image") {
            return Err(invalid(
                Some(part.name.clone()),
                "A field of the form must be given once.",
            ));
        }
        if !part.is_file() && part.bytes.len() > FIELD_BYTES_MAX {
            return Err(invalid(Some(part.name.clone()), "This field is too long."));
        }
        if self.parts.len() == PARTS_MAX {
            return Err(invalid(None, "The form has too many fields."));
        }
        self.parts.push(part);
        Ok(())
    }

    /// A field that is no file, as text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        let part = self.parts.iter().find(|part| part.name == name)?;
        std::str::from_utf8(&part.bytes).ok()
    }

    /// Every field that is no file and is text.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let fields = self.parts.iter().filter(|part| !part.is_file());
        fields.filter_map(|part| std::str::from_utf8(&part.bytes).ok())
    }

    /// The files under a name, also as a list.
    pub fn files<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Bytes> {
        let named = move |part: &&Part| {
            part.name == name
                || part
                    .name
                    .strip_suffix("[]")
                    .is_some_and(|base| base == name)
        };
        self.parts.iter().filter(named).map(|part| &part.bytes)
    }

    /// The form with the provider's name of the model.
    #[must_use]
    pub fn write(&self, upstream_model: &str) -> Written {
        let boundary = format!("tollway-{}", Uuid::now_v7().simple());
        let bytes: usize = self.parts.iter().map(|part| part.bytes.len() + 256).sum();
        let mut body = BytesMut::with_capacity(bytes + 64);
        if self.parts.iter().all(|part| part.name != "model") {
            let head =
                format!("--{boundary}\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n");
            body.put(format!("{head}{upstream_model}\r\n").as_bytes());
        }
        for part in &self.parts {
            let mut head = format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"",
                quoted(&part.name)
            );
            if let Some(file_name) = &part.file_name {
                head.push_str(&format!("; filename=\"{}\"", quoted(file_name)));
            }
            if let Some(content_type) = &part.content_type {
                head.push_str(&format!("\r\nContent-Type: {content_type}"));
            }
            body.put(head.as_bytes());
            body.put(&b"\r\n\r\n"[..]);
            if part.name == "model" {
                body.put(upstream_model.as_bytes());
            } else {
                body.put(&*part.bytes);
            }
            body.put(&b"\r\n"[..]);
        }
        body.put(format!("--{boundary}--\r\n").as_bytes());
        Written {
            content_type: format!("multipart/form-data; boundary={boundary}"),
            body: body.freeze(),
        }
    }
}

/// What is left of a form. Its parts are slices of the body: a large file is not copied.
struct Parts {
    rest: Bytes,
    /// What stands behind each part: a line's end, and the boundary.
    end: Vec<u8>,
}

impl Parts {
    /// From behind the first boundary on; `None` where there is none.
    fn of(body: &Bytes, boundary: &str) -> Option<Self> {
        let end = format!("\r\n--{boundary}").into_bytes();
        let first = end.get(2..)?;
        let start = if body.starts_with(first) {
            first.len()
        } else {
            memmem::find(body, &end)? + end.len()
        };
        let rest = body.slice(start..);
        Some(Self { rest, end })
    }

    /// The head of the next part and what is in it; none behind the last. `None` where the form breaks
    /// off.
    fn next(&mut self) -> Option<Option<(Bytes, Bytes)>> {
        if self.rest.starts_with(b"--") {
            return Some(None);
        }
        // The line of the boundary may end in spaces; an empty head has its second line's end there.
        let line = memmem::find(&self.rest, b"\r\n")?;
        let padding = self.rest.get(..line)?;
        if !padding.iter().all(|byte| b" \t".contains(byte)) {
            return None;
        }
        let head_end = line + memmem::find(self.rest.get(line..)?, b"\r\n\r\n")?;
        let start = head_end + 4;
        // An empty part shares its line's end with its head's.
        let from = self.rest.get(start - 2..)?;
        let length = memmem::find(from, &self.end)?;
        let head = self.rest.slice(line..start);
        let bytes = self.rest.slice(start..(start + length).max(start + 2) - 2);
        self.rest = self.rest.slice(start - 2 + length + self.end.len()..);
        Some(Some((head, bytes)))
    }
}

impl Part {
    /// Reads a part's head, with the library that knows how names are quoted and escaped.
    async fn read(head: &Bytes, boundary: &str, bytes: Bytes) -> Option<Self> {
        let alone = [
            format!("--{boundary}").as_bytes(),
            head,
            format!("\r\n--{boundary}--\r\n").as_bytes(),
        ]
        .concat();
        let alone = stream::iter([Ok::<_, Infallible>(Bytes::from(alone))]);
        let mut multipart = multer::Multipart::new(alone, boundary);
        let field = multipart.next_field().await.ok()??;
        Some(Self {
            name: field.name().unwrap_or_default().to_owned(),
            file_name: field.file_name().map(str::to_owned),
            content_type: field.content_type().map(ToString::to_string),
            bytes,
        })
    }

    const fn is_file(&self) -> bool {
        self.file_name.is_some()
    }
}

/// A name inside quotes, as HTML's forms write it.
fn quoted(name: &str) -> String {
    name.replace('"', "%22")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn invalid(param: Option<String>, message: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::Invalid {
        param: param.map(Into::into),
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const KNOWN: &[&str] = &["file", "image", "model", "include"];

    async fn read(parts: &str) -> Result<Form, ApiError> {
        let body = parts.replace('\n', "\r\n").replace("|", "--x");
        let mut headers = HeaderMap::new();
        let kind = HeaderValue::from_static("multipart/form-data; boundary=x");
        headers.insert(header::CONTENT_TYPE, kind);
        Form::read(&headers, &Bytes::from(body), KNOWN).await
    }

    const FILE: &str = "|\nContent-Disposition: form-data; name=\"file\"; filename=\"a\\\"b.wav\"\nContent-Type: audio/wav\n\nABC\n";
    const MODEL: &str = "|\nContent-Disposition: form-data; name=\"model\"\n\nm\n";

    #[tokio::test]
    async fn only_the_models_name_changes() {
        let form = read(&format!("{FILE}{MODEL}|--\n")).await.unwrap();
        assert_eq!(form.text("model"), Some("m"));
        let written = form.write("real");
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, written.content_type.parse().unwrap());
        let again = Form::read(&headers, &written.body, KNOWN).await.unwrap();
        assert_eq!(again.text("model"), Some("real"));
        assert_eq!(
            again.files("file").next().unwrap(),
            &Bytes::from_static(b"ABC")
        );
        assert_eq!(again.parts[0].content_type.as_deref(), Some("audio/wav"));
    }

    #[tokio::test]
    async fn what_is_not_known_or_given_twice_is_refused() {
        let field =
            |name: &str| format!("|\nContent-Disposition: form-data; name=\"{name}\"\n\nv\n");
        for (parts, sound) in [
            (format!("{MODEL}|--\n"), true),
            (
                format!("{MODEL}{}|--\n", field("include[]").repeat(2)),
                true,
            ),
            (format!("{MODEL}{MODEL}|--\n"), false),
            (format!("{FILE}{FILE}|--\n"), false),
            (format!("{MODEL}{}|--\n", field("surprise")), false),
            (MODEL.to_owned(), false),
            (format!("a preamble\n{MODEL}|--\nan epilogue"), true),
            (format!("{MODEL}| \n"), false),
            (format!("{MODEL}|x\n"), false),
            ("garbage".to_owned(), false),
        ] {
            assert_eq!(read(&parts).await.is_ok(), sound, "{parts}");
        }
        assert!(
            Form::read(&HeaderMap::new(), &Bytes::new(), KNOWN)
                .await
                .is_err()
        );
    }
}
