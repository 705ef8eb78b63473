//! Confident annotation and intensities of DMSPS against the released code, by stub networks whose logits are
//! `w x + t`.

use crate::golden_arrays::Arrays;
use scrimp::data::augment::{zoom_image, zoom_labels};
use scrimp::preparation::Intensities;
use scrimp::preparation::intensities::scale;
use scrimp::pseudo_labels::expansion::{Form, Within};

const FILE: &str = "dmsps";
/// Of what a rule rounds in single precision.
const TOLERANCE: f64 = 1e-5;
/// The label of what nothing is said of.
const IGNORE: u8 = 255;
/// Rows and columns that the network over images sees.
const SEEN: [usize; 2] = [256; 2];

fn floats(golden: &Arrays, key: &str) -> Vec<f32> {
    golden.get(key).1.into_iter().map(|value| value as f32).collect()
}

fn extent(golden: &Arrays, key: &str) -> [usize; 3] {
    let extent: Vec<usize> = golden.get(key).1.into_iter().map(|value| value as usize).collect();
    extent.try_into().unwrap()
}

fn assert_close(what: &str, found: &[f32], golden: &Arrays) {
    let expected = golden.get(what).1;
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    for (place, (&found, expected)) in found.iter().zip(expected).enumerate() {
        let apart = (f64::from(found) - expected).abs();
        assert!(apart <= TOLERANCE * largest, "{what} at {place}: {found}, not {expected}");
    }
}

/// Turns `[classes, voxels]` of logits into probabilities.
fn softmax(logits: &mut [f32], classes: usize) {
    let voxels = logits.len() / classes;
    for voxel in 0..voxels {
        let at = |class: usize| class * voxels + voxel;
        let largest = (0..classes).map(|class| logits[at(class)]).fold(f32::MIN, f32::max);
        let total: f32 = (0..classes).map(|class| (logits[at(class)] - largest).exp()).sum();
        for class in 0..classes {
            logits[at(class)] = (logits[at(class)] - largest).exp() / total;
        }
    }
}

/// The first class of the largest number of each voxel.
fn most_likely(maps: &[f32], classes: usize) -> Vec<u8> {
    let voxels = maps.len() / classes;
    let best = |voxel: usize| {
        let of = |class: usize| maps[class * voxels + voxel];
        (1..classes).fold(0, |best, class| if of(class) > of(best) { class } else { best }) as u8
    };
    (0..voxels).map(best).collect()
}

fn mean(one: &[f32], other: &[f32]) -> Vec<f32> {
    one.iter().zip(other).map(|(one, other)| (one + other) / 2.0).collect()
}

/// What two decoders say of pixels by themselves.
struct Stub {
    weights: [Vec<f32>; 2],
    offsets: [Vec<f32>; 2],
}

impl Stub {
    fn of(golden: &Arrays, name: &str) -> Self {
        let both = |of: &str| {
            ["main", "aux"].map(|decoder| floats(golden, &format!("{name}.in.{of}_{decoder}")))
        };
        Self { weights: both("w"), offsets: both("t") }
    }

    fn classes(&self) -> usize {
        self.weights[0].len()
    }

    /// Probabilities `[classes, pixels]` of both; `add(class, pixel)` comes to the logits.
    fn probabilities(&self, image: &[f32], add: impl Fn(usize, usize) -> f32) -> [Vec<f32>; 2] {
        [0, 1].map(|decoder| {
            let of_class = |class: usize| {
                let (w, t) = (self.weights[decoder][class], self.offsets[decoder][class]);
                let add = &add;
                image.iter().enumerate().map(move |(pixel, x)| w * x + t + add(class, pixel))
            };
            let mut logits: Vec<f32> = (0..self.classes()).flat_map(of_class).collect();
            softmax(&mut logits, self.classes());
            logits
        })
    }
}

/// The golden files' mark of a class too many for what nothing is said of.
fn marked(labels: &[u8], mark: u8) -> Vec<u8> {
    labels.iter().map(|&label| if label == IGNORE { mark } else { label }).collect()
}

