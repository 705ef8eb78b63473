//! What tch lacks, over the same libtorch: normalisation over all ranks, sums over ranks inside
//! formulas, a word when a gradient is there, weighted sums over neighbouring pixels, features that
//! spread between them, and checked access to a CPU tensor's memory.
//!
//! These are the C ABIs of `shim.cpp`, `shim_cuda.cpp`, NCCL and NVRTC and nothing else; no networks and no communicators are
//! known here.

mod convolution;
pub mod cuda;
mod discriminator;
mod ffi;
pub mod flat;
pub mod nccl;
pub mod nvrtc;
mod propagation;

pub use convolution::convolve_volumes;
pub use discriminator::{SpectralWeight, divide_by_singular_values, leaky_relu};
pub use ffi::{
    Element, allow_tf32, arrange_twin, channels_last, neighbour_sums, normal, normalise,
    normalise_evaluate, on_gradient, prepare_process, return_large_blocks, sums_neighbours,
    with_bytes, with_slice, with_slice_mut,
};
pub use propagation::propagate;

use std::sync::Arc;
use tch::Tensor;

/// A sum over all ranks of a run, as a formula sees it.
///
/// Every rank calls [`GroupSum::sum`] in the same order with the same shapes and kinds. A sum that
/// cannot be completed ends the process: a rank that went on alone would train something else.
pub trait GroupSum: Send + Sync {
    /// How many ranks take part, at least 1.
    fn ranks(&self) -> usize;
    /// Replaces the contents of `tensor` (contiguous; float or integer) by its sum over all ranks.
    fn sum(&self, tensor: &Tensor);
}

/// The group of one rank: every sum is already complete.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl GroupSum for Alone {
    fn ranks(&self) -> usize {
        1
    }
    fn sum(&self, _tensor: &Tensor) {}
}

/// The sum of `local` over all ranks, with the gradient of this rank's share.
///
/// Its value is equal on every rank; gradients of parameters are summed over ranks afterwards, so
/// that together they are the gradient of the global value.
pub fn global_sum(local: &Tensor, group: &dyn GroupSum) -> Tensor {
    if group.ranks() == 1 {
        return local.shallow_clone();
    }
    let total = local.detach().copy();
    group.sum(&total);
    local + (total - local.detach())
}

/// The tensors of one batch normalisation, each `[C]`.
#[derive(Debug)]
pub struct NormalisedChannels {
    /// Learned factor.
    pub weight: Tensor,
    /// Learned offset.
    pub bias: Tensor,
    /// What was to be added to the input and was not: counted in the running mean, and of no consequence
    /// beside statistics of a batch, so that it has no gradient. Zero where there is no such thing.
    pub absorbed: Tensor,
    /// Running mean of the input and what it absorbed, moved by every training pass.
    pub running_mean: Tensor,
    /// Running unbiased variance, moved by every training pass.
    pub running_var: Tensor,
}

/// What a normalisation does beside its tensors: `dropout(leaky_relu(batch_norm(x)))`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Normalisation {
    /// Weight of the new statistics in the running ones.
    pub momentum: f64,
    /// Added to the variance.
    pub epsilon: f64,
    /// Factor of negative values; 1 leaves them alone.
    pub slope: f64,
    /// Probability that an element is dropped, with keys given.
    pub dropout: f64,
    /// How it is computed.
    pub form: Form,
}

/// How normalisation and noise are computed: the same formulas, to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Form {
    /// By kernels of our own where there are some for the tensor's kind and device, else as `Plain`.
    Own = 0,
    /// By tensor operations, on any device.
    Plain = 1,
    /// By the kernels for devices on the CPU, one thread after the other: for tests.
    DeviceTwin = 2,
}

/// In which order [`arrange_twin`] lets blocks and threads run: results do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As they are numbered.
    Forward,
    /// From the last to the first.
    Reversed,
    /// By chance, from a seed.
    Shuffled(u32),
}

/// Who takes part in the statistics of a training pass, and which elements are dropped.
pub struct TrainingPass<'a> {
    /// The ranks whose samples are normalised together.
    pub group: &'a Arc<dyn GroupSum>,
    /// One key (`i64 [N]`) per sample, as `random::Key::bits`; no dropout without it. Keys in another
    /// place than the samples are copied there.
    pub keys: Option<&'a Tensor>,
    /// The number of batches so far (`i64 []`, beside the samples), which the pass raises by one.
    pub batches: Option<&'a Tensor>,
}

/// A weight for pairs of pixels: `weight * exp(-distance * d^2 - slices * s^2 - intensity * i^2)` with their
/// distance `d` in pixels within a slice, the number `s` of slices between them, and the difference `i` of
/// their intensities.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct PairKernel {
    /// Weight of two equal pixels in one place.
    pub weight: f64,
    /// How fast weights fall with distance within a slice, per square pixel; 0: they do not.
    pub distance: f64,
    /// How fast weights fall with distance between slices, per square of their number; 0: they do not.
    pub slices: f64,
    /// How fast weights fall with the difference of intensities; 0: they do not.
    pub intensity: f64,
}

/// Which pixels are summed: pairs at most `radius` apart along each axis.
#[derive(Debug)]
pub struct Neighbourhood<'a> {
    /// The sum of these is the weight of a pair.
    pub kernels: &'a [PairKernel],
    /// In slices, rows and columns, at least 0; that in slices says nothing about images.
    pub radius: [i64; 3],
    /// How the sums are computed; there are none by tensor operations here.
    pub form: Form,
    /// Factors of the pixel that is looked at and of the one that looks, of the shape of the image.
    pub masks: Option<[&'a Tensor; 2]>,
}
