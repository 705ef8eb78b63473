//! `scrimp evaluate`: scores a checkpoint of a run on its held-out fold.

use super::chosen;
use super::narrate::tell;
use super::origin::Source;
use super::run::{self, Place};
use crate::cli::{self, Convention, Statistics};
use crate::comm::environment::Variables;
use crate::comm::{Communicator, agree, with_device};
use crate::config;
use crate::config::plan::RunPlan;
use crate::data::Dataset;
use crate::error::{Context, Exit, Failure, Result};
use crate::runlog::directory::RunDirectory;
use crate::train::Method;
use crate::train::checkpoint::restore_chosen;
use crate::train::evaluate::{Scores, Yardstick, recompute_statistics};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use tch::Device;

/// Evaluates as the arguments say; every rank of a launcher calls this.
pub(super) fn run(arguments: &cli::Evaluate) -> Result<Exit> {
    let (comm, variables) = run::connect()?;
    evaluate(arguments, &comm, &variables).map_err(|failure| tell(failure, &*comm))?;
    Ok(Exit::Done)
}

fn evaluate(
    arguments: &cli::Evaluate,
    comm: &Arc<dyn Communicator>,
    variables: &Variables,
) -> Result<()> {
    let directory = RunDirectory::new(&arguments.run);
    let ready = config::read(&directory.config(), &[])
        .and_then(|config| run::resolve(&config, 1))
        .and_then(|plan| chosen::find(&directory, &arguments.checkpoint).map(|_found| plan));
    let plan = agree(&**comm, ready)?;
    let place = agree(&**comm, Place::take(&plan, &**comm, variables))?;
    let source = agree(&**comm, Source::read(&plan))?;
    let mut dataset = Arc::clone(&source.dataset);
    if arguments.statistics == Statistics::Recomputed {
        // Batches are made, which hold the annotation that is learnt from.
        dataset = run::labelled(&plan, dataset, &**comm, place.threads)?;
    }
    let method = run::method(&plan, &dataset, place.device, comm);
    let mut method = agree(&**comm, method)?;
    let ranks = with_device(Arc::clone(comm), place.device)?;
    let choose = || chosen::path(&directory, &arguments.checkpoint);
    let checkpoint = restore_chosen(&choose, &mut *method, &*ranks)?;
    let fold = arguments.fold.unwrap_or(plan.data.fold);
    agree(&**comm, source.refuse_seen(&checkpoint, &plan, fold))?;
    let yardstick = match arguments.convention {
        Convention::Native | Convention::Lesion => Yardstick::Native,
        Convention::Voxels => Yardstick::Voxels,
        Convention::Published => Yardstick::Published,
    };
    let prepared =
        statistics(arguments.statistics, &plan, &dataset, (&*method, place.device, &**comm));
    agree(&**comm, prepared)?;
    let mut evaluator = run::evaluator(&plan, &dataset, place.device, yardstick);
    evaluator.volume_statistics = arguments.statistics == Statistics::Volume;
    evaluator.fold = fold;
    let (csv, table) = if arguments.convention == Convention::Lesion {
        lesions::tables(&evaluator.lesions(&*method, &**comm)?)
    } else {
        let scores = evaluator.run(&*method, &**comm)?;
        (scores.to_csv(), table(&scores))
    };
    let is_root = comm.rank() == 0;
    let written = if is_root { report(arguments, &directory, (&csv, &table)) } else { Ok(()) };
    agree(&**comm, written)
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
            let mut loader = run::loader(plan, dataset, comm)?;
            let target = (run::kind(plan), device);
            recompute_statistics(method, &mut loader, STATISTICS_BATCHES, target)
        }
        Statistics::Volume if comm.ranks() > 1 => Err(Failure::usage(format!(
            "`--statistics volume` works on one process, started on {}",
            comm.ranks()
        ))
        .hint("run it without mpirun")),
        Statistics::Saved | Statistics::Volume => Ok(()),
    }
}

/// Writes the table of cases and prints the means.
fn report(
    arguments: &cli::Evaluate,
    directory: &RunDirectory,
    (csv, table): (&str, &str),
) -> Result<()> {
    let convention = format!("{:?}", arguments.convention).to_lowercase();
    let fold = arguments.fold.map(|fold| format!("-fold-{fold}")).unwrap_or_default();
    let to = arguments.to.clone().unwrap_or_else(|| {
        let name = Path::new(&arguments.checkpoint).file_name().unwrap_or_default();
        let name = format!("evaluate-{}-{convention}{fold}.csv", name.to_string_lossy());
        directory.scores().join(name)
    });
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)
            .context(|| format!("cannot make `{}`", folder.display()))?;
    }
    std::fs::write(&to, csv).context(|| format!("cannot write `{}`", to.display()))?;
    super::print(table)?;
    let cases: BTreeSet<&str> =
        csv.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    let count = cases.len();
    super::print(&format!("{count} cases, {convention} yardstick, in `{}`\n", to.display()))
}

fn table(scores: &Scores) -> String {
    let mut text = format!("{:<18}{:>8}{:>10}{:>10}\n", "structure", "Dice", "HD95", "ASD");
    let number = |value: f64, digits: usize| {
        if value.is_nan() { "n/a".to_owned() } else { format!("{value:.digits$}") }
    };
    for structure in scores.structure_means() {
        let [dice, hd95, asd] =
            [number(structure.dice, 4), number(structure.hd95, 2), number(structure.asd, 2)];
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<18}{dice:>8}{hd95:>10}{asd:>10}", structure.name);
    }
    let _ = writeln!(text, "{:<18}{:>8}", "mean", number(scores.mean_dice(), 4));
    text
}

/// The five scores of lesions as text.
mod lesions {
    use crate::metrics::LesionScores;
    use std::fmt::Write;

    const NAMES: [&str; 5] = ["jaccard", "accuracy", "dice", "sensitivity", "specificity"];

    /// One line per case as CSV, and a table of the means.
    pub(super) fn tables(cases: &[(String, LesionScores)]) -> (String, String) {
        let mut csv = format!("case,{}\n", NAMES.join(","));
        let mut sums = [0.0; NAMES.len()];
        for (case, scores) in cases {
            let scores = scores.to_array();
            let numbers = scores.map(|score| score.to_string()).join(",");
            // Writing to a string cannot fail.
            let _ = writeln!(csv, "{case},{numbers}");
            sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += score);
        }
        let mut table = String::new();
        for (name, sum) in NAMES.iter().zip(sums) {
            let _ = writeln!(table, "{name:<18}{:>8.4}", sum / cases.len() as f64);
        }
        (csv, table)
    }
}
