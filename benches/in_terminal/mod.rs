//! The dashboard in a pseudo-terminal, and what it costs there. Needs `script` of util-linux.
//!
//! What it is shown, the benchmarks say.

use scrimp::error::{Context, Failure, Result};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The dashboard in a terminal of its own, and what it wrote there.
pub(crate) struct Terminal {
    child: Child,
    pub(crate) started: Instant,
    written: Arc<AtomicU64>,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Watches what lies at `path` in a terminal of so many columns and rows.
    pub(crate) fn open(path: &Path, (columns, rows): (u16, u16)) -> Result<Self> {
        let program = env!("CARGO_BIN_EXE_scrimp");
        let size = format!("stty cols {columns} rows {rows}");
        let inside = format!("{size}; exec {program} watch {}", path.display());
        let started = Instant::now();
        let mut child = Command::new("script")
            .args(["-qfc", &inside, "/dev/null"])
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context(|| "cannot start `script`, which makes terminals")?;
        let mut output =
            child.stdout.take().ok_or_else(|| Failure::new("`script` has no output"))?;
        let (written, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (count, copy) = (Arc::clone(&written), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut piece = [0; 1 << 14];
            while let Ok(length @ 1..) = output.read(&mut piece) {
                count.fetch_add(length as u64, Ordering::Relaxed);
                let mut copy = copy.lock().unwrap_or_else(PoisonError::into_inner);
                copy.extend_from_slice(&piece[..length]);
            }
        });
        Ok(Self { child, started, written, seen })
    }

    /// When `word` was first on the screen, and whether it was within a minute.
    pub(crate) fn wait_for(&self, word: &str) -> Result<Duration> {
        loop {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.windows(word.len()).any(|part| part == word.as_bytes()) {
                return Ok(self.started.elapsed());
            }
            drop(seen);
            if self.started.elapsed() > Duration::from_mins(1) {
                return Err(Failure::new(format!(
                    "`{word}` was not on the screen within a minute"
                )));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The process in the terminal: `script` has one child, which became it.
    pub(crate) fn process(&self) -> Result<String> {
        let script = self.child.id();
        let path = format!("/proc/{script}/task/{script}/children");
        let children = std::fs::read_to_string(path).context(|| "cannot find the dashboard")?;
        let first = children.split_whitespace().next();
        Ok(first.ok_or_else(|| Failure::new("the dashboard has ended"))?.to_owned())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(keys) = &mut self.child.stdin {
            let _ = keys.write_all(b"q");
        }
        let _ = self.child.wait();
    }
}

/// A number in a file of `/proc/PID`.
pub(crate) fn number(process: &str, file: &str, key: &str) -> Result<u64> {
    let path = format!("/proc/{process}/{file}");
    let text = std::fs::read_to_string(&path).context(|| format!("cannot read `{path}`"))?;
    let line = text.lines().find(|line| line.starts_with(key));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.ok_or_else(|| Failure::new(format!("`{path}` has no `{key}`")))
}

/// Processor time of a process in seconds.
fn busy_seconds(process: &str) -> Result<f64> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).context(|| format!("cannot read `{path}`"))?;
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
    Ok((ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0)
}

/// Percent of a core and bytes in a second while `work` goes on.
pub(crate) fn cost(
    terminal: &Terminal,
    process: &str,
    work: impl FnOnce() -> Result<()>,
) -> Result<[f64; 2]> {
    let (start, busy) = (Instant::now(), busy_seconds(process)?);
    let written = terminal.written.load(Ordering::Relaxed);
    work()?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes = terminal.written.load(Ordering::Relaxed) - written;
    Ok([(busy_seconds(process)? - busy) / seconds * 100.0, bytes as f64 / seconds])
}
