//! Dense masks that belong to no image of the run, and which of them stands beside which sample.
//!
//! Every sample gets a mask of its own: one volume uniformly, then one of its slices, as a function
//! of a key alone. Where masks come from stands in `import::masks`; this module knows no files and
//! no tensors.

use super::augment::{Mask, Transform};
use super::{Case, DENSE, Dataset};
use crate::error::{Failure, Result};
use crate::random::Key;

/// The labels of one volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskVolume {
    /// The name of the case or of the file.
    pub name: String,
    /// Who it is, where the source says so; else the name begins with it.
    pub patient: Option<String>,
    /// Slices, rows, columns, none of them 0.
    pub shape: [usize; 3],
    /// The class of every voxel, `shape` in row-major order.
    pub labels: Vec<u8>,
}

/// Masks of other patients than those trained on, in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shapes {
    volumes: Vec<MaskVolume>,
}

impl Shapes {
    /// Masks of these volumes. Refuses ones without any foreground; `source` says whose they are.
    pub fn new(source: &str, volumes: Vec<MaskVolume>) -> Result<Self> {
        if volumes.iter().flat_map(|volume| &volume.labels).all(|&label| label == 0) {
            return Err(Failure::usage(format!(
                "all masks of {source} show background only, expected shapes to learn from"
            )));
        }
        Ok(Self { volumes })
    }

    /// The dense labels of a data set, of its cases that have them, in which somebody looked for all classes, and which are
    /// not there to test with. Refuses a set without any, and one of another number of classes than `class_count`.
    pub fn of(dataset: Dataset, class_count: usize) -> Result<Self> {
        let name = dataset.name;
        if dataset.classes.len() != class_count {
            return Err(Failure::usage(format!(
                "the masks of `{name}` have {} classes, the training data {class_count}, expected the same ones",
                dataset.classes.len()
            )));
        }
        let test_fold = dataset.test_fold;
        let is_taken =
            |case: &Case| Some(case.fold) != test_fold && !case.lacks_classes(class_count);
        let whole = dataset.cases.into_iter().filter(is_taken);
        let dense = whole.filter_map(|mut case| {
            let labels = case.annotations.remove(DENSE)?;
            let (name, patient) = (case.name, Some(case.patient));
            Some(MaskVolume { name, patient, shape: case.scan.grid.shape, labels })
        });
        let volumes: Vec<MaskVolume> = dense.collect();
        if volumes.is_empty() {
            return Err(Failure::usage(format!("no case of `{name}` has `{DENSE}` labels"))
                .hint("pack a data set with dense labels, or name a folder of NIfTI masks"));
        }
        Self::new(&format!("`{name}`"), volumes)
    }

    /// The volumes, in the order in which they are drawn from.
    pub fn volumes(&self) -> &[MaskVolume] {
        &self.volumes
    }

    /// Refuses masks of patients whom `target` has too, training and held-out cases alike: what is
    /// learnt from a run's own truth is no weak supervision.
    pub fn refuse_own(&self, target: &Dataset) -> Result<()> {
        let mut own =
            self.volumes.iter().filter_map(|mask| Some((mask, own_patient(mask, target)?)));
        let Some((mask, patient)) = own.next() else { return Ok(()) };
        let others = match own.count() {
            0 => String::new(),
            count => format!(", and {count} more masks are like that"),
        };
        Err(Failure::usage(format!(
            "mask `{}` is of patient `{patient}`, who is in the training data `{}` too{others}",
            mask.name, target.name
        ))
        .hint("name masks of other people in `[data.shapes]`")
        .hint("or set `data.shapes.allow_own = true` to show a run its own truth"))
    }

    /// The same masks, rows and columns swapped.
    #[must_use]
    pub fn swapped(self) -> Self {
        Self { volumes: self.volumes.into_iter().map(MaskVolume::swapped).collect() }
    }

    /// Writes the mask that `key` draws to all of `out`, `size` rows of as many columns, turned and
    /// flipped like the sample that `transform` makes.
    pub fn fill(&self, key: Key, transform: &Transform, size: usize, out: &mut [u8]) {
        let (volume, slice) = self.drawn(key);
        let volume = &self.volumes[volume];
        let [_, rows, columns] = volume.shape;
        let pixels = rows * columns;
        let labels = &volume.labels[slice * pixels..][..pixels];
        transform.apply_to_mask(Mask { shape: [rows, columns], labels }, (size, out));
    }

