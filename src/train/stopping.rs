//! Ending before the last step: who asked for it, when time runs out, and the ranks' vote.
//!
//! Requests come from other threads at any time and are only noted. Between two steps the ranks
//! agree, so that all of them stop after the same one. Saving and leaving are up to the trainer.

use crate::comm::{Communicator, agree};
use crate::error::{Exit, Failure, Result};
use crate::launchers::{self, Variables};
use crate::signals::{Received, Requests, Signal};
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What leaving takes beside saving: ending MPI, ending processes, the launcher's own end.
const LEAVING: Duration = Duration::from_secs(10);

/// What the first save of a process is taken to last, before it is known.
const FIRST_SAVE: Duration = Duration::from_secs(30);

/// Why a run ends before its last step. Where there are several reasons, the last of this list counts:
/// what a person wants is not forgotten over what a machine wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The time that the run or its job may take is nearly over.
    TimeLimit(Limit),
    /// A process of the run got `SIGTERM`, and the batch system says that it needs the place of the job.
    Preempted,
    /// A process of the run got a signal.
    Signal(Signal),
    /// `control/stop` exists.
    Requested,
}

impl Reason {
    /// All of them, in their order.
    fn all() -> impl Iterator<Item = Self> {
        let machine = Limit::ALL.into_iter().map(Self::TimeLimit).chain([Self::Preempted]);
        machine.chain(Signal::ALL.into_iter().map(Self::Signal)).chain([Self::Requested])
    }

    /// As a number for the vote, above 0.
    fn ballot(self) -> i64 {
        Self::all().position(|reason| reason == self).map_or(0, |index| index as i64 + 1)
    }

    fn from_ballot(ballot: i64) -> Option<Self> {
        Self::all().find(|reason| reason.ballot() == ballot)
    }

    /// How a run ends that stops for it: whether it is to go on by itself or somebody wanted an end.
    pub fn exit(self) -> Exit {
        match self {
            Self::TimeLimit(_) | Self::Preempted => Exit::Stopped,
            Self::Signal(signal) => signal.exit(),
            Self::Requested => Exit::Cancelled,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimeLimit(limit) => write!(f, "stopped before the time limit ({limit})"),
            Self::Preempted => {
                f.write_str("stopped by SIGTERM, as Slurm needs the place of the job")
            }
            Self::Signal(signal) => write!(f, "stopped by {}", signal.name()),
            Self::Requested => f.write_str("stopped on request"),
        }
    }
}

/// The vote of a rank on which something has failed beside the training.
const GIVE_UP: i64 = i64::MAX;

/// Who says how long a run may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The configuration, for this process.
    Own,
    /// `scrimp launch`, for all that it starts.
    Launch,
    /// Slurm, for the job.
    Job,
}

impl Limit {
    const ALL: [Self; 3] = [Self::Own, Self::Launch, Self::Job];
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "`train.time_limit`",
            Self::Launch => "`--deadline`, which `scrimp launch` sets",
            Self::Job => "the end of the job, as Slurm says it",
        })
    }
}

/// When a run has to be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// The moment.
    pub at: Instant,
    /// Who says so.
    pub limit: Limit,
}

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
/// the ranks on its node, or its daemon is; a batch system's `SIGTERM` comes from elsewhere. What `mpirun`
/// passes on after that is the same request again, on another way.
#[derive(Debug)]
pub struct Signals {
    /// The process that started this one, where that is `mpirun` or its daemon.
    launcher: Option<u32>,
    /// Those of this process's own.
    requests: Requests,
    /// Those that `mpirun` passed on.
    passed_on: Requests,
}

impl Signals {
    /// Of the process with this environment and this parent.
    pub fn new(variables: &Variables, parent: u32) -> Self {
        let launcher = launchers::is_by_mpirun(variables).then_some(parent);
        Self { launcher, requests: Requests::default(), passed_on: Requests::default() }
    }

    /// The number of `mpirun` or its daemon, where that has started this process.
    pub fn launcher(&self) -> Option<u32> {
        self.launcher
    }

    /// What a signal that came at `now` means.
    pub fn meaning(&mut self, received: Received, now: Instant) -> Meaning {
        let from_launcher = self.launcher.is_some() && received.sender == self.launcher;
        let clears_away = received.signal == Signal::Terminate && from_launcher;
        let requests = if from_launcher { &mut self.passed_on } else { &mut self.requests };
        if clears_away || requests.insists(now) { Meaning::EndAtOnce } else { Meaning::Stop }
    }
}

