//! Signals to this process: which ask it to end, who sent them, when one insists, and when it is suspended.
//!
//! Threads receive them, so that nothing happens inside a signal handler. What a request leads to is up to
//! whoever listens.

use crate::error::{Context, Exit, Result};
use rustix::process;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::{Signals, SignalsInfo};
use signal_hook::low_level;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Signals that come within this time ask for one thing: batch systems and launchers may pass the
/// same request on in two ways.
const ONE_REQUEST: Duration = Duration::from_secs(1);

/// A signal that asks for an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// `SIGUSR1`, what `scrimp launch` and the job scripts send.
    User1,
    /// `SIGUSR2`.
    User2,
    /// `SIGTERM`, what batch systems and `kill` send.
    Terminate,
    /// `SIGINT`, what Ctrl-C sends.
    Interrupt,
    /// `SIGHUP`, what a terminal sends that goes away.
    HangUp,
}

impl Signal {
    /// Every one of them.
    pub const ALL: [Self; 5] =
        [Self::User1, Self::User2, Self::Terminate, Self::Interrupt, Self::HangUp];

    /// Its number in this system.
    pub fn number(self) -> i32 {
        match self {
            Self::User1 => SIGUSR1,
            Self::User2 => SIGUSR2,
            Self::Terminate => SIGTERM,
            Self::Interrupt => SIGINT,
            Self::HangUp => SIGHUP,
        }
    }

    /// The one of this name, for example `SIGTERM`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.name() == name)
    }

    /// Its name, for example `SIGTERM`.
    pub fn name(self) -> &'static str {
        low_level::signal_name(self.number()).unwrap_or("a signal")
    }

    /// How a run ends that stops because of it.
    ///
    /// Batch systems announce with `SIGUSR1` or `SIGUSR2`, as they are told to, that time is over or that the
    /// place is needed. `SIGTERM` is what they send to a job that was cancelled, too, and they start those again
    /// that they preempted.
    pub fn exit(self) -> Exit {
        match self {
            Self::User1 | Self::User2 => Exit::Stopped,
            Self::Terminate | Self::Interrupt | Self::HangUp => Exit::Cancelled,
        }
    }

    /// Ends this process as if nobody had listened to the signal.
    pub fn end_process(self) -> ! {
        // Returns only for signals that it does not know.
        let _ = low_level::emulate_default_handler(self.number());
        low_level::exit(128 + self.number())
    }
}

/// A signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Which one.
    pub signal: Signal,
    /// The process that sent it, where the system says so.
    pub sender: Option<u32>,
}

/// Ends this process, and nothing that others have asked for at its exit is done.
pub fn exit_at_once(exit: Exit) -> ! {
    low_level::exit(exit as i32)
}

