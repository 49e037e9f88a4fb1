//! `cargo xtask fixtures`: every recorded stream and answer in a folder, decoded and compared with a second reading.

use std::{path::PathBuf, time::Duration};

use crate::{
    checkout::Checkout,
    report::{Failure, Report},
    test::{Runner, Tools},
};

const TIME_MAX: Duration = Duration::from_secs(30 * 60);

/// What the chore is asked to do.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The folder: `*.json` are answers, `*.chunks.txt` streams with an event on each line.
    #[arg(long)]
    from: PathBuf,
}

/// Runs the test that prints a row for every file; one that is decoded wrongly fails the chore.
pub(crate) fn run(checkout: &Checkout, arguments: &Arguments) -> Result<Report, Failure> {
    let folder = std::fs::canonicalize(&arguments.from).map_err(Failure::file(&arguments.from))?;
    let tools = Tools::new(checkout, "fixtures")?;
    let command = [
        "test",
        "--locked",
        "-p",
        "dialect",
        "--test",
        "dialect",
        "every_recording",
        "--",
        "--nocapture",
    ];
    let program = tools
        .cargo_program(&command, Runner::ExitCode, TIME_MAX)
        .env("TOLLWAY_FIXTURES", crate::test::text(&folder)?);
    let tally = tools.run(program)?;
    let mut report = Report::new();
    if tally.failed > 0 {
        report.blame("some recordings are decoded wrongly, or the test did not build");
    }
    Ok(report)
}
