//! Which images there are to segment: one file or a folder of them, each with its channels.
//!
//! Knows names of files; nothing is opened here but to see whether a folder is an image.

use crate::error::{Context, Failure, Result};
use crate::scan::{FORMATS, image_endings, is_image_folder, is_one_image, split_ending};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// An image to segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageFiles {
    /// What its files are called, without ending and number of the channel.
    pub(super) name: String,
    /// The file, or one for each channel.
    pub(super) files: Vec<PathBuf>,
    /// The ending that labels get: that of the format of the image, `.png` for a picture.
    pub(super) ending: String,
}

/// The images at `images`, a file or a folder whose own folders are passed over, by name. A folder of the slices of one
/// series is an image, which is called like the folder.
///
/// Where a run takes `channels` that lie in files of their own, `NAME_0000.nii.gz`, `NAME_0001.nii.gz` and so on are
/// one image. Refuses two images of one name, and a folder without any.
pub(super) fn find(images: &Path, channels: usize) -> Result<Vec<ImageFiles>> {
    let is_many = images.is_dir() && !is_one_image(images);
    let files = if is_many { in_folder(images)? } else { vec![images.to_owned()] };
    if files.is_empty() {
        let message = format!(
            "`{}` holds no image, expected files that end in `{}`",
            images.display(),
            image_endings().collect::<Vec<_>>().join("`, `")
        );
        return Err(Failure::usage(message).hint("name a folder of images with `--images DIR`"));
    }
    let mut named = BTreeMap::new();
    for file in files {
        let (name, ending) = split(&file)?;
        if let Some((other, _)) = named.insert(name, (file.clone(), ending)) {
            let message = format!(
                "`{}` and `{}` have the same name, and so would their labels",
                other.display(),
                file.display()
            );
            return Err(Failure::usage(message).hint("move one of them into another folder"));
        }
    }
    grouped(named, channels)
}

fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot list `{}`", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).context(cannot)? {
        let path = entry.context(cannot)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ending = split_ending(&name).map(|(_, ending)| ending);
        // Segmentations beside images are labels.
        let is_image = image_endings().any(|known| Some(known) == ending);
        let is_image = if path.is_dir() { is_image_folder(&path) } else { is_image };
        // macOS leaves `._NAME` beside files that it copies.
        if is_image && !name.starts_with('.') {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The name of a file and the ending that its labels get.
fn split(file: &Path) -> Result<(String, String)> {
    // Of `..` and the like the name is written nowhere.
    let real = file.file_name().is_none().then(|| file.canonicalize().unwrap_or_default());
    let named = real.as_deref().unwrap_or(file);
    let Some(name) = named.file_name().and_then(OsStr::to_str) else {
        let message = format!(
            "the name of `{}` is no UTF-8, expected names that every system reads alike",
            file.display()
        );
        return Err(Failure::usage(message).hint("rename it"));
    };
    if file.is_dir() {
        return Ok((name.to_owned(), ".nii.gz".to_owned()));
    }
    let known = split_ending(name);
    let stem = known
        .map_or_else(|| name.rsplit_once('.').map_or(name, |(stem, _)| stem), |(stem, _)| stem);
    if stem.is_empty()
        || FORMATS.iter().any(|format| format.endings.contains(&&*name.to_lowercase()))
    {
        return Err(Failure::usage(format!("`{}` has no name but its ending", file.display()))
            .hint("rename it"));
    }
    let ending = known.map_or(".nii.gz", |(_, ending)| labels_ending(ending));
    Ok((stem.to_owned(), ending.to_owned()))
}

/// What names of labels end with whose image has this ending.
fn labels_ending(image: &'static str) -> &'static str {
    let format = FORMATS.iter().find(|format| format.endings.contains(&image));
    match format {
        // Of NIfTI labels are packed as their image is.
        Some(format) if format.labels_ending == ".nii.gz" && image == ".nii" => image,
        Some(format) => format.labels_ending,
        None => ".nii.gz",
    }
}

type Named = BTreeMap<String, (PathBuf, String)>;

/// The number of the channel at the end of a name, and what stands in front of it.
fn channel(name: &str) -> Option<(&str, usize)> {
    let (stem, digits) = name.rsplit_once('_')?;
    let is_number = digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_digit());
    Some((stem, digits.parse().ok().filter(|_| is_number && !stem.is_empty())?))
}

fn grouped(named: Named, channels: usize) -> Result<Vec<ImageFiles>> {
    let mut numbers: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for (stem, number) in named.keys().filter_map(|name| channel(name)) {
        numbers.entry(stem.to_owned()).or_default().insert(number);
    }
    // Numbers that say nothing of channels, such as those of frames, belong to the names.
    let is_channels =
        |numbers: &BTreeSet<usize>| numbers.contains(&0) && (channels > 1 || numbers.len() == 1);
    let mut found: BTreeMap<String, ImageFiles> = BTreeMap::new();
    for (name, (file, ending)) in named {
        let of_channel = channel(&name).filter(|(stem, _)| is_channels(&numbers[*stem]));
        let name = of_channel.map_or(name.as_str(), |(stem, _)| stem).to_owned();
        let image = found.entry(name.clone()).or_insert_with(|| ImageFiles {
            name,
            files: Vec::new(),
            ending,
        });
        image.files.push(file);
    }
    for image in found.values() {
        refuse_gaps(image, numbers.get(&image.name))?;
    }
    Ok(found.into_values().collect())
}

/// Refuses channels that do not follow each other, and an image beside channels of its name.
fn refuse_gaps(image: &ImageFiles, numbers: Option<&BTreeSet<usize>>) -> Result<()> {
    if image.files.len() == 1 {
        return Ok(());
    }
    let expected: BTreeSet<usize> = (0..image.files.len()).collect();
    if numbers == Some(&expected) {
        return Ok(());
    }
    let names: Vec<String> =
        image.files.iter().map(|file| format!("`{}`", file.display())).collect();
    let (last, name) = (image.files.len() - 1, &image.name);
    let message = format!(
        "the channels of `{name}` are {}, expected `{name}_0000` to `{name}_{last:04}`",
        names.join(", ")
    );
    Err(Failure::usage(message)
        .hint("put the missing files beside them, or move the others elsewhere"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(
        names: &[&str],
        channels: usize,
    ) -> std::result::Result<Vec<(String, usize, String)>, String> {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::fs::create_dir(folder.path().join("more.nii")).unwrap();
        let path = folder.path().to_str().unwrap();
        find(folder.path(), channels)
            .map(|images| {
                images
                    .into_iter()
                    .map(|image| (image.name, image.files.len(), image.ending))
                    .collect()
            })
            .map_err(|failure| failure.to_string().replace(path, "FOLDER"))
    }

    fn images(names: &[(&str, usize, &str)]) -> Vec<(String, usize, String)> {
        names
            .iter()
            .map(|&(name, count, ending)| (name.to_owned(), count, ending.to_owned()))
            .collect()
    }

    #[test]
    fn a_folder_of_slices_is_an_image_that_is_called_like_it() {
        let slices = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/formats/series-ct");
        let folder = tempfile::tempdir().unwrap();
        let series = folder.path().join("anna.2024");
        std::fs::create_dir(&series).unwrap();
        for name in ["IM1", "IM2"] {
            std::fs::copy(slices.join(name), series.join(name)).unwrap();
        }
        std::fs::write(folder.path().join("berta.nii"), "").unwrap();
        let named = |images: &Path| {
            let found = find(images, 1).unwrap().into_iter();
            found.map(|image| (image.name, image.ending)).collect::<Vec<_>>()
        };
        let anna = ("anna.2024".to_owned(), ".nii.gz".to_owned());
        assert_eq!(named(&series), std::slice::from_ref(&anna));
        assert_eq!(named(&series.join(".")), std::slice::from_ref(&anna));
        assert_eq!(named(folder.path()), [anna, ("berta".to_owned(), ".nii".to_owned())]);
    }

    #[test]
    fn names_are_kept_and_what_is_no_image_is_passed_over() {
        let names = ["b.nii.gz", "a.x.nii", "C.PNG", "d.jpeg", "notes.txt", "._b.nii.gz"];
        let expected =
            [("C", 1, ".png"), ("a.x", 1, ".nii"), ("b", 1, ".nii.gz"), ("d", 1, ".png")];
        assert_eq!(found(&names, 1).unwrap(), images(&expected));
        // Labels have the format of their image; what Slicer drew on one is none.
        let names = ["a.nrrd", "a.seg.nrrd", "b.MHA", "c.mhd", "c.raw", "d.tif", "e.bmp"];
        let expected =
            [("a", ".seg.nrrd"), ("b", ".mha"), ("c", ".mha"), ("d", ".nii.gz"), ("e", ".png")];
        let expected = expected.map(|(name, ending)| (name, 1, ending));
        assert_eq!(found(&names, 1).unwrap(), images(&expected));
    }

    #[test]
    fn channels_are_one_image_where_a_run_takes_several() {
        let names = ["a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz", "c.nii"];
        let expected = [("a", 2, ".nii.gz"), ("b", 2, ".nii.gz"), ("c", 1, ".nii")];
        assert_eq!(found(&names, 2).unwrap(), images(&expected));
        // Of one channel these are frames.
        let frames = found(&names, 1).unwrap();
        assert_eq!(frames[0], ("a_0000".to_owned(), 1, ".nii.gz".to_owned()));
        assert_eq!(
            found(&["a_0000.nii", "b_0000.nii"], 1).unwrap(),
            images(&[("a", 1, ".nii"), ("b", 1, ".nii")])
        );
        assert_eq!(found(&["a_0003.nii", "a_12.nii"], 2).unwrap().len(), 2);
    }

    #[test]
    fn what_cannot_be_told_apart_is_refused() {
        insta::assert_snapshot!(found(&["a.nii", "a.nii.gz"], 1).unwrap_err(), @"
        error: `FOLDER/a.nii` and `FOLDER/a.nii.gz` have the same name, and so would their labels

        hint: move one of them into another folder
        ");
        insta::assert_snapshot!(found(&["a_0000.nii", "a_0002.nii"], 3).unwrap_err(), @"
        error: the channels of `a` are `FOLDER/a_0000.nii`, `FOLDER/a_0002.nii`, expected `a_0000` to `a_0001`

        hint: put the missing files beside them, or move the others elsewhere
        ");
        insta::assert_snapshot!(found(&["a_0000.nii", "a.nii"], 1).unwrap_err(), @"
        error: the channels of `a` are `FOLDER/a.nii`, `FOLDER/a_0000.nii`, expected `a_0000` to `a_0001`

        hint: put the missing files beside them, or move the others elsewhere
        ");
        insta::assert_snapshot!(found(&["notes.txt"], 1).unwrap_err(), @"
        error: `FOLDER` holds no image, expected files that end in `.nii.gz`, `.nii`, `.hdr`, `.hdr.gz`, `.nrrd`, `.nhdr`, `.mha`, `.mhd`, `.png`, `.jpg`, `.jpeg`, `.bmp`, `.tif`, `.tiff`, `.npy`, `.npz`, `.dcm`, `.dicom`, `.ima`, `.h5`

        hint: name a folder of images with `--images DIR`
        ");
    }
}
