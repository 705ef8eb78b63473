//! What keys and the mouse do on the farm's screen: one table, from which the handler, the footer and the help come.
//!
//! Pure: an input and the state of the screen in, a new state and perhaps a request out.

use super::columns::{COLUMNS, arranged};
use super::facts::FarmFacts;
use super::ui::{FarmOverlay, FarmRequest, FarmTarget, FarmUi};
use crate::runlog::farm::JobState;
use ratatui::crossterm::event::{
    KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::layout::{Position, Rect};

/// One key.
pub struct FarmKey {
    /// What is pressed.
    pub key: KeyCode,
    /// How the key is written.
    pub name: &'static str,
    /// One word for the footer; empty: not in the footer.
    pub word: &'static str,
    /// One sentence for the help.
    pub help: &'static str,
    action: fn(&mut FarmUi, &FarmFacts) -> Option<FarmRequest>,
}

const fn bind(
    (key, name): (KeyCode, &'static str),
    word: &'static str,
    help: &'static str,
    action: fn(&mut FarmUi, &FarmFacts) -> Option<FarmRequest>,
) -> FarmKey {
    FarmKey { key, name, word, help, action }
}

const fn letter(name: &'static str) -> (KeyCode, &'static str) {
    (KeyCode::Char(name.as_bytes()[0] as char), name)
}

/// All keys, in the order of the footer and the help.
pub const FARM_KEYS: &[FarmKey] = &[
    bind(letter("q"), "quit", "leave; the farm goes on", |_, _| Some(FarmRequest::Quit)),
    bind(letter("?"), "help", "explain the keys", |ui, _| {
        ui.overlay = FarmOverlay::Help;
        None
    }),
    bind(
        (KeyCode::Enter, "enter"),
        "open",
        "show the run of the selected job; `q` comes back",
        |_, _| Some(FarmRequest::Open),
    ),
    bind((KeyCode::Down, "↓"), "next", "select the next job", |ui, farm| go(ui, farm, 1)),
    bind((KeyCode::Up, "↑"), "", "select the previous job", |ui, farm| go(ui, farm, -1)),
    bind((KeyCode::PageDown, "page down"), "", "go down by a page", |ui, farm| {
        let rows = ui.rows.max(1) as i64;
        go(ui, farm, rows)
    }),
    bind((KeyCode::PageUp, "page up"), "", "go up by a page", |ui, farm| {
        let rows = ui.rows.max(1) as i64;
        go(ui, farm, -rows)
    }),
    bind((KeyCode::Home, "home"), "", "select the first job", |ui, farm| go(ui, farm, i64::MIN)),
    bind((KeyCode::End, "end"), "", "select the last job", |ui, farm| go(ui, farm, i64::MAX)),
    bind((KeyCode::Right, "→"), "sort", "sort by the next column", |ui, _| sort(ui, 1)),
    bind((KeyCode::Left, "←"), "", "sort by the previous column", |ui, _| {
        sort(ui, COLUMNS.len() - 1)
    }),
    bind(letter("o"), "order", "turn the order around", |ui, _| {
        ui.is_descending = !ui.is_descending;
        None
    }),
    bind(letter("f"), "state", "jobs in one state after the other, or all", |ui, farm| {
        ui.state = next_state(ui.state);
        hold(ui, farm);
        None
    }),
    bind(letter("/"), "filter", "show what matches a pattern", |ui, _| {
        ui.is_typing = true;
        None
    }),
    bind(letter("s"), "stop", "ask the farm to stop its jobs and end", |ui, _| {
        ui.overlay = FarmOverlay::StopQuestion;
        None
    }),
];

/// Selects the job that stands so many rows below the selected one.
fn go(ui: &mut FarmUi, farm: &FarmFacts, by: i64) -> Option<FarmRequest> {
    let jobs = arranged(farm, ui);
    let at = jobs.iter().position(|place| *place == ui.selected).unwrap_or(0) as i64;
    let last = jobs.len().saturating_sub(1) as i64;
    if let Some(place) = jobs.get(at.saturating_add(by).clamp(0, last) as usize) {
        ui.selected = *place;
    }
    None
}

/// Selects the first job where the selected one is not shown any more.
pub(super) fn hold(ui: &mut FarmUi, farm: &FarmFacts) {
    let jobs = arranged(farm, ui);
    if !jobs.contains(&ui.selected) {
        ui.selected = jobs.first().copied().unwrap_or(0);
    }
}

fn sort(ui: &mut FarmUi, by: usize) -> Option<FarmRequest> {
    ui.sort = (ui.sort + by) % COLUMNS.len();
    None
}

fn next_state(state: Option<JobState>) -> Option<JobState> {
    match state {
        None => Some(JobState::Running),
        Some(JobState::Running) => Some(JobState::Failed),
        Some(JobState::Failed) => Some(JobState::Waiting),
        Some(JobState::Waiting) => Some(JobState::Done),
        Some(JobState::Done) => Some(JobState::Stopped),
        Some(JobState::Stopped) => Some(JobState::Blocked),
        Some(JobState::Blocked) => None,
    }
}

/// Does what a key means at this moment.
pub(super) fn update(ui: &mut FarmUi, key: KeyEvent, farm: &FarmFacts) -> Option<FarmRequest> {
    let is_interrupt =
        key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
    if is_interrupt {
        return Some(FarmRequest::Quit);
    }
    ui.notice = None;
    if ui.is_typing {
        type_key(ui, key.code);
        hold(ui, farm);
        return None;
    }
    match std::mem::take(&mut ui.overlay) {
        // Any key but yes takes the question back.
        FarmOverlay::StopQuestion => {
            (key.code == KeyCode::Char('y')).then_some(FarmRequest::WriteStop)
        }
        FarmOverlay::Help if key.code != KeyCode::Char('q') => None,
        FarmOverlay::Help | FarmOverlay::None => {
            let binding = FARM_KEYS.iter().find(|binding| binding.key == key.code)?;
            (binding.action)(ui, farm)
        }
    }
}

/// A key of the pattern.
fn type_key(ui: &mut FarmUi, key: KeyCode) {
    match key {
        KeyCode::Char(letter) => ui.pattern.push(letter),
        KeyCode::Backspace => drop(ui.pattern.pop()),
        KeyCode::Esc => {
            ui.pattern.clear();
            ui.is_typing = false;
        }
        KeyCode::Enter => ui.is_typing = false,
        _ => {}
    }
}

/// Does what the mouse means: a row is selected and, once it is, opened; a head sorts.
pub(super) fn mouse(
    ui: &mut FarmUi,
    event: MouseEvent,
    targets: &[(Rect, FarmTarget)],
    farm: &FarmFacts,
) -> Option<FarmRequest> {
    match event.kind {
        MouseEventKind::ScrollDown => return go(ui, farm, 1),
        MouseEventKind::ScrollUp => return go(ui, farm, -1),
        MouseEventKind::Down(MouseButton::Left) => {}
        _ => return None,
    }
    let place = Position::new(event.column, event.row);
    match targets.iter().find(|(area, _)| area.contains(place))?.1 {
        FarmTarget::Job(job) if job == ui.selected => return Some(FarmRequest::Open),
        FarmTarget::Job(job) => ui.selected = job,
        FarmTarget::Column(column) => {
            ui.is_descending = ui.sort == column && !ui.is_descending;
            ui.sort = column;
        }
    }
    None
}
