//! Scans and labels as files: what is read lies where it lay, and what is written lies on its image.

use crate::nifti_files::{File, gzip, image, scribble, stored_along, straight};
use image::{DynamicImage, ExtendedColorType, GrayImage, ImageEncoder, Luma, Rgb, RgbImage};
use proptest::prelude::*;
use scrimp::scan::{
    Coding, FORMATS, Grid, IGNORE, LabelWriter, MapWriter, Notes, Placement, read, read_grid,
    read_labels,
};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn notes() -> Notes {
    Notes::default()
}

/// The same image in every way in which a header says where it lies, with the name of its file.
fn variants() -> Vec<(&'static str, File)> {
    let oblique = [[1.2, -1.2, 0.4, -20.0], [0.9, 1.6, -0.3, 30.0], [0.05, 0.2, 7.9, 5.0]];
    let quaternion = Some([0.1, 0.2, 0.3, -20.0, 30.0, 5.0]);
    let by_qform = File { sform: None, qform: quaternion, ..image() };
    let mirrored = File { pixdim: [-1.0, 1.5, 2.0, 8.0], ..by_qform.clone() };
    let metres = |row: [f32; 4]| row.map(|cell| cell / 1000.0);
    let flat =
        |file: File| File { extents: vec![4, 3], values: file.values[..12].to_vec(), ..file };
    vec![
        ("straight.nii", image()),
        ("packed.nii.gz", image()),
        ("oblique.nii.gz", File { sform: Some(oblique), ..image() }),
        ("flipped.nii", stored_along(&image(), [0, 1, 2], [true, false, true])),
        ("turned.nii", stored_along(&image(), [2, 0, 1], [false, true, false])),
        ("qform.nii", by_qform.clone()),
        ("mirrored.nii.gz", mirrored),
        ("both.nii", File { qform: quaternion, ..image() }),
        ("big-endian.nii.gz", File { big_endian: true, sform: Some(oblique), ..image() }),
        ("scaled.nii", File { scaling: [2.5, -100.0], stored: 2, ..image() }),
        ("four.nii", File { extents: vec![4, 3, 2, 1, 1], ..image() }),
        ("flat.nii", flat(image())),
        ("flat-qform.nii", flat(by_qform)),
        ("nowhere.nii", File { sform: None, ..image() }),
        (
            "metres.nii",
            File {
                units: 1,
                sform: Some(straight().map(metres)),
                pixdim: [1.0, 0.0015, 0.002, 0.008],
                ..image()
            },
        ),
    ]
}

fn write(folder: &Path, name: &str, file: &File) -> PathBuf {
    let path = folder.join(name);
    let is_compressed = path.extension().is_some_and(|ending| ending == "gz");
    let bytes = if is_compressed { gzip(&file.bytes()) } else { file.bytes() };
    fs::write(&path, bytes).unwrap();
    path
}

fn unpacked(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return bytes;
    }
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*bytes), &mut all).unwrap();
    all
}

/// Labels of classes 0 to 2, none of them symmetric.
fn labels(grid: &Grid) -> Vec<u8> {
    (0..grid.voxels()).map(|voxel| (voxel * voxel / 3 % 3) as u8).collect()
}

#[test]
fn labels_and_maps_lie_where_their_image_lies() {
    let folder = TempDir::new().unwrap();
    for (name, file) in variants() {
        let path = write(folder.path(), name, &file);
        let scan = read(&path, &notes()).unwrap();
        let grid = &scan.grid;
        for to in ["labels.nii.gz", "labels.nii"] {
            let to = folder.path().join(to);
            let expected = labels(grid);
            let mut writer = LabelWriter::create(&to, grid, Some(&path)).unwrap();
            expected.chunks(grid.pixels()).for_each(|slice| writer.append(slice).unwrap());
            writer.finish().unwrap();
            let found = read_labels(&to, &Coding::classes(3), &notes()).unwrap();
            assert_eq!((&found.grid, &found.values), (grid, &expected), "{name}");
            let image = read_grid(&path, &notes()).unwrap();
            let on_image = image.labels_at(&to, &Coding::classes(3), &notes()).unwrap();
            assert_eq!(on_image, found, "{name}");
            // All that speaks of place and dimensions is the image's, byte by byte.
            let (ours, theirs) = (unpacked(&to), unpacked(&path));
            for part in [0..56, 74..108, 120..124, 132..140, 148..328] {
                assert_eq!(ours[part.clone()], theirs[part.clone()], "{name} {part:?}");
            }
            assert_eq!(ours.len(), 352 + expected.len());
        }
        let to = folder.path().join("map.nii.gz");
        let mut writer = MapWriter::create(&to, grid, Some(&path)).unwrap();
        writer.append(&scan.voxels).unwrap();
        writer.finish().unwrap();
        assert_eq!(read(&to, &notes()).unwrap(), scan, "{name}");
    }
}

