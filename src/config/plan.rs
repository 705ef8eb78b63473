//! What will happen: every default filled in, every contradiction refused.
//!
//! After [`RunPlan::resolve`] nothing is optional and nothing is checked twice. Whether files exist
//! and what devices there are is not known here: a plan means the same on every machine.

use super::sampling::Sampling;
use super::{
    Colour, DataConfig, MethodConfig, NetConfig, Normalisation, Orientation, Outside, Resample,
    RunConfig, ShapesConfig, Split,
};
use super::{phantoms, sampling_keys, shown};
use crate::error::{Context, Exit, Result};
use crate::limits::STEPS;
use crate::preparation::Preparation;
use crate::shares::local_share;
use crate::words::counted;
use std::path::{Path, PathBuf};

pub use super::phantoms::{
    GazePhantomPlan, LesionPhantomPlan, PhantomPlan, TwoModalityPhantomPlan, VolumesPlan,
};
pub use super::training::{Cadence, TrainPlan};

/// The annotation that says the class of every voxel, which cases to score with have alone.
const DENSE: &str = "dense";

/// Everything about a run that is decided before it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct RunPlan {
    /// Processes that train together, at least 1.
    pub ranks: usize,
    /// What to train on.
    pub data: DataPlan,
    /// How networks are built.
    pub net: NetPlan,
    /// The name of the method.
    pub method: String,
    /// The parameters of the method. [`RunPlan::resolve`] takes them as written; whoever knows the
    /// method replaces them by all of them, defaults included.
    pub method_params: toml::Table,
    /// How long and how to train.
    pub train: TrainPlan,
}

/// What to train on.
#[derive(Debug, Clone, PartialEq)]
pub struct DataPlan {
    /// Where cases come from.
    pub source: DataSource,
    /// The fold that is held out, counted from 1; 0 holds nothing out.
    pub fold: u32,
    /// The published split whose folds these are, where they are not those that were packed.
    pub split: Option<Split>,
    /// The annotation to learn from, by its name in the data set.
    pub annotation: String,
    /// How samples are cut from scans.
    pub sampling: Sampling,
    /// What becomes of the brightness and the cast of images.
    pub colour: Colour,
    /// How slices are turned, flipped and brought to size.
    pub augment: Resample,
    /// What annotations say of pixels outside of slices.
    pub outside: Outside,
    /// Whether the last, smaller batch of an epoch is left out.
    pub drop_last: bool,
    /// Dense masks of other patients, where the method learns from them.
    pub shapes: Option<ShapesPlan>,
    /// How scans were prepared, where the configuration or the data set says so.
    pub preparation: Option<Preparation>,
}

/// Dense masks that belong to no image of the run.
#[derive(Debug, Clone, PartialEq)]
pub struct ShapesPlan {
    /// Where masks come from.
    pub source: ShapesSource,
    /// Which way round they lie.
    pub orientation: Orientation,
    /// Whether patients of the training data are accepted.
    pub allow_own: bool,
}

/// Where masks come from.
#[derive(Debug, Clone, PartialEq)]
pub enum ShapesSource {
    /// A folder of NIfTI label volumes or a packed data set, relative to the working directory.
    Path(PathBuf),
    /// A synthetic data set, made when the run starts.
    Phantom(PhantomPlan),
}

/// Where cases come from.
#[derive(Debug, Clone, PartialEq)]
pub enum DataSource {
    /// A packed data set, relative to the working directory.
    Packed(PathBuf),
    /// A synthetic data set, made when the run starts.
    Phantom(PhantomPlan),
    /// Synthetic images with image labels, made when the run starts.
    LesionPhantom(LesionPhantomPlan),
    /// Synthetic pictures that somebody looked at, made when the run starts.
    GazePhantom(GazePhantomPlan),
    /// Synthetic abdomens in two modalities, made when the run starts.
    TwoModalityPhantom(TwoModalityPhantomPlan),
}

