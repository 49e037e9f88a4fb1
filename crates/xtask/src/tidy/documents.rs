//! Documents: links that lead somewhere, a changelog with a place for what comes next, no paths of one machine.

use super::Finding;

/// The document of what changed.
pub(super) const CHANGELOG: &str = "CHANGELOG.md";
/// The document of what is survived, and the test that shows it.
pub(super) const FAULTS: &str = "docs/faults.md";
/// The column of that document's table that names tests.
const TESTS_COLUMN: usize = 3;
/// Paths that exist on one machine only, spelt so that this file does not hold them.
const MACHINE_PATHS: [&str; 4] = [
    concat!("/", "work/"),
    concat!("/", "root/"),
    concat!("/", "home/"),
    concat!("/", "Users/"),
];

/// Checks the links of a Markdown file; `exists` answers for paths below the root.
pub(super) fn check_links(file: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if fenced {
            continue;
        }
        for target in link_targets(line) {
            let Some(path) = local_path(file, &target) else {
                continue;
            };
            if !exists(&path) {
                let what = format!("the link to `{target}` leads nowhere");
                findings.push(Finding::new(
                    file,
                    index + 1,
                    what,
                    "point it at a file of the repository",
                ));
            }
        }
    }
    findings
}

/// Checks that the changelog has a part for what is not released yet.
pub(super) fn check_changelog(text: Option<&str>) -> Vec<Finding> {
    let mend = "add `## Unreleased` above the releases";
    let Some(text) = text else {
        return vec![Finding::new(
            CHANGELOG,
            1,
            "there is no changelog".to_owned(),
            mend,
        )];
    };
    let is_part = |line: &str| {
        line.strip_prefix("## ")
            .is_some_and(|title| title.trim_matches(['[', ']', ' ']) == "Unreleased")
    };
    if text.lines().any(is_part) {
        return Vec::new();
    }
    vec![Finding::new(
        CHANGELOG,
        1,
        "no part called Unreleased".to_owned(),
        mend,
    )]
}

/// Checks that every test that the document of faults names exists; `exists` answers for the names
/// of functions.
pub(super) fn check_faults(text: Option<&str>, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let Some(text) = text else {
        let what = "there is no table of faults".to_owned();
        return vec![Finding::new(FAULTS, 1, what, "write one")];
    };
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for name in tests_named(line).filter(|name| !exists(name)) {
            let what = format!("there is no test `{name}`");
            let mend = "name one that there is, or write it";
            findings.push(Finding::new(FAULTS, index + 1, what, mend));
        }
    }
    findings
}

/// What stands in code in the column of tests.
fn tests_named(line: &str) -> impl Iterator<Item = &str> {
    let cell = line
        .strip_prefix('|')
        .and_then(|row| row.split('|').nth(TESTS_COLUMN))
        .unwrap_or_default();
    cell.split('`').skip(1).step_by(2)
}

/// Checks that no path of one machine is in a text file.
pub(super) fn check_machine_paths(file: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for path in MACHINE_PATHS.iter().filter(|path| has_path(line, path)) {
            let what = format!("`{path}` is a path of one machine");
            findings.push(Finding::new(
                file,
                index + 1,
                what,
                "name it relative to the repository, or by a setting",
            ));
        }
    }
    findings
}

/// True where `path` starts a path: not behind a letter, digit, dot or another part of a path.
fn has_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || "._-}$/~*".contains(c))
    })
}

/// Targets of `[text](target)` and `[name]: target` on a line, without those in code.
fn link_targets(line: &str) -> Vec<String> {
    let mut prose = String::new();
    for (index, part) in line.split('`').enumerate() {
        if index % 2 == 0 {
            prose.push_str(part);
        }
    }
    let mut targets = Vec::new();
    let mut rest = prose.as_str();
    while let Some((_, after)) = rest.split_once("](") {
        let (target, behind) = after.split_once(')').unwrap_or((after, ""));
        targets.push(
            target
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned(),
        );
        rest = behind;
    }
    if prose.starts_with('[') {
        let reference = prose
            .split_once("]: ")
            .map(|(_, target)| target.trim().to_owned());
        targets.extend(reference);
    }
    targets
}

/// The path below the root that a link of `file` means; nothing for the web and for its own headings.
fn local_path(file: &str, target: &str) -> Option<String> {
    let path = target.split('#').next().unwrap_or_default();
    if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
        return None;
    }
    let mut parts: Vec<&str> = match path.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => file
            .split('/')
            .rev()
            .skip(1)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect(),
    };
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                // Above the root nothing exists, which is what the caller then finds.
                if parts.pop().is_none() {
                    parts.push("..");
                }
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn broken(file: &str, text: &str, expected: &[usize]) {
        let known = ["README.md", "docs/a.md", "docs"];
        let found = check_links(file, text, |path| known.contains(&path));
        let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, expected, "{text}");
    }

    #[test]
    fn links_lead_somewhere() {
        broken(
            "README.md",
            "[a](docs/a.md) [b](docs/a.md#part) [c](https://x.example) [d](#here)",
            &[],
        );
        broken("README.md", "fine\n[a](docs/b.md)", &[2]);
        broken(
            "docs/a.md",
            "[up](../README.md) [same](./a.md) [root](/README.md)",
            &[],
        );
        broken("docs/a.md", "[up](../../README.md)", &[1]);
        broken("README.md", "[name]: docs/none.md", &[1]);
        broken("README.md", "```\n[a](none.md)\n```\n`[a](none.md)`", &[]);
        broken("README.md", "[a](docs/a.md \"title\")", &[]);
    }

    #[test]
    fn the_changelog_has_a_part_for_what_comes_next() {
        assert!(check_changelog(Some("# Changes\n\n## Unreleased\n")).is_empty());
        assert!(check_changelog(Some("## [Unreleased]\n")).is_empty());
        assert_eq!(check_changelog(Some("## 1.0.0\n")).len(), 1);
        assert_eq!(check_changelog(None).len(), 1);
    }

    #[test]
    fn tests_that_are_named_exist() {
        let known = |name: &str| name == "a_test";
        let row = |test: &str| format!("| 1 | `x` is slow | it is cut | {test} | 1 s |\n");
        assert!(check_faults(Some(&row("`a_test`, others")), known).is_empty());
        let found = check_faults(Some(&(row("`a_test`") + &row("`a_test` `no_test`"))), known);
        assert_eq!(found.len(), 1);
        assert_eq!(found.first().map(|finding| finding.line), Some(2));
        assert_eq!(check_faults(None, known).len(), 1);
    }

    #[test]
    fn no_path_of_one_machine_is_told() {
        let [work, root, home, _] = MACHINE_PATHS;
        for line in [
            format!("cd {work}a"),
            format!("\"{root}x\""),
            format!("path={home}me"),
        ] {
            assert_eq!(
                check_machine_paths("a", &format!("fine\n{line}\n")).len(),
                1,
                "{line}"
            );
        }
        for line in [
            format!("a{work}b"),
            format!("https://x.example{home}"),
            format!(".{root}"),
        ] {
            assert!(check_machine_paths("a", &line).is_empty(), "{line}");
        }
    }
}
