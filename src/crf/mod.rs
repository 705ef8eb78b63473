//! The fully connected conditional random field of Krähenbühl and Koltun for pictures of any number
//! of labels.
//!
//! Krähenbühl and Koltun, *Efficient Inference in Fully Connected CRFs with Gaussian Edge
//! Potentials*, NIPS 2011: every pixel pulls every other one towards its own label, the more the
//! closer they are in place and colour. Mean-field iterations need sums over all pixels, which the
//! permutohedral lattice of Adams, Baek and Davis (2010) approximates; what comes out is that of
//! the package `pydensecrf`, not that of the exact sums. Knows one picture and the costs of its
//! labels; where those come from, and which label is taken in the end, is for others to say.

mod kernel;
mod lattice;
mod mean_field;
mod vertices;

use crate::error::{Failure, Result};
use kernel::Kernel;
use lattice::Lattice;
use mean_field::Kernels;

/// The smallest score that counts: a label that scores less still has a finite cost.
const LEAST_SCORE: f64 = 1e-5;

/// Adding and taking off this rounds a number to the nearest integer, halves to even ones, as long
/// as it is below [`LARGEST_ROUNDED`]: as the function does that is there for it, but many at once.
const ROUNDER: f32 = 12_582_912.0;
const LARGEST_ROUNDED: f32 = 2_097_152.0;

/// A picture of three colour channels.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// Pixels of a row.
    pub columns: usize,
    /// Grey levels 0 to 255, `[rows, columns, 3]`, row-major. The order of the channels matters a
    /// little: the lattice is not the same in every direction.
    pub pixels: &'a [u8],
}

/// The kernel of places: `exp(-|dx|^2 / 2)` with `dx` in units of the widths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gaussian {
    /// Standard deviations along a row and along a column, positive.
    pub widths_pixels: [f32; 2],
    /// How strongly equal labels attract each other (Potts model).
    pub compatibility: f32,
}

/// The kernel of places and colours: as [`Gaussian`], but for five features.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bilateral {
    /// Standard deviations along a row and along a column, positive.
    pub widths_pixels: [f32; 2],
    /// Standard deviations of the three channels in grey levels, positive.
    pub widths_levels: [f32; 3],
    /// How strongly equal labels attract each other (Potts model).
    pub compatibility: f32,
}

/// A random field: its kernels, and for how long it is iterated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DenseCrf {
    /// Smooths labels wherever they are.
    pub gaussian: Option<Gaussian>,
    /// Smooths labels where colours are alike.
    pub bilateral: Option<Bilateral>,
    /// Mean-field iterations; after none the marginals are the softmax of the negative costs.
    pub iterations: usize,
}

impl DenseCrf {
    /// The marginals `[labels, rows, columns]` in `[0, 1]`, which sum to 1 over the labels.
    ///
    /// `unary` holds the cost of each label in each pixel, in the same order; there are as many
    /// labels as it has planes of the size of the picture. Starting from `Q = softmax(-U)` every
    /// iteration takes `Q = softmax(-U + sum_k w_k N_k K_k N_k Q)` with compatibility `w` and
    /// `N = diag(1 / sqrt(K 1 + 1e-20))`; the message of a pixel to itself is part of it.
    ///
    /// Refuses arrays that do not fit each other, costs that are not finite, widths that are not
    /// positive, and widths so small that the lattice has no numbers for its vertices.
    pub fn marginals(&self, image: Image<'_>, unary: &[f32]) -> Result<Vec<f32>> {
        let labels = self.check(image, unary)?;
        let pixels = image.pixels.as_chunks::<3>().0;
        let gaussian = self.gaussian.map(|kernel| {
            let places = places(pixels.len(), image.columns, kernel.widths_pixels);
            let features = places.map(|[x, y]| [x, y, 0.0]);
            Ok(Kernel::new(Lattice::of(pixels.len(), features)?, kernel.compatibility))
        });
        let bilateral = self.bilateral.map(|kernel| {
            let places = places(pixels.len(), image.columns, kernel.widths_pixels);
            let [first, second, third] = kernel.widths_levels;
            let features = places.zip(pixels).map(|([x, y], levels)| {
                let levels = levels.map(f32::from);
                [x, y, levels[0] / first, levels[1] / second, levels[2] / third, 0.0]
            });
            Ok(Kernel::new(Lattice::of(pixels.len(), features)?, kernel.compatibility))
        });
        let kernels =
            Kernels { gaussian: gaussian.transpose()?, bilateral: bilateral.transpose()? };
        Ok(if labels <= 2 {
            kernels.marginals::<2>(unary, pixels.len(), self.iterations)
        } else {
            kernels.marginals::<4>(unary, pixels.len(), self.iterations)
        })
    }

