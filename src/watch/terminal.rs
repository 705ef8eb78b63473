//! The terminal of this process: taken over, given back, and never outlived.
//!
//! Libraries wait for keys and answers in loops that heed neither signals nor the end of a terminal.
//! So threads of their own look after both, and end the process whatever the others wait for. What is
//! drawn is not known here.

use crate::error::{Context, Exit, Result};
use crate::signals::{self, Signal};
use ratatui::DefaultTerminal;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use ratatui::crossterm::terminal::{LeaveAlternateScreen, disable_raw_mode};
use ratatui::crossterm::{execute, queue};
use ratatui_image::picker::Picker;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::BorrowedFd;
use rustix::process::{getpgrp, getppid};
use rustix::stdio::{stdin, stdout};
use rustix::termios::tcgetpgrp;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long the loop may take to end after a signal, before it is ended.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a terminal that is being left may take to read what restores it.
const FAREWELL: Duration = Duration::from_millis(300);
/// How often the guard looks at what it is not told of.
const LOOK: Duration = Duration::from_millis(500);
/// How long a terminal may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// Bytes of keys that may come before the answer.
const LONGEST_ANSWER: usize = 4096;
/// The question how the terminal is, which all of them answer, and the answer.
const STATUS: (&[u8], &[u8]) = (b"\x1b[5n", b"\x1b[0n");

/// Ends this process with its terminal, and soon after a signal that asks for it.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    should_end: Arc<AtomicBool>,
}

impl Guard {
    /// Guards from now on to the end of the process.
    pub(super) fn start() -> Result<Self> {
        let should_end = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&should_end);
        let signals = [Signal::Terminate, Signal::HangUp, Signal::Interrupt];
        signals::listen(&signals, move |_| {
            asked.store(true, Ordering::Relaxed);
            thread::sleep(PATIENCE);
            leave_at_once();
        })?;
        let parent = getppid();
        watch_over(move |wait| {
            // A job that lost its shell and not the terminal gets neither keys nor signals any more.
            has_ended(&[stdin(), stdout()], wait) || (is_in_background() && getppid() != parent)
        })?;
        Ok(Self { should_end })
    }

    /// Whether somebody asked for an end.
    pub(super) fn should_end(&self) -> bool {
        self.should_end.load(Ordering::Relaxed)
    }
}

/// Ends this process, without an error, as soon as nobody can read its output any more: the terminal
/// has gone, or the reader of a pipe.
pub fn end_with_output() -> Result<()> {
    watch_over(|wait| has_ended(&[stdout()], wait))
}

/// What came of writing to stdout, which is no failure where nobody can read it any more: there is nobody
/// to be told either.
pub fn unless_gone(outcome: Result<()>) -> Result<()> {
    outcome.or_else(
        |failure| {
            if has_ended(&[stdout()], Duration::ZERO) { Ok(()) } else { Err(failure) }
        },
    )
}

/// Ends the process as soon as `is_over` says so, which waits as long as it is told.
fn watch_over(is_over: impl Fn(Duration) -> bool + Send + 'static) -> Result<()> {
    let watch = move || {
        while !is_over(LOOK) {}
        signals::exit_at_once(Exit::Done);
    };
    let spawned = thread::Builder::new().name("guard".into()).spawn(watch);
    spawned.map(drop).context(|| "cannot start the thread that looks after the terminal")
}

/// Whether the other end of one of `files` goes within `wait`.
fn has_ended(files: &[BorrowedFd<'_>], wait: Duration) -> bool {
    // Asked for nothing: that the other end has gone is always told.
    let polled = files.iter().map(|file| PollFd::from_borrowed_fd(*file, PollFlags::empty()));
    let found = poll(&mut polled.collect::<Vec<_>>(), Some(&timespec(wait)));
    if found.is_err() {
        // Interrupted, or the system is short of memory: no reason to ask again at once.
        thread::sleep(wait);
    }
    found.is_ok_and(|ended| ended > 0)
}

fn timespec(wait: Duration) -> Timespec {
    Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) }
}

