//! What tch lacks, over the same libtorch: sums over ranks inside formulas, synchronised batch
//! normalisation, and checked access to a CPU tensor's memory.
//!
//! This is the C ABI of `shim.cpp` and nothing else; it knows no networks and no communicators.

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
