//! Measures the ledger beside one conditional statement for each hold and settlement.

mod baseline;
mod books;
mod cpu;
mod error;
mod figures;
mod load;
mod ours;
mod plan;
mod raw;
mod world;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Parser as _;

use crate::{
    error::BenchError,
    figures::{Figure, Figures, Row},
    load::{Load, Seen},
    plan::{Arguments, Kind, Plan, Spread},
    raw::Raw,
    world::{Place, World},
};

/// Before the first round, so that caches and files are as in the others.
const WARM_UP: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = measure(&arguments);
    let (text, code) = match outcome {
        Ok(figures) => {
            let missed = figures.promises().iter().any(|(kept, _)| !kept);
            let code = if arguments.check && missed {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
            (figures.table(), code)
        }
        Err(error) => (format!("error: {error}"), ExitCode::FAILURE),
    };
    // A closed pipe (`| head`) is no failure.
    let _ = writeln!(io::stdout(), "{text}");
    code
}

fn measure(arguments: &Arguments) -> Result<Figures, BenchError> {
    let plan = Plan::new(arguments);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut rows = Vec::new();
    for kind in &plan.databases {
        let place = Place::new(*kind)?;
        rows.extend(runtime.block_on(database(&place, *kind, &plan))?);
    }
    let figures = Figures {
        plan,
        optimised: !cfg!(debug_assertions),
        processors: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        rows,
    };
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&figures).map_err(|source| BenchError::Json {
            path: path.clone(),
            source,
        })?;
        fs::write(path, text + "\n")?;
    }
    Ok(figures)
}

/// What was seen of one case.
#[derive(Default)]
struct Case {
    full: Vec<Seen>,
    half: Vec<Seen>,
    baseline: Vec<Seen>,
}

/// All cases of one database, round by round, so that what else the machine does falls on all alike.
async fn database(place: &Place, kind: Kind, plan: &Plan) -> Result<Vec<Row>, BenchError> {
    let mut worlds = Vec::new();
    for stored in plan.stored.iter().filter(|n| plan.wants(kind, **n)) {
        say(&format!("{kind}: books with {stored} charges"));
        let world = World::new(place, kind, plan.accounts_max(), *stored).await?;
        if *stored == 0 {
            let mut raw = Raw::open(&world.url).await?;
            baseline::prepare(&mut raw).await?;
            books::make_log(&mut raw, plan.log_segments).await?;
        }
        worlds.push(Arc::new(world));
    }
    let mut cases: BTreeMap<(u64, Spread), Case> = BTreeMap::new();
    for round in 0..=plan.rounds {
        let warm_up = round == 0;
        for spread in &plan.spreads {
            for world in worlds.iter().filter(|w| plan.measures(*spread, w.stored)) {
                let case = cases.entry((world.stored, *spread)).or_default();
                let time = if warm_up { WARM_UP } else { plan.time };
                let one = one_round(world, *spread, plan, time).await?;
                if !warm_up {
                    case.full.push(one.0);
                    case.half.push(one.1);
                    case.baseline.extend(one.2);
                }
            }
        }
    }
    for world in &worlds {
        say(&format!(
            "{kind}: audit of {} charges and more",
            world.stored
        ));
        world.audit(&format!("all runs on {kind}")).await?;
    }
    let row = |((stored, spread), case): ((u64, Spread), Case)| Row {
        database: kind,
        stored,
        spread,
        full: Figure::of(&case.full),
        half: Some(Figure::of(&case.half)),
        baseline: (!case.baseline.is_empty()).then(|| Figure::of(&case.baseline)),
    };
    Ok(cases.into_iter().map(row).collect())
}

/// The baseline, the ledger at full load and at half of it, in this order.
async fn one_round(
    world: &Arc<World>,
    spread: Spread,
    plan: &Plan,
    time: Duration,
) -> Result<(Seen, Seen, Option<Seen>), BenchError> {
    let load = Load {
        tasks: plan.tasks,
        spread,
        time,
        pace: None,
    };
    let name = format!("{}, {spread}, {} stored", world.kind, world.stored);
    let baseline = if world.stored == 0 {
        let seen = baseline::run(world, load).await?;
        say(&format!("{name}: baseline {:.0}/s", figures::rate(&seen)));
        Some(seen)
    } else {
        None
    };
    let full = ours::run(world, load, plan.in_flight, None).await?;
    let rate = figures::rate(&full);
    say(&format!("{name}: ledger {rate:.0}/s"));
    if plan.local_journal {
        let folder = tempfile::tempdir()?;
        let place = Some(folder.path().to_owned());
        let with = ours::run(world, load, plan.in_flight, place).await?;
        let cpu = |seen: &Seen| seen.used.here.as_secs_f64() / seen.requests.max(1) as f64;
        say(&format!(
            "{name}: with a local journal {:.0}/s, {:.2} of that without; {:.2} of its CPU a request",
            figures::rate(&with),
            figures::rate(&with) / rate,
            cpu(&with) / cpu(&full),
        ));
    }
    let half = Load {
        pace: Some(rate / 2.0),
        ..load
    };
    let half = ours::run(world, half, plan.in_flight, None).await?;
    if world.stored == 0 {
        world.audit(&name).await?;
    }
    Ok((full, half, baseline))
}

/// Prints now: a person or a log is waiting.
fn say(line: &str) {
    let mut out = io::stderr().lock();
    // A closed pipe is no failure.
    let _ = writeln!(out, "{line}");
}
