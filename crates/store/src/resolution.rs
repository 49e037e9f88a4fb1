//! Settlements that were put aside: who looks at them decides, once, and the decision stays.

use billing::{
    AccountId, BudgetId, Credits, End, Price, PriceId, ReplicaId, RequestId,
    rules::{Booked, Due},
};
use jiff::Timestamp;
use tokens::Usage;
use uuid::Uuid;

use crate::{
    Listed, Page, Store, StoreError,
    book::{self, EntryNotes, Scope},
    booking::{self, NewCharge, PutAside},
    changes::{self, Change},
    check,
    link::Link,
    sql::{Sql, sql},
};

/// What becomes of a settlement that was put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResolvedAs {
    /// It is booked: its account pays as far as credit is there, the operator bears the rest.
    Charge,
    /// The operator bears it.
    HouseLoss,
    /// Nobody pays: it was charged before, or nothing was delivered.
    Drop,
}

impl ResolvedAs {
    /// Every way, for tables and documentation.
    pub const ALL: [Self; 3] = [Self::Charge, Self::HouseLoss, Self::Drop];

    /// The name on the command line, in JSON and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Charge => "charge",
            Self::HouseLoss => "house_loss",
            Self::Drop => "drop",
        }
    }

    /// The way of this name; `house-loss` is read too.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|way| way.as_str() == text.replace('-', "_"))
    }
}

/// A settlement that was put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadSettlement {
    /// The request that it ends.
    pub request_id: RequestId,
    /// Whose request it was.
    pub account_id: AccountId,
    /// Why it was not booked.
    pub problem: String,
    /// Everything that is known of it, as JSON.
    pub settlement: String,
    /// When it was put aside.
    pub created_at: Timestamp,
    /// What was decided, where it was.
    pub resolution: Option<Resolution>,
}

/// What was decided about a settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// What became of it.
    pub resolved_as: ResolvedAs,
    /// What its account paid; negative where it got something back.
    pub charged: Credits,
    /// What the operator bore beside the charge.
    pub house_loss: Credits,
    /// Why, in the words of who decided.
    pub note: String,
    /// When.
    pub created_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct DeadRow {
    request_id: Uuid,
    account_id: Uuid,
    problem: String,
    settlement: String,
    created_at: i64,
    resolved_as: Option<String>,
    charged: Option<i64>,
    house_loss: Option<i64>,
    note: Option<String>,
    resolved_at: Option<i64>,
}

const SELECT_DEAD: &str = "SELECT d.request_id, d.account_id, d.problem, d.settlement, \
     d.created_at, r.resolved_as, r.charged, r.house_loss, r.note, r.created_at AS resolved_at \
     FROM dead_settlements d LEFT JOIN resolutions r \
       ON r.account_id = d.account_id AND r.request_id = d.request_id";

impl Store {
    /// Settlements that were put aside, newest request first; `all` lists the resolved ones too.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn dead_settlements(
        &self,
        all: bool,
        page: Page,
    ) -> Result<Listed<DeadSettlement>, StoreError> {
        let open = if all { "" } else { "AND r.request_id IS NULL" };
        let select = sql(format!(
            "{SELECT_DEAD} WHERE d.request_id < ? {open} ORDER BY d.request_id DESC LIMIT ?"
        ));
        let mut reader = self.read().await?;
        let rows: Vec<DeadRow> = reader
            .link()
            .all(select.uuid(page.below()).int(page.fetch_rows()))
            .await?;
        let rows: Result<Vec<_>, _> = rows.into_iter().map(DeadRow::read).collect();
        Ok(page.cut(rows?, |row| row.request_id.uuid()))
    }

    /// Decides about a settlement that was put aside, once. The note says why.
    ///
    /// # Errors
    /// [`StoreError::NotResolvable`] with what is in the way; [`StoreError::Invalid`] for a note
    /// that is empty or too long.
    pub async fn resolve_settlement(
        &self,
        request: RequestId,
        resolved_as: ResolvedAs,
        note: &str,
    ) -> Result<DeadSettlement, StoreError> {
        check::text("note", Some(note))?;
        if note.trim().is_empty() {
            return Err(StoreError::Invalid {
                field: "note",
                problem: "say why; it stays with the settlement",
            });
        }
        let mut tx = self.begin().await?;
        let mut link = tx.link();
        let dead = found(&mut link, request).await?;
        let mut loaded = book::load(&mut link, &scope(&dead)).await?;
        // Looked at again under the account's lock: two may decide at once.
        let dead = dead_in(&mut link, dead.account_id, request).await?;
        if dead.resolution.is_some() {
            return Err(not_resolvable(request, "it is resolved already"));
        }
        let (charged, house_loss) = match resolved_as {
            ResolvedAs::Drop => (Credits::ZERO, Credits::ZERO),
            ResolvedAs::HouseLoss => {
                let aside = aside(&dead)?;
                (Credits::ZERO, costs(&mut link, &aside).await?.0)
            }
            ResolvedAs::Charge => charge(&mut link, &mut loaded, &aside(&dead)?).await?,
        };
        let insert = sql("INSERT INTO resolutions \
             (account_id, request_id, resolved_as, charged, house_loss, note, created_at) \
             SELECT ?, ?, ?, ?, ?, ?, {now}");
        let insert = insert
            .uuid(dead.account_id.uuid())
            .uuid(request.uuid())
            .text(resolved_as.as_str())
            .int(charged.nanos())
            .int(house_loss.nanos())
            .text(note);
        link.run(insert).await?;
        let resolved = dead_in(&mut link, dead.account_id, request).await?;
        changes::announce(&mut link, Change::Account(dead.account_id), None).await?;
        tx.commit().await?;
        self.wake();
        Ok(resolved)
    }
}

