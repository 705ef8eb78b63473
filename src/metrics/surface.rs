//! How far two surfaces of one class lie apart: the distances from every surface voxel to the other side,
//! and what they come to.
//!
//! This file knows nothing of empty sides.

use super::search::Search;
use super::transform;
use super::voxels::{Squares, SurfaceVoxels};

/// How far apart the two surfaces of one class are.
///
/// A voxel is surface if it or one of its six neighbours lies outside the object; beyond the border
/// of the volume everything is outside. Distances are between voxel centres, in units of the spacing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Surface {
    /// Both sides have the class.
    Distances(Distances),
    /// The truth has the class, the prediction has not.
    EmptyPrediction,
    /// The prediction has the class, the truth has not.
    EmptyTruth,
    /// Neither side has the class.
    BothEmpty,
}

impl Surface {
    /// The distances, where there are any.
    pub fn distances(self) -> Option<Distances> {
        match self {
            Self::Distances(distances) => Some(distances),
            Self::EmptyPrediction | Self::EmptyTruth | Self::BothEmpty => None,
        }
    }
}

/// Summaries of the distances from each surface voxel to the nearest one of the other side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distances {
    /// Hausdorff distance: the largest of both directions.
    pub hd: f64,
    /// 95th percentile of both directions together, interpolated linearly as numpy does.
    pub hd95: f64,
    /// Mean from the prediction to the truth only; not symmetric.
    pub asd: f64,
    /// Mean of both directions together.
    pub assd: f64,
}

/// The distance from each surface voxel of one side to the nearest one of the other, in units of the
/// spacing. Both sides have surface voxels.
#[derive(Debug, Clone, PartialEq)]
pub struct SurfaceDistances {
    /// Those of the prediction, in row-major order, and after them those of the truth.
    all: Vec<f64>,
    /// How many are of the prediction.
    predicted: usize,
}

impl SurfaceDistances {
    /// Measures two surfaces of a volume of `shape`.
    pub(super) fn between(
        prediction: &SurfaceVoxels,
        truth: &SurfaceVoxels,
        shape: [usize; 3],
        spacing: [f64; 3],
    ) -> Self {
        let squares = Squares::new(shape, spacing);
        let mut all = distances(prediction, truth, &squares);
        let predicted = all.len();
        all.extend(distances(truth, prediction, &squares));
        Self { all, predicted }
    }

    /// NSD, the normalised surface Dice at a tolerance, in `[0, 1]`: the share of the surface voxels of both
    /// sides that lie within `tolerance`, in units of the spacing, of the other surface,
    ///
    /// `(|S_p within t of S_t| + |S_t within t of S_p|) / (|S_p| + |S_t|)`.
    ///
    /// Source: Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for radiotherapy",
    /// 2021, with voxels counted instead of the areas of surface elements.
    pub fn within(&self, tolerance: f64) -> f64 {
        let near = self.all.iter().filter(|&&distance| distance <= tolerance);
        near.count() as f64 / self.all.len() as f64
    }

    /// What the distances come to.
    pub fn summary(mut self) -> Distances {
        Distances {
            hd: self.all.iter().copied().fold(0.0, f64::max),
            asd: mean(&self.all[..self.predicted]),
            assd: mean(&self.all),
            hd95: percentile_95(&mut self.all),
        }
    }
}

/// The distance from each voxel of `from` to the nearest of `to`.
///
/// A search is the faster way for surfaces that lie close together, and a transform for all others. The
/// search goes on until it has cost as much as a transform would have, so that the sum is never more than
/// about twice the cheaper of both.
fn distances(from: &SurfaceVoxels, to: &SurfaceVoxels, squares: &Squares) -> Vec<f64> {
    let most_rows = transform::cost(from, to) / COST_OF_ROW;
    let mut search = Search::of(to, squares);
    let mut distances = Vec::with_capacity(from.voxels.len());
    for &voxel in &from.voxels {
        distances.push(search.distance(voxel));
        if search.visited > most_rows {
            return transform::distances(from, to, squares);
        }
    }
    distances
}