/// How networks are built.
#[derive(Debug, Clone, PartialEq)]
pub struct NetPlan {
    /// Whether dropout layers drop anything in training.
    pub dropout: bool,
    /// Over which samples batch normalisation takes its statistics.
    pub batch_norm: Normalisation,
    /// Batches from which running statistics are made anew before each evaluation; 0 for never.
    pub recompute_statistics: u64,
}

impl RunPlan {
    /// Fills in every default for a run of `ranks` processes and refuses what cannot be done.
    pub fn resolve(config: RunConfig, ranks: usize) -> Result<Self> {
        let data = data(&config)?;
        let train = TrainPlan::resolve(&config, ranks)?;
        let net = NetPlan {
            dropout: config.net.dropout.unwrap_or(true),
            batch_norm: config.net.batch_norm.unwrap_or(Normalisation::Global),
            recompute_statistics: config.within(
                "net.recompute_statistics",
                config.net.recompute_statistics.unwrap_or(0),
                0..=STEPS,
            )?,
        };
        sampling_keys::refuse_large_batch(&config, data.sampling, train.batch_size)?;
        let MethodConfig { name: method, params: method_params } = config.method;
        Ok(Self { ranks, data, net, method, method_params, train })
    }

    /// The plan as a configuration; it resolves to this plan again.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(&self.written_out()).context(|| "cannot write the plan as TOML")
    }

    fn written_out(&self) -> RunConfig {
        let (mut data, data_sampling) = (DataConfig::default(), self.data.sampling);
        match &self.data.source {
            DataSource::Packed(path) => data.path = Some(path.clone()),
            DataSource::Phantom(phantom) => data.phantom = Some(phantom.written_out()),
            DataSource::LesionPhantom(phantom) => data.lesion_phantom = Some(phantom.written_out()),
            DataSource::GazePhantom(phantom) => data.gaze_phantom = Some(phantom.written_out()),
            DataSource::TwoModalityPhantom(phantom) => {
                data.two_modality_phantom = Some(phantom.written_out());
            }
        }
        RunConfig {
            data: DataConfig {
                fold: Some(self.data.fold),
                split: self.data.split,
                annotation: Some(self.data.annotation.clone()),
                size: sampling_keys::size(data_sampling),
                fit: sampling_keys::fit(data_sampling),
                patches: sampling_keys::patches(data_sampling),
                colour: Some(self.data.colour),
                augment: Some(self.data.augment),
                outside: Some(self.data.outside),
                drop_last: Some(self.data.drop_last),
                shapes: self.data.shapes.as_ref().map(ShapesPlan::written_out),
                preparation: self.data.preparation.clone(),
                ..data
            },
            net: NetConfig {
                dropout: Some(self.net.dropout),
                batch_norm: Some(self.net.batch_norm),
                recompute_statistics: Some(self.net.recompute_statistics),
            },
            method: MethodConfig { name: self.method.clone(), params: self.method_params.clone() },
            train: self.train.written_out(),
            source: super::Source::default(),
        }
    }

    /// What will happen in sentences, for the person who starts it.
    pub fn summary(&self) -> Vec<String> {
        let Self { ranks, data, train, .. } = self;
        let source = match &data.source {
            DataSource::Packed(path) => shown_path(path),
            DataSource::Phantom(phantom) => phantom.summary(),
            DataSource::LesionPhantom(phantom) => phantom.summary(),
            DataSource::GazePhantom(phantom) => phantom.summary(),
            DataSource::TwoModalityPhantom(phantom) => phantom.summary(),
        };
        let held_out = match data.fold {
            0 => "nothing held out".to_owned(),
            fold => match data.split {
                None => format!("fold {fold} held out"),
                Some(split) => format!("fold {fold} of split `{}` held out", split.name()),
            },
        };
        let parts = train.micro_batches;
        let in_parts = if parts == 1 { String::new() } else { format!(", in {parts} parts") };
        let share = |rank| local_share(train.batch_size, *ranks, rank).len();
        let (most, least) = (share(0), share(ranks - 1));
        let shares = if most == least { format!("{most}") } else { format!("{least} or {most}") };
        let ranks = counted(*ranks, "rank");
        let items = data.sampling.items();
        let saves = &train.save_every.0;
        let mut lines = vec![
            format!(
                "trains `{}` on annotation `{}` of {source}, {held_out}",
                shown::quoted(&self.method),
                shown::quoted(&data.annotation)
            ),
            format!(
                "{} steps of {} {items} of {} on {ranks}, {shares} {items} each{in_parts}",
                train.total_steps, train.batch_size, data.sampling
            ),
            format!(
                "logs every {} steps, evaluates every {}, saves every {saves} and keeps {}",
                train.log_every.0,
                train.evaluate_every.0,
                train.keeps()
            ),
        ];
        if let Some(shapes) = &data.shapes {
            lines.insert(1, shapes.summary());
        }
        lines
    }
}

