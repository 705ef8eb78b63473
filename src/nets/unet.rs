//! The small 2-D U-Net of the scribble literature, with one decoder or two.
//!
//! Shapes, names and initialisation follow HiLab-git/WSL4MIS `code/networks/unet.py` at a594da8:
//! despite its configuration it upsamples bilinearly and rectifies leakily.

use super::normalised::NormalisedConvolution;
use super::{Convolution, Pass};
use crate::error::Result;
use crate::native;
use crate::parameters::Scope;
use tch::Tensor;

/// Channels of the five levels, finest first.
pub const CHANNELS: [i64; 5] = [16, 32, 64, 128, 256];
/// Dropout between the two convolutions of each encoder level.
const DROPOUT: [f64; 5] = [0.05, 0.1, 0.2, 0.3, 0.5];

/// Twice: 3x3 convolution, normalisation, leaky rectification; dropout after the first.
#[derive(Debug)]
struct ConvBlock {
    first: NormalisedConvolution,
    second: NormalisedConvolution,
}

impl ConvBlock {
    fn new(scope: &mut Scope<'_>, channels_in: i64, channels: i64, dropout: f64) -> Self {
        let mut scope = scope.sub("conv_conv");
        let (first, second) = ([channels_in, channels], [channels; 2]);
        Self {
            first: NormalisedConvolution::new(&mut scope, ["0", "1"], first, dropout),
            second: NormalisedConvolution::new(&mut scope, ["4", "5"], second, 0.0),
        }
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.second.forward(&self.first.forward(x, pass)?, pass)
    }
}

/// Five levels, each at half the size of the one before.
#[derive(Debug)]
struct Encoder {
    levels: Vec<ConvBlock>,
}

impl Encoder {
    fn new(mut scope: Scope<'_>, channels_in: i64) -> Self {
        let mut levels =
            vec![ConvBlock::new(&mut scope.sub("in_conv"), channels_in, CHANNELS[0], DROPOUT[0])];
        for level in 1..CHANNELS.len() {
            let mut scope = scope.sub(&format!("down{level}.maxpool_conv.1"));
            levels.push(ConvBlock::new(
                &mut scope,
                CHANNELS[level - 1],
                CHANNELS[level],
                DROPOUT[level],
            ));
        }
        Self { levels }
    }

    /// The features of all levels, finest first: `[N, CHANNELS[l], H / 2^l, W / 2^l]`.
    fn forward(&self, image: &Tensor, pass: &Pass) -> Result<Vec<Tensor>> {
        let mut features = vec![self.levels[0].forward(&native::channels_last(image)?, pass)?];
        for block in &self.levels[1..] {
            let halved =
                features[features.len() - 1].max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false);
            features.push(block.forward(&halved, pass)?);
        }
        Ok(features)
    }
}

/// One step up: reduce channels, double the size, join the skip connection, convolve.
#[derive(Debug)]
struct UpBlock {
    reduce: Convolution,
    block: ConvBlock,
}

impl UpBlock {
    fn forward(&self, x: &Tensor, skip: &Tensor, pass: &Pass) -> Result<Tensor> {
        let size = skip.size();
        let doubled =
            self.reduce.forward(x).upsample_bilinear2d([size[2], size[3]], true, None, None);
        self.block.forward(&Tensor::cat(&[skip, &doubled], 1), pass)
    }
}

/// Back to full size, then one logit per class.
#[derive(Debug)]
struct Decoder {
    /// Coarsest first.
    levels: Vec<UpBlock>,
    out: Convolution,
}

impl Decoder {
    fn new(mut scope: Scope<'_>, classes: i64) -> Self {
        let levels = (1..CHANNELS.len())
            .map(|number| {
                let mut scope = scope.sub(&format!("up{number}"));
                let channels = CHANNELS[CHANNELS.len() - 1 - number];
                let below = CHANNELS[CHANNELS.len() - number];
                UpBlock {
                    reduce: Convolution::new(&mut scope.sub("conv1x1"), below, channels, 1),
                    block: ConvBlock::new(&mut scope.sub("conv"), 2 * channels, channels, 0.0),
                }
            })
            .collect();
        let out = Convolution::new(&mut scope.sub("out_conv"), CHANNELS[0], classes, 3);
        Self { levels, out }
    }

    fn forward(&self, features: &[Tensor], pass: &Pass) -> Result<Tensor> {
        let mut coarse_to_fine = features.iter().rev();
        let mut x = coarse_to_fine.next().map_or_else(Tensor::new, Tensor::shallow_clone);
        for (level, skip) in self.levels.iter().zip(coarse_to_fine) {
            x = level.forward(&x, skip, pass)?;
        }
        Ok(self.out.forward_wide(&x))
    }
}

/// The U-Net with one decoder: 1 813 764 parameters for 1 channel and 4 classes.
#[derive(Debug)]
pub struct UNet {
    encoder: Encoder,
    decoder: Decoder,
}

