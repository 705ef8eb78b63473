//! What the network over two modalities is built from: convolutions that are normalised by the statistics of their
//! batch in training and of each sample elsewhere, levels of them, and steps up.
//!
//! Knows no modality and no loss.

use crate::error::Result;
use crate::native::{Form, Normalisation};
use crate::nets::normalised::BatchNormalisation;
use crate::nets::{Arithmetic, Convolution, MOMENTUM, Pass, PerAxis, Register};
use crate::parameters::Scope;
use tch::Tensor;

/// A convolution of 3 x 3 x 3 taps, normalised and rectified, `LUConv` of the reference.
#[derive(Debug)]
pub(super) struct Layer {
    convolution: Convolution,
    normalisation: BatchNormalisation,
}

impl Layer {
    /// From and to so many channels. Registers `conv1.*`, of which the bias has no effect, and `bn1.*`.
    pub(super) fn new(mut scope: Scope<'_>, channels: [i64; 2]) -> Self {
        let taps = PerAxis::Three([3; 3]);
        let register: [Register<'_>; 2] = [Scope::uniform, Scope::absorbed];
        let convolution =
            Convolution::registered(&mut scope.sub("conv1"), channels, taps, register);
        let (momentum, form) = (MOMENTUM, Form::Own);
        let settings = Normalisation { momentum, epsilon: 1e-5, slope: 0.0, dropout: 0.0, form };
        let (mut scope, absorbed) = (scope.sub("bn1"), Some(&convolution.bias));
        let normalisation = BatchNormalisation::new(&mut scope, channels[1], absorbed, settings);
        Self { convolution, normalisation }
    }

    /// Features `[N, channels out, ...]` of `[N, channels in, ...]`.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        match pass {
            Pass::Evaluate => {
                self.normalisation.forward_each(&self.convolution.forward_in(x, pass)?)
            }
            _ => self.normalisation.forward(&self.convolution.forward_unbiased(x), pass),
        }
    }
}

/// Two layers one after the other.
#[derive(Debug)]
pub(super) struct Level([Layer; 2]);

impl Level {
    /// Through so many channels. Registers `ops.0.*` and `ops.1.*`.
    pub(super) fn new(scope: &mut Scope<'_>, [channels_in, between, out]: [i64; 3]) -> Self {
        let first = Layer::new(scope.sub("ops.0"), [channels_in, between]);
        Self([first, Layer::new(scope.sub("ops.1"), [between, out])])
    }

    /// Features of the same extents.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.0[1].forward(&self.0[0].forward(x, pass)?, pass)
    }
}

/// A transposed convolution of 2 x 2 x 2 taps and stride 2: each voxel becomes eight.
#[derive(Debug)]
struct Doubling {
    /// Weight and bias in the numbers of the arithmetic.
    computed: [Tensor; 2],
    arithmetic: Arithmetic,
}

impl Doubling {
    /// Between as many channels. Registers `weight` and `bias`, initialised as PyTorch does.
    fn new(scope: &mut Scope<'_>, channels: i64) -> Self {
        let bound = 1.0 / (8.0 * channels as f64).sqrt();
        let weight = scope.uniform("weight", &[channels, channels, 2, 2, 2], bound);
        let weight = scope.narrowed(&weight);
        let bias = scope.uniform("bias", &[channels], bound);
        Self { computed: [weight, scope.narrowed(&bias)], arithmetic: Arithmetic::of(scope) }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let [weight, bias] = self.computed.each_ref().map(|tensor| self.arithmetic.narrow(tensor));
        let x = self.arithmetic.narrow(x);
        x.convolution(&weight, Some(&bias), [2; 3], [0; 3], [1; 3], true, [0; 3], 1)
    }
}

/// One step up: enlarge, join the skip connection, convolve.
#[derive(Debug)]
pub(super) struct Up {
    doubling: Doubling,
    level: Level,
}

impl Up {
    /// From `below` channels to `channels`, which are those of the skip connection too. Registers `up_conv.*` and
    /// `ops.*`.
    pub(super) fn new(mut scope: Scope<'_>, [below, channels]: [i64; 2]) -> Self {
        let doubling = Doubling::new(&mut scope.sub("up_conv"), below);
        let level = Level::new(&mut scope, [below + channels, channels, channels]);
        Self { doubling, level }
    }

    /// Features of the extents of `skip`, twice those of `x` along each axis.
    pub(super) fn forward(&self, x: &Tensor, skip: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.level.forward(&Tensor::cat(&[&self.doubling.forward(x), skip], 1), pass)
    }
}
