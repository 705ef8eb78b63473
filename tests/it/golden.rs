//! Reads golden files and compares tensors; what they mean stands in the tests that use them.

use crate::skips::{gpu_is_there, skipped};
use scrimp::methods::{Passes, Setup};
use scrimp::native::{allow_tf32, cuda};
use scrimp::parameters::Entry;
use scrimp::random::Key;
use scrimp::train::learner::{LearnerSetup, Moments};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use tch::{Device, Kind, Tensor};

/// Where networks and losses compute: on the GPU where `SCRIMP_TEST_DEVICE` is `cuda`.
pub(crate) fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    *DEVICE.get_or_init(|| match std::env::var("SCRIMP_TEST_DEVICE").as_deref() {
        Ok("cuda") => {
            assert!(gpu_is_there());
            cuda::open(0, None).unwrap();
            allow_tf32(false).unwrap();
            Device::Cuda(0)
        }
        Ok("cpu") | Err(_) => Device::Cpu,
        Ok(other) => panic!("`SCRIMP_TEST_DEVICE` is `{other}`, expected `cpu` or `cuda`"),
    })
}

/// What the published networks are built from, without dropout and on [`device`]: 1 channel, 4 classes, and samples of
/// so many slices, rows and columns.
pub(crate) fn setup(kind: Kind, sample: [usize; 3]) -> Setup {
    let (key, moments) = (Key::new(0), Moments::Whole);
    Setup {
        learner: LearnerSetup { key, kind, computed: kind, device: device(), moments },
        classes: 4,
        channels: 1,
        passes: Passes::new(false, None),
        slices: Vec::new(),
        sample,
        spacing_mm: None,
        levels: Vec::new(),
    }
}

const OWN_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

/// The tensors of one golden file, on [`device`].
pub(crate) struct Golden {
    file: PathBuf,
    tensors: HashMap<String, Tensor>,
}

impl Golden {
    /// Reads `NAME.safetensors` from `SCRIMP_GOLDEN_DIR`, by default `tests/golden`.
    pub(crate) fn open(name: &str) -> Self {
        Self::read(Self::file(name))
    }

    /// The same for a file made from real images, which is not ours to pass on: `None` where it is
    /// not there, and the test says that it skips.
    pub(crate) fn open_if_there(name: &str) -> Option<Self> {
        let file = Self::file(name);
        if !file.exists() {
            skipped(&format!(
                "no `{name}.safetensors` in `{}`; SCRIMP_GOLDEN_DIR can name another folder",
                file.parent().unwrap().display()
            ));
            return None;
        }
        Some(Self::read(file))
    }

    /// The same for numbers that nobody has published, which only this repository holds: its own where another
    /// folder is named that has none.
    pub(crate) fn open_of_definitions(name: &str) -> Self {
        let file = Self::file(name);
        let own = || PathBuf::from(OWN_FOLDER).join(format!("{name}.safetensors"));
        Self::read(if file.exists() { file } else { own() })
    }

    fn file(name: &str) -> PathBuf {
        let folder = std::env::var_os("SCRIMP_GOLDEN_DIR");
        let folder = folder.map_or_else(|| PathBuf::from(OWN_FOLDER), PathBuf::from);
        folder.join(format!("{name}.safetensors"))
    }

    fn read(file: PathBuf) -> Self {
        let tensors = Tensor::read_safetensors(&file)
            .unwrap_or_else(|error| panic!("golden file `{}`: {error}", file.display()));
        let placed = tensors.into_iter().map(|(key, tensor)| (key, tensor.to_device(device())));
        Self { file, tensors: placed.collect() }
    }

    /// A tensor as stored.
    pub(crate) fn get(&self, key: &str) -> Tensor {
        self.tensors
            .get(key)
            .unwrap_or_else(|| panic!("`{}` has no `{key}`", self.file.display()))
            .shallow_clone()
    }

    /// Whether there is such a tensor.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.tensors.contains_key(key)
    }

    /// A label tensor as `i64` without its channel dimension, the golden files' 4 as 255.
    pub(crate) fn labels(&self, key: &str) -> Tensor {
        let labels = self.get(key).to_kind(Kind::Int64);
        let labels = if labels.dim() == 4 { labels.squeeze_dim(1) } else { labels };
        labels.where_scalarother(&labels.ne(4), 255)
    }

    /// Fails unless `actual` equals the stored tensor within `tolerance` of its largest magnitude.
    pub(crate) fn assert_close(&self, key: &str, actual: &Tensor, tolerance: f64) {
        assert_close(key, actual, &self.get(key), tolerance);
    }
}

/// Fails unless the largest difference is within `tolerance` of the largest expected magnitude.
pub(crate) fn assert_close(what: &str, actual: &Tensor, expected: &Tensor, tolerance: f64) {
    let host = |tensor: &Tensor| tensor.to_device(Device::Cpu).to_kind(Kind::Double);
    let (actual, expected) = (host(actual), host(expected));
    assert_eq!(actual.numel(), expected.numel(), "{what}: number of elements");
    let expected = expected.view_as(&actual);
    let magnitude = f64::try_from(expected.abs().max()).unwrap();
    let difference = f64::try_from((actual - expected).abs().max()).unwrap();
    assert!(
        difference <= tolerance * magnitude,
        "{what}: largest difference {difference:e}, allowed {:e}",
        tolerance * magnitude
    );
}

