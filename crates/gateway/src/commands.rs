//! The commands of `tollway`, each with its exit code.

mod accounts;
mod audit;
mod charges;
mod check_config;
mod credits;
mod database;
mod keys;
mod prices;
mod print;
mod reconcile;
mod remote;
mod serve;
mod settlements;
mod usage;

use std::{io, process::ExitCode};

use crate::cli::{Cli, Command};

/// Why a command failed; printed as one line.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no key to call with.
    #[error("no admin key; set TOLLWAY_ADMIN_KEY or pass --admin-key")]
    NoAdminKey,
    /// What was passed cannot be sent.
    #[error("{0}")]
    Argument(String),
    /// Nobody answered.
    #[error("no answer from {url}: {problem}; is the gateway running there? --url names another")]
    NoAnswer {
        /// The address that was tried.
        url: String,
        /// What went wrong.
        problem: String,
    },
    /// The gateway refused.
    #[error("{message} (HTTP {status}, {code}, {request_id})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The error's code.
        code: String,
        /// What to do.
        message: String,
        /// The request's id.
        request_id: String,
    },
    /// Somebody else answered.
    #[error("{url} did not answer as a tollway does; is it the gateway's address?")]
    NotTollway {
        /// The address that was tried.
        url: String,
    },
    /// The database cannot be read.
    #[error("{0}")]
    Store(#[from] store::StoreError),
    /// The configuration is wrong, as was printed.
    #[error("the configuration is wrong; nothing was started")]
    Configuration,
    /// The output cannot be written.
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
}

/// Runs a command to its end.
pub async fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        None => return serve::run(&cli.flags).await,
        Some(Command::Serve(flags)) => return serve::run(&flags).await,
        Some(Command::Keys(asking)) => keys::run(asking).await,
        Some(Command::Credits(asking)) => credits::run(asking).await,
        Some(Command::Accounts(asking)) => accounts::run(asking).await,
        Some(Command::Usage { remote, query }) => usage::run(&remote, query).await,
        Some(Command::Audit { flags, json }) => audit::run(&flags, json).await,
        Some(Command::Charges { command }) => charges::run(command).await,
        Some(Command::Settlements { command }) => settlements::run(command).await,
        Some(Command::Prices { command }) => prices::run(command),
        Some(Command::Reconcile { remote, asked }) => reconcile::run(&remote, &asked).await,
        Some(Command::CheckConfig(flags)) => check_config::run(&flags),
    };
    match result {
        Ok(code) => code,
        // Whoever reads from us has read enough.
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            print::complain(&error);
            ExitCode::FAILURE
        }
    }
}
