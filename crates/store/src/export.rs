//! The charges of a month as lines of JSON: written once, read again before the month is closed.

use std::io::{BufRead, Read as _, Write};

use billing::{AccountId, Counted, Credits, KeyId, RequestId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokens::{Bucket, Usage};
use uuid::Uuid;

use crate::{
    ChargeRecord, Month, Store, StoreError,
    charge::{month_page, source_name},
    link::{Link, Tx},
    sql::{Flavor, hex, sql},
};

/// A line at most, in bytes: a charge and what its provider reported.
const LINE_BYTES_MAX: u64 = 4 << 20;
/// A month of charges may be read for so long.
pub(crate) const READ_MAX: std::time::Duration = std::time::Duration::from_secs(3600);

/// What the charges of a month add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonthSums {
    /// How many there are.
    pub charges: u64,
    /// The price of their usage.
    pub cost: Credits,
    /// What was taken from accounts.
    pub charged: Credits,
    /// What the operator bore.
    pub house_loss: Credits,
    /// What they consumed.
    pub usage: Usage,
}

/// A month that was exported: the last line of its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// Always `export`.
    pub object: String,
    /// The month, such as `2026-08`.
    pub month: String,
    /// What the charges above add up to.
    #[serde(flatten)]
    pub sums: MonthSums,
    /// The SHA-256 of the lines above, their line ends included, in hexadecimal.
    pub sha256: String,
}

/// A charge as a line: every column, in a fixed order.
#[derive(Serialize)]
struct Line<'a> {
    object: &'static str,
    id: RequestId,
    account_id: AccountId,
    key_id: KeyId,
    endpoint: &'a str,
    model: &'a str,
    provider: &'a str,
    price_id: String,
    stream: bool,
    end: &'static str,
    cost: Credits,
    charged: Credits,
    house_loss: Credits,
    /// Left out where it is the cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_cost: Option<Credits>,
    source: &'static str,
    usage: &'a Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    counted: Option<Counted>,
    raw_usage: Option<&'a str>,
    first_token_us: Option<u64>,
    duration_us: u64,
    late: bool,
    created_at: String,
    settled_at: String,
}

impl Store {
    /// Writes every charge of a month, oldest first, one line of JSON each, and a last line with
    /// their count, their sums and the SHA-256 of the lines. It sees one moment of the books.
    ///
    /// # Errors
    /// [`StoreError::NotClosable`] when the month is closed already, [`StoreError::File`],
    /// [`StoreError::Database`].
    pub async fn export_month(
        &self,
        month: Month,
        out: &mut (impl Write + Send),
    ) -> Result<Export, StoreError> {
        let mut tx = charges_at_one_moment(self).await?;
        let mut link = tx.link();
        let closed = sql("SELECT 1 FROM closed_months WHERE month = ? AND state = 'closed'");
        let closed: Option<(i32,)> = link.maybe(closed.text(&month.to_string())).await?;
        if closed.is_some() {
            return Err(not_closable(month, "it is closed already"));
        }
        let mut lines = Lines::new(month)?;
        while let Some(page) = lines.next_page(&mut link).await? {
            for line in page {
                out.write_all(line.as_bytes())?;
            }
        }
        let export = lines.end();
        writeln!(out, "{}", json(&export)?)?;
        out.flush()?;
        Ok(export)
    }

    /// Reads a file of [`Store::export_month`] and compares it, line by line, with the charges.
    ///
    /// # Errors
    /// [`StoreError::Export`] naming the first line that differs.
    pub(crate) async fn verify_export(
        &self,
        month: Month,
        file: &mut (impl BufRead + Send),
    ) -> Result<Export, StoreError> {
        let mut tx = charges_at_one_moment(self).await?;
        let mut link = tx.link();
        let mut lines = Lines::new(month)?;
        let mut number: u64 = 0;
        let mut read = String::new();
        while let Some(page) = lines.next_page(&mut link).await? {
            for line in page {
                number += 1;
                next_line(file, &mut read)?;
                if read != line {
                    return Err(differs(
                        number,
                        "is not the charge that the ledger has there",
                    ));
                }
            }
        }
        let counted = lines.end();
        next_line(file, &mut read)?;
        let said: Export = serde_json::from_str(&read)
            .map_err(|_| differs(number + 1, "should be the last one, with count and sums"))?;
        if said != counted {
            return Err(differs(number + 1, "has other sums or another SHA-256"));
        }
        next_line(file, &mut read)?;
        if !read.is_empty() {
            return Err(differs(number + 2, "comes after the last one"));
        }
        Ok(counted)
    }
}

