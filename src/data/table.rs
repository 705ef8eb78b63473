//! Where every pixel of a part of a batch lies on a device, as one table of numbers.
//!
//! Made on the host from what is drawn for each sample; small, so that it is cheap to send. Knows no
//! pixels: what is gathered by a table stands in `resident`.

use super::augment::PixelSources;
use super::recipe::BatchRecipe;
use crate::error::{Context, Result};
use crate::native::with_slice_mut;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// How slices and masks lie one after the other on a device.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    device: Device,
    slices: Vec<Stored>,
    /// The pixels before each volume of masks.
    volumes: Vec<usize>,
}

/// One training slice.
#[derive(Debug, Clone)]
struct Stored {
    /// The pixels before it, those of several channels counted once.
    before: usize,
    shape: [usize; 2],
    /// The label of what lies outside.
    outside: u8,
}

impl Layout {
    /// The slices of `recipe` in order, and the masks beside them.
    pub(super) fn new(recipe: &BatchRecipe, device: Device) -> Self {
        let mut before = 0;
        let slices = (0..recipe.items.slices().len()).map(|number| {
            let slice = recipe.annotated(number);
            let outside = recipe.still().outside_label(&slice);
            let stored = Stored { before, shape: slice.shape, outside };
            before += slice.annotation.len();
            stored
        });
        let slices = slices.collect();
        let mut before = 0;
        let volumes = recipe.shapes.iter().flat_map(|shapes| shapes.volumes()).map(|volume| {
            let start = before;
            before += volume.labels.len();
            start
        });
        Self { device, slices, volumes: volumes.collect() }
    }
}

/// Columns of a table beside the coordinates: those of [`Column::Planes`] are one for each channel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Column {
    /// Last element along rows and columns of the turned slice.
    Last = 0,
    /// How far neighbours along them lie apart.
    Steps = 2,
    /// The first element of the turned slice among all labels.
    Labels = 4,
    /// The label outside.
    Outside = 5,
    /// Whether coordinates are rounded to single precision.
    IsSingle = 6,
    /// The first element of the turned slice in each plane, among all intensities.
    Planes = 7,
}

/// A part of a batch that is to be gathered.
#[derive(Debug)]
pub(super) struct Table {
    /// `[N, columns]` f64 on the host, or twice as many rows: those of the samples, then those of the
    /// masks. Two coordinates for each row of a sample and two for each of its columns come first, then
    /// what [`Column`] names. Whole numbers in it are exact: there are fewer than 2^53 pixels.
    pub(super) numbers: Tensor,
    /// Samples, `N`.
    pub(super) samples: usize,
    /// Rows and columns of a sample.
    pub(super) size: usize,
}

impl Table {
    /// The table of the samples at positions `mine` of the batch of `step`, whose slices are `global`.
    pub(super) fn new(
        recipe: &BatchRecipe,
        layout: &Layout,
        (step, global): (u64, &[usize]),
        mine: Range<usize>,
    ) -> Result<Self> {
        let (size, samples, channels) = (recipe.size(), mine.len(), recipe.dataset.channels());
        let width = 4 * size + Column::Planes as usize + channels;
        let rows = samples * (1 + usize::from(recipe.shapes.is_some()));
        let numbers = Tensor::zeros([rows as i64, width as i64], (Kind::Double, Device::Cpu));
        with_slice_mut(&numbers, |numbers: &mut [f64]| {
            let (own, masks) = numbers.split_at_mut(samples * width);
            for (position, row) in mine.clone().zip(own.chunks_exact_mut(width)) {
                let stored = &layout.slices[global[position]];
                let sources = recipe.transform(step, position).sources(stored.shape, size);
                fill(row, &sources, stored.before, stored.outside);
                let pixels: usize = stored.shape.iter().product();
                let planes = &mut row[4 * size + Column::Planes as usize..];
                for (channel, plane) in planes.iter_mut().enumerate() {
                    *plane = (stored.before * channels + pixels * channel + sources.first) as f64;
                }
            }
            let Some(shapes) = &recipe.shapes else { return };
            for (position, row) in mine.zip(masks.chunks_exact_mut(width)) {
                let (volume, slice) = shapes.drawn(recipe.order().shapes(step, position));
                let [_, rows, columns] = shapes.volumes()[volume].shape;
                let sources = recipe.transform(step, position).mask_sources([rows, columns], size);
                fill(row, &sources, layout.volumes[volume] + slice * rows * columns, 0);
            }
        })?;
        Ok(Self { numbers: pinned(numbers, layout.device)?, samples, size })
    }
}

/// Writes all of a row but its planes.
fn fill(row: &mut [f64], sources: &PixelSources, before: usize, outside: u8) {
    let coordinates = sources.rows.iter().chain(&sources.columns).flatten();
    let numbers = sources.last.map(|last| last as f64).into_iter();
    let numbers = numbers.chain(sources.steps.map(|step| step as f64));
    let labels = (before + sources.first) as f64;
    let numbers = numbers.chain([labels, f64::from(outside), f64::from(sources.is_single)]);
    for (place, number) in row.iter_mut().zip(coordinates.copied().chain(numbers)) {
        *place = number;
    }
}

/// The same numbers where a GPU fetches them by itself, so that nobody waits for it.
fn pinned(numbers: Tensor, device: Device) -> Result<Tensor> {
    if !device.is_cuda() {
        return Ok(numbers);
    }
    // `Tensor::pin_memory` warns about its argument on every call.
    numbers.f_internal_pin_memory(device).context(|| "cannot get memory that the GPU can fetch")
}
