//! Evaluations of a run under way: scores, pictures, and what follows where there are none.
//!
//! Knows neither metrics nor networks.

use super::{Parts, Trainer};
use crate::error::{Context, Result};
use crate::files;
use crate::panics;
use crate::runlog::directory::make_folder;
use crate::runlog::{self, Phase, RunEvent, flight};
use crate::train::checkpoint::Best;
use crate::train::evaluate::recompute_statistics;
use crate::train::scores::Scores;
use std::time::Instant;

impl Trainer {
    /// Scores the held-out cases. Where that fails on all ranks or on the only one, the steps since
    /// the last checkpoint are saved first.
    pub(super) fn evaluate_or_save(&mut self) -> Result<bool> {
        let evaluated = panics::caught(|| self.evaluate());
        let Err(failure) = evaluated else { return evaluated };
        if self.communicator.ranks() > 1 && !failure.is_known_to_all() {
            return Err(failure);
        }
        let step = self.state.step;
        let failure = failure.during(format!("the evaluation after step {step} failed"));
        match self.save().and_then(|()| self.finish_save()) {
            Ok(()) => Err(failure.hint(format!(
                "step {step} is saved: the same command goes on, and `scrimp evaluate` scores it"
            ))),
            // The failure of saving is told as it happens, that of evaluating is the first.
            Err(unsaved) => {
                let message = format!("{}; step {step} is lost", unsaved.sentence());
                self.emit_own(&RunEvent::Warning { message });
                Err(failure)
            }
        }
    }

    /// Scores the held-out cases; true when the mean Dice is among the best so far.
    fn evaluate(&mut self) -> Result<bool> {
        let start = Instant::now();
        self.pace.pause();
        self.parts.recorder.enter(flight::Phase::Evaluating);
        let step = self.state.step;
        self.emit(&RunEvent::Phase { step, phase: Phase::Evaluating });
        self.renew_statistics()?;
        let ranks = &*self.communicator;
        let evaluator = &self.parts.evaluator;
        let (scores, kept) = evaluator.run_and_keep(&*self.parts.method, ranks)?;
        let folder = self.parts.directory.previews().join(format!("step-{step:08}"));
        let method = &*self.parts.method;
        let drawn = panics::caught(|| evaluator.draw(method, &scores, &kept, &folder));
        self.warn_of(drawn);
        let mean_dice = scores.mean_dice();
        let improved = self.state.take_score(Best { step, mean_dice }, self.parts.plan.keep_best);
        if self.communicator.rank() != 0 || scores.cases.is_empty() {
            return Ok(improved);
        }
        let written = self.write_scores(&scores);
        self.warn_of(written);
        self.parts.events.emit(&RunEvent::Evaluated(runlog::Evaluated {
            step,
            mean_dice,
            best_mean_dice: self.state.best().map_or(f64::NAN, |best| best.mean_dice),
            best_step: self.state.best().map_or(0, |best| best.step),
            seconds: start.elapsed().as_secs_f64(),
            cases: scores.cases.len() as u64,
            structures: scores.structure_means(),
        }));
        Ok(improved)
    }

    /// Makes running statistics anew, as they are before every evaluation.
    pub(super) fn renew_statistics(&mut self) -> Result<()> {
        let Parts { method, loader, statistics_batches, target, .. } = &mut self.parts;
        let ranks = &*self.communicator;
        recompute_statistics(&**method, loader, *statistics_batches, *target, ranks)
    }

    fn write_scores(&self, scores: &Scores) -> Result<()> {
        let folder = self.parts.directory.scores();
        let path = folder.join(format!("step-{:08}.csv", self.state.step));
        let table = scores.to_csv()?;
        make_folder(&folder)
            .and_then(|()| files::replace(&path, table.as_bytes()))
            .context(|| format!("cannot write `{}`", path.display()))
    }

    /// Tells of what is for looking at and could not be made: a run goes on without it.
    fn warn_of(&mut self, made: Result<()>) {
        if let Err(failure) = made {
            let message = format!("{}; training goes on", failure.sentence());
            self.emit_own(&RunEvent::Warning { message });
        }
    }
}
