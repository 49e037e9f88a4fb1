//! Spans inside JSON text that serde has already accepted, and splices at those spans.
//!
//! Nothing here validates: on text that is not JSON the iterators end early and never panic.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr2;

/// A member of an object: where its key (with quotes) and its value lie in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) key: Range<usize>,
    pub(crate) value: Range<usize>,
}

impl Member {
    /// The key as the sender meant it, escapes resolved.
    pub(crate) fn name<'a>(&self, text: &'a str) -> Cow<'a, str> {
        unescape(inside(slice(text, &self.key)))
    }
}

/// The text at a span; empty where the span is not inside the text.
pub(crate) fn slice<'a>(text: &'a str, span: &Range<usize>) -> &'a str {
    text.get(span.clone()).unwrap_or_default()
}

/// A string literal without its quotes; anything else as it is.
pub(crate) fn inside(literal: &str) -> &str {
    literal
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(literal)
}

/// Where `part`, a slice of `text`, begins in it. `None` when it is not a slice of it.
pub(crate) fn offset_in(text: &str, part: &str) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    (end <= text.len()).then_some(start..end)
}

/// The members of the object that begins at `start`, in order.
pub(crate) fn members(text: &str, start: usize) -> Members<'_> {
    Members(Items::new(text, start, b'{'))
}

/// The elements of the array that begins at `start`, in order.
pub(crate) fn elements(text: &str, start: usize) -> Elements<'_> {
    Elements(Items::new(text, start, b'['))
}

/// Finds a value by the steps of a JSON pointer (RFC 6901). A `null` counts as absent.
pub(crate) fn find(text: &str, steps: &[String]) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let start = skip_space(bytes, 0);
    let mut at = start..skip_value(bytes, start);
    for step in steps {
        at = match bytes.get(at.start)? {
            b'{' => members(text, at.start)
                .filter(|member| member.name(text) == step.as_str())
                .last()
                .map(|member| member.value)?,
            b'[' => elements(text, at.start).nth(step.parse().ok()?)?,
            _ => return None,
        };
    }
    (slice(text, &at) != "null").then_some(at)
}

/// Iterator of [`members`].
pub(crate) struct Members<'a>(Items<'a>);

impl Iterator for Members<'_> {
    type Item = Member;

    fn next(&mut self) -> Option<Member> {
        let bytes = self.0.bytes;
        let key = self.0.begin()?;
        if bytes.get(key) != Some(&b'"') {
            return None;
        }
        let key_end = skip_value(bytes, key);
        let colon = skip_space(bytes, key_end);
        if bytes.get(colon) != Some(&b':') {
            return None;
        }
        let value = skip_space(bytes, colon + 1);
        let value_end = skip_value(bytes, value);
        self.0.at = value_end;
        Some(Member {
            key: key..key_end,
            value: value..value_end,
        })
    }
}

/// Iterator of [`elements`].
pub(crate) struct Elements<'a>(Items<'a>);

impl Iterator for Elements<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let start = self.0.begin()?;
        let end = skip_value(self.0.bytes, start);
        self.0.at = end;
        (end > start).then_some(start..end)
    }
}

/// What objects and arrays have in common: an opening byte, then items between commas.
struct Items<'a> {
    bytes: &'a [u8],
    at: usize,
    first: bool,
}

impl<'a> Items<'a> {
    fn new(text: &'a str, start: usize, open: u8) -> Self {
        let bytes = text.as_bytes();
        let at = if bytes.get(start) == Some(&open) {
            start + 1
        } else {
            bytes.len()
        };
        Self {
            bytes,
            at,
            first: true,
        }
    }

    /// Where the next item begins, or `None` at the closing byte.
    fn begin(&mut self) -> Option<usize> {
        let mut at = skip_space(self.bytes, self.at);
        if !std::mem::take(&mut self.first) {
            if self.bytes.get(at) != Some(&b',') {
                return None;
            }
            at = skip_space(self.bytes, at + 1);
        }
        match self.bytes.get(at)? {
            b'}' | b']' => None,
            _ => Some(at),
        }
    }
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

/// The end of the string whose opening quote is at `start`.
fn skip_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(rest) = bytes.get(at..) {
        match memchr2(b'"', b'\\', rest) {
            None => break,
            Some(found) if rest.get(found) == Some(&b'"') => return at + found + 1,
            Some(found) => at += found + 2,
        }
    }
    bytes.len()
}

