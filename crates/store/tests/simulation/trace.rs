//! What happened in a run, as lines: hashed always, printed on replay.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

/// Lets simulated time pass; nobody waits.
pub(crate) async fn pass(time: Duration) {
    // tidy: sleeps because this is what simulated time consists of.
    tokio::time::sleep(time).await;
}

/// The trace of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    epoch: Instant,
    print: bool,
    state: Mutex<(u64, u64)>,
}

impl Trace {
    pub(crate) fn new(print: bool) -> Self {
        Self {
            epoch: Instant::now(),
            print,
            // The offset basis of FNV-1a.
            state: Mutex::new((0xcbf2_9ce4_8422_2325, 0)),
        }
    }

    pub(crate) fn say(&self, line: impl AsRef<str>) {
        let at = self.epoch.elapsed();
        let line = format!("{:>9.3} {}", at.as_secs_f64(), line.as_ref());
        let mut state = self.state.lock().unwrap();
        for byte in line.bytes() {
            state.0 = (state.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        state.1 += 1;
        drop(state);
        if self.print {
            println!("{line}");
        }
    }

    /// The hash of all lines, and how many there were.
    pub(crate) fn end(&self) -> (u64, u64) {
        *self.state.lock().unwrap()
    }
}
