//! From a plan to the parts of a run: data, device, method, trainer.
//!
//! Shared by the commands that build a method; the only place where all layers meet.

use super::kernel_cache;
use crate::comm::{self, Communicator, Host, Placement, Ranks, agree, with_device};
use crate::config::plan::{
    DataSource, GazePhantomPlan, LesionPhantomPlan, PhantomPlan, RunPlan, ShapesPlan, ShapesSource,
    TwoModalityPhantomPlan, VolumesPlan,
};
use crate::config::{
    Colour, DeviceChoice, Normalisation, Orientation, Outside, Precision, Resample, RunConfig,
    Split,
};
use crate::data::identity::Identity;
use crate::data::import::gaze_phantom::{self, GazePhantom};
use crate::data::import::{lesion_phantom, masks, phantom, two_modality};
use crate::data::loader::{Loader, LoaderPlan};
use crate::data::pseudo::Labelling;
use crate::data::shapes::Shapes;
use crate::data::stream::training_slices;
use crate::data::{Dataset, IGNORE, augment, split, store};
use crate::error::{Context, Failure, Result};
use crate::launchers::{self, Variables};
use crate::methods::{self, Passes, Setup};
use crate::native;
use crate::random::Key;
use crate::signals;
use crate::train::Method;
use crate::train::evaluate::{Evaluator, Yardstick};
use crate::train::inference::Target;
use crate::train::learner::{LearnerSetup, Moments};
use std::sync::Arc;
use tch::{Device, Kind};

/// A configuration as it will run on `ranks` processes, the method's defaults filled in.
pub(super) fn resolve(config: &RunConfig, ranks: usize) -> Result<RunPlan> {
    let mut plan = RunPlan::resolve(config.clone(), ranks)?;
    let method = methods::find(&config.method.name)
        .map_err(|failure| failure.at(config.place("method.name")))?;
    plan.method_params = (method.check)(config)?;
    Ok(plan)
}

/// The data set of a plan, in memory.
pub(super) fn dataset(plan: &RunPlan) -> Result<Arc<Dataset>> {
    identified(plan).map(|(dataset, _)| dataset)
}

/// The same with what tells it from others, whatever the plan makes of its light.
pub(super) fn identified(plan: &RunPlan) -> Result<(Arc<Dataset>, Identity)> {
    let mut dataset = match &plan.data.source {
        DataSource::Packed(path) => store::read(path)?,
        DataSource::Phantom(plan) => generated(plan)?,
        DataSource::LesionPhantom(plan) => generated_lesions(plan)?,
        DataSource::GazePhantom(plan) => generated_gaze(plan)?,
        DataSource::TwoModalityPhantom(plan) => generated_modalities(plan)?,
    };
    refuse_other_preparation(plan, &dataset)?;
    match plan.data.split {
        None => {}
        Some(Split::Dmsps) => split::dmsps(&mut dataset)?,
        Some(Split::Scribblebench) => split::scribblebench(&mut dataset)?,
    }
    let identity = Identity::of(&dataset);
    if plan.data.colour == Colour::GreyWorld {
        dataset.even_out_light();
    }
    Ok((Arc::new(dataset), identity))
}

/// Refuses data whose scans were prepared in another way than the plan says.
fn refuse_other_preparation(plan: &RunPlan, dataset: &Dataset) -> Result<()> {
    let (Some(wished), Some(found)) = (&plan.data.preparation, &dataset.preparation) else {
        return Ok(());
    };
    let Some([key, wished, found]) = wished.difference(found) else { return Ok(()) };
    Err(Failure::usage(format!(
        "`data.preparation.{key}` is `{wished}`, the scans of data set `{}` were prepared with `{found}`",
        dataset.name
    ))
    .hint("remove `[data.preparation]`, which says how scans were prepared and prepares none")
    .hint("or pack the data in that way: `scrimp prepare --help`"))
}

/// A plan that says how the scans of its data were prepared.
pub(super) fn recorded(plan: &RunPlan, dataset: &Dataset) -> RunPlan {
    let mut plan = plan.clone();
    if dataset.preparation.is_some() {
        plan.data.preparation.clone_from(&dataset.preparation);
    }
    plan
}

