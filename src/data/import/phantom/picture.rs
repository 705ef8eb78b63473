//! Intensities: tissue around the heart, blood and muscle in it, and what a scanner adds.
//!
//! Everything is blended over about a pixel at its edge, as voxels average what they cover. Knows
//! nothing of labels: what is painted here and what `anatomy` labels agree by the same depths.

use super::anatomy::{Section, pixels_within};
use super::{Difficulty, Phantom};
use crate::data::import::texture::Texture;
use crate::random::{Draws, Key};
use std::f64::consts::TAU;

/// Balls beside the heart of a body.
const BALLS: usize = 10;
/// Fields of texture from base to apex of a body.
const FIELDS: usize = 9;

/// What one case looks like, apart from its heart's shape.
pub(super) struct Appearance {
    organs: Vec<Organ>,
    blood: f64,
    right_blood: f64,
    muscle: f64,
    /// Relative size of tissue texture.
    texture: f64,
    /// Standard deviation of noise in each of the two channels of the receiver.
    noise: f64,
    /// Coefficients of row, column and their squares in the logarithm of the bias field.
    bias: [f64; 4],
    /// Width of the edges, in pixels.
    edge: f64,
}

/// An ellipse of one intensity.
struct Organ {
    row: f64,
    column: f64,
    half_rows: f64,
    half_columns: f64,
    turn: f64,
    level: f64,
}

impl Appearance {
    /// Draws the surroundings and the scanner of one case.
    pub(super) fn draw(draws: &mut Draws, phantom: &Phantom) -> Self {
        let hard = phantom.difficulty == Difficulty::Hard;
        let muscle = if hard { draws.range(0.30, 0.48) } else { draws.range(0.24, 0.34) };
        let contrast = if hard { draws.range(0.16, 0.34) } else { draws.range(0.42, 0.58) };
        let bias = if hard { 0.5 } else { 0.2 };
        Self {
            organs: organs(draws, phantom.size as f64, if hard { 9 } else { 4 }),
            blood: muscle + contrast,
            right_blood: muscle + contrast * draws.range(0.8, 1.05),
            muscle,
            texture: if hard { 0.13 } else { 0.08 },
            noise: if hard { draws.range(0.045, 0.07) } else { draws.range(0.018, 0.032) },
            bias: std::array::from_fn(|_| bias * draws.range(-1.0, 1.0)),
            edge: phantom.size as f64 / 128.0 * draws.range(1.2, 2.0),
        }
    }

    /// Paints one slice of `size` x `size` pixels; values are 0 or more, mostly below 1.
    pub(super) fn paint(&self, section: &Section, size: usize, draws: &mut Draws) -> Vec<f64> {
        let mut canvas = vec![0.04; size * size];
        for organ in &self.organs {
            organ.paint(&mut canvas, size, self.edge, draws);
        }
        self.paint_heart(section, &mut canvas, size);
        for _ in 0..2 {
            self.papillary(section, draws).paint(&mut canvas, size, self.edge, draws);
        }
        self.scan(&mut canvas, size, draws);
        canvas
    }

    fn paint_heart(&self, section: &Section, canvas: &mut [f64], size: usize) {
        let ((row, column), reach) = (section.centre(), section.reach() + 3.0 * self.edge);
        // The free wall of the right ventricle is thin, and no class of its own.
        let free_wall = 2.2 * self.edge;
        for y in pixels_within(row, reach, size) {
            for x in pixels_within(column, reach, size) {
                let depths = section.depths(y as f64, x as f64);
                let pixel = &mut canvas[y * size + x];
                self.blend(pixel, depths.right + free_wall, self.muscle);
                self.blend(pixel, depths.right, self.right_blood);
                self.blend(pixel, depths.wall, self.muscle);
                self.blend(pixel, depths.cavity, self.blood);
            }
        }
    }

    fn blend(&self, pixel: &mut f64, depth: f64, level: f64) {
        let covered = (depth / self.edge + 0.5).clamp(0.0, 1.0);
        *pixel += covered * (level - *pixel);
    }

