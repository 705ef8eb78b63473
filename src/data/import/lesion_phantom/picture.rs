//! One image: a textured organ on black under uneven light, and a lesion in it where there is one.
//!
//! The light varies more over the organ than a lesion differs from what is around it, so that no
//! brightness alone tells a lesion. Knows neither parts nor names.

use crate::data::import::texture::Texture;
use crate::random::{Draws, Key};
use std::f64::consts::{PI, TAU};

/// An image with its truth.
pub(super) struct Drawn {
    /// Red, green and blue, each `size` x `size`; 0 around the organ.
    pub(super) planes: Vec<u8>,
    /// 1 where the lesion is, `size` x `size`.
    pub(super) lesion: Vec<u8>,
}

/// Draws the image that belongs to `key`.
pub(super) fn draw(key: Key, size: usize, diseased: bool) -> Drawn {
    let organ = Outline::organ(&mut key.purpose("organ").draws(), size as f64);
    let tissue = Tissue::draw(&mut key.purpose("tissue").draws(), size);
    let lesions = diseased.then(|| Lesions::draw(&mut key.purpose("lesion").draws(), size, &organ));
    let edge = EDGE * size as f64;
    let mut planes = [(); 3].map(|()| Vec::with_capacity(size * size));
    let mut truth = Vec::with_capacity(size * size);
    for (row, column) in (0..size).flat_map(|row| (0..size).map(move |column| (row, column))) {
        let depth = organ.depth(row, column);
        let mut level = tissue.at(row, column, size);
        let lesion_depth = lesions.as_ref().map_or(f64::NEG_INFINITY, |lesions| {
            let lesion_depth = lesions.depth(row, column).min(depth - RIM * size as f64);
            level += covered(lesion_depth, edge) * lesions.contrast_at(row, column);
            lesion_depth
        });
        truth.push(u8::from(lesion_depth > 0.0));
        for (plane, gain) in planes.iter_mut().zip(tissue.gains) {
            let value = level.max(DARKEST) * covered(depth, edge) * gain;
            plane.push((255.0 * value).round() as u8);
        }
    }
    Drawn { planes: planes.concat(), lesion: truth }
}

/// Width of the edges, as a share of the image's size.
const EDGE: f64 = 0.024;

/// How far from the organ's edge a lesion ends, as a share of the image's size.
const RIM: f64 = 0.02;

/// The darkest that tissue gets, so that it is never the black around it.
const DARKEST: f64 = 0.06;

/// How much of a pixel is covered by something whose edge is `depth` pixels away.
fn covered(depth: f64, edge: f64) -> f64 {
    (depth / edge + 0.5).clamp(0.0, 1.0)
}

/// A round shape with an uneven edge.
struct Outline {
    row: f64,
    column: f64,
    radius: f64,
    /// Amplitude and phase of 2 to 5 waves around the edge.
    waves: [(f64, f64); 4],
}

impl Outline {
    fn draw(draws: &mut Draws, [row, column]: [f64; 2], radius: f64, uneven: f64) -> Self {
        let wave = |index: usize| {
            let amplitude = uneven * draws.range(-1.7, 1.7) / (index as f64 + 1.0).powf(0.7);
            (amplitude, draws.range(0.0, TAU))
        };
        Self { row, column, radius, waves: [0, 1, 2, 3].map(wave) }
    }

    fn organ(draws: &mut Draws, size: f64) -> Self {
        let centre = [(); 2].map(|()| size * (0.5 + draws.range(-0.03, 0.03)) - 0.5);
        let radius = size * draws.range(0.37, 0.43);
        Self::draw(draws, centre, radius, 0.045)
    }

    /// How far the edge is from the centre in the direction of `angle`.
    fn reach(&self, angle: f64) -> f64 {
        let waves = self.waves.iter().zip(2u8..);
        let wave = |((amplitude, phase), count): (&(f64, f64), u8)| {
            amplitude * (f64::from(count) * angle + phase).cos()
        };
        self.radius * (1.0 + waves.map(wave).sum::<f64>())
    }

