//! Mean-field iterations: messages from every pixel to every other, and a softmax over the labels.
//!
//! Knows kernels and costs, and nothing of pictures. Labels are treated `W` at a time, side by side;
//! those that a last group is filled up with cost infinitely much.

use super::ROUNDER;
use super::kernel::{Filter, Kernel};

/// Pixels that are treated from one sum to the next while the nearest cache holds them.
const BLOCK: usize = 128;

/// `exp` of anything below is zero here: far less than single precision adds to one.
const LEAST_EXPONENT: f32 = -87.0;

/// The kernels of a field, those of places and those of places and colours.
pub(super) struct Kernels {
    pub(super) gaussian: Option<Kernel<3>>,
    pub(super) bilateral: Option<Kernel<6>>,
}

impl Kernels {
    /// The marginals of every label and pixel, in the order of `unary`.
    pub(super) fn marginals<const W: usize>(
        &self,
        unary: &[f32],
        pixels: usize,
        iterations: usize,
    ) -> Vec<f32> {
        let negated = negated_planes::<W>(unary, pixels);
        let mut groups: Vec<_> =
            negated.chunks_exact(pixels).map(|_| self.filters::<W>()).collect();
        let mut block = vec![[0.0; W]; groups.len() * BLOCK];
        let mut marginals = vec![0.0; unary.len()];
        for iteration in 0..=iterations {
            for first in (0..pixels).step_by(BLOCK) {
                let range = first..pixels.min(first + BLOCK);
                let block = &mut block[..groups.len() * range.len()];
                let parts = block.chunks_exact_mut(range.len()).zip(&groups);
                for ((energies, filters), plane) in parts.zip(negated.chunks_exact(pixels)) {
                    energies.copy_from_slice(&plane[range.clone()]);
                    if iteration > 0 {
                        for filter in filters {
                            filter.gather(range.clone(), energies);
                        }
                    }
                }
                softmax(block, range.len());
                if iteration == iterations {
                    for (label, plane) in marginals.chunks_exact_mut(pixels).enumerate() {
                        let values = block[label / W * range.len()..].iter();
                        let found = plane[range.clone()].iter_mut().zip(values);
                        found.for_each(|(marginal, lanes)| *marginal = lanes[label % W]);
                    }
                    continue;
                }
                for (values, filters) in block.chunks_exact(range.len()).zip(&mut groups) {
                    for filter in filters {
                        filter.spread(range.clone(), values);
                    }
                }
            }
            groups.iter_mut().flatten().for_each(|filter| filter.blur());
        }
        marginals
    }

    fn filters<const W: usize>(&self) -> Vec<Box<dyn Filter<W> + '_>> {
        let gaussian = self.gaussian.iter().map(|kernel| Box::new(kernel.sums()) as Box<_>);
        let bilateral = self.bilateral.iter().map(|kernel| Box::new(kernel.sums()) as Box<_>);
        gaussian.chain(bilateral).collect()
    }
}

/// Negative costs, a plane of all pixels for each group of labels.
fn negated_planes<const W: usize>(unary: &[f32], pixels: usize) -> Vec<[f32; W]> {
    let labels = unary.len() / pixels;
    let mut planes = vec![[f32::NEG_INFINITY; W]; labels.div_ceil(W) * pixels];
    for (label, costs) in unary.chunks_exact(pixels).enumerate() {
        let plane = planes[label / W * pixels..].iter_mut();
        plane.zip(costs).for_each(|(lanes, cost)| lanes[label % W] = -cost);
    }
    planes
}

/// Replaces the negative energies of every pixel of a block by its probabilities.
///
/// Pass by pass over the pixels, because the compiler then takes the exponentials of many at once.
fn softmax<const W: usize>(groups: &mut [[f32; W]], pixels: usize) {
    let mut largest = [f32::NEG_INFINITY; BLOCK];
    for plane in groups.chunks_exact(pixels) {
        for (largest, lanes) in largest.iter_mut().zip(plane) {
            *largest = lanes.iter().fold(*largest, |a, &b| if b > a { b } else { a });
        }
    }
    let mut totals = [0.0; BLOCK];
    for plane in groups.chunks_exact_mut(pixels) {
        for (lanes, largest) in plane.iter_mut().zip(&largest) {
            *lanes = lanes.map(|value| value - largest);
        }
        plane.as_flattened_mut().iter_mut().for_each(|value| *value = exponential(*value));
        for (total, lanes) in totals.iter_mut().zip(&*plane) {
            *total += lanes.iter().sum::<f32>();
        }
    }
    for plane in groups.chunks_exact_mut(pixels) {
        for (lanes, total) in plane.iter_mut().zip(&totals) {
            *lanes = lanes.map(|value| value / total);
        }
    }
}

/// `e^x` for `x` of at most zero, to within two units in the last place; zero below -87.
///
/// The polynomial of `expf` in Cephes; without a call the compiler can treat labels side by side.
fn exponential(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const POLYNOMIAL: [f32; 6] =
        [1.987_569_2e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let bounded = if x > LEAST_EXPONENT { x } else { LEAST_EXPONENT };
    // The lowest bits of a number so large are an integer.
    let shifted = bounded * std::f32::consts::LOG2_E + ROUNDER;
    let power = shifted - ROUNDER;
    let rest = bounded - power * LN_2_HIGH - power * LN_2_LOW;
    let series = POLYNOMIAL.into_iter().fold(0.0, |sum, factor| sum * rest + factor);
    let fraction = series * rest * rest + rest + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    if x > LEAST_EXPONENT { fraction * scale } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_that_of_the_standard_library() {
        for step in 0..8700_u16 {
            let x = -f32::from(step) / 100.0;
            let (found, expected) = (f64::from(exponential(x)), f64::from(x).exp());
            assert!(
                (found - expected).abs() <= 2e-7 * expected,
                "{x}: {found}, expected {expected}"
            );
        }
        assert!([-88.0, f32::NEG_INFINITY].iter().all(|&x| exponential(x) <= 0.0));
    }
}
