//! Text that others wrote, as it may be written to a terminal or into a table.
//!
//! Names of cases, hosts and users, messages and requests come from files that anybody may have
//! written; what they mean is not known here.

use ratatui::buffer::Buffer;
use std::borrow::Cow;

/// The text in one line and without characters that a terminal obeys instead of showing them: no escape
/// sequence begins, no line is overwritten, and nothing stands in another order than it was written in.
///
/// ```
/// use scrimp::watch::harmless;
/// assert_eq!(harmless("disk\tat 97 %\n"), "disk at 97 % ");
/// assert_eq!(harmless("\u{1b}]0;title\u{7}"), "?]0;title?");
/// ```
pub fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let shown = |letter: char| match letter {
        '\t' | '\n' | '\r' => ' ',
        letter if is_obeyed(letter) => '?',
        letter => letter,
    };
    Cow::Owned(text.chars().map(shown).collect())
}

/// The same for a screen, whose characters keep their places.
pub(super) fn to_harmless(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        // No text on a screen holds a control character; those that do are pieces of pictures.
        let symbol = cell.symbol();
        if symbol.contains(is_obeyed) && !symbol.contains('\u{1b}') {
            let shown: String = symbol.chars().filter(|letter| !is_obeyed(*letter)).collect();
            cell.set_symbol(if shown.is_empty() { " " } else { &shown });
        }
    }
}

/// Control characters of ASCII and Latin-1, breaks of lines, and marks of the direction of writing.
fn is_obeyed(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn letters_of_all_languages_stay() {
        for text in ["", "Größe 3 µm", "心脏 1", "LV/RV ▸ 0.5"] {
            assert!(matches!(harmless(text), Cow::Borrowed(same) if same == text));
        }
        assert_eq!(harmless("\u{9b}31mred \u{202e}txt.exe"), "?31mred ?txt.exe");
    }

    proptest! {
        #[test]
        fn nothing_is_left_to_obey(text in any::<String>()) {
            let shown = harmless(&text);
            prop_assert!(!shown.contains(char::is_control));
            prop_assert_eq!(shown.chars().count(), text.chars().count());
        }
    }
}
