//! Folders of diseased and healthy pictures: which case comes from which file, and what is refused.

use crate::data::text;
use crate::skips::skipped;
use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
use image::{
    ColorType, DynamicImage, GrayImage, ImageEncoder, ImageFormat, Luma, Rgb, RgbImage,
    save_buffer_with_format,
};
use scrimp::data::import::Source;
use scrimp::data::import::label_transfer::{Package, open};
use scrimp::data::{Case, DENSE, Dataset, IMAGE_LABEL, store};
use scrimp::error::Result;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

fn path(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
}

/// A picture of 32 x 32 pixels whose colours say where they are, and how `bright` it is.
fn picture(folder: &Path, name: &str, bright: u8) {
    let pixel = |x: u32, y: u32| Rgb([x as u8 * 4, y as u8 * 4, bright]);
    RgbImage::from_fn(32, 32, pixel).save(path(folder, name)).unwrap();
}

/// A mask of 32 x 32 pixels: `lesion` in the left quarter, else 0.
fn mask(folder: &Path, name: &str, lesion: u8) {
    let pixel = |x: u32, _y| Luma([if x < 8 { lesion } else { 0 }]);
    GrayImage::from_fn(32, 32, pixel).save(path(folder, name)).unwrap();
}

/// Two diseased, two healthy, one to validate and one to test.
fn package() -> TempDir {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    for (name, bright) in [
        ("2_A_weak/a.png", 10),
        ("2_A_weak/deeper/b.png", 20),
        ("2_B_weak/a.png", 30),
        ("2_B_weak/c_health.jpg", 40),
        ("val/images/d.png", 50),
        ("test/images/e.png", 60),
        ("testB/f.png", 70),
    ] {
        picture(root, name, bright);
    }
    mask(root, "val/labels/d_segmentation.png", 255);
    mask(root, "test/labels/e_segmentation.png", 128);
    folder
}

fn import(folder: &Path, size: usize, test_only: bool) -> Result<(Dataset, Vec<String>)> {
    let (source, warnings) = open(&Package { folder: folder.to_owned(), size, test_only })?;
    let count = source.case_count;
    let dataset = Source::collect(source)?;
    assert_eq!(dataset.test_fold, Some(2));
    assert_eq!(dataset.cases.len(), count);
    Ok((dataset, warnings))
}

/// How many pixels of a held-out case are lesion.
fn lesion_pixels(case: &Case) -> usize {
    case.annotations[DENSE].iter().map(|&label| usize::from(label)).sum()
}

#[test]
fn pictures_to_train_on_have_image_labels_and_the_others_masks() {
    let folder = package();
    let (dataset, warnings) = import(folder.path(), 32, false).unwrap();
    let described = dataset.cases.iter().map(|case| {
        case.check(dataset.classes.len()).unwrap();
        assert_eq!((case.scan.grid.shape, case.scan.channels), ([1, 32, 32], 3));
        let kinds: Vec<_> =
            case.annotations.iter().map(|(kind, l)| (kind.as_str(), l[0])).collect();
        (case.name.as_str(), case.patient.as_str(), case.fold, kinds)
    });
    assert_eq!(
        described.collect::<Vec<_>>(),
        [
            ("test-e", "e", 2, vec![(DENSE, 1)]),
            ("train-diseased-a", "a", 0, vec![(IMAGE_LABEL, 1)]),
            ("train-diseased-b", "b", 0, vec![(IMAGE_LABEL, 1)]),
            ("train-healthy-a", "a", 0, vec![(IMAGE_LABEL, 0)]),
            ("train-healthy-c_health", "c", 0, vec![(IMAGE_LABEL, 0)]),
            ("val-d", "d", 1, vec![(DENSE, 1)]),
        ]
    );
    assert_eq!(warnings, [""; 0]);
    let image = &dataset.cases[1].scan.voxels;
    // Column 3, row 2, and the brightness of the picture, plane by plane.
    let pixel = [0, 1, 2].map(|channel| (image[channel * 1024 + 2 * 32 + 3] * 255.0).round() as u8);
    assert_eq!(pixel, [12, 8, 10]);
    assert_eq!(lesion_pixels(&dataset.cases[5]), 256);
}

