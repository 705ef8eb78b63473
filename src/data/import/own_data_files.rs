//! The files of everybody's own cases, found by their names.
//!
//! Knows names of files and folders; what is in them is not looked at.

use super::folder::{self, Listing, same_name};
use crate::error::{Failure, Result};
use crate::scan::{Notes, image_endings, label_endings, list, split_ending};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where images and labels lie.
pub(super) struct Places<'a> {
    pub(super) images: &'a Path,
    pub(super) scribbles: Option<&'a Path>,
    pub(super) dense: Option<&'a Path>,
}

/// The files of one case.
pub(super) struct Files {
    /// One for each channel.
    pub(super) images: Vec<PathBuf>,
    /// What somebody drew; a case without has dense labels.
    pub(super) scribble: Option<PathBuf>,
    pub(super) dense: Option<PathBuf>,
}

/// Label files that no image has taken yet, by their names without ending.
struct Labels<'a> {
    folder: &'a Path,
    left: BTreeMap<String, PathBuf>,
}

/// What the names of volumes of WSL4MIS end with, which hold annotations, too: another importer takes them.
const WSL4MIS: &str = ".h5";

/// What the name of the first channel of a case has behind the name of the case.
const FIRST_CHANNEL: &str = "_0000";

/// The files of every case by its name; what is passed over is noted.
///
/// Refuses cases that lack a channel, images without any labels, labels without image, and other data in the folders.
pub(super) fn find(places: &Places<'_>, notes: &Notes) -> Result<BTreeMap<String, Files>> {
    let listing =
        looked(places.images, image_endings().filter(|end| *end != WSL4MIS).collect(), notes)?;
    if listing.files.is_empty() {
        return Err(Failure::new(format!("no images in `{}`", places.images.display()))
            .hint(format!("looked for files that end in {}", listing.endings())));
    }
    let mut scribbles = places.scribbles.map(|folder| Labels::of(folder, notes)).transpose()?;
    let mut dense = places.dense.map(|folder| Labels::of(folder, notes)).transpose()?;
    let mut found: BTreeMap<String, Files> = BTreeMap::new();
    for (stem, images) in channels(listing.files)? {
        let names = names(&stem);
        let take = |labels: &mut Option<Labels<'_>>| labels.as_mut()?.take(&names);
        let (scribble, labels) = (take(&mut scribbles), take(&mut dense));
        let named = scribble.as_ref().or(labels.as_ref()).map(|(name, _)| name.clone());
        let Some(name) = named else {
            return Err(no_labels(&stem, &images[0], scribbles.as_ref(), dense.as_ref()));
        };
        if let Some(other) = found.get(&name) {
            return Err(same_name(&other.images[0], &images[0]));
        }
        let path = |found: Option<(String, PathBuf)>| found.map(|(_, path)| path);
        found.insert(name, Files { images, scribble: path(scribble), dense: path(labels) });
    }
    for (labels, what) in [(scribbles, "scribbles"), (dense, "dense labels")] {
        labels.map_or(Ok(()), |labels| labels.refuse_left(what, places.images))?;
    }
    refuse_none(&found, places)?;
    Ok(found)
}

/// Refuses a folder of labels of which no image has any.
fn refuse_none(found: &BTreeMap<String, Files>, places: &Places<'_>) -> Result<()> {
    let has_none = |path: fn(&Files) -> Option<&PathBuf>| found.values().all(|f| path(f).is_none());
    for (folder, what, option, has_none) in [
        (places.scribbles, "scribbles", "--scribbles", has_none(|files| files.scribble.as_ref())),
        (places.dense, "dense labels", "--dense", has_none(|files| files.dense.as_ref())),
    ] {
        if folder.is_some() && has_none {
            return Err(Failure::new(format!("no image has {what}")).hint(format!(
                "{what} need the names of the images; leave `{option}` out if there are none"
            )));
        }
    }
    Ok(())
}

/// What lies in a folder; what is passed over is noted.
fn looked(folder: &Path, endings: Vec<&'static str>, notes: &Notes) -> Result<Listing> {
    let listing = folder::list_of(folder, endings)?;
    listing.note_others(notes).map(|()| listing)
}

