//! Annotated samples mixed with others of the batch, or with a hole in them: what is trained on then.
//!
//! Where the others and a saliency come from is up to the method. Knows no network and no objective.

use super::params::{Mixing, Params};
use crate::error::{Failure, Result};
use crate::losses::looked_for::merged_logits;
use crate::losses::one_hot;
use crate::mixing::boxes::{corners, cut, hole, inside};
use crate::mixing::mixture::Mixture;
use crate::mixing::puzzle::Draw;
use crate::random::{Key, permutation};
use crate::train::point::{StepNumbers, StepPoint};
use tch::{Kind, Tensor};

/// Samples of which some are mixed with others.
#[derive(Debug)]
pub(super) struct Annotated {
    /// `[N, C, ...]`.
    pub(super) image: Tensor,
    /// `[N, ...]` i64, a class or `data::IGNORE`.
    pub(super) annotation: Tensor,
    /// As those of a batch.
    pub(super) looked_for: Option<Tensor>,
    /// `[N, 1, ...]`, at least 0, where a mixing needs it.
    pub(super) saliency: Option<Tensor>,
}

/// Samples that are trained on.
#[derive(Debug)]
pub(super) struct Mixed {
    /// `[N, C, ...]`.
    pub(super) image: Tensor,
    /// The share of each class in every pixel, `[N, classes, ...]`: what is missing to 1 is not known.
    pub(super) target: Tensor,
    /// The share of the sample itself in every pixel, `[1 or N, 1, ...]`.
    pub(super) share: Tensor,
    /// What of the target comes from the sample itself, and what from the one that it is mixed with where it is; none
    /// where all classes were looked for in all samples.
    apart: Vec<Known>,
}

/// What is known of one of the samples that are mixed with each other.
#[derive(Debug)]
struct Known {
    /// `[N, classes, ...]`.
    target: Tensor,
    /// `[N, classes]`.
    looked_for: Tensor,
}

impl Mixed {
    /// Logits `[N, classes, ...]` of mixed samples as they are compared with what is known, and that.
    ///
    /// Background of the sample itself and of the other one may hold different classes that nobody looked for. So
    /// each part of the target has logits of its own, and both are put one after the other, `[2 N, classes, ...]`.
    pub(super) fn compared(&self, logits: &Tensor) -> (Tensor, Tensor) {
        if self.apart.is_empty() {
            return (logits.shallow_clone(), self.target.shallow_clone());
        }
        let known = self.apart.iter();
        let merged = known.map(|known| merged_logits(logits, Some(&known.looked_for)));
        let merged: Vec<Tensor> = merged.collect();
        let targets: Vec<&Tensor> = self.apart.iter().map(|known| &known.target).collect();
        (Tensor::cat(&merged, 0), Tensor::cat(&targets, 0))
    }
}

/// The numbers of a mix: those of a step, for the samples of one rank.
#[derive(Clone, Copy)]
pub(super) struct Draws<'a> {
    pub(super) numbers: &'a StepNumbers,
    /// Positions of the samples in the global batch.
    pub(super) positions: &'a [u64],
}

impl Annotated {
    /// Everything that has pixels as channels of one tensor, `[N, C + 1 or C + 2, ...]`.
    pub(super) fn stacked(&self) -> Tensor {
        let annotation = self.annotation.unsqueeze(1).to_kind(self.image.kind());
        let all = [Some(&self.image), Some(&annotation), self.saliency.as_ref()];
        Tensor::cat(&all.into_iter().flatten().collect::<Vec<_>>(), 1)
    }

    /// What [`Annotated::stacked`] makes of samples of `channels`.
    pub(super) fn from_stacked(all: &Tensor, channels: i64) -> Self {
        let has_saliency = all.size()[1] == channels + 2;
        Self {
            image: all.narrow(1, 0, channels),
            annotation: all.select(1, channels).to_kind(Kind::Int64),
            looked_for: None,
            saliency: has_saliency.then(|| all.narrow(1, channels + 1, 1)),
        }
    }

