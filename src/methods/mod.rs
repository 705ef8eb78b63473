//! The list of all methods, and what a method file states about itself.
//!
//! A new method is one file beside this one, one line in [`METHODS`], and one configuration. Method
//! files know neither ranks nor files nor each other.

pub mod cltn;
pub mod cmc;
pub mod cyclemix;
pub mod dmpls;
pub mod dmsps;
pub mod gazesup;
pub mod maskmixadv;
pub mod partial_ce;
mod puzzle;
pub mod scribble2label;
pub mod ustm;

use crate::config::RunConfig;
use crate::config::sampling::{Fit, Sampling};
use crate::data::samples::Samples;
use crate::data::stream::{self, StreamSpec};
use crate::data::{GAZE, IGNORE, IMAGE_LABEL};
use crate::error::{Context, Failure, Result};
use crate::losses::looked_for::merged_logits;
use crate::losses::{partial_cross_entropy, partial_cross_entropy_over};
use crate::native::cuda::upload;
use crate::native::{Alone, GroupSum, with_slice_mut};
use crate::nets::{LayerKeys, Pass};
use crate::random::Key;
use crate::train::learner::LearnerSetup;
use crate::train::point::StepPoint;
use crate::train::{Drawing, ForwardMode, Method, StepContext};
use serde::{Serialize, de::DeserializeOwned};
use std::rc::Rc;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Every method, in the order in which `scrimp methods` lists them.
pub static METHODS: &[MethodDef] = &[
    define::<partial_ce::PartialCe>(),
    define::<scribble2label::Scribble2Label>(),
    define::<ustm::Ustm>(),
    define::<dmpls::Dmpls>(),
    define::<dmsps::Dmsps>(),
    define::<maskmixadv::MaskMixAdv>(),
    define::<cyclemix::CycleMix>(),
    define::<cltn::Cltn>(),
    define::<gazesup::GazeSup>(),
    define::<cmc::Cmc>(),
];

/// What a method is built from, beside its own parameters.
pub struct Setup {
    /// For its learners.
    pub learner: LearnerSetup,
    /// The number of classes, with the background.
    pub classes: i64,
    /// Channels of an image: 1 for grey, 3 for colour.
    pub channels: i64,
    /// How its networks run in training.
    pub passes: Passes,
    /// Rows and columns of every slice that is trained on, as stored.
    pub slices: Vec<[usize; 2]>,
    /// Slices, rows and columns of every sample; 1 slice where samples are images.
    pub sample: [usize; 3],
    /// How far apart the voxels of samples lie, where all have the same spacing and it is known.
    pub spacing_mm: Option<[f64; 3]>,
    /// What values of annotation `gaze` stand for: above `i` where the map of gaze is at least `levels[i]`. Ascending;
    /// none where the data set has no gaze, and where nothing is trained.
    pub levels: Vec<f64>,
}

/// How networks run in training: the same for all networks of a run.
#[derive(Clone)]
pub struct Passes {
    dropout: bool,
    statistics: Arc<dyn GroupSum>,
}

impl Passes {
    /// With dropout or without; batch statistics over the ranks of a group, or of this rank alone.
    pub fn new(dropout: bool, statistics: Option<Arc<dyn GroupSum>>) -> Self {
        Self { dropout, statistics: statistics.unwrap_or_else(|| Arc::new(Alone)) }
    }

    /// One training pass over the samples; passes of different purpose drop different elements.
    pub fn train(&self, purpose: &str, samples: &Samples, cx: &StepContext<'_>) -> Pass {
        let (purpose, positions) = (purpose.to_owned(), samples.positions.clone());
        self.train_with(samples, cx, move |point| point.sample_keys(&purpose, &positions))
    }

    /// The same over samples that are there `times` times, one repetition after the other: each
    /// drops different elements.
    pub fn train_repeated(
        &self,
        (purpose, times): (&str, u64),
        samples: &Samples,
        cx: &StepContext<'_>,
    ) -> Pass {
        let (purpose, positions) = (purpose.to_owned(), samples.positions.clone());
        self.train_with(samples, cx, move |point| {
            let keys = point.sample_keys(&purpose, &positions);
            let repetition = |number| keys.iter().map(move |key| key.number(number));
            (0..times).flat_map(repetition).collect()
        })
    }

