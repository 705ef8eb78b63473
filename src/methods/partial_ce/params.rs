//! What a configuration says about partial cross-entropy and its regularisers, and what it may not say.

use crate::error::{Failure, Result};
use crate::losses::contour::Contours;
use crate::losses::gated_crf::{Field, Kernel};
use crate::losses::intensity_variance::Sign;
use crate::losses::mumford_shah::MumfordShah;
use crate::methods::puzzle::Puzzle;
use crate::native::Form;
use crate::train::learner::LearnerConfig;
use crate::train::numbers;
use crate::train::schedule::ramp_up;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// `[method.params]` of `partial-ce`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Weight of the cross-entropy over annotated pixels.
    #[serde(default = "one", deserialize_with = "numbers::weight")]
    pub(super) cross_entropy: f64,
    /// Weight of the Dice loss over annotated pixels.
    #[serde(default, deserialize_with = "numbers::weight")]
    pub(super) dice: f64,
    /// Weight of the mean entropy of predictions, in [0, 1], over all pixels; 0.1 as published.
    #[serde(default, deserialize_with = "numbers::weight")]
    pub(super) entropy: f64,
    /// The length of contours, called total variation in the released code.
    #[serde(default)]
    pub(super) contour_length: ContourLength,
    /// The gated conditional random field: near pixels of like intensity get the same class.
    #[serde(default)]
    pub(super) gated_crf: GatedCrf,
    /// The Mumford-Shah energy: regions of one intensity.
    #[serde(default)]
    pub(super) mumford_shah: Energy,
    /// The spread of intensities inside classes and between them.
    #[serde(default)]
    pub(super) intensity_variance: IntensityVariance,
    /// What samples become before they are learnt from: the cross-entropy is that of the mixed ones alone.
    #[serde(default)]
    pub(super) mixing: Mixing,
    /// Of `mixing = "mixup"`.
    #[serde(default)]
    pub(super) mixup: Mixup,
    /// Of `mixing = "cutmix"`.
    #[serde(default)]
    pub(super) cutmix: Cutmix,
    /// Of `mixing = "cutout"`.
    #[serde(default)]
    pub(super) cutout: Cutout,
    /// Of `mixing = "puzzle"`.
    #[serde(default)]
    pub(super) puzzle: Puzzle,
    /// How the network learns.
    pub(super) learner: LearnerConfig,
}

/// `[method.params.contour_length]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ContourLength {
    /// Weight of the term; 0.01 as published.
    #[serde(deserialize_with = "numbers::weight")]
    pub(super) weight: f64,
    /// Whose contours are measured.
    pub(super) contours: Contours,
}

/// `[method.params.gated_crf]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct GatedCrf {
    /// Weight of the term; 0.1 as published.
    #[serde(deserialize_with = "numbers::weight")]
    pub(super) weight: f64,
    /// Two pixels at most this many apart in rows and in columns are a pair; at least 1.
    #[serde(deserialize_with = "numbers::width")]
    pub(super) radius: i64,
    /// Two voxels of a volume at most this many slices apart are a pair; 0: only those of one slice are.
    #[serde(deserialize_with = "numbers::reach")]
    pub(super) radius_slices: i64,
    /// What is summed for the weight of a pair: `weight`, its fall over `sigma_xy` pixels, over `sigma_z` slices, which is `sigma_xy` where it is not given, and over a difference `sigma_intensity` of intensities; a sigma of 0 leaves its factor out.
    #[serde(deserialize_with = "kernels")]
    pub(super) kernels: Vec<Kernel>,
}

impl Default for GatedCrf {
    fn default() -> Self {
        Self { weight: 0.0, radius: 5, radius_slices: 1, kernels: vec![Kernel::PUBLISHED] }
    }
}

impl GatedCrf {
    pub(super) fn field(&self) -> Field<'_> {
        Field {
            kernels: &self.kernels,
            radius: [self.radius_slices, self.radius, self.radius],
            source: None,
            destination: None,
            form: Form::Own,
        }
    }
}

/// `[method.params.mumford_shah]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Energy {
    /// Weight of the term, which is a sum over all pixels of the batch; 0.000001 as published.
    #[serde(deserialize_with = "numbers::weight")]
    pub(super) weight: f64,
    /// Which energy.
    pub(super) energy: MumfordShah,
}

/// `[method.params.intensity_variance]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct IntensityVariance {
    /// Weight of the term at the end of its ramp; 0.1 as published.
    #[serde(deserialize_with = "numbers::weight")]
    pub(super) weight: f64,
    /// What becomes smaller.
    pub(super) sign: Sign,
    /// Steps of one unit of the ramp: the weight changes every so many steps, whatever an epoch is; at least 1.
    #[serde(deserialize_with = "numbers::some_steps")]
    pub(super) ramp_unit_steps: u64,
    /// Units over which the weight grows, beginning with 0.0067 of it; 0: it is there from the start.
    #[serde(deserialize_with = "numbers::steps")]
    pub(super) ramp_units: u64,
}