fn not_resolvable(request: RequestId, why: impl Into<String>) -> StoreError {
    StoreError::NotResolvable {
        request,
        why: why.into(),
    }
}

/// The settlement of this request, whosever it is.
async fn found(link: &mut Link<'_>, request: RequestId) -> Result<DeadSettlement, StoreError> {
    let select = sql(format!("{SELECT_DEAD} WHERE d.request_id = ?"));
    one(link, select.uuid(request.uuid()), request).await
}

async fn dead_in(
    link: &mut Link<'_>,
    account: AccountId,
    request: RequestId,
) -> Result<DeadSettlement, StoreError> {
    let select = sql(format!(
        "{SELECT_DEAD} WHERE d.account_id = ? AND d.request_id = ?"
    ));
    let select = select.uuid(account.uuid()).uuid(request.uuid());
    one(link, select, request).await
}

async fn one(
    link: &mut Link<'_>,
    select: Sql,
    request: RequestId,
) -> Result<DeadSettlement, StoreError> {
    let row: Option<DeadRow> = link.maybe(select).await?;
    row.ok_or_else(|| not_resolvable(request, "no settlement of it was put aside"))?
        .read()
}

/// What is touched: the account and, where the text of the settlement says which, the key.
fn scope(dead: &DeadSettlement) -> Scope {
    let mut scope = Scope::default();
    scope.budgets.insert(BudgetId::Account(dead.account_id));
    if let Ok(aside) = aside(dead) {
        scope
            .budgets
            .insert(BudgetId::Key(dead.account_id, aside.key_id));
    }
    scope.requests.insert((dead.account_id, dead.request_id));
    scope.maybe_booked.clone_from(&scope.requests);
    scope
}

fn aside(dead: &DeadSettlement) -> Result<PutAside, StoreError> {
    let aside: Result<PutAside, _> = serde_json::from_str(&dead.settlement);
    match aside {
        Ok(aside) if aside.request_id == dead.request_id && aside.account_id == dead.account_id => {
            Ok(aside)
        }
        Ok(_) | Err(_) => Err(not_resolvable(
            dead.request_id,
            "what was kept of it cannot be read; drop it, and book an adjustment by hand",
        )),
    }
}

/// What its usage costs at its price version, and what the provider takes for it: the sums it came
/// with may be what was wrong.
async fn costs(link: &mut Link<'_>, aside: &PutAside) -> Result<(Credits, Credits), StoreError> {
    let select = sql("SELECT price FROM prices WHERE id = ?");
    let kept: Option<(String,)> = link.maybe(select.uuid(aside.price_id)).await?;
    let price = kept.and_then(|(text,)| Price::from_json(&text).ok());
    let Some(price) = price else {
        return Err(not_resolvable(
            aside.request_id,
            "its price version is not kept, so nobody can say what it costs; drop it, and book an \
             adjustment by hand",
        ));
    };
    if aside.end == End::UpstreamFailed && aside.usage == Usage::default() {
        return Ok((Credits::ZERO, Credits::ZERO));
    }
    price
        .cost(&aside.usage)
        .and_then(|cost| Ok((cost, price.provider_cost(&aside.usage)?)))
        .map_err(|error| not_resolvable(aside.request_id, format!("{error}; drop it")))
}

