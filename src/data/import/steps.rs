//! How scans of a source are to be prepared, as somebody wishes it, and what has to be measured for that.
//!
//! Knows cases as their files hold them; how these are read is for the sources to say.

use crate::data::{Case, IGNORE, SCRIBBLE};
use crate::error::{Failure, Result};
use crate::preparation::intensities::Foreground;
use crate::preparation::{
    Channel, Crop, Intensities, Interpolation, Orientation, Preparation, Scaling, Spacing,
};
use std::collections::BTreeMap;

/// How scans are to be prepared.
#[derive(Debug, Clone, PartialEq)]
pub struct Steps {
    /// Which part of each scan is kept.
    pub crop: Crop,
    /// How far apart voxels lie afterwards.
    pub spacing: Spacing,
    /// How numbers are taken between voxels.
    pub interpolation: Interpolation,
    /// How intensities are scaled: one for all channels, or one for each; none where the source knows itself
    /// how they are.
    pub scaling: Vec<Scaling>,
}

impl Default for Steps {
    /// The grid of the files, intensities cut and scaled to `[0, 1]`.
    fn default() -> Self {
        let scaling = vec![Scaling::By(Intensities::Robust)];
        Self { scaling, ..Self::as_published() }
    }
}

impl Steps {
    /// The grid of the files, intensities as published for the data set.
    pub fn as_published() -> Self {
        Self {
            crop: Crop::None,
            spacing: Spacing::AsStored,
            interpolation: Interpolation::Cubic,
            scaling: Vec::new(),
        }
    }

    /// The same with intensities scaled by `known` where nothing is said of them.
    pub(super) fn or_scaled_by(&self, known: Intensities) -> Self {
        let mut steps = self.clone();
        if steps.scaling.is_empty() {
            steps.scaling = vec![Scaling::By(known)];
        }
        steps
    }

    /// The preparation of scans whose channels have these names. Where numbers of the whole data set are wished
    /// for, `cases` gives the cases as their files hold them, and all of them are read.
    ///
    /// Refuses another number of scalings than one or that of the channels, and what
    /// [`Preparation::check`] refuses.
    pub(super) fn preparation<I: Iterator<Item = Result<Case>>>(
        &self,
        names: Vec<String>,
        cases: impl FnOnce() -> I,
    ) -> Result<Preparation> {
        let scaling = match self.scaling[..] {
            [all] => vec![all; names.len()],
            _ => self.scaling.clone(),
        };
        if scaling.len() != names.len() {
            return Err(Failure::usage(format!(
                "{} ways to scale intensities for {} channels, expected one for all or one for each",
                scaling.len(),
                names.len()
            ))
            .hint("channels are `NAME_0000`, `NAME_0001` and so on; give `--intensities` once for each"));
        }
        let measured = |channel: usize| scaling[channel] == Scaling::ByForeground;
        let mut foreground = vec![Foreground::default(); names.len()];
        if scaling.contains(&Scaling::ByForeground) {
            for case in cases() {
                let case = case?;
                for (channel, foreground) in foreground.iter_mut().enumerate() {
                    if measured(channel) {
                        foreground.add(&annotated(&case, channel));
                    }
                }
            }
        }
        let channels = names.into_iter().zip(scaling).zip(foreground);
        let channel = |((name, scaling), foreground): ((String, Scaling), Foreground)| {
            let intensities = match scaling {
                Scaling::By(intensities) => Ok(intensities),
                Scaling::ByForeground => foreground.fixed().map_err(|failure| {
                    failure.during(format!("cannot scale channel `{name}` by its foreground"))
                }),
            };
            intensities.map(|intensities| Channel { name, intensities })
        };
        let channels = channels.map(channel).collect::<Result<_>>()?;
        let Self { crop, interpolation, spacing, .. } = *self;
        let preparation = Preparation {
            orientation: Orientation::AsStored,
            crop,
            interpolation,
            spacing,
            channels,
            modalities: BTreeMap::new(),
        };
        preparation.check().map(|()| preparation)
    }
}

/// The intensities of one channel where a scribble names a class that is not the background.
fn annotated(case: &Case, channel: usize) -> Vec<f64> {
    let Some(labels) = case.annotations.get(SCRIBBLE) else { return Vec::new() };
    let (pixels, channels) = (case.scan.grid.pixels(), case.scan.channels);
    let place = |voxel: usize| ((voxel / pixels) * channels + channel) * pixels + voxel % pixels;
    let known = labels.iter().enumerate().filter(|(_, label)| **label != 0 && **label != IGNORE);
    known.map(|(voxel, _)| f64::from(case.scan.voxels[place(voxel)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{Grid, Scan};

    /// Two slices of 1 x 2 pixels, two channels: 10 and 20 times the number of the voxel.
    fn case() -> Case {
        let voxels = vec![0.0, 10.0, 0.0, 20.0, 20.0, 30.0, 40.0, 60.0];
        Case {
            name: "a".into(),
            patient: "a".into(),
            frame: 0,
            modality: String::new(),
            classes_annotated: Vec::new(),
            fold: 0,
            scan: Scan { grid: Grid::unplaced([2, 1, 2], None), channels: 2, voxels },
            annotations: [(SCRIBBLE.to_owned(), vec![IGNORE, 1, 0, 2])].into(),
        }
    }

    fn names() -> Vec<String> {
        vec!["ct".into(), "pet".into()]
    }

    #[test]
    fn numbers_of_the_data_set_are_those_of_annotated_structures() {
        let z_score = Intensities::ZScore { over: crate::preparation::Over::All };
        let scaling = vec![Scaling::By(z_score), Scaling::ByForeground];
        let steps = Steps { scaling, ..Steps::default() };
        let made = steps.preparation(names(), || [case(), case()].into_iter().map(Ok)).unwrap();
        assert_eq!(made.channels[0].intensities, z_score);
        let expected = Intensities::Fixed { low: 20.0, high: 60.0, mean: 40.0, deviation: 20.0 };
        assert_eq!(made.channels[1].intensities, expected);
    }

    #[test]
    fn nothing_is_read_where_nothing_is_measured_and_one_way_is_for_all() {
        type Never = fn() -> std::iter::Empty<Result<Case>>;
        let never: Never = || unreachable!();
        let made = Steps::default().preparation(names(), never).unwrap();
        assert!(made.channels.iter().all(|channel| channel.intensities == Intensities::Robust));
        let three =
            Steps { scaling: vec![Scaling::By(Intensities::Robust); 3], ..Steps::default() };
        insta::assert_snapshot!(three.preparation(names(), never).unwrap_err(), @r"
        error: 3 ways to scale intensities for 2 channels, expected one for all or one for each

        hint: channels are `NAME_0000`, `NAME_0001` and so on; give `--intensities` once for each
        ");
        let window = Intensities::Window { low: 5.0, high: 5.0 };
        let narrow = Steps { scaling: vec![Scaling::By(window)], ..Steps::default() };
        assert!(narrow.preparation(names(), never).is_err());
        let fixed = Steps { scaling: vec![Scaling::ByForeground], ..Steps::default() };
        insta::assert_snapshot!(fixed.preparation(names(), std::iter::empty).unwrap_err(), @r"
        error: cannot scale channel `ct` by its foreground
          caused by: 0 annotated voxels of the foreground do not differ in intensity, expected some that do
        ");
    }
}
