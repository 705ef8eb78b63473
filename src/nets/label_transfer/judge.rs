//! The discriminator: a logit for each patch, and two scores of the whole image that also choose the
//! features which the patches are judged by.

use super::{Attention, class_scores, heat_of, mirrored};
use crate::error::Result;
use crate::native::{SpectralWeight, leaky_relu};
use crate::nets::spectral::{Power, SpectralNorm, divided};
use crate::nets::{Arithmetic, Step};
use crate::parameters::Scope;
use tch::Tensor;

/// Factor of negative values.
const SLOPE: f64 = 0.2;
/// Rows and columns of every convolution's taps.
const SIDE: i64 = 4;

/// What a judge says of images, each number near 1 for real and near 0 for made.
#[derive(Debug)]
pub struct Verdict {
    /// One for each patch, `[N, 1, h, w]`.
    pub patches: Tensor,
    /// From means and from maxima over the image, `[N, 2]`.
    pub scores: Tensor,
    /// Where the judge looks, unscaled, `[N, 1, h + 1, w + 1]`.
    pub heat: Tensor,
}

/// The discriminator of the reference. With `layers` 7 it judges large parts of an image, with 5 small
/// ones.
#[derive(Debug)]
pub struct Judge {
    scorers: [Weight; 2],
    attention: Attention,
    last: Weight,
    hidden: Vec<(Tensor, Weight, i64)>,
    arithmetic: Arithmetic,
}

/// A weight and its singular vectors.
#[derive(Debug)]
struct Weight {
    raw: Tensor,
    norm: SpectralNorm,
}

impl Judge {
    /// `layers` at least 3, `width` channels after the first. Registers the tensors of the reference
    /// in its order.
    pub fn new(scope: &mut Scope<'_>, layers: u32, width: i64) -> Self {
        let halvings = i64::from(layers) - 2;
        let top = width << halvings;
        let scorers = ["gap_fc", "gmp_fc"].map(|name| Weight::new(&mut scope.sub(name), &[1, top]));
        let attention = Attention::new(&mut scope.sub("conv1x1"), top);
        let last = Weight::new(&mut scope.sub("conv"), &[1, top, SIDE, SIDE]);
        let hidden = (0..=halvings).map(|layer| {
            let mut scope = scope.sub(&format!("model.{}", 3 * layer + 1));
            let from = if layer == 0 { 3 } else { width << (layer - 1) };
            let bound = 1.0 / ((from * SIDE * SIDE) as f64).sqrt();
            let bias = scope.uniform("bias", &[width << layer], bound);
            let weight = Weight::new(&mut scope, &[width << layer, from, SIDE, SIDE]);
            (bias, weight, if layer < halvings { 2 } else { 1 })
        });
        let hidden = hidden.collect();
        Self { scorers, attention, last, hidden, arithmetic: Arithmetic::of(scope) }
    }

    /// The smallest image that `layers` can judge, in rows and columns.
    pub fn smallest_image(layers: u32) -> i64 {
        3 << (layers - 2)
    }

    /// The same judge, whose weights take no gradient. Its singular vectors are shared and move on.
    #[must_use]
    pub fn frozen(&self) -> Self {
        let hidden = self.hidden.iter();
        Self {
            scorers: self.scorers.each_ref().map(Weight::frozen),
            attention: self.attention.frozen(),
            last: self.last.frozen(),
            hidden: hidden.map(|(b, w, stride)| (b.detach(), w.frozen(), *stride)).collect(),
            arithmetic: self.arithmetic,
        }
    }

    /// Judges images `[N, 3, H, W]` in [-1, 1].
    pub fn forward(&self, image: &Tensor, power: Power) -> Result<Verdict> {
        let hidden = self.hidden.iter().map(|(_, weight, _)| weight);
        let all: Vec<_> = self.scorers.iter().chain([&self.last]).chain(hidden).collect();
        let weights =
            divided(&all.iter().map(|weight| weight.spectral()).collect::<Vec<_>>(), power)?;
        let mut x = image.shallow_clone();
        for ((bias, _, stride), weight) in self.hidden.iter().zip(&weights[3..]) {
            x = leaky_relu(&self.patches(&x, weight, Some(bias), *stride), SLOPE)?;
        }
        let scores = class_scores(&x, [&weights[0], &weights[1]]);
        // As released: the map takes the weights as they are, the scores take them divided.
        let raw = self.scorers.each_ref().map(|scorer| &scorer.raw);
        let x = leaky_relu(&self.attention.forward(&x, raw), SLOPE)?;
        let heat = heat_of(&x);
        let patches = self.patches(&x, &weights[2], None, 1);
        Ok(Verdict { patches, scores, heat })
    }

    /// A convolution over an image that goes on beyond its rim as in a mirror.
    fn patches(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, stride: i64) -> Tensor {
        let step = Step::square(stride, 0);
        self.arithmetic.convolve(&mirrored(x, 1), weight, bias, step).to_kind(x.kind())
    }
}

impl Weight {
    /// Registers `weight_orig`, `weight_u`, `weight_v`.
    fn new(scope: &mut Scope<'_>, shape: &[i64]) -> Self {
        let elements = shape.iter().skip(1).product::<i64>();
        let raw = scope.uniform("weight_orig", shape, 1.0 / (elements as f64).sqrt());
        Self { raw, norm: SpectralNorm::new(scope, shape[0], elements) }
    }

    fn frozen(&self) -> Self {
        Self { raw: self.raw.detach(), norm: self.norm.share() }
    }

    fn spectral(&self) -> SpectralWeight<'_> {
        self.norm.of(&self.raw)
    }
}