    fn train_with(
        &self,
        samples: &Samples,
        cx: &StepContext<'_>,
        of_samples: impl Fn(&StepPoint) -> Vec<Key> + 'static,
    ) -> Pass {
        let of_samples = Rc::new(of_samples);
        let (numbers, device) = (Rc::clone(cx.numbers()), samples.image.device());
        let keys: LayerKeys = Rc::new(move |layer: &str| {
            let (of_samples, layer) = (Rc::clone(&of_samples), layer.to_owned());
            numbers.keys(device, move |point| {
                of_samples(point).into_iter().map(|key| key.purpose(&layer)).collect()
            })
        });
        let keys = self.dropout.then_some(keys);
        Pass::Train { group: Arc::clone(&self.statistics), keys, moves: 1 }
    }

    /// One training pass in which every rank normalises its samples alone; one key for each sample.
    pub fn train_alone(&self, keys: Vec<Key>, device: Device) -> Pass {
        let keys: LayerKeys = Rc::new(move |layer: &str| {
            let bits = keys.iter().map(|key| key.purpose(layer).bits().cast_signed());
            upload(&Tensor::from_slice(&bits.collect::<Vec<_>>()), device)
        });
        Pass::Train { group: Arc::new(Alone), keys: self.dropout.then_some(keys), moves: 1 }
    }

    /// A pass outside of training.
    pub fn of(&self, mode: ForwardMode) -> Pass {
        match mode {
            ForwardMode::Evaluation => Pass::Evaluate,
            ForwardMode::Statistics { share } => {
                Pass::Statistics { group: Arc::clone(&self.statistics), share }
            }
        }
    }
}

/// Class probabilities of logits, with classes along the second axis.
fn probabilities(logits: &Tensor) -> Tensor {
    logits.softmax(1, logits.kind())
}

/// Labels `[N, H, W]` after `clean` has changed each slice on the host, given with its number of columns.
fn cleaned(labels: &Tensor, clean: impl Fn(&mut [u8], usize)) -> Result<Tensor> {
    let size = labels.size();
    let (pixels, columns) = ((size[1] * size[2]) as usize, size[2] as usize);
    let host = labels.to_kind(Kind::Uint8).to_device(Device::Cpu).contiguous();
    with_slice_mut(&host, |all: &mut [u8]| {
        all.chunks_exact_mut(pixels).for_each(|slice| clean(slice, columns));
    })?;
    Ok(host.to_device(labels.device()).to_kind(Kind::Int64))
}

/// Cross-entropy over the annotated pixels of the global batch, in however many micro-batches it comes; 0 where
/// there are none.
///
/// `logits` is `[N, C, ...]` of the main samples of a batch, with all classes; those that nobody looked for in a sample
/// are background in it. Labels that a method makes are counted in each micro-batch by itself.
fn annotated_cross_entropy(logits: &Tensor, samples: &Samples, cx: &StepContext<'_>) -> Tensor {
    let (annotation, group) = (&samples.annotation, cx.group());
    let logits = merged_logits(logits, samples.looked_for.as_ref());
    match cx.annotated_pixels() {
        None => partial_cross_entropy(&logits, annotation, group),
        Some(pixels) => cx.summand(partial_cross_entropy_over(&logits, annotation, pixels, group)),
    }
}

/// What there is to see of mixed samples: images `[N, C, H, W]`, the share in every pixel of the first of
/// those that they are made of, `[1 or N, 1, H, W]`, and the shares of the classes, `[N, classes, H, W]`, of
/// which the largest is shown.
fn drawings_of_mix(
    image: &Tensor,
    share: &Tensor,
    target: &Tensor,
) -> Vec<(&'static str, Drawing)> {
    let size = image.size();
    let share = share.expand([size[0], 1, size[2], size[3]], false);
    let is_known = target.sum_dim_intlist([1i64].as_slice(), false, target.kind()).gt(0.0);
    let classes = target.argmax(1, false).where_scalarother(&is_known, i64::from(IGNORE));
    vec![
        ("mixed", Drawing::Intensities(image.shallow_clone())),
        ("label", Drawing::Classes(classes)),
        ("mask", Drawing::Shares(share)),
    ]
}

/// `share` times the first plus the rest of the second, without gradient: `[N, C, ...]` of what each of two decoders
/// predicts.
pub fn weighted_mean(probabilities: &[Tensor; 2], share: &Tensor) -> Tensor {
    let [main, auxiliary] = probabilities.each_ref().map(Tensor::detach);
    main * share + auxiliary * (1.0 - share)
}

