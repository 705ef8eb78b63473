//! The training slices of a recipe on a device, and batches that are made there.
//!
//! A table says where the pixels of all samples lie; a few tensor operations over all of them at once
//! add, round and gather. They are the operations of `augment`, each rounded by itself and in the
//! same order, so that the batches are the same. Knows no steps, no draws and no threads.

use super::IGNORE;
use super::augment::Resample;
use super::recipe::BatchRecipe;
use super::table::{Column, Table};
use crate::error::{Context, Result};
use tch::kind::Element;
use tch::{Device, Kind, Tensor};

/// Flat tensors of all slices, in the order of the layout that the recipe got.
#[derive(Debug)]
pub(super) struct Resident {
    device: Device,
    resample: Resample,
    /// Slices, channels, rows, columns: f32.
    images: Tensor,
    /// Slices, rows, columns: u8.
    labels: Tensor,
    /// Volumes, slices, rows, columns: u8.
    masks: Option<Tensor>,
    /// Whether nothing may be said of the images.
    is_unknown: bool,
}

/// The tensors of a part of a batch, on the device.
#[derive(Debug)]
pub(super) struct Gathered {
    /// `[N, C, H, W]` f32.
    pub(super) image: Tensor,
    /// `[N, H, W]` u8.
    pub(super) annotation: Tensor,
    /// `[N, H, W]` u8, where there are masks.
    pub(super) masks: Option<Tensor>,
}

/// Bytes of the slices of a recipe and of the masks beside them.
pub(super) fn bytes(recipe: &BatchRecipe) -> u64 {
    let slices = (0..recipe.items.slices().len()).map(|number| {
        let slice = recipe.annotated(number);
        size_of_val(slice.image) + size_of_val(slice.annotation)
    });
    let masks = recipe.shapes.iter().flat_map(|shapes| shapes.volumes());
    (slices.sum::<usize>() + masks.map(|volume| volume.labels.len()).sum::<usize>()) as u64
}

impl Resident {
    /// Copies everything to `device`, as a [`super::table::Layout`] of the same recipe says. Fails where
    /// the device has too little memory.
    pub(super) fn new(recipe: &BatchRecipe, device: Device) -> Result<Self> {
        let slices = || (0..recipe.items.slices().len()).map(|number| recipe.annotated(number));
        let masks = recipe.shapes.as_ref().map(|shapes| {
            let volumes = shapes.volumes().iter().map(|volume| &*volume.labels);
            joined(&volumes.collect::<Vec<_>>(), device)
        });
        Ok(Self {
            device,
            resample: recipe.plan.augment,
            images: joined(&slices().map(|slice| slice.image).collect::<Vec<_>>(), device)?,
            labels: joined(&slices().map(|slice| slice.annotation).collect::<Vec<_>>(), device)?,
            masks: masks.transpose()?,
            is_unknown: recipe.unknown.is_some(),
        })
    }

    /// Makes what a table of the same recipe describes. The device may still be at work on it.
    pub(super) fn gather(&self, table: &Table) -> Gathered {
        let numbers = table.numbers.to_device_(self.device, Kind::Double, true, false);
        let count = table.samples as i64;
        let lines = |first| Lines {
            numbers: numbers.narrow(0, first, count),
            count,
            size: table.size as i64,
        };
        let (image, mut annotation) = match self.resample {
            Resample::Reference | Resample::None => self.taken(&lines(0), &lines(0).nearest()),
            Resample::FullRotation | Resample::Flips | Resample::Mild => {
                self.taken(&lines(0), &lines(0).nearest_of_full_rotations())
            }
            Resample::Bilinear => lines(0).blended(&self.images, &self.labels),
        };
        if self.is_unknown {
            let _ = annotation.fill_(i64::from(IGNORE));
        }
        let masks = self.masks.as_ref().map(|masks| {
            let lines = lines(count);
            lines.labels(&lines.nearest(), masks)
        });
        Gathered { image, annotation, masks }
    }
}

impl Resident {
    /// Pixels as they are: images `[N, C, H, W]` f32 and labels `[N, H, W]` u8.
    fn taken(&self, lines: &Lines, nearest: &Nearest) -> (Tensor, Tensor) {
        let mut image = self.images.take(&lines.in_planes(&nearest.offset));
        let _ = image.masked_fill_(&nearest.is_outside.unsqueeze(1), 0.0);
        (image, lines.labels(nearest, &self.labels))
    }
}

/// One tensor of all parts, one after the other.
fn joined<T: Element>(parts: &[&[T]], device: Device) -> Result<Tensor> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let whole = Tensor::f_empty([length as i64], (T::KIND, device))
        .context(|| format!("cannot hold {length} values of the data set on the device"))?;
    let mut start = 0;
    for part in parts {
        whole.narrow(0, start, part.len() as i64).copy_(&Tensor::from_slice(part));
        start += part.len() as i64;
    }
    Ok(whole)
}

/// The rows of a table that are for samples, or those that are for masks, on the device.
struct Lines {
    /// `[N, columns]` f64.
    numbers: Tensor,
    count: i64,
    size: i64,
}

