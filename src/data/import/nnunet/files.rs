//! The files of the cases of a raw folder of nnU-Net, found by their names or as `dataset.json` lists them.
//!
//! Knows names of files and folders; what is in them is for others to read.

use super::description::{Description, ListedCase};
use crate::data::import::folder::{self, Listing};
use crate::error::{Failure, Result};
use crate::scan::{self, Notes, list};
use crate::words::counted;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where images and labels to train on lie, dense labels beside scribbles, and what there is to test with.
const IMAGES: &str = "imagesTr";
const LABELS: &str = "labelsTr";
const DENSE_LABELS: &str = "labelsTr_dense";
const TEST_IMAGES: &str = "imagesTs";
const TEST_LABELS: &str = "labelsTs";

/// The files of one case.
#[derive(Debug)]
pub(super) struct Files {
    /// One for each channel, or one that holds all of them.
    pub(super) images: Vec<PathBuf>,
    /// Labels of a case to train on, from `labelsTr`, or of one to test with, from `labelsTs`.
    pub(super) labels: PathBuf,
    /// Dense labels of a case to train on, beside its scribbles.
    pub(super) dense: Option<PathBuf>,
    /// Whether it is there to test with.
    pub(super) is_test: bool,
}

/// The files of every case by its name. Cases of `imagesTs` without labels, and labels without image, are left out and
/// noted.
///
/// Refuses images without number of a channel, cases that lack a channel or have one too many, cases to train on without
/// labels, another number of these than the description says, and a case that is in both parts.
pub(super) fn find(
    folder: &Path,
    description: &Description,
    notes: &Notes,
) -> Result<BTreeMap<String, Files>> {
    let search = Search { folder, description, notes };
    let mut found = match &description.listed {
        Some(listed) => search.listed(listed)?,
        None => search.trained()?,
    };
    let expected = description.training_count;
    if found.len() != expected {
        let names: Vec<String> = found.keys().take(5).map(|name| format!("`{name}`")).collect();
        let place = if description.listed.is_some() { "`dataset`" } else { "`imagesTr`" };
        return Err(Failure::new(format!(
            "`numTraining` is {expected} in {}, and {place} has {}: {}{}",
            description.named(),
            counted(found.len(), "case"),
            names.join(", "),
            if found.len() > names.len() { " and more" } else { "" }
        ))
        .hint("add what is missing, or mend the number"));
    }
    search.add_dense(&mut found)?;
    for (name, files) in search.tested()? {
        if let Some(other) = found.insert(name, files) {
            let image = other.images[0].display();
            return Err(Failure::new(format!("`{image}` is in `{TEST_IMAGES}` too"))
                .hint("remove one: it cannot be trained on and tested with"));
        }
    }
    Ok(found)
}

/// Where is looked for files, and how they are called.
struct Search<'a> {
    folder: &'a Path,
    description: &'a Description,
    notes: &'a Notes,
}

/// Images by the number of their channel.
type Channels = BTreeMap<usize, PathBuf>;

