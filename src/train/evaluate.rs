//! Held-out cases through a method and the metrics, shared out over the ranks.
//!
//! Slices are resized to the network's size and predictions back to the case's own, so that scores
//! are those of whole native volumes. Knows no method but through its trait.

use super::Method;
use super::preview::{Previews, picture};
use crate::comm::{Communicator, agree};
use crate::data::Dataset;
use crate::data::batch::Volume;
use crate::data::loader::Loader;
use crate::error::{Context, Result};
use crate::metrics::{Convention, LabelPair, LesionScores};
use crate::runlog::StructureScore;
use std::fmt::Write;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Slices that go through the network together.
const SLICES_AT_ONCE: i64 = 8;

/// On which grid and with which spacing distances are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Yardstick {
    /// Native size; millimetres where the spacing is known, voxels elsewhere.
    Native,
    /// Native size, voxels.
    Voxels,
    /// Prediction and truth on the network's grid with spacing 10, 1, 1, and Dice 0, HD95 50,
    /// ASD 10 where prediction or truth are empty: what most papers on ACDC scribbles print
    /// (`lichen14/MaskMixAdv` `code/test_2D_fully.py` at cf584ee).
    Published,
}

/// Dice, HD95 and ASD of one structure in one case; NaN where undefined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// In [0, 1].
    pub dice: f64,
    /// 95th percentile of surface distances.
    pub hd95: f64,
    /// Mean distance from the predicted to the true surface.
    pub asd: f64,
}

/// The scores of one case.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseScores {
    /// Name of the case.
    pub case: String,
    /// One per structure: every class but the background.
    pub scores: Vec<Score>,
}

impl CaseScores {
    /// Mean Dice over structures; NaN where none is defined.
    pub(super) fn mean_dice(&self) -> f64 {
        mean(self.scores.iter().map(|score| score.dice))
    }
}

/// The scores of all held-out cases, equal on every rank.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Names of the structures.
    pub structures: Vec<String>,
    /// In the order of the data set.
    pub cases: Vec<CaseScores>,
}

/// Mean of the values that are defined; NaN if none is.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let defined: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
    defined.iter().sum::<f64>() / defined.len() as f64
}

impl Scores {
    /// Means over cases, structure by structure.
    pub fn structure_means(&self) -> Vec<StructureScore> {
        self.structures
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let over_cases = |pick: fn(&Score) -> f64| {
                    mean(self.cases.iter().map(|case| pick(&case.scores[index])))
                };
                StructureScore {
                    name: name.clone(),
                    dice: over_cases(|score| score.dice),
                    hd95: over_cases(|score| score.hd95),
                    asd: over_cases(|score| score.asd),
                }
            })
            .collect()
    }

    /// Mean over structures of their mean Dice.
    pub fn mean_dice(&self) -> f64 {
        mean(self.structure_means().iter().map(|structure| structure.dice))
    }

    /// One line per case and structure; undefined values are empty.
    pub fn to_csv(&self) -> String {
        let mut text = String::from("case,structure,dice,hd95,asd\n");
        let number = |value: f64| if value.is_nan() { String::new() } else { value.to_string() };
        for case in &self.cases {
            for (structure, score) in self.structures.iter().zip(&case.scores) {
                let [dice, hd95, asd] = [score.dice, score.hd95, score.asd].map(number);
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{},{structure},{dice},{hd95},{asd}", case.case);
            }
        }
        text
    }
}

/// Scores a method on the cases that a fold holds out.
pub struct Evaluator {
    /// The data set.
    pub dataset: Arc<Dataset>,
    /// The annotation that pictures show beside the prediction.
    pub annotation: String,
    /// The held-out fold; 0: nothing is held out and nothing scored.
    pub fold: u32,
    /// Rows and columns of the network's input.
    pub size: usize,
    /// Precision and place of the network.
    pub target: (Kind, Device),
    /// How distances are measured.
    pub yardstick: Yardstick,
    /// Normalises each volume by its own statistics, which then stay those of the last one; on one
    /// rank only.
    pub volume_statistics: bool,
}

/// Makes the running statistics of batch normalisation anew, as the mean over those of the run's
/// first `batches`, whole and without dropout.
pub fn recompute_statistics(
    method: &dyn Method,
    loader: &mut Loader,
    batches: u64,
    (kind, device): (Kind, Device),
) -> Result<()> {
    let mut seen = 0;
    for step in 1..=batches {
        for batch in loader.micro_batches(step)? {
            seen += 1;
            let batch = batch.to(kind, device);
            method.adapt_statistics(&batch.main().image, 1.0 / f64::from(seen))?;
        }
    }
    Ok(())
}

impl Evaluator {
    /// Predicts and scores every held-out case once over all ranks.
    pub fn run(&self, method: &dyn Method, communicator: &dyn Communicator) -> Result<Scores> {
        self.run_with_previews(method, communicator).map(|(scores, _)| scores)
    }

