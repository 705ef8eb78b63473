//! The generator: one encoder, a class score with its mask, and two decoders that the mask blends.

use super::blend::Blend;
use super::decoder::{ContentBlock, ImageDecoder, StyleBlock};
use super::{
    Attention, Linear, Mirrored, channel_means, class_scores, heat_of, instance_norm, mirrored,
};
use crate::parameters::Scope;
use tch::Tensor;

/// Residual blocks of the encoder and of each decoder.
const BLOCKS: usize = 4;

/// How large a generator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneratorSize {
    /// Channels at full resolution; four times as many at the bottom. 54 as released.
    pub width: i64,
    /// Rows and columns of the images, if the style is read from every feature of every pixel (full)
    /// and not from means (light). Only then does a generator fit one size of image.
    pub full_for: Option<i64>,
}

/// What a generator makes of images `[N, 3, H, W]` in [-1, 1].
#[derive(Debug)]
pub struct Transfer {
    /// Images of the other class, `[N, 3, H, W]` in (-1, 1).
    pub painted: Tensor,
    /// Two scores of the class, `[N, 2]`: from means and from maxima, positive for its own class.
    pub scores: Tensor,
    /// Where the class shows, unscaled, `[N, 1, H / 4, W / 4]`.
    pub heat: Tensor,
    /// How much of each pixel is painted, `[N, 1, H, W]` in [0, 1].
    pub mask: Tensor,
    /// The painted image inside the mask and the input outside, `[N, 3, H, W]`.
    pub composed: Tensor,
    /// The input again, from the decoder that keeps the content, `[N, 3, H, W]`.
    pub restored: Tensor,
}

/// The generator `CBFNet` of the reference. `H` and `W` must be divisible by 4.
#[derive(Debug)]
pub struct Generator {
    scorers: [Linear; 2],
    attention: Attention,
    style: [Linear; 2],
    style_blocks: Vec<StyleBlock>,
    content_blocks: Vec<ContentBlock>,
    encoder: Encoder,
    hidden_style: [Linear; 2],
    painter: ImageDecoder,
    restorer: ImageDecoder,
    split: [(Mirrored, Blend); 2],
    masker: Tensor,
    full: bool,
}

/// From images to features of a quarter of the rows and columns.
#[derive(Debug)]
struct Encoder {
    down: [Mirrored; 3],
    blocks: Vec<[Mirrored; 2]>,
}

impl Generator {
    /// Registers the tensors of the reference in its order, those without use included.
    pub fn new(scope: &mut Scope<'_>, size: GeneratorSize) -> Self {
        let bottom = 4 * size.width;
        let linear =
            |scope: &mut Scope<'_>, name: &str, to| Linear::new(&mut scope.sub(name), [bottom, to]);
        let scorers = ["gap_fc", "gmp_fc"].map(|name| linear(scope, name, 1));
        let attention = Attention::new(&mut scope.sub("conv1x1"), bottom);
        let style = ["gamma1", "beta1"].map(|name| linear(scope, name, bottom));
        let bound = 1.0 / (bottom as f64).sqrt();
        for name in ["gamma2", "beta2"] {
            scope.sub(name).unused("weight", &[bottom, bottom], bound);
        }
        let numbers = || 1..=BLOCKS;
        let style_blocks = numbers()
            .map(|i| StyleBlock::new(&mut scope.sub(&format!("UpBlock1_{i}")), bottom))
            .collect();
        unused_masks(scope, "Mask_Layer_", bottom);
        let content_blocks = numbers()
            .map(|i| ContentBlock::new(&mut scope.sub(&format!("recon_middle_{i}")), bottom))
            .collect();
        unused_masks(scope, "Mask_Layer_UP_", bottom);
        unused_masks(scope, "Mask_Layer_DOWN_", bottom);
        let encoder = Encoder::new(&mut scope.sub("DownBlock"), size.width);
        let pixels = size.full_for.map_or(1, |side| (side / 4) * (side / 4));
        let mut hidden = scope.sub("FC");
        let hidden_style = [
            Linear::new(&mut hidden.sub("0"), [bottom * pixels, bottom]),
            Linear::new(&mut hidden.sub("2"), [bottom; 2]),
        ];
        let painter = ImageDecoder::new(&mut scope.sub("Decode_image"), bottom, 3);
        let restorer = ImageDecoder::new(&mut scope.sub("Decode_recon"), bottom, 7);
        let mut layer = scope.sub("Split_layer");
        let mut half = |convolution: &str, norm: &str| {
            let convolution = Mirrored::new(&mut layer.sub(convolution), [bottom; 2], 1);
            (convolution, Blend::new(&mut layer.sub(norm), bottom))
        };
        let split = [half("0", "1"), half("3", "4")];
        let masker = Mirrored::new(&mut scope.sub("conv2x1.1"), [bottom, 1], 3).weight;
        let full = size.full_for.is_some();
        Self {
            scorers,
            attention,
            style,
            style_blocks,
            content_blocks,
            encoder,
            hidden_style,
            painter,
            restorer,
            split,
            masker,
            full,
        }
    }

