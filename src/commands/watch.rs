//! `scrimp watch`: the dashboard on a terminal, plain lines elsewhere, or one frame.

use super::print;
use crate::cli::{View, Watch};
use crate::error::{Context, Exit, Failure, Result};
use crate::runlog::directory::RunDirectory;
use crate::watch::terminal::{end_with_output, find_picker, unless_gone};
use crate::watch::ui::Tab;
use crate::watch::{Abilities, Screen, Theme, follow, on_terminal, once};
use std::path::Path;
use std::time::Duration;

/// Columns and rows of a frame where there is no terminal.
const FRAME: (u16, u16) = (100, 30);
/// Frames follow each other no faster than this; over a network, they are longer on their way.
const PAUSE: Duration = Duration::from_millis(100);
const REMOTE_PAUSE: Duration = Duration::from_millis(250);

/// Runs `scrimp watch`.
pub(super) fn run(arguments: &Watch) -> Result<Exit> {
    let mut runs = Vec::new();
    for path in &arguments.runs {
        runs.extend(run_directories(path)?);
    }
    let terminal = Abilities::find();
    let is_ascii = arguments.ascii || !terminal.speaks_utf8;
    if arguments.once {
        let columns = terminal.size.map_or(FRAME.0, |size| size.0);
        let size = arguments.size.unwrap_or((columns, FRAME.1));
        let tab = tab(arguments.view);
        let frames = runs.iter().map(|run| once(run, size, tab, is_ascii));
        print(&frames.collect::<Result<Vec<_>>>()?.join("\n"))?;
    } else if terminal.is_terminal && !arguments.plain && terminal.has_cursor {
        let screen = Screen {
            theme: Theme { has_colour: terminal.has_colour, is_ascii },
            pause: if terminal.is_remote { REMOTE_PAUSE } else { PAUSE },
            find_picker,
        };
        on_terminal(&runs, &screen, !arguments.no_mouse)?;
    } else {
        let [run] = &runs[..] else {
            return Err(Failure::usage("as lines, only one run can be followed")
                .hint("print one frame of each with `scrimp watch --once RUN...`"));
        };
        let interval = arguments.interval.map(Duration::from_secs);
        end_with_output()?;
        let is_over = || run.writer().is_none();
        unless_gone(follow(run, &mut std::io::stdout(), interval, is_over))?;
    }
    Ok(Exit::Done)
}

fn tab(view: View) -> Tab {
    match view {
        View::Overview => Tab::Overview,
        View::Charts => Tab::Charts,
        View::Ranks => Tab::Ranks,
        View::Cases => Tab::Cases,
        View::Messages => Tab::Messages,
    }
}

/// The run at `path`, or the runs in that folder by their names. What is neither is left to the
/// reader to refuse.
fn run_directories(path: &Path) -> Result<Vec<RunDirectory>> {
    let itself = RunDirectory::new(path);
    if itself.holds_a_run() || !path.is_dir() {
        return Ok(vec![itself]);
    }
    let doing = || format!("cannot list `{}`", path.display());
    let mut runs = Vec::new();
    for entry in path.read_dir().context(doing)? {
        let run = RunDirectory::new(entry.context(doing)?.path());
        if run.holds_a_run() {
            runs.push(run);
        }
    }
    runs.sort_by(|a, b| a.root().cmp(b.root()));
    Ok(if runs.is_empty() { vec![itself] } else { runs })
}
