//! Blocks that networks share: convolutions under the reference's names, and how a network is run.
//!
//! Networks are formulas: ranks, random numbers and the kind of pass come in as arguments.

pub mod gan;
pub mod label_transfer;
pub mod normalised;
pub mod spectral;
pub mod unet;

use crate::native::GroupSum;
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
    /// Both in the numbers of the arithmetic.
    computed: [Tensor; 2],
    step: Step,
    arithmetic: Arithmetic,
}

impl Convolution {
    /// `side` x `side` taps, stride 1, padded to keep the size. Registers `weight` and `bias`.
    pub fn new(scope: &mut Scope<'_>, channels_in: i64, channels_out: i64, side: i64) -> Self {
        Self::registered(scope, [channels_in, channels_out], side, Scope::uniform)
    }

    /// The same with a bias that `register_bias` makes of its name, shape and bound.
    fn registered<'a>(
        scope: &mut Scope<'a>,
        [channels_in, channels_out]: [i64; 2],
        side: i64,
        register_bias: fn(&mut Scope<'a>, &str, &[i64], f64) -> Tensor,
    ) -> Self {
        let bound = 1.0 / ((channels_in * side * side) as f64).sqrt();
        let weight = scope.uniform("weight", &[channels_out, channels_in, side, side], bound);
        let computed_weight = scope.narrowed(&weight);
        let bias = register_bias(scope, "bias", &[channels_out], bound);
        let computed = [computed_weight, scope.narrowed(&bias)];
        let step = Step { stride: 1, padding: side / 2 };
        Self { weight, bias, computed, step, arithmetic: Arithmetic::of(scope) }
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
        let computed = [self.computed[0].detach(), self.computed[1].detach()];
        Self { weight: self.weight.detach(), bias: self.bias.detach(), computed, ..*self }
    }

    /// `[N, channels_in, H, W]` to `[N, channels_out, H, W]`, in the numbers of its arithmetic.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_with(x, &self.computed[0])
    }

    /// The same without adding the bias.
    fn forward_unbiased(&self, x: &Tensor) -> Tensor {
        self.arithmetic.convolve(x, &self.computed[0], None, self.step)
    }

    /// The same as `forward` in the precision of its weights: for what leaves the network.
    pub fn forward_wide(&self, x: &Tensor) -> Tensor {
        self.forward(x).to_kind(self.weight.kind())
    }

    /// The same with another weight of the same shape in place of its own.
    fn forward_with(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        self.arithmetic.convolve(x, weight, Some(&self.computed[1]), self.step)
    }
}
