//! Scribble2Label: what a running average of predictions is sure of becomes a label.
//!
//! Lee and Jeong, MICCAI 2020, arXiv 2006.12890; what is computed follows HiLab-git/WSL4MIS
//! `code/train_weakly_supervised_pCE_S2L_2D.py` at a594da8. One average for each training slice, in
//! its own size; the average is a learner without optimiser, so that checkpoints hold it.

use super::{Passes, Recipe, Setup, annotated_cross_entropy, probabilities};
use crate::data::augment::{Fit, brought_back};
use crate::data::batch::Batch;
use crate::data::recipe::Origin;
use crate::error::{Context, Result};
use crate::losses::partial_cross_entropy;
use crate::native::GroupSum;
use crate::nets::unet::UNet;
use crate::nets::{MOMENTUM, Pass};
use crate::random::Key;
use crate::train::learner::{Learner, LearnerConfig};
use crate::train::numbers;
use crate::train::{ForwardMode, Method, Objective, StepContext};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// The label that losses ignore.
const IGNORE: i64 = crate::data::IGNORE as i64;

/// `[method.params]` of `scribble2label`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Weight of the cross-entropy over annotated pixels, above 0.
    #[serde(default = "one", deserialize_with = "numbers::positive")]
    partial_ce: f64,
    /// Weight of the cross-entropy over pixels that the average is sure of.
    #[serde(default = "half", deserialize_with = "numbers::weight")]
    pseudo_ce: f64,
    /// Steps with the annotation alone.
    #[serde(default = "warm_up", deserialize_with = "numbers::steps")]
    warm_up: u64,
    /// Steps from one prediction of all training slices to the next, at least 1.
    #[serde(default = "period", deserialize_with = "numbers::some_steps")]
    period: u64,
    /// What is kept of the average at each of these, in [0, 1).
    #[serde(default = "kept", deserialize_with = "numbers::share")]
    kept: f64,
    /// The probability above which the average is sure, in (0, 1).
    #[serde(default = "kept", deserialize_with = "numbers::part")]
    threshold: f64,
    /// How the network predicts for the average.
    #[serde(default)]
    predicts: Predicts,
    /// The network's learner.
    learner: LearnerConfig,
}

/// In which mode the network predicts the training slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Predicts {
    /// As in training, slice by slice: with dropout, the statistics of the slice alone, and running
    /// statistics that move. What the released code does.
    #[default]
    Training,
    /// As in evaluation.
    Evaluation,
}

fn one() -> f64 {
    1.0
}

fn half() -> f64 {
    0.5
}

fn warm_up() -> u64 {
    6000
}

fn period() -> u64 {
    100
}

fn kept() -> f64 {
    0.8
}

/// The part of the flat average that belongs to one slice: `classes` maps, one after the other.
#[derive(Debug)]
struct Place {
    offset: i64,
    shape: [usize; 2],
}

/// What the average is sure of, as codes: 0 for nothing, else the class plus 1.
struct Sure {
    /// Of how many updates of the average.
    updates: u64,
    slices: Vec<Vec<u8>>,
}

/// The method with its network and its averages.
pub struct Scribble2Label {
    segmenter: Learner,
    net: UNet,
    average: Learner,
    places: Vec<Place>,
    sure: Option<Sure>,
    classes: i64,
    passes: Passes,
    params: Params,
}

impl Recipe for Scribble2Label {
    const NAME: &'static str = "scribble2label";
    const SUMMARY: &'static str =
        "what a running average of predictions is sure of becomes a label";
    const PAPER: &'static str = "Lee and Jeong, MICCAI 2020; code: HiLab-git/WSL4MIS";
    const IN_PATCHES: bool = false;
    type Params = Params;

    fn refuse_lacking_classes(_params: &Params) -> Result<()> {
        Ok(())
    }

