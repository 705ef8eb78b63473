//! Small pictures of held-out cases, in `RUN/previews/step-NNNNNNNN/WHICH-CASE.png`.
//!
//! A picture is a grey 8-bit PNG that any program opens. Slices are stacked from top to bottom; from
//! left to right stand four squares: the image (0 to 255), the annotation, the prediction and the
//! truth, whose grey value is the number of the class, 255 where nobody annotated; behind them grey
//! squares of what a method makes beside, whose names are in the PNG's text `made`. How they are
//! coloured and shown is decided by whoever reads them.

use crate::error::{Context, Failure, Result};
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

/// Squares beside each other: image, annotation, prediction, truth.
const PLANES: usize = 4;
/// The key of the text that names the further squares, separated by commas.
const MADE: &str = "made";
/// Rows and columns of a slice at most; larger ones are thinned out.
pub const LARGEST: usize = 128;
/// The value of pixels that nobody annotated.
pub const UNANNOTATED: u8 = 255;

/// Slices of a case with what was annotated, predicted and true; each plane is
/// `[slices, size, size]` in row-major order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Rows and columns of a slice.
    pub size: usize,
    /// Intensities, 0 to 255.
    pub image: Vec<u8>,
    /// Classes as annotated, [`UNANNOTATED`] elsewhere.
    pub annotation: Vec<u8>,
    /// Predicted classes.
    pub prediction: Vec<u8>,
    /// True classes.
    pub truth: Vec<u8>,
    /// Images that the method makes beside its prediction, by name, 0 to 255.
    pub made: Vec<(String, Vec<u8>)>,
}

impl Preview {
    /// How many slices there are.
    pub fn slices(&self) -> usize {
        self.image.len() / (self.size * self.size).max(1)
    }

    /// One slice of each plane: image, annotation, prediction, truth, each `size * size` values;
    /// `None` where there is no such slice.
    pub fn slice(&self, slice: usize) -> Option<[&[u8]; PLANES]> {
        let count = self.size * self.size;
        let range = slice * count..(slice + 1) * count;
        let part = |plane: &'_ Vec<u8>| plane.get(range.clone()).is_some();
        let planes = [&self.image, &self.annotation, &self.prediction, &self.truth];
        planes.into_iter().all(part).then(|| planes.map(|plane| &plane[range.clone()]))
    }

    /// One slice of what the method made beside, by name.
    pub fn made_slice(&self, slice: usize) -> impl Iterator<Item = (&str, &[u8])> {
        let count = self.size * self.size;
        self.made.iter().filter_map(move |(name, plane)| {
            Some((name.as_str(), plane.get(slice * count..(slice + 1) * count)?))
        })
    }

    /// Leaves every n-th row and column where slices are larger than [`LARGEST`].
    #[must_use]
    pub fn thinned(self) -> Self {
        let by = self.size.div_ceil(LARGEST);
        if by < 2 {
            return self;
        }
        let (old, size) = (self.size, self.size.div_ceil(by));
        let thin = |plane: Vec<u8>| -> Vec<u8> {
            let rows =
                plane.chunks_exact(old * old).flat_map(|slice| slice.chunks_exact(old).step_by(by));
            rows.flat_map(|row| row.iter().step_by(by).copied()).collect()
        };
        Self {
            size,
            image: thin(self.image),
            annotation: thin(self.annotation),
            prediction: thin(self.prediction),
            truth: thin(self.truth),
            made: self.made.into_iter().map(|(name, plane)| (name, thin(plane))).collect(),
        }
    }

