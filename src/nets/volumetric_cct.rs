//! The published network over volumes with one encoder and two decoders, `UNet_CCT_dp_3D` of HiLab-git/DMSPS at
//! 89fe065, whose normalisation is that of each sample by itself.
//!
//! Names, initialisation and shapes are the reference's. Ranks, keys and the kind of pass come in as arguments.

use super::{Convolution, Pass, PerAxis, Register};
use crate::error::{Failure, Result};
use crate::native::{self, Alone, Form, GroupSum, Normalisation, NormalisedChannels, TrainingPass};
use crate::parameters::Scope;
use std::sync::Arc;
use tch::Tensor;

/// Channels of the five levels, finest first.
pub const CHANNELS: [i64; 5] = [16, 32, 64, 128, 256];
/// Dropout between the two convolutions of each encoder level.
const DROPOUT: [f64; 5] = [0.05, 0.1, 0.2, 0.3, 0.5];
/// Names of the encoder's levels.
const LEVELS: [&str; 5] = ["conv1", "conv2", "conv3", "conv4", "center"];
/// Voxels along an axis of which the deepest level makes one.
pub const DIVISOR: usize = 16;

/// Whether the network takes volumes of so many slices, rows and columns: at least 16 along each axis, and 32
/// along one, so that a sample has something to be normalised by at its deepest level.
pub fn takes(extent: [usize; 3]) -> bool {
    let deepest = extent.map(|extent| extent / DIVISOR);
    deepest.iter().product::<usize>() > 1
}

/// A weight as the reference draws it: normal, with a variance of 2 / fan in, from the bound 1 / sqrt(fan in).
fn register_weight(scope: &mut Scope<'_>, name: &str, shape: &[i64], bound: f64) -> Tensor {
    scope.normal(name, shape, bound * std::f64::consts::SQRT_2)
}

/// A convolution of 3 x 3 x 3 taps, then each channel of each sample with mean 0 and variance 1, rectified, and
/// dropout.
#[derive(Debug)]
struct Layer {
    convolution: Convolution,
    /// Learn nothing and keep nothing: each channel as it comes.
    channels: NormalisedChannels,
    settings: Normalisation,
    name: String,
}

impl Layer {
    /// Registers `0.weight` and `0.bias`, of which no bias has any effect.
    fn new(mut scope: Scope<'_>, channels: [i64; 2], dropout: f64) -> Self {
        let taps = PerAxis::Three([3; 3]);
        let register: [Register<'_>; 2] = [register_weight, Scope::absorbed];
        let convolution = Convolution::registered(&mut scope.sub("0"), channels, taps, register);
        let of = |value: f64| {
            let like = &convolution.weight;
            Tensor::full([channels[1]], value, (like.kind(), like.device()))
        };
        Self {
            channels: NormalisedChannels {
                weight: of(1.0),
                bias: of(0.0),
                absorbed: of(0.0),
                running_mean: of(0.0),
                running_var: of(0.0),
            },
            settings: Normalisation {
                momentum: 0.0,
                epsilon: 1e-5,
                slope: 0.0,
                dropout,
                form: Form::Own,
            },
            name: scope.name().to_owned(),
            convolution,
        }
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let x = match pass {
            Pass::Evaluate => self.convolution.forward_in(x, pass)?,
            _ => self.convolution.forward_unbiased(x),
        };
        let keys = match pass {
            Pass::Train { keys: Some(keys), .. } if self.settings.dropout > 0.0 => {
                Some(keys(&self.name))
            }
            _ => None,
        };
        let samples = x.size()[0];
        let normalise = |x: &Tensor, keys: Option<&Tensor>| {
            // Over the voxels of one sample the statistics of a batch are those of the sample.
            let group: Arc<dyn GroupSum> = Arc::new(Alone);
            let pass = TrainingPass { group: &group, keys, batches: None };
            native::normalise(x, &self.channels, self.settings, &pass)
        };
        match samples {
            // Ranks without samples still have gradients, which are zero.
            0 => Ok(x),
            1 => normalise(&x, keys.as_ref()),
            _ => {
                let keys = keys.map(|keys| keys.split(1, 0));
                let of_sample = |(sample, x): (usize, &Tensor)| {
                    normalise(x, keys.as_ref().map(|keys| &keys[sample]))
                };
                let samples = x.split(1, 0);
                let normalised = samples.iter().enumerate().map(of_sample);
                Ok(Tensor::cat(&normalised.collect::<Result<Vec<Tensor>>>()?, 0))
            }
        }
    }
}

/// Two layers, with dropout after the first.
#[derive(Debug)]
struct Block([Layer; 2]);

impl Block {
    fn new(mut scope: Scope<'_>, [channels_in, channels]: [i64; 2], dropout: f64) -> Self {
        let first = Layer::new(scope.sub("conv1"), [channels_in, channels], dropout);
        Self([first, Layer::new(scope.sub("conv2"), [channels; 2], 0.0)])
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.0[1].forward(&self.0[0].forward(x, pass)?, pass)
    }
}

/// Back to full size, then one logit per class.
#[derive(Debug)]
struct Decoder {
    /// Coarsest first.
    levels: Vec<Block>,
    out: Convolution,
}

impl Decoder {
    fn new(mut scope: Scope<'_>, classes: i64) -> Self {
        let levels = (0..CHANNELS.len() - 1).rev().map(|level| {
            let (channels, below) = (CHANNELS[level], CHANNELS[level + 1]);
            let mut scope = scope.sub(&format!("up_concat{}", level + 1));
            Block::new(scope.sub("conv"), [channels + below, channels], 0.0)
        });
        let levels = levels.collect();
        let (channels, taps) = ([CHANNELS[0], classes], PerAxis::Three([1; 3]));
        let register: [Register<'_>; 2] = [register_weight, Scope::uniform];
        let out = Convolution::registered(&mut scope.sub("final"), channels, taps, register);
        Self { levels, out }
    }

    fn forward(&self, features: &[Tensor], pass: &Pass) -> Result<Tensor> {
        let mut coarse_to_fine = features.iter().rev();
        let mut x = coarse_to_fine.next().map_or_else(Tensor::new, Tensor::shallow_clone);
        for (level, skip) in self.levels.iter().zip(coarse_to_fine) {
            let size: Vec<i64> = x.size()[2..].iter().map(|extent| 2 * extent).collect();
            let enlarged = x.upsample_trilinear3d(&size[..], false, None, None, None);
            let skip = if skip.size()[2..] == size {
                skip.shallow_clone()
            } else {
                skip.upsample_trilinear3d(&size[..], true, None, None, None)
            };
            x = level.forward(&Tensor::cat(&[skip, enlarged], 1), pass)?;
        }
        self.out.forward_wide(&x, pass)
    }
}

/// The network: 8 234 848 parameters for 1 channel and 8 classes, 8 235 974 for 4 channels and 3 classes.
#[derive(Debug)]
pub struct VolumetricCct {
    encoder: Vec<Block>,
    main: Decoder,
    auxiliary: Decoder,
}

impl VolumetricCct {
    /// Registers `encoder.*`, `main_decoder.*` and `aux_decoder1.*`.
    pub fn new(scope: &mut Scope<'_>, channels_in: i64, classes: i64) -> Self {
        let mut encoder = scope.sub("encoder");
        let mut before = channels_in;
        let levels = LEVELS.iter().zip(CHANNELS).zip(DROPOUT).map(|((name, channels), dropout)| {
            let block = Block::new(encoder.sub(name), [before, channels], dropout);
            before = channels;
            block
        });
        Self {
            encoder: levels.collect(),
            main: Decoder::new(scope.sub("main_decoder"), classes),
            auxiliary: Decoder::new(scope.sub("aux_decoder1"), classes),
        }
    }

