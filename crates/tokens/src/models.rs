//! Which encoding a model uses: the facts of tiktoken's model map, as far as we can count them.

use crate::Encoding;

/// Models by their whole name.
const BY_NAME: &[(&str, Encoding)] = &[
    ("o1", Encoding::O200kBase),
    ("o3", Encoding::O200kBase),
    ("o4-mini", Encoding::O200kBase),
    ("gpt-5", Encoding::O200kBase),
    ("gpt-4.1", Encoding::O200kBase),
    ("gpt-4o", Encoding::O200kBase),
    ("gpt-4", Encoding::Cl100kBase),
    ("gpt-3.5-turbo", Encoding::Cl100kBase),
    ("gpt-3.5", Encoding::Cl100kBase),
    ("gpt-35-turbo", Encoding::Cl100kBase),
    ("davinci-002", Encoding::Cl100kBase),
    ("babbage-002", Encoding::Cl100kBase),
    ("text-embedding-ada-002", Encoding::Cl100kBase),
    ("text-embedding-3-small", Encoding::Cl100kBase),
    ("text-embedding-3-large", Encoding::Cl100kBase),
];

/// Models by how their name begins; the first match counts.
const BY_PREFIX: &[(&str, Encoding)] = &[
    ("o1-", Encoding::O200kBase),
    ("o3-", Encoding::O200kBase),
    ("o4-mini-", Encoding::O200kBase),
    ("gpt-5", Encoding::O200kBase),
    ("gpt-4.5-", Encoding::O200kBase),
    ("gpt-4.1-", Encoding::O200kBase),
    ("chatgpt-4o-", Encoding::O200kBase),
    ("gpt-4o-", Encoding::O200kBase),
    ("gpt-4-", Encoding::Cl100kBase),
    ("gpt-3.5-turbo-", Encoding::Cl100kBase),
    ("gpt-35-turbo-", Encoding::Cl100kBase),
    ("gpt-oss-", Encoding::O200kBase),
    ("codex-mini", Encoding::O200kBase),
];

/// The encoding of `model`, or nothing where tiktoken does not know it or where it uses an
/// encoding that is retired.
pub(crate) fn encoding_of(model: &str) -> Option<Encoding> {
    let mut model = model;
    // A fine-tuned model is "ft:BASE:owner:name:id" and counts as its base.
    while let Some(rest) = model.strip_prefix("ft:") {
        model = rest.split(':').next().unwrap_or(rest);
    }
    let whole = BY_NAME.iter().find(|(name, _)| *name == model);
    let begins = || {
        BY_PREFIX
            .iter()
            .find(|(prefix, _)| model.starts_with(prefix))
    };
    whole.or_else(begins).map(|(_, encoding)| *encoding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tiktoken_rs::tokenizer::{Tokenizer as Theirs, get_tokenizer};

    fn theirs(model: &str) -> Option<Encoding> {
        match get_tokenizer(model)? {
            Theirs::O200kHarmony | Theirs::O200kBase => Some(Encoding::O200kBase),
            Theirs::Cl100kBase => Some(Encoding::Cl100kBase),
            Theirs::P50kBase | Theirs::R50kBase | Theirs::P50kEdit | Theirs::Gpt2 => None,
        }
    }

    const OTHERS: &[&str] = &[
        "",
        "o1",
        "o2",
        "o4",
        "gpt-6",
        "gpt-4.5",
        "gpt-2",
        "gpt2",
        "davinci",
        "ada",
        "claude-sonnet-4",
        "text-davinci-003",
        "code-search-ada-code-001",
        "text-embedding-4",
        "chatgpt-4o-latest",
        "gpt-oss-120b",
        "codex-mini-latest",
        "gpt-5.4-mini",
        "gpt-4-32k-0314",
        "o3-pro",
        "ft:gpt-4o:org:name:id",
        "ft:ft:gpt-4:x",
        "ft:",
        "ft:nobody:x",
        "GPT-4o",
        "openai/gpt-4o",
    ];

    #[test]
    fn the_map_is_tiktokens() {
        let ours = BY_NAME.iter().chain(BY_PREFIX).map(|(name, _)| *name);
        for name in ours.chain(OTHERS.iter().copied()) {
            for suffix in ["", "-", "-mini", "x", "-2026-01-01", ".1"] {
                let model = format!("{name}{suffix}");
                assert_eq!(encoding_of(&model), theirs(&model), "{model}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_name_agrees(name in "(ft:)?(gpt-|o|text-|codex-|chatgpt-|davinci)?[0-9a-z.:-]{0,9}") {
            prop_assert_eq!(encoding_of(&name), theirs(&name), "{}", name);
        }
    }
}
