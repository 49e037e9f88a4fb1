//! Processor time that this process and a database's processes have used, read from `/proc`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Linux shows processor time in hundredths of a second, whatever its own clock does.
const TICK: Duration = Duration::from_millis(10);

/// Whose processor time is read.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    /// The data folder of a Postgres cluster: its processes work in it.
    data: Option<PathBuf>,
    /// The first of them, which inherits the time of those that ended.
    first: Option<u32>,
}

/// Processor time used since a process began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// By this process.
    pub(crate) here: Duration,
    /// By the database's processes.
    pub(crate) database: Duration,
}

impl Meter {
    /// Of this process alone: the database is in it.
    pub(crate) const fn here() -> Self {
        Self {
            data: None,
            first: None,
        }
    }

    /// Of this process and of a cluster.
    pub(crate) const fn with_cluster(data: PathBuf, first: Option<u32>) -> Self {
        Self {
            data: Some(data),
            first,
        }
    }

    /// What was used so far; zero where the system does not say.
    pub(crate) fn read(&self) -> Used {
        let own = own_and_children(Path::new("/proc/self/stat")).0;
        let processes = self.data.as_deref().map(of_folder).unwrap_or_default();
        let database = processes
            .into_iter()
            .map(|pid| {
                let (own, ended) = own_and_children(&PathBuf::from(format!("/proc/{pid}/stat")));
                own + if Some(pid) == self.first { ended } else { 0 }
            })
            .sum::<u32>();
        Used {
            here: TICK * own,
            database: TICK * database,
        }
    }
}

impl Used {
    /// What was used from `before` to this.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            here: self.here.saturating_sub(before.here),
            database: self.database.saturating_sub(before.database),
        }
    }
}

fn of_folder(data: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data))
        .collect()
}

/// Ticks of a process, and of its children that have ended.
fn own_and_children(stat: &Path) -> (u32, u32) {
    let text = fs::read_to_string(stat).unwrap_or_default();
    // The name, in brackets, may hold anything; the fields after it are counted from the state.
    let fields: Vec<&str> = text
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().collect())
        .unwrap_or_default();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|f| f.parse::<u32>().ok())
            .unwrap_or(0)
    };
    (ticks(11) + ticks(12), ticks(13) + ticks(14))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn work_is_seen() {
        let meter = Meter::here();
        let before = meter.read();
        let begun = Instant::now();
        let mut sum = 0_u64;
        while meter.read().since(before).here < TICK * 3 {
            sum = sum.wrapping_add(u64::from(begun.elapsed().subsec_nanos()));
            assert!(begun.elapsed() < Duration::from_secs(60), "{sum}");
        }
    }
}
