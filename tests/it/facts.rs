//! What other programs get: one JSON object from every command that prints facts, exit codes, completions, manual pages.

use crate::cli::{complaint, scrimp};
use clap::{Command, CommandFactory};
use scrimp::cli::Cli;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Commands that print no facts of their own, and where what they know is found.
const WITHOUT: [&str; 4] = ["train", "launch", "completions", "manual"];

/// The words of every command that can be called, without those that are hidden.
fn commands(of: &Command, words: &str, found: &mut Vec<(String, Command)>) {
    let parts =
        of.get_subcommands().filter(|part| !part.is_hide_set() && part.get_name() != "help");
    for part in parts {
        let words = format!("{words} {}", part.get_name()).trim().to_owned();
        commands(part, &words, found);
        // `scrimp doctor` is a command with a part beside it.
        if !part.has_subcommands()
            || part.get_arguments().any(|argument| argument.get_id() == "json")
        {
            found.push((words, part.clone()));
        }
    }
}

fn all_commands() -> Vec<(String, Command)> {
    let mut found = Vec::new();
    commands(&Cli::command(), "", &mut found);
    found
}

#[test]
fn every_command_that_prints_facts_prints_them_as_json_and_the_guide_says_so() {
    let guide = read("docs/guides/scripts.md");
    for (words, command) in all_commands() {
        let has_json = command.get_arguments().any(|argument| argument.get_long() == Some("json"));
        let first = words.split(' ').next().unwrap();
        if has_json {
            let rows = [format!("| `scrimp {words}"), format!("| `scrimp {first} … ")];
            assert!(rows.iter().any(|row| guide.contains(row)), "the guide lacks `{words}`");
        } else {
            assert!(WITHOUT.contains(&first), "`scrimp {words}` has no `--json`");
        }
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The codes of `Exit` by their names, from its definition.
fn exit_codes() -> BTreeMap<u8, String> {
    let source = read("src/error.rs");
    let body = source.split("pub enum Exit {").nth(1).unwrap().split('}').next().unwrap();
    let variants = body.lines().filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = "));
    variants.map(|(name, code)| (code.parse().unwrap(), name.to_owned())).collect()
}

/// The exit codes in the first column of the tables of a page.
fn listed_codes(page: &str) -> Vec<u8> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    cells.filter_map(|cell| cell.trim_matches('`').parse().ok()).collect()
}

#[test]
fn the_table_of_exit_codes_is_that_of_the_program() {
    let codes = exit_codes();
    assert!(codes.len() >= 5 && codes[&0] == "Done", "{codes:?}");
    let expected: Vec<u8> = codes.keys().copied().collect();
    assert_eq!(listed_codes(&read("docs/reference/exit-codes.md")), expected);
    assert_eq!(listed_codes(&read("docs/concepts/stopping.md")), expected);
}

#[test]
fn shells_and_man_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = scrimp(&["completions", shell]);
        assert_eq!(complaint(&output), "exit code 0\n");
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("pseudo-labels") && script.contains("verify"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("man1");
    let output = scrimp(&["manual", "--to", to.to_str().unwrap()]);
    assert_eq!(complaint(&output), "exit code 0\n");
    for (words, _) in all_commands() {
        let page = to.join(format!("scrimp-{}.1", words.replace(' ', "-")));
        let page = std::fs::read_to_string(&page).unwrap_or_else(|_| panic!("{}", page.display()));
        assert!(page.contains(".TH scrimp-") && page.contains(".SH SYNOPSIS"), "{page}");
    }
    let written = String::from_utf8(output.stdout).unwrap();
    assert_eq!(written.lines().count(), to.read_dir().unwrap().count());
    assert!(to.join("scrimp.1").exists() && !to.join("scrimp-prepare-nifti.1").exists());
}

/// The object that a command prints, which must succeed.
fn object(words: &[&str]) -> Value {
    let output = scrimp(words);
    assert!(output.status.success(), "{words:?}: {}", complaint(&output));
    let found = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{words:?}: {error}: {}", String::from_utf8_lossy(&output.stdout))
    });
    assert!(matches!(found, Value::Object(_)), "{words:?}: {found}");
    found
}