/// For each level of features with so many channels, those that a decoder sees: `[N, C]` of 0 and 1, every
/// second one on average, drawn for each sample.
fn channels_seen(channels: &[i64], samples: &Samples, cx: &StepContext<'_>) -> Vec<Tensor> {
    let (numbers, device) = (cx.numbers(), samples.image.device());
    let of_level = |(level, &channels): (usize, &i64)| {
        let positions = samples.positions.clone();
        let kept = numbers.numbers(device, move |point| {
            let keys = point.sample_keys("channels", &positions);
            keys.iter().flat_map(|key| kept_channels(key.number(level as u64), channels)).collect()
        });
        kept.view([-1, channels])
    };
    channels.iter().enumerate().map(of_level).collect()
}

/// Every second channel on average: 0 or 1 for each.
fn kept_channels(key: Key, channels: i64) -> impl Iterator<Item = f64> {
    let mut draws = key.draws();
    (0..channels).map(move |_| draws.below(2) as f64)
}

/// What a configuration asks a method to learn from.
pub struct Asked<'a> {
    /// The kind of annotation.
    pub annotation: &'a str,
    /// How samples are cut from scans.
    pub sampling: Sampling,
    /// Whether a step is cut into micro-batches.
    pub in_micro_batches: bool,
}

/// What a method file states about itself; `define` turns it into a table entry.
pub trait Recipe: Method + Sized + 'static {
    /// The name in `method.name`, in kebab case.
    const NAME: &'static str;
    /// One line for `scrimp methods`.
    const SUMMARY: &'static str;
    /// Where it was published.
    const PAPER: &'static str;
    /// What stands in its batches beside what. The first are its main samples; for masks of other
    /// patients `[data.shapes]` must name them.
    const STREAMS: &'static [StreamSpec] = stream::ANNOTATED;
    /// Whether it learns from patches too, and not from whole slices alone.
    const IN_PATCHES: bool = true;
    /// Whether a step may be cut into micro-batches: not where one learner learns from what another has
    /// become in the same step, which it becomes with the last of them, nor where a sample meets any other of the step.
    const IN_MICRO_BATCHES: bool = true;
    /// Whether it learns from levels of gaze; these are no classes, so that others must not take them for such.
    const FROM_GAZE: bool = false;
    /// Whether it learns from volumes too, not from images alone.
    const IN_VOLUMES: bool = false;
    /// `[method.params]`; refuses unknown keys, and numbers outside of what `train::numbers` says.
    type Params: DeserializeOwned + Serialize;
    /// Refuses parameters that contradict each other or the data that they are asked to learn from.
    fn refuse(_params: &Self::Params, _asked: &Asked<'_>) -> Result<()> {
        Ok(())
    }
    /// Refuses images of so many rows or columns as its networks cannot take; without more, others than
    /// multiples of 16.
    fn refuse_size(_params: &Self::Params, size: usize) -> Result<()> {
        refuse_side(Self::NAME, size, 0)
    }
    /// Refuses images of so many channels: 1 for grey, 3 for colour.
    fn refuse_images(_params: &Self::Params, _channels: usize) -> Result<()> {
        Ok(())
    }
    /// Refuses data in which somebody left out classes in some cases, without more any such. Whoever takes them compares
    /// annotation with what [`losses::looked_for`](crate::losses::looked_for) makes of predictions.
    fn refuse_lacking_classes(_params: &Self::Params) -> Result<()> {
        let message = format!(
            "`{}` takes all that is background for background, and in some cases of these data not all classes were \
             looked for",
            Self::NAME
        );
        Err(Failure::usage(message)
            .hint("use a method that learns around such classes, for example `partial-ce`")
            .hint("or pack the cases alone in which all classes were looked for"))
    }
    /// Networks and learners, equal on every rank, from parameters that were not refused.
    fn build(params: Self::Params, setup: &Setup) -> Result<Self>;
}

