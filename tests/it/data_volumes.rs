//! Anybody's own files: the same volume in many guises gives the same case, and what would enter wrong,
//! mirrored or shifted is refused in words.

use crate::data::text;
use crate::nifti_files::{File, VOXELS, file, gzip, image, scribble, stored_along, straight};
use scrimp::data::import::own_data::{self, Folders, ScribbleFolder};
use scrimp::data::import::{Folding, Source};
use scrimp::data::{Case, DENSE, IGNORE, SCRIBBLE};
use scrimp::error::Result;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Folders of images, scribbles and dense labels.
struct Place {
    folder: TempDir,
    folders: Folders,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let [images, scribbles, dense] =
            ["images", "scribbles", "dense"].map(|name| folder.path().join(name));
        for folder in [&images, &scribbles, &dense] {
            fs::create_dir(folder).unwrap();
        }
        let classes = ["background", "lesion"].map(String::from).to_vec();
        let scribbles = Some(ScribbleFolder { path: scribbles, unlabelled: 9 });
        let folders = Folders { scribbles, ..Folders::new(images, classes) };
        Self { folder, folders }
    }

    fn write(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(path);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// What was read of the folders, and the notes that were taken.
    fn read(&self) -> Result<(Vec<Case>, Vec<String>)> {
        let source = own_data::open(&self.folders)?;
        let notes = source.notes.clone();
        let cases = Source::collect(source)?.cases;
        Ok((cases, notes.take().into_iter().map(|note| self.clean(&note)).collect()))
    }

    fn clean(&self, text: &str) -> String {
        text.replace(self.folder.path().to_str().unwrap(), "FOLDER")
    }

    fn refusal(&self) -> String {
        text(self.read(), self.folder.path())
    }
}

/// The case of an image and its scribble, and what was noted.
fn pair(image: &[u8], scribble: &[u8]) -> Result<(Case, Vec<String>)> {
    let place = Place::new();
    place.write("images/a.nii", image);
    place.write("scribbles/a.nii", scribble);
    place.read().map(|(mut cases, notes)| (cases.remove(0), notes))
}

fn refused(image: &[u8], scribble: &[u8]) -> String {
    let place = Place::new();
    place.write("images/a.nii", image);
    place.write("scribbles/a.nii", scribble);
    place.refusal()
}

fn plain() -> Case {
    let (case, notes) = pair(&image().bytes(), &scribble().bytes()).unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    case
}

#[test]
fn every_type_byte_order_and_offset_gives_the_same_case() {
    let expected = plain();
    assert_eq!(expected.annotations[SCRIBBLE][..7], [0, 1, 1, 0, 1, 0, IGNORE]);
    assert_eq!(expected.scan.grid.spacing_mm, Some([8.0, 2.0, 1.5]));
    assert_eq!(expected.scan.grid.position_mm([1.0, 0.0, 2.0]), Some([-17.0, 30.0, 13.0]));
    for stored in [2, 256, 4, 512, 8, 768, 1024, 1280, 16, 64] {
        for big_endian in [false, true] {
            let guise =
                |file: File| File { stored, big_endian, gap: 68, offset: 416.0, ..file }.bytes();
            let (case, notes) = pair(&guise(image()), &gzip(&guise(scribble()))).unwrap();
            assert_eq!((case, notes), (expected.clone(), vec![]), "{stored} {big_endian}");
        }
    }
    // A scaling that means none, and one that only moves intensities.
    for scaling in [[0.0, 7.0], [f32::NAN, f32::NAN], [f32::INFINITY, 1.0], [2.5, -100.0]] {
        let (case, _) = pair(&File { scaling, ..image() }.bytes(), &scribble().bytes()).unwrap();
        assert_eq!(case, expected, "{scaling:?}");
    }
    // Extensions, trailing dimensions, padding, and metres.
    let metres = |row: [f32; 4]| row.map(|cell| cell / 1000.0);
    for (image, what) in [
        (File { extents: vec![4, 3, 2, 1, 1], ..image() }, "dimensions"),
        (File { behind: vec![0; 160], ..image() }, "padding"),
        (
            File {
                units: 1,
                sform: Some(straight().map(metres)),
                pixdim: [1.0, 0.0015, 0.002, 0.008],
                ..image()
            },
            "metres",
        ),
    ] {
        let mut case = pair(&image.bytes(), &scribble().bytes()).unwrap().0;
        let (found, plain) = (&mut case.scan.grid, &expected.scan.grid);
        // Metres are rounded in other places.
        assert_near(found.position_mm([1.0, 2.0, 3.0]), plain.position_mm([1.0, 2.0, 3.0]));
        found.placement = plain.placement;
        assert_eq!(case, expected, "{what}");
    }
}

