//! The thread of each rank that looks on: it writes the flight recorder's report, sees requests to
//! stop, and ends all ranks with one message when one of them no longer gets on.
//!
//! While all is well a rank writes its own report and reads none; what it reads when it has waited for
//! long is up to `judges`. It counts the time between its own looks and compares no clocks, so that neither a job that was
//! suspended as a whole nor hosts with different clocks look like a hang.

use super::judges::{Judges, Role};
use super::links::Links;
use super::recorder::{FlightRecorder, Notes};
use super::stopping::{Reason, StopRequests};
use crate::comm::Communicator;
use crate::error::{Context, Exit, Failure, Result};
use crate::runlog::directory::{RunDirectory, host};
use crate::runlog::flight::{FlightReport, Phase, Sighting, Verdict, judge};
use crate::runlog::now_ms;
use crate::signals;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two looks, where the limit is not shorter.
const LOOK: Duration = Duration::from_secs(1);
/// Of this many ranks one report is written each second.
const RANKS_A_SECOND: u32 = 100;
/// Fewest looks between a suspicion and a verdict.
const LOOKS_TO_BE_SURE: u32 = 3;
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
    reports: Reports,
    host: String,
    links: Links,
    looked: Instant,
    looks: u32,
    beat: u64,
    moves: u64,
    idle: Duration,
    /// While this rank has stood still for long.
    suspicion: Option<Suspicion>,
    cannot_write: bool,
}

/// Where reports are.
struct Reports {
    /// The last report of a rank, if it has left one.
    read: Box<ReadReport>,
    /// Puts a report in the place of the one before.
    write: Box<WriteReport>,
}

type ReadReport = dyn Fn(usize) -> Option<FlightReport> + Send;
type WriteReport = dyn Fn(&FlightReport) -> Result<()> + Send;

/// What a rank that has stood still for long knows of the others.
struct Suspicion {
    judges: Judges,
    /// Looks since the beats below were read.
    looks: u32,
    /// The report of each rank at that time; a rank that has no other one is not alive.
    beats: Vec<Option<u64>>,
}

