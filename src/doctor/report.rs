//! What a doctor says: one line for each check, with a state, what it is seen by, and what to do next.
//!
//! How lines are drawn is up to [`Report::text`]; what they say, to others.

use crate::error::printable;
use crate::words::counted;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write;

/// The form of a report as JSON; another form gets another number.
const SCHEMA: &str = "scrimp doctor 1";

/// How it stands with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Training would fail.
    Fails,
    /// Training works, and somebody should look.
    Warning,
    /// As it should be.
    Ok,
    /// There is nothing to look at.
    NotHere,
}

impl State {
    /// The word in front of a line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fails => "fails",
            Self::Warning => "warning",
            Self::Ok => "ok",
            Self::NotHere => "not here",
        }
    }
}

/// What is found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How it stands.
    pub state: State,
    /// What it is seen by, as a phrase without a full stop.
    pub evidence: String,
    /// The next thing to do.
    pub hint: Option<String>,
}

impl Finding {
    /// It is as it should be.
    pub fn ok(evidence: impl Into<String>) -> Self {
        Self { state: State::Ok, evidence: evidence.into(), hint: None }
    }

    /// Somebody should look.
    pub fn warning(evidence: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { state: State::Warning, ..Self::ok(evidence) }.hint(hint)
    }

    /// Training would fail.
    pub fn fails(evidence: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { state: State::Fails, ..Self::ok(evidence) }.hint(hint)
    }

    /// There is nothing to look at.
    pub fn not_here(evidence: impl Into<String>) -> Self {
        Self { state: State::NotHere, ..Self::ok(evidence) }
    }

    /// The same with the next thing to do.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What is looked at, the same words in every report.
    pub check: &'static str,
    /// How it stands.
    pub state: State,
    /// What it is seen by.
    pub evidence: String,
    /// The next thing to do.
    pub hint: Option<String>,
    /// The ranks that it is true of.
    pub ranks: Vec<usize>,
    /// Their hosts.
    pub hosts: Vec<String>,
}

/// All that is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `scrimp doctor 1`.
    pub schema: &'static str,
    /// Whether training could begin.
    pub can_train: bool,
    /// The host of each rank.
    pub hosts: Vec<String>,
    /// One line or more for each check, in the order in which things are needed.
    pub lines: Vec<Line>,
}

impl Report {
    /// A report of these lines by ranks on these hosts.
    pub fn new(hosts: Vec<String>, lines: Vec<Line>) -> Self {
        let can_train = lines.iter().all(|line| line.state != State::Fails);
        Self { schema: SCHEMA, can_train, hosts, lines }
    }

    /// The lines as a table of at most `columns` columns, what it is of above and what follows below.
    pub fn text(&self, columns: usize) -> String {
        let row = |line: &Line| {
            let evidence = format!("{}{}", self.place(line), line.evidence);
            let (state, hint) = (line.state, line.hint.clone());
            Row { name: line.check.to_owned(), finding: Finding { state, evidence, hint } }
        };
        let rows: Vec<Row> = self.lines.iter().map(row).collect();
        format!("{}\n\n{}\n{}\n", self.title(), table(&rows, columns), self.verdict())
    }

    fn title(&self) -> String {
        let hosts: BTreeSet<&String> = self.hosts.iter().collect();
        let on = match hosts.first() {
            Some(host) if hosts.len() == 1 => format!("`{}`", printable(host)),
            _ => format!("{} hosts", hosts.len()),
        };
        format!("{} on {on}", counted(self.hosts.len(), "rank"))
    }

    /// Which ranks a line is true of, in front of it; nothing where it is true of all.
    fn place(&self, line: &Line) -> String {
        if line.ranks.len() == self.hosts.len() {
            return String::new();
        }
        let on = |host: &String| self.hosts.iter().filter(|other| *other == host).count();
        let is_whole = line.hosts.iter().map(on).sum::<usize>() == line.ranks.len();
        let is_one_host = self.hosts.iter().all(|host| *host == self.hosts[0]);
        let hosts =
            format!("on {}", few(line.hosts.iter().map(|host| printable(host).into_owned())));
        let ranks = few(line.ranks.iter().map(ToString::to_string));
        let ranks = format!("rank{} {ranks}", if line.ranks.len() == 1 { "" } else { "s" });
        match (is_one_host, is_whole) {
            (true, _) => format!("{ranks}: "),
            (false, true) => format!("{hosts}: "),
            (false, false) => format!("{ranks} {hosts}: "),
        }
    }

