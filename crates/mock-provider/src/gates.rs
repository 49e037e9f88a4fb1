//! Gates: named points at which answers wait until a test lets them go on.

use std::collections::HashSet;

use tokio::sync::watch;

/// The gates that are open. A gate, once open, stays open.
#[derive(Debug)]
pub(crate) struct Gates {
    open: watch::Sender<HashSet<String>>,
}

impl Gates {
    pub(crate) fn new() -> Self {
        Self {
            open: watch::Sender::new(HashSet::new()),
        }
    }

    pub(crate) fn open(&self, gate: &str) {
        self.open.send_modify(|open| {
            open.insert(gate.to_owned());
        });
    }

    /// Ends when the gate is open. Never, should the provider be gone: its connections are too.
    pub(crate) fn passed(&self, gate: String) -> impl Future<Output = ()> + Send + use<> {
        let mut open = self.open.subscribe();
        async move {
            if open.wait_for(|open| open.contains(&gate)).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
