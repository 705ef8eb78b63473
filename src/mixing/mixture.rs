//! Images mixed by pairs: `PuzzleMix` decides on the host, and what it decided is done where the images lie.
//!
//! Of images and saliency one grey map each comes to the host for every sample and for its partner, and one
//! share and two places for every pixel go back. Knows no ranks, no network and no loss.

use super::puzzle::{Draw, Mix, Settings, View, canvas, mix_all};
use crate::error::Result;
use crate::native::cuda::upload;
use crate::native::with_slice;
use tch::{Device, Kind, Tensor};

/// The square in whose middle images are mixed, with zeros around them.
#[derive(Debug, Clone, Copy)]
struct Frame {
    side: i64,
    rows: i64,
    columns: i64,
}

impl Frame {
    /// For maps `[..., H, W]`.
    fn around(maps: &Tensor) -> Self {
        let size = maps.size();
        let (rows, columns) = (size[size.len() - 2], size[size.len() - 1]);
        Self { side: canvas(rows as usize, columns as usize) as i64, rows, columns }
    }

    /// The rows above and the columns to the left of the images.
    fn corner(self) -> [i64; 2] {
        [(self.side - self.rows) / 2, (self.side - self.columns) / 2]
    }

    /// `[..., H, W]` to `[..., side, side]`.
    fn pad(self, maps: &Tensor) -> Tensor {
        let [above, left] = self.corner();
        let below = self.side - self.rows - above;
        maps.constant_pad_nd([left, self.side - self.columns - left, above, below])
    }

    /// `[..., side, side]` to `[..., H, W]`.
    fn crop(self, maps: &Tensor) -> Tensor {
        let [above, left] = self.corner();
        maps.narrow(-2, above, self.rows).narrow(-1, left, self.columns)
    }
}

/// How samples are mixed with their partners.
#[derive(Debug)]
pub struct Mixture {
    /// The share of the own image in every pixel, `[N, 1, H, W]` in [0, 1].
    pub shares: Tensor,
    /// Which pixel of the frame around the own image, and of that around the partner's, comes to every pixel:
    /// `[N, 2, H, W]` i64, -1 for none. `None` where all pixels stay in their places.
    sources: Option<Tensor>,
    frame: Frame,
}

impl Mixture {
    /// For images `[N, C, H, W]` with their saliency `[N, H, W]`, of the samples themselves and of their partners.
    pub fn of(
        images: [&Tensor; 2],
        saliency: [&Tensor; 2],
        settings: &Settings,
        draw: Draw,
    ) -> Result<Self> {
        let frame = Frame::around(images[0]);
        let views = tch::no_grad(|| {
            let grey = images.map(|image| image.mean_dim([1i64].as_slice(), false, image.kind()));
            let maps = [&grey[0], saliency[0], &grey[1], saliency[1]];
            let maps = frame.pad(&Tensor::stack(&maps, 1).to_kind(Kind::Float));
            // What is not a number is told from the losses; here it must not stop a step.
            maps.to_device(Device::Cpu).contiguous().nan_to_num(0.0, 0.0, 0.0)
        });
        let side = frame.side as usize;
        let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
        let mixes = with_slice(&views, |maps: &[f32]| {
            let samples = maps.chunks_exact(4 * side * side);
            let pairs: Vec<_> = samples.map(|sample| views_of(sample, side * side)).collect();
            mix_all(&pairs, side, settings, draw, threads)
        })??;
        let placed = |maps: &Tensor, channels: i64| {
            let maps = maps.view([mixes.len() as i64, channels, frame.side, frame.side]);
            upload(&frame.crop(&maps).contiguous(), images[0].device())
        };
        let shares: Vec<f32> = mixes.iter().flat_map(Mix::shares).collect();
        let shares = placed(&Tensor::from_slice(&shares), 1).to_kind(images[0].kind());
        let sources = settings.transport.map(|_| {
            let of_images = |mix: &Mix| [0, 1].map(|image| mix.sources(image)).concat();
            let sources: Vec<i32> = mixes.iter().flat_map(of_images).collect();
            placed(&Tensor::from_slice(&sources), 2).to_kind(Kind::Int64)
        });
        Ok(Self { shares, sources, frame })
    }

    /// The same in shared memory.
    #[must_use]
    pub fn shallow_clone(&self) -> Self {
        let sources = self.sources.as_ref().map(Tensor::shallow_clone);
        Self { shares: self.shares.shallow_clone(), sources, frame: self.frame }
    }

    /// The same with all pixels in their places.
    #[must_use]
    pub fn in_place(&self) -> Self {
        Self { shares: self.shares.shallow_clone(), sources: None, frame: self.frame }
    }

    /// The same of other samples, for which `of` makes a tensor of each tensor of these.
    pub fn map(&self, of: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let sources = self.sources.as_ref().map(&of).transpose()?;
        Ok(Self { shares: of(&self.shares)?, sources, frame: self.frame })
    }

    /// The mix of maps `[N, C, H, W]` of the samples and of their partners.
    pub fn of_maps(&self, maps: [&Tensor; 2]) -> Tensor {
        let [own, partner] = self.of_each(maps);
        own + partner
    }

