//! What a batch is made by: which slices a run sees at which step, and what happens to them.
//!
//! A pure function of the plan, the data set and the step. Knows no methods, no threads and no
//! communicator: rank and ranks come as two numbers.

use super::augment::transfer::{TransferDraw, resize_planes};
use super::augment::{Draw, Resample, Sample, Slice, apply, zoom_labels};
use super::order::{Epochs, Order};
use super::samples::Samples;
use super::shapes::Shapes;
use super::{Case, Dataset};
use crate::error::Result;
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
    /// Puts as many healthy images beside the diseased ones: cases with image-level labels alone are
    /// trained on, and those of the two classes are drawn independently.
    pub with_healthy: bool,
    /// The label of what a rotation brings in from outside, where the slice has such pixels.
    pub outside: u8,
    /// The seed of the run.
    pub seed: u64,
}

/// Everything that a batch depends on beside its step, on one rank.
#[derive(Debug, Clone)]
pub(super) struct BatchRecipe {
    pub(super) dataset: Arc<Dataset>,
    /// Index of the case, and slice.
    pub(super) slices: Vec<(usize, usize)>,
    pub(super) plan: LoaderPlan,
    pub(super) epochs: Arc<Epochs>,
    pub(super) rank: usize,
    pub(super) ranks: usize,
    /// Into how many parts, one trained on after the other, a batch is cut.
    pub(super) micro_batches: usize,
    pub(super) shapes: Option<Arc<Shapes>>,
    /// That of the healthy images beside.
    pub(super) healthy: Option<Arc<Self>>,
}

/// Where the samples of a batch come from, and the way to all slices that are trained on.
///
/// For methods that label slices themselves: labels belong to slices as they are stored, samples are
/// turned and resized.
#[derive(Debug, Clone)]
pub struct Origin {
    recipe: Arc<BatchRecipe>,
    step: u64,
    positions: Range<usize>,
    /// The training slice of each sample.
    slices: Vec<usize>,
}

impl BatchRecipe {
    /// The positions of every micro-batch in a global batch of so many samples: none is empty, and
    /// all are the same on every number of ranks.
    pub(super) fn micro_batches(&self, samples: usize) -> impl Iterator<Item = Range<usize>> {
        let count = self.micro_batches.min(samples);
        (0..count).map(move |number| local_share(samples, count, number))
    }

    /// This rank's part of the samples at `positions` of a global batch.
    pub(super) fn share(&self, positions: &Range<usize>) -> Range<usize> {
        let share = local_share(positions.len(), self.ranks, self.rank);
        positions.start + share.start..positions.start + share.end
    }

    /// The order of the samples.
    pub(super) fn order(&self) -> Order {
        self.epochs.order()
    }

    fn case(&self, slice: usize) -> (&Case, usize) {
        let (case, slice) = self.slices[slice];
        (&self.dataset.cases[case], slice)
    }

    /// The samples at positions `mine` of the batch of `step`, whose slices are `global`.
    pub(super) fn samples(
        &self,
        step: u64,
        global: &[usize],
        mine: Range<usize>,
    ) -> Result<Samples> {
        let tensors = self.tensors(step, global, mine.clone())?;
        Ok(self.named(tensors, global, mine))
    }

    /// Image and annotation with where they come from.
    pub(super) fn named(
        &self,
        (image, annotation): (Tensor, Tensor),
        global: &[usize],
        mine: Range<usize>,
    ) -> Samples {
        Samples {
            image,
            annotation,
            cases: mine.clone().map(|position| self.slices[global[position]]).collect(),
            positions: mine.map(|position| position as u64).collect(),
        }
    }

