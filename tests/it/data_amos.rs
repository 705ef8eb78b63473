//! AMOS in the folders of the challenge and of CMC: small stand-ins, stored in every way that scanners store them.

use crate::cli::{complaint, scrimp};
use crate::data::text;
use crate::nifti_files::{File, file, gzip};
use crate::running::Train;
use scrimp::data::import::{Source, amos};
use scrimp::data::{Case, DENSE, Dataset};
use scrimp::error::Result;
use scrimp::scan::{Notes, read};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Columns, rows, slices of a file: how many, how far apart, and in which direction of the patient each runs.
#[derive(Clone, Copy)]
struct Stored {
    extents: [usize; 3],
    spacing_mm: [f32; 3],
    /// One for each axis of the file: to the right, the front and the head.
    axes: [[f32; 3]; 3],
}

const STRAIGHT: [[f32; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
/// As most scanners store it: to the left and to the back.
const LEFT_BACK: [[f32; 3]; 3] = [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]];
/// Slices run from front to back, and rows to the feet.
const CORONAL: [[f32; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, -1.0, 0.0]];
/// Turned by about 17 degrees.
const OBLIQUE: [[f32; 3]; 3] = [[-0.96, 0.28, 0.0], [-0.28, -0.96, 0.0], [0.0, 0.0, 1.0]];

impl Stored {
    fn along(axes: [[f32; 3]; 3]) -> Self {
        Self { extents: [20, 18, 12], spacing_mm: [2.0, 2.2, 4.0], axes }
    }

    /// A file with what `value` says of each place, in mm from the middle.
    fn file(&self, value: impl Fn([f32; 3]) -> f64) -> File {
        let Self { extents, spacing_mm, axes } = *self;
        let place = |voxel: [f32; 3]| {
            [0, 1, 2].map(|part| {
                let along = |axis: usize| {
                    let middle = (extents[axis] as f32 - 1.0) / 2.0;
                    (voxel[axis] - middle) * spacing_mm[axis] * axes[axis][part]
                };
                (0..3).map(along).sum::<f32>()
            })
        };
        let origin = place([0.0; 3]);
        let line = |part: usize| {
            let [x, y, z] = [0, 1, 2].map(|axis| spacing_mm[axis] * axes[axis][part]);
            [x, y, z, origin[part]]
        };
        let [columns, rows, slices] = extents;
        let mut values = Vec::new();
        for slice in 0..slices {
            for row in 0..rows {
                values
                    .extend((0..columns).map(|column| {
                        value(place([column, row, slice].map(|index| index as f32)))
                    }));
            }
        }
        let [x, y, z] = spacing_mm;
        let (extents, pixdim) = (extents.to_vec(), [1.0, x, y, z]);
        File { extents, pixdim, sform: Some([0, 1, 2].map(line)), ..file(&values) }
    }
}

fn is_body([right, front, head]: [f32; 3]) -> bool {
    right.abs() < 14.0 && front.abs() < 13.0 && head.abs() < 18.0
}

/// A liver in the corner to the right, the front and the head, and a bladder in that to the left, the back and the feet.
fn label(place: [f32; 3]) -> f64 {
    match place {
        _ if !is_body(place) => 0.0,
        [right, front, head] if right > 2.0 && front > 2.0 && head > 2.0 => 6.0,
        [right, front, head] if right < -2.0 && front < -2.0 && head < -2.0 => 14.0,
        _ => 0.0,
    }
}

fn ct(place: [f32; 3]) -> f64 {
    match label(place) {
        6.0 => 160.0,
        _ if is_body(place) => 20.0,
        _ => -1000.0,
    }
}

fn mr(place: [f32; 3]) -> f64 {
    match label(place) {
        6.0 => 700.0,
        _ if is_body(place) => 300.0 + 10.0 * f64::from(place[0]),
        _ => 0.0,
    }
}

/// Image and labels with these names under `folder`.
fn write(folder: &Path, image: &str, labels: &str, stored: Stored, value: fn([f32; 3]) -> f64) {
    for (name, file) in [(image, stored.file(value)), (labels, stored.file(label))] {
        if !name.is_empty() {
            let path = folder.join(format!("{name}.nii.gz"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, gzip(&file.bytes())).unwrap();
        }
    }
}

fn challenge() -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, axes) in [("0001", LEFT_BACK), ("0002", STRAIGHT), ("0500", OBLIQUE)] {
        let [image, labels] = ["imagesTr", "labelsTr"].map(|part| format!("{part}/amos_{name}"));
        write(folder.path(), &image, &labels, Stored::along(axes), ct);
    }
    for (name, axes) in [("0501", OBLIQUE), ("0507", CORONAL)] {
        let [image, labels] = ["imagesTr", "labelsTr"].map(|part| format!("{part}/amos_{name}"));
        write(folder.path(), &image, &labels, Stored::along(axes), mr);
    }
    let [image, labels] = ["imagesVal", "labelsVal"];
    let names = |name: &str| [image, labels].map(|part| format!("{part}/amos_{name}"));
    let [one, other] = [names("0004"), names("0600")];
    write(folder.path(), &one[0], &one[1], Stored::along(LEFT_BACK), ct);
    write(folder.path(), &other[0], &other[1], Stored::along(CORONAL), mr);
    fs::write(folder.path().join("dataset.json"), "{}").unwrap();
    folder
}

