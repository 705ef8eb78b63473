//! Labellings of little energy by swaps of two labels.
//!
//! Boykov, Veksler and Zabih, *Fast Approximate Energy Minimization via Graph Cuts*, TPAMI 23(11), 2001.

use super::energy::{Costs, Energy};
use super::flow::Grid;

impl Energy {
    /// The labelling `[blocks * blocks]` at which swaps of two labels end that begin with label 0 everywhere.
    ///
    /// In turn for each pair of labels, `(0, n - 1)` to `(0, 1)`, then `(1, n - 1)` and so on, all blocks
    /// that have one of them get the one or the other at the least energy, of equally good ones the lower label
    /// in as many as can. That goes on until a round over all pairs lowers the energy no more.
    pub fn swapped(&self) -> Vec<u8> {
        let last = (self.costs.labels - 1) as u8;
        let mut labels = vec![0; self.costs.blocks * self.costs.blocks];
        let mut grid = Grid::new(self.costs.blocks);
        let mut energy = self.of(&labels);
        loop {
            for low in 0..last {
                for high in (low + 1..=last).rev() {
                    self.swap([low, high], &mut labels, &mut grid);
                }
            }
            let lowered = self.of(&labels);
            if lowered >= energy {
                return labels;
            }
            energy = lowered;
        }
    }

    /// Gives blocks that have one of two labels, the lower one first, the best of both.
    fn swap(&self, pair: [u8; 2], labels: &mut [u8], grid: &mut Grid) {
        let Costs { blocks, vertical, horizontal, .. } = &self.costs;
        let is_free = |label: u8| pair.contains(&label);
        grid.clear();
        for (block, &label) in labels.iter().enumerate() {
            if is_free(label) {
                let [low, high] = pair.map(|label| self.unary(block, label));
                grid.add_terminal(block, high - low);
            }
        }
        let between = self.difference(pair[0], pair[1]);
        // How much more the higher label costs beside a block whose label stays.
        let beside = |label| self.difference(pair[1], label) - self.difference(pair[0], label);
        let mut join = |one: usize, other: usize, weight: i64| match [one, other]
            .map(|block| is_free(labels[block]))
        {
            [true, true] if other == one + 1 => grid.join_right(one, weight * between),
            [true, true] => grid.join_below(one, weight * between),
            [true, false] => grid.add_terminal(one, weight * beside(labels[other])),
            [false, true] => grid.add_terminal(other, weight * beside(labels[one])),
            [false, false] => (),
        };
        for (upper, &weight) in vertical.iter().enumerate() {
            join(upper, upper + blocks, weight);
        }
        for (row, weights) in horizontal.chunks_exact((blocks - 1).max(1)).enumerate() {
            for (column, &weight) in weights.iter().enumerate() {
                join(row * blocks + column, row * blocks + column + 1, weight);
            }
        }
        grid.cut();
        for (block, label) in labels.iter_mut().enumerate() {
            if is_free(*label) {
                *label = pair[usize::from(grid.reaches_sink(block))];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// The same labelling by trying all of them in every swap.
    fn tried(energy: &Energy) -> Vec<u8> {
        let last = (energy.costs.labels - 1) as u8;
        let mut labels = vec![0; energy.costs.blocks.pow(2)];
        loop {
            let before = energy.of(&labels);
            for low in 0..last {
                for high in (low + 1..=last).rev() {
                    labels = best_of_pair(energy, [low, high], &labels);
                }
            }
            if energy.of(&labels) >= before {
                return labels;
            }
        }
    }

    fn best_of_pair(energy: &Energy, pair: [u8; 2], labels: &[u8]) -> Vec<u8> {
        let free: Vec<usize> =
            (0..labels.len()).filter(|&block| pair.contains(&labels[block])).collect();
        let with = |chosen: u32| {
            let mut labels = labels.to_vec();
            for (place, &block) in free.iter().enumerate() {
                labels[block] = pair[(chosen >> place & 1) as usize];
            }
            labels
        };
        let price = |&chosen: &u32| energy.of(&with(chosen));
        let least = (0..1 << free.len()).map(|chosen| price(&chosen)).min().unwrap();
        let best = (0..1 << free.len()).filter(|chosen| price(chosen) == least);
        // Where one of the best has the lower label, so has the one that is wanted.
        with(best.fold(u32::MAX, |common, chosen| common & chosen))
    }

    /// Problems with many ties.
    fn problems() -> impl Strategy<Value = Energy> {
        (1usize..4, 2usize..5).prop_flat_map(|(blocks, labels)| {
            let borders = blocks * (blocks - 1);
            (
                vec(-3i64..4, blocks * blocks * labels),
                vec(0i64..300, borders),
                vec(prop::sample::select(vec![0i64, 100, 200]), borders),
            )
                .prop_map(move |(unary, vertical, horizontal)| {
                    Energy::new(Costs { blocks, labels, unary, vertical, horizontal }).unwrap()
                })
        })
    }

    proptest! {
        #[test]
        fn swaps_find_what_trying_all_labellings_of_a_pair_finds(energy in problems()) {
            prop_assert_eq!(energy.swapped(), tried(&energy));
        }
    }

    #[test]
    fn equal_costs_keep_the_lower_label() {
        let costs = Costs {
            blocks: 2,
            labels: 3,
            unary: vec![5; 12],
            vertical: vec![1; 2],
            horizontal: vec![0; 2],
        };
        assert_eq!(Energy::new(costs).unwrap().swapped(), [0; 4]);
    }
}
