//! `scrimp checkpoint`: looks at checkpoints, tidies them, and exchanges weights with other programs.

use super::run::{dataset, method, recorded, resolve};
use super::{chosen, print_json, train};
use super::{store_within, write_config};
use crate::cli::{self, ChosenCheckpoint};
use crate::comm::{Ranks, Solo};
use crate::config::plan::RunPlan;
use crate::config::{self, changes};
use crate::error::{Exit, Failure, Result, printable};
use crate::files;
use crate::runlog::directory::RunDirectory;
use crate::train::checkpoint::{
    Checkpoint, CheckpointStore, Header, LearnerTable, LearntFrom, Progress, Retention, RunState,
    Saver, has_vanished, import, read_manifest,
};
use crate::words::counted;
use serde::Serialize;
use serde_json::json;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::Device;

/// Does what the arguments say.
pub(super) fn run(arguments: &cli::Checkpoint) -> Result<Exit> {
    match arguments {
        cli::Checkpoint::List { run, json } => list(run, *json),
        cli::Checkpoint::Show { of, json } => show(of, *json),
        cli::Checkpoint::Verify { run, checkpoint, json } => {
            verify(run, checkpoint.as_deref(), *json)
        }
        cli::Checkpoint::Prune { run, json } => prune(&RunDirectory::new(run), *json),
        cli::Checkpoint::Export { from, to, json } => {
            let step = with(from, |found| {
                found.export(to)?;
                Ok(found.manifest.run.step)
            })?;
            let said = format!("wrote `{}` from step {step}\n", to.display());
            tell(*json, &json!({ "file": to, "step": step }), &said)
        }
        cli::Checkpoint::Import { config, from, run, overrides, json } => {
            let (config, directory) = train::places(Some(config), run.as_deref());
            let plan = config::read(&config, overrides).and_then(|config| resolve(&config, 1));
            let written = begin_with(&plan?, &directory, from)?;
            let (name, path) = (directory.root(), written.display());
            let said = format!(
                "wrote `{path}`; `scrimp train --run {}` goes on from it\n",
                name.display()
            );
            tell(*json, &json!({ "run": name, "checkpoint": written }), &said)
        }
    }?;
    Ok(Exit::Done)
}

fn store(run: &Path) -> CheckpointStore {
    CheckpointStore::new(RunDirectory::new(run).checkpoints())
}

fn with<T>(chosen: &ChosenCheckpoint, work: impl Fn(&Checkpoint) -> Result<T>) -> Result<T> {
    let directory = RunDirectory::new(&chosen.run);
    chosen::with(&directory, &chosen.checkpoint, |path| work(&chosen::read(&directory, path)?))
}

/// Prints what may hold names from files.
fn print(text: &str) -> Result<()> {
    super::print(&printable(text))
}

/// The facts as JSON, or the same in words.
fn tell(is_json: bool, facts: &impl Serialize, words: &str) -> Result<()> {
    if is_json { print_json(facts) } else { print(words) }
}

fn list(run: &Path, is_json: bool) -> Result<()> {
    let (store, mut text, mut refused, mut facts) = (store(run), String::new(), 0, Vec::new());
    let paths = store.paths()?;
    for path in &paths {
        let line = match read_manifest(path) {
            Ok(found) => {
                let run = &found.manifest.run;
                let place = run.best.iter().position(|best| best.step == run.step);
                facts.push(json!({
                    "path": path,
                    "state": "saved",
                    "step": run.step,
                    "bytes": found.manifest.bytes(),
                    "shards": found.manifest.files.len(),
                    "mean_dice": place.map(|place| run.best[place].mean_dice),
                    "is_best": place == Some(0),
                }));
                format!("{}{}", size(&found), score(run))
            }
            // A run that is alive has removed it since.
            Err(_) if has_vanished(path) => continue,
            Err(failure) => {
                refused += 1;
                facts.push(
                    json!({ "path": path, "state": "refused", "problem": failure.sentence() }),
                );
                failure.sentence()
            }
        };
        let _ = writeln!(text, "{}  {line}", path.display());
    }
    for (paths, what) in [(store.set_aside()?, "set aside"), (store.unfinished()?, "unfinished")] {
        for path in paths {
            let _ = writeln!(text, "{}  {what}", path.display());
            facts.push(json!({ "path": path, "state": what.replace(' ', "_") }));
        }
    }
    tell(is_json, &json!({ "run": run, "checkpoints": facts }), &text)?;
    if refused == 0 {
        return Ok(());
    }
    Err(Failure::new(format!("{refused} of {} checkpoints cannot be used", paths.len())))
}

