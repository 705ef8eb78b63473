//! The dashboard on the terminal of this process: keys and mouse, run directories, signals.
//!
//! Polls instead of waiting for notifications: those do not reach other hosts of a shared file
//! system.

use super::feed::Feed;
use super::state::Presence;
use super::terminal::{self, Guard, Taken};
use super::{Message, Screen, Source, run};
use crate::error::{Context, Result};
use crate::runlog::directory::RunDirectory;
use crate::runlog::now_ms;
use ratatui::crossterm::event::{self, Event, KeyEventKind, MouseEventKind};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often run directories are read while there is something new in them, and while there is not.
const POLL: Duration = Duration::from_secs(1);
const IDLE_POLL: Duration = Duration::from_secs(2);
/// How long nothing must be new for a run to be idle.
const IDLE_AFTER: Duration = Duration::from_secs(10);
/// How often a replay goes on.
const TICK: Duration = Duration::from_millis(100);
/// How long a signal may wait to be seen.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// Bytes of a log from which its newest records are shown before all are read.
const LONG_LOG_BYTES: u64 = 4 << 20;

/// Shows runs on the terminal of this process, which is restored however this ends. The process ends
/// with its terminal.
///
/// Redraws when something has changed and at no other time.
pub fn on_terminal(directories: &[RunDirectory], screen: &Screen, has_mouse: bool) -> Result<()> {
    let mut source = Live::open(directories, Guard::start()?)?;
    let mut taken = Taken::take(has_mouse)?;
    terminal::unless_gone(run(directories, &mut taken.terminal, &mut source, screen))
}

/// One run directory as it is read.
struct Reader {
    feed: Feed,
    /// The newest records, while the log is still being read from its beginning.
    preview: Option<Feed>,
    /// Whether the log has been looked at yet.
    is_open: bool,
    /// Where a replay stands.
    until_ms: Option<u64>,
    /// Why it could not be read when that was tried last.
    problem: Option<String>,
}

impl Reader {
    fn open(directory: &RunDirectory) -> Result<Self> {
        let feed = Feed::open(directory.clone())?;
        let logs = directory.events().read_dir().into_iter().flatten().flatten();
        let bytes: u64 = logs.filter_map(|log| Some(log.metadata().ok()?.len())).sum();
        let preview = (bytes > LONG_LOG_BYTES).then(|| Feed::both_ends(directory.clone()));
        Ok(Self {
            feed,
            preview: preview.transpose()?,
            is_open: false,
            until_ms: None,
            problem: None,
        })
    }

    /// Puts what is new into `ready`; whether there was anything. A directory that cannot be read is no
    /// reason to end: that is said once, and it is tried again.
    fn read(&mut self, run: usize, ready: &mut VecDeque<Message>) -> bool {
        let (has_news, problem) = match self.try_read(run, ready) {
            Ok(has_news) => (has_news, None),
            Err(failure) => (false, Some(failure.message().to_owned())),
        };
        if let Some(problem) =
            problem.as_ref().filter(|problem| self.problem.as_ref() != Some(problem))
        {
            ready.push_back(Message::Notice(run, problem.clone()));
        }
        self.problem = problem;
        ready.push_back(match self.until_ms {
            // At that time somebody was writing, or the log itself says that it had ended.
            Some(then_ms) => Message::Present(run, Presence::Writing, then_ms),
            None => Message::Present(run, self.feed.presence(), now_ms()),
        });
        has_news
    }

    fn try_read(&mut self, run: usize, ready: &mut VecDeque<Message>) -> Result<bool> {
        // The first look at a long log is at its newest records alone.
        let is_first = !std::mem::replace(&mut self.is_open, true);
        let mut news = Vec::new();
        if let Some(preview) = &mut self.preview {
            news = preview.read()?;
            while is_first && preview.is_behind() {
                news.extend(preview.read()?);
            }
        }
        let records = if is_first && self.preview.is_some() {
            Vec::new()
        } else {
            self.feed.read_until(self.until_ms.unwrap_or(u64::MAX))?
        };
        for notice in self.feed.notices() {
            if notice.is_void {
                self.preview = None;
                forget(run, ready);
            }
            ready.push_back(Message::Notice(run, notice.sentence));
        }
        let has_news = !records.is_empty();
        if self.preview.is_some() {
            // Shown before the history, which may take seconds.
            ready.push_back(Message::Preview(run, news, self.feed.share_read()));
        }
        if has_news {
            ready.push_back(Message::Records(run, records));
        }
        if self.preview.is_some() && !is_first && !self.feed.is_behind() {
            self.preview = None;
            ready.push_back(Message::CaughtUp(run));
        }
        Ok(has_news)
    }
}

