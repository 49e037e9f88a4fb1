//! The rows that a request leaves behind: its charge, its checkpoint before that, and what the operator bore.

use billing::{
    AccountId, Checkpoint, Counted, Credits, End, KeyId, PriceId, ReplicaId, RequestId, Settlement,
    rules::Due,
};
use serde::{Deserialize, Serialize};
use tokens::{Bucket, Usage, UsageSource};
use uuid::Uuid;

use crate::{
    StoreError,
    book::insert,
    charge::{USAGE_COLUMNS, UsageColumns, admitted_us, source_name},
    check,
    link::Link,
    sql::{Rows, sql},
};

/// What the operator bears because usage was above what was held and more was not there.
pub(crate) const USAGE_ABOVE_HOLD: &str = "usage_above_hold";
/// What the operator bears because its lease had been taken back when the settlement arrived.
pub(crate) const LATE_SETTLEMENT: &str = "late_settlement";

/// A charge about to be written.
#[derive(Clone, Debug)]
pub(crate) struct NewCharge<'a> {
    pub(crate) due: Due,
    pub(crate) endpoint: &'a str,
    pub(crate) model: &'a str,
    pub(crate) provider: &'a str,
    pub(crate) price_id: PriceId,
    pub(crate) stream: bool,
    pub(crate) charged: Credits,
    pub(crate) house_loss: Credits,
    pub(crate) source: UsageSource,
    pub(crate) usage: Usage,
    pub(crate) counted: Option<Counted>,
    pub(crate) provider_cost: Option<Credits>,
    pub(crate) raw_usage: Option<&'a str>,
    pub(crate) first_token_us: Option<u64>,
    pub(crate) duration_us: u64,
    pub(crate) late: bool,
}

impl<'a> NewCharge<'a> {
    pub(crate) fn of(settlement: &'a Settlement, charged: Credits, house_loss: Credits) -> Self {
        let facts = &settlement.facts;
        Self {
            due: due(settlement),
            endpoint: facts.endpoint,
            model: &facts.model,
            provider: &facts.provider,
            price_id: facts.price_id,
            stream: facts.stream,
            charged,
            house_loss,
            source: settlement.source,
            usage: settlement.usage,
            counted: settlement.counted,
            provider_cost: settlement.provider_cost,
            raw_usage: settlement.raw_usage.as_deref(),
            first_token_us: settlement.timings.first_token_us,
            duration_us: settlement.timings.duration_us,
            late: false,
        }
    }
}

/// What the rules need of a settlement.
pub(crate) fn due(settlement: &Settlement) -> Due {
    Due {
        request: settlement.facts.request_id,
        account: settlement.facts.account_id,
        key: settlement.facts.key_id,
        lease: settlement.lease,
        end: settlement.end,
        checkpoint: false,
        cost: settlement.capture.cost,
        charged: settlement.capture.charged,
        owed: settlement.capture.owed,
        house_loss: settlement.capture.house_loss,
    }
}

/// The same with nothing for the customer to pay: the client has run the request anew since.
pub(crate) fn borne_by_the_house(due: Due) -> Due {
    Due {
        charged: Credits::ZERO,
        owed: Credits::ZERO,
        house_loss: due.cost,
        ..due
    }
}

