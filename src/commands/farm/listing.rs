//! `scrimp farm --print`: the jobs of a farm, what they need and what each of them runs, for a person or a program.

use super::show;
use crate::error::Result;
use crate::farm::nodes::FarmNode;
use crate::farm::plan::FarmPlan;
use crate::launch::CommandLine;
use crate::runlog::farm::{FarmDirectory, FarmJob, Slots};
use crate::words::counted;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// What a farm would do.
#[derive(Serialize)]
struct Listing<'a> {
    farm: &'a Path,
    slots: Slots,
    nodes: &'a [FarmNode],
    jobs: Vec<ListedJob<'a>>,
}

/// A job with the words of its command.
#[derive(Serialize)]
struct ListedJob<'a> {
    #[serde(flatten)]
    job: &'a FarmJob,
    command: Vec<String>,
}

/// Prints the jobs of a plan on these nodes.
pub(super) fn tell(
    plan: &FarmPlan,
    nodes: &[FarmNode],
    directory: &FarmDirectory,
    is_json: bool,
) -> Result<()> {
    let jobs = plan.list.jobs.iter().zip(&plan.tasks).map(|(job, task)| {
        let command = task.kind.words(job, directory, &[]);
        ListedJob { job, command }
    });
    let jobs = jobs.collect();
    let listing = Listing { farm: directory.root(), slots: plan.list.slots, nodes, jobs };
    show(is_json, &listing, || listing.text())
}

impl Listing<'_> {
    /// A line for each node with a name and each job, and what it runs below.
    fn text(&self) -> String {
        let of = |processes: usize, gpus: &str| {
            format!("{}, {gpus} GPUs", counted(processes, "process"))
        };
        let mut text = format!(
            "{} on {} and {} GPUs\n",
            counted(self.jobs.len(), "job"),
            counted(self.slots.processes, "process"),
            self.slots.gpus
        );
        for FarmNode { host, processes, gpus } in self.nodes {
            if let Some(host) = host {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "node {host}: {}", of(*processes, &gpus.to_string()));
            }
        }
        for ListedJob { job, command } in &self.jobs {
            let needs = match job.needs.join(", ") {
                needs if needs.is_empty() => needs,
                needs => format!(", behind {needs}"),
            };
            let command = CommandLine { variables: Vec::new(), words: command.clone() };
            let of = of(job.ranks, &job.gpus.to_string());
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}: {of}{needs}", job.name);
            let _ = writeln!(text, "    {command}");
        }
        text
    }
}
