//! What every panel is given, and the frame around it.

use super::scored::CasesShown;
use super::settings::Settings;
use super::state::{Dashboard, Presence};
use super::theme::{STRONG, Theme};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Block, BorderType, Widget};

/// A run as the screen knows it.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// The name of the run directory.
    pub name: &'a str,
    /// What its log says.
    pub dashboard: &'a Dashboard,
    /// Whether a process is writing it.
    pub presence: Presence,
    /// The time, milliseconds since 1970 (UTC); `None` where only the log's own times count.
    pub now_ms: Option<u64>,
    /// Held-out cases and the picture of one.
    pub cases: Option<&'a CasesShown>,
    /// The keys of its configuration.
    pub settings: Option<&'a Settings>,
    /// How much of a long log is read, in `[0, 1]`, while it is being read.
    pub reading: Option<f64>,
    /// How to colour.
    pub theme: Theme,
}

/// Draws a frame and gives the room inside.
pub(super) fn framed(theme: Theme, title: &str, area: Rect, buffer: &mut Buffer) -> Rect {
    framed_as(theme, Line::from(format!(" {title} ")).style(STRONG), area, buffer)
}

/// The same with a title that has a style.
pub(super) fn framed_as(theme: Theme, title: Line<'_>, area: Rect, buffer: &mut Buffer) -> Rect {
    let block =
        Block::bordered().border_type(BorderType::Rounded).border_style(theme.faint()).title(title);
    let inside = block.inner(area);
    block.render(area, buffer);
    inside
}
