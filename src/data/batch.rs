//! What a training step and an evaluation get to see, as tensors.
//!
//! A [`Batch`] holds the annotation that the plan names and nothing else: a method cannot look at
//! the dense truth unless it is told to learn from it. Masks beside it are of other patients. Only a
//! [`Volume`] has the truth.

use super::course::Origin;
use super::{Case, DENSE, Dataset, augment};
use crate::error::{Failure, Result};
use crate::native::cuda::upload;
use tch::{Device, Kind, Tensor};

/// Images with their annotation, this rank's part of a global batch.
#[derive(Debug)]
pub struct Samples {
    /// `[N, C, H, W]` f32, intensities in `[0, 1]`; one channel, or three of colour. `N` may be 0.
    pub image: Tensor,
    /// `[N, H, W]`, class or [`super::IGNORE`]: u8 as loaded, i64 after [`Batch::to`].
    pub annotation: Tensor,
    /// Where each sample comes from: the index of the case in the data set, and the slice.
    pub cases: Vec<(usize, usize)>,
    /// The position of each sample in the global batch.
    pub positions: Vec<u64>,
}

/// One step's data on this rank.
#[derive(Debug)]
pub struct Batch {
    main: Samples,
    shapes: Option<Tensor>,
    healthy: Option<Samples>,
    origin: Option<Origin>,
    /// Samples over all ranks.
    pub global_size: usize,
}

impl Batch {
    /// A batch of samples, without masks.
    pub fn new(main: Samples, global_size: usize) -> Self {
        Self { main, shapes: None, healthy: None, origin: None, global_size }
    }

    /// The same batch with a mask of another patient for each sample: `[N, H, W]` u8.
    #[must_use]
    pub fn with_shapes(self, shapes: Tensor) -> Self {
        Self { shapes: Some(shapes), ..self }
    }

    /// The same batch with as many healthy images.
    #[must_use]
    pub fn with_healthy(self, healthy: Samples) -> Self {
        Self { healthy: Some(healthy), ..self }
    }

    /// The same batch with the way back to the slices that it was made from.
    #[must_use]
    pub fn with_origin(self, origin: Origin) -> Self {
        Self { origin: Some(origin), ..self }
    }

    /// The same samples on a device as networks and losses take them: images in the precision of
    /// the network, annotations and masks as i64.
    #[must_use]
    pub fn to(mut self, kind: Kind, device: Device) -> Self {
        let labels = |labels: &Tensor| upload(labels, device).to_kind(Kind::Int64);
        for samples in std::iter::once(&mut self.main).chain(&mut self.healthy) {
            samples.image = upload(&samples.image.to_kind(kind), device);
            samples.annotation = labels(&samples.annotation);
        }
        self.shapes = self.shapes.as_ref().map(labels);
        self
    }

    /// Whether the other batch has tensors of the same shapes for samples at the same positions, so that
    /// [`Batch::take_in`] can be used.
    pub fn is_like(&self, other: &Self) -> bool {
        let shapes = |batch: &Self| batch.tensors().iter().map(|t| t.size()).collect::<Vec<_>>();
        self.global_size == other.global_size
            && self.main.positions == other.main.positions
            && self.shapes.is_some() == other.shapes.is_some()
            && shapes(self) == shapes(other)
    }

    /// Copies the tensors of the other batch over its own, which stay where they are.
    pub fn take_in(&mut self, other: &Self) {
        for (own, other) in self.tensors().into_iter().zip(other.tensors()) {
            own.shallow_clone().copy_(other);
        }
    }

    fn tensors(&self) -> Vec<&Tensor> {
        let samples = std::iter::once(&self.main).chain(&self.healthy);
        let samples = samples.flat_map(|samples| [&samples.image, &samples.annotation]);
        samples.chain(&self.shapes).collect()
    }

    /// The samples to learn from.
    pub fn main(&self) -> &Samples {
        &self.main
    }

    /// As many healthy images as there are diseased ones in [`Batch::main`], of nobody in particular.
    /// Fails where the loader was not asked for them.
    pub fn healthy(&self) -> Result<&Samples> {
        self.healthy.as_ref().ok_or_else(|| Failure::new("the batch has no healthy images"))
    }

