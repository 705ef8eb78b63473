//! Fixations as eye trackers write them: a table with one row for each, columns by their names.
//!
//! Refuses what is damaged with its line. Knows the table, and of pictures only their names.

use super::Fixation;
use crate::error::{Context, Failure, Result};
use crate::files;
use crate::limits::FIXATION_BYTES;
use csv::{ReaderBuilder, StringRecord, Trim};
use std::collections::BTreeMap;
use std::path::Path;

/// Shorter fixations are left out, as in the published tables.
pub const SHORTEST_MS: f64 = 50.0;

/// The columns that are read; the last may be absent.
const IMAGE: &str = "IMAGE";
const X: &str = "CURRENT_FIX_X";
const Y: &str = "CURRENT_FIX_Y";
const DURATION: &str = "CURRENT_FIX_DURATION";
const START: &str = "CURRENT_FIX_START";

/// What may stand between two columns.
const DELIMITERS: [u8; 3] = *b",;\t";

/// Endings that names of pictures have in such tables.
const ENDINGS: [&str; 14] = [
    ".seg.nrrd",
    ".nii.gz",
    ".jpeg",
    ".tiff",
    ".nrrd",
    ".nhdr",
    ".jpg",
    ".png",
    ".bmp",
    ".dcm",
    ".tif",
    ".nii",
    ".mha",
    ".mhd",
];

/// The fixations of many pictures.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recording {
    /// Those of each picture, by its [`picture_name`], in the order of the table; never none.
    pub pictures: BTreeMap<String, Vec<Fixation>>,
    /// Lines of fixations that lie outside of their picture, which are left out.
    pub outside: Vec<u64>,
    /// Lines of fixations below [`SHORTEST_MS`], which are left out.
    pub short: Vec<u64>,
}

/// What a table calls a picture, without folders and the ending of a file: `a` for `images/a.jpg`.
pub fn picture_name(written: &str) -> &str {
    let name = written.rsplit(['/', '\\']).next().unwrap_or(written);
    let ending = ENDINGS.iter().find_map(|ending| {
        let at = name.len().checked_sub(ending.len()).filter(|&at| at > 0)?;
        name.get(at..)?.eq_ignore_ascii_case(ending).then_some(at)
    });
    ending.map_or(name, |at| &name[..at])
}

/// Reads a table of fixations: a line of names, then one line for each fixation.
///
/// Columns are found by their names, in any order, whatever stands beside them: `IMAGE`, `CURRENT_FIX_X` and
/// `CURRENT_FIX_Y` as shares of the picture, `CURRENT_FIX_DURATION` in milliseconds, and `CURRENT_FIX_START` in
/// milliseconds where it is there. Columns may be separated by commas, semicolons or tabs, lines end as on any
/// system, and a byte-order mark is passed over.
///
/// Refuses missing columns, lines of another length, what is no number, durations that are not positive, fixations
/// of one picture that begin before the one in front of them, and tables most of whose fixations lie outside of the
/// pictures, which are in other units.
pub fn read(path: &Path) -> Result<Recording> {
    let cannot = || format!("cannot read the fixations `{}`", path.display());
    let text = files::read_text(path, FIXATION_BYTES).context(cannot).map_err(|failure| {
        failure.hint("save the table as text with commas, in UTF-8 (`CSV UTF-8` in Excel)")
    })?;
    // Of a line that ends as on Windows the reader tells the number of the one before.
    let text = text.replace("\r\n", "\n");
    let table = Table { path, text: text.strip_prefix('\u{feff}').unwrap_or(&text) };
    table.read()
}

/// The text of a table.
struct Table<'a> {
    path: &'a Path,
    text: &'a str,
}

/// Where the columns are.
struct Columns {
    image: usize,
    x: usize,
    y: usize,
    duration: usize,
    start: Option<usize>,
    count: usize,
}

/// When the fixation before began, and in which line it is.
type Before = BTreeMap<String, (f64, u64)>;

