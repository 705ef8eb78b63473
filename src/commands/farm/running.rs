//! A farm at work: starts jobs, waits for them, writes down how they fare, and passes wishes on.
//!
//! Which job starts when is decided in `farm::queue`, and which nodes are asked in `farm::outages`.

use super::ledger::Ledger;
use super::nodes::Nodes;
use super::outcome::Outcome;
use super::process::{AtWork, Ended, Started, Work};
use super::taking_up::{TakenUp, take_up};
use super::wish::Wish;
use super::{table, tell};
use crate::cli;
use crate::commands::batch_job::{EndOfJob, is_preempted};
use crate::error::{Context, Exit, Failure, Result};
use crate::farm::file::FarmFile;
use crate::farm::machine::Room;
use crate::farm::nodes::Seats;
use crate::farm::plan::FarmPlan;
use crate::farm::queue::{JobEnd, Queue, Start};
use crate::launch::{Stop, is_out_of_time, newest_checkpoint};
use crate::runlog::claim::Claim;
use crate::runlog::farm::{FarmDirectory, JobKind, JobState};
use crate::runlog::now_ms;
use crate::signals::Signal;
use crate::words::counted;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Between two looks at the jobs.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two looks at the directory.
const LOOK: Duration = Duration::from_secs(1);
/// Runs stop by themselves before the end of the time; so long before it the other commands are ended.
const LAST_MOMENTS: Duration = Duration::from_secs(20);

/// A farm at work.
pub(super) struct Farm<'a> {
    file: &'a FarmFile,
    room: Room,
    arguments: &'a cli::Farm,
    ledger: Ledger,
    claim: Claim,
    wish: Wish,
    deadline: Option<SystemTime>,
    end_of_job: EndOfJob,
    queue: Queue,
    nodes: Nodes,
    works: Vec<Work>,
    at_work: AtWork,
    /// Steps and jobs that were done before this began.
    progress_before: u64,
    was_requested: bool,
    is_out_of_time: bool,
    /// Whether a job was stopped by a person.
    was_cancelled: bool,
    /// What keeps the farm from going on.
    failure: Option<Failure>,
    /// When the directory was looked at last.
    looked_at: Instant,
}

impl<'a> Farm<'a> {
    /// Takes the directory and finds out where its jobs were left.
    pub(super) fn begin(
        file: &'a FarmFile,
        plan: FarmPlan,
        room: Room,
        directory: FarmDirectory,
        arguments: &'a cli::Farm,
    ) -> Result<Self> {
        let limit = file.time_limit.and_then(|limit| SystemTime::now().checked_add(limit.0?));
        let run = directory.as_run();
        let mut ledger = Ledger::read(file, plan, directory)?;
        let was_requested = run.requested(&run.stop_request()).is_some();
        let claim = run.claim()?;
        ledger.begin(file)?;
        let TakenUp { queue, works, doubtful } = take_up(&mut ledger, &room, arguments.retry)?;
        let at_work = AtWork::default();
        at_work.suspend_together()?;
        at_work.note(&works);
        let wish = Wish::listen()?;
        let end_of_job = end_of_job();
        let mut farm = Self {
            file,
            nodes: Nodes::new(&room.nodes),
            room,
            arguments,
            claim,
            wish,
            deadline: limit.into_iter().chain(end_of_job.at).min(),
            end_of_job,
            queue,
            works,
            at_work,
            progress_before: ledger.progress()?,
            was_requested,
            is_out_of_time: false,
            was_cancelled: false,
            failure: None,
            looked_at: Instant::now(),
            ledger,
        };
        doubtful.into_iter().try_for_each(|outcome| farm.judge(outcome))?;
        Ok(farm)
    }

    /// Runs the farm until nothing runs and nothing can be started.
    pub(super) fn run(mut self) -> Result<Exit> {
        let root = self.ledger.directory.root().display();
        let jobs = counted(self.ledger.reports.len(), "job");
        tell(format_args!("{jobs} in `{root}`; watch it with `scrimp watch {root}`"));
        if self.was_requested {
            tell(format_args!(
                "a request to stop lay there: nothing is started; the next start goes on"
            ));
            self.queue.close();
            self.wish.stop();
        }
        while !self.queue.is_over() {
            self.look_at_wishes();
            self.look_at_ends();
            self.look_at_nodes();
            for start in self.queue.starts(self.nodes.outages()) {
                if let Err(failure) = self.start(&start) {
                    self.queue.ended(start.job, JobEnd::Unknown);
                    self.give_up(failure);
                }
            }
            std::thread::sleep(PAUSE);
        }
        self.end()
    }

