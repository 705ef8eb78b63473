//! One file per subcommand: the only place that knows every layer, and that decides nothing.

mod config;
mod watch;

use crate::cli::{Cli, Command};
use crate::error::{Context, Exit, Failure, Result};
use std::io::{ErrorKind, Write};

/// Does what the command line asks for.
pub fn run(cli: &Cli) -> Result<Exit> {
    match &cli.command {
        Command::Config(arguments) => config::run(arguments),
        Command::Watch(arguments) => watch::run(arguments),
        Command::Prepare(_) => Err(absent("prepare", "hdf5")),
        Command::Train(_) => Err(absent("train", "torch")),
        Command::Evaluate(_) => Err(absent("evaluate", "torch")),
        Command::Checkpoint(_) => Err(absent("checkpoint", "torch")),
        Command::Methods => Err(absent("methods", "torch")),
    }
}

fn absent(name: &str, feature: &str) -> Failure {
    Failure::usage(format!(
        "this build has no `{name}`: it was built without the feature `{feature}`"
    ))
    .hint(format!("build it with `cargo build --release --features {feature}`"))
}

/// Writes `text` to stdout. A reader who has seen enough, such as `head`, is no failure.
fn print(text: &str) -> Result<()> {
    let mut stdout = anstream::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context(|| "cannot write to stdout"),
    }
}
