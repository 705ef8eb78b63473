//! PNG, JPEG and BMP files from disk as scans of one slice, in levels as stored: 0 to 255, or to 65535.
//!
//! A picture lies as viewers show it. Where viewers would show different things, because part of it is
//! transparent or moves, it is refused. Knows file formats and their mistakes; what pictures show is for
//! others to say.

use super::metadata::{self, Metadata};
use super::palette;
use crate::error::{Context, Failure, Result};
use crate::files;
use crate::limits::{EXTENT, PICTURE_BYTES, PICTURE_PIXELS};
use crate::scan::Scan;
use crate::scan::alignment::FileGrid;
use crate::scan::coding::Numbers;
use crate::scan::content::{open_file, pixels};
use crate::scan::grid::{Grid, place};
use crate::scan::notes::Notes;
use image::codecs::{bmp::BmpDecoder, jpeg::JpegDecoder, png::PngDecoder};
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

/// Whether a file begins as BMP does: its mark, and behind its length four zeros.
pub(in crate::scan) fn is_bmp(start: &[u8]) -> bool {
    start.starts_with(b"BM") && start.get(6..10) == Some(&[0; 4])
}

/// Reads a picture as one slice: one channel if it is stored in grey, else red, green and blue.
pub(in crate::scan) fn read(path: &Path, _notes: &Notes) -> Result<Scan> {
    let Shown { grid, planes } = PictureFile::open(path)?.shown()?;
    let channels = planes.len();
    let voxels = planes.into_iter().flatten().map(f32::from).collect();
    Ok(Scan { grid, channels, voxels })
}

/// Reads a picture whose grey levels are labels; where a palette has colours, its numbers are. Refuses another one in
/// colour.
pub(in crate::scan) fn read_numbers(path: &Path, _notes: &Notes) -> Result<Numbers> {
    let picture = PictureFile::open(path)?;
    let Shown { grid, mut planes } = picture.shown()?;
    let is_grey = planes.iter().all(|plane| *plane == planes[0]);
    if !is_grey && let Some(numbers) = picture.palette_numbers() {
        planes = vec![numbers];
    }
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
    planes: Vec<Vec<u16>>,
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
    /// transparent, and pixels that are floats.
    fn shown(&self) -> Result<Shown> {
        let mut decoded = self.decoded().map_err(|error| self.refusal(&error))?;
        decoded.apply_orientation(self.said.orientation);
        self.check_pixels(&decoded)?;
        let grid = grid(decoded.height(), decoded.width());
        let wide = |levels: Vec<u8>| levels.into_iter().map(u16::from).collect();
        let planes = match decoded {
            DynamicImage::ImageLuma8(_) | DynamicImage::ImageLumaA8(_) => {
                vec![wide(decoded.into_luma8().into_raw())]
            }
            DynamicImage::ImageLuma16(_) | DynamicImage::ImageLumaA16(_) => {
                vec![decoded.into_luma16().into_raw()]
            }
            DynamicImage::ImageRgb16(_) | DynamicImage::ImageRgba16(_) => {
                let colours = decoded.into_rgb16();
                let plane =
                    |channel: usize| colours.pixels().map(|pixel| pixel.0[channel]).collect();
                (0..3).map(plane).collect()
            }
            _ => {
                let colours = decoded.into_rgb8();
                let plane =
                    |channel: usize| colours.pixels().map(|pixel| pixel.0[channel]).collect();
                let planes: Vec<Vec<u16>> = (0..3).map(|channel| wide(plane(channel))).collect();
                // BMP has palettes for grey, too.
                let is_grey = planes[0] == planes[1] && planes[1] == planes[2];
                let is_one = is_grey && self.format == ImageFormat::Bmp;
                planes.into_iter().take(if is_one { 1 } else { 3 }).collect()
            }
        };
        Ok(Shown { grid, planes })
    }

    /// The numbers that a palette is asked for, turned as the picture is; nothing where there is no palette.
    fn palette_numbers(&self) -> Option<Vec<u16>> {
        let numbers = palette::numbers(&self.bytes).filter(|_| self.format == ImageFormat::Png)?;
        let mut numbers = DynamicImage::ImageLuma8(numbers);
        numbers.apply_orientation(self.said.orientation);
        Some(numbers.into_luma8().into_raw().into_iter().map(u16::from).collect())
    }

    fn decoded(&self) -> ImageResult<DynamicImage> {
        let mut limits = Limits::no_limits();
        limits.max_image_width = Some(EXTENT as u32);
        limits.max_image_height = Some(EXTENT as u32);
        // Up to eight bytes for each pixel; decoders that keep more beside them take fewer pixels.
        limits.max_alloc = Some(8 * PICTURE_PIXELS as u64);
        match self.format {
            ImageFormat::Png => {
                decode(PngDecoder::with_limits(Cursor::new(&self.bytes), limits.clone())?, limits)
            }
            ImageFormat::Jpeg => decode(JpegDecoder::new(Cursor::new(&self.bytes))?, limits),
            ImageFormat::Bmp => decode(BmpDecoder::new(Cursor::new(&self.bytes))?, limits),
            other => Err(ImageError::Unsupported(ImageFormatHint::Exact(other).into())),
        }
    }

    /// Columns and rows as stored.
    fn dimensions(&self) -> ImageResult<(u32, u32)> {
        match self.format {
            ImageFormat::Png => dimensions(&PngDecoder::new(Cursor::new(&self.bytes))?),
            ImageFormat::Jpeg => dimensions(&JpegDecoder::new(Cursor::new(&self.bytes))?),
            ImageFormat::Bmp => dimensions(&BmpDecoder::new(Cursor::new(&self.bytes))?),
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
                format!("`{shown}` is no PNG, JPEG or BMP of a common kind")
            }
            _ => cannot(self.path),
        };
        Failure::new(what).because(error)
    }

    /// Refuses pixels that are floats, and transparent ones.
    fn check_pixels(&self, decoded: &DynamicImage) -> Result<()> {
        let shown = self.path.display();
        let transparent = match decoded {
            DynamicImage::ImageLuma8(_)
            | DynamicImage::ImageRgb8(_)
            | DynamicImage::ImageLuma16(_)
            | DynamicImage::ImageRgb16(_) => None,
            DynamicImage::ImageLumaA8(grey) => grey.pixels().position(|pixel| pixel.0[1] < u8::MAX),
            DynamicImage::ImageRgba8(colour) => {
                colour.pixels().position(|pixel| pixel.0[3] < u8::MAX)
            }
            DynamicImage::ImageLumaA16(grey) => {
                grey.pixels().position(|pixel| pixel.0[1] < u16::MAX)
            }
            DynamicImage::ImageRgba16(colour) => {
                colour.pixels().position(|pixel| pixel.0[3] < u16::MAX)
            }
            _ => {
                return Err(Failure::new(format!(
                    "`{shown}` has pixels of type {:?}, expected 8 or 16 bits for each colour",
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
    format!("cannot read `{}` as PNG, JPEG or BMP, expected a whole file", path.display())
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
