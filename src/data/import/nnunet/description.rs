//! `dataset.json` of a raw folder of nnU-Net: the channels, the classes, and how files are called.
//!
//! Follows what `MIC-DKFZ/nnUNet` at 2.8 demands of it. Knows the text; files that it names are not looked at.

use super::json::{self, shown, whole};
use crate::data::import::folder;
use crate::error::{Failure, Result};
use crate::limits::{CHANNELS, CLASSES};
use crate::scan::{label_endings, list, split_ending};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The name of the file.
const FILE: &str = "dataset.json";

/// What `--from` must name.
const LAYOUT: &str = "`--from` takes the folder of one data set, such as `nnUNet_raw/Dataset027_ACDC`, with `dataset.json`, \
                      `imagesTr` and `labelsTr` in it";

/// The class that voxels of a file may have of which nobody said what they are.
const IGNORED: &str = "ignore";

/// What a raw folder says of itself.
#[derive(Debug)]
pub(super) struct Description {
    /// The file.
    pub(super) path: PathBuf,
    /// What the data set is called, where it says so.
    pub(super) name: Option<String>,
    /// What nnU-Net calls the channels, which says how their intensities are scaled.
    pub(super) channels: Vec<String>,
    /// What the channels show, where somebody wrote that down beside it.
    pub(super) shown: Option<Vec<String>>,
    /// Names of the classes by label value, the background first.
    pub(super) classes: Vec<String>,
    /// The label of voxels of which nobody said what they are.
    pub(super) ignore: Option<i64>,
    /// How many cases there are to train on.
    pub(super) training_count: usize,
    /// What names of images and labels end with.
    pub(super) ending: &'static str,
    /// The files of the cases to train on, where they are listed.
    pub(super) listed: Option<BTreeMap<String, ListedCase>>,
}

/// Files that a description lists for one case.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListedCase {
    /// One for each channel.
    pub(super) images: Vec<PathBuf>,
    /// Its labels.
    pub(super) label: PathBuf,
}

impl Description {
    /// Reads `dataset.json` in `folder`.
    ///
    /// Refuses a missing or damaged file, that of the first version of nnU-Net, regions, labels that nnU-Net refuses
    /// (a background other than 0, gaps, an `ignore` that is not the largest), and endings of files that are not read.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Err(absent(folder, &path));
        }
        let value = json::read(&path)?;
        let Some(fields) = value.as_object() else {
            let what = format!("`{}` holds {}, expected fields", path.display(), shown(&value));
            return Err(Failure::new(what).hint(LAYOUT));
        };
        let said = Said { path: &path, fields };
        said.refuse_first_version()?;
        let channels = said.channels()?;
        let (classes, ignore) = said.labels()?;
        let text = |value: &Value| value.as_str().map(String::from);
        let name = fields.get("name").and_then(text).filter(|name| !name.trim().is_empty());
        Ok(Self {
            name,
            shown: said.shown_channels().filter(|shown| shown.len() == channels.len()),
            channels,
            classes,
            ignore,
            training_count: said.training_count()?,
            ending: said.ending()?,
            listed: said.listed(folder)?,
            path,
        })
    }

    /// The file in messages.
    pub(super) fn named(&self) -> String {
        format!("`{}`", self.path.display())
    }
}

/// What to say of a folder without description.
fn absent(from: &Path, path: &Path) -> Failure {
    if !from.is_dir() {
        return Failure::usage(format!("there is no folder `{}`", from.display())).hint(LAYOUT);
    }
    let failure = Failure::usage(format!("there is no `{}`", path.display()));
    let inside = folder::entries(from).unwrap_or_default();
    match inside.iter().find(|path| path.join(FILE).exists()) {
        Some(one) => failure.hint(format!(
            "name one of the data sets in it, for example `--from {}`",
            one.display()
        )),
        None => failure.hint(LAYOUT),
    }
}

/// The fields of a description, with the name of the file for messages.
struct Said<'a> {
    path: &'a Path,
    fields: &'a Map<String, Value>,
}

