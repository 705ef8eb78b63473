//! Ending before the last step: who asked for it, when time runs out, and the ranks' vote.
//!
//! Requests come from other threads at any time and are only noted. Between two steps the ranks
//! agree, so that all of them stop after the same one. Saving and leaving are up to the trainer.

use crate::comm::environment::Variables;
use crate::comm::{Communicator, agree};
use crate::error::{Failure, Result};
use crate::signals::{Received, Requests, Signal};
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What leaving takes beside saving: ending MPI, ending processes, the launcher's own end.
const LEAVING: Duration = Duration::from_secs(10);

/// Why a run ends before its last step. Where ranks have different reasons, the later one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `control/stop` exists.
    Requested,
    /// The time that the run or its job may take is nearly over.
    TimeLimit,
    /// A process of the run got a signal.
    Signal(Signal),
}

impl Reason {
    /// As a number for the vote, above 0.
    fn ballot(self) -> i64 {
        match self {
            Self::Requested => 1,
            Self::TimeLimit => 2,
            Self::Signal(signal) => 3 + signal as i64,
        }
    }

    fn from_ballot(ballot: i64) -> Option<Self> {
        let signals = Signal::ALL.into_iter().map(Self::Signal);
        let mut reasons = [Self::Requested, Self::TimeLimit].into_iter().chain(signals);
        reasons.find(|reason| reason.ballot() == ballot)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("stopped on request"),
            Self::TimeLimit => f.write_str("stopped before the time limit"),
            Self::Signal(signal) => write!(f, "stopped by {}", signal.name()),
        }
    }
}

/// The vote of a rank on which something has failed beside the training.
const GIVE_UP: i64 = i64::MAX;

/// Where requests to stop are noted, from any thread.
#[derive(Debug, Clone, Default)]
pub struct StopRequests(Arc<Noted>);

#[derive(Debug, Default)]
struct Noted {
    ballot: AtomicI64,
    /// What has failed, until the ranks know it.
    failure: Mutex<Option<Failure>>,
}

impl StopRequests {
    /// Asks the run to stop after the step under way.
    pub fn ask(&self, reason: Reason) {
        self.0.ballot.fetch_max(reason.ballot(), Ordering::Relaxed);
    }

    /// Has the run fail on all ranks after the step under way, and save nothing more.
    pub fn give_up(&self, failure: Failure) {
        *self.0.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        self.0.ballot.fetch_max(GIVE_UP, Ordering::Release);
    }

    fn ballot(&self) -> i64 {
        self.0.ballot.load(Ordering::Acquire)
    }

    fn failure(&self) -> Result<()> {
        let failure = self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or(Ok(()), Err)
    }
}

/// What a signal to a rank means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Stop in good order.
    Stop,
    /// End at once: somebody insists, or `mpirun` clears away what another rank's end has left.
    EndAtOnce,
}

/// Tells what signals to this rank mean.
///
/// `mpirun` sends `SIGTERM` to the survivors of a rank that died, and to all ranks where it is told
/// to end itself, and a second or so later `SIGKILL`. Nothing can be saved then. It is the parent of
/// the ranks on its node, or its daemon is; a batch system's `SIGTERM` comes from elsewhere.
#[derive(Debug)]
pub struct Signals {
    /// The process that started this one, where that is `mpirun` or its daemon.
    launcher: Option<u32>,
    requests: Requests,
}

impl Signals {
    /// Of the process with this environment and this parent.
    pub fn new(variables: &Variables, parent: u32) -> Self {
        let by_mpirun = variables.contains_key("OMPI_COMM_WORLD_SIZE");
        Self { launcher: by_mpirun.then_some(parent), requests: Requests::default() }
    }

    /// What a signal that came at `now` means.
    pub fn meaning(&mut self, received: Received, now: Instant) -> Meaning {
        let from_launcher = self.launcher.is_some() && received.sender == self.launcher;
        let clears_away = received.signal == Signal::Terminate && from_launcher;
        if clears_away || self.requests.insists(now) { Meaning::EndAtOnce } else { Meaning::Stop }
    }
}

/// When a run has to be over: `limit` after `started`, or when its Slurm job ends, if that is sooner.
pub fn deadline(
    limit: Option<Duration>,
    started: Instant,
    variables: &Variables,
) -> Option<Instant> {
    let own = limit.and_then(|limit| started.checked_add(limit));
    let end = variables.get("SLURM_JOB_END_TIME").and_then(|text| text.parse().ok());
    let job = end.map(|seconds| {
        let left = (UNIX_EPOCH + Duration::from_secs(seconds)).duration_since(SystemTime::now());
        Instant::now() + left.unwrap_or_default()
    });
    own.into_iter().chain(job).min()
}

/// This rank's part in the vote, and how long it has to save.
#[derive(Debug)]
pub(super) struct Stopping {
    requests: StopRequests,
    deadline: Option<Instant>,
    /// When the ranks voted last.
    voted: Instant,
    /// The longest time between two votes: a step, with an evaluation or a save where they were due.
    longest_turn: Duration,
    longest_save: Duration,
}

impl Stopping {
    pub(super) fn new(requests: StopRequests, deadline: Option<Instant>) -> Self {
        Self {
            requests,
            deadline,
            voted: Instant::now(),
            longest_turn: Duration::ZERO,
            longest_save: Duration::ZERO,
        }
    }

    /// Where this rank notes requests.
    pub(super) fn requests(&self) -> &StopRequests {
        &self.requests
    }

