//! Shapes: a left ventricle in its wall, a right ventricle beside it, cut into slices.
//!
//! Lengths are pixels, angles radians. Knows geometry only, neither intensities nor strokes.

use crate::random::Draws;
use std::f64::consts::TAU;

/// The heart of one case.
pub(super) struct Anatomy {
    row: f64,
    column: f64,
    /// Radius of the left ventricle at the base.
    cavity: f64,
    /// Thickness of its wall.
    wall: f64,
    /// How much longer one in-plane axis is than the other.
    aspect: f64,
    /// In-plane turn of everything.
    turn: f64,
    /// Half depth of the right ventricle, as a share of the outer radius of the wall.
    right_depth: f64,
    /// Half length of the right ventricle, as a share of the outer radius of the wall.
    right_length: f64,
    /// Share of the long axis at which the right ventricle ends.
    right_end: f64,
    /// Amplitude and phase of the second and third harmonic of the contours.
    waves: [(f64, f64); 2],
    /// Drift of the centre from base to apex.
    drift: (f64, f64),
}

impl Anatomy {
    /// Draws a heart for slices of `size` x `size` pixels.
    pub(super) fn draw(draws: &mut Draws, size: usize) -> Self {
        let size = size as f64;
        Self {
            row: size * draws.range(0.43, 0.57),
            column: size * draws.range(0.46, 0.60),
            cavity: size * draws.range(0.085, 0.125),
            wall: size * draws.range(0.045, 0.065),
            aspect: draws.range(0.86, 1.16),
            turn: draws.range(-0.7, 0.7),
            right_depth: draws.range(0.62, 0.82),
            right_length: draws.range(1.02, 1.25),
            right_end: draws.range(0.72, 0.9),
            waves: [
                (draws.range(0.0, 0.05), draws.range(0.0, TAU)),
                (draws.range(0.0, 0.035), draws.range(0.0, TAU)),
            ],
            drift: (size * draws.range(-0.03, 0.03), size * draws.range(-0.03, 0.03)),
        }
    }

    /// The slice at `depth` along the long axis, 0 at the base and 1 at the apex.
    pub(super) fn section(&self, depth: f64, draws: &mut Draws) -> Section {
        self.section_with(depth, &Jitter::draw(draws))
    }

    /// The slice at `depth` of a heart whose slices are parts of one body.
    pub(super) fn section_of_body(&self, depth: f64, wander: &Wander) -> Section {
        self.section_with(depth, &wander.at(depth))
    }

    fn section_with(&self, depth: f64, jitter: &Jitter) -> Section {
        // A ventricle is about half an ellipsoid: it closes slowly, then fast.
        let shrink = (1.0 - (0.88 * depth).powi(2)).sqrt() * jitter.swell;
        let cavity = self.cavity * shrink;
        let wall = self.wall * (0.75 + 0.25 * shrink);
        let outer = cavity + wall;
        let right_shrink = (1.0 - (depth / self.right_end).powi(2)).max(0.0).sqrt();
        let right = Right {
            offset: outer * 0.8,
            depth: outer * self.right_depth * right_shrink,
            length: outer * self.right_length * right_shrink.sqrt(),
        };
        let shift = 0.004 * self.cavity;
        Section {
            row: self.row + self.drift.0 * depth + shift * jitter.row,
            column: self.column + self.drift.1 * depth + shift * jitter.column,
            cavity,
            wall,
            aspect: self.aspect,
            turn: (self.turn.sin(), self.turn.cos()),
            waves: [0, 1].map(|wave| {
                let (size, phase) = self.waves[wave];
                (size, phase + jitter.phases[wave])
            }),
            // Below three pixels of reach beyond the wall nobody would call it a ventricle.
            right: (right.offset + right.depth > outer + 3.0).then_some(right),
        }
    }
}

/// How a slice differs from what its depth alone would make it.
struct Jitter {
    /// Factor of the radius of the cavity.
    swell: f64,
    /// Shifts of the centre, in shares of 0.004 of the cavity at the base.
    row: f64,
    column: f64,
    /// Added to the phases of the contours' waves.
    phases: [f64; 2],
}

impl Jitter {
    /// Of a slice by itself.
    fn draw(draws: &mut Draws) -> Self {
        let swell = draws.range(0.96, 1.04);
        let (row, column) = (draws.normal(), draws.normal());
        Self { swell, row, column, phases: [draws.range(-0.3, 0.3), draws.range(-0.3, 0.3)] }
    }
}

/// How the slices of one body differ: slow waves from base to apex.
pub(super) struct Wander {
    /// Pace, in waves from base to apex, and phase of what moves: size, row, column, contours.
    waves: [(f64, f64); 4],
}

impl Wander {
    /// Draws the waves of one case.
    pub(super) fn draw(draws: &mut Draws) -> Self {
        Self { waves: [0; 4].map(|_| (draws.range(0.6, 1.4), draws.range(0.0, TAU))) }
    }

