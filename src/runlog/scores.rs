//! Tables of scores in `RUN/scores`: one line for each structure of each held-out case, as CSV.
//!
//! Fields are quoted where they must be, so that cases and classes may be called anything. How scores
//! come about is not known here.

use super::Unit;
use crate::error::{Context, Failure, Result};
use serde::{Deserialize, Serialize};

/// The scores of one structure in one case; NaN where undefined.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseRow {
    /// The name of the case.
    pub case: String,
    /// The name of the structure.
    pub structure: String,
    /// What the case was taken with; empty where nothing is said.
    pub modality: String,
    /// In `[0, 1]`.
    pub dice: f64,
    /// 95th percentile of surface distances, in `unit`.
    pub hd95: f64,
    /// Mean surface distance, in `unit`.
    pub asd: f64,
    /// In what distances are measured; none where the table does not say.
    pub unit: Option<Unit>,
}

/// A line as it stands in the table, where what is undefined is empty.
#[derive(Serialize, Deserialize)]
struct Line {
    case: String,
    structure: String,
    dice: Option<f64>,
    hd95: Option<f64>,
    asd: Option<f64>,
    #[serde(default)]
    unit: Option<Unit>,
    /// Written behind all others where a case has one.
    #[serde(default, skip_serializing)]
    modality: String,
}

impl From<Line> for CaseRow {
    fn from(line: Line) -> Self {
        let Line { case, structure, dice, hd95, asd, unit, modality } = line;
        let [dice, hd95, asd] = [dice, hd95, asd].map(|value| value.unwrap_or(f64::NAN));
        Self { case, structure, modality, dice, hd95, asd, unit }
    }
}

impl From<&CaseRow> for Line {
    fn from(row: &CaseRow) -> Self {
        let [dice, hd95, asd] =
            [row.dice, row.hd95, row.asd].map(|value| Some(value).filter(|value| !value.is_nan()));
        let (case, structure) = (row.case.clone(), row.structure.clone());
        let modality = row.modality.clone();
        Self { case, structure, dice, hd95, asd, unit: row.unit, modality }
    }
}

/// `case,structure,dice,hd95,asd,unit`, with `modality` behind it where a case has one, and the rows below.
pub fn to_csv(rows: &[CaseRow]) -> Result<String> {
    let doing = || "cannot make the table of scores";
    let mut table = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    let mut header = vec!["case", "structure", "dice", "hd95", "asd", "unit"];
    let by_modality = rows.iter().any(|row| !row.modality.is_empty());
    header.extend(by_modality.then_some("modality"));
    table.write_record(header).context(doing)?;
    for row in rows {
        let line = Line::from(row);
        let written = if by_modality {
            table.serialize((line, &row.modality))
        } else {
            table.serialize(line)
        };
        written.context(doing)?;
    }
    let bytes = table.into_inner().map_err(|error| Failure::new(doing()).because(error.error()))?;
    String::from_utf8(bytes).context(doing)
}

/// The rows of a table; lines that are none are passed over.
pub fn from_csv(text: &str) -> Vec<CaseRow> {
    let mut table = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
    table.deserialize::<Line>().flatten().map(CaseRow::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_survives_and_undefined_is_empty() {
        let row = |case: &str, structure: &str, hd95: f64| CaseRow {
            case: case.to_owned(),
            structure: structure.to_owned(),
            modality: String::new(),
            dice: 0.1 + 0.2,
            hd95,
            asd: 2.0,
            unit: Some(Unit::Voxel),
        };
        let rows =
            [row("a,b", "LV \"inner\"", 1.5), row("c\nd", "RV", 3.0), row("e", "Myo", f64::NAN)];
        let text = to_csv(&rows).unwrap();
        insta::assert_snapshot!(text, @r#"
        case,structure,dice,hd95,asd,unit
        "a,b","LV ""inner""",0.30000000000000004,1.5,2.0,voxel
        "c
        d",RV,0.30000000000000004,3.0,2.0,voxel
        e,Myo,0.30000000000000004,,2.0,voxel
        "#);
        let found = from_csv(&text);
        assert_eq!(found[..2], rows[..2]);
        assert!(found[2].hd95.is_nan());
    }

    #[test]
    fn modalities_have_a_column_where_there_are_any() {
        let row = |case: &str, modality: &str| CaseRow {
            case: case.to_owned(),
            structure: "liver".to_owned(),
            modality: modality.to_owned(),
            dice: 0.5,
            hd95: 2.0,
            asd: 1.0,
            unit: Some(Unit::Mm),
        };
        let rows = [row("a", "ct"), row("b", ""), row("c", "mr")];
        let text = to_csv(&rows).unwrap();
        insta::assert_snapshot!(text, @"
        case,structure,dice,hd95,asd,unit,modality
        a,liver,0.5,2.0,1.0,mm,ct
        b,liver,0.5,2.0,1.0,mm,
        c,liver,0.5,2.0,1.0,mm,mr
        ");
        assert_eq!(from_csv(&text), rows);
    }

    #[test]
    fn a_table_without_units_is_read_and_its_damaged_lines_are_passed_over() {
        let found = from_csv("case,structure,dice,hd95,asd\na,LV,0.9,2,1\nbad\nc,RV,,,\n");
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].dice, found[0].unit), (0.9, None));
        assert!(found[1].dice.is_nan());
    }
}
