//! How many levels a map of gaze reaches.
//!
//! Knows maps of bytes; which levels are of use is for others to say.

use super::resample::linear;

/// A map in levels from 0 to 255 as shares in `[0, 1]`, resized from `from` rows and columns to `to` by straight lines
/// and without smoothing.
pub fn resized(map: &[u8], from: [usize; 2], to: [usize; 2]) -> Vec<f64> {
    let shares: Vec<f64> = map.iter().map(|&level| f64::from(level) / 255.0).collect();
    linear(&shares, from, to)
}

/// How many of the ascending `levels` each share reaches.
pub fn reached(shares: &[f64], levels: &[f64]) -> Vec<u8> {
    shares.iter().map(|share| levels.partition_point(|level| level <= share) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_reached_by_what_equals_it() {
        let shares = resized(&[0, 50, 51, 102, 255, 127], [2, 3], [2, 3]);
        assert_eq!(reached(&shares, &[0.2, 0.4]), [0, 0, 1, 2, 2, 2]);
        let levels = [0.1, 0.3, 0.6];
        for (index, level) in levels.iter().enumerate() {
            for (share, &value) in shares.iter().zip(&reached(&shares, &levels)) {
                assert_eq!(share >= level, usize::from(value) > index);
            }
        }
    }
}
