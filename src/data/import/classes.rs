//! What people write on the command line about labels: names of classes, and which value means which.
//!
//! Knows neither files nor voxels.

use crate::error::{Failure, Result};
use crate::limits::CLASSES;
use crate::scan::Coding;

/// Classes in their order, the background first, with the values that labels have in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes(Vec<(Vec<i64>, String)>);

impl Classes {
    /// From `background,liver`, whose values are 0 and 1, or `1=background,2+3=liver`, where 2 and 3 both are liver;
    /// `option` is where that was written.
    pub fn parse(words: &[String], option: &str) -> Result<Self> {
        let example =
            format!("for example `{option} background,lesion` or `{option} 1=background,2=lesion`");
        let wrong = |what: String| Failure::usage(what).hint(example.clone());
        let with_value = words.iter().filter(|word| word.contains('=')).count();
        if with_value > 0 && with_value < words.len() {
            return Err(wrong(format!(
                "`{option}` gives values of some classes only, expected of all or of none"
            )));
        }
        let mut classes: Vec<(Vec<i64>, String)> = Vec::new();
        for (index, word) in words.iter().enumerate() {
            let Some((values, name)) = class(word, index) else {
                return Err(wrong(format!("`{word}` in `{option}` begins with no whole number")));
            };
            if name.is_empty() {
                return Err(wrong(format!("a class in `{option}` has no name")));
            }
            if let Some(class) = classes.iter_mut().find(|(_, other)| other == name) {
                class.0.extend(values);
                let values: Vec<String> = class.0.iter().map(i64::to_string).collect();
                let values = values.join("+");
                return Err(wrong(format!("class `{name}` is named twice"))
                    .hint(format!("several values of one class are `{values}={name}`")));
            }
            for (place, value) in values.iter().enumerate() {
                let other = classes.iter().find(|(others, _)| others.contains(value));
                if let Some((_, other)) = other {
                    let both = format!("label {value} cannot mean both `{other}` and `{name}`");
                    return Err(wrong(both));
                }
                if values[..place].contains(value) {
                    return Err(wrong(format!("label {value} stands twice in `{word}`")));
                }
            }
            classes.push((values, name.to_owned()));
        }
        if classes.len() < 2 {
            return Err(wrong(
                "a data set needs the background and at least one class more".into(),
            ));
        }
        if classes.len() > CLASSES {
            let count = classes.len();
            return Err(wrong(format!("{count} classes are too many, expected at most {CLASSES}")));
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
            self.0.iter().enumerate().all(|(index, (values, _))| *values == [index as i64]);
        let names = self.0.iter().enumerate().map(|(class, (_, name))| (name.clone(), class as u8));
        if has_own_numbers {
            return Coding::classes(self.0.len()).or_named(names);
        }
        let meaning = |(values, name): &(Vec<i64>, String)| {
            let values: Vec<String> = values.iter().map(i64::to_string).collect();
            format!("{} ({name})", values.join(" or "))
        };
        let meanings: Vec<String> = self.0.iter().map(meaning).collect();
        let labels =
            self.0.iter().enumerate().flat_map(|(class, (values, _))| {
                values.iter().map(move |value| (*value, class as u8))
            });
        Coding::new(labels, meanings.join(", ")).or_named(names)
    }

    /// The same where `unlabelled` means that nobody said. Refuses a value that means a class.
    pub(super) fn coding_or(&self, unlabelled: i64) -> Result<Coding> {
        let is_meant = |(values, _): &&(Vec<i64>, String)| values.contains(&unlabelled);
        let Some((_, name)) = self.0.iter().find(is_meant) else {
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
                "if each class has a value of its own, say which, for example `--classes {} --unlabelled {unlabelled}`",
                values.join(",")
            ))
            .hint(format!(
                "if {unlabelled} stands both for `{name}` and for what nobody drew on, draw `{name}` with a value of its own: else nothing tells them apart"
            )))
    }
}

/// The values and the name of a class that is the one of this number, from `liver` or `2+3=liver`; nothing where
/// values are no whole numbers.
fn class(word: &str, number: usize) -> Option<(Vec<i64>, &str)> {
    let Some((values, name)) = word.split_once('=') else {
        return Some((vec![number as i64], word.trim()));
    };
    let values = values.split('+').map(|value| value.trim().parse().ok());
    Some((values.collect::<Option<_>>()?, name.trim()))
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
    fn several_values_may_mean_one_class() {
        let coding =
            classes("0+5=background,2 + 3=liver,-1+-2=tumour").unwrap().coding_or(9).unwrap();
        let labels = [0, 5, 2, 3, -1, -2, 9, 4].map(|value| coding.label(value));
        let expected = [0, 0, 1, 1, 2, 2, IGNORE];
        assert_eq!(labels[..7], expected.map(Some));
        assert_eq!(labels[7], None);
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
        assert_eq!(said("1=a,2+=b"), "`2+=b` in `--classes` begins with no whole number");
        assert_eq!(said("1=a,2+1=b"), "label 1 cannot mean both `a` and `b`");
        assert_eq!(said("1=a,2+2=b"), "label 2 stands twice in `2+2=b`");
        insta::assert_snapshot!(classes("1=a,2=b,3=b").unwrap_err(), @r"
        error: class `b` is named twice

        hint: for example `--classes background,lesion` or `--classes 1=background,2=lesion`
        hint: several values of one class are `2+3=b`
        ");
        insta::assert_snapshot!(classes("background,liver").unwrap().coding_or(0).unwrap_err(), @r"
        error: label 0 cannot mean both class `background` and unlabelled

        hint: if each class has a value of its own, say which, for example `--classes 1=background,2=liver --unlabelled 0`
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
