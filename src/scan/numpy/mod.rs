//! NumPy: one array in a file (`.npy`), or several with names in an archive (`.npz`).

mod archive;
mod header;
mod read;

pub(super) use read::{is_numpy, read, read_grid, read_numbers};