impl Said<'_> {
    fn wrong(&self, what: &str) -> Failure {
        Failure::new(format!("{what} in `{}`", self.path.display()))
    }

    fn field(&self, key: &str) -> Result<&Value> {
        self.fields.get(key).ok_or_else(|| {
            Failure::new(format!("`{}` has no `{key}`", self.path.display()))
                .hint("nnU-Net demands `channel_names`, `labels`, `numTraining` and `file_ending`")
        })
    }

    /// Refuses what the first version of nnU-Net and the Medical Segmentation Decathlon have under the same name.
    fn refuse_first_version(&self) -> Result<()> {
        let is_number = |key: &String| key.parse::<u32>().is_ok();
        let labels = self.fields.get("labels").and_then(Value::as_object);
        let by_number =
            labels.is_some_and(|labels| !labels.is_empty() && labels.keys().all(is_number));
        let has_modality =
            self.fields.contains_key("modality") && !self.fields.contains_key("channel_names");
        if !by_number && !has_modality {
            return Ok(());
        }
        let what = if has_modality { "`modality`" } else { "`labels` by their numbers" };
        Err(Failure::new(format!(
            "`{}` has {what}, as the first version of nnU-Net had, expected `channel_names` and `labels` by names",
            self.path.display()
        ))
        .hint("turn the folder into one of the second version with `nnUNetv2_convert_old_nnUNet_dataset FOLDER DatasetNNN_NAME`, or with `nnUNetv2_convert_MSD_dataset -i FOLDER` where it is of the Medical Segmentation Decathlon"))
    }

    fn channels(&self) -> Result<Vec<String>> {
        let key = "channel_names";
        let found = self.field(key)?;
        let example = "for example `\"channel_names\": {\"0\": \"T1\", \"1\": \"T2\"}`";
        let names = found.as_object().filter(|names| (1..=CHANNELS).contains(&names.len()));
        let Some(names) = names else {
            let what =
                format!("`{key}` is {}, expected 1 to {CHANNELS} names by number", shown(found));
            return Err(self.wrong(&what).hint(example));
        };
        let mut numbered = BTreeMap::new();
        for (number, name) in names {
            let (Ok(number), Some(name)) = (number.parse::<usize>(), name.as_str()) else {
                let what =
                    format!("`{key}` has `\"{number}\": {name}`, expected a name by its number");
                return Err(self.wrong(&what).hint(example));
            };
            numbered.insert(number, name.to_owned());
        }
        if let Some(gap) = (0..names.len()).find(|number| !numbered.contains_key(number)) {
            let what = format!("`{key}` names {} channels and none of number {gap}", names.len());
            return Err(self.wrong(&what).hint(example));
        }
        Ok(numbered.into_values().collect())
    }

    /// What the channels show, as `scrimp export` writes it beside what nnU-Net is to do with them.
    fn shown_channels(&self) -> Option<Vec<String>> {
        let names = self.fields.get("scrimp")?.get("channels")?.as_array()?;
        names.iter().map(|name| name.as_str().map(String::from)).collect()
    }

    /// The names of the classes by their values, and the label of what is ignored.
    fn labels(&self) -> Result<(Vec<String>, Option<i64>)> {
        let example = "for example `\"labels\": {\"background\": 0, \"liver\": 1, \"ignore\": 2}`";
        let found = self.field("labels")?;
        let Some(labels) = found.as_object() else {
            let what = format!("`labels` is {}, expected values by names of classes", shown(found));
            return Err(self.wrong(&what).hint(example));
        };
        self.refuse_regions(labels)?;
        let mut named = BTreeMap::<i64, &str>::new();
        for (name, value) in labels.iter().filter(|(name, _)| *name != IGNORED) {
            let Some(label) = label(value) else {
                let what =
                    format!("class `{name}` has label {}, expected a whole number", shown(value));
                return Err(self.wrong(&what).hint(example));
            };
            if let Some(other) = named.insert(label, name) {
                return Err(self.wrong(&format!("label {label} means both `{other}` and `{name}`")));
            }
        }
        if named.get(&0) != Some(&"background") {
            let what = match labels.get("background") {
                Some(value) => format!("`background` has label {}, expected 0", shown(value)),
                None => "`labels` has no `background`, expected it with 0".to_owned(),
            };
            return Err(self.wrong(&what).hint(example));
        }
        let values: Vec<i64> = named.keys().copied().collect();
        if !(2..=CLASSES).contains(&values.len()) {
            let what = format!("`labels` names {} classes, expected 2 to {CLASSES}", values.len());
            return Err(self.wrong(&what).hint(example));
        }
        if let Some((expected, found)) =
            (0..).zip(&values).find(|(expected, found)| expected != *found)
        {
            let what = format!("class `{}` has label {found}, expected {expected}", named[found]);
            return Err(self.wrong(&what).hint("nnU-Net demands 0, 1, 2 and so on without gaps"));
        }
        let ignore = self.ignored(labels, values.len() as i64)?;
        Ok((named.into_values().map(String::from).collect(), ignore))
    }

    /// The label of what is ignored; `expected` is the first that no class has.
    fn ignored(&self, labels: &Map<String, Value>, expected: i64) -> Result<Option<i64>> {
        let Some(value) = labels.get(IGNORED) else { return Ok(None) };
        if value.as_i64() == Some(expected) {
            return Ok(Some(expected));
        }
        let what = format!(
            "`{IGNORED}` has label {}, expected {expected}, one more than the largest of the classes",
            shown(value)
        );
        Err(self.wrong(&what).hint("nnU-Net demands it so; give labels of these voxels that value"))
    }

    /// Refuses classes that are made of several labels.
    fn refuse_regions(&self, labels: &Map<String, Value>) -> Result<()> {
        let several = |value: &&Value| value.as_array().is_some_and(|list| list.len() != 1);
        let Some((name, value)) = labels.iter().find(|(_, value)| several(value)) else {
            return Ok(());
        };
        let mut values: Vec<i64> = labels
            .iter()
            .filter(|(name, _)| *name != IGNORED)
            .flat_map(|(_, value)| {
                value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
            })
            .filter_map(whole)
            .filter(|&value| value > 0)
            .collect();
        values.sort_unstable();
        values.dedup();
        let named: Vec<String> =
            values.iter().take(8).map(|value| format!("\"part {value}\": {value}")).collect();
        Err(self
            .wrong(&format!("`labels` has the region `{name}`, which is {}, expected one number for each class", shown(value)))
            .hint(format!(
                "regions lie over each other, and a voxel has one class here: name each label in a copy of the file without `regions_class_order`, as in `\"labels\": {{\"background\": 0, {}}}`",
                named.join(", ")
            ))
            .hint("regions are put together from the labels that are predicted"))
    }

    fn training_count(&self) -> Result<usize> {
        let value = self.field("numTraining")?;
        let count = whole(value).and_then(|count| usize::try_from(count).ok());
        count.filter(|&count| count > 0).ok_or_else(|| {
            let what = format!(
                "`numTraining` is {}, expected the number of cases to train on",
                shown(value)
            );
            self.wrong(&what)
        })
    }

    fn ending(&self) -> Result<&'static str> {
        let value = self.field("file_ending")?;
        let name = format!("x{}", value.as_str().unwrap_or_default());
        let known = split_ending(&name).filter(|(stem, _)| *stem == "x").map(|(_, ending)| ending);
        known.filter(|known| label_endings().any(|ending| ending == *known)).ok_or_else(|| {
            let endings: Vec<String> =
                label_endings().map(|ending| format!("`{ending}`")).collect();
            let what =
                format!("`file_ending` is {}, expected one of {}", shown(value), list(&endings));
            self.wrong(&what)
                .hint("save images and labels in one of these formats, for example as `.nii.gz`")
        })
    }

    /// The files of cases, where `dataset` lists them.
    fn listed(&self, folder: &Path) -> Result<Option<BTreeMap<String, ListedCase>>> {
        let Some(found) = self.fields.get("dataset") else { return Ok(None) };
        let example = "for example `\"dataset\": {\"anna\": {\"images\": [\"imagesTr/anna_0000.nii.gz\"], \"label\": \"labelsTr/anna.nii.gz\"}}`";
        let Some(cases) = found.as_object() else {
            let what = format!("`dataset` is {}, expected files by names of cases", shown(found));
            return Err(self.wrong(&what).hint(example));
        };
        let path = |value: &Value| value.as_str().map(|text| folder.join(expanded(text)));
        let case = |(name, files): (&String, &Value)| {
            let images = files.get("images").and_then(Value::as_array);
            let images =
                images.and_then(|images| images.iter().map(path).collect::<Option<Vec<_>>>());
            let label = files.get("label").and_then(path);
            if let (Some(images), Some(label)) = (images, label) {
                Ok((name.clone(), ListedCase { images, label }))
            } else {
                let what =
                    format!("case `{name}` in `dataset` has no list of `images` or no `label`");
                Err(self.wrong(&what).hint(example))
            }
        };
        cases.iter().map(case).collect::<Result<_>>().map(Some)
    }
}