    /// Takes note of how long a save took.
    pub(super) fn saved(&mut self, took: Duration) {
        self.longest_save = self.longest_save.max(took);
    }

    /// Whether all ranks stop here, and why; fails on all where one has given up. One number goes over
    /// the ranks.
    pub(super) fn vote(&mut self, communicator: &dyn Communicator) -> Result<Option<Reason>> {
        let now = Instant::now();
        self.longest_turn = self.longest_turn.max(now.duration_since(self.voted));
        self.voted = now;
        if self.is_late(now) {
            self.requests.ask(Reason::TimeLimit);
        }
        let ballot = communicator.max(self.requests.ballot())?;
        if ballot == GIVE_UP {
            agree(communicator, self.requests.failure())?;
        }
        Ok(Reason::from_ballot(ballot))
    }

    /// Whether another turn and then a save, both twice as long as ever, would come too late.
    fn is_late(&self, now: Instant) -> bool {
        let margin = 2 * (self.longest_turn + self.longest_save) + LEAVING;
        self.deadline.is_some_and(|deadline| now + margin >= deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::{Solo, threads};

    #[test]
    fn every_reason_survives_the_vote() {
        let signals = Signal::ALL.map(Reason::Signal);
        for reason in [Reason::Requested, Reason::TimeLimit].into_iter().chain(signals) {
            assert_eq!(Reason::from_ballot(reason.ballot()), Some(reason));
        }
        assert_eq!(Reason::from_ballot(0), None);
    }

    #[test]
    fn the_request_of_one_rank_is_everybodys() {
        let reasons = threads::run(3, |communicator| {
            let requests = StopRequests::default();
            let mut stopping = Stopping::new(requests.clone(), None);
            assert_eq!(stopping.vote(&*communicator)?, None);
            match communicator.rank() {
                0 => requests.ask(Reason::Requested),
                1 => requests.ask(Reason::Signal(Signal::User1)),
                _ => {}
            }
            stopping.vote(&*communicator)
        });
        for reason in reasons {
            assert_eq!(reason.unwrap(), Some(Reason::Signal(Signal::User1)));
        }
    }

    #[test]
    fn what_failed_beside_the_training_of_one_rank_fails_on_all() {
        let outcomes = threads::run(3, |communicator| {
            let requests = StopRequests::default();
            requests.ask(Reason::Requested);
            if communicator.rank() == 1 {
                requests.give_up(Failure::new("the run directory is gone"));
            }
            Stopping::new(requests, None).vote(&*communicator).map(drop)
        });
        let failures: Vec<Failure> = outcomes.into_iter().map(Result::unwrap_err).collect();
        let told_elsewhere: Vec<bool> = failures.iter().map(Failure::is_told_elsewhere).collect();
        assert_eq!(told_elsewhere, [true, false, true]);
        assert_eq!(failures[0].message(), "rank 1 failed: the run directory is gone");
    }

    #[test]
    fn time_runs_out_two_turns_and_two_saves_before_the_deadline() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut stopping = Stopping::new(StopRequests::default(), Some(after(100)));
        stopping.longest_turn = Duration::from_secs(5);
        stopping.saved(Duration::from_secs(15));
        stopping.saved(Duration::from_secs(1));
        assert!(!stopping.is_late(after(49)));
        assert!(stopping.is_late(after(50)));
        let mut late = Stopping::new(StopRequests::default(), Some(start));
        assert_eq!(late.vote(&Solo).unwrap(), Some(Reason::TimeLimit));
    }

    #[test]
    fn the_sooner_of_both_limits_counts() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        let ends_at = SystemTime::now() + seconds(1000);
        let ends_at = ends_at.duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
        let job = Variables::from([("SLURM_JOB_END_TIME".to_owned(), ends_at)]);
        let left = |limit: Option<Duration>, variables: &Variables| {
            deadline(limit, now, variables).map(|end| end - now)
        };
        assert_eq!(left(None, &Variables::new()), None);
        assert_eq!(left(Some(seconds(7)), &job), Some(seconds(7)));
        let until_end = left(Some(seconds(2000)), &job).unwrap();
        assert!((seconds(990)..seconds(1001)).contains(&until_end), "{until_end:?}");
    }

    #[test]
    fn mpirun_clearing_away_is_not_a_request_to_stop() {
        let mpirun = Variables::from([("OMPI_COMM_WORLD_SIZE".to_owned(), "2".to_owned())]);
        let meaning = |variables, signal, sender| {
            let received = Received { signal, sender };
            Signals::new(variables, 40).meaning(received, Instant::now())
        };
        assert_eq!(meaning(&mpirun, Signal::Terminate, Some(40)), Meaning::EndAtOnce);
        assert_eq!(meaning(&mpirun, Signal::Terminate, Some(41)), Meaning::Stop);
        assert_eq!(meaning(&mpirun, Signal::User1, Some(40)), Meaning::Stop);
        // srun's SIGTERM comes from the parent as well.
        let srun = Variables::new();
        assert_eq!(meaning(&srun, Signal::Terminate, Some(40)), Meaning::Stop);
        assert_eq!(meaning(&mpirun, Signal::Terminate, None), Meaning::Stop);
    }

    #[test]
    fn whoever_insists_gets_an_end_at_once() {
        let mut signals = Signals::new(&Variables::new(), 40);
        let now = Instant::now();
        let received = Received { signal: Signal::Interrupt, sender: None };
        assert_eq!(signals.meaning(received, now), Meaning::Stop);
        assert_eq!(signals.meaning(received, now + Duration::from_secs(3)), Meaning::EndAtOnce);
    }
}
