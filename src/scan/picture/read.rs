//! PNG and JPEG files from disk as scans of one slice, in levels from 0 to 255.
//!
//! A picture lies as viewers show it. Where viewers would show different things, because part of it is
//! transparent or moves, it is refused. Knows file formats and their mistakes; what pictures show is for
//! others to say.

use super::metadata::{self, Metadata};
use crate::error::{Context, Failure, Result};
use crate::files;
use crate::limits::{EXTENT, PICTURE_BYTES, PICTURE_PIXELS};
use crate::scan::Scan;
use crate::scan::alignment::FileGrid;
use crate::scan::coding::Numbers;
use crate::scan::content::{open_file, pixels};
use crate::scan::grid::{Grid, place};
use crate::scan::notes::Notes;
use image::codecs::{jpeg::JpegDecoder, png::PngDecoder};
use image::error::{ImageFormatHint, LimitError, LimitErrorKind};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageResult, Limits};
use std::io::Cursor;
use std::path::Path;

/// Whether a file begins as PNG does.
pub(in crate::scan) fn is_png(start: &[u8]) -> bool {
    start.starts_with(metadata::PNG)
}

/// Whether a file begins as JPEG does.
pub(in crate::scan) fn is_jpeg(start: &[u8]) -> bool {
    start.starts_with(&[0xff, 0xd8, 0xff])
}

/// Reads a picture as one slice: one channel if it is stored in grey, else red, green and blue.
pub(in crate::scan) fn read(path: &Path, _notes: &Notes) -> Result<Scan> {
    let Shown { grid, planes } = PictureFile::open(path)?.shown()?;
    let voxels = planes.iter().flatten().map(|&level| f32::from(level)).collect();
    Ok(Scan { grid, channels: planes.len(), voxels })
}

/// Reads a picture whose grey levels are labels. Refuses one in colour.
pub(in crate::scan) fn read_numbers(path: &Path, _notes: &Notes) -> Result<Numbers> {
    let picture = PictureFile::open(path)?;
    let Shown { grid, planes } = picture.shown()?;
    let is_coloured = |pixel: &usize| planes.iter().any(|plane| plane[*pixel] != planes[0][*pixel]);
    if let Some(pixel) = (0..grid.pixels()).find(is_coloured) {
        return Err(Failure::new(format!(
            "`{}` is coloured {}, expected grey levels that are labels",
            path.display(),
            place(pixel, grid.shape)
        )));
    }
    let values = planes[0].iter().map(|&level| f64::from(level)).collect();
    Ok(Numbers { values, step: 0.0, file: picture.described(grid), segments: None })
}

/// Reads where the pixels of a picture lie.
pub(in crate::scan) fn read_grid(path: &Path, _notes: &Notes) -> Result<FileGrid> {
    let picture = PictureFile::open(path)?;
    let (columns, rows) = picture.dimensions().map_err(|error| picture.refusal(&error))?;
    let grid = match picture.said.orientation {
        Orientation::Rotate90
        | Orientation::Rotate270
        | Orientation::Rotate90FlipH
        | Orientation::Rotate270FlipH => grid(columns, rows),
        _ => grid(rows, columns),
    };
    Ok(picture.described(grid))
}

fn grid(rows: u32, columns: u32) -> Grid {
    Grid::unplaced([1, rows as usize, columns as usize], None)
}

/// The levels of a picture as viewers show it.
struct Shown {
    grid: Grid,
    /// Grey, or red, green and blue, each row-major.
    planes: Vec<Vec<u8>>,
}

/// The bytes of a picture that can be shown in one way.
struct PictureFile<'a> {
    path: &'a Path,
    bytes: Vec<u8>,
    format: ImageFormat,
    said: Metadata,
}

impl<'a> PictureFile<'a> {
    /// Refuses a picture that is animated or that viewers would turn in different ways.
    fn open(path: &'a Path) -> Result<Self> {
        let shown = path.display();
        // First as any file, whose errors are told apart.
        drop(open_file(path)?);
        let bytes = files::read_at_most(path, PICTURE_BYTES)
            .context(|| format!("cannot read `{shown}`"))?;
        let format = image::guess_format(&bytes).context(|| cannot(path))?;
        if format == ImageFormat::Jpeg && ends_early(&bytes) {
            return Err(Failure::new("the file ends before its image does").during(cannot(path)));
        }
        let said = metadata::read(&bytes);
        if said.is_animated {
            return Err(Failure::new(format!("`{shown}` is animated, expected one picture"))
                .hint("save the frame that is meant as a picture of its own"));
        }
        if said.viewers_differ {
            return Err(Failure::new(format!(
                "`{shown}` says how it is to be turned in a way that not all viewers understand"
            ))
            .hint(
                "turn its pixels for good, for example by `magick FILE -auto-orient -strip FILE`",
            ));
        }
        Ok(Self { path, bytes, format, said })
    }

