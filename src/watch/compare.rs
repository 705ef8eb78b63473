//! Several runs side by side: one curve of each in a chart, their scores, and where their
//! configurations differ.

use super::chart::Chart;
use super::charts::{self, framed_chart};
use super::frame::{Shown, framed};
use super::header;
use super::messages::Pattern;
use super::numbers;
use super::series::Series;
use super::settings::Settings;
use super::state::Dashboard;
use super::targets::{Target, Targets};
use super::ui::Ui;
use crate::words::counted;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table, Widget};
use std::collections::BTreeSet;

/// Keys whose values are not the same in all configurations.
fn differences(all: &[&Settings]) -> Vec<String> {
    let keys: BTreeSet<&String> = all.iter().flat_map(|settings| settings.keys()).collect();
    let differs = |key: &&&String| {
        let values: BTreeSet<_> = all.iter().map(|settings| settings.get(**key)).collect();
        values.len() > 1
    };
    keys.iter().filter(differs).map(|key| (*key).clone()).collect()
}

/// Curves that can be compared: by their titles, those that any run has.
fn metrics(runs: &[(usize, &Shown<'_>)]) -> Vec<String> {
    let mut names: Vec<String> = vec!["mean Dice".to_owned()];
    for (_, run) in runs {
        for chart in charts::all(run.dashboard) {
            let single = |name: &str| match name {
                "" => chart.title.clone(),
                name => format!("{} · {name}", chart.title),
            };
            for name in chart.curves.iter().map(|(name, _)| single(name)) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
    }
    names
}

/// The curve of a run that `metrics` names so.
fn curve<'a>(dashboard: &'a Dashboard, metric: &str) -> Option<&'a Series> {
    charts::all(dashboard).into_iter().find_map(|chart| {
        let rest = metric.strip_prefix(chart.title.as_str())?;
        let name = rest.strip_prefix(" · ").unwrap_or(rest);
        chart.curves.iter().find(|(own, _)| *own == name).map(|(_, series)| *series)
    })
}

/// The whole view.
pub(super) fn panel(
    runs: &[Shown<'_>],
    ui: &Ui,
    area: Rect,
    buffer: &mut Buffer,
    targets: &mut Targets,
) {
    let pattern = Pattern::new(&ui.compare.pattern);
    let passes =
        |run: &Shown<'_>| pattern.matches(run.name) || pattern.matches(&header::subject(run));
    let passing: Vec<(usize, &Shown<'_>)> =
        runs.iter().enumerate().filter(|(_, run)| passes(run)).collect();
    let rows = (passing.len() as u16 + 3).min(area.height / 3).max(4);
    let settings: Vec<&Settings> = passing.iter().filter_map(|(_, run)| run.settings).collect();
    let keys = differences(&settings);
    let lower = if keys.is_empty() { 0 } else { (keys.len() as u16 + 3).min(area.height / 3) };
    let [upper, middle, lower] =
        Layout::vertical([Constraint::Min(6), Constraint::Length(rows), Constraint::Length(lower)])
            .areas(area);
    draw_curves(runs, (&passing, ui), upper, buffer, targets);
    draw_runs((&passing, ui), middle, buffer, targets);
    draw_differences(&passing, &keys, lower, buffer);
}

fn draw_curves(
    runs: &[Shown<'_>],
    (passing, ui): (&[(usize, &Shown<'_>)], &Ui),
    area: Rect,
    buffer: &mut Buffer,
    targets: &mut Targets,
) {
    let metrics = metrics(passing);
    let metric = &metrics[ui.compare.metric % metrics.len()];
    let curves: Vec<(&str, &Series)> = passing
        .iter()
        .filter_map(|(_, run)| Some((run.name, curve(run.dashboard, metric)?)))
        .collect();
    let extents = passing.iter().map(|(_, run)| run.dashboard.extent());
    let merge = |a: [u64; 2], b: [u64; 2]| [a[0].min(b[0]), a[1].max(b[1])];
    let extent = extents.reduce(merge).unwrap_or([0, 1]);
    let chart = Chart { title: metric.clone(), curves, bounds: None };
    let run = &runs[ui.selected];
    let look = super::chart::Look {
        window: ui.curves.window(extent),
        // Marks of one run would be taken for those of all.
        marks: None,
        ..charts::look(run, ui)
    };
    framed_chart(run, (&chart, 0, look), area, buffer, targets);
}

fn draw_runs(
    (passing, ui): (&[(usize, &Shown<'_>)], &Ui),
    area: Rect,
    buffer: &mut Buffer,
    targets: &mut Targets,
) {
    let Some((_, first)) = passing.first() else {
        Line::from(format!("no run matches /{}/", ui.compare.pattern)).render(area, buffer);
        return;
    };
    let typed = if ui.is_typing { "▏" } else { "" };
    let filter = match (ui.compare.pattern.is_empty(), ui.is_typing) {
        (true, false) => String::new(),
        _ => format!(" · /{}{typed}/", ui.compare.pattern),
    };
    let title = format!("{}{filter}", counted(passing.len(), "run"));
    let inside = framed(first.theme, &title, area, buffer);
    let best = passing.iter().filter_map(|(_, run)| best_dice(run)).fold(f64::NAN, f64::max);
    let selected = passing.iter().position(|(index, _)| *index == ui.selected).unwrap_or(0);
    let room = usize::from(inside.height.saturating_sub(1)).max(1);
    let top = (selected + 1).saturating_sub(room);
    let rows = passing.iter().enumerate().skip(top).take(room).map(|(place, (index, run))| {
        let y = inside.y + 1 + (place - top) as u16;
        targets.push((Rect { y, height: 1, ..inside }, Target::Run(*index)));
        let style = if *index == ui.selected { run.theme.selected() } else { Style::new() };
        run_row(run, (place, best)).style(style)
    });
    let titles = ["", "run", "state", "step", "best Dice", "behind", "last", "images/s"];
    let widths = [1, 0, 18, 14, 9, 8, 7, 8].map(|width| match width {
        0 => Constraint::Fill(1),
        width => Constraint::Length(width),
    });
    Table::new(rows, widths)
        .header(Row::new(titles).style(first.theme.faint()))
        .column_spacing(1)
        .render(inside, buffer);
}

fn best_dice(run: &Shown<'_>) -> Option<f64> {
    let best = run.dashboard.evaluated.as_ref().map(|scores| scores.best_mean_dice);
    best.filter(|dice| dice.is_finite())
}

fn run_row(run: &Shown<'_>, (place, best): (usize, f64)) -> Row<'static> {
    let dashboard = run.dashboard;
    let (word, style) = header::state(run);
    let score =
        |value: Option<f64>| value.map_or_else(numbers::absent, |value| format!("{value:.4}"));
    let own = best_dice(run);
    let behind = own.map_or_else(numbers::absent, |own| match best - own {
        0.0 => "★".to_owned(),
        gap => format!("{gap:.4}"),
    });
    let last = dashboard.evaluated.as_ref().map(|scores| scores.mean_dice);
    let speed = dashboard.step.as_ref().map(|(_, step)| numbers::value(step.images_per_second));
    let sign = if run.theme.is_ascii { super::theme::Theme::sign(place) } else { '●' };
    Row::new([
        Cell::from(Line::styled(sign.to_string(), run.theme.curve(place))),
        Cell::from(run.name.to_owned()),
        Cell::from(Line::styled(word, style)),
        Cell::from(format!("{}/{}", dashboard.current_step(), dashboard.total_steps())),
        Cell::from(score(own)),
        Cell::from(behind),
        Cell::from(score(last)),
        Cell::from(speed.unwrap_or_else(numbers::absent)),
    ])
}

fn draw_differences(
    passing: &[(usize, &Shown<'_>)],
    keys: &[String],
    area: Rect,
    buffer: &mut Buffer,
) {
    let Some((_, first)) = passing.first().filter(|_| !area.is_empty()) else { return };
    let title = format!("{} in configuration", counted(keys.len(), "difference"));
    let inside = framed(first.theme, &title, area, buffer);
    let with: Vec<(&str, &Settings)> =
        passing.iter().filter_map(|(_, run)| Some((run.name, run.settings?))).collect();
    let key_columns = keys.iter().map(|key| key.chars().count()).max().unwrap_or(0).min(40) as u16;
    let count = with.len().min(usize::from(inside.width.saturating_sub(key_columns) / 14).max(1));
    let rows = keys.iter().take(usize::from(inside.height)).map(|key| {
        let value = |(_, settings): &(&str, &Settings)| {
            settings.get(key).cloned().unwrap_or_else(|| "–".to_owned())
        };
        Row::new([key.clone()].into_iter().chain(with[..count].iter().map(value)))
    });
    let names = with[..count].iter().map(|(name, _)| (*name).to_owned());
    let widths = std::iter::once(Constraint::Length(key_columns));
    let widths = widths.chain(std::iter::repeat_n(Constraint::Fill(1), count));
    Table::new(rows, widths)
        .header(Row::new([String::new()].into_iter().chain(names)).style(first.theme.faint()))
        .column_spacing(1)
        .render(inside, buffer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::settings::settings;

    #[test]
    fn differences_are_found_at_any_depth() {
        let a = settings("[train]\nsteps = 3\nlr = 0.1\n[method.params]\nclip = 1.0");
        let b = settings("[train]\nsteps = 3\nlr = 0.2\n[data]\nfold = 2");
        let found = differences(&[&a, &b]);
        assert_eq!(found, ["data.fold", "method.params.clip", "train.lr"]);
        assert!(settings("no = toml = here").is_empty());
    }
}
