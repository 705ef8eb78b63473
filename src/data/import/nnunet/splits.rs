//! `splits_final.json`: which cases each fold of nnU-Net trains on and validates with.
//!
//! Knows names of cases alone.

use super::json::{self, shown};
use crate::error::{Failure, Result};
use crate::limits::FOLDS;
use crate::scan::Notes;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The name of the file.
const FILE: &str = "splits_final.json";

/// The folds of one file.
#[derive(Debug)]
pub(super) struct Splits {
    path: PathBuf,
    folds: Vec<Split>,
}

/// Who is trained on and who is validated with.
#[derive(Debug)]
struct Split {
    train: BTreeSet<String>,
    val: BTreeSet<String>,
}

/// What the folds say of one case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allotted {
    /// The fold that validates with it, counted from 1; 0 for none.
    pub(super) fold: u32,
    /// Whether no fold trains on it.
    pub(super) is_scored_only: bool,
}

/// The file of folds that belongs to a raw folder: in it, or in the folder of its name in `nnUNet_preprocessed` beside
/// `nnUNet_raw`. Nothing where there is none.
pub(super) fn beside(folder: &Path) -> Option<PathBuf> {
    // Of `.` the name is not known otherwise.
    let real = folder.canonicalize().ok()?;
    let preprocessed = real
        .file_name()
        .zip(real.parent().and_then(Path::parent))
        .map(|(name, all)| all.join("nnUNet_preprocessed").join(name).join(FILE));
    let places = [Some(folder.join(FILE)), preprocessed];
    places.into_iter().flatten().find(|path| path.is_file())
}

