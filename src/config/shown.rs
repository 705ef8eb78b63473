//! Text of files and command lines as a terminal may show it: in one line, without what controls the
//! terminal or turns letters around, and not too long.

use std::ops::Range;

/// The most letters of a sentence.
const SENTENCE: usize = 1000;
/// The most letters of a quoted line or `--set`.
const QUOTED: usize = 160;
/// Stands for letters that are left out.
const CUT: char = '…';

/// One letter for one: blanks stay, what cannot be seen is marked.
fn visible(letter: char) -> char {
    match letter {
        '\t' => ' ',
        '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{e0000}'..='\u{e007f}' => char::REPLACEMENT_CHARACTER,
        letter if letter.is_control() => char::REPLACEMENT_CHARACTER,
        letter => letter,
    }
}

fn beginning(text: &str, most: usize) -> String {
    let mut letters = text.chars();
    let mut shown: String = letters.by_ref().take(most).map(visible).collect();
    if letters.next().is_some() {
        shown.push(CUT);
    }
    shown
}

/// A sentence that quotes what somebody wrote.
pub(super) fn sentence(text: &str) -> String {
    beginning(text, SENTENCE)
}

/// What somebody wrote, such as a word of the command line.
pub(super) fn quoted(text: &str) -> String {
    beginning(text, QUOTED)
}

/// The part of a line around the letters `marked`, and where these are in it.
pub(super) fn around(line: &str, marked: Range<usize>) -> (String, Range<usize>) {
    let count = line.chars().count();
    let lead = if count > QUOTED { marked.start.saturating_sub(QUOTED / 4) } else { 0 };
    let shown: String = line.chars().skip(lead).take(QUOTED).map(visible).collect();
    let end = marked.end.min(lead + QUOTED);
    let before = if lead > 0 { CUT.to_string() } else { String::new() };
    let after = if count > lead + QUOTED { CUT.to_string() } else { String::new() };
    let moved = |place: usize| place - lead + usize::from(lead > 0);
    (format!("{before}{shown}{after}"), moved(marked.start)..moved(end.max(marked.start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_controls_the_terminal() {
        assert_eq!(quoted("a\x1b[2Jb\u{202e}c\nd\te"), "a�[2Jb�c�d e");
        assert_eq!(around("a\x1bb", 1..2), ("a�b".to_owned(), 1..2));
        assert_eq!(sentence("Größe, 長さ"), "Größe, 長さ");
    }

    #[test]
    fn long_text_is_cut_and_what_is_marked_stays_in_sight() {
        let line = format!("{}key{}", "x".repeat(5000), "y".repeat(5000));
        let (shown, marked) = around(&line, 5000..5003);
        assert_eq!(shown.chars().count(), QUOTED + 2);
        let found: String = shown.chars().skip(marked.start).take(marked.len()).collect();
        assert_eq!(found, "key");
        let (shown, marked) = around(&line, 0..10_003);
        assert!(marked.end <= QUOTED && shown.ends_with(CUT));
        assert_eq!(sentence(&line).chars().count(), SENTENCE + 1);
    }
}
