//! Where the last farm in a directory was left: which jobs still run, and how those have ended that ran then.
//!
//! What is started from there is decided elsewhere.

use super::ledger::Ledger;
use super::outcome::Outcome;
use super::process::{Ended, Work};
use super::tell;
use crate::error::{Exit, Result};
use crate::farm::machine::Room;
use crate::farm::nodes::Seats;
use crate::farm::outages::Outages;
use crate::farm::queue::{JobEnd, Queue};
use crate::runlog::farm::JobState;

/// What the last farm in a directory left.
pub(super) struct TakenUp {
    pub(super) queue: Queue,
    /// The jobs that still run.
    pub(super) works: Vec<Work>,
    /// The jobs that have failed on nodes that can be asked whether it was they.
    pub(super) doubtful: Vec<Outcome>,
}

/// Finds the jobs that still run, and notes how those have ended that ran when the last farm ended.
pub(super) fn take_up(ledger: &mut Ledger, room: &Room, retry: bool) -> Result<TakenUp> {
    let (mut works, mut doubtful) = (Vec::new(), Vec::new());
    let outages = Outages::none(&room.nodes);
    for number in 0..ledger.reports.len() {
        if retry && ledger.reports[number].state == JobState::Failed {
            ledger.reports[number].state = JobState::Waiting;
        }
        if ledger.reports[number].state != JobState::Running {
            continue;
        }
        let job = ledger.job(number);
        if let Some(work) = Work::find(number, job, &ledger.directory, &ledger.reports[number]) {
            tell(format_args!("`{}` is alive: waits for it", job.name));
            works.push(work);
            continue;
        }
        let (ended, at_ms) = ledger.end_of(number)?;
        // A stop was meant for the farm that has ended, too.
        let ended = match ended {
            Ended::With(code) if !Exit::of_code(code).is_stop() => ended,
            Ended::With(_) | Ended::Unseen => Ended::Unseen,
        };
        ledger.add_time(number, at_ms.or(ledger.reports[number].started_at_ms).unwrap_or(0));
        let outcome = Outcome { job: number, ended, asked: 0, was_silent: false, lost_with: None };
        if outcome.may_be_a_loss() && outages.can_ask(&ledger.reports[number].hosts) {
            doubtful.push(outcome);
            continue;
        }
        let code = outcome.code();
        let message = code.map_or_else(String::new, |code| ledger.message(number, code));
        let report = &mut ledger.reports[number];
        (report.exit_code, report.message) = (code, message);
        report.state = match outcome.end(None) {
            JobEnd::Done => JobState::Done,
            JobEnd::Failed { .. } => JobState::Failed,
            JobEnd::Stopped | JobEnd::Lost { .. } | JobEnd::Unknown => JobState::Waiting,
        };
    }
    let states = ledger.reports.iter().map(|report| report.state).collect();
    let restarts = ledger.plan.tasks.iter().map(|task| task.restarts).collect();
    let mut queue = Queue::new(&ledger.plan.list, &room.nodes, states, restarts);
    for number in 0..ledger.reports.len() {
        let report = &ledger.reports[number];
        if report.state == JobState::Running {
            // Its report is written when more is known.
            let seats = Seats { hosts: report.hosts.clone(), gpus: report.gpus.clone() };
            queue.occupy(number, seats);
        } else {
            ledger.note_state(number, &queue)?;
        }
    }
    Ok(TakenUp { queue, works, doubtful })
}
