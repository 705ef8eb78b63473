//! Which fold holds each of somebody's cases out, and which cases are there to test with.
//!
//! Knows names, patients and the classes that occur in them; files are not opened here.

use super::case_table::CaseTable;
use super::folds::{stratified, test_part};
use crate::error::{Failure, Result};
use crate::limits::FOLDS;
use crate::scan::{Notes, list};
use std::collections::{BTreeMap, BTreeSet};

/// How many folds there are where nobody says it.
const USUAL_FOLDS: u32 = 5;

/// How cases are divided where no table does it.
#[derive(Debug, Clone, PartialEq)]
pub struct Folding {
    /// How many folds hold patients out in turn; 5 where nothing is said.
    pub folds: Option<u32>,
    /// Share of the patients to test with, who are in a fold of their own and never trained on.
    pub test_share: Option<f64>,
    /// Equal seeds give equal folds.
    pub seed: u64,
}

impl Default for Folding {
    fn default() -> Self {
        Self { folds: None, test_share: None, seed: 1 }
    }
}

/// Whose a case is, and whether it can be scored.
pub(super) struct Belonging {
    pub(super) patient: String,
    pub(super) has_dense: bool,
}

/// All cases by their names.
pub(super) type Belongings = BTreeMap<String, Belonging>;

/// The fold of every case.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Folds {
    /// By case; 0 for one that is never held out.
    of: BTreeMap<String, u32>,
    /// The fold of the cases to test with.
    pub(super) test_fold: Option<u32>,
    /// How that came about, in a sentence.
    pub(super) words: String,
}

impl Folds {
    /// From the folds of patients, 0 or nothing for none, and the patients to test with; `drawn` is the seed where chance
    /// decided. Refuses to leave nobody to train on.
    fn new(
        cases: &Belongings,
        mut folds: BTreeMap<String, u32>,
        tested: BTreeSet<String>,
        drawn: Option<u64>,
    ) -> Result<Self> {
        let patients: BTreeSet<&String> = cases.values().map(|case| &case.patient).collect();
        if tested.len() == patients.len() {
            return Err(Failure::usage(
                "all patients are to be tested with, expected some to train on",
            )
            .hint("leave some with `part` `train` in the table of cases"));
        }
        let last = folds.values().copied().max().unwrap_or_default();
        let test_fold = (!tested.is_empty()).then_some(last + 1);
        if let Some(fold) = test_fold {
            folds.extend(tested.into_iter().map(|patient| (patient, fold)));
        }
        let fold = |patient: &String| folds.get(patient).copied().unwrap_or_default();
        let sizes: Vec<u32> = patients.into_iter().map(fold).collect();
        let words = words(&sizes, test_fold, drawn);
        let of = cases.iter().map(|(name, case)| (name.clone(), fold(&case.patient))).collect();
        Ok(Self { of, test_fold, words })
    }

    /// The fold of a case; 0 for none.
    pub(super) fn of(&self, case: &str) -> u32 {
        self.of.get(case).copied().unwrap_or_default()
    }

    /// Whether a case is there to test with.
    pub(super) fn is_test(&self, case: &str) -> bool {
        self.test_fold == Some(self.of(case))
    }
}

/// Divides cases as a table says, or draws what it does not say: patients to test with, and folds of the others that
/// are alike in size and classes. Only patients who can be scored are drawn: all, or where there are dense labels those
/// who have them for all their cases. `classes` gives the classes that occur in a case, where it is drawn.
///
/// Refuses a patient in several folds or parts, cases that are to be scored and cannot be, and a table that is contradicted.
pub(super) fn divide(
    cases: &Belongings,
    folding: &Folding,
    table: Option<&CaseTable>,
    classes: impl Fn(&str) -> Result<BTreeSet<u8>>,
    notes: &Notes,
) -> Result<Folds> {
    check(folding, table)?;
    let said = table.map(|table| said(cases, table)).transpose()?.unwrap_or_default();
    let is_scored = cases.values().any(|case| case.has_dense);
    refuse_unscored(cases, &said, is_scored)?;
    let tested = said.iter().filter(|(_, said)| said.is_test);
    let mut tested: BTreeSet<String> = tested.map(|(patient, _)| patient.clone()).collect();
    let draws_folds = table.is_none_or(|table| !table.has_folds());
    let is_drawn = draws_folds || folding.test_share.is_some();
    let mut seen = BTreeMap::<String, BTreeSet<u8>>::new();
    if is_drawn {
        let scored = scored(cases, is_scored, notes);
        let drawn = scored.difference(&tested).collect::<BTreeSet<_>>();
        for (name, case) in cases.iter().filter(|(_, case)| drawn.contains(&case.patient)) {
            seen.entry(case.patient.clone()).or_default().extend(classes(name)?);
        }
    }
    if let Some(share) = folding.test_share {
        tested = tests_of(&seen, share, folding.seed, is_scored)?;
        seen.retain(|patient, _| !tested.contains(patient));
    }
    let folds = if draws_folds {
        let count = folding.folds.unwrap_or(USUAL_FOLDS).min(seen.len() as u32);
        stratified(&seen, count, folding.seed)
    } else {
        said.into_iter().map(|(patient, said)| (patient, said.fold)).collect()
    };
    Folds::new(cases, folds, tested, is_drawn.then_some(folding.seed))
}

