//! Parses, runs, exits; nothing else.

use clap::Parser;
use scrimp::cli::Cli;
use scrimp::commands::journal::Journal;
use scrimp::error::Failure;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, registry};

fn main() -> ExitCode {
    // Warnings that no run log can take; `RUST_LOG` says what else to write.
    let level = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into());
    // Colours are for eyes: a log of a batch job has none.
    let has_colour = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let to_stderr = fmt::layer().with_writer(std::io::stderr).with_ansi(has_colour).without_time();
    registry().with(level.from_env_lossy()).with(to_stderr).with(Journal).init();
    let exit = scrimp::commands::run(&Cli::parse()).unwrap_or_else(|failure| {
        if !failure.is_told_elsewhere() {
            // Where nobody reads stderr any more, the exit code says it.
            let _ = writeln!(anstream::stderr(), "{}", coloured(&failure));
        }
        failure.exit()
    });
    ExitCode::from(exit as u8)
}

/// The failure with its keywords in colour; the stream drops colours that nobody would see.
fn coloured(failure: &Failure) -> String {
    let colours = [("error:", "\x1b[1;31m"), ("hint:", "\x1b[1;32m"), ("  -->", "\x1b[1;34m")];
    let lines = failure.to_string().lines().map(str::to_owned).collect::<Vec<_>>();
    let colour = |line: String| {
        let keyword = colours.iter().find(|(keyword, _)| line.starts_with(keyword));
        match keyword {
            Some((keyword, code)) => format!("{code}{keyword}\x1b[0m{}", &line[keyword.len()..]),
            None => line,
        }
    };
    lines.into_iter().map(colour).collect::<Vec<_>>().join("\n")
}
