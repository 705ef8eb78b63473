//! The reference resampling against scipy and the published augmentation, pixel for pixel.

use safetensors::{Dtype, SafeTensors};
use scrimp::data::augment::{Draw, Resample, Sample, Slice, Transform, zoom_image, zoom_labels};
use std::path::PathBuf;

/// The golden files call pixels of unknown class 4.
const IGNORE: u8 = 4;

/// A two-dimensional array of a golden file.
struct Array {
    shape: [usize; 2],
    values: Vec<f64>,
}

impl Array {
    fn image(&self) -> Vec<f32> {
        self.values.iter().map(|&value| value as f32).collect()
    }

    fn labels(&self) -> Vec<u8> {
        self.values.iter().map(|&value| value as u8).collect()
    }
}

struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    fn open() -> Self {
        let folder = std::env::var_os("SCRIMP_GOLDEN_DIR").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")),
            PathBuf::from,
        );
        let file = folder.join("base-unet.safetensors");
        let bytes = std::fs::read(&file)
            .unwrap_or_else(|error| panic!("golden file `{}`: {error}", file.display()));
        Self { bytes }
    }

    fn keys(&self) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        file.names().into_iter().map(ToString::to_string).collect()
    }

    fn get(&self, key: &str) -> Array {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(key).unwrap_or_else(|error| panic!("`{key}`: {error}"));
        let bytes = tensor.data();
        let values = match tensor.dtype() {
            Dtype::F32 => numbers(bytes, |b| f64::from(f32::from_le_bytes(b))),
            Dtype::I32 => numbers(bytes, |b| f64::from(i32::from_le_bytes(b))),
            Dtype::I64 => numbers(bytes, |b| i64::from_le_bytes(b) as f64),
            Dtype::U8 => bytes.iter().map(|&b| f64::from(b)).collect(),
            other => panic!("`{key}` is {other:?}"),
        };
        let shape = match *tensor.shape() {
            [] => [1, 1],
            [length] => [length, 1],
            [rows, columns] | [1, rows, columns] => [rows, columns],
            ref other => panic!("`{key}` has shape {other:?}"),
        };
        Array { shape, values }
    }

    /// The numbers `n` of keys `PREFIXn.SUFFIX`.
    fn numbers(&self, prefix: &str, suffix: &str) -> Vec<usize> {
        let keys = self.keys();
        let number = |key: &String| key.strip_prefix(prefix)?.strip_suffix(suffix)?.parse().ok();
        let found: Vec<usize> = keys.iter().filter_map(number).collect();
        assert!(!found.is_empty(), "no `{prefix}N{suffix}`");
        found
    }
}

fn numbers<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    bytes.chunks_exact(N).map(|chunk| number(chunk.try_into().unwrap())).collect()
}

/// The sample of `shape` that `draw` makes of an image and its labels.
fn applied(draw: Draw, image: &Array, labels: &Array, shape: [usize; 2]) -> (Vec<f32>, Vec<u8>) {
    assert_eq!(image.shape, labels.shape);
    let (from_image, from_labels) = (image.image(), labels.labels());
    let slice =
        Slice { shape: image.shape, image: &from_image, annotation: &from_labels, outside: IGNORE };
    // Not what any pixel should be: a pixel left out shows.
    let (mut out, mut out_labels) =
        (vec![f32::NAN; shape[0] * shape[1]], vec![77; shape[0] * shape[1]]);
    let mut sample = Sample { shape, image: &mut out, annotation: &mut out_labels };
    Transform::resizing(Resample::Reference, draw).apply(&slice, &mut sample);
    (out, out_labels)
}

