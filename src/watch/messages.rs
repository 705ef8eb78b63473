//! What was said: all messages with their filters, or the last few.

use super::frame::{Shown, framed};
use super::numbers;
use super::state::Note;
use super::theme::Theme;
use super::ui::{MessagesUi, Ui};
use crate::runlog::Level;
use crate::words::counted;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::Widget;
use regex::{Regex, RegexBuilder};

/// Size of a compiled pattern from which it is refused, in bytes.
const PATTERN_BYTES: usize = 1 << 20;

/// A pattern as its author meant it: a regular expression, or plain text where it is none.
pub(super) enum Pattern {
    All,
    Expression(Regex),
    Text(String),
}

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        if text.is_empty() {
            return Self::All;
        }
        let expression =
            RegexBuilder::new(text).case_insensitive(true).size_limit(PATTERN_BYTES).build();
        expression.map_or_else(|_| Self::Text(text.to_lowercase()), Self::Expression)
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::All => true,
            Self::Expression(expression) => expression.is_match(text),
            Self::Text(part) => text.to_lowercase().contains(part),
        }
    }
}

/// The messages that pass the filters, oldest first.
fn passing<'a>(run: &Shown<'a>, filter: &MessagesUi) -> Vec<&'a Note> {
    let pattern = Pattern::new(&filter.pattern);
    let notes = run.dashboard.messages.iter();
    notes
        .filter(|note| note.level >= filter.level)
        .filter(|note| filter.rank.is_none_or(|rank| rank == note.rank))
        .filter(|note| pattern.matches(&note.text))
        .collect()
}

/// How many messages pass the filters.
pub(super) fn count(run: &Shown<'_>, ui: &Ui) -> usize {
    passing(run, &ui.messages).len()
}

/// The whole view.
pub(super) fn panel(run: &Shown<'_>, ui: &Ui, area: Rect, buffer: &mut Buffer) {
    let filter = &ui.messages;
    let notes = passing(run, filter);
    let level = match filter.level {
        Level::Debug => "everything",
        Level::Info => "information",
        Level::Warning => "warnings",
        Level::Error => "errors",
    };
    let rank = filter.rank.map_or_else(|| "all ranks".to_owned(), |rank| format!("rank {rank}"));
    let typed = if ui.is_typing { "▏" } else { "" };
    let pattern = match (filter.pattern.is_empty(), ui.is_typing) {
        (true, false) => String::new(),
        _ => match Pattern::new(&filter.pattern) {
            Pattern::Text(_) => {
                format!(" · /{}{typed}/ no regular expression, taken as text", filter.pattern)
            }
            _ => format!(" · /{}{typed}/", filter.pattern),
        },
    };
    let title = format!("{} · {level} · {rank}{pattern}", counted(notes.len(), "message"));
    let inside = framed(run.theme, &title, area, buffer);
    let end = notes.len().saturating_sub(filter.back.min(notes.len().saturating_sub(1)));
    let has_ranks = run.dashboard.ranks().count() > 1;
    draw(run, (&notes[..end], has_ranks), inside, buffer);
}

/// The last messages.
pub(super) fn newest(run: &Shown<'_>, area: Rect, buffer: &mut Buffer) {
    let notes = passing(run, &MessagesUi::default());
    draw(run, (&notes, false), area, buffer);
}

/// The newest at the bottom, as many as there is room for.
fn draw(run: &Shown<'_>, (notes, has_ranks): (&[&Note], bool), area: Rect, buffer: &mut Buffer) {
    let start_ms = run.dashboard.times_ms.map_or(0, |times| times[0]);
    let mut bottom = area.bottom();
    for note in notes.iter().rev() {
        let time = numbers::duration(note.time_ms.saturating_sub(start_ms));
        let rank = if has_ranks { format!("{:>3} ", note.rank) } else { String::new() };
        let head = format!("{time} {rank}");
        let text = if note.is_warning() { format!("! {}", note.text) } else { note.text.clone() };
        let indent = head.len() as u16;
        let lines = broken(&text, usize::from(area.width.saturating_sub(indent)));
        let top = bottom.saturating_sub(lines.len() as u16);
        if top < area.y {
            return;
        }
        let place = Rect { y: top, height: 1, ..area };
        Line::styled(head, run.theme.faint()).render(place, buffer);
        for (row, line) in (top..bottom).zip(lines) {
            let place = Rect::new(area.x + indent, row, area.width.saturating_sub(indent), 1);
            Line::styled(line, style(note, run.theme)).render(place, buffer);
        }
        bottom = top;
    }
}

fn style(note: &Note, theme: Theme) -> Style {
    match note.level {
        Level::Error | Level::Warning => theme.alarm(),
        Level::Info => Style::new(),
        Level::Debug => theme.faint(),
    }
}

/// `text` in lines of at most `columns` where its words allow it.
fn broken(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        let length = lines[last].chars().count();
        if length == 0 {
            lines[last].push_str(word);
        } else if length + 1 + word.chars().count() <= columns {
            lines[last] = format!("{} {word}", lines[last]);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}
