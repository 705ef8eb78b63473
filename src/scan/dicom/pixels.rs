//! The pixels of DICOM: from bytes, packed or not, to the numbers that are stored.
//!
//! Takes no more memory than pixels that are there need, whatever elements say. What numbers mean, their slope and
//! intercept, is for others to apply.

use super::dataset::DataSet;
use super::file::Loaded;
use super::syntax::Packing;
use super::tags::{
    BITS_ALLOCATED, BITS_STORED, COLUMNS, HIGH_BIT, IS_SIGNED, PHOTOMETRIC, PIXEL_DATA, PLANAR,
    ROWS, SAMPLES,
};
use crate::error::{Failure, Result};
use crate::limits::PICTURE_PIXELS;
use crate::scan::pack_bits;
use crate::scan::voxels::Arrangement;
use jpeg_decoder::{ColorTransform, Decoder, PixelFormat};

/// What the numbers of a pixel are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Grey, of which the smallest is black.
    Grey,
    /// Grey, of which the largest is black.
    Inverted,
    /// Red, green and blue.
    Colours,
    /// Colours as brightness and two differences, which JPEG alone has here.
    Luma,
}

impl Meaning {
    /// By the word that stands for it, of `channels` numbers.
    fn of(word: &str, channels: usize) -> Option<Self> {
        match (word, channels) {
            ("MONOCHROME1", 1) => Some(Self::Inverted),
            ("MONOCHROME2" | "", 1) => Some(Self::Grey),
            ("RGB", 3) => Some(Self::Colours),
            ("YBR_FULL" | "YBR_FULL_422", 3) => Some(Self::Luma),
            _ => None,
        }
    }
}

/// How the pixels of a frame are stored.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PixelForm {
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// 1, or 3 for red, green and blue.
    pub(super) channels: usize,
    /// Bytes of a number, of which `bits` count from `first_bit` on.
    bytes: usize,
    bits: u32,
    first_bit: u32,
    is_signed: bool,
    /// Whether the channels of a frame lie behind each other and not beside each other.
    is_planar: bool,
    meaning: Meaning,
}

impl PixelForm {
    /// What a file that is called `name` in messages says of its pixels. Refuses what is neither grey nor red, green and
    /// blue.
    pub(super) fn of(data: &DataSet<'_>, name: &str) -> Result<Self> {
        let short = |tag, missing| data.short(tag).unwrap_or(missing);
        let wrong = |what: String| {
            Failure::new(format!("{name} has {what}")).hint(
                "turn the series into one volume, for example by `dcm2niix -z y -o OUT FOLDER`",
            )
        };
        let [rows, columns] = [ROWS, COLUMNS].map(|tag| usize::from(short(tag, 0)));
        if rows == 0 || columns == 0 {
            return Err(wrong(format!("{rows} x {columns} pixels, expected at least one")));
        }
        let photometric = data.text(PHOTOMETRIC).unwrap_or_default();
        let channels = usize::from(short(SAMPLES, 1));
        let meaning = Meaning::of(&photometric, channels).ok_or_else(|| {
            wrong(format!(
                "pixels in `{photometric}` of {channels}, expected grey (`MONOCHROME2`), or red, green and blue (`RGB`)"
            ))
        })?;
        let allocated = short(BITS_ALLOCATED, 0);
        let bits = short(BITS_STORED, allocated);
        let high_bit = short(HIGH_BIT, bits.wrapping_sub(1));
        if ![8, 16, 32].contains(&allocated)
            || bits == 0
            || high_bit >= allocated
            || high_bit + 1 < bits
        {
            return Err(wrong(format!(
                "pixels of {bits} bits up to bit {high_bit} in {allocated}, expected 8, 16 or 32"
            )));
        }
        if data.bytes(PIXEL_DATA).is_none() && data.fragments().is_empty() {
            return Err(wrong("no pixels".to_owned()));
        }
        Ok(Self {
            rows,
            columns,
            channels,
            bytes: usize::from(allocated / 8),
            bits: u32::from(bits),
            first_bit: u32::from(high_bit + 1 - bits),
            is_signed: short(IS_SIGNED, 0) == 1,
            is_planar: channels > 1 && short(PLANAR, 0) == 1,
            meaning,
        })
    }

    fn pixels(&self) -> usize {
        self.rows * self.columns
    }

    fn frame_bytes(&self) -> usize {
        self.pixels() * self.channels * self.bytes
    }

