//! The dense step of the elimination of a network: some of its nodes go, the others are linked anew.
//!
//! Knows conductances and nothing of pixels, seeds or classes. In single precision: it is half the memory and
//! twice as many numbers at once, and whoever solves with it corrects the rest.

/// How many nodes are eliminated together: at most as many columns as fit the nearest cache.
const PANELS: [usize; 4] = [8, 4, 2, 1];

/// Nodes that are linked to each other, and each to the terminals.
pub(super) struct Front {
    node_count: usize,
    /// Conductance between nodes `i > j` at `j * node_count + i`; the rest is unused.
    pub(super) links: Vec<f32>,
    /// Conductance between each node and all terminals together.
    pub(super) pulls: Vec<f32>,
}

/// How the nodes that are gone depend on those after them.
pub(super) struct Gone {
    /// For each eliminated node `k` the shares of the nodes `k + 1 ..` in its potential.
    pub(super) shares: Vec<f32>,
    /// For each eliminated node its conductance to all others and the terminals.
    pub(super) totals: Vec<f32>,
}

impl Front {
    /// `node_count` nodes without links, in the memory of `links`, whatever that holds.
    pub(super) fn new(node_count: usize, mut links: Vec<f32>) -> Self {
        links.clear();
        links.resize(node_count * node_count, 0.0);
        Self { node_count, links, pulls: vec![0.0; node_count] }
    }

    /// Adds conductance between two different nodes.
    pub(super) fn link(&mut self, one: usize, other: usize, conductance: f32) {
        self.links[one.min(other) * self.node_count + one.max(other)] += conductance;
    }

    /// Eliminates the first `count` nodes, and returns the front of the others.
    ///
    /// Star-mesh transform: a node `k` of total conductance `d` goes, and any two of its neighbours
    /// are linked by `w_ik w_jk / d` more. Nothing is ever subtracted, so every number keeps its
    /// relative precision however far conductances lie apart.
    ///
    /// `memory` is what the other front is put into; the memory of this one is handed back.
    pub(super) fn eliminate(mut self, count: usize, memory: Vec<f32>) -> (Gone, Self, Vec<f32>) {
        let mut gone = Gone {
            shares: Vec::with_capacity((0..count).map(|k| self.node_count - k - 1).sum()),
            totals: Vec::with_capacity(count),
        };
        let mut start = 0;
        while start < count {
            // What is left after whole panels goes in fewer passes by powers of two than one by one.
            let size = PANELS.into_iter().find(|&size| size <= count - start).unwrap_or(1);
            let end = start + size;
            let mut columns = Vec::with_capacity(size);
            for node in start..end {
                self.catch_up(node, start, &gone.shares, &columns);
                columns.push(gone.shares.len());
                self.remove(node, &mut gone);
            }
            match size {
                8 => self.spread::<8>(start, &gone.shares, &columns),
                4 => self.spread::<4>(start, &gone.shares, &columns),
                2 => self.spread::<2>(start, &gone.shares, &columns),
                _ => self.spread::<1>(start, &gone.shares, &columns),
            }
            start = end;
        }
        let rest = self.rest(count, memory);
        (gone, rest, self.links)
    }

    /// Brings the links of `node` up to date with the nodes from `start` on that are gone; the
    /// shares of the nodes after them begin at `columns`.
    fn catch_up(&mut self, node: usize, start: usize, shares: &[f32], columns: &[usize]) {
        let n = self.node_count;
        let (before, own) = self.links.split_at_mut(node * n);
        for (earlier, column) in (start..node).zip(columns) {
            let share = shares[column + node - earlier - 1];
            add(
                [&before[earlier * n + node + 1..][..n - node - 1]],
                [share],
                &mut own[node + 1..n],
            );
        }
    }

    /// Turns the links of `node` into shares and hands its pulls on.
    fn remove(&mut self, node: usize, gone: &mut Gone) {
        let n = self.node_count;
        let links = &self.links[node * n + node + 1..][..n - node - 1];
        let own = self.pulls[node];
        let total = links.iter().sum::<f32>() + own;
        let first = gone.shares.len();
        gone.shares.extend(links.iter().map(|link| link / total));
        gone.totals.push(total);
        for (share, pull) in gone.shares[first..].iter().zip(&mut self.pulls[node + 1..]) {
            *pull += share * own;
        }
    }

    /// Links all nodes after the `N` from `first` on anew, which are gone.
    fn spread<const N: usize>(&mut self, first: usize, shares: &[f32], columns: &[usize]) {
        let n = self.node_count;
        let nodes: [usize; N] = std::array::from_fn(|place| first + place);
        let (gone, left) = self.links.split_at_mut((first + N) * n);
        for (index, links) in left.chunks_exact_mut(n).enumerate() {
            let target = first + N + index;
            let links = &mut links[target + 1..];
            let sources = nodes.map(|node| &gone[node * n + target + 1..][..links.len()]);
            let factors = nodes.map(|node| shares[columns[node - first] + target - node - 1]);
            add(sources, factors, links);
        }
    }

    /// The nodes from `count` on.
    fn rest(&self, count: usize, mut links: Vec<f32>) -> Self {
        let left = self.node_count - count;
        links.clear();
        links.reserve(left * left);
        for column in self.links.chunks_exact(self.node_count.max(1)).skip(count) {
            links.extend_from_slice(&column[count..]);
        }
        Self { node_count: left, links, pulls: self.pulls[count..].to_vec() }
    }
}

/// Adds `factor` times `source` to `target`, for all sources at once.
fn add<const N: usize>(sources: [&[f32]; N], factors: [f32; N], target: &mut [f32]) {
    let sources = sources.map(|source| &source[..target.len()]);
    for (index, sum) in target.iter_mut().enumerate() {
        let mut value = *sum;
        for (source, factor) in sources.iter().zip(factors) {
            value += factor * source[index];
        }
        *sum = value;
    }
}