/// Writes charges; none of them may be there yet.
pub(crate) async fn insert_charges(
    link: &mut Link<'_>,
    charges: &[NewCharge<'_>],
    now_us: i64,
) -> Result<(), StoreError> {
    if charges.is_empty() {
        return Ok(());
    }
    // Postgres refuses a NUL in text; JSON never has a bare one, so nothing true is lost.
    let raw: Vec<Option<String>> = charges
        .iter()
        .map(|c| c.raw_usage.map(|raw| raw.replace('\0', "")))
        .collect();
    let rows = Rows::new()
        .uuid("account_id", charges.iter().map(|c| c.due.account.uuid()))
        .uuid("id", charges.iter().map(|c| c.due.request.uuid()))
        .uuid("key_id", charges.iter().map(|c| c.due.key.uuid()))
        .text("endpoint", charges.iter().map(|c| c.endpoint))
        .text("model", charges.iter().map(|c| c.model))
        .text("provider", charges.iter().map(|c| c.provider))
        .uuid("price_id", charges.iter().map(|c| c.price_id.uuid()))
        .bool("stream", charges.iter().map(|c| c.stream))
        .text("ended", charges.iter().map(|c| c.due.end.as_str()))
        .int("cost", charges.iter().map(|c| c.due.cost.nanos()))
        .int("charged", charges.iter().map(|c| c.charged.nanos()))
        .int("house_loss", charges.iter().map(|c| c.house_loss.nanos()))
        .text("source", charges.iter().map(|c| source_name(c.source)))
        .opt_text("raw_usage", raw.iter().map(Option::as_deref))
        .opt_int(
            "first_token_us",
            charges.iter().map(|c| c.first_token_us.map(check::pinned)),
        )
        .int(
            "duration_us",
            charges.iter().map(|c| check::pinned(c.duration_us)),
        )
        .bool("late", charges.iter().map(|c| c.late))
        .int(
            "created_at",
            charges.iter().map(|c| admitted_us(c.due.request)),
        )
        .int("settled_at", charges.iter().map(|_| now_us));
    let usages: Vec<Usage> = charges.iter().map(|c| c.usage).collect();
    let mut rows = with_rare(with_usage(rows, &usages), &usages);
    // A batch that has none of these does not carry their columns either.
    if charges.iter().any(|c| c.provider_cost.is_some()) {
        let costs = charges.iter().map(|c| c.provider_cost.map(Credits::nanos));
        rows = rows.opt_int("provider_cost", costs);
    }
    if charges.iter().any(|c| c.counted.is_some()) {
        let of = |count: fn(Counted) -> u64| {
            charges
                .iter()
                .map(move |c| c.counted.map(|counted| check::pinned(count(counted))))
        };
        rows = rows
            .opt_int("counted_prompt", of(|c| c.prompt))
            .opt_int("counted_completion", of(|c| c.completion));
    }
    insert(link, "charges", rows).await
}

/// Writes what was found, after a charge was booked, to be the operator's.
pub(crate) async fn insert_late_losses(
    link: &mut Link<'_>,
    losses: &[(AccountId, RequestId, Credits)],
    now_us: i64,
) -> Result<(), StoreError> {
    if losses.is_empty() {
        return Ok(());
    }
    let rows = Rows::new()
        .uuid("account_id", losses.iter().map(|l| l.0.uuid()))
        .uuid("id", losses.iter().map(|l| l.1.uuid()))
        .text("cause", losses.iter().map(|_| LATE_SETTLEMENT))
        .int("amount", losses.iter().map(|l| l.2.nanos()))
        .int("created_at", losses.iter().map(|_| now_us));
    insert(link, "house_losses", rows).await
}

/// What could not be booked, and why.
#[derive(Debug)]
pub(crate) struct Dead {
    request: RequestId,
    account: AccountId,
    problem: String,
    /// A [`PutAside`] as JSON.
    settlement: String,
}

/// Everything of a settlement that is needed to book it by hand.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PutAside {
    pub(crate) request_id: RequestId,
    pub(crate) account_id: AccountId,
    pub(crate) key_id: KeyId,
    pub(crate) lease: ReplicaId,
    pub(crate) endpoint: String,
    pub(crate) model: String,
    pub(crate) provider: String,
    pub(crate) price_id: Uuid,
    /// Settlements put aside by older programs do not say.
    #[serde(default)]
    pub(crate) stream: bool,
    pub(crate) end: End,
    pub(crate) usage: Usage,
    pub(crate) source: UsageSource,
    #[serde(default)]
    pub(crate) counted: Option<Counted>,
    #[serde(default)]
    pub(crate) raw_usage: Option<String>,
    pub(crate) cost: Credits,
    pub(crate) charged: Credits,
    pub(crate) owed: Credits,
    pub(crate) house_loss: Credits,
    #[serde(default)]
    pub(crate) first_token_us: Option<u64>,
    #[serde(default)]
    pub(crate) duration_us: u64,
}

impl Dead {
    pub(crate) fn settlement(settlement: &Settlement, problem: String) -> Self {
        let facts = &settlement.facts;
        Self::of(
            &PutAside {
                request_id: facts.request_id,
                account_id: facts.account_id,
                key_id: facts.key_id,
                lease: settlement.lease,
                endpoint: facts.endpoint.to_owned(),
                model: facts.model.to_string(),
                provider: facts.provider.to_string(),
                price_id: facts.price_id.uuid(),
                stream: facts.stream,
                end: settlement.end,
                usage: settlement.usage,
                source: settlement.source,
                counted: settlement.counted,
                raw_usage: settlement.raw_usage.as_deref().map(str::to_owned),
                cost: settlement.capture.cost,
                charged: settlement.capture.charged,
                owed: settlement.capture.owed,
                house_loss: settlement.capture.house_loss,
                first_token_us: settlement.timings.first_token_us,
                duration_us: settlement.timings.duration_us,
            },
            problem,
        )
    }