    /// `[N, H, W]`.
    fn saliency(&self) -> Result<Tensor> {
        let missing = || Failure::new("a puzzle needs to know which pixels matter");
        Ok(self.saliency.as_ref().ok_or_else(missing)?.squeeze_dim(1))
    }
}

impl Draws<'_> {
    /// Which position's sample each of the samples is mixed with, in a global batch of so many: i64 `[N]`.
    pub(super) fn partners(&self, global_size: usize, like: &Tensor) -> Tensor {
        let positions = self.positions.to_vec();
        let numbers = self.numbers.numbers(like.device(), move |now| {
            let order = permutation(of_mix(now).purpose("partners"), global_size);
            positions.iter().map(|&position| order[position as usize] as f64).collect()
        });
        numbers.to_kind(Kind::Int64)
    }

    /// The share of each sample that a hole leaves: one hole in each.
    fn around_holes(&self, half_side: usize, like: &Tensor) -> Tensor {
        let positions = self.positions.to_vec();
        self.outside(like, move |now, extents| {
            let keys = now.sample_keys("mixing", &positions).into_iter();
            keys.flat_map(|key| box_in(extents, &Cutting::Hole { half_side }, key)).collect()
        })
    }

    /// The share that one box for all samples leaves.
    fn around_cut(&self, alpha: f64, like: &Tensor) -> Tensor {
        self.outside(like, move |now, extents| {
            let key = of_mix(now);
            let share = key.purpose("share").draws().beta(alpha);
            box_in(extents, &Cutting::Cut { share }, key.purpose("box"))
        })
    }

    fn outside(
        &self,
        like: &Tensor,
        of: impl Fn(&StepPoint, &[usize]) -> Vec<f64> + 'static,
    ) -> Tensor {
        let extents: Vec<usize> = like.size()[2..].iter().map(|&extent| extent as usize).collect();
        let boxes = self.numbers.numbers(like.device(), move |now| of(now, &extents));
        1.0 - inside(&boxes, like)
    }

    /// One share for all samples: `[1, 1, ...]` of ones.
    fn share(&self, alpha: f64, like: &Tensor) -> Tensor {
        let share = self
            .numbers
            .number(like.device(), move |now| of_mix(now).purpose("share").draws().beta(alpha));
        share.to_kind(like.kind()).view(&*vec![1; like.dim()])
    }

    fn of_puzzle(&self, alpha: f64) -> Draw {
        let key = of_mix(self.numbers.point());
        let exponent = key.purpose("blocks").draws().below(4) + 1;
        Draw { blocks: 1 << exponent, share: key.purpose("share").draws().beta(alpha) }
    }
}

fn of_mix(point: &StepPoint) -> Key {
    point.key("mixing")
}

/// Which box is drawn.
enum Cutting {
    Hole { half_side: usize },
    Cut { share: f64 },
}

/// The corners of a box in images of rows and columns, or in volumes of slices, rows and columns.
fn box_in(extents: &[usize], of: &Cutting, key: Key) -> Vec<f64> {
    fn drawn<const AXES: usize>(extents: [usize; AXES], of: &Cutting, key: Key) -> Vec<f64> {
        corners(&match *of {
            Cutting::Hole { half_side } => hole(key, extents, half_side),
            Cutting::Cut { share } => cut(key, extents, share),
        })
    }
    match *extents {
        [slices, rows, columns] => drawn([slices, rows, columns], of, key),
        [rows, columns] => drawn([rows, columns], of, key),
        _ => Vec::new(),
    }
}

