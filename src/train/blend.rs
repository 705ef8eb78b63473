//! Predictions of windows, added up by their weights: as many slices of a volume as a window is deep.
//!
//! Knows no network: what it adds up comes from `inference`.

use super::windows::{Group, Lattice, weights};
use crate::error::Result;
use std::ops::Range;
use tch::Tensor;

/// The weighted sums of the slices that windows still reach.
pub(super) struct Blend<'a> {
    lattice: &'a Lattice,
    /// `[classes, depth, rows, columns]` of the padded grid; slice `n` lies at `n % depth`.
    sums: Tensor,
    /// None where no two windows overlap.
    weighting: Option<Weighting>,
}

/// How much voxels count.
struct Weighting {
    /// Those of a window: `[slices, rows, columns]`.
    window: Tensor,
    /// What has been added up: `[depth, rows, columns]`.
    totals: Tensor,
}

/// Neighbouring slices that are neighbours in the sums, too.
struct Piece {
    /// The first slice, counted from the first of those asked for.
    offset: i64,
    /// Where it lies in the sums.
    place: i64,
    count: i64,
}

impl<'a> Blend<'a> {
    /// Nothing yet; `like` is what networks find in some of the windows.
    pub(super) fn new(lattice: &'a Lattice, like: &Tensor) -> Self {
        let [_, rows, columns] = lattice.padded.map(|extent| extent as i64);
        let depth = lattice.depth() as i64;
        let options = (like.kind(), like.device());
        let weighting = lattice.overlaps().then(|| {
            let of_window = lattice.window.map(|extent| extent as i64);
            let window = Tensor::from_slice(&weights(lattice.window)).view(of_window);
            let window = window.to_kind(like.kind()).to_device(like.device());
            Weighting { window, totals: Tensor::zeros([depth, rows, columns], options) }
        });
        let sums = Tensor::zeros([like.size()[1], depth, rows, columns], options);
        if !lattice.covers() {
            // What no window writes over is background.
            let _ = sums.get(0).fill_(1.0);
        }
        Self { lattice, sums, weighting }
    }

    /// Adds the probabilities of a group's windows: `[windows, classes, slices, rows, columns]`, or of
    /// windows one slice deep `[windows * slices, classes, rows, columns]`.
    pub(super) fn add(&mut self, group: &Group, found: &Tensor) {
        let slices = self.lattice.layers[group.layer].clone();
        let [_, rows, columns] = self.lattice.window.map(|extent| extent as i64);
        let corners = &self.lattice.corners[group.windows.clone()];
        for (window, &[row, column]) in corners.iter().enumerate() {
            // [classes, slices, rows, columns]
            let window = if found.dim() == 5 {
                found.get(window as i64)
            } else {
                let count = slices.len() as i64;
                found.narrow(0, window as i64 * count, count).transpose(0, 1)
            };
            for piece in self.pieces(&slices) {
                let place = |all: &Tensor| {
                    let all = all.narrow(-3, piece.place, piece.count);
                    all.narrow(-2, row as i64, rows).narrow(-1, column as i64, columns)
                };
                let part = window.narrow(1, piece.offset, piece.count);
                let Some(Weighting { window: weights, totals }) = &self.weighting else {
                    place(&self.sums).copy_(&part);
                    continue;
                };
                let weights = if weights.size()[0] == 1 {
                    weights.shallow_clone()
                } else {
                    weights.narrow(0, piece.offset, piece.count)
                };
                let _ = place(&self.sums).addcmul_(&part, &weights);
                let _ = place(totals).g_add_(&weights);
            }
        }
    }

    /// Hands out the slices that no window behind those of a layer reaches, `[classes, slices, rows, columns]`
    /// without padding, counted from the first slice of the grid, and forgets them.
    pub(super) fn finish(
        &mut self,
        layer: usize,
        take: &mut dyn FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let inside = &self.lattice.inside[0];
        let finished = self.lattice.finished(layer);
        for piece in self.pieces(&finished) {
            let mut sums = self.sums.narrow(1, piece.place, piece.count);
            let totals = self.weighting.as_ref();
            let totals =
                totals.map(|weighting| weighting.totals.narrow(0, piece.place, piece.count));
            // In their place: a second array of this size is the most that a volume would take.
            if let Some(totals) = &totals {
                let _ = sums.g_div_(totals);
            }
            let first = finished.start + piece.offset as usize;
            let known = first.max(inside.start)..(first + piece.count as usize).min(inside.end);
            if !known.is_empty() {
                let blended = sums.narrow(1, (known.start - first) as i64, known.len() as i64);
                take(known.start - inside.start, &within_padding(&blended, self.lattice))?;
            }
            if let Some(mut totals) = totals {
                let _ = (sums.zero_(), totals.zero_());
            }
        }
        Ok(())
    }

    /// Where slices lie in the sums.
    fn pieces(&self, slices: &Range<usize>) -> impl Iterator<Item = Piece> + use<> {
        let depth = self.lattice.depth();
        let place = slices.start % depth.max(1);
        let first = slices.len().min(depth - place);
        let pieces = [(0, place, first), (first, 0, slices.len() - first)];
        pieces.into_iter().filter(|(.., count)| *count > 0).map(|(offset, place, count)| Piece {
            offset: offset as i64,
            place: place as i64,
            count: count as i64,
        })
    }
}

/// The rows and columns of `[..., rows, columns]` that are no padding, as a view.
pub(super) fn within_padding(planes: &Tensor, lattice: &Lattice) -> Tensor {
    let [_, rows, columns] = &lattice.inside;
    let rows = planes.narrow(-2, rows.start as i64, rows.len() as i64);
    rows.narrow(-1, columns.start as i64, columns.len() as i64)
}
