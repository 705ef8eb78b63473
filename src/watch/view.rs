//! Layout: which panel stands where at which size. What panels show is theirs.

use super::panels::{self, STRONG, Shown};
use super::update::Ui;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Block, BorderType, Clear, Paragraph, Widget};

/// Columns and rows below which nothing readable can be shown.
const SMALLEST: (u16, u16) = (40, 10);

/// Draws the whole screen of the dashboard at any size.
pub fn draw(run: &Shown<'_>, ui: &Ui, area: Rect, buffer: &mut Buffer) {
    let [upper, footer] = Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(area);
    draw_run(run, ui, upper, buffer);
    panels::footer(ui, run.theme, footer, buffer);
    let Some((title, lines)) = panels::overlay(ui, run) else { return };
    let columns = lines.iter().map(Line::width).max().unwrap_or(0) as u16 + 4;
    let rows = lines.len() as u16 + 2;
    let place = area.centered(Constraint::Max(columns), Constraint::Max(rows));
    Clear.render(place, buffer);
    Paragraph::new(lines).centered().render(framed(run, title, place, buffer), buffer);
}

/// Draws one run, without keys, at any size.
pub fn draw_run(run: &Shown<'_>, ui: &Ui, area: Rect, buffer: &mut Buffer) {
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 - 1 {
        let (columns, rows) = SMALLEST;
        Line::from(format!("needs {columns} x {rows}")).render(area, buffer);
        return;
    }
    let [header, body] = Layout::vertical([Constraint::Length(3), Constraint::Min(1)]).areas(area);
    panels::header(run, header, buffer);
    draw_body(run, ui, body, buffer);
}

/// Two columns where there is room for them; the fewer rows, the fewer panels.
fn draw_body(run: &Shown<'_>, ui: &Ui, area: Rect, buffer: &mut Buffer) {
    let is_wide = area.width >= 76;
    let halves = [Constraint::Fill(1), Constraint::Fill(1)];
    if area.height < 14 {
        let [left, right] = Layout::horizontal(halves).areas(area);
        draw_losses(run, ui, if is_wide { left } else { area }, buffer);
        if is_wide {
            draw_dice(run, right, buffer);
        }
        return;
    }
    let ranks = run.dashboard.ranks.len().clamp(1, area.height as usize / 4) as u16 + 3;
    let lower = ranks.max(7);
    if is_wide {
        let [top, bottom] =
            Layout::vertical([Constraint::Min(7), Constraint::Length(lower)]).areas(area);
        let [losses, dice] = Layout::horizontal(halves).areas(top);
        let [ranks, messages] = Layout::horizontal(halves).areas(bottom);
        draw_losses(run, ui, losses, buffer);
        draw_dice(run, dice, buffer);
        draw_ranks(run, ranks, buffer);
        draw_messages(run, messages, buffer);
        return;
    }
    let has_room = area.height >= 30;
    let lower = if has_room { [ranks, 7] } else { [0, 0] };
    let [losses, dice, ranks, messages] = Layout::vertical([
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Length(lower[0]),
        Constraint::Length(lower[1]),
    ])
    .areas(area);
    draw_losses(run, ui, losses, buffer);
    draw_dice(run, dice, buffer);
    if has_room {
        draw_ranks(run, ranks, buffer);
        draw_messages(run, messages, buffer);
    }
}

fn draw_losses(run: &Shown<'_>, ui: &Ui, area: Rect, buffer: &mut Buffer) {
    let title = if ui.log_scale { " loss, logarithmic " } else { " loss " };
    panels::losses(run, ui, framed(run, title, area, buffer), buffer);
}

fn draw_dice(run: &Shown<'_>, area: Rect, buffer: &mut Buffer) {
    panels::dice(run, framed(run, " Dice on the held-out fold ", area, buffer), buffer);
}

fn draw_ranks(run: &Shown<'_>, area: Rect, buffer: &mut Buffer) {
    panels::ranks(run, framed(run, " ranks  █ work  ▒ data  ░ waiting ", area, buffer), buffer);
}

fn draw_messages(run: &Shown<'_>, area: Rect, buffer: &mut Buffer) {
    panels::messages(run, framed(run, " messages ", area, buffer), buffer);
}

/// Draws a frame and gives the room inside.
fn framed(run: &Shown<'_>, title: &'static str, area: Rect, buffer: &mut Buffer) -> Rect {
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(run.theme.faint())
        .title(Line::from(title).style(STRONG));
    let inside = block.inner(area);
    block.render(area, buffer);
    inside
}
