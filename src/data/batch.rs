//! What a training step gets to see, as tensors.
//!
//! A [`Batch`] holds the annotation that the plan names and nothing else: a method cannot look at
//! the dense truth unless it is told to learn from it. Masks beside it are of other patients.

use super::recipe::Origin;
use super::samples::Samples;
use crate::error::{Failure, Result};
use crate::native::cuda::upload;
use tch::{Device, Kind, Tensor};

/// One step's data on this rank: streams by name, of which the first is [`super::stream::MAIN`].
#[derive(Debug)]
pub struct Batch {
    main: Samples,
    beside: Vec<(&'static str, Stream)>,
    origin: Option<Origin>,
    /// Samples of each stream over all ranks.
    pub global_size: usize,
}

/// What stands beside the samples to learn from, as many of them.
#[derive(Debug)]
enum Stream {
    Samples(Samples),
    /// Labels without images.
    Masks(Tensor),
}

impl Batch {
    /// A batch of samples and nothing beside them.
    pub fn new(main: Samples, global_size: usize) -> Self {
        Self { main, beside: Vec::new(), origin: None, global_size }
    }

    /// The same batch with a mask of another patient for each sample as stream `name`: `[N, H, W]` u8.
    #[must_use]
    pub fn with_masks(mut self, name: &'static str, masks: Tensor) -> Self {
        self.beside.push((name, Stream::Masks(masks)));
        self
    }

    /// The same batch with as many samples of another stream.
    #[must_use]
    pub fn with(mut self, name: &'static str, samples: Samples) -> Self {
        self.beside.push((name, Stream::Samples(samples)));
        self
    }

    /// The same batch with the way back to the slices that it was made from.
    #[must_use]
    pub fn with_origin(self, origin: Origin) -> Self {
        Self { origin: Some(origin), ..self }
    }

    /// The same samples on a device as networks and losses take them: images in the precision of
    /// the network, annotations and masks as i64, and whether a class was looked for as a boolean.
    #[must_use]
    pub fn to(mut self, kind: Kind, device: Device) -> Self {
        let labels = |labels: &Tensor| upload(labels, device).to_kind(Kind::Int64);
        let place = |samples: &mut Samples| {
            samples.image = upload(&samples.image.to_kind(kind), device);
            samples.annotation = labels(&samples.annotation);
            let looked_for = samples.looked_for.as_ref();
            samples.looked_for = looked_for.map(|flags| upload(flags, device).to_kind(Kind::Bool));
        };
        place(&mut self.main);
        for (_, stream) in &mut self.beside {
            match stream {
                Stream::Samples(samples) => place(samples),
                Stream::Masks(masks) => *masks = labels(masks),
            }
        }
        self
    }

    /// Whether the other batch has tensors of the same shapes for samples at the same positions, so that
    /// [`Batch::take_in`] can be used.
    pub fn is_like(&self, other: &Self) -> bool {
        let shapes = |batch: &Self| batch.tensors().iter().map(|t| t.size()).collect::<Vec<_>>();
        let names = |batch: &Self| batch.beside.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        self.global_size == other.global_size
            && self.main.positions == other.main.positions
            && names(self) == names(other)
            && shapes(self) == shapes(other)
    }

    /// Copies the tensors of the other batch over its own, which stay where they are.
    pub fn take_in(&mut self, other: &Self) {
        for (own, other) in self.tensors().into_iter().zip(other.tensors()) {
            own.shallow_clone().copy_(other);
        }
    }

    fn tensors(&self) -> Vec<&Tensor> {
        let mut tensors: Vec<&Tensor> = self.main.tensors().collect();
        for (_, stream) in &self.beside {
            match stream {
                Stream::Samples(samples) => tensors.extend(samples.tensors()),
                Stream::Masks(masks) => tensors.push(masks),
            }
        }
        tensors
    }

    /// The samples to learn from.
    pub fn main(&self) -> &Samples {
        &self.main
    }

    /// The samples of a stream beside, for example [`super::stream::HEALTHY`]: as many as in
    /// [`Batch::main`], drawn by themselves. Fails where the method's recipe names no such stream.
    pub fn of(&self, name: &str) -> Result<&Samples> {
        match self.stream(name) {
            Some(Stream::Samples(samples)) => Ok(samples),
            _ => Err(Failure::new(format!("the batch has no stream `{name}` of images"))),
        }
    }

    /// Dense masks `[N, H, W]` of other patients, which show none of the samples: u8 as loaded, i64
    /// after [`Batch::to`]. Fails where `[data.shapes]` names none.
    pub fn masks_of(&self, name: &str) -> Result<&Tensor> {
        match self.stream(name) {
            Some(Stream::Masks(masks)) => Ok(masks),
            _ => Err(Failure::usage("the batch has no masks of other patients").hint(
                "say where they are in `[data.shapes]`, for example `--set data.shapes.path=DIR`",
            )),
        }
    }

    fn stream(&self, name: &str) -> Option<&Stream> {
        self.beside.iter().find(|(known, _)| *known == name).map(|(_, stream)| stream)
    }

    /// Where the samples come from. Fails for batches that no loader made, and for patches.
    pub fn origin(&self) -> Result<&Origin> {
        self.origin.as_ref().ok_or_else(|| Failure::new("the batch does not know its slices"))
    }
}
