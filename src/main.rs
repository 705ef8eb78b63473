//! Parses, runs, exits; nothing else.

use clap::Parser;
use scrimp::cli::Cli;
use scrimp::commands::journal::Journal;
use scrimp::commands::panics;
use scrimp::error::{Exit, Failure};
use std::io::Write;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::process::ExitCode;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, registry};

fn main() -> ExitCode {
    // Warnings that no run log can take; `RUST_LOG` says what else to write.
    let level = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into());
    let to_stderr = fmt::layer().with_writer(std::io::stderr).without_time();
    registry().with(level.from_env_lossy()).with(to_stderr).with(Journal).init();
    tell_panics();
    let cli = Cli::parse();
    let ended = catch_unwind(AssertUnwindSafe(|| scrimp::commands::run(&cli)));
    let exit = match ended {
        Ok(Ok(exit)) => exit,
        Ok(Err(failure)) => {
            if !failure.is_told_elsewhere() {
                tell(&failure);
            }
            failure.exit()
        }
        // It was told when it happened.
        Err(_) => Exit::Failed,
    };
    ExitCode::from(exit as u8)
}

/// From now on what libtorch throws is told like any other failure.
fn tell_panics() {
    let others = take_hook();
    set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
        match panic.payload_as_str().and_then(panics::thrown_by_libtorch) {
            Some(failure) => tell(&failure),
            None => others(panic),
        }
    }));
}

/// Writes it to stderr, where somebody still reads that.
fn tell(failure: &Failure) {
    let _ = writeln!(anstream::stderr(), "{}", coloured(failure));
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
