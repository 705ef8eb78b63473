//! Images hidden and mixed, and predictions with them: the operators of mixing methods.
//!
//! What is drawn comes in as an argument. Knows no network, no loss, no step and no rank.

#[cfg(feature = "torch")]
pub mod boxes;
#[cfg(feature = "torch")]
mod cells;
#[cfg(feature = "torch")]
pub mod mixture;
pub mod puzzle;
#[cfg(feature = "torch")]
pub mod rotation;

#[cfg(feature = "torch")]
pub use cells::{CellMasks, divided, drawn, expected_class, label_map, mix, overlapping};