    /// Paints slices of `size` x `size` pixels that are sections of one body, from base to apex. Organs stand
    /// still, texture runs through, and balls of blood and muscle that end after a few slices lie about: in the
    /// noise, which each slice has to itself, one slice does not tell them from a ventricle.
    pub(super) fn paint_body(&self, sections: &[Section], size: usize, key: Key) -> Vec<f64> {
        let mut draws = key.purpose("body").draws();
        let contrast = self.blood - self.muscle;
        let noise = self.noise + contrast * draws.range(0.30, 0.40);
        let body = Self { noise, organs: Vec::new(), ..*self };
        let balls: Vec<Ball> = (0..BALLS).map(|_| Ball::draw(&mut draws, self, size)).collect();
        let muscles = [key.purpose("first muscle"), key.purpose("second muscle")];
        let texture = DeepTexture::draw(&mut draws, size, self.edge);
        let mut values = Vec::with_capacity(sections.len() * size * size);
        for (slice, section) in sections.iter().enumerate() {
            let depth = slice as f64 / sections.len().saturating_sub(1).max(1) as f64;
            let mut canvas = vec![0.04; size * size];
            for organ in &self.organs {
                organ.paint_still(&mut canvas, size, self.edge);
            }
            for ball in balls.iter().filter_map(|ball| ball.section(depth)) {
                ball.paint_still(&mut canvas, size, self.edge);
            }
            self.paint_heart(section, &mut canvas, size);
            for key in muscles {
                let muscle = self.papillary(section, &mut key.draws());
                muscle.paint_still(&mut canvas, size, self.edge);
            }
            let mut draws = key.purpose("noise").number(slice as u64).draws();
            let of_slice = |row, column| texture.at(depth, row, column);
            body.expose(&mut canvas, size, of_slice, &mut draws);
            values.append(&mut canvas);
        }
        values
    }

    /// A dark muscle that stands in the left ventricle; annotators count it as blood.
    fn papillary(&self, section: &Section, draws: &mut Draws) -> Organ {
        let cavity = section.cavity();
        let (row, column) = section.point(draws.range(0.0, TAU), cavity * draws.range(0.5, 0.75));
        Organ {
            row,
            column,
            half_rows: cavity * draws.range(0.1, 0.2),
            half_columns: cavity * draws.range(0.1, 0.2),
            turn: draws.range(0.0, TAU),
            level: self.muscle + 0.3 * (self.blood - self.muscle),
        }
    }

    /// Texture of tissue, the bias field of the coil, and the magnitude of two noisy channels.
    fn scan(&self, canvas: &mut [f64], size: usize, draws: &mut Draws) {
        let fine = Texture::draw(draws, size, 5.0 * self.edge);
        let coarse = Texture::draw(draws, size, 14.0 * self.edge);
        let texture = |row: usize, column: usize| fine.at(row, column) + coarse.at(row, column);
        self.expose(canvas, size, texture, draws);
    }

    /// What `scan` does, with texture from elsewhere.
    fn expose(
        &self,
        canvas: &mut [f64],
        size: usize,
        texture: impl Fn(usize, usize) -> f64,
        draws: &mut Draws,
    ) {
        let [down, across, down_squared, across_squared] = self.bias;
        for (row, line) in canvas.chunks_exact_mut(size).enumerate() {
            let y = 2.0 * row as f64 / size as f64 - 1.0;
            for (column, pixel) in line.iter_mut().enumerate() {
                let x = 2.0 * column as f64 / size as f64 - 1.0;
                let texture = texture(row, column);
                let bias = down * y + across * x + down_squared * y * y + across_squared * x * x;
                let clean = *pixel * (1.0 + self.texture * texture).max(0.0) * bias.exp();
                let (real, imaginary) = (self.noise * draws.normal(), self.noise * draws.normal());
                *pixel = (clean + real).hypot(imaginary);
            }
        }
    }
}

/// Chest, lungs, liver, spine and vessels, from back to front.
fn organs(draws: &mut Draws, size: f64, vessel_count: usize) -> Vec<Organ> {
    let mut organ = |row: f64, column: f64, half_rows: f64, half_columns: f64, level: f64| Organ {
        row: size * (row + draws.range(-0.03, 0.03)),
        column: size * (column + draws.range(-0.03, 0.03)),
        half_rows: size * half_rows * draws.range(0.85, 1.15),
        half_columns: size * half_columns * draws.range(0.85, 1.15),
        turn: draws.range(-0.3, 0.3),
        level: level * draws.range(0.8, 1.2),
    };
    let mut organs = vec![
        organ(0.52, 0.5, 0.56, 0.66, 0.62),  // Fat under the skin.
        organ(0.52, 0.5, 0.51, 0.61, 0.30),  // Muscle of the chest.
        organ(0.48, 0.88, 0.34, 0.20, 0.07), // Left lung.
        organ(0.36, 0.12, 0.26, 0.16, 0.07), // Right lung.
        organ(0.80, 0.22, 0.24, 0.30, 0.42), // Liver.
        organ(0.86, 0.72, 0.13, 0.18, 0.26), // Stomach.
        organ(0.94, 0.50, 0.09, 0.08, 0.48), // Spine.
        organ(0.50, 0.50, 0.27, 0.31, 0.50), // Fat around the heart.
    ];
    for _ in 0..vessel_count {
        let angle = draws.range(0.0, TAU);
        let distance = draws.range(0.33, 0.46);
        let radius = size * draws.range(0.012, 0.035);
        organs.push(Organ {
            row: size * (0.5 + distance * angle.sin()),
            column: size * (0.5 + distance * angle.cos()),
            half_rows: radius,
            half_columns: radius * draws.range(0.7, 1.4),
            turn: draws.range(0.0, TAU),
            level: draws.range(0.15, 0.85),
        });
    }
    organs
}

