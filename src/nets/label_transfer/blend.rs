//! Normalisation between that of each channel and that of the whole sample, in learnt shares.
//!
//! U-GAT-IT (Kim et al., ICLR 2020), as mlcb-jlu/MedImgSeg `networks.py` at 73c6b9e computes it: both
//! variances are unbiased.

use crate::parameters::Scope;
use tch::Tensor;

/// Added to variances.
const EPSILON: f64 = 1e-5;

/// Blended normalisation with a learnt factor and offset for each channel (ILN).
#[derive(Debug)]
pub(super) struct Blend {
    share: Tensor,
    factor: Tensor,
    offset: Tensor,
}

impl Blend {
    /// Registers `rho`, `gamma` and `beta`.
    pub(super) fn new(scope: &mut Scope<'_>, channels: i64) -> Self {
        let shape = [1, channels, 1, 1];
        Self {
            share: scope.share("rho", &shape, 0.0),
            factor: scope.constant("gamma", &shape, 1.0),
            offset: scope.constant("beta", &shape, 0.0),
        }
    }

    /// `[N, C, H, W]` to the same shape.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        blended(x, &self.share, &self.factor, &self.offset)
    }
}

/// Blended normalisation whose factor and offset come from the sample (`AdaLIN`).
#[derive(Debug)]
pub(super) struct AdaptiveBlend {
    share: Tensor,
}

impl AdaptiveBlend {
    /// Registers `rho`.
    pub(super) fn new(scope: &mut Scope<'_>, channels: i64) -> Self {
        Self { share: scope.share("rho", &[1, channels, 1, 1], 0.9) }
    }

    /// `[N, C, H, W]` to the same shape; `style` is factor and offset, each `[N, C]`.
    pub(super) fn forward(&self, x: &Tensor, style: &[Tensor; 2]) -> Tensor {
        let [factor, offset] = style.each_ref().map(|s| s.unsqueeze(-1).unsqueeze(-1));
        blended(x, &self.share, &factor, &offset)
    }
}

/// `factor * (share * by_channel + (1 - share) * by_sample) + offset` of `x`, `[N, C, H, W]`; the other
/// three are `[1 or N, C, 1, 1]`, `share` in [0, 1].
///
/// Reads `x` twice: the moments of a sample follow from those of its channels, and the rest is one
/// factor and one offset for each of them.
pub fn blended(x: &Tensor, share: &Tensor, factor: &Tensor, offset: &Tensor) -> Tensor {
    let (variance, mean) = x.var_mean_correction([2i64, 3].as_slice(), 1, true);
    let channels = x.size()[1] as f64;
    let pixels = x.size().iter().skip(2).product::<i64>() as f64;
    let over_channels =
        |moments: &Tensor| moments.mean_dim([1i64].as_slice(), true, moments.kind());
    let sample_mean = over_channels(&mean);
    let spread = over_channels(&(&mean - &sample_mean).square()) * (channels * pixels);
    let within = over_channels(&variance) * (channels * (pixels - 1.0));
    let sample_variance = (spread + within) / (channels * pixels - 1.0);
    let by_channel = share * (variance + EPSILON).rsqrt();
    let by_sample = (1.0 - share) * (sample_variance + EPSILON).rsqrt();
    let slope = factor * (&by_channel + &by_sample);
    let shift = offset - factor * (by_channel * mean + by_sample * sample_mean);
    shift.addcmul(x, &slope)
}
