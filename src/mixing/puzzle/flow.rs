//! The least cut of a square grid between a source and a sink.
//!
//! Preflows are pushed along shortest ways to the sink, the farthest nodes first, and distances found anew
//! after each sweep (Goldberg and Tarjan, *A New Approach to the Maximum-Flow Problem*, JACM 1988). What
//! nodes cannot bring to the sink stays with them: which of them can reach it no longer depends on that.

/// The directions in which flow goes: to the right, down, to the left and up; the opposite is two on.
const DIRECTIONS: usize = 4;
/// The distance of nodes that do not reach the sink.
const FAR: u32 = u32::MAX;

/// A grid of `side` x `side` nodes. Its memory serves any number of cuts.
pub(super) struct Grid {
    side: usize,
    /// What may still flow from each node in each direction. Around the grid is a frame of nodes without any,
    /// so that all of the grid have four neighbours.
    open: Vec<[i64; DIRECTIONS]>,
    /// What the source has sent to each node and is still there; negative: what it may still send to the sink.
    excess: Vec<i64>,
    /// Edges on the shortest way from each node to the sink.
    distances: Vec<u32>,
    /// Nodes in the order in which they were found from the sink.
    found: Vec<usize>,
}

impl Grid {
    pub(super) fn new(side: usize) -> Self {
        let framed = (side + 2) * (side + 2);
        Self {
            side,
            open: vec![[0; DIRECTIONS]; framed],
            excess: vec![0; framed],
            distances: vec![FAR; framed],
            found: Vec::with_capacity(framed),
        }
    }

    /// Empties all edges.
    pub(super) fn clear(&mut self) {
        self.open.fill([0; DIRECTIONS]);
        self.excess.fill(0);
    }

    /// Adds an edge from the source to a node of this capacity, or one to the sink of its negative.
    /// Nodes count row by row.
    pub(super) fn add_terminal(&mut self, node: usize, capacity: i64) {
        let node = self.framed(node);
        self.excess[node] += capacity;
    }

    /// Joins a node with the one to its right by an edge of a capacity in both directions.
    pub(super) fn join_right(&mut self, node: usize, capacity: i64) {
        self.join(node, 0, capacity);
    }

    /// Joins a node with the one below it by an edge of a capacity in both directions.
    pub(super) fn join_below(&mut self, node: usize, capacity: i64) {
        self.join(node, 1, capacity);
    }

    fn join(&mut self, node: usize, direction: usize, capacity: i64) {
        let node = self.framed(node);
        let other = node + self.steps()[direction];
        self.open[node][direction] += capacity;
        self.open[other][opposite(direction)] += capacity;
    }

    /// Sends all that can flow from the source to the sink. Afterwards [`Grid::reaches_sink`] divides the
    /// nodes by a least cut.
    pub(super) fn cut(&mut self) {
        while self.measure() {
            self.sweep();
        }
    }

    /// Whether more could flow from a node to the sink, once all that can flows. Of the least cuts it is
    /// the one with the fewest nodes on the side of the sink.
    pub(super) fn reaches_sink(&self, node: usize) -> bool {
        self.distances[self.framed(node)] != FAR
    }

    /// Finds all distances; whether any node with excess reaches the sink.
    fn measure(&mut self) -> bool {
        let steps = self.steps();
        self.distances.fill(FAR);
        self.found.clear();
        for (node, excess) in self.excess.iter().enumerate() {
            if *excess < 0 {
                self.distances[node] = 0;
                self.found.push(node);
            }
        }
        let (mut next, mut has_excess) = (0, false);
        while let Some(&node) = self.found.get(next) {
            next += 1;
            for (direction, step) in steps.into_iter().enumerate() {
                let other = node.wrapping_add(step);
                // Nodes of the frame are never found, so that there are always neighbours.
                if self.distances[other] == FAR && self.open[other][opposite(direction)] > 0 {
                    self.distances[other] = self.distances[node] + 1;
                    has_excess |= self.excess[other] > 0;
                    self.found.push(other);
                }
            }
        }
        has_excess
    }

