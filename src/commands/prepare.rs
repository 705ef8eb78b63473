//! `scrimp prepare`: from a source of cases to the one packed file, with a bar while it takes.
//!
//! Knows how to talk about it; reading, scaling and packing stand in `data`.

use super::annotate;
use super::check;
use super::looked_at;
#[cfg(feature = "torch")]
use super::network_labels;
use super::packing::{claim, pack, say, warn};
use crate::cli;
use crate::data::import::{
    Folding, Steps, acdc, amos, brats, brats_scribbles, label_transfer, lesion_phantom, mscmr,
    nnunet, own_data, phantom, two_modality, word,
};
use crate::data::simulated::{Drawing, Simulation};
use crate::error::{Exit, Failure, Result};
use crate::preparation::{Crop, Intensities, Interpolation, Over, Scaling, Spacing};

/// Packs the data set that the command line names, and says on stdout what was written.
pub(super) fn run(prepare: &cli::Prepare) -> Result<Exit> {
    match prepare {
        cli::Prepare::Acdc(arguments) => {
            let to = claim(&arguments.packed)?;
            pack(acdc::open(&arguments.from, &published_steps(arguments)?)?, to)
        }
        cli::Prepare::Mscmr(arguments) => {
            let to = claim(&arguments.packed)?;
            pack(mscmr::open(&arguments.from, &published_steps(arguments)?)?, to)
        }
        cli::Prepare::Word(arguments) => pack_word(arguments),
        cli::Prepare::BratsScribbles(arguments) => pack_brats_scribbles(arguments),
        cli::Prepare::OwnData(arguments) => pack_own_data(arguments),
        cli::Prepare::Nifti { .. } => Err(Failure::usage(
            "`scrimp prepare nifti` is no command: NIfTI and all other formats are packed by `scrimp prepare own-data`",
        )
        .hint("its options are told by `scrimp prepare own-data --help`")),
        cli::Prepare::Nnunet(arguments) => pack_nnunet(arguments),
        cli::Prepare::Phantom { cases, slices, size, difficulty, seed, packed } => {
            let phantom = phantom::Phantom {
                cases: *cases,
                slices: *slices,
                size: *size,
                difficulty: match difficulty {
                    cli::Difficulty::Easy => phantom::Difficulty::Easy,
                    cli::Difficulty::Hard => phantom::Difficulty::Hard,
                },
                seed: *seed,
            };
            let to = claim(packed)?;
            pack(phantom::open(phantom)?, to)
        }
        cli::Prepare::LabelTransfer(arguments) => pack_label_transfer(arguments),
        cli::Prepare::Brats(arguments) => pack_brats(arguments),
        cli::Prepare::LesionPhantom(arguments) => pack_lesion_phantom(arguments),
        cli::Prepare::Gaze(arguments) => looked_at::gaze(arguments),
        cli::Prepare::GazePhantom(arguments) => looked_at::phantom(arguments),
        cli::Prepare::Amos(arguments) => {
            let to = claim(&arguments.packed)?;
            let source = amos::open(&amos::Package {
                folder: arguments.from.clone(),
                labelled_share: arguments.labelled.labelled_share,
                seed: arguments.labelled.seed,
            })?;
            pack(source, to)
        }
        cli::Prepare::TwoModalityPhantom(arguments) => pack_two_modality_phantom(arguments),
        cli::Prepare::PseudoLabels(arguments) => match arguments.with {
            cli::Labeller::Network => label_by_network(arguments),
            cli::Labeller::RandomWalker => annotate::pseudo_labels(arguments),
        },
        cli::Prepare::Scribbles(arguments) => annotate::scribbles(arguments),
        cli::Prepare::Check(arguments) => check::run(arguments),
    }
}

