//! The columns of the table of jobs: what each shows, how it orders jobs, and which of them fit.
//!
//! Knows neither keys nor where the table stands.

use super::facts::{FarmFacts, JobFacts};
use super::ui::FarmUi;
use crate::runlog::farm::JobState;
use crate::watch::messages::Pattern;
use crate::watch::numbers;
use crate::watch::theme::{STRONG, Theme};
use ratatui::style::Style;
use ratatui::text::Line;
use std::cmp::Ordering;

/// Columns of the name of a job, at least.
const NAME_WIDTH: u16 = 16;
/// Characters of a bar.
const BAR: usize = 8;

/// One job, and the farm that it is of.
#[derive(Clone, Copy)]
pub(super) struct JobRow<'a> {
    pub(super) farm: &'a FarmFacts,
    pub(super) job: &'a JobFacts,
    pub(super) theme: Theme,
}

/// A column of the table.
pub(super) struct Column {
    title: &'static str,
    /// Columns of the screen.
    pub(super) width: u16,
    /// What decides the order; none comes last. Of the first column the place in the list does.
    value: fn(&JobRow<'_>) -> Option<f64>,
    text: fn(&JobRow<'_>) -> Line<'static>,
    /// Which columns leave first where there is little room: those with the largest number.
    leaves: u8,
}

const fn column(
    (title, width, leaves): (&'static str, u16, u8),
    value: fn(&JobRow<'_>) -> Option<f64>,
    text: fn(&JobRow<'_>) -> Line<'static>,
) -> Column {
    Column { title, width, value, text, leaves }
}

/// All columns, in the order of the table.
pub(super) const COLUMNS: &[Column] = &[
    column(("job", NAME_WIDTH, 0), |_| None, |row| Line::from(row.job.job.name.clone())),
    column(("state", 9, 1), |row| Some(urgency(row.job.report.state)), state),
    column(("progress", 14, 2), |row| row.job.progress(), bar),
    column(
        ("step", 13, 9),
        |row| Some(row.job.course.step as f64),
        |row| match row.job.job.total_steps {
            Some(total) => Line::from(format!("{}/{total}", row.job.course.step)),
            None => Line::default(),
        },
    ),
    column(("Dice", 6, 3), |row| row.job.course.mean_dice, |row| dice(row.job.course.mean_dice)),
    column(
        ("best", 6, 7),
        |row| row.job.course.best_mean_dice,
        |row| dice(row.job.course.best_mean_dice),
    ),
    column(
        ("left", 10, 6),
        |row| row.job.left_ms().map(|left| left as f64),
        |row| Line::from(row.job.left_ms().map_or_else(String::new, numbers::duration)),
    ),
    column(("hours", 8, 4), |row| Some(hours(row)), |row| Line::from(format!("{:.2}", hours(row)))),
    column(
        ("tries", 5, 8),
        |row| Some(f64::from(row.job.report.attempts)),
        |row| Line::from(row.job.report.attempts.to_string()),
    ),
    column(
        ("exit", 4, 5),
        |row| exit_code(row).map(f64::from),
        |row| match exit_code(row) {
            Some(code) => Line::styled(code.to_string(), row.theme.alarm()),
            None => Line::default(),
        },
    ),
];

impl Column {
    /// Its head: hours are those of GPUs where there are any.
    pub(super) fn title(&self, farm: &FarmFacts) -> &'static str {
        match self.title {
            "hours" if farm.has_gpus() => "GPU-h",
            "hours" => "core-h",
            title => title,
        }
    }

    /// What it says of a job.
    pub(super) fn text(&self, row: &JobRow<'_>) -> Line<'static> {
        (self.text)(row)
    }
}

/// The columns for which there is room, by their places in [`COLUMNS`].
pub(super) fn fitting(width: u16) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..COLUMNS.len()).collect();
    let needed = |shown: &[usize]| {
        let columns: u16 = shown.iter().map(|&place| COLUMNS[place].width).sum();
        columns + shown.len() as u16 - 1
    };
    while shown.len() > 1 && needed(&shown) > width {
        let leaving = shown.iter().enumerate().max_by_key(|(_, place)| COLUMNS[**place].leaves);
        if let Some((index, _)) = leaving {
            shown.remove(index);
        }
    }
    shown
}

/// The jobs that pass the filters, by their places in the list, in the order of the table.
pub(super) fn arranged(farm: &FarmFacts, ui: &FarmUi) -> Vec<usize> {
    let pattern = Pattern::new(&ui.pattern);
    let theme = Theme::default();
    let passes = |job: &JobFacts| {
        let texts = [&job.job.name, &job.job.row, &job.report.message];
        ui.state.is_none_or(|state| state == job.report.state)
            && texts.into_iter().any(|text| pattern.matches(text))
    };
    let jobs = farm.jobs.iter().enumerate().filter(|(_, job)| passes(job));
    let column = &COLUMNS[ui.sort % COLUMNS.len()];
    let value = |(place, job)| (place, (column.value)(&JobRow { farm, job, theme }));
    let mut places: Vec<(usize, Option<f64>)> = jobs.map(value).collect();
    places.sort_by(|a, b| {
        let order = match (a.1, b.1) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            // What is not known comes last whatever the order.
            (Some(_), None) => return Ordering::Less,
            (None, Some(_)) => return Ordering::Greater,
            (None, None) => a.0.cmp(&b.0),
        };
        if ui.is_descending { order.reverse() } else { order }
    });
    places.into_iter().map(|(place, _)| place).collect()
}

/// States by what a person looks for first.
fn urgency(state: JobState) -> f64 {
    let order = [
        JobState::Failed,
        JobState::Blocked,
        JobState::Stopped,
        JobState::Running,
        JobState::Waiting,
        JobState::Done,
    ];
    order.iter().position(|own| *own == state).unwrap_or_default() as f64
}

/// A mark and a word for a state.
pub(super) fn words(state: JobState, theme: Theme) -> (String, Style) {
    let (mark, style) = match state {
        JobState::Waiting => ('○', theme.faint()),
        JobState::Running => ('●', theme.good()),
        JobState::Done => ('✔', theme.good()),
        JobState::Failed => ('✖', theme.alarm()),
        JobState::Stopped => ('■', STRONG),
        JobState::Blocked => ('◐', theme.alarm()),
    };
    (format!("{mark} {}", state.name()), style)
}

fn state(row: &JobRow<'_>) -> Line<'static> {
    if row.job.problem.is_some() {
        return Line::styled("? damaged", row.theme.alarm());
    }
    let (word, style) = words(row.job.report.state, row.theme);
    Line::styled(word, style)
}

fn bar(row: &JobRow<'_>) -> Line<'static> {
    let Some(share) = row.job.progress() else { return Line::from(numbers::absent()) };
    let full = (share * BAR as f64).floor() as usize;
    let bar = "█".repeat(full) + &"░".repeat(BAR - full.min(BAR));
    Line::from(format!("{bar} {:>3.0} %", (share * 100.0).floor()))
}

fn dice(value: Option<f64>) -> Line<'static> {
    Line::from(value.map_or_else(String::new, |value| format!("{value:.4}")))
}

fn hours(row: &JobRow<'_>) -> f64 {
    let until_ms = row.farm.until_ms(row.job);
    if row.farm.has_gpus() { row.job.gpu_hours(until_ms) } else { row.job.core_hours(until_ms) }
}

/// How it ended last, where that was not well.
fn exit_code(row: &JobRow<'_>) -> Option<i32> {
    row.job.report.exit_code.filter(|code| *code != 0)
}
