//! Connected components of a label map in three dimensions.
//!
//! Works on runs of equal labels within rows and keeps those of two slices, so that beside the labels no
//! array of their size is needed. Knows no grids in millimetres and no files.

/// Which voxels touch each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbourhood {
    /// Those that share a face: 6 around each.
    Faces,
    /// Those that share a face, an edge or a corner: 26 around each.
    Corners,
}

/// Turns into background (class 0) every voxel that is not in the largest connected component of its
/// class; of components of one size the first in row-major order stays.
///
/// `labels` is `shape`, slices, rows and columns, in row-major order.
///
/// ```
/// use scrimp::scan::components::{Neighbourhood, keep_largest};
/// let mut labels = [1, 1, 0, 1, 2];
/// keep_largest(&mut labels, [1, 1, 5], Neighbourhood::Faces);
/// assert_eq!(labels, [1, 1, 0, 0, 2]);
/// ```
pub fn keep_largest(labels: &mut [u8], shape: [usize; 3], neighbourhood: Neighbourhood) {
    let [_, rows, columns] = shape;
    if labels.is_empty() || rows == 0 || columns == 0 {
        return;
    }
    let mut forest = Forest::of(labels, shape, neighbourhood);
    let largest = forest.largest_of_classes();
    let mut number = 0;
    for row in labels.chunks_exact_mut(columns) {
        for run in row.chunk_by_mut(|left, right| left == right) {
            let class = run[0];
            if class != 0 {
                if forest.root(number) != largest[usize::from(class)] {
                    run.fill(0);
                }
                number += 1;
            }
        }
    }
}

/// Neighbouring voxels of one row with one class that is not the background.
struct Run {
    class: u8,
    first: usize,
    /// One past its last column.
    end: usize,
    /// Among all runs, in row-major order.
    number: u32,
}

/// The runs of one slice, row by row.
type SliceRuns = Vec<Vec<Run>>;

/// Which runs belong together: each names another one of its component, or itself where it is the first.
struct Forest {
    parents: Vec<u32>,
    /// Voxels of each run, and of its whole component where it is the first of it.
    voxels: Vec<u64>,
    classes: Vec<u8>,
}

impl Forest {
    fn of(labels: &[u8], [_, rows, columns]: [usize; 3], neighbourhood: Neighbourhood) -> Self {
        let mut forest = Self { parents: Vec::new(), voxels: Vec::new(), classes: Vec::new() };
        let mut before: SliceRuns = Vec::new();
        for slice in labels.chunks_exact(rows * columns) {
            let runs: SliceRuns =
                slice.chunks_exact(columns).map(|row| forest.add_row(row)).collect();
            for row in 0..rows {
                if row > 0 {
                    forest.join_rows(&runs[row], &runs[row - 1], neighbourhood);
                }
                if before.is_empty() {
                    continue;
                }
                let reach = usize::from(neighbourhood == Neighbourhood::Corners);
                for near in &before[row.saturating_sub(reach)..=(row + reach).min(rows - 1)] {
                    forest.join_rows(&runs[row], near, neighbourhood);
                }
            }
            before = runs;
        }
        forest
    }

    fn add_row(&mut self, row: &[u8]) -> Vec<Run> {
        let (mut runs, mut first) = (Vec::new(), 0);
        for run in row.chunk_by(|left, right| left == right) {
            let (class, end) = (run[0], first + run.len());
            if class != 0 {
                let number = self.parents.len() as u32;
                runs.push(Run { class, first, end, number });
                self.parents.push(number);
                self.voxels.push(run.len() as u64);
                self.classes.push(class);
            }
            first = end;
        }
        runs
    }

    /// Joins the runs of a row with those of a row beside it that touch them.
    fn join_rows(&mut self, row: &[Run], beside: &[Run], neighbourhood: Neighbourhood) {
        let reach = usize::from(neighbourhood == Neighbourhood::Corners);
        let mut passed = 0;
        for run in row {
            while beside.get(passed).is_some_and(|other| other.end + reach <= run.first) {
                passed += 1;
            }
            let touching = beside[passed..].iter().take_while(|near| near.first < run.end + reach);
            for near in touching.filter(|near| near.class == run.class) {
                self.join(run.number, near.number);
            }
        }
    }

