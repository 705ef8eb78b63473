//! The thread of each rank that looks on: it writes the flight recorder's report, sees requests to
//! stop, and ends all ranks with one message when one of them no longer gets on.
//!
//! It counts the time between its own looks and compares no clocks, so that neither a job that was
//! suspended as a whole nor hosts with different clocks look like a hang.

use super::recorder::{FlightRecorder, Notes};
use super::stopping::{Reason, StopRequests};
use crate::comm::Communicator;
use crate::error::{Context, Exit, Failure, Result};
use crate::runlog::directory::{RunDirectory, host};
use crate::runlog::flight::{FlightReport, Phase, Sighting, judge};
use crate::runlog::now_ms;
use crate::signals;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two looks, where the limit is not shorter.
const LOOK: Duration = Duration::from_secs(1);
/// Fewest looks between a suspicion and a verdict.
const LOOKS_TO_BE_SURE: u32 = 3;
/// Looks after which another rank says what the chosen one should have said.
const LOOKS_FOR_THE_SPEAKER: u32 = 8;
/// A step may take so many times the median one.
const SLOW_STEP: u32 = 20;
/// Whatever is no step, and the first steps, may take so many times the limit.
const SLOW_START: u32 = 20;
/// Waiting for others that wait, too, before steps have a pace, may take so many times the limit.
const FIRST_SUMS: u32 = 2;

/// What a watchdog watches, and how it ends the run.
pub struct Watched {
    /// What this rank does.
    pub recorder: Arc<FlightRecorder>,
    /// The ranks, for ending them; its calls are not noted.
    pub communicator: Arc<dyn Communicator>,
    /// Where reports and requests are.
    pub directory: RunDirectory,
    /// Where requests are noted.
    pub requests: StopRequests,
    /// How long a step may last without anything beginning or ending; none: for ever.
    pub hang_limit: Option<Duration>,
    /// Says on this rank what ended the run.
    pub say: Box<dyn Fn(&Failure) + Send>,
}

/// A watchdog at work; it goes when this is dropped, which must be before MPI ends.
#[derive(Debug)]
pub struct Watchdog {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts it. The folder of reports must exist and hold none of an earlier process.
    pub fn start(watched: Watched) -> Result<Self> {
        let (end, ended) = mpsc::channel();
        let mut watch = Watch::new(watched);
        let look = watch.time_between_looks();
        let thread = std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || {
                while ended.recv_timeout(look) == Err(RecvTimeoutError::Timeout) {
                    watch.look();
                }
            })
            .context(|| "cannot start the thread that looks for hanging ranks")?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.end.take());
        if matches!(self.thread.take().map(JoinHandle::join), Some(Err(_))) {
            tracing::warn!("the thread that looks for hanging ranks has panicked");
        }
    }
}

/// What the thread knows between two looks.
struct Watch {
    watched: Watched,
    host: String,
    looked: Instant,
    beat: u64,
    moves: u64,
    idle: Duration,
    suspicion: Option<Suspicion>,
    cannot_write: bool,
}

/// This rank has stood still for long.
struct Suspicion {
    /// Looks since then.
    looks: u32,
    /// Looks since its time was over.
    late: u32,
    /// The report of each rank at that time; a rank that has no other one is not alive.
    beats: Vec<Option<u64>>,
}

impl Watch {
    fn new(watched: Watched) -> Self {
        Self {
            watched,
            host: host(),
            looked: Instant::now(),
            beat: 0,
            moves: 0,
            idle: Duration::ZERO,
            suspicion: None,
            cannot_write: false,
        }
    }

    fn time_between_looks(&self) -> Duration {
        self.watched.hang_limit.map_or(LOOK, |limit| LOOK.min(limit / 4))
    }

    fn look(&mut self) {
        let notes = self.watched.recorder.snapshot();
        let passed = self.looked.elapsed();
        self.looked = Instant::now();
        // Where the whole process was suspended, most of the time has passed for nobody.
        let passed = passed.min(2 * self.time_between_looks());
        self.idle = if notes.moves == self.moves { self.idle + passed } else { Duration::ZERO };
        self.moves = notes.moves;
        let patience = self.watched.hang_limit.map(|limit| patience(limit, &notes));
        self.report(&notes, patience);
        let directory = &self.watched.directory;
        if self.watched.communicator.rank() == 0 && directory.stop_request().exists() {
            self.watched.requests.ask(Reason::Requested);
        }
        match patience {
            // From half the time on, it is seen whose reports still come.
            Some(patience) if 2 * self.idle > patience => self.suspect(patience),
            _ => self.suspicion = None,
        }
    }

    fn report(&mut self, notes: &Notes, patience: Option<Duration>) {
        self.beat += 1;
        let report = FlightReport {
            rank: self.watched.communicator.rank() as u32,
            host: self.host.clone(),
            pid: std::process::id(),
            time_ms: now_ms(),
            beat: self.beat,
            phase: notes.phase,
            step: notes.step,
            sequence: notes.sequence,
            idle_seconds: self.idle.as_secs_f64(),
            patience_seconds: patience.map(|patience| patience.as_secs_f64()),
            calls: notes.calls.iter().copied().collect(),
        };
        if let Err(failure) = report.write(&self.watched.directory) {
            // Once: a full disk would otherwise say so every second.
            if !std::mem::replace(&mut self.cannot_write, true) {
                tracing::warn!("{failure}");
            }
        }
    }

