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

/// The patients to test with, of MIC-DKFZ/ScribbleBench at f292115.
const SCRIBBLEBENCH_TEST: [u32; 15] = [5, 10, 24, 30, 36, 39, 41, 60, 64, 72, 73, 77, 78, 80, 82];

/// Parts ACDC as HiLab-git/DMSPS does: 30 volumes are held out in fold 1, to validate with, 30 in fold 2, to test with,
/// and the other 140 in none.
///
/// What is held out keeps its dense labels alone, so that nothing learns from it while the other fold is held out. Of
/// most patients who are held out the other frame is among the 140. Refuses everything but the 200 volumes of ACDC, by
/// the names of cases.
pub fn dmsps(dataset: &mut Dataset) -> Result<()> {
    let ids = by_name(dataset, "dmsps", acdc_id)?;
    let mut held_out = DMSPS_VALIDATION.iter().chain(&DMSPS_TEST);
    if let Some([patient, frame]) = held_out.find(|id| !ids.contains(id)) {
        let case = format!("patient{patient:03}_frame{frame:02}");
        return Err(refused("dmsps", &format!("`{case}` is not in `{}`", dataset.name)));
    }
    if ids.len() != ACDC_VOLUMES {
        return Err(refused("dmsps", &format!("`{}` has {} cases", dataset.name, ids.len())));
    }
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

/// Parts ACDC as MIC-DKFZ/ScribbleBench does: both volumes of 15 patients are held out in fold 1, to test with, and keep
/// their dense labels alone, so that nothing learns from them whichever fold is held out.
///
/// The benchmark names no cases to validate with. The other 85 patients keep the folds that they were packed with, each by
/// one higher: all of them are trained on while fold 1 is held out, and settings are chosen on folds from 2 on. Refuses
/// everything but the 200 volumes of ACDC, two of each patient, by the names of cases.
pub fn scribblebench(dataset: &mut Dataset) -> Result<()> {
    let patients = by_name(dataset, "scribblebench", acdc_patient)?;
    let volumes = |patient: u32| patients.iter().filter(|&&other| other == patient).count();
    if let Some(patient) = (1..=100).find(|&patient| volumes(patient) != 2) {
        let (name, count) = (&dataset.name, volumes(patient));
        let found = format!("`{name}` has {count} of `patient{patient:03}`, expected two");
        return Err(refused("scribblebench", &found));
    }
    let is_test = |patient: &u32| SCRIBBLEBENCH_TEST.contains(patient);
    let is_parted = dataset
        .cases
        .iter()
        .zip(&patients)
        .all(|(case, patient)| (case.fold == 1) == is_test(patient));
    for (case, patient) in dataset.cases.iter_mut().zip(&patients) {
        if is_test(patient) {
            case.fold = 1;
            case.annotations.retain(|kind, _| kind == DENSE);
        } else if case.fold > 0 && !is_parted {
            case.fold += 1;
        }
    }
    dataset.test_fold = Some(1);
    Ok(())
}

fn refused(split: &str, what: &str) -> Failure {
    let of = format!("split `{split}` parts the {ACDC_VOLUMES} volumes of ACDC, and {what}");
    Failure::usage(of).hint("leave `data.split` out to hold out the folds that were packed")
}

/// What `id` makes of the name of every case.
fn by_name<T>(dataset: &Dataset, split: &str, id: fn(&str) -> Option<T>) -> Result<Vec<T>> {
    let name = &dataset.name;
    let known = |case: &str| {
        let none = || refused(split, &format!("case `{case}` of `{name}` is none of them"));
        id(case).ok_or_else(none)
    };
    dataset.cases.iter().map(|case| known(&case.name)).collect()
}

/// Patient and frame, of `patient001_frame01`.
fn acdc_id(case: &str) -> Option<[u32; 2]> {
    let (patient, frame) = case.strip_prefix("patient")?.split_once("_frame")?;
    let id = [patient.parse().ok()?, frame.parse().ok()?];
    (1..=100).contains(&id[0]).then_some(id)
}

/// The patient, of `patient001_frame01`, or of `patient001_ED` and `patient001_ES` as ScribbleBench calls them.
fn acdc_patient(case: &str) -> Option<u32> {
    let by_phase = || case.strip_suffix("_ED").or_else(|| case.strip_suffix("_ES"));
    let of_phase = || acdc_id(&format!("{}_frame0", by_phase()?));
    acdc_id(case).or_else(of_phase).map(|[patient, _]| patient)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SCRIBBLE;
    use crate::data::import::phantom::{Difficulty, Phantom, generate};
    use crate::data::stream::training_slices;
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
    fn patients_to_test_with_are_fold_1_and_nothing_learns_from_them() {
        let mut dataset = acdc();
        let fold = |index: usize| 1 + index as u32 / 40;
        dataset.cases.iter_mut().enumerate().for_each(|(index, case)| case.fold = fold(index));
        dataset.cases[0].fold = 0;
        scribblebench(&mut dataset).unwrap();
        let of = |fold: u32| dataset.cases.iter().filter(move |case| case.fold == fold);
        let tested: BTreeSet<String> = of(1).map(|case| case.patient.clone()).collect();
        assert_eq!((of(1).count(), tested.len(), dataset.test_fold), (30, 15, Some(1)));
        assert!(tested.contains("patient005") && tested.contains("patient082"));
        assert!(of(1).all(|case| case.annotations.keys().eq([DENSE])));
        let others = || dataset.cases.iter().enumerate().filter(|(_, case)| case.fold != 1);
        assert!(others().all(|(_, case)| case.annotations.contains_key(SCRIBBLE)));
        // What was never held out still is not.
        assert!(
            others().all(|(index, case)| case.fold == if index == 0 { 0 } else { fold(index) + 1 })
        );
        for held_out in 0..7 {
            let learned = training_slices(&dataset, held_out, SCRIBBLE);
            assert!(learned.iter().all(|&(case, _)| dataset.cases[case].fold != 1));
            let expected = 170 - if held_out > 1 { of(held_out).count() } else { 0 };
            assert_eq!(learned.len(), expected, "fold {held_out}");
        }
        let dense = [1, 2].map(|fold| training_slices(&dataset, fold, DENSE));
        assert!(dense.iter().flatten().all(|&(case, _)| dataset.cases[case].fold != 1));
        assert_eq!(dense.map(|learned| learned.len()), [170, 170 - of(2).count()]);
        let once = dataset.clone();
        scribblebench(&mut dataset).unwrap();
        assert_eq!(dataset, once, "what is parted already is parted in the same way");
        // Under the names of the benchmark, in whose folder these patients are a part of their own.
        let mut renamed = acdc();
        for (index, case) in renamed.cases.iter_mut().enumerate() {
            case.name = format!("{}_{}", case.patient, ["ED", "ES"][index % 2]);
            case.fold = if tested.contains(&case.patient) { 6 } else { fold(index) };
        }
        scribblebench(&mut renamed).unwrap();
        let folds = |dataset: &Dataset| -> Vec<u32> {
            dataset.cases.iter().skip(1).map(|case| case.fold).collect()
        };
        assert_eq!(folds(&renamed), folds(&dataset));
    }

    #[test]
    fn nothing_but_acdc_is_parted() {
        let refused_by = |split: fn(&mut Dataset) -> Result<()>, change: &dyn Fn(&mut Dataset)| {
            let mut dataset = acdc();
            change(&mut dataset);
            let before = dataset.clone();
            let failure = split(&mut dataset).unwrap_err();
            assert_eq!(dataset, before);
            failure.to_string()
        };
        let refused = |change: &dyn Fn(&mut Dataset)| refused_by(dmsps, change);
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
        let other = |dataset: &mut Dataset| {
            dataset
                .cases
                .iter_mut()
                .filter(|case| case.name == "patient005_frame02")
                .for_each(|case| case.name = "patient006_frame09".to_owned());
        };
        let other = refused_by(scribblebench, &other);
        let expected = "split `scribblebench` parts the 200 volumes of ACDC, and `phantom` has 1 of `patient005`, expected two";
        assert!(other.contains(expected), "{other}");
    }
}