/// How scans of a published data set are prepared.
fn published_steps(arguments: &cli::Published) -> Result<Steps> {
    let (spacing, interpolation) = resampling(&arguments.resampling)?;
    let scaling = arguments.intensities.iter().map(|word| scaling(word)).collect::<Result<_>>()?;
    Ok(Steps { spacing, interpolation, scaling, ..Steps::as_published() })
}

fn pack_own_data(arguments: &cli::OwnData) -> Result<Exit> {
    let to = claim(&arguments.packed)?;
    let steps = Wished {
        resampling: &arguments.resampling,
        crop: arguments.crop,
        intensities: &arguments.intensities,
    };
    let scribbles = arguments.scribbles.clone().zip(arguments.unlabelled);
    let scribbles =
        scribbles.map(|(path, unlabelled)| own_data::ScribbleFolder { path, unlabelled });
    let source = own_data::open(&own_data::Folders {
        images: arguments.images.clone(),
        modalities: arguments.modalities.clone(),
        scribbles,
        dense: arguments.dense.clone(),
        classes: arguments.classes.clone(),
        dense_classes: arguments.dense_classes.clone(),
        cases: arguments.cases.clone(),
        patients: arguments.patients.clone(),
        folding: Folding {
            folds: arguments.folds,
            test_share: arguments.test_share,
            seed: arguments.seed,
        },
        regrid: arguments.regrid,
        steps: steps.steps()?,
    })?;
    pack(source, to)
}

/// What the command line says of how scans are prepared.
struct Wished<'a> {
    resampling: &'a cli::Resampling,
    crop: cli::Crop,
    intensities: &'a [String],
}

impl Wished<'_> {
    fn steps(&self) -> Result<Steps> {
        let (spacing, interpolation) = resampling(self.resampling)?;
        let crop = match self.crop {
            cli::Crop::None => Crop::None,
            cli::Crop::Nonzero => Crop::Nonzero,
        };
        let scaling = self.intensities.iter().map(|word| scaling(word)).collect::<Result<_>>()?;
        Ok(Steps { crop, spacing, interpolation, scaling })
    }
}

fn pack_nnunet(arguments: &cli::Nnunet) -> Result<Exit> {
    let to = claim(&arguments.packed)?;
    let steps = Wished {
        resampling: &arguments.resampling,
        crop: arguments.crop,
        intensities: &arguments.intensities,
    };
    let source = nnunet::open(&nnunet::RawFolder {
        folder: arguments.from.clone(),
        splits: arguments.splits.clone(),
        cases: arguments.cases.clone(),
        patients: arguments.patients.clone(),
        steps: steps.steps()?,
    })?;
    if !arguments.packed.json {
        say(format_args!("{}", source.provenance))?;
    }
    pack(source, to)
}

/// How far apart voxels lie afterwards, and what lies between them.
fn resampling(arguments: &cli::Resampling) -> Result<(Spacing, Interpolation)> {
    let spacing = match arguments.spacing[..] {
        [] => Spacing::AsStored,
        [both] => Spacing::InPlane([both; 2]),
        [rows, columns] => Spacing::InPlane([rows, columns]),
        [slices, rows, columns] => Spacing::Volume([slices, rows, columns]),
        ref others => {
            return Err(Failure::usage(format!(
                "`--spacing` has {} distances, expected 1 to 3",
                others.len()
            ))
            .hint("name one for rows and columns, or those of slices, rows and columns: `--spacing 0.8`"));
        }
    };
    let interpolation = match arguments.interpolation {
        cli::Interpolation::Cubic => Interpolation::Cubic,
        cli::Interpolation::Linear => Interpolation::Linear,
    };
    Ok((spacing, interpolation))
}

