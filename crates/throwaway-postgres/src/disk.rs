//! A small disk of one's own, to fill: a tmpfs in a user namespace, so that nobody has to be root.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

use crate::ClusterError;
use crate::account::Account;
use crate::error::{Doing, tail};

const OUTPUT_BYTES_MAX: usize = 4_096;

/// Mounts, fills and frees on demand (its namespace knows only one user, so nobody else can make
/// files there), and keeps the mount alive: until it is killed or, after the death of its parent,
/// until the folder is gone or the watchdog has had its time.
const SCRIPT: &str = r#"
mount -t tmpfs -o "size=$2,mode=0700" tollway-test "$1" || exit 1
echo done
while read -r word; do
    case $word in
    fill) cat /dev/zero >"$1/ballast" ;;
    free) rm -f "$1/ballast" ;;
    esac
    echo done
done
tries=0
while [ -d "$1" ] && [ "$tries" -lt 30 ]; do
    tries=$((tries + 1))
    sleep 1
done
"#;

/// A disk with room for a few megabytes, gone when dropped.
///
/// It is mounted where only its holder sees it; everybody else gets there through the holder's
/// root in `/proc`. That needs Linux with user namespaces that everybody may make (Debian's
/// default; a container needs `--security-opt seccomp=unconfined` or so).
#[derive(Debug)]
pub struct SmallDisk {
    holder: Child,
    ears: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    through: PathBuf,
    _folder: Option<TempDir>,
}

impl SmallDisk {
    /// A disk of so many bytes, for this process and its children.
    ///
    /// # Errors
    /// The system lets nobody mount in a namespace of their own.
    pub fn new(bytes: u64) -> Result<Self, ClusterError> {
        let folder = tempfile::tempdir().doing(|| "make a folder to mount on".to_owned())?;
        let mut disk = Self::mount(folder.path(), bytes, Account::Own)?;
        disk._folder = Some(folder);
        Ok(disk)
    }

    /// Mounts on an empty folder that belongs to this account.
    pub(crate) fn mount(on: &Path, bytes: u64, account: Account) -> Result<Self, ClusterError> {
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--mount", "--map-current-user", "--keep-caps"])
            .args(["sh", "-c", SCRIPT, "tollway-small-disk"])
            .arg(on)
            .arg(bytes.to_string())
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut holder = account
            .apply(&mut command)
            .spawn()
            .doing(|| "start `unshare` (Debian package util-linux)".to_owned())?;
        let (Some(to), Some(from)) = (holder.stdin.take(), holder.stdout.take()) else {
            return Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe))
                .doing(|| "talk to `unshare`".to_owned());
        };
        let mut ears = (to, BufReader::new(from));
        if !done(&mut ears) {
            drop(ears);
            let output = holder
                .wait_with_output()
                .doing(|| "wait for `unshare`".to_owned())?;
            return Err(ClusterError::Program {
                program: "unshare (a mount in a user namespace)",
                status: output.status.to_string(),
                output: tail(&output.stderr, OUTPUT_BYTES_MAX),
            });
        }
        let root = PathBuf::from(format!("/proc/{}/root", holder.id()));
        Ok(Self {
            through: root.join(on.strip_prefix("/").unwrap_or(on)),
            holder,
            ears: Mutex::new(ears),
            _folder: None,
        })
    }

    /// Its folder, for every process of the same user.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.through
    }

    /// Takes every byte that is free.
    ///
    /// # Errors
    /// The holder of the disk is gone.
    pub fn fill(&self) -> Result<(), ClusterError> {
        self.tell("fill\n")
    }

    /// Gives back what [`SmallDisk::fill`] took.
    ///
    /// # Errors
    /// The holder of the disk is gone.
    pub fn free(&self) -> Result<(), ClusterError> {
        self.tell("free\n")
    }

    fn tell(&self, word: &str) -> Result<(), ClusterError> {
        let mut ears = self.ears.lock().unwrap_or_else(PoisonError::into_inner);
        ears.0
            .write_all(word.as_bytes())
            .doing(|| "talk to the disk's holder".to_owned())?;
        if done(&mut ears) {
            return Ok(());
        }
        Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe))
            .doing(|| "hear from the disk's holder".to_owned())
    }
}

fn done(ears: &mut (ChildStdin, BufReader<ChildStdout>)) -> bool {
    let mut said = String::new();
    // At the end of a holder that failed there is nothing to read.
    let _ = ears.1.read_line(&mut said);
    said.trim() == "done"
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_disk_is_full_and_has_room_again() {
        let disk = SmallDisk::new(1 << 20).unwrap();
        let file = disk.path().join("file");
        fs::write(&file, "before").unwrap();
        disk.fill().unwrap();
        let error = fs::write(disk.path().join("other"), "x").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&file).unwrap(), b"before");
        disk.free().unwrap();
        fs::write(disk.path().join("other"), "x").unwrap();
        let gone = disk.path().to_path_buf();
        drop(disk);
        assert!(!gone.exists());
    }
}
