//! The flight recorder's reports: what each rank did last, in `RUN/flight/rank-NNNN.json`.
//!
//! Every rank replaces its own report once a second, or every few seconds where there are hundreds. From the reports of all ranks follows
//! who holds up the others. Nothing here compares clocks of two hosts, or knows what a call moves.

use super::directory::{RunDirectory, plain_name};
use crate::error::{Context, Exit, Failure, Result};
use crate::files;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// What Open MPI needs where a rank may not read the memory of its neighbour, as in rootless containers: its
/// larger messages never arrive otherwise.
const IN_CONTAINERS: &str = "export OMPI_MCA_btl_vader_single_copy_mechanism=none";
/// The longest exit code with its line end, in bytes.
const LONGEST_CODE: u64 = 4;
/// Ranks that a verdict lists one by one.
const LISTED: usize = 8;

/// What a rank is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Reading data, building networks, joining the others.
    Starting,
    /// The next batch is not there yet.
    WaitingForData,
    /// Forward, backward, update.
    Step,
    /// Fetching numbers and writing the run log.
    Logging,
    /// Asking the others whether to go on.
    Agreeing,
    /// Scoring held-out cases.
    Evaluating,
    /// Writing or reading a checkpoint.
    Saving,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::WaitingForData => "waiting for data",
            Self::Step => "computing",
            Self::Logging => "logging",
            Self::Agreeing => "agreeing",
            Self::Evaluating => "evaluating",
            Self::Saving => "saving",
        })
    }
}

/// What ranks do together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// A tensor is summed over ranks.
    Sum,
    /// A tensor of one rank is copied to all.
    Broadcast,
    /// All wait for each other.
    Barrier,
    /// The largest of one number per rank.
    Max,
    /// A message of each rank goes to all.
    Gather,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sum => "sum",
            Self::Broadcast => "broadcast",
            Self::Barrier => "barrier",
            Self::Max => "max",
            Self::Gather => "gather",
        })
    }
}

/// One collective call of a rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Counts the calls of the process from 1; all ranks make the same calls in the same order.
    pub sequence: u64,
    /// What was called.
    pub operation: Operation,
    /// What this rank brought to it.
    pub bytes: u64,
    /// What it was called for.
    pub phase: Phase,
    /// The step under way, counted from 1; 0 before the first.
    pub step: u64,
    /// Wall clock at its start, milliseconds since 1970 (UTC).
    pub start_ms: u64,
    /// Wall clock at its end; none while it lasts.
    pub end_ms: Option<u64>,
}

/// What one rank says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlightReport {
    /// Who says it, counted from 0.
    pub rank: u32,
    /// The host of the process.
    pub host: String,
    /// The number of the process on that host.
    pub pid: u32,
    /// Wall clock of the report, milliseconds since 1970 (UTC).
    pub time_ms: u64,
    /// Counts the reports of the process.
    pub beat: u64,
    /// What it is busy with.
    pub phase: Phase,
    /// The step under way, counted from 1; 0 before the first.
    pub step: u64,
    /// How many collective calls it has begun.
    pub sequence: u64,
    /// How long nothing has begun or ended.
    pub idle_seconds: f64,
    /// How long that may last; none: for ever.
    pub patience_seconds: Option<f64>,
    /// The last collective calls, the newest last.
    pub calls: Vec<Call>,
    /// Network interfaces of its host that have lost their link since the process began, looked for while it is idle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost_links: Vec<String>,
}

impl FlightReport {
    /// Replaces this rank's report: readers see the old one or the new one, never half of one.
    pub fn write(&self, directory: &RunDirectory) -> Result<()> {
        let path = directory.flight(self.rank as usize);
        let doing = || format!("cannot write `{}`", path.display());
        let text = serde_json::to_vec(self).context(doing)?;
        files::replace(&path, &text).context(doing)
    }

