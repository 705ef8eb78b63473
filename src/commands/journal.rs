//! Lines of the program's own log, on their way into the run log of this rank.
//!
//! The dashboard shows the messages of all ranks; what each wrote to stderr is on another host, mixed
//! up with the others', or gone.

use crate::runlog::io::SharedLog;
use crate::runlog::{Level, RunEvent};
use std::fmt::{Debug, Write};
use std::sync::OnceLock;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// The run log of this process, once it has one.
static LOG: OnceLock<SharedLog> = OnceLock::new();

/// From now on, lines of the log go into `log`, too.
#[cfg(feature = "torch")]
pub(super) fn keep_in(log: SharedLog) {
    // A process has one run; a second one would keep the log of the first.
    let _ = LOG.set(log);
}

/// Hands lines on to the run log.
#[derive(Debug, Clone, Copy)]
pub struct Journal;

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let Some(log) = LOG.get() else { return };
        let mut sentence = Sentence::default();
        event.record(&mut sentence);
        log.emit_unless_busy(&run_event(*event.metadata().level(), sentence.0));
    }
}

fn run_event(level: tracing::Level, message: String) -> RunEvent {
    let level = match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => return RunEvent::Warning { message },
        tracing::Level::INFO => Level::Info,
        _ => Level::Debug,
    };
    RunEvent::Log { level, message }
}

/// The message of a line, and its fields behind it.
#[derive(Default)]
struct Sentence(String);

impl Visit for Sentence {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Heard(std::sync::Arc<std::sync::Mutex<Vec<RunEvent>>>);

    impl<S: Subscriber> Layer<S> for Heard {
        fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
            let mut sentence = Sentence::default();
            event.record(&mut sentence);
            let heard = run_event(*event.metadata().level(), sentence.0);
            self.0.lock().unwrap().push(heard);
        }
    }

    #[test]
    fn lines_become_events_of_their_level() {
        let heard = Heard::default();
        let subscriber = tracing_subscriber::registry().with(heard.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!("disk at {} %", 97);
            tracing::info!(slices = 3, "read");
        });
        let log = RunEvent::Log { level: Level::Info, message: "read slices=3".to_owned() };
        let warning = RunEvent::Warning { message: "disk at 97 %".to_owned() };
        assert_eq!(*heard.0.lock().unwrap(), [warning, log]);
    }
}
