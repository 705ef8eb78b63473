//! Classes that nobody looked for in a sample, as a part of its background.
//!
//! A pixel that somebody called background of a sample shows the background, or any class that was not looked for in
//! it; which one, nobody can say. So the probabilities of all of these are added up before a prediction is compared
//! with the annotation: the marginal loss of Shi et al., Medical Image Analysis 70, 2021. Knows no annotation.

use tch::Tensor;

/// The logit of a class that has become background: its probability is 0 and its logarithm finite, so that 0 times it
/// is 0.
const LEAST_LOGIT: f64 = -3e4;

/// Logits in which the classes that nobody looked for have become background:
/// `p'_0 = p_0 + Σ p_c`, `p'_c = 0` for the classes `c` that were not looked for, and `p'_c = p_c` for all others.
///
/// `logits` is `[N, C, ...]`; `looked_for`, boolean `[N, C]`, says which classes were looked for in a sample, the
/// background always. Without it all were, and logits stay as they are; they do so bit for bit, and so does their
/// gradient, where it says of a sample that all were.
pub fn merged_logits(logits: &Tensor, looked_for: Option<&Tensor>) -> Tensor {
    let Some(looked_for) = looked_for else { return logits.shallow_clone() };
    let is_looked_for = of_structures(looked_for, logits);
    let structures = structures(logits);
    let unseen = structures.masked_fill(&is_looked_for, LEAST_LOGIT);
    let background = Tensor::cat(&[logits.narrow(1, 0, 1), unseen], 1).logsumexp([1i64], true);
    let seen = structures.masked_fill(&is_looked_for.logical_not(), LEAST_LOGIT);
    Tensor::cat(&[background, seen], 1)
}

/// The same of probabilities `[N, C, ...]`.
pub fn merged_probabilities(probabilities: &Tensor, looked_for: Option<&Tensor>) -> Tensor {
    let Some(looked_for) = looked_for else { return probabilities.shallow_clone() };
    let is_looked_for = of_structures(looked_for, probabilities);
    let structures = structures(probabilities);
    let unseen = structures.masked_fill(&is_looked_for, 0.0);
    let unseen = unseen.sum_dim_intlist([1i64].as_slice(), true, probabilities.kind());
    let background = probabilities.narrow(1, 0, 1) + unseen;
    Tensor::cat(&[background, structures.masked_fill(&is_looked_for.logical_not(), 0.0)], 1)
}

/// All classes of maps `[N, C, ...]` but the background.
fn structures(maps: &Tensor) -> Tensor {
    maps.narrow(1, 1, maps.size()[1] - 1)
}

/// Flags `[N, C]` of all classes but the background, to be broadcast to maps like `like`.
fn of_structures(looked_for: &Tensor, like: &Tensor) -> Tensor {
    let mut shape = vec![1; like.dim()];
    shape[..2].copy_from_slice(&looked_for.size());
    structures(&looked_for.view(&*shape))
}

#[cfg(test)]
mod tests {
    use super::super::{Masking, SMOOTH, partial_cross_entropy, partial_dice};
    use super::*;
    use crate::native::Alone;
    use tch::{Device, Kind};

    const OPTIONS: (Kind, Device) = (Kind::Double, Device::Cpu);

    /// `ln 1, ln 2, ln 5` at one pixel of so many samples: probabilities of an eighth, a quarter and five eighths.
    fn eighths(samples: i64) -> Tensor {
        let logits = [1.0f64, 2.0, 5.0].map(f64::ln).repeat(samples as usize);
        Tensor::from_slice(&logits).view([samples, 3, 1, 1])
    }

    fn flags(rows: &[[bool; 3]]) -> Tensor {
        Tensor::from_slice(rows.as_flattened()).view([rows.len() as i64, 3])
    }

    fn labels(classes: &[i64]) -> Tensor {
        Tensor::from_slice(classes).view([classes.len() as i64, 1, 1])
    }

    fn wave(shape: &[i64]) -> Tensor {
        let count = shape.iter().product::<i64>();
        ((Tensor::arange(count, OPTIONS) * 0.37).sin() * 3.0).view(shape)
    }

    fn value_and_gradient(at: &Tensor, loss: impl Fn(&Tensor) -> Tensor) -> (f64, Tensor) {
        let at = at.copy().set_requires_grad(true);
        let value = loss(&at);
        value.backward();
        (value.double_value(&[]), at.grad())
    }