    /// Where the samples come from. Fails for batches that no loader made.
    pub fn origin(&self) -> Result<&Origin> {
        self.origin.as_ref().ok_or_else(|| Failure::new("the batch does not know its slices"))
    }

    /// Dense masks `[N, H, W]` of other patients, which show none of the samples: u8 as loaded, i64
    /// after [`Batch::to`]. Fails where `[data.shapes]` names none.
    pub fn shapes(&self) -> Result<&Tensor> {
        self.shapes.as_ref().ok_or_else(|| {
            Failure::usage("the batch has no masks of other patients").hint(
                "say where they are in `[data.shapes]`, for example `--set data.shapes.path=DIR`",
            )
        })
    }
}

/// A held-out case with its dense truth. Only evaluation holds one.
#[derive(Debug, Clone, Copy)]
pub struct Volume<'a> {
    case: &'a Case,
    truth: &'a [u8],
}

impl<'a> Volume<'a> {
    /// The cases that `fold` holds out. Refuses a fold without cases, and cases without dense truth.
    pub fn held_out(dataset: &'a Dataset, fold: u32) -> Result<Vec<Self>> {
        dataset.held_out(fold)?.into_iter().map(Self::new).collect()
    }

    fn new(case: &'a Case) -> Result<Self> {
        let truth = case.annotations.get(DENSE).ok_or_else(|| {
            let name = &case.name;
            Failure::usage(format!(
                "held-out case `{name}` has no `{DENSE}` annotation to evaluate with"
            ))
            .hint("pack dense labels too, for example `scrimp prepare nifti --dense DIR ...`")
            .hint("or train on all cases without evaluations: `--set data.fold=0`")
        })?;
        Ok(Self { case, truth })
    }

    /// Name of the case.
    pub fn name(&self) -> &'a str {
        &self.case.name
    }

    /// Slices, rows, columns as stored.
    pub fn shape(&self) -> [usize; 3] {
        self.case.scan.grid.shape
    }

    /// Distance of voxel centres along slices, rows, columns, where the source says so.
    pub fn spacing_mm(&self) -> Option<[f64; 3]> {
        self.case.scan.grid.spacing_mm
    }

    /// The class of every voxel, `shape` in row-major order.
    pub fn truth(&self) -> &'a [u8] {
        self.truth
    }

    /// The slices as stored, intensities in `[0, 1]`: slices, channels, rows, columns in row-major order.
    pub fn image(&self) -> &'a [f32] {
        &self.case.scan.voxels
    }

    /// The slices resized to `size` x `size`, grey ones by order-0 zoom and coloured ones bilinearly:
    /// `[slices, channels, size, size]` f32.
    pub fn input(&self, size: usize) -> Tensor {
        let slices = self.case.scan.grid.shape[0];
        let resized: Vec<f32> =
            (0..slices).flat_map(|slice| self.case.input_slice(slice, size)).collect();
        let extents = [slices, self.case.scan.channels, size, size].map(|extent| extent as i64);
        Tensor::from_slice(&resized).view(extents)
    }

    /// Labels of the shape of [`Volume::input`] without channel, resized back to the case's own
    /// shape by order-0 zoom.
    pub fn enlarge(&self, labels: &[u8], size: usize) -> Vec<u8> {
        let [_, rows, columns] = self.case.scan.grid.shape;
        let slices = labels.chunks_exact(size * size);
        slices
            .flat_map(|slice| augment::zoom_labels(slice, [size, size], [rows, columns]))
            .collect()
    }

    /// The truth resized to `size` x `size` by order-0 zoom: `[slices, size, size]`.
    pub fn truth_on_grid(&self, size: usize) -> Vec<u8> {
        self.on_grid(self.truth, size)
    }

    /// An annotation of the case in the same way; `None` where it has none of that kind.
    pub fn annotation_on_grid(&self, kind: &str, size: usize) -> Option<Vec<u8>> {
        self.case.annotations.get(kind).map(|labels| self.on_grid(labels, size))
    }

    fn on_grid(&self, labels: &[u8], size: usize) -> Vec<u8> {
        let [_, rows, columns] = self.case.scan.grid.shape;
        let slices = labels.chunks_exact(rows * columns);
        slices
            .flat_map(|slice| augment::zoom_labels(slice, [rows, columns], [size, size]))
            .collect()
    }
}
