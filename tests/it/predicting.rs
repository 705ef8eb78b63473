//! `scrimp predict`: the labels that leave are those that are scored, on the grid of each file; calls are
//! continued, shared out and refused in words.

use crate::cli::{complaint, scrimp};
use crate::running::Train;
use scrimp::comm::Ranks;
use scrimp::config;
use scrimp::config::plan::RunPlan;
use scrimp::config::sampling::Sampling;
use scrimp::data::augment::{zoom_image, zoom_labels};
use scrimp::data::import::phantom::{Difficulty, Phantom, generate};
use scrimp::data::{Case, DENSE, Dataset, SCRIBBLE, store};
use scrimp::methods::{self, Passes, Setup};
use scrimp::preparation::Preparation;
use scrimp::random::Key;
use scrimp::runlog::directory::RunDirectory;
use scrimp::scan::{Coding, Notes, Scan, read, read_grid, read_numbers};
use scrimp::train::Method;
use scrimp::train::checkpoint::{CheckpointStore, restore_predicting};
use scrimp::train::inference::{Inference, Slab, Target};
use scrimp::train::learner::{LearnerSetup, Moments};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tch::{Device, Kind};
use tempfile::TempDir;

/// Rows and columns of the network's input.
const SIZE: usize = 32;
const SPACING_MM: [f32; 3] = [8.0, 1.5, 1.25];

/// A NIfTI-1 file of 16-bit integers.
#[derive(Clone)]
struct Nifti {
    /// Slices, rows, columns.
    shape: [usize; 3],
    values: Vec<i16>,
    /// From columns, rows, slices to millimetres.
    matrix: [[f32; 4]; 3],
    is_big_endian: bool,
    /// Whether a quaternion of no rotation places it, and no matrix.
    has_qform: bool,
    axes: i16,
}

impl Nifti {
    fn new(shape: [usize; 3], values: Vec<i16>) -> Self {
        let [z, y, x] = SPACING_MM;
        let matrix = [[x, 0.0, 0.0, -20.0], [0.0, y, 0.0, 30.0], [0.0, 0.0, z, 5.0]];
        Self { shape, values, matrix, is_big_endian: false, has_qform: false, axes: 3 }
    }

    fn image(case: &Case) -> Self {
        let values = case.scan.voxels.iter().map(|value| (value * 1000.0).round() as i16);
        Self::new(case.scan.grid.shape, values.collect())
    }

    fn labels(case: &Case, kind: &str) -> Self {
        let values = case.annotations[kind].iter().map(|&label| i16::from(label));
        Self::new(case.scan.grid.shape, values.collect())
    }

    /// With columns stored from the other side, lying where it lay.
    fn flipped(&self) -> Self {
        let columns = self.shape[2];
        let rows = self.values.chunks_exact(columns);
        let values = rows.flat_map(|row| row.iter().rev().copied()).collect();
        let mut matrix = self.matrix;
        for line in &mut matrix {
            line[3] += line[0] * (columns - 1) as f32;
            line[0] = -line[0];
        }
        Self { values, matrix, ..self.clone() }
    }

    /// Turned in the scanner.
    fn oblique(&self) -> Self {
        let [z, y, x] = SPACING_MM;
        let matrix =
            [[0.8 * x, -0.6 * y, 0.0, 3.0], [0.6 * x, 0.8 * y, 0.0, -7.0], [0.0, 0.0, z, 11.0]];
        Self { matrix, ..self.clone() }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0u8; 352];
        let order = |mut raw: Vec<u8>| {
            if self.is_big_endian {
                raw.reverse();
            }
            raw
        };
        let mut put =
            |at: usize, raw: Vec<u8>| bytes[at..at + raw.len()].copy_from_slice(&order(raw));
        put(0, 348i32.to_le_bytes().into());
        let [slices, rows, columns] = self.shape.map(|extent| extent as i16);
        for (index, extent) in [self.axes, columns, rows, slices, 1].into_iter().enumerate() {
            put(40 + 2 * index, extent.to_le_bytes().into());
        }
        put(70, 4i16.to_le_bytes().into());
        put(72, 16i16.to_le_bytes().into());
        let [z, y, x] = SPACING_MM;
        for (index, size) in [1.0, x, y, z, 1.0].into_iter().enumerate() {
            put(76 + 4 * index, size.to_le_bytes().into());
        }
        put(108, 352f32.to_le_bytes().into());
        put(252, i16::from(self.has_qform).to_le_bytes().into());
        put(254, i16::from(!self.has_qform).to_le_bytes().into());
        for (axis, line) in self.matrix.iter().enumerate() {
            put(268 + 4 * axis, line[3].to_le_bytes().into());
            for (index, value) in line.iter().enumerate() {
                put(280 + 4 * (4 * axis + index), value.to_le_bytes().into());
            }
        }
        bytes[123] = 2;
        bytes[344..348].copy_from_slice(b"n+1\0");
        for value in &self.values {
            bytes.extend(order(value.to_le_bytes().into()));
        }
        bytes
    }
}

