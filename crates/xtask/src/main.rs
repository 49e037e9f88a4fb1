//! Generate, tidy, test and measure: the project's own chores (`cargo xtask --help`).

mod bench;
mod checkout;
mod fixtures;
mod fuzz;
mod generate;
mod mutate;
mod prices;
mod provider_file;
mod real_model;
mod report;
mod simulate;
mod soak;
mod test;
mod tidy;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{
    checkout::Checkout,
    report::{Failure, Report},
};

/// The project's own chores.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

/// One chore, each in a file of its own.
#[derive(Subcommand)]
enum Chore {
    /// Write the models and prices of the provider files from published price tables.
    Prices(prices::Arguments),
    /// Test everything, as CI does; installs what it needs.
    Test(test::Arguments),
    /// Test against a real model, which is built and served here; takes minutes the first time.
    RealModel,
    /// Take guards out of a copy of the code, one by one, and see their tests fail.
    Mutate(mutate::Arguments),
    /// Measure what the documentation promises.
    Bench(bench::Arguments),
    /// Kill, freeze and restart gateways under load for a long time, and have the books judged.
    Soak(soak::Arguments),
    /// Run the ledger over simulated time, faults and clocks; failing seeds are printed.
    Simulate(simulate::Arguments),
    /// Decode every recorded stream and answer in a folder, and compare each with a second reading.
    Fixtures(fixtures::Arguments),
    /// Run the fuzz targets, from the committed seeds on.
    Fuzz(fuzz::Arguments),
    /// Check the habits that no compiler checks.
    Tidy,
    /// Write the documents that are made from code and data.
    #[command(name = "gen")]
    Generate(generate::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = Checkout::find().and_then(|checkout| run(&checkout, arguments.chore));
    let (text, code) = match outcome {
        Ok(report) if report.all_well => (report.lines.join("\n"), ExitCode::SUCCESS),
        Ok(report) => (report.lines.join("\n"), ExitCode::FAILURE),
        Err(failure) => (format!("error: {failure}"), ExitCode::FAILURE),
    };
    // A closed pipe (`| head`) is no failure of the chore.
    let _ = writeln!(io::stdout(), "{text}");
    code
}

fn run(checkout: &Checkout, chore: Chore) -> Result<Report, Failure> {
    match chore {
        Chore::Prices(arguments) => prices::run(checkout, &arguments),
        Chore::Test(arguments) => test::run(checkout, &arguments),
        Chore::RealModel => real_model::run(checkout),
        Chore::Mutate(arguments) => mutate::run(checkout, &arguments),
        Chore::Bench(arguments) => bench::run(checkout, &arguments),
        Chore::Soak(arguments) => soak::run(checkout, &arguments),
        Chore::Simulate(arguments) => simulate::run(checkout, &arguments),
        Chore::Fixtures(arguments) => fixtures::run(checkout, &arguments),
        Chore::Fuzz(arguments) => fuzz::run(checkout, &arguments),
        Chore::Tidy => tidy::run(checkout),
        Chore::Generate(arguments) => generate::run(checkout, &arguments),
    }
}
