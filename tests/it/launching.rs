//! `scrimp launch` passes requests on, starts again after failures, and returns the run's exit code; the job
//! scripts are started again by the batch system when they should be.

use crate::cli::{complaint, scrimp};
use crate::faults::mentions;
use crate::resume::exported;
use crate::running::{Ended, Running, SMOKE, Train, signal, state};
use scrimp::runlog::directory::RunDirectory;
use scrimp::runlog::{RunEvent, RunStatus};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

fn thirty_steps(run: &Path) -> Train {
    Train::new(SMOKE, run).sets(&[
        "train.total_steps=30",
        "train.save_every=5",
        "train.evaluate_every=30",
    ])
}

#[test]
fn a_lost_rank_is_followed_by_a_restart_and_the_same_weights() {
    let folder = TempDir::new().unwrap();
    let [whole, lost] = ["whole", "lost"].map(|name| folder.path().join(name));
    thirty_steps(&whole).on_ranks(2).succeed();
    let mut running = thirty_steps(&lost).launched(2, &["--restarts", "2"]).start();
    running.wait_for_checkpoint(5);
    let root = running.run.writer().expect("the run is alive").pid;
    signal("KILL", &[root]);
    let ended = running.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(mentions(&ended.stderr, "mpirun -n 2 --bind-to none"), 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("the run ended with 137; starts again from step "));
    assert!(ended.resumed_from().is_some_and(|step| step >= 5));
    assert!(exported(&lost) == exported(&whole), "other weights");
}

#[test]
fn a_request_to_end_becomes_one_to_stop_and_keeps_its_name() {
    let folder = TempDir::new().unwrap();
    for (name, code) in [("TERM", 77), ("HUP", 77), ("USR2", 75)] {
        let run = folder.path().join(name);
        let mut running =
            thirty_steps(&run).set("train.total_steps=100000").launched(2, &[]).start();
        running.wait_for(|event| matches!(event, RunEvent::Step(_)));
        signal(name, &[running.pid()]);
        let ended = running.end();
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert_eq!(last_words(&ended), format!("stopped by SIG{name}"));
        let said = format!("SIG{name}: asks all ranks to save and stop");
        assert!(ended.stderr.contains(&said), "{}", ended.stderr);
        assert!(!run.join("control/signal").exists());
    }
    let resumed = Train::again(&folder.path().join("HUP")).set("train.total_steps=5").finish();
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
}

#[test]
fn a_request_that_comes_while_processes_start_is_heard() {
    let folder = TempDir::new().unwrap();
    // Just when `mpirun` starts, when it has started processes, and when these are under way.
    let moments: [fn(&Running) -> bool; 3] = [
        |running| !running.rank_pids().is_empty(),
        |running| running.rank_pids().first().is_some_and(|&mpirun| children(mpirun) > 0),
        |running| running.run.alive().exists(),
    ];
    for (number, has_come) in moments.into_iter().enumerate() {
        let run = folder.path().join(number.to_string());
        let train = thirty_steps(&run).set("train.total_steps=100000");
        let running = train.launched(2, &[]).start();
        while !has_come(&running) {
            std::thread::yield_now();
        }
        signal("TERM", &[running.pid()]);
        let ended = running.end();
        assert_eq!(ended.code, Some(77), "{}", ended.stderr);
    }
}

/// How many children the first thread of a process has.
fn children(pid: u32) -> usize {
    let path = format!("/proc/{pid}/task/{pid}/children");
    std::fs::read_to_string(path).unwrap_or_default().split_whitespace().count()
}

/// The last sentence in the log of a run that stopped.
fn last_words(ended: &Ended) -> String {
    match ended.events().pop() {
        Some(RunEvent::RunEnded { status: RunStatus::Stopped, message, .. }) => message,
        last => panic!("{last:?}: {}", ended.stderr),
    }
}

