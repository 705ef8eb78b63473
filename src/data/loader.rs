//! From a data set in memory to the batches of a rank, prepared ahead of time on threads of their own.
//!
//! Each batch is a pure function of its step; preparing ahead changes nothing but the waiting.
//! Knows no methods and no communicator: rank and ranks come as two numbers.

use super::augment::Resample;
use super::batch::Batch;
use super::items::Items;
use super::order::{Epochs, Order};
use super::patches::Patches;
use super::recipe::{BatchRecipe, Origin};
use super::resident::{self, Resident};
use super::shapes::Shapes;
use super::stream::{SHAPES, Select, StreamSpec, by_image_label, image_streams, lacks_classes};
use super::stream_slices::stream_slices;
use super::table::{Layout, Table};
use super::{Dataset, IGNORE};
use crate::config::sampling::{Fit, Sampling};
use crate::error::{Context, Failure, Result};
use crate::random::Key;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use tch::Device;

pub use super::recipe::LoaderPlan;

/// Batches that a thread has prepared and that nobody has asked for yet. Two hide one slow batch, and
/// cost little memory.
const AHEAD: usize = 2;

/// The batches of one rank.
pub struct Loader {
    recipe: Arc<BatchRecipe>,
    threads: usize,
    made_on: MadeOn,
    /// What is being prepared, from the step after the last one asked for.
    ahead: Option<Ahead>,
}

/// Where batches are made.
enum MadeOn {
    Host,
    /// Of each stream of images, in the order of the recipes.
    Device {
        /// Where the slices lie there.
        layouts: Arc<[Layout]>,
        residents: Vec<Resident>,
    },
}

impl MadeOn {
    fn layouts(&self) -> Option<&Arc<[Layout]>> {
        match self {
            Self::Host => None,
            Self::Device { layouts, .. } => Some(layouts),
        }
    }
}

/// A batch in parts, with its step.
type Prepared = (u64, Result<Vec<PreparedPart>>);

/// A micro-batch as a thread prepares it.
enum PreparedPart {
    /// Made on the host.
    Batch(Batch),
    /// To be gathered on the device.
    Tables {
        /// Of each stream of images, in the order of the recipes, with the slices of its global batch.
        tables: Vec<(Table, Arc<[usize]>)>,
        /// The positions of the part in it, on all ranks.
        positions: Range<usize>,
    },
}

/// What is being prepared. Thread `i` of `n` prepares every `n`-th step.
struct Ahead {
    threads: Vec<Receiver<Prepared>>,
    taken: usize,
}

impl Ahead {
    /// Prepares `first` and the steps after it until nobody receives them any more.
    fn from(
        recipe: &Arc<BatchRecipe>,
        layouts: Option<&Arc<[Layout]>>,
        first: u64,
        threads: usize,
    ) -> Result<Self> {
        let steps = |first| (first..).step_by(threads);
        let threads = (first..first + threads as u64)
            .map(|first| prepare_all(Arc::clone(recipe), layouts.cloned(), steps(first)));
        Ok(Self { threads: threads.collect::<Result<_>>()?, taken: 0 })
    }

    /// The next batch in the order of steps.
    fn next(&mut self) -> Option<Prepared> {
        let thread = self.taken % self.threads.len().max(1);
        self.taken += 1;
        self.threads.get(thread)?.recv().ok()
    }
}

