//! Signals that ask this process to end: which came, who sent them, and when one insists.
//!
//! A thread receives them, so that nothing happens inside a signal handler. What a request leads to
//! is up to whoever listens.

use crate::error::{Context, Exit, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level;
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

    /// Its name, for example `SIGTERM`.
    pub fn name(self) -> &'static str {
        low_level::signal_name(self.number()).unwrap_or("a signal")
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
pub fn listen(signals: &[Signal], mut act: impl FnMut(Received) + Send + 'static) -> Result<()> {
    let numbers: Vec<i32> = signals.iter().map(|signal| signal.number()).collect();
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
    fn what_comes_twice_at_once_is_one_request() {
        let (mut requests, start) = (Requests::default(), Instant::now());
        assert!(!requests.insists(start));
        assert!(!requests.insists(start + Duration::from_millis(900)));
        assert!(requests.insists(start + Duration::from_secs(1)));
    }
}
