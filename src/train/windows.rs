//! Windows over a volume: where they lie, in which order they come, and how much each voxel of one counts.
//!
//! Pure numbers; knows no network and no tensor.

use std::ops::Range;

/// Standard deviation of the weights of a window, as a share of its extent; as in nnU-Net (Isensee et al.,
/// Nature Methods 2021).
const DEVIATION: f64 = 0.125;
/// The smallest weight of a voxel: what a corner alone sees is still divided by a sum that rounding leaves
/// alone.
const LEAST_WEIGHT: f64 = 1e-3;

/// The first voxels of windows of `window` voxels along an axis of `extent`, in equal steps as large as an
/// overlap of at least `overlap`, in [0, 1), allows; rounded to voxels.
///
/// 100 voxels in windows of 40 that overlap by half: 0, 20, 40, 60. An axis that is shorter than a window has
/// one.
pub fn starts(extent: usize, window: usize, overlap: f64) -> Vec<usize> {
    let last = extent.saturating_sub(window);
    let longest = (window as f64 * (1.0 - overlap)).max(1.0);
    let steps = (last as f64 / longest).ceil() as usize;
    let step = last as f64 / steps.max(1) as f64;
    (0..=steps).map(|number| (number as f64 * step).round_ties_even() as usize).collect()
}

/// Weights of the voxels of a window of slices, rows, columns, in row-major order: a Gaussian around its
/// centre, at most 1 and at least 0.001.
///
/// `w(z, y, x) = max(g(z) g(y) g(x), 0.001)` with `g(i) = exp(-(i - (n - 1) / 2)^2 / (2 s^2))`, `s = n / 8`
/// for an axis of `n` voxels.
pub fn weights(window: [usize; 3]) -> Vec<f32> {
    let [slices, rows, columns] = window.map(|extent| {
        let deviation = extent as f64 * DEVIATION;
        let centre = (extent as f64 - 1.0) / 2.0;
        let weight = move |index: usize| {
            let distance = (index as f64 - centre) / deviation;
            (-0.5 * distance * distance).exp()
        };
        (0..extent).map(weight).collect::<Vec<f64>>()
    });
    let mut all = Vec::with_capacity(slices.len() * rows.len() * columns.len());
    for slice in &slices {
        for row in &rows {
            let weight = |column: &f64| (slice * row * column).max(LEAST_WEIGHT) as f32;
            all.extend(columns.iter().map(weight));
        }
    }
    all
}

/// Windows of equal size over a grid, in layers of slices from the first one on.
///
/// A grid that is smaller than a window along an axis is padded there, by as much before as behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Lattice {
    /// Slices, rows, columns of the grid with its padding.
    pub padded: [usize; 3],
    /// The part of it that the grid is.
    pub inside: [Range<usize>; 3],
    /// Slices, rows, columns of a window; windows one slice deep come as stacks of several.
    pub window: [usize; 3],
    /// Slices of each layer of windows.
    pub layers: Vec<Range<usize>>,
    /// First rows and columns of the windows of a layer.
    pub corners: Vec<[usize; 2]>,
}

/// Windows of one layer that go through a network together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The layer.
    pub layer: usize,
    /// Which of its windows.
    pub windows: Range<usize>,
}

impl Lattice {
    /// Windows over a grid of `shape`, at least one voxel along each axis; of those one slice deep, which
    /// see each slice by itself, `together` slices are a layer.
    pub fn new(shape: [usize; 3], window: [usize; 3], overlap: f64, together: usize) -> Self {
        let padded = std::array::from_fn(|axis| shape[axis].max(window[axis]));
        let inside = std::array::from_fn(|axis| {
            let before = (padded[axis] - shape[axis]) / 2;
            before..before + shape[axis]
        });
        let [depth, rows, columns] = window;
        let layers = if depth == 1 {
            let first = (0..padded[0]).step_by(together.max(1));
            first.map(|first| first..(first + together.max(1)).min(padded[0])).collect()
        } else {
            let first = starts(padded[0], depth, overlap).into_iter();
            first.map(|first| first..first + depth).collect()
        };
        let of_rows = starts(padded[1], rows, overlap);
        let of_columns = starts(padded[2], columns, overlap);
        let row = |row: usize| of_columns.iter().map(move |&column| [row, column]);
        let corners = of_rows.into_iter().flat_map(row).collect();
        Self { padded, inside, window, layers, corners }
    }

    /// One window of `size` rows and columns about the middle of each slice, by itself, of a grid of `shape`;
    /// what lies around it no window sees. `together` slices are a layer.
    pub fn central(shape: [usize; 3], size: usize, together: usize) -> Self {
        let lattice = Self::new(shape, [1, size, size], 0.0, together);
        let [_, rows, columns] = lattice.padded;
        Self { corners: vec![[(rows - size) / 2, (columns - size) / 2]], ..lattice }
    }

    /// Whether every voxel lies in a window.
    pub fn covers(&self) -> bool {
        self.corners.len() > 1 || self.padded[1..] == self.window[1..]
    }

    /// Whether any voxel lies in more than one window.
    pub fn overlaps(&self) -> bool {
        self.corners.len() > 1 || self.layers.windows(2).any(|pair| pair[1].start < pair[0].end)
    }

    /// Whether the grid is smaller than a window along some axis.
    pub fn is_padded(&self) -> bool {
        self.inside.iter().zip(self.padded).any(|(inside, padded)| inside.len() < padded)
    }

