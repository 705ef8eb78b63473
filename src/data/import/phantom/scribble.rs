//! Strokes as a person would draw them: one thin curve per structure, unsteady, well inside.
//!
//! Knows shapes and labels, not intensities.

use super::anatomy::Section;
use crate::data::IGNORE;
use crate::random::Draws;
use std::f64::consts::{PI, TAU};

/// Draws the scribbles of one slice: classes on strokes, [`IGNORE`] elsewhere. Every class that
/// `labels` (`size` x `size`) holds gets at least one pixel, and no pixel gets a wrong class.
pub(super) fn draw(section: &Section, labels: &[u8], size: usize, draws: &mut Draws) -> Vec<u8> {
    let mut page = Page { strokes: vec![IGNORE; labels.len()], labels, size };
    page.stroke(0, &background(section, size, draws), draws);
    page.stroke(2, &wall(section, draws), draws);
    page.stroke(3, &cavity(section, draws), draws);
    page.stroke(1, &right(section, draws), draws);
    for class in 0..4 {
        page.touch(class);
    }
    page.strokes
}

type Curve = Vec<(f64, f64)>;

/// Points per curve: closer than a pixel for anything that fits into a slice of 512 pixels.
const POINT_COUNT: usize = 1200;

/// A hand that cannot keep to a line: three slow waves, of size 1 together.
fn wobble(draws: &mut Draws) -> impl Fn(f64) -> f64 {
    let waves: [(f64, f64); 3] =
        std::array::from_fn(|i| (draws.range(0.6, 1.4) * (i + 1) as f64, draws.range(0.0, TAU)));
    move |share| {
        waves.iter().map(|(pace, phase)| (TAU * pace * share + phase).sin()).sum::<f64>() / 3.0
    }
}

fn along(mut point: impl FnMut(f64) -> (f64, f64)) -> Curve {
    (0..=POINT_COUNT).map(|index| point(index as f64 / POINT_COUNT as f64)).collect()
}

/// A wavy line around the heart that does not close.
fn background(section: &Section, size: usize, draws: &mut Draws) -> Curve {
    let distance = section.reach() * 0.95 + size as f64 * draws.range(0.0, 0.09);
    let (start, sweep) = (draws.range(0.0, TAU), TAU * draws.range(0.25, 0.5));
    let hand = wobble(draws);
    along(|share| section.point(start + sweep * share, distance * (1.0 + 0.12 * hand(share))))
}

/// An open arc along the middle of the wall.
fn wall(section: &Section, draws: &mut Draws) -> Curve {
    let (start, sweep) = (draws.range(0.0, TAU), TAU * draws.range(0.35, 0.65));
    let hand = wobble(draws);
    along(|share| {
        let angle = start + sweep * share;
        section.point(angle, section.mid_wall(angle) * (1.0 + 0.05 * hand(share)))
    })
}

/// A short bent line near the middle of the left ventricle.
fn cavity(section: &Section, draws: &mut Draws) -> Curve {
    let radius = section.cavity();
    let (angle, half) = (draws.range(0.0, TAU), radius * draws.range(0.35, 0.6));
    let bend = radius * draws.range(-0.3, 0.3);
    let (off_row, off_column) = (0.12 * radius * draws.normal(), 0.12 * radius * draws.normal());
    let hand = wobble(draws);
    let (row, column) = section.centre();
    let (sine, cosine) = angle.sin_cos();
    along(|share| {
        let forth = half * (2.0 * share - 1.0);
        let aside = bend * (1.0 - (2.0 * share - 1.0).powi(2)) + 0.05 * radius * hand(share);
        (
            row + off_row + sine * forth + cosine * aside,
            column + off_column + cosine * forth - sine * aside,
        )
    })
}

/// A line along the crescent of the right ventricle, short of its tips.
fn right(section: &Section, draws: &mut Draws) -> Curve {
    let (from, to) = (draws.range(0.0, 0.22), draws.range(0.78, 1.0));
    let hand = wobble(draws);
    let angles: Vec<f64> = (0..=360)
        .map(|degree| PI + f64::from(degree - 180) / 360.0 * PI * 1.2)
        .filter(|&angle| section.mid_right(angle).is_some())
        .collect();
    let (Some(&first), Some(&last)) = (angles.first(), angles.last()) else { return Curve::new() };
    along(|share| {
        let angle = first + (last - first) * (from + (to - from) * share);
        let radius = section.mid_right(angle).unwrap_or(0.0);
        section.point(angle, radius * (1.0 + 0.04 * hand(share)))
    })
}

/// The slice that is drawn on.
struct Page<'a> {
    strokes: Vec<u8>,
    labels: &'a [u8],
    size: usize,
}

impl Page<'_> {
    /// Draws along `curve` with a pen of one or two pixels, leaving out what is not well inside.
    fn stroke(&mut self, class: u8, curve: &Curve, draws: &mut Draws) {
        let wide = draws.uniform() < 0.15;
        for &(row, column) in curve {
            self.dot(class, row.round(), column.round());
            if wide {
                self.dot(class, row.round() + (row - row.round()).signum(), column.round());
            }
        }
    }

    fn dot(&mut self, class: u8, row: f64, column: f64) {
        let last = (self.size - 1) as f64;
        if (0.0..=last).contains(&row) && (0.0..=last).contains(&column) {
            let pixel = row as usize * self.size + column as usize;
            if self.alike_around(pixel) == NEIGHBOURS && self.labels[pixel] == class {
                self.strokes[pixel] = class;
            }
        }
    }

    /// How many of the four neighbours have the class of this pixel; outside counts as alike.
    fn alike_around(&self, pixel: usize) -> usize {
        let (row, column, size) = (pixel / self.size, pixel % self.size, self.size);
        let alike = |row: usize, column: usize| {
            row >= size || column >= size || self.labels[row * size + column] == self.labels[pixel]
        };
        [
            alike(row.wrapping_sub(1), column),
            alike(row + 1, column),
            alike(row, column.wrapping_sub(1)),
            alike(row, column + 1),
        ]
        .into_iter()
        .filter(|&alike| alike)
        .count()
    }

    /// Puts one dot into a class that is there but too thin for its stroke.
    fn touch(&mut self, class: u8) {
        if self.strokes.contains(&class) {
            return;
        }
        let inside = (0..self.labels.len()).filter(|&pixel| self.labels[pixel] == class);
        if let Some(pixel) = inside.max_by_key(|&pixel| self.alike_around(pixel)) {
            self.strokes[pixel] = class;
        }
    }
}

/// Neighbours that share an edge with a pixel.
const NEIGHBOURS: usize = 4;