    /// Pushes all excess as far as it goes on shortest ways.
    fn sweep(&mut self) {
        let steps = self.steps();
        for &node in self.found.iter().rev() {
            let mut left = self.excess[node];
            if left <= 0 {
                continue;
            }
            let Some(nearer) = self.distances[node].checked_sub(1) else { continue };
            for (direction, step) in steps.into_iter().enumerate() {
                let other = node.wrapping_add(step);
                let pushed = left.min(self.open[node][direction]);
                if pushed > 0 && self.distances[other] == nearer {
                    self.open[node][direction] -= pushed;
                    self.open[other][opposite(direction)] += pushed;
                    self.excess[other] += pushed;
                    left -= pushed;
                }
            }
            self.excess[node] = left;
        }
    }

    /// Where a node lies within its frame.
    fn framed(&self, node: usize) -> usize {
        (node / self.side + 1) * (self.side + 2) + node % self.side + 1
    }

    /// What leads from a node to its neighbour in each direction, wrapping around.
    fn steps(&self) -> [usize; DIRECTIONS] {
        let row = self.side + 2;
        [1, row, 1usize.wrapping_neg(), row.wrapping_neg()]
    }
}

fn opposite(direction: usize) -> usize {
    (direction + 2) % DIRECTIONS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const SIDE: usize = 3;
    const NODES: usize = SIDE * SIDE;
    const BORDERS: usize = SIDE * (SIDE - 1);

    /// What a cut costs that leaves the nodes of set bits with the sink.
    fn price(sinks: u32, terminals: &[i64], rightward: &[i64], downward: &[i64]) -> i64 {
        let with_sink = |node: usize| sinks >> node & 1 == 1;
        let cut =
            |one, other, capacity| if with_sink(one) == with_sink(other) { 0 } else { capacity };
        let terminal = |(node, &capacity): (usize, &i64)| {
            if with_sink(node) { capacity.max(0) } else { (-capacity).max(0) }
        };
        let right = |(border, &capacity): (usize, &i64)| {
            let node = border / (SIDE - 1) * SIDE + border % (SIDE - 1);
            cut(node, node + 1, capacity)
        };
        let down = |(node, &capacity): (usize, &i64)| cut(node, node + SIDE, capacity);
        terminals.iter().enumerate().map(terminal).sum::<i64>()
            + rightward.iter().enumerate().map(right).sum::<i64>()
            + downward.iter().enumerate().map(down).sum::<i64>()
    }

    proptest! {
        #[test]
        fn cuts_cost_least_and_of_those_have_the_fewest_nodes_with_the_sink(
            terminals in vec(-4i64..5, NODES),
            rightward in vec(0i64..4, BORDERS),
            downward in vec(0i64..4, BORDERS),
        ) {
            let mut grid = Grid::new(SIDE);
            // What an earlier cut leaves must not matter.
            grid.add_terminal(0, 3);
            grid.join_right(0, 2);
            grid.add_terminal(1, -3);
            grid.cut();
            grid.clear();
            for (node, &capacity) in terminals.iter().enumerate() {
                grid.add_terminal(node, capacity);
            }
            for border in 0..BORDERS {
                let left = border / (SIDE - 1) * SIDE + border % (SIDE - 1);
                grid.join_right(left, rightward[border]);
                grid.join_below(border, downward[border]);
            }
            grid.cut();
            let found = (0..NODES).filter(|&node| grid.reaches_sink(node));
            let found = found.fold(0u32, |sinks, node| sinks | 1 << node);
            let price = |sinks| price(sinks, &terminals, &rightward, &downward);
            let least = (0..1 << NODES).map(price).min().unwrap();
            // The sets of nodes with the sink of all least cuts have their intersection among them.
            let every = (0..1 << NODES).filter(|&sinks| price(sinks) == least);
            prop_assert_eq!(found, every.fold(u32::MAX, |common, sinks| common & sinks));
        }
    }
}
