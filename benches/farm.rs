//! Runs `scrimp watch` of a farm of 200 jobs in a terminal of 120 x 40: time to the first screen, memory, and processor
//! time while 16 of the jobs train and end, while all of them train, and while nothing happens.
//!
//! `cargo bench --bench farm --no-default-features`; needs `script` of util-linux. Ends with exit code 1 where a limit is
//! passed.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]

mod in_terminal;

use in_terminal::{Terminal, cost, number};
use scrimp::error::{Context, Result};
use scrimp::runlog::farm::{
    FORMAT, FarmDirectory, FarmJob, JobKind, JobList, JobReport, JobState, Slots,
};
use scrimp::runlog::io::{EventSink, LogWriter};
use scrimp::runlog::{Evaluated, Health, RunEvent, Step, Telemetry, now_ms};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const JOBS: usize = 200;
const RUNNING: usize = 16;
/// Logged steps of a job that is done.
const STEPS: u64 = 3000;
/// How long each cost is measured.
const WATCHED: Duration = Duration::from_mins(1);

fn name(job: usize) -> String {
    format!("partial-ce-fold{}-seed{:03}", job % 5 + 1, job / 5)
}

fn list() -> JobList {
    let job = |job: usize| FarmJob {
        name: name(job),
        row: "partial-ce".to_owned(),
        kind: JobKind::Train,
        fold: Some((job % 5) as u32 + 1),
        seed: Some((job / 5) as u64),
        run: Some(format!("jobs/{}", name(job))),
        needs: Vec::new(),
        ranks: 4,
        gpus: 1.0,
        total_steps: Some(10 * STEPS),
    };
    let slots = Slots { processes: 4 * RUNNING, gpus: RUNNING };
    JobList { format: FORMAT, name: "bench".to_owned(), slots, jobs: (0..JOBS).map(job).collect() }
}

fn report(farm: &FarmDirectory, job: usize, state: JobState) -> Result<()> {
    let attempts = u32::from(state != JobState::Waiting);
    let report = JobReport {
        state,
        attempts,
        started_at_ms: (attempts > 0).then(now_ms),
        busy_ms: 3_600_000 * u64::from(state == JobState::Done),
        gpu_seconds: 3600.0 * f64::from(u8::from(state == JobState::Done)),
        ..JobReport::waiting()
    };
    farm.write_report(&name(job), &report)
}

/// What a run logs of one step: numbers, health, the machine, and at times scores.
fn log_step(log: &mut LogWriter, step: u64) {
    let one = |value| BTreeMap::from([("segmenter".to_owned(), value)]);
    let terms = (0..6).map(|term| (format!("segmenter/term_{term}"), 0.5 + step as f64 * 1e-5));
    log.emit(&RunEvent::Step(Step {
        step,
        epoch: step / 126 + 1,
        loss: terms.collect(),
        observed: BTreeMap::new(),
        lr: one(0.01),
        grad_norm: one(1.8),
        step_ms: 100.0,
        images_per_second: 7680.0,
    }));
    let (data_wait_ms, communication_ms, memory_bytes) = (3.5, 9.25, Some(9_126_805_504));
    log.emit(&RunEvent::Health(Health {
        step,
        step_ms: 100.0,
        data_wait_ms,
        communication_ms,
        memory_bytes,
    }));
    let host = Some("node1".to_owned());
    log.emit(&RunEvent::Telemetry(Telemetry {
        host,
        gpu_percent: Some(98.0),
        ..Telemetry::default()
    }));
    if step.is_multiple_of(500) {
        log.emit(&RunEvent::Evaluated(Evaluated {
            step,
            mean_dice: 0.8,
            best_mean_dice: 0.9,
            best_step: 500,
            cases: 20,
            seconds: 30.0,
            structures: Vec::new(),
        }));
    }
}

/// The log of a job, with so many steps in it.
fn log(farm: &FarmDirectory, job: usize, steps: u64) -> Result<LogWriter> {
    let run = farm.run(&name(job));
    std::fs::create_dir_all(run.events()).context(|| "cannot make a run directory")?;
    let mut log = LogWriter::open(&run.rank_events(0), 0)?;
    for step in 1..=steps {
        log_step(&mut log, step);
    }
    Ok(log)
}

/// Every one of `logs` gets a step a second for a while; `also` happens once a second too.
fn train(logs: &mut [LogWriter], mut also: impl FnMut(u64) -> Result<()>) -> Result<()> {
    let start = Instant::now();
    for second in 1..=WATCHED.as_secs() {
        for log in &mut *logs {
            log_step(log, STEPS + second);
        }
        also(second)?;
        std::thread::sleep(Duration::from_secs(second).saturating_sub(start.elapsed()));
    }
    Ok(())
}

fn measure() -> Result<bool> {
    let folder = tempfile::tempdir().context(|| "cannot make a folder for the farm")?;
    let farm = FarmDirectory::new(folder.path().join("bench"));
    std::fs::create_dir(farm.root()).context(|| "cannot make the farm")?;
    farm.write_jobs(&list())?;
    // Alive, so that the dashboard takes it for a farm that goes on.
    let _claim = farm.as_run().claim()?;
    let mut logs = Vec::new();
    for job in 0..JOBS {
        let state = if job < RUNNING { JobState::Running } else { JobState::Done };
        report(&farm, job, state)?;
        logs.push(log(&farm, job, STEPS)?);
    }
    let terminal = Terminal::open(farm.root(), (120, 40))?;
    let first = terminal.wait_for(&name(20))?;
    let process = terminal.process()?;
    std::thread::sleep(Duration::from_secs(2));
    let [busy, bytes] = cost(&terminal, &process, || {
        train(&mut logs[..RUNNING], |second| {
            report(&farm, RUNNING + second as usize, JobState::Running)?;
            report(&farm, RUNNING + second as usize, JobState::Done)
        })
    })?;
    (0..JOBS).try_for_each(|job| report(&farm, job, JobState::Running))?;
    std::thread::sleep(Duration::from_secs(2));
    let [all, _] = cost(&terminal, &process, || train(&mut logs, |_| Ok(())))?;
    (0..JOBS).try_for_each(|job| report(&farm, job, JobState::Done))?;
    std::thread::sleep(Duration::from_secs(15));
    let [idle, _] = cost(&terminal, &process, || {
        std::thread::sleep(WATCHED);
        Ok(())
    })?;
    let memory_mb = number(&process, "status", "VmHWM:")? as f64 * 1024.0 / 1e6;
    let rows = [
        ("first screen, s", first.as_secs_f64(), 1.0),
        ("processor while 16 of 200 train, % of a core", busy, 5.0),
        ("processor while all 200 train, % of a core", all, 5.0),
        ("processor while nothing is new, % of a core", idle, 1.0),
        ("to the terminal while 16 train, kB/s", bytes / 1e3, 20.0),
        ("most memory, MB", memory_mb, 100.0),
    ];
    for (name, value, limit) in rows {
        println!("{name:<48} {value:>8.3}   limit {limit}");
    }
    Ok(rows.iter().all(|(_, value, limit)| value <= limit))
}

fn main() -> ExitCode {
    match measure() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}