/// A method in the list.
pub struct MethodDef {
    /// The name in `method.name`.
    pub name: &'static str,
    /// One line about it.
    pub summary: &'static str,
    /// Where it was published.
    pub paper: &'static str,
    /// What stands in its batches beside what.
    pub streams: &'static [StreamSpec],
    /// Whether a step may be cut into micro-batches.
    pub in_micro_batches: bool,
    /// Reads `[method.params]`, refuses mistakes with their line, and fills in every default; refuses
    /// a configuration that lacks what the method learns from.
    pub check: fn(&RunConfig) -> Result<toml::Table>,
    /// Refuses images of so many channels, given the table that `check` returned.
    pub refuse_images: fn(&toml::Table, usize) -> Result<()>,
    /// Refuses data in which not all classes were looked for in all cases, given the table that `check` returned.
    pub refuse_lacking_classes: fn(&toml::Table) -> Result<()>,
    /// Builds the method from the table that `check` returned.
    pub build: fn(&toml::Table, &Setup) -> Result<Box<dyn Method>>,
}

const fn define<R: Recipe>() -> MethodDef {
    MethodDef {
        name: R::NAME,
        summary: R::SUMMARY,
        paper: R::PAPER,
        streams: R::STREAMS,
        in_micro_batches: R::IN_MICRO_BATCHES,
        check: check::<R>,
        refuse_images: |params, channels| R::refuse_images(&read::<R>(params)?, channels),
        refuse_lacking_classes: |params| R::refuse_lacking_classes(&read::<R>(params)?),
        build: |params, setup| {
            let params = read::<R>(params)?;
            R::refuse_images(&params, setup.channels as usize)?;
            refuse_volumes::<R>(setup.sample)?;
            Ok(Box::new(R::build(params, setup)?))
        },
    }
}

/// Refuses samples of several slices where a method learns from images alone.
fn refuse_volumes<R: Recipe>([slices, ..]: [usize; 3]) -> Result<()> {
    if slices == 1 || R::IN_VOLUMES {
        return Ok(());
    }
    let message =
        format!("`{}` learns from images, and these samples have {slices} slices", R::NAME);
    Err(Failure::usage(message)
        .hint("cut samples of one slice, or use `partial-ce`, which learns from volumes too"))
}

/// Refuses so many rows or columns for the images of the method `name`: others than `rest`, below 16, more than a
/// multiple of 16.
fn refuse_side(name: &str, side: usize, rest: usize) -> Result<()> {
    let more = (side + 16 - rest) % 16;
    if side > 0 && more == 0 {
        return Ok(());
    }
    let down = if side > more { side - more } else { side + 16 - more };
    let more = if rest == 0 { String::new() } else { format!("{rest} more than ") };
    let message = format!(
        "images have {side} rows or columns, and `{name}` takes {more}a multiple of 16 of them"
    );
    Err(Failure::usage(message).hint(format!("the nearest are {down} and {}", down + 16)))
}

/// Refuses images of a size that the networks of a method cannot take; of volumes a method says it itself.
fn refuse_sizes<R: Recipe>(config: &RunConfig, params: &R::Params) -> Result<()> {
    let sampling = config.data.sampling();
    if sampling.dims() == 3 {
        return Ok(());
    }
    let key = if config.data.patches.is_some() { "data.patches.extent" } else { "data.size" };
    let mut sides = sampling.extent().into_iter().skip(1);
    sides
        .try_for_each(|side| R::refuse_size(params, side))
        .map_err(|failure| failure.at(config.place(key)))
}

/// The parameters in a table that [`check`] returned.
fn read<R: Recipe>(params: &toml::Table) -> Result<R::Params> {
    params.clone().try_into().context(|| format!("cannot read the parameters of `{}`", R::NAME))
}

fn check<R: Recipe>(config: &RunConfig) -> Result<toml::Table> {
    if stream::by_masks(R::STREAMS) && config.data.shapes.is_none() {
        return Err(refuse_without_shapes(config, R::NAME));
    }
    let annotation = config.data.annotation();
    if annotation == IMAGE_LABEL && !stream::by_image_label(R::STREAMS) {
        return Err(refuse_image_label(config, R::NAME));
    }
    if annotation == GAZE && !R::FROM_GAZE {
        return Err(refuse_gaze(config, R::NAME));
    }
    let in_micro_batches = config.train.micro_batches.is_some_and(|count| count > 1);
    if !R::IN_MICRO_BATCHES && in_micro_batches {
        return Err(refuse_micro_batches(config, R::NAME));
    }
    if !R::IN_PATCHES && config.data.patches.is_some() {
        return Err(refuse_patches(config, R::NAME));
    }
    if stream::by_image_label(R::STREAMS) && config.data.fit == Some(Fit::Crop) {
        return Err(refuse_crops(config, R::NAME));
    }
    refuse_volumes::<R>(config.data.sampling().extent())
        .map_err(|failure| failure.at(config.place("data.patches")))?;
    let params: R::Params = config.method_params()?;
    let asked = Asked { annotation, sampling: config.data.sampling(), in_micro_batches };
    refuse_sizes::<R>(config, &params)?;
    R::refuse(&params, &asked).map_err(|failure| failure.at(config.place("method.params")))?;
    toml::Table::try_from(params).context(|| format!("cannot write out `{}`", R::NAME))
}

