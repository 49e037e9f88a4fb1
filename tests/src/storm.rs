//! A storm: many clients, an operator and faults at once, over a fleet; and afterwards, the auditor.

mod client;
mod faults;
mod models;
mod operator;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use auditor::{Database, Outcome, Record, Report};
use mock_provider::{MockProvider, Script};
use serde_json::Value;
use tokio::sync::Barrier;

pub use self::{
    client::{Taken, Wish, ask},
    faults::Faults,
    models::{storm_model, storm_provider},
    operator::Account,
};
use self::{faults::Killed, operator::Operator};
use crate::{
    ADMIN_KEY, CANARY_PROVIDER_KEY, Dice, Fleet, KEY_VARIABLE, Launch, PROMPT_TOKENS, Place,
    Records, Remote, Target, eventually, usage, verdict,
};

/// Before each word of a stream, so that streams last.
const WORD_PAUSE: Duration = Duration::from_millis(2);
/// Before each word of an endless stream.
const ENDLESS_PAUSE: Duration = Duration::from_millis(25);
/// A settlement that is younger than this may not be in the database yet, on a busy machine.
const UNSETTLED_MAX: Duration = Duration::from_secs(3);
/// Where nobody can be asked, somebody will be soon.
const NOBODY_PAUSE: Duration = Duration::from_millis(20);
/// How long a client looks whether its request is booked.
const BOOKED_MAX: Duration = Duration::from_secs(3);

/// What happens.
#[derive(Clone, Debug)]
pub struct StormPlan {
    /// Decides who asks for what, whom, and what goes wrong (not when things meet).
    pub seed: u64,
    /// Processes.
    pub replicas: usize,
    /// Accounts that are asked for often and have much.
    pub hot: usize,
    /// Accounts that have little.
    pub cold: usize,
    /// Clients that ask one thing after the other.
    pub clients: usize,
    /// Of them, those that only ask for long streams.
    pub long: usize,
    /// Streams that are open from the beginning to the end, beside all else.
    pub standing: usize,
    /// Whether the operator is at work.
    pub operator: bool,
    /// How long clients ask.
    pub lasts: Duration,
    /// What goes wrong.
    pub faults: Faults,
    /// Variables beside those of every test.
    pub variables: Vec<(String, String)>,
    /// Of a killed process's requests, tokens that it may have written down and not sent.
    pub ahead_tokens: u64,
    /// Where the processes log.
    pub log: Option<PathBuf>,
}

impl Default for StormPlan {
    fn default() -> Self {
        Self {
            seed: 1,
            replicas: 4,
            hot: 3,
            cold: 30,
            clients: 48,
            long: 0,
            standing: 0,
            operator: true,
            lasts: Duration::from_secs(10),
            faults: Faults::default(),
            variables: Vec::new(),
            ahead_tokens: 0,
            log: None,
        }
    }
}

/// A storm that goes on.
pub struct Storm {
    plan: StormPlan,
    place: Place,
    /// Behind all processes.
    pub provider: MockProvider,
    /// The processes.
    pub fleet: Arc<Fleet>,
    /// Hot ones first.
    pub accounts: Vec<Account>,
    /// What was written down.
    pub records: Records,
    references: AtomicU64,
    taken: Mutex<Vec<Taken>>,
    killed: Mutex<Vec<Killed>>,
    over: AtomicBool,
}

/// What came of a storm.
#[derive(Debug)]
pub struct Calm {
    /// The auditor's.
    pub report: Report,
    /// How often processes were killed.
    pub kills: usize,
    /// From each kill until what the process had leased was back.
    pub back: Vec<Duration>,
    /// How many requests ended how.
    pub outcomes: Vec<(Outcome, usize)>,
    /// The longest that a request took.
    pub longest: Duration,
}

