//! `scrimp farm`: one failure harms nobody, what was killed goes on, wishes reach every job, and Slurm gets the same jobs.

use crate::running::{SMOKE, events, signal};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use scrimp::runlog::RunEvent;
use scrimp::runlog::farm::{FarmDirectory, JobReport, JobState};
use scrimp::runlog::flight::FlightReport;
use std::cell::Cell;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What takes longer hangs.
const LIMIT: Duration = Duration::from_mins(3);
/// Between two looks at a process or a file.
const PAUSE: Duration = Duration::from_millis(5);

/// A farm file and its directory.
struct Site {
    folder: TempDir,
    file: PathBuf,
    farm: FarmDirectory,
    variables: Vec<(String, String)>,
}

impl Site {
    fn new(text: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("farm.toml");
        fs::write(&file, text).unwrap();
        let farm = FarmDirectory::new(folder.path().join("farm"));
        Self { folder, file, farm, variables: Vec::new() }
    }

    /// Starts it in the folder of this crate, in a process group of its own.
    fn start(&self, arguments: &[&str]) -> Running<'_> {
        let stderr = self.folder.path().join("stderr");
        let output = |name: &str| File::create(self.folder.path().join(name)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_scrimp"))
            .arg("farm")
            .arg(&self.file)
            .arg("--run")
            .arg(self.farm.root())
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("OMPI_MCA_mpi_yield_when_idle", "1")
            .env("OMP_NUM_THREADS", "1")
            .envs(self.variables.iter().cloned())
            .stdout(output("stdout"))
            .stderr(output("stderr"))
            .process_group(0)
            .spawn()
            .unwrap();
        Running { site: self, child, stderr, started: Instant::now() }
    }

    fn report(&self, job: &str) -> JobReport {
        self.farm.read_report(job).unwrap()
    }

    /// How far the jobs have come, those that are named.
    fn states<const N: usize>(&self, jobs: [&str; N]) -> [JobState; N] {
        jobs.map(|job| self.report(job).state)
    }

    fn stdout(&self) -> String {
        fs::read_to_string(self.folder.path().join("stdout")).unwrap()
    }

    /// The table without what differs from time to time: hours and memory.
    fn table(&self) -> String {
        let text = fs::read_to_string(self.farm.table_markdown()).unwrap();
        let rows = text.lines().filter(|line| line.starts_with('|'));
        let kept = rows.map(|row| row.rsplitn(4, '|').last().unwrap_or_default());
        kept.collect::<Vec<_>>().join("\n")
    }
}

/// A farm under way.
struct Running<'a> {
    site: &'a Site,
    child: Child,
    stderr: PathBuf,
    started: Instant,
}

impl Running<'_> {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    fn wait_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            let over = self.child.try_wait().unwrap();
            assert!(over.is_none(), "it ended before {what}: {}", self.stderr());
            self.pause(what);
        }
    }

    fn pause(&mut self, what: &str) {
        if self.started.elapsed() > LIMIT {
            signal("TERM", &[self.pid()]);
            panic!("waited too long for {what}: {}", self.stderr());
        }
        std::thread::sleep(PAUSE);
    }

    /// Waits until the run of a job has logged a step.
    fn wait_for_step(&mut self, job: &str) {
        let run = self.site.farm.run(job);
        let is_step = |event: &RunEvent| matches!(event, RunEvent::Step(_));
        self.wait_until("a step", |_| events(&run).iter().any(is_step));
    }

    /// Waits until the first rank of a job has its run directory, and suspends it; gives its number.
    fn suspend(&mut self, job: &str) -> u32 {
        let (run, found) = (self.site.farm.run(job), Cell::new(None));
        self.wait_until("a process", |_| {
            found.set(run.writer().map(|writer| writer.pid));
            found.get().is_some()
        });
        let pid = found.get().unwrap();
        signal("STOP", &[pid]);
        pid
    }

    /// Kills the farm, alone or with its process group.
    fn kill(mut self, group: bool) {
        let pid = Pid::from_child(&self.child);
        let kill = if group { kill_process_group } else { kill_process };
        kill(pid, Signal::KILL).unwrap();
        self.child.wait().unwrap();
    }

    fn end(mut self) -> (i32, String) {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code().expect("no signal ends it"), self.stderr());
            }
            self.pause("the end");
        }
    }
}

