//! The checkpoints that predict: what each says of itself, whether they can predict together, and their
//! networks.
//!
//! A checkpoint is all that is needed: neither its run directory nor the data that it learnt from.

use super::records::MemberIdentity;
use crate::comm::{Host, Ranks, agree};
use crate::commands::chosen;
use crate::commands::run::{self, Place, Task};
use crate::config::plan::RunPlan;
use crate::config::sampling::Sampling;
use crate::config::{self, DeviceChoice};
use crate::error::{Context, Failure, Result};
use crate::launchers::Variables;
use crate::preparation::Preparation;
use crate::runlog::directory::RunDirectory;
use crate::train::Method;
use crate::train::checkpoint::{Checkpoint, restore_predicting};
use std::mem::discriminant;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// A checkpoint that predicts, before its weights are read.
pub(super) struct Member {
    /// As it was named.
    run: PathBuf,
    checkpoint: Checkpoint,
    pub(super) plan: RunPlan,
    /// By label, class 0 the background.
    pub(super) classes: Vec<String>,
    /// That of the modality of the images.
    pub(super) preparation: Preparation,
}

impl Member {
    /// Reads what the checkpoint of a run, or the one that `run` itself is, says of itself.
    ///
    /// Refuses one that does not say how scans were prepared, or how those of `modality` were.
    pub(super) fn read(run: &Path, name: &str, modality: Option<&str>) -> Result<Self> {
        let directory = RunDirectory::new(run);
        let checkpoint = if Self::is_checkpoint(run) {
            chosen::read(&directory, run)
        } else {
            chosen::find(&directory, name)
        }?;
        let manifest = &checkpoint.manifest;
        let place = checkpoint.path.display().to_string();
        let config = config::parse(&manifest.config, &place, &[])?;
        let plan = run::resolve(&config, 1)?;
        let known = plan.data.preparation.clone().filter(|_| !manifest.classes.is_empty());
        let Some(preparation) = known else {
            let message = format!(
                "checkpoint `{place}` does not say which classes there are and how scans were prepared"
            );
            return Err(Failure::usage(message).hint(format!(
                "it was written before they were recorded: pack the data again, and train on from it with \
                 `scrimp train CONFIG --run DIR --resume {place}`"
            )));
        };
        let preparation = preparation.of_modality(modality).map_err(|failure| {
            hinted(failure.during(format!("cannot prepare images for `{place}`")), &preparation)
        })?;
        let classes = manifest.classes.clone();
        Ok(Self { run: run.to_owned(), plan, classes, preparation, checkpoint })
    }

    /// Whether `run` is a checkpoint itself.
    pub(super) fn is_checkpoint(run: &Path) -> bool {
        run.join("manifest.json").is_file()
    }

    /// All of them, which can predict together.
    pub(super) fn read_all(
        runs: &[PathBuf],
        checkpoint: &str,
        modality: Option<&str>,
    ) -> Result<Vec<Self>> {
        if runs.len() > 1 && !matches!(checkpoint, "last" | "best") {
            let message =
                format!("`--checkpoint {checkpoint}` names one checkpoint for {} runs", runs.len());
            return Err(Failure::usage(message).hint(
                "name checkpoints in place of runs: `scrimp predict CHECKPOINT CHECKPOINT ...`",
            ));
        }
        let members = runs.iter().map(|run| Self::read(run, checkpoint, modality));
        let members = members.collect::<Result<Vec<Self>>>()?;
        if let Some((first, others)) = members.split_first() {
            others.iter().try_for_each(|other| first.refuse_unlike(other))?;
        }
        Ok(members)
    }

