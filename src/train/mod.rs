//! Training as every method sees it: a method is one iteration, everything else exists once.
//!
//! The trainer knows the trait [`Method`] and no method, no network and no loss.

mod buckets;
pub mod checkpoint;
pub mod evaluate;
mod judges;
pub mod learner;
pub mod moment;
pub mod non_finite;
pub mod numbers;
pub mod optimizer;
mod pace;
pub mod preview;
pub mod recorder;
pub mod replay;
pub mod schedule;
pub mod scores;
pub mod stopping;
pub mod trainer;
pub mod watchdog;

use crate::comm::Ranks;
use crate::data::IGNORE;
use crate::data::batch::Batch;
use crate::error::{Failure, Result};
use crate::native::GroupSum;
use crate::native::flat::{Norm, squares};
use crate::random::Key;
use learner::Learner;
use moment::{Moment, Varying};
use std::rc::Rc;
use tch::{Kind, Tensor};

/// A training method: one iteration, a prediction, and what must survive a restart.
pub trait Method {
    /// Which steps do the same work with other numbers, all of which come from the batch or from
    /// [`StepContext::varying`]: they have the same form, and one can be replayed as another. `None`
    /// where a step does what depends on more, or reads from the device.
    fn form(&self, _moment: &Moment) -> Option<u32> {
        None
    }
    /// Runs one iteration on this rank's share of the batch.
    fn step(&mut self, batch: &Batch, cx: &mut StepContext<'_>) -> Result<()>;
    /// Class logits `[N, classes, H, W]` for images `[N, C, H, W]` of one channel or three, with running
    /// statistics.
    fn predict(&self, image: &Tensor) -> Result<Tensor>;
    /// Images `[N, C, H, W]` in [0, 1] that the method makes of images beside its prediction, by name, for
    /// people to look at. Names have no commas.
    fn pictures(&self, _image: &Tensor) -> Result<Vec<(&'static str, Tensor)>> {
        Ok(Vec::new())
    }
    /// Moves the running statistics with which [`Method::predict`] normalises by `share`, in (0, 1],
    /// towards those of these images `[N, C, H, W]` over all ranks.
    fn adapt_statistics(&self, image: &Tensor, share: f64) -> Result<()>;
    /// Everything to save, restore, broadcast and compare; the first one predicts.
    fn learners(&self) -> Vec<&Learner>;
    /// The same, for restoring.
    fn learners_mut(&mut self) -> Vec<&mut Learner>;
}

/// What one learner minimises in one update: named, weighted terms.
///
/// The sum that is differentiated and the numbers that are logged are the same object.
#[derive(Debug, Default)]
pub struct Objective {
    terms: Vec<(&'static str, Weight, Tensor)>,
}

/// By what a term is multiplied.
#[derive(Debug)]
pub enum Weight {
    /// The same in every step. A term of weight 0 is neither computed nor logged.
    Fixed(f64),
    /// One of the numbers of [`StepContext::varying`].
    Varying(Tensor),
}

impl From<f64> for Weight {
    fn from(weight: f64) -> Self {
        Self::Fixed(weight)
    }
}

impl From<&Weight> for Weight {
    fn from(weight: &Weight) -> Self {
        match weight {
            Weight::Fixed(weight) => Self::Fixed(*weight),
            Weight::Varying(weight) => Self::Varying(weight.shallow_clone()),
        }
    }
}

impl Objective {
    /// Without terms.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `weight * value`; `value` gives a 0-dimensional tensor, equal on all ranks.
    #[must_use]
    pub fn term(
        mut self,
        name: &'static str,
        weight: impl Into<Weight>,
        value: impl FnOnce() -> Tensor,
    ) -> Self {
        let weight = weight.into();
        if !matches!(weight, Weight::Fixed(0.0)) {
            self.terms.push((name, weight, value()));
        }
        self
    }