fn open(folder: &Path, labelled_share: f64) -> Result<(Dataset, Vec<String>)> {
    let package = amos::Package { folder: folder.to_owned(), labelled_share, seed: 2 };
    let source = amos::open(&package)?;
    let notes = source.notes.clone();
    Source::collect(source).map(|dataset| (dataset, notes.take()))
}

/// Where the liver lies, relative to the middle: slices, rows, columns.
fn liver(case: &Case) -> [f64; 3] {
    let [slices, rows, columns] = case.scan.grid.shape;
    let (mut sum, mut count) = ([0.0; 3], 0.0);
    for (index, _) in case.annotations[DENSE].iter().enumerate().filter(|(_, label)| **label == 6) {
        let voxel = [index / (rows * columns), index / columns % rows, index % columns];
        sum.iter_mut().zip(voxel).for_each(|(sum, at)| *sum += at as f64 + 0.5);
        count += 1.0;
    }
    let middle = [slices, rows, columns].map(|extent| extent as f64 / 2.0);
    [0, 1, 2].map(|axis| sum[axis] / count - middle[axis])
}

#[test]
fn cases_of_the_challenge_lie_alike_however_they_are_stored() {
    let folder = challenge();
    let (dataset, notes) = open(folder.path(), 1.0).unwrap();
    let told: Vec<String> = dataset
        .cases
        .iter()
        .map(|case| format!("{} {} {}", case.name, case.modality, case.fold))
        .collect();
    let expected = [
        "amos_0001 ct 0",
        "amos_0002 ct 0",
        "amos_0004 ct 1",
        "amos_0500 ct 0",
        "amos_0501 mr 0",
        "amos_0507 mr 0",
        "amos_0600 mr 1",
    ];
    assert_eq!(told, expected);
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(dataset.classes.len(), 14);
    for case in &dataset.cases {
        case.check(14).unwrap();
        assert!(liver(case).iter().all(|&along| along > 2.0), "{} {:?}", case.name, liver(case));
        let spacing = case.scan.grid.spacing_mm.unwrap();
        let wished = [2.0, 1.5, 1.5];
        assert!(
            (0..3).all(|axis| (spacing[axis] / wished[axis] - 1.0).abs() < 0.06),
            "{spacing:?}"
        );
        // Bladder and prostate are background.
        assert!(case.annotations[DENSE].iter().all(|label| [0, 6].contains(label)));
        let [least, most] =
            [f32::min, f32::max].map(|pick| case.scan.voxels.iter().copied().reduce(pick).unwrap());
        if case.modality == "ct" {
            assert!(least >= 0.0 && (0.6..0.8).contains(&most), "{least} {most}");
        } else {
            assert!(least < -0.5 && most > 1.0, "{least} {most}");
        }
        // The body takes 28 x 26 x 36 mm, and what is around it was cut off.
        let [slices, rows, columns] = case.scan.grid.shape;
        assert!(slices < 24 && rows < 25 && columns < 25, "{:?}", case.scan.grid.shape);
    }
    assert_eq!(dataset.preparation.unwrap().channel_count(), 1);
}

#[test]
fn a_share_of_each_modality_is_labelled_and_nothing_is_known_of_the_others() {
    let folder = challenge();
    let (dataset, _) = open(folder.path(), 0.4).unwrap();
    let labelled = |modality: &str, fold: u32| {
        let own = dataset.cases.iter();
        let own = own.filter(|case| case.modality == modality && case.fold == fold);
        own.filter(|case| !case.annotations.is_empty()).count()
    };
    assert_eq!([labelled("ct", 0), labelled("mr", 0)], [1, 1]);
    assert_eq!([labelled("ct", 1), labelled("mr", 1)], [1, 1]);
    assert!(dataset.provenance.contains("3 CT to train on, 1 of them labelled, 1 to validate"));
    assert!(open(folder.path(), 0.0).is_err());
}

