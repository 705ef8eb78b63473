//! What a labelling of blocks costs, in whole numbers.

use crate::error::{Failure, Result};

/// The largest cost of a block or a border, 2^31. With it and [`MOST_BLOCKS`] no sum leaves 64 bits.
const MOST: u32 = 1 << 31;
/// The most blocks along a side.
const MOST_BLOCKS: usize = 64;
/// The most labels.
const MOST_LABELS: usize = 255;
/// What the cost of a label in a block counts.
const UNARY: i64 = 100_000;
/// What the cost of a border counts for each hundredth of the difference of its labels.
const PAIRWISE: i64 = 1000;

/// Whole-numbered costs of `blocks` x `blocks` blocks, all at most 2^31 in size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Costs {
    /// Along a side, 1 to 64.
    pub blocks: usize,
    /// How many there are, 2 to 255.
    pub labels: usize,
    /// Of each label in each block, `[blocks * blocks * labels]`.
    pub unary: Vec<i64>,
    /// Of different labels above and below a border, `[(blocks - 1) * blocks]`, at least 0.
    pub vertical: Vec<i64>,
    /// Of different labels left and right of a border, `[blocks * (blocks - 1)]`, at least 0.
    pub horizontal: Vec<i64>,
}

/// What a labelling of blocks costs.
///
/// `E = 100000 sum_i D_i(l_i) + 1000 sum_ij w_ij v(l_i, l_j)` over blocks and over borders, where
/// `v(l, m) = floor(100 (l - m)^2 / (labels - 1)^2)`: the numbers of gco-wrapper 3.0.9, with which
/// published mixes were made, without its limit of 32 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Energy {
    pub(super) costs: Costs,
}

impl Energy {
    /// Refuses arrays that do not fit each other, and costs outside their range.
    pub fn new(costs: Costs) -> Result<Self> {
        let Costs { blocks, labels, unary, vertical, horizontal } = &costs;
        if !(1..=MOST_BLOCKS).contains(blocks) || !(2..=MOST_LABELS).contains(labels) {
            return Err(Failure::new(format!(
                "there are {blocks} blocks along a side and {labels} labels, expected 1 to \
                 {MOST_BLOCKS} and 2 to {MOST_LABELS}"
            )));
        }
        let (found, borders) = ([unary, vertical, horizontal].map(Vec::len), blocks * (blocks - 1));
        let expected = [blocks * blocks * labels, borders, borders];
        if found != expected {
            return Err(Failure::new(format!(
                "there are {found:?} costs of labels, vertical and horizontal borders, expected {expected:?}"
            )));
        }
        let is_within = |cost: &i64, least: i64| (least..=i64::from(MOST)).contains(cost);
        let borders = vertical.iter().chain(horizontal);
        let wrong = unary.iter().find(|cost| !is_within(cost, -i64::from(MOST)));
        if let Some(cost) = wrong.or_else(|| borders.clone().find(|cost| !is_within(cost, 0))) {
            return Err(Failure::new(format!(
                "a cost is {cost}, expected at most {MOST} in size, and at least 0 at borders"
            )));
        }
        Ok(Self { costs })
    }

    /// The energy of a labelling `[blocks * blocks]`, row-major, of labels below `labels`.
    pub fn of(&self, labels: &[u8]) -> i64 {
        let Costs { blocks, vertical, horizontal, .. } = &self.costs;
        let unary = labels.iter().enumerate().map(|(block, &label)| self.unary(block, label));
        let above = vertical.iter().zip(labels).zip(&labels[*blocks..]);
        let above = above.map(|((weight, one), other)| weight * self.difference(*one, *other));
        let rows = horizontal.chunks_exact((blocks - 1).max(1)).zip(labels.chunks_exact(*blocks));
        let beside = rows.flat_map(|(weights, row)| {
            let pairs = weights.iter().zip(row.windows(2));
            pairs.map(|(weight, pair)| weight * self.difference(pair[0], pair[1]))
        });
        unary.chain(above).chain(beside).sum()
    }

    /// What a label costs in a block.
    pub(super) fn unary(&self, block: usize, label: u8) -> i64 {
        UNARY * self.costs.unary[block * self.costs.labels + usize::from(label)]
    }

    /// What two labels cost at a border of weight 1.
    pub(super) fn difference(&self, one: u8, other: u8) -> i64 {
        let most = self.costs.labels as i64 - 1;
        let difference = i64::from(one) - i64::from(other);
        PAIRWISE * (100 * difference * difference / (most * most))
    }
}

/// Costs cut off towards 0; refuses those that are no number or too large. `what` says of what they are.
pub(super) fn whole(what: &str, costs: impl Iterator<Item = f64>) -> Result<Vec<i64>> {
    let cut_off = |(place, cost): (usize, f64)| {
        if cost.abs() <= f64::from(MOST) {
            return Ok(cost as i64);
        }
        Err(Failure::new(format!(
            "the cost of {what} {place} of a mix is {cost:e}, expected at most {MOST} in size"
        ))
        .hint("look at the intensities of the images to mix: they may hold numbers beyond all measure"))
    };
    costs.enumerate().map(cut_off).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs() -> Costs {
        Costs {
            blocks: 2,
            labels: 3,
            unary: (0..12).collect(),
            vertical: vec![3, 5],
            horizontal: vec![7, 11],
        }
    }

    #[test]
    fn an_energy_counts_every_block_and_every_border_once() {
        let energy = Energy::new(costs()).unwrap();
        assert_eq!(energy.of(&[0; 4]), 100_000 * (3 + 6 + 9));
        // Above 0 and 2, below 1 and 2.
        let unary = 100_000 * (5 + 7 + 11);
        let borders = 1000 * (3 * 25 + 7 * 100 + 11 * 25);
        assert_eq!(energy.of(&[0, 2, 1, 2]), unary + borders);
        let single = Costs {
            blocks: 1,
            unary: vec![4, 2, 1],
            vertical: vec![],
            horizontal: vec![],
            ..costs()
        };
        assert_eq!(Energy::new(single).unwrap().of(&[1]), 200_000);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let message = |costs| Energy::new(costs).unwrap_err().message().to_owned();
        assert_eq!(
            message(Costs { blocks: 0, ..costs() }),
            "there are 0 blocks along a side and 3 labels, expected 1 to 64 and 2 to 255"
        );
        assert_eq!(
            message(Costs { vertical: vec![3], ..costs() }),
            "there are [12, 1, 2] costs of labels, vertical and horizontal borders, expected [12, 2, 2]"
        );
        assert_eq!(
            message(Costs { vertical: vec![3, -5], ..costs() }),
            "a cost is -5, expected at most 2147483648 in size, and at least 0 at borders"
        );
        let found = whole("block", [0.5, -1.5, f64::NAN].into_iter()).unwrap_err();
        assert_eq!(
            found.message(),
            "the cost of block 2 of a mix is NaN, expected at most 2147483648 in size"
        );
        assert_eq!(whole("block", [0.5, -1.5].into_iter()).unwrap(), [0, -1]);
    }
}
