//! The database that the settings name, for commands that work on it without the gateway.

use store::{OpenOptions, StoreUrl};

use super::{CommandError, print};
use crate::{cli::Flags, configuration};

/// Where the database is and how it is reached; wrong settings are printed and end the command,
/// because the books of the wrong database prove nothing.
pub(super) fn named_by(flags: &Flags) -> Result<(StoreUrl, OpenOptions), CommandError> {
    // The environment of a test is its runner's.
    let (environment, mut findings) = if cfg!(test) {
        Default::default()
    } else {
        configuration::environment()
    };
    let settings = configuration::settings(flags, &environment, &mut findings);
    if !findings.is_empty() {
        for finding in &findings {
            print::complain(finding);
        }
        return Err(CommandError::Configuration);
    }
    let url = StoreUrl::parse(&settings.database_url)?;
    Ok((url, OpenOptions::default()))
}
