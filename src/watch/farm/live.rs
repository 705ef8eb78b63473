//! The loop of the farm's dashboard, on any terminal and any source of messages, and the source that reads keys of
//! this terminal and a farm directory.
//!
//! The dashboard of a run is the ordinary one, in the same terminal; whoever leaves it is back in the farm.

use super::facts::FarmFacts;
use super::feed::FarmFeed;
use super::keys::{hold, mouse, update};
use super::ui::{FarmRequest, FarmTarget, FarmUi};
use super::view::draw;
use crate::error::{Context, Result};
use crate::runlog::directory::RunDirectory;
use crate::runlog::farm::{FarmDirectory, JobKind};
use crate::watch::live::{Live, terminal_event};
use crate::watch::terminal::{self, Guard, Taken};
use crate::watch::ui::Ui;
use crate::watch::{Message, Screen, Source, run_from};
use ratatui::Terminal;
use ratatui::backend::Backend;
use ratatui::crossterm::event::{KeyEvent, MouseEvent};
use ratatui::layout::Rect;
use std::time::{Duration, Instant};

/// How often the farm is read while something in it is new, and while nothing is.
const POLL: Duration = Duration::from_secs(1);
const IDLE_POLL: Duration = Duration::from_secs(2);
/// How long nothing must be new for a farm to be idle.
const IDLE_AFTER: Duration = Duration::from_secs(10);
/// How often hours go on that nothing but the clock changes.
const CLOCK: Duration = Duration::from_secs(10);
/// How long a signal may wait to be seen.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// What the loop is told.
#[derive(Debug, Clone, PartialEq)]
pub enum FarmMessage {
    /// A key was pressed.
    Key(KeyEvent),
    /// The mouse was used.
    Mouse(MouseEvent),
    /// The terminal has another size.
    Resized,
    /// How the farm is now.
    Facts(Box<FarmFacts>),
    /// What happened to the files of the farm.
    Notice(String),
    /// Somebody wants the dashboard to end.
    Quit,
}

/// Where messages come from.
pub trait FarmSource {
    /// The next message as soon as there is one; `None` after `wait`, if that is given.
    fn next(&mut self, wait: Option<Duration>) -> Result<Option<FarmMessage>>;

    /// Where the messages about the run of one job come from.
    fn of_run(&mut self, run: &RunDirectory) -> Result<Box<dyn Source>>;
}

/// The loop and what it works on.
struct Session<'a, S> {
    farm: &'a FarmDirectory,
    screen: &'a Screen,
    facts: Option<FarmFacts>,
    ui: FarmUi,
    targets: Vec<(Rect, FarmTarget)>,
    source: &'a mut S,
}

/// Shows a farm until the user leaves.
pub fn run<B: Backend<Error: 'static>>(
    farm: &FarmDirectory,
    terminal: &mut Terminal<B>,
    source: &mut impl FarmSource,
    screen: &Screen,
) -> Result<()> {
    let (facts, ui, targets) = (None, FarmUi::default(), Vec::new());
    let mut session = Session { farm, screen, facts, ui, targets, source };
    let mut has_changed = false;
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
        match session.take(message) {
            Some(FarmRequest::Quit) => return Ok(()),
            Some(FarmRequest::Open) => session.open(terminal)?,
            Some(FarmRequest::WriteStop) => session.ask_to_stop(),
            None => {}
        }
        has_changed = true;
    }
}

impl<S: FarmSource> Session<'_, S> {
    fn draw<B: Backend<Error: 'static>>(&mut self, terminal: &mut Terminal<B>) -> Result<()> {
        let Some(facts) = &self.facts else { return Ok(()) };
        let (ui, targets, theme) = (&mut self.ui, &mut self.targets, self.screen.theme);
        let drawn = terminal.draw(|frame| {
            *targets = draw(facts, ui, theme, frame.area(), frame.buffer_mut());
        });
        drawn.map(drop).context(|| "cannot draw on the terminal")
    }

    fn take(&mut self, message: FarmMessage) -> Option<FarmRequest> {
        match message {
            FarmMessage::Quit => return Some(FarmRequest::Quit),
            FarmMessage::Key(key) => {
                return update(&mut self.ui, key, self.facts.as_ref()?);
            }
            FarmMessage::Mouse(event) => {
                return mouse(&mut self.ui, event, &self.targets, self.facts.as_ref()?);
            }
            FarmMessage::Facts(facts) => {
                hold(&mut self.ui, &facts);
                self.facts = Some(*facts);
            }
            FarmMessage::Notice(sentence) => self.ui.notice = Some(sentence),
            FarmMessage::Resized => {}
        }
        None
    }

    /// Shows the run of the selected job until the user leaves it.
    fn open<B: Backend<Error: 'static>>(&mut self, terminal: &mut Terminal<B>) -> Result<()> {
        let jobs = self.facts.as_ref().map_or(&[][..], |facts| &facts.jobs);
        let Some(job) = jobs.get(self.ui.selected).map(|facts| &facts.job) else { return Ok(()) };
        let directory = self.farm.run(&job.name);
        if job.kind == JobKind::Command || !directory.holds_a_run() {
            let log = self.farm.log(&job.name);
            let why = match job.kind {
                JobKind::Command => "is a command",
                JobKind::Train => "has no run yet",
            };
            self.ui.notice =
                Some(format!("`{}` {why}; its output goes to `{}`", job.name, log.display()));
            return Ok(());
        }
        let notice = Some(format!("q goes back to the farm, from `{}`", job.name));
        let ui = Ui { runs: 1, notice, ..Ui::default() };
        let mut source = match self.source.of_run(&directory) {
            Ok(source) => source,
            Err(failure) => {
                self.ui.notice = Some(failure.message().to_owned());
                return Ok(());
            }
        };
        run_from(ui, &[directory], terminal, self.screen, &mut *source)?;
        // Pictures do not go away by being drawn over.
        terminal.clear().context(|| "cannot draw on the terminal")
    }

    fn ask_to_stop(&mut self) {
        let is_running = self.facts.as_ref().is_some_and(|facts| facts.is_running);
        let notice = if !is_running {
            "no process runs this farm: there is nobody to ask"
        } else if self.farm.as_run().request_stop().is_ok() {
            "asked the farm to stop its jobs and end"
        } else {
            "cannot write to the farm's `control` directory"
        };
        self.ui.notice = Some(notice.to_owned());
    }
}

