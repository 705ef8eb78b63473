//! Labels that nobody drew: what is made of predictions or of few annotations, slice by slice.
//!
//! Works on plain label maps; knows no tensors, no networks and no files.

mod components;

pub use components::keep_largest;
