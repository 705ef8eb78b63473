//! Losses of two modalities: Dice with cross-entropy of each, and agreement between them, of what their features
//! mean and of the anatomy that they show. As in med-air/CMC at cb8dd11, and in forms that can be minimised.
//!
//! Every value is a mean over samples. Knows neither who predicted nor how weights rise and fall.

use super::{IGNORE, axes, one_hot};
use crate::native::{GroupSum, global_sum};
use tch::{Kind, Tensor};

/// Added to the denominator of Dice.
const SMOOTH: f64 = 1e-6;
/// By what cosines are divided before they are compared.
const TEMPERATURE: f64 = 0.5;
/// Square of the length from which on a row has a direction: 1e-8 is where the cosine of PyTorch stops to divide.
const SHORTEST: f64 = 1e-16;

/// The mean over the samples of all ranks of one number for each of this rank's, `[N]`.
fn mean_over(of_samples: &Tensor, samples: usize, group: &dyn GroupSum) -> Tensor {
    global_sum(&of_samples.sum(of_samples.kind()), group) / samples.max(1) as f64
}

/// Dice loss plus cross-entropy, mean over the samples of all ranks:
/// `mean_c (1 - 2 Σ p g / (Σ p² + Σ g² + 1e-6)) - mean ln p_label`, sums and the last mean over the annotated voxels
/// of a sample, whose cross-entropy is 0 where there are none.
///
/// `logits` is `[N, C, ...]`, this rank's share of `samples`, `annotation` `[N, ...]` `i64` with classes and 255 = not
/// annotated. The background counts as a class; a class that a sample does not show adds 1 without gradient.
pub fn dice_cross_entropy(
    logits: &Tensor,
    annotation: &Tensor,
    samples: usize,
    group: &dyn GroupSum,
) -> Tensor {
    let kind = logits.kind();
    let over_voxels = |maps: &Tensor| maps.sum_dim_intlist(axes(logits), false, kind);
    let logarithms = logits.log_softmax(1, kind);
    let target = one_hot(annotation, logits);
    let is_annotated = annotation.ne(IGNORE).to_kind(kind).unsqueeze(1);
    let probabilities = logarithms.exp() * &is_annotated;
    let overlap = over_voxels(&(&probabilities * &target));
    let sizes = over_voxels(&probabilities.square()) + over_voxels(&target);
    let dice: Tensor = 1.0 - overlap * 2.0 / (sizes + SMOOTH);
    let dice = dice.mean_dim([1i64].as_slice(), false, kind);
    let told = over_voxels(&(logarithms * target)).sum_dim_intlist([1i64].as_slice(), false, kind);
    let voxels = over_voxels(&is_annotated).squeeze_dim(1).clamp_min(1.0);
    mean_over(&(dice - told / voxels), samples, group)
}

/// Rows `[N, R, W]` divided by their lengths; those without length stay zero and get no gradient.
fn directions(rows: &Tensor) -> Tensor {
    let squares = rows.square().sum_dim_intlist([-1i64].as_slice(), true, rows.kind());
    let is_directed = squares.gt(SHORTEST);
    let directions = rows / squares.where_scalarother(&is_directed, 1.0).sqrt();
    directions.where_scalarother(&is_directed, 0.0)
}

/// How well rows of two tables are told to belong together, for each sample: `[N]` from `[N, R, W]` twice.
///
/// NT-Xent (Chen et al., ICML 2020) over the 2 R rows of both, temperature 0.5:
/// `mean -ln( exp(s_pair / t) / Σ_other exp(s / t) )` with `s` the cosine of two rows. The cosines are one product of
/// matrices, so that 2 R × 2 R numbers are held for each sample whatever W.
pub fn contrast(first: &Tensor, second: &Tensor) -> Tensor {
    let kind = first.kind();
    let [first, second] = [first, second].map(directions);
    let pairs = (&first * &second).sum_dim_intlist([-1i64].as_slice(), false, kind) / TEMPERATURE;
    let all = Tensor::cat(&[first, second], 1);
    let cosines = all.bmm(&all.transpose(1, 2)) / TEMPERATURE;
    let is_itself = Tensor::eye(all.size()[1], (Kind::Bool, all.device()));
    let others = cosines.masked_fill(&is_itself, f64::NEG_INFINITY);
    let others = others.logsumexp([-1i64].as_slice(), false);
    let mean = |rows: &Tensor| rows.mean_dim([1i64].as_slice(), false, kind);
    mean(&others) - mean(&pairs)
}

