//! A month is closed: its charges give way to sums that stay, without any balance changing.

use std::{collections::BTreeSet, io::BufRead, time::Duration};

use billing::{AccountId, EntryId, RequestId};
use uuid::Uuid;

use crate::{
    Export, Month, Store, StoreError, book,
    charge::{USAGE_COLUMNS, admitted_us},
    check, clock,
    export::{READ_MAX, be_patient, not_closable},
    link::Link,
    month::PARTITIONS_LOCK,
    sql::{Flavor, Rows, hex, sql},
};

/// No month is closed sooner after its end. Settlements come within seconds; a stream that
/// lives longer than this has a checkpoint, which is looked for.
pub const CLOSE_AFTER_MIN: Duration = Duration::from_secs(2 * 24 * 3600);
/// A settlement of a younger request belongs to no closed month; half of [`CLOSE_AFTER_MIN`], so
/// that the clocks of gateway and database may differ.
const OLD_US: i64 = 24 * 3600 * 1_000_000;
/// Shared by every batch with an old settlement, until its commit; alone by who closes a month.
const OLD_LOCK: i64 = 0x746f_6c6c_7761_7902;
/// Removing a partition waits so long for those who read charges, while others wait behind it,
const DROP_LOCK: Duration = Duration::from_millis(300);
/// lets them go on for so long,
const DROP_PAUSE: Duration = Duration::from_millis(500);
/// and tries again for so long.
const DROP_WITHIN: Duration = Duration::from_secs(120);
/// What is said of a settlement that came too late.
pub(crate) const MONTH_CLOSED: &str =
    "its month is closed; whether it was charged before stands in the export of the month";

/// A month that was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedMonth {
    /// Which month.
    pub month: Month,
    /// What its charges added up to, as exported.
    pub export: Export,
    /// How many rows keep the sums.
    pub closings: u64,
    /// How many accounts got an entry.
    pub entries: u64,
}

impl Store {
    /// Closes a month: its charges, which must be in `file` as [`Store::export_month`] wrote it,
    /// are summed up in closings (one row for each account, key, model, provider and end) and in
    /// one entry an account, and removed, all in one transaction. Balances, what was spent and
    /// what the operator bore stay as they are. Settlements of the month that come later are put
    /// aside. `after` is how long the month must be over, at least [`CLOSE_AFTER_MIN`].
    ///
    /// # Errors
    /// [`StoreError::NotClosable`] with what is in the way, [`StoreError::Export`] when the file
    /// is not the month.
    pub async fn close_month(
        &self,
        month: Month,
        file: &mut (impl BufRead + Send),
        after: Duration,
    ) -> Result<ClosedMonth, StoreError> {
        self.fence_month(month, after.max(CLOSE_AFTER_MIN)).await?;
        let closed = async {
            let export = self.verify_export(month, file).await?;
            self.replace_month(month, export).await
        };
        let closed = closed.await;
        if closed.is_err() {
            // Where this fails too, the next attempt finds the month fenced and goes on.
            self.unfence_month(month).await?;
        }
        closed
    }

    /// From here on no settlement of the month is booked.
    async fn fence_month(&self, month: Month, after: Duration) -> Result<(), StoreError> {
        let (first, end) = month.ids()?;
        let over = month.next()?.start()?;
        let mut tx = self.begin().await?;
        let mut link = tx.link();
        // Waits for the batches that may be booking into the month.
        advisory_lock(&mut link, "pg_advisory_xact_lock", OLD_LOCK).await?;
        let now = book::now(&mut link).await?.0;
        let needed = i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
        if now.saturating_sub(over.as_microsecond()) < needed {
            let days = after.as_secs() / (24 * 3600);
            return Err(not_closable(
                month,
                format!("it must be over for {days} days, and ends at {over}"),
            ));
        }
        let state = sql("SELECT state FROM closed_months WHERE month = ?");
        let state: Option<(String,)> = link.maybe(state.text(&month.to_string())).await?;
        if state.is_some_and(|(state,)| state == "closed") {
            return Err(not_closable(month, "it is closed already"));
        }
        if let Some(why) = in_the_way(&mut link, (first, end), over.as_microsecond()).await? {
            return Err(not_closable(month, why));
        }
        let fence = sql(
            "INSERT INTO closed_months (month, first_id, end_id, state, since) \
             SELECT ?, ?, ?, 'closing', {now} WHERE true ON CONFLICT (month) DO NOTHING",
        );
        let fence = fence.text(&month.to_string()).uuid(first).uuid(end);
        link.run(fence).await?;
        tx.commit().await
    }