impl Search<'_> {
    /// The files in one of the folders; what belongs to none of them is noted, and refused where it looks like data.
    fn look(&self, name: &str) -> Result<Listing> {
        let folder = self.folder.join(name);
        if !folder.is_dir() {
            return Err(Failure::new(format!("there is no folder `{}`", folder.display()))
                .hint(format!("`{IMAGES}` and `{LABELS}` lie beside `dataset.json`")));
        }
        let ending = self.description.ending;
        let mut listing = folder::list_of(&folder, vec![ending])?;
        // Distances of voxels of TIFF files.
        listing.others.retain(|path| path.extension().is_none_or(|ending| ending != "json"));
        listing.note_others(self.notes).map_err(|failure| {
            let said = self.description.named();
            failure.hint(format!("`file_ending` in {said} is `{ending}`"))
        })?;
        Ok(listing)
    }

    /// The images in one of the folders by case and channel.
    fn images(&self, name: &str) -> Result<BTreeMap<String, Channels>> {
        let mut found = BTreeMap::<String, Channels>::new();
        for (stem, path) in self.look(name)?.files {
            let Some((case, channel)) = case_and_channel(&stem) else {
                let ending = self.description.ending;
                return Err(Failure::new(format!(
                    "`{}` has no number of a channel in its name",
                    path.display()
                ))
                .hint(format!(
                    "images are called `CASE_0000{ending}`, `CASE_0001{ending}` and so on"
                )));
            };
            found.entry(case.to_owned()).or_default().insert(channel, path);
        }
        Ok(found)
    }

    /// The cases of `imagesTr`.
    fn trained(&self) -> Result<BTreeMap<String, Files>> {
        let images = self.images(IMAGES)?;
        if images.is_empty() {
            let folder = self.folder.join(IMAGES);
            return Err(Failure::new(format!("there are no images in `{}`", folder.display()))
                .hint(format!("looked for files that end in `{}`", self.description.ending)));
        }
        let mut labels = self.look(LABELS)?.files;
        let count = self.files_per_case(images.values().next())?;
        let mut found = BTreeMap::new();
        for (name, images) in images {
            let images = self.in_order(&name, images, count)?;
            let Some(labels) = labels.remove(&name) else {
                return Err(self.unlabelled(&name, LABELS, &labels));
            };
            found.insert(name, Files { images, labels, dense: None, is_test: false });
        }
        self.note_alone(&labels);
        Ok(found)
    }

    /// The cases that the description lists.
    fn listed(&self, listed: &BTreeMap<String, ListedCase>) -> Result<BTreeMap<String, Files>> {
        let numbered = |case: &ListedCase| case.images.iter().cloned().enumerate().collect();
        for (name, case) in listed {
            let missing = case.images.iter().chain([&case.label]).find(|path| !path.is_file());
            if let Some(path) = missing {
                return Err(Failure::new(format!(
                    "there is no `{}`, which {} lists for case `{name}`",
                    path.display(),
                    self.description.named()
                ))
                .hint("relative names begin in the folder of `dataset.json`"));
            }
        }
        let first: Option<Channels> = listed.values().next().map(numbered);
        let count = self.files_per_case(first.as_ref())?;
        let files = |(name, case): (&String, &ListedCase)| {
            let images = self.in_order(name, numbered(case), count)?;
            let labels = case.label.clone();
            Ok((name.clone(), Files { images, labels, dense: None, is_test: false }))
        };
        listed.iter().map(files).collect()
    }

    /// Adds the dense labels beside scribbles, where there are any.
    fn add_dense(&self, found: &mut BTreeMap<String, Files>) -> Result<()> {
        let folder = self.folder.join(DENSE_LABELS);
        if !folder.is_dir() {
            return Ok(());
        }
        if self.description.ignore.is_none() {
            let sentence = "passed over: without `ignore` among the labels those of `labelsTr` are dense themselves";
            self.notes.add(sentence, format!("`{}`", folder.display()));
            return Ok(());
        }
        let mut dense = self.look(DENSE_LABELS)?.files;
        for (name, files) in found {
            files.dense = dense.remove(name);
        }
        self.note_alone(&dense);
        Ok(())
    }

    /// The cases of `imagesTs` that have labels.
    fn tested(&self) -> Result<BTreeMap<String, Files>> {
        let (images, labels) = (self.folder.join(TEST_IMAGES), self.folder.join(TEST_LABELS));
        if !images.is_dir() {
            return Ok(BTreeMap::new());
        }
        let images = self.images(TEST_IMAGES)?;
        let mut dense = BTreeMap::new();
        if labels.is_dir() {
            dense = self.look(TEST_LABELS)?.files;
        }
        let count = self.files_per_case(images.values().next())?;
        let mut found = BTreeMap::new();
        for (name, images) in images {
            let Some(labels) = dense.remove(&name) else {
                self.notes.leave_out("`labelsTs` has no labels of it", format!("`{name}`"));
                continue;
            };
            let images = self.in_order(&name, images, count)?;
            found.insert(name, Files { images, labels, dense: None, is_test: true });
        }
        self.note_alone(&dense);
        Ok(found)
    }

    /// How many files a case has: one for each channel, or one alone where the first holds all of them, as pictures in
    /// colour do.
    fn files_per_case(&self, first: Option<&Channels>) -> Result<usize> {
        let count = self.description.channels.len();
        let Some(first) = first.filter(|_| count > 1) else { return Ok(count) };
        match first.get(&0).filter(|_| first.len() == 1) {
            Some(path) => {
                let held = scan::read(path, &Notes::default())?.channels;
                Ok(if held == count { 1 } else { count })
            }
            None => Ok(count),
        }
    }

    /// The files of a case in the order of their channels. Refuses other numbers than 0 to `count` - 1.
    fn in_order(&self, name: &str, images: Channels, count: usize) -> Result<Vec<PathBuf>> {
        let named = self.description.named();
        let names = &self.description.channels;
        if let Some(missing) = (0..count).find(|channel| !images.contains_key(channel)) {
            let channel = names.get(missing).map_or("", String::as_str);
            let one = images.values().next().map(|path| format!(" beside `{}`", path.display()));
            return Err(Failure::new(format!(
                "case `{name}` lacks channel {missing} (`{channel}`)"
            ))
            .hint(format!(
                "looked for `{name}_{missing:04}{}`{}",
                self.description.ending,
                one.unwrap_or_default()
            ))
            .hint(format!(
                "{named} names {} channels, and each case needs all of them",
                names.len()
            )));
        }
        if let Some((channel, path)) = images.iter().find(|(channel, _)| **channel >= count) {
            return Err(Failure::new(format!(
                "`{}` would be channel {channel} of case `{name}`, expected {count} files for each case as {named} names channels",
                path.display()
            ))
            .hint("name it in `channel_names`, or move it away"));
        }
        Ok(images.into_values().collect())
    }

    fn unlabelled(&self, name: &str, folder: &str, left: &BTreeMap<String, PathBuf>) -> Failure {
        let place = self.folder.join(folder).join(format!("{name}{}", self.description.ending));
        let failure = Failure::new(format!("case `{name}` has no labels"))
            .hint(format!("looked for `{}`", place.display()));
        let left: Vec<String> = left.keys().take(3).map(|name| format!("`{name}`")).collect();
        if left.is_empty() {
            return failure;
        }
        failure.hint(format!("labels without image, among others, are {}", list(&left)))
    }

    fn note_alone(&self, labels: &BTreeMap<String, PathBuf>) {
        for path in labels.values() {
            self.notes.leave_out("the labels have no image", format!("`{}`", path.display()));
        }
    }
}

