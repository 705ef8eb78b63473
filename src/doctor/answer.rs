//! Questions that may never be answered: dead file systems and name services let who asks them wait for ever.
//!
//! Each is asked on a thread of its own, which is left behind where it is late. What is asked is not known here.

use crate::error::{Failure, Result};
use serde::{Deserialize, Serialize};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer<T> {
    /// What was asked for.
    Got(T),
    /// It cannot be had.
    Refused {
        /// Why, as one sentence.
        why: String,
        /// The next thing to do, where that is known.
        hint: Option<String>,
    },
    /// Nothing within the time that it was given.
    Late {
        /// How long that was.
        seconds: f64,
    },
}

impl<T> Answer<T> {
    /// What was asked for, if it came.
    pub fn got(&self) -> Option<&T> {
        if let Self::Got(value) = self { Some(value) } else { None }
    }
}

impl<T> From<Result<T>> for Answer<T> {
    fn from(outcome: Result<T>) -> Self {
        match outcome {
            Ok(value) => Self::Got(value),
            Err(failure) => Self::refused(&failure),
        }
    }
}

impl<T> Answer<T> {
    /// The same with another value, if it came.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        match self {
            Self::Got(value) => Answer::Got(change(value)),
            Self::Refused { why, hint } => Answer::Refused { why, hint },
            Self::Late { seconds } => Answer::Late { seconds },
        }
    }

    /// A failure as an answer.
    pub fn refused(failure: &Failure) -> Self {
        Self::Refused { why: failure.sentence(), hint: failure.hints().first().cloned() }
    }
}

impl<T> Answer<Option<T>> {
    /// The answer where there is something, be it a refusal.
    pub fn transpose(self) -> Option<Answer<T>> {
        match self {
            Self::Got(None) => None,
            Self::Got(Some(value)) => Some(Answer::Got(value)),
            Self::Refused { why, hint } => Some(Answer::Refused { why, hint }),
            Self::Late { seconds } => Some(Answer::Late { seconds }),
        }
    }
}

/// A question that somebody works on.
#[derive(Debug)]
pub struct Question<T> {
    since: Instant,
    answer: Receiver<Result<T>>,
}

/// Begins to ask.
pub fn ask<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Question<T> {
    let (tell, answer) = mpsc::channel();
    let since = Instant::now();
    let work = move || {
        // Who has given up waiting is not told.
        let _ = tell.send(work());
    };
    // Without a thread nobody tells, which is told as a refusal.
    let _ = std::thread::Builder::new().name("asks".into()).spawn(work);
    Question { since, answer }
}

impl<T> Question<T> {
    /// The answer, if it comes within so much time since it was asked for.
    pub fn within(self, limit: Duration) -> Answer<T> {
        match self.answer.recv_timeout(limit.saturating_sub(self.since.elapsed())) {
            Ok(outcome) => outcome.into(),
            Err(RecvTimeoutError::Timeout) => Answer::Late { seconds: limit.as_secs_f64() },
            Err(RecvTimeoutError::Disconnected) => {
                Answer::refused(&Failure::new("the thread that asked has failed"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_passed_on_and_a_refusal_with_its_hint() {
        let limit = Duration::from_mins(1);
        assert_eq!(ask(|| Ok(7)).within(limit), Answer::Got(7));
        let refused = ask(|| Err::<(), _>(Failure::new("no disk").hint("buy one"))).within(limit);
        let (why, hint) = ("no disk".to_owned(), Some("buy one".to_owned()));
        assert_eq!(refused, Answer::Refused { why, hint });
        let panicked = ask(|| -> Result<()> { panic!("on purpose") }).within(limit);
        assert!(matches!(panicked, Answer::Refused { .. }), "{panicked:?}");
    }

    #[test]
    fn what_never_answers_is_late() {
        let (keep, never) = mpsc::channel::<()>();
        let question = ask(move || {
            let _ = never.recv();
            Ok(())
        });
        assert_eq!(question.within(Duration::from_millis(5)), Answer::Late { seconds: 0.005 });
        drop(keep);
    }
}