/// What a table says of a patient.
struct Said {
    is_test: bool,
    fold: u32,
    /// The case that said it, and its line.
    by: (String, u64),
}

/// What the table says of each patient. Refuses patients of whom it says two things.
fn said(cases: &Belongings, table: &CaseTable) -> Result<BTreeMap<String, Said>> {
    let mut found = BTreeMap::<String, Said>::new();
    for (name, case) in cases {
        let row = table.row(name)?;
        let by = (name.clone(), row.line);
        let said = Said { is_test: row.is_test, fold: row.fold.unwrap_or_default(), by };
        let Some(other) = found.get(&case.patient) else {
            found.insert(case.patient.clone(), said);
            continue;
        };
        if (other.is_test, other.fold) != (said.is_test, said.fold) {
            let what = |said: &Said| match (said.is_test, said.fold) {
                (true, _) => "to test with".to_owned(),
                (false, 0) if table.has_folds() => "in no fold".to_owned(),
                (false, 0) => "to train on".to_owned(),
                (false, fold) => format!("in fold {fold}"),
            };
            let (patient, (before, _)) = (&case.patient, &other.by);
            return Err(table
                .refusal(
                    row.line,
                    &format!(
                        "has `{name}` {}, and `{before}` of the same patient `{patient}` is {}",
                        what(&said),
                        what(other)
                    ),
                )
                .hint("all cases of a patient are for the same"));
        }
    }
    Ok(found)
}

/// Refuses numbers that divide nothing, and a table that says what options say, too.
fn check(folding: &Folding, table: Option<&CaseTable>) -> Result<()> {
    if let Some(folds) = folding.folds.filter(|folds| !(2..=FOLDS).contains(folds)) {
        return Err(Failure::usage(format!("{folds} folds, expected 2 to {FOLDS}")));
    }
    if let Some(share) = folding.test_share.filter(|share| !(*share > 0.0 && *share < 1.0)) {
        return Err(Failure::usage(format!(
            "a share of {share} of the patients cannot be tested with, expected more than 0 and less than 1"
        ))
        .hint("give for example `--test-share 0.2`"));
    }
    let Some(table) = table else { return Ok(()) };
    for (is_said, option, column) in [
        (folding.folds.is_some() && table.has_folds(), "--folds", "fold"),
        (folding.test_share.is_some() && table.has_parts(), "--test-share", "part"),
    ] {
        if is_said {
            return Err(Failure::usage(format!(
                "`{option}` is given, and the table of cases has a column `{column}`"
            ))
            .hint(format!("leave `{option}` out, or remove the column")));
        }
    }
    Ok(())
}

/// Refuses patients whom a table wants to be scored and of whom somebody has not drawn all.
fn refuse_unscored(
    cases: &Belongings,
    said: &BTreeMap<String, Said>,
    is_scored: bool,
) -> Result<()> {
    for (name, case) in cases.iter().filter(|(_, case)| !case.has_dense) {
        let Some(said) = said.get(&case.patient) else { continue };
        let (purpose, hint) = match (said.is_test, said.fold) {
            (true, _) => ("to be tested with", "make it `train`"),
            (false, fold) if fold > 0 && is_scored => {
                ("held out in a fold", "leave its `fold` empty")
            }
            _ => continue,
        };
        return Err(Failure::usage(format!(
            "case `{name}` is {purpose} and has no dense labels to score with"
        ))
        .hint(format!("give it dense labels, or {hint} in the table of cases")));
    }
    Ok(())
}

