//! Charges as they are read: one request each, and sums over many.

use std::collections::BTreeSet;

use billing::{AccountId, Counted, Credits, End, KeyId, PriceId, RequestId};
use jiff::Timestamp;
use tokens::{Usage, UsageSource};
use uuid::Uuid;

use crate::{
    Listed, Page, Store, StoreError,
    book::parse_end,
    check,
    export::READ_MAX,
    link::Link,
    sql::{Flavor, Sql, sql},
};

/// The most rows of sums in one answer.
const SUMS_MAX: i64 = 10_000;
/// Charges that are read at a time when a month is.
const PAGE_OF_MONTH: i64 = 2_000;

/// One request that was booked. `charged + house_loss = cost`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargeRecord {
    /// The request.
    pub id: RequestId,
    /// Who paid.
    pub account_id: AccountId,
    /// The key that asked.
    pub key_id: KeyId,
    /// The endpoint, such as `chat.completions`.
    pub endpoint: String,
    /// The model as configured.
    pub model: String,
    /// The provider that served it.
    pub provider: String,
    /// The price version it was admitted at.
    pub price_id: PriceId,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// How it ended.
    pub end: End,
    /// The price of its usage.
    pub cost: Credits,
    /// What was taken from the account.
    pub charged: Credits,
    /// What the operator bore.
    pub house_loss: Credits,
    /// What the operator owes the provider for it.
    pub provider_cost: Credits,
    /// Who counted.
    pub source: UsageSource,
    /// Our own count, where one was made beside the provider's report.
    pub counted: Option<Counted>,
    /// What it consumed.
    pub usage: Usage,
    /// What the provider reported, verbatim.
    pub raw_usage: Option<String>,
    /// From admission to the first byte of output, in microseconds.
    pub first_token_us: Option<u64>,
    /// From admission to the end, in microseconds.
    pub duration_us: u64,
    /// True when its lease had been taken back before it was booked.
    pub late: bool,
    /// When it was admitted (from its id).
    pub created_at: Timestamp,
    /// When it was booked.
    pub settled_at: Timestamp,
}

/// Which charges are listed; all conditions hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChargeFilter {
    /// Of this account.
    pub account_id: Option<AccountId>,
    /// Of this key.
    pub key_id: Option<KeyId>,
    /// Of this model, as configured.
    pub model: Option<String>,
    /// Admitted at or after.
    pub from: Option<Timestamp>,
    /// Admitted before.
    pub to: Option<Timestamp>,
    /// Ended so.
    pub end: Option<End>,
}

/// What a sum is broken down by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupBy {
    /// The day of admission, UTC; the month where that is closed.
    Day,
    /// The month of admission, UTC.
    Month,
    /// The model.
    Model,
    /// The provider.
    Provider,
    /// The key.
    Key,
    /// The account.
    Account,
    /// How it ended.
    End,
}

impl GroupBy {
    /// Every dimension, for tables and documentation.
    pub const ALL: [Self; 7] = [
        Self::Day,
        Self::Month,
        Self::Model,
        Self::Provider,
        Self::Key,
        Self::Account,
        Self::End,
    ];

    /// The name in the admin API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Key => "key",
            Self::Account => "account",
            Self::End => "end",
        }
    }

    /// The dimension of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.as_str() == text)
    }
}

/// The dimensions of one sum.
pub type Grouping = BTreeSet<GroupBy>;

/// One row of sums; the dimensions that were asked for are set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageSum {
    /// The day, `2026-01-31`; the month, `2026-01`, for what is left of a closed month.
    pub day: Option<String>,
    /// The month, `2026-01`.
    pub month: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The provider.
    pub provider: Option<String>,
    /// The key.
    pub key_id: Option<KeyId>,
    /// The account.
    pub account_id: Option<AccountId>,
    /// How they ended.
    pub end: Option<End>,
    /// How many requests.
    pub requests: u64,
    /// What they consumed.
    pub usage: Usage,
    /// The price of that.
    pub cost: Credits,
    /// What was taken from accounts.
    pub charged: Credits,
    /// What the operator bore.
    pub house_loss: Credits,
    /// What the operator owes the providers: less than the cost by the margin.
    pub provider_cost: Credits,
}

