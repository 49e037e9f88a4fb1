//! `cargo xtask test`: everything that has to hold, cheap first, on a machine that has only a Rust toolchain.

mod install;
mod program;
mod step;
mod tally;

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use throwaway_postgres::Cluster;

use self::step::Step;
pub(crate) use self::{
    install::Tools,
    program::Program,
    step::text,
    tally::{Runner, Tally},
};
use crate::{
    checkout::Checkout,
    report::{Failure, Report},
};

/// What the chore is asked to do.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A step, or the beginning of the names of several (`sdk`), with what it needs; may be there several times.
    #[arg(long, value_name = "STEP", value_parser = Step::names_beginning_with)]
    only: Vec<&'static str>,
    /// Leave out the SDKs and other people's tests, which take downloads.
    #[arg(long)]
    fast: bool,
}

/// What the steps share while they run.
struct Session<'a> {
    checkout: &'a Checkout,
    /// Started for the first step that needs it, one for all.
    postgres: Option<Cluster>,
}

/// How a step went.
struct Outcome {
    step: Step,
    tally: Tally,
    took: Duration,
    /// Why it did not come to its end.
    trouble: Option<String>,
}

impl Outcome {
    fn failed(&self) -> bool {
        self.trouble.is_some() || self.tally.failed > 0
    }
}

/// Runs the steps, prints what they print, and sums up in one line.
pub(crate) fn run(checkout: &Checkout, arguments: &Arguments) -> Result<Report, Failure> {
    let plan = Step::plan(&arguments.only, arguments.fast);
    let mut session = Session {
        checkout,
        postgres: None,
    };
    let begun = Instant::now();
    let mut outcomes: Vec<Outcome> = Vec::new();
    for (place, step) in plan.iter().enumerate() {
        say(&format!(
            "\n=== {}/{} {}: {}",
            place + 1,
            plan.len(),
            step.name(),
            step.headline()
        ));
        let outcome = one(&mut session, *step, &outcomes);
        say(&headline_of(&outcome));
        outcomes.push(outcome);
    }
    // The cluster goes before the summary, so that the last line is the last.
    drop(session);
    Ok(summary(&outcomes, begun.elapsed()))
}

fn one(session: &mut Session<'_>, step: Step, before: &[Outcome]) -> Outcome {
    let begun = Instant::now();
    let missing = before
        .iter()
        .find(|outcome| outcome.failed() && step.needs().contains(&outcome.step));
    let (tally, trouble) = match missing {
        Some(outcome) => {
            let why = format!("not run, because {} failed", outcome.step.name());
            (Tally::default(), Some(why))
        }
        None => match step.run(session) {
            Ok(tally) => (tally, None),
            Err(failure) => (Tally::default(), Some(failure.to_string())),
        },
    };
    Outcome {
        step,
        tally: if trouble.is_some() {
            Tally::one_failed()
        } else {
            tally
        },
        took: begun.elapsed(),
        trouble,
    }
}

fn headline_of(outcome: &Outcome) -> String {
    let state = if outcome.failed() { "FAILED" } else { "ok" };
    let trouble = outcome
        .trouble
        .as_ref()
        .map(|trouble| format!(": {trouble}"))
        .unwrap_or_default();
    format!(
        "--- {} {state}, {} passed, {} failed, {:.1} s{trouble}",
        outcome.step.name(),
        outcome.tally.passed,
        outcome.tally.failed,
        outcome.took.as_secs_f64()
    )
}

fn summary(outcomes: &[Outcome], took: Duration) -> Report {
    let mut report = Report::new();
    report.say("\n=== summary");
    let mut total = Tally::default();
    for outcome in outcomes {
        total.passed += outcome.tally.passed;
        total.failed += outcome.tally.failed;
        report.say(headline_of(outcome));
        for name in &outcome.tally.failures {
            report.blame(format!("      {name}"));
        }
    }
    let seconds = took.as_secs();
    report.say(format!("{} min {:02} s", seconds / 60, seconds % 60));
    let line = format!("{} passed, {} failed", total.passed, total.failed);
    if outcomes.iter().any(Outcome::failed) || outcomes.is_empty() {
        report.blame(line);
    } else {
        report.say(line);
    }
    report
}

/// Prints now: a person or a log is waiting.
pub(crate) fn say(line: &str) {
    let mut out = io::stdout().lock();
    // A closed pipe (`| head`) is no failure of the chore.
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(step: Step, passed: usize, failed: usize, trouble: Option<&str>) -> Outcome {
        Outcome {
            step,
            tally: Tally {
                passed,
                failed,
                failures: Vec::new(),
            },
            took: Duration::ZERO,
            trouble: trouble.map(str::to_owned),
        }
    }

    #[test]
    fn the_last_line_sums_every_step() {
        let report = summary(
            &[
                outcome(Step::Fmt, 1, 0, None),
                outcome(Step::Rust, 40, 0, None),
            ],
            Duration::from_secs(61),
        );
        assert!(report.all_well);
        assert_eq!(report.lines.last().unwrap(), "41 passed, 0 failed");
        assert!(report.lines.iter().any(|line| line == "1 min 01 s"));
    }

    #[test]
    fn one_failure_anywhere_fails_the_whole() {
        for bad in [
            outcome(Step::Rust, 40, 1, None),
            outcome(Step::Rust, 40, 0, Some("took longer than 5 s")),
        ] {
            let report = summary(&[outcome(Step::Fmt, 1, 0, None), bad], Duration::ZERO);
            assert!(!report.all_well);
        }
        assert!(!summary(&[], Duration::ZERO).all_well);
    }
}
