//! What each block of a mix costs, and what each border between two blocks does.

use super::blocks::{means, shares};
use super::energy::{Costs, Energy, whole};
use super::{Draw, Settings, View};
use crate::error::Result;

/// Pixels along a side of the squares whose mean intensities are compared across borders.
const SQUARE: usize = 4;
/// What the strength of smoothness is divided by, beside the number of blocks along a side.
const SMOOTHNESS_DIVISOR: f64 = 16.0;
/// Costs are whole multiples of a thousandth of the mean saliency of a block.
const UNITS_PER_BLOCK: f64 = 1000.0;
/// Keeps the logarithm of the probability of a label finite.
const LEAST_PROBABILITY: f64 = 1e-8;

/// The costs of a mix before they are whole numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// Along a side.
    blocks: usize,
    /// What showing one of the images alone costs in each block, `[blocks * blocks]`, row-major: the
    /// saliency of the other image there, and how much the image itself changes across the borders.
    pub images: [Vec<f32>; 2],
    /// What it costs beyond that where blocks above and below a border show different images,
    /// `[(blocks - 1) * blocks]`, row-major; it may be negative.
    pub vertical: Vec<f32>,
    /// The same for blocks left and right of a border, `[blocks * (blocks - 1)]`.
    pub horizontal: Vec<f32>,
}

impl Terms {
    /// The terms of two images of `size` x `size` pixels.
    ///
    /// Let `X` be the mean intensities of squares of 4 x 4 pixels, mapped by `x / 2 + 1 / 2`. A border
    /// with image `a` on its near side and image `b` on its far side costs `V[a][b]`: the mean along it of
    /// `|X_a - X_b|`, times `gamma beta / (16 blocks)`. Image `a` in the near block is charged
    /// `(V[a][0] + V[a][1]) / 2`, image `b` in the far block `(V[0][b] + V[1][b]) / 2`, and
    /// `(V[0][1] + V[1][0] - V[0][0] - V[1][1]) / 2` is left for blocks that differ.
    pub fn of(views: [View<'_>; 2], size: usize, settings: &Settings, blocks: usize) -> Self {
        let side = size / blocks;
        let [first, second] = views.map(|view| shares(view.saliency, size, side));
        let squares = views.map(|view| means(view.image, size, SQUARE, |pixel| pixel * 0.5 + 0.5));
        let lines = Lines {
            squares,
            columns: size / SQUARE,
            along: side / SQUARE,
            strength: (smoothness(settings, blocks) * settings.gamma) as f32,
        };
        let inner = blocks - 1;
        let mut terms =
            Self { blocks, images: [second, first], vertical: Vec::new(), horizontal: Vec::new() };
        let vertical = (0..inner * blocks).map(|block| (block, lines.below(block, blocks)));
        terms.vertical = terms.charge(&vertical.collect::<Vec<_>>(), blocks);
        let left = |border: usize| border / inner * blocks + border % inner;
        let horizontal = (0..blocks * inner).map(left);
        let horizontal = horizontal.map(|block| (block, lines.right_of(block, blocks)));
        terms.horizontal = terms.charge(&horizontal.collect::<Vec<_>>(), 1);
        terms
    }

    /// Charges the blocks on both sides of borders, each given with its near block; the far one is `step`
    /// blocks on. Returns what is left for blocks that differ.
    fn charge(&mut self, borders: &[(usize, Border)], step: usize) -> Vec<f32> {
        // All near blocks come first, because the order in which a block is charged rounds.
        for (image, costs) in self.images.iter_mut().enumerate() {
            for (near, border) in borders {
                costs[*near] += 0.5 * (border[image][0] + border[image][1]);
            }
            for (near, border) in borders {
                costs[near + step] += 0.5 * (border[0][image] + border[1][image]);
            }
        }
        let left = |(_, border): &(usize, Border)| {
            0.5 * (border[0][1] + border[1][0] - border[0][0] - border[1][1])
        };
        borders.iter().map(left).collect()
    }

    /// The energy of the mix in whole numbers: costs times `1000 blocks^2`, cut off towards 0; borders whose
    /// cost is negative cost nothing. Refuses what is no number or too large to be added up.
    ///
    /// A block with label `l` of `n` shows the second image with a share of `l / (n - 1)`. Whatever it shows,
    /// that costs `-eta ln(p + 1e-8) / blocks^2`, with `p` the binomial probability that `l` of `n - 1` draws
    /// are the second image.
    pub fn energy(&self, settings: &Settings, draw: Draw) -> Result<Energy> {
        let count = (self.blocks * self.blocks) as f64;
        let units = UNITS_PER_BLOCK * count;
        let last = settings.labels - 1;
        let prior =
            |probability: f64| settings.eta / count * -(probability + LEAST_PROBABILITY).ln();
        let priors: Vec<f64> = probabilities(last, draw.share).into_iter().map(prior).collect();
        let [first, second] = &self.images;
        let of_block = |(&first, &second): (&f32, &f32)| {
            let (first, second) = (f64::from(first), f64::from(second));
            let of_label = move |(label, prior): (usize, &f64)| {
                let share = label as f64 / last as f64;
                units * ((1.0 - share) * first + share * second + prior)
            };
            priors.iter().enumerate().map(of_label)
        };
        let smoothness = smoothness(settings, self.blocks) as f32;
        let of_border = |&term: &f32| f64::from((term + smoothness) * units as f32).max(0.0);
        Energy::new(Costs {
            blocks: self.blocks,
            labels: settings.labels,
            unary: whole("block", first.iter().zip(second).flat_map(of_block))?,
            vertical: whole("border", self.vertical.iter().map(of_border))?,
            horizontal: whole("border", self.horizontal.iter().map(of_border))?,
        })
    }
}

/// What a border costs for each image on its near side and each on its far side, `[near][far]`.
type Border = [[f32; 2]; 2];

/// Mean intensities of both images along the borders of blocks.
struct Lines {
    /// `[columns * columns]` of each image.
    squares: [Vec<f32>; 2],
    columns: usize,
    /// Squares along a side of a block.
    along: usize,
    strength: f32,
}

impl Lines {
    /// The border below a block.
    fn below(&self, block: usize, blocks: usize) -> Border {
        let (row, column) = (block / blocks, block % blocks);
        let last = (self.along * (row + 1) - 1) * self.columns;
        self.border(last + self.along * column, 1, self.columns)
    }