/// A snapshot in which the charges cannot be dropped while they are read.
pub(crate) async fn charges_at_one_moment(store: &Store) -> Result<Tx<'static>, StoreError> {
    let mut tx = store.backend().snapshot().await?;
    let mut link = tx.link();
    be_patient(&mut link).await?;
    match link.flavor() {
        Flavor::Sqlite => {}
        Flavor::Postgres => {
            // Before the snapshot is taken: a month that is dropped later stays until we are
            // done, and one that was dropped before is gone from the snapshot too.
            link.run(sql("LOCK TABLE charges IN ACCESS SHARE MODE"))
                .await?;
        }
    }
    Ok(tx)
}

/// Lets the statements of this transaction take as long as a whole month needs.
pub(crate) async fn be_patient(link: &mut Link<'_>) -> Result<(), StoreError> {
    match link.flavor() {
        Flavor::Sqlite => {}
        Flavor::Postgres => {
            let patience = READ_MAX.as_millis();
            link.run(sql(format!("SET LOCAL statement_timeout = {patience}")))
                .await?;
        }
    }
    Ok(())
}

pub(crate) fn not_closable(month: Month, why: impl Into<String>) -> StoreError {
    StoreError::NotClosable {
        month,
        why: why.into(),
    }
}

fn differs(line: u64, how: &str) -> StoreError {
    StoreError::Export(format!("line {line} {how}; export the month again"))
}

fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// Reads one line with its end; empty at the end of the file.
fn next_line(file: &mut impl BufRead, line: &mut String) -> Result<(), StoreError> {
    line.clear();
    let mut bounded = file.take(LINE_BYTES_MAX);
    bounded.read_line(line)?;
    Ok(())
}

/// Goes through the charges of a month by id and adds them up.
struct Lines {
    month: Month,
    ids: (Uuid, Uuid),
    after: (Uuid, Uuid),
    sums: MonthSums,
    hash: Sha256,
}

impl Lines {
    fn new(month: Month) -> Result<Self, StoreError> {
        Ok(Self {
            month,
            ids: month.ids()?,
            after: (Uuid::nil(), Uuid::nil()),
            sums: MonthSums::default(),
            hash: Sha256::new(),
        })
    }

    async fn next_page(&mut self, link: &mut Link<'_>) -> Result<Option<Vec<String>>, StoreError> {
        let page = month_page(link, self.ids, self.after).await?;
        let Some(last) = page.last() else {
            return Ok(None);
        };
        self.after = (last.id.uuid(), last.account_id.uuid());
        let mut lines = Vec::with_capacity(page.len());
        for charge in &page {
            self.sums.add(charge)?;
            let mut line = json(&Line::of(charge))?;
            line.push('\n');
            self.hash.update(line.as_bytes());
            lines.push(line);
        }
        Ok(Some(lines))
    }

    fn end(self) -> Export {
        Export {
            object: "export".into(),
            month: self.month.to_string(),
            sums: self.sums,
            sha256: hex(&self.hash.finalize()),
        }
    }
}

impl MonthSums {
    fn add(&mut self, charge: &ChargeRecord) -> Result<(), StoreError> {
        let sum = |a: Credits, b: Credits| {
            a.checked_add(b)
                .map_err(|_| StoreError::Corrupt("a sum does not fit".into()))
        };
        self.charges += 1;
        self.cost = sum(self.cost, charge.cost)?;
        self.charged = sum(self.charged, charge.charged)?;
        self.house_loss = sum(self.house_loss, charge.house_loss)?;
        for bucket in Bucket::ALL {
            let all = self.usage.get_mut(bucket);
            *all = all
                .checked_add(charge.usage.get(bucket))
                .ok_or_else(|| StoreError::Corrupt("a sum does not fit".into()))?;
        }
        Ok(())
    }
}

impl<'a> Line<'a> {
    fn of(charge: &'a ChargeRecord) -> Self {
        Self {
            object: "charge",
            id: charge.id,
            account_id: charge.account_id,
            key_id: charge.key_id,
            endpoint: &charge.endpoint,
            model: &charge.model,
            provider: &charge.provider,
            price_id: charge.price_id.uuid().simple().to_string(),
            stream: charge.stream,
            end: charge.end.as_str(),
            cost: charge.cost,
            charged: charge.charged,
            house_loss: charge.house_loss,
            provider_cost: Some(charge.provider_cost).filter(|owed| *owed != charge.cost),
            source: source_name(charge.source),
            usage: &charge.usage,
            counted: charge.counted,
            raw_usage: charge.raw_usage.as_deref(),
            first_token_us: charge.first_token_us,
            duration_us: charge.duration_us,
            late: charge.late,
            created_at: charge.created_at.to_string(),
            settled_at: charge.settled_at.to_string(),
        }
    }
}
