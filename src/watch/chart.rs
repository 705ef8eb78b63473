//! Curves over steps, drawn in Braille dots: no spike is lost, and no colour is needed to read them.
//!
//! Above the plot stands a legend with the last value of each curve, to its right the same values at
//! the height where the curves end.

use super::numbers;
use super::panels::{STRONG, Theme};
use super::series::Series;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;
use ratatui::widgets::canvas::{Canvas, Context, Line as Stroke};

/// Columns of a number beside the plot.
const NUMBER_COLUMNS: u16 = 8;

/// Curves in one plot.
pub(super) struct Chart<'a> {
    /// Names and values.
    pub(super) curves: Vec<(&'a str, &'a Series)>,
    /// Whether to draw logarithms; values that have none are left out.
    pub(super) log_scale: bool,
    /// The values at the bottom and top; `None` takes them from the curves.
    pub(super) bounds: Option<[f64; 2]>,
    /// How to colour.
    pub(super) theme: Theme,
}

/// Where curves are placed: ranges of steps and of values (or their logarithms).
struct Frame {
    steps: [f64; 2],
    values: [f64; 2],
}

impl Widget for &Chart<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let Some(frame) = self.frame() else {
            Line::from("nothing yet").style(self.theme.faint()).render(area, buffer);
            return;
        };
        let ends = if self.curves.len() > 1 { NUMBER_COLUMNS } else { 1 };
        let [legend, body, steps] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)])
                .areas(area);
        let [scale, plot, ends] = Layout::horizontal([
            Constraint::Length(NUMBER_COLUMNS),
            Constraint::Min(1),
            Constraint::Length(ends),
        ])
        .areas(body);
        self.legend().render(legend, buffer);
        self.draw_scale(&frame, scale, buffer);
        self.draw_curves(&frame, plot, buffer);
        self.draw_ends(&frame, ends, buffer);
        let steps_area = Rect { x: plot.x, width: plot.width, ..steps };
        let first = Line::from(format!("{:.0}", frame.steps[0])).style(self.theme.faint());
        let last = Line::from(format!("step {:.0}", frame.steps[1])).style(self.theme.faint());
        if plot.width > 24 {
            first.render(steps_area, buffer);
        }
        last.right_aligned().render(steps_area, buffer);
    }
}

impl Chart<'_> {
    /// The height of a value; `None` where it has no logarithm.
    fn height(&self, value: f64) -> Option<f64> {
        if self.log_scale { (value > 0.0).then(|| value.log10()) } else { Some(value) }
    }

    fn frame(&self) -> Option<Frame> {
        let buckets = || self.curves.iter().flat_map(|(_, series)| series.buckets());
        let (first, last) = buckets().fold((u64::MAX, 0), |(first, last), bucket| {
            (first.min(bucket.last.0), last.max(bucket.last.0))
        });
        let heights = buckets().flat_map(|bucket| [bucket.min, bucket.max]);
        let [low, high] = heights
            .filter_map(|value| self.height(value))
            .fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], height| {
                [low.min(height), high.max(height)]
            });
        if low > high {
            return None;
        }
        // A flat curve needs some room around it, whatever its size.
        let room = if low < high { 0.0 } else { low.abs().max(1e-6) * 0.5 };
        Some(Frame {
            steps: [first as f64, (last as f64).max(first as f64 + 1.0)],
            values: self.bounds.unwrap_or([low - room, high + room]),
        })
    }

    fn style(&self, index: usize) -> Style {
        self.theme.curve(index)
    }

    fn legend(&self) -> Line<'static> {
        let mut spans = Vec::new();
        for (index, (name, series)) in self.curves.iter().enumerate() {
            let last = series.last().map_or_else(|| "none".to_owned(), numbers::value);
            spans.push(Span::styled(format!("{name} "), self.style(index)));
            spans.push(Span::styled(last, self.style(index).patch(STRONG)));
            if let Some(step) = series.first_broken_step {
                spans.push(Span::styled(format!(" not finite at {step}"), self.theme.alarm()));
            }
            spans.push(Span::raw("  "));
        }
        Line::from(spans)
    }

    fn draw_scale(&self, frame: &Frame, area: Rect, buffer: &mut Buffer) {
        let rows = area.height.saturating_sub(1);
        let marks = if rows >= 6 { vec![0, rows / 2, rows] } else { vec![0, rows] };
        for row in marks {
            let share = 1.0 - f64::from(row) / f64::from(rows.max(1));
            let height = frame.values[0] + share * (frame.values[1] - frame.values[0]);
            let value = if self.log_scale { 10f64.powf(height) } else { height };
            let place = Rect { y: area.y + row, height: 1, width: area.width - 1, ..area };
            let mark = Line::from(numbers::value(value)).style(self.theme.faint());
            mark.right_aligned().render(place, buffer);
        }
    }

    fn draw_curves(&self, frame: &Frame, area: Rect, buffer: &mut Buffer) {
        Canvas::default()
            .marker(Marker::Braille)
            .x_bounds(frame.steps)
            .y_bounds(frame.values)
            .paint(|context| {
                for (index, (_, series)) in self.curves.iter().enumerate() {
                    self.draw_curve(index, series, context);
                }
            })
            .render(area, buffer);
    }

    /// A stroke from the smallest to the largest value of each bucket, joined from bucket to bucket.
    fn draw_curve(&self, index: usize, series: &Series, context: &mut Context<'_>) {
        let color = self.theme.dots(index);
        let mut previous: Option<(f64, f64)> = None;
        for bucket in series.buckets() {
            let Some(high) = self.height(bucket.max) else { continue };
            let low = self.height(bucket.min).unwrap_or(high);
            let (x, end) = (bucket.last.0 as f64, self.height(bucket.last.1).unwrap_or(high));
            context.draw(&Stroke { x1: x, y1: low, x2: x, y2: high, color });
            if let Some((x1, y1)) = previous {
                context.draw(&Stroke { x1, y1, x2: x, y2: end, color });
            }
            previous = Some((x, end));
        }
    }

    /// The last values at the height of the curves' ends, pushed down where they would collide.
    fn draw_ends(&self, frame: &Frame, area: Rect, buffer: &mut Buffer) {
        if area.width < NUMBER_COLUMNS {
            return;
        }
        let rows = f64::from(area.height.saturating_sub(1));
        let mut ends: Vec<(f64, usize, f64)> = Vec::new();
        for (index, (_, series)) in self.curves.iter().enumerate() {
            let Some(value) = series.last() else { continue };
            let Some(height) = self.height(value) else { continue };
            let share = (frame.values[1] - height) / (frame.values[1] - frame.values[0]);
            ends.push((share.clamp(0.0, 1.0) * rows, index, value));
        }
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut free = 0;
        for (row, index, value) in ends {
            let row = (row.round() as u16).max(free);
            free = row + 1;
            if row < area.height {
                let place =
                    Rect { x: area.x + 1, y: area.y + row, height: 1, width: area.width - 1 };
                Line::from(numbers::value(value)).style(self.style(index)).render(place, buffer);
            }
        }
    }
}