#[test]
fn places_are_those_that_the_standard_means() {
    let folder = TempDir::new().unwrap();
    let grid = |name: &str| {
        let (_, file) = variants().into_iter().find(|(other, _)| *other == name).unwrap();
        read_grid(&write(folder.path(), name, &file), &notes()).unwrap().grid
    };
    let straight = grid("straight.nii");
    let placement = straight.placement.unwrap();
    assert_eq!(straight.spacing_mm, Some([8.0, 2.0, 1.5]));
    assert_eq!(placement.direction, [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]);
    assert_eq!(straight.position_mm([1.0, 2.0, 3.0]), Some([-15.5, 34.0, 13.0]));
    // The same voxel, which is stored elsewhere.
    let flipped = grid("flipped.nii");
    assert_eq!(flipped.position_mm([0.0, 2.0, 0.0]), Some([-15.5, 34.0, 13.0]));
    assert_eq!(grid("nowhere.nii").placement, None);
    // Of the quaternion (0.1, 0.2, 0.3): the first column of its rotation is 0.74, 0.596417, -0.310945.
    let by_qform = grid("qform.nii").position_mm([0.0, 0.0, 2.0]).unwrap();
    for (found, expected) in by_qform.into_iter().zip([-17.78, 31.789_25, 4.067_17]) {
        assert!((found - expected).abs() < 1e-4, "{by_qform:?}");
    }
}

#[test]
fn labels_of_another_order_are_turned_onto_a_grid_and_those_of_another_place_refused() {
    let folder = TempDir::new().unwrap();
    let grid = read_grid(&write(folder.path(), "a.nii", &image()), &notes()).unwrap();
    let coding = Coding::classes(2).or_unlabelled(9);
    let at = |name: &str, file: &File| {
        let said = notes();
        let labels = grid.labels_at(&write(folder.path(), name, file), &coding, &said);
        (labels, said.take().len())
    };
    let (plain, said) = at("plain.nii", &scribble());
    let turned = stored_along(&scribble(), [2, 0, 1], [true, false, true]);
    assert_eq!((plain.unwrap(), said + 1), {
        let (turned, said) = at("turned.nii.gz", &turned);
        (turned.unwrap(), said)
    });
    let mut sform = straight();
    sform[2][3] += 4.0;
    let failure = at("moved.nii", &File { sform: Some(sform), ..scribble() }).0.unwrap_err();
    let said = "is shifted by 4.00 mm against its image (0.50 slices), expected at most 0.1 voxels";
    assert!(failure.message().ends_with(said), "{failure}");
}