    fn start(&mut self, start: &Start) -> Result<()> {
        let variables = self.variables(&start.seats);
        self.ledger.note_start(start)?;
        let Ledger { plan, directory, reports } = &mut self.ledger;
        let (job, task) = (&plan.list.jobs[start.job], &plan.tasks[start.job]);
        let mut words = task.kind.words(job, directory, &options(task.restarts, self.deadline));
        if job.kind == JobKind::Train {
            words.extend(start.seats.launch_words(plan.list.slots.gpus > 0));
        }
        let started = Started { job, words: &words, variables };
        let work = Work::start(start.job, &started, directory)?;
        if let Some(pid) = work.pid() {
            reports[start.job].note_process(pid);
        }
        self.works.push(work);
        self.at_work.note(&self.works);
        self.ledger.write(start.job)?;
        self.tell_start(start);
        Ok(())
    }

    fn tell_start(&self, start: &Start) {
        let job = self.ledger.job(start.job);
        let gpus = match &start.seats.gpus[..] {
            [] => String::new(),
            [gpu] => format!(" and GPU {gpu}"),
            gpus => format!(" and GPUs {gpus:?}"),
        };
        let hosts: Vec<&str> = start.seats.hosts.iter().map(|host| host.host.as_str()).collect();
        let on = if hosts.is_empty() { String::new() } else { format!(" on {}", hosts.join(", ")) };
        let done = self.ledger.counted(&self.queue);
        let (name, processes) = (&job.name, counted(job.ranks, "process"));
        tell(format_args!("{done}: `{name}` starts with {processes}{gpus}{on}"));
    }

    /// The environment of a job: this program on the path, its share of the processors, its GPUs.
    fn variables(&self, seats: &Seats) -> Vec<(&'static str, String)> {
        let mut variables = vec![("PATH", path())];
        variables.extend(self.end_of_job.variable());
        if std::env::var_os("OMP_NUM_THREADS").is_none() {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            let threads = (processors / self.room.processes_beside(seats)).max(1);
            variables.push(("OMP_NUM_THREADS", threads.to_string()));
        }
        if self.ledger.plan.list.slots.gpus > 0 {
            let names = seats.gpus.iter().filter_map(|&gpu| self.room.gpu_names.get(gpu));
            let names: Vec<&str> = names.map(String::as_str).collect();
            variables.push(("CUDA_VISIBLE_DEVICES", names.join(",")));
        }
        if !seats.hosts.is_empty() {
            // By default a step of Slurm has its nodes to itself, and the `mpirun` of the next job waits for its end.
            variables.push(("SLURM_OVERLAP", "1".to_owned()));
        }
        variables
    }

    fn look_at_wishes(&mut self) {
        if self.looked_at.elapsed() >= LOOK {
            self.looked_at = Instant::now();
            self.look_at_the_directory();
            for work in &mut self.works {
                let (job, report) = (self.ledger.job(work.job), &self.ledger.reports[work.job]);
                self.nodes.listen_to(work, &job.name, &report.hosts);
            }
        }
        if is_out_of_time(self.left()) && !self.is_out_of_time {
            self.is_out_of_time = true;
            self.queue.close();
            tell(format_args!("the time is nearly over: starts nothing more"));
        }
        let is_late = self.is_late();
        let level = if is_late { self.wish.level().max(Wish::STOP) } else { self.wish.level() };
        if level == 0 {
            return;
        }
        self.queue.close();
        let in_its_place = if is_late { Signal::User1 } else { Signal::Terminate };
        let signal = self.wish.signal().unwrap_or(in_its_place);
        for work in &mut self.works {
            work.ask(level, signal);
        }
    }

    /// The time that is left, where there is a limit.
    fn left(&self) -> Option<Duration> {
        self.deadline.map(|end| end.duration_since(SystemTime::now()).unwrap_or_default())
    }

    fn is_late(&self) -> bool {
        self.left().is_some_and(|left| left < LAST_MOMENTS)
    }

