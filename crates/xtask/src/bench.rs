//! `cargo xtask bench`: figures that the documentation promises, measured where you are.

mod instructions;
mod rig;

use std::{env, path::PathBuf, time::Duration};

use crate::{
    checkout::Checkout,
    report::{Failure, Report},
    test::{Runner, Tools, text},
};

/// Filling two databases with ten million rows, and the runs; a slow machine gets more.
const FULL_MAX: Duration = Duration::from_secs(3 * 3600);

/// Building the tokenizers, and some seconds.
const COUNTING_MAX: Duration = Duration::from_secs(20 * 60);

/// What is measured.
///
/// Without a subcommand: this gateway beside others under one load, CPU and latency.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    rig: rig::Rig,
}

#[derive(clap::Subcommand)]
enum What {
    /// Holds and settlements a second, beside one conditional statement for each.
    ///
    /// Builds an optimised program and takes about half an hour and 10 GB of disk; let nothing
    /// else run meanwhile. `-- --brief` takes about eight minutes and measures stored charges on
    /// Postgres and one account only.
    Ledger(Ledger),
    /// How long a mebibyte of each kind of text takes in each encoding.
    ///
    /// A busy machine does not matter: it is CPU time.
    Counting(Counting),
    /// Instructions that the gateway's own work for a request takes, beside the figures that are kept.
    Instructions {
        /// Keep the new figures.
        #[arg(long)]
        write: bool,
    },
}

#[derive(clap::Args)]
struct Counting {
    /// As tests are built: the tokenizers are optimised, what is around them is not.
    #[arg(long)]
    quick: bool,
}

#[derive(clap::Args)]
struct Ledger {
    /// A few seconds and not optimised, to see that the bench works: its figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Write the figures as JSON into this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// More for the bench itself: `-- --help` lists it.
    #[arg(last = true)]
    more: Vec<String>,
}

/// Builds and runs a bench, which prints its figures.
pub(crate) fn run(checkout: &Checkout, arguments: &Arguments) -> Result<Report, Failure> {
    match &arguments.what {
        None => rig::run(checkout, &arguments.rig),
        Some(What::Instructions { write }) => instructions::run(checkout, *write),
        Some(What::Ledger(ledger)) => run_ledger(checkout, ledger),
        Some(What::Counting(counting)) => run_counting(checkout, counting),
    }
}

fn run_counting(checkout: &Checkout, counting: &Counting) -> Result<Report, Failure> {
    let mut cargo = vec!["test", "--locked", "--package", "tokens", "--test", "time"];
    if !counting.quick {
        cargo.push("--release");
    }
    cargo.extend(["a_mebibyte", "--", "--nocapture"]);
    let tools = Tools::new(checkout, "bench")?;
    let tally = tools.cargo(&cargo, Runner::ExitCode, COUNTING_MAX)?;
    let mut report = Report::new();
    if tally.failed > 0 {
        report.blame("the bench failed, or some text takes more than linear time");
    }
    Ok(report)
}

fn run_ledger(checkout: &Checkout, ledger: &Ledger) -> Result<Report, Failure> {
    let mut cargo = vec!["run", "--locked", "--package", "bench-ledger"];
    if !ledger.quick {
        cargo.push("--release");
    }
    cargo.push("--");
    if ledger.quick {
        cargo.push("--quick");
    }
    // It runs in the checkout's root, wherever this was called from.
    let here = env::current_dir().map_err(Failure::file("."))?;
    let json = ledger.json.as_ref().map(|path| here.join(path));
    if let Some(path) = &json {
        cargo.extend(["--json", text(path)?]);
    }
    cargo.extend(ledger.more.iter().map(String::as_str));
    let tools = Tools::new(checkout, "bench")?;
    let tally = tools.cargo(&cargo, Runner::ExitCode, FULL_MAX)?;
    let mut report = Report::new();
    if tally.failed > 0 {
        report.blame("the bench failed, or a figure that is promised was missed");
    }
    Ok(report)
}
