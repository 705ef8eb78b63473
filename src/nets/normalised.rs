//! A convolution, and the batch normalisation, rectification and dropout that alone see its result.
//!
//! Knows no network; ranks, keys and the kind of pass come in as arguments.

use super::{Convolution, MOMENTUM, Pass, PerAxis};
use crate::error::Result;
use crate::native::{self, Form, Normalisation, NormalisedChannels, TrainingPass};
use crate::parameters::Scope;
use tch::Tensor;

/// A convolution over images or volumes, then batch normalisation, leaky rectification (slope 0.01) and dropout in one pass
/// over memory.
///
/// The convolution's bias is never added to its result, which would cost a pass over memory and another one
/// for its gradient: statistics of a batch take it out again. The running mean counts it, so that names and
/// values of the state dictionary are the reference's.
#[derive(Debug)]
pub struct NormalisedConvolution {
    convolution: Convolution,
    channels: NormalisedChannels,
    batches_tracked: Tensor,
    settings: Normalisation,
    name: String,
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
        let convolution =
            Convolution::registered(&mut scope.sub(names[0]), channels, taps, Scope::absorbed);
        let mut scope = scope.sub(names[1]);
        let count = channels[1];
        Self {
            channels: NormalisedChannels {
                weight: scope.constant("weight", &[count], 1.0),
                bias: scope.constant("bias", &[count], 0.0),
                absorbed: convolution.bias.shallow_clone(),
                running_mean: scope.buffer("running_mean", &[count], 0.0),
                running_var: scope.buffer("running_var", &[count], 1.0),
            },
            batches_tracked: scope.counter("num_batches_tracked"),
            settings: Normalisation {
                momentum: MOMENTUM,
                epsilon: 1e-5,
                slope: 0.01,
                dropout,
                form: Form::Own,
            },
            name: scope.name().to_owned(),
            convolution,
        }
    }

    /// Features of the channels in to as large ones of the channels out, in the numbers of the convolution.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let x = self.convolution.forward_unbiased(x);
        let (group, keys) = match pass {
            Pass::Train { group, keys } => (group, keys),
            Pass::Statistics { group, share } => {
                let settings = Normalisation { momentum: *share, ..self.settings };
                let pass = TrainingPass { group, keys: None, batches: None };
                return native::normalise(&x, &self.channels, settings, &pass);
            }
            Pass::Evaluate => {
                return native::normalise_evaluate(&x, &self.channels, self.settings);
            }
        };
        let keys = keys.as_ref().filter(|_| self.settings.dropout > 0.0);
        let keys = keys.map(|keys| keys(&self.name));
        let batches = Some(&self.batches_tracked);
        let pass = TrainingPass { group, keys: keys.as_ref(), batches };
        native::normalise(&x, &self.channels, self.settings, &pass)
    }
}
