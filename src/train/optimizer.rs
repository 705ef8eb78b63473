//! SGD, Adam and `AdamW` on one flat tensor, with a state that can be saved.
//!
//! An update is one kernel however many parameters there are, or the same formulas as tensor operations where
//! there are no kernels. A gradient that is not finite changes nothing: the flag stays on the device and
//! selects the old state there.

use super::numbers;
use crate::error::{Failure, Result};
use crate::native::Form;
use crate::native::flat::{self, Constants, Descent, Norm};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Which optimiser, and its constants.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerConfig {
    /// Stochastic gradient descent with momentum, as `torch.optim.SGD` computes it.
    Sgd(SgdConfig),
    /// Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019); plain Adam at decay 0.
    AdamW(AdamConfig),
    /// Adam with the weight decay in the gradient, as `torch.optim.Adam` computes it.
    Adam(AdamConfig),
}

/// Constants of SGD.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SgdConfig {
    /// Share of the previous update direction that is kept, in [0, 1).
    #[serde(deserialize_with = "numbers::share")]
    pub momentum: f64,
    /// L2 penalty, added to the gradient of every parameter.
    #[serde(deserialize_with = "numbers::weight")]
    pub weight_decay: f64,
    /// Whether a step goes where momentum is going to be, as Nesterov's does, and not where it is.
    pub nesterov: bool,
}

impl SgdConfig {
    /// What of momentum is added to the direction once more.
    fn ahead(self) -> f64 {
        if self.nesterov { self.momentum } else { 0.0 }
    }
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self { momentum: 0.9, weight_decay: 1e-4, nesterov: false }
    }
}

/// Constants of `AdamW` and Adam.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamConfig {
    /// Decay of the running mean of gradients, in [0, 1).
    #[serde(deserialize_with = "numbers::share")]
    pub beta1: f64,
    /// Decay of the running mean of squared gradients, in [0, 1).
    #[serde(deserialize_with = "numbers::share")]
    pub beta2: f64,
    /// Added to the root of the second moment, above 0.
    #[serde(deserialize_with = "numbers::positive")]
    pub epsilon: f64,
    /// `AdamW`: share of each weight that a step of learning rate 1 removes. Adam: L2 penalty, added to
    /// the gradient of every parameter.
    #[serde(deserialize_with = "numbers::weight")]
    pub weight_decay: f64,
}

impl Default for AdamConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// An optimiser with its moments, flat tensors like the weights.
#[derive(Debug)]
pub(super) struct Optimizer {
    config: OptimizerConfig,
    moments: Vec<(&'static str, Tensor)>,
}

/// What one update works with.
#[derive(Clone, Copy)]
pub(super) struct Update<'a> {
    pub(super) weights: &'a Tensor,
    /// A copy of the weights in fewer bits, which follows them.
    pub(super) narrowed: Option<&'a Tensor>,
    /// Which weights stay in [0, 1], as truth values.
    pub(super) shares: Option<&'a Tensor>,
    pub(super) gradients: &'a Tensor,
    /// The sum of the squares of all gradients, on all ranks, 0-dimensional f64.
    pub(super) squares: &'a Tensor,
    /// Largest norm of the gradients; 0: no limit.
    pub(super) clip_norm: f64,
    /// Those of [`OptimizerConfig::factors`], `f64 [count]`.
    pub(super) factors: &'a Tensor,
}

impl OptimizerConfig {
    /// What an update multiplies and divides by; the learning rate is the first. `number` counts updates
    /// from 1.
    pub(super) fn factors(self, learning_rate: f64, number: u64) -> Vec<f64> {
        let adam = |config: AdamConfig, weight_decay: f64| {
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            let step_size = learning_rate / (1.0 - config.beta1.powi(number));
            let correction = (1.0 - config.beta2.powi(number)).sqrt();
            vec![learning_rate, step_size, correction, 1.0 - learning_rate * weight_decay]
        };
        match self {
            Self::Sgd(_) => vec![learning_rate],
            Self::AdamW(config) => adam(config, config.weight_decay),
            Self::Adam(config) => adam(config, 0.0),
        }
    }

