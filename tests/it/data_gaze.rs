//! Pictures that somebody looked at: which file is what, what is left out, and what is packed.

use crate::annotating::mpirun;
use crate::cli::complaint;
use crate::data::text;
use image::{GrayImage, Luma, Rgb, RgbImage};
use scrimp::data::import::gaze::{GazeSet, open};
use scrimp::data::import::gaze_phantom::{self, GazePhantom};
use scrimp::data::import::{GazeFiles, Source};
use scrimp::data::{DENSE, Dataset, GAZE, check_levels, store};
use scrimp::error::Result;
use scrimp::gaze::{FIELD, Fixation, grey_levels, heatmap, reached, refined, resized};
use scrimp::preparation::{Interpolation, NativeLabels, Prepared, Spacing};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_64;

const NAMES: &str = "IMAGE,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION,CURRENT_FIX_START\n";

/// A picture of 60 x 40 pixels, bright on the right of column `edge`, and its mask.
fn picture(folder: &Path, name: &str, edge: u32) {
    let is_bright = |x: u32| x >= edge;
    let pixel = |x, y: u32| Rgb([if is_bright(x) { 200 } else { 30 }, y as u8, 90]);
    RgbImage::from_fn(60, 40, pixel).save(folder.join(format!("images/{name}.png"))).unwrap();
    let mask = |x, _| Luma([if is_bright(x) { 255 } else { 0 }]);
    GrayImage::from_fn(60, 40, mask).save(folder.join(format!("masks/{name}.png"))).unwrap();
}

/// Six pictures with masks, fixations on the right of all but `f`.
fn looked_at() -> TempDir {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    fs::create_dir(root.join("images")).unwrap();
    fs::create_dir(root.join("masks")).unwrap();
    let mut table = NAMES.to_owned();
    for (name, edge) in ["a", "b", "c", "d", "e", "f"].into_iter().zip([30, 32, 34, 36, 38, 40]) {
        picture(root, name, edge);
        if name != "f" {
            let rows = ["0.5,0.5,90,10", "0.8,0.4,400,120", "0.85,0.6,300,600"];
            for row in rows {
                table.extend([name, ".jpg,", row, "\n"]);
            }
        }
    }
    fs::write(root.join("gaze.csv"), table).unwrap();
    fs::write(root.join("train.txt"), "a 1\nb 1\nc.jpg 1\n").unwrap();
    fs::write(root.join("test.txt"), "\u{feff}d\r\nf\r\n").unwrap();
    folder
}

fn set(folder: &Path, by_lists: bool) -> GazeSet {
    GazeSet {
        files: GazeFiles {
            images: folder.join("images"),
            masks: Some(folder.join("masks")),
            fixations: folder.join("gaze.csv"),
            lists: by_lists.then(|| [folder.join("train.txt"), folder.join("test.txt")]),
            patients: None,
            seed: 1,
        },
        size: 32,
        deviation: None,
        levels: Vec::new(),
        class: "polyp".into(),
    }
}

/// The data set as so many ranks make it, and what is said of it.
fn import(set: &GazeSet, ranks: usize) -> Result<(Dataset, Vec<String>)> {
    let looked = open(set)?;
    let shares = (0..ranks).map(|rank| looked.share((rank, ranks), 2, &|| ()));
    let shares = shares.collect::<Result<Vec<_>>>()?;
    let source = looked.into_source(&shares)?;
    let notes = source.notes.clone();
    let count = source.case_count;
    let dataset = Source::collect(source)?;
    assert_eq!(dataset.cases.len(), count);
    Ok((dataset, notes.take()))
}

fn described(dataset: &Dataset) -> Vec<(&str, u32, Vec<&str>)> {
    let kinds = |case: &'_ scrimp::data::Case| {
        case.annotations.keys().map(|kind| if kind == GAZE { GAZE } else { DENSE }).collect()
    };
    dataset.cases.iter().map(|case| (case.name.as_str(), case.fold, kinds(case))).collect()
}

