//! How many cases passed and failed, read from what the test runners print.

/// Names of failed cases that are kept.
const NAMES_MAX: usize = 50;

/// Passed and failed cases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Cases that passed.
    pub(crate) passed: usize,
    /// Cases that failed, timed out or could not begin.
    pub(crate) failed: usize,
    /// The names of those that failed, as their runner prints them; at most 50.
    pub(crate) failures: Vec<String>,
}

/// How a program says how its cases went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runner {
    /// By its exit code alone: one case.
    ExitCode,
    /// `cargo nextest run`.
    Nextest,
    /// `cargo test`.
    CargoTest,
    /// `pytest`.
    Pytest,
    /// `node --test`, with the reporter `spec`.
    Node,
    /// A last line `N passed, M failed`.
    LastLine,
}

impl Tally {
    /// One case that failed.
    pub(crate) fn one_failed() -> Self {
        Self {
            failed: 1,
            ..Self::default()
        }
    }

    /// Takes in one line of what a runner prints.
    pub(crate) fn read(&mut self, runner: Runner, line: &str) {
        let line = line.trim();
        if let Some(name) = runner.failure(line)
            && self.failures.len() < NAMES_MAX
            && !self.failures.iter().any(|known| known == name)
        {
            self.failures.push(name.to_owned());
        }
        match runner {
            Runner::ExitCode => {}
            Runner::Nextest if line.starts_with("Summary [") => self.set(line),
            Runner::CargoTest if line.starts_with("test result:") => self.add(line),
            Runner::Pytest if is_pytest_summary(line) => self.set(line),
            Runner::Node => self.read_node(line),
            Runner::LastLine if counts(line).0 + counts(line).1 > 0 => self.set(line),
            Runner::Nextest | Runner::CargoTest | Runner::Pytest | Runner::LastLine => {}
        }
    }

    /// The result, now that the program has ended. A program that fails without a failed case, or
    /// succeeds without any case, did not do its work.
    pub(crate) fn ended(mut self, runner: Runner, success: bool) -> Self {
        if !success {
            self.failed = self.failed.max(1);
        } else if runner == Runner::ExitCode {
            self.passed = 1;
        } else if self.passed == 0 && self.failed == 0 {
            self.failed = 1;
            self.failures.push("no case ran".to_owned());
        }
        self
    }

    fn set(&mut self, line: &str) {
        (self.passed, self.failed) = counts(line);
    }

    fn add(&mut self, line: &str) {
        let (passed, failed) = counts(line);
        self.passed += passed;
        self.failed += failed;
    }

    fn read_node(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        // A sign, a word, a number, and nothing else: a case's name does not look so.
        if let (Some("ℹ"), Some(word), Some(number), None) =
            (words.next(), words.next(), words.next(), words.next())
            && let Ok(number) = number.parse::<usize>()
        {
            match word {
                "pass" => self.passed += number,
                "fail" | "cancelled" => self.failed += number,
                _ => {}
            }
        }
    }
}

impl Runner {
    /// The name of the failed case that a line is about.
    fn failure(self, line: &str) -> Option<&str> {
        let name = match self {
            Self::ExitCode => None,
            Self::Nextest => ["FAIL [", "TIMEOUT [", "SIGABRT [", "SIGSEGV [", "SIGKILL ["]
                .iter()
                .find_map(|mark| line.strip_prefix(mark))
                .and_then(|rest| rest.split_once(']'))
                .map(|(_, name)| name),
            Self::CargoTest => line
                .strip_prefix("test ")
                .and_then(|rest| rest.strip_suffix("FAILED"))
                .map(|name| name.trim_end().trim_end_matches("...")),
            Self::Pytest => ["FAILED ", "ERROR "]
                .iter()
                .find_map(|mark| line.strip_prefix(mark)),
            Self::Node => line
                .strip_prefix("✖ ")
                .filter(|name| *name != "failing tests:"),
            Self::LastLine => line.strip_prefix("FAIL "),
        };
        name.map(str::trim).filter(|name| !name.is_empty())
    }
}

