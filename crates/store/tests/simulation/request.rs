//! A client of one replica: requests as the gateway makes them, and what each was given.

use std::{sync::Arc, time::Duration};

use billing::{
    BudgetId, Charge, Credits, End, Hold, Meter, Output, Path, Prompt, RequestFacts, RequestId,
    Reserved, Slot, Text, Verdict,
};
use store::{AuthError, KeyRecord, Ledger, Shortfall};
use tokens::{Encoding, Factor, Tokenizer, Usage};
use tokio::time::Instant;

use crate::{dice::Dice, trace::pass, world::World};

/// One token to the tokenizer, so that what was delivered is known without it.
const WORD: &str = " one";
const WAIT_MAX: Duration = Duration::from_secs(5);
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// Makes requests until the run ends or the replica stops.
pub(crate) async fn client(world: Arc<World>, ledger: Ledger, run: u32, number: u32) {
    let mut client = Client {
        dice: world.fork(u64::from(run) * 100 + u64::from(number)),
        world,
        ledger,
        run,
    };
    while !client.world.over() && !client.world.oracle.is_stopping(client.run) {
        let pause = client.dice.ms(1..400);
        pass(pause).await;
        client.request().await;
    }
}

struct Client {
    world: Arc<World>,
    ledger: Ledger,
    run: u32,
    dice: Dice,
}

impl Client {
    async fn request(&mut self) {
        let Some((known, secret)) = self.world.a_key(&mut self.dice) else {
            return;
        };
        let key = match self.ledger.authenticate(&secret).await {
            Ok(key) => {
                self.world.oracle.admitted(known, &self.world, self.run);
                key
            }
            Err(AuthError::Revoked | AuthError::AccountDisabled | AuthError::Unavailable) => return,
            Err(AuthError::Malformed | AuthError::Unknown | AuthError::Expired) => {
                self.world
                    .oracle
                    .blame(format!("run {}: a good key is not known", self.run));
                return;
            }
        };
        let Ok(permit) = self.ledger.reserve() else {
            return;
        };
        let prompt = self.dice.of(1..40);
        let stream = self.dice.chance(5000);
        let output = if self.dice.chance(1000) {
            self.dice.of(100..900)
        } else {
            self.dice.of(1..90)
        };
        let want = prompt + if stream { 30 } else { output };
        let Some(reserved) = self.hold(&key, prompt + 1, want).await else {
            return;
        };
        self.world
            .oracle
            .granted(&self.world, reserved.replica(), self.run);
        let facts = self.facts(&key, stream);
        let id = facts.request_id;
        let covered = reserved.amount().nanos();
        self.world
            .oracle
            .opened(&facts, self.run, reserved.replica());
        let usage = Usage {
            prompt: u64::try_from(prompt).unwrap(),
            ..Usage::default()
        };
        let tokenizer = Tokenizer::new(Encoding::O200kBase, Factor::EXACT);
        let meter = Meter::new(
            Arc::clone(&self.world.price),
            tokenizer,
            Prompt::Exact(usage),
        );
        let hold = Hold::new(reserved, permit);
        if self.dice.chance(300) {
            // No provider could be reached.
            self.world.oracle.dropped(id);
            drop(hold);
            return;
        }
        let charge = hold.start(facts, meter, Instant::now().into_std()).unwrap();
        self.world.oracle.delivered(id, prompt);
        if stream {
            self.stream(id, charge, prompt, output).await;
        } else {
            self.plain(id, charge, prompt, output.min(covered - prompt))
                .await;
        }
    }

    /// As the gateway's admission does it: all that is wanted, or what there is if it is enough.
    async fn hold(&mut self, key: &KeyRecord, least: i64, want: i64) -> Option<Reserved> {
        let deadline = Instant::now() + WAIT_MAX;
        let mut want = want;
        for _ in 0..16 {
            let amount = Credits::from_nanos(want);
            if let Ok(reserved) = Reserved::take(&key.path, amount, Instant::now().into_std()) {
                for budget in key.path.budgets() {
                    self.ledger.refill_soon(budget);
                }
                return Some(reserved);
            }
            match self.obtain(&key.path, want, deadline).await {
                Ok(()) => {}
                Err(short) if short.unavailable => {
                    self.world
                        .trace
                        .say(format!("run {}: unavailable", self.run));
                    return None;
                }
                Err(short) => {
                    if short.available.nanos() < least {
                        return None;
                    }
                    want = short.available.nanos().min(want);
                }
            }
        }
        None
    }

