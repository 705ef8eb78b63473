//! A synthetic data set of pictures with lesions that somebody looked at, for trying things out and comparing them.
//!
//! Pictures are those of the lesion phantom, fixations a simulated scan path, and levels of gaze are made of them as of
//! real ones. Every case is a pure function of (seed, part, number). What it draws is frozen: a change is another
//! phantom, and would change what runs on it print.

use super::gaze::Making;
use super::lesion_phantom::drawn;
use super::phantom::{check_range, check_voxels};
use super::{Notes, Source};
use crate::crf::{Bilateral, DenseCrf};
use crate::data::pseudo::in_parallel;
use crate::data::{Case, DENSE, Dataset, GAZE, check_levels};
use crate::error::{Exit, Result};
use crate::gaze::{FIELD, scan_path};
use crate::limits::{NETWORK_SIZE, PHANTOM_CASES, PHANTOM_VOXELS};
use crate::preparation::Prepared;
use crate::random::Key;
use crate::scan::{Grid, Scan};
use std::collections::BTreeMap;

/// What to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct GazePhantom {
    /// How many pictures to train on, 1 to [`PHANTOM_CASES`]; never held out.
    pub cases: usize,
    /// How many to validate with, 1 to [`PHANTOM_CASES`]; fold 1.
    pub validation: usize,
    /// How many to test with, up to [`PHANTOM_CASES`]; fold 2.
    pub test: usize,
    /// Rows and columns of each picture as it is packed, 32 to half of [`NETWORK_SIZE`]; it is drawn twice as large.
    pub size: usize,
    /// Ascending, each in `(0, 1)`.
    pub levels: Vec<f64>,
    /// Equal seeds give equal pictures and fixations.
    pub seed: u64,
}

/// The smallest picture in which the smallest lesions are still some pixels wide.
const SMALLEST_SIZE: usize = 32;

/// How many times larger pictures are drawn and looked at than they are packed.
const DRAWN_LARGER: usize = 2;

/// Rows and columns of the pictures that the widths of [`FIELD`] are for.
const FIELD_SIZE: f32 = 600.0;

/// The published deviation of maps of pictures in colour.
const DEVIATION: f64 = 70.0;

/// Generates the data set in memory; see [`open`].
pub fn generate(phantom: &GazePhantom, threads: usize) -> Result<Dataset> {
    open(phantom, threads)?.collect()
}

/// Generates the data set with `threads` threads: levels of gaze and dense lesions on every picture.
///
/// Refuses counts outside their ranges, more than [`PHANTOM_VOXELS`] pixels in all, and levels that
/// [`check_levels`] refuses.
pub fn open(phantom: &GazePhantom, threads: usize) -> Result<Source> {
    let &GazePhantom { cases, validation, test, size, seed, .. } = phantom;
    for (what, found, least) in
        [("cases", cases, 1), ("validation", validation, 1), ("test", test, 0)]
    {
        check_range("gaze phantom", (what, found), [least, PHANTOM_CASES])?;
    }
    check_range("gaze phantom", ("size", size), [SMALLEST_SIZE, NETWORK_SIZE / DRAWN_LARGER])?;
    let extents = [cases + validation + test, 3, DRAWN_LARGER * size, DRAWN_LARGER * size];
    check_voxels("gaze phantom", &extents, ("all cases", PHANTOM_VOXELS))?;
    check_levels(&phantom.levels).map_err(|failure| failure.exit_with(Exit::Usage))?;
    // In the order of the names of cases.
    let parts = [("test", 2, test), ("train", 0, cases), ("val", 1, validation)];
    let numbered = parts.into_iter().flat_map(|(part, fold, count)| {
        (0..count).map(move |number| Numbered { part, fold, number })
    });
    let numbered: Vec<Numbered> = numbered.collect();
    let making = making(phantom);
    let made =
        in_parallel(numbered.len(), threads, &|index| numbered[index].case(&making, seed), &|| ())?;
    Ok(Source {
        name: "gaze-phantom".into(),
        classes: ["background", "lesion"].map(String::from).to_vec(),
        preparation: Some(making.preparation()),
        provenance: format!(
            "Synthetic pictures with lesions and simulated fixations, {cases} to train on, {validation} to validate, \
             {test} to test, seed {seed}."
        ),
        levels: making.levels.clone(),
        test_fold: Some(2),
        case_count: made.len(),
        notes: Notes::default(),
        cases: Box::new(made.into_iter()),
    })
}

/// What is done to the fixations, by a field that is as wide on these pictures as the published one on real ones.
fn making(phantom: &GazePhantom) -> Making {
    let share = (DRAWN_LARGER * phantom.size) as f32 / FIELD_SIZE;
    let bilateral = FIELD.bilateral.map(|kernel| Bilateral {
        widths_pixels: kernel.widths_pixels.map(|width| width * share),
        ..kernel
    });
    Making {
        is_in_colour: true,
        deviation: DEVIATION,
        field: DenseCrf { bilateral, ..FIELD },
        levels: phantom.levels.clone(),
        size: phantom.size,
    }
}

/// One case before it is drawn.
struct Numbered {
    part: &'static str,
    fold: u32,
    number: usize,
}

impl Numbered {
    fn case(&self, making: &Making, seed: u64) -> Result<Case> {
        let key = Key::new(seed).purpose("gaze-phantom").purpose(self.part);
        let key = key.number(self.number as u64);
        let size = DRAWN_LARGER * making.size;
        let (planes, lesion) = drawn(key, size);
        let fixations = scan_path(&lesion, size, &mut key.purpose("gaze").draws());
        let scan = Scan {
            grid: Grid::unplaced([1, size, size], None),
            channels: 3,
            voxels: planes.into_iter().map(f32::from).collect(),
        };
        let reached = making.levels_reached(&scan, &fixations)?;
        let Prepared { scan, regrid, .. } = making.preparation().apply(scan)?;
        let dense = regrid.carry_dense(&lesion)?;
        let name = format!("{}-{:04}", self.part, self.number + 1);
        Ok(Case {
            // Another seed draws other organs: these are other people.
            patient: format!("seed{seed}-{name}"),
            name,
            frame: 0,
            fold: self.fold,
            scan,
            modality: String::new(),
            classes_annotated: Vec::new(),
            annotations: BTreeMap::from([(GAZE.to_owned(), reached), (DENSE.to_owned(), dense)]),
        })
    }
}