fn is_pytest_summary(line: &str) -> bool {
    let line = line.trim_matches(|c| c == '=' || c == ' ');
    line.starts_with(|c: char| c.is_ascii_digit())
        && line.contains(" in ")
        && ["passed", "failed", "error", "skipped"]
            .iter()
            .any(|word| line.contains(word))
}

/// The numbers before "passed", and before the words for cases that did not.
fn counts(line: &str) -> (usize, usize) {
    let mut passed = 0;
    let mut failed = 0;
    let mut number = None;
    for word in line.split(|c: char| !c.is_ascii_alphanumeric()) {
        match (word, number.take()) {
            ("passed", Some(count)) => passed += count,
            ("failed" | "error" | "errors" | "timed" | "exec", Some(count)) => failed += count,
            (word, _) => number = word.parse::<usize>().ok(),
        }
    }
    (passed, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(runner: Runner, text: &str, success: bool, expected: (usize, usize, &[&str])) {
        let mut tally = Tally::default();
        for line in text.lines() {
            tally.read(runner, line);
        }
        let tally = tally.ended(runner, success);
        let found: Vec<&str> = tally.failures.iter().map(String::as_str).collect();
        assert_eq!((tally.passed, tally.failed, &*found), expected, "{text}");
    }

    #[test]
    fn nextest() {
        let text = "  FAIL [   0.01s] (3/9) store hold::tests::a\n TIMEOUT [ 60.0s] tests x\n\
                    ------------\n     Summary [   9.5s] 9 tests run: 6 passed (1 slow, 2 leaky), 2 failed, 1 timed out, 3 skipped\n\
                    FAIL [   0.01s] (3/9) store hold::tests::a\n";
        let names = ["(3/9) store hold::tests::a", "tests x"];
        check(Runner::Nextest, text, false, (6, 3, &names));
        let text = "     Summary [   9.5s] 9 tests run: 9 passed, 3 skipped";
        check(Runner::Nextest, text, true, (9, 0, &[]));
    }

    #[test]
    fn cargo_test_adds_its_binaries() {
        let text = "test a::b ... ok\ntest a::c ... FAILED\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; finished in 0.1s\n\
                    test result: ok. 5 passed; 0 failed; 0 ignored";
        check(Runner::CargoTest, text, false, (6, 1, &["a::c"]));
    }

    #[test]
    fn pytest() {
        let text = "......F\nFAILED tests/a.py::test_b - assert 3 failed\n1 failed, 33 passed, 1 error in 5.10s";
        let names = ["tests/a.py::test_b - assert 3 failed"];
        check(Runner::Pytest, text, false, (33, 2, &names));
        check(
            Runner::Pytest,
            "===== 34 passed in 5.1s =====",
            true,
            (34, 0, &[]),
        );
    }

    #[test]
    fn node() {
        let text = "✔ chat (4ms)\n✖ tools (1ms)\nℹ tests 3\nℹ pass 1\nℹ fail 1\nℹ cancelled 1\nℹ skipped 0\n\
                    ✖ failing tests:\n✖ tools (1ms)";
        check(Runner::Node, text, false, (1, 2, &["tools (1ms)"]));
    }

    #[test]
    fn the_last_line_of_a_script() {
        let text = "ok   a\nFAIL b\n     3 failed to parse\n7 passed, 1 failed";
        check(Runner::LastLine, text, false, (7, 1, &["b"]));
    }

    #[test]
    fn silence_is_no_success() {
        for runner in [
            Runner::Nextest,
            Runner::CargoTest,
            Runner::Pytest,
            Runner::Node,
            Runner::LastLine,
        ] {
            check(runner, "", true, (0, 1, &["no case ran"]));
            check(runner, "", false, (0, 1, &[]));
        }
        check(
            Runner::Pytest,
            "no tests ran in 0.01s",
            true,
            (0, 1, &["no case ran"]),
        );
        check(Runner::ExitCode, "", true, (1, 0, &[]));
        check(Runner::ExitCode, "", false, (0, 1, &[]));
    }

    #[test]
    fn a_program_that_fails_after_its_cases_passed_has_failed() {
        check(Runner::Pytest, "34 passed in 5.1s", false, (34, 1, &[]));
    }
}
