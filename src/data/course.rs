//! Which slices a run sees at which step and what happens to them: everything that a batch depends on.
//!
//! A pure function of the plan, the data set and the step. Knows no methods, no threads and no
//! communicator: rank and ranks come as two numbers.

use super::augment::transfer::{TransferDraw, resize_planes};
use super::augment::{Draw, Resample, Sample, Slice, apply, zoom_labels};
use super::batch::Samples;
use super::order::{Epochs, Order};
use super::shapes::Shapes;
use super::table::Layout;
use super::{Case, DENSE, Dataset, IGNORE, IMAGE_LABEL};
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
    /// Puts as many healthy images beside the diseased ones: cases with image-level labels alone are
    /// trained on, and those of the two classes are drawn independently.
    pub with_healthy: bool,
    /// The label of what a rotation brings in from outside, where the slice has such pixels.
    pub outside: u8,
    /// The seed of the run.
    pub seed: u64,
}

/// The slices that `annotation` is learned from, as index of the case and slice: those of all cases that
/// `fold` does not hold out and that have more than dense labels. Cases with nothing else are there to be
/// scored, unless it is these labels that are learned from.
pub fn training_slices(dataset: &Dataset, fold: u32, annotation: &str) -> Vec<(usize, usize)> {
    let is_for_scores = |case: &Case| {
        annotation != DENSE && case.annotations.keys().all(|kind| kind.as_str() == DENSE)
    };
    let cases = kept(dataset, fold).filter(|(_, case)| !is_for_scores(case));
    cases
        .flat_map(|(index, case)| (0..case.scan.grid.shape[0]).map(move |slice| (index, slice)))
        .collect()
}

/// The cases that `fold` does not hold out, with their indices.
fn kept(dataset: &Dataset, fold: u32) -> impl Iterator<Item = (usize, &Case)> {
    let cases = dataset.cases.iter().enumerate();
    cases.filter(move |(_, case)| fold == 0 || case.fold != fold)
}

/// The same slices. Refuses a fold that no case has or that leaves nothing to train on, a case without
/// the annotation, and annotation that shows no two classes.
pub(super) fn annotated_slices(
    dataset: &Dataset,
    fold: u32,
    annotation: &str,
) -> Result<Vec<(usize, usize)>> {
    refuse_set(dataset, fold)?;
    let slices = training_slices(dataset, fold, annotation);
    refuse_without(slices.iter().map(|(index, _)| &dataset.cases[*index]), annotation)?;
    if slices.is_empty() {
        refuse_without(kept(dataset, fold).map(|(_, case)| case), annotation)?;
        return Err(Failure::usage(format!(
            "fold {fold} holds out every case of `{}`, expected some to train on",
            dataset.name
        ))
        .hint("set `data.fold` to another fold, or pack more cases"));
    }
    refuse_untold(dataset, &slices, annotation)?;
    Ok(slices)
}

/// Refuses a data set without cases or with nothing to tell apart, with images of different channels, and
/// a fold that no case has.
fn refuse_set(dataset: &Dataset, fold: u32) -> Result<()> {
    let name = &dataset.name;
    let Some(first) = dataset.cases.first() else {
        return Err(Failure::usage(format!("`{name}` has no cases")));
    };
    if dataset.classes.len() < 2 {
        return Err(Failure::usage(format!(
            "`{name}` has {} classes, expected the background and at least one other",
            dataset.classes.len()
        ))
        .hint("pack it again with the names of all classes"));
    }
    if let Some(case) = dataset.cases.iter().find(|case| case.scan.channels != first.scan.channels)
    {
        return Err(Failure::usage(format!(
            "case `{}` of `{name}` has images of {} channels and case `{}` of {}, expected the same",
            first.name, first.scan.channels, case.name, case.scan.channels
        ))
        .hint("pack grey images and coloured ones apart"));
    }
    if fold != 0 {
        dataset.held_out(fold)?;
    }
    Ok(())
}

