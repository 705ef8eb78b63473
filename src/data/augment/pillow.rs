//! Bilinear resizing of 8-bit planes by the arithmetic of Pillow, bit for bit.
//!
//! The filter is a triangle, as wide as a pixel of the coarser side. Weights are fixed-point numbers,
//! and each pass rounds to 8 bits. Columns come first, then rows; newer versions of Pillow have the other
//! order for some shapes, never from square to square, which can differ by one level. Source:
//! `python-pillow/Pillow`, `src/libImaging/Resample.c`. Knows planes of bytes alone, no colours and no draws.

/// Fractional bits of a weight.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// A plane of `from` rows and columns, resized to `to`. No extent may be 0.
pub fn resize(plane: &[u8], from: [usize; 2], to: [usize; 2]) -> Vec<u8> {
    debug_assert_eq!(plane.len(), from[0] * from[1]);
    let wide = resize_columns(plane, from[1], to[1]);
    resize_rows(&wide, [from[0], to[1]], to[0])
}

/// The elements of an axis that one output is a weighted mean of.
struct Window {
    first: usize,
    weights: Vec<i32>,
}

/// The window of each of `to` outputs of an axis of `from` elements.
fn windows(from: usize, to: usize) -> impl Iterator<Item = Window> {
    let scale = from as f64 / to as f64;
    let support = scale.max(1.0);
    (0..to).map(move |index| {
        let centre = (index as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(from);
        let weight = |element: usize| {
            let distance = (element as f64 - centre + 0.5) * (1.0 / support);
            (1.0 - distance.abs()).max(0.0)
        };
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: &f64| (0.5 + weight / sum * f64::from(1 << PRECISION_BITS)) as i32;
        Window { first, weights: weights.iter().map(fixed).collect() }
    })
}

/// Half of the last bit that is kept, so that cutting off rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

fn level(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

fn resize_columns(plane: &[u8], from: usize, to: usize) -> Vec<u8> {
    if from == to {
        return plane.to_vec();
    }
    let windows: Vec<Window> = windows(from, to).collect();
    let lines = plane.chunks_exact(from).flat_map(|line| {
        windows.iter().map(|window| {
            let pixels = line[window.first..].iter().zip(&window.weights);
            level(pixels.fold(HALF, |sum, (&pixel, weight)| sum + i32::from(pixel) * weight))
        })
    });
    lines.collect()
}

fn resize_rows(plane: &[u8], [from, columns]: [usize; 2], to: usize) -> Vec<u8> {
    if from == to {
        return plane.to_vec();
    }
    let mut resized = Vec::with_capacity(to * columns);
    let mut sums = vec![0; columns];
    for window in windows(from, to) {
        sums.fill(HALF);
        let lines = plane.chunks_exact(columns).skip(window.first);
        for (line, weight) in lines.zip(window.weights) {
            for (sum, &pixel) in sums.iter_mut().zip(line) {
                *sum += i32::from(pixel) * weight;
            }
        }
        resized.extend(sums.iter().map(|&sum| level(sum)));
    }
    resized
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enlarging_blends_two_pixels_and_shrinking_all_of_them() {
        assert_eq!(resize(&[0, 255], [1, 2], [1, 4]), [0, 64, 191, 255]);
        assert_eq!(resize(&[0, 100, 200, 0], [4, 1], [2, 1]), [71, 100]);
    }

    #[test]
    fn an_even_plane_stays_as_it_is_at_any_size() {
        for (from, to) in [([3, 5], [7, 2]), ([8, 8], [9, 9]), ([1, 1], [4, 3])] {
            let plane = vec![201; from[0] * from[1]];
            assert_eq!(resize(&plane, from, to), vec![201; to[0] * to[1]]);
        }
    }
}
