//! Everybody's own data: labels that are carried onto their image, and a set with everything from the command line.

use crate::cli::{complaint, scrimp};
use crate::nifti_files::{File, file, image, scribble, straight};
use scrimp::data::{DENSE, SCRIBBLE, store};
use scrimp::random::Key;
use scrimp::scan::{Coding, FileGrid, Grid, IGNORE, Labels, Notes, read_grid};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn strokes() -> Coding {
    Coding::classes(3).or_unlabelled(9)
}

/// `labels` on the voxels of `image`, and what was noted of it, without the name of the folder.
fn carried(image: &File, labels: &File, coding: &Coding) -> Result<(Labels, Vec<String>), String> {
    let folder = TempDir::new().unwrap();
    let clean = |text: String| text.replace(folder.path().to_str().unwrap(), "FOLDER");
    let [image, labels] = [("image.nii", image), ("labels.nii", labels)].map(|(name, file)| {
        let path = folder.path().join(name);
        fs::write(&path, file.bytes()).unwrap();
        path
    });
    let notes = Notes::default();
    let grid = read_grid(&image, &notes).unwrap();
    let carried = grid.labels_carried(&labels, coding, &notes);
    let said = notes.take().into_iter().map(clean).collect();
    carried.map(|labels| (labels, said)).map_err(|failure| clean(failure.to_string()))
}

/// A file of labels with axes along those of `straight`, spacing and first voxel in x, y, z.
fn along(extents: [usize; 3], spacing: [f32; 3], first: [f32; 3], values: Vec<f64>) -> File {
    let mut sform = [[0.0; 4]; 3];
    for axis in 0..3 {
        (sform[axis][axis], sform[axis][3]) = (spacing[axis], first[axis]);
    }
    let pixdim = [1.0, spacing[0], spacing[1], spacing[2]];
    File { extents: extents.to_vec(), values, pixdim, sform: Some(sform), ..scribble() }
}

const NOTED: &str = "labels that do not lie on the voxels of their image were carried to the nearest ones: `FOLDER/labels.nii`";

#[test]
fn labels_of_a_smaller_extent_or_a_small_shift_come_to_the_voxels_on_which_they_lie() {
    // Without the first column, of 1.5 mm, and the last row.
    let values = scribble().values;
    let kept = |index: &usize| !index.is_multiple_of(4) && index / 4 % 3 < 2;
    let part = (0..24).filter(kept).map(|index| values[index]).collect::<Vec<_>>();
    let expected: Vec<u8> = (0..24)
        .map(|index| if kept(&index) { values[index] as u8 } else { 9 })
        .map(|label| if label == 9 { IGNORE } else { label })
        .collect();
    for shift in [0.0f32, 0.6] {
        let labels = along(
            [3, 2, 2],
            [1.5, 2.0, 8.0],
            [-18.5 + shift, 30.0 - shift, 5.0 + shift],
            part.clone(),
        );
        let (found, said) = carried(&image(), &labels, &strokes()).unwrap();
        assert_eq!(found.values, expected, "{shift}");
        assert_eq!(said, [format!("{NOTED} (4 labelled voxels, none is lost)")]);
    }
    // Half of it beyond the image: columns 2 and 3 of the labels.
    let labels = along([3, 2, 2], [1.5, 2.0, 8.0], [-15.5, 30.0, 5.0], part);
    let (found, said) = carried(&image(), &labels, &strokes()).unwrap();
    assert_eq!(found.values.iter().filter(|&&label| label != IGNORE).count(), 2);
    assert_eq!(said, [format!("{NOTED} (4 labelled voxels, 2 lie outside)")]);
}

#[test]
fn thin_strokes_survive_where_voxels_become_fewer_and_dense_labels_have_no_holes() {
    // Voxels of half the size, edge to edge: a stroke of one voxel along x in each of six lines.
    let fine = |value: &dyn Fn(usize, usize) -> f64| {
        let values = (0..96).map(|index| value(index / 8 % 6, index % 8)).collect();
        along([8, 6, 2], [0.75, 1.0, 8.0], [-20.375, 29.5, 5.0], values)
    };
    let stroke = fine(&|y, x| if y == 3 && (2..7).contains(&x) { 1.0 } else { 9.0 });
    let (found, said) = carried(&image(), &stroke, &strokes()).unwrap();
    let row = [IGNORE, 1, 1, 1];
    let expected = [[IGNORE; 4], row, [IGNORE; 4]].concat();
    assert_eq!(found.values, [expected.clone(), expected].concat());
    assert_eq!(said, [format!("{NOTED} (10 labelled voxels, 4 met others)")]);
    // Two against one, and one against one where the background gives way.
    let mixed = fine(&|y, x| match (y, x) {
        (0, 0 | 1) | (2, 0) => 0.0,
        (1, 0) | (2, 1) => 2.0,
        _ => 9.0,
    });
    let (found, _) = carried(&image(), &mixed, &strokes()).unwrap();
    assert_eq!([found.values[0], found.values[4]], [0, 2]);
    // Voxels of twice the size: every voxel of the image has a label, and beyond the labels it is background.
    let dense = along([2, 1, 1], [3.0, 4.0, 16.0], [-19.25, 31.0, 9.0], vec![1.0, 2.0]);
    let (found, said) = carried(&image(), &dense, &Coding::classes(3)).unwrap();
    let slice = [[1, 1, 2, 2], [1, 1, 2, 2], [0; 4]].concat();
    assert_eq!(found.values, [slice.clone(), slice].concat());
    assert_eq!(said, [format!("{NOTED} (2 labelled voxels, none is lost)")]);
}