#[test]
fn golden_expansion_slice_by_slice() {
    let golden = Arrays::open(FILE);
    let (shape, image) = golden.get("uf2.in.image");
    let [slices, rows, columns] = shape[..] else { panic!("{shape:?}") };
    let image: Vec<f32> = image.into_iter().map(|value| value as f32).collect();
    let stub = Stub::of(&golden, "uf2");
    let classes = stub.classes();
    let mut labels = [Vec::new(), Vec::new(), Vec::new()];
    let mut uncertainty = Vec::new();
    for slice in image.chunks_exact(rows * columns) {
        let seen = zoom_image(slice, [rows, columns], SEEN);
        let [main, auxiliary] = stub.probabilities(&seen, |_, _| 0.0);
        let both = mean(&main, &auxiliary);
        for (labels, maps) in labels.iter_mut().zip([&main, &auxiliary, &both]) {
            let found = most_likely(maps, classes);
            labels.extend(zoom_labels(&found, SEEN, [rows, columns]));
        }
        let seen = Form::Background.uncertainty(&both, classes);
        uncertainty.extend(zoom_image(&seen, SEEN, [rows, columns]));
    }
    let [main, auxiliary, both] = labels;
    assert_eq!(main, golden.bytes("uf2.out.pred_main"));
    assert_eq!(auxiliary, golden.bytes("uf2.out.pred_aux"));
    assert_close("uf2.out.uncertainty", &uncertainty, &golden);
    let threshold = golden.get("uf2.in.threshold").1[0] as f32;
    let sure: Vec<bool> = uncertainty.iter().map(|&of_pixel| of_pixel < threshold).collect();
    let expanded =
        |form: Form| form.expanded(&both, &sure, [slices, rows, columns], Within::Slices);
    assert_eq!(expanded(Form::Background), golden.bytes("uf2.out.pseudo"));
    let seeds = marked(&expanded(Form::Unlabelled), 4);
    assert_eq!(seeds, golden.bytes("uf2.out.seeds_ignore"));
}

#[test]
fn golden_expansion_of_the_newer_form() {
    let golden = Arrays::open(FILE);
    let (shape, _) = golden.get("seeds.in.logits_main");
    let [classes, slices, rows, columns] = shape[..] else { panic!("{shape:?}") };
    let [main, auxiliary] = ["main", "aux"].map(|decoder| {
        let mut maps = floats(&golden, &format!("seeds.in.logits_{decoder}"));
        softmax(&mut maps, classes);
        maps
    });
    let both = mean(&main, &auxiliary);
    let uncertainty = Form::Unlabelled.uncertainty(&both, classes);
    assert_close("seeds.out.uncertainty", &uncertainty, &golden);
    let sure: Vec<bool> = uncertainty.iter().map(|&of_pixel| of_pixel < 0.1).collect();
    let labels = most_likely(&both, classes);
    let seeds = Form::Unlabelled.expanded(&labels, &sure, [slices, rows, columns], Within::Slices);
    assert_eq!(marked(&seeds, 4), golden.bytes("seeds.out.label"));
}

/// Where windows begin along an axis.
fn starts(size: usize, patch: usize, stride: usize) -> Vec<usize> {
    (0..=(size - patch).div_ceil(stride)).map(|k| (stride * k).min(size - patch)).collect()
}

/// All places of a box, in row-major order.
fn places([slices, rows, columns]: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    (0..slices).flat_map(move |z| (0..rows).flat_map(move |y| (0..columns).map(move |x| [z, y, x])))
}

/// What windows say of a volume, added up.
struct Windows {
    /// Of both decoders, `[classes, voxels]`.
    probabilities: [Vec<f32>; 2],
    uncertainty: Vec<f32>,
    sure: Vec<f32>,
    count: Vec<f32>,
}

fn slide(golden: &Arrays, name: &str, image: &[f32], shape: [usize; 3]) -> Windows {
    let [patch, stride] = ["patch", "stride"].map(|of| extent(golden, &format!("{name}.in.{of}")));
    let stub = Stub::of(golden, name);
    let (classes, ramp) = (stub.classes(), floats(golden, &format!("{name}.in.ramp")));
    let voxels = shape.iter().product::<usize>();
    let zeros = || vec![0.0; voxels];
    let both = [vec![0.0; classes * voxels], vec![0.0; classes * voxels]];
    let mut found =
        Windows { probabilities: both, uncertainty: zeros(), sure: zeros(), count: zeros() };
    let of_axis = [0, 1, 2].map(|axis| starts(shape[axis], patch[axis], stride[axis]));
    for corner in places(of_axis.each_ref().map(Vec::len)) {
        let corner = [0, 1, 2].map(|axis| of_axis[axis][corner[axis]]);
        let at = |[z, y, x]: [usize; 3]| {
            ((z + corner[0]) * shape[1] + y + corner[1]) * shape[2] + x + corner[2]
        };
        let window: Vec<f32> = places(patch).map(|place| image[at(place)]).collect();
        let depth = |voxel: usize| (voxel / (patch[1] * patch[2])) as f32 / patch[0] as f32;
        let answers = stub.probabilities(&window, |class, voxel| ramp[class] * depth(voxel));
        let uncertainty = Form::Background.uncertainty(&mean(&answers[0], &answers[1]), classes);
        for (voxel, place) in places(patch).enumerate() {
            let at = at(place);
            for (sums, answer) in found.probabilities.iter_mut().zip(&answers) {
                for class in 0..classes {
                    sums[class * voxels + at] += answer[class * window.len() + voxel];
                }
            }
            found.uncertainty[at] += uncertainty[voxel];
            found.sure[at] += f32::from(u8::from(uncertainty[voxel] < 0.3));
            found.count[at] += 1.0;
        }
    }
    let over = |sums: &mut [f32], count: &[f32]| {
        sums.iter_mut().zip(count.iter().cycle()).for_each(|(sum, count)| *sum /= count);
    };
    found.probabilities.iter_mut().for_each(|sums| over(sums, &found.count));
    over(&mut found.uncertainty, &found.count);
    over(&mut found.sure, &found.count);
    found
}

