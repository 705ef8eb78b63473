//! The lines of an NRRD header: fields `name: value`, what programs add as `key:=value`, and comments.
//!
//! Knows how values are written; what they mean is for `header` to say.

use crate::error::{Failure, Result};
use crate::limits::TEXT_HEADER_BYTES;
use crate::scan::content::Content;
use std::collections::BTreeMap;

/// What a file begins with, before the four digits of its version.
pub(super) const MAGIC: &str = "NRRD000";

/// The lines of a header.
pub(super) struct Fields {
    /// What the file is called in messages.
    pub(super) name: String,
    /// Fields by their names in lower case.
    values: BTreeMap<String, String>,
    /// What programs add, unescaped.
    pub(super) added: BTreeMap<String, String>,
}

impl Fields {
    /// Reads content to the end of its header, which is an empty line or the end of the file.
    pub(super) fn read(content: &mut Content) -> Result<Self> {
        let name = content.name.clone();
        let mut fields = Self { name, values: BTreeMap::new(), added: BTreeMap::new() };
        let mut left = TEXT_HEADER_BYTES;
        let magic = content.line(&mut left)?.unwrap_or_default();
        if !magic.starts_with(MAGIC) {
            return Err(Failure::new(format!("{} begins with no version of NRRD", fields.name)));
        }
        while let Some(line) = content.line(&mut left)?.filter(|line| !line.is_empty()) {
            if line.starts_with('#') {
                continue;
            }
            // Names of fields have no colon; those that programs add may have one.
            if let Some((key, value)) = line.split_once(":=") {
                fields.added.insert(unescaped(key), unescaped(value));
            } else if let Some((key, value)) = line.split_once(':') {
                fields.values.insert(key.trim().to_lowercase(), value.trim().to_owned());
            } else {
                return Err(Failure::new(format!(
                    "the header of {} has a line that is no field: `{}`",
                    fields.name,
                    line.chars().take(60).collect::<String>()
                ))
                .hint("it is damaged; copy it again"));
            }
        }
        Ok(fields)
    }

    /// A field by any of its names.
    pub(super) fn get(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|key| self.values.get(*key)).map(String::as_str)
    }

    /// What to say of a field.
    pub(super) fn wrong(&self, key: &str, expected: &str) -> Failure {
        let found = match self.values.get(key) {
            Some(value) => format!("`{key}: {value}`"),
            None => format!("no `{key}`"),
        };
        Failure::new(format!("{} has {found}, expected {expected}", self.name))
    }

    /// A whole number, 0 where it is missing.
    pub(super) fn whole(&self, keys: &[&str]) -> Result<i64> {
        let number = self.get(keys).unwrap_or("0").parse();
        number.map_err(|_error| self.wrong(keys[0], "a whole number"))
    }

    /// One word for each axis.
    pub(super) fn words(&self, key: &str, count: usize) -> Result<Option<Vec<&str>>> {
        let Some(value) = self.get(&[key]) else { return Ok(None) };
        let words = words(value);
        if words.len() == count {
            return Ok(Some(words));
        }
        Err(self.wrong(key, &format!("one value for each of {count} axes")))
    }
}

/// The words of a value, in quotation marks or without them; a vector is one word.
fn words(value: &str) -> Vec<&str> {
    let (mut words, mut rest) = (Vec::new(), value.trim());
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '(' => rest.find(')').map(|at| at + 1),
            '"' => rest[1..].find('"').map(|at| at + 2),
            _ => rest.find(|letter: char| letter.is_whitespace() || letter == '('),
        };
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        words.push(word.trim_matches('"'));
        rest = after.trim_start();
    }
    words
}

/// The finite numbers of a vector such as `(1,0,0)`.
pub(super) fn vector(word: &str) -> Option<Vec<f64>> {
    let inside = word.trim().strip_prefix('(')?.strip_suffix(')')?;
    let number = |word: &str| word.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    inside.split(',').map(number).collect()
}

fn unescaped(text: &str) -> String {
    let (mut plain, mut letters) = (String::new(), text.chars());
    while let Some(letter) = letters.next() {
        match (letter, letter == '\\') {
            (_, true) => match letters.next() {
                Some('n') => plain.push('\n'),
                Some(other) => plain.push(other),
                None => plain.push('\\'),
            },
            (letter, false) => plain.push(letter),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_words_however_they_are_spaced() {
        assert_eq!(
            words("none (1,0, 0)(0,1,0) \"mm\" x"),
            ["none", "(1,0, 0)", "(0,1,0)", "mm", "x"]
        );
        assert_eq!(vector("(1, -2.5,3e1)"), Some(vec![1.0, -2.5, 30.0]));
        for wrong in ["(1,nan,0)", "(1,,0)", "1,0,0", "(1,0", "none"] {
            assert_eq!(vector(wrong), None, "{wrong}");
        }
        assert_eq!(unescaped("a\\nb\\\\c\\"), "a\nb\\c\\");
    }
}
