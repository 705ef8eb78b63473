//! Runs the real dashboard in a terminal of 80 x 24 on a log of a million records, and measures what
//! it costs whoever leaves it open: time to the newest values and to the whole history, memory,
//! processor time, bytes written to the terminal; and what logging costs the trainer.
//!
//! `cargo bench --bench dashboard`; needs `script` of util-linux. Ends with exit code 1 where a limit
//! is passed.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]

mod in_terminal;

use in_terminal::{Terminal, cost, number};
use scrimp::error::{Context, Failure, Result};
use scrimp::runlog::directory::RunDirectory;
use scrimp::runlog::io::{EventSink, LogWriter};
use scrimp::runlog::{Health, Record, RunEvent, RunStarted, Step, Telemetry};
use scrimp::telemetry::Sampler;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const RANKS: u32 = 64;
const RECORDS: u64 = 1_000_000;
/// Values of a `step` by name.
const METRICS: usize = 30;
const START_MS: u64 = 1_760_000_000_000;
/// Is the last record of rank 0, and of no other run.
const NEWEST: &str = "this-is-the-newest-record";
/// How long streaming and idling are measured.
const WATCHED: Duration = Duration::from_secs(30);
/// Records of each rank in a second while streaming.
const RATE: u32 = 10;

/// A record of `rank`: what ranks write, in turns.
fn event(rank: u32, number: u64) -> RunEvent {
    let wave = (number as f64 / 500.0).sin() + f64::from(rank) / 100.0;
    let turn = if rank == 0 { number % 3 } else { 1 + number % 2 };
    match turn {
        0 => RunEvent::Step(step(number, wave)),
        1 => RunEvent::Health(Health {
            step: number,
            step_ms: 100.0 + wave,
            data_wait_ms: 3.5 + wave,
            communication_ms: 9.25 + wave,
            memory_bytes: Some(9_126_805_504 + number),
        }),
        _ => RunEvent::Telemetry(Telemetry {
            host: Some(format!("node{}", rank / 8)),
            cpu_percent: Some(97.5 + wave),
            memory_bytes: Some(2_126_805_504 + number),
            host_memory_available_bytes: Some(99_126_805_504 - number),
            network_received_bytes_per_second: Some(1.25e9 + wave),
            network_sent_bytes_per_second: Some(1.24e9 + wave),
            gpu: Some("NVIDIA H100 80GB HBM3".to_owned()),
            gpu_percent: Some(98.0 + wave),
            sm_percent: Some(71.0 + wave),
            tensor_percent: Some(33.0 + wave),
            gpu_memory_bytes: Some(71_126_805_504 + number),
            gpu_memory_total_bytes: Some(85_899_345_920),
            gpu_power_watts: Some(612.5 + wave),
            gpu_temperature_celsius: Some(61.0),
        }),
    }
}

fn step(number: u64, wave: f64) -> Step {
    let loss =
        (0..METRICS - 4).map(|term| (format!("segmenter/term_{term:02}"), wave + term as f64));
    let one = |value| BTreeMap::from([("segmenter".to_owned(), value)]);
    Step {
        step: number,
        epoch: number / 126 + 1,
        loss: loss.collect(),
        observed: BTreeMap::new(),
        lr: one(0.01),
        grad_norm: one(1.8 + wave),
        step_ms: 100.0 + wave,
        images_per_second: 7680.0 + wave,
    }
}

fn started() -> RunEvent {
    RunEvent::RunStarted(RunStarted {
        schema: 1,
        run: "bench".to_owned(),
        method: "partial-ce".to_owned(),
        dataset: "acdc".to_owned(),
        data_digest: String::new(),
        classes: ["background", "RV", "Myo", "LV"].map(str::to_owned).to_vec(),
        fold: 1,
        annotation: "scribble".to_owned(),
        ranks: RANKS,
        hosts: Vec::new(),
        batch_size: 768,
        total_steps: 2 * RECORDS,
        train_slices: 1512,
        seed: 1,
        precision: "fp32".to_owned(),
        device: "cuda:0".to_owned(),
        code_version: "0".to_owned(),
        config_digest: "0".to_owned(),
    })
}

/// Writes the log; gives its size in bytes.
fn write_log(directory: &RunDirectory) -> Result<u64> {
    let doing = || "cannot write the log to read";
    std::fs::create_dir_all(directory.events()).context(doing)?;
    let mut bytes = 0;
    for rank in 0..RANKS {
        let path = directory.rank_events(rank as usize);
        let mut file = BufWriter::new(File::create(&path).context(doing)?);
        let mut write = |time_ms, event| -> Result<()> {
            serde_json::to_writer(&mut file, &Record { time_ms, rank, event }).context(doing)?;
            file.write_all(b"\n").context(doing)
        };
        if rank == 0 {
            write(START_MS, started())?;
        }
        for number in 1..=RECORDS / u64::from(RANKS) {
            write(START_MS + number * 100, event(rank, number))?;
        }
        if rank == 0 {
            write(START_MS + RECORDS, RunEvent::Warning { message: NEWEST.to_owned() })?;
        }
        file.flush().context(doing)?;
        bytes += std::fs::metadata(&path).context(doing)?.len();
    }
    Ok(bytes)
}

