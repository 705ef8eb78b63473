//! Places between two voxels of a row, and numbers there on the straight line between them.
//!
//! Beyond the ends of a row its last voxel goes on; nothing is smoothed. Knows plain arrays, and neither channels nor
//! millimetres.

use super::regrid::nearest;
use super::spline::Axis;

/// Between which two voxels a position lies, and how far it is from the first to the second, in `[0, 1)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Between {
    pub(super) first: usize,
    pub(super) second: usize,
    pub(super) share: f32,
}

impl Between {
    /// The position of voxel `index` of `from` in a row of `to` whose edges are the same.
    pub(super) fn of(index: usize, from: usize, to: usize) -> Self {
        let position = (index as f64 + 0.5) * to as f64 / from as f64 - 0.5;
        let position = position.clamp(0.0, (to - 1) as f64);
        let first = position as usize;
        let second = (first + 1).min(to - 1);
        Self { first, second, share: (position - first as f64) as f32 }
    }

    /// The voxel that it lies in.
    pub(super) fn nearest(index: usize, from: usize, to: usize) -> Self {
        let first = nearest(index, from, to);
        Self { first, second: first, share: 0.0 }
    }

    /// The number there.
    pub(super) fn mix(self, first: f32, second: f32) -> f32 {
        first + self.share * (second - first)
    }

    /// The later of the two that counts.
    pub(super) fn last(self) -> usize {
        if self.share > 0.0 { self.second } else { self.first }
    }
}

/// The values with `to` voxels along the axis instead, where the edges of both rows coincide, each on the straight
/// line between the two that it lies between.
pub(super) fn between_along(values: &[f32], axis: Axis, to: usize) -> Vec<f32> {
    let Axis { outer, extent, inner } = axis;
    let places: Vec<Between> = (0..to).map(|index| Between::of(index, to, extent)).collect();
    let mut resampled = Vec::with_capacity(outer * to * inner);
    for block in values.chunks_exact((extent * inner).max(1)) {
        for place in &places {
            let first = &block[place.first * inner..][..inner];
            let second = &block[place.second * inner..][..inner];
            resampled.extend(first.iter().zip(second).map(|(one, other)| place.mix(*one, *other)));
        }
    }
    resampled
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.nn.functional.interpolate(x, size=n, mode="linear", align_corners=False)` of PyTorch 2.11.
    #[test]
    fn values_are_those_of_pytorch() {
        let values = [3.0f32, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0];
        let line = Axis { outer: 1, extent: 7, inner: 1 };
        for (to, expected) in PYTORCH {
            let found = between_along(&values, line, *to);
            assert_eq!(found.len(), *to);
            for (found, expected) in found.iter().zip(*expected) {
                assert!((found - expected).abs() < 1e-5, "{to}: {found} {expected}");
            }
        }
    }

    const PYTORCH: &[(usize, &[f32])] = &[
        (3, &[0.33333, 1.0, 6.66667]),
        (7, &[3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0]),
        (10, &[3.0, 0.8, 0.25, 3.75, 2.05, -1.1, -4.3, 5.5, 5.85, 2.0]),
        (
            16,
            &[
                3.0, 2.375, 0.625, -0.84375, 1.34375, 3.53125, 2.96875, 1.65625, -0.3125, -2.9375,
                -3.6875, 2.4375, 8.5625, 6.15625, 3.09375, 2.0,
            ],
        ),
    ];

    #[test]
    fn every_line_of_an_array_is_resampled_alone() {
        let (outer, extent, inner) = (2, 5, 3);
        let values: Vec<f32> = (0..30).map(|i| ((i * 7919) % 101) as f32).collect();
        let found = between_along(&values, Axis { outer, extent, inner }, 8);
        for (block, offset) in [(0, 0), (0, 2), (1, 1)] {
            let alone: Vec<f32> =
                (0..extent).map(|i| values[(block * extent + i) * inner + offset]).collect();
            let expected = between_along(&alone, Axis { outer: 1, extent, inner: 1 }, 8);
            let picked: Vec<f32> =
                (0..8).map(|i| found[(block * 8 + i) * inner + offset]).collect();
            assert_eq!(picked, expected);
        }
    }
}