fn size(found: &Checkpoint) -> String {
    let shards = counted(found.manifest.files.len(), "shard");
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

fn show(chosen: &ChosenCheckpoint, is_json: bool) -> Result<()> {
    let (directory, found) =
        (RunDirectory::new(&chosen.run), with(chosen, |found| Ok(found.clone()))?);
    let resolved = files::read_text(&directory.config(), files::SMALL_BYTES).unwrap_or_default();
    let manifest = &found.manifest;
    let changed =
        if resolved.is_empty() { Vec::new() } else { changes(&manifest.config, &resolved)? };
    if is_json {
        let changed: Vec<String> = changed.iter().map(ToString::to_string).collect();
        return print_json(&facts(&found, &changed));
    }
    let mut text = format!("{}\n", found.path.display());
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10}{value}");
    };
    line("step", manifest.run.step.to_string());
    line("method", manifest.method.clone());
    line("size", size(&found));
    line("by", format!("scrimp {}", manifest.code_version));
    if let Some(best) = manifest.run.best() {
        line("best", format!("mean Dice {:.4} after step {}", best.mean_dice, best.step));
    }
    if !manifest.classes.is_empty() {
        line("classes", manifest.classes.join(", "));
    }
    for learner in &manifest.learners {
        line("learner", described(learner));
    }
    for learnt in &manifest.learnt_from {
        line("learnt", described_source(learnt));
    }
    for change in changed {
        line("changed", format!("{change} in `{}`", directory.config().display()));
    }
    print(&text)
}

/// What a checkpoint holds, and how the configuration of its run has changed since.
fn facts(found: &Checkpoint, changed: &[String]) -> serde_json::Value {
    let manifest = &found.manifest;
    let learners = manifest.learners.iter().map(|learner| {
        json!({
            "name": learner.name,
            "values": values(learner),
            "tensors": learner.parameters.len(),
            "buffers": learner.buffers.len(),
            "flat": learner.flat,
            "updates": learner.updates,
        })
    });
    let learnt_from = manifest.learnt_from.iter().map(|learnt| {
        json!({
            "data_set": learnt.data_set,
            "digest": learnt.digest,
            "fold": learnt.fold,
            "annotation": learnt.annotation,
            "images": learnt.images.len(),
        })
    });
    json!({
        "path": found.path,
        "step": manifest.run.step,
        "method": manifest.method,
        "bytes": manifest.bytes(),
        "shards": manifest.files.len(),
        "code_version": manifest.code_version,
        "best": manifest.run.best(),
        "classes": manifest.classes,
        "learners": learners.collect::<Vec<_>>(),
        "learnt_from": learnt_from.collect::<Vec<_>>(),
        "changed": changed,
    })
}

fn values(learner: &LearnerTable) -> i64 {
    learner.parameters.iter().map(|p| p.shape.iter().product::<i64>()).sum()
}

fn described_source(learnt: &LearntFrom) -> String {
    let held_out = match learnt.fold {
        0 => "nothing held out".to_owned(),
        fold => format!("fold {fold} held out"),
    };
    format!(
        "`{}` of {} images of `{}`, {held_out}, digest {}",
        learnt.annotation,
        learnt.images.len(),
        learnt.data_set,
        learnt.digest
    )
}

fn described(learner: &LearnerTable) -> String {
    let values = values(learner);
    format!(
        "{}: {values} values in {} tensors, {} buffers, {}; {} updates",
        learner.name,
        learner.parameters.len(),
        learner.buffers.len(),
        learner.flat.join(" and "),
        learner.updates
    )
}

