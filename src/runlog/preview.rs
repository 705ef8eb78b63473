//! Small pictures of held-out cases, in `RUN/previews/step-NNNNNNNN/WHICH-CASE.png`.
//!
//! A picture is a grey 8-bit PNG that any program opens. Slices are stacked from top to bottom; from
//! left to right stand four squares: the image (0 to 255), the annotation, the prediction and the
//! truth, whose grey value is the number of the class, 255 where nobody annotated; behind them squares
//! of what a method makes beside, whose names are in the PNG's text `made`. They are grey, but for those
//! whose names the text `classes` repeats: these hold numbers of classes. The text `annotation` says where the
//! annotation is no class of single pixels: `levels=N` where it counts levels of gaze, `slices` where it is one class
//! all over a slice. How all are coloured and shown is decided by whoever reads them.

use super::directory::{make_folder, plain_name};
use crate::error::{Context, Failure, Result};
use crate::files::{self, FreshFile};
use crate::limits::PREVIEW_SLICES;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

/// Squares beside each other: image, annotation, prediction, truth.
const PLANES: usize = 4;
/// The key of the text that names the further squares, separated by commas.
const MADE: &str = "made";
/// The key of the text that names those of them that hold classes.
const CLASSES: &str = "classes";
/// The key of the text that says what the annotation is.
const ANNOTATION: &str = "annotation";
/// Rows and columns of a slice at most; larger ones are thinned out.
pub const LARGEST: usize = 128;
/// Squares beside each other at most, those of what a method makes included.
const MOST_PLANES: usize = 16;
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
    /// What its values are.
    pub annotated: Annotated,
    /// Predicted classes.
    pub prediction: Vec<u8>,
    /// True classes.
    pub truth: Vec<u8>,
    /// What the method makes beside its prediction.
    pub made: Vec<MadeSquares>,
}

/// What the values of an annotation are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Annotated {
    /// Classes of pixels.
    #[default]
    Pixels,
    /// How many of so many levels a pixel reaches, 0 for none.
    Levels(u8),
    /// Classes of slices, the same in all of their pixels.
    Slices,
}

impl Annotated {
    /// As the text of a picture; none for pixels.
    fn written(self) -> String {
        match self {
            Self::Pixels => String::new(),
            Self::Levels(count) => format!("levels={count}"),
            Self::Slices => "slices".to_owned(),
        }
    }

    /// What a text says; pixels where it says something else.
    fn read(text: &str) -> Self {
        let levels = text.strip_prefix("levels=").and_then(|count| count.parse().ok());
        match levels {
            Some(count) => Self::Levels(count),
            None if text == "slices" => Self::Slices,
            None => Self::Pixels,
        }
    }
}

/// A further square of every slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeSquares {
    /// What it shows; has no comma.
    pub name: String,
    /// What its values are.
    pub values: Values,
    /// `[slices, size, size]`.
    pub plane: Vec<u8>,
}

/// What the values of a square are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Levels of grey, 0 to 255.
    Greys,
    /// Classes, [`UNANNOTATED`] where there is none.
    Classes,
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

    /// One slice of what the method made beside: `size * size` values, and what they are.
    pub fn made_slice(&self, slice: usize) -> impl Iterator<Item = (Values, &[u8])> {
        let count = self.size * self.size;
        self.made.iter().filter_map(move |made| {
            Some((made.values, made.plane.get(slice * count..(slice + 1) * count)?))
        })
    }

    /// Leaves every n-th row and column where slices are larger than [`LARGEST`], and every n-th slice
    /// where there are more than [`PREVIEW_SLICES`].
    #[must_use]
    pub fn thinned(self) -> Self {
        let by = self.size.div_ceil(LARGEST);
        let slices_by = self.slices().div_ceil(PREVIEW_SLICES);
        if by < 2 && slices_by < 2 {
            return self;
        }
        let (old, size) = (self.size, self.size.div_ceil(by));
        let thin = |plane: Vec<u8>| -> Vec<u8> {
            let slices = plane.chunks_exact(old * old).step_by(slices_by.max(1));
            let rows = slices.flat_map(|slice| slice.chunks_exact(old).step_by(by));
            rows.flat_map(|row| row.iter().step_by(by).copied()).collect()
        };
        Self {
            size,
            image: thin(self.image),
            annotation: thin(self.annotation),
            annotated: self.annotated,
            prediction: thin(self.prediction),
            truth: thin(self.truth),
            made: self
                .made
                .into_iter()
                .map(|made| MadeSquares { plane: thin(made.plane), ..made })
                .collect(),
        }
    }

    /// Writes the picture whole or not at all, and the folders `previews/step-NNNNNNNN` where they are
    /// missing.
    pub fn write(&self, path: &Path) -> Result<()> {
        let doing = || format!("cannot write the preview `{}`", path.display());
        if let Some(folder) = path.parent() {
            folder.parent().map_or(Ok(()), make_folder).context(doing)?;
            make_folder(folder).context(doing)?;
        }
        let mut fresh = FreshFile::beside(path).context(doing)?;
        let mut file = BufWriter::new(&mut fresh);
        self.encode(&mut file).context(doing)?;
        file.flush().context(doing)?;
        drop(file);
        fresh.take_place().context(doing)
    }

    fn encode(&self, file: impl Write) -> std::result::Result<(), png::EncodingError> {
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
        let (width, height) = (planes * self.size, slices * self.size);
        let mut encoder = png::Encoder::new(file, width as u32, height as u32);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        let classes = self.made.iter().filter(|made| made.values == Values::Classes);
        let texts = [
            (MADE, names(self.made.iter())),
            (CLASSES, names(classes)),
            (ANNOTATION, self.annotated.written()),
        ];
        for (key, text) in texts {
            if !text.is_empty() {
                encoder.add_text_chunk(key.to_owned(), text)?;
            }
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&pixels)?;
        writer.finish()
    }

    /// Reads a picture. Refuses what [`Preview::write`] cannot have written, before it takes memory for it.
    pub fn read(path: &Path) -> Result<Self> {
        let doing = || format!("cannot read the preview `{}`", path.display());
        let decoder = png::Decoder::new(BufReader::new(files::open(path).context(doing)?));
        let mut reader = decoder.read_info().context(doing)?;
        let (width, height) = (reader.info().width as usize, reader.info().height as usize);
        let text = |key: &str| {
            let texts = &reader.info().uncompressed_latin1_text;
            texts.iter().find(|text| text.keyword == key).map_or("", |text| &text.text)
        };
        let annotated = Annotated::read(text(ANNOTATION));
        let [made, of_classes] = [MADE, CLASSES].map(|key| {
            text(key).split(',').filter(|name| !name.is_empty()).map(plain_name).collect::<Vec<_>>()
        });
        let planes = PLANES + made.len();
        let size = width / planes;
        let is_grey =
            reader.output_color_type() == (png::ColorType::Grayscale, png::BitDepth::Eight);
        let is_whole = size > 0 && width % planes == 0 && height % size == 0;
        let is_small = size <= LARGEST && planes <= MOST_PLANES && height <= size * PREVIEW_SLICES;
        if !is_grey || !is_whole || !is_small {
            return Err(Failure::new(doing()).hint(format!(
                "expected a grey 8-bit PNG of {planes} squares of at most {LARGEST} columns beside each \
                 other and at most {PREVIEW_SLICES} below, found {width} x {height} pixels"
            )));
        }
        let mut pixels = vec![0; width * height];
        reader.next_frame(&mut pixels).context(doing)?;
        let of_name = |name: String, plane| {
            let holds_classes = of_classes.contains(&name);
            let values = if holds_classes { Values::Classes } else { Values::Greys };
            MadeSquares { name, values, plane }
        };
        let plane = |index: usize| -> Vec<u8> {
            let rows = pixels.chunks_exact(width);
            rows.flat_map(|row| &row[index * size..(index + 1) * size]).copied().collect()
        };
        Ok(Self {
            size,
            image: plane(0),
            annotation: plane(1),
            annotated,
            prediction: plane(2),
            truth: plane(3),
            made: made
                .into_iter()
                .zip(PLANES..)
                .map(|(name, at)| of_name(name, plane(at)))
                .collect(),
        })
    }
}

