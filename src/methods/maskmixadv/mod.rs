//! MaskMixAdv: two half-hidden views of each image label each other, a discriminator judges shapes.
//!
//! Li, Zheng and Wu, Bioengineering 2024, 11(11), 1146; what is computed follows
//! lichen14/MaskMixAdv `code/train_weakly_supervised_pCE_MaskMixAdv.py` at cf584ee. There the
//! discriminator sends no gradient to the network; `adversary = "shape"` mends that.

mod params;

use super::{Asked, Passes, Recipe, Setup, annotated_cross_entropy, cleaned, probabilities};
use crate::data::batch::Batch;
use crate::data::samples::Samples;
use crate::data::stream::{MAIN, SHAPES, Select, StreamSpec};
use crate::error::{Failure, Result};
use crate::losses::adversarial::{accuracy, gradient_penalty, verdict};
use crate::losses::{SMOOTH, dice, masked_mean_square, one_hot};
use crate::mixing::{self, CellMasks, expected_class, label_map, mix};
use crate::native::cuda::upload;
use crate::native::{GroupSum, global_sum};
use crate::nets::Pass;
use crate::nets::gan::{Discriminator, Judge};
use crate::nets::unet::UNetMae;
use crate::pseudo_labels::keep_largest;
use crate::random::Key;
use crate::train::learner::Learner;
use crate::train::point::StepPoint;
use crate::train::{ForwardMode, Method, Objective, StepContext, Weight};
pub use params::Params;
use params::{Adversary, Hide, Maps, Masks, PredictsFrom, Shape};
use tch::{Device, Tensor};

/// Weight of each verdict in the discriminator's objective, which Adam makes immaterial.
const VERDICT_WEIGHT: f64 = 0.05;
/// Levels of the network whose features can be hidden.
const LEVELS: usize = 5;

/// The method with its two players.
pub struct MaskMixAdv {
    segmenter: Learner,
    net: UNetMae,
    judge: Learner,
    discriminator: Discriminator,
    passes: Passes,
    params: Params,
}

/// What the two branches made of one batch.
struct Branches {
    /// Logits of both branches, `[N, C, H, W]`.
    logits: [Tensor; 2],
    /// Reconstructions with the pixels that their branch could not see.
    restored: Vec<(Tensor, Tensor)>,
    /// What each branch saw at full size, `[1 or N, 1, H, W]`.
    masks: [Tensor; 2],
}

impl Recipe for MaskMixAdv {
    const NAME: &'static str = "maskmixadv";
    const SUMMARY: &'static str =
        "two half-hidden views label each other, a discriminator judges shapes";
    const PAPER: &'static str = "Li et al., Bioengineering 2024; code: lichen14/MaskMixAdv";
    const STREAMS: &'static [StreamSpec] =
        &[StreamSpec::new(MAIN, Select::Annotated), StreamSpec::new(SHAPES, Select::OtherPatients)];
    const IN_PATCHES: bool = false;
    type Params = Params;

    fn refuse(params: &Params, _asked: &Asked<'_>) -> Result<()> {
        params.check()
    }

    fn refuse_images(_params: &Params, channels: usize) -> Result<()> {
        if channels == 1 {
            return Ok(());
        }
        let message = format!("`maskmixadv` restores grey images, these have {channels} channels");
        Err(Failure::usage(message).hint("`scrimp methods` lists the others"))
    }

    fn refuse_lacking_classes(_params: &Params) -> Result<()> {
        Ok(())
    }

    fn build(params: Params, setup: &Setup) -> Result<Self> {
        let (segmenter, net) = Learner::new("segmenter", params.learner, setup.learner, |scope| {
            UNetMae::new(scope, 1, setup.classes, params.hide == Hide::Features)
        })?;
        let channels = if params.shows_channels() { setup.classes } else { 1 };
        let Shape { judge, spectral_norm, .. } = params.shape;
        let released = params.adversary == Adversary::Detached;
        let judge = if released { Judge::Patches } else { judge };
        let (judge, discriminator) =
            Learner::new("discriminator", params.discriminator, setup.learner, |scope| {
                Discriminator::new(scope, channels, judge, spectral_norm && !released)
            })?;
        Ok(Self { segmenter, net, judge, discriminator, passes: setup.passes.clone(), params })
    }
}

