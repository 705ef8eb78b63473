//! Label transfer as its users run it: images alone, labels from a first run, a second run on them.

use crate::cli::{complaint, scrimp};
use crate::running::Train;
use scrimp::data::pseudo::NETWORK;
use scrimp::data::{Case, Dataset, IMAGE_LABEL, store};
use scrimp::runlog::RunEvent;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const SMOKE_CLTN: &str = "configs/smoke/cltn.toml";

/// A folder with a finished run on a handful of images, of which two are there to be tested with.
fn first_stage() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("first");
    let train = Train::new(SMOKE_CLTN, &run);
    let keys = [
        "data.lesion_phantom.test=2",
        "train.total_steps=2",
        "method.params.black_is_background=false",
    ];
    train.sets(&keys).succeed();
    (folder, run)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The images of `run` with what its network says of them.
fn labelled(run: &Path, to: &Path, options: &[&str]) -> Dataset {
    let words = ["prepare", "pseudo-labels", "--with", "network", "--run", text(run)];
    let output = scrimp(&[&words[..], &["--to", text(to)], options].concat());
    assert!(output.status.success(), "{}", complaint(&output));
    store::read(to).unwrap()
}

#[test]
fn a_network_labels_the_images_that_it_was_trained_on() {
    let (folder, run) = first_stage();
    let plain = labelled(&run, &folder.path().join("plain.h5"), &[]);
    let refined = ["--refine", "dense-crf", "--alpha", "4"];
    let refined = labelled(&run, &folder.path().join("refined.h5"), &refined);
    for dataset in [&plain, &refined] {
        let mut with_lesion = 0;
        for case in &dataset.cases {
            let Some(label) = case.annotation_slice(IMAGE_LABEL, 0) else {
                assert!(!case.annotations.contains_key(NETWORK), "{}", case.name);
                continue;
            };
            let found = case.annotation_slice(NETWORK, 0).unwrap();
            assert!(found.iter().all(|&class| class <= label[0]), "{}", case.name);
            with_lesion += usize::from(found.contains(&1));
        }
        assert!(with_lesion > 0 && dataset.provenance.contains("`network` predicted by"));
    }
    // After two steps a mask is about everywhere; the random field knows that black is background.
    let on_black = |dataset: &Dataset| {
        let of_case = |case: &Case| {
            let Some(labels) = case.annotation_slice(NETWORK, 0) else { return 0 };
            let pixels = case.scan.slice(0).chunks_exact(labels.len()).next().unwrap().iter();
            pixels.zip(labels).filter(|&(&red, &label)| red == 0.0 && label == 1).count()
        };
        dataset.cases.iter().map(of_case).sum::<usize>()
    };
    assert!(on_black(&plain) > 0);
    assert_eq!(on_black(&refined), 0);
    let again = scrimp(&[
        "prepare",
        "pseudo-labels",
        "--with",
        "network",
        "--run",
        text(&run),
        "--to",
        text(&folder.path().join("plain.h5")),
    ]);
    assert!(complaint(&again).contains("exists already"));
}

#[test]
fn a_second_stage_goes_on_from_the_weights_and_labels_of_the_first() {
    let (folder, first) = first_stage();
    let path = |name: &str| folder.path().join(name);
    let (images, weights, second) =
        (path("labelled.h5"), path("first.safetensors"), path("second"));
    labelled(&first, &images, &[]);
    let output = scrimp(&["checkpoint", "export", text(&first), "--to", text(&weights)]);
    assert!(output.status.success(), "{}", complaint(&output));
    let stage_2 = "configs/lesion-phantom-cltn-stage-2.toml";
    let path = format!("data.path={}", images.display());
    let mut words =
        vec!["checkpoint", "import", stage_2, "--from", text(&weights), "--run", text(&second)];
    let keys = [
        &path,
        "data.size=32",
        "method.params.width=4",
        "method.params.judge_width=4",
        "method.params.local_layers=3",
        "train.total_steps=2",
        "train.log_every=1",
        "train.device=cpu",
        "train.threads=1",
    ];
    words.extend(keys.iter().flat_map(|key| ["--set", key]));
    let output = scrimp(&words);
    assert!(output.status.success(), "{}", complaint(&output));
    let ended = Train::again(&second).succeed();
    let steps = ended.steps();
    assert_eq!(steps.len(), 2);
    for step in steps.values() {
        assert!(step.loss["generators/lesion_label"] > 0.0, "{step:?}");
    }
}

