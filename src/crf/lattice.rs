//! The permutohedral lattice: in which simplex each pixel lies, and which vertices are neighbours.
//!
//! Adams, Baek and Davis, *Fast High-Dimensional Filtering Using the Permutohedral Lattice*,
//! Eurographics 2010, with the arithmetic of `pydensecrf` in its order and precision: in another
//! one, pixels on the border of two simplices fall to the other one and bring other vertices into
//! being. Knows features of pixels; what is filtered on the lattice is for [`super::kernel`].
//!
//! A lattice for `D` features has `V = D + 1` axes, and as many vertices in a simplex. All
//! coordinates of a vertex leave the same remainder, its colour, when divided by `V`: so a key
//! holds the `D` quotients in fields above the colour in its three lowest bits.

use super::vertices::Vertices;
use super::{LARGEST_ROUNDED, ROUNDER};
use crate::error::{Failure, Result};

/// Pixels whose arithmetic is done side by side.
const LANES: usize = 8;

/// Bits of a key below the quotients; they hold a colour from 0 to 7.
const COLOUR_BITS: u32 = 3;
const COLOUR_MASK: i64 = 7;

/// The last block of `pydensecrf` is filled up to this many pixels.
const REFERENCE_BLOCK: usize = 4;

/// One vertex of the simplex around a pixel.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Corner {
    pub(super) vertex: u32,
    /// The pixel's barycentric coordinate.
    pub(super) weight: f32,
}

/// All pixels on a lattice with `V` axes.
pub(super) struct Lattice<const V: usize> {
    /// The simplex around each pixel.
    pub(super) corners: Vec<[Corner; V]>,
    /// For each axis the two neighbours of every vertex along it; [`Self::nowhere`] where there is
    /// none.
    pub(super) neighbours: [Vec<[u32; 2]>; V],
}

impl<const V: usize> Lattice<V> {
    /// Places `pixels` pixels by their features, the first `V - 1` of each item.
    ///
    /// Fails where a feature is so large that a vertex has no key.
    pub(super) fn of(pixels: usize, mut features: impl Iterator<Item = [f32; V]>) -> Result<Self> {
        let geometry = Geometry::new();
        let mut vertices = Vertices::new();
        let mut corners = Vec::with_capacity(pixels + LANES);
        // Most pixels share vertices with the one before.
        let mut latest = [(i64::MIN, 0); V];
        for first in (0..pixels).step_by(LANES) {
            let count = (pixels - first).min(LANES);
            let mut block = [[0.0; LANES]; V];
            for (lane, feature) in features.by_ref().take(count).enumerate() {
                for (row, value) in block.iter_mut().zip(feature) {
                    row[lane] = value;
                }
            }
            let block = geometry.place(&block)?;
            // The reference fills its last block up with pixels of features zero, which bring
            // vertices into being that no pixel of the picture may touch.
            for lane in 0..count.next_multiple_of(REFERENCE_BLOCK) {
                let (keys, weights) = geometry.simplex(&block, lane);
                let mut simplex = [Corner::default(); V];
                for colour in 0..V {
                    if latest[colour].0 != keys[colour] {
                        latest[colour] = (keys[colour], vertices.find_or_add(keys[colour]));
                    }
                    simplex[colour] = Corner { vertex: latest[colour].1, weight: weights[colour] };
                }
                corners.push(simplex);
            }
        }
        corners.truncate(pixels);
        Ok(Self { corners, neighbours: geometry.neighbours(&vertices) })
    }

    /// The number of vertices, and what stands for a neighbour that is not there.
    pub(super) fn nowhere(&self) -> usize {
        self.neighbours[0].len()
    }
}

/// What depends on the number of axes alone.
struct Geometry<const V: usize> {
    /// The length of a step of each feature.
    scales: [f32; V],
    /// What a step along each axis adds to a key; nothing for the last one, whose coordinate
    /// follows from the others.
    units: [i64; V],
    /// Coordinates stay below this.
    limit: f32,
}

/// A block of pixels in the coordinates of the lattice.
struct Block<const V: usize> {
    /// Distances from the nearest vertex of colour 0 in units of `V`.
    offsets: [[f32; LANES]; V],
    /// That vertex, divided by `V`.
    quotients: [[f32; LANES]; V],
    /// Which place each axis has when they are sorted by falling distance.
    ranks: [[f32; LANES]; V],
}

impl<const V: usize> Geometry<V> {
    const AXES: f32 = V as f32;

    fn new() -> Self {
        let field_bits = (i64::BITS - COLOUR_BITS - 1) / (V as u32 - 1);
        let deviation = ((2.0_f64 / 3.0).sqrt() * V as f64) as f32;
        let scale = |axis: usize| {
            let edge = 1.0 / (((axis + 2) * (axis + 1)) as f64).sqrt();
            (edge * f64::from(deviation)) as f32
        };
        let unit = |axis: usize| 1 << (COLOUR_BITS + field_bits * axis as u32);
        Self {
            scales: std::array::from_fn(scale),
            units: std::array::from_fn(|axis| if axis + 1 < V { unit(axis) } else { 0 }),
            // The other corners of a simplex, and the steps to their neighbours, must fit as well.
            limit: V as f32 * (((1_u64 << (field_bits - 1)) - 3) as f32).min(LARGEST_ROUNDED),
        }
    }