impl Default for IntensityVariance {
    fn default() -> Self {
        Self { weight: 0.0, sign: Sign::AsCoded, ramp_unit_steps: 150, ramp_units: 200 }
    }
}

impl IntensityVariance {
    /// The weight in `step`, counted from 1: that of the released code for its iteration `step - 1`.
    pub(super) fn weight_at(&self, step: u64) -> f64 {
        let units = step.saturating_sub(1) / self.ramp_unit_steps;
        match self.ramp_units {
            0 => self.weight,
            all => self.weight * ramp_up(units as f64 / all as f64),
        }
    }
}

/// What becomes of samples and their annotation before they are learnt from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mixing {
    /// They stay as they are.
    #[default]
    None,
    /// Each is faded into another one of the batch, all by the same share.
    Mixup,
    /// A box of each is replaced by that of another one of the batch, in all the same box.
    Cutmix,
    /// Each gets a square hole of its own.
    Cutout,
    /// Each is put together with another one of the batch from blocks, so that what matters in both is seen.
    Puzzle,
}

/// `[method.params.mixup]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Mixup {
    /// Both parameters of the beta distribution of the share that stays.
    #[serde(deserialize_with = "numbers::positive")]
    pub(super) alpha: f64,
}

impl Default for Mixup {
    fn default() -> Self {
        Self { alpha: 0.5 }
    }
}

/// `[method.params.cutmix]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Cutmix {
    /// Both parameters of the beta distribution of the share that stays; 1, where all are as likely, as published.
    #[serde(deserialize_with = "numbers::positive")]
    pub(super) alpha: f64,
}

impl Default for Cutmix {
    fn default() -> Self {
        Self { alpha: 1.0 }
    }
}

/// `[method.params.cutout]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Cutout {
    /// Pixels from the middle of the hole to each of its sides; at least 1.
    #[serde(deserialize_with = "numbers::width")]
    pub(super) half_side: i64,
}

impl Default for Cutout {
    fn default() -> Self {
        Self { half_side: 16 }
    }
}

fn one() -> f64 {
    1.0
}

/// The narrowest fall of a kernel: its square is still a number of single precision.
const LEAST_SIGMA: f64 = 1e-9;
/// The most kernels that are summed.
const MOST_KERNELS: usize = 64;

/// Kernels of a gated CRF, at least one, whose weights and sigmas can be computed with.
fn kernels<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Vec<Kernel>, D::Error> {
    let kernels = Vec::<Kernel>::deserialize(from)?;
    let falls = |sigma: f64| sigma == 0.0 || (LEAST_SIGMA..=f64::from(f32::MAX)).contains(&sigma);
    let is_one = |kernel: &Kernel| {
        let sigmas = [kernel.sigma_xy, kernel.sigma_intensity, kernel.sigma_z.unwrap_or(0.0)];
        numbers::is_weight(kernel.weight) && sigmas.into_iter().all(falls)
    };
    if (1..=MOST_KERNELS).contains(&kernels.len()) && kernels.iter().all(is_one) {
        return Ok(kernels);
    }
    Err(D::Error::custom(format!(
        "expected 1 to {MOST_KERNELS} kernels with finite weights of at least 0, and sigmas that are 0 or \
         at least {LEAST_SIGMA}"
    )))
}

impl Params {
    pub(super) fn check(&self) -> Result<()> {
        if self.cross_entropy == 0.0 && self.dice == 0.0 {
            return Err(Failure::usage(
                "`cross_entropy` and `dice` are both 0: nothing is learnt from annotation",
            ));
        }
        self.check_mixing()
    }

    /// Refuses terms beside a mixing that say nothing of mixed samples.
    fn check_mixing(&self) -> Result<()> {
        let Some(name) = self.mixing.name() else { return Ok(()) };
        let terms = [
            ("dice", self.dice),
            ("entropy", self.entropy),
            ("contour_length.weight", self.contour_length.weight),
            ("gated_crf.weight", self.gated_crf.weight),
            ("mumford_shah.weight", self.mumford_shah.weight),
            ("intensity_variance.weight", self.intensity_variance.weight),
        ];
        let Some((key, _)) = terms.into_iter().find(|(_, weight)| *weight > 0.0) else {
            return Ok(());
        };
        let message = format!(
            "`{key}` is of samples as they are, and `mixing = \"{name}\"` trains on mixed ones alone"
        );
        Err(Failure::usage(message).hint(format!(
            "leave one of them out: `--set method.params.{key}=0.0` or `--set method.params.mixing=none`"
        )))
    }
}

