//! Outlines of masks: the lines half-way between pixels and their neighbours outside.
//!
//! Knows masks, not strokes.

use super::Mask;

/// The four sides of a pixel, `[down, right]`, clockwise.
const SIDES: [[isize; 2]; 4] = [[-1, 0], [0, 1], [1, 0], [0, -1]];

/// The outlines of `mask` as rows and columns, where pixels are at whole numbers: marching squares at one half, with
/// a point wherever a pixel of the mask shares a side with one outside of it.
///
/// Pixels that touch by a corner alone have outlines of their own, and so do holes. A closed outline ends with the
/// point that it began with. One that runs into the border of the picture is open; these come first.
pub(super) fn outlines(mask: &Mask) -> Vec<Vec<[f64; 2]>> {
    let sides: Vec<Side> = (0..mask.pixels.len())
        .filter(|&pixel| mask.pixels[pixel])
        .flat_map(|pixel| (0..4).map(move |direction| Side { pixel, direction }))
        .filter(|side| side.is_border(mask))
        .collect();
    let mut is_left = vec![false; 4 * mask.pixels.len()];
    for side in &sides {
        is_left[side.index()] = true;
    }
    let mut found = Vec::new();
    let begins = |side: &&Side| mask.beside(side.pixel, side.backward()).is_none();
    for start in sides.iter().filter(begins).chain(&sides) {
        let mut line = Vec::new();
        let mut next = Some(*start);
        while let Some(side) = next.filter(|side| is_left[side.index()]) {
            is_left[side.index()] = false;
            line.push(side.middle(mask));
            next = side.next(mask);
        }
        let first = line.first().copied();
        line.extend(first.filter(|_| next.is_some()));
        found.extend(Some(line).filter(|line| !line.is_empty()));
    }
    found
}

/// A side of a pixel of a mask.
#[derive(Clone, Copy)]
struct Side {
    pixel: usize,
    /// Which of [`SIDES`].
    direction: usize,
}

impl Side {
    fn index(self) -> usize {
        4 * self.pixel + self.direction
    }

    /// Where the pixel beyond it lies.
    fn outward(self) -> [isize; 2] {
        SIDES[self.direction]
    }

    /// Where the outline goes on, with the mask to the right.
    fn forward(self) -> [isize; 2] {
        SIDES[(self.direction + 1) % 4]
    }

    fn backward(self) -> [isize; 2] {
        SIDES[(self.direction + 3) % 4]
    }

    /// Whether the pixel beyond it is in the picture and outside of the mask.
    fn is_border(&self, mask: &Mask) -> bool {
        mask.beside(self.pixel, self.outward()).is_some_and(|beyond| !mask.pixels[beyond])
    }

    /// The point half-way to the pixel beyond it.
    fn middle(self, mask: &Mask) -> [f64; 2] {
        let [down, right] = self.outward();
        let (row, column) = (self.pixel / mask.columns, self.pixel % mask.columns);
        [row as f64 + 0.5 * down as f64, column as f64 + 0.5 * right as f64]
    }

    /// The next side of the outline; none at the border of the picture.
    fn next(self, mask: &Mask) -> Option<Self> {
        let ahead = mask.beside(self.pixel, self.forward())?;
        if !mask.pixels[ahead] {
            return Some(Self { direction: (self.direction + 1) % 4, ..self });
        }
        let beyond = mask.beside(ahead, self.outward())?;
        if mask.pixels[beyond] {
            return Some(Self { pixel: beyond, direction: (self.direction + 3) % 4 });
        }
        Some(Self { pixel: ahead, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(picture: &[&str]) -> Vec<Vec<[f64; 2]>> {
        let pixels = picture.concat().bytes().map(|letter| letter == b'#').collect();
        outlines(&Mask { columns: picture[0].len(), pixels })
    }

    #[test]
    fn a_pixel_has_four_points_and_two_that_touch_by_a_corner_have_two_outlines() {
        let around = |row: f64, column: f64| {
            let points = [[-0.5, 0.0], [0.0, 0.5], [0.5, 0.0], [0.0, -0.5], [-0.5, 0.0]];
            points.map(|[down, right]| [row + down, column + right]).to_vec()
        };
        assert_eq!(of(&["....", ".#..", "..#.", "...."]), [around(1.0, 1.0), around(2.0, 2.0)]);
    }

    #[test]
    fn outlines_run_into_the_border_and_around_holes() {
        let open = of(&["##.", "##.", "..."]);
        assert_eq!(open, [[[0.0, 1.5], [1.0, 1.5], [1.5, 1.0], [1.5, 0.0]]]);
        let hole = of(&["###", "#.#", "###"]);
        assert_eq!(hole, [[[0.5, 1.0], [1.0, 0.5], [1.5, 1.0], [1.0, 1.5], [0.5, 1.0]]]);
        assert!(of(&["##", "##"]).is_empty() && of(&["..", ".."]).is_empty());
        assert_eq!(of(&["##.."]), [[[0.0, 1.5]]]);
    }
}
