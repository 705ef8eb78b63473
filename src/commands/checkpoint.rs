//! `scrimp checkpoint`: looks at checkpoints, tidies them, and exchanges weights with other programs.

use super::run::{dataset, method, resolve};
use super::{evaluate, train};
use crate::cli::{self, ChosenCheckpoint};
use crate::comm::{Communicator, Solo};
use crate::config::plan::RunPlan;
use crate::config::{self, changes};
use crate::error::{Context, Exit, Failure, Result};
use crate::runlog::directory::RunDirectory;
use crate::train::checkpoint::{
    Checkpoint, CheckpointStore, Header, LearnerTable, Progress, Retention, RunState, Saver,
    import, read_manifest,
};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::Device;

/// Does what the arguments say.
pub(super) fn run(arguments: &cli::Checkpoint) -> Result<Exit> {
    match arguments {
        cli::Checkpoint::List { run } => list(&store(run)),
        cli::Checkpoint::Show(chosen) => show(&RunDirectory::new(&chosen.run), &find(chosen)?),
        cli::Checkpoint::Verify { run, checkpoint } => verify(run, checkpoint.as_deref()),
        cli::Checkpoint::Prune { run } => prune(&RunDirectory::new(run)),
        cli::Checkpoint::Export { from, to } => {
            let found = find(from)?;
            found.export(to)?;
            let step = found.manifest.run.step;
            super::print(&format!("wrote `{}` from step {step}\n", to.display()))
        }
        cli::Checkpoint::Import { config, from, run, overrides } => {
            let (config, directory) = train::places(Some(config), run.as_deref());
            let plan = config::read(&config, overrides).and_then(|config| resolve(&config, 1));
            begin_with(&plan?, &directory, from)
        }
    }?;
    Ok(Exit::Done)
}

fn store(run: &Path) -> CheckpointStore {
    CheckpointStore::new(RunDirectory::new(run).checkpoints())
}

fn find(chosen: &ChosenCheckpoint) -> Result<Checkpoint> {
    evaluate::checkpoint(&RunDirectory::new(&chosen.run), &chosen.checkpoint)
}

fn list(store: &CheckpointStore) -> Result<()> {
    let mut text = String::new();
    for found in store.list() {
        let (path, size) = (found.path.display(), size(&found));
        let _ = writeln!(text, "{path}  {size}{}", score(&found.manifest.run));
    }
    for (paths, what) in [(store.set_aside(), "set aside"), (store.unfinished(), "unfinished")] {
        for path in paths {
            let _ = writeln!(text, "{}  {what}", path.display());
        }
    }
    super::print(&text)
}

fn size(found: &Checkpoint) -> String {
    let shards = match found.manifest.files.len() {
        1 => "1 shard".to_owned(),
        count => format!("{count} shards"),
    };
    format!("{:.1} MB in {shards}", found.manifest.bytes() as f64 / 1e6)
}

/// The score of the checkpoint itself, where it is among the best of its run.
fn score(run: &RunState) -> String {
    let own = run.best.iter().position(|best| best.step == run.step);
    own.map_or_else(String::new, |place| {
        let mark = if place == 0 { "  best" } else { "" };
        format!("  mean Dice {:.4}{mark}", run.best[place].mean_dice)
    })
}

fn show(directory: &RunDirectory, found: &Checkpoint) -> Result<()> {
    let manifest = &found.manifest;
    let mut text = format!("{}\n", found.path.display());
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10}{value}");
    };
    line("step", manifest.run.step.to_string());
    line("method", manifest.method.clone());
    line("size", size(found));
    line("by", format!("scrimp {}", manifest.code_version));
    if let Some(best) = manifest.run.best() {
        line("best", format!("mean Dice {:.4} after step {}", best.mean_dice, best.step));
    }
    for learner in &manifest.learners {
        line("learner", described(learner));
    }
    let resolved = std::fs::read_to_string(directory.config()).unwrap_or_default();
    if !resolved.is_empty() {
        for change in changes(&manifest.config, &resolved)? {
            line("changed", format!("{change} in `{}`", directory.config().display()));
        }
    }
    super::print(&text)
}

fn described(learner: &LearnerTable) -> String {
    let values: i64 = learner.parameters.iter().map(|p| p.shape.iter().product::<i64>()).sum();
    format!(
        "{}: {values} values in {} tensors, {} buffers, {}; {} updates",
        learner.name,
        learner.parameters.len(),
        learner.buffers.len(),
        learner.flat.join(" and "),
        learner.updates
    )
}

