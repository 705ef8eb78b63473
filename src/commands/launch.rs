//! `scrimp launch`: starts a run under `mpirun` and stays with it.
//!
//! Requests to end become what `mpirun` passes on to its ranks, and failures are followed by a
//! restart from the newest checkpoint.

use super::{run_directory, say};
use crate::cli;
use crate::config::{self, plan::RunPlan};
use crate::error::{Context, Exit, Failure, Result};
use crate::launch::{
    BATCH_MARKS, CommandLine, Job, Machine, Next, Starts, exit_of, newest_checkpoint,
};
use crate::runlog::directory::RunDirectory;
use crate::signals::{self, Requests, Signal};
use rustix::process::{self, Pid, geteuid, kill_process};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// The signals that are requests to end the run.
const SIGNALS: [Signal; 5] = Signal::ALL;
/// Between two looks at the processes.
const PAUSE: Duration = Duration::from_millis(50);
/// A lost run's last sign of life, on another host, counts for half of this.
const LONGEST_CLAIM: Duration = Duration::from_mins(1);

/// Runs `scrimp launch`.
pub(super) fn run(arguments: &cli::Launch) -> Result<Exit> {
    let directory = run_directory(arguments.config.as_deref(), arguments.run.as_deref());
    let least_ranks = check(arguments, &directory)?;
    let launcher =
        Launcher { job: job(arguments)?, machine: machine(), wish: Wish::listen()?, directory };
    launcher.run(&mut Starts::new(arguments.ranks, least_ranks, arguments.restarts))
}

/// Refuses what every rank would refuse; gives the least number of ranks.
fn check(arguments: &cli::Launch, directory: &RunDirectory) -> Result<usize> {
    let ranks = arguments.ranks;
    let least_ranks = arguments.min_ranks.unwrap_or(ranks);
    if least_ranks == 0 || least_ranks > ranks {
        return Err(Failure::usage(format!(
            "`--min-ranks` is {least_ranks}, expected 1 to {ranks}, the number of ranks"
        )));
    }
    let path = arguments.config.clone().unwrap_or_else(|| directory.config());
    RunPlan::resolve(config::read(&path, &arguments.overrides)?, ranks)?;
    Ok(least_ranks)
}

/// What each rank runs: this program, with the arguments that are for `scrimp train`.
fn job(arguments: &cli::Launch) -> Result<Job> {
    let program = std::env::current_exe().context(|| "cannot find this program's own file")?;
    let mut command = vec![program.display().to_string(), "train".to_owned()];
    command.extend(arguments.config.iter().map(|path| path.display().to_string()));
    if let Some(run) = &arguments.run {
        command.extend(["--run".to_owned(), run.display().to_string()]);
    }
    for change in &arguments.overrides {
        command.extend(["--set".to_owned(), change.clone()]);
    }
    Ok(Job { command, mpirun: arguments.mpirun.clone() })
}

fn machine() -> Machine {
    Machine {
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        is_root: geteuid().is_root(),
        in_batch_job: BATCH_MARKS.iter().any(|name| std::env::var_os(name).is_some()),
    }
}

/// Whether somebody wants the run to end: 0 nobody, 1 in good order, 2 at once.
#[derive(Clone)]
struct Wish(Arc<AtomicU8>);

impl Wish {
    const STOP: u8 = 1;
    const END: u8 = 2;

    /// From now on signals to this process are wishes.
    fn listen() -> Result<Self> {
        let wish = Self(Arc::default());
        let (noted, mut requests) = (wish.clone(), Requests::default());
        signals::listen(&SIGNALS, move |received| {
            let level = if requests.insists(Instant::now()) { Self::END } else { Self::STOP };
            if noted.0.fetch_max(level, Ordering::Relaxed) < level {
                let name = received.signal.name();
                let effect = match level {
                    Self::STOP => ": asks all ranks to save and stop",
                    _ => " again: ends all ranks at once",
                };
                say(format_args!("{name}{effect}"));
            }
        })?;
        Ok(wish)
    }

    fn level(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A run, and whoever wants it to end.
struct Launcher {
    job: Job,
    machine: Machine,
    wish: Wish,
    directory: RunDirectory,
}

impl Launcher {
    /// Starts the run until it is over, cannot go on, or somebody ends it.
    fn run(&self, starts: &mut Starts) -> Result<Exit> {
        loop {
            self.wait_for_the_directory();
            if self.wish.level() > 0 {
                return Ok(Exit::Stopped);
            }
            let command = self.job.command_line(starts.ranks(), self.machine);
            say(format_args!("{command}"));
            let code = self.watch(start(&command)?)?;
            if self.wish.level() > 0 {
                return Ok(self.exit_on_wish(code));
            }
            let newest = newest_checkpoint(&self.directory)?;
            match starts.after(code, newest) {
                Next::End(exit) => return Ok(exit),
                Next::GiveUp { exit, reason } => {
                    say(format_args!("the run ended with {code}; {reason}"));
                    return Ok(exit);
                }
                Next::Restart { ranks } => {
                    let from = newest.map_or("the start".to_owned(), |step| format!("step {step}"));
                    say(format_args!(
                        "the run ended with {code}; starts again from {from} on {ranks} ranks"
                    ));
                }
            }
        }
    }

    /// Waits until the sign of life of a lost run is out of date.
    fn wait_for_the_directory(&self) {
        let start = Instant::now();
        while self.directory.writer().is_some()
            && start.elapsed() < LONGEST_CLAIM
            && self.wish.level() == 0
        {
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits for the end of `mpirun` and passes wishes on to it; gives its code as a shell would.
    fn watch(&self, mut child: Child) -> Result<i32> {
        let mut passed_on = 0;
        loop {
            let status = child.try_wait().context(|| "cannot wait for `mpirun`")?;
            if let Some(status) = status {
                return Ok(code(status));
            }
            let level = self.wish.level();
            if level > passed_on {
                passed_on = level;
                let signal =
                    if level == Wish::STOP { process::Signal::USR1 } else { process::Signal::TERM };
                // Ended in this moment, it is found so in the next round.
                let _ = kill_process(Pid::from_child(&child), signal);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Ranks that had not yet begun die of the request, and have nothing to save.
    fn exit_on_wish(&self, code: i32) -> Exit {
        let had_not_begun = code == 128 + Signal::User1.number() && self.wish.level() == Wish::STOP;
        if had_not_begun { Exit::Stopped } else { exit_of(code) }
    }
}

/// Starts a command in a process group of its own: Ctrl-C reaches this process alone, which knows
/// better what to do about it than `mpirun`.
fn start(command: &CommandLine) -> Result<Child> {
    let [program, arguments @ ..] = &command.words[..] else {
        return Err(Failure::new("there is nothing to start"));
    };
    Command::new(program)
        .args(arguments)
        .envs(command.variables.iter().copied())
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .context(|| format!("cannot start `{program}`"))
        .map_err(|failure| failure.hint("load Open MPI, for example with `module load openmpi`"))
}

fn code(status: ExitStatus) -> i32 {
    let by_signal = status.signal().map_or(Exit::Failed as i32, |signal| 128 + signal);
    status.code().unwrap_or(by_signal)
}