impl Storm {
    /// Starts the processes and makes the accounts.
    pub async fn gather(place: Place, plan: StormPlan) -> Self {
        let provider = MockProvider::start(([127, 0, 0, 1], 0).into())
            .await
            .unwrap();
        provider.set_pause(WORD_PAUSE);
        provider.script("endless", Script::new().role().endless(ENDLESS_PAUSE));
        let gated = Script::new()
            .role()
            .tokens(3)
            .gate("go")
            .tokens_paced(5, WORD_PAUSE);
        provider.script("gated", gated.finish("stop").usage().done());
        let said = usage(PROMPT_TOKENS, 4);
        let exact = Script::new().role().tokens(4).finish("length");
        provider.script("exact", exact.usage_json(&said).done());
        let mut variables = vec![
            ("TOLLWAY_ADMIN_KEY".to_owned(), ADMIN_KEY.to_owned()),
            (KEY_VARIABLE.to_owned(), CANARY_PROVIDER_KEY.to_owned()),
            ("RUST_LOG".to_owned(), "warn".to_owned()),
        ];
        variables.extend(plan.variables.iter().cloned());
        let launch = Launch {
            database_url: place.url().to_owned(),
            providers: vec![storm_provider(&provider.url())],
            variables,
            log: plan.log.clone(),
        };
        let fleet = Fleet::start(launch, plan.replicas).await;
        let mut storm = Self {
            plan,
            place,
            provider,
            fleet,
            accounts: Vec::new(),
            records: Records::default(),
            references: AtomicU64::new(0),
            taken: Mutex::default(),
            killed: Mutex::default(),
            over: AtomicBool::new(false),
        };
        let mut database = Database::open(storm.place.url()).await.unwrap();
        for credit in database.books().await.unwrap().entries_so_far() {
            storm.records.add(Record::Credit(credit));
        }
        drop(database);
        storm.open_accounts().await;
        storm
    }

    async fn open_accounts(&mut self) {
        let mut dice = Dice::new(self.plan.seed ^ 0xacc0);
        for index in 0..self.plan.hot + self.plan.cold {
            let target = self.fleet.any(&mut dice).expect("all run");
            let (credits, limit) = if index < self.plan.hot {
                ("50".to_owned(), None)
            } else {
                let limit = dice
                    .once_in(3)
                    .then(|| format!("0.00{:02}", 10 + dice.below(90)));
                (format!("0.00{:03}", dice.below(400)), limit)
            };
            let credits = if credits.bytes().all(|byte| matches!(byte, b'0' | b'.')) {
                "0".to_owned()
            } else {
                credits
            };
            let account = self
                .operator()
                .account(&target, &credits, limit.as_deref())
                .await;
            self.accounts.push(account);
        }
    }

