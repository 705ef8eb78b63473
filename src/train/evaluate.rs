//! Held-out cases through a method and the metrics, shared out over the ranks.
//!
//! What a network sees of a case is up to `inference`; predictions are compared with the truth on the grid that a
//! [`Yardstick`] says. Knows no method but through its trait.

use super::inference::{Inference, Target};
use super::method::Method;
use super::preview::{Extremes, Scene};
use super::scores::{CaseScores, Score, Scores, mean};
use crate::comm::{Communicator, agree};
use crate::config::sampling::Sampling;
use crate::data::Dataset;
use crate::data::held_out::HeldOut;
use crate::data::loader::Loader;
use crate::error::Result;
use crate::metrics::{Convention, LabelPair, LesionScores};
use crate::panics;
use crate::runlog::Unit;
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

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
    /// As [`Yardstick::Native`], and 0 in every score of a structure that prediction or truth lack
    /// (`HiLab-git/DMSPS` at 89fe065).
    Dmsps,
    /// Native size and Dice alone; no distances (`MIC-DKFZ/ScribbleBench` at f292115).
    Scribblebench,
}

/// Scores a method on the cases that a fold holds out.
pub struct Evaluator {
    /// The data set.
    pub dataset: Arc<Dataset>,
    /// The annotation that pictures show beside the prediction.
    pub annotation: String,
    /// The held-out fold; 0: nothing is held out and nothing scored.
    pub fold: u32,
    /// What the network sees of a case.
    pub sampling: Sampling,
    /// Precision and place of the network.
    pub target: Target,
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
    target: Target,
    ranks: &dyn Communicator,
) -> Result<()> {
    let mut seen = 0;
    for step in 1..=batches {
        for batch in agree(ranks, loader.micro_batches(step))? {
            seen += 1;
            let batch = batch.to(target.kind, target.device);
            method.adapt_statistics(&batch.main().image, 1.0 / f64::from(seen))?;
        }
    }
    Ok(())
}

/// A held-out case, and what the method says of it.
struct Predicted<'a> {
    /// Its place among the held-out cases.
    case: usize,
    held_out: HeldOut<'a>,
    /// The class of every pixel.
    labels: Vec<u8>,
    /// Rows and columns of the grid that they lie on.
    plane: [usize; 2],
}

impl Predicted<'_> {
    /// The labels on the case's own grid.
    fn on_own_grid(&self) -> Cow<'_, [u8]> {
        self.held_out.enlarge(&self.labels, self.plane)
    }
}

/// A held-out case with what was measured of it: a row of numbers for each thing measured.
type Measured<'a, const NUMBERS: usize> = (HeldOut<'a>, Vec<[f64; NUMBERS]>);

/// Turns classes that nobody looked for into background, which is what the truth calls them.
fn unseen_as_background(labels: &mut [u8], held_out: &HeldOut<'_>) {
    if !held_out.classes_annotated().is_empty() {
        let unseen = labels.iter_mut().filter(|label| !held_out.is_looked_for(**label));
        unseen.for_each(|label| *label = 0);
    }
}

