//! Models that answer wrongly, by name: `mock-500`, `mock-drop-midstream`, `mock-usage-negative`.

use std::time::Duration;

use crate::chunk;
use crate::reply::{base_name, passage};
use crate::request::Asked;
use crate::script::{Cut, Script};
use crate::words::Passage;

/// The models that answer wrongly. Beside them `mock-400` to `mock-599` answer with that status.
pub fn fault_models() -> impl Iterator<Item = &'static str> {
    FAULTS.iter().map(|(name, _)| *name)
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Status(u16),
    DropMidstream,
    CloseMidstream,
    ErrorMidstream,
    StallMidstream,
    NoUsage,
    NoDone,
    Slow,
    Hang,
    Reset,
    Empty,
    BadJson,
    Html,
    Redirect,
    BigLine,
    ByteByByte,
    UsageNegative,
    UsageHuge,
    UsageAbove,
    UsageString,
    UsageZero,
    Cumulative,
    NeverEnds,
}

const FAULTS: [(&str, Fault); 25] = [
    ("mock-401", Fault::Status(401)),
    ("mock-429", Fault::Status(429)),
    ("mock-500", Fault::Status(500)),
    ("mock-drop-midstream", Fault::DropMidstream),
    ("mock-close-midstream", Fault::CloseMidstream),
    ("mock-error-midstream", Fault::ErrorMidstream),
    ("mock-stall-midstream", Fault::StallMidstream),
    ("mock-no-usage", Fault::NoUsage),
    ("mock-no-done", Fault::NoDone),
    ("mock-slow", Fault::Slow),
    ("mock-hang", Fault::Hang),
    ("mock-reset", Fault::Reset),
    ("mock-empty", Fault::Empty),
    ("mock-badjson", Fault::BadJson),
    ("mock-html", Fault::Html),
    ("mock-redirect", Fault::Redirect),
    ("mock-big-line", Fault::BigLine),
    ("mock-byte-by-byte", Fault::ByteByByte),
    ("mock-usage-negative", Fault::UsageNegative),
    ("mock-usage-huge", Fault::UsageHuge),
    ("mock-usage-above", Fault::UsageAbove),
    ("mock-usage-string", Fault::UsageString),
    ("mock-usage-zero", Fault::UsageZero),
    ("mock-cumulative", Fault::Cumulative),
    ("mock-never-ends", Fault::NeverEnds),
];

const SLOW_HEAD: Duration = Duration::from_secs(2);
const SLOW_WORD: Duration = Duration::from_millis(200);
/// Fast enough to run into any bound soon, slow enough to leave the machine to others.
const ENDLESS_PAUSE: Duration = Duration::from_millis(1);
/// A reset takes from the client what it has not read yet: time to read it, as on a real network.
const BEFORE_RESET: Duration = Duration::from_millis(50);
const BIG_LINE_BYTES: usize = 4 << 20;
const TOO_MANY: u64 = 1_000;
const HTML: &str =
    "<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>";

/// The wrong answer of a model, if its name is one of these.
pub(crate) fn script(asked: &Asked<'_>, pause: Duration) -> Option<Script> {
    Some(fault(base_name(&asked.model))?.script(asked, pause))
}

fn fault(name: &str) -> Option<Fault> {
    let status = name
        .strip_prefix("mock-")
        .and_then(|rest| rest.parse().ok());
    if let Some(status @ 400..=599) = status {
        return Some(Fault::Status(status));
    }
    FAULTS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, fault)| *fault)
}

impl Fault {
    fn script(self, asked: &Asked<'_>, pause: Duration) -> Script {
        let (whole, end) = passage(asked);
        let begun = || Script::new().role().passage(whole, pause);
        let usage = |json: &str| begun().finish(end).usage_json(json).done();
        match self {
            Self::Status(status @ (429 | 503)) => Script::error(status).header("retry-after", "1"),
            Self::Status(status) => Script::error(status),
            Self::DropMidstream => half(asked, pause).pause(BEFORE_RESET).cut(Cut::Reset),
            Self::CloseMidstream => half(asked, pause).cut(Cut::Close),
            Self::ErrorMidstream => half(asked, pause).error_event("mock provider failed"),
            Self::StallMidstream => half(asked, pause).stall(),
            Self::NoUsage => begun().finish(end).done(),
            Self::NoDone => begun().finish(end).usage(),
            Self::Slow => Script::new()
                .pause_before_head(SLOW_HEAD)
                .role()
                .passage(whole, SLOW_WORD)
                .finish(end)
                .usage()
                .done(),
            Self::Hang => Script::new().stall(),
            Self::Reset => Script::new().cut_before_head(Cut::Reset),
            Self::Empty => Script::new().raw(""),
            Self::BadJson if asked.streams() => half(asked, pause)
                .data(r#"{"id":"chatcmpl-mock","choi"#)
                .finish(end)
                .usage()
                .done(),
            Self::BadJson => Script::new().raw(r#"{"id":"chatcmpl-mock","choi"#),
            Self::Html => Script::new().header("content-type", "text/html").raw(HTML),
            Self::Redirect => Script::error(307).header("location", "http://127.0.0.2:9/v1"),
            Self::BigLine => Script::new()
                .role()
                .text(&"a".repeat(BIG_LINE_BYTES))
                .finish("stop")
                .usage()
                .done(),
            Self::ByteByByte => begun().finish(end).usage().done().split(1),
            Self::UsageNegative => {
                usage(r#"{"prompt_tokens":-5,"completion_tokens":-7,"total_tokens":-12}"#)
            }
            Self::UsageHuge => usage(
                r#"{"prompt_tokens":1000000000000000000,"completion_tokens":1000000000000000000,"total_tokens":2000000000000000000}"#,
            ),
            Self::UsageAbove => {
                let most = asked.tokens_max().unwrap_or(whole.count());
                let above = most.saturating_add(TOO_MANY);
                usage(&chunk::usage(asked.prompt_tokens(), above))
            }
            Self::UsageString => {
                usage(r#"{"prompt_tokens":"5","completion_tokens":"7","total_tokens":"12"}"#)
            }
            Self::UsageZero => usage(&chunk::usage(0, 0)),
            Self::Cumulative => {
                let words = (0..).map_while(|place| whole.get(place).map(str::to_owned));
                let script = Script::new().role().own_words(words.collect(), pause, true);
                script.finish(end).usage().done()
            }
            Self::NeverEnds => Script::new().role().endless(ENDLESS_PAUSE),
        }
    }
}

/// The first half of the words.
fn half(asked: &Asked<'_>, pause: Duration) -> Script {
    let (whole, _) = passage(asked);
    let half = Passage::new(asked.prompt_words(), Some(whole.count() / 2));
    Script::new().role().passage(half, pause)
}
