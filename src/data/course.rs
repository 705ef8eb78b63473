//! Which slices a run sees at which step and what happens to them: everything that a batch depends on.
//!
//! A pure function of the plan, the data set and the step. Knows no methods, no threads and no
//! communicator: rank and ranks come as two numbers.

use super::augment::{Draw, Resample, Sample, Slice, apply, zoom_image};
use super::order::Order;
use super::shapes::Shapes;
use super::{Case, Dataset};
use crate::error::{Failure, Result};
use crate::native::with_slice_mut;
use crate::shares::local_share;
use std::ops::Range;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Which samples a run learns from, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderPlan {
    /// The fold that is held out, 0 for none; every other case is trained on.
    pub fold: u32,
    /// The kind of annotation to learn from, for example [`super::SCRIBBLE`].
    pub annotation: String,
    /// Samples of one step over all ranks.
    pub batch_size: usize,
    /// Leaves out the last batch of an epoch where it is not full.
    pub drop_last: bool,
    /// Rows and columns of a sample.
    pub size: usize,
    /// Augmentation and resizing.
    pub augment: Resample,
    /// The label of what a rotation brings in from outside, where the slice has such pixels.
    pub outside: u8,
    /// The seed of the run.
    pub seed: u64,
}

/// The slices of all cases that `fold` does not hold out, as index of the case and slice.
pub fn training_slices(dataset: &Dataset, fold: u32) -> Vec<(usize, usize)> {
    let cases = dataset.cases.iter().enumerate();
    let cases = cases.filter(|(_, case)| fold == 0 || case.fold != fold);
    cases.flat_map(|(index, case)| (0..case.shape[0]).map(move |slice| (index, slice))).collect()
}

/// The same. Refuses a fold that no case has or that leaves nothing to train on, and a case without
/// the annotation.
pub(super) fn annotated_slices(
    dataset: &Dataset,
    fold: u32,
    annotation: &str,
) -> Result<Vec<(usize, usize)>> {
    if fold != 0 {
        dataset.held_out(fold)?;
    }
    let slices = training_slices(dataset, fold);
    for case in slices.iter().map(|(index, _)| &dataset.cases[*index]) {
        if !case.annotations.contains_key(annotation) {
            let known: Vec<&str> = case.annotations.keys().map(String::as_str).collect();
            return Err(Failure::usage(format!(
                "case `{}` has no annotation `{annotation}`, only {known:?}",
                case.name
            ))
            .hint("set `data.annotation` to one of these"));
        }
    }
    if slices.is_empty() {
        return Err(Failure::usage(format!(
            "fold {fold} holds out every case of `{}`, expected some to train on",
            dataset.name
        ))
        .hint("set `data.fold` to another fold, or pack more cases"));
    }
    Ok(slices)
}

/// Everything that a batch depends on beside its step, on one rank.
#[derive(Debug, Clone)]
pub(super) struct Course {
    pub(super) dataset: Arc<Dataset>,
    /// Index of the case, and slice.
    pub(super) slices: Vec<(usize, usize)>,
    pub(super) plan: LoaderPlan,
    pub(super) order: Order,
    pub(super) rank: usize,
    pub(super) ranks: usize,
    pub(super) shapes: Option<Arc<Shapes>>,
}

/// Where the samples of a batch come from, and the way to all slices that are trained on.
///
/// For methods that label slices themselves: labels belong to slices as they are stored, samples are
/// turned and resized.
#[derive(Debug, Clone)]
pub struct Origin {
    course: Arc<Course>,
    step: u64,
    positions: Range<usize>,
    /// The training slice of each sample.
    slices: Vec<usize>,
}

impl Course {
    /// The positions of this rank's part of a global batch of so many samples.
    pub(super) fn share(&self, samples: usize) -> Range<usize> {
        local_share(samples, self.ranks, self.rank)
    }

    fn case(&self, slice: usize) -> (&Case, usize) {
        let (case, slice) = self.slices[slice];
        (&self.dataset.cases[case], slice)
    }