/// The end of the value that begins at `start`, without recursion.
fn skip_value(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    let mut depth = 0_usize;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = skip_string(bytes, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                if depth <= 1 {
                    return if depth == 0 { at } else { at + 1 };
                }
                depth -= 1;
            }
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// How deep brackets nest in `bytes`, read up to the point where `limit` is passed.
///
/// Runs before serde, so that text of any depth costs one pass and no stack.
pub(crate) fn deeper_than(bytes: &[u8], limit: usize) -> bool {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = skip_string(bytes, at);
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    false
}

/// Resolves the escapes of a string literal given without quotes.
///
/// Half a surrogate pair becomes U+FFFD: providers and JavaScript clients do send them, and serde
/// would refuse the whole text for it.
pub(crate) fn unescape(raw: &str) -> Cow<'_, str> {
    let Some(first) = raw.find('\\') else {
        return Cow::Borrowed(raw);
    };
    let mut out = String::with_capacity(raw.len());
    let (head, mut rest) = raw.split_at(first);
    out.push_str(head);
    while !rest.is_empty() {
        if rest.starts_with('\\') {
            let (decoded, used) = escape(rest);
            out.push(decoded);
            rest = rest.get(used..).unwrap_or_default();
        } else {
            let plain = rest.find('\\').unwrap_or(rest.len());
            let (text, tail) = rest.split_at(plain);
            out.push_str(text);
            rest = tail;
        }
    }
    Cow::Owned(out)
}

/// How many bytes of the raw literal hold the longest prefix of at most `keep` decoded bytes.
///
/// Ends on a character boundary and never inside an escape.
pub(crate) fn raw_prefix(raw: &str, keep: usize) -> usize {
    let mut used = 0;
    let mut left = keep;
    while let Some(rest) = raw.get(used..).filter(|rest| !rest.is_empty()) {
        let (decoded, step) = if rest.starts_with('\\') {
            escape(rest)
        } else {
            match rest.chars().next() {
                Some(plain) => (plain, plain.len_utf8()),
                None => break,
            }
        };
        let Some(remaining) = left.checked_sub(decoded.len_utf8()) else {
            break;
        };
        left = remaining;
        used += step;
    }
    used
}

/// One escape at the front of `rest`: the character, and how many bytes it took.
fn escape(rest: &str) -> (char, usize) {
    let plain = match rest.as_bytes().get(1) {
        Some(b'n') => '\n',
        Some(b't') => '\t',
        Some(b'r') => '\r',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'u') => return unicode_escape(rest),
        Some(b'"') => '"',
        Some(b'/') => '/',
        Some(b'\\') => '\\',
        // Not an escape of JSON: swallow the backslash alone, so that the next character stays whole.
        Some(_) | None => return (char::REPLACEMENT_CHARACTER, 1),
    };
    (plain, 2)
}

fn unicode_escape(rest: &str) -> (char, usize) {
    let unit = |from: usize| {
        let digits = rest.get(from..from + 4)?;
        let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if hex {
            u32::from_str_radix(digits, 16).ok()
        } else {
            None
        }
    };
    let Some(high) = unit(2) else {
        return (char::REPLACEMENT_CHARACTER, 1);
    };
    if let Some(plain) = char::from_u32(high) {
        return (plain, 6);
    }
    let low = rest
        .get(6..8)
        .filter(|mark| *mark == "\\u")
        .and_then(|_| unit(8));
    match low {
        Some(low @ 0xDC00..=0xDFFF) if high < 0xDC00 => {
            let code = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
            (
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
                12,
            )
        }
        Some(_) | None => (char::REPLACEMENT_CHARACTER, 6),
    }
}

/// Writes `text` as a JSON string literal.
pub(crate) fn quote(text: &str) -> String {
    // Serialising a `str` cannot fail; the fallback keeps this total without a panic.
    serde_json::to_string(text).unwrap_or_else(|_| String::from("\"\""))
}

/// Replacements at spans of one text. Spans must not overlap; their order does not matter.
#[derive(Default)]
pub(crate) struct Splice<'a> {
    edits: Vec<(Range<usize>, Cow<'a, str>)>,
}

impl<'a> Splice<'a> {
    pub(crate) fn replace(&mut self, span: Range<usize>, with: impl Into<Cow<'a, str>>) {
        self.edits.push((span, with.into()));
    }

    pub(crate) fn insert(&mut self, at: usize, with: impl Into<Cow<'a, str>>) {
        self.replace(at..at, with);
    }

