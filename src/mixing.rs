//! Images hidden and predictions mixed by given parameters: the operators of mixing methods.
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

/// How much two branches see.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Views {
    /// Share of the cells that the first branch sees where views do not overlap; the second sees the
    /// rest. In [0, 1].
    pub ratio: f64,
    /// How much of what a branch should not see is hidden from it, in [0, 1]: 0 shows both
    /// everything, 1 makes their views complementary.
    pub hidden: f64,
}

impl CellMasks {
    /// Masks for all samples. `order` is a permutation of 0 to 1023.
    pub fn new(order: &[usize], views: Views) -> Self {
        Self::of(&[order.to_vec()], views)
    }

    /// Masks from keys: one for all samples, or one for each.
    pub fn drawn(keys: &[Key], views: Views) -> Self {
        let draw = |key: &Key| permutation(*key, (GRID * GRID) as usize);
        Self::of(&keys.iter().map(draw).collect::<Vec<_>>(), views)
    }

    fn of(orders: &[Vec<usize>], Views { ratio, hidden }: Views) -> Self {
        let count = |share: f64| (share * (GRID * GRID) as f64).floor() as usize;
        let first_end = count(ratio + (1.0 - ratio) * (1.0 - hidden));
        let second_start = count(ratio * hidden);
        let cells = |visible: &dyn Fn(usize) -> bool| {
            let cells: Vec<f32> = orders
                .iter()
                .flatten()
                .map(|&place| if visible(place) { 1.0 } else { 0.0 })
                .collect();
            Tensor::from_slice(&cells).view([orders.len() as i64, 1, GRID, GRID])
        };
        Self { cells: [cells(&|place| place < first_end), cells(&|place| place >= second_start)] }
    }

    /// Both masks at the size and precision of `like`, `[N, C, H, W]`: `[1 or N, 1, H, W]` of 1 for
    /// visible and 0 for hidden. Pixels take the value of the cell that they lie in.
    pub fn at_size_of(&self, like: &Tensor) -> [Tensor; 2] {
        let size = like.size();
        self.cells.each_ref().map(|cells| {
            cells
                .upsample_nearest2d([size[2], size[3]], None, None)
                .to_kind(like.kind())
                .to_device(like.device())
        })
    }
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

    const HALVES: Views = Views { ratio: 0.5, hidden: 1.0 };

    fn share_of_ones(mask: &Tensor) -> f64 {
        mask.mean(Kind::Double).double_value(&[])
    }

    #[test]
    fn halves_are_complementary_and_each_sample_can_have_its_own() {
        let keys = [Key::new(1), Key::new(2)];
        let image = Tensor::zeros([2, 3, 64, 128], (Kind::Double, Device::Cpu));
        let [first, second] = CellMasks::drawn(&keys, HALVES).at_size_of(&image);
        assert_eq!((first.size(), first.kind()), (vec![2, 1, 64, 128], Kind::Double));
        assert!((&first + &second).equal(&first.ones_like()));
        for (sample, key) in keys.iter().enumerate() {
            let mask = first.get(sample as i64);
            assert!((share_of_ones(&mask) - 0.5).abs() < 1e-12);
            let [alone, _] = CellMasks::drawn(&[*key], HALVES).at_size_of(&image);
            assert!(alone.get(0).equal(&mask));
        }
        assert!(!first.get(0).equal(&first.get(1)));
    }

    #[test]
    fn views_overlap_where_less_is_hidden() {
        let image = Tensor::zeros([1, 1, 32, 32], (Kind::Float, Device::Cpu));
        for (hidden, seen) in [(0.0, [1.0, 1.0]), (0.5, [0.625, 0.875]), (1.0, [0.25, 0.75])] {
            let views = Views { ratio: 0.25, hidden };
            let masks = CellMasks::drawn(&[Key::new(3)], views).at_size_of(&image);
            assert_eq!(masks.each_ref().map(share_of_ones), seen);
            assert!((&masks[0] + &masks[1]).min().double_value(&[]) >= 1.0);
        }
    }

    #[test]
    fn a_mix_takes_each_branch_where_it_saw() {
        let image = Tensor::ones([1, 2, 32, 32], (Kind::Float, Device::Cpu));
        let mixed = |views| {
            let masks = CellMasks::drawn(&[Key::new(3)], views).at_size_of(&image);
            mix([&(&image * 2.0), &(&image * 3.0)], &masks).mean(Kind::Double).double_value(&[])
        };
        assert!((mixed(Views { ratio: 0.25, hidden: 1.0 }) - 2.75).abs() < 1e-6);
        assert!((mixed(Views { ratio: 0.25, hidden: 0.0 }) - 2.5).abs() < 1e-6);
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
