//! SGD, Adam and `AdamW` on one flat tensor, with a state that can be saved.
//!
//! An update is a handful of kernels however many parameters there are, and a gradient that is not
//! finite changes nothing: the flag stays on the device and selects the old state there.

use super::numbers;
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
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self { momentum: 0.9, weight_decay: 1e-4 }
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
pub(super) struct Update<'a> {
    pub(super) weights: &'a Tensor,
    pub(super) gradients: &'a Tensor,
    /// 0-dimensional boolean: whether the gradient is finite.
    pub(super) finite: &'a Tensor,
    /// Those of [`OptimizerConfig::factors`], each 0-dimensional.
    pub(super) factors: &'a [Tensor],
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

    /// Changes weights and moments in place. The gradient may be overwritten.
    pub(super) fn step(&mut self, update: &Update<'_>) {
        tch::no_grad(|| match (self.config, self.moments.as_slice()) {
            (OptimizerConfig::Sgd(config), [(_, momentum)]) => sgd(config, momentum, update),
            (OptimizerConfig::AdamW(config), [(_, first), (_, second)]) => {
                adamw(config, [first, second], update);
            }
            (OptimizerConfig::Adam(config), [(_, first), (_, second)]) => {
                adam(config, [first, second], update);
            }
            _ => {}
        });
    }
}

fn sgd(config: SgdConfig, momentum: &Tensor, update: &Update<'_>) {
    let direction = update.gradients + update.weights * config.weight_decay;
    settle(momentum, &(momentum * config.momentum + direction), update.finite);
    if let [learning_rate] = update.factors {
        let moved = update.weights - momentum * learning_rate;
        settle(update.weights, &moved, update.finite);
    }
}

fn adam(config: AdamConfig, moments: [&Tensor; 2], update: &Update<'_>) {
    let gradients = update.gradients + update.weights * config.weight_decay;
    adamw(config, moments, &Update { gradients: &gradients, ..*update });
}

fn adamw(config: AdamConfig, [first, second]: [&Tensor; 2], update: &Update<'_>) {
    let gradient = update.gradients;
    settle(first, &first.lerp(gradient, 1.0 - config.beta1), update.finite);
    settle(second, &second.lerp(&gradient.square(), 1.0 - config.beta2), update.finite);
    if let [_, step_size, correction, kept] = update.factors {
        let denominator = second.sqrt() / correction + config.epsilon;
        let decayed = update.weights * kept;
        settle(update.weights, &(decayed - first / denominator * step_size), update.finite);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, nn, nn::OptimizerConfig as _};

    fn factors(config: OptimizerConfig, number: u64) -> Vec<Tensor> {
        config.factors(0.03, number).into_iter().map(Tensor::from).collect()
    }

    /// Ten steps of ours and of libtorch's own optimiser on the same quadratic.
    fn compare(config: OptimizerConfig, reference: &mut nn::Optimizer, theirs: &Tensor) {
        let ours = theirs.detach().copy();
        let yes = Tensor::from(true);
        let mut optimizer = Optimizer::new(config, &ours);
        for number in 1..=10 {
            let slope = Tensor::linspace(-2.0, 3.0, 8, (Kind::Double, Device::Cpu));
            let gradient = (&ours * &slope + 0.5).detach();
            let factors = factors(config, number);
            let update =
                Update { weights: &ours, gradients: &gradient, finite: &yes, factors: &factors };
            optimizer.step(&update);
            let loss = (theirs.square() * &slope * 0.5 + theirs * 0.5).sum(Kind::Double);
            reference.zero_grad();
            loss.backward();
            reference.step();
        }
        assert!(ours.allclose(theirs, 1e-12, 1e-12, false), "{ours} {theirs}");
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

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        for config in [
            OptimizerConfig::Sgd(SgdConfig::default()),
            OptimizerConfig::AdamW(AdamConfig::default()),
            OptimizerConfig::Adam(AdamConfig::default()),
        ] {
            let weights = Tensor::ones([4], (Kind::Float, Device::Cpu));
            let gradients = Tensor::full([4], f64::NAN, (Kind::Float, Device::Cpu));
            let finite = gradients.isfinite().all();
            let mut optimizer = Optimizer::new(config, &weights);
            let factors = factors(config, 1);
            let update = Update {
                weights: &weights,
                gradients: &gradients,
                finite: &finite,
                factors: &factors,
            };
            optimizer.step(&update);
            assert!(weights.equal(&Tensor::ones([4], (Kind::Float, Device::Cpu))));
            assert!(
                optimizer.moments().iter().all(|(_, m)| m.abs().max().double_value(&[]) == 0.0)
            );
        }
    }
}
