//! The replicas of a run: started, killed, frozen, shut down, and started again.

use std::{sync::Arc, time::Duration};

use billing::ReplicaId;
use store::{Ledger, LedgerOptions, Store, simulation::Node};
use tokio::{task::JoinSet, time::Instant};

use crate::{request, trace::pass, world::World};

/// How long leases are good for in a simulation, and what is waited for after that.
pub(crate) const TTL: Duration = Duration::from_secs(3);
pub(crate) const MARGIN: Duration = Duration::from_millis(600);

pub(crate) fn options() -> LedgerOptions {
    LedgerOptions {
        lease_ttl: TTL,
        lease_margin: MARGIN,
        poll: Duration::from_millis(200),
        chores: Duration::from_millis(400),
        idle: Duration::from_secs(1),
        ..LedgerOptions::default()
    }
}

/// One process while it lives.
#[derive(Debug)]
pub(crate) struct Replica {
    /// Rising with every start of any replica.
    pub(crate) run: u32,
    pub(crate) node: Node,
    pub(crate) ledger: Ledger,
    pub(crate) since: Instant,
    /// The name that it started under; another one means that it was taken for dead.
    pub(crate) first_name: ReplicaId,
    clients: JoinSet<()>,
}

impl Replica {
    /// Starts a process, as often as it takes.
    pub(crate) async fn start(world: &Arc<World>, place: u32) -> Self {
        loop {
            let run = world.next_run();
            let node = Node::new(&world.database, run);
            let started = async {
                let store = Store::simulated(&node).await?;
                Ledger::start(store, options()).await
            };
            match started.await {
                Ok(ledger) => {
                    let first_name = ledger.escrow().replica();
                    world
                        .trace
                        .say(format!("replica {place} is run {run}: {first_name}"));
                    let mut clients = JoinSet::new();
                    for client in 0..world.clients {
                        let task = request::client(Arc::clone(world), ledger.clone(), run, client);
                        clients.spawn(node.task(task));
                    }
                    return Self {
                        run,
                        node,
                        ledger,
                        since: Instant::now(),
                        first_name,
                        clients,
                    };
                }
                Err(error) => {
                    world
                        .trace
                        .say(format!("replica {place} did not start: {error}"));
                    pass(Duration::from_millis(300)).await;
                }
            }
        }
    }

    /// `kill -9`: nothing of it reaches anybody from now on.
    pub(crate) fn kill(mut self, world: &World) {
        world.trace.say(format!("run {} is killed", self.run));
        self.node.kill();
        self.clients.abort_all();
        world
            .oracle
            .killed(self.run, self.ledger.escrow().replica());
    }

    /// `SIGTERM`: running requests end, everything is written. Killed when that fails.
    pub(crate) async fn stop(mut self, world: &World) {
        world
            .trace
            .say(format!("run {} is asked to stop", self.run));
        world.oracle.stopping(self.run);
        let written = self.ledger.shutdown(Duration::from_secs(8)).await;
        world.trace.say(format!(
            "run {} stopped; everything written: {written}",
            self.run
        ));
        self.node.kill();
        self.clients.abort_all();
        while let Some(ended) = self.clients.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                world
                    .oracle
                    .blame(format!("a client of run {} panicked: {error}", self.run));
            }
        }
        if written {
            world.oracle.stopped(self.run);
        } else {
            world
                .oracle
                .killed(self.run, self.ledger.escrow().replica());
        }
    }
}
