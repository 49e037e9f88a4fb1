//! Counts the instructions of a fixed piece of work per request, and compares them with the figures that are kept.

use std::{
    collections::BTreeMap,
    process::{Command, Output},
    time::Duration,
};

use crate::{
    checkout::Checkout,
    report::{Failure, Report},
    test::{Runner, Tools, text},
};

/// The figures that are kept: instructions per request, by what the request is.
const KEPT: &str = "crates/bench-path/instructions.toml";
/// How far from them a figure may be, in percent, before somebody has to look.
const BAND_PERCENT: u64 = 5;
/// What is counted, with how many requests tell one from the program around it.
const COUNTED: [(&str, u64); 2] = [("plain", 200), ("streamed", 50)];
/// Building an optimised program.
const BUILD_MAX: Duration = Duration::from_secs(30 * 60);

/// The figures that are kept, and what they were counted with.
#[derive(Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// The compiler and its machine, as [`compiler`] says it: another one makes another program.
    compiler: String,
    /// Instructions per request, by what the request is.
    instructions: BTreeMap<String, u64>,
}

/// Counts, and compares or writes.
pub(super) fn run(checkout: &Checkout, write: bool) -> Result<Report, Failure> {
    let tools = Tools::new(checkout, "bench-instructions")?;
    tools.package_of("valgrind", "valgrind")?;
    let build = ["build", "--locked", "--release", "--package", "bench-path"];
    let mut report = Report::new();
    if tools.cargo(&build, Runner::ExitCode, BUILD_MAX)?.failed > 0 {
        report.blame("bench-path is not built");
        return Ok(report);
    }
    let program = tools.built("release/bench-path");
    let mut instructions = BTreeMap::new();
    for (what, requests) in COUNTED {
        let (once, twice) = (
            count(text(&program)?, what, requests)?,
            count(text(&program)?, what, 2 * requests)?,
        );
        instructions.insert(what.to_owned(), twice.saturating_sub(once) / requests);
    }
    let now = Kept {
        compiler: compiler()?,
        instructions,
    };
    if write {
        checkout.write(KEPT, &shown(&now)?)?;
        report.say(format!("{KEPT} is written"));
    }
    let kept =
        toml::from_str(&checkout.read(KEPT)?).map_err(|error| Failure::content(KEPT, error))?;
    judge(&now, &kept, &mut report);
    Ok(report)
}

/// The release of the compiler and the machine it compiles for, in one line.
fn compiler() -> Result<String, Failure> {
    let said = printed(Command::new("rustc").arg("-vV"), "rustc -vV", |output| {
        &output.stdout
    })?;
    let value = |name: &str| said.lines().find_map(|line| line.strip_prefix(name));
    match (value("release: "), value("host: ")) {
        (Some(release), Some(host)) => Ok(format!("{release} {host}")),
        _ => Err(Failure::content("rustc -vV", "names no release or no host")),
    }
}

/// The instructions of a whole run.
fn count(program: &str, what: &str, requests: u64) -> Result<u64, Failure> {
    let requests = requests.to_string();
    let arguments = [
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        program,
        what,
        &requests,
    ];
    let called = format!("valgrind {}", arguments.join(" "));
    let said = printed(
        Command::new("valgrind").args(arguments),
        &called,
        |output| &output.stderr,
    )?;
    collected(&said).ok_or(Failure::Program {
        program: called,
        what: said,
    })
}

/// What a program writes that succeeds, to the stream that is asked for.
fn printed(
    program: &mut Command,
    called: &str,
    stream: fn(&Output) -> &Vec<u8>,
) -> Result<String, Failure> {
    let failed = |what: String| Failure::Program {
        program: called.to_owned(),
        what,
    };
    let output = program
        .output()
        .map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8_lossy(stream(&output)).into_owned();
    if output.status.success() {
        Ok(said)
    } else {
        Err(failed(said))
    }
}

/// What callgrind says that it has collected.
fn collected(said: &str) -> Option<u64> {
    let (_, rest) = said.split_once("Collected : ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Holds every figure against the one that is kept. What another compiler makes of the same code
/// blames nobody; it is said all the same.
fn judge(now: &Kept, kept: &Kept, report: &mut Report) {
    let comparable = now.compiler == kept.compiler;
    if !comparable {
        report.say(format!(
            "the figures are kept for {}, and this is {}: they only show where one stands",
            kept.compiler, now.compiler
        ));
    }
    for (what, now) in &now.instructions {
        let Some(&kept) = kept.instructions.get(what) else {
            report.blame(format!("{what}: {now} instructions; {KEPT} has no figure"));
            continue;
        };
        let line = format!("{what}: {now} instructions a request, {kept} kept");
        match beyond(*now, kept) {
            Some(advice) if comparable => report.blame(format!("{line}: {advice}")),
            Some(_) | None => report.say(line),
        }
    }
}

/// What to do about a figure that lies outside the band.
fn beyond(now: u64, kept: u64) -> Option<&'static str> {
    let band = kept * BAND_PERCENT / 100;
    if now > kept + band {
        Some(
            "more than 5 % more. Where that is the price of something worth it, \
             `cargo xtask bench instructions --write` keeps the new figure",
        )
    } else if now + band < kept {
        Some("more than 5 % less. Keep it: `cargo xtask bench instructions --write`")
    } else {
        None
    }
}

fn shown(figures: &Kept) -> Result<String, Failure> {
    let figures = toml::to_string(figures).map_err(|error| Failure::content(KEPT, error))?;
    Ok(format!(
        "# Instructions of the gateway's own work for one request (crates/bench-path), as callgrind counts\n\
         # them. Written by `cargo xtask bench instructions --write`; the tests allow 5 % around them.\n{figures}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(compiler: &str, figures: &[(&str, u64)]) -> Kept {
        Kept {
            compiler: compiler.to_owned(),
            instructions: figures
                .iter()
                .map(|(what, figure)| ((*what).to_owned(), *figure))
                .collect(),
        }
    }

    fn is_well(now: &Kept, kept: &Kept) -> bool {
        let mut report = Report::new();
        judge(now, kept, &mut report);
        report.all_well
    }

    #[test]
    fn what_callgrind_says() {
        let said = "==7== Events    : Ir\n==7== Collected : 123456\n==7==\n";
        assert_eq!(collected(said), Some(123_456));
        assert_eq!(collected("==7== Collected :"), None);
    }

    #[test]
    fn five_percent_more_or_less_are_well() {
        let before = kept("1 here", &[("plain", 1000)]);
        for (now, well) in [(949, false), (950, true), (1050, true), (1051, false)] {
            assert_eq!(
                is_well(&kept("1 here", &[("plain", now)]), &before),
                well,
                "{now}"
            );
            assert!(is_well(&kept("2 here", &[("plain", now)]), &before));
        }
    }

    #[test]
    fn a_figure_that_nobody_kept_is_missed_whatever_compiles() {
        let before = kept("1 here", &[]);
        for compiler in ["1 here", "2 here"] {
            assert!(!is_well(&kept(compiler, &[("plain", 1)]), &before));
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let figures = kept("1 here", &[("plain", 7)]);
        let read: Kept = toml::from_str(&shown(&figures).unwrap()).unwrap();
        assert_eq!(read, figures);
    }
}