    fn build(params: Params, setup: &Setup) -> Result<Self> {
        let classes = setup.classes;
        let (segmenter, net) = Learner::new("segmenter", params.learner, setup.learner, |scope| {
            UNet::new(scope, setup.channels, classes)
        })?;
        let mut places = Vec::with_capacity(setup.slices.len());
        let mut total = 0;
        for &shape in &setup.slices {
            places.push(Place { offset: total, shape });
            total += classes * shape.iter().product::<usize>() as i64;
        }
        let (average, _) = Learner::follower("average", setup.learner, |scope| {
            scope.constant("probability", &[total], 0.0)
        });
        let passes = setup.passes.clone();
        Ok(Self { segmenter, net, average, places, sure: None, classes, passes, params })
    }
}

impl Scribble2Label {
    /// One iteration; `codes` `[N, H, W]` say what is sure, 0 for nothing, else the class plus 1.
    pub fn iterate(
        &mut self,
        batch: &Batch,
        codes: Option<&Tensor>,
        cx: &mut StepContext<'_>,
    ) -> Result<()> {
        let samples = batch.main();
        let pass = self.passes.train("main", samples, cx);
        let logits = self.net.forward(&samples.image, &pass)?;
        let annotation = &samples.annotation;
        let group = cx.group();
        let weight = if codes.is_some() { self.params.pseudo_ce } else { 0.0 };
        let objective = Objective::new()
            .term("partial_ce", self.params.partial_ce, || {
                annotated_cross_entropy(&logits, samples, cx)
            })
            .term("pseudo_ce", weight, || {
                let labels = codes.map(|codes| sure_labels(annotation, codes));
                let labels = labels.unwrap_or_else(|| annotation.full_like(IGNORE));
                partial_cross_entropy(&logits, &labels, group)
            });
        self.segmenter.update(objective, cx)
    }

    /// Predicts every training slice and moves its average.
    fn predict_all(&mut self, origin: &Origin, cx: &StepContext<'_>) -> Result<()> {
        let input = |slice: usize| origin.input(slice);
        self.move_averages(&origin.own_slices(), origin.fit(), input, cx)
    }

    /// The same for the slices of this rank, `own`, given their images `[1, 1, H, W]`, to which they came by `fit`.
    pub fn move_averages(
        &mut self,
        own: &Range<usize>,
        fit: Fit,
        input: impl Fn(usize) -> Tensor,
        cx: &StepContext<'_>,
    ) -> Result<()> {
        let entry = &self.average.entries()[0].tensor;
        let fresh = entry.detach().zeros_like();
        let key = cx.key("average");
        let device = fresh.device();
        let predict = |slice: usize, pass: &Pass| -> Result<()> {
            let image = input(slice).to_kind(fresh.kind()).to_device(device);
            let logits = tch::no_grad(|| self.net.forward(&image, pass))?;
            cx.note_progress();
            self.keep((slice, fit), &logits.softmax(1, logits.kind()), &fresh)
        };
        match self.params.predicts {
            Predicts::Evaluation => own.clone().try_for_each(|s| predict(s, &Pass::Evaluate))?,
            Predicts::Training => self.in_turn(own, cx.group(), || {
                own.clone().try_for_each(|slice| {
                    predict(slice, &self.one_slice(key.number(slice as u64), device))
                })
            })?,
        }
        // Each slice is one rank's; the others have zeros there.
        cx.group().sum(&fresh);
        let kept = self.params.kept;
        self.average.rewrite(|average| {
            let mut average = average.narrow(0, 0, fresh.size()[0]);
            let _ = average.g_mul_scalar_(kept).g_add_(&(fresh * (1.0 - kept)));
            Ok(())
        })
    }

    fn one_slice(&self, key: Key, device: Device) -> Pass {
        self.passes.train_alone(vec![key], device)
    }

    /// Lets the ranks of a group predict their parts of the slices at once, and leaves the running
    /// statistics as if one rank had predicted all slices in order.
    ///
    /// They are linear in what they were: the first rank goes on from them, the others from zero, and
    /// what each finds fades by the slices that come after its own.
    fn in_turn(
        &self,
        own: &Range<usize>,
        group: &dyn GroupSum,
        body: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let buffers = || self.segmenter.buffers().map(|entry| entry.tensor.shallow_clone());
        if own.start > 0 {
            buffers().for_each(|mut buffer| drop(buffer.zero_()));
        }
        body()?;
        let faded = (1.0 - MOMENTUM).powi((self.places.len() - own.end) as i32);
        for mut buffer in buffers() {
            if buffer.kind() != Kind::Int64 {
                let _ = buffer.g_mul_scalar_(faded);
            }
            group.sum(&buffer);
        }
        Ok(())
    }

