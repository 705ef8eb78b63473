//! The dashboard: the logs of runs in, a screen out.
//!
//! It sees a run only through its directory and touches nothing there but `control/stop`, when
//! asked twice. Runs do not know whether anybody watches.

mod chart;
mod feed;
mod follow;
mod numbers;
mod panels;
mod series;
pub mod state;
pub mod update;
mod view;

pub use feed::Feed;
pub use follow::{Lines, follow};
pub use panels::{Shown, Theme};
pub use series::{Bucket, Series};
pub use view::{draw, draw_run};

use crate::error::{Context, Result};
use crate::runlog::Record;
use crate::runlog::directory::RunDirectory;
use ratatui::Terminal;
use ratatui::backend::Backend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use ratatui::layout::Rect;
use state::{Dashboard, Presence};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use update::{Request, Ui};

/// How often run directories are read.
const POLL: Duration = Duration::from_millis(500);

/// What the loop is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    /// New records of a run, by its position among the watched ones.
    Records(usize, Vec<Record>),
    /// Whether a process is writing a run.
    Present(usize, Presence),
}

/// Where messages come from.
pub trait Source {
    /// The next message, as soon as there is one.
    fn next(&mut self) -> Result<Message>;
}

/// A run on the screen.
#[derive(Debug)]
struct Watched {
    directory: RunDirectory,
    name: String,
    dashboard: Dashboard,
    presence: Presence,
}

impl Watched {
    fn new(directory: &RunDirectory) -> Self {
        // `runs/a` and `runs/a/.` are called `a`; what has no last name is called as it was typed.
        let root = directory.root();
        let name = root.file_name().unwrap_or(root.as_os_str());
        Self {
            directory: directory.clone(),
            name: name.to_string_lossy().into_owned(),
            dashboard: Dashboard::default(),
            presence: Presence::default(),
        }
    }

    fn shown(&self, theme: Theme) -> Shown<'_> {
        Shown { name: &self.name, dashboard: &self.dashboard, presence: self.presence, theme }
    }
}

/// Shows runs until the user leaves: the whole loop, on any terminal and any source of messages.
pub fn run<B: Backend<Error: 'static>>(
    directories: &[RunDirectory],
    terminal: &mut Terminal<B>,
    source: &mut impl Source,
    theme: Theme,
) -> Result<()> {
    let mut runs: Vec<Watched> = directories.iter().map(Watched::new).collect();
    let mut ui = Ui { runs: runs.len(), ..Ui::default() };
    let mut has_changed = true;
    loop {
        if has_changed {
            let shown = runs[ui.selected].shown(theme);
            terminal
                .draw(|frame| draw(&shown, &ui, frame.area(), frame.buffer_mut()))
                .context(|| "cannot draw on the terminal")?;
        }
        has_changed = true;
        match source.next()? {
            Message::Key(key) => match update::update(&mut ui, key) {
                Some(Request::Quit) => return Ok(()),
                Some(Request::WriteStop) => runs[ui.selected].directory.request_stop()?,
                None => {}
            },
            Message::Resized => {}
            Message::Records(run, records) => {
                for record in records {
                    runs[run].dashboard.apply(record);
                }
            }
            Message::Present(run, presence) => {
                has_changed = runs[run].presence != presence;
                runs[run].presence = presence;
            }
        }
    }
}

/// Shows runs on the terminal of this process, which is restored however this ends.
///
/// Redraws when something has changed and at no other time.
pub fn on_terminal(directories: &[RunDirectory], theme: Theme) -> Result<()> {
    let feeds = directories.iter().cloned().map(Feed::open).collect::<Result<_>>()?;
    let mut source = Live { feeds, ready: VecDeque::new(), last_poll: None };
    // Installs a panic hook that restores the terminal, too.
    let mut terminal = ratatui::try_init().context(|| "cannot take over the terminal")?;
    let ended = run(directories, &mut terminal, &mut source, theme);
    ratatui::restore();
    ended
}

/// Keys of this terminal and records of run directories.
struct Live {
    feeds: Vec<Feed>,
    ready: VecDeque<Message>,
    last_poll: Option<Instant>,
}

impl Source for Live {
    fn next(&mut self) -> Result<Message> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(message);
            }
            let rest =
                self.last_poll.map_or(Duration::ZERO, |last| POLL.saturating_sub(last.elapsed()));
            let reading = || "cannot read from the terminal";
            if rest.is_zero() {
                self.poll_runs()?;
            } else if event::poll(rest).context(reading)? {
                match event::read().context(reading)? {
                    Event::Key(key) if key.kind == KeyEventKind::Press => {
                        return Ok(Message::Key(key));
                    }
                    Event::Resize(..) => return Ok(Message::Resized),
                    _ => {}
                }
            }
        }
    }
}

impl Live {
    fn poll_runs(&mut self) -> Result<()> {
        let mut is_behind = false;
        for (run, feed) in self.feeds.iter_mut().enumerate() {
            let records = feed.read()?;
            if !records.is_empty() {
                is_behind = true;
                self.ready.push_back(Message::Records(run, records));
            }
            self.ready.push_back(Message::Present(run, feed.presence()));
        }
        // A long log is read piece by piece without waiting, with a look at the keys in between.
        self.last_poll = if is_behind {
            Instant::now().checked_sub(POLL.mul_f32(0.9))
        } else {
            Some(Instant::now())
        };
        Ok(())
    }
}

/// One frame about a run as plain text, of `columns` times `rows` at most.
pub fn once(directory: &RunDirectory, columns: u16, rows: u16) -> Result<String> {
    let mut feed = Feed::open(directory.clone())?;
    let mut watched = Watched::new(directory);
    watched.presence = feed.presence();
    loop {
        let records = feed.read()?;
        if records.is_empty() {
            break;
        }
        for record in records {
            watched.dashboard.apply(record);
        }
    }
    let area = Rect::new(0, 0, columns, rows);
    let mut buffer = Buffer::empty(area);
    draw_run(&watched.shown(Theme { has_colour: false }), &Ui::default(), area, &mut buffer);
    Ok(text(&buffer))
}

/// The characters of a screen, without the blanks at the ends of its rows.
pub fn text(buffer: &Buffer) -> String {
    let columns = usize::from(buffer.area.width).max(1);
    let rows = buffer.content.chunks(columns).map(|row| {
        let row: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        row.trim_end().to_owned()
    });
    rows.collect::<Vec<_>>().join("\n") + "\n"
}
