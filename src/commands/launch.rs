//! `scrimp launch`: starts a run under `mpirun` and stays with it.
//!
//! Requests to end become what `mpirun` passes on to its ranks, and failures are followed by a
//! restart from the newest checkpoint.

mod mpirun;

use super::batch_job::{EndOfJob, is_preempted};
use super::{run_directory, say, withdraw_stop};
use crate::cli;
use crate::config::{self, plan::RunPlan};
use crate::error::{Context, Exit, Failure, Result};
use crate::launch::batch;
use crate::launch::{self, AGENT, Job, Machine, Next, Starts, Stop};
use crate::launch::{is_out_of_time, newest_checkpoint, shielded_agent};
use crate::runlog::directory::RunDirectory;
use crate::runlog::flight::left_exit;
use crate::signals::{self, Requests, Signal, Suspension};
use mpirun::Mpirun;
use rustix::process::{self, geteuid};
use std::cell::Cell;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The signals that are requests to end the run.
const SIGNALS: [Signal; 5] = Signal::ALL;
/// After this time a request to stop is sent once more, where nobody has taken note of it.
const UNHEARD: Duration = Duration::from_secs(1);
/// Between two looks at the processes.
const PAUSE: Duration = Duration::from_millis(50);
/// A lost run's last sign of life, on another host, counts for half of this.
const LONGEST_CLAIM: Duration = Duration::from_mins(1);
/// `mpirun` needs a second or two to clear its processes away.
const CLEARING: Duration = Duration::from_secs(10);

/// Runs `scrimp launch`.
pub(super) fn run(arguments: &cli::Launch) -> Result<Exit> {
    let directory = run_directory(arguments.config.as_deref(), arguments.run.as_deref());
    let (least_ranks, time_limit) = check(arguments, &directory)?;
    let deadline = deadline(arguments.deadline, time_limit);
    let wish = Wish::listen()?;
    let end = end_of_job();
    let machine = machine();
    let agent = machine.is_shielded.then(|| shielded_agent(std::env::var(AGENT).ok()));
    let launcher = Launcher {
        job: Job {
            command: command(arguments, deadline)?,
            mpirun: arguments.mpirun.clone(),
            variables: agent.into_iter().chain(end.variable()).collect(),
        },
        machine,
        wish,
        newest_before: newest_checkpoint(&directory)?,
        directory,
        mpirun: Arc::default(),
        deadline: deadline.into_iter().chain(end.at).min(),
        was_requested: Cell::new(false),
    };
    launcher.suspend_together()?;
    let starts = &mut Starts::new(arguments.ranks, least_ranks, arguments.restarts);
    let exit = launcher.run(starts)?;
    launcher.follow(exit, arguments.requeue.as_deref())
}

/// Refuses what every rank would refuse; gives the least number of ranks, and how long all starts together
/// may take.
fn check(arguments: &cli::Launch, directory: &RunDirectory) -> Result<(usize, Option<Duration>)> {
    let ranks = arguments.ranks;
    let least_ranks = arguments.min_ranks.unwrap_or(ranks);
    if least_ranks == 0 || least_ranks > ranks {
        return Err(Failure::usage(format!(
            "`--min-ranks` is {least_ranks}, expected 1 to {ranks}, the number of ranks"
        )));
    }
    let path = arguments.config.clone().unwrap_or_else(|| directory.config());
    let plan = RunPlan::resolve(config::read(&path, &arguments.overrides)?, ranks)?;
    Ok((least_ranks, plan.train.time_limit))
}

/// When all starts together are over, by the command line and by the configuration.
fn deadline(seconds: Option<u64>, time_limit: Option<Duration>) -> Option<SystemTime> {
    let moment = seconds.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    let limit = time_limit.and_then(|limit| SystemTime::now().checked_add(limit));
    moment.into_iter().chain(limit).min()
}

/// When the job ends, where Slurm says that or answers. What the environment says of another job the ranks tell.
fn end_of_job() -> EndOfJob {
    let end = EndOfJob::find();
    if let Some(note) = end.note.as_ref().filter(|_| end.variable().is_some()) {
        say(format_args!("{note}"));
    }
    end
}