#[test]
fn pictures_and_masks_are_resized_and_packed_in_colour() {
    let folder = package();
    let (dataset, _) = import(folder.path(), 16, false).unwrap();
    assert_eq!((dataset.cases[0].scan.grid.shape, dataset.channels()), ([1, 16, 16], 3));
    let lesion = &dataset.cases[5].annotations[DENSE];
    assert!((0..256).all(|i| lesion[i] == u8::from(i % 16 < 4)));
    let file = folder.path().join("set.h5");
    store::write(&file, &dataset).unwrap();
    assert_eq!(store::read(&file).unwrap(), dataset);
}

#[test]
fn patients_in_two_parts_are_told() {
    let folder = package();
    picture(folder.path(), "2_A_weak/Brats18_CBICA_AAP_1_flair.nii_90.png", 1);
    picture(folder.path(), "val/images/Brats18_CBICA_AAP_1_flair.nii_95.png", 1);
    mask(folder.path(), "val/labels/Brats18_CBICA_AAP_1_flair.nii_95_segmentation.png", 255);
    picture(folder.path(), "2_B_weak/e_health.jpg", 1);
    let (_, warnings) = import(folder.path(), 32, false).unwrap();
    assert_eq!(
        warnings,
        [
            "patient `Brats18_CBICA_AAP_1` is in both training and val: scores come out too good",
            "patient `e` is in both training and test: scores come out too good",
        ]
    );
}

/// What is said after `damage` was done to a sound package.
fn damaged(test_only: bool, damage: impl FnOnce(&Path)) -> String {
    let folder = package();
    damage(folder.path());
    text(import(folder.path(), 32, test_only), folder.path())
}

fn remove(path: &'static str) -> impl FnOnce(&Path) {
    move |folder: &Path| match folder.join(path) {
        path if path.is_dir() => fs::remove_dir_all(path).unwrap(),
        path => fs::remove_file(path).unwrap(),
    }
}