/// Squares of a row, as a share of the largest, up to which double precision calls it 0.
const ZERO: f64 = 1e-20;
/// Up to which single precision may call the same row something else: thousands of roundings.
const ROUNDING: f64 = 1e-10;

/// Fails unless every row, the sum and the sum of squares of one tensor, agrees by its own measure: the
/// root of its squares, or its sum where that is larger.
///
/// Found is computed in double precision. Rows that are nothing but rounding there are so in what is
/// expected, which has fewer digits: they have to be small, and nothing else is asked of them.
pub(crate) fn assert_rows_close(
    what: &str,
    (actual, expected): (&Tensor, &Tensor),
    tolerance: f64,
) {
    let rows = |table: &Tensor| -> Vec<[f64; 2]> {
        let numbers = Vec::<f64>::try_from(table.to_kind(Kind::Double).view(-1)).unwrap();
        numbers.chunks_exact(2).map(|row| [row[0], row[1]]).collect()
    };
    let (actual, expected) = (rows(actual), rows(expected));
    assert_eq!(actual.len(), expected.len(), "{what}: number of rows");
    let largest = expected.iter().map(|row| row[1]).fold(0.0, f64::max);
    let mut compared = 0;
    for (row, (found, wanted)) in actual.iter().zip(&expected).enumerate() {
        if found[1] <= ZERO * largest {
            assert!(
                wanted[1] <= ROUNDING * largest,
                "{what}: row {row} is {found:?}, not {wanted:?}"
            );
            continue;
        }
        let of_sum = (found[0] - wanted[0]).abs() / wanted[1].sqrt().max(wanted[0].abs());
        let of_squares = (found[1] - wanted[1]).abs() / wanted[1];
        let apart = of_sum.max(of_squares);
        assert!(apart <= tolerance, "{what}: row {row} is {found:?}, not {wanted:?}: {apart:e}");
        compared += 1;
    }
    assert!(2 * compared > actual.len(), "{what}: {compared} of {} rows compared", actual.len());
}

/// Fills a network by the rule of the golden files: value `sin(0.7 i + 1.3 k)` for element `i` of
/// floating entry `k` in state order, scaled by role.
pub(crate) fn fill(entries: &[Entry]) {
    fill_shifted(entries, 0.0);
}

/// The same with `phase` added to what the sine is taken of.
pub(crate) fn fill_shifted(entries: &[Entry], phase: f64) {
    let mut number = 0;
    for entry in entries {
        let mut tensor = entry.tensor.shallow_clone();
        if tensor.kind() == Kind::Int64 {
            continue;
        }
        let wave: Vec<f32> = (0..tensor.numel())
            .map(|i| (0.7 * i as f64 + 1.3 * f64::from(number) + phase).sin() as f32)
            .collect();
        let wave = Tensor::from_slice(&wave).view_as(&tensor);
        let shape = tensor.size();
        let value = if shape.len() >= 2 {
            let fan_in = shape[1..].iter().product::<i64>();
            wave * (2.0 / fan_in as f64).sqrt()
        } else if entry.name.ends_with("running_var") {
            wave.square() * 0.1 + 1.0
        } else if entry.name.ends_with("running_mean") {
            wave * 0.1
        } else if entry.name.ends_with("weight") {
            wave * 0.1 + 1.0
        } else {
            wave * 0.05
        };
        tch::no_grad(|| tensor.copy_(&value));
        number += 1;
    }
}

/// `[sum, sum of squares]` of each tensor, `f64 [count, 2]`.
pub(crate) fn sums<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Tensor {
    let rows: Vec<Tensor> = tensors
        .map(|tensor| {
            let wide = tensor.detach().to_kind(Kind::Double);
            Tensor::stack(&[wide.sum(Kind::Double), wide.square().sum(Kind::Double)], 0)
        })
        .collect();
    Tensor::stack(&rows, 0)
}

/// Fills a network by the second rule of the golden files, which gives matrices of full rank: `first`
/// is the number of its first floating entry.
pub(crate) fn fill_by_rule_b(entries: &[Entry], first: usize) {
    let floating = entries.iter().filter(|entry| entry.tensor.kind() != Kind::Int64);
    for (number, entry) in floating.enumerate() {
        let mut tensor = entry.tensor.shallow_clone();
        let phase = 1.3 * (first + number) as f64;
        let wave: Vec<f32> = (0..tensor.numel())
            .map(|i| {
                let r = (i % 1009) as f64;
                (0.7 * i as f64 + 0.013 * r * r + phase).sin() as f32
            })
            .collect();
        let wave = Tensor::from_slice(&wave).view_as(&tensor);
        let shape = tensor.size();
        let scale = (2.0 / shape.iter().skip(1).product::<i64>().max(1) as f64).sqrt();
        let value = match entry.name.rsplit('.').next().unwrap() {
            "rho" => wave * 0.4 + 0.5,
            "gamma" | "weight_u" | "weight_v" => wave * 0.1 + 1.0,
            "beta" if shape.len() == 4 => wave * 0.05,
            "weight_orig" => (wave + 0.05) * scale,
            "weight" if entry.name.ends_with("conv2x1.1.weight") => wave * (8.0 * scale),
            _ if shape.len() >= 2 => wave * scale,
            "running_var" => wave.square() * 0.1 + 1.0,
            "running_mean" => wave * 0.1,
            "weight" => wave * 0.1 + 1.0,
            _ => wave * 0.05,
        };
        tch::no_grad(|| tensor.copy_(&value));
    }
}
