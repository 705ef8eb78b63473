//! What a batch is made by: which slices or patches a run sees at which step, and what happens to them.
//!
//! A pure function of the plan, the data set and the step. Knows no methods, no threads and no
//! communicator: rank and ranks come as two numbers.

use super::augment::transfer::{TransferDraw, resize_planes};
use super::augment::{Draw, Light, Resample, Sample, Slice, Transform, zoom_labels};
use super::item::{Item, PatchDraw, PatchSample, PatchSource};
use super::items::Items;
use super::order::Order;
use super::samples::Samples;
use super::shapes::Shapes;
use super::stream::{StreamSpec, by_image_label};
use super::{Case, Dataset, IGNORE, fitted_slice};
use crate::config::sampling::{Fit, Sampling};
use crate::error::Result;
use crate::native::with_slice_mut;
use crate::shares::local_share;
use std::ops::Range;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Which samples a run learns from, and in which form.
#[derive(Debug, Clone, PartialEq)]
pub struct LoaderPlan {
    /// The fold that is held out, 0 for none; every other case is trained on.
    pub fold: u32,
    /// The kind of annotation to learn from, for example [`super::SCRIBBLE`].
    pub annotation: String,
    /// Samples of one step over all ranks.
    pub batch_size: usize,
    /// Leaves out the last batch of an epoch where it is not full.
    pub drop_last: bool,
    /// How samples are cut from scans.
    pub sampling: Sampling,
    /// Augmentation and resizing.
    pub augment: Resample,
    /// What stands in a batch beside what; the first are the samples to learn from.
    pub streams: &'static [StreamSpec],
    /// The label of what lies outside of a slice, see [`Transform::outside_label`]. Outside of a scan patches are
    /// unknown.
    pub outside: u8,
    /// The seed of the run.
    pub seed: u64,
}

/// Everything that a batch depends on beside its step, on one rank.
#[derive(Debug, Clone)]
pub(super) struct BatchRecipe {
    pub(super) dataset: Arc<Dataset>,
    pub(super) items: Arc<Items>,
    pub(super) plan: LoaderPlan,
    pub(super) rank: usize,
    pub(super) ranks: usize,
    /// Into how many parts, one trained on after the other, a batch is cut.
    pub(super) micro_batches: usize,
    pub(super) shapes: Option<Arc<Shapes>>,
    /// Where nothing may be said of the images: [`IGNORE`] as often as the largest case has voxels.
    pub(super) unknown: Option<Arc<[u8]>>,
    /// Whether samples say which classes were looked for.
    pub(super) lacks_classes: bool,
    /// Those of the streams beside, by name.
    pub(super) beside: Vec<(&'static str, Arc<Self>)>,
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
        self.items.order()
    }