impl Loader {
    /// Refuses a held-out fold that no case has or that leaves nothing to train on, an annotation
    /// that a training case lacks or that shows no two classes, images of different channels, and more
    /// ranks than a batch has samples.
    pub fn new(
        dataset: &Arc<Dataset>,
        plan: LoaderPlan,
        rank: usize,
        ranks: usize,
    ) -> Result<Self> {
        if plan.batch_size < ranks.max(1) {
            return Err(Failure::usage(format!(
                "a batch of {} cannot be split over {ranks} ranks, expected at least one sample for each",
                plan.batch_size
            ))
            .hint(format!("set `train.batch_size` to {ranks} or more, or start fewer ranks")));
        }
        // Full batches where streams differ, so that losses of all count as many images.
        let drop_last = plan.drop_last || image_streams(plan.streams) > 1;
        let plan = LoaderPlan { drop_last, ..plan };
        let slices = stream_slices(dataset, plan.fold, &plan.annotation, plan.streams)?;
        let lacks_classes = lacks_classes(dataset, (plan.fold, &plan.annotation), plan.streams);
        let mut recipes = plan.streams.iter().zip(slices).filter_map(|(stream, slices)| {
            let is_of_images = stream.select != Select::OtherPatients;
            is_of_images.then(|| {
                let own = stream_plan(&plan, stream);
                let recipe = stream_recipe(dataset, (own, stream.select), slices, (rank, ranks))?;
                Ok((stream.name, BatchRecipe { lacks_classes, ..recipe }))
            })
        });
        let main = recipes.next().unwrap_or_else(|| Err(Failure::new("a batch needs samples")))?.1;
        let beside = recipes.map(|recipe| recipe.map(|(name, recipe)| (name, Arc::new(recipe))));
        let beside = beside.collect::<Result<Vec<_>>>()?;
        let recipe = Arc::new(BatchRecipe { beside, ..main });
        Ok(Self { recipe, threads: 1, made_on: MadeOn::Host, ahead: None })
    }

    /// Prepares batches on so many threads, at least 1; which does not change them.
    #[must_use]
    pub fn prepared_by(self, threads: usize) -> Self {
        Self { threads, ahead: None, ..self }
    }

    /// Puts a mask of `shapes` beside every sample as stream [`SHAPES`]. To be called before
    /// [`Loader::resident_on`]: the batches are made on the host afterwards.
    #[must_use]
    pub fn with_shapes(self, shapes: Shapes) -> Self {
        let shapes = Some(Arc::new(shapes));
        let recipe = BatchRecipe { shapes, ..Arc::unwrap_or_clone(self.recipe) };
        Self { recipe: Arc::new(recipe), made_on: MadeOn::Host, ahead: None, ..self }
    }

    /// Copies the training slices and the masks beside them to `device` once, and makes the batches
    /// there: the same ones, as tensors of that device. What threads prepare is then only where each
    /// pixel comes from, and work on the device is not waited for.
    ///
    /// Where they take more than `budget_bytes` or more than there is, the log says so and batches are
    /// made on the host as before; likewise with healthy images beside, whose augmentation
    /// knows the host alone, where intensities vary, and where samples are patches.
    #[must_use]
    pub fn resident_on(self, device: Device, budget_bytes: u64) -> Self {
        if by_image_label(self.recipe.plan.streams) {
            tracing::info!("images are augmented on the host, as label transfer needs it");
            return self;
        }
        if self.recipe.plan.augment == Resample::Mild {
            tracing::info!("intensities are varied on the host");
            return self;
        }
        if let Items::Patches { .. } = &*self.recipe.items {
            tracing::info!("patches are cut on the host");
            return self;
        }
        let bytes = self.resident_bytes();
        if bytes > budget_bytes {
            tracing::warn!(
                "the training slices take {bytes} bytes and may take {budget_bytes} on the device: \
                 batches are made on the host, which is slower"
            );
            return self;
        }
        let recipes = || self.recipe.all();
        match recipes().map(|recipe| Resident::new(recipe, device)).collect::<Result<Vec<_>>>() {
            Ok(residents) => {
                let layouts = recipes().map(|recipe| Layout::new(recipe, device)).collect();
                Self { made_on: MadeOn::Device { layouts, residents }, ahead: None, ..self }
            }
            Err(failure) => {
                let failure = failure.during("batches are made on the host, which is slower");
                tracing::warn!("{failure}");
                self
            }
        }
    }

    /// Bytes that the training slices and the masks beside them take on a device.
    pub fn resident_bytes(&self) -> u64 {
        self.recipe.all().map(resident::bytes).sum()
    }

    /// Whether batches are made on a device, see [`Loader::resident_on`].
    pub fn is_resident(&self) -> bool {
        self.made_on.layouts().is_some()
    }

    /// Cuts every batch into `count` parts, at least 1, of sizes that differ by at most one.
    #[must_use]
    pub fn in_micro_batches(self, count: usize) -> Self {
        let recipe = BatchRecipe { micro_batches: count, ..Arc::unwrap_or_clone(self.recipe) };
        Self { recipe: Arc::new(recipe), ahead: None, ..self }
    }

    /// The order of the samples.
    pub fn order(&self) -> Order {
        self.recipe.order()
    }

