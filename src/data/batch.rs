//! What a training step gets to see, as tensors.
//!
//! A [`Batch`] holds the annotation that the plan names and nothing else: a method cannot look at
//! the dense truth unless it is told to learn from it. Masks beside it are of other patients.

use super::recipe::Origin;
use super::samples::Samples;
use crate::error::{Failure, Result};
use crate::native::cuda::upload;
use tch::{Device, Kind, Tensor};

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
