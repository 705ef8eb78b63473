//! What a stream is made of: whole slices in a listed order, or patches in an order that is never listed.
//!
//! Knows which item comes when, and nothing of pixels.

use super::Dataset;
use super::item::Item;
use super::order::{Epochs, Order};
use super::patches::Patches;

/// The items of a stream.
#[derive(Debug)]
pub(super) enum Items {
    /// Whole slices.
    Slices {
        /// Index of the case, and slice.
        slices: Vec<(usize, usize)>,
        epochs: Epochs,
        /// Rows and columns of the part about their middle that samples show; none where they show all.
        cropped_to: Option<usize>,
    },
    /// Patches around annotated voxels.
    Patches { patches: Patches, order: Order },
}

impl Items {
    /// The order in which their numbers come.
    pub(super) fn order(&self) -> Order {
        match self {
            Self::Slices { epochs, .. } => epochs.order(),
            Self::Patches { order, .. } => *order,
        }
    }

    /// The numbers of the items of the batch of `step` over all ranks.
    pub(super) fn batch(&self, step: u64) -> Vec<usize> {
        match self {
            Self::Slices { epochs, .. } => epochs.batch(step),
            Self::Patches { order, .. } => order.keyed_batch(step),
        }
    }

    /// The slices; none where the items are patches.
    pub(super) fn slices(&self) -> &[(usize, usize)] {
        match self {
            Self::Slices { slices, .. } => slices,
            Self::Patches { .. } => &[],
        }
    }

    /// Item `number`, which stands at `position` of the batch of `step`.
    pub(super) fn item(
        &self,
        dataset: &Dataset,
        number: usize,
        (step, position): (u64, usize),
    ) -> Item {
        match self {
            Self::Slices { slices, cropped_to, .. } => {
                let (case, slice) = slices[number];
                let [_, rows, columns] = dataset.cases[case].scan.grid.shape;
                match *cropped_to {
                    None => Item::slice(case, slice, [rows, columns]),
                    Some(size) => Item::crop(case, slice, ([rows, columns], size)),
                }
            }
            Self::Patches { patches, order } => patches.item(number, order.patch(step, position)),
        }
    }
}
