//! Reading and writing `jobs.json` and `states/NAME.json`: replaced whole, read up to a limit, believed after a look.
//!
//! What the states lead to is not known here.

use super::{FORMAT, FarmDirectory, FarmJob, JobKind, JobList, JobReport};
use crate::error::{Context, Failure, Result};
use crate::files;
use crate::limits::{FARM_JOBS, JOB_NAME_BYTES, JSON_BYTES};
use crate::runlog::directory::make_folder;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::io::ErrorKind;

/// Bytes of the report of one job, 64 KiB.
const REPORT_BYTES: u64 = 1 << 16;

/// What every version of `jobs.json` has.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

impl FarmDirectory {
    /// Reads the list of jobs. Names in it are fit for files and for terminals, no two are the same, and needs name
    /// jobs of the list.
    pub fn read_jobs(&self) -> Result<JobList> {
        let path = self.jobs();
        let doing = || format!("cannot read the jobs of the farm `{}`", path.display());
        let refused = |why: &str| Failure::new(doing()).because_of(why);
        let text = files::read_at_most(&path, JSON_BYTES).context(doing)?;
        let Head { format } = serde_json::from_slice(&text).context(doing)?;
        if format != FORMAT {
            let why = format!("it has format {format}, expected {FORMAT}");
            return Err(refused(&why).hint("use the version of scrimp that wrote it"));
        }
        let list: JobList = serde_json::from_slice(&text).context(doing)?;
        check(&list).map_err(|why| refused(&why))?;
        Ok(list)
    }

    /// Replaces the list of jobs; it is on the disk when this returns.
    pub fn write_jobs(&self, list: &JobList) -> Result<()> {
        let path = self.jobs();
        let doing = || format!("cannot write `{}`", path.display());
        check(list).map_err(|why| Failure::new(doing()).because_of(&why))?;
        let text = serde_json::to_vec_pretty(list).context(doing)?;
        files::replace_durably(&path, &text).context(doing)
    }

    /// Reads how the job `name` fares; one without a report was never started.
    pub fn read_report(&self, name: &str) -> Result<JobReport> {
        let path = self.state(name);
        let doing = || format!("cannot read how the job `{name}` fares, `{}`", path.display());
        match files::read_at_most(&path, REPORT_BYTES) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(JobReport::waiting()),
            text => serde_json::from_slice(&text.context(doing)?).context(doing),
        }
    }

    /// Replaces the report of the job `name`.
    pub fn write_report(&self, name: &str, report: &JobReport) -> Result<()> {
        let path = self.state(name);
        let doing = || format!("cannot write how the job `{name}` fares, `{}`", path.display());
        make_folder(&self.states()).context(doing)?;
        let text = serde_json::to_vec(report).context(doing)?;
        files::replace(&path, &text).context(doing)
    }
}

/// Whether a job may have this name: letters, digits, `-`, `_` and `.`, none of the last in front, and not so long that no
/// file could have it.
pub(super) fn is_name(name: &str) -> bool {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    !name.is_empty()
        && name.len() <= JOB_NAME_BYTES
        && !name.starts_with('.')
        && name.chars().all(fits)
}

