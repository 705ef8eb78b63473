//! A slice of a held-out case in the terminal: image, annotation, prediction and error, and what the
//! method made beside.
//!
//! As pixels where the terminal can (Kitty, Sixel), as half blocks elsewhere, and as characters
//! where there are no colours.

use super::frame::Shown;
use super::scored::{CasesShown, Made};
use super::theme::{STRONG, Theme};
use crate::runlog::preview::{Annotated, Preview, UNANNOTATED, Values};
use image::{DynamicImage, Rgb, RgbImage};
use ratatui::buffer::Buffer;
use ratatui::layout::{Rect, Size};
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;
use ratatui_image::picker::Picker;
use ratatui_image::{Image, Resize};

/// Colours of classes from 1 on, told apart by eyes of all kinds.
const CLASSES: [[u8; 3]; 6] =
    [[86, 180, 233], [230, 159, 0], [0, 158, 115], [204, 121, 167], [240, 228, 66], [0, 114, 178]];
/// Where the prediction is wrong.
const ERROR: [u8; 3] = [213, 94, 0];
/// Greys from dark to light where there are no colours.
const GREYS: [char; 8] = [' ', '.', ':', '-', '=', '+', '*', '#'];
/// Squares that a method made beside; more are not shown.
const MOST_MADE: usize = 12;
/// What stands below or beside each other.
const NAMES: [&str; 4] = ["image", "annotation", "prediction", "error"];

fn colour(class: u8) -> [u8; 3] {
    CLASSES[(usize::from(class) + CLASSES.len() - 1) % CLASSES.len()]
}

/// `over` laid half transparently on a grey.
fn blend(grey: u8, over: [u8; 3]) -> [u8; 3] {
    over.map(|part| (u16::from(grey) * 2 / 5 + u16::from(part) * 3 / 5) as u8)
}

/// A pixel with the class that somebody gave it.
fn annotated(grey: u8, class: u8) -> [u8; 3] {
    match class {
        UNANNOTATED => [grey; 3],
        0 => blend(grey, [255; 3]),
        class => colour(class),
    }
}

/// A pixel whose colour says by its share of `count` how many levels of gaze it reaches.
fn looked_at(grey: u8, level: u8, count: u8) -> [u8; 3] {
    let (level, count) = (u16::from(level.min(count)), u16::from(count.max(1)));
    colour(1).map(|part| {
        let mixed = u16::from(grey) * (count * 5 - level * 3) + u16::from(part) * level * 3;
        (mixed / (count * 5)) as u8
    })
}

/// A square that the method made beside.
#[derive(Clone, Copy)]
struct MadeSquare<'a> {
    greys: &'a [u8],
    /// What lies on the greys.
    classes: Option<&'a [u8]>,
}

/// Those of a slice; classes lie on the greys that stand before them, or on the image.
fn made_squares(preview: &Preview, slice: usize) -> Vec<MadeSquare<'_>> {
    let mut greys = preview.slice(slice).map_or(&[][..], |[image, ..]| image);
    let square = |(values, plane)| match values {
        Values::Greys => {
            greys = plane;
            MadeSquare { greys, classes: None }
        }
        Values::Classes => MadeSquare { greys, classes: Some(plane) },
    };
    preview.made_slice(slice).map(square).take(MOST_MADE).collect()
}

/// The squares of a slice side by side, in rows of `columns`.
fn squares(preview: &Preview, slice: usize, columns: u32) -> Option<RgbImage> {
    let [image, annotation, prediction, truth] = preview.slice(slice)?;
    let made = made_squares(preview, slice);
    let size = preview.size as u32;
    let gap = (size / 32).max(1);
    let rows = count(preview).div_ceil(columns);
    let side = |count: u32| count * size + (count - 1) * gap;
    let mut picture = RgbImage::new(side(columns), side(rows));
    for index in 0..image.len() {
        let grey = image[index];
        let plain = [grey; 3];
        let of = |class: u8| if class == 0 { plain } else { blend(grey, colour(class)) };
        let marked = match (preview.annotated, annotation[index]) {
            (Annotated::Levels(count), level) if level != UNANNOTATED => {
                looked_at(grey, level, count)
            }
            (Annotated::Slices, class) if class != UNANNOTATED => of(class),
            (_, class) => annotated(grey, class),
        };
        let error = match (prediction[index], truth[index]) {
            (predicted, true_class) if predicted != true_class => blend(grey, ERROR),
            _ => plain,
        };
        let (x, y) = (index as u32 % size, index as u32 / size);
        let own = [plain, marked, of(prediction[index]), error].into_iter();
        let beside = made.iter().map(|made| match made.classes {
            Some(classes) => annotated(made.greys[index], classes[index]),
            None => [made.greys[index]; 3],
        });
        for (place, pixel) in own.chain(beside).enumerate() {
            let (column, row) = (place as u32 % columns, place as u32 / columns);
            picture.put_pixel(column * (size + gap) + x, row * (size + gap) + y, Rgb(pixel));
        }
    }
    Some(picture)
}

