//! Raw folders of nnU-Net: packed data sets become such folders and come back as they were.
//!
//! What nnU-Net itself says of the folders is for `tests/remake/nnunet.py` to find out.

use crate::cli::{complaint, scrimp};
use crate::skips::skipped;
use scrimp::data::import::phantom::{Difficulty, Phantom, generate};
use scrimp::data::import::{Source, Steps, nnunet};
use scrimp::data::nnunet::RawFolderPlan;
use scrimp::data::{Case, DENSE, Dataset, IGNORE, SCRIBBLE, store};
use scrimp::preparation::{Channel, Intensities, Over, Preparation};
use scrimp::scan::{Grid, Placement, Scan};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

fn small(cases: usize) -> Dataset {
    generate(&Phantom { cases, slices: 2, size: 32, difficulty: Difficulty::Easy, seed: 5 })
        .unwrap()
}

/// Names of the files below a folder, without the folder itself.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|inside| format!("{name}/{inside}")));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

/// The folder that a data set becomes, and what was noted.
fn exported(dataset: &Dataset, annotation: Option<&str>) -> (TempDir, Vec<String>) {
    let folder = TempDir::new().unwrap();
    let plan = RawFolderPlan::of(dataset, annotation).unwrap();
    plan.write(folder.path(), &|| {}).unwrap();
    (folder, plan.notes().take())
}

fn raw(folder: &Path) -> nnunet::RawFolder {
    nnunet::RawFolder {
        folder: folder.to_owned(),
        splits: None,
        cases: None,
        patients: None,
        steps: Steps::as_published(),
    }
}

fn imported(raw: &nnunet::RawFolder) -> (Dataset, Vec<String>) {
    let source = nnunet::open(raw).unwrap();
    let notes = source.notes.clone();
    (Source::collect(source).unwrap(), notes.take())
}

/// Compares all that nnU-Net's folder can hold of cases; places to what single precision holds.
fn assert_same(found: &[Case], expected: &[Case]) {
    let names = |cases: &[Case]| cases.iter().map(|case| case.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(found), names(expected));
    for (found, expected) in found.iter().zip(expected) {
        let name = &expected.name;
        assert!(found.scan.voxels == expected.scan.voxels, "{name}");
        assert_eq!(found.scan.channels, expected.scan.channels, "{name}");
        assert_eq!(found.annotations, expected.annotations, "{name}");
        assert_eq!((found.fold, &found.patient), (expected.fold, &expected.patient), "{name}");
        assert_eq!(found.classes_annotated, expected.classes_annotated, "{name}");
        let (grid, other) = (&found.scan.grid, &expected.scan.grid);
        assert_eq!(grid.shape, other.shape, "{name}");
        let last = grid.shape.map(|extent| extent as f64 - 1.0);
        for voxel in [[0.0; 3], last] {
            let places = grid.position_mm(voxel).into_iter().flatten();
            let others = other.position_mm(voxel).into_iter().flatten();
            assert!(places.zip(others).all(|(a, b)| (a - b).abs() < 1e-4), "{name}");
        }
        assert_eq!(grid.placement.is_some(), other.placement.is_some(), "{name}");
    }
}

