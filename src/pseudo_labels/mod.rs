//! Labels that nobody drew: what is made of predictions or of few annotations, slice by slice.
//!
//! Works on plain label maps and pictures; knows no tensors, no networks and no files.

mod components;
pub mod expansion;
mod front;
pub mod lesion;
mod network;
mod random_walker;

pub use components::{keep_largest, keep_main_regions};
pub use random_walker::{Absent, Scribbled};