fn verify(run: &Path, chosen: Option<&str>, is_json: bool) -> Result<()> {
    let paths = match chosen {
        Some(name) => vec![chosen::path(&RunDirectory::new(run), name)?],
        None => store(run).paths()?,
    };
    if paths.is_empty() {
        return Err(Failure::new(format!("`{}` holds no checkpoint", run.display()))
            .hint("train first: `scrimp train CONFIG`"));
    }
    let (mut sound, mut refused): (Option<&PathBuf>, usize) = (None, 0);
    let mut facts = Vec::new();
    for path in &paths {
        let verdict = match read_manifest(path).and_then(|found| found.verify()) {
            Ok(()) => {
                sound = Some(path);
                "sound".to_owned()
            }
            // A run that is alive has removed it since.
            Err(_) if has_vanished(path) && chosen.is_none() => continue,
            Err(failure) => {
                refused += 1;
                failure.sentence()
            }
        };
        if !is_json {
            print(&format!("{}  {verdict}\n", path.display()))?;
        }
        let is_sound = sound == Some(path);
        let problem = (!is_sound).then_some(verdict);
        facts.push(json!({ "path": path, "is_sound": is_sound, "problem": problem }));
    }
    if is_json {
        print_json(&json!({ "run": run, "checkpoints": facts, "newest_sound": sound }))?;
    }
    if refused == 0 {
        return Ok(());
    }
    let failure = Failure::new(format!("{refused} of {} checkpoints cannot be used", paths.len()));
    Err(match sound {
        Some(path) => failure.hint(format!("the newest sound one is `{}`", path.display())),
        None => failure,
    })
}

/// Removes what a run would not keep, in its name: the directory is taken for the time that this takes.
fn prune(directory: &RunDirectory, is_json: bool) -> Result<()> {
    let name = directory.root().display();
    let train = config::read(&directory.config(), &[])
        .and_then(|config| RunPlan::resolve(config, 1))
        .map(|plan| plan.train)?;
    let claim = directory.claim().map_err(|failure| {
        failure.hint("a run that is alive removes by itself what it does not keep")
    })?;
    let store = store_within(directory, claim.fence());
    let is_sound = |path: &PathBuf| read_manifest(path).is_ok_and(|found| found.verify().is_ok());
    let (sound, mut given_up): (Vec<PathBuf>, Vec<PathBuf>) =
        store.paths()?.into_iter().partition(is_sound);
    let newest = sound.last().ok_or_else(|| {
        Failure::new(format!("no checkpoint of `{name}` verifies, so none is removed"))
            .hint(format!("`scrimp checkpoint verify {name}` says what is wrong with each"))
    })?;
    let best = read_manifest(newest)?.manifest.run.best;
    let best: Vec<u64> = best.iter().map(|best| best.step).collect();
    let mut removed = store.sweep()?;
    given_up.extend(store.set_aside()?);
    given_up.retain(|path| store.remove(path));
    removed.extend(given_up);
    let retention = Retention { last: train.keep_checkpoints, every: train.keep_every };
    removed.extend(store.prune(retention, &best));
    let lines = removed.iter().map(|path| format!("removed {}\n", path.display()));
    let words = lines.collect::<String>();
    tell(is_json, &json!({ "run": directory.root(), "removed": removed }), &words)
}

/// Writes a checkpoint of step 0 with the weights of a file, into a directory without any, and gives its path.
fn begin_with(plan: &RunPlan, directory: &RunDirectory, from: &Path) -> Result<PathBuf> {
    let name = directory.root().display();
    let claim = directory.claim()?;
    let store = store_within(directory, claim.fence());
    if !store.paths()?.is_empty() {
        return Err(Failure::usage(format!("`{name}` has checkpoints already, expected none"))
            .hint("choose another directory with `--run DIR`"));
    }
    let dataset = dataset(plan)?;
    let method = method(plan, &dataset, Device::Cpu, &Ranks::alone())?;
    if let Some(first) = method.learners().into_iter().next() {
        import(first, from)?;
    }
    store.sweep()?;
    let header = Header {
        method: plan.method.clone(),
        config: recorded(plan, &dataset).to_toml()?,
        classes: dataset.classes.clone(),
        learnt_from: Vec::new(),
    };
    write_config(directory, &header.config)?;
    let retention = Retention { last: 1, every: 0 };
    let written = store.path(0);
    let mut saver = Saver::new(store, header, retention, Arc::new(Solo));
    saver.begin(RunState::default(), &method.learners())?;
    if let Progress::Failed(failure) = saver.finish()? {
        return Err(failure);
    }
    Ok(written)
}
