//! The U-Net of CycleMix: convolutions without padding inside, and probabilities come out.
//!
//! Names, initialisation and order of layers follow BWGZK/CycleMix at 7674830. An image is padded once, by what the
//! convolutions take away again, and features on the way down are cropped to those that come up.

use super::normalised::BatchNormalisation;
use super::{Convolution, MOMENTUM, Pass, PerAxis, Step};
use crate::error::{Failure, Result};
use crate::native::{self, Form, Normalisation};
use crate::parameters::Scope;
use tch::Tensor;

/// Channels of the levels, finest first.
const CHANNELS: [i64; 5] = [64, 128, 256, 512, 1024];
/// Channels that come up to a level from the next coarser one, finest first. The 4 are those of the published
/// network, which was written for 4 classes; they are the same for any number of classes.
const RAISED: [i64; 4] = [64, 128, 4, 4];
/// Zeros around an image, in pixels: half of what the convolutions take away.
const MARGIN: i64 = 92;
/// By how much all poolings divide an extent.
const DIVIDED_BY: i64 = 16;
/// What an extent has more than a multiple of that, so that every pooling meets an even extent.
const REST: i64 = 4;

/// The normalisation in the middle of blocks.
const USUAL: Normalisation =
    Normalisation { momentum: MOMENTUM, epsilon: 1e-5, slope: 1.0, dropout: 0.0, form: Form::Own };
/// The one at the ends of blocks and of the network, whose running statistics move more slowly.
const SLOW: Normalisation = Normalisation { momentum: 0.01, epsilon: 1e-3, ..USUAL };

/// A convolution, what it gives rectified, and that normalised.
#[derive(Debug)]
struct Layer {
    convolution: Convolution,
    normalisation: BatchNormalisation,
}

impl Layer {
    /// With 3 x 3 taps and so many zeros around the image.
    fn new(
        scope: &mut Scope<'_>,
        names: [&str; 2],
        channels: [i64; 2],
        padding: i64,
        settings: Normalisation,
    ) -> Self {
        let convolution =
            Convolution::new(&mut scope.sub(names[0]), channels, PerAxis::Two([3; 2]));
        Self {
            convolution: convolution.stepping(Step::square(1, padding)),
            normalisation: BatchNormalisation::new(
                &mut scope.sub(names[1]),
                channels[1],
                None,
                settings,
            ),
        }
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        // In place: no gradient needs what was below 0.
        let rectified = self.convolution.forward(x).relu_();
        self.normalisation.forward(&rectified, pass)
    }
}

/// Twice: convolution without padding, rectification, normalisation; 4 pixels of each extent are lost.
#[derive(Debug)]
struct ConvBlock {
    first: Layer,
    second: Layer,
}

impl ConvBlock {
    fn new(mut scope: Scope<'_>, [channels_in, channels_out]: [i64; 2]) -> Self {
        let mut scope = scope.sub("conv");
        let (first, second) = ([channels_in, channels_out], [channels_out; 2]);
        Self {
            first: Layer::new(&mut scope, ["0", "2"], first, 0, USUAL),
            second: Layer::new(&mut scope, ["3", "5"], second, 0, SLOW),
        }
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.second.forward(&self.first.forward(x, pass)?, pass)
    }
}

/// One step up: enlarge, convolve, join the cropped skip connection, convolve.
#[derive(Debug)]
struct UpBlock {
    raise: Layer,
    block: ConvBlock,
}

impl UpBlock {
    fn forward(&self, x: &Tensor, skip: &Tensor, pass: &Pass) -> Result<Tensor> {
        let size = x.size();
        let enlarged = x.upsample_nearest2d([2 * size[2], 2 * size[3]], None, None);
        let raised = self.raise.forward(&enlarged, pass)?;
        self.block.forward(&Tensor::cat(&[&raised, &middle(skip, &raised)], 1), pass)
    }
}

/// The middle of `x`, of as many rows and columns as `like` has.
fn middle(x: &Tensor, like: &Tensor) -> Tensor {
    [2i64, 3].into_iter().fold(x.shallow_clone(), |x, axis| {
        let [extent, kept] = [&x, like].map(|maps| maps.size()[axis as usize]);
        x.narrow(axis, (extent - kept) / 2, kept)
    })
}

/// The U-Net of CycleMix: 25 759 396 parameters for 1 channel and 4 classes.
#[derive(Debug)]
pub struct ValidUNet {
    /// Finest first.
    down: Vec<ConvBlock>,
    /// Coarsest first.
    up: Vec<UpBlock>,
    out: Convolution,
    normalisation: BatchNormalisation,
}

impl ValidUNet {
    /// Registers `UNet.Conv1.*` to `UNet.Conv5.*`, `UNet.Up4.*`, `UNet.Up_conv4.*` and so on up, `UNet.Conv.*` and
    /// `UNet.Norm.*`.
    pub fn new(scope: &mut Scope<'_>, channels_in: i64, classes: i64) -> Self {
        let mut scope = scope.sub("UNet");
        let mut before = channels_in;
        let down = (1..).zip(CHANNELS).map(|(number, channels)| {
            let block = ConvBlock::new(scope.sub(&format!("Conv{number}")), [before, channels]);
            before = channels;
            block
        });
        let down = down.collect();
        let up = (0..RAISED.len()).rev().map(|level| {
            let (number, channels, raised) = (level + 1, CHANNELS[level], RAISED[level]);
            let mut of_raise = scope.sub(&format!("Up{number}"));
            let from = [CHANNELS[level + 1], raised];
            let raise = Layer::new(&mut of_raise.sub("up"), ["1", "3"], from, 1, SLOW);
            let joined = [raised + channels, channels];
            let block = ConvBlock::new(scope.sub(&format!("Up_conv{number}")), joined);
            UpBlock { raise, block }
        });
        let up = up.collect();
        let channels = [CHANNELS[0], classes];
        let one = PerAxis::Two([1; 2]);
        let out = Convolution::registered(
            &mut scope.sub("Conv"),
            channels,
            one,
            [Scope::uniform, Scope::absorbed],
        );
        let normalisation =
            BatchNormalisation::new(&mut scope.sub("Norm"), classes, Some(&out.bias), SLOW);
        Self { down, up, out, normalisation }
    }

