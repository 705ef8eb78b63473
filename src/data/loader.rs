//! From a data set in memory to the batches of a rank, prepared ahead of time on one thread.
//!
//! Each batch is a pure function of its step; preparing ahead changes nothing but the waiting.
//! Knows no methods and no communicator: rank and ranks come as two numbers.

use super::augment::{Draw, Resample, Sample, Slice, apply};
use super::batch::{Batch, Samples};
use super::order::Order;
use super::shapes::Shapes;
use super::{Dataset, IGNORE};
use crate::config::plan::local_share;
use crate::error::{Context, Failure, Result};
use crate::native::with_slice_mut;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
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
    /// The seed of the run.
    pub seed: u64,
}

/// Batches prepared and not yet asked for. Two hide one slow batch, and cost little memory.
const AHEAD: usize = 2;

/// The batches of one rank.
pub struct Loader {
    course: Arc<Course>,
    /// What is being prepared, from the step after the last one asked for.
    ahead: Option<Receiver<(u64, Result<Batch>)>>,
}

impl Loader {
    /// Refuses a held-out fold that no case has or that leaves nothing to train on, an annotation
    /// that a training case lacks, and more ranks than a batch has samples.
    pub fn new(
        dataset: &Arc<Dataset>,
        plan: LoaderPlan,
        rank: usize,
        ranks: usize,
    ) -> Result<Self> {
        let slices = training_slices(dataset, &plan)?;
        if plan.batch_size < ranks.max(1) {
            return Err(Failure::usage(format!(
                "a batch of {} cannot be split over {ranks} ranks, expected at least one sample for each",
                plan.batch_size
            ))
            .hint(format!("set `train.batch_size` to {ranks} or more, or start fewer ranks")));
        }
        if plan.drop_last && slices.len() < plan.batch_size {
            return Err(Failure::usage(format!(
                "there is no full batch of {} in {} training slices",
                plan.batch_size,
                slices.len()
            ))
            .hint("set a smaller `train.batch_size`"));
        }
        let order = Order {
            slice_count: slices.len(),
            batch_size: plan.batch_size,
            drop_last: plan.drop_last,
            seed: plan.seed,
        };
        let dataset = Arc::clone(dataset);
        let course = Course { dataset, slices, plan, order, rank, ranks, shapes: None };
        Ok(Self { course: Arc::new(course), ahead: None })
    }

    /// Puts a mask of `shapes` beside every sample, see [`Batch::shapes`].
    #[must_use]
    pub fn with_shapes(self, shapes: Shapes) -> Self {
        let shapes = Some(Arc::new(shapes));
        let course = Course { shapes, ..Arc::unwrap_or_clone(self.course) };
        Self { course: Arc::new(course), ahead: None }
    }

    /// The order of the samples.
    pub fn order(&self) -> Order {
        self.course.order
    }

    /// Where the samples of the batch of `step` over all ranks come from: `CASE:SLICE`.
    pub fn slices(&self, step: u64) -> Vec<String> {
        let Course { dataset, slices, order, .. } = &*self.course;
        let name = |index: usize| {
            let (case, slice) = slices[index];
            format!("{}:{slice}", dataset.cases[case].name)
        };
        order.batch(step).into_iter().map(name).collect()
    }

    /// This rank's part of the batch of `step`, counted from 1. Steps asked for in order are
    /// ready; any other step works too, and preparing goes on from there.
    pub fn batch(&mut self, step: u64) -> Result<Batch> {
        let ready = self.ahead.as_ref().and_then(|ahead| ahead.recv().ok());
        if let Some((prepared, batch)) = ready
            && prepared == step
        {
            return batch;
        }
        let batch = self.course.batch(step)?;
        self.ahead = Some(prepare_from(&self.course, step + 1)?);
        Ok(batch)
    }
}

/// Prepares `first` and the steps after it until nobody receives them any more.
fn prepare_from(course: &Arc<Course>, first: u64) -> Result<Receiver<(u64, Result<Batch>)>> {
    let (sender, receiver) = sync_channel(AHEAD);
    let course = Arc::clone(course);
    std::thread::Builder::new()
        .name("loader".into())
        .spawn(move || {
            let mut step = first;
            while sender.send((step, course.batch(step))).is_ok() {
                step += 1;
            }
        })
        .context(|| "cannot start the thread that prepares batches")?;
    Ok(receiver)
}

