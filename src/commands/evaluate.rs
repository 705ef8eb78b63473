//! `scrimp evaluate`: scores a checkpoint of a run on its held-out fold.

use super::chosen;
use super::dice_table::DiceTable;
use super::narrate::together;
use super::origin::Source;
use super::run::{self, Place};
use super::table_file::TableFile;
use crate::cli::{self, Convention, Statistics};
use crate::comm::{Communicator, Host, Ranks, agree};
use crate::config;
use crate::config::plan::RunPlan;
use crate::data::Dataset;
use crate::error::{Exit, Failure, Result};
use crate::launchers::Variables;
use crate::panics;
use crate::runlog::Unit;
use crate::runlog::directory::RunDirectory;
use crate::train::Method;
use crate::train::checkpoint::restore_chosen;
use crate::train::evaluate::{Evaluator, Yardstick, recompute_statistics};
use crate::train::scores::{CaseScores, Score, Scores};
use crate::words::counted;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use tch::Device;

/// Evaluates a run as the arguments say; every rank of a launcher calls this.
pub(super) fn run(arguments: &cli::Evaluate, run: &Path) -> Result<Exit> {
    let (host, variables) = run::connect()?;
    together(&*host, || evaluate(arguments, &RunDirectory::new(run), &host, &variables))?;
    Ok(Exit::Done)
}

fn hinted(failure: Failure) -> Failure {
    if failure.is_out_of_memory() {
        return failure.hint("run it where there is more memory, or on fewer ranks of a node");
    }
    failure
}

fn evaluate(
    arguments: &cli::Evaluate,
    directory: &RunDirectory,
    host: &Host,
    variables: &Variables,
) -> Result<()> {
    let ready = config::read(&directory.config(), &[])
        .and_then(|config| run::resolve(&config, 1))
        .and_then(|plan| chosen::find(directory, &arguments.checkpoint).map(|_found| plan));
    let plan = agree(&**host, ready)?;
    let to = || arguments.to.clone().unwrap_or_else(|| directory.scores().join(name(arguments)));
    let table = if host.rank() == 0 { TableFile::claim(to()).map(Some) } else { Ok(None) };
    let table = agree(&**host, table)?;
    let place = Place::take(&plan, &**host, variables)?;
    let ranks = place.join(host)?;
    let found = panics::caught(|| scored(arguments, directory, &plan, place, &ranks));
    let found = panics::unwound_if_alone(found.map_err(hinted))?;
    let written = table.map_or(Ok(()), |table| report(arguments, table, &found));
    agree(&**host, written)
}

/// What was found out, as text.
struct Found {
    /// The table of cases.
    csv: String,
    /// The means, for a person.
    means: String,
    /// The same for a program.
    facts: Value,
    cases: usize,
}

/// Scores a checkpoint of a run; `ranks` can sum where `place` computes.
fn scored(
    arguments: &cli::Evaluate,
    directory: &RunDirectory,
    plan: &RunPlan,
    place: Place,
    ranks: &Ranks,
) -> Result<Found> {
    let comm = &**ranks;
    let source = agree(comm, Source::read(plan))?;
    let mut dataset = Arc::clone(&source.dataset);
    if arguments.statistics == Statistics::Recomputed {
        // Batches are made, which hold the annotation that is learnt from.
        dataset = run::labelled(plan, dataset, comm, place.threads)?;
    }
    let method = run::method(plan, &dataset, place.device, ranks);
    let method = agree(comm, method)?;
    let choose = || chosen::path(directory, &arguments.checkpoint);
    let checkpoint = restore_chosen(&choose, &*method, ranks)?;
    let fold = arguments.fold.unwrap_or(plan.data.fold);
    agree(comm, source.refuse_seen(&checkpoint, plan, fold))?;
    let yardstick = match arguments.convention {
        Convention::Native | Convention::Lesion => Yardstick::Native,
        Convention::Voxels => Yardstick::Voxels,
        Convention::Published => Yardstick::Published,
        Convention::Dmsps => Yardstick::Dmsps,
        Convention::Scribblebench => Yardstick::Scribblebench,
    };
    statistics(arguments.statistics, plan, &dataset, (&*method, place.device, comm))?;
    let evaluator = Evaluator {
        fold,
        volume_statistics: arguments.statistics == Statistics::Volume,
        ..run::evaluator(plan, &dataset, place.device, yardstick)
    };
    if arguments.convention == Convention::Lesion {
        let cases = evaluator.lesions(&*method, comm)?;
        let (csv, means, facts) = agree(comm, lesions::tables(&cases))?;
        return Ok(Found { csv, means, facts, cases: cases.len() });
    }
    let scores = evaluator.run(&*method, comm)?;
    if arguments.convention == Convention::Scribblebench {
        let table = dice_table(scores);
        let csv = agree(comm, table.to_csv())?;
        let (means, facts) = (table.means(), table.facts());
        return Ok(Found { csv, means, facts, cases: table.cases.len() });
    }
    let csv = agree(comm, scores.to_csv())?;
    let (means, facts) = (means(&scores), facts(&scores));
    Ok(Found { csv, means, facts, cases: scores.cases.len() })
}