/// From now on hands each of `signals` to `act`, one after the other, on a thread of their own.
///
/// `SIGHUP` and `SIGINT` stay ignored where the process was started with them ignored, as `nohup` does
/// with the first and shells do with the second for what a script starts in the background.
pub fn listen(signals: &[Signal], mut act: impl FnMut(Received) + Send + 'static) -> Result<()> {
    let ignored = ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
    let is_heard = |number: &i32| ![SIGHUP, SIGINT].contains(number) || !is_in(ignored, *number);
    let numbers: Vec<i32> = signals.iter().map(|signal| signal.number()).filter(is_heard).collect();
    let mut coming = SignalsInfo::<WithOrigin>::new(&numbers)
        .context(|| "cannot listen to the signals that end a run")?;
    let receive = move || {
        for origin in &mut coming {
            let sender = origin.process.and_then(|process| u32::try_from(process.pid).ok());
            let signal = Signal::ALL.into_iter().find(|signal| signal.number() == origin.signal);
            if let Some(signal) = signal {
                act(Received { signal, sender });
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(receive)
        .context(|| "cannot start the thread that listens to signals")?;
    Ok(())
}

/// The signals that a process ignores, one bit for each, from the text of its `/proc/PID/status`.
fn ignored(status: &str) -> u64 {
    let digits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    digits.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0)
}

fn is_in(signals: u64, number: i32) -> bool {
    u32::try_from(number - 1).is_ok_and(|bit| signals.checked_shr(bit).unwrap_or(0) & 1 == 1)
}

/// The processes that this one looks after are to be suspended with it, and continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspension {
    /// Ctrl-Z, or a batch system that needs the place for a while: this process stops after it is told.
    Begins,
    /// This process goes on.
    Ends,
}

/// From now on tells `act` on a thread of its own when this process is suspended and continued. `SIGSTOP`
/// cannot be told.
pub fn listen_to_suspension(mut act: impl FnMut(Suspension) + Send + 'static) -> Result<()> {
    let failed = || "cannot listen to the signals that suspend a run";
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_heard = |number: &i32| !is_in(ignored(&status), *number);
    let numbers: Vec<i32> = [SIGTSTP, SIGCONT].into_iter().filter(is_heard).collect();
    let mut coming = Signals::new(&numbers).context(failed)?;
    let receive = move || {
        for number in &mut coming {
            if number == SIGTSTP {
                act(Suspension::Begins);
                // Cannot fail: the system knows the signal.
                let _ = low_level::emulate_default_handler(SIGTSTP);
            } else {
                act(Suspension::Ends);
            }
        }
    };
    std::thread::Builder::new().name("suspension".into()).spawn(receive).context(failed)?;
    Ok(())
}

/// From now on writing beyond the size that `ulimit -f` allows fails, as on a full disk; it would end this
/// process otherwise.
pub fn fail_oversized_writes() -> Result<()> {
    // Nobody looks at the flag: that the signal is caught is all there is to it.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))
        .context(|| "cannot catch the signal of a file that grows too large")?;
    Ok(())
}

/// From now on the end of `parent` sends `SIGTERM` to this process, as if `parent` had sent it; does so at
/// once where `parent` is not its parent any more.
pub fn end_with_parent(parent: u32) -> Result<()> {
    process::set_parent_process_death_signal(Some(process::Signal::TERM))
        .context(|| "cannot ask to be told of the end of `mpirun`")?;
    if std::os::unix::process::parent_id() != parent {
        Signal::Terminate.end_process();
    }
    Ok(())
}

/// Tells the first request to end from one that repeats it because the first takes too long.
#[derive(Debug, Clone, Copy, Default)]
pub struct Requests {
    first: Option<Instant>,
}

impl Requests {
    /// Whether a request at `now` insists on an earlier one.
    pub fn insists(&mut self, now: Instant) -> bool {
        let first = *self.first.get_or_insert(now);
        now.duration_since(first) >= ONE_REQUEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_signal_arrives_with_its_sender() {
        let (sender, received) = mpsc::channel();
        listen(&[Signal::User2], move |signal| sender.send(signal).unwrap()).unwrap();
        low_level::raise(Signal::User2.number()).unwrap();
        let expected = Received { signal: Signal::User2, sender: Some(std::process::id()) };
        assert_eq!(received.recv().unwrap(), expected);
        assert_eq!(expected.signal.name(), "SIGUSR2");
    }

    #[test]
    fn a_process_knows_what_it_was_started_to_ignore() {
        let status = "Name:\tscrimp\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001003\n";
        let ignored = ignored(status);
        for (number, expected) in [(SIGHUP, true), (SIGINT, true), (SIGTERM, false), (13, true)] {
            assert_eq!(is_in(ignored, number), expected, "{number}");
        }
        assert_eq!(super::ignored("no such line"), 0);
        assert!([0, -1, 65, 1000].iter().all(|&number| !is_in(u64::MAX, number)));
    }

    #[test]
    fn every_signal_is_found_by_its_name() {
        for signal in Signal::ALL {
            assert_eq!(Signal::named(signal.name()), Some(signal));
        }
        assert_eq!(Signal::named("SIGKILL"), None);
    }

    #[test]
    fn what_comes_twice_at_once_is_one_request() {
        let (mut requests, start) = (Requests::default(), Instant::now());
        assert!(!requests.insists(start));
        assert!(!requests.insists(start + Duration::from_millis(900)));
        assert!(requests.insists(start + Duration::from_secs(1)));
    }
}
