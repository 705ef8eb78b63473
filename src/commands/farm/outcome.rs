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
    /// The node that does not answer and on which it ran.
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

    /// What became of it. What has ended well by itself is not lost; `newest` is the step of its newest checkpoint, if it
    /// has one.
    pub(super) fn end(&self, newest: Option<u64>) -> JobEnd {
        let end = match self.ended {
            Ended::With(code) => end_of(code, self.asked),
            Ended::Unseen if self.asked > 0 => JobEnd::Stopped,
            Ended::Unseen => JobEnd::Unknown,
        };
        if self.lost_with.is_some() && end != JobEnd::Done { JobEnd::Lost { newest } } else { end }
    }
}

/// How a job has ended whose processes ended with `code`, after it was asked to stop so urgently.
fn end_of(code: i32, asked: u8) -> JobEnd {
    let exit = Exit::of_code(code);
    let was_ended = asked >= Wish::END || (asked > 0 && code > 128);
    match exit {
        Exit::Done => JobEnd::Done,
        Exit::Stopped | Exit::Cancelled => JobEnd::Stopped,
        _ if was_ended => JobEnd::Stopped,
        exit => JobEnd::Failed { is_final: exit == Exit::Usage },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_on_a_lost_node_is_lost_unless_it_was_done_by_then() {
        let lost = JobEnd::Lost { newest: Some(5) };
        for (ended, asked, expected) in [
            (Ended::With(0), 0, JobEnd::Done),
            (Ended::With(1), 0, lost),
            (Ended::With(76), 0, lost),
            // It was ended because it was silent.
            (Ended::With(75), Wish::END, lost),
            (Ended::With(137), Wish::END, lost),
            (Ended::Unseen, 0, lost),
        ] {
            let lost_with = Some("b".to_owned());
            let outcome = Outcome { job: 0, ended, asked, lost_with };
            assert_eq!(outcome.end(Some(5)), expected, "{outcome:?}");
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
            let outcome = Outcome { job: 0, ended: Ended::With(code), asked, lost_with: None };
            assert_eq!(outcome.may_be_a_loss(), may_be, "{outcome:?}");
        }
    }
}