#[test]
fn golden_turns_and_flips() {
    let golden = Golden::open();
    let (image, labels) = (golden.get("rotflip.in.image"), golden.get("rotflip.in.label"));
    for number in golden.numbers("rotflip", ".in.k_axis") {
        let drawn = golden.get(&format!("rotflip{number}.in.k_axis")).values;
        let draw = Draw::Turn { quarter_turns: drawn[0] as u8, flip_axis: drawn[1] as u8 };
        let expected = golden.get(&format!("rotflip{number}.out.image"));
        let (out, out_labels) = applied(draw, &image, &labels, expected.shape);
        assert_eq!(out, expected.image(), "{draw:?}");
        assert_eq!(out_labels, golden.get(&format!("rotflip{number}.out.label")).labels());
    }
}

#[test]
fn golden_rotations() {
    let golden = Golden::open();
    let (image, labels) = (golden.get("rotate.in.image"), golden.get("rotate.in.label"));
    let dense = golden.get("rotate.in.dense");
    for number in golden.numbers("rotate", ".in.angle") {
        let degrees = golden.get(&format!("rotate{number}.in.angle")).values[0] as i32;
        let draw = Draw::Rotate { degrees };
        let expected = |what: &str| golden.get(&format!("rotate{number}.out.{what}"));
        let (out, out_labels) = applied(draw, &image, &labels, image.shape);
        assert_eq!(out, expected("image").image(), "{draw:?}");
        assert_eq!(out_labels, expected("label").labels(), "{draw:?}");
        let (_, out_dense) = applied(draw, &image, &dense, image.shape);
        assert_eq!(out_dense, expected("dense").labels(), "{draw:?}");
    }
}

#[test]
fn golden_zooms() {
    let golden = Golden::open();
    let (image, expected) = (golden.get("zoom.in.image"), golden.get("zoom.out.image"));
    assert_eq!(zoom_image(&image.image(), image.shape, expected.shape), expected.image());
    for key in golden.keys().iter().filter(|key| key.starts_with("zoomidx.")) {
        let (from, to) = key["zoomidx.".len()..].split_once('_').unwrap();
        let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
        // Pixels that know their index, counted from 1, so that 0 is a pixel without a source.
        let column: Vec<f32> = (1..=from).map(|index| index as f32).collect();
        let expected: Vec<f32> = golden.get(key).values.iter().map(|&i| i as f32 + 1.0).collect();
        assert_eq!(zoom_image(&column, [from, 1], [to, 1]), expected, "{key}, rows");
        assert_eq!(zoom_image(&column, [1, from], [1, to]), expected, "{key}, columns");
        let labels: Vec<u8> = (0..from).map(|index| (index % 250) as u8 + 1).collect();
        let label = |&index: &f32| if index > 0.0 { labels[index as usize - 1] } else { 0 };
        let expected: Vec<u8> = expected.iter().map(label).collect();
        assert_eq!(zoom_labels(&labels, [from, 1], [to, 1]), expected, "{key}, labels");
    }
}

/// Every draw there is.
fn draws() -> Vec<Draw> {
    let turns = (0..8).map(|n| Draw::Turn { quarter_turns: n % 4, flip_axis: n / 4 });
    let rotations = (-20..20).map(|degrees| Draw::Rotate { degrees });
    turns.chain(rotations).chain([Draw::Keep]).collect()
}

// The file stores results but not draws: one of all draws must give image, annotation and mask.
#[test]
fn golden_whole_generator() {
    let golden = Golden::open();
    let (image, labels) = (golden.get("gen.in.image"), golden.get("gen.in.label"));
    let mask = golden.get("gen.in.mask");
    for number in golden.numbers("gen", ".out.image") {
        let expected = |what: &str| golden.get(&format!("gen{number}.out.{what}"));
        let shape = expected("image").shape;
        let fits = |&draw: &Draw| {
            let (out, out_labels) = applied(draw, &image, &labels, shape);
            // Masks take part in turns and flips, but are never rotated.
            let of_mask = if matches!(draw, Draw::Turn { .. }) { draw } else { Draw::Keep };
            let (_, out_mask) = applied(of_mask, &mask, &mask, shape);
            out == expected("image").image()
                && out_labels == expected("label").labels()
                && out_mask == expected("mask").labels()
        };
        assert!(draws().iter().any(fits), "no draw gives `gen{number}`");
    }
}