    /// The first run of the component of a run.
    fn root(&mut self, mut run: u32) -> u32 {
        loop {
            let parent = self.parents[run as usize];
            if parent == run {
                return run;
            }
            // Halves the way for whoever asks next.
            let above = self.parents[parent as usize];
            self.parents[run as usize] = above;
            run = above;
        }
    }

    fn join(&mut self, one: u32, other: u32) {
        let (one, other) = (self.root(one), self.root(other));
        if one == other {
            return;
        }
        let (first, second) = (one.min(other), one.max(other));
        self.parents[second as usize] = first;
        self.voxels[first as usize] += self.voxels[second as usize];
    }

    /// For each class the first run of its largest component, [`u32::MAX`] where it has none.
    fn largest_of_classes(&self) -> [u32; 256] {
        let mut largest = [u32::MAX; 256];
        for (number, (&parent, &class)) in self.parents.iter().zip(&self.classes).enumerate() {
            let best = &mut largest[usize::from(class)];
            let is_larger =
                |best: u32| best == u32::MAX || self.voxels[number] > self.voxels[best as usize];
            if parent as usize == number && is_larger(*best) {
                *best = parent;
            }
        }
        largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHAPE: [usize; 3] = [3, 4, 5];

    /// The same by flooding from every voxel in turn.
    fn flooded(labels: &[u8], [slices, rows, columns]: [usize; 3], corners: bool) -> Vec<u8> {
        let at = |[z, y, x]: [usize; 3]| (z * rows + y) * columns + x;
        let near = |place: [usize; 3]| {
            let range = |here: usize, count: usize| here.saturating_sub(1)..(here + 2).min(count);
            let mut found = Vec::new();
            for z in range(place[0], slices) {
                for y in range(place[1], rows) {
                    for x in range(place[2], columns) {
                        let away: usize =
                            [z, y, x].iter().zip(place).map(|(a, b)| a.abs_diff(b)).sum();
                        if corners || away == 1 {
                            found.push([z, y, x]);
                        }
                    }
                }
            }
            found
        };
        let mut seen = vec![false; labels.len()];
        let mut best: Vec<Vec<usize>> = vec![Vec::new(); 256];
        for start in 0..labels.len() {
            let class = labels[start];
            if class == 0 || seen[start] {
                continue;
            }
            let (z, rest) = (start / (rows * columns), start % (rows * columns));
            let (mut open, mut found) = (vec![[z, rest / columns, rest % columns]], Vec::new());
            seen[start] = true;
            while let Some(place) = open.pop() {
                found.push(at(place));
                for next in near(place) {
                    if labels[at(next)] == class && !seen[at(next)] {
                        seen[at(next)] = true;
                        open.push(next);
                    }
                }
            }
            if found.len() > best[usize::from(class)].len() {
                best[usize::from(class)] = found;
            }
        }
        let mut kept = vec![0; labels.len()];
        best.iter().flatten().for_each(|&voxel| kept[voxel] = labels[voxel]);
        kept
    }

    #[test]
    fn corners_join_what_faces_do_not() {
        let labels = [1, 0, 0, 1, /**/ 0, 1, 1, 0, /**/ 0, 0, 0, 0, /**/ 1, 0, 0, 0];
        let mut faces = labels;
        keep_largest(&mut faces, [1, 4, 4], Neighbourhood::Faces);
        assert_eq!(faces, [0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut corners = labels;
        keep_largest(&mut corners, [1, 4, 4], Neighbourhood::Corners);
        assert_eq!(corners, [1, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        keep_largest(&mut [], [0, 4, 4], Neighbourhood::Faces);
    }

    proptest! {
        #[test]
        fn what_stays_is_what_flooding_finds(
            labels in proptest::collection::vec(0u8..3, SHAPE.iter().product::<usize>()),
            corners in any::<bool>(),
        ) {
            let neighbourhood = if corners { Neighbourhood::Corners } else { Neighbourhood::Faces };
            let mut kept = labels.clone();
            keep_largest(&mut kept, SHAPE, neighbourhood);
            prop_assert_eq!(&kept, &flooded(&labels, SHAPE, corners));
            let mut again = kept.clone();
            keep_largest(&mut again, SHAPE, neighbourhood);
            prop_assert_eq!(again, kept);
        }
    }
}
