//! Whether somebody wants the farm to end: signals to this process, and the request in the farm directory.
//!
//! What is then done about the jobs is not known here.

use super::tell;
use crate::error::Result;
use crate::signals::{self, Requests, Signal};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Whether somebody wants the farm to end.
#[derive(Clone, Default)]
pub(super) struct Wish(Arc<Noted>);

#[derive(Default)]
struct Noted {
    level: AtomicU8,
    /// The signal that came first.
    signal: OnceLock<Signal>,
}

impl Wish {
    /// Jobs are to save and stop.
    pub(super) const STOP: u8 = 1;
    /// Jobs are to end at once.
    pub(super) const END: u8 = 2;

    /// From now on signals to this process are wishes.
    pub(super) fn listen() -> Result<Self> {
        let wish = Self::default();
        let (noted, mut requests) = (wish.clone(), Requests::default());
        signals::listen(&Signal::ALL, move |received| {
            let name = received.signal.name();
            let is_first = noted.0.signal.set(received.signal).is_ok();
            if requests.insists(Instant::now()) {
                if noted.0.level.fetch_max(Self::END, Ordering::Relaxed) < Self::END {
                    tell(format_args!("{name} again: ends all jobs at once"));
                }
            } else if is_first {
                noted.stop();
                tell(format_args!(
                    "{name}: starts nothing more and asks all jobs to save and stop"
                ));
            }
        })?;
        Ok(wish)
    }

    /// Wants all jobs to save and stop.
    pub(super) fn stop(&self) {
        self.0.level.fetch_max(Self::STOP, Ordering::Relaxed);
    }

    pub(super) fn level(&self) -> u8 {
        self.0.level.load(Ordering::Relaxed)
    }

    /// The signal that came first, if one came.
    pub(super) fn signal(&self) -> Option<Signal> {
        self.0.signal.get().copied()
    }
}
