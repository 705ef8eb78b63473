//! `scrimp doctor` as a shell sees it: alone, and under `mpirun` on ranks with made faults.

use crate::cli::{complaint, scrimp};
use serde_json::Value;
#[cfg(feature = "hdf5")]
use std::fs;
#[cfg(feature = "hdf5")]
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The lines of a report about one check, each as its state, its ranks and its evidence.
fn lines<'a>(report: &'a Value, check: &str) -> Vec<(&'a str, Vec<u64>, &'a str)> {
    let lines = report["lines"].as_array().unwrap().iter().filter(|line| line["check"] == check);
    lines
        .map(|line| {
            let ranks = line["ranks"].as_array().unwrap().iter().filter_map(Value::as_u64);
            let text = |key: &str| line[key].as_str().unwrap();
            (text("state"), ranks.collect(), text("evidence"))
        })
        .collect()
}

#[test]
fn alone_it_looks_at_a_configuration_and_at_a_list_of_hosts() {
    let folder = TempDir::new().unwrap();
    let [run, list] = ["run", "hosts"].map(|name| folder.path().join(name));
    std::fs::write(&list, "127.0.0.1 slots=2\nno-such-host.invalid slots=2\n").unwrap();
    let [run, list] = [&run, &list].map(|path| path.to_str().unwrap());
    let output = scrimp(&[
        "doctor",
        "configs/smoke/partial-ce.toml",
        "--run",
        run,
        "--hostfile",
        list,
        "--json",
    ]);
    assert_eq!(complaint(&output), "exit code 1\n");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["schema"], &report["can_train"]),
        (&"scrimp doctor 1".into(), &false.into())
    );
    let (state, _, evidence) = lines(&report, "host names")[0].clone();
    assert_eq!(state, "fails");
    assert!(evidence.contains("`no-such-host.invalid`"), "{evidence}");
    let (state, _, evidence) = lines(&report, "configuration")[0].clone();
    assert!(
        state == "ok" && evidence.starts_with("`configs/smoke/partial-ce.toml` is sound"),
        "{evidence}"
    );
    assert_eq!(lines(&report, "run folder")[0].0, "ok", "{:?}", lines(&report, "run folder"));
    let program = if cfg!(feature = "torch") { "ok" } else { "fails" };
    assert_eq!(lines(&report, "program")[0].0, program);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something stays behind");
}

/// Where nothing can be written and a configuration is unsound, a person reads the table.
#[test]
fn what_fails_alone_is_told_in_a_table() {
    let invalid = "tests/it/invalid/zero_cadence.toml";
    let output = scrimp(&["doctor", invalid, "--run", "/proc/runs/a"]);
    assert_eq!(complaint(&output), "exit code 1\n");
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |check: &str| {
        let mut lines =
            text.lines().filter(|line| line.get(10..).is_some_and(|rest| rest.starts_with(check)));
        lines.next().unwrap_or_else(|| panic!("no line on {check}:\n{text}")).to_owned()
    };
    assert!(line("run folder").starts_with("fails     run folder"), "{text}");
    assert!(line("configuration").starts_with("fails     configuration"), "{text}");
    assert!(text.contains("> choose another directory with `--run DIR`"), "{text}");
    let told = text.lines().last().unwrap();
    assert!(told.starts_with("training would fail here: "), "{text}");
    assert!(told.contains("configuration") && told.contains("run folder"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
}

/// The loader of the system speaks before the program can: the guide repeats its words.
#[cfg(feature = "torch")]
#[test]
fn a_missing_libtorch_is_told_by_the_loader_in_words_that_the_guide_explains() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("libtorch_cpu.so"), "").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_scrimp"))
        .arg("doctor")
        .env("LD_LIBRARY_PATH", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let words = "error while loading shared libraries: ";
    assert_eq!(output.status.code(), Some(127), "{said}");
    assert!(said.contains(words) && said.contains("libtorch_cpu.so"), "{said}");
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guides/doctor.md");
    assert!(fs::read_to_string(guide).unwrap().contains(&format!("{words}libtorch_cpu.so")));
}

/// Of processes that this half cannot join.
#[cfg(not(feature = "torch"))]
#[test]
fn without_mpi_the_first_process_tells_of_itself_and_that_nothing_is_compared() {
    for (rank, tells) in [("0", true), ("1", false)] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_scrimp"))
            .args(["doctor", "--json"])
            .envs([("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_RANK", rank)])
            .output()
            .unwrap();
        assert_eq!(complaint(&output), format!("exit code {}\n", i32::from(tells)));
        assert_eq!(!output.stdout.is_empty(), tells);
        if tells {
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            let (state, _, evidence) = lines(&report, "MPI")[0].clone();
            assert_eq!(state, "warning");
            assert!(evidence.ends_with("nothing is compared between them"), "{evidence}");
        }
    }
}