fn assert_near(found: Option<[f64; 3]>, expected: Option<[f64; 3]>) {
    let pairs = found.unwrap().into_iter().zip(expected.unwrap());
    let is_near = pairs.clone().all(|(found, expected)| (found - expected).abs() < 1e-5);
    assert!(is_near, "{:?}", pairs.collect::<Vec<_>>());
}

#[test]
fn headers_that_would_shift_or_cut_voxels_are_refused() {
    for (offset, shown) in [
        (0.0, "0"),
        (348.0, "348"),
        (352.5, "352.5"),
        (f32::NAN, "NaN"),
        (-5.0, "-5"),
        (1e30, "1000000000000000000000000000000"),
    ] {
        let said = refused(&File { offset, ..image() }.bytes(), &scribble().bytes());
        let expected = format!(
            "says that its voxels begin at byte {shown} (`vox_offset`), expected 352 or more"
        );
        assert!(said.contains(&expected), "{said}");
    }
    let image_with = |change: &dyn Fn(&mut File)| {
        let mut image = image();
        change(&mut image);
        refused(&image.bytes(), &scribble().bytes()).lines().next().unwrap().to_owned()
    };
    insta::assert_snapshot!(image_with(&|image| image.offset = 1e9), @"error: `FOLDER/images/a.nii` ends at byte 400, but its header says that its voxels begin at byte 1000000000");
    insta::assert_snapshot!(image_with(&|image| image.offset = 368.0), @"error: `FOLDER/images/a.nii` is cut off: it holds 32 of the 48 bytes of its voxels");
    insta::assert_snapshot!(image_with(&|image| image.behind = vec![1]), @"error: `FOLDER/images/a.nii` holds more bytes than the voxels that its header tells of");
    insta::assert_snapshot!(image_with(&|image| image.behind = vec![0; 5000]), @"error: `FOLDER/images/a.nii` holds more bytes than the voxels that its header tells of");
    insta::assert_snapshot!(image_with(&|image| image.scaling[1] = f32::NAN), @"error: `FOLDER/images/a.nii` has slope 1 and intercept NaN (`scl_slope`, `scl_inter`), expected finite numbers");
    insta::assert_snapshot!(image_with(&|image| image.extents = vec![4, 3, 1, 2]), @"error: `FOLDER/images/a.nii` has dimensions [4, 3, 1, 2], expected two or three");
    insta::assert_snapshot!(image_with(&|image| image.extents = vec![32767; 3]), @"error: `FOLDER/images/a.nii` has dimensions [32767, 32767, 32767], expected at most 1073741824 voxels");
    insta::assert_snapshot!(image_with(&|image| image.stored = 128), @"error: `FOLDER/images/a.nii` holds colours (RGB), expected integers of 8 to 64 bits, or floats of 32 or 64");
    insta::assert_snapshot!(image_with(&|image| image.stored = 32), @"error: `FOLDER/images/a.nii` holds complex numbers, expected integers of 8 to 64 bits, or floats of 32 or 64");
    insta::assert_snapshot!(image_with(&|image| {
        (image.pixdim[1], image.sform) = (0.0, None);
    }), @"error: `FOLDER/images/a.nii` has voxel spacing 0, expected more than 0");
}

#[test]
fn what_is_no_nifti_is_called_what_it_is() {
    let said =
        |bytes: &[u8]| refused(bytes, &scribble().bytes()).lines().next().unwrap().to_owned();
    let mut second = image().bytes();
    second[..4].copy_from_slice(&540i32.to_le_bytes());
    insta::assert_snapshot!(said(&second), @"error: `FOLDER/images/a.nii` is cut off: it holds 400 of the 540 bytes of its header");
    second.resize(600, 0);
    insta::assert_snapshot!(said(&second), @"error: `FOLDER/images/a.nii` has a damaged mark of NIfTI-2, expected `n+2` or `ni2` and line ends");
    let mut pair = image().bytes();
    pair[344..348].copy_from_slice(b"ni1\0");
    insta::assert_snapshot!(said(&pair), @"error: `FOLDER/images/a.nii` is a header whose voxels lie in a file beside it, and there is no `FOLDER/images/a.img`");
    insta::assert_snapshot!(said(b"NRRD0004"), @"error: `FOLDER/images/a.nii` has no `type`, expected integers of 8 to 64 bits, or floats of 32 or 64");
    insta::assert_snapshot!(said(b""), @"error: `FOLDER/images/a.nii` is empty, expected NIfTI, NRRD, MetaImage, PNG, JPEG, BMP, TIFF, NumPy, DICOM or HDF5 of WSL4MIS");
    insta::assert_snapshot!(said(b"version https://git-lfs.github.com/spec/v1"), @"error: `FOLDER/images/a.nii` is only a pointer of Git LFS to the file, expected NIfTI, NRRD, MetaImage, PNG, JPEG, BMP, TIFF, NumPy, DICOM or HDF5 of WSL4MIS");
    insta::assert_snapshot!(said(&image().bytes()[..100]), @"error: `FOLDER/images/a.nii` is cut off: it holds 100 of the 348 bytes of its header");
}

