//! What people should hear of a data set that is read all the same: one sentence per kind, with the files
//! that it is true of.
//!
//! Does not know where it is said, nor whether anybody listens.

use serde::Serialize;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::rc::Rc;

/// How many files one sentence names; of more it says the number.
const NAMED: usize = 20;

/// Sentences about files, shared by whoever reads cases and whoever tells people; copies share them.
#[derive(Debug, Clone, Default)]
pub struct Notes(Rc<RefCell<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    /// Files by what is said of them.
    said: BTreeMap<String, Vec<String>>,
    /// What is left out, by the reason.
    left_out: BTreeMap<String, Vec<String>>,
}

/// What was found and is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// A file, a folder or the name of a case.
    pub what: String,
    /// The reason, a clause as in `there are no labels to score with`.
    pub why: String,
}

impl Notes {
    /// Notes that `sentence` is true of `which`; says the same of a file once.
    pub fn add(&self, sentence: &str, which: impl Display) {
        note(&mut self.0.borrow_mut().said, sentence, &which);
    }

    /// Notes that `what`, which looks like a case or a part of one, is left out because `why`.
    pub fn leave_out(&self, why: &str, what: impl Display) {
        note(&mut self.0.borrow_mut().left_out, why, &what);
    }

    /// The sentences with their files, in alphabetical order, none twice; the last tell what is left out.
    pub fn take(&self) -> Vec<String> {
        let noted = std::mem::take(&mut *self.0.borrow_mut());
        let left_out = noted.left_out.into_iter();
        let left_out = left_out.map(|(why, named)| (format!("left out, for {why}"), named));
        let all = noted.said.into_iter().chain(left_out);
        all.map(|(sentence, named)| format!("{sentence}: {}", list(&named))).collect()
    }

    /// What is left out, in the order of the reasons; [`Notes::take`] does not say it again.
    pub fn take_left_out(&self) -> Vec<LeftOut> {
        let left_out = std::mem::take(&mut self.0.borrow_mut().left_out);
        let each = left_out.into_iter().flat_map(|(why, named)| {
            named.into_iter().map(move |what| LeftOut { what, why: why.clone() })
        });
        each.collect()
    }
}

fn note(noted: &mut BTreeMap<String, Vec<String>>, sentence: &str, which: &dyn Display) {
    let named = noted.entry(sentence.to_owned()).or_default();
    let which = which.to_string();
    if !named.contains(&which) {
        named.push(which);
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

    #[test]
    fn what_is_left_out_is_told_apart_from_what_is_said() {
        let notes = Notes::default();
        for name in ["`b`", "`c`", "`b`"] {
            notes.leave_out("it has no labels", name);
        }
        notes.add("odd", "`a`");
        let all = Notes(Rc::new(RefCell::new(std::mem::take(&mut *notes.0.borrow_mut()))));
        notes.leave_out("it has no labels", "`b`");
        assert_eq!(notes.take(), ["left out, for it has no labels: `b`"]);
        let left_out = all.take_left_out();
        assert_eq!(left_out.len(), 2);
        assert_eq!((&*left_out[1].what, &*left_out[1].why), ("`c`", "it has no labels"));
        assert_eq!(all.take(), ["odd: `a`"]);
    }
}
