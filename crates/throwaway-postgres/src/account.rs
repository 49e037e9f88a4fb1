//! Whom the server runs as: it refuses root.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::ClusterError;
use crate::error::Doing;

/// The user that the server's programs run as.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Account {
    /// The one that runs this process.
    Own,
    /// Another one, because this process is root's.
    Other { user: u32, group: u32 },
}

impl Account {
    /// Everybody but root keeps their own account; root borrows that of `postgres` or `nobody`.
    pub(crate) fn choose() -> Result<Self, ClusterError> {
        if id(&["-u"]) != Some(0) {
            return Ok(Self::Own);
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| {
                Some(Self::Other {
                    user: id(&["-u", name])?,
                    group: id(&["-g", name])?,
                })
            })
            .ok_or(ClusterError::NoAccount)
    }

    /// Makes a command run under this account. Changing the user inside the child, instead of
    /// through `su`, keeps the child's pid the server's pid.
    pub(crate) fn apply(self, command: &mut Command) -> &mut Command {
        match self {
            Self::Own => command,
            Self::Other { user, group } => command.uid(user).gid(group),
        }
    }

    /// Gives a file or folder to this account.
    pub(crate) fn own(self, path: &Path) -> Result<(), ClusterError> {
        match self {
            Self::Own => Ok(()),
            Self::Other { user, group } => std::os::unix::fs::chown(path, Some(user), Some(group))
                .doing(|| format!("give {} to the server's user", path.display())),
        }
    }

    /// True where this account is not the one that runs this process.
    pub(crate) fn is_other(self) -> bool {
        match self {
            Self::Own => false,
            Self::Other { .. } => true,
        }
    }
}

fn id(args: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(args).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
