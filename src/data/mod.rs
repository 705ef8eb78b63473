//! Data sets in memory: cases with their images and the kinds of annotation that exist side by side.
//!
//! Knows nothing of training: who sees which slice when is a function of step and rank in
//! `loader`, and what a method may look at is a `Batch`, which never holds the dense truth.

use crate::config::sampling::Fit;
use crate::error::{Failure, Result};
use crate::limits::{CHANNELS, EXTENT, GAZE_LEVELS, VOLUME_VOXELS, elements};
use crate::preparation::Preparation;
use crate::scan::{Scan, place};
use augment::Centred;
use std::collections::{BTreeMap, BTreeSet};

pub mod augment;
#[cfg(feature = "torch")]
pub mod batch;
pub mod colour;
#[cfg(feature = "torch")]
pub mod held_out;
pub mod identity;
pub mod import;
pub mod item;
#[cfg(feature = "torch")]
mod items;
#[cfg(feature = "torch")]
pub mod loader;
pub mod nnunet;
pub mod order;
pub mod patches;
pub mod probabilities;
pub mod pseudo;
#[cfg(feature = "torch")]
pub mod recipe;
pub mod report;
#[cfg(feature = "torch")]
mod resident;
#[cfg(feature = "torch")]
pub mod samples;
pub mod shapes;
pub mod simulated;
pub mod split;
pub mod store;
pub mod stream;
#[cfg(feature = "torch")]
mod stream_slices;
#[cfg(feature = "torch")]
mod table;

pub use crate::scan::IGNORE;

/// The kind of annotation that somebody drew: few pixels, the rest [`IGNORE`].
pub const SCRIBBLE: &str = "scribble";

/// The kind of annotation that names the class of every pixel; evaluation measures against it.
pub const DENSE: &str = "dense";

/// The kind of annotation that says of every pixel what its whole slice shows: 0 nothing of note,
/// 1 a lesion. It is one class in all of a slice, and says nothing of where the lesion is.
pub const IMAGE_LABEL: &str = "image_label";

/// The kind of annotation that tells where somebody looked: how many of the data set's [`Dataset::levels`] the map of
/// gaze reaches in a pixel, 0 for none. What reaches a level reaches all lower ones, so that one number tells all.
pub const GAZE: &str = "gaze";

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
    /// What its image was taken with, as a short name in small letters, for example `ct` or `mr`; empty where nothing
    /// is said.
    pub modality: String,
    /// Numbers of the classes that somebody looked for in this case, ascending, background 0 always among them; empty:
    /// all classes of the data set. Voxels of the others are background in its annotations, which hold none of them.
    pub classes_annotated: Vec<u8>,
    /// Its image as networks see it.
    pub scan: Scan,
    /// Label volumes by kind ([`SCRIBBLE`], [`DENSE`], [`IMAGE_LABEL`]) on the grid of `scan`, in row-major
    /// order: class or [`IGNORE`]; of [`GAZE`] the number of levels. A case without any may be looked at, and says
    /// nothing of what it shows.
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
    /// What was done to the scans; nothing where a packed file does not say so.
    pub preparation: Option<Preparation>,
    /// What the values of [`GAZE`] stand for: a value above `i` where the map of gaze is at least `levels[i]`.
    /// Ascending, each in `(0, 1)`; none where nobody's gaze is known.
    pub levels: Vec<f64>,
    /// The fold of the cases to test with, which no run learns from, whatever it holds out; none where every case may
    /// be learnt from.
    pub test_fold: Option<u32>,
    /// Ordered by name.
    pub cases: Vec<Case>,
}

impl Dataset {
    /// Channels of every case: 1 for grey, 3 for red, green and blue. All cases of one data set have
    /// the same number.
    pub fn channels(&self) -> usize {
        self.cases.first().map_or(1, |case| case.scan.channels)
    }