/// What a mixing makes of samples and of those that they are mixed with, of which a hole needs nothing.
pub(super) fn mixed(
    [own, partners]: [&Annotated; 2],
    params: &Params,
    classes: i64,
    draws: Draws<'_>,
) -> Result<Mixed> {
    let images = [&own.image, &partners.image];
    let targets = [own, partners].map(|of| one_hot_of(of, classes));
    let blended = |share: Tensor| {
        let parts = |[one, other]: [&Tensor; 2]| [one * &share, other * (1.0 - &share)];
        let ([one, other], [target, beside]) = (parts(images), parts(targets.each_ref()));
        (one + other, (target, Some(beside)), share)
    };
    let (image, (target, beside), share) = match params.mixing {
        Mixing::None => blended(images[0].ones_like().narrow(1, 0, 1)),
        Mixing::Mixup => blended(draws.share(params.mixup.alpha, images[0])),
        Mixing::Cutmix => blended(draws.around_cut(params.cutmix.alpha, images[0])),
        Mixing::Cutout => {
            let share = draws.around_holes(params.cutout.half_side as usize, images[0]);
            (images[0] * &share, (&targets[0] * &share, None), share)
        }
        Mixing::Puzzle => {
            let saliency = [own.saliency()?, partners.saliency()?];
            let (settings, draw) = (params.puzzle.settings(), draws.of_puzzle(params.puzzle.alpha));
            let mixture = Mixture::of(images, saliency.each_ref(), &settings, draw)?;
            let (image, in_place) = (mixture.of_maps(images), mixture.in_place());
            let [target, beside] = in_place.of_each(targets.each_ref());
            (image, (target, Some(beside)), mixture.shares)
        }
    };
    let known = |target: &Tensor, of: &Annotated| {
        let looked_for = of.looked_for.as_ref()?.shallow_clone();
        Some(Known { target: target.shallow_clone(), looked_for })
    };
    let of_partners = beside.as_ref().and_then(|target| known(target, partners));
    let apart = known(&target, own).into_iter().chain(of_partners).collect();
    let target = beside.map_or_else(|| target.shallow_clone(), |beside| &target + beside);
    Ok(Mixed { image, target, share, apart })
}