/// Slices, rows, columns of a rotation that turns by three angles.
fn rotation([a, b, c]: [f64; 3]) -> [[f64; 3]; 3] {
    let (sa, ca, sb, cb, sc, cc) = (a.sin(), a.cos(), b.sin(), b.cos(), c.sin(), c.cos());
    [
        [ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc],
        [sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc],
        [-sb, cb * sc, cb * cc],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_written_of_any_grid_is_read_again(
        shape in prop::array::uniform3(1usize..5),
        spacing_mm in prop::array::uniform3(0.3f64..9.0),
        angles in prop::array::uniform3(-3.0f64..3.0),
        origin_mm in prop::array::uniform3(-300.0f64..300.0),
        is_placed: bool,
        mirrored: bool,
    ) {
        let mut direction = rotation(angles);
        if mirrored {
            direction[1] = direction[1].map(|part| -part);
        }
        let placement = is_placed.then_some(Placement { direction, origin_mm });
        let grid = Grid { shape, spacing_mm: Some(spacing_mm), placement };
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.nii.gz");
        let mut writer = LabelWriter::create(&path, &grid, None).unwrap();
        writer.append(&labels(&grid)).unwrap();
        writer.finish().unwrap();
        let found = read_labels(&path, &Coding::classes(3), &notes()).unwrap();
        prop_assert_eq!(&found.values, &labels(&grid));
        prop_assert_eq!((found.grid.shape, found.grid.placement.is_some()), (shape, is_placed));
        for (found, expected) in found.grid.spacing_mm.unwrap().into_iter().zip(spacing_mm) {
            prop_assert!((found - expected).abs() < 1e-5);
        }
        let last = shape.map(|extent| extent as f64 - 1.0);
        for voxel in [[0.0; 3], last] {
            let [found, expected] = [&found.grid, &grid].map(|grid| grid.position_mm(voxel));
            prop_assert_eq!(found.is_some(), is_placed);
            let pairs = found.into_iter().flatten().zip(expected.into_iter().flatten());
            pairs.for_each(|(found, expected)| assert!((found - expected).abs() < 1e-4));
        }
    }
}

fn png(picture: &DynamicImage, orientation: Option<u8>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    if let Some(orientation) = orientation {
        let exif =
            [b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".as_slice(), &[orientation, 0, 0]];
        encoder.set_exif_metadata(exif.concat()).unwrap();
    }
    let (width, height) = (picture.width(), picture.height());
    let colour: ExtendedColorType = picture.color().into();
    encoder.write_image(picture.as_bytes(), width, height, colour).unwrap();
    bytes
}

#[test]
fn labels_of_a_picture_are_a_picture_that_lies_as_it_is_shown() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    // Three columns and two rows, shown upright: turned by a quarter.
    let grey =
        DynamicImage::ImageLuma8(GrayImage::from_fn(3, 2, |x, y| Luma([(10 * x + y) as u8])));
    fs::write(at("a.png"), png(&grey, Some(6))).unwrap();
    let scan = read(&at("a.png"), &notes()).unwrap();
    assert_eq!((scan.channels, scan.grid.shape), (1, [1, 3, 2]));
    assert_eq!(scan.voxels, [1.0, 0.0, 11.0, 10.0, 21.0, 20.0]);
    assert_eq!(read_grid(&at("a.png"), &notes()).unwrap().grid, scan.grid);
    let format = FORMATS.iter().find(|format| format.name == "PNG").unwrap();
    let to = at(&format!("a-labels{}", format.labels_ending));
    let mut writer = LabelWriter::create(&to, &scan.grid, Some(&at("a.png"))).unwrap();
    writer.append(&[0, 1]).unwrap();
    writer.append(&[2, 0, 0, 1]).unwrap();
    assert!(!to.exists());
    writer.finish().unwrap();
    let shown = image::open(&to).unwrap();
    assert_eq!((shown.width(), shown.height(), shown.as_bytes()), (2, 3, &[0, 1, 2, 0, 0, 1][..]));
    let coding = Coding::classes(2).or_unlabelled(2);
    let image = read_grid(&at("a.png"), &notes()).unwrap();
    assert_eq!(image.labels_at(&to, &coding, &notes()).unwrap().values, [0, 1, IGNORE, 0, 0, 1]);
    let colours = DynamicImage::ImageRgb8(RgbImage::from_fn(2, 3, |x, _| Rgb([x as u8, 7, 7])));
    fs::write(at("colours.png"), png(&colours, None)).unwrap();
    let scan = read(&at("colours.png"), &notes()).unwrap();
    assert_eq!(
        (scan.channels, &scan.voxels[..8]),
        (3, &[0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 7.0, 7.0][..])
    );
    let failure = read_labels(&at("colours.png"), &coding, &notes()).unwrap_err();
    assert!(
        failure.message().ends_with(
            "is coloured in slice 0 at row 0, column 0, expected grey levels that are labels"
        ),
        "{failure}"
    );
}

#[test]
fn a_file_is_there_when_it_is_whole_and_never_in_the_place_of_another_image() {
    let folder = TempDir::new().unwrap();
    let path = write(folder.path(), "a.nii", &image());
    let grid = read_grid(&path, &notes()).unwrap().grid;
    let to = folder.path().join("labels.nii.gz");
    let said = |failure: scrimp::error::Failure| {
        failure.message().replace(folder.path().to_str().unwrap(), "FOLDER")
    };
    let begun = || {
        let mut writer = LabelWriter::create(&to, &grid, Some(&path)).unwrap();
        writer.append(&[1; 20]).unwrap();
        writer
    };
    assert_eq!(
        said(begun().finish().unwrap_err()),
        "4 voxels of `FOLDER/labels.nii.gz` are missing"
    );
    assert_eq!(
        said(begun().append(&[1; 5]).unwrap_err()),
        "1 voxels too many for `FOLDER/labels.nii.gz`"
    );
    drop(begun());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left half-written");
    let create = |grid: &Grid, name: &str| {
        let made = LabelWriter::create(&folder.path().join(name), grid, Some(&path));
        said(made.err().expect("it was taken"))
    };
    let other = Grid::unplaced([2, 4, 3], None);
    assert_eq!(
        create(&other, "labels.nii.gz"),
        "`FOLDER/a.nii` has shape [2, 3, 4], expected [2, 4, 3] of what is to lie on it"
    );
    assert_eq!(
        create(&grid, "labels.png"),
        "`FOLDER/labels.png` is a picture, which cannot hold 2 slices"
    );
    assert_eq!(
        create(&grid, "labels.gipl"),
        "cannot write `FOLDER/labels.gipl`, expected a name that ends in `.nii.gz`, `.nii`, `.mha`, `.seg.nrrd`, `.tif` or `.png`"
    );
}