    /// Images `[N, 1, H, W]` f32 and annotations `[N, H, W]` u8 of this rank's part of a batch.
    pub(super) fn samples(&self, step: u64, global: &[usize]) -> Result<(Tensor, Tensor)> {
        let mine = self.share(global.len());
        let (count, size) = (mine.len() as i64, self.plan.size as i64);
        let image = Tensor::empty([count, 1, size, size], (Kind::Float, Device::Cpu));
        let annotation = Tensor::empty([count, size, size], (Kind::Uint8, Device::Cpu));
        // Straight into the memory of the tensors: copies would cost as much as the resampling.
        with_slice_mut(&image, |images: &mut [f32]| {
            with_slice_mut(&annotation, |labels: &mut [u8]| {
                let pixels = self.plan.size * self.plan.size;
                let outputs = images.chunks_exact_mut(pixels).zip(labels.chunks_exact_mut(pixels));
                for (position, (image, annotation)) in mine.zip(outputs) {
                    let mut sample = Sample { shape: [self.plan.size; 2], image, annotation };
                    let source = self.annotated(global[position]);
                    apply(self.plan.augment, self.draw(step, position), &source, &mut sample);
                }
            })
        })??;
        Ok((image, annotation))
    }

    /// A training slice with the annotation of the plan.
    fn annotated(&self, slice: usize) -> Slice<'_> {
        let (case, slice) = self.case(slice);
        Slice {
            shape: [case.shape[1], case.shape[2]],
            image: case.image_slice(slice),
            // Every training case has this annotation: `annotated_slices` refuses others.
            annotation: case.annotation_slice(&self.plan.annotation, slice).unwrap_or_default(),
            outside: self.plan.outside,
        }
    }

    /// The masks beside the samples: `[N, H, W]` u8.
    pub(super) fn masks(
        &self,
        shapes: &Shapes,
        step: u64,
        positions: Range<usize>,
    ) -> Result<Tensor> {
        let transform = |position| (self.plan.augment, self.draw(step, position));
        self.labels(positions, |position, out| {
            let key = self.order.shapes(step, position);
            shapes.fill(key, transform(position), self.plan.size, out);
        })
    }

    /// Labels `[N, H, W]` u8, written for one position of the global batch after the other.
    fn labels(
        &self,
        positions: Range<usize>,
        mut fill: impl FnMut(usize, &mut [u8]),
    ) -> Result<Tensor> {
        let size = self.plan.size;
        let extents = [positions.len(), size, size].map(|extent| extent as i64);
        let labels = Tensor::empty(extents, (Kind::Uint8, Device::Cpu));
        with_slice_mut(&labels, |all: &mut [u8]| {
            for (position, out) in positions.zip(all.chunks_exact_mut(size * size)) {
                fill(position, out);
            }
        })?;
        Ok(labels)
    }

    /// What happens to the sample at `position` of the global batch, and to the mask beside it.
    fn draw(&self, step: u64, position: usize) -> Draw {
        Draw::sample(&mut self.order.augmentation(step, position).draws())
    }
}

impl Origin {
    pub(super) fn new(course: &Arc<Course>, step: u64, global: &[usize]) -> Self {
        let positions = course.share(global.len());
        let slices = global[positions.clone()].to_vec();
        Self { course: Arc::clone(course), step, positions, slices }
    }

    /// How many slices are trained on.
    pub fn slice_count(&self) -> usize {
        self.course.slices.len()
    }

    /// This rank's part of work on all of them.
    pub fn own_slices(&self) -> Range<usize> {
        self.course.share(self.course.slices.len())
    }

    /// Training slice `slice` resized without any augmentation: `[1, 1, H, W]` f32.
    pub fn input(&self, slice: usize) -> Tensor {
        let (case, slice) = self.course.case(slice);
        let size = self.course.plan.size;
        let shape = [case.shape[1], case.shape[2]];
        let image = zoom_image(case.image_slice(slice), shape, [size; 2]);
        Tensor::from_slice(&image).view([1, 1, size as i64, size as i64])
    }

    /// Labels of slices as they are stored, turned and resized as the samples of the batch were:
    /// `[N, H, W]` u8. `codes` gives those of a training slice, where 0 stands for nothing; that is
    /// also what lies outside.
    pub fn place<'a>(&self, codes: impl Fn(usize) -> &'a [u8]) -> Result<Tensor> {
        let (course, size) = (&self.course, self.course.plan.size);
        let mut unread = vec![0.0; size * size];
        let first = self.positions.start;
        course.labels(self.positions.clone(), |position, out| {
            let slice = self.slices[position - first];
            let source = course.annotated(slice);
            let source = Slice { annotation: codes(slice), outside: 0, ..source };
            let mut sample = Sample { shape: [size; 2], image: &mut unread, annotation: out };
            apply(course.plan.augment, course.draw(self.step, position), &source, &mut sample);
        })
    }
}
