//! Files that programs of other people made, and what these read in them: the same numbers at the same places.
//!
//! `tests/data/formats/make.py` makes files and expectations anew.

use proptest::prelude::*;
use scrimp::scan::{
    Coding, Grid, IGNORE, LabelWriter, Notes, Placement, read, read_grid, read_labels, read_numbers,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/formats")
}

fn notes() -> Notes {
    Notes::default()
}

/// What another program read in each file, by its name.
fn expected() -> BTreeMap<String, Value> {
    serde_json::from_str(&fs::read_to_string(folder().join("expected.json")).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn assert_close(found: &[f64], expected: &[f64], most: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        let off = (found - expected).abs();
        assert!(off <= most * expected.abs().max(1.0), "{what}: {found}, expected {expected}");
    }
}

fn assert_lies(grid: &Grid, expected: &Value, name: &str) {
    let shape: Vec<f64> = grid.shape.iter().map(|&extent| extent as f64).collect();
    assert_eq!(shape, numbers(&expected["shape"]), "{name}");
    // NIfTI-1 has places in single precision.
    match &expected["spacing_mm"] {
        Value::Null => assert_eq!(grid.spacing_mm, None, "{name}"),
        spacing => assert_close(&grid.spacing_mm.unwrap(), &numbers(spacing), 1e-6, name),
    }
    let last = grid.shape.map(|extent| extent as f64 - 1.0);
    match &expected["corners_mm"] {
        Value::Null => assert_eq!(grid.placement, None, "{name}"),
        corners => {
            for (index, voxel) in [[0.0; 3], last].into_iter().enumerate() {
                let found = grid.position_mm(voxel).unwrap_or_else(|| panic!("{name}"));
                assert_close(&found, &numbers(&corners[index]), 1e-6, name);
            }
        }
    }
}

#[test]
fn images_of_other_programs_have_their_numbers_at_their_places() {
    let mut found = 0;
    for (name, expected) in expected() {
        if !expected["segments"].is_null() {
            continue;
        }
        let path = folder().join(&name);
        let scan = read(&path, &notes()).unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert_eq!(scan.channels as u64, expected["channels"].as_u64().unwrap(), "{name}");
        assert_lies(&scan.grid, &expected, &name);
        assert_eq!(read_grid(&path, &notes()).unwrap().note_oddities(&notes()), (), "{name}");
        let voxels = numbers(&expected["voxels"]);
        // Other programs compute in double precision what is single precision here.
        let single: Vec<f32> = voxels.iter().map(|&voxel| voxel as f32).collect();
        assert_eq!(scan.voxels, single, "{name}");
        if scan.channels == 1 || !expected["labels"].is_null() {
            // Not rounded, also where single precision would be; of palettes with colours the numbers.
            let labels =
                if expected["labels"].is_null() { voxels } else { numbers(&expected["labels"]) };
            assert_eq!(read_numbers(&path, &notes()).unwrap().values, labels, "{name}");
        } else {
            assert!(read_numbers(&path, &notes()).is_err(), "{name}");
        }
        found += 1;
    }
    assert!(found >= 85, "{found}");
}

#[test]
fn segments_are_told_by_their_names_and_lie_on_the_image_that_they_were_drawn_on() {
    let coding = Coding::classes(4).or_unlabelled(9).or_named(
        ["background", "liver", "spleen", "tumour"]
            .iter()
            .zip(0..)
            .map(|(n, c)| (n.to_string(), c)),
    );
    let image = read_grid(&folder().join("drawn-on.nrrd"), &notes()).unwrap();
    for (name, expected) in expected() {
        let Some(segments) = expected["segments"].as_array() else { continue };
        let path = folder().join(&name);
        let said = notes();
        let numbers = read_numbers(&path, &said).unwrap();
        assert_lies(numbers.grid(), &expected, &name);
        assert_eq!(segments.len(), numbers.segments().len());
        // Background, liver and tumour have labels 0, 1 and 3, whatever their numbers are.
        let mut part = vec![IGNORE; numbers.grid().voxels()];
        for (theirs, ours) in segments.iter().zip(numbers.segments()) {
            assert_eq!(theirs["name"], ours.name.as_str());
            let colour: Vec<f64> = ours.colour.unwrap().iter().map(|&p| f64::from(p)).collect();
            assert_close(&colour, &self::numbers(&theirs["colour"]), 1e-6, &name);
            let label = match &*ours.name {
                "background" => 0,
                "Liver" => 1,
                _ => 3,
            };
            for (voxel, is_painted) in self::numbers(&theirs["voxels"]).into_iter().enumerate() {
                if is_painted > 0.0 {
                    part[voxel] = label;
                }
            }
        }
        assert_eq!(said.take().len(), usize::from(segments.len() == 3), "shared voxels are told");
        // The file covers columns 2 to 5, rows 1 to 3 and slices 1 and 2 of 4 x 5 x 6 voxels.
        let mut whole = vec![IGNORE; 120];
        for (voxel, &label) in part.iter().enumerate() {
            let (slice, row, column) = (voxel / 12, voxel / 4 % 3, voxel % 4);
            whole[((slice + 1) * 5 + row + 1) * 6 + column + 2] = label;
        }
        let labels = image.labels_at(&path, &coding, &notes()).unwrap();
        assert_eq!(labels.values, whole, "{name}");
        // Without a value for what nobody drew, that is background.
        let dense = Coding::classes(4).or_named(
            ["background", "liver", "spleen", "tumour"]
                .iter()
                .zip(0..)
                .map(|(n, c)| (n.to_string(), c)),
        );
        let dense = image.labels_at(&path, &dense, &notes()).unwrap().values;
        assert_eq!(
            dense,
            whole.iter().map(|&l| if l == IGNORE { 0 } else { l }).collect::<Vec<_>>()
        );
        let failure =
            read_labels(&path, &Coding::classes(2).or_named([("spleen".into(), 1)]), &notes());
        let message = failure.unwrap_err().message().to_owned();
        assert!(message.contains("holds segment `"), "{message}");
        assert!(message.ends_with("expected `spleen`"), "{message}");
    }
}

/// A text header of these lines, with `behind` after it, under this name; the refusal of what reads it.
fn refusal(name: &str, header: &str, behind: &[u8]) -> String {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, [header.as_bytes(), behind].concat()).unwrap();
    let failure = read(&path, &notes()).err().unwrap_or_else(|| panic!("taken: {header}"));
    let said = failure.to_string().replace(folder.path().to_str().unwrap(), "FOLDER");
    // Which formats are read hangs on how the program was built.
    let said = said.lines().next().unwrap().split(", expected NIfTI").next().unwrap();
    said.trim_start_matches("error: ").to_owned()
}