#[test]
fn what_nohup_ignores_is_ignored() {
    let folder = TempDir::new().unwrap();
    for launched in [false, true] {
        let train = thirty_steps(&folder.path().join(launched.to_string()));
        let train = if launched { train.launched(2, &[]) } else { train };
        let mut running = train.deaf().start();
        running.wait_for(|event| matches!(event, RunEvent::Step(_)));
        for name in ["HUP", "INT"] {
            signal(name, &[running.pid()]);
        }
        let ended = running.end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(ended.steps().len(), 30);
    }
}

#[test]
fn a_reader_that_goes_away_ends_no_run() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().to_str().unwrap();
    let settings = ["total_steps=30", "threads=1", "device=cpu"].map(|set| format!("train.{set}"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_scrimp"))
        .args(["launch", SMOKE, "-n", "2", "--run", run])
        .args(settings.iter().flat_map(|set| ["--set", set]))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let ended = Ended { code: Some(0), stderr: String::new(), run: RunDirectory::new(run) };
    assert_eq!(ended.status(), Some(RunStatus::Finished));
}

#[test]
fn ctrl_z_suspends_the_ranks_too() {
    let folder = TempDir::new().unwrap();
    let mut running =
        thirty_steps(folder.path()).set("train.total_steps=100000").launched(2, &[]).start();
    running.wait_for(|event| matches!(event, RunEvent::Step(_)));
    let ranks = [0, 1].map(|rank| running.wait_for_report(rank).pid);
    let all = [ranks[0], ranks[1], running.pid()];
    signal("TSTP", &[running.pid()]);
    running.wait_until(|| all.iter().all(|&pid| state(pid) == Some('T')));
    let suspended_at = *running.steps().last_key_value().unwrap().0;
    signal("CONT", &[running.pid()]);
    running.wait_for(|event| matches!(event, RunEvent::Step(step) if step.step > suspended_at + 3));
    running.run.request_stop().unwrap();
    assert_eq!(running.end().code, Some(77));
}

#[test]
fn a_directory_that_lives_is_waited_for_in_words() {
    let folder = TempDir::new().unwrap();
    let claim = RunDirectory::new(folder.path()).claim().unwrap();
    let mut running = thirty_steps(folder.path()).launched(2, &[]).start();
    running.wait_for_words("waits up to 60 s for its end");
    signal("TERM", &[running.pid()]);
    let ended = running.end();
    assert_eq!(ended.code, Some(77), "{}", ended.stderr);
    assert_eq!(mentions(&ended.stderr, "mpirun"), 0, "{}", ended.stderr);
    drop(claim);
}

/// One process, whatever is asked for, and no MPI.
const MPIRUN: &str = "until [[ $1 == */scrimp ]]; do shift; done; exec \"$@\"";

/// A folder from which jobs are submitted, with programs in it that note what they are asked for.
struct Cluster {
    folder: TempDir,
}

impl Cluster {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let this = Self { folder };
        for name in ["bin", "target/release"] {
            std::fs::create_dir_all(this.path(name)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_scrimp"), this.path("target/release/scrimp")).unwrap();
        this.program("mpirun", MPIRUN);
        for name in ["scontrol", "qsub"] {
            this.program(
                name,
                &format!("echo \"${{0##*/}} $*\" >>'{}'", this.path("asked").display()),
            );
        }
        this.squeue("1000000000000 N/A");
        std::fs::write(this.path("nodes"), "node07\nnode07\n").unwrap();
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        std::fs::write(&path, format!("#!/usr/bin/env bash\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What Slurm says of its job: when it ends, and since when it is preempted. Each question leaves a line.
    fn squeue(&self, answer: &str) {
        let questions = self.path("questions");
        let script = format!(
            "echo \"$SLURM_TIME_FORMAT $*\" >>'{}'; echo \"6 1 1\"; echo \"7 {answer}\"",
            questions.display()
        );
        self.program("squeue", &script);
    }

    /// How often Slurm was asked since the last call of this.
    fn questions(&self) -> usize {
        let asked = std::fs::read_to_string(self.path("questions")).unwrap_or_default();
        let _ = std::fs::remove_file(self.path("questions"));
        let question = "%s --noheader --jobs=7 --Format=JobID:32,EndTime:32,PreemptTime:32";
        assert!(asked.lines().all(|line| line == question), "{asked}");
        asked.lines().count()
    }

    /// A run with so many steps.
    fn train(&self, run: &str, steps: usize) -> Train {
        let config = format!("{}/{SMOKE}", env!("CARGO_MANIFEST_DIR"));
        let steps = format!("train.total_steps={steps}");
        let train = Train::new(&config, &self.path(run)).sets(&[&steps, "train.save_every=5"]);
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        train.set("train.evaluate_every=100000").variable("PATH", &path)
    }

    /// Starts it as Slurm does, in a job that ends in so many seconds.
    fn slurm(&self, train: Train, ends_in_s: u64) -> Running {
        let script = format!("{}/launch/train.slurm", env!("CARGO_MANIFEST_DIR"));
        train
            .variable("SLURM_SUBMIT_DIR", self.folder.path().to_str().unwrap())
            .variable("SLURM_JOB_ID", "7")
            .variable("SLURM_NTASKS", "2")
            .variable("SLURM_JOB_END_TIME", &in_seconds(ends_in_s).to_string())
            .by_script(&script)
            .start()
    }

    /// Starts it as PBS does, in a job that may take an hour and of which so many minutes and seconds are over.
    fn pbs(&self, train: Train, used: &str) -> Running {
        let job =
            format!("resources_used.walltime = 00:{used}\n    Resource_List.walltime = 01:00:00");
        self.program(
            "qstat",
            &format!("[ \"$*\" = '-f 7.server' ]; printf '%s\\n' 'Job Id: 7.server' '    {job}'"),
        );
        let script = format!("{}/launch/train.pbs", env!("CARGO_MANIFEST_DIR"));
        train
            .variable("PBS_JOBID", "7.server")
            .variable("PBS_O_WORKDIR", self.folder.path().to_str().unwrap())
            .variable("PBS_NODEFILE", self.path("nodes").to_str().unwrap())
            .by_script_without_arguments(&script)
            .start()
    }

    /// What the batch system was asked for since the last call of this.
    fn asked(&self) -> String {
        let asked = std::fs::read_to_string(self.path("asked")).unwrap_or_default();
        let _ = std::fs::remove_file(self.path("asked"));
        asked
    }
}

fn first_step(mut running: Running) -> Running {
    running.wait_for(|event| matches!(event, RunEvent::Step(_)));
    running
}

#[test]
fn a_slurm_job_is_submitted_again_when_its_time_is_over_and_nobody_wanted_an_end() {
    let cluster = Cluster::new();
    let endless = |run| cluster.train(run, 100_000);
    let hour = 3600;
    let ended = cluster.slurm(cluster.train("short", 3), hour).end();
    assert_eq!((ended.code, cluster.asked()), (Some(0), String::new()), "{}", ended.stderr);

    let ended = cluster.slurm(endless("time"), 16).end();
    assert_eq!(ended.code, Some(75), "{}", ended.stderr);
    assert!(last_words(&ended).contains("as Slurm says it"), "{}", last_words(&ended));
    assert_eq!((cluster.asked(), cluster.questions()), ("scontrol requeue 7\n".to_owned(), 0));

    for (name, code, asked) in [("USR1", 75, "scontrol requeue 7\n"), ("TERM", 77, "")] {
        let running = first_step(cluster.slurm(endless(name), hour));
        signal(name, &[running.pid()]);
        let ended = running.end();
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert_eq!(
            (last_words(&ended), cluster.asked()),
            (format!("stopped by SIG{name}"), asked.to_owned())
        );
    }

    let running = first_step(cluster.slurm(endless("person"), hour));
    running.run.request_stop().unwrap();
    // What the batch system wants at the same time counts less.
    signal("USR1", &[running.pid()]);
    let ended = running.end();
    assert_eq!((ended.code, cluster.asked()), (Some(77), String::new()), "{}", ended.stderr);
    assert!(!ended.run.stop_request().exists());

    // A request from when the job waited in the queue; afterwards the run goes on.
    ended.run.request_stop().unwrap();
    let ended = cluster.slurm(cluster.train("person", 100_000), hour).end();
    assert_eq!((ended.code, cluster.asked()), (Some(77), String::new()), "{}", ended.stderr);
    assert!(ended.stderr.contains("asks for a stop: nothing is started"), "{}", ended.stderr);
    // And one that comes while the processes start.
    let request = ended.run.stop_request();
    let script = format!("touch '{}'; {MPIRUN}", request.display());
    cluster.program("mpirun", &script);
    let ended = cluster.slurm(cluster.train("person", 100_000), hour).end();
    assert_eq!((ended.code, cluster.asked()), (Some(77), String::new()), "{}", ended.stderr);
    cluster.program("mpirun", MPIRUN);
    let step = *ended.steps().last_key_value().unwrap().0 as usize;
    let ended = cluster.slurm(cluster.train("person", step + 2), hour).end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// Slurm 22.05 sets no `SLURM_JOB_END_TIME`.
#[test]
fn slurm_is_asked_once_when_a_job_ends_that_does_not_say_it() {
    let cluster = Cluster::new();
    let train = |run, steps| cluster.train(run, steps).variable("SLURM_JOB_ID", "7");
    let stopped = "stopped before the time limit (the end of the job, as Slurm says it)";

    cluster.squeue(&format!("{} N/A", in_seconds(16)));
    let ended = train("alone", 100_000).finish();
    assert_eq!((ended.code, cluster.questions()), (Some(75), 1), "{}", ended.stderr);
    assert_eq!(last_words(&ended), stopped);
    cluster.squeue(&format!("{} N/A", in_seconds(16)));
    let ended = train("launched", 100_000).launched(2, &[]).finish();
    assert_eq!((ended.code, cluster.questions()), (Some(75), 1), "{}", ended.stderr);
    assert_eq!(last_words(&ended), stopped);

    // The run goes on without an end where nobody knows one.
    let unknown = "when job 7 ends is not known: ";
    let error = "slurm_load_jobs error: Invalid job id specified";
    for (name, script, said) in [
        ("fails", format!("echo '{error}' >&2; exit 1"), format!("`squeue` says `{error}`")),
        ("hangs", "sleep 1000".into(), "`squeue` has not answered within 10 s".into()),
    ] {
        cluster.program("squeue", &script);
        let ended = train(name, 3).launched(2, &[]).finish();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(mentions(&ended.stderr, &format!("{unknown}{said}")), 1, "{}", ended.stderr);
        assert_eq!(ended.warnings(), Vec::<String>::new());
    }
    std::fs::remove_file(cluster.path("bin/squeue")).unwrap();
    let path = cluster.path("bin");
    let ended = train("missing", 3).variable("PATH", path.to_str().unwrap()).succeed();
    let warnings = ended.warnings();
    let named = format!("{unknown}cannot start `squeue`: ");
    assert!(warnings.len() == 1 && warnings[0].starts_with(&named), "{warnings:?}");
}

#[test]
fn a_job_that_is_preempted_comes_again_though_its_ranks_got_sigterm() {
    let cluster = Cluster::new();
    // Ranks hear of `SIGTERM` under the real one, however `scrimp launch` has started it.
    std::fs::remove_file(cluster.path("bin/mpirun")).unwrap();
    let train = |run: &str| cluster.train(run, 100_000).variable("SLURM_JOB_ID", "7");
    let requeue = ["--requeue", "scontrol requeue 7"];
    let again = "scontrol requeue 7\n";
    for (preempted, code, said, asked) in [
        ("1700000000", 75, "stopped by SIGTERM, as Slurm needs the place of the job", again),
        ("N/A", 77, "stopped by SIGTERM", ""),
    ] {
        cluster.squeue(&format!("1000000000000 {preempted}"));
        // As Slurm tells the steps of a job on other nodes, and not what started them.
        let running = first_step(train(&format!("steps{code}")).launched(1, &requeue).start());
        signal("TERM", &[running.run.writer().expect("the run is alive").pid]);
        let ended = running.end();
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert_eq!((last_words(&ended), cluster.asked()), (said.to_owned(), asked.to_owned()));
        // As under `srun`.
        let running = first_step(train(&format!("srun{code}")).start());
        signal("TERM", &[running.pid()]);
        let ended = running.end();
        assert_eq!((ended.code, last_words(&ended)), (Some(code), said.to_owned()));
    }
    // Before its first step, when nothing can be saved.
    cluster.squeue("1000000000000 1700000000");
    cluster.program("mpirun", "exit 77");
    let ended = train("early").launched(1, &requeue).finish();
    assert_eq!((ended.code, cluster.asked().as_str()), (Some(75), again), "{}", ended.stderr);
}

fn in_seconds(seconds: u64) -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + seconds
}

#[test]
fn all_starts_of_a_pbs_job_share_its_time() {
    let cluster = Cluster::new();
    let started = in_seconds(0);
    let mut running = cluster.pbs(cluster.train("lost", 100_000), "10:00");
    running.wait_for_checkpoint(5);
    signal("KILL", &[running.run.writer().expect("the run is alive").pid]);
    running.wait_for(|event| matches!(event, RunEvent::Resumed { .. }));
    let mut running = first_step(running);
    running.wait_for_checkpoint(10);
    signal("USR1", &[running.pid()]);
    let ended = running.end();
    assert_eq!(ended.code, Some(75), "{}", ended.stderr);
    let deadlines: Vec<u64> = ended
        .stderr
        .lines()
        .filter(|line| line.contains("mpirun -n 2 "))
        .filter_map(|line| {
            line.split_once("--deadline ")?.1.split_whitespace().next()?.parse().ok()
        })
        .collect();
    assert!(deadlines.len() == 2 && deadlines[0] == deadlines[1], "{}", ended.stderr);
    let of_the_job = started + 3600 - 600 - 10;
    assert!((of_the_job..of_the_job + 20).contains(&deadlines[0]), "{deadlines:?}, {of_the_job}");
    let again = format!(
        "qsub -l walltime=3600 -v arguments,walltime_s {}/launch/train.pbs\n",
        cluster.folder.path().display()
    );
    assert_eq!(cluster.asked(), again);

    // The next job, at the end of its time.
    let ended = cluster.pbs(cluster.train("lost", 100_000), "59:30").end();
    assert_eq!(ended.code, Some(75), "{}", ended.stderr);
    assert!(ended.resumed_from() >= Some(10) && last_words(&ended).contains("`--deadline`"));
    assert_eq!(cluster.asked(), again);

    let running = first_step(cluster.pbs(cluster.train("person", 100_000), "10:00"));
    running.run.request_stop().unwrap();
    assert_eq!((running.end().code, cluster.asked()), (Some(77), String::new()));
}

#[test]
fn a_run_that_is_lost_when_no_time_is_left_goes_on_in_the_next_job() {
    let cluster = Cluster::new();
    let end = in_seconds(55).to_string();
    let requeue = ["--restarts", "5", "--requeue", "scontrol requeue 7"];
    let lost = |name| cluster.train(name, 100_000);
    for train in [
        lost("launch").launched(2, &[&requeue[..], &["--deadline", &end]].concat()),
        lost("slurm").variable("SLURM_JOB_END_TIME", &end).launched(2, &requeue),
    ] {
        let mut running = train.start();
        running.wait_for_checkpoint(5);
        signal("KILL", &[running.run.writer().expect("the run is alive").pid]);
        let ended = running.end();
        assert_eq!(ended.code, Some(75), "{}", ended.stderr);
        assert!(ended.stderr.contains("no time is left to start again"), "{}", ended.stderr);
        assert_eq!(cluster.asked(), "scontrol requeue 7\n");
    }
}

#[test]
fn an_mpirun_that_waits_for_a_lost_host_is_ended_with_the_exit_code_of_the_run() {
    let cluster = Cluster::new();
    // It passes `SIGUSR1` on to the run alone.
    let waits = "trap '' USR1; until [[ $1 == */scrimp ]]; do shift; done; \"$@\"; exec sleep 1000";
    cluster.program("mpirun", waits);
    let running = first_step(cluster.train("stopped", 100_000).launched(2, &[]).start());
    running.run.request_stop().unwrap();
    let failing = cluster.train("failing", 30).set("method.params.learner.lr=1e30");
    let failing = failing.launched(2, &[]).start();
    for (running, code) in [(running, 77), (failing, 1)] {
        let ended = running.end();
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("the run has ended and `mpirun` has not"),
            "{}",
            ended.stderr
        );
    }
}

/// As under Slurm, where it has lost a node.
#[test]
fn an_mpirun_that_ends_with_0_before_the_run_is_done_is_no_success() {
    let cluster = Cluster::new();
    let lost = cluster.path("lost");
    let loses_once = format!(
        "until [[ $1 == */scrimp ]]; do shift; done; [ -e '{0}' ] && exec \"$@\"; touch '{0}'",
        lost.display()
    );
    cluster.program("mpirun", &loses_once);
    let start = |restarts| cluster.train("run", 5).launched(1, &["--restarts", restarts]).finish();
    for (restarts, code, starts) in [("0", 1, 1), ("1", 0, 2)] {
        let ended = start(restarts);
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert_eq!(mentions(&ended.stderr, "mpirun -n 1 "), starts, "{}", ended.stderr);
        let said = "`mpirun` ended with 0 before the run was done";
        assert_eq!(mentions(&ended.stderr, said), 1, "{}", ended.stderr);
        drop(std::fs::remove_file(&lost));
    }
    // A run that is done says so however often it is started.
    std::fs::write(&lost, "").unwrap();
    assert_eq!(start("0").code, Some(0));
}

#[test]
fn a_missing_mpirun_is_named() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    let output = Command::new(env!("CARGO_BIN_EXE_scrimp"))
        .args(["launch", SMOKE, "-n", "2", "--run", run.to_str().unwrap()])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PATH", folder.path())
        .output()
        .unwrap();
    let complaint = complaint(&output);
    let expected = "error: cannot start `mpirun`\n  caused by: No such file or directory";
    assert!(complaint.starts_with("exit code 1\n") && complaint.contains(expected), "{complaint}");
}

#[test]
fn whoever_insists_gets_an_end_at_once() {
    let folder = TempDir::new().unwrap();
    let mut running = thirty_steps(folder.path())
        .sets(&["data.size=512", "train.batch_size=12"])
        .launched(2, &["--restarts", "5"])
        .start();
    running.wait_until_in_step();
    let ended = running.insist("TERM");
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert_eq!(mentions(&ended.stderr, "SIGTERM again: ends all ranks at once"), 1);
    assert_eq!(ended.status(), None);
}

#[test]
fn a_run_that_fails_without_progress_is_given_up() {
    let folder = TempDir::new().unwrap();
    let launch = thirty_steps(folder.path()).set("method.params.learner.lr=1e30");
    let ended = launch.launched(2, &["--restarts", "5", "--min-ranks", "1"]).finish();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let reason = "the run ended with 1; no checkpoint was reached after that of the start";
    assert_eq!(mentions(&ended.stderr, reason), 1, "{}", ended.stderr);
    let starts = [2, 1].map(|n| mentions(&ended.stderr, &format!("mpirun -n {n} ")));
    assert_eq!(starts, [2, 1]);
}

#[test]
fn what_cannot_be_started_is_refused_before_mpirun() {
    let refused = |arguments: &[&str]| {
        let launch = ["launch", "configs/smoke/partial-ce.toml", "-n"];
        complaint(&scrimp(&[&launch[..], arguments].concat()))
    };
    insta::assert_snapshot!(refused(&["2", "--min-ranks", "3"]), @r"
    exit code 2
    error: `--min-ranks` is 3, expected 1 to 2, the number of ranks
    ");
    let too_many = refused(&["9"]);
    let expected = "exit code 2\nerror: world size 9 is larger than the batch of 4\n";
    assert!(too_many.starts_with(expected), "{too_many}");
}