    async fn unfence_month(&self, month: Month) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let open = sql("DELETE FROM closed_months WHERE month = ? AND state = 'closing'");
        tx.link().run(open.text(&month.to_string())).await?;
        tx.commit().await
    }

    /// The transaction that puts sums in the place of charges.
    async fn replace_month(&self, month: Month, export: Export) -> Result<ClosedMonth, StoreError> {
        let name = month.to_string();
        let mut tx = self.begin().await?;
        let mut link = tx.link();
        be_patient(&mut link).await?;
        advisory_lock(&mut link, "pg_advisory_xact_lock", PARTITIONS_LOCK).await?;
        let dropping = sql("UPDATE closed_months SET state = 'dropping' \
             WHERE month = ? AND state = 'closing'");
        if link.run(dropping.text(&name)).await? == 0 {
            return Err(not_closable(month, "somebody else closes it or gave it up"));
        }
        let closings = insert_closings(&mut link, month).await?;
        let booked = sql("SELECT CAST(COALESCE(SUM(requests), 0) AS bigint), \
             CAST(COALESCE(SUM(cost), 0) AS bigint), CAST(COALESCE(SUM(charged), 0) AS bigint), \
             CAST(COALESCE(SUM(house_loss), 0) AS bigint) FROM closings WHERE month = ?");
        let booked: (i64, i64, i64, i64) = link.one(booked.text(&name)).await?;
        let sums = &export.sums;
        let exported = (
            check::pinned(sums.charges),
            sums.cost.nanos(),
            sums.charged.nanos(),
            sums.house_loss.nanos(),
        );
        if booked != exported {
            return Err(StoreError::Export(
                "the charges have changed since; export the month again".into(),
            ));
        }
        let entries = insert_entries(&mut link, month).await?;
        remove_charges(&mut link, month).await?;
        let close = sql(
            "UPDATE closed_months SET state = 'closed', requests = ?, cost = ?, \
             charged = ?, house_loss = ?, export_sha256 = ?, since = {now} WHERE month = ?",
        );
        let close = close
            .int(booked.0)
            .int(booked.1)
            .int(booked.2)
            .int(booked.3);
        let close = close.bytes(&unhex(&export.sha256)).text(&name);
        link.run(close).await?;
        // Last, because from here on others wait.
        drop_partition(&mut link, month).await?;
        tx.commit().await?;
        Ok(ClosedMonth {
            month,
            export,
            closings,
            entries,
        })
    }
}

/// Which of these requests must not be booked because their month is closed. The rest stays
/// bookable until the caller's commit.
pub(crate) async fn closed(
    link: &mut Link<'_>,
    requests: &BTreeSet<(AccountId, RequestId)>,
    now_us: i64,
) -> Result<BTreeSet<RequestId>, StoreError> {
    let old: Vec<_> = requests
        .iter()
        .filter(|(_, id)| admitted_us(*id) < now_us.saturating_sub(OLD_US))
        .collect();
    if old.is_empty() {
        return Ok(BTreeSet::new());
    }
    advisory_lock(link, "pg_advisory_xact_lock_shared", OLD_LOCK).await?;
    let rows = Rows::new()
        .uuid("account_id", old.iter().map(|r| r.0.uuid()))
        .uuid("id", old.iter().map(|r| r.1.uuid()));
    // One that is booked all the same was resolved by hand: booking it again changes nothing.
    let select = sql("SELECT s.id FROM {rows} JOIN closed_months m \
           ON s.id >= m.first_id AND s.id < m.end_id \
         WHERE NOT EXISTS (SELECT 1 FROM charges c \
           WHERE c.account_id = s.account_id AND c.id = s.id)");
    let closed: Vec<(Uuid,)> = link.all(select.rows(rows)).await?;
    Ok(closed
        .into_iter()
        .map(|(id,)| RequestId::from_uuid(id))
        .collect())
}

/// Waits for a lock of Postgres', by the function that takes it, and holds it until the commit.
/// SQLite has one writer and needs none.
async fn advisory_lock(
    link: &mut Link<'_>,
    function: &'static str,
    key: i64,
) -> Result<(), StoreError> {
    match link.flavor() {
        Flavor::Sqlite => {}
        Flavor::Postgres => {
            let lock = sql(format!("SELECT CAST({function}(?) AS text)"));
            link.one::<(String,)>(lock.int(key)).await?;
        }
    }
    Ok(())
}

/// What speaks against closing: requests of the month that are not booked yet.
async fn in_the_way(
    link: &mut Link<'_>,
    (first, end): (Uuid, Uuid),
    over_us: i64,
) -> Result<Option<String>, StoreError> {
    let running = sql("SELECT request_id FROM checkpoints \
         WHERE request_id >= ? AND request_id < ? ORDER BY request_id LIMIT 1");
    let running: Option<(Uuid,)> = link.maybe(running.uuid(first).uuid(end)).await?;
    if let Some((id,)) = running {
        let id = RequestId::from_uuid(id);
        return Ok(Some(format!("{id} has a checkpoint and is not booked yet")));
    }
    let dead = sql("SELECT d.request_id FROM dead_settlements d \
         LEFT JOIN resolutions r ON r.account_id = d.account_id AND r.request_id = d.request_id \
         WHERE d.request_id >= ? AND d.request_id < ? AND r.request_id IS NULL \
         ORDER BY d.request_id LIMIT 1");
    let dead: Option<(Uuid,)> = link.maybe(dead.uuid(first).uuid(end)).await?;
    if let Some((id,)) = dead {
        let id = RequestId::from_uuid(id);
        return Ok(Some(format!(
            "the settlement of {id} was put aside; see `tollway settlements`"
        )));
    }
    let lost = sql(
        "SELECT id FROM replicas WHERE state = 'alive' AND started_at < ? \
         AND heartbeat_at < {now} - ttl - 60000000 ORDER BY id LIMIT 1",
    );
    let lost: Option<(Uuid,)> = link.maybe(lost.int(over_us)).await?;
    Ok(lost.map(|(id,)| {
        let id = billing::ReplicaId::from_uuid(id);
        format!("{id} was lost and what it served is not booked yet; a running gateway does that")
    }))
}

