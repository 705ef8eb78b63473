//! What a file of DICOM says of its image before pixels are read.
//!
//! Knows which elements every image has; where slices lie and how pixels are stored others know.

use super::file::Loaded;
use super::pixels::PixelForm;
use super::plane::Plane;
use super::tags::{FRAMES, ROWS, SERIES, SERIES_DESCRIPTION};
use crate::error::{Failure, Result};
use crate::limits::EXTENT;
use std::path::{Path, PathBuf};

/// What a file says of its image.
pub(super) struct Image {
    pub(super) path: PathBuf,
    /// What the file is called in messages.
    pub(super) name: String,
    /// Which series it belongs to.
    pub(super) series: String,
    /// What people call the series.
    pub(super) description: String,
    pub(super) form: PixelForm,
    /// Its frames in the order of the file.
    pub(super) frames: Vec<Plane>,
}

impl Image {
    /// Reads a file that begins as DICOM does; nothing where it holds something else than an image.
    pub(super) fn open(path: &Path) -> Result<Option<Self>> {
        let loaded = Loaded::open(path)?;
        let data = loaded.data()?;
        if data.short(ROWS).is_none() {
            return Ok(None);
        }
        let name = loaded.name.clone();
        let frames = match data.text(FRAMES).filter(|text| !text.is_empty()) {
            None => 1,
            Some(text) => {
                let count = text.parse().ok().filter(|count| (1..=EXTENT).contains(count));
                count.ok_or_else(|| {
                    Failure::new(format!("{name} has `{text}` frames, expected 1 to {EXTENT}"))
                })?
            }
        };
        Ok(Some(Self {
            path: path.to_owned(),
            series: data.text(SERIES).unwrap_or_default(),
            description: data.text(SERIES_DESCRIPTION).unwrap_or_default(),
            form: PixelForm::of(&data, &name)?,
            frames: (0..frames).map(|frame| Plane::of(&data, frame)).collect(),
            name,
        }))
    }
}
