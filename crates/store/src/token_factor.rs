//! Token factors: what answers have taught about the tokenizers of models, joined over all replicas.

use jiff::Timestamp;
use tokens::{Estimate, Side};

use crate::{
    Store, StoreError, check,
    sql::{Rows, sql},
};

/// What is known of one model's texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFactor {
    /// The provider that serves the model.
    pub provider: String,
    /// The model as configured.
    pub model: String,
    /// The tokenizer that its texts were counted with.
    pub encoding: String,
    /// What it reads, or what it writes.
    pub side: Side,
    /// The estimate of all replicas together.
    pub estimate: Estimate,
    /// All answers that were ever compared.
    pub compared: u64,
    /// When it was last added to.
    pub updated_at: Timestamp,
}

/// What a replica has learned since it last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewTokenFactor<'a> {
    /// The provider that serves the model.
    pub provider: &'a str,
    /// The model as configured.
    pub model: &'a str,
    /// The tokenizer that its texts were counted with.
    pub encoding: &'a str,
    /// What it reads, or what it writes.
    pub side: Side,
    /// What the answers since then come to.
    pub estimate: Estimate,
}

impl NewTokenFactor<'_> {
    fn is_of(&self, known: &TokenFactor) -> bool {
        (self.provider, self.model, self.encoding, self.side)
            == (
                &*known.provider,
                &*known.model,
                &*known.encoding,
                known.side,
            )
    }
}

#[derive(sqlx::FromRow)]
struct FactorRow {
    provider: String,
    model: String,
    encoding: String,
    side: String,
    millionths: i64,
    samples: i64,
    compared: i64,
    updated_at: i64,
}

const SELECT: &str = "SELECT provider, model, encoding, side, millionths, samples, compared, \
     updated_at FROM token_factors";

impl Store {
    /// Everything that is known, by provider, model, tokenizer and side.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn token_factors(&self) -> Result<Vec<TokenFactor>, StoreError> {
        let select = sql(format!("{SELECT} ORDER BY provider, model, encoding, side"));
        let mut reader = self.read().await?;
        let rows: Vec<FactorRow> = reader.link().all(select).await?;
        rows.into_iter().map(FactorRow::read).collect()
    }

    /// Joins what a replica has learned to what is known. No two of them may be of the same model,
    /// tokenizer and side.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`]: nothing was joined.
    pub async fn learn_token_factors(
        &self,
        learned: &[NewTokenFactor<'_>],
    ) -> Result<(), StoreError> {
        if learned.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let mut link = tx.link();
        let keys = named(learned.iter());
        // In one order for all replicas, so that none waits for another that waits for it.
        let known = sql(format!(
            "{SELECT} WHERE (provider, model, encoding, side) IN \
             (SELECT provider, model, encoding, side FROM {{rows}}) \
             ORDER BY provider, model, encoding, side {{lock}}"
        ));
        let known: Vec<FactorRow> = link.all(known.rows(keys)).await?;
        let known: Vec<TokenFactor> = known
            .into_iter()
            .map(FactorRow::read)
            .collect::<Result<_, _>>()?;
        let joined = learned.iter().map(|new| {
            let added = u64::from(new.estimate.samples());
            match known.iter().find(|old| new.is_of(old)) {
                Some(old) => (old.estimate.join(new.estimate), old.compared + added),
                None => (new.estimate, added),
            }
        });
        let joined: Vec<(Estimate, u64)> = joined.collect();
        let rows = named(learned.iter())
            .int(
                "millionths",
                joined.iter().map(|(e, _)| e.millionths().into()),
            )
            .int("samples", joined.iter().map(|(e, _)| e.samples().into()))
            .int("compared", joined.iter().map(|(_, n)| check::pinned(*n)));
        // Two replicas that are the first to know a model: the later one's word stands.
        let save = sql(
            "INSERT INTO token_factors (provider, model, encoding, side, millionths, \
               samples, compared, updated_at) \
             SELECT provider, model, encoding, side, millionths, samples, compared, {now} \
             FROM {rows} WHERE true \
             ON CONFLICT (provider, model, encoding, side) DO UPDATE SET \
               millionths = excluded.millionths, samples = excluded.samples, \
               compared = excluded.compared, updated_at = excluded.updated_at",
        );
        link.run(save.rows(rows)).await?;
        tx.commit().await
    }
}

fn named<'a>(learned: impl Iterator<Item = &'a NewTokenFactor<'a>> + Clone) -> Rows {
    Rows::new()
        .text("provider", learned.clone().map(|new| new.provider))
        .text("model", learned.clone().map(|new| new.model))
        .text("encoding", learned.clone().map(|new| new.encoding))
        .text("side", learned.map(|new| new.side.as_str()))
}

impl FactorRow {
    fn read(self) -> Result<TokenFactor, StoreError> {
        let side = Side::ALL
            .into_iter()
            .find(|side| side.as_str() == self.side);
        let number = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
        let estimate = Estimate::new(number(self.millionths), number(self.samples));
        let (Some(side), Some(estimate)) = (side, estimate) else {
            return Err(StoreError::Corrupt(format!(
                "a token factor of {}/{}",
                self.provider, self.model
            )));
        };
        Ok(TokenFactor {
            provider: self.provider,
            model: self.model,
            encoding: self.encoding,
            side,
            estimate,
            compared: check::count(self.compared),
            updated_at: check::timestamp(self.updated_at)?,
        })
    }
}
