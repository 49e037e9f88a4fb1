//! A shell that outlives a crashed test process, to stop the server and remove its folder.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::ClusterError;
use crate::error::Doing;
use crate::folder::PREFIX;

/// Reads until the other end of the pipe is gone: the one sign of death that cannot be missed,
/// whatever killed the process. The pid is looked up then, since a restart changes it, and is
/// trusted only while that process works in the data folder.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
while read -r _; do :; done
folder=$1
case $folder in */"$2"*) ;; *) exit 1 ;; esac
works_here() {
    [ ! -d /proc/self ] || [ "$(readlink "/proc/$1/cwd")" = "$folder/data" ]
}
pid=$(head -n 1 "$folder/server.pid" 2>/dev/null)
case $pid in
'' | *[!0-9]*) ;;
*)
    if works_here "$pid"; then
        kill -s QUIT "$pid"
        tries=0
        while kill -s 0 "$pid" 2>/dev/null && works_here "$pid" && [ "$tries" -lt 100 ]; do
            tries=$((tries + 1))
            sleep 0.1
        done
        works_here "$pid" && kill -s KILL "$pid"
    fi
    ;;
esac
rm -rf -- "$folder" || { sleep 1; rm -rf -- "$folder"; }
"#;

/// The shell, and the end of the pipe that it listens at.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    pub(crate) fn start(folder: &Path) -> Result<Self, ClusterError> {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "tollway-pg-watchdog"])
            .arg(folder)
            .arg(PREFIX)
            .current_dir("/")
            // A group of its own: what interrupts or ends the test's group must not reach it.
            .process_group(0)
            .stdin(Stdio::piped())
            // Test runners wait for everybody who holds their output.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .doing(|| "start the watchdog".to_owned())?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.pipe = None;
        // Bounded by the script: at most eleven seconds, a few milliseconds after a clean stop.
        let _ = self.shell.wait();
    }
}
