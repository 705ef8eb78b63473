//! Losses over the global batch: cross-entropy where somebody annotated, Dice, and in files of their
//! own what needs no annotation.
//!
//! Each returns the value over all ranks with this rank's share of the gradient, so that summing
//! gradients over ranks gives the gradient of the returned number. Maps are `[N, C, H, W]` of images, and
//! `[N, C, D, H, W]` of volumes, which have one formula. Losses know no step, no configuration and no rank.

pub mod adversarial;
pub mod consistency;
pub mod contour;
pub mod cross_modality;
pub mod entropy;
pub mod gated_crf;
pub mod intensity_variance;
pub mod level_consistency;
pub mod looked_for;
pub mod mixed;
pub mod mumford_shah;

use crate::native::{GroupSum, global_sum};
use tch::{Kind, Reduction, Tensor};

/// The label of pixels that no loss may look at, equal to `data::IGNORE`.
const IGNORE: i64 = 255;
/// Added to numerator and denominator of Dice, unless said otherwise.
pub const SMOOTH: f64 = 1e-5;

/// Elements of the global batch of `samples`, of which `share` (`[N, ...]`) is this rank's; at least 1.
fn elements(share: &Tensor, samples: usize) -> f64 {
    let each = share.size().iter().skip(1).product::<i64>();
    (samples as i64 * each).max(1) as f64
}

/// The spatial dimensions of maps: rows and columns, and in front of them the slices of volumes.
fn axes(maps: &Tensor) -> &'static [i64] {
    if maps.dim() == 5 { &[2, 3, 4] } else { &[2, 3] }
}

/// Cross-entropy over the annotated pixels of the global batch.
///
/// `logits` is `[N, C, H, W]`, `annotation` `[N, H, W]` `i64` with classes and 255 = not annotated; of volumes
/// both have a dimension D in front of the rows.
/// Mean over annotated pixels of all ranks; 0 if there are none (the reference gives 0/0).
/// With dense annotation this is the ordinary cross-entropy.
pub fn partial_cross_entropy(logits: &Tensor, annotation: &Tensor, group: &dyn GroupSum) -> Tensor {
    let count = annotation.ne(IGNORE).sum(logits.kind());
    group.sum(&count);
    partial_cross_entropy_over(logits, annotation, &count, group)
}

/// The same over `pixels`, 0-dimensional: the annotated ones of all micro-batches of a step, whose values
/// then add up to the mean.
pub fn partial_cross_entropy_over(
    logits: &Tensor,
    annotation: &Tensor,
    pixels: &Tensor,
    group: &dyn GroupSum,
) -> Tensor {
    let local = logits.cross_entropy_loss::<Tensor>(annotation, None, Reduction::Sum, IGNORE, 0.0);
    global_sum(&local, group) / pixels.to_kind(logits.kind()).clamp_min(1.0)
}

/// Labels `[N, H, W]` or `[N, D, H, W]` as one channel per class, in the shape and precision of `like`
/// (`[N, C, H, W]` or `[N, C, D, H, W]`): 0 and 1; pixels with an ignored label are 0 in every class.
pub fn one_hot(labels: &Tensor, like: &Tensor) -> Tensor {
    let mut shape = vec![1; like.dim()];
    shape[1] = -1;
    let classes = Tensor::arange(like.size()[1], (Kind::Int64, like.device())).view(&shape[..]);
    labels.unsqueeze(1).eq_tensor(&classes).to_kind(like.kind())
}

/// `1 - (2 I + s) / (Z + Y + s)` averaged over classes, from the per-class sums of this rank.
fn dice_from(sums: &[Tensor; 3], smooth: f64, group: &dyn GroupSum) -> Tensor {
    let [overlap, predicted, target] = sums;
    let total = global_sum(&Tensor::stack(&[overlap, predicted, target], 0), group);
    let ratio = (total.get(0) * 2.0 + smooth) / (total.get(1) + total.get(2) + smooth);
    1.0 - ratio.mean(overlap.kind())
}

fn class_sums(weighted: &Tensor) -> Tensor {
    let all: Vec<i64> = std::iter::once(0).chain(axes(weighted).iter().copied()).collect();
    weighted.sum_dim_intlist(all.as_slice(), false, weighted.kind())
}

/// Soft Dice loss of dense labels, mean over all classes with the background.
///
/// `probabilities` is `[N, C, H, W]`, `labels` `[N, H, W]` `i64`, both of volumes with a dimension D in front
/// of the rows. Sums run over the global batch and all pixels together, with squared denominators (WSL4MIS `DiceLoss`). `smooth` is added to both
/// sides of the fraction, [`SMOOTH`] as published.
pub fn dice(probabilities: &Tensor, labels: &Tensor, smooth: f64, group: &dyn GroupSum) -> Tensor {
    let target = one_hot(labels, probabilities);
    dice_from(
        &[
            class_sums(&(probabilities * &target)),
            class_sums(&probabilities.square()),
            class_sums(&target),
        ],
        smooth,
        group,
    )
}

/// Mean squared difference over the pixels where `weight` is 1, of all ranks together; 0 if there
/// are none. `prediction` and `target` are `[N, 1, ...]`, `weight` `[1 or N, 1, ...]` of 0 and 1.
pub fn masked_mean_square(
    prediction: &Tensor,
    target: &Tensor,
    weight: &Tensor,
    group: &dyn GroupSum,
) -> Tensor {
    let squares = (prediction - target).square() * weight;
    let count = weight.expand_as(target).sum(weight.kind());
    group.sum(&count);
    global_sum(&squares.sum(squares.kind()), group) / count.clamp_min(1.0)
}

/// Which pixels a partial Dice counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masking {
    /// The annotated pixels of each sample: what the papers say.
    PerSample,
    /// As the released code runs (WSL4MIS `pDLoss`): its mask broadcasts over the batch, so that a
    /// pixel counts as often as its position is annotated anywhere in the global batch.
    AcrossBatch,
}

/// Soft Dice loss over annotated pixels; shapes and sums as in [`dice`], 255 = not annotated.
pub fn partial_dice(
    probabilities: &Tensor,
    annotation: &Tensor,
    masking: Masking,
    group: &dyn GroupSum,
) -> Tensor {
    let target = one_hot(annotation, probabilities);
    let annotated = annotation.ne(IGNORE).to_kind(probabilities.kind()).unsqueeze(1);
    let weight = match masking {
        Masking::PerSample => annotated,
        Masking::AcrossBatch => {
            let positions = annotated.sum_dim_intlist([0i64].as_slice(), true, annotated.kind());
            group.sum(&positions);
            positions
        }
    };
    dice_from(
        &[
            class_sums(&(probabilities * &target * &weight)),
            class_sums(&(probabilities.square() * &weight)),
            class_sums(&(&target * &weight)),
        ],
        SMOOTH,
        group,
    )
}
