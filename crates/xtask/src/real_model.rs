//! `cargo xtask real-model`: a real model behind the gateway, and openai-python in front of it.

use std::time::Duration;

use crate::{
    checkout::Checkout,
    report::{Failure, Report},
    test::{Runner, Tools},
};

/// The cases take a minute or two; a slow machine gets more.
const CASES_MAX: Duration = Duration::from_secs(20 * 60);
const BUILD_MAX: Duration = Duration::from_secs(30 * 60);
/// What the build of the model's server leaves out: pictures, and the tools and tests of llama.cpp.
const CMAKE_ARGS: &str = "-DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
                          -DLLAMA_BUILD_TESTS=OFF -DLLAMA_CURL=OFF";

/// Installs the model and its server once, which takes minutes, then runs the cases against them.
pub(crate) fn run(checkout: &Checkout) -> Result<Report, Failure> {
    let tools = Tools::new(checkout, "real-model")?;
    let requirements = tools.path("tests/sdk/real_model/requirements.txt");
    let variables = [("CMAKE_ARGS", CMAKE_ARGS)];
    let python = tools
        .venv_with("real-model", &requirements, &variables)?
        .join("python");
    let arguments = ["build", "--locked", "-p", "gateway", "--bins"];
    let built = tools.cargo(&arguments, Runner::ExitCode, BUILD_MAX)?;
    let mut report = Report::new();
    if built.failed > 0 {
        report.blame("the gateway could not be built");
        return Ok(report);
    }
    let cases = tools.path("tests/sdk/python/test_real_model.py");
    let command = [
        crate::test::text(&python)?,
        "-m",
        "pytest",
        "-v",
        crate::test::text(&cases)?,
    ];
    let server = "tests/sdk/real_model/serve.py";
    let program = tools.with_gateway_by(server, &python, &command, Runner::Pytest, CASES_MAX)?;
    let tally = tools.run(program)?;
    report.count(&tally);
    Ok(report)
}
