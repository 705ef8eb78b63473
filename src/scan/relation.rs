//! How the labels of a file lie on their image, in words, for people who ask before anything is packed.
//!
//! Grids are compared in `alignment`; nothing is turned or carried here.

use super::alignment::FileGrid;
use super::coding::Numbers;
use std::path::Path;

/// How labels lie on an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Whether they are read with it as they are, turned where need be.
    pub is_usable: bool,
    /// What both headers say, as the end of "labels …".
    pub sentence: String,
    /// What to do where they cannot be used.
    pub hint: Option<String>,
}

/// How the labels of the file at `path`, which holds these numbers, lie on `image`.
pub fn relation(image: &FileGrid, labels: &Numbers, path: &Path) -> Relation {
    let file = &labels.file;
    if let Some(order) = image.order_of(file) {
        let sentence = image.agreement(order, file);
        return Relation { is_usable: true, sentence, hint: None };
    }
    if labels.segments.is_some() && image.part_of(file).is_some() {
        let sentence = "covers a part of its image voxel by voxel".to_owned();
        return Relation { is_usable: true, sentence, hint: None };
    }
    let failure = image.elsewhere(file);
    let carry = "`scrimp prepare own-data --regrid` carries it to the nearest voxels of its image";
    let told = failure.hints().first().cloned();
    let is_on_its_voxels = image.mistake(file).is_none() && image.part_of(file).is_some();
    let can_be_carried = is_on_its_voxels || image.can_be_carried(path);
    let hint = if can_be_carried { Some(carry.to_owned()) } else { told };
    let named = format!("{} ", file.name);
    let sentence = failure.message().strip_prefix(&named).unwrap_or(failure.message()).to_owned();
    Relation { is_usable: false, sentence, hint }
}
