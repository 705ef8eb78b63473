//! CLTN: two generators turn diseased images healthy and healthy ones diseased, each through a mask;
//! the mask of the healing one is the lesion. Only the class of an image is known.
//!
//! Du et al., Computers in Biology and Medicine, 2024; what is computed follows mlcb-jlu/MedImgSeg
//! `CBFNet.py` at 73c6b9e. Six generator passes do what it does in eight: the generators do not change
//! between the discriminators' update and their own.

mod params;

use super::{Asked, Recipe, Setup};
use crate::data::IMAGE_LABEL;
use crate::data::batch::Batch;
use crate::data::stream::{HEALTHY, MAIN, Select, StreamSpec};
use crate::error::{Context, Failure, Result};
use crate::losses::adversarial::{squared_verdict, verdict};
use crate::losses::consistency::mean_absolute;
use crate::losses::{SMOOTH, dice, partial_cross_entropy};
use crate::native::{GroupSum, global_sum};
use crate::nets::label_transfer::{Generator, Judge, Transfer};
use crate::nets::spectral::Power;
use crate::parameters::Scope;
use crate::pseudo_labels::lesion::otsu;
use crate::train::learner::Learner;
use crate::train::point::StepPoint;
use crate::train::{Drawing, ForwardMode, Method, Objective, StepContext};
use params::Lesion;
pub use params::Params;
use tch::{Device, Kind, Tensor};

/// Keeps logarithms of masks finite.
const LEAST_SHARE: f64 = 1e-7;

/// Levels of an 8-bit mask above 0.
const LEVELS: f64 = 255.0;

/// The method with its two players.
pub struct Cltn {
    generators: Learner,
    /// From diseased to healthy.
    heal: Generator,
    /// From healthy to diseased.
    harm: Generator,
    judges: Learner,
    of_diseased: Judges,
    of_healthy: Judges,
    /// The running average of the generators, and the healing one of it.
    average: Option<(Learner, Generator)>,
    params: Params,
}

/// The two discriminators of one class of images.
struct Judges {
    /// Judges large parts.
    global: Judge,
    /// Judges small parts.
    local: Judge,
}

/// The images of a step in [-1, 1], `[N, 3, H, W]`, and how many there are over all ranks.
struct Images {
    diseased: Tensor,
    healthy: Tensor,
    samples: usize,
}

impl Recipe for Cltn {
    const NAME: &'static str = "cltn";
    const SUMMARY: &'static str =
        "generators heal diseased images through a mask, which is the lesion";
    const PAPER: &'static str =
        "Du et al., Computers in Biology and Medicine 2024; code: mlcb-jlu/MedImgSeg";
    const STREAMS: &'static [StreamSpec] =
        &[StreamSpec::new(MAIN, Select::ImageLabel(1)), StreamSpec::labelled(HEALTHY, 0)];
    const IN_PATCHES: bool = false;
    const IN_MICRO_BATCHES: bool = false;
    type Params = Params;

    fn refuse(params: &Params, asked: &Asked<'_>) -> Result<()> {
        params.check(asked.sampling.extent()[1] as i64)?;
        if params.lesion_label == 0.0 || asked.annotation != IMAGE_LABEL {
            return Ok(());
        }
        let message = format!(
            "`lesion_label` wants an annotation that shows lesions, and `{IMAGE_LABEL}` only says \
             that there are some"
        );
        let hint = "label the images first: `scrimp prepare pseudo-labels --with network --help`";
        Err(Failure::usage(message).hint(hint))
    }

