//! The streams of a batch: what a method says stands beside what, and which slices can be learnt from.
//!
//! Knows cases and folds, no tensors and no steps.

use super::{Case, DENSE, Dataset, IMAGE_LABEL};
use std::collections::BTreeSet;

/// The name of the stream that every batch has: the samples to learn from.
pub const MAIN: &str = "main";
/// The name of the stream of healthy images.
pub const HEALTHY: &str = "healthy";
/// The name of the stream of masks.
pub const SHAPES: &str = "shapes";

/// A stream of a batch: as many samples as every other stream has, drawn by themselves.
///
/// For example `StreamSpec::new(MAIN, Select::Annotated)`, which is all that most methods ask for, or beside it
/// `StreamSpec::new("ct_unlabelled", Select::Unlabelled).of("ct")`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSpec {
    /// The name by which a method finds it in a batch; the first one of a method is [`MAIN`].
    pub name: &'static str,
    /// What its samples are.
    pub select: Select,
    /// The kind of annotation that comes with them; none: the one that the configuration names.
    pub annotation: Option<&'static str>,
    /// What its images were taken with, as [`Case::modality`] has it; none: whatever it was.
    pub modality: Option<&'static str>,
}

/// What the samples of a stream are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// What has the annotation that the configuration names.
    Annotated,
    /// Images of cases without any annotation, which may be looked at: all of their pixels are
    /// [`IGNORE`](super::IGNORE).
    Unlabelled,
    /// Images whose [`IMAGE_LABEL`] is this class: 0 healthy, 1 diseased.
    ImageLabel(u8),
    /// Dense masks of other patients, without images: those of `[data.shapes]`.
    OtherPatients,
}

impl StreamSpec {
    /// A stream with the annotation that the configuration names.
    pub const fn new(name: &'static str, select: Select) -> Self {
        Self { name, select, annotation: None, modality: None }
    }

    /// A stream of images with [`IMAGE_LABEL`] for their annotation.
    pub const fn labelled(name: &'static str, class: u8) -> Self {
        let annotation = Some(IMAGE_LABEL);
        Self { name, select: Select::ImageLabel(class), annotation, modality: None }
    }

    /// The same stream with images of one modality alone.
    #[must_use]
    pub const fn of(self, modality: &'static str) -> Self {
        Self { modality: Some(modality), ..self }
    }

    /// Whether images of such a case may stand in the stream.
    pub(super) fn takes(&self, case: &Case) -> bool {
        self.modality.is_none_or(|modality| modality == case.modality)
    }
}

/// What most methods learn from.
pub static ANNOTATED: &[StreamSpec] = &[StreamSpec::new(MAIN, Select::Annotated)];

/// Whether some of the streams are chosen by image-level labels.
pub fn by_image_label(streams: &[StreamSpec]) -> bool {
    streams.iter().any(|stream| matches!(stream.select, Select::ImageLabel(_)))
}

/// Whether some of the streams are masks of other patients.
pub fn by_masks(streams: &[StreamSpec]) -> bool {
    streams.iter().any(|stream| stream.select == Select::OtherPatients)
}

/// How many of the streams are of images.
pub(super) fn image_streams(streams: &[StreamSpec]) -> usize {
    streams.iter().filter(|stream| stream.select != Select::OtherPatients).count()
}

/// The slices that `annotation` is learned from, as index of the case and slice: those of all cases that
/// `fold` does not hold out and that have more than dense labels. Cases with nothing else are there to be
/// scored, unless it is these labels that are learned from, and cases without any to be looked at. Those to test with
/// are never learned from.
pub fn training_slices(dataset: &Dataset, fold: u32, annotation: &str) -> Vec<(usize, usize)> {
    let is_learned = |case: &Case| {
        let mut kinds = case.annotations.keys();
        if annotation == DENSE { kinds.next().is_some() } else { kinds.any(|kind| kind != DENSE) }
    };
    slices(kept(dataset, fold).filter(|(_, case)| is_learned(case)))
}

/// The slices of all cases without any annotation that `fold` does not hold out.
pub(super) fn unlabelled_slices(dataset: &Dataset, fold: u32) -> Vec<(usize, usize)> {
    slices(kept(dataset, fold).filter(|(_, case)| case.annotations.is_empty()))
}

/// The cases whose images come into batches of these streams, by index, where `annotation` is learned from.
pub fn seen_cases(
    dataset: &Dataset,
    (fold, annotation): (u32, &str),
    streams: &[StreamSpec],
) -> BTreeSet<usize> {
    let has_image_label = |case: usize| dataset.cases[case].annotations.contains_key(IMAGE_LABEL);
    let of = |stream: &StreamSpec| {
        let slices = match stream.select {
            Select::Annotated | Select::ImageLabel(_) => training_slices(dataset, fold, annotation),
            Select::Unlabelled => unlabelled_slices(dataset, fold),
            Select::OtherPatients => Vec::new(),
        };
        let by_image_label = matches!(stream.select, Select::ImageLabel(_));
        let cases = slices.into_iter().map(|(case, _)| case);
        let cases = cases.filter(|&case| stream.takes(&dataset.cases[case]));
        cases.filter(|&case| !by_image_label || has_image_label(case)).collect::<BTreeSet<usize>>()
    };
    streams.iter().flat_map(of).collect()
}

/// Whether somebody left out classes in a case whose annotation comes into batches of these streams, where `annotation`
/// is learned from.
pub fn lacks_classes(dataset: &Dataset, of: (u32, &str), streams: &[StreamSpec]) -> bool {
    let class_count = dataset.classes.len();
    seen_cases(dataset, of, streams).into_iter().any(|case| {
        let case = &dataset.cases[case];
        !case.annotations.is_empty() && case.lacks_classes(class_count)
    })
}

/// The slices of these cases, as index of the case and slice.
fn slices<'a>(cases: impl Iterator<Item = (usize, &'a Case)>) -> Vec<(usize, usize)> {
    cases
        .flat_map(|(index, case)| (0..case.scan.grid.shape[0]).map(move |slice| (index, slice)))
        .collect()
}

/// The cases that `fold` does not hold out and that are not there to test with, with their indices.
pub(super) fn kept(dataset: &Dataset, fold: u32) -> impl Iterator<Item = (usize, &Case)> {
    let cases = dataset.cases.iter().enumerate();
    let is_test = |case: &Case| dataset.test_fold == Some(case.fold);
    cases.filter(move |(_, case)| (fold == 0 || case.fold != fold) && !is_test(case))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SCRIBBLE;
    use crate::data::import::phantom::{Difficulty, Phantom, generate};

    #[test]
    fn nothing_is_learned_from_what_is_there_to_test_with() {
        let phantom =
            Phantom { cases: 3, slices: 1, size: 32, difficulty: Difficulty::Easy, seed: 1 };
        let mut dataset = generate(&phantom).unwrap();
        for (case, fold) in dataset.cases.iter_mut().zip([0, 1, 2]) {
            case.fold = fold;
        }
        let learned = |dataset: &Dataset, fold: u32| {
            let of = |kind: &str| training_slices(dataset, fold, kind).into_iter();
            assert!(of(SCRIBBLE).eq(of(DENSE)));
            of(DENSE).map(|(case, _)| case).collect::<Vec<_>>()
        };
        let by_fold = |dataset: &Dataset| [0, 1, 2].map(|fold| learned(dataset, fold));
        assert_eq!(by_fold(&dataset), [vec![0, 1, 2], vec![0, 2], vec![0, 1]]);
        dataset.test_fold = Some(2);
        assert_eq!(by_fold(&dataset), [vec![0, 1], vec![0], vec![0, 1]]);
    }
}
