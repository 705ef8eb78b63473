//! Metrics against medpy: every volume pair, class and spacing of the golden file.

use safetensors::{Dtype, SafeTensors};
use scrimp::metrics::{Convention, Distances, LabelPair, Scores};
use std::path::PathBuf;

/// Relative difference allowed: sums over surface voxels are taken in another order than numpy's.
const TOLERANCE: f64 = 1e-12;

fn golden_bytes() -> Vec<u8> {
    let folder = std::env::var_os("SCRIMP_GOLDEN_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")),
        PathBuf::from,
    );
    let file = folder.join("metrics.safetensors");
    std::fs::read(&file).unwrap_or_else(|error| panic!("golden file `{}`: {error}", file.display()))
}

/// One of the numbers that are measured of two surfaces.
type Measure = fn(Distances) -> f64;

/// The volumes and the numbers of the golden file.
struct Golden {
    /// Volumes, slices, rows, columns.
    shape: [usize; 4],
    prediction: Vec<u8>,
    truth: Vec<u8>,
    bytes: Vec<u8>,
}

impl Golden {
    fn open() -> Self {
        let bytes = golden_bytes();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let prediction = tensors.tensor("pred").unwrap();
        let truth = tensors.tensor("ref").unwrap();
        assert_eq!((prediction.dtype(), truth.dtype()), (Dtype::U8, Dtype::U8));
        Self {
            shape: prediction.shape().try_into().unwrap(),
            prediction: prediction.data().to_vec(),
            truth: truth.data().to_vec(),
            bytes,
        }
    }

    /// One pair of volumes.
    fn pair(&self, volume: usize, spacing: [f64; 3]) -> LabelPair<'_> {
        let [_, depth, height, width] = self.shape;
        let voxels = depth * height * width;
        let range = volume * voxels..(volume + 1) * voxels;
        let (prediction, truth) = (&self.prediction[range.clone()], &self.truth[range]);
        LabelPair::new(prediction, truth, [depth, height, width], spacing).unwrap()
    }

    /// The numbers `[volume, class - 1, ..]` under a key, `columns` for each class.
    fn numbers(&self, key: &str, columns: usize) -> Vec<Vec<f64>> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = tensors.tensor(key).unwrap();
        assert_eq!(tensor.dtype(), Dtype::F64, "`{key}`");
        let values: Vec<f64> = tensor
            .data()
            .chunks_exact(8)
            .map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        let rows: Vec<Vec<f64>> = values.chunks_exact(columns).map(<[f64]>::to_vec).collect();
        assert!(!rows.is_empty() && rows.len().is_multiple_of(self.shape[0]), "`{key}`");
        rows
    }

    /// Compares what `actual` measures of each volume and class with the numbers under `key`.
    fn check<const N: usize>(&self, key: &str, actual: impl Fn(usize, u8) -> [Option<f64>; N]) {
        let rows = self.numbers(key, N);
        let classes = rows.len() / self.shape[0];
        for (index, expected) in rows.iter().enumerate() {
            let (volume, class) = (index / classes, (index % classes + 1) as u8);
            for (column, (found, &expected)) in
                actual(volume, class).iter().zip(expected).enumerate()
            {
                let same = match found {
                    None => expected.is_nan(),
                    Some(found) => (found - expected).abs() <= TOLERANCE * expected.abs(),
                };
                let place = format!("`{key}`, volume {volume}, class {class}, column {column}");
                assert!(same, "{place}: found {found:?}, expected {expected}");
            }
        }
    }
}

#[test]
fn golden_overlaps_are_those_of_medpy() {
    let golden = Golden::open();
    let overlap = |volume, class| golden.pair(volume, [1.0; 3]).overlap(class);
    golden.check("dice", |volume, class| [overlap(volume, class).dice()]);
    // With both sides empty medpy's `dc` gives NaN, but its `jc` meets a division by zero and gives 1.
    golden.check("jaccard", |volume, class| [overlap(volume, class).jaccard().or(Some(1.0))]);
}

#[test]
fn golden_surface_distances_are_those_of_medpy() {
    let golden = Golden::open();
    let spacings = [("unit", [1.0; 3]), ("s10", [10.0, 1.0, 1.0]), ("aniso", [8.0, 1.5625, 1.25])];
    let measures: [(&str, Measure); 4] = [
        ("hd", |distances| distances.hd),
        ("hd95", |distances| distances.hd95),
        ("asd", |distances| distances.asd),
        ("assd", |distances| distances.assd),
    ];
    for (suffix, spacing) in spacings {
        for (name, measure) in measures {
            golden.check(&format!("{name}.{suffix}"), |volume, class| {
                [golden.pair(volume, spacing).measure(class).surface.distances().map(measure)]
            });
        }
    }
}

#[test]
fn golden_conventions_are_those_of_the_published_scripts() {
    let golden = Golden::open();
    // A spacing that neither convention may look at.
    let score = |convention: Convention, volume, class| {
        convention.score(&golden.pair(volume, [3.0, 0.7, 5.0]), class)
    };
    golden.check("val.dice_hd95", |volume, class| {
        let Scores { dice, hd95, .. } = score(Convention::Validation, volume, class);
        [dice, hd95]
    });
    golden.check("pub.dice_hd95_asd", |volume, class| {
        let Scores { dice, hd95, asd } = score(Convention::Published, volume, class);
        [dice, hd95, asd]
    });
}

#[test]
fn golden_plain_scores_are_medpy_in_the_pairs_own_spacing() {
    let golden = Golden::open();
    let plain = |volume, class| {
        let pair = golden.pair(volume, [8.0, 1.5625, 1.25]);
        Convention::Plain.score_foreground(&pair, class + 1)[usize::from(class) - 1]
    };
    golden.check("dice", |volume, class| [plain(volume, class).dice]);
    golden.check("hd95.aniso", |volume, class| [plain(volume, class).hd95]);
    golden.check("asd.aniso", |volume, class| [plain(volume, class).asd]);
}
