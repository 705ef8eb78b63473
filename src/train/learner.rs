//! The learner: networks whose weights change together, the unit that is synchronised and saved.
//!
//! Weights change by [`Learner::update`]; those of a learner without
//! optimiser follow another learner's ([`Learner::follow`]) or are a method's own ([`Learner::rewrite`]).

use super::buckets::Buckets;
use super::context::StepContext;
use super::numbers;
use super::objective::Objective;
use super::optimizer::{Optimizer, OptimizerConfig, Update, settle};
use super::point::StepPoint;
use super::schedule::Schedule;

use crate::error::{Context, Failure, Result};
use crate::native::Form;
use crate::native::flat::{Following, follow, serves};
use crate::parameters::{Entry, Flat, Leaves, Parameters, Role, Scope, Slot};
use crate::random::Key;
use crate::shares::local_share;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// How a learner learns; `[method.params.learner]` of most methods.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnerConfig {
    /// Base learning rate, above 0.
    #[serde(deserialize_with = "numbers::positive")]
    pub lr: f64,
    /// How the learning rate changes over the run.
    #[serde(default)]
    pub schedule: Schedule,
    /// Largest norm of the gradient of all parameters together; 0: no limit.
    #[serde(default, deserialize_with = "numbers::weight")]
    pub clip_norm: f64,
    /// `{ sgd = { momentum, weight_decay } }`, or `{ adamw = { beta1, beta2, epsilon, weight_decay } }`, or `adam` with
    /// the same constants.
    pub optimizer: OptimizerConfig,
}

impl LearnerConfig {
    /// The factors of an update as a function of the point, where `now` is that of update `number`.
    fn factors(self, number: u64, now: &StepPoint) -> impl Fn(&StepPoint) -> Vec<f64> + 'static {
        let Self { lr, schedule, optimizer, .. } = self;
        let step = now.step;
        move |point: &StepPoint| {
            let rate = schedule.learning_rate(lr, point);
            // Every step of a form updates once, so that both numbers grow together.
            let number = (number + point.step).saturating_sub(step);
            optimizer.factors(point.rate_share * rate, number)
        }
    }
}

/// What a learner takes from the run.
#[derive(Debug, Clone, Copy)]
pub struct LearnerSetup {
    /// Decides initial weights, together with their names.
    pub key: Key,
    /// Precision of weights, gradients and moments.
    pub kind: Kind,
    /// Precision of convolutions.
    pub computed: Kind,
    /// Where they live.
    pub device: Device,
    /// Whose share of the optimiser's moments this rank keeps.
    pub moments: Moments,
}

/// How much of an optimiser's moments a rank keeps: it updates the weights that they belong to, and
/// gets the others from the other ranks (`ZeRO` stage 1, Rajbhandari et al., SC 2020).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moments {
    /// All.
    Whole,
    /// The share of this rank.
    Share {
        /// This rank.
        rank: usize,
        /// Of so many.
        ranks: usize,
    },
}

/// The elements of a flat tensor that this rank holds, in storage shared with the learner.
#[derive(Debug)]
pub struct FlatPart {
    /// `weights`, or the name of a moment.
    pub name: &'static str,
    /// The elements from `start` on.
    pub tensor: Tensor,
    /// The first element.
    pub start: usize,
    /// The elements of the whole flat tensor.
    pub total: usize,
    /// Whether every rank holds all of it, or each a share; equal on all ranks.
    pub is_whole: bool,
}

impl FlatPart {
    /// Those of the elements `range` that this rank holds, and how many of `range` lie before them.
    pub fn overlap(&self, range: Range<usize>) -> (usize, Tensor) {
        let held = self.start..self.start + self.tensor.numel();
        let (first, end) = (range.start.max(held.start), range.end.min(held.end));
        let count = end.saturating_sub(first);
        let inside = if count == 0 { 0 } else { first - held.start };
        let before = if count == 0 { 0 } else { first - range.start };
        (before, self.tensor.narrow(0, inside as i64, count as i64))
    }
}

/// Networks, and how their weights change.
#[derive(Debug)]
pub struct Learner {
    name: &'static str,
    parameters: Parameters,
    flat: Flat,
    /// None where they follow those of another learner.
    descent: Option<Descent>,
    updates: Cell<u64>,
}

/// Going down the gradient: an optimiser and its schedule.
#[derive(Debug)]
struct Descent {
    config: LearnerConfig,
    optimizer: Optimizer,
    leaves: Leaves,
    /// Flat, like the weights.
    gradients: Tensor,
    buckets: Buckets,
    /// The weights that this rank updates.
    own: Range<usize>,
    /// Whether other ranks update others; a rank whose share is empty, or is all, asks its setup too.
    is_shared: bool,
}

