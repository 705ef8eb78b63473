//! Dense label volumes without images, from a folder of NIfTI files.
//!
//! Knows which files of a folder are masks and how their labels are coded; what they are for is
//! for `shapes` to say.

use super::nifti;
use super::volume::{self, Volume};
use crate::data::shapes::{MaskVolume, Shapes};
use crate::error::{Context, Failure, Result};
use std::path::{Path, PathBuf};

/// Where the masks of a data set lie that has them beside its images.
const LABELS: &str = "labels";

/// Reads every mask of `folder`: the `.nii` and `.nii.gz` files in it, in its subfolder `labels`,
/// and in the `labels` of its other subfolders, but for those with `scribble` in their names.
///
/// Labels are classes below `class_count`; where that is 4, also the coding of the MS-CMRSeg
/// challenge (Zhuang, TPAMI 2019): 200 myocardium, 500 left and 600 right ventricle. Refuses
/// scribbles, images, files that cannot be read, and a folder without masks.
pub fn read(folder: &Path, class_count: usize) -> Result<Shapes> {
    let (paths, scribble_count) = find(folder)?;
    if paths.is_empty() {
        return Err(Failure::usage(format!(
            "there are no masks in `{}`, expected dense label volumes",
            folder.display()
        ))
        .hint(format!(
            "files with `scribble` in their names are passed over, here {scribble_count}"
        ))
        .hint("looked for `.nii` and `.nii.gz` files there, in `labels` and in `*/labels`")
        .hint(DENSE_MASKS));
    }
    let masks = paths.into_iter().map(|(name, path)| {
        let volume = volume::read(&path)?;
        let labels = labels(&volume, &path, class_count)?;
        Ok(MaskVolume { name, patient: None, shape: volume.shape, labels })
    });
    Shapes::new(&format!("`{}`", folder.display()), masks.collect::<Result<_>>()?)
}

/// Where people who have MSCMR find what is wanted here.
const DENSE_MASKS: &str = "the dense masks of MSCMR as CycleMix packs it are in `val/labels` and \
                           `TestSet/labels`; those in `train/labels` are scribbles";

/// The masks in ascending order of their folders and names, and how many scribbles were passed over.
fn find(folder: &Path) -> Result<(Vec<(String, PathBuf)>, usize)> {
    let cannot = || format!("cannot list `{}`", folder.display());
    let mut inside = Vec::new();
    for entry in std::fs::read_dir(folder).context(cannot)? {
        inside.push(entry.context(cannot)?.path().join(LABELS));
    }
    inside.sort_unstable();
    let mut masks = Vec::new();
    let folders = [folder.to_owned(), folder.join(LABELS)].into_iter().chain(inside);
    for folder in folders.filter(|folder| folder.is_dir()) {
        masks.extend(nifti::files(&folder)?);
    }
    let found = masks.len();
    masks.retain(|(name, _path)| !name.to_lowercase().contains("scribble"));
    let scribble_count = found - masks.len();
    Ok((masks, scribble_count))
}

fn labels(volume: &Volume, path: &Path, class_count: usize) -> Result<Vec<u8>> {
    let whole = |value: f64| (value.fract() == 0.0).then_some(value as i64);
    let values = &volume.raw.values;
    for unlabelled in [class_count as i64, 255] {
        let count = values.iter().filter(|&&value| whole(value) == Some(unlabelled)).count();
        if 2 * count > values.len() {
            return Err(Failure::usage(format!(
                "`{}` holds {unlabelled} at {:.1} % of its voxels: these are scribbles, expected dense masks",
                path.display(),
                100.0 * count as f64 / values.len() as f64
            ))
            .hint(DENSE_MASKS));
        }
    }
    let is_coded = |value: &f64| [200.0, 500.0, 600.0].contains(value);
    let coded = class_count == 4 && values.iter().any(is_coded);
    let class = |value: i64| (0..class_count as i64).contains(&value).then_some(value as u8);
    let translate = |value: f64| {
        let value = whole(value)?;
        if coded { challenge_class(value) } else { class(value) }
    };
    let or_coded =
        if class_count == 4 { ", or 0, 200, 500, 600 as MS-CMRSeg has them" } else { "" };
    let coding = format!("0 to {}{or_coded}", class_count - 1);
    let labels = volume.labels(path, &coding, translate);
    labels
        .map_err(|failure| failure.hint("the folder of masks must hold no images and no scribbles"))
}

/// The class of a label of the MS-CMRSeg challenge.
fn challenge_class(value: i64) -> Option<u8> {
    match value {
        0 => Some(0),
        600 => Some(1),
        200 => Some(2),
        500 => Some(3),
        _ => None,
    }
}