/// The pixels that are taken as they are.
struct Nearest {
    /// From the first element of the turned slice, any where there is none: `[N, H, W]` i64.
    offset: Tensor,
    /// Where there is none: `[N, H, W]`.
    is_outside: Tensor,
    /// The label there: u8, to be broadcast to `[N, H, W]`.
    label_outside: Tensor,
}

impl Lines {
    /// Coordinates of each pixel along rows and columns of its turned slice: `[2, N, H, W]` f64.
    fn coordinates(&self) -> Tensor {
        let lines = self.numbers.narrow(1, 0, 4 * self.size);
        let lines = lines.view([self.count, 2, self.size, 2]).permute([1, 3, 0, 2]);
        lines.get(0).unsqueeze(-1) + lines.get(1).unsqueeze(-2)
    }

    /// So many columns of the table from `first`: `[count, N, 1, 1]` f64.
    fn columns(&self, first: Column, count: i64) -> Tensor {
        let columns = self.numbers.narrow(1, 4 * self.size + first as i64, count);
        columns.tr().unsqueeze(-1).unsqueeze(-1)
    }

    /// Elements along rows and columns of turned slices, `[.., 2, N, H, W]`, as offsets along each.
    fn offsets(&self, elements: &Tensor) -> Tensor {
        elements.to_kind(Kind::Int64) * self.columns(Column::Steps, 2).to_kind(Kind::Int64)
    }

    /// Offsets `[.., N, H, W]` in all planes, `[.., N, C, H, W]`.
    fn in_planes(&self, offsets: &Tensor) -> Tensor {
        let channels = self.numbers.size()[1] - 4 * self.size - Column::Planes as i64;
        let planes = self.columns(Column::Planes, channels).transpose(0, 1);
        offsets.unsqueeze(-3) + planes.to_kind(Kind::Int64)
    }

    /// Labels `[N, H, W]` u8 out of all.
    fn labels(&self, nearest: &Nearest, labels: &Tensor) -> Tensor {
        let first = self.columns(Column::Labels, 1).to_kind(Kind::Int64).get(0);
        let found = labels.take(&(&nearest.offset + first));
        nearest.label_outside.where_self(&nearest.is_outside, &found)
    }

    fn label_outside(&self) -> Tensor {
        self.columns(Column::Outside, 1).to_kind(Kind::Uint8).get(0)
    }

    /// By the arithmetic of `augment::reference`: lines without a source get label 0.
    fn nearest(&self) -> Nearest {
        self.nearest_to(&self.coordinates())
    }

    /// By that of `augment::full_rotation`, which rounds before it asks what lies outside.
    fn nearest_of_full_rotations(&self) -> Nearest {
        self.nearest_to(&self.coordinates().round())
    }

    fn nearest_to(&self, at: &Tensor) -> Nearest {
        let inside = at.clamp_min(0.0).minimum(&self.columns(Column::Last, 2));
        let offsets = self.offsets(&(&inside + 0.5));
        let is_missing = at.get(0).isneginf();
        Nearest {
            offset: offsets.get(0) + offsets.get(1),
            is_outside: inside.ne_tensor(at).any_dim(0, false),
            label_outside: self.label_outside() * is_missing.logical_not(),
        }
    }

    /// By the arithmetic of `augment::bilinear`: images `[N, C, H, W]` f32 and labels `[N, H, W]` u8.
    fn blended(&self, images: &Tensor, labels: &Tensor) -> (Tensor, Tensor) {
        let is_single = self.columns(Column::IsSingle, 1).ne(0.0);
        let rounded = |numbers: Tensor| {
            let single = numbers.to_kind(Kind::Float).to_kind(Kind::Double);
            single.where_self(&is_single, &numbers)
        };
        let last = self.columns(Column::Last, 2);
        let at = rounded(self.coordinates());
        let is_outside = at.lt(-0.5).logical_or(&at.ge_tensor(&(&last + 0.5))).any_dim(0, false);
        let inside = at.clamp_min(0.0).minimum(&last);
        let nearest = self.offsets(&rounded(&inside + 0.5));
        let before = inside.floor();
        let after = (&before + 1.0).minimum(&last);
        // What lies between the two, along rows and columns: `[2, N, 1, H, W]`.
        let share = (inside - &before).to_kind(Kind::Float).unsqueeze(2);
        // Before and after, along rows and columns: `[2, 2, N, H, W]`.
        let ends = self.offsets(&Tensor::stack(&[before, after], 0));
        let corners = ends.select(1, 0).unsqueeze(1) + ends.select(1, 1).unsqueeze(0);
        let pixels = images.take(&self.in_planes(&corners));
        let left = pixels.select(1, 0);
        let lines = &left + share.get(1) * (pixels.select(1, 1) - &left);
        let above = lines.get(0);
        let mut image = &above + share.get(0) * (lines.get(1) - &above);
        let _ = image.masked_fill_(&is_outside.unsqueeze(1), 0.0);
        let offset = nearest.get(0) + nearest.get(1);
        let nearest = Nearest { offset, is_outside, label_outside: self.label_outside() };
        (image, self.labels(&nearest, labels))
    }
}
