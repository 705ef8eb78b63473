//! Losses of two players: a discriminator that tells real from predicted, and its opponent.
//!
//! Values are those of the global batch, as everywhere in `losses`. Knows no network.

use super::elements;
use crate::native::{GroupSum, global_sum};
use tch::Tensor;

/// Binary cross-entropy of discriminator logits against one verdict, mean over samples and patches.
///
/// `logits` is `[N, ...]`, this rank's share of `samples` in the global batch; `real` is what the
/// verdict should be (Goodfellow et al., 2014; the opponent minimises it with `true`).
pub fn verdict(logits: &Tensor, real: bool, samples: usize, group: &dyn GroupSum) -> Tensor {
    let favour = if real { logits.shallow_clone() } else { -logits };
    let loss = -favour.log_sigmoid();
    global_sum(&loss.sum(loss.kind()), group) / elements(logits, samples)
}

/// Squared distance of discriminator outputs to 1 for real or 0 for made, mean over samples and patches
/// (least-squares GAN, Mao et al., ICCV 2017, with the labels of its equation 9).
///
/// `outputs` is `[N, ...]`, this rank's share of `samples` in the global batch.
pub fn squared_verdict(
    outputs: &Tensor,
    real: bool,
    samples: usize,
    group: &dyn GroupSum,
) -> Tensor {
    let squares = (outputs - f64::from(u8::from(real))).square();
    global_sum(&squares.sum(squares.kind()), group) / elements(outputs, samples)
}

/// The share of patches that a discriminator judges rightly, in [0, 1]; no gradient.
pub fn accuracy(logits: &Tensor, real: bool, samples: usize, group: &dyn GroupSum) -> Tensor {
    let right = if real { logits.gt(0.0) } else { logits.le(0.0) };
    global_sum(&right.sum(logits.kind()), group) / elements(logits, samples)
}

/// `R1`: half the squared gradient of the logits' mean over patches with respect to real `maps`,
/// mean over samples (Mescheder et al., ICML 2018, equation 9). Differentiable in the
/// discriminator; `maps` must be the input of `logits` and record gradients.
pub fn gradient_penalty(
    logits: &Tensor,
    maps: &Tensor,
    samples: usize,
    group: &dyn GroupSum,
) -> Tensor {
    let patches = logits.size().iter().skip(1).product::<i64>().max(1) as f64;
    let total = logits.sum(logits.kind()) / patches;
    let slopes = Tensor::run_backward(&[total], &[maps], true, true);
    let squares = slopes[0].square();
    global_sum(&squares.sum(squares.kind()), group) * 0.5 / samples.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::Alone;
    use tch::{Device, Kind};

    #[test]
    fn the_penalty_is_the_squared_slope() {
        // D(x) = (2 a + 3 b) of x = (a, b): squared slope 13, whatever x.
        let maps = Tensor::ones([5, 2], (Kind::Double, Device::Cpu)).set_requires_grad(true);
        let slope = Tensor::from_slice(&[2.0, 3.0]).set_requires_grad(true);
        let logits = (&maps * &slope).sum_dim_intlist([1i64].as_slice(), true, Kind::Double);
        let penalty = gradient_penalty(&logits, &maps, 5, &Alone);
        assert!((penalty.double_value(&[]) - 6.5).abs() < 1e-12);
        penalty.backward();
        assert!(slope.grad().allclose(&slope, 1e-12, 1e-12, false), "{:?}", slope.grad());
    }

    #[test]
    fn an_undecided_discriminator_costs_ln_2_and_is_half_right() {
        let logits = Tensor::zeros([3, 1, 2, 2], (Kind::Double, Device::Cpu));
        for real in [true, false] {
            let loss = verdict(&logits, real, 3, &Alone).double_value(&[]);
            assert!((loss - std::f64::consts::LN_2).abs() < 1e-12);
        }
        let right = |real| accuracy(&logits, real, 3, &Alone).double_value(&[]);
        assert!((right(true) + right(false) - 1.0).abs() < 1e-12);
    }
}