    /// The same, and pictures of this rank's worst and best case.
    pub fn run_with_previews(
        &self,
        method: &dyn Method,
        communicator: &dyn Communicator,
    ) -> Result<(Scores, Previews)> {
        let structures: Vec<String> = self.dataset.classes.iter().skip(1).cloned().collect();
        if self.fold == 0 {
            return Ok((Scores { structures, cases: Vec::new() }, Previews::default()));
        }
        let columns = 3 * structures.len();
        let mut previews = Previews::default();
        let scored = |(case, volume): (usize, &Volume<'_>), prediction: &[u8], row: &mut [f64]| {
            for (index, values) in row.chunks_exact_mut(3).enumerate() {
                let score = self.score(volume, prediction, index as u8 + 1)?;
                values.copy_from_slice(&[score.dice, score.hd95, score.asd]);
            }
            let dice = mean(row.iter().step_by(3).copied());
            let picture = || {
                let (kind, device) = self.target;
                let made =
                    method.pictures(&volume.input(self.size).to_kind(kind).to_device(device))?;
                picture(volume, &self.annotation, (prediction, &made), self.size)
            };
            previews.consider((case, dice), picture)
        };
        let rows = self.rows(method, columns, communicator, scored)?;
        let cases = rows.into_iter().map(|(case, row)| {
            let scores = row.chunks_exact(3);
            let scores = scores.map(|s| Score { dice: s[0], hd95: s[1], asd: s[2] }).collect();
            CaseScores { case, scores }
        });
        Ok((Scores { structures, cases: cases.collect() }, previews))
    }

    /// The five scores of class 1 of every held-out case at its own size, as published for lesions.
    pub fn lesions(
        &self,
        method: &dyn Method,
        communicator: &dyn Communicator,
    ) -> Result<Vec<(String, LesionScores)>> {
        let scored = |(_, volume): (usize, &Volume<'_>), prediction: &[u8], row: &mut [f64]| {
            let is_lesion =
                |labels: &[u8]| labels.iter().map(|&label| label == 1).collect::<Vec<_>>();
            let prediction = is_lesion(&volume.enlarge(prediction, self.size));
            let scores = LesionScores::of(&prediction, &is_lesion(volume.truth()))?;
            row.copy_from_slice(&scores.to_array());
            Ok(())
        };
        let rows = self.rows(method, 5, communicator, scored)?;
        let scores = |(case, row): (String, Vec<f64>)| {
            let scores = std::array::from_fn(|index| row[index]);
            (case, LesionScores::from_array(scores))
        };
        Ok(rows.into_iter().map(scores).collect())
    }

    /// Predicts this rank's held-out cases and lets `score` fill in a row of so many columns for each;
    /// returns the rows of all cases with their names, on every rank.
    fn rows(
        &self,
        method: &dyn Method,
        columns: usize,
        communicator: &dyn Communicator,
        mut score: impl FnMut((usize, &Volume<'_>), &[u8], &mut [f64]) -> Result<()>,
    ) -> Result<Vec<(String, Vec<f64>)>> {
        let (rank, ranks) = (communicator.rank(), communicator.ranks());
        let mut own = || {
            let volumes = Volume::held_out(&self.dataset, self.fold)?;
            let mut rows = vec![0.0; volumes.len() * columns];
            let cases = volumes.iter().zip(rows.chunks_exact_mut(columns)).enumerate();
            for (case, (volume, row)) in cases.skip(rank).step_by(ranks) {
                score((case, volume), &self.predict(method, volume)?, row)?;
                communicator.note_progress();
            }
            Ok((volumes, rows))
        };
        let (volumes, rows) = agree(communicator, own())?;
        // Each row is 0 on all ranks but one: the sum is everybody's table.
        let table = Tensor::from_slice(&rows).to_device(self.target.1);
        communicator.sum(&table);
        let rows: Vec<f64> = Vec::try_from(table).context(|| "cannot fetch the scores")?;
        let rows = rows.chunks_exact(columns).map(<[f64]>::to_vec);
        Ok(volumes.iter().map(|volume| volume.name().to_owned()).zip(rows).collect())
    }

    /// The class of every pixel on the network's grid: `[slices, size, size]`.
    fn predict(&self, method: &dyn Method, volume: &Volume<'_>) -> Result<Vec<u8>> {
        let (kind, device) = self.target;
        let input = volume.input(self.size);
        if self.volume_statistics {
            method.adapt_statistics(&input.to_kind(kind).to_device(device), 1.0)?;
        }
        let mut labels = Vec::new();
        for slices in input.split(SLICES_AT_ONCE, 0) {
            let logits = method.predict(&slices.to_kind(kind).to_device(device))?;
            let classes = logits.argmax(1, false).to_kind(Kind::Uint8).to_device(Device::Cpu);
            let classes: Vec<u8> = Vec::try_from(classes.contiguous().view([-1]))
                .context(|| format!("cannot fetch the prediction of `{}`", volume.name()))?;
            labels.extend(classes);
        }
        Ok(labels)
    }

    fn score(&self, volume: &Volume<'_>, labels: &[u8], class: u8) -> Result<Score> {
        let own = volume.spacing_mm().unwrap_or([1.0; 3]);
        let scores = match self.yardstick {
            Yardstick::Published => {
                let truth = volume.truth_on_grid(self.size);
                let shape = [volume.shape()[0], self.size, self.size];
                let pair = LabelPair::new(labels, &truth, shape, own)?;
                Convention::Published.score(&pair, class)
            }
            Yardstick::Native | Yardstick::Voxels => {
                let prediction = volume.enlarge(labels, self.size);
                let spacing = if self.yardstick == Yardstick::Native { own } else { [1.0; 3] };
                let pair = LabelPair::new(&prediction, volume.truth(), volume.shape(), spacing)?;
                Convention::Plain.score(&pair, class)
            }
        };
        let [dice, hd95, asd] =
            [scores.dice, scores.hd95, scores.asd].map(|value| value.unwrap_or(f64::NAN));
        Ok(Score { dice, hd95, asd })
    }
}