/// What a search pays for a visit of one row, in the unit of [`transform::cost`].
const COST_OF_ROW: usize = 2;

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The 95th percentile by numpy's method "linear", rounded as numpy rounds. Reorders the values.
fn percentile_95(values: &mut [f64]) -> f64 {
    let position = 0.95 * (values.len() - 1) as f64;
    let (_, &mut low, above) =
        values.select_nth_unstable_by(position.floor() as usize, f64::total_cmp);
    let high = above.iter().copied().min_by(f64::total_cmp).unwrap_or(low);
    let share = position.fract();
    if share < 0.5 { low + (high - low) * share } else { high - (high - low) * (1.0 - share) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Each distance by the search and by the transform.
    fn both_ways(sides: [&[u8]; 2], shape: [usize; 3], spacing: [f64; 3]) -> Option<[Vec<f64>; 2]> {
        let squares = Squares::new(shape, spacing);
        if !sides.iter().all(|side| side.contains(&1)) {
            return None;
        }
        let [from, to] = sides.map(|labels| SurfaceVoxels::of(labels, shape, 1));
        let mut search = Search::of(&to, &squares);
        let searched = from.voxels.iter().map(|&voxel| search.distance(voxel)).collect();
        Some([searched, transform::distances(&from, &to, &squares)])
    }

    fn bits(values: &[f64]) -> Vec<u64> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    /// Few and many voxels on either side, in boxes that need not touch.
    fn side(shape: [usize; 3]) -> impl Strategy<Value = Vec<u8>> {
        let share = prop_oneof![Just(0.01), Just(0.1), 0.1..0.9f64];
        let inside = |at: usize, extent: usize| (0..extent, 0..extent, Just(at));
        let voxels = shape.iter().product::<usize>();
        let limits = [0, 1, 2].map(|axis| inside(axis, shape[axis]));
        (share.prop_flat_map(move |share| vec(prop::bool::weighted(share), voxels)), limits)
            .prop_map(move |(voxels, limits)| {
                let is_inside = |index: usize| {
                    let [_, height, width] = shape;
                    let place = [index / (height * width), index / width % height, index % width];
                    limits.iter().all(|&(a, b, axis)| (a.min(b)..=a.max(b)).contains(&place[axis]))
                };
                let label = |(index, voxel)| u8::from(voxel && is_inside(index));
                voxels.into_iter().enumerate().map(label).collect()
            })
    }

    proptest! {
        // Spacings whose squares round, alike along axes so that many distances are all but the same.
        #[test]
        fn a_search_and_a_transform_give_the_same_bits(
            (shape, sides) in [1..9usize, 1..17usize, 1..17usize]
                .prop_flat_map(|shape| (Just(shape), [side(shape), side(shape)])),
            spacing in prop_oneof![
                Just([0.7; 3]), Just([1.1, 0.3, 0.3]), Just([10.0, 1.5625, 1.3]),
                [0.05..20.0f64, 0.05..20.0, 0.05..20.0],
            ],
        ) {
            if let Some([searched, transformed]) = both_ways([&sides[0], &sides[1]], shape, spacing) {
                prop_assert_eq!(bits(&searched), bits(&transformed));
            }
        }
    }

    #[test]
    fn a_search_that_costs_too_much_ends_and_changes_nothing() {
        let shape = [24, 40, 40];
        let strewn: Vec<u8> = (0..24 * 1600).map(|index| u8::from(index % 3 == 0)).collect();
        let corner: Vec<u8> = (0..24 * 1600)
            .map(|index| u8::from(index / 1600 < 4 && index / 40 % 40 < 9 && index % 40 < 9))
            .collect();
        let spacing = [2.5, 0.8, 0.8];
        let squares = Squares::new(shape, spacing);
        let [from, to] = [&strewn, &corner].map(|labels| SurfaceVoxels::of(labels, shape, 1));
        let mut search = Search::of(&to, &squares);
        let searched: Vec<f64> = from.voxels.iter().map(|&v| search.distance(v)).collect();
        let most_rows = transform::cost(&from, &to) / COST_OF_ROW;
        assert!(search.visited > 2 * most_rows, "{} rows, {most_rows} allowed", search.visited);
        assert_eq!(bits(&distances(&from, &to, &squares)), bits(&searched));
    }
}