#[test]
fn the_folders_of_cmc_say_in_names_what_scans_were_taken_with() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("mm_amos");
    for (part, name, value) in [
        ("train_data", "amos_0001_CT", ct as fn([f32; 3]) -> f64),
        ("train_data", "amos_0002_MRI", mr),
        ("val_data", "amos_0003_CT", ct),
        ("test_data", "amos_0004_CT", ct),
    ] {
        let image = format!("{part}/images/{name}");
        let labels = format!("{part}/masks/{name}_gt");
        write(&root, &image, &labels, Stored::along(STRAIGHT), value);
    }
    // Nobody has labelled it.
    write(&root, "train_data/images/amos_0005_MRI", "", Stored::along(LEFT_BACK), mr);
    let (dataset, notes) = open(folder.path(), 1.0).unwrap();
    let told: Vec<(&str, &str, &str, bool)> = dataset
        .cases
        .iter()
        .map(|case| (&*case.name, &*case.patient, &*case.modality, case.annotations.is_empty()))
        .collect();
    let expected = [
        ("amos_0001_CT", "amos_0001", "ct", false),
        ("amos_0002_MRI", "amos_0002", "mr", false),
        ("amos_0003_CT", "amos_0003", "ct", false),
        ("amos_0005_MRI", "amos_0005", "mr", true),
    ];
    assert_eq!(told, expected);
    assert_eq!(notes.len(), 2, "{notes:?}");
}