/// Means over cases, and of each modality where there are several.
fn facts(scores: &Scores) -> Value {
    let of = |scores: &Scores| {
        json!({
            "cases": scores.cases.len(),
            "mean_dice": scores.mean_dice(),
            "structures": scores.structure_means(),
        })
    };
    let mut all = of(scores);
    let modalities = scores.modalities();
    if modalities.len() > 1 {
        let by_modality: serde_json::Map<String, Value> = modalities
            .into_iter()
            .map(|name| (name.to_owned(), of(&scores.of_modality(name))))
            .collect();
        all["by_modality"] = by_modality.into();
    }
    all
}

/// The Dice of every structure and case.
fn dice_table(scores: Scores) -> DiceTable {
    let defined = |score: &Score| Some(score.dice).filter(|dice| !dice.is_nan());
    let row = |case: CaseScores| (case.case, case.scores.iter().map(defined).collect());
    DiceTable { structures: scores.structures, cases: scores.cases.into_iter().map(row).collect() }
}

/// Batches from which running statistics are made anew on request.
const STATISTICS_BATCHES: u64 = 10;

/// Makes running statistics anew where the arguments say so.
fn statistics(
    chosen: Statistics,
    plan: &RunPlan,
    dataset: &Arc<Dataset>,
    (method, device, comm): (&dyn Method, Device, &dyn Communicator),
) -> Result<()> {
    match chosen {
        Statistics::Recomputed => {
            let mut loader = agree(comm, run::loader(plan, dataset, comm))?;
            let target = run::target(plan, device);
            recompute_statistics(method, &mut loader, STATISTICS_BATCHES, target, comm)
        }
        Statistics::Volume if comm.ranks() > 1 => {
            let message =
                format!("`--statistics volume` works on one process, started on {}", comm.ranks());
            agree(comm, Err(Failure::usage(message).hint("run it without mpirun")))
        }
        Statistics::Saved | Statistics::Volume => Ok(()),
    }
}

/// What the table is called unless the arguments say so: by everything that scores depend on.
fn name(arguments: &cli::Evaluate) -> String {
    let checkpoint = Path::new(&arguments.checkpoint).file_name().unwrap_or_default();
    let statistics = match arguments.statistics {
        Statistics::Saved => "",
        Statistics::Recomputed => "-recomputed",
        Statistics::Volume => "-volume",
    };
    let fold = arguments.fold.map(|fold| format!("-fold-{fold}")).unwrap_or_default();
    let convention = convention(arguments);
    format!("evaluate-{}-{convention}{statistics}{fold}.csv", checkpoint.to_string_lossy())
}

fn convention(arguments: &cli::Evaluate) -> String {
    format!("{:?}", arguments.convention).to_lowercase()
}

/// Prints the means, then writes the table of cases: what was computed is not lost with a full disk.
fn report(arguments: &cli::Evaluate, table: TableFile, found: &Found) -> Result<()> {
    if arguments.json {
        let path = table.write(&found.csv)?;
        let mut facts = found.facts.clone();
        facts["run"] = json!(arguments.run);
        facts["convention"] = convention(arguments).into();
        facts["table"] = json!(path);
        return super::print_json(&facts);
    }
    super::print(&found.means)?;
    let path = table.write(&found.csv)?;
    let (count, convention) = (counted(found.cases, "case"), convention(arguments));
    super::print(&format!("{count}, {convention} yardstick, in `{}`\n", path.display()))
}