#[test]
fn a_run_is_told_as_json_by_the_dashboard() {
    let found = object(&["watch", "--json", "tests/it/runs/schema-1", "tests/it/runs/failed"]);
    let [run, failed] = [&found["runs"][0], &found["runs"][1]];
    assert_eq!((&run["method"], &run["ranks"]), (&"partial-ce".into(), &3.into()));
    assert!(run["mean_dice"].as_f64().unwrap() > 0.0 && run["step"].as_u64().unwrap() > 0);
    assert_eq!((&failed["ended"], &failed["state"]), (&"failed".into(), &"failed".into()));
}

#[cfg(feature = "hdf5")]
#[test]
fn what_is_packed_is_told_with_the_report_on_it_and_so_is_what_is_refused() {
    use crate::nifti_files::{File, image, scribble};
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [set, drawn, refused] = ["set.h5", "drawn.h5", "refused.h5"].map(path);
    let phantom = ["prepare", "phantom", "--cases", "5", "--slices", "2", "--size", "32"];
    let points = ["prepare", "scribbles", "--kind", "points", "--from", &set];
    for (words, to) in [(&phantom[..], &set), (&points, &drawn)] {
        let told = object(&[words, &["--to", to, "--json"]].concat());
        assert_eq!(told["file"], to.as_str());
        assert_eq!(told["bytes"], std::fs::metadata(to).unwrap().len());
        assert!(told["provenance"].as_str().unwrap().starts_with("Synthetic"), "{told}");
        assert_eq!(told["report"], object(&["prepare", "check", to, "--json"]));
    }
    for (name, file) in
        [("images", image()), ("scribbles", File { values: vec![9.0; 24], ..scribble() })]
    {
        std::fs::create_dir(path(name)).unwrap();
        for case in 0..5 {
            std::fs::write(path(&format!("{name}/{case}.nii")), file.bytes()).unwrap();
        }
    }
    let [images, scribbles] = ["images", "scribbles"].map(path);
    let folders = ["prepare", "own-data", "--images", &images, "--scribbles", &scribbles];
    let others =
        ["--classes", "background,lesion", "--unlabelled", "9", "--to", &refused, "--json"];
    let output = scrimp(&[&folders[..], &others].concat());
    assert_eq!(output.status.code(), Some(1), "{}", complaint(&output));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["file"], &told["report"]["cases"]), (&Value::Null, &5.into()));
    assert!(!Path::new(&refused).exists());
}

