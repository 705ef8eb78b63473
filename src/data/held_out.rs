//! Held-out cases beside their dense truth, for those who score.
//!
//! Knows nothing of batches: what is trained on has no truth.

use super::{Case, DENSE, Dataset, augment};
use crate::error::{Failure, Result};
use tch::Tensor;

/// A held-out case with its dense truth. Only evaluation has one.
#[derive(Debug, Clone, Copy)]
pub struct HeldOut<'a> {
    case: &'a Case,
    truth: &'a [u8],
}

impl<'a> HeldOut<'a> {
    /// The cases that `fold` holds out. Refuses a fold without cases, and cases without dense truth.
    pub fn cases(dataset: &'a Dataset, fold: u32) -> Result<Vec<Self>> {
        dataset.held_out(fold)?.into_iter().map(Self::new).collect()
    }

    fn new(case: &'a Case) -> Result<Self> {
        let truth = case.annotations.get(DENSE).ok_or_else(|| {
            let name = &case.name;
            Failure::usage(format!(
                "held-out case `{name}` has no `{DENSE}` annotation to evaluate with"
            ))
            .hint("pack dense labels too, for example `scrimp prepare nifti --dense DIR ...`")
            .hint("or train on all cases without evaluations: `--set data.fold=0`")
        })?;
        Ok(Self { case, truth })
    }

    /// Name of the case.
    pub fn name(&self) -> &'a str {
        &self.case.name
    }

    /// Slices, rows, columns as stored.
    pub fn shape(&self) -> [usize; 3] {
        self.case.scan.grid.shape
    }

    /// Distance of voxel centres along slices, rows, columns, where the source says so.
    pub fn spacing_mm(&self) -> Option<[f64; 3]> {
        self.case.scan.grid.spacing_mm
    }

    /// The class of every voxel, `shape` in row-major order.
    pub fn truth(&self) -> &'a [u8] {
        self.truth
    }

    /// The slices as stored, intensities in `[0, 1]`: slices, channels, rows, columns in row-major order.
    pub fn image(&self) -> &'a [f32] {
        &self.case.scan.voxels
    }

    /// The slices resized to `size` x `size`, grey ones by order-0 zoom and coloured ones bilinearly:
    /// `[slices, channels, size, size]` f32.
    pub fn input(&self, size: usize) -> Tensor {
        let slices = self.case.scan.grid.shape[0];
        let resized: Vec<f32> =
            (0..slices).flat_map(|slice| self.case.input_slice(slice, size)).collect();
        let extents = [slices, self.case.scan.channels, size, size].map(|extent| extent as i64);
        Tensor::from_slice(&resized).view(extents)
    }

    /// Labels of the shape of [`HeldOut::input`] without channel, resized back to the case's own
    /// shape by order-0 zoom.
    pub fn enlarge(&self, labels: &[u8], size: usize) -> Vec<u8> {
        let [_, rows, columns] = self.case.scan.grid.shape;
        let slices = labels.chunks_exact(size * size);
        slices
            .flat_map(|slice| augment::zoom_labels(slice, [size, size], [rows, columns]))
            .collect()
    }

    /// The truth resized to `size` x `size` by order-0 zoom: `[slices, size, size]`.
    pub fn truth_on_grid(&self, size: usize) -> Vec<u8> {
        self.on_grid(self.truth, size)
    }

    /// An annotation of the case in the same way; `None` where it has none of that kind.
    pub fn annotation_on_grid(&self, kind: &str, size: usize) -> Option<Vec<u8>> {
        self.case.annotations.get(kind).map(|labels| self.on_grid(labels, size))
    }

    fn on_grid(&self, labels: &[u8], size: usize) -> Vec<u8> {
        let [_, rows, columns] = self.case.scan.grid.shape;
        let slices = labels.chunks_exact(rows * columns);
        slices
            .flat_map(|slice| augment::zoom_labels(slice, [rows, columns], [size, size]))
            .collect()
    }
}
