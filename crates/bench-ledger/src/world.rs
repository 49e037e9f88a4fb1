//! A database with its books, ready to be measured.

use std::{path::PathBuf, sync::Arc};

use billing::{Credits, Price, PriceId, Rates};
use store::{OpenOptions, Store, StoreUrl};
use tempfile::TempDir;
use throwaway_postgres::{Cluster, Options};
use uuid::Uuid;

use crate::{books, cpu::Meter, error::BenchError, plan::Kind, raw::Raw};

/// Where databases are made: a folder or a cluster, gone when it is dropped.
pub(crate) struct Place {
    folder: TempDir,
    cluster: Option<Cluster>,
}

/// One database.
pub(crate) struct World {
    /// Which database.
    pub(crate) kind: Kind,
    /// Its address.
    pub(crate) url: String,
    /// Charges that were stored before the first run.
    pub(crate) stored: u64,
    /// The ledger's store.
    pub(crate) store: Store,
    /// What a request costs: a nano-credit a token of output.
    pub(crate) price: Arc<Price>,
    /// Its version.
    pub(crate) price_id: PriceId,
    /// Whose processor time counts.
    pub(crate) meter: Meter,
}

impl Place {
    /// A place for databases of this kind. Blocks.
    pub(crate) fn new(kind: Kind) -> Result<Self, BenchError> {
        let cluster = match kind {
            Kind::Sqlite => None,
            Kind::Postgres => Some(Cluster::start_with(
                // What every operator sets, a fraction of the memory and fewer checkpoints;
                // everything that makes a commit durable is as it comes.
                Options::default()
                    .setting("shared_buffers", "4GB")
                    .setting("max_wal_size", "8GB")
                    .setting("min_wal_size", "2GB"),
            )?),
        };
        Ok(Self {
            folder: tempfile::Builder::new().prefix("bench-ledger-").tempdir()?,
            cluster,
        })
    }

    fn fresh_url(&self) -> Result<String, BenchError> {
        Ok(match &self.cluster {
            None => {
                let name = format!("{}.db", Uuid::now_v7().simple());
                format!("sqlite://{}", self.folder.path().join(name).display())
            }
            Some(cluster) => cluster.fresh_database()?,
        })
    }

    fn meter(&self) -> Meter {
        match &self.cluster {
            None => Meter::here(),
            Some(cluster) => {
                let data = cluster.data_dir();
                let data: PathBuf = data.canonicalize().unwrap_or(data);
                Meter::with_cluster(data, cluster.pid())
            }
        }
    }
}

impl World {
    /// A database with this many accounts and charges.
    pub(crate) async fn new(
        place: &Place,
        kind: Kind,
        accounts: u64,
        stored: u64,
    ) -> Result<Self, BenchError> {
        let url = place.fresh_url()?;
        let store = Store::open(&StoreUrl::parse(&url)?, OpenOptions::default()).await?;
        let a_token = Credits::from_nanos(1_000_000);
        let price = Price::new(Rates::plain(Credits::ZERO, a_token), Vec::new())?;
        let price_id = price.id()?;
        let text = price.to_json()?;
        store
            .record_prices(&[(price_id, "bench", "bench", &text)])
            .await?;
        let mut raw = Raw::open(&url).await?;
        books::add_accounts(&mut raw, accounts).await?;
        books::add_charges(&mut raw, stored, accounts, price_id.uuid()).await?;
        books::settle_down(&mut raw).await?;
        Ok(Self {
            kind,
            url,
            stored,
            store,
            price: Arc::new(price),
            price_id,
            meter: place.meter(),
        })
    }

    /// Fails unless the audit finds the books balanced.
    pub(crate) async fn audit(&self, run: &str) -> Result<(), BenchError> {
        let audit = self.store.audit().await?;
        let Some(broken) = audit.checks.iter().find(|check| !check.ok) else {
            return Ok(());
        };
        Err(BenchError::Books {
            run: run.to_owned(),
            what: match &broken.first_broken {
                Some(row) => format!("{}: {row}", broken.says),
                None => broken.says.to_owned(),
            },
        })
    }
}
