//! Tables: one row for each record, a column for each number.

use super::undone::Rewinds;
use super::{for_each_record, logs};
use crate::error::{Context, Result};
use crate::files::FreshFile;
use crate::runlog::directory::RunDirectory;
use crate::runlog::{Record, RunEvent};
use crate::watch::harmless;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, IntoInnerError, Write};
use std::path::{Path, PathBuf};

/// A row: the table it belongs to, and its cells by column.
type Row = (&'static str, BTreeMap<String, String>);

/// Columns that stand before the others, in this order.
const FIRST: [&str; 5] = ["time_ms", "rank", "step", "epoch", "structure"];

/// Writes `steps.csv`, `scores.csv`, `health.csv` and `telemetry.csv` into `folder`, those that have
/// rows; gives their paths. What is not finite or absent is an empty cell. The column `undone` says of
/// what belongs to a step whether the run went on from an earlier one since.
pub fn csv(directory: &RunDirectory, folder: &Path) -> Result<Vec<PathBuf>> {
    let logs = logs(directory)?;
    let mut rewinds = Rewinds::default();
    let mut columns: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for_each_record(&logs, |record| {
        rewinds.learn(&record);
        for (table, cells) in rows(record, Some(false)) {
            let known = columns.entry(table).or_default();
            known.extend(cells.into_keys());
        }
        Ok(())
    })?;
    let doing = || format!("cannot write tables into `{}`", folder.display());
    std::fs::create_dir_all(folder).context(doing)?;
    let mut tables = BTreeMap::new();
    for (table, columns) in columns {
        let columns = in_order(columns);
        let path = folder.join(format!("{table}.csv"));
        let mut file = BufWriter::new(FreshFile::beside(&path).context(doing)?);
        let head: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
        writeln!(file, "{}", head.join(",")).context(doing)?;
        tables.insert(table, (path, columns, file));
    }
    let mut reading = rewinds.again();
    for_each_record(&logs, |record| {
        let is_undone = reading.is_undone(&record);
        for (table, cells) in rows(record, is_undone) {
            let Some((_, columns, file)) = tables.get_mut(table) else { continue };
            let cell = |column: &String| cells.get(column).map(|text| quoted(text));
            let line: Vec<String> =
                columns.iter().map(|column| cell(column).unwrap_or_default()).collect();
            writeln!(file, "{}", line.join(",")).context(doing)?;
        }
        Ok(())
    })?;
    let close = |(path, _, file): (PathBuf, Vec<String>, BufWriter<FreshFile>)| {
        let file = file.into_inner().map_err(IntoInnerError::into_error).context(doing)?;
        file.take_place().context(doing).map(|()| path)
    };
    tables.into_values().map(close).collect()
}

fn in_order(columns: BTreeSet<String>) -> Vec<String> {
    let first = FIRST.iter().filter(|column| columns.contains(**column));
    let mut ordered: Vec<String> = first.map(|column| (*column).to_owned()).collect();
    ordered.extend(columns.into_iter().filter(|column| !FIRST.contains(&column.as_str())));
    ordered
}

/// The rows of a record; an evaluation has one for each structure.
fn rows(record: Record, is_undone: Option<bool>) -> Vec<Row> {
    let Record { time_ms, rank, event } = record;
    let table = match &event {
        RunEvent::Step(_) => "steps",
        RunEvent::Health(_) => "health",
        RunEvent::Telemetry(_) => "telemetry",
        RunEvent::Evaluated(_) => "scores",
        _ => return Vec::new(),
    };
    let Ok(Value::Object(mut fields)) = serde_json::to_value(&event) else { return Vec::new() };
    fields.remove("event");
    fields.insert("time_ms".to_owned(), time_ms.into());
    if table != "steps" && table != "scores" {
        fields.insert("rank".to_owned(), rank.into());
    }
    if let Some(is_undone) = is_undone.filter(|_| table != "telemetry") {
        fields.insert("undone".to_owned(), is_undone.into());
    }
    let Some(Value::Array(structures)) = fields.remove("structures") else {
        return vec![(table, cells(fields))];
    };
    let structures = structures.into_iter().filter_map(|scores| match scores {
        Value::Object(mut scores) => {
            let name = scores.remove("name")?;
            scores.insert("structure".to_owned(), name);
            scores.extend(fields.clone());
            Some((table, cells(scores)))
        }
        _ => None,
    });
    structures.collect()
}

/// Numbers by name become columns `group/name`.
fn cells(fields: Map<String, Value>) -> BTreeMap<String, String> {
    let mut cells = BTreeMap::new();
    for (name, value) in fields {
        match value {
            Value::Object(inner) => {
                let inner =
                    inner.into_iter().map(|(key, value)| (format!("{name}/{key}"), plain(value)));
                cells.extend(inner);
            }
            value => {
                cells.insert(name, plain(value));
            }
        }
    }
    cells
}

fn plain(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        value => value.to_string(),
    }
}

/// A cell as RFC 4180 writes it, in one line.
fn quoted(text: &str) -> String {
    let text = harmless(text);
    if text.contains([',', '"']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.into_owned()
    }
}
