//! The U-Net of MONAI with normalisation in groups of channels, and a classifier of one logit behind its features.
//!
//! Names, initialisation and shapes follow med-air/GazeMedSeg at 12d0259, which builds it on MONAI's `BasicUNet`.
//! Every sample is normalised by itself, so that ranks, keys and the kind of pass do not matter.

use super::{Arithmetic, Convolution, PerAxis};
use crate::error::{Failure, Result};
use crate::native::{self, Form};
use crate::parameters::Scope;
use tch::Tensor;

/// Channels of the five levels, finest first, and of the features that are classified: as published.
pub const FEATURES: [i64; 6] = [64, 128, 256, 512, 1024, 128];
/// Groups of channels that are normalised together.
pub const GROUPS: i64 = 4;
/// The fewest rows and columns of an image, of which the coarsest level makes one.
pub const SMALLEST: usize = 16;

/// Added to variances.
const EPSILON: f64 = 1e-5;
/// Factor of negative values.
const SLOPE: f64 = 0.1;

/// A convolution of 3 x 3 taps, groups of channels with mean 0 and variance 1, leaky rectification.
#[derive(Debug)]
struct Layer {
    convolution: Convolution,
    weight: Tensor,
    bias: Tensor,
}

impl Layer {
    /// Registers `conv.weight`, `conv.bias`, `adn.N.weight` and `adn.N.bias`.
    fn new(mut scope: Scope<'_>, channels: [i64; 2]) -> Self {
        let convolution = Convolution::new(&mut scope.sub("conv"), channels, PerAxis::Two([3; 2]));
        let mut scope = scope.sub("adn.N");
        let shape = [channels[1]];
        let weight = scope.constant("weight", &shape, 1.0);
        Self { convolution, weight, bias: scope.constant("bias", &shape, 0.0) }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.convolution.forward(x);
        if x.size()[0] == 0 {
            // Ranks without samples still have gradients, which are zero.
            return Ok(x);
        }
        let [weight, bias] = [&self.weight, &self.bias].map(|tensor| tensor.to_kind(x.kind()));
        let normalised = x.group_norm(GROUPS, Some(weight), Some(bias), EPSILON, true);
        native::leaky_relu(&normalised, SLOPE)
    }
}

/// Two layers.
#[derive(Debug)]
struct Block([Layer; 2]);

impl Block {
    fn new(mut scope: Scope<'_>, [channels_in, channels]: [i64; 2]) -> Self {
        let first = Layer::new(scope.sub("conv_0"), [channels_in, channels]);
        Self([first, Layer::new(scope.sub("conv_1"), [channels; 2])])
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0[1].forward(&self.0[0].forward(x)?)
    }
}

/// Each pixel becomes 2 x 2 pixels.
#[derive(Debug)]
struct Enlargement {
    /// In the numbers of the arithmetic, as the bias.
    weight: Tensor,
    bias: Tensor,
    arithmetic: Arithmetic,
}

impl Enlargement {
    /// Registers `weight` and `bias`.
    fn new(mut scope: Scope<'_>, [channels_in, channels]: [i64; 2]) -> Self {
        // As PyTorch takes the fan in of a transposed convolution.
        let bound = 1.0 / (4.0 * channels as f64).sqrt();
        let weight = scope.uniform("weight", &[channels_in, channels, 2, 2], bound);
        let weight = scope.narrowed(&weight);
        let bias = scope.uniform("bias", &[channels], bound);
        let bias = scope.narrowed(&bias);
        Self { weight, bias, arithmetic: Arithmetic::of(&scope) }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let [x, weight, bias] =
            [x, &self.weight, &self.bias].map(|tensor| self.arithmetic.narrow(tensor));
        let (stride, none) = ([2i64; 2], [0i64; 2]);
        x.convolution(&weight, Some(bias), stride, none, [1i64; 2], true, none, 1)
    }
}

/// One step up: enlarge, join what was there on the way down, convolve.
#[derive(Debug)]
struct UpBlock {
    enlargement: Enlargement,
    block: Block,
}