/// How many squares a slice has.
fn count(preview: &Preview) -> u32 {
    (NAMES.len() + preview.made.len().min(MOST_MADE)) as u32
}

/// All slices of a case below each other, each with its squares in a row: image, annotation, prediction,
/// error, and what the method made beside.
pub fn overlays(preview: &Preview) -> RgbImage {
    let slices: Vec<RgbImage> =
        (0..preview.slices()).filter_map(|slice| squares(preview, slice, count(preview))).collect();
    let (width, height) = slices.first().map_or((1, 1), RgbImage::dimensions);
    let mut all = RgbImage::new(width, height * slices.len().max(1) as u32);
    for (index, slice) in slices.iter().enumerate() {
        image::imageops::replace(&mut all, slice, 0, i64::from(height) * index as i64);
    }
    all
}

/// In how many columns `count` squares fill the area best: all beside each other, or in full rows of half
/// or a quarter as many. A character is about twice as high as wide.
fn columns(area: Rect, count: u32) -> u32 {
    let (width, height) = (u32::from(area.width), 2 * u32::from(area.height));
    let side = |columns: &u32| (width / columns).min(height / count.div_ceil(*columns));
    // Of equal ones `max_by_key` gives the last.
    let choices = [count.div_ceil(4), count.div_ceil(2), count];
    choices.into_iter().filter(|&columns| columns > 1).max_by_key(side).unwrap_or(count)
}

/// Makes the drawing of a slice for an area, unless it is made already.
pub(super) fn prepare(cases: &mut CasesShown, slice: usize, area: Rect, picker: &Picker) {
    let Some((picture, Ok(preview))) = &cases.opened else { return };
    let made = Made { picture: *picture, slice, size: (area.width, area.height) };
    if area.is_empty() || cases.protocol.as_ref().is_some_and(|(old, _)| *old == made) {
        return;
    }
    let columns = columns(area, count(preview));
    let Some(squares) = squares(preview, slice, columns) else { return };
    let size = Size::new(area.width, area.height);
    let drawn = picker.new_protocol(DynamicImage::ImageRgb8(squares), size, Resize::Scale(None));
    // A terminal that cannot draw it shows none.
    cases.protocol = drawn.ok().map(|protocol| (made, protocol));
}

/// Draws the slice: what was prepared, or characters where there are no colours.
pub(super) fn render(
    run: &Shown<'_>,
    (cases, slice): (&CasesShown, usize),
    area: Rect,
    buffer: &mut Buffer,
) {
    if area.is_empty() {
        return;
    }
    if run.theme.has_colour && !run.theme.is_ascii {
        if let Some((_, protocol)) = &cases.protocol {
            Image::new(protocol).render(area, buffer);
        }
        return;
    }
    let Some(preview) = cases.preview() else { return };
    let Some(planes) = preview.slice(slice) else { return };
    let columns = columns(area, count(preview)) as u16;
    let rows = (count(preview) as u16).div_ceil(columns);
    let (width, height) = (area.width / columns, area.height / rows);
    let made = made_squares(preview, slice);
    for place in 0..count(preview) as u16 {
        let square = Rect::new(
            area.x + place % columns * width,
            area.y + place / columns * height,
            width.saturating_sub(1),
            height,
        );
        let (planes, plane) = match made.get(usize::from(place).wrapping_sub(NAMES.len())) {
            Some(MadeSquare { greys, classes: Some(classes) }) => {
                ([*greys, *classes, greys, greys], 1)
            }
            Some(MadeSquare { greys, classes: None }) => ([*greys; 4], 0),
            None => (planes, usize::from(place)),
        };
        characters(planes, (plane, preview.size), square, buffer);
    }
}