    /// Forgets the edits inside a span, so that the span can be replaced as a whole.
    pub(crate) fn clear(&mut self, within: &Range<usize>) {
        self.edits
            .retain(|(span, _)| span.start < within.start || span.end > within.end);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// The text with all edits made. Edits at one place keep the order in which they were given.
    pub(crate) fn apply(mut self, text: &str) -> Vec<u8> {
        self.edits.sort_by_key(|(span, _)| span.start);
        let added: usize = self.edits.iter().map(|(_, with)| with.len()).sum();
        let mut out = Vec::with_capacity(text.len() + added);
        let mut from = 0;
        for (span, with) in &self.edits {
            out.extend_from_slice(slice(text, &(from..span.start)).as_bytes());
            out.extend_from_slice(with.as_bytes());
            from = from.max(span.end);
        }
        out.extend_from_slice(slice(text, &(from..text.len())).as_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// JSON of every kind, written with odd spacing.
    pub(crate) fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>()
                .prop_filter("finite", |f| f.is_finite())
                .prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn walking_finds_what_serde_finds(value in json(), pretty in any::<bool>()) {
            let text = if pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                value.to_string()
            };
            check_walk(&text, 0, &value);
        }

        #[test]
        fn unescaping_agrees_with_serde(text in any::<String>()) {
            let literal = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(unescape(inside(&literal)), text.as_str());
            let ascii: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            prop_assert_eq!(unescape(&ascii), text.as_str());
            for keep in 0..=text.len() {
                for raw in [inside(&literal), ascii.as_str()] {
                    let kept = unescape(&raw[..raw_prefix(raw, keep)]).into_owned();
                    prop_assert!(text.starts_with(&kept));
                    let floor = (0..=keep).rev().find(|at| text.is_char_boundary(*at)).unwrap();
                    prop_assert_eq!(kept.len(), floor);
                }
            }
        }

        #[test]
        fn nothing_panics_on_text_that_is_not_json(text in any::<String>(), at in 0_usize..40) {
            let _ = members(&text, at).count();
            let _ = elements(&text, at).count();
            let _ = unescape(&text);
            let _ = raw_prefix(&text, at);
            let _ = deeper_than(text.as_bytes(), 3);
            let _ = find(&text, &["a".into(), "0".into()]);
        }
    }

    fn check_walk(text: &str, start: usize, value: &Value) {
        match value {
            Value::Object(map) => {
                let found: Vec<_> = members(text, start).collect();
                assert_eq!(found.len(), map.len(), "{text}");
                for member in found {
                    check_walk(text, member.value.start, &map[member.name(text).as_ref()]);
                }
            }
            Value::Array(list) => {
                let found: Vec<_> = elements(text, start).collect();
                assert_eq!(found.len(), list.len(), "{text}");
                for (span, value) in found.iter().zip(list) {
                    check_walk(text, span.start, value);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                let span = start..skip_value(text.as_bytes(), start);
                assert_eq!(&text[span], value.to_string());
            }
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_replaced_not_refused() {
        assert_eq!(unescape(r"a\ud83db"), "a\u{fffd}b");
        assert_eq!(unescape(r"\ude00"), "\u{fffd}");
        assert_eq!(unescape(r"\ud83d\ud83d\ude00"), "\u{fffd}\u{1f600}");
        assert_eq!(unescape(r"\ud83d\n"), "\u{fffd}\n");
    }

    #[test]
    fn pointers_walk_objects_and_lists() {
        let text = r#" {"a":[{"b":1},{"b":{"c":"x"}}],"n":null}"#;
        let at = |pointer: &str| {
            let steps: Vec<_> = pointer.split('/').skip(1).map(String::from).collect();
            find(text, &steps).map(|span| slice(text, &span))
        };
        assert_eq!(at("/a/1/b/c"), Some(r#""x""#));
        assert_eq!(at("/a/0"), Some(r#"{"b":1}"#));
        assert_eq!(at("/a/2"), None);
        assert_eq!(at("/n"), None);
        assert_eq!(at("/n/x"), None);
    }

    #[test]
    fn depth_ignores_brackets_in_strings() {
        assert!(!deeper_than(br#"{"a":"[[[[[[\"[[["}"#, 1));
        assert!(deeper_than(b"[[[]]]", 2));
        assert!(!deeper_than(b"[[[]]]", 3));
        assert!(deeper_than("[".repeat(1_000_000).as_bytes(), 64));
    }
}