/// The columns that a usage takes in every table that has one.
#[derive(Clone, Debug, Default, sqlx::FromRow)]
pub(crate) struct UsageColumns {
    prompt: i64,
    cached_prompt: i64,
    cache_write_5m: i64,
    cache_write_1h: i64,
    audio_prompt: i64,
    image_prompt: i64,
    completion: i64,
    reasoning: i64,
    audio_completion: i64,
    image_completion: Option<i64>,
    images: Option<i64>,
    milliseconds: Option<i64>,
    characters: Option<i64>,
    searches: Option<i64>,
    pages: Option<i64>,
}

/// Their names, for a SELECT.
pub(crate) const USAGE_COLUMNS: &str = "prompt, cached_prompt, cache_write_5m, cache_write_1h, \
     audio_prompt, image_prompt, completion, reasoning, audio_completion, image_completion, \
     images, milliseconds, characters, searches, pages";

impl UsageColumns {
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            prompt: check::count(self.prompt),
            cached_prompt: check::count(self.cached_prompt),
            cache_write_5m: check::count(self.cache_write_5m),
            cache_write_1h: check::count(self.cache_write_1h),
            audio_prompt: check::count(self.audio_prompt),
            image_prompt: check::count(self.image_prompt),
            completion: check::count(self.completion),
            reasoning: check::count(self.reasoning),
            audio_completion: check::count(self.audio_completion),
            image_completion: self.image_completion.map_or(0, check::count),
            images: self.images.map_or(0, check::count),
            milliseconds: self.milliseconds.map_or(0, check::count),
            characters: self.characters.map_or(0, check::count),
            searches: self.searches.map_or(0, check::count),
            pages: self.pages.map_or(0, check::count),
        }
    }
}

#[derive(sqlx::FromRow)]
struct ChargeRow {
    id: Uuid,
    account_id: Uuid,
    key_id: Uuid,
    endpoint: String,
    model: String,
    provider: String,
    price_id: Uuid,
    stream: bool,
    ended: String,
    cost: i64,
    charged: i64,
    house_loss: i64,
    provider_cost: Option<i64>,
    source: String,
    counted_prompt: Option<i64>,
    counted_completion: Option<i64>,
    #[sqlx(flatten)]
    usage: UsageColumns,
    raw_usage: Option<String>,
    first_token_us: Option<i64>,
    duration_us: i64,
    late: bool,
    created_at: i64,
    settled_at: i64,
}

#[derive(sqlx::FromRow)]
struct SumRow {
    day: Option<String>,
    month: Option<String>,
    model: Option<String>,
    provider: Option<String>,
    key_id: Option<Uuid>,
    account_id: Option<Uuid>,
    ended: Option<String>,
    requests: i64,
    #[sqlx(flatten)]
    usage: UsageColumns,
    cost: i64,
    charged: i64,
    house_loss: i64,
    provider_cost: i64,
}

const SELECT_CHARGE: &str = "SELECT id, account_id, key_id, endpoint, model, provider, price_id, \
     stream, ended, cost, charged, house_loss, source, prompt, cached_prompt, cache_write_5m, \
     cache_write_1h, audio_prompt, image_prompt, completion, reasoning, audio_completion, \
     image_completion, images, milliseconds, characters, searches, pages, \
     provider_cost, counted_prompt, counted_completion, raw_usage, first_token_us, duration_us, late, created_at, settled_at FROM charges";