/// What a row of features is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// All voxels of a channel: as the paper describes it. Takes (2 C)² numbers for a sample.
    Channels,
    /// As released: as many consecutive values as there are channels, in the order channel, slice, row, column, so that a row
    /// is some voxels of one channel. Takes (2 D H W)² numbers for a sample.
    Consecutive,
}

/// How far two modalities are from meaning the same by their features, CSC: [`contrast`] of the rows of both, mean
/// over the samples of all ranks, at least 0.
///
/// `features` are `[N, C, ...]` of each, this rank's share of `samples`.
pub fn semantic_inconsistency(
    features: [&Tensor; 2],
    rows: Rows,
    samples: usize,
    group: &dyn GroupSum,
) -> Tensor {
    let [first, second] = features.map(|features| match rows {
        Rows::Channels => features.flatten(2, -1),
        Rows::Consecutive => {
            let size = features.size();
            let count = size.iter().skip(2).product::<i64>();
            features.contiguous().view([size[0], count, size[1]])
        }
    });
    mean_over(&contrast(&first, &second), samples, group)
}

/// How much two predictions of unlike volumes show the same anatomy, CAC: `(2 Σ a b + 1e-6) / (Σ a² + Σ b² + 1e-6)`
/// with sums over the voxels of a class, mean over classes and the samples of all ranks. 1 where they are equal, or
/// both 0.
///
/// `maps` are `[N, C, ...]` of each modality, this rank's share of `samples`: probabilities, or as released logits.
/// As released this is added to what is minimised; what can be minimised is 1 less it.
pub fn anatomical_similarity(maps: [&Tensor; 2], samples: usize, group: &dyn GroupSum) -> Tensor {
    let [first, second] = maps;
    let over_voxels = |maps: &Tensor| maps.sum_dim_intlist(axes(first), false, first.kind());
    let overlap = over_voxels(&(first * second)) * 2.0 + SMOOTH;
    let sizes = over_voxels(&first.square()) + over_voxels(&second.square()) + SMOOTH;
    let similarity = (overlap / sizes).mean_dim([1i64].as_slice(), false, first.kind());
    mean_over(&similarity, samples, group)
}

#[cfg(test)]
mod tests {
    use super::super::partial_cross_entropy;
    use super::*;
    use crate::native::Alone;
    use tch::Device;

    fn wave(shape: &[i64], rate: f64) -> Tensor {
        let count = shape.iter().product::<i64>();
        ((Tensor::arange(count, (Kind::Double, Device::Cpu)) * rate).sin() * 2.0).view(shape)
    }

    /// Values of a function of two tensors, and the gradient with regard to each.
    fn value_and_gradients(at: [&Tensor; 2], of: &dyn Fn([&Tensor; 2]) -> Tensor) -> [Tensor; 3] {
        let at = at.map(|at| at.copy().set_requires_grad(true));
        let value = of(at.each_ref());
        value.backward();
        let [first, second] = at.map(|at| at.grad());
        [value.detach(), first, second]
    }

    /// Compares gradients with differences of values in a direction of their own.
    fn assert_gradients(at: [&Tensor; 2], of: &dyn Fn([&Tensor; 2]) -> Tensor) {
        let [_, first, second] = value_and_gradients(at, of);
        let step = 1e-6;
        for (number, gradient) in [&first, &second].into_iter().enumerate() {
            let direction = wave(&at[number].size(), 1.7);
            let value = |sign: f64| {
                let mut at = at.map(Tensor::shallow_clone);
                at[number] = &at[number] + &direction * (sign * step);
                of(at.each_ref()).double_value(&[])
            };
            let found = (gradient * &direction).sum(Kind::Double).double_value(&[]);
            let expected = (value(1.0) - value(-1.0)) / (2.0 * step);
            let apart = (found - expected).abs();
            assert!(apart < 1e-7 * expected.abs().max(1e-2), "{number}: {found} {expected}");
        }
    }