    /// How many labels there are, if everything fits.
    fn check(&self, image: Image<'_>, unary: &[f32]) -> Result<usize> {
        let (channels, columns) = (image.pixels.len(), image.columns);
        if channels == 0 || columns == 0 || !channels.is_multiple_of(3 * columns) {
            return Err(Failure::new(format!(
                "a picture has {channels} grey levels in rows of {columns} pixels, expected whole rows of three channels"
            ))
            .hint("pass `[rows, columns, 3]`, and repeat a grey picture in all three channels"));
        }
        let pixels = channels / 3;
        if unary.is_empty() || !unary.len().is_multiple_of(pixels) {
            return Err(Failure::new(format!(
                "there are {} unary costs for {pixels} pixels, expected a plane of them for every label",
                unary.len()
            ))
            .hint("pass `[labels, rows, columns]`"));
        }
        if let Some(place) = unary.iter().position(|cost| !cost.is_finite()) {
            return Err(Failure::new(format!(
                "the cost of label {} in pixel {} is {}, expected a finite one",
                place / pixels,
                place % pixels,
                unary[place]
            ))
            .hint("take costs from `unary_costs`, which keeps them finite"));
        }
        self.check_kernels()?;
        Ok(unary.len() / pixels)
    }

    fn check_kernels(&self) -> Result<()> {
        let mut widths = Vec::new();
        let mut strengths = Vec::new();
        if let Some(kernel) = self.gaussian {
            widths.extend(kernel.widths_pixels);
            strengths.push(kernel.compatibility);
        }
        if let Some(kernel) = self.bilateral {
            widths.extend(kernel.widths_pixels);
            widths.extend(kernel.widths_levels);
            strengths.push(kernel.compatibility);
        }
        if let Some(width) = widths.iter().find(|width| !width.is_finite() || **width <= 0.0) {
            return Err(Failure::new(format!(
                "the width of a kernel is {width}, expected a positive number"
            ))
            .hint("leave a kernel out with `None`"));
        }
        match strengths.iter().find(|strength| !strength.is_finite()) {
            Some(strength) => Err(Failure::new(format!(
                "the compatibility of a kernel is {strength}, expected a finite number"
            ))
            .hint("leave a kernel out with `None`")),
            None => Ok(()),
        }
    }
}

/// Where each pixel is, along its row and along its column, in units of `widths`.
fn places(
    pixels: usize,
    columns: usize,
    [along_row, along_column]: [f32; 2],
) -> impl Iterator<Item = [f32; 2]> {
    (0..pixels / columns).flat_map(move |row| {
        let y = row as f32 / along_column;
        (0..columns).map(move |column| [column as f32 / along_row, y])
    })
}

/// The cost of every score in `[0, 1]`: `-ln(score)`, of scores below 1e-5 as of that.
///
/// As `unary_from_softmax` of `pydensecrf`, in double precision; scores need not sum to 1.
pub fn unary_costs(scores: &[f64]) -> Vec<f32> {
    scores.iter().map(|score| -score.clamp(LEAST_SCORE, 1.0).ln() as f32).collect()
}