    /// Whether the channels are red, green and blue of 8 bits; three channels are where nothing is known of them.
    pub fn is_in_colour(&self) -> bool {
        self.preparation.as_ref().map_or(self.channels() == 3, Preparation::is_in_colour)
    }

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

/// Refuses more than [`GAZE_LEVELS`] levels of gaze, and those that are not in `(0, 1)` or not ascending.
pub fn check_levels(levels: &[f64]) -> Result<()> {
    if levels.len() > GAZE_LEVELS {
        return Err(Failure::new(format!(
            "there are {} levels of gaze, expected at most {GAZE_LEVELS}",
            levels.len()
        )));
    }
    let is_share = |level: &f64| *level > 0.0 && *level < 1.0;
    if levels.iter().all(is_share) && levels.is_sorted_by(|one, next| one < next) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the levels of gaze are {levels:?}, expected numbers between 0 and 1, each larger than the one before"
    )))
}

/// One slice of a scan as a network is shown it, `[channels, size, size]`: resized as by [`resized_slice`], or cut
/// and padded with 0 about its middle.
pub fn fitted_slice(
    scan: &Scan,
    slice: usize,
    (size, fit): (usize, Fit),
    is_in_colour: bool,
) -> Vec<f32> {
    let [_, rows, columns] = scan.grid.shape;
    match fit {
        Fit::Resize => resized_slice(scan, slice, size, is_in_colour),
        Fit::Crop => Centred::cut(scan.slice(slice), [rows, columns], [size; 2], 0.0),
    }
}

/// One slice of a scan resized to `size` x `size` as a network is shown it, `[channels, size, size]`: colours of
/// 8 bits bilinearly, everything else channel by channel by order-0 zoom.
pub fn resized_slice(scan: &Scan, slice: usize, size: usize, is_in_colour: bool) -> Vec<f32> {
    let ([_, rows, columns], image) = (scan.grid.shape, scan.slice(slice));
    if is_in_colour {
        return augment::transfer::resize_planes(image, [scan.channels, rows, columns], size);
    }
    let planes = image.chunks_exact(rows * columns);
    planes.flat_map(|plane| augment::zoom_image(plane, [rows, columns], [size, size])).collect()
}

impl Case {
    /// The labels of one slice, `[rows, columns]`, if the case has this kind of annotation.
    pub fn annotation_slice(&self, kind: &str, slice: usize) -> Option<&[u8]> {
        let pixels = self.scan.grid.pixels();
        Some(&self.annotations.get(kind)?[slice * pixels..][..pixels])
    }

    /// Whether somebody looked for `class` in this case.
    pub fn is_looked_for(&self, class: u8) -> bool {
        self.classes_annotated.is_empty() || self.classes_annotated.contains(&class)
    }

    /// Whether nobody looked for some of the `class_count` classes of the data set.
    pub fn lacks_classes(&self, class_count: usize) -> bool {
        !self.classes_annotated.is_empty() && self.classes_annotated.len() < class_count
    }

    /// Refuses shapes of more than [`VOLUME_VOXELS`], arrays of another length than `shape` and `channels`
    /// say, no channels or more than [`CHANNELS`], intensities that are not finite, labels that are neither one of
    /// `class_count` classes nor, where pixels may be unknown, [`IGNORE`], an [`IMAGE_LABEL`] that is not one of two
    /// classes, the same all over a slice, and classes that nobody looked for in an annotation. What [`GAZE`] may hold
    /// the data set says, see [`Case::check_gaze`].
    pub fn check(&self, class_count: usize) -> Result<()> {
        let voxels = elements(&self.scan.grid.shape, VOLUME_VOXELS);
        let voxels = voxels.filter(|_| self.scan.grid.shape.iter().all(|&extent| extent <= EXTENT));
        let Some(voxels) = voxels else {
            return Err(Failure::new(format!(
                "case `{}` has shape {:?}, expected at most {EXTENT} along each axis and \
                 {VOLUME_VOXELS} voxels",
                self.name, self.scan.grid.shape
            )));
        };
        if voxels == 0 {
            return Err(Failure::new(format!(
                "case `{}` is empty, its shape is {:?}",
                self.name, self.scan.grid.shape
            )));
        }
        self.check_image(voxels)?;
        self.check_classes_annotated(class_count)?;
        for (kind, labels) in &self.annotations {
            self.check_length(kind, labels.len(), voxels)?;
            if kind == GAZE {
                continue;
            }
            let class_count = if kind == IMAGE_LABEL { 2.min(class_count) } else { class_count };
            let whole = kind == DENSE || kind == IMAGE_LABEL;
            let known = |label: u8| usize::from(label) < class_count || (label == IGNORE && !whole);
            if let Some(index) = labels.iter().position(|&label| !known(label)) {
                return Err(Failure::new(format!(
                    "`{kind}` of case `{}` holds label {} {}, expected classes 0 to {}{}",
                    self.name,
                    labels[index],
                    place(index, self.scan.grid.shape),
                    class_count.saturating_sub(1),
                    if whole { "" } else { " or the ignore value 255" },
                )));
            }
            self.check_looked_for(kind, labels)?;
        }
        self.check_image_labels()
    }