    /// The last report of a rank, if it has left one.
    pub fn read(directory: &RunDirectory, rank: usize) -> Option<Self> {
        let text = files::read_at_most(&directory.flight(rank), files::SMALL_BYTES).ok()?;
        let report: Self = serde_json::from_slice(&text).ok()?;
        let lost_links = report.lost_links.iter().map(|name| plain_name(name)).collect();
        Some(Self { host: plain_name(&report.host), lost_links, ..report })
    }

    /// The collective call that it is in.
    pub fn open_call(&self) -> Option<&Call> {
        self.calls.last().filter(|call| call.end_ms.is_none())
    }

    /// Whether it has been idle for more than half as long as it may: it looks for who holds it up.
    pub fn is_waiting_long(&self) -> bool {
        self.patience_seconds.is_some_and(|patience| 2.0 * self.idle_seconds > patience)
    }

    /// Whether it has been idle for longer than it may.
    fn is_overdue(&self) -> bool {
        self.patience_seconds.is_some_and(|patience| self.idle_seconds > patience)
    }

    /// `evaluating after step 12`, `computing step 12, in sum 345 of 7300 bytes`.
    fn activity(&self) -> String {
        let step = match (self.phase, self.step) {
            (_, 0) => String::new(),
            (Phase::Step, step) => format!(" step {step}"),
            (_, step) => format!(" at step {step}"),
        };
        let call = self.open_call().map(|call| {
            format!(", in {} {} of {} bytes", call.operation, call.sequence, call.bytes)
        });
        format!("{}{step}{}", self.phase, call.unwrap_or_default())
    }
}

/// Leaves how the run has ended. `mpirun` tells it too, but waits for ever for a host that no longer answers.
pub fn leave_exit(directory: &RunDirectory, exit: Exit) -> Result<()> {
    let path = directory.exit_code();
    files::replace(&path, format!("{}\n", exit as i32).as_bytes())
        .context(|| format!("cannot write `{}`", path.display()))
}

/// How the run has ended, where it has left that.
pub fn left_exit(directory: &RunDirectory) -> Option<Exit> {
    let text = files::read_text(&directory.exit_code(), LONGEST_CODE).ok()?;
    text.trim().parse().ok().map(Exit::of_code)
}

/// A rank as the watchdog of another one sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    /// Its last report.
    pub report: Option<FlightReport>,
    /// Whether its reports keep coming.
    pub is_alive: bool,
}

impl Sighting {
    /// Whether it is in a call, on a host that has lost a link since.
    fn is_cut_off(&self) -> bool {
        let is_cut_off =
            |report: &FlightReport| report.open_call().is_some() && !report.lost_links.is_empty();
        self.is_alive && self.report.as_ref().is_some_and(is_cut_off)
    }
}

/// Who holds up the others.
#[derive(Debug)]
pub struct Verdict {
    /// The rank that is behind.
    pub behind: usize,
    /// What there is to say.
    pub failure: Failure,
}

/// Finds the rank that others have waited for `waited` long: one whose reports no longer come, else
/// the one with the fewest calls; where all of them wait, one whose host has lost a link. `None` while that one is at
/// work and within its time.
pub fn judge(
    sightings: &[Sighting],
    waited: Duration,
    directory: &RunDirectory,
) -> Option<Verdict> {
    let order = |rank: &usize| {
        let Sighting { report, is_alive } = &sightings[*rank];
        let calls = report.as_ref().map_or(0, |report| report.sequence);
        let is_waiting = report.as_ref().is_some_and(|report| report.open_call().is_some());
        (*is_alive, calls, is_waiting)
    };
    let behind = (0..sightings.len()).min_by_key(order)?;
    let Sighting { report, is_alive } = &sightings[behind];
    if *is_alive && !report.as_ref().is_some_and(FlightReport::is_overdue) {
        return None;
    }
    let is_waiting = report.as_ref().is_some_and(|report| report.open_call().is_some());
    let behind = if *is_alive && is_waiting {
        sightings.iter().position(Sighting::is_cut_off).unwrap_or(behind)
    } else {
        behind
    };
    let Sighting { report, is_alive } = &sightings[behind];
    let message = accusation(behind, &sightings[behind], waited);
    let folder = directory.flights();
    let failure = Failure::new(message)
        .exit_with(Exit::Hung)
        .at(listing(sightings, behind))
        .hint(format!("the last calls of every rank are in `{}`", folder.display()));
    let is_first = |report: &FlightReport| report.step <= 1 && report.open_call().is_some();
    let failure = if report.as_ref().is_some_and(|report| *is_alive && is_first(report)) {
        failure.hint(format!("if the ranks are in containers, run it again with `{IN_CONTAINERS}`"))
    } else {
        failure.hint("run the same command again: it goes on from the newest checkpoint")
    };
    Some(Verdict { behind, failure })
}

