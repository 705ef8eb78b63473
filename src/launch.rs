//! Starting a run under `mpirun`: its command line, and what follows its end.
//!
//! Decides from what it is told and from what the run left in its directory; it starts nothing and listens
//! to no signals.

pub mod batch;

use crate::error::{Context, Exit, Result};
use crate::files;
use crate::runlog::directory::RunDirectory;
use crate::runlog::io::Tail;
use crate::runlog::{RunEvent, RunStatus};
use crate::signals::Signal;
use std::borrow::Cow;
use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

/// Open MPI refuses to be started by root, unless told twice that this is meant.
const AS_ROOT: [&str; 2] = ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"];
/// A start that has less time than this left is not worth it.
const LEAST_TIME: Duration = Duration::from_mins(1);
/// Puts what follows out of reach of `SIGTERM`, which batch systems send to all processes of a job that has to end:
/// `mpirun` and its daemons would end the run at once.
const SHIELD: [&str; 2] = ["env", "--block-signal=TERM"];
/// What `mpirun` of Open MPI starts on other nodes, in a variable that other libraries pass over.
pub const AGENT: &str = "OMPI_MCA_orte_launch_agent";
/// The longest name of a signal, in bytes.
const LONGEST_NAME: u64 = 16;

/// Where a run is started.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Processors as the system counts them, hardware threads included.
    pub processors: usize,
    /// Whether the user is root.
    pub is_root: bool,
    /// Whether a batch system says where ranks run.
    pub in_batch_job: bool,
    /// Whether `mpirun` is to be put out of reach of `SIGTERM`, as in a batch job with the `env` of GNU.
    pub is_shielded: bool,
}

/// The words of a command that succeeds where `mpirun` can be put out of reach of `SIGTERM`.
pub fn trial_of_the_shield() -> Vec<&'static str> {
    [&SHIELD[..], &["true"]].concat()
}

/// The variable with which `mpirun` starts daemons out of reach of `SIGTERM`, where the environment has it start `agent`.
pub fn shielded_agent(agent: Option<String>) -> (&'static str, String) {
    let agent = agent.unwrap_or_else(|| "orted".to_owned());
    (AGENT, format!("{} {agent}", SHIELD.join(" ")))
}

/// What to start.
#[derive(Debug, Clone)]
pub struct Job {
    /// This program and its arguments, as every rank runs them.
    pub command: Vec<String>,
    /// Further arguments of `mpirun`.
    pub mpirun: Vec<String>,
    /// Variables that it needs.
    pub variables: Vec<(&'static str, String)>,
}

/// A command to start, as a shell takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// Variables that are set for it.
    pub variables: Vec<(&'static str, String)>,
    /// The program and its arguments.
    pub words: Vec<String>,
}

impl Job {
    /// The command that starts it on `ranks` ranks.
    pub fn command_line(&self, ranks: usize, machine: Machine) -> CommandLine {
        let shield = if machine.is_shielded { &SHIELD[..] } else { &[] };
        let mut words: Vec<String> = shield.iter().map(ToString::to_string).collect();
        words.extend(["mpirun".to_owned(), "-n".to_owned(), ranks.to_string()]);
        // By default each rank is bound to one core, whatever its number of threads.
        words.extend(["--bind-to", "none"].map(str::to_owned));
        let names_hosts = self.mpirun.iter().any(|word| word.contains("host"));
        // mpirun counts cores, the system counts hardware threads, of which a core may have two.
        if !machine.in_batch_job && !names_hosts && 2 * ranks > machine.processors {
            words.push("--oversubscribe".to_owned());
        }
        words.extend(self.mpirun.iter().chain(&self.command).cloned());
        let as_root = AS_ROOT.map(|name| (name, "1".to_owned()));
        let as_root = as_root.into_iter().filter(|_| machine.is_root);
        CommandLine { variables: as_root.chain(self.variables.iter().cloned()).collect(), words }
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.variables {
            write!(f, "{name}={} ", quoted(value))?;
        }
        for (index, word) in self.words.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{}", quoted(word))?;
        }
        Ok(())
    }
}

/// A word as it is typed into a shell.
fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./=:,+@%".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''")).into()
}

/// What follows the end of the processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing: this is how the run has ended.
    End(Exit),
    /// The same again from the newest checkpoint.
    Restart {
        /// On so many ranks.
        ranks: usize,
    },
    /// The run has failed, and starting it again would not help.
    GiveUp {
        /// How the last processes ended.
        exit: Exit,
        /// One sentence, lower case, without a full stop.
        reason: String,
    },
}