const MHA: &str = "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementType = MET_UCHAR\nElementSpacing = 1 1 1\nElementDataFile = LOCAL\n";
const NRRD: &str =
    "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 3 2\nspacings: 1 1 1\nencoding: raw\n\n";

#[test]
fn damage_to_text_headers_is_named() {
    let mha = |from: &str, to: &str| {
        assert!(MHA.contains(from));
        refusal("a.mha", &MHA.replace(from, to), &[0; 24])
    };
    let nrrd = |from: &str, to: &str| {
        assert!(NRRD.contains(from));
        refusal("a.nrrd", &NRRD.replace(from, to), &[0; 24])
    };
    let said = [
        refusal("a.mha", MHA, &[0; 23]),
        refusal("a.mha", MHA, &[1; 25]),
        mha("4 3 2", "4 3"),
        mha("4 3 2", "4 3 0"),
        mha("4 3 2", "999999 999999 999999"),
        mha("NDims = 3", "NDims = 30"),
        mha("= Image", "= Tube"),
        mha("MET_UCHAR", "MET_STRING"),
        mha("1 1 1", "1 nan 1"),
        mha("1 1 1", "1 0 1"),
        mha("LOCAL", "LIST"),
        mha("LOCAL", "../b.raw"),
        mha("LOCAL", "/etc/passwd"),
        mha("LOCAL", "b.raw"),
        mha("ElementDataFile = LOCAL\n", ""),
        mha("NDims = 3\n", "NDims = 3\nTransformMatrix = 1 0 0 0 1 0 0 1 0\n"),
        mha("NDims = 3\n", "NDims = 3\nCompressedData = True\n"),
        mha("NDims = 3\n", "NDims = 3\nBinaryData = False\n"),
        mha("NDims = 3\n", "NDims = 3\nElementNumberOfChannels = 65\n"),
        refusal("a.nrrd", NRRD, &[0; 23]),
        nrrd("4 3 2", "4 3 2 1"),
        nrrd("4 3 2", "4 3 -2"),
        nrrd("4 3 2", "999999 999999 999999"),
        nrrd("uchar", "block"),
        nrrd("uchar", "short"),
        nrrd("raw", "bzip2"),
        nrrd("raw", "gzip"),
        nrrd("raw", "ascii"),
        nrrd("raw\n", "raw\nwhatever\n"),
        nrrd("raw\n", "raw\nbyte skip: -2\n"),
        nrrd("raw\n", "raw\ndata file: ../b.raw\n"),
        nrrd("raw\n", "raw\ndata file: LIST\nb.raw\n"),
        nrrd("spacings: 1 1 1", "space: 4D-something\nspace directions: (1,0,0) (0,1,0) (0,0,1)"),
        nrrd("spacings: 1 1 1", "space: LPS\nspace directions: (1,0,0) (0,1,0) (0,1,0)"),
        nrrd("spacings: 1 1 1", "space: LPS\nspace directions: none none (0,1,0)"),
        refusal("a.dcm", "", &[[0; 128].as_slice(), b"DICM", &[0; 20]].concat()),
    ];
    insta::assert_snapshot!(said.join("\n"));
    let bzip2 = read(&folder().join("refused-bzip2.nrrd"), &notes()).unwrap_err();
    assert!(bzip2.message().contains("`encoding: bzip2`"), "{bzip2}");
}

