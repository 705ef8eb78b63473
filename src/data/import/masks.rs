//! Dense label volumes without images, from a folder of NIfTI files.
//!
//! Knows which files of a folder are masks and how their labels are coded; what they are for is
//! for `shapes` to say.

use super::folder;
use crate::data::shapes::{MaskVolume, Shapes};
use crate::error::{Failure, Result};
use crate::scan::{self, Coding, Labels, Notes, Numbers};
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
    let notes = Notes::default();
    let (paths, scribble_count) = find(folder, &notes)?;
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
        let numbers = scan::read_numbers(&path, &notes)?;
        let Labels { grid, values } = labels(&numbers, &path, class_count, &notes)?;
        Ok(MaskVolume { name, patient: None, shape: grid.shape, labels: values })
    });
    let masks = masks.collect::<Result<_>>()?;
    for note in notes.take() {
        tracing::warn!("{note}");
    }
    Shapes::new(&format!("`{}`", folder.display()), masks)
}

/// Where people who have MSCMR find what is wanted here.
const DENSE_MASKS: &str = "the dense masks of MSCMR as CycleMix packs it are in `val/labels` and \
                           `TestSet/labels`; those in `train/labels` are scribbles";

/// The masks in ascending order of their folders and names, and how many scribbles were passed over.
fn find(folder: &Path, notes: &Notes) -> Result<(Vec<(String, PathBuf)>, usize)> {
    let inside = folder::entries(folder)?.into_iter().map(|path| path.join(LABELS));
    let folders = [folder.to_owned(), folder.join(LABELS)].into_iter().chain(inside);
    let mut masks = Vec::new();
    for (number, folder) in folders.filter(|folder| folder.is_dir()).enumerate() {
        let listing = folder::list(&folder)?;
        if number > 0 {
            listing.note_others(notes)?;
        }
        // Beside the folder's own masks may lie anything, packed data sets for example.
        for path in listing.others.iter().filter(|path| number == 0 && !path.is_dir()) {
            if folder::is_data(path) {
                notes.add(
                    "passed over, for its name is not that of an image or of labels",
                    format!("`{}`", path.display()),
                );
            }
        }
        masks.extend(listing.files);
    }
    let found = masks.len();
    masks.retain(|(name, _path)| !name.to_lowercase().contains("scribble"));
    let scribble_count = found - masks.len();
    Ok((masks, scribble_count))
}

fn labels(numbers: &Numbers, path: &Path, class_count: usize, notes: &Notes) -> Result<Labels> {
    let values = &numbers.values;
    for unlabelled in [class_count as f64, 255.0] {
        let count = values.iter().filter(|&value| (value - unlabelled).abs() < 1e-3).count();
        if 2 * count > values.len() {
            return Err(Failure::usage(format!(
                "`{}` holds {unlabelled} at {:.1} % of its voxels: these are scribbles, expected dense masks",
                path.display(),
                100.0 * count as f64 / values.len() as f64
            ))
            .hint(DENSE_MASKS));
        }
    }
    let is_coded = |value: &f64| [200.0, 500.0, 600.0].contains(&value.round());
    let or_coded =
        if class_count == 4 { ", or 0, 200, 500, 600 as MS-CMRSeg has them" } else { "" };
    let words = format!("0 to {}{or_coded}", class_count.saturating_sub(1));
    let coding = if class_count == 4 && values.iter().any(is_coded) {
        Coding::new([(0, 0), (600, 1), (200, 2), (500, 3)], words)
    } else {
        Coding::new((0..class_count).map(|class| (class as i64, class as u8)), words)
    };
    let labels = numbers.labels(&coding, notes);
    labels
        .map_err(|failure| failure.hint("the folder of masks must hold no images and no scribbles"))
}