/// Everything that limits the time of a run.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// When this process began.
    pub started: Instant,
    /// How long it may take.
    pub own: Option<Duration>,
    /// When it has to be over, seconds since 1970 (UTC), as `scrimp launch` says.
    pub launch: Option<u64>,
    /// When the job ends, as the batch system says.
    pub job: Option<SystemTime>,
}

impl Limits {
    /// The soonest of the limits.
    pub fn deadline(&self) -> Option<Deadline> {
        let own = self.own.and_then(|limit| self.started.checked_add(limit));
        let launch = self.launch.and_then(|end| UNIX_EPOCH.checked_add(Duration::from_secs(end)));
        let now = SystemTime::now();
        let [launch, job] = [launch, self.job].map(|end| instant(end?, now));
        let limits = [(own, Limit::Own), (launch, Limit::Launch), (job, Limit::Job)];
        let deadlines =
            limits.into_iter().filter_map(|(at, limit)| Some(Deadline { at: at?, limit }));
        deadlines.min_by_key(|deadline| deadline.at)
    }
}

/// The moment at this time of the clock; none where it is too far away to be counted.
fn instant(end: SystemTime, now: SystemTime) -> Option<Instant> {
    Instant::now().checked_add(end.duration_since(now).unwrap_or_default())
}

/// This rank's part in the vote, and how long it has to save.
#[derive(Debug)]
pub(super) struct Stopping {
    requests: StopRequests,
    deadline: Option<Deadline>,
    /// When the ranks voted last.
    voted: Instant,
    /// The longest time between two votes: a step, with an evaluation or a save where they were due.
    longest_turn: Duration,
    /// What a save takes: the longest so far, and a guess before the first.
    longest_save: Duration,
    has_saved: bool,
}

impl Stopping {
    pub(super) fn new(requests: StopRequests, deadline: Option<Deadline>) -> Self {
        let now = Instant::now();
        // Where there is little time at all, a guess must not take all of it.
        let left = deadline.map(|deadline| deadline.at.saturating_duration_since(now));
        Self {
            requests,
            deadline,
            voted: now,
            longest_turn: Duration::ZERO,
            longest_save: left.map_or(FIRST_SAVE, |left| FIRST_SAVE.min(left / 10)),
            has_saved: false,
        }
    }

    /// Where this rank notes requests.
    pub(super) fn requests(&self) -> &StopRequests {
        &self.requests
    }

    /// Takes note of how long a save took.
    pub(super) fn saved(&mut self, took: Duration) {
        let known = if self.has_saved { self.longest_save } else { Duration::ZERO };
        self.longest_save = known.max(took);
        self.has_saved = true;
    }

    /// Whether all ranks stop here, and why; fails on all where one has given up. One number goes over
    /// the ranks.
    pub(super) fn vote(&mut self, communicator: &dyn Communicator) -> Result<Option<Reason>> {
        let now = Instant::now();
        self.longest_turn = self.longest_turn.max(now.duration_since(self.voted));
        self.voted = now;
        if let Some(limit) = self.is_late(now) {
            self.requests.ask(Reason::TimeLimit(limit));
        }
        let ballot = communicator.max(self.requests.ballot())?;
        if ballot == GIVE_UP {
            agree(communicator, self.requests.failure())?;
        }
        Ok(Reason::from_ballot(ballot))
    }

