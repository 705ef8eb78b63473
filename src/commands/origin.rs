//! What a run learns from beside what its weights learnt from before: whether it may go on with it, and
//! which cases no score may be taken of.
//!
//! Images are compared by their contents: names of files and of folds may change between two runs.

use super::run;
use crate::config::plan::RunPlan;
use crate::data::Dataset;
use crate::data::identity::Identity;
use crate::data::stream::seen_cases;
use crate::error::{Failure, Result};
use crate::methods;
use crate::train::checkpoint::{Checkpoint, LearntFrom, Manifest};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A data set and what tells it from others.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) dataset: Arc<Dataset>,
    pub(super) identity: Identity,
}

impl Source {
    /// The data set of a plan, in memory.
    pub(super) fn read(plan: &RunPlan) -> Result<Self> {
        let (dataset, identity) = run::identified(plan)?;
        Ok(Self { dataset, identity })
    }

    /// What a run of this plan learns from, with `fold` held out.
    fn learnt_from(&self, plan: &RunPlan, fold: u32) -> Result<LearntFrom> {
        let learnt = learnt_cases(plan, &self.dataset, fold)?;
        let images: BTreeSet<&String> =
            learnt.into_iter().map(|case| &self.identity.images[case]).collect();
        Ok(LearntFrom {
            data_set: self.dataset.name.clone(),
            digest: self.identity.digest.clone(),
            fold,
            annotation: plan.data.annotation.clone(),
            images: images.into_iter().cloned().collect(),
        })
    }

    /// What a run of this plan learns from.
    pub(super) fn of_run(&self, plan: &RunPlan) -> Result<LearntFrom> {
        self.learnt_from(plan, plan.data.fold)
    }

    /// The first case of `fold` whose image is among those learnt from.
    fn seen(&self, learnt_from: &[LearntFrom], fold: u32) -> Option<&str> {
        // What a fold of the same data holds out was not learnt from, whatever it looks like.
        let others = learnt_from
            .iter()
            .filter(|learnt| learnt.digest != self.identity.digest || learnt.fold != fold);
        let seen: BTreeSet<&String> = others.flat_map(|learnt| &learnt.images).collect();
        let mut cases = self.dataset.cases.iter().zip(&self.identity.images);
        let found = cases.find(|(case, image)| case.fold == fold && seen.contains(image));
        found.map(|(case, _)| case.name.as_str())
    }

    /// Refuses to score a fold of which the weights of a checkpoint have seen a case.
    pub(super) fn refuse_seen(
        &self,
        checkpoint: &Checkpoint,
        plan: &RunPlan,
        fold: u32,
    ) -> Result<()> {
        self.dataset.held_out(fold)?;
        let manifest = &checkpoint.manifest;
        let held_out = held_out_by(manifest).unwrap_or(plan.data.fold);
        let learnt_from = if manifest.learnt_from.is_empty() {
            // All that is known: it was this method, on these data.
            vec![self.learnt_from(plan, held_out)?]
        } else {
            manifest.learnt_from.clone()
        };
        let Some(case) = self.seen(&learnt_from, fold) else { return Ok(()) };
        let failure = Failure::usage(format!(
            "the run has trained on case `{case}` of fold {fold}, so that its score would mean nothing"
        ));
        Err(if fold == plan.data.fold {
            failure.hint(format!(
                "`{}` was trained with fold {held_out} held out, and not only: begin another run for fold {fold}",
                checkpoint.path.display()
            ))
        } else {
            failure.hint(format!("leave `--fold` out to score fold {}", plan.data.fold))
        })
    }
}

/// The cases that a run of this plan learns from, with `fold` held out: neither what is held out, nor what has dense
/// labels alone and is there to be scored, in whatever fold.
pub(super) fn learnt_cases(
    plan: &RunPlan,
    dataset: &Dataset,
    fold: u32,
) -> Result<BTreeSet<usize>> {
    let streams = methods::find(&plan.method)?.streams;
    Ok(seen_cases(dataset, (fold, &plan.data.annotation), streams))
}

/// The fold that was held out last.
fn held_out_by(manifest: &Manifest) -> Option<u32> {
    if let Some(last) = manifest.learnt_from.last() {
        return Some(last.fold);
    }
    let config: toml::Table = manifest.config.parse().ok()?;
    config.get("data")?.get("fold")?.as_integer()?.try_into().ok()
}

/// What the weights of a run have learnt from once it has gone on from a checkpoint, and what a person
/// should know about that.
#[derive(Debug)]
pub(super) struct Continued {
    pub(super) learnt_from: Vec<LearntFrom>,
    /// Whether scores of the checkpoint can be compared with those of the run.
    pub(super) is_same: bool,
    pub(super) notes: Vec<String>,
}

impl Continued {
    /// Goes on from `checkpoint` with a source. Where the checkpoint is the run's own, other data than
    /// it learnt from and another fold are refused.
    pub(super) fn new(
        checkpoint: &Checkpoint,
        (plan, source): (&RunPlan, &Source),
        is_own: bool,
    ) -> Result<Self> {
        let (now, mut learnt_from) =
            (source.of_run(plan)?, checkpoint.manifest.learnt_from.clone());
        let is_same = match learnt_from.last() {
            Some(last) => last.digest == now.digest && last.fold == now.fold,
            None => held_out_by(&checkpoint.manifest).is_none_or(|fold| fold == now.fold),
        };
        if is_own && !is_same && checkpoint.manifest.run.step > 0 {
            return Err(refused(checkpoint, &now));
        }
        let seen = source.seen(&learnt_from, now.fold).map(|case| {
            format!(
                "`{}` has learnt from case `{case}`, which fold {} holds out: scores of this run say nothing about new patients",
                checkpoint.path.display(),
                now.fold
            )
        });
        learnt_from.retain(|learnt| *learnt != now);
        learnt_from.push(now);
        Ok(Self { learnt_from, is_same, notes: seen.into_iter().collect() })
    }
}

fn refused(checkpoint: &Checkpoint, now: &LearntFrom) -> Failure {
    let path = checkpoint.path.display();
    let last = checkpoint.manifest.learnt_from.last();
    let begin = format!(
        "or begin another run with its weights: `scrimp train CONFIG --run DIR --resume {path}`"
    );
    let failure = if let Some(last) = last.filter(|last| last.digest != now.digest) {
        Failure::usage(format!(
            "checkpoint `{path}` learnt from data set `{}` with digest {}, the configuration names `{}` with digest {}",
            last.data_set, last.digest, now.data_set, now.digest
        ))
        .hint("name the same data in `[data]` to continue")
    } else {
        let fold = held_out_by(&checkpoint.manifest).unwrap_or_default();
        Failure::usage(format!(
            "checkpoint `{path}` learnt with fold {fold} held out, the configuration says {}",
            now.fold
        ))
        .hint(format!("set `data.fold = {fold}` to continue"))
    };
    failure.hint(begin)
}