    /// Where the samples of the batch of `step` over all ranks come from: `CASE:SLICE`, and for patches
    /// `CASE:SLICE,ROW,COLUMN` of the first voxel.
    pub fn slices(&self, step: u64) -> Vec<String> {
        let BatchRecipe { dataset, items, .. } = &*self.recipe;
        let global = items.batch(step);
        let name = |position: usize| {
            let item = self.recipe.item(step, &global, position);
            let (case, [slice, row, column]) = (&dataset.cases[item.case].name, item.first);
            match &**items {
                Items::Slices { .. } => format!("{case}:{slice}"),
                Items::Patches { .. } => format!("{case}:{slice},{row},{column}"),
            }
        };
        (0..global.len()).map(name).collect()
    }

    /// This rank's part of the batch of `step`, counted from 1, where batches are whole.
    pub fn batch(&mut self, step: u64) -> Result<Batch> {
        let mut parts = self.micro_batches(step)?;
        match (parts.pop(), parts.len()) {
            (Some(batch), 0) => Ok(batch),
            _ => Err(Failure::new("a batch in parts was asked for as a whole")),
        }
    }

    /// This rank's part of every micro-batch of `step`, counted from 1. Steps asked for in order are
    /// ready; any other step works too, and preparing goes on from there.
    pub fn micro_batches(&mut self, step: u64) -> Result<Vec<Batch>> {
        let ready = self.ahead.as_mut().and_then(Ahead::next);
        if let Some((prepared, batch)) = ready
            && prepared == step
        {
            return self.made(step, batch?);
        }
        let layouts = self.made_on.layouts();
        let batch = prepare(&self.recipe, layouts, step)?;
        self.ahead = Some(Ahead::from(&self.recipe, layouts, step + 1, self.threads)?);
        self.made(step, batch)
    }

    /// The batches that `parts` are or describe.
    fn made(&self, step: u64, parts: Vec<PreparedPart>) -> Result<Vec<Batch>> {
        parts.into_iter().map(|part| self.made_part(step, part)).collect()
    }

    fn made_part(&self, step: u64, part: PreparedPart) -> Result<Batch> {
        let (tables, positions) = match part {
            PreparedPart::Batch(batch) => return Ok(batch),
            PreparedPart::Tables { tables, positions } => (tables, positions),
        };
        let MadeOn::Device { residents, .. } = &self.made_on else {
            return Err(Failure::new("there are no slices on the device"));
        };
        let mine = self.recipe.share(&positions);
        let mut made = residents.iter().zip(self.recipe.all()).zip(tables).map(
            |((resident, recipe), (table, global))| {
                let gathered = resident.gather(&table);
                let tensors = (gathered.image, gathered.annotation);
                let samples = recipe.named(tensors, (step, &global), mine.clone());
                (samples, gathered.masks, global)
            },
        );
        let (samples, masks, global) = made.next().ok_or_else(|| Failure::new("no stream"))?;
        let batch = Batch::new(samples, positions.len());
        let batch = batch.with_origin(Origin::new(&self.recipe, step, &global, mine.clone()));
        let names = self.recipe.beside.iter().map(|(name, _)| *name);
        let batch =
            names.zip(made).fold(batch, |batch, (name, (samples, ..))| batch.with(name, samples));
        Ok(match masks {
            Some(masks) => batch.with_masks(SHAPES, masks),
            None => batch,
        })
    }
}

/// The plan of one of the streams of `plan`.
fn stream_plan(plan: &LoaderPlan, stream: &StreamSpec) -> LoaderPlan {
    let annotation = stream.annotation.map_or(plan.annotation.clone(), str::to_owned);
    let own = Key::new(plan.seed).purpose(stream.name).bits();
    let seed = if stream.name == plan.streams[0].name { plan.seed } else { own };
    LoaderPlan { annotation, seed, ..plan.clone() }
}

