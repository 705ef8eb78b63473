//! Runs the built program as its users do, alone or under `mpirun`, and reads what it left behind.
//!
//! Knows how to start, watch and kill a run; what a run should have done, the tests say.

use scrimp::runlog::directory::RunDirectory;
use scrimp::runlog::flight::FlightReport;
use scrimp::runlog::io::Tail;
use scrimp::runlog::{RunEvent, RunStatus, Step};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What takes longer hangs: the longest run of the tests takes a tenth of it on an idle machine.
const LIMIT: Duration = Duration::from_mins(2);
/// Between two looks at a process or a log.
const PAUSE: Duration = Duration::from_millis(2);

/// A configuration of this repository that trains in seconds.
pub(crate) const SMOKE: &str = "configs/smoke/partial-ce.toml";

/// A `scrimp train` to be started, on the CPU with one thread for each rank.
pub(crate) struct Train {
    run: RunDirectory,
    words: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Train {
    /// `scrimp train CONFIG --run RUN`.
    pub(crate) fn new(config: &str, run: &Path) -> Self {
        Self::of(run).argument(config)
    }

    /// `scrimp train --run RUN` alone.
    pub(crate) fn again(run: &Path) -> Self {
        Self::of(run)
    }

    fn of(run: &Path) -> Self {
        let words = [env!("CARGO_BIN_EXE_scrimp"), "train", "--run", run.to_str().unwrap()];
        let words = words.map(str::to_owned).to_vec();
        let this = Self { run: RunDirectory::new(run), words, variables: Vec::new() };
        this.set("train.threads=1").set("train.device=cpu")
    }

    /// Adds one argument.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.words.push(argument.to_owned());
        self
    }

    /// Adds `--set KEY=VALUE`.
    pub(crate) fn set(self, override_: &str) -> Self {
        self.argument("--set").argument(override_)
    }

    /// Adds several `--set KEY=VALUE`.
    pub(crate) fn sets(self, overrides: &[&str]) -> Self {
        overrides.iter().fold(self, |train, override_| train.set(override_))
    }

    /// Sets an environment variable.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it with `mpirun` on this many ranks; call it last.
    pub(crate) fn under_mpirun(self, ranks: usize) -> Self {
        let ranks = ranks.to_string();
        self.started_by(&["mpirun", "--oversubscribe", "--bind-to", "none", "-n", &ranks])
    }

    /// Starts it with `scrimp launch` on this many ranks, with further options; call it last.
    pub(crate) fn launched(mut self, ranks: usize, options: &[&str]) -> Self {
        "launch".clone_into(&mut self.words[1]);
        let ranks = ranks.to_string();
        options.iter().chain(&["-n", &ranks]).fold(self, |train, option| train.argument(option))
    }

    /// Starts it with a job script, which hands its arguments to `scrimp launch`; call it last.
    pub(crate) fn by_script(mut self, script: &str) -> Self {
        self.words.splice(..2, ["bash", script].map(str::to_owned));
        self
    }

    /// The same with a script that takes its arguments from the variable `arguments`; call it last.
    pub(crate) fn by_script_without_arguments(mut self, script: &str) -> Self {
        let arguments = self.words.split_off(2).join(" ");
        self.by_script(script).variable("arguments", &arguments)
    }

    /// Starts it as `nohup` and shells without job control do: `SIGHUP` and `SIGINT` are ignored; call it
    /// last.
    pub(crate) fn deaf(self) -> Self {
        self.started_by(&["bash", "-c", "trap '' HUP INT; exec \"$@\"", "bash"])
    }

    /// Starts it alone where this is 1, else under `mpirun`; call it last.
    pub(crate) fn on_ranks(self, ranks: usize) -> Self {
        if ranks == 1 { self } else { self.under_mpirun(ranks) }
    }

    /// Makes writing beyond this size of one file fail, as on a full disk; call it last.
    pub(crate) fn with_largest_file_kib(self, limit: u64) -> Self {
        let script = format!("ulimit -f {limit}; exec \"$@\"");
        self.started_by(&["bash", "-c", &script, "bash"])
    }

    /// Gives rank 1 alone further arguments; call it in front of [`Train::under_mpirun`].
    pub(crate) fn with_on_rank_1(self, arguments: &str) -> Self {
        let script =
            format!("[ $OMPI_COMM_WORLD_RANK = 0 ] || set -- \"$@\" {arguments}; exec \"$@\"");
        self.started_by(&["bash", "-c", &script, "bash"])
    }

    fn started_by(mut self, launcher: &[&str]) -> Self {
        self.words.splice(..0, launcher.iter().map(|&word| word.to_owned()));
        self
    }

