//! `PuzzleMix`: two images put together from blocks, so that what matters in both is seen.
//!
//! Kim, Choo and Song, *Puzzle Mix: Exploiting Saliency and Local Statistics for Optimal Mixup*, ICML
//! 2020, with the settings of CycleMix (Zhang and Zhuang, CVPR 2022). Works on plain numbers of square images;
//! what is drawn comes in as an argument. Knows no tensors and no labels of pixels.

mod blocks;
mod energy;
mod flow;
mod swap;
mod terms;
mod transport;

pub use blocks::shares as block_shares;
pub use energy::{Costs, Energy};
pub use terms::Terms;
pub use transport::Patches;

use crate::error::{Context, Failure, Result};
use crate::limits::NETWORK_SIZE;

/// What holds for all mixes of a training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// How many shares of the first image a block can have: with 3 these are 1, 1/2 and 0; 2 to 255.
    pub labels: usize,
    /// What it costs that neighbouring blocks have different shares, at least 0.
    pub beta: f64,
    /// What it costs, beside that, that intensities differ across the border of two blocks, at least 0.
    pub gamma: f64,
    /// How closely blocks keep to the share that is drawn, at least 0.
    pub eta: f64,
    /// How salient patches move to where their image is shown; `None` leaves all where they are.
    pub transport: Option<Transport>,
}

/// How patches move within an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transport {
    /// What moving a patch along a whole side costs, in shares of the saliency of the image, at least 0.
    pub distance_weight: f64,
    /// Pixels along the side of a patch: 1, 2, 4, 8 and so on. It is smaller where blocks are, or where blocks do
    /// not hold a whole number of patches.
    pub patch: usize,
}

/// The settings of CycleMix.
impl Default for Settings {
    fn default() -> Self {
        let transport = Some(Transport { distance_weight: 0.8, patch: 4 });
        Self { labels: 3, beta: 1.2, gamma: 0.5, eta: 0.2, transport }
    }
}

/// What is drawn for a mix.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Blocks along a side of the image: 2, 4, 8 or 16.
    pub blocks: usize,
    /// The share of the mix that the first image would have if only chance counted, in `[0, 1]`.
    pub share: f64,
}

/// One of two images to mix.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Intensities, `[size * size]`, row-major and finite; of several channels their mean.
    pub image: &'a [f32],
    /// How strongly the objective depends on each pixel, like `image`, at least 0. Where it is 0 everywhere, or
    /// too large to be added up, all pixels count the same.
    pub saliency: &'a [f32],
}

/// Where every pixel of a mix comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix {
    /// Pixels along a side.
    size: usize,
    /// Blocks along a side.
    blocks: usize,
    /// How many labels there are.
    labels: usize,
    /// The label of each block: `l` of `n` shows the second image with a share of `l / (n - 1)`.
    chosen: Vec<u8>,
    /// Which patch comes to each patch, for both images.
    moved: Option<[Moved; 2]>,
}

/// Which patch of an image comes to each patch of a mix.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Moved {
    /// Pixels along the side of a patch.
    patch: usize,
    /// Index of a patch, or -1 for none, row-major.
    sources: Vec<i32>,
}

impl Mix {
    /// The share of the first image in every pixel, `[size * size]`, in `[0, 1]`; the rest is the second.
    pub fn shares(&self) -> Vec<f32> {
        let share = |label: u8| 1.0 - f32::from(label) / (self.labels - 1) as f32;
        let side = self.size / self.blocks;
        let mut pixels = Vec::with_capacity(self.size * self.size);
        for labels in self.chosen.chunks_exact(self.blocks) {
            let shares = labels.iter().flat_map(|label| std::iter::repeat_n(share(*label), side));
            let row: Vec<f32> = shares.collect();
            (0..side).for_each(|_| pixels.extend_from_slice(&row));
        }
        pixels
    }

    /// Which pixel of image 0 or 1 comes to every pixel, `[size * size]`: its row-major index, or -1 where
    /// none does and 0 takes its place. The mix is `share first[sources(0)] + (1 - share) second[sources(1)]`;
    /// where an image has no share, its source means nothing.
    pub fn sources(&self, image: usize) -> Vec<i32> {
        let Some(moved) = &self.moved else {
            return (0..(self.size * self.size) as i32).collect();
        };
        let Moved { patch, sources } = &moved[image];
        let columns = self.size / patch;
        let mut pixels = Vec::with_capacity(self.size * self.size);
        for row in 0..self.size {
            for &source in &sources[row / patch * columns..][..columns] {
                let Ok(source) = usize::try_from(source) else {
                    pixels.extend(std::iter::repeat_n(-1, *patch));
                    continue;
                };
                let row = source / columns * patch + row % patch;
                let start = row * self.size + source % columns * patch;
                pixels.extend(start as i32..(start + patch) as i32);
            }
        }
        pixels
    }

