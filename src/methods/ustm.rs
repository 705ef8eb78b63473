//! USTM: a mean teacher on turned, noisy images is followed where it is sure of itself.
//!
//! Liu et al., Pattern Recognition 122, 2022; what is computed follows HiLab-git/WSL4MIS
//! `code/train_weakly_supervised_ustm_2D.py` at a594da8: quarter turns, and constants for two
//! classes although there are four. The teacher is never in evaluation mode.

use super::{Passes, Recipe, Setup, annotated_cross_entropy, probabilities};
use crate::data::batch::Batch;
use crate::data::samples::Samples;
use crate::error::Result;
use crate::losses::consistency::{masked_consistency, uncertainty};
use crate::native::{Form, global_sum, normal};
use crate::nets::unet::UNet;
use crate::train::learner::{Learner, LearnerConfig};
use crate::train::numbers;
use crate::train::point::StepPoint;
use crate::train::schedule::ramp_up;
use crate::train::{ForwardMode, Method, Objective, StepContext, Weight};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// Passes of the teacher that tell how sure it is, two of them in one batch.
const PASSES: usize = 8;
/// Passes that share a batch.
const TOGETHER: i64 = 2;
/// Standard deviation of the noise on the teacher's images, and the largest it adds.
const NOISE: f64 = 0.1;
const LARGEST_NOISE: f64 = 0.2;

/// `[method.params]` of `ustm`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Weight of the cross-entropy over annotated pixels, above 0.
    #[serde(default = "one", deserialize_with = "numbers::positive")]
    partial_ce: f64,
    /// Weight of the consistency with the teacher once it has risen to its full value.
    #[serde(default = "one", deserialize_with = "numbers::weight")]
    consistency: f64,
    /// Steps of one unit of the ramp: the weight changes every so many steps; at least 1.
    #[serde(default = "ramp_unit_steps", deserialize_with = "numbers::some_steps")]
    ramp_unit_steps: u64,
    /// Units over which the weight grows, beginning with 0.0067 of it; at least 1.
    #[serde(default = "ramp_units", deserialize_with = "numbers::some_steps")]
    ramp_units: u64,
    /// Largest share of its own weights that the teacher keeps in a step, in [0, 1).
    #[serde(default = "decay", deserialize_with = "numbers::share")]
    decay: f64,
    /// The student's learner.
    learner: LearnerConfig,
}

fn one() -> f64 {
    1.0
}

fn ramp_unit_steps() -> u64 {
    1000
}

fn ramp_units() -> u64 {
    60
}

fn decay() -> f64 {
    0.99
}

impl Params {
    /// The weight of the consistency after `done` steps.
    pub fn weight(&self, done: u64) -> f64 {
        let units = done / self.ramp_unit_steps;
        self.consistency * ramp_up(units as f64 / self.ramp_units as f64)
    }
}

/// The uncertainty below which the teacher is followed, after `done` of `total_steps` steps.
pub fn threshold(done: u64, total_steps: u64) -> f64 {
    let ramp = ramp_up(done as f64 / total_steps as f64);
    0.25f64.mul_add(ramp, 0.75) * std::f64::consts::LN_2
}

/// The share of its own weights that the teacher keeps after step `done + 1`.
pub fn kept(done: u64, decay: f64) -> f64 {
    (1.0 - 1.0 / (done as f64 + 1.0)).min(decay)
}

/// The method with its two networks.
pub struct Ustm {
    segmenter: Learner,
    net: UNet,
    teacher: Learner,
    teacher_net: UNet,
    passes: Passes,
    params: Params,
}

/// What is random in one iteration, beside dropout.
pub struct Chance {
    /// Quarter turns, 0 to 3, from the row axis towards the column axis.
    pub turns: i64,
    /// Standard normal numbers for the image that is followed, `[N, 1, H, W]`.
    pub noise: Tensor,
    /// The same for the passes that tell how sure the teacher is: four of `[2N, 1, H, W]`.
    pub passes_noise: Vec<Tensor>,
}

impl Recipe for Ustm {
    const NAME: &'static str = "ustm";
    const SUMMARY: &'static str = "a mean teacher is followed where it is sure of itself";
    const PAPER: &'static str = "Liu et al., Pattern Recognition 2022; code: HiLab-git/WSL4MIS";
    type Params = Params;

    fn refuse_lacking_classes(_params: &Params) -> Result<()> {
        Ok(())
    }

    fn build(params: Params, setup: &Setup) -> Result<Self> {
        let (segmenter, net) = Learner::new("segmenter", params.learner, setup.learner, |scope| {
            UNet::new(scope, setup.channels, setup.classes)
        })?;
        let (teacher, teacher_net) = Learner::follower("teacher", setup.learner, |scope| {
            UNet::new(scope, setup.channels, setup.classes)
        });
        Ok(Self { segmenter, net, teacher, teacher_net, passes: setup.passes.clone(), params })
    }
}

/// What the teacher says of turned images.
pub struct Lesson {
    /// Class probabilities, `[N, C, H, W]`.
    pub target: Tensor,
    /// Where it is sure enough: `[N, 1, H, W]` of 0 and 1.
    pub mask: Tensor,
}