/// A rotation about two axes.
fn turned(draws: &mut scrimp::random::Draws) -> [[f64; 3]; 3] {
    let [(a, b), (c, d)] = [(); 2].map(|()| draws.range(-3.2, 3.2).sin_cos());
    [[b, a * d, a * c], [-a, b * d, b * c], [0.0, -c, d]]
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The voxel that a place lies in, along axes that stand upright on each other.
fn voxel_at(grid: &Grid, place_mm: [f64; 3]) -> Option<usize> {
    let placement = grid.placement.unwrap();
    let apart = [0, 1, 2].map(|part| place_mm[part] - placement.origin_mm[part]);
    let mut index = 0;
    for axis in 0..3 {
        let along = dot(apart, placement.direction[axis]) / grid.spacing_mm.unwrap()[axis];
        let along = along.round();
        if along < 0.0 || along >= grid.shape[axis] as f64 {
            return None;
        }
        index = index * grid.shape[axis] + along as usize;
    }
    Some(index)
}

fn places_mm(grid: &Grid) -> Vec<[f64; 3]> {
    let [slices, rows, columns] = grid.shape;
    let all =
        (0..slices).flat_map(|z| (0..rows).flat_map(move |y| (0..columns).map(move |x| [z, y, x])));
    all.map(|voxel| grid.position_mm(voxel.map(|index| index as f64)).unwrap()).collect()
}

#[test]
fn wherever_labels_lie_each_goes_to_the_voxel_in_which_its_centre_is() {
    let mut lost = 0;
    for seed in 0..40 {
        let mut draws = Key::new(seed).draws();
        let axes = turned(&mut draws);
        let spacing = [(); 3].map(|()| draws.range(0.7, 3.0));
        let mut sform = [[0.0f32; 4]; 3];
        for row in 0..3 {
            (0..3).for_each(|axis| sform[row][axis] = (axes[row][axis] * spacing[axis]) as f32);
            // Somewhere in the image, which begins at -20, 30, 5.
            sform[row][3] = ([-17.0, 32.0, 9.0][row] + draws.range(-3.0, 3.0)) as f32;
        }
        let values: Vec<f64> =
            (0..60).map(|_| [9.0, 9.0, 0.0, 1.0, 2.0][draws.below(5) as usize]).collect();
        let labels = File { sform: Some(sform), extents: vec![5, 4, 3], values, ..scribble() };
        let pixdim = [1.0, spacing[0] as f32, spacing[1] as f32, spacing[2] as f32];
        let labels = File { pixdim, ..labels };
        let folder = TempDir::new().unwrap();
        let grid = |name: &str, file: &File| {
            fs::write(folder.path().join(name), file.bytes()).unwrap();
            read_grid(&folder.path().join(name), &Notes::default()).unwrap().grid
        };
        let [own, other] = [grid("image.nii", &image()), grid("labels.nii", &labels)];
        let mut expected: Vec<Vec<u8>> = vec![Vec::new(); 24];
        let (mut outside, mut shared) = (0, 0);
        for (place_mm, &value) in places_mm(&other).into_iter().zip(&labels.values) {
            let voxel = voxel_at(&own, place_mm);
            shared += usize::from(voxel.is_some());
            match voxel {
                Some(voxel) if value != 9.0 => expected[voxel].push(value as u8),
                None if value != 9.0 => outside += 1,
                _ => {}
            }
        }
        if shared == 0 {
            assert!(carried(&image(), &labels, &strokes()).is_err());
            continue;
        }
        let (found, said) = carried(&image(), &labels, &strokes()).unwrap();
        for (label, votes) in found.values.iter().zip(&expected) {
            let count =
                |class: u8| votes.iter().map(|&vote| usize::from(vote == class)).sum::<usize>();
            let most = (0..3).map(count).max().unwrap();
            assert!(if votes.is_empty() { *label == IGNORE } else { count(*label) == most });
        }
        assert_eq!(said[0].contains(&format!("{outside} lie outside")), outside > 0, "{said:?}");
        lost += outside;
        let dense = File { values: labels.values.iter().map(|v| v % 3.0).collect(), ..labels };
        let looked_up = carried(&image(), &dense, &Coding::classes(3));
        if places_mm(&own).into_iter().all(|place_mm| voxel_at(&other, place_mm).is_none()) {
            // All of them lie between the voxels of the image.
            assert!(looked_up.is_err());
            continue;
        }
        let (found, _) = looked_up.unwrap();
        for (label, place_mm) in found.values.iter().zip(places_mm(&own)) {
            let there = voxel_at(&other, place_mm).map_or(0, |voxel| dense.values[voxel] as u8);
            assert_eq!(*label, there, "{seed}");
        }
    }
    assert!(lost > 100, "some labels must lie outside: {lost}");
}

#[test]
fn labels_elsewhere_mirrored_or_nowhere_are_not_carried() {
    let said = |change: &dyn Fn(&mut File)| {
        let mut labels = scribble();
        change(&mut labels);
        carried(&image(), &labels, &strokes()).map(|(labels, said)| (labels.values, said))
    };
    let sform = |change: &dyn Fn(&mut [[f32; 4]; 3])| {
        let mut matrix = straight();
        change(&mut matrix);
        Some(matrix)
    };
    insta::assert_snapshot!(said(&|file| file.sform = sform(&|m| m[1][3] += 500.0)).unwrap_err(), @r"
    error: `FOLDER/labels.nii` shares no voxel with its image `FOLDER/image.nii`: their middles lie 500.0 mm apart

    hint: see whether it was drawn on this image, and draw or resample the labels on it
    ");
    insta::assert_snapshot!(said(&|file| file.sform = sform(&|m| m[0][0] = -1.5)).unwrap_err(), @r"
    error: `FOLDER/labels.nii` has columns that run the other way than those of its image, from the same first voxel, expected it on its image

    hint: draw or resample the labels on the image itself
    ");
    let nowhere = said(&|file| {
        (file.sform, file.extents, file.values) = (None, vec![4, 3, 1], vec![9.0; 12]);
    });
    assert!(nowhere.unwrap_err().contains("has shape [1, 3, 4], expected [2, 3, 4]"));
    // What lies on its image is taken as it is, without a word, however it is stored.
    let same = said(&|_| {}).unwrap();
    assert_eq!(same.0[..3], [0, 1, 1]);
    assert!(same.1.is_empty());
}

#[test]
fn only_labels_that_would_get_somewhere_can_be_carried() {
    let folder = TempDir::new().unwrap();
    let can = |labels: File| {
        let path = folder.path().join("labels.nii");
        fs::write(&path, labels.bytes()).unwrap();
        FileGrid::from(&scan_grid(folder.path())).can_be_carried(&path)
    };
    let moved = |mm: f32| {
        let mut sform = straight();
        sform[0][3] += mm;
        File { sform: Some(sform), ..scribble() }
    };
    assert!(can(moved(1.0)) && !can(moved(0.0)) && !can(moved(99.0)));
    assert!(!can(File { sform: None, ..scribble() }));
}

fn scan_grid(folder: &Path) -> Grid {
    let path = folder.join("image.nii");
    fs::write(&path, image().bytes()).unwrap();
    read_grid(&path, &Notes::default()).unwrap().grid
}

/// Eight scans of five patients with two classes, in folders: strokes with labels 1 to 4, of which 3 and 4 both are the
/// vessel, and dense labels of all but the last with their own numbers.
fn written(folder: &Path) {
    for name in ["images", "scribbles", "dense"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    let names = ["p1_a", "p1_b", "p2_a", "p3_a", "p3_b", "p4_a", "p4_b", "p5_a"];
    for (number, name) in names.into_iter().enumerate() {
        let write = |path: String, file: File| fs::write(folder.join(path), file.bytes()).unwrap();
        write(format!("images/{name}.nii"), image());
        let mut values = vec![0.0; 24];
        values[..4].copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
        if number == 2 {
            // Drawn on another grid.
            let moved = along([4, 3, 2], [1.5, 2.0, 8.0], [-19.5, 30.5, 6.0], values);
            write(format!("scribbles/{name}.nii"), moved);
        } else if number != 6 {
            write(format!("scribbles/{name}.nii"), file(&values));
        }
        if number != 7 {
            let dense = (0..24).map(|voxel| if voxel < 4 { 100.0 } else { f64::from(voxel % 2) });
            write(format!("dense/{name}.nii"), file(&dense.collect::<Vec<_>>()));
        }
    }
    // As a spreadsheet in Germany saves it.
    let table = "\u{feff}case;patient;part;classes\r\np1_a;p1;train;\r\np1_b;p1;;\r\np2_a;p2;;\"lesion;vessel\"\r\n\
                 p3_a;p3;;\r\np3_b;p3;;\r\np4_a;p4;test;\r\np4_b;p4;test;\r\np5_a;p5;;\r\n";
    fs::write(folder.join("cases.csv"), table).unwrap();
}

fn prepare(folder: &Path, arguments: &[&str]) -> String {
    let words = arguments.iter().map(|word| match word.strip_prefix('@') {
        Some(name) => folder.join(name).to_str().unwrap().to_owned(),
        None => (*word).to_owned(),
    });
    let words: Vec<String> =
        ["prepare".into(), "own-data".into()].into_iter().chain(words).collect();
    let output = scrimp(&words.iter().map(String::as_str).collect::<Vec<_>>());
    complaint(&output).replace(folder.to_str().unwrap(), "FOLDER")
}

#[test]
fn a_set_with_everything_is_packed_and_every_mistake_has_its_sentence() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    written(folder);
    let all = [
        "--images",
        "@images",
        "--scribbles",
        "@scribbles",
        "--dense",
        "@dense",
        "--classes",
        "1=background,2=lesion,3+4=vessel",
        "--dense-classes",
        "0=background,1=lesion,100=vessel",
        "--unlabelled",
        "0",
        "--cases",
        "@cases.csv",
        "--to",
        "@set.h5",
    ];
    let with = |more: &[&str]| prepare(folder, &[&all[..], more].concat());
    insta::assert_snapshot!(with(&[]), @r"
    exit code 1
    error: `FOLDER/scribbles/p2_a.nii` is shifted by 1.22 mm against its image (0.12 slices, 0.25 rows, 0.33 columns), expected at most 0.1 voxels

    hint: draw or resample the labels on the image itself
    hint: if both headers are true, `--regrid` carries labels to the voxels of the image on which they lie
    hint: mend or remove the named file, then run the same command again
    ");
    insta::assert_snapshot!(with(&["--test-share", "0.2"]), @r"
    exit code 2
    error: `--test-share` is given, and the table of cases has a column `part`

    hint: leave `--test-share` out, or remove the column
    ");
    let said = with(&["--regrid", "--seed", "5"]);
    insta::assert_snapshot!(said, @r"
    exit code 0
    warning: labels that do not lie on the voxels of their image were carried to the nearest ones: `FOLDER/scribbles/p2_a.nii` (4 labelled voxels, none is lost)
    warning: scribbles of cases to test with are left out, so that nothing learns from them: `p4_a`
    warning: without dense labels, so that its patient is never held out: `p5_a`
    ");
    let dataset = store::read(&folder.join("set.h5")).unwrap();
    assert_eq!(dataset.test_fold, Some(4));
    let fold = |name: &str| dataset.cases.iter().find(|case| case.name == name).unwrap().fold;
    assert_eq!([fold("p4_a"), fold("p4_b"), fold("p5_a")], [4, 4, 0]);
    assert!(fold("p1_a") == fold("p1_b") && fold("p3_a") == fold("p3_b"));
    let of = |name: &str, kind: &str| {
        let case = dataset.cases.iter().find(|case| case.name == name).unwrap();
        case.annotations.get(kind).map(|labels| labels[..5].to_vec())
    };
    let drawn = Some(vec![0, 1, 2, 2, IGNORE]);
    assert_eq!([of("p1_a", SCRIBBLE), of("p2_a", SCRIBBLE)], [drawn.clone(), drawn]);
    assert_eq!([of("p4_a", SCRIBBLE), of("p5_a", DENSE)], [None, None]);
    assert_eq!(of("p4_b", DENSE), Some(vec![2, 2, 2, 2, 0]));
}

#[test]
fn the_command_line_says_what_it_needs() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let said = complaint(&scrimp(&["prepare", "nifti", "--images", "x", "--ignore", "-1"]));
    insta::assert_snapshot!(said, @r"
    exit code 2
    error: `scrimp prepare nifti` is no command: NIfTI and all other formats are packed by `scrimp prepare own-data`

    hint: its options are told by `scrimp prepare own-data --help`
    ");
    let first = |arguments: &[&str]| prepare(folder, arguments);
    let few = ["--images", "@images", "--classes", "a,b", "--to", "@set.h5"];
    let none = first(&few);
    assert!(
        none.contains("exit code 2") && none.contains("--scribbles <DIR>|--dense <DIR>"),
        "{none}"
    );
    let lacking = first(&[&few[..], &["--scribbles", "@scribbles"]].concat());
    assert!(lacking.contains("--unlabelled <LABEL>"), "{lacking}");
}