/// A volume with dark slices before and behind where it has fewer than `slices`.
fn padded(image: &[f32], [depth, rows, columns]: [usize; 3], slices: usize) -> (usize, Vec<f32>) {
    let missing = slices.saturating_sub(depth);
    let dark = |count: usize| vec![0.0; count * rows * columns];
    (missing / 2, [&dark(missing / 2)[..], image, &dark(missing.div_ceil(2))].concat())
}

#[test]
fn golden_expansion_by_the_majority_of_windows() {
    let golden = Arrays::open(FILE);
    for name in ["sw", "swpad"] {
        let (shape, image) = golden.get(&format!("{name}.in.volume"));
        let shape: [usize; 3] = shape.try_into().unwrap();
        let image: Vec<f32> = image.into_iter().map(|value| value as f32).collect();
        let patch = extent(&golden, &format!("{name}.in.patch"));
        let (before, image) = padded(&image, shape, patch[0]);
        let whole = [shape[0].max(patch[0]), shape[1], shape[2]];
        let found = slide(&golden, name, &image, whole);
        let key = |of: &str| format!("{name}.out.{of}");
        let plane = shape[1] * shape[2];
        let inner = before * plane..(before + shape[0]) * plane;
        let [main, auxiliary] = &found.probabilities;
        let classes = main.len() / (whole[0] * plane);
        let labels = |maps: &[f32]| most_likely(maps, classes)[inner.clone()].to_vec();
        assert_eq!(labels(main), golden.bytes(&key("pred_main")));
        assert_eq!(labels(auxiliary), golden.bytes(&key("pred_aux")));
        let both = labels(&mean(main, auxiliary));
        assert_eq!(both, golden.bytes(&key("pred_mean")));
        assert_close(&key("uncertainty"), &found.uncertainty[inner.clone()], &golden);
        let sure: Vec<bool> = found.sure[inner].iter().map(|&share| share > 0.5).collect();
        let mask: Vec<u8> = sure.iter().map(|&is_sure| u8::from(is_sure)).collect();
        assert_eq!(mask, golden.bytes(&key("mask")));
        let expanded = |form: Form| form.expanded(&both, &sure, shape, Within::Volume);
        assert_eq!(expanded(Form::Background), golden.bytes(&key("pseudo")));
        assert_eq!(expanded(Form::Unlabelled), golden.bytes(&key("pseudo_ignore")));
    }
}

#[test]
fn golden_largest_parts() {
    let golden = Arrays::open(FILE);
    for (name, within) in [("m2", Within::Slices), ("m3", Within::Volume)] {
        let (shape, _) = golden.get(&format!("lcc.in.{name}"));
        let shape = [&vec![1; 3 - shape.len()][..], &shape].concat().try_into().unwrap();
        let mask = golden.bytes(&format!("lcc.in.{name}"));
        let found = Form::Background.expanded(&mask, &vec![true; mask.len()], shape, within);
        assert_eq!(found, golden.bytes(&format!("lcc.out.{name}")));
    }
}

#[test]
fn golden_intensities_of_its_data_sets() {
    let golden = Arrays::open(FILE);
    let scaled =
        |key: &str, intensities: Intensities| scale(intensities, &golden.get(key).1).unwrap();
    let clipped = scaled("acdc.in.volume", Intensities::Published);
    assert_close("acdc.out.clip99", &clipped, &golden);
    let values = golden.get("acdc.in.volume").1;
    let (low, high) = values
        .iter()
        .fold((f64::MAX, f64::MIN), |(low, high), &value| (low.min(value), high.max(value)));
    let whole = scaled("acdc.in.volume", Intensities::Window { low, high });
    assert_close("acdc.out.minmax", &whole, &golden);
    let window = Intensities::Window { low: -150.0, high: 250.0 };
    assert_close("word.out.image", &scaled("word.in.hu", window), &golden);
}