/// The patients who can be scored: all, or where there are dense labels those who have them for all
/// their cases.
fn scored(cases: &Belongings, is_scored: bool, notes: &Notes) -> BTreeSet<String> {
    let mut without = BTreeSet::new();
    for (name, case) in cases.iter().filter(|(_, case)| is_scored && !case.has_dense) {
        notes.add(
            "without dense labels, so that its patient is never held out",
            format!("`{name}`"),
        );
        without.insert(&case.patient);
    }
    let patients = cases.values().map(|case| &case.patient);
    patients.filter(|patient| !without.contains(patient)).cloned().collect()
}

/// Draws the patients to test with. Refuses to draw from too few.
fn tests_of(
    seen: &BTreeMap<String, BTreeSet<u8>>,
    share: f64,
    seed: u64,
    is_scored: bool,
) -> Result<BTreeSet<String>> {
    if !is_scored {
        return Err(Failure::usage("nobody can be tested with: there are no dense labels")
            .hint("name their folder with `--dense DIR`, or leave `--test-share` out"));
    }
    if seen.len() < 2 {
        let known: Vec<String> = seen.keys().map(|patient| format!("`{patient}`")).collect();
        let known = if known.is_empty() { "none".to_owned() } else { list(&known) };
        return Err(Failure::usage(format!(
            "of too few patients every case has dense labels to draw some to test with: {known}"
        ))
        .hint("draw dense labels of more patients, or leave `--test-share` out"));
    }
    Ok(test_part(seen, share, seed))
}