    /// What follows from all lines.
    fn verdict(&self) -> String {
        let of = |state| {
            let found = self.lines.iter().filter(move |line| line.state == state);
            let mut once: Vec<&str> = Vec::new();
            for line in found {
                if !once.contains(&line.check) {
                    once.push(line.check);
                }
            }
            once.join(", ")
        };
        let (fails, warnings) = (of(State::Fails), of(State::Warning));
        match (fails.is_empty(), warnings.is_empty()) {
            (true, true) => "training can begin here".to_owned(),
            (true, false) => format!("training can begin here; look at: {warnings}"),
            (false, true) => format!("training would fail here: {fails}"),
            (false, false) => {
                format!("training would fail here: {fails}; look also at: {warnings}")
            }
        }
    }
}

/// A row of a table: what it is about, and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// A few words or a name.
    pub name: String,
    /// What was found out about it.
    pub finding: Finding,
}

/// Rows of at most `columns` columns: state, name, evidence, and hints below. A name that was said stands there once.
pub fn table(rows: &[Row], columns: usize) -> String {
    let words = State::NotHere.word().len();
    let names = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let indent = words + 2 + names + 2;
    let room = columns.saturating_sub(indent).max(MOST_NARROW);
    let (mut text, mut last) = (String::new(), None);
    for Row { name, finding } in rows {
        let shown = if last == Some(name) { String::new() } else { printable(name).into_owned() };
        last = Some(name);
        let mut head = format!("{:<words$}  {shown:<names$}  ", finding.state.word());
        for part in wrapped(&printable(&finding.evidence), room) {
            let _ = writeln!(text, "{head}{part}");
            head = " ".repeat(indent);
        }
        for part in finding.hint.iter().flat_map(|hint| wrapped(&printable(hint), room - 2)) {
            let _ = writeln!(text, "{}> {part}", " ".repeat(indent));
        }
    }
    text
}

/// Columns that evidence has however narrow a terminal is.
const MOST_NARROW: usize = 30;
/// How many names stand in a sentence.
const FEW: usize = 4;

/// The first few names, and how many more there are.
pub fn few(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let shown = names[..names.len().min(FEW)].join(", ");
    match names.len().saturating_sub(FEW) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// A text in lines of at most `columns` characters, where it has spaces.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            // A unit stays with its number.
            Some(line)
                if word.starts_with('%')
                    || line.chars().count() + 1 + word.chars().count() <= columns =>
            {
                *line += " ";
                *line += word;
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(check: &'static str, finding: Finding, ranks: &[usize], hosts: &[&str]) -> Line {
        let Finding { state, evidence, hint } = finding;
        let hosts = hosts.iter().map(ToString::to_string).collect();
        Line { check, state, evidence, hint, ranks: ranks.to_vec(), hosts }
    }

    fn report() -> Report {
        let lines = vec![
            line("libtorch", Finding::ok("2.11.0"), &[0, 1, 2, 3], &["a", "b"]),
            line("data", Finding::fails("`x.h5` is damaged", "copy it again"), &[2, 3], &["b"]),
            line(
                "open files",
                Finding::warning(
                    "64 may be open, which is little for so many ranks",
                    "`ulimit -n 4096`",
                ),
                &[1],
                &["a"],
            ),
            line("GPUs", Finding::not_here("no driver"), &[0, 1, 2, 3], &["a", "b"]),
        ];
        Report::new(["a", "a", "b", "b"].map(String::from).to_vec(), lines)
    }

    #[test]
    fn lines_stand_in_columns_with_their_places_and_hints() {
        insta::assert_snapshot!(report().text(60), @r"
        4 ranks on 2 hosts

        ok        libtorch    2.11.0
        fails     data        on b: `x.h5` is damaged
                              > copy it again
        warning   open files  rank 1 on a: 64 may be open, which is
                              little for so many ranks
                              > `ulimit -n 4096`
        not here  GPUs        no driver

        training would fail here: data; look also at: open files
        ");
    }

    #[test]
    fn what_is_said_as_json_names_all_ranks() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!((&json["schema"], &json["can_train"]), (&SCHEMA.into(), &false.into()));
        assert_eq!(json["lines"][1]["state"], "fails");
        assert_eq!(json["lines"][1]["ranks"], serde_json::json!([2, 3]));
        assert_eq!(json["lines"][3]["state"], "not_here");
        assert_eq!(json["lines"][3]["hint"], serde_json::Value::Null);
    }

    #[test]
    fn many_names_are_named_in_part() {
        assert_eq!(few((0..6).map(|rank| rank.to_string())), "0, 1, 2, 3 and 2 more");
        assert_eq!(wrapped("a bb ccc", 4), ["a bb", "ccc"]);
    }

    #[test]
    fn a_report_without_fault_says_so() {
        let fine = Report::new(vec!["a".into()], vec![line("MPI", Finding::ok("x"), &[0], &["a"])]);
        assert!(fine.can_train && fine.text(80).ends_with("\ntraining can begin here\n"));
        assert!(fine.text(80).starts_with("1 rank on `a`\n"));
    }
}
