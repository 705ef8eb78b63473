//! Images hidden cell by cell, and the predictions of what is left of them mixed.
//!
//! What is drawn comes in as an argument. Knows no network, no loss, no step and no rank.

use crate::random::{Key, permutation};
use tch::Tensor;

/// Rows and columns of the grid of cells that a mask shows or hides.
const GRID: i64 = 32;

/// Which cells of a 32 x 32 grid two branches see.
///
/// The operator of `MaskMix` (`lichen14/MaskMixAdv` at cf584ee): cell `i` in row-major order is
/// visible to the first branch where place `i` of a permutation holds less than `ratio * 1024`, and
/// to the second everywhere else. Here both may see more, so that their views overlap.
#[derive(Debug)]
pub struct CellMasks {
    /// For each branch `[1, 1, 32, 32]`, or `[N, 1, 32, 32]` with masks of each sample's own: 1 for
    /// visible, 0 for hidden.
    cells: [Tensor; 2],
}

/// How two branches divide the cells of one sample.
struct Views {
    /// A permutation of 0 to 1023.
    order: Vec<usize>,
    /// Share of the cells that the first branch sees where views do not overlap.
    ratio: f64,
    /// Share of what a branch should not see that is hidden from it: 0 shows both everything.
    hidden: f64,
}

/// Complementary masks for all samples: `order` is a permutation of 0 to 1023, `ratio` in [0, 1]
/// the share of cells that the first branch sees. As [`CellMasks::of`] takes them.
pub fn divided(order: &[usize], ratio: f64) -> Vec<f64> {
    cells(&[Views { order: order.to_vec(), ratio, hidden: 1.0 }])
}

/// Complementary masks from keys: one for all samples, or one for each.
pub fn drawn(keys: &[Key], ratio: f64) -> Vec<f64> {
    let draw = |key: &Key| Views { order: cells_of(*key), ratio, hidden: 1.0 };
    cells(&keys.iter().map(draw).collect::<Vec<_>>())
}

/// Masks from a key for each sample that overlap by a random share: uniformly from views of
/// everything to complementary ones.
pub fn overlapping(keys: &[Key], ratio: f64) -> Vec<f64> {
    let draw = |key: &Key| {
        let hidden = key.purpose("hidden").draws().uniform();
        Views { order: cells_of(*key), ratio, hidden }
    };
    cells(&keys.iter().map(draw).collect::<Vec<_>>())
}

/// What the first branch sees of every sample, then what the second does.
fn cells(samples: &[Views]) -> Vec<f64> {
    let seen = |visible: &dyn Fn(&Views, usize) -> bool| -> Vec<f64> {
        let of_sample = |views: &Views| -> Vec<f64> {
            let of_cell = |&place: &usize| if visible(views, place) { 1.0 } else { 0.0 };
            views.order.iter().map(of_cell).collect()
        };
        samples.iter().flat_map(of_sample).collect()
    };
    let first = |views: &Views, place| {
        place < cell_count(views.ratio + (1.0 - views.ratio) * (1.0 - views.hidden))
    };
    let second = |views: &Views, place| place >= cell_count(views.ratio * views.hidden);
    [seen(&first), seen(&second)].concat()
}

impl CellMasks {
    /// The masks of both branches from the cells that they see: 1 or 0 for every cell of every sample,
    /// first those of one branch, then those of the other, `[2 * samples * 1024]`.
    pub fn of(cells: &Tensor) -> Self {
        let cells = cells.view([2, -1, 1, GRID, GRID]);
        Self { cells: [cells.get(0), cells.get(1)] }
    }

    /// Both masks at the size and precision of `like`, `[N, C, H, W]`: `[1 or N, 1, H, W]` of 1 for
    /// visible and 0 for hidden. Pixels take the value of the cell that they lie in.
    pub fn at_size_of(&self, like: &Tensor) -> [Tensor; 2] {
        let size = like.size();
        self.cells.each_ref().map(|cells| {
            cells.to_kind(like.kind()).upsample_nearest2d([size[2], size[3]], None, None)
        })
    }
}

fn cells_of(key: Key) -> Vec<usize> {
    permutation(key, (GRID * GRID) as usize)
}

/// The whole cells in a share of all.
fn cell_count(share: f64) -> usize {
    (share * (GRID * GRID) as f64).floor() as usize
}

