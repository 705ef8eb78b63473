//! How a job has ended, as the queue of the farm takes it.
//!
//! What follows for it and for others is not known here.

use super::process::Ended;
use super::wish::Wish;
use crate::error::Exit;
use crate::farm::queue::JobEnd;

/// How a job has ended.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    /// The number of the job.
    pub(super) job: usize,
    pub(super) ended: Ended,
    /// How urgently it was asked to stop, as [`Wish`] counts.
    pub(super) asked: u8,
    /// Whether its run was at work and had said nothing since for long.
    pub(super) was_silent: bool,
    /// With what it was lost, in words, if it was.
    pub(super) lost_with: Option<String>,
}

impl Outcome {
    /// The code that its processes ended with, as a shell says it.
    pub(super) fn code(&self) -> Option<i32> {
        if let Ended::With(code) = self.ended { Some(code) } else { None }
    }

    /// Whether it has failed in a way in which a node that is lost makes jobs fail.
    pub(super) fn may_be_a_loss(&self) -> bool {
        self.end(None) == JobEnd::Failed { is_final: false }
    }

    /// What became of it; `newest` is the step of its newest checkpoint, if it has one.
    pub(super) fn end(&self, newest: Option<u64>) -> JobEnd {
        match self.ended {
            // Whatever its code is: `mpirun` that was ended while it waited for a lost node may say 0.
            _ if self.lost_with.is_some() => JobEnd::Lost { newest },
            Ended::With(code) => end_of(code, self.asked),
            Ended::Unseen if self.asked > 0 => JobEnd::Stopped,
            Ended::Unseen => JobEnd::Unknown,
        }
    }
}

/// With what a job is lost whose node does not answer.
pub(super) fn dead_node(host: &str) -> String {
    format!("node `{host}`, which does not answer")
}

/// With what a job is lost that had fallen silent, and whose node answers again.
pub(super) fn node_that_was_away(host: &str) -> String {
    format!("node `{host}`, which was away for a while")
}

/// How a job has ended whose processes ended with `code`, after it was asked to stop so urgently.
fn end_of(code: i32, asked: u8) -> JobEnd {
    let exit = Exit::of_code(code);
    let was_ended = asked >= Wish::END || (asked > 0 && code > 128);
    match exit {
        // `mpirun` that was ended may say so, too: what was done by then is so again at once.
        Exit::Done if asked < Wish::END => JobEnd::Done,
        Exit::Stopped | Exit::Cancelled => JobEnd::Stopped,
        _ if was_ended => JobEnd::Stopped,
        exit => JobEnd::Failed { is_final: exit == Exit::Usage },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_on_a_lost_node_is_lost_whatever_its_processes_said_in_the_end() {
        let lost = JobEnd::Lost { newest: Some(5) };
        for (ended, asked) in [
            (Ended::With(1), 0),
            (Ended::With(76), 0),
            // It was ended because it was silent.
            (Ended::With(0), Wish::END),
            (Ended::With(75), Wish::END),
            (Ended::With(137), Wish::END),
            (Ended::Unseen, 0),
        ] {
            let lost_with = Some("b".to_owned());
            let outcome = Outcome { job: 0, ended, asked, was_silent: false, lost_with };
            assert_eq!(outcome.end(Some(5)), lost, "{outcome:?}");
        }
        for (code, asked, may_be) in [
            (1, 0, true),
            (76, 0, true),
            (137, 0, true),
            (1, Wish::STOP, true),
            (0, 0, false),
            (2, 0, false),
            (75, 0, false),
            (77, 0, false),
            (137, Wish::STOP, false),
            (1, Wish::END, false),
        ] {
            let outcome = Outcome {
                job: 0,
                ended: Ended::With(code),
                asked,
                was_silent: false,
                lost_with: None,
            };
            assert_eq!(outcome.may_be_a_loss(), may_be, "{outcome:?}");
        }
    }

    #[test]
    fn what_was_ended_at_once_is_not_done() {
        for (code, asked, expected) in [
            (0, 0, JobEnd::Done),
            (0, Wish::STOP, JobEnd::Done),
            (0, Wish::END, JobEnd::Stopped),
            (143, Wish::END, JobEnd::Stopped),
        ] {
            assert_eq!(end_of(code, asked), expected, "{code}");
        }
    }
}