/// The same data set with the annotation that the plan learns from, where a random walker has to make
/// it first. Every rank calls this, and makes its share with `threads` threads.
pub(super) fn labelled(
    plan: &RunPlan,
    dataset: Arc<Dataset>,
    comm: &dyn Communicator,
    threads: usize,
) -> Result<Arc<Dataset>> {
    let held_out = (plan.data.fold > 0).then_some(plan.data.fold);
    let Some(labelling) = Labelling::of(&dataset, &plan.data.annotation, held_out) else {
        return Ok(dataset);
    };
    let place = (comm.rank(), comm.ranks());
    let share = labelling.share(&dataset, place, threads, &|| comm.note_progress());
    let messages = comm.gather(&agree(comm, share)?)?;
    let mut dataset = Arc::unwrap_or_clone(dataset);
    agree(comm, labelling.put(&mut dataset, &messages))?;
    Ok(Arc::new(dataset))
}

fn generated(plan: &PhantomPlan) -> Result<Dataset> {
    let drawn = phantom::Phantom {
        cases: plan.cases,
        slices: plan.slices,
        size: plan.size,
        difficulty: match plan.difficulty {
            crate::config::Difficulty::Easy => phantom::Difficulty::Easy,
            crate::config::Difficulty::Hard => phantom::Difficulty::Hard,
        },
        seed: plan.seed,
    };
    match plan.volumes {
        None => phantom::generate(&drawn),
        Some(VolumesPlan { scribbled_every }) => {
            phantom::generate_volumes(&phantom::VolumePhantom { phantom: drawn, scribbled_every })
        }
    }
}

fn generated_lesions(plan: &LesionPhantomPlan) -> Result<Dataset> {
    lesion_phantom::generate(&lesion_phantom::LesionPhantom {
        cases: plan.cases,
        healthy: plan.healthy,
        validation: plan.validation,
        test: plan.test,
        size: plan.size,
        seed: plan.seed,
    })
}

fn generated_gaze(plan: &GazePhantomPlan) -> Result<Dataset> {
    let GazePhantomPlan { cases, validation, test, size, seed, .. } = *plan;
    let levels = plan.levels.clone();
    let phantom = GazePhantom { cases, validation, test, size, levels, seed };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    gaze_phantom::generate(&phantom, threads)
}

fn generated_modalities(plan: &TwoModalityPhantomPlan) -> Result<Dataset> {
    two_modality::generate(&two_modality::TwoModalityPhantom {
        cases: plan.cases,
        validation: plan.validation,
        slices: plan.slices,
        size: plan.size,
        labelled_share: plan.labelled_share,
        seed: plan.seed,
    })
}

/// The masks of a plan, in memory; `target` is what the run trains on.
pub(super) fn shapes(plan: &ShapesPlan, target: &Dataset) -> Result<Shapes> {
    let class_count = target.classes.len();
    let shapes = match &plan.source {
        ShapesSource::Path(path) => {
            if !path.exists() {
                let message =
                    format!("`data.shapes.path` is `{}`, where nothing is", path.display());
                return Err(Failure::usage(message).hint(
                    "name a folder of NIfTI label volumes, or a packed file with dense labels",
                ));
            }
            let read = if path.is_dir() {
                masks::read(path, class_count)
            } else {
                store::read(path).and_then(|dataset| Shapes::of(dataset, class_count))
            };
            read.map_err(|failure| failure.during("cannot use the masks of `data.shapes.path`"))?
        }
        ShapesSource::Phantom(plan) => Shapes::of(generated(plan)?, class_count)?,
    };
    if !plan.allow_own {
        shapes.refuse_own(target)?;
    }
    Ok(match plan.orientation {
        Orientation::Corrected => shapes,
        Orientation::Released => shapes.swapped(),
    })
}

/// Where a rank computes, and with how many threads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) device: Device,
    pub(super) threads: usize,
    pub(super) ranks_on_node: usize,
}