impl Moments {
    fn are_shared(self) -> bool {
        matches!(self, Self::Share { ranks, .. } if ranks > 1)
    }

    fn range(self, total: usize) -> Range<usize> {
        match self {
            Self::Whole => 0..total,
            Self::Share { rank, ranks } => local_share(total, ranks, rank),
        }
    }
}

impl Learner {
    /// Builds the networks with `build`, which registers their tensors, and takes them over.
    pub fn new<N>(
        name: &'static str,
        config: LearnerConfig,
        setup: LearnerSetup,
        build: impl FnOnce(&mut Scope<'_>) -> N,
    ) -> Result<(Self, N)> {
        let (learner, networks) = Self::follower(name, setup, build);
        let gradients = learner.flat.gradients();
        let own = setup.moments.range(gradients.numel());
        let optimizer = Optimizer::new(config.optimizer, &narrowed(&learner.flat.weights, &own));
        let buckets = Buckets::new(&learner.parameters, &learner.flat, &gradients)?;
        let leaves = Leaves::of(&learner.parameters, &learner.flat);
        let is_shared = setup.moments.are_shared();
        let descent =
            Some(Descent { config, optimizer, leaves, gradients, buckets, own, is_shared });
        Ok((Self { descent, ..learner }, networks))
    }

    /// The same without optimiser, for weights that [`Learner::follow`] those of another learner.
    pub fn follower<N>(
        name: &'static str,
        setup: LearnerSetup,
        build: impl FnOnce(&mut Scope<'_>) -> N,
    ) -> (Self, N) {
        let parameters = Parameters::new(setup.key.purpose(name), setup.kind, setup.device);
        let mut parameters = parameters.computing_in(setup.computed);
        let networks = build(&mut parameters.root());
        let flat = Flat::new(&parameters);
        (Self { name, parameters, flat, descent: None, updates: Cell::new(0) }, networks)
    }

    /// Minimises `objective` by one step: backward, sum over ranks, clip, finite check, update. In all
    /// but the last micro-batch of a step it is backward alone.
    ///
    /// The gradient is the sum over ranks, because every term is already normalised over the
    /// global batch. A gradient that is not finite leaves weights and moments as they are; the
    /// step's report says so.
    pub fn update(&mut self, objective: Objective, cx: &mut StepContext<'_>) -> Result<()> {
        let follows = || Failure::new(format!("`{}` follows another learner", self.name));
        let descent = self.descent.as_mut().ok_or_else(follows)?;
        let Descent { config, optimizer, leaves, gradients, buckets, own, is_shared } = descent;
        let is_shared = *is_shared;
        let micro_batch = cx.micro_batch();
        let total = objective.total(micro_batch.share)?;
        // Another learner's backward may have reached them.
        leaves.forget()?;
        // A rank's share of everything is not a share of every part.
        let overlaps = cx.communicator().tensors().overlaps() && !is_shared && micro_batch.is_last;
        if overlaps {
            buckets.begin(cx.communicator(), leaves, !micro_batch.is_first);
        }
        total.f_backward().context(|| format!("backward of `{}` failed", self.name))?;
        if !overlaps {
            leaves.gather_all(gradients, !micro_batch.is_first)?;
        }
        cx.report().take(self.name, objective, micro_batch.share);
        if !micro_batch.is_last {
            return Ok(());
        }
        let squares = if overlaps {
            buckets.finish()?;
            cx.squares_of(gradients)?
        } else {
            cx.sum_gradients(gradients, is_shared)?
        };
        self.updates.set(self.updates.get() + 1);
        let factors = cx
            .numbers()
            .numbers(gradients.device(), config.factors(self.updates.get(), cx.point()));
        let shares = self.flat.shares.as_ref().map(|shares| narrowed(shares, own));
        let copy = self.flat.narrowed.as_ref().map(|copy| narrowed(copy, own));
        let update = Update {
            weights: &narrowed(&self.flat.weights, own),
            narrowed: copy.as_ref(),
            shares: shares.as_ref(),
            gradients: &narrowed(gradients, own),
            squares: &squares,
            clip_norm: config.clip_norm,
            factors: &factors,
        };
        let norm = optimizer.step(&update, Form::Own)?;
        if is_shared {
            cx.gather_weights(&self.flat.weights)?;
            self.flat.renew_narrowed();
        }
        cx.report().record(self.name, factors.get(0), norm);
        Ok(())
    }

    /// Moves the weights towards those of `leader`, whose networks are built alike: what is kept of
    /// the own ones is `keep`, 0-dimensional and in [0, 1]. Running statistics stay as they are, and so does everything
    /// in a step whose gradient was not finite, and before the last micro-batch of a step.
    pub fn follow(&mut self, leader: &Self, keep: &Tensor, cx: &StepContext<'_>) -> Result<()> {
        if !cx.micro_batch().is_last {
            return Ok(());
        }
        if self.descent.is_some() || self.flat.slots != leader.flat.slots {
            return Err(Failure::new(format!("`{}` cannot follow `{}`", self.name, leader.name)));
        }
        let early = || Failure::new(format!("`{}` follows before a step", self.name));
        let finite = cx.finite().ok_or_else(early)?;
        let keep = keep.to_kind(Kind::Double);
        let of = Following { leader: &leader.flat.weights, keep: &keep, finite };
        tch::no_grad(|| approach(&self.flat, of, Form::Own))?;
        self.updates.set(self.updates() + 1);
        Ok(())
    }

    /// Lets `change` rewrite the flat weights, which must be a follower's.
    pub fn rewrite(&mut self, change: impl FnOnce(&Tensor) -> Result<()>) -> Result<()> {
        if self.descent.is_some() {
            return Err(Failure::new(format!("`{}` has an optimiser", self.name)));
        }
        change(&self.flat.weights)?;
        self.flat.renew_narrowed();
        self.updates.set(self.updates() + 1);
        Ok(())
    }

    /// Name of the learner, the first part of the names of its loss terms.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How often the weights were updated.
    pub fn updates(&self) -> u64 {
        self.updates.get()
    }

    /// Sets the number of updates, when a checkpoint is restored or a step was replayed.
    pub fn restore_updates(&self, updates: u64) {
        self.updates.set(updates);
    }

    /// Every tensor in the order of the state dictionary.
    pub fn entries(&self) -> &[Entry] {
        self.parameters.entries()
    }

    /// Where each trainable tensor lies in the flat ones.
    pub fn slots(&self) -> &[Slot] {
        &self.flat.slots
    }

    /// The gradients of the last update, in the order of the slots and summed over the ranks: views. A learner
    /// without optimiser has none, and one that shares its moments with other ranks has its share alone.
    pub fn gradients(&self) -> Vec<Tensor> {
        let gradients = self.descent.as_ref().map(|descent| &descent.gradients);
        let views =
            gradients.map(|all| self.flat.slots.iter().map(|slot| slot.view(all)).collect());
        views.unwrap_or_default()
    }

    /// `weights` and the optimiser's moments, as far as this rank holds them.
    pub fn flat_parts(&self) -> Vec<FlatPart> {
        let total = self.flat.weights.numel();
        let weights = self.flat.weights.shallow_clone();
        let whole = FlatPart { name: "weights", tensor: weights, start: 0, total, is_whole: true };
        let mut parts = vec![whole];
        if let Some(descent) = &self.descent {
            parts.extend(descent.optimizer.moments().iter().map(|(name, moment)| FlatPart {
                name,
                tensor: moment.shallow_clone(),
                start: descent.own.start,
                total,
                is_whole: !descent.is_shared,
            }));
        }
        parts
    }

    /// The weights in the numbers that convolutions compute in, where there are such, sharing storage.
    pub(super) fn flat_narrowed(&self) -> Option<Tensor> {
        self.flat.narrowed.as_ref().map(Tensor::shallow_clone)
    }

    /// To be called by whoever has changed weights in their places: lets what is kept of them beside follow.
    pub fn weights_were_set(&self) {
        self.flat.renew_narrowed();
    }

    /// Whether it has an optimiser.
    pub(super) fn descends(&self) -> bool {
        self.descent.is_some()
    }

    /// Buffers of one kind together, sharing storage.
    pub(super) fn flat_buffers(&self) -> impl Iterator<Item = Tensor> {
        self.flat.buffers.iter().map(Tensor::shallow_clone)
    }

    /// Running statistics and counters, sharing storage.
    pub fn buffers(&self) -> impl Iterator<Item = &Entry> {
        self.parameters.entries().iter().filter(|entry| entry.role == Role::Buffer)
    }
}

/// A range of a flat tensor, as a view.
fn narrowed(flat: &Tensor, range: &Range<usize>) -> Tensor {
    flat.narrow(0, range.start as i64, range.len() as i64)
}

/// Moves flat weights towards those of a leader where nothing was not finite.
fn approach(flat: &Flat, of: Following<'_>, form: Form) -> Result<()> {
    let weights = &flat.weights;
    if serves(weights, form) {
        return follow(weights, flat.narrowed.as_ref(), of, form);
    }
    let keep = of.keep.to_kind(weights.kind());
    settle(weights, &of.leader.lerp_tensor(weights, &keep), of.finite);
    flat.renew_narrowed();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::{Ranks, threads};
    use crate::native::{
        GroupSum, Normalisation, NormalisedChannels, TrainingPass, global_sum, normalise,
    };
    use std::sync::Arc;

    /// A convolution that is normalised over all ranks.
    struct Layer {
        weight: Tensor,
        channels: NormalisedChannels,
    }

    impl Layer {
        fn new(scope: &mut Scope<'_>) -> Self {
            let weight = scope.uniform("conv", &[4, 1, 3, 3], 1.0);
            let running_mean = scope.buffer("running_mean", &[4], 0.0);
            let channels = NormalisedChannels {
                weight: scope.constant("weight", &[4], 1.0),
                bias: scope.constant("bias", &[4], 0.3),
                absorbed: running_mean.zeros_like(),
                running_mean,
                running_var: scope.buffer("running_var", &[4], 1.0),
            };
            Self { weight, channels }
        }

        /// A mean over the pixels of the samples of all ranks.
        fn value(&self, image: &Tensor, ranks: &Ranks) -> Result<Tensor> {
            let form = Form::Own;
            let settings =
                Normalisation { momentum: 0.1, epsilon: 1e-5, slope: 0.2, dropout: 0.0, form };
            let group: Arc<dyn GroupSum> = ranks.tensors().clone();
            let pass = TrainingPass { group: &group, keys: None, batches: None };
            let features = image.conv2d(&self.weight, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1);
            let y = normalise(&features, &self.channels, settings, &pass)?;
            Ok(global_sum(&y.sin().square().sum(y.kind()), &*group) / 100.0)
        }
    }

    /// The weights and the last gradients after three steps on the images of a rank, with saliencies of them or
    /// without.
    fn trained(ranks: &Ranks, with_saliency: bool) -> Result<Vec<Tensor>> {
        let (key, kind, device) = (Key::new(1), Kind::Double, Device::Cpu);
        let moments = Moments::Whole;
        let setup = LearnerSetup { key, kind, computed: kind, device, moments };
        let config: LearnerConfig = toml::from_str("lr = 0.5\noptimizer = { sgd = {} }").unwrap();
        let (mut learner, layer) = Learner::new("model", config, setup, Layer::new)?;
        for step in 1..=3 {
            let samples = i64::from(ranks.rank() != 1);
            let image = Tensor::arange(samples * 42, (kind, device)).view([samples, 1, 6, 7]);
            let image = (image * (step + ranks.rank() as u64) as f64).sin();
            let image = image.set_requires_grad(with_saliency);
            let mut cx = StepContext::new(StepPoint::new(step, 10, key), ranks);
            let value = layer.value(&image, ranks)?;
            if with_saliency {
                let found = cx.saliency(&value, &image)?;
                assert!(learner.entries().iter().all(|entry| !entry.tensor.grad().defined()));
                assert!(!image.grad().defined());
                assert!(found.equal(&cx.saliency(&value, &image)?), "the graph is kept");
                // A second graph, all of whose leaves get their gradients.
                layer.value(&image, ranks)?.backward();
                assert!(found.equal(&image.grad()) && found.size() == image.size());
                assert!(learner.entries()[0].tensor.grad().defined());
            } else {
                let _ = layer.value(&image, ranks)?;
            }
            learner.update(Objective::new().term("value", 1.0, || value), &mut cx)?;
        }
        Ok(learner
            .flat_parts()
            .into_iter()
            .map(|part| part.tensor)
            .chain(learner.gradients())
            .collect())
    }

    #[test]
    fn a_saliency_leaves_parameters_their_gradients_and_the_graph_alone() {
        for count in [1, 3] {
            let outcomes = threads::run(count, |ranks| {
                let (with, without) = (trained(&ranks, true)?, trained(&ranks, false)?);
                assert!(without[0].abs().max().double_value(&[]) > 0.1);
                assert!(with.iter().zip(&without).all(|(with, without)| with.equal(without)));
                Ok(())
            });
            outcomes.into_iter().for_each(Result::unwrap);
        }
    }

    /// A convolution's weight in the numbers that it computes in.
    fn narrowed_weight(scope: &mut Scope<'_>) -> Tensor {
        let weight = scope.uniform("weight", &[4, 3, 1, 1], 1.0);
        scope.narrowed(&weight)
    }

    #[test]
    fn narrowed_weights_follow_every_change_and_get_the_gradient() {
        let config: LearnerConfig = toml::from_str("lr = 0.5\noptimizer = { sgd = {} }").unwrap();
        let (kind, computed) = (Kind::Float, Kind::BFloat16);
        let (key, device, moments) = (Key::new(1), Device::Cpu, Moments::Whole);
        let setup = LearnerSetup { key, kind, computed, device, moments };
        let (mut learner, weight) = Learner::new("model", config, setup, narrowed_weight).unwrap();
        let (mut average, of_average) = Learner::follower("average", setup, narrowed_weight);
        let follows = |learner: &Learner, narrowed: &Tensor| {
            let stored = learner.entries()[0].tensor.to_kind(computed);
            assert!(narrowed.eq_tensor(&stored).all().int64_value(&[]) == 1);
        };
        let communicator = Ranks::alone();
        let mut cx = StepContext::new(StepPoint::new(1, 10, key), &communicator);
        let before = weight.copy();
        let x = Tensor::ones([1, 3, 4, 4], (computed, device));
        let y = x.conv2d(&weight, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1).to_kind(kind);
        learner.update(Objective::new().term("sum", 1.0, || y.sum(kind)), &mut cx).unwrap();
        assert!(learner.gradients()[0].eq(16.0).all().int64_value(&[]) == 1);
        assert!(weight.ne_tensor(&before).all().int64_value(&[]) == 1);
        follows(&learner, &weight);
        average.follow(&learner, &Tensor::from(0.5f64), &cx).unwrap();
        follows(&average, &of_average);
        let fill = |weights: &Tensor| {
            let _ = weights.shallow_clone().fill_(0.3);
            Ok(())
        };
        average.rewrite(fill).unwrap();
        follows(&average, &of_average);
    }

    #[test]
    fn an_average_goes_the_same_way_in_all_forms() {
        for kind in [Kind::Float, Kind::Double] {
            let options = (Kind::Double, Device::Cpu);
            let line = |from: f64| Tensor::linspace(from, 1.0, 4099, options).to_kind(kind);
            let moved = |form: Form, keep: f64, finite: bool| {
                let (weights, leader) = (line(-3.0), line(2.0));
                let [keep, finite] = [Tensor::from(keep), Tensor::from(finite)];
                let of = Following { leader: &leader, keep: &keep, finite: &finite };
                let narrowed = weights.to_kind(Kind::BFloat16);
                let flat = Flat {
                    weights,
                    narrowed: Some(narrowed),
                    shares: None,
                    slots: Vec::new(),
                    buffers: Vec::new(),
                };
                approach(&flat, of, form).unwrap();
                assert!(flat.narrowed.unwrap().equal(&flat.weights.to_kind(Kind::BFloat16)));
                flat.weights
            };
            for form in [Form::Own, Form::Plain, Form::DeviceTwin] {
                for keep in [0.3, 0.99] {
                    let found = moved(form, keep, true);
                    let expected = moved(Form::Plain, keep, true);
                    assert!(found.allclose(&expected, 1e-6, 1e-6, false), "{form:?} {kind:?}");
                }
                assert!(moved(form, 0.0, true).equal(&line(2.0)), "{form:?}");
                assert!(moved(form, 1.0, true).equal(&line(-3.0)), "{form:?}");
                assert!(moved(form, 0.0, false).equal(&line(-3.0)), "{form:?}");
            }
        }
    }

    #[test]
    fn a_part_and_a_range_overlap_in_what_both_have() {
        let tensor = Tensor::arange_start(10, 20, (Kind::Int64, Device::Cpu));
        let flat = FlatPart { name: "momentum", tensor, start: 10, total: 40, is_whole: false };
        for range in [0..5, 0..12, 0..40, 12..15, 18..30, 20..30, 30..40, 7..7] {
            let (before, found) = flat.overlap(range.clone());
            let expected: Vec<i64> =
                range.clone().filter(|index| (10..20).contains(index)).map(|i| i as i64).collect();
            assert_eq!(Vec::<i64>::try_from(&found).unwrap(), expected, "{range:?}");
            if let Some(&first) = expected.first() {
                assert_eq!(range.start + before, first as usize);
            }
        }
    }
}
