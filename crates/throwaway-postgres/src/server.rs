//! Making the data folder and starting the server's process in it, once.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::account::Account;
use crate::binaries::Binaries;
use crate::cluster::Options;
use crate::error::{Doing, tail};
use crate::folder::Folder;
use crate::{ClusterError, processes, psql};

/// Includes recovery after a kill: seconds on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
const OUTPUT_BYTES_MAX: usize = 4_096;

/// Ours: close to what a small installation runs with, and little memory.
const SETTINGS: [(&str, &str); 7] = [
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "200"),
    ("shared_buffers", "32MB"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    // In the folder instead of /dev/shm, where it would outlive a killed server.
    ("dynamic_shared_memory_type", "mmap"),
    ("huge_pages", "off"),
];

/// All that starting needs, apart from the port.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) binaries: Binaries,
    pub(crate) account: Account,
    pub(crate) options: Options,
    pub(crate) folder: Folder,
}

/// Why a start did not come to an end: a taken port is worth another try.
#[derive(Debug)]
pub(crate) enum BootError {
    PortTaken,
    Other(ClusterError),
}

impl From<ClusterError> for BootError {
    fn from(error: ClusterError) -> Self {
        Self::Other(error)
    }
}

impl Server {
    /// Makes the data folder. Not synced to disk: only a power cut could tell, and it saves seconds.
    pub(crate) fn initdb(&self) -> Result<(), ClusterError> {
        let mut command = self.command("initdb");
        command
            .args([
                "--no-sync",
                "--auth=trust",
                "--encoding=UTF8",
                "--no-locale",
            ])
            .args(["--username=postgres", "--pgdata"])
            .arg(self.folder.data());
        if let Some(log_of_writes) = self.folder.log_of_writes() {
            // Small segments: a small disk holds several.
            command
                .args(["--wal-segsize=1", "--waldir"])
                .arg(log_of_writes);
        }
        let output = command.output().doing(|| "run initdb".to_owned())?;
        if output.status.success() {
            return Ok(());
        }
        Err(ClusterError::Program {
            program: "initdb",
            status: output.status.to_string(),
            output: tail(&[output.stdout, output.stderr].concat(), OUTPUT_BYTES_MAX),
        })
    }

    /// Starts the server and returns when it answers.
    pub(crate) fn boot(&self, port: u16) -> Result<Child, BootError> {
        let log = self.folder.open_log()?;
        let log_start = log.metadata().map_or(0, |found| found.len());
        let log_again = log
            .try_clone()
            .doing(|| "share the server's log".to_owned())?;
        let mut command = self.command("postgres");
        command
            .arg("-D")
            .arg(self.folder.data())
            .arg("-k")
            .arg(self.folder.root())
            .args(["-p", &port.to_string()])
            .arg(format!(
                "--external_pid_file={}",
                self.folder.pid_path().display()
            ))
            .args(self.settings())
            // A group of its own: an interrupt of the tests must not race with their own stop.
            .process_group(0)
            .stdout(log)
            .stderr(log_again);
        let child = command.spawn().doing(|| "start the server".to_owned())?;
        self.until_ready(child, port, log_start)
    }

    /// Options of `psql` that lead to this server, past the network.
    pub(crate) fn psql(&self, port: u16, statement: &str) -> Result<String, ClusterError> {
        let port = port.to_string();
        let root = self.folder.root().as_os_str();
        let to = ["-h".as_ref(), root, "-p".as_ref(), port.as_ref()];
        let user = ["-U", "postgres", "-d", "postgres"].map(AsRef::as_ref);
        psql::run(&self.binaries, &[&to[..], &user[..]].concat(), statement)
    }

    fn settings(&self) -> impl Iterator<Item = String> {
        let ours = SETTINGS.iter().map(|&(name, value)| (name, value));
        let theirs = self.options.settings();
        // The last one given holds.
        ours.chain(theirs)
            .map(|(name, value)| format!("--{name}={value}"))
    }

    fn until_ready(&self, mut child: Child, port: u16, log_start: u64) -> Result<Child, BootError> {
        let mut ended = None;
        let settled = processes::wait_until(START_LIMIT, || match child.try_wait() {
            Ok(None) => self.answers(port),
            Ok(Some(status)) => {
                ended = Some(status.to_string());
                true
            }
            Err(error) => {
                ended = Some(error.to_string());
                true
            }
        });
        if let Some(status) = ended {
            return Err(if self.port_was_taken(log_start) {
                BootError::PortTaken
            } else {
                BootError::Other(ClusterError::EndedEarly {
                    status,
                    log: self.folder.log_tail(),
                })
            });
        }
        if settled {
            return Ok(child);
        }
        let log = self.folder.log_tail();
        processes::kill_all(&self.folder.data_as_seen(), Some(&mut child))?;
        Err(BootError::Other(ClusterError::TooSlow {
            doing: "starting the server",
            limit_s: START_LIMIT.as_secs(),
            log,
        }))
    }

    /// Through the socket, which is in our folder: at the port another server may answer. It is
    /// opened after the port is bound.
    fn answers(&self, port: u16) -> bool {
        self.binaries
            .command("pg_isready")
            .args(["-q", "-t", "3", "-p", &port.to_string(), "-h"])
            .arg(self.folder.root())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    fn port_was_taken(&self, log_start: u64) -> bool {
        let log = fs::read(self.folder.log_path()).unwrap_or_default();
        let start = usize::try_from(log_start).unwrap_or(usize::MAX);
        let log = String::from_utf8_lossy(log.get(start..).unwrap_or_default());
        log.contains("Address already in use")
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = self.binaries.command(program);
        // Somewhere the server's user may be: it would refuse the caller's folder.
        command.current_dir(self.folder.root());
        self.account.apply(&mut command);
        command
    }
}