    /// Starts it in the folder of this crate.
    pub(crate) fn start(self) -> Running {
        let output = TempDir::new().unwrap();
        let file = |name| File::create(output.path().join(name)).unwrap();
        let child = Command::new(&self.words[0])
            .args(&self.words[1..])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
            .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
            // Where others use the cores too, ranks that wait by spinning keep each other waiting.
            .env("OMPI_MCA_mpi_yield_when_idle", "1")
            .envs(self.variables)
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("the program or its launcher starts");
        Running { child, output, run: self.run, started: Instant::now() }
    }

    /// Runs it to its end.
    pub(crate) fn finish(self) -> Ended {
        self.start().end()
    }

    /// Runs it to its end, which must be that all steps are done.
    pub(crate) fn succeed(self) -> Ended {
        let ended = self.finish();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended
    }
}

/// A `scrimp train` under way.
pub(crate) struct Running {
    child: Child,
    output: TempDir,
    pub(crate) run: RunDirectory,
    started: Instant,
}

impl Running {
    /// Waits until rank 0 has logged what `is_awaited` accepts.
    pub(crate) fn wait_for(&mut self, is_awaited: impl Fn(&RunEvent) -> bool) {
        while !events(&self.run).iter().any(&is_awaited) {
            let over = self.child.try_wait().unwrap();
            assert!(over.is_none(), "it ended before: {}", self.stderr());
            self.pause();
        }
    }

    /// Waits until the checkpoint of this step is complete.
    pub(crate) fn wait_for_checkpoint(&mut self, awaited: u64) {
        self.wait_for(
            |event| matches!(event, RunEvent::CheckpointSaved { step, .. } if *step == awaited),
        );
    }

    /// The steps that are logged by now.
    pub(crate) fn steps(&self) -> BTreeMap<u64, Step> {
        steps(events(&self.run))
    }

    /// Sends it a signal again and again until it ends.
    pub(crate) fn insist(mut self, name: &str) -> Ended {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return self.ended(status);
            }
            signal(name, &[self.pid()]);
            self.pause();
        }
    }

    /// The process of `mpirun`, or of the run itself where it was started without.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The processes of the ranks below `mpirun`.
    pub(crate) fn rank_pids(&self) -> Vec<u32> {
        let tasks = Path::new("/proc").join(self.pid().to_string()).join("task");
        let children = |task: std::fs::DirEntry| {
            std::fs::read_to_string(task.path().join("children")).unwrap_or_default()
        };
        let text: String = tasks.read_dir().unwrap().map(|task| children(task.unwrap())).collect();
        text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    /// The process of one rank below `mpirun`.
    pub(crate) fn rank_pid(&self, rank: usize) -> u32 {
        let variable = format!("OMPI_COMM_WORLD_RANK={rank}");
        let is_it = |pid: &u32| {
            let variables = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            variables.split(|&byte| byte == 0).any(|found| found == variable.as_bytes())
        };
        self.rank_pids().into_iter().find(is_it).expect("the rank runs")
    }

    /// Waits until a file exists.
    pub(crate) fn wait_for_file(&mut self, file: &Path) {
        while !file.exists() {
            let over = self.child.try_wait().unwrap();
            assert!(over.is_none(), "it ended before: {}", self.stderr());
            self.pause();
        }
    }

    /// Waits until a rank has said what it does, and returns that.
    pub(crate) fn wait_for_report(&mut self, rank: usize) -> FlightReport {
        self.wait_for_file(&self.run.flight(rank));
        FlightReport::read(&self.run, rank).unwrap()
    }

    /// Kills the process and, under `mpirun`, every rank, so that nobody can tidy up.
    pub(crate) fn kill(self) -> Ended {
        let mut pids = self.rank_pids();
        pids.push(self.pid());
        signal("KILL", &pids);
        self.end_of(&pids)
    }

    /// Kills one rank, and leaves it to `mpirun` to end the others.
    pub(crate) fn kill_rank(self, rank: usize) -> Ended {
        let pids = self.rank_pids();
        signal("KILL", &[self.rank_pid(rank)]);
        self.end_of(&pids)
    }

    /// Waits for the end, also of these processes: `mpirun` does not wait for those that it kills.
    pub(crate) fn end_of(self, pids: &[u32]) -> Ended {
        let ended = self.end();
        let waiting_since = Instant::now();
        while let Some(pid) = pids.iter().find(|&&pid| is_running(pid)) {
            assert!(waiting_since.elapsed() < LIMIT, "process {pid} goes on: {}", ended.stderr);
            std::thread::sleep(PAUSE);
        }
        ended
    }

    /// Waits for the end; what takes too long is ended and fails the test.
    pub(crate) fn end(mut self) -> Ended {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return self.ended(status);
            }
            self.pause();
        }
    }

    fn pause(&mut self) {
        if self.started.elapsed() > LIMIT {
            // `mpirun` ends its ranks when it is asked to end itself.
            signal("TERM", &[self.pid()]);
            self.child.wait().unwrap();
            panic!("it hung: {}", self.stderr());
        }
        std::thread::sleep(PAUSE);
    }

    /// Waits until rank 0 is in a step.
    pub(crate) fn wait_until_in_step(&mut self) {
        let run = self.run.clone();
        self.wait_until(|| FlightReport::read(&run, 0).is_some_and(|report| report.step > 0));
    }

    /// Waits until it has said this on stderr.
    pub(crate) fn wait_for_words(&mut self, words: &str) {
        while !self.stderr().contains(words) {
            self.pause_under_way();
        }
    }

    /// Waits until something is so outside of it.
    pub(crate) fn wait_until(&mut self, is_so: impl Fn() -> bool) {
        while !is_so() {
            self.pause_under_way();
        }
    }

    fn pause_under_way(&mut self) {
        let over = self.child.try_wait().unwrap();
        assert!(over.is_none(), "it ended before: {}", self.stderr());
        self.pause();
    }

    fn stderr(&self) -> String {
        let bytes = std::fs::read(self.output.path().join("stderr")).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn ended(&self, status: ExitStatus) -> Ended {
        Ended { code: status.code(), stderr: self.stderr(), run: self.run.clone() }
    }
}

