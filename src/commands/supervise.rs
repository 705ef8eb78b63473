//! What looks after a run while it trains: signals, the flight recorder and the watchdog.

use super::say;
use crate::comm::Communicator;
use crate::comm::environment::Variables;
use crate::error::{Context, Failure, Result};
use crate::runlog::directory::RunDirectory;
use crate::runlog::io::{EventSink, LogWriter};
use crate::runlog::{RunEvent, RunStatus};
use crate::signals::{self, Signal};
use crate::train::recorder::{FlightRecorder, Recorded};
use crate::train::stopping::{Meaning, Reason, Signals, StopRequests};
use crate::train::watchdog::{Watchdog, Watched};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The signals that a rank takes for a request to stop.
const SIGNALS: [Signal; 4] = [Signal::User1, Signal::User2, Signal::Terminate, Signal::Interrupt];

/// What a rank shares with the threads that look after it.
pub(super) struct Supervision {
    pub(super) recorder: Arc<FlightRecorder>,
    pub(super) requests: StopRequests,
    /// When this process began.
    pub(super) started: Instant,
}

impl Supervision {
    /// From now on signals to this process are requests to stop; rank 0 says that it has one.
    pub(super) fn begin(variables: &Variables, rank: usize) -> Result<Self> {
        let requests = StopRequests::default();
        let mut meanings = Signals::new(variables, std::os::unix::process::parent_id());
        let noted = requests.clone();
        signals::listen(&SIGNALS, move |received| {
            if meanings.meaning(received, Instant::now()) == Meaning::EndAtOnce {
                received.signal.end_process();
            }
            noted.ask(Reason::Signal(received.signal));
            if rank == 0 {
                let name = received.signal.name();
                say(format_args!("{name}: saves and stops after this step; again: stops at once"));
            }
        })?;
        let recorder = Arc::new(FlightRecorder::new());
        Ok(Self { recorder, requests, started: Instant::now() })
    }

    /// The same ranks; the recorder notes what is called.
    pub(super) fn recorded(&self, ranks: &Arc<dyn Communicator>) -> Arc<dyn Communicator> {
        Arc::new(Recorded::new(Arc::clone(ranks), Arc::clone(&self.recorder)))
    }

    /// Starts the watchdog of this rank, whose directory [`clear_reports`] has made ready.
    pub(super) fn watch(
        &self,
        ranks: &Arc<dyn Communicator>,
        directory: &RunDirectory,
        hang_limit: Option<Duration>,
    ) -> Result<Watchdog> {
        let (recorder, rank) = (Arc::clone(&self.recorder), ranks.rank());
        let written = directory.clone();
        let tell = move |failure: &Failure| {
            say(format_args!("{failure}"));
            // The run's own writer belongs to the thread that hangs.
            note_end(&written, rank, recorder.steps_done(), failure);
        };
        Watchdog::start(Watched {
            recorder: Arc::clone(&self.recorder),
            communicator: Arc::clone(ranks),
            directory: directory.clone(),
            requests: self.requests.clone(),
            hang_limit,
            say: Box::new(tell),
        })
    }
}

/// Writes down on this rank why the run has ended, where its own writer cannot: a log that cannot be
/// written is no second failure.
pub(super) fn note_end(directory: &RunDirectory, rank: usize, step: u64, failure: &Failure) {
    if let Ok(mut log) = LogWriter::open(&directory.rank_events(rank), rank as u32) {
        let message = failure.sentence();
        log.emit(&RunEvent::RunEnded { status: RunStatus::Failed, step, message });
    }
}

/// Removes what the ranks of an earlier process reported, so that nobody takes it for today's.
pub(super) fn clear_reports(directory: &RunDirectory) -> Result<()> {
    let folder = directory.flights();
    let doing = || format!("cannot make `{}` ready", folder.display());
    if folder.exists() {
        std::fs::remove_dir_all(&folder).context(doing)?;
    }
    std::fs::create_dir_all(&folder).context(doing)
}