    /// [`Objective::term`] with a value that may fail.
    pub fn try_term(
        mut self,
        name: &'static str,
        weight: impl Into<Weight>,
        value: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Self> {
        let weight = weight.into();
        if !matches!(weight, Weight::Fixed(0.0)) {
            self.terms.push((name, weight, value()?));
        }
        Ok(self)
    }

    /// `share` of the weighted sum.
    fn total(&self, share: f64) -> Result<Tensor> {
        self.terms
            .iter()
            .map(|(_, weight, value)| match weight {
                Weight::Fixed(weight) => value * (weight * share),
                Weight::Varying(weight) => value * (weight * share).to_kind(value.kind()),
            })
            .reduce(|sum, term| sum + term)
            .ok_or_else(|| Failure::new("an objective without terms cannot be minimised"))
    }
}

/// Where in the run a step is, and where its report is gathered.
pub struct StepContext<'a> {
    /// Whether the numbers of this step will be read, on all ranks alike.
    pub logged: bool,
    varying: Rc<Varying>,
    part: Part,
    /// The annotated pixels of a step in several micro-batches.
    annotated: Option<Tensor>,
    communicator: &'a Ranks,
    report: StepReport,
}

/// Which of a step's micro-batches is trained on: gradients add up over them, and weights move with
/// the last.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Part {
    /// Its share of the samples of the step, in (0, 1].
    share: f64,
    is_first: bool,
    is_last: bool,
}

/// The annotated pixels of all micro-batches over all ranks, 0-dimensional i64.
fn annotated_pixels(batches: &[Batch], group: &dyn GroupSum) -> Option<Tensor> {
    let pixels = |batch: &Batch| batch.main().annotation.ne(i64::from(IGNORE)).sum(Kind::Int64);
    let count = batches.iter().map(pixels).reduce(|sum, count| sum + count)?;
    group.sum(&count);
    Some(count)
}

/// Runs one iteration on every micro-batch of a step, one after the other.
pub fn step_in_parts(
    method: &mut dyn Method,
    batches: &[Batch],
    cx: &mut StepContext<'_>,
) -> Result<()> {
    let samples: usize = batches.iter().map(|batch| batch.global_size).sum();
    cx.annotated = if batches.len() > 1 { annotated_pixels(batches, cx.group()) } else { None };
    for (number, batch) in batches.iter().enumerate() {
        cx.part = Part {
            share: batch.global_size as f64 / samples.max(1) as f64,
            is_first: number == 0,
            is_last: number + 1 == batches.len(),
        };
        method.step(batch, cx)?;
    }
    Ok(())
}

impl<'a> StepContext<'a> {
    /// The context of the step at `moment`.
    pub fn new(moment: Moment, communicator: &'a Ranks) -> Self {
        Self::with(Rc::new(Varying::of(moment)), communicator)
    }

    /// The context of a step whose numbers may be replaced.
    fn with(varying: Rc<Varying>, communicator: &'a Ranks) -> Self {
        Self {
            logged: true,
            varying,
            part: Part { share: 1.0, is_first: true, is_last: true },
            annotated: None,
            communicator,
            report: StepReport::default(),
        }
    }

    /// Where in the run this is. What a step computes from it on the host is the same in all steps of
    /// one [`Method::form`].
    pub fn moment(&self) -> &Moment {
        self.varying.moment()
    }

    /// For the numbers of a step that differ from those of others.
    pub fn varying(&self) -> &Rc<Varying> {
        &self.varying
    }

    /// Whether this is the first micro-batch of the step, before which nothing has moved.
    pub fn is_first(&self) -> bool {
        self.part.is_first
    }

    /// The samples of the whole step over all ranks, where its micro-batch has so many.
    pub fn samples_of_step(&self, micro_batch: usize) -> usize {
        (micro_batch as f64 / self.part.share).round() as usize
    }