fn shown_path(path: &Path) -> String {
    format!("`{}`", shown::quoted(&path.display().to_string()))
}

impl ShapesPlan {
    fn written_out(&self) -> ShapesConfig {
        let (path, phantom) = match &self.source {
            ShapesSource::Path(path) => (Some(path.clone()), None),
            ShapesSource::Phantom(phantom) => (None, Some(phantom.written_out())),
        };
        ShapesConfig {
            path,
            phantom,
            orientation: Some(self.orientation),
            allow_own: Some(self.allow_own),
        }
    }

    fn summary(&self) -> String {
        let source = match &self.source {
            ShapesSource::Path(path) => shown_path(path),
            ShapesSource::Phantom(phantom) => phantom.summary(),
        };
        let swapped = match self.orientation {
            Orientation::Corrected => "",
            Orientation::Released => ", rows and columns swapped",
        };
        format!("shows it unpaired masks of {source}{swapped}")
    }
}

/// What to train on: exactly one of several tables and keys.
fn source(config: &RunConfig) -> Result<DataSource> {
    let DataConfig { path, phantom, lesion_phantom, gaze_phantom, two_modality_phantom, .. } =
        &config.data;
    let given = [
        ("path", path.is_some()),
        ("phantom", phantom.is_some()),
        ("lesion_phantom", lesion_phantom.is_some()),
        ("gaze_phantom", gaze_phantom.is_some()),
        ("two_modality_phantom", two_modality_phantom.is_some()),
    ];
    let given: Vec<&str> =
        given.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect();
    if let [first, second, ..] = given[..] {
        let shown = |name: &str| match name {
            "path" => "`data.path`".to_owned(),
            table => format!("`[data.{table}]`"),
        };
        let message = format!("both {} and {} say what to train on", shown(first), shown(second));
        return Err(config.refuse(&format!("data.{first}"), message).hint("remove one of them"));
    }
    if let Some(path) = path {
        return Ok(DataSource::Packed(path.clone()));
    }
    if let Some(phantom) = phantom {
        return phantoms::phantom(config, "data.phantom", phantom).map(DataSource::Phantom);
    }
    if let Some(phantom) = lesion_phantom {
        return phantoms::lesion_phantom(config, phantom).map(DataSource::LesionPhantom);
    }
    if let Some(phantom) = gaze_phantom {
        return phantoms::gaze_phantom(config, phantom).map(DataSource::GazePhantom);
    }
    if let Some(phantom) = two_modality_phantom {
        return phantoms::two_modality_phantom(config, phantom).map(DataSource::TwoModalityPhantom);
    }
    Err(config
        .refuse("data", "neither `data.path` nor `[data.phantom]` says what to train on")
        .hint("pack a data set with `scrimp prepare` and add `path = \"FILE\"` to `[data]`"))
}