fn verify(run: &Path, chosen: Option<&str>) -> Result<()> {
    let store = store(run);
    let paths = match chosen {
        Some(name) => vec![evaluate::checkpoint(&RunDirectory::new(run), name)?.path],
        None => store.paths(),
    };
    if paths.is_empty() {
        return Err(Failure::new(format!("`{}` holds no checkpoint", run.display()))
            .hint("train first: `scrimp train CONFIG`"));
    }
    let (mut sound, mut damaged): (Option<&PathBuf>, usize) = (None, 0);
    for path in &paths {
        let verdict = read_manifest(path).and_then(|found| found.verify());
        let line = match verdict {
            Ok(()) => format!("{}  sound\n", path.display()),
            Err(failure) => {
                damaged += 1;
                format!("{}  {}\n", path.display(), failure.sentence())
            }
        };
        sound = if line.ends_with("  sound\n") { Some(path) } else { sound };
        super::print(&line)?;
    }
    if damaged == 0 {
        return Ok(());
    }
    let failure = Failure::new(format!("{damaged} of {} checkpoints are damaged", paths.len()));
    Err(match sound {
        Some(path) => failure.hint(format!("the newest sound one is `{}`", path.display())),
        None => failure,
    })
}

fn prune(directory: &RunDirectory) -> Result<()> {
    let name = directory.root().display();
    if let Some(writer) = directory.writer() {
        return Err(Failure::usage(format!(
            "`{name}` belongs to a run that is alive on `{}`, process {}: it removes what it does not keep",
            writer.host, writer.pid
        )));
    }
    let train = config::read(&directory.config(), &[])
        .and_then(|config| RunPlan::resolve(config, 1))
        .map(|plan| plan.train)?;
    let store = CheckpointStore::new(directory.checkpoints());
    let is_sound = |path: &PathBuf| read_manifest(path).is_ok_and(|found| found.verify().is_ok());
    let (sound, damaged): (Vec<PathBuf>, Vec<PathBuf>) =
        store.paths().into_iter().partition(is_sound);
    let newest = sound.last().ok_or_else(|| {
        Failure::new(format!("no checkpoint of `{name}` verifies, so none is removed"))
            .hint(format!("`scrimp checkpoint verify {name}` says what is wrong with each"))
    })?;
    let best = read_manifest(newest)?.manifest.run.best;
    let best: Vec<u64> = best.iter().map(|best| best.step).collect();
    let mut removed = store.sweep()?;
    let mut given_up = store.set_aside();
    given_up.extend(damaged);
    given_up.retain(|path| store.remove(path));
    removed.extend(given_up);
    let retention = Retention { last: train.keep_checkpoints, every: train.keep_every };
    removed.extend(store.prune(retention, &best));
    let lines = removed.iter().map(|path| format!("removed {}\n", path.display()));
    super::print(&lines.collect::<String>())
}

/// Writes a checkpoint of step 0 with the weights of a file, into a directory without any.
fn begin_with(plan: &RunPlan, directory: &RunDirectory, from: &Path) -> Result<()> {
    let name = directory.root().display();
    let store = CheckpointStore::new(directory.checkpoints());
    if !store.paths().is_empty() {
        return Err(Failure::usage(format!("`{name}` has checkpoints already, expected none"))
            .hint("choose another directory with `--run DIR`"));
    }
    let _claim = directory.claim()?;
    let alone: Arc<dyn Communicator> = Arc::new(Solo);
    let mut method = method(plan, &*dataset(plan)?, Device::Cpu, &alone)?;
    if let Some(first) = method.learners_mut().into_iter().next() {
        import(first, from)?;
    }
    store.sweep()?;
    let header = Header { method: plan.method.clone(), config: plan.to_toml()? };
    let path = directory.config();
    std::fs::write(&path, &header.config)
        .context(|| format!("cannot write `{}`", path.display()))?;
    let retention = Retention { last: 1, every: 0 };
    let written = store.path(0);
    let mut saver = Saver::new(store, header, retention, alone);
    saver.begin(RunState::default(), &method.learners())?;
    if let Progress::Failed(failure) = saver.finish()? {
        return Err(failure);
    }
    super::print(&format!(
        "wrote `{}`; `scrimp train --run {name}` goes on from it\n",
        written.display()
    ))
}
