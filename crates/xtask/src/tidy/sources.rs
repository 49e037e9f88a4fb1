//! Habits of Rust files: how they open, how long they are, what they are called, what tests avoid.

use super::{Finding, rust_text::RustText};

/// Lines that a file may have before its tests.
const FILE_LINES_MAX: usize = 600;
/// Lines that a function may have.
const FUNCTION_LINES_MAX: usize = 70;
/// Names that say nothing of a module's job.
const EMPTY_NAMES: [&str; 12] = [
    "common",
    "helper",
    "helpers",
    "manager",
    "managers",
    "misc",
    "service",
    "services",
    "types",
    "util",
    "utilities",
    "utils",
];
/// Words of work left over, in comments.
const LEFT_OVER: [&str; 3] = ["TODO", "FIXME", "XXX"];
/// Waiting for time to pass where a test should wait for what happens.
const SLEEPS: [&str; 2] = ["thread::sleep", "time::sleep"];
/// A comment with this on the same line or the one above lets a sleep stand; a reason follows it.
const SLEEP_ALLOWED: &str = "tidy: sleeps ";

/// Checks one Rust file.
pub(super) fn check(file: &str, text: &str) -> Vec<Finding> {
    let all_tests =
        file.starts_with("tests/") || file.contains("/tests/") || file.ends_with("/tests.rs");
    let split = RustText::new(text, all_tests);
    let mut findings = Vec::new();
    let mut find = |line: usize, what: String, mend: &'static str| {
        findings.push(Finding::new(file, line + 1, what, mend));
    };
    if !text.starts_with("//!") {
        find(
            0,
            "the file does not open with `//!`".to_owned(),
            "say in one sentence what the file is for",
        );
    }
    let lines = if all_tests { 0 } else { split.tests_from };
    if lines > FILE_LINES_MAX {
        let what = format!("{lines} lines before the tests, {FILE_LINES_MAX} at most");
        find(
            FILE_LINES_MAX,
            what,
            "move one of its jobs into a file of its own",
        );
    }
    for function in split.functions() {
        if function.length > FUNCTION_LINES_MAX {
            let what = format!(
                "`{}` has {} lines, {FUNCTION_LINES_MAX} at most",
                function.name, function.length
            );
            find(function.line, what, "give its steps names");
        }
    }
    if let Some(name) = empty_name(file) {
        find(
            0,
            format!("a module called `{name}`"),
            "name it after its job",
        );
    }
    for (index, code) in split.code.iter().enumerate() {
        for (what, mend) in line_findings(&split, index, code) {
            find(index, what, mend);
        }
    }
    findings
}

fn line_findings(split: &RustText, index: usize, code: &str) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    let comment = split
        .comments
        .get(index)
        .map(String::as_str)
        .unwrap_or_default();
    for word in LEFT_OVER {
        if has_word(comment, word) {
            found.push((format!("{word} in a comment"), "do it, or open an issue"));
        }
    }
    if code.contains("dbg!(") {
        found.push(("`dbg!`".to_owned(), "remove it"));
    }
    if code.contains("#[ignore") {
        found.push(("an ignored test".to_owned(), "make it pass or delete it"));
    }
    if let Some(name) = code
        .trim_start()
        .trim_start_matches("pub ")
        .trim_start_matches("pub(crate) ")
        .strip_prefix("mod ")
    {
        let name = name.trim_end_matches([' ', ';', '{']);
        if EMPTY_NAMES.contains(&name) {
            found.push((format!("a module called `{name}`"), "name it after its job"));
        }
    }
    let sleeps =
        SLEEPS.iter().any(|call| code.contains(call)) && !code.trim_start().starts_with("use ");
    if index >= split.tests_from && sleeps && !sleep_is_allowed(split, index) {
        let mend = "wait for the event itself, or say above it `// tidy: sleeps because …`";
        found.push(("a test that sleeps".to_owned(), mend));
    }
    found
}

fn sleep_is_allowed(split: &RustText, index: usize) -> bool {
    let before = index
        .checked_sub(1)
        .and_then(|above| split.comments.get(above));
    let beside = split.comments.get(index);
    [before, beside]
        .into_iter()
        .flatten()
        .any(|comment| comment.contains(SLEEP_ALLOWED))
}