/// Ranks open a GPU each and sum over them; who shares one is told.
#[cfg(feature = "mpi")]
#[test]
fn fake_cuda_gpus_are_opened_and_summed_over() {
    use crate::fake_gpu::{FakeGpu, OnFakeGpus};
    let Some(gpu) = FakeGpu::find() else { return };
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    let doctor = || OnFakeGpus::scrimp(&["doctor", "--run", run.to_str().unwrap()]).ranks(2);
    let output = doctor().end(gpu).output;
    for words in [
        "with its CUDA half",
        "libtorch can use 2 GPUs",
        "; all ranks summed in",
        "training can begin here",
    ] {
        assert!(output.contains(words), "{words}: {output}");
    }
    let output = doctor().variable("SCRIMP_FAKE_GPUS", "1").end(gpu).output;
    assert!(output.contains("ranks 0 and 1 share a GPU"), "{output}");
    assert!(output.contains("training would fail here: NCCL"), "{output}");
}

#[cfg(feature = "mpi")]
mod under_mpirun {
    use super::lines;
    use crate::skips::skipped;
    use serde_json::Value;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output};
    use tempfile::TempDir;

    /// Builds the library with faults of a host.
    fn faults(folder: &Path) -> PathBuf {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/doctor_faults.c");
        let library = folder.join("faults.so");
        let mut compiler = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".to_owned()));
        let output = compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source);
        let output = output.arg("-ldl").output().expect("a C compiler");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        library
    }

    /// Whether this user may have namespaces with mounts and host names of their own.
    fn may_unshare() -> bool {
        let mut command = Command::new("unshare");
        let command = command.args(["--mount", "--uts", "sh", "-c"]);
        let command = command.arg("hostname trial && mount -t tmpfs -o size=64k trial /dev/shm");
        command.output().is_ok_and(|output| output.status.success())
    }

    /// A packed data set with one byte that is not as it was.
    fn damaged(folder: &Path) -> PathBuf {
        let file = folder.join("set.h5");
        let words = ["prepare", "phantom", "--cases", "5", "--slices", "2", "--size", "32", "--to"];
        let prepared = crate::cli::scrimp(&[&words[..], &[file.to_str().unwrap()]].concat());
        assert!(prepared.status.success());
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, bytes).unwrap();
        file
    }

    /// Runs a script in which `mpirun` stands.
    fn shell(script: &str, unshare: bool) -> Output {
        let mut command = Command::new(if unshare { "unshare" } else { "sh" });
        if unshare {
            command.args(["--mount", "sh"]);
        }
        let command = command.args(["-c", script]).current_dir(env!("CARGO_MANIFEST_DIR"));
        let command = command.env("OMPI_ALLOW_RUN_AS_ROOT", "1");
        command.env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1").output().unwrap()
    }

    /// The report of two ranks, the second of which has every fault: another name that nobody knows, a clock that is an
    /// hour ahead, few open files, a folder where nothing can be written. Both have damaged data and little `/dev/shm`.
    fn of_two_ranks(folder: &Path, unshare: bool) -> Value {
        let (library, data) = (faults(folder), damaged(folder));
        let path = |name: &str| folder.join(name).display().to_string();
        let mount = if unshare { "mount -t tmpfs -o size=1m tiny /dev/shm && " } else { "" };
        let renamed = "unshare --uts sh -c 'hostname node9.invalid; exec \"$@\"' -";
        let uts = if unshare { renamed } else { "env" };
        let program = env!("CARGO_BIN_EXE_scrimp");
        let doctor = format!("{program} doctor --json --data {}", data.display());
        let load = format!("export LD_PRELOAD={}", library.display());
        let first = format!("{load}; {doctor} --run {}; echo $? > {}", path("run"), path("first"));
        let second = format!(
            "{load} SCRIMP_FAULT_CLOCK=3600; ulimit -n 60; {uts} {doctor} --run /proc/run; echo $? > {}",
            path("second")
        );
        fs::write(path("first.sh"), first).unwrap();
        fs::write(path("second.sh"), second).unwrap();
        let script = format!(
            "{mount}exec mpirun --oversubscribe --bind-to none --mca orte_abort_on_non_zero_status 0 \
             -n 1 sh {} : -n 1 sh {}",
            path("first.sh"),
            path("second.sh")
        );
        let output = shell(&script, unshare);
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let codes =
            ["first", "second"].map(|name| fs::read_to_string(path(name)).unwrap_or_default());
        assert_eq!(codes, ["1\n", "1\n"], "{stdout}\n{stderr}");
        // One report and nothing else, whoever wrote it.
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}\n{stderr}"))
    }

    #[test]
    fn faults_of_one_rank_are_told_once_by_the_first_and_all_ranks_end_alike() {
        let folder = TempDir::new().unwrap();
        let unshare = may_unshare();
        if !unshare {
            skipped("a tiny `/dev/shm` and a host of another name, as `unshare` is not permitted");
        }
        let report = of_two_ranks(folder.path(), unshare);
        let told = |check: &str, state: &str, rank: u64, words: &str| {
            let lines = lines(&report, check);
            let is_told = lines.iter().any(|(own, ranks, evidence)| {
                *own == state && ranks.contains(&rank) && evidence.contains(words)
            });
            assert!(is_told, "{check}: {lines:?}");
        };
        told("MPI", "ok", 0, "2 ranks on");
        told("clocks", "warning", 1, "ahead of that of rank 0");
        told("limits", "fails", 1, "60 files may be open");
        told("limits", "ok", 0, "files may be open");
        told("run folder", "fails", 1, "cannot write into `/proc`");
        told("run folder", "ok", 0, "can be written");
        told("shared files", "ok", 1, "appears on all ranks");
        told("data", "fails", 0, "is damaged");
        if unshare {
            told("/dev/shm", "warning", 1, "of 1.00 MiB are free");
            told("host names", "warning", 0, "`node9.invalid` has no address");
            assert_eq!(report["hosts"][1], "node9.invalid");
        }
    }

    #[test]
    fn a_rank_that_stands_still_is_named_with_its_host() {
        let folder = TempDir::new().unwrap();
        let library = faults(folder.path());
        let run = folder.path().join("run");
        let doctor =
            format!("{} doctor --limit 5 --run {}", env!("CARGO_BIN_EXE_scrimp"), run.display());
        let stopped = format!(
            "env LD_PRELOAD={} SCRIMP_FAULT_STOP=.scrimp-doctor- {doctor}",
            library.display()
        );
        let script =
            format!("exec mpirun --oversubscribe --bind-to none -n 1 {doctor} : -n 1 {stopped}");
        let output = shell(&script, false);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let name = scrimp::runlog::directory::host();
        let words =
            format!("rank 1 on `{name}` did not answer within 5 s while each looks at itself");
        assert!(stderr.contains(&words), "{stderr}");
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(output.stdout.is_empty());
    }

    /// As when another MPI library's `mpiexec` started it.
    #[test]
    fn processes_that_are_each_alone_tell_so_once() {
        for (rank, tells) in [("0", true), ("1", false)] {
            let output = Command::new(env!("CARGO_BIN_EXE_scrimp"))
                .args(["doctor", "--json"])
                .envs([("PMI_SIZE", "2"), ("PMI_RANK", rank), ("MPI_LOCALNRANKS", "2")])
                .output()
                .unwrap();
            // A launcher ends all processes as soon as one has failed, also the one that tells.
            assert_eq!(output.status.code(), Some(i32::from(tells)));
            assert_eq!(!output.stdout.is_empty(), tells);
            if tells {
                let report: Value = serde_json::from_slice(&output.stdout).unwrap();
                let (state, _, evidence) = lines(&report, "MPI")[0].clone();
                assert_eq!(state, "fails");
                assert!(evidence.starts_with("2 processes were started"), "{evidence}");
            }
        }
    }
}

