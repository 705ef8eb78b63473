//! How samples are cut from scans, as it is written and as it is planned: contradictions and sizes that fit nowhere
//! refused.
//!
//! Knows neither scans nor networks; which sizes its network can take a method says itself.

use super::sampling::{Fit, Sampling};
use super::{Outside, PatchesConfig, RunConfig};
use crate::error::{Failure, Result};
use crate::limits::{BATCH_PIXELS, NETWORK_SIZE, elements};

/// The most patches of each case in one epoch.
const PER_CASE: u64 = 1 << 20;

/// The plan of `data.size` or `[data.patches]`.
pub(super) fn sampling(config: &RunConfig) -> Result<Sampling> {
    let sampling = config.data.sampling();
    match sampling {
        Sampling::Slices { size } | Sampling::Cropped { size } => {
            config.within("data.size", size as u64, 1..=NETWORK_SIZE as u64)?;
        }
        Sampling::Patches { extent, per_case, foreground_share } => {
            refuse_other_keys(config)?;
            let key = "data.patches.extent";
            for (extent, axis) in extent.into_iter().zip(["slices", "rows", "columns"]) {
                if !(1..=NETWORK_SIZE).contains(&extent) {
                    let message =
                        format!("`{key}` says {extent} {axis}, expected 1 to {NETWORK_SIZE}");
                    return Err(config.refuse(key, message));
                }
            }
            config.within("data.patches.per_case", per_case as u64, 1..=PER_CASE)?;
            if !(0.0..=1.0).contains(&foreground_share) {
                let key = "data.patches.foreground_share";
                let message = format!("`{key}` is {foreground_share}, expected 0 to 1");
                return Err(config.refuse(key, message));
            }
        }
    }
    Ok(sampling)
}

/// Refuses what means something for whole slices alone.
fn refuse_other_keys(config: &RunConfig) -> Result<()> {
    let refuse = |key: &str, message: &str| -> Result<()> {
        let failure: Failure = config.refuse(key, message);
        Err(failure.hint("remove one of them"))
    };
    if config.data.size.is_some() {
        return refuse(
            "data.size",
            "both `data.size` and `[data.patches]` say what a network sees",
        );
    }
    if config.data.fit.is_some() {
        let message = "`data.fit` is about whole slices, and `[data.patches]` are parts";
        return refuse("data.fit", message);
    }
    if config.data.outside == Some(Outside::Background) {
        let message = "what lies outside of a scan is unknown in `[data.patches]`, not background";
        return refuse("data.outside", message);
    }
    if config.data.shapes.is_some() {
        let message = "masks of `[data.shapes]` are whole slices, and `[data.patches]` are parts";
        return refuse("data.shapes", message);
    }
    Ok(())
}

/// Refuses batches of more voxels than fit anywhere.
pub(super) fn refuse_large_batch(config: &RunConfig, of: Sampling, batch: usize) -> Result<()> {
    let [slices, rows, columns] = of.extent();
    if elements(&[batch, slices, rows, columns], BATCH_PIXELS).is_some() {
        return Ok(());
    }
    let message = format!(
        "a batch of {batch} {} of {of} pixels is too large, expected at most {BATCH_PIXELS} pixels",
        of.items()
    );
    Err(config.refuse("train.batch_size", message))
}

/// `data.size` as a user would write it.
pub(super) fn size(sampling: Sampling) -> Option<usize> {
    match sampling {
        Sampling::Slices { size } | Sampling::Cropped { size } => Some(size),
        Sampling::Patches { .. } => None,
    }
}

/// `data.fit` as a user would write it.
pub(super) fn fit(sampling: Sampling) -> Option<Fit> {
    size(sampling).map(|_| sampling.fit())
}

/// `[data.patches]` as a user would write it, every key of it.
pub(super) fn patches(sampling: Sampling) -> Option<PatchesConfig> {
    let Sampling::Patches { extent, per_case, foreground_share } = sampling else { return None };
    let (per_case, foreground_share) = (Some(per_case), Some(foreground_share));
    Some(PatchesConfig { extent, per_case, foreground_share })
}

#[cfg(test)]
mod tests {
    use crate::config::parse;
    use crate::config::plan::RunPlan;
    use crate::config::sampling::Sampling;
    use crate::error::Result;

