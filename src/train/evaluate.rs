//! Held-out cases through a method and the metrics, shared out over the ranks.
//!
//! Slices are resized to the network's size; predictions are compared with the truth on the grid that a
//! [`Yardstick`] says. Knows no method but through its trait.

use super::method::Method;
use super::preview::{Extremes, Scene};
use super::scores::{CaseScores, Score, Scores, mean};
use crate::comm::{Communicator, agree};
use crate::data::Dataset;
use crate::data::held_out::HeldOut;
use crate::data::loader::Loader;
use crate::error::{Context, Result};
use crate::metrics::{Convention, LabelPair, LesionScores};
use crate::panics;
use crate::runlog::Unit;
use std::borrow::Cow;
use std::path::Path;
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
    /// ASD 10 where prediction or truth are empty; in-plane voxels are the unit: what most papers on ACDC scribbles print
    /// (`lichen14/MaskMixAdv` `code/test_2D_fully.py` at cf584ee).
    Published,
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
/// first `batches`, whole and without dropout. Every rank of `ranks` calls this.
pub fn recompute_statistics(
    method: &dyn Method,
    loader: &mut Loader,
    batches: u64,
    (kind, device): (Kind, Device),
    ranks: &dyn Communicator,
) -> Result<()> {
    let mut seen = 0;
    for step in 1..=batches {
        for batch in agree(ranks, loader.micro_batches(step))? {
            seen += 1;
            let batch = batch.to(kind, device);
            method.adapt_statistics(&batch.main().image, 1.0 / f64::from(seen))?;
        }
    }
    Ok(())
}

/// A held-out case, and what the method says of it.
struct Predicted<'a> {
    /// Its place among the held-out cases.
    case: usize,
    volume: HeldOut<'a>,
    /// The class of every pixel on the network's grid: `[slices, size, size]`.
    labels: Vec<u8>,
}

