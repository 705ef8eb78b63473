//! The packed file against damage, lies and slips: what is refused before HDF5 sees it, which files are
//! never replaced, and that files of the first layout are still read.

use crate::cli::{complaint, scrimp};
use crate::data::text;
use hdf5::types::VarLenUnicode;
use scrimp::data::identity::Identity;
use scrimp::data::import::phantom::{Difficulty, Phantom, generate};
use scrimp::data::store::{self, About, Destination, Existing, Writer};
use scrimp::data::{Case, Dataset};
use scrimp::preparation::{Channel, Crop, Intensities, Interpolation, Over, Preparation, Spacing};
use scrimp::scan::{Grid, Placement, Scan};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn small() -> Dataset {
    let difficulty = Difficulty::Easy;
    generate(&Phantom { cases: 3, slices: 2, size: 32, difficulty, seed: 5 }).unwrap()
}

fn packed() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("set.h5");
    store::write(&path, &small()).unwrap();
    (folder, path)
}

/// A file of layout 1, which holds [`small`].
const FIRST_LAYOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/packed/layout-1.h5");

/// A file of layout 2, which holds [`small`].
const SECOND_LAYOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/packed/layout-2.h5");

/// What reading a file of layout 1 says after `damage`; no digest stands before HDF5 there.
pub(crate) fn first_layout_damaged(damage: impl FnOnce(&hdf5::File)) -> String {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("set.h5");
    fs::copy(FIRST_LAYOUT, &path).unwrap();
    damage(&hdf5::File::open_rw(&path).unwrap());
    text(store::read(&path), folder.path())
}

#[test]
fn files_of_older_layouts_are_read_and_are_the_same_data_set() {
    for path in [FIRST_LAYOUT, SECOND_LAYOUT] {
        let read = store::read(Path::new(path)).unwrap();
        assert_eq!(read, Dataset { preparation: None, ..small() });
        assert_eq!(Identity::of(&read), Identity::of(&small()));
    }
}

/// Three slices of two modalities that lie somewhere, with intensities of any sign, prepared.
fn modalities() -> Dataset {
    let intensities = Intensities::ZScore { over: Over::Nonzero };
    let channel = |name: &str| Channel { name: name.into(), intensities };
    let spacing = Spacing::InPlane([0.1, 1.0 / 3.0]);
    let preparation = Preparation {
        crop: Crop::Nonzero,
        interpolation: Interpolation::Linear,
        spacing,
        channels: vec![channel("t1"), channel("b0 = 0")],
        ..Preparation::grey(intensities)
    };
    let direction = [[0.0, 0.6, 0.8], [1.0, 0.0, 0.0], [0.0, 0.8, -0.6]];
    let placement = Placement { direction, origin_mm: [-1.0 / 3.0, 0.0, 1e-7] };
    let shape = [3, 40, 20];
    let grid = Grid { shape, spacing_mm: Some([5.0, 0.1, 1.0 / 3.0]), placement: Some(placement) };
    let voxels = (0..2 * 2400).map(|i| (i as f32 - 2400.5) / 7.0).collect();
    let mut dataset = small();
    dataset.cases.truncate(2);
    dataset.preparation = Some(preparation);
    dataset.cases[0].scan = Scan { grid: grid.clone(), channels: 2, voxels };
    dataset.cases[0].annotations = [("dense".to_owned(), vec![1; 2400])].into();
    let grid = Grid { placement: None, ..grid };
    dataset.cases[1].scan = Scan { grid, ..dataset.cases[0].scan.clone() };
    dataset.cases[1].annotations.clear();
    dataset
}

