//! What a data set holds and what is odd about it: numbers of its cases, and findings in words.
//!
//! A case is measured when it passes ([`CaseMeasures`]), so that memory is needed for one; all else is a function of
//! these measures ([`Survey`]). How it is drawn, and who asks, is for others to know.

mod findings;
mod measures;
pub mod numbers;
mod survey;

pub use findings::{Finding, Purpose, Severity};
pub use measures::{CaseMeasures, LabelCount, LabelCounts};
pub use survey::{Survey, is_partial};

use crate::preparation::Preparation;
use crate::scan::LeftOut;
use numbers::{AxisSpread, Cases, KindNumbers};
use serde::Serialize;

/// The form of a report as JSON; another form gets another number.
const SCHEMA: &str = "scrimp data report 1";

/// What is said of a data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// `scrimp data report 1`.
    pub schema: &'static str,
    /// As [`Survey::name`].
    pub name: String,
    /// As [`Survey::classes`].
    pub classes: Vec<String>,
    /// How many cases.
    pub cases: usize,
    /// How many patients they are of.
    pub patients: usize,
    /// Slices of all cases.
    pub slices: u64,
    /// Voxels of all cases, each counted once however many channels it has.
    pub voxels: u64,
    /// Numbers of each voxel.
    pub channels: usize,
    /// What the channels show, where that is known and the same for all cases.
    pub channel_names: Vec<String>,
    /// Cases by the fold that holds them out, 0 where none does.
    pub folds: Vec<Cases<u32>>,
    /// The fold that is there to test with, from which nothing is learnt.
    pub test_fold: Option<u32>,
    /// Cases by what they were taken with; none where nobody says it.
    pub modalities: Vec<Cases<String>>,
    /// What was found and did not become a case; not known of a file that is packed already.
    pub left_out: Vec<LeftOut>,
    /// Extents along slices, rows and columns.
    pub axes: Vec<AxisSpread>,
    /// Cases that do not say how far apart their voxels lie.
    pub spacing_unknown: usize,
    /// By kind of annotation.
    pub annotations: Vec<KindNumbers>,
    /// The gravest first.
    pub findings: Vec<Finding>,
    /// Whether it can be trained on, as it was asked for.
    pub is_trainable: bool,
}

impl Report {
    /// What is to be said of a data set that somebody wants to train on.
    pub fn new(survey: &Survey, left_out: Vec<LeftOut>, purpose: &Purpose) -> Self {
        let grids = || survey.cases.iter().map(|case| &case.grid);
        let patients = survey.cases.iter().map(|case| case.patient.as_str());
        let findings = findings::all(survey, purpose);
        Self {
            schema: SCHEMA,
            name: survey.name.clone(),
            classes: survey.classes.clone(),
            cases: survey.cases.len(),
            patients: patients.collect::<std::collections::BTreeSet<_>>().len(),
            slices: grids().map(|grid| grid.shape[0] as u64).sum(),
            voxels: grids().map(|grid| grid.voxels() as u64).sum(),
            channels: survey.cases.first().map_or(1, |case| case.channels),
            channel_names: survey.preparation.as_ref().map_or_else(Vec::new, channel_names),
            folds: numbers::by_fold(survey),
            test_fold: survey.test_fold,
            modalities: numbers::by_modality(survey),
            left_out,
            axes: numbers::axes(survey),
            spacing_unknown: grids().filter(|grid| grid.spacing_mm.is_none()).count(),
            annotations: numbers::kinds(survey),
            is_trainable: findings.iter().all(|one| one.severity != Severity::Refused),
            findings,
        }
    }

    /// The findings for which it cannot be trained on.
    pub fn refusals(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Refused)
    }
}

fn channel_names(preparation: &Preparation) -> Vec<String> {
    preparation.channels.iter().map(|channel| channel.name.clone()).collect()
}

/// Small data sets for the tests of this module.
#[cfg(test)]
mod samples {
    use super::{CaseMeasures, Survey};
    use crate::data::Case;
    use crate::random::Key;
    use crate::scan::{Grid, Scan};

    /// A case of two slices of 1 x 2 pixels, with these labels. Images differ by their names.
    pub(super) fn annotated(name: &str, annotations: &[(&str, [u8; 4])]) -> CaseMeasures {
        let mut draws = Key::new(1).purpose(name).draws();
        let voxels = (0..4).map(|_| draws.uniform() as f32).collect();
        let grid = Grid::unplaced([2, 1, 2], Some([5.0, 1.0, 1.0]));
        CaseMeasures::of(&Case {
            name: name.into(),
            patient: name.into(),
            frame: 0,
            modality: String::new(),
            fold: 0,
            classes_annotated: Vec::new(),
            scan: Scan { grid, channels: 1, voxels },
            annotations: annotations.iter().map(|(kind, l)| ((*kind).into(), l.to_vec())).collect(),
        })
    }

    /// Cases without annotation, called by their numbers.
    pub(super) fn cases(count: usize) -> Survey {
        survey((0..count).map(|number| annotated(&format!("c{number}"), &[])).collect())
    }

    /// Cases of background, liver and tumour.
    pub(super) fn survey(cases: Vec<CaseMeasures>) -> Survey {
        let classes = ["background", "liver", "tumour"].map(String::from).to_vec();
        Survey {
            name: "set".into(),
            classes,
            levels: Vec::new(),
            preparation: None,
            test_fold: None,
            cases,
        }
    }
}
