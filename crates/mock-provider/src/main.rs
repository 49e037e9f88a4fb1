//! The provider as a program: `mock-provider --listen 127.0.0.1:19100 [--delay-ms N]`.

use std::env;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use mock_provider::MockProvider;

const USAGE: &str = "usage: mock-provider [--listen 127.0.0.1:19100] [--delay-ms 0]";

#[tokio::main]
async fn main() -> ExitCode {
    match run(env::args().skip(1)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Nowhere else to say it if this fails.
            let _ = writeln!(io::stderr(), "mock-provider: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(mut args: impl Iterator<Item = String>) -> Result<(), String> {
    let mut listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 19_100));
    let mut pause = Duration::ZERO;
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or(format!("{name} needs a value; {USAGE}"));
        match name.as_str() {
            "--listen" => {
                let value = value()?;
                listen = value
                    .parse()
                    .map_err(|_| format!("--listen: expected ADDRESS:PORT, got {value:?}"))?;
            }
            "--delay-ms" => {
                let value = value()?;
                let millis = value
                    .parse()
                    .map_err(|_| format!("--delay-ms: expected a number, got {value:?}"))?;
                pause = Duration::from_millis(millis);
            }
            "--help" | "-h" => return say(USAGE),
            _ => return Err(format!("unknown argument {name:?}; {USAGE}")),
        }
    }
    let provider = MockProvider::start(listen)
        .await
        .map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    provider.set_pause(pause);
    say(&provider.url())?;
    provider.run().await;
    Ok(())
}

fn say(line: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{line}").map_err(|error| error.to_string())
}
