//! Provider files: they parse, are named as their file, and say where their prices are from.

use super::Finding;
use crate::{prices::MARKER, provider_file::ProviderFile};

/// What a provider can speak.
const DIALECTS: [&str; 7] = [
    "openai",
    "anthropic",
    "anthropic_vertex",
    "gemini",
    "cohere",
    "ollama",
    "bedrock",
];

/// Checks one provider file.
pub(super) fn check(file: &str, text: &str) -> Vec<Finding> {
    let provider = match ProviderFile::parse(file, text) {
        Ok(provider) => provider,
        Err(failure) => return vec![Finding::new(file, 1, failure.to_string(), "mend the file")],
    };
    let mut findings = Vec::new();
    let mut find =
        |what: String, mend: &'static str| findings.push(Finding::new(file, 1, what, mend));
    let stem = file
        .rsplit('/')
        .next()
        .unwrap_or(file)
        .trim_end_matches(".toml");
    if provider.name != stem {
        find(
            format!("it is called `{}`", provider.name),
            "name the file after the provider",
        );
    }
    if !DIALECTS.contains(&provider.dialect.as_str()) {
        find(
            format!("no dialect is called `{}`", provider.dialect),
            "write one of docs/providers.md",
        );
    }
    if !provider.base_url.starts_with("https://") && !provider.base_url.starts_with("${") {
        find(
            "its base_url is neither https nor from the environment".to_owned(),
            "write https://…",
        );
    }
    let is_variable = |name: &String| {
        name.bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    };
    if !provider.environment().iter().all(is_variable) {
        find(
            "a variable that is not in capitals".to_owned(),
            "use the name that people already have set",
        );
    }
    for name in provider.repeated_names() {
        find(format!("two models are called `{name}`"), "keep one");
    }
    if provider.has_prices() {
        if provider.prices_from.is_none() || !provider.prices_taken.as_deref().is_some_and(is_date)
        {
            find(
                "prices without where or when they are from".to_owned(),
                "write prices_from and prices_taken = \"YYYY-MM-DD\"",
            );
        }
        if !text.contains(MARKER) {
            find(
                "prices written by hand".to_owned(),
                "add the provider to the plan of `cargo xtask prices`",
            );
        }
    }
    findings
}

fn is_date(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    shape == "0000-00-00"
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: &str = "[[models]]\nid = \"a\"\ncontext_window = 1\nprice = { prompt = \"1\", completion = \"1\" }\n";

    fn acme(top: &str, below: &str) -> String {
        format!(
            "name = \"acme\"\ndialect = \"openai\"\nbase_url = \"https://a.example\"\n{top}\n{below}"
        )
    }

    #[track_caller]
    fn expect(text: &str, expected: &[&str]) {
        let found = check("providers/acme.toml", text);
        let shown: Vec<&str> = found.iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn prices_say_where_they_are_from() {
        let from = "prices_from = \"x 1\"\nprices_taken = \"2026-11-22\"";
        expect(&acme(from, &format!("{MARKER}\n{MODEL}")), &[]);
        expect(&acme(from, MODEL), &["prices written by hand"]);
        let priced = format!("{MARKER}\n{MODEL}");
        expect(
            &acme("", &priced),
            &["prices without where or when they are from"],
        );
        let soon = "prices_from = \"x 1\"\nprices_taken = \"soon\"";
        expect(
            &acme(soon, &priced),
            &["prices without where or when they are from"],
        );
    }

    #[test]
    fn a_provider_is_named_as_its_file() {
        let text = acme("", "").replace("\"acme\"", "\"other\"");
        expect(&text, &["it is called `other`"]);
    }

    #[test]
    fn addresses_names_and_variables_are_plain() {
        expect(
            &acme("api_key_env = \"acme_key\"", ""),
            &["a variable that is not in capitals"],
        );
        let plain = acme("", "").replace("https://", "http://");
        expect(
            &plain,
            &["its base_url is neither https nor from the environment"],
        );
        let other = acme("", "").replace("openai", "klingon");
        expect(&other, &["no dialect is called `klingon`"]);
        let twice = "[[models]]\nid = \"a\"\ncontext_window = 1\n".repeat(2);
        expect(&acme("", &twice), &["two models are called `a`"]);
    }

    #[test]
    fn a_file_that_does_not_parse_is_a_finding() {
        assert_eq!(
            check("providers/acme.toml", &acme("colour = 1", "")).len(),
            1
        );
    }
}
