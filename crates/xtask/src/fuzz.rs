//! `cargo xtask fuzz`: every fuzz target for as long as asked for, from the committed seeds and what earlier runs have found.

use std::{fs, process::Command, time::Duration};

use crate::{
    checkout::Checkout,
    report::{Failure, Report},
    test::{Program, Runner, Tools, text},
};

const BUILD_MAX: Duration = Duration::from_secs(40 * 60);
/// What loading the seeds and ending may take on a slow machine.
const AROUND_MAX: Duration = Duration::from_secs(300);
/// What tells libFuzzer which code an input reaches. Stable compilers have it; cargo-fuzz asks for the
/// same and adds the address sanitizer, which says little of code that has no `unsafe`.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";

/// What the chore is asked to do.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only targets whose names begin like this.
    #[arg(long, default_value = "")]
    only: String,
}

/// Builds the targets and runs one after the other; an input that brings one down is kept, and the
/// chore fails.
pub(crate) fn run(checkout: &Checkout, arguments: &Arguments) -> Result<Report, Failure> {
    let tools = Tools::new(checkout, "fuzz")?;
    let mut report = Report::new();
    let host = host()?;
    let target = checkout.path("target/fuzz");
    let manifest = checkout.path("fuzz/Cargo.toml");
    let build = [
        "build",
        "--release",
        "--locked",
        "--bins",
        // With a target the flags are not those of build scripts.
        "--target",
        &host,
        "--manifest-path",
        text(&manifest)?,
        "--target-dir",
        text(&target)?,
    ];
    let program = tools.cargo_program(&build, Runner::ExitCode, BUILD_MAX);
    if tools.run(program.env("RUSTFLAGS", COVERAGE))?.failed > 0 {
        report.blame("the fuzz targets do not build");
        return Ok(report);
    }
    for name in names(checkout)? {
        if name.starts_with(&arguments.only) {
            one(
                checkout,
                &tools,
                &name,
                &host,
                arguments.seconds,
                &mut report,
            )?;
        }
    }
    Ok(report)
}

fn one(
    checkout: &Checkout,
    tools: &Tools,
    name: &str,
    host: &str,
    seconds: u32,
    report: &mut Report,
) -> Result<(), Failure> {
    let program = checkout.path(format!("target/fuzz/{host}/release/{name}"));
    let corpus = checkout.path(format!("fuzz/corpus/{name}"));
    let artifacts = checkout.path(format!("fuzz/artifacts/{name}"));
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).map_err(Failure::file(folder))?;
    }
    let time = format!("-max_total_time={seconds}");
    let found = format!("-artifact_prefix={}/", text(&artifacts)?);
    let words = checkout.path("fuzz/words.dict");
    let words = format!("-dict={}", text(&words)?);
    let seeds = checkout.path(format!("fuzz/seeds/{name}"));
    let command = [
        time.as_str(),
        &found,
        &words,
        "-max_len=8192",
        "-timeout=20",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        "-verbosity=0",
        // New inputs go into the first folder.
        text(&corpus)?,
        text(&seeds)?,
    ];
    let limit = AROUND_MAX + Duration::from_secs(u64::from(seconds));
    let program = Program::new(program, &command, Runner::ExitCode, limit);
    if tools.run(program)?.failed > 0 {
        report.blame(format!(
            "{name}: an input brings it down, see fuzz/artifacts/{name}. Mend it, and keep the input as a seed"
        ));
    } else {
        report.say(format!("{name}: nothing found in {seconds} s"));
    }
    Ok(())
}

/// The targets by their programs' files.
fn names(checkout: &Checkout) -> Result<Vec<String>, Failure> {
    let folder = checkout.path("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(Failure::file(&folder))? {
        let entry = entry.map_err(Failure::file(&folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".rs").map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// What the compiler calls this kind of machine.
fn host() -> Result<String, Failure> {
    let failed = |what: String| Failure::Program {
        program: "rustc -vV".into(),
        what,
    };
    let output = Command::new("rustc").arg("-vV").output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    let told = String::from_utf8_lossy(&output.stdout);
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| failed("does not say its host".into()))
}
