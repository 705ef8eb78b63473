//! Batch normalisation with the rectification and dropout that follow it, alone or behind a convolution whose result
//! nobody else sees.
//!
//! Knows no network; ranks, keys and the kind of pass come in as arguments.

use super::{Convolution, MOMENTUM, Pass, PerAxis};
use crate::error::Result;
use crate::native::{self, Alone, Form, GroupSum, Normalisation, NormalisedChannels, TrainingPass};
use crate::parameters::Scope;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// Batch normalisation over all ranks, then leaky rectification and dropout, in one pass over memory.
#[derive(Debug)]
pub struct BatchNormalisation {
    channels: NormalisedChannels,
    batches_tracked: Tensor,
    settings: Normalisation,
    name: String,
}

impl BatchNormalisation {
    /// Of so many channels. Registers `weight`, `bias`, `running_mean`, `running_var` and `num_batches_tracked`.
    /// `absorbed`, `[channels]`, is what a convolution in front should have added to its result, and did not.
    pub fn new(
        scope: &mut Scope<'_>,
        count: i64,
        absorbed: Option<&Tensor>,
        settings: Normalisation,
    ) -> Self {
        let weight = scope.constant("weight", &[count], 1.0);
        let bias = scope.constant("bias", &[count], 0.0);
        let running_mean = scope.buffer("running_mean", &[count], 0.0);
        let running_var = scope.buffer("running_var", &[count], 1.0);
        let absorbed = absorbed.map_or_else(|| running_mean.zeros_like(), Tensor::shallow_clone);
        Self {
            channels: NormalisedChannels { weight, bias, absorbed, running_mean, running_var },
            batches_tracked: scope.counter("num_batches_tracked"),
            settings,
            name: scope.name().to_owned(),
        }
    }

    /// Features `[N, C, H, W]` or `[N, C, D, H, W]` normalised by the statistics that belong to `pass`.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let (group, keys, moves) = match pass {
            Pass::Train { group, keys, moves } => (group, keys, *moves),
            Pass::Statistics { group, share } => {
                let settings = Normalisation { momentum: *share, ..self.settings };
                let pass = TrainingPass { group, keys: None, batches: None };
                return native::normalise(x, &self.channels, settings, &pass);
            }
            Pass::Evaluate => {
                return native::normalise_evaluate(x, &self.channels, self.settings);
            }
        };
        let keys = keys.as_ref().filter(|_| self.settings.dropout > 0.0);
        let keys = keys.map(|keys| keys(&self.name));
        let batches = Some(&self.batches_tracked);
        let pass = TrainingPass { group, keys: keys.as_ref(), batches };
        let momentum = share_after(self.settings.momentum, moves);
        native::normalise(x, &self.channels, Normalisation { momentum, ..self.settings }, &pass)
    }

    /// Features `[N, C, H, W]` or `[N, C, D, H, W]`, each sample normalised by its own statistics, whatever stands
    /// beside it. Nothing is dropped, and the running statistics stay as they are.
    pub fn forward_each(&self, x: &Tensor) -> Result<Tensor> {
        let of = &self.channels;
        let channels = NormalisedChannels {
            weight: of.weight.shallow_clone(),
            bias: of.bias.shallow_clone(),
            absorbed: of.absorbed.shallow_clone(),
            running_mean: of.running_mean.copy(),
            running_var: of.running_var.copy(),
        };
        let group: Arc<dyn GroupSum> = Arc::new(Alone);
        let pass = TrainingPass { group: &group, keys: None, batches: None };
        let normalise = |x: &Tensor| native::normalise(x, &channels, self.settings, &pass);
        match x.size()[0] {
            0 => Ok(x.shallow_clone()),
            1 => normalise(x),
            _ => {
                let samples = x.split(1, 0);
                let normalised = samples.iter().map(normalise).collect::<Result<Vec<Tensor>>>()?;
                Ok(Tensor::cat(&normalised, 0))
            }
        }
    }
}

/// The share of a batch in running statistics after so many moves towards it, each by `momentum`.
fn share_after(momentum: f64, moves: i32) -> f64 {
    if moves == 1 { momentum } else { 1.0 - (1.0 - momentum).powi(moves) }
}

