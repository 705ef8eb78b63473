//! The files of the BraTS challenges: which of them belong to one case, whose it is, and who is held out.
//!
//! Knows names of files, of this challenge alone, and opens none.

use super::folder;
use crate::error::{Failure, Result};
use crate::random::{Key, permutation};
use crate::scan::Notes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One of the volumes of every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Modality {
    /// What people call it.
    pub(super) name: &'static str,
    /// What the names of its files end with, until 2021 and since 2023.
    endings: [&'static str; 2],
}

pub(super) const T1: Modality = Modality { name: "T1", endings: ["_t1", "-t1n"] };
pub(super) const T1CE: Modality = Modality { name: "T1ce", endings: ["_t1ce", "-t1c"] };
pub(super) const T2: Modality = Modality { name: "T2", endings: ["_t2", "-t2w"] };
pub(super) const FLAIR: Modality = Modality { name: "FLAIR", endings: ["_flair", "-t2f"] };

/// All of them.
const ALL: [Modality; 4] = [T1, T1CE, T2, FLAIR];

/// What the names of segmentations end with, until 2021 and since 2023.
const SEGMENTATION: [&str; 2] = ["_seg", "-seg"];

/// The files of one case.
pub(super) struct Files {
    pub(super) name: String,
    pub(super) patient: String,
    /// Those of the modalities that were asked for, in their order.
    pub(super) images: Vec<PathBuf>,
    pub(super) segmentation: PathBuf,
}

/// What to look for.
pub(super) struct Wanted {
    /// The volumes that are read of every case; the others are passed over.
    pub(super) modalities: &'static [Modality],
    /// What the folder must hold, in words.
    pub(super) layout: &'static str,
}

/// The files of a folder by what they show and the names of their cases.
#[derive(Default)]
struct Found {
    images: BTreeMap<&'static str, BTreeMap<String, PathBuf>>,
    segmentations: BTreeMap<String, PathBuf>,
}

impl Wanted {
    /// The cases in `folder` and all folders in it, in ascending order of their names.
    ///
    /// Refuses cases that lack a volume or the segmentation, segmentations without volumes, a name that is there
    /// twice, and a folder without cases; notes files that the challenge does not have.
    pub(super) fn find(&self, folder: &Path, notes: &Notes) -> Result<Vec<Files>> {
        let Found { mut images, mut segmentations } = self.look(folder, notes)?;
        let names: BTreeSet<String> = images.values().flat_map(BTreeMap::keys).cloned().collect();
        let mut cases = Vec::new();
        for name in names {
            let take = |modality: &Modality| {
                let of_all = images.get_mut(modality.name);
                of_all.and_then(|found| found.remove(&name)).ok_or_else(|| {
                    let looked_for = candidates(&name, modality.endings);
                    Failure::new(format!("case `{name}` has no {} volume", modality.name))
                        .hint(format!("looked for {looked_for} at any depth"))
                })
            };
            let images = self.modalities.iter().map(take).collect::<Result<Vec<PathBuf>>>()?;
            let Some(segmentation) = segmentations.remove(&name) else {
                let image = images.last().map(|path| path.display().to_string());
                let message = format!("volume `{}` has no segmentation", image.unwrap_or_default());
                return Err(Failure::new(message)
                    .hint(format!("looked for {} beside it", candidates(&name, SEGMENTATION)))
                    .hint("only the training set of the challenge has segmentations"));
            };
            let patient = patient(&name).to_owned();
            cases.push(Files { name, patient, images, segmentation });
        }
        if let Some(alone) = segmentations.values().next() {
            let volumes = if self.modalities.len() > 1 { "volumes" } else { "volume" };
            let hint = format!("put the {} {volumes} beside it, or remove it", self.names());
            let message = format!("segmentation `{}` has no volume", alone.display());
            return Err(Failure::new(message).hint(hint));
        }
        if cases.is_empty() {
            let message = format!("no {} volumes in `{}`", self.names(), folder.display());
            return Err(Failure::new(message).hint(self.layout));
        }
        Ok(cases)
    }

    fn look(&self, folder: &Path, notes: &Notes) -> Result<Found> {
        let mut found = Found::default();
        for folder in folder::tree(folder).map_err(|failure| failure.hint(self.layout))? {
            for (name, path) in folder::list(&folder)?.files {
                let case = |endings: [&str; 2]| {
                    let lower = name.to_ascii_lowercase();
                    let ending = endings.into_iter().find(|ending| lower.ends_with(ending))?;
                    Some(name[..name.len() - ending.len()].to_owned())
                };
                let of_modality = ALL.iter().find_map(|one| Some((one, case(one.endings)?)));
                let (found, case) = if let Some((modality, case)) = of_modality {
                    if !self.modalities.contains(modality) {
                        continue;
                    }
                    (found.images.entry(modality.name).or_default(), case)
                } else if let Some(case) = case(SEGMENTATION) {
                    (&mut found.segmentations, case)
                } else {
                    let why = "the name is none of the challenge (`CASE_flair`, `CASE_seg`)";
                    notes.leave_out(why, format!("`{}`", path.display()));
                    continue;
                };
                if let Some(other) = found.insert(case, path.clone()) {
                    return Err(Failure::new(format!(
                        "`{}` and `{}` have the same name, expected each volume once",
                        other.display(),
                        path.display()
                    )));
                }
            }
        }
        Ok(found)
    }

    /// The modalities in words.
    fn names(&self) -> String {
        let names: Vec<&str> = self.modalities.iter().map(|modality| modality.name).collect();
        match names.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, others)) => format!("{} and {last}", others.join(", ")),
            None => String::new(),
        }
    }
}

