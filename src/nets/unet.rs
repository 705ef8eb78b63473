//! The small U-Net of the scribble literature, with one decoder or two, over images or volumes.
//!
//! Names, initialisation and the shapes over images follow HiLab-git/WSL4MIS `code/networks/unet.py` at a594da8:
//! despite its configuration it upsamples bilinearly and rectifies leakily. How many levels there are, and what
//! each does along which axis, is the [`Topology`]'s.

use super::normalised::NormalisedConvolution;
use super::topology::{Level, Topology};
use super::{Convolution, Pass, PerAxis};
use crate::error::Result;
use crate::native;
use crate::parameters::Scope;
use tch::Tensor;

pub use super::topology::CHANNELS;

/// Twice: convolution, normalisation, leaky rectification; dropout after the first.
#[derive(Debug)]
struct ConvBlock {
    first: NormalisedConvolution,
    second: NormalisedConvolution,
}

impl ConvBlock {
    /// To the channels of a level, with its taps.
    fn new(scope: &mut Scope<'_>, channels_in: i64, level: &Level, dropout: f64) -> Self {
        let mut scope = scope.sub("conv_conv");
        let (first, second) = ([channels_in, level.channels], [level.channels; 2]);
        let taps = level.taps;
        Self {
            first: NormalisedConvolution::new(&mut scope, ["0", "1"], first, taps, dropout),
            second: NormalisedConvolution::new(&mut scope, ["4", "5"], second, taps, 0.0),
        }
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.second.forward(&self.first.forward(x, pass)?, pass)
    }
}

/// The features of all levels, finest first, each pooled from the one before.
#[derive(Debug)]
struct Encoder {
    levels: Vec<(PerAxis, ConvBlock)>,
}

impl Encoder {
    fn new(mut scope: Scope<'_>, channels_in: i64, topology: &Topology) -> Self {
        let mut before = channels_in;
        let levels = topology.levels().enumerate().map(|(number, level)| {
            let name = match number {
                0 => "in_conv".to_owned(),
                _ => format!("down{number}.maxpool_conv.1"),
            };
            let block = ConvBlock::new(&mut scope.sub(&name), before, level, level.dropout);
            before = level.channels;
            (level.pooling, block)
        });
        Self { levels: levels.collect() }
    }

    /// `[N, channels of the level, ...]` of all levels, finest first.
    fn forward(&self, image: &Tensor, pass: &Pass) -> Result<Vec<Tensor>> {
        let mut features = Vec::with_capacity(self.levels.len());
        let mut x = native::channels_last(image)?;
        for (pooling, block) in &self.levels {
            x = block.forward(&pooled(&x, *pooling), pass)?;
            features.push(x.shallow_clone());
        }
        Ok(features)
    }
}

/// The largest values of boxes of so many pixels beside each other; a rest at the end is left out.
fn pooled(x: &Tensor, pooling: PerAxis) -> Tensor {
    match pooling {
        PerAxis::Two([1, 1]) | PerAxis::Three([1, 1, 1]) => x.shallow_clone(),
        PerAxis::Two(size) => x.max_pool2d(size, size, [0; 2], [1; 2], false),
        PerAxis::Three(size) => x.max_pool3d(size, size, [0; 3], [1; 3], false),
    }
}

/// One step up: reduce channels, enlarge, join the skip connection, convolve.
#[derive(Debug)]
struct UpBlock {
    reduce: Convolution,
    block: ConvBlock,
}

impl UpBlock {
    fn forward(&self, x: &Tensor, skip: &Tensor, pass: &Pass) -> Result<Tensor> {
        let reduced = self.reduce.forward_in(x, pass)?;
        let size = &skip.size()[2..];
        let enlarged = match size.len() {
            3 => reduced.upsample_trilinear3d(size, true, None, None, None),
            _ => reduced.upsample_bilinear2d(size, true, None, None),
        };
        self.block.forward(&Tensor::cat(&[skip, &enlarged], 1), pass)
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
    fn new(mut scope: Scope<'_>, classes: i64, topology: &Topology) -> Self {
        let coarse_to_fine = topology.levels().rev();
        let steps = coarse_to_fine.clone().zip(coarse_to_fine.skip(1));
        let levels = (1..).zip(steps).map(|(number, (below, level))| {
            let mut scope = scope.sub(&format!("up{number}"));
            let channels = [below.channels, level.channels];
            let one = level.taps.map(|_| 1);
            let dropout = if topology.decoders_drop { level.dropout } else { 0.0 };
            UpBlock {
                reduce: Convolution::new(&mut scope.sub("conv1x1"), channels, one),
                block: ConvBlock::new(&mut scope.sub("conv"), 2 * level.channels, level, dropout),
            }
        });
        let levels = levels.collect();
        let channels = [topology.finest().channels, classes];
        Self {
            levels,
            out: Convolution::new(&mut scope.sub("out_conv"), channels, topology.taps_out),
        }
    }

    fn forward(&self, features: &[Tensor], pass: &Pass) -> Result<Tensor> {
        let mut coarse_to_fine = features.iter().rev();
        let mut x = coarse_to_fine.next().map_or_else(Tensor::new, Tensor::shallow_clone);
        for (level, skip) in self.levels.iter().zip(coarse_to_fine) {
            x = level.forward(&x, skip, pass)?;
        }
        self.out.forward_wide(&x, pass)
    }
}

/// The U-Net with one decoder: over images 1 813 764 parameters for 1 channel and 4 classes.
#[derive(Debug)]
pub struct UNet {
    encoder: Encoder,
    decoder: Decoder,
}

impl UNet {
    /// Over images. Registers `encoder.*` and `decoder.*`.
    pub fn new(scope: &mut Scope<'_>, channels_in: i64, classes: i64) -> Self {
        Self::shaped(scope, channels_in, classes, &Topology::published())
    }

