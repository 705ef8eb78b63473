//! The dashboard: the logs of runs in, a screen out.
//!
//! It sees a run only through its directory and touches nothing there but requests in `control/`,
//! when asked twice. Runs do not know whether anybody watches.

mod abilities;
mod actions;
mod canvas;
mod cases;
mod chart;
mod charts;
mod compare;
pub mod farm;
mod feed;
mod follow;
mod frame;
mod header;
mod live;
mod messages;
mod numbers;
mod once;
pub mod picture;
mod plain;
pub mod rank;
mod ranks;
mod run_facts;
mod scored;
mod series;
mod settings;
pub mod state;
mod targets;
pub mod terminal;
mod theme;
mod ticks;
pub mod ui;
pub mod update;
pub mod verdict;
mod view;
mod watched;

pub use abilities::Abilities;
pub use feed::{Feed, Notice};
pub use follow::{Lines, follow};
pub use frame::Shown;
pub use live::on_terminal;
pub use once::{once, text};
pub use plain::harmless;
pub use run_facts::RunFacts;
pub use scored::{CasesShown, Made};
pub use series::{Bucket, Series};
pub use settings::Settings;
pub use targets::{Target, Targets};
pub use theme::Theme;
pub use view::draw;

use crate::error::{Context, Result};
use crate::runlog::Record;
use crate::runlog::directory::RunDirectory;
use ratatui::Terminal;
use ratatui::backend::Backend;
use ratatui::crossterm::event::{KeyEvent, MouseEvent};
use ratatui_image::picker::Picker;
use state::Presence;
use std::time::{Duration, Instant};
use ui::{Replay, Request, Ui};
use watched::Watched;

/// A replay shows the whole run in as many ticks.
const REPLAY_TICKS: u64 = 200;

/// What the loop is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A key was pressed.
    Key(KeyEvent),
    /// The mouse was used.
    Mouse(MouseEvent),
    /// The terminal has another size.
    Resized,
    /// The next records of a run, by its position among the watched ones.
    Records(usize, Vec<Record>),
    /// Newest records of a run whose log is still being read, and how much of it is, in `[0, 1]`.
    Preview(usize, Vec<Record>, f64),
    /// The log of a run is read to its end.
    CaughtUp(usize),
    /// What was told of a run is void; it will be told again.
    Forget(usize),
    /// What happened to the files of a run.
    Notice(usize, String),
    /// Whether a process is writing a run, and the time, milliseconds since 1970 (UTC).
    Present(usize, Presence, u64),
    /// Time goes on in a replay.
    Tick,
    /// Somebody wants the dashboard to end.
    Quit,
}

/// Where messages come from.
pub trait Source {
    /// The next message as soon as there is one; `None` after `wait`, if that is given.
    fn next(&mut self, wait: Option<Duration>) -> Result<Option<Message>>;

    /// Tells a run again up to a time, milliseconds since 1970 (UTC), or as it goes on.
    fn travel(&mut self, _run: usize, _until_ms: Option<u64>) -> Result<()> {
        Ok(())
    }

    /// Whether ticks are wanted.
    fn tick(&mut self, _is_wanted: bool) {}
}

/// How to draw on a terminal.
pub struct Screen {
    /// Colours and glyphs.
    pub theme: Theme,
    /// The shortest time between two frames.
    pub pause: Duration,
    /// Finds out how the terminal draws pictures, when the first one is wanted.
    pub find_picker: fn() -> Picker,
}

/// The loop and what it works on.
struct Session<'a, S: ?Sized> {
    screen: &'a Screen,
    picker: Option<Picker>,
    runs: Vec<Watched>,
    ui: Ui,
    targets: Targets,
    source: &'a mut S,
}

/// Shows runs until the user leaves: the whole loop, on any terminal and any source of messages.
pub fn run<B: Backend<Error: 'static>>(
    directories: &[RunDirectory],
    terminal: &mut Terminal<B>,
    source: &mut impl Source,
    screen: &Screen,
) -> Result<()> {
    run_from(Ui { runs: directories.len(), ..Ui::default() }, directories, terminal, screen, source)
}

/// The same, beginning with a screen in some state.
fn run_from<B: Backend<Error: 'static>>(
    ui: Ui,
    directories: &[RunDirectory],
    terminal: &mut Terminal<B>,
    screen: &Screen,
    source: &mut (impl Source + ?Sized),
) -> Result<()> {
    let runs: Vec<Watched> = directories.iter().map(Watched::new).collect();
    let (picker, targets) = (None, Targets::new());
    let mut session = Session { screen, picker, runs, ui, targets, source };
    let mut has_changed = true;
    let mut last_frame: Option<Instant> = None;
    loop {
        let passed = last_frame.map_or(screen.pause, |last| last.elapsed());
        if has_changed && passed >= screen.pause {
            session.draw(terminal)?;
            last_frame = Some(Instant::now());
            has_changed = false;
        }
        let wait = has_changed.then(|| screen.pause.saturating_sub(passed));
        let Some(message) = session.source.next(wait)? else { continue };
        match session.take(message)? {
            Taken::Changed => has_changed = true,
            Taken::Unchanged => {}
            Taken::Left => return Ok(()),
        }
    }
}

