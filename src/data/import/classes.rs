//! What people write on the command line about labels: names of classes, and which value means which.
//!
//! Knows neither files nor voxels.

use crate::error::{Failure, Result};
use crate::limits::CLASSES;
use crate::scan::Coding;

/// Classes in their order, the background first, with the value that labels have in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes(Vec<(i64, String)>);

impl Classes {
    /// From `background,liver`, whose values are 0 and 1, or `1=background,2=liver`; `option` is where
    /// that was written.
    pub fn parse(words: &[String], option: &str) -> Result<Self> {
        let example =
            format!("for example `{option} background,lesion` or `{option} 1=background,2=lesion`");
        let wrong = |what: String| Err(Failure::usage(what).hint(example.clone()));
        let with_value = words.iter().filter(|word| word.contains('=')).count();
        if with_value > 0 && with_value < words.len() {
            return wrong(format!(
                "`{option}` gives values of some classes only, expected of all or of none"
            ));
        }
        let mut classes: Vec<(i64, String)> = Vec::new();
        for (index, word) in words.iter().enumerate() {
            let (value, name) = match word.split_once('=') {
                None => (index as i64, word.trim()),
                Some((value, name)) => match value.trim().parse() {
                    Ok(value) => (value, name.trim()),
                    Err(_) => {
                        return wrong(format!(
                            "`{word}` in `{option}` begins with no whole number"
                        ));
                    }
                },
            };
            if name.is_empty() {
                return wrong(format!("a class in `{option}` has no name"));
            }
            if let Some((_, other)) = classes.iter().find(|(other, _)| *other == value) {
                return wrong(format!("label {value} cannot mean both `{other}` and `{name}`"));
            }
            if classes.iter().any(|(_, other)| other == name) {
                return wrong(format!("class `{name}` is named twice"));
            }
            classes.push((value, name.to_owned()));
        }
        if classes.len() < 2 {
            return wrong("a data set needs the background and at least one class more".into());
        }
        if classes.len() > CLASSES {
            return wrong(format!(
                "{} classes are too many, expected at most {CLASSES}",
                classes.len()
            ));
        }
        Ok(Self(classes))
    }

    /// The names by class number.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|(_, name)| name.clone()).collect()
    }

    /// The same classes in the order of `names`. Refuses other names.
    pub(super) fn in_order_of(self, names: &[String], option: &str) -> Result<Self> {
        let find = |name: &String| self.0.iter().find(|(_, other)| other == name).cloned();
        let ordered: Option<Vec<_>> = names.iter().map(find).collect();
        ordered.filter(|ordered| ordered.len() == self.0.len()).map(Self).ok_or_else(|| {
            let found = self.names();
            Failure::usage(format!(
                "`{option}` names {found:?}, expected {names:?} as `--classes` has"
            ))
            .hint("both must name the same classes; only their values may differ")
        })
    }

    /// The meaning of values in files where every voxel has a class.
    pub fn coding(&self) -> Coding {
        let has_own_numbers =
            self.0.iter().enumerate().all(|(index, (value, _))| *value == index as i64);
        let names = self.0.iter().enumerate().map(|(class, (_, name))| (name.clone(), class as u8));
        if has_own_numbers {
            return Coding::classes(self.0.len()).or_named(names);
        }
        let meanings: Vec<String> =
            self.0.iter().map(|(value, name)| format!("{value} ({name})")).collect();
        let labels = self.0.iter().enumerate().map(|(class, (value, _))| (*value, class as u8));
        Coding::new(labels, meanings.join(", ")).or_named(names)
    }

    /// The same where `unlabelled` means that nobody said. Refuses a value that means a class.
    pub(super) fn coding_or(&self, unlabelled: i64) -> Result<Coding> {
        let Some((_, name)) = self.0.iter().find(|(value, _)| *value == unlabelled) else {
            return Ok(self.coding().or_unlabelled(unlabelled));
        };
        let failure = Failure::usage(format!(
            "label {unlabelled} cannot mean both class `{name}` and unlabelled"
        ));
        let others: Vec<String> = self.names();
        let free = (1i64..).filter(|value| *value != unlabelled);
        let values: Vec<String> =
            free.zip(&others).map(|(value, name)| format!("{value}={name}")).collect();
        Err(failure
            .hint(format!(
                "if each class has a value of its own, say which, for example `--classes {} --ignore {unlabelled}`",
                values.join(",")
            ))
            .hint(format!(
                "if {unlabelled} stands both for `{name}` and for what nobody drew on, draw `{name}` with a value of its own: else nothing tells them apart"
            )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::IGNORE;

    fn classes(words: &str) -> Result<Classes> {
        let words: Vec<String> = words.split(',').map(String::from).collect();
        Classes::parse(&words, "--classes")
    }

    #[test]
    fn values_may_be_any_and_classes_keep_their_order() {
        let coding = classes("7=background, -3 = liver").unwrap().coding_or(0).unwrap();
        let labels = [7, -3, 0, 1].map(|value| coding.label(value));
        assert_eq!(labels, [Some(0), Some(1), Some(IGNORE), None]);
        assert_eq!(classes("a,b").unwrap(), classes("0=a,1=b").unwrap());
        let dense =
            classes("1=b,0=a").unwrap().in_order_of(&["a".into(), "b".into()], "--dense-classes");
        assert_eq!(dense.unwrap(), classes("a,b").unwrap());
    }

    #[test]
    fn contradictions_are_refused_with_a_way_out() {
        let said = |words: &str| classes(words).unwrap_err().message().to_owned();
        assert_eq!(said("a"), "a data set needs the background and at least one class more");
        assert_eq!(said("a,b,a"), "class `a` is named twice");
        assert_eq!(said("a,,b"), "a class in `--classes` has no name");
        assert_eq!(said("1=a,1=b"), "label 1 cannot mean both `a` and `b`");
        assert_eq!(
            said("1=a,b"),
            "`--classes` gives values of some classes only, expected of all or of none"
        );
        assert_eq!(said("x=a,y=b"), "`x=a` in `--classes` begins with no whole number");
        insta::assert_snapshot!(classes("background,liver").unwrap().coding_or(0).unwrap_err(), @r"
        error: label 0 cannot mean both class `background` and unlabelled

        hint: if each class has a value of its own, say which, for example `--classes 1=background,2=liver --ignore 0`
        hint: if 0 stands both for `background` and for what nobody drew on, draw `background` with a value of its own: else nothing tells them apart
        ");
        let other =
            classes("a,b").unwrap().in_order_of(&["a".into(), "c".into()], "--dense-classes");
        assert_eq!(
            other.unwrap_err().message(),
            "`--dense-classes` names [\"a\", \"b\"], expected [\"a\", \"c\"] as `--classes` has"
        );
    }
}
