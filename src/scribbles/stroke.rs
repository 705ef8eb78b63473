//! Strokes along the middle of a structure, as Yang and Luo simulate them for WORD.
//!
//! HiLab-git/WSL4MIS, `code/scribbles_generator.py` at a594da8d (Luo et al., MICCAI 2022). Class
//! labels come from the data set and not from the largest label of a volume, so that a volume without
//! its highest class keeps its background scribble, which the released code loses.

use super::parts::{Touch, parts};
use super::place::{rotate, shift};
use super::shrink::{dilate, erode, neighbour_count, thin};
use super::{Chance, Mask, UNLABELLED};

/// Larger structures are eroded before they are thinned.
const ERODED_ABOVE: usize = 900;

/// The strokes of larger structures are shifted and rotated.
const MOVED_ABOVE: usize = 1000;

/// Parts of a skeleton that are no larger are walked only if they are the largest.
const SMALL_PART: usize = 15;

/// Draws the scribble of class `class` of the slice `labels` into `out`, both in rows of `columns`.
///
/// `class_count` classes, the background included, say how often large structures may be eroded. The
/// background, class 0, gets its whole skeleton, one pixel wide; a structure a walk along its
/// skeleton, three pixels wide, moved a little. No pixel of `out` gets a class that it is not of.
pub fn scribble(
    labels: &[u8],
    columns: usize,
    (class, class_count): (u8, usize),
    chance: &mut dyn Chance,
    out: &mut [u8],
) {
    let mask = Mask::of(labels, class, columns);
    let area = mask.area();
    if area == 0 {
        return;
    }
    let skeleton = if area > ERODED_ABOVE {
        let most = class_count.saturating_sub(1).max(1) as f64;
        let iterations = (1.0 + chance.erosion_share() * (most - 1.0)).ceil();
        thin(&erode(&mask, iterations as usize))
    } else {
        thin(&mask)
    };
    if skeleton.area() == 0 {
        return;
    }
    let stroke = if class == 0 { skeleton } else { cut_branches(&skeleton, &mask, chance).stroke };
    for (pixel, out) in out.iter_mut().enumerate() {
        if stroke.pixels[pixel] {
            debug_assert_eq!(*out, UNLABELLED, "two classes claim one pixel");
            *out = class;
        }
    }
}

/// A walk along a skeleton.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    /// The pixels that it came by.
    pub visited: Mask,
    /// What it leaves in the structure: three pixels wide, moved where the structure is large.
    pub stroke: Mask,
}

/// Walks along the parts of `skeleton`, which is not empty and belongs to the structure `mask`,
/// leaving out branches, and cuts the last one where it runs into a loop.
pub fn cut_branches(skeleton: &Mask, mask: &Mask, chance: &mut dyn Chance) -> Walk {
    let mut trail = Trail { visited: skeleton.empty_like(), at_branch: None, branches: Vec::new() };
    let mut end = None;
    for part in walked_parts(skeleton) {
        end = Some(trail.follow(&part, chance));
    }
    let visited = trail.without_loop(end);
    let mut stroke = dilate(&visited);
    let offset = chance.shift();
    if mask.area() > MOVED_ABOVE {
        stroke = rotate(&shift(&stroke, offset), chance.degrees());
    }
    for (pixel, &inside) in stroke.pixels.iter_mut().zip(&mask.pixels) {
        *pixel &= inside;
    }
    Walk { visited, stroke }
}

/// The parts of a skeleton in the order in which they are walked: the largest, then those that are
/// not small by ascending size, so that the largest comes again; of equal sizes the first part is
/// taken each time. So the released code does it.
fn walked_parts(skeleton: &Mask) -> Vec<Mask> {
    let parts = parts(skeleton, Touch::Corners);
    let mut sizes: Vec<usize> = parts.iter().map(Vec::len).collect();
    sizes.sort_unstable();
    let largest = sizes.last().copied();
    let others = if parts.len() > 1 { &sizes[..] } else { &[] };
    let others = others.iter().copied().filter(|&size| size > SMALL_PART);
    let of_size = |size: usize| {
        let part = parts.iter().find(|part| part.len() == size)?;
        let mut mask = skeleton.empty_like();
        for &pixel in part {
            mask.pixels[pixel] = true;
        }
        Some(mask)
    };
    largest.into_iter().chain(others).filter_map(of_size).collect()
}

/// Where the walks along the parts of a skeleton have been.
struct Trail {
    visited: Mask,
    /// What was visited before the last branch point was left.
    at_branch: Option<Mask>,
    branches: Vec<usize>,
}

impl Trail {
    /// Walks along `part` until every way on is taken, and returns where that is.
    fn follow(&mut self, part: &Mask, chance: &mut dyn Chance) -> usize {
        let mut pixels = (0..part.pixels.len()).filter(|&pixel| part.pixels[pixel]);
        let first = pixels.clone().next().unwrap_or_default();
        let start = pixels.find(|&pixel| neighbour_count(part, pixel) == 1).unwrap_or(first);
        self.visited.pixels[start] = true;
        let mut here = start;
        loop {
            let target = |direction: u8| {
                let next = part.beside(here, offset(direction))?;
                (part.pixels[next] && !self.visited.pixels[next]).then_some(next)
            };
            let open: Vec<u8> = (0..9).filter(|&way| way != 4 && target(way).is_some()).collect();
            if open.is_empty() {
                return here;
            }
            let Some(next) = target(chance.direction(&open)) else { return here };
            if open.len() > 1 && here != start {
                self.at_branch = Some(self.visited.clone());
                self.branches.push(here);
            }
            self.visited.pixels[next] = true;
            here = next;
        }
    }

    /// What was visited; where the last walk ended beside a branch point, without its last branch.
    fn without_loop(self, end: Option<usize>) -> Mask {
        let Self { visited, at_branch, branches } = self;
        let beside = |direction: u8| visited.beside(end?, offset(direction));
        let mut around = (0..9).filter(|&direction| direction != 4).filter_map(beside);
        let is_loop = around.any(|near| branches.contains(&near));
        at_branch.filter(|_| is_loop).unwrap_or(visited)
    }
}

/// `[down, right]` of a direction 0 to 8, row by row over a square of three.
fn offset(direction: u8) -> [isize; 2] {
    [isize::from(direction / 3) - 1, isize::from(direction % 3) - 1]
}
