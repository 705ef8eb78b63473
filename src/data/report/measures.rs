//! What is measured of one case: counts and a digest, small enough to be kept of every case of a data set.
//!
//! Judges nothing, and keeps neither intensities nor labels.

use crate::data::{Case, GAZE, IGNORE};
use crate::scan::{Grid, Scan};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::Xxh3;

/// What was measured of one case.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseMeasures {
    /// As [`Case::name`].
    pub name: String,
    /// As [`Case::patient`].
    pub patient: String,
    /// As [`Case::fold`].
    pub fold: u32,
    /// As [`Case::modality`].
    pub modality: String,
    /// As [`Case::classes_annotated`].
    pub classes_annotated: Vec<u8>,
    /// Where its voxels lie.
    pub grid: Grid,
    /// Numbers of each voxel.
    pub channels: usize,
    /// The channels, counted from 0, all of whose voxels have the same intensity.
    pub constant_channels: Vec<usize>,
    /// Equal where shape, channels and all intensities are.
    pub image_digest: u128,
    /// What its annotations say, by their kind.
    pub annotations: BTreeMap<String, LabelCounts>,
}

/// How often each label stands in an annotation of a case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelCounts {
    /// By label, those alone that are there: a class, or [`IGNORE`]. Of [`GAZE`] what is below all levels counts as 0,
    /// and what reaches a level counts for it and for all lower ones.
    pub by_label: BTreeMap<u8, LabelCount>,
    /// Slices with an annotated voxel.
    pub annotated_slices: u64,
}

/// How often one label is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LabelCount {
    /// Voxels of the label.
    pub voxels: u64,
    /// Slices with such a voxel.
    pub slices: u64,
}

impl CaseMeasures {
    /// Measures a case. Takes a few passes over its arrays.
    pub fn of(case: &Case) -> Self {
        let pixels = case.scan.grid.pixels();
        let counts = |(kind, labels): (&String, &Vec<u8>)| {
            (kind.clone(), LabelCounts::of(kind, labels, pixels))
        };
        Self {
            name: case.name.clone(),
            patient: case.patient.clone(),
            fold: case.fold,
            modality: case.modality.clone(),
            classes_annotated: case.classes_annotated.clone(),
            grid: case.scan.grid.clone(),
            channels: case.scan.channels,
            constant_channels: constant_channels(&case.scan),
            image_digest: image_digest(&case.scan),
            annotations: case.annotations.iter().map(counts).collect(),
        }
    }

    /// As [`Case::is_looked_for`].
    pub fn is_looked_for(&self, class: u8) -> bool {
        self.classes_annotated.is_empty() || self.classes_annotated.contains(&class)
    }
}

impl LabelCounts {
    /// Counts the labels of an annotation whose slices have so many pixels.
    fn of(kind: &str, labels: &[u8], pixels: usize) -> Self {
        let mut counts = Self::default();
        for slice in labels.chunks_exact(pixels.max(1)) {
            let mut voxels = [0u64; 256];
            for &label in slice {
                voxels[usize::from(label)] += 1;
            }
            counts.annotated_slices += u64::from(voxels[usize::from(IGNORE)] < slice.len() as u64);
            if kind == GAZE {
                for level in (1..usize::from(IGNORE) - 1).rev() {
                    voxels[level] += voxels[level + 1];
                }
            }
            for (label, voxels) in (0..=u8::MAX).zip(voxels).filter(|(_, voxels)| *voxels > 0) {
                let count = counts.by_label.entry(label).or_default();
                count.voxels += voxels;
                count.slices += 1;
            }
        }
        counts
    }

    /// How often a label is there.
    pub fn count(&self, label: u8) -> LabelCount {
        self.by_label.get(&label).copied().unwrap_or_default()
    }

    /// Whether a label is there.
    pub fn has(&self, label: u8) -> bool {
        self.by_label.contains_key(&label)
    }

    /// Whether any voxel is annotated.
    pub fn is_annotated(&self) -> bool {
        self.annotated_slices > 0
    }

    /// The labels that are there, but for [`IGNORE`].
    pub fn labels(&self) -> impl Iterator<Item = u8> {
        self.by_label.keys().copied().filter(|&label| label != IGNORE)
    }
}

fn constant_channels(scan: &Scan) -> Vec<usize> {
    let is_constant = |channel: &usize| {
        let planes = scan.voxels.chunks_exact(scan.grid.pixels().max(1));
        let mut values = planes.skip(*channel).step_by(scan.channels.max(1)).flatten();
        let first = values.next();
        values.all(|value| Some(value) == first)
    };
    (0..scan.channels).filter(is_constant).collect()
}

fn image_digest(scan: &Scan) -> u128 {
    let mut hash = Xxh3::new();
    for extent in scan.grid.shape.into_iter().chain([scan.channels]) {
        hash.update(&(extent as u64).to_le_bytes());
    }
    let mut bytes = Vec::with_capacity(1 << 16);
    for part in scan.voxels.chunks(1 << 14) {
        bytes.clear();
        bytes.extend(part.iter().flat_map(|value| value.to_le_bytes()));
        hash.update(&bytes);
    }
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SCRIBBLE;

    fn count(voxels: u64, slices: u64) -> LabelCount {
        LabelCount { voxels, slices }
    }

    #[test]
    fn labels_are_counted_by_voxels_and_slices() {
        let labels = [0, 1, IGNORE, 1, 1, IGNORE, IGNORE, IGNORE, IGNORE];
        let counts = LabelCounts::of(SCRIBBLE, &labels, 3);
        assert_eq!((counts.count(0), counts.count(1)), (count(1, 1), count(3, 2)));
        assert_eq!((counts.count(IGNORE), counts.count(2)), (count(5, 3), count(0, 0)));
        assert_eq!(counts.labels().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(counts.annotated_slices, 2);
        assert!(!LabelCounts::of(SCRIBBLE, &[IGNORE; 4], 2).is_annotated());
    }

    #[test]
    fn what_reaches_a_level_of_gaze_reaches_all_lower_ones() {
        let counts = LabelCounts::of(GAZE, &[0, 1, 3, 0], 2);
        assert_eq!((counts.count(0), counts.count(1)), (count(2, 2), count(2, 2)));
        assert_eq!((counts.count(2), counts.count(3)), (count(1, 1), count(1, 1)));
    }

    #[test]
    fn images_are_told_apart_and_constant_channels_known() {
        let scan = |channels, voxels: [f32; 8]| Scan {
            grid: Grid::unplaced([2, 1, 4 / channels], None),
            channels,
            voxels: voxels.to_vec(),
        };
        let one = scan(2, [1.0, 2.0, 5.0, 5.0, 3.0, 4.0, 5.0, 5.0]);
        assert_eq!(constant_channels(&one), [1]);
        assert_eq!(image_digest(&one), image_digest(&one.clone()));
        let grey = Scan { channels: 1, ..one.clone() };
        let other = scan(2, [1.0, 2.0, 5.0, 5.0, 3.0, 4.0, 5.0, 5.5]);
        assert_ne!(image_digest(&one), image_digest(&other));
        assert_ne!(image_digest(&one), image_digest(&grey));
        assert!(constant_channels(&other).is_empty());
    }
}
