//! `cargo xtask soak`: the long forms of the tests in which gateways are killed, frozen and restarted under load.

use std::time::Duration;

use throwaway_postgres::SERVER_VARIABLE;

use crate::{
    checkout::Checkout,
    report::{Failure, Report},
    test::{Runner, Tools},
};

const BUILD_MAX: Duration = Duration::from_secs(30 * 60);
/// For each kill, its restart and what the machine needs besides.
const KILL_MAX: Duration = Duration::from_secs(30);
/// Starting, ending and judging.
const AROUND_MAX: Duration = Duration::from_secs(15 * 60);

/// How long it goes on.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Of mixed faults; 0 leaves them out.
    #[arg(long, default_value_t = 30)]
    minutes: u32,
    /// Of processes, for each of the two databases; 0 leaves them out.
    #[arg(long, default_value_t = 100)]
    kills: u32,
    /// Instead of the tests' own.
    #[arg(long)]
    seed: Option<u64>,
}

/// Builds what is killed, and runs the tests one after the other.
pub(crate) fn run(checkout: &Checkout, arguments: &Arguments) -> Result<Report, Failure> {
    let tools = Tools::new(checkout, "soak")?;
    let mut report = Report::new();
    let build = [
        "build", "--locked", "-p", "gateway", "-p", "auditor", "--bins",
    ];
    if tools.cargo(&build, Runner::ExitCode, BUILD_MAX)?.failed > 0 {
        report.blame("the gateway could not be built");
        return Ok(report);
    }
    let postgres = tools.postgres()?;
    let mut tests = vec!["test", "--locked", "-p", "tests", "--test", "http", "--"];
    if arguments.kills > 0 {
        tests.push("kills::");
    }
    if arguments.minutes > 0 {
        tests.push("replicas::soak::");
    }
    tests.extend(["--test-threads=1", "--nocapture"]);
    let seconds = u64::from(arguments.minutes) * 60;
    let limit = Duration::from_secs(seconds) + KILL_MAX * arguments.kills * 2 + AROUND_MAX;
    let mut program = tools
        .cargo_program(&tests, Runner::CargoTest, limit)
        .env(SERVER_VARIABLE, &postgres.url("postgres"))
        .env("TOLLWAY_SOAK_SECONDS", &seconds.to_string())
        .env("TOLLWAY_KILLS", &arguments.kills.to_string());
    if let Some(seed) = arguments.seed {
        program = program.env("TOLLWAY_SEED", &seed.to_string());
    }
    let tally = tools.run(program)?;
    report.count(&tally);
    Ok(report)
}
