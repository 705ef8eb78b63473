//! What looks after a run while it trains: signals, the flight recorder and the watchdog.

use super::batch_job::EndOfJob;
use super::say;
use crate::comm::{Host, Ranks};
use crate::error::{Context, Exit, Failure, Result};
use crate::launch;
use crate::launchers::{Variables, number_of};
use crate::runlog::directory::RunDirectory;
use crate::runlog::flight::leave_exit;
use crate::runlog::io::{EventSink, LogWriter};
use crate::runlog::{RunEvent, RunStatus};
use crate::signals::{self, Signal};
use crate::train::recorder::{FlightRecorder, Recorded};
use crate::train::stopping::{Deadline, Limits, Meaning, Reason, Signals, StopRequests};
use crate::train::watchdog::{Watchdog, Watched};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The signals that a rank takes for a request to stop.
const SIGNALS: [Signal; 4] = [Signal::User1, Signal::User2, Signal::Terminate, Signal::Interrupt];

/// `mpirun` that is there so long after it has ended a rank is ended itself; `scrimp launch` does so before.
const LINGERING: Duration = Duration::from_secs(20);

/// What a rank shares with the threads that look after it.
pub(super) struct Supervision {
    pub(super) recorder: Arc<FlightRecorder>,
    pub(super) requests: StopRequests,
    /// `mpirun` or its daemon, where that has started this process.
    launcher: Option<u32>,
    /// When this process began.
    started: Instant,
}

impl Supervision {
    /// From now on signals to this process are requests to stop; the first rank says that it has one.
    /// Before the first step there is nothing to save, and a request ends the process at once.
    pub(super) fn begin(variables: &Variables, directory: &RunDirectory) -> Result<Self> {
        let requests = StopRequests::default();
        let recorder = Arc::new(FlightRecorder::new());
        let mut meanings = Signals::new(variables, std::os::unix::process::parent_id());
        let launcher = meanings.launcher();
        let is_first = number_of(variables).is_none_or(|number| number == 0);
        let (noted, progress, directory) =
            (requests.clone(), Arc::clone(&recorder), directory.clone());
        signals::listen(&SIGNALS, move |received| {
            if meanings.meaning(received, Instant::now()) == Meaning::EndAtOnce {
                meanings.launcher().into_iter().for_each(end_later);
                received.signal.end_process();
            }
            let passed_on = (received.signal == Signal::User1 && is_first)
                .then(|| launch::take_passed_on(&directory))
                .flatten();
            let signal = passed_on.unwrap_or(received.signal);
            let tell = |effect: &str| {
                if is_first {
                    say(format_args!("{}: {effect}", signal.name()));
                }
            };
            if !progress.has_begun() {
                tell("ends before the first step; the same command starts again");
                signals::exit_at_once(signal.exit());
            }
            noted.ask(Reason::Signal(signal));
            tell("saves and stops after this step; again: stops at once");
        })?;
        Ok(Self { recorder, requests, launcher, started: Instant::now() })
    }

    /// When the run has to be over, by the configuration and by `scrimp launch`, on rank 0 also by what Slurm says:
    /// one rank that stops stops all, and a thousand need not ask. Where that is not known, the second says why.
    pub(super) fn deadline(
        &self,
        (own, launch): (Option<Duration>, Option<u64>),
        rank: usize,
    ) -> (Option<Deadline>, Option<String>) {
        let end = if rank == 0 { EndOfJob::find() } else { EndOfJob::default() };
        (Limits { started: self.started, own, launch, job: end.at }.deadline(), end.note)
    }

    /// The same ranks; the recorder notes what is called.
    pub(super) fn recorded(&self, ranks: Ranks) -> Ranks {
        Ranks::of(Arc::new(Recorded::new(ranks, Arc::clone(&self.recorder))))
    }

    /// Starts the watchdog of this rank, whose directory [`clear_reports`] has made ready.
    pub(super) fn watch(
        &self,
        host: &Host,
        directory: &RunDirectory,
        hang_limit: Option<Duration>,
    ) -> Result<Watchdog> {
        let (recorder, rank, launcher) = (Arc::clone(&self.recorder), host.rank(), self.launcher);
        let written = directory.clone();
        let tell = move |failure: &Failure| {
            say(format_args!("{failure}"));
            // The run's own writer belongs to the thread that hangs.
            note_end(&written, rank, recorder.steps_done(), failure);
            launcher.into_iter().for_each(end_later);
        };
        Watchdog::start(Watched {
            recorder: Arc::clone(&self.recorder),
            communicator: Arc::clone(host.control()),
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
    leave(directory, failure.exit());
}

/// Leaves how the run has ended for `scrimp launch`. Where that cannot be written, `mpirun` alone tells.
pub(super) fn leave(directory: &RunDirectory, exit: Exit) {
    if let Err(failure) = leave_exit(directory, exit) {
        tracing::warn!("{}", failure.sentence());
    }
}

/// Ends `launcher`, which is `mpirun` or its daemon, where it is still there long after a rank was ended: it waits
/// for ever for hosts that no longer answer. What does so has to outlive this process.
fn end_later(launcher: u32) {
    let script = format!(
        "for second in $(seq {}); do kill -0 {launcher} || exit; sleep 1; done; kill -TERM {launcher}; \
         sleep 10; kill -KILL {launcher}",
        LINGERING.as_secs()
    );
    // Where there is no shell, the end of the job ends it.
    let _ = Command::new("sh")
        .args(["-c", &script])
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
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
