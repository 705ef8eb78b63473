//! Ends a process that waits in vain for other ranks: a rank that stands still answers nobody.
//!
//! Knows how long each part may take, and nothing of what is done in it.

use crate::error::{Context, Exit, Failure, Result};
use crate::signals::exit_at_once;
use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

/// What is waited for.
struct Part {
    /// The end of the sentence "… did not … within so many seconds".
    what: &'static str,
    limit: Duration,
}

/// Watches over this process until it is dropped.
#[derive(Debug)]
pub struct Guard {
    parts: Sender<Part>,
}

impl Guard {
    /// Watches over the first part: `what`, the end of "the other ranks did not …", may take so long.
    pub fn over(what: &'static str, limit: Duration) -> Result<Self> {
        let (parts, next) = mpsc::channel();
        let watch = move || {
            let mut part = Part { what, limit };
            loop {
                match next.recv_timeout(part.limit) {
                    Ok(following) => part = following,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        // Where stderr is closed, the exit code says it.
                        let _ = writeln!(std::io::stderr(), "{}", late(&part));
                        exit_at_once(Exit::Failed);
                    }
                }
            }
        };
        std::thread::Builder::new()
            .name("guard".into())
            .spawn(watch)
            .context(|| "cannot start the thread that watches over this process")?;
        Ok(Self { parts })
    }

    /// The part before has ended in time; from now on this one is watched over.
    pub fn next(&self, what: &'static str, limit: Duration) {
        // The thread ends no sooner than this.
        let _ = self.parts.send(Part { what, limit });
    }
}

fn late(part: &Part) -> Failure {
    Failure::new(format!(
        "the other ranks did not {} within {} s",
        part.what,
        part.limit.as_secs()
    ))
    .hint("start it on fewer hosts, for example `mpirun -n 1 --host NAME scrimp doctor`, to find the one that does not answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_is_named_with_its_limit() {
        let part = Part { what: "say what they see", limit: Duration::from_mins(1) };
        assert_eq!(late(&part).message(), "the other ranks did not say what they see within 60 s");
    }

    #[test]
    fn parts_that_end_in_time_end_nobody() {
        let guard = Guard::over("come", Duration::from_hours(1)).unwrap();
        guard.next("answer", Duration::from_hours(1));
    }
}