impl Place {
    /// Decides for this rank; sets the number of libtorch's threads and how its memory is kept. Every rank of `comm`
    /// calls this.
    pub(super) fn take(
        plan: &RunPlan,
        comm: &dyn Communicator,
        variables: &Variables,
    ) -> Result<Self> {
        let (device, placement) = own_device(plan.train.device, comm, variables)?;
        let usable = std::thread::available_parallelism().map_or(1, usize::from);
        let wished = variables.get("OMP_NUM_THREADS").map(String::as_str);
        let threads = plan.train.threads_on(usable, placement.ranks_on_node, wished);
        tch::set_num_threads(threads as i32);
        if device == Device::Cpu && plan.data.sampling.extent()[0] > 1 {
            native::return_large_blocks();
        }
        agree(comm, native::allow_tf32(plan.train.precision == Precision::Tf32))?;
        Ok(Self { device, threads, ranks_on_node: placement.ranks_on_node })
    }

    /// Threads that prepare batches beside those that compute: on CPUs these need all processors.
    fn loader_threads(self) -> usize {
        if self.device == Device::Cpu {
            return 1;
        }
        let usable = std::thread::available_parallelism().map_or(1, usize::from);
        (usable / self.ranks_on_node.max(1)).clamp(1, LOADER_THREADS)
    }

    /// The ranks of `host` with tensors where each of them computes; each calls this with its own place.
    pub(super) fn join(self, host: &Host) -> Result<Ranks> {
        with_device(host, self.device)
    }

    /// The loader as it is fastest here: with a GPU, the data are there, where they fit into half of its
    /// free memory.
    pub(super) fn feed(self, loader: Loader) -> Result<Loader> {
        let loader = loader.prepared_by(self.loader_threads());
        Ok(match self.device {
            Device::Cuda(index) => {
                loader.resident_on(self.device, native::cuda::memory(index)?.free / 2)
            }
            _ => loader,
        })
    }
}

/// Where this rank computes, ready for use, and where it stands on its node. Every rank of `comm` calls this.
///
/// Ranks that see the same GPUs take one after the other; where a launcher shows each rank its own, each takes
/// that. They share one only where the configuration says that it must be GPUs, which is slow and good for
/// tests.
pub(super) fn own_device(
    choice: DeviceChoice,
    comm: &dyn Communicator,
    variables: &Variables,
) -> Result<(Device, Placement)> {
    let placement = Placement::find(comm, variables)?;
    let gpus = if choice == DeviceChoice::Cpu { 0 } else { native::cuda::devices() };
    let own = (gpus > 0).then(|| placement.local_rank % gpus);
    let card = match own {
        Some(index) => Card::of(index).map(Some),
        None if choice == DeviceChoice::Cuda => Err(Failure::new(
            "`train.device` is `cuda`, but libtorch finds no GPU",
        )
        .hint("check `nvidia-smi`, run `SCRIMP_CUDA=1 ./launch/setup`, or set `train.device = \"auto\"`")),
        None => Ok(None),
    };
    let card = agree(comm, card)?;
    let cards = comm.gather(&card.map(Card::into_message).unwrap_or_default())?;
    if choice != DeviceChoice::Cuda {
        agree(comm, refuse_shared(&cards))?;
    }
    agree(comm, own.map_or(Ok(()), |index| kernel_cache::open_gpu(index, variables)))?;
    Ok((own.map_or(Device::Cpu, Device::Cuda), placement))
}

/// What tells a GPU from all others, whatever number it has for whom.
struct Card {
    /// The machine, as its kernel calls itself in all its containers.
    machine: String,
    /// Model and PCI address.
    name: String,
}

impl Card {
    /// That of a GPU, counted from 0 among those that this rank sees.
    fn of(index: usize) -> Result<Self> {
        let file = "/proc/sys/kernel/random/boot_id";
        let machine = std::fs::read_to_string(file)
            .context(|| format!("cannot read from `{file}` which machine this is"))?;
        Ok(Self { machine: machine.trim().to_owned(), name: native::cuda::describe(index)? })
    }

    fn into_message(self) -> Vec<u8> {
        format!("{}\n{}", self.machine, self.name).into_bytes()
    }
}

