//! What is measured: databases, numbers of accounts, charges already stored, and for how long.

use std::{fmt, path::PathBuf, time::Duration};

/// Segments of Postgres' log, of 16 MiB each, that are there before the first run: more than two runs
/// write. A server that has run for a while has them, up to its `min_wal_size`, and a new one is
/// written and flushed as a whole before a commit can go on.
const LOG_SEGMENTS: u32 = 96;

/// How requests spread over accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub(crate) struct Spread {
    /// Accounts that are asked.
    pub(crate) accounts: u64,
    /// The n-th account is asked in proportion to 1/n, as in most traffic; else all alike, which
    /// is the worst case for leases.
    pub(crate) skewed: bool,
}

/// A database to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// One file, in this process.
    Sqlite,
    /// A throwaway cluster.
    Postgres,
}

/// Measures holds and settlements of the ledger.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "cargo xtask bench ledger")]
pub(crate) struct Arguments {
    /// Measure this database only.
    #[arg(long)]
    database: Option<Kind>,
    /// Seconds of load in each run.
    #[arg(long, default_value_t = 4.0, default_value_if("brief", "true", "2.5"))]
    seconds: f64,
    /// Runs of each case; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Requests at a time, each starting when the one before has ended.
    #[arg(long, default_value_t = 64)]
    tasks: usize,
    /// Settlements that may wait for the journal: the ledger's bound on requests in flight.
    #[arg(long, default_value_t = 1024)]
    in_flight: usize,
    /// Charges that are stored already, for the last part.
    #[arg(long, default_value_t = 10_000_000)]
    stored: u64,
    /// Measure these numbers of accounts only: 1, 1000, 100000.
    #[arg(long, value_delimiter = ',')]
    accounts: Vec<u64>,
    /// Measure the ledger with a local journal too, beside each run without, and print the ratios.
    #[arg(long)]
    local_journal: bool,
    /// About eight minutes: shorter runs, and stored charges on Postgres and one account only.
    #[arg(long, conflicts_with = "quick")]
    brief: bool,
    /// A few seconds, to see that the bench works: its figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Write the figures as JSON into this file too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Fail when a figure that the documentation promises is missed.
    #[arg(long)]
    pub(crate) check: bool,
}

/// What is run.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Plan {
    /// Which databases.
    pub(crate) databases: Vec<Kind>,
    /// How requests spread, case by case.
    pub(crate) spreads: Vec<Spread>,
    /// Charges already stored, world by world; the first is the one without.
    pub(crate) stored: Vec<u64>,
    /// Load of one run.
    pub(crate) time: Duration,
    /// Runs of each case.
    pub(crate) rounds: usize,
    /// Tasks.
    pub(crate) tasks: usize,
    /// Permits of the ledger.
    pub(crate) in_flight: usize,
    /// Whether a local journal is measured too.
    pub(crate) local_journal: bool,
    /// Stored charges on Postgres and one account only.
    pub(crate) brief: bool,
    /// How much log a server has made before, which it uses again.
    pub(crate) log_segments: u32,
}

impl Plan {
    /// The plan that the arguments ask for.
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let quick = arguments.quick;
        let sizes: &[u64] = if quick {
            &[1, 100]
        } else {
            &[1, 1_000, 100_000]
        };
        let largest = sizes.last().copied();
        let spreads = sizes
            .iter()
            .flat_map(|accounts| {
                let alike = Spread {
                    accounts: *accounts,
                    skewed: false,
                };
                let skewed = Spread {
                    skewed: true,
                    ..alike
                };
                [
                    Some(alike),
                    Some(skewed).filter(|s| Some(s.accounts) == largest),
                ]
            })
            .flatten()
            .filter(|s| arguments.accounts.is_empty() || arguments.accounts.contains(&s.accounts))
            .collect();
        let stored = if quick { 20_000 } else { arguments.stored };
        Self {
            databases: match arguments.database {
                Some(one) => vec![one],
                None => vec![Kind::Sqlite, Kind::Postgres],
            },
            spreads,
            stored: [Some(0), Some(stored).filter(|n| *n > 0)]
                .into_iter()
                .flatten()
                .collect(),
            time: if quick {
                Duration::from_millis(300)
            } else {
                Duration::try_from_secs_f64(arguments.seconds).unwrap_or(Duration::from_secs(4))
            },
            rounds: if quick { 1 } else { arguments.rounds.max(1) },
            tasks: arguments.tasks.max(1),
            in_flight: arguments.in_flight.max(arguments.tasks),
            local_journal: arguments.local_journal,
            brief: arguments.brief,
            log_segments: if quick { 1 } else { LOG_SEGMENTS },
        }
    }

    /// Whether books with so many stored charges are wanted for a database.
    pub(crate) fn wants(&self, kind: Kind, stored: u64) -> bool {
        match kind {
            Kind::Sqlite => stored == 0 || !self.brief,
            Kind::Postgres => true,
        }
    }

    /// Whether a case is measured on books with so many stored charges.
    pub(crate) fn measures(&self, spread: Spread, stored: u64) -> bool {
        stored == 0 || !self.brief || spread.accounts == 1
    }

    /// Accounts that the books need.
    pub(crate) fn accounts_max(&self) -> u64 {
        self.spreads.iter().map(|s| s.accounts).max().unwrap_or(1)
    }
}

impl Spread {
    /// The account that a random number stands for, counted from zero.
    pub(crate) fn pick(self, random: u64) -> u64 {
        let below_one = (random >> 11) as f64 / (1_u64 << 53) as f64;
        let place = if self.skewed {
            (self.accounts as f64 + 1.0).powf(below_one) - 1.0
        } else {
            self.accounts as f64 * below_one
        };
        (place as u64).min(self.accounts.saturating_sub(1))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skewed = if self.skewed { ", skewed" } else { "" };
        match self.accounts {
            1 => write!(f, "1 account"),
            n => write!(f, "{} accounts{skewed}", thousands(n)),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "Postgres",
        })
    }
}

/// A number with a comma after every three digits.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn every_account_is_within_reach_and_none_beyond() {
        for skewed in [false, true] {
            let spread = Spread {
                accounts: 1_000,
                skewed,
            };
            assert_eq!(spread.pick(0), 0);
            assert_eq!(spread.pick(u64::MAX), 999);
        }
        let skewed = Spread {
            accounts: 100_000,
            skewed: true,
        };
        // Half of the requests go to the first 316 of 100,000.
        assert_eq!(skewed.pick(u64::MAX / 2), 315);
    }

    #[test]
    fn quick_is_small_and_full_is_whole() {
        let quick = Plan::new(&Arguments::parse_from(["bench", "--quick"]));
        assert_eq!((quick.rounds, quick.accounts_max()), (1, 100));
        let full = Plan::new(&Arguments::parse_from(["bench"]));
        assert_eq!(full.stored, [0, 10_000_000]);
        assert_eq!(full.spreads.len(), 4);
        assert_eq!(thousands(1_234_567), "1,234,567");
        let brief = Plan::new(&Arguments::parse_from(["bench", "--brief"]));
        assert_eq!(brief.time, Duration::from_millis(2500));
        let measured = |stored| {
            brief
                .spreads
                .iter()
                .filter(|s| brief.measures(**s, stored))
                .count()
        };
        assert_eq!((measured(0), measured(10_000_000)), (4, 1));
        assert!(!brief.wants(Kind::Sqlite, 10_000_000));
    }
}
