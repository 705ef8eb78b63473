//! How many voxels of a file that is being written are still to come.
//!
//! Knows the name of the file for its messages, and nothing of what is written.

use crate::error::{Failure, Result};
use std::path::{Path, PathBuf};

/// The voxels of a file that nobody has written yet.
pub(super) struct Remaining {
    path: PathBuf,
    all: usize,
    voxels: usize,
}

impl Remaining {
    /// All voxels of the file at `path`.
    pub(super) fn new(path: &Path, voxels: usize) -> Self {
        Self { path: path.to_owned(), all: voxels, voxels }
    }

    /// How many are written.
    pub(super) fn written(&self) -> usize {
        self.all - self.voxels
    }

    /// Counts `voxels` as written. Refuses more than there are.
    pub(super) fn take(&mut self, voxels: usize) -> Result<()> {
        self.voxels = self.voxels.checked_sub(voxels).ok_or_else(|| {
            let more = voxels - self.voxels;
            Failure::new(format!("{more} voxels too many for `{}`", self.path.display()))
        })?;
        Ok(())
    }

    /// Refuses to end where voxels are missing.
    pub(super) fn end(&self) -> Result<()> {
        if self.voxels == 0 {
            return Ok(());
        }
        Err(Failure::new(format!(
            "{} voxels of `{}` are missing",
            self.voxels,
            self.path.display()
        )))
    }
}
