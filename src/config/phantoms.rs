//! Synthetic data sets of a plan: their defaults filled in, counts of nothing and of too much refused.
//!
//! Knows their numbers, not what they draw.

use super::{Difficulty, LesionPhantomConfig, PhantomConfig, RunConfig};
use crate::error::Result;
use crate::limits::{EXTENT, VOLUME_VOXELS, elements};

/// The smallest image in which everything drawn is still wider than a pixel.
const SMALLEST_SIZE: u64 = 32;
/// Red, green and blue.
const COLOURS: usize = 3;

/// A synthetic cardiac data set.
#[derive(Debug, Clone, PartialEq)]
pub struct PhantomPlan {
    /// How many cases.
    pub cases: usize,
    /// Slices of each case.
    pub slices: usize,
    /// Rows and columns of each slice.
    pub size: usize,
    /// How hard the images are to segment.
    pub difficulty: Difficulty,
    /// Equal seeds give equal data.
    pub seed: u64,
}

/// A synthetic data set of diseased and healthy images.
#[derive(Debug, Clone, PartialEq)]
pub struct LesionPhantomPlan {
    /// How many diseased images to train on, at least 1.
    pub cases: usize,
    /// How many healthy images to train on, at least 1.
    pub healthy: usize,
    /// How many images to validate with, at least 1.
    pub validation: usize,
    /// How many images to test with.
    pub test: usize,
    /// Rows and columns of each image.
    pub size: usize,
    /// Equal seeds give equal data.
    pub seed: u64,
}

impl PhantomPlan {
    pub(super) fn summary(&self) -> String {
        format!("a phantom of {} cases with {} slices", self.cases, self.slices)
    }

    pub(super) fn written_out(&self) -> PhantomConfig {
        PhantomConfig {
            cases: Some(self.cases),
            slices: Some(self.slices),
            size: Some(self.size),
            difficulty: Some(self.difficulty),
            seed: Some(self.seed),
        }
    }
}

impl LesionPhantomPlan {
    pub(super) fn summary(&self) -> String {
        let Self { cases, healthy, .. } = self;
        format!("a lesion phantom of {cases} diseased and {healthy} healthy images")
    }

    pub(super) fn written_out(&self) -> LesionPhantomConfig {
        LesionPhantomConfig {
            cases: Some(self.cases),
            healthy: Some(self.healthy),
            validation: Some(self.validation),
            test: Some(self.test),
            size: Some(self.size),
            seed: Some(self.seed),
        }
    }
}

/// Refuses a data set of these extents that would not fit into memory.
fn refuse_too_many(config: &RunConfig, table: &str, extents: &[usize]) -> Result<()> {
    if elements(extents, VOLUME_VOXELS).is_some() {
        return Ok(());
    }
    let message = format!(
        "`[{table}]` asks for {extents:?} values in memory, expected at most {VOLUME_VOXELS} in all"
    );
    Err(config.refuse(table, message).hint("ask for fewer or smaller images"))
}

/// The plan of a cardiac phantom in `table`, for example `data.phantom`.
pub(super) fn phantom(
    config: &RunConfig,
    table: &str,
    written: &PhantomConfig,
) -> Result<PhantomPlan> {
    let (cases, slices) = (written.cases.unwrap_or(40), written.slices.unwrap_or(8));
    let size = written.size.unwrap_or(128);
    for (key, count) in [("cases", cases), ("slices", slices)] {
        config.within(&format!("{table}.{key}"), count as u64, 1..=EXTENT as u64)?;
    }
    config.within(&format!("{table}.size"), size as u64, SMALLEST_SIZE..=EXTENT as u64)?;
    refuse_too_many(config, table, &[cases, slices, size, size])?;
    Ok(PhantomPlan {
        cases,
        slices,
        size,
        difficulty: written.difficulty.unwrap_or(Difficulty::Easy),
        seed: written.seed.unwrap_or(1),
    })
}

/// The plan of `[data.lesion_phantom]`.
pub(super) fn lesion_phantom(
    config: &RunConfig,
    written: &LesionPhantomConfig,
) -> Result<LesionPhantomPlan> {
    const TABLE: &str = "data.lesion_phantom";
    let (cases, healthy) = (written.cases.unwrap_or(200), written.healthy.unwrap_or(200));
    let (validation, test) = (written.validation.unwrap_or(32), written.test.unwrap_or(32));
    let size = written.size.unwrap_or(64);
    let counts = [("cases", cases, 1), ("healthy", healthy, 1), ("validation", validation, 1)];
    let sizes = [("test", test, 0), ("size", size, SMALLEST_SIZE)];
    for (key, count, least) in counts.into_iter().chain(sizes) {
        config.within(&format!("{TABLE}.{key}"), count as u64, least..=EXTENT as u64)?;
    }
    let images = cases + healthy + validation + test;
    refuse_too_many(config, TABLE, &[images, COLOURS, size, size])?;
    Ok(LesionPhantomPlan {
        cases,
        healthy,
        validation,
        test,
        size,
        seed: written.seed.unwrap_or(1),
    })
}
