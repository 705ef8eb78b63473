//! What a farm file says: its keys, typed, with the place of every mistake that can be seen in the file alone.
//!
//! Which jobs follow from it, and whether there is room for them, is found out in [`plan`](super::plan).

use super::allocation::is_host;
use super::placeholders::is_of_a_name;
use super::scores::ScoredBy;
use crate::config::{Source, TimeSpan, nearest};
use crate::error::{Context, Exit, Failure, Result};
use crate::files;
use crate::limits::{FARM_JOBS, FARM_NODES, FARM_ROWS, FOLDS};
use crate::runlog::farm::JobHost;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Names of placeholders that no row may have.
pub(super) const RESERVED: [&str; 5] = ["fold", "seed", "run", "farm", "ranks"];
/// The most that a job may be started again.
const RESTARTS: usize = 1000;
/// The most processes or GPUs of one job.
const RANKS: usize = 1 << 16;

/// A farm file. What is said at its top holds for every row that does not say something else.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FarmFile {
    /// The folds that are held out, one job each, `data.fold`; none: as the configurations say.
    #[serde(default)]
    pub folds: Vec<u32>,
    /// The seeds, one job each, `train.seed`; none: as the configurations say.
    #[serde(default)]
    pub seeds: Vec<u64>,
    /// Changes of keys, `KEY=VALUE`, for every row that trains.
    #[serde(default)]
    pub set: Vec<String>,
    /// Processes of a job (default 1).
    pub ranks: Option<usize>,
    /// GPUs of a job that trains, or the share of one (default: as many as processes, where the farm has GPUs).
    pub gpus: Option<f64>,
    /// How often to start again after a failure (default 0).
    pub restarts: Option<usize>,
    /// How long the whole farm may take.
    pub time_limit: Option<TimeSpan>,
    /// What the jobs share.
    #[serde(default)]
    pub slots: SlotsSection,
    /// How runs are scored when they are done.
    pub evaluate: Option<EvaluateSection>,
    /// What the table shows.
    #[serde(default)]
    pub table: TableSection,
    /// The rows by their names.
    pub rows: BTreeMap<String, RowSection>,
    /// The names of the rows as they stand in the file.
    #[serde(skip)]
    order: Vec<String>,
    #[serde(skip)]
    source: Source,
}

/// `[slots]`: what all jobs together may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotsSection {
    /// Processes (default: those of the allocation, else the processors of the machine), shared out evenly where there
    /// are several nodes.
    pub processes: Option<usize>,
    /// GPUs (default: all that may be used), shared out in the same way.
    pub gpus: Option<usize>,
    /// `HOST:PROCESSES` for each node, first that of the farm itself (default: those of the allocation, else this
    /// machine).
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// `[evaluate]`: a job behind each run that runs `scrimp evaluate`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateSection {
    /// The yardstick (default `native`).
    #[serde(default)]
    pub convention: ScoredBy,
    /// Which checkpoint, `last` or `best` (default `last`).
    #[serde(default)]
    pub checkpoint: Scored,
}

/// The checkpoint that is scored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scored {
    /// The newest one.
    #[default]
    Last,
    /// The one with the best score on the held-out fold.
    Best,
}

/// `[table]`: what the table shows.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableSection {
    /// The row that all others are compared with.
    pub compare_with: Option<String>,
}

/// `[rows.NAME]`: a job for each fold and seed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowSection {
    /// The configuration to train, relative to the working directory.
    pub config: Option<PathBuf>,
    /// A command to run instead: the program and its arguments.
    pub command: Option<Vec<String>>,
    /// Changes of keys, behind those of the farm.
    #[serde(default)]
    pub set: Vec<String>,
    /// The rows that must be done before, each for the same fold and the same seed.
    #[serde(default)]
    pub needs: Vec<String>,
    /// As at the top.
    pub folds: Option<Vec<u32>>,
    /// As at the top.
    pub seeds: Option<Vec<u64>>,
    /// As at the top.
    pub ranks: Option<usize>,
    /// As at the top.
    pub gpus: Option<f64>,
    /// As at the top.
    pub restarts: Option<usize>,
}

