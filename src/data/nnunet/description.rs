//! What stands in a raw folder of nnU-Net beside images and labels: `dataset.json`, `splits_final.json`, and `cases.csv`
//! for what nnU-Net has no words for.
//!
//! What cases are for the plan has decided.

use super::{RawFolderPlan, Role};
use crate::error::{Context, Result};
use crate::files;
use crate::preparation::Intensities;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// Fields in the order in which people read them.
struct Ordered(Vec<(String, Value)>);

impl Serialize for Ordered {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// `dataset.json`.
#[derive(Serialize)]
struct Described {
    channel_names: Ordered,
    labels: Ordered,
    #[serde(rename = "numTraining")]
    training_count: usize,
    file_ending: &'static str,
    name: String,
    description: String,
    /// What the channels show, which nnU-Net has no place for: their names there say what it is to do with them.
    #[serde(skip_serializing_if = "Option::is_none")]
    scrimp: Option<Value>,
}

/// Writes all of it.
pub(super) fn write(plan: &RawFolderPlan<'_>, folder: &Path) -> Result<()> {
    put(folder, "dataset.json", &pretty(&described(plan))?)?;
    let splits = splits(plan);
    if !splits.is_empty() {
        put(folder, "splits_final.json", &pretty(&splits)?)?;
    }
    table(plan)?.map_or(Ok(()), |table| put(folder, "cases.csv", &table))
}

fn put(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    files::replace_durably(&path, text.as_bytes())
        .context(|| format!("cannot write `{}`", path.display()))
}

fn pretty<T: Serialize>(value: &T) -> Result<String> {
    let text = serde_json::to_string_pretty(value).context(|| "cannot write JSON")?;
    Ok(text + "\n")
}

fn described(plan: &RawFolderPlan<'_>) -> Described {
    let dataset = plan.dataset;
    let numbered = |(number, name): (usize, String)| (number.to_string(), Value::from(name));
    let class = |(label, name): (usize, &String)| {
        let name = if label == 0 { "background".to_owned() } else { name.clone() };
        (name, Value::from(label))
    };
    let mut labels: Vec<(String, Value)> = dataset.classes.iter().enumerate().map(class).collect();
    labels.extend(plan.ignore.map(|label| ("ignore".to_owned(), Value::from(label))));
    let channels = dataset.preparation.as_ref().map(|prepared| &prepared.channels);
    let shown = channels.filter(|channels| channels.len() == dataset.channels());
    let shown: Option<Vec<&String>> =
        shown.map(|channels| channels.iter().map(|channel| &channel.name).collect());
    Described {
        channel_names: Ordered(schemes(plan).into_iter().enumerate().map(numbered).collect()),
        labels: Ordered(labels),
        training_count: plan.cases.iter().filter(|(_, role)| *role != Role::Tested).count(),
        file_ending: plan.ending(),
        name: dataset.name.clone(),
        description: format!("{}\n{}", dataset.provenance.trim_end(), plan.prepared_words()),
        scrimp: shown.map(|channels| json!({ "channels": channels })),
    }
}

/// What nnU-Net calls each channel: its own name where intensities are as stored, by which nnU-Net scales them; else what
/// keeps them as they are.
fn schemes(plan: &RawFolderPlan<'_>) -> Vec<String> {
    let prepared = plan.dataset.preparation.as_ref().map_or(&[][..], |prepared| &prepared.channels);
    let scheme = |number: usize| match prepared.get(number) {
        Some(channel) if channel.intensities == Intensities::AsStored => channel.name.clone(),
        Some(_) if plan.are_pictures => "rgb_to_0_1".to_owned(),
        _ => "noNorm".to_owned(),
    };
    (0..plan.dataset.channels()).map(scheme).collect()
}

/// The folds: who is trained on in each and who is validated with.
fn splits(plan: &RawFolderPlan<'_>) -> Vec<Ordered> {
    let trained = || plan.cases.iter().filter(|(_, role)| *role != Role::Tested);
    let folds: BTreeSet<u32> =
        trained().map(|(case, _)| case.fold).filter(|&fold| fold > 0).collect();
    let of = |fold: u32| {
        let train = trained().filter(|(case, role)| *role == Role::Learned && case.fold != fold);
        let val = trained().filter(|(case, _)| case.fold == fold);
        let train: Vec<&str> = train.map(|(case, _)| &*case.name).collect();
        let val: Vec<&str> = val.map(|(case, _)| &*case.name).collect();
        Ordered(vec![("train".into(), json!(train)), ("val".into(), json!(val))])
    };
    let numbers = folds.iter().zip(1..).filter(|(fold, number)| **fold != *number);
    for (fold, number) in numbers {
        let sentence = "folds have other numbers, since some between hold nobody out";
        plan.notes.add(sentence, format!("{fold} is {number}"));
    }
    folds.into_iter().map(of).collect()
}

/// Whose the cases are and which classes somebody looked for, as `prepare` takes it with `--cases`; nothing where that
/// is nothing to say.
fn table(plan: &RawFolderPlan<'_>) -> Result<Option<String>> {
    let classes = &plan.dataset.classes;
    let is_partial = plan.cases.iter().any(|(case, _)| case.lacks_classes(classes.len()));
    let has_patients = plan.cases.iter().any(|(case, _)| case.patient != case.name);
    if !is_partial && !has_patients {
        return Ok(None);
    }
    let cannot = || "cannot write the table of cases";
    let mut table = csv::Writer::from_writer(Vec::new());
    let columns =
        if is_partial { &["case", "patient", "classes"][..] } else { &["case", "patient"] };
    table.write_record(columns).context(cannot)?;
    for (case, _) in &plan.cases {
        let named = case.classes_annotated.iter().map(|&class| match class {
            0 => "background",
            class => classes.get(usize::from(class)).map_or("", String::as_str),
        });
        let named = named.collect::<Vec<_>>().join(";");
        let cells = [&case.name, &case.patient, &named];
        table.write_record(&cells[..columns.len()]).context(cannot)?;
    }
    let bytes = table.into_inner().context(cannot)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}
