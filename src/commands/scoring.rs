//! Scores of label maps, whoever made them: a line for each structure of each case, and means over cases.
//!
//! Knows neither files nor networks.

use crate::error::{Context, Failure, Result};
use crate::metrics::{ClassScores, LabelPair};
use crate::runlog::Unit;
use crate::scan::Grid;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Two label maps on one grid.
pub(super) struct LabelledCase {
    pub(super) name: String,
    pub(super) grid: Grid,
    /// Class of each voxel of the grid, as somebody predicted it.
    pub(super) prediction: Vec<u8>,
    /// Class of each voxel of the grid.
    pub(super) truth: Vec<u8>,
}

impl LabelledCase {
    /// The classes from 1 on that either side has, ascending, below `class_count` where there is one.
    pub(super) fn structures(&self, class_count: Option<usize>) -> Vec<u8> {
        let mut is_present = [false; 256];
        for &label in self.prediction.iter().chain(&self.truth) {
            is_present[usize::from(label)] = true;
        }
        let end = class_count.unwrap_or(is_present.len());
        (1..end).filter(|&class| is_present[class]).map(|class| class as u8).collect()
    }
}

/// What is scored.
pub(super) struct Scoring<'a> {
    /// Names of the classes, the background first; without them every label from 1 on is a structure.
    pub(super) classes: Option<&'a [String]>,
    /// How far apart surfaces may lie that count as one for NSD: mm where the spacing is known, else voxels.
    pub(super) tolerance: f64,
}

impl Scoring<'_> {
    /// Scores cases as they come, so that only one of them is in memory.
    pub(super) fn score(
        &self,
        cases: impl IntoIterator<Item = Result<LabelledCase>>,
    ) -> Result<ScoreTable> {
        let mut structures = BTreeMap::new();
        if let Some(names) = self.classes {
            let named = names.iter().enumerate().skip(1);
            structures.extend(named.map(|(class, name)| (class as u8, name.clone())));
        }
        let mut scored = Vec::new();
        for case in cases {
            let case = self.score_case(case?)?;
            if self.classes.is_none() {
                structures.extend(case.scores.keys().map(|&class| (class, class.to_string())));
            }
            scored.push(case);
        }
        Ok(ScoreTable { tolerance: self.tolerance, structures, cases: scored })
    }

    fn score_case(&self, case: LabelledCase) -> Result<ScoredCase> {
        let present = case.structures(self.classes.map(<[String]>::len));
        let LabelledCase { name, grid, prediction, truth } = case;
        let (unit, spacing) = match grid.spacing_mm {
            Some(spacing_mm) => (Unit::Mm, spacing_mm),
            None => (Unit::Voxel, [1.0; 3]),
        };
        let pair = LabelPair::new(&prediction, &truth, grid.shape, spacing)
            .map_err(|failure| failure.during(format!("cannot score `{name}`")))?;
        let scores = present.into_iter().map(|class| {
            let scores = pair.score(class, self.tolerance);
            let volume_error = scores.volume_error.map(|volume| match unit {
                Unit::Mm => volume / 1000.0,
                Unit::Voxel => volume,
            });
            (class, ClassScores { volume_error, ..scores })
        });
        let scores = scores.collect();
        Ok(ScoredCase { name, unit, scores })
    }
}

/// The scores of all cases.
pub(super) struct ScoreTable {
    tolerance: f64,
    /// Names by class.
    structures: BTreeMap<u8, String>,
    cases: Vec<ScoredCase>,
}

struct ScoredCase {
    name: String,
    unit: Unit,
    /// By class, volumes in ml or voxels; a class that neither side has is not among them.
    scores: BTreeMap<u8, ClassScores>,
}

/// Means over cases of one structure.
struct StructureMeans<'a> {
    name: &'a String,
    /// By column; none where undefined.
    values: [Option<f64>; COLUMNS.len()],
    /// Cases in which either side has it.
    cases: usize,
    /// Those in which one side alone does.
    one_sided: usize,
}

/// One of the scores.
#[derive(Clone, Copy)]
struct Column {
    name: &'static str,
    pick: fn(&ClassScores) -> Option<f64>,
    /// Whether it is in the unit of the case, or depends on it.
    has_unit: bool,
    /// Digits behind the point where a person reads it.
    digits: usize,
    /// Whether more and less than 0 mean two things.
    is_signed: bool,
}

