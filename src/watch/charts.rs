//! Which charts a run has, and how they share a screen: a grid, or one alone.

use super::chart::{Chart, Drawing, Look};
use super::frame::{Shown, framed_as};
use super::series::Series;
use super::state::{Curves, Dashboard};
use super::targets::{Target, Targets};
use super::theme::STRONG;
use super::ui::Ui;
use crate::runlog::Unit;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::Widget;

/// Columns and rows below which a chart of a grid is not worth its frame.
const SMALLEST: [u16; 2] = [38, 9];
/// Names of ranks, for curves; where there are more, none has a curve of its own.
const RANK_NAMES: [&str; 6] = ["0", "1", "2", "3", "4", "5"];

/// The terms of the loss in one chart.
pub(super) fn losses(dashboard: &Dashboard) -> Chart<'_> {
    Chart { title: "loss".to_owned(), curves: short(&dashboard.losses), bounds: None }
}

/// Dice of each structure.
pub(super) fn dice(dashboard: &Dashboard) -> Chart<'_> {
    Chart {
        title: "Dice on the held-out fold".to_owned(),
        curves: dashboard.by_label(&dashboard.dice),
        bounds: Some([0.0, 1.0]),
    }
}

/// Curves with the learner's name left out where there is only one.
fn short(curves: &Curves) -> Vec<(&str, &Series)> {
    let learner = |name: &str| name.split_once('/').map(|(learner, _)| learner.to_owned());
    let mut learners: Vec<_> = curves.keys().map(|name| learner(name)).collect();
    learners.dedup();
    let is_one = learners.len() == 1;
    let name = |name: &'_ str| -> usize {
        if is_one { name.find('/').map_or(0, |slash| slash + 1) } else { 0 }
    };
    curves.iter().map(|(full, series)| (&full[name(full)..], series)).collect()
}

/// All charts of a run, in the order of the screen.
pub(super) fn all(dashboard: &Dashboard) -> Vec<Chart<'_>> {
    let alone = |title: String, series| Chart { title, curves: vec![("", series)], bounds: None };
    let group = |title: &str, curves| Chart { title: title.to_owned(), curves, bounds: None };
    let mut charts = vec![losses(dashboard)];
    if dashboard.losses.len() > 1 {
        let terms = short(&dashboard.losses).into_iter();
        charts.extend(terms.map(|(name, series)| alone(format!("loss · {name}"), series)));
    }
    let observed = dashboard.observed.iter();
    charts.extend(observed.map(|(name, series)| alone(format!("observed · {name}"), series)));
    charts.push(dice(dashboard));
    let unit = match dashboard.distance_unit {
        Some(Unit::Mm) => "mm",
        Some(Unit::Voxel) => "voxels",
        None => "mm or voxels",
    };
    charts.push(group(&format!("HD95, {unit}"), dashboard.by_label(&dashboard.hd95)));
    charts.push(Chart {
        bounds: Some([0.0, 1.0]),
        ..alone("mean Dice".to_owned(), &dashboard.mean_dice)
    });
    charts.push(group("learning rate", dashboard.rates.iter().map(named).collect()));
    charts.push(group("norm of the gradient", dashboard.gradients.iter().map(named).collect()));
    charts.push(alone("images/s".to_owned(), &dashboard.images_per_second));
    charts.push(alone("time of a step, ms".to_owned(), &dashboard.step_ms));
    // By their numbers and not by their places: one may not have written yet.
    let named = |(rank, state)| Some((*RANK_NAMES.get(rank as usize)?, state));
    if let Some(ranks) = dashboard.ranks().map(named).collect::<Option<Vec<_>>>() {
        let pick = |pick: fn(&super::rank::RankState) -> &Series| {
            ranks.iter().map(|(name, rank)| (*name, pick(rank))).collect()
        };
        charts.push(group("work of each rank, ms", pick(|rank| &rank.work_ms)));
        charts.push(group("memory of each rank, bytes", pick(|rank| &rank.memory_bytes)));
        charts.push(group("GPU or CPU of each rank, %", pick(|rank| &rank.busy_percent)));
    }
    charts.retain(|chart| {
        chart.curves.iter().any(|(_, series)| !series.is_empty() || !series.broken().is_empty())
    });
    charts
}