    fn check_classes_annotated(&self, class_count: usize) -> Result<()> {
        let classes = &self.classes_annotated;
        let is_sound = classes.first().is_none_or(|&first| first == 0)
            && classes.last().is_none_or(|&last| usize::from(last) < class_count)
            && classes.is_sorted_by(|one, next| one < next);
        if is_sound {
            return Ok(());
        }
        Err(Failure::new(format!(
            "case `{}` says that classes {classes:?} were looked for, expected 0 and others up to {}, ascending",
            self.name,
            class_count.saturating_sub(1)
        )))
    }

    fn check_looked_for(&self, kind: &str, labels: &[u8]) -> Result<()> {
        if self.classes_annotated.is_empty() {
            return Ok(());
        }
        let is_known = |label: u8| label == IGNORE || self.is_looked_for(label);
        let Some(index) = labels.iter().position(|&label| !is_known(label)) else { return Ok(()) };
        Err(Failure::new(format!(
            "`{kind}` of case `{}` holds label {} {}, expected one of the classes {:?} that were looked for in it",
            self.name,
            labels[index],
            place(index, self.scan.grid.shape),
            self.classes_annotated
        )))
    }

    /// Refuses [`GAZE`] that says more levels of a pixel than the `level_count` of the data set, of which there must
    /// be one.
    pub fn check_gaze(&self, level_count: usize) -> Result<()> {
        let Some(labels) = self.annotations.get(GAZE) else { return Ok(()) };
        if level_count == 0 {
            return Err(Failure::new(format!(
                "case `{}` has annotation `{GAZE}`, and the data set names no levels of gaze",
                self.name
            )));
        }
        let Some(index) = labels.iter().position(|&label| usize::from(label) > level_count) else {
            return Ok(());
        };
        Err(Failure::new(format!(
            "`{GAZE}` of case `{}` holds {} {}, expected 0 to {level_count}, the number of levels",
            self.name,
            labels[index],
            place(index, self.scan.grid.shape)
        )))
    }

    fn check_image(&self, voxels: usize) -> Result<()> {
        if !(1..=CHANNELS).contains(&self.scan.channels) {
            return Err(Failure::new(format!(
                "`image` of case `{}` has {} channels, expected 1 to {CHANNELS}",
                self.name, self.scan.channels
            )));
        }
        self.check_length("image", self.scan.voxels.len(), voxels * self.scan.channels)?;
        let Some(index) = self.scan.voxels.iter().position(|value| !value.is_finite()) else {
            return Ok(());
        };
        Err(Failure::new(format!(
            "`image` of case `{}` holds {} {}, expected finite intensities",
            self.name,
            self.scan.voxels[index],
            self.place_in_image(index)
        )))
    }