    const LEAST: &str =
        "[method]\nname = \"partial-ce\"\n[train]\ntotal_steps = 5\n[data]\npath = \"a.h5\"\n";

    fn resolve(more: &str) -> Result<RunPlan> {
        RunPlan::resolve(parse(&format!("{LEAST}{more}"), "a.toml", &[])?, 1)
    }

    #[test]
    fn patches_have_defaults_and_are_told() {
        let plan = resolve("[data.patches]\nextent = [6, 40, 56]\n").unwrap();
        let expected =
            Sampling::Patches { extent: [6, 40, 56], per_case: 4, foreground_share: 0.33 };
        assert_eq!(plan.data.sampling, expected);
        assert_eq!(
            plan.summary()[1],
            "5 steps of 12 patches of 6 x 40 x 56 on 1 rank, 12 patches each"
        );
        let written = plan.to_toml().unwrap();
        assert!(!written.contains("\nsize ="), "{written}");
        assert_eq!(RunPlan::resolve(parse(&written, "b.toml", &[]).unwrap(), 1).unwrap(), plan);
        let flat = resolve("[data.patches]\nextent = [1, 32, 48]\nper_case = 2\n").unwrap();
        assert!(flat.summary()[1].contains("patches of 32 x 48"));
    }

    #[test]
    fn slices_are_resized_unless_they_are_to_be_cropped() {
        let plan = resolve("size = 212\nfit = \"crop\"\n").unwrap();
        assert_eq!(plan.data.sampling, Sampling::Cropped { size: 212 });
        assert_eq!(
            plan.summary()[1],
            "5 steps of 12 slices of 212 x 212 on 1 rank, 12 slices each"
        );
        let written = plan.to_toml().unwrap();
        assert!(written.contains("fit = \"crop\""), "{written}");
        assert_eq!(RunPlan::resolve(parse(&written, "b.toml", &[]).unwrap(), 1).unwrap(), plan);
        let plain = resolve("size = 64\nfit = \"resize\"\n").unwrap();
        assert_eq!(plain, resolve("size = 64\n").unwrap());
        let both = resolve("fit = \"crop\"\n[data.patches]\nextent = [1, 32, 32]\n").unwrap_err();
        assert!(both.message().starts_with("`data.fit` is about whole slices"), "{both}");
        assert_eq!(
            resolve("size = 0\n").unwrap_err().message(),
            "`data.size` is 0, expected 1 to 8192"
        );
    }

    #[test]
    fn patches_that_cannot_be_are_refused_where_they_are_written() {
        let refused = |more: &str| resolve(more).unwrap_err();
        insta::assert_snapshot!(refused("size = 64\n[data.patches]\nextent = [1, 32, 32]\n"), @r"
        error: both `data.size` and `[data.patches]` say what a network sees
          --> a.toml:7:8
          |
        7 | size = 64
          |        ^^

        hint: remove one of them
        ");
        for (more, message) in [
            ("extent = [0, 32, 32]", "`data.patches.extent` says 0 slices, expected 1 to 8192"),
            (
                "extent = [4, 32, 9000]",
                "`data.patches.extent` says 9000 columns, expected 1 to 8192",
            ),
            (
                "extent = [4, 8, 8]\nper_case = 0",
                "`data.patches.per_case` is 0, expected 1 to 1048576",
            ),
            (
                "extent = [4, 8, 8]\nforeground_share = nan",
                "`data.patches.foreground_share` is NaN, expected 0 to 1",
            ),
            (
                "extent = [8192, 8192, 8192]",
                "a batch of 12 patches of 8192 x 8192 x 8192 pixels is too large, expected at most 68719476736 pixels",
            ),
        ] {
            assert_eq!(refused(&format!("[data.patches]\n{more}\n")).message(), message);
        }
        let shapes = "[data.shapes]\npath = \"m\"\n[data.patches]\nextent = [1, 32, 32]\n";
        assert!(refused(shapes).message().starts_with("masks of `[data.shapes]` are whole slices"));
        let outside = "outside = \"background\"\n[data.patches]\nextent = [1, 32, 32]\n";
        assert!(refused(outside).message().starts_with("what lies outside of a scan is unknown"));
    }
}