    /// The border to the right of a block.
    fn right_of(&self, block: usize, blocks: usize) -> Border {
        let (row, column) = (block / blocks, block % blocks);
        let last = self.along * (column + 1) - 1;
        self.border(self.along * row * self.columns + last, self.columns, 1)
    }

    /// The border whose near side begins at a square; `stride` leads along it, and `across` over it.
    fn border(&self, start: usize, stride: usize, across: usize) -> Border {
        let cost = |near: &[f32], far: &[f32]| {
            let places = (0..self.along).map(|place| start + place * stride);
            let steps = places.map(|place| (near[place] - far[place + across]).abs());
            steps.sum::<f32>() / self.along as f32 * self.strength
        };
        self.squares.each_ref().map(|near| self.squares.each_ref().map(|far| cost(near, far)))
    }
}

/// What two neighbouring blocks with the largest difference of shares cost, before whole numbers.
fn smoothness(settings: &Settings, blocks: usize) -> f64 {
    settings.beta / blocks as f64 / SMOOTHNESS_DIVISOR
}

/// The probability that 0, 1, … or all of `draws` draws are the second image, where each is the first one
/// with probability `share`.
fn probabilities(draws: usize, share: f64) -> Vec<f64> {
    let mut ways = 1.0;
    let mut probabilities = Vec::with_capacity(draws + 1);
    for second in 0..=draws {
        let first = (draws - second) as i32;
        probabilities.push(ways * share.powi(first) * (1.0 - share).powi(second as i32));
        ways *= f64::from(first) / (second + 1) as f64;
    }
    probabilities
}