/// Every rank writes [`RATE`] records in a second for a while.
fn stream(directory: &RunDirectory) -> Result<()> {
    let open = |rank: u32| LogWriter::open(&directory.rank_events(rank as usize), rank);
    let mut logs = (0..RANKS).map(open).collect::<Result<Vec<_>>>()?;
    let first = RECORDS / u64::from(RANKS);
    let (start, pause) = (Instant::now(), Duration::from_secs(1) / RATE);
    for turn in 1.. {
        for (rank, log) in logs.iter_mut().enumerate() {
            log.emit(&event(rank as u32, first + turn));
        }
        let next = pause * turn as u32;
        if next > WATCHED {
            return Ok(());
        }
        std::thread::sleep(next.saturating_sub(start.elapsed()));
    }
    Ok(())
}

/// What writing a step and a health costs the thread that trains, in milliseconds.
fn logging_ms(folder: &Path) -> Result<f64> {
    let mut log = LogWriter::open(&folder.join("cost.jsonl"), 0)?;
    let (turns, start) = (2000, Instant::now());
    for number in 0..turns {
        log.emit(&event(0, 3 * number));
        log.emit(&event(0, 3 * number + 1));
    }
    Ok(start.elapsed().as_secs_f64() * 1e3 / turns as f64)
}

/// Processor time of the thread that samples the machine, in percent of a core.
fn sampling_percent(folder: &Path) -> Result<f64> {
    let log = LogWriter::open(&folder.join("samples.jsonl"), 0)?;
    let _sampler = Sampler::start(log, None);
    let doing = || "cannot read the times of this process's threads";
    std::thread::sleep(WATCHED);
    for task in Path::new("/proc/self/task").read_dir().context(doing)? {
        let task = task.context(doing)?.path();
        let name = std::fs::read_to_string(task.join("comm")).context(doing)?;
        if name.trim() == "telemetry" {
            let times = std::fs::read_to_string(task.join("schedstat")).context(doing)?;
            let nanoseconds = times.split(' ').next().and_then(|text| text.parse::<f64>().ok());
            return Ok(nanoseconds.unwrap_or(f64::NAN) / WATCHED.as_nanos() as f64 * 100.0);
        }
    }
    Err(Failure::new("no thread samples the machine"))
}

fn measure() -> Result<bool> {
    let folder = tempfile::tempdir().context(|| "cannot make a folder for the run")?;
    let directory = RunDirectory::new(folder.path().join("bench"));
    let bytes = write_log(&directory)?;
    // Alive, so that the dashboard takes it for a run that goes on.
    let _claim = directory.claim()?;
    println!("{RECORDS} records of {RANKS} ranks, {:.0} MB", bytes as f64 / 1e6);
    let terminal = Terminal::open(directory.root(), (80, 24))?;
    let newest = terminal.wait_for(NEWEST)?;
    let process = terminal.process()?;
    while number(&process, "io", "rchar:")? < bytes {
        std::thread::sleep(Duration::from_millis(5));
    }
    let whole = terminal.started.elapsed();
    std::thread::sleep(Duration::from_secs(2));
    let [streaming, bytes_per_second] = cost(&terminal, &process, || stream(&directory))?;
    std::thread::sleep(Duration::from_secs(12));
    let [idle, _] = cost(&terminal, &process, || {
        std::thread::sleep(WATCHED);
        Ok(())
    })?;
    let memory_mb = number(&process, "status", "VmHWM:")? as f64 * 1024.0 / 1e6;
    let logging = logging_ms(folder.path())?;
    let rows = [
        ("newest values on the screen, s", newest.as_secs_f64(), 0.5),
        ("whole history read, s", whole.as_secs_f64(), 10.0),
        ("most memory, MB", memory_mb, 300.0),
        ("processor while streaming, % of a core", streaming, 3.0),
        ("to the terminal while streaming, kB/s", bytes_per_second / 1e3, 20.0),
        ("processor while idle, % of a core", idle, 1.0),
        ("logging a step and a health, ms", logging, 0.5),
        ("sampling the machine, % of a core", sampling_percent(folder.path())?, 0.5),
    ];
    for (name, value, limit) in rows {
        println!("{name:<40} {value:>8.3}   limit {limit}");
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
