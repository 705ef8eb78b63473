//! Discriminators: networks that tell real label maps from predicted ones.
//!
//! Shapes, names and initialisation follow lichen14/MaskMixAdv `code/networks/discriminator.py` at
//! cf584ee. Knows no loss and no opponent.

use super::Convolution;
use super::spectral::{Power, SpectralNorm, divided};
use crate::error::Result;
use crate::native::{channels_last, leaky_relu};
use crate::parameters::Scope;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Channels after each hidden layer.
const CHANNELS: [i64; 4] = [64, 128, 256, 512];
/// Factor of negative values.
const SLOPE: f64 = 0.2;

/// Which discriminator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judge {
    /// Judges patches: five strided convolutions, one logit for each 32 x 32 pixels. The released one.
    #[default]
    Patches,
    /// Judges whole maps: instance normalisation after the second to fourth convolution, one logit
    /// for each sample. That of earlier versions of the code.
    Wholes,
}

/// A convolutional discriminator: 2 762 689 parameters for one input channel, of either kind.
#[derive(Debug)]
pub struct Discriminator {
    layers: Vec<Convolution>,
    /// One for each layer, or none.
    norms: Vec<SpectralNorm>,
    power: Power,
    judge: Judge,
}

impl Discriminator {
    /// Registers `0.weight`, `0.bias`, `2.weight` and so on to `8.bias`; with `spectral_norm` also two
    /// buffers for each weight.
    pub fn new(scope: &mut Scope<'_>, channels_in: i64, judge: Judge, spectral_norm: bool) -> Self {
        let strides = match judge {
            Judge::Patches => [2, 2, 2, 2, 2],
            Judge::Wholes => [2, 2, 2, 1, 1],
        };
        let mut before = channels_in;
        let (mut layers, mut norms) = (Vec::new(), Vec::new());
        for (number, (&channels, stride)) in CHANNELS.iter().chain(&[1]).zip(strides).enumerate() {
            let mut scope = scope.sub(&(2 * number).to_string());
            layers.push(Convolution::patchwise(&mut scope, [before, channels], stride));
            if spectral_norm {
                norms.push(SpectralNorm::new(&mut scope, channels, 16 * before));
            }
            before = channels;
        }
        Self { layers, norms, power: Power::Iterate, judge }
    }

    /// Logits, positive for real, of maps `[N, channels_in, H, W]`: `[N, 1, H / 32, W / 32]` of
    /// patches, `[N, 1]` of wholes.
    pub fn forward(&self, maps: &Tensor) -> Result<Tensor> {
        let weights = self.weights()?;
        let mut x = channels_last(maps)?;
        for (number, (layer, weight)) in self.layers.iter().zip(&weights).enumerate() {
            x = layer.forward_with(&x, weight);
            let hidden = number + 1 < self.layers.len();
            if self.judge == Judge::Wholes && hidden && number > 0 {
                x = instance_norm(&x);
            }
            if hidden {
                x = leaky_relu(&x, SLOPE)?;
            }
        }
        let x = x.to_kind(maps.kind());
        Ok(match self.judge {
            Judge::Patches => x,
            Judge::Wholes => x.mean_dim([2i64, 3].as_slice(), false, x.kind()),
        })
    }

    /// What the layers multiply with.
    fn weights(&self) -> Result<Vec<Tensor>> {
        if self.norms.is_empty() {
            return Ok(self.layers.iter().map(|layer| layer.computed[0].shallow_clone()).collect());
        }
        let raw = self.layers.iter().map(|layer| &layer.weight);
        let weights: Vec<_> = self.norms.iter().zip(raw).map(|(norm, raw)| norm.of(raw)).collect();
        divided(&weights, self.power)
    }

    /// The same discriminator with the same values, whose weights take no gradient and whose
    /// spectral norms stand still.
    #[must_use]
    pub fn frozen(&self) -> Self {
        Self {
            layers: self.layers.iter().map(Convolution::frozen).collect(),
            norms: self.norms.iter().map(SpectralNorm::share).collect(),
            power: Power::Hold,
            judge: self.judge,
        }
    }
}

/// Each channel of each sample to mean 0 and variance 1.
fn instance_norm(x: &Tensor) -> Tensor {
    let (variance, mean) = x.var_mean_dim([2i64, 3].as_slice(), false, true);
    (x - mean) / (variance + 1e-5).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Parameters;
    use crate::random::Key;
    use tch::{Device, Kind};

    fn discriminator(judge: Judge, spectral_norm: bool) -> (Parameters, Discriminator) {
        let mut parameters = Parameters::new(Key::new(1), Kind::Double, Device::Cpu);
        let net = Discriminator::new(&mut parameters.root(), 1, judge, spectral_norm);
        (parameters, net)
    }

    /// The weight of a layer, its norm held after so many passes.
    fn weight_after(net: &Discriminator, layer: usize, passes: usize) -> Tensor {
        let weight = [net.norms[layer].of(&net.layers[layer].weight)];
        (0..passes).for_each(|_| drop(divided(&weight, Power::Iterate).unwrap()));
        divided(&weight, Power::Hold).unwrap().remove(0)
    }

    #[test]
    fn both_kinds_have_the_published_size_and_output() {
        let maps = Tensor::zeros([2, 1, 64, 96], (Kind::Double, Device::Cpu));
        for (judge, size) in [(Judge::Patches, vec![2, 1, 2, 3]), (Judge::Wholes, vec![2, 1])] {
            let (parameters, net) = discriminator(judge, false);
            assert_eq!(parameters.trainable_count(), 2_762_689);
            assert_eq!(net.forward(&maps).unwrap().size(), size);
        }
    }

    #[test]
    fn a_frozen_discriminator_answers_alike_and_learns_nothing() {
        let (parameters, net) = discriminator(Judge::Patches, true);
        let maps = Tensor::rand([1, 1, 64, 64], (Kind::Double, Device::Cpu));
        (0..5).for_each(|layer| drop(weight_after(&net, layer, 40)));
        let maps = maps.set_requires_grad(true);
        let frozen = net.frozen().forward(&maps).unwrap();
        // One power iteration more still moves a norm by a trifle.
        assert!(frozen.allclose(&net.forward(&maps).unwrap(), 1e-2, 1e-3, false));
        frozen.sum(Kind::Double).backward();
        assert!(maps.grad().abs().max().double_value(&[]) > 0.0);
        let learned = parameters.entries().iter().any(|entry| entry.tensor.grad().defined());
        assert!(!learned, "a gradient reached a frozen weight");
    }

    #[test]
    fn a_spectrally_normalised_weight_has_largest_singular_value_one() {
        let (parameters, net) = discriminator(Judge::Patches, true);
        let weight = weight_after(&net, 1, 500);
        let largest = weight.flatten(1, -1).svd(true, false).1.max().double_value(&[]);
        assert!((largest - 1.0).abs() < 1e-3, "{largest}");
        assert_eq!(parameters.entries().len(), 20);
    }
}