const fn share(name: &'static str, pick: fn(&ClassScores) -> Option<f64>) -> Column {
    Column { name, pick, has_unit: false, digits: 4, is_signed: false }
}

const fn length(name: &'static str, pick: fn(&ClassScores) -> Option<f64>) -> Column {
    Column { name, pick, has_unit: true, digits: 2, is_signed: false }
}

/// All scores, in the order of the tables.
const COLUMNS: [Column; 7] = [
    share("dice", |scores| scores.dice),
    share("iou", |scores| scores.iou),
    length("hd95", |scores| scores.hd95),
    length("asd", |scores| scores.asd),
    Column { has_unit: true, ..share("nsd", |scores| scores.nsd) },
    Column { is_signed: true, ..length("volume_error", |scores| scores.volume_error) },
    Column {
        has_unit: false,
        digits: 1,
        is_signed: true,
        ..length("volume_error_percent", |scores| scores.volume_error_percent)
    },
];

impl Column {
    /// The value for a person.
    fn text(self, value: Option<f64>) -> String {
        let digits = self.digits;
        match value {
            None => "n/a".to_owned(),
            Some(value) if self.is_signed => format!("{value:+.digits$}"),
            Some(value) => format!("{value:.digits$}"),
        }
    }
}

impl ScoreTable {
    /// One line for each case and structure: scores, empty where undefined, then the units of distances and
    /// of `volume_error`, and the tolerance of `nsd` in the first of them.
    pub(super) fn to_csv(&self) -> Result<String> {
        let doing = || "cannot make the table of scores";
        let mut table = csv::Writer::from_writer(Vec::new());
        let header = ["case", "structure"].into_iter().chain(COLUMNS.map(|column| column.name));
        let header = header.chain(["unit", "volume_unit", "nsd_tolerance"]);
        table.write_record(header).context(doing)?;
        for case in &self.cases {
            for (class, structure) in &self.structures {
                let scores = case.scores.get(class).copied().unwrap_or_default();
                let numbers = COLUMNS.map(|column| {
                    (column.pick)(&scores).map_or_else(String::new, |n| n.to_string())
                });
                let units = [case.unit.name(), volume_unit(case.unit)].map(str::to_owned);
                let row = [case.name.clone(), structure.clone()].into_iter().chain(numbers);
                let row = row.chain(units).chain([self.tolerance.to_string()]);
                table.write_record(row).context(doing)?;
            }
        }
        let bytes =
            table.into_inner().map_err(|error| Failure::new(doing()).because(error.error()))?;
        String::from_utf8(bytes).context(doing)
    }

    /// The unit of all cases; none where they differ.
    fn unit(&self) -> Option<Unit> {
        let first = self.cases.first()?.unit;
        self.cases.iter().all(|case| case.unit == first).then_some(first)
    }

