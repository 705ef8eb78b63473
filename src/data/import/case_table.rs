//! A table of cases: whose they are, what they are for, in which fold, and which classes somebody looked for.
//!
//! Refuses what is damaged with its line. Knows the table and the names of classes; files of cases are not looked at.

use super::patients::Patients;
use crate::error::{Context, Failure, Result};
use crate::files::{self, SMALL_BYTES};
use crate::limits::FOLDS;
use crate::scan::{Notes, list, split_ending};
use csv::{ReaderBuilder, StringRecord, Trim};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The columns that are read; all but the first may be absent.
const COLUMNS: [&str; 5] = [CASE, PATIENT, PART, FOLD, CLASSES];
const CASE: &str = "case";
const PATIENT: &str = "patient";
const PART: &str = "part";
const FOLD: &str = "fold";
const CLASSES: &str = "classes";

/// What may stand between two columns.
const DELIMITERS: [char; 3] = [',', ';', '\t'];

/// How alike the name of a column must be to one that is read for a slip of the pen.
const ALIKE: f64 = 0.7;

/// What a table says of a case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CaseRow {
    /// The line of the table.
    pub(super) line: u64,
    /// Whose it is, where there is a column of patients.
    pub(super) patient: Option<String>,
    /// Whether it is there to test with.
    pub(super) is_test: bool,
    /// The fold that holds it out, where there is a column of folds; 0 for none.
    pub(super) fold: Option<u32>,
    /// As [`Case::classes_annotated`](crate::data::Case): numbers of the classes that somebody looked for, 0 among
    /// them; empty for all.
    pub(super) classes: Vec<u8>,
}

/// A table of cases.
#[derive(Debug)]
pub(super) struct CaseTable {
    path: PathBuf,
    rows: BTreeMap<String, CaseRow>,
    /// Columns of [`COLUMNS`] that it has.
    columns: BTreeSet<&'static str>,
}

/// Whose a case is, and the classes that somebody looked for in it, as [`crate::data::Case::classes_annotated`].
pub(super) type Origin = (String, Vec<u8>);

/// The origin of each of the cases `found`, as a table says it, or else the names of cases by `pattern`.
///
/// Refuses a pattern beside a table that names patients, and tables that name other cases or leave some out. Notes
/// names that look like several scans of one patient.
pub(super) fn origins<'a>(
    found: impl Iterator<Item = &'a String> + Clone,
    pattern: Option<&str>,
    table: Option<&CaseTable>,
    notes: &Notes,
) -> Result<BTreeMap<String, Origin>> {
    let patients = Patients::parse(pattern)?;
    let is_said = table.is_some_and(CaseTable::has_patients);
    if is_said && pattern.is_some() {
        let message = "`--patients` is given, and the table of cases has a column `patient`";
        return Err(Failure::usage(message).hint("leave `--patients` out, or remove the column"));
    }
    if let Some(table) = table {
        let names: BTreeSet<&String> = found.clone().collect();
        table.refuse_others(|name| names.iter().any(|found| *found == name))?;
    }
    if !is_said {
        patients.note_scans(found.clone(), notes);
    }
    let origin = |name: &String| {
        let (patient, classes) =
            table.map(|table| table.said_of(name)).transpose()?.unwrap_or_default();
        let patient = patient.map_or_else(|| patients.of(name), Ok)?;
        Ok((name.clone(), (patient, classes)))
    };
    found.map(origin).collect()
}

impl CaseTable {
    /// Reads a table: a line of names of columns, `case` and any of `patient`, `part`, `fold` and `classes`, in any
    /// order, then one line for each case.
    ///
    /// A case is called as its files are, with or without their ending. `part` is `train`, `test` or empty, which is
    /// `train`; `fold` a number from 1 on, or empty for none; `classes` are names of `classes` joined by `;`, or empty for
    /// all. Columns may be separated by commas, semicolons or tabs and cells stand in quotes, lines end as on any
    /// system, and a byte-order mark is passed over. Columns of other names are left alone.
    ///
    /// Refuses missing or misspelt columns, lines of another length, cases that stand there twice, and cells of another
    /// meaning.
    pub(super) fn read(path: &Path, classes: &[String]) -> Result<Self> {
        let cannot = || format!("cannot read the table of cases `{}`", path.display());
        let text = files::read_text(path, SMALL_BYTES).context(cannot).map_err(|failure| {
            failure.hint("save the table as text with commas, in UTF-8 (`CSV UTF-8` in Excel)")
        })?;
        // Of a line that ends as on Windows the reader tells the number of the one before.
        let text = text.replace("\r\n", "\n");
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let count = |delimiter: &char| first.matches(*delimiter).count();
        // Of equally many `max_by_key` gives the last.
        let delimiter = DELIMITERS.into_iter().rev().max_by_key(count).unwrap_or(',');
        let mut builder = ReaderBuilder::new();
        builder.delimiter(delimiter as u8).flexible(true).trim(Trim::All);
        let mut reader = builder.from_reader(text.as_bytes());
        let header = reader.headers().context(cannot)?.clone();
        let mut table =
            Self { path: path.to_owned(), rows: BTreeMap::new(), columns: BTreeSet::new() };
        let places = table.places(&header)?;
        table.columns = places.keys().copied().collect();
        for record in reader.records() {
            let record = record.context(cannot)?;
            if record.iter().any(|cell| !cell.is_empty()) {
                table.add(&record, &places, classes, header.len())?;
            }
        }
        if table.rows.is_empty() {
            return Err(Failure::usage(format!("the table `{}` has no cases", path.display()))
                .hint("give it a line for each case"));
        }
        Ok(table)
    }