/// Refuses slices of which nothing is annotated, or only one class: nothing can be learnt of them.
fn refuse_untold(dataset: &Dataset, slices: &[(usize, usize)], annotation: &str) -> Result<()> {
    let mut is_shown = [false; 256];
    for &(case, slice) in slices {
        let labels = dataset.cases[case].annotation_slice(annotation, slice).unwrap_or_default();
        for &label in labels {
            is_shown[usize::from(label)] = true;
        }
    }
    is_shown[usize::from(IGNORE)] = false;
    let mut shown = dataset.classes.iter().zip(is_shown).filter(|(_, is_shown)| *is_shown);
    let count = slices.len();
    let message = match (shown.next(), shown.next()) {
        (Some(_), Some(_)) => return Ok(()),
        (None, _) => format!("no pixel of `{annotation}` is annotated in {count} training slices"),
        (Some((class, _)), None) => format!(
            "`{annotation}` shows nothing but `{class}` in {count} training slices, expected at least \
             two classes"
        ),
    };
    Err(Failure::usage(message).hint(
        "look whether the labels were packed with the right values for classes and for unlabelled pixels",
    ))
}

/// The same slices of diseased and of healthy images, as image-level labels tell them apart. Cases
/// without such labels are left out: they are there to be scored. Refuses a data set that lacks
/// either class, and diseased cases without the annotation.
pub(super) fn labelled_slices(
    dataset: &Dataset,
    fold: u32,
    annotation: &str,
) -> Result<[Vec<(usize, usize)>; 2]> {
    refuse_set(dataset, fold)?;
    let label = |&(case, slice): &(usize, usize)| {
        dataset.cases[case].annotation_slice(IMAGE_LABEL, slice)?.first().copied()
    };
    let slices = training_slices(dataset, fold, annotation);
    let of = |class: u8| -> Vec<_> {
        slices.iter().copied().filter(|slice| label(slice) == Some(class)).collect()
    };
    let found = [of(1), of(0)];
    for (slices, class) in found.iter().zip(["diseased", "healthy"]) {
        if slices.is_empty() {
            return Err(Failure::usage(format!(
                "`{}` has no {class} images to train on: none that is not held out and whose \
                 `{IMAGE_LABEL}` says so",
                dataset.name
            ))
            .hint("pack one with `scrimp prepare label-transfer`, `brats` or `lesion-phantom`"));
        }
    }
    let lacking = found[0].iter().map(|(case, _)| &dataset.cases[*case]);
    refuse_without(lacking, annotation)?;
    Ok(found)
}

fn refuse_without<'a>(mut cases: impl Iterator<Item = &'a Case>, annotation: &str) -> Result<()> {
    let Some(case) = cases.find(|case| !case.annotations.contains_key(annotation)) else {
        return Ok(());
    };
    let known: Vec<&str> = case.annotations.keys().map(String::as_str).collect();
    let message = format!("case `{}` has no annotation `{annotation}`, only {known:?}", case.name);
    Err(Failure::usage(message).hint("set `data.annotation` to one of these"))
}

/// Everything that a batch depends on beside its step, on one rank.
#[derive(Debug, Clone)]
pub(super) struct Course {
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
    pub(super) healthy: Option<Arc<Course>>,
    /// Where the slices lie on a device; none where batches are made on the host.
    pub(super) layout: Option<Arc<Layout>>,
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
        course: &Arc<Course>,
        step: u64,
        global: &[usize],
        positions: Range<usize>,
    ) -> Self {
        let slices = global[positions.clone()].to_vec();
        Self { course: Arc::clone(course), step, positions, slices }
    }

    /// How many slices are trained on.
    pub fn slice_count(&self) -> usize {
        self.course.slices.len()
    }

    /// This rank's part of work on all of them.
    pub fn own_slices(&self) -> Range<usize> {
        self.course.share(&(0..self.course.slices.len()))
    }

    /// Training slice `slice` resized without any augmentation: `[1, C, H, W]` f32.
    pub fn input(&self, slice: usize) -> Tensor {
        let (case, slice) = self.course.case(slice);
        let size = self.course.plan.size;
        let image = case.input_slice(slice, size);
        Tensor::from_slice(&image).view([1, case.scan.channels as i64, size as i64, size as i64])
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
            let image = &source.image[..source.shape.iter().product()];
            let source = Slice { image, annotation: codes(slice), outside: 0, ..source };
            let mut sample = Sample { shape: [size; 2], image: &mut unread, annotation: out };
            apply(course.plan.augment, course.draw(self.step, position), &source, &mut sample);
        })
    }
}