/// Says what is wrong with a list.
fn check(list: &JobList) -> std::result::Result<(), String> {
    if list.jobs.len() > FARM_JOBS {
        return Err(format!("it has {} jobs, expected at most {FARM_JOBS}", list.jobs.len()));
    }
    let mut names = BTreeSet::new();
    for FarmJob { name, gpus, ranks, .. } in &list.jobs {
        if !is_name(name) {
            return Err(format!("`{}` cannot be the name of a job", name.escape_debug()));
        }
        if !names.insert(name.as_str()) {
            return Err(format!("two jobs have the name `{name}`"));
        }
        if *ranks == 0 || !gpus.is_finite() || *gpus < 0.0 {
            return Err(format!("the job `{name}` uses {ranks} processes and {gpus} GPUs"));
        }
    }
    for FarmJob { name, needs, kind, run, .. } in &list.jobs {
        if let Some(need) = needs.iter().find(|need| !names.contains(need.as_str())) {
            let need = need.escape_debug();
            return Err(format!("the job `{name}` needs `{need}`, which is not in the list"));
        }
        let expected = (*kind == JobKind::Train).then(|| format!("jobs/{name}"));
        if *run != expected {
            return Err(format!("the run directory of the job `{name}` is not `jobs/{name}`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runlog::farm::{JobHost, JobState, Slots};
    use std::fs;

    fn list() -> JobList {
        let job = |name: &str, needs: &[&str]| FarmJob {
            name: name.to_owned(),
            row: "a".to_owned(),
            kind: JobKind::Train,
            fold: Some(1),
            seed: None,
            run: Some(format!("jobs/{name}")),
            needs: needs.iter().map(ToString::to_string).collect(),
            ranks: 2,
            gpus: 0.5,
            total_steps: Some(10),
        };
        JobList {
            format: FORMAT,
            name: "a farm".to_owned(),
            slots: Slots { processes: 4, gpus: 1 },
            jobs: vec![job("a-fold1", &[]), job("b-fold1", &["a-fold1"])],
        }
    }

    #[test]
    fn jobs_and_reports_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let farm = FarmDirectory::new(folder.path());
        assert!(!farm.holds_a_farm() && farm.read_jobs().is_err());
        farm.write_jobs(&list()).unwrap();
        assert!(farm.holds_a_farm());
        assert_eq!(farm.read_jobs().unwrap(), list());
        assert_eq!(farm.read_report("a-fold1").unwrap(), JobReport::waiting());
        let report = JobReport {
            state: JobState::Failed,
            attempts: 2,
            started_at_ms: Some(5),
            ended_at_ms: Some(9),
            exit_code: Some(76),
            busy_ms: 4,
            gpu_seconds: 0.1 + 0.2,
            message: "rank 1 hangs".to_owned(),
            hosts: vec![JobHost { host: "n1".to_owned(), processes: 2 }],
            gpus: vec![1],
            process: None,
        };
        farm.write_report("a-fold1", &report).unwrap();
        assert_eq!(farm.read_report("a-fold1").unwrap(), report);
        let text = fs::read_to_string(farm.state("a-fold1")).unwrap();
        assert!(text.contains(&format!(r#""state":"{}""#, report.state.name())), "{text}");
    }

    #[test]
    fn what_is_no_list_of_jobs_is_refused_with_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let farm = FarmDirectory::new(folder.path());
        let spoilt = |spoil: fn(&mut JobList)| {
            let mut list = list();
            spoil(&mut list);
            assert!(farm.write_jobs(&list).is_err());
            serde_json::to_string(&list).unwrap()
        };
        let whole = serde_json::to_string(&list()).unwrap();
        for (text, expected) in [
            (String::new(), "EOF"),
            (whole[..whole.len() / 2].to_owned(), "EOF"),
            (r#"{"format": 2, "fields": 1}"#.to_owned(), "it has format 2, expected 1"),
            (r#"{"cases": 2}"#.to_owned(), "missing field `format`"),
            (spoilt(|list| list.jobs[0].name = "../x".to_owned()), "`../x` cannot be the name"),
            (spoilt(|list| list.jobs[0].name = "a\u{1b}[2J".to_owned()), "cannot be the name"),
            (spoilt(|list| list.jobs[1].name = "a-fold1".to_owned()), "two jobs have the name"),
            (spoilt(|list| list.jobs[1].needs = vec!["c".to_owned()]), "needs `c`, which is not"),
            (spoilt(|list| list.jobs[0].run = Some("/etc".to_owned())), "is not `jobs/a-fold1`"),
            (spoilt(|list| list.jobs[0].ranks = 0), "uses 0 processes"),
        ] {
            fs::write(farm.jobs(), text).unwrap();
            let failure = farm.read_jobs().unwrap_err();
            assert!(failure.sentence().contains(expected), "{failure}");
        }
    }

    #[test]
    fn a_process_is_found_alive_as_long_as_it_is_the_same() {
        let mut report = JobReport::waiting();
        assert_eq!(report.living_process(), None);
        report.note_process(std::process::id());
        let text = serde_json::to_string(&report).unwrap();
        let read: JobReport = serde_json::from_str(&text).unwrap();
        assert_eq!(read.living_process(), Some(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        report.note_process(child.id());
        child.wait().unwrap();
        assert_eq!(report.living_process(), None);
    }

    #[test]
    fn a_damaged_report_is_an_error_and_no_job_that_waits() {
        let folder = tempfile::tempdir().unwrap();
        let farm = FarmDirectory::new(folder.path());
        fs::create_dir(farm.states()).unwrap();
        for text in ["", "{", r#"{"state": "asleep", "attempts": 0}"#, r#"{"state": "done"}"#] {
            fs::write(farm.state("a"), text).unwrap();
            assert!(farm.read_report("a").is_err(), "{text}");
        }
        fs::write(farm.state("a"), vec![b' '; 1 << 17]).unwrap();
        assert!(farm.read_report("a").unwrap_err().sentence().contains("more than 65536 bytes"));
    }
}