    /// Whether it says whose cases are.
    pub(super) fn has_patients(&self) -> bool {
        self.columns.contains(PATIENT)
    }

    /// Whether it says which fold holds a case out.
    pub(super) fn has_folds(&self) -> bool {
        self.columns.contains(FOLD)
    }

    /// Whether it says what cases are for.
    pub(super) fn has_parts(&self) -> bool {
        self.columns.contains(PART)
    }

    /// What it says of a case. Refuses a case that it does not name.
    pub(super) fn row(&self, name: &str) -> Result<&CaseRow> {
        self.rows.get(name).ok_or_else(|| {
            let failure = Failure::usage(format!(
                "case `{name}` has no line in the table `{}`",
                self.path.display()
            ));
            failure.hint(format!(
                "give it one: in `{CASE}` stands the name of its files, here `{name}`"
            ))
        })
    }

    /// Refuses a table that names a case which is none of these.
    pub(super) fn refuse_others(&self, is_case: impl Fn(&str) -> bool) -> Result<()> {
        let mut others = self.rows.iter().filter(|(name, _)| !is_case(name));
        let Some((name, row)) = others.next() else { return Ok(()) };
        let more = match others.count() {
            0 => String::new(),
            more => format!(", and {more} more are like that"),
        };
        Err(self
            .refusal(row.line, &format!("names case `{name}`, of which there is no image{more}"))
            .hint("add its image, or remove the line"))
    }

    /// Whose the case `name` is, and which classes somebody looked for in it; none where the table does not say so.
    fn said_of(&self, name: &str) -> Result<(Option<String>, Vec<u8>)> {
        let row = self.row(name)?;
        Ok((row.patient.clone(), row.classes.clone()))
    }

    /// A failure of one of its lines.
    pub(super) fn refusal(&self, line: u64, what: &str) -> Failure {
        Failure::usage(format!("line {line} of the table `{}` {what}", self.path.display()))
    }