    fn build(params: Params, setup: &Setup) -> Result<Self> {
        let size = params.generator(setup.sample[1] as i64);
        let pair = |scope: &mut Scope<'_>| {
            ["genA2B", "genB2A"].map(|name| Generator::new(&mut scope.sub(name), size))
        };
        let (generators, [heal, harm]) =
            Learner::new("generators", params.learner, setup.learner, pair)?;
        let average = (params.average > 0.0).then(|| {
            let (average, [heal, _]) = Learner::follower("average", setup.learner, pair);
            (average, heal)
        });
        let (large, small) = (params.global_layers, params.local_layers);
        let judge = |scope: &mut Scope<'_>, name: &str, layers| {
            Judge::new(&mut scope.sub(name), layers, params.judge_width)
        };
        let (judges, [first, second, third, fourth]) =
            Learner::new("discriminators", params.discriminator, setup.learner, |scope| {
                [("disGA", large), ("disGB", large), ("disLA", small), ("disLB", small)]
                    .map(|(name, layers)| judge(scope, name, layers))
            })?;
        let of_diseased = Judges { global: first, local: third };
        let of_healthy = Judges { global: second, local: fourth };
        Ok(Self { generators, heal, harm, judges, of_diseased, of_healthy, average, params })
    }
}

impl Judges {
    fn frozen(&self) -> Self {
        Self { global: self.global.frozen(), local: self.local.frozen() }
    }

    /// How far both are from taking `images` for real.
    fn doubt(&self, images: &Tensor, samples: usize, group: &dyn GroupSum) -> Result<Tensor> {
        let of = |judge| distance(judge, images, true, samples, group);
        Ok(of(&self.global)? + of(&self.local)?)
    }
}

/// How far a judge is from taking `images` for what they are, real or made.
fn distance(
    judge: &Judge,
    images: &Tensor,
    real: bool,
    samples: usize,
    group: &dyn GroupSum,
) -> Result<Tensor> {
    let said = judge.forward(images, Power::Iterate)?;
    let of = |outputs| squared_verdict(outputs, real, samples, group);
    Ok(of(&said.patches) + of(&said.scores))
}

impl Images {
    fn of(batch: &Batch) -> Result<Self> {
        let diseased = centred(&batch.main().image);
        let healthy = centred(&batch.of(HEALTHY)?.image);
        Ok(Self { diseased, healthy, samples: batch.global_size })
    }
}

/// From intensities in [0, 1] of one or three channels to `[N, 3, H, W]` in [-1, 1].
fn centred(image: &Tensor) -> Tensor {
    (image * 2.0 - 1.0).expand([-1, 3, -1, -1], false)
}

impl Cltn {
    /// The generator that predicts.
    fn healer(&self) -> &Generator {
        self.average.as_ref().map_or(&self.heal, |(_, heal)| heal)
    }

    fn train_judges(
        &mut self,
        images: &Images,
        [harmed, healed]: [&Transfer; 2],
        cx: &mut StepContext<'_>,
    ) -> Result<()> {
        let (group, samples, weight) = (cx.group(), images.samples, self.params.adversarial);
        let term = |judge: &Judge, real: &Tensor, made: &Transfer| {
            let of_made = |made: &Tensor| distance(judge, &made.detach(), false, samples, group);
            let real = distance(judge, real, true, samples, group)?;
            let painted = of_made(&made.painted)?;
            Ok(if self.params.judge_composed {
                real + (painted + of_made(&made.composed)?) * 0.5
            } else {
                real + painted
            })
        };
        let (diseased, healthy) = (&images.diseased, &images.healthy);
        let objective = Objective::new()
            .try_term("global_diseased", weight, || {
                term(&self.of_diseased.global, diseased, harmed)
            })?
            .try_term("local_diseased", weight, || term(&self.of_diseased.local, diseased, harmed))?
            .try_term("global_healthy", weight, || term(&self.of_healthy.global, healthy, healed))?
            .try_term("local_healthy", weight, || term(&self.of_healthy.local, healthy, healed))?;
        self.judges.update(objective, cx)
    }

