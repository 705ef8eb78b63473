//! The network over two modalities that are not registered: one encoder for both, features of both fused at its
//! bottom, one decoder for both. `Semi_SM_model_MIA.py` of med-air/CMC at cb8dd11.
//!
//! Names, initialisation and shapes are the reference's; how wide it is and how many classes it tells apart is free.
//! Ranks and the kind of pass come in as arguments. Training normalises by the statistics of the batch of one
//! modality over all ranks; so does the reference everywhere, and here each sample is normalised by its own outside
//! of training, so that no prediction depends on what is predicted beside it. Running statistics, which would be
//! those of both modalities together, are kept and never used.

mod layers;

use super::{Convolution, Pass, PerAxis};
use crate::error::{Failure, Result};
use crate::native;
use crate::parameters::Scope;
use layers::{Layer, Level, Up};
use tch::Tensor;

/// Channels of the first convolution as published; the deepest features have sixteen times as many.
pub const WIDTH: i64 = 32;
/// Voxels along an axis of which the deepest level makes one.
pub const DIVISOR: usize = 8;
/// Groups of channels that are normalised together between attention and decoder.
const GROUPS: i64 = 16;
/// The names of the levels, finest first: their channels where the network is as wide as published.
const LEVELS: [&str; 4] = ["64", "128", "256", "512"];

/// Whether the network takes volumes of so many slices, rows and columns: multiples of 8, and 16 along one axis, so
/// that a sample has something to be normalised by at its deepest level.
pub fn takes(extent: [usize; 3]) -> bool {
    let is_whole = extent.iter().all(|&extent| extent > 0 && extent.is_multiple_of(DIVISOR));
    is_whole && extent.iter().any(|&extent| extent > DIVISOR)
}

/// How each channel is told from the others, `[N, C, ...]` from `[N, C, ...]`:
/// `gamma softmax(-X Xᵀ) X + X` with `X` the features of a sample as `[C, voxels]`; `gamma` is `[1]`.
///
/// The reference takes the softmax of `max_row(E) - E` for `E = X Xᵀ`, which is the same: a softmax forgets what is
/// added to a whole row.
pub fn attend(x: &Tensor, gamma: &Tensor) -> Tensor {
    let channels = x.flatten(2, -1);
    let energy = channels.bmm(&channels.transpose(1, 2));
    let attention = (-energy).softmax(-1, channels.kind());
    attention.bmm(&channels).view_as(x) * gamma + x
}

/// What the encoder makes of volumes of one modality.
struct Encoded {
    /// Of the levels above the deepest, finest first.
    skips: Vec<Tensor>,
    /// The deepest, `[N, 16 width, D / 8, H / 8, W / 8]`, in the precision of the weights.
    features: Tensor,
    /// What they become by attention between their channels.
    attended: Tensor,
}

#[derive(Debug)]
struct Encoder(Vec<Level>);

impl Encoder {
    fn new(mut scope: Scope<'_>, width: i64) -> Self {
        let mut before = 1;
        let levels = LEVELS.iter().zip(0..).map(|(name, number)| {
            let half = width << number;
            let mut scope = scope.sub(&format!("down_tr{name}"));
            let level = Level::new(&mut scope, [before, half, 2 * half]);
            before = 2 * half;
            level
        });
        Self(levels.collect())
    }

    /// Features of the levels above the deepest, finest first, and of the deepest.
    fn forward(&self, image: &Tensor, pass: &Pass) -> Result<(Vec<Tensor>, Tensor)> {
        let mut skips = Vec::with_capacity(self.0.len());
        let mut x = native::channels_last(image)?;
        for (number, level) in self.0.iter().enumerate() {
            if number > 0 {
                let pooled = x.max_pool3d([2; 3], [2; 3], [0; 3], [1; 3], false);
                skips.push(std::mem::replace(&mut x, pooled));
            }
            x = level.forward(&x, pass)?;
        }
        Ok((skips, x))
    }
}

#[derive(Debug)]
struct Decoder {
    /// Coarsest first.
    levels: Vec<Up>,
    out: Convolution,
}

impl Decoder {
    fn new(mut scope: Scope<'_>, width: i64, classes: i64) -> Self {
        let levels = (0..LEVELS.len() - 1).rev().map(|number| {
            let channels = width << (number + 1);
            Up::new(scope.sub(&format!("up_tr{}", LEVELS[number])), [2 * channels, channels])
        });
        let levels = levels.collect();
        let (channels, taps) = ([2 * width, classes], PerAxis::Three([1; 3]));
        Self { levels, out: Convolution::new(&mut scope.sub("out_tr.conv.conv"), channels, taps) }
    }