    fn at(&self, depth: f64) -> Jitter {
        let [swell, row, column, contours] =
            self.waves.map(|(pace, phase)| (TAU * pace * depth + phase).sin());
        let phases = [0.3 * contours, -0.3 * contours];
        Jitter { swell: 1.0 + 0.05 * swell, row: 10.0 * row, column: 10.0 * column, phases }
    }
}

/// An ellipse on the left of the wall, which hides most of it: the rest is a crescent.
struct Right {
    /// Distance of its centre from that of the left ventricle.
    offset: f64,
    /// Half axis along the line of the two centres.
    depth: f64,
    /// Half axis across.
    length: f64,
}

/// The heart in one slice.
pub(super) struct Section {
    row: f64,
    column: f64,
    cavity: f64,
    wall: f64,
    aspect: f64,
    /// Sine and cosine.
    turn: (f64, f64),
    waves: [(f64, f64); 2],
    right: Option<Right>,
}

/// How far a point lies inside of each structure; negative is outside. Near the edges this is
/// the distance to them.
pub(super) struct Depths {
    pub(super) cavity: f64,
    pub(super) wall: f64,
    /// Negative infinity where the slice has no right ventricle.
    pub(super) right: f64,
}

impl Section {
    /// The largest distance from the centre at which anything of the heart lies.
    pub(super) fn reach(&self) -> f64 {
        let right =
            self.right.as_ref().map_or(0.0, |right| right.length.max(right.offset + right.depth));
        1.2 * (self.cavity + self.wall).max(right)
    }

    /// Row and column of the middle of the left ventricle.
    pub(super) fn centre(&self) -> (f64, f64) {
        (self.row, self.column)
    }

    /// Radius of the left ventricle.
    pub(super) fn cavity(&self) -> f64 {
        self.cavity
    }

    /// The point at an angle and a radius in the frame of the heart, whose angle 0 points away
    /// from the right ventricle, as row and column.
    pub(super) fn point(&self, angle: f64, radius: f64) -> (f64, f64) {
        let (across, along) = (radius * angle.sin() * self.aspect, radius * angle.cos());
        let (sine, cosine) = self.turn;
        (self.row + sine * along + cosine * across, self.column + cosine * along - sine * across)
    }

    /// Radius of the middle of the wall at an angle.
    pub(super) fn mid_wall(&self, angle: f64) -> f64 {
        (self.cavity + 0.5 * self.wall) * self.wave(angle)
    }

    /// Radius of the middle of the right ventricle at an angle, where it is wide enough to draw in.
    pub(super) fn mid_right(&self, angle: f64) -> Option<f64> {
        let right = self.right.as_ref()?;
        let inner = (self.cavity + self.wall) * self.wave(angle);
        // Where the ray from the centre of the heart leaves the ellipse of the right ventricle.
        let (sine, cosine) = angle.sin_cos();
        let (along, across) = (cosine / right.depth, sine / right.length);
        let start = right.offset / right.depth;
        let square = along * along + across * across;
        let half = along * start;
        let root = (half * half - square * (start * start - 1.0)).max(0.0).sqrt();
        let outer = (root - half) / square;
        (outer > inner + 2.5).then_some(f64::midpoint(inner, outer))
    }

    fn wave(&self, angle: f64) -> f64 {
        let [(second, second_phase), (third, third_phase)] = self.waves;
        1.0 + second * (2.0 * angle + second_phase).cos()
            + third * (3.0 * angle + third_phase).cos()
    }

    /// How deep the point lies in each structure.
    pub(super) fn depths(&self, row: f64, column: f64) -> Depths {
        let (down, right_of) = (row - self.row, column - self.column);
        let (sine, cosine) = self.turn;
        let along = sine * down + cosine * right_of;
        let across = (cosine * down - sine * right_of) / self.aspect;
        let radius = along.hypot(across);
        let wave = self.wave(across.atan2(along));
        let right = self.right.as_ref().map_or(f64::NEG_INFINITY, |right| {
            let distance = ((along + right.offset) / right.depth).hypot(across / right.length);
            (1.0 - distance) * right.depth.min(right.length)
        });
        Depths {
            cavity: self.cavity * wave - radius,
            wall: (self.cavity + self.wall) * wave - radius,
            right,
        }
    }

    /// The classes of `size` x `size` pixels by their centres.
    pub(super) fn labels(&self, size: usize) -> Vec<u8> {
        let mut labels = vec![0; size * size];
        let reach = self.reach();
        for row in pixels_within(self.row, reach, size) {
            for column in pixels_within(self.column, reach, size) {
                let depths = self.depths(row as f64, column as f64);
                labels[row * size + column] = match depths {
                    Depths { cavity, .. } if cavity > 0.0 => 3,
                    Depths { wall, .. } if wall > 0.0 => 2,
                    Depths { right, .. } if right > 0.0 => 1,
                    _ => 0,
                };
            }
        }
        labels
    }
}

/// The pixels of one axis of `size` pixels that lie within `reach` of `centre`.
pub(super) fn pixels_within(centre: f64, reach: f64, size: usize) -> std::ops::Range<usize> {
    let first = (centre - reach).floor().max(0.0) as usize;
    let end = ((centre + reach).ceil().max(0.0) as usize + 1).min(size);
    first.min(end)..end
}
