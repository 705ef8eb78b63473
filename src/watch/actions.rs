//! What each key does to the state of the screen; which key does it stands in `update`.

use super::ui::{CasesUi, CurvesUi, Known, Overlay, Replay, Request, Tab, Ui};
use crate::runlog::Level;
use ratatui::crossterm::event::KeyCode;

/// The share of the whole time that a replay goes on or back at once.
const SCRUB_SHARE: u64 = 50;

pub(super) fn help(ui: &mut Ui, _: &Known) {
    ui.overlay = Overlay::Help;
}

pub(super) fn ask_stop(ui: &mut Ui, _: &Known) {
    ui.overlay = Overlay::StopQuestion;
}

pub(super) fn ask_checkpoint(ui: &mut Ui, _: &Known) {
    ui.overlay = Overlay::CheckpointQuestion;
}

pub(super) fn tab(ui: &mut Ui, tab: Tab) {
    ui.tab = tab;
}

pub(super) fn next_tab(ui: &mut Ui, _: &Known) {
    ui.tab = Tab::ALL[(ui.tab as usize + 1) % Tab::ALL.len()];
}

pub(super) fn select_run(ui: &mut Ui, run: usize) -> Option<Request> {
    if run == ui.selected {
        return None;
    }
    let left = std::mem::replace(&mut ui.selected, run);
    // Positions belong to the run that was left.
    ui.cases = CasesUi::default();
    ui.curves = CurvesUi {
        log_scale: ui.curves.log_scale,
        smoothing: ui.curves.smoothing,
        columns: ui.curves.columns,
        ..CurvesUi::default()
    };
    ui.replay.take().map(|_| Request::Travel { run: left, until_ms: None })
}

pub(super) fn next_run(ui: &mut Ui, _: &Known) -> Option<Request> {
    select_run(ui, (ui.selected + 1) % ui.runs.max(1))
}

pub(super) fn previous_run(ui: &mut Ui, _: &Known) -> Option<Request> {
    let runs = ui.runs.max(1);
    select_run(ui, (ui.selected + runs - 1) % runs)
}

pub(super) fn focus(ui: &mut Ui, _: &Known) {
    ui.curves.is_focused = !ui.curves.is_focused;
}

pub(super) fn next_chart(ui: &mut Ui, known: &Known) {
    ui.curves.selected = (ui.curves.selected + 1) % known.charts.max(1);
}

pub(super) fn previous_chart(ui: &mut Ui, known: &Known) {
    let charts = known.charts.max(1);
    ui.curves.selected = (ui.curves.selected + charts - 1) % charts;
}

pub(super) fn columns(ui: &mut Ui, _: &Known) {
    ui.curves.columns = (ui.curves.columns + 1) % 5;
}

pub(super) fn log_scale(ui: &mut Ui, _: &Known) {
    ui.curves.log_scale = !ui.curves.log_scale;
}

pub(super) fn smooth(ui: &mut Ui, _: &Known) {
    ui.curves.smoothing = (ui.curves.smoothing + 1) % CurvesUi::HALF_LIVES.len();
}

pub(super) fn zoom_in(ui: &mut Ui, known: &Known) {
    zoom(ui, known, (0.5, ui.curves.cursor));
}

pub(super) fn zoom_out(ui: &mut Ui, known: &Known) {
    zoom(ui, known, (2.0, ui.curves.cursor));
}

/// Shows `factor` times as many steps; `around` stays where it is, the end where that is `None`.
pub(super) fn zoom(ui: &mut Ui, known: &Known, (factor, around): (f64, Option<u64>)) {
    let [start, end] = ui.curves.window(known.extent);
    let whole = known.extent[1].saturating_sub(known.extent[0]).max(1);
    let old = end - start;
    let span = ((old as f64 * factor).round() as u64).clamp(1, whole);
    ui.curves.span = (span < whole).then_some(span);
    if ui.curves.span.is_none() {
        ui.curves.end = None;
    } else if let Some(step) = around {
        let share = (step.clamp(start, end) - start) as f64 / old.max(1) as f64;
        let after = ((1.0 - share) * span as f64).round() as u64;
        ui.curves.end = Some(step.clamp(start, end).saturating_add(after));
    }
}

fn pan(ui: &mut Ui, known: &Known, direction: i64) {
    let [start, end] = ui.curves.window(known.extent);
    let by = ((end - start) / 2).max(1);
    let moved = if direction < 0 { end.saturating_sub(by) } else { end.saturating_add(by) };
    let lowest = known.extent[0].saturating_add(end - start);
    ui.curves.end = (moved < known.extent[1]).then_some(moved.max(lowest));
}

pub(super) fn pan_left(ui: &mut Ui, known: &Known) {
    pan(ui, known, -1);
}

pub(super) fn pan_right(ui: &mut Ui, known: &Known) {
    pan(ui, known, 1);
}

pub(super) fn follow(ui: &mut Ui, _: &Known) {
    ui.curves.end = None;
}

pub(super) fn whole(ui: &mut Ui, _: &Known) {
    (ui.curves.span, ui.curves.end) = (None, None);
}

/// Moves the cursor by a fiftieth of what is shown; it comes in at the right edge.
fn move_cursor(ui: &mut Ui, known: &Known, direction: i64) {
    let [start, end] = ui.curves.window(known.extent);
    let by = ((end - start) / 50).max(1);
    let moved = match ui.curves.cursor {
        None => end,
        Some(at) if direction < 0 => at.saturating_sub(by),
        Some(at) => at.saturating_add(by),
    };
    ui.curves.cursor = Some(moved.clamp(start, end));
}

