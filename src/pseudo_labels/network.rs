//! The potentials of a grid of resistors, some of whose pixels are held at a terminal.
//!
//! Solved directly, by nested dissection (George, SIAM J. Numer. Anal. 10(2), 1973): a line of pixels
//! cuts the grid into two halves that are solved on their own and then linked along the line. The
//! elimination is in single precision; what it leaves over is solved for again, measured in double. Knows
//! conductances, and neither images nor classes.

use super::front::{Front, Gone};

/// Terminals that are treated side by side: as many classes as cardiac data sets have.
pub(super) const LANES: usize = 4;

/// A value for each of [`LANES`] terminals.
type Lanes<T> = [T; LANES];

/// Solutions at most: each leaves about a hundred thousandth of what was there before.
const ROUNDS: usize = 6;

/// Marks a pixel that is held at no terminal.
pub(super) const FREE: u8 = u8::MAX;

/// A grid of `rows` times `columns` pixels, each linked to its four neighbours.
pub(super) struct Grid {
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Conductance from each pixel to the one on its right; of no meaning in the last column.
    pub(super) right: Vec<f64>,
    /// Conductance from each pixel to the one below; of no meaning in the last row.
    pub(super) down: Vec<f64>,
    /// The terminal of each pixel, below `terminal_count`, or [`FREE`].
    pub(super) terminals: Vec<u8>,
    pub(super) terminal_count: usize,
}

/// How far the potentials are from solving the network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Excess {
    /// The free pixel that is furthest from the mean of its neighbours, weighted by the conductances.
    pub(super) pixel: usize,
    /// How far it is, in potential; not a number where the mean is none.
    pub(super) by: f64,
}

/// Pixels of a piece of the grid that is not cut any further.
const SMALLEST: usize = 16;

/// A rectangle of pixels: rows and columns from the first to before the last.
#[derive(Clone, Copy)]
struct Piece {
    rows: [usize; 2],
    columns: [usize; 2],
}

impl Grid {
    /// The potential of every pixel for each terminal at 1 and the others at 0, [`Grid::groups`] times
    /// [`LANES`] for each pixel, and how well they are known; lanes beyond the last terminal are 0.
    ///
    /// Solves until no free pixel is further than `tolerance` from the mean of its neighbours, or for so many
    /// rounds. All conductances must be positive, and at least one pixel must be held at a terminal.
    pub(super) fn potentials(&self, tolerance: f64) -> (Vec<f64>, Excess) {
        let groups = self.groups();
        let mut potentials = vec![[0.0; LANES]; self.terminals.len() * groups];
        for (pixel, &terminal) in self.terminals.iter().enumerate() {
            if terminal != FREE {
                let terminal = usize::from(terminal);
                potentials[pixel * groups + terminal / LANES][terminal % LANES] = 1.0;
            }
        }
        let places = vec![u32::MAX; self.terminals.len()];
        let mut dissection =
            Dissection { grid: self, places, solved: Vec::new(), spare: Vec::new() };
        let whole = Piece { rows: [0, self.rows], columns: [0, self.columns] };
        dissection.eliminate(whole);
        let mut currents = vec![[0.0; LANES]; potentials.len()];
        let mut excess = self.excess(&potentials, &mut currents);
        for _ in 0..ROUNDS {
            for solved in &dissection.solved {
                solved.collect(&mut currents, groups);
            }
            for solved in dissection.solved.iter().rev() {
                solved.substitute(&mut currents, groups);
            }
            for (sums, news) in potentials.iter_mut().zip(&currents) {
                sums.iter_mut().zip(news).for_each(|(sum, &new)| *sum += f64::from(new));
            }
            excess = self.excess(&potentials, &mut currents);
            if excess.by <= tolerance {
                break;
            }
        }
        (potentials.into_flattened(), excess)
    }

