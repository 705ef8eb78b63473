//! Layout: which panel stands where at which size. What panels show is theirs.

use super::charts::{self, framed_chart};
use super::frame::{Shown, framed};
use super::plain::to_harmless;
use super::targets::Targets;
use super::theme::{STRONG, Theme, to_ascii};
use super::ui::{Overlay, Tab, Ui};
use super::update::{KEYS, KeyBinding};
use super::{cases, compare, header, messages, ranks};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph, Widget};

/// Columns of a key and what it does.
const HELP_COLUMNS: u16 = 38;

/// Columns and rows below which nothing readable can be shown.
const SMALLEST: (u16, u16) = (40, 10);

/// Draws the whole screen of the dashboard at any size; gives what the mouse can point at.
pub fn draw(runs: &[Shown<'_>], ui: &Ui, area: Rect, buffer: &mut Buffer) -> Targets {
    let Some(run) = runs.get(ui.selected) else { return Targets::new() };
    let mut targets = Targets::new();
    let [upper, footer] = Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(area);
    draw_run(runs, ui, upper, buffer, &mut targets);
    draw_footer(run, ui, footer, buffer);
    if ui.overlay == Overlay::Help {
        draw_help(run, ui, area, buffer);
    } else if let Some((title, lines)) = question(ui, run) {
        let columns = lines.iter().map(Line::width).max().unwrap_or(0) as u16 + 4;
        let rows = lines.len() as u16 + 2;
        let place = area.centered(Constraint::Max(columns), Constraint::Max(rows));
        Clear.render(place, buffer);
        let inside = framed(run.theme, title, place, buffer);
        Paragraph::new(lines).centered().render(inside, buffer);
    }
    to_harmless(buffer);
    if run.theme.is_ascii {
        to_ascii(buffer);
    }
    targets
}

/// The part of the screen that the views share, and the one below it that is the view's.
fn split(area: Rect) -> [Rect; 3] {
    let head = match area.height {
        0..14 => 2,
        14..20 => 3,
        _ => 4,
    };
    let tabs = u16::from(area.height >= 14);
    Layout::vertical([Constraint::Length(head), Constraint::Length(tabs), Constraint::Min(1)])
        .areas(area)
}

/// The room of the view that is shown, of a whole screen.
pub(super) fn view_area(area: Rect) -> Rect {
    split(Rect { height: area.height.saturating_sub(1), ..area })[2]
}

/// Draws one run, without keys, at any size.
pub(super) fn draw_run(
    runs: &[Shown<'_>],
    ui: &Ui,
    area: Rect,
    buffer: &mut Buffer,
    targets: &mut Targets,
) {
    let Some(run) = runs.get(ui.selected) else { return };
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 - 1 {
        let (columns, rows) = SMALLEST;
        Line::from(format!("needs {columns} x {rows}")).render(area, buffer);
        return;
    }
    let [head, tabs, body] = split(area);
    header::header(run, head, buffer);
    if !tabs.is_empty() {
        header::tabs(run, ui, tabs, buffer, targets);
    }
    match ui.tab {
        Tab::Overview => overview(run, ui, body, buffer, targets),
        Tab::Charts => charts::panel(run, ui, body, buffer, targets),
        Tab::Ranks => ranks::panel(run, ui, body, buffer, targets),
        Tab::Cases => cases::panel(run, ui, body, buffer),
        Tab::Messages => messages::panel(run, ui, body, buffer),
        Tab::Compare => compare::panel(runs, ui, body, buffer, targets),
    }
}

/// Two columns where there is room for them; the fewer rows, the fewer panels.
fn overview(run: &Shown<'_>, ui: &Ui, area: Rect, buffer: &mut Buffer, targets: &mut Targets) {
    let is_wide = area.width >= 76;
    let halves = [Constraint::Fill(1), Constraint::Fill(1)];
    let look = charts::look(run, ui);
    let (losses, dice) = (charts::losses(run.dashboard), charts::dice(run.dashboard));
    let mut draw_pair = |left: Rect, right: Rect, buffer: &mut Buffer| {
        framed_chart(run, (&losses, 0, look), left, buffer, targets);
        if !right.is_empty() {
            let look = super::chart::Look { log_scale: false, ..look };
            framed_chart(run, (&dice, 1, look), right, buffer, targets);
        }
    };
    let count = run.dashboard.ranks().count();
    let ranks = count.clamp(1, usize::from(area.height / 4).max(1)) as u16 + 3;
    let is_low = area.height < 12;
    if is_wide {
        let lower = if is_low { 0 } else { ranks.max(6) };
        let [top, bottom] =
            Layout::vertical([Constraint::Min(5), Constraint::Length(lower)]).areas(area);
        let [left, right] = Layout::horizontal(halves).areas(top);
        draw_pair(left, right, buffer);
        if !bottom.is_empty() {
            let [left, right] = Layout::horizontal(halves).areas(bottom);
            draw_ranks(run, left, buffer);
            draw_messages(run, right, buffer);
        }
        return;
    }
    let has_room = area.height >= 28;
    let second = u16::from(!is_low);
    let [losses, dice, lower, messages] = Layout::vertical([
        Constraint::Fill(1),
        Constraint::Fill(second),
        Constraint::Length(if has_room { ranks } else { 0 }),
        Constraint::Length(if has_room { 7 } else { 0 }),
    ])
    .areas(area);
    draw_pair(losses, dice, buffer);
    if has_room {
        draw_ranks(run, lower, buffer);
        draw_messages(run, messages, buffer);
    }
}

fn draw_ranks(run: &Shown<'_>, area: Rect, buffer: &mut Buffer) {
    let inside = framed(run.theme, "ranks  █ work  ▒ data  ░ waiting", area, buffer);
    ranks::short_table(run, inside, buffer);
}

fn draw_messages(run: &Shown<'_>, area: Rect, buffer: &mut Buffer) {
    messages::newest(run, framed(run.theme, "messages", area, buffer), buffer);
}

/// The keys of the view in one row, or what the last request came to.
fn draw_footer(run: &Shown<'_>, ui: &Ui, area: Rect, buffer: &mut Buffer) {
    if let Some(notice) = &ui.notice {
        Line::styled(format!(" {notice}"), STRONG).render(area, buffer);
        return;
    }
    if ui.is_typing {
        let text = " type a regular expression · enter keeps it · esc clears it";
        Line::from(text).render(area, buffer);
        return;
    }
    let shown = KEYS.iter().filter(|binding| binding.tabs.contains(&ui.tab));
    let shown = shown.filter(|binding| !binding.word.is_empty());
    let shown = shown.filter(|binding| binding.word != "next run" || ui.runs > 1);
    // What only this view knows comes before what all know.
    let (common, own): (Vec<_>, Vec<_>) = shown.partition(|b| b.tabs.len() == Tab::ALL.len());
    let (first, rest) = common.split_at(2.min(common.len()));
    let mut line = Line::default();
    for binding in first.iter().chain(&own).chain(rest) {
        let name = Span::styled(format!(" {} ", key_name(binding, run.theme)), STRONG);
        let word = Span::styled(format!("{}  ", binding.word), run.theme.faint());
        if line.width() + name.width() + word.width() > usize::from(area.width) + 2 {
            continue;
        }
        line.extend([name, word]);
    }
    line.render(area, buffer);
}

/// How a key is written: arrows by their names where they would become other keys.
fn key_name(binding: &KeyBinding, theme: Theme) -> &'static str {
    match binding.name {
        "←" if theme.is_ascii => "left",
        "→" if theme.is_ascii => "right",
        "↑" if theme.is_ascii => "up",
        "↓" if theme.is_ascii => "down",
        name => name,
    }
}

/// What is asked on top of everything else: its title and its lines.
fn question(ui: &Ui, run: &Shown<'_>) -> Option<(&'static str, Vec<Line<'static>>)> {
    let (title, question) = match ui.overlay {
        Overlay::None | Overlay::Help => return None,
        Overlay::StopQuestion => ("stop", "Ask this run to save and end?"),
        Overlay::CheckpointQuestion => ("save", "Ask this run to save a checkpoint now?"),
    };
    let name = Line::from(Span::styled(run.name.to_owned(), STRONG));
    let choice = Line::from("y yes · any other key no");
    Some((title, vec![name, Line::from(question), choice]))
}

/// All keys, in as many columns as fit.
fn draw_help(run: &Shown<'_>, ui: &Ui, area: Rect, buffer: &mut Buffer) {
    let shown = KEYS.iter().filter(|binding| binding.tabs.contains(&ui.tab));
    let keys: Vec<Line<'_>> = shown
        .map(|binding| {
            let name = key_name(binding, run.theme);
            let name = Span::styled(format!(" {name:>5}  "), STRONG);
            Line::from(vec![name, Span::raw(binding.help)])
        })
        .collect();
    let columns = (area.width.saturating_sub(2) / HELP_COLUMNS).clamp(1, 2);
    let rows = (keys.len() as u16).div_ceil(columns);
    let width = columns * HELP_COLUMNS + 2;
    let place = area.centered(Constraint::Max(width), Constraint::Max(rows + 2));
    Clear.render(place, buffer);
    let title = format!("keys in {} · any key goes back", ui.tab.name());
    let inside = framed(run.theme, &title, place, buffer);
    for (index, line) in keys.into_iter().enumerate() {
        let (column, row) = (index as u16 / rows, index as u16 % rows);
        let x = inside.x + column * HELP_COLUMNS;
        let place = Rect::new(x, inside.y + row, HELP_COLUMNS, 1);
        line.render(place.intersection(inside), buffer);
    }
}
