//! `tollway charges`: a month is exported to a file, and closed when the file is safe.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use serde_json::{Value, json};
use store::{ClosedMonth, Export, Month, Store};

use super::{CommandError, database, print};
use crate::cli::ChargesCommand;

const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) async fn run(command: ChargesCommand) -> Result<ExitCode, CommandError> {
    match command {
        ChargesCommand::Export {
            flags,
            month,
            to,
            json,
        } => {
            let month: Month = month.parse()?;
            let (url, options) = database::named_by(&flags)?;
            let store = Store::open_read_only(&url, options).await?;
            let export = export(&store, month, &to).await?;
            show(json, &exported(&export, &to))?;
        }
        ChargesCommand::Close {
            flags,
            month,
            export,
            after_days,
            json,
        } => {
            let month: Month = month.parse()?;
            let (url, options) = database::named_by(&flags)?;
            let store = Store::open_beside(&url, options).await?;
            let file = File::open(&export).map_err(|error| unusable(&export, &error))?;
            let mut file = BufReader::new(file);
            let closed = store
                .close_month(month, &mut file, DAY * after_days)
                .await?;
            show(json, &closing(&closed))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the month into a new file that is on the disk when this returns; nothing is left of it
/// where that fails.
async fn export(store: &Store, month: Month, to: &Path) -> Result<Export, CommandError> {
    let mut options = File::options();
    options.write(true).create_new(true);
    // What every customer did is nobody else's to read.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(to).map_err(|error| unusable(to, &error))?;
    let written = async {
        let mut out = BufWriter::new(&file);
        let export = store.export_month(month, &mut out).await?;
        out.flush().map_err(|error| unusable(to, &error))?;
        file.sync_all().map_err(|error| unusable(to, &error))?;
        sync_folder(to).map_err(|error| unusable(to, &error))?;
        Ok(export)
    };
    let written = written.await;
    if written.is_err() {
        // What is left without its last line is no export; it only takes up room.
        let _ = fs::remove_file(to);
    }
    written
}

/// A file's name is on the disk when its folder is.
fn sync_folder(of: &Path) -> io::Result<()> {
    let folder = of.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn unusable(file: &Path, error: &io::Error) -> CommandError {
    let file = file.display();
    CommandError::Argument(if error.kind() == io::ErrorKind::AlreadyExists {
        format!("{file} is there already and is not overwritten; name another")
    } else {
        format!("{file}: {error}")
    })
}

fn show(as_json: bool, value: &Value) -> Result<(), CommandError> {
    if as_json {
        print::json(value)?;
        return Ok(());
    }
    let pairs: Vec<(&str, String)> = value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_object())
        .map(|(name, _)| (name.as_str(), print::cell(value, name)))
        .collect();
    print::record(&pairs)?;
    Ok(())
}

fn exported(export: &Export, to: &Path) -> Value {
    json!({
        "object": "charges_export",
        "month": export.month,
        "file": to.display().to_string(),
        "charges": export.sums.charges,
        "cost": export.sums.cost,
        "charged": export.sums.charged,
        "house_loss": export.sums.house_loss,
        "usage": export.sums.usage,
        "sha256": export.sha256,
    })
}

fn closing(closed: &ClosedMonth) -> Value {
    let sums = &closed.export.sums;
    json!({
        "object": "charges_closing",
        "month": closed.month.to_string(),
        "charges": sums.charges,
        "cost": sums.cost,
        "charged": sums.charged,
        "house_loss": sums.house_loss,
        "usage": sums.usage,
        "closings": closed.closings,
        "entries": closed.entries,
        "sha256": closed.export.sha256,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use billing::{
        Capture, Credits, End, Price, Rates, ReplicaId, RequestFacts, RequestId, Settlement,
        Timings,
    };
    use jiff::{Timestamp, ToSpan as _};
    use store::{Ledger, LedgerOptions, NewKey, OpenOptions, StoreUrl};
    use tokens::{Usage, UsageSource};
    use uuid::Uuid;

    use super::*;
    use crate::{
        cli::{Flags, SettlementsCommand},
        commands::{audit, settlements},
    };

    /// A running gateway's ledger on an embedded database.
    struct World {
        folder: tempfile::TempDir,
        url: String,
        ledger: Ledger,
        account: billing::AccountId,
        key: billing::KeyId,
        price: billing::PriceId,
    }

    async fn world() -> World {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/data/tollway.db", folder.path().display());
        let store = Store::open(&StoreUrl::parse(&url).unwrap(), OpenOptions::default())
            .await
            .unwrap();
        let rates = Rates::plain(Credits::ZERO, Credits::from_nanos(1_000_000));
        let price = Price::new(rates, Vec::new()).unwrap();
        let id = price.id().unwrap();
        store
            .record_prices(&[(id, "acme", "m", &price.to_json().unwrap())])
            .await
            .unwrap();
        let made = store
            .create_key(NewKey {
                name: "k".into(),
                credits: Some(Credits::from_nanos(100)),
                ..NewKey::default()
            })
            .await
            .unwrap();
        let ledger = Ledger::start(store, LedgerOptions::default())
            .await
            .unwrap();
        World {
            folder,
            url,
            ledger,
            account: made.account.id,
            key: made.key.id,
            price: id,
        }
    }

    impl World {
        fn flags(&self) -> Flags {
            Flags {
                database_url: Some(self.url.clone()),
                ..Flags::default()
            }
        }

        /// A request of the month, of one nano-credit.
        fn settle(&self, month: Month) -> RequestId {
            let at = month.start().unwrap() + 30.hours();
            let ms = u128::try_from(at.as_millisecond()).unwrap();
            let low = Uuid::now_v7().as_u128() & ((1 << 80) - 1);
            let request_id = RequestId::from_uuid(Uuid::from_u128((ms << 80) | low));
            let one = Credits::from_nanos(1);
            self.ledger.reserve().unwrap().send(Settlement {
                facts: Arc::new(RequestFacts {
                    request_id,
                    account_id: self.account,
                    key_id: self.key,
                    key_has_limit: false,
                    endpoint: "chat.completions",
                    model: "m".into(),
                    provider: "acme".into(),
                    price_id: self.price,
                    stream: false,
                }),
                lease: ReplicaId::from_uuid(Uuid::nil()),
                checkpointed: false,
                end: End::Completed,
                usage: Usage {
                    completion: 1,
                    ..Usage::default()
                },
                source: UsageSource::Reported,
                raw_usage: None,
                counted: None,
                provider_cost: None,
                capture: Capture {
                    cost: one,
                    owed: one,
                    ..Capture::default()
                },
                timings: Timings::default(),
            });
            request_id
        }

        async fn written(&self) {
            while self.ledger.stats().in_flight > 0 {
                tokio::task::yield_now().await;
            }
            // Told after everything that came before it.
            self.ledger.balance(self.account).await.unwrap();
        }

        async fn export(&self, month: &str, to: &Path) -> Result<ExitCode, CommandError> {
            run(ChargesCommand::Export {
                flags: self.flags(),
                month: month.into(),
                to: to.into(),
                json: true,
            })
            .await
        }

        async fn close(&self, month: &str, file: &Path) -> Result<ExitCode, CommandError> {
            run(ChargesCommand::Close {
                flags: self.flags(),
                month: month.into(),
                export: file.into(),
                after_days: 35,
                json: false,
            })
            .await
        }
    }

    fn months_ago(months: i64) -> Month {
        let now = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
        Month::of(now.checked_sub(months.months()).unwrap().timestamp())
    }

    #[tokio::test]
    async fn a_month_is_exported_and_closed_beside_a_running_gateway() {
        let world = world().await;
        let month = months_ago(3);
        world.settle(month);
        world.settle(month);
        world.written().await;
        let name = month.to_string();
        let file = world.folder.path().join("export.jsonl");
        world.export(&name, &file).await.unwrap();
        let lines = fs::read_to_string(&file).unwrap();
        assert_eq!(lines.lines().count(), 3);
        assert!(lines.contains("\"cost\":\"0.000000001\""), "{lines}");
        #[cfg(unix)]
        for (path, mode) in [
            ("export.jsonl", 0o600),
            ("data", 0o700),
            ("data/tollway.db", 0o600),
        ] {
            use std::os::unix::fs::PermissionsExt as _;
            let path = world.folder.path().join(path);
            let is = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(is, mode, "{}", path.display());
        }
        let refused = world.export(&name, &file).await.unwrap_err().to_string();
        assert!(refused.contains("not overwritten"), "{refused}");
        for (month, file, said) in [
            ("2026-13", &file, "a month"),
            (&months_ago(1).to_string(), &file, "over for 35 days"),
            (&name, &world.folder.path().join("none"), "none"),
        ] {
            let refused = world.close(month, file).await.unwrap_err().to_string();
            assert!(refused.contains(said), "{refused}");
        }
        world.close(&name, &file).await.unwrap();
        assert!(world.close(&name, &file).await.is_err());
        assert_eq!(
            audit::run(&world.flags(), true).await.unwrap(),
            ExitCode::SUCCESS
        );

        // One that comes too late waits for a decision.
        let late = world.settle(month);
        world.written().await;
        assert_eq!(
            audit::run(&world.flags(), false).await.unwrap(),
            ExitCode::FAILURE
        );
        let list = SettlementsCommand::List {
            flags: world.flags(),
            all: false,
            page: crate::cli::PageFlags {
                limit: 10,
                cursor: None,
            },
            json: false,
        };
        settlements::run(list).await.unwrap();
        let resolve = |way: &str| SettlementsCommand::Resolve {
            flags: world.flags(),
            request: late.to_string(),
            resolved_as: way.into(),
            note: "not in the export".into(),
            json: true,
        };
        assert!(settlements::run(resolve("house")).await.is_err());
        settlements::run(resolve("charge")).await.unwrap();
        assert!(settlements::run(resolve("drop")).await.is_err());
        assert_eq!(
            audit::run(&world.flags(), true).await.unwrap(),
            ExitCode::SUCCESS
        );
        let balance = world.ledger.balance(world.account).await.unwrap();
        assert_eq!(balance.total, Credits::from_nanos(97));
        assert!(world.ledger.shutdown(Duration::from_secs(10)).await);
    }
}
