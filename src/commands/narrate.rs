//! What a run says on stderr while it trains, in the words of `scrimp watch`.

use super::say;
use crate::comm::Communicator;
use crate::error::{Failure, Result};
use crate::panics;
use crate::runlog::io::EventSink;
use crate::runlog::{Record, RunEvent, now_ms};
use crate::watch::Lines;

/// Does what all ranks do together. Where they fail together, each ends by itself, and the one who knows
/// why has said it; where this rank alone cannot go on, the others, who may be waiting for it, end
/// with it.
pub(super) fn together<T>(comm: &dyn Communicator, work: impl FnOnce() -> Result<T>) -> Result<T> {
    panics::caught(work).map_err(|failure| {
        if comm.ranks() > 1 && !failure.is_known_to_all() {
            say(format_args!("{failure}"));
            comm.abort(failure.exit());
        }
        tell(failure, comm)
    })
}

/// Says a failure of several ranks here and now, and marks it as told. `main` would come too late:
/// as soon as one rank has ended, `mpirun` ends the others, and what they had to say is lost.
pub(super) fn tell(failure: Failure, comm: &dyn Communicator) -> Failure {
    if failure.is_told_elsewhere() || comm.ranks() == 1 {
        return failure;
    }
    say(format_args!("{failure}"));
    failure.told_elsewhere()
}

/// Passes events on and tells them.
pub(super) struct Narrated<S> {
    sink: S,
    lines: Lines,
}

impl<S> Narrated<S> {
    pub(super) fn new(sink: S) -> Self {
        Self { sink, lines: Lines::default() }
    }
}

impl<S: EventSink> EventSink for Narrated<S> {
    fn emit(&mut self, event: &RunEvent) {
        self.sink.emit(event);
        let record = Record { time_ms: now_ms(), rank: 0, event: event.clone() };
        if let Some(line) = self.lines.line(&record) {
            say(format_args!("{line}"));
        }
    }
}
