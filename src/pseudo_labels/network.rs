//! The potentials of a grid of resistors, some of whose pixels are held at a terminal.
//!
//! Solved directly, by nested dissection (George, SIAM J. Numer. Anal. 10(2), 1973): a line of pixels
//! cuts the grid into two halves that are solved on their own and then linked along the line. Knows
//! conductances, and neither images nor classes.

use super::front::{Front, Gone, LANES, Lanes};

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

/// Pixels of a piece of the grid that is not cut any further.
const SMALLEST: usize = 16;

/// A rectangle of pixels: rows and columns from the first to before the last.
#[derive(Clone, Copy)]
struct Piece {
    rows: [usize; 2],
    columns: [usize; 2],
}

impl Grid {
    /// The potential of every pixel for each terminal at 1 and the others at 0, `groups` times
    /// [`LANES`] for each pixel; lanes beyond the last terminal are 0. All conductances must be
    /// positive, and at least one pixel must be held at a terminal.
    pub(super) fn potentials(&self) -> Vec<Lanes> {
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
        for solved in dissection.solved.iter().rev() {
            solved.substitute(&mut potentials, groups);
        }
        potentials
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
    spare: Vec<Vec<f64>>,
}

/// Pixels, in the order of a front of which the first are eliminated, and how these depend on the others.
struct Solved {
    pixels: Vec<u32>,
    count: usize,
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
        let mut front = Front::new(pixels.len(), self.grid.groups(), memory);
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
        self.solved.push(Solved { pixels, count, gone });
        (around, rest)
    }

    /// Adds what an eliminated half has left between the pixels around it.
    fn merge(&self, around: &[u32], rest: &Front, front: &mut Front) {
        let groups = self.grid.groups();
        let places: Vec<usize> =
            around.iter().map(|&pixel| self.places[pixel as usize] as usize).collect();
        for (from, &place) in places.iter().enumerate() {
            let links = &rest.links[from * places.len() + from + 1..][..places.len() - from - 1];
            for (&other, &conductance) in places[from + 1..].iter().zip(links) {
                front.link(place, other, conductance);
            }
            let pulls = &rest.pulls[from * groups..][..groups];
            let sums = &mut front.pulls[place * groups..][..groups];
            for (sum, pull) in sums.as_flattened_mut().iter_mut().zip(pulls.as_flattened()) {
                *sum += pull;
            }
        }
    }

    /// Adds the grid's own links of the pixels that are eliminated next.
    fn link(&self, line: &[u32], front: &mut Front) {
        let groups = self.grid.groups();
        for (place, &pixel) in line.iter().enumerate() {
            for (near, conductance) in self.grid.neighbours(pixel as usize) {
                let terminal = self.grid.terminals[near];
                if terminal != FREE {
                    let terminal = usize::from(terminal);
                    let lanes = &mut front.pulls[place * groups + terminal / LANES];
                    lanes[terminal % LANES] += conductance;
                } else if self.places[near] != u32::MAX && self.places[near] as usize > place {
                    // Those before it in the front have linked it, those not in it are gone.
                    front.link(place, self.places[near] as usize, conductance);
                }
            }
        }
    }
}

impl Solved {
    /// The potentials of the eliminated pixels from those of the pixels around.
    fn substitute(&self, potentials: &mut [Lanes], groups: usize) {
        for group in 0..groups {
            let potential = |&pixel: &u32| potentials[pixel as usize * groups + group];
            let mut local: Vec<Lanes> = self.pixels.iter().map(potential).collect();
            let mut end = self.gone.shares.len();
            for node in (0..self.count).rev() {
                let start = end - (self.pixels.len() - node - 1);
                let mut sum = self.gone.terminal_shares[node * groups + group];
                for (share, lanes) in self.gone.shares[start..end].iter().zip(&local[node + 1..]) {
                    for (sum, potential) in sum.iter_mut().zip(lanes) {
                        *sum += share * potential;
                    }
                }
                local[node] = sum;
                end = start;
            }
            for (&pixel, lanes) in self.pixels[..self.count].iter().zip(local) {
                potentials[pixel as usize * groups + group] = lanes;
            }
        }
    }
}