pub(super) fn cursor_left(ui: &mut Ui, known: &Known) {
    move_cursor(ui, known, -1);
}

pub(super) fn cursor_right(ui: &mut Ui, known: &Known) {
    move_cursor(ui, known, 1);
}

pub(super) fn cursor_off(ui: &mut Ui, _: &Known) {
    ui.curves.cursor = None;
}

fn sort(ui: &mut Ui, known: &Known, by: usize) {
    ui.ranks.sort = (ui.ranks.sort + by) % known.rank_columns.max(1);
}

pub(super) fn sort_next(ui: &mut Ui, known: &Known) {
    sort(ui, known, 1);
}

pub(super) fn sort_previous(ui: &mut Ui, known: &Known) {
    sort(ui, known, known.rank_columns.max(1) - 1);
}

pub(super) fn sort_order(ui: &mut Ui, _: &Known) {
    ui.ranks.is_descending = !ui.ranks.is_descending;
}

pub(super) fn heat_map(ui: &mut Ui, _: &Known) {
    ui.ranks.is_heat_map = !ui.ranks.is_heat_map;
}

pub(super) fn ranks_down(ui: &mut Ui, known: &Known) {
    ui.ranks.top = (ui.ranks.top + 1).min(known.ranks.saturating_sub(1) as usize);
}

pub(super) fn ranks_up(ui: &mut Ui, _: &Known) {
    ui.ranks.top = ui.ranks.top.saturating_sub(1);
}

fn slice(ui: &mut Ui, known: &Known, by: usize) {
    let slices = known.slices.max(1);
    let at = ui.cases.slice.unwrap_or(slices / 2);
    ui.cases.slice = Some((at + by) % slices);
}

pub(super) fn slice_next(ui: &mut Ui, known: &Known) {
    slice(ui, known, 1);
}

pub(super) fn slice_previous(ui: &mut Ui, known: &Known) {
    slice(ui, known, known.slices.max(1) - 1);
}

pub(super) fn picture_next(ui: &mut Ui, known: &Known) {
    ui.cases.picture = (ui.cases.picture + 1) % known.pictures.max(1);
    ui.cases.slice = None;
}

pub(super) fn cases_down(ui: &mut Ui, known: &Known) {
    ui.cases.top = (ui.cases.top + 1).min(known.rows.saturating_sub(1));
}

pub(super) fn cases_up(ui: &mut Ui, _: &Known) {
    ui.cases.top = ui.cases.top.saturating_sub(1);
}

pub(super) fn level(ui: &mut Ui, _: &Known) {
    ui.messages.level = match ui.messages.level {
        Level::Debug => Level::Info,
        Level::Info => Level::Warning,
        Level::Warning => Level::Error,
        Level::Error => Level::Debug,
    };
    ui.messages.back = 0;
}

pub(super) fn rank_filter(ui: &mut Ui, known: &Known) {
    let next = ui.messages.rank.map_or(0, |rank| rank + 1);
    ui.messages.rank = (next < known.ranks).then_some(next);
    ui.messages.back = 0;
}

pub(super) fn older(ui: &mut Ui, known: &Known) {
    ui.messages.back = (ui.messages.back + 1).min(known.rows.saturating_sub(1));
}

pub(super) fn newer(ui: &mut Ui, _: &Known) {
    ui.messages.back = ui.messages.back.saturating_sub(1);
}

pub(super) fn type_pattern(ui: &mut Ui, _: &Known) {
    ui.is_typing = true;
}

/// A key of a pattern that is being typed.
pub(super) fn type_key(ui: &mut Ui, key: KeyCode) {
    let pattern = match ui.tab {
        Tab::Compare => &mut ui.compare.pattern,
        _ => &mut ui.messages.pattern,
    };
    match key {
        KeyCode::Char(letter) => pattern.push(letter),
        KeyCode::Backspace => {
            pattern.pop();
        }
        KeyCode::Esc => {
            pattern.clear();
            ui.is_typing = false;
        }
        KeyCode::Enter => ui.is_typing = false,
        _ => {}
    }
    ui.messages.back = 0;
}

pub(super) fn metric(ui: &mut Ui, _: &Known) {
    ui.compare.metric += 1;
}

pub(super) fn replay(ui: &mut Ui, known: &Known) -> Request {
    if ui.replay.take().is_some() {
        return Request::Travel { run: ui.selected, until_ms: None };
    }
    travel(ui, known.times_ms[1], false)
}

fn travel(ui: &mut Ui, at_ms: u64, is_playing: bool) -> Request {
    ui.replay = Some(Replay { at_ms, is_playing });
    Request::Travel { run: ui.selected, until_ms: Some(at_ms) }
}

/// Lets time go on; from the beginning where it stands at the end, or where there is no replay yet.
pub(super) fn play(ui: &mut Ui, known: &Known) -> Request {
    match ui.replay {
        Some(Replay { at_ms, is_playing }) if is_playing || at_ms < known.times_ms[1] => {
            travel(ui, at_ms, !is_playing)
        }
        _ => travel(ui, known.times_ms[0], true),
    }
}

/// Goes on or back by a fixed share of the whole time; nothing where there is no replay.
pub(super) fn scrub(ui: &mut Ui, known: &Known, direction: i64) -> Option<Request> {
    let Replay { at_ms, is_playing } = ui.replay?;
    let [first, last] = known.times_ms;
    let by = (last.saturating_sub(first) / SCRUB_SHARE).max(1);
    let moved = if direction < 0 { at_ms.saturating_sub(by) } else { at_ms.saturating_add(by) };
    Some(travel(ui, moved.clamp(first, last.max(first)), is_playing))
}
