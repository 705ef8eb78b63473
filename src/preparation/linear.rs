//! Resampling of numbers along one axis by straight lines, smoothed first where they become fewer.
//!
//! Knows plain arrays, and neither channels nor millimetres.

use super::spline::Axis;

/// How many deviations of a Gaussian count.
const TRUNCATION: f64 = 4.0;

/// The values with `to` voxels along the axis instead, where the edges of both rows coincide.
///
/// With `n` stored voxels and `m = to`, they are smoothed by a Gaussian of deviation `max(0, (n / m - 1) / 2)` that
/// ends at 4 deviations, then voxel `i` lies at `(i + 1/2) n / m - 1/2` on the straight line between two of them.
/// Whatever lies beyond the ends is 0 in both steps. Along each axis in turn these are the values of `resize` of
/// scikit-image with `order=1, mode="constant", anti_aliasing=True`.
pub(super) fn linear_along(values: &[f32], axis: Axis, to: usize) -> Vec<f32> {
    let Axis { outer, extent, inner } = axis;
    let mut resampled = Vec::with_capacity(outer * to * inner);
    let taps: Vec<Taps> = (0..to).map(|index| Taps::at(index, to, extent)).collect();
    let mut sums = vec![0.0; inner];
    for block in values.chunks_exact((extent * inner).max(1)) {
        for Taps { first, weights } in &taps {
            sums.fill(0.0);
            for (weight, line) in weights.iter().zip(block.chunks_exact(inner).skip(*first)) {
                for (sum, &value) in sums.iter_mut().zip(line) {
                    *sum += weight * f64::from(value);
                }
            }
            resampled.extend(sums.iter().map(|&sum| sum as f32));
        }
    }
    resampled
}

/// How much of each of `to` values comes from the `extent` stored ones and not from beyond their ends, above 0.
pub(super) fn shares(extent: usize, to: usize) -> Vec<f32> {
    (0..to).map(|index| Taps::at(index, to, extent).weights.iter().sum::<f64>() as f32).collect()
}

/// The stored voxels that one voxel is made of, and their weights.
struct Taps {
    first: usize,
    weights: Vec<f64>,
}

impl Taps {
    /// Those of voxel `index` of `to`, made of `extent` voxels.
    fn at(index: usize, to: usize, extent: usize) -> Self {
        let step = extent as f64 / to as f64;
        let deviation = ((step - 1.0) / 2.0).max(0.0);
        let kernel = kernel(deviation);
        let reach = (kernel.len() / 2) as i64;
        let position = (index as f64 + 0.5) * step - 0.5;
        let (before, share) = (position.floor() as i64, position - position.floor());
        let last = extent as i64 - 1;
        let first = (before - reach).clamp(0, last);
        let mut weights = vec![0.0; ((before + 1 + reach).clamp(0, last) - first + 1) as usize];
        for (centre, share) in [(before, 1.0 - share), (before + 1, share)] {
            // What is smoothed lies within the ends, too.
            if !(0..=last).contains(&centre) {
                continue;
            }
            for (offset, weight) in (-reach..).zip(&kernel) {
                if (0..=last).contains(&(centre + offset)) {
                    weights[(centre + offset - first) as usize] += share * weight;
                }
            }
        }
        Self { first: first as usize, weights }
    }
}

/// The weights of a Gaussian of so many voxels' deviation, their sum 1.
fn kernel(deviation: f64) -> Vec<f64> {
    let reach = (TRUNCATION * deviation + 0.5) as i64;
    let weight = |offset: i64| (-0.5 * (offset as f64 / deviation).powi(2)).exp();
    let weights: Vec<f64> =
        if reach == 0 { vec![1.0] } else { (-reach..=reach).map(weight).collect() };
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `skimage.transform.resize(x, n, order=1, mode="constant", anti_aliasing=True)` of scikit-image 0.26.
    #[test]
    fn values_are_those_of_scikit_image() {
        let values = [3.0f32, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0];
        let line = Axis { outer: 1, extent: 7, inner: 1 };
        for (to, expected) in SCIKIT_IMAGE {
            let found = linear_along(&values, line, *to);
            assert_eq!(found.len(), *to);
            for (found, expected) in found.iter().zip(*expected) {
                assert!((f64::from(*found) - expected).abs() < 2e-6, "{to}: {found} {expected}");
            }
        }
    }

    const SCIKIT_IMAGE: &[(usize, &[f64])] = &[
        (3, &[1.054_233, 0.457_297, 4.175_83]),
        (7, &[3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0]),
        (10, &[2.55, 0.8, 0.25, 3.75, 2.05, -1.1, -4.3, 5.5, 5.85, 1.7]),
        (
            16,
            &[
                2.156_25, 2.375, 0.625, -0.843_75, 1.343_75, 3.531_25, 2.968_75, 1.656_25,
                -0.312_5, -2.937_5, -3.687_5, 2.437_5, 8.562_5, 6.156_25, 3.093_75, 1.437_5,
            ],
        ),
    ];

    #[test]
    fn every_line_of_an_array_is_resampled_alone() {
        let (outer, extent, inner) = (2, 5, 3);
        let values: Vec<f32> = (0..30).map(|i| ((i * 7919) % 101) as f32).collect();
        for to in [2, 5, 8] {
            let found = linear_along(&values, Axis { outer, extent, inner }, to);
            for (block, offset) in [(0, 0), (0, 2), (1, 1)] {
                let alone: Vec<f32> =
                    (0..extent).map(|i| values[(block * extent + i) * inner + offset]).collect();
                let expected = linear_along(&alone, Axis { outer: 1, extent, inner: 1 }, to);
                let picked: Vec<f32> =
                    (0..to).map(|i| found[(block * to + i) * inner + offset]).collect();
                assert_eq!(picked, expected);
            }
        }
    }

    #[test]
    fn a_constant_fades_towards_the_ends_by_its_shares() {
        for (extent, to) in [(6, 4), (4, 9), (5, 5), (1, 3), (40, 3)] {
            let line = Axis { outer: 1, extent, inner: 1 };
            let found = linear_along(&vec![2.0; extent], line, to);
            for (found, share) in found.iter().zip(shares(extent, to)) {
                assert!((found - 2.0 * share).abs() < 1e-6 && share > 0.3 && share < 1.0 + 1e-6);
            }
        }
    }
}