    pub(crate) fn of(aside: &PutAside, problem: String) -> Self {
        Self {
            request: aside.request_id,
            account: aside.account_id,
            problem,
            // A struct of texts and numbers is always JSON; were it not, the ids are kept.
            settlement: serde_json::to_string(aside).unwrap_or_default(),
        }
    }
}

/// Keeps what could not be booked where the audit finds it.
pub(crate) async fn insert_dead(
    link: &mut Link<'_>,
    dead: &[Dead],
    now_us: i64,
) -> Result<(), StoreError> {
    if dead.is_empty() {
        return Ok(());
    }
    let rows = Rows::new()
        .uuid("request_id", dead.iter().map(|d| d.request.uuid()))
        .uuid("account_id", dead.iter().map(|d| d.account.uuid()))
        .text("problem", dead.iter().map(|d| d.problem.as_str()))
        .text("settlement", dead.iter().map(|d| d.settlement.as_str()))
        .int("created_at", dead.iter().map(|_| now_us));
    let names = rows.names();
    let text = format!(
        "INSERT INTO dead_settlements ({names}) SELECT {names} FROM {{rows}} WHERE true \
         ON CONFLICT (account_id, request_id) DO NOTHING"
    );
    link.run(sql(text).rows(rows)).await?;
    Ok(())
}

/// A stored checkpoint.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct CheckpointRecord {
    request_id: Uuid,
    account_id: Uuid,
    key_id: Uuid,
    endpoint: String,
    model: String,
    provider: String,
    price_id: Uuid,
    stream: bool,
    cost: i64,
    provider_cost: Option<i64>,
    #[sqlx(flatten)]
    usage: UsageColumns,
    updated_at: i64,
}

/// Writes checkpoints over older ones of the same requests; not of requests that are booked.
pub(crate) async fn upsert_checkpoints(
    link: &mut Link<'_>,
    replica: ReplicaId,
    checkpoints: &[&Checkpoint],
) -> Result<(), StoreError> {
    if checkpoints.is_empty() {
        return Ok(());
    }
    let facts = || checkpoints.iter().map(|c| &c.facts);
    let rows = Rows::new()
        .uuid("request_id", facts().map(|f| f.request_id.uuid()))
        .uuid("account_id", facts().map(|f| f.account_id.uuid()))
        .uuid("key_id", facts().map(|f| f.key_id.uuid()))
        .text("endpoint", facts().map(|f| f.endpoint))
        .text("model", facts().map(|f| &*f.model))
        .text("provider", facts().map(|f| &*f.provider))
        .uuid("price_id", facts().map(|f| f.price_id.uuid()))
        .bool("stream", facts().map(|f| f.stream))
        .int("cost", checkpoints.iter().map(|c| c.cost.nanos()))
        .opt_int(
            "provider_cost",
            checkpoints
                .iter()
                .map(|c| c.provider_cost.map(Credits::nanos)),
        );
    let usages: Vec<Usage> = checkpoints.iter().map(|c| c.usage).collect();
    let rows = Bucket::RARE
        .into_iter()
        .fold(with_usage(rows, &usages), |rows, bucket| {
            rows.opt_int(bucket.as_str(), rare(&usages, bucket))
        });
    let names = rows.names();
    let sets: Vec<_> = USAGE_COLUMNS
        .split(", ")
        .chain(["cost", "provider_cost", "updated_at"])
        .map(|column| format!("{column} = excluded.{column}"))
        .collect();
    let text = format!(
        "INSERT INTO checkpoints (replica_id, {names}, updated_at) \
         SELECT ?, {names}, {{now}} FROM {{rows}} WHERE NOT EXISTS (SELECT 1 FROM charges c \
           WHERE c.account_id = s.account_id AND c.id = s.request_id) \
         ON CONFLICT (replica_id, request_id) DO UPDATE SET {}",
        sets.join(", ")
    );
    link.run(sql(text).uuid(replica.uuid()).rows(rows)).await?;
    Ok(())
}

/// Forgets the checkpoints of requests that are booked now.
pub(crate) async fn delete_checkpoints(
    link: &mut Link<'_>,
    settled: impl IntoIterator<Item = (ReplicaId, RequestId)>,
) -> Result<(), StoreError> {
    let settled: Vec<_> = settled.into_iter().collect();
    if settled.is_empty() {
        return Ok(());
    }
    let rows = Rows::new()
        .uuid("replica_id", settled.iter().map(|s| s.0.uuid()))
        .uuid("request_id", settled.iter().map(|s| s.1.uuid()));
    let delete = sql("DELETE FROM checkpoints WHERE (replica_id, request_id) IN \
         (SELECT replica_id, request_id FROM {rows})");
    link.run(delete.rows(rows)).await?;
    Ok(())
}