    /// The current that flows into every free pixel and has nowhere to go, into `currents`.
    fn excess(&self, potentials: &[Lanes<f64>], currents: &mut [Lanes<f32>]) -> Excess {
        let groups = self.groups();
        let mut worst = Excess { pixel: 0, by: 0.0 };
        for (index, current) in currents.iter_mut().enumerate() {
            let (pixel, group) = (index / groups, index % groups);
            *current = [0.0; LANES];
            if self.terminals[pixel] != FREE {
                continue;
            }
            let own = potentials[index];
            let (mut sums, mut total) = ([0.0; LANES], 0.0);
            for (near, conductance) in self.neighbours(pixel) {
                total += conductance;
                let there = potentials[near * groups + group];
                for ((sum, there), own) in sums.iter_mut().zip(there).zip(own) {
                    *sum += conductance * (there - own);
                }
            }
            *current = sums.map(|sum| sum as f32);
            let most = |most: f64, sum: &f64| if sum.abs() <= most { most } else { sum.abs() };
            let by = sums.iter().fold(0.0, most) / total;
            if by.is_nan() || by > worst.by {
                worst = Excess { pixel, by };
            }
        }
        worst
    }

    /// How often [`LANES`] terminals are needed.
    pub(super) fn groups(&self) -> usize {
        self.terminal_count.div_ceil(LANES)
    }

    /// The up to four neighbours of a pixel, and the conductances to them.
    pub(super) fn neighbours(&self, pixel: usize) -> impl Iterator<Item = (usize, f64)> {
        let (row, column) = (pixel / self.columns, pixel % self.columns);
        let above = (row > 0).then(|| pixel - self.columns).map(|near| (near, self.down[near]));
        let left = (column > 0).then(|| pixel - 1).map(|near| (near, self.right[near]));
        let right = (column + 1 < self.columns).then(|| (pixel + 1, self.right[pixel]));
        let below = (row + 1 < self.rows).then(|| (pixel + self.columns, self.down[pixel]));
        [above, left, right, below].into_iter().flatten()
    }

    /// The free pixels of `piece`.
    fn free(&self, piece: Piece) -> impl Iterator<Item = u32> {
        let pixels = (piece.rows[0]..piece.rows[1]).flat_map(move |row| {
            (piece.columns[0]..piece.columns[1]).map(move |column| row * self.columns + column)
        });
        pixels.filter(|&pixel| self.terminals[pixel] == FREE).map(|pixel| pixel as u32)
    }

    /// The pixels around `piece` to which it is linked, as four pieces that may be empty.
    fn border(&self, piece: Piece) -> [Piece; 4] {
        let ([top, bottom], [left, right]) = (piece.rows, piece.columns);
        let (below, beyond) = ((bottom + 1).min(self.rows), (right + 1).min(self.columns));
        [
            Piece { rows: [top.saturating_sub(1), top], ..piece },
            Piece { rows: [bottom, below], ..piece },
            Piece { columns: [left.saturating_sub(1), left], ..piece },
            Piece { columns: [right, beyond], ..piece },
        ]
    }
}

impl Piece {
    /// Two halves and the line between them; a small piece has no halves and is all line.
    fn cut(self) -> ([Option<Self>; 2], Self) {
        let [height, width] = [self.rows, self.columns].map(|[first, last]| last - first);
        if height * width <= SMALLEST || height.max(width) < 3 {
            return ([None; 2], self);
        }
        if height >= width {
            let middle = self.rows[0] + height / 2;
            let upper = Self { rows: [self.rows[0], middle], ..self };
            let lower = Self { rows: [middle + 1, self.rows[1]], ..self };
            return ([Some(upper), Some(lower)], Self { rows: [middle, middle + 1], ..self });
        }
        let middle = self.columns[0] + width / 2;
        let left = Self { columns: [self.columns[0], middle], ..self };
        let right = Self { columns: [middle + 1, self.columns[1]], ..self };
        ([Some(left), Some(right)], Self { columns: [middle, middle + 1], ..self })
    }
}

/// The elimination of all free pixels, piece by piece.
struct Dissection<'a> {
    grid: &'a Grid,
    /// Where each pixel stands in the front at hand, `u32::MAX` where it does not.
    places: Vec<u32>,
    solved: Vec<Solved>,
    /// Memory of fronts that are done with: pages that the system gives anew cost as much as filling them.
    spare: Vec<Vec<f32>>,
}

/// Pixels, in the order of a front of which the first are eliminated, and how these depend on the others.
struct Solved {
    pixels: Vec<u32>,
    gone: Gone,
}