/// Without tables of cases, which need a network.
#[test]
fn a_farm_is_told_as_json_before_and_after_its_jobs_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [file, farm] = ["farm.toml", "farm"].map(path);
    let text = "\
seeds = [1, 2]
[slots]
processes = 2
gpus = 0
[evaluate]
convention = \"scribblebench\"
[rows.first]
command = [\"touch\", \"{run}/first\"]
[rows.second]
command = [\"cp\", \"{first}/first\", \"{run}/{seed}\"]
needs = [\"first\"]
";
    std::fs::write(&file, text).unwrap();
    let told =
        |words: &[&str]| object(&[&["farm", &file, "--run", &farm, "--json"], words].concat());
    let listing = told(&["--print"]);
    assert_eq!(listing["slots"]["processes"], 2);
    assert_eq!(listing["nodes"][0]["host"], Value::Null);
    let job = &listing["jobs"][1];
    assert_eq!((&job["name"], &job["row"]), (&"second-seed1".into(), &"second".into()));
    assert_eq!(job["needs"], serde_json::json!(["first-seed1"]));
    let copied = format!("{farm}/jobs/first-seed1/first");
    let to = format!("{farm}/jobs/second-seed1/1");
    assert_eq!(job["command"], serde_json::json!(["cp", copied, to]));
    let planned = told(&["--submit", "--print"]);
    let job = &planned["jobs"][1];
    assert_eq!((&job["name"], &job["slurm_job"]), (&"second-seed1".into(), &Value::Null));
    let script = job["script"].as_str().unwrap();
    assert_eq!(job["command"].as_array().unwrap().last().unwrap(), script);
    let table = told(&[]);
    assert!(Path::new(&to).exists());
    assert_eq!(table["convention"], "scribblebench");
    assert_eq!(table["rows"], Value::Array(vec![]));
    assert_eq!(table["files"][1], format!("{farm}/table.csv"));
    assert_eq!(told(&["--table"]), table);
}

#[cfg(feature = "mpi")]
#[test]
fn every_command_about_a_run_prints_one_object() {
    use crate::running::{SMOKE, Train};
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let plan = ["train.total_steps=2", "train.save_every=1", "train.evaluate_every=2"];
    Train::new(SMOKE, &run).sets(&plan).succeed();
    let run = run.to_str().unwrap();
    let file = folder.path().join("weights.safetensors");
    let file = file.to_str().unwrap();
    let listed = object(&["checkpoint", "list", run, "--json"]);
    let last = &listed["checkpoints"][1];
    assert_eq!((&last["step"], &last["state"]), (&2.into(), &"saved".into()));
    assert!(last["is_best"] == true && last["bytes"].as_u64().unwrap() > 1000, "{last}");
    let shown = object(&["checkpoint", "show", run, "--json"]);
    assert_eq!((&shown["step"], &shown["method"]), (&2.into(), &"partial-ce".into()));
    assert_eq!(shown["learners"][0]["updates"], 2);
    assert_eq!(shown["learnt_from"][0]["fold"], 1);
    let verified = object(&["checkpoint", "verify", run, "--json"]);
    assert_eq!(verified["checkpoints"][0]["is_sound"], true);
    assert!(verified["newest_sound"].as_str().unwrap().ends_with("step-00000002"));
    assert_eq!(object(&["checkpoint", "export", run, "--to", file, "--json"])["step"], 2);
    assert_eq!(object(&["checkpoint", "prune", run, "--json"])["removed"], Value::Array(vec![]));
    let scores = object(&["evaluate", run, "--json"]);
    assert_eq!((&scores["convention"], &scores["cases"]), (&"native".into(), &2.into()));
    assert_eq!(scores["structures"].as_array().unwrap().len(), 3);
    assert!(Path::new(scores["table"].as_str().unwrap()).exists());
    let written = object(&["export", run, "--to", "csv", "--json"]);
    assert!(written["files"].as_array().unwrap().len() >= 3);
    let config = format!("{run}/config.toml");
    assert_eq!(object(&["config", "show", &config, "--json"])["train"]["total_steps"], 2);
    assert_eq!(object(&["config", "check", &config, "--json"])["were_data_looked_at"], true);
    let methods = object(&["methods", "--json"]);
    assert!(methods["methods"].as_array().unwrap().iter().any(|m| m["name"] == "partial-ce"));
    let begun = folder.path().join("begun");
    let import =
        ["checkpoint", "import", SMOKE, "--from", file, "--run", begun.to_str().unwrap(), "--json"];
    assert!(object(&import)["checkpoint"].as_str().unwrap().ends_with("step-00000000"));
    // A checkpoint that is damaged is told, and refused.
    std::fs::write(format!("{run}/checkpoints/step-00000002/manifest.json"), "{").unwrap();
    for words in [["checkpoint", "verify", run, "--json"], ["checkpoint", "list", run, "--json"]] {
        let output = scrimp(&words);
        assert_eq!(output.status.code(), Some(1), "{}", complaint(&output));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(found["checkpoints"][1]["problem"].as_str().unwrap().contains("is damaged"));
    }
}

#[cfg(feature = "mpi")]
#[test]
fn benchmarks_print_their_numbers_as_one_object() {
    use crate::running::SMOKE;
    let sets = ["--quick", "--json", "--set", "train.threads=1", "--set", "train.device=cpu"];
    let step = object(&[&["bench", "step", SMOKE][..], &sets].concat());
    assert!(step["step_ms"].as_f64().unwrap() > 0.0 && step["machine"]["threads"] == 1, "{step}");
    let data = object(&[&["bench", "data", SMOKE][..], &sets].concat());
    assert!(data["images_per_second"].as_f64().unwrap() > 0.0, "{data}");
}