    /// What does not vary from update to update.
    fn constants(self, clip: f64) -> Constants {
        let adam = |config: AdamConfig, decay: f64| Constants {
            clip,
            decay,
            of_first: 1.0 - config.beta1,
            of_second: 1.0 - config.beta2,
            epsilon: config.epsilon,
            ahead: 0.0,
        };
        match self {
            Self::Sgd(config) => Constants {
                clip,
                decay: config.weight_decay,
                of_first: config.momentum,
                ahead: config.ahead(),
                ..Constants::default()
            },
            Self::AdamW(config) => adam(config, 0.0),
            Self::Adam(config) => adam(config, config.weight_decay),
        }
    }
}

/// `tensor <- where(finite, value, tensor)` in place.
pub(super) fn settle(tensor: &Tensor, value: &Tensor, finite: &Tensor) {
    let mut target = tensor.shallow_clone();
    target.copy_(&value.where_self(finite, tensor));
}

impl Optimizer {
    pub(super) fn new(config: OptimizerConfig, weights: &Tensor) -> Self {
        let names: &[&'static str] = match config {
            OptimizerConfig::Sgd(_) => &["momentum"],
            OptimizerConfig::AdamW(_) | OptimizerConfig::Adam(_) => {
                &["first_moment", "second_moment"]
            }
        };
        let moments = names.iter().map(|name| (*name, weights.detach().zeros_like())).collect();
        Self { config, moments }
    }

    /// Names and tensors of the moments, in a fixed order.
    pub(super) fn moments(&self) -> &[(&'static str, Tensor)] {
        &self.moments
    }

    /// Changes weights and moments in place, and says what the norm of the gradients was.
    pub(super) fn step(&mut self, update: &Update<'_>, form: Form) -> Result<Norm> {
        if !flat::serves(update.weights, form) {
            return Ok(tch::no_grad(|| self.step_by_operations(update)));
        }
        let Some((_, first)) = self.moments.first() else {
            return Err(Failure::new("an optimiser has no moments"));
        };
        let descent = Descent {
            weights: update.weights,
            gradients: update.gradients,
            first,
            second: self.moments.get(1).map(|(_, second)| second),
            narrowed: update.narrowed,
            shares: update.shares,
            squares: update.squares,
            factors: update.factors,
            constants: self.config.constants(update.clip_norm),
        };
        flat::descend(&descent, form)
    }

    fn step_by_operations(&mut self, update: &Update<'_>) -> Norm {
        let value = update.squares.sqrt().to_kind(update.weights.kind());
        let finite = value.isfinite();
        let step = Step {
            weights: update.weights,
            gradients: &clipped(update.gradients, &value, update.clip_norm),
            finite: &finite,
            factors: &update.factors.unbind(0),
        };
        match (self.config, self.moments.as_slice()) {
            (OptimizerConfig::Sgd(config), [(_, momentum)]) => sgd(config, momentum, &step),
            (OptimizerConfig::AdamW(config), [(_, first), (_, second)]) => {
                adamw(config, [first, second], &step);
            }
            (OptimizerConfig::Adam(config), [(_, first), (_, second)]) => {
                adam(config, [first, second], &step);
            }
            _ => {}
        }
        if let Some(shares) = update.shares {
            let kept = update.weights.clamp(0.0, 1.0).where_self(shares, update.weights);
            update.weights.shallow_clone().copy_(&kept);
        }
        if let Some(narrowed) = update.narrowed {
            narrowed.shallow_clone().copy_(update.weights);
        }
        Norm { value, finite }
    }
}

/// What the formulas of an update work with.
struct Step<'a> {
    weights: &'a Tensor,
    gradients: &'a Tensor,
    /// 0-dimensional boolean: whether the gradient is finite.
    finite: &'a Tensor,
    /// Each 0-dimensional.
    factors: &'a [Tensor],
}

/// Gradients whose norm, 0-dimensional, is at most `most`.
fn clipped(gradients: &Tensor, norm: &Tensor, most: f64) -> Tensor {
    if most > 0.0 {
        gradients * (most / (norm + 1e-6)).clamp_max(1.0)
    } else {
        gradients.shallow_clone()
    }
}

