//! What this program tells a GPU to do, checked on the fake GPUs of `tests/fake-cuda`.
//!
//! Nothing is computed there: whether numbers are right, tests on the CPU and on real GPUs say. Here it
//! is whether calls are legal, in an order that ends, and how many there are: `launches.toml` holds the
//! numbers of one step of every method, which only go down.

use crate::fake_gpu::{Counts, FakeGpu, OnFakeGpus, Report};
use crate::running::{events, steps, warnings};
use scrimp::methods::METHODS;
use scrimp::native::cuda;
use scrimp::runlog::directory::RunDirectory;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

/// Names what a process of this binary is to do for a test of this file.
const PART: &str = "SCRIMP_FAKE_CUDA_PART";
/// Steps of one pass over the data of `configs/smoke`; the difference of a run of two such passes and
/// one of one pass are the steps alone.
const PASS: u64 = 6;

fn config(method: &str) -> String {
    format!("configs/smoke/{method}.toml")
}

/// A row of the table: a method, or behind a space also the mixing that it trains with.
fn row(name: &str) -> (&str, Vec<String>) {
    match name.split_once(' ') {
        Some((method, mixing)) => (method, vec![format!("method.params.mixing={mixing}")]),
        None => (name, Vec::new()),
    }
}

/// A training of so many steps that logs, scores and saves at its end alone.
fn train(name: &str, run: &Path, steps: u64, graph: bool) -> OnFakeGpus {
    let (method, keys) = row(name);
    let every = ["total_steps", "log_every", "evaluate_every", "save_every"];
    let every = every.map(|key| format!("train.{key}={steps}"));
    let command = OnFakeGpus::scrimp(&["train", &config(method), "--run", run.to_str().unwrap()]);
    let keys: Vec<&str> = every.iter().chain(&keys).map(String::as_str).collect();
    command.sets(&keys).sets(&[
        "train.device=cuda",
        "train.threads=1",
        &format!("train.graph={graph}"),
    ])
}

fn evaluate(run: &Path) -> OnFakeGpus {
    OnFakeGpus::scrimp(&["evaluate", run.to_str().unwrap()])
}

