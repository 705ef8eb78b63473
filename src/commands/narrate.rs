//! What a run says on stderr while it trains, in the words of `scrimp watch`.

use crate::runlog::io::EventSink;
use crate::runlog::{Record, RunEvent, now_ms};
use crate::watch::Lines;
use std::fmt::Arguments;
use std::io::Write;

/// Writes one line to stderr. Nobody reading it is no reason to fail.
pub(super) fn say(line: Arguments<'_>) {
    let _ = writeln!(anstream::stderr(), "{line}");
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
