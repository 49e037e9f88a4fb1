//! A standby by streaming replication, and its promotion when the primary is gone.

use crate::cluster::Options;
use crate::error::{Doing, tail};
use crate::{Cluster, ClusterError};

const OUTPUT_BYTES_MAX: usize = 4_096;

impl Cluster {
    /// Makes a standby of this server that follows it, and returns when both are in step.
    ///
    /// With `synchronous` this server confirms a commit (at `synchronous_commit = on`, the
    /// default) only when the standby has it on its disk: that is what makes a promotion lose
    /// nothing. Without it, commits of the last moment exist on the primary alone, and are gone
    /// with it although they were confirmed.
    ///
    /// # Errors
    /// As [`Cluster::start`]; or this server is down.
    pub fn standby(&self, synchronous: bool) -> Result<Self, ClusterError> {
        let from = format!("postgres://postgres@127.0.0.1:{}", self.port());
        let standby = Self::make(Options::default(), |server| {
            let mut command = server.command("pg_basebackup");
            command
                // Synced: what is not on the disk yet would slow its promotion down.
                .args(["--write-recovery-conf", "--checkpoint=fast"])
                .args(["--wal-method=stream", "-d", &from, "-D"])
                .arg(server.folder.data());
            let output = command.output().doing(|| "run pg_basebackup".to_owned())?;
            finished("pg_basebackup", &output)
        })?;
        if synchronous {
            // After the copy: a promoted standby must not wait for one of its own.
            self.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")?;
            self.sql("SELECT pg_reload_conf()")?;
        }
        let state = if synchronous { "sync" } else { "async" };
        let in_step = format!(
            "SELECT count(*) FROM pg_stat_replication \
             WHERE state = 'streaming' AND sync_state = '{state}'"
        );
        self.until("the standby to follow", || Ok(self.sql(&in_step)? == "1"))?;
        Ok(standby)
    }

    /// Makes a standby a server of its own, and returns when it takes writes.
    ///
    /// # Errors
    /// It is none, or does not get there in time.
    pub fn promote(&self) -> Result<(), ClusterError> {
        let server = self.server();
        let mut command = server.command("pg_ctl");
        command
            .args(["promote", "--wait", "--silent", "-D"])
            .arg(server.folder.data());
        let output = command.output().doing(|| "run pg_ctl promote".to_owned())?;
        finished("pg_ctl promote", &output)
    }
}

fn finished(program: &'static str, output: &std::process::Output) -> Result<(), ClusterError> {
    if output.status.success() {
        return Ok(());
    }
    Err(ClusterError::Program {
        program,
        status: output.status.to_string(),
        output: tail(
            &[output.stdout.as_slice(), &output.stderr].concat(),
            OUTPUT_BYTES_MAX,
        ),
    })
}