impl Mixing {
    /// What it is called in a configuration; `None` where nothing is mixed.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Mixup => Some("mixup"),
            Self::Cutmix => Some("cutmix"),
            Self::Cutout => Some("cutout"),
            Self::Puzzle => Some("puzzle"),
        }
    }
}

impl Params {
    /// Refuses terms that compare the one intensity of grey pixels.
    pub(super) fn refuse_colour(&self) -> Result<()> {
        let terms = [
            ("gated_crf", self.gated_crf.weight),
            ("mumford_shah", self.mumford_shah.weight),
            ("intensity_variance", self.intensity_variance.weight),
        ];
        let Some((name, _)) = terms.into_iter().find(|(_, weight)| *weight > 0.0) else {
            return Ok(());
        };
        let message = format!("`{name}` takes grey images, and these are in colour");
        Err(Failure::usage(message)
            .hint(format!("leave it out: `--set method.params.{name}.weight=0.0`")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_of_grey_images_are_refused_in_colour() {
        assert!(params("entropy = 0.1\ndice = 1.0").refuse_colour().is_ok());
        let refused = params("gated_crf = { weight = 0.1 }").refuse_colour().unwrap_err();
        assert_eq!(refused.message(), "`gated_crf` takes grey images, and these are in colour");
    }

    fn read(text: &str) -> std::result::Result<Params, toml::de::Error> {
        let learner = "[learner]\nlr = 0.01\noptimizer = { sgd = {} }\n";
        toml::from_str(&format!("{text}\n{learner}"))
    }

    fn params(text: &str) -> Params {
        read(text).unwrap()
    }

    #[test]
    fn nothing_but_the_cross_entropy_is_on_by_default() {
        let params = params("");
        let terms = [
            params.dice,
            params.entropy,
            params.contour_length.weight,
            params.gated_crf.weight,
            params.mumford_shah.weight,
            params.intensity_variance.weight_at(9),
        ];
        assert!(params.cross_entropy > 0.0 && terms.iter().all(|weight| *weight == 0.0));
        assert!(params.check().is_ok());
    }

    #[test]
    fn the_ramp_counts_units_of_steps_and_ends_at_the_weight() {
        let at = |step| {
            params("intensity_variance = { weight = 0.1 }").intensity_variance.weight_at(step)
        };
        for (step, left) in [(1, 1.0f64), (150, 1.0), (151, 0.995), (15_001, 0.5), (30_001, 0.0)] {
            assert!((at(step) - 0.1 * (-5.0 * left * left).exp()).abs() < 1e-15, "step {step}");
        }
        assert!((at(60_000) - 0.1).abs() < 1e-15);
        let flat = params("intensity_variance = { weight = 0.1, ramp_units = 0 }");
        assert!((flat.intensity_variance.weight_at(1) - 0.1).abs() < 1e-15);
    }

    #[test]
    fn a_mixing_leaves_no_plain_samples_for_other_terms() {
        assert_eq!(params("").mixing, Mixing::None);
        for mixing in ["mixup", "cutmix", "cutout", "puzzle"] {
            let with = |term: &str| params(&format!("mixing = \"{mixing}\"\n{term}")).check();
            assert!(with("cross_entropy = 0.5\nentropy = 0.0").is_ok());
            for term in ["dice = 0.5", "entropy = 0.1", "gated_crf = { weight = 0.1 }"] {
                assert!(with(term).is_err(), "{mixing} and {term}");
            }
        }
        insta::assert_snapshot!(
            params("mixing = \"cutmix\"\nmumford_shah = { weight = 0.1 }").check().unwrap_err(),
            @r#"
        error: `mumford_shah.weight` is of samples as they are, and `mixing = "cutmix"` trains on mixed ones alone

        hint: leave one of them out: `--set method.params.mumford_shah.weight=0.0` or `--set method.params.mixing=none`
        "#
        );
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(params("cross_entropy = 0.0\nentropy = 0.1").check().is_err());
        for text in [
            "entropy = -0.1",
            "entropy = inf",
            "gated_crf = { radius = 0 }",
            "gated_crf = { radius_slices = -1 }",
            "gated_crf = { kernels = [] }",
            "gated_crf = { kernels = [{ weight = 1.0, sigma_xy = -1.0, sigma_intensity = 0.1 }] }",
            "gated_crf = { kernels = [{ weight = nan, sigma_xy = 1.0, sigma_intensity = 0.1 }] }",
            "gated_crf = { kernels = [{ weight = 1.0, sigma_xy = 1e-30, sigma_intensity = 0.1 }] }",
            "intensity_variance = { ramp_unit_steps = 0 }",
            "mixing = \"mix\"",
            "mixup = { alpha = 0.0 }",
            "cutout = { half_side = 0 }",
            "puzzle = { labels = 1 }",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
