//! Maps turned about their middle by any angle, pixel by pixel, and gradients turned back.
//!
//! Which angles is the caller's to draw. Knows no network, no loss, no step and no rank.

use crate::native::cuda::upload;
use tch::{Device, Kind, Tensor};

/// Every map of `[N, C, H, W]` turned counter-clockwise about its middle by its sample's `degrees`, one for each of
/// the N; of any kind of numbers.
///
/// With `X` and `Y` the distances of an output pixel from the middle, to the right and downwards, its value is that
/// of the input pixel `cos X - sin Y` to the right of the middle and `sin X + cos Y` below it, each rounded to a
/// pixel, halves to the even one; 0 where that lies outside (the nearest form of `torchvision.transforms.functional.rotate`,
/// computed in double precision). The gradient of an input pixel is the sum of those of the pixels that show it.
pub fn rotated(images: &Tensor, degrees: &[f64]) -> Tensor {
    let size = images.size();
    let [samples, channels, rows, columns] = [0, 1, 2, 3].map(|axis| size[axis]);
    let (source, is_inside) = sources(degrees, [rows, columns], images.device());
    // At most two pixels show one, so that the sum of a gradient does not depend on an order.
    let shown = images
        .reshape([samples, channels, rows * columns])
        .gather(2, &source.expand([samples, channels, rows * columns], false), false)
        .view(size.as_slice());
    shown.masked_fill(&is_inside.logical_not(), 0.0)
}

/// For every output pixel the place of its input pixel in row-major order, `i64 [N, 1, H·W]`, and whether there is
/// one, `[N, 1, H, W]`.
fn sources(degrees: &[f64], [rows, columns]: [i64; 2], device: Device) -> (Tensor, Tensor) {
    // By the host, so that all devices turn by the same bits.
    let turns: Vec<f64> = degrees
        .iter()
        .flat_map(|degrees| {
            let (sine, cosine) = degrees.to_radians().sin_cos();
            [cosine, sine]
        })
        .collect();
    let turns = upload(&Tensor::from_slice(&turns), device).view([-1, 2, 1, 1, 1]);
    let (cosine, sine) = (turns.select(1, 0), turns.select(1, 1));
    let middle = |extent: i64| (extent - 1) as f64 / 2.0;
    let from_middle = |extent: i64| Tensor::arange(extent, (Kind::Double, device)) - middle(extent);
    let right = from_middle(columns).view([1, 1, 1, columns]);
    let down = from_middle(rows).view([1, 1, rows, 1]);
    let column = (&cosine * &right - &sine * &down + middle(columns)).round();
    let row = (&sine * &right + &cosine * &down + middle(rows)).round();
    let within = |place: &Tensor, extent: i64| place.ge(0.0).logical_and(&place.lt(extent as f64));
    let is_inside = within(&row, rows).logical_and(&within(&column, columns));
    let source = (row.clamp(0.0, (rows - 1) as f64) * columns as f64
        + column.clamp(0.0, (columns - 1) as f64))
    .to_kind(Kind::Int64);
    (source.view([-1, 1, rows * columns]), is_inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(rows: i64, columns: i64) -> Tensor {
        Tensor::arange(rows * columns, (Kind::Double, Device::Cpu)).view([1, 1, rows, columns])
    }

    #[test]
    fn quarter_turns_move_whole_pixels_and_come_back() {
        for size in [6, 7] {
            let image = numbered(size, size);
            for quarters in 0..4 {
                let expected = image.rot90(quarters, [2, 3]);
                let degrees = 90.0 * quarters as f64;
                let turned = rotated(&image, &[degrees]);
                assert!(turned.equal(&expected), "{degrees} degrees of {size} pixels");
                assert!(rotated(&turned, &[-degrees]).equal(&image));
            }
        }
    }

    #[test]
    fn each_sample_turns_by_its_own_angle_and_what_comes_from_outside_is_zero() {
        let images = Tensor::ones([2, 3, 5, 8], (Kind::Uint8, Device::Cpu));
        let turned = rotated(&images, &[0.0, 90.0]);
        assert_eq!((turned.kind(), turned.size()), (Kind::Uint8, images.size()));
        assert!(turned.get(0).equal(&images.get(0)));
        // Every column is half a pixel off, since one extent is even and the other odd: each of the 5 rows is
        // shown by the one or two columns next to it.
        let columns = turned.get(1).sum_dim_intlist([0i64, 1].as_slice(), false, Kind::Int64);
        let columns = Vec::<i64>::try_from(columns).unwrap();
        assert_eq!(columns, [0, 15, 15, 15, 15, 15, 15, 0]);
        let none = Tensor::zeros([0, 3, 5, 8], (Kind::Float, Device::Cpu));
        assert_eq!(rotated(&none, &[]).size(), [0, 3, 5, 8]);
    }

    #[test]
    fn a_gradient_is_summed_where_it_came_from() {
        let image = (numbered(9, 6) * 0.3).sin().set_requires_grad(true);
        let weight = (numbered(9, 6) * 0.7).cos();
        for degrees in [0.0, 17.0, 45.0, 133.0, 290.5] {
            let turned = rotated(&image, &[degrees]);
            let gradient = Tensor::run_backward(
                &[(&turned * &weight).sum(Kind::Double)],
                &[&image],
                false,
                false,
            );
            // Where each pixel comes from, counted from 1; 0 for none.
            let source =
                rotated(&(numbered(9, 6) + 1.0), &[degrees]).to_kind(Kind::Int64).view([-1]);
            let mut expected = vec![0.0; 55];
            let mut shown = [0; 55];
            for (to, from) in Vec::<i64>::try_from(source).unwrap().into_iter().enumerate() {
                expected[from as usize] += weight.view([-1]).double_value(&[to as i64]);
                shown[from as usize] += 1;
            }
            assert!(gradient[0].view([-1]).allclose(
                &Tensor::from_slice(&expected[1..]),
                1e-12,
                1e-12,
                false
            ));
            assert!(shown[1..].iter().all(|&count| count <= 2), "{degrees}: {shown:?}");
        }
    }
}