    fn look_at_the_directory(&mut self) {
        let run = self.ledger.directory.as_run();
        let request = run.requested(&run.stop_request()).filter(|_| !self.was_requested);
        if let Some(request) = request {
            self.was_requested = true;
            let by = if request.by.is_empty() { "somebody" } else { &request.by };
            tell(format_args!(
                "{by} asked for a stop: starts nothing more and asks all jobs to save and stop"
            ));
            self.wish.stop();
        }
        if let Err(failure) = self.claim.fence().check() {
            self.give_up(failure);
        }
    }

    /// Has all jobs save and stop, because the farm itself cannot go on.
    fn give_up(&mut self, failure: Failure) {
        if self.failure.is_none() {
            tell(format_args!("{}: asks all jobs to save and stop", failure.sentence()));
            self.failure = Some(failure);
        }
        self.queue.close();
        self.wish.stop();
    }

    fn look_at_ends(&mut self) {
        let mut number = 0;
        while number < self.works.len() {
            let job = self.works[number].job;
            match self.works[number].ended(&self.ledger.reports[job]) {
                Ok(None) => number += 1,
                Ok(Some(ended)) => {
                    let work = self.works.remove(number);
                    self.at_work.note(&self.works);
                    if let Err(failure) = self.note_end(&work, ended) {
                        if self.queue.state(job) == JobState::Running {
                            self.queue.ended(job, JobEnd::Unknown);
                        }
                        self.give_up(failure);
                    }
                }
                Err(failure) => {
                    self.give_up(failure);
                    number += 1;
                }
            }
        }
    }

    /// Takes note of how a job has ended.
    fn note_end(&mut self, work: &Work, ended: Ended) -> Result<()> {
        let job = work.job;
        let ended = match ended {
            Ended::Unseen => self.ledger.end_of(job)?.0,
            Ended::With(code) => Ended::With(code),
        };
        self.ledger.add_time(job, now_ms());
        let lost_with = work.lost_with().map(str::to_owned);
        let was_silent = work.has_fallen_silent();
        let outcome = Outcome { job, ended, asked: work.asked(), was_silent, lost_with };
        self.judge(outcome)
    }

    /// Notes how a job has ended, or asks its nodes before.
    fn judge(&mut self, outcome: Outcome) -> Result<()> {
        let hosts = &self.ledger.reports[outcome.job].hosts;
        self.nodes.keep(outcome, hosts).map_or(Ok(()), |outcome| self.settle(&outcome))
    }

    /// Asks nodes, and settles what their answers decide.
    fn look_at_nodes(&mut self) {
        self.nodes.look(&self.ledger.directory);
        let is_no_time = self.is_late() || self.wish.level() >= Wish::END;
        for outcome in self.nodes.decided(&self.ledger.reports, is_no_time) {
            if let Err(failure) = self.settle(&outcome) {
                self.give_up(failure);
            }
        }
        if self.nodes.have_stayed_away(&self.queue) {
            self.queue.close();
        }
    }

    /// Notes how a job has ended, and what follows for others.
    fn settle(&mut self, outcome: &Outcome) -> Result<()> {
        let (number, asked) = (outcome.job, outcome.asked);
        let run = self.ledger.directory.run(&self.ledger.job(number).name);
        // Where the log cannot be read, it is as if there were none.
        let newest = || newest_checkpoint(&run).unwrap_or_default();
        let end = outcome.end(outcome.lost_with.as_ref().and_then(|_| newest()));
        let is_lost = matches!(end, JobEnd::Lost { .. });
        let code = outcome.code().filter(|_| !is_lost);
        self.was_cancelled |= asked == 0 && code == Some(Exit::Cancelled as i32);
        let blocked = self.queue.ended(number, end);
        let message = match code {
            _ if is_lost => self.loss(outcome),
            _ if end == JobEnd::Stopped && asked >= Wish::END => "ended at once".to_owned(),
            Some(code) if end == JobEnd::Stopped && code > 128 => "ended on request".to_owned(),
            Some(code) => self.ledger.message(number, code),
            None => String::new(),
        };
        self.ledger.note_end(number, &self.queue, code, message.clone())?;
        self.tell_end(number, &message);
        for number in blocked {
            self.ledger.note_state(number, &self.queue)?;
            let message = &self.ledger.reports[number].message;
            tell(format_args!("`{}` is blocked: {message}", self.ledger.job(number).name));
        }
        Ok(())
    }