#[test]
fn preparation_placement_and_any_intensities_of_any_channels_are_kept() {
    let (folder, dataset) = (TempDir::new().unwrap(), modalities());
    let path = folder.path().join("set.h5");
    store::write(&path, &dataset).unwrap();
    assert_eq!(store::read(&path).unwrap(), dataset);
    let image = |path: &Path| {
        let file = hdf5::File::open(path).unwrap();
        let image = file.dataset("volumes/phantom0001/image").unwrap();
        (image.shape(), image.chunk().unwrap())
    };
    assert_eq!(image(&path), (vec![3, 2, 40, 20], vec![3, 1, 40, 20]));
    let mut less = dataset.clone();
    less.preparation.as_mut().unwrap().channels.pop();
    insta::assert_snapshot!(text(store::write(&path, &less), folder.path()), @r"
    error: cannot write case `phantom0001` to `FOLDER/set.h5`
      caused by: it has 2 channels, expected 1 as all of the data set
    ");
    less.preparation.as_mut().unwrap().channels.clear();
    insta::assert_snapshot!(text(store::write(&path, &less), folder.path()), @r"
    error: cannot write `FOLDER/set.h5`
      caused by: expected 1 to 64 channels, found 0
    ");
    let mut large = dataset.clone();
    large.cases.truncate(1);
    large.cases[0].scan.grid.shape = [20, 200, 10];
    large.cases[0].scan.voxels = vec![0.5; 80_000];
    large.cases[0].annotations.clear();
    store::write(&path, &large).unwrap();
    assert_eq!(image(&path), (vec![20, 2, 200, 10], vec![16, 1, 64, 10]));
    assert_eq!(store::read(&path).unwrap(), large);
}

/// What reading [`modalities`] says after `damage` by somebody who can make a digest.
fn lied(damage: impl FnOnce(&hdf5::File)) -> String {
    lied_about(&modalities(), damage)
}

/// The same of any data set.
fn lied_about(dataset: &Dataset, damage: impl FnOnce(&hdf5::File)) -> String {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("set.h5");
    store::write(&path, dataset).unwrap();
    damage(&hdf5::File::open_rw(&path).unwrap());
    let bytes = fs::read(&path).unwrap();
    let (length, digest) = (bytes.len() - 512, xxhash_rust::xxh3::xxh3_128(&bytes[512..]));
    let lines = format!("scrimp data set 3\nbytes {length:020}\nxxh3-128 {digest:032x}\n");
    File::options().write(true).open(&path).unwrap().write_all_at(lines.as_bytes(), 0).unwrap();
    text(store::read(&path), folder.path())
}

/// Replaces an attribute that holds text.
fn say(file: &hdf5::File, attribute: &str, value: &str) {
    file.delete_attr(attribute).unwrap();
    let value: hdf5::types::FixedUnicode<16384> = value.parse().unwrap();
    let created = file.new_attr::<hdf5::types::FixedUnicode<16384>>().create(attribute).unwrap();
    created.write_scalar(&value).unwrap();
}

#[test]
fn placements_and_preparations_that_cannot_be_are_refused() {
    insta::assert_snapshot!(lied(|file| {
        let array = file.dataset("placements").unwrap();
        let mut numbers = array.read_raw::<f64>().unwrap();
        numbers[4] += 1.0;
        array.write_raw(&numbers).unwrap();
    }), @r"
    error: `/placements` of `FOLDER/set.h5` is damaged: its checksum is eec5bb2784583093, expected d70e120657007dee

    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
    insta::assert_snapshot!(lied(|file| {
        file.unlink("placements").unwrap();
        file.new_dataset::<f64>().shape((3, 4, 3)).create("placements").unwrap();
    }), @r"
    error: `/placements` of `FOLDER/set.h5` has shape [3, 4, 3], expected [2, 4, 3] as table `/cases` says

    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
    insta::assert_snapshot!(lied(|file| say(file, "preparation", "crop = 'most'")), @r"
    error: cannot read attribute `preparation` of `FOLDER/set.h5`
      caused by: TOML parse error at line 1, column 8
      |
    1 | crop = 'most'
      |        ^^^^^^
    unknown variant `most`, expected one of `none`, `nonzero`, `nonzero_but_last`, `foreground`


    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
    insta::assert_snapshot!(lied(|file| {
        say(file, "preparation", "channels = [{ name = 'a', intensities = 'robust' }]");
    }), @r"
    error: cannot read attribute `preparation` of `FOLDER/set.h5`
      caused by: it names 1 channels, expected 2 as images have

    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
    insta::assert_snapshot!(lied(|file| {
        let window = "{ window = { low = 2.0, high = 1.0 } }";
        say(file, "preparation", &format!("channels = [{{ name = 'a', intensities = {window} }}]"));
    }), @r"
    error: cannot read attribute `preparation` of `FOLDER/set.h5`
      caused by: cannot scale channel `a`
      caused by: the window goes from 2 to 1, expected a larger number last

    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
    insta::assert_snapshot!(lied(|file| {
        file.attr("channels").unwrap().write_scalar(&65u64).unwrap();
    }), @r"
    error: `FOLDER/set.h5` has images of 65 channels, expected 1 to 64

    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
}

/// [`small`], and in its second case nobody looked for class 2.
fn partly_looked_for() -> Dataset {
    let mut dataset = small();
    let case = &mut dataset.cases[1];
    case.classes_annotated = vec![0, 1, 3];
    for labels in case.annotations.values_mut() {
        labels.iter_mut().filter(|label| **label == 2).for_each(|label| *label = 0);
    }
    dataset
}

#[test]
fn the_classes_that_were_looked_for_are_kept_where_some_were_not() {
    let (folder, dataset) = (TempDir::new().unwrap(), partly_looked_for());
    let path = folder.path().join("set.h5");
    store::write(&path, &dataset).unwrap();
    assert_eq!(store::read(&path).unwrap(), dataset);
    let stored = |path: &Path| {
        hdf5::File::open(path)
            .unwrap()
            .dataset("classes_annotated")
            .and_then(|all| all.read_raw::<u8>())
    };
    assert_eq!(stored(&path).unwrap(), [1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1u8]);
    let mut whole = small();
    whole.cases[0].classes_annotated = vec![0, 1, 2, 3];
    store::write(&path, &whole).unwrap();
    assert_eq!(store::read(&path).unwrap(), small());
    assert!(stored(&path).is_err());
    let mut wrong = partly_looked_for();
    wrong.cases[2].classes_annotated = vec![0, 1, 3];
    let said = text(store::write(&path, &wrong), folder.path());
    assert!(said.contains("cannot write case `phantom0003`"), "{said}");
    assert!(said.contains("expected one of the classes [0, 1, 3] that were looked for"), "{said}");
}

#[test]
fn classes_that_cannot_have_been_looked_for_are_refused() {
    let damaged = |change: fn(&mut [u8]), is_signed: bool| {
        lied_about(&partly_looked_for(), |file| {
            let array = file.dataset("classes_annotated").unwrap();
            let mut flags = array.read_raw::<u8>().unwrap();
            change(&mut flags);
            array.write_raw(&flags).unwrap();
            if is_signed {
                let checksum = xxhash_rust::xxh3::xxh3_64(&flags);
                array.attr("xxh3").unwrap().write_scalar(&checksum).unwrap();
            }
        })
    };
    let said = damaged(|flags| flags[5] = 0, false);
    assert!(said.contains("`/classes_annotated` of `FOLDER/set.h5` is damaged"), "{said}");
    let said = damaged(|flags| flags[4..8].fill(0), true);
    assert!(said.contains("a row of it is [0, 0, 0, 0], expected 1 or 0 for each class"), "{said}");
    let said = damaged(|flags| flags[5] = 2, true);
    assert!(said.contains("a row of it is [1, 2, 0, 1], expected 1 or 0 for each class"), "{said}");
    let said = damaged(|flags| flags[1..4].fill(0), true);
    assert!(said.contains("expected one of the classes [0] that were looked for in it"), "{said}");
    let said = lied_about(&partly_looked_for(), |file| {
        file.unlink("classes_annotated").unwrap();
        file.new_dataset::<u8>().shape((3, 3)).create("classes_annotated").unwrap();
    });
    assert!(said.contains("has shape [3, 3], expected [3, 4]"), "{said}");
}

#[test]
fn no_flipped_bit_passes() {
    let (folder, path) = packed();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    // All of the first 512 bytes, and every so many of the rest.
    let rest = (512..bytes.len()).step_by(bytes.len() / 1_000).flat_map(|byte| {
        let first = byte % 7;
        [(byte, first), (byte, first + 1)]
    });
    let places: Vec<(usize, usize)> =
        (0..512).flat_map(|byte| (0..8).map(move |bit| (byte, bit))).chain(rest).collect();
    assert!(places.len() > 6_000);
    for (byte, bit) in places {
        file.write_all_at(&[bytes[byte] ^ (1 << bit)], byte as u64).unwrap();
        let said = text(store::read(&path), folder.path());
        file.write_all_at(&bytes[byte..=byte], byte as u64).unwrap();
        // Never what HDF5 says, nor the checksums inside of it: it did not see the file.
        let before = [
            "is damaged: its digest is",
            "is damaged: its first 512 bytes",
            "it is not whole",
            "is no packed data set",
            "has layout",
        ];
        assert!(before.iter().any(|what| said.contains(what)), "byte {byte}, bit {bit}: {said}");
    }
    assert_eq!(store::read(&path).unwrap(), small());
}

#[test]
fn a_file_of_another_length_is_not_whole() {
    let (folder, path) = packed();
    let bytes = fs::read(&path).unwrap();
    for length in (0..bytes.len()).step_by(1_009).chain([511, 512, bytes.len() - 1]) {
        fs::write(&path, &bytes[..length]).unwrap();
        let said = text(store::read(&path), folder.path());
        assert!(said.contains("is no") || said.contains("not whole"), "{length}: {said}");
    }
    fs::write(&path, [&bytes[..], b"\0"].concat()).unwrap();
    insta::assert_snapshot!(text(store::read(&path), folder.path()).replace(|c: char| c.is_ascii_digit(), "N"), @r"
    error: `FOLDER/set.hN` has NNNNN bytes behind its first NNN, expected NNNNN as these say: it is not whole

    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
}

#[test]
fn what_is_no_file_and_what_is_locked_are_named_as_such() {
    let (folder, path) = packed();
    insta::assert_snapshot!(text(store::read(folder.path()), folder.path()), @r"
    error: cannot open `FOLDER`
      caused by: it is a folder, expected a file
    ");
    let writer = File::open(&path).unwrap();
    writer.try_lock().unwrap();
    assert_eq!(store::read(&path).unwrap(), small(), "a lock alone hinders nobody");
    File::options().write(true).open(&path).unwrap().write_all_at(b"?", 9_000).unwrap();
    let said = text(store::read(&path), folder.path());
    assert!(
        said.starts_with("error: `FOLDER/set.h5` is being written by another process\n"),
        "{said}"
    );
    drop(writer);
    let file = hdf5::File::create(&path).unwrap();
    file.new_dataset::<u8>().shape((2, 2)).create("image").unwrap();
    drop(file);
    insta::assert_snapshot!(text(store::read(&path), folder.path()), @r"
    error: `FOLDER/set.h5` is an HDF5 file, but no packed data set: it has no attribute `layout`

    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
}

#[test]
fn damaged_strings_of_the_first_layout_are_refused_before_the_library_follows_them() {
    let (folder, bytes) = (TempDir::new().unwrap(), fs::read(FIRST_LAYOUT).unwrap());
    let path = folder.path().join("set.h5");
    let starts = bytes.windows(8).enumerate().filter(|(_, window)| window == b"GCOL\x01\0\0\0");
    let starts: Vec<usize> = starts.map(|(start, _)| start).collect();
    assert!(!starts.is_empty());
    for start in starts {
        // The size of the whole, and number, reserved bytes and size of the first string.
        let head =
            (start + 9..start + 16).chain(start + 21..start + 24).chain(start + 26..start + 32);
        for (byte, bit) in head.flat_map(|byte| [(byte, 0), (byte, 4), (byte, 7)]) {
            let mut bytes = bytes.clone();
            bytes[byte] ^= 1 << bit;
            fs::write(&path, bytes).unwrap();
            let said = text(store::read(&path), folder.path());
            assert!(said.contains("are not as HDF5 writes them"), "byte {byte}, bit {bit}: {said}");
        }
    }
}

#[derive(hdf5::H5Type, Clone)]
#[repr(C)]
struct Row {
    name: VarLenUnicode,
    patient: VarLenUnicode,
    frame: u32,
    fold: u32,
    slices: u64,
    rows: u64,
    columns: u64,
    spacing_slices_mm: f64,
    spacing_rows_mm: f64,
    spacing_columns_mm: f64,
}

/// Lets the table say that the first case has `shape`, its checksum agreeing.
fn claim_shape(file: &hdf5::File, shape: [u64; 3]) {
    let table = file.dataset("cases").unwrap();
    let mut rows = table.read_raw::<Row>().unwrap();
    [rows[0].slices, rows[0].rows, rows[0].columns] = shape;
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let spacing = [row.spacing_slices_mm, row.spacing_rows_mm, row.spacing_columns_mm];
            format!(
                "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{spacing:?}\n",
                row.name, row.patient, row.frame, row.fold, row.slices, row.rows, row.columns
            )
        })
        .collect();
    table.write_raw(&rows).unwrap();
    let checksum = xxhash_rust::xxh3::xxh3_64(lines.concat().as_bytes());
    table.attr("xxh3").unwrap().write_scalar(&checksum).unwrap();
}

#[test]
fn sizes_are_refused_before_memory_is_taken_for_them() {
    for shape in [[u64::MAX, 2, 2], [1 << 40, 1, 1], [1 << 16, 1 << 16, 1], [1 << 17, 1, 1]] {
        let said = first_layout_damaged(|file| claim_shape(file, shape));
        assert!(
            said.contains("expected at most 65536 along each axis and 1073741824 voxels"),
            "{said}"
        );
    }
    // Chunks that were never written take no place in the file.
    let shape = [1 << 16, 1 << 7, 1 << 7];
    let said = first_layout_damaged(|file| {
        claim_shape(file, shape);
        let group = file.group("volumes/phantom0001").unwrap();
        for kind in ["dense", "scribble", "image"] {
            group.unlink(kind).unwrap();
            let array = group.new_dataset::<u8>().shape(shape.map(|extent| extent as usize));
            array.chunk((1, 128, 128)).deflate(4).create(kind).unwrap();
        }
    });
    insta::assert_snapshot!(said, @r"
    error: `/volumes/phantom0001/dense` of `FOLDER/set.h5` says that it has shape [65536, 128, 128], which is more than the 0 bytes that are stored of it can hold

    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
}

#[test]
fn names_that_do_not_fit_and_sets_without_classes_or_cases_are_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("set.h5");
    let said = |change: &dyn Fn(&mut Dataset)| {
        let mut dataset = small();
        change(&mut dataset);
        let said = text(store::write(&path, &dataset), folder.path());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        said
    };
    insta::assert_snapshot!(said(&|dataset| dataset.classes.truncate(1)), @r"
    error: cannot write `FOLDER/set.h5`
      caused by: expected 2 to 255 classes, found 1
    ");
    insta::assert_snapshot!(said(&|dataset| dataset.cases.clear()), @r"
    error: cannot write `FOLDER/set.h5`
      caused by: there are no cases
    ");
    insta::assert_snapshot!(said(&|dataset| dataset.cases[0].patient = "p".repeat(257)), @r"
    error: cannot write case `phantom0001` to `FOLDER/set.h5`
      caused by: `pppppppppppppppppppppppppppppppppppppppp…` has 257 bytes, expected at most 256 for a name or a description
    ");
    insta::assert_snapshot!(said(&|dataset| dataset.name = "a\0".into()), @r#"
    error: cannot write `FOLDER/set.h5`
      caused by: "a\0" holds the character NUL
    "#);
    insta::assert_snapshot!(said(&|dataset| dataset.provenance = "p".repeat(1 << 15)), @r"
    error: cannot write `FOLDER/set.h5`
      caused by: `pppppppppppppppppppppppppppppppppppppppp…` has 32768 bytes, expected at most 16384 for a name or a description
    ");
    let mut longest = small();
    let name = "ä".repeat(128);
    longest.provenance = "p".repeat(1 << 14);
    (longest.cases[2].name, longest.cases[2].patient) = (name.clone(), name.clone());
    longest.classes[1] = name;
    store::write(&path, &longest).unwrap();
    assert_eq!(store::read(&path).unwrap(), longest);
}

/// What a claim of `path` says.
fn refused(path: &Path, folder: &Path) -> String {
    text(Destination::claim(path, Existing::Replaced), folder)
}

#[test]
fn only_packed_data_sets_are_ever_replaced() {
    let (folder, path) = packed();
    let at = |name: &str| folder.path().join(name);
    assert!(Destination::claim(&path, Existing::Replaced).unwrap().replaces());
    // A damaged one is to be written again, and one of the first layout is one, too.
    fs::copy(&path, at("damaged.h5")).unwrap();
    File::options().write(true).open(at("damaged.h5")).unwrap().write_all_at(b"?", 9_000).unwrap();
    fs::copy(FIRST_LAYOUT, at("old.h5")).unwrap();
    for name in ["damaged.h5", "old.h5"] {
        assert!(Destination::claim(&at(name), Existing::Replaced).unwrap().replaces(), "{name}");
    }
    let kept = text(Destination::claim(&path, Existing::Refused), folder.path());
    insta::assert_snapshot!(kept, @r"
    error: `FOLDER/set.h5` exists already

    hint: name another file with `--to FILE`, or remove this one first
    ");

    fs::write(at("thesis.txt"), "mine").unwrap();
    fs::write(at("empty"), "").unwrap();
    hdf5::File::create(at("patient001_frame01.h5")).unwrap();
    symlink(at("thesis.txt"), at("link")).unwrap();
    symlink(at("nowhere"), at("dangling")).unwrap();
    symlink("/dev/full", at("device")).unwrap();
    let pipe = at("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let before = fs::read_dir(folder.path()).unwrap().count();
    for name in ["thesis.txt", "empty", "patient001_frame01.h5", "link"] {
        let said = refused(&at(name), folder.path());
        let expected = "exists and is no packed data set, so it is not replaced";
        assert!(said.starts_with(&format!("error: `FOLDER/{name}` {expected}\n")), "{said}");
    }
    insta::assert_snapshot!(refused(&at("dangling"), folder.path()), @r"
    error: `FOLDER/dangling` is a link that leads nowhere, expected a name that is free

    hint: name another file with `--to FILE`, or remove this one first
    ");
    insta::assert_snapshot!(refused(&at("device"), folder.path()), @r"
    error: `FOLDER/device` exists and cannot be read (it is a device, expected a file), so it is not replaced

    hint: name another file with `--to FILE`, or remove this one first
    ");
    insta::assert_snapshot!(refused(&pipe, folder.path()), @r"
    error: `FOLDER/pipe` exists and cannot be read (it is a named pipe, expected a file), so it is not replaced

    hint: name another file with `--to FILE`, or remove this one first
    ");
    insta::assert_snapshot!(refused(folder.path(), folder.path()), @r"
    error: `FOLDER` is a folder, expected the name of a file

    hint: name another file with `--to FILE`, or remove this one first
    ");
    insta::assert_snapshot!(refused(&at("new/"), folder.path()), @r"
    error: `FOLDER/new/` is not the name of a file

    hint: name the file to write, for example `--to acdc.h5`
    ");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before, "nothing is left behind");

    // A link to a data set stays one.
    symlink(&path, at("set-link")).unwrap();
    let mut other = small();
    other.provenance = "another".into();
    store::write(&at("set-link"), &other).unwrap();
    assert!(fs::symlink_metadata(at("set-link")).unwrap().is_symlink());
    assert_eq!(store::read(&path).unwrap().provenance, "another");
}

#[test]
fn what_appears_while_a_file_is_written_is_not_replaced() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("set.h5");
    let dataset = small();
    let destination = Destination::claim(&path, Existing::Replaced).unwrap();
    let about = About {
        name: &dataset.name,
        provenance: &dataset.provenance,
        classes: &dataset.classes,
        preparation: None,
        levels: &[],
        test_fold: None,
    };
    let mut writer = Writer::create(destination, about).unwrap();
    writer.add(&dataset.cases[0]).unwrap();
    fs::write(&path, "mine").unwrap();
    let said = text(writer.finish(), folder.path());
    assert!(said.contains("is no packed data set, so it is not replaced"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_a_killed_process_left_is_removed_and_what_is_being_written_stays() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("set.h5");
    let left = folder.path().join(".set.h5.0123456789abcdef.partial");
    let others = ["other.h5", ".other.h5.0123456789abcdef.partial", ".set.h5.notes.partial"];
    for path in others.iter().map(|name| folder.path().join(name)).chain([left.clone()]) {
        fs::write(path, "half").unwrap();
    }
    let first = Destination::claim(&path, Existing::Replaced).unwrap();
    assert!(!left.exists());
    let second = Destination::claim(&path, Existing::Replaced).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), others.len() + 2);
    drop((first, second));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), others.len());
}

#[test]
fn the_command_refuses_before_it_reads_and_says_what_it_replaces() {
    let (folder, path) = packed();
    let thesis = folder.path().join("thesis.txt");
    fs::write(&thesis, "mine").unwrap();
    let run = |source: &[&str], to: &Path| {
        let output = scrimp(&[&["prepare"], source, &["--to", to.to_str().unwrap()]].concat());
        complaint(&output).replace(folder.path().to_str().unwrap(), "FOLDER")
    };
    // There is nothing at these places: had it looked, it would have said so.
    for source in [
        &["acdc", "--from", "nowhere"][..],
        &["mscmr", "--from", "nowhere"],
        &["label-transfer", "--from", "nowhere"],
        &["brats", "--from", "nowhere"],
        &["scribbles", "--from", "nowhere"],
    ] {
        let said = run(source, &thesis);
        assert!(said.starts_with("exit code 2\nerror: `FOLDER/thesis.txt` exists"), "{said}");
    }
    assert_eq!(fs::read(&thesis).unwrap(), b"mine");
    let phantom = &["phantom", "--cases", "1", "--slices", "1", "--size", "32"];
    insta::assert_snapshot!(run(phantom, &path), @r"
    exit code 0
    `FOLDER/set.h5` is a packed data set, and is replaced
    ");
    assert_eq!(store::read(&path).unwrap().cases.len(), 1);
    for sizes in
        [["--size", "4294967296"], ["--cases", "10000"], ["--slices", "18446744073709551615"]]
    {
        let said = run(&[&["phantom"], &sizes[..]].concat(), &path);
        assert!(said.starts_with("exit code 2\n"), "{said}");
    }
}

#[test]
fn a_case_larger_than_any_volume_is_refused() {
    let [case]: [Case; 1] = small().cases.drain(..1).collect::<Vec<_>>().try_into().unwrap();
    for shape in [[usize::MAX, 2, 2], [1 << 17, 1, 1], [1 << 16, 1 << 16, 1]] {
        let scan = Scan { grid: Grid::unplaced(shape, None), ..case.scan.clone() };
        let said = Case { scan, ..case.clone() }.check(4).unwrap_err();
        assert!(said.message().contains("expected at most 65536 along each axis"), "{said}");
    }
}