/// Names of squares, separated by commas.
fn names<'a>(made: impl Iterator<Item = &'a MadeSquares>) -> String {
    made.map(|made| made.name.as_str()).collect::<Vec<_>>().join(",")
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
            annotated: Annotated::Pixels,
            prediction: plane(2),
            truth: plane(3),
            made: Vec::new(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("previews/step-00000100/worst-a.png");
        let mut written = preview(32, 3);
        written.write(&path).unwrap();
        let read = Preview::read(&path).unwrap();
        assert_eq!(read, written);
        assert_eq!((read.slices(), read.slice(3)), (3, None));
        let plane: Vec<u8> = written.image.iter().map(|value| 255 - value).collect();
        let made = |name: &str, values| {
            let (name, plane) = (name.to_owned(), plane.clone());
            MadeSquares { name, values, plane }
        };
        written.made = vec![made("mixed", Values::Greys), made("label", Values::Classes)];
        for annotated in [Annotated::Levels(3), Annotated::Slices, Annotated::Pixels] {
            written.annotated = annotated;
            written.write(&path).unwrap();
            assert_eq!(Preview::read(&path).unwrap(), written);
        }
        assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 1);
        // Of a run directory that is gone nothing comes back.
        let gone = folder.path().join("run/previews/step-00000100/worst-a.png");
        assert!(written.write(&gone).is_err() && !folder.path().join("run").exists());
    }

    #[test]
    fn large_slices_are_thinned() {
        let thin = preview(256, 2).thinned();
        assert_eq!((thin.size, thin.slices()), (128, 2));
        assert_eq!(thin.slice(0).unwrap()[0][128], preview(256, 1).image[512]);
        let thin = preview(2, 2 * PREVIEW_SLICES + 1).thinned();
        assert_eq!((thin.size, thin.slices()), (2, (2 * PREVIEW_SLICES + 1).div_ceil(3)));
        assert_eq!(thin.slice(1).unwrap()[0], &preview(2, 4).image[12..]);
    }

    /// A few hundred bytes that promise terabytes of pixels.
    #[test]
    fn a_picture_that_is_too_large_is_refused_before_memory_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let row_too_many = (PREVIEW_SLICES + 1) as u32 * 128;
        for (width, height) in [(512, 2_000_000_000), (512, row_too_many), (4 << 20, 1 << 20)] {
            let file = std::fs::File::create(&path).unwrap();
            let mut encoder = png::Encoder::new(file, width, height);
            encoder.set_color(png::ColorType::Grayscale);
            encoder.set_depth(png::BitDepth::Eight);
            let mut writer = encoder.write_header().unwrap();
            writer.write_chunk(png::chunk::IDAT, &[0x78, 0x9c]).unwrap();
            // Its last chunk is missing, and nobody gets so far.
            std::mem::forget(writer);
            let failure = Preview::read(&path).unwrap_err();
            assert!(failure.to_string().contains("expected a grey 8-bit PNG"), "{failure}");
        }
    }

    #[test]
    fn what_is_no_preview_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        std::fs::write(&path, "no picture").unwrap();
        assert!(Preview::read(&path).unwrap_err().message().starts_with("cannot read the preview"));
    }
}
