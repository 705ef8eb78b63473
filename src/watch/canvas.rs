//! A grid of dots inside characters: two by four in Braille, one in ASCII.
//!
//! Knows dots and inks, nothing of curves.

use super::theme::Theme;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// Bits of a Braille character by row and column of the dot.
const BRAILLE: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

/// What a dot is drawn with. Where two meet in a character, solid covers ghost and the later one
/// the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ink {
    /// Which curve it belongs to.
    pub(super) curve: usize,
    /// Whether it is a raw value behind a smoothed curve.
    pub(super) is_ghost: bool,
}

impl Ink {
    fn style(self, theme: Theme) -> Style {
        if self.is_ghost { theme.ghost(self.curve) } else { theme.curve(self.curve) }
    }

    fn sign(self) -> char {
        if self.is_ghost { '.' } else { Theme::sign(self.curve) }
    }
}

/// A drawing in the making.
#[derive(Debug)]
pub(super) struct Canvas {
    area: Rect,
    is_ascii: bool,
    cells: Vec<(u8, Option<Ink>)>,
}

impl Canvas {
    pub(super) fn new(area: Rect, is_ascii: bool) -> Self {
        let count = usize::from(area.width) * usize::from(area.height);
        Self { area, is_ascii, cells: vec![(0, None); count] }
    }

    /// Columns and rows of dots.
    pub(super) fn dots(&self) -> (i32, i32) {
        let (columns, rows) = (i32::from(self.area.width), i32::from(self.area.height));
        if self.is_ascii { (columns, rows) } else { (2 * columns, 4 * rows) }
    }

    /// A dot, counted from the upper left corner; outside there are none.
    pub(super) fn dot(&mut self, x: i32, y: i32, ink: Ink) {
        let (columns, rows) = self.dots();
        if !(0..columns).contains(&x) || !(0..rows).contains(&y) {
            return;
        }
        let (x, y) = (x as usize, y as usize);
        let (column, row, bit) =
            if self.is_ascii { (x, y, 1) } else { (x / 2, y / 4, BRAILLE[y % 4][x % 2]) };
        let (bits, drawn) = &mut self.cells[row * usize::from(self.area.width) + column];
        *bits |= bit;
        if !ink.is_ghost || drawn.is_none_or(|drawn| drawn.is_ghost) {
            *drawn = Some(ink);
        }
    }

    /// A straight stroke between two dots, both included.
    pub(super) fn stroke(&mut self, from: (i32, i32), to: (i32, i32), ink: Ink) {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx.abs().max(dy.abs()).max(1);
        for index in 0..=length {
            let along = |start: i32, delta: i32| {
                start + (f64::from(delta * index) / f64::from(length)).round() as i32
            };
            self.dot(along(from.0, dx), along(from.1, dy), ink);
        }
    }

    pub(super) fn render(&self, theme: Theme, buffer: &mut Buffer) {
        let width = usize::from(self.area.width).max(1);
        for (index, (bits, ink)) in self.cells.iter().enumerate() {
            let Some(ink) = ink else { continue };
            let (x, y) = ((index % width) as u16, (index / width) as u16);
            let braille = char::from_u32(0x2800 + u32::from(*bits)).unwrap_or(' ');
            let sign = if self.is_ascii { ink.sign() } else { braille };
            if let Some(cell) = buffer.cell_mut((self.area.x + x, self.area.y + y)) {
                cell.set_char(sign).set_style(ink.style(theme));
            }
        }
    }
}