fn data(config: &RunConfig) -> Result<DataPlan> {
    let written = &config.data;
    let source = source(config)?;
    let sampling = sampling_keys::sampling(config)?;
    let shapes = written.shapes.as_ref();
    let shapes = shapes.map(|shapes| self::shapes(config, shapes, &source)).transpose()?;
    if let Some(preparation) = &written.preparation {
        preparation.check().map_err(|failure| {
            failure.exit_with(Exit::Usage).at(config.place("data.preparation"))
        })?;
    }
    refuse_dense_split(config)?;
    Ok(DataPlan {
        source,
        shapes,
        preparation: written.preparation.clone(),
        fold: written.fold.unwrap_or(1),
        split: written.split,
        annotation: written.annotation().to_owned(),
        sampling,
        colour: written.colour.unwrap_or(Colour::AsStored),
        augment: written.augment.unwrap_or(Resample::Reference),
        outside: written.outside.unwrap_or(Outside::Unknown),
        drop_last: written.drop_last.unwrap_or(false),
    })
}

/// What is held out of a published split has dense labels alone, which is how one sees that nobody may learn from it. A
/// split without cases to validate with has one fold that nobody learns from in any case.
fn refuse_dense_split(config: &RunConfig) -> Result<()> {
    let annotation = config.data.annotation();
    if config.data.split != Some(Split::Dmsps) || annotation != DENSE {
        return Ok(());
    }
    let message = format!(
        "`data.split` holds out two folds, and a run that learns from `{annotation}` would train on one of them"
    );
    Err(config
        .refuse("data.split", message)
        .hint("remove it, and hold out one fold of the packed file"))
}

