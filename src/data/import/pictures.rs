//! Folders of pictures, and their pictures and masks resized like Pillow.
//!
//! Knows which files are none and how masks are coded; what pictures show is for the sources to say.

use crate::data::augment::pillow;
use crate::error::{Context, Failure, Result};
use crate::files;
use crate::scan::{self, Notes, Scan};
use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Endings of the names of files that are read.
const READ: [&str; 3] = ["png", "jpg", "jpeg"];

/// Endings of pictures and volumes that cannot be read, and must not be passed over in silence.
const UNREAD: [&str; 27] = [
    "avif", "bmp", "dcm", "gif", "gz", "h5", "heic", "heif", "j2k", "jfif", "jp2", "jpe", "jxl",
    "mat", "mha", "nii", "npy", "npz", "nrrd", "pbm", "pgm", "pnm", "ppm", "tga", "tif", "tiff",
    "webp",
];

/// A picture in colour as it is shown.
pub(super) struct ColourPicture {
    /// Rows, columns.
    pub(super) shape: [usize; 2],
    /// Red, green and blue, each row-major.
    planes: [Vec<u8>; 3],
}

/// What lies in a folder and in the folders in it.
#[derive(Default)]
pub(super) struct Files {
    /// The pictures by their names without ending.
    pub(super) pictures: BTreeMap<String, PathBuf>,
    /// Files that are no pictures, and hidden ones.
    pub(super) passed_over: Vec<PathBuf>,
}

/// The pictures of a folder and of the folders in it, each folder once, however many links lead to it.
///
/// Refuses two pictures of one name, what looks like a picture but cannot be read as one, and names that
/// are no UTF-8.
pub(super) fn files(folder: &Path) -> Result<Files> {
    let cannot = |folder: &Path| format!("cannot list `{}`", folder.display());
    let (mut found, mut folders, mut seen) =
        (Files::default(), vec![folder.to_owned()], HashSet::new());
    while let Some(folder) = folders.pop() {
        let identity = std::fs::metadata(&folder).context(|| cannot(&folder))?;
        if !seen.insert((identity.dev(), identity.ino())) {
            continue;
        }
        for entry in std::fs::read_dir(&folder).context(|| cannot(&folder))? {
            let path = entry.context(|| cannot(&folder))?.path();
            if files::is_partial(&path) {
                continue;
            }
            // macOS leaves `._NAME.png` beside pictures that it copies, and programs keep folders of
            // their own; these are none.
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
                found.passed_over.push(path);
            } else if path.is_dir() {
                folders.push(path);
            } else {
                add(path, &mut found)?;
            }
        }
    }
    found.passed_over.sort_unstable();
    Ok(found)
}

fn add(path: PathBuf, files: &mut Files) -> Result<()> {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let is_picture = READ.contains(&ending.as_str());
    if !is_picture && (UNREAD.contains(&ending.as_str()) || begins_as_picture(&path)) {
        return Err(Failure::new(format!(
            "`{}` is not named as PNG or JPEG, expected 8-bit pictures of these kinds",
            path.display()
        ))
        .hint("turn it into PNG with the ending `.png`, or move it elsewhere"));
    }
    if !is_picture {
        files.passed_over.push(path);
        return Ok(());
    }
    let Some(name) = path.file_stem().and_then(|name| name.to_str()) else {
        return Err(Failure::new(format!(
            "the name of `{}` is no UTF-8, expected names that every system reads alike",
            path.display()
        ))
        .hint("rename it"));
    };
    match files.pictures.insert(name.to_owned(), path.clone()) {
        None => Ok(()),
        Some(other) => Err(Failure::new(format!(
            "`{}` and `{}` have the same name, expected one file of each",
            other.display(),
            path.display()
        ))),
    }
}

/// Whether the first bytes are those of a picture, whatever its name says.
fn begins_as_picture(path: &Path) -> bool {
    let mut bytes = Vec::new();
    let read = files::open(path).and_then(|file| file.take(32).read_to_end(&mut bytes));
    read.is_ok() && image::guess_format(&bytes).is_ok()
}

impl ColourPicture {
    /// Reads a PNG or JPEG file; grey becomes three equal colours.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let Scan { grid, voxels, .. } = scan::read(path, &Notes::default())?.into_colours();
        let [_, rows, columns] = grid.shape;
        if let Some(level) = voxels.iter().find(|&&level| level > 255.0) {
            return Err(Failure::new(format!(
                "`{}` has a pixel of level {level}, expected 8 bits for each colour",
                path.display()
            ))
            .hint("turn it into 8 bits, for example by `magick FILE -depth 8 FILE`"));
        }
        let plane = |channel: usize| {
            let levels = &voxels[channel * rows * columns..][..rows * columns];
            levels.iter().map(|&level| level as u8).collect()
        };
        Ok(Self { shape: [rows, columns], planes: [plane(0), plane(1), plane(2)] })
    }

    /// Red, green and blue of `size` x `size` pixels, one after the other.
    pub(super) fn resized(&self, size: usize) -> Vec<u8> {
        let planes = self.planes.iter();
        planes.flat_map(|plane| pillow::resize(plane, self.shape, [size; 2])).collect()
    }
}

/// Reads a mask of `size` x `size` pixels: 1 where the resized mask is brighter than half, else 0.
///
/// Masks that somebody resized by interpolation have values between 0 and 255. Refuses one of another
/// shape than `shape`, a coloured one, and one whose brightest value is dark but not 0, which is coded in
/// another way.
pub(super) fn read_mask(path: &Path, shape: [usize; 2], size: usize) -> Result<Vec<u8>> {
    let ColourPicture { shape: found, planes: [mask, green, blue] } = ColourPicture::read(path)?;
    if found != shape {
        return Err(Failure::new(format!(
            "`{}` has {} x {} pixels, expected {} x {} as its image has",
            path.display(),
            found[1],
            found[0],
            shape[1],
            shape[0]
        )));
    }
    let differs = (0..mask.len()).find(|&i| mask[i] != green[i] || mask[i] != blue[i]);
    if let Some(pixel) = differs {
        return Err(Failure::new(format!(
            "`{}` is coloured at row {}, column {}, expected a mask from 0, background, to 255, lesion",
            path.display(),
            pixel / shape[1],
            pixel % shape[1]
        )));
    }
    let brightest = mask.iter().copied().max().unwrap_or(0);
    if brightest > 0 && !is_lesion(brightest) {
        return Err(Failure::new(format!(
            "the brightest pixel of `{}` is {brightest}, expected a mask from 0, background, to 255, lesion",
            path.display()
        ))
        .hint("write lesions as 255, for example by multiplying a mask of 0 and 1 by 255"));
    }
    Ok(cut(&mask, shape, size))
}

/// A mask resized to `size` x `size` and cut at half: 1 lesion, 0 background.
pub(super) fn cut(mask: &[u8], shape: [usize; 2], size: usize) -> Vec<u8> {
    let resized = pillow::resize(mask, shape, [size; 2]);
    resized.into_iter().map(|level| u8::from(is_lesion(level))).collect()
}

fn is_lesion(level: u8) -> bool {
    level > 127
}