impl UNet {
    /// Registers `encoder.*` and `decoder.*`.
    pub fn new(scope: &mut Scope<'_>, channels_in: i64, classes: i64) -> Self {
        Self {
            encoder: Encoder::new(scope.sub("encoder"), channels_in),
            decoder: Decoder::new(scope.sub("decoder"), classes),
        }
    }

    /// Logits `[N, classes, H, W]` of images `[N, channels_in, H, W]`; H and W multiples of 16.
    pub fn forward(&self, image: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.decoder.forward(&self.encoder.forward(image, pass)?, pass)
    }
}

/// The U-Net with two decoders on one encoder: 2 447 064 parameters for 1 channel and 4 classes.
#[derive(Debug)]
pub struct UNetCct {
    encoder: Encoder,
    main: Decoder,
    auxiliary: Decoder,
}

impl UNetCct {
    /// Registers `encoder.*`, `main_decoder.*` and `aux_decoder1.*`.
    pub fn new(scope: &mut Scope<'_>, channels_in: i64, classes: i64) -> Self {
        Self {
            encoder: Encoder::new(scope.sub("encoder"), channels_in),
            main: Decoder::new(scope.sub("main_decoder"), classes),
            auxiliary: Decoder::new(scope.sub("aux_decoder1"), classes),
        }
    }

    /// Logits `[N, classes, H, W]` of the main decoder alone.
    pub fn segment(&self, image: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.main.forward(&self.encoder.forward(image, pass)?, pass)
    }

    /// Logits of the main and of the auxiliary decoder, which sees `perturb(level, features)`.
    pub fn forward(
        &self,
        image: &Tensor,
        pass: &Pass,
        perturb: impl Fn(usize, &Tensor) -> Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let features = self.encoder.forward(image, pass)?;
        let main = self.main.forward(&features, pass)?;
        let perturbed: Vec<Tensor> =
            features.iter().enumerate().map(|(level, x)| perturb(level, x)).collect();
        Ok((main, self.auxiliary.forward(&perturbed, pass)?))
    }
}

/// The U-Net that also reconstructs its image: one encoder, one decoder for classes and one for the
/// image, `unet_mae` of lichen14/MaskMixAdv at cf584ee. 2 446 629 parameters for 1 channel and 4
/// classes; 3 079 929 with the second decoder for classes, which makes it `unet_mae_cct`.
#[derive(Debug)]
pub struct UNetMae {
    encoder: Encoder,
    segment: Decoder,
    restore: Decoder,
    auxiliary: Option<Decoder>,
}

impl UNetMae {
    /// Registers `encoder.*`, `seg_decoder.*`, `mae_decoder.*` and, if asked for, `aux_decoder.*`.
    pub fn new(scope: &mut Scope<'_>, channels_in: i64, classes: i64, auxiliary: bool) -> Self {
        Self {
            encoder: Encoder::new(scope.sub("encoder"), channels_in),
            segment: Decoder::new(scope.sub("seg_decoder"), classes),
            restore: Decoder::new(scope.sub("mae_decoder"), channels_in),
            auxiliary: auxiliary.then(|| Decoder::new(scope.sub("aux_decoder"), classes)),
        }
    }

    /// Features of all levels, finest first, of images `[N, channels_in, H, W]`; H and W multiples
    /// of 16.
    pub fn features(&self, image: &Tensor, pass: &Pass) -> Result<Vec<Tensor>> {
        self.encoder.forward(image, pass)
    }

    /// Logits `[N, classes, H, W]`.
    pub fn segment(&self, features: &[Tensor], pass: &Pass) -> Result<Tensor> {
        self.segment.forward(features, pass)
    }

    /// The image `[N, channels_in, H, W]`, not limited to a range.
    pub fn restore(&self, features: &[Tensor], pass: &Pass) -> Result<Tensor> {
        self.restore.forward(features, pass)
    }

    /// Logits of the second decoder for classes; without one, of the first.
    pub fn segment_again(&self, features: &[Tensor], pass: &Pass) -> Result<Tensor> {
        self.auxiliary.as_ref().unwrap_or(&self.segment).forward(features, pass)
    }
}

/// Drops whole channels: `keep` is `[N, C]` of 0 and 1; kept channels of `[N, C, H, W]` double.
///
/// The perturbation of WSL4MIS (`dropout2d` with p = 0.5).
pub fn channel_dropout(x: &Tensor, keep: &Tensor) -> Tensor {
    x * (keep.to_kind(x.kind()) * 2.0).unsqueeze(-1).unsqueeze(-1)
}

/// Zeroes the most active positions: those whose channel mean reaches `factor` times the largest
/// of the sample. `x` is `[N, C, H, W]`, `factor` in [0, 1]; the mask carries no gradient.
///
/// The perturbation of MaskMixAdv (`FeatureDropout`, lichen14/MaskMixAdv at cf584ee).
pub fn feature_dropout(x: &Tensor, factor: f64) -> Tensor {
    let attention = x.detach().mean_dim([1i64].as_slice(), true, x.kind());
    let threshold = attention.amax([1i64, 2, 3], true) * factor;
    x * attention.lt_tensor(&threshold).to_kind(x.kind())
}
