//! The service tier that a provider says it served by: at the top of an answer, or in its usage object.

use crate::json;

/// The word, where the answer or its usage object has one.
pub(crate) fn named(answer: &str, usage: Option<&str>) -> Option<String> {
    let steps = ["service_tier".to_owned()];
    let word = |text: &str| {
        let at = json::find(text, &steps)?;
        serde_json::from_str::<String>(text.get(at)?).ok()
    };
    // Within the usage object it is what that usage was priced by.
    usage.and_then(word).or_else(|| word(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_at_the_top_or_in_the_usage() {
        let at_the_top = r#"{"id":"x","service_tier":"flex","usage":{"prompt_tokens":1}}"#;
        let usage = Some(r#"{"input_tokens":1,"service_tier":"priority"}"#);
        for (answer, usage, expected) in [
            (at_the_top, Some(r#"{"prompt_tokens":1}"#), Some("flex")),
            (at_the_top, None, Some("flex")),
            ("{}", usage, Some("priority")),
            (at_the_top, usage, Some("priority")),
            (r#"{"service_tier":null}"#, None, None),
            (r#"{"service_tier":7}"#, None, None),
            ("", None, None),
        ] {
            assert_eq!(named(answer, usage).as_deref(), expected, "{answer}");
        }
    }
}