impl MaskMixAdv {
    /// One iteration with given masks: one for hidden images, one per level for hidden features.
    pub fn iterate(
        &mut self,
        batch: &Batch,
        masks: &[CellMasks],
        cx: &mut StepContext<'_>,
    ) -> Result<()> {
        let samples = batch.main();
        let branches = self.look(samples, masks, cx)?;
        let [first, second] = branches.logits.each_ref().map(|z| z.softmax(1, z.kind()));
        let mixed = mix([&first, &second], &branches.masks);
        let pseudo = self.pseudo_label(&mixed)?;
        let smooth = SMOOTH / batch.global_size.max(1) as f64;
        let [first_logits, second_logits] = &branches.logits;
        let (ce, pse) = (self.params.partial_ce / 2.0, self.params.pseudo_dice / 2.0);
        let mut objective = Objective::new()
            .term("partial_ce_first", ce, || annotated_cross_entropy(first_logits, samples, cx))
            .term("partial_ce_second", ce, || annotated_cross_entropy(second_logits, samples, cx))
            .term("pseudo_dice_first", pse, || dice(&first, &pseudo, smooth, cx.group()))
            .term("pseudo_dice_second", pse, || dice(&second, &pseudo, smooth, cx.group()))
            .term("reconstruction", self.params.reconstruction, || {
                reconstruction(&branches, &samples.image, cx.group())
            });
        let game = self.game(&mixed, &pseudo, cx);
        if let Game::Played { fake, weight } = &game {
            objective = objective.try_term("adversarial", weight, || {
                let logits = self.discriminator.frozen().forward(fake)?;
                Ok(verdict(&logits, true, batch.global_size, cx.group()))
            })?;
        }
        self.segmenter.update(objective, cx)?;
        observe_agreement(&branches.logits, batch.global_size, cx);
        match game {
            Game::Off => Ok(()),
            Game::Watched { fake } | Game::Played { fake, .. } => {
                self.train_discriminator(batch, &fake.detach(), cx)
            }
        }
    }

    /// Both branches: two passes over half-hidden images, or two decoders over halves of features.
    fn look(
        &self,
        samples: &Samples,
        masks: &[CellMasks],
        cx: &StepContext<'_>,
    ) -> Result<Branches> {
        let missing = || Failure::new("an iteration needs a mask");
        let seen = masks.first().ok_or_else(missing)?.at_size_of(&samples.image);
        let first = self.passes.train("first", samples, cx);
        if self.params.hide == Hide::Features {
            return self.look_at_features(samples, masks, (seen, &first));
        }
        let features = self.net.features(&(&samples.image * &seen[0]), &first)?;
        let mut restored = vec![(self.net.restore(&features, &first)?, 1.0 - &seen[0])];
        let logits = self.net.segment(&features, &first)?;
        let second = self.passes.train("second", samples, cx);
        let features = self.net.features(&(&samples.image * &seen[1]), &second)?;
        let again = self.net.segment(&features, &second)?;
        if self.params.reconstruct_both {
            restored.push((self.net.restore(&features, &second)?, 1.0 - &seen[1]));
        } else if self.params.adversary == Adversary::Detached {
            // As released: computed for nothing but its running statistics.
            let _ = tch::no_grad(|| self.net.restore(&features, &second))?;
        }
        Ok(Branches { logits: [logits, again], restored, masks: seen })
    }