    #[test]
    fn gradients_are_those_of_the_values() {
        let (first, second) = (wave(&[2, 4, 3, 2, 2], 0.37), wave(&[2, 4, 3, 2, 2], 0.53));
        let at = [&first, &second];
        for rows in [Rows::Channels, Rows::Consecutive] {
            assert_gradients(at, &|features| semantic_inconsistency(features, rows, 2, &Alone));
        }
        assert_gradients(at, &|maps| anatomical_similarity(maps, 2, &Alone));
        let labels = Tensor::arange(24, (Kind::Int64, Device::Cpu)).remainder(5).view([2, 3, 2, 2]);
        let labels = labels.masked_fill(&labels.eq(4), 255);
        assert_gradients(at, &|[first, second]| {
            dice_cross_entropy(&(first + second * 0.5), &labels, 2, &Alone)
        });
    }

    #[test]
    fn rows_without_length_are_like_no_other_and_get_no_gradient() {
        for kind in [Kind::Double, Kind::Float] {
            let first = wave(&[1, 4, 2, 2, 2], 0.37).to_kind(kind);
            let second = wave(&[1, 4, 2, 2, 2], 0.53).to_kind(kind);
            let _ = first.narrow(1, 2, 1).zero_();
            let of = |features: [&Tensor; 2]| {
                semantic_inconsistency(features, Rows::Channels, 1, &Alone)
            };
            let [value, gradient, other] = value_and_gradients([&first, &second], &of);
            assert!(value.isfinite().all().int64_value(&[]) == 1);
            assert!(other.isfinite().all().int64_value(&[]) == 1);
            let of_zeros = gradient.narrow(1, 2, 1);
            assert!(of_zeros.equal(&of_zeros.zeros_like()));
            assert!(gradient.abs().max().double_value(&[]) < 1.0);
        }
    }

    #[test]
    fn consecutive_rows_of_as_many_voxels_as_channels_are_channels() {
        let (first, second) = (wave(&[2, 8, 2, 2, 2], 0.37), wave(&[2, 8, 2, 2, 2], 0.53));
        let of = |rows| semantic_inconsistency([&first, &second], rows, 2, &Alone);
        assert!(of(Rows::Channels).equal(&of(Rows::Consecutive)));
    }

    #[test]
    fn anatomy_is_like_itself_and_nothing_is_like_nothing() {
        let maps = wave(&[2, 3, 2, 3, 2], 0.37);
        let of = |maps: [&Tensor; 2]| anatomical_similarity(maps, 2, &Alone).double_value(&[]);
        assert!((of([&maps, &maps]) - 1.0).abs() < 1e-12);
        assert!((of([&maps, &-&maps]) + 1.0).abs() < 1e-6);
        let zeros = maps.zeros_like();
        assert!((of([&zeros, &zeros]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn voxels_that_nobody_annotated_are_not_looked_at() {
        let logits = wave(&[2, 3, 2, 3, 4], 0.37);
        let labels = Tensor::arange(48, (Kind::Int64, Device::Cpu)).remainder(3).view([2, 2, 3, 4]);
        let _ = labels.narrow(1, 1, 1).fill_(255);
        let [value, gradient, _] = value_and_gradients([&logits, &logits], &|[logits, _]| {
            dice_cross_entropy(logits, &labels, 2, &Alone)
        });
        let cut = |maps: &Tensor, axis| maps.narrow(axis, 0, 1);
        let part = cut(&logits, 2);
        let of_part = dice_cross_entropy(&part, &cut(&labels, 1), 2, &Alone);
        assert!(value.allclose(&of_part, 1e-13, 1e-13, false));
        let outside = gradient.narrow(2, 1, 1);
        assert!(outside.equal(&outside.zeros_like()));
        // Without Dice it is the cross-entropy of all voxels, where samples have equally many.
        let dice = {
            let p = part.softmax(1, Kind::Double);
            let target = one_hot(&cut(&labels, 1), &p);
            let sum =
                |maps: Tensor| maps.sum_dim_intlist([2i64, 3, 4].as_slice(), false, Kind::Double);
            let sizes = sum(p.square()) + sum(target.square());
            let dice: Tensor = 1.0 - sum(&p * &target) * 2.0 / (sizes + 1e-6);
            dice.mean(Kind::Double)
        };
        let ce = partial_cross_entropy(&logits, &labels, &Alone);
        assert!(value.allclose(&(dice + ce), 1e-13, 1e-13, false));
        let nothing = labels.full_like(255);
        let [value, gradient, _] = value_and_gradients([&logits, &logits], &|[logits, _]| {
            dice_cross_entropy(logits, &nothing, 2, &Alone)
        });
        assert!((value.double_value(&[]) - 1.0).abs() < 1e-12);
        assert!(gradient.equal(&gradient.zeros_like()));
    }
}
