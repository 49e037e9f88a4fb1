//! The server's processes: finding them, signalling them, waiting for their end.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::ClusterError;
use crate::error::Doing;

/// How often a condition without a notification is looked at again.
pub(crate) const POLL: Duration = Duration::from_millis(10);

const KILL_LIMIT: Duration = Duration::from_secs(30);

/// A signal, by the name that `kill` knows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    Interrupt,
    Quit,
    Stop,
    Kill,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "INT",
            Self::Quit => "QUIT",
            Self::Stop => "STOP",
            Self::Kill => "KILL",
        }
    }
}

/// Sends a signal to each process. One that has already ended is no error.
pub(crate) fn signal(signal: Signal, pids: &[u32]) -> Result<(), ClusterError> {
    if pids.is_empty() {
        return Ok(());
    }
    // The shell's own `kill`: the program of that name is not on every machine.
    Command::new("sh")
        .args([
            "-c",
            r#"s=$1; shift; for p; do kill -s "$s" "$p"; done"#,
            "sh",
        ])
        .arg(signal.name())
        .args(pids.iter().map(u32::to_string))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .doing(|| format!("send SIG{}", signal.name()))?;
    Ok(())
}

/// All processes of the server whose data is in this folder: each has it as its working folder,
/// also a child whose parent is gone. Needs Linux; elsewhere the list is empty, and children end
/// by themselves when they notice the loss of their parent.
pub(crate) fn of_data_folder(data: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            // A process that has ended but is not reaped has no working folder any more.
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder == data)
        })
        .collect()
}

/// Kills a server and its children, and returns when all of them are gone.
pub(crate) fn kill_all(data: &Path, server: Option<&mut Child>) -> Result<(), ClusterError> {
    let first: Vec<u32> = server.iter().map(|child| child.id()).collect();
    if let Some(child) = server
        && matches!(child.try_wait(), Ok(None))
    {
        // Stopped first, so that it starts no child between our look and the kill.
        signal(Signal::Stop, &first)?;
        signal(Signal::Kill, &[&first[..], &of_data_folder(data)].concat())?;
        child
            .wait()
            .doing(|| "wait for the killed server".to_owned())?;
    }
    signal(Signal::Kill, &of_data_folder(data))?;
    if wait_until(KILL_LIMIT, || of_data_folder(data).is_empty()) {
        return Ok(());
    }
    Err(ClusterError::TooSlow {
        doing: "the end of the killed server",
        limit_s: KILL_LIMIT.as_secs(),
        log: String::new(),
    })
}

/// Looks until the condition holds or the time is up; says whether it held.
pub(crate) fn wait_until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(POLL);
    }
}
