//! What a terminal can show, as its environment tells.
//!
//! Asks nothing of the terminal itself, and draws nothing.

use ratatui::crossterm::terminal::size;
use serde::{Deserialize, Serialize};
use std::io::IsTerminal;

/// What the terminal of this process can show.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// Whether both input and output are a terminal.
    pub is_terminal: bool,
    /// What kind it says it is, `TERM`; none where it says nothing.
    pub kind: Option<String>,
    /// Whether it can draw over what it has drawn.
    pub has_cursor: bool,
    /// Whether the characters of the locale are those of UTF-8.
    pub speaks_utf8: bool,
    /// Whether nobody has asked for no colours (`NO_COLOR`).
    pub has_colour: bool,
    /// Whether it is on another machine, over SSH.
    pub is_remote: bool,
    /// Columns and rows, where there are any.
    pub size: Option<(u16, u16)>,
}

impl Abilities {
    /// Those of this process.
    pub fn find() -> Self {
        let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
        let size = is_terminal.then(|| size().ok()).flatten();
        let of =
            Self::of(|name| std::env::var_os(name).map(|it| it.to_string_lossy().into_owned()));
        Self { is_terminal, size, ..of }
    }

    /// What an environment says of a terminal, of which it is not known whether there is one; `variable` gives its
    /// variables.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let kind = variable("TERM").filter(|kind| !kind.is_empty());
        Self {
            is_terminal: false,
            has_cursor: has_cursor(kind.as_deref()),
            kind,
            speaks_utf8: speaks_utf8(&variable),
            has_colour: variable("NO_COLOR").is_none_or(|value| value.is_empty()),
            is_remote: variable("SSH_CONNECTION").is_some(),
            size: None,
        }
    }
}

/// Whether the characters of this locale are those of UTF-8; `variable` gives the environment's.
fn speaks_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let mut names = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter();
    // The first one that says anything decides, and where none does the locale is `C`.
    let locale = names.find_map(|name| variable(name).filter(|value| !value.is_empty()));
    let locale = locale.unwrap_or_default().to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Whether a terminal of this kind can draw over what it has drawn; one of no kind cannot.
fn has_cursor(kind: Option<&str>) -> bool {
    kind.is_some_and(|kind| !matches!(kind, "" | "dumb" | "unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(set: &[(&str, &str)]) -> Abilities {
        let find = |name: &str| set.iter().find(|(own, _)| *own == name);
        Abilities::of(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_first_variable_that_is_set_names_the_characters() {
        let speaks = |set: &[(&str, &str)]| of(set).speaks_utf8;
        assert!(speaks(&[("LANG", "de_DE.UTF-8")]));
        assert!(speaks(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8"), ("LANG", "C")]));
        assert!(!speaks(&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]));
        assert!(!speaks(&[("LANG", "de_DE.ISO-8859-1")]));
        assert!(!speaks(&[]));
    }

    #[test]
    fn a_terminal_without_a_cursor_is_known_by_its_kind() {
        let has = |kind: &str| of(&[("TERM", kind)]).has_cursor;
        assert!(has("xterm-256color") && has("linux"));
        assert!(!has("dumb") && !has("") && !of(&[]).has_cursor);
    }

    #[test]
    fn colours_are_there_unless_somebody_wants_none() {
        let has = |set: &[(&str, &str)]| of(set).has_colour;
        assert!(has(&[]) && has(&[("NO_COLOR", "")]) && !has(&[("NO_COLOR", "1")]));
    }
}