fn bench_step(name: &str, graph: bool) -> OnFakeGpus {
    let (method, keys) = row(name);
    let command = OnFakeGpus::scrimp(&["bench", "step", &config(method), "--quick"]);
    let command = command.sets(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    command.sets(&["train.device=cuda", "train.threads=1", &format!("train.graph={graph}")])
}

/// Trains, scores and times one method, eagerly and replayed, on one rank and on two.
fn keeps_to_the_rules_of_gpus_and_to_its_launches(method: &str) {
    let Some(gpu) = FakeGpu::find() else { return };
    let folder = TempDir::new().unwrap();
    let run = |name: &str| folder.path().join(name);
    let [short, long] = [PASS, 2 * PASS]
        .map(|steps| train(method, &run(&steps.to_string()), steps, false).succeed(gpu).remove(0));
    let replayed = train(method, &run("replayed"), 2 * PASS, true).succeed(gpu).remove(0);
    evaluate(&run("replayed")).succeed(gpu);
    bench_step(method, true).succeed(gpu);
    let on_two = |name, steps, graph| {
        let mut reports = train(method, &run(name), steps, graph).ranks(2).succeed(gpu);
        assert_eq!(reports[0].collectives(), reports[1].collectives());
        reports.remove(0)
    };
    let two_short = on_two("two", PASS, false);
    let two_replayed = on_two("two-replayed", 2 * PASS, true);
    evaluate(&run("two-replayed")).ranks(2).succeed(gpu);
    bench_step(method, false).ranks(2).succeed(gpu);

    let a_step = |of: fn(&Report) -> u64| (of(&long) - of(&short)).div_ceil(PASS);
    let mut found = Counts::from([
        ("launches".to_owned(), a_step(Report::launches)),
        ("pageable_copies".to_owned(), a_step(Report::pageable_copies)),
        ("waits".to_owned(), a_step(Report::waits)),
    ]);
    let sums = match two_replayed.longest_graph() {
        Some((_, sums)) => sums,
        // What cannot be recorded was computed, and is longer by one pass.
        None => (two_replayed.collectives() - two_short.collectives()).div_ceil(PASS),
    };
    found.insert("sums".to_owned(), sums);
    if let Some((nodes, _)) = replayed.longest_graph() {
        assert!(replayed.replays() > 0, "recorded and never replayed: {replayed:?}");
        found.insert("nodes".to_owned(), nodes);
    }
    compare_with_the_table(method, &found);
}

#[test]
fn partial_ce_keeps_to_the_rules_of_gpus_and_to_its_launches() {
    keeps_to_the_rules_of_gpus_and_to_its_launches("partial-ce");
}

/// A step that finds partners in a batch of all ranks, and one that also asks the host for more.
#[test]
fn mixings_keep_to_the_rules_of_gpus_and_to_their_launches() {
    keeps_to_the_rules_of_gpus_and_to_its_launches("partial-ce cutmix");
    keeps_to_the_rules_of_gpus_and_to_its_launches("partial-ce puzzle");
}

#[test]
fn dmpls_keeps_to_the_rules_of_gpus_and_to_its_launches() {
    keeps_to_the_rules_of_gpus_and_to_its_launches("dmpls");
}

#[test]
fn dmsps_keeps_to_the_rules_of_gpus_and_to_its_launches() {
    keeps_to_the_rules_of_gpus_and_to_its_launches("dmsps");
}

#[test]
fn ustm_keeps_to_the_rules_of_gpus_and_to_its_launches() {
    keeps_to_the_rules_of_gpus_and_to_its_launches("ustm");
}

#[test]
fn maskmixadv_keeps_to_the_rules_of_gpus_and_to_its_launches() {
    keeps_to_the_rules_of_gpus_and_to_its_launches("maskmixadv");
}

#[test]
fn scribble2label_keeps_to_the_rules_of_gpus_and_to_its_launches() {
    keeps_to_the_rules_of_gpus_and_to_its_launches("scribble2label");
}

#[test]
fn cyclemix_keeps_to_the_rules_of_gpus_and_to_its_launches() {
    keeps_to_the_rules_of_gpus_and_to_its_launches("cyclemix");
}

#[test]
fn cltn_keeps_to_the_rules_of_gpus_and_to_its_launches() {
    keeps_to_the_rules_of_gpus_and_to_its_launches("cltn");
}

#[test]
fn gazesup_keeps_to_the_rules_of_gpus_and_to_its_launches() {
    keeps_to_the_rules_of_gpus_and_to_its_launches("gazesup");
}

/// By method and by what is counted.
type Table = BTreeMap<String, Counts>;

fn table_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake-cuda/launches.toml")
}

fn table() -> Table {
    toml::from_str(&std::fs::read_to_string(table_file()).unwrap()).unwrap()
}

/// What is wrong with numbers, beside those of the table.
fn complaint(method: &str, found: &Counts, written: &Counts) -> Option<String> {
    let names: BTreeSet<&String> = found.keys().chain(written.keys()).collect();
    let wrong = names.into_iter().filter_map(|name| match (found.get(name), written.get(name)) {
        (Some(found), Some(written)) if found > written => Some(format!(
            "{name}: {found} instead of {written}; find what does more than before, or write the \
             larger number down by hand and say why in the commit"
        )),
        // What chance draws may differ by a few where the compiler or a library does.
        (Some(&found), Some(&written)) if found + 2 + written / 50 < written => Some(format!(
            "{name}: {found} instead of {written}; write down what was gained with \
             `SCRIMP_BLESS=1 launch/test fake_cuda`"
        )),
        (Some(_), Some(_)) => None,
        (found, written) => Some(format!(
            "{name}: {found:?} instead of {written:?}; write it down with \
             `SCRIMP_BLESS=1 launch/test fake_cuda`, or remove its line"
        )),
    });
    let wrong: Vec<String> = wrong.collect();
    let file = "tests/fake-cuda/launches.toml";
    (!wrong.is_empty()).then(|| format!("a step of `{method}`, in `{file}`:\n{}", wrong.join("\n")))
}

