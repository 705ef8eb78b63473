//! The two decoders of the generator, blended by the mask after every block, and what makes images of
//! features.

use super::Mirrored;
use super::blend::{AdaptiveBlend, Blend};
use crate::parameters::Scope;
use tch::Tensor;

/// A residual block of the decoder that keeps the content.
#[derive(Debug)]
pub(super) struct ContentBlock {
    convolutions: [Mirrored; 2],
    norms: [Blend; 2],
}

impl ContentBlock {
    /// Registers `conv1`, `norm1`, `conv2`, `norm2`.
    pub(super) fn new(scope: &mut Scope<'_>, channels: i64) -> Self {
        let mut half = |number: u8| {
            let convolution =
                Mirrored::new(&mut scope.sub(&format!("conv{number}")), [channels; 2], 3);
            (convolution, Blend::new(&mut scope.sub(&format!("norm{number}")), channels))
        };
        let (first, second) = (half(1), half(2));
        Self { convolutions: [first.0, second.0], norms: [first.1, second.1] }
    }

    /// `[N, C, H, W]` to the same shape.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let inner = self.norms[0].forward(&self.convolutions[0].forward(x)).relu();
        x + self.norms[1].forward(&self.convolutions[1].forward(&inner))
    }
}

/// A residual block of the decoder that paints the other class.
#[derive(Debug)]
pub(super) struct StyleBlock {
    convolutions: [Mirrored; 2],
    norms: [AdaptiveBlend; 2],
}

impl StyleBlock {
    /// Registers `conv1`, `norm1`, `conv2`, `norm2`.
    pub(super) fn new(scope: &mut Scope<'_>, channels: i64) -> Self {
        let mut half = |number: u8| {
            let convolution =
                Mirrored::new(&mut scope.sub(&format!("conv{number}")), [channels; 2], 3);
            (convolution, AdaptiveBlend::new(&mut scope.sub(&format!("norm{number}")), channels))
        };
        let (first, second) = (half(1), half(2));
        Self { convolutions: [first.0, second.0], norms: [first.1, second.1] }
    }

    /// `[N, C, H, W]` to the same shape; `style` is factor and offset, each `[N, C]`.
    pub(super) fn forward(&self, x: &Tensor, style: &[Tensor; 2]) -> Tensor {
        let inner = self.norms[0].forward(&self.convolutions[0].forward(x), style).relu();
        x + self.norms[1].forward(&self.convolutions[1].forward(&inner), style)
    }
}

/// From features to an image of four times the rows and columns.
#[derive(Debug)]
pub(super) struct ImageDecoder {
    convolutions: [Mirrored; 3],
    norms: [Blend; 2],
}

impl ImageDecoder {
    /// `channels` features to 3; the last convolution has `side` x `side` taps. Registers `2`, `3`,
    /// `7`, `8`, `11`.
    pub(super) fn new(scope: &mut Scope<'_>, channels: i64, side: i64) -> Self {
        let [half, quarter] = [channels / 2, channels / 4];
        let first = Mirrored::new(&mut scope.sub("2"), [channels, half], 3);
        let first_norm = Blend::new(&mut scope.sub("3"), half);
        let second = Mirrored::new(&mut scope.sub("7"), [half, quarter], 3);
        let second_norm = Blend::new(&mut scope.sub("8"), quarter);
        let last = Mirrored::new(&mut scope.sub("11"), [quarter, 3], side);
        Self { convolutions: [first, second, last], norms: [first_norm, second_norm] }
    }

    /// `[N, C, H, W]` to `[N, 3, 4 H, 4 W]` in (-1, 1).
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let [first, second, last] = &self.convolutions;
        let mut x = x.shallow_clone();
        for (convolution, norm) in [first, second].into_iter().zip(&self.norms) {
            let size = [x.size()[2] * 2, x.size()[3] * 2];
            let larger = x.upsample_nearest2d(size, None, None);
            x = norm.forward(&convolution.forward(&larger)).relu();
        }
        last.forward(&x).tanh()
    }
}