/// Means over cases with their units, and how many cases have no distances; where cases are of several modalities,
/// of each of them first.
fn means(scores: &Scores) -> String {
    let modalities = scores.modalities();
    if modalities.len() < 2 {
        return table(scores);
    }
    let mut text = String::new();
    for modality in modalities {
        let of_it = scores.of_modality(modality);
        let name = if modality.is_empty() { "of no modality" } else { modality };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}, {}\n{}", counted(of_it.cases.len(), "case"), table(&of_it));
    }
    text + &format!("all, {}\n{}", counted(scores.cases.len(), "case"), table(scores))
}

/// The same of all cases together.
fn table(scores: &Scores) -> String {
    let in_unit = |name: &str| match scores.unit() {
        Some(Unit::Mm) => format!("{name}, mm"),
        Some(Unit::Voxel) => format!("{name}, voxels"),
        None => name.to_owned(),
    };
    let (hd95, asd) = (in_unit("HD95"), in_unit("ASD"));
    let structures = scores.structure_means();
    // Where all were looked for in all cases there is nothing to say.
    let lacks_some = structures.iter().any(|structure| structure.cases.is_some());
    let in_column = |cases: &str| if lacks_some { format!("{cases:>7}") } else { String::new() };
    let mut text = format!(
        "{:<18}{:>8}{hd95:>14}{asd:>13}{:>11}{}\n",
        "structure",
        "Dice",
        "undefined",
        in_column("cases")
    );
    let number = |value: f64, digits: usize| {
        if value.is_nan() { "n/a".to_owned() } else { format!("{value:.digits$}") }
    };
    for structure in structures {
        let [dice, hd95, asd] =
            [number(structure.dice, 4), number(structure.hd95, 2), number(structure.asd, 2)];
        let undefined = structure.undefined.unwrap_or_default();
        let cases = structure.cases.unwrap_or(scores.cases.len() as u64);
        let cases = in_column(&cases.to_string());
        let name = structure.name;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<18}{dice:>8}{hd95:>14}{asd:>13}{undefined:>11}{cases}");
    }
    let _ = writeln!(text, "{:<18}{:>8}", "mean", number(scores.mean_dice(), 4));
    if scores.unit().is_none() && !scores.cases.is_empty() {
        text += "no mean distance: some cases are measured in mm, others, of unknown spacing, in voxels\n";
    }
    text
}

/// The five scores of lesions as text.
mod lesions {
    use crate::error::{Context, Failure, Result};
    use crate::metrics::LesionScores;
    use serde_json::Value;
    use std::fmt::Write;

    const NAMES: [&str; 5] = ["jaccard", "accuracy", "dice", "sensitivity", "specificity"];

    /// One line per case as CSV, a table of the means, and these as numbers.
    pub(super) fn tables(cases: &[(String, LesionScores)]) -> Result<(String, String, Value)> {
        let doing = || "cannot make the table of scores";
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(["case"].iter().chain(&NAMES)).context(doing)?;
        let mut sums = [0.0; NAMES.len()];
        for (case, scores) in cases {
            let scores = scores.to_array();
            let numbers = scores.map(|score| score.to_string());
            csv.write_record(std::iter::once(case).chain(&numbers)).context(doing)?;
            sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += score);
        }
        let mut table = String::new();
        let mut facts = serde_json::json!({ "cases": cases.len() });
        for (name, sum) in NAMES.iter().zip(sums) {
            let mean = sum / cases.len() as f64;
            // Writing to a string cannot fail.
            let _ = writeln!(table, "{name:<18}{mean:>8.4}");
            facts[format!("mean_{name}")] = mean.into();
        }
        let bytes =
            csv.into_inner().map_err(|error| Failure::new(doing()).because(error.error()))?;
        Ok((String::from_utf8(bytes).context(doing)?, table, facts))
    }
}