    /// Writes the picture, and the folder where it is missing.
    pub fn write(&self, path: &Path) -> Result<()> {
        let doing = || format!("cannot write the preview `{}`", path.display());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).context(doing)?;
        }
        let slices = self.slices();
        let planes = PLANES + self.made.len();
        let mut pixels = Vec::with_capacity(planes * self.image.len());
        for (slice, own) in (0..slices).filter_map(|slice| Some((slice, self.slice(slice)?))) {
            for row in 0..self.size {
                for plane in own.into_iter().chain(self.made_slice(slice).map(|(_, made)| made)) {
                    pixels.extend_from_slice(&plane[row * self.size..(row + 1) * self.size]);
                }
            }
        }
        let file = BufWriter::new(File::create(path).context(doing)?);
        let (width, height) = (planes * self.size, slices * self.size);
        let mut encoder = png::Encoder::new(file, width as u32, height as u32);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        let names: Vec<&str> = self.made.iter().map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            encoder.add_text_chunk(MADE.to_owned(), names.join(",")).context(doing)?;
        }
        let mut writer = encoder.write_header().context(doing)?;
        writer.write_image_data(&pixels).context(doing)?;
        writer.finish().context(doing)
    }

    /// Reads a picture. Refuses what [`Preview::write`] cannot have written.
    pub fn read(path: &Path) -> Result<Self> {
        let doing = || format!("cannot read the preview `{}`", path.display());
        let decoder = png::Decoder::new(BufReader::new(File::open(path).context(doing)?));
        let mut reader = decoder.read_info().context(doing)?;
        let (width, height) = (reader.info().width as usize, reader.info().height as usize);
        let made = &reader.info().uncompressed_latin1_text;
        let made = made.iter().find(|text| text.keyword == MADE).map_or("", |text| &text.text);
        let made: Vec<String> =
            made.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let planes = PLANES + made.len();
        let size = width / planes;
        let is_grey =
            reader.output_color_type() == (png::ColorType::Grayscale, png::BitDepth::Eight);
        let is_whole = size > 0 && width % planes == 0 && height % size == 0 && size <= LARGEST;
        if !is_grey || !is_whole {
            return Err(Failure::new(doing()).hint(format!(
                "expected a grey 8-bit PNG of {planes} squares of at most {LARGEST} columns beside each \
                 other, found {width} x {height} pixels"
            )));
        }
        let mut pixels = vec![0; width * height];
        reader.next_frame(&mut pixels).context(doing)?;
        let plane = |index: usize| -> Vec<u8> {
            let rows = pixels.chunks_exact(width);
            rows.flat_map(|row| &row[index * size..(index + 1) * size]).copied().collect()
        };
        Ok(Self {
            size,
            image: plane(0),
            annotation: plane(1),
            prediction: plane(2),
            truth: plane(3),
            made: made.into_iter().zip(PLANES..).map(|(name, at)| (name, plane(at))).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preview(size: usize, slices: usize) -> Preview {
        let plane = |offset: usize| -> Vec<u8> {
            (0..slices * size * size).map(|index| (index * 7 + offset) as u8).collect()
        };
        Preview {
            size,
            image: plane(0),
            annotation: plane(1),
            prediction: plane(2),
            truth: plane(3),
            made: Vec::new(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step-00000100/worst-a.png");
        let mut written = preview(32, 3);
        written.write(&path).unwrap();
        let read = Preview::read(&path).unwrap();
        assert_eq!(read, written);
        assert_eq!((read.slices(), read.slice(3)), (3, None));
        let plane: Vec<u8> = written.image.iter().map(|value| 255 - value).collect();
        written.made = vec![("mask".to_owned(), plane.clone()), ("painted".to_owned(), plane)];
        written.write(&path).unwrap();
        assert_eq!(Preview::read(&path).unwrap(), written);
    }

    #[test]
    fn large_slices_are_thinned() {
        let thin = preview(256, 2).thinned();
        assert_eq!((thin.size, thin.slices()), (128, 2));
        assert_eq!(thin.slice(0).unwrap()[0][128], preview(256, 1).image[512]);
    }

    #[test]
    fn what_is_no_preview_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        std::fs::write(&path, "no picture").unwrap();
        assert!(Preview::read(&path).unwrap_err().message().starts_with("cannot read the preview"));
    }
}
