//! Colours and glyphs: everything can be told apart without the first, and without the second too.
//!
//! Knows no panel.

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};

/// What the terminal can show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Theme {
    /// Whether to use any colour.
    pub has_colour: bool,
    /// Whether to use no character but those of ASCII.
    pub is_ascii: bool,
}

/// Colours of curves: those of Okabe and Ito, which eyes of all kinds tell apart, as the nearest of
/// the 256 that terminals know.
const CURVES: [Color; 6] = [
    Color::Indexed(74),
    Color::Indexed(214),
    Color::Indexed(36),
    Color::Indexed(175),
    Color::Indexed(227),
    Color::Indexed(166),
];

/// Signs of curves where there is no Braille.
const SIGNS: [char; 6] = ['*', '+', 'o', 'x', '#', '@'];

/// What stands out without a colour.
pub(super) const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);

impl Theme {
    fn colour(self, colour: Color) -> Style {
        if self.has_colour { Style::new().fg(colour) } else { Style::new() }
    }

    /// The style of a curve.
    pub(super) fn curve(self, index: usize) -> Style {
        self.colour(CURVES[index % CURVES.len()])
    }

    /// The style of a raw curve behind its smoothed one.
    pub(super) fn ghost(self, index: usize) -> Style {
        self.curve(index).add_modifier(Modifier::DIM)
    }

    /// The sign of a curve where there is no Braille.
    pub(super) fn sign(index: usize) -> char {
        SIGNS[index % SIGNS.len()]
    }

    /// What frames and explains.
    pub(super) fn faint(self) -> Style {
        self.colour(Color::Indexed(245))
    }

    /// What went as it should: blue, which nobody takes for the colour of alarms.
    pub(super) fn good(self) -> Style {
        self.colour(Color::Indexed(74))
    }

    /// What a person should look at.
    pub(super) fn alarm(self) -> Style {
        self.colour(Color::Indexed(202)).add_modifier(Modifier::BOLD)
    }

    /// The selected row or panel.
    pub(super) fn selected(self) -> Style {
        if self.has_colour {
            Style::new().bg(Color::Indexed(236)).add_modifier(Modifier::BOLD)
        } else {
            Style::new().add_modifier(Modifier::REVERSED)
        }
    }

    /// The shade of a share in `[0, 1]` for heat maps, and a character that says it too.
    pub(super) fn heat(self, share: f64) -> (char, Style) {
        const SHADES: [u8; 5] = [17, 25, 68, 179, 220];
        const SIGNS: [char; 5] = [' ', '░', '▒', '▓', '█'];
        let level = (share.clamp(0.0, 1.0) * 4.0).round() as usize;
        (SIGNS[level], self.colour(Color::Indexed(SHADES[level])))
    }
}

/// Replaces every character that is not ASCII by one that is and looks or means alike.
pub(super) fn to_ascii(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        let symbol = cell.symbol();
        if symbol.is_ascii() {
            continue;
        }
        let sign = symbol.chars().next().map_or(' ', ascii);
        cell.set_char(sign);
    }
}

fn ascii(letter: char) -> char {
    match letter {
        '│' | '┃' | '╎' => '|',
        '─' | '━' | '–' => '-',
        '╭' | '╮' | '╯' | '╰' | '┏' | '┓' | '┗' | '┛' => '+',
        '█' | '▓' | '▀' | '▄' => '#',
        '▒' => '=',
        '░' => '.',
        '●' | '★' => '*',
        '○' | '◐' | 'ö' | 'ó' | 'ô' => 'o',
        '■' | '▪' => 'c',
        '✖' => '!',
        '↻' => 'r',
        '▸' | '→' => '>',
        '▲' | '↑' => '^',
        '✔' | '▼' | '↓' => 'v',
        '←' => '<',
        '…' => '~',
        '·' => ',',
        '\u{2800}'..='\u{28ff}' => ':',
        'ä' | 'á' | 'à' | 'â' => 'a',
        'ü' | 'ú' => 'u',
        'é' | 'è' | 'ê' => 'e',
        _ => '?',
    }
}