/// The recipe of a stream that is made of `slices`, for a rank of so many.
fn stream_recipe(
    dataset: &Arc<Dataset>,
    (plan, select): (LoaderPlan, Select),
    slices: Vec<(usize, usize)>,
    (rank, ranks): (usize, usize),
) -> Result<BatchRecipe> {
    let unknown = (select == Select::Unlabelled).then(|| {
        let voxels = slices.iter().map(|(case, _)| dataset.cases[*case].scan.grid.voxels());
        vec![IGNORE; voxels.max().unwrap_or(0)].into()
    });
    Ok(BatchRecipe {
        items: Arc::new(items(dataset, (&plan, select), slices)?),
        dataset: Arc::clone(dataset),
        plan,
        rank,
        ranks,
        micro_batches: 1,
        shapes: None,
        unknown,
        lacks_classes: false,
        beside: Vec::new(),
    })
}

/// This rank's part of every micro-batch of one step.
fn prepare(
    recipe: &Arc<BatchRecipe>,
    layouts: Option<&Arc<[Layout]>>,
    step: u64,
) -> Result<Vec<PreparedPart>> {
    let global: Arc<[usize]> = recipe.items.batch(step).into();
    let parts = recipe.micro_batches(global.len());
    let prepared = parts.map(|positions| {
        let Some(layouts) = layouts else {
            return Ok(PreparedPart::Batch(part(recipe, step, &global, &positions)?));
        };
        let tables = recipe.all().zip(layouts.iter()).map(|(stream, layout)| {
            let global: Arc<[usize]> = stream.items.batch(step).into();
            let mine = recipe.share(&positions);
            Table::new(stream, layout, (step, &global), mine).map(|table| (table, global))
        });
        Ok(PreparedPart::Tables { tables: tables.collect::<Result<_>>()?, positions })
    });
    prepared.collect()
}

/// This rank's part of the samples at `positions` of the batch of `step`, whose slices are `global`, made
/// on the host.
fn part(
    recipe: &Arc<BatchRecipe>,
    step: u64,
    global: &[usize],
    positions: &Range<usize>,
) -> Result<Batch> {
    let mine = recipe.share(positions);
    let samples = recipe.samples(step, global, mine.clone())?;
    let mut batch = Batch::new(samples, positions.len());
    if let Items::Slices { .. } = &*recipe.items {
        batch = batch.with_origin(Origin::new(recipe, step, global, mine.clone()));
    }
    for (name, other) in &recipe.beside {
        let global = other.items.batch(step);
        batch = batch.with(name, other.samples(step, &global, mine.clone())?);
    }
    let Some(shapes) = &recipe.shapes else { return Ok(batch) };
    Ok(batch.with_masks(SHAPES, recipe.masks(shapes, step, mine)?))
}

/// The items of a stream that is made of `slices`. Refuses too few of them for a batch, and more than an
/// order can number.
fn items(
    dataset: &Dataset,
    (plan, select): (&LoaderPlan, Select),
    slices: Vec<(usize, usize)>,
) -> Result<Items> {
    let order = |slice_count| {
        let LoaderPlan { batch_size, drop_last, seed, .. } = *plan;
        Order { slice_count, batch_size, drop_last, seed }
    };
    if by_image_label(plan.streams) && plan.sampling.fit() != Fit::Resize {
        return Err(Failure::usage("label transfer resizes whole images, and parts are asked for")
            .hint("remove `[data.patches]` and `data.fit`"));
    }
    let Sampling::Patches { extent, per_case, foreground_share } = plan.sampling else {
        refuse_count(plan, slices.len(), "slices")?;
        let epochs = Epochs::new(order(slices.len()));
        let cropped_to = match plan.sampling {
            Sampling::Cropped { size } => Some(size),
            _ => None,
        };
        return Ok(Items::Slices { slices, epochs, cropped_to });
    };
    let mut cases: Vec<usize> = slices.into_iter().map(|(case, _)| case).collect();
    cases.dedup();
    let key = Key::new(plan.seed).purpose("annotated voxels");
    let patches = Patches::new(extent, per_case, foreground_share);
    let (patches, voxel) = match select {
        Select::Unlabelled => (patches.of_images(dataset, &cases, key), "voxel that is not 0"),
        _ => (patches.of(dataset, &cases, &plan.annotation, key), "annotated voxel"),
    };
    let without = cases.len() - patches.case_count();
    if without > 0 {
        tracing::warn!("{without} training cases have no {voxel}: nothing is cut from them");
    }
    refuse_count(plan, patches.count(), "patches")?;
    let order = order(patches.count());
    Ok(Items::Patches { patches, order })
}

