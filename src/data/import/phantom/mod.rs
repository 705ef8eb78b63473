//! A synthetic cardiac short-axis data set with scribbles, for trying things out without any data.
//!
//! Classes are those of ACDC. Every slice is a pure function of (seed, case, slice), so a small
//! set is the beginning of a large one. What it draws is frozen: a change is another phantom, and
//! would change what runs on it print.

mod anatomy;
mod picture;
mod scribble;

use super::{Source, cardiac_classes, contiguous_fold};
use crate::data::{Case, DENSE, Dataset, IGNORE, SCRIBBLE};
use crate::error::{Failure, Result};
use crate::limits::{
    EXTENT, NETWORK_SIZE, PHANTOM_CASE_VOXELS, PHANTOM_CASES, PHANTOM_VOXELS, elements,
};
use crate::preparation::intensities::scale;
use crate::preparation::{Intensities, Preparation};
use crate::random::Key;
use crate::scan::Notes;
use crate::scan::{Grid, Scan};
use anatomy::{Anatomy, Section, Wander};
use picture::Appearance;
use std::collections::BTreeMap;

/// What to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phantom {
    /// How many cases, 1 to [`PHANTOM_CASES`].
    pub cases: usize,
    /// Slices of each case from base to apex, 1 to [`EXTENT`].
    pub slices: usize,
    /// Rows and columns of each slice, 32 to [`NETWORK_SIZE`].
    pub size: usize,
    /// How hard the images are to segment.
    pub difficulty: Difficulty,
    /// Equal seeds give equal cases.
    pub seed: u64,
}

/// What to generate where the slices of a case are sections of one body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumePhantom {
    /// How many cases of how many slices, and how large.
    pub phantom: Phantom,
    /// Every so many slices are scribbled on, at least 1; of the others nothing is annotated.
    pub scribbled_every: usize,
}

/// How hard the images are to segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difficulty {
    /// Clear contrast, mild bias field and noise.
    Easy,
    /// Weak contrast, strong bias field and noise, many distractors.
    Hard,
}

/// The smallest slice in which the walls are still wider than a pixel.
const SMALLEST_SIZE: usize = 32;

/// Rows of a slice cover this distance, about the field of view of a heart.
const FIELD_OF_VIEW_MM: f64 = 192.0;

/// Distance of slices.
const SLICE_DISTANCE_MM: f64 = 10.0;

/// From base to apex of a body, however many slices cut it.
const LONG_AXIS_MM: f64 = 72.0;

/// Grey values that a pixel can have before scaling; whole numbers keep the set the same wherever
/// it is made and let it pack well.
const GREY_LEVELS: f64 = 1000.0;

/// Generates the data set in memory; see [`open`].
pub fn generate(phantom: &Phantom) -> Result<Dataset> {
    open(*phantom)?.collect()
}

/// Generates the data set case by case: dense labels and scribbles on every slice, folds as five
/// contiguous blocks. Refuses counts outside their ranges, cases of more than [`PHANTOM_CASE_VOXELS`], and
/// more than [`PHANTOM_VOXELS`] in all.
pub fn open(phantom: Phantom) -> Result<Source> {
    check(phantom)?;
    let said = "Synthetic short-axis slices";
    Ok(source(phantom, said, move |index| case(&phantom, index)))
}

/// Generates the data set of bodies in memory; see [`open_volumes`].
pub fn generate_volumes(volumes: &VolumePhantom) -> Result<Dataset> {
    open_volumes(*volumes)?.collect()
}

/// As [`open`], of cases whose slices are sections of one body: shapes, texture and surroundings run through,
/// noise does not. A slice by itself says less than it does among its neighbours. Which slices are
/// scribbled on differs from case to case.
pub fn open_volumes(volumes: VolumePhantom) -> Result<Source> {
    check(volumes.phantom)?;
    if volumes.scribbled_every == 0 {
        return Err(Failure::usage("a phantom without any scribbled slice cannot be made"));
    }
    let said = "Synthetic short-axis volumes";
    Ok(source(volumes.phantom, said, move |index| body(&volumes, index)))
}

