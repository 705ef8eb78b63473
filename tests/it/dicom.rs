//! Series of DICOM: slices that are one image in whatever order their files come, and those that are refused.
//!
//! Files are written here, an element after the other. That other programs read the same in files of their own is for
//! `formats` to show.

use scrimp::scan::{Notes, files_of, is_image_folder, is_one_image, read, read_grid};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const EXPLICIT: &str = "1.2.840.10008.1.2.1";

/// A slice of 2 x 3 pixels.
#[derive(Clone)]
struct Slice {
    syntax: &'static str,
    series: &'static str,
    description: &'static str,
    position: Option<[f64; 3]>,
    orientation: [f64; 6],
    pixels: Vec<u16>,
    columns: u16,
    photometric: &'static str,
}

fn slice(z: f64) -> Slice {
    Slice {
        syntax: EXPLICIT,
        series: "1.2.3",
        description: "T1 axial",
        position: Some([-10.0, 20.0, z]),
        orientation: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        pixels: (0..6).map(|pixel| pixel + z as u16 * 10).collect(),
        columns: 3,
        photometric: "MONOCHROME2",
    }
}

fn element(tag: [u16; 2], kind: &str, value: &[u8]) -> Vec<u8> {
    let padded = value.len().next_multiple_of(2);
    let mut bytes = tag.iter().flat_map(|part| part.to_le_bytes()).collect::<Vec<u8>>();
    bytes.extend(kind.as_bytes());
    if ["OB", "OW", "SQ", "UN"].contains(&kind) {
        bytes.extend([0, 0]);
        bytes.extend((padded as u32).to_le_bytes());
    } else {
        bytes.extend((padded as u16).to_le_bytes());
    }
    bytes.extend(value);
    bytes.resize(bytes.len() + padded - value.len(), b' ');
    bytes
}

impl Slice {
    fn bytes(&self) -> Vec<u8> {
        let text = |tag, kind, value: &str| element(tag, kind, value.as_bytes());
        let short = |tag, value: u16| element(tag, "US", &value.to_le_bytes());
        let numbers =
            |numbers: &[f64]| numbers.iter().map(f64::to_string).collect::<Vec<_>>().join("\\");
        let mut file = [vec![0; 128], b"DICM".to_vec()].concat();
        file.extend(text([2, 0x10], "UI", self.syntax));
        file.extend(text([8, 0x103e], "LO", self.description));
        file.extend(text([0x20, 0xe], "UI", self.series));
        if let Some(position) = &self.position {
            file.extend(text([0x20, 0x32], "DS", &numbers(position)));
            file.extend(text([0x20, 0x37], "DS", &numbers(&self.orientation)));
        }
        file.extend(short([0x28, 2], 1));
        file.extend(text([0x28, 4], "CS", self.photometric));
        file.extend(short([0x28, 0x10], 2));
        file.extend(short([0x28, 0x11], self.columns));
        file.extend(text([0x28, 0x30], "DS", "0.75\\0.5"));
        for (tag, value) in [(0x100, 16), (0x101, 16), (0x102, 15), (0x103, 0)] {
            file.extend(short([0x28, tag], value));
        }
        let pixels: Vec<u8> = self.pixels.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
        file.extend(element([0x7fe0, 0x10], "OW", &pixels));
        file
    }
}

/// A folder with these slices, called `a`, `b` and so on.
fn folder(slices: &[Slice]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, slice) in ('a'..).zip(slices) {
        fs::write(folder.path().join(name.to_string()), slice.bytes()).unwrap();
    }
    folder
}

fn said(path: &Path, folder: &Path) -> String {
    let failure = read(path, &Notes::default()).expect_err("it was taken").to_string();
    let said = failure.replace(folder.to_str().unwrap(), "FOLDER");
    // Which formats are read hangs on how the program was built.
    let said = said.lines().next().unwrap().split(", expected NIfTI").next().unwrap();
    said.trim_start_matches("error: ").to_owned()
}

fn refusal(slices: &[Slice]) -> String {
    let folder = folder(slices);
    said(folder.path(), folder.path())
}

