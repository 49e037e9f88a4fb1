//! What is written from the settings: their document and an example file.

use std::fmt::Write as _;

use crate::settings::SETTINGS;

/// `docs/settings.md`: every setting, its default and its meaning.
#[must_use]
pub fn document() -> String {
    let mut text = String::from(
        "# Settings\n\n\
         <!-- Written from crates/gateway/src/settings.rs: TOLLWAY_WRITE_DOCS=1 cargo test -p gateway settings -->\n\n\
         A setting comes from its default, overridden by `tollway.toml` (or the file of `--config` or `TOLLWAY_CONFIG`),\n\
         overridden by the environment, overridden by a flag. `listen` is `TOLLWAY_LISTEN` in the environment and `--listen`\n\
         as a flag; the flags are those that `tollway serve --help` lists. An unknown setting is an error that names the\n\
         closest known one; `tollway check-config` tells what is wrong, with file and line.\n\n\
         | setting | default | meaning |\n| --- | --- | --- |\n",
    );
    for setting in SETTINGS {
        let default = match setting.default {
            "" => String::new(),
            value => format!("`{value}`"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{}` | {default} | {} |", setting.name, setting.doc);
    }
    text.push_str(
        "\n## Routes\n\n\
         A model name can be given targets of its own, tried in order before the first byte of an answer:\n\n\
         ```toml\n[[routes]]\nmodel = \"best\"\ntargets = [\"openai/gpt-4.1\", \"azure/gpt-4.1\"]\n\
         drop_unsupported = true            # what a target cannot do is left out instead of refused\n```\n\n\
         Without a route, a bare model id goes to every provider that serves it, the cheapest first, and `provider/id` to\n\
         that provider.\n",
    );
    text
}

/// `tollway.example.toml`: every setting, commented out, with its default.
#[must_use]
pub fn example() -> String {
    let mut text = String::from(
        "# Every setting of Tollway, with its default. Copy what you change into tollway.toml.\n\
         # Written from crates/gateway/src/settings.rs; docs/settings.md tells more.\n",
    );
    for setting in SETTINGS {
        let default = match setting.default {
            "" => "\"\"".to_owned(),
            bare if bare == "false" || bare.bytes().all(|b| b.is_ascii_digit()) => bare.to_owned(),
            text => format!("\"{text}\""),
        };
        let _ = writeln!(text, "\n# {}\n# {} = {default}", setting.doc, setting.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn what_is_written_from_the_settings_is_fresh() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        for (name, text) in [
            ("docs/settings.md", document()),
            ("tollway.example.toml", example()),
        ] {
            let path = format!("{root}/{name}");
            if std::env::var_os("TOLLWAY_WRITE_DOCS").is_some() {
                std::fs::write(&path, &text).unwrap();
            }
            assert!(
                std::fs::read_to_string(&path).unwrap_or_default() == text,
                "{name} is not fresh; run `TOLLWAY_WRITE_DOCS=1 cargo test -p gateway settings`"
            );
        }
    }

    #[test]
    fn the_example_is_right_when_its_comments_are_taken_off() {
        let bare: String = example()
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .filter(|line| {
                let setting = line.split_once(" = ");
                setting.is_some_and(|(name, value)| !name.contains(' ') && value != "\"\"")
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let mut settings = Settings::default();
        let mut findings = Vec::new();
        settings.apply_toml("tollway.toml", &bare, &mut findings);
        assert!(findings.is_empty(), "{findings:?}");
        assert_eq!(
            format!("{settings:?}"),
            format!("{:?}", Settings::default())
        );
    }
}
