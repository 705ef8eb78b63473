//! Curves over steps: no spike is lost, and no colour is needed to read them.
//!
//! Above the plot stands a legend with the last value of each curve, or the one under the cursor.
//! Which curves make a chart is decided in `charts`.

use super::canvas::{Canvas, Ink};
use super::numbers;
use super::series::Series;
use super::state::Marks;
use super::theme::{STRONG, Theme};
use super::ticks;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

/// Columns of a number beside the plot.
const NUMBER_COLUMNS: u16 = 8;

/// How all charts of a screen are drawn, so that they can be compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look<'a> {
    /// Whether to draw logarithms; values that have none are left out.
    pub(super) log_scale: bool,
    /// How far curves are smoothed; 0 not at all.
    pub(super) half_life: f64,
    /// The first and last step.
    pub(super) window: [u64; 2],
    /// The step whose values the legends show.
    pub(super) cursor: Option<u64>,
    /// What happened at which step.
    pub(super) marks: Option<&'a Marks>,
    /// How to colour.
    pub(super) theme: Theme,
}

/// Curves in one plot.
#[derive(Debug, Clone)]
pub(super) struct Chart<'a> {
    /// What is drawn, with its unit.
    pub(super) title: String,
    /// Names and values.
    pub(super) curves: Vec<(&'a str, &'a Series)>,
    /// The values at the bottom and top; `None` takes them from the curves.
    pub(super) bounds: Option<[f64; 2]>,
}

/// A chart and how to draw it.
pub(super) struct Drawing<'a> {
    pub(super) chart: &'a Chart<'a>,
    pub(super) look: Look<'a>,
    /// Values (or their logarithms) at the bottom and top.
    values: [f64; 2],
}

