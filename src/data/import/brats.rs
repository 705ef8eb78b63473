//! BraTS (brain tumours): FLAIR volumes cut into slices that show a lesion and slices that show none.
//!
//! Data: Menze et al., TMI 2015; Bakas et al., Scientific Data 2017. Which slices are taken follows
//! the preparation of `mlcb-jlu/MedImgSeg` at 73c6b9e4; other than there, one scale of intensities holds
//! for all slices of a volume, and patients are never on two sides of the split.

use super::brats_files::{self, FLAIR, Files, Wanted, wrong_shares};
use super::parts::{self, PreparedPart, PreparedPicture};
use super::{Source, pictures};
use crate::data::{Case, augment::pillow};
use crate::error::{Failure, Result};
use crate::preparation::Preparation;
use crate::random::Key;
use crate::scan::{self, Coding, Notes};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What to pack.
#[derive(Debug, Clone)]
pub struct Volumes {
    /// The folder that holds `*_flair.nii.gz` with `*_seg.nii.gz` beside them, however deep.
    pub folder: PathBuf,
    /// Rows and columns that every slice is resized to, 16 or more.
    pub size: usize,
    /// Lesion pixels, as stored, from which on a slice counts as diseased, at least 1; with fewer, but
    /// more than none, it is left out.
    pub min_lesion: usize,
    /// Slices whose number is a multiple of this are taken, at least 1.
    pub every: usize,
    /// The first and the last slice that may be taken, in per cent of the depth.
    pub depth_percent: [u32; 2],
    /// The shares of the patients to validate and to test with; the others are trained on.
    pub held_out_shares: [f64; 2],
    /// Equal seeds give equal splits.
    pub seed: u64,
}

/// One volume, and what is taken of it.
struct Taken {
    files: Files,
    /// Numbers of slices, with the part that each is for.
    slices: Vec<(usize, PreparedPart)>,
}

/// Shares of the brain's voxels that are cut off below and above.
const CUT_SHARES: [f64; 2] = [0.005, 0.995];

/// Finds the volumes, splits their patients by the seed, and looks which slices show a lesion.
///
/// Slices to train on have image labels, diseased or healthy; of the other patients only diseased
/// slices are taken, with their lesions, those to validate with in fold 1, those to test with in fold 2.
/// Slices are cut to a centred square and have three equal channels of 8 bits: 0 where the volume is 0,
/// else 1 to 255 between the `CUT_SHARES` of the volume's other voxels.
pub fn open(volumes: &Volumes) -> Result<Source> {
    volumes.check()?;
    let notes = Notes::default();
    let found = WANTED.find(&volumes.folder, &notes)?;
    let key = Key::new(volumes.seed).purpose("brats");
    let split = brats_files::split(&found, volumes.held_out_shares, key)?;
    let split: BTreeMap<String, PreparedPart> =
        split.into_iter().map(|(patient, fold)| (patient, part(fold))).collect();
    let mut taken = Vec::new();
    for files in found {
        let part = split.get(&files.patient).copied().unwrap_or(PreparedPart::TrainDiseased);
        let slices = volumes.slices(&files, part, &notes)?;
        taken.push(Taken { files, slices });
    }
    // In the order of the names of cases.
    taken.sort_by_cached_key(|one| split.get(&one.files.patient).map(|part| one.prefix(*part)));
    let count = |part| taken.iter().flat_map(|one| &one.slices).filter(|(_, p)| *p == part).count();
    volumes.check_counts(&split, count)?;
    let provenance = format!(
        "BraTS, FLAIR slices (Menze et al., TMI 2015; Bakas et al., Scientific Data 2017), {} diseased and \
         {} healthy to train on, {} to validate, {} to test, patients split by seed {}.\n\
         Diseased from {} lesion pixels on. Intensities cut at shares {CUT_SHARES:?} of the brain, 8 bits, \
         resized to {} x {} by a triangle filter.",
        count(PreparedPart::TrainDiseased),
        count(PreparedPart::TrainHealthy),
        count(PreparedPart::Validation),
        count(PreparedPart::Test),
        volumes.seed,
        volumes.min_lesion,
        volumes.size,
        volumes.size
    );
    let (size, case_count) = (volumes.size, taken.iter().map(|one| one.slices.len()).sum());
    let noted = notes.clone();
    let cases = taken.into_iter().flat_map(move |one| match one.cases(size, &noted) {
        Ok(cases) => cases.into_iter().map(Ok).collect(),
        Err(failure) => vec![Err(failure)],
    });
    Ok(Source {
        name: "brats".into(),
        classes: parts::classes(),
        provenance,
        preparation: Some(Preparation::colours()),
        levels: Vec::new(),
        test_fold: Some(2),
        case_count,
        cases: Box::new(cases),
        notes,
    })
}