    /// What the generators minimise, from their outputs for diseased and for healthy images.
    fn generators_objective(
        &self,
        images: &Images,
        [healed, harmed]: [&Transfer; 2],
        group: &dyn GroupSum,
    ) -> Result<Objective> {
        let (diseased, healthy, samples) = (&images.diseased, &images.healthy, images.samples);
        let judges = [self.of_diseased.frozen(), self.of_healthy.frozen()];
        let [of_diseased, of_healthy] = &judges;
        let restored_diseased = self.harm.forward(&healed.painted).painted;
        let restored_healthy = self.heal.forward(&harmed.painted).painted;
        let (same_diseased, same_healthy) =
            (self.harm.forward(diseased), self.heal.forward(healthy));
        let apart = |a: &Tensor, b: &Tensor| mean_absolute(a, b, samples, group);
        let told = |own: &Transfer, other: &Transfer| {
            verdict(&own.scores, true, samples, group)
                + verdict(&other.scores, false, samples, group)
        };
        let doubt = |judges: &Judges, made: &Tensor| judges.doubt(made, samples, group);
        let Params { adversarial, cycle, identity, class_score, reconstruction, .. } = self.params;
        let objective = Objective::new()
            .try_term("adversarial_diseased", adversarial, || doubt(of_diseased, &harmed.painted))?
            .try_term("adversarial_healthy", adversarial, || doubt(of_healthy, &healed.painted))?
            .try_term("composed_diseased", adversarial, || doubt(of_diseased, &harmed.composed))?
            .try_term("composed_healthy", adversarial, || doubt(of_healthy, &healed.composed))?
            .term("cycle_diseased", cycle, || apart(&restored_diseased, diseased))
            .term("cycle_healthy", cycle, || apart(&restored_healthy, healthy))
            .term("identity_diseased", identity, || apart(&same_diseased.painted, diseased))
            .term("identity_healthy", identity, || apart(&same_healthy.painted, healthy))
            .term("class_diseased", class_score, || told(harmed, &same_diseased))
            .term("class_healthy", class_score, || told(healed, &same_healthy))
            .term("reconstruction_diseased", reconstruction, || apart(&healed.restored, diseased))
            .term("reconstruction_healthy", reconstruction, || apart(&harmed.restored, healthy));
        Ok(objective)
    }
}

/// The shares of background and lesion, `[N, 2, H, W]` in (0, 1).
fn class_shares(mask: &Tensor) -> Tensor {
    let mask = mask.clamp(LEAST_SHARE, 1.0 - LEAST_SHARE);
    Tensor::cat(&[1.0 - &mask, mask], 1)
}

/// Masks `[N, 1, H, W]` in [0, 1] stretched so that `thresholds`, `[N, 1, 1, 1]` in (0, 1), become one half.
fn split_in_half(mask: &Tensor, thresholds: &Tensor) -> Tensor {
    let below = mask / thresholds * 0.5;
    let above: Tensor = 1.0 - (1.0 - mask) / (1.0 - thresholds) * 0.5;
    above.where_self(&mask.gt_tensor(thresholds), &below)
}

/// Otsu's threshold of each of the masks `[N, 1, H, W]` outside of `black`, `[N, 1, 1, 1]` in (0, 1).
fn otsu_thresholds(mask: &Tensor, black: &Tensor) -> Result<Tensor> {
    let levels = (mask * LEVELS).round().to_kind(Kind::Uint8);
    let of_one = |sample: i64| {
        let lit = black.get(sample).logical_not();
        let levels = levels.get(sample).masked_select(&lit).to_device(Device::Cpu);
        let levels: Vec<u8> = Vec::try_from(levels).context(|| "cannot fetch a mask")?;
        // Between two levels, so that rounding decides nothing.
        Ok((f64::from(otsu(&levels).min(u8::MAX - 1)) + 0.5) / LEVELS)
    };
    let thresholds = (0..mask.size()[0]).map(of_one).collect::<Result<Vec<f64>>>()?;
    Ok(Tensor::from_slice(&thresholds)
        .view([-1, 1, 1, 1])
        .to_kind(mask.kind())
        .to_device(mask.device()))
}

/// Mean of a mask over the pixels of all ranks, in [0, 1].
fn mean_over(mask: &Tensor, samples: usize, group: &dyn GroupSum) -> Tensor {
    let pixels = mask.size().iter().skip(1).product::<i64>() * samples.max(1) as i64;
    global_sum(&mask.sum(mask.kind()), group) / pixels as f64
}

impl Method for Cltn {
    fn form(&self, _point: &StepPoint) -> Option<u32> {
        Some(0)
    }