fn refuse_count(plan: &LoaderPlan, count: usize, items: &str) -> Result<()> {
    if plan.drop_last && count < plan.batch_size {
        return Err(Failure::usage(format!(
            "there is no full batch of {} in {count} training {items}",
            plan.batch_size
        ))
        .hint(if items == "patches" {
            "set a smaller `train.batch_size`, or a larger `data.patches.per_case`"
        } else {
            "set a smaller `train.batch_size`"
        }));
    }
    if u32::try_from(count).is_err() {
        return Err(Failure::usage(format!("{count} training {items} are too many")));
    }
    Ok(())
}

/// Prepares one of `steps` after the other until nobody receives them any more.
fn prepare_all(
    recipe: Arc<BatchRecipe>,
    layouts: Option<Arc<[Layout]>>,
    steps: impl Iterator<Item = u64> + Send + 'static,
) -> Result<Receiver<Prepared>> {
    let (sender, receiver) = sync_channel(AHEAD);
    std::thread::Builder::new()
        .name("loader".into())
        .spawn(move || {
            for step in steps {
                if sender.send((step, prepare(&recipe, layouts.as_ref(), step))).is_err() {
                    return;
                }
            }
        })
        .context(|| "cannot start the thread that prepares batches")?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::import::phantom::{Difficulty, Phantom, generate};
    use crate::data::stream::ANNOTATED;
    use crate::data::{DENSE, SCRIBBLE};
    use crate::scan::Scan;

    /// What is said of a small data set after `change`.
    fn refused(change: impl Fn(&mut Dataset)) -> String {
        let difficulty = Difficulty::Easy;
        let phantom = Phantom { cases: 5, slices: 1, size: 32, difficulty, seed: 3 };
        let mut dataset = generate(&phantom).unwrap();
        change(&mut dataset);
        let plan = LoaderPlan {
            fold: 1,
            annotation: SCRIBBLE.into(),
            batch_size: 2,
            drop_last: false,
            streams: ANNOTATED,
            sampling: Sampling::Slices { size: 32 },
            augment: Resample::None,
            outside: IGNORE,
            seed: 1,
        };
        let Err(failure) = Loader::new(&Arc::new(dataset), plan, 0, 1) else {
            return "nothing".to_owned();
        };
        assert_eq!(failure.exit(), crate::error::Exit::Usage);
        failure.message().to_owned()
    }

    fn relabel(dataset: &mut Dataset, label: impl Fn(u8) -> u8) {
        for case in &mut dataset.cases {
            let labels = case.annotations.get_mut(SCRIBBLE).unwrap();
            for found in labels {
                *found = label(*found);
            }
        }
    }

    #[test]
    fn data_of_which_nothing_can_be_learnt_are_refused() {
        assert_eq!(refused(|_| ()), "nothing");
        assert_eq!(refused(|set| set.cases.clear()), "`phantom` has no cases");
        assert_eq!(
            refused(|set| set.classes.truncate(1)),
            "`phantom` has 1 classes, expected the background and at least one other"
        );
        assert_eq!(
            refused(|set| relabel(set, |_| IGNORE)),
            "no pixel of `scribble` is annotated in 4 training slices"
        );
        assert_eq!(
            refused(|set| relabel(set, |label| if label == 2 { 2 } else { IGNORE })),
            "`scribble` shows nothing but `myocardium` in 4 training slices, expected at least two classes"
        );
        // What is held out is not learnt from.
        let all_but_the_first = |set: &mut Dataset| {
            let labels = set.cases[0].annotations[SCRIBBLE].clone();
            relabel(set, |_| IGNORE);
            set.cases[0].annotations.insert(SCRIBBLE.into(), labels);
        };
        assert!(refused(all_but_the_first).starts_with("no pixel of `scribble`"));
        let coloured = |set: &mut Dataset| {
            let Scan { voxels, channels, .. } = &mut set.cases[2].scan;
            (*voxels, *channels) = (voxels.repeat(3), 3);
        };
        assert_eq!(
            refused(coloured),
            "case `phantom0001` of `phantom` has images of 1 channels and case `phantom0003` of 3, expected the same"
        );
        let without = |set: &mut Dataset| {
            set.cases.iter_mut().for_each(|case| drop(case.annotations.remove(DENSE)));
        };
        assert_eq!(refused(without), "nothing", "whether they can be scored is not asked here");
    }
}