/// Nothing is booked into a month whose charges are being summed up.
async fn refuse_while_closing(link: &mut Link<'_>, request: RequestId) -> Result<(), StoreError> {
    let closing = sql("SELECT 1 FROM closed_months \
         WHERE state = 'closing' AND first_id <= ? AND end_id > ?");
    let closing = closing.uuid(request.uuid()).uuid(request.uuid());
    let closing: Option<(i32,)> = link.maybe(closing).await?;
    if closing.is_some() {
        return Err(not_resolvable(
            request,
            "its month is being closed; wait for that",
        ));
    }
    Ok(())
}

/// Books it as if it had just arrived, with nothing held for it. What the account paid, and what
/// the operator bears beside the charge.
async fn charge(
    link: &mut Link<'_>,
    loaded: &mut book::Loaded,
    aside: &PutAside,
) -> Result<(Credits, Credits), StoreError> {
    let request = aside.request_id;
    refuse_while_closing(link, request).await?;
    let (cost, provider_cost) = costs(link, aside).await?;
    let due = Due {
        request,
        account: aside.account_id,
        key: aside.key_id,
        lease: ReplicaId::from_uuid(Uuid::nil()),
        end: aside.end,
        checkpoint: false,
        cost,
        charged: Credits::ZERO,
        owed: cost,
        house_loss: Credits::ZERO,
    };
    let now = loaded.book.now().0;
    let booked = loaded
        .book
        .settle(&due, true)
        .map_err(|error| not_resolvable(request, format!("{error}; drop it")))?;
    loaded.save(link, &EntryNotes::default()).await?;
    match booked {
        Booked::Charge {
            charged,
            house_loss,
            late,
        } => {
            let charge = NewCharge {
                due,
                endpoint: &aside.endpoint,
                model: &aside.model,
                provider: &aside.provider,
                price_id: PriceId::from_uuid(aside.price_id),
                stream: aside.stream,
                charged,
                house_loss,
                source: aside.source,
                usage: aside.usage,
                counted: aside.counted,
                provider_cost: Some(provider_cost).filter(|owed| *owed != cost),
                raw_usage: aside.raw_usage.as_deref(),
                first_token_us: aside.first_token_us,
                duration_us: aside.duration_us,
                late,
            };
            booking::insert_charges(link, &[charge], now).await?;
            Ok((charged, Credits::ZERO))
        }
        Booked::LateCharge {
            charged,
            house_loss,
        } => {
            if house_loss.is_positive() {
                let loss = (aside.account_id, request, house_loss);
                booking::insert_late_losses(link, &[loss], now).await?;
            }
            Ok((charged, Credits::ZERO))
        }
        Booked::LateRefund(back) => Ok((Credits::ZERO.saturating_sub(back), Credits::ZERO)),
        Booked::Replayed => Err(not_resolvable(
            request,
            "it is charged already; resolve it as drop",
        )),
    }
}

impl DeadRow {
    fn read(self) -> Result<DeadSettlement, StoreError> {
        let resolution = match self.resolved_as {
            None => None,
            Some(text) => Some(Resolution {
                resolved_as: ResolvedAs::parse(&text)
                    .ok_or_else(|| StoreError::Corrupt(format!("a resolution as {text}")))?,
                charged: Credits::from_nanos(self.charged.unwrap_or_default()),
                house_loss: Credits::from_nanos(self.house_loss.unwrap_or_default()),
                note: self.note.unwrap_or_default(),
                created_at: check::timestamp(self.resolved_at.unwrap_or_default())?,
            }),
        };
        Ok(DeadSettlement {
            request_id: RequestId::from_uuid(self.request_id),
            account_id: AccountId::from_uuid(self.account_id),
            problem: self.problem,
            settlement: self.settlement,
            created_at: check::timestamp(self.created_at)?,
            resolution,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_have_names() {
        for way in ResolvedAs::ALL {
            assert_eq!(ResolvedAs::parse(way.as_str()), Some(way));
        }
        assert_eq!(ResolvedAs::parse("house-loss"), Some(ResolvedAs::HouseLoss));
        assert_eq!(ResolvedAs::parse("house"), None);
    }
}