/// The starts of one run.
#[derive(Debug, Clone)]
pub struct Starts {
    ranks: usize,
    least_ranks: usize,
    restarts_left: usize,
    /// Whether it has failed before.
    has_failed: bool,
    /// The newest checkpoint then, if there was one.
    newest: Option<u64>,
}

impl Starts {
    /// Of a run on `ranks` ranks, which may be started again so often, on as few as `least_ranks`.
    pub fn new(ranks: usize, least_ranks: usize, restarts: usize) -> Self {
        Self { ranks, least_ranks, restarts_left: restarts, has_failed: false, newest: None }
    }

    /// What follows an end with `code`, where `newest` is the step of the newest checkpoint.
    ///
    /// Between two failures a checkpoint must be reached. If none is, one rank fewer may be the
    /// remedy, down to the least; the same ranks again are not.
    pub fn after(&mut self, code: i32, newest: Option<u64>) -> Next {
        let exit = Exit::of_code(code);
        if exit.is_stop() || matches!(exit, Exit::Done | Exit::Usage) {
            return Next::End(exit);
        }
        if self.restarts_left == 0 {
            let reason = "no restart is left (`--restarts`)".to_owned();
            return Next::GiveUp { exit, reason };
        }
        let before = std::mem::replace(&mut self.newest, newest);
        if std::mem::replace(&mut self.has_failed, true) && newest <= before {
            if self.ranks == self.least_ranks {
                let since = newest.map_or("the start".to_owned(), |step| format!("step {step}"));
                let reason = format!("no checkpoint was reached after that of {since}");
                return Next::GiveUp { exit, reason };
            }
            self.ranks -= 1;
        }
        self.restarts_left -= 1;
        Next::Restart { ranks: self.ranks }
    }

    /// Ranks of the next start.
    pub fn ranks(&self) -> usize {
        self.ranks
    }
}

/// The step of the checkpoint that the run log names last.
pub fn newest_checkpoint(directory: &RunDirectory) -> Result<Option<u64>> {
    let mut newest = None;
    for_each_event(directory, |event| {
        if let RunEvent::CheckpointSaved { step, .. } = event {
            newest = Some(step);
        }
    })?;
    Ok(newest)
}

/// Whether the run has logged that it is done, since its last start. That `mpirun` ends with 0 does not say so: it does
/// under Slurm, too, when it has lost a node.
pub fn is_finished(directory: &RunDirectory) -> Result<bool> {
    let mut is_finished = false;
    for_each_event(directory, |event| match event {
        RunEvent::RunStarted(_) => is_finished = false,
        RunEvent::RunEnded { status, .. } => is_finished = status == RunStatus::Finished,
        _ => {}
    })?;
    Ok(is_finished)
}

/// Reads the run log, which is that of the first rank.
fn for_each_event(directory: &RunDirectory, mut see: impl FnMut(RunEvent)) -> Result<()> {
    let mut tail = Tail::new(directory.rank_events(0));
    loop {
        let records = tail.read()?;
        if records.is_empty() {
            return Ok(());
        }
        for record in records {
            see(record.event);
        }
    }
}

/// What is known of a run that has stopped before its last step.
#[derive(Debug, Clone, Copy)]
pub struct Stop {
    /// How its processes ended, or how the launcher did that started none.
    pub exit: Exit,
    /// The signal that the launcher got, if it got one.
    pub signal: Option<Signal>,
    /// Whether a request to stop lies in the run directory, or lay there.
    pub is_requested: bool,
    /// Whether the batch system says that it needs the place of the job.
    pub is_preempted: bool,
    /// The newest checkpoint before the first start of this launcher, and now.
    pub newest: [Option<u64>; 2],
}

impl Stop {
    /// How the launcher ends: what a person wants counts more than what a machine wants, whoever of the launcher
    /// and the run heard of it.
    pub fn exit(&self) -> Exit {
        if self.is_wanted() || (self.exit == Exit::Cancelled && !self.is_preempted) {
            return Exit::Cancelled;
        }
        Exit::Stopped
    }

    /// Whether the launcher itself knows that a person wanted it.
    fn is_wanted(&self) -> bool {
        let signalled = self.signal.map_or(Exit::Stopped, Signal::exit);
        self.is_requested || signalled == Exit::Cancelled
    }

    /// Whether the job is to be submitted again: its time was over or its place was needed, nobody wanted the
    /// run to stop, and it has got further. Without the last a job that is too short would come again for ever, which
    /// one that is preempted is not.
    pub fn is_to_go_on(&self) -> bool {
        let [before, now] = self.newest;
        self.exit() == Exit::Stopped && (now > before || self.is_preempted)
    }

    /// Whether what follows would be another thing if the batch system said that it needs the place.
    pub fn depends_on_preemption(&self) -> bool {
        !self.is_wanted() && !self.is_to_go_on()
    }
}

