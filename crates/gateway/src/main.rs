//! The program `tollway`: arguments, logs, the runtime and the exit code; everything else is in the library.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use clap::Parser as _;
use gateway::{
    cli::Cli,
    commands,
    log::{Gathered, Lines},
    upstream,
};
use tracing_subscriber::EnvFilter;

/// What still runs after the end, such as a name being looked up, is waited for so long.
const LEFTOVERS_MAX: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy();
    let lines = match Gathered::start(io::stderr()) {
        Ok(lines) => lines,
        Err(error) => {
            let _ = writeln!(io::stderr(), "the log cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .event_format(Lines::default())
        .with_writer(lines.clone())
        .init();
    let code = run(cli);
    lines.finish();
    code
}

fn run(cli: Cli) -> ExitCode {
    // Commands other than `serve` speak TLS too.
    upstream::install_tls();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime cannot start");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(commands::run(cli));
    runtime.shutdown_timeout(LEFTOVERS_MAX);
    code
}
