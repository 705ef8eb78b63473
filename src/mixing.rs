//! Images hidden and predictions mixed by given parameters: the operators of mixing methods.
//!
//! What is drawn comes in as an argument. Knows no network, no loss, no step and no rank.

use crate::random::{Key, permutation};
use tch::Tensor;

/// Rows and columns of the grid of cells that a mask shows or hides.
const GRID: i64 = 32;

/// Which cells of a 32 x 32 grid a first branch sees; the second sees all the others.
///
/// The operator of `MaskMix` (`lichen14/MaskMixAdv` at cf584ee): cell `i` in row-major order is
/// visible where place `i` of a permutation holds less than `ratio * 1024`.
#[derive(Debug)]
pub struct CellMask {
    /// `[1, 1, 32, 32]`, or `[N, 1, 32, 32]` with one mask per sample: 1 visible, 0 hidden.
    cells: Tensor,
}

impl CellMask {
    /// One mask for all samples. `order` is a permutation of 0 to 1023, `ratio` in [0, 1] the share
    /// of cells that is visible.
    pub fn new(order: &[usize], ratio: f64) -> Self {
        Self { cells: Tensor::from_slice(&visible(order, ratio)).view([1, 1, GRID, GRID]) }
    }

    /// One mask for all samples from a key that they share.
    pub fn shared(key: Key, ratio: f64) -> Self {
        Self::new(&permutation(key, (GRID * GRID) as usize), ratio)
    }

    /// One mask per sample from a key each.
    pub fn per_sample(keys: &[Key], ratio: f64) -> Self {
        let cells: Vec<f32> = keys
            .iter()
            .flat_map(|key| visible(&permutation(*key, (GRID * GRID) as usize), ratio))
            .collect();
        Self { cells: Tensor::from_slice(&cells).view([keys.len() as i64, 1, GRID, GRID]) }
    }

    /// The mask at the size and precision of `like`, `[N, C, H, W]`: `[1 or N, 1, H, W]` of 1 for
    /// visible and 0 for hidden. Pixels take the value of the cell that they lie in.
    pub fn at_size_of(&self, like: &Tensor) -> Tensor {
        let size = like.size();
        self.cells
            .upsample_nearest2d([size[2], size[3]], None, None)
            .to_kind(like.kind())
            .to_device(like.device())
    }
}

/// One value per cell: 1 visible, 0 hidden.
fn visible(order: &[usize], ratio: f64) -> Vec<f32> {
    let count = (ratio * (GRID * GRID) as f64).floor() as usize;
    order.iter().map(|&place| if place < count { 1.0 } else { 0.0 }).collect()
}

/// Predictions of two branches, each where `mask` says that it saw the image: `mask` is 1 for the
/// first and 0 for the second. Probabilities `[N, C, H, W]`, mask `[1 or N, 1, H, W]`.
pub fn mix(first: &Tensor, second: &Tensor, mask: &Tensor) -> Tensor {
    first * mask + second * (1.0 - mask)
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

    #[test]
    fn half_of_the_cells_are_visible_and_each_sample_has_its_own_mask() {
        let keys = [Key::new(1), Key::new(2)];
        let mask = CellMask::per_sample(&keys, 0.5);
        let image = Tensor::zeros([2, 3, 64, 128], (Kind::Double, Device::Cpu));
        let wide = mask.at_size_of(&image);
        assert_eq!((wide.size(), wide.kind()), (vec![2, 1, 64, 128], Kind::Double));
        for (sample, key) in keys.iter().enumerate() {
            let sum = wide.get(sample as i64).sum(Kind::Double).double_value(&[]);
            assert!((sum - 4096.0).abs() < 1e-9, "{sum} of 8192 pixels are visible");
            let alone = CellMask::shared(*key, 0.5).at_size_of(&image);
            assert!(alone.get(0).equal(&wide.get(sample as i64)));
        }
        assert!(!wide.get(0).equal(&wide.get(1)));
    }

    #[test]
    fn a_mix_takes_each_branch_where_it_saw() {
        let mask = CellMask::shared(Key::new(3), 0.25);
        let image = Tensor::ones([1, 2, 32, 32], (Kind::Float, Device::Cpu));
        let mixed = mix(&(&image * 2.0), &(&image * 3.0), &mask.at_size_of(&image));
        let sum = mixed.sum(Kind::Double).double_value(&[]);
        assert!((sum - 2.0 * (256.0 * 2.0 + 768.0 * 3.0)).abs() < 1e-6, "{sum}");
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
