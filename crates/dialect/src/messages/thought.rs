//! Reasoning that only its own provider can read back, carried through a client of Anthropic's as a signature.

use super::request::{literal, member};
use crate::json;

/// What begins a signature that carries reasoning of another dialect.
const MARK: &str = "tollway.reasoning:";

/// The signature that carries a detail of reasoning, as a string literal; `None` where the detail is
/// only text, which any provider can do without.
pub(super) fn signature(detail: &str) -> Option<String> {
    let opaque = literal(detail, "signature").or_else(|| literal(detail, "data"));
    opaque.map(|_| json::quote(&format!("{MARK}{detail}")))
}

/// The detail that a block of thinking carries in its signature.
pub(super) fn detail(block: &str) -> Option<String> {
    let signature = json::unescape(json::inside(literal(block, "signature")?));
    let detail = signature.strip_prefix(MARK)?;
    serde_json::from_str::<serde::de::IgnoredAny>(detail).ok()?;
    if !detail.starts_with('{') {
        return None;
    }
    match literal(block, "thinking") {
        Some(text) if text != r#""""# && member(detail, "text").is_none() => {
            let rest = detail.get(1..)?;
            let comma = if rest.trim_ascii_start().starts_with('}') {
                ""
            } else {
                ","
            };
            Some(format!(r#"{{"text":{text}{comma}{rest}"#))
        }
        Some(_) | None => Some(detail.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_comes_back_with_its_text() {
        let detail = r#"{"type":"reasoning.text","index":0,"format":"google","signature":"c2ln"}"#;
        let signature = signature(detail).unwrap();
        let block = format!(r#"{{"type":"thinking","thinking":"So.","signature":{signature}}}"#);
        let back: serde_json::Value =
            serde_json::from_str(&super::detail(&block).unwrap()).unwrap();
        assert_eq!(back["text"], "So.");
        assert_eq!(back["signature"], "c2ln");
        assert_eq!(
            super::signature(r#"{"type":"reasoning.text","text":"So."}"#),
            None
        );
        assert_eq!(
            super::detail(r#"{"type":"thinking","thinking":"x","signature":"EvQB"}"#),
            None
        );
    }
}
