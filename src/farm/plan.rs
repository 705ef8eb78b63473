//! The jobs that follow from a farm file: a job for each row, fold and seed, with what it needs and what it runs.
//!
//! Refuses what no slots suffice for and what a placeholder cannot stand for. Whether a configuration is sound is not
//! known here.

use super::file::{FarmFile, RESERVED, RowSection};
use super::free::FreeSlots;
use super::nodes::{FarmNode, slots_of};
use super::outages::Outages;
use super::placeholders::{fill, names};
use crate::error::{Failure, Result};
use crate::limits::FARM_JOBS;
use crate::runlog::farm::{FORMAT, FarmDirectory, FarmJob, JobKind, JobList, Slots};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// All jobs of a farm, and what each of them runs.
#[derive(Debug, Clone, PartialEq)]
pub struct FarmPlan {
    /// The jobs, as they are written down.
    pub list: JobList,
    /// What they run, in the same order.
    pub tasks: Vec<Task>,
}

/// What a job runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// A run, or another command.
    pub kind: TaskKind,
    /// How often it may be started again after a failure.
    pub restarts: usize,
    /// The key of the farm file that says what is run, for refusals.
    pub key: String,
}

/// A run, or another command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskKind {
    /// A run of `scrimp launch`.
    Train {
        /// The configuration.
        config: PathBuf,
        /// Its changes, `KEY=VALUE`.
        set: Vec<String>,
    },
    /// A program and its arguments.
    Command(Vec<String>),
}

/// One fold and one seed, where a row has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    fold: Option<u32>,
    seed: Option<u64>,
    /// Place among the seeds and among the folds of the row.
    order: (usize, usize),
}

impl Cell {
    /// Whether a job of `other`, which one of this cell needs, is of the same fold and seed, as far as both have them.
    fn fits(self, other: Self) -> bool {
        let fold = self.fold.is_none() || other.fold.is_none() || self.fold == other.fold;
        fold && (self.seed.is_none() || other.seed.is_none() || self.seed == other.seed)
    }

    /// `partial-ce-fold1-seed2022`.
    fn job_name(self, row: &str) -> String {
        let fold = self.fold.map(|fold| format!("-fold{fold}")).unwrap_or_default();
        let seed = self.seed.map(|seed| format!("-seed{seed}")).unwrap_or_default();
        format!("{row}{fold}{seed}")
    }
}

impl FarmPlan {
    /// The jobs of `file`, whose farm is called `name` and lies in `directory`, on these nodes.
    pub fn new(
        file: &FarmFile,
        name: &str,
        directory: &FarmDirectory,
        nodes: &[FarmNode],
    ) -> Result<Self> {
        let count = |row: &RowSection| {
            let folds = row.folds.as_ref().unwrap_or(&file.folds).len().max(1);
            folds * row.seeds.as_ref().unwrap_or(&file.seeds).len().max(1)
        };
        if file.rows().map(|(_, row)| count(row)).sum::<usize>() > FARM_JOBS / 2 {
            let message = format!("there are more than {} jobs", FARM_JOBS / 2);
            return Err(file.refuse("rows", &message));
        }
        let cells = file.rows().map(|(name, row)| (name, cells(file, row))).collect();
        let matrix = Matrix { file, directory, nodes, cells };
        let mut places: Vec<(Cell, usize, &str, &RowSection)> = Vec::new();
        for (number, (name, row)) in file.rows().enumerate() {
            places.extend(matrix.cells[name].iter().map(|&cell| (cell, number, name, row)));
        }
        places.sort_by_key(|(cell, number, _, _)| (cell.order, *number));
        let (mut jobs, mut tasks) = (Vec::new(), Vec::new());
        for (cell, _, name, row) in places {
            let (job, task) = matrix.job(name, row, cell)?;
            let evaluation = matrix.evaluation(&job);
            for (job, task) in [(job, task)].into_iter().chain(evaluation) {
                jobs.push(job);
                tasks.push(task);
            }
        }
        let mut seen = BTreeSet::new();
        if let Some(job) = jobs.iter().find(|job| !seen.insert(job.name.as_str())) {
            let message = format!("two jobs would be called `{}`", job.name);
            let hint = "give one of the rows another name";
            return Err(file.refuse(&format!("rows.{}", job.row), &message).hint(hint));
        }
        let list = JobList { format: FORMAT, name: name.to_owned(), slots: slots_of(nodes), jobs };
        Ok(Self { list, tasks })
    }
}

