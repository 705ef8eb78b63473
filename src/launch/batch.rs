//! What a batch system says of the job in which this process runs.
//!
//! Reads what it is given and asks nobody: environment, control groups and answers come in as text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Variables of which a batch system sets one: then it tells `mpirun` which nodes and slots it has.
pub const MARKS: [&str; 4] = ["SLURM_JOB_ID", "PBS_NODEFILE", "LSB_JOBID", "PE_HOSTFILE"];
/// The variable in which Slurm says when the job ends. Empty it says that somebody has asked, and nobody knows an end.
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

impl<'a> SlurmJob<'a> {
    /// The number of the job, where this process belongs to it as far as can be seen.
    pub fn own_number(&self) -> Option<&'a str> {
        let number = self.number.map(str::trim).filter(|number| is_number(number))?;
        let own_job = job_of(self.control_groups);
        own_job.is_none_or(|own_job| own_job == number).then_some(number)
    }

    /// The number of the job where Slurm has to be asked when it ends: older versions, 22.05 for one, do not say it.
    pub fn to_ask(&self) -> Option<&'a str> {
        self.own_number().filter(|_| self.end.is_none())
    }

    /// When the job ends, where that is said. What cannot be meant is told in a sentence instead.
    ///
    /// ```
    /// # use scrimp::launch::batch::SlurmJob;
    /// # use std::time::SystemTime;
    /// let job = SlurmJob { end: Some("1700000000"), ..SlurmJob::default() };
    /// assert!(job.ends_at(SystemTime::now()).unwrap_err().ends_with("it is ignored"));
    /// ```
    pub fn ends_at(&self, now: SystemTime) -> std::result::Result<Option<SystemTime>, String> {
        let Some(text) = self.end.filter(|text| !text.is_empty()) else { return Ok(None) };
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
    jobs.find(|job| is_number(job))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The variable that has Slurm's commands say times as [`SECONDS`], whatever the time zone is.
pub const TIME_FORMAT: &str = "SLURM_TIME_FORMAT";
/// Seconds since 1970.
pub const SECONDS: &str = "%s";

/// The command that asks for the times of job `number`: a line for each job of its array, with the number of the job,
/// when it ends and since when it is preempted.
pub fn question(number: &str) -> Vec<String> {
    let jobs = format!("--jobs={number}");
    let fields = "--Format=JobID:32,EndTime:32,PreemptTime:32";
    ["squeue", "--noheader", &jobs, fields].map(str::to_owned).to_vec()
}

/// What Slurm answers when it is asked for a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlurmAnswer {
    /// When it ends, where it has an end.
    pub end: Option<SystemTime>,
    /// Whether its place is needed for another one.
    pub is_preempted: bool,
}

impl SlurmAnswer {
    /// Reads what the command of [`question`] says of job `number`, with [`TIME_FORMAT`] set; else a sentence why
    /// that is no answer.
    ///
    /// ```
    /// # use scrimp::launch::batch::SlurmAnswer;
    /// # use std::time::{Duration, UNIX_EPOCH};
    /// let answer = SlurmAnswer::read("7    1700000000    N/A\n", "7").unwrap();
    /// assert_eq!(answer.end, Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
    /// assert!(!answer.is_preempted);
    /// ```
    pub fn read(text: &str, number: &str) -> std::result::Result<Self, String> {
        let mut lines = text.lines().map(str::split_whitespace);
        let own = lines.find_map(|mut words| (words.next() == Some(number)).then_some(words));
        let Some(mut words) = own else {
            let said = text.lines().next().unwrap_or_default().trim();
            return Err(format!("`squeue` says `{said}`"));
        };
        let (end, preempted) = (moment(words.next())?, moment(words.next())?);
        Ok(Self { end, is_preempted: preempted.is_some() })
    }
}

/// A moment that Slurm names, where it names one.
fn moment(word: Option<&str>) -> std::result::Result<Option<SystemTime>, String> {
    let Some(word) = word.filter(|word| !["N/A", "NONE", "Unknown", "None"].contains(word)) else {
        return Ok(None);
    };
    let Ok(seconds) = word.parse() else {
        return Err(format!(
            "`squeue` says `{word}` of a time, expected seconds since 1970 or `N/A`"
        ));
    };
    Ok(UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
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
        let never = u64::MAX.to_string();
        assert_eq!(end(&never, "").ends_at(now), Ok(None));
        assert_eq!(end("", others).ends_at(now), Ok(None));
        assert_eq!(SlurmJob::default().ends_at(now), Ok(None));
    }

    #[test]
    fn slurm_is_asked_for_its_own_job_where_nobody_has_asked() {
        let ask = |end, number, control_groups| SlurmJob { end, number, control_groups }.to_ask();
        let own = "0::/system.slice/slurmstepd.scope/job_7/step_batch\n";
        let other = "0::/system.slice/slurmstepd.scope/job_8/step_batch\n";
        assert_eq!(ask(None, Some("7"), ""), Some("7"));
        assert_eq!(ask(None, Some("7"), own), Some("7"));
        assert_eq!(ask(None, Some("7"), other), None);
        assert_eq!(ask(Some("1700000000"), Some("7"), own), None);
        // Somebody has asked.
        assert_eq!(ask(Some(""), Some("7"), own), None);
        assert_eq!(ask(None, None, own), None);
        assert_eq!(ask(None, Some("7 --all"), own), None);
    }

    #[test]
    fn an_answer_of_slurm_is_read_or_quoted() {
        // As squeue 22.05 prints it for an array, whose last job has the number of the whole.
        let array = "8                   1700000060                    N/A                           \n\
                     7                   1700000000                    1699999999                    \n";
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        let answer = |end, is_preempted| Ok(SlurmAnswer { end, is_preempted });
        assert_eq!(SlurmAnswer::read(array, "7"), answer(at(1_700_000_000), true));
        assert_eq!(SlurmAnswer::read(array, "8"), answer(at(1_700_000_060), false));
        for unlimited in ["7 NONE N/A", "7 N/A N/A\n", "7 Unknown None", "7"] {
            assert_eq!(SlurmAnswer::read(unlimited, "7"), answer(None, false), "{unlimited}");
        }
        assert_eq!(SlurmAnswer::read(&format!("7 {} N/A", u64::MAX), "7"), answer(None, false));
        for (text, said) in [
            ("", "`squeue` says ``"),
            ("slurm_load_jobs error: Invalid job id specified\n", "Invalid job id specified`"),
            ("7 2026-11-28T15:04:05 N/A", "`squeue` says `2026-11-28T15:04:05` of a time"),
        ] {
            let note = SlurmAnswer::read(text, "7").unwrap_err();
            assert!(note.contains(said), "{note}");
        }
    }
}
