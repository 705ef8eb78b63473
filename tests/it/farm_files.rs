//! What is wrong in a farm file is told with its place, before anything is started.

use scrimp::error::{Exit, Result};
use scrimp::farm::file::FarmFile;
use scrimp::farm::plan::FarmPlan;
use scrimp::runlog::farm::{FarmDirectory, Slots};

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
    let file = FarmFile::parse(text, "farm.toml")?;
    let slots = Slots { processes: 4, gpus: 1 };
    FarmPlan::new(&file, "farm", &FarmDirectory::new("runs/farm"), slots)
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