/// The folds and seeds of a row.
fn cells(file: &FarmFile, row: &RowSection) -> Vec<Cell> {
    let folds = row.folds.as_ref().unwrap_or(&file.folds);
    let seeds = row.seeds.as_ref().unwrap_or(&file.seeds);
    let some_or_none = |count: usize| 0..count.max(1);
    let cell = |seed: usize, fold: usize| Cell {
        fold: folds.get(fold).copied(),
        seed: seeds.get(seed).copied(),
        order: (seed, fold),
    };
    let of_seed = |seed| some_or_none(folds.len()).map(move |fold| cell(seed, fold));
    some_or_none(seeds.len()).flat_map(of_seed).collect()
}

struct Matrix<'a> {
    file: &'a FarmFile,
    directory: &'a FarmDirectory,
    nodes: &'a [FarmNode],
    cells: BTreeMap<&'a str, Vec<Cell>>,
}

impl Matrix<'_> {
    fn job(&self, name: &str, row: &RowSection, cell: Cell) -> Result<(FarmJob, Task)> {
        let mut needs = Vec::new();
        for need in &row.needs {
            let jobs = self.jobs_of(need, cell);
            if jobs.is_empty() {
                let message = format!(
                    "`{}` needs the job of row `{need}` for the same fold and seed, and there is none",
                    cell.job_name(name)
                );
                return Err(self.file.refuse(&format!("rows.{name}.needs"), &message));
            }
            needs.extend(jobs);
        }
        let kind = if row.config.is_some() { JobKind::Train } else { JobKind::Command };
        let (ranks, gpus) = self.sizes(name, row, kind)?;
        let own_name = cell.job_name(name);
        let job = FarmJob {
            run: (kind == JobKind::Train).then(|| format!("jobs/{own_name}")),
            name: own_name,
            row: name.to_owned(),
            kind,
            fold: cell.fold,
            seed: cell.seed,
            needs,
            ranks,
            gpus,
            total_steps: None,
        };
        self.refuse_without_room(&job, row)?;
        let task = self.task(&job, row, cell)?;
        Ok((job, task))
    }

    /// The names of the jobs of `row` for the fold and the seed of `cell`.
    fn jobs_of(&self, row: &str, cell: Cell) -> Vec<String> {
        let cells = self.cells.get(row).map_or(&[][..], Vec::as_slice);
        let fitting = cells.iter().filter(|other| cell.fits(**other));
        fitting.map(|other| other.job_name(row)).collect()
    }

    /// Processes and GPUs of a job, for which there is room.
    fn sizes(&self, name: &str, row: &RowSection, kind: JobKind) -> Result<(usize, f64)> {
        let Slots { processes, gpus: all_gpus } = slots_of(self.nodes);
        let ranks = row.ranks.or(self.file.ranks).unwrap_or(1);
        let of_farm = if kind == JobKind::Train { self.file.gpus } else { Some(0.0) };
        let without = if all_gpus > 0 { ranks as f64 } else { 0.0 };
        let gpus = row.gpus.or(of_farm).unwrap_or(without);
        let key = |key, is_own| self.file.key_of(name, key, is_own);
        if ranks > processes {
            let message = format!(
                "row `{name}` wants {ranks} processes for a job, and the farm has {processes} slots"
            );
            let failure = self.file.refuse(&key("ranks", row.ranks.is_some()), &message);
            return Err(failure.hint("`slots.processes` says how many there are"));
        }
        if gpus > all_gpus as f64 {
            let message =
                format!("row `{name}` wants {gpus} GPUs for a job, and the farm has {all_gpus}");
            let failure = self.file.refuse(&key("gpus", row.gpus.is_some()), &message);
            return Err(failure.hint("`slots.gpus` says how many there are").hint(
                "`gpus` says how many a job gets: one for each process where nothing is said",
            ));
        }
        if kind == JobKind::Train && gpus > 0.0 && gpus < ranks as f64 && ranks > 1 {
            let message = format!(
                "row `{name}` has {ranks} processes and {gpus} GPUs for a job, expected one for each process"
            );
            return Err(self.file.refuse(&key("gpus", row.gpus.is_some()), &message));
        }
        Ok((ranks, gpus))
    }

    /// Refuses a job for which there are slots enough, and no nodes that have them.
    fn refuse_without_room(&self, job: &FarmJob, row: &RowSection) -> Result<()> {
        if FreeSlots::all(self.nodes).choose(job, &Outages::default()).is_some() {
            return Ok(());
        }
        let FarmJob { row: name, ranks, gpus, .. } = job;
        let asked = format!("row `{name}` wants {ranks} processes and {gpus} GPUs for a job");
        let nodes = match job.kind {
            JobKind::Command => &self.nodes[..self.nodes.len().min(1)],
            JobKind::Train => self.nodes,
        };
        let has_processes = nodes.iter().any(|node| node.processes >= *ranks);
        let widest = |of: fn(&FarmNode) -> usize| nodes.iter().map(of).max().unwrap_or(0);
        let (processes, most_gpus) = (widest(|node| node.processes), widest(|node| node.gpus));
        let message = match job.kind {
            JobKind::Command => format!(
                "{asked}, which runs on the machine of the farm, and that has {processes} and {most_gpus}"
            ),
            JobKind::Train => format!(
                "{asked}, and the nodes of the farm, with at most {processes} and {most_gpus}, cannot share them"
            ),
        };
        let (key, is_own) = if has_processes {
            ("gpus", row.gpus.is_some())
        } else {
            ("ranks", row.ranks.is_some())
        };
        Err(self.file.refuse(&self.file.key_of(name, key, is_own), &message))
    }

    fn task(&self, job: &FarmJob, row: &RowSection, cell: Cell) -> Result<Task> {
        let restarts = row.restarts.or(self.file.restarts).unwrap_or(0);
        let own_key = |key: &str| format!("rows.{}.{key}", job.row);
        if let Some(words) = &row.command {
            let key = own_key("command");
            let words = self.filled(words, &key, job, cell)?;
            return Ok(Task { kind: TaskKind::Command(words), restarts, key });
        }
        let key = own_key("config");
        let config = row.config.clone().unwrap_or_default().display().to_string();
        let config = self.filled(&[config], &key, job, cell)?.remove(0);
        let mut set = self.filled(&self.file.set, "set", job, cell)?;
        set.extend(self.filled(&row.set, &own_key("set"), job, cell)?);
        set.extend(cell.fold.map(|fold| format!("data.fold={fold}")));
        set.extend(cell.seed.map(|seed| format!("train.seed={seed}")));
        let kind = TaskKind::Train { config: PathBuf::from(config), set };
        Ok(Task { kind, restarts, key })
    }

    /// These texts with every placeholder filled.
    fn filled(
        &self,
        texts: &[String],
        key: &str,
        job: &FarmJob,
        cell: Cell,
    ) -> Result<Vec<String>> {
        let one = |text: &String| {
            let mut values = BTreeMap::new();
            for name in names(text) {
                values.insert(name, self.value(name, key, job, cell)?);
            }
            Ok(fill(text, |name| values.get(name).cloned()))
        };
        texts.iter().map(one).collect()
    }

    /// What the placeholder `name` stands for in a text of `job`.
    fn value(&self, name: &str, key: &str, job: &FarmJob, cell: Cell) -> Result<String> {
        let root = self.directory.root();
        let refuse = |why: &str| {
            self.file.refuse(key, &format!("`{{{name}}}` in `{key}` stands for nothing: {why}"))
        };
        let folder = |job: &str| self.directory.run(job).root().display().to_string();
        match name {
            "run" => return Ok(folder(&job.name)),
            own if own == job.row => return Ok(folder(&job.name)),
            "farm" => return Ok(root.display().to_string()),
            "ranks" => return Ok(job.ranks.to_string()),
            "fold" => {
                let fold = cell.fold.map(|fold| fold.to_string());
                return fold.ok_or_else(|| refuse(&format!("row `{}` has no folds", job.row)));
            }
            "seed" => {
                let seed = cell.seed.map(|seed| seed.to_string());
                return seed.ok_or_else(|| refuse(&format!("row `{}` has no seeds", job.row)));
            }
            _ => {}
        }
        if !self.cells.contains_key(name) {
            let known = RESERVED.map(|name| format!("`{{{name}}}`")).join(", ");
            let failure = refuse("there is no such row");
            return Err(failure.hint(format!("placeholders are {known} and names of rows")));
        }
        let is_linked = self.file.all_needs(&job.row).contains(name)
            || self.file.all_needs(name).contains(job.row.as_str());
        if !is_linked {
            let hint = format!("add `{name}` to `rows.{}.needs`", job.row);
            return Err(refuse("neither of the two rows needs the other").hint(hint));
        }
        let jobs = self.jobs_of(name, cell);
        match &jobs[..] {
            [one] => Ok(folder(one)),
            _ => Err(refuse(&format!("row `{name}` has {} jobs for it, expected one", jobs.len()))),
        }
    }

    /// The job that scores a run, where the farm has its runs scored.
    fn evaluation(&self, job: &FarmJob) -> Option<(FarmJob, Task)> {
        let section = self.file.evaluate.as_ref().filter(|_| job.kind == JobKind::Train)?;
        let run = self.directory.run(&job.name).root().display().to_string();
        let words = [
            "scrimp",
            "evaluate",
            &run,
            "--checkpoint",
            section.checkpoint.name(),
            "--convention",
            section.convention.name(),
        ];
        let evaluation = FarmJob {
            name: format!("{}-evaluate", job.name),
            kind: JobKind::Command,
            run: None,
            needs: vec![job.name.clone()],
            ranks: 1,
            gpus: job.gpus.min(1.0),
            total_steps: None,
            ..job.clone()
        };
        let kind = TaskKind::Command(words.map(str::to_owned).to_vec());
        Some((evaluation, Task { kind, restarts: 0, key: "evaluate".to_owned() }))
    }
}