fn sgd(config: SgdConfig, momentum: &Tensor, step: &Step<'_>) {
    let direction = step.gradients + step.weights * config.weight_decay;
    settle(momentum, &(momentum * config.momentum + &direction), step.finite);
    if let [learning_rate] = step.factors {
        let taken = if config.nesterov {
            direction + momentum * config.ahead()
        } else {
            momentum.shallow_clone()
        };
        let moved = step.weights - taken * learning_rate;
        settle(step.weights, &moved, step.finite);
    }
}

fn adam(config: AdamConfig, moments: [&Tensor; 2], step: &Step<'_>) {
    let gradients = step.gradients + step.weights * config.weight_decay;
    adamw(config, moments, &Step { gradients: &gradients, ..*step });
}

fn adamw(config: AdamConfig, [first, second]: [&Tensor; 2], step: &Step<'_>) {
    let gradient = step.gradients;
    settle(first, &first.lerp(gradient, 1.0 - config.beta1), step.finite);
    settle(second, &second.lerp(&gradient.square(), 1.0 - config.beta2), step.finite);
    if let [_, step_size, correction, kept] = step.factors {
        let denominator = second.sqrt() / correction + config.epsilon;
        let decayed = step.weights * kept;
        settle(step.weights, &(decayed - first / denominator * step_size), step.finite);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, nn, nn::OptimizerConfig as _};

    const FORMS: [Form; 3] = [Form::Own, Form::Plain, Form::DeviceTwin];

    /// One update of everything that there is, without a limit for the norm.
    fn step(
        optimizer: &mut Optimizer,
        weights: &Tensor,
        gradients: &Tensor,
        of: (u64, Form),
    ) -> Norm {
        let (number, form) = of;
        let squares = gradients.to_kind(Kind::Double).square().sum(Kind::Double);
        let factors = Tensor::from_slice(&optimizer.config.factors(0.03, number));
        let update = Update {
            weights,
            narrowed: None,
            shares: None,
            gradients,
            squares: &squares,
            clip_norm: 0.0,
            factors: &factors,
        };
        optimizer.step(&update, form).unwrap()
    }

    /// Ten steps of ours and of libtorch's own optimiser on the same quadratic.
    fn compare(config: OptimizerConfig, reference: &mut nn::Optimizer, theirs: &Tensor) {
        let mut ours = FORMS.map(|form| {
            let weights = theirs.detach().copy();
            (form, Optimizer::new(config, &weights), weights)
        });
        for number in 1..=10 {
            let slope = Tensor::linspace(-2.0, 3.0, 8, (Kind::Double, Device::Cpu));
            for (form, optimizer, weights) in &mut ours {
                let gradient = (&*weights * &slope + 0.5).detach();
                let _ = step(optimizer, weights, &gradient, (number, *form));
            }
            let loss = (theirs.square() * &slope * 0.5 + theirs * 0.5).sum(Kind::Double);
            reference.zero_grad();
            loss.backward();
            reference.step();
        }
        for (form, _, weights) in &ours {
            let equal = weights.allclose(theirs, 1e-12, 1e-12, false);
            assert!(equal, "{form:?}: {weights} {theirs}");
        }
    }

    fn variable(store: &nn::VarStore) -> Tensor {
        store.root().var("w", &[8], nn::Init::Uniform { lo: -1.0, up: 1.0 })
    }

    fn store() -> nn::VarStore {
        let mut store = nn::VarStore::new(Device::Cpu);
        store.double();
        store
    }

    #[test]
    fn sgd_equals_libtorch() {
        let mut store = store();
        let theirs = variable(&store);
        store.double();
        let mut reference = nn::sgd(0.9, 0.0, 1e-4, false).build(&store, 0.03).unwrap();
        compare(OptimizerConfig::Sgd(SgdConfig::default()), &mut reference, &theirs);
    }

    #[test]
    fn sgd_that_looks_ahead_equals_libtorch() {
        let mut store = store();
        let theirs = variable(&store);
        store.double();
        let mut reference = nn::sgd(0.9, 0.0, 1e-4, true).build(&store, 0.03).unwrap();
        let config = SgdConfig { nesterov: true, ..SgdConfig::default() };
        compare(OptimizerConfig::Sgd(config), &mut reference, &theirs);
    }

    #[test]
    fn adamw_equals_libtorch() {
        let mut store = store();
        let theirs = variable(&store);
        store.double();
        let mut reference = nn::adamw(0.9, 0.999, 0.01).build(&store, 0.03).unwrap();
        let config = AdamConfig { weight_decay: 0.01, ..AdamConfig::default() };
        compare(OptimizerConfig::AdamW(config), &mut reference, &theirs);
    }

    #[test]
    fn adam_equals_libtorch() {
        let mut store = store();
        let theirs = variable(&store);
        store.double();
        let mut reference =
            nn::Adam { beta1: 0.5, wd: 0.01, ..nn::Adam::default() }.build(&store, 0.03).unwrap();
        let config = AdamConfig { beta1: 0.5, weight_decay: 0.01, ..AdamConfig::default() };
        compare(OptimizerConfig::Adam(config), &mut reference, &theirs);
    }

    fn configs() -> [OptimizerConfig; 4] {
        let adam = AdamConfig { weight_decay: 0.01, ..AdamConfig::default() };
        [
            OptimizerConfig::Sgd(SgdConfig::default()),
            OptimizerConfig::Sgd(SgdConfig { nesterov: true, ..SgdConfig::default() }),
            OptimizerConfig::AdamW(adam),
            OptimizerConfig::Adam(adam),
        ]
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        for (config, form) in
            configs().into_iter().flat_map(|config| FORMS.map(|form| (config, form)))
        {
            let weights = Tensor::ones([4], (Kind::Float, Device::Cpu));
            let gradients = Tensor::full([4], f64::NAN, (Kind::Float, Device::Cpu));
            let mut optimizer = Optimizer::new(config, &weights);
            let norm = step(&mut optimizer, &weights, &gradients, (1, form));
            assert!(!bool::try_from(norm.finite).unwrap(), "{form:?}");
            assert!(weights.equal(&Tensor::ones([4], (Kind::Float, Device::Cpu))), "{form:?}");
            assert!(
                optimizer.moments().iter().all(|(_, m)| m.abs().max().double_value(&[]) == 0.0)
            );
        }
    }

    /// Everything that an update of so many weights changes: long gradients, some weights kept in [0, 1].
    fn updated(config: OptimizerConfig, kind: Kind, form: Form) -> Vec<Tensor> {
        let count = 5003;
        let options = (Kind::Double, Device::Cpu);
        let line = |from: f64, to: f64| Tensor::linspace(from, to, count, options).to_kind(kind);
        let (weights, gradients) = (line(-0.2, 1.1), line(3.0, -2.0));
        let narrowed = weights.to_kind(Kind::BFloat16);
        let shares = Tensor::arange(count, (Kind::Int64, Device::Cpu)).remainder(3).eq(0);
        let squares = gradients.to_kind(Kind::Double).square().sum(Kind::Double);
        let mut optimizer = Optimizer::new(config, &weights);
        let mut norms = Vec::new();
        for number in 1..=3 {
            let factors = Tensor::from_slice(&config.factors(0.3, number));
            let update = Update {
                weights: &weights,
                narrowed: Some(&narrowed),
                shares: Some(&shares),
                gradients: &gradients,
                squares: &squares,
                clip_norm: 2.0,
                factors: &factors,
            };
            norms.push(optimizer.step(&update, form).unwrap().value);
        }
        assert!(narrowed.equal(&weights.to_kind(Kind::BFloat16)), "{form:?}");
        let kept = weights.masked_select(&shares);
        assert!(kept.ge(0.0).logical_and(&kept.le(1.0)).all().int64_value(&[]) == 1);
        assert!(weights.min().double_value(&[]) < 0.0, "the others may leave [0, 1]");
        let moments = optimizer.moments.into_iter().map(|(_, moment)| moment);
        moments.chain([weights]).chain(norms).collect()
    }

    #[test]
    fn clipping_shares_and_narrowed_weights_are_those_of_the_formulas() {
        for config in configs() {
            for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::Double, 1e-13)] {
                let expected = updated(config, kind, Form::Plain);
                for form in [Form::Own, Form::DeviceTwin] {
                    for (found, expected) in updated(config, kind, form).iter().zip(&expected) {
                        let equal = found.allclose(expected, tolerance, tolerance, false);
                        assert!(equal, "{config:?} {kind:?} {form:?}");
                    }
                }
            }
        }
    }
}