/// What is read of the folder.
const WANTED: Wanted = Wanted {
    modalities: &[FLAIR],
    layout: "`--from` takes the folder of the challenge's training set, in which, at any depth, \
             `CASE_flair.nii.gz` and `CASE_seg.nii.gz` lie side by side",
};

/// What the patients of a fold are for; [`PreparedPart::TrainDiseased`] stands for training.
fn part(fold: u32) -> PreparedPart {
    match fold {
        1 => PreparedPart::Validation,
        2 => PreparedPart::Test,
        _ => PreparedPart::TrainDiseased,
    }
}

impl Volumes {
    fn check(&self) -> Result<()> {
        let [from, to] = self.depth_percent;
        let wrong = if self.size < 16 {
            format!("slices cannot be resized to {} pixels, expected 16 or more", self.size)
        } else if self.min_lesion == 0 || self.every == 0 {
            "`--min-lesion` and `--every` must be at least 1".to_owned()
        } else if from >= to || to > 100 {
            format!("there are no slices from {from} to {to} per cent of the depth")
        } else if let Some(wrong) = wrong_shares(self.held_out_shares) {
            wrong
        } else {
            return Ok(());
        };
        Err(Failure::usage(wrong)
            .hint("`scrimp prepare brats --help` says what is assumed otherwise"))
    }

    /// The slices to take of a volume for `part`.
    fn slices(
        &self,
        files: &Files,
        part: PreparedPart,
        notes: &Notes,
    ) -> Result<Vec<(usize, PreparedPart)>> {
        let image = scan::read_grid(flair(files), notes)?;
        let lesions = image.labels_at(&files.segmentation, &lesions(), notes)?.values;
        let shape = image.grid.shape;
        let [first, last] = self.depth_percent.map(|percent| percent as usize * shape[0]);
        let slices = (0..shape[0]).step_by(self.every);
        let slices = slices.filter(|slice| (first..=last).contains(&(slice * 100)));
        let (mut taken, mut small, mut healthy) = (Vec::new(), Vec::new(), Vec::new());
        for slice in slices {
            let (mask, _) = Square::of(shape).cut(&lesions, slice);
            match mask.into_iter().filter(|&lesion| lesion > 0).count() {
                0 if part == PreparedPart::TrainDiseased => {
                    taken.push((slice, PreparedPart::TrainHealthy));
                }
                0 => healthy.push(slice.to_string()),
                count if count >= self.min_lesion => taken.push((slice, part)),
                _ => small.push(slice.to_string()),
            }
        }
        let small_lesion = format!("their lesion has fewer than {} pixels", self.min_lesion);
        let healthy_why = "healthy slices are not scored";
        for (why, slices) in [(small_lesion.as_str(), small), (healthy_why, healthy)] {
            if !slices.is_empty() {
                let slices = slices.join(", ");
                notes.leave_out(why, format!("slices {slices} of `{}`", files.name));
            }
        }
        Ok(taken)
    }

    fn check_counts(
        &self,
        split: &BTreeMap<String, PreparedPart>,
        count: impl Fn(PreparedPart) -> usize,
    ) -> Result<()> {
        let of = |part| split.values().filter(|&&other| other == part).count();
        let diseased = format!("with {} lesion pixels or more", self.min_lesion);
        for (part, patients, what) in [
            (PreparedPart::TrainDiseased, of(PreparedPart::TrainDiseased), diseased.as_str()),
            (PreparedPart::TrainHealthy, of(PreparedPart::TrainDiseased), "without any lesion"),
            (PreparedPart::Validation, of(PreparedPart::Validation), &diseased),
            (PreparedPart::Test, of(PreparedPart::Test), &diseased),
        ] {
            if patients > 0 && count(part) == 0 {
                let whose = match part {
                    PreparedPart::Validation => "to validate with",
                    PreparedPart::Test => "to test with",
                    _ => "to train on",
                };
                return Err(Failure::new(format!(
                    "the {patients} patients {whose} have no slice {what}"
                ))
                .hint("take more slices with `--every`, `--depth-from` and `--depth-to`, or another `--min-lesion`")
                .hint("another `--seed` splits the patients in another way"));
            }
        }
        Ok(())
    }
}

/// The centred square of slices.
#[derive(Clone, Copy)]
struct Square {
    rows: usize,
    columns: usize,
    side: usize,
}