    /// Where the columns that are read stand. Refuses a table without `case`, one that has a column twice, and names that
    /// are nearly those of columns.
    fn places(&self, header: &StringRecord) -> Result<BTreeMap<&'static str, usize>> {
        let mut places = BTreeMap::new();
        let path = self.path.display();
        for (place, name) in header.iter().enumerate() {
            let name = name.to_lowercase();
            let like =
                |column: &&str| strsim::normalized_damerau_levenshtein(column, &name) >= ALIKE;
            match COLUMNS.into_iter().find(|column| *column == name) {
                Some(column) if places.insert(column, place).is_some() => {
                    let message = format!("the table `{path}` has two columns `{column}`");
                    return Err(Failure::usage(message).hint("remove or rename one of them"));
                }
                Some(_) => {}
                None => {
                    if let Some(column) = COLUMNS.into_iter().find(like) {
                        let message = format!("the table `{path}` has a column `{name}`");
                        return Err(Failure::usage(message)
                            .hint(format!("the column that is read is called `{column}`")));
                    }
                }
            }
        }
        if places.contains_key(CASE) {
            return Ok(places);
        }
        let found: Vec<String> = header.iter().map(|name| format!("`{name}`")).collect();
        Err(Failure::usage(format!(
            "the table `{path}` has no column `{CASE}`, only {}",
            list(&found)
        ))
        .hint(format!(
            "its first line names the columns: `{CASE}` and any of `{}`",
            COLUMNS[1..].join("`, `")
        )))
    }

    /// Takes one line of a table of so many columns.
    fn add(
        &mut self,
        record: &StringRecord,
        places: &BTreeMap<&'static str, usize>,
        classes: &[String],
        columns: usize,
    ) -> Result<()> {
        let line = record.position().map_or(0, csv::Position::line);
        if let Some(cell) = record.iter().find(|cell| cell.contains(['\n', '\r'])) {
            let start = cell.lines().next().unwrap_or_default();
            return Err(self
                .refusal(line, &format!("has a cell of several lines, which begins `{start}`"))
                .hint("close its quotes"));
        }
        if record.len() != columns {
            let what =
                format!("has {} columns, expected {columns} as the first line", record.len());
            return Err(self.refusal(line, &what));
        }
        let cell = |column: &str| places.get(column).map(|&place| &record[place]);
        let name = cell(CASE).map(case_name).unwrap_or_default();
        if name.is_empty() {
            return Err(self.refusal(line, &format!("names no case in `{CASE}`")));
        }
        let patient = cell(PATIENT).map(str::to_owned);
        if patient.as_deref() == Some("") {
            return Err(self
                .refusal(line, &format!("names no patient in `{PATIENT}`"))
                .hint(format!("each case has one; of `{name}` it may be `{name}`")));
        }
        let is_test = self.is_test(line, cell(PART).unwrap_or_default())?;
        let fold = cell(FOLD).map(|cell| self.fold(line, cell)).transpose()?;
        if is_test && fold.is_some_and(|fold| fold > 0) {
            return Err(self
                .refusal(line, "has a fold and is `test`, which is a fold of its own")
                .hint(format!("leave `{FOLD}` empty where `{PART}` is `test`")));
        }
        let classes = self.classes(line, cell(CLASSES).unwrap_or_default(), classes)?;
        let row = CaseRow { line, patient, is_test, fold, classes };
        match self.rows.insert(name.to_owned(), row) {
            Some(before) => Err(self
                .refusal(line, &format!("names case `{name}`, as line {} does", before.line))
                .hint("remove one of them")),
            None => Ok(()),
        }
    }

    fn is_test(&self, line: u64, cell: &str) -> Result<bool> {
        match cell.to_lowercase().as_str() {
            "" | "train" => Ok(false),
            "test" => Ok(true),
            _ => Err(self
                .refusal(line, &format!("has `{PART}` `{cell}`, expected `train` or `test`"))
                .hint(format!(
                    "each run validates on a fold of what is `train`; `{FOLD}` says on which"
                ))),
        }
    }

    fn fold(&self, line: u64, cell: &str) -> Result<u32> {
        let fold = if cell.is_empty() { Some(0) } else { cell.parse().ok() };
        fold.filter(|&fold| fold <= FOLDS).ok_or_else(|| {
            self.refusal(line, &format!("has `{FOLD}` `{cell}`, expected 1 to {FOLDS} or nothing"))
        })
    }

    /// Ascending numbers of the named classes and of the background; none where all are named, or no class is.
    fn classes(&self, line: u64, cell: &str, names: &[String]) -> Result<Vec<u8>> {
        let mut found = BTreeSet::new();
        for word in cell.split(';').map(str::trim).filter(|word| !word.is_empty()) {
            let Some(class) = names.iter().position(|name| name == word) else {
                let known: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                return Err(self
                    .refusal(
                        line,
                        &format!("has class `{word}` in `{CLASSES}`, expected {}", list(&known)),
                    )
                    .hint(format!(
                        "several names are joined by `;`, as in `{}`",
                        names.join(";")
                    )));
            };
            found.insert(class as u8);
        }
        if found.is_empty() || (1..names.len()).all(|class| found.contains(&(class as u8))) {
            return Ok(Vec::new());
        }
        found.insert(0);
        Ok(found.into_iter().collect())
    }
}

