//! Blocks that networks share: convolutions and normalisations under the reference's names.
//!
//! Networks are formulas: ranks, random numbers and the kind of pass come in as arguments.

pub mod gan;
pub mod label_transfer;
pub mod spectral;
pub mod unet;

use crate::error::Result;
use crate::native::{self, Form, GroupSum, Normalisation, NormalisedChannels, TrainingPass};
use crate::parameters::Scope;
use std::rc::Rc;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// Share of a training batch in the running statistics of normalisations.
pub const MOMENTUM: f64 = 0.1;

/// The keys with which a layer of a given name drops elements: one for each sample of the local batch, as
/// `random::Key::bits`, `i64 [N]` on the device of the samples.
pub type LayerKeys = Rc<dyn Fn(&str) -> Tensor>;

/// How a network is run.
pub enum Pass {
    /// Batch statistics and dropout; gradients are recorded.
    Train {
        /// The ranks whose samples are normalised together.
        group: Arc<dyn GroupSum>,
        /// For dropout; none: no dropout.
        keys: Option<LayerKeys>,
    },
    /// Batch statistics without dropout, for moving the running ones alone.
    Statistics {
        /// The ranks whose samples are normalised together.
        group: Arc<dyn GroupSum>,
        /// How far the running statistics move towards those of this batch, in (0, 1].
        share: f64,
    },
    /// Running statistics, no dropout, no gradient.
    Evaluate,
}

/// In which numbers convolutions compute. Weights are stored wider where that is less than single
/// precision: an update adds less to them than such numbers can tell.
#[derive(Debug, Clone, Copy)]
pub struct Arithmetic {
    /// Kind of numbers.
    pub computed: Kind,
}

impl Arithmetic {
    /// Of the networks that register here.
    pub fn of(scope: &Scope<'_>) -> Self {
        Self { computed: scope.computed() }
    }

    /// `x` in these numbers.
    pub fn narrow(self, x: &Tensor) -> Tensor {
        x.to_kind(self.computed)
    }

    /// The convolution of `x` with a weight, its result in these numbers.
    pub fn convolve(
        self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        step: Step,
    ) -> Tensor {
        let bias = bias.map(|bias| self.narrow(bias));
        let (stride, padding) = ([step.stride; 2], [step.padding; 2]);
        self.narrow(x).conv2d(&self.narrow(weight), bias, stride, padding, [1, 1], 1)
    }
}

/// How a convolution moves over an image, in pixels, alike in rows and columns.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// From one place to the next.
    pub stride: i64,
    /// Zeros around the image.
    pub padding: i64,
}

/// A convolution with bias, initialised as PyTorch does: U(-1/sqrt(fan in), 1/sqrt(fan in)).
#[derive(Debug)]
pub struct Convolution {
    weight: Tensor,
    bias: Tensor,
    step: Step,
    arithmetic: Arithmetic,
}

impl Convolution {
    /// `side` x `side` taps, stride 1, padded to keep the size. Registers `weight` and `bias`.
    pub fn new(scope: &mut Scope<'_>, channels_in: i64, channels_out: i64, side: i64) -> Self {
        let bound = 1.0 / ((channels_in * side * side) as f64).sqrt();
        Self {
            weight: scope.uniform("weight", &[channels_out, channels_in, side, side], bound),
            bias: scope.uniform("bias", &[channels_out], bound),
            step: Step { stride: 1, padding: side / 2 },
            arithmetic: Arithmetic::of(scope),
        }
    }

    /// The same with 4 x 4 taps, padding 1 and `stride`: stride 2 halves the size.
    pub fn patchwise(
        scope: &mut Scope<'_>,
        channels_in: i64,
        channels_out: i64,
        stride: i64,
    ) -> Self {
        let step = Step { stride, padding: 1 };
        Self { step, ..Self::new(scope, channels_in, channels_out, 4) }
    }

    /// The same convolution with the same values, through which no gradient reaches its weights.
    #[must_use]
    pub fn frozen(&self) -> Self {
        Self { weight: self.weight.detach(), bias: self.bias.detach(), ..*self }
    }

    /// `[N, channels_in, H, W]` to `[N, channels_out, H, W]`, in the numbers of its arithmetic.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_with(x, &self.weight)
    }

    /// The same in the precision of its weights: for what leaves the network.
    pub fn forward_wide(&self, x: &Tensor) -> Tensor {
        self.forward(x).to_kind(self.weight.kind())
    }

    /// The same with another weight of the same shape in place of its own.
    fn forward_with(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        self.arithmetic.convolve(x, weight, Some(&self.bias), self.step)
    }
}

/// Batch normalisation, leaky rectification (slope 0.01) and dropout, in one pass over memory.
#[derive(Debug)]
pub struct NormalisedActivation {
    channels: NormalisedChannels,
    batches_tracked: Tensor,
    settings: Normalisation,
    name: String,
}

impl NormalisedActivation {
    /// Registers `weight`, `bias`, `running_mean`, `running_var`, `num_batches_tracked`.
    /// `dropout` is the probability with which an element is dropped in training.
    pub fn new(scope: &mut Scope<'_>, channels: i64, dropout: f64) -> Self {
        Self {
            channels: NormalisedChannels {
                weight: scope.constant("weight", &[channels], 1.0),
                bias: scope.constant("bias", &[channels], 0.0),
                running_mean: scope.buffer("running_mean", &[channels], 0.0),
                running_var: scope.buffer("running_var", &[channels], 1.0),
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
        }
    }

    /// `[N, C, H, W]` to the same shape.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let (group, keys) = match pass {
            Pass::Train { group, keys } => (group, keys),
            Pass::Statistics { group, share } => {
                let settings = Normalisation { momentum: *share, ..self.settings };
                let pass = TrainingPass { group, keys: None };
                return native::normalise(x, &self.channels, settings, &pass);
            }
            Pass::Evaluate => {
                return native::normalise_evaluate(x, &self.channels, self.settings);
            }
        };
        let mut counter = self.batches_tracked.shallow_clone();
        let _ = tch::no_grad(|| counter.g_add_scalar_(1));
        let keys = keys.as_ref().filter(|_| self.settings.dropout > 0.0);
        let keys = keys.map(|keys| keys(&self.name));
        native::normalise(
            x,
            &self.channels,
            self.settings,
            &TrainingPass { group, keys: keys.as_ref() },
        )
    }
}