    /// The numbers that are stored of one of `frames`: channels, rows, columns. Where the largest is black they are turned
    /// round.
    pub(super) fn numbers(
        &self,
        loaded: &Loaded,
        data: &DataSet<'_>,
        [frame, frames]: [usize; 2],
    ) -> Result<Vec<f64>> {
        let reader = FrameReader { form: self, data, name: &loaded.name };
        let (raw, is_planar) = match loaded.syntax.pixels {
            Packing::None => {
                (reader.plain(frame, loaded.syntax.encoding.big_endian)?, self.is_planar)
            }
            Packing::Runs => (reader.runs(frame, frames)?, true),
            Packing::Jpeg => (reader.jpeg(frame, frames)?, false),
        };
        let numbers: Vec<f64> = raw.into_iter().map(|raw| self.number(raw)).collect();
        if is_planar {
            return Ok(numbers);
        }
        let shape = [1, self.rows, self.columns];
        Ok(Arrangement::interleaved(shape, self.channels).in_order(numbers))
    }

    /// The number whose bits are stored among others.
    fn number(&self, raw: u32) -> f64 {
        let unused = u32::BITS - self.bits;
        let shifted = (raw >> self.first_bit) << unused;
        let number = if self.is_signed {
            f64::from(shifted as i32 >> unused)
        } else {
            f64::from(shifted >> unused)
        };
        // The least and the largest of them together.
        let ends = if self.is_signed { -1.0 } else { 2f64.powi(self.bits as i32) - 1.0 };
        if self.meaning == Meaning::Inverted { ends - number } else { number }
    }
}

/// What finds the bytes of one frame.
struct FrameReader<'r, 'a> {
    form: &'r PixelForm,
    data: &'r DataSet<'a>,
    name: &'r str,
}

impl FrameReader<'_, '_> {
    /// Numbers as they lie in the file.
    fn plain(&self, frame: usize, big_endian: bool) -> Result<Vec<u32>> {
        if self.form.meaning == Meaning::Luma {
            return Err(self.damaged("brightness and differences of colours without JPEG"));
        }
        let all = self.data.bytes(PIXEL_DATA).unwrap_or_default();
        let (from, count) = (frame.checked_mul(self.form.frame_bytes()), self.form.frame_bytes());
        let bytes = from.and_then(|from| all.get(from..from.checked_add(count)?));
        let bytes = bytes.ok_or_else(|| {
            Failure::new(format!(
                "{} is cut off: it holds {} bytes of pixels, expected at least {}",
                self.name,
                all.len(),
                (frame + 1).saturating_mul(count)
            ))
            .hint("copy it again")
        })?;
        Ok(bytes.chunks_exact(self.form.bytes).map(|bytes| whole(bytes, big_endian)).collect())
    }

    /// Numbers whose bytes are packed in runs, the most significant of all pixels first.
    fn runs(&self, frame: usize, frames: usize) -> Result<Vec<u32>> {
        let packed = self.packed(frame, frames)?;
        let header: Vec<usize> =
            packed.chunks_exact(4).take(16).map(|bytes| whole(bytes, false) as usize).collect();
        let PixelForm { channels, bytes, .. } = *self.form;
        let pixels = self.form.pixels();
        let wrong = || self.damaged("runs that do not give all of its pixels");
        if header.len() < 16 || header[0] != channels * bytes || header[0] > 15 {
            return Err(wrong());
        }
        let mut raw = Vec::new();
        for channel in 0..channels {
            let mut numbers = Vec::new();
            for segment in channel * bytes..(channel + 1) * bytes {
                let end = if segment + 1 < header[0] { header[segment + 2] } else { packed.len() };
                let segment = packed.get(header[segment + 1]..end).ok_or_else(wrong)?;
                let unpacked = pack_bits::unpack(segment, pixels);
                if unpacked.len() < pixels {
                    return Err(wrong());
                }
                numbers.resize(pixels, 0);
                for (number, byte) in numbers.iter_mut().zip(unpacked) {
                    *number = *number << 8 | u32::from(byte);
                }
            }
            raw.extend(numbers);
        }
        Ok(raw)
    }

