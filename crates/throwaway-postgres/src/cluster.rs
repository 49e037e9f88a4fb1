//! A cluster: one server of one's own, that can be stopped, killed and started again.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::account::Account;
use crate::binaries::Binaries;
use crate::folder::Folder;
use crate::processes::Signal;
use crate::server::{BootError, Server};
use crate::watchdog::Watchdog;
use crate::wire::startup_message;
use crate::{ClusterError, SmallDisk, processes, psql, shared};

const STOP_LIMIT: Duration = Duration::from_secs(30);
/// What a server that runs gets to answer one message.
const ACCEPT_LIMIT: Duration = Duration::from_secs(1);
const PORT_ATTEMPTS_MAX: u32 = 16;
/// Below the ports that systems give to outgoing connections, so that nobody is handed ours while
/// the server is down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A PostgreSQL server in a temporary folder, on a port of its own of 127.0.0.1.
///
/// Dropping it stops the server and removes the folder. Should the process die without dropping,
/// a watchdog does the same. Everything a killed server had acknowledged is there after
/// [`Cluster::restart`], as long as fsync is on.
#[derive(Debug)]
pub struct Cluster {
    // Fields drop in this order: the watchdog, last, removes what could not be removed.
    running: Mutex<Option<Child>>,
    port: u16,
    server: Server,
    _watchdog: Watchdog,
}

/// How a cluster is set up; [`Options::default`] is a durable server.
#[derive(Clone, Debug, Default)]
pub struct Options {
    settings: Vec<(String, String)>,
    disk: Option<Disk>,
}

/// What lies on a disk of its own, of so many bytes, that can be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// All data, the log of writes included.
    Data(u64),
    /// The log of writes (WAL) alone.
    Log(u64),
}

/// How a server is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Connections are cut, everything is written (SIGINT): nothing to recover afterwards.
    Fast,
    /// At once and without writing (SIGQUIT): the next start recovers.
    Immediate,
}

impl Options {
    /// Faster, and an answered commit may be lost in a crash of the machine (not of the server).
    #[must_use]
    pub fn without_fsync(self) -> Self {
        self.setting("fsync", "off")
            .setting("full_page_writes", "off")
    }

