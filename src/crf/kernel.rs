//! Sums over all pixels, weighted by a Gaussian of their features, on a lattice.
//!
//! Values are spread over the vertices around each pixel, blurred along every axis of the lattice,
//! and gathered again. Knows values side by side, and not that they are probabilities.

use super::lattice::Lattice;
use std::ops::Range;

/// Keeps the root of a sum of weights above zero.
const LEAST_SUM: f32 = 1e-20;

/// A normalised kernel on a lattice with `V` axes.
pub(super) struct Kernel<const V: usize> {
    /// The weights of its corners are multiplied by the normalisation of their pixel.
    lattice: Lattice<V>,
    strength: f32,
}

/// Takes the values of all pixels, a few of them at a time, and gives their weighted sums.
pub(super) trait Filter<const W: usize> {
    /// Adds values of some pixels to what is summed up.
    fn spread(&mut self, pixels: Range<usize>, values: &[[f32; W]]);
    /// Sums up what was spread since the last time.
    fn blur(&mut self);
    /// Adds to `sums` those of some pixels.
    fn gather(&self, pixels: Range<usize>, sums: &mut [[f32; W]]);
}

/// A kernel at work.
pub(super) struct Sums<'a, const V: usize, const W: usize> {
    kernel: &'a Kernel<V>,
    /// At every vertex, and zero for those that are not there.
    spread: Vec<[f32; W]>,
    summed: Vec<[f32; W]>,
}

impl<const V: usize> Kernel<V> {
    /// Normalises the kernel of a lattice symmetrically: `N K N` with
    /// `N = diag(1 / sqrt(K 1 + 1e-20))`; its sums are multiplied by `strength`.
    pub(super) fn new(lattice: Lattice<V>, strength: f32) -> Self {
        // What the blurs leave in place of the mass of one, for so many axes.
        let gain = 1.0 / (1.0 + 0.5_f32.powi(V as i32 - 1));
        let pixels = lattice.corners.len();
        let mut kernel = Self { lattice, strength: gain };
        let mut totals = vec![[0.0]; pixels];
        let mut sums = kernel.sums();
        sums.spread(0..pixels, &vec![[1.0]; pixels]);
        sums.blur();
        sums.gather(0..pixels, &mut totals);
        for (corners, [total]) in kernel.lattice.corners.iter_mut().zip(totals) {
            let factor = 1.0 / (total + LEAST_SUM).sqrt();
            for corner in corners {
                corner.weight *= factor;
            }
        }
        kernel.strength = gain * strength;
        kernel
    }

    /// Begins to filter `W` values side by side.
    pub(super) fn sums<const W: usize>(&self) -> Sums<'_, V, W> {
        let zeros = vec![[0.0; W]; self.lattice.nowhere() + 1];
        Sums { kernel: self, summed: zeros.clone(), spread: zeros }
    }
}

impl<const V: usize, const W: usize> Filter<W> for Sums<'_, V, W> {
    fn spread(&mut self, pixels: Range<usize>, values: &[[f32; W]]) {
        for (value, corners) in values.iter().zip(&self.kernel.lattice.corners[pixels]) {
            for corner in corners {
                let sum = &mut self.spread[corner.vertex as usize];
                for lane in 0..W {
                    sum[lane] += corner.weight * value[lane];
                }
            }
        }
    }

    fn blur(&mut self) {
        for neighbours in &self.kernel.lattice.neighbours {
            blur(&self.spread, neighbours, &mut self.summed);
            std::mem::swap(&mut self.spread, &mut self.summed);
        }
        std::mem::swap(&mut self.spread, &mut self.summed);
        self.spread.fill([0.0; W]);
    }

    fn gather(&self, pixels: Range<usize>, sums: &mut [[f32; W]]) {
        let strength = self.kernel.strength;
        for (sum, corners) in sums.iter_mut().zip(&self.kernel.lattice.corners[pixels]) {
            let mut gathered = [0.0; W];
            for corner in corners {
                let value = &self.summed[corner.vertex as usize];
                for lane in 0..W {
                    gathered[lane] += corner.weight * value[lane];
                }
            }
            for lane in 0..W {
                sum[lane] += strength * gathered[lane];
            }
        }
    }
}

/// Adds half of both neighbours along one axis to every vertex.
fn blur<const W: usize>(from: &[[f32; W]], neighbours: &[[u32; 2]], to: &mut [[f32; W]]) {
    for ((sum, own), &[one, other]) in to.iter_mut().zip(from).zip(neighbours) {
        let (one, other) = (&from[one as usize], &from[other as usize]);
        for lane in 0..W {
            sum[lane] = own[lane] + 0.5 * (one[lane] + other[lane]);
        }
    }
}