#[test]
fn labels_that_do_not_say_where_teach_no_masks() {
    let folder = TempDir::new().unwrap();
    let train = Train::new(SMOKE_CLTN, folder.path()).set("method.params.lesion_label=1.0");
    insta::assert_snapshot!(train.finish().complaint(), @r"
    exit code 2
    error: `lesion_label` wants an annotation that shows lesions, and `image_label` only says that there are some
      --> configs/smoke/cltn.toml:21:9
       |
    21 | [method.params]
       |         ^^^^^^

    hint: label the images first: `scrimp prepare pseudo-labels --with network --help`
    ");
}

#[test]
fn a_part_that_chose_nothing_is_scored_and_one_that_was_trained_on_is_not() {
    let (folder, run) = first_stage();
    let evaluate = |options: &[&str]| scrimp(&[&["evaluate", text(&run)], options].concat());
    let scored = evaluate(&["--fold", "2", "--convention", "lesion"]);
    assert!(scored.status.success(), "{}", complaint(&scored));
    let csv = run.join("scores/evaluate-last-lesion-fold-2.csv");
    let csv = std::fs::read_to_string(csv).unwrap();
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("case,jaccard,accuracy,dice,sensitivity,specificity"));
    assert_eq!(lines.filter(|line| line.starts_with("test-")).count(), 2);
    let other = folder.path().join("scribbles");
    Train::new("configs/smoke/partial-ce.toml", &other).set("train.total_steps=1").succeed();
    let refused = scrimp(&["evaluate", text(&other), "--fold", "2"]);
    assert!(complaint(&refused).contains("the run has trained on case"), "{}", complaint(&refused));
}

#[test]
fn a_plain_network_learns_the_labels_of_a_first_stage_in_colour() {
    let (folder, first) = first_stage();
    let images = folder.path().join("labelled.h5");
    labelled(&first, &images, &[]);
    let path = format!("data.path={}", images.display());
    let train = |name: &str| {
        let run = folder.path().join(name);
        Train::new("configs/lesion-phantom-student.toml", &run).sets(&[&path, "data.size=32"])
    };
    let ended = train("run").sets(&["train.total_steps=2", "train.log_every=1"]).succeed();
    assert_eq!(ended.steps().len(), 2);
    // Those that are there to be scored have dense labels alone.
    let started = ended.events().into_iter().find_map(|event| match event {
        RunEvent::RunStarted(started) => Some(started.train_slices),
        _ => None,
    });
    let dataset = store::read(&images).unwrap();
    let with_labels = dataset.cases.iter().filter(|case| case.annotations.contains_key(NETWORK));
    assert_eq!(started, Some(with_labels.count() as u64));
    let run = folder.path().join("run");
    let scored = scrimp(&["evaluate", text(&run), "--fold", "2"]);
    assert!(scored.status.success(), "{}", complaint(&scored));
    let term = train("grey").set("method.params.gated_crf.weight=0.1").finish();
    assert_eq!(term.code, Some(2));
    assert!(term.stderr.contains("`gated_crf` takes grey images"), "{}", term.stderr);
}

#[test]
fn labels_of_whole_images_are_refused_by_methods_that_learn_where_things_are() {
    let folder = TempDir::new().unwrap();
    let images = folder.path().join("lesions.h5");
    let packed =
        ["prepare", "lesion-phantom", "--cases", "4", "--healthy", "4", "--validation", "1"];
    let output = scrimp(&[&packed[..], &["--size", "32", "--to", text(&images)]].concat());
    assert!(output.status.success(), "{}", complaint(&output));
    let config = folder.path().join("grey.toml");
    let text = format!(
        "[data]\npath = \"{}\"\nannotation = \"image_label\"\nsize = 32\n[method]\nname = \"partial-ce\"\n\
         [method.params.learner]\nlr = 0.01\noptimizer = {{ sgd = {{}} }}\n[train]\ntotal_steps = 1\n",
        images.display()
    );
    std::fs::write(&config, text).unwrap();
    let ended = Train::new(config.to_str().unwrap(), &folder.path().join("run")).finish();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("`partial-ce` learns where things are"), "{}", ended.stderr);
}