#[test]
fn a_folder_for_nnu_net_says_what_is_in_it() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (pack, into) = (path("heart.h5"), path("nnUNet_raw/Dataset501_HEART"));
    store::write(Path::new(&pack), &small(5)).unwrap();
    let clean = |text: &[u8]| String::from_utf8_lossy(text).replace(&path(""), "FOLDER/");
    let output = scrimp(&["export", &pack, "--to", "nnunet", "--into", &into]);
    insta::assert_snapshot!(clean(&output.stdout), @r"
    wrote `FOLDER/nnUNet_raw/Dataset501_HEART`: 5 cases to train on with `scribble`, label 4 is ignored
    images are as they were prepared when they were packed: crop = none, spacing = as_stored, channels, name = image, intensities = published
    `prepare nnunet --cases FOLDER/nnUNet_raw/Dataset501_HEART/cases.csv` knows whose they are
    look at it with `nnUNetv2_plan_and_preprocess -d 501 --verify_dataset_integrity`
    ");
    insta::assert_snapshot!(fs::read_to_string(format!("{into}/dataset.json")).unwrap(), @r#"
    {
      "channel_names": {
        "0": "noNorm"
      },
      "labels": {
        "background": 0,
        "right ventricle": 1,
        "myocardium": 2,
        "left ventricle": 3,
        "ignore": 4
      },
      "numTraining": 5,
      "file_ending": ".nii.gz",
      "name": "phantom",
      "description": "Synthetic short-axis slices, Easy, seed 5.\nimages are as they were prepared when they were packed: crop = none, spacing = as_stored, channels, name = image, intensities = published",
      "scrimp": {
        "channels": [
          "image"
        ]
      }
    }
    "#);
}

#[test]
fn a_packed_data_set_goes_to_nnu_net_and_comes_back() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (pack, back) = (path("heart.h5"), path("back.h5"));
    store::write(Path::new(&pack), &small(5)).unwrap();
    let into = path("nnUNet_raw/Dataset501_HEART");
    let clean = |text: &[u8]| String::from_utf8_lossy(text).replace(&path(""), "FOLDER/");
    let export = |into: &str| scrimp(&["export", &pack, "--to", "nnunet", "--into", into]);
    let output = export(&into);
    assert!(output.status.success(), "{}", complaint(&output));
    // Beside images and two kinds of labels: the description, the folds and whose the cases are.
    assert_eq!(files(&PathBuf::from(&into)).len(), 5 * 3 + 3);
    assert_eq!(
        files(&folder.path().join("nnUNet_raw")).len(),
        5 * 3 + 3,
        "nothing is left beside it"
    );
    for (into, expected) in [
        (&*into, "HEART` exists already"),
        (&*path("nnUNet_raw/heart"), "does not end in `DatasetNNN_NAME`"),
    ] {
        let refused = complaint(&export(into));
        assert!(refused.starts_with("exit code 2\n") && refused.contains(expected), "{refused}");
    }
    let refused = scrimp(&[
        "export",
        &pack,
        "--to",
        "nnunet",
        "--into",
        &path("Dataset502_B"),
        "--annotation",
        "x",
    ]);
    insta::assert_snapshot!(clean(complaint(&refused).as_bytes()), @r"
    exit code 2
    error: no case of `phantom` has labels of voxels of kind `x` to train on

    hint: give one of `dense`, `scribble` with `--annotation`
    ");
    let table = format!("{into}/cases.csv");
    let output = scrimp(&["prepare", "nnunet", "--from", &into, "--cases", &table, "--to", &back]);
    assert!(output.status.success(), "{}", complaint(&output));
    let found = store::read(Path::new(&back)).unwrap();
    assert_same(&found.cases, &small(5).cases);
    assert_eq!(found.classes, small(5).classes);
    assert_eq!(found.name, "phantom");
    assert!(found.provenance.contains("Channel `noNorm` is as stored."), "{}", found.provenance);
    assert!(
        found
            .cases
            .iter()
            .zip(small(5).cases)
            .all(|(a, b)| a.scan.grid.spacing_mm == b.scan.grid.spacing_mm)
    );
}

/// Not along the axes of the patient.
const PLACEMENT: Placement = Placement {
    direction: [[0.0, 0.6, 0.8], [1.0, 0.0, 0.0], [0.0, 0.8, -0.6]],
    origin_mm: [-50.0, 20.0, 7.0],
};

/// Two channels; the cases are for everything that cases can be for.
fn various() -> Dataset {
    let mut dataset = small(7);
    let z_score = Intensities::ZScore { over: Over::All };
    let channels = ["t1", "ct"].map(|name| Channel { name: name.into(), intensities: z_score });
    dataset.preparation =
        Some(Preparation { channels: channels.to_vec(), ..Preparation::grey(z_score) });
    for (index, case) in dataset.cases.iter_mut().enumerate() {
        let Scan { grid, voxels, .. } = &case.scan;
        let grid = Grid { placement: Some(PLACEMENT), ..grid.clone() };
        let planes = voxels
            .chunks(1024)
            .flat_map(|plane| [plane.to_vec(), plane.iter().map(|v| 1.0 - v / 3.0).collect()]);
        case.scan = Scan { channels: 2, voxels: planes.flatten().collect(), grid };
        case.patient = format!("p{}", index / 2);
        case.fold = [1, 1, 2, 2, 3, 3, 0][index];
    }
    // Nobody looked for the myocardium in patient 1, and nobody drew on patient 2; of the last there is nothing.
    for case in &mut dataset.cases[2..4] {
        case.classes_annotated = vec![0, 1, 3];
        let labels = case.annotations.values_mut().flatten();
        labels.filter(|label| **label == 2).for_each(|label| *label = 0);
    }
    for case in &mut dataset.cases[4..6] {
        case.annotations.remove(SCRIBBLE);
    }
    dataset.cases[6].annotations.clear();
    dataset
}

#[test]
fn every_purpose_of_a_case_has_its_place() {
    let mut dataset = various();
    let (folder, notes) = exported(&dataset, None);
    assert_eq!(
        notes,
        [
            "background becomes ignored where nobody looked for some classes, since nnU-Net knows no such cases: `phantom0003`, `phantom0004`",
            "left out, for there is no `scribble` to train on and nothing to validate with: `phantom0007`",
        ]
    );
    insta::assert_snapshot!(fs::read_to_string(folder.path().join("cases.csv")).unwrap(), @r"
    case,patient,classes
    phantom0001,p0,
    phantom0002,p0,
    phantom0003,p1,background;right ventricle;left ventricle
    phantom0004,p1,background;right ventricle;left ventricle
    phantom0005,p2,
    phantom0006,p2,
    ");
    let splits = fs::read_to_string(folder.path().join("splits_final.json")).unwrap();
    insta::assert_snapshot!(splits.split_whitespace().collect::<Vec<_>>().join(" "), @r#"
    [ { "train": [ "phantom0003", "phantom0004" ], "val": [ "phantom0001", "phantom0002" ] }, { "train": [ "phantom0001", "phantom0002" ], "val": [ "phantom0003", "phantom0004" ] }, { "train": [ "phantom0001", "phantom0002", "phantom0003", "phantom0004" ], "val": [ "phantom0005", "phantom0006" ] } ]
    "#);
    let cases = Some(folder.path().join("cases.csv"));
    let (found, notes) = imported(&nnunet::RawFolder { cases, ..raw(folder.path()) });
    let names: Vec<&str> =
        found.preparation.as_ref().unwrap().channels.iter().map(|c| &*c.name).collect();
    assert_eq!(names, ["t1", "ct"]);
    assert_eq!(
        notes,
        [
            "no fold trains on these, so that their dense labels are packed alone: `phantom0005`, `phantom0006`"
        ]
    );
    dataset.cases.truncate(6);
    for case in &mut dataset.cases[2..4] {
        let strokes = case.annotations.get_mut(SCRIBBLE).unwrap();
        strokes.iter_mut().filter(|label| **label == 0).for_each(|label| *label = IGNORE);
    }
    assert_same(&found.cases, &dataset.cases);
    assert_eq!(found.test_fold, None);
    // Two scans of one patient, who is torn by the folds of cases.
    let torn = nnunet::RawFolder { patients: Some("^(phantom000)".into()), ..raw(folder.path()) };
    let refused = nnunet::open(&torn).err().unwrap();
    assert_eq!(
        refused.message(),
        "case `phantom0003` is in fold 2, and `phantom0001` of the same patient `phantom000` is in fold 1"
    );
}

#[test]
fn what_is_there_to_test_with_is_never_trained_on() {
    let mut dataset = various();
    dataset.cases.truncate(6);
    dataset.test_fold = Some(3);
    for case in &mut dataset.cases {
        case.patient.clone_from(&case.name);
        case.classes_annotated = Vec::new();
        case.annotations.remove(SCRIBBLE);
    }
    let (folder, notes) = exported(&dataset, None);
    assert!(notes.is_empty(), "{notes:?}");
    let names = files(folder.path());
    let tests: Vec<&String> = names.iter().filter(|name| name.contains("Ts/")).collect();
    assert_eq!(tests.len(), 6, "{names:?}");
    assert!(!names.iter().any(|name| name.contains("dense") || name.contains("cases.csv")));
    let (found, _) = imported(&raw(folder.path()));
    assert_same(&found.cases, &dataset.cases);
    assert_eq!(found.test_fold, Some(3));
    // Without a file of folds these are drawn, and the cases to test with are in the one behind them.
    fs::remove_file(folder.path().join("splits_final.json")).unwrap();
    let (found, _) = imported(&raw(folder.path()));
    let folds: Vec<u32> = found.cases.iter().map(|case| case.fold).collect();
    assert_eq!(
        (folds.iter().max(), &folds[4..], found.test_fold),
        (Some(&5), &[5, 5][..], Some(5))
    );
    // Labels that nobody named, in a file that says where.
    let json = folder.path().join("dataset.json");
    let few = fs::read_to_string(&json).unwrap().replace(",\n    \"left ventricle\": 3", "");
    fs::write(&json, few).unwrap();
    let Err(failure) = nnunet::open(&raw(folder.path())) else {
        panic!("labels that nobody named")
    };
    let said = failure.to_string().replace(folder.path().to_str().unwrap(), "FOLDER");
    assert!(said.contains("labelsTr/phantom0001.nii.gz` holds label 3 in slice"), "{said}");
    assert!(
        said.contains("expected 0 to 2") && said.contains("hint: `labels` in `dataset.json`"),
        "{said}"
    );
}

#[test]
fn pictures_stay_pictures() {
    let mut dataset = small(3);
    dataset.preparation = Some(Preparation::colours());
    for (case, fold) in dataset.cases.iter_mut().zip(1..) {
        case.fold = fold;
        case.patient.clone_from(&case.name);
        let voxels = (0..3 * 1024u32).map(|i| (f64::from(i * 7 % 256) / 255.0) as f32).collect();
        case.scan = Scan { grid: Grid::unplaced([1, 32, 32], None), channels: 3, voxels };
        case.annotations.values_mut().for_each(|labels| labels.truncate(1024));
    }
    let (folder, _) = exported(&dataset, None);
    assert!(files(folder.path()).contains(&"imagesTr/phantom0001_0000.png".to_owned()));
    let (found, _) = imported(&raw(folder.path()));
    assert_same(&found.cases, &dataset.cases);
    assert!(found.is_in_colour());
    assert_eq!(found.preparation, dataset.preparation);
    // One level between others, and they are files of numbers, a slice each.
    dataset.cases[0].scan.voxels[5] = 0.123;
    let (folder, _) = exported(&dataset, Some(DENSE));
    assert!(files(folder.path()).contains(&"imagesTr/phantom0001_0002.nii.gz".to_owned()));
    let (found, _) = imported(&raw(folder.path()));
    dataset.cases.iter_mut().for_each(|case| drop(case.annotations.remove(SCRIBBLE)));
    for (found, expected) in found.cases.iter().zip(&dataset.cases) {
        assert!(
            found.scan.voxels == expected.scan.voxels && found.annotations == expected.annotations
        );
        assert_eq!(found.scan.grid.spacing_mm, Some([999.0, 1.0, 1.0]));
    }
}

#[test]
fn nnu_net_accepts_what_is_exported_and_what_it_accepts_is_imported() {
    let Ok(python) = std::env::var("SCRIMP_NNUNET_PYTHON") else {
        skipped("SCRIMP_NNUNET_PYTHON names no Python with nnunetv2");
        return;
    };
    let output = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/remake/nnunet.py"))
        .args(["--scrimp", env!("CARGO_BIN_EXE_scrimp")])
        .output()
        .unwrap();
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{}", said.concat());
}
