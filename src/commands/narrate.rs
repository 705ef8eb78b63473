//! What a run says on stderr while it trains: one line for each event that a person follows.

use crate::runlog::RunEvent;
use crate::runlog::io::EventSink;
use std::fmt::Arguments;
use std::io::Write;
use std::time::{Duration, Instant};

/// Steps are told at most this often: batch systems keep every line for ever.
const PAUSE: Duration = Duration::from_secs(5);

/// Writes one line to stderr. Nobody reading it is no reason to fail.
pub(super) fn say(line: Arguments<'_>) {
    let _ = writeln!(anstream::stderr(), "{line}");
}

/// Passes events on and tells them.
pub(super) struct Narrated<S> {
    sink: S,
    told: Option<Instant>,
    total_steps: u64,
}

impl<S> Narrated<S> {
    pub(super) fn new(sink: S) -> Self {
        Self { sink, told: None, total_steps: 0 }
    }

    fn line(&mut self, event: &RunEvent) -> Option<String> {
        let total = self.total_steps;
        match event {
            RunEvent::RunStarted(started) => {
                self.total_steps = started.total_steps;
                None
            }
            RunEvent::Resumed { step, checkpoint } => {
                Some(format!("step {step}/{total}: resumed from `{checkpoint}`"))
            }
            RunEvent::Step(step) if self.told.is_none_or(|told| told.elapsed() >= PAUSE) => {
                self.told = Some(Instant::now());
                let losses: Vec<String> =
                    step.loss.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
                Some(format!(
                    "step {}/{total}: {}, {:.1} images/s",
                    step.step,
                    losses.join(", "),
                    step.images_per_second
                ))
            }
            RunEvent::Evaluated(scores) => Some(format!(
                "step {}/{total}: validation Dice {:.4}, best {:.4} at step {}",
                scores.step, scores.mean_dice, scores.best_mean_dice, scores.best_step
            )),
            RunEvent::Warning { message } => Some(format!("warning: {message}")),
            RunEvent::RunEnded { step, message, .. } => {
                Some(format!("step {step}/{total}: {message}"))
            }
            _ => None,
        }
    }
}

impl<S: EventSink> EventSink for Narrated<S> {
    fn emit(&mut self, event: &RunEvent) {
        self.sink.emit(event);
        if let Some(line) = self.line(event) {
            say(format_args!("{line}"));
        }
    }
}
