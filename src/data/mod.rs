//! Data sets in memory: cases with their images and the kinds of annotation that exist side by side.
//!
//! Knows nothing of training: who sees which slice when is a function of step and rank in
//! `loader`, and what a method may look at is a `Batch`, which never holds the dense truth.

use crate::error::{Failure, Result};
use std::collections::{BTreeMap, BTreeSet};

pub mod augment;
#[cfg(feature = "torch")]
pub mod batch;
#[cfg(feature = "torch")]
pub mod course;
pub mod import;
#[cfg(feature = "torch")]
pub mod loader;
pub mod order;
pub mod pseudo;
pub mod shapes;
pub mod simulated;
pub mod store;

/// The annotation value that means "nobody said what this pixel is".
pub const IGNORE: u8 = 255;

/// The kind of annotation that somebody drew: few pixels, the rest [`IGNORE`].
pub const SCRIBBLE: &str = "scribble";

/// The kind of annotation that names the class of every pixel; evaluation measures against it.
pub const DENSE: &str = "dense";

/// One volume of one patient at one time, with everything that is known about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Unique name, for example `patient001_frame01`.
    pub name: String,
    /// Cases of one patient never stand on both sides of a split.
    pub patient: String,
    /// Time frame as the source counts it; 0 where there is only one.
    pub frame: u32,
    /// Cross-validation fold in which this case is held out, counted from 1; 0 = in none.
    pub fold: u32,
    /// Slices, rows, columns.
    pub shape: [usize; 3],
    /// Distance of voxel centres along slices, rows, columns, where the source says so.
    pub spacing_mm: Option<[f64; 3]>,
    /// Intensities in `[0, 1]`, `shape` in row-major order.
    pub image: Vec<f32>,
    /// Label volumes by kind ([`SCRIBBLE`], [`DENSE`]), each like `image`: class or [`IGNORE`].
    pub annotations: BTreeMap<String, Vec<u8>>,
}

/// Cases that share one labelling.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Short name, for example `acdc`.
    pub name: String,
    /// Names of the classes by label value; class 0 is the background.
    pub classes: Vec<String>,
    /// Where the data came from and how they were scaled, one sentence per line.
    pub provenance: String,
    /// Ordered by name.
    pub cases: Vec<Case>,
}

impl Dataset {
    /// The cases that `fold`, counted from 1, holds out. Refuses a fold that holds out nothing.
    pub fn held_out(&self, fold: u32) -> Result<Vec<&Case>> {
        let cases: Vec<&Case> =
            self.cases.iter().filter(|case| fold > 0 && case.fold == fold).collect();
        if !cases.is_empty() {
            return Ok(cases);
        }
        let folds: BTreeSet<u32> =
            self.cases.iter().map(|case| case.fold).filter(|&fold| fold > 0).collect();
        Err(Failure::usage(format!(
            "fold {fold} of `{}` holds out no cases, expected one of {folds:?}",
            self.name
        ))
        .hint("set `data.fold` to one of these"))
    }
}

impl Case {
    /// The intensities of one slice, `[rows, columns]`; `slice` counts from 0.
    pub fn image_slice(&self, slice: usize) -> &[f32] {
        let pixels = self.shape[1] * self.shape[2];
        &self.image[slice * pixels..][..pixels]
    }

    /// The labels of one slice, `[rows, columns]`, if the case has this kind of annotation.
    pub fn annotation_slice(&self, kind: &str, slice: usize) -> Option<&[u8]> {
        let pixels = self.shape[1] * self.shape[2];
        Some(&self.annotations.get(kind)?[slice * pixels..][..pixels])
    }