#[cfg(feature = "hdf5")]
mod of_files {
    use super::*;
    use crate::nifti_files::{File, image, scribble, stored_along, straight};
    use std::process::Output;

    fn data(words: &[&str]) -> Output {
        scrimp(&[&["doctor", "data"], words].concat())
    }

    fn text(output: &Output, folder: &TempDir) -> String {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let code = output.status.code().unwrap();
        format!("exit code {code}\n{text}").replace(folder.path().to_str().unwrap(), "FOLDER")
    }

    /// Labels with another matrix of places.
    fn placed(change: impl Fn(&mut [[f32; 4]; 3])) -> File {
        let mut sform = straight();
        change(&mut sform);
        File { sform: Some(sform), ..scribble() }
    }

    /// Labels that lie on [`image`] in every way, and how their files are called.
    fn cases() -> [(&'static str, File); 7] {
        [
            ("a-same", scribble()),
            ("b-rounded", placed(|sform| sform[0][3] += 0.001)),
            ("c-turned", stored_along(&scribble(), [0, 1, 2], [false, true, false])),
            ("d-flipped-header", placed(|sform| sform[1][1] = -sform[1][1])),
            ("e-shifted", placed(|sform| sform[0][3] += 4.0)),
            ("f-smaller", File { extents: vec![4, 3, 1], values: vec![1.0; 12], ..scribble() }),
            ("g-unplaced", File { sform: None, ..scribble() }),
        ]
    }

    fn folders(folder: &Path) -> [PathBuf; 2] {
        let folders = ["images", "labels"].map(|name| folder.join(name));
        for folder in &folders {
            fs::create_dir(folder).unwrap();
        }
        folders
    }

    #[test]
    fn how_labels_lie_on_their_images_is_told_in_words() {
        let folder = TempDir::new().unwrap();
        let [images, labels] = folders(folder.path());
        for (name, file) in &cases() {
            fs::write(images.join(format!("{name}.nii")), image().bytes()).unwrap();
            fs::write(labels.join(format!("{name}.nii")), file.bytes()).unwrap();
        }
        fs::write(images.join("h.nii"), image().bytes()).unwrap();
        fs::write(labels.join("i.nii"), scribble().bytes()).unwrap();
        let words = [&images, &labels].map(|path| path.to_str().unwrap());
        insta::assert_snapshot!(text(&data(&words), &folder), @r"
        exit code 1
        ok        a-same.nii            `a-same.nii` lies on its image voxel by voxel; values 0 (12.50 %), 1 (16.67 %),
                                        9 (70.83 %)
        ok        b-rounded.nii         `b-rounded.nii` lies on its image voxel by voxel; what the headers say differs
                                        by 6.7e-4 voxels, and 0.1 may be rounding; values 0 (12.50 %), 1 (16.67 %), 9
                                        (70.83 %)
        ok        c-turned.nii          `c-turned.nii` lies on its image voxel by voxel, with rows stored the other
                                        way round: it is turned when it is read; values 0 (12.50 %), 1 (16.67 %), 9
                                        (70.83 %)
        fails     d-flipped-header.nii  `d-flipped-header.nii` has rows that run the other way than those of its
                                        image, from the same first voxel, expected it on its image; values 0 (12.50 %),
                                        1 (16.67 %), 9 (70.83 %)
                                        > draw or resample the labels on the image itself
        fails     e-shifted.nii         `e-shifted.nii` is shifted by 4.00 mm against its image (2.67 columns),
                                        expected at most 0.1 voxels; values 0 (12.50 %), 1 (16.67 %), 9 (70.83 %)
                                        > `scrimp prepare own-data --regrid` carries it to the nearest voxels of its
                                        > image
        fails     f-smaller.nii         `f-smaller.nii` has shape [1, 3, 4], expected [2, 3, 4] as its image has;
                                        every voxel is 1
                                        > `scrimp prepare own-data --regrid` carries it to the nearest voxels of its
                                        > image
        ok        g-unplaced.nii        `g-unplaced.nii` has the shape and the spacing of its image; that it lies on
                                        it cannot be checked, as one of the two does not say where it lies; values 0
                                        (12.50 %), 1 (16.67 %), 9 (70.83 %)

        1 without labels: FOLDER/images/h.nii

        1 without image: FOLDER/labels/i.nii

        3 of 7 cannot be packed as they are
        ");
        fs::create_dir(folder.path().join("others")).unwrap();
        fs::write(folder.path().join("others/a_scribble.nii"), scribble().bytes()).unwrap();
        let others = data(&[words[0], folder.path().join("others").to_str().unwrap()]);
        assert!(
            complaint(&others).starts_with("exit code 2\nerror: no image has labels of its name")
        );
        let json = data(&[words[0], words[1], "--json"]);
        assert_eq!(json.status.code(), Some(1));
        let told: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(told["schema"], "scrimp doctor data 1");
        // What there is nothing to say of is there, too.
        assert_eq!(
            (&told["prediction"], &told["images"][0]["failure"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(told["without_labels"].as_array().map(Vec::len), Some(1));
        let usable = told["images"].as_array().unwrap().iter();
        let usable: Vec<_> = usable.map(|one| one["labels"]["is_usable"].as_bool()).collect();
        let expected = [true, true, true, false, false, false, true];
        assert_eq!(usable, expected.map(Some));
    }

    #[test]
    fn one_image_is_told_and_what_cannot_be_read_fails() {
        let folder = TempDir::new().unwrap();
        let [image_file, broken] = ["a.nii", "b.nii"].map(|name| folder.path().join(name));
        fs::write(&image_file, image().bytes()).unwrap();
        fs::write(&broken, &image().bytes()[..300]).unwrap();
        let [image_file, broken] = [&image_file, &broken].map(|path| path.to_str().unwrap());
        insta::assert_snapshot!(text(&data(&[image_file]), &folder), @r"
        exit code 0
        ok        a.nii  2 slices of 3 x 4 pixels, 8.000 x 2.000 x 1.500 mm; slices run to the head, rows to the
                         front, columns to the patient's right
        ");
        let output = data(&[broken]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output, &folder).contains("fails     b.nii"));
        assert_eq!(data(&[image_file, folder.path().to_str().unwrap()]).status.code(), Some(2));
    }

    #[test]
    fn a_packed_file_is_reported_on_as_prepare_check_does() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("set.h5");
        let file = file.to_str().unwrap();
        let words = ["prepare", "phantom", "--cases", "5", "--slices", "2", "--size", "32", "--to"];
        assert!(scrimp(&[&words[..], &[file]].concat()).status.success());
        for json in [&[][..], &["--json"]] {
            let of = |command: &[&str]| scrimp(&[command, &[file], json].concat());
            let [checked, told] =
                [&["prepare", "check"], &["doctor", "data"]].map(|words| of(words));
            assert_eq!(complaint(&told), "exit code 0\n");
            assert_eq!(told.stdout, checked.stdout);
        }
        assert_eq!(data(&[file, file]).status.code(), Some(2));
    }
}