fn named<'a>((name, series): (&'a String, &'a Series)) -> (&'a str, &'a Series) {
    (name, series)
}

/// How the curves of a run are drawn.
pub(super) fn look<'a>(run: &Shown<'a>, ui: &Ui) -> Look<'a> {
    Look {
        log_scale: ui.curves.log_scale,
        half_life: ui.curves.half_life(),
        window: ui.curves.window(run.dashboard.extent()),
        cursor: ui.curves.cursor,
        marks: Some(&run.dashboard.marks),
        theme: run.theme,
    }
}

/// Draws a chart in a frame; `number` is its place among all, for the mouse.
pub(super) fn framed_chart(
    run: &Shown<'_>,
    (chart, number, look): (&Chart<'_>, usize, Look<'_>),
    area: Rect,
    buffer: &mut Buffer,
    targets: &mut Targets,
) {
    let scale = if look.log_scale { ", logarithmic" } else { "" };
    let smooth =
        if look.half_life > 0.0 { format!(", smoothed {}", look.half_life) } else { String::new() };
    let title = format!(" {}{scale}{smooth} ", chart.title);
    let inside = framed_as(run.theme, Line::from(title).style(STRONG), area, buffer);
    match Drawing::new(chart, look) {
        _ if inside.is_empty() => {}
        None => Line::from("nothing yet").style(run.theme.faint()).render(inside, buffer),
        Some(drawing) => {
            let plot = drawing.render(inside, buffer);
            targets.push((plot, Target::Plot(number, look.window)));
        }
    }
}

/// The view of all charts.
pub(super) fn panel(
    run: &Shown<'_>,
    ui: &Ui,
    area: Rect,
    buffer: &mut Buffer,
    targets: &mut Targets,
) {
    let charts = all(run.dashboard);
    let look = look(run, ui);
    if charts.is_empty() {
        Line::from("nothing yet").style(run.theme.faint()).render(area, buffer);
        return;
    }
    let selected = ui.curves.selected.min(charts.len() - 1);
    let fits = [area.width / SMALLEST[0], area.height / SMALLEST[1]];
    let wanted = if ui.curves.columns == 0 { 3 } else { ui.curves.columns as u16 };
    let columns = fits[0].min(wanted).max(1);
    let rows = fits[1].max(1).min((charts.len() as u16).div_ceil(columns));
    let per_page = usize::from(columns * rows);
    if ui.curves.is_focused || per_page == 1 {
        framed_chart(run, (&charts[selected], selected, look), area, buffer, targets);
        counter(run, selected, charts.len(), area, buffer);
        return;
    }
    let first = selected / per_page * per_page;
    let lines = Layout::vertical(vec![Constraint::Fill(1); rows.into()]).split(area);
    for (index, chart) in charts.iter().enumerate().skip(first).take(per_page) {
        let place = index - first;
        let cells = Layout::horizontal(vec![Constraint::Fill(1); columns.into()])
            .split(lines[place / usize::from(columns)]);
        let cell = cells[place % usize::from(columns)];
        framed_chart(run, (chart, index, look), cell, buffer, targets);
        if index == selected {
            let style = run.theme.good().patch(STRONG);
            Line::from("▸").style(style).render(Rect { width: 1, height: 1, ..cell }, buffer);
            counter(run, selected, charts.len(), cell, buffer);
        }
    }
}

/// Which of how many, in the frame's upper right corner.
fn counter(run: &Shown<'_>, selected: usize, count: usize, area: Rect, buffer: &mut Buffer) {
    let place = Rect { height: 1, width: area.width.saturating_sub(2), ..area };
    let text = format!(" {} of {count} ", selected + 1);
    Line::from(text).style(run.theme.faint()).right_aligned().render(place, buffer);
}
