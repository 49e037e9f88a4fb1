//! Runs a command with a throwaway Postgres: `throwaway-postgres cargo nextest run`.
//!
//! The command finds the server's address in `TOLLWAY_TEST_POSTGRES`. Without a command the
//! address is printed, and the server lives until standard input ends.

use std::env;
use std::error::Error;
use std::io::{self, Read, Write};
use std::process::{Command, ExitCode};

use throwaway_postgres::{Cluster, SERVER_VARIABLE};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let cluster = Cluster::start()?;
    let url = cluster.url("postgres");
    let mut words = env::args_os().skip(1);
    let Some(program) = words.next() else {
        writeln!(io::stdout(), "{url}")?;
        let mut byte = [0];
        while io::stdin().read(&mut byte)? > 0 {}
        return Ok(ExitCode::SUCCESS);
    };
    let status = Command::new(program)
        .args(words)
        .env(SERVER_VARIABLE, url)
        .status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