    /// The limit for which another turn and then a save, both twice as long as ever, would come too late.
    fn is_late(&self, now: Instant) -> Option<Limit> {
        let margin = 2 * (self.longest_turn + self.longest_save) + LEAVING;
        self.deadline.filter(|deadline| now + margin >= deadline.at).map(|deadline| deadline.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::{Solo, threads};

    #[test]
    fn every_reason_survives_the_vote() {
        for reason in Reason::all() {
            assert_eq!(Reason::from_ballot(reason.ballot()), Some(reason));
            assert!(reason.ballot() <= Reason::Requested.ballot());
        }
        assert_eq!(Reason::from_ballot(0), None);
    }

    #[test]
    fn only_time_and_what_announces_it_let_a_run_go_on_by_itself() {
        let goes_on = |reason: Reason| match reason.exit() {
            Exit::Stopped => true,
            Exit::Cancelled => false,
            other => panic!("{reason}: {other:?}"),
        };
        let going: Vec<String> = Reason::all()
            .filter(|reason| goes_on(*reason))
            .map(|reason| reason.to_string())
            .collect();
        let expected = [
            "stopped before the time limit (`train.time_limit`)",
            "stopped before the time limit (`--deadline`, which `scrimp launch` sets)",
            "stopped before the time limit (the end of the job, as Slurm says it)",
            "stopped by SIGTERM, as Slurm needs the place of the job",
            "stopped by SIGUSR1",
            "stopped by SIGUSR2",
        ];
        assert_eq!(going, expected);
    }

    #[test]
    fn the_request_of_one_rank_is_everybodys() {
        let reasons = threads::run(3, |communicator| {
            let requests = StopRequests::default();
            let mut stopping = Stopping::new(requests.clone(), None);
            assert_eq!(stopping.vote(&*communicator)?, None);
            match communicator.rank() {
                0 => requests.ask(Reason::Signal(Signal::User1)),
                1 => requests.ask(Reason::Requested),
                _ => {}
            }
            stopping.vote(&*communicator)
        });
        for reason in reasons {
            // Whatever the batch system wants, that a person wanted it is remembered.
            assert_eq!(reason.unwrap(), Some(Reason::Requested));
        }
    }

    /// One that has to be over at this moment.
    fn until(at: Instant) -> Stopping {
        let deadline = Deadline { at, limit: Limit::Own };
        Stopping::new(StopRequests::default(), Some(deadline))
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
        let mut stopping = until(after(100));
        stopping.longest_turn = Duration::from_secs(5);
        stopping.saved(Duration::from_secs(15));
        stopping.saved(Duration::from_secs(1));
        assert_eq!(stopping.is_late(after(49)), None);
        assert_eq!(stopping.is_late(after(50)), Some(Limit::Own));
        let mut late = until(start);
        assert_eq!(late.vote(&Solo).unwrap(), Some(Reason::TimeLimit(Limit::Own)));
    }

    #[test]
    fn time_is_left_for_a_save_before_any_was_seen() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let stopping = until(after(3600));
        // Twice the guess, and what leaving takes.
        assert_eq!(stopping.is_late(after(3600 - 71)), None);
        assert!(stopping.is_late(after(3600 - 69)).is_some());
        let mut short = until(after(50));
        assert_eq!(short.is_late(after(29)), None);
        assert!(short.is_late(after(31)).is_some());
        short.saved(Duration::from_secs(1));
        assert_eq!(short.is_late(after(37)), None);
    }

    #[test]
    fn the_soonest_of_all_limits_counts() {
        let (started, now) = (Instant::now(), SystemTime::now());
        let in_seconds = |seconds| now + Duration::from_secs(seconds);
        let launch = |seconds| in_seconds(seconds).duration_since(UNIX_EPOCH).unwrap().as_secs();
        let left = |own: Option<u64>, launch: Option<u64>, job: Option<u64>| {
            let own = own.map(Duration::from_secs);
            let limits = Limits { started, own, launch, job: job.map(in_seconds) };
            let deadline = limits.deadline()?;
            Some(((deadline.at - started).as_secs_f64().round() as u64, deadline.limit))
        };
        assert_eq!(left(None, None, None), None);
        assert_eq!(left(Some(7), None, Some(1000)), Some((7, Limit::Own)));
        assert_eq!(left(Some(2000), None, Some(1000)), Some((1000, Limit::Job)));
        let (seconds, limit) = left(Some(900), Some(launch(500)), Some(1000)).unwrap();
        assert!((499..=500).contains(&seconds) && limit == Limit::Launch, "{seconds}");
        assert_eq!(left(Some(7), Some(u64::MAX), None), Some((7, Limit::Own)));
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
    fn a_batch_system_and_mpirun_that_say_the_same_do_not_insist() {
        let mpirun = Variables::from([("OMPI_COMM_WORLD_SIZE".to_owned(), "2".to_owned())]);
        let mut signals = Signals::new(&mpirun, 40);
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let own = Received { signal: Signal::Terminate, sender: Some(7) };
        let passed_on = Received { signal: Signal::User1, sender: Some(40) };
        assert_eq!(signals.meaning(own, now), Meaning::Stop);
        assert_eq!(signals.meaning(passed_on, after(3)), Meaning::Stop);
        assert_eq!(signals.meaning(passed_on, after(6)), Meaning::EndAtOnce);
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