    /// Finds the simplices around the pixels of a block.
    fn place(&self, features: &[[f32; LANES]; V]) -> Result<Block<V>> {
        let elevated = self.elevate(features);
        let mut quotients = [[0.0; LANES]; V];
        let mut distances = [[0.0; LANES]; V];
        let mut sums = [0.0; LANES];
        let mut within = true;
        for axis in 0..V {
            for lane in 0..LANES {
                let value = elevated[axis][lane];
                let quotient = (value * (1.0 / Self::AXES) + ROUNDER) - ROUNDER;
                quotients[axis][lane] = quotient;
                distances[axis][lane] = value - quotient * Self::AXES;
                sums[lane] += quotient;
                within &= value.abs() < self.limit;
            }
        }
        if !within {
            return Err(Failure::new(format!(
                "a pixel lies more than {} steps of the lattice from its origin",
                self.limit
            ))
            .hint("widen the kernel: a width far below one pixel or grey level smooths nothing"));
        }
        let mut ranks = rank(&distances);
        for axis in 0..V {
            for lane in 0..LANES {
                // A vertex whose coordinates do not sum to zero is not on the lattice yet.
                let rank = ranks[axis][lane] + sums[lane];
                let up = if rank < 0.0 { 1.0 } else { 0.0 };
                let down = if rank >= Self::AXES { 1.0 } else { 0.0 };
                let quotient = quotients[axis][lane] + (up - down);
                ranks[axis][lane] = rank + (up - down) * Self::AXES;
                quotients[axis][lane] = quotient;
                distances[axis][lane] =
                    (elevated[axis][lane] - quotient * Self::AXES) * (1.0 / Self::AXES);
            }
        }
        Ok(Block { offsets: distances, quotients, ranks })
    }

    /// Maps features onto the plane of coordinates that sum to zero.
    fn elevate(&self, features: &[[f32; LANES]; V]) -> [[f32; LANES]; V] {
        let mut elevated = [[0.0; LANES]; V];
        let mut sums = [0.0; LANES];
        for axis in (1..V).rev() {
            for lane in 0..LANES {
                let step = features[axis - 1][lane] * self.scales[axis - 1];
                elevated[axis][lane] = sums[lane] - axis as f32 * step;
                sums[lane] += step;
            }
        }
        elevated[0] = sums;
        elevated
    }

    /// The keys of the vertices around a pixel and its barycentric coordinates, by colour.
    fn simplex(&self, block: &Block<V>, lane: usize) -> ([i64; V], [f32; V]) {
        let mut units = [0; V];
        let mut offsets = [0.0; V];
        let mut key = 0;
        for axis in 0..V {
            let rank = block.ranks[axis][lane] as usize;
            units[rank] = self.units[axis];
            offsets[rank] = block.offsets[axis][lane];
            key += self.units[axis] * i64::from(block.quotients[axis][lane] as i32);
        }
        let mut keys = [key; V];
        let mut weights = [offsets[V - 1] + (1.0 - offsets[0]); V];
        for colour in 1..V {
            // From one colour to the next all coordinates grow by one, but that of the next axis
            // in line falls by V - 1.
            keys[colour] = keys[colour - 1] + 1 - units[V - colour];
            weights[colour] = offsets[V - colour - 1] - offsets[V - colour];
        }
        (keys, weights)
    }

    /// The neighbours of all vertices along each axis.
    fn neighbours(&self, vertices: &Vertices) -> [Vec<[u32; 2]>; V] {
        let keys = vertices.keys();
        let nowhere = keys.len() as u32;
        let last_colour = V as i64 - 1;
        let everywhere: i64 = self.units.iter().sum();
        self.units.map(|unit| {
            let mut neighbours = vec![[nowhere; 2]; keys.len()];
            for (vertex, &key) in keys.iter().enumerate() {
                // All coordinates one less, but that of the axis V - 1 more.
                let lowered =
                    if key & COLOUR_MASK > 0 { key - 1 } else { key + last_colour - everywhere };
                if let Some(near) = vertices.find(lowered + unit) {
                    neighbours[vertex][0] = near;
                    neighbours[near as usize][1] = vertex as u32;
                }
            }
            neighbours
        })
    }
}

/// Which place each axis has when they are sorted by falling distance; of equal ones the first
/// comes first.
fn rank<const V: usize>(distances: &[[f32; LANES]; V]) -> [[f32; LANES]; V] {
    let mut ranks = [[0.0; LANES]; V];
    for one in 0..V {
        for other in one + 1..V {
            for lane in 0..LANES {
                let behind = if distances[one][lane] < distances[other][lane] { 1.0 } else { 0.0 };
                ranks[one][lane] += behind;
                ranks[other][lane] += 1.0 - behind;
            }
        }
    }
    ranks
}