    /// This recipe and those of the streams of images beside, in their order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.beside.iter().map(|(_, recipe)| &**recipe))
    }

    fn case(&self, slice: usize) -> (&Case, usize) {
        let (case, slice) = self.items.slices()[slice];
        (&self.dataset.cases[case], slice)
    }

    /// Rows and as many columns of a sample that is a whole slice.
    pub(super) fn size(&self) -> usize {
        self.plan.sampling.extent()[1]
    }

    /// What the sample at `position` of the batch of `step` is cut from, whose items are `global`.
    pub(super) fn item(&self, step: u64, global: &[usize], position: usize) -> Item {
        self.items.item(&self.dataset, global[position], (step, position))
    }

    /// The samples at positions `mine` of the batch of `step`, whose items are `global`.
    pub(super) fn samples(
        &self,
        step: u64,
        global: &[usize],
        mine: Range<usize>,
    ) -> Result<Samples> {
        let tensors = self.tensors(step, global, mine.clone())?;
        Ok(self.named(tensors, (step, global), mine))
    }

    /// Image and annotation with where they come from.
    pub(super) fn named(
        &self,
        (image, annotation): (Tensor, Tensor),
        (step, global): (u64, &[usize]),
        mine: Range<usize>,
    ) -> Samples {
        let items: Vec<Item> =
            mine.clone().map(|position| self.item(step, global, position)).collect();
        Samples {
            image,
            annotation,
            looked_for: self.lacks_classes.then(|| self.looked_for(&items)),
            items,
            positions: mine.map(|position| position as u64).collect(),
        }
    }

    /// 1 for each class that was looked for in the case of an item, else 0: `[N, classes]` u8.
    fn looked_for(&self, items: &[Item]) -> Tensor {
        let classes = self.dataset.classes.len();
        let of = |item: &Item| {
            let case = &self.dataset.cases[item.case];
            (0..classes).map(|class| u8::from(case.is_looked_for(class as u8)))
        };
        let flags: Vec<u8> = items.iter().flat_map(of).collect();
        Tensor::from_slice(&flags).view([items.len() as i64, classes as i64])
    }

    /// Images `[N, C, H, W]` f32 and annotations `[N, H, W]` u8, or with slices before rows.
    fn tensors(&self, step: u64, global: &[usize], mine: Range<usize>) -> Result<(Tensor, Tensor)> {
        let (count, channels) = (mine.len() as i64, self.dataset.channels());
        let extent = self.plan.sampling.extent();
        let axes = extent.iter().skip(3 - self.plan.sampling.dims()).map(|&extent| extent as i64);
        let extents = |first: &[i64]| first.iter().copied().chain(axes.clone()).collect::<Vec<_>>();
        let image = Tensor::empty(extents(&[count, channels as i64]), (Kind::Float, Device::Cpu));
        let annotation = Tensor::empty(extents(&[count]), (Kind::Uint8, Device::Cpu));
        // Straight into the memory of the tensors: copies would cost as much as the resampling.
        with_slice_mut(&image, |images: &mut [f32]| {
            with_slice_mut(&annotation, |labels: &mut [u8]| {
                let voxels = extent.iter().product();
                let images = images.chunks_exact_mut(channels * voxels);
                let outputs = images.zip(labels.chunks_exact_mut(voxels));
                for (position, (image, annotation)) in mine.zip(outputs) {
                    match &*self.items {
                        Items::Slices { .. } => {
                            let shape = [extent[1], extent[2]];
                            let (image, annotation) = (&mut *image, &mut *annotation);
                            let mut sample = Sample { shape, image, annotation };
                            let source = self.annotated(global[position]);
                            self.resize((step, position), &source, &mut sample);
                        }
                        Items::Patches { .. } => {
                            let item = self.item(step, global, position);
                            let (image, annotation) = (&mut *image, &mut *annotation);
                            let mut sample = PatchSample { image, annotation };
                            self.cut((step, position), &item, &mut sample);
                        }
                    }
                    self.light(step, position).apply(image);
                    if self.unknown.is_some() {
                        // Resizing puts background into rows that it does not reach.
                        annotation.fill(IGNORE);
                    }
                }
            })
        })??;
        Ok((image, annotation))
    }

    /// Makes a sample of a slice, each channel by itself with what happens to all of them.
    fn resize(&self, (step, position): (u64, usize), source: &Slice<'_>, sample: &mut Sample<'_>) {
        if by_image_label(self.plan.streams) {
            return self.transfer((step, position), source, sample);
        }
        let (shape, transform) = (sample.shape, self.transform(step, position));
        let planes = source.image.chunks_exact(source.shape[0] * source.shape[1]);
        for (plane, image) in planes.zip(sample.image.chunks_exact_mut(shape[0] * shape[1])) {
            let source = Slice { image: plane, ..*source };
            let mut sample = Sample { shape, image, annotation: &mut *sample.annotation };
            transform.apply(&source, &mut sample);
        }
    }

    /// Cuts a patch.
    fn cut(&self, (step, position): (u64, usize), item: &Item, sample: &mut PatchSample<'_>) {
        let case = &self.dataset.cases[item.case];
        let source =
            PatchSource { case, labels: self.labels_of(case), resample: self.plan.augment };
        let mut draws = self.order().augmentation(step, position).draws();
        let draw = PatchDraw::sample(self.plan.augment, &mut draws, item.extent);
        source.cut(item, draw, sample);
    }

    /// What becomes of the intensities of the sample at `position` of the global batch.
    fn light(&self, step: u64, position: usize) -> Light {
        if self.plan.augment != Resample::Mild {
            return Light { factor: 1.0, offset: 0.0 };
        }
        let key = self.order().augmentation(step, position).purpose("light");
        Light::sample(&mut key.draws())
    }

    /// Makes a sample as label transfer does: a crop of a slightly larger image, or the image alone.
    fn transfer(
        &self,
        (step, position): (u64, usize),
        source: &Slice<'_>,
        sample: &mut Sample<'_>,
    ) {
        let (size, [rows, columns]) = (self.size(), source.shape);
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
        let pixels = case.scan.grid.pixels();
        Slice {
            shape: [case.scan.grid.shape[1], case.scan.grid.shape[2]],
            image: case.scan.slice(slice),
            annotation: &self.labels_of(case)[slice * pixels..][..pixels],
            outside: self.plan.outside,
        }
    }

    /// What may be said of the voxels of a case.
    fn labels_of<'a>(&'a self, case: &'a Case) -> &'a [u8] {
        if let Some(unknown) = &self.unknown {
            return &unknown[..case.scan.grid.voxels()];
        }
        // Every case here has this annotation: whoever chose them refused others.
        case.annotations.get(&self.plan.annotation).map_or(&[][..], Vec::as_slice)
    }

    /// The masks beside the samples: `[N, H, W]` u8.
    pub(super) fn masks(
        &self,
        shapes: &Shapes,
        step: u64,
        positions: Range<usize>,
    ) -> Result<Tensor> {
        self.labels(positions, |position, out| {
            let key = self.order().shapes(step, position);
            shapes.fill(key, &self.transform(step, position), self.size(), out);
        })
    }

    /// Labels `[N, H, W]` u8, written for one position of the global batch after the other.
    fn labels(
        &self,
        positions: Range<usize>,
        mut fill: impl FnMut(usize, &mut [u8]),
    ) -> Result<Tensor> {
        let size = self.size();
        let extents = [positions.len(), size, size].map(|extent| extent as i64);
        let labels = Tensor::empty(extents, (Kind::Uint8, Device::Cpu));
        with_slice_mut(&labels, |all: &mut [u8]| {
            for (position, out) in positions.zip(all.chunks_exact_mut(size * size)) {
                fill(position, out);
            }
        })?;
        Ok(labels)
    }

    /// How slices come to the size of samples where nothing else happens to them.
    pub(super) fn still(&self) -> Transform {
        let LoaderPlan { augment: resample, sampling, .. } = self.plan;
        Transform { resample, draw: Draw::Keep, fit: sampling.fit() }
    }

    /// What happens to the sample at `position` of the global batch, and to the mask beside it.
    pub(super) fn transform(&self, step: u64, position: usize) -> Transform {
        let draws = &mut self.order().augmentation(step, position).draws();
        Transform { draw: self.plan.augment.draw(draws), ..self.still() }
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
        self.recipe.items.slices().len()
    }

    /// This rank's part of work on all of them.
    pub fn own_slices(&self) -> Range<usize> {
        self.recipe.share(&(0..self.recipe.items.slices().len()))
    }

    /// How slices come to the size of samples.
    pub fn fit(&self) -> Fit {
        self.recipe.plan.sampling.fit()
    }

    /// Training slice `slice` as a sample without any augmentation: `[1, C, H, W]` f32.
    pub fn input(&self, slice: usize) -> Tensor {
        let (case, slice) = self.recipe.case(slice);
        let (size, is_in_colour) = (self.recipe.size(), self.recipe.dataset.is_in_colour());
        let image = fitted_slice(&case.scan, slice, (size, self.fit()), is_in_colour);
        Tensor::from_slice(&image).view([1, case.scan.channels as i64, size as i64, size as i64])
    }

    /// Labels of slices as they are stored, turned and brought to size as the samples of the batch were:
    /// `[N, H, W]` u8. `codes` gives those of a training slice, where 0 stands for nothing; that is
    /// also what lies outside.
    pub fn place<'a>(&self, codes: impl Fn(usize) -> &'a [u8]) -> Result<Tensor> {
        let (recipe, size) = (&self.recipe, self.recipe.size());
        let mut unread = vec![0.0; size * size];
        let first = self.positions.start;
        recipe.labels(self.positions.clone(), |position, out| {
            let slice = self.slices[position - first];
            let source = recipe.annotated(slice);
            let image = &source.image[..source.shape.iter().product()];
            let source = Slice { image, annotation: codes(slice), outside: 0, ..source };
            let mut sample = Sample { shape: [size; 2], image: &mut unread, annotation: out };
            recipe.transform(self.step, position).apply(&source, &mut sample);
        })
    }
}