/// The case and the channel that an image is called by: `anna` and 1 of `anna_0001`.
fn case_and_channel(stem: &str) -> Option<(&str, usize)> {
    let (case, digits) = stem.rsplit_once('_')?;
    let is_number = digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_digit());
    (is_number && !case.is_empty()).then(|| digits.parse().ok().map(|channel| (case, channel)))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;
    use tempfile::TempDir;

    /// Two cases of two channels to train on and one to test with; files are empty.
    fn folder() -> TempDir {
        let folder = TempDir::new().unwrap();
        for name in ["a", "b_x"] {
            for file in ["imagesTr/N_0000", "imagesTr/N_0001", "labelsTr/N", "labelsTr_dense/N"] {
                add(&folder, &format!("{}.nrrd", file.replace('N', name)));
            }
        }
        for file in ["imagesTs/c_0000", "imagesTs/c_0001", "labelsTs/c", "imagesTs/d_0000"] {
            add(&folder, &format!("{file}.nrrd"));
        }
        folder
    }

    fn add(folder: &TempDir, name: &str) {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    fn describe(folder: &TempDir, more: &serde_json::Value) -> Description {
        let mut all = json!({
            "channel_names": {"0": "T1", "1": "T2"},
            "labels": {"background": 0, "liver": 1, "ignore": 2},
            "numTraining": 2,
            "file_ending": ".nrrd",
        });
        for (key, value) in more.as_object().unwrap() {
            all[key] = value.clone();
        }
        fs::write(folder.path().join("dataset.json"), all.to_string()).unwrap();
        Description::read(folder.path()).unwrap()
    }

    fn found(
        folder: &TempDir,
        more: &serde_json::Value,
    ) -> (Result<BTreeMap<String, Files>>, Vec<String>) {
        let (notes, description) = (Notes::default(), describe(folder, more));
        (find(folder.path(), &description, &notes), notes.take())
    }

    fn refused(folder: &TempDir, more: &serde_json::Value) -> String {
        let said = found(folder, more).0.unwrap_err().to_string();
        said.replace(folder.path().to_str().unwrap(), "FOLDER")
    }

    #[test]
    fn cases_have_all_their_channels_and_labels() {
        let folder = folder();
        add(&folder, "labelsTr/z.nrrd");
        add(&folder, "imagesTr/readme.txt");
        let (cases, notes) = found(&folder, &json!({}));
        let cases = cases.unwrap();
        let names: Vec<_> = cases.iter().map(|(name, files)| (&**name, files.is_test)).collect();
        assert_eq!(names, [("a", false), ("b_x", false), ("c", true)]);
        let b = &cases["b_x"];
        assert_eq!(
            b.images,
            ["0000", "0001"].map(|n| folder.path().join(format!("imagesTr/b_x_{n}.nrrd")))
        );
        assert!(b.labels.ends_with("labelsTr/b_x.nrrd") && b.dense.is_some());
        assert!(cases["c"].labels.ends_with("labelsTs/c.nrrd") && cases["c"].dense.is_none());
        let root = folder.path().to_str().unwrap();
        let notes: Vec<String> = notes.iter().map(|note| note.replace(root, "FOLDER")).collect();
        assert_eq!(
            notes,
            [
                "passed over, for its name is not that of an image or of labels: `FOLDER/imagesTr/readme.txt`",
                "left out, for `labelsTs` has no labels of it: `d`",
                "left out, for the labels have no image: `FOLDER/labelsTr/z.nrrd`",
            ]
        );
        let dense = json!({"labels": {"background": 0, "liver": 1}});
        let (cases, notes) = found(&folder, &dense);
        assert!(
            cases.unwrap()["a"].dense.is_none()
                && notes.iter().any(|note| note.contains("dense themselves"))
        );
    }

    #[test]
    fn listed_files_may_lie_anywhere() {
        let folder = folder();
        add(&folder, "elsewhere/1.nrrd");
        let images = json!(["elsewhere/1.nrrd", "imagesTr/a_0001.nrrd"]);
        let listed = json!({"dataset": {"one": {"images": images, "label": "labelsTr/a.nrrd"}}, "numTraining": 1});
        let cases = found(&folder, &listed).0.unwrap();
        assert_eq!(cases.keys().collect::<Vec<_>>(), ["c", "one"]);
        assert_eq!(cases["one"].images[0], folder.path().join("elsewhere/1.nrrd"));
        fs::remove_file(folder.path().join("elsewhere/1.nrrd")).unwrap();
        insta::assert_snapshot!(refused(&folder, &listed), @r"
        error: there is no `FOLDER/elsewhere/1.nrrd`, which `FOLDER/dataset.json` lists for case `one`

        hint: relative names begin in the folder of `dataset.json`
        ");
    }

    #[test]
    fn what_does_not_belong_together_is_refused_by_name() {
        let folder = folder();
        insta::assert_snapshot!(refused(&folder, &json!({"numTraining": 5})), @r"
        error: `numTraining` is 5 in `FOLDER/dataset.json`, and `imagesTr` has 2 cases: `a`, `b_x`

        hint: add what is missing, or mend the number
        ");
        let one = json!({"channel_names": {"0": "T1"}});
        insta::assert_snapshot!(refused(&folder, &one), @r"
        error: `FOLDER/imagesTr/a_0001.nrrd` would be channel 1 of case `a`, expected 1 files for each case as `FOLDER/dataset.json` names channels

        hint: name it in `channel_names`, or move it away
        ");
        insta::assert_snapshot!(refused(&folder, &json!({"file_ending": ".nii.gz"})), @r"
        error: `FOLDER/imagesTr/a_0000.nrrd` looks like data and would be left out, expected names that end in `.nii.gz`

        hint: save or rename it as NIfTI, or move it away
        hint: `file_ending` in `FOLDER/dataset.json` is `.nii.gz`
        ");
        add(&folder, "imagesTr/e.nrrd");
        insta::assert_snapshot!(refused(&folder, &json!({})), @r"
        error: `FOLDER/imagesTr/e.nrrd` has no number of a channel in its name

        hint: images are called `CASE_0000.nrrd`, `CASE_0001.nrrd` and so on
        ");
        fs::remove_file(folder.path().join("imagesTr/e.nrrd")).unwrap();
        add(&folder, "imagesTs/a_0000.nrrd");
        add(&folder, "imagesTs/a_0001.nrrd");
        add(&folder, "labelsTs/a.nrrd");
        insta::assert_snapshot!(refused(&folder, &json!({})), @r"
        error: `FOLDER/imagesTr/a_0000.nrrd` is in `imagesTs` too

        hint: remove one: it cannot be trained on and tested with
        ");
        fs::remove_file(folder.path().join("imagesTr/b_x_0001.nrrd")).unwrap();
        insta::assert_snapshot!(refused(&folder, &json!({})), @r"
        error: case `b_x` lacks channel 1 (`T2`)

        hint: looked for `b_x_0001.nrrd` beside `FOLDER/imagesTr/b_x_0000.nrrd`
        hint: `FOLDER/dataset.json` names 2 channels, and each case needs all of them
        ");
        fs::remove_file(folder.path().join("labelsTr/a.nrrd")).unwrap();
        insta::assert_snapshot!(refused(&folder, &json!({})), @r"
        error: case `a` has no labels

        hint: looked for `FOLDER/labelsTr/a.nrrd`
        hint: labels without image, among others, are `b_x`
        ");
        fs::remove_dir_all(folder.path().join("labelsTr")).unwrap();
        assert!(
            refused(&folder, &json!({})).starts_with("error: there is no folder `FOLDER/labelsTr`")
        );
    }
}
