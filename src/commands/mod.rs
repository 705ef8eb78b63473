//! One file per subcommand: the only place that knows every layer, and that decides nothing.

#[cfg(feature = "hdf5")]
mod annotate;
mod batch_job;
#[cfg(feature = "torch")]
mod bench;
#[cfg(feature = "hdf5")]
mod check;
#[cfg(feature = "torch")]
mod checkpoint;
#[cfg(feature = "torch")]
mod chosen;
mod config;
#[cfg(feature = "hdf5")]
mod crew;
#[cfg(feature = "hdf5")]
mod dice_table;
mod doctor;
#[cfg(feature = "torch")]
mod evaluate;
#[cfg(feature = "hdf5")]
mod evaluate_files;
#[cfg(feature = "torch")]
mod examine;
mod export;
#[cfg(feature = "hdf5")]
mod export_pack;
mod farm;
pub mod journal;
#[cfg(feature = "torch")]
mod kernel_cache;
mod launch;
#[cfg(feature = "hdf5")]
mod looked_at;
mod manual;
#[cfg(feature = "torch")]
mod methods;
#[cfg(feature = "torch")]
mod narrate;
#[cfg(feature = "torch")]
mod network_labels;
#[cfg(feature = "torch")]
mod origin;
#[cfg(feature = "hdf5")]
mod packing;
#[cfg(feature = "torch")]
mod predict;
#[cfg(feature = "hdf5")]
mod prepare;
#[cfg(feature = "torch")]
mod repeat;
#[cfg(feature = "hdf5")]
mod report;
#[cfg(feature = "torch")]
mod resume;
#[cfg(feature = "torch")]
mod run;
#[cfg(feature = "hdf5")]
mod scoring;
#[cfg(feature = "torch")]
mod supervise;
#[cfg(feature = "hdf5")]
mod table_file;
#[cfg(feature = "torch")]
mod train;
mod watch;

use crate::cli::{self, Cli, Command};
use crate::error::{Context, Exit, Failure, Result};
#[cfg(feature = "torch")]
use crate::files;
use crate::panics;
#[cfg(feature = "torch")]
use crate::runlog::claim::Fence;
use crate::runlog::directory::RunDirectory;
use crate::signals;
#[cfg(feature = "torch")]
use crate::train::checkpoint::CheckpointStore;
use serde::Serialize;
use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::path::Path;
#[cfg(feature = "torch")]
use std::sync::Arc;

/// Does what the command line asks for.
pub fn run(cli: &Cli) -> Result<Exit> {
    signals::fail_oversized_writes()?;
    panics::tell_as_failures();
    panics::caught_and_told(|| dispatch(cli))
}

fn dispatch(cli: &Cli) -> Result<Exit> {
    match &cli.command {
        Command::Config(arguments) => config::run(arguments),
        Command::Launch(arguments) => launch::run(arguments),
        Command::Farm(arguments) => farm::run(arguments),
        Command::Watch(arguments) => watch::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Export(arguments) => export(arguments),
        Command::Completions { shell } => manual::completions(*shell),
        Command::Manual { to } => manual::pages(to),
        #[cfg(feature = "hdf5")]
        Command::Prepare(arguments) => prepare::run(arguments),
        #[cfg(not(feature = "hdf5"))]
        Command::Prepare(_) => Err(absent("prepare", "hdf5")),
        #[cfg(feature = "torch")]
        Command::Train(arguments) => train::run(arguments),
        #[cfg(feature = "torch")]
        Command::Resume(arguments) => repeat::run(arguments),
        Command::Evaluate(arguments) => evaluate(arguments),
        #[cfg(feature = "torch")]
        Command::Predict(arguments) => predict::run(arguments),
        #[cfg(feature = "torch")]
        Command::Checkpoint(arguments) => checkpoint::run(arguments),
        #[cfg(feature = "torch")]
        Command::Methods { json } => methods::run(*json),
        #[cfg(feature = "torch")]
        Command::Bench(arguments) => bench::run(arguments),
        #[cfg(not(feature = "torch"))]
        Command::Train(_) => Err(absent("train", "torch")),
        #[cfg(not(feature = "torch"))]
        Command::Resume(_) => Err(absent("resume", "torch")),
        #[cfg(not(feature = "torch"))]
        Command::Predict(_) => Err(absent("predict", "torch")),
        #[cfg(not(feature = "torch"))]
        Command::Checkpoint(_) => Err(absent("checkpoint", "torch")),
        #[cfg(not(feature = "torch"))]
        Command::Bench(_) => Err(absent("bench", "torch")),
        #[cfg(not(feature = "torch"))]
        Command::Methods { .. } => Err(absent("methods", "torch")),
    }
}

