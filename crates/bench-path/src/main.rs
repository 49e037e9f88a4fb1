//! Does the work of many requests, for whoever counts its instructions: `bench-path plain|streamed TIMES`.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use bench_path::{Work, WorkError};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let times = arguments.next().and_then(|times| times.parse().ok());
    let (said, code) = match times.map(|times| run(&what, times)) {
        Some(Ok(Some(bytes))) => (format!("{bytes} bytes"), ExitCode::SUCCESS),
        Some(Ok(None)) | None => ("bench-path plain|streamed TIMES".into(), ExitCode::FAILURE),
        Some(Err(error)) => (format!("error: {error}"), ExitCode::FAILURE),
    };
    // A closed pipe is no failure of the work.
    let _ = writeln!(io::stdout(), "{said}");
    code
}

/// The bytes that clients got; `None` where nobody knows what to do.
fn run(what: &str, times: u32) -> Result<Option<usize>, WorkError> {
    let mut work = Work::new()?;
    let one = match what {
        "plain" => Work::plain,
        "streamed" => Work::streamed,
        _ => return Ok(None),
    };
    let mut bytes = 0;
    for _ in 0..times {
        bytes += one(&mut work)?;
    }
    Ok(Some(bytes))
}