impl Splits {
    /// Reads a file of folds: a list, in each entry the names of cases in `train` and in `val`.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let value = json::read(path)?;
        let wrong = |what: String| {
            Failure::new(format!("{what} in `{}`", path.display())).hint(
                "nnU-Net writes a list of folds, for example `[{\"train\": [\"a\", \"b\"], \"val\": [\"c\"]}]`",
            )
        };
        let list = value.as_array().filter(|list| (1..=FOLDS as usize).contains(&list.len()));
        let Some(list) = list else {
            return Err(wrong(format!("expected 1 to {FOLDS} folds, found {}", shown(&value))));
        };
        let names = |(number, fold): (usize, &Value), key: &str| {
            let names = fold.get(key).and_then(Value::as_array);
            let names = names.and_then(|names| {
                names.iter().map(|name| name.as_str().map(String::from)).collect::<Option<_>>()
            });
            names.ok_or_else(|| {
                wrong(format!("fold {} has no names of cases in `{key}`", number + 1))
            })
        };
        let split = |fold: (usize, &Value)| {
            Ok(Split { train: names(fold, "train")?, val: names(fold, "val")? })
        };
        let folds = list.iter().enumerate().map(split).collect::<Result<Vec<_>>>()?;
        Ok(Self { path: path.to_owned(), folds })
    }

    /// The file, in messages.
    pub(super) fn named(&self) -> String {
        format!("`{}`", self.path.display())
    }

    /// What the folds say of each of `cases`. Notes cases that no fold validates with, and those that none trains on.
    ///
    /// Refuses a case that two folds validate with, one that a fold trains on and validates with, one that some folds
    /// train on and others leave out, one that no fold names, and names of others.
    pub(super) fn allot(
        &self,
        cases: &BTreeSet<&String>,
        notes: &Notes,
    ) -> Result<BTreeMap<String, Allotted>> {
        for (index, fold) in self.folds.iter().enumerate() {
            let mut named = fold.train.iter().chain(&fold.val);
            if let Some(other) = named.find(|name| !cases.contains(name)) {
                return Err(self
                    .wrong(other, &format!("is named in fold {}, and is none of the cases to train on", index + 1))
                    .hint("names are those of files in `labelsTr`, without their ending")
                    .hint("the file may be of another data set: give the right one with `--splits FILE`"));
            }
        }
        let mut found = BTreeMap::new();
        for &name in cases {
            let allotted = self.allotted(name)?;
            if allotted.is_scored_only {
                let sentence =
                    "no fold trains on these, so that their dense labels are packed alone";
                notes.add(sentence, format!("`{name}`"));
            } else if allotted.fold == 0 {
                notes.add(
                    "no fold validates with these, and all train on them",
                    format!("`{name}`"),
                );
            }
            found.insert(name.clone(), allotted);
        }
        Ok(found)
    }

    fn allotted(&self, name: &String) -> Result<Allotted> {
        let numbers = |is_in: fn(&Split) -> &BTreeSet<String>| -> Vec<usize> {
            let folds =
                self.folds.iter().enumerate().filter(|(_, fold)| is_in(fold).contains(name));
            folds.map(|(index, _)| index + 1).collect()
        };
        let (trains, validates) = (numbers(|fold| &fold.train), numbers(|fold| &fold.val));
        let fold = match validates[..] {
            [] if trains.is_empty() => {
                return Err(self.wrong(name, "is in no fold").hint(
                    "each case to train on is once in `val`, and in `train` of all other folds",
                ));
            }
            [] => 0,
            [only] => only,
            [one, other, ..] => {
                return Err(self
                    .wrong(name, &format!("is in `val` of folds {one} and {other}, expected one"))
                    .hint("a packed data set holds each case out once; folds are counted from 1"));
            }
        };
        if trains.contains(&fold) {
            let both = format!("is in `train` and in `val` of fold {fold}");
            return Err(self.wrong(name, &both).hint("remove it from one of them"));
        }
        let others = || (1..=self.folds.len()).filter(|&number| number != fold);
        if let Some(absent) = others().find(|number| !trains.contains(number))
            && let Some(trained) = trains.first()
        {
            return Err(self
                .wrong(
                    name,
                    &format!("is in `train` of fold {trained}, and in fold {absent} it is nowhere"),
                )
                .hint(
                    "a packed data set trains on a case in all folds but the one that holds it out",
                ));
        }
        Ok(Allotted { fold: fold as u32, is_scored_only: trains.is_empty() })
    }

    fn wrong(&self, name: &str, what: &str) -> Failure {
        Failure::new(format!("case `{name}` {what} in {}", self.named()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Folds, and whether a case is scored alone; and the notes.
    type Allotted = (Vec<(u32, bool)>, Vec<String>);

    fn allotted(splits: &Value) -> std::result::Result<Allotted, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        std::fs::write(&path, splits.to_string()).unwrap();
        let clean = |text: String| text.replace(folder.path().to_str().unwrap(), "FOLDER");
        let names = ["a", "b", "c", "d"].map(String::from);
        let notes = Notes::default();
        let found =
            Splits::read(&path).and_then(|splits| splits.allot(&names.iter().collect(), &notes));
        let found = found.map_err(|failure| clean(failure.to_string()))?;
        Ok((found.values().map(|case| (case.fold, case.is_scored_only)).collect(), notes.take()))
    }

    #[test]
    fn folds_are_counted_from_one() {
        let two = json!([{"train": ["a", "b"], "val": ["c", "d"]}, {"train": ["c", "d"], "val": ["a", "b"]}]);
        assert_eq!(
            allotted(&two).unwrap(),
            (vec![(2, false), (2, false), (1, false), (1, false)], vec![])
        );
        // One fold alone, and cases that are scored and never trained on.
        let (found, notes) = allotted(&json!([{"train": ["a", "b", "c"], "val": ["d"]}])).unwrap();
        assert_eq!(found, [(0, false), (0, false), (0, false), (1, true)]);
        assert_eq!(
            notes,
            [
                "no fold trains on these, so that their dense labels are packed alone: `d`",
                "no fold validates with these, and all train on them: `a`, `b`, `c`",
            ]
        );
    }

    #[test]
    fn folds_that_no_packed_data_set_has_are_refused_with_the_case() {
        let refused = |splits: Value| allotted(&splits).unwrap_err();
        let all = ["a", "b", "c", "d"];
        insta::assert_snapshot!(refused(json!([{"train": ["a", "b"], "val": ["c"]}])), @"");
        insta::assert_snapshot!(refused(json!([{"train": ["a"], "val": ["b", "c", "d"]}, {"train": ["b"], "val": ["a", "c", "d"]}])), @"");
        insta::assert_snapshot!(refused(json!([{"train": ["a"], "val": all}])), @"");
        insta::assert_snapshot!(refused(json!([{"train": ["a", "b"], "val": ["c", "d"]}, {"train": ["c", "d"], "val": ["b"]}])), @"");
        insta::assert_snapshot!(refused(json!([{"train": ["a", "b"], "val": ["c", "e"]}])), @"");
        insta::assert_snapshot!(refused(json!({"train": all})), @"");
        assert!(
            refused(json!([{"train": all}]))
                .starts_with("error: fold 1 has no names of cases in `val`")
        );
        assert!(refused(json!([])).starts_with("error: expected 1 to 1000 folds, found `[]`"));
    }

    #[test]
    fn folds_lie_in_the_folder_or_beside_what_nnu_net_made_of_it() {
        let all = tempfile::tempdir().unwrap();
        let [raw, preprocessed] = ["nnUNet_raw", "nnUNet_preprocessed"]
            .map(|name| all.path().join(name).join("Dataset001_A"));
        for folder in [&raw, &preprocessed] {
            std::fs::create_dir_all(folder).unwrap();
        }
        assert_eq!(beside(&raw), None);
        std::fs::write(preprocessed.join(FILE), "").unwrap();
        let real = preprocessed.canonicalize().unwrap();
        assert_eq!(beside(&raw), Some(real.join(FILE)));
        std::fs::write(raw.join(FILE), "").unwrap();
        assert_eq!(beside(&raw), Some(raw.join(FILE)));
    }
}