    /// Everything that a generator makes of images `[N, 3, H, W]` in [-1, 1].
    pub fn forward(&self, image: &Tensor) -> Transfer {
        let encoded = self.encoder.forward(image);
        let (scores, features) = self.attend(&encoded);
        let mask = attention_mask(&features, &self.masker);
        let style = self.style_of(&features);
        let (mut painted, mut content) = (features.shallow_clone(), encoded);
        for (paint, keep) in self.style_blocks.iter().zip(&self.content_blocks) {
            content = keep.forward(&content);
            painted = blend(&paint.forward(&painted, &style), &content, &mask);
        }
        let painted = self.painter.forward(&painted);
        let mask = enlarged(&enlarged(&mask));
        Transfer {
            composed: blend(&painted, image, &mask),
            painted,
            scores,
            heat: heat_of(&features),
            mask,
            restored: self.restorer.forward(&content),
        }
    }

    /// The mask alone, `[N, 1, H, W]` in [0, 1].
    pub fn mask(&self, image: &Tensor) -> Tensor {
        let (_, features) = self.attend(&self.encoder.forward(image));
        enlarged(&enlarged(&attention_mask(&features, &self.masker)))
    }

    /// Class scores `[N, 2]`, and the features that speak for the class.
    fn attend(&self, encoded: &Tensor) -> (Tensor, Tensor) {
        let mut split = encoded.shallow_clone();
        for (convolution, norm) in &self.split {
            split = norm.forward(&convolution.forward(&split)).relu();
        }
        let weights = self.scorers.each_ref().map(|scorer| &scorer.weight);
        (class_scores(&split, weights), self.attention.forward(&split, weights).relu())
    }

    /// Factor and offset of every adaptive normalisation, each `[N, C]`.
    fn style_of(&self, features: &Tensor) -> [Tensor; 2] {
        let mut hidden = if self.full { features.flatten(1, -1) } else { channel_means(features) };
        for layer in &self.hidden_style {
            hidden = layer.forward(&hidden).relu();
        }
        self.style.each_ref().map(|layer| layer.forward(&hidden))
    }
}

fn unused_masks(scope: &mut Scope<'_>, prefix: &str, bottom: i64) {
    let bound = 1.0 / ((2 * bottom) as f64).sqrt();
    for number in 1..=BLOCKS {
        let mut layer = scope.sub(&format!("{prefix}{number}"));
        layer.sub("conv1").unused("weight", &[bottom, 2 * bottom, 1, 1], bound);
    }
}

/// How much of features `[N, C, H, W]` is to be painted, `[N, 1, H, W]` in (0, 1); `weight` is
/// `[1, C, 3, 3]`.
pub fn attention_mask(features: &Tensor, weight: &Tensor) -> Tensor {
    let logits = mirrored(features, 1).conv2d(weight, None::<Tensor>, [1; 2], [0; 2], [1; 2], 1);
    logits.sigmoid()
}

/// `inside` as far as `mask`, `[N, 1, H, W]` in [0, 1], is painted, and `outside` elsewhere.
pub fn blend(inside: &Tensor, outside: &Tensor, mask: &Tensor) -> Tensor {
    outside.lerp_tensor(inside, mask)
}

/// Twice the rows and columns of `[N, C, H, W]`, bilinear; corners stay corners.
pub fn enlarged(mask: &Tensor) -> Tensor {
    let size = [mask.size()[2] * 2, mask.size()[3] * 2];
    mask.upsample_bilinear2d(size, true, None, None)
}

impl Encoder {
    /// Registers `1`, `5`, `9` and the blocks `12` and up.
    fn new(scope: &mut Scope<'_>, width: i64) -> Self {
        let first = Mirrored::new(&mut scope.sub("1"), [3, width], 7);
        let second = Mirrored::halving(&mut scope.sub("5"), [width, 2 * width]);
        let third = Mirrored::halving(&mut scope.sub("9"), [2 * width, 4 * width]);
        let blocks = (12..12 + BLOCKS).map(|number| {
            let mut block = scope.sub(&format!("{number}.conv_block"));
            ["1", "5"].map(|name| Mirrored::new(&mut block.sub(name), [4 * width; 2], 3))
        });
        let blocks = blocks.collect();
        Self { down: [first, second, third], blocks }
    }

    fn forward(&self, image: &Tensor) -> Tensor {
        let mut x = image.shallow_clone();
        for convolution in &self.down {
            x = instance_norm(&convolution.forward(&x)).relu();
        }
        for [first, second] in &self.blocks {
            let inner = instance_norm(&first.forward(&x)).relu();
            x = &x + instance_norm(&second.forward(&inner));
        }
        x
    }
}
