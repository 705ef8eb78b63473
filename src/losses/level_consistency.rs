//! What networks of two classes learn from masks of several levels, each from its own and from the others.
//!
//! The logit of a pixel is that of the foreground, `s` its sigmoid. Knows neither what the levels are nor who makes
//! the logits.

use super::{SMOOTH, elements};
use crate::native::{GroupSum, global_sum};
use tch::{Reduction, Tensor};

/// Keeps the mean over the pixels of a sample finite where none of them counts.
const NOBODY: f64 = 1e-8;

/// Cross-entropy of logits with masks: the mean over the pixels of a sample where `counted` is 1, and of these
/// over the `samples` of all ranks.
///
/// `logits`, `masks` of 0 and 1, and `counted` of 0 and 1 are `[N, 1, H, W]`, this rank's share.
pub fn binary_cross_entropy(
    logits: &Tensor,
    masks: &Tensor,
    counted: &Tensor,
    samples: usize,
    group: &dyn GroupSum,
) -> Tensor {
    let none = || None::<&Tensor>;
    let each = logits.binary_cross_entropy_with_logits(masks, none(), none(), Reduction::None);
    let means = of_samples(&(each * counted)) / (of_samples(counted) + NOBODY);
    global_sum(&means.sum(means.kind()), group) / samples.max(1) as f64
}

/// Soft Dice loss of the foreground, `1 - (2 Σ s t + c) / (Σ s + Σ t + c)` with `c` = [`SMOOTH`], for each sample by
/// itself, and the mean over the `samples` of all ranks; arguments as of [`binary_cross_entropy`].
pub fn binary_dice(
    logits: &Tensor,
    masks: &Tensor,
    counted: &Tensor,
    samples: usize,
    group: &dyn GroupSum,
) -> Tensor {
    let (shares, masks) = (logits.sigmoid() * counted, masks * counted);
    let overlap = of_samples(&(&shares * &masks)) * 2.0 + SMOOTH;
    let losses: Tensor = 1.0 - overlap / (of_samples(&shares) + of_samples(&masks) + SMOOTH);
    global_sum(&losses.sum(losses.kind()), group) / samples.max(1) as f64
}

/// How much a network agrees with the others, negated: in [-1, 0], -1 where all are sure of the same.
///
/// `-1/n Σ_j mean over pixels of s s_j + (1 - s) (1 - s_j)` over the `n` others, at least one, whose logits get no
/// gradient. All are `[N, 1, H, W]`, this rank's share of `samples`.
pub fn disagreement(
    logits: &Tensor,
    others: &[&Tensor],
    samples: usize,
    group: &dyn GroupSum,
) -> Tensor {
    let shares: Vec<Tensor> = others.iter().map(|logits| logits.detach().sigmoid()).collect();
    let count = shares.len().max(1) as f64;
    let theirs = shares.into_iter().fold(logits.detach().zeros_like(), |sum, share| sum + share);
    let (own, theirs) = (logits.sigmoid(), theirs / count);
    let agreement: Tensor = &own * &theirs + (1.0 - &own) * (1.0 - &theirs);
    -global_sum(&agreement.sum(agreement.kind()), group) / elements(logits, samples)
}

/// Sums over everything but the samples: `[N]`.
fn of_samples(maps: &Tensor) -> Tensor {
    maps.sum_dim_intlist([1i64, 2, 3].as_slice(), false, maps.kind())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::Alone;
    use tch::{Device, Kind};

    fn maps(values: &[f64]) -> Tensor {
        Tensor::from_slice(values).view([-1, 1, 1, 2])
    }

    #[test]
    fn networks_that_are_sure_of_the_same_agree_wholly() {
        let sure = maps(&[40.0, -40.0]);
        let of = |others: &[&Tensor]| disagreement(&sure, others, 1, &Alone).double_value(&[]);
        assert!((of(&[&sure, &sure]) + 1.0).abs() < 1e-12);
        assert!(of(&[&-&sure]).abs() < 1e-12);
        assert!((of(&[&sure, &-&sure]) + 0.5).abs() < 1e-12);
        assert!((of(&[&sure.zeros_like()]) + 0.5).abs() < 1e-12);
    }

    #[test]
    fn pixels_that_do_not_count_change_nothing_and_samples_without_any_are_zero() {
        let masks = maps(&[1.0, 0.0, 1.0, 1.0]);
        let counted = maps(&[1.0, 0.0, 0.0, 0.0]);
        for loss in [binary_cross_entropy, binary_dice] {
            let of = |values: [f64; 4]| {
                let logits = maps(&values).set_requires_grad(true);
                let value = loss(&logits, &masks, &counted, 2, &Alone);
                value.backward();
                (value.double_value(&[]), logits.grad())
            };
            let (value, gradient) = of([0.3, 5.0, -2.0, 900.0]);
            assert!(value.is_finite() && value > 0.0);
            assert!((value - of([0.3, -7.0, 4.0, -900.0]).0).abs() < 1e-12);
            let gradient = Vec::<f64>::try_from(gradient.view(-1)).unwrap();
            assert!(gradient[0] < 0.0 && gradient[1..].iter().all(|g| g.abs() < 1e-12));
        }
    }

    #[test]
    fn a_rank_without_samples_adds_nothing() {
        let none = Tensor::zeros([0, 1, 4, 4], (Kind::Double, Device::Cpu)).set_requires_grad(true);
        let empty = none.detach();
        for loss in [
            binary_cross_entropy(&none, &empty, &empty, 3, &Alone),
            binary_dice(&none, &empty, &empty, 3, &Alone),
            disagreement(&none, &[&empty], 3, &Alone),
        ] {
            assert!(loss.double_value(&[]).abs() < 1e-12);
        }
    }
}