    fn assert_near(found: &Tensor, expected: &[f64]) {
        let found: Vec<f64> = Vec::try_from(found.contiguous().view([-1])).unwrap();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-14, "{found} {expected}");
        }
    }

    #[test]
    fn background_of_a_sample_is_whatever_was_not_looked_for_in_it() {
        let no_third = flags(&[[true, true, false]]);
        let ce = |class: i64| {
            value_and_gradient(&eighths(1), |z| {
                let merged = merged_logits(z, Some(&no_third));
                partial_cross_entropy(&merged, &labels(&[class]), &Alone)
            })
        };
        // Background and third class have 6/8 together: p - p / (6/8) for each of the two.
        let (value, gradient) = ce(0);
        assert!((value - (4.0f64 / 3.0).ln()).abs() < 1e-15);
        assert_near(&gradient, &[-1.0 / 24.0, 0.25, -5.0 / 24.0]);
        // What is annotated as a class that was looked for is as it would be.
        let (value, gradient) = ce(1);
        assert!((value - 4.0f64.ln()).abs() < 1e-15);
        assert_near(&gradient, &[0.125, -0.75, 0.625]);
        let merged = merged_logits(&eighths(1), Some(&no_third)).softmax(1, Kind::Double);
        assert_near(&merged, &[0.75, 0.25, 0.0]);
        let p = eighths(1).softmax(1, Kind::Double);
        assert_near(&merged_probabilities(&p, Some(&no_third)), &[0.75, 0.25, 0.0]);
    }

    #[test]
    fn equal_logits_of_background_and_of_what_was_not_looked_for_have_equal_gradients() {
        let logits = wave(&[2, 4, 3, 5]);
        logits.narrow(1, 2, 1).copy_(&logits.narrow(1, 0, 1));
        let looked_for = Tensor::from_slice(&[true, true, false, true]).view([1, 4]).repeat([2, 1]);
        let background = Tensor::zeros([2, 3, 5], (Kind::Int64, Device::Cpu));
        let (_, gradient) = value_and_gradient(&logits, |z| {
            let merged = merged_logits(z, Some(&looked_for));
            partial_cross_entropy(&merged, &background, &Alone)
        });
        let of = |class: i64| gradient.narrow(1, class, 1);
        assert!(of(0).allclose(&of(2), 1e-13, 0.0, false));
        assert!(of(0).lt(0.0).all().int64_value(&[]) == 1, "both grow");
        assert!(of(1).gt(0.0).all().int64_value(&[]) == 1);
    }

    #[test]
    fn where_all_classes_were_looked_for_nothing_changes() {
        let all = Tensor::ones([2, 3], (Kind::Bool, Device::Cpu));
        for shape in [&[2, 3, 4, 5][..], &[2, 3, 2, 3, 2]] {
            for kind in [Kind::Double, Kind::Float, Kind::BFloat16] {
                let logits = wave(shape).to_kind(kind);
                let weights = (wave(shape) + 0.1).to_kind(kind);
                let change = |z: &Tensor| merged_logits(z, Some(&all));
                assert!(change(&logits).equal(&logits), "{shape:?} {kind:?}");
                let (_, gradient) =
                    value_and_gradient(&logits, |z| (change(z) * &weights).sum(kind));
                assert!(gradient.equal(&weights), "{shape:?} {kind:?}");
                let p = logits.softmax(1, kind);
                assert!(merged_probabilities(&p, Some(&all)).equal(&p));
            }
        }
        let logits = wave(&[2, 3, 4, 5]);
        assert_eq!(merged_logits(&logits, None).data_ptr(), logits.data_ptr());
        assert_eq!(merged_probabilities(&logits, None).data_ptr(), logits.data_ptr());
    }

    /// One sample in which everything was looked for and shows the third class, one without it that shows background.
    #[test]
    fn a_class_that_was_not_looked_for_takes_no_part_in_the_dice_of_its_sample() {
        let looked_for = flags(&[[true; 3], [true, true, false]]);
        let p = eighths(2).softmax(1, Kind::Double);
        let dice = partial_dice(
            &merged_probabilities(&p, Some(&looked_for)),
            &labels(&[2, 0]),
            Masking::PerSample,
            &Alone,
        );
        let ratio = |overlap: f64, predicted: f64, target: f64| {
            (2.0 * overlap + SMOOTH) / (predicted + target + SMOOTH)
        };
        let background = ratio(0.75, 1.0 / 64.0 + 0.75 * 0.75, 1.0);
        let second = ratio(0.0, 2.0 / 16.0, 0.0);
        let third = ratio(0.625, 0.625 * 0.625, 1.0);
        let expected = 1.0 - (background + second + third) / 3.0;
        assert!((dice.double_value(&[]) - expected).abs() < 1e-14);
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let looked_for = flags(&[[true, false, true], [true, true, true], [true, false, false]]);
        let annotation = Tensor::from_slice(&[0, 2, 255, 0, 0, 1, 2, 255, 0, 0, 255, 0i64]);
        let annotation = annotation.view([3, 2, 2]);
        let loss = |z: &Tensor| {
            let ce =
                partial_cross_entropy(&merged_logits(z, Some(&looked_for)), &annotation, &Alone);
            let p = merged_probabilities(&z.softmax(1, Kind::Double), Some(&looked_for));
            ce + partial_dice(&p, &annotation, Masking::PerSample, &Alone)
        };
        let logits = wave(&[3, 3, 2, 2]);
        let (_, gradient) = value_and_gradient(&logits, loss);
        let gradient: Vec<f64> = Vec::try_from(gradient.contiguous().view([-1])).unwrap();
        for (place, slope) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let moved = logits.copy();
                let mut one = moved.view([-1]).narrow(0, place as i64, 1);
                let _ = one.g_add_scalar_(by);
                loss(&moved).double_value(&[])
            };
            let found = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((found - slope).abs() < 1e-8, "{place}: {found} {slope}");
        }
    }

    #[test]
    fn a_rank_without_samples_has_logits_without_samples() {
        let looked_for = Tensor::zeros([0, 3], (Kind::Bool, Device::Cpu));
        let none = Tensor::zeros([0, 3, 4, 5], OPTIONS);
        assert_eq!(merged_logits(&none, Some(&looked_for)).size(), [0, 3, 4, 5]);
        assert_eq!(merged_probabilities(&none, Some(&looked_for)).size(), [0, 3, 4, 5]);
    }
}