    fn check_image_labels(&self) -> Result<()> {
        for slice in 0..self.scan.grid.shape[0] {
            let labels = self.annotation_slice(IMAGE_LABEL, slice).unwrap_or_default();
            let Some(pixel) = labels.iter().position(|&label| label != labels[0]) else { continue };
            let index = slice * labels.len() + pixel;
            return Err(Failure::new(format!(
                "`{IMAGE_LABEL}` of case `{}` holds label {} {}, expected {} as in the rest of the slice",
                self.name,
                labels[pixel],
                place(index, self.scan.grid.shape),
                labels[0]
            )));
        }
        Ok(())
    }

    fn check_length(&self, array: &str, found: usize, expected: usize) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        let colours = if array == "image" && self.scan.channels > 1 {
            format!(" and {} channels", self.scan.channels)
        } else {
            String::new()
        };
        Err(Failure::new(format!(
            "`{array}` of case `{}` has {found} voxels, expected {expected} for shape {:?}{colours}",
            self.name, self.scan.grid.shape
        )))
    }

    /// Where element `index` of `image` lies, in words.
    fn place_in_image(&self, index: usize) -> String {
        let pixels = self.scan.grid.pixels();
        let (plane, pixel) = (index / pixels, index % pixels);
        let (slice, channel) = (plane / self.scan.channels, plane % self.scan.channels);
        let place = place(slice * pixels + pixel, self.scan.grid.shape);
        if self.scan.channels == 1 { place } else { format!("{place}, channel {channel}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Grid;

    /// A small sound case whose name and values depend on `number`.
    fn small_case(number: usize) -> Case {
        let spacing_mm = number.is_multiple_of(2).then_some([10.0, 1.5, 1.25]);
        let grid = Grid::unplaced([2, 3, 4], spacing_mm);
        let voxels = (0..24).map(|i| ((i * 7 + number) % 24) as f32 / 24.0).collect();
        let scribble =
            (0..24).map(|i| if i % 5 == 0 { ((i + number) % 3) as u8 } else { IGNORE }).collect();
        let dense = (0..24).map(|i| ((i + number) % 3) as u8).collect();
        Case {
            name: format!("case{number:02}"),
            patient: format!("patient{number:02}"),
            frame: 1,
            modality: String::new(),
            classes_annotated: Vec::new(),
            fold: number as u32 % 5 + 1,
            scan: Scan { grid, channels: 1, voxels },
            annotations: BTreeMap::from([(SCRIBBLE.into(), scribble), (DENSE.into(), dense)]),
        }
    }

    #[test]
    fn a_wrong_value_is_named_with_its_place() {
        let mut case = small_case(1);
        assert!(case.check(3).is_ok());
        case.scan.voxels[17] = f32::NAN;
        assert_eq!(
            case.check(3).unwrap_err().message(),
            "`image` of case `case01` holds NaN in slice 1 at row 1, column 1, expected finite intensities"
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
        let mut case = small_case(1);
        case.scan.grid.shape = [1 << 63, 2, 12];
        assert_eq!(
            case.check(3).unwrap_err().message(),
            "case `case01` has shape [9223372036854775808, 2, 12], expected at most 65536 along each axis and \
             1073741824 voxels"
        );
    }

    #[test]
    fn annotations_hold_no_class_that_nobody_looked_for() {
        let with = |classes: &[u8]| {
            let case = Case { classes_annotated: classes.to_vec(), ..small_case(1) };
            case.check(3).map_err(|failure| failure.message().to_owned())
        };
        assert_eq!(with(&[0, 1, 2]), Ok(()));
        assert_eq!(
            with(&[0, 1]).unwrap_err(),
            "`dense` of case `case01` holds label 2 in slice 0 at row 0, column 1, expected one of the classes [0, 1] \
             that were looked for in it"
        );
        for wrong in [&[1, 2][..], &[0, 3], &[0, 2, 1], &[0, 1, 1]] {
            assert_eq!(
                with(wrong).unwrap_err(),
                format!(
                    "case `case01` says that classes {wrong:?} were looked for, expected 0 and others up to 2, ascending"
                )
            );
        }
        let mut case = Case { classes_annotated: vec![0, 2], ..small_case(1) };
        for labels in case.annotations.values_mut() {
            labels.iter_mut().filter(|label| **label == 1).for_each(|label| *label = 0);
        }
        assert_eq!(case.check(3).map_err(|failure| failure.message().to_owned()), Ok(()));
        assert!(case.lacks_classes(3) && !case.is_looked_for(1) && case.is_looked_for(2));
        assert!(!small_case(1).lacks_classes(3) && small_case(1).is_looked_for(1));
    }

    /// The same with three channels and the image labels 0 and 1 of its two slices.
    fn colour_case() -> Case {
        let case = small_case(1);
        let voxels = (0..72u8).map(|value| f32::from(value) / 255.0).collect();
        let labels = (0..24).map(|voxel| voxel / 12).collect();
        let annotations = BTreeMap::from([(IMAGE_LABEL.into(), labels)]);
        let scan = Scan { channels: 3, voxels, ..case.scan };
        Case { scan, annotations, ..case }
    }

    #[test]
    fn a_wrong_colour_is_named_with_its_channel() {
        let mut case = colour_case();
        assert!(case.check(2).is_ok());
        case.scan.voxels[36 + 12 + 5] = -1.5;
        assert!(case.check(2).is_ok());
        case.scan.voxels[36 + 12 + 5] = f32::INFINITY;
        assert_eq!(
            case.check(2).unwrap_err().message(),
            "`image` of case `case01` holds inf in slice 1 at row 1, column 1, channel 1, expected finite intensities"
        );
        let mut case = colour_case();
        case.scan.voxels.pop();
        assert_eq!(
            case.check(2).unwrap_err().message(),
            "`image` of case `case01` has 71 voxels, expected 72 for shape [2, 3, 4] and 3 channels"
        );
        case.scan.channels = 0;
        assert_eq!(
            case.check(2).unwrap_err().message(),
            "`image` of case `case01` has 0 channels, expected 1 to 64"
        );
    }

    #[test]
    fn an_image_label_is_one_of_two_classes_all_over_its_slice() {
        let with = |index: usize, label: u8| {
            let mut case = colour_case();
            case.annotations.get_mut(IMAGE_LABEL).unwrap()[index] = label;
            case.check(4).unwrap_err().message().to_owned()
        };
        assert_eq!(
            with(18, 0),
            "`image_label` of case `case01` holds label 0 in slice 1 at row 1, column 2, expected 1 as in the rest of the slice"
        );
        assert_eq!(
            with(3, IGNORE),
            "`image_label` of case `case01` holds label 255 in slice 0 at row 0, column 3, expected classes 0 to 1"
        );
        assert_eq!(
            with(3, 2),
            "`image_label` of case `case01` holds label 2 in slice 0 at row 0, column 3, expected classes 0 to 1"
        );
    }

    #[test]
    fn channels_that_are_no_colours_keep_their_numbers_when_slices_are_resized() {
        let grid = Grid::unplaced([1, 2, 2], None);
        let voxels = [-1.5, 0.25, 3.0, 7.0].repeat(3);
        let scan = Scan { grid, channels: 3, voxels };
        let resized = resized_slice(&scan, 0, 4, false);
        let one = augment::zoom_image(&[-1.5, 0.25, 3.0, 7.0], [2, 2], [4, 4]);
        assert_eq!(resized, one.repeat(3));
    }

    #[test]
    fn slices_are_cut_along_the_first_axis() {
        let case = small_case(0);
        assert_eq!(case.scan.slice(1), &case.scan.voxels[12..]);
        assert_eq!(case.annotation_slice(DENSE, 0), Some(&case.annotations[DENSE][..12]));
        assert_eq!(case.annotation_slice("points", 0), None);
        let case = colour_case();
        assert_eq!(case.scan.slice(1), &case.scan.voxels[36..]);
        assert_eq!(case.annotation_slice(IMAGE_LABEL, 1), Some([1; 12].as_slice()));
    }
}