/// The slices of all cases that are not held out, as index of the case and slice.
fn training_slices(dataset: &Dataset, plan: &LoaderPlan) -> Result<Vec<(usize, usize)>> {
    if plan.fold != 0 {
        dataset.held_out(plan.fold)?;
    }
    let mut slices = Vec::new();
    for (index, case) in dataset.cases.iter().enumerate() {
        if plan.fold != 0 && case.fold == plan.fold {
            continue;
        }
        if !case.annotations.contains_key(&plan.annotation) {
            let known: Vec<&str> = case.annotations.keys().map(String::as_str).collect();
            return Err(Failure::usage(format!(
                "case `{}` has no annotation `{}`, only {known:?}",
                case.name, plan.annotation
            ))
            .hint("set `data.annotation` to one of these"));
        }
        slices.extend((0..case.shape[0]).map(|slice| (index, slice)));
    }
    if slices.is_empty() {
        return Err(Failure::usage(format!(
            "fold {} holds out every case of `{}`, expected some to train on",
            plan.fold, dataset.name
        ))
        .hint("set `data.fold` to another fold, or pack more cases"));
    }
    Ok(slices)
}

/// Everything that a batch depends on beside its step.
#[derive(Clone)]
struct Course {
    dataset: Arc<Dataset>,
    slices: Vec<(usize, usize)>,
    plan: LoaderPlan,
    order: Order,
    rank: usize,
    ranks: usize,
    shapes: Option<Arc<Shapes>>,
}

impl Course {
    fn batch(&self, step: u64) -> Result<Batch> {
        let global = self.order.batch(step);
        let mine = local_share(global.len(), self.ranks, self.rank);
        let (count, size) = (mine.len() as i64, self.plan.size as i64);
        let image = Tensor::empty([count, 1, size, size], (Kind::Float, Device::Cpu));
        let annotation = Tensor::empty([count, size, size], (Kind::Uint8, Device::Cpu));
        // Straight into the memory of the tensors: copies would cost as much as the resampling.
        with_slice_mut(&image, |images: &mut [f32]| {
            with_slice_mut(&annotation, |labels: &mut [u8]| {
                self.fill_all(step, &global, mine.clone(), (images, labels));
            })
        })??;
        let main = Samples {
            image,
            annotation,
            cases: mine.clone().map(|position| self.slices[global[position]]).collect(),
            positions: mine.clone().map(|position| position as u64).collect(),
        };
        let batch = Batch::new(main, global.len());
        let Some(shapes) = &self.shapes else { return Ok(batch) };
        Ok(batch.with_shapes(self.masks(shapes, step, mine)?))
    }

    /// The masks beside the samples: `[N, H, W]` u8.
    fn masks(&self, shapes: &Shapes, step: u64, mine: Range<usize>) -> Result<Tensor> {
        let (size, resample) = (self.plan.size, self.plan.augment);
        let extents = [mine.len(), size, size].map(|extent| extent as i64);
        let masks = Tensor::empty(extents, (Kind::Uint8, Device::Cpu));
        with_slice_mut(&masks, |labels: &mut [u8]| {
            for (position, out) in mine.zip(labels.chunks_exact_mut(size * size)) {
                let transform = (resample, self.draw(step, position));
                shapes.fill(self.order.shapes(step, position), transform, size, out);
            }
        })?;
        Ok(masks)
    }

    fn fill_all(
        &self,
        step: u64,
        global: &[usize],
        mine: Range<usize>,
        (images, labels): (&mut [f32], &mut [u8]),
    ) {
        let pixels = self.plan.size * self.plan.size;
        let outputs = images.chunks_exact_mut(pixels).zip(labels.chunks_exact_mut(pixels));
        for (position, (image, annotation)) in mine.zip(outputs) {
            let mut sample = Sample { shape: [self.plan.size; 2], image, annotation };
            self.fill(step, position, self.slices[global[position]], &mut sample);
        }
    }

    fn fill(&self, step: u64, position: usize, source: (usize, usize), sample: &mut Sample<'_>) {
        let (case, slice) = (&self.dataset.cases[source.0], source.1);
        // Every training case has this annotation: `training_slices` refuses others.
        let annotation = case.annotation_slice(&self.plan.annotation, slice).unwrap_or_default();
        let slice = Slice {
            shape: [case.shape[1], case.shape[2]],
            image: case.image_slice(slice),
            annotation,
            ignore: IGNORE,
        };
        apply(self.plan.augment, self.draw(step, position), &slice, sample);
    }

    /// What happens to the sample at `position` of the global batch, and to the mask beside it.
    fn draw(&self, step: u64, position: usize) -> Draw {
        Draw::sample(&mut self.order.augmentation(step, position).draws())
    }
}