    fn step(&mut self, batch: &Batch, cx: &mut StepContext<'_>) -> Result<()> {
        let images = Images::of(batch)?;
        let healed = self.heal.forward(&images.diseased);
        let harmed = self.harm.forward(&images.healthy);
        self.train_judges(&images, [&harmed, &healed], cx)?;
        let objective = self.generators_objective(&images, [&healed, &harmed], cx.group())?;
        let annotation = &batch.main().annotation;
        let objective = objective.term("lesion_label", self.params.lesion_label, || {
            let logits = class_shares(&healed.mask).log();
            let smooth = SMOOTH / images.samples.max(1) as f64;
            partial_cross_entropy(&logits, annotation, cx.group())
                + dice(&logits.exp(), annotation, smooth, cx.group())
        });
        self.generators.update(objective, cx)?;
        if let Some((average, _)) = &mut self.average {
            let most = self.params.average;
            let keep = cx.numbers().number(annotation.device(), move |now| {
                (1.0 - 1.0 / (now.step as f64 + 1.0)).min(most)
            });
            average.follow(&self.generators, &keep, cx)?;
        }
        for (name, transfer) in
            [("generators/healing_mask", &healed), ("generators/harming_mask", &harmed)]
        {
            cx.observe(name, |group| mean_over(&transfer.mask, images.samples, group));
        }
        Ok(())
    }

    fn forward(&self, image: &Tensor, _mode: ForwardMode) -> Result<Tensor> {
        let mask = self.healer().mask(&centred(image));
        let black = image.amax([1i64].as_slice(), true).le(0.0);
        let black = black.logical_and(&Tensor::from(self.params.black_is_background));
        let mask = mask.masked_fill(&black, 0.0);
        Ok(class_shares(&match self.params.lesion {
            Lesion::Half => mask,
            Lesion::HalfOfLargest => {
                let largest = mask.amax([1i64, 2, 3].as_slice(), true);
                &mask / largest.clamp_min(LEAST_SHARE)
            }
            Lesion::Otsu => split_in_half(&mask, &otsu_thresholds(&mask, &black)?),
        }))
    }

    fn pictures(
        &self,
        image: &Tensor,
        _annotation: &Tensor,
    ) -> Result<Vec<(&'static str, Drawing)>> {
        tch::no_grad(|| {
            let healed = self.healer().forward(&centred(image));
            let again = self.harm.forward(&healed.painted).painted;
            let shown = |image: Tensor| Drawing::Shares((image + 1.0) * 0.5);
            Ok(vec![
                ("mask", Drawing::Shares(healed.mask)),
                ("painted", shown(healed.painted)),
                ("composed", shown(healed.composed)),
                ("cycle", shown(again)),
            ])
        })
    }

    fn adapt_statistics(&self, _image: &Tensor, _share: f64) -> Result<()> {
        // Every statistic is of one sample, and none is kept.
        Ok(())
    }

    fn learners(&self) -> Vec<&Learner> {
        let average = self.average.iter().map(|(average, _)| average);
        [&self.generators, &self.judges].into_iter().chain(average).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn otsu_finds_what_is_painted_most_however_much_is_painted_around_it() {
        let around = [0.0f32, 0.41, 0.44, 0.4, 0.93, 0.9];
        let alone = [0.0f32, 0.01, 0.02, 0.01, 0.2, 0.21];
        let mask = Tensor::from_slice(&[around, alone].concat()).view([2, 1, 2, 3]);
        let black = mask.le(0.0);
        let split = split_in_half(&mask, &otsu_thresholds(&mask, &black).unwrap());
        let found = Vec::<bool>::try_from(split.gt(0.5).view(-1)).unwrap();
        assert_eq!(found, [[false, false, false, false, true, true]; 2].concat());
        assert!(split.min().double_value(&[]) >= 0.0 && split.max().double_value(&[]) <= 1.0);
        let all_black = otsu_thresholds(&mask.zeros_like(), &mask.ge(0.0)).unwrap();
        assert!(split_in_half(&mask.zeros_like(), &all_black).max().double_value(&[]) < 0.5);
    }
}