impl Square {
    fn of([_slices, rows, columns]: [usize; 3]) -> Self {
        Self { rows, columns, side: rows.min(columns) }
    }

    /// The square of one slice of a volume, and its shape.
    fn cut(self, volume: &[u8], slice: usize) -> (Vec<u8>, [usize; 2]) {
        let Self { rows, columns, side } = self;
        let (top, left) = ((rows - side) / 2, (columns - side) / 2);
        let lines = volume[slice * rows * columns..].chunks_exact(columns).skip(top).take(side);
        (lines.flat_map(|line| &line[left..left + side]).copied().collect(), [side; 2])
    }
}

impl Taken {
    /// What the names of its cases have in common.
    fn prefix(&self, part: PreparedPart) -> String {
        let part = if part <= PreparedPart::TrainHealthy { "train" } else { part.prefix() };
        format!("{part}-{}_flair_", self.files.name)
    }

    /// The cases of the slices that are taken.
    fn cases(&self, size: usize, notes: &Notes) -> Result<Vec<Case>> {
        let file = flair(&self.files);
        let grid = scan::read_grid(file, notes)?;
        grid.note_oddities(notes);
        let lesions = grid.labels_at(&self.files.segmentation, &lesions(), notes)?.values;
        let image = scan::read(file, notes)?;
        let levels = levels(&image.voxels)
            .map_err(|failure| failure.during(format!("cannot scale `{}`", file.display())))?;
        let square = Square::of(image.grid.shape);
        let scale = square.side as f64 / size as f64;
        let spacing_mm =
            image.grid.spacing_mm.map(|[between_slices, between_rows, between_columns]| {
                [between_slices, scale * between_rows, scale * between_columns]
            });
        let case = |&(slice, part): &(usize, PreparedPart)| {
            let (plane, shape) = square.cut(&levels, slice);
            let picture = PreparedPicture {
                name: format!("{}{slice:03}", self.prefix(part)),
                patient: self.files.patient.clone(),
                part,
                size,
                spacing_mm,
                planes: pillow::resize(&plane, shape, [size; 2]).repeat(3),
                lesion: pictures::cut(&square.cut(&lesions, slice).0, shape, size),
            };
            picture.into_case()
        };
        self.slices.iter().map(case).collect()
    }
}

/// The only volume that is read of a case.
fn flair(files: &Files) -> &Path {
    files.images.first().map_or(Path::new(""), PathBuf::as_path)
}

/// 255 where a segmentation says lesion, whichever tissue of it: its labels are 1 necrosis, 2 oedema, 3 or
/// 4 enhancing tumour.
fn lesions() -> Coding {
    let labels = (0..=4).map(|label| (label, if label > 0 { 255 } else { 0 }));
    Coding::new(labels, "0 to 4".into())
}

/// The voxels of a volume in 8 bits: background, which is 0, stays 0 and is the only one, so that it can
/// be told from dark brain.
fn levels(values: &[f32]) -> Result<Vec<u8>> {
    let values: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(Failure::new(format!(
            "voxel {index} of the image is {}, expected finite intensities",
            values[index]
        )));
    }
    let mut brain: Vec<f64> = values.iter().copied().filter(|&value| value != 0.0).collect();
    let [low, high] = CUT_SHARES.map(|share| {
        let place = (share * brain.len().saturating_sub(1) as f64).round() as usize;
        if brain.is_empty() { 0.0 } else { *brain.select_nth_unstable_by(place, f64::total_cmp).1 }
    });
    if low >= high {
        return Err(Failure::new(format!(
            "nearly all voxels of the image that are not 0 are {low}, expected more than one intensity"
        )));
    }
    let level = |&value: &f64| match value {
        0.0 => 0,
        value => (1.0 + 254.0 * ((value - low) / (high - low)).clamp(0.0, 1.0)).round() as u8,
    };
    Ok(values.iter().map(level).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn background_stays_black_and_brain_never_becomes_it() {
        let mut values = vec![0.0; 50];
        values.extend((1..=1000u16).map(f32::from));
        let levels = levels(&values).unwrap();
        assert_eq!((levels[0], levels[50], levels[55], levels[1049]), (0, 1, 1, 255));
        // Half-way between the cuts at 6 and 995.
        assert_eq!(levels[50 + 500], 128);
        assert_eq!(
            super::levels(&[0.0, 0.0, 7.0, 7.0]).unwrap_err().message(),
            "nearly all voxels of the image that are not 0 are 7, expected more than one intensity"
        );
        assert!(super::levels(&[0.0, 0.0]).is_err());
    }
}
