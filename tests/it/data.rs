//! Packed files and imports: what goes in comes out, and what is wrong is said.

use crate::data_packed::first_layout_damaged as damaged_inside;
use crate::skips::skipped;
use scrimp::data::import::own_data::{self, Folders, ScribbleFolder};
use scrimp::data::import::phantom::{Difficulty, Phantom, generate};
use scrimp::data::import::{Steps, acdc};
use scrimp::data::stream::training_slices;
use scrimp::data::{Case, DENSE, Dataset, IGNORE, IMAGE_LABEL, SCRIBBLE, split, store};
use scrimp::error::{Failure, Result};
use scrimp::preparation::Preparation;
use scrimp::scan::{Grid, Scan};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn small() -> Dataset {
    let difficulty = Difficulty::Easy;
    generate(&Phantom { cases: 3, slices: 2, size: 32, difficulty, seed: 5 }).unwrap()
}

fn packed(dataset: &Dataset) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("set.h5");
    store::write(&path, dataset).unwrap();
    (folder, path)
}

/// The whole text of an error, with `FOLDER` for the folder of the test, and without the sizes
/// that HDF5 adds, which depend on its version.
pub(crate) fn text<T>(result: Result<T>, folder: &Path) -> String {
    let failure: Failure = result.err().expect("it was accepted");
    let text = failure.to_string().replace(folder.to_str().unwrap(), "FOLDER");
    let lines = text.lines().map(|line| line.split(": eof").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_data_set_is_read_as_it_was_written() {
    let mut dataset = small();
    dataset.cases[1].scan.grid.spacing_mm = None;
    dataset.cases[2].annotations.remove(DENSE);
    // More intensities than one byte of codes holds, and a negative zero.
    dataset.cases[0]
        .scan
        .voxels
        .iter_mut()
        .zip(0u16..)
        .for_each(|(v, i)| *v = f32::from(i) / 4096.0);
    dataset.cases[0].scan.voxels[7] = -0.0;
    let (_folder, path) = packed(&dataset);
    let read = store::read(&path).unwrap();
    assert_eq!(read, dataset);
    assert_eq!(read.cases[0].scan.voxels[7].to_bits(), (-0.0f32).to_bits());
}

#[test]
fn a_volume_of_very_many_intensities_is_kept_as_it_is() {
    let shape = [2, 200, 200];
    let voxels: Vec<f32> = (0u32..80_000).map(|i| i as f32 / 80_000.0).collect();
    let annotations = [(SCRIBBLE.to_string(), vec![IGNORE; 80_000])].into();
    let scan = Scan { grid: Grid::unplaced(shape, None), channels: 1, voxels };
    let case = Case { scan, annotations, ..small().cases.remove(0) };
    let dataset = Dataset { cases: vec![case], ..small() };
    let (_folder, path) = packed(&dataset);
    assert_eq!(store::read(&path).unwrap(), dataset);
}

/// Two slices of 32 x 32 in colour, and another case of one.
fn coloured() -> Dataset {
    let mut dataset = small();
    dataset.preparation = Some(Preparation::colours());
    dataset.cases.truncate(2);
    for case in &mut dataset.cases {
        case.scan.channels = 3;
        case.scan.voxels = (0..3 * 2048u32).map(|i| (i % 256) as f32 / 255.0).collect();
        case.annotations = [(IMAGE_LABEL.to_string(), vec![1; 2048])].into();
    }
    dataset.cases[1].scan.grid.shape[0] = 1;
    dataset.cases[1].scan.voxels.truncate(3 * 1024);
    dataset.cases[1].annotations = [(IMAGE_LABEL.to_string(), vec![0; 1024])].into();
    dataset
}

#[test]
fn colours_are_kept_and_grey_files_know_nothing_of_them() {
    let dataset = coloured();
    let (_folder, path) = packed(&dataset);
    assert_eq!(store::read(&path).unwrap(), dataset);
    let file = hdf5::File::open(&path).unwrap();
    let array = |case: &str, kind: &str| file.dataset(&format!("volumes/{case}/{kind}")).unwrap();
    assert_eq!(array("phantom0001", "image").shape(), [2, 3, 32, 32]);
    assert_eq!(array("phantom0001", "image").chunk().unwrap(), [2, 1, 32, 32]);
    assert_eq!(array("phantom0002", IMAGE_LABEL).shape(), [1, 32, 32]);
    let (_folder, path) = packed(&small());
    let attributes = hdf5::File::open(path).unwrap().attr_names().unwrap();
    assert!(!attributes.contains(&"channels".to_owned()), "{attributes:?}");
}

#[test]
fn grey_and_coloured_cases_are_not_packed_together() {
    let (folder, mut dataset) = (TempDir::new().unwrap(), coloured());
    dataset.cases[1] = small().cases.remove(1);
    let path = folder.path().join("set.h5");
    insta::assert_snapshot!(text(store::write(&path, &dataset), folder.path()), @r"
    error: cannot write case `phantom0002` to `FOLDER/set.h5`
      caused by: it has 1 channels, expected 3 as all of the data set
    ");
    insta::assert_snapshot!(damaged_inside(|file| {
        file.new_attr::<u64>().create("channels").unwrap().write_scalar(&3u64).unwrap();
    }), @r"
    error: `/volumes/phantom0001/image` of `FOLDER/set.h5` has shape [2, 32, 32], expected [2, 3, 32, 32] as table `/cases` says

    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
}

#[test]
fn equal_data_sets_give_equal_files() {
    let ((_a, first), (_b, second)) = (packed(&small()), packed(&small()));
    assert_eq!(fs::read(first).unwrap(), fs::read(second).unwrap());
}

#[test]
fn a_file_that_cannot_be_finished_leaves_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let mut dataset = small();
    dataset.cases[1].scan.voxels[40] = f32::NAN;
    let path = folder.path().join("set.h5");
    insta::assert_snapshot!(text(store::write(&path, &dataset), folder.path()), @r"
    error: cannot write case `phantom0002` to `FOLDER/set.h5`
      caused by: `image` of case `phantom0002` holds NaN in slice 0 at row 1, column 8, expected finite intensities
    ");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let mut twice = small();
    twice.cases[1].name = "phantom0001".into();
    insta::assert_snapshot!(text(store::write(&path, &twice), folder.path()), @r"
    error: cannot write case `phantom0001` to `FOLDER/set.h5`
      caused by: it comes after case `phantom0001`, expected each name once, in ascending order
    ");
}

/// What reading says after `damage` was done to a sound file.
fn damaged(damage: impl FnOnce(&Path)) -> String {
    let (folder, path) = packed(&small());
    damage(&path);
    text(store::read(&path), folder.path())
}

#[test]
fn files_that_are_none_of_ours_are_refused() {
    insta::assert_snapshot!(damaged(|path| fs::remove_file(path).unwrap()), @r"
    error: no packed data set at `FOLDER/set.h5`

    hint: make one, for example `scrimp prepare phantom --to FOLDER/set.h5`
    hint: `scrimp prepare --help` lists the other sources
    ");
    insta::assert_snapshot!(damaged(|path| fs::write(path, "[data]").unwrap()), @r"
    error: `FOLDER/set.h5` is no packed data set: it begins neither as `scrimp prepare` writes them nor as HDF5

    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
    insta::assert_snapshot!(damaged_inside(|file| {
        let layout = "scrimp data set 9".parse::<hdf5::types::VarLenUnicode>().unwrap();
        file.attr("layout").unwrap().write_scalar(&layout).unwrap();
    }), @r"
    error: `FOLDER/set.h5` has layout `scrimp data set 9`, expected `scrimp data set 1`

    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
}

#[test]
fn arrays_that_differ_from_what_was_written_are_refused() {
    insta::assert_snapshot!(damaged_inside(|file| {
        let scribble = file.dataset("volumes/phantom0002/scribble").unwrap();
        scribble.write_raw(&vec![1u8; 2 * 32 * 32]).unwrap();
    }), @r"
    error: `/volumes/phantom0002/scribble` of `FOLDER/set.h5` is damaged: its checksum is 6d3868f98944ad72, expected a209618c3326604f

    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
    insta::assert_snapshot!(damaged_inside(|file| {
        let group = file.group("volumes/phantom0003").unwrap();
        group.unlink("dense").unwrap();
        group.new_dataset::<u8>().shape((2, 32, 31)).create("dense").unwrap();
    }), @r"
    error: `/volumes/phantom0003/dense` of `FOLDER/set.h5` has shape [2, 32, 31], expected [2, 32, 32] as table `/cases` says

    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
    insta::assert_snapshot!(damaged_inside(|file| {
        let levels = file.dataset("volumes/phantom0001/image_levels").unwrap();
        let mut values = levels.read_raw::<f32>().unwrap();
        values[3] = f32::NAN;
        levels.write_raw(&values).unwrap();
    }).split_once("its checksum").unwrap().0, @"error: `/volumes/phantom0001/image` of `FOLDER/set.h5` is damaged:");
    insta::assert_snapshot!(damaged_inside(|file| {
        file.group("volumes").unwrap().unlink("phantom0001").unwrap();
    }), @r"
    error: cannot read `/volumes/phantom0001` of `FOLDER/set.h5`
      caused by: H5Gopen2(): unable to open group: object 'phantom0001' doesn't exist

    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
}

/// Writes one HDF5 file in the form of WSL4MIS.
fn write_wsl4mis(path: &Path, shape: &[usize], image: &[f32], labels: [&[u16]; 2]) {
    let file = hdf5::File::create(path).unwrap();
    let set = file.new_dataset::<f32>().shape(shape).create("image").unwrap();
    set.write_raw(image).unwrap();
    let dense: Vec<u8> = labels[0].iter().map(|&label| label as u8).collect();
    let set = file.new_dataset::<u8>().shape(shape).create("label").unwrap();
    set.write_raw(&dense).unwrap();
    let set = file.new_dataset::<u16>().shape(shape).create("scribble").unwrap();
    set.write_raw(labels[1]).unwrap();
}

/// The phantom as WSL4MIS has ACDC: labels of two cases as (dense, scribble with 4 unlabelled).
fn wsl4mis_labels(case: &Case) -> [Vec<u16>; 2] {
    [DENSE, SCRIBBLE].map(|kind| {
        let label = |&label: &u8| if label == IGNORE { 4 } else { u16::from(label) };
        case.annotations[kind].iter().map(label).collect()
    })
}

/// Three cases as volumes and as slices in two folders.
fn wsl4mis() -> (TempDir, [PathBuf; 2]) {
    let folder = TempDir::new().unwrap();
    let [volumes, slices] =
        ["ACDC_training_volumes", "slices"].map(|name| folder.path().join(name));
    fs::create_dir(&volumes).unwrap();
    fs::create_dir(&slices).unwrap();
    let ids = ["patient020_frame01", "patient020_frame12", "patient021_frame01"];
    for (case, id) in small().cases.iter().zip(ids) {
        let [dense, scribble] = wsl4mis_labels(case);
        let path = volumes.join(format!("{id}.h5"));
        write_wsl4mis(&path, &case.scan.grid.shape, &case.scan.voxels, [&dense, &scribble]);
        for slice in 0..2 {
            let part = slice * 1024..(slice + 1) * 1024;
            let path = slices.join(format!("{id}_slice_{slice}.h5"));
            let labels = [&dense[part.clone()], &scribble[part.clone()]];
            write_wsl4mis(&path, &[32, 32], &case.scan.voxels[part], labels);
        }
    }
    (folder, [volumes, slices])
}

#[test]
fn volumes_and_slices_of_wsl4mis_give_the_same_cases() {
    let (folder, [volumes, slices]) = wsl4mis();
    let dataset = acdc::open(folder.path(), &Steps::as_published()).unwrap().collect().unwrap();
    assert_eq!(acdc::open(&volumes, &Steps::as_published()).unwrap().collect().unwrap(), dataset);
    assert_eq!(
        acdc::open(&slices, &Steps::as_published()).unwrap().collect().unwrap().cases,
        dataset.cases
    );
    let described: Vec<_> = dataset
        .cases
        .iter()
        .map(|case| (&*case.name, &*case.patient, case.frame, case.fold))
        .collect();
    assert_eq!(
        described,
        [
            ("patient020_frame01", "patient020", 1, 1),
            ("patient020_frame12", "patient020", 12, 1),
            ("patient021_frame01", "patient021", 1, 2),
        ]
    );
    for (case, origin) in dataset.cases.iter().zip(small().cases) {
        assert_eq!(
            (&case.scan.voxels, &case.annotations),
            (&origin.scan.voxels, &origin.annotations)
        );
        assert_eq!(case.scan.grid.spacing_mm, None);
    }
}

#[test]
fn broken_files_of_wsl4mis_are_named() {
    let (folder, [volumes, slices]) = wsl4mis();
    let import = |from: &Path| {
        text(
            acdc::open(from, &Steps::as_published())
                .and_then(scrimp::data::import::Source::collect),
            folder.path(),
        )
    };
    let case = &small().cases[0];
    let [dense, scribble] = wsl4mis_labels(case);
    let first = volumes.join("patient020_frame01.h5");

    let mut image = case.scan.voxels.clone();
    image[1024 + 33] = f32::NAN;
    write_wsl4mis(&first, &case.scan.grid.shape, &image, [&dense, &scribble]);
    insta::assert_snapshot!(import(folder.path()), @"error: `image` of `FOLDER/ACDC_training_volumes/patient020_frame01.h5` holds NaN in slice 1 at row 1, column 1, expected finite intensities in [0, 1]");
    let mut wrong = scribble.clone();
    wrong[5] = 5;
    write_wsl4mis(&first, &case.scan.grid.shape, &case.scan.voxels, [&dense, &wrong]);
    insta::assert_snapshot!(import(folder.path()), @"error: `scribble` of `FOLDER/ACDC_training_volumes/patient020_frame01.h5` holds label 5 in slice 0 at row 0, column 5, expected 0 to 3 or 4 for unlabelled");
    write_wsl4mis(&first, &case.scan.grid.shape, &case.scan.voxels, [&scribble, &scribble]);
    insta::assert_snapshot!(import(folder.path()), @"error: `label` of `FOLDER/ACDC_training_volumes/patient020_frame01.h5` holds label 4 in slice 0 at row 0, column 0, expected 0 to 3");
    fs::write(&first, &fs::read(&first).unwrap()[..3000]).unwrap();
    insta::assert_snapshot!(import(folder.path()), @r"
    error: cannot open `FOLDER/ACDC_training_volumes/patient020_frame01.h5` as HDF5, expected a whole file
      caused by: H5Fopen(): unable to open file: truncated file
    ");
    fs::remove_file(slices.join("patient020_frame12_slice_0.h5")).unwrap();
    insta::assert_snapshot!(import(&slices), @r"
    error: slice 0 of `patient020_frame12` is missing, the next one is `FOLDER/slices/patient020_frame12_slice_1.h5`

    hint: copy the missing slice files, or remove the others of this case
    ");
    let file = hdf5::File::create(&first).unwrap();
    file.new_dataset::<f32>().shape((1, 2, 2)).create("image").unwrap();
    file.new_dataset::<u8>().shape((1, 2, 3)).create("label").unwrap();
    drop(file);
    insta::assert_snapshot!(import(folder.path()), @"error: `label` of `FOLDER/ACDC_training_volumes/patient020_frame01.h5` has shape [1, 2, 3], expected [1, 2, 2] as `image` has");
    let empty = TempDir::new().unwrap();
    insta::assert_snapshot!(text(acdc::open(empty.path(), &Steps::as_published()), empty.path()), @r"
    error: no ACDC cases in `FOLDER`

    hint: looked for `patient001_frame01.h5` there or in `ACDC_training_volumes`, for `patient001_frame01_slice_0.h5` there or in `ACDC_training_slices`, and for `patient001/patient001_frame01.nii.gz`
    hint: there is nothing there
    ");
}

/// Writes a NIfTI-1 file of 16-bit integers; `shape` is slices, rows, columns.
pub(crate) fn write_nifti(path: &Path, shape: [usize; 3], spacing_mm: [f32; 3], values: &[i16]) {
    let mut bytes = vec![0u8; 352];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &348i32.to_le_bytes());
    for (axis, extent) in [3, shape[2], shape[1], shape[0], 1, 1, 1, 1].into_iter().enumerate() {
        put(40 + 2 * axis, &(extent as i16).to_le_bytes());
    }
    put(70, &4i16.to_le_bytes());
    put(72, &16i16.to_le_bytes());
    let [between_slices, between_rows, between_columns] = spacing_mm;
    let spacings = [1.0, between_columns, between_rows, between_slices];
    for (axis, spacing) in spacings.into_iter().enumerate() {
        put(76 + 4 * axis, &spacing.to_le_bytes());
    }
    put(108, &352f32.to_le_bytes());
    // A matrix that is the spacing alone.
    put(254, &1i16.to_le_bytes());
    for (row, spacing) in spacings[1..].iter().enumerate() {
        put(280 + 20 * row, &spacing.to_le_bytes());
    }
    put(344, b"n+1\0");
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    fs::write(path, bytes).unwrap();
}

const SHAPE: [usize; 3] = [2, 3, 4];
const SPACING_MM: [f32; 3] = [10.0, 1.5625, 1.37];

/// Raw intensities 100..=123, and labels 0, 1, 2, 3 and 4 in turn.
fn ramp() -> (Vec<i16>, Vec<i16>) {
    ((100..124).collect(), (0..24).map(|i| i % 5).collect())
}

#[test]
fn the_challenge_tree_is_scaled_and_keeps_its_spacing() {
    let folder = TempDir::new().unwrap();
    let patient = folder.path().join("patient081");
    fs::create_dir(&patient).unwrap();
    let (image, scribble) = ramp();
    let dense: Vec<i16> = scribble.iter().map(|label| label % 4).collect();
    let stem = |kind: &str| patient.join(format!("patient081_frame04{kind}.nii"));
    write_nifti(&stem(""), SHAPE, SPACING_MM, &image);
    write_nifti(&stem("_gt"), SHAPE, SPACING_MM, &dense);
    let import = || {
        acdc::open(folder.path(), &Steps::as_published())
            .and_then(scrimp::data::import::Source::collect)
    };
    insta::assert_snapshot!(text(import(), folder.path()), @r"
    error: image `FOLDER/patient081/patient081_frame04.nii` has no scribbles

    hint: looked for `patient081_frame04_scribble.nii.gz` and `patient081_frame04_scribble.nii` beside it
    ");
    write_nifti(&stem("_scribble"), SHAPE, SPACING_MM, &scribble);
    let case = import().unwrap().cases.remove(0);
    assert_eq!((&*case.name, case.fold, case.scan.grid.shape), ("patient081_frame04", 5, SHAPE));
    assert_eq!(case.scan.grid.spacing_mm, Some([10.0, 1.5625, 1.37]));
    // 24 values: the share 0.99 is reached at the last one, so nothing is cut.
    assert_eq!(case.scan.voxels[12], (12.0f64 / 23.0) as f32);
    assert_eq!(case.annotations[SCRIBBLE][..6], [0, 1, 2, 3, IGNORE, 0]);
    assert_eq!(case.annotations[DENSE][..6], [0, 1, 2, 3, 0, 0]);
}

#[test]
fn own_nifti_files_are_imported_or_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let [images, scribbles] = ["images", "scribbles"].map(|name| folder.path().join(name));
    fs::create_dir(&images).unwrap();
    fs::create_dir(&scribbles).unwrap();
    let classes: Vec<String> = ["background", "a", "b", "c"].map(String::from).to_vec();
    let folders = Folders {
        scribbles: Some(ScribbleFolder { path: scribbles.clone(), unlabelled: 4 }),
        ..Folders::new(images.clone(), classes)
    };
    let import = || own_data::open(&folders).and_then(scrimp::data::import::Source::collect);
    insta::assert_snapshot!(text(import(), folder.path()), @r"
    error: no images in `FOLDER/images`

    hint: looked for files that end in `.nii.gz`, `.nii`, `.hdr`, `.hdr.gz`, `.nrrd`, `.nhdr`, `.mha`, `.mhd`, `.png`, `.jpg`, `.jpeg`, `.bmp`, `.tif`, `.tiff`, `.npy`, `.npz`, `.dcm`, `.dicom` or `.ima`
    ");
    let (image, scribble) = ramp();
    for name in ["one.nii", "two.nii"] {
        write_nifti(&images.join(name), SHAPE, SPACING_MM, &image);
        write_nifti(&scribbles.join(name), SHAPE, SPACING_MM, &scribble);
    }
    let dataset = import().unwrap();
    let mut folds: Vec<_> = dataset.cases.iter().map(|case| case.fold).collect();
    folds.sort_unstable();
    assert!(dataset.cases.iter().map(|case| &*case.name).eq(["one", "two"]) && folds == [1, 2]);
    assert!(dataset.cases.iter().all(|case| case.check(4).is_ok()));

    let two = scribbles.join("two.nii");
    write_nifti(&two, [2, 4, 3], SPACING_MM, &scribble);
    insta::assert_snapshot!(text(import(), folder.path()), @r"
    error: `FOLDER/scribbles/two.nii` has shape [2, 4, 3] along the axes of its image, expected [2, 3, 4]

    hint: draw or resample the labels on the image itself
    ");
    write_nifti(&two, SHAPE, [10.0, 1.5, 1.37], &scribble);
    insta::assert_snapshot!(text(import(), folder.path()), @r"
    error: `FOLDER/scribbles/two.nii` has spacing [10.0, 1.5, 1.37], expected [10.0, 1.5625, 1.37] as its image has

    hint: draw or resample the labels on the image itself
    hint: if both headers are true, `--regrid` carries labels to the voxels of the image on which they lie
    ");
    write_nifti(&two, SHAPE, SPACING_MM, &image);
    insta::assert_snapshot!(text(import(), folder.path()), @"error: `FOLDER/scribbles/two.nii` holds label 100 in slice 0 at row 0, column 0, expected 0 to 3 or 4 for unlabelled");
    fs::write(&two, &fs::read(&two).unwrap()[..380]).unwrap();
    insta::assert_snapshot!(text(import(), folder.path()), @r"
    error: `FOLDER/scribbles/two.nii` is cut off: it holds 28 of the 48 bytes of its voxels

    hint: copy it again
    ");
}

#[test]
fn real_acdc_volumes_have_the_published_folds() {
    let Some(folder) = std::env::var_os("SCRIMP_DATA_DIR") else {
        skipped("SCRIMP_DATA_DIR does not say where real data are");
        return;
    };
    let folder = PathBuf::from(folder).join("ACDC");
    let mut slices = [0; 6];
    let source = acdc::open(&folder, &Steps::as_published()).unwrap();
    assert_eq!(source.case_count, 200);
    let mut stacked = acdc::open(&folder.join("ACDC_training_slices"), &Steps::as_published())
        .unwrap()
        .cases
        .peekable();
    let mut cases = Vec::new();
    for case in source.cases {
        let mut case = case.unwrap();
        case.check(4).unwrap();
        slices[case.fold as usize] += case.scan.grid.shape[0];
        let same = stacked.next_if(|other| other.as_ref().unwrap().name == case.name);
        assert!(same.is_none_or(|other| other.unwrap() == case), "{}", case.name);
        case.scan.voxels.clear();
        cases.push(case);
    }
    assert_eq!(slices, [0, 390, 378, 346, 340, 448]);
    let mut parted = Dataset { cases, ..small() };
    split::dmsps(&mut parted).unwrap();
    // As published for DMSPS: 140 volumes to train on.
    assert_eq!(training_slices(&parted, 1, SCRIBBLE).len(), 1356);
    assert!(stacked.next().is_none(), "every case of the slices is among the volumes");
}
