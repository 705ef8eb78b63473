//! The random walker: every pixel gets the class whose scribbles a random walk reaches first.
//!
//! Grady, *Random Walks for Image Segmentation*, TPAMI 28(11), 2006, with the settings with which
//! HiLab-git/WSL4MIS (a594da8d, `code/dataloaders/dataset.py`) makes pseudo labels of ACDC scribbles.
//! Knows one slice; which slices there are, and in which file, is for others to say.

use super::front::LANES;
use super::network::{FREE, Grid};
use crate::error::{Failure, Result};

/// How strongly differences of intensity hold a walk back.
const BETA: f64 = 100.0;

/// The least conductance, as scikit-image adds it: without it a pixel could be cut off.
const LEAST_CONDUCTANCE: f64 = 1e-10;

/// How far the potential of a pixel may be from the mean of its neighbours'.
const TOLERANCE: f64 = 1e-9;

/// What becomes of a slice whose scribble lacks a structure (a class but the background).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// All of it becomes background, as in the released code: where a structure has no scribble
    /// although it is there, and also where the scribbles show other structures.
    AllBackground,
    /// The walk goes between the classes that have scribbles; without any, all is background.
    LeftOut,
}

/// One slice and what somebody drew on it.
#[derive(Debug, Clone, Copy)]
pub struct Scribbled<'a> {
    /// Pixels of a row.
    pub columns: usize,
    /// Intensities in `[0, 1]`, row-major.
    pub image: &'a [f32],
    /// The class of every pixel that somebody annotated, like `image`; labels from `classes` on mean
    /// that nobody did.
    pub scribble: &'a [u8],
    /// How many classes there are, the background, class 0, included; at most 254.
    pub classes: usize,
}