impl<'a> Labels<'a> {
    fn of(folder: &'a Path, notes: &Notes) -> Result<Self> {
        let left = looked(folder, label_endings().collect(), notes)?.files;
        Ok(Self { folder, left })
    }

    /// The first of these names that there is, with its file.
    fn take(&mut self, names: &[&str]) -> Option<(String, PathBuf)> {
        names.iter().find_map(|name| self.left.remove_entry(*name))
    }

    fn refuse_left(&self, what: &str, images: &Path) -> Result<()> {
        let Some(path) = self.left.values().next() else { return Ok(()) };
        let more = self.left.len() - 1;
        let others = if more > 0 { format!(", and so have {more} more") } else { String::new() };
        Err(Failure::new(format!("{what} `{}` have no image{others}", path.display()))
            .hint(format!("put the image into `{}`, or move them away", images.display())))
    }
}

/// What labels of the image `stem` may be called: nnU-Net adds the number of the channel to images alone.
fn names(stem: &str) -> Vec<&str> {
    [Some(stem), stem.strip_suffix(FIRST_CHANNEL)].into_iter().flatten().collect()
}

/// The images of every case in the order of their channels, by the name of the first without ending.
///
/// Refuses a case that lacks a channel between others.
fn channels(mut images: BTreeMap<String, PathBuf>) -> Result<BTreeMap<String, Vec<PathBuf>>> {
    let cases: Vec<String> = images
        .keys()
        .filter_map(|stem| stem.strip_suffix(FIRST_CHANNEL))
        .map(String::from)
        .collect();
    let mut found = BTreeMap::new();
    for case in cases {
        // Ten thousand are more than four digits can number.
        let numbers = (0..10_000)
            .filter_map(|number| Some((number, images.remove(&format!("{case}_{number:04}"))?)));
        let (numbers, paths): (Vec<usize>, Vec<PathBuf>) = numbers.unzip();
        if let Some(missing) = (0..numbers.len()).find(|&index| numbers[index] != index) {
            return Err(Failure::new(format!(
                "case `{case}` has no channel `{case}_{missing:04}`, and a later one, `{}`",
                paths[missing].display()
            ))
            .hint("add the missing channel, or move the later ones away"));
        }
        found.insert(format!("{case}{FIRST_CHANNEL}"), paths);
    }
    found.extend(images.into_iter().map(|(stem, image)| (stem, vec![image])));
    Ok(found)
}

/// The refusal of an image of which nobody has said anything.
fn no_labels(
    stem: &str,
    image: &Path,
    scribbles: Option<&Labels<'_>>,
    dense: Option<&Labels<'_>>,
) -> Failure {
    // Labels in the format of their image are the likeliest.
    let ending = image.file_name().and_then(|name| name.to_str()).and_then(split_ending);
    let (likely, other) = match ending {
        Some((_, ending)) if label_endings().any(|end| end == ending) => (ending, ".nii.gz"),
        _ => (".nii.gz", ".nii"),
    };
    let other = if likely == other { ".nii" } else { other };
    let what = match (scribbles, dense) {
        (Some(_), Some(_)) => "neither scribbles nor dense labels",
        (Some(_), None) => "no scribbles",
        (None, _) => "no dense labels",
    };
    let folders = [scribbles, dense].into_iter().flatten();
    let looked_for = folders.clone().flat_map(|labels| {
        names(stem).into_iter().flat_map(move |name| {
            [likely, other].map(|ending| {
                format!("`{}`", labels.folder.join(format!("{name}{ending}")).display())
            })
        })
    });
    let failure = Failure::new(format!("image `{}` has {what}", image.display()))
        .hint(format!("looked for {}", looked_for.collect::<Vec<_>>().join(", ")));
    let left = folders.flat_map(|labels| labels.left.keys());
    let left: Vec<String> = left.take(3).map(|name| format!("`{name}`")).collect();
    if left.is_empty() {
        return failure.hint("move the image away if nobody drew on it");
    }
    failure
        .hint(format!("labels need the names of their images; without image are {}", list(&left)))
}