/// A convolution over images or volumes, then batch normalisation, leaky rectification (slope 0.01) and dropout in one pass
/// over memory.
///
/// The convolution's bias is never added to its result, which would cost a pass over memory and another one
/// for its gradient: statistics of a batch take it out again. The running mean counts it, so that names and
/// values of the state dictionary are the reference's.
#[derive(Debug)]
pub struct NormalisedConvolution {
    convolution: Convolution,
    normalisation: BatchNormalisation,
}

impl NormalisedConvolution {
    /// Registers `weight` and `bias` under the first name, `weight`, `bias`, `running_mean`, `running_var`
    /// and `num_batches_tracked` under the second. `channels` are those that come in and go out, `taps` odd
    /// numbers; `dropout` is the probability with which an element is dropped in training.
    pub fn new(
        scope: &mut Scope<'_>,
        names: [&str; 2],
        channels: [i64; 2],
        taps: PerAxis,
        dropout: f64,
    ) -> Self {
        let register = [Scope::uniform, Scope::absorbed];
        let convolution =
            Convolution::registered(&mut scope.sub(names[0]), channels, taps, register);
        let (momentum, form) = (MOMENTUM, Form::Own);
        let settings = Normalisation { momentum, epsilon: 1e-5, slope: 0.01, dropout, form };
        let (mut scope, absorbed) = (scope.sub(names[1]), Some(&convolution.bias));
        let normalisation = BatchNormalisation::new(&mut scope, channels[1], absorbed, settings);
        Self { convolution, normalisation }
    }

    /// Features of the channels in to as large ones of the channels out, in the numbers of the convolution.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        if matches!(pass, Pass::Evaluate) && self.convolution.is_of_volumes_on_cpu() {
            let [weight, bias] = self.folded();
            return native::convolve_volumes(x, &weight, &bias, self.normalisation.settings.slope);
        }
        self.normalisation.forward(&self.convolution.forward_unbiased(x), pass)
    }

    /// Weight and bias of a convolution that also normalises by the running statistics: the same to rounding.
    fn folded(&self) -> [Tensor; 2] {
        tch::no_grad(|| {
            let wide = |tensor: &Tensor| tensor.to_kind(Kind::Double);
            let BatchNormalisation { channels: of, settings, .. } = &self.normalisation;
            let scale = wide(&of.weight) * (wide(&of.running_var) + settings.epsilon).rsqrt();
            let mean = wide(&of.running_mean) - wide(&of.absorbed);
            let weight = &self.convolution.weight;
            let bias = (wide(&of.bias) - mean * &scale).to_kind(weight.kind());
            [weight * scale.to_kind(weight.kind()).view([-1, 1, 1, 1, 1]), bias]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Parameters;
    use crate::random::Key;
    use tch::Device;

    /// Numbers in [-1, 1] that repeat after none of the extents.
    fn wave(extents: &[i64], kind: Kind) -> Tensor {
        let numbers = Tensor::arange(extents.iter().product::<i64>(), (Kind::Double, Device::Cpu));
        (numbers * 0.37).sin().to_kind(kind).view(extents)
    }

    #[test]
    fn evaluation_over_volumes_is_the_convolution_normalised_and_rectified() {
        for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::Double, 1e-13)] {
            for taps in [[3, 3, 3], [1, 3, 3], [3, 1, 1]] {
                let mut parameters = Parameters::new(Key::new(3), kind, Device::Cpu);
                let (names, taps) = (["0", "1"], PerAxis::Three(taps));
                let layer =
                    NormalisedConvolution::new(&mut parameters.root(), names, [3, 16], taps, 0.0);
                let x = wave(&[2, 3, 4, 5, 6], kind);
                let (found, expected) = tch::no_grad(|| {
                    let BatchNormalisation { channels: of, settings, .. } = &layer.normalisation;
                    for tensor in [&of.weight, &of.bias, &of.absorbed, &of.running_mean] {
                        tensor.shallow_clone().copy_(&wave(&[16], kind));
                    }
                    of.running_var.shallow_clone().copy_(&(wave(&[16], kind) + 1.1));
                    let convolved = layer.convolution.forward_unbiased(&x);
                    let expected = native::normalise_evaluate(&convolved, of, *settings);
                    (layer.forward(&x, &Pass::Evaluate).unwrap(), expected.unwrap())
                });
                let difference = (found - &expected).abs().max() / expected.abs().max();
                let difference = difference.double_value(&[]);
                assert!(difference < tolerance, "{kind:?} {taps:?}: {difference:e}");
            }
        }
    }
}