    /// Images `[N, C, H, W]` f32 and annotations `[N, H, W]` u8.
    fn tensors(&self, step: u64, global: &[usize], mine: Range<usize>) -> Result<(Tensor, Tensor)> {
        let (count, size) = (mine.len() as i64, self.plan.size as i64);
        let channels = self.dataset.channels();
        let extents = [count, channels as i64, size, size];
        let image = Tensor::empty(extents, (Kind::Float, Device::Cpu));
        let annotation = Tensor::empty([count, size, size], (Kind::Uint8, Device::Cpu));
        // Straight into the memory of the tensors: copies would cost as much as the resampling.
        with_slice_mut(&image, |images: &mut [f32]| {
            with_slice_mut(&annotation, |labels: &mut [u8]| {
                let pixels = self.plan.size * self.plan.size;
                let images = images.chunks_exact_mut(channels * pixels);
                let outputs = images.zip(labels.chunks_exact_mut(pixels));
                for (position, (image, annotation)) in mine.zip(outputs) {
                    let source = self.annotated(global[position]);
                    let shape = [self.plan.size; 2];
                    if self.plan.with_healthy {
                        let mut sample = Sample { shape, image, annotation };
                        self.transfer((step, position), &source, &mut sample);
                        continue;
                    }
                    // Each channel by itself, with what happens to all of them.
                    let [rows, columns] = source.shape;
                    let planes = source.image.chunks_exact(rows * columns);
                    for (plane, image) in planes.zip(image.chunks_exact_mut(pixels)) {
                        let source = Slice { image: plane, ..source };
                        let mut sample = Sample { shape, image, annotation: &mut *annotation };
                        apply(self.plan.augment, self.draw(step, position), &source, &mut sample);
                    }
                }
            })
        })??;
        Ok((image, annotation))
    }

    /// Makes a sample as label transfer does: a crop of a slightly larger image, or the image alone.
    fn transfer(
        &self,
        (step, position): (u64, usize),
        source: &Slice<'_>,
        sample: &mut Sample<'_>,
    ) {
        let (size, [rows, columns]) = (self.plan.size, source.shape);
        let shape = [self.dataset.channels(), rows, columns];
        if self.plan.augment == Resample::None {
            sample.image.copy_from_slice(&resize_planes(source.image, shape, size));
            sample.annotation.copy_from_slice(&zoom_labels(
                source.annotation,
                source.shape,
                [size; 2],
            ));
            return;
        }
        let draw =
            TransferDraw::sample(&mut self.order().augmentation(step, position).draws(), size);
        draw.apply(source.image, shape, (size, sample.image));
        draw.apply_to_labels(source.annotation, source.shape, (size, sample.annotation));
    }

    /// A training slice with the annotation of the plan.
    pub(super) fn annotated(&self, slice: usize) -> Slice<'_> {
        let (case, slice) = self.case(slice);
        Slice {
            shape: [case.scan.grid.shape[1], case.scan.grid.shape[2]],
            image: case.scan.slice(slice),
            // Every case here has this annotation: whoever chose the slices refused others.
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
            let key = self.order().shapes(step, position);
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
    pub(super) fn draw(&self, step: u64, position: usize) -> Draw {
        Draw::sample(&mut self.order().augmentation(step, position).draws())
    }
}

impl Origin {
    pub(super) fn new(
        recipe: &Arc<BatchRecipe>,
        step: u64,
        global: &[usize],
        positions: Range<usize>,
    ) -> Self {
        let slices = global[positions.clone()].to_vec();
        Self { recipe: Arc::clone(recipe), step, positions, slices }
    }

    /// How many slices are trained on.
    pub fn slice_count(&self) -> usize {
        self.recipe.slices.len()
    }

    /// This rank's part of work on all of them.
    pub fn own_slices(&self) -> Range<usize> {
        self.recipe.share(&(0..self.recipe.slices.len()))
    }

    /// Training slice `slice` resized without any augmentation: `[1, C, H, W]` f32.
    pub fn input(&self, slice: usize) -> Tensor {
        let (case, slice) = self.recipe.case(slice);
        let size = self.recipe.plan.size;
        let image = case.input_slice(slice, size);
        Tensor::from_slice(&image).view([1, case.scan.channels as i64, size as i64, size as i64])
    }

    /// Labels of slices as they are stored, turned and resized as the samples of the batch were:
    /// `[N, H, W]` u8. `codes` gives those of a training slice, where 0 stands for nothing; that is
    /// also what lies outside.
    pub fn place<'a>(&self, codes: impl Fn(usize) -> &'a [u8]) -> Result<Tensor> {
        let (recipe, size) = (&self.recipe, self.recipe.plan.size);
        let mut unread = vec![0.0; size * size];
        let first = self.positions.start;
        recipe.labels(self.positions.clone(), |position, out| {
            let slice = self.slices[position - first];
            let source = recipe.annotated(slice);
            let image = &source.image[..source.shape.iter().product()];
            let source = Slice { image, annotation: codes(slice), outside: 0, ..source };
            let mut sample = Sample { shape: [size; 2], image: &mut unread, annotation: out };
            apply(recipe.plan.augment, recipe.draw(self.step, position), &source, &mut sample);
        })
    }
}