impl Watch {
    fn new(watched: Watched) -> Self {
        let (from, to) = (watched.directory.clone(), watched.directory.clone());
        let reports = Reports {
            read: Box::new(move |rank| FlightReport::read(&from, rank)),
            write: Box::new(move |report| report.write(&to)),
        };
        Self {
            watched,
            reports,
            host: host(),
            links: Links::of_this_host(),
            looked: Instant::now(),
            looks: 0,
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

    /// How many looks pass between two reports of this rank: the file system has a bounded number to
    /// write, as long as hanging is noticed in time.
    fn looks_between_reports(&self) -> u32 {
        let ranks = self.watched.communicator.ranks() as u32;
        let most = self.watched.hang_limit.map_or(LOOK * 30, |limit| limit / 4);
        let pause = (LOOK * ranks / RANKS_A_SECOND).min(most);
        pause.div_duration_f64(self.time_between_looks()).max(1.0) as u32
    }

    fn look(&mut self) {
        let notes = self.watched.recorder.snapshot();
        let passed = self.looked.elapsed();
        self.looked = Instant::now();
        if let Some(verdict) = self.take_look(&notes, passed) {
            (self.watched.say)(&verdict.failure);
            self.end_all(verdict.failure.exit());
        }
    }

    /// Looks on after `passed`, and says who holds up the others where somebody does.
    fn take_look(&mut self, notes: &Notes, passed: Duration) -> Option<Verdict> {
        // Where the whole process was suspended, most of the time has passed for nobody.
        let passed = passed.min(2 * self.time_between_looks());
        self.idle = if notes.moves == self.moves { self.idle + passed } else { Duration::ZERO };
        self.moves = notes.moves;
        let patience = self.watched.hang_limit.map(|limit| patience(limit, notes));
        let rank = self.watched.communicator.rank() as u32;
        if self.looks == 0 || (self.looks + rank).is_multiple_of(self.looks_between_reports()) {
            self.report(notes, patience);
        }
        self.looks = self.looks.wrapping_add(1);
        let directory = &self.watched.directory;
        if rank == 0 && directory.requested(&directory.stop_request()).is_some() {
            self.watched.requests.ask(Reason::Requested);
        }
        match patience {
            // From half the time on, it is seen whose reports still come.
            Some(patience) if 2 * self.idle > patience => self.suspect(patience),
            _ => {
                self.suspicion = None;
                None
            }
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
            lost_links: if self.idle.is_zero() { Vec::new() } else { self.links.lost() },
        };
        let written = (self.reports.write)(&report);
        if let Err(failure) = &written
            && !self.cannot_write
        {
            // Once for each time that it begins to fail: a full disk would otherwise say so every second.
            tracing::warn!("{}", failure.sentence());
        }
        self.cannot_write = written.is_err();
    }

    /// Sees to it that somebody compares the reports of all ranks over some looks.
    fn suspect(&mut self, patience: Duration) -> Option<Verdict> {
        let communicator = &self.watched.communicator;
        let (mine, ranks) = (communicator.rank(), communicator.ranks());
        // A rank that answers has written twice in this time.
        let sure = LOOKS_TO_BE_SURE.max(2 * self.looks_between_reports());
        let suspicion = self.suspicion.get_or_insert_with(|| Suspicion {
            judges: Judges::new(mine, ranks),
            looks: 0,
            beats: Vec::new(),
        });
        if let Role::Follows(rank) = suspicion.judges.role() {
            suspicion.judges.followed((self.reports.read)(rank).as_ref(), sure);
            suspicion.beats.clear();
            return None;
        }
        suspicion.judges.judged();
        let beat = |report: &Option<FlightReport>| report.as_ref().map(|report| report.beat);
        if suspicion.beats.is_empty() {
            suspicion.looks = 0;
            suspicion.beats = (0..ranks).map(|rank| beat(&(self.reports.read)(rank))).collect();
            return None;
        }
        suspicion.looks += 1;
        if suspicion.looks < sure || self.idle <= patience {
            return None;
        }
        // Whoever is at work on what this rank waits for is looked at afresh the next time.
        let beats = std::mem::take(&mut suspicion.beats);
        let sighting = |(rank, before): (usize, Option<u64>)| {
            let report = (self.reports.read)(rank);
            let now = beat(&report);
            Sighting { is_alive: rank == mine || (now.is_some() && now != before), report }
        };
        let sightings: Vec<Sighting> = beats.into_iter().enumerate().map(sighting).collect();
        judge(&sightings, self.idle, &self.watched.directory)
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
    use std::sync::atomic::{AtomicUsize, Ordering};

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
                communicator: Arc::clone(communicator.control()),
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

    /// A rank of a group that is only watched.
    struct Rank {
        rank: usize,
        ranks: usize,
    }

    impl Communicator for Rank {
        fn rank(&self) -> usize {
            self.rank
        }
        fn ranks(&self) -> usize {
            self.ranks
        }
        fn barrier(&self) -> Result<()> {
            Ok(())
        }
        fn max(&self, value: i64) -> Result<i64> {
            Ok(value)
        }
        fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
            Ok(vec![message.to_vec()])
        }
        fn abort(&self, exit: Exit) -> ! {
            panic!("ended with {exit:?}")
        }
    }

    /// Ranks of which all but the last wait in the same call of their fourth step, looked at from
    /// outside: each look takes a second for nobody but them.
    struct Group {
        watches: Vec<(Watch, Notes)>,
        reports: Arc<Mutex<Vec<Option<FlightReport>>>>,
        reads: Arc<AtomicUsize>,
    }

    impl Group {
        fn new(ranks: usize) -> Self {
            let reports = Arc::new(Mutex::new(vec![None; ranks]));
            let reads = Arc::new(AtomicUsize::new(0));
            let watch = |rank| {
                let recorder = Arc::new(FlightRecorder::new());
                for step in 1..=4 {
                    recorder.begin_step(step);
                    recorder.enter(if rank + 1 == ranks { Phase::Evaluating } else { Phase::Step });
                    recorder.end_step(Duration::from_millis(1));
                }
                let mut notes = recorder.snapshot();
                if rank + 1 < ranks {
                    notes.begin(Operation::Barrier, 0);
                }
                let mut watch = Watch::new(Watched {
                    recorder,
                    communicator: Arc::new(Rank { rank, ranks }),
                    directory: RunDirectory::new("/nowhere"),
                    requests: StopRequests::default(),
                    hang_limit: Some(Duration::from_secs(30)),
                    say: Box::new(|_failure| {}),
                });
                let (counted, from, to) =
                    (Arc::clone(&reads), Arc::clone(&reports), Arc::clone(&reports));
                watch.reports = Reports {
                    read: Box::new(move |rank| {
                        counted.fetch_add(1, Ordering::Relaxed);
                        from.lock().unwrap()[rank].clone()
                    }),
                    write: Box::new(move |report| {
                        to.lock().unwrap()[report.rank as usize] = Some(report.clone());
                        Ok(())
                    }),
                };
                (watch, notes)
            };
            let watches = (0..ranks).map(watch).collect();
            Self { watches, reports, reads }
        }

        /// One look of all ranks that are not `lost`: how many reports were read, and what was found.
        fn look(&mut self, lost: &[usize]) -> (usize, Vec<(usize, Verdict)>) {
            let ranks = self.watches.iter_mut().enumerate();
            let found =
                ranks.filter(|(rank, _)| !lost.contains(rank)).filter_map(|(rank, watch)| {
                    let (watch, notes) = watch;
                    Some((rank, watch.take_look(notes, Duration::from_secs(1))?))
                });
            let found = found.collect();
            (self.reads.swap(0, Ordering::Relaxed), found)
        }
    }

    /// All wait for one that evaluates for minutes: nothing is wrong, and nobody reads much.
    #[test]
    fn the_reports_that_are_read_grow_with_the_ranks_and_not_with_their_square() {
        for ranks in [2, 16, 256] {
            let mut group = Group::new(ranks);
            let mut most = 0;
            for look in 0..150 {
                let (reads, found) = group.look(&[]);
                assert!(found.is_empty());
                assert!(look > 14 || reads == 0, "{reads} in look {look}");
                most = most.max(reads);
            }
            assert!(most >= ranks && most <= 3 * ranks, "{most} of {ranks}");
        }
    }

    /// Whoever is lost, the first judges with it: one rank says so, within a minute.
    #[test]
    fn a_lost_rank_is_found_by_one_other_in_time() {
        for lost in [&[5][..], &[0], &[0, 32, 16], &[0, 1, 2, 3, 4, 5, 6, 7]] {
            let mut group = Group::new(64);
            // Each has reported once when they are lost.
            group.look(&[]);
            let found = (1..90).find_map(|look| {
                let (reads, found) = group.look(lost);
                assert!(reads <= 3 * 64, "{reads} reads");
                (!found.is_empty()).then_some((look, found))
            });
            let (look, found) = found.expect("nobody finds it");
            assert!(found.len() == 1, "{} say so", found.len());
            let (judge, Verdict { behind, failure }) = &found[0];
            assert!(lost.contains(behind) && !lost.contains(judge));
            assert_eq!(failure.exit(), Exit::Hung);
            assert!(look <= 30 + 4 * lost.len().min(4), "after {look} looks");
        }
    }

    /// A thousand ranks write about a hundred reports a second, and each often enough to be seen alive.
    #[test]
    fn many_ranks_write_seldom() {
        let mut group = Group::new(300);
        group.look(&[]);
        let beats = |group: &Group| -> Vec<u64> {
            group
                .reports
                .lock()
                .unwrap()
                .iter()
                .map(|report| report.as_ref().unwrap().beat)
                .collect()
        };
        for _ in 0..3 {
            let before = beats(&group);
            group.look(&[]);
            let now = beats(&group);
            assert_eq!(before.iter().zip(&now).filter(|(then, now)| then != now).count(), 100);
        }
        assert!(beats(&group).iter().all(|&beat| beat >= 2));
        assert_eq!(Group::new(1).watches[0].0.looks_between_reports(), 1);
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