fn bytes_of(numbers: &[f64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn numbers_of(bytes: &[u8]) -> Vec<f64> {
    let (numbers, _) = bytes.as_chunks();
    numbers.iter().map(|number| f64::from_le_bytes(*number)).collect()
}

impl Evaluator {
    /// Predicts and scores every held-out case once over all ranks.
    pub fn run(&self, method: &dyn Method, ranks: &dyn Communicator) -> Result<Scores> {
        self.run_and_keep(method, ranks).map(|(scores, _)| scores)
    }

    /// The same, and the predictions of this rank's worst and best case.
    pub fn run_and_keep(
        &self,
        method: &dyn Method,
        ranks: &dyn Communicator,
    ) -> Result<(Scores, Extremes)> {
        let structures: Vec<String> = self.dataset.classes.iter().skip(1).cloned().collect();
        let mut kept = Extremes::default();
        if self.fold == 0 || structures.is_empty() {
            return Ok((Scores { structures, cases: Vec::new() }, kept));
        }
        let scored = |predicted: Predicted<'_>, row: &mut [f64]| {
            let scores = self.scores(&predicted)?;
            for (values, score) in row.chunks_exact_mut(3).zip(&scores) {
                values.copy_from_slice(&[score.dice, score.hd95, score.asd]);
            }
            let dice = mean(scores.iter().map(|score| score.dice));
            kept.consider(predicted.case, dice, predicted.labels);
            Ok(())
        };
        let rows = self.rows(method, 3 * structures.len(), ranks, scored)?;
        let cases = rows.into_iter().map(|(volume, row)| {
            let scores = row.chunks_exact(3);
            let scores = scores.map(|s| Score { dice: s[0], hd95: s[1], asd: s[2] }).collect();
            CaseScores { case: volume.name().to_owned(), unit: self.unit(&volume), scores }
        });
        Ok((Scores { structures, cases: cases.collect() }, kept))
    }

    /// Writes pictures of the worst and the best of all scored cases into `folder`, those of which this
    /// rank kept the prediction.
    pub fn draw(
        &self,
        method: &dyn Method,
        scores: &Scores,
        kept: &Extremes,
        folder: &Path,
    ) -> Result<()> {
        if scores.cases.is_empty() {
            return Ok(());
        }
        let volumes = HeldOut::cases(&self.dataset, self.fold)?;
        let (kind, device) = self.target;
        for (name, case, prediction) in kept.of_all(&scores.cases) {
            let volume = &volumes[case];
            let parts = volume.input(self.size).split(SLICES_AT_ONCE, 0);
            let pictures = |part: &Tensor| method.pictures(&part.to_kind(kind).to_device(device));
            let made = parts.iter().map(pictures).collect::<Result<Vec<_>>>()?;
            let scene = Scene { volume, annotation: &self.annotation, prediction, size: self.size };
            // A name that is a path would lie elsewhere.
            let case = volume.name().replace(['/', '\\'], "_");
            scene.picture(&made)?.write(&folder.join(format!("{name}-{case}.png")))?;
        }
        Ok(())
    }

    /// The five scores of class 1 of every held-out case at its own size, as published for lesions.
    pub fn lesions(
        &self,
        method: &dyn Method,
        ranks: &dyn Communicator,
    ) -> Result<Vec<(String, LesionScores)>> {
        let scored = |Predicted { volume, labels, .. }: Predicted<'_>, row: &mut [f64]| {
            let is_lesion =
                |labels: &[u8]| labels.iter().map(|&label| label == 1).collect::<Vec<_>>();
            let prediction = is_lesion(&volume.enlarge(&labels, self.size));
            let scores = LesionScores::of(&prediction, &is_lesion(volume.truth()))?;
            row.copy_from_slice(&scores.to_array());
            Ok(())
        };
        let rows = self.rows(method, 5, ranks, scored)?;
        let scores = |(volume, row): (HeldOut<'_>, Vec<f64>)| {
            let scores = std::array::from_fn(|index| row[index]);
            (volume.name().to_owned(), LesionScores::from_array(scores))
        };
        Ok(rows.into_iter().map(scores).collect())
    }

    /// Predicts this rank's held-out cases and lets `score` fill in a row of so many columns, at least
    /// 1, for each; returns the rows of all cases on every rank.
    fn rows(
        &self,
        method: &dyn Method,
        columns: usize,
        ranks: &dyn Communicator,
        mut score: impl FnMut(Predicted<'_>, &mut [f64]) -> Result<()>,
    ) -> Result<Vec<(HeldOut<'_>, Vec<f64>)>> {
        let own = panics::caught(|| {
            let volumes = HeldOut::cases(&self.dataset, self.fold)?;
            let mut own_rows = Vec::new();
            let cases = volumes.iter().enumerate().skip(ranks.rank()).step_by(ranks.ranks());
            for (case, &volume) in cases {
                let mut row = vec![0.0; columns];
                let during = || format!("cannot score case `{}`", volume.name());
                let labels = self.predict(method, &volume);
                let scored =
                    labels.and_then(|labels| score(Predicted { case, volume, labels }, &mut row));
                scored.map_err(|failure| failure.during(during()))?;
                own_rows.extend(row);
                ranks.note_progress();
            }
            Ok((volumes, own_rows))
        });
        let (volumes, own_rows) = agree(ranks, own)?;
        let tables = ranks.gather(&bytes_of(&own_rows))?;
        let row = |case: usize| {
            let mut of_rank = tables[case % tables.len()].chunks_exact(columns * size_of::<f64>());
            of_rank.nth(case / tables.len()).map(numbers_of).unwrap_or_default()
        };
        Ok(volumes.into_iter().enumerate().map(|(case, volume)| (volume, row(case))).collect())
    }

    /// The class of every pixel on the network's grid: `[slices, size, size]`.
    fn predict(&self, method: &dyn Method, volume: &HeldOut<'_>) -> Result<Vec<u8>> {
        let (kind, device) = self.target;
        let input = volume.input(self.size);
        if self.volume_statistics {
            method.adapt_statistics(&input.to_kind(kind).to_device(device), 1.0)?;
        }
        let mut labels = Vec::new();
        for slices in input.split(SLICES_AT_ONCE, 0) {
            let probabilities = method.predict(&slices.to_kind(kind).to_device(device))?;
            let classes =
                probabilities.argmax(1, false).to_kind(Kind::Uint8).to_device(Device::Cpu);
            let classes: Vec<u8> = Vec::try_from(classes.contiguous().view([-1]))
                .context(|| format!("cannot fetch the prediction of `{}`", volume.name()))?;
            labels.extend(classes);
        }
        Ok(labels)
    }

    /// In what distances of a case are measured.
    fn unit(&self, volume: &HeldOut<'_>) -> Unit {
        match self.yardstick {
            Yardstick::Native if volume.spacing_mm().is_some() => Unit::Mm,
            _ => Unit::Voxel,
        }
    }

    /// The scores of every structure.
    fn scores(&self, predicted: &Predicted<'_>) -> Result<Vec<Score>> {
        let (volume, labels) = (&predicted.volume, &predicted.labels);
        let own = volume.spacing_mm().unwrap_or([1.0; 3]);
        let [slices, ..] = volume.shape();
        let on_grid = [slices, self.size, self.size];
        let native = |spacing| {
            let prediction = Cow::from(volume.enlarge(labels, self.size));
            (Convention::Plain, prediction, Cow::from(volume.truth()), (volume.shape(), spacing))
        };
        let (convention, prediction, truth, (shape, spacing)) = match self.yardstick {
            Yardstick::Published => {
                let truth = Cow::from(volume.truth_on_grid(self.size));
                (Convention::Published, Cow::from(labels), truth, (on_grid, own))
            }
            Yardstick::Native => native(own),
            Yardstick::Voxels => native([1.0; 3]),
        };
        let pair = LabelPair::new(&prediction, &truth, shape, spacing)?;
        let score = |class: usize| {
            let scores = convention.score(&pair, class as u8);
            let [dice, hd95, asd] =
                [scores.dice, scores.hd95, scores.asd].map(|value| value.unwrap_or(f64::NAN));
            Score { dice, hd95, asd }
        };
        Ok((1..self.dataset.classes.len()).map(score).collect())
    }
}