/// Shows a farm on the terminal of this process, which is restored however this ends. The process ends with its
/// terminal.
pub fn on_terminal(farm: &FarmDirectory, screen: &Screen, has_mouse: bool) -> Result<()> {
    let feed = FarmFeed::open(farm.clone())?;
    let mut source = LiveFarm {
        feed,
        guard: Guard::start()?,
        last_poll: None,
        last_news: Instant::now(),
        last_told: None,
        problem: None,
    };
    let mut taken = Taken::take(has_mouse)?;
    terminal::unless_gone(run(farm, &mut taken.terminal, &mut source, screen))
}

/// Keys of this terminal and what is new in a farm directory.
struct LiveFarm {
    feed: FarmFeed,
    guard: Guard,
    last_poll: Option<Instant>,
    last_news: Instant,
    last_told: Option<Instant>,
    /// Why it could not be read when that was tried last.
    problem: Option<String>,
}

impl LiveFarm {
    /// When the farm is looked at next.
    fn next_poll(&self, now: Instant) -> Instant {
        let is_idle = now.duration_since(self.last_news) > IDLE_AFTER;
        let pause = if is_idle { IDLE_POLL } else { POLL };
        self.last_poll.map_or(now, |last| last + pause)
    }

    /// Looks at the farm; what there is to tell. A farm that cannot be read is no reason to end: that is said once.
    fn poll(&mut self, now: Instant) -> Option<FarmMessage> {
        // What was read when the farm was opened is news.
        let is_first = self.last_poll.is_none();
        let looked = if is_first { Ok(true) } else { self.feed.look() };
        self.last_poll = Some(Instant::now());
        let problem = looked.as_ref().err().map(|failure| failure.message().to_owned());
        let is_new_problem = problem.is_some() && problem != self.problem;
        self.problem.clone_from(&problem);
        if let Some(problem) = problem.filter(|_| is_new_problem) {
            return Some(FarmMessage::Notice(problem));
        }
        let has_news = looked.unwrap_or(false);
        if has_news {
            self.last_news = now;
        }
        let is_old = self.last_told.is_none_or(|told| now.duration_since(told) > CLOCK);
        let is_due = has_news || (is_old && self.feed.facts().is_running);
        if !is_due {
            return None;
        }
        self.last_told = Some(now);
        Some(FarmMessage::Facts(Box::new(self.feed.facts().clone())))
    }
}

impl FarmSource for LiveFarm {
    fn next(&mut self, wait: Option<Duration>) -> Result<Option<FarmMessage>> {
        let until = wait.map(|wait| Instant::now() + wait);
        loop {
            if self.guard.should_end() {
                return Ok(Some(FarmMessage::Quit));
            }
            if let Some(message) = terminal_event(Duration::ZERO)? {
                return Ok(Some(of_terminal(&message)));
            }
            let now = Instant::now();
            if until.is_some_and(|until| now >= until) {
                return Ok(None);
            }
            let poll = self.next_poll(now);
            if poll <= now {
                if let Some(message) = self.poll(now) {
                    return Ok(Some(message));
                }
                continue;
            }
            let wake = until.map_or(poll, |until| until.min(poll));
            let rest = wake.saturating_duration_since(now).min(LONGEST_WAIT);
            if let Some(message) = terminal_event(rest)? {
                return Ok(Some(of_terminal(&message)));
            }
        }
    }

    fn of_run(&mut self, run: &RunDirectory) -> Result<Box<dyn Source>> {
        // What has changed meanwhile is told at once afterwards.
        self.last_told = None;
        Ok(Box::new(Live::open(std::slice::from_ref(run), self.guard.clone())?))
    }
}

/// What the user did. A terminal tells of keys, the mouse and its size alone.
fn of_terminal(message: &Message) -> FarmMessage {
    match message {
        Message::Key(key) => FarmMessage::Key(*key),
        Message::Mouse(event) => FarmMessage::Mouse(*event),
        _ => FarmMessage::Resized,
    }
}