/// The annotation as shares of classes, `[N, classes, ...]`.
fn one_hot_of(of: &Annotated, classes: i64) -> Tensor {
    let mut size = of.image.size();
    size[1] = classes;
    one_hot(&of.annotation, &of.image.narrow(1, 0, 1).expand(&*size, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::mixed::soft_partial_cross_entropy;
    use crate::native::Alone;
    use std::ops::Range;
    use tch::Device;

    const CLASSES: usize = 3;
    const SAMPLES: usize = 4;
    /// Of a step whose mixes show something of both samples.
    const KEY: u64 = 35;

    fn params(mixing: &str) -> Params {
        let rest = "cutout = { half_side = 2 }\nlearner = { lr = 0.1, optimizer = { sgd = {} } }";
        toml::from_str(&format!("mixing = \"{mixing}\"\nmixup = {{ alpha = 0.7 }}\n{rest}"))
            .unwrap()
    }

    fn wave(size: &[i64], factor: f64) -> Tensor {
        let count = size.iter().product::<i64>();
        (Tensor::arange(count, (Kind::Double, Device::Cpu)) * factor).sin().view(size)
    }

    /// Samples of two channels and these extents, of which two thirds of the pixels are annotated.
    fn samples(extents: &[i64], factor: f64) -> Annotated {
        let size = |front: &[i64]| [front, extents].concat();
        let labels =
            (wave(&size(&[SAMPLES as i64]), 3.0 * factor) * 2.0 + 2.0).to_kind(Kind::Int64);
        let annotation = labels.where_scalarother(&labels.lt(CLASSES as i64), 255);
        Annotated {
            image: wave(&size(&[SAMPLES as i64, 2]), factor),
            annotation,
            looked_for: None,
            saliency: Some(wave(&size(&[SAMPLES as i64, 1]), 1.3 * factor).square()),
        }
    }

    fn point() -> StepPoint {
        StepPoint::new(3, 9, Key::new(KEY))
    }

    fn draw<'a>(numbers: &'a StepNumbers, positions: &'a [u64]) -> Draws<'a> {
        Draws { numbers, positions }
    }

    fn of_step(own: &Annotated, partners: &Annotated, params: &Params) -> Mixed {
        let numbers = StepNumbers::of(point());
        let positions: Vec<u64> = (0..SAMPLES as u64).collect();
        let draws = draw(&numbers, &positions);
        mixed([own, partners], params, CLASSES as i64, draws).unwrap()
    }

    fn numbers_of(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.to_kind(Kind::Double).contiguous().view([-1])).unwrap()
    }

    /// Whether pixel `at` of an image of these extents, in row-major order, lies in a box.
    fn lies_in(along: &[Range<usize>], extents: &[i64], mut at: usize) -> bool {
        let axes = along.iter().zip(extents).rev();
        axes.fold(true, |is_inside, (range, &extent)| {
            let place = at % extent as usize;
            at /= extent as usize;
            is_inside && range.contains(&place)
        })
    }

    /// Images and targets pixel by pixel: `share` is that of the own of sample and pixel; `None` for the
    /// partner: it is dark there and nobody knows what it is.
    fn by_hand(
        own: &Annotated,
        partner: Option<&Annotated>,
        share: impl Fn(usize, usize) -> f64,
    ) -> [Vec<f64>; 2] {
        let pixels = own.annotation.numel() / SAMPLES;
        let images = [Some(own), partner].map(|of| of.map(|of| numbers_of(&of.image)));
        let labels = [Some(own), partner].map(|of| of.map(|of| numbers_of(&of.annotation)));
        let mix = |sample: usize, pixel: usize, of: &dyn Fn(usize) -> f64| {
            let share = share(sample, pixel);
            share * of(0) + (1.0 - share) * of(1)
        };
        let places = |channels: usize| {
            (0..SAMPLES * channels * pixels)
                .map(move |at| (at / (channels * pixels), at / pixels % channels, at % pixels, at))
        };
        let image = places(2).map(|(sample, _, pixel, at)| {
            mix(sample, pixel, &|of| images[of].as_ref().map_or(0.0, |image| image[at]))
        });
        let target = places(CLASSES).map(|(sample, class, pixel, _)| {
            let is = |labels: &Vec<f64>| labels[sample * pixels + pixel] as usize == class;
            mix(sample, pixel, &|of| {
                labels[of].as_ref().map_or(0.0, |of| f64::from(u8::from(is(of))))
            })
        });
        [image.collect(), target.collect()]
    }

    fn assert_near(found: &Tensor, expected: &[f64], what: &str) {
        let found = numbers_of(found);
        assert_eq!(found.len(), expected.len(), "{what}");
        let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
        assert!(differences.fold(0.0, f64::max) < 1e-12, "{what}");
    }

    /// The loss of mixed samples and its gradient, from their definitions.
    fn assert_loss(target: &Tensor, what: &str) {
        let logits = (wave(&target.size(), 0.83) * 2.0).set_requires_grad(true);
        let loss = soft_partial_cross_entropy(&logits, target, &Alone);
        loss.backward();
        let pixels = target.numel() / SAMPLES / CLASSES;
        let (z, t) = (numbers_of(&logits.detach()), numbers_of(target));
        let mass: f64 = t.iter().sum();
        let place =
            |sample: usize, class: usize, pixel: usize| (sample * CLASSES + class) * pixels + pixel;
        let (mut value, mut gradient) = (0.0, vec![0.0; t.len()]);
        for (sample, pixel) in (0..SAMPLES).flat_map(|s| (0..pixels).map(move |p| (s, p))) {
            let all = |of: &dyn Fn(usize) -> f64| -> f64 {
                (0..CLASSES).map(|class| of(place(sample, class, pixel))).sum()
            };
            let (sum, known) = (all(&|at| z[at].exp()), all(&|at| t[at]));
            for at in (0..CLASSES).map(|class| place(sample, class, pixel)) {
                value -= t[at] * (z[at] - sum.ln()) / mass;
                gradient[at] = (known * z[at].exp() / sum - t[at]) / mass;
            }
        }
        assert_near(&loss.detach(), &[value], what);
        assert_near(&logits.grad(), &gradient, what);
    }

    #[test]
    fn every_mixing_is_its_formula_in_images_and_volumes() {
        let key = of_mix(&point());
        for extents in [&[6, 7][..], &[3, 5, 4]] {
            let (own, partners) = (samples(extents, 0.37), samples(extents, 0.71));
            let sizes: Vec<usize> = extents.iter().map(|&extent| extent as usize).collect();
            let found = |name: &str| of_step(&own, &partners, &params(name));
            let check = |name: &str, partner, share: &dyn Fn(usize, usize) -> f64| {
                let (found, [image, target]) = (found(name), by_hand(&own, partner, share));
                assert_near(&found.image, &image, name);
                assert_near(&found.target, &target, name);
                assert!(target.iter().any(|&share| share > 0.0) && target.contains(&0.0));
                assert_loss(&found.target, name);
            };
            let share = key.purpose("share").draws().beta(0.7);
            assert!(share > 0.0 && share < 1.0);
            check("mixup", Some(&partners), &|_, _| share);
            let share = key.purpose("share").draws().beta(1.0);
            let within = |key: Key, is_hole: bool| -> Vec<Range<usize>> {
                match *sizes {
                    [rows, columns] if is_hole => hole(key, [rows, columns], 2).to_vec(),
                    [rows, columns] => cut(key, [rows, columns], share).to_vec(),
                    [slices, rows, columns] if is_hole => {
                        hole(key, [slices, rows, columns], 2).to_vec()
                    }
                    [slices, rows, columns] => cut(key, [slices, rows, columns], share).to_vec(),
                    _ => Vec::new(),
                }
            };
            let outside = |along: &[Range<usize>], pixel| {
                if lies_in(along, extents, pixel) { 0.0 } else { 1.0 }
            };
            let of_all = within(key.purpose("box"), false);
            check("cutmix", Some(&partners), &|_, pixel| outside(&of_all, pixel));
            let holes: Vec<_> =
                (0..SAMPLES as u64).map(|at| within(key.number(at), true)).collect();
            assert!(holes.windows(2).any(|holes| holes[0] != holes[1]));
            check("cutout", None, &|sample, pixel| outside(&holes[sample], pixel));
            check("none", Some(&partners), &|_, _| 1.0);
        }
    }

    /// Patches move, their annotation stays.
    #[test]
    fn a_puzzle_takes_annotation_by_the_shares_of_its_pixels() {
        let salient = |factor: f64, at: i64| {
            let far = |axis: i64| {
                let mut size = [1; 4];
                size[axis as usize] = 64;
                (Tensor::arange(64, (Kind::Double, Device::Cpu)) - at).square().view(size)
            };
            let saliency =
                ((far(2) + far(3)) * -0.01).exp().expand([SAMPLES as i64, 1, 64, 64], false);
            Annotated { saliency: Some(saliency), ..samples(&[64, 64], factor) }
        };
        let (own, partners) = (salient(0.37, 20), salient(0.71, 30));
        let settings = params("puzzle");
        let found = of_step(&own, &partners, &settings);
        let shares = numbers_of(&found.share);
        let share = |sample, pixel| shares[sample * 4096 + pixel];
        let [image, target] = by_hand(&own, Some(&partners), share);
        assert_near(&found.target, &target, "target");
        let in_place = Tensor::from_slice(&image).view_as(&found.image);
        let moved = (&found.image - in_place).abs().gt(0.01).any().int64_value(&[]);
        assert_eq!(moved, 1, "no patch has moved");
        assert!(shares.iter().all(|share| [0.0, 0.5, 1.0].contains(share)));
        let images = [&own.image, &partners.image];
        let saliency = [own.saliency().unwrap(), partners.saliency().unwrap()];
        let draw = draw(&StepNumbers::of(point()), &[]).of_puzzle(0.5);
        let plain = settings.puzzle.settings();
        let mixture = Mixture::of(images, saliency.each_ref(), &plain, draw).unwrap();
        assert!(found.image.equal(&mixture.of_maps(images)));
        assert_loss(&found.target, "puzzle");
        let still: Params = Params {
            puzzle: crate::methods::puzzle::Puzzle { transport: false, ..settings.puzzle.clone() },
            ..settings
        };
        assert_near(&of_step(&own, &partners, &still).image, &image, "without transport");
    }

    /// Own background holds the last class, which nobody looked for, and that of the partners the second one.
    #[test]
    fn background_of_each_of_two_samples_holds_what_nobody_looked_for_in_it() {
        let lacking = |factor: f64, class: i64| {
            let all = samples(&[6, 7], factor);
            let annotation = all.annotation.masked_fill(&all.annotation.eq(class), 0);
            let flags = (0..CLASSES as i64).map(|other| other != class).collect::<Vec<_>>();
            let flags = Tensor::from_slice(&flags).repeat([SAMPLES as i64, 1]);
            Annotated { annotation, looked_for: Some(flags), ..all }
        };
        let (own, partners) = (lacking(0.37, 2), lacking(0.71, 1));
        let p = wave(&[SAMPLES as i64, 3, 6, 7], 0.83).softmax(1, Kind::Double);
        let column = |class: i64| p.narrow(1, class, 1);
        let none = column(0).zeros_like();
        let expected_p = [
            Tensor::cat(&[column(0) + column(2), column(1), none.shallow_clone()], 1),
            Tensor::cat(&[column(0) + column(1), none, column(2)], 1),
        ];
        for name in ["mixup", "cutmix", "cutout"] {
            let found = of_step(&own, &partners, &params(name));
            let (logits, target) = found.compared(&p.log());
            let loss = soft_partial_cross_entropy(&logits, &target, &Alone).double_value(&[]);
            let other: Tensor = 1.0 - &found.share;
            let targets = [
                one_hot_of(&own, 3) * &found.share,
                one_hot_of(&partners, 3) * if name == "cutout" { other * 0.0 } else { other },
            ];
            assert!(
                (&targets[0] + &targets[1] - &found.target).abs().max().double_value(&[]) < 1e-14
            );
            let terms = targets.iter().zip(&expected_p).map(|(target, p)| {
                (target * p.clamp_min(1e-300).log()).sum(Kind::Double).double_value(&[])
            });
            let expected = -terms.sum::<f64>() / found.target.sum(Kind::Double).double_value(&[]);
            assert!((loss - expected).abs() < 1e-12, "{name}: {loss} {expected}");
        }
    }

    #[test]
    fn partners_are_a_permutation_of_the_positions_of_all_ranks() {
        let like = Tensor::zeros([1], (Kind::Double, Device::Cpu));
        let numbers = StepNumbers::of(point());
        let of = |positions: &[u64]| {
            Vec::<i64>::try_from(draw(&numbers, positions).partners(6, &like)).unwrap()
        };
        let all = of(&[0, 1, 2, 3, 4, 5]);
        assert_eq!([of(&[0, 1]), of(&[2]), of(&[3, 4, 5])].concat(), all);
        let mut sorted = all.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..6) && all != sorted, "{all:?}");
        assert!(of(&[]).is_empty());
    }

    #[test]
    fn samples_come_back_from_the_channels_that_they_are_stacked_in() {
        for has_saliency in [true, false] {
            let mut samples = samples(&[4, 5], 0.9);
            samples.saliency = samples.saliency.filter(|_| has_saliency);
            let back = Annotated::from_stacked(&samples.stacked(), 2);
            assert!(back.image.equal(&samples.image) && back.annotation.equal(&samples.annotation));
            assert_eq!(back.saliency.is_some(), has_saliency);
        }
    }
}
