//! Losses of mixed images: cross-entropy with labels that are mixed too, and agreement of predictions in direction.
//!
//! Knows neither how images were mixed nor who predicted.

use super::elements;
use crate::native::{GroupSum, global_sum};
use tch::Tensor;

/// Added inside the logarithm, as in the released code.
const FLOOR: f64 = 1e-12;
/// Square of the length from which on a vector has a direction: 1e-8 is where the cosine of PyTorch stops to divide.
const SHORTEST: f64 = 1e-16;

/// Cross-entropy of soft labels, mean over all pixels of the global batch, those that nobody annotated too:
/// `-mean Σ_c y_c ln(p_c + 1e-12)` (`CycleMix`, BWGZK/CycleMix at 7674830).
///
/// `probabilities` and `target` are `[N, C, H, W]`, this rank's share of `samples`; a pixel's targets are at least
/// 0, all 0 where it is not annotated.
pub fn partial_cross_entropy_of_probabilities(
    probabilities: &Tensor,
    target: &Tensor,
    samples: usize,
    group: &dyn GroupSum,
) -> Tensor {
    let logarithms = (probabilities + FLOOR).log();
    let local = -(target * logarithms).sum(probabilities.kind());
    global_sum(&local, group) / pixels(probabilities, samples)
}

/// Cross-entropy of soft labels over the annotated mass of the global batch, which of labels that are not mixed is
/// [`super::partial_cross_entropy`]: `-Σ y ln softmax(z) / Σ y`; 0 where nothing is annotated.
///
/// `logits` and `target` are `[N, C, H, W]` or `[N, C, D, H, W]`; a pixel's targets are at least 0 and sum to the
/// share of it that is annotated.
pub fn soft_partial_cross_entropy(
    logits: &Tensor,
    target: &Tensor,
    group: &dyn GroupSum,
) -> Tensor {
    let mass = target.sum(logits.kind());
    group.sum(&mass);
    let local = -(target * logits.log_softmax(1, logits.kind())).sum(logits.kind());
    global_sum(&local, group) / mass.clamp_min(f64::from(f32::MIN_POSITIVE))
}

/// How far the class vectors of two predictions point apart, mean over all pixels of the global batch:
/// `mean (1 - a·b / (|a| |b|))`, in [0, 2], and 1 at a pixel where either vector is zero.
///
/// Both are `[N, C, H, W]`, this rank's share of `samples`. A vector that is zero gets no gradient there: one
/// divided by its length would be without bound, and mean nothing, since mixing has put it there.
pub fn cosine_distance(a: &Tensor, b: &Tensor, samples: usize, group: &dyn GroupSum) -> Tensor {
    let over_classes =
        |products: &Tensor| products.sum_dim_intlist([1i64].as_slice(), true, products.kind());
    let squares = [a, b].map(|vectors| over_classes(&vectors.square()));
    let are_directed = squares[0].gt(SHORTEST).logical_and(&squares[1].gt(SHORTEST));
    let [of_a, of_b] = squares.map(|squares| squares.where_scalarother(&are_directed, 1.0).sqrt());
    let cosine = (over_classes(&(a * b)) / (of_a * of_b)).where_scalarother(&are_directed, 0.0);
    let distance: Tensor = 1.0 - cosine;
    global_sum(&distance.sum(a.kind()), group) / pixels(a, samples)
}

