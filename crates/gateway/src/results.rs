//! The results of a batch: every request in them is charged once, before anybody gets them.
//!
//! Why nobody gets results that are not paid for, and why a request is charged once whoever asks how
//! often: `docs/adr/0011-results-are-paid-for-first.md`.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use billing::{
    BudgetId, Credits, End, Escrow, Hold, Meter, Path, Prompt, RequestFacts, RequestId, Reserved,
    Settlement,
};
use bytes::Bytes;
use dialect::{Endpoint, ForwardedAnswer};
use http::Method;
use ring::digest::{self, SHA256};
use serde::Deserialize;
use serde_json::value::RawValue;
use store::{Claim, Claimed, IdempotencyKey, KeyRecord, OwnedObject, StandingHold, Stood};
use tokens::Usage;
use tokio::sync::mpsc;
use uuid::Builder;

use crate::{
    admit,
    app::Shared,
    batch_lines::Lines,
    catalogue::Model,
    error::ApiError,
    objects::{self, About},
    once,
    prices::Quoted,
};

/// The endpoint of these charges.
const ENDPOINT: &str = "batches";
/// Requests that are booked in one transaction: other requests of the account wait for it.
const BOOKED_AT_ONCE: usize = 500;
/// Longer than any results are charged: a hold that stands in the database does not expire.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// A line of results, as far as it is read.
#[derive(Deserialize)]
struct Line<'a> {
    custom_id: String,
    #[serde(borrow, default)]
    response: Option<Answered<'a>>,
}

#[derive(Deserialize)]
struct Answered<'a> {
    #[serde(default)]
    status_code: u16,
    #[serde(borrow, default)]
    body: Option<&'a RawValue>,
}

/// A request of a batch that was answered.
struct Done {
    request: RequestId,
    usage: Usage,
    /// What was reported, verbatim; `None` where nothing was.
    reported: Option<Option<Box<str>>>,
    cost: Credits,
}

/// What a batch's results are charged by.
struct Bill {
    app: Shared,
    key: Arc<KeyRecord>,
    file: OwnedObject,
    batch: OwnedObject,
    model: Arc<Model>,
    quoted: Quoted,
}

/// Charges every request in these results that is not charged yet. Goes on when the client leaves.
///
/// # Errors
/// 402 where the credit for all of them is not there: then none is charged. 409 while somebody else
/// charges them. 503 when the books cannot be asked; what is charged stays so and is not charged again.
pub async fn pay(
    app: &Shared,
    key: &Arc<KeyRecord>,
    file: &OwnedObject,
    request: RequestId,
) -> Result<(), ApiError> {
    let id = file.made_by.as_deref().unwrap_or_default();
    let (batch, provider) = objects::own(app, key, id).await?;
    let name = batch.model.as_deref().unwrap_or_default();
    let mut serving = app.catalogue.resolve(name).iter();
    let model = serving
        .find(|model| model.provider.name == provider.name)
        .ok_or(ApiError::ModelNotFound)?;
    let quoted = app.prices.quote_batch(&app.store, key, model).await?;
    let bill = Bill {
        app: app.clone(),
        key: Arc::clone(key),
        file: file.clone(),
        batch,
        model: Arc::clone(model),
        quoted,
    };
    match tokio::spawn(bill.settle(request)).await {
        Ok(paid) => paid,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(ApiError::Stopping),
    }
}

impl Bill {
    /// Claims the results, charges them, and gives the claim back.
    async fn settle(self, request: RequestId) -> Result<(), ApiError> {
        let claim = self.claim(request)?;
        let mut limits = once::limits(&self.app.settings);
        // Not one of the customer's own.
        limits.keys_max = u32::MAX;
        match self.app.store.claim(&claim, &limits).await {
            Ok(Claimed::Granted) => {}
            Ok(
                Claimed::Running { request, .. }
                | Claimed::Answered { request, .. }
                | Claimed::NotKept { request },
            ) => return Err(ApiError::StillRunning(request)),
            Ok(Claimed::OtherRequest | Claimed::TooMany) => return Err(ApiError::KeyReused),
            Err(error) => {
                // It may have been made.
                let _ = self.app.store.release_claim(&claim).await;
                return Err(error.into());
            }
        }
        let charged = self.charge_all().await;
        let released = self.app.store.release_claim(&claim).await;
        charged?;
        Ok(released?)
    }

