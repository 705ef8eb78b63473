//! Published splits, which part a data set otherwise than the folds that it was packed with.
//!
//! Knows names of cases alone.

use super::{DENSE, Dataset};
use crate::error::{Failure, Result};

/// How many volumes of 100 patients ACDC has.
const ACDC_VOLUMES: usize = 200;

/// Patient and frame of the volumes to validate with, of HiLab-git/DMSPS at 89fe065.
#[rustfmt::skip]
const DMSPS_VALIDATION: [[u32; 2]; 30] = [
    [6, 1], [8, 1], [9, 13], [16, 1], [19, 1], [23, 9], [24, 1], [29, 1], [31, 10], [32, 1],
    [47, 9], [48, 8], [55, 1], [57, 9], [60, 1], [63, 1], [65, 1], [65, 14], [68, 12], [69, 12],
    [70, 10], [71, 1], [73, 1], [77, 1], [83, 8], [86, 8], [87, 10], [90, 4], [94, 7], [98, 9],
];

/// Those to test with.
#[rustfmt::skip]
const DMSPS_TEST: [[u32; 2]; 30] = [
    [4, 15], [12, 13], [13, 14], [14, 1], [15, 1], [20, 11], [25, 9], [30, 1], [34, 16], [36, 1],
    [38, 11], [40, 13], [45, 13], [53, 1], [58, 1], [64, 12], [66, 11], [72, 11], [74, 1], [75, 6],
    [76, 1], [81, 1], [85, 9], [86, 1], [89, 1], [89, 10], [93, 1], [94, 1], [96, 1], [98, 1],
];

/// Parts ACDC as HiLab-git/DMSPS does: 30 volumes are held out in fold 1, to validate with, 30 in fold 2, to test with,
/// and the other 140 in none.
///
/// What is held out keeps its dense labels alone, so that nothing learns from it while the other fold is held out. Of
/// most patients who are held out the other frame is among the 140. Refuses everything but the 200 volumes of ACDC, by
/// the names of cases.
pub fn dmsps(dataset: &mut Dataset) -> Result<()> {
    let ids = acdc_ids(dataset)?;
    for (case, id) in dataset.cases.iter_mut().zip(ids) {
        case.fold = match id {
            id if DMSPS_VALIDATION.contains(&id) => 1,
            id if DMSPS_TEST.contains(&id) => 2,
            _ => 0,
        };
        if case.fold > 0 {
            case.annotations.retain(|kind, _| kind == DENSE);
        }
    }
    dataset.test_fold = Some(2);
    Ok(())
}

/// Patient and frame of every case.
fn acdc_ids(dataset: &Dataset) -> Result<Vec<[u32; 2]>> {
    let name = &dataset.name;
    let refused = |what: String| {
        let of = format!("split `dmsps` parts the {ACDC_VOLUMES} volumes of ACDC, and {what}");
        Failure::usage(of).hint("leave `data.split` out to hold out the folds that were packed")
    };
    let id = |case: &str| {
        acdc_id(case).ok_or_else(|| refused(format!("case `{case}` of `{name}` is none of them")))
    };
    let ids = dataset.cases.iter().map(|case| id(&case.name)).collect::<Result<Vec<_>>>()?;
    let mut held_out = DMSPS_VALIDATION.iter().chain(&DMSPS_TEST);
    if let Some([patient, frame]) = held_out.find(|id| !ids.contains(id)) {
        return Err(refused(format!("`patient{patient:03}_frame{frame:02}` is not in `{name}`")));
    }
    if ids.len() != ACDC_VOLUMES {
        return Err(refused(format!("`{name}` has {} cases", ids.len())));
    }
    Ok(ids)
}

/// Patient and frame, of `patient001_frame01`.
fn acdc_id(case: &str) -> Option<[u32; 2]> {
    let (patient, frame) = case.strip_prefix("patient")?.split_once("_frame")?;
    let id = [patient.parse().ok()?, frame.parse().ok()?];
    (1..=100).contains(&id[0]).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SCRIBBLE;
    use crate::data::import::phantom::{Difficulty, Phantom, generate};
    use std::collections::BTreeSet;

    /// The 200 names of ACDC, of patients who are not held out with frames 2 and 3.
    fn acdc() -> Dataset {
        let phantom =
            Phantom { cases: 1, slices: 1, size: 32, difficulty: Difficulty::Easy, seed: 1 };
        let mut dataset = generate(&phantom).unwrap();
        let like = dataset.cases.remove(0);
        let mut named = |patient: u32, frame: u32| {
            let mut case = like.clone();
            case.name = format!("patient{patient:03}_frame{frame:02}");
            case.patient = format!("patient{patient:03}");
            case.fold = 5;
            dataset.cases.push(case);
        };
        for patient in 1..=100 {
            let held_out = DMSPS_VALIDATION.iter().chain(&DMSPS_TEST);
            let known: Vec<u32> = held_out.filter(|id| id[0] == patient).map(|id| id[1]).collect();
            let others = [2, 3].into_iter().skip(known.len());
            for frame in known.iter().copied().chain(others) {
                named(patient, frame);
            }
        }
        dataset
    }

    #[test]
    fn acdc_is_parted_by_volumes() {
        let mut dataset = acdc();
        dmsps(&mut dataset).unwrap();
        let of = |fold: u32| dataset.cases.iter().filter(move |case| case.fold == fold);
        assert_eq!([0, 1, 2].map(|fold| of(fold).count()), [140, 30, 30]);
        assert!(of(0).all(|case| case.annotations.contains_key(SCRIBBLE)));
        assert!(of(1).chain(of(2)).all(|case| case.annotations.keys().eq([DENSE])));
        let patients = |fold| of(fold).map(|case| &case.patient).collect::<BTreeSet<_>>();
        let both = |fold| (patients(fold).len(), patients(fold).intersection(&patients(0)).count());
        // As published: of 25 of 29 patients the other frame is trained on.
        assert_eq!([both(1), both(2)], [(29, 25); 2]);
        let once = dataset.clone();
        dmsps(&mut dataset).unwrap();
        assert_eq!(dataset, once, "what is parted already is parted in the same way");
    }

    #[test]
    fn nothing_but_acdc_is_parted() {
        let refused = |change: &dyn Fn(&mut Dataset)| {
            let mut dataset = acdc();
            change(&mut dataset);
            let before = dataset.clone();
            let failure = dmsps(&mut dataset).unwrap_err();
            assert_eq!(dataset, before);
            failure.to_string()
        };
        insta::assert_snapshot!(refused(&|dataset| dataset.cases[3].name = "phantom0003".into()), @r"
        error: split `dmsps` parts the 200 volumes of ACDC, and case `phantom0003` of `phantom` is none of them

        hint: leave `data.split` out to hold out the folds that were packed
        ");
        let other = refused(&|dataset| dataset.cases[0].name = "patient101_frame01".into());
        assert!(other.contains("case `patient101_frame01` of `phantom` is none"), "{other}");
        let absent =
            refused(&|dataset| dataset.cases.retain(|case| case.name != "patient089_frame10"));
        assert!(absent.contains("and `patient089_frame10` is not in `phantom`"), "{absent}");
        let few = refused(&|dataset| drop(dataset.cases.remove(0)));
        assert!(few.contains("and `phantom` has 199 cases"), "{few}");
    }
}
