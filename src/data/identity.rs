//! What tells a data set from others: digests of all that it holds, and of each image.
//!
//! Two packed files that hold the same are the same data set, whatever they are called. Knows no training.

use super::store::image_checksum;
use super::{Case, Dataset};
use crate::scan::Scan;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Digests of a data set as it was read, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Of classes, cases, images and annotations together.
    pub digest: String,
    /// Of each case's image alone, in the order of the cases.
    pub images: Vec<String>,
}

impl Identity {
    /// The identity of a data set.
    ///
    /// What training sees counts: classes, levels of gaze, names, patients, frames, folds and which of them is to test
    /// with, modalities, classes that were looked for, shapes, spacings, intensities and labels. The name of the data
    /// set, the sentences about its origin, what was done to the scans (their intensities are what came of it) and where
    /// they lie in the patient do not: a file packed anew by a program that writes more of that down is the same data
    /// set, and runs go on with it.
    pub fn of(dataset: &Dataset) -> Self {
        let images: Vec<u64> =
            dataset.cases.iter().map(|case| image_checksum(&case.scan.voxels)).collect();
        let mut hash = Xxh3::new();
        hash.update(format!("{:?}\n", dataset.classes).as_bytes());
        if !dataset.levels.is_empty() {
            hash.update(format!("{:?}\n", dataset.levels).as_bytes());
        }
        if let Some(fold) = dataset.test_fold {
            hash.update(format!("to test with: {fold}\n").as_bytes());
        }
        for (case, image) in dataset.cases.iter().zip(&images) {
            hash.update(described(case, *image, dataset.classes.len()).as_bytes());
        }
        let written = |digest: u64| format!("{digest:016x}");
        Self { digest: written(hash.digest()), images: images.into_iter().map(written).collect() }
    }
}

/// All that is known about a case of a data set of so many classes, its arrays as digests.
fn described(case: &Case, image: u64, class_count: usize) -> String {
    let Case { name, patient, frame, fold, modality, scan: Scan { grid, channels, .. }, .. } = case;
    let (shape, spacing_mm) = (grid.shape, grid.spacing_mm);
    let annotations: Vec<(&String, u64)> =
        case.annotations.iter().map(|(kind, labels)| (kind, xxh3_64(labels))).collect();
    let all = (name, patient, frame, fold, shape, channels, spacing_mm, image, annotations);
    // Data sets that say nothing of it keep the digests that runs have recorded.
    let modality = if modality.is_empty() { String::new() } else { format!(" {modality:?}") };
    let looked_for = if case.lacks_classes(class_count) {
        format!(" looked for {:?}", case.classes_annotated)
    } else {
        String::new()
    };
    format!("{all:?}{modality}{looked_for}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::import::phantom::{Difficulty, Phantom, generate};
    use crate::scan::Placement;

    fn phantom(seed: u64) -> Dataset {
        let phantom = Phantom { cases: 3, slices: 2, size: 32, difficulty: Difficulty::Easy, seed };
        generate(&phantom).unwrap()
    }

    #[test]
    fn whatever_changes_in_a_data_set_changes_its_digest_and_only_images_theirs() {
        type Change = fn(&mut Dataset);
        let (one, before) = (phantom(1), Identity::of(&phantom(1)));
        assert_eq!(before.images.len(), 3);
        let changes: [(&str, Change); 9] = [
            ("classes", |data| data.classes[1].push('x')),
            ("fold", |data| data.cases[1].fold += 1),
            ("test fold", |data| data.test_fold = Some(2)),
            ("name", |data| data.cases[1].name.push('x')),
            ("modality", |data| data.cases[1].modality = "ct".to_owned()),
            ("classes looked for", |data| data.cases[1].classes_annotated = vec![0, 1, 2]),
            ("spacing", |data| data.cases[1].scan.grid.spacing_mm = None),
            ("label", |data| data.cases[1].annotations.values_mut().for_each(|all| all[7] ^= 1)),
            ("order", |data| data.cases.swap(0, 1)),
        ];
        for (what, change) in changes {
            let mut other = one.clone();
            change(&mut other);
            let after = Identity::of(&other);
            assert_ne!(after.digest, before.digest, "{what}");
            assert_eq!(after.images == before.images, what != "order", "{what}");
        }
        let mut other = one.clone();
        other.cases[1].classes_annotated = vec![0, 1, 2, 3];
        assert_eq!(Identity::of(&other), before, "all classes, said in another way");
        let mut other = one.clone();
        other.cases[2].scan.voxels[5] += 0.25;
        let after = Identity::of(&other);
        assert_eq!(after.images[..2], before.images[..2]);
        assert!(after.images[2] != before.images[2] && after.digest != before.digest);
        let mut renamed =
            Dataset { name: "other".into(), provenance: String::new(), preparation: None, ..one };
        let direction = [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]];
        renamed.cases[0].scan.grid.placement = Some(Placement { direction, origin_mm: [4.0; 3] });
        assert_eq!(Identity::of(&renamed), before);
    }
}