/// The names that a file of a case may have, in words.
fn candidates(name: &str, endings: [&str; 2]) -> String {
    endings.map(|ending| format!("`{name}{ending}.nii.gz`")).join(" or ")
}

/// Whose volume this is: the years of the challenge, as in `Brats18_2013_2_1` and `BraTS19_2013_2_1`, have
/// patients in common, and since 2023 the last number of `BraTS-GLI-00005-101` is that of the scan.
fn patient(name: &str) -> &str {
    if name.to_lowercase().starts_with("brats-") && name.matches('-').count() == 3 {
        return name.rsplit_once('-').map_or(name, |(patient, _)| patient);
    }
    let year = name.split_once('_').filter(|(year, _)| year.to_lowercase().starts_with("brats"));
    year.map_or(name, |(_, patient)| patient)
}

/// What is wrong with shares of the patients to validate and to test with, if anything is.
pub(super) fn wrong_shares([validation, test]: [f64; 2]) -> Option<String> {
    let is_right = validation > 0.0 && test >= 0.0 && validation + test < 1.0;
    (!is_right).then(|| {
        format!(
            "shares of {validation} to validate and {test} to test leave no patients to train on or to validate with"
        )
    })
}

/// The fold of each patient in the order that `key` draws: 1 of those to validate with, 2 of those to test with, by
/// their shares and at least one where the share is above 0, and 0 of all others. Refuses patients too few for that.
pub(super) fn split(
    cases: &[Files],
    held_out_shares: [f64; 2],
    key: Key,
) -> Result<BTreeMap<String, u32>> {
    let patients: BTreeSet<&String> = cases.iter().map(|one| &one.patient).collect();
    let patients: Vec<&String> = patients.into_iter().collect();
    let count = patients.len();
    let share = |share: f64| {
        if share > 0.0 { ((share * count as f64).round() as usize).max(1) } else { 0 }
    };
    let [validation, test] = held_out_shares.map(share);
    if count <= validation + test {
        return Err(Failure::new(format!(
            "{count} patients cannot be split into {validation} to validate, {test} to test and others to train on"
        ))
        .hint("add volumes, or hold out fewer with `--val-share` and `--test-share`"));
    }
    let order = permutation(key, count);
    let split = order.into_iter().enumerate().map(|(place, index)| {
        let fold = match place {
            place if place < validation => 1,
            place if place < validation + test => 2,
            _ => 0,
        };
        (patients[index].clone(), fold)
    });
    Ok(split.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn years_of_the_challenge_share_patients() {
        assert_eq!(patient("Brats18_2013_2_1"), patient("BraTS19_2013_2_1"));
        assert_eq!(patient("CASE_1"), "CASE_1");
    }

    #[test]
    fn the_published_numbers_of_patients_are_those_of_the_shares() {
        let case = |number: usize| Files {
            name: format!("BraTS20_Training_{number:03}"),
            patient: format!("Training_{number:03}"),
            images: Vec::new(),
            segmentation: PathBuf::new(),
        };
        let cases: Vec<Files> = (1..=369).map(case).collect();
        let split = split(&cases, [0.1518, 0.1463], Key::new(2022)).unwrap();
        let count = |fold: u32| split.values().filter(|&&other| other == fold).count();
        assert_eq!([0, 1, 2].map(count), [259, 56, 54]);
    }
}