impl UpBlock {
    /// From so many channels, raised to so many, joined with so many, to so many.
    fn new(mut scope: Scope<'_>, [below, raised, skip, channels]: [i64; 4]) -> Self {
        let enlargement = Enlargement::new(scope.sub("upsample.deconv"), [below, raised]);
        let block = Block::new(scope.sub("convs"), [skip + raised, channels]);
        Self { enlargement, block }
    }

    fn forward(&self, x: &Tensor, skip: &Tensor) -> Result<Tensor> {
        let mut raised = self.enlargement.forward(x);
        let (found, wanted) = (raised.size(), skip.size());
        if found[2..] != wanted[2..] {
            let [below, right] = [2, 3].map(|axis| wanted[axis] - found[axis]);
            raised = raised.replication_pad2d([0, right, 0, below]);
        }
        self.block.forward(&Tensor::cat(&[skip, &raised], 1))
    }
}

/// The network: 31 384 385 parameters for 3 channels, of which 33 024 are of a head that nothing calls.
#[derive(Debug)]
pub struct BasicUNet {
    /// Finest first.
    down: Vec<Block>,
    /// Coarsest first.
    up: Vec<UpBlock>,
    last: Convolution,
    classifier: Convolution,
}

impl BasicUNet {
    /// Registers `encoder.*`, `head.*`, which is kept as it was drawn, and `classifier.*`. `features` are channels as
    /// [`FEATURES`], multiples of [`GROUPS`].
    pub fn new(scope: &mut Scope<'_>, channels_in: i64, features: [i64; 6]) -> Self {
        let one = PerAxis::Two([1; 2]);
        let [finest, second, .., out] = features;
        let mut encoder = scope.sub("encoder");
        let mut before = channels_in;
        let levels = features[..5].iter().enumerate().map(|(level, &channels)| {
            let name = match level {
                0 => "conv_0".to_owned(),
                _ => format!("down_{level}.convs"),
            };
            let block = Block::new(encoder.sub(&name), [before, channels]);
            before = channels;
            block
        });
        let down = levels.collect();
        let halving = (1..4).rev().map(|level| {
            let (below, channels) = (features[level + 1], features[level]);
            let name = format!("upcat_{}", level + 1);
            UpBlock::new(encoder.sub(&name), [below, channels, channels, channels])
        });
        let mut up: Vec<UpBlock> = halving.collect();
        up.push(UpBlock::new(encoder.sub("upcat_1"), [second, second, finest, out]));
        let last = Convolution::new(&mut encoder.sub("final_conv"), [out; 2], one);
        let bound = 1.0 / (out as f64).sqrt();
        for name in ["head.0", "head.2"] {
            let mut head = scope.sub(name);
            head.unused("weight", &[out, out, 1, 1], bound);
            head.unused("bias", &[out], bound);
        }
        let classifier = Convolution::new(&mut scope.sub("classifier"), [out, 1], one);
        Self { down, up, last, classifier }
    }

    /// Features `[N, channels, H, W]`, in the precision of the weights, of images `[N, channels_in, H, W]` of at
    /// least [`SMALLEST`] rows and columns.
    pub fn features(&self, image: &Tensor) -> Result<Tensor> {
        refuse_extents(image)?;
        let mut x = native::channels_last(image)?;
        let mut skips = Vec::with_capacity(self.down.len());
        for block in &self.down {
            if !skips.is_empty() {
                x = x.max_pool2d([2; 2], [2; 2], [0; 2], [1; 2], false);
            }
            x = block.forward(&x)?;
            skips.push(x.shallow_clone());
        }
        for (up, skip) in self.up.iter().zip(skips.iter().rev().skip(1)) {
            x = up.forward(&x, skip)?;
        }
        Ok(self.last.forward(&x).to_kind(self.last.weight.kind()))
    }

    /// Logits `[N, 1, H, W]` of features, in the precision of the weights.
    pub fn classify(&self, features: &Tensor) -> Tensor {
        self.classifier.forward(features).to_kind(self.classifier.weight.kind())
    }

