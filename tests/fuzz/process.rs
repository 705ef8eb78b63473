//! Two processes for each kind of file: one reads mutants, the other watches it and says on which it died.
//!
//! Knows neither the files nor their readers: those come from `targets`.

use crate::mutate::{Chance, mutant};
use crate::targets::{Target, target};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Mutants of each kind in an ordinary run of the tests, at most.
const MUTANTS: u64 = 400;
/// Time for them, in seconds, at most.
const SECONDS: u64 = 4;
/// What a mutant may take before it counts as a hang.
const PATIENCE: Duration = Duration::from_secs(10);
/// Memory beyond that of the idle process that a mutant may take: 1 GB.
const MEMORY_BYTES: u64 = 1_000_000_000;
/// Tells the reading process what to read.
const KIND: &str = "SCRIMP_FUZZ_KIND";
const FOLDER: &str = "SCRIMP_FUZZ_FOLDER";
/// Set by people: other mutants, and for how long.
const SEED: &str = "SCRIMP_FUZZ_SEED";
const SECONDS_ASKED: &str = "SCRIMP_FUZZ_SECONDS";

fn asked(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect(variable))
}

/// Lets a process read mutants of `kind`, and fails where that does not end well.
pub(crate) fn fuzz(kind: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let seeds = (target(kind).seeds)();
    assert!(!seeds.is_empty());
    for (index, seed) in seeds.iter().enumerate() {
        fs::write(scratch.path().join(format!("seed-{index}")), seed).unwrap();
    }
    let mut reader = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process::reader", "--ignored", "--nocapture"])
        .env(KIND, kind)
        .env(FOLDER, scratch.path())
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::null())
        .stderr(fs::File::create(scratch.path().join("stderr")).unwrap())
        .spawn()
        .unwrap();
    let ending = watch(&mut reader, scratch.path());
    let count = fs::read_to_string(scratch.path().join("count")).unwrap_or_default();
    let Err(what) = ending else {
        println!("{kind}: {} mutants of {} files", count.trim(), seeds.len());
        return;
    };
    let found = keep(kind, &scratch.path().join("mutant"));
    let said = fs::read_to_string(scratch.path().join("stderr")).unwrap_or_default();
    let said: String = said.chars().take(2000).collect();
    panic!("{kind}: {what} on `{}`, mutant {}\n{said}", found.display(), count.trim());
}

/// Waits for the end of the reader; a mutant that takes too long is the end, too.
fn watch(reader: &mut Child, scratch: &Path) -> Result<(), String> {
    let (mut last, mut since) = (String::new(), Instant::now());
    loop {
        if let Some(status) = reader.try_wait().unwrap() {
            return ending(status);
        }
        let count = fs::read_to_string(scratch.join("count")).unwrap_or_default();
        if count != last {
            (last, since) = (count, Instant::now());
        }
        if since.elapsed() > PATIENCE {
            reader.kill().unwrap();
            reader.wait().unwrap();
            return Err(format!("more than {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ending(status: ExitStatus) -> Result<(), String> {
    if status.success() { Ok(()) } else { Err(format!("{status}")) }
}

/// Copies a mutant to what every later run reads first.
fn keep(kind: &str, mutant: &Path) -> PathBuf {
    let bytes = fs::read(mutant).unwrap_or_default();
    let folder = corpus(kind);
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes)));
    fs::write(&path, bytes).unwrap();
    path
}

fn corpus(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(kind)
}

/// Every file of a folder in the order of names.
fn files(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| is_wanted(&path.file_name().unwrap().to_string_lossy()));
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// The process that reads; it is started by [`fuzz`] and does nothing by itself.
#[test]
#[ignore = "is started by the other tests of this file"]
fn reader() {
    let Ok(kind) = std::env::var(KIND) else { return };
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    let target = target(&kind);
    let scratch = folder.join("scratch");
    fs::create_dir(&scratch).unwrap();
    let seeds = files(&folder, |name| name.starts_with("seed-"));
    let known = files(&corpus(&kind), |_| true);
    let mut reading = Reading { target: &target, folder: &folder, scratch: &scratch, count: 0 };
    // What is whole, and what made trouble once, comes first.
    seeds.iter().chain(&known).for_each(|bytes| reading.take(bytes));
    let seconds = asked(SECONDS_ASKED);
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS));
    let mut chance = Chance::new(asked(SEED).unwrap_or(1));
    while Instant::now() < end && (seconds.is_some() || reading.count < MUTANTS) {
        let seed = &seeds[chance.below(seeds.len())];
        let other = &seeds[chance.below(seeds.len())];
        let mut bytes = mutant(seed, other, &mut chance);
        if chance.below(2) == 0 {
            (target.sign)(&mut bytes);
        }
        reading.take(&bytes);
    }
}

struct Reading<'a> {
    target: &'a Target,
    folder: &'a Path,
    scratch: &'a Path,
    count: u64,
}

impl Reading<'_> {
    /// Reads one file; whatever goes wrong ends the process.
    fn take(&mut self, bytes: &[u8]) {
        fs::write(self.folder.join("mutant"), bytes).unwrap();
        self.count += 1;
        fs::write(self.folder.join("count"), self.count.to_string()).unwrap();
        let before = peak_memory_bytes();
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.target.read)(bytes, self.scratch)));
        let taken = peak_memory_bytes().saturating_sub(before);
        let Ok(said) = outcome else { std::process::exit(101) };
        if taken > MEMORY_BYTES {
            eprintln!("{taken} bytes of memory");
            std::process::exit(102);
        }
        for text in said {
            let is_fine = |letter: char| !letter.is_control() || "\n\t".contains(letter);
            if !text.chars().all(is_fine) || text.contains("frame #") || text.contains("panicked") {
                eprintln!("no sentence for people: {text:?}");
                std::process::exit(103);
            }
        }
    }
}

/// The most memory that this process has ever had in RAM.
fn peak_memory_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

macro_rules! kinds {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            fuzz(stringify!($name));
        })*
    };
}
kinds! { configuration override_ run_log preview volume_file picture_file array_file dicom_file }
#[cfg(feature = "mpi")]
kinds! { manifest shard packed nifti nifti_labels picture mask }