fn bytes_of<const NUMBERS: usize>(rows: &[[f64; NUMBERS]]) -> Vec<u8> {
    rows.as_flattened().iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn rows_of<const NUMBERS: usize>(bytes: &[u8]) -> Vec<[f64; NUMBERS]> {
    let (numbers, _) = bytes.as_chunks();
    let numbers: Vec<f64> = numbers.iter().map(|number| f64::from_le_bytes(*number)).collect();
    numbers.as_chunks().0.to_vec()
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
        let scored = |predicted: Predicted<'_>| {
            let scores = self.scores(&predicted)?;
            let dice = mean(scores.iter().map(|score| score.dice));
            kept.consider(predicted.case, dice, predicted.labels);
            Ok(scores.into_iter().map(Score::to_array).collect())
        };
        let measured = self.measured(method, ranks, scored)?;
        let cases = measured.into_iter().map(|(held_out, rows)| CaseScores {
            case: held_out.name().to_owned(),
            modality: held_out.modality().to_owned(),
            classes_annotated: held_out.classes_annotated().to_vec(),
            unit: self.unit(&held_out),
            scores: rows.into_iter().map(Score::from_array).collect(),
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
        let cases = HeldOut::cases(&self.dataset, self.fold)?;
        let inference = self.inference(method);
        for (name, case, prediction) in kept.of_all(&scores.cases) {
            let held_out = &cases[case];
            let (annotation, levels) = (self.annotation.as_str(), self.dataset.levels.len());
            let scene = Scene { held_out, annotation, levels, prediction };
            // A name that is a path would lie elsewhere.
            let case = held_out.name().replace(['/', '\\'], "_");
            scene.picture(&inference)?.write(&folder.join(format!("{name}-{case}.png")))?;
        }
        Ok(())
    }

    /// The five scores of class 1 of every held-out case in which somebody looked for it, at its own size, as published
    /// for lesions.
    pub fn lesions(
        &self,
        method: &dyn Method,
        ranks: &dyn Communicator,
    ) -> Result<Vec<(String, LesionScores)>> {
        let scored = |predicted: Predicted<'_>| {
            let is_lesion =
                |labels: &[u8]| labels.iter().map(|&label| label == 1).collect::<Vec<_>>();
            let prediction = is_lesion(&predicted.on_own_grid());
            let scores = LesionScores::of(&prediction, &is_lesion(predicted.held_out.truth()))?;
            Ok(vec![scores.to_array()])
        };
        let measured = self.measured(method, ranks, scored)?.into_iter();
        let measured = measured.filter(|(held_out, _)| held_out.is_looked_for(1));
        let scores = measured.flat_map(|(held_out, rows)| {
            let name = held_out.name().to_owned();
            rows.into_iter().map(move |row| (name.clone(), LesionScores::from_array(row)))
        });
        Ok(scores.collect())
    }

    /// Predicts this rank's held-out cases and lets `score` measure each, with as many rows as any other;
    /// returns what was measured of all cases on every rank.
    fn measured<const NUMBERS: usize>(
        &self,
        method: &dyn Method,
        ranks: &dyn Communicator,
        mut score: impl FnMut(Predicted<'_>) -> Result<Vec<[f64; NUMBERS]>>,
    ) -> Result<Vec<Measured<'_, NUMBERS>>> {
        let own = panics::caught(|| {
            let cases = HeldOut::cases(&self.dataset, self.fold)?;
            let on_progress = || ranks.note_progress();
            let mut inference = self.inference(method);
            inference.on_progress = Some(&on_progress);
            let mut own = Vec::new();
            for case in (ranks.rank()..cases.len()).step_by(ranks.ranks()) {
                let held_out = cases[case];
                let scored = inference.labels(held_out.scan()).and_then(|mut labels| {
                    unseen_as_background(&mut labels, &held_out);
                    let [_, rows, columns] = inference.shape(held_out.scan());
                    score(Predicted { case, held_out, labels, plane: [rows, columns] })
                });
                let during = || format!("cannot score case `{}`", held_out.name());
                own.extend(scored.map_err(|failure| failure.during(during()))?);
                ranks.note_progress();
            }
            Ok((cases, bytes_of(&own)))
        });
        let (cases, own) = agree(ranks, own)?;
        let tables = ranks.gather(&own)?;
        let rows = |case: usize| {
            let (rank, place) = (case % tables.len(), case / tables.len());
            let of_rank = (rank..cases.len()).step_by(tables.len()).len();
            let table = &tables[rank];
            rows_of(
                table.chunks_exact((table.len() / of_rank).max(1)).nth(place).unwrap_or_default(),
            )
        };
        Ok(cases.iter().enumerate().map(|(case, &held_out)| (held_out, rows(case))).collect())
    }

    /// How the method sees a case.
    fn inference<'m>(&self, method: &'m dyn Method) -> Inference<'m> {
        Inference {
            is_in_colour: self.dataset.is_in_colour(),
            volume_statistics: self.volume_statistics,
            ..Inference::new(vec![method], self.sampling, self.target)
        }
    }

    /// In what distances of a case are measured.
    fn unit(&self, held_out: &HeldOut<'_>) -> Unit {
        match self.yardstick {
            Yardstick::Native | Yardstick::Dmsps if held_out.spacing_mm().is_some() => Unit::Mm,
            _ => Unit::Voxel,
        }
    }

    /// The scores of every structure; those of one that nobody looked for are undefined.
    fn scores(&self, predicted: &Predicted<'_>) -> Result<Vec<Score>> {
        let Predicted { held_out, labels, plane, .. } = predicted;
        let own = held_out.spacing_mm().unwrap_or([1.0; 3]);
        let shape = held_out.shape();
        let (convention, prediction, truth, shape, spacing) = match self.yardstick {
            Yardstick::Published => {
                let [rows, columns] = *plane;
                let shape = [shape[0], rows, columns];
                let prediction = Cow::from(labels);
                (Convention::Published, prediction, held_out.truth_on(*plane), shape, own)
            }
            Yardstick::Native | Yardstick::Voxels | Yardstick::Dmsps | Yardstick::Scribblebench => {
                let spacing = if self.yardstick == Yardstick::Voxels { [1.0; 3] } else { own };
                let truth = Cow::from(held_out.truth());
                let convention = match self.yardstick {
                    Yardstick::Dmsps => Convention::Dmsps,
                    Yardstick::Scribblebench => Convention::Scribblebench,
                    _ => Convention::Plain,
                };
                (convention, predicted.on_own_grid(), truth, shape, spacing)
            }
        };
        let pair = LabelPair::new(&prediction, &truth, shape, spacing)?;
        let score = |class: usize| {
            if !held_out.is_looked_for(class as u8) {
                return Score::UNDEFINED;
            }
            let scores = convention.score(&pair, class as u8);
            let [dice, hd95, asd] =
                [scores.dice, scores.hd95, scores.asd].map(|value| value.unwrap_or(f64::NAN));
            Score { dice, hd95, asd }
        };
        Ok((1..self.dataset.classes.len()).map(score).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::Solo;
    use crate::data::{Case, DENSE};
    use crate::runlog::preview::{Preview, Values};
    use crate::train::inference::tests::{Answers, HERE, echo, patches, scan};
    use std::collections::BTreeMap;

    /// Cases in which class 1 is what is darker than one half, which is what [`echo`] says.
    fn dataset(shapes: &[[usize; 3]]) -> Arc<Dataset> {
        let cases = shapes.iter().enumerate().map(|(number, &shape)| {
            let scan = scan(shape);
            let truth = scan.voxels.iter().map(|&value| u8::from(value < 0.5)).collect();
            Case {
                name: format!("case{number}"),
                patient: number.to_string(),
                frame: 0,
                modality: String::new(),
                classes_annotated: Vec::new(),
                fold: 1,
                scan,
                annotations: BTreeMap::from([(DENSE.to_owned(), truth)]),
            }
        });
        Arc::new(Dataset {
            name: "echoes".to_owned(),
            classes: ["background", "dark"].map(str::to_owned).to_vec(),
            provenance: String::new(),
            preparation: None,
            levels: Vec::new(),
            test_fold: None,
            cases: cases.collect(),
        })
    }

    /// In the first case nobody looked for what is dark; every case has it.
    #[test]
    fn what_nobody_looked_for_is_not_scored_and_predicted_there_it_is_background() {
        let mut dataset = Arc::unwrap_or_clone(dataset(&[[4, 8, 8], [4, 8, 8]]));
        dataset.classes.push("other".to_owned());
        dataset.cases[0].classes_annotated = vec![0, 2];
        let truth = dataset.cases[0].annotations.get_mut(DENSE).unwrap();
        truth.fill(0);
        truth[0] = 2;
        let evaluator = Evaluator {
            dataset: Arc::new(dataset),
            annotation: DENSE.to_owned(),
            fold: 1,
            sampling: patches([4, 8, 8]),
            target: HERE,
            yardstick: Yardstick::Native,
            volume_statistics: false,
        };
        let (scores, kept) = evaluator.run_and_keep(&Answers(echo), &Solo).unwrap();
        let [dark, other] = &scores.structure_means()[..] else { panic!("{scores:?}") };
        assert!(dark.dice > 1.0 - 1e-12 && dark.cases == Some(1) && other.cases.is_none());
        assert!(scores.cases[0].scores[0].dice.is_nan() && scores.cases[0].mean_dice() == 0.0);
        let worst = kept.of_all(&scores.cases).into_iter().find(|(name, ..)| *name == "worst");
        let (_, case, labels) = worst.unwrap();
        assert!(case == 0 && labels.iter().all(|&label| label == 0));
        let lesions = evaluator.lesions(&Answers(echo), &Solo).unwrap();
        assert_eq!(lesions.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["case1"]);
        let published = Evaluator { yardstick: Yardstick::Published, ..evaluator };
        let scores = published.run(&Answers(echo), &Solo).unwrap();
        assert!(scores.cases[0].scores[0].dice.is_nan(), "0 would be a score");
    }

    #[test]
    fn cases_are_scored_on_their_own_grid_whatever_the_network_sees_of_them() {
        let echo = Answers(echo);
        let shapes = [[5, 8, 12], [9, 16, 8]];
        let folder = tempfile::TempDir::new().unwrap();
        let samplings = [
            patches([4, 8, 8]),
            patches([1, 8, 8]),
            Sampling::Cropped { size: 16 },
            Sampling::Slices { size: 16 },
        ];
        for sampling in samplings {
            let evaluator = Evaluator {
                dataset: dataset(&shapes),
                annotation: DENSE.to_owned(),
                fold: 1,
                sampling,
                target: HERE,
                yardstick: Yardstick::Native,
                volume_statistics: false,
            };
            let (scores, kept) = evaluator.run_and_keep(&echo, &Solo).unwrap();
            let dice: Vec<f64> = scores.cases.iter().map(CaseScores::mean_dice).collect();
            let lesions = evaluator.lesions(&echo, &Solo).unwrap();
            assert_eq!((dice.len(), lesions.len()), (2, 2));
            if !matches!(sampling, Sampling::Slices { .. }) {
                assert!(dice.iter().all(|&dice| dice > 1.0 - 1e-12), "{sampling:?}: {dice:?}");
                let least =
                    |scores: &LesionScores| scores.to_array().into_iter().fold(1.0, f64::min);
                assert!(lesions.iter().all(|(_, scores)| least(scores) > 0.99));
            }
            evaluator.draw(&echo, &scores, &kept, folder.path()).unwrap();
            let worst = usize::from(dice[1] < dice[0]);
            let picture = folder.path().join(format!("worst-case{worst}.png"));
            let picture = Preview::read(&picture).unwrap();
            let size = if matches!(sampling, Sampling::Slices { .. }) {
                16
            } else {
                shapes[worst][1].max(shapes[worst][2])
            };
            assert_eq!((picture.size, picture.slices()), (size, shapes[worst][0]));
            if matches!(sampling, Sampling::Patches { .. }) {
                assert!(picture.made.is_empty());
            } else {
                let [opposite, known] = &picture.made[..] else { panic!("{:?}", picture.made) };
                assert_eq!((known.values, opposite.values), (Values::Classes, Values::Greys));
                // Behind the slices of the case nothing is known.
                let mut shown = (0..known.plane.len()).filter(|&pixel| known.plane[pixel] < 255);
                assert!(shown.all(|pixel| {
                    let sum = u16::from(picture.image[pixel]) + u16::from(opposite.plane[pixel]);
                    known.plane[pixel] == picture.truth[pixel] && sum.abs_diff(255) < 2
                }));
                let count = known.plane.iter().filter(|&&label| label < 255).count();
                let [slices, rows, columns] = shapes[worst];
                let is_resized = matches!(sampling, Sampling::Slices { .. });
                assert_eq!(count, slices * if is_resized { 16 * 16 } else { rows * columns });
            }
        }
    }
}
