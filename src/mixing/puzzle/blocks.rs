//! Means over the blocks of a square image, and the saliency of blocks.
//!
//! Costs of mixes are whole numbers cut off from what is computed here. So that they are those of published
//! mixes, sums are single precision and go in the order in which libtorch adds up on CPUs.

/// Means over blocks of `side` x `side` pixels, `[(size / side)^2]`, row-major; `value` says what each
/// pixel of `[size * size]` counts.
pub(super) fn means(
    pixels: &[f32],
    size: usize,
    side: usize,
    value: impl Fn(f32) -> f32,
) -> Vec<f32> {
    let count = size / side;
    let mut sums = vec![0.0; count * count];
    for (row, pixels) in pixels.chunks_exact(size).enumerate() {
        let sums = &mut sums[row / side * count..][..count];
        // Column by column of all blocks: each block adds in its own order, and none waits for another.
        for column in 0..side {
            for (sum, &pixel) in sums.iter_mut().zip(pixels[column..].iter().step_by(side)) {
                *sum += value(pixel);
            }
        }
    }
    let area = (side * side) as f32;
    for sum in &mut sums {
        *sum /= area;
    }
    sums
}

/// The share of each block of `side` x `side` pixels in the saliency of an image, `[size * size]`, row-major:
/// together 1. Where the saliency is 0 everywhere, or too large to be added up, all blocks have the same.
pub fn shares(saliency: &[f32], size: usize, side: usize) -> Vec<f32> {
    let mut shares = means(saliency, size, side, |saliency| saliency);
    let total = sum(&shares);
    if total > 0.0 && total.is_finite() {
        for share in &mut shares {
            *share /= total;
        }
    } else {
        let share = 1.0 / shares.len() as f32;
        shares.fill(share);
    }
    shares
}

/// Numbers that libtorch adds at once.
const LANES: usize = 8;
/// Rows of them in whose sums it alternates.
const ROWS: usize = 4;
/// Additions after which a sum goes to the next level, so that rounding does not grow.
const STEP: usize = 16;
const LEVELS: usize = 4;

/// The sum of at most `16^4 * 32` values, rounded as by libtorch.
fn sum(values: &[f32]) -> f32 {
    let (vectors, rest) = values.as_chunks::<LANES>();
    let (groups, single) = vectors.as_chunks::<ROWS>();
    let mut levels = [[[0.0f32; LANES]; ROWS]; LEVELS];
    let add = |sum: &mut [f32; LANES], more: &[f32; LANES]| {
        sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    };
    for (index, group) in groups.iter().enumerate() {
        for (sum, more) in levels[0].iter_mut().zip(group) {
            add(sum, more);
        }
        let mut done = index + 1;
        for level in 1..LEVELS {
            if !done.is_multiple_of(STEP) {
                break;
            }
            done /= STEP;
            let below = std::mem::take(&mut levels[level - 1]);
            levels[level].iter_mut().zip(&below).for_each(|(sum, more)| add(sum, more));
        }
    }
    let [mut rows, above @ ..] = levels;
    for level in &above {
        rows.iter_mut().zip(level).for_each(|(sum, more)| add(sum, more));
    }
    let [mut lanes, others @ ..] = rows;
    single.iter().chain(&others).for_each(|more| add(&mut lanes, more));
    rest.iter().chain(&lanes).fold(0.0, |sum, more| sum + more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_those_of_the_pixels_of_a_block() {
        let pixels: Vec<f32> = (0..36u8).map(f32::from).collect();
        assert_eq!(means(&pixels, 6, 3, |pixel| 2.0 * pixel), [14.0, 20.0, 50.0, 56.0]);
    }

    #[test]
    fn shares_sum_to_one_and_are_equal_where_saliency_says_nothing() {
        let saliency: Vec<f32> = (0..64 * 64).map(|pixel| (pixel % 97) as f32).collect();
        let shares = shares(&saliency, 64, 4);
        assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        for saliency in [0.0, 1e38] {
            assert_eq!(super::shares(&[saliency; 64], 8, 4), [0.25; 4]);
        }
    }

    #[test]
    fn every_value_is_summed_once_whatever_their_number() {
        for count in (0..300).chain([511, 4096, 16 * 32 * 16 + 37]) {
            let whole = (0..count).map(|value: u64| value % 5);
            let values: Vec<f32> = whole.clone().map(|value| value as f32).collect();
            // Below 2^24 any order gives the same.
            assert_eq!(sum(&values) as u64, whole.sum::<u64>(), "{count} values");
        }
    }
}