    /// What each of the two has in [`Mixture::of_maps`], which is their sum.
    pub fn of_each(&self, maps: [&Tensor; 2]) -> [Tensor; 2] {
        let [own, partner] = [0, 1].map(|image| self.arranged(maps[image], image as i64));
        [own * &self.shares, partner * (1.0 - &self.shares)]
    }

    /// Maps of image 0, the own, or 1, the partner's, each pixel where it is shown.
    fn arranged(&self, maps: &Tensor, image: i64) -> Tensor {
        let Some(sources) = &self.sources else { return maps.shallow_clone() };
        let size = maps.size();
        let pixels = self.frame.pad(maps).flatten(2, 3);
        let sources = sources.narrow(1, image, 1).flatten(2, 3);
        let places = sources.clamp_min(0).expand([-1, size[1], -1], false);
        let there = sources.ge(0).to_kind(pixels.kind());
        (pixels.gather(2, &places, false) * there).view(&*size)
    }
}

/// Both images of a sample from their maps of so many pixels: intensity and saliency of the sample, then of its
/// partner.
fn views_of(maps: &[f32], pixels: usize) -> [View<'_>; 2] {
    [0, 2].map(|first| View {
        image: &maps[first * pixels..][..pixels],
        saliency: &maps[(first + 1) * pixels..][..pixels],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixing::puzzle::{Transport, mix};

    fn wave(size: &[i64], factor: f64) -> Tensor {
        let count = size.iter().product::<i64>();
        (Tensor::arange(count, (Kind::Double, Device::Cpu)) * factor).sin().view(size)
    }

    const SETTINGS: Settings = Settings {
        labels: 3,
        beta: 1.2,
        gamma: 0.5,
        eta: 0.2,
        transport: Some(Transport { distance_weight: 0.8, patch: 4 }),
    };

    /// Each number of a mix, taken from what the plain one says.
    #[test]
    fn images_in_the_middle_of_a_frame_are_mixed_pixel_by_pixel() {
        let images = [0.31, 0.17].map(|factor| wave(&[3, 2, 61, 50], factor));
        let saliency = [0.4, 0.9].map(|factor| wave(&[3, 61, 50], factor).square());
        let draw = Draw { blocks: 4, share: 0.6 };
        let (images, saliency) = (images.each_ref(), saliency.each_ref());
        let mixture = Mixture::of(images, saliency, &SETTINGS, draw).unwrap();
        let (moved, placed) = (mixture.of_maps(images), mixture.in_place().of_maps(images));
        assert_eq!((moved.size(), mixture.shares.size()), (images[0].size(), vec![3, 1, 61, 50]));
        for sample in 0..3 {
            let framed = |maps: &Tensor| maps.get(sample).constant_pad_nd([7, 7, 1, 2]);
            let plain = |maps: Tensor| -> Vec<f32> {
                Vec::try_from(maps.to_kind(Kind::Float).contiguous().view([-1])).unwrap()
            };
            let grey =
                |maps: &Tensor| framed(maps).mean_dim([0i64].as_slice(), false, Kind::Double);
            let plain =
                [0, 1].map(|image| (plain(grey(images[image])), plain(framed(saliency[image]))));
            let views = plain.each_ref().map(|(image, saliency)| View { image, saliency });
            let mix = mix(views, 64, &SETTINGS, draw).unwrap();
            let (shares, sources) = (mix.shares(), [0, 1].map(|image| mix.sources(image)));
            let framed = images.map(framed);
            for (channel, row, column) in [(0, 0, 0), (1, 60, 49), (1, 30, 21), (0, 13, 40)] {
                let at = (row + 1) * 64 + column + 7;
                let pixel = |image: usize, from: i64| match from {
                    -1 => 0.0,
                    from => framed[image].double_value(&[channel, from / 64, from % 64]),
                };
                let share = f64::from(shares[at]);
                let place = [sample, channel, row as i64, column as i64];
                let near = |found: &Tensor, sources: [i64; 2]| {
                    let [own, other] = [0, 1].map(|image| pixel(image, sources[image]));
                    let expected = share * own + (1.0 - share) * other;
                    assert!((found.double_value(&place) - expected).abs() < 1e-12, "{place:?}");
                };
                near(&moved, sources.each_ref().map(|of| i64::from(of[at])));
                near(&placed, [at as i64; 2]);
            }
        }
    }

    #[test]
    fn an_unknown_saliency_counts_as_none_and_no_samples_make_no_mix() {
        let image = wave(&[1, 1, 64, 64], 0.2);
        let draw = Draw { blocks: 2, share: 0.5 };
        let of = |image: &Tensor, saliency: f64| {
            let size = [image.size()[0], 64, 64];
            let saliency = Tensor::full(size, saliency, (Kind::Double, Device::Cpu));
            Mixture::of([image; 2], [&saliency; 2], &SETTINGS, draw).unwrap()
        };
        assert!(of(&image, f64::NAN).shares.equal(&of(&image, 0.0).shares));
        let none = image.narrow(0, 0, 0);
        assert_eq!(of(&none, 1.0).of_maps([&none; 2]).size(), [0, 1, 64, 64]);
    }
}