    /// What there is to say of a job that was lost with a node.
    fn loss(&self, outcome: &Outcome) -> String {
        let with = outcome.lost_with.as_deref().unwrap_or_default();
        let has_failed = self.queue.state(outcome.job) == JobState::Failed;
        let before =
            if has_failed { ", as those before it on which nothing new was saved" } else { "" };
        format!("lost with {with}{before}")
    }

    fn tell_end(&self, number: usize, message: &str) {
        let name = &self.ledger.job(number).name;
        match self.queue.state(number) {
            JobState::Done => {
                tell(format_args!("{}: `{name}` is done", self.ledger.counted(&self.queue)));
            }
            JobState::Failed => {
                let log = self.ledger.directory.log(name);
                tell(format_args!("`{name}` has failed: {message}; see `{}`", log.display()));
            }
            JobState::Waiting => tell(format_args!("`{name}` is to start again: {message}")),
            state => tell(format_args!("`{name}` is {}: {message}", state.name())),
        }
    }

    /// The table, what has failed, and what follows.
    fn end(mut self) -> Result<Exit> {
        for number in 0..self.ledger.reports.len() {
            if let Err(failure) = self.ledger.note_state(number, &self.queue) {
                self.failure.get_or_insert(failure);
            }
        }
        if let Some(failure) = self.failure.take() {
            return Err(failure.hint("the same command goes on where the jobs were left"));
        }
        table::tell(self.file, &self.ledger.plan, &self.ledger.directory, self.arguments.json)?;
        for (job, report) in self.ledger.plan.list.jobs.iter().zip(&self.ledger.reports) {
            if matches!(report.state, JobState::Failed | JobState::Blocked) {
                let (name, state) = (&job.name, report.state.name());
                tell(format_args!("`{name}` {state}: {}", report.message));
            }
        }
        let exit = self.queue.exit();
        if exit == Exit::Failed {
            tell(format_args!("`--retry` starts once more what has failed"));
        }
        if exit == Exit::Stopped { self.follow_a_stop() } else { Ok(exit) }
    }

    fn follow_a_stop(&self) -> Result<Exit> {
        let is_wanted = self.was_cancelled && self.wish.signal().is_none() && !self.is_out_of_time;
        let mut stop = Stop {
            exit: if is_wanted { Exit::Cancelled } else { Exit::Stopped },
            signal: self.wish.signal(),
            is_requested: self.was_requested,
            is_preempted: false,
            newest: [Some(self.progress_before), Some(self.ledger.progress()?)],
        };
        stop.is_preempted = !is_wanted && stop.depends_on_preemption() && is_preempted();
        tell(format_args!("the same command goes on"));
        let run = self.ledger.directory.as_run();
        // Obeyed by now.
        run.withdraw(&run.stop_request())?;
        let Some(command) = self.arguments.requeue.as_deref().filter(|_| stop.is_to_go_on()) else {
            return Ok(stop.exit());
        };
        tell(format_args!("{command}"));
        let status = Command::new("sh").args(["-c", command]).status();
        let status = status.context(|| "cannot start `sh`")?;
        if status.success() {
            return Ok(stop.exit());
        }
        Err(Failure::new(format!("`{command}` failed, {status}: nobody submitted the farm again"))
            .hint("all jobs are saved: submit it by hand"))
    }
}

/// The options of `scrimp launch`.
fn options(restarts: usize, deadline: Option<SystemTime>) -> Vec<String> {
    let mut options = Vec::new();
    if restarts > 0 {
        options.extend(["--restarts".to_owned(), restarts.to_string()]);
    }
    if let Some(end) = deadline.and_then(|end| end.duration_since(UNIX_EPOCH).ok()) {
        options.extend(["--deadline".to_owned(), end.as_secs().to_string()]);
    }
    options
}

/// The folder of this program in front of what `PATH` says, so that commands find it.
fn path() -> String {
    let own = std::env::current_exe().ok();
    let own = own.as_deref().and_then(Path::parent).map(|path| path.display().to_string());
    let path = std::env::var("PATH").unwrap_or_default();
    own.map_or(path.clone(), |own| format!("{own}:{path}"))
}

/// When the Slurm job that this is in ends.
fn end_of_job() -> EndOfJob {
    let end = EndOfJob::find();
    if let Some(note) = &end.note {
        tell(format_args!("{note}"));
    }
    end
}
