//! The jobs of a farm file, and what is wrong in one: told with its place, before anything is started.

use scrimp::error::{Exit, Result};
use scrimp::farm::file::FarmFile;
use scrimp::farm::nodes::FarmNode;
use scrimp::farm::plan::FarmPlan;
use scrimp::runlog::farm::{FarmDirectory, FarmJob, Slots};

const WHOLE: &str = "\
folds = [1, 2]
gpus = 0.5

[slots]
processes = 2

[table]
compare_with = \"plain\"

[rows.plain]
config = \"a.toml\"

[rows.again]
command = [\"true\"]
needs = [\"plain\"]
";

const TWO_STAGES: &str = "\
folds = [1, 2]
seeds = [7]
set = [\"train.threads=1\"]
restarts = 2

[evaluate]

[rows.pack]
command = [\"scrimp\", \"prepare\", \"phantom\", \"--to\", \"{run}/pack.h5\"]
folds = []
seeds = []

[rows.first]
config = \"first.toml\"
needs = [\"pack\"]
set = [\"data.path={pack}/pack.h5\"]
ranks = 2

[rows.between]
command = [\"sh\", \"-ec\", \"expand {first} {run}; begin {second} with {fold} {seed}\"]
needs = [\"first\"]

[rows.second]
config = \"second.toml\"
needs = [\"between\"]
set = [\"data.path={between}/pack.h5\"]
gpus = 0.5
";

fn plan(text: &str) -> Result<FarmPlan> {
    plan_on(&[FarmNode::alone(Slots { processes: 4, gpus: 1 })], text)
}

fn plan_on(nodes: &[FarmNode], text: &str) -> Result<FarmPlan> {
    let file = FarmFile::parse(text, "farm.toml")?;
    FarmPlan::new(&file, "farm", &FarmDirectory::new("runs/farm"), nodes)
}

#[test]
fn rows_become_jobs_with_what_they_need() {
    let text = TWO_STAGES.replace("ranks = 2\n", "ranks = 2\ngpus = 0\n");
    let FarmPlan { list, tasks } = plan(&text).unwrap();
    let lines: Vec<String> = list
        .jobs
        .iter()
        .zip(&tasks)
        .map(|(job, task)| {
            let FarmJob { name, ranks, gpus, needs, .. } = job;
            format!("{name} x{ranks} g{gpus} needs {needs:?}: {}", task.kind.shown())
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    pack x1 g0 needs []: scrimp prepare phantom --to runs/farm/jobs/pack/pack.h5
    first-fold1-seed7 x2 g0 needs ["pack"]: scrimp launch first.toml --set train.threads=1 --set data.path=runs/farm/jobs/pack/pack.h5 --set data.fold=1 --set train.seed=7
    first-fold1-seed7-evaluate x1 g0 needs ["first-fold1-seed7"]: scrimp evaluate runs/farm/jobs/first-fold1-seed7 --checkpoint last --convention native
    between-fold1-seed7 x1 g0 needs ["first-fold1-seed7"]: sh -ec expand runs/farm/jobs/first-fold1-seed7 runs/farm/jobs/between-fold1-seed7; begin runs/farm/jobs/second-fold1-seed7 with 1 7
    second-fold1-seed7 x1 g0.5 needs ["between-fold1-seed7"]: scrimp launch second.toml --set train.threads=1 --set data.path=runs/farm/jobs/between-fold1-seed7/pack.h5 --set data.fold=1 --set train.seed=7
    second-fold1-seed7-evaluate x1 g0.5 needs ["second-fold1-seed7"]: scrimp evaluate runs/farm/jobs/second-fold1-seed7 --checkpoint last --convention native
    first-fold2-seed7 x2 g0 needs ["pack"]: scrimp launch first.toml --set train.threads=1 --set data.path=runs/farm/jobs/pack/pack.h5 --set data.fold=2 --set train.seed=7
    first-fold2-seed7-evaluate x1 g0 needs ["first-fold2-seed7"]: scrimp evaluate runs/farm/jobs/first-fold2-seed7 --checkpoint last --convention native
    between-fold2-seed7 x1 g0 needs ["first-fold2-seed7"]: sh -ec expand runs/farm/jobs/first-fold2-seed7 runs/farm/jobs/between-fold2-seed7; begin runs/farm/jobs/second-fold2-seed7 with 2 7
    second-fold2-seed7 x1 g0.5 needs ["between-fold2-seed7"]: scrimp launch second.toml --set train.threads=1 --set data.path=runs/farm/jobs/between-fold2-seed7/pack.h5 --set data.fold=2 --set train.seed=7
    second-fold2-seed7-evaluate x1 g0.5 needs ["second-fold2-seed7"]: scrimp evaluate runs/farm/jobs/second-fold2-seed7 --checkpoint last --convention native
    "#);
}

#[test]
fn a_job_that_was_started_otherwise_is_told() {
    let FarmPlan { tasks, .. } = plan(&TWO_STAGES.replace("ranks = 2", "ranks = 1")).unwrap();
    assert!(tasks[0].refuse_other(&tasks[0], "pack").is_ok());
    insta::assert_snapshot!(tasks[1].refuse_other(&tasks[0], "pack").unwrap_err(), @r"
    error: the job `pack` was started as `scrimp prepare phantom --to runs/farm/jobs/pack/pack.h5`, and is `scrimp launch first.toml --set train.threads=1 --set data.path=runs/farm/jobs/pack/pack.h5 --set data.fold=1 --set train.seed=7` in the farm file

    hint: start another farm with `--run DIR`
    hint: or give the changed row another name
    ");
}

#[test]
fn every_mistake_has_its_place() {
    let replaced = |from: &str, to: &str| {
        assert!(WHOLE.contains(from), "{from}");
        WHOLE.replacen(from, to, 1)
    };
    let texts = [
        replaced("config =", "confg ="),
        replaced("folds = [1, 2]", "folds = [1, 1]"),
        replaced("folds = [1, 2]", "folds = [1, 2000]"),
        replaced("folds = [1, 2]", "folds = \"all\""),
        replaced("gpus = 0.5", "gpus = 1.5"),
        replaced("gpus = 0.5", "gpus = nan"),
        replaced("gpus = 0.5", "ranks = 0"),
        replaced("processes = 2", "processes = 0"),
        replaced("processes = 2", "hosts = [\"a:4\", \"b\"]"),
        replaced("processes = 2", "hosts = [\"a:4\", \"--np:2\"]"),
        replaced("processes = 2", "hosts = [\"a:4\", \"b:0\"]"),
        replaced("processes = 2", "hosts = [\"a:4\", \"a:2\"]"),
        replaced("processes = 2", "processes = 2\nhosts = [\"a:4\"]"),
        replaced("\"plain\"", "\"again\""),
        replaced("\"plain\"", "\"plane\""),
        replaced("[rows.again]", "[rows.plain]"),
        replaced("[rows.again]", "[rows.fold]"),
        replaced("[rows.again]", "[rows.\"a b\"]"),
        replaced("command = [\"true\"]", "command = []"),
        replaced("command = [\"true\"]", "set = []"),
        replaced("command = [\"true\"]", "command = [\"true\"]\nconfig = \"b.toml\""),
        replaced("command = [\"true\"]", "command = [\"true\"]\nset = [\"a=1\"]"),
        replaced("needs = [\"plain\"]", "needs = [\"plan\"]"),
        replaced("needs = [\"plain\"]", "needs = [\"plain\", \"plain\"]"),
        replaced("config = \"a.toml\"", "config = \"a.toml\"\nneeds = [\"again\"]"),
        replaced("needs = [\"plain\"]", "needs = [\"again\"]"),
        "folds = [1]\n".to_owned(),
        "[rows]\n".to_owned(),
        "[rows.a".to_owned(),
    ];
    let refused = texts.map(|text| {
        let failure = FarmFile::parse(&text, "farm.toml").unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);
        failure.to_string()
    });
    insta::assert_snapshot!(refused.join("\n\n"));
}

#[test]
fn what_has_no_room_or_no_meaning_is_refused_with_its_place() {
    let good = TWO_STAGES.replace("ranks = 2\n", "ranks = 2\ngpus = 0\n");
    let replaced = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1)
    };
    let texts = [
        TWO_STAGES.to_owned(),
        replaced("ranks = 2", "ranks = 5"),
        replaced("gpus = 0.5", "gpus = 2"),
        replaced("ranks = 2\ngpus = 0", "ranks = 2\ngpus = 0.5"),
        replaced("{pack}", "{pac}"),
        replaced("{pack}", "{fold}/{between}/{second}/{nobody}"),
        replaced("{run}/pack.h5", "{first}"),
        replaced("needs = [\"pack\"]", "needs = []"),
        replaced("{run}/pack.h5", "{fold}"),
        replaced("{fold} {seed}", "{pack}"),
        replaced("needs = [\"first\"]", "needs = [\"first\"]\nfolds = [1, 3]"),
        format!("{good}[rows.first-fold2]\nconfig = \"a.toml\"\nfolds = []\n"),
    ];
    let refused = texts.map(|text| match plan(&text) {
        Ok(plan) => format!("{} jobs", plan.list.jobs.len()),
        Err(failure) => failure.to_string(),
    });
    insta::assert_snapshot!(refused.join("\n\n"));
}

#[test]
fn what_no_nodes_can_hold_is_refused_with_its_place() {
    let node = |host: &str, processes| FarmNode { host: Some(host.to_owned()), processes, gpus: 2 };
    let nodes = [node("a", 2), node("b", 4), node("c", 4)];
    let wide = "[rows.wide]\nconfig = \"a.toml\"\nranks = 6\n";
    let refused = [
        wide.to_owned(),
        wide.replace('6', "7\ngpus = 0"),
        wide.replace('6', "1\ngpus = 4"),
        "[rows.command]\ncommand = [\"true\"]\nranks = 3\n".to_owned(),
    ]
    .map(|text| match plan_on(&nodes, &text) {
        Ok(plan) => format!("{} jobs", plan.list.jobs.len()),
        Err(failure) => failure.to_string(),
    });
    insta::assert_snapshot!(refused.join("\n\n"), @r"
    1 jobs

    1 jobs

    error: row `wide` wants 1 processes and 4 GPUs for a job, and the nodes of the farm, with at most 4 and 2, cannot share them
      --> farm.toml:4:8
      |
    4 | gpus = 4
      |        ^

    error: row `command` wants 3 processes and 0 GPUs for a job, which runs on the machine of the farm, and that has 2 and 2
      --> farm.toml:3:9
      |
    3 | ranks = 3
      |         ^
    ");
}