    /// Compares the reports of all ranks over some looks; when time is over, ends all if one hangs.
    fn suspect(&mut self, patience: Duration) {
        let ranks = self.watched.communicator.ranks();
        let directory = &self.watched.directory;
        let reports: Vec<_> = (0..ranks).map(|rank| FlightReport::read(directory, rank)).collect();
        let beats = || reports.iter().map(|report| report.as_ref().map(|r| r.beat)).collect();
        let suspicion =
            self.suspicion.get_or_insert_with(|| Suspicion { looks: 0, late: 0, beats: beats() });
        suspicion.looks += 1;
        if suspicion.looks <= LOOKS_TO_BE_SURE || self.idle <= patience {
            return;
        }
        suspicion.late += 1;
        let mine = self.watched.communicator.rank();
        let sightings: Vec<Sighting> = reports
            .into_iter()
            .enumerate()
            .map(|(rank, report)| {
                let beat = report.as_ref().map(|report| report.beat);
                let is_alive = rank == mine || (beat.is_some() && beat != suspicion.beats[rank]);
                Sighting { report, is_alive }
            })
            .collect();
        let Some(verdict) = judge(&sightings, self.idle, directory) else {
            // Somebody is at work on what this rank waits for; look at them afresh.
            self.suspicion = None;
            return;
        };
        if verdict.speaker == mine || suspicion.late > LOOKS_FOR_THE_SPEAKER {
            (self.watched.say)(&verdict.failure);
            self.end_all(verdict.failure.exit());
        }
    }

    fn end_all(&self, exit: Exit) -> ! {
        if self.watched.communicator.ranks() == 1 {
            // What runs at an ordinary exit may wait for the thread that hangs.
            signals::exit_at_once(exit);
        }
        self.watched.communicator.abort(exit)
    }
}

/// How long a rank may be idle in what it does. One that waits for others is late as soon as a step
/// would be: whether they are at work is in their reports.
fn patience(limit: Duration, notes: &Notes) -> Duration {
    let is_stepping = !matches!(notes.phase, Phase::Starting | Phase::Evaluating | Phase::Saving);
    match notes.median_step() {
        Some(median) if is_stepping || notes.is_waiting() => limit.max(SLOW_STEP * median),
        None if notes.is_waiting() => FIRST_SUMS * limit,
        _ => SLOW_START * limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;
    use crate::runlog::flight::Operation;
    use crate::train::recorder::Recorded;
    use std::sync::Mutex;

    /// What the group of two says where rank 1 stops in its fourth step for ever, and rank 0 waits.
    #[test]
    fn a_rank_that_hangs_at_work_ends_all_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("flight")).unwrap();
        let said = Mutex::new(Vec::new());
        let (ended, end) = mpsc::channel::<()>();
        let (ended, end) = (Mutex::new(Some(ended)), Mutex::new(end));
        let outcomes = threads::run(2, |communicator| {
            let recorder = Arc::new(FlightRecorder::new());
            let (telling, told) = mpsc::channel();
            let watchdog = Watchdog::start(Watched {
                recorder: Arc::clone(&recorder),
                communicator: Arc::clone(&communicator),
                directory: RunDirectory::new(folder.path()),
                requests: StopRequests::default(),
                hang_limit: Some(Duration::from_millis(400)),
                say: Box::new(move |failure| telling.send(failure.to_string()).unwrap()),
            })?;
            let rank = communicator.rank();
            let recorded = Recorded::new(communicator, Arc::clone(&recorder));
            for step in 1..=3 {
                recorder.begin_step(step);
                recorder.enter(Phase::Step);
                recorded.barrier()?;
                recorder.end_step(Duration::from_millis(1));
            }
            recorder.begin_step(4);
            recorder.enter(Phase::Step);
            let outcome = if rank == 0 {
                let outcome = recorded.barrier();
                drop(ended.lock().unwrap().take());
                outcome
            } else {
                let _ = end.lock().unwrap().recv();
                Ok(())
            };
            drop(watchdog);
            said.lock().unwrap().extend(told.try_iter());
            outcome
        });
        let failure = outcomes.into_iter().next().unwrap().unwrap_err();
        assert_eq!(failure.exit(), Exit::Hung);
        let said = said.into_inner().unwrap();
        let [message] = &said[..] else { panic!("{said:?}") };
        assert!(message.starts_with("error: rank 1 hangs: it has been computing step 4 for"));
    }

    #[test]
    fn patience_follows_the_pace_of_the_steps_and_is_long_for_everything_else() {
        let recorder = FlightRecorder::new();
        let limit = Duration::from_secs(30);
        assert_eq!(patience(limit, &recorder.snapshot()), 20 * limit);
        let mut first = recorder.snapshot();
        first.begin(Operation::Broadcast, 0);
        assert_eq!(patience(limit, &first), 2 * limit);
        for _ in 0..3 {
            recorder.begin_step(1);
            recorder.end_step(Duration::from_secs(2));
        }
        assert_eq!(patience(limit, &recorder.snapshot()), Duration::from_secs(40));
        recorder.enter(Phase::Saving);
        assert_eq!(patience(limit, &recorder.snapshot()), 20 * limit);
        let mut notes = recorder.snapshot();
        notes.begin(Operation::Barrier, 0);
        assert_eq!(patience(limit, &notes), Duration::from_secs(40));
    }
}