    /// The picture, turned as its orientation says.
    ///
    /// Refuses one of more than [`PICTURE_PIXELS`] before memory is taken for it, one in which anything is
    /// transparent, and pixels of more than 8 bits.
    fn shown(&self) -> Result<Shown> {
        let mut decoded = self.decoded().map_err(|error| self.refusal(&error))?;
        decoded.apply_orientation(self.said.orientation);
        self.check_pixels(&decoded)?;
        let grid = grid(decoded.height(), decoded.width());
        if let DynamicImage::ImageLuma8(_) | DynamicImage::ImageLumaA8(_) = decoded {
            return Ok(Shown { grid, planes: vec![decoded.into_luma8().into_raw()] });
        }
        let colours = decoded.into_rgb8();
        let plane = |channel: usize| colours.pixels().map(|pixel| pixel.0[channel]).collect();
        Ok(Shown { grid, planes: (0..3).map(plane).collect() })
    }

    fn decoded(&self) -> ImageResult<DynamicImage> {
        let mut limits = Limits::no_limits();
        limits.max_image_width = Some(EXTENT as u32);
        limits.max_image_height = Some(EXTENT as u32);
        // Four bytes for each pixel, and what decoders keep beside them.
        limits.max_alloc = Some(8 * PICTURE_PIXELS as u64);
        match self.format {
            ImageFormat::Png => {
                decode(PngDecoder::with_limits(Cursor::new(&self.bytes), limits.clone())?, limits)
            }
            ImageFormat::Jpeg => decode(JpegDecoder::new(Cursor::new(&self.bytes))?, limits),
            other => Err(ImageError::Unsupported(ImageFormatHint::Exact(other).into())),
        }
    }

    /// Columns and rows as stored.
    fn dimensions(&self) -> ImageResult<(u32, u32)> {
        match self.format {
            ImageFormat::Png => dimensions(&PngDecoder::new(Cursor::new(&self.bytes))?),
            ImageFormat::Jpeg => dimensions(&JpegDecoder::new(Cursor::new(&self.bytes))?),
            other => Err(ImageError::Unsupported(ImageFormatHint::Exact(other).into())),
        }
    }

    fn refusal(&self, error: &ImageError) -> Failure {
        let shown = self.path.display();
        let what = match error {
            ImageError::Limits(_) => format!(
                "`{shown}` is too large, expected at most {EXTENT} rows and columns and {PICTURE_PIXELS} pixels"
            ),
            ImageError::Unsupported(_) => {
                format!("`{shown}` is neither PNG nor JPEG of a common kind")
            }
            _ => cannot(self.path),
        };
        Failure::new(what).because(error)
    }

    /// Refuses pixels of more than 8 bits, and transparent ones.
    fn check_pixels(&self, decoded: &DynamicImage) -> Result<()> {
        let shown = self.path.display();
        let transparent = match decoded {
            DynamicImage::ImageLuma8(_) | DynamicImage::ImageRgb8(_) => None,
            DynamicImage::ImageLumaA8(grey) => grey.pixels().position(|pixel| pixel.0[1] < u8::MAX),
            DynamicImage::ImageRgba8(colour) => {
                colour.pixels().position(|pixel| pixel.0[3] < u8::MAX)
            }
            _ => {
                return Err(Failure::new(format!(
                    "`{shown}` has pixels of type {:?}, expected 8 bits for each colour",
                    decoded.color()
                ))
                .hint("turn it into 8 bits, for example by `magick FILE -depth 8 FILE`"));
            }
        };
        let Some(pixel) = transparent else { return Ok(()) };
        let columns = (decoded.width() as usize).max(1);
        Err(Failure::new(format!(
            "`{shown}` is transparent at row {}, column {}, where each viewer shows something else",
            pixel / columns,
            pixel % columns
        ))
        .hint(
            "fill what lies behind, for example by `magick FILE -background black -alpha remove FILE`",
        ))
    }

    fn described(&self, grid: Grid) -> FileGrid {
        let name = format!("`{}`", self.path.display());
        FileGrid { grid, name, otherwise: None, unit_mm: None }
    }
}

fn cannot(path: &Path) -> String {
    format!("cannot read `{}` as PNG or JPEG, expected a whole file", path.display())
}

/// Columns and rows, refused where they are more than anybody has.
fn dimensions(decoder: &impl ImageDecoder) -> ImageResult<(u32, u32)> {
    let (columns, rows) = decoder.dimensions();
    if pixels([rows as usize, columns as usize]).is_none() {
        return Err(ImageError::Limits(LimitError::from_kind(LimitErrorKind::DimensionError)));
    }
    Ok((columns, rows))
}

fn decode(mut decoder: impl ImageDecoder, limits: Limits) -> ImageResult<DynamicImage> {
    dimensions(&decoder)?;
    decoder.set_limits(limits)?;
    DynamicImage::from_decoder(decoder)
}

/// Whether the last scan of a JPEG file has no end: the decoder would make up the rest in grey.
fn ends_early(bytes: &[u8]) -> bool {
    let last = |marker: [u8; 2]| bytes.windows(2).rposition(|pair| pair == marker);
    last([0xff, 0xd9]) <= last([0xff, 0xda])
}
