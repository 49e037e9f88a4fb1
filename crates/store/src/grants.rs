//! Loads the grants of accounts: of one that has many, only those that a transaction can touch.

use std::collections::{BTreeMap, BTreeSet};

use billing::{
    AccountId, BudgetId, Credits, EntryId,
    rules::{EntryKind, GrantRow, Moment},
};
use uuid::Uuid;

use crate::{
    StoreError,
    book::Scope,
    link::Link,
    sql::{Flavor, Rows, sql},
};

/// Grants of an account that are loaded at first. Hardly any account has more with a rest.
const AT_FIRST: usize = 16;

const COLUMNS: &str = "g.account_id, g.id, g.kind, g.amount, g.remaining, g.expires_at";

#[derive(sqlx::FromRow)]
struct GrantRecord {
    account_id: Uuid,
    id: Uuid,
    kind: String,
    amount: i64,
    remaining: i64,
    expires_at: Option<i64>,
}

/// The grants with a rest of all accounts in the scope, in any order; of accounts whose draws are
/// known, enough of the first ones in the order of use. The accounts are locked.
pub(crate) async fn load(
    link: &mut Link<'_>,
    scope: &Scope,
    now: Moment,
) -> Result<Vec<(AccountId, GrantRow)>, StoreError> {
    let accounts = scope.budgets.iter().filter_map(|id| match id {
        BudgetId::Account(account) => Some(*account),
        BudgetId::Key(..) => None,
    });
    let (few, mut whole): (BTreeSet<AccountId>, BTreeSet<AccountId>) =
        accounts.partition(|account| scope.draws.contains_key(account));
    let mut grants = first(link, &few).await?;
    let lacking = lacking(&grants, &scope.draws, now);
    grants.retain(|(account, _)| !lacking.contains(account));
    whole.extend(lacking);
    grants.extend(all(link, &whole).await?);
    Ok(grants)
}

/// Accounts that have more grants than were loaded and may need them. Where something is left
/// of what does not expire yet, everything that has expired was loaded too, because it comes
/// first, and so was the one that expires next.
fn lacking(
    grants: &[(AccountId, GrantRow)],
    draws: &BTreeMap<AccountId, Credits>,
    now: Moment,
) -> BTreeSet<AccountId> {
    let mut loaded: BTreeMap<AccountId, (usize, Credits)> = BTreeMap::new();
    for (account, grant) in grants {
        let (count, usable) = loaded.entry(*account).or_default();
        *count += 1;
        if grant.expires_at.is_none_or(|at| at > now) {
            *usable = usable.saturating_add(grant.remaining);
        }
    }
    loaded
        .into_iter()
        .filter(|(account, (count, usable))| {
            let draw = draws.get(account).copied().unwrap_or_default();
            *count >= AT_FIRST && *usable <= draw
        })
        .map(|(account, _)| account)
        .collect()
}

async fn first(
    link: &mut Link<'_>,
    accounts: &BTreeSet<AccountId>,
) -> Result<Vec<(AccountId, GrantRow)>, StoreError> {
    let text = match link.flavor() {
        Flavor::Postgres => format!(
            "SELECT {COLUMNS} FROM {{rows}} CROSS JOIN LATERAL (\
               SELECT * FROM grants f WHERE f.account_id = s.id AND f.remaining > 0 \
               ORDER BY f.expires_at, f.id LIMIT {AT_FIRST}) AS g"
        ),
        // It knows no LATERAL; what it numbers here stays inside the process.
        Flavor::Sqlite => format!(
            "SELECT {COLUMNS} FROM (SELECT f.*, ROW_NUMBER() OVER (PARTITION BY f.account_id \
               ORDER BY f.expires_at IS NULL, f.expires_at, f.id) AS place \
               FROM {{rows}} JOIN grants f ON f.account_id = s.id WHERE f.remaining > 0) AS g \
             WHERE g.place <= {AT_FIRST}"
        ),
    };
    fetch(link, text, accounts).await
}

async fn all(
    link: &mut Link<'_>,
    accounts: &BTreeSet<AccountId>,
) -> Result<Vec<(AccountId, GrantRow)>, StoreError> {
    let text = format!(
        "SELECT {COLUMNS} FROM {{rows}} JOIN grants g ON g.account_id = s.id WHERE g.remaining > 0"
    );
    fetch(link, text, accounts).await
}

async fn fetch(
    link: &mut Link<'_>,
    text: String,
    accounts: &BTreeSet<AccountId>,
) -> Result<Vec<(AccountId, GrantRow)>, StoreError> {
    if accounts.is_empty() {
        return Ok(Vec::new());
    }
    let rows = Rows::ids(accounts.iter().map(|account| account.uuid()));
    let records: Vec<GrantRecord> = link.all(sql(text).rows(rows)).await?;
    records.into_iter().map(GrantRecord::row).collect()
}

impl GrantRecord {
    fn row(self) -> Result<(AccountId, GrantRow), StoreError> {
        let kind = EntryKind::parse(&self.kind)
            .ok_or_else(|| StoreError::Corrupt(format!("a grant of kind {}", self.kind)))?;
        let row = GrantRow {
            id: EntryId::from_uuid(self.id),
            kind,
            amount: Credits::from_nanos(self.amount),
            remaining: Credits::from_nanos(self.remaining),
            expires_at: self.expires_at.map(Moment),
        };
        Ok((AccountId::from_uuid(self.account_id), row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: AccountId = AccountId::from_uuid(Uuid::from_u128(1));

    /// So many grants of ten, the first `expired` of them over at moment 5.
    fn grants(count: usize, expired: usize) -> Vec<(AccountId, GrantRow)> {
        (0..count)
            .map(|number| {
                let row = GrantRow {
                    id: EntryId::from_uuid(Uuid::now_v7()),
                    kind: EntryKind::Promo,
                    amount: Credits::from_nanos(10),
                    remaining: Credits::from_nanos(10),
                    expires_at: (number < expired).then_some(Moment(5)),
                };
                (ACCOUNT, row)
            })
            .collect()
    }

    fn lacks(count: usize, expired: usize, draw: i64) -> bool {
        let draws = [(ACCOUNT, Credits::from_nanos(draw))].into();
        !lacking(&grants(count, expired), &draws, Moment(5)).is_empty()
    }

    #[test]
    fn the_rest_is_loaded_where_it_may_be_needed() {
        assert!(!lacks(AT_FIRST - 1, 0, 1_000), "there are no others");
        assert!(!lacks(AT_FIRST, 0, 159), "one of the first stays");
        assert!(
            lacks(AT_FIRST, 0, 160),
            "the next one decides what is usable"
        );
        assert!(lacks(AT_FIRST, AT_FIRST, 0), "more may have expired");
        assert!(!lacks(AT_FIRST, AT_FIRST - 1, 9));
        assert!(lacks(AT_FIRST, AT_FIRST - 1, 10));
    }
}
