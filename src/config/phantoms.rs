//! Synthetic data sets of a plan: their defaults filled in, counts of nothing and of too much refused.
//!
//! Knows their numbers, not what they draw.

use super::{
    Difficulty, GazePhantomConfig, LesionPhantomConfig, PhantomConfig, RunConfig,
    TwoModalityPhantomConfig,
};
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
    /// Of which slices some are scribbled on, where the slices of a case are sections of one body.
    pub volumes: Option<VolumesPlan>,
    /// How hard the images are to segment.
    pub difficulty: Difficulty,
    /// Equal seeds give equal data.
    pub seed: u64,
}

/// What is special about cases whose slices are sections of one body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumesPlan {
    /// Every so many slices are scribbled on, at least 1.
    pub scribbled_every: usize,
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

/// A synthetic data set of pictures that somebody looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct GazePhantomPlan {
    /// How many pictures to train on, at least 1.
    pub cases: usize,
    /// How many pictures to validate with, at least 1.
    pub validation: usize,
    /// How many pictures to test with.
    pub test: usize,
    /// Rows and columns of each picture.
    pub size: usize,
    /// At which shares maps of gaze are cut, ascending.
    pub levels: Vec<f64>,
    /// Equal seeds give equal data.
    pub seed: u64,
}

/// A synthetic data set of two modalities.
#[derive(Debug, Clone, PartialEq)]
pub struct TwoModalityPhantomPlan {
    /// How many patients of each modality to train on, at least 1.
    pub cases: usize,
    /// How many patients of each modality to validate with, at least 1.
    pub validation: usize,
    /// About how many slices a case has.
    pub slices: usize,
    /// About how many rows and columns a slice has before it is cropped.
    pub size: usize,
    /// The share of the patients to train on who are labelled, above 0 and up to 1.
    pub labelled_share: f64,
    /// Equal seeds give equal data.
    pub seed: u64,
}

impl PhantomPlan {
    pub(super) fn summary(&self) -> String {
        let kind = if self.volumes.is_some() { "volume phantom" } else { "phantom" };
        format!("a {kind} of {} cases with {} slices", self.cases, self.slices)
    }

