//! The numbers of pixels of a PNG file that has a palette, before colours are looked up.
//!
//! Knows how few bits are packed into bytes; whether numbers or colours are meant is for `read` to say.

use image::GrayImage;
use std::io::Cursor;

/// The number of each pixel of `bytes`, as stored; nothing for a PNG file without a palette. What cannot be read is
/// for its decoder to refuse, which has read it before.
pub(super) fn numbers(bytes: &[u8]) -> Option<GrayImage> {
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().ok()?;
    let (kind, depth) = reader.output_color_type();
    if kind != png::ColorType::Indexed {
        return None;
    }
    let (columns, rows) = (reader.info().width as usize, reader.info().height as usize);
    let mut packed = vec![0; reader.output_buffer_size()?];
    let frame = reader.next_frame(&mut packed).ok()?;
    let bits = depth as usize;
    let mut numbers = Vec::with_capacity(columns * rows);
    for row in packed.chunks(frame.line_size.max(1)).take(rows) {
        let of_byte = |&byte: &u8| {
            let shifts = (0..8 / bits).rev().map(move |index| index * bits);
            shifts.map(move |shift| (u16::from(byte) >> shift & ((1 << bits) - 1)) as u8)
        };
        numbers.extend(row.iter().flat_map(of_byte).take(columns));
    }
    GrayImage::from_raw(columns as u32, rows as u32, numbers)
}