    fn look_at_features(
        &self,
        samples: &Samples,
        masks: &[CellMasks],
        (seen, pass): ([Tensor; 2], &Pass),
    ) -> Result<Branches> {
        let features = self.net.features(&samples.image, pass)?;
        let halves = |branch: usize| -> Vec<Tensor> {
            let levels = features.iter().zip(masks);
            levels.map(|(x, masks)| x * &masks.at_size_of(x)[branch]).collect()
        };
        let (first, second) = (halves(0), halves(1));
        let logits = [self.net.segment(&first, pass)?, self.net.segment_again(&second, pass)?];
        let restored = vec![(self.net.restore(&first, pass)?, 1.0 - &seen[0])];
        Ok(Branches { logits, restored, masks: seen })
    }

    /// The mixed prediction as labels, cleaned if the parameters say so.
    fn pseudo_label(&self, mixed: &Tensor) -> Result<Tensor> {
        let labels = label_map(mixed);
        if !self.params.largest_component {
            return Ok(labels);
        }
        let classes = mixed.size()[1] as usize;
        cleaned(&labels, |slice, columns| keep_largest(slice, columns, classes))
    }

    /// Whether the discriminator does anything in a step.
    fn plays(&self, point: &StepPoint) -> bool {
        self.params.adversary == Adversary::Detached
            || self.params.adversarial_weight(point.step, point.total_steps).is_some()
    }

    /// It grows over the run.
    fn adversarial_weight(&self, device: Device, cx: &StepContext<'_>) -> Weight {
        if self.params.shape.weight == 0.0 {
            return Weight::Fixed(0.0);
        }
        let params = self.params.clone();
        Weight::Varying(cx.numbers().number(device, move |now| {
            params.adversarial_weight(now.step, now.total_steps).unwrap_or(0.0)
        }))
    }

    /// What the discriminator sees of the prediction, and whether it sends a gradient.
    fn game(&self, mixed: &Tensor, pseudo: &Tensor, cx: &StepContext<'_>) -> Game {
        let numbers = || pseudo.unsqueeze(1).to_kind(mixed.kind());
        if self.params.adversary == Adversary::Detached {
            return Game::Watched { fake: numbers() };
        }
        if !self.plays(cx.point()) {
            return Game::Off;
        }
        let weight = self.adversarial_weight(mixed.device(), cx);
        let fake = match self.params.shape.maps {
            Maps::OneHot => mixed.shallow_clone(),
            Maps::ExpectedClass => expected_class(mixed),
            Maps::StraightThrough => {
                let mean = expected_class(mixed);
                numbers() + (&mean - mean.detach())
            }
        };
        Game::Played { fake, weight }
    }

    /// Shapes as the discriminator sees them.
    fn real_maps(&self, shapes: &Tensor, like: &Tensor) -> Tensor {
        if !self.params.shows_channels() {
            return shapes.unsqueeze(1).to_kind(like.kind());
        }
        let blur = self.params.shape.blur;
        let maps = one_hot(shapes, like);
        maps.avg_pool2d([blur, blur], [1, 1], [blur / 2; 2], false, false, None::<i64>)
    }

    fn train_discriminator(
        &mut self,
        batch: &Batch,
        fake: &Tensor,
        cx: &mut StepContext<'_>,
    ) -> Result<()> {
        let samples = batch.global_size;
        let released = self.params.adversary == Adversary::Detached;
        let penalty = if released { 0.0 } else { self.params.shape.gradient_penalty };
        let real = self.real_maps(batch.masks_of(SHAPES)?, fake).set_requires_grad(penalty > 0.0);
        let (real_logits, fake_logits) =
            (self.discriminator.forward(&real)?, self.discriminator.forward(fake)?);
        let objective = Objective::new()
            .term("real", VERDICT_WEIGHT, || verdict(&real_logits, true, samples, cx.group()))
            .term("fake", VERDICT_WEIGHT, || verdict(&fake_logits, false, samples, cx.group()))
            .term("gradient_penalty", VERDICT_WEIGHT * penalty, || {
                gradient_penalty(&real_logits, &real, samples, cx.group())
            });
        self.judge.update(objective, cx)?;
        cx.observe("discriminator/real_accuracy", |group| {
            accuracy(&real_logits, true, samples, group)
        });
        cx.observe("discriminator/fake_accuracy", |group| {
            accuracy(&fake_logits, false, samples, group)
        });
        if released {
            cx.observe("segmenter/adversarial", |group| {
                verdict(&fake_logits, true, samples, group)
            });
        }
        Ok(())
    }
}