/// Takes away what an earlier start left of its end, so that nobody takes it for that of the next one.
pub fn forget_exit(directory: &RunDirectory) -> Result<()> {
    let path = directory.exit_code();
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context(|| format!("cannot remove `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

/// Whether so little time is left that another start would not get far; without a limit never.
pub fn is_out_of_time(left: Option<Duration>) -> bool {
    left.is_some_and(|left| left < LEAST_TIME)
}

/// Where the launcher leaves the name of the signal that it got: `mpirun` passes few of them on.
fn passed_on(directory: &RunDirectory) -> PathBuf {
    directory.root().join("control/signal")
}

/// Leaves `signal` for the first rank, before another one is sent in its place.
pub fn pass_on(directory: &RunDirectory, signal: Signal) -> Result<()> {
    let path = passed_on(directory);
    files::replace(&path, signal.name().as_bytes())
        .context(|| format!("cannot write `{}`", path.display()))
}

/// Whether a signal was left that the first rank has not taken.
pub fn is_passed_on(directory: &RunDirectory) -> bool {
    passed_on(directory).exists()
}

/// Takes the signal that was left, if one was.
pub fn take_passed_on(directory: &RunDirectory) -> Option<Signal> {
    let path = passed_on(directory);
    let name = files::read_text(&path, LONGEST_NAME).ok();
    // Left there it would be taken for that of another day.
    let _ = std::fs::remove_file(path);
    Signal::named(&name?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runlog::io::{EventSink, LogWriter};

    fn job(mpirun: &[&str]) -> Job {
        let command = ["/opt/scrimp", "train", "a b.toml", "--set", "data.path=it's.h5"];
        let [command, mpirun] =
            [&command[..], mpirun].map(|words| words.iter().map(ToString::to_string).collect());
        Job { command, mpirun, variables: Vec::new() }
    }

    #[test]
    fn the_command_line_can_be_typed_again() {
        let machine =
            Machine { processors: 16, is_root: false, in_batch_job: false, is_shielded: false };
        insta::assert_snapshot!(
            job(&[]).command_line(8, machine),
            @r"mpirun -n 8 --bind-to none /opt/scrimp train 'a b.toml' --set 'data.path=it'\''s.h5'"
        );
        let root = Machine { is_root: true, ..machine };
        insta::assert_snapshot!(
            job(&[]).command_line(9, root),
            @r"OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun -n 9 --bind-to none --oversubscribe /opt/scrimp train 'a b.toml' --set 'data.path=it'\''s.h5'"
        );
    }

    #[test]
    fn in_a_batch_job_mpirun_and_its_daemons_hear_no_sigterm() {
        let machine =
            Machine { processors: 16, is_root: false, in_batch_job: true, is_shielded: true };
        let variables = vec![shielded_agent(None), ("SLURM_JOB_END_TIME", "1700000000".to_owned())];
        let job = Job { command: vec!["scrimp".to_owned()], mpirun: Vec::new(), variables };
        insta::assert_snapshot!(
            job.command_line(2, machine),
            @"OMPI_MCA_orte_launch_agent='env --block-signal=TERM orted' SLURM_JOB_END_TIME=1700000000 env --block-signal=TERM mpirun -n 2 --bind-to none scrimp"
        );
        let in_container = shielded_agent(Some("apptainer exec scrimp.sif orted".to_owned())).1;
        assert_eq!(in_container, "env --block-signal=TERM apptainer exec scrimp.sif orted");
    }

    #[test]
    fn where_others_say_what_there_is_nothing_is_oversubscribed() {
        let machine =
            Machine { processors: 2, is_root: false, in_batch_job: true, is_shielded: false };
        let has_it = |job: Job, machine| {
            job.command_line(64, machine).words.contains(&"--oversubscribe".to_owned())
        };
        assert!(!has_it(job(&[]), machine));
        let alone = Machine { in_batch_job: false, ..machine };
        assert!(has_it(job(&[]), alone));
        assert!(!has_it(job(&["--hostfile", "nodes"]), alone));
    }

    #[test]
    fn the_newest_checkpoint_is_the_one_that_the_log_names_last() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::new(folder.path());
        assert_eq!(newest_checkpoint(&directory).unwrap(), None);
        let mut log = LogWriter::open(&directory.rank_events(0), 0).unwrap();
        for step in [20, 5] {
            log.emit(&RunEvent::CheckpointSaved {
                step,
                path: String::new(),
                bytes: 1,
                seconds: 1.0,
            });
        }
        assert_eq!(newest_checkpoint(&directory).unwrap(), Some(5));
    }

    #[test]
    fn a_job_goes_on_where_its_time_was_over_and_nobody_wanted_an_end() {
        let [nobody, usr1, term] = [None, Some(Signal::User1), Some(Signal::Terminate)];
        let (time, person) = (Exit::Stopped, Exit::Cancelled);
        for (signal, exit, is_requested, newest, expected) in [
            (nobody, time, false, Some(20), (75, true)),
            (usr1, time, false, Some(20), (75, true)),
            // Cancelled; whom a batch system preempts it starts again itself. The run may have heard of its time.
            (term, person, false, Some(20), (77, false)),
            (term, time, false, Some(20), (77, false)),
            (nobody, person, false, Some(20), (77, false)),
            // Somebody wanted it as well, just before the end of the time or just behind it.
            (usr1, person, false, Some(20), (77, false)),
            (nobody, time, true, Some(20), (77, false)),
            (usr1, time, true, Some(20), (77, false)),
            // It has not got anywhere.
            (nobody, time, false, Some(10), (75, false)),
            (usr1, time, false, None, (75, false)),
        ] {
            let newest = [Some(10), newest];
            let stop = Stop { exit, signal, is_requested, is_preempted: false, newest };
            assert_eq!((stop.exit() as i32, stop.is_to_go_on()), expected, "{stop:?}");
        }
    }

    #[test]
    fn a_job_whose_place_is_needed_goes_on_unless_a_person_wants_an_end() {
        let [nobody, usr1, term] = [None, Some(Signal::User1), Some(Signal::Terminate)];
        let (time, person) = (Exit::Stopped, Exit::Cancelled);
        for (signal, exit, is_requested, newest, expected, is_asked) in [
            // Ranks on other nodes got `SIGTERM` when the job was told.
            (nobody, person, false, Some(20), (75, true), true),
            // Before the first step, or before the first one of this start.
            (nobody, person, false, None, (75, true), true),
            (usr1, time, false, Some(10), (75, true), true),
            (usr1, time, false, Some(20), (75, true), false),
            // The launcher hears of it when the batch system ends the job, and starts it again itself.
            (term, person, false, Some(20), (77, false), false),
            (nobody, person, true, Some(20), (77, false), false),
        ] {
            let newest = [Some(10), newest];
            let mut stop = Stop { exit, signal, is_requested, is_preempted: false, newest };
            assert_eq!(stop.depends_on_preemption(), is_asked, "{stop:?}");
            stop.is_preempted = true;
            assert_eq!((stop.exit() as i32, stop.is_to_go_on()), expected, "{stop:?}");
        }
    }

    #[test]
    fn a_signal_is_passed_on_once() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::new(folder.path());
        assert!(pass_on(&directory, Signal::HangUp).is_err());
        std::fs::create_dir(folder.path().join("control")).unwrap();
        pass_on(&directory, Signal::HangUp).unwrap();
        assert_eq!(take_passed_on(&directory), Some(Signal::HangUp));
        assert_eq!(take_passed_on(&directory), None);
        std::fs::write(passed_on(&directory), "SIGKILL").unwrap();
        assert_eq!(take_passed_on(&directory), None);
        assert!(!passed_on(&directory).exists());
    }

    #[test]
    fn what_is_over_is_not_started_again() {
        for (code, exit) in
            [(0, Exit::Done), (2, Exit::Usage), (75, Exit::Stopped), (77, Exit::Cancelled)]
        {
            assert_eq!(Starts::new(2, 2, 5).after(code, None), Next::End(exit));
        }
    }

    #[test]
    fn failures_are_followed_by_as_many_restarts_as_allowed() {
        let mut starts = Starts::new(2, 2, 2);
        assert_eq!(starts.after(137, None), Next::Restart { ranks: 2 });
        assert_eq!(starts.after(76, Some(10)), Next::Restart { ranks: 2 });
        let Next::GiveUp { exit, reason } = starts.after(1, Some(20)) else { panic!() };
        assert_eq!((exit, &*reason), (Exit::Failed, "no restart is left (`--restarts`)"));
    }

    #[test]
    fn without_progress_it_tries_fewer_ranks_and_then_gives_up() {
        let mut starts = Starts::new(3, 2, 9);
        assert_eq!(starts.after(1, Some(10)), Next::Restart { ranks: 3 });
        assert_eq!(starts.after(1, Some(10)), Next::Restart { ranks: 2 });
        assert_eq!(starts.ranks(), 2);
        assert_eq!(starts.after(1, Some(20)), Next::Restart { ranks: 2 });
        let Next::GiveUp { reason, .. } = starts.after(76, Some(20)) else { panic!() };
        assert_eq!(reason, "no checkpoint was reached after that of step 20");
    }
}
