//! The largest connected part of each class.

use crate::scan::components::{self, Neighbourhood};

/// Turns into background (class 0) every pixel that is not in the largest 8-connected component of
/// its class. `labels` is one slice `[rows, columns]`, row-major, classes 0 to `classes - 1`; of
/// components of equal size the first in row-major order stays.
///
/// The clean-up of pseudo labels in earlier versions of lichen14/MaskMixAdv (89960db).
pub fn keep_largest(labels: &mut [u8], columns: usize, classes: usize) {
    let components = Components::find(labels, columns);
    let mut largest = vec![(0, u32::MAX); classes];
    for (number, &(class, size)) in components.found.iter().enumerate() {
        let best = &mut largest[usize::from(class)];
        if size > best.0 {
            *best = (size, number as u32);
        }
    }
    for (label, component) in labels.iter_mut().zip(components.of_pixel) {
        if *label != 0 && largest[usize::from(*label)].1 != component {
            *label = 0;
        }
    }
}

/// Turns into background (class 0) every pixel that is not both in the largest 4-connected component of its
/// class and in the largest 4-connected component of all structures (classes but the background) taken as one.
/// Both are looked for in the slice as it is given, `[rows, columns]`, row-major; of components of equal size
/// the first in row-major order stays.
///
/// With it CycleMix (BWGZK/CycleMix at 7674830) filters predictions.
pub fn keep_main_regions(labels: &mut [u8], columns: usize) {
    let shape = [1, labels.len() / columns.max(1), columns];
    let mut together: Vec<u8> = labels.iter().map(|&class| class.min(1)).collect();
    components::keep_largest(&mut together, shape, Neighbourhood::Faces);
    components::keep_largest(labels, shape, Neighbourhood::Faces);
    labels.iter_mut().zip(together).for_each(|(class, kept)| *class *= kept);
}

/// Which 8-connected component each pixel belongs to; pixels of class 0 belong to none.
pub(super) struct Components {
    /// The number of its component for each pixel, [`u32::MAX`] for those of class 0.
    pub(super) of_pixel: Vec<u32>,
    /// Class and number of pixels of each component.
    pub(super) found: Vec<(u8, usize)>,
}

impl Components {
    pub(super) fn find(labels: &[u8], columns: usize) -> Self {
        let mut of_pixel = vec![u32::MAX; labels.len()];
        let mut found = Vec::new();
        let mut open = Vec::new();
        for start in 0..labels.len() {
            if labels[start] == 0 || of_pixel[start] != u32::MAX {
                continue;
            }
            let (class, number) = (labels[start], found.len() as u32);
            let mut size = 0;
            of_pixel[start] = number;
            open.push(start);
            while let Some(pixel) = open.pop() {
                size += 1;
                for near in neighbours(pixel, columns, labels.len()) {
                    if labels[near] == class && of_pixel[near] == u32::MAX {
                        of_pixel[near] = number;
                        open.push(near);
                    }
                }
            }
            found.push((class, size));
        }
        Self { of_pixel, found }
    }
}

/// The up to eight pixels around one.
fn neighbours(pixel: usize, columns: usize, count: usize) -> impl Iterator<Item = usize> {
    let rows = count / columns;
    let (row, column) = (pixel / columns, pixel % columns);
    let above_to_below = row.saturating_sub(1)..=(row + 1).min(rows - 1);
    above_to_below.flat_map(move |row| {
        let left_to_right = column.saturating_sub(1)..=(column + 1).min(columns - 1);
        left_to_right.map(move |column| row * columns + column).filter(move |&near| near != pixel)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn diagonal_pixels_belong_together_and_islands_go() {
        #[rustfmt::skip]
        let mut labels = [
            1, 0, 0, 2, 0,
            0, 1, 0, 2, 0,
            0, 0, 0, 0, 1,
            2, 0, 0, 0, 0,
        ];
        keep_largest(&mut labels, 5, 3);
        #[rustfmt::skip]
        let expected = [
            1, 0, 0, 2, 0,
            0, 1, 0, 2, 0,
            0, 0, 0, 0, 0,
            0, 0, 0, 0, 0,
        ];
        assert_eq!(labels, expected);
    }

    #[test]
    fn a_class_keeps_its_largest_part_only_where_that_belongs_to_the_largest_of_all() {
        #[rustfmt::skip]
        let mut labels = [
            1, 1, 0, 2, 2, 2,
            0, 1, 2, 0, 0, 0,
            0, 3, 3, 0, 1, 0,
        ];
        keep_main_regions(&mut labels, 6);
        #[rustfmt::skip]
        let expected = [
            1, 1, 0, 0, 0, 0,
            0, 1, 0, 0, 0, 0,
            0, 3, 3, 0, 0, 0,
        ];
        assert_eq!(labels, expected);
        keep_main_regions(&mut [], 0);
    }

    proptest! {
        #[test]
        fn one_component_of_each_class_is_left_and_nothing_is_added(
            labels in proptest::collection::vec(0u8..4, 7 * 9),
        ) {
            let mut kept = labels.clone();
            keep_largest(&mut kept, 9, 4);
            prop_assert!(kept.iter().zip(&labels).all(|(after, before)| after == before || *after == 0));
            let components = Components::find(&kept, 9);
            for class in 1..4u8 {
                let present = labels.contains(&class);
                let count = components.found.iter().filter(|(found, _)| *found == class).count();
                prop_assert_eq!(count, usize::from(present));
            }
            let mut again = kept.clone();
            keep_largest(&mut again, 9, 4);
            prop_assert_eq!(again, kept);
        }
    }
}