impl<'a> Drawing<'a> {
    /// `None` where nothing lies in the window.
    pub(super) fn new(chart: &'a Chart<'a>, look: Look<'a>) -> Option<Self> {
        let mut drawing = Self { chart, look, values: [0.0, 1.0] };
        let [start, end] = look.window;
        let buckets = chart.curves.iter().flat_map(|(_, series)| series.buckets());
        let [low, high] = buckets
            .filter(|bucket| (start..=end).contains(&bucket.last.0))
            .flat_map(|bucket| [bucket.min, bucket.max])
            .filter_map(|value| drawing.height(value))
            .fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], height| {
                [low.min(height), high.max(height)]
            });
        if low > high {
            return None;
        }
        // A flat curve needs some room around it, whatever its size.
        let room = if low < high { 0.0 } else { low.abs().max(1e-6) * 0.5 };
        let bounds = chart.bounds.filter(|_| !look.log_scale);
        drawing.values = bounds.unwrap_or([low - room, high + room]);
        Some(drawing)
    }

    /// Draws legend, scale, curves, marks and steps; gives the plot's place.
    pub(super) fn render(&self, area: Rect, buffer: &mut Buffer) -> Rect {
        let [legend, body, steps] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)])
                .areas(area);
        let [scale, plot] =
            Layout::horizontal([Constraint::Length(NUMBER_COLUMNS), Constraint::Min(1)])
                .areas(body);
        self.legend().render(legend, buffer);
        self.draw_scale(scale, buffer);
        self.draw_curves(plot, buffer);
        self.draw_cursor(plot, buffer);
        self.draw_marks(plot, buffer);
        self.draw_steps(Rect { x: plot.x, width: plot.width, ..steps }, buffer);
        plot
    }

    /// The height of a value; `None` where it has no logarithm.
    fn height(&self, value: f64) -> Option<f64> {
        if self.look.log_scale { (value > 0.0).then(|| value.log10()) } else { Some(value) }
    }

    fn legend(&self) -> Line<'static> {
        let look = &self.look;
        let mut spans = Vec::new();
        if let Some(step) = look.cursor {
            spans.push(Span::styled(format!("step {step}  "), look.theme.faint()));
        }
        for (index, (name, series)) in self.chart.curves.iter().enumerate() {
            let value = match look.cursor {
                Some(step) => series.nearest(step).map(|bucket| bucket.last.1),
                None => series.last(),
            };
            let value = value.map_or_else(|| "n/a".to_owned(), numbers::value);
            let style = look.theme.curve(index);
            if look.theme.is_ascii && self.chart.curves.len() > 1 {
                spans.push(Span::raw(format!("{} ", Theme::sign(index))));
            }
            if !name.is_empty() {
                spans.push(Span::styled(format!("{name} "), style));
            }
            spans.push(Span::styled(value, style.patch(STRONG)));
            if let Some(step) = series.broken().last() {
                spans.push(Span::styled(format!(" NaN at {step}"), look.theme.alarm()));
            }
            spans.push(Span::raw("  "));
        }
        Line::from(spans)
    }

    fn draw_scale(&self, area: Rect, buffer: &mut Buffer) {
        let count = (usize::from(area.height) / 3).clamp(1, 12);
        let ticks = if self.look.log_scale {
            ticks::logarithmic(self.values, count)
        } else {
            ticks::linear(self.values, count)
        };
        // Where no round number lies within, the ends must do.
        let ticks = if ticks.is_empty() { self.values.to_vec() } else { ticks };
        let rows = f64::from(area.height.saturating_sub(1));
        for height in ticks {
            let share = (self.values[1] - height) / (self.values[1] - self.values[0]);
            let row = (share.clamp(0.0, 1.0) * rows).round() as u16;
            let value = if self.look.log_scale { 10f64.powf(height) } else { height };
            let place = Rect { y: area.y + row, height: 1, width: area.width - 1, ..area };
            let mark = Line::from(numbers::tick(value)).style(self.look.theme.faint());
            mark.right_aligned().render(place, buffer);
        }
    }

    fn draw_steps(&self, area: Rect, buffer: &mut Buffer) {
        let [start, end] = self.look.window.map(|step| step as f64);
        let ticks = ticks::linear([start, end], (usize::from(area.width) / 16).max(1));
        let mut free = area.x;
        for tick in ticks {
            let label = numbers::tick(tick);
            let column = self.column(tick as u64, area.width).unwrap_or(0);
            let half = label.len() as u16 / 2;
            let x = (area.x + column).saturating_sub(half).max(area.x);
            let x = x.min(area.right().saturating_sub(label.len() as u16));
            if x < free || x < area.x {
                continue;
            }
            free = x + label.len() as u16 + 1;
            let place = Rect { x, width: area.right() - x, ..area };
            Line::from(label).style(self.look.theme.faint()).render(place, buffer);
        }
    }

    /// The column of a step among `columns`, counted from 0.
    fn column(&self, step: u64, columns: u16) -> Option<u16> {
        let [start, end] = self.look.window;
        let share = step.checked_sub(start)? as f64 / (end - start).max(1) as f64;
        (share <= 1.0).then(|| (share * f64::from(columns.saturating_sub(1))).round() as u16)
    }

    fn draw_curves(&self, area: Rect, buffer: &mut Buffer) {
        let mut canvas = Canvas::new(area, self.look.theme.is_ascii);
        let is_smoothed = self.look.half_life > 0.0;
        for (curve, (_, series)) in self.chart.curves.iter().enumerate() {
            self.draw_raw(series, Ink { curve, is_ghost: is_smoothed }, &mut canvas);
        }
        if is_smoothed {
            for (curve, (_, series)) in self.chart.curves.iter().enumerate() {
                self.draw_smooth(series, Ink { curve, is_ghost: false }, &mut canvas);
            }
        }
        canvas.render(self.look.theme, buffer);
    }

    /// The dot of a step and a value.
    fn dot(&self, step: u64, value: f64, (columns, rows): (i32, i32)) -> Option<(i32, i32)> {
        let height = self.height(value)?;
        let [start, end] = self.look.window;
        let x = (step as f64 - start as f64) / (end - start).max(1) as f64;
        let y = (self.values[1] - height) / (self.values[1] - self.values[0]);
        // Outside the window, but not so far that numbers overflow: strokes come from there.
        let at = |share: f64, count: i32| (share.clamp(-1.0, 2.0) * f64::from(count - 1)).round();
        Some((at(x, columns) as i32, at(y, rows) as i32))
    }

    /// A stroke from the smallest to the largest value of each bucket, joined from bucket to bucket
    /// unless something between them was not finite.
    fn draw_raw(&self, series: &Series, ink: Ink, canvas: &mut Canvas) {
        let size = canvas.dots();
        let mut previous: Option<(u64, (i32, i32))> = None;
        for bucket in self.shown(series) {
            let (step, value) = bucket.last;
            let Some(high) = self.dot(step, bucket.max, size) else { continue };
            let low = self.dot(step, bucket.min, size).unwrap_or(high);
            let end = self.dot(step, value, size).unwrap_or(high);
            let is_inside = (0..size.0).contains(&high.0);
            if is_inside {
                canvas.stroke(low, high, ink);
            }
            if let Some((before, from)) = previous
                && series.broken().range(before..=step).next().is_none()
            {
                canvas.stroke(from, end, ink);
            }
            previous = Some((step, end));
        }
    }

    /// The buckets in the window, and one more to each side so that strokes reach its edges.
    fn shown<'s>(&self, series: &'s Series) -> impl Iterator<Item = &'s super::Bucket> {
        let [start, end] = self.look.window;
        let before = series.buckets().rev().find(|bucket| bucket.last.0 < start);
        let after = series.buckets().find(move |bucket| bucket.last.0 > end);
        let inside = series.buckets().filter(move |b| (start..=end).contains(&b.last.0));
        before.into_iter().chain(inside).chain(after)
    }

    fn draw_smooth(&self, series: &Series, ink: Ink, canvas: &mut Canvas) {
        let [start, end] = self.look.window;
        let size = canvas.dots();
        let mut previous = None;
        for (step, value) in series.smoothed(self.look.half_life) {
            let Some(to) = self.dot(step, value, size) else { continue };
            if let Some((before, from)) = previous
                && before <= end
                && step >= start
            {
                canvas.stroke(from, to, ink);
            }
            previous = Some((step, to));
        }
    }

    fn draw_cursor(&self, plot: Rect, buffer: &mut Buffer) {
        let Some(column) = self.look.cursor.and_then(|step| self.column(step, plot.width)) else {
            return;
        };
        for row in plot.rows() {
            if let Some(cell) = buffer.cell_mut((plot.x + column, row.y))
                && cell.symbol() == " "
            {
                cell.set_char('│').set_style(self.look.theme.faint());
            }
        }
    }

    /// What happened at which step, along the bottom of the plot.
    fn draw_marks(&self, plot: Rect, buffer: &mut Buffer) {
        if plot.height < 4 {
            return;
        }
        let theme = self.look.theme;
        let mut put = |step: u64, sign: char, style| {
            let Some(column) = self.column(step, plot.width) else { return };
            if let Some(cell) = buffer.cell_mut((plot.x + column, plot.bottom() - 1)) {
                cell.set_char(sign).set_style(style);
            }
        };
        if let Some(marks) = self.look.marks {
            marks.checkpoints.iter().for_each(|step| put(*step, '▪', theme.faint()));
            marks.resumes.iter().for_each(|step| put(*step, '↻', STRONG));
            // All bests but the last are history.
            marks.bests.last().into_iter().for_each(|step| put(*step, '★', theme.good()));
        }
        for (_, series) in &self.chart.curves {
            series.broken().iter().for_each(|step| put(*step, '✖', theme.alarm()));
        }
    }
}