/// How many patients each fold holds out, in a sentence; `drawn` is the seed where chance decided.
fn words(folds: &[u32], test_fold: Option<u32>, drawn: Option<u64>) -> String {
    let mut sizes = BTreeMap::<u32, usize>::new();
    for fold in folds {
        *sizes.entry(*fold).or_default() += 1;
    }
    let never = sizes.remove(&0).unwrap_or_default();
    let tested = test_fold.and_then(|fold| sizes.remove(&fold)).unwrap_or_default();
    let held_out: Vec<String> =
        sizes.iter().map(|(fold, count)| format!("{count} in fold {fold}")).collect();
    let mut parts = held_out;
    if never > 0 {
        parts.push(format!("{never} always trained on"));
    }
    if let Some(fold) = test_fold {
        parts.push(format!("{tested} to test with in fold {fold}"));
    }
    let how = drawn
        .map_or("as the table of cases says".to_owned(), |seed| format!("drawn with seed {seed}"));
    format!("Patients: {}; {how}.", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two cases of each of `count` patients; those of the last lack dense labels.
    fn cases(count: usize) -> Belongings {
        let case = |number: usize| {
            let (patient, has_dense) = (format!("p{}", number / 2), number / 2 + 1 < count);
            (format!("c{number:02}"), Belonging { patient, has_dense })
        };
        (0..2 * count).map(case).collect()
    }

    fn table(text: &str) -> CaseTable {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cases.csv");
        std::fs::write(&path, text).unwrap();
        CaseTable::read(&path, &["background".into(), "liver".into()]).unwrap()
    }

    fn divided(
        cases: &Belongings,
        folding: &Folding,
        table: Option<&CaseTable>,
    ) -> Result<(Folds, Vec<String>)> {
        let notes = Notes::default();
        let folds = divide(cases, folding, table, |_| Ok(BTreeSet::from([1])), &notes)?;
        Ok((folds, notes.take()))
    }

    #[test]
    fn patients_are_whole_and_those_who_cannot_be_scored_are_always_trained_on() {
        let cases = cases(11);
        let folding = Folding { test_share: Some(0.3), folds: Some(3), seed: 4 };
        let (folds, notes) = divided(&cases, &folding, None).unwrap();
        for pair in folds.of.values().collect::<Vec<_>>().chunks(2) {
            assert_eq!(pair[0], pair[1]);
        }
        assert_eq!((folds.of("c20"), folds.test_fold), (0, Some(4)));
        assert_eq!(cases.keys().filter(|name| folds.is_test(name)).count(), 6);
        assert_eq!(
            folds.words,
            "Patients: 3 in fold 1, 2 in fold 2, 2 in fold 3, 1 always trained on, 3 to test with in fold 4; \
             drawn with seed 4."
        );
        assert_eq!(
            notes,
            ["without dense labels, so that its patient is never held out: `c20`, `c21`"]
        );
        assert_eq!(divided(&cases, &folding, None).unwrap().0, folds);
        let usual = divided(&cases, &Folding::default(), None).unwrap().0;
        assert_eq!(usual.of.values().max(), Some(&5));
        assert!(!cases.keys().any(|name| usual.is_test(name)));
    }

    #[test]
    fn a_table_divides_as_it_says_and_leaves_the_rest_to_chance() {
        let cases = cases(3);
        let folds = table("case,fold\nc00,2\nc01,2\nc02,1\nc03,1\nc04,\nc05,\n");
        let (found, _) = divided(&cases, &Folding::default(), Some(&folds)).unwrap();
        assert_eq!(found.of.values().copied().collect::<Vec<_>>(), [2, 2, 1, 1, 0, 0]);
        assert_eq!(
            found.words,
            "Patients: 1 in fold 1, 1 in fold 2, 1 always trained on; as the table of cases says."
        );
        let parts = table("case,part\nc00,test\nc01,test\nc02,\nc03,train\nc04,\nc05,\n");
        let (found, _) = divided(&cases, &Folding::default(), Some(&parts)).unwrap();
        assert_eq!(found.of.values().copied().collect::<Vec<_>>(), [2, 2, 1, 1, 0, 0]);
        assert_eq!(found.test_fold, Some(2));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let said = |text: &str, folding: &Folding| {
            let table = Some(text).filter(|text| !text.is_empty()).map(table);
            let failure = divided(&cases(3), folding, table.as_ref()).unwrap_err();
            let place = failure.message().find("/cases.csv` ").map_or(0, |at| at + 12);
            failure.message()[place..].to_owned()
        };
        let plain = Folding::default();
        assert_eq!(
            said("case,part\nc00,test\nc01,\nc02,\nc03,\nc04,\nc05,\n", &plain),
            "has `c01` to train on, and `c00` of the same patient `p0` is to test with"
        );
        assert_eq!(
            said("case,fold\nc00,1\nc01,1\nc02,\nc03,2\nc04,\nc05,\n", &plain),
            "has `c03` in fold 2, and `c02` of the same patient `p1` is in no fold"
        );
        assert_eq!(
            said("case,part\nc00,\nc01,\nc02,\nc03,\nc04,test\nc05,test\n", &plain),
            "case `c04` is to be tested with and has no dense labels to score with"
        );
        assert_eq!(
            said("case,fold\nc00,1\nc01,1\nc02,2\nc03,2\nc04,3\nc05,3\n", &plain),
            "case `c04` is held out in a fold and has no dense labels to score with"
        );
        let share = Folding { test_share: Some(0.2), ..Folding::default() };
        let five = Folding { folds: Some(5), ..Folding::default() };
        let all = "case,part,fold\nc00,,\nc01,,\nc02,,\nc03,,\nc04,,\nc05,,\n";
        assert_eq!(
            said(all, &share),
            "`--test-share` is given, and the table of cases has a column `part`"
        );
        assert_eq!(
            said(all, &five),
            "`--folds` is given, and the table of cases has a column `fold`"
        );
        assert!(
            said("", &Folding { test_share: Some(1.0), ..share }).starts_with("a share of 1 of")
        );
        assert_eq!(said("", &Folding { folds: Some(1), ..five }), "1 folds, expected 2 to 1000");
        let few =
            divided(&cases(2), &Folding { test_share: Some(0.5), ..Folding::default() }, None);
        assert!(few.unwrap_err().message().ends_with("to test with: `p0`"));
        let none =
            divided(&cases(1), &Folding { test_share: Some(0.5), ..Folding::default() }, None);
        assert!(none.unwrap_err().message().starts_with("nobody can be tested with"));
        let mut one = cases(2);
        one.retain(|_, case| case.has_dense);
        let tested = table("case,part\nc00,test\nc01,test\n");
        let failure = divided(&one, &Folding::default(), Some(&tested)).unwrap_err();
        assert!(failure.message().starts_with("all patients are to be tested with"), "{failure}");
    }
}