/// One square in characters: greys, with the numbers of classes and `X` for errors on them.
fn characters(
    [image, annotation, prediction, truth]: [&[u8]; 4],
    (plane, size): (usize, usize),
    area: Rect,
    buffer: &mut Buffer,
) {
    for y in 0..area.height {
        for x in 0..area.width {
            let at = |cell: u16, cells: u16| usize::from(cell) * size / usize::from(cells.max(1));
            let index = at(y, area.height) * size + at(x, area.width);
            let digit = |class: u8| char::from(b'0' + class % 10);
            let grey = GREYS[usize::from(image[index]) * GREYS.len() / 256];
            let sign = match plane {
                1 if annotation[index] != UNANNOTATED => digit(annotation[index]),
                2 if prediction[index] != 0 => digit(prediction[index]),
                3 if prediction[index] != truth[index] => 'X',
                _ => grey,
            };
            if let Some(cell) = buffer.cell_mut((area.x + x, area.y + y)) {
                cell.set_char(sign);
            }
        }
    }
}

/// What stands where, and which colour is which class.
pub(super) struct Legend<'a> {
    pub(super) classes: &'a [String],
    /// Names of what the method made beside.
    pub(super) made: Vec<&'a str>,
    pub(super) theme: Theme,
}

impl Legend<'_> {
    pub(super) fn render(&self, area: Rect, buffer: &mut Buffer) {
        if area.height < 2 {
            return;
        }
        let line = |row: u16| Rect { y: area.y + row, height: 1, ..area };
        let names: Vec<&str> = NAMES.into_iter().chain(self.made.iter().copied()).collect();
        let spaced = names.join(" · ");
        let fits = spaced.chars().count() <= usize::from(area.width);
        let names = if fits { spaced } else { names.join(" ") };
        Line::from(names).style(self.theme.faint()).render(line(0), buffer);
        let class = |(index, name): (usize, &String)| {
            let [r, g, b] = colour(index as u8);
            let style =
                if self.theme.has_colour { Style::new().fg(Color::Rgb(r, g, b)) } else { STRONG };
            let mark = if self.theme.has_colour && !self.theme.is_ascii {
                "█".to_owned()
            } else {
                index.to_string()
            };
            [Span::styled(mark, style), Span::raw(format!(" {name}  "))]
        };
        let mut spans: Vec<Span<'_>> =
            self.classes.iter().enumerate().skip(1).flat_map(class).collect();
        let [r, g, b] = ERROR;
        let style =
            if self.theme.has_colour { Style::new().fg(Color::Rgb(r, g, b)) } else { STRONG };
        let mark = if self.theme.has_colour && !self.theme.is_ascii { "█" } else { "X" };
        spans.extend([Span::styled(mark, style), Span::raw(" wrong")]);
        Line::from(spans).render(line(area.height - 1), buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One slice of two rows whose annotation is `annotation`.
    fn squares_of(annotated: Annotated, annotation: [u8; 4]) -> RgbImage {
        let preview = Preview {
            size: 2,
            image: vec![100; 4],
            annotation: annotation.to_vec(),
            annotated,
            prediction: vec![0; 4],
            truth: vec![0; 4],
            made: Vec::new(),
        };
        overlays(&preview)
    }

    #[test]
    fn levels_of_gaze_are_shades_and_labels_of_slices_let_the_image_through() {
        let (first, second) = (3, 4);
        let gaze = squares_of(Annotated::Levels(2), [0, 1, 2, UNANNOTATED]);
        let at = |picture: &RgbImage, column: u32, row: u32| picture.get_pixel(column, row).0;
        assert_eq!(at(&gaze, first, 0), [100; 3]);
        assert_eq!(at(&gaze, first, 1), blend(100, colour(1)));
        assert_eq!(at(&gaze, second, 1), [100; 3]);
        let half = at(&gaze, second, 0);
        let full = blend(100, colour(1));
        assert!(
            (0..3).all(|part| half[part].abs_diff(u8::midpoint(100, full[part])) <= 1),
            "{half:?}"
        );
        let slices = squares_of(Annotated::Slices, [1; 4]);
        assert_eq!(at(&slices, first, 0), full);
        assert_eq!(at(&squares_of(Annotated::Slices, [0; 4]), first, 0), [100; 3]);
        assert_eq!(at(&squares_of(Annotated::Pixels, [1; 4]), first, 0), colour(1));
    }
}
