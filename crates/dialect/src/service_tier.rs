//! The service tier that a provider says it served by: at the top of an answer, in the response that an event carries, or in its usage object.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::json;

const MEMBER: &str = "service_tier";

/// The word, where the answer or its usage object has one.
pub(crate) fn named(answer: &str, usage: Option<&str>) -> Option<String> {
    /// Tells of most answers, in a hundredth of the time that a walk takes, that they have none.
    static MARK: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(MEMBER));
    let says = |text: &&str| MARK.find(text.as_bytes()).is_some();
    let word = |text: &str, steps: &[&str]| {
        let steps: Vec<String> = steps.iter().map(|step| (*step).to_owned()).collect();
        let at = json::find(text, &steps)?;
        serde_json::from_str::<String>(text.get(at)?).ok()
    };
    // Within the usage object it is what that usage was priced by.
    let of_usage = usage.filter(says).and_then(|usage| word(usage, &[MEMBER]));
    of_usage.or_else(|| {
        let answer = Some(answer).filter(says)?;
        word(answer, &[MEMBER]).or_else(|| word(answer, &["response", MEMBER]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_at_the_top_in_the_response_or_in_the_usage() {
        let at_the_top = r#"{"id":"x","service_tier":"flex","usage":{"prompt_tokens":1}}"#;
        let usage = Some(r#"{"input_tokens":1,"service_tier":"priority"}"#);
        for (answer, usage, expected) in [
            (at_the_top, Some(r#"{"prompt_tokens":1}"#), Some("flex")),
            (at_the_top, None, Some("flex")),
            ("{}", usage, Some("priority")),
            (at_the_top, usage, Some("priority")),
            // The end of a stream of Responses.
            (
                r#"{"type":"response.completed","response":{"id":"x","service_tier":"flex"}}"#,
                Some(r#"{"input_tokens":1}"#),
                Some("flex"),
            ),
            (r#"{"service_tier":null}"#, None, None),
            (r#"{"service_tier":7}"#, None, None),
            ("", None, None),
        ] {
            assert_eq!(named(answer, usage).as_deref(), expected, "{answer}");
        }
    }
}
