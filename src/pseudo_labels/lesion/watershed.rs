//! The watershed label: from a picture with dark lesions to one with white ones.
//!
//! `water` in `findContours.py` of mlcb-jlu/MedImgSeg (73c6b9e) and the functions of OpenCV that it
//! calls, with their orders: which component counts as first, and who is served first in a queue,
//! decides about pixels. Knows one picture.

use super::grey::grey;
use super::morphology::{city_block_distances, grow, open, otsu};
use crate::error::{Failure, Result};
use crate::pseudo_labels::components::Components;
use std::collections::VecDeque;

/// Two openings with a square of 3 pixels, three dilations with one of 7.
const OPENING_REACH: usize = 2;
const DILATION_REACH: usize = 9;

/// What a pixel is marked as. From [`FIRST_LESION`] on every component of the certain foreground has
/// a number of its own.
const BOUNDARY: i32 = -1;
const QUEUED: i32 = -2;
const UNKNOWN: i32 = 0;
const BACKGROUND: i32 = 1;
const FIRST_LESION: i32 = 2;
/// The repository paints the first three components only.
const LAST_PAINTED_LESION: i32 = 4;

/// The watershed label, `[rows, columns, 3]`: 255 for lesion, 0 for background and for the outermost
/// rows and columns.
///
/// `reversed` is the reversed mask in grey levels, `[rows, columns, 3]`, in which lesions are dark.
/// From the fourth component on the picture shows through, as in the repository: compare with 127,
/// as everywhere, and most of it becomes background. Refuses a picture without whole rows of three
/// channels.
pub fn watershed_label(reversed: &[u8], columns: usize) -> Result<Vec<u8>> {
    if reversed.is_empty() || columns == 0 || !reversed.len().is_multiple_of(3 * columns) {
        return Err(Failure::new(format!(
            "a picture has {} grey levels in rows of {columns} pixels, expected whole rows of three channels",
            reversed.len()
        ))
        .hint("pass what `SoftLesion::reversed` returns"));
    }
    let picture = reversed.as_chunks::<3>().0;
    let mut marks = certain(&grey(reversed), columns);
    flood(picture, columns, &mut marks);
    let painted = |(&pixel, mark)| match mark {
        BOUNDARY | BACKGROUND => [0; 3],
        FIRST_LESION..=LAST_PAINTED_LESION => [u8::MAX; 3],
        _ => pixel,
    };
    Ok(picture.iter().zip(marks).flat_map(painted).collect())
}

/// Marks what is certainly background, and each certain piece of a lesion; the rest is unknown.
fn certain(grey: &[u8], columns: usize) -> Vec<i32> {
    let threshold = otsu(grey);
    let dark: Vec<bool> = grey.iter().map(|&level| level <= threshold).collect();
    let possible = grow(&open(&dark, columns, OPENING_REACH), columns, DILATION_REACH);
    let distances = city_block_distances(&possible, columns);
    let largest = distances.iter().copied().max().unwrap_or(0);
    // Farther than seven tenths of the largest distance.
    let inner: Vec<u8> = distances
        .iter()
        .map(|&distance| u8::from(10 * u64::from(distance) > 7 * u64::from(largest)))
        .collect();
    let components = Components::find(&inner, columns);
    let places = places_in_block_order(&components, columns);
    let mark = |(&component, &possible): (&u32, &bool)| match places.get(component as usize) {
        Some(&place) => FIRST_LESION + place,
        None if possible => UNKNOWN,
        None => BACKGROUND,
    };
    components.of_pixel.iter().zip(&possible).map(mark).collect()
}

/// The place of each component when they are sorted by the first block of two by two pixels that
/// they touch, blocks row by row: the order of OpenCV.
fn places_in_block_order(components: &Components, columns: usize) -> Vec<i32> {
    let mut first_blocks = vec![(usize::MAX, usize::MAX); components.found.len()];
    for (pixel, &component) in components.of_pixel.iter().enumerate() {
        if let Some(first) = first_blocks.get_mut(component as usize) {
            *first = (*first).min((pixel / columns / 2, pixel % columns / 2));
        }
    }
    let mut order: Vec<usize> = (0..first_blocks.len()).collect();
    order.sort_by_key(|&component| first_blocks[component]);
    let mut places = vec![0; order.len()];
    for (place, component) in order.into_iter().enumerate() {
        places[component] = place as i32;
    }
    places
}

/// Lets all marks grow into the unknown, over small steps of grey level first, until they meet in
/// boundaries. The outermost pixels become boundary.
///
/// Meyer's algorithm as `cv::watershed` runs it: one queue for each possible step.
fn flood(picture: &[[u8; 3]], columns: usize, marks: &mut [i32]) {
    let rows = marks.len() / columns;
    for (pixel, mark) in marks.iter_mut().enumerate() {
        let (row, column) = (pixel / columns, pixel % columns);
        if row == 0 || row + 1 == rows || column == 0 || column + 1 == columns {
            *mark = BOUNDARY;
        }
    }
    let around = |pixel: usize| [pixel - 1, pixel + 1, pixel - columns, pixel + columns];
    let mut queues = vec![VecDeque::new(); 256];
    for pixel in 0..marks.len() {
        if marks[pixel] != UNKNOWN {
            continue;
        }
        let marked = around(pixel).into_iter().filter(|&near| marks[near] > 0);
        if let Some(step) = marked.map(|near| step(picture[pixel], picture[near])).min() {
            queues[step].push_back(pixel);
            marks[pixel] = QUEUED;
        }
    }
    let mut lowest = 0;
    while lowest < queues.len() {
        let Some(pixel) = queues[lowest].pop_front() else {
            lowest += 1;
            continue;
        };
        marks[pixel] = joined(around(pixel).map(|near| marks[near]));
        if marks[pixel] == BOUNDARY {
            continue;
        }
        for near in around(pixel) {
            if marks[near] == UNKNOWN {
                let step = step(picture[pixel], picture[near]);
                queues[step].push_back(near);
                lowest = lowest.min(step);
                marks[near] = QUEUED;
            }
        }
    }
}

/// The one mark among the neighbours, or a boundary where there are two.
fn joined(around: [i32; 4]) -> i32 {
    let mut marks = around.into_iter().filter(|&mark| mark > 0);
    let first = marks.next().unwrap_or(BOUNDARY);
    if marks.all(|mark| mark == first) { first } else { BOUNDARY }
}

/// The largest difference in any channel.
fn step(one: [u8; 3], other: [u8; 3]) -> usize {
    let differences = one.into_iter().zip(other).map(|(one, other)| one.abs_diff(other));
    differences.max().map_or(0, usize::from)
}