    /// Asks for credit while the judge looks whether there is any.
    async fn obtain(&self, path: &Path, need: i64, deadline: Instant) -> Result<(), Shortfall> {
        let amount = Credits::from_nanos(need);
        let since = Instant::now();
        let mut least: Vec<(BudgetId, i64)> = path
            .budgets()
            .iter()
            .map(|budget| {
                (
                    budget.id(),
                    self.world.oracle.to_be_had(&self.world, budget.id()),
                )
            })
            .collect();
        let mut asked =
            std::pin::pin!(
                self.ledger
                    .obtain(path, amount, amount, deadline.into_std())
            );
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut asked => break answer,
                () = pass(Duration::from_millis(10)) => {
                    for (budget, least) in &mut least {
                        *least = self.world.oracle.to_be_had(&self.world, *budget).min(*least);
                    }
                }
            }
        };
        if let Err(short) = &answer {
            let there = least
                .iter()
                .find(|(id, _)| *id == short.budget)
                .map_or(0, |(_, n)| *n);
            let last = self.world.oracle.to_be_had(&self.world, short.budget);
            self.world
                .trace
                .say(format!("run {}: short of {need}: {short}", self.run));
            self.world
                .oracle
                .refused(&self.world, short, need, there.min(last), since);
        }
        answer
    }

    fn facts(&self, key: &KeyRecord, stream: bool) -> Arc<RequestFacts> {
        Arc::new(RequestFacts {
            request_id: RequestId::from_uuid(self.world.new_id()),
            account_id: key.account_id,
            key_id: key.key_id,
            key_has_limit: key.has_limit(),
            endpoint: "chat.completions",
            model: "m".into(),
            provider: "acme".into(),
            price_id: self.world.price.id().unwrap(),
            stream,
        })
    }

    /// An answer in one piece, billed by the provider's report.
    async fn plain(&mut self, id: RequestId, mut charge: Charge, prompt: i64, output: i64) {
        let latency = self.dice.ms(5..1500);
        pass(latency).await;
        if self.dice.chance(300) {
            let settled = charge.finish(End::UpstreamFailed).unwrap();
            assert_eq!(settled.charged, Credits::ZERO);
            self.settled(id, 0, 0);
            return;
        }
        let output = if self.dice.chance(500) {
            output + 40
        } else {
            output
        };
        let cost = prompt + output;
        self.world.oracle.delivered(id, cost);
        charge.report(
            Usage {
                prompt: u64::try_from(prompt).unwrap(),
                completion: u64::try_from(output).unwrap(),
                ..Usage::default()
            },
            None,
        );
        let lacking = charge.lacking().unwrap();
        if lacking.is_positive() && !charge.grow(lacking, Instant::now().into_std()) {
            let path = charge.path().unwrap().clone();
            let deadline = Instant::now() + WAIT_MAX;
            let _ = self.obtain(&path, lacking.nanos(), deadline).await;
            charge.grow(charge.lacking().unwrap(), Instant::now().into_std());
        }
        if self.dice.chance(500) {
            // The client is gone: what is above the hold is owed.
            charge.abandon();
            self.settled(id, cost, i64::MAX);
            return;
        }
        let settled = charge.finish(End::Completed).unwrap();
        self.world
            .oracle
            .settled(id, cost, cost - settled.charged.nanos());
    }

    /// An answer word by word, billed by our own count.
    async fn stream(&mut self, id: RequestId, mut charge: Charge, prompt: i64, words: i64) {
        let mut given = 0;
        let mut checkpointed = Instant::now();
        let gone_after = self.dice.chance(1500).then(|| self.dice.of(0..words));
        while given < words {
            let pause = self.dice.ms(10..600);
            pass(pause).await;
            if gone_after.is_some_and(|after| given >= after) {
                drop(charge);
                self.settled(id, prompt + given, 0);
                return;
            }
            let some = self.dice.of(1..60).min(words - given);
            let text = WORD.repeat(usize::try_from(some).unwrap());
            let taken = self.observe(&mut charge, &text).await;
            given += taken;
            self.world.oracle.delivered(id, prompt + given);
            if taken < some {
                charge.finish(End::CreditsExhausted).unwrap();
                self.settled(id, prompt + given, 0);
                return;
            }
            if checkpointed.elapsed() >= CHECKPOINT_EVERY {
                checkpointed = Instant::now();
                if let Ok(Some(checkpoint)) = charge.checkpoint() {
                    self.world.oracle.checkpointed(id, checkpoint.cost.nanos());
                    self.ledger.checkpoint(checkpoint);
                }
            }
        }
        let failed = self.dice.chance(500);
        let end = if failed {
            End::UpstreamFailed
        } else {
            End::Completed
        };
        let settled = charge.finish(end).unwrap();
        let over = prompt + given - settled.charged.nanos();
        self.settled(id, prompt + given, over);
    }

    /// Its settlement was sent.
    fn settled(&self, id: RequestId, cost: i64, over: i64) {
        let run = self.run;
        self.world.trace.say(format!(
            "run {run}: {id} cost {cost}, above its hold {over}"
        ));
        self.world.oracle.settled(id, cost, over);
    }

    /// Delivers as many of these words as there is credit for; how many that was.
    async fn observe(&mut self, charge: &mut Charge, text: &str) -> i64 {
        let slot = Slot {
            choice: 0,
            part: 0,
            output: Output::Completion,
        };
        let texts = [Text { slot, text }];
        let words = |bytes: usize| i64::try_from(bytes / WORD.len()).unwrap();
        loop {
            let before = charge.held();
            let verdict = charge.observe(&texts, Instant::now().into_std()).unwrap();
            if charge.held() > before
                && let Some(name) = self
                    .world
                    .oracle
                    .lease_of(charge.facts().unwrap().request_id)
            {
                self.world.oracle.granted(&self.world, name, self.run);
            }
            match verdict {
                Verdict::Continue => return words(text.len()),
                // Its replica was taken for dead: it can never grow again.
                Verdict::NeedsCredit { .. } if charge.is_stranded() => {
                    let kept = charge.cut(&texts).unwrap();
                    return words(kept[0]);
                }
                Verdict::NeedsCredit { least, .. } => {
                    let path = charge.path().unwrap().clone();
                    let deadline = Instant::now() + WAIT_MAX;
                    if self.obtain(&path, least.nanos(), deadline).await.is_err() {
                        charge.grow_up_to(least, Instant::now().into_std());
                        let kept = charge.cut(&texts).unwrap();
                        return words(kept[0]);
                    }
                }
            }
        }
    }
}