/// Where the mean of several predictions, `[passes, N, C, H, W]`, is less uncertain than `threshold`,
/// which is 0-dimensional.
pub fn sure_mask(probabilities: &Tensor, threshold: &Tensor) -> Tensor {
    let mean = probabilities.mean_dim([0i64].as_slice(), false, probabilities.kind());
    uncertainty(&mean).lt_tensor(threshold).to_kind(mean.kind())
}

impl Ustm {
    /// One iteration with given chance.
    pub fn iterate(
        &mut self,
        batch: &Batch,
        chance: &Chance,
        cx: &mut StepContext<'_>,
    ) -> Result<()> {
        let samples = batch.main();
        let pass = self.passes.train("student", samples, cx);
        let logits = self.net.forward(&samples.image, &pass)?;
        let turned = samples.image.rot90(chance.turns, [2i64, 3].as_slice());
        let lesson = tch::no_grad(|| self.lesson(samples, &turned, chance, cx))?;
        let weight = self.consistency_weight(samples.image.device(), cx);
        let group = cx.group();
        let objective = Objective::new()
            .term("partial_ce", self.params.partial_ce, || {
                annotated_cross_entropy(&logits, samples, cx)
            })
            .term("consistency", weight, || {
                let turned = logits.rot90(chance.turns, [2i64, 3].as_slice());
                let probabilities = turned.softmax(1, turned.kind());
                masked_consistency(&probabilities, &lesson.target, &lesson.mask, group)
            });
        self.segmenter.update(objective, cx)?;
        let pixels = turned.size().iter().skip(1).product::<i64>() * batch.global_size as i64;
        cx.observe("teacher/sure", |group| {
            global_sum(&lesson.mask.sum(lesson.mask.kind()), group) / pixels.max(1) as f64
        });
        let decay = self.params.decay;
        let keep = cx.numbers().number(turned.device(), move |now| kept(now.step - 1, decay));
        self.teacher.follow(&self.segmenter, &keep, cx)
    }

    /// It grows over the run.
    fn consistency_weight(&self, device: Device, cx: &StepContext<'_>) -> Weight {
        if self.params.consistency == 0.0 {
            return Weight::Fixed(0.0);
        }
        let params = self.params.clone();
        Weight::Varying(cx.numbers().number(device, move |now| params.weight(now.step - 1)))
    }

    fn lesson(
        &self,
        samples: &Samples,
        turned: &Tensor,
        chance: &Chance,
        cx: &StepContext<'_>,
    ) -> Result<Lesson> {
        let noisy = |image: &Tensor, normal: &Tensor| {
            image + (normal * NOISE).clamp(-LARGEST_NOISE, LARGEST_NOISE)
        };
        let pass = self.passes.train("teacher", samples, cx);
        let target = self.teacher_net.forward(&noisy(turned, &chance.noise), &pass)?;
        let twice = turned.repeat([TOGETHER, 1, 1, 1]);
        let mut predictions = Vec::with_capacity(chance.passes_noise.len());
        for (number, normal) in chance.passes_noise.iter().enumerate() {
            let purpose = format!("teacher {number}");
            let pass = self.passes.train_repeated((&purpose, TOGETHER as u64), samples, cx);
            let logits = self.teacher_net.forward(&noisy(&twice, normal), &pass)?;
            predictions.push(logits.softmax(1, logits.kind()));
        }
        // [passes, N, C, H, W]: one behind the other in each batch.
        let mut shape = target.size();
        shape.insert(0, predictions.len() as i64 * TOGETHER);
        let all = Tensor::cat(&predictions, 0).view(shape.as_slice());
        let threshold =
            cx.numbers().number(turned.device(), |now| threshold(now.step - 1, now.total_steps));
        let mask = sure_mask(&all, &threshold);
        Ok(Lesson { target: target.softmax(1, target.kind()), mask })
    }

    fn chance(samples: &Samples, cx: &StepContext<'_>) -> Result<Chance> {
        let noise = |purpose: &str, times: u64| {
            let (purpose, positions) = (purpose.to_owned(), samples.positions.clone());
            let keys = cx.numbers().keys(samples.image.device(), move |point| {
                let keys = point.sample_keys(&purpose, &positions);
                (0..times)
                    .flat_map(|number| keys.iter().map(move |key| key.number(number)))
                    .collect()
            });
            normal(&keys, &samples.image, Form::Own)
        };
        let passes = 0..PASSES / TOGETHER as usize;
        Ok(Chance {
            turns: turns(cx.point()),
            noise: noise("noise", 1)?,
            passes_noise: passes
                .map(|number| noise(&format!("noise {number}"), TOGETHER as u64))
                .collect::<Result<_>>()?,
        })
    }
}

/// Quarter turns of a step, 0 to 3.
fn turns(point: &StepPoint) -> i64 {
    point.key("turns").draws().below(4) as i64
}

impl Method for Ustm {
    fn form(&self, point: &StepPoint) -> Option<u32> {
        Some(turns(point) as u32)
    }

    fn step(&mut self, batch: &Batch, cx: &mut StepContext<'_>) -> Result<()> {
        let chance = Self::chance(batch.main(), cx)?;
        self.iterate(batch, &chance, cx)
    }

    fn forward(&self, image: &Tensor, mode: ForwardMode) -> Result<Tensor> {
        let logits = self.net.forward(image, &self.passes.of(mode))?;
        Ok(probabilities(&logits))
    }

    fn learners(&self) -> Vec<&Learner> {
        vec![&self.segmenter, &self.teacher]
    }
}