#[test]
fn compressed_files_are_read_to_their_end() {
    let (bytes, scribble) = (image().bytes(), scribble().bytes());
    let (first, second) = bytes.split_at(370);
    let members = [gzip(first), gzip(&[]), gzip(second)].concat();
    assert_eq!(pair(&members, &scribble).unwrap().0, plain());
    let padded = [gzip(&bytes), vec![0; 512]].concat();
    assert_eq!(pair(&padded, &scribble).unwrap().0, plain());
    let whole = gzip(&bytes);
    let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        let said = refused(&bytes, &scribble);
        assert!(
            said.starts_with("error: `FOLDER/images/a.nii` is damaged\n  caused by: "),
            "{said}"
        );
    };
    let last = whole.len() - 1;
    damaged(&|bytes| bytes[last - 7] ^= 1); // Checksum.
    damaged(&|bytes| bytes[last] ^= 1); // Length.
    damaged(&|bytes| bytes.truncate(last - 2));
    damaged(&|bytes| bytes.extend(b"garbage"));
    damaged(&|bytes| bytes.extend([0, 0, 1]));
    damaged(&|bytes| bytes.extend(&gzip(b"")[..9]));
    // Far more than a header of 48 bytes of voxels tells of: refused without being held.
    let bomb = [bytes, vec![0; 64 << 20]].concat();
    assert!(refused(&gzip(&bomb), &scribble).contains("holds more bytes than the voxels"));
}

#[test]
fn labels_stored_along_other_axes_are_turned_to_lie_on_their_image() {
    let expected = plain();
    for axes in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for bits in 0..8 {
            let labels = stored_along(&scribble(), axes, [1, 2, 4].map(|bit| bits & bit > 0));
            let (case, notes) = pair(&image().bytes(), &labels.bytes()).unwrap();
            assert_eq!(case, expected, "{axes:?} {bits}");
            let as_stored = axes == [0, 1, 2] && bits == 0;
            assert_eq!(notes.is_empty(), as_stored, "{axes:?} {bits}: {notes:?}");
            assert!(
                as_stored
                    || notes[0]
                        == "labels that are stored with other axes than their image were turned to lie on it: `FOLDER/scribbles/a.nii`"
            );
        }
    }
}

#[test]
fn sform_and_qform_are_compared_as_what_they_say() {
    // No rotation, in the place of `straight`.
    let qform = Some([0.0, 0.0, 0.0, -20.0, 30.0, 5.0]);
    let by_qform = |file: File| File { sform: None, qform, ..file };
    let mirrored = stored_along(&scribble(), [0, 1, 2], [true, false, false]);
    for image in [image(), by_qform(image()), File { qform, ..image() }] {
        for qfac in [0.0, 1.0] {
            let mut labels = by_qform(scribble());
            labels.pixdim[0] = qfac;
            let (case, notes) = pair(&image.bytes(), &labels.bytes()).unwrap();
            assert_eq!((case, notes), (plain(), vec![]));
        }
        assert_eq!(pair(&image.bytes(), &mirrored.bytes()).unwrap().0, plain());
    }
    // Half a turn about z: x and y run back, as many scanners store it. The quaternion is a little long.
    let turned = stored_along(&scribble(), [0, 1, 2], [true, true, false]);
    let origin = turned.sform.unwrap().map(|row| row[3]);
    let qform = Some([0.0, 0.0, 1.000_000_1, origin[0], origin[1], origin[2]]);
    let turned = File { sform: None, qform, ..turned };
    assert_eq!(pair(&image().bytes(), &turned.bytes()).unwrap().0, plain());
    // A matrix of zeros places nothing, whatever its code says.
    let nowhere = File { sform: Some([[0.0; 4]; 3]), ..by_qform(scribble()) };
    let (case, notes) = pair(&image().bytes(), &nowhere.bytes()).unwrap();
    assert_eq!(case, plain());
    assert_eq!(
        notes,
        [
            "the sform of the header is no placement in the scanner and was passed over: `FOLDER/scribbles/a.nii`"
        ]
    );
}