    /// Refuses arrays of another length than `shape`, intensities outside `[0, 1]`, and labels
    /// that are neither one of `class_count` classes nor, where pixels may be unknown, [`IGNORE`].
    pub fn check(&self, class_count: usize) -> Result<()> {
        let voxels: usize = self.shape.iter().product();
        if voxels == 0 {
            return Err(Failure::new(format!(
                "case `{}` is empty, its shape is {:?}",
                self.name, self.shape
            )));
        }
        self.check_length("image", self.image.len(), voxels)?;
        if let Some(index) = self.image.iter().position(|value| !(0.0..=1.0).contains(value)) {
            return Err(Failure::new(format!(
                "`image` of case `{}` holds {} {}, expected finite intensities in [0, 1]",
                self.name,
                self.image[index],
                self.place(index)
            )));
        }
        for (kind, labels) in &self.annotations {
            self.check_length(kind, labels.len(), voxels)?;
            let known =
                |label: u8| usize::from(label) < class_count || (label == IGNORE && kind != DENSE);
            if let Some(index) = labels.iter().position(|&label| !known(label)) {
                return Err(Failure::new(format!(
                    "`{kind}` of case `{}` holds label {} {}, expected classes 0 to {}{}",
                    self.name,
                    labels[index],
                    self.place(index),
                    class_count.saturating_sub(1),
                    if kind == DENSE { "" } else { " or the ignore value 255" },
                )));
            }
        }
        Ok(())
    }

    fn check_length(&self, array: &str, found: usize, expected: usize) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        Err(Failure::new(format!(
            "`{array}` of case `{}` has {found} voxels, expected {expected} for shape {:?}",
            self.name, self.shape
        )))
    }

    /// Where element `index` of an array lies, in words.
    fn place(&self, index: usize) -> String {
        place(index, self.shape)
    }
}

/// Where element `index` of a `[slices, rows, columns]` array lies, in words.
fn place(index: usize, shape: [usize; 3]) -> String {
    let pixels = (shape[1] * shape[2]).max(1);
    let columns = shape[2].max(1);
    let (slice, pixel) = (index / pixels, index % pixels);
    format!("in slice {slice} at row {}, column {}", pixel / columns, pixel % columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small sound case whose name and values depend on `number`.
    fn small_case(number: usize) -> Case {
        let shape = [2, 3, 4];
        let image = (0..24).map(|i| ((i * 7 + number) % 24) as f32 / 24.0).collect();
        let scribble =
            (0..24).map(|i| if i % 5 == 0 { ((i + number) % 3) as u8 } else { IGNORE }).collect();
        let dense = (0..24).map(|i| ((i + number) % 3) as u8).collect();
        Case {
            name: format!("case{number:02}"),
            patient: format!("patient{number:02}"),
            frame: 1,
            fold: number as u32 % 5 + 1,
            shape,
            spacing_mm: number.is_multiple_of(2).then_some([10.0, 1.5, 1.25]),
            image,
            annotations: BTreeMap::from([(SCRIBBLE.into(), scribble), (DENSE.into(), dense)]),
        }
    }

    #[test]
    fn a_wrong_value_is_named_with_its_place() {
        let mut case = small_case(1);
        assert!(case.check(3).is_ok());
        case.image[17] = f32::NAN;
        assert_eq!(
            case.check(3).unwrap_err().message(),
            "`image` of case `case01` holds NaN in slice 1 at row 1, column 1, expected finite intensities in [0, 1]"
        );
        let mut case = small_case(1);
        case.annotations.get_mut(DENSE).unwrap()[0] = IGNORE;
        assert_eq!(
            case.check(3).unwrap_err().message(),
            "`dense` of case `case01` holds label 255 in slice 0 at row 0, column 0, expected classes 0 to 2"
        );
        let mut case = small_case(1);
        case.annotations.get_mut(SCRIBBLE).unwrap().pop();
        assert_eq!(
            case.check(3).unwrap_err().message(),
            "`scribble` of case `case01` has 23 voxels, expected 24 for shape [2, 3, 4]"
        );
    }

    #[test]
    fn slices_are_cut_along_the_first_axis() {
        let case = small_case(0);
        assert_eq!(case.image_slice(1), &case.image[12..]);
        assert_eq!(case.annotation_slice(DENSE, 0), Some(&case.annotations[DENSE][..12]));
        assert_eq!(case.annotation_slice("points", 0), None);
    }
}
