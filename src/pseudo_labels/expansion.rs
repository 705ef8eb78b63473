//! Annotation out of predictions: what a network is sure of, as far as it hangs together.
//!
//! The confident expansion of Han et al., Medical Image Analysis 2024, 103274, as HiLab-git/DMSPS at 89fe065
//! computes it in two forms. Knows no network, no window and no scribble.

use crate::scan::IGNORE;
use crate::scan::components::{Neighbourhood, keep_largest};

/// Which of the two published forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// That of the package `PyMIC`, which is the described idea: what is not sure stays unlabelled, and the
    /// background has to hang together as every structure has.
    Unlabelled,
    /// That of the original scripts: what is not sure is background.
    Background,
}

impl Form {
    /// What is added to probabilities inside logarithms.
    fn floor(self) -> f32 {
        match self {
            Self::Unlabelled => 0.0,
            Self::Background => 1e-6,
        }
    }

    /// How little a network says of each voxel: `-sum p ln(p + floor) / ln C` with C classes, 0 where one is
    /// certain and 1 where all are equally probable.
    ///
    /// `probabilities` is `[classes, voxels]`; an empty one gives nothing.
    pub fn uncertainty(self, probabilities: &[f32], classes: usize) -> Vec<f32> {
        let voxels = probabilities.len() / classes.max(1);
        let mut entropy = vec![0.0; voxels];
        for map in probabilities.chunks_exact(voxels.max(1)) {
            for (sum, &share) in entropy.iter_mut().zip(map) {
                // A class that is impossible adds nothing, though its logarithm is no number.
                if share > 0.0 {
                    *sum -= share * (share + self.floor()).ln();
                }
            }
        }
        let whole = (classes.max(2) as f32).ln();
        entropy.iter().map(|sum| (sum / whole).clamp(0.0, 1.0)).collect()
    }

    /// Annotation of what is sure: of each class the largest part that hangs together by the faces of its voxels,
    /// of parts of one size the first in row-major order.
    ///
    /// `labels` and `is_sure` are `shape`, slices, rows and columns, in row-major order; labels are below 255. In
    /// what is returned 255 means unlabelled.
    ///
    /// ```
    /// use scrimp::pseudo_labels::expansion::{Form, Within};
    /// let (labels, is_sure) = ([0, 1, 1, 0, 0], [true, true, false, false, true]);
    /// let expanded = |form: Form| form.expanded(&labels, &is_sure, [1, 1, 5], Within::Slices);
    /// assert_eq!(expanded(Form::Unlabelled), [0, 1, 255, 255, 255]);
    /// assert_eq!(expanded(Form::Background), [0, 1, 0, 0, 0]);
    /// ```
    pub fn expanded(
        self,
        labels: &[u8],
        is_sure: &[bool],
        shape: [usize; 3],
        within: Within,
    ) -> Vec<u8> {
        // Components leave 0 alone, which is what is not sure.
        let first = u8::from(self == Self::Unlabelled);
        let marked = labels.iter().zip(is_sure);
        let mut marks: Vec<u8> =
            marked.map(|(&label, &is_sure)| if is_sure { label + first } else { 0 }).collect();
        let [_, rows, columns] = shape;
        match within {
            Within::Volume => keep_largest(&mut marks, shape, Neighbourhood::Faces),
            Within::Slices => {
                for slice in marks.chunks_exact_mut((rows * columns).max(1)) {
                    keep_largest(slice, [1, rows, columns], Neighbourhood::Faces);
                }
            }
        }
        if self == Self::Unlabelled {
            for mark in &mut marks {
                *mark = mark.checked_sub(1).unwrap_or(IGNORE);
            }
        }
        marks
    }
}

/// Within what the largest part of a class is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// Each slice by itself: 4 neighbours of a pixel.
    Slices,
    /// The whole volume: 6 neighbours of a voxel.
    Volume,
}

/// What expanded annotation says beside the one that was drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Added {
    /// All voxels.
    pub voxels: u64,
    /// Those that nobody had annotated, and that have a class now.
    pub labelled: u64,
    /// Those of them of which the truth is known.
    pub known: u64,
    /// Those of them that have the class of the truth.
    pub correct: u64,
}

impl Added {
    /// Counts the voxels of a case; `drawn` and `truth` may be unknown, and are 255 where nothing is said.
    pub fn count(&mut self, expanded: &[u8], drawn: Option<&[u8]>, truth: Option<&[u8]>) {
        self.voxels += expanded.len() as u64;
        for (voxel, &label) in expanded.iter().enumerate() {
            let was_drawn = drawn.is_some_and(|drawn| drawn[voxel] != IGNORE);
            if label == IGNORE || was_drawn {
                continue;
            }
            self.labelled += 1;
            if let Some(truth) = truth.map(|truth| truth[voxel]).filter(|truth| *truth != IGNORE) {
                self.known += 1;
                self.correct += u64::from(truth == label);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn uncertainty_is_none_where_a_class_is_certain_and_one_where_all_are_alike() {
        for form in [Form::Unlabelled, Form::Background] {
            let found = form.uncertainty(&[1.0, 0.25, 0.0, 0.25, 0.0, 0.25, 0.0, 0.25], 4);
            assert!(found[0].abs() < 1e-5 && (found[1] - 1.0).abs() < 1e-5, "{found:?}");
            let between = form.uncertainty(&[0.5, 0.25, 0.25], 3);
            assert!((between[0] - 1.5 * 2.0f32.ln() / 3.0f32.ln()).abs() < 1e-5, "{between:?}");
            assert!(form.uncertainty(&[], 4).is_empty());
        }
    }

    #[test]
    fn a_slice_keeps_its_own_part_and_a_volume_one_for_all() {
        let (labels, sure) = ([1, 1, 0, 0, 0, 1], [true; 6]);
        let found = |within| Form::Background.expanded(&labels, &sure, [2, 1, 3], within);
        assert_eq!(found(Within::Slices), [1, 1, 0, 0, 0, 1]);
        assert_eq!(found(Within::Volume), [1, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn what_was_added_is_counted_beside_what_was_drawn() {
        let mut added = Added::default();
        added.count(&[0, 1, 255, 2, 1], Some(&[255, 1, 255, 255, 255]), Some(&[0, 1, 1, 1, 255]));
        assert_eq!(added, Added { voxels: 5, labelled: 3, known: 2, correct: 1 });
        added.count(&[0, 255], None, None);
        assert_eq!(added, Added { voxels: 7, labelled: 4, known: 2, correct: 1 });
    }

    proptest! {
        #[test]
        fn nothing_is_labelled_that_is_not_sure_and_no_class_is_invented(
            labels in proptest::collection::vec(0u8..3, 3 * 4 * 5),
            sure in proptest::collection::vec(any::<bool>(), 3 * 4 * 5),
        ) {
            for within in [Within::Slices, Within::Volume] {
                let expanded = |form: Form| form.expanded(&labels, &sure, [3, 4, 5], within);
                let (open, dense) = (expanded(Form::Unlabelled), expanded(Form::Background));
                for voxel in 0..labels.len() {
                    prop_assert!(open[voxel] == IGNORE || (sure[voxel] && open[voxel] == labels[voxel]));
                    // The forms differ in the background alone.
                    let structure = if open[voxel] == IGNORE { 0 } else { open[voxel] };
                    prop_assert_eq!(structure, dense[voxel]);
                }
            }
        }
    }
}