    /// Means over cases, structure by structure.
    fn of_structures(&self) -> Vec<StructureMeans<'_>> {
        let unit = self.unit();
        let of_structure = |(class, name)| {
            let found: Vec<&ClassScores> =
                self.cases.iter().filter_map(|case| case.scores.get(class)).collect();
            let values = COLUMNS.map(|column| {
                // What is measured in several units has no mean.
                let is_comparable = unit.is_some() || !column.has_unit;
                mean(found.iter().filter_map(|scores| (column.pick)(scores)))
                    .filter(|_| is_comparable)
            });
            let one_sided = found.iter().filter(|scores| scores.hd95.is_none()).count();
            StructureMeans { name, values, cases: found.len(), one_sided }
        };
        self.structures.iter().map(of_structure).collect()
    }

    /// Means over cases, and over structures below them; none where the column has no such mean.
    fn over_structures(structures: &[StructureMeans<'_>]) -> [Option<f64>; COLUMNS.len()] {
        std::array::from_fn(|index| {
            let values = structures.iter().filter_map(|structure| structure.values[index]);
            // Volumes of different structures have no meaning together.
            mean(values).filter(|_| !COLUMNS[index].is_signed)
        })
    }

    /// The same means as numbers.
    pub(super) fn facts(&self) -> Value {
        let structures = self.of_structures();
        let means = Self::over_structures(&structures);
        let named = |values: &[Option<f64>; COLUMNS.len()]| {
            let pairs = COLUMNS.iter().zip(values);
            pairs
                .map(|(column, value)| (column.name.to_owned(), json!(value)))
                .collect::<Map<_, _>>()
        };
        let of_structure = |structure: &StructureMeans<'_>| {
            let mut object = named(&structure.values);
            object.insert("name".to_owned(), structure.name.as_str().into());
            object.insert("cases".to_owned(), structure.cases.into());
            object.insert("one_sided_cases".to_owned(), structure.one_sided.into());
            Value::Object(object)
        };
        json!({
            "cases": self.cases.len(),
            "mean": named(&means),
            "structures": structures.iter().map(of_structure).collect::<Vec<_>>(),
            "unit": self.unit().map(Unit::name),
            "volume_unit": self.unit().map(volume_unit),
            "nsd_tolerance": self.tolerance,
        })
    }

    /// Means over cases for a person, over structures below them, and what they leave out.
    pub(super) fn means(&self) -> String {
        let unit = self.unit();
        let heads = heads(unit, self.tolerance);
        let mut text = line("structure", &heads, &heads);
        let structures = self.of_structures();
        for structure in &structures {
            let values = COLUMNS.iter().zip(structure.values);
            let mut cells: Vec<String> = values.map(|(column, value)| column.text(value)).collect();
            cells.extend([structure.cases.to_string(), structure.one_sided.to_string()]);
            text += &line(structure.name, &heads, &cells);
        }
        let means = Self::over_structures(&structures);
        let cells = COLUMNS.iter().zip(means).map(|(column, value)| {
            if column.is_signed { String::new() } else { column.text(value) }
        });
        text += &line("mean", &heads, &cells.collect::<Vec<_>>());
        text += ONE_SIDED;
        if unit.is_none() && !self.cases.is_empty() {
            text += "no means in mm or voxels: the spacing of some cases is known, that of others is not\n";
        }
        text
    }
}

/// What scores are where a side lacks the structure.
const ONE_SIDED: &str = "where one side lacks the structure, Dice, IoU and NSD are 0 and distances undefined; \
                         where both do, everything is undefined and left out of the means\n";

fn volume_unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Mm => "ml",
        Unit::Voxel => "voxel",
    }
}

/// Heads of the columns of means.
fn heads(unit: Option<Unit>, tolerance: f64) -> Vec<String> {
    let (length, volume, within) = match unit {
        Some(Unit::Mm) => (", mm", ", ml", " mm"),
        Some(Unit::Voxel) => (", voxels", ", voxels", " voxels"),
        None => ("", "", ""),
    };
    vec![
        "Dice".to_owned(),
        "IoU".to_owned(),
        format!("HD95{length}"),
        format!("ASD{length}"),
        format!("NSD at {tolerance}{within}"),
        format!("volume error{volume}"),
        "in %".to_owned(),
        "cases".to_owned(),
        "one-sided".to_owned(),
    ]
}

/// A line of a table whose columns are as wide as their `heads`.
fn line(name: &str, heads: &[String], cells: &[String]) -> String {
    let cell = |(head, cell): (&String, &String)| {
        let width = head.chars().count().max(6) + 2;
        format!("{cell:>width$}")
    };
    let cells: String = heads.iter().zip(cells).map(cell).collect();
    format!("{}\n", format!("{name:<18}{cells}").trim_end())
}

