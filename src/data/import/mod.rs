//! Public data sets, anybody's own volumes or pictures and synthetic ones, as cases of ours.
//!
//! What the sources share stands here: how cases are handed over one at a time, how folds are cut.
//! Nothing here writes the packed file.

pub mod acdc;
pub mod amos;
pub mod brats;
mod brats_files;
pub mod brats_scribbles;
mod case_table;
mod classes;
mod folder;
mod folds;
pub mod gaze;
mod gaze_files;
pub mod gaze_phantom;
pub mod label_transfer;
mod labelled_share;
pub mod lesion_phantom;
pub mod masks;
pub mod mscmr;
pub mod nnunet;
pub mod own_data;
mod own_data_files;
mod own_data_folds;
mod parts;
mod patients;
pub mod phantom;
mod pictures;
mod steps;
mod texture;
pub mod two_modality;
pub mod word;

pub use crate::scan::Notes;
pub use classes::Classes;
pub use gaze_files::GazeFiles;
pub use own_data_folds::Folding;
pub use steps::Steps;

use super::{Case, Dataset, SCRIBBLE};
use crate::error::Result;
use crate::preparation::intensities::scale;
use crate::preparation::{Carried, Intensities, Interpolation, Preparation, Prepared};
use crate::scan::{self, Scan};
use std::collections::BTreeMap;
use std::path::Path;

/// A data set that is read case by case, so that packing it needs the memory of one case.
pub struct Source {
    /// Short name, for example `acdc`.
    pub name: String,
    /// Names of the classes by label value; class 0 is the background.
    pub classes: Vec<String>,
    /// Where the data came from and how they were scaled, one sentence per line.
    pub provenance: String,
    /// What is done to the scans.
    pub preparation: Option<Preparation>,
    /// As [`Dataset::levels`].
    pub levels: Vec<f64>,
    /// As [`Dataset::test_fold`].
    pub test_fold: Option<u32>,
    /// How many cases follow.
    pub case_count: usize,
    /// The cases in ascending order of their names, each read when asked for.
    pub cases: Box<dyn Iterator<Item = Result<Case>>>,
    /// What people should hear of the files that were found, and of each case once it was read.
    pub notes: Notes,
}

impl Source {
    /// Reads every case into memory.
    pub fn collect(self) -> Result<Dataset> {
        Ok(Dataset {
            name: self.name,
            classes: self.classes,
            provenance: self.provenance,
            preparation: self.preparation,
            levels: self.levels,
            test_fold: self.test_fold,
            cases: self.cases.collect::<Result<_>>()?,
        })
    }
}

impl From<Dataset> for Source {
    fn from(dataset: Dataset) -> Self {
        Self {
            name: dataset.name,
            classes: dataset.classes,
            provenance: dataset.provenance,
            preparation: dataset.preparation,
            levels: dataset.levels,
            test_fold: dataset.test_fold,
            case_count: dataset.cases.len(),
            cases: Box::new(dataset.cases.into_iter().map(Ok)),
            notes: Notes::default(),
        }
    }
}

/// A case as its files hold it, prepared for networks; `image` is the file of its scan. Notes how many
/// annotated voxels were lost.
fn prepared(case: Case, preparation: &Preparation, image: &Path, notes: &Notes) -> Result<Case> {
    let Prepared { scan, regrid, turn } = preparation
        .apply(case.scan)
        .map_err(|failure| failure.during(format!("cannot prepare `{}`", image.display())))?;
    let mut annotations = BTreeMap::new();
    for (kind, labels) in case.annotations {
        let labels = if turn.is_none() { labels } else { turn.carry(&labels) };
        if kind != SCRIBBLE {
            annotations.insert(kind, regrid.carry_dense(&labels)?);
            continue;
        }
        let Carried { values, annotated, carried } = regrid.carry_annotation(&labels)?;
        if carried < annotated {
            let sentence = match preparation.interpolation {
                Interpolation::Cubic => {
                    "annotated voxels met in one prepared voxel or lay outside of what is kept"
                }
                Interpolation::Linear | Interpolation::Bilinear => {
                    "annotated voxels to which no prepared voxel was nearest are gone"
                }
            };
            notes.add(sentence, format!("`{}` keeps {carried} of {annotated}", case.name));
        }
        annotations.insert(kind, values);
    }
    Ok(Case { scan, annotations, ..case })
}

/// The scan of a published data set, prepared as published.
///
/// Numbers that the file itself scales, as some of MSCMR do, are no 32-bit floats: they stay in double precision
/// until they are prepared, since the last bits of the result hang on theirs.
fn published_scan(image: &Path, notes: &Notes) -> Result<Scan> {
    let numbers = scan::read_numbers(image, notes)?;
    let voxels = scale(Intensities::Published, &numbers.values)
        .map_err(|failure| failure.during(format!("cannot prepare `{}`", image.display())))?;
    Ok(Scan { grid: numbers.grid().clone(), channels: 1, voxels })
}

/// The class names of ACDC, MSCMR and the phantom by label value.
fn cardiac_classes() -> Vec<String> {
    ["background", "right ventricle", "myocardium", "left ventricle"].map(String::from).to_vec()
}

/// The fold, counted from 1, of case `index` when `case_count` sorted cases are cut into five
/// contiguous blocks whose sizes differ by at most one.
fn contiguous_fold(index: usize, case_count: usize) -> u32 {
    (index * 5 / case_count.max(1)) as u32 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_are_contiguous_and_even() {
        let folds: Vec<u32> = (0..12).map(|index| contiguous_fold(index, 12)).collect();
        assert_eq!(folds, [1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 5, 5]);
    }
}