impl Store {
    /// Requests that were booked, newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn charges(
        &self,
        filter: &ChargeFilter,
        page: Page,
    ) -> Result<Listed<ChargeRecord>, StoreError> {
        let (condition, bind) = condition(filter);
        let select = sql(format!(
            "{SELECT_CHARGE} WHERE {condition} AND id < ? ORDER BY id DESC LIMIT ?"
        ));
        let select = bind(select).uuid(page.below()).int(page.fetch_rows());
        let mut reader = self.read().await?;
        let rows: Vec<ChargeRow> = reader.link().all(select).await?;
        let rows = rows
            .into_iter()
            .map(ChargeRow::record)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(page.cut(rows, |row| row.id.uuid()))
    }

    /// One request of an account; `None` while it runs, or when it was never charged.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn charge(
        &self,
        account: AccountId,
        id: RequestId,
    ) -> Result<Option<ChargeRecord>, StoreError> {
        let select = sql(format!("{SELECT_CHARGE} WHERE account_id = ? AND id = ?"));
        let mut reader = self.read().await?;
        reader
            .link()
            .maybe::<ChargeRow>(select.uuid(account.uuid()).uuid(id.uuid()))
            .await?
            .map(ChargeRow::record)
            .transpose()
    }

    /// Sums over charges and over what is kept of closed months, by the dimensions in `by`; at
    /// most 10,000 rows, in the dimensions' order.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when the answer would be longer, or `from` or `to` lies inside a
    /// closed month: of that, only the sums of the whole month are left.
    pub async fn usage(
        &self,
        filter: &ChargeFilter,
        by: &Grouping,
    ) -> Result<Vec<UsageSum>, StoreError> {
        let mut reader = self.read().await?;
        let mut link = reader.link();
        refuse_parts_of_closed_months(&mut link, filter).await?;
        let day_text = day_of(link.flavor());
        let rows: Vec<SumRow> = link
            .all(sums(filter, by).with(DAY, day_text).int(SUMS_MAX + 1))
            .await?;
        if i64::try_from(rows.len()).unwrap_or(i64::MAX) > SUMS_MAX {
            return Err(StoreError::Invalid {
                field: "group_by",
                problem: "more than 10000 rows; narrow it with from and to",
            });
        }
        rows.into_iter().map(SumRow::sum).collect()
    }
}

/// The statement of [`Store::usage`], up to its last argument, how many rows there may be.
fn sums(filter: &ChargeFilter, by: &Grouping) -> Sql {
    const FACTS: &str = "model, provider, key_id, account_id, ended";
    let dimension = |of: GroupBy| {
        let column = of.column();
        let kind = of.sql_type();
        if by.contains(&of) {
            format!("{column} AS {column}")
        } else {
            format!("CAST(NULL AS {kind}) AS {column}")
        }
    };
    let dimensions = GroupBy::ALL.map(dimension).join(", ");
    let amounts = format!("cost, charged, house_loss, provider_cost, {USAGE_COLUMNS}");
    let of_rows = amounts.replace(
        "provider_cost",
        "COALESCE(provider_cost, cost) AS provider_cost",
    );
    let sums: Vec<_> = ["requests"]
        .into_iter()
        .chain(amounts.split(", "))
        .map(|c| format!("CAST(COALESCE(SUM({c}), 0) AS bigint) AS {c}"))
        .collect();
    let groups: Vec<_> = by.iter().map(|by| by.column()).collect();
    let group = if groups.is_empty() {
        String::new()
    } else {
        format!("GROUP BY {0} ORDER BY {0}", groups.join(", "))
    };
    let (of_charges, bind_charges) = condition(filter);
    let (of_closings, bind_closings) = facts_condition(filter);
    let of_closings: String = of_closings.iter().map(|c| format!(" AND {c}")).collect();
    let text = format!(
        "SELECT {dimensions}, {} FROM (\
           SELECT {DAY} AS day, substr({DAY}, 1, 7) AS month, {FACTS}, \
             CAST(1 AS bigint) AS requests, {of_rows} FROM charges WHERE {of_charges} \
           UNION ALL \
           SELECT month AS day, month, {FACTS}, requests, {of_rows} FROM closings \
             WHERE month IN (SELECT m.month FROM closed_months m \
               WHERE m.first_id >= ? AND m.end_id <= ?){of_closings}\
         ) AS c {group} LIMIT ?",
        sums.join(", ")
    );
    let (from, to) = id_range(filter);
    bind_closings(bind_charges(sql(text)).uuid(from).uuid(to))
}

