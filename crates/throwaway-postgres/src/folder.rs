//! The temporary folder of a cluster: data, log and socket, reachable by the server's user.

use std::env;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::account::Account;
use crate::error::{Doing, tail};
use crate::{ClusterError, Disk, SmallDisk};

/// Every folder begins with this, and the watchdog removes nothing else.
pub(crate) const PREFIX: &str = "tollway-pg-";

/// A socket's address holds 107 bytes; `/tollway-pg-XXXXXX/.s.PGSQL.65535` takes 34 of them.
const PARENT_BYTES_MAX: usize = 70;
const LOG_TAIL_BYTES: usize = 4_096;

/// The folder, removed when dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Where the data or the log of writes are, when they are on a disk of their own.
    disk: Option<SmallDisk>,
    /// Whether it is the data that is there.
    data_on_disk: bool,
    root: TempDir,
}

impl Folder {
    pub(crate) fn create(account: Account) -> Result<Self, ClusterError> {
        // As /proc shows it, which matters where the folder is reached through a link.
        let parent = fs::canonicalize(parent(account))
            .doing(|| "find the folder for temporary files".to_owned())?;
        let root = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(&parent)
            .doing(|| format!("make a folder in {}", parent.display()))?;
        // The umask has had its say in the mode above.
        fs::set_permissions(root.path(), Permissions::from_mode(0o755))
            .doing(|| "open the folder to the server's user".to_owned())?;
        account.own(root.path())?;
        Ok(Self {
            disk: None,
            data_on_disk: false,
            root,
        })
    }

    /// Puts the data, or the log of writes, on a disk of its own.
    pub(crate) fn with_disk(mut self, disk: Disk, account: Account) -> Result<Self, ClusterError> {
        let (name, bytes) = match disk {
            Disk::Data(bytes) => ("data", bytes),
            Disk::Log(bytes) => ("wal", bytes),
        };
        let on = self.root().join(name);
        fs::create_dir(&on).doing(|| "make a folder to mount on".to_owned())?;
        account.own(&on)?;
        self.disk = Some(SmallDisk::mount(&on, bytes, account)?);
        self.data_on_disk = matches!(disk, Disk::Data(_));
        Ok(self)
    }

    pub(crate) fn disk(&self) -> Option<&SmallDisk> {
        self.disk.as_ref()
    }

    /// Where the log of writes is, when it is apart from the data.
    pub(crate) fn log_of_writes(&self) -> Option<&Path> {
        self.disk
            .as_ref()
            .filter(|_| !self.data_on_disk)
            .map(SmallDisk::path)
    }

    /// Also where the socket is.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        match &self.disk {
            Some(disk) if self.data_on_disk => disk.path().to_path_buf(),
            Some(_) | None => self.data_as_seen(),
        }
    }

    /// The data folder as `/proc` shows it of the server's processes.
    pub(crate) fn data_as_seen(&self) -> PathBuf {
        self.root().join("data")
    }

    /// Holds the server's pid, where it can be read without its data.
    pub(crate) fn pid_path(&self) -> PathBuf {
        self.root().join("server.pid")
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.root().join("server.log")
    }

    /// The log, to append to.
    pub(crate) fn open_log(&self) -> Result<File, ClusterError> {
        File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .doing(|| "open the server's log".to_owned())
    }

    pub(crate) fn log_tail(&self) -> String {
        tail(
            &fs::read(self.log_path()).unwrap_or_default(),
            LOG_TAIL_BYTES,
        )
    }

    /// The files by which a server says that it runs. Only for when it does not.
    pub(crate) fn lock_files(&self, port: u16) -> [PathBuf; 3] {
        [
            self.data().join("postmaster.pid"),
            self.root().join(format!(".s.PGSQL.{port}.lock")),
            self.root().join(format!(".s.PGSQL.{port}")),
        ]
    }
}

/// The usual folder for temporary files, unless the server's user cannot enter it or a socket's
/// address in it would be too long.
fn parent(account: Account) -> PathBuf {
    let usual = env::temp_dir();
    let short = usual.as_os_str().len() <= PARENT_BYTES_MAX;
    let usable = short && usual.is_absolute() && (!account.is_other() || open_to_all(&usual));
    if usable { usual } else { PathBuf::from("/tmp") }
}

fn open_to_all(folder: &Path) -> bool {
    folder.ancestors().all(|folder| {
        fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o001 != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_ancestor_is_seen() {
        let closed = tempfile::tempdir().unwrap();
        let inner = closed.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(&inner, Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(closed.path(), Permissions::from_mode(0o700)).unwrap();
        assert!(!open_to_all(&inner));
        fs::set_permissions(closed.path(), Permissions::from_mode(0o755)).unwrap();
        assert!(open_to_all(&inner));
    }
}