impl Dissection<'_> {
    /// Eliminates `piece` and returns the pixels around it, linked as if it were still there.
    fn eliminate(&mut self, piece: Piece) -> (Vec<u32>, Front) {
        let (halves, line) = piece.cut();
        let halves = halves.map(|half| half.map(|half| self.eliminate(half)));
        let mut pixels: Vec<u32> = self.grid.free(line).collect();
        let count = pixels.len();
        for side in self.grid.border(piece) {
            pixels.extend(self.grid.free(side));
        }
        for (place, &pixel) in pixels.iter().enumerate() {
            self.places[pixel as usize] = place as u32;
        }
        let memory = self.spare.pop().unwrap_or_default();
        let mut front = Front::new(pixels.len(), memory);
        for (around, rest) in halves.into_iter().flatten() {
            self.merge(&around, &rest, &mut front);
            self.spare.push(rest.links);
        }
        self.link(&pixels[..count], &mut front);
        for &pixel in &pixels {
            self.places[pixel as usize] = u32::MAX;
        }
        let memory = self.spare.pop().unwrap_or_default();
        let (gone, rest, memory) = front.eliminate(count, memory);
        self.spare.push(memory);
        let around = pixels[count..].to_vec();
        self.solved.push(Solved { pixels, gone });
        (around, rest)
    }

    /// Adds what an eliminated half has left between the pixels around it.
    fn merge(&self, around: &[u32], rest: &Front, front: &mut Front) {
        let places: Vec<usize> =
            around.iter().map(|&pixel| self.places[pixel as usize] as usize).collect();
        for (from, &place) in places.iter().enumerate() {
            let links = &rest.links[from * places.len() + from + 1..][..places.len() - from - 1];
            for (&other, &conductance) in places[from + 1..].iter().zip(links) {
                front.link(place, other, conductance);
            }
            front.pulls[place] += rest.pulls[from];
        }
    }

    /// Adds the grid's own links of the pixels that are eliminated next.
    fn link(&self, line: &[u32], front: &mut Front) {
        for (place, &pixel) in line.iter().enumerate() {
            for (near, conductance) in self.grid.neighbours(pixel as usize) {
                let conductance = conductance as f32;
                if self.grid.terminals[near] != FREE {
                    front.pulls[place] += conductance;
                } else if self.places[near] != u32::MAX && self.places[near] as usize > place {
                    // Those before it in the front have linked it, those not in it are gone.
                    front.link(place, self.places[near] as usize, conductance);
                }
            }
        }
    }
}

impl Solved {
    /// Hands the currents of the eliminated pixels on to those around, and leaves what they do to the pixels
    /// themselves.
    fn collect(&self, currents: &mut [Lanes<f32>], groups: usize) {
        for group in 0..groups {
            let current = |&pixel: &u32| currents[pixel as usize * groups + group];
            let mut local: Vec<Lanes<f32>> = self.pixels.iter().map(current).collect();
            let mut shares = self.gone.shares.as_slice();
            for (node, total) in self.gone.totals.iter().enumerate() {
                let (own, behind) = shares.split_at(self.pixels.len() - node - 1);
                shares = behind;
                let current = local[node];
                for (share, lanes) in own.iter().zip(&mut local[node + 1..]) {
                    for (sum, current) in lanes.iter_mut().zip(current) {
                        *sum += share * current;
                    }
                }
                local[node] = current.map(|current| current / total);
            }
            for (&pixel, lanes) in self.pixels.iter().zip(local) {
                currents[pixel as usize * groups + group] = lanes;
            }
        }
    }

    /// The potentials of the eliminated pixels from those of the pixels around and what [`Self::collect`]
    /// left.
    fn substitute(&self, potentials: &mut [Lanes<f32>], groups: usize) {
        for group in 0..groups {
            let potential = |&pixel: &u32| potentials[pixel as usize * groups + group];
            let mut local: Vec<Lanes<f32>> = self.pixels.iter().map(potential).collect();
            let mut end = self.gone.shares.len();
            for node in (0..self.gone.totals.len()).rev() {
                let start = end - (self.pixels.len() - node - 1);
                let mut sum = local[node];
                for (share, lanes) in self.gone.shares[start..end].iter().zip(&local[node + 1..]) {
                    for (sum, potential) in sum.iter_mut().zip(lanes) {
                        *sum += share * potential;
                    }
                }
                local[node] = sum;
                end = start;
            }
            for (&pixel, lanes) in self.pixels[..self.gone.totals.len()].iter().zip(local) {
                potentials[pixel as usize * groups + group] = lanes;
            }
        }
    }
}
