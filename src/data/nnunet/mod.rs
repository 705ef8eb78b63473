//! A packed data set as a raw folder of nnU-Net, `DatasetNNN_NAME`.
//!
//! Follows what `MIC-DKFZ/nnUNet` at 2.8 reads. Decides which case is for what and writes the files; the folder is
//! somebody else's to name.

mod description;
mod files;

use super::{Case, DENSE, Dataset, GAZE, IMAGE_LABEL, SCRIBBLE};
use crate::error::{Failure, Result};
use crate::preparation::Intensities;
use crate::scan::{Notes, list};
use crate::words::counted;
use std::collections::BTreeSet;
use std::path::Path;

/// What a case is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// To train on, in all folds but its own.
    Learned,
    /// To validate with in its fold, and never trained on: it has dense labels alone.
    Scored,
    /// To test with.
    Tested,
}

/// A data set with what becomes of it.
pub struct RawFolderPlan<'a> {
    dataset: &'a Dataset,
    /// The kind of annotation to train on.
    annotation: String,
    cases: Vec<(&'a Case, Role)>,
    /// The label of voxels of which nobody said what they are.
    ignore: Option<u8>,
    /// Whether each case is one slice.
    is_flat: bool,
    /// Whether cases are pictures of 8 bits.
    are_pictures: bool,
    notes: Notes,
}

impl<'a> RawFolderPlan<'a> {
    /// Says what becomes of each case where `annotation` is trained on; without one these are scribbles, where there are
    /// none dense labels.
    ///
    /// Cases of the fold to test with go to `imagesTs`, those with the annotation to `imagesTr`, and there, too, those with
    /// dense labels alone that a fold holds out, on which no fold trains; others are left out, and noted. Refuses an
    /// annotation that no case has or that is no label of voxels, names that cannot be those of files, and names of classes
    /// that nnU-Net keeps for itself.
    pub fn of(dataset: &'a Dataset, annotation: Option<&str>) -> Result<Self> {
        let is_test = |case: &Case| dataset.test_fold == Some(case.fold);
        let has = |kind: &str| {
            let mut cases = dataset.cases.iter().filter(|case| !is_test(case));
            cases.any(|case| case.annotations.contains_key(kind))
        };
        let usual = if has(SCRIBBLE) { SCRIBBLE } else { DENSE };
        let annotation = annotation.unwrap_or(usual);
        if !has(annotation) || [GAZE, IMAGE_LABEL].contains(&annotation) {
            return Err(unknown(dataset, annotation));
        }
        refuse_names(dataset)?;
        let notes = Notes::default();
        let role = |case: &'a Case| {
            let has = |kind: &str| case.annotations.contains_key(kind);
            let role = if is_test(case) {
                Role::Tested
            } else if has(annotation) {
                Role::Learned
            } else if has(DENSE) && case.fold > 0 {
                Role::Scored
            } else {
                let why =
                    format!("there is no `{annotation}` to train on and nothing to validate with");
                notes.leave_out(&why, format!("`{}`", case.name));
                return None;
            };
            Some((case, role))
        };
        let cases: Vec<(&Case, Role)> = dataset.cases.iter().filter_map(role).collect();
        let class_count = dataset.classes.len();
        let lacks = |case: &&(&Case, Role)| case.0.lacks_classes(class_count);
        for (case, _) in cases.iter().filter(lacks) {
            let sentence = "background becomes ignored where nobody looked for some classes, since nnU-Net knows no such cases";
            notes.add(sentence, format!("`{}`", case.name));
        }
        let ignores = annotation != DENSE || cases.iter().any(|case| lacks(&case));
        let is_flat = cases.iter().all(|(case, _)| case.scan.grid.shape[0] == 1);
        Ok(Self {
            annotation: annotation.to_owned(),
            // There are at most 255 classes.
            ignore: ignores.then_some(class_count as u8),
            is_flat,
            are_pictures: is_flat && are_pictures(dataset, &cases),
            dataset,
            cases,
            notes,
        })
    }

    /// How many cases are written.
    pub fn case_count(&self) -> usize {
        self.cases.len()
    }

    /// What people should hear of cases that are left out or changed.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// What is written, one sentence per line.
    pub fn words(&self) -> String {
        let count = |role: Role| self.cases.iter().filter(|(_, other)| *other == role).count();
        let mut words = format!(
            "{} to train on with `{}`",
            counted(count(Role::Learned), "case"),
            self.annotation
        );
        if let Some(ignore) = self.ignore {
            words = format!("{words}, label {ignore} is ignored");
        }
        for (role, what) in [(Role::Scored, "to validate with"), (Role::Tested, "to test with")] {
            let count = count(role);
            if count > 0 {
                words = format!("{words}; {count} {what} alone");
            }
        }
        format!("{words}\n{}", self.prepared_words())
    }

    /// What was done to the images.
    fn prepared_words(&self) -> String {
        let Some(preparation) = &self.dataset.preparation else {
            return "images are as they were packed, and nobody wrote down how they were prepared"
                .to_owned();
        };
        // A preparation is always TOML.
        let text = toml::to_string(preparation).unwrap_or_default();
        let lines =
            text.lines().map(|line| line.trim_matches(['[', ']'])).filter(|line| !line.is_empty());
        let lines: Vec<String> = lines.map(|line| line.replace('"', "")).collect();
        format!("images are as they were prepared when they were packed: {}", lines.join(", "))
    }

    /// Writes everything into an empty folder; `written` is told of each case.
    pub fn write(&self, folder: &Path, written: &dyn Fn()) -> Result<()> {
        files::write(self, folder, written)?;
        description::write(self, folder)
    }
}

