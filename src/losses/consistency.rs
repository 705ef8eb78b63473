//! Agreement of two images, and of two predictions where one of them is sure of itself.
//!
//! Knows neither who predicted nor how the ramps of weights and thresholds go.

use super::elements;
use crate::native::{GroupSum, global_sum};
use tch::Tensor;

/// Absolute difference of two images `[N, ...]`, mean over all elements of the `samples` images of all
/// ranks, of which these are this rank's.
pub fn mean_absolute(a: &Tensor, b: &Tensor, samples: usize, group: &dyn GroupSum) -> Tensor {
    let distances = (a - b).abs();
    global_sum(&distances.sum(distances.kind()), group) / elements(a, samples)
}

/// Entropy of the class probabilities of each pixel: `[N, 1, ...]` in `[0, ln C]` from `[N, C, ...]`, as
/// WSL4MIS computes it: 1e-6 inside the logarithm.
pub fn uncertainty(probabilities: &Tensor) -> Tensor {
    let log = (probabilities + 1e-6).log();
    -(probabilities * log).sum_dim_intlist([1i64].as_slice(), true, probabilities.kind())
}

/// Squared difference of two predictions where `mask` is 1, over all ranks:
/// `sum mask (a - b)^2 / (2 sum mask + 1e-16)`.
///
/// Predictions are `[N, C, ...]`, the mask `[N, 1, ...]` of 0 and 1. The factor 2 stands in
/// UA-MT, where there are two classes, and stayed in WSL4MIS with four.
pub fn masked_consistency(
    prediction: &Tensor,
    target: &Tensor,
    mask: &Tensor,
    group: &dyn GroupSum,
) -> Tensor {
    let squares = (prediction - target).square() * mask;
    let count = mask.sum(mask.kind());
    group.sum(&count);
    global_sum(&squares.sum(squares.kind()), group) / (count * 2.0 + 1e-16)
}

/// Cross-entropy of predictions with soft labels, mean over all pixels of the global batch:
/// `-sum_c t_c log softmax(z)_c`.
///
/// `logits` and `target` are `[N, C, ...]`, this rank's share of `samples`; the target sums up to 1 over the
/// classes, may be negative in some, and gets no gradient.
pub fn soft_cross_entropy(
    logits: &Tensor,
    target: &Tensor,
    samples: usize,
    group: &dyn GroupSum,
) -> Tensor {
    let local = -(logits.log_softmax(1, logits.kind()) * target.detach()).sum(logits.kind());
    let pixels = elements(logits, samples) / logits.size()[1] as f64;
    global_sum(&local, group) / pixels
}
