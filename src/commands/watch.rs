//! `scrimp watch`: the dashboard on a terminal, plain lines elsewhere, or one frame.

use super::print;
use crate::cli::Watch;
use crate::error::{Exit, Failure, Result};
use crate::runlog::directory::RunDirectory;
use crate::watch::{Theme, follow, on_terminal, once};
use ratatui::crossterm::terminal;
use std::io::IsTerminal;

/// Columns and rows of a frame where there is no terminal.
const FRAME: (u16, u16) = (100, 30);

/// Runs `scrimp watch`.
pub(super) fn run(arguments: &Watch) -> Result<Exit> {
    let runs: Vec<_> = arguments.runs.iter().map(RunDirectory::new).collect();
    let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if arguments.once {
        let columns =
            if is_terminal { terminal::size().map_or(FRAME.0, |size| size.0) } else { FRAME.0 };
        let frames = runs.iter().map(|run| once(run, columns, FRAME.1));
        print(&frames.collect::<Result<Vec<_>>>()?.join("\n"))?;
    } else if is_terminal {
        let has_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        on_terminal(&runs, Theme { has_colour })?;
    } else {
        let [run] = &runs[..] else {
            return Err(Failure::usage("without a terminal, only one run can be followed")
                .hint("print one frame of each with `scrimp watch --once RUN...`"));
        };
        follow(run, &mut std::io::stdout(), || run.writer().is_none())?;
    }
    Ok(Exit::Done)
}
