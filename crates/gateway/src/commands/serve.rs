//! `tollway serve`: configuration in, the program until it is told to stop.

use std::process::ExitCode;

use super::print;
use crate::{cli::Flags, configuration, serve};

pub(super) async fn run(flags: &Flags) -> ExitCode {
    let (environment, mut findings) = configuration::environment();
    let (settings, files, wrong) = configuration::load(flags, &environment);
    findings.extend(wrong);
    match serve::run(settings, files, findings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print::complain(&error);
            ExitCode::FAILURE
        }
    }
}