impl Task {
    /// The first failure of a job whose task is another one than `before`, which it was started with.
    pub fn refuse_other(&self, before: &Self, job: &str) -> Result<()> {
        if self.kind == before.kind {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "the job `{job}` was started as `{}`, and is `{}` in the farm file",
            before.kind.shown(),
            self.kind.shown()
        ))
        .hint("start another farm with `--run DIR`")
        .hint("or give the changed row another name"))
    }
}

impl TaskKind {
    /// The words of the command that runs `job`; a run gets these further options of `scrimp launch`.
    pub fn words(
        &self,
        job: &FarmJob,
        directory: &FarmDirectory,
        options: &[String],
    ) -> Vec<String> {
        let (config, set) = match self {
            Self::Command(words) => return words.clone(),
            Self::Train { config, set } => (config.display().to_string(), set),
        };
        let run = directory.run(&job.name).root().display().to_string();
        let ranks = job.ranks.to_string();
        let mut words =
            ["scrimp", "launch", &config, "-n", &ranks, "--run", &run].map(str::to_owned).to_vec();
        words.extend_from_slice(options);
        words.extend(set.iter().flat_map(|change| ["--set".to_owned(), change.clone()]));
        words
    }

    /// What is run, as a person would type it.
    pub fn shown(&self) -> String {
        match self {
            Self::Train { config, set } => {
                let set = set.iter().flat_map(|change| [" --set ", change]);
                format!("scrimp launch {}{}", config.display(), set.collect::<String>())
            }
            Self::Command(words) => words.join(" "),
        }
    }
}