    /// Features with what their neighbours that are alike pass on to them: [`native::propagate`].
    pub fn propagate(&self, features: &Tensor) -> Result<Tensor> {
        native::propagate(features, Form::Own)
    }
}

fn refuse_extents(image: &Tensor) -> Result<()> {
    match *image.size().as_slice() {
        [_, _, height, width] if height.min(width) >= SMALLEST as i64 => Ok(()),
        _ => Err(Failure::new(format!(
            "expected images [N, C, H, W] of at least {SMALLEST} rows and columns, found {:?}",
            image.size()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Parameters;
    use crate::random::Key;
    use tch::{Device, Kind};

    const SMALL: [i64; 6] = [4, 8, 8, 16, 16, 8];

    #[test]
    fn names_shapes_and_numbers_of_parameters_are_the_published_ones() {
        for (channels, expected) in [(3, 31_384_385), (1, 31_383_233)] {
            let mut parameters = Parameters::new(Key::new(0), Kind::Float, Device::Cpu);
            let _ = BasicUNet::new(&mut parameters.root(), channels, FEATURES);
            let entries = parameters.entries();
            let count: usize = entries.iter().map(|entry| entry.tensor.numel()).sum();
            assert_eq!(count, expected);
            assert_eq!(expected - parameters.trainable_count(), 33_024, "the head");
            let of = |number: usize| (entries[number].name.as_str(), entries[number].tensor.size());
            assert_eq!(of(0), ("encoder.conv_0.conv_0.conv.weight", vec![64, channels, 3, 3]));
            assert_eq!(of(3), ("encoder.conv_0.conv_0.adn.N.bias", vec![64]));
            assert_eq!(of(8), ("encoder.down_1.convs.conv_0.conv.weight", vec![128, 64, 3, 3]));
            assert_eq!(of(40), ("encoder.upcat_4.upsample.deconv.weight", vec![1024, 512, 2, 2]));
            assert_eq!(of(70), ("encoder.upcat_1.upsample.deconv.weight", vec![128, 128, 2, 2]));
            assert_eq!(of(72), ("encoder.upcat_1.convs.conv_0.conv.weight", vec![128, 192, 3, 3]));
            let names: Vec<&str> = entries[80..].iter().map(|entry| entry.name.as_str()).collect();
            assert_eq!(
                names,
                [
                    "encoder.final_conv.weight",
                    "encoder.final_conv.bias",
                    "head.0.weight",
                    "head.0.bias",
                    "head.2.weight",
                    "head.2.bias",
                    "classifier.weight",
                    "classifier.bias",
                ]
            );
        }
    }

    #[test]
    fn images_of_odd_sizes_get_a_logit_for_each_pixel_and_smaller_ones_are_refused() {
        let mut parameters = Parameters::new(Key::new(0), Kind::Double, Device::Cpu);
        let net = BasicUNet::new(&mut parameters.root(), 2, SMALL);
        let of = |samples: i64, height: i64, width: i64| {
            let count = samples * 2 * height * width;
            let image = Tensor::arange(count, (Kind::Double, Device::Cpu)).sin();
            let features = net.features(&image.view([samples, 2, height, width]))?;
            Ok::<_, Failure>(net.classify(&net.propagate(&features)?))
        };
        for [height, width] in [[16, 16], [17, 31], [33, 40]] {
            let logits = of(2, height, width).unwrap();
            assert_eq!(logits.size(), [2, 1, height, width]);
            // A sample does not see what stands beside it.
            let alone = of(1, height, width).unwrap();
            assert!(logits.narrow(0, 0, 1).allclose(&alone, 1e-10, 1e-10, false));
            assert!(logits.std(true).double_value(&[]) > 1e-4);
        }
        let none = of(0, 16, 16).unwrap();
        none.sum(Kind::Double).backward();
        assert_eq!(none.size(), [0, 1, 16, 16]);
        let refused = of(1, 15, 16).unwrap_err();
        assert!(refused.message().ends_with("found [1, 2, 15, 16]"), "{refused}");
    }
}