impl Scribbled<'_> {
    /// The pseudo label of every pixel: a class below `classes`, never unknown.
    ///
    /// Annotated pixels keep their class; of equally probable classes the lowest is taken. Refuses
    /// arrays that do not fit each other and intensities that are not finite.
    pub fn random_walker(&self, absent: Absent) -> Result<Vec<u8>> {
        self.check()?;
        let seeded: Vec<u8> =
            (0..self.classes as u8).filter(|class| self.scribble.contains(class)).collect();
        let structures = seeded.iter().filter(|&&class| class > 0).count();
        let lacks_one = structures + 1 < self.classes;
        if seeded.is_empty() || (lacks_one && absent == Absent::AllBackground) {
            return Ok(vec![0; self.image.len()]);
        }
        let probabilities = self.walk(&seeded)?;
        let most_probable = |row: &[f64]| {
            let mut best = 0;
            for (place, probability) in row.iter().enumerate() {
                if *probability > row[best] {
                    best = place;
                }
            }
            seeded[best]
        };
        Ok(probabilities.chunks_exact(seeded.len()).map(most_probable).collect())
    }

    /// For every pixel the probabilities that a walk from it first reaches a scribble of each of the
    /// classes that have one, ascending; empty where no class has.
    pub fn probabilities(&self) -> Result<Vec<f64>> {
        self.check()?;
        let seeded: Vec<u8> =
            (0..self.classes as u8).filter(|class| self.scribble.contains(class)).collect();
        if seeded.is_empty() { Ok(Vec::new()) } else { self.walk(&seeded) }
    }

    /// The conductances to the right neighbour and to the one below, for every pixel; those of
    /// neighbours beyond the border have no meaning.
    ///
    /// `w = exp(-(beta / (10 sigma)) (g_i - g_j)^2) + 1e-10` with `g` the intensities mapped from
    /// `[-0.35, 1.35]` to `[-1, 1]` and sigma the standard deviation of all of them.
    pub fn conductances(&self) -> [Vec<f64>; 2] {
        let rescaled: Vec<f32> = self.image.iter().map(|&value| rescale(value)).collect();
        let count = rescaled.len() as f64;
        let mean = rescaled.iter().copied().map(f64::from).sum::<f64>() / count;
        let square = |&value: &f32| (f64::from(value) - mean).powi(2);
        let deviation = (rescaled.iter().map(square).sum::<f64>() / count).sqrt();
        let conductance = |one: usize, other: usize| {
            let Some(&value) = rescaled.get(other) else { return 0.0 };
            let difference = f64::from(rescaled[one] - value);
            // In a slice of one intensity no two pixels differ, and the quotient would be 0 / 0.
            let held_back = if difference == 0.0 {
                0.0
            } else {
                BETA / (10.0 * deviation) * difference.powi(2)
            };
            (-held_back).exp() + LEAST_CONDUCTANCE
        };
        let to =
            |step: usize| (0..rescaled.len()).map(|one| conductance(one, one + step)).collect();
        [to(1), to(self.columns)]
    }

    fn check(&self) -> Result<()> {
        let pixels = self.image.len();
        if self.columns == 0
            || !pixels.is_multiple_of(self.columns)
            || self.scribble.len() != pixels
        {
            return Err(Failure::new(format!(
                "an image of {pixels} pixels in rows of {} has a scribble of {} pixels, expected whole rows and as many",
                self.columns,
                self.scribble.len()
            )));
        }
        if let Some(pixel) = self.image.iter().position(|value| !value.is_finite()) {
            let (row, column) = (pixel / self.columns, pixel % self.columns);
            return Err(Failure::new(format!(
                "the intensity at row {row}, column {column} is {}, expected a finite one",
                self.image[pixel]
            )));
        }
        if self.classes >= usize::from(FREE) {
            return Err(Failure::new(format!(
                "there are {} classes, expected at most {}",
                self.classes,
                FREE - 1
            )));
        }
        Ok(())
    }

    /// The probabilities of the classes `seeded` for every pixel.
    fn walk(&self, seeded: &[u8]) -> Result<Vec<f64>> {
        let [right, down] = self.conductances();
        let mut terminal_of = [FREE; 256];
        for (terminal, &class) in seeded.iter().enumerate() {
            terminal_of[usize::from(class)] = terminal as u8;
        }
        let grid = Grid {
            rows: self.image.len() / self.columns,
            columns: self.columns,
            right,
            down,
            terminals: self.scribble.iter().map(|&label| terminal_of[usize::from(label)]).collect(),
            terminal_count: seeded.len(),
        };
        let potentials = grid.potentials();
        let lanes = grid.groups() * LANES;
        let probabilities: Vec<f64> = potentials
            .as_flattened()
            .chunks_exact(lanes)
            .flat_map(|row| row[..seeded.len()].iter().copied())
            .collect();
        verify(&grid, &probabilities)?;
        Ok(probabilities)
    }
}

/// From `[-0.35, 1.35]`, beyond which values are cut, to `[-1, 1]`, in the order of scikit-image's
/// `rescale_intensity`.
fn rescale(value: f32) -> f32 {
    (value.clamp(-0.35, 1.35) + 0.35) / 1.7 * 2.0 - 1.0
}

/// Refuses probabilities that do not solve the network: every free pixel must have the mean of its
/// neighbours, weighted by the conductances.
fn verify(grid: &Grid, probabilities: &[f64]) -> Result<()> {
    let count = grid.terminal_count;
    let mut means = vec![0.0; count];
    for (pixel, own) in probabilities.chunks_exact(count).enumerate() {
        if grid.terminals[pixel] != FREE {
            continue;
        }
        let mut total = 0.0;
        means.fill(0.0);
        for (near, conductance) in grid.neighbours(pixel) {
            total += conductance;
            for (mean, probability) in means.iter_mut().zip(&probabilities[near * count..]) {
                *mean += conductance * probability;
            }
        }
        let off = means.iter().zip(own).map(|(mean, own)| (mean / total - own).abs());
        let off = off.fold(0.0, |worst: f64, off| if off <= worst { worst } else { off });
        if off.is_nan() || off > TOLERANCE {
            let (row, column) = (pixel / grid.columns, pixel % grid.columns);
            return Err(Failure::new(format!(
                "the random walk does not come out at row {row}, column {column}: a probability is {off:e} from the mean of its neighbours, expected at most {TOLERANCE:e}"
            ))
            .hint("look at the intensities of this slice: they may hold numbers beyond all measure"));
        }
    }
    Ok(())
}