    /// Refuses another checkpoint whose probabilities are not those of the same classes, voxel by voxel.
    fn refuse_unlike(&self, other: &Self) -> Result<()> {
        let (own, others) = (self.run.display(), other.run.display());
        let refuse = |what: String| {
            let message = format!("`{own}` and `{others}` cannot predict together: {what}");
            Err(Failure::usage(message).hint("predict with each into a folder of its own"))
        };
        let list = |names: &[String]| format!("`{}`", names.join("`, `"));
        let differ = |what: &str, own: String, others: String| {
            refuse(format!("the first has {what} {own}, the second {others}"))
        };
        if self.classes != other.classes {
            return differ("the classes", list(&self.classes), list(&other.classes));
        }
        let channels = |member: &Self| {
            let names = member.preparation.channels.iter().map(|channel| channel.name.clone());
            names.collect::<Vec<String>>()
        };
        if channels(self) != channels(other) {
            return differ("the channels", list(&channels(self)), list(&channels(other)));
        }
        let (data, other_data) = (&self.plan.data, &other.plan.data);
        if self.preparation != other.preparation || data.colour != other_data.colour {
            return refuse("their scans were prepared in different ways".to_owned());
        }
        let (seen, other_seen) = (data.sampling, other_data.sampling);
        if seen.extent() != other_seen.extent() || discriminant(&seen) != discriminant(&other_seen)
        {
            let (seen, other_seen) = (described(seen), described(other_seen));
            return refuse(format!("the first sees {seen}, the second {other_seen}"));
        }
        if run::kind(&self.plan) != run::kind(&other.plan) {
            let precision = |member: &Self| format!("`{:?}`", member.plan.train.precision);
            return differ("the precision", precision(self), precision(other));
        }
        Ok(())
    }

    /// How many files an image has: one for each channel, unless they are colours.
    pub(super) fn files_for_each(&self) -> usize {
        if self.preparation.takes_a_picture() { 1 } else { self.preparation.channels.len() }
    }

    /// What tells it from others.
    pub(super) fn identity(&self) -> Result<MemberIdentity> {
        let manifest = &self.checkpoint.manifest;
        let text =
            serde_json::to_vec(manifest).context(|| "cannot tell a checkpoint from others")?;
        Ok(MemberIdentity {
            method: manifest.method.clone(),
            step: manifest.run.step,
            xxh3: format!("{:016x}", xxh3_64(&text)),
        })
    }

    /// Where this rank computes: wherever the checkpoint comes from, this machine decides. Every rank calls this.
    pub(super) fn place(
        &self,
        choice: DeviceChoice,
        host: &Host,
        variables: &Variables,
    ) -> Result<Place> {
        let mut plan = self.plan.clone();
        plan.train.threads = 0;
        plan.train.device = choice;
        Place::take(&plan, &**host, variables)
    }

    /// Its method with the networks that predict; every rank calls this.
    pub(super) fn restore(&self, place: Place, ranks: &Ranks) -> Result<Box<dyn Method>> {
        let task = Task {
            classes: self.classes.len(),
            channels: self.preparation.channels.len(),
            // What a method keeps of the slices that it learnt from predicts nothing.
            slices: Vec::new(),
            spacing_mm: self.preparation.spacing.of_volume_mm(),
            levels: Vec::new(),
        };
        let method = run::method_for(&self.plan, task, place.device, ranks);
        let method = agree(&**ranks, method)?;
        restore_predicting(&self.checkpoint.path, &*method, ranks)?;
        Ok(method)
    }
}

/// Says with which option images are told apart, of a run whose scans were prepared so.
fn hinted(failure: Failure, preparation: &Preparation) -> Failure {
    match preparation.modalities.keys().next() {
        Some(modality) => failure
            .hint(format!("say what the images were taken with, as in `--modality {modality}`")),
        None => failure.hint("leave `--modality` out"),
    }
}

/// What a network sees of a scan, in words.
fn described(sampling: Sampling) -> String {
    match sampling {
        Sampling::Slices { size } => format!("slices resized to {size} x {size}"),
        Sampling::Cropped { size } => format!("slices cropped to {size} x {size}"),
        Sampling::Patches { extent: [slices, rows, columns], .. } => {
            format!("windows of {slices} x {rows} x {columns}")
        }
    }
}
