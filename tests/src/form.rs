//! A form with files in it, as a client writes it.

use reqwest::RequestBuilder;

const BOUNDARY: &str = "a-boundary-of-the-tests";

/// A form.
#[derive(Clone, Debug)]
pub struct Form(Vec<u8>);

/// A form of these fields and files, by their names.
#[must_use]
pub fn form(fields: &[(&str, &str)], files: &[(&str, &[u8])]) -> Form {
    let mut body = Vec::new();
    // Files first: the fields that say what to do with them may come after.
    for (name, bytes) in files {
        body.extend(format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"it.wav\"\r\nContent-Type: audio/wav\r\n\r\n").bytes());
        body.extend(*bytes);
        body.extend(b"\r\n");
    }
    for (name, value) in fields {
        body.extend(
            format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            )
            .bytes(),
        );
    }
    body.extend(format!("--{BOUNDARY}--\r\n").bytes());
    Form(body)
}

impl Form {
    /// The request with this form as its body.
    pub fn onto(self, request: RequestBuilder) -> RequestBuilder {
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        request.header("content-type", kind).body(self.0)
    }
}