fn refuse_image_label(config: &RunConfig, name: &str) -> Failure {
    let message = format!(
        "`{name}` learns where things are, and `{IMAGE_LABEL}` only says that there are some"
    );
    config.refuse("data.annotation", message).hint(
        "`cltn` learns from such labels; `scrimp prepare pseudo-labels --help` says what to do with its masks",
    )
}

fn refuse_gaze(config: &RunConfig, name: &str) -> Failure {
    let message =
        format!("`{name}` learns from classes, and `{GAZE}` says how much somebody looked");
    config.refuse("data.annotation", message).hint("`gazesup` learns from levels of gaze")
}

fn refuse_patches(config: &RunConfig, name: &str) -> Failure {
    let message = format!("`{name}` learns from whole slices, and `[data.patches]` are parts");
    config.refuse("data.patches", message).hint(
        "remove `[data.patches]`; `data.size` says to how many rows and columns slices are resized",
    )
}

fn refuse_crops(config: &RunConfig, name: &str) -> Failure {
    let message = format!("`{name}` resizes whole images, and `data.fit` asks for crops of them");
    config.refuse("data.fit", message).hint("remove `data.fit`")
}

fn refuse_micro_batches(config: &RunConfig, name: &str) -> Failure {
    let message = format!(
        "`{name}` takes no micro-batches: a part of a step needs what its other parts have or have changed"
    );
    config.refuse("train.micro_batches", message).hint(
        "use `--set train.micro_batches=1` with a smaller `train.batch_size`, or more processes",
    )
}

fn refuse_without_shapes(config: &RunConfig, name: &str) -> Failure {
    let message =
        format!("`{name}` learns from masks of other patients, and `[data.shapes]` is missing");
    config
        .refuse("method.name", message)
        .hint("name a folder of NIfTI masks or a packed file: `--set data.shapes.path=PATH`")
}

