//! `cargo xtask simulate`: the real ledger over simulated time, faults and clocks, for as many seeds as asked for.

use std::time::Duration;

use crate::{
    checkout::Checkout,
    report::{Failure, Report},
    test::{Runner, Tools},
};

const BUILD_MAX: Duration = Duration::from_secs(30 * 60);
/// Several times what a seed takes on a slow machine, of which four run at once.
const SEED_MAX: Duration = Duration::from_secs(4);

/// How cargo runs the simulation.
const SIMULATION: [&str; 6] = ["test", "--locked", "-p", "store", "--test", "simulation"];

/// What the chore is asked to do.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u32,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u32,
    /// Optimise the program: it takes minutes longer to build, and a seed a fraction of the time.
    #[arg(long)]
    release: bool,
}

/// Builds the simulation and runs the seeds; those that fail are printed, and the chore fails.
pub(crate) fn run(checkout: &Checkout, arguments: &Arguments) -> Result<Report, Failure> {
    let tools = Tools::new(checkout, "simulate")?;
    let mut report = Report::new();
    let mut simulation = SIMULATION.to_vec();
    if arguments.release {
        simulation.push("--release");
    }
    let build = [&simulation[..], &["--no-run"]].concat();
    if tools.cargo(&build, Runner::ExitCode, BUILD_MAX)?.failed > 0 {
        report.blame("the simulation could not be built");
        return Ok(report);
    }
    let to = arguments.from.saturating_add(arguments.seeds);
    let seeds = format!("{}..{to}", arguments.from);
    let every = ["every_seed_keeps_the_books", "--", "--nocapture"];
    let command = [&simulation[..], &every].concat();
    let time = Duration::from_secs(60) + SEED_MAX.saturating_mul(arguments.seeds);
    let program = tools
        .cargo_program(&command, Runner::ExitCode, time)
        .env("TOLLWAY_SIM_SEEDS", &seeds);
    let tally = tools.run(program)?;
    if tally.failed == 0 {
        report.say(format!("seeds {seeds}: the books are kept"));
    } else {
        report.blame(format!(
            "seeds {seeds}: some fail; each is named above and replays with \
             TOLLWAY_SIM_SEED=N cargo test -p store --test simulation -- --nocapture"
        ));
    }
    Ok(report)
}