async fn insert_closings(link: &mut Link<'_>, month: Month) -> Result<u64, StoreError> {
    let (first, end) = month.ids()?;
    let sums: Vec<_> = ["cost", "charged", "house_loss"]
        .into_iter()
        .chain(USAGE_COLUMNS.split(", "))
        .map(|column| format!("CAST(SUM({column}) AS bigint)"))
        .collect();
    let insert = sql(format!(
        "INSERT INTO closings (account_id, key_id, month, model, provider, ended, requests, \
           late_loss, provider_cost, cost, charged, house_loss, {USAGE_COLUMNS}) \
         SELECT account_id, key_id, ?, model, provider, ended, COUNT(*), \
           CAST(SUM(CASE WHEN late THEN house_loss ELSE 0 END) AS bigint), \
           CAST(SUM(COALESCE(provider_cost, cost)) AS bigint), {} \
         FROM charges WHERE id >= ? AND id < ? \
         GROUP BY account_id, key_id, model, provider, ended",
        sums.join(", ")
    ));
    let insert = insert.text(&month.to_string()).uuid(first).uuid(end);
    link.run_within(insert, READ_MAX).await
}

/// One entry for each account that was charged, of minus what it was.
async fn insert_entries(link: &mut Link<'_>, month: Month) -> Result<u64, StoreError> {
    let insert = sql(
        "INSERT INTO entries (account_id, id, kind, amount, reference, created_at) \
         SELECT account_id, ?, 'closing', CAST(-SUM(charged) AS bigint), ?, {now} FROM closings \
         WHERE month = ? GROUP BY account_id HAVING SUM(charged) > 0",
    );
    let insert = insert
        .uuid(closing_entry_id(month)?.uuid())
        .text(&format!("charges of {month}"))
        .text(&month.to_string());
    link.run_within(insert, READ_MAX).await
}

/// The id of a month's entries, the same in every account: the last of the month, so that the
/// entry is listed where the charges were, and a month cannot be closed twice.
pub(crate) fn closing_entry_id(month: Month) -> Result<EntryId, StoreError> {
    let (_, end) = month.ids()?;
    let millisecond = (end.as_u128() >> 80).saturating_sub(1);
    let version_7 = 0x7fff_bfff_ffff_ffff_ffff;
    Ok(EntryId::from_uuid(Uuid::from_u128(
        (millisecond << 80) | version_7,
    )))
}

/// Deletes what no partition takes with it.
async fn remove_charges(link: &mut Link<'_>, month: Month) -> Result<(), StoreError> {
    let (first, end) = month.ids()?;
    let delete = match link.flavor() {
        Flavor::Sqlite => "DELETE FROM charges WHERE id >= ? AND id < ?",
        Flavor::Postgres => "DELETE FROM charges_other WHERE id >= ? AND id < ?",
    };
    let delete = sql(delete).uuid(first).uuid(end);
    link.run_within(delete, READ_MAX).await?;
    Ok(())
}

/// Drops the month's partition, which waits for everybody who reads charges: briefly, and again.
async fn drop_partition(link: &mut Link<'_>, month: Month) -> Result<(), StoreError> {
    match link.flavor() {
        Flavor::Sqlite => return Ok(()),
        Flavor::Postgres => {}
    }
    let patience = DROP_LOCK.as_millis();
    link.run(sql(format!("SET LOCAL lock_timeout = {patience}")))
        .await?;
    let until = clock::now() + DROP_WITHIN;
    loop {
        link.run(sql("SAVEPOINT before_drop")).await?;
        let drop = sql(format!("DROP TABLE IF EXISTS {}", month.partition()));
        match link.run(drop).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_lock_timeout() && clock::now() < until => {
                link.run(sql("ROLLBACK TO SAVEPOINT before_drop")).await?;
                tokio::time::sleep(DROP_PAUSE).await;
            }
            Err(error) if error.is_lock_timeout() => {
                return Err(not_closable(month, "charges are being read all the time"));
            }
            Err(error) => return Err(error),
        }
    }
}

/// The bytes of a hexadecimal text of ours.
fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .filter_map(|digit| u8::try_from(digit).ok())
        .collect();
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| (byte << 4) | digit))
        .collect();
    debug_assert_eq!(hex(&bytes), text, "hexadecimal of ours");
    bytes
}