    fn operator(&self) -> Operator<'_> {
        Operator {
            client: &self.fleet.client,
            records: &self.records,
            references: &self.references,
        }
    }

    /// Lets it rage: everybody begins at once, and goes on as long as the plan says.
    pub async fn rage(&self) {
        let mut dice = Dice::new(self.plan.seed);
        let barrier = Barrier::new(self.plan.clients + self.plan.standing + 1);
        let clients = (0..self.plan.clients).map(|index| {
            let dice = dice.split();
            self.client(dice, index < self.plan.long, &barrier)
        });
        let clients: Vec<_> = clients.collect();
        let standing: Vec<_> = (0..self.plan.standing)
            .map(|_| self.standing(dice.split(), &barrier))
            .collect();
        let (mut chance, mut fate) = (dice.split(), dice.split());
        let clock = async {
            barrier.wait().await;
            let until = Instant::now() + self.plan.lasts;
            while Instant::now() < until && !self.over() {
                // tidy: sleeps because a storm lasts as long as it was told to.
                tokio::time::sleep(NOBODY_PAUSE).await;
            }
            self.subside();
            self.provider.open("go");
        };
        let operator = async {
            while self.plan.operator && !self.over() {
                if let Some(target) = self.fleet.any(&mut chance) {
                    let account = chance.one_of(&self.accounts);
                    self.operator().act(&target, account, &mut chance).await;
                }
                // tidy: sleeps because an operator acts now and then.
                tokio::time::sleep(chance.millis(10, 60)).await;
            }
        };
        tokio::join!(
            futures_util::future::join_all(clients),
            futures_util::future::join_all(standing),
            clock,
            operator,
            faults::strike(self, &mut fate),
        );
    }

    /// Nobody begins anything more.
    fn subside(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// One thing after the other, of anybody.
    async fn client(&self, mut dice: Dice, long: bool, barrier: &Barrier) {
        barrier.wait().await;
        while !self.over() {
            let Some(target) = self.fleet.any(&mut dice) else {
                // tidy: sleeps because the next process is being started.
                tokio::time::sleep(NOBODY_PAUSE).await;
                continue;
            };
            let account = self.account(&mut dice, long);
            let wish = if long {
                self.long_wish(&mut dice)
            } else {
                wish(&mut dice)
            };
            let mut taken = ask(&self.fleet.client, &target, account, &wish).await;
            let finished = taken.answer.outcome == Outcome::Finished;
            if finished && dice.once_in(8) {
                taken.answer.acknowledged = self.is_booked(&target, account, &taken).await;
            }
            lock(&self.taken).push(taken);
        }
    }

    fn account(&self, dice: &mut Dice, long: bool) -> &Account {
        let (hot, cold) = self.accounts.split_at(self.plan.hot);
        if long || cold.is_empty() || (!hot.is_empty() && dice.below(10) < 6) {
            dice.one_of(hot)
        } else {
            dice.one_of(cold)
        }
    }

    fn long_wish(&self, dice: &mut Dice) -> Wish {
        Wish {
            leave_after: Some(40 + dice.below(400)),
            ..Wish::stream(models::ENDLESS.id, None)
        }
    }

    /// A stream that is open until the end.
    async fn standing(&self, mut dice: Dice, barrier: &Barrier) {
        barrier.wait().await;
        let target = self.fleet.any(&mut dice).expect("all run");
        let wish = Wish::stream(models::GATED.id, Some(8));
        let account = self.account(&mut dice, true);
        let taken = ask(&self.fleet.client, &target, account, &wish).await;
        lock(&self.taken).push(taken);
    }

    /// Whether the gateway tells the client, within a moment, that its request is booked.
    async fn is_booked(&self, target: &Target, account: &Account, taken: &Taken) -> bool {
        let id = taken.answer.request_id.as_deref().unwrap_or_default();
        let url = format!("http://{}/v1/generation?id=req_{id}", target.addr);
        let until = Instant::now() + BOOKED_MAX;
        while Instant::now() < until {
            let request = self.fleet.client.get(&url).bearer_auth(account.secret());
            match request.send().await {
                Ok(response) if response.status() == 200 => return true,
                Ok(_) => {}
                // It was killed.
                Err(_) => return false,
            }
            // tidy: sleeps because it looks again, with a deadline, for what comes by itself.
            tokio::time::sleep(NOBODY_PAUSE).await;
        }
        false
    }

    /// Waits until every killed process's leases are back, ends all in order, and has the books
    /// judged.
    ///
    /// # Panics
    /// A process does not end in order.
    pub async fn calm(self) -> Calm {
        self.calm_with_records().await.0
    }

    /// As [`Storm::calm`], with what was written down.
    ///
    /// # Panics
    /// A process does not end in order.
    pub async fn calm_with_records(self) -> (Calm, Vec<Record>) {
        faults::all_are_back(&self).await;
        self.fleet.terminate_all().await;
        let killed = std::mem::take(&mut *lock(&self.killed));
        let mut taken = std::mem::take(&mut *lock(&self.taken));
        for one in &mut taken {
            one.answer.at_risk = killed.iter().any(|kill| {
                kill.name == one.answer.replica && one.ended + UNSETTLED_MAX >= kill.at
            });
        }
        let spans = taken.iter().map(|one| one.ended.duration_since(one.began));
        let longest = spans.max().unwrap_or_default();
        let mut outcomes: Vec<(Outcome, usize)> = Vec::new();
        for one in taken {
            match outcomes
                .iter_mut()
                .find(|(outcome, _)| *outcome == one.answer.outcome)
            {
                Some((_, count)) => *count += 1,
                None => outcomes.push((one.answer.outcome, 1)),
            }
            self.records.add(Record::Answer(Box::new(one.answer)));
        }
        let ahead = self.plan.ahead_tokens.to_string();
        let flags: &[&str] = &["--closed", "--ahead-tokens", &ahead];
        let records = self.records.all();
        let report = verdict(self.place.url(), &records, flags).await;
        let calm = Calm {
            report,
            kills: killed.len(),
            back: killed.iter().filter_map(|kill| kill.back).collect(),
            outcomes,
            longest,
        };
        (calm, records)
    }

    /// A request of a test's own, written down like all others.
    pub async fn ask(&self, target: &Target, account: &Account, wish: &Wish) -> Taken {
        let taken = ask(&self.fleet.client, target, account, wish).await;
        lock(&self.taken).push(taken.clone());
        taken
    }

    /// As [`Storm::ask`], over a connection of its own.
    pub async fn ask_anew(&self, target: &Target, account: &Account, wish: &Wish) -> Taken {
        let client = Remote::new(target.addr).client;
        let taken = ask(&client, target, account, wish).await;
        lock(&self.taken).push(taken.clone());
        taken
    }

    /// An account of a test's own, by the operator's hand.
    pub async fn open_account(&self, credits: &str, limit: Option<&str>) -> Account {
        let target = self.fleet.targets().next().expect("one runs");
        self.operator().account(&target, credits, limit).await
    }

    /// Credits by the operator's hand.
    pub async fn credit(
        &self,
        account: &Account,
        amount: &str,
        kind: &str,
        expires_in: Option<Duration>,
    ) {
        let target = self.fleet.targets().next().expect("one runs");
        self.operator()
            .credit(&target, account, amount, kind, expires_in)
            .await;
    }

    /// An account as the admin API shows it, once nothing of it is held.
    pub async fn settled(&self, account: &Account) -> Value {
        let target = self.fleet.targets().next().expect("one runs");
        let url = format!(
            "http://{}/admin/v1/accounts/acct_{}",
            target.addr, account.id
        );
        eventually("nothing is held", async || {
            let request = self.fleet.client.get(&url).bearer_auth(ADMIN_KEY);
            let bytes = request.send().await.ok()?.bytes().await.ok()?;
            let shown: Value = serde_json::from_slice(&bytes).ok()?;
            (shown["balance"]["held"] == "0").then_some(shown)
        })
        .await
    }

    /// Its database.
    #[must_use]
    pub fn database_url(&self) -> &str {
        self.place.url()
    }
}

impl Calm {
    /// The report, which must find nothing.
    ///
    /// # Panics
    /// It found something.
    #[track_caller]
    pub fn expect_balanced(&self) -> &Report {
        let first: Vec<_> = self.report.findings.iter().take(20).collect();
        assert!(
            self.report.balanced,
            "{} findings: {first:#?}\n{:#?}",
            self.report.findings.len(),
            self.report.totals
        );
        &self.report
    }

    /// How many requests ended so.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        let found = self.outcomes.iter().find(|(one, _)| *one == outcome);
        found.map_or(0, |(_, count)| *count)
    }
}

/// Anything that clients ask for.
fn wish(dice: &mut Dice) -> Wish {
    let model = models::any(dice);
    let stream = dice.below(10) < 6;
    let limited = model.says == models::Says::TooMuch || !stream || dice.once_in(2);
    Wish {
        model,
        stream,
        include_usage: dice.once_in(2),
        max_tokens: limited.then(|| 2 + dice.below(120)),
        leave_after: dice.once_in(12).then(|| dice.below(20)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