fn compare_with_the_table(method: &str, found: &Counts) {
    println!("{method}: {found:?}");
    if std::env::var_os("SCRIMP_BLESS").is_some_and(|value| value == "1") {
        bless(method, found);
    }
    let written = table().remove(method).unwrap_or_default();
    if let Some(complaint) = complaint(method, found, &written) {
        panic!("{complaint}");
    }
}

/// Lowers the numbers of one method, and writes down those that have no line.
fn bless(method: &str, found: &Counts) {
    static WRITING: Mutex<()> = Mutex::new(());
    let _writing = WRITING.lock().unwrap();
    let text = std::fs::read_to_string(table_file()).unwrap();
    let head = text.lines().take_while(|line| line.starts_with('#'));
    let head: String = head.flat_map(|line| [line, "\n"]).collect();
    let mut table = table();
    let written = table.entry(method.to_owned()).or_default();
    for (name, &count) in found {
        let number = written.entry(name.clone()).or_insert(count);
        *number = count.min(*number);
    }
    let table = toml::to_string(&table).unwrap();
    std::fs::write(table_file(), format!("{head}\n{table}")).unwrap();
}

#[test]
fn the_table_of_launches_has_every_method() {
    let methods: BTreeSet<String> = METHODS.iter().map(|method| method.name.to_owned()).collect();
    let rows: BTreeSet<String> = table().into_keys().collect();
    let of_rows: BTreeSet<String> = rows.iter().map(|name| row(name).0.to_owned()).collect();
    assert_eq!(of_rows, methods);
    // A row without a test above would be measured by nobody.
    let tests = include_str!("fake_cuda.rs");
    for name in methods.union(&rows) {
        assert!(tests.contains(&format!("its_launches(\"{name}\")")), "{name}");
    }
}

#[test]
fn numbers_that_rise_or_fall_are_complained_of() {
    let counts = |nodes| Counts::from([("nodes".to_owned(), nodes)]);
    let of = |found, written| complaint("some", &counts(found), &counts(written));
    assert!([500, 490].iter().all(|&found| of(found, 500).is_none()));
    assert!(of(501, 500).unwrap().contains("say why in the commit"));
    assert!(of(487, 500).unwrap().contains("SCRIMP_BLESS=1"));
    assert!(complaint("some", &Counts::new(), &counts(3)).unwrap().contains("remove its line"));
}

