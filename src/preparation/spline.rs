//! Resampling of numbers along one axis: cubic splines through them, or the nearest of them.
//!
//! Knows plain arrays, and neither channels nor millimetres.

use super::regrid::nearest;

/// Values that are added at each end, all equal to the last one: the weight of what lies further away is
/// below 1e-6 of it.
const PADDING: usize = 12;

/// The pole of the filter that makes coefficients of values, `sqrt(3) - 2`.
const POLE: f64 = -0.267_949_192_431_122_7;

/// Lines that are filtered together, so that memory is read in long pieces.
const LINES: usize = 64;

/// One axis of an array in row-major order: `outer` times `extent` times `inner` values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    pub(super) outer: usize,
    pub(super) extent: usize,
    pub(super) inner: usize,
}

/// The values with `to` voxels along the axis instead, where the edges of both rows coincide, each that of the
/// nearest voxel.
pub(super) fn nearest_along(values: &[f32], axis: Axis, to: usize) -> Vec<f32> {
    let Axis { outer, extent, inner } = axis;
    let mut resampled = Vec::with_capacity(outer * to * inner);
    for block in 0..outer {
        for index in 0..to {
            let from = block * extent + nearest(index, to, extent);
            resampled.extend_from_slice(&values[from * inner..][..inner]);
        }
    }
    resampled
}

/// The same by cubic B-splines that go through all values, beyond the ends of which the last one goes on.
///
/// The values of `scipy.ndimage.zoom` with `order=3, mode="nearest", grid_mode=True`; the filter is that of
/// Unser, Aldroubi and Eden, IEEE Trans. Signal Processing 41 (1993), 821-848.
pub(super) fn cubic_along(values: &[f32], axis: Axis, to: usize) -> Vec<f32> {
    let Axis { outer, extent, inner } = axis;
    let mut resampled = vec![0.0; outer * to * inner];
    let taps: Vec<Taps> = (0..to).map(|index| Taps::at(index, to, extent)).collect();
    let mut lines = vec![[0.0; LINES]; extent + 2 * PADDING];
    for block in 0..outer {
        for first in (0..inner).step_by(LINES) {
            let width = LINES.min(inner - first);
            for (index, line) in lines.iter_mut().enumerate() {
                let from = index.saturating_sub(PADDING).min(extent - 1);
                let start = (block * extent + from) * inner + first;
                for (value, &stored) in line.iter_mut().zip(&values[start..][..width]) {
                    *value = f64::from(stored);
                }
            }
            filter(&mut lines);
            for (index, taps) in taps.iter().enumerate() {
                let start = (block * to + index) * inner + first;
                taps.sum(&lines, &mut resampled[start..][..width]);
            }
        }
    }
    resampled
}

/// Turns values into coefficients of the splines that go through them; beyond both ends they stay the same.
fn filter(lines: &mut [[f64; LINES]]) {
    let gain = (1.0 - POLE) * (1.0 - 1.0 / POLE);
    let mut before = lines[0].map(|value| gain * value / (1.0 - POLE));
    lines[0] = before;
    for line in &mut lines[1..] {
        for (value, before) in line.iter_mut().zip(&mut before) {
            *value = gain * *value + POLE * *before;
            *before = *value;
        }
    }
    let mut behind = before.map(|value| value * POLE / (POLE - 1.0));
    let last = lines.len() - 1;
    lines[last] = behind;
    for line in lines[..last].iter_mut().rev() {
        for (value, behind) in line.iter_mut().zip(&mut behind) {
            *value = POLE * (*behind - *value);
            *behind = *value;
        }
    }
}

/// The coefficients that one voxel is made of, and their weights.
struct Taps {
    first: usize,
    weights: [f64; 4],
}

impl Taps {
    /// Those of voxel `index` of `to`, made of `extent` voxels with [`PADDING`] in front.
    fn at(index: usize, to: usize, extent: usize) -> Self {
        let position = (index as f64 + 0.5) * extent as f64 / to as f64 - 0.5 + PADDING as f64;
        let (first, t) = (position.floor(), position.fract());
        let s = 1.0 - t;
        let near = |t: f64| (4.0 - 6.0 * t * t + 3.0 * t * t * t) / 6.0;
        let weights = [s * s * s / 6.0, near(t), near(s), t * t * t / 6.0];
        Self { first: first as usize - 1, weights }
    }

    fn sum(&self, lines: &[[f64; LINES]], out: &mut [f32]) {
        let [a, b, c, d] = self.weights;
        let lines = &lines[self.first..][..4];
        for (index, out) in out.iter_mut().enumerate() {
            let near = b * lines[1][index] + c * lines[2][index];
            *out = (a * lines[0][index] + near + d * lines[3][index]) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scipy.ndimage.zoom(x, n / len(x), order=3, mode="nearest", grid_mode=True)` of scipy 1.17.1.
    #[test]
    fn splines_are_those_of_scipy() {
        let values = [3.0f32, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0];
        let line = Axis { outer: 1, extent: 7, inner: 1 };
        for (to, expected) in SCIPY {
            let found = cubic_along(&values, line, *to);
            assert_eq!(found.len(), *to);
            for (found, expected) in found.iter().zip(*expected) {
                assert!((f64::from(*found) - expected).abs() < 2e-6, "{to}: {found} {expected}");
            }
        }
    }

    const SCIPY: &[(usize, &[f64])] = &[
        (3, &[-0.314_851, 1.0, 8.483_38]),
        (7, &[3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0]),
        (
            10,
            &[
                3.385_53, 0.230_548, -0.296_502, 3.798_878, 3.534_07, -2.646_669, -4.592_969,
                6.405_041, 7.520_692, 1.201_79,
            ],
        ),
        (
            16,
            &[
                3.545_275, 2.345_762, 0.014_297, -0.969_296, 0.924_825, 3.597_735, 4.457_968,
                2.765_361, -1.258_741, -5.135_267, -4.153_137, 2.783_905, 8.812_641, 7.913_381,
                3.349_658, 0.871_05,
            ],
        ),
    ];

    type Along = fn(&[f32], Axis, usize) -> Vec<f32>;

    #[test]
    fn every_line_of_an_array_is_resampled_alone() {
        let (outer, extent, inner, to) = (2, 5, LINES + 3, 8);
        let values: Vec<f32> =
            (0..outer * extent * inner).map(|i| ((i * 7919) % 101) as f32).collect();
        let (axis, line) = (Axis { outer, extent, inner }, Axis { outer: 1, extent, inner: 1 });
        for along in [cubic_along as Along, nearest_along as Along] {
            let found = along(&values, axis, to);
            for (block, offset) in [(0, 0), (0, LINES), (1, 5), (1, inner - 1)] {
                let alone: Vec<f32> =
                    (0..extent).map(|i| values[(block * extent + i) * inner + offset]).collect();
                let expected = along(&alone, line, to);
                let picked: Vec<f32> =
                    (0..to).map(|i| found[(block * to + i) * inner + offset]).collect();
                assert_eq!(picked, expected);
            }
        }
    }

    #[test]
    fn a_constant_stays_and_a_single_voxel_is_repeated() {
        for (extent, to) in [(1, 5), (6, 4), (3, 11)] {
            let found = cubic_along(&vec![2.5; extent], Axis { outer: 1, extent, inner: 1 }, to);
            assert!(found.iter().all(|value| (value - 2.5).abs() < 1e-6), "{found:?}");
        }
        let axis = Axis { outer: 1, extent: 4, inner: 1 };
        assert_eq!(nearest_along(&[1.0, 2.0, 3.0, 4.0], axis, 2), [2.0, 4.0]);
    }
}