/// What running requests of a replica had consumed when it was last heard of.
pub(crate) async fn checkpoints_of(
    link: &mut Link<'_>,
    replica: ReplicaId,
) -> Result<Vec<CheckpointRecord>, StoreError> {
    let select = sql(format!(
        "SELECT request_id, account_id, key_id, endpoint, model, provider, price_id, stream, \
         cost, provider_cost, {USAGE_COLUMNS}, updated_at FROM checkpoints WHERE replica_id = ? \
         ORDER BY request_id"
    ));
    link.all(select.uuid(replica.uuid())).await
}

impl CheckpointRecord {
    /// What the reaper charges for it, out of the dead replica's lease.
    pub(crate) fn due(&self, replica: ReplicaId) -> Due {
        let cost = Credits::from_nanos(self.cost);
        Due {
            request: RequestId::from_uuid(self.request_id),
            account: AccountId::from_uuid(self.account_id),
            key: KeyId::from_uuid(self.key_id),
            lease: replica,
            end: End::GatewayLost,
            checkpoint: true,
            cost,
            charged: cost,
            owed: Credits::ZERO,
            house_loss: Credits::ZERO,
        }
    }

    /// For when it must not be charged.
    pub(crate) fn put_aside(&self, replica: ReplicaId) -> PutAside {
        let due = self.due(replica);
        PutAside {
            request_id: due.request,
            account_id: due.account,
            key_id: due.key,
            lease: replica,
            endpoint: self.endpoint.clone(),
            model: self.model.clone(),
            provider: self.provider.clone(),
            price_id: self.price_id,
            stream: self.stream,
            end: due.end,
            usage: self.usage.usage(),
            source: UsageSource::Counted,
            counted: None,
            raw_usage: None,
            cost: due.cost,
            charged: due.charged,
            owed: due.owed,
            house_loss: due.house_loss,
            first_token_us: None,
            duration_us: self.duration_us(),
        }
    }

    fn duration_us(&self) -> u64 {
        let admitted = admitted_us(RequestId::from_uuid(self.request_id));
        check::count(self.updated_at.saturating_sub(admitted))
    }

    pub(crate) fn charge(
        &self,
        replica: ReplicaId,
        charged: Credits,
        house_loss: Credits,
    ) -> NewCharge<'_> {
        let due = self.due(replica);
        NewCharge {
            due,
            endpoint: &self.endpoint,
            model: &self.model,
            provider: &self.provider,
            price_id: PriceId::from_uuid(self.price_id),
            stream: self.stream,
            charged,
            house_loss,
            source: UsageSource::Counted,
            usage: self.usage.usage(),
            counted: None,
            provider_cost: self.provider_cost.map(Credits::from_nanos),
            raw_usage: None,
            // By this the charge is known to come from a checkpoint (see `book::booked`).
            first_token_us: None,
            duration_us: self.duration_us(),
            late: false,
        }
    }
}

fn with_usage(rows: Rows, usages: &[Usage]) -> Rows {
    let of = |bucket: fn(&Usage) -> u64| usages.iter().map(move |u| check::pinned(bucket(u)));
    rows.int("prompt", of(|u| u.prompt))
        .int("cached_prompt", of(|u| u.cached_prompt))
        .int("cache_write_5m", of(|u| u.cache_write_5m))
        .int("cache_write_1h", of(|u| u.cache_write_1h))
        .int("audio_prompt", of(|u| u.audio_prompt))
        .int("image_prompt", of(|u| u.image_prompt))
        .int("completion", of(|u| u.completion))
        .int("reasoning", of(|u| u.reasoning))
        .int("audio_completion", of(|u| u.audio_completion))
}

/// The columns of what few requests have, where any of these does.
fn with_rare(rows: Rows, usages: &[Usage]) -> Rows {
    Bucket::RARE
        .into_iter()
        .filter(|bucket| usages.iter().any(|usage| usage.get(*bucket) > 0))
        .fold(rows, |rows, bucket| {
            rows.opt_int(bucket.as_str(), rare(usages, bucket))
        })
}

fn rare(usages: &[Usage], bucket: Bucket) -> impl Iterator<Item = Option<i64>> {
    let counts = usages.iter().map(move |usage| usage.get(bucket));
    counts.map(|count| Some(count).filter(|count| *count > 0).map(check::pinned))
}