async fn refuse_parts_of_closed_months(
    link: &mut Link<'_>,
    filter: &ChargeFilter,
) -> Result<(), StoreError> {
    let (from, to) = id_range(filter);
    for (field, at) in [("from", from), ("to", to)] {
        let inside = sql("SELECT 1 FROM closed_months \
             WHERE state = 'closed' AND first_id < ? AND end_id > ?");
        let inside: Option<(i32,)> = link.maybe(inside.uuid(at).uuid(at)).await?;
        if inside.is_some() {
            return Err(StoreError::Invalid {
                field,
                problem: "lies inside a month that is closed, of which only the sums of the whole \
                          month are kept; use the first of a month",
            });
        }
    }
    Ok(())
}

/// A page of the charges with these ids, in the order of ids, after the id and account of the
/// last one of the page before.
pub(crate) async fn month_page(
    link: &mut Link<'_>,
    (first, end): (Uuid, Uuid),
    after: (Uuid, Uuid),
) -> Result<Vec<ChargeRecord>, StoreError> {
    let select = sql(format!(
        "{SELECT_CHARGE} WHERE id >= ? AND id < ? AND (id, account_id) > (?, ?) \
         ORDER BY id, account_id LIMIT ?"
    ));
    let select = select.uuid(first).uuid(end).uuid(after.0).uuid(after.1);
    let rows: Vec<ChargeRow> = link.all_within(select.int(PAGE_OF_MONTH), READ_MAX).await?;
    rows.into_iter().map(ChargeRow::record).collect()
}

/// Stands for the day of a charge, which the databases spell differently.
pub(crate) const DAY: &str = "{day}";

/// What [`DAY`] stands for.
pub(crate) const fn day_of(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::Sqlite => "strftime('%Y-%m-%d', created_at / 1000000, 'unixepoch')",
        Flavor::Postgres => {
            "to_char(to_timestamp(created_at / 1000000) AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
        }
    }
}

impl GroupBy {
    fn column(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Key => "key_id",
            Self::Account => "account_id",
            Self::End => "ended",
        }
    }

    fn sql_type(self) -> &'static str {
        match self {
            Self::Day | Self::Month | Self::Model | Self::Provider | Self::End => "text",
            Self::Key | Self::Account => "uuid",
        }
    }
}

/// The WHERE clause of a filter over charges and what binds its arguments. Times are looked up
/// through the id, whose leading bits are the time of admission.
pub(crate) fn condition(filter: &ChargeFilter) -> (String, impl FnOnce(Sql) -> Sql) {
    let (facts, bind_facts) = facts_condition(filter);
    let mut text = vec!["id >= ?", "id < ?"];
    text.extend(facts);
    let (from, to) = id_range(filter);
    let bind = move |sql: Sql| bind_facts(sql.uuid(from).uuid(to));
    (text.join(" AND "), bind)
}

/// The ids of the requests that were admitted in the filter's time: from, and below.
fn id_range(filter: &ChargeFilter) -> (Uuid, Uuid) {
    (
        filter.from.map_or(Uuid::nil(), first_id),
        filter.to.map_or(Uuid::max(), first_id),
    )
}