#[test]
fn what_no_gpu_takes_is_found() {
    let Some(gpu) = FakeGpu::find() else { return };
    let program = gpu.libraries.join("violations");
    let sins = OnFakeGpus::command(&[program.to_str().unwrap()]).variable("SCRIMP_FAKE_GPUS", "2");
    insta::assert_snapshot!(sins.end(gpu).violations().join("\n"), @r"
    GPU 2 of 2 is chosen
    `a_kernel` is launched on stream 0 of GPU 0 while GPU 1 is current
    `a_kernel` is launched on the legacy stream, which no capture can hold
    `a_kernel` is launched while work of a call without a stream may go on
    `a_kernel` is launched with 0 x 1 x 1 blocks of 32 x 1 x 1 threads and 0 bytes of shared memory
    `cudaDeviceSynchronize` during a capture
    `cudaMalloc` during a capture
    `cudaStreamSynchronize` of what is being captured
    `ncclAllReduce` of a communicator that has ended
    `ncclAllReduce` of a communicator that is still being split from its parent
    `ncclAllReduce` of a communicator whose last call is still in progress
    `ncclAllReduce` of memory that is not on the communicator's GPU
    `ncclAllReduce` while another GPU than the communicator's is current
    `ncclCommDestroy` of a communicator that does not block and is not finalised
    `ncclCommFinalize` of a communicator that captured graphs hold: it waits for them for ever
    a capture is ended by another thread than the one that began it
    a capturing stream waits for an event outside of its capture
    a copy of 8 bytes, pageable to device, in a capture
    a stream that forked from a capture is not joined at its end
    ");
}

/// How much memory is free decides where the data go, before anything else lies on the GPU.
#[test]
fn a_gpu_tells_its_memory_before_anything_lies_there() {
    let Some(gpu) = FakeGpu::find() else { return };
    let batches = OnFakeGpus::scrimp(&["bench", "data", &config("partial-ce"), "--quick"]);
    let reports = batches.sets(&["train.device=cuda"]).succeed(gpu);
    assert!(reports[0].launches() > 0, "the data are not on the GPU: {reports:?}");
}

#[test]
fn two_ranks_that_replay_come_to_an_end() {
    let Some(gpu) = FakeGpu::find() else { return };
    let folder = TempDir::new().unwrap();
    let reports = train("partial-ce", folder.path(), 2 * PASS, true).ranks(2).succeed(gpu);
    assert!(reports.iter().all(|report| report.replays() > 0), "{reports:?}");
}

#[test]
fn where_one_rank_cannot_record_a_step_no_rank_replays_it() {
    let Some(gpu) = FakeGpu::find() else { return };
    let folder = TempDir::new().unwrap();
    let run = train("partial-ce", folder.path(), 2 * PASS, true).ranks(2);
    let reports = run.variable("SCRIMP_FAKE_UNRECORDABLE_RANK", "1").succeed(gpu);
    assert!(reports.iter().all(|report| report.replays() == 0), "{reports:?}");
    assert_eq!(reports[0].collectives(), reports[1].collectives());
    let warnings = warnings(events(&RunDirectory::new(folder.path())));
    assert!(matches!(&warnings[..], [only] if only.contains("rank 1 failed")), "{warnings:?}");
}

#[test]
fn two_ranks_score_on_their_gpus() {
    let Some(gpu) = FakeGpu::find() else { return };
    let folder = TempDir::new().unwrap();
    train("partial-ce", folder.path(), 1, false).succeed(gpu);
    let reports = evaluate(folder.path()).ranks(2).succeed(gpu);
    assert!(reports.iter().all(|report| report.launches() > 0), "{reports:?}");
}

#[test]
fn ranks_that_see_one_gpu_each_take_it() {
    let Some(gpu) = FakeGpu::find() else { return };
    let folder = TempDir::new().unwrap();
    let run = train("partial-ce", folder.path(), 1, false).ranks(2);
    run.variable("SCRIMP_FAKE_GPUS", "1").variable("SCRIMP_FAKE_OWN_GPUS", "1").succeed(gpu);
}

#[test]
fn the_logged_pace_contains_the_time_of_the_device() {
    const MICROSECONDS: u64 = 50;
    let Some(gpu) = FakeGpu::find() else { return };
    let folder = TempDir::new().unwrap();
    let slow = train("partial-ce", folder.path(), 4 * PASS, true)
        .sets(&["train.log_every=6"])
        .variable("SCRIMP_FAKE_KERNEL_MICROSECONDS", &MICROSECONDS.to_string());
    let reports = slow.succeed(gpu);
    let (nodes, _) = reports[0].longest_graph().expect("it replays");
    let at_least_ms = (nodes * MICROSECONDS) as f64 / 1e3;
    for (number, step) in steps(events(&RunDirectory::new(folder.path()))) {
        assert!(
            step.step_ms >= 0.9 * at_least_ms,
            "step {number} took {} ms, of which the device needs {at_least_ms}",
            step.step_ms
        );
    }
}

/// 24 slices make three batches of 7 and one of 3, which would be recorded beside the others.
#[test]
fn timed_batches_are_all_of_one_size() {
    let Some(gpu) = FakeGpu::find() else { return };
    let reports = bench_step("partial-ce", true).sets(&["train.batch_size=7"]).succeed(gpu);
    assert_eq!(reports[0].graphs(), 1, "{reports:?}");
}

/// Every symbol that the library lacks is one of libtorch's CUDA half. The linker of the system is asked
/// to resolve them all at once; it knows no GPU, and no fake is there.
#[test]
fn the_library_for_gpus_lacks_nothing() {
    let Some(gpu) = FakeGpu::find() else { return };
    let own = Path::new(env!("CARGO_BIN_EXE_scrimp")).with_file_name("libscrimp_cuda.so");
    let preload = format!("libtorch_cuda.so {}", own.display());
    let output = Command::new("true")
        .env("LD_LIBRARY_PATH", &gpu.torch)
        .env("LD_BIND_NOW", "1")
        .env("LD_PRELOAD", preload)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// One process of the tests below; without its variable this is an ordinary, idle test.
#[test]
fn worker() {
    if std::env::var_os(PART).is_none() {
        return;
    }
    let options = (Kind::Float, Device::Cpu);
    let weight = Tensor::ones([1, 1, 3, 3], options).set_requires_grad(true);
    let image = Tensor::ones([1, 1, 8, 8], options);
    image.conv2d(&weight, None::<&Tensor>, 1, 1, 1, 1).sum(Kind::Float).backward();
    println!("{} GPUs after a convolution", cuda::devices());
}

/// Tests of this binary, as a process of their own on a fake GPU.
fn tests_of_this_binary(arguments: &[&str]) -> OnFakeGpus {
    let this = std::env::current_exe().unwrap();
    OnFakeGpus::command(&[&[this.to_str().unwrap()], arguments].concat())
}

#[test]
fn libtorch_looks_for_gpus_once_and_tests_let_it_find_them() {
    let Some(gpu) = FakeGpu::find() else { return };
    let worker = || {
        let worker = tests_of_this_binary(&["--exact", "fake_cuda::worker", "--nocapture"]);
        worker.variable(PART, "computes")
    };
    for (late, expected) in [(false, "1 GPUs after"), (true, "0 GPUs after")] {
        let worker = worker();
        let worker = if late { worker.variable("SCRIMP_TEST_COMPUTES_FIRST", "1") } else { worker };
        let output = worker.end(gpu).output;
        assert!(output.contains(expected), "late: {late}\n{output}");
    }
}

/// With others beside it that compute on the CPU; kernels that compute nothing cannot agree with it.
#[test]
fn a_test_of_a_gpu_uses_it_whatever_runs_beside_it() {
    const TEST: &str = "native::normalisation_on_a_gpu_agrees_with_the_cpu";
    let Some(gpu) = FakeGpu::find() else { return };
    let output = tests_of_this_binary(&["native::", "--test-threads=4"]).end(gpu).output;
    assert!(output.contains(&format!("test {TEST} ... FAILED")), "{output}");
}

#[test]
fn tests_of_gpus_fail_where_one_is_expected_and_none_is_there() {
    let tests = [
        "native::normalisation_on_a_gpu_agrees_with_the_cpu",
        "comm::nccl_keeps_the_promises_where_there_is_a_gpu",
        "data_resident::every_draw_of_every_shape_is_the_same_pixel_for_pixel",
        "golden_nets::golden_unet_matches_the_reference",
    ];
    let output = Command::new(std::env::current_exe().unwrap())
        .args(tests)
        .arg("--exact")
        .env("SCRIMP_TEST_DEVICE", "cuda")
        .env("CUDA_VISIBLE_DEVICES", "")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&output.stdout);
    for test in tests {
        assert!(output.contains(&format!("test {test} ... FAILED")), "{output}");
    }
}