    /// Any setting of `postgresql.conf`; the last value given for a name holds.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Puts a part of the cluster on a small disk; see [`SmallDisk`].
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disk = Some(disk);
        self
    }

    pub(crate) fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl Cluster {
    /// Makes and starts a durable server (fsync on, 200 connections) and waits until it answers.
    ///
    /// # Errors
    /// No server installed, no user to run it as, no free port, or it would not start in 60 s.
    pub fn start() -> Result<Self, ClusterError> {
        Self::start_with(Options::default())
    }

    /// As [`Cluster::start`], with settings.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_with(options: Options) -> Result<Self, ClusterError> {
        Self::make(options, Server::initdb)
    }

    /// Starts a server on the data that `fill` puts into its folder.
    pub(crate) fn make(
        options: Options,
        fill: impl FnOnce(&Server) -> Result<(), ClusterError>,
    ) -> Result<Self, ClusterError> {
        let account = Account::choose()?;
        let mut folder = Folder::create(account)?;
        if let Some(disk) = options.disk {
            folder = folder.with_disk(disk, account)?;
        }
        let server = Server {
            binaries: Binaries::find()?,
            account,
            options,
            folder,
        };
        let watchdog = Watchdog::start(server.folder.root())?;
        fill(&server)?;
        let (port, child) = on_free_port(|port| server.boot(port), &server.folder)?;
        Ok(Self {
            running: Mutex::new(Some(child)),
            port,
            server,
            _watchdog: watchdog,
        })
    }

    /// The address of a database: `postgres://postgres@127.0.0.1:PORT/DATABASE`. `postgres` is
    /// always there. Stays true over restarts.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty UTF-8 database and returns its address.
    ///
    /// # Errors
    /// A name that needs quoting, a name taken, or a server that is down.
    pub fn create_database(&self, name: &str) -> Result<String, ClusterError> {
        self.sql(&psql::create_database(name)?)?;
        Ok(self.url(name))
    }

    /// Makes an empty database under a name nobody else has and returns its address.
    ///
    /// # Errors
    /// The server is down.
    pub fn fresh_database(&self) -> Result<String, ClusterError> {
        self.create_database(&shared::fresh_name())
    }

    /// Runs one statement in the database `postgres`, as the superuser, through `psql`; returns
    /// what it prints, unaligned and without headings.
    ///
    /// # Errors
    /// The statement fails or the server is down.
    pub fn sql(&self, statement: &str) -> Result<String, ClusterError> {
        self.server.psql(self.port, statement)
    }

    /// Stops the server and waits for its end. A server that is down stays down.
    ///
    /// # Errors
    /// It still runs after 30 s.
    pub fn stop(&self, how: Stop) -> Result<(), ClusterError> {
        self.stop_locked(&mut self.lock(), how)
    }

    /// Kills the server and all its children with SIGKILL, waits until every one of them is gone
    /// and removes the lock files left behind, so that [`Cluster::restart`] works. The data is
    /// untouched.
    ///
    /// # Errors
    /// The system would not let us, or a process lives on for 30 s.
    pub fn kill9(&self) -> Result<(), ClusterError> {
        self.kill_locked(&mut self.lock())
    }

    /// Starts the server again on the same port and data, after a fast stop if it runs, and waits
    /// until it has recovered and answers.
    ///
    /// # Errors
    /// It would not stop or start, or another program has taken the port.
    pub fn restart(&self) -> Result<(), ClusterError> {
        let mut running = self.lock();
        if alive(&mut running).is_some() {
            self.stop_locked(&mut running, Stop::Fast)?;
        } else {
            // It may have been killed from outside: sweep up as after our own kill.
            self.kill_locked(&mut running)?;
        }
        match self.server.boot(self.port) {
            Ok(child) => {
                *running = Some(child);
                Ok(())
            }
            Err(BootError::Other(error)) => Err(error),
            Err(BootError::PortTaken) => Err(no_port(1, &self.server.folder)),
        }
    }

    /// The pid of the server's first process; none while it is down.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        alive(&mut self.lock()).map(|child| child.id())
    }

    /// The port on 127.0.0.1, the same for the whole life of the cluster.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data folder. Beside it lie the socket and `server.log`.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.server.folder.data()
    }

    /// The small disk that was asked for.
    ///
    /// # Errors
    /// None was.
    pub fn disk(&self) -> Result<&SmallDisk, ClusterError> {
        self.server.folder.disk().ok_or(ClusterError::NoDisk)
    }

    /// Whether the server lets somebody in now. Quicker than any client: one message, one byte.
    #[must_use]
    pub fn accepts(&self) -> bool {
        let ask = || {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            stream.set_read_timeout(Some(ACCEPT_LIMIT))?;
            stream.write_all(&startup_message("postgres", "postgres"))?;
            let mut answer = [0];
            stream.read_exact(&mut answer)?;
            // `R`: how to authenticate. While it starts or recovers it answers with an error.
            Ok::<_, io::Error>(answer == *b"R")
        };
        ask().unwrap_or(false)
    }

    /// Where clients find the server.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn binaries(&self) -> &Binaries {
        &self.server.binaries
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// The server's log file.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.server.folder.log_path()
    }

    /// Waits until a question is answered with yes.
    pub(crate) fn until(
        &self,
        doing: &'static str,
        mut holds: impl FnMut() -> Result<bool, ClusterError>,
    ) -> Result<(), ClusterError> {
        let mut answer = Ok(false);
        processes::wait_until(STOP_LIMIT, || {
            answer = holds();
            !matches!(answer, Ok(false))
        });
        if answer? {
            return Ok(());
        }
        Err(ClusterError::TooSlow {
            doing,
            limit_s: STOP_LIMIT.as_secs(),
            log: self.server.folder.log_tail(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop_locked(&self, running: &mut Option<Child>, how: Stop) -> Result<(), ClusterError> {
        let Some(child) = alive(running) else {
            return Ok(());
        };
        let signal = match how {
            Stop::Fast => Signal::Interrupt,
            Stop::Immediate => Signal::Quit,
        };
        processes::signal(signal, &[child.id()])?;
        let data = self.server.folder.data_as_seen();
        let gone = processes::wait_until(STOP_LIMIT, || {
            !matches!(child.try_wait(), Ok(None)) && processes::of_data_folder(&data).is_empty()
        });
        if !gone {
            return Err(ClusterError::TooSlow {
                doing: "stopping the server",
                limit_s: STOP_LIMIT.as_secs(),
                log: self.server.folder.log_tail(),
            });
        }
        *running = None;
        Ok(())
    }

    fn kill_locked(&self, running: &mut Option<Child>) -> Result<(), ClusterError> {
        processes::kill_all(&self.server.folder.data_as_seen(), running.as_mut())?;
        *running = None;
        let files = self.server.folder.lock_files(self.port);
        remove_shared_memory(&files[0]);
        for file in files {
            // Most often not there.
            let _ = fs::remove_file(file);
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut running = self.lock();
        if self.stop_locked(&mut running, Stop::Immediate).is_err() {
            let _ = self.kill_locked(&mut running);
        }
    }
}

/// The server's process, unless it has ended. Asking also reaps it: a process that is dead but
/// not reaped would count as "another postmaster" at the next start.
fn alive(running: &mut Option<Child>) -> Option<&mut Child> {
    running
        .as_mut()
        .and_then(|child| matches!(child.try_wait(), Ok(None)).then_some(child))
}

/// Tries ports until the server starts on one. A port that is free when looked at can be taken
/// when the server binds it, so that its own answer decides.
fn on_free_port(
    mut boot: impl FnMut(u16) -> Result<Child, BootError>,
    folder: &Folder,
) -> Result<(u16, Child), ClusterError> {
    for _ in 0..PORT_ATTEMPTS_MAX {
        let port = random_port();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
            continue;
        }
        match boot(port) {
            Ok(child) => return Ok((port, child)),
            Err(BootError::PortTaken) => {}
            Err(BootError::Other(error)) => return Err(error),
        }
    }
    Err(no_port(PORT_ATTEMPTS_MAX, folder))
}

fn no_port(attempts: u32, folder: &Folder) -> ClusterError {
    ClusterError::NoPort {
        attempts,
        log: folder.log_tail(),
    }
}

pub(crate) fn random_port() -> u16 {
    // The hasher's keys are random for each state: enough for a port, and no dependency.
    let random = RandomState::new().build_hasher().finish();
    let width = u64::from(PORTS.end - PORTS.start);
    PORTS.start + u16::try_from(random % width).unwrap_or(0)
}

/// A killed server leaves the small segment by which it proves that it is alone. Its number is in
/// the seventh line of the lock file: key and id. Best effort.
fn remove_shared_memory(lock_file: &Path) {
    let text = fs::read_to_string(lock_file).unwrap_or_default();
    let line = text.lines().nth(6).unwrap_or_default();
    let Some(id) = line
        .split_whitespace()
        .nth(1)
        .filter(|id| id.parse::<u32>().is_ok())
    else {
        return;
    };
    let _ = Command::new("ipcrm")
        .args(["-m", id])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts where another server already answers, as when both found the port free.
    #[test]
    fn a_port_taken_meanwhile_is_noticed() {
        let first = Cluster::start().unwrap();
        let second = Cluster::start().unwrap();
        second.stop(Stop::Fast).unwrap();
        let answer = second.server.boot(first.port);
        assert!(matches!(answer, Err(BootError::PortTaken)), "{answer:?}");
        second.restart().unwrap();
        assert_eq!(second.sql("SHOW port").unwrap(), second.port.to_string());
    }
}