fn shapes(config: &RunConfig, written: &ShapesConfig, target: &DataSource) -> Result<ShapesPlan> {
    let source = match (&written.path, &written.phantom) {
        (Some(path), None) => ShapesSource::Path(path.clone()),
        (None, Some(phantom)) => {
            ShapesSource::Phantom(phantoms::phantom(config, "data.shapes.phantom", phantom)?)
        }
        (Some(_), Some(_)) => {
            let message = "both `data.shapes.path` and `[data.shapes.phantom]` say where masks are";
            return Err(config.refuse("data.shapes.path", message).hint("remove one of them"));
        }
        (None, None) => {
            let message =
                "neither `data.shapes.path` nor `[data.shapes.phantom]` says where masks are";
            return Err(config.refuse("data.shapes", message).hint(
                "add `path = \"DIR\"`, a folder of NIfTI label volumes, to `[data.shapes]`",
            ));
        }
    };
    let allow_own = written.allow_own.unwrap_or(false);
    if let (ShapesSource::Phantom(shapes), DataSource::Phantom(target)) = (&source, target)
        && shapes.seed == target.seed
        && !allow_own
    {
        let (key, seed) = ("data.shapes.phantom", target.seed);
        let message = format!("masks and training data are the same phantom, both of seed {seed}");
        return Err(config
            .refuse(key, message)
            .hint("give the masks another one, for example `--set data.shapes.phantom.seed=7`")
            .hint("or set `data.shapes.allow_own = true` to show a run its own truth"));
    }
    let orientation = written.orientation.unwrap_or(Orientation::Corrected);
    Ok(ShapesPlan { source, orientation, allow_own })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const LEAST: &str =
        "[data]\npath = \"a.h5\"\n[method]\nname = \"partial-ce\"\n[train]\ntotal_steps = 5\n";

    fn resolve(text: &str, ranks: usize) -> Result<RunPlan> {
        RunPlan::resolve(parse(text, "a.toml", &[])?, ranks)
    }

    #[test]
    fn a_plan_written_out_resolves_to_itself() {
        let phantom = LEAST.replace("path = \"a.h5\"", "[data.phantom]\nslices = 3");
        let params =
            "[method.params.learner]\nlr = 0.03\noptimizer = { sgd = { momentum = 0.9 } }\n";
        let masks = format!("{LEAST}[data.shapes]\npath = \"masks\"\norientation = \"released\"\n");
        let drawn = format!("{LEAST}[data.shapes.phantom]\nseed = 4\n");
        let lesions = LEAST.replace("path = \"a.h5\"", "[data.lesion_phantom]\ntest = 0");
        let fixed = "{ fixed = { low = -160.0, high = 0.1, mean = 3e-7, deviation = 0.3 } }";
        let prepared = format!(
            "{LEAST}[data.preparation]\ncrop = \"nonzero\"\nspacing = {{ in_plane = [0.7, 1.1] }}\n\
             channels = [{{ name = \"ct\", intensities = {fixed} }}, \
             {{ name = \"t1\", intensities = {{ z_score = {{ over = \"all\" }} }} }}]\n"
        );
        let learner = format!("{LEAST}{params}");
        for text in [LEAST.to_owned(), phantom, lesions, learner, masks, drawn, prepared] {
            let plan = resolve(&text, 2).unwrap();
            let again = resolve(&plan.to_toml().unwrap(), 2).unwrap();
            assert_eq!(again, plan);
        }
    }

    #[test]
    fn preparations_that_cannot_be_are_refused_with_their_place() {
        let refused = |text: &str| {
            resolve(&format!("{LEAST}[data.preparation]\n{text}"), 1).unwrap_err().to_string()
        };
        insta::assert_snapshot!(refused("channels = []\n"), @r"
        error: expected 1 to 64 channels, found 0
          --> a.toml:7:7
          |
        7 | [data.preparation]
          |       ^^^^^^^^^^^
        ");
        insta::assert_snapshot!(refused("channels = [{ name = \"a\", intensities = \"most\" }]\n"), @r#"
        error: `data.preparation.channels` is `most`, expected one of `as_stored`, `scaled`, `eight_bit`, `published`, `robust`, `window`, `published_brats`, `z_score`, `fixed`
          --> a.toml:8:12
          |
        8 | channels = [{ name = "a", intensities = "most" }]
          |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        "#);
        insta::assert_snapshot!(refused("crop = true\nchannels = []\n"), @r"
        error: `data.preparation.crop`: wanted string or table
          --> a.toml:8:8
          |
        8 | crop = true
          |        ^^^^
        ");
        insta::assert_snapshot!(refused("chanels = []\n"), @r"
        error: unknown key `data.preparation.chanels`
          --> a.toml:8:1
          |
        8 | chanels = []
          | ^^^^^^^

        hint: did you mean `channels`?
        ");
    }

    #[test]
    fn a_plan_written_out_holds_every_key() {
        insta::assert_snapshot!(resolve(LEAST, 1).unwrap().to_toml().unwrap(), @r#"
        [data]
        path = "a.h5"
        fold = 1
        annotation = "scribble"
        size = 256
        fit = "resize"
        colour = "as_stored"
        augment = "reference"
        outside = "unknown"
        drop_last = false

        [net]
        dropout = true
        batch_norm = "global"
        recompute_statistics = 0

        [method]
        name = "partial-ce"

        [method.params]

        [train]
        total_steps = 5
        batch_size = 12
        micro_batches = 1
        seed = 2022
        precision = "fp32"
        log_every = 10
        evaluate_every = 200
        save_every = 1000
        keep_checkpoints = 2
        keep_best = 1
        keep_every = 0
        threads = 0
        device = "auto"
        time_limit = "none"
        hang_limit = "30s"
        on_non_finite = "stop"
        shard_optimizer = false
        graph = "auto"
        "#);
    }

    #[test]
    fn a_lesion_phantom_has_defaults_and_is_the_only_source() {
        let text = LEAST.replace("path = \"a.h5\"", "[data.lesion_phantom]\nhealthy = 7");
        let plan = resolve(&text, 1).unwrap();
        let expected = LesionPhantomPlan {
            cases: 200,
            healthy: 7,
            validation: 32,
            test: 32,
            size: 64,
            seed: 1,
        };
        assert_eq!(plan.data.source, DataSource::LesionPhantom(expected));
        let summary = plan.summary().remove(0);
        assert!(summary.contains("a lesion phantom of 200 diseased and 7 healthy"), "{summary}");
        let also = |other: &str| resolve(&text.replace("[data]", other), 1).unwrap_err();
        insta::assert_snapshot!(also("[data]\npath = \"a.h5\""), @r#"
        error: both `data.path` and `[data.lesion_phantom]` say what to train on
          --> a.toml:2:8
          |
        2 | path = "a.h5"
          |        ^^^^^^

        hint: remove one of them
        "#);
        insta::assert_snapshot!(also("[data.phantom]").message(), @"both `[data.phantom]` and `[data.lesion_phantom]` say what to train on");
        let none = text.replace("healthy = 7", "validation = 0");
        insta::assert_snapshot!(resolve(&none, 1).unwrap_err().message(), @"`data.lesion_phantom.validation` is 0, expected 1 to 65536");
    }

    #[test]
    fn says_what_will_happen() {
        let summary = |text: &str, ranks| resolve(text, ranks).unwrap().summary().join("\n");
        insta::assert_snapshot!(summary(LEAST, 5), @r"
        trains `partial-ce` on annotation `scribble` of `a.h5`, fold 1 held out
        5 steps of 12 slices of 256 x 256 on 5 ranks, 2 or 3 slices each
        logs every 10 steps, evaluates every 200, saves every 1000 and keeps the best and the last 2
        ");
        let parts = summary(&format!("{LEAST}micro_batches = 3\n"), 2);
        let expected = "5 steps of 12 slices of 256 x 256 on 2 ranks, 6 slices each, in 3 parts";
        assert_eq!(parts.lines().nth(1), Some(expected));
        let masks = "[data.shapes]\norientation = \"released\"\npath = \"masks\"\n";
        let lines = summary(&format!("{LEAST}{masks}"), 1);
        assert_eq!(
            lines.lines().nth(1),
            Some("shows it unpaired masks of `masks`, rows and columns swapped")
        );
    }

    #[test]
    fn a_published_split_stands_in_the_plan_and_is_not_for_dense_labels() {
        let text = LEAST.replace("[method]", "split = \"dmsps\"\n[method]");
        let plan = resolve(&text, 1).unwrap();
        let summary = plan.summary().remove(0);
        assert!(summary.ends_with("fold 1 of split `dmsps` held out"), "{summary}");
        assert_eq!(resolve(&plan.to_toml().unwrap(), 1).unwrap(), plan);
        let dense = text.replace("split", "annotation = \"dense\"\nsplit");
        insta::assert_snapshot!(resolve(&dense, 1).unwrap_err(), @r#"
        error: `data.split` holds out two folds, and a run that learns from `dense` would train on one of them
          --> a.toml:4:9
          |
        4 | split = "dmsps"
          |         ^^^^^^^

        hint: remove it, and hold out one fold of the packed file
        "#);
    }

    #[test]
    fn dense_labels_are_learnt_from_beside_a_published_test_set() {
        let keys = "annotation = \"dense\"\nfold = 2\nsplit = \"scribblebench\"\n[method]";
        let plan = resolve(&LEAST.replace("[method]", keys), 1).unwrap();
        let summary = plan.summary().remove(0);
        assert!(summary.ends_with("fold 2 of split `scribblebench` held out"), "{summary}");
        assert_eq!(resolve(&plan.to_toml().unwrap(), 1).unwrap(), plan);
    }

    #[test]
    fn shapes_are_no_training_data_of_the_run() {
        let text = LEAST.replace("path = \"a.h5\"", "[data.phantom]\nseed = 3");
        let text = format!("{text}[data.shapes.phantom]\nseed = 3\n");
        insta::assert_snapshot!(resolve(&text, 1).unwrap_err(), @r"
        error: masks and training data are the same phantom, both of seed 3
          --> a.toml:8:14
          |
        8 | [data.shapes.phantom]
          |              ^^^^^^^

        hint: give the masks another one, for example `--set data.shapes.phantom.seed=7`
        hint: or set `data.shapes.allow_own = true` to show a run its own truth
        ");
        let allowed = text.replace(
            "[data.shapes.phantom]",
            "[data.shapes]\nallow_own = true\n[data.shapes.phantom]",
        );
        assert!(resolve(&allowed, 1).unwrap().data.shapes.unwrap().allow_own);
        let other = text.replace("shapes.phantom]\nseed = 3", "shapes.phantom]\nseed = 4");
        assert!(resolve(&other, 1).is_ok());
    }
}
