//! Writes models into the text of a provider file, below a marker; what a person wrote above it stays.

use std::fmt::Write as _;

use price_tables::Model;

/// The line below which everything is written by the chore.
pub(crate) const MARKER: &str =
    "# ---- models: written by `cargo xtask prices`, do not edit below this line ----";

/// The file's text with its models replaced, and with the table and the day that they are from.
pub(crate) fn splice(
    old: &str,
    models: &[Model],
    from: &str,
    taken: &str,
) -> Result<String, String> {
    let (head, _) = old
        .split_once(MARKER)
        .ok_or_else(|| format!("no line \"{MARKER}\""))?;
    let mut text = String::new();
    let mut replaced = 0;
    for line in head.lines() {
        if line.starts_with("prices_from = ") {
            let _ = writeln!(text, "prices_from = {}", quoted(from));
            replaced += 1;
        } else if line.starts_with("prices_taken = ") {
            let _ = writeln!(text, "prices_taken = {}", quoted(taken));
            replaced += 1;
        } else {
            let _ = writeln!(text, "{line}");
        }
    }
    if replaced != 2 {
        return Err("the head needs one prices_from and one prices_taken".to_owned());
    }
    let _ = writeln!(text, "{MARKER}");
    for model in models {
        write_model(&mut text, model);
    }
    Ok(text)
}

fn write_model(text: &mut String, model: &Model) {
    let _ = writeln!(text, "\n[[models]]\nid = {}", quoted(&model.id));
    if !model.endpoints.is_empty() {
        let words: Vec<String> = model.endpoints.iter().map(|one| quoted(one)).collect();
        let _ = writeln!(text, "endpoints = [{}]", words.join(", "));
    }
    if let Some(tokenizer) = &model.tokenizer {
        let _ = writeln!(text, "tokenizer = {}", quoted(tokenizer));
    }
    if let Some(factor) = model.token_factor {
        let _ = writeln!(text, "token_factor = {factor}");
    }
    let _ = writeln!(text, "context_window = {}", model.context_window);
    if let Some(limit) = model.max_output_tokens {
        let _ = writeln!(text, "max_output_tokens = {limit}");
    }
    if model.hidden_output {
        text.push_str("hidden_output = true\n");
    }
    if !model.features.is_empty() {
        let members: Vec<String> = model
            .features
            .iter()
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        let _ = writeln!(text, "features = {{ {} }}", members.join(", "));
    }
    if let Some(rule) = &model.image_rule {
        let _ = writeln!(text, "image_rule = {}", quoted(rule));
    }
    if model.deprecated {
        text.push_str("deprecated = true\n");
    }
    text.push_str(&model.price_text());
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use price_tables::{Kind, Price};

    use super::*;
    use crate::provider_file::ProviderFile;

    fn model() -> Model {
        let amounts = |prompt: &str| {
            Price::from([
                (Kind::Prompt, prompt.parse().unwrap()),
                (Kind::Completion, "10".parse().unwrap()),
            ])
        };
        Model {
            id: "acme-large".to_owned(),
            endpoints: Vec::new(),
            tokenizer: Some("cl100k_base".to_owned()),
            token_factor: Some(1_100),
            context_window: 128_000,
            max_output_tokens: Some(16_384),
            hidden_output: true,
            image_rule: Some("gpt-4o".to_owned()),
            features: BTreeMap::from([("sampling".to_owned(), toml::Value::Boolean(false))]),
            deprecated: true,
            price: amounts("0.00013"),
            tiers: BTreeMap::from([(200_000, amounts("5"))]),
            hours: Vec::new(),
            service: BTreeMap::from([("flex", (amounts("0.00007"), BTreeMap::new()))]),
        }
    }

    fn head() -> String {
        "# Acme: a comment stays.\nname = \"acme\"\ndialect = \"openai\"\nbase_url = \"https://api.acme.example/v1\"\n\
         prices_from = \"old\"\nprices_taken = \"old\"\n\n[quirks]\ndrop = [\"user\"]\n\n"
            .to_owned()
    }

    #[test]
    fn writes_below_the_marker_and_keeps_what_is_above() {
        let old = format!("{}{MARKER}\n[[models]]\nid = \"gone\"\n", head());
        let text = splice(&old, &[model()], "litellm 1.2.3", "2026-11-22").unwrap();
        let expected = format!(
            "{}{MARKER}\n\n[[models]]\nid = \"acme-large\"\ntokenizer = \"cl100k_base\"\ntoken_factor = 1100\n\
             context_window = 128000\nmax_output_tokens = 16384\nhidden_output = true\nfeatures = {{ sampling = false }}\nimage_rule = \"gpt-4o\"\n\
             deprecated = true\nprice = {{ prompt = \"0.00013\", completion = \"10\" }}\nprice_tiers = [\n    \
             {{ above_prompt_tokens = 200000, whole_request = true, price = {{ prompt = \"5\", completion = \"10\" }} }},\n]\n\
             service_tiers.flex = {{ price = {{ prompt = \"0.00007\", completion = \"10\" }} }}\n",
            head()
                .replace("prices_from = \"old\"", "prices_from = \"litellm 1.2.3\"")
                .replace("prices_taken = \"old\"", "prices_taken = \"2026-11-22\"")
        );
        assert_eq!(text, expected);
        let file = ProviderFile::parse("acme.toml", &text).unwrap();
        assert_eq!(file.models.len(), 1);
        assert_eq!(
            splice(&text, &[model()], "litellm 1.2.3", "2026-11-22").unwrap(),
            text
        );
    }

    #[test]
    fn refuses_a_file_without_its_places() {
        assert!(splice(&head(), &[], "a", "b").is_err());
        assert!(splice(&format!("name = \"a\"\n{MARKER}\n"), &[], "a", "b").is_err());
    }
}