#[test]
fn lists_say_what_is_trained_on_and_levels_are_those_of_the_map_of_gaze() {
    let folder = looked_at();
    let (dataset, notes) = import(&set(folder.path(), true), 1).unwrap();
    assert_eq!(
        described(&dataset),
        [
            ("a", 0, vec![DENSE, GAZE]),
            ("b", 0, vec![DENSE, GAZE]),
            ("c", 0, vec![DENSE, GAZE]),
            ("d", 1, vec![DENSE, GAZE]),
            ("f", 1, vec![DENSE]),
        ]
    );
    assert_eq!(notes, ["left out, for the picture is in neither list: `e`"]);
    assert_eq!(
        (dataset.levels.as_slice(), dataset.classes[1].as_str()),
        (&[0.3, 0.5][..], "polyp")
    );
    let preparation = dataset.preparation.clone().unwrap();
    assert_eq!(preparation.spacing, Spacing::Size([32, 32]));
    assert_eq!(preparation.interpolation, Interpolation::Bilinear);
    let fixation = |x, y, duration_ms| Fixation { x, y, duration_ms };
    let looks = [fixation(0.5, 0.5, 90.0), fixation(0.8, 0.4, 400.0), fixation(0.85, 0.6, 300.0)];
    let scan =
        scrimp::scan::read(&folder.path().join("images/a.png"), &scrimp::scan::Notes::default());
    let scan = scan.unwrap();
    let pixels = grey_levels(scan.slice(0), 3);
    let image = scrimp::crf::Image { columns: 60, pixels: &pixels };
    let map = refined(&heatmap(&looks, 70.0, [40, 60]).unwrap(), image, &FIELD).unwrap();
    let expected = reached(&resized(&map, [40, 60], [32, 32]), &[0.3, 0.5]);
    assert_eq!(dataset.cases[0].annotations[GAZE], expected);
    // The field has found the edge: what reaches a level lies on the bright part.
    let on = |from: usize| {
        let columns = (0..1024).filter(|pixel| pixel % 32 >= from);
        columns.filter(|&pixel| expected[pixel] > 0).count()
    };
    assert!(on(16) > 50 && 10 * on(16) > 9 * on(0), "{} of {}", on(16), on(0));
    // What is prepared comes back at the size of the picture.
    let Prepared { scan, regrid, .. } = preparation.apply(scan).unwrap();
    assert_eq!(scan, dataset.cases[0].scan);
    let dense = &dataset.cases[0].annotations[DENSE];
    let sure = |class: u8| dense.iter().map(move |&label| f32::from(u8::from(label == class)));
    let probabilities: Vec<f32> = sure(0).chain(sure(1)).collect();
    let (mut native, mut labels) = (NativeLabels::new(regrid, 2), Vec::new());
    let mut take = |slice: scrimp::preparation::NativeSlice<'_>| {
        labels.extend_from_slice(slice.labels);
        Ok(())
    };
    native.each_slice(&probabilities, false, &mut take).unwrap();
    native.finish().unwrap();
    let wrong = (0..2400).filter(|pixel| labels[*pixel] != u8::from(pixel % 60 >= 30)).count();
    assert!(labels.len() == 2400 && wrong <= 80, "{wrong}");
}