/// Refuses ranks, each with the message of its card or an empty one, of which two have the same card.
fn refuse_shared(cards: &[Vec<u8>]) -> Result<()> {
    for (second, card) in cards.iter().enumerate().filter(|(_, card)| !card.is_empty()) {
        if let Some(first) = cards[..second].iter().position(|other| other == card) {
            let text = String::from_utf8_lossy(card);
            let name = text.lines().last().unwrap_or_default();
            return Err(Failure::usage(format!(
                "ranks {first} and {second} share a GPU, the `{name}`, expected one for each"
            ))
            .hint("start fewer ranks on each node, or use `--set train.device=cpu`"));
        }
    }
    Ok(())
}

/// Threads that prepare batches: a GPU is faster than one of them, and leaves the processors to them.
const LOADER_THREADS: usize = 8;

/// The precision of weights, images and losses.
pub(super) fn kind(plan: &RunPlan) -> Kind {
    match plan.train.precision {
        Precision::Fp32 | Precision::Tf32 | Precision::Bf16 => Kind::Float,
        Precision::Fp64 => Kind::Double,
    }
}

/// Precision and place of what networks are given.
pub(super) fn target(plan: &RunPlan, device: Device) -> Target {
    Target { kind: kind(plan), device }
}

/// The precision of convolutions.
pub(super) fn computed(plan: &RunPlan) -> Kind {
    if plan.train.precision == Precision::Bf16 { Kind::BFloat16 } else { kind(plan) }
}

/// What the networks of a method are built for.
pub(super) struct Task {
    /// Classes, with the background.
    pub(super) classes: usize,
    pub(super) channels: usize,
    /// Rows and columns of every slice that is trained on, as stored; none where nothing is trained.
    pub(super) slices: Vec<[usize; 2]>,
    /// How far apart the voxels of all scans lie, where their preparation makes them alike.
    pub(super) spacing_mm: Option<[f64; 3]>,
    /// As [`Dataset::levels`]; none where nothing is trained.
    pub(super) levels: Vec<f64>,
}

impl Task {
    /// What a plan trains on in a data set.
    fn of(plan: &RunPlan, dataset: &Dataset) -> Self {
        let slices = training_slices(dataset, plan.data.fold, &plan.data.annotation).into_iter();
        let shapes = slices.map(|(case, _)| dataset.cases[case].scan.grid.shape);
        Self {
            classes: dataset.classes.len(),
            channels: dataset.channels(),
            slices: shapes.map(|[_, rows, columns]| [rows, columns]).collect(),
            spacing_mm: dataset.preparation.as_ref().and_then(|done| done.spacing.of_volume_mm()),
            levels: dataset.levels.clone(),
        }
    }
}

/// The method of a plan with its initial weights.
pub(super) fn method(
    plan: &RunPlan,
    dataset: &Dataset,
    device: Device,
    ranks: &Ranks,
) -> Result<Box<dyn Method>> {
    method_for(plan, Task::of(plan, dataset), device, ranks)
}

/// The method of a plan for a task whose data need not be there.
pub(super) fn method_for(
    plan: &RunPlan,
    task: Task,
    device: Device,
    ranks: &Ranks,
) -> Result<Box<dyn Method>> {
    let statistics: Option<Arc<dyn native::GroupSum>> = match plan.net.batch_norm {
        Normalisation::Global => Some(Arc::clone(ranks.tensors()) as Arc<dyn native::GroupSum>),
        Normalisation::Local => None,
    };
    let setup = Setup {
        learner: LearnerSetup {
            key: Key::new(plan.train.seed).purpose("weights"),
            kind: kind(plan),
            computed: computed(plan),
            device,
            moments: if plan.train.shard_optimizer {
                Moments::Share { rank: ranks.rank(), ranks: ranks.ranks() }
            } else {
                Moments::Whole
            },
        },
        classes: task.classes as i64,
        channels: task.channels as i64,
        passes: Passes::new(plan.net.dropout, statistics),
        slices: task.slices,
        sample: plan.data.sampling.extent(),
        spacing_mm: task.spacing_mm,
        levels: task.levels,
    };
    (methods::find(&plan.method)?.build)(&plan.method_params, &setup)
}