fn check(phantom: Phantom) -> Result<()> {
    let Phantom { cases, slices, size, .. } = phantom;
    check_range("phantom", ("cases", cases), [1, PHANTOM_CASES])?;
    check_range("phantom", ("slices", slices), [1, EXTENT])?;
    check_range("phantom", ("size", size), [SMALLEST_SIZE, NETWORK_SIZE])?;
    check_voxels("phantom", &[slices, size, size], ("one case", PHANTOM_CASE_VOXELS))?;
    check_voxels("phantom", &[cases, slices, size, size], ("all cases", PHANTOM_VOXELS))
}

fn source(phantom: Phantom, said: &str, case: impl Fn(usize) -> Result<Case> + 'static) -> Source {
    Source {
        name: "phantom".into(),
        classes: cardiac_classes(),
        preparation: Some(Preparation::grey(Intensities::Published)),
        provenance: format!("{said}, {:?}, seed {}.", phantom.difficulty, phantom.seed),
        levels: Vec::new(),
        test_fold: None,
        case_count: phantom.cases,
        notes: Notes::default(),
        cases: Box::new((0..phantom.cases).map(case)),
    }
}

/// Refuses a count of something synthetic that is outside its range.
pub(super) fn check_range(
    whole: &str,
    (what, found): (&str, usize),
    [least, most]: [usize; 2],
) -> Result<()> {
    let (expected, bound) = match found {
        _ if found < least => (format!("{least} or more"), least),
        _ if found > most => (format!("{most} or fewer"), most),
        _ => return Ok(()),
    };
    let message = format!("a {whole} with `{what}` = {found} cannot be made, expected {expected}");
    Err(Failure::usage(message).hint(format!("give `--{what} {bound}`")))
}

/// Refuses something synthetic of these extents that has more voxels than `most`.
pub(super) fn check_voxels(
    whole: &str,
    extents: &[usize],
    (of, most): (&str, usize),
) -> Result<()> {
    if elements(extents, most).is_some() {
        return Ok(());
    }
    let message = format!("a {whole} of this size cannot be made, expected {most} voxels in {of}");
    Err(Failure::usage(message).hint("give fewer or smaller slices"))
}

fn case(phantom: &Phantom, index: usize) -> Result<Case> {
    let key = Key::new(phantom.seed).purpose("phantom").number(index as u64);
    let anatomy = Anatomy::draw(&mut key.purpose("anatomy").draws(), phantom.size);
    let appearance = Appearance::draw(&mut key.purpose("appearance").draws(), phantom);
    let mut values = Vec::with_capacity(phantom.slices * phantom.size * phantom.size);
    let (mut dense, mut scribble) = (Vec::new(), Vec::new());
    for slice in 0..phantom.slices {
        let key = key.purpose("slice").number(slice as u64);
        let depth = slice as f64 / phantom.slices.saturating_sub(1).max(1) as f64;
        let section = anatomy.section(depth, &mut key.purpose("section").draws());
        let labels = section.labels(phantom.size);
        let picture = appearance.paint(&section, phantom.size, &mut key.purpose("paint").draws());
        values.extend(picture.iter().map(|value| (value * GREY_LEVELS).round()));
        let mut draws = key.purpose("scribble").draws();
        scribble.extend(scribble::draw(&section, &labels, phantom.size, &mut draws));
        dense.extend(labels);
    }
    finished(phantom, index, SLICE_DISTANCE_MM, Drawn { values, scribble, dense })
}

/// A case whose slices are sections of one body.
fn body(volumes: &VolumePhantom, index: usize) -> Result<Case> {
    let VolumePhantom { phantom, scribbled_every } = volumes;
    let key = Key::new(phantom.seed).purpose("volume phantom").number(index as u64);
    let anatomy = Anatomy::draw(&mut key.purpose("anatomy").draws(), phantom.size);
    let wander = Wander::draw(&mut key.purpose("wander").draws());
    let appearance = Appearance::draw(&mut key.purpose("appearance").draws(), phantom);
    let depth = |slice: usize| slice as f64 / phantom.slices.saturating_sub(1).max(1) as f64;
    let sections: Vec<Section> =
        (0..phantom.slices).map(|slice| anatomy.section_of_body(depth(slice), &wander)).collect();
    let values = appearance.paint_body(&sections, phantom.size, key.purpose("paint"));
    let values = values.iter().map(|value| (value * GREY_LEVELS).round()).collect();
    let first = index % (*scribbled_every).min(phantom.slices);
    let (mut dense, mut scribble) = (Vec::new(), Vec::new());
    for (slice, section) in sections.iter().enumerate() {
        let labels = section.labels(phantom.size);
        if slice >= first && (slice - first).is_multiple_of(*scribbled_every) {
            let mut draws = key.purpose("scribble").number(slice as u64).draws();
            scribble.extend(scribble::draw(section, &labels, phantom.size, &mut draws));
        } else {
            scribble.extend(std::iter::repeat_n(IGNORE, labels.len()));
        }
        dense.extend(labels);
    }
    let distance_mm = LONG_AXIS_MM / phantom.slices as f64;
    finished(phantom, index, distance_mm, Drawn { values, scribble, dense })
}

