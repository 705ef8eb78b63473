//! Images mixed by pairs: `PuzzleMix` decides on the host, and what it decided is done where the images lie.
//!
//! Of images and saliency one grey map each comes to the host for every sample and for its partner, and one
//! share and two places for every pixel go back. Knows no ranks, no network and no loss.

use crate::error::{Context, Failure, Result};
use crate::mixing::puzzle::{Draw, Mix, Settings, View, canvas, mix};
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
pub(super) struct Mixture {
    /// The share of the own image in every pixel, `[N, 1, H, W]` in [0, 1].
    pub(super) shares: Tensor,
    /// Which pixel of the frame around the own image, and of that around the partner's, comes to every pixel:
    /// `[N, 2, H, W]` i64, -1 for none. `None` where all pixels stay in their places.
    sources: Option<Tensor>,
    frame: Frame,
}

impl Mixture {
    /// For images `[N, C, H, W]` with their saliency `[N, H, W]`, of the samples themselves and of their partners.
    pub(super) fn of(
        images: [&Tensor; 2],
        saliency: [&Tensor; 2],
        settings: &Settings,
        draw: Draw,
    ) -> Result<Self> {
        let frame = Frame::around(images[0]);
        let views = tch::no_grad(|| {
            let grey = images.map(|image| image.mean_dim([1i64].as_slice(), false, image.kind()));
            let maps = [&grey[0], saliency[0], &grey[1], saliency[1]];
            // What is not a number is told from the losses; here it must not stop a step.
            let maps = Tensor::stack(&maps, 1).to_kind(Kind::Float).nan_to_num(0.0, 0.0, 0.0);
            frame.pad(&maps).to_device(Device::Cpu).contiguous()
        });
        let side = frame.side as usize;
        let mixes = with_slice(&views, |views: &[f32]| mixed(views, side, settings, draw))??;
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

    /// The same with all pixels in their places.
    pub(super) fn in_place(&self) -> Self {
        Self { shares: self.shares.shallow_clone(), sources: None, frame: self.frame }
    }

    /// The same of other samples, for which `of` makes a tensor of each tensor of these.
    pub(super) fn map(&self, of: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let sources = self.sources.as_ref().map(&of).transpose()?;
        Ok(Self { shares: of(&self.shares)?, sources, frame: self.frame })
    }

    /// The mix of maps `[N, C, H, W]` of the samples and of their partners.
    pub(super) fn of_maps(&self, maps: [&Tensor; 2]) -> Tensor {
        let [own, partner] = [0, 1].map(|image| self.arranged(maps[image], image as i64));
        own * &self.shares + partner * (1.0 - &self.shares)
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

/// The mixes of samples whose four maps of `side` x `side` pixels lie one after the other: intensity and
/// saliency of the sample, then of its partner. As many threads as libtorch has on the CPU share them.
fn mixed(views: &[f32], side: usize, settings: &Settings, draw: Draw) -> Result<Vec<Mix>> {
    let pixels = side * side;
    let one = |sample: &[f32]| {
        let map = |number: usize| &sample[number * pixels..(number + 1) * pixels];
        let view = |first| View { image: map(first), saliency: map(first + 1) };
        mix([view(0), view(2)], side, settings, draw)
    };
    let samples: Vec<&[f32]> = views.chunks_exact(4 * pixels).collect();
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1);
    let share = samples.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let some = |samples: &[&[f32]]| samples.iter().map(|sample| one(sample)).collect();
        let workers: Vec<_> =
            samples.chunks(share).map(|part| scope.spawn(move || some(part))).collect();
        let mut mixes = Vec::with_capacity(samples.len());
        for worker in workers {
            let broken = |_| Failure::new("a thread that mixes images has panicked");
            let part: Result<Vec<Mix>> = worker.join().map_err(broken)?;
            mixes.extend(part.context(|| "cannot mix images")?);
        }
        Ok(mixes)
    })
}
