//! The table of ScribbleBench: the Dice of each structure in each case, and the mean of cases.
//!
//! Knows neither files nor networks. What is measured stands in `metrics`.

use super::scoring::LabelledCase;
use crate::error::{Context, Failure, Result};
use crate::metrics::{Convention, LabelPair, MeanOfCases};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The Dice of every structure in every case; none where prediction and truth lack it.
pub(super) struct DiceTable {
    /// Names of the structures.
    pub(super) structures: Vec<String>,
    /// Name and Dice of each case, in the order of the structures.
    pub(super) cases: Vec<(String, Vec<Option<f64>>)>,
}

impl DiceTable {
    /// Scores cases as they come, so that only one of them is in memory. Without names of `classes`, the background first,
    /// every label from 1 on is a structure.
    pub(super) fn of_files(
        classes: Option<&[String]>,
        cases: impl IntoIterator<Item = Result<LabelledCase>>,
    ) -> Result<Self> {
        let mut structures: BTreeMap<u8, String> = BTreeMap::new();
        let named = classes.unwrap_or_default().iter().enumerate().skip(1);
        structures.extend(named.map(|(class, name)| (class as u8, name.clone())));
        let mut scored = Vec::new();
        for case in cases {
            let case = case?;
            let shape = case.grid.shape;
            let pair = LabelPair::new(&case.prediction, &case.truth, shape, [1.0; 3])
                .map_err(|failure| failure.during(format!("cannot score `{}`", case.name)))?;
            let present = case.structures(classes.map(<[String]>::len));
            let dice = |&class: &u8| (class, Convention::Scribblebench.score(&pair, class).dice);
            let dice: BTreeMap<u8, Option<f64>> = present.iter().map(dice).collect();
            if classes.is_none() {
                structures.extend(present.iter().map(|class| (*class, class.to_string())));
            }
            scored.push((case.name, dice));
        }
        let row = |dice: BTreeMap<u8, Option<f64>>| {
            structures.keys().map(|class| dice.get(class).copied().flatten()).collect()
        };
        let cases = scored.into_iter().map(|(name, dice)| (name, row(dice))).collect();
        Ok(Self { structures: structures.into_values().collect(), cases })
    }

    /// `case,structure,dice` and a line for each; empty where undefined.
    pub(super) fn to_csv(&self) -> Result<String> {
        let doing = || "cannot make the table of scores";
        let mut table = csv::Writer::from_writer(Vec::new());
        table.write_record(["case", "structure", "dice"]).context(doing)?;
        for (case, dice) in &self.cases {
            for (structure, dice) in self.structures.iter().zip(dice) {
                let dice = dice.map_or_else(String::new, |dice| dice.to_string());
                table.write_record([case, structure, &dice]).context(doing)?;
            }
        }
        let bytes =
            table.into_inner().map_err(|error| Failure::new(doing()).because(error.error()))?;
        String::from_utf8(bytes).context(doing)
    }

    /// The mean Dice of a structure over the cases that have it, and how many these are.
    fn of_structure(&self, index: usize) -> (Option<f64>, usize) {
        // A case of one structure has its Dice for a mean.
        let of_it: Vec<[Option<f64>; 1]> =
            self.cases.iter().map(|(_, dice)| [dice[index]]).collect();
        let mean = MeanOfCases::of(of_it.iter().map(<[_; 1]>::as_slice));
        (mean.dice, self.cases.len() - mean.left_out)
    }

    fn of_cases(&self) -> MeanOfCases {
        MeanOfCases::of(self.cases.iter().map(|(_, dice)| dice.as_slice()))
    }

    /// The same means as numbers.
    pub(super) fn facts(&self) -> Value {
        let structures = self.structures.iter().enumerate().map(|(index, name)| {
            let (dice, cases) = self.of_structure(index);
            json!({ "name": name, "dice": dice, "cases": cases })
        });
        let mean = self.of_cases();
        json!({
            "cases": self.cases.len(),
            "mean_dice": mean.dice,
            "cases_left_out_of_the_mean": mean.left_out,
            "structures": structures.collect::<Vec<_>>(),
        })
    }

    /// Means over cases for a person: of each structure, and of the mean Dice of each case.
    pub(super) fn means(&self) -> String {
        let mut text = format!("{:<18}{:>8}{:>8}\n", "structure", "Dice", "cases");
        let mut line = |name: &str, dice: Option<f64>, count: usize| {
            let dice = dice.map_or_else(|| "n/a".to_owned(), |dice| format!("{dice:.4}"));
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<18}{dice:>8}{count:>8}");
        };
        for (index, structure) in self.structures.iter().enumerate() {
            let (dice, cases) = self.of_structure(index);
            line(structure, dice, cases);
        }
        let mean = self.of_cases();
        line("mean of cases", mean.dice, self.cases.len() - mean.left_out);
        match mean.left_out {
            0 => text,
            1 => {
                text + "1 case is left out of the mean: neither prediction nor truth has a structure\n"
            }
            count => {
                text + &format!(
                    "{count} cases are left out of the mean: neither prediction nor truth has a structure\n"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Grid;

    fn case(name: &str, prediction: [u8; 4], truth: [u8; 4]) -> LabelledCase {
        let grid = Grid::unplaced([1, 2, 2], None);
        let [prediction, truth] = [prediction, truth].map(Vec::from);
        LabelledCase { name: name.to_owned(), grid, prediction, truth }
    }

    fn cases() -> Vec<Result<LabelledCase>> {
        vec![
            Ok(case("a", [1, 1, 0, 0], [1, 0, 2, 0])),
            Ok(case("b", [0, 0, 2, 2], [0, 0, 2, 2])),
            Ok(case("c", [0; 4], [0; 4])),
        ]
    }

    #[test]
    fn files_are_scored_case_by_case() {
        let names = ["background", "liver", "cyst", "bone"].map(str::to_owned);
        let table = DiceTable::of_files(Some(&names), cases()).unwrap();
        insta::assert_snapshot!(table.means(), @"
        structure             Dice   cases
        liver               0.6667       1
        cyst                0.5000       2
        bone                   n/a       0
        mean of cases       0.6667       2
        1 case is left out of the mean: neither prediction nor truth has a structure
        ");
        insta::assert_snapshot!(table.to_csv().unwrap(), @"
        case,structure,dice
        a,liver,0.6666666666666666
        a,cyst,0
        a,bone,
        b,liver,
        b,cyst,1
        b,bone,
        c,liver,
        c,cyst,
        c,bone,
        ");
        let unnamed = DiceTable::of_files(None, cases()).unwrap();
        assert_eq!(
            (unnamed.structures, &unnamed.cases[1].1),
            (vec!["1".to_owned(), "2".to_owned()], &vec![None, Some(1.0)])
        );
        let none = DiceTable::of_files(None, vec![Ok(case("c", [0; 4], [0; 4]))]).unwrap();
        insta::assert_snapshot!(none.means(), @"
        structure             Dice   cases
        mean of cases          n/a       0
        1 case is left out of the mean: neither prediction nor truth has a structure
        ");
        let other = LabelledCase { truth: vec![0; 3], ..case("c", [0; 4], [0; 4]) };
        assert!(DiceTable::of_files(None, [Ok(other)]).is_err());
    }
}