/// How intensities of a channel are scaled.
fn scaling(word: &str) -> Result<Scaling> {
    let window = || {
        let (low, high) = word.strip_prefix("window:")?.split_once(',')?;
        Some(Intensities::Window { low: low.parse().ok()?, high: high.parse().ok()? })
    };
    let known = match word {
        "fixed" => return Ok(Scaling::ByForeground),
        "robust" => Some(Intensities::Robust),
        "published" => Some(Intensities::Published),
        "as-stored" => Some(Intensities::AsStored),
        "z-score" => Some(Intensities::ZScore { over: Over::All }),
        "z-score-slices" => Some(Intensities::ZScore { over: Over::Slice }),
        "z-score-nonzero" => Some(Intensities::ZScore { over: Over::Nonzero }),
        _ => window(),
    };
    known.map(Scaling::By).ok_or_else(|| {
        Failure::usage(format!(
            "`--intensities` is `{word}`, expected `robust`, `published`, `z-score`, `z-score-nonzero`, \
             `z-score-slices`, `window:LOW,HIGH`, `fixed` or `as-stored`"
        ))
    })
}

fn pack_label_transfer(arguments: &cli::LabelTransfer) -> Result<Exit> {
    let to = claim(&arguments.packed)?;
    let (source, warnings) = label_transfer::open(&label_transfer::Package {
        folder: arguments.from.clone(),
        size: arguments.size,
        test_only: arguments.test_only,
    })?;
    warn(warnings)?;
    pack(source, to)
}

fn pack_brats(arguments: &cli::Brats) -> Result<Exit> {
    let to = claim(&arguments.packed)?;
    let source = brats::open(&brats::Volumes {
        folder: arguments.from.clone(),
        size: arguments.size,
        min_lesion: arguments.min_lesion,
        every: arguments.every,
        depth_percent: [arguments.depth_from, arguments.depth_to],
        held_out_shares: [arguments.val_share, arguments.test_share],
        seed: arguments.seed,
    })?;
    pack(source, to)
}

fn pack_word(arguments: &cli::Word) -> Result<Exit> {
    let to = claim(&arguments.packed)?;
    let simulation = simulation(arguments.every, arguments.seed);
    pack(word::open(&arguments.from, arguments.simulate.then_some(simulation))?, to)
}

fn pack_brats_scribbles(arguments: &cli::BratsScribbles) -> Result<Exit> {
    let to = claim(&arguments.packed)?;
    let source = brats_scribbles::open(&brats_scribbles::Volumes {
        folder: arguments.from.clone(),
        held_out_shares: [arguments.val_share, arguments.test_share],
        simulation: simulation(arguments.every, arguments.seed),
    })?;
    pack(source, to)
}

/// Strokes as they are published for WORD, on the first of `every` slices.
fn simulation(every: u32, seed: u64) -> Simulation {
    Simulation { drawing: Drawing::Walk { halvings: 0 }, every: every as usize, seed }
}

fn pack_lesion_phantom(arguments: &cli::LesionPhantom) -> Result<Exit> {
    let to = claim(&arguments.packed)?;
    let source = lesion_phantom::open(lesion_phantom::LesionPhantom {
        cases: arguments.cases,
        healthy: arguments.healthy,
        validation: arguments.validation,
        test: arguments.test,
        size: arguments.size,
        seed: arguments.seed,
    })?;
    pack(source, to)
}

fn pack_two_modality_phantom(arguments: &cli::TwoModalityPhantom) -> Result<Exit> {
    let to = claim(&arguments.packed)?;
    let source = two_modality::open(two_modality::TwoModalityPhantom {
        cases: arguments.cases,
        validation: arguments.validation,
        slices: arguments.slices,
        size: arguments.size,
        labelled_share: arguments.labelled.labelled_share,
        seed: arguments.labelled.seed,
    })?;
    pack(source, to)
}

#[cfg(feature = "torch")]
fn label_by_network(arguments: &cli::PseudoLabels) -> Result<Exit> {
    network_labels::run(arguments)
}

#[cfg(not(feature = "torch"))]
fn label_by_network(_: &cli::PseudoLabels) -> Result<Exit> {
    Err(Failure::usage("built without the feature `torch`, so there is no network to label with")
        .hint("run `cargo build --release`"))
}
