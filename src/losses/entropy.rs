//! Entropy of predictions: how undecided a network is, whatever the truth.
//!
//! Knows neither labels nor annotation.

use super::elements;
use crate::native::{GroupSum, global_sum};
use tch::Tensor;

/// Added inside the logarithm, as in the released code.
const FLOOR: f64 = 1e-6;

/// Mean entropy of a pixel's prediction over all pixels of the global batch, divided by `ln C`: 0 where
/// all are certain, 1 where none is.
///
/// `-Σ_c p_c ln(p_c + 1e-6) / ln C` (Grandvalet and Bengio, NIPS 2004; as in WSL4MIS
/// `losses.entropy_loss`). `probabilities` is `[N, C, H, W]` or `[N, C, D, H, W]`, this rank's share of
/// `samples`.
pub fn mean_entropy(probabilities: &Tensor, samples: usize, group: &dyn GroupSum) -> Tensor {
    let classes = probabilities.size()[1];
    let local = -(probabilities * (probabilities + FLOOR).log()).sum(probabilities.kind());
    let pixels = elements(probabilities, samples) / classes as f64;
    global_sum(&local, group) / (pixels * (classes as f64).ln())
}