    pub(super) fn written_out(&self) -> PhantomConfig {
        PhantomConfig {
            cases: Some(self.cases),
            slices: Some(self.slices),
            size: Some(self.size),
            volumes: Some(self.volumes.is_some()),
            scribbled_every: self.volumes.map(|volumes| volumes.scribbled_every),
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

impl GazePhantomPlan {
    pub(super) fn summary(&self) -> String {
        format!("a gaze phantom of {} pictures", self.cases)
    }

    pub(super) fn written_out(&self) -> GazePhantomConfig {
        GazePhantomConfig {
            cases: Some(self.cases),
            validation: Some(self.validation),
            test: Some(self.test),
            size: Some(self.size),
            levels: Some(self.levels.clone()),
            seed: Some(self.seed),
        }
    }
}

impl TwoModalityPhantomPlan {
    pub(super) fn summary(&self) -> String {
        let Self { cases, labelled_share, .. } = self;
        format!(
            "a phantom of {cases} patients in CT and {cases} in MR, a share of {labelled_share} labelled"
        )
    }

    pub(super) fn written_out(&self) -> TwoModalityPhantomConfig {
        TwoModalityPhantomConfig {
            cases: Some(self.cases),
            validation: Some(self.validation),
            slices: Some(self.slices),
            size: Some(self.size),
            labelled_share: Some(self.labelled_share),
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
    let volumes = volumes(config, table, written)?;
    let slices = written.slices.unwrap_or(if volumes.is_some() { 24 } else { 8 });
    let cases = written.cases.unwrap_or(40);
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
        volumes,
        difficulty: written.difficulty.unwrap_or(Difficulty::Easy),
        seed: written.seed.unwrap_or(1),
    })
}

fn volumes(
    config: &RunConfig,
    table: &str,
    written: &PhantomConfig,
) -> Result<Option<VolumesPlan>> {
    let key = format!("{table}.scribbled_every");
    if !written.volumes.unwrap_or(false) {
        if written.scribbled_every.is_none() {
            return Ok(None);
        }
        let message = format!("`{key}` is of volumes, and all slices here are scribbled on");
        let hint = format!("add `volumes = true` to `[{table}]`, or remove the key");
        return Err(config.refuse(&key, message).hint(hint));
    }
    let scribbled_every = written.scribbled_every.unwrap_or(3);
    config.within(&key, scribbled_every as u64, 1..=EXTENT as u64)?;
    Ok(Some(VolumesPlan { scribbled_every }))
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

/// The plan of `[data.gaze_phantom]`.
pub(super) fn gaze_phantom(
    config: &RunConfig,
    written: &GazePhantomConfig,
) -> Result<GazePhantomPlan> {
    const TABLE: &str = "data.gaze_phantom";
    let (cases, size) = (written.cases.unwrap_or(200), written.size.unwrap_or(64));
    let (validation, test) = (written.validation.unwrap_or(32), written.test.unwrap_or(32));
    let counts = [("cases", cases, 1), ("validation", validation, 1), ("test", test, 0)];
    for (key, count, least) in counts.into_iter().chain([("size", size, SMALLEST_SIZE)]) {
        config.within(&format!("{TABLE}.{key}"), count as u64, least..=EXTENT as u64)?;
    }
    refuse_too_many(config, TABLE, &[cases + validation + test, COLOURS, size, size])?;
    let levels = written.levels.clone().unwrap_or_else(|| vec![0.3, 0.5]);
    let are_shares = levels.iter().all(|level| *level > 0.0 && *level < 1.0);
    if levels.is_empty() || !are_shares || !levels.is_sorted_by(|one, next| one < next) {
        let key = format!("{TABLE}.levels");
        let message = format!(
            "`{key}` is {levels:?}, expected numbers between 0 and 1, each larger than the one before"
        );
        return Err(config.refuse(&key, message));
    }
    let seed = written.seed.unwrap_or(1);
    Ok(GazePhantomPlan { cases, validation, test, size, levels, seed })
}

/// The plan of `[data.two_modality_phantom]`.
pub(super) fn two_modality_phantom(
    config: &RunConfig,
    written: &TwoModalityPhantomConfig,
) -> Result<TwoModalityPhantomPlan> {
    const TABLE: &str = "data.two_modality_phantom";
    let (cases, validation) = (written.cases.unwrap_or(20), written.validation.unwrap_or(5));
    let (slices, size) = (written.slices.unwrap_or(24), written.size.unwrap_or(64));
    let counts = [("cases", cases, 1), ("validation", validation, 1)];
    let sizes = [("slices", slices, 8), ("size", size, SMALLEST_SIZE)];
    for (key, count, least) in counts.into_iter().chain(sizes) {
        config.within(&format!("{TABLE}.{key}"), count as u64, least..=EXTENT as u64)?;
    }
    refuse_too_many(config, TABLE, &[2, cases + validation, slices, size, size])?;
    let labelled_share = written.labelled_share.unwrap_or(0.1);
    if !(labelled_share > 0.0 && labelled_share <= 1.0) {
        let key = format!("{TABLE}.labelled_share");
        let message = format!("`{key}` is {labelled_share}, expected more than 0 and up to 1");
        return Err(config.refuse(&key, message));
    }
    let seed = written.seed.unwrap_or(1);
    Ok(TwoModalityPhantomPlan { cases, validation, slices, size, labelled_share, seed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::config::plan::{DataSource, RunPlan};

    fn resolve(keys: &str) -> Result<RunPlan> {
        let rest = "[method]\nname = \"partial-ce\"\n[train]\ntotal_steps = 5\n[data.phantom]\n";
        RunPlan::resolve(parse(&format!("{rest}{keys}\n"), "a.toml", &[])?, 1)
    }

    #[test]
    fn volumes_have_more_slices_and_fewer_scribbles() {
        let plan = resolve("volumes = true").unwrap();
        let DataSource::Phantom(phantom) = &plan.data.source else { panic!("{plan:?}") };
        assert_eq!(phantom.slices, 24);
        assert_eq!(phantom.volumes, Some(VolumesPlan { scribbled_every: 3 }));
        let written = parse(&plan.to_toml().unwrap(), "b.toml", &[]).unwrap();
        assert_eq!(RunPlan::resolve(written, 1).unwrap(), plan);
        let refused = |keys: &str| resolve(keys).unwrap_err().message().to_owned();
        assert_eq!(
            refused("scribbled_every = 2"),
            "`data.phantom.scribbled_every` is of volumes, and all slices here are scribbled on"
        );
        assert_eq!(
            refused("volumes = true\nscribbled_every = 0"),
            "`data.phantom.scribbled_every` is 0, expected 1 to 65536"
        );
    }

    #[test]
    fn a_phantom_of_two_modalities_has_defaults_and_bounds() {
        let least =
            "[method]\nname = \"cmc\"\n[train]\ntotal_steps = 5\n[data.two_modality_phantom]\n";
        let resolve =
            |keys: &str| RunPlan::resolve(parse(&format!("{least}{keys}\n"), "a.toml", &[])?, 1);
        let plan = resolve("cases = 7").unwrap();
        let DataSource::TwoModalityPhantom(phantom) = &plan.data.source else { panic!("{plan:?}") };
        assert_eq!((phantom.cases, phantom.validation, phantom.slices), (7, 5, 24));
        let written = parse(&plan.to_toml().unwrap(), "b.toml", &[]).unwrap();
        assert_eq!(RunPlan::resolve(written, 1).unwrap(), plan);
        let refused = |keys: &str| resolve(keys).unwrap_err().message().to_owned();
        assert_eq!(
            refused("labelled_share = 0.0"),
            "`data.two_modality_phantom.labelled_share` is 0, expected more than 0 and up to 1"
        );
        assert_eq!(
            refused("slices = 2"),
            "`data.two_modality_phantom.slices` is 2, expected 8 to 65536"
        );
        let both = refused("[data.lesion_phantom]");
        assert_eq!(
            both,
            "both `[data.lesion_phantom]` and `[data.two_modality_phantom]` say what to train on"
        );
    }
}
