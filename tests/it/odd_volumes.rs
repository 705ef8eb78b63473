//! Volumes of odd extents, smaller than a patch, of one slice, without annotation, and a class that is nowhere: DMSPS
//! over volumes learns from them, expands their annotation and labels new ones, or says why not.

use crate::annotating::without_phantom;
use crate::cli::{complaint, scrimp};
use crate::data::write_nifti;
use crate::running::Train;
use scrimp::data::pseudo::EXPANDED;
use scrimp::data::{Case, DENSE, Dataset, IGNORE, SCRIBBLE, store};
use scrimp::preparation::{Intensities, Preparation};
use scrimp::random::Key;
use scrimp::scan::{Grid, Notes, Scan, read_grid};
use std::path::Path;
use tempfile::TempDir;

const CONFIG: &str = "configs/smoke/dmsps-3d.toml";

/// A case of noise; one voxel in `one_in` is annotated, as one of three classes, or none where that is 0.
fn case(name: &str, shape: [usize; 3], fold: u32, one_in: u64) -> Case {
    let mut draws = Key::new(5).purpose(name).draws();
    let count: usize = shape.iter().product();
    let voxels = (0..count).map(|_| draws.uniform() as f32).collect();
    let dense: Vec<u8> = (0..count).map(|_| draws.below(3) as u8).collect();
    let drawn = |&label: &u8| if one_in > 0 && draws.below(one_in) == 0 { label } else { IGNORE };
    let scribble = dense.iter().map(drawn).collect();
    Case {
        name: name.to_owned(),
        patient: name.to_owned(),
        frame: 0,
        fold,
        modality: String::new(),
        classes_annotated: Vec::new(),
        scan: Scan { grid: Grid::unplaced(shape, Some([3.0, 1.0, 1.0])), channels: 1, voxels },
        annotations: [(SCRIBBLE.to_owned(), scribble), (DENSE.to_owned(), dense)].into(),
    }
}

fn dataset() -> Dataset {
    let mut scored = case("f_scored", [2, 9, 9], 2, 4);
    scored.annotations.remove(SCRIBBLE);
    Dataset {
        name: "odd".to_owned(),
        classes: ["background", "a", "b", "nowhere"].map(str::to_owned).to_vec(),
        provenance: String::new(),
        preparation: Some(Preparation::grey(Intensities::AsStored)),
        levels: Vec::new(),
        test_fold: None,
        cases: vec![
            case("a_larger", [17, 37, 33], 0, 20),
            case("b_smaller", [5, 7, 9], 0, 4),
            case("c_slice", [1, 40, 21], 0, 4),
            case("d_unannotated", [3, 33, 35], 0, 0),
            case("e_held_out", [3, 35, 7], 1, 4),
            scored,
        ],
    }
}

/// The configuration on the data set of a file, in which it is packed.
fn packed(dataset: &Dataset, folder: &TempDir) -> [String; 2] {
    let path = folder.path().join("odd.h5");
    store::write(&path, dataset).unwrap();
    [without_phantom(CONFIG, folder), format!("data.path={}", path.display())]
}

fn succeed(words: &[&str]) -> String {
    let output = scrimp(words);
    assert!(output.status.success(), "{}", complaint(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn volumes_of_odd_sizes_are_learnt_from_expanded_and_labelled() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let [config, data] = packed(&dataset(), &folder);
    let run = path("run");
    let sets = [&data, "train.total_steps=3", "train.evaluate_every=3", "train.save_every=3"];
    let ended = Train::new(&config, &run).sets(&sets).succeed();
    assert_eq!(ended.steps().len(), 3);
    for step in ended.steps().values() {
        assert!(step.loss.iter().all(|(_, value)| value.is_finite()), "{:?}", step.loss);
    }
    let run = text(&run);
    let second = path("second.h5");
    let words = ["prepare", "pseudo-labels", "--with", "network", "--uncertainty", "0.999"];
    succeed(&[&words[..], &["--run", &run, "--to", &text(&second)]].concat());
    for (before, after) in dataset().cases.iter().zip(store::read(&second).unwrap().cases) {
        let labels = after.annotations.get(EXPANDED);
        assert_eq!(labels.is_some(), before.fold == 0, "{}", before.name);
        assert!(labels.is_none_or(|labels| labels.len() == before.scan.grid.voxels()));
        assert_eq!(after.scan, before.scan);
    }
    let again = Train::new(&config, &path("stage-2"));
    let data = format!("data.path={}", second.display());
    again.sets(&[&data, "data.annotation=expanded", "train.total_steps=1"]).succeed();
    let images = path("images");
    std::fs::create_dir(&images).unwrap();
    let shapes = [("slice", [1, 19, 50]), ("small", [3, 5, 7]), ("voxel", [1, 1, 1])];
    for (name, shape) in shapes {
        let values: Vec<i16> = (0..shape.iter().product::<usize>()).map(|v| v as i16 % 7).collect();
        write_nifti(&images.join(format!("{name}.nii")), shape, [3.0, 1.0, 1.0], &values);
    }
    let labels = path("labels");
    succeed(&["predict", &run, "--images", &text(&images), "--to", &text(&labels)]);
    for (name, shape) in shapes {
        let file = labels.join(format!("{name}.nii"));
        assert_eq!(read_grid(&file, &Notes::default()).unwrap().grid.shape, shape, "{name}");
    }
}

#[test]
fn volumes_that_nothing_is_learnt_from_are_refused_in_words() {
    let folder = TempDir::new().unwrap();
    let refused = |dataset: &Dataset, sets: &[&str]| {
        let [config, data] = packed(dataset, &folder);
        let run = folder.path().join("run");
        Train::new(&config, &run).set(&data).sets(sets).finish().complaint()
    };
    let mut bare = dataset();
    for labels in bare.cases.iter_mut().filter_map(|case| case.annotations.get_mut(SCRIBBLE)) {
        labels.fill(IGNORE);
    }
    insta::assert_snapshot!(refused(&bare, &[]), @r"
    exit code 2
    error: no pixel of `scribble` is annotated in 26 training slices

    hint: look whether the labels were packed with the right values for classes and for unlabelled pixels
    ");
    for (extent, found) in [("[8, 32, 32]", "8 x 32 x 32"), ("[16, 16, 16]", "16 x 16 x 16")] {
        let said = refused(&dataset(), &[&format!("data.patches.extent={extent}")]);
        let why = format!(
            "error: the network `original` takes volumes of multiples of 16 voxels along each axis, one of them at \
             least 32, found {found}\n"
        );
        assert!(said.starts_with("exit code 2\n") && said.contains(&why), "{said}");
    }
}
