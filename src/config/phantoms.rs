//! Synthetic data sets of a plan: their defaults filled in, counts of nothing refused.
//!
//! Knows their numbers, not what they draw.

use super::{Difficulty, LesionPhantomConfig, PhantomConfig, RunConfig};
use crate::error::Result;

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

/// The plan of a cardiac phantom in `table`, for example `data.phantom`.
pub(super) fn phantom(
    config: &RunConfig,
    table: &str,
    written: &PhantomConfig,
) -> Result<PhantomPlan> {
    let counts = [("cases", written.cases), ("slices", written.slices), ("size", written.size)];
    for (key, count) in counts {
        config.at_least_one(&format!("{table}.{key}"), count.unwrap_or(1) as u64)?;
    }
    Ok(PhantomPlan {
        cases: written.cases.unwrap_or(40),
        slices: written.slices.unwrap_or(8),
        size: written.size.unwrap_or(128),
        difficulty: written.difficulty.unwrap_or(Difficulty::Easy),
        seed: written.seed.unwrap_or(1),
    })
}

/// The plan of `[data.lesion_phantom]`.
pub(super) fn lesion_phantom(
    config: &RunConfig,
    written: &LesionPhantomConfig,
) -> Result<LesionPhantomPlan> {
    let counts = [
        ("cases", written.cases),
        ("healthy", written.healthy),
        ("validation", written.validation),
        ("size", written.size),
    ];
    for (key, count) in counts {
        config.at_least_one(&format!("data.lesion_phantom.{key}"), count.unwrap_or(1) as u64)?;
    }
    Ok(LesionPhantomPlan {
        cases: written.cases.unwrap_or(200),
        healthy: written.healthy.unwrap_or(200),
        validation: written.validation.unwrap_or(32),
        test: written.test.unwrap_or(32),
        size: written.size.unwrap_or(64),
        seed: written.seed.unwrap_or(1),
    })
}
