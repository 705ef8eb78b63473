//! What a sample is cut from: a box of voxels of one case, which may reach beyond its scan.
//!
//! A patch is a stack of planes with one draw: what augments a slice happens to each of its planes, at the scan's
//! own scale. Knows no tensors, no steps and no order.

use super::augment::{
    Centred, Draw, FullRotation, MILD_CHANCE, Resample, Sample, Slice, Transform,
};
use super::{Case, IGNORE};
use crate::random::Draws;

/// A box of voxels of one case. A slice is a box one slice deep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// Index of the case in its data set.
    pub case: usize,
    /// The first voxel along slices, rows, columns of the scan; negative where the box begins before it.
    pub first: [i64; 3],
    /// Slices, rows, columns.
    pub extent: [usize; 3],
}

impl Item {
    /// A whole slice of so many rows and columns.
    pub fn slice(case: usize, slice: usize, [rows, columns]: [usize; 2]) -> Self {
        Self { case, first: [slice as i64, 0, 0], extent: [1, rows, columns] }
    }

    /// The middle of a slice of so many rows and columns: `size` of each.
    pub fn crop(case: usize, slice: usize, (shape, size): ([usize; 2], usize)) -> Self {
        let [row, column] = shape.map(|extent| {
            let Centred { start, before, .. } = Centred::of(extent, size);
            start as i64 - before as i64
        });
        Self { case, first: [slice as i64, row, column], extent: [1, size, size] }
    }

    /// Whether the box holds a voxel of the scan.
    pub fn holds(&self, voxel: [usize; 3]) -> bool {
        let mut axes = self.first.iter().zip(self.extent).zip(voxel);
        axes.all(|((&first, extent), at)| (first..first + extent as i64).contains(&(at as i64)))
    }
}

/// What happens to all planes of a patch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PatchDraw {
    /// What happens within each plane. Patches that are not square make half turns alone.
    pub in_plane: Draw,
    /// Whether the order of the planes is reversed.
    pub reverses: bool,
}

impl PatchDraw {
    /// Draws as for a slice, then for patches of several slices half of the time a flip along them, or of those that are
    /// mildly augmented one time in five.
    pub fn sample(
        resample: Resample,
        draws: &mut Draws,
        [slices, rows, columns]: [usize; 3],
    ) -> Self {
        let in_plane = match resample.draw(draws) {
            Draw::Turn { quarter_turns, flip_axis } if rows != columns => {
                Draw::Turn { quarter_turns: quarter_turns / 2 * 2, flip_axis }
            }
            Draw::Full(turn) if rows != columns => {
                Draw::Full(FullRotation { quarter_turns: turn.quarter_turns / 2 * 2, ..turn })
            }
            draw => draw,
        };
        let kept = if resample == Resample::Mild { 1.0 - MILD_CHANCE } else { 0.5 };
        Self { in_plane, reverses: slices > 1 && draws.uniform() > kept }
    }

    /// Rows and columns around a plane of this extent that a rotation brings into it.
    fn margin(self, [rows, columns]: [usize; 2]) -> [usize; 2] {
        let degrees = match self.in_plane {
            Draw::Rotate { degrees } => f64::from(degrees),
            Draw::Full(FullRotation { degrees, .. }) => degrees,
            Draw::Turn { .. } | Draw::Keep => return [0, 0],
        };
        let sine = degrees.to_radians().sin().abs();
        // What lies across comes in, half of it on each side; one more for what is read between two pixels.
        [columns, rows].map(|across| (across as f64 / 2.0 * sine).ceil() as usize + 1)
    }
}

/// Where a patch is written, every voxel of it.
#[derive(Debug)]
pub struct PatchSample<'a> {
    /// Channels, slices, rows, columns: intensities, 0 outside of the scan.
    pub image: &'a mut [f32],
    /// Slices, rows, columns: labels, [`IGNORE`] outside of the scan.
    pub annotation: &'a mut [u8],
}

/// A case that patches are cut from.
#[derive(Debug, Clone, Copy)]
pub struct PatchSource<'a> {
    /// Whose scan it is.
    pub case: &'a Case,
    /// Labels on the grid of the scan.
    pub labels: &'a [u8],
    /// How pixels of a turned plane are made; [`Resample::None`] leaves planes as they are.
    pub resample: Resample,
}

