//! Which lines of a slice a sample of another size shows.
//!
//! The arithmetic of a resize is that of scipy's order-0 `zoom`, where a rounding error decides which line is taken.
//! Knows not what is drawn.

use crate::config::sampling::Fit;

/// The lines of a slice that a sample shows along one axis, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lines {
    /// Lines of the sample before them that show nothing; behind them the sample may have others.
    pub(super) before: usize,
    /// Which lines of the slice.
    pub(super) shown: Vec<usize>,
}

impl Lines {
    /// Those of `to` lines of a sample of a slice with `from` lines, both at least 1.
    pub(super) fn new(fit: Fit, from: usize, to: usize) -> Self {
        match fit {
            Fit::Resize => Self { before: 0, shown: zoom_indices(from, to).collect() },
            Fit::Crop => {
                let Centred { start, before, count } = Centred::of(from, to);
                Self { before, shown: (start..start + count).collect() }
            }
        }
    }

    /// What `of` makes of each line of the slice, and `missing` for each of the `to` lines of the sample that
    /// shows none.
    pub(super) fn each<T: Copy>(&self, to: usize, missing: T, of: impl Fn(usize) -> T) -> Vec<T> {
        let before = std::iter::repeat_n(missing, self.before);
        let shown = self.shown.iter().map(|&line| of(line));
        before.chain(shown).chain(std::iter::repeat(missing)).take(to).collect()
    }
}

/// The source index of each of `to` outputs of an order-0 zoom of `from` elements.
///
/// Rounding can push the coordinate of the last output beyond the last element; scipy fills it
/// with 0, and it is missing here.
fn zoom_indices(from: usize, to: usize) -> impl Iterator<Item = usize> {
    let last = (from - 1) as f64;
    let ratio = if to > 1 { last / (to - 1) as f64 } else { 1.0 };
    (0..to)
        .map(move |index| ratio * index as f64)
        .take_while(move |&coordinate| coordinate <= last)
        .map(|coordinate| (coordinate + 0.5).floor() as usize)
}

/// What two rows of pixels have in common whose middles lie on each other.
///
/// Where the pixels that are too many, or too few, are odd in number, one more of them lies behind.
///
/// ```
/// use scrimp::data::augment::Centred;
/// assert_eq!(Centred::of(25, 22), Centred { start: 1, before: 0, count: 22 });
/// assert_eq!(Centred::of(19, 22), Centred { start: 0, before: 1, count: 19 });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Centred {
    /// Pixels of the first row that lie before what both have.
    pub start: usize,
    /// Pixels of the second one.
    pub before: usize,
    /// Pixels that both have.
    pub count: usize,
}

impl Centred {
    /// That of a row of `from` pixels and one of `to`.
    pub fn of(from: usize, to: usize) -> Self {
        let (start, before) = (from.saturating_sub(to) / 2, to.saturating_sub(from) / 2);
        Self { start, before, count: from.min(to) }
    }

    /// `planes`, each `from` rows and columns, as planes of `to` about the same middle, `outside` where `planes`
    /// does not reach.
    pub fn cut<T: Copy>(planes: &[T], from: [usize; 2], to: [usize; 2], outside: T) -> Vec<T> {
        let [rows, columns] = [Self::of(from[0], to[0]), Self::of(from[1], to[1])];
        let pixels = to[0] * to[1];
        let mut cut = vec![outside; planes.len() / (from[0] * from[1]).max(1) * pixels];
        let both = cut.chunks_exact_mut(pixels.max(1)).zip(planes.chunks_exact(from[0] * from[1]));
        for (cut, plane) in both {
            for row in 0..rows.count {
                let line = &plane[(rows.start + row) * from[1] + columns.start..][..columns.count];
                let place = (rows.before + row) * to[1] + columns.before;
                cut[place..place + columns.count].copy_from_slice(line);
            }
        }
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_cut_and_padded_about_their_middle() {
        let plane: Vec<u8> = (1..=6).collect();
        assert_eq!(Centred::cut(&plane, [2, 3], [2, 3], 0), plane);
        assert_eq!(Centred::cut(&plane, [2, 3], [1, 2], 0), [1, 2]);
        assert_eq!(Centred::cut(&plane, [2, 3], [3, 4], 9), [1, 2, 3, 9, 4, 5, 6, 9, 9, 9, 9, 9]);
        assert_eq!(Centred::cut(&plane, [3, 2], [1, 4], 0), [0, 3, 4, 0]);
        assert_eq!(Centred::cut(&[plane.clone(), plane].concat(), [2, 3], [1, 1], 0), [2, 2]);
    }

    #[test]
    fn lines_that_show_nothing_lie_on_both_sides() {
        let crop = Lines::new(Fit::Crop, 2, 5);
        assert_eq!(crop.each(5, 9, |line| line), [9, 0, 1, 9, 9]);
        assert_eq!(Lines::new(Fit::Crop, 5, 2).each(2, 9, |line| line), [1, 2]);
        assert_eq!(Lines::new(Fit::Resize, 2, 4).each(4, 9, |line| line), [0, 0, 1, 1]);
    }
}
