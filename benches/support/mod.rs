//! What benchmarks share: the Python that they are compared with, medians, and how they end.
//!
//! Knows nothing of what is measured.
#![allow(dead_code, reason = "no benchmark needs all of it")]

use scrimp::error::{Context, Failure, Result};
use serde::de::DeserializeOwned;
use std::io::Write;
use std::process::{Command, ExitCode};

/// The variable that names a Python.
const PYTHON: &str = "SCRIMP_BENCH_PYTHON";

/// The Python that `SCRIMP_BENCH_PYTHON` names, by default `python3`.
pub(crate) fn interpreter() -> String {
    std::env::var(PYTHON).unwrap_or_else(|_| "python3".to_owned())
}

/// The path of a file in `benches/pytorch`.
pub(crate) fn script(name: &str) -> String {
    format!("{}/benches/pytorch/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A call of a script in `benches/pytorch`.
pub(crate) fn python(name: &str) -> Command {
    let mut command = Command::new(interpreter());
    command.arg(script(name));
    command
}

/// A call of `mpirun` for so many ranks, also by root and on fewer cores.
pub(crate) fn mpirun(ranks: &str) -> Command {
    let mut command = Command::new("mpirun");
    command
        .args(["-n", ranks, "--oversubscribe", "--bind-to", "none"])
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command
}

/// What a command prints, which needs these Python packages. Refuses one that fails.
pub(crate) fn printed(command: &mut Command, packages: &str) -> Result<Vec<u8>> {
    let hint = format!("run `pip install {packages}`, or name another Python in `{PYTHON}`");
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().context(|| format!("cannot start `{name}`"));
    let output = output.map_err(|failure| failure.hint(&hint))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Failure::new(format!("`{command:?}` failed: {}", output.status))
        .at(String::from_utf8_lossy(&output.stderr))
        .hint(hint))
}

/// The JSON in the last line that a command prints, in front of which others may have written.
pub(crate) fn answer<T: DeserializeOwned>(command: &mut Command, packages: &str) -> Result<T> {
    let text = printed(command, packages)?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).context(|| format!("cannot read what `{command:?}` printed"))
}

/// The middle one, of an even number the upper; not a number where there are none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Makes the peak that `VmHWM` tells begin anew.
pub(crate) fn forget_peak() -> Result<()> {
    std::fs::write("/proc/self/clear_refs", "5").context(|| "cannot write `/proc/self/clear_refs`")
}

/// Bytes of a line of `/proc/self/status`.
pub(crate) fn memory(field: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")
        .context(|| "cannot read `/proc/self/status`")?;
    let line = status.lines().find(|line| line.starts_with(field));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    let kibibytes =
        kibibytes.ok_or_else(|| Failure::new(format!("`/proc/self/status` has no `{field}`")))?;
    Ok(kibibytes * 1024)
}

/// How the process ends; tells why it failed.
pub(crate) fn end(outcome: Result<()>) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    // Where stderr is closed nobody listens.
    drop(writeln!(std::io::stderr(), "{failure}"));
    ExitCode::from(failure.exit() as u8)
}