/// Mean of some numbers; none of none.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, spacing_mm: Option<[f64; 3]>, sides: [[u8; 8]; 2]) -> LabelledCase {
        let grid = Grid::unplaced([1, 2, 4], spacing_mm);
        let [prediction, truth] = sides.map(|side| side.to_vec());
        LabelledCase { name: name.to_owned(), grid, prediction, truth }
    }

    const MM: Option<[f64; 3]> = Some([10.0, 2.0, 2.0]);
    const WHOLE: [u8; 8] = [1, 1, 1, 1, 2, 2, 0, 0];
    const SHORT: [u8; 8] = [1, 1, 0, 0, 0, 0, 0, 0];
    const NOTHING: [u8; 8] = [0; 8];

    fn scored(classes: Option<&[&str]>, cases: Vec<LabelledCase>) -> ScoreTable {
        let names: Option<Vec<String>> =
            classes.map(|names| names.iter().map(|&name| name.to_owned()).collect());
        let scoring = Scoring { classes: names.as_deref(), tolerance: 2.0 };
        scoring.score(cases.into_iter().map(Ok)).unwrap()
    }

    #[test]
    fn undefined_scores_are_empty_and_left_out_of_means() {
        let cases = vec![
            case("a", MM, [WHOLE, WHOLE]),
            case("b,1", MM, [SHORT, WHOLE]),
            case("c", MM, [NOTHING, SHORT]),
            case("d", MM, [WHOLE, SHORT]),
        ];
        let table = scored(Some(&["background", "liver", "cyst", "bone"]), cases);
        insta::assert_snapshot!(table.to_csv().unwrap(), @r#"
        case,structure,dice,iou,hd95,asd,nsd,volume_error,volume_error_percent,unit,volume_unit,nsd_tolerance
        a,liver,1,1,0,0,1,0,0,mm,ml,2
        a,cyst,1,1,0,0,1,0,0,mm,ml,2
        a,bone,,,,,,,,mm,ml,2
        "b,1",liver,0.6666666666666666,0.5,3.5,0,0.8333333333333334,-0.08,-50,mm,ml,2
        "b,1",cyst,0,0,,,0,-0.08,-100,mm,ml,2
        "b,1",bone,,,,,,,,mm,ml,2
        c,liver,0,0,,,0,-0.08,-100,mm,ml,2
        c,cyst,,,,,,,,mm,ml,2
        c,bone,,,,,,,,mm,ml,2
        d,liver,0.6666666666666666,0.5,3.5,1.5,0.8333333333333334,0.08,100,mm,ml,2
        d,cyst,0,0,,,0,0.08,,mm,ml,2
        d,bone,,,,,,,,mm,ml,2
        "#);
        insta::assert_snapshot!(table.means(), @"
        structure             Dice     IoU  HD95, mm  ASD, mm  NSD at 2 mm  volume error, ml    in %   cases  one-sided
        liver               0.5833  0.5000      2.33     0.50       0.6667             -0.02   -12.5       4          1
        cyst                0.3333  0.3333      0.00     0.00       0.3333             +0.00   -50.0       3          2
        bone                   n/a     n/a       n/a      n/a          n/a               n/a     n/a       0          0
        mean                0.4583  0.4167      1.17     0.25       0.5000
        where one side lacks the structure, Dice, IoU and NSD are 0 and distances undefined; where both do, everything is undefined and left out of the means
        ");
    }

    #[test]
    fn labels_without_names_are_structures_and_units_are_not_mixed() {
        let cases = vec![case("a", MM, [SHORT, SHORT]), case("b", None, [WHOLE, SHORT])];
        let table = scored(None, cases);
        insta::assert_snapshot!(table.to_csv().unwrap(), @"
        case,structure,dice,iou,hd95,asd,nsd,volume_error,volume_error_percent,unit,volume_unit,nsd_tolerance
        a,1,1,1,0,0,1,0,0,mm,ml,2
        a,2,,,,,,,,mm,ml,2
        b,1,0.6666666666666666,0.5,1.75,0.75,1,2,100,voxel,voxel,2
        b,2,0,0,,,0,2,,voxel,voxel,2
        ");
        insta::assert_snapshot!(table.means(), @"
        structure             Dice     IoU    HD95     ASD  NSD at 2  volume error    in %   cases  one-sided
        1                   0.8333  0.7500     n/a     n/a       n/a           n/a   +50.0       2          0
        2                   0.0000  0.0000     n/a     n/a       n/a           n/a     n/a       1          1
        mean                0.4167  0.3750     n/a     n/a       n/a
        where one side lacks the structure, Dice, IoU and NSD are 0 and distances undefined; where both do, everything is undefined and left out of the means
        no means in mm or voxels: the spacing of some cases is known, that of others is not
        ");
    }

    #[test]
    fn a_pair_that_does_not_fit_is_named() {
        let case = LabelledCase { truth: vec![0; 7], ..case("a", MM, [SHORT, SHORT]) };
        let scoring = Scoring { classes: None, tolerance: 1.0 };
        let failure = scoring.score([Ok(case)]).err().unwrap();
        insta::assert_snapshot!(failure, @"
        error: cannot score `a`
          caused by: the truth has 7 voxels, expected 8 for shape [1, 2, 4]

        hint: compare volumes on one grid: resize the prediction to the truth first
        ");
    }
}
