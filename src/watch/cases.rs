//! Held-out cases: the table of scores, worst first, and pictures of a few.
//!
//! Draws what `scored` has read, and reads nothing.

use super::frame::{Shown, framed};
use super::numbers;
use super::picture::{self, Legend};
use super::scored::CasesShown;
use super::theme::STRONG;
use super::ui::Ui;
use crate::runlog::preview::Preview;
use crate::words::counted;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table, Widget};

/// Where the table and the picture stand.
pub(super) fn split(area: Rect) -> [Rect; 2] {
    if area.width >= 100 {
        Layout::horizontal([Constraint::Length(58), Constraint::Min(0)]).areas(area)
    } else if area.height >= 16 {
        Layout::vertical([Constraint::Percentage(40), Constraint::Min(0)]).areas(area)
    } else {
        [area, Rect::default()]
    }
}

/// The room for the picture itself, inside frame and legend.
pub(super) fn picture_area(area: Rect) -> Rect {
    let [_, right] = split(area);
    let inside = right.inner(ratatui::layout::Margin::new(1, 1));
    Rect { y: inside.y + 1, height: inside.height.saturating_sub(2), ..inside }
}

/// The whole view.
pub(super) fn panel(run: &Shown<'_>, ui: &Ui, area: Rect, buffer: &mut Buffer) {
    let [left, right] = split(area);
    let Some(cases) = run.cases.filter(|cases| !cases.rows.is_empty()) else {
        let inside = framed(run.theme, "held-out cases", area, buffer);
        let text = "no case is scored yet";
        Line::from(text).style(run.theme.faint()).render(inside, buffer);
        return;
    };
    table(run, (cases, ui.cases.top), left, buffer);
    if right.is_empty() {
        return;
    }
    let slices = cases.preview().map_or(0, Preview::slices);
    let slice = ui.cases.slice.unwrap_or(slices / 2).min(slices.saturating_sub(1));
    let title = match &cases.opened {
        Some((index, Ok(_))) => {
            let (name, _) = &cases.pictures[*index];
            format!("{name} · slice {} of {slices}", slice + 1)
        }
        _ => "picture".to_owned(),
    };
    let inside = framed(run.theme, &title, right, buffer);
    let problem = match &cases.opened {
        Some((_, Err(problem))) => Some(problem.as_str()),
        None => Some("no pictures were written at this step"),
        Some((_, Ok(_))) => None,
    };
    if let Some(problem) = problem {
        Line::from(problem).style(run.theme.faint()).render(inside, buffer);
        return;
    }
    let classes = run.dashboard.started.as_ref().map(|(_, started)| started.classes.as_slice());
    let made = cases.preview().map(|preview| preview.made.iter().map(|made| made.name.as_str()));
    let made = made.into_iter().flatten().collect();
    let classes = classes.unwrap_or_default();
    Legend { classes, made, theme: run.theme }.render(inside, buffer);
    picture::render(run, (cases, slice), picture_area(area), buffer);
}

fn table(run: &Shown<'_>, (cases, top): (&CasesShown, usize), area: Rect, buffer: &mut Buffer) {
    let unit = cases.rows.first().and_then(|row| row.unit);
    let unit = unit.filter(|unit| cases.rows.iter().all(|row| row.unit == Some(*unit)));
    let unit = unit.map(|unit| format!(", in {}", unit.name())).unwrap_or_default();
    let count = counted(cases.rows.len(), "score");
    let title = format!("step {} · {count}, worst first{unit}", cases.step);
    let inside = framed(run.theme, &title, area, buffer);
    let number = |value: f64| {
        let text = if value.is_nan() { numbers::absent() } else { numbers::value(value) };
        Cell::from(Line::from(text).right_aligned())
    };
    let rows = cases.rows.iter().skip(top.min(cases.rows.len().saturating_sub(1)));
    let rows = rows.take(usize::from(inside.height)).map(|row| {
        let style = if row.dice < 0.5 { run.theme.alarm() } else { STRONG };
        let dice = number(row.dice).style(style);
        let names = [row.case.clone(), row.structure.clone()].map(Cell::from);
        Row::new(names.into_iter().chain([dice, number(row.hd95), number(row.asd)]))
    });
    let widths = [
        Constraint::Fill(2),
        Constraint::Fill(1),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
    ];
    let titles = ["case", "structure", "Dice", "HD95", "ASD"].map(|title| {
        let line = Line::styled(title, run.theme.faint());
        Cell::from(if title.len() == 4 && title != "case" || title == "ASD" {
            line.right_aligned()
        } else {
            line
        })
    });
    Table::new(rows, widths).column_spacing(1).header(Row::new(titles)).render(inside, buffer);
}
