//! The networks of CLTN: a generator that paints the other class through a mask, and its judges.
//!
//! Du et al., Computers in Biology and Medicine, 2024; names, shapes and initialisation follow
//! mlcb-jlu/MedImgSeg at 73c6b9e. Every statistic is one sample's own, so that a batch is only a list
//! of samples. Knows no loss and no training.

mod blend;
mod decoder;
mod generator;
mod judge;

pub use blend::blended;
pub use generator::{Generator, GeneratorSize, Transfer, attention_mask, blend, enlarged};
pub use judge::{Judge, Verdict};

use super::{Arithmetic, Step};
use crate::parameters::Scope;
use tch::Tensor;

/// A convolution without bias over images that go on beyond their rim as in a mirror.
#[derive(Debug)]
struct Mirrored {
    weight: Tensor,
    stride: i64,
    margin: i64,
    arithmetic: Arithmetic,
}

impl Mirrored {
    /// `side` x `side` taps, side odd, stride 1: the size stays. Registers `weight`.
    fn new(scope: &mut Scope<'_>, [from, to]: [i64; 2], side: i64) -> Self {
        let bound = 1.0 / ((from * side * side) as f64).sqrt();
        let weight = scope.uniform("weight", &[to, from, side, side], bound);
        Self { weight, stride: 1, margin: side / 2, arithmetic: Arithmetic::of(scope) }
    }

    /// The same with 3 x 3 taps and stride 2, which halves the size.
    fn halving(scope: &mut Scope<'_>, channels: [i64; 2]) -> Self {
        Self { stride: 2, ..Self::new(scope, channels, 3) }
    }

    /// `[N, from, H, W]` to `[N, to, H / stride, W / stride]`.
    fn forward(&self, x: &Tensor) -> Tensor {
        let step = Step::square(self.stride, 0);
        let wider = mirrored(x, self.margin);
        self.arithmetic.convolve(&wider, &self.weight, None, step).to_kind(x.kind())
    }
}

/// `x` with `margin` pixels more on each side, as in a mirror.
fn mirrored(x: &Tensor, margin: i64) -> Tensor {
    if margin == 0 { x.shallow_clone() } else { x.reflection_pad2d([margin; 4]) }
}

/// A linear map without bias. Registers `weight`.
#[derive(Debug)]
struct Linear {
    /// `[to, from]`.
    weight: Tensor,
}

impl Linear {
    fn new(scope: &mut Scope<'_>, [from, to]: [i64; 2]) -> Self {
        Self { weight: scope.uniform("weight", &[to, from], 1.0 / (from as f64).sqrt()) }
    }

    /// `[N, from]` to `[N, to]`.
    fn forward(&self, x: &Tensor) -> Tensor {
        x.matmul(&self.weight.tr())
    }
}

/// Mean of each channel over all pixels, `[N, C]`.
fn channel_means(x: &Tensor) -> Tensor {
    x.mean_dim([2i64, 3].as_slice(), false, x.kind())
}

/// Two scores of features `[N, C, H, W]`, `[N, 2]`: `weights`, each `[1, C]`, count the means and the
/// maxima of the channels.
pub fn class_scores(x: &Tensor, weights: [&Tensor; 2]) -> Tensor {
    // Unlike `amax` this sends the gradient to one pixel where several are equal.
    let largest = x.flatten(2, -1).max_dim(2, false).0;
    let [by_mean, by_largest] = weights.map(Tensor::tr);
    Tensor::cat(&[channel_means(x).matmul(&by_mean), largest.matmul(&by_largest)], 1)
}

/// The convolution that mixes the features which speak for a class.
#[derive(Debug)]
pub struct Attention {
    /// `[to, 2 C, 1, 1]`.
    pub weight: Tensor,
    /// `[to]`.
    pub bias: Tensor,
    /// Of its convolution.
    pub arithmetic: Arithmetic,
}

impl Attention {
    /// `channels` features to as many. Registers `weight` and `bias`.
    fn new(scope: &mut Scope<'_>, channels: i64) -> Self {
        let bound = 1.0 / ((2 * channels) as f64).sqrt();
        Self {
            weight: scope.uniform("weight", &[channels, 2 * channels, 1, 1], bound),
            bias: scope.uniform("bias", &[channels], bound),
            arithmetic: Arithmetic::of(scope),
        }
    }

    fn frozen(&self) -> Self {
        Self { weight: self.weight.detach(), bias: self.bias.detach(), ..*self }
    }

    /// The 1 x 1 convolution of the channels of `x`, `[N, C, H, W]`, stacked on themselves, each time
    /// multiplied by the weights `[1, C]` with which one class score counts them.
    ///
    /// One convolution of half the size does it: the factors go into its weight.
    pub fn forward(&self, x: &Tensor, scores: [&Tensor; 2]) -> Tensor {
        let factors = Tensor::cat(&scores, 1).view([1, -1, 1, 1]);
        let halves = (&self.weight * factors).chunk(2, 1);
        let (weight, step) = (&halves[0] + &halves[1], Step::square(1, 0));
        self.arithmetic.convolve(x, &weight, Some(&self.bias), step).to_kind(x.kind())
    }
}

/// Sum over channels: `[N, C, H, W]` to `[N, 1, H, W]`.
pub fn heat_of(x: &Tensor) -> Tensor {
    x.sum_dim_intlist([1i64].as_slice(), true, x.kind())
}

/// Each channel of each sample to mean 0 and variance 1.
fn instance_norm(x: &Tensor) -> Tensor {
    let none = None::<Tensor>;
    x.instance_norm(
        none.as_ref(),
        none.as_ref(),
        none.as_ref(),
        none.as_ref(),
        true,
        0.0,
        1e-5,
        true,
    )
}
