//! `cargo xtask mutate`: takes each guard out of a copy of the code and sees its tests fail.

mod list;
mod tree;

use std::{collections::BTreeMap, time::Duration};

pub(crate) use self::list::List;
use self::{list::Mutation, tree::Tree};
use crate::{
    checkout::Checkout,
    report::{Failure, Report},
    test::{Runner, Tools},
};

/// Building one package and its tests from nothing.
const BUILD_MAX: Duration = Duration::from_secs(30 * 60);
/// One run of the tests of one guard; a guard without which they hang is a guard as well.
const TESTS_MAX: Duration = Duration::from_secs(15 * 60);

/// What the chore is asked to do.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only those whose names contain one of these.
    names: Vec<String>,
    /// Only print them.
    #[arg(long)]
    list: bool,
}

/// What came of one mutation.
enum Fate {
    /// Its tests failed without the guard, as they should.
    Caught,
    /// Its tests pass without the guard.
    Survived,
    /// The tests fail with the guard in place, or there are none.
    NoBaseline,
    /// Without the guard the code does not compile, so nothing was shown.
    DoesNotCompile,
}

/// Runs the chore.
pub(crate) fn run(checkout: &Checkout, arguments: &Arguments) -> Result<Report, Failure> {
    let list = List::read(checkout)?;
    let chosen: Vec<&Mutation> = list
        .mutations
        .iter()
        .filter(|mutation| {
            let names = &arguments.names;
            names.is_empty() || names.iter().any(|name| mutation.name.contains(name))
        })
        .collect();
    let mut report = Report::new();
    if chosen.is_empty() {
        report.blame("no mutation has such a name");
        return Ok(report);
    }
    if arguments.list {
        for mutation in chosen {
            report.say(format!("{}: {}", mutation.name, mutation.guard));
        }
        return Ok(report);
    }
    let tools = Tools::new(checkout, "mutate")?;
    let cluster = tools.postgres()?;
    let mut bench = Bench {
        tree: Tree::copy(checkout)?,
        tools,
        postgres: cluster.url("postgres"),
        baselines: BTreeMap::new(),
    };
    let mut caught = 0;
    for (place, mutation) in chosen.iter().enumerate() {
        let (well, text) = match bench.try_one(mutation)? {
            Fate::Caught => (true, "caught"),
            Fate::Survived => (false, "SURVIVED: no test misses this guard"),
            Fate::NoBaseline => (false, "NOTHING SHOWN: its tests do not pass as the code is"),
            Fate::DoesNotCompile => (false, "NOTHING SHOWN: it does not compile"),
        };
        let line = format!(
            "{}/{} {}: {text} ({})",
            place + 1,
            chosen.len(),
            mutation.name,
            mutation.guard
        );
        crate::test::say(&line);
        if well {
            caught += 1;
        } else {
            report.blame(line);
        }
    }
    report.say(format!("{caught} of {} caught", chosen.len()));
    Ok(report)
}

/// Where mutations are tried.
struct Bench {
    tree: Tree,
    tools: Tools,
    postgres: String,
    /// Whether tests pass as the code is, by what they are called with: several guards share theirs.
    baselines: BTreeMap<Vec<String>, bool>,
}

impl Bench {
    fn try_one(&mut self, mutation: &Mutation) -> Result<Fate, Failure> {
        if !self.has_baseline(mutation)? {
            return Ok(Fate::NoBaseline);
        }
        let _mutated = self.tree.mutate(mutation)?;
        if !self.builds(mutation)? {
            return Ok(Fate::DoesNotCompile);
        }
        Ok(if self.passes(mutation)? {
            Fate::Survived
        } else {
            Fate::Caught
        })
    }

    /// Whether its tests are there and pass with the guard in place.
    fn has_baseline(&mut self, mutation: &Mutation) -> Result<bool, Failure> {
        if let Some(known) = self.baselines.get(&mutation.tests) {
            return Ok(*known);
        }
        let passes = self.builds(mutation)? && self.passes(mutation)?;
        self.baselines.insert(mutation.tests.clone(), passes);
        Ok(passes)
    }

    /// Whether its tests, which are built, pass with the code as it is now.
    fn passes(&self, mutation: &Mutation) -> Result<bool, Failure> {
        let mut arguments = vec!["nextest", "run", "--locked"];
        arguments.extend(mutation.tests.iter().map(String::as_str));
        self.cargo(&arguments, TESTS_MAX)
    }

    fn builds(&self, mutation: &Mutation) -> Result<bool, Failure> {
        let mut arguments = vec!["nextest", "run", "--locked", "--no-run"];
        arguments.extend(mutation.tests.iter().map(String::as_str));
        let tests = self.cargo(&arguments, BUILD_MAX)?;
        // Tests of the whole program start it as users do.
        let program = ["build", "--locked", "-p", "gateway", "--bin", "tollway"];
        Ok(tests && (!mutation.starts_the_program() || self.cargo(&program, BUILD_MAX)?))
    }

    fn cargo(&self, arguments: &[&str], limit: Duration) -> Result<bool, Failure> {
        let target = self.tree.target();
        let program = self
            .tools
            .cargo_program(arguments, Runner::ExitCode, limit)
            .within(self.tree.root())
            .env("CARGO_TARGET_DIR", crate::test::text(&target)?)
            .env(throwaway_postgres::SERVER_VARIABLE, &self.postgres)
            .quietly();
        let log = self.tree.log(arguments.join(" "));
        match program.run(&log) {
            Ok(tally) => Ok(tally.failed == 0),
            // It took too long and was ended.
            Err(Failure::Program { .. }) => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}