    /// The annotated pixels of the whole step over all ranks, 0-dimensional i64; `None` where it has one
    /// micro-batch, whose own these are.
    pub fn annotated_pixels(&self) -> Option<&Tensor> {
        self.annotated.as_ref()
    }

    /// The value of a term of which every micro-batch has a summand, as an objective takes it: what it
    /// makes of the micro-batches, each weighted with its share of the samples, is their sum.
    pub fn summand(&self, of_micro_batch: Tensor) -> Tensor {
        if self.part.share < 1.0 { of_micro_batch / self.part.share } else { of_micro_batch }
    }

    /// The ranks over which losses are normalised.
    pub fn group(&self) -> &dyn GroupSum {
        &**self.communicator.tensors()
    }

    /// The key of this step for one purpose, equal on all ranks.
    pub fn key(&self, purpose: &str) -> Key {
        self.moment().key(purpose)
    }

    /// One key per sample, from its position in the global batch.
    pub fn sample_keys(&self, purpose: &str, positions: &[u64]) -> Vec<Key> {
        self.moment().sample_keys(purpose, positions)
    }

    /// Reports a number that nobody minimises: 0-dimensional, equal on all ranks, and computed
    /// only where it will be read.
    pub fn observe(&mut self, name: &'static str, value: impl FnOnce(&dyn GroupSum) -> Tensor) {
        if self.logged {
            let value = tch::no_grad(|| value(self.group()) * self.part.share);
            add_to(&mut self.report.observations, name, value);
        }
    }

    /// Says that a step that takes much longer than others gets on, so that nobody thinks it hangs.
    pub fn note_progress(&self) {
        self.communicator.note_progress();
    }

    /// Sums flat gradients over the ranks, on each rank at least its share of them, and returns the sum of
    /// the squares of all: 0-dimensional f64, of the same bits however much of them a rank gets.
    fn sum_gradients(&self, gradients: &Tensor, own_share_only: bool) -> Result<Tensor> {
        let communicator = self.communicator;
        if !own_share_only {
            communicator.tensors().sum(gradients);
            return self.squares_of(gradients);
        }
        communicator.tensors().sum_own_share(gradients);
        let (rank, ranks) = (communicator.rank(), communicator.ranks());
        let own = squares(gradients, ranks, rank..rank + 1)?;
        let of_shares = Tensor::zeros([ranks as i64], (Kind::Double, gradients.device()));
        of_shares.narrow(0, rank as i64, 1).copy_(&own);
        communicator.tensors().sum(&of_shares);
        Ok(of_shares.sum(Kind::Double))
    }

    /// The sum of the squares of summed flat gradients, with the bits of [`Self::sum_gradients`].
    fn squares_of(&self, gradients: &Tensor) -> Result<Tensor> {
        let ranks = self.communicator.ranks();
        let of_shares = squares(gradients, ranks, 0..ranks)?;
        Ok(if ranks == 1 { of_shares.squeeze() } else { of_shares.sum(Kind::Double) })
    }

    /// The ranks over which gradients are summed.
    fn communicator(&self) -> &'a Ranks {
        self.communicator
    }

    /// Gives every rank all weights after each has changed its share of them.
    fn gather_weights(&self, weights: &Tensor) -> Result<()> {
        self.communicator.tensors().gather_shares(weights)
    }

    /// What the step reported.
    pub fn into_report(self) -> StepReport {
        self.report
    }
}