/// What the rank that is behind is accused of, after `waited`.
fn accusation(rank: usize, sighting: &Sighting, waited: Duration) -> String {
    let waited = waited.as_secs();
    match &sighting.report {
        None => format!("rank {rank} has left no sign of life, after {waited} s of waiting"),
        Some(report) if !sighting.is_alive => format!(
            "rank {rank} stopped answering while {}; the others have waited {waited} s for it",
            report.activity()
        ),
        Some(report) if sighting.is_cut_off() => format!(
            "rank {rank} is cut off: `{}` on {} has lost its link, and all have been {} for {waited} s",
            report.lost_links.join("`, `"),
            report.host,
            report.activity()
        ),
        Some(report) if report.open_call().is_some() => {
            format!("no rank gets on: all have been {} for {waited} s", report.activity())
        }
        Some(report) => format!(
            "rank {rank} hangs: it has been {} for {:.0} s",
            report.activity(),
            report.idle_seconds
        ),
    }
}

/// One line for each of the first ranks, and one for the rank that is behind.
fn listing(sightings: &[Sighting], behind: usize) -> String {
    let shown = (0..sightings.len()).filter(|&rank| rank < LISTED || rank == behind);
    let line = |rank: usize| match &sightings[rank].report {
        Some(report) => format!(
            "  rank {rank} on {}, process {}: {}",
            report.host,
            report.pid,
            report.activity()
        ),
        None => format!("  rank {rank}: no report"),
    };
    shown.map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rank: u32, sequence: u64, is_waiting: bool, idle_seconds: f64) -> FlightReport {
        let call = Call {
            sequence,
            operation: Operation::Sum,
            bytes: 64,
            phase: Phase::Step,
            step: 12,
            start_ms: 5,
            end_ms: (!is_waiting).then_some(6),
        };
        FlightReport {
            rank,
            host: "node".to_owned(),
            pid: 100 + rank,
            time_ms: 7,
            beat: 3,
            phase: Phase::Step,
            step: 12,
            sequence,
            idle_seconds,
            patience_seconds: Some(30.0),
            calls: vec![call],
            lost_links: Vec::new(),
        }
    }

    fn verdict(ranks: &[(u64, bool, f64, bool)]) -> Option<Verdict> {
        let sightings: Vec<Sighting> = ranks
            .iter()
            .enumerate()
            .map(|(rank, &(sequence, is_waiting, idle, is_alive))| Sighting {
                report: Some(report(rank as u32, sequence, is_waiting, idle)),
                is_alive,
            })
            .collect();
        judge(&sightings, Duration::from_secs(31), &RunDirectory::new("runs/a"))
    }

    #[test]
    fn a_rank_that_stopped_answering_is_named() {
        let found =
            verdict(&[(7, false, 0.1, false), (8, true, 31.0, true), (8, true, 31.0, true)]);
        let Verdict { behind, failure } = found.unwrap();
        assert_eq!((behind, failure.exit()), (0, Exit::Hung));
        insta::assert_snapshot!(failure, @r"
        error: rank 0 stopped answering while computing step 12; the others have waited 31 s for it
          rank 0 on node, process 100: computing step 12
          rank 1 on node, process 101: computing step 12, in sum 8 of 64 bytes
          rank 2 on node, process 102: computing step 12, in sum 8 of 64 bytes

        hint: the last calls of every rank are in `runs/a/flight`
        hint: run the same command again: it goes on from the newest checkpoint
        ");
    }

    #[test]
    fn a_rank_at_work_within_its_time_is_waited_for() {
        assert!(verdict(&[(8, true, 31.0, true), (7, false, 29.0, true)]).is_none());
        let overdue = verdict(&[(8, true, 40.0, true), (7, false, 31.0, true)]).unwrap();
        assert_eq!(overdue.behind, 1);
        assert_eq!(
            overdue.failure.message(),
            "rank 1 hangs: it has been computing step 12 for 31 s"
        );
    }

    #[test]
    fn where_all_wait_in_the_same_call_nobody_is_blamed() {
        let found = verdict(&[(8, true, 31.0, true), (8, true, 31.0, true)]).unwrap();
        assert_eq!(
            found.failure.message(),
            "no rank gets on: all have been computing step 12, in sum 8 of 64 bytes for 31 s"
        );
    }

    #[test]
    fn where_all_wait_and_one_host_has_lost_its_link_that_one_is_named() {
        let waits = report(0, 8, true, 31.0);
        let cut_off = |calls| FlightReport {
            lost_links: vec!["eth0".to_owned()],
            ..report(1, calls, true, 31.0)
        };
        let of = |reports: [FlightReport; 2]| {
            let sightings = reports.map(|report| Sighting { report: Some(report), is_alive: true });
            judge(&sightings, Duration::from_secs(31), &RunDirectory::new("runs/a")).unwrap()
        };
        for calls in [8, 9] {
            let Verdict { behind, failure } = of([waits.clone(), cut_off(calls)]);
            let said = failure.message();
            assert!(behind == 1 && said.starts_with("rank 1 is cut off: `eth0` on node has lost its link, and all have been computing step 12, in sum "), "{said}");
        }
        // Whoever is at work holds them up, whatever its interfaces are like.
        let at_work = FlightReport { calls: Vec::new(), ..report(0, 7, false, 31.0) };
        let Verdict { behind, failure } = of([at_work, cut_off(8)]);
        assert!(behind == 0 && failure.message().starts_with("rank 0 hangs"), "{failure}");
    }

    #[test]
    fn where_the_first_sums_never_end_the_remedy_is_another() {
        let sighting = |rank| Sighting {
            report: Some(FlightReport {
                step: 0,
                phase: Phase::Starting,
                ..report(rank, 3, true, 61.0)
            }),
            is_alive: true,
        };
        let found = judge(
            &[sighting(0), sighting(1)],
            Duration::from_secs(61),
            &RunDirectory::new("runs/a"),
        );
        insta::assert_snapshot!(found.unwrap().failure, @r"
        error: no rank gets on: all have been starting, in sum 3 of 64 bytes for 61 s
          rank 0 on node, process 100: starting, in sum 3 of 64 bytes
          rank 1 on node, process 101: starting, in sum 3 of 64 bytes

        hint: the last calls of every rank are in `runs/a/flight`
        hint: if the ranks are in containers, run it again with `export OMPI_MCA_btl_vader_single_copy_mechanism=none`
        ");
    }

    #[test]
    fn the_exit_is_left_for_whoever_waits_for_mpirun() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::new(folder.path());
        assert!(leave_exit(&directory, Exit::Hung).is_err());
        std::fs::create_dir(directory.flights()).unwrap();
        for exit in [Exit::Hung, Exit::Done] {
            leave_exit(&directory, exit).unwrap();
            assert_eq!(left_exit(&directory), Some(exit));
        }
        std::fs::write(directory.exit_code(), "so").unwrap();
        assert_eq!(left_exit(&directory), None);
    }

    #[test]
    fn a_report_replaces_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::new(folder.path());
        std::fs::create_dir(directory.flights()).unwrap();
        assert_eq!(FlightReport::read(&directory, 3), None);
        for beat in [1, 2] {
            let written = FlightReport { beat, ..report(3, 9, true, 0.5) };
            written.write(&directory).unwrap();
            assert_eq!(FlightReport::read(&directory, 3), Some(written));
        }
        assert_eq!(directory.flights().read_dir().unwrap().count(), 1);
    }
}
