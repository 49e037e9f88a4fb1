//! The arrows between crates: which of them may know of sockets, of SQL, of a runtime.

use super::Finding;

/// Crates that keep apart from something, and what they must never depend on.
const APART: [(&str, &[&str]); 5] = [
    (
        "tokens",
        &["axum", "hyper", "hyper-util", "reqwest", "sqlx", "tokio"],
    ),
    (
        "dialect",
        &["axum", "hyper", "hyper-util", "reqwest", "sqlx", "tokio"],
    ),
    (
        "price-tables",
        &["axum", "hyper", "hyper-util", "reqwest", "sqlx", "tokio"],
    ),
    // `tokio` is let in for its channels alone.
    (
        "billing",
        &["axum", "hyper", "hyper-util", "reqwest", "sqlx"],
    ),
    // It judges them: the same mistake must not be in both.
    (
        "auditor",
        &["billing", "dialect", "gateway", "store", "tokens"],
    ),
];
/// The only crates with SQL: the books, their judge, and the bench, which compares the store with
/// SQL that is not ours.
const SQL_CRATES: [&str; 3] = ["store", "auditor", "bench-ledger"];

/// Checks one crate's manifest.
pub(super) fn check(file: &str, text: &str) -> Vec<Finding> {
    let manifest: toml::Table = match toml::from_str(text) {
        Ok(manifest) => manifest,
        Err(error) => return vec![Finding::new(file, 1, error.to_string(), "mend the TOML")],
    };
    let name = manifest
        .get("package")
        .and_then(|package| package.get("name"))
        .and_then(toml::Value::as_str);
    let Some(name) = name else {
        return Vec::new();
    };
    let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
    let mut findings = Vec::new();
    for dependency in dependencies.into_iter().flat_map(toml::Table::keys) {
        let line = line_of(text, dependency);
        let apart = APART.iter().find(|(apart, _)| *apart == name);
        if apart.is_some_and(|(_, banned)| banned.contains(&dependency.as_str())) {
            let what = format!("`{name}` depends on `{dependency}`");
            findings.push(Finding::new(
                file,
                line,
                what,
                "keep the crate apart: do the input and output in `gateway`",
            ));
        } else if dependency == "sqlx" && !SQL_CRATES.contains(&name) {
            let what = format!("`{name}` depends on `sqlx`");
            findings.push(Finding::new(file, line, what, "put the SQL into `store`"));
        }
    }
    findings
}

fn line_of(text: &str, dependency: &str) -> usize {
    text.lines()
        .position(|line| line.starts_with(dependency))
        .map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn expect(name: &str, dependencies: &str, expected: &[(usize, &str)]) {
        let text = format!("[package]\nname = \"{name}\"\n[dependencies]\n{dependencies}\n");
        let found = check("crates/a/Cargo.toml", &text);
        let shown: Vec<(usize, &str)> = found
            .iter()
            .map(|finding| (finding.line, finding.what.as_str()))
            .collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn pure_crates_stay_pure() {
        expect(
            "dialect",
            "serde = \"1\"\nreqwest.workspace = true",
            &[(5, "`dialect` depends on `reqwest`")],
        );
        expect(
            "tokens",
            "tokio.workspace = true",
            &[(4, "`tokens` depends on `tokio`")],
        );
        expect(
            "billing",
            "tokio.workspace = true\nsqlx = \"1\"",
            &[(5, "`billing` depends on `sqlx`")],
        );
        expect("dialect", "[dev-dependencies]\ntokio = \"1\"", &[]);
    }

    #[test]
    fn the_judge_knows_nothing_of_the_judged() {
        expect(
            "auditor",
            "sqlx = \"1\"\nbilling.workspace = true",
            &[(5, "`auditor` depends on `billing`")],
        );
    }

    #[test]
    fn sql_is_in_one_crate() {
        expect(
            "gateway",
            "sqlx = \"1\"",
            &[(4, "`gateway` depends on `sqlx`")],
        );
        expect("store", "sqlx = \"1\"", &[]);
    }

    #[test]
    fn a_manifest_that_is_no_toml_is_a_finding() {
        assert_eq!(check("Cargo.toml", "[package").len(), 1);
        assert!(check("Cargo.toml", "[workspace]\n").is_empty());
    }
}