impl PatchSource<'_> {
    /// Cuts `item` out after `draw` has happened to the scan around it.
    pub fn cut(&self, item: &Item, draw: PatchDraw, sample: &mut PatchSample<'_>) {
        let draw = match self.resample {
            Resample::None => PatchDraw { in_plane: Draw::Keep, reverses: false },
            _ => draw,
        };
        let [slices, rows, columns] = item.extent;
        let plane = rows * columns;
        let volume = slices * plane;
        for (number, annotation) in sample.annotation.chunks_exact_mut(plane).enumerate() {
            let offset = if draw.reverses { slices - 1 - number } else { number };
            for (channel, image) in sample.image.chunks_exact_mut(volume).enumerate() {
                let image = &mut image[number * plane..][..plane];
                let mut written = Sample { shape: [rows, columns], image, annotation };
                if let Some(found) = self.plane(item.first[0] + offset as i64, channel) {
                    self.turn(found, item, draw, &mut written);
                } else {
                    written.image.fill(0.0);
                    written.annotation.fill(IGNORE);
                }
            }
        }
    }

    /// One channel of a slice; none outside of the scan.
    fn plane(&self, slice: i64, channel: usize) -> Option<Slice<'_>> {
        let scan = &self.case.scan;
        let [slices, rows, columns] = scan.grid.shape;
        let slice = usize::try_from(slice).ok().filter(|&slice| slice < slices)?;
        let pixels = rows * columns;
        Some(Slice {
            shape: [rows, columns],
            image: &scan.slice(slice)[channel * pixels..][..pixels],
            annotation: &self.labels[slice * pixels..][..pixels],
            outside: IGNORE,
        })
    }

    /// Writes the part of a plane that `item` shows of it once it is turned about the middle of that part.
    fn turn(&self, plane: Slice<'_>, item: &Item, draw: PatchDraw, sample: &mut Sample<'_>) {
        let [down, across] = draw.margin(sample.shape);
        let shape = [sample.shape[0] + 2 * down, sample.shape[1] + 2 * across];
        let first = [item.first[1] - down as i64, item.first[2] - across as i64];
        let image = window(plane.image, plane.shape, first, (shape, 0.0));
        let annotation = window(plane.annotation, plane.shape, first, (shape, IGNORE));
        let seen = Slice { shape, image: &image, annotation: &annotation, outside: IGNORE };
        // Of the same size, so that nothing is resized.
        let transform = Transform::resizing(self.resample, draw.in_plane);
        if [down, across] == [0, 0] {
            return transform.apply(&seen, sample);
        }
        let (mut image, mut annotation) = (image.clone(), annotation.clone());
        let mut turned = Sample { shape, image: &mut image, annotation: &mut annotation };
        transform.apply(&seen, &mut turned);
        let inner = [down as i64, across as i64];
        sample.image.copy_from_slice(&window(&image, shape, inner, (sample.shape, 0.0)));
        sample.annotation.copy_from_slice(&window(
            &annotation,
            shape,
            inner,
            (sample.shape, IGNORE),
        ));
    }
}

/// The part of a plane of `shape` from `first` on, with `outside` where it reaches beyond.
fn window<T: Copy>(
    plane: &[T],
    shape: [usize; 2],
    first: [i64; 2],
    (extent, outside): ([usize; 2], T),
) -> Vec<T> {
    let [rows, columns] = shape.map(|extent| extent as i64);
    let mut cut = vec![outside; extent[0] * extent[1]];
    // The columns that both have, counted along the plane.
    let (begin, end) = (first[1].max(0), (first[1] + extent[1] as i64).min(columns));
    if begin >= end {
        return cut;
    }
    for (number, line) in cut.chunks_exact_mut(extent[1].max(1)).enumerate() {
        let row = first[0] + number as i64;
        if (0..rows).contains(&row) {
            let known = &plane[(row * columns + begin) as usize..(row * columns + end) as usize];
            line[(begin - first[1]) as usize..][..known.len()].copy_from_slice(known);
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_keeps_what_lies_in_the_plane_and_pads_the_rest() {
        let plane: Vec<u8> = (1..=6).collect();
        let cut = |first, extent| window(&plane, [2, 3], first, (extent, 9));
        assert_eq!(cut([0, 0], [2, 3]), plane);
        assert_eq!(cut([-1, 1], [2, 3]), [9, 9, 9, 2, 3, 9]);
        assert_eq!(cut([1, -2], [2, 3]), [9, 9, 4, 9, 9, 9]);
        assert_eq!(cut([-5, -5], [2, 2]), [9; 4]);
        assert_eq!(cut([0, 3], [1, 2]), [9; 2]);
    }

    #[test]
    fn the_middle_of_a_slice_may_reach_beyond_it() {
        let crop = Item::crop(3, 5, ([25, 19], 22));
        assert_eq!((crop.case, crop.first, crop.extent), (3, [5, 1, -1], [1, 22, 22]));
        assert_eq!(Item::crop(0, 0, ([22, 22], 22)), Item::slice(0, 0, [22, 22]));
    }

    #[test]
    fn patches_that_are_not_square_make_half_turns_alone() {
        let draws = |number| crate::random::Key::new(2).number(number).draws();
        let (mut halves, mut quarters, mut reversed) = (0, 0, 0);
        for number in 0..400 {
            let wide = PatchDraw::sample(Resample::Bilinear, &mut draws(number), [4, 8, 6]);
            let square = PatchDraw::sample(Resample::Bilinear, &mut draws(number), [1, 8, 8]);
            assert!(!square.reverses);
            reversed += usize::from(wide.reverses);
            if let Draw::Turn { quarter_turns, .. } = wide.in_plane {
                assert_eq!(quarter_turns % 2, 0);
                halves += usize::from(quarter_turns == 2);
            }
            if let Draw::Turn { quarter_turns, .. } = square.in_plane {
                quarters += usize::from(quarter_turns % 2 == 1);
            }
        }
        assert!(halves > 50 && quarters > 50 && (150..250).contains(&reversed));
    }
}