    /// How the patches of an image move that blocks with label `hidden` do not show.
    fn moved(&self, saliency: &[f32], hidden: u8, transport: Transport) -> Moved {
        let side = self.size / self.blocks;
        let mut patch = transport.patch.min(side);
        while !side.is_multiple_of(patch) {
            patch /= 2;
        }
        let count = self.size / patch;
        let of_patch = |place: usize| {
            let (row, column) = (place / count * patch / side, place % count * patch / side);
            self.chosen[row * self.blocks + column] != hidden
        };
        let shown: Vec<bool> = (0..count * count).map(of_patch).collect();
        let saliency = blocks::shares(saliency, self.size, patch);
        let distance_weight = transport.distance_weight;
        let patches = Patches { side: count, saliency: &saliency, shown: &shown, distance_weight };
        Moved { patch, sources: patches.sources() }
    }
}

/// Mixes two images of `size` x `size` pixels; `size` is a multiple of 64 and at most 8192.
///
/// Refuses sizes, settings and draws outside their ranges, and images or saliencies that are not finite.
pub fn mix(views: [View<'_>; 2], size: usize, settings: &Settings, draw: Draw) -> Result<Mix> {
    check(settings, draw)?;
    check_views(&views, size)?;
    let energy = Terms::of(views, size, settings, draw.blocks).energy(settings, draw)?;
    let chosen = energy.swapped();
    let last = (settings.labels - 1) as u8;
    let mut mix = Mix { size, blocks: draw.blocks, labels: settings.labels, chosen, moved: None };
    // A block with the first or the last label shows one image only.
    let hidden = [last, 0];
    mix.moved = settings.transport.map(|transport| {
        [0, 1].map(|image| mix.moved(views[image].saliency, hidden[image], transport))
    });
    Ok(mix)
}

/// Mixes pairs of images as [`mix`] does, on up to `threads` threads; the result does not depend on them.
pub fn mix_all(
    pairs: &[[View<'_>; 2]],
    size: usize,
    settings: &Settings,
    draw: Draw,
    threads: usize,
) -> Result<Vec<Mix>> {
    let mix_some = |pairs: &[[View<'_>; 2]]| {
        pairs.iter().map(|views| mix(*views, size, settings, draw)).collect::<Result<Vec<_>>>()
    };
    let share = pairs.len().div_ceil(threads.max(1)).max(1);
    let (own, others) = pairs.split_at(share.min(pairs.len()));
    std::thread::scope(|scope| {
        let start = |pairs| {
            let thread = std::thread::Builder::new().name("mixing".into());
            let started = thread.spawn_scoped(scope, move || mix_some(pairs));
            started.context(|| "cannot start a thread that mixes images")
        };
        let started = others.chunks(share).map(start).collect::<Result<Vec<_>>>()?;
        let mut mixes = mix_some(own)?;
        for thread in started {
            let ended = thread.join();
            mixes.extend(
                ended.map_err(|_panic| Failure::new("a thread that mixes images panicked"))??,
            );
        }
        Ok(mixes)
    })
}

/// The side of the square in whose middle images of `rows` x `columns` pixels are mixed: the next
/// multiple of 64 that holds both.
///
/// ```
/// assert_eq!(scrimp::mixing::puzzle::canvas(212, 180), 256);
/// ```
pub fn canvas(rows: usize, columns: usize) -> usize {
    rows.max(columns).max(1).next_multiple_of(CANVAS_STEP)
}

/// What the side of images to mix is a multiple of: 16 blocks of 4 x 4 pixels.
const CANVAS_STEP: usize = 64;

fn check(settings: &Settings, draw: Draw) -> Result<()> {
    let Settings { labels, beta, gamma, eta, transport } = settings;
    if !(2..=255).contains(labels) {
        return Err(Failure::new(format!("a mix has {labels} labels, expected 2 to 255")));
    }
    let distance_weight = transport.map_or(0.0, |transport| transport.distance_weight);
    let weights =
        [("beta", *beta), ("gamma", *gamma), ("eta", *eta), ("distance_weight", distance_weight)];
    for (name, weight) in weights {
        if !(0.0..f64::INFINITY).contains(&weight) {
            return Err(Failure::new(format!(
                "`{name}` of a mix is {weight}, expected a finite number of at least 0"
            )));
        }
    }
    if let Some(Transport { patch, .. }) = transport.filter(|it| !it.patch.is_power_of_two()) {
        return Err(Failure::new(format!(
            "a patch has {patch} pixels along its side, expected a power of two"
        )));
    }
    let Draw { blocks, share } = draw;
    if ![2, 4, 8, 16].contains(&blocks) || !(0.0..=1.0).contains(&share) {
        return Err(Failure::new(format!(
            "a mix of {blocks} blocks along a side with a share of {share} was drawn, expected 2, 4, 8 or \
             16 blocks and a share from 0 to 1"
        )));
    }
    Ok(())
}

fn check_views(views: &[View<'_>; 2], size: usize) -> Result<()> {
    if size == 0 || size > NETWORK_SIZE || !size.is_multiple_of(CANVAS_STEP) {
        return Err(Failure::new(format!(
            "images to mix have {size} pixels along a side, expected a multiple of {CANVAS_STEP} up to \
             {NETWORK_SIZE}"
        )));
    }
    for (name, values) in
        views.iter().flat_map(|view| [("image", view.image), ("saliency", view.saliency)])
    {
        if values.len() != size * size {
            return Err(Failure::new(format!(
                "the {name} to mix has {} pixels, expected {size} x {size}",
                values.len()
            )));
        }
        let least = if name == "image" { f32::MIN } else { 0.0 };
        let is_right = |value: &f32| (least..=f32::MAX).contains(value);
        // A row is looked at to its end, many values in one go.
        let is_sound = |row: &[f32]| row.iter().fold(true, |sound, value| sound & is_right(value));
        let mut rows = values.chunks_exact(size).enumerate();
        if let Some((row, values)) = rows.find(|(_, values)| !is_sound(values)) {
            let column = values.iter().take_while(|value| is_right(value)).count();
            return Err(Failure::new(format!(
                "{name} at row {row}, column {column} of a mix is {}, expected a finite number{}",
                values[column],
                if name == "image" { "" } else { " of at least 0" }
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;
    use proptest::prelude::*;

    const SIZE: usize = 64;
    const PIXELS: usize = SIZE * SIZE;

    /// Noise with a salient disc somewhere.
    fn scene(seed: u64) -> [Vec<f32>; 2] {
        let mut draws = Key::new(seed).draws();
        let middle = [0; 2].map(|_| draws.range(10.0, 54.0));
        let image = (0..PIXELS).map(|_| draws.normal() as f32).collect();
        let distance = |pixel: usize| {
            let place = [pixel / SIZE, pixel % SIZE].map(|place| place as f64);
            (place[0] - middle[0]).hypot(place[1] - middle[1])
        };
        let saliency = (0..PIXELS)
            .map(|pixel| (draws.uniform() * if distance(pixel) < 9.0 { 1.0 } else { 0.05 }) as f32);
        [image, saliency.collect()]
    }

    fn view([image, saliency]: &[Vec<f32>; 2]) -> View<'_> {
        View { image, saliency }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn every_pixel_has_its_share_and_its_source_whatever_the_number_of_threads(
            seed in any::<u64>(), blocks in prop::sample::select(vec![2usize, 4, 8, 16]),
            labels in 2usize..5, share in 0.0f64..1.0, patch in prop::sample::select(vec![1usize, 4, 64]),
        ) {
            let scenes = [0, 1, 2].map(|item| scene(seed.wrapping_add(item)));
            let pairs = [[0, 1], [1, 2], [2, 0], [1, 1]]
                .map(|pair| pair.map(|item: usize| view(&scenes[item])));
            let transport = Some(Transport { patch, distance_weight: 0.8 });
            let settings = Settings { labels, transport, ..Settings::default() };
            let draw = Draw { blocks, share };
            let mixes = mix_all(&pairs, SIZE, &settings, draw, 1).unwrap();
            for threads in [0, 2, 3, 9] {
                prop_assert_eq!(&mixes, &mix_all(&pairs, SIZE, &settings, draw, threads).unwrap());
            }
            for mix in &mixes {
                let shares = mix.shares();
                prop_assert_eq!(shares.len(), PIXELS);
                let whole = |share: &f32| (share * (labels - 1) as f32).round() / (labels - 1) as f32;
                prop_assert!(shares.iter().all(|share| (share - whole(share)).abs() < 1e-6));
                for image in [0, 1] {
                    let mut seen = vec![false; PIXELS];
                    for (source, share) in mix.sources(image).into_iter().zip(&shares) {
                        let shown = if image == 0 { *share } else { 1.0 - share };
                        // Each patch comes at most once, and nowhere where its image is not shown.
                        prop_assert!(source == -1 || shown > 0.0);
                        if source >= 0 {
                            prop_assert!(!std::mem::replace(&mut seen[source as usize], true));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn without_transport_all_stays_in_its_place_and_without_saliency_chance_decides() {
        let (image, saliency) = (vec![0.0; PIXELS], vec![0.0; PIXELS]);
        let blank = View { image: &image, saliency: &saliency };
        let settings = Settings { transport: None, ..Settings::default() };
        let shares = |share| {
            let mix = mix([blank; 2], SIZE, &settings, Draw { blocks: 4, share }).unwrap();
            assert!(mix.sources(1).into_iter().eq(0..PIXELS as i32));
            mix.shares()
        };
        assert_eq!(shares(1.0), [1.0; PIXELS]);
        assert_eq!(shares(0.5), [0.5; PIXELS]);
        assert_eq!(shares(0.0), [0.0; PIXELS]);
        assert!(
            mix_all(&[], SIZE, &settings, Draw { blocks: 2, share: 0.5 }, 2).unwrap().is_empty()
        );
    }

    #[test]
    fn blocks_hold_a_whole_number_of_patches() {
        let pixels = 192 * 192;
        let saliency: Vec<f32> = (0..pixels).map(|pixel| (pixel % 31) as f32).collect();
        let view = View { image: &vec![0.0; pixels], saliency: &saliency };
        let of_patch = |patch| {
            let transport = Some(Transport { patch, distance_weight: 0.8 });
            let settings = Settings { transport, ..Settings::default() };
            mix([view; 2], 192, &settings, Draw { blocks: 16, share: 0.5 }).unwrap()
        };
        assert_eq!(of_patch(8), of_patch(4));
        assert_eq!(of_patch(64), of_patch(16));
    }

    #[test]
    fn canvases_hold_the_image_in_whole_steps() {
        assert_eq!(
            [canvas(0, 0), canvas(64, 64), canvas(212, 3), canvas(8, 257)],
            [64, 64, 256, 320]
        );
    }

    #[test]
    fn what_cannot_be_mixed_is_refused() {
        let [image, saliency] = scene(1);
        let message = |image: &[f32], saliency: &[f32], size, settings: &Settings, draw| {
            let other = scene(2);
            let views = [view(&other), View { image, saliency }];
            mix(views, size, settings, draw).unwrap_err().message().to_owned()
        };
        let settings = Settings::default();
        let draw = Draw { blocks: 4, share: 0.5 };
        let of_size = |size| message(&image, &saliency, size, &settings, draw);
        let sizes = "pixels along a side, expected a multiple of 64 up to 8192";
        assert_eq!(of_size(0), format!("images to mix have 0 {sizes}"));
        assert_eq!(of_size(100), format!("images to mix have 100 {sizes}"));
        assert_eq!(of_size(128), "the image to mix has 4096 pixels, expected 128 x 128");
        let mut damaged = saliency.clone();
        damaged[15 * SIZE + 15] = -1.0;
        assert_eq!(
            message(&image, &damaged, SIZE, &settings, draw),
            "saliency at row 15, column 15 of a mix is -1, expected a finite number of at least 0"
        );
        damaged[15 * SIZE + 15] = f32::NAN;
        assert_eq!(
            message(&damaged, &saliency, SIZE, &settings, draw),
            "image at row 15, column 15 of a mix is NaN, expected a finite number"
        );
        damaged[15 * SIZE + 15] = 1e38;
        let large = message(&damaged, &saliency, SIZE, &settings, draw);
        assert!(large.starts_with("the cost of block"), "{large}");
        let of_settings = |settings: Settings| message(&image, &saliency, SIZE, &settings, draw);
        assert_eq!(
            of_settings(Settings { labels: 1, ..settings }),
            "a mix has 1 labels, expected 2 to 255"
        );
        assert_eq!(
            of_settings(Settings { eta: f64::NAN, ..settings }),
            "`eta` of a mix is NaN, expected a finite number of at least 0"
        );
        let transport = Some(Transport { patch: 6, distance_weight: 0.8 });
        assert_eq!(
            of_settings(Settings { transport, ..settings }),
            "a patch has 6 pixels along its side, expected a power of two"
        );
        assert_eq!(
            message(&image, &saliency, SIZE, &settings, Draw { blocks: 3, share: 2.0 }),
            "a mix of 3 blocks along a side with a share of 2 was drawn, expected 2, 4, 8 or 16 blocks and a \
             share from 0 to 1"
        );
    }
}