fn empty_name(file: &str) -> Option<&str> {
    let (_, inside) = file.split_once("src/")?;
    inside
        .trim_end_matches(".rs")
        .split('/')
        .find(|part| EMPTY_NAMES.contains(part))
}

fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let after = text
            .get(at + word.len()..)
            .and_then(|after| after.chars().next());
        ![before, after]
            .into_iter()
            .flatten()
            .any(char::is_alphanumeric)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn expect(file: &str, text: &str, expected: &[(usize, &str)]) {
        let found = check(file, text);
        let shown: Vec<(usize, &str)> = found
            .iter()
            .map(|finding| (finding.line, finding.what.as_str()))
            .collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_file_says_what_it_is_for() {
        expect("src/a.rs", "//! Fine.\nfn a() {}\n", &[]);
        expect(
            "src/a.rs",
            "fn a() {}\n",
            &[(1, "the file does not open with `//!`")],
        );
    }

    #[test]
    fn files_are_short_without_their_tests() {
        let long = format!("//! Long.\n{}", "use a;\n".repeat(600));
        expect(
            "src/a.rs",
            &long,
            &[(601, "601 lines before the tests, 600 at most")],
        );
        let tested = format!(
            "//! Long.\n#[cfg(test)]\nmod tests {{\n{}}}\n",
            "use a;\n".repeat(600)
        );
        expect("src/a.rs", &tested, &[]);
        expect("tests/src/a.rs", &long, &[]);
    }

    #[test]
    fn functions_are_short() {
        let body = |lines: usize| format!("//! A.\nfn a() {{\n{}}}\n", "    b();\n".repeat(lines));
        expect("src/a.rs", &body(68), &[]);
        expect(
            "src/a.rs",
            &body(69),
            &[(2, "`a` has 71 lines, 70 at most")],
        );
    }

    #[test]
    fn modules_are_named_after_their_job() {
        expect(
            "crates/a/src/utils.rs",
            "//! A.\n",
            &[(1, "a module called `utils`")],
        );
        expect(
            "crates/a/src/common/b.rs",
            "//! A.\n",
            &[(1, "a module called `common`")],
        );
        expect(
            "crates/a/src/b.rs",
            "//! A.\npub mod types {\n}\n",
            &[(2, "a module called `types`")],
        );
        expect("crates/a/src/b.rs", "//! A.\nmod prototypes;\n", &[]);
    }

    #[test]
    fn nothing_is_left_over() {
        expect(
            "src/a.rs",
            "//! A.\n// TODO: later\n",
            &[(2, "TODO in a comment")],
        );
        expect(
            "src/a.rs",
            "//! A.\nfn a() {} // FIXME\n",
            &[(2, "FIXME in a comment")],
        );
        expect("src/a.rs", "//! A.\nlet a = dbg!(b);\n", &[(2, "`dbg!`")]);
        expect(
            "src/a.rs",
            "//! A.\nlet a = \"TODO dbg!(\"; // TODOS\n",
            &[],
        );
    }

    #[test]
    fn no_test_is_ignored() {
        expect(
            "src/a.rs",
            "//! A.\n#[ignore = \"slow\"]\nfn a() {}\n",
            &[(2, "an ignored test")],
        );
    }

    #[test]
    fn no_test_sleeps_to_wait() {
        let tested = |line: &str| format!("//! A.\n#[cfg(test)]\nmod tests {{\n{line}\n}}\n");
        expect(
            "src/a.rs",
            &tested("thread::sleep(a);"),
            &[(4, "a test that sleeps")],
        );
        expect(
            "src/a.rs",
            &tested("tokio::time::sleep(a).await;"),
            &[(4, "a test that sleeps")],
        );
        expect("src/a.rs", &tested("use std::thread::sleep;"), &[]);
        expect(
            "src/a.rs",
            &tested("// tidy: sleeps because it polls\nthread::sleep(a);"),
            &[],
        );
        expect("src/a.rs", "//! A.\nthread::sleep(a);\n", &[]);
        expect(
            "tests/src/a.rs",
            "//! A.\nthread::sleep(a);\n",
            &[(2, "a test that sleeps")],
        );
    }
}