    /// Writes class probabilities `[1, C, H, W]`, on the grid of the slice, to its place.
    fn keep(&self, (slice, fit): (usize, Fit), probabilities: &Tensor, all: &Tensor) -> Result<()> {
        let Place { offset, shape } = self.places[slice];
        let [_, classes, rows, columns] = probabilities.size4().context(|| "no class maps")?.into();
        let host = probabilities.to_kind(Kind::Float).to_device(Device::Cpu).contiguous();
        let values: Vec<f32> = Vec::try_from(host.view([-1])).context(|| "no probabilities")?;
        let maps = values.chunks_exact((rows * columns) as usize);
        let stored: Vec<f32> = maps
            .flat_map(|map| brought_back(fit, map, [rows as usize, columns as usize], shape))
            .collect();
        let length = classes * shape.iter().product::<usize>() as i64;
        let mut place = all.narrow(0, offset, length);
        place.copy_(&Tensor::from_slice(&stored));
        Ok(())
    }

    /// What the averages are sure of now.
    fn sure(&mut self) -> Result<&Sure> {
        let updates = self.average.updates();
        // A restored checkpoint has another number of updates.
        let known = self.sure.take().filter(|sure| sure.updates == updates);
        let sure = match known {
            Some(sure) => sure,
            None => Sure { updates, slices: self.codes()? },
        };
        Ok(self.sure.insert(sure))
    }

    /// Codes of every slice in its own size.
    fn codes(&self) -> Result<Vec<Vec<u8>>> {
        let all = self.average.entries()[0].tensor.detach();
        let of = |place: &Place| {
            let pixels = place.shape.iter().product::<usize>() as i64;
            let maps = all.narrow(0, place.offset, self.classes * pixels);
            let codes = codes_of(&maps.view([self.classes, pixels]), self.params.threshold);
            Vec::try_from(codes.to_device(Device::Cpu)).context(|| "no codes")
        };
        self.places.iter().map(of).collect()
    }

    /// The running averages of all slices, one after the other: `[C, rows, columns]` each.
    pub fn averages(&self) -> Tensor {
        self.average.entries()[0].tensor.detach()
    }
}

/// Codes `[pixels]` u8 of class probabilities `[C, pixels]`: 0 where none is above `threshold`, else
/// the class plus 1.
pub fn codes_of(probabilities: &Tensor, threshold: f64) -> Tensor {
    let (largest, class) = probabilities.max_dim(0, false);
    ((class + 1) * largest.gt(threshold)).to_kind(Kind::Uint8)
}

/// The classes of `codes` where nobody annotated, else nothing; both `[N, H, W]`.
pub fn sure_labels(annotation: &Tensor, codes: &Tensor) -> Tensor {
    let sure = annotation.eq(IGNORE).logical_and(&codes.gt(0));
    (codes.to_kind(Kind::Int64) - 1).where_scalarother(&sure, IGNORE)
}

impl Method for Scribble2Label {
    fn step(&mut self, batch: &Batch, cx: &mut StepContext<'_>) -> Result<()> {
        let done = cx.point().step - 1;
        // Before the step and not after the last one: evaluations and checkpoints between the two
        // must not see running statistics that single slices have moved.
        if done > 0 && done.is_multiple_of(self.params.period) && cx.is_first() {
            self.predict_all(batch.origin()?, cx)?;
        }
        if done < self.params.warm_up {
            return self.iterate(batch, None, cx);
        }
        let slices = &self.sure()?.slices;
        let codes = batch.origin()?.place(|slice| &slices[slice])?;
        let codes = codes.to_device(batch.main().annotation.device());
        self.iterate(batch, Some(&codes), cx)
    }

    fn forward(&self, image: &Tensor, mode: ForwardMode) -> Result<Tensor> {
        let logits = self.net.forward(image, &self.passes.of(mode))?;
        Ok(probabilities(&logits))
    }

    fn learners(&self) -> Vec<&Learner> {
        vec![&self.segmenter, &self.average]
    }
}