/// Turns the log of a run or a packed data set into files of other programs.
fn export(arguments: &cli::Export) -> Result<Exit> {
    match arguments.to {
        #[cfg(feature = "hdf5")]
        cli::ExportFormat::Nnunet => export_pack::run(arguments),
        #[cfg(not(feature = "hdf5"))]
        cli::ExportFormat::Nnunet => Err(absent("export --to nnunet", "hdf5")),
        cli::ExportFormat::Csv | cli::ExportFormat::Tensorboard => export::run(arguments),
    }
}

/// Scores files, a run, or a run on files.
fn evaluate(arguments: &cli::Evaluate) -> Result<Exit> {
    let cli::Evaluate { predictions, images, labels, run, .. } = arguments;
    match (predictions, images, labels, run) {
        #[cfg(feature = "hdf5")]
        (Some(predictions), None, Some(labels), None) => {
            evaluate_files::run(arguments, predictions, labels)
        }
        #[cfg(feature = "torch")]
        (None, Some(images), Some(labels), Some(run)) => {
            predict::score(arguments, run, images, labels)
        }
        #[cfg(feature = "torch")]
        (None, None, None, Some(run)) => evaluate::run(arguments, run),
        #[cfg(not(feature = "torch"))]
        (None, .., Some(_)) => Err(absent("evaluate", "torch")),
        #[cfg(not(feature = "hdf5"))]
        (Some(_), ..) => Err(absent("evaluate", "hdf5")),
        // The command line lets nothing else through.
        _ => Err(Failure::usage("there is nothing to score")
            .hint("name a run, or `--predictions DIR` and `--labels DIR`")),
    }
}

#[cfg(not(feature = "torch"))]
fn absent(name: &str, feature: &str) -> Failure {
    Failure::usage(format!(
        "this build has no `{name}`: it was built without the feature `{feature}`"
    ))
    .hint(format!("build it with `cargo build --release --features {feature}`"))
}

/// Writes `text` to stdout. A reader who has seen enough, such as `head`, is no failure.
fn print(text: &str) -> Result<()> {
    let mut stdout = anstream::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context(|| "cannot write to stdout"),
    }
}

/// Writes facts to stdout as one JSON object.
fn print_json(facts: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(facts).context(|| "cannot write JSON")?;
    print(&format!("{text}\n"))
}

/// Writes one line to stderr. Nobody reading it is no reason to fail.
fn say(line: Arguments<'_>) {
    let _ = writeln!(anstream::stderr(), "{line}");
}

/// Takes back the request to stop that was obeyed, so that the next start goes on. One that stays there is
/// obeyed by the next `scrimp launch`.
fn withdraw_stop(directory: &RunDirectory) {
    if let Err(failure) = directory.withdraw(&directory.stop_request()) {
        say(format_args!("{}", failure.sentence()));
    }
}

/// The checkpoints of a run, which nobody changes once the directory is another's.
#[cfg(feature = "torch")]
fn store_within(directory: &RunDirectory, fence: Fence) -> CheckpointStore {
    CheckpointStore::new(directory.checkpoints()).guarded(Arc::new(move || fence.check()))
}

/// Writes the configuration of a run, every default filled in. Refuses to replace one that no run has
/// written: what people wrote has comments, and another program's is none of ours.
#[cfg(feature = "torch")]
fn write_config(directory: &RunDirectory, resolved: &str) -> Result<()> {
    let path = directory.config();
    let is_of_a_run = directory.events().is_dir() || directory.checkpoints().is_dir();
    let is_same = |start: &[u8]| is_of_a_run || resolved.as_bytes().starts_with(start);
    let refused = || format!("cannot write `{}`", path.display());
    files::refuse_foreign(&path, is_same).context(refused).map_err(|failure| {
        failure
            .exit_with(Exit::Usage)
            .hint("choose another directory with `--run DIR`, or another name for that file")
    })?;
    files::replace_durably(&path, resolved.as_bytes()).context(refused)
}

/// The directory of a run: the one that is named, else one under `runs/` called like `config`.
fn run_directory(config: Option<&Path>, run: Option<&Path>) -> RunDirectory {
    let stem = config.and_then(Path::file_stem).unwrap_or_else(|| "run".as_ref());
    RunDirectory::new(run.map_or_else(|| Path::new("runs").join(stem), Path::to_owned))
}