/// What a message came to.
enum Taken {
    Changed,
    Unchanged,
    Left,
}

impl<S: Source + ?Sized> Session<'_, S> {
    fn draw<B: Backend<Error: 'static>>(&mut self, terminal: &mut Terminal<B>) -> Result<()> {
        let doing = || "cannot draw on the terminal";
        let size = terminal.size().context(doing)?;
        let selected = self.ui.selected;
        if self.ui.tab == ui::Tab::Cases {
            let picker = self.picker.get_or_insert_with(self.screen.find_picker);
            let area = view::view_area(ratatui::layout::Rect::new(0, 0, size.width, size.height));
            self.runs[selected].open_picture(&self.ui, area, picker);
        }
        let theme = self.screen.theme;
        let shown: Vec<Shown<'_>> = self.runs.iter().map(|run| run.shown(theme)).collect();
        let mut targets = Targets::new();
        terminal
            .draw(|frame| targets = draw(&shown, &self.ui, frame.area(), frame.buffer_mut()))
            .context(doing)?;
        self.targets = targets;
        Ok(())
    }

    fn take(&mut self, message: Message) -> Result<Taken> {
        match message {
            Message::Quit => return Ok(Taken::Left),
            Message::Key(key) => {
                let known = self.runs[self.ui.selected].known(&self.ui, self.screen.theme);
                let request = update::update(&mut self.ui, key, &known);
                return self.obey(request);
            }
            Message::Mouse(event) => {
                let known = self.runs[self.ui.selected].known(&self.ui, self.screen.theme);
                let before = self.ui.clone();
                let request = update::mouse(&mut self.ui, event, &self.targets, &known);
                if before == self.ui {
                    return Ok(Taken::Unchanged);
                }
                return self.obey(request);
            }
            Message::Resized => {}
            Message::Records(run, records) => self.runs[run].apply(records),
            Message::Preview(run, records, share) => self.runs[run].preview(records, share),
            Message::CaughtUp(run) => self.runs[run].caught_up(),
            Message::Forget(run) => self.runs[run].forget(),
            Message::Notice(run, sentence) => {
                self.ui.notice = Some(format!("{}: {sentence}", self.runs[run].name()));
            }
            Message::Present(run, presence, now_ms) => {
                if !self.runs[run].present(presence, now_ms) {
                    return Ok(Taken::Unchanged);
                }
            }
            Message::Tick => return self.tick(),
        }
        Ok(Taken::Changed)
    }

    fn obey(&mut self, request: Option<Request>) -> Result<Taken> {
        let selected = self.ui.selected;
        let presence = self.runs[selected].presence();
        let is_written = matches!(presence, Presence::Writing | Presence::Stopping);
        let directory = &self.runs[selected].directory;
        let asked = match request {
            None => Ok(None),
            Some(Request::Quit) => return Ok(Taken::Left),
            Some(Request::WriteStop | Request::WriteCheckpoint) if !is_written => {
                Ok(Some("no process writes this run: there is nobody to ask"))
            }
            Some(Request::WriteStop) => {
                directory.request_stop().map(|()| Some("asked the run to save and end"))
            }
            Some(Request::WriteCheckpoint) => {
                directory.request_checkpoint().map(|()| Some("asked the run to save"))
            }
            Some(Request::Travel { run, until_ms }) => {
                self.source.travel(run, until_ms)?;
                self.source.tick(self.ui.replay.is_some_and(|replay| replay.is_playing));
                Ok(None)
            }
        };
        // A directory that one may only look at is no reason to stop looking.
        let notice = asked.unwrap_or(Some("cannot write to the run's `control` directory"));
        if let Some(notice) = notice {
            self.ui.notice = Some(notice.to_owned());
        }
        Ok(Taken::Changed)
    }

    fn tick(&mut self) -> Result<Taken> {
        let selected = self.ui.selected;
        let known = self.runs[selected].known(&self.ui, self.screen.theme);
        let [first, last] = known.times_ms;
        let Some(Replay { at_ms, is_playing: true }) = self.ui.replay else {
            return Ok(Taken::Unchanged);
        };
        let by = (last.saturating_sub(first) / REPLAY_TICKS).max(1);
        let at_ms = at_ms.saturating_add(by).min(last);
        self.ui.replay = Some(Replay { at_ms, is_playing: at_ms < last });
        self.obey(Some(Request::Travel { run: selected, until_ms: Some(at_ms) }))
    }
}