/// What was drawn of a case: slices, rows, columns.
struct Drawn {
    values: Vec<f64>,
    scribble: Vec<u8>,
    dense: Vec<u8>,
}

fn finished(phantom: &Phantom, index: usize, distance_mm: f64, drawn: Drawn) -> Result<Case> {
    let Drawn { values, scribble, dense } = drawn;
    let name = format!("phantom{:04}", index + 1);
    let in_plane_mm = FIELD_OF_VIEW_MM / phantom.size as f64;
    let grid = Grid::unplaced(
        [phantom.slices, phantom.size, phantom.size],
        Some([distance_mm, in_plane_mm, in_plane_mm]),
    );
    Ok(Case {
        // Another seed draws other hearts: these are other people.
        patient: format!("seed{}-{name}", phantom.seed),
        name,
        frame: 0,
        modality: String::new(),
        classes_annotated: Vec::new(),
        fold: contiguous_fold(index, phantom.cases),
        scan: Scan { grid, channels: 1, voxels: scale(Intensities::Published, &values)? },
        annotations: BTreeMap::from([(SCRIBBLE.into(), scribble), (DENSE.into(), dense)]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    const SMALL: Phantom =
        Phantom { cases: 3, slices: 4, size: 64, difficulty: Difficulty::Easy, seed: 1 };

    fn digest(dataset: &Dataset) -> u64 {
        let bytes = dataset.cases.iter().flat_map(|case| {
            let image = case.scan.voxels.iter().flat_map(|value| value.to_le_bytes());
            image.chain(case.annotations[SCRIBBLE].clone()).chain(case.annotations[DENSE].clone())
        });
        xxh3_64(&bytes.collect::<Vec<u8>>())
    }

    #[test]
    fn the_same_seed_draws_the_same_hearts_for_ever() {
        // Frozen: changing this changes every number measured on the phantom.
        assert_eq!(digest(&generate(&SMALL).unwrap()), 16_879_333_507_936_877_643);
        let hard = Phantom { difficulty: Difficulty::Hard, ..SMALL };
        assert_eq!(digest(&generate(&hard).unwrap()), 11_937_734_790_199_702_830);
    }

    const BODIES: VolumePhantom = VolumePhantom { phantom: SMALL, scribbled_every: 3 };

    #[test]
    fn the_same_seed_draws_the_same_bodies_for_ever() {
        // Frozen as those above.
        assert_eq!(digest(&generate_volumes(&BODIES).unwrap()), 9_954_663_691_293_402_602);
        let phantom = Phantom { difficulty: Difficulty::Hard, ..SMALL };
        let hard = VolumePhantom { phantom, ..BODIES };
        assert_eq!(digest(&generate_volumes(&hard).unwrap()), 8_041_795_152_676_835_889);
    }

    #[test]
    fn slices_of_a_body_run_into_each_other_and_some_are_scribbled_on() {
        let phantom = Phantom { slices: 24, ..SMALL };
        let bodies = generate_volumes(&VolumePhantom { phantom, scribbled_every: 5 }).unwrap();
        let loose = generate(&phantom).unwrap();
        // Pixels whose class differs from that of the slice above, of all that are of a structure.
        let moved = |case: &Case| {
            let dense = |slice| case.annotation_slice(DENSE, slice).unwrap();
            let differing = (1..24).flat_map(|slice| dense(slice).iter().zip(dense(slice - 1)));
            let structures = case.annotations[DENSE].iter().filter(|&&label| label > 0).count();
            differing.filter(|(a, b)| a != b).count() as f64 / structures as f64
        };
        for (number, (body, loose)) in bodies.cases.iter().zip(&loose.cases).enumerate() {
            body.check(4).unwrap();
            assert!(moved(body) < moved(loose), "{} {}", moved(body), moved(loose));
            for slice in 0..24 {
                let scribble = body.annotation_slice(SCRIBBLE, slice).unwrap();
                let is_scribbled = scribble.iter().any(|&label| label != IGNORE);
                assert_eq!(is_scribbled, slice % 5 == number, "case {number}, slice {slice}");
                let truth = body.annotation_slice(DENSE, slice).unwrap();
                let mut known = scribble.iter().zip(truth).filter(|(label, _)| **label != IGNORE);
                assert!(known.all(|(label, truth)| label == truth));
            }
        }
        assert_eq!(bodies.cases[0].scan.grid.spacing_mm, Some([3.0, 3.0, 3.0]));
    }

    #[test]
    fn a_case_does_not_depend_on_how_many_there_are() {
        let one = generate(&Phantom { cases: 1, ..SMALL }).unwrap();
        let three = generate(&SMALL).unwrap();
        assert_eq!(one.cases[0].scan.voxels, three.cases[0].scan.voxels);
        assert_eq!(one.cases[0].annotations, three.cases[0].annotations);
        assert_ne!(three.cases[0].scan.voxels, three.cases[1].scan.voxels);
    }

    #[test]
    fn scribbles_are_few_true_and_on_every_class_of_every_slice() {
        let phantom = Phantom { cases: 5, slices: 8, size: 128, ..SMALL };
        let dataset = generate(&phantom).unwrap();
        let (mut drawn, mut pixels) = (0, 0);
        for case in &dataset.cases {
            case.check(4).unwrap();
            for slice in 0..phantom.slices {
                let scribble = case.annotation_slice(SCRIBBLE, slice).unwrap();
                let dense = case.annotation_slice(DENSE, slice).unwrap();
                for class in 0..4 {
                    assert_eq!(scribble.contains(&class), dense.contains(&class), "{}", case.name);
                }
                let known = scribble.iter().zip(dense).filter(|&(&label, _)| label != IGNORE);
                assert!(known.clone().all(|(label, truth)| label == truth), "{}", case.name);
                drawn += known.count();
                pixels += dense.len();
            }
            assert!(case.annotation_slice(DENSE, 0).unwrap().contains(&1), "a basal slice has RV");
            assert!(
                !case.annotation_slice(DENSE, 7).unwrap().contains(&1),
                "an apical one has not"
            );
        }
        let share = drawn as f64 / f64::from(pixels as u32);
        assert!((0.007..0.015).contains(&share), "{share}");
    }

    #[test]
    fn nothing_to_generate_is_a_mistake_of_the_command_line() {
        let failure = generate(&Phantom { size: 16, ..SMALL }).unwrap_err();
        assert_eq!(
            failure.message(),
            "a phantom with `size` = 16 cannot be made, expected 32 or more"
        );
    }

    #[test]
    fn no_number_is_too_large_to_be_refused() {
        let large = [1 << 13, 1 << 16, 1 << 31, 1 << 32, usize::MAX / 2, usize::MAX];
        let said = |phantom: Phantom| {
            let failure = open(phantom).err().expect("it was accepted");
            assert_eq!(failure.exit(), crate::error::Exit::Usage);
            failure.message().to_owned()
        };
        for &size in &large[1..] {
            assert!(said(Phantom { size, ..SMALL }).contains("8192 or fewer"));
        }
        for &cases in &large[1..] {
            assert!(said(Phantom { cases, ..SMALL }).contains("9999 or fewer"));
        }
        for &slices in &large[2..] {
            assert!(said(Phantom { slices, ..SMALL }).contains("65536 or fewer"));
        }
        let size = 1 << 13;
        assert!(said(Phantom { slices: 2, size, ..SMALL }).contains("67108864 voxels in one case"));
        let many = Phantom { cases: 9_999, slices: 1, size: 512, ..SMALL };
        assert!(said(many).contains("1073741824 voxels in all cases"));
        assert!(open(Phantom { cases: 9_999, slices: 1, size: 64, ..SMALL }).is_ok());
    }
}