    /// One volume uniformly, then one of its slices uniformly, empty ones included: the numbers of both.
    pub(super) fn drawn(&self, key: Key) -> (usize, usize) {
        let mut draws = key.draws();
        let volume = draws.below(self.volumes.len() as u64) as usize;
        (volume, draws.below(self.volumes[volume].shape[0] as u64) as usize)
    }
}

/// The patient of `target` whom this mask shows: by name, or because the labels are the same.
fn own_patient<'a>(mask: &MaskVolume, target: &'a Dataset) -> Option<&'a str> {
    let named = |patient: &str| match &mask.patient {
        Some(known) => known == patient,
        None => mask.name.strip_prefix(patient).is_some_and(|rest| {
            !patient.is_empty() && !rest.starts_with(|letter: char| letter.is_alphanumeric())
        }),
    };
    let shown = |labels: &Vec<u8>| *labels == mask.labels && labels.iter().any(|&label| label > 0);
    let mut cases = target.cases.iter();
    let own = cases.find(|case| {
        let same =
            case.scan.grid.shape == mask.shape && case.annotations.get(DENSE).is_some_and(shown);
        same || named(&case.patient)
    });
    own.map(|case| case.patient.as_str())
}

impl MaskVolume {
    fn swapped(self) -> Self {
        let [slices, rows, columns] = self.shape;
        let pixels = self.labels.chunks_exact(rows * columns);
        let labels = pixels.flat_map(|slice| {
            (0..columns).flat_map(move |column| slice.iter().skip(column).step_by(columns).copied())
        });
        Self { labels: labels.collect(), shape: [slices, columns, rows], ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A volume whose voxel `i` is of class `i % 4`.
    fn volume(name: &str, shape: [usize; 3]) -> MaskVolume {
        let labels = (0..shape.iter().product()).map(|index: usize| (index % 4) as u8).collect();
        MaskVolume { name: name.into(), patient: None, shape, labels }
    }

    fn shapes(volumes: Vec<MaskVolume>) -> Shapes {
        Shapes::new("a test", volumes).unwrap()
    }

    #[test]
    fn each_volume_is_drawn_equally_often_and_each_of_its_slices() {
        let shapes =
            shapes(vec![volume("a", [1, 2, 2]), volume("b", [2, 2, 2]), volume("c", [5, 2, 2])]);
        let mut seen: BTreeMap<(&str, usize), usize> = BTreeMap::new();
        for number in 0..30_000 {
            let (volume, slice) = shapes.drawn(Key::new(6).number(number));
            *seen.entry((&shapes.volumes[volume].name, slice)).or_default() += 1;
        }
        let about = |found: usize, expected: usize| found.abs_diff(expected) < 300;
        assert!(about(seen[&("a", 0)], 10_000), "{seen:?}");
        assert!((0..2).all(|slice| about(seen[&("b", slice)], 5_000)), "{seen:?}");
        assert!((0..5).all(|slice| about(seen[&("c", slice)], 2_000)), "{seen:?}");
        assert_eq!(seen.len(), 8);
    }

    #[test]
    fn swapping_exchanges_rows_and_columns_of_each_slice() {
        let mask = MaskVolume { labels: (0..12).collect(), ..volume("a", [2, 2, 3]) };
        let swapped = shapes(vec![mask.clone()]).swapped();
        assert_eq!(swapped.volumes()[0].shape, [2, 3, 2]);
        assert_eq!(swapped.volumes()[0].labels, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        assert_eq!(swapped.swapped().volumes(), [mask]);
    }

    #[test]
    fn masks_without_shapes_are_refused() {
        let empty = MaskVolume { labels: vec![0; 8], ..volume("a", [2, 2, 2]) };
        assert_eq!(
            Shapes::new("`f`", vec![empty]).unwrap_err().message(),
            "all masks of `f` show background only, expected shapes to learn from"
        );
    }
}
