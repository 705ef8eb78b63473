//! Blocks that networks share: convolutions under the reference's names, and how a network is run.
//!
//! Networks are formulas: ranks, random numbers and the kind of pass come in as arguments.

pub mod basic_unet;
pub mod cross_modality;
pub mod gan;
pub mod label_transfer;
pub mod normalised;
pub mod spectral;
pub mod topology;
pub mod unet;
pub mod valid_unet;
pub mod volumetric_cct;

use crate::error::Result;
use crate::native::{self, GroupSum};
use crate::parameters::Scope;
use std::rc::Rc;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

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
        /// How often the running statistics move towards those of this batch: 1, but where a method counts its
        /// samples more often.
        moves: i32,
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

impl Pass {
    /// The same, whose running statistics move so many times where it is one of training.
    #[must_use]
    pub fn moving(self, moves: i32) -> Self {
        match self {
            Self::Train { group, keys, .. } => Self::Train { group, keys, moves },
            other => other,
        }
    }
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
        let (weight, bias) = (self.narrow(weight), bias.map(|bias| self.narrow(bias)));
        let (stride, padding) = (step.stride.as_slice(), step.padding.as_slice());
        let x = self.narrow(x);
        if !is_of_two_slices_in_bf16(&x, &weight, step) {
            return x.convolution(&weight, bias, stride, padding, 1, false, 0, 1);
        }
        let x = x.constant_pad_nd([0, 0, 0, 0, 0, 1]);
        x.convolution(&weight, bias, stride, padding, 1, false, 0, 1).narrow(2, 0, 2)
    }
}

/// Whether a convolution keeps the size of volumes of two slices in bf16 on the CPU: of these, libtorch 2.11 returns
/// gradients of weights that it never computed (oneDNN). A third slice of zeros, which is what lies there anyway,
/// changes nothing else.
fn is_of_two_slices_in_bf16(x: &Tensor, weight: &Tensor, step: Step) -> bool {
    let is_of_volumes = matches!(step.stride, PerAxis::Three([1, ..]));
    let is_in_bf16 = x.kind() == Kind::BFloat16 && x.device() == Device::Cpu;
    is_of_volumes && is_in_bf16 && x.size()[2] == 2 && weight.size()[2] == 3
}

/// One number for each spatial axis of `[N, C, H, W]` or of `[N, C, D, H, W]`, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PerAxis {
    /// Of images: rows and columns.
    Two([i64; 2]),
    /// Of volumes: slices, rows and columns.
    Three([i64; 3]),
}

impl PerAxis {
    /// The numbers in order.
    pub fn as_slice(&self) -> &[i64] {
        match self {
            Self::Two(numbers) => numbers,
            Self::Three(numbers) => numbers,
        }
    }

    /// For as many axes what `of` makes of each number.
    #[must_use]
    pub fn map(self, of: impl Fn(i64) -> i64) -> Self {
        match self {
            Self::Two(numbers) => Self::Two(numbers.map(of)),
            Self::Three(numbers) => Self::Three(numbers.map(of)),
        }
    }
}

/// How a convolution moves over an image or a volume, in pixels.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// From one place to the next.
    pub stride: PerAxis,
    /// Zeros on each side.
    pub padding: PerAxis,
}

impl Step {
    /// Alike in rows and columns of an image.
    pub fn square(stride: i64, padding: i64) -> Self {
        Self { stride: PerAxis::Two([stride; 2]), padding: PerAxis::Two([padding; 2]) }
    }
}