    fn forward(&self, deepest: &Tensor, skips: &[Tensor], pass: &Pass) -> Result<Tensor> {
        let mut x = deepest.shallow_clone();
        for (level, skip) in self.levels.iter().zip(skips.iter().rev()) {
            x = level.forward(&x, skip, pass)?;
        }
        self.out.forward_wide(&x, pass)
    }
}

/// Features of two volumes to what they have in common, in (0, 1).
#[derive(Debug)]
struct Fusion([Layer; 2]);

impl Fusion {
    fn new(mut scope: Scope<'_>, channels: i64) -> Self {
        let first = Layer::new(scope.sub("layer1"), [2 * channels, channels]);
        Self([first, Layer::new(scope.sub("layer2"), [channels; 2])])
    }

    fn forward(&self, features: [&Tensor; 2], pass: &Pass) -> Result<Tensor> {
        let joined = self.0[0].forward(&Tensor::cat(&features, 1), pass)?;
        Ok(self.0[1].forward(&joined, pass)?.sigmoid())
    }
}

/// What is fused and what a modality attends to, normalised in groups of channels and put together.
#[derive(Debug)]
struct Conversion {
    weight: Tensor,
    bias: Tensor,
    out: Convolution,
}

impl Conversion {
    fn new(mut scope: Scope<'_>, channels: i64) -> Self {
        let mut normalised = scope.sub("0");
        let weight = normalised.constant("weight", &[2 * channels], 1.0);
        let bias = normalised.constant("bias", &[2 * channels], 0.0);
        let (ends, taps) = ([2 * channels, channels], PerAxis::Three([1; 3]));
        Self { weight, bias, out: Convolution::new(&mut scope.sub("2"), ends, taps) }
    }

    fn forward(&self, fused: &Tensor, attended: &Tensor, pass: &Pass) -> Result<Tensor> {
        let x = Tensor::cat(&[fused, attended], 1).to_kind(self.weight.kind());
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        self.out.forward_in(&x.group_norm(GROUPS, weight, bias, 1e-5, false).relu(), pass)
    }
}

/// With what the features of a modality are fused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FusedWith {
    /// With those of the other modality.
    Partner,
    /// With themselves: the other modality is not looked at.
    Itself,
}

/// What the network makes of volumes of one modality.
#[derive(Debug)]
pub struct Seen {
    /// The deepest features before attention, `[N, 16 width, D / 8, H / 8, W / 8]`, in the precision of the weights.
    pub features: Tensor,
    /// `[N, classes, D, H, W]`.
    pub logits: Tensor,
}

/// The network: 40 838 095 parameters where it is as wide as published and tells 14 classes apart.
#[derive(Debug)]
pub struct CrossModality {
    encoder: Encoder,
    decoder: Decoder,
    gamma: Tensor,
    fusion: Fusion,
    conversion: Conversion,
}

impl CrossModality {
    /// Registers `image_encoder.*`, `decoder.*`, `MIA_module.gamma`, `fusion_layer.*` and `conv3d_convert.*`. `width`
    /// are the channels of the first convolution, [`WIDTH`] as published.
    pub fn new(scope: &mut Scope<'_>, width: i64, classes: i64) -> Self {
        let deepest = 2 * width << (LEVELS.len() - 1);
        Self {
            encoder: Encoder::new(scope.sub("image_encoder"), width),
            decoder: Decoder::new(scope.sub("decoder"), width, classes),
            gamma: scope.sub("MIA_module").constant("gamma", &[1], 0.0),
            fusion: Fusion::new(scope.sub("fusion_layer"), deepest),
            conversion: Conversion::new(scope.sub("conv3d_convert"), deepest),
        }
    }

    /// What it makes of volumes `[N, 1, D, H, W]` of two modalities, of which those of one number belong together
    /// where each is fused with its partner.
    pub fn forward(&self, images: [&Tensor; 2], with: FusedWith, pass: &Pass) -> Result<[Seen; 2]> {
        let first = self.encoded(images[0], pass)?;
        let second = self.encoded(images[1], pass)?;
        let of = |pair: [&Encoded; 2]| self.fused(pair, pass);
        let fused = match with {
            FusedWith::Partner => {
                let fused = of([&first, &second])?;
                [fused.shallow_clone(), fused]
            }
            FusedWith::Itself => [of([&first; 2])?, of([&second; 2])?],
        };
        Ok([self.seen(first, &fused[0], pass)?, self.seen(second, &fused[1], pass)?])
    }