/// The label of a class, which may be the only one of a list.
fn label(value: &Value) -> Option<i64> {
    match value.as_array().map(Vec::as_slice) {
        Some([only]) => whole(only),
        _ => whole(value),
    }
}

/// A path in which `$NAME` and `${NAME}` are what the environment says, as nnU-Net reads it; unknown names stay.
fn expanded(text: &str) -> String {
    let (mut path, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('$') {
        path.push_str(before);
        let (name, behind) =
            if let Some(found) = after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                found
            } else {
                let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
                after.split_at(after.find(|letter| !is_word(letter)).unwrap_or(after.len()))
            };
        match std::env::var(name) {
            Ok(value) if !name.is_empty() => path.push_str(&value),
            _ => path.push_str(&rest[before.len()..rest.len() - behind.len()]),
        }
        rest = behind;
    }
    path + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What is sound.
    fn sound() -> Value {
        json!({
            "channel_names": {"0": "T1", "1": "CT"},
            "labels": {"background": 0, "tumour": 2, "liver": 1, "ignore": 3},
            "numTraining": 4,
            "file_ending": ".nii.gz",
        })
    }

    fn read(value: &Value) -> Result<Description> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), value.to_string()).unwrap();
        Description::read(folder.path())
    }

    /// What is said where one field is another; where it is nothing, where it is missing.
    fn refused(key: &str, value: Value) -> String {
        let mut all = sound();
        if value.is_null() {
            all.as_object_mut().unwrap().remove(key);
        } else {
            all[key] = value;
        }
        let said = read(&all).unwrap_err().to_string();
        let words = said.split(' ').map(|word| match word.rsplit_once('/') {
            Some((_, name)) if word.starts_with("`/") => format!("`FOLDER/{name}"),
            _ => word.to_owned(),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_description_is_read_as_nnu_net_reads_it() {
        let mut all = sound();
        let read_it = read(&all).unwrap();
        assert_eq!(read_it.channels, ["T1", "CT"]);
        assert_eq!(read_it.classes, ["background", "liver", "tumour"]);
        assert_eq!(
            (read_it.ignore, read_it.training_count, read_it.ending),
            (Some(3), 4, ".nii.gz")
        );
        assert!(read_it.listed.is_none() && read_it.shown.is_none() && read_it.name.is_none());
        all["labels"] = json!({"background": "0", "liver": [1]});
        all["file_ending"] = ".PNG".into();
        all["scrimp"] = json!({"channels": ["t1", "ct"]});
        all["dataset"] =
            json!({"a": {"images": ["x/a.png", "$NOBODY_SET_THIS/b.png"], "label": "/y/${"}});
        let read_it = read(&all).unwrap();
        assert_eq!((read_it.ignore, read_it.ending), (None, ".png"));
        assert_eq!(read_it.shown.unwrap(), ["t1", "ct"]);
        let folder = read_it.path.parent().unwrap();
        let images = ["x/a.png", "$NOBODY_SET_THIS/b.png"].map(|name| folder.join(name)).to_vec();
        let expected = ListedCase { images, label: "/y/${".into() };
        assert_eq!(read_it.listed.unwrap()["a"], expected);
        assert_eq!(expanded("${CARGO_PKG_NAME}/$CARGO_PKG_NAME-x$"), "scrimp/scrimp-x$");
    }

    #[test]
    fn every_wrong_field_is_named() {
        for key in ["channel_names", "labels", "numTraining", "file_ending"] {
            assert!(
                refused(key, Value::Null)
                    .contains(&format!("`FOLDER/dataset.json` has no `{key}`"))
            );
        }
        insta::assert_snapshot!(refused("labels", json!({"background": 0, "whole": [1, 2, 3], "core": [2, 3]})), @"");
        insta::assert_snapshot!(refused("labels", json!({"background": 0, "a": 2, "ignore": 1})), @"");
        insta::assert_snapshot!(refused("labels", json!({"background": 0, "a": 1, "ignore": 9})), @"");
        insta::assert_snapshot!(refused("labels", json!({"0": "background", "1": "liver"})), @"");
        insta::assert_snapshot!(refused("file_ending", json!(".gipl")), @"");
        let mut first = sound();
        first["modality"] = first["channel_names"].take();
        first.as_object_mut().unwrap().remove("channel_names");
        assert!(
            read(&first).unwrap_err().message().contains("has `modality`, as the first version")
        );
    }

    #[test]
    fn every_wrong_value_is_shown() {
        let first_line = |key, value| refused(key, value).lines().next().unwrap().to_owned();
        for (key, value, expected) in [
            ("labels", json!([1]), "`labels` is `[1]`, expected values by names of classes"),
            ("labels", json!({"background": 0}), "`labels` names 1 classes, expected 2 to 255"),
            ("labels", json!({"background": 1, "a": 0}), "`background` has label `1`, expected 0"),
            (
                "labels",
                json!({"air": 0, "a": 1}),
                "`labels` has no `background`, expected it with 0",
            ),
            (
                "labels",
                json!({"background": 0, "a": 1.5}),
                "class `a` has label `1.5`, expected a whole number",
            ),
            ("labels", json!({"background": 0, "a": 1, "b": 1}), "label 1 means both `a` and `b`"),
            (
                "labels",
                json!({"background": 0, "a": 1, "ignore": [2]}),
                "`ignore` has label `[2]`, expected 2, one more than the largest of the classes",
            ),
            (
                "channel_names",
                json!(["T1"]),
                "`channel_names` is `[\"T1\"]`, expected 1 to 64 names by number",
            ),
            (
                "channel_names",
                json!({"0": "a", "2": "b"}),
                "`channel_names` names 2 channels and none of number 1",
            ),
            (
                "channel_names",
                json!({"0": 7}),
                "`channel_names` has `\"0\": 7`, expected a name by its number",
            ),
            (
                "numTraining",
                json!(-1),
                "`numTraining` is `-1`, expected the number of cases to train on",
            ),
            ("dataset", json!(7), "`dataset` is `7`, expected files by names of cases"),
            (
                "dataset",
                json!({"a": {"images": "a"}}),
                "case `a` in `dataset` has no list of `images` or no `label`",
            ),
        ] {
            assert_eq!(
                first_line(key, value),
                format!("error: {expected} in `FOLDER/dataset.json`")
            );
        }
    }

    #[test]
    fn a_folder_without_description_says_where_one_is() {
        let folder = tempfile::tempdir().unwrap();
        let said = |path: &Path| {
            let said = Description::read(path).unwrap_err().to_string();
            said.replace(folder.path().to_str().unwrap(), "FOLDER")
        };
        insta::assert_snapshot!(said(&folder.path().join("x")), @"");
        assert!(said(folder.path()).starts_with("error: there is no `FOLDER/dataset.json`"));
        let inside = folder.path().join("Dataset001_A");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(inside.join(FILE), "[7]").unwrap();
        assert!(said(folder.path()).ends_with("for example `--from FOLDER/Dataset001_A`"));
        assert!(said(&inside).contains("holds `[7]`, expected fields"));
    }
}