#[test]
fn folders_that_are_none_of_amos_are_refused() {
    let refused = |change: &dyn Fn(&Path)| {
        let folder = challenge();
        change(folder.path());
        text(open(folder.path(), 0.5), folder.path())
    };
    let remove =
        |path: &'static str| move |folder: &Path| fs::remove_file(folder.join(path)).unwrap();
    insta::assert_snapshot!(refused(&|folder| {
        fs::rename(folder.join("imagesTr"), folder.join("images")).unwrap();
    }), @"
    error: `FOLDER` holds no folders of AMOS

    hint: `--from` takes the folder of the challenge, with `imagesTr`, `labelsTr`, `imagesVal` and `labelsVal`, or one with `train_data` and `val_data`, in each `images` and `masks`
    ");
    insta::assert_snapshot!(refused(&remove("labelsVal/amos_0600.nii.gz")), @"
    error: `FOLDER/imagesVal/amos_0600.nii.gz` has no labels to validate with

    hint: looked for `amos_0600.nii.gz`, `amos_0600_gt.nii.gz`
    hint: move the image away to validate with the others
    ");
    insta::assert_snapshot!(refused(&remove("imagesTr/amos_0501.nii.gz")), @"
    error: labels `FOLDER/labelsTr/amos_0501.nii.gz` have no image

    hint: put the image into `FOLDER/imagesTr`, or move them away
    ");
    insta::assert_snapshot!(refused(&|folder| {
        for part in ["imagesTr", "labelsTr"] {
            let path = |name: &str| folder.join(part).join(name);
            fs::rename(path("amos_0001.nii.gz"), path("word_0001.nii.gz")).unwrap();
        }
    }), @"
    error: `FOLDER/imagesTr/word_0001.nii.gz` has no name of AMOS

    hint: expected `amos_0001` with a number up to 500 for CT and a larger one for MR, or `amos_0001_CT` and `amos_0507_MRI`
    ");
    insta::assert_snapshot!(refused(&|folder| {
        let labels = Stored::along(STRAIGHT).file(|place| label(place) + 10.0);
        fs::write(folder.join("labelsVal/amos_0004.nii.gz"), gzip(&labels.bytes())).unwrap();
    }), @"error: `FOLDER/labelsVal/amos_0004.nii.gz` holds label 24 in slice 2 at row 3, column 3, expected 0 to 13 of 14 classes, 14 and 15 (dropped)");
}

/// The folder of the challenge, a packed file of it, and a run on both modalities.
struct Trained {
    folder: TempDir,
}

impl Trained {
    fn new() -> Self {
        let trained = Self { folder: challenge() };
        let words = [
            "prepare",
            "amos",
            "--from",
            &trained.path(""),
            "--labelled-share",
            "1",
            "--to",
            &trained.path("amos.h5"),
        ];
        let (is_packed, told) = said(&words);
        assert!(is_packed, "{told}");
        let config = format!(
            "[data]\npath = {:?}\nannotation = \"dense\"\n[data.patches]\nextent = [1, 16, 16]\n\
             [method]\nname = \"partial-ce\"\n[method.params.learner]\nlr = 0.05\n\
             optimizer = {{ sgd = {{ momentum = 0.9 }} }}\n[train]\ntotal_steps = 4\nbatch_size = 4\n\
             evaluate_every = 4\nsave_every = 4\nthreads = 1\n",
            trained.path("amos.h5")
        );
        fs::write(trained.path("config.toml"), config).unwrap();
        Train::new(&trained.path("config.toml"), Path::new(&trained.path("run")))
            .sets(&[])
            .succeed();
        trained
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn predict(&self, to: &str, more: &[&str]) -> (bool, String) {
        let (run, images, to) = (self.path("run"), self.path("imagesVal"), self.path(to));
        said(&[&["predict", &run, "--images", &images, "--to", &to][..], more].concat())
    }

    fn voxels(&self, name: &str) -> Vec<f32> {
        read(Path::new(&self.path(name)), &Notes::default()).unwrap().voxels
    }
}

/// Whether a command succeeded, and what it said.
fn said(words: &[&str]) -> (bool, String) {
    let output = scrimp(words);
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &complaint(&output);
    (output.status.success(), told)
}

/// From the folder to labels of new files: modalities are scored apart, and prepared as they were.
#[test]
fn a_run_on_both_modalities_scores_and_predicts_them_apart() {
    let trained = Trained::new();
    are_scored_apart(&trained);
    are_prepared_as_they_were(&trained);
    lie_on_their_file(&trained);
}

fn are_scored_apart(trained: &Trained) {
    let (is_scored, told) =
        said(&["evaluate", &trained.path("run"), "--to", &trained.path("scores.csv")]);
    assert!(is_scored, "{told}");
    let heads: Vec<&str> =
        told.lines().filter(|line| line.ends_with(" case") || line.ends_with(" cases")).collect();
    assert_eq!(heads, ["ct, 1 case", "mr, 1 case", "all, 2 cases"], "{told}");
    let table = fs::read_to_string(trained.path("scores.csv")).unwrap();
    assert!(table.lines().next().unwrap().ends_with("unit,modality"));
    assert!(
        table
            .lines()
            .filter(|line| line.starts_with("amos_0600,"))
            .all(|line| line.ends_with(",mr"))
    );
}

fn are_prepared_as_they_were(trained: &Trained) {
    let (_, told) = trained.predict("none", &[]);
    let told = told.replace(trained.folder.path().to_str().unwrap(), "FOLDER");
    insta::assert_snapshot!(told, @"
    exit code 2
    error: cannot prepare images for `FOLDER/run/checkpoints/step-00000004`
      caused by: scans were prepared by modality, and nobody says which of `ct`, `mr` these are

    hint: say what the images were taken with, as in `--modality ct`
    ");
    let (_, told) = trained.predict("none", &["--modality", "pet"]);
    assert!(told.contains("no scans of modality `pet` were prepared, only `ct`, `mr`"), "{told}");
    for modality in ["ct", "mr"] {
        let (is_predicted, told) =
            trained.predict(modality, &["--modality", modality, "--uncertainty"]);
        assert!(is_predicted, "{told}");
    }
    let [as_ct, as_mr] =
        ["ct", "mr"].map(|to| trained.voxels(&format!("{to}/amos_0600.uncertainty.nii.gz")));
    assert!(as_ct != as_mr, "it was prepared in two ways");
}

/// The same image, stored in another way, is the same to the network.
fn lie_on_their_file(trained: &Trained) {
    fs::remove_dir_all(trained.path("imagesVal")).unwrap();
    let turned = Stored { extents: [20, 12, 18], spacing_mm: [2.0, 4.0, 2.2], axes: CORONAL };
    let plain = Stored::along(STRAIGHT);
    write(trained.folder.path(), "imagesVal/turned", "", turned, ct);
    write(trained.folder.path(), "imagesVal/plain", "", plain, ct);
    let (is_predicted, told) =
        trained.predict("both", &["--modality", "ct", "--uncertainty", "--probabilities"]);
    assert!(is_predicted, "{told}");
    for end in ["", ".uncertainty"] {
        let [turned, plain] =
            ["turned", "plain"].map(|name| trained.voxels(&format!("both/{name}{end}.nii.gz")));
        // Of the plain file slices run to the head and rows to the front, of the other one to the back and to the feet.
        let at = |slice: usize, row: usize, column: usize| plain[(slice * 18 + row) * 20 + column];
        let expected: Vec<f32> = (0..18)
            .flat_map(|slice| {
                (0..12).flat_map(move |row| (0..20).map(move |column| [slice, row, column]))
            })
            .map(|[slice, row, column]| at(11 - row, 17 - slice, column))
            .collect();
        assert!(turned == expected, "{end}");
        assert!(end.is_empty() || turned.iter().any(|&value| value > 0.0));
    }
}