    /// How far inside the edge a pixel is, along the ray from the centre; negative outside.
    fn depth(&self, row: usize, column: usize) -> f64 {
        let (down, right) = (row as f64 - self.row, column as f64 - self.column);
        self.reach(down.atan2(right)) - down.hypot(right)
    }
}

/// What all of the organ looks like.
struct Tissue {
    level: f64,
    /// Strength of the light's change.
    shading: f64,
    /// The direction in which it gets brighter.
    tilt: f64,
    /// The direction of a slow wave of light, and its phase.
    wave: (f64, f64),
    fine: Texture,
    coarse: Texture,
    /// Brightness of red, green and blue.
    gains: [f64; 3],
}

impl Tissue {
    fn draw(draws: &mut Draws, size: usize) -> Self {
        let gain = draws.range(0.55, 1.2);
        Self {
            level: draws.range(0.44, 0.6),
            shading: draws.range(0.29, 0.39),
            tilt: draws.range(0.0, TAU),
            wave: (draws.range(0.0, TAU), draws.range(0.0, TAU)),
            fine: Texture::draw(draws, size, 0.025 * size as f64),
            coarse: Texture::draw(draws, size, 0.06 * size as f64),
            gains: [1.0, 0.88, 0.8].map(|colour| gain * colour * draws.range(0.95, 1.05)),
        }
    }

    /// The brightness at a pixel, about 0.1 to 1.
    fn at(&self, row: usize, column: usize, size: usize) -> f64 {
        let [down, right] = [row, column].map(|place| 2.0 * place as f64 / size as f64 - 1.0);
        let along = |angle: f64| angle.cos() * right + angle.sin() * down;
        let (direction, phase) = self.wave;
        let wave = (0.28 * TAU * along(direction) + phase).sin();
        let light = self.shading * (0.75 * along(self.tilt) + 0.6 * wave);
        self.level + light + 0.035 * self.fine.at(row, column) + 0.02 * self.coarse.at(row, column)
    }
}

/// One lesion, sometimes two, brighter than the tissue around and mottled.
struct Lesions {
    outlines: Vec<Outline>,
    contrast: f64,
    mottling: Texture,
}

impl Lesions {
    fn draw(draws: &mut Draws, size: usize, organ: &Outline) -> Self {
        let contrast = draws.range(0.12, 0.21);
        let mottling = Texture::draw(draws, size, 0.045 * size as f64);
        let mut angle = draws.range(0.0, TAU);
        let share = draws.range(0.025, 0.112);
        // Two lesions lie on opposite sides; more than half the room of one would let them meet.
        let shares = if draws.uniform() < 0.2 {
            let (first, both) = (draws.range(0.35, 0.65), share.max(0.05));
            vec![first * both, (1.0 - first) * both]
        } else {
            vec![share]
        };
        let (count, mut outlines) = (shares.len(), Vec::new());
        for share in shares {
            let radius = size as f64 * (share / PI).sqrt();
            let mut outline = Outline::draw(draws, [0.0; 2], radius, 0.1);
            let widest = (0..64).map(|step| outline.reach(f64::from(step) * TAU / 64.0));
            let room = 0.95 * organ.reach(angle) - widest.fold(0.0, f64::max);
            let outwards = if count == 1 { draws.uniform().sqrt() } else { draws.range(0.8, 1.0) };
            let distance = room.max(0.0) * outwards;
            outline.row = organ.row + distance * angle.sin();
            outline.column = organ.column + distance * angle.cos();
            outlines.push(outline);
            angle += PI + draws.range(-0.5, 0.5);
        }
        Self { outlines, contrast, mottling }
    }

    fn depth(&self, row: usize, column: usize) -> f64 {
        let depths = self.outlines.iter().map(|outline| outline.depth(row, column));
        depths.fold(f64::NEG_INFINITY, f64::max)
    }

    fn contrast_at(&self, row: usize, column: usize) -> f64 {
        self.contrast * (1.0 + 0.25 * self.mottling.at(row, column))
    }
}