#[test]
fn ranks_and_packed_files_change_nothing() {
    let folder = looked_at();
    let (dataset, _) = import(&set(folder.path(), false), 1).unwrap();
    for ranks in [2, 7] {
        assert_eq!(import(&set(folder.path(), false), ranks).unwrap().0, dataset);
    }
    let file = folder.path().join("set.h5");
    store::write(&file, &dataset).unwrap();
    assert_eq!(store::read(&file).unwrap(), dataset);
    let with = |levels: Vec<f64>| {
        text(store::write(&file, &Dataset { levels, ..dataset.clone() }), folder.path())
    };
    insta::assert_snapshot!(with(vec![0.3]), @r"
    error: cannot write case `a` to `FOLDER/set.h5`
      caused by: `gaze` of case `a` holds 2 in slice 0 at row 10, column 25, expected 0 to 1, the number of levels
    ");
    insta::assert_snapshot!(with(Vec::new()), @r"
    error: cannot write case `a` to `FOLDER/set.h5`
      caused by: case `a` has annotation `gaze`, and the data set names no levels of gaze
    ");
    insta::assert_snapshot!(with(vec![0.5, 0.3]), @r"
    error: cannot write `FOLDER/set.h5`
      caused by: the levels of gaze are [0.5, 0.3], expected numbers between 0 and 1, each larger than the one before
    ");
    assert!(check_levels(&[0.0, 0.5]).is_err() && check_levels(&[0.5, 0.5]).is_err());
    assert!(check_levels(&[f64::NAN]).is_err() && check_levels(&[]).is_ok());
    assert!(check_levels(&(1..100).map(|i| f64::from(i) / 100.0).collect::<Vec<_>>()).is_err());
}

/// The command as people type it: what it says, what it packs on two processes, and how a damaged table ends it.
#[test]
fn the_command_packs_on_two_processes_what_one_would() {
    let folder = looked_at();
    let (dataset, _) = import(&set(folder.path(), true), 1).unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let names = ["images", "masks", "gaze.csv", "train.txt", "test.txt", "gaze.h5"].map(path);
    let [images, masks, fixations, train, test, to] = names.each_ref().map(String::as_str);
    let words = ["prepare", "gaze", "--images", images, "--masks", masks, "--fixations", fixations];
    let lists = ["--train", train, "--test", test, "--class", "polyp", "--size", "32", "--to", to];
    let words = [&words[..], &lists].concat();
    let output = mpirun(2, &words);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    assert!(said.contains("packed 5 cases with 5 slices"), "{said}");
    let left_out = "left out 1, for the picture is in neither list\n  `e`";
    assert_eq!(said.matches(left_out).count(), 1, "{said}");
    let packed = store::read(&PathBuf::from(to)).unwrap();
    assert_eq!((packed.levels, packed.classes), (dataset.levels, dataset.classes));
    for (packed, case) in packed.cases.iter().zip(&dataset.cases) {
        assert_eq!((&packed.name, packed.fold), (&case.name, case.fold));
        assert_eq!(packed.scan.voxels, case.scan.voxels);
        assert_eq!(packed.annotations, case.annotations);
    }

    fs::remove_file(to).unwrap();
    fs::write(fixations, format!("{NAMES}a.jpg,0.5,0.5,90,10\na.jpg,0.5,0.5,90,4\n")).unwrap();
    let output = mpirun(2, &words);
    let complained = complaint(&output);
    assert!(complained.starts_with("exit code 2\n"), "{complained}");
    assert_eq!(complained.matches("error:").count(), 1, "{complained}");
    assert!(!Path::new(to).exists());
}

#[test]
fn without_lists_folds_are_drawn_among_what_has_masks() {
    let folder = looked_at();
    fs::remove_file(folder.path().join("masks/b.png")).unwrap();
    let (dataset, notes) = import(&set(folder.path(), false), 1).unwrap();
    assert_eq!(notes, [""; 0]);
    let folds = |dataset: &Dataset| dataset.cases.iter().map(|case| case.fold).collect::<Vec<_>>();
    let drawn = folds(&dataset);
    let mut sorted = drawn.clone();
    sorted.sort_unstable();
    assert_eq!((drawn[1], sorted), (0, vec![0, 1, 2, 3, 4, 5]));
    let mut other = set(folder.path(), false);
    other.files.seed = 2;
    assert_ne!(folds(&import(&other, 1).unwrap().0), drawn);
    // A picture that nobody looked at and that has no mask is of no use.
    fs::remove_file(folder.path().join("masks/f.png")).unwrap();
    let (dataset, notes) = import(&set(folder.path(), false), 1).unwrap();
    assert_eq!(notes, ["left out, for the picture is to be trained on and has no fixations: `f`"]);
    assert_eq!(dataset.cases.len(), 5);
    let mut alone = set(folder.path(), false);
    alone.files.masks = None;
    assert!(import(&alone, 1).unwrap().0.cases.iter().all(|case| case.fold == 0));
}

/// What is said after `damage` was done to a sound folder.
fn damaged(by_lists: bool, damage: impl FnOnce(&Path)) -> String {
    let folder = looked_at();
    damage(folder.path());
    text(import(&set(folder.path(), by_lists), 1), folder.path())
}

fn write(name: &'static str, contents: &'static str) -> impl FnOnce(&Path) {
    move |folder: &Path| fs::write(folder.join(name), contents).unwrap()
}

#[test]
fn what_does_not_belong_together_is_refused() {
    insta::assert_snapshot!(damaged(true, write("train.txt", "a\nz\n")), @r"
    error: line 2 of the list `FOLDER/train.txt` names `z`, of which there is no picture

    hint: the first word of each line is the name of a picture without its ending
    ");
    insta::assert_snapshot!(damaged(true, write("test.txt", "d\na\n")), @r"
    error: line 2 of the list `FOLDER/test.txt` names `a`, which is in the list of pictures to train on too

    hint: remove it from one of the two lists
    ");
    insta::assert_snapshot!(damaged(true, write("test.txt", "\n")), @"error: the list `FOLDER/test.txt` names no picture");
    insta::assert_snapshot!(damaged(true, |folder| fs::remove_file(folder.join("masks/f.png")).unwrap()), @r"
    error: picture `FOLDER/images/f.png` is to be tested with, and has no mask

    hint: name the folder of masks with `--masks DIR`, or remove the name from the list
    ");
    insta::assert_snapshot!(damaged(true, write("train.txt", "e\nf\n")), @r"
    error: line 2 of the list `FOLDER/test.txt` names `f`, which is in the list of pictures to train on too

    hint: remove it from one of the two lists
    ");
    insta::assert_snapshot!(damaged(false, write("images/x.dcm", "DICM")), @r#"
    error: `FOLDER/images/x.dcm` is a DICOM file, expected a picture

    hint: turn DICOM slices into PNG as they are shown, for example with DCMTK: `for f in *.dcm; do dcmj2pnm --min-max-window --write-png "$f" "${f%.dcm}.png"; done`
    "#);
    insta::assert_snapshot!(damaged(false, |folder| {
        fs::write(folder.join("gaze.csv"), format!("{NAMES}z.jpg,0.5,0.5,100,1\n")).unwrap();
    }), @r"
    error: none of the 1 pictures with fixations in `FOLDER/gaze.csv` is in `FOLDER/images`, for example `z`

    hint: column `IMAGE` holds names of pictures, with or without endings
    ");
    insta::assert_snapshot!(damaged(false, |folder| {
        GrayImage::new(60, 40).save(folder.join("images/c.png")).unwrap();
        GrayImage::from_pixel(60, 40, Luma([7])).save(folder.join("masks/d.png")).unwrap();
    }), @r"
    error: the brightest pixel of `FOLDER/masks/d.png` is 7, expected a mask of 0, background, and 255

    hint: write what the mask shows as 255
    ");
    insta::assert_snapshot!(damaged(false, |folder| {
        GrayImage::new(40, 60).save(folder.join("masks/b.png")).unwrap();
    }), @"error: `FOLDER/masks/b.png` has 40 x 60 pixels, expected 60 x 40 as its picture");
    let folder = looked_at();
    let said = |set: &GazeSet| text(import(set, 1), folder.path());
    let sound = set(folder.path(), false);
    insta::assert_snapshot!(said(&GazeSet { levels: vec![0.3, 1.5], ..sound.clone() }), @r"
    error: the levels of gaze are [0.3, 1.5], expected numbers between 0 and 1, each larger than the one before

    hint: name them as in `--levels 0.5,0.3`
    ");
    insta::assert_snapshot!(said(&GazeSet { deviation: Some(0.0), ..sound.clone() }), @r"
    error: `--sigma` is 0, expected a number above 0 and up to 768

    hint: as published it is 70 for Kvasir-SEG and 50 for NCI-ISBI 2013
    ");
    insta::assert_snapshot!(said(&GazeSet { size: 8, ..sound }), @r"
    error: pictures cannot be resized to 8 pixels, expected 16 to 8192

    hint: give another one, for example `--size 224`
    ");
}

#[test]
fn what_is_left_out_is_told() {
    let folder = looked_at();
    let more = "zz.jpg,0.5,0.5,100,1\na.jpg,1.2,0.5,100,900\nb.jpg,0.5,0.5,20,2000\n";
    let table = fs::read_to_string(folder.path().join("gaze.csv")).unwrap() + more;
    fs::write(folder.path().join("gaze.csv"), table).unwrap();
    fs::write(folder.path().join("images/readme.txt"), "hello").unwrap();
    fs::copy(folder.path().join("masks/a.png"), folder.path().join("masks/y.png")).unwrap();
    let (_, notes) = import(&set(folder.path(), false), 1).unwrap();
    let root = folder.path().to_str().unwrap();
    insta::assert_snapshot!(notes.join("\n").replace(root, "FOLDER"), @r"
    fixations of less than 50 ms are left out, as in the published tables: 1, the first in line 19
    fixations that lie outside of their picture are left out: 1, the first in line 18
    passed over, for it is no picture that is read: `FOLDER/images/readme.txt`
    left out, for the mask has no picture: `FOLDER/masks/y.png`
    left out, for the picture of these fixations is not there: `zz`
    ");
}

#[test]
fn grey_slices_have_the_published_numbers_of_theirs() {
    let folder = looked_at();
    for name in ["a", "b", "c", "d", "e", "f"] {
        let grey = GrayImage::from_fn(60, 40, |x, y| Luma([(x * 4 + y % 3) as u8]));
        grey.save(folder.path().join(format!("images/{name}.png"))).unwrap();
    }
    let (dataset, _) = import(&set(folder.path(), true), 1).unwrap();
    assert_eq!((dataset.levels.as_slice(), dataset.channels()), (&[0.2, 0.4][..], 1));
    assert!(dataset.provenance.contains("deviation 50"), "{}", dataset.provenance);
    let voxels = &dataset.cases[0].scan.voxels;
    let mean = voxels.iter().sum::<f32>() / voxels.len() as f32;
    assert!(mean.abs() < 0.05, "{mean}");
}

const SMALL: GazePhantom =
    GazePhantom { cases: 3, validation: 2, test: 1, size: 32, levels: Vec::new(), seed: 1 };

fn phantom(size: usize) -> Dataset {
    let levels = vec![0.3, 0.5];
    gaze_phantom::generate(&GazePhantom { levels, size, ..SMALL }, 2).unwrap()
}

#[test]
fn the_same_seed_draws_the_same_gaze_for_ever() {
    let dataset = phantom(32);
    assert_eq!(dataset.test_fold, Some(2));
    assert_eq!(
        described(&dataset).into_iter().map(|(name, fold, _)| (name, fold)).collect::<Vec<_>>(),
        [
            ("test-0001", 2),
            ("train-0001", 0),
            ("train-0002", 0),
            ("train-0003", 0),
            ("val-0001", 1),
            ("val-0002", 1),
        ]
    );
    let labels = dataset.cases.iter().flat_map(|case| case.annotations.values().flatten().copied());
    // Frozen: changing this changes every number measured on the phantom.
    assert_eq!(xxh3_64(&labels.collect::<Vec<u8>>()), 2_423_640_345_878_029_647);
}

#[test]
fn simulated_gaze_finds_lesions_loosely_and_lower_levels_reach_further() {
    let dataset = phantom(32);
    let (mut both, mut of_levels, mut lesion) = ([0_u32; 2], [0_u32; 2], 0_u32);
    for case in &dataset.cases {
        case.check(2).unwrap();
        case.check_gaze(2).unwrap();
        for (&reached, &dense) in case.annotations[GAZE].iter().zip(&case.annotations[DENSE]) {
            lesion += u32::from(dense);
            for level in 0..2 {
                let is_in = usize::from(reached) > level;
                of_levels[level] += u32::from(is_in);
                both[level] += u32::from(is_in && dense == 1);
            }
        }
    }
    let dice =
        [0, 1].map(|level| 2.0 * f64::from(both[level]) / f64::from(of_levels[level] + lesion));
    println!("Dice of the levels {dice:.3?}");
    assert!(of_levels[0] > of_levels[1]);
    assert!(dice.iter().all(|dice| (0.4..0.95).contains(dice)), "{dice:?}");
}