/// Takes back what is told of a run and not yet taken in, and voids what is.
fn forget(run: usize, ready: &mut VecDeque<Message>) {
    ready.retain(|message| match message {
        Message::Records(of, _) | Message::Preview(of, _, _) => *of != run,
        _ => true,
    });
    ready.push_back(Message::Forget(run));
}

/// Keys of this terminal and records of run directories.
pub(super) struct Live {
    runs: Vec<Reader>,
    ready: VecDeque<Message>,
    last_poll: Option<Instant>,
    last_news: Instant,
    next_tick: Option<Instant>,
    guard: Guard,
}

impl Source for Live {
    fn next(&mut self, wait: Option<Duration>) -> Result<Option<Message>> {
        let until = wait.map(|wait| Instant::now() + wait);
        loop {
            if self.guard.should_end() {
                return Ok(Some(Message::Quit));
            }
            // Keys first: a long log must not keep the user waiting.
            if let Some(message) = terminal_event(Duration::ZERO)? {
                return Ok(Some(message));
            }
            if let Some(message) = self.ready.pop_front() {
                return Ok(Some(message));
            }
            let now = Instant::now();
            if until.is_some_and(|until| now >= until) {
                return Ok(None);
            }
            if self.next_tick.is_some_and(|tick| now >= tick) {
                self.next_tick = Some(now + TICK);
                return Ok(Some(Message::Tick));
            }
            let poll = self.next_poll(now);
            if poll <= now {
                self.poll_runs();
                continue;
            }
            let wake = [until, self.next_tick, Some(poll)].into_iter().flatten().min();
            let rest = wake.map_or(LONGEST_WAIT, |wake| wake.saturating_duration_since(now));
            if let Some(message) = terminal_event(rest.min(LONGEST_WAIT))? {
                return Ok(Some(message));
            }
        }
    }

    fn travel(&mut self, run: usize, until_ms: Option<u64>) -> Result<()> {
        let reader = &mut self.runs[run];
        let is_onwards =
            matches!((reader.until_ms, until_ms), (Some(old), Some(new)) if new >= old);
        if !is_onwards {
            reader.feed.restart();
            reader.preview = None;
            forget(run, &mut self.ready);
        }
        reader.until_ms = until_ms;
        self.last_poll = None;
        Ok(())
    }

    fn tick(&mut self, is_wanted: bool) {
        let soon = || Instant::now() + TICK;
        self.next_tick = is_wanted.then(|| self.next_tick.unwrap_or_else(soon));
    }
}

impl Live {
    /// The runs in these directories, on a terminal that is guarded.
    pub(super) fn open(directories: &[RunDirectory], guard: Guard) -> Result<Self> {
        Ok(Self {
            runs: directories.iter().map(Reader::open).collect::<Result<_>>()?,
            ready: VecDeque::new(),
            last_poll: None,
            last_news: Instant::now(),
            next_tick: None,
            guard,
        })
    }

    /// When the runs are looked at next.
    fn next_poll(&self, now: Instant) -> Instant {
        let is_idle = now.duration_since(self.last_news) > IDLE_AFTER;
        let pause = if is_idle { IDLE_POLL } else { POLL };
        self.last_poll.map_or(now, |last| last + pause)
    }

    fn poll_runs(&mut self) {
        let mut has_news = false;
        for (run, reader) in self.runs.iter_mut().enumerate() {
            has_news |= reader.read(run, &mut self.ready);
        }
        let now = Instant::now();
        if has_news {
            self.last_news = now;
        }
        // A long log is read piece by piece without waiting, with a look at the keys in between.
        let is_behind = |reader: &Reader| {
            reader.problem.is_none() && (reader.preview.is_some() || reader.feed.is_behind())
        };
        let is_behind = self.runs.iter().any(is_behind);
        self.last_poll = (!is_behind).then_some(now);
    }
}

/// What the user does within `wait`.
pub(super) fn terminal_event(wait: Duration) -> Result<Option<Message>> {
    let reading = || "cannot read from the terminal";
    let mut moved = None;
    let mut wait = wait;
    while event::poll(wait).context(reading)? {
        match event::read().context(reading)? {
            Event::Key(key) if key.kind == KeyEventKind::Press => {
                return Ok(Some(Message::Key(key)));
            }
            // Of a movement only where it leads to counts.
            Event::Mouse(mouse)
                if matches!(mouse.kind, MouseEventKind::Moved | MouseEventKind::Drag(_)) =>
            {
                moved = Some(Message::Mouse(mouse));
            }
            Event::Mouse(mouse) => return Ok(Some(Message::Mouse(mouse))),
            Event::Resize(..) => return Ok(Some(Message::Resized)),
            _ => {}
        }
        wait = Duration::ZERO;
    }
    Ok(moved)
}