impl SlotsSection {
    /// The nodes that are named.
    pub(super) fn hosts(&self) -> Vec<JobHost> {
        self.hosts.iter().filter_map(|text| host(text)).collect()
    }
}

/// What `HOST:PROCESSES` says.
fn host(text: &str) -> Option<JobHost> {
    let (host, processes) = text.rsplit_once(':')?;
    let processes = processes.parse().ok().filter(|count| (1..=RANKS).contains(count))?;
    is_host(host).then(|| JobHost { host: host.to_owned(), processes })
}

impl Scored {
    /// The word that `scrimp evaluate --checkpoint` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Best => "best",
        }
    }
}

impl EvaluateSection {
    /// The name of the table in `RUN/scores`.
    pub fn table(&self) -> String {
        format!("evaluate-{}-{}.csv", self.checkpoint.name(), self.convention.name())
    }
}

impl FarmFile {
    /// Reads a farm file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = files::read_text(path, files::SMALL_BYTES)
            .context(|| format!("cannot read the farm file `{}`", path.display()))
            .map_err(|failure| {
                failure.exit_with(Exit::Usage).hint("list those at hand with `ls configs/farms`")
            })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Parses the text of a farm file called `name`.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let source = Source::new(text, name, &[])?;
        let file: Self = source.typed()?;
        let order = source.names_in("rows");
        let file = Self { order, source, ..file };
        file.check()?;
        Ok(file)
    }

    /// The rows in the order of the file.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &RowSection)> {
        self.order.iter().filter_map(|name| Some((name.as_str(), self.rows.get(name)?)))
    }

    /// The text as it was written.
    pub fn text(&self) -> &str {
        self.source.written()
    }

    /// A refusal of what `key` says, with its place.
    pub fn refuse(&self, key: &str, message: &str) -> Failure {
        self.source.refuse(key, message)
    }

    /// Where `key` says what it says, as [`Failure::at`] takes it.
    pub fn place(&self, key: &str) -> String {
        self.source.place(key)
    }

    /// The key in which `row` says `key`, or the one at the top where it does not.
    pub fn key_of(&self, row: &str, key: &str, is_own: bool) -> String {
        if is_own { format!("rows.{row}.{key}") } else { key.to_owned() }
    }

    fn check(&self) -> Result<()> {
        if self.rows.is_empty() {
            return Err(self.refuse("rows", "there are no rows, expected `[rows.NAME]`"));
        }
        if self.rows.len() > FARM_ROWS {
            let message =
                format!("there are {} rows, expected at most {FARM_ROWS}", self.rows.len());
            return Err(self.refuse("rows", &message));
        }
        self.check_matrix("", Some(&self.folds), Some(&self.seeds))?;
        self.check_sizes("", self.ranks, self.gpus, self.restarts)?;
        for (name, row) in self.rows() {
            self.check_row(name, row)?;
            let prefix = format!("rows.{name}.");
            self.check_matrix(&prefix, row.folds.as_ref(), row.seeds.as_ref())?;
            self.check_sizes(&prefix, row.ranks, row.gpus, row.restarts)?;
        }
        self.check_slots()?;
        self.check_compared()?;
        self.check_circles()
    }

    fn check_slots(&self) -> Result<()> {
        let SlotsSection { processes, gpus, hosts } = &self.slots;
        for (key, count) in [("processes", processes), ("gpus", gpus)] {
            let least = usize::from(key == "processes");
            if let Some(count) = count.filter(|count| !(least..=RANKS).contains(count)) {
                let message = format!("`slots.{key}` is {count}, expected {least} to {RANKS}");
                return Err(self.refuse(&format!("slots.{key}"), &message));
            }
        }
        if hosts.is_empty() {
            return Ok(());
        }
        let key = "slots.hosts";
        if processes.is_some() {
            let message =
                "both `slots.processes` and `slots.hosts` say how many processes there are";
            return Err(self.refuse(key, message).hint("leave one of them out"));
        }
        if hosts.len() > FARM_NODES {
            let message =
                format!("`{key}` has {} nodes, expected at most {FARM_NODES}", hosts.len());
            return Err(self.refuse(key, &message));
        }
        if let Some(text) = hosts.iter().find(|text| host(text).is_none()) {
            let message = format!("`{key}` holds `{text}`, expected `HOST:PROCESSES`");
            return Err(self.refuse(key, &message));
        }
        let names: Vec<String> = self.slots.hosts().into_iter().map(|host| host.host).collect();
        self.refuse_twice(key, &names)
    }

    fn check_row(&self, name: &str, row: &RowSection) -> Result<()> {
        let key = format!("rows.{name}");
        if !name.chars().all(is_of_a_name) || name.is_empty() || name.len() > 100 {
            let message = "the name of a row has letters, digits, `-` and `_`, at most 100 of them";
            return Err(self.refuse(&key, message));
        }
        if RESERVED.contains(&name) {
            let message = format!("a row cannot be called `{name}`, which is a placeholder");
            return Err(self.refuse(&key, &message));
        }
        match (&row.config, &row.command) {
            (Some(_), Some(_)) => {
                let message = format!("row `{name}` has both `config` and `command`, expected one");
                return Err(self.refuse(&format!("{key}.command"), &message));
            }
            (None, None) => {
                let message = format!("row `{name}` has neither `config` nor `command`");
                return Err(self.refuse(&key, &message));
            }
            (None, Some(words)) if words.first().is_none_or(String::is_empty) => {
                let message = format!("`{key}.command` has no words, expected a program");
                return Err(self.refuse(&format!("{key}.command"), &message));
            }
            (None, Some(_)) if !row.set.is_empty() => {
                let message = format!("row `{name}` is a command, which takes no `set`");
                return Err(self.refuse(&format!("{key}.set"), &message));
            }
            _ => {}
        }
        for need in &row.needs {
            if !self.rows.contains_key(need) {
                let message = format!("row `{name}` needs `{need}`, and there is no such row");
                let failure = self.refuse(&format!("{key}.needs"), &message);
                let known = self.order.iter().map(String::as_str).filter(|known| *known != name);
                return Err(match nearest(need, known) {
                    Some(known) => failure.hint(format!("did you mean `{known}`?")),
                    None => failure,
                });
            }
        }
        self.refuse_twice(&format!("{key}.needs"), &row.needs)
    }

    fn check_matrix(
        &self,
        prefix: &str,
        folds: Option<&Vec<u32>>,
        seeds: Option<&Vec<u64>>,
    ) -> Result<()> {
        let (folds, seeds) =
            (folds.map_or(&[][..], Vec::as_slice), seeds.map_or(&[][..], Vec::as_slice));
        if let Some(fold) = folds.iter().find(|&&fold| fold > FOLDS) {
            let key = format!("{prefix}folds");
            let message = format!("`{key}` holds {fold}, expected 0 to {FOLDS}");
            return Err(self.refuse(&key, &message));
        }
        if folds.len().max(1) * seeds.len().max(1) > FARM_JOBS {
            let message = format!("there are more than {FARM_JOBS} jobs");
            return Err(self.refuse(&format!("{prefix}seeds"), &message));
        }
        self.refuse_twice(&format!("{prefix}folds"), folds)?;
        self.refuse_twice(&format!("{prefix}seeds"), seeds)
    }

    fn refuse_twice<T: Ord + std::fmt::Display>(&self, key: &str, values: &[T]) -> Result<()> {
        let mut seen = BTreeSet::new();
        match values.iter().find(|value| !seen.insert(*value)) {
            Some(value) => Err(self.refuse(key, &format!("`{key}` holds {value} twice"))),
            None => Ok(()),
        }
    }

    fn check_sizes(
        &self,
        prefix: &str,
        ranks: Option<usize>,
        gpus: Option<f64>,
        restarts: Option<usize>,
    ) -> Result<()> {
        let refuse = |key: &str, found: String, expected: &str| {
            let key = format!("{prefix}{key}");
            Err(self.refuse(&key, &format!("`{key}` is {found}, expected {expected}")))
        };
        if let Some(ranks) = ranks.filter(|ranks| !(1..=RANKS).contains(ranks)) {
            return refuse("ranks", ranks.to_string(), &format!("1 to {RANKS}"));
        }
        let is_number =
            |gpus: f64| (0.0..1.0).contains(&gpus) || (gpus.fract() == 0.0 && gpus >= 1.0);
        if let Some(gpus) = gpus.filter(|&gpus| !is_number(gpus) || gpus > RANKS as f64) {
            return refuse("gpus", gpus.to_string(), "a whole number, or the share of one GPU");
        }
        if let Some(restarts) = restarts.filter(|&restarts| restarts > RESTARTS) {
            return refuse("restarts", restarts.to_string(), &format!("0 to {RESTARTS}"));
        }
        Ok(())
    }

    fn check_compared(&self) -> Result<()> {
        let Some(name) = &self.table.compare_with else { return Ok(()) };
        if self.rows.get(name).is_some_and(|row| row.config.is_some()) {
            return Ok(());
        }
        let message = format!("`table.compare_with` is `{name}`, and no row of that name trains");
        let failure = self.refuse("table.compare_with", &message);
        let training = self.rows().filter(|(_, row)| row.config.is_some());
        Err(match nearest(name, training.map(|(name, _)| name)) {
            Some(known) => failure.hint(format!("did you mean `{known}`?")),
            None => failure,
        })
    }

    /// Takes away rows that need nothing, and then those that need only what is taken away; where some are left, some of
    /// them wait for each other.
    fn check_circles(&self) -> Result<()> {
        let mut left: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut needed_by: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, row) in self.rows() {
            left.insert(name, row.needs.iter().map(String::as_str).collect());
            row.needs.iter().for_each(|need| needed_by.entry(need).or_default().push(name));
        }
        let mut free: Vec<&str> =
            self.rows().filter(|(_, row)| row.needs.is_empty()).map(|(n, _)| n).collect();
        while let Some(name) = free.pop() {
            left.remove(name);
            for waiting in needed_by.get(name).into_iter().flatten() {
                if let Some(needs) = left.get_mut(waiting) {
                    needs.remove(name);
                    free.extend(needs.is_empty().then_some(*waiting));
                }
            }
        }
        let Some(start) = self.rows().map(|(name, _)| name).find(|name| left.contains_key(name))
        else {
            return Ok(());
        };
        // Every row that is left needs another one that is left, so that the way comes back to itself.
        let mut way = vec![start];
        while let Some(need) = way.last().and_then(|last| left.get(last)?.first()) {
            if let Some(begin) = way.iter().position(|name| name == need) {
                let circle = [&way[begin..], &[*need]].concat().join("`, which needs `");
                let message = format!("the rows wait for each other: `{circle}`");
                return Err(self.refuse(&format!("rows.{need}.needs"), &message));
            }
            way.push(need);
        }
        Ok(())
    }

    /// Every row that `name` needs, directly or by way of others.
    pub(super) fn all_needs(&self, name: &str) -> BTreeSet<&str> {
        let (mut found, mut open) = (BTreeSet::new(), vec![name]);
        while let Some(name) = open.pop() {
            for need in self.rows.get(name).map_or(&[][..], |row| &row.needs) {
                if found.insert(need.as_str()) {
                    open.push(need);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn rows_are_in_the_order_of_the_file() {
        let file = FarmFile::parse(WHOLE, "farm.toml").unwrap();
        assert_eq!(file.rows().map(|(name, _)| name).collect::<Vec<_>>(), ["plain", "again"]);
        assert_eq!((file.folds.as_slice(), file.gpus), (&[1, 2][..], Some(0.5)));
        assert_eq!(file.text(), WHOLE);
    }
}