#[test]
fn labels_that_lie_elsewhere_are_refused_in_words() {
    let with = |change: &dyn Fn(&mut File)| {
        let mut labels = scribble();
        change(&mut labels);
        refused(&image().bytes(), &labels.bytes()).lines().next().unwrap().to_owned()
    };
    let sform = |file: &mut File, change: &dyn Fn(&mut [[f32; 4]; 3])| {
        let mut matrix = straight();
        change(&mut matrix);
        file.sform = Some(matrix);
    };
    insta::assert_snapshot!(with(&|file| sform(file, &|matrix| matrix[1][3] += 12.5)), @"error: `FOLDER/scribbles/a.nii` is shifted by 12.50 mm against its image (6.25 rows), expected at most 0.1 voxels");
    // The header says that x runs back, the voxels are the same: somewhere it was lost.
    insta::assert_snapshot!(with(&|file| sform(file, &|matrix| matrix[0][0] = -1.5)), @"error: `FOLDER/scribbles/a.nii` has columns that run the other way than those of its image, from the same first voxel, expected it on its image");
    insta::assert_snapshot!(with(&|file| sform(file, &|matrix| {
        (matrix[0][0], matrix[0][3], matrix[1][1], matrix[1][3]) = (-1.5, 20.0, -2.0, -30.0);
    })), @"error: `FOLDER/scribbles/a.nii` lies on its image with left and right, front and back exchanged, as where LPS was taken for RAS, expected it on its image");
    insta::assert_snapshot!(with(&|file| sform(file, &|matrix| {
        (matrix[0][0], matrix[0][3]) = (-1.5, 30.0);
    })), @"error: `FOLDER/scribbles/a.nii` is shifted by 45.50 mm against its image (30.33 columns), with columns stored the other way round, expected at most 0.1 voxels");
    insta::assert_snapshot!(with(&|file| sform(file, &|matrix| {
        (matrix[0][0], matrix[0][1]) = (1.5 * 0.8, -2.0 * 0.6);
        (matrix[1][0], matrix[1][1]) = (1.5 * 0.6, 2.0 * 0.8);
    })), @"error: `FOLDER/scribbles/a.nii` is turned against its image by 36.9 degrees, expected the same axes");
    insta::assert_snapshot!(with(&|file| {
        sform(file, &|matrix| matrix[2][2] = 7.0);
        file.pixdim[3] = 7.0;
    }), @"error: `FOLDER/scribbles/a.nii` has spacing [7.0, 2.0, 1.5], expected [8.0, 2.0, 1.5] as its image has");
    insta::assert_snapshot!(with(&|file| {
        file.extents = vec![4, 3, 1];
        file.values.truncate(12);
    }), @"error: `FOLDER/scribbles/a.nii` has shape [1, 3, 4], expected [2, 3, 4] as its image has");
    // Rounding of headers passes, half a voxel does not.
    let (near, far) = (0.05f32, 0.5f32);
    let mut labels = scribble();
    sform(&mut labels, &|matrix| matrix[0][3] += near);
    assert_eq!(pair(&image().bytes(), &labels.bytes()).unwrap().0, plain());
    sform(&mut labels, &|matrix| matrix[0][3] += far);
    assert!(pair(&image().bytes(), &labels.bytes()).is_err());
    // Two descriptions in one file that differ.
    let labels = File { sform: None, qform: Some([0.0, 0.0, 0.0, -20.0, 40.0, 5.0]), ..scribble() };
    let image = File { qform: labels.qform, ..image() };
    insta::assert_snapshot!(refused(&image.bytes(), &labels.bytes()), @r"
    error: `FOLDER/scribbles/a.nii` is shifted by 10.00 mm against its image (5.00 rows), expected at most 0.1 voxels

    hint: `FOLDER/images/a.nii` has an sform and a qform that differ, and the sform is what counts; one of them is wrong
    ");
}

#[test]
fn labels_that_do_not_say_where_they_lie_are_taken_with_a_word() {
    let nowhere = File { sform: None, ..scribble() };
    let (case, notes) = pair(&image().bytes(), &nowhere.bytes()).unwrap();
    assert_eq!(case, plain());
    assert_eq!(
        notes,
        [
            "labels or their image do not say where they lie in the scanner; that they lie on each other could not be checked: `FOLDER/scribbles/a.nii`"
        ]
    );
    assert!(pair(&image().bytes(), &File { pixdim: [1.0; 4], ..nowhere.clone() }.bytes()).is_ok());
    let other = File { pixdim: [1.0, 1.0, 2.0, 8.0], ..nowhere };
    assert!(refused(&image().bytes(), &other.bytes()).contains("has spacing [8.0, 2.0, 1.0]"));
}

#[test]
fn a_single_slice_needs_no_third_dimension_and_no_spacing_across() {
    let flat = |file: File| File {
        extents: vec![4, 3],
        values: file.values[..12].to_vec(),
        pixdim: [1.0, 1.5, 2.0, 0.0],
        sform: None,
        ..file
    };
    let (case, _) = pair(&flat(image()).bytes(), &flat(scribble()).bytes()).unwrap();
    assert_eq!(
        (case.scan.grid.shape, case.scan.grid.spacing_mm),
        ([1, 3, 4], Some([1.0, 2.0, 1.5]))
    );
    assert_eq!(case.annotations[SCRIBBLE], plain().annotations[SCRIBBLE][..12]);
    let single = |spacing: f32| File {
        extents: vec![4, 3, 1],
        pixdim: [1.0, 1.5, 2.0, spacing],
        ..flat(scribble())
    };
    for spacing in [0.0, f32::NAN, -3.0, 8.0] {
        let (case, _) = pair(&flat(image()).bytes(), &single(spacing).bytes()).unwrap();
        assert_eq!(case.scan.grid.shape, [1, 3, 4]);
    }
}

#[test]
fn labels_are_rounded_within_what_their_storage_explains() {
    // As nibabel stores 0, 1 and 9 in 8 bits, where only the slope can tell them apart.
    let slope = 9.0f32 / 255.0;
    let steps = |file: &File| file.values.iter().map(|v| (v / f64::from(slope)).floor()).collect();
    let labels =
        File { stored: 2, scaling: [slope, 0.0], values: steps(&scribble()), ..scribble() };
    let (case, notes) = pair(&image().bytes(), &labels.bytes()).unwrap();
    assert_eq!(case, plain());
    assert!(
        notes[0]
            .starts_with("labels that are no whole numbers were rounded: `FOLDER/scribbles/a.nii`")
    );
    let scaled = |factor: f64| {
        let values = scribble().values.iter().map(|value| value * factor).collect();
        File { stored: 64, values, ..scribble() }.bytes()
    };
    assert_eq!(pair(&image().bytes(), &scaled(0.9999)).unwrap().0, plain());
    insta::assert_snapshot!(refused(&image().bytes(), &scaled(0.8)), @"error: `FOLDER/scribbles/a.nii` holds label 0.8 in slice 0 at row 0, column 1, expected 0 to 1 or 9 for unlabelled");
}

#[test]
fn classes_and_unlabelled_pixels_may_have_any_values() {
    let values = |map: [f64; 3]| {
        let value = |v: &f64| map[[0.0, 1.0, 9.0].iter().position(|w| w == v).unwrap()];
        scribble().values.iter().map(value).collect::<Vec<f64>>()
    };
    for (map, classes, unlabelled) in [
        ([1.0, 2.0, 0.0], ["1=background", "2=lesion"], 0),
        ([0.0, 1.0, -1.0], ["background", "lesion"], -1),
        ([85.0, 170.0, 1000.0], ["85=background", "170=lesion"], 1000),
    ] {
        let mut place = Place::new();
        place.write("images/a.nii", &image().bytes());
        place.write("scribbles/a.nii", &file(&values(map)).bytes());
        place.folders.classes = classes.map(String::from).to_vec();
        let path = place.folder.path().join("scribbles");
        place.folders.scribbles = Some(ScribbleFolder { path, unlabelled });
        // Dense labels have their own numbers.
        let dense = scribble().values.iter().map(|v| f64::from(*v == 1.0)).collect::<Vec<_>>();
        place.write("dense/a.nii", &file(&dense).bytes());
        place.folders.dense = Some(place.folder.path().join("dense"));
        place.folders.dense_classes = Some(["1=lesion", "0=background"].map(String::from).to_vec());
        let case = place.read().unwrap().0.remove(0);
        assert_eq!(case.annotations[SCRIBBLE], plain().annotations[SCRIBBLE]);
        assert_eq!(case.annotations[DENSE][..6], [0, 1, 1, 0, 1, 0]);
    }
}

#[test]
fn names_of_other_conventions_are_understood_and_nothing_is_left_out() {
    let mut place = Place::new();
    let (image, scribble) = (image().bytes(), scribble().bytes());
    place.write("images/a.nii.gz", &gzip(&image));
    place.write("scribbles/a.nii", &scribble);
    place.write("images/b_0000.NII.GZ", &gzip(&image));
    place.write("scribbles/b.nii.gz", &gzip(&scribble));
    place.write("images/._a.nii.gz", b"macOS");
    place.write("images/readme.txt", b"hello");
    let (cases, notes) = place.read().unwrap();
    assert!(cases.iter().map(|case| &*case.name).eq(["a", "b"]));
    assert_eq!(
        notes,
        [
            "passed over, for its name is not that of an image or of labels: `FOLDER/images/readme.txt`"
        ]
    );

    let refusal_with = |place: &Place, path: &str| {
        let path = place.write(path, &image);
        let refusal = place.refusal();
        fs::remove_file(path).unwrap();
        refusal
    };
    insta::assert_snapshot!(refusal_with(&place, "images/b_0001.nii.gz"), @r"
    error: case `b` has 2 channels, expected 1 as `a` has

    hint: channels of a case are `NAME_0000.nii.gz`, `NAME_0001.nii.gz` and so on
    ");
    insta::assert_snapshot!(refusal_with(&place, "images/b_0002.nii.gz"), @r"
    error: case `b` has no channel `b_0001`, and a later one, `FOLDER/images/b_0002.nii.gz`

    hint: add the missing channel, or move the later ones away
    ");
    place.folders.dense = Some(place.folder.path().join("dense"));
    insta::assert_snapshot!(refusal_with(&place, "images/a.nii"), @r"
    error: `FOLDER/images/a.nii` and `FOLDER/images/a.nii.gz` have the same name, expected one file of each

    hint: remove or rename one of them
    ");
    insta::assert_snapshot!(refusal_with(&place, "scribbles/c.nii"), @r"
    error: scribbles `FOLDER/scribbles/c.nii` have no image

    hint: put the image into `FOLDER/images`, or move them away
    ");
    insta::assert_snapshot!(refusal_with(&place, "images/c.nii.gz"), @r"
    error: image `FOLDER/images/c.nii.gz` has neither scribbles nor dense labels

    hint: looked for `FOLDER/scribbles/c.nii.gz`, `FOLDER/scribbles/c.nii`, `FOLDER/dense/c.nii.gz`, `FOLDER/dense/c.nii`
    hint: move the image away if nobody drew on it
    ");
    insta::assert_snapshot!(refusal_with(&place, "scribbles/c.gipl"), @r"
    error: `FOLDER/scribbles/c.gipl` looks like data and would be left out, expected names that end in `.nii.gz`, `.nii`, `.hdr`, `.hdr.gz`, `.seg.nrrd`, `.nrrd`, `.nhdr`, `.mha`, `.mhd`, `.png`, `.bmp`, `.tif`, `.tiff`, `.npy` or `.npz`

    hint: save or rename it as NIfTI, or move it away
    ");
    insta::assert_snapshot!(place.refusal(), @r"
    error: no image has dense labels

    hint: dense labels need the names of the images; leave `--dense` out if there are none
    ");
}

#[test]
fn channels_lie_on_each_other_and_have_names() {
    let mut place = Place::new();
    let other = file(&(0..VOXELS).map(|voxel| (voxel * voxel) as f64).collect::<Vec<_>>());
    place.write("images/a_0000.nii", &image().bytes());
    // Stored the other way round, which is undone.
    place.write(
        "images/a_0001.nii.gz",
        &gzip(&stored_along(&other, [2, 0, 1], [true, false, true]).bytes()),
    );
    place.write("scribbles/a.nii", &scribble().bytes());
    let named = |place: &Place| {
        let source = own_data::open(&place.folders).unwrap();
        let channels = source.preparation.clone().unwrap().channels.into_iter();
        channels.map(|channel| channel.name).collect::<Vec<_>>()
    };
    assert_eq!(named(&place), ["0000", "0001"]);
    place.folders.modalities = Some(["t1", "t2"].map(String::from).to_vec());
    assert_eq!(named(&place), ["t1", "t2"]);
    let (mut cases, notes) = place.read().unwrap();
    let found = cases.remove(0);
    let alone = |image: &File| pair(&image.bytes(), &scribble().bytes()).unwrap().0.scan;
    let [first, second] = [alone(&image()), alone(&other)];
    assert_eq!((found.scan.channels, &found.scan.grid), (2, &first.grid));
    let slices = [first.slice(0), second.slice(0), first.slice(1), second.slice(1)];
    assert_eq!(found.scan.voxels, slices.concat());
    assert_eq!(
        notes,
        [
            "channels that are stored with other axes than the first were turned to lie on it: `FOLDER/images/a_0001.nii.gz`"
        ]
    );
    place.folders.modalities = Some(["t1", "t2", "flair"].map(String::from).to_vec());
    insta::assert_snapshot!(place.refusal(), @r"
    error: case `a` has 2 channels, expected 3 as `--modalities t1,t2,flair` names

    hint: channels of a case are `NAME_0000.nii.gz`, `NAME_0001.nii.gz` and so on
    ");
    place.folders.modalities = None;
    let mut shifted = straight();
    shifted[0][3] += 3.0;
    place.write("images/a_0001.nii.gz", &File { sform: Some(shifted), ..other }.bytes());
    insta::assert_snapshot!(place.refusal(), @r"
    error: cannot take `FOLDER/images/a_0001.nii.gz` as a channel beside `FOLDER/images/a_0000.nii`
      caused by: `FOLDER/images/a_0001.nii.gz` is shifted by 3.00 mm against its image (2.00 columns), expected at most 0.1 voxels

    hint: resample it onto the grid of the other channel
    ");
}

#[test]
fn patients_are_never_split_and_those_without_dense_labels_are_not_held_out() {
    let mut place = Place::new();
    let names: Vec<String> =
        (0..12).map(|number| format!("p{:02}_t{}", number / 2, number % 2)).collect();
    for name in &names {
        place.write(&format!("images/{name}.nii"), &image().bytes());
        place.write(&format!("scribbles/{name}.nii"), &scribble().bytes());
    }
    let folds = |place: &Place| {
        let (cases, notes) = place.read().unwrap();
        (cases.iter().map(|case| case.fold).collect::<Vec<_>>(), notes)
    };
    let sizes = |folds: &[u32]| {
        (0..=6).map(|fold| folds.iter().filter(|&&of| of == fold).count()).collect::<Vec<_>>()
    };
    let (alone, notes) = folds(&place);
    assert_eq!(sizes(&alone), [0, 3, 3, 2, 2, 2, 0]);
    assert!(notes[0].starts_with("these look like several scans of one patient"), "{notes:?}");
    place.folders.patients = Some("^(p[0-9]+)_".into());
    let (whole, notes) = folds(&place);
    assert!(whole.chunks(2).all(|scans| scans[0] == scans[1]), "{whole:?}");
    assert_eq!((sizes(&whole), notes), (vec![0, 4, 2, 2, 2, 2, 0], vec![]));

    let dense = scribble().values.iter().map(|v| f64::from(*v == 1.0)).collect::<Vec<_>>();
    for name in names.iter().filter(|name| *name != "p02_t1") {
        place.write(&format!("dense/{name}.nii"), &file(&dense).bytes());
    }
    place.folders.dense = Some(place.folder.path().join("dense"));
    let (without, notes) = folds(&place);
    assert_eq!(without[4..6], [0, 0]);
    assert_eq!(sizes(&without), [2, 2, 2, 2, 2, 2, 0]);
    assert_eq!(notes, ["without dense labels, so that its patient is never held out: `p02_t1`"]);
    place.folders.folding = Folding { folds: Some(2), test_share: Some(0.4), seed: 3 };
    assert_eq!(sizes(&folds(&place).0), [2, 4, 2, 4, 0, 0, 0]);
}

#[test]
fn what_is_there_to_test_with_is_never_learnt_from() {
    let mut place = Place::new();
    let dense = scribble().values.iter().map(|v| f64::from(*v == 1.0)).collect::<Vec<_>>();
    for name in ["a", "b", "c", "d"] {
        place.write(&format!("images/{name}.nii"), &image().bytes());
        place.write(&format!("dense/{name}.nii"), &file(&dense).bytes());
    }
    for name in ["a", "b", "d"] {
        place.write(&format!("scribbles/{name}.nii"), &scribble().bytes());
    }
    place.folders.dense = Some(place.folder.path().join("dense"));
    place.folders.cases = Some(place.write("cases.csv", b"case;part\na;\nb;\nc;\nd;test\n"));
    let source = own_data::open(&place.folders).unwrap();
    let notes = source.notes.clone();
    assert!(source.provenance.ends_with("1 to test with in fold 4; drawn with seed 1."));
    let dataset = source.collect().unwrap();
    assert_eq!(dataset.test_fold, Some(4));
    let held: Vec<_> = dataset.held_out(4).unwrap().iter().map(|case| &*case.name).collect();
    assert_eq!(held, ["d"]);
    assert!(dataset.cases[3].annotations.keys().eq([DENSE]));
    assert_eq!(
        notes.take(),
        [
            "scribbles of cases to test with are left out, so that nothing learns from them: `d`",
            "without scribbles, so that only runs on dense labels learn from it: `c`",
        ]
    );
    let learnt = |fold: u32, annotation: &str| {
        let slices = scrimp::data::stream::training_slices(&dataset, fold, annotation);
        slices.iter().map(|(case, _)| &*dataset.cases[*case].name).collect::<BTreeSet<_>>()
    };
    assert!(learnt(0, SCRIBBLE).into_iter().eq(["a", "b"]));
    for fold in 0..=4 {
        assert!(!learnt(fold, DENSE).contains("d"), "{fold}");
    }
    assert!(learnt(4, DENSE).into_iter().eq(["a", "b", "c"]));
    let path = place.folder.path().join("set.h5");
    scrimp::data::store::write(&path, &dataset).unwrap();
    assert_eq!(scrimp::data::store::read(&path).unwrap(), dataset);
    // Dense labels alone will do, and scribbles that nobody names are not looked for.
    place.folders.scribbles = None;
    let (cases, notes) = place.read().unwrap();
    assert!(cases.iter().all(|case| case.annotations.keys().eq([DENSE])) && notes.is_empty());
    // What is foreground, dense labels say then.
    let fixed = scrimp::data::import::Steps {
        scaling: vec![scrimp::preparation::Scaling::ByForeground],
        ..scrimp::data::import::Steps::default()
    };
    place.folders.steps = fixed;
    assert!(place.read().is_ok());
}

#[test]
fn a_table_and_the_labels_of_a_case_name_the_same_classes() {
    let mut place = Place::new();
    place.folders.classes = ["background", "lesion", "vessel"].map(String::from).to_vec();
    place.write("images/a.nii", &image().bytes());
    place.write("scribbles/a.nii", &scribble().bytes());
    let mut table = |text: &str| {
        place.folders.cases = Some(place.write("cases.csv", text.as_bytes()));
        place.read().map(|(cases, _)| cases).map_err(|failure| place.clean(&failure.to_string()))
    };
    assert!(table("case,classes\na,lesion\n").is_ok());
    insta::assert_snapshot!(table("case,classes\na,vessel\n").unwrap_err(), @r"
    error: `scribble` of case `a` shows `lesion`, which is not among its `classes` in the table of cases

    hint: add the class there, or remove it from the labels
    ");
    insta::assert_snapshot!(table("case,classes\nb,vessel\na,\n").unwrap_err(), @r"
    error: line 2 of the table `FOLDER/cases.csv` names case `b`, of which there is no image

    hint: add its image, or remove the line
    ");
    insta::assert_snapshot!(table("case\n").unwrap_err(), @r"
    error: the table `FOLDER/cases.csv` has no cases

    hint: give it a line for each case
    ");
    place.write("images/b.nii", &image().bytes());
    place.write("scribbles/b.nii", &scribble().bytes());
    place.folders.cases = Some(place.write("cases.csv", b"case,patient\na,p\n"));
    insta::assert_snapshot!(place.refusal(), @r"
    error: case `b` has no line in the table `FOLDER/cases.csv`

    hint: give it one: in `case` stands the name of its files, here `b`
    ");
    place.folders.patients = Some("^(.)".into());
    insta::assert_snapshot!(place.refusal(), @r"
    error: `--patients` is given, and the table of cases has a column `patient`

    hint: leave `--patients` out, or remove the column
    ");
}

#[test]
fn images_whose_slices_seem_to_lie_elsewhere_are_named() {
    let image = File { pixdim: [1.0, 8.0, 1.5, 2.0], sform: None, ..image() };
    let labels = File { sform: None, pixdim: image.pixdim, ..scribble() };
    let (_, notes) = pair(&image.bytes(), &labels.bytes()).unwrap();
    assert!(
        notes.iter().any(|note| note.starts_with("slices seem to lie along columns")),
        "{notes:?}"
    );
}

#[test]
fn the_command_tells_what_is_annotated_and_refuses_what_cannot_be_meant() {
    let place = Place::new();
    place.write("images/a.nii", &image().bytes());
    place.write("images/b.nii", &image().bytes());
    place.write("scribbles/a.nii", &scribble().bytes());
    place.write("scribbles/b.nii", &file(&[9.0; VOXELS]).bytes());
    let run = |unlabelled: &str, to: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_scrimp"));
        command.current_dir(place.folder.path());
        command.args(["prepare", "own-data", "--images", "images", "--scribbles", "scribbles"]);
        command.args([
            "--classes",
            "background,lesion,vessel",
            "--unlabelled",
            unlabelled,
            "--to",
            to,
        ]);
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let (code, stdout, stderr) = run("9", "set.h5");
    assert_eq!(code, 0, "{stderr}");
    let told = &stdout[stdout.find("scribble ").unwrap()..];
    insta::assert_snapshot!(told, @r"
    scribble    cases  slices  voxels  of annotated
    background      1       1       3       42.86 %
    lesion          1       2       4       57.14 %
    vessel          0       0       0        0.00 %
    annotated are 14.58 % of the voxels, 2 of 4 slices, 1 of 2 cases

    warning: nothing is annotated in `scribble`: `b`
    warning: no pixel of any case is `vessel` in `scribble`
    warning: the same image stands under several names: `a` = `b`
    warning: nothing is left to train on while these folds are held out: 1
    note: no case has annotation `dense`, so that nothing can be scored: train with `data.fold = 0`
    ");
    assert_eq!(stderr, "");
    for name in ["a", "b"] {
        place.write(&format!("scribbles/{name}.nii"), &file(&[0.0; VOXELS]).bytes());
    }
    let (code, _, stderr) = run("-1", "other.h5");
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("every pixel of every case is `background`"), "{stderr}");
    assert!(!Path::new(&place.folder.path().join("other.h5")).exists());
}