/// What to say of an annotation that cannot be trained on.
fn unknown(dataset: &Dataset, annotation: &str) -> Failure {
    let kinds = dataset.cases.iter().flat_map(|case| case.annotations.keys());
    let kinds: BTreeSet<&str> =
        kinds.map(String::as_str).filter(|kind| ![GAZE, IMAGE_LABEL].contains(kind)).collect();
    let kinds: Vec<String> = kinds.into_iter().map(|kind| format!("`{kind}`")).collect();
    let failure = Failure::usage(format!(
        "no case of `{}` has labels of voxels of kind `{annotation}` to train on",
        dataset.name
    ));
    if kinds.is_empty() {
        return failure.hint("nnU-Net learns from labels of voxels alone");
    }
    failure.hint(format!("give one of {} with `--annotation`", list(&kinds)))
}

/// Refuses names that nnU-Net keeps for itself or that are no names of files.
fn refuse_names(dataset: &Dataset) -> Result<()> {
    let mut seen = BTreeSet::from(["background", "ignore"]);
    if let Some(class) = dataset.classes.iter().skip(1).find(|class| !seen.insert(class)) {
        return Err(Failure::new(format!(
            "`{}` has two classes `{class}`, or it is one of `background` and `ignore`, which mean something else to nnU-Net",
            dataset.name
        ))
        .hint("pack the data set with other names of classes"));
    }
    match dataset.cases.iter().find(|case| case.name.starts_with('.')) {
        Some(case) => Err(Failure::new(format!("case `{}` would be a hidden file", case.name))
            .hint("pack the data set with names that begin otherwise")),
        None => Ok(()),
    }
}

/// Whether every image is a grey or coloured picture of 8 bits, to the last bit, and says nothing of where it lies.
fn are_pictures(dataset: &Dataset, cases: &[(&Case, Role)]) -> bool {
    let channels = dataset.preparation.as_ref().map_or(&[][..], |prepared| &prepared.channels);
    let is_eight_bit = [1, 3].contains(&channels.len())
        && channels.iter().all(|channel| channel.intensities == Intensities::EightBit);
    is_eight_bit
        && cases.iter().all(|(case, _)| {
            let grid = &case.scan.grid;
            grid.spacing_mm.is_none()
                && grid.placement.is_none()
                && case.scan.voxels.iter().all(|&value| level(value).is_some())
        })
}

/// The level of 8 bits that a number between 0 and 1 is exactly.
fn level(value: f32) -> Option<u8> {
    let level = (f64::from(value) * 255.0).round();
    let is_same = ((level / 255.0) as f32).to_bits() == value.to_bits();
    (is_same && (0.0..=255.0).contains(&level)).then_some(level as u8)
}