#[test]
fn slices_are_sorted_by_where_they_lie() {
    let folder = folder(&[slice(6.5), slice(1.5), slice(4.0)]);
    fs::write(folder.path().join("LICENSE"), "to all").unwrap();
    fs::write(folder.path().join(".DS_Store"), "").unwrap();
    let notes = Notes::default();
    let scan = read(folder.path(), &notes).unwrap();
    assert_eq!((scan.grid.shape, scan.grid.spacing_mm), ([3, 2, 3], Some([2.5, 0.75, 0.5])));
    assert_eq!(scan.voxels[..7], [10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 40.0]);
    // From the patient's left to the right and from back to front.
    assert_eq!(scan.grid.position_mm([0.0; 3]), Some([10.0, -20.0, 1.5]));
    assert_eq!(scan.grid.position_mm([2.0, 1.0, 1.0]), Some([9.5, -20.75, 6.5]));
    let said = notes.take().join("\n");
    assert!(said.contains("LICENSE") && !said.contains("DS_Store"), "{said}");
    let names: Vec<_> = files_of(folder.path()).unwrap();
    let names: Vec<_> = names.iter().map(|path| path.file_name().unwrap()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(read_grid(&folder.path().join("a"), &notes).unwrap().grid.shape, [1, 2, 3]);
}

#[test]
fn a_folder_is_one_image_where_its_files_belong_together() {
    let other = Slice { series: "1.2.4", ..slice(1.0) };
    let apart = folder(&[slice(1.0), other.clone()]);
    assert!(is_image_folder(apart.path()) && !is_one_image(apart.path()));
    let together = folder(&[slice(1.0), other, slice(2.0)]);
    assert!(is_one_image(together.path()));
    let one = folder(&[slice(1.0)]);
    assert!(is_image_folder(one.path()) && !is_one_image(one.path()));
    let none = TempDir::new().unwrap();
    fs::write(none.path().join("a.txt"), "DICM").unwrap();
    assert!(!is_image_folder(none.path()) && !is_one_image(none.path()));
    assert!(!is_image_folder(&one.path().join("a")));
}

#[test]
fn slices_that_are_no_stack_are_refused_with_their_places() {
    let moved = |x| Slice { position: Some([x, 20.0, 4.0]), ..slice(4.0) };
    let all = [
        refusal(&[slice(1.0), slice(2.0), slice(4.0), slice(5.0), slice(6.0)]),
        refusal(&[slice(1.0), slice(2.0), slice(2.0), slice(3.0)]),
        refusal(&[slice(1.0), slice(2.5), moved(-9.0), slice(5.5)]),
        refusal(&[
            slice(1.0),
            Slice { orientation: [0.0, 1.0, 0.0, 0.0, 0.0, -1.0], ..slice(2.0) },
        ]),
        refusal(&[slice(1.0), Slice { position: None, ..slice(2.0) }]),
        refusal(&[
            slice(1.0),
            Slice { series: "1.2.4", description: "scout", ..slice(9.0) },
            slice(2.0),
        ]),
        refusal(&[slice(1.0), Slice { columns: 2, ..slice(2.0) }]),
        refusal(&[Slice { orientation: [1.0, 0.0, 0.0, 1.0, 0.0, 0.0], ..slice(2.0) }]),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn files_that_are_not_read_are_refused_by_what_they_are() {
    let with = |change: &dyn Fn(&mut Slice)| {
        let mut slice = slice(1.0);
        change(&mut slice);
        refusal(&[slice])
    };
    let cut = |bytes: usize| {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.dcm");
        let whole = slice(1.0).bytes();
        fs::write(&path, &whole[..whole.len() - bytes]).unwrap();
        said(&path, folder.path())
    };
    let all = [
        with(&|slice| slice.syntax = "1.2.840.10008.1.2.4.90"),
        with(&|slice| slice.syntax = "1.2.840.10008.1.2.5"),
        with(&|slice| slice.photometric = "PALETTE COLOR"),
        with(&|slice| slice.columns = 4),
        with(&|slice| slice.columns = 0),
        cut(1),
        cut(40),
        cut(300),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn a_tilted_gantry_is_placed_as_it_is_and_said() {
    let tilted = |z: f64| Slice { position: Some([0.0, z / 2.0, z]), ..slice(z) };
    let folder = folder(&[tilted(0.0), tilted(2.0), tilted(4.0)]);
    let notes = Notes::default();
    let grid = read_grid(folder.path(), &notes).unwrap().grid;
    assert_eq!(grid.position_mm([2.0, 0.0, 0.0]), Some([0.0, -2.0, 4.0]));
    assert!(notes.take().join("\n").contains("tilted gantry"));
}