/// A ball beside the heart.
struct Ball {
    /// Where it is widest.
    organ: Organ,
    /// Share of the long axis at which its middle lies, and half of the share that it takes.
    depth: f64,
    half: f64,
}

impl Ball {
    fn draw(draws: &mut Draws, appearance: &Appearance, size: usize) -> Self {
        let (angle, distance) = (draws.range(0.0, TAU), draws.range(0.16, 0.34));
        let radius = size as f64 * draws.range(0.05, 0.1);
        let is_blood = draws.uniform() < 0.6;
        let organ = Organ {
            row: size as f64 * (0.5 + distance * angle.sin()),
            column: size as f64 * (0.5 + distance * angle.cos()),
            half_rows: radius,
            half_columns: radius * draws.range(0.8, 1.25),
            turn: draws.range(0.0, TAU),
            level: if is_blood { appearance.blood } else { appearance.muscle },
        };
        Self { organ, depth: draws.range(0.0, 1.0), half: draws.range(0.06, 0.12) }
    }

    /// Its disc at a depth; none where it does not reach.
    fn section(&self, depth: f64) -> Option<Organ> {
        let away = (depth - self.depth) / self.half;
        let share = (1.0 - away * away).max(0.0).sqrt();
        let (half_rows, half_columns) =
            (share * self.organ.half_rows, share * self.organ.half_columns);
        (share > 0.2).then_some(Organ { half_rows, half_columns, ..self.organ })
    }
}

/// Texture that runs through all slices: fields from base to apex, blended in between.
struct DeepTexture {
    fields: Vec<[Texture; 2]>,
}

impl DeepTexture {
    fn draw(draws: &mut Draws, size: usize, edge: f64) -> Self {
        let mut field = |cell: f64| Texture::draw(draws, size, cell * edge);
        Self { fields: (0..FIELDS).map(|_| [field(5.0), field(14.0)]).collect() }
    }

    /// The texture of a pixel of the slice at `depth`, with the same spread everywhere.
    fn at(&self, depth: f64, row: usize, column: usize) -> f64 {
        let place = depth * (FIELDS - 1) as f64;
        let before = (place as usize).min(FIELDS - 2);
        let (after, before_weight) = ((place - before as f64) * TAU / 4.0).sin_cos();
        let of = |field: usize| -> f64 {
            self.fields[field].iter().map(|texture| texture.at(row, column)).sum()
        };
        before_weight * of(before) + after * of(before + 1)
    }
}

impl Organ {
    /// Paints the organ; from slice to slice it moves and changes a little.
    fn paint(&self, canvas: &mut [f64], size: usize, edge: f64, draws: &mut Draws) {
        let row = self.row + 0.01 * size as f64 * draws.normal();
        let column = self.column + 0.01 * size as f64 * draws.normal();
        let swell = 1.0 + 0.04 * draws.normal();
        let (half_rows, half_columns) = (self.half_rows * swell, self.half_columns * swell);
        Self { row, column, half_rows, half_columns, ..*self }.paint_still(canvas, size, edge);
    }

    /// Paints the organ where it is.
    fn paint_still(&self, canvas: &mut [f64], size: usize, edge: f64) {
        let Self { row, column, half_rows, half_columns, .. } = *self;
        let (sine, cosine) = self.turn.sin_cos();
        let shorter = half_rows.min(half_columns);
        let reach = half_rows.max(half_columns) + edge * half_rows.max(half_columns) / shorter;
        for y in pixels_within(row, reach, size) {
            for x in pixels_within(column, reach, size) {
                let (down, right) = (y as f64 - row, x as f64 - column);
                let along = (cosine * right + sine * down) / half_columns;
                let across = (cosine * down - sine * right) / half_rows;
                let depth = (1.0 - along.hypot(across)) * shorter;
                let covered = (depth / edge + 0.5).clamp(0.0, 1.0);
                let pixel = &mut canvas[y * size + x];
                *pixel += covered * (self.level - *pixel);
            }
        }
    }
}