    /// Logits `[N, classes, D, H, W]` of the main decoder alone, of volumes `[N, channels_in, D, H, W]`. Along an
    /// axis whose extent 16 does not divide they are as many as the multiple of 16 below it.
    pub fn segment(&self, image: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.main.forward(&self.features(image, pass)?, pass)
    }

    /// Logits of the main and of the auxiliary decoder, which sees `perturb(level, features)`.
    pub fn forward(
        &self,
        image: &Tensor,
        pass: &Pass,
        perturb: impl Fn(usize, &Tensor) -> Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let features = self.features(image, pass)?;
        let main = self.main.forward(&features, pass)?;
        let perturbed: Vec<Tensor> =
            features.iter().enumerate().map(|(level, x)| perturb(level, x)).collect();
        Ok((main, self.auxiliary.forward(&perturbed, pass)?))
    }

    /// Features of all levels, finest first: `[N, 16 to 256, ...]`.
    pub fn features(&self, image: &Tensor, pass: &Pass) -> Result<Vec<Tensor>> {
        let extent = image.size()[2..].iter().map(|&extent| extent as usize).collect::<Vec<_>>();
        if !<[usize; 3]>::try_from(extent).is_ok_and(takes) {
            return Err(Failure::new(format!(
                "the network takes volumes of at least {DIVISOR} voxels along each axis and {} along one, \
                 found {:?}",
                2 * DIVISOR,
                &image.size()[2..]
            )));
        }
        let mut features: Vec<Tensor> = Vec::with_capacity(self.encoder.len());
        for block in &self.encoder {
            let x = match features.last() {
                None => native::channels_last(image)?,
                Some(finer) => finer.max_pool3d([2; 3], [2; 3], [0; 3], [1; 3], false),
            };
            features.push(block.forward(&x, pass)?);
        }
        Ok(features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{Flat, Leaves, Parameters};
    use crate::random::Key;
    use tch::{Device, Kind};

    fn wave(extents: &[i64]) -> Tensor {
        let numbers = Tensor::arange(extents.iter().product::<i64>(), (Kind::Double, Device::Cpu));
        (numbers * 0.37).sin().view(extents)
    }

    fn train(keys: Option<Vec<i64>>) -> Pass {
        let keys = keys.map(|keys| {
            let of_layer = move |layer: &str| Tensor::from_slice(&keys) * (layer.len() as i64 + 1);
            std::rc::Rc::new(of_layer) as super::super::LayerKeys
        });
        Pass::Train { group: Arc::new(Alone), keys, moves: 1 }
    }

    #[test]
    fn a_layer_is_a_convolution_normalised_for_each_sample_and_rectified() {
        let mut parameters = Parameters::new(Key::new(3), Kind::Double, Device::Cpu);
        let layer = Layer::new(parameters.root(), [2, 3], 0.0);
        let expected = |x: &Tensor| {
            let [weight, bias] = [&layer.convolution.weight, &layer.convolution.bias];
            let x = x.conv3d(weight, Some(bias), 1, 1, 1, 1);
            let axes = [2i64, 3, 4];
            let mean = x.mean_dim(&axes[..], true, Kind::Double);
            let variance = (&x - &mean).square().mean_dim(&axes[..], true, Kind::Double);
            ((&x - mean) / (variance + 1e-5).sqrt()).relu()
        };
        for samples in [1, 3] {
            let gradient = |of: &dyn Fn(&Tensor) -> Tensor| {
                let x = (wave(&[samples, 2, 4, 5, 6]) * 3.0 + 7.0).set_requires_grad(true);
                let y = of(&x);
                (&y * wave(&y.size())).sum(Kind::Double).backward();
                [y.detach(), x.grad()]
            };
            let found = gradient(&|x| layer.forward(x, &train(None)).unwrap());
            for (found, expected) in found.iter().zip(gradient(&expected)) {
                assert!((found - expected).abs().max().double_value(&[]) < 1e-10);
            }
            let x = wave(&[samples, 2, 4, 5, 6]);
            let evaluated = tch::no_grad(|| layer.forward(&x, &Pass::Evaluate).unwrap());
            assert!((evaluated - expected(&x)).abs().max().double_value(&[]) < 1e-10);
        }
        assert_eq!(layer.forward(&wave(&[0, 2, 4, 4, 4]), &train(None)).unwrap().size()[0], 0);
    }

    #[test]
    fn samples_together_are_what_each_is_alone_with_their_dropout() {
        let mut parameters = Parameters::new(Key::new(3), Kind::Double, Device::Cpu);
        let block = Block::new(parameters.root(), [1, 4], 0.5);
        let x = wave(&[3, 1, 4, 4, 4]);
        let all = block.forward(&x, &train(Some(vec![11, 12, 13]))).unwrap();
        for (sample, key) in [(0, 11), (1, 12), (2, 13)] {
            let alone = block.forward(&x.narrow(0, sample, 1), &train(Some(vec![key]))).unwrap();
            assert!(alone.equal(&all.narrow(0, sample, 1)));
        }
        let without = block.forward(&x, &train(None)).unwrap();
        assert!(!without.equal(&all), "otherwise nothing is dropped");
    }

    #[test]
    fn odd_extents_get_the_even_ones_below_and_too_small_ones_a_word() {
        let mut parameters = Parameters::new(Key::new(3), Kind::Float, Device::Cpu);
        let net = VolumetricCct::new(&mut parameters.root(), 1, 2);
        let segment = |extent: [i64; 3]| {
            let image = wave(&[&[1, 1], &extent[..]].concat()).to_kind(Kind::Float);
            net.segment(&image, &Pass::Evaluate)
        };
        let logits = segment([17, 33, 31]).unwrap();
        assert_eq!(logits.size(), [1, 2, 16, 32, 16]);
        for small in [[16, 16, 16], [15, 64, 64], [1, 64, 64]] {
            assert!(segment(small).is_err());
        }
        insta::assert_snapshot!(segment([16; 3]).unwrap_err().message(), @"the network takes volumes of at least 16 voxels along each axis and 32 along one, found [16, 16, 16]");
    }

    #[test]
    fn biases_in_front_of_normalisations_get_no_gradient_and_all_else_does() {
        let mut parameters = Parameters::new(Key::new(3), Kind::Float, Device::Cpu);
        let net = VolumetricCct::new(&mut parameters.root(), 1, 2);
        let flat = Flat::new(&parameters);
        let image = wave(&[1, 1, 16, 16, 32]).to_kind(Kind::Float);
        let (main, auxiliary) = net.forward(&image, &train(None), |_, x| x * 0.5).unwrap();
        (main.square().sum(Kind::Float) + auxiliary.square().sum(Kind::Float)).backward();
        let gradients = flat.gradients();
        Leaves::of(&parameters, &flat).gather_all(&gradients, false).unwrap();
        for slot in &flat.slots {
            let moves = slot.view(&gradients).abs().max().double_value(&[]) > 0.0;
            let is_absorbed = slot.name.ends_with("0.bias");
            assert_eq!(moves, !is_absorbed, "{}", slot.name);
        }
        // The standard deviation of a weight is sqrt(2 / fan in).
        let last = flat.slots.iter().find(|slot| slot.name == "encoder.center.conv2.0.weight");
        let weight = last.unwrap().view(&flat.weights);
        let deviation = weight.std(true).double_value(&[]);
        assert!((deviation / (2.0f64 / (256.0 * 27.0)).sqrt() - 1.0).abs() < 0.01, "{deviation}");
    }
}