    fn claim(&self, request: RequestId) -> Result<Claim, ApiError> {
        let name = format!("results:{}:{}", self.file.provider, self.file.id);
        let key = self.key.key_id;
        let hash = self.app.store.request_hash("PAY", &name, key, b"")?;
        let name: String = digest::digest(&SHA256, name.as_bytes())
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Claim {
            account: self.key.account_id,
            key: IdempotencyKey::new(&format!("tollway-results-{name}"))?,
            hash,
            request,
            replica: self.app.ledger.escrow().replica(),
        })
    }

    async fn charge_all(&self) -> Result<(), ApiError> {
        let (app, account) = (&self.app, self.key.account_id);
        // Somebody may have paid just before.
        let now = app.store.objects(&[&self.file.id]).await?;
        let paid = |object: &OwnedObject| object.provider == self.file.provider && object.paid;
        if now.iter().any(paid) {
            return Ok(());
        }
        let began = app.store.results_paying(&self.file).await?;
        let done = self.read(began).await?;
        let ids: Vec<RequestId> = done.iter().map(|one| one.request).collect();
        let booked: HashSet<RequestId> =
            app.store.booked(account, &ids).await?.into_iter().collect();
        let due: Vec<Done> = done
            .into_iter()
            .filter(|one| !booked.contains(&one.request))
            .collect();
        self.charge(due).await?;
        app.store.results_paid(&self.file).await?;
        release(app, &self.batch).await
    }

    /// Reads what each request took.
    async fn read(&self, began: jiff::Timestamp) -> Result<Vec<Done>, ApiError> {
        let (app, provider) = (&self.app, &self.model.provider);
        let about = About::new(Method::GET, format!("/files/{}/content", self.file.id));
        let response = objects::ask(app, provider, about).await?;
        let mut lines = Lines::new(response, app, provider);
        let mut done: Vec<Done> = Vec::new();
        let mut seen = HashSet::new();
        while let Some(line) = lines.next().await? {
            let Some(one) = self.done(began, &line)? else {
                continue;
            };
            // A request of this name is charged once.
            if seen.insert(one.request) {
                done.push(one);
            }
        }
        Ok(done)
    }

    /// What a line's request took; `None` where it failed, and for an empty line.
    fn done(&self, began: jiff::Timestamp, line: &Bytes) -> Result<Option<Done>, ApiError> {
        let Ok(read) = serde_json::from_slice::<Line<'_>>(line) else {
            if line.trim_ascii().is_empty() {
                return Ok(None);
            }
            let failure = crate::upstream::Failure::Garbage("results that are no results".into());
            return Err(objects::failed(&self.model.provider, failure));
        };
        let answered = read.response.filter(|answered| answered.status_code == 200);
        let Some(body) = answered.and_then(|answered| answered.body) else {
            return Ok(None);
        };
        let body = Bytes::copy_from_slice(body.get().as_bytes());
        // Without a body that is an answer nothing was done.
        let Ok(answer) = ForwardedAnswer::decode(Endpoint::Chat, body.clone()) else {
            return Ok(None);
        };
        let (usage, reported) = match answer.usage() {
            Some(Ok(usage)) => (usage, Some(answer.usage_text().map(Into::into))),
            Some(Err(_)) | None => {
                let tokenizer = self.model.output_tokenizer();
                let counted = Usage {
                    completion: tokenizer.count(&String::from_utf8_lossy(&body)),
                    ..Usage::default()
                };
                (counted, None)
            }
        };
        Ok(Some(Done {
            request: self.name(began, &read.custom_id),
            cost: self.quoted.priced.price.cost(&usage)?,
            usage,
            reported,
        }))
    }

    /// The same name for the same request of the same batch, whoever charges it how often.
    fn name(&self, began: jiff::Timestamp, custom_id: &str) -> RequestId {
        let mut hash = digest::Context::new(&SHA256);
        for part in [&*self.file.provider, &*self.batch.id, custom_id] {
            hash.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let hash = hash.finish();
        let mut bits = [0; 10];
        for (bit, byte) in bits.iter_mut().zip(hash.as_ref()) {
            *bit = *byte;
        }
        let millis = u64::try_from(began.as_millisecond()).unwrap_or(0);
        RequestId::from_uuid(Builder::from_unix_timestamp_millis(millis, &bits).into_uuid())
    }

    /// Sees that what all of them cost is set aside, and charges each by its own part of it.
    async fn charge(&self, due: Vec<Done>) -> Result<(), ApiError> {
        let costs = due.iter().map(|one| one.cost);
        let total = costs.fold(Credits::ZERO, Credits::saturating_add);
        let hold = self.hold(total).await?;
        let mut reserved = self.reserve(&hold, total)?;
        let mut due = due.into_iter();
        loop {
            let some: Vec<Done> = due.by_ref().take(BOOKED_AT_ONCE).collect();
            if some.is_empty() {
                return Ok(());
            }
            let settlements = self.settlements(&mut reserved, some)?;
            self.app.store.settle_standing(&hold, settlements).await?;
        }
    }

    /// The hold that the batch began with; more, where that is too little.
    async fn hold(&self, total: Credits) -> Result<StandingHold, ApiError> {
        let store = &self.app.store;
        let stands = store.standing_for(&self.batch).await?;
        let hold = stands.unwrap_or_else(|| StandingHold::ended(&self.batch));
        let limited = self.key.has_limit();
        match store.raise_standing(&hold, limited, total).await? {
            Stood::Held(hold) => Ok(hold),
            Stood::Short(shortfall) => Err(admit::refused(&shortfall, total, Credits::ZERO)),
        }
    }

    /// The hold as requests draw from it: its leases, and nobody else's.
    fn reserve(&self, hold: &StandingHold, total: Credits) -> Result<Reserved, ApiError> {
        let now = Instant::now();
        let escrow = Escrow::new(hold.holder(), now);
        escrow.extend_fence(now + NEVER);
        let account = BudgetId::Account(self.key.account_id);
        let key = BudgetId::Key(self.key.account_id, self.key.key_id);
        let budgets = [Some(account), self.key.has_limit().then_some(key)];
        let path = Path::new(budgets.into_iter().flatten().map(|id| {
            let budget = escrow.budget(id);
            budget.add_lease(hold.holder(), total, None);
            budget
        }));
        Reserved::take(&path, total, now).map_err(|_| ApiError::Internal)
    }

    /// What these requests settle with.
    fn settlements(
        &self,
        reserved: &mut Reserved,
        some: Vec<Done>,
    ) -> Result<Vec<Settlement>, ApiError> {
        let (places, mut settled) = mpsc::channel(some.len().max(1));
        for one in some {
            let place = places.clone().try_reserve_owned();
            let place = place.map_err(|_| ApiError::Internal)?;
            let part = reserved.split(one.cost).ok_or(ApiError::Internal)?;
            let meter = Meter::new(
                self.quoted.priced.price.clone(),
                self.model.tokenizer,
                Prompt::Exact(Usage::default()),
            );
            let facts = RequestFacts {
                request_id: one.request,
                account_id: self.key.account_id,
                key_id: self.key.key_id,
                key_has_limit: self.key.has_limit(),
                endpoint: ENDPOINT,
                model: self.model.id.clone(),
                provider: self.model.provider.name.clone(),
                price_id: self.quoted.priced.id,
                stream: false,
            };
            let hold = Hold::new(part, place);
            let mut charge = hold.start(Arc::new(facts), meter, Instant::now())?;
            match one.reported {
                Some(raw) => charge.report(one.usage, raw),
                None => charge.know_prompt(one.usage),
            }
            charge.finish(End::Completed);
        }
        drop(places);
        Ok(std::iter::from_fn(|| settled.try_recv().ok()).collect())
    }
}

/// Ends the hold of a batch that is over, where all its results are paid for.
///
/// # Errors
/// 503 when the books cannot be asked.
pub async fn release(app: &Shared, batch: &OwnedObject) -> Result<(), ApiError> {
    let Some(hold) = app.store.standing_for(batch).await? else {
        return Ok(());
    };
    if !app.store.has_unpaid_results(batch).await? {
        app.store.end_standing(&hold).await?;
    }
    Ok(())
}