    /// Logits `[N, classes, D, H, W]` of volumes `[N, 1, D, H, W]` of whichever modality, fused with themselves.
    pub fn segment(&self, image: &Tensor, pass: &Pass) -> Result<Tensor> {
        let encoded = self.encoded(image, pass)?;
        let fused = self.fused([&encoded; 2], pass)?;
        Ok(self.seen(encoded, &fused, pass)?.logits)
    }

    fn encoded(&self, image: &Tensor, pass: &Pass) -> Result<Encoded> {
        let size = image.size();
        let extent = size.iter().skip(2).map(|&extent| extent as usize).collect::<Vec<_>>();
        if size.get(1) != Some(&1) || !<[usize; 3]>::try_from(extent).is_ok_and(takes) {
            return Err(Failure::new(format!(
                "the network takes volumes [N, 1, D, H, W] of multiples of {DIVISOR} voxels along each axis, \
                 {} along one, found {size:?}",
                2 * DIVISOR
            )));
        }
        let (skips, deepest) = self.encoder.forward(image, pass)?;
        // Products of features over all voxels are too large for short numbers.
        let features = deepest.to_kind(self.gamma.kind());
        let attended = attend(&features, &self.gamma);
        Ok(Encoded { skips, features, attended })
    }

    fn fused(&self, pair: [&Encoded; 2], pass: &Pass) -> Result<Tensor> {
        self.fusion.forward(pair.map(|encoded| &encoded.attended), pass)
    }