/// The method of this name, or a failure that lists all.
pub fn find(name: &str) -> Result<&'static MethodDef> {
    METHODS.iter().find(|method| method.name == name).ok_or_else(|| {
        let names: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
        Failure::usage(format!("unknown method `{name}`, expected one of `{}`", names.join("`, `")))
            .hint("`scrimp methods` says what each does")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::data::batch::Batch;
    use crate::train::learner::Learner;
    use tch::Kind;

    /// A method that learns from masks and does nothing.
    struct Shaped;

    impl Recipe for Shaped {
        const NAME: &'static str = "shaped";
        const SUMMARY: &'static str = "nothing";
        const PAPER: &'static str = "none";
        const STREAMS: &'static [StreamSpec] =
            &[StreamSpec::new(stream::SHAPES, stream::Select::OtherPatients)];
        type Params = toml::Table;
        fn build(_params: toml::Table, _setup: &Setup) -> Result<Self> {
            Ok(Self)
        }
    }

    impl Method for Shaped {
        fn step(&mut self, _batch: &Batch, _cx: &mut StepContext<'_>) -> Result<()> {
            Ok(())
        }
        fn forward(&self, image: &Tensor, _mode: ForwardMode) -> Result<Tensor> {
            Ok(image.shallow_clone())
        }
        fn learners(&self) -> Vec<&Learner> {
            Vec::new()
        }
    }

    #[test]
    fn a_method_that_learns_from_masks_is_refused_without_them() {
        let text = "[method]\nname = \"shaped\"\n[train]\ntotal_steps = 1\n[data]\n";
        let check = |overrides: &[String]| {
            (define::<Shaped>().check)(&parse(text, "a.toml", overrides).unwrap())
        };
        insta::assert_snapshot!(check(&[]).unwrap_err(), @r#"
        error: `shaped` learns from masks of other patients, and `[data.shapes]` is missing
          --> a.toml:2:8
          |
        2 | name = "shaped"
          |        ^^^^^^^^

        hint: name a folder of NIfTI masks or a packed file: `--set data.shapes.path=PATH`
        "#);
        assert!(check(&["data.shapes.path=masks".into()]).is_ok());
        assert!(stream::by_masks(define::<Shaped>().streams));
    }

    #[test]
    fn what_is_seen_of_a_mix_is_its_image_its_largest_label_and_its_mask() {
        let wave = |size: &[i64]| {
            let count = size.iter().product::<i64>();
            (Tensor::arange(count, (Kind::Double, Device::Cpu)) * 0.7).sin().square().view(size)
        };
        let target = wave(&[2, 3, 4, 5]);
        let unknown = Tensor::zeros([2, 1, 4, 5], (Kind::Bool, Device::Cpu));
        let _ = unknown.get(1).get(0).get(2).fill_(1);
        let target = target.masked_fill(&unknown, 0.0);
        let drawings = drawings_of_mix(&wave(&[2, 1, 4, 5]), &wave(&[1, 1, 4, 5]), &target);
        let [
            ("mixed", Drawing::Intensities(image)),
            ("label", Drawing::Classes(label)),
            ("mask", Drawing::Shares(mask)),
        ] = &drawings[..]
        else {
            panic!("{drawings:?}");
        };
        assert!(image.equal(&wave(&[2, 1, 4, 5])));
        assert_eq!((mask.size(), label.size()), (vec![2, 1, 4, 5], vec![2, 4, 5]));
        let expected = target.argmax(1, false).masked_fill(&unknown.squeeze_dim(1), 255);
        assert!(label.equal(&expected) && expected.ne(255).any().int64_value(&[]) == 1);
    }

    #[test]
    fn sizes_that_networks_cannot_take_are_refused_where_they_are_written() {
        let text = "[method]\nname = \"shaped\"\n[train]\ntotal_steps = 1\n[data]\n\
                    shapes = { path = \"masks\" }\n";
        let check = |more: &str| {
            let config = parse(&format!("{text}{more}\n"), "a.toml", &[]).unwrap();
            (define::<Shaped>().check)(&config)
        };
        insta::assert_snapshot!(check("size = 40").unwrap_err(), @r"
        error: images have 40 rows or columns, and `shaped` takes a multiple of 16 of them
          --> a.toml:7:8
          |
        7 | size = 40
          |        ^^

        hint: the nearest are 32 and 48
        ");
        insta::assert_snapshot!(check("patches = { extent = [1, 32, 7] }").unwrap_err(), @r"
        error: images have 7 rows or columns, and `shaped` takes a multiple of 16 of them
          --> a.toml:7:22
          |
        7 | patches = { extent = [1, 32, 7] }
          |                      ^^^^^^^^^^

        hint: the nearest are 16 and 32
        ");
        assert!(check("size = 48\nfit = \"crop\"").is_ok());
        insta::assert_snapshot!(refuse_side("valid", 210, 4).unwrap_err(), @r"
        error: images have 210 rows or columns, and `valid` takes 4 more than a multiple of 16 of them

        hint: the nearest are 196 and 212
        ");
        assert!(refuse_side("valid", 212, 4).is_ok() && refuse_side("valid", 4, 4).is_ok());
        assert!(refuse_side("valid", 0, 0).is_err());
    }

    #[test]
    fn volumes_are_refused_by_methods_of_images() {
        assert!(refuse_volumes::<Shaped>([1, 64, 64]).is_ok());
        assert!(refuse_volumes::<partial_ce::PartialCe>([8, 64, 64]).is_ok());
        let text = "[method]\nname = \"shaped\"\n[train]\ntotal_steps = 1\n[data]\n\
                    shapes = { path = \"masks\" }\npatches = { extent = [8, 64, 64] }\n";
        let config = parse(text, "a.toml", &[]).unwrap();
        let refused = (define::<Shaped>().check)(&config).unwrap_err().to_string();
        assert!(refused.contains("these samples have 8 slices") && refused.contains("a.toml:7"));
        insta::assert_snapshot!(refuse_volumes::<Shaped>([8, 64, 64]).unwrap_err(), @r"
        error: `shaped` learns from images, and these samples have 8 slices

        hint: cut samples of one slice, or use `partial-ce`, which learns from volumes too
        ");
    }
}
