//! 8-bit pictures from disk: PNG and JPEG as planes, masks as one plane, each resized like Pillow.
//!
//! Knows file formats and their mistakes; what pictures show is for the sources to say.

use crate::data::augment::pillow;
use crate::error::{Context, Failure, Result};
use image::{DynamicImage, ImageFormat};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Endings of the names of files that are read.
const READ: [&str; 3] = ["png", "jpg", "jpeg"];

/// Endings of pictures that cannot be read, and must not be passed over in silence.
const UNREAD: [&str; 8] = ["bmp", "gif", "pgm", "ppm", "tif", "tiff", "webp", "dcm"];

/// A picture as it is stored.
pub(super) struct Picture {
    /// Rows, columns.
    pub(super) shape: [usize; 2],
    /// Red, green and blue, each row-major.
    planes: [Vec<u8>; 3],
}

/// The pictures of a folder and of the folders in it, by their names without ending.
pub(super) fn files(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let cannot = || format!("cannot list `{}`", folder.display());
    let (mut files, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).context(cannot)? {
            let path = entry.context(cannot)?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                add(&path, &mut files)?;
            }
        }
    }
    Ok(files)
}

fn add(path: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let word =
        |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str().map(String::from));
    let (Some(name), Some(ending)) = (word(path.file_stem()), word(path.extension())) else {
        return Ok(());
    };
    let ending = ending.to_lowercase();
    if UNREAD.contains(&ending.as_str()) {
        return Err(Failure::new(format!(
            "`{}` is neither PNG nor JPEG, expected 8-bit pictures of these kinds",
            path.display()
        ))
        .hint("turn it into PNG, or remove it"));
    }
    // macOS leaves `._NAME.png` beside pictures that it copies; these are none.
    if !READ.contains(&ending.as_str()) || name.starts_with('.') {
        return Ok(());
    }
    match files.insert(name, path.to_owned()) {
        None => Ok(()),
        Some(other) => Err(Failure::new(format!(
            "`{}` and `{}` have the same name, expected one file of each",
            other.display(),
            path.display()
        ))),
    }
}

/// Reads a PNG or JPEG file of 8 bits in colour or grey; transparency is left out.
pub(super) fn read(path: &Path) -> Result<Picture> {
    let cannot =
        || format!("cannot read `{}` as PNG or JPEG, expected a whole file", path.display());
    let bytes = std::fs::read(path).context(cannot)?;
    let format = image::guess_format(&bytes).context(cannot)?;
    if format == ImageFormat::Jpeg && ends_early(&bytes) {
        return Err(Failure::new("the file ends before its image does").during(cannot()));
    }
    let decoded = image::load_from_memory_with_format(&bytes, format).context(cannot)?;
    let eight_bit = matches!(
        decoded,
        DynamicImage::ImageLuma8(_)
            | DynamicImage::ImageLumaA8(_)
            | DynamicImage::ImageRgb8(_)
            | DynamicImage::ImageRgba8(_)
    );
    if !eight_bit {
        return Err(Failure::new(format!(
            "`{}` has pixels of type {:?}, expected 8 bits for each colour",
            path.display(),
            decoded.color()
        )));
    }
    let colours = decoded.into_rgb8();
    let shape = [colours.height() as usize, colours.width() as usize];
    let plane = |channel: usize| colours.pixels().map(|pixel| pixel.0[channel]).collect();
    Ok(Picture { shape, planes: [plane(0), plane(1), plane(2)] })
}

/// Whether the last scan of a JPEG file has no end: the decoder would make up the rest in grey.
fn ends_early(bytes: &[u8]) -> bool {
    let last = |marker: [u8; 2]| bytes.windows(2).rposition(|pair| pair == marker);
    last([0xff, 0xd9]) <= last([0xff, 0xda])
}

impl Picture {
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
    let Picture { shape: found, planes: [mask, green, blue] } = read(path)?;
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