/// What the discriminator does in a step.
enum Game {
    /// Nothing yet.
    Off,
    /// It learns from `fake` and changes nothing.
    Watched { fake: Tensor },
    /// It learns from `fake`, and the network to please it.
    Played { fake: Tensor, weight: Weight },
}

/// Squared error over what could not be seen, mean over the restorations.
fn reconstruction(branches: &Branches, image: &Tensor, group: &dyn GroupSum) -> Tensor {
    let terms = branches.restored.iter();
    let terms = terms.map(|(restored, hidden)| masked_mean_square(restored, image, hidden, group));
    terms.sum::<Tensor>() / branches.restored.len() as f64
}

/// The share of pixels that both branches give the same class, in [0, 1].
fn observe_agreement(logits: &[Tensor; 2], global_size: usize, cx: &mut StepContext<'_>) {
    cx.observe("segmenter/agreement", |group| {
        let [first, second] = logits.each_ref().map(label_map);
        let pixels = first.size().iter().skip(1).product::<i64>() * global_size.max(1) as i64;
        let agreeing = first.eq_tensor(&second).sum(logits[0].kind());
        global_sum(&agreeing, group) / pixels as f64
    });
}

impl Method for MaskMixAdv {
    fn form(&self, point: &StepPoint) -> Option<u32> {
        // What is cleaned is cleaned on the host.
        (!self.params.largest_component).then_some(u32::from(self.plays(point)))
    }

    fn step(&mut self, batch: &Batch, cx: &mut StepContext<'_>) -> Result<()> {
        let samples = batch.main();
        let levels = if self.params.hide == Hide::Features { LEVELS } else { 1 };
        let masks: Vec<CellMasks> = (0..levels as u64)
            .map(|level| {
                let (masks, visible) = (self.params.masks, self.params.visible);
                let positions = samples.positions.clone();
                let cells = cx.numbers().numbers(samples.image.device(), move |point| {
                    let key = point.key("mask").number(level);
                    let keys: Vec<_> = positions.iter().map(|&place| key.number(place)).collect();
                    match masks {
                        Masks::Shared => mixing::drawn(&[key], visible),
                        Masks::PerSample => mixing::drawn(&keys, visible),
                        Masks::Overlapping => mixing::overlapping(&keys, visible),
                    }
                });
                CellMasks::of(&cells)
            })
            .collect();
        self.iterate(batch, &masks, cx)
    }

    fn forward(&self, image: &Tensor, mode: ForwardMode) -> Result<Tensor> {
        let pass = self.passes.of(mode);
        let see = |image: &Tensor| -> Result<Tensor> {
            let features = self.net.features(image, &pass)?;
            Ok(probabilities(&self.net.segment(&features, &pass)?))
        };
        let is_whole = self.params.predicts_from == PredictsFrom::Whole;
        if is_whole || mode != ForwardMode::Evaluation {
            return see(image);
        }
        // The same parts of every image, so that evaluations can be compared.
        let cells = mixing::drawn(&[Key::new(0)], self.params.visible);
        let parts = CellMasks::of(&upload(&Tensor::from_slice(&cells), image.device()));
        let parts = parts.at_size_of(image);
        let [first, second] = parts.each_ref().map(|part| see(&(image * part)));
        Ok(mix([&first?, &second?], &parts))
    }

    fn learners(&self) -> Vec<&Learner> {
        vec![&self.segmenter, &self.judge]
    }
}