/// Pixels of the global batch of `samples` of which `maps`, `[N, C, H, W]`, are this rank's.
fn pixels(maps: &Tensor, samples: usize) -> f64 {
    elements(maps, samples) / maps.size()[1].max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::super::{one_hot, partial_cross_entropy};
    use super::*;
    use crate::native::Alone;
    use tch::{Device, Kind};

    const OPTIONS: (Kind, Device) = (Kind::Double, Device::Cpu);

    fn wave(shape: &[i64], rate: f64) -> Tensor {
        let count = shape.iter().product::<i64>();
        ((Tensor::arange(count, OPTIONS) * rate).sin() * 3.0).view(shape)
    }

    /// Value, and gradient with regard to `at`.
    fn value_and_gradient(at: &Tensor, loss: impl Fn(&Tensor) -> Tensor) -> (f64, Tensor) {
        let at = at.copy().set_requires_grad(true);
        let value = loss(&at);
        value.backward();
        (value.double_value(&[]), at.grad())
    }

    #[test]
    fn labels_that_are_not_mixed_have_the_partial_cross_entropy() {
        let logits = wave(&[2, 3, 4, 5], 0.37);
        let labels = Tensor::arange(40, (Kind::Int64, Device::Cpu)).remainder(5).view([2, 4, 5]);
        let annotation = labels.where_scalarother(&labels.lt(3), 255);
        let target = one_hot(&annotation, &logits);
        let (value, gradient) =
            value_and_gradient(&logits, |z| soft_partial_cross_entropy(z, &target, &Alone));
        let (expected, of_hard) =
            value_and_gradient(&logits, |z| partial_cross_entropy(z, &annotation, &Alone));
        assert!((value - expected).abs() < 1e-13, "{value} {expected}");
        assert!(gradient.allclose(&of_hard, 1e-12, 1e-14, false));
    }

    #[test]
    fn halves_of_labels_count_half() {
        let logits = wave(&[1, 2, 1, 3], 0.9);
        let logarithms = logits.log_softmax(1, Kind::Double);
        let target = Tensor::from_slice(&[0.5, 1.0, 0.0, 0.0, 0.0, 0.25]).view([1, 2, 1, 3]);
        let found = soft_partial_cross_entropy(&logits, &target, &Alone).double_value(&[]);
        let at = |class, column| logarithms.double_value(&[0, class, 0, column]);
        let expected = -(0.5 * at(0, 0) + at(0, 1) + 0.25 * at(1, 2)) / 1.75;
        assert!((found - expected).abs() < 1e-14);
    }

    #[test]
    fn nothing_annotated_is_a_loss_of_zero_without_gradient() {
        for kind in [Kind::Double, Kind::Float] {
            let logits = wave(&[2, 3, 4, 5], 0.37).to_kind(kind);
            let none = logits.zeros_like();
            let (value, gradient) =
                value_and_gradient(&logits, |z| soft_partial_cross_entropy(z, &none, &Alone));
            assert!(value.abs() < f64::MIN_POSITIVE);
            assert!(gradient.equal(&none));
            let p = logits.softmax(1, kind);
            let of_pixels = partial_cross_entropy_of_probabilities(&p, &none, 2, &Alone);
            assert!(of_pixels.equal(&of_pixels.zeros_like()));
        }
    }

    #[test]
    fn vectors_are_compared_by_direction_and_zeros_count_one_without_gradient() {
        for kind in [Kind::Double, Kind::Float, Kind::Half, Kind::BFloat16] {
            let of = |numbers: &[f64]| Tensor::from_slice(numbers).to_kind(kind).view([1, 2, 1, 4]);
            // Columns: one direction, orthogonal, zero beside something, something beside zero.
            let a = of(&[1.0, 1.0, 0.0, 0.5, 1.0, 0.0, 0.0, 0.5]);
            let b = of(&[3.0, 0.0, 1.0, 0.0, 3.0, 2.0, 1.0, 0.0]);
            let (value, of_a) = value_and_gradient(&a, |a| cosine_distance(a, &b, 1, &Alone));
            assert!((value - 0.75).abs() < 1e-2, "{kind:?}: {value}");
            let (_, of_b) = value_and_gradient(&b, |b| cosine_distance(&a, b, 1, &Alone));
            for gradient in [of_a, of_b] {
                assert!(gradient.abs().max().double_value(&[]) < 1.0, "{kind:?}: {gradient}");
                assert!(gradient.narrow(3, 2, 2).equal(&of(&[0.0; 8]).narrow(3, 2, 2)));
            }
        }
    }
}