    /// The same with other levels, which may be those of volumes.
    pub fn shaped(
        scope: &mut Scope<'_>,
        channels_in: i64,
        classes: i64,
        topology: &Topology,
    ) -> Self {
        Self {
            encoder: Encoder::new(scope.sub("encoder"), channels_in, topology),
            decoder: Decoder::new(scope.sub("decoder"), classes, topology),
        }
    }

    /// Logits `[N, classes, H, W]` of images `[N, channels_in, H, W]`, with a dimension D in front of the rows
    /// those of volumes; each extent is at least what all poolings along its axis divide it by.
    pub fn forward(&self, image: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.decoder.forward(&self.encoder.forward(image, pass)?, pass)
    }
}

/// The U-Net with two decoders on one encoder: over images 2 447 064 parameters for 1 channel and 4 classes.
#[derive(Debug)]
pub struct UNetCct {
    encoder: Encoder,
    main: Decoder,
    auxiliary: Decoder,
}

impl UNetCct {
    /// Over images. Registers `encoder.*`, `main_decoder.*` and `aux_decoder1.*`.
    pub fn new(scope: &mut Scope<'_>, channels_in: i64, classes: i64) -> Self {
        Self::shaped(scope, channels_in, classes, &Topology::published())
    }

    /// The same with other levels, which may be those of volumes.
    pub fn shaped(
        scope: &mut Scope<'_>,
        channels_in: i64,
        classes: i64,
        topology: &Topology,
    ) -> Self {
        Self {
            encoder: Encoder::new(scope.sub("encoder"), channels_in, topology),
            main: Decoder::new(scope.sub("main_decoder"), classes, topology),
            auxiliary: Decoder::new(scope.sub("aux_decoder1"), classes, topology),
        }
    }

    /// Logits `[N, classes, H, W]` of the main decoder alone; of volumes with a dimension D in front of the rows.
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
        let topology = Topology::published();
        let encoder = Encoder::new(scope.sub("encoder"), channels_in, &topology);
        let mut decoder = |name: &str, outputs| Decoder::new(scope.sub(name), outputs, &topology);
        Self {
            encoder,
            segment: decoder("seg_decoder", classes),
            restore: decoder("mae_decoder", channels_in),
            auxiliary: auxiliary.then(|| decoder("aux_decoder", classes)),
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

/// Drops whole channels: `keep` is `[N, C]` of 0 and 1; kept channels of `[N, C, H, W]` or `[N, C, D, H, W]`
/// double.
///
/// The perturbation of WSL4MIS (`dropout2d` with p = 0.5).
pub fn channel_dropout(x: &Tensor, keep: &Tensor) -> Tensor {
    let factors = keep.to_kind(x.kind()) * 2.0;
    x * (2..x.dim()).fold(factors, |factors, _| factors.unsqueeze(-1))
}

/// Zeroes the most active positions: those whose channel mean reaches `factor` times the largest
/// of the sample. `x` is `[N, C, H, W]` or `[N, C, D, H, W]`, `factor` in [0, 1]; the mask carries no gradient.
///
/// The perturbation of MaskMixAdv (`FeatureDropout`, lichen14/MaskMixAdv at cf584ee).
pub fn feature_dropout(x: &Tensor, factor: f64) -> Tensor {
    let attention = x.detach().mean_dim([1i64].as_slice(), true, x.kind());
    let all: Vec<i64> = (1..x.dim() as i64).collect();
    let threshold = attention.amax(&all[..], true) * factor;
    x * attention.lt_tensor(&threshold).to_kind(x.kind())
}