/// Six jobs on two slots: one that fails in its first step, one of which a rank stands still, and what needs others.
fn six_jobs() -> String {
    format!(
        "\
set = [\"train.total_steps=2\", \"train.evaluate_every=2\", \"train.save_every=2\", \"train.device=cpu\", \
\"train.threads=1\"]
seeds = [7]

[slots]
processes = 2
gpus = 0

[table]
compare_with = \"plain\"

[rows.plain]
config = \"{SMOKE}\"

[rows.crashes]
config = \"{SMOKE}\"
set = [\"method.params.learner.lr=1e30\"]

[rows.hangs]
config = \"{SMOKE}\"
set = [\"train.total_steps=100000\", \"train.evaluate_every=100000\", \"train.save_every=100000\", \
\"train.hang_limit=4s\"]
ranks = 2

[rows.after]
config = \"{SMOKE}\"
set = [\"method.params.learner.lr=0.01\"]
needs = [\"plain\"]

[rows.counted]
command = [\"sh\", \"-c\", \"cat {{after}}/scores/*.csv >{{run}}/{{seed}}.csv\"]
needs = [\"after\"]

[rows.blocked]
command = [\"true\"]
needs = [\"crashes\", \"plain\"]
"
    )
}

const JOBS: [&str; 6] = [
    "plain-seed7",
    "crashes-seed7",
    "hangs-seed7",
    "after-seed7",
    "counted-seed7",
    "blocked-seed7",
];
const ENDS: [JobState; 6] = [
    JobState::Done,
    JobState::Failed,
    JobState::Failed,
    JobState::Done,
    JobState::Done,
    JobState::Blocked,
];

fn end_with_a_rank_that_stands_still(mut running: Running<'_>) -> String {
    running.wait_for_step("hangs-seed7");
    let run = running.site.farm.run("hangs-seed7");
    running.wait_until("a report", |_| FlightReport::read(&run, 1).is_some());
    signal("STOP", &[FlightReport::read(&run, 1).unwrap().pid]);
    let (code, stderr) = running.end();
    assert_eq!(code, 1, "{stderr}");
    stderr
}

#[test]
fn a_farm_that_is_killed_twice_ends_with_the_same_table() {
    let [whole, killed] = [(); 2].map(|()| Site::new(&six_jobs()));
    let stderr = end_with_a_rank_that_stands_still(whole.start(&[]));
    assert_eq!(whole.states(JOBS), ENDS, "{stderr}");
    assert!(stderr.contains("`blocked-seed7` is blocked: it needs `crashes-seed7`"), "{stderr}");
    assert_eq!(whole.report("hangs-seed7").exit_code, Some(76), "{stderr}");
    assert!(whole.report("hangs-seed7").message.contains("rank 1 stopped answering"), "{stderr}");
    assert!(whole.farm.run("counted-seed7").root().join("7.csv").exists());
    assert!(whole.stdout().contains("p against plain"), "{}", whole.stdout());

    // Killed alone while a job runs, which stands still so that the next farm finds it alive.
    let mut running = killed.start(&[]);
    let rank = running.suspend("plain-seed7");
    let second = Command::new(env!("CARGO_BIN_EXE_scrimp"))
        .args([
            "farm",
            killed.file.to_str().unwrap(),
            "--run",
            killed.farm.root().to_str().unwrap(),
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let refused = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{refused}");
    assert!(refused.contains("belongs to a run that is alive"), "{refused}");
    running.kill(false);
    let mut running = killed.start(&[]);
    running.wait_until("the job is found", |running| {
        running.stderr().contains("`plain-seed7` is alive: waits for it")
    });
    signal("CONT", &[rank]);
    running.wait_until("the job is done", |_| killed.report("plain-seed7").state == JobState::Done);
    // Killed with its process group, in the middle of whatever runs by now.
    running.kill(true);
    let stderr = end_with_a_rank_that_stands_still(killed.start(&[]));
    assert_eq!(killed.states(JOBS), ENDS, "{stderr}");
    assert_eq!(killed.report("plain-seed7").attempts, 1);
    assert_eq!(killed.table(), whole.table());

    // Nothing is left to do, and what is done is not done again.
    let (code, stderr) = killed.start(&["--json"]).end();
    assert_eq!((code, stderr.contains("starts with")), (1, false), "{stderr}");
    assert_eq!(killed.table(), whole.table());
    let told: serde_json::Value = serde_json::from_str(&killed.stdout()).unwrap();
    let (plain, after) = (&told["rows"][0], &told["rows"][3]);
    assert_eq!(
        (&plain["row"], &plain["scored_jobs"], &plain["p"]),
        (&"plain".into(), &1.into(), &().into())
    );
    assert!(plain["dice"]["mean"].is_number() && plain["hd95"]["mean"].is_number(), "{plain}");
    assert!(after["core_hours"].as_f64() > plain["core_hours"].as_f64(), "{after}");
    assert_eq!((&after["row"], &told["unit"]), (&"after".into(), &"mm".into()));
}

#[test]
fn wishes_reach_the_jobs_and_the_next_start_goes_on() {
    let text = format!(
        "\
set = [\"train.save_every=5\", \"train.evaluate_every=100000\", \"train.device=cpu\"]
[slots]
processes = 2
gpus = 0
[rows.long]
config = \"{SMOKE}\"
set = [\"train.total_steps=100000\"]
[rows.command]
command = [\"sleep\", \"1000\"]
[rows.waits]
command = [\"true\"]
needs = [\"long\"]
"
    );
    let site = Site::new(&text);
    let jobs = ["long", "command", "waits"];
    let stopped = [JobState::Stopped, JobState::Stopped, JobState::Waiting];
    let mut running = site.start(&[]);
    running.wait_for_step("long");
    signal("INT", &[running.pid()]);
    let (code, stderr) = running.end();
    assert_eq!((code, site.states(jobs)), (77, stopped), "{stderr}");
    assert_eq!(site.report("long").message, "stopped by SIGINT");

    // The time of a batch job is nearly over.
    let asked = site.folder.path().join("asked");
    let requeue = format!("touch {}", asked.display());
    let mut running = site.start(&["--requeue", &requeue]);
    let run = site.farm.run("long");
    let count = |events: Vec<RunEvent>| {
        events.iter().filter(|event| matches!(event, RunEvent::CheckpointSaved { .. })).count()
    };
    let before = count(events(&run));
    running.wait_until("a checkpoint", |_| count(events(&run)) > before);
    signal("USR1", &[running.pid()]);
    let (code, stderr) = running.end();
    assert_eq!((code, asked.exists(), site.states(jobs)), (75, true, stopped), "{stderr}");

    // A request in the directory, and then somebody who insists.
    let mut running = site.start(&["--requeue", "false"]);
    let starts = |events: Vec<RunEvent>| {
        events.iter().filter(|event| matches!(event, RunEvent::RunStarted(_))).count()
    };
    running.wait_until("a start", |_| starts(events(&run)) == 3);
    site.farm.as_run().request_stop().unwrap();
    let (code, stderr) = running.end();
    assert_eq!((code, site.states(jobs)), (77, stopped), "{stderr}");
    assert!(!site.farm.as_run().stop_request().exists());
    let mut running = site.start(&[]);
    running.suspend("long");
    signal("TERM", &[running.pid()]);
    running.wait_until("it is heard", |running| running.stderr().contains("SIGTERM: starts"));
    // What comes within a second is one request.
    std::thread::sleep(Duration::from_millis(1100));
    signal("TERM", &[running.pid()]);
    let (code, stderr) = running.end();
    assert_eq!((code, site.states(jobs)), (77, stopped), "{stderr}");
    assert!(stderr.contains("SIGTERM again: ends all jobs at once"), "{stderr}");
}

#[test]
fn commands_get_their_gpus_and_restarts_and_a_farm_without_time_starts_nothing() {
    let text = "\
[slots]
processes = 3
gpus = 2
[rows.half]
command = [\"sh\", \"-c\", \"echo $CUDA_VISIBLE_DEVICES >{run}/gpus; until [ -e {farm}/jobs/whole/gpus ]; do :; done\"]
gpus = 0.5
seeds = [1, 2]
[rows.whole]
command = [\"sh\", \"-c\", \"echo $CUDA_VISIBLE_DEVICES >{run}/gpus\"]
gpus = 1
[rows.third]
command = [\"sh\", \"-c\", \"echo x >>{farm}/tries; [ $(wc -l <{farm}/tries) = 3 ]\"]
restarts = 2
needs = [\"half\", \"whole\"]
";
    let mut site = Site::new(text);
    site.variables = vec![("CUDA_VISIBLE_DEVICES".to_owned(), "4,7".to_owned())];
    let (code, stderr) = site.start(&[]).end();
    assert_eq!(code, 0, "{stderr}");
    let gpus = ["half-seed1", "half-seed2", "whole"]
        .map(|job| fs::read_to_string(site.farm.run(job).root().join("gpus")).unwrap());
    assert_eq!(gpus, ["4\n", "4\n", "7\n"]);
    assert_eq!(site.report("third").attempts, 3, "{stderr}");

    // Jobs that were started are those of the file, whatever else changes in it.
    fs::write(&site.file, text.replace("processes = 3", "processes = 4")).unwrap();
    assert_eq!(site.start(&[]).end().0, 0);
    fs::write(&site.file, text.replace("echo x", "echo y")).unwrap();
    let (code, stderr) = site.start(&[]).end();
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("the job `third` was started as `sh -c echo x"), "{stderr}");

    let site = Site::new("time_limit = \"50s\"\n[rows.a]\ncommand = [\"true\"]\n");
    let (code, stderr) = site.start(&[]).end();
    assert_eq!((code, site.states(["a"])), (75, [JobState::Waiting]), "{stderr}");
}

#[test]
fn what_is_certain_to_fail_is_refused_before_anything_starts() {
    let good = format!("[rows.good]\ncommand = [\"true\"]\n[rows.bad]\nconfig = \"{SMOKE}\"\n");
    let texts = [
        good.clone() + "set = [\"train.totl_steps=2\"]\n",
        good.clone() + "set = [\"method.params.learner.lr=fast\"]\n",
        good.replace(SMOKE, "configs/acdc-partial-ce.toml")
            + "set = [\"data.path=/nowhere/a.h5\"]\n",
        good.replace("\"true\"", "\"no-such-program\""),
        good.replace("\"true\"", "\"scrimp\", \"evaluat\""),
        good.replace("\"true\"", "\"true\"]\nneeds = [\"bad\"") + "needs = [\"good\"]\n",
    ];
    let refused = texts.map(|text| {
        let site = Site::new(&text);
        let (code, stderr) = site.start(&[]).end();
        assert!(code == 2 && !site.farm.root().exists(), "{code}: {stderr}");
        stderr.replace(&site.folder.path().display().to_string(), "DIR")
    });
    insta::assert_snapshot!("farm_refused", refused.join("\n"));
}

/// A program that takes the place of another one.
fn program(folder: &Path, name: &str, script: &str) {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn slurm_gets_every_job_behind_those_that_it_needs() {
    let text = format!(
        "\
folds = [1, 2]
[evaluate]
[rows.first]
config = \"{SMOKE}\"
[rows.expand]
command = [\"cp\", \"{{first}}/config.toml\", \"{{run}}\"]
needs = [\"first\"]
"
    );
    let mut site = Site::new(&text);
    let folder = site.folder.path().to_owned();
    let count = "echo \"$*\" >>\"$ASKED\"; n=$(wc -l <\"$ASKED\"); echo $((n + 40))\";cluster\"";
    program(&folder, "sbatch", count);
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let asked = folder.join("asked");
    site.variables =
        vec![("PATH".to_owned(), path), ("ASKED".to_owned(), asked.display().to_string())];
    let (code, stderr) = site.start(&["--submit", "--print"]).end();
    assert!(code == 0 && !asked.exists() && !site.farm.root().exists(), "{stderr}");
    let (code, stderr) = site.start(&["--submit", "--json"]).end();
    assert_eq!(code, 0, "{stderr}");
    let told: serde_json::Value = serde_json::from_str(&site.stdout()).unwrap();
    assert_eq!(
        (&told["jobs"][3]["slurm_job"], &told["jobs"][5]["needs"][0]),
        (&44.into(), &"first-fold2".into())
    );
    let asked = fs::read_to_string(asked).unwrap();
    insta::assert_snapshot!(asked.replace(&folder.display().to_string(), "DIR"), @r"
    --parsable DIR/farm/submit/first-fold1.sh
    --parsable --dependency=afterok:41 --kill-on-invalid-dep=yes DIR/farm/submit/first-fold1-evaluate.sh
    --parsable --dependency=afterok:41 --kill-on-invalid-dep=yes DIR/farm/submit/expand-fold1.sh
    --parsable DIR/farm/submit/first-fold2.sh
    --parsable --dependency=afterok:44 --kill-on-invalid-dep=yes DIR/farm/submit/first-fold2-evaluate.sh
    --parsable --dependency=afterok:44 --kill-on-invalid-dep=yes DIR/farm/submit/expand-fold2.sh
    ");
    let (code, stderr) = site.start(&["--submit"]).end();
    assert!(code == 2 && stderr.contains("the farm was submitted already"), "{stderr}");
    // A script can be run by any shell, where Slurm starts it.
    let script = site.farm.root().join("submit/expand-fold1.sh");
    fs::create_dir_all(site.farm.run("first-fold1").root()).unwrap();
    fs::write(site.farm.run("first-fold1").config(), "x").unwrap();
    let run = Command::new("bash").arg(script).env("SLURM_SUBMIT_DIR", &folder).status().unwrap();
    assert!(run.success() && site.farm.run("expand-fold1").config().exists());
}

#[test]
fn what_a_lost_node_held_goes_elsewhere_and_what_fails_on_one_that_answers_has_failed() {
    let text = format!(
        "\
set = [\"train.total_steps=2\", \"train.evaluate_every=2\", \"train.save_every=2\", \"train.device=cpu\", \
\"train.threads=1\"]
restarts = 0
[slots]
hosts = [\"own:1\", \"sound:1\", \"lost:1\"]
gpus = 0
[rows.good]
config = \"{SMOKE}\"
seeds = [1, 2]
[rows.crashes]
config = \"{SMOKE}\"
set = [\"method.params.learner.lr=1e30\"]
"
    );
    let mut site = Site::new(&text);
    let folder = site.folder.path().to_owned();
    // One host has no road to it, and the others are this one.
    let mpirun = "case \"$*\" in
  *'--host lost:1'*) echo 'ssh: connect to host lost: No route to host' >&2; exit 1;;
  *' --host sound:1 ls '*) exit 0;;
esac
for word in \"$@\"; do
  shift
  case $word in --host) set -- \"$@\" --oversubscribe;; own:1 | sound:1) ;; *) set -- \"$@\" \"$word\";; esac
done
PATH=${PATH#*\"$OWN\":} exec mpirun \"$@\"";
    program(&folder, "mpirun", mpirun);
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    site.variables =
        vec![("PATH".to_owned(), path), ("OWN".to_owned(), folder.display().to_string())];
    let jobs = ["good-seed1", "good-seed2", "crashes"];
    let (code, stderr) = site.start(&[]).end();
    let ends = [JobState::Done, JobState::Done, JobState::Failed];
    assert_eq!((code, site.states(jobs)), (1, ends), "{stderr}");
    for said in [
        "farm: node `lost` does not answer: ssh: connect to host lost: No route to host; nothing more is put there",
        "farm: `good-seed2` is to start again: lost with node `lost`, which does not answer",
        "farm: `crashes` has failed: exit code 1: ",
    ] {
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
    let attempts = jobs.map(|job| site.report(job).attempts);
    assert_eq!(attempts, [1, 2, 1], "{stderr}");
    let log = fs::read_to_string(site.farm.node_log("lost")).unwrap();
    assert_eq!(log, "ssh: connect to host lost: No route to host\n");
    let starts = stderr.lines().filter(|line| line.contains(" on lost")).count();
    assert_eq!(starts, 1, "{stderr}");

    // As if that farm had been killed just before it saw how a run on the lost node ended.
    let mut report = site.report("crashes");
    report.state = JobState::Running;
    report.hosts[0].host = "lost".to_owned();
    site.farm.write_report("crashes", &report).unwrap();
    let (code, stderr) = site.start(&[]).end();
    assert_eq!((code, site.states(jobs)), (1, ends), "{stderr}");
    let said = "farm: `crashes` is to start again: lost with node `lost`, which does not answer";
    assert!(stderr.contains(said), "{stderr}");
    assert_eq!(site.report("crashes").attempts, 2, "{stderr}");
}