/// What a table calls a case, without folders and the ending of a file.
fn case_name(cell: &str) -> &str {
    let name = cell.rsplit(['/', '\\']).next().unwrap_or(cell);
    split_ending(name).map_or(name, |(stem, _)| stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["background", "liver", "tumour"];

    fn read(bytes: &[u8]) -> Result<CaseTable> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cases.csv");
        std::fs::write(&path, bytes).unwrap();
        CaseTable::read(&path, &NAMES.map(String::from))
    }

    fn refused(text: &str) -> String {
        let said = read(text.as_bytes()).unwrap_err().to_string();
        let words = said.split(' ').map(|word| match word.rsplit_once('/') {
            Some((_, name)) if word.starts_with("`/") => format!("`FOLDER/{name}"),
            _ => word.to_owned(),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn tables_of_every_program_say_the_same() {
        let plain = "case,patient,part,fold,classes\na,p1,train,2,liver\nb,p1,,,\nc,p2,test,,liver;tumour\n";
        let expected = read(plain.as_bytes()).unwrap().rows;
        let row = |line, patient: &str, fold| CaseRow {
            line,
            patient: Some(patient.into()),
            is_test: false,
            fold: Some(fold),
            classes: Vec::new(),
        };
        assert_eq!(expected["a"], CaseRow { classes: vec![0, 1], ..row(2, "p1", 2) });
        assert_eq!(expected["b"], row(3, "p1", 0));
        // All classes are what is meant where nothing is said.
        assert_eq!(expected["c"], CaseRow { is_test: true, ..row(4, "p2", 0) });
        let semicolons = plain.replace("liver;tumour", "\"liver;tumour\"").replace(',', ";");
        for text in [
            plain.replace('\n', "\r\n"),
            format!("\u{feff}{plain}"),
            semicolons,
            plain.replace(',', "\t"),
            plain.replace("a,p1", "\"a\",\" p1 \"").replace("part,", "Part, "),
            plain.replace("\na,", "\nimages/a.nii.gz,").replace("\nc,", "\nc.seg.nrrd,"),
            plain
                .replace("classes", "classes,age")
                .replace("liver\n", "liver,71\n")
                .replace(",\n", ",,\n")
                .replace("tumour\n", "tumour,\n"),
        ] {
            assert_eq!(read(text.as_bytes()).unwrap().rows, expected, "{text}");
        }
        let few = read(b"case\na\n").unwrap();
        assert_eq!(few.rows["a"], CaseRow { line: 2, ..CaseRow::default() });
        assert!(!few.has_patients() && !few.has_folds() && !few.has_parts());
    }

    #[test]
    fn damage_is_named_with_its_line() {
        insta::assert_snapshot!(refused("name,patient\na,b\n"), @r"
        error: the table `FOLDER/cases.csv` has no column `case`, only `name`, `patient`

        hint: its first line names the columns: `case` and any of `patient`, `part`, `fold`, `classes`
        ");
        insta::assert_snapshot!(refused("case,patients\na,b\n"), @r"
        error: the table `FOLDER/cases.csv` has a column `patients`

        hint: the column that is read is called `patient`
        ");
        insta::assert_snapshot!(refused("case,patient\na,b\nb\n"), @"error: line 3 of the table `FOLDER/cases.csv` has 1 columns, expected 2 as the first line");
        insta::assert_snapshot!(refused("case,patient\na,b\na.nii,c\n"), @r"
        error: line 3 of the table `FOLDER/cases.csv` names case `a`, as line 2 does

        hint: remove one of them
        ");
        insta::assert_snapshot!(refused("case,part\na,val\n"), @r"
        error: line 2 of the table `FOLDER/cases.csv` has `part` `val`, expected `train` or `test`

        hint: each run validates on a fold of what is `train`; `fold` says on which
        ");
        insta::assert_snapshot!(refused("case,classes\na,liver;lung\n"), @r"
        error: line 2 of the table `FOLDER/cases.csv` has class `lung` in `classes`, expected `background`, `liver`, `tumour`

        hint: several names are joined by `;`, as in `background;liver;tumour`
        ");
        insta::assert_snapshot!(refused("case,fold,part\na,1,test\n"), @r"
        error: line 2 of the table `FOLDER/cases.csv` has a fold and is `test`, which is a fold of its own

        hint: leave `fold` empty where `part` is `test`
        ");
        insta::assert_snapshot!(refused("case,patient\na,\"b\nc,d\n"), @r"
        error: line 2 of the table `FOLDER/cases.csv` has a cell of several lines, which begins `b`

        hint: close its quotes
        ");
        for (text, said) in [
            ("case,case\na,b\n", "has two columns `case`"),
            ("case,fold\na,1.5\n", "has `fold` `1.5`, expected 1 to"),
            ("case,fold\na,-1\n", "has `fold` `-1`, expected 1 to"),
            ("case,fold\na,99999999999\n", "expected 1 to"),
            ("case,patient\n,p\n", "names no case in `case`"),
            ("case,patient\na,\n", "names no patient in `patient`"),
            ("case,patient\n", "has no cases"),
            ("", "has no column `case`"),
        ] {
            assert!(refused(text).contains(said), "{}", refused(text));
        }
        assert!(read(b"case\n\xff\n").unwrap_err().hints()[0].contains("UTF-8"));
    }

    #[test]
    fn tables_and_files_name_the_same_cases() {
        let table = read(b"case\na\nb\n").unwrap();
        assert_eq!(table.row("a").unwrap().line, 2);
        assert!(
            table.row("c").unwrap_err().message().starts_with("case `c` has no line in the table")
        );
        assert!(table.refuse_others(|_| true).is_ok());
        let said = table.refuse_others(|name| name == "a").unwrap_err();
        assert!(said.message().ends_with("names case `b`, of which there is no image"), "{said}");
    }
}
