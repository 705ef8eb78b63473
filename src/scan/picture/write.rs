//! Pictures: PNG of 8 bits, labels in grey, whose levels are the classes, and images in grey or in colour.
//!
//! Labels lie as viewers show the picture that they belong to; nothing is said of turning.

use crate::error::{Context, Failure, Result};
use crate::files::FreshFile;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use std::io::{BufWriter, IntoInnerError, Write};
use std::path::Path;

/// Writes labels `[rows, columns]`; the file is on the disk when this returns.
pub(in crate::scan) fn write_labels(path: &Path, shape: [usize; 2], labels: &[u8]) -> Result<()> {
    write(path, shape, labels, ExtendedColorType::L8)
}

/// Writes a picture as PNG: `levels` are those of one pixel after the other, `[rows, columns]` of grey or
/// `[rows, columns, 3]` of red, green and blue. The file is on the disk when this returns. Refuses another number of
/// levels.
pub fn write_picture(path: &Path, shape: [usize; 2], levels: &[u8]) -> Result<()> {
    let pixels = shape[0] * shape[1];
    let kind = match levels.len() {
        count if count == pixels => ExtendedColorType::L8,
        count if count == 3 * pixels => ExtendedColorType::Rgb8,
        count => {
            return Err(Failure::new(format!(
                "there are {count} levels for the {pixels} pixels of `{}`, expected one or three for each",
                path.display()
            )));
        }
    };
    write(path, shape, levels, kind)
}

fn write(path: &Path, shape: [usize; 2], levels: &[u8], kind: ExtendedColorType) -> Result<()> {
    let cannot = || format!("cannot write `{}`", path.display());
    let mut file = BufWriter::new(FreshFile::beside(path).context(cannot)?);
    let [rows, columns] = shape.map(|extent| extent as u32);
    PngEncoder::new(&mut file).write_image(levels, columns, rows, kind).context(cannot)?;
    file.flush().context(cannot)?;
    let file = file.into_inner().map_err(IntoInnerError::into_error).context(cannot)?;
    file.take_place_durably().context(cannot)
}