#[test]
fn arrays_that_are_none_are_refused_by_what_they_hold() {
    let said = |name: &str, bytes: &[u8]| {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let failure = read(&path, &notes()).unwrap_err().to_string();
        let said = failure.lines().next().unwrap().replace(folder.path().to_str().unwrap(), "");
        said.trim_start_matches("error: ").to_owned()
    };
    let stored = |name: &str| fs::read(folder().join(name)).unwrap();
    let (array, packed) = (stored("array-int32.npy"), stored("several.npz"));
    let mut flipped = stored("one.npz");
    let at = flipped.windows(6).position(|bytes| bytes == b"\x93NUMPY").unwrap() + 150;
    flipped[at] ^= 1;
    let all = [
        said("a.npy", &stored("refused-objects.npy")),
        said("a.npz", &stored("refused-names.npz")),
        said("a.npy", &array[..array.len() - 1]),
        said("a.npy", &array[..60]),
        said("a.npy", &[&array[..], &[1; 9]].concat()),
        said("a.npz", &packed[..packed.len() - 30]),
        said("a.npz", &flipped),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn segmentations_that_lie_elsewhere_are_refused_unless_nothing_is_painted() {
    let folder = TempDir::new().unwrap();
    let image = read_grid(&self::folder().join("drawn-on.nrrd"), &notes()).unwrap();
    let coding = Coding::classes(2).or_unlabelled(9).or_named([("a".to_owned(), 1)]);
    let at = |origin: &str, steps: &str, values: [u8; 4]| {
        let path = folder.path().join("a.seg.nrrd");
        let header = format!(
            "NRRD0004\ntype: uchar\ndimension: 3\nspace: LPS\nsizes: 4 1 1\nspace directions: {steps}\nspace origin: {origin}\nencoding: raw\nSegment0_Name:=a\nSegment0_LabelValue:=1\nSegment0_Layer:=0\n\n"
        );
        fs::write(&path, [header.as_bytes(), &values].concat()).unwrap();
        let labels = image.labels_at(&path, &coding, &notes());
        labels.map(|labels| labels.values).map_err(|failure| failure.message().to_owned())
    };
    let text = fs::read(self::folder().join("one-layer.seg.nrrd")).unwrap();
    let text = String::from_utf8_lossy(&text);
    let steps = text.lines().find_map(|line| line.strip_prefix("space directions: ")).unwrap();
    let origin = "(-12.25,30.5,7.125)";
    // Whole columns of the first row, of which the image has six.
    let found = at(origin, steps, [0, 1, 1, 0]).unwrap();
    assert_eq!(found[..6], [IGNORE, 1, 1, IGNORE, IGNORE, IGNORE]);
    let elsewhere = at("(0,0,0)", steps, [0, 1, 0, 0]).unwrap_err();
    assert!(elsewhere.contains("a.seg.nrrd"), "{elsewhere}");
    assert_eq!(at("(0,0,0)", steps, [0; 4]).unwrap(), [IGNORE; 120]);
    // Two columns before the first one.
    let first: Vec<f64> =
        steps[1..steps.find(')').unwrap()].split(',').map(|part| part.parse().unwrap()).collect();
    let before: Vec<String> = [-12.25, 30.5, 7.125]
        .iter()
        .zip(first)
        .map(|(place, step): (&f64, f64)| (place - 2.0 * step).to_string())
        .collect();
    let before = format!("({})", before.join(","));
    assert_eq!(at(&before, steps, [0, 0, 1, 0]).unwrap()[..2], [1, IGNORE]);
    let outside = at(&before, steps, [1, 1, 1, 0]).unwrap_err();
    assert!(outside.contains("has 2 painted voxels outside of its image"), "{outside}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn labels_come_back_from_every_format(
        shape in prop::array::uniform3(1usize..5),
        spacing_mm in prop::array::uniform3(0.3f64..9.0),
        angle in -3.0f64..3.0,
        origin_mm in prop::array::uniform3(-300.0f64..300.0),
        is_placed: bool,
        seed: u8,
    ) {
        let (sin, cos) = (angle.sin(), angle.cos());
        let direction = [[0.0, sin, cos], [1.0, 0.0, 0.0], [0.0, cos, -sin]];
        let placement = is_placed.then_some(Placement { direction, origin_mm });
        let grid = Grid { shape, spacing_mm: Some(spacing_mm), placement };
        let values: Vec<u8> =
            (0..grid.voxels()).map(|voxel| (voxel * voxel + usize::from(seed)) as u8 % 4).collect();
        let folder = TempDir::new().unwrap();
        for ending in [".mha", ".seg.nrrd", ".nii.gz", ".tif"] {
            let path = folder.path().join(format!("a{ending}"));
            let names = ["background", "a", "b\nc\\", "d"].map(String::from);
            let writer = LabelWriter::create(&path, &grid, None).unwrap();
            let mut writer = writer.named(&names);
            values.chunks(3).for_each(|labels| writer.append(labels).unwrap());
            writer.finish().unwrap();
            let found = read_labels(&path, &Coding::classes(4), &notes()).unwrap();
            prop_assert_eq!(&found.values, &values);
            let by_name = Coding::classes(1).or_named(
                names.iter().enumerate().map(|(class, name)| (name.trim().to_owned(), class as u8)),
            );
            if ending == ".seg.nrrd" {
                let found = read_labels(&path, &by_name, &notes()).unwrap();
                prop_assert_eq!(&found.values, &values);
            }
            let own = read_grid(&path, &notes()).unwrap().grid;
            prop_assert_eq!(own.shape, shape);
            prop_assert!(own.placement.is_some() || !is_placed || ending == ".tif");
            assert_close(&own.spacing_mm.unwrap(), &spacing_mm, 1e-6, ending);
            if ending == ".tif" {
                continue;
            }
            for voxel in [[0.0; 3], shape.map(|extent| extent as f64 - 1.0)] {
                if let Some(expected) = grid.position_mm(voxel) {
                    let most = if ending == ".nii.gz" { 1e-4 } else { 1e-12 };
                    assert_close(&own.position_mm(voxel).unwrap(), &expected, most, ending);
                }
            }
        }
    }
}

#[test]
fn what_is_written_other_programs_read() {
    // Kept as bytes that SimpleITK and slicerio were seen to read: tests/data/formats/judge.py.
    let folder = TempDir::new().unwrap();
    let direction = [[0.0, 0.6, 0.8], [1.0, 0.0, 0.0], [0.0, 0.8, -0.6]];
    let placement = Some(Placement { direction, origin_mm: [1.5, -2.0, 30.0] });
    let grid = Grid { shape: [2, 3, 4], spacing_mm: Some([4.5, 1.25, 0.5]), placement };
    let values: Vec<u8> = (0..24).map(|voxel| (voxel * voxel / 3 % 3) as u8).collect();
    let to = std::env::var_os("SCRIMP_FORMATS_TO").map_or(folder.path().to_owned(), PathBuf::from);
    for (ending, unpacked_header) in [(".mha", "LOCAL\n"), (".seg.nrrd", "\n\n")] {
        let path = to.join(format!("labels{ending}"));
        let names = ["background", "liver", "tumour"].map(String::from);
        let mut writer = LabelWriter::create(&path, &grid, None).unwrap().named(&names);
        writer.append(&values).unwrap();
        writer.finish().unwrap();
        let bytes = fs::read(&path).unwrap();
        let end =
            bytes.windows(unpacked_header.len()).position(|w| w == unpacked_header.as_bytes());
        let header = String::from_utf8(bytes[..end.unwrap()].to_vec()).unwrap();
        insta::assert_snapshot!(format!("header_of_{}", ending.trim_start_matches('.')), header);
    }
    let mut writer = LabelWriter::create(&to.join("labels.tif"), &grid, None).unwrap();
    values.chunks(5).for_each(|labels| writer.append(labels).unwrap());
    writer.finish().unwrap();
    let beside = fs::read_to_string(to.join("labels.json")).unwrap();
    assert_eq!(beside, "{\"spacing\":[4.5,1.25,0.5]}");
    let page = fs::read(to.join("labels.tif")).unwrap();
    // The directory of the first page, by its ten entries.
    assert_eq!(page[..10], [b'I', b'I', 42, 0, 8, 0, 0, 0, 10, 0]);
}

/// Images and scribbles of four cases, each in a format of its own.
#[cfg(feature = "hdf5")]
fn of_four_formats(images: &Path, scribbles: &Path) {
    for folder in [images, scribbles] {
        fs::create_dir(folder).unwrap();
    }
    let copy = |from: &str, to: PathBuf| assert!(fs::copy(folder().join(from), to).unwrap() > 0);
    // As Slicer saves both, as ITK writes a header beside its voxels, and a stack of pages.
    copy("drawn-on.nrrd", images.join("anna.nrrd"));
    copy("one-layer.seg.nrrd", scribbles.join("anna.seg.nrrd"));
    let header = fs::read_to_string(folder().join("uint16.mhd")).unwrap();
    fs::write(images.join("berta_0000.mhd"), header.replace("uint16.raw", "berta_0000.raw"))
        .unwrap();
    copy("uint16.raw", images.join("berta_0000.raw"));
    copy("spaced_0000.tif", images.join("clara_0000.tif"));
    copy("spaced.json", images.join("clara.json"));
    // As scanners write slices, under any names.
    fs::create_dir(images.join("dora")).unwrap();
    for slice in ["IM1", "IM2", "IM3"] {
        copy(&format!("series-ct/{slice}"), images.join("dora").join(slice));
    }
    for (name, image, ending) in [
        ("berta", "berta_0000.mhd", ".mha"),
        ("clara", "clara_0000.tif", ".nii.gz"),
        ("dora", "dora", ".nii.gz"),
    ] {
        let grid = read_grid(&images.join(image), &notes()).unwrap().grid;
        let path = scribbles.join(format!("{name}{ending}"));
        let mut writer = LabelWriter::create(&path, &grid, None).unwrap();
        let labels = (0..grid.voxels()).map(|voxel| voxel as u8 % 4);
        writer.append(&labels.collect::<Vec<u8>>()).unwrap();
        writer.finish().unwrap();
    }
}

#[cfg(feature = "hdf5")]
#[test]
fn own_data_may_be_in_any_of_these_formats() {
    use scrimp::data::SCRIBBLE;
    use scrimp::data::import::Source;
    use scrimp::data::import::own_data::{self, Folders, ScribbleFolder};
    let to = TempDir::new().unwrap();
    let [images, scribbles] = ["images", "scribbles"].map(|name| to.path().join(name));
    of_four_formats(&images, &scribbles);
    let classes = ["1=background", "2=liver", "3=tumour"].map(String::from).to_vec();
    let folders = Folders {
        scribbles: Some(ScribbleFolder { path: scribbles, unlabelled: 0 }),
        ..Folders::new(images, classes)
    };
    let source = own_data::open(&folders).unwrap();
    let said = source.notes.clone();
    let set = Source::collect(source).unwrap();
    let cases: Vec<_> =
        set.cases.iter().map(|case| (&*case.name, case.scan.grid.spacing_mm)).collect();
    let expected = [
        ("anna", Some([4.5, 1.3, 0.7])),
        ("berta", Some([4.5, 1.3, 0.7])),
        ("clara", Some([5.0, 0.8, 0.7])),
        ("dora", Some([4.5, 1.3, 0.7])),
    ];
    for ((name, found), (expected_name, expected)) in cases.into_iter().zip(expected) {
        assert_eq!(name, expected_name);
        // Places in DICOM are rounded texts.
        assert_close(&found.unwrap(), &expected.unwrap(), 1e-7, name);
    }
    let count = |case: usize, class: u8| {
        let labels = set.cases[case].annotations[SCRIBBLE].iter();
        labels.map(|&label| usize::from(label == class)).sum::<usize>()
    };
    assert_eq!([0, 1, 2, IGNORE].map(|class| count(1, class)), [6, 6, 6, 6]);
    // By their names, of which the numbers are 1 and 2 the other way round.
    assert_eq!(count(0, IGNORE), 120 - count(0, 0) - count(0, 1));
    assert!(count(0, 0) > 0 && count(0, 1) > 0);
    let said = said.take().join("\n");
    assert!(said.contains("clara"), "where labels of pages lie cannot be checked: {said}");
}
