//! Brightness and cast of images, which depend on the camera, and how to even them out.
//!
//! Knows planes of intensities and the cases that hold them.

use super::Dataset;
use crate::scan::Scan;

/// The mean that a channel gets, of the pixels that are not black.
const MEAN: f64 = 0.5;
/// Means below one level of 8 bits are taken for it, so that an almost black image is not blown up.
const DARKEST: f64 = 1.0 / 255.0;

impl Dataset {
    /// Does [`even_out_light`] to all cases.
    pub fn even_out_light(&mut self) {
        self.cases.iter_mut().for_each(|case| even_out_light(&mut case.scan));
    }
}

/// Scales each channel of each slice to a mean of one half over the pixels that are not
/// black, as if the light were grey (Buchsbaum, 1980); what would exceed 1 is 1.
pub fn even_out_light(scan: &mut Scan) {
    let pixels = scan.grid.pixels();
    for slice in scan.voxels.chunks_exact_mut(scan.channels * pixels) {
        let lit: Vec<bool> = (0..pixels)
            .map(|pixel| slice.iter().skip(pixel).step_by(pixels).any(|&value| value > 0.0))
            .collect();
        let count = lit.iter().filter(|&&is_lit| is_lit).count().max(1);
        for plane in slice.chunks_exact_mut(pixels) {
            let sum: f64 = plane.iter().map(|&value| f64::from(value)).sum();
            let gain = (MEAN / (sum / count as f64).max(DARKEST)) as f32;
            for value in plane {
                *value = (*value * gain).min(1.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Grid;

    fn scan(channels: usize, image: &[f32]) -> Scan {
        let grid = Grid::unplaced([1, 1, image.len() / channels], None);
        Scan { grid, channels, voxels: image.to_vec() }
    }

    #[test]
    fn light_and_cast_go_and_the_black_around_stays() {
        let expected = [0.0, 0.25, 0.75, 0.0, 0.25, 0.75, 0.0, 0.25, 0.75];
        for gains in [[1.0, 1.0, 1.0], [0.5, 0.4, 0.3], [1.3, 0.1, 0.7]] {
            let planes = gains.map(|gain| [0.0, 0.25 * gain, 0.75 * gain]).concat();
            let mut scan = scan(3, &planes);
            even_out_light(&mut scan);
            for (found, expected) in scan.voxels.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{gains:?}: {:?}", scan.voxels);
            }
        }
    }

    #[test]
    fn bright_spots_are_cut_and_black_images_stay_black() {
        let mut spot = scan(1, &[0.01, 0.01, 0.01, 0.97]);
        even_out_light(&mut spot);
        assert_eq!(spot.voxels[3..], [1.0]);
        let mut black = scan(3, &[0.0; 12]);
        even_out_light(&mut black);
        assert_eq!(black.voxels, [0.0; 12]);
    }
}
