//! One frame about a run as plain text.

use super::feed::Feed;
use super::plain::to_harmless;
use super::targets::Targets;
use super::theme::{Theme, to_ascii};
use super::ui::{Tab, Ui};
use super::view::draw_run;
use super::watched::Watched;
use crate::error::Result;
use crate::runlog::directory::RunDirectory;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// One frame about a run as plain text, of `size` columns and rows at most.
pub fn once(
    directory: &RunDirectory,
    size: (u16, u16),
    tab: Tab,
    is_ascii: bool,
) -> Result<String> {
    let mut watched = Watched::read(&mut Feed::open(directory.clone())?, directory)?;
    let area = Rect::new(0, 0, size.0, size.1);
    let mut buffer = Buffer::empty(area);
    let theme = Theme { has_colour: false, is_ascii };
    let ui = Ui { runs: 1, tab, ..Ui::default() };
    let picker = ratatui_image::picker::Picker::halfblocks();
    watched.open_picture(&ui, super::view::view_area(area), &picker);
    draw_run(&[watched.shown(theme)], &ui, area, &mut buffer, &mut Targets::new());
    to_harmless(&mut buffer);
    if is_ascii {
        to_ascii(&mut buffer);
    }
    Ok(text(&buffer))
}

/// The characters of a screen, without the blanks at the ends of its rows.
pub fn text(buffer: &Buffer) -> String {
    let columns = usize::from(buffer.area.width).max(1);
    let rows = buffer.content.chunks(columns).map(|row| {
        let row: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        row.trim_end().to_owned()
    });
    rows.collect::<Vec<_>>().join("\n") + "\n"
}