/// This rank's share of the batches.
pub(super) fn loader(
    plan: &RunPlan,
    dataset: &Arc<Dataset>,
    comm: &dyn Communicator,
) -> Result<Loader> {
    let loader = Loader::new(dataset, loader_plan(plan)?, comm.rank(), comm.ranks())?;
    let loader = loader.in_micro_batches(plan.train.micro_batches);
    Ok(match &plan.data.shapes {
        Some(plan) => loader.with_shapes(shapes(plan, dataset)?),
        None => loader,
    })
}

/// Which samples a plan learns from, and in which form.
pub(super) fn loader_plan(plan: &RunPlan) -> Result<LoaderPlan> {
    Ok(LoaderPlan {
        fold: plan.data.fold,
        annotation: plan.data.annotation.clone(),
        batch_size: plan.train.batch_size,
        drop_last: plan.data.drop_last,
        streams: methods::find(&plan.method)?.streams,
        sampling: plan.data.sampling,
        augment: match plan.data.augment {
            Resample::Reference => augment::Resample::Reference,
            Resample::Bilinear => augment::Resample::Bilinear,
            Resample::FullRotation => augment::Resample::FullRotation,
            Resample::Flips => augment::Resample::Flips,
            Resample::Mild => augment::Resample::Mild,
            Resample::None => augment::Resample::None,
        },
        outside: match plan.data.outside {
            Outside::Unknown => IGNORE,
            Outside::Background => 0,
        },
        seed: plan.train.seed,
    })
}

/// Scores the held-out fold of a plan.
pub(super) fn evaluator(
    plan: &RunPlan,
    dataset: &Arc<Dataset>,
    device: Device,
    yardstick: Yardstick,
) -> Evaluator {
    Evaluator {
        dataset: Arc::clone(dataset),
        annotation: plan.data.annotation.clone(),
        fold: plan.data.fold,
        sampling: plan.data.sampling,
        target: target(plan, device),
        yardstick,
        volume_statistics: false,
    }
}

/// The processes that were started together. Under `mpirun` this one ends with it.
pub(super) fn connect() -> Result<(Host, Variables)> {
    native::prepare_process();
    let variables = launchers::variables();
    if launchers::is_by_mpirun(&variables) {
        signals::end_with_parent(std::os::unix::process::parent_id())?;
    }
    Ok((comm::connect(&variables)?, variables))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ranks_have_one_gpu_only_where_it_is_the_same_card_of_the_same_machine() {
        let card = |machine: &str, bus: &str| {
            let name = format!("NVIDIA H200 at {bus}");
            Card { machine: machine.to_owned(), name }.into_message()
        };
        refuse_shared(&[vec![], vec![]]).unwrap();
        refuse_shared(&[card("a", "0:18"), card("b", "0:18"), card("a", "0:3b")]).unwrap();
        let failure = refuse_shared(&[card("a", "0:18"), card("b", "0:18"), card("a", "0:18")]);
        let expected =
            "ranks 0 and 2 share a GPU, the `NVIDIA H200 at 0:18`, expected one for each";
        assert_eq!(failure.unwrap_err().message(), expected);
    }

    /// Without a GPU each computes on the CPU, and one that must have a GPU ends all, in the words of one.
    #[test]
    fn ranks_find_their_devices_together() {
        let devices = |choice| {
            comm::threads::run(2, move |ranks| {
                own_device(choice, &*ranks, &Variables::new()).map(|(device, _)| device)
            })
        };
        for device in devices(DeviceChoice::Cpu) {
            assert_eq!(device.unwrap(), Device::Cpu);
        }
        if native::cuda::devices() == 0 {
            let [first, second] = devices(DeviceChoice::Cuda)
                .try_into()
                .map(|both: [Result<Device>; 2]| both)
                .unwrap();
            assert!(!first.unwrap_err().is_told_elsewhere());
            assert!(second.unwrap_err().is_told_elsewhere());
        }
    }
}
