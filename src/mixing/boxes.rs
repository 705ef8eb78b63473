//! Boxes of pixels drawn from keys, and what lies inside of them: rectangles of images, cuboids of volumes.
//!
//! Knows no image and does not say what becomes of a box.

use crate::random::Key;
use std::ops::Range;
use tch::Tensor;

/// The hole of Cutout (`DeVries` and Taylor, arXiv 1708.04552) and of `CycleMix`: `half_side` pixels to every
/// side of one that is drawn from all pixels, as far as the image goes.
///
/// `extents` are those of the image, at least 1 along each axis; the pixel is `[row, column]`, or of volumes
/// `[slice, row, column]`, drawn in this order.
pub fn hole<const AXES: usize>(
    key: Key,
    extents: [usize; AXES],
    half_side: usize,
) -> [Range<usize>; AXES] {
    around(centre(key, extents), extents, [half_side; AXES])
}

/// The box of `CutMix` (Yun et al., ICCV 2019): shaped as the image, `1 - share` of its content large, about
/// a pixel drawn as for [`hole`], as far as the image goes; `share` is in `[0, 1]`.
///
/// Its sides are (1 - share)^(1 / axes) of the image's, rounded down to an even number of pixels as in the
/// released code.
pub fn cut<const AXES: usize>(
    key: Key,
    extents: [usize; AXES],
    share: f64,
) -> [Range<usize>; AXES] {
    let side = (1.0 - share).powf(1.0 / AXES as f64);
    let half_sides = extents.map(|extent| (side * extent as f64) as usize / 2);
    around(centre(key, extents), extents, half_sides)
}

/// A pixel, each as likely as any other.
fn centre<const AXES: usize>(key: Key, extents: [usize; AXES]) -> [usize; AXES] {
    let mut draws = key.draws();
    extents.map(|extent| draws.below(extent as u64) as usize)
}

/// What lies at most `half_sides` pixels before and fewer than that behind `centre` along each axis, as far as
/// the image goes.
pub fn around<const AXES: usize>(
    centre: [usize; AXES],
    extents: [usize; AXES],
    half_sides: [usize; AXES],
) -> [Range<usize>; AXES] {
    std::array::from_fn(|axis| {
        let (middle, half_side) = (centre[axis], half_sides[axis]);
        middle.saturating_sub(half_side)..(middle + half_side).min(extents[axis])
    })
}

/// First and end of a box along each axis, as [`inside`] takes them.
pub fn corners<const AXES: usize>(of: &[Range<usize>; AXES]) -> Vec<f64> {
    of.iter().flat_map(|along| [along.start as f64, along.end as f64]).collect()
}

/// Where boxes are: 1 inside and 0 outside, `[boxes, 1, ...]` with the extents and the precision of `like`,
/// `[N, C, ...]`.
///
/// `of_boxes` holds what [`corners`] says of each of them, one after the other, beside `like`.
pub fn inside(of_boxes: &Tensor, like: &Tensor) -> Tensor {
    let extents = &like.size()[2..];
    let axes = extents.len() as i64;
    let of_boxes = of_boxes.view([of_boxes.numel() as i64 / (2 * axes), axes, 2]);
    let along = |(axis, &extent): (usize, &i64)| {
        let mut shape = vec![1; like.dim()];
        shape[axis + 2] = extent;
        let places = Tensor::arange(extent, (of_boxes.kind(), like.device())).view(&*shape);
        let mut shape = vec![1; like.dim()];
        shape[0] = of_boxes.size()[0];
        let [first, end] = [0, 1]
            .map(|side| of_boxes.select(1, axis as i64).select(1, side).contiguous().view(&*shape));
        places.ge_tensor(&first).logical_and(&places.lt_tensor(&end))
    };
    let sides = extents.iter().enumerate().map(along);
    let all = sides.reduce(|all, side| all.logical_and(&side));
    all.unwrap_or_else(|| like.ones_like()).to_kind(like.kind())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn holes_are_about_any_pixel_and_end_with_the_image() {
        let extents = [9, 20];
        let mut seen = [[0; 20]; 9];
        for number in 0..4000 {
            let key = Key::new(number);
            let [rows, columns] = hole(key, extents, 3);
            let mut draws = key.draws();
            let [row, column] = extents.map(|extent| draws.below(extent as u64) as usize);
            seen[row][column] += 1;
            assert_eq!(rows, row.max(3) - 3..(row + 3).min(9), "{row}");
            assert_eq!(columns, column.max(3) - 3..(column + 3).min(20), "{column}");
        }
        assert!(seen.as_flattened().iter().all(|&count| count > 3), "{seen:?}");
        assert_eq!(hole(Key::new(1), [1, 4, 4], 9), [0..1, 0..4, 0..4]);
    }

    /// A box that no border cuts off has the content that was asked for.
    #[test]
    fn cuts_have_their_share_of_images_and_volumes() {
        for share in [0.19, 0.5, 0.75, 1.0] {
            let largest = |sizes: &mut dyn Iterator<Item = usize>| sizes.max().unwrap() as f64;
            let images = largest(&mut (0..20_000).map(|key| {
                let [rows, columns] = cut(Key::new(key), [300, 500], share);
                rows.len() * columns.len()
            }));
            let volumes = largest(&mut (0..20_000).map(|key| {
                cut(Key::new(key), [200, 300, 400], share).map(|along| along.len()).iter().product()
            }));
            assert!((images / 150_000.0 - (1.0 - share)).abs() < 0.012, "{share}: {images}");
            assert!((volumes / 24e6 - (1.0 - share)).abs() < 0.03, "{share}: {volumes}");
        }
    }

    #[test]
    fn pixels_inside_are_ones_in_images_and_volumes() {
        let count = |mask: &Tensor| mask.sum(Kind::Int64).int64_value(&[]);
        let options = (Kind::Float, Device::Cpu);
        let images = Tensor::zeros([2, 3, 6, 5], options);
        let boxes = [[1..4, 0..2], [5..6, 2..2]];
        let mask = inside(&Tensor::from_slice(&boxes.each_ref().map(corners).concat()), &images);
        assert_eq!((mask.size(), mask.kind()), (vec![2, 1, 6, 5], Kind::Float));
        assert_eq!((count(&mask.get(0)), count(&mask.get(1))), (6, 0));
        assert_eq!(count(&mask.get(0).narrow(1, 1, 3).narrow(2, 0, 2)), 6);
        let volumes = Tensor::zeros([1, 1, 4, 6, 5], options);
        let mask = inside(&Tensor::from_slice(&corners(&[1..3, 0..6, 2..5])), &volumes);
        assert_eq!((mask.size(), count(&mask)), (vec![1, 1, 4, 6, 5], 2 * 6 * 3));
        let none = inside(&Tensor::from_slice::<f64>(&[]), &images.narrow(0, 0, 0));
        assert_eq!(none.size(), [0, 1, 6, 5]);
    }
}