/// The numbers of one step, still on the device.
#[derive(Debug, Default)]
pub struct StepReport {
    losses: Vec<(String, Tensor)>,
    observations: Vec<(&'static str, Tensor)>,
    /// Name, learning rate, norm of the gradient.
    learners: Vec<(&'static str, Tensor, Tensor)>,
    finite: Option<Tensor>,
}

/// The numbers of one step, fetched.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepNumbers {
    /// `learner/term` and its global, unweighted value.
    pub losses: Vec<(String, f64)>,
    /// What the method observed beside, by name.
    pub observations: Vec<(String, f64)>,
    /// Learner, learning rate, norm of its gradient before clipping.
    pub learners: Vec<(String, f64, f64)>,
}

/// Adds a number to that of the same name, or as the first of this name.
fn add_to<N: PartialEq>(numbers: &mut Vec<(N, Tensor)>, name: N, value: Tensor) {
    match numbers.iter_mut().find(|(known, _)| *known == name) {
        Some((_, sum)) => *sum = &*sum + value,
        None => numbers.push((name, value)),
    }
}

impl StepReport {
    /// Takes the terms of a micro-batch with its share of the step's samples.
    fn take(&mut self, learner: &'static str, objective: Objective, share: f64) {
        for (name, _, value) in objective.terms {
            add_to(&mut self.losses, format!("{learner}/{name}"), value.detach() * share);
        }
    }

    fn record(&mut self, learner: &'static str, learning_rate: Tensor, norm: Norm) {
        self.learners.push((learner, learning_rate, norm.value));
        self.finite = Some(match self.finite.take() {
            Some(before) => before.logical_and(&norm.finite),
            None => norm.finite,
        });
    }

    /// The same numbers in memory of their own, put together by a few operations on the device.
    fn gathered(&self) -> Self {
        let numbers = self.tensors();
        if numbers.is_empty() {
            return Self { finite: self.finite.as_ref().map(Tensor::copy), ..Self::default() };
        }
        let all = Tensor::cat(&numbers, 0).unbind(0);
        let (losses, rest) = all.split_at(self.losses.len());
        let (observations, learners) = rest.split_at(self.observations.len());
        let losses = self.losses.iter().zip(losses);
        let observations = self.observations.iter().zip(observations);
        let learners = self.learners.iter().zip(learners.chunks_exact(2));
        let own = Tensor::shallow_clone;
        Self {
            losses: losses.map(|((name, _), value)| (name.clone(), own(value))).collect(),
            observations: observations.map(|((name, _), value)| (*name, own(value))).collect(),
            learners: learners
                .map(|((name, ..), pair)| (*name, own(&pair[0]), own(&pair[1])))
                .collect(),
            finite: self.finite.as_ref().map(Tensor::copy),
        }
    }

    /// All numbers, each `f64 [1]`.
    fn tensors(&self) -> Vec<Tensor> {
        (self.losses.iter().map(|(_, value)| value))
            .chain(self.observations.iter().map(|(_, value)| value))
            .chain(self.learners.iter().flat_map(|(_, rate, norm)| [rate, norm]))
            .map(|value| value.to_kind(Kind::Double).view([1]))
            .collect()
    }

    /// 0-dimensional boolean on the device: whether every gradient of the step was finite.
    pub fn finite(&self) -> Option<&Tensor> {
        self.finite.as_ref()
    }

    /// Fetches all numbers with one transfer.
    pub fn fetch(&self) -> Result<StepNumbers> {
        let tensors = self.tensors();
        if tensors.is_empty() {
            return Ok(StepNumbers::default());
        }
        let values: Vec<f64> = Vec::try_from(Tensor::cat(&tensors, 0))
            .map_err(|error| Failure::new("cannot fetch the losses").because(&error))?;
        let (losses, values) = values.split_at(self.losses.len());
        let (observations, learners) = values.split_at(self.observations.len());
        let names = self.losses.iter().map(|(name, _)| name.clone());
        let observed = self.observations.iter().map(|(name, _)| (*name).to_owned());
        let learners = self.learners.iter().zip(learners.chunks_exact(2));
        Ok(StepNumbers {
            losses: names.zip(losses.iter().copied()).collect(),
            observations: observed.zip(observations.iter().copied()).collect(),
            learners: learners
                .map(|((name, ..), pair)| ((*name).to_owned(), pair[0], pair[1]))
                .collect(),
        })
    }
}