    /// Class probabilities `[N, classes, H, W]`, in the precision of the weights, of images `[N, channels_in, H, W]`
    /// whose H and W are each 4 more than a multiple of 16.
    pub fn forward(&self, image: &Tensor, pass: &Pass) -> Result<Tensor> {
        let logits = self.logits(image, pass)?;
        Ok(logits.softmax(1, logits.kind()))
    }

    /// What [`ValidUNet::forward`] takes the softmax of.
    pub fn logits(&self, image: &Tensor, pass: &Pass) -> Result<Tensor> {
        refuse_extents(image)?;
        let mut x = native::channels_last(&image.constant_pad_nd([MARGIN; 4]))?;
        let mut skips = Vec::with_capacity(self.down.len());
        for block in &self.down {
            if !skips.is_empty() {
                x = x.max_pool2d([2; 2], [2; 2], [0; 2], [1; 2], false);
            }
            x = block.forward(&x, pass)?;
            skips.push(x.shallow_clone());
        }
        for (up, skip) in self.up.iter().zip(skips.iter().rev().skip(1)) {
            x = up.forward(&x, skip, pass)?;
        }
        let logits = self.out.forward_unbiased(&x).to_kind(self.out.weight.kind());
        self.normalisation.forward(&logits, pass)
    }
}

fn refuse_extents(image: &Tensor) -> Result<()> {
    let size = image.size();
    match *size.as_slice() {
        [_, _, rows, columns] if [rows, columns].iter().all(|of| of % DIVIDED_BY == REST) => Ok(()),
        _ => Err(Failure::usage(format!(
            "the network takes images [N, C, H, W] whose rows and columns are {REST} more than a multiple of \
             {DIVIDED_BY}, as 212 is; found {size:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::Alone;
    use crate::parameters::Parameters;
    use crate::random::Key;
    use std::sync::Arc;
    use tch::{Device, Kind};

    #[test]
    fn the_network_has_the_published_tensors_in_their_order() {
        let mut parameters = Parameters::new(Key::new(1), Kind::Float, Device::Cpu);
        let _ = ValidUNet::new(&mut parameters.root(), 1, 4);
        assert_eq!(parameters.trainable_count(), 25_759_396);
        let floating = |kind| kind != Kind::Int64;
        let entries = parameters.entries().iter().filter(|entry| floating(entry.tensor.kind()));
        assert_eq!(entries.count(), 138);
        let names: Vec<&str> = parameters.entries().iter().map(|entry| &*entry.name).collect();
        let first = ["conv.0.weight", "conv.0.bias", "conv.2.weight", "conv.2.bias"];
        for (name, expected) in names.iter().zip(first) {
            assert_eq!(*name, format!("UNet.Conv1.{expected}"));
        }
        let mut modules: Vec<&str> =
            names.iter().filter_map(|name| name.split('.').nth(1)).collect();
        modules.dedup();
        let up = "Up4 Up_conv4 Up3 Up_conv3 Up2 Up_conv2 Up1 Up_conv1 Conv Norm";
        assert_eq!(modules.join(" "), format!("Conv1 Conv2 Conv3 Conv4 Conv5 {up}"));
        let shape = |name: &str| {
            parameters.entries().iter().find(|entry| entry.name == name).unwrap().tensor.size()
        };
        assert_eq!(shape("UNet.Up3.up.1.weight"), [4, 512, 3, 3]);
        assert_eq!(shape("UNet.Up_conv4.conv.0.weight"), [512, 516, 3, 3]);
        assert_eq!(shape("UNet.Up_conv3.conv.3.weight"), [256, 256, 3, 3]);
        assert_eq!(shape("UNet.Conv.weight"), [4, 64, 1, 1]);
    }

    #[test]
    fn any_extent_of_four_more_than_sixteens_gives_probabilities_and_no_other() {
        let mut parameters = Parameters::new(Key::new(1), Kind::Float, Device::Cpu);
        let net = ValidUNet::new(&mut parameters.root(), 2, 3);
        let image =
            |rows, columns| Tensor::randn([1, 2, rows, columns], (Kind::Float, Device::Cpu));
        for (rows, columns) in [(16, 20), (20, 12), (0, 4)] {
            let refused = net.forward(&image(rows, columns), &Pass::Evaluate).unwrap_err();
            assert!(refused.message().contains("4 more than a multiple of 16"), "{rows} {columns}");
        }
        let group = || Arc::new(Alone);
        for pass in [Pass::Evaluate, Pass::Statistics { group: group(), share: 0.5 }] {
            let found = tch::no_grad(|| net.forward(&image(4, 20), &pass)).unwrap();
            assert_eq!(found.size(), [1, 3, 4, 20]);
            let sums = found.sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
            assert!(sums.allclose(&sums.ones_like(), 1e-5, 1e-5, false));
        }
        // As a rank without samples meets it.
        let none = Tensor::zeros([0, 2, 4, 20], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let found =
            net.forward(&none, &Pass::Train { group: group(), keys: None, moves: 1 }).unwrap();
        found.sum(Kind::Float).backward();
        assert_eq!((found.size(), none.grad().size()), (vec![0, 3, 4, 20], none.size()));
    }
}