/// What each rank runs: this program, with the arguments that are for `scrimp train`, and the same end for
/// every start.
fn command(arguments: &cli::Launch, deadline: Option<SystemTime>) -> Result<Vec<String>> {
    let program = std::env::current_exe().context(|| "cannot find this program's own file")?;
    let mut command = vec![program.display().to_string(), "train".to_owned()];
    command.extend(arguments.config.iter().map(|path| path.display().to_string()));
    if let Some(run) = &arguments.run {
        command.extend(["--run".to_owned(), run.display().to_string()]);
    }
    for change in &arguments.overrides {
        command.extend(["--set".to_owned(), change.clone()]);
    }
    let deadline = deadline.and_then(|deadline| deadline.duration_since(UNIX_EPOCH).ok());
    if let Some(deadline) = deadline {
        command.extend(["--deadline".to_owned(), deadline.as_secs().to_string()]);
    }
    Ok(command)
}

fn machine() -> Machine {
    let in_batch_job = batch::MARKS.iter().any(|name| std::env::var_os(name).is_some());
    Machine {
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        is_root: geteuid().is_root(),
        in_batch_job,
        is_shielded: in_batch_job && has_shield(),
    }
}

/// Whether this system's `env` can block signals, as that of GNU does since 8.31.
fn has_shield() -> bool {
    let words = launch::trial_of_the_shield();
    let mut trial = Command::new(words[0]);
    let quiet = trial.args(&words[1..]).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.stdin(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Whether somebody wants the run to end.
#[derive(Clone, Default)]
struct Wish(Arc<Noted>);

#[derive(Default)]
struct Noted {
    /// 0 nobody, 1 in good order, 2 at once.
    level: AtomicU8,
    /// The signal that came first.
    signal: OnceLock<Signal>,
}

impl Wish {
    const STOP: u8 = 1;
    const END: u8 = 2;

    /// From now on signals to this process are wishes.
    fn listen() -> Result<Self> {
        let wish = Self::default();
        let (noted, mut requests) = (wish.clone(), Requests::default());
        signals::listen(&SIGNALS, move |received| {
            let level = if requests.insists(Instant::now()) { Self::END } else { Self::STOP };
            let signal = *noted.0.signal.get_or_init(|| received.signal);
            if noted.0.level.fetch_max(level, Ordering::Relaxed) < level {
                match level {
                    Self::STOP => {
                        say(format_args!("{}: asks all ranks to save and stop", signal.name()));
                    }
                    _ => say(format_args!(
                        "{} again: ends all ranks at once",
                        received.signal.name()
                    )),
                }
            }
        })?;
        Ok(wish)
    }

    fn level(&self) -> u8 {
        self.0.level.load(Ordering::Relaxed)
    }

    fn signal(&self) -> Option<Signal> {
        self.0.signal.get().copied()
    }
}

/// A run, and whoever wants it to end.
struct Launcher {
    job: Job,
    machine: Machine,
    wish: Wish,
    directory: RunDirectory,
    mpirun: Arc<Mpirun>,
    /// When the run has to be over.
    deadline: Option<SystemTime>,
    /// The newest checkpoint before the first start.
    newest_before: Option<u64>,
    /// Whether a request to stop was seen in the run directory.
    was_requested: Cell<bool>,
}

/// A request to stop, as it was sent to `mpirun`.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    /// Whether the first rank can find what it stands for.
    is_left: bool,
}

/// `mpirun` that goes on long after its run.
#[derive(Debug, Default)]
struct Lingering {
    /// When the end of the run was seen.
    since: Option<Instant>,
    /// How the run has ended, once it is long ago.
    exit: Option<Exit>,
}

impl Lingering {
    /// Whether the run has ended so long ago that `mpirun` waits in vain; once.
    fn begins(&mut self, directory: &RunDirectory) -> bool {
        if self.exit.is_some() {
            return false;
        }
        if self.since.is_none() {
            self.since = directory.exit_code().exists().then(Instant::now);
        }
        if self.since.is_some_and(|since| since.elapsed() > CLEARING) {
            self.exit = left_exit(directory);
        }
        self.exit.is_some()
    }
}

impl Launcher {
    /// From now on Ctrl-Z suspends the ranks as well, which `mpirun` sees to, and they go on with this process.
    fn suspend_together(&self) -> Result<()> {
        let mpirun = Arc::clone(&self.mpirun);
        signals::listen_to_suspension(move |suspension| {
            mpirun.send(match suspension {
                Suspension::Begins => process::Signal::TSTP,
                Suspension::Ends => process::Signal::CONT,
            });
        })
    }

    /// Starts the run until it is over, cannot go on, or somebody ends it.
    fn run(&self, starts: &mut Starts) -> Result<Exit> {
        loop {
            self.wait_for_the_directory()?;
            if self.wish.level() > 0 {
                return Ok(Exit::Stopped);
            }
            if self.is_requested() {
                let request = self.directory.stop_request();
                say(format_args!(
                    "`{}` asks for a stop: nothing is started; the next start goes on",
                    request.display()
                ));
                return Ok(Exit::Cancelled);
            }
            let command = self.job.command_line(starts.ranks(), self.machine);
            say(format_args!("{command}"));
            launch::forget_exit(&self.directory)?;
            self.mpirun.start(&command)?;
            let code = self.watch()?;
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
                Next::Restart { .. } if is_out_of_time(self.left()) => {
                    say(format_args!("the run ended with {code}; no time is left to start again"));
                    return Ok(Exit::Stopped);
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

    /// The time that is left, where there is a limit.
    fn left(&self) -> Option<Duration> {
        let deadline = self.deadline?;
        Some(deadline.duration_since(SystemTime::now()).unwrap_or_default())
    }

    /// Whether a request to stop lies in the run directory, or lay there since this began.
    fn is_requested(&self) -> bool {
        let is_there = self.directory.stop_request().symlink_metadata().is_ok();
        self.was_requested.set(self.was_requested.get() || is_there);
        self.was_requested.get()
    }

    /// Whether there was a request to stop, and a start took it for that of an earlier run.
    fn is_forgotten(&self) -> bool {
        self.is_requested() && self.directory.stop_request().symlink_metadata().is_err()
    }

    /// Waits until the sign of life of a lost run is out of date, or another run ends.
    fn wait_for_the_directory(&self) -> Result<()> {
        let (start, mut has_told) = (Instant::now(), false);
        while let Some(writer) = self.directory.writer() {
            if self.wish.level() > 0 {
                break;
            }
            let name = self.directory.root().display();
            let whose = format!(
                "belongs to a run that is alive on `{}`, process {}",
                writer.host, writer.pid
            );
            let longest = LONGEST_CLAIM.as_secs();
            if !std::mem::replace(&mut has_told, true) {
                say(format_args!("`{name}` {whose}: waits up to {longest} s for its end"));
            }
            if start.elapsed() >= LONGEST_CLAIM {
                return Err(Failure::new(format!("`{name}` still {whose}, {longest} s later"))
                    .hint(format!("look at it with `scrimp watch {name}`"))
                    .hint("choose another directory with `--run DIR`"));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Waits for the end of `mpirun` and passes wishes on to it; gives its code as a shell would.
    fn watch(&self) -> Result<i32> {
        let (mut passed_on, mut ending_since) = (0, None);
        let (mut has_reminded, mut asked) = (false, None);
        let mut lingering = Lingering::default();
        loop {
            if let Some(code) = self.mpirun.ended()? {
                // Whatever was left there for the ranks comes too late.
                launch::take_passed_on(&self.directory);
                let exit =
                    lingering.exit.map_or_else(|| self.exit_behind(code), |exit| Ok(Some(exit)))?;
                return Ok(exit.map_or(code, |exit| exit as i32));
            }
            let level = self.wish.level();
            if level > passed_on {
                passed_on = level;
                if level == Wish::STOP {
                    asked = Some(self.ask_to_stop());
                } else {
                    ending_since = Some(Instant::now());
                    self.end_mpirun();
                }
            }
            if level == Wish::STOP && asked.is_some_and(|asked| self.is_unheard(asked)) {
                asked = Some(self.ask_to_stop());
            }
            // A run that has obeyed it is about to end, and this changes nothing.
            if !has_reminded && self.is_forgotten() {
                has_reminded = true;
                self.mpirun.send(process::Signal::USR1);
            }
            if lingering.begins(&self.directory) {
                say(format_args!(
                    "the run has ended and `mpirun` has not, as where a host no longer answers: ends it"
                ));
                ending_since = Some(Instant::now());
                self.end_mpirun();
            }
            if ending_since.is_some_and(|since| since.elapsed() > CLEARING) {
                // Its ranks end with it.
                self.mpirun.send(process::Signal::KILL);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Has `mpirun` clear its ranks away, which it does on either signal.
    fn end_mpirun(&self) {
        let is_shielded = self.machine.is_shielded;
        self.mpirun.send(if is_shielded { process::Signal::INT } else { process::Signal::TERM });
    }

    /// How a run ended whose `mpirun` ended in a way of its own, as when somebody else has ended it.
    fn exit_behind(&self, code: i32) -> Result<Option<Exit>> {
        if code == Exit::Done as i32 && !launch::is_finished(&self.directory)? {
            say(format_args!(
                "`mpirun` ended with 0 before the run was done, as where it has lost a node"
            ));
            return Ok(Some(Exit::Failed));
        }
        let is_told = Exit::ALL.iter().any(|exit| *exit as i32 == code);
        let left = if is_told { None } else { left_exit(&self.directory) };
        Ok(left.filter(|exit| exit.is_stop() || *exit == Exit::Hung))
    }

    /// Sends what `mpirun` passes on, and leaves for the first rank what it stands for.
    fn ask_to_stop(&self) -> Asked {
        let signal = self.wish.signal().unwrap_or(Signal::User1);
        // Before the first step there may be no directory to leave it in.
        let is_left = launch::pass_on(&self.directory, signal).is_ok();
        self.mpirun.send(process::Signal::USR1);
        Asked { at: Instant::now(), is_left }
    }

    /// Whether the first rank has not taken what was left for it, long after it was asked: `mpirun` passes
    /// on nothing while it starts ranks.
    fn is_unheard(&self, asked: Asked) -> bool {
        let is_taken = asked.is_left && !launch::is_passed_on(&self.directory);
        asked.at.elapsed() > UNHEARD && !is_taken
    }

    /// Ranks that had not yet begun die of the request, and have nothing to save.
    fn exit_on_wish(&self, code: i32) -> Exit {
        let had_not_begun = code == 128 + Signal::User1.number() && self.wish.level() == Wish::STOP;
        if had_not_begun { Exit::Stopped } else { Exit::of_code(code) }
    }

    /// What follows the end, and how this process ends: a job that was interrupted is submitted again.
    fn follow(&self, exit: Exit, requeue: Option<&str>) -> Result<Exit> {
        if !exit.is_stop() {
            return Ok(exit);
        }
        let mut stop = Stop {
            exit,
            signal: self.wish.signal(),
            is_requested: self.is_requested(),
            is_preempted: false,
            newest: [self.newest_before, newest_checkpoint(&self.directory)?],
        };
        stop.is_preempted = stop.depends_on_preemption() && is_preempted();
        // Obeyed by now, whatever else there was.
        withdraw_stop(&self.directory);
        let Some(command) = requeue else { return Ok(stop.exit()) };
        if !stop.is_to_go_on() {
            say(format_args!("{}: `--requeue` is not run", why_not(&stop)));
            return Ok(stop.exit());
        }
        say(format_args!("{command}"));
        let status = Command::new("sh").args(["-c", command]).status();
        match status.context(|| "cannot start `sh`")? {
            status if status.success() => Ok(stop.exit()),
            status => Err(Failure::new(format!(
                "`{command}` failed, {status}: nobody submitted the job again"
            ))
            .hint("the run is saved: submit the job by hand")),
        }
    }
}

/// Why a run that has stopped is not submitted again.
fn why_not(stop: &Stop) -> &'static str {
    match stop.exit() {
        Exit::Stopped => "no new checkpoint was reached",
        // Which of both it is Slurm knows.
        _ if stop.signal == Some(Signal::Terminate) && !stop.is_requested => {
            "the job was cancelled, or the batch system starts it again itself"
        }
        _ => "stopped for good",
    }
}