impl Table<'_> {
    fn read(&self) -> Result<Recording> {
        let first = self.text.lines().next().unwrap_or_default();
        let count = |delimiter: &u8| first.bytes().filter(|byte| byte == delimiter).count();
        // Of equally many `max_by_key` gives the last.
        let delimiter = DELIMITERS.into_iter().rev().max_by_key(count).unwrap_or(b',');
        let mut builder = ReaderBuilder::new();
        builder.delimiter(delimiter).flexible(true).trim(Trim::All);
        let mut reader = builder.from_reader(self.text.as_bytes());
        let cannot = || format!("cannot read the fixations `{}`", self.path.display());
        let columns = self.columns(reader.headers().context(cannot)?)?;
        let (mut recording, mut before) = (Recording::default(), Before::new());
        for row in reader.records() {
            let row = row.context(cannot)?;
            if row.iter().any(|field| !field.is_empty()) {
                self.add(&row, &columns, (&mut recording, &mut before))?;
            }
        }
        self.check(&recording)?;
        Ok(recording)
    }

    /// Refuses names of columns that are missing or there twice.
    fn columns(&self, names: &StringRecord) -> Result<Columns> {
        let places = |wanted: &str| {
            let named = names.iter().enumerate();
            named
                .filter(|(_, name)| name.eq_ignore_ascii_case(wanted))
                .map(|(place, _)| place)
                .collect::<Vec<usize>>()
        };
        let wanted = [IMAGE, X, Y, DURATION];
        let missing: Vec<&str> =
            wanted.into_iter().filter(|name| places(name).is_empty()).collect();
        if !missing.is_empty() {
            let found: Vec<&str> = names.iter().take(20).collect();
            return Err(Failure::usage(format!(
                "the fixations `{}` have no column `{}`, only `{}`",
                self.path.display(),
                missing.join("` and no column `"),
                found.join("`, `")
            ))
            .hint(format!(
                "name the columns in the first line: `{}`, and `{START}` where it is known",
                wanted.join("`, `")
            )));
        }
        if let Some(name) = wanted.into_iter().chain([START]).find(|name| places(name).len() > 1) {
            return Err(Failure::usage(format!(
                "the fixations `{}` have two columns `{name}`, expected one",
                self.path.display()
            )));
        }
        let place = |name: &str| places(name).first().copied();
        let known = |name: &str| place(name).unwrap_or_default();
        Ok(Columns {
            image: known(IMAGE),
            x: known(X),
            y: known(Y),
            duration: known(DURATION),
            start: place(START),
            count: names.len(),
        })
    }

    /// Takes one line.
    fn add(
        &self,
        row: &StringRecord,
        columns: &Columns,
        (recording, before): (&mut Recording, &mut Before),
    ) -> Result<()> {
        let line = row.position().map_or(0, csv::Position::line);
        if row.len() != columns.count {
            return Err(self.refuse(
                line,
                &format!("has {} columns, expected {} as the first line", row.len(), columns.count),
            ));
        }
        let name = picture_name(&row[columns.image]);
        if name.is_empty() {
            return Err(self.refuse(line, &format!("names no picture in `{IMAGE}`")));
        }
        let number = |column: usize, called: &str| self.number(line, &row[column], called);
        let (x, y) = (number(columns.x, X)?, number(columns.y, Y)?);
        let duration_ms = number(columns.duration, DURATION)?;
        if duration_ms <= 0.0 {
            let what = format!("has `{DURATION}` {duration_ms}, expected milliseconds above 0");
            return Err(self.refuse(line, &what));
        }
        if let Some(column) = columns.start {
            self.check_time((line, name), number(column, START)?, before)?;
        }
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        if !(is_share(x) && is_share(y)) {
            recording.outside.push(line);
        } else if duration_ms < SHORTEST_MS {
            recording.short.push(line);
        } else {
            let fixations = recording.pictures.entry(name.to_owned()).or_default();
            fixations.push(Fixation { x, y, duration_ms });
        }
        Ok(())
    }

    /// Refuses a fixation that does not begin after the one before of the same picture.
    fn check_time(
        &self,
        (line, name): (u64, &str),
        start_ms: f64,
        before: &mut Before,
    ) -> Result<()> {
        if let Some((earlier_ms, earlier_line)) = before.get(name)
            && start_ms <= *earlier_ms
        {
            let what = format!(
                "says that a fixation of `{name}` begins at {start_ms} ms, and the one before, in line \
                 {earlier_line}, at {earlier_ms} ms: time does not go on"
            );
            return Err(self.refuse(line, &what).hint(
                "sort the rows of each picture by time, and leave one recording of one eye for each picture",
            ));
        }
        before.insert(name.to_owned(), (start_ms, line));
        Ok(())
    }

    fn number(&self, line: u64, field: &str, called: &str) -> Result<f64> {
        let number = field.parse().ok().filter(|number: &f64| number.is_finite());
        number.ok_or_else(|| {
            let refused =
                self.refuse(line, &format!("has `{field}` in `{called}`, expected a number"));
            if field.contains(',') {
                return refused.hint("write numbers with a point, as in `0.5`");
            }
            refused
        })
    }

    fn refuse(&self, line: u64, what: &str) -> Failure {
        Failure::usage(format!("line {line} of the fixations `{}` {what}", self.path.display()))
    }

    /// Refuses a table without fixations, and one whose numbers are no shares of pictures.
    fn check(&self, recording: &Recording) -> Result<()> {
        let inside =
            recording.short.len() + recording.pictures.values().map(Vec::len).sum::<usize>();
        let outside = recording.outside.len();
        if inside + outside == 0 {
            return Err(Failure::usage(format!(
                "the fixations `{}` hold none, expected a line for each below the names of columns",
                self.path.display()
            )));
        }
        if outside <= inside {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "{outside} of {} fixations in `{}` lie outside of their pictures, expected `{X}` and `{Y}` from 0 to 1",
            outside + inside,
            self.path.display()
        ))
        .hint("divide pixels by the width and the height of the picture, from its own top left corner"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &str = "IMAGE,CURRENT_FIX_INDEX,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION,CURRENT_FIX_PUPIL,CURRENT_FIX_START,IMAGE_HEIGHT,IMAGE_WIDTH";
    const ROWS: &str = "a.jpg,1,0.25,0.5,200,900,100,531,622\na.jpg,2,1,0,50,900,400,531,622\nb.jpg,1,0.5,0.75,3570,900,90,531,622\n";

    fn read_text(text: &str) -> Result<Recording> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gaze.csv");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    /// What is said, without the folder.
    fn refusal(text: &str) -> String {
        let said = read_text(text).unwrap_err().to_string();
        regex::Regex::new("`[^`]*/gaze.csv`").unwrap().replace_all(&said, "`gaze.csv`").into_owned()
    }

    fn fixation(x: f64, y: f64, duration_ms: f64) -> Fixation {
        Fixation { x, y, duration_ms }
    }

    #[test]
    fn columns_are_found_by_name_however_lines_end_and_columns_are_parted() {
        let found = read_text(&format!("{NAMES}\n{ROWS}")).unwrap();
        let expected = BTreeMap::from([
            ("a".to_owned(), vec![fixation(0.25, 0.5, 200.0), fixation(1.0, 0.0, 50.0)]),
            ("b".to_owned(), vec![fixation(0.5, 0.75, 3570.0)]),
        ]);
        assert_eq!(found.pictures, expected);
        assert_eq!((found.outside, found.short), (vec![], vec![]));
        let all = format!("{NAMES}\n{ROWS}");
        let windows = format!("\u{feff}{}\r\n", all.trim_end().replace('\n', "\r\n"));
        for text in
            [windows, all.replace(',', ";"), all.replace(',', "\t"), format!("{all},,,,,,,,\n\n")]
        {
            assert_eq!(read_text(&text).unwrap().pictures, expected, "{text}");
        }
        let few = "current_fix_duration, current_fix_y ,IMAGE,CURRENT_FIX_X\n200,0.5,\"x/y\\a.PNG\",0.25\n";
        assert_eq!(
            read_text(few).unwrap().pictures,
            BTreeMap::from([("a".to_owned(), vec![fixation(0.25, 0.5, 200.0)])])
        );
    }

    #[test]
    fn names_of_pictures_lose_folders_and_endings() {
        assert_eq!(picture_name("ProstateDx-01-0001_5.jpg"), "ProstateDx-01-0001_5");
        assert_eq!(picture_name("c:\\x\\a.b.NII.GZ"), "a.b");
        assert_eq!(picture_name("1.2.840"), "1.2.840");
        assert_eq!(picture_name(".jpg"), ".jpg");
        assert_eq!(picture_name("x/"), "");
    }

    #[test]
    fn what_lies_outside_or_is_short_is_left_out_and_counted() {
        let text = format!(
            "{NAMES}\n{ROWS}b.jpg,2,1.01,0.5,100,9,5000,1,1\nb.jpg,3,0.5,0.5,49,9,5200,1,1\n"
        );
        let found = read_text(&text).unwrap();
        assert_eq!((found.outside, found.short), (vec![5], vec![6]));
        assert_eq!(found.pictures["b"].len(), 1);
        let pixels = format!("{NAMES}\na.jpg,1,300,200,100,9,1,1,1\n");
        insta::assert_snapshot!(refusal(&pixels), @r"
        error: 1 of 1 fixations in `gaze.csv` lie outside of their pictures, expected `CURRENT_FIX_X` and `CURRENT_FIX_Y` from 0 to 1

        hint: divide pixels by the width and the height of the picture, from its own top left corner
        ");
    }

    #[test]
    fn damage_is_named_with_its_line() {
        let with = |row: &str| refusal(&format!("{NAMES}\n{ROWS}{row}\n"));
        insta::assert_snapshot!(with("a.jpg,3,0.5,0.5,100,9,400,1,1"), @r"
        error: line 5 of the fixations `gaze.csv` says that a fixation of `a` begins at 400 ms, and the one before, in line 3, at 400 ms: time does not go on

        hint: sort the rows of each picture by time, and leave one recording of one eye for each picture
        ");
        let windows = format!("{NAMES}\n{ROWS}a.jpg,3,0.5\n").replace('\n', "\r\n");
        assert_eq!(refusal(&windows), with("a.jpg,3,0.5"));
        insta::assert_snapshot!(with("a.jpg,3,0.5,0.5,0,9,900,1,1"), @"error: line 5 of the fixations `gaze.csv` has `CURRENT_FIX_DURATION` 0, expected milliseconds above 0");
        insta::assert_snapshot!(with("a.jpg,3,0.5,NaN,100,9,900,1,1"), @"error: line 5 of the fixations `gaze.csv` has `NaN` in `CURRENT_FIX_Y`, expected a number");
        insta::assert_snapshot!(with("a.jpg,3,\"0,5\",0.5,100,9,900,1,1"), @r"
        error: line 5 of the fixations `gaze.csv` has `0,5` in `CURRENT_FIX_X`, expected a number

        hint: write numbers with a point, as in `0.5`
        ");
        insta::assert_snapshot!(with("a.jpg,3,0.5"), @"error: line 5 of the fixations `gaze.csv` has 3 columns, expected 9 as the first line");
        insta::assert_snapshot!(with(",3,0.5,0.5,100,9,900,1,1"), @"error: line 5 of the fixations `gaze.csv` names no picture in `IMAGE`");
        insta::assert_snapshot!(refusal("IMAGE,X,Y\na,1,2\n"), @r"
        error: the fixations `gaze.csv` have no column `CURRENT_FIX_X` and no column `CURRENT_FIX_Y` and no column `CURRENT_FIX_DURATION`, only `IMAGE`, `X`, `Y`

        hint: name the columns in the first line: `IMAGE`, `CURRENT_FIX_X`, `CURRENT_FIX_Y`, `CURRENT_FIX_DURATION`, and `CURRENT_FIX_START` where it is known
        ");
        let twice = format!("{NAMES},IMAGE\n");
        insta::assert_snapshot!(refusal(&twice), @"error: the fixations `gaze.csv` have two columns `IMAGE`, expected one");
        assert!(refusal(&format!("{NAMES}\n")).contains("hold none"));
        assert!(refusal("").contains("have no column `IMAGE`"));
    }
}
