//! The sentences with which a run says in its log that it stopped before its last step.
//!
//! They stand here so that who writes them and who decides what follows a stop mean the same.

use super::RunStatus;

/// Somebody wanted it to stop: `control/stop`.
pub const ON_REQUEST: &str = "stopped on request";
/// How the sentence begins where its time was nearly over; the limit follows.
pub const BEFORE_LIMIT: &str = "stopped before the time limit";
/// How the sentence begins where a signal asked; its name follows.
pub const BY_SIGNAL: &str = "stopped by ";

/// Whether a run that says so in its last event stopped because its time was over or its place was
/// needed, and not because somebody wanted it to stop.
///
/// Batch systems announce both with `SIGUSR1` or `SIGUSR2`, as they are told to. `SIGTERM` is what they send
/// to a job that was cancelled, too, and they start those again that they preempted.
pub fn is_interruption(status: RunStatus, message: &str) -> bool {
    let by = message.strip_prefix(BY_SIGNAL);
    status == RunStatus::Stopped
        && (message.starts_with(BEFORE_LIMIT) || by.is_some_and(is_announcement))
}

/// Whether a signal of this name announces that time is over or that the place is needed.
pub fn is_announcement(signal: &str) -> bool {
    ["SIGUSR1", "SIGUSR2"].contains(&signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_and_the_announcements_of_batch_systems_are_interruptions() {
        for (message, expected) in [
            ("stopped before the time limit (`train.time_limit`)", true),
            ("stopped by SIGUSR1", true),
            ("stopped by SIGUSR2", true),
            ("stopped by SIGTERM", false),
            ("stopped by SIGINT", false),
            ("stopped by SIGHUP", false),
            (ON_REQUEST, false),
            ("all steps are done", false),
        ] {
            assert_eq!(is_interruption(RunStatus::Stopped, message), expected, "{message}");
            assert!(!is_interruption(RunStatus::Failed, message));
        }
    }
}
