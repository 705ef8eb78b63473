//! A synthetic data set of diseased and healthy images, for methods that learn from image labels alone.
//!
//! Every image is a pure function of (seed, part, number), and no healthy image is the twin of a
//! diseased one. What it draws is frozen: a change is another phantom, and would change what runs on
//! it print.

mod picture;

use super::parts::{self, Part};
use crate::data::Dataset;
use crate::error::{Failure, Result};
use crate::random::Key;

/// What to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LesionPhantom {
    /// How many diseased images to train on, at least 1.
    pub cases: usize,
    /// How many healthy images to train on, at least 1.
    pub healthy: usize,
    /// How many images with known lesions to validate with, at least 1; fold 1.
    pub validation: usize,
    /// How many images with known lesions to test with; fold 2.
    pub test: usize,
    /// Rows and columns of each image, 32 or more.
    pub size: usize,
    /// Equal seeds give equal images.
    pub seed: u64,
}

/// The smallest image in which the smallest lesions are still some pixels wide.
const SMALLEST_SIZE: usize = 32;

/// Generates the data set: image labels on what is trained on, dense lesions on what is held out.
/// Refuses counts of 0 but for `test`, and images below 32 pixels.
pub fn generate(phantom: &LesionPhantom) -> Result<Dataset> {
    for (what, found, least) in [
        ("cases", phantom.cases, 1),
        ("healthy", phantom.healthy, 1),
        ("validation", phantom.validation, 1),
        ("size", phantom.size, SMALLEST_SIZE),
    ] {
        if found < least {
            return Err(Failure::usage(format!(
                "a lesion phantom with `{what}` = {found} cannot be made, expected {least} or more"
            ))
            .hint(format!("give `--{what} {least}` or more")));
        }
    }
    // In the order of the names of cases.
    let parts = [
        (Part::Test, phantom.test),
        (Part::TrainDiseased, phantom.cases),
        (Part::TrainHealthy, phantom.healthy),
        (Part::Validation, phantom.validation),
    ];
    let cases = parts.into_iter().flat_map(|(part, count)| {
        (0..count).map(move |index| picture(phantom, part, index).into_case())
    });
    Ok(Dataset {
        name: "lesion-phantom".into(),
        classes: parts::classes(),
        provenance: format!(
            "Synthetic images with and without lesions, {} diseased and {} healthy to train on, {} to \
             validate, {} to test, seed {}.",
            phantom.cases, phantom.healthy, phantom.validation, phantom.test, phantom.seed
        ),
        cases: cases.collect(),
    })
}

fn picture(phantom: &LesionPhantom, part: Part, index: usize) -> parts::Picture {
    let key = Key::new(phantom.seed).purpose("lesion-phantom").purpose(part.prefix());
    let diseased = part != Part::TrainHealthy;
    let drawn = picture::draw(key.number(index as u64), phantom.size, diseased);
    let name = format!("{}-{:04}", part.prefix(), index + 1);
    parts::Picture {
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