/// Whether the terminal belongs to other processes at the moment.
fn is_in_background() -> bool {
    tcgetpgrp(stdin()).is_ok_and(|foreground| foreground != getpgrp())
}

/// Restores the terminal as far as it can be done in a short time, and ends the process.
///
/// The loop may be held up in a write and hold what stdout is locked by, so that is passed by.
fn leave_at_once() -> ! {
    let (sender, done) = mpsc::channel();
    let restore = move || {
        leave_raw_mode();
        let farewell = farewell();
        let mut rest = &farewell[..];
        while let Ok(written @ 1..) = rustix::io::write(stdout(), rest) {
            rest = &rest[written..];
        }
        // Nobody waits any more where this came too late.
        let _ = sender.send(());
    };
    if thread::Builder::new().spawn(restore).is_ok() {
        let _ = done.recv_timeout(FAREWELL);
    }
    signals::exit_at_once(Exit::Done)
}

/// What brings a terminal back: no mouse, the screen from before, a cursor.
fn farewell() -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing into memory does not fail.
    let _ = queue!(bytes, DisableMouseCapture, LeaveAlternateScreen, Show);
    bytes
}

fn leave_raw_mode() {
    // The system stops a process that changes the terminal of others.
    if !is_in_background() {
        // A terminal that is gone needs no restoring.
        let _ = disable_raw_mode();
    }
}

/// The terminal while it belongs to the dashboard; given back on drop.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) terminal: DefaultTerminal,
}

impl Taken {
    /// Takes the terminal over, and the mouse if it `has_mouse`.
    pub(super) fn take(has_mouse: bool) -> Result<Self> {
        // Installs a panic hook that restores the terminal, too.
        let terminal = ratatui::try_init().context(|| "cannot take over the terminal")?;
        let taken = Self { terminal };
        if has_mouse {
            execute!(std::io::stdout(), EnableMouseCapture)
                .context(|| "cannot ask for the mouse")?;
        }
        Ok(taken)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        leave_raw_mode();
        let mut stdout = std::io::stdout();
        // A terminal that is gone needs no restoring.
        let _ = stdout.write_all(&farewell()).and_then(|()| stdout.flush());
    }
}

/// How the terminal draws pictures. One that does not say how it is within a second is not asked
/// further, as that question waits as long as keys are pressed, and gets half blocks.
pub fn find_picker() -> Picker {
    if !answers() {
        return Picker::halfblocks();
    }
    let found = Picker::from_query_stdio();
    // Where no answer came (a multiplexer kept it), a thread still waits for one and would take the next
    // key instead.
    ask();
    found.unwrap_or_else(|_| Picker::halfblocks())
}

/// Asks the terminal how it is.
fn ask() -> bool {
    let mut stdout = std::io::stdout();
    stdout.write_all(STATUS.0).and_then(|()| stdout.flush()).is_ok()
}

/// Whether the terminal answers; keys that are pressed meanwhile are lost.
fn answers() -> bool {
    let (_, answer) = STATUS;
    if !ask() {
        return false;
    }
    let (end, mut heard) = (Instant::now() + ANSWER, Vec::new());
    while heard.len() < LONGEST_ANSWER {
        let wait = end.saturating_duration_since(Instant::now());
        let mut keys = [PollFd::from_borrowed_fd(stdin(), PollFlags::IN)];
        let mut piece = [0; 64];
        let Ok(1..) = poll(&mut keys, Some(&timespec(wait))) else { return false };
        let Ok(read @ 1..) = rustix::io::read(stdin(), &mut piece) else { return false };
        heard.extend_from_slice(&piece[..read]);
        if heard.windows(answer.len()).any(|bytes| bytes == answer) {
            return true;
        }
    }
    false
}