/// Makes a tensor of its name, shape and the bound of PyTorch's initialisation.
type Register<'a> = fn(&mut Scope<'a>, &str, &[i64], f64) -> Tensor;

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
    /// From and to so many channels with so many taps along each axis, stride 1; odd taps keep the size.
    /// Registers `weight` and `bias`.
    pub fn new(scope: &mut Scope<'_>, channels: [i64; 2], taps: PerAxis) -> Self {
        Self::registered(scope, channels, taps, [Scope::uniform, Scope::uniform])
    }

    /// The same with a weight and a bias that are each made of name, shape and bound.
    fn registered<'a>(
        scope: &mut Scope<'a>,
        [channels_in, channels_out]: [i64; 2],
        taps: PerAxis,
        [register_weight, register_bias]: [Register<'a>; 2],
    ) -> Self {
        let fan_in = channels_in * taps.as_slice().iter().product::<i64>();
        let bound = 1.0 / (fan_in as f64).sqrt();
        let shape = [&[channels_out, channels_in], taps.as_slice()].concat();
        let weight = register_weight(scope, "weight", &shape, bound);
        let computed_weight = scope.narrowed(&weight);
        let bias = register_bias(scope, "bias", &[channels_out], bound);
        let computed = [computed_weight, scope.narrowed(&bias)];
        let step = Step { stride: taps.map(|_| 1), padding: taps.map(|taps| taps / 2) };
        Self { weight, bias, computed, step, arithmetic: Arithmetic::of(scope) }
    }

    /// Over images, with 4 x 4 taps, padding 1 and `stride`: stride 2 halves the size.
    pub fn patchwise(scope: &mut Scope<'_>, channels: [i64; 2], stride: i64) -> Self {
        Self::new(scope, channels, PerAxis::Two([4; 2])).stepping(Step::square(stride, 1))
    }

    /// The same convolution moving otherwise.
    #[must_use]
    pub fn stepping(self, step: Step) -> Self {
        Self { step, ..self }
    }

    /// The same convolution with the same values, through which no gradient reaches its weights.
    #[must_use]
    pub fn frozen(&self) -> Self {
        let computed = [self.computed[0].detach(), self.computed[1].detach()];
        Self { weight: self.weight.detach(), bias: self.bias.detach(), computed, ..*self }
    }

    /// Features of the channels in to those of the channels out, in the numbers of its arithmetic.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_with(x, &self.computed[0])
    }

    /// The same in a pass: outside of training, volumes on the CPU go the way that records no gradient.
    pub fn forward_in(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        match pass {
            Pass::Evaluate if self.is_of_volumes_on_cpu() => {
                native::convolve_volumes(x, &self.weight, &self.bias, 1.0)
            }
            _ => Ok(self.forward(x)),
        }
    }

    /// Whether it sees volumes on the CPU in the precision of its weights.
    fn is_of_volumes_on_cpu(&self) -> bool {
        let is_of_volumes = matches!(self.step.stride, PerAxis::Three(_));
        let (kind, device) = (self.weight.kind(), self.weight.device());
        is_of_volumes && device == Device::Cpu && self.arithmetic.computed == kind
    }

    /// The same without adding the bias.
    fn forward_unbiased(&self, x: &Tensor) -> Tensor {
        self.arithmetic.convolve(x, &self.computed[0], None, self.step)
    }

    /// The same as `forward_in` in the precision of its weights: for what leaves the network.
    pub fn forward_wide(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        Ok(self.forward_in(x, pass)?.to_kind(self.weight.kind()))
    }

    /// The same with another weight of the same shape in place of its own.
    fn forward_with(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        self.arithmetic.convolve(x, weight, Some(&self.computed[1]), self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_over_two_slices_get_their_gradient_in_bf16_too() {
        let wave = |shape: &[i64]| {
            let count = shape.iter().product::<i64>();
            (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.37).sin().view(shape)
        };
        let step = Step { stride: PerAxis::Three([1; 3]), padding: PerAxis::Three([1; 3]) };
        for slices in 1..4 {
            let gradient = |computed: Kind| {
                let weight = wave(&[16, 16, 3, 3, 3]).set_requires_grad(true);
                let x = native::channels_last(&wave(&[2, 16, slices, 4, 4])).unwrap();
                let y = Arithmetic { computed }.convolve(&x, &weight, None, step);
                assert_eq!(y.size(), x.size());
                (y.to_kind(Kind::Float) * wave(&y.size())).sum(Kind::Float).backward();
                weight.grad()
            };
            let [exact, short] = [Kind::Float, Kind::BFloat16].map(gradient);
            let difference = (short - &exact).abs().max() / exact.abs().max();
            assert!(difference.double_value(&[]) < 0.02, "{slices} slices: {difference:?}");
        }
    }
}
