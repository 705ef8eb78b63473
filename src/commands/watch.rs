//! `scrimp watch`: the dashboard on a terminal, plain lines elsewhere, or one frame.

use super::{print, print_json};
use crate::cli::{View, Watch};
use crate::error::{Context, Exit, Failure, Result};
use crate::runlog::directory::RunDirectory;
use crate::runlog::farm::FarmDirectory;
use crate::watch::ui::Tab;
use crate::watch::{Abilities, RunFacts, Screen, Theme, farm, follow, on_terminal, once, terminal};
use std::path::Path;
use std::time::Duration;

/// Columns and rows of a frame where there is no terminal.
const FRAME: (u16, u16) = (100, 30);
/// Frames follow each other no faster than this; over a network, they are longer on their way.
const PAUSE: Duration = Duration::from_millis(100);
const REMOTE_PAUSE: Duration = Duration::from_millis(250);

/// Runs `scrimp watch`.
pub(super) fn run(arguments: &Watch) -> Result<Exit> {
    let Watch { runs: paths, .. } = arguments;
    let farms = paths.iter().map(FarmDirectory::new).filter(FarmDirectory::holds_a_farm);
    match (&farms.collect::<Vec<_>>()[..], &paths[..]) {
        ([], _) => watch_runs(arguments)?,
        ([farm], [_]) => watch_farm(arguments, farm)?,
        ([farm, ..], _) => {
            let name = farm.root().display();
            return Err(Failure::usage(format!("`{name}` is a farm, which is watched by itself"))
                .hint(format!(
                    "run `scrimp watch {name}`, and name runs of it to see them side by side"
                )));
        }
    }
    Ok(Exit::Done)
}

fn watch_runs(arguments: &Watch) -> Result<()> {
    let mut runs = Vec::new();
    for path in &arguments.runs {
        runs.extend(run_directories(path)?);
    }
    let Look { size, is_ascii, screen } = Look::new(arguments);
    if arguments.json {
        let facts: Result<Vec<RunFacts>> = runs.iter().map(RunFacts::read).collect();
        print_json(&serde_json::json!({ "runs": facts? }))
    } else if arguments.once {
        let tab = tab(arguments.view);
        let frames = runs.iter().map(|run| once(run, size, tab, is_ascii));
        print(&frames.collect::<Result<Vec<_>>>()?.join("\n"))
    } else if let Some(screen) = screen {
        on_terminal(&runs, &screen, !arguments.no_mouse)
    } else {
        let [run] = &runs[..] else {
            return Err(Failure::usage("as lines, only one run can be followed")
                .hint("print one frame of each with `scrimp watch --once RUN...`"));
        };
        let interval = arguments.interval.map(Duration::from_secs);
        terminal::end_with_output()?;
        let is_over = || run.writer().is_none();
        terminal::unless_gone(follow(run, &mut std::io::stdout(), interval, is_over))
    }
}

fn watch_farm(arguments: &Watch, farm: &FarmDirectory) -> Result<()> {
    let Look { size, is_ascii, screen } = Look::new(arguments);
    if arguments.json {
        print_json(farm::FarmFeed::open(farm.clone())?.facts())
    } else if arguments.once {
        print(&farm::once(farm, size, is_ascii)?)
    } else if let Some(screen) = screen {
        farm::on_terminal(farm, &screen, !arguments.no_mouse)
    } else {
        let interval = arguments.interval.map(Duration::from_secs);
        terminal::end_with_output()?;
        terminal::unless_gone(farm::follow(farm, &mut std::io::stdout(), interval))
    }
}

/// How things are shown, as the arguments and the terminal want it.
struct Look {
    /// Columns and rows of one frame as text.
    size: (u16, u16),
    is_ascii: bool,
    /// None where lines are to be written.
    screen: Option<Screen>,
}

impl Look {
    fn new(arguments: &Watch) -> Self {
        let terminal = Abilities::find();
        let is_ascii = arguments.ascii || !terminal.speaks_utf8;
        let can_draw = terminal.is_terminal && terminal.has_cursor;
        let screen = Screen {
            theme: Theme { has_colour: terminal.has_colour, is_ascii },
            pause: if terminal.is_remote { REMOTE_PAUSE } else { PAUSE },
            find_picker: terminal::find_picker,
        };
        let screen = (can_draw && !arguments.plain).then_some(screen);
        let columns = terminal.size.map_or(FRAME.0, |size| size.0);
        Self { size: arguments.size.unwrap_or((columns, FRAME.1)), is_ascii, screen }
    }
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