/// A folder with NIfTI images, their labels, the packed file of them, and runs that were trained on it.
struct Trained {
    folder: TempDir,
    dataset: Dataset,
}

impl Trained {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let difficulty = Difficulty::Easy;
        let phantom = Phantom { cases: 5, slices: 3, size: 40, difficulty, seed: 3 };
        let phantom = generate(&phantom).unwrap();
        for kind in ["images", "scribbles", "dense"] {
            fs::create_dir(folder.path().join(kind)).unwrap();
        }
        for case in &phantom.cases {
            let write = |kind: &str, file: &Nifti| {
                let path = folder.path().join(kind).join(format!("{}.nii", case.name));
                fs::write(path, file.bytes()).unwrap();
            };
            write("images", &Nifti::image(case));
            write("scribbles", &Nifti::labels(case, SCRIBBLE));
            write("dense", &Nifti::labels(case, DENSE));
        }
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let pack = path("pack.h5");
        let [images, scribbles, dense] = ["images", "scribbles", "dense"].map(path);
        let words = ["prepare", "own-data", "--images", &images, "--scribbles", &scribbles];
        let labels = ["--dense", &dense, "--unlabelled", "255", "--to", &pack];
        let classes = ["--classes", &phantom.classes.join(",")];
        let packed = scrimp(&[&words[..], &labels, &classes].concat());
        assert!(packed.status.success(), "{}", complaint(&packed));
        let config = format!(
            "[data]\npath = {pack:?}\nfold = 1\nsize = {SIZE}\n[method]\nname = \"partial-ce\"\n\
             [method.params.learner]\nlr = 0.05\noptimizer = {{ sgd = {{ momentum = 0.9 }} }}\n\
             [train]\ntotal_steps = 30\nbatch_size = 4\nseed = 1\nevaluate_every = 30\nsave_every = 15\n"
        );
        fs::write(folder.path().join("config.toml"), &config).unwrap();
        // Larger than the scans, and several slices deep.
        let patches = "[data.patches]\nextent = [4, 32, 48]\nper_case = 2\n[method]";
        let config = config.replace(&format!("size = {SIZE}\n"), "").replace("[method]", patches);
        fs::write(folder.path().join("patches.toml"), config).unwrap();
        let dataset = store::read(Path::new(&pack)).unwrap();
        let trained = Self { folder, dataset };
        trained.train("config.toml", "run", &[]);
        trained
    }

    fn train(&self, config: &str, run: &str, overrides: &[&str]) {
        let config = self.path(config);
        Train::new(config.to_str().unwrap(), &self.path(run)).sets(overrides).succeed();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn newest_checkpoint(&self, run: &str) -> PathBuf {
        let checkpoints = RunDirectory::new(self.path(run)).checkpoints();
        CheckpointStore::new(checkpoints).paths().unwrap().pop().unwrap()
    }

    /// `scrimp COMMAND WORDS`, whose words that begin with `@` are paths in the folder.
    fn words(&self, command: &str, words: &str) -> Vec<String> {
        let word = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.path(name).to_str().unwrap().to_owned(),
            None => word.to_owned(),
        };
        let words = words.split_whitespace().map(word);
        [command.to_owned()].into_iter().chain(words).collect()
    }

    fn scrimp(&self, command: &str, words: &str) -> Output {
        scrimp(&self.words(command, words).iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// `scrimp predict`, which must succeed.
    fn predict(&self, words: &str) -> Output {
        let output = self.scrimp("predict", words);
        assert!(output.status.success(), "{}", complaint(&output));
        output
    }

    fn on_two_ranks(&self, command: &str, words: &str) -> Output {
        Command::new("mpirun")
            .args(["--oversubscribe", "--bind-to", "none", "-n", "2"])
            .arg(env!("CARGO_BIN_EXE_scrimp"))
            .args(self.words(command, words))
            .envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")])
            .env("OMPI_MCA_mpi_yield_when_idle", "1")
            .output()
            .expect("mpirun starts")
    }

    fn predict_on_two_ranks(&self, words: &str) {
        let output = self.on_two_ranks("predict", words);
        assert!(output.status.success(), "{}", complaint(&output));
    }

    /// What is said of a prediction that must fail.
    fn refusal(&self, words: &str) -> String {
        self.refusal_of("predict", words)
    }

    /// What is said of what must fail. How much memory is needed depends on the machine.
    fn refusal_of(&self, command: &str, words: &str) -> String {
        let folder = self.folder.path().to_str().unwrap();
        let output = self.scrimp(command, words);
        assert!(!output.status.success());
        let text = complaint(&output).replace(folder, "FOLDER");
        let size = regex::Regex::new("about [0-9.]+ [KMG]iB").unwrap();
        size.replace_all(&text, "about N MiB").into_owned()
    }

    fn bytes(&self, file: &str) -> Vec<u8> {
        fs::read(self.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    fn labels(&self, file: &str) -> Vec<u8> {
        labels(&self.path(file))
    }

    /// The network of the newest checkpoint of `run`, which sees images of so many channels.
    fn method(&self, run: &str, channels: i64) -> Box<dyn Method> {
        let directory = RunDirectory::new(self.path(run));
        let config = config::read(&directory.config(), &[]).unwrap();
        let definition = methods::find(&config.method.name).unwrap();
        let params = (definition.check)(&config).unwrap();
        let plan = RunPlan::resolve(config, 1).unwrap();
        let setup = Setup {
            learner: LearnerSetup {
                key: Key::new(plan.train.seed).purpose("weights"),
                kind: Kind::Float,
                computed: Kind::Float,
                device: Device::Cpu,
                moments: Moments::Whole,
            },
            classes: self.dataset.classes.len() as i64,
            channels,
            passes: Passes::new(true, None),
            slices: Vec::new(),
            sample: plan.data.sampling.extent(),
            spacing_mm: None,
            levels: Vec::new(),
        };
        let method = (definition.build)(&params, &setup).unwrap();
        restore_predicting(&self.newest_checkpoint(run), &*method, &Ranks::alone()).unwrap();
        method
    }
}

fn labels(file: &Path) -> Vec<u8> {
    let scan = read(file, &Notes::default()).unwrap();
    scan.voxels.iter().map(|&label| label as u8).collect()
}

/// What is scored of a prepared scan.
fn scored(method: &dyn Method, scan: &Scan) -> Vec<u8> {
    let target = Target { kind: Kind::Float, device: Device::Cpu };
    let inference = Inference::new(vec![method], Sampling::Slices { size: SIZE }, target);
    let [_, rows, columns] = scan.grid.shape;
    let labels = inference.labels(scan).unwrap();
    let slices = labels.chunks_exact(SIZE * SIZE);
    slices.flat_map(|slice| zoom_labels(slice, [SIZE; 2], [rows, columns])).collect()
}

/// Labels of files are those that are scored, to the last one, however the file is stored.
fn leave_as_they_are_scored(trained: &Trained) {
    let method = trained.method("run", 1);
    let held_out = trained.dataset.held_out(1).unwrap();
    trained.predict("@run --images @images --to @to");
    for case in &held_out {
        let found = trained.labels(&format!("to/{}.nii", case.name));
        assert!(found == scored(&*method, &case.scan), "{}", case.name);
        assert!(found.iter().any(|&label| label > 0), "otherwise this says little");
    }
    let scores = trained.path("scores.csv");
    let words = ["evaluate", trained.folder.path().join("run").to_str().unwrap(), "--to"]
        .map(str::to_owned);
    let evaluated = scrimp(&[&words[0], &words[1], &words[2], scores.to_str().unwrap()]);
    assert!(evaluated.status.success(), "{}", complaint(&evaluated));
    for row in csv::Reader::from_path(scores).unwrap().records() {
        let row = row.unwrap();
        let [found, truth] =
            ["to", "dense"].map(|kind| trained.labels(&format!("{kind}/{}.nii", &row[0])));
        let class = trained.dataset.classes.iter().position(|name| *name == row[1]).unwrap() as u8;
        let count =
            |labels: &[u8]| labels.iter().map(|&label| usize::from(label == class)).sum::<usize>();
        let both = found.iter().zip(&truth).filter(|&(a, b)| a == b && *a == class).count();
        let dice = 2.0 * both as f64 / (count(&found) + count(&truth)) as f64;
        assert_eq!(row[2].parse::<f64>().unwrap(), dice, "{row:?}");
    }
    lie_where_their_image_lies(trained, held_out[0], &*method);
    are_scored_without_files(trained, &held_out);
}

/// What a run predicts of files has the Dice of its held-out fold, and all scores of the files that it writes.
fn are_scored_without_files(trained: &Trained, held_out: &[&Case]) {
    for (from, to) in [("images", "new-images"), ("dense", "new-labels"), ("to", "new-predictions")]
    {
        fs::create_dir(trained.path(to)).unwrap();
        for case in held_out {
            let file = format!("{}.nii", case.name);
            fs::copy(trained.path(from).join(&file), trained.path(to).join(&file)).unwrap();
        }
    }
    let classes = trained.dataset.classes.join(",");
    let evaluated = |words: &str| {
        // Names of classes have spaces.
        let words = trained.words("evaluate", words);
        let words = words.iter().map(|word| if word == "CLASSES" { &classes } else { word });
        let output = scrimp(&words.map(String::as_str).collect::<Vec<_>>());
        assert!(output.status.success(), "{}", complaint(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let images = "--images @new-images --labels @new-labels --tolerance 2";
    let printed = evaluated(&format!("@run {images}"));
    let table = trained.path("run/scores/evaluate-files-last.csv");
    let files = "--predictions @new-predictions --labels @new-labels --tolerance 2";
    let of_files = evaluated(&format!("{files} --classes CLASSES --to @of-files.csv"));
    let means = |text: &str| text.rsplit_once(" in `").unwrap().0.to_owned();
    assert_eq!(means(&printed), means(&of_files));
    assert_eq!(fs::read(&table).unwrap(), trained.bytes("of-files.csv"));
    let dice = |path: &Path| -> Vec<[String; 3]> {
        let mut table = csv::Reader::from_path(path).unwrap();
        let rows = table.records().map(|row| row.unwrap());
        let mut rows: Vec<_> = rows.map(|row| [0, 1, 2].map(|cell| row[cell].to_owned())).collect();
        rows.sort();
        rows
    };
    assert_eq!(dice(&table), dice(&trained.path("scores.csv")));
    let newest = trained.newest_checkpoint("run");
    let newest = newest.display();
    evaluated(&format!("{newest} {images} --to @of-checkpoint.csv"));
    assert_eq!(trained.bytes("of-checkpoint.csv"), trained.bytes("of-files.csv"));
    evaluated(&format!("@run --checkpoint best {images} --classes CLASSES"));
    assert!(trained.path("run/scores/evaluate-files-best.csv").exists());
    what_cannot_be_scored_is_refused(trained, &held_out[0].name);
}

fn what_cannot_be_scored_is_refused(trained: &Trained, name: &str) {
    let mut told = String::new();
    let mut refuse = |words: &str| {
        let newest = trained.newest_checkpoint("run");
        let words = words.replace("CHECKPOINT", newest.to_str().unwrap());
        told += &trained.refusal_of("evaluate", &format!("{words} --tolerance 2"));
        told += "\n";
    };
    let truth = trained.path(&format!("new-labels/{name}.nii"));
    let both = "--images @new-images --labels @new-labels";
    refuse(&format!("CHECKPOINT {both}"));
    refuse(&format!("@run {both} --classes background,liver"));
    fs::create_dir(trained.path("no-images")).unwrap();
    refuse("@run --images @no-images --labels @new-labels");
    refuse("@run --images @images --labels @new-labels");
    refuse("@run --images @new-images --labels @dense");
    let good = fs::read(&truth).unwrap();
    let mut wrong = good.clone();
    wrong[352] = 9;
    fs::write(&truth, wrong).unwrap();
    refuse(&format!("@run {both}"));
    fs::write(&truth, good).unwrap();
    fs::create_dir(trained.path("colours")).unwrap();
    fs::create_dir(trained.path("colour-labels")).unwrap();
    image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([x as u8, y as u8, 200]))
        .save(trained.path("colours/a.png"))
        .unwrap();
    image::GrayImage::new(9, 7).save(trained.path("colour-labels/a.png")).unwrap();
    refuse("@run --images @colours --labels @colour-labels");
    insta::assert_snapshot!("not_scored", told);
    let output = trained.on_two_ranks("evaluate", &format!("@run {both} --to @shared.csv"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("error: files are scored on one process, started on 2 ranks\n"),
        "{said}"
    );
    assert!(!trained.path("shared.csv").exists());
}

/// The same heart in other files: the network sees what is stored, and so the same unless it is flipped.
fn lie_where_their_image_lies(trained: &Trained, case: &Case, method: &dyn Method) {
    fs::create_dir(trained.path("variants")).unwrap();
    let plain =
        Nifti { values: stored(trained, &case.name), ..Nifti::new(case.scan.grid.shape, vec![]) };
    let variants = [
        ("oblique", plain.oblique()),
        ("big", Nifti { is_big_endian: true, ..plain.clone() }),
        ("qform", Nifti { has_qform: true, ..plain.clone() }),
        ("four", Nifti { axes: 4, ..plain.clone() }),
        ("flipped", plain.flipped()),
    ];
    for (name, file) in &variants {
        fs::write(trained.path(&format!("variants/{name}.nii")), file.bytes()).unwrap();
    }
    trained.predict("@run --images @variants --to @to-variants");
    let columns = case.scan.grid.shape[2];
    let mut flipped = case.scan.clone();
    flipped.voxels.chunks_exact_mut(columns).for_each(<[f32]>::reverse);
    for (name, _) in &variants {
        let is_flipped = *name == "flipped";
        let scan = if is_flipped { &flipped } else { &case.scan };
        let found = format!("to-variants/{name}.nii");
        assert!(trained.labels(&found) == scored(method, scan), "{name}");
        let grid = |file: &str| read(&trained.path(file), &Notes::default()).unwrap().grid;
        assert_eq!(grid(&found), grid(&format!("variants/{name}.nii")), "{name}");
    }
    let header = |file: &str| trained.bytes(file)[252..344].to_vec();
    assert_eq!(header("to-variants/qform.nii"), header("variants/qform.nii"));
    // The same for 3D Slicer, with the names of the classes.
    trained.predict("@run --images @variants/oblique.nii --to @to-slicer --format seg.nrrd");
    let found = "to-slicer/oblique.seg.nrrd";
    assert_eq!(trained.labels(found), trained.labels("to-variants/oblique.nii"));
    let drawn = read_numbers(&trained.path(found), &Notes::default()).unwrap();
    let names = drawn.segments().iter().map(|segment| &segment.name);
    assert!(names.eq(&trained.dataset.classes[1..]));
    let image = read_grid(&trained.path("variants/oblique.nii"), &Notes::default()).unwrap();
    let coding = Coding::classes(trained.dataset.classes.len());
    image.labels_at(&trained.path(found), &coding, &Notes::default()).unwrap();
    come_of_slices(trained);
}

/// A folder of slices of DICOM is an image, and TIFF says beside itself how far voxels are apart.
fn come_of_slices(trained: &Trained) {
    let slices = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/formats/series-ct");
    let folder = trained.path("series/heart");
    fs::create_dir_all(&folder).unwrap();
    for slice in ["IM1", "IM2", "IM3"] {
        fs::copy(slices.join(slice), folder.join(slice)).unwrap();
    }
    trained.predict("@run --images @series --to @to-series --format tif --uncertainty");
    let labels = read(&trained.path("to-series/heart.tif"), &Notes::default()).unwrap();
    let image = read(&folder, &Notes::default()).unwrap();
    assert_eq!(labels.grid.shape, image.grid.shape);
    assert_eq!(labels.grid.spacing_mm, image.grid.spacing_mm);
    // NIfTI lies on the slices.
    let uncertainty = trained.path("to-series/heart.uncertainty.nii.gz");
    let uncertainty = read(&uncertainty, &Notes::default()).unwrap().grid;
    for (found, expected) in
        [[0.0; 3], [2.0; 3]].map(|at| (uncertainty.position_mm(at), image.grid.position_mm(at)))
    {
        let (found, expected) = (found.unwrap(), expected.unwrap());
        assert!(
            found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-4)
        );
    }
    let record = String::from_utf8(trained.bytes("to-series/heart.record.json")).unwrap();
    for file in ["IM1", "IM2", "IM3", "heart.tif", "heart.json"] {
        assert!(record.contains(&format!("\"{file}\"")), "{file}: {record}");
    }
}

/// The numbers in the file of an image.
fn stored(trained: &Trained, name: &str) -> Vec<i16> {
    let bytes = trained.bytes(&format!("images/{name}.nii"));
    bytes[352..].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// What is finished stays, what is not is made anew, and nobody's work is lost.
fn are_continued(trained: &Trained) {
    let names: Vec<String> = trained.dataset.cases.iter().map(|case| case.name.clone()).collect();
    let record = |name: &str| format!("to/{name}.record.json");
    let before: Vec<_> = names.iter().map(|name| trained.bytes(&record(name))).collect();
    let labels = |name: &str| trained.labels(&format!("to/{name}.nii"));
    let expected: Vec<_> = names.iter().map(|name| labels(name)).collect();
    fs::remove_file(trained.path(&record(&names[0]))).unwrap();
    fs::write(trained.path(&record(&names[1])), &before[1][..20]).unwrap();
    fs::remove_file(trained.path(&format!("to/{}.nii", names[2]))).unwrap();
    let output = trained.predict("@run --images @images --to @to");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("5 images, 2 finished before"), "{told}");
    for (index, name) in names.iter().enumerate() {
        assert_eq!(labels(name), expected[index]);
        assert_eq!(trained.bytes(&record(name)) == before[index], index > 2, "{name}");
    }
    let one = format!("@images/{}.nii", names[0]);
    trained.predict(&format!("@run --images {one} --to @to --uncertainty --keep-largest=6"));
    let uncertainty = trained.path(&format!("to/{}.uncertainty.nii", names[0]));
    let entropy = read(&uncertainty, &Notes::default()).unwrap();
    assert!(entropy.voxels.iter().all(|share| (0.0..=1.0).contains(share)));
    assert!(entropy.voxels.iter().any(|&share| share > 0.1));
    let table = String::from_utf8(trained.bytes("to/summary.csv")).unwrap();
    assert_eq!(table.lines().count(), 6, "{table}");
    for row in csv::Reader::from_reader(table.as_bytes()).records() {
        let row = row.unwrap();
        let [all, inference, export] = [2, 3, 4].map(|cell| row[cell].parse::<f64>().unwrap());
        let parts = inference + export;
        assert!((0.0..=all + 0.02).contains(&parts), "{table}");
    }
    fs::write(trained.path(&format!("to/{}.nii", names[0])), "corrected").unwrap();
    insta::assert_snapshot!(trained.refusal(&format!("@run --images {one} --to @to")));
    assert_eq!(trained.bytes(&format!("to/{}.nii", names[0])), b"corrected");
}

/// Ranks share images out, or the windows of one.
fn are_the_same_on_two_ranks(trained: &Trained) {
    let name = &trained.dataset.cases[0].name;
    let told = trained.predict("@run --images @images --to @to-one --memory 64GB --json");
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(
        (&told["segmented"], &told["failed"]),
        (&trained.dataset.cases.len().into(), &0.into())
    );
    assert!(told["cases"][name]["outcome"]["structures"][0]["volume_ml"].as_f64().unwrap() > 0.0);
    // What a call would take is known before it is made.
    let told = trained.scrimp("doctor", "data @images --run @run");
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(
        told.status.success() && said.contains("\npredicting: `"),
        "{}{said}",
        complaint(&told)
    );
    assert!(said.contains(" voxels takes about "), "{said}");
    trained.predict_on_two_ranks("@run --images @images --to @to-two");
    trained.predict_on_two_ranks(&format!("@run --images @images/{name}.nii --to @to-shared"));
    for case in &trained.dataset.cases {
        let file = format!("{}.nii", case.name);
        assert_eq!(
            trained.bytes(&format!("to-one/{file}")),
            trained.bytes(&format!("to-two/{file}"))
        );
    }
    let one = trained.bytes(&format!("to-one/{name}.nii"));
    assert_eq!(one, trained.bytes(&format!("to-shared/{name}.nii")));
}

/// Probabilities of several are the mean, also of checkpoints that lie by themselves.
fn are_means(trained: &Trained) {
    let name = &trained.dataset.cases[0].name;
    fs::rename(trained.path("run/checkpoints/step-00000015"), trained.path("step-00000015"))
        .unwrap();
    let members = ["@step-00000015", "@run", "@step-00000015 @run"];
    let levels = |number: usize| -> Vec<u8> {
        let to = format!("to-mean-{number}");
        let image = format!("--images @images/{name}.nii --to @{to} --probabilities --mirrors");
        trained.predict(&format!("{} {image}", members[number]));
        let file = trained.path(&format!("{to}/{name}.probabilities.h5"));
        let array = hdf5::File::open(file).unwrap().dataset("probabilities").unwrap();
        assert_eq!(array.shape(), [trained.dataset.classes.len(), 3, 40, 40]);
        array.read_raw().unwrap()
    };
    let [first, second, both] = [levels(0), levels(1), levels(2)];
    assert!(first != second);
    for ((&a, &b), &mean) in first.iter().zip(&second).zip(&both) {
        let expected = f64::midpoint(f64::from(a), f64::from(b));
        assert!((f64::from(mean) - expected).abs() <= 1.0, "{a} {b} {mean}");
    }
}

/// Of windows, too, which may be larger than the scan.
fn come_from_windows(trained: &Trained) {
    trained.train("patches.toml", "patches", &["train.total_steps=4"]);
    let case = trained.dataset.held_out(1).unwrap()[0];
    let image = format!("@images/{}.nii", case.name);
    trained
        .predict(&format!("@patches --images {image} --to @to-patches --mirrors --overlap 0.25"));
    let method = trained.method("patches", 1);
    let sampling = Sampling::Patches { extent: [4, 32, 48], per_case: 2, foreground_share: 0.5 };
    let target = Target { kind: Kind::Float, device: Device::Cpu };
    let mut inference = Inference::new(vec![&*method], sampling, target);
    (inference.mirrors, inference.overlap) = (true, 0.25);
    let found = trained.labels(&format!("to-patches/{}.nii", case.name));
    assert!(found == inference.labels(&case.scan).unwrap());
    // A slice by itself, of which the windows see little.
    let slice = Nifti::new([1, 20, 60], stored(trained, &case.name)[..1200].to_vec());
    fs::write(trained.path("slice.nii"), Nifti { axes: 2, ..slice }.bytes()).unwrap();
    trained.predict("@patches --images @slice.nii --to @to-patches --mirrors --overlap 0.25");
    let scan = read(&trained.path("slice.nii"), &Notes::default()).unwrap();
    let prepared = trained.dataset.preparation.as_ref().unwrap().apply(scan).unwrap();
    assert!(prepared.regrid.is_same());
    let found = trained.labels("to-patches/slice.nii");
    assert_eq!(found.len(), 1200);
    assert!(found == inference.labels(&prepared.scan).unwrap());
}

/// Pictures, in colour where they are not grey: labels as they are scored, and the entropy of each pixel.
fn come_of_pictures(trained: &Trained) {
    let mut dataset = trained.dataset.clone();
    dataset.preparation = Some(Preparation::colours());
    for case in &mut dataset.cases {
        case.scan = case.scan.clone().into_colours();
    }
    store::write(&trained.path("colours.h5"), &dataset).unwrap();
    let packed = format!("data.path={:?}", trained.path("colours.h5").to_str().unwrap());
    trained.train("config.toml", "colourful", &[&packed, "train.total_steps=8"]);
    fs::create_dir(trained.path("pictures")).unwrap();
    let [red, green] = [5, 3].map(|step| move |x: u32, y: u32| ((x * step + y * 7) % 256) as u8);
    let pixel = |x, y| image::Rgb([red(x, y), green(x, y), red(y, x)]);
    let picture = image::RgbImage::from_fn(45, 37, pixel);
    picture.save(trained.path("pictures/colours.png")).unwrap();
    picture.save(trained.path("pictures/lossy.jpg")).unwrap();
    let grey = image::GrayImage::from_fn(9, 50, |x, y| image::Luma([green(x, y)]));
    grey.save(trained.path("pictures/grey.png")).unwrap();
    trained.predict("@colourful --images @pictures --to @to-pictures --uncertainty");
    let method = trained.method("colourful", 3);
    let target = Target { kind: Kind::Float, device: Device::Cpu };
    let mut inference = Inference::new(vec![&*method], Sampling::Slices { size: SIZE }, target);
    inference.is_in_colour = true;
    for (file, extents) in
        [("colours.png", [37, 45]), ("lossy.jpg", [37, 45]), ("grey.png", [50, 9])]
    {
        let scan = read(&trained.path(&format!("pictures/{file}")), &Notes::default()).unwrap();
        let scan = Preparation::colours().apply(scan.into_colours()).unwrap().scan;
        assert_eq!(scan.grid.shape[1..], extents);
        let name = file.split_once('.').unwrap().0;
        let labels = trained.labels(&format!("to-pictures/{name}.png"));
        let expected = inference.labels(&scan).unwrap();
        assert!(labels == zoom_labels(&expected, [SIZE; 2], extents), "{file}");
        let levels = trained.labels(&format!("to-pictures/{name}.uncertainty.png"));
        assert_eq!(levels, entropy_levels(&inference, &scan), "{file}");
        assert!(levels.iter().any(|&level| level > 20), "otherwise this says little");
    }
}

/// The entropy of each pixel of a picture, of 255 where all classes are equally probable.
fn entropy_levels(inference: &Inference<'_>, scan: &Scan) -> Vec<u8> {
    let [_, rows, columns] = scan.grid.shape;
    let mut sums = vec![0.0; rows * columns];
    let mut take = |slab: Slab| {
        let classes = slab.probabilities.size()[0];
        for class in 0..classes {
            let plane = Vec::<f32>::try_from(slab.probabilities.get(class).view([-1])).unwrap();
            let shares = zoom_image(&plane, [SIZE; 2], [rows, columns]);
            for (sum, share) in sums.iter_mut().zip(shares) {
                // What the zoom leaves out is background for certain.
                let share = f64::from(share).max(f64::MIN_POSITIVE);
                *sum -= share * share.ln() / (classes as f64).ln();
            }
        }
        Ok(())
    };
    inference.each_slab(scan, &mut take).unwrap();
    sums.into_iter().map(|sum| (sum * 255.0).round() as u8).collect()
}

/// Checkpoints whose answers are not of the same voxels and classes, told from their tables of contents alone.
fn are_not_mixed(trained: &Trained) {
    let mut told = String::new();
    let changes: [(&str, &str, &str); 3] = [
        ("of-other-channels", "name = \"image\"", "name = \"ct\""),
        ("otherwise-cropped", "crop = \"none\"", "crop = \"nonzero\""),
        ("otherwise-scaled", "intensities = \"robust\"", "intensities = \"eight_bit\""),
    ];
    for (name, from, to) in changes {
        fs::create_dir(trained.path(name)).unwrap();
        let manifest = trained.path("step-00000015/manifest.json");
        fs::copy(manifest, trained.path(&format!("{name}/manifest.json"))).unwrap();
        edit_manifest(&trained.path(name), |manifest| {
            let config = manifest["config"].as_str().unwrap();
            assert!(config.contains(from), "{config}");
            manifest["config"] = config.replace(from, to).into();
        });
        let words = format!("@step-00000015 @{name} --images @images --to @to-bad");
        told += &trained.refusal(&words);
        told += "\n";
    }
    insta::assert_snapshot!("not_mixed", told);
}

/// Changes the table of contents of a checkpoint, whose digest is made anew.
fn edit_manifest(checkpoint: &Path, edit: impl FnOnce(&mut serde_json::Value)) {
    let manifest = checkpoint.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value.as_object_mut().unwrap().remove("xxh3").unwrap();
    edit(&mut value);
    let text = serde_json::to_string_pretty(&value).unwrap();
    let body = text.strip_suffix("\n}").unwrap();
    let digest = xxhash_rust::xxh3::xxh3_64(body.as_bytes());
    fs::write(&manifest, format!("{body},\n  \"xxh3\": \"{digest:016x}\"\n}}\n")).unwrap();
}

/// Of the middle of slices, around which everything is background.
fn come_from_crops(trained: &Trained) {
    let crop = ["data.fit=crop", "data.outside=background", "data.augment=full_rotation"];
    trained.train("config.toml", "crops", &[&crop[..], &["train.total_steps=4"]].concat());
    let case = trained.dataset.held_out(1).unwrap()[0];
    trained.predict(&format!("@crops --images @images/{}.nii --to @to-crops", case.name));
    let method = trained.method("crops", 1);
    let target = Target { kind: Kind::Float, device: Device::Cpu };
    let inference = Inference::new(vec![&*method], Sampling::Cropped { size: SIZE }, target);
    let found = trained.labels(&format!("to-crops/{}.nii", case.name));
    assert!(found == inference.labels(&case.scan).unwrap());
    let [_, rows, columns] = case.scan.grid.shape;
    let inner = |at: usize, extent: usize| at.wrapping_sub((extent - SIZE) / 2) < SIZE;
    let outside = (0..found.len()).filter(|voxel| {
        let (row, column) = (voxel / columns % rows, voxel % columns);
        !(inner(row, rows) && inner(column, columns))
    });
    let labels: Vec<u8> = outside.map(|voxel| found[voxel]).collect();
    assert!(!labels.is_empty() && labels.iter().all(|&label| label == 0));
}

/// A method whose learners know the training slices predicts without them.
fn need_no_data(trained: &Trained) {
    let other = ["method.name=scribble2label", "data.size=16", "train.total_steps=2"];
    trained.train("config.toml", "other", &other);
    fs::rename(trained.path("pack.h5"), trained.path("elsewhere.h5")).unwrap();
    let name = &trained.dataset.cases[0].name;
    trained.predict(&format!("@other --images @images/{name}.nii --to @to-other"));
    let image = format!("--images @images/{name}.nii --to @to-other");
    insta::assert_snapshot!("unlike", trained.refusal(&format!("@run @other {image}")));
    insta::assert_snapshot!(
        "one_checkpoint",
        trained.refusal(&format!("@run @other --checkpoint x {image}"))
    );
}

fn are_refused_in_words(trained: &Trained) {
    fs::create_dir(trained.path("empty")).unwrap();
    insta::assert_snapshot!("no_image", trained.refusal("@run --images @empty --to @to-bad"));
    insta::assert_snapshot!("no_run", trained.refusal("@empty --images @images --to @to-bad"));
    let images = "--images @images --to @to-bad";
    let little = format!("@run {images} --memory 1MB");
    insta::assert_snapshot!("no_memory", trained.refusal(&little));
    let name = &trained.dataset.cases[0].name;
    fs::create_dir(trained.path("mixed")).unwrap();
    let good = trained.bytes(&format!("images/{name}.nii"));
    fs::write(trained.path("mixed/cut.nii"), &good[..2000]).unwrap();
    fs::write(trained.path("mixed/good.nii"), &good).unwrap();
    let colours = image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([x as u8, y as u8, 200]));
    colours.save(trained.path("mixed/colours.png")).unwrap();
    let slice = Nifti::new([1, 20, 70], (0..1400).collect());
    fs::write(trained.path("mixed/slice.nii"), Nifti { axes: 2, ..slice }.bytes()).unwrap();
    insta::assert_snapshot!("mixed", trained.refusal("@run --images @mixed --to @to-mixed"));
    assert!(trained.labels("to-mixed/good.nii") == trained.labels(&format!("to-one/{name}.nii")));
    assert_eq!(trained.labels("to-mixed/slice.nii").len(), 1400);
    fs::create_dir(trained.path("theirs")).unwrap();
    fs::write(trained.path(&format!("theirs/{name}.nii")), "precious").unwrap();
    insta::assert_snapshot!("foreign", trained.refusal("@run --images @images --to @theirs"));
    assert_eq!(trained.bytes(&format!("theirs/{name}.nii")), b"precious");
}

/// A checkpoint that does not say what its classes are called, as was written before.
fn need_what_checkpoints_say(trained: &Trained) {
    edit_manifest(&trained.path("step-00000015"), |manifest| {
        manifest.as_object_mut().unwrap().remove("classes").unwrap();
    });
    let words = "@step-00000015 --images @images --to @to-old";
    insta::assert_snapshot!("old_checkpoint", trained.refusal(words));
}

#[test]
fn predictions() {
    let trained = Trained::new();
    leave_as_they_are_scored(&trained);
    are_continued(&trained);
    are_the_same_on_two_ranks(&trained);
    are_refused_in_words(&trained);
    are_means(&trained);
    are_not_mixed(&trained);
    come_from_windows(&trained);
    come_of_pictures(&trained);
    come_from_crops(&trained);
    need_no_data(&trained);
    need_what_checkpoints_say(&trained);
}