    /// Numbers in a JPEG, with the colours of a pixel beside each other.
    fn jpeg(&self, frame: usize, frames: usize) -> Result<Vec<u32>> {
        let packed = self.packed(frame, frames)?;
        let form = self.form;
        let failed = |error: &jpeg_decoder::Error| {
            Failure::new(format!("{} holds a JPEG that cannot be read", self.name))
                .because(error)
                .hint("unpack it, for example by `gdcmconv --raw IN OUT`")
        };
        let mut decoder = Decoder::new(&packed[..]);
        decoder.read_info().map_err(|error| failed(&error))?;
        let info = decoder.info();
        let [rows, columns, channels] = info.map_or([0; 3], |info| {
            let channels = match info.pixel_format {
                PixelFormat::L8 | PixelFormat::L16 => 1,
                PixelFormat::RGB24 => 3,
                PixelFormat::CMYK32 => 4,
            };
            [usize::from(info.height), usize::from(info.width), channels]
        });
        let pixels = form.pixels();
        if [rows, columns, channels] != [form.rows, form.columns, form.channels] {
            return Err(self.damaged(&format!(
                "a JPEG of {rows} x {columns} pixels of {channels} numbers, expected {} x {} of {}",
                form.rows, form.columns, form.channels
            )));
        }
        if pixels > PICTURE_PIXELS || pixels / PIXELS_OF_A_BYTE > packed.len() {
            return Err(self.damaged("a JPEG with far more pixels than bytes"));
        }
        if form.channels == 3 {
            let transform = if form.meaning == Meaning::Luma {
                ColorTransform::YCbCr
            } else {
                ColorTransform::RGB
            };
            decoder.set_color_transform(transform);
        }
        let bytes = decoder.decode().map_err(|error| failed(&error))?;
        let wide = bytes.len() / (pixels * channels);
        if ![1, 2].contains(&wide) || bytes.len() != pixels * channels * wide {
            return Err(self.damaged("a JPEG with other pixels than it says"));
        }
        // Of 16 bits in the order of the machine.
        let big_endian = cfg!(target_endian = "big");
        Ok(bytes.chunks_exact(wide).map(|bytes| whole(bytes, big_endian)).collect())
    }

    /// The packed bytes of a frame: a piece for each, all pieces of the only one, or those between the places that the
    /// first piece tells.
    fn packed(&self, frame: usize, frames: usize) -> Result<Vec<u8>> {
        let Some((table, pieces)) = self.data.fragments().split_first() else {
            return Err(
                self.damaged("pixels that are not packed, although its transfer syntax says so")
            );
        };
        if pieces.len() == frames {
            return Ok(pieces[frame].to_vec());
        }
        if frames == 1 {
            return Ok(pieces.concat());
        }
        let places: Vec<usize> =
            table.chunks_exact(4).map(|bytes| whole(bytes, false) as usize).collect();
        let (Some(&from), true) = (places.get(frame), places.len() == frames) else {
            return Err(self.damaged("packed frames of which it does not say where they begin"));
        };
        let to = places.get(frame + 1).copied().unwrap_or(usize::MAX);
        let (mut at, mut packed) = (0, Vec::new());
        for piece in pieces {
            if (from..to).contains(&at) {
                packed.extend_from_slice(piece);
            }
            // Eight bytes say what it is and how long.
            at += 8 + piece.len();
        }
        Ok(packed)
    }

    fn damaged(&self, what: &str) -> Failure {
        Failure::new(format!("{} has {what}", self.name))
            .hint("copy it again, or unpack it, for example by `gdcmconv --raw IN OUT`")
    }
}

/// Pixels that a byte of JPEG may stand for, more than it ever does.
const PIXELS_OF_A_BYTE: usize = 1 << 10;

/// The whole number that up to four bytes are.
fn whole(bytes: &[u8], big_endian: bool) -> u32 {
    let add = |sum: u32, byte: &u8| sum << 8 | u32::from(*byte);
    if big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_stored_bits_alone() {
        let form = PixelForm {
            rows: 1,
            columns: 1,
            channels: 1,
            bytes: 2,
            bits: 12,
            first_bit: 0,
            is_signed: false,
            is_planar: false,
            meaning: Meaning::Grey,
        };
        let same = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found}");
        same(form.number(0xf801), f64::from(0x801));
        let signed = PixelForm { is_signed: true, ..form.clone() };
        same(signed.number(0x0801), -2047.0);
        same(PixelForm { first_bit: 4, ..signed.clone() }.number(0x801f), -2047.0);
        let turned = |form: &PixelForm, raw| {
            PixelForm { meaning: Meaning::Inverted, ..form.clone() }.number(raw)
        };
        same(turned(&form, 0), 4095.0);
        same(turned(&form, 5), 4090.0);
        same(turned(&signed, 0), -1.0);
        same(turned(&signed, 0x800), 2047.0);
        let all = PixelForm { bytes: 4, bits: 32, ..form };
        same(all.number(u32::MAX), f64::from(u32::MAX));
    }
}