/// Sends a signal to processes, some of which may be gone.
pub(crate) fn signal(name: &str, pids: &[u32]) {
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    // The shell's own: a bare system has no such program.
    let kill = ["-c", "kill \"$@\"", "kill"];
    Command::new("sh").args(kill).arg(format!("-{name}")).args(pids).output().unwrap();
}

/// Whether a process exists and is not waiting to be collected.
fn is_running(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

/// The state of a process as the system names it: `T` where it is suspended; none where there is none.
pub(crate) fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// What rank 0 has logged by now.
pub(crate) fn events(run: &RunDirectory) -> Vec<RunEvent> {
    let mut tail = Tail::new(run.rank_events(0));
    let pieces =
        std::iter::from_fn(|| Some(tail.read().unwrap()).filter(|piece| !piece.is_empty()));
    pieces.flatten().map(|record| record.event).collect()
}

/// The steps among them.
pub(crate) fn steps(events: Vec<RunEvent>) -> BTreeMap<u64, Step> {
    let step = |event| match event {
        RunEvent::Step(step) => Some((step.step, step)),
        _ => None,
    };
    events.into_iter().filter_map(step).collect()
}

/// What was warned of in them.
pub(crate) fn warnings(events: Vec<RunEvent>) -> Vec<String> {
    let warning = |event| match event {
        RunEvent::Warning { message } => Some(message),
        _ => None,
    };
    events.into_iter().filter_map(warning).collect()
}

/// A `scrimp train` that is over.
pub(crate) struct Ended {
    /// The exit code; none where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
    pub(crate) run: RunDirectory,
}

impl Ended {
    /// What rank 0 logged, over all processes that have worked on this run.
    pub(crate) fn events(&self) -> Vec<RunEvent> {
        events(&self.run)
    }

    /// The logged steps; a step that was done again counts as it was done last.
    pub(crate) fn steps(&self) -> BTreeMap<u64, Step> {
        steps(self.events())
    }

    /// The step after which it was resumed last.
    pub(crate) fn resumed_from(&self) -> Option<u64> {
        let step = |event| match event {
            RunEvent::Resumed { step, .. } => Some(step),
            _ => None,
        };
        self.events().into_iter().rev().find_map(step)
    }

    /// Everything that was warned of, in order.
    pub(crate) fn warnings(&self) -> Vec<String> {
        warnings(self.events())
    }

    /// How the last process ended, where it still could say so.
    pub(crate) fn status(&self) -> Option<RunStatus> {
        match self.events().pop() {
            Some(RunEvent::RunEnded { status, .. }) => Some(status),
            _ => None,
        }
    }

    /// The exit code and what the ranks wrote on stderr, without what `mpirun` adds in boxes.
    pub(crate) fn complaint(&self) -> String {
        let is_edge = |line: &str| line.len() > 40 && line.chars().all(|letter| letter == '-');
        let mut in_box = false;
        let mut lines = vec![format!("exit code {}", self.code.expect("no signal ended it"))];
        for line in self.stderr.lines() {
            if is_edge(line) {
                in_box = !in_box;
            } else if !in_box {
                lines.push(line.to_owned());
            }
        }
        lines.join("\n")
    }
}