    fn seen(&self, encoded: Encoded, fused: &Tensor, pass: &Pass) -> Result<Seen> {
        let Encoded { skips, features, attended } = encoded;
        let converted = self.conversion.forward(fused, &attended, pass)?;
        Ok(Seen { logits: self.decoder.forward(&converted, &skips, pass)?, features })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::Alone;
    use crate::parameters::{Flat, Leaves, Parameters};
    use crate::random::Key;
    use std::sync::Arc;
    use tch::{Device, Kind};

    const WIDE: i64 = 2;

    fn wave(extents: &[i64], rate: f64) -> Tensor {
        let numbers = Tensor::arange(extents.iter().product::<i64>(), (Kind::Double, Device::Cpu));
        (numbers * rate).sin().view(extents)
    }

    fn train() -> Pass {
        Pass::Train { group: Arc::new(Alone), keys: None, moves: 1 }
    }

    fn network(kind: Kind) -> (Parameters, CrossModality) {
        let mut parameters = Parameters::new(Key::new(3), kind, Device::Cpu);
        let net = CrossModality::new(&mut parameters.root(), WIDE, 3);
        let _ = tch::no_grad(|| net.gamma.shallow_clone().fill_(0.7));
        (parameters, net)
    }

    /// One after the other, as reference to what comes together.
    fn buffers(parameters: &Parameters) -> Vec<Tensor> {
        parameters.entries().iter().map(|entry| entry.tensor.copy()).collect()
    }

    #[test]
    fn predictions_depend_neither_on_what_stands_beside_nor_on_what_was_before() {
        let (parameters, net) = network(Kind::Double);
        let image = wave(&[3, 1, 8, 16, 8], 0.37);
        let before = buffers(&parameters);
        let all = tch::no_grad(|| net.segment(&image, &Pass::Evaluate)).unwrap();
        for sample in 0..3 {
            let alone = tch::no_grad(|| net.segment(&image.narrow(0, sample, 1), &Pass::Evaluate));
            let apart = (alone.unwrap() - all.narrow(0, sample, 1)).abs().max().double_value(&[]);
            assert!(apart < 1e-12, "{sample}: {apart:e}");
        }
        let _ = tch::no_grad(|| net.segment(&(&image * f64::NAN), &Pass::Evaluate)).unwrap();
        assert!(buffers(&parameters).iter().zip(&before).all(|(now, then)| now.equal(then)));
        // Of one sample the statistics are those of its batch.
        let one = image.narrow(0, 0, 1);
        let trained = net.segment(&one, &train()).unwrap();
        let apart = (trained - all.narrow(0, 0, 1)).abs().max().double_value(&[]);
        assert!(apart < 1e-10, "{apart:e}");
    }

    #[test]
    fn a_volume_that_is_its_own_partner_is_fused_with_itself() {
        let (_, net) = network(Kind::Double);
        let (image, other) = (wave(&[2, 1, 8, 16, 8], 0.37), wave(&[2, 1, 8, 16, 8], 0.71));
        let both = |images, with| net.forward(images, with, &train()).unwrap();
        let [own, _] = both([&image, &image], FusedWith::Partner);
        let [alone, of_other] = both([&image, &other], FusedWith::Itself);
        let [paired, _] = both([&image, &other], FusedWith::Partner);
        assert!(own.logits.equal(&alone.logits) && !own.logits.equal(&paired.logits));
        assert!(own.features.equal(&paired.features));
        assert!(net.segment(&other, &train()).unwrap().equal(&of_other.logits));
    }

    #[test]
    fn biases_in_front_of_normalisations_get_no_gradient_and_all_else_does() {
        let (parameters, net) = network(Kind::Double);
        let flat = Flat::new(&parameters);
        let (image, other) = (wave(&[2, 1, 8, 16, 8], 0.37), wave(&[2, 1, 8, 16, 8], 0.71));
        let [first, second] = net.forward([&image, &other], FusedWith::Partner, &train()).unwrap();
        let sum = (first.logits * wave(&[2, 3, 8, 16, 8], 0.3)).sum(Kind::Double)
            + second.logits.square().sum(Kind::Double);
        sum.backward();
        let gradients = flat.gradients();
        Leaves::of(&parameters, &flat).gather_all(&gradients, false).unwrap();
        for slot in &flat.slots {
            let moves = slot.view(&gradients).abs().max().double_value(&[]) > 0.0;
            assert_eq!(moves, !slot.name.ends_with("conv1.bias"), "{}", slot.name);
        }
    }

    #[test]
    fn a_rank_without_samples_has_outcomes_and_gradients_of_nothing() {
        let (parameters, net) = network(Kind::Double);
        let flat = Flat::new(&parameters);
        let none = Tensor::zeros([0, 1, 8, 16, 8], (Kind::Double, Device::Cpu));
        for with in [FusedWith::Partner, FusedWith::Itself] {
            let [first, second] = net.forward([&none, &none], with, &train()).unwrap();
            assert_eq!(first.logits.size(), [0, 3, 8, 16, 8]);
            (first.logits.sum(Kind::Double) + second.features.sum(Kind::Double)).backward();
        }
        let gradients = flat.gradients();
        Leaves::of(&parameters, &flat).gather_all(&gradients, false).unwrap();
        assert!(gradients.equal(&gradients.zeros_like()));
    }

    #[test]
    fn volumes_that_levels_do_not_divide_are_refused() {
        let (_, net) = network(Kind::Float);
        for extent in [[8, 8, 8], [12, 16, 16], [1, 64, 64]] {
            assert!(!takes(extent.map(|extent| extent as usize)));
            let image = wave(&[&[1, 1], &extent[..]].concat(), 0.37).to_kind(Kind::Float);
            assert!(net.segment(&image, &Pass::Evaluate).is_err());
        }
        let colour = wave(&[1, 3, 8, 16, 16], 0.37).to_kind(Kind::Float);
        insta::assert_snapshot!(net.segment(&colour, &Pass::Evaluate).unwrap_err().message(), @"the network takes volumes [N, 1, D, H, W] of multiples of 8 voxels along each axis, 16 along one, found [1, 3, 8, 16, 16]");
    }

    #[test]
    fn convolutions_may_compute_in_bf16() {
        let (image, other) = (wave(&[2, 1, 16, 16, 16], 0.37), wave(&[2, 1, 16, 16, 16], 0.71));
        let images = [image, other].map(|image| image.to_kind(Kind::Float));
        let [exact, rounded] = [Kind::Float, Kind::BFloat16].map(|computed| {
            let parameters = Parameters::new(Key::new(0), Kind::Float, Device::Cpu);
            let mut parameters = parameters.computing_in(computed);
            let net = CrossModality::new(&mut parameters.root(), 4, 3);
            let flat = Flat::new(&parameters);
            let [first, _] = net.forward(images.each_ref(), FusedWith::Partner, &train()).unwrap();
            assert_eq!([first.logits.kind(), first.features.kind()], [Kind::Float; 2]);
            first.logits.square().mean(Kind::Float).backward();
            let gradients = flat.gradients();
            Leaves::of(&parameters, &flat).gather_all(&gradients, false).unwrap();
            first.logits.detach()
        });
        let apart = (&rounded - &exact).norm() / exact.norm();
        assert!(apart.double_value(&[]) < 0.1, "{apart}");
    }
}
