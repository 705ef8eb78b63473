//! What people should hear of a data set that is read all the same: one sentence per kind, with the files
//! that it is true of.
//!
//! Does not know where it is said, nor whether anybody listens.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::rc::Rc;

/// How many files one sentence names; of more it says the number.
const NAMED: usize = 20;

/// Sentences about files, shared by whoever reads cases and whoever tells people; copies share them.
#[derive(Debug, Clone, Default)]
pub struct Notes(Rc<RefCell<BTreeMap<String, Vec<String>>>>);

impl Notes {
    /// Notes that `sentence` is true of `which`; says the same of a file once.
    pub fn add(&self, sentence: &str, which: impl Display) {
        let mut notes = self.0.borrow_mut();
        let named = notes.entry(sentence.to_owned()).or_default();
        let which = which.to_string();
        if !named.contains(&which) {
            named.push(which);
        }
    }

    /// The sentences with their files, in alphabetical order; none twice.
    pub fn take(&self) -> Vec<String> {
        let notes = std::mem::take(&mut *self.0.borrow_mut());
        notes.into_iter().map(|(sentence, named)| format!("{sentence}: {}", list(&named))).collect()
    }
}

/// The first names, and how many more there are.
pub fn list(named: &[String]) -> String {
    let shown = named[..named.len().min(NAMED)].join(", ");
    match named.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_said_once_with_its_files() {
        let notes = Notes::default();
        let shared = notes.clone();
        for number in 0..22 {
            shared.add("left out", format!("`{number}`"));
            shared.add("left out", format!("`{number}`"));
        }
        notes.add("another", "`a`");
        let said = notes.take();
        assert_eq!(said[0], "another: `a`");
        assert!(
            said[1].starts_with("left out: `0`, `1`, ") && said[1].ends_with("`19` and 2 more")
        );
        assert!(shared.take().is_empty());
    }
}