#[test]
fn folders_that_are_missing_empty_or_there_twice_are_named() {
    insta::assert_snapshot!(damaged(false, remove("2_B_weak")), @r"
    error: there is no `trainB` with healthy pictures to train on in `FOLDER`

    hint: `--from` takes the folder with `trainA` and `trainB` (or `563_A_weak` and `563_B_weak`) in it, and `val` and `testA`, each with `images` such as `a.png` and `labels` such as `a_segmentation.png`
    hint: to pack `val` and `testA` alone, for evaluation, add `--test-only`
    ");
    insta::assert_snapshot!(damaged(false, remove("val")), @r"
    error: there is no `val` with pictures and masks to measure with in `FOLDER`

    hint: `--from` takes the folder with `trainA` and `trainB` (or `563_A_weak` and `563_B_weak`) in it, and `val` and `testA`, each with `images` such as `a.png` and `labels` such as `a_segmentation.png`
    ");
    insta::assert_snapshot!(damaged(false, remove("val/labels")), @r"
    error: cannot list `FOLDER/val/labels`
      caused by: No such file or directory (os error 2)

    hint: `--from` takes the folder with `trainA` and `trainB` (or `563_A_weak` and `563_B_weak`) in it, and `val` and `testA`, each with `images` such as `a.png` and `labels` such as `a_segmentation.png`
    ");
    insta::assert_snapshot!(damaged(true, |folder| {
        remove("val")(folder);
        remove("test")(folder);
    }), @r"
    error: there is neither `val` nor `testA` with pictures and masks to measure with in `FOLDER`

    hint: `--from` takes the folder with `trainA` and `trainB` (or `563_A_weak` and `563_B_weak`) in it, and `val` and `testA`, each with `images` such as `a.png` and `labels` such as `a_segmentation.png`
    ");
    insta::assert_snapshot!(damaged(false, |folder| {
        remove("2_A_weak/a.png")(folder);
        remove("2_A_weak/deeper/b.png")(folder);
    }), @r"
    error: no pictures in `FOLDER/2_A_weak`

    hint: looked for files that end in `.png`, `.jpg` or `.jpeg`
    ");
    insta::assert_snapshot!(damaged(false, |folder| {
        remove("2_B_weak/a.png")(folder);
        remove("2_B_weak/c_health.jpg")(folder);
    }), @r"
    error: no pictures in `FOLDER/2_B_weak`

    hint: looked for files that end in `.png`, `.jpg` or `.jpeg`
    ");
    insta::assert_snapshot!(damaged(false, |folder| picture(folder, "testA/images/g.png", 1)), @r"
    error: both `test` and `testA` are in `FOLDER`, expected one of them

    hint: move one of them elsewhere
    ");
    insta::assert_snapshot!(damaged(false, |folder| picture(folder, "trainA/g.png", 1)), @r"
    error: both `2_A_weak` and `trainA` are in `FOLDER`, expected one of them

    hint: move one of them elsewhere
    ");
    let folder = package();
    let nowhere = folder.path().join("nowhere");
    insta::assert_snapshot!(text(import(&nowhere, 32, false), folder.path()), @r"
    error: cannot list `FOLDER/nowhere`
      caused by: No such file or directory (os error 2)

    hint: `--from` takes the folder with `trainA` and `trainB` (or `563_A_weak` and `563_B_weak`) in it, and `val` and `testA`, each with `images` such as `a.png` and `labels` such as `a_segmentation.png`
    ");
    insta::assert_snapshot!(text(import(folder.path(), 8, false), folder.path()), @r"
    error: pictures cannot be resized to 8 pixels, expected 16 to 8192

    hint: give another one, for example `--size 256`
    ");
}

#[test]
fn a_package_without_training_folders_can_be_evaluated_on() {
    let folder = package();
    remove("2_A_weak")(folder.path());
    remove("2_B_weak")(folder.path());
    let names = |test_only| {
        let (dataset, _) = import(folder.path(), 32, test_only).unwrap();
        dataset.cases.into_iter().map(|case| case.name).collect::<Vec<_>>()
    };
    assert_eq!(names(true), ["test-e", "val-d"]);
    remove("val")(folder.path());
    assert_eq!(names(true), ["test-e"]);
}

#[test]
fn pictures_and_masks_without_the_other_are_named() {
    insta::assert_snapshot!(damaged(false, |folder| picture(folder, "val/images/g.png", 1)), @r"
    error: picture `FOLDER/val/images/g.png` has no mask

    hint: looked for `g_segmentation.png` in `FOLDER/val/labels`
    ");
    insta::assert_snapshot!(damaged(false, |folder| mask(folder, "test/labels/g_segmentation.png", 255)), @r"
    error: mask `FOLDER/test/labels/g_segmentation.png` has no picture

    hint: put the picture into `FOLDER/test/images`, or remove the mask
    ");
    insta::assert_snapshot!(damaged(false, |folder| picture(folder, "2_A_weak/deeper/a.jpg", 1)), @"error: `FOLDER/2_A_weak/a.png` and `FOLDER/2_A_weak/deeper/a.jpg` have the same name, expected one file of each");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let cut = |name: &'static str, share: f64| {
        move |folder: &Path| {
            let path = folder.join(name);
            let bytes = fs::read(&path).unwrap();
            fs::write(path, &bytes[..(bytes.len() as f64 * share) as usize]).unwrap();
        }
    };
    insta::assert_snapshot!(damaged(false, cut("2_A_weak/a.png", 0.7)), @r"
    error: cannot read `FOLDER/2_A_weak/a.png` as PNG, JPEG or BMP, expected a whole file
      caused by: unexpected end of file
    ");
    // Within its tables, and within its pixels.
    for share in [0.5, 0.95] {
        let said = damaged(false, cut("2_B_weak/c_health.jpg", share));
        insta::allow_duplicates! { insta::assert_snapshot!(said, @r"
        error: cannot read `FOLDER/2_B_weak/c_health.jpg` as PNG, JPEG or BMP, expected a whole file
          caused by: the file ends before its image does
        "); }
    }
    insta::assert_snapshot!(damaged(false, |folder| {
        fs::write(folder.join("2_A_weak/a.png"), "no picture").unwrap();
    }), @r"
    error: `FOLDER/2_A_weak/a.png` begins as no format that is read, expected NIfTI, NRRD, MetaImage, PNG, JPEG, BMP, TIFF, NumPy, DICOM or HDF5 of WSL4MIS

    hint: save it in one of these formats
    ");
    insta::assert_snapshot!(damaged(false, |folder| {
        fs::write(folder.join("2_A_weak/g.bmp"), "BM").unwrap();
    }), @r"
    error: `FOLDER/2_A_weak/g.bmp` is not named as PNG or JPEG, expected 8-bit pictures of these kinds

    hint: turn it into PNG with the ending `.png`, or move it elsewhere
    ");
    insta::assert_snapshot!(damaged(false, |folder| {
        let (path, bytes) = (folder.join("2_A_weak/a.png"), [7; 32 * 32 * 6]);
        save_buffer_with_format(path, &bytes, 32, 32, ColorType::Rgb16, ImageFormat::Png).unwrap();
    }), @r"
    error: `FOLDER/2_A_weak/a.png` has a pixel of level 1799, expected 8 bits for each colour

    hint: turn it into 8 bits, for example by `magick FILE -depth 8 FILE`
    ");
}

#[test]
fn masks_that_are_none_are_named() {
    const MASK: &str = "val/labels/d_segmentation.png";
    insta::assert_snapshot!(damaged(false, |folder| picture(folder, MASK, 255)), @"error: `FOLDER/val/labels/d_segmentation.png` is coloured at row 0, column 0, expected a mask from 0, background, to 255, lesion");
    insta::assert_snapshot!(damaged(false, |folder| mask(folder, MASK, 1)), @r"
    error: the brightest pixel of `FOLDER/val/labels/d_segmentation.png` is 1, expected a mask from 0, background, to 255, lesion

    hint: write lesions as 255, for example by multiplying a mask of 0 and 1 by 255
    ");
    insta::assert_snapshot!(damaged(false, |folder| {
        GrayImage::new(32, 31).save(folder.join(MASK)).unwrap();
    }), @"error: `FOLDER/val/labels/d_segmentation.png` has 32 x 31 pixels, expected 32 x 32 as its image has");
}

#[test]
fn the_command_says_what_it_packed_and_who_is_in_two_parts() {
    let folder = package();
    picture(folder.path(), "2_B_weak/e_health.jpg", 1);
    let to = folder.path().join("set.h5");
    let mut command = Command::new(env!("CARGO_BIN_EXE_scrimp"));
    command.args(["prepare", "label-transfer", "--size", "32", "--from"]).arg(folder.path());
    let output = command.arg("--to").arg(&to).output().unwrap();
    let clean = |bytes: &[u8]| {
        let text =
            String::from_utf8_lossy(bytes).replace(folder.path().to_str().unwrap(), "FOLDER");
        text.split(" (").next().unwrap().to_owned()
    };
    assert!(output.status.success(), "{}", clean(&output.stderr));
    assert_eq!(clean(&output.stdout), "packed 7 cases with 7 slices into `FOLDER/set.h5`");
    assert_eq!(
        clean(&output.stderr),
        "warning: patient `e` is in both training and test: scores come out too good\n"
    );
    assert_eq!(store::read(&to).unwrap().cases.len(), 7);
}

#[test]
fn the_samples_of_the_published_folders_can_be_evaluated_on() {
    let Some(folder) = std::env::var_os("SCRIMP_DATA_DIR") else {
        skipped("SCRIMP_DATA_DIR does not say where real data are");
        return;
    };
    let folder = PathBuf::from(folder).join("MedImgSeg_samples");
    for (name, shares, patients) in [
        ("ISIC/isic_1", 0.08..0.45, None),
        (
            "BraTS/brats_1",
            0.009..0.063,
            Some("patient `Brats18_CBICA_AOO_1` is in both val and test"),
        ),
    ] {
        let folder = folder.join(name);
        let refused = text(import(&folder, 256, false), &folder);
        assert!(refused.contains("no `trainA`") && refused.contains("--test-only"), "{refused}");
        let (dataset, warnings) = import(&folder, 256, true).unwrap();
        assert_eq!((dataset.cases.len(), warnings.len()), (16, patients.iter().len()));
        assert!(patients.is_none_or(|sentence| warnings[0].starts_with(sentence)), "{warnings:?}");
        for case in &dataset.cases {
            case.check(2).unwrap();
            let share = lesion_pixels(case) as f64 / 65_536.0;
            assert!(shares.contains(&share), "{}: {share}", case.name);
        }
    }
}

/// Exif data that say nothing but the orientation, the most significant byte first or last.
fn exif(orientation: u8, big_endian: bool) -> Vec<u8> {
    let word = |value: u16| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let long = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let order = if big_endian { b"MM" } else { b"II" };
    let [short, orientation] = [3, u16::from(orientation)].map(word);
    [order, &word(42)[..], &long(8), &word(1), &word(0x112), &short, &long(1), &orientation]
        .into_iter()
        .chain([&[0; 6][..]])
        .flatten()
        .copied()
        .collect()
}

/// Encodes `pixels` with an orientation, as the ending of the name says.
fn turned(folder: &Path, name: &str, pixels: &DynamicImage, exif: Vec<u8>) {
    let mut file = fs::File::create(path(folder, name)).unwrap();
    let (bytes, kind) = (pixels.as_bytes(), pixels.color().into());
    let (columns, rows) = (pixels.width(), pixels.height());
    if Path::new(name).extension().is_some_and(|ending| ending == "png") {
        let mut encoder = PngEncoder::new(&mut file);
        encoder.set_exif_metadata(exif).unwrap();
        encoder.write_image(bytes, columns, rows, kind).unwrap();
    } else {
        let mut encoder = JpegEncoder::new_with_quality(&mut file, 100);
        encoder.set_exif_metadata(exif).unwrap();
        encoder.write_image(bytes, columns, rows, kind).unwrap();
    }
}

#[test]
fn pictures_and_masks_are_turned_as_viewers_show_them() {
    let folder = package();
    let brightness = |row: usize, column: usize| (row * 4 + column) as u8;
    let stored = GrayImage::from_fn(32, 32, |x, y| Luma([brightness(y as usize, x as usize)]));
    let lesion = GrayImage::from_fn(32, 32, |x, _| Luma([if x < 8 { 255 } else { 0 }]));
    let (stored, lesion) = (DynamicImage::from(stored), DynamicImage::from(lesion));
    // Where in the file the pixel comes from that is shown in a row and column (Exif 2.3, 4.6.4 A).
    let from = |orientation: u8, row: usize, column: usize| match orientation {
        2 => (row, 31 - column),
        3 => (31 - row, 31 - column),
        4 => (31 - row, column),
        5 => (column, row),
        6 => (31 - column, row),
        7 => (31 - column, 31 - row),
        8 => (column, 31 - row),
        _ => (row, column),
    };
    remove("2_A_weak/deeper/b.png")(folder.path());
    for (orientation, big_endian) in (0..=9).map(|number| (number, number % 2 == 0)) {
        let exif = || exif(orientation, big_endian);
        turned(folder.path(), "2_A_weak/a.png", &stored, exif());
        turned(folder.path(), "2_A_weak/b.jpg", &stored, exif());
        turned(folder.path(), "val/labels/d_segmentation.png", &lesion, exif());
        let (dataset, _) = import(folder.path(), 32, false).unwrap();
        let [png, jpeg] = [1, 2].map(|case| &dataset.cases[case].scan.voxels);
        let truth = &dataset.cases[5].annotations[DENSE];
        for pixel in 0..1024 {
            let (row, column) = from(orientation, pixel / 32, pixel % 32);
            let expected = f32::from(brightness(row, column)) / 255.0;
            assert_eq!(png[pixel], expected, "orientation {orientation}");
            assert!((jpeg[pixel] - expected).abs() < 0.02, "orientation {orientation}");
            assert_eq!(truth[pixel], u8::from(column < 8), "orientation {orientation}");
        }
    }
}

/// Writes a PNG file by hand: its kind, what stands before its pixels, and these.
fn png(
    path: &Path,
    kind: (png::ColorType, png::BitDepth),
    pixels: &[u8],
    more: impl FnOnce(&mut png::Encoder<fs::File>),
) {
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), 32, 32);
    encoder.set_color(kind.0);
    encoder.set_depth(kind.1);
    more(&mut encoder);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
}

#[test]
fn palettes_and_few_bits_are_what_they_show() {
    let folder = package();
    let mask = folder.path().join("val/labels/d_segmentation.png");
    let is_lesion = |pixel: usize| pixel % 32 < 8;
    let check = |what: &str| {
        let (dataset, _) = import(folder.path(), 32, false).unwrap();
        let truth = &dataset.cases[5].annotations[DENSE];
        assert!((0..1024).all(|pixel| truth[pixel] == u8::from(is_lesion(pixel))), "{what}");
    };
    // Number 0 is white here, and 1 is black.
    let indices: Vec<u8> = (0..1024).map(|pixel| u8::from(!is_lesion(pixel))).collect();
    png(&mask, (png::ColorType::Indexed, png::BitDepth::Eight), &indices, |encoder| {
        encoder.set_palette(vec![255, 255, 255, 0, 0, 0]);
    });
    check("palette");
    let bits: Vec<u8> = (0..128).map(|byte| if byte % 4 == 0 { 0xff } else { 0 }).collect();
    png(&mask, (png::ColorType::Grayscale, png::BitDepth::One), &bits, |_| ());
    check("1 bit");
    let opaque: Vec<u8> =
        (0..1024).flat_map(|pixel| [if is_lesion(pixel) { 255 } else { 0 }, 255]).collect();
    png(&mask, (png::ColorType::GrayscaleAlpha, png::BitDepth::Eight), &opaque, |_| ());
    check("opaque");
}

#[test]
fn what_viewers_show_in_different_ways_is_refused() {
    const MASK: &str = "val/labels/d_segmentation.png";
    let grey = (png::ColorType::Grayscale, png::BitDepth::Eight);
    insta::assert_snapshot!(damaged(false, |folder| {
        // White on white that nobody sees.
        let pixels: Vec<u8> = (0..1024).flat_map(|pixel| [255, if pixel < 40 { 255 } else { 0 }]).collect();
        png(&folder.join(MASK), (png::ColorType::GrayscaleAlpha, png::BitDepth::Eight), &pixels, |_| ());
    }), @r"
    error: `FOLDER/val/labels/d_segmentation.png` is transparent at row 1, column 8, where each viewer shows something else

    hint: fill what lies behind, for example by `magick FILE -background black -alpha remove FILE`
    ");
    insta::assert_snapshot!(damaged(false, |folder| {
        png(&folder.join("2_A_weak/a.png"), (png::ColorType::Indexed, png::BitDepth::Eight), &[1; 1024], |encoder| {
            encoder.set_palette(vec![0, 0, 0, 9, 9, 9]);
            encoder.set_trns(vec![255, 7]);
        });
    }), @r"
    error: `FOLDER/2_A_weak/a.png` is transparent at row 0, column 0, where each viewer shows something else

    hint: fill what lies behind, for example by `magick FILE -background black -alpha remove FILE`
    ");
    let digits = exif(6, false).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
    let profile = digits.concat();
    for (keyword, text) in [
        ("XML:com.adobe.xmp", r#"<rdf:Description tiff:Orientation="6"/>"#.to_owned()),
        ("Raw profile type exif", format!("\nexif\n      32\n457869660000{profile}\n")),
    ] {
        let said = damaged(false, |folder| {
            png(&folder.join("2_A_weak/a.png"), grey, &[9; 1024], |encoder| {
                encoder.add_ztxt_chunk(keyword.into(), text).unwrap();
            });
        });
        insta::allow_duplicates! { insta::assert_snapshot!(said, @r"
    error: `FOLDER/2_A_weak/a.png` says how it is to be turned in a way that not all viewers understand

    hint: turn its pixels for good, for example by `magick FILE -auto-orient -strip FILE`
    "); }
    }
    insta::assert_snapshot!(damaged(false, |folder| {
        png(&folder.join("2_A_weak/a.png"), grey, &[9; 1024], |encoder| encoder.set_animated(1, 0).unwrap());
    }), @r"
    error: `FOLDER/2_A_weak/a.png` is animated, expected one picture

    hint: save the frame that is meant as a picture of its own
    ");
}

#[test]
fn a_small_file_that_says_it_is_large_is_refused() {
    for extent in [65_537, 20_000, (1 << 31) - 1] {
        let said = damaged(false, |folder| {
            let file = fs::File::create(folder.join("2_A_weak/a.png")).unwrap();
            let mut writer = png::Encoder::new(file, extent, extent).write_header().unwrap();
            writer.write_chunk(png::chunk::IDAT, &[0; 16]).unwrap();
        });
        insta::allow_duplicates! { insta::assert_snapshot!(said, @r"
    error: `FOLDER/2_A_weak/a.png` is too large, expected at most 65536 rows and columns and 67108864 pixels
      caused by: Image size exceeds limit
    "); }
    }
}

#[test]
fn what_is_not_taken_is_named_and_what_looks_like_data_is_refused() {
    let folder = package();
    let root = folder.path();
    for name in [
        "2_A_weak/Thumbs.db",
        "val/images/._d.png",
        "val/labels/.git/x.png",
        "notes.txt",
        "Test/a.png",
    ] {
        fs::write(path(root, name), "x").unwrap();
    }
    // A folder that holds itself is listed once.
    std::os::unix::fs::symlink("..", root.join("2_A_weak/deeper/again")).unwrap();
    let package = Package { folder: root.to_owned(), size: 32, test_only: false };
    let (source, warnings) = open(&package).unwrap();
    assert_eq!((source.case_count, warnings), (6, vec![]));
    let left_out = source.notes.take_left_out().into_iter();
    let left_out: Vec<String> = left_out
        .map(|one| format!("{} {}", one.why, one.what.replace(root.to_str().unwrap(), ".")))
        .collect();
    assert_eq!(
        left_out,
        [
            "healthy pictures are not scored `./testB/f.png`",
            "it belongs to no part `./Test`",
            "it belongs to no part `./notes.txt`",
            "it belongs to no part `./2_A_weak/Thumbs.db`",
            "it belongs to no part `./val/images/._d.png`",
            "it belongs to no part `./val/labels/.git`",
        ]
    );

    let first = |folder: &Path| folder.join("2_A_weak/a.png");
    insta::assert_snapshot!(damaged(false, |folder| {
        fs::rename(first(folder), folder.join("2_A_weak/picture")).unwrap();
    }), @r"
    error: `FOLDER/2_A_weak/picture` is not named as PNG or JPEG, expected 8-bit pictures of these kinds

    hint: turn it into PNG with the ending `.png`, or move it elsewhere
    ");
    insta::assert_snapshot!(damaged(false, |folder| {
        use std::os::unix::ffi::OsStrExt;
        fs::rename(first(folder), folder.join(std::ffi::OsStr::from_bytes(b"2_A_weak/\xe4.png"))).unwrap();
    }), @r"
    error: the name of `FOLDER/2_A_weak/�.png` is no UTF-8, expected names that every system reads alike

    hint: rename it
    ");
    insta::assert_snapshot!(damaged(false, |folder| {
        fs::remove_file(first(folder)).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, first(folder), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    }), @r"
    error: cannot open `FOLDER/2_A_weak/a.png`
      caused by: it is a named pipe, expected a file
    ");
}
