//! ACDC in HDF5: labels are read as they are stored, and files that are left out or there twice are named.

use crate::data::text;
use hdf5::H5Type;
use scrimp::data::import::{Source, Steps, acdc};
use scrimp::data::{DENSE, Dataset};
use scrimp::error::Result;
use scrimp::preparation::{Intensities, Over, Scaling, Spacing};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// One slice of 2 x 3 with these dense labels and no scribbles to speak of.
fn write<T: H5Type>(path: &Path, dense: &[T; 6]) {
    let file = hdf5::File::create(path).unwrap();
    let set = file.new_dataset::<f32>().shape((1, 2, 3)).create("image").unwrap();
    set.write_raw(&[0.0f32, 0.5, 1.0, 0.0, 0.5, 1.0]).unwrap();
    let set = file.new_dataset::<T>().shape((1, 2, 3)).create("label").unwrap();
    set.write_raw(dense).unwrap();
    let set = file.new_dataset::<u16>().shape((1, 2, 3)).create("scribble").unwrap();
    set.write_raw(&[4u16, 4, 4, 0, 1, 4]).unwrap();
}

fn import(folder: &Path) -> Result<(Dataset, Vec<String>)> {
    let source = acdc::open(folder, &Steps::as_published())?;
    let notes = source.notes.clone();
    let dataset = Source::collect(source)?;
    let clean = |note: String| note.replace(folder.to_str().unwrap(), "FOLDER");
    Ok((dataset, notes.take().into_iter().map(clean).collect()))
}

fn dense<T: H5Type>(labels: &[T; 6]) -> std::result::Result<Vec<u8>, String> {
    let folder = TempDir::new().unwrap();
    write(&folder.path().join("patient001_frame01.h5"), labels);
    match import(folder.path()) {
        Ok((mut dataset, _)) => Ok(dataset.cases.remove(0).annotations.remove(DENSE).unwrap()),
        failure => Err(text(failure, folder.path())),
    }
}

#[test]
fn labels_are_read_as_they_are_stored_and_never_cut() {
    let expected = Ok(vec![0, 1, 2, 3, 0, 1]);
    assert_eq!(dense(&[0u8, 1, 2, 3, 0, 1]), expected);
    assert_eq!(dense(&[0i64, 1, 2, 3, 0, 1]), expected);
    assert_eq!(dense(&[0u64, 1, 2, 3, 0, 1]), expected);
    assert_eq!(dense(&[0.0f64, 0.9999, 2.0001, 3.0, 0.0, 1.0]), expected);
    assert_eq!(dense(&[0.0f32, 0.9999, 2.0001, 3.0, 0.0, 1.0]), expected);
    for wrong in [1.6, -0.4, 4.0, f64::NAN, 4_294_967_297.0] {
        let said = dense(&[0.0, wrong, 0.0, 0.0, 0.0, 0.0]).unwrap_err();
        assert!(
            said.contains(&format!("holds label {wrong} in slice 0 at row 0, column 1")),
            "{said}"
        );
    }
    for said in [dense(&[(1u64 << 32) + 1; 6]), dense(&[u64::MAX; 6])] {
        assert!(said.unwrap_err().contains("expected 0 to 3"));
    }
    assert!(dense(&[-4_294_967_295i64; 6]).unwrap_err().contains("holds label -4294967295"));
}

#[test]
fn other_intensities_can_be_wished_for_and_distances_where_the_files_have_some() {
    let folder = TempDir::new().unwrap();
    write(&folder.path().join("patient001_frame01.h5"), &[0u8, 1, 2, 3, 0, 1]);
    let z_score = Scaling::By(Intensities::ZScore { over: Over::Slice });
    let steps = Steps { scaling: vec![z_score], ..Steps::as_published() };
    let dataset = acdc::open(folder.path(), &steps).and_then(Source::collect).unwrap();
    assert_eq!(dataset.provenance.lines().last(), Some("Volumes of WSL4MIS."));
    let voxels = &dataset.cases[0].scan.voxels;
    let expected = 1.5f32.sqrt();
    assert!(
        (voxels[0] + expected).abs() < 1e-6 && (voxels[2] - expected).abs() < 1e-6,
        "{voxels:?}"
    );
    assert_eq!(dataset.cases[0].annotations[DENSE], [0, 1, 2, 3, 0, 1]);
    let steps = Steps { spacing: Spacing::InPlane([1.0; 2]), ..steps };
    let failure = acdc::open(folder.path(), &steps).and_then(Source::collect).unwrap_err();
    let said = failure.to_string();
    assert!(
        said.contains("cannot prepare") && said.contains("how far apart its voxels are"),
        "{said}"
    );
}

#[test]
fn files_with_other_names_are_named_and_files_of_one_case_refused() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    write(&at("patient001_frame01.h5"), &[0u8; 6]);
    write(&at("case001.h5"), &[0u8; 6]);
    write(&at("patientA_frame01.h5"), &[0u8; 6]);
    fs::write(at("._patient001_frame02.h5"), "macOS").unwrap();
    fs::write(at("list.txt"), "patient001").unwrap();
    let (dataset, notes) = import(folder.path()).unwrap();
    assert_eq!(dataset.cases.len(), 1);
    assert_eq!(
        notes,
        [
            "left out, for the name is none that ACDC has (`patient001_frame01…`): `FOLDER/case001.h5`, `FOLDER/patientA_frame01.h5`"
        ]
    );
    write(&at("patient1_frame1.h5"), &[0u8; 6]);
    insta::assert_snapshot!(text(import(folder.path()), folder.path()), @r"
    error: `FOLDER/patient001_frame01.h5` and `FOLDER/patient1_frame1.h5` are the same patient and frame, expected one file of each

    hint: remove or rename one of them
    ");
}

#[test]
fn files_that_cannot_be_opened_are_not_called_damaged() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("patient001_frame01.h5");
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    let said = || text(import(folder.path()), folder.path());
    insta::assert_snapshot!(said(), @r"
    error: `FOLDER/patient001_frame01.h5` is a link to a file that is not there

    hint: mend the link, or copy the file itself
    ");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "words").unwrap();
    insta::assert_snapshot!(said(), @r"
    error: `FOLDER/patient001_frame01.h5` is no HDF5 file
      caused by: H5Fopen(): unable to open file: file signature not found
    ");
}

#[test]
fn arrays_that_the_file_cannot_hold_take_no_memory() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("patient001_frame01.h5");
    let file = hdf5::File::create(&path).unwrap();
    let empty = file.new_dataset::<f32>().chunk((1, 1024, 1024)).shape((1000, 1024, 1024));
    empty.create("image").unwrap();
    file.close().unwrap();
    insta::assert_snapshot!(text(import(folder.path()), folder.path()), @"error: `image` of `FOLDER/patient001_frame01.h5` has shape [1000, 1024, 1024], expected no more voxels than the 0 bytes that it has can hold");
}