/// Predictions of two branches, each where it saw the image, their mean where both did.
///
/// Probabilities `[N, C, H, W]`, masks `[1 or N, 1, H, W]` of which at least one is 1 at every pixel.
pub fn mix(predictions: [&Tensor; 2], masks: &[Tensor; 2]) -> Tensor {
    let [first, second] = masks;
    (predictions[0] * first + predictions[1] * second) / (first + second)
}

/// The most probable class of every pixel, `[N, H, W]` `i64` from `[N, C, H, W]`; no gradient.
pub fn label_map(probabilities: &Tensor) -> Tensor {
    probabilities.detach().argmax(1, false)
}

/// The mean class number of every pixel, `[N, 1, H, W]` from probabilities `[N, C, H, W]`.
pub fn expected_class(probabilities: &Tensor) -> Tensor {
    let classes = probabilities.size()[1];
    let numbers = Tensor::arange(classes, (probabilities.kind(), probabilities.device()));
    (probabilities * numbers.view([1, -1, 1, 1])).sum_dim_intlist(
        [1i64].as_slice(),
        true,
        probabilities.kind(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn masks(cells: &[f64], image: &Tensor) -> [Tensor; 2] {
        CellMasks::of(&Tensor::from_slice(cells)).at_size_of(image)
    }

    fn share_of_ones(mask: &Tensor) -> f64 {
        mask.mean(Kind::Double).double_value(&[])
    }

    #[test]
    fn halves_are_complementary_and_each_sample_can_have_its_own() {
        let keys = [Key::new(1), Key::new(2)];
        let image = Tensor::zeros([2, 3, 64, 128], (Kind::Double, Device::Cpu));
        let [first, second] = masks(&drawn(&keys, 0.5), &image);
        assert_eq!((first.size(), first.kind()), (vec![2, 1, 64, 128], Kind::Double));
        assert!((&first + &second).equal(&first.ones_like()));
        for (sample, key) in keys.iter().enumerate() {
            let mask = first.get(sample as i64);
            assert!((share_of_ones(&mask) - 0.5).abs() < 1e-12);
            let [alone, _] = masks(&drawn(&[*key], 0.5), &image);
            assert!(alone.get(0).equal(&mask));
        }
        assert!(!first.get(0).equal(&first.get(1)));
    }

    #[test]
    fn overlapping_views_leave_nothing_unseen_and_hide_any_share() {
        let image = Tensor::zeros([1, 1, 32, 32], (Kind::Float, Device::Cpu));
        let hidden = |number| {
            let masks = masks(&overlapping(&[Key::new(number)], 0.5), &image);
            assert!((&masks[0] + &masks[1]).min().double_value(&[]) >= 1.0);
            let [first, second] = masks.each_ref().map(|mask| 1.0 - share_of_ones(mask));
            assert!((first - second).abs() <= 1.0 / 1024.0, "{first} {second}");
            first
        };
        let shares: Vec<f64> = (0..200).map(hidden).collect();
        let mean = shares.iter().sum::<f64>() / 200.0;
        assert!((mean - 0.25).abs() < 0.03, "{mean}");
        assert!(shares.iter().any(|share| *share < 0.02) && shares.iter().any(|s| *s > 0.48));
    }

    #[test]
    fn a_mix_takes_each_branch_where_it_saw_and_their_mean_where_both_did() {
        let image = Tensor::ones([1, 2, 32, 32], (Kind::Double, Device::Cpu));
        let mean = |views: [Tensor; 2]| {
            mix([&(&image * 2.0), &(&image * 3.0)], &views).mean(Kind::Double).double_value(&[])
        };
        let quarter = masks(&drawn(&[Key::new(3)], 0.25), &image);
        assert!((mean(quarter) - 2.75).abs() < 1e-12);
        assert!((mean([image.ones_like(), image.ones_like()]) - 2.5).abs() < 1e-12);
    }

    #[test]
    fn certain_predictions_have_their_class_as_mean() {
        let certain = Tensor::eye(4, (Kind::Double, Device::Cpu)).view([4, 4, 1, 1]);
        assert!(
            label_map(&certain).view([-1]).equal(&Tensor::arange(4, (Kind::Int64, Device::Cpu)))
        );
        let mean = expected_class(&certain).to_kind(Kind::Int64);
        assert!(mean.view([-1]).equal(&label_map(&certain).view([-1])));
    }
}
