//! Which held-out cases are worth a picture: the worst and the best of an evaluation.
//!
//! Each rank keeps the pictures of its own worst and best case; once all scores are known, the rank
//! that holds the worst or best of all writes it. Nothing is sent.

use super::evaluate::CaseScores;
use crate::data::batch::Volume;
use crate::error::{Context, Result};
use crate::runlog::preview::{Preview, UNANNOTATED};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// The pictures of a rank's worst and best case so far.
#[derive(Debug, Default)]
pub struct Previews {
    worst: Option<Candidate>,
    best: Option<Candidate>,
}

/// A case by its place among all held-out cases.
#[derive(Debug)]
struct Candidate {
    case: usize,
    dice: f64,
    preview: Preview,
}

impl Previews {
    /// Takes note of a case; `picture` is made only if it is the worst or best so far.
    pub(super) fn consider(
        &mut self,
        (case, dice): (usize, f64),
        picture: impl Fn() -> Result<Preview>,
    ) -> Result<()> {
        if dice.is_nan() {
            return Ok(());
        }
        // Of equal ones the first stays, here as among the ranks.
        if self.worst.as_ref().is_none_or(|worst| dice < worst.dice) {
            self.worst = Some(Candidate { case, dice, preview: picture()? });
        }
        if self.best.as_ref().is_none_or(|best| dice > best.dice) {
            self.best = Some(Candidate { case, dice, preview: picture()? });
        }
        Ok(())
    }

    /// Writes those pictures that show the worst and the best of all `cases`.
    pub fn write(&self, cases: &[CaseScores], folder: &Path) -> Result<()> {
        let scored = || {
            let mean = cases.iter().map(CaseScores::mean_dice).enumerate();
            mean.filter(|(_, dice)| !dice.is_nan())
        };
        // Of equal ones `min_by` gives the first and `max_by` the last.
        let worst = scored().min_by(|a, b| a.1.total_cmp(&b.1));
        let best = scored().rev().max_by(|a, b| a.1.total_cmp(&b.1));
        for (name, chosen, own) in [("worst", worst, &self.worst), ("best", best, &self.best)] {
            let Some((case, _)) = chosen else { continue };
            let Some(own) = own.as_ref().filter(|own| own.case == case) else { continue };
            // A name that is a path would lie elsewhere.
            let case = cases[case].case.replace(['/', '\\'], "_");
            own.preview.write(&folder.join(format!("{name}-{case}.png")))?;
        }
        Ok(())
    }
}

/// The picture of a case: `prediction` the class of each pixel, `made` what the method makes beside.
pub(super) fn picture(
    volume: &Volume<'_>,
    annotation: &str,
    (prediction, made): (&[u8], &[(&str, Tensor)]),
    size: usize,
) -> Result<Preview> {
    let made = made.iter().map(|(name, image)| Ok(((*name).to_owned(), greys(image)?)));
    let annotated = volume.annotation_on_grid(annotation, size);
    let preview = Preview {
        size,
        image: greys(&volume.input(size))?,
        annotation: annotated.unwrap_or_else(|| vec![UNANNOTATED; prediction.len()]),
        prediction: prediction.to_vec(),
        truth: volume.truth_on_grid(size),
        made: made.collect::<Result<_>>()?,
    };
    Ok(preview.thinned())
}

/// Levels of images `[N, C, H, W]`; colours as their mean: pictures are grey, so that classes stand out.
fn greys(images: &Tensor) -> Result<Vec<u8>> {
    let grey = images.mean_dim([1i64].as_slice(), false, Kind::Float) * 255.0;
    let levels = grey.clamp(0.0, 255.0).round().to_kind(Kind::Uint8).to_device(Device::Cpu);
    Vec::<u8>::try_from(levels.contiguous().view([-1])).context(|| "cannot read an image")
}
