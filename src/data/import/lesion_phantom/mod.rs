//! A synthetic data set of diseased and healthy images, for methods that learn from image labels alone.
//!
//! Every image is a pure function of (seed, part, number), and no healthy image is the twin of a
//! diseased one. What it draws is frozen: a change is another phantom, and would change what runs on
//! it print.

mod picture;

use super::Source;
use super::parts::{self, PreparedPart};
use super::phantom::{check_range, check_voxels};
use crate::data::Dataset;
use crate::error::Result;
use crate::limits::{NETWORK_SIZE, PHANTOM_CASES, PHANTOM_VOXELS};
use crate::preparation::Preparation;
use crate::random::Key;
use crate::scan::Notes;

/// What to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LesionPhantom {
    /// How many diseased images to train on, 1 to [`PHANTOM_CASES`].
    pub cases: usize,
    /// How many healthy images to train on, 1 to [`PHANTOM_CASES`].
    pub healthy: usize,
    /// How many images with known lesions to validate with, 1 to [`PHANTOM_CASES`]; fold 1.
    pub validation: usize,
    /// How many images with known lesions to test with, up to [`PHANTOM_CASES`]; fold 2.
    pub test: usize,
    /// Rows and columns of each image, 32 to [`NETWORK_SIZE`].
    pub size: usize,
    /// Equal seeds give equal images.
    pub seed: u64,
}

/// The smallest image in which the smallest lesions are still some pixels wide.
const SMALLEST_SIZE: usize = 32;

/// One picture with a lesion: red, green and blue, each `size` x `size`, and 1 where the lesion is.
pub(super) fn drawn(key: Key, size: usize) -> (Vec<u8>, Vec<u8>) {
    let picture::Drawn { planes, lesion } = picture::draw(key, size, true);
    (planes, lesion)
}

/// Generates the data set in memory; see [`open`].
pub fn generate(phantom: &LesionPhantom) -> Result<Dataset> {
    open(*phantom)?.collect()
}

/// Generates the data set image by image: image labels on what is trained on, dense lesions on what is
/// held out. Refuses counts outside their ranges, and more than [`PHANTOM_VOXELS`] pixels in all.
pub fn open(phantom: LesionPhantom) -> Result<Source> {
    let LesionPhantom { cases, healthy, validation, test, size, seed } = phantom;
    for (what, found, least) in [
        ("cases", cases, 1),
        ("healthy", healthy, 1),
        ("validation", validation, 1),
        ("test", test, 0),
    ] {
        check_range("lesion phantom", (what, found), [least, PHANTOM_CASES])?;
    }
    check_range("lesion phantom", ("size", size), [SMALLEST_SIZE, NETWORK_SIZE])?;
    let case_count = cases + healthy + validation + test;
    let extents = [case_count, 3, size, size];
    check_voxels("lesion phantom", &extents, ("all cases", PHANTOM_VOXELS))?;
    // In the order of the names of cases.
    let parts = [
        (PreparedPart::Test, test),
        (PreparedPart::TrainDiseased, cases),
        (PreparedPart::TrainHealthy, healthy),
        (PreparedPart::Validation, validation),
    ];
    let drawn = parts.into_iter().flat_map(move |(part, count)| {
        (0..count).map(move |index| picture(&phantom, part, index).into_case())
    });
    Ok(Source {
        name: "lesion-phantom".into(),
        classes: parts::classes(),
        preparation: Some(Preparation::colours()),
        provenance: format!(
            "Synthetic images with and without lesions, {cases} diseased and {healthy} healthy to train \
             on, {validation} to validate, {test} to test, seed {seed}."
        ),
        levels: Vec::new(),
        test_fold: Some(2),
        case_count,
        notes: Notes::default(),
        cases: Box::new(drawn),
    })
}

fn picture(phantom: &LesionPhantom, part: PreparedPart, index: usize) -> parts::PreparedPicture {
    let key = Key::new(phantom.seed).purpose("lesion-phantom").purpose(part.prefix());
    let diseased = part != PreparedPart::TrainHealthy;
    let drawn = picture::draw(key.number(index as u64), phantom.size, diseased);
    let name = format!("{}-{:04}", part.prefix(), index + 1);
    parts::PreparedPicture {
        // Another seed draws other organs: these are other people.
        patient: format!("seed{}-{name}", phantom.seed),
        name,
        part,
        size: phantom.size,
        spacing_mm: None,
        planes: drawn.planes,
        lesion: drawn.lesion,
    }
}
