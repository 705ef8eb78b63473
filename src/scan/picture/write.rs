//! Labels as pictures: PNG of 8 bits in grey, whose levels are the classes.
//!
//! The picture lies as viewers show the one that it belongs to, and says nothing of turning.

use crate::error::{Context, Result};
use crate::files::FreshFile;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use std::io::{BufWriter, IntoInnerError, Write};
use std::path::Path;

/// Writes labels `[rows, columns]`; the file is on the disk when this returns.
pub(in crate::scan) fn write_labels(path: &Path, shape: [usize; 2], labels: &[u8]) -> Result<()> {
    let cannot = || format!("cannot write `{}`", path.display());
    let mut file = BufWriter::new(FreshFile::beside(path).context(cannot)?);
    let [rows, columns] = shape.map(|extent| extent as u32);
    PngEncoder::new(&mut file)
        .write_image(labels, columns, rows, ExtendedColorType::L8)
        .context(cannot)?;
    file.flush().context(cannot)?;
    let file = file.into_inner().map_err(IntoInnerError::into_error).context(cannot)?;
    file.take_place_durably().context(cannot)
}
