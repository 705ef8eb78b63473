//! The dense step of the elimination of a network: some of its nodes go, the others are linked anew.
//!
//! Knows conductances and nothing of pixels, seeds or classes.

/// Terminals that are treated side by side: one vector register of doubles, and as many classes as
/// cardiac data sets have.
pub(super) const LANES: usize = 4;

/// A value for each of [`LANES`] terminals.
pub(super) type Lanes = [f64; LANES];

/// How many nodes are eliminated together: at most as many columns as fit the nearest cache.
const PANELS: [usize; 4] = [8, 4, 2, 1];

/// Nodes that are linked to each other, and each to the terminals.
pub(super) struct Front {
    node_count: usize,
    groups: usize,
    /// Conductance between nodes `i > j` at `j * node_count + i`; the rest is unused.
    pub(super) links: Vec<f64>,
    /// Conductance between node `i` and the terminals of group `g` at `i * groups + g`.
    pub(super) pulls: Vec<Lanes>,
}

/// How the nodes that are gone depend on those after them.
pub(super) struct Gone {
    /// For each eliminated node `k` the shares of the nodes `k + 1 ..` in its potential.
    pub(super) shares: Vec<f64>,
    /// For each eliminated node and group the shares of the terminals.
    pub(super) terminal_shares: Vec<Lanes>,
}

impl Front {
    /// `node_count` nodes without links, for `groups` times [`LANES`] terminals, in the memory of
    /// `links`, whatever that holds.
    pub(super) fn new(node_count: usize, groups: usize, mut links: Vec<f64>) -> Self {
        links.clear();
        links.resize(node_count * node_count, 0.0);
        let pulls = vec![[0.0; LANES]; node_count * groups];
        Self { node_count, groups, links, pulls }
    }

    /// Adds conductance between two different nodes.
    pub(super) fn link(&mut self, one: usize, other: usize, conductance: f64) {
        self.links[one.min(other) * self.node_count + one.max(other)] += conductance;
    }

    /// Eliminates the first `count` nodes, and returns the front of the others.
    ///
    /// Star-mesh transform: a node `k` of total conductance `d` goes, and any two of its neighbours
    /// are linked by `w_ik w_jk / d` more. Nothing is ever subtracted, so every number keeps its
    /// relative precision however far conductances lie apart.
    ///
    /// `memory` is what the other front is put into; the memory of this one is handed back.
    pub(super) fn eliminate(mut self, count: usize, memory: Vec<f64>) -> (Gone, Self, Vec<f64>) {
        let mut gone = Gone {
            shares: Vec::with_capacity((0..count).map(|k| self.node_count - k - 1).sum()),
            terminal_shares: Vec::with_capacity(count * self.groups),
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
    fn catch_up(&mut self, node: usize, start: usize, shares: &[f64], columns: &[usize]) {
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
        let (n, groups) = (self.node_count, self.groups);
        let links = &self.links[node * n + node + 1..][..n - node - 1];
        let (before, after) = self.pulls.split_at_mut((node + 1) * groups);
        let own = &before[node * groups..];
        let total = links.iter().sum::<f64>() + own.as_flattened().iter().sum::<f64>();
        let first = gone.shares.len();
        gone.shares.extend(links.iter().map(|link| link / total));
        gone.terminal_shares.extend(own.iter().map(|lanes| lanes.map(|pull| pull / total)));
        for (share, pulls) in gone.shares[first..].iter().zip(after.chunks_exact_mut(groups)) {
            for (pull, own) in pulls.as_flattened_mut().iter_mut().zip(own.as_flattened()) {
                *pull += share * own;
            }
        }
    }

    /// Links all nodes after the `N` from `first` on anew, which are gone.
    fn spread<const N: usize>(&mut self, first: usize, shares: &[f64], columns: &[usize]) {
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
    fn rest(&self, count: usize, mut links: Vec<f64>) -> Self {
        let left = self.node_count - count;
        links.clear();
        links.reserve(left * left);
        for column in self.links.chunks_exact(self.node_count.max(1)).skip(count) {
            links.extend_from_slice(&column[count..]);
        }
        let pulls = self.pulls[count * self.groups..].to_vec();
        Self { node_count: left, groups: self.groups, links, pulls }
    }
}

/// Adds `factor` times `source` to `target`, for all sources at once.
fn add<const N: usize>(sources: [&[f64]; N], factors: [f64; N], target: &mut [f64]) {
    let sources = sources.map(|source| &source[..target.len()]);
    for (index, sum) in target.iter_mut().enumerate() {
        let mut value = *sum;
        for (source, factor) in sources.iter().zip(factors) {
            value += factor * source[index];
        }
        *sum = value;
    }
}
