//! What a batch system says of the job in which this process runs.
//!
//! Reads what it is given and asks nobody: environment and control groups come in as text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Variables of which a batch system sets one: then it tells `mpirun` which nodes and slots it has.
pub const MARKS: [&str; 4] = ["SLURM_JOB_ID", "PBS_NODEFILE", "LSB_JOBID", "PE_HOSTFILE"];
/// The variable in which Slurm says when the job ends.
pub const SLURM_END: &str = "SLURM_JOB_END_TIME";
/// The variable with the number of the Slurm job.
pub const SLURM_JOB: &str = "SLURM_JOB_ID";

/// What the environment says of a Slurm job. The variables outlive their job where a shell does, as in tmux.
#[derive(Debug, Clone, Copy, Default)]
pub struct SlurmJob<'a> {
    /// The variable [`SLURM_END`], seconds since 1970.
    pub end: Option<&'a str>,
    /// The variable [`SLURM_JOB`].
    pub number: Option<&'a str>,
    /// The control groups of this process, as `/proc/self/cgroup` lists them.
    pub control_groups: &'a str,
}

impl SlurmJob<'_> {
    /// When the job ends, where that is said. What cannot be meant is told in a sentence instead.
    ///
    /// ```
    /// # use scrimp::launch::batch::SlurmJob;
    /// # use std::time::SystemTime;
    /// let job = SlurmJob { end: Some("1700000000"), ..SlurmJob::default() };
    /// assert!(job.ends_at(SystemTime::now()).unwrap_err().ends_with("it is ignored"));
    /// ```
    pub fn ends_at(&self, now: SystemTime) -> std::result::Result<Option<SystemTime>, String> {
        let Some(text) = self.end else { return Ok(None) };
        let Ok(seconds) = text.trim().parse::<u64>() else {
            return Err(format!(
                "`{SLURM_END}` is `{text}`, expected seconds since 1970: it is ignored"
            ));
        };
        if let (Some(job), Some(own_job)) = (self.number, job_of(self.control_groups))
            && job != own_job
        {
            return Err(format!(
                "`{SLURM_END}` is that of job {job}, and this is job {own_job}: it is ignored"
            ));
        }
        let end = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        let past = end.and_then(|end| now.duration_since(end).ok());
        if let Some(past) = past.filter(|past| !past.is_zero()) {
            return Err(format!(
                "`{SLURM_END}` says that the job ended {} s ago, so it is that of another job: it is ignored",
                past.as_secs()
            ));
        }
        Ok(end)
    }
}

/// The Slurm job of a process in these control groups, where they are named for one.
fn job_of(control_groups: &str) -> Option<&str> {
    let names = control_groups.lines().flat_map(|line| line.split('/'));
    let mut jobs = names.filter_map(|name| name.strip_prefix("job_"));
    jobs.find(|job| !job.is_empty() && job.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_job_that_is_not_this_one_is_named_and_ignored() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let (past, future) = ("1699913600", "1700001000");
        let groups = "0::/system.slice/slurmstepd.scope/job_7/step_batch/user/task_0\n";
        let others = "1:cpuset:/slurm/uid_0/job_8/step_0\n";
        let end =
            |end, control_groups| SlurmJob { end: Some(end), number: Some("7"), control_groups };
        for (end, said) in [
            (end(past, ""), "says that the job ended 86400 s ago"),
            (end("0", ""), "so it is that of another job"),
            (end(future, others), "is that of job 7, and this is job 8"),
            (end("tomorrow", ""), "is `tomorrow`, expected seconds since 1970"),
            (end("-5", ""), "is `-5`, expected seconds since 1970"),
        ] {
            let note = end.ends_at(now).unwrap_err();
            assert!(note.starts_with("`SLURM_JOB_END_TIME` ") && note.contains(said), "{note}");
            assert!(note.ends_with("it is ignored"), "{note}");
        }
        for groups in [groups, "0::/user.slice\n", ""] {
            assert_eq!(end(future, groups).ends_at(now), Ok(Some(now + Duration::from_secs(1000))));
        }
        assert_eq!(end(&u64::MAX.to_string(), "").ends_at(now), Ok(None));
        assert_eq!(SlurmJob::default().ends_at(now), Ok(None));
    }
}