    /// Slices of the deepest layer.
    pub fn depth(&self) -> usize {
        self.layers.iter().map(ExactSizeIterator::len).max().unwrap_or(0)
    }

    /// All windows in their order, up to `most` of a layer at a time.
    pub fn groups(&self, most: usize) -> Vec<Group> {
        let windows = self.corners.len();
        let of_layer = |layer: usize| {
            let first = (0..windows).step_by(most.max(1));
            first.map(move |first| Group {
                layer,
                windows: first..(first + most.max(1)).min(windows),
            })
        };
        (0..self.layers.len()).flat_map(of_layer).collect()
    }

    /// The slices of the padded grid that no window after those of a layer reaches, and that one before
    /// may have left over.
    pub fn finished(&self, layer: usize) -> Range<usize> {
        let next = self.layers.get(layer + 1).map_or(self.padded[0], |next| next.start);
        self.layers[layer].start..next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn windows_cover_an_axis_in_order_and_overlap_as_asked(
            extent in 1usize..200,
            window in 1usize..60,
            overlap in 0.0f64..0.95,
        ) {
            let found = starts(extent, window, overlap);
            prop_assert_eq!(found[0], 0);
            prop_assert_eq!(found[found.len() - 1] + window, extent.max(window));
            let most = (window as f64 * (1.0 - overlap)).ceil().max(1.0) as usize;
            for pair in found.windows(2) {
                prop_assert!(pair[0] < pair[1] && pair[1] - pair[0] <= most, "{:?}", found);
            }
        }

        #[test]
        fn layers_finish_every_slice_once_and_hold_no_more_than_they_are_deep(
            slices in 1usize..60,
            depth in 1usize..20,
            overlap in 0.0f64..0.95,
        ) {
            let lattice = Lattice::new([slices, 5, 5], [depth, 5, 5], overlap, 8);
            let mut next = 0;
            for (layer, of_layer) in lattice.layers.iter().enumerate() {
                let finished = lattice.finished(layer);
                prop_assert_eq!(finished.start, next);
                prop_assert!(of_layer.len() <= lattice.depth());
                prop_assert!(finished.start == of_layer.start && finished.end <= of_layer.end);
                next = finished.end;
            }
            prop_assert_eq!(next, lattice.padded[0]);
        }
    }

    #[test]
    fn steps_are_equal_and_rounded() {
        assert_eq!(starts(100, 40, 0.5), [0, 20, 40, 60]);
        assert_eq!(starts(101, 40, 0.5), [0, 15, 30, 46, 61]);
        assert_eq!(starts(40, 40, 0.5), [0]);
        assert_eq!(starts(7, 40, 0.5), [0]);
        assert_eq!(starts(4, 1, 0.5), [0, 1, 2, 3]);
    }

    #[test]
    fn weights_are_largest_in_the_middle_and_never_0() {
        let found = weights([1, 3, 5]);
        assert_eq!(found.len(), 15);
        assert!((found[7] - 1.0).abs() < 1e-7 && found.iter().all(|&w| (1e-3..=1.0).contains(&w)));
        // (1 / 0.625)^2 / 2 = 1.28 from the middle of five.
        assert!((f64::from(found[6]) - (-1.28f64).exp()).abs() < 1e-7);
        assert!(found.iter().eq(found.iter().rev()), "symmetric");
        assert!((weights([8, 8, 8])[0] - 1e-3).abs() < 1e-9, "a corner");
    }

    #[test]
    fn small_grids_are_padded_on_both_sides() {
        let lattice = Lattice::new([1, 4, 9], [3, 8, 8], 0.5, 8);
        assert_eq!(lattice.padded, [3, 8, 9]);
        assert_eq!(lattice.inside, [1..2, 2..6, 0..9]);
        assert_eq!((&lattice.layers[0], lattice.layers.len()), (&(0..3), 1));
        assert_eq!(lattice.corners, [[0, 0], [0, 1]]);
    }

    #[test]
    fn a_central_window_lies_about_the_middle_and_need_not_cover() {
        let lattice = Lattice::central([5, 25, 19], 22, 4);
        assert_eq!((lattice.padded, lattice.inside.clone()), ([5, 25, 22], [0..5, 0..25, 1..20]));
        assert_eq!(
            (lattice.corners.clone(), lattice.layers.clone()),
            (vec![[1, 0]], vec![0..4, 4..5])
        );
        assert!(!lattice.covers() && !lattice.overlaps() && lattice.is_padded());
        assert!(Lattice::central([5, 22, 19], 22, 4).covers());
        assert!(Lattice::new([5, 25, 19], [1, 22, 22], 0.5, 4).covers());
    }

    #[test]
    fn windows_one_slice_deep_come_as_stacks() {
        let lattice = Lattice::new([19, 4, 4], [1, 4, 4], 0.5, 8);
        assert_eq!(lattice.layers, [0..8, 8..16, 16..19]);
        assert!(!lattice.overlaps() && lattice.depth() == 8);
        let lattice = Lattice::new([1, 8, 8], [1, 4, 4], 0.5, 8);
        assert!(lattice.overlaps());
        let groups = lattice.groups(4);
        assert_eq!(groups.len(), 3);
        assert_eq!(groups[2], Group { layer: 0, windows: 8..9 });
    }
}