/// The conditions of a filter beside its time and what binds their arguments.
fn facts_condition(filter: &ChargeFilter) -> (Vec<&'static str>, impl FnOnce(Sql) -> Sql) {
    let mut text = Vec::new();
    if filter.account_id.is_some() {
        text.push("account_id = ?");
    }
    if filter.key_id.is_some() {
        text.push("key_id = ?");
    }
    if filter.model.is_some() {
        text.push("model = ?");
    }
    if filter.end.is_some() {
        text.push("ended = ?");
    }
    let filter = filter.clone();
    let bind = move |mut sql: Sql| {
        if let Some(account) = filter.account_id {
            sql = sql.uuid(account.uuid());
        }
        if let Some(key) = filter.key_id {
            sql = sql.uuid(key.uuid());
        }
        if let Some(model) = &filter.model {
            sql = sql.text(model);
        }
        if let Some(end) = filter.end {
            sql = sql.text(end.as_str());
        }
        sql
    };
    (text, bind)
}

/// The smallest id of its millisecond, and of the next one where the time is inside it.
pub(crate) fn first_id(at: Timestamp) -> Uuid {
    let ms = at.as_microsecond().max(0).unsigned_abs().div_ceil(1000);
    Uuid::from_u128(u128::from(ms.min((1 << 48) - 1)) << 80)
}

/// When a request was admitted, in microseconds since the epoch: its id says so.
pub(crate) fn admitted_us(id: RequestId) -> i64 {
    let ms = u64::try_from(id.uuid().as_u128() >> 80).unwrap_or(0);
    check::pinned(ms.saturating_mul(1000))
}

impl ChargeRow {
    fn record(self) -> Result<ChargeRecord, StoreError> {
        Ok(ChargeRecord {
            id: RequestId::from_uuid(self.id),
            account_id: AccountId::from_uuid(self.account_id),
            key_id: KeyId::from_uuid(self.key_id),
            endpoint: self.endpoint,
            model: self.model,
            provider: self.provider,
            price_id: PriceId::from_uuid(self.price_id),
            stream: self.stream,
            end: parse_end(&self.ended)?,
            cost: Credits::from_nanos(self.cost),
            charged: Credits::from_nanos(self.charged),
            house_loss: Credits::from_nanos(self.house_loss),
            provider_cost: Credits::from_nanos(self.provider_cost.unwrap_or(self.cost)),
            source: parse_source(&self.source)?,
            counted: self.counted_prompt.zip(self.counted_completion).map(
                |(prompt, completion)| Counted {
                    prompt: check::count(prompt),
                    completion: check::count(completion),
                },
            ),
            usage: self.usage.usage(),
            raw_usage: self.raw_usage,
            first_token_us: self.first_token_us.map(check::count),
            duration_us: check::count(self.duration_us),
            late: self.late,
            created_at: check::timestamp(self.created_at)?,
            settled_at: check::timestamp(self.settled_at)?,
        })
    }
}

impl SumRow {
    fn sum(self) -> Result<UsageSum, StoreError> {
        Ok(UsageSum {
            day: self.day,
            month: self.month,
            model: self.model,
            provider: self.provider,
            key_id: self.key_id.map(KeyId::from_uuid),
            account_id: self.account_id.map(AccountId::from_uuid),
            end: self.ended.as_deref().map(parse_end).transpose()?,
            requests: check::count(self.requests),
            usage: self.usage.usage(),
            cost: Credits::from_nanos(self.cost),
            charged: Credits::from_nanos(self.charged),
            house_loss: Credits::from_nanos(self.house_loss),
            provider_cost: Credits::from_nanos(self.provider_cost),
        })
    }
}

/// The name of a source in the database.
pub(crate) const fn source_name(source: UsageSource) -> &'static str {
    match source {
        UsageSource::Reported => "reported",
        UsageSource::Counted => "counted",
    }
}

fn parse_source(text: &str) -> Result<UsageSource, StoreError> {
    [UsageSource::Reported, UsageSource::Counted]
        .into_iter()
        .find(|source| source_name(*source) == text)
        .ok_or_else(|| StoreError::Corrupt(format!("a source {text}")))
}
