//! Statements sent through `psql`, so that this crate needs no database driver.

use std::ffi::OsStr;

use crate::ClusterError;
use crate::binaries::Binaries;
use crate::error::{Doing, tail};

const OUTPUT_BYTES_MAX: usize = 4_096;

/// Runs one statement on the server that `to` names (options of `psql`, or one address).
pub(crate) fn run<S: AsRef<OsStr>>(
    binaries: &Binaries,
    to: &[S],
    statement: &str,
) -> Result<String, ClusterError> {
    let output = binaries
        .command("psql")
        .env("PGCONNECT_TIMEOUT", "30")
        .current_dir("/")
        .args(["-X", "-w", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
        .args(["-c", statement])
        .args(to)
        .output()
        .doing(|| "run psql".to_owned())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(ClusterError::Program {
        program: "psql",
        status: output.status.to_string(),
        output: tail(&output.stderr, OUTPUT_BYTES_MAX),
    })
}

/// The statement that makes an empty UTF-8 database. From `template0`, which nobody can be
/// connected to: making several at once from `template1` may fail.
pub(crate) fn create_database(name: &str) -> Result<String, ClusterError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let bad = name.is_empty()
        || name.len() > 63
        || !name.chars().all(plain)
        || name.starts_with(|c: char| c.is_ascii_digit());
    if bad {
        return Err(ClusterError::BadName {
            name: name.to_owned(),
        });
    }
    Ok(format!(
        "CREATE DATABASE \"{name}\" ENCODING 'UTF8' TEMPLATE template0"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_reach_a_statement() {
        let long = "a".repeat(64);
        for name in ["", "a\"b", "a b", "1a", "Ä", "a;b", "Upper", long.as_str()] {
            let answer = create_database(name);
            assert!(
                matches!(answer, Err(ClusterError::BadName { .. })),
                "{name}"
            );
        }
        assert!(create_database("t_1").is_ok());
    }
}
