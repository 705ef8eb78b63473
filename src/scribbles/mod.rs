//! Scribbles and points that a program draws where dense labels exist.
//!
//! Works on the label maps of single slices; knows no images, no files and no data sets. What is
//! random comes in as a [`Chance`], so that equal draws give equal strokes.

mod outline;
mod parts;
mod place;
mod points;
mod scribblebench;
mod shorten;
mod shrink;
mod stroke;

pub use place::{rotate, shift};
pub use points::points;
pub use scribblebench::scribblebench;
pub use shorten::shorten;
pub use shrink::{erode, thin};
pub use stroke::{Walk, cut_branches, scribble};

use crate::random::Draws;

/// The label of pixels that nobody drew on.
pub const UNLABELLED: u8 = 255;

/// A binary picture, row-major: which pixels belong to something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Pixels of a row, at least 1.
    pub columns: usize,
    /// Whether each pixel belongs to it.
    pub pixels: Vec<bool>,
}

impl Mask {
    /// The pixels of `labels` that are `label`, in rows of `columns`.
    pub fn of(labels: &[u8], label: u8, columns: usize) -> Self {
        Self { columns, pixels: labels.iter().map(|&found| found == label).collect() }
    }

    /// How many pixels belong to it.
    pub fn area(&self) -> usize {
        self.pixels.iter().filter(|&&pixel| pixel).count()
    }

    fn rows(&self) -> usize {
        self.pixels.len() / self.columns.max(1)
    }

    fn empty_like(&self) -> Self {
        Self { columns: self.columns, pixels: vec![false; self.pixels.len()] }
    }

    /// The same mask with `pixels`.
    fn with(mut self, pixels: &[usize]) -> Self {
        for &pixel in pixels {
            self.pixels[pixel] = true;
        }
        self
    }

    /// The pixel `[down, right]` of `pixel`, if there is one.
    fn beside(&self, pixel: usize, [down, right]: [isize; 2]) -> Option<usize> {
        let row = (pixel / self.columns).checked_add_signed(down)?;
        let column = (pixel % self.columns).checked_add_signed(right)?;
        (row < self.rows() && column < self.columns).then(|| row * self.columns + column)
    }

    /// Whether the pixel `[down, right]` of `pixel` belongs to it; what is outside does not.
    fn holds(&self, pixel: usize, offset: [isize; 2]) -> bool {
        self.beside(pixel, offset).is_some_and(|near| self.pixels[near])
    }
}

/// What is drawn by chance while a slice is scribbled on, in the order in which it is asked for.
pub trait Chance {
    /// Where between fewest and most the number of erosions lies, in `[0, 1)`.
    fn erosion_share(&mut self) -> f64;
    /// One of the directions that a walk can take, `3 (down + 1) + right + 1`; never called with none.
    fn direction(&mut self, open: &[u8]) -> u8;
    /// By how many pixels a stroke is shifted `[down, right]`, each -6 to 6.
    fn shift(&mut self) -> [isize; 2];
    /// By how many degrees a stroke is rotated, -15 to 15.
    fn degrees(&mut self) -> f64;
}

impl Chance for Draws {
    fn erosion_share(&mut self) -> f64 {
        self.uniform()
    }

    fn direction(&mut self, open: &[u8]) -> u8 {
        open[self.below(open.len() as u64) as usize]
    }

    fn shift(&mut self) -> [isize; 2] {
        [self.below(13) as isize - 6, self.below(13) as isize - 6]
    }

    fn degrees(&mut self) -> f64 {
        self.range(-15.0, 15.0)
    }
}
