//! The way of slices of CycleMix against its released code: resampling, rotation, crop, normalisation, the way
//! back, and Dice.

use crate::golden_arrays::Arrays;
use scrimp::data::augment::{Centred, Draw, Fit, FullRotation, Resample, Sample, Slice, Transform};
use scrimp::metrics::LabelPair;
use scrimp::preparation::{
    Channel, Crop, Intensities, Interpolation, NativeLabels, Over, Preparation, Prepared, Regrid,
    Spacing,
};
use scrimp::scan::{Grid, Scan};

const FILE: &str = "cyclemix";
/// Rounding of the reference in single precision.
const TOLERANCE: f32 = 1e-5;

/// Numbers of a golden array as images, its rows and its columns.
fn image(arrays: &Arrays, key: &str) -> (Vec<f32>, [usize; 2]) {
    let (shape, values) = arrays.get(key);
    let [.., rows, columns] = shape[..] else { panic!("{key}: {shape:?}") };
    (values.into_iter().map(|value| value as f32).collect(), [rows, columns])
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < TOLERANCE, "{what} {index}: {found} {expected}");
    }
}

/// A slice with `scale` times as many rows and columns by straight lines.
fn rescaled(voxels: Vec<f32>, [rows, columns]: [usize; 2], scale: [f64; 2]) -> Prepared {
    let grid = Grid::unplaced([1, rows, columns], Some([8.0, scale[0], scale[1]]));
    let preparation = Preparation {
        crop: Crop::None,
        interpolation: Interpolation::Linear,
        spacing: Spacing::InPlane([1.0, 1.0]),
        channels: vec![Channel { name: "lge".into(), intensities: Intensities::AsStored }],
        ..Preparation::grey(Intensities::AsStored)
    };
    preparation.apply(Scan { grid, channels: 1, voxels }).unwrap()
}

/// The scale by which rows and columns become others.
fn scale(from: [usize; 2], to: [usize; 2]) -> [f64; 2] {
    [to[0] as f64 / from[0] as f64, to[1] as f64 / from[1] as f64]
}

#[test]
fn golden_slices_are_rescaled_with_their_labels() {
    let arrays = Arrays::open(FILE);
    let (stored, shape) = image(&arrays, "data.in.image");
    let labels = arrays.bytes("data.in.label");
    for (by, made) in [("data.in.scale", "rescaled"), ("data.in.scale_up", "rescaled_up")] {
        let scale: [f64; 2] = arrays.get(by).1.try_into().unwrap();
        let (expected, to) = image(&arrays, &format!("data.out.{made}"));
        let Prepared { scan, regrid, .. } = rescaled(stored.clone(), shape, scale);
        assert_eq!(scan.grid.shape, [1, to[0], to[1]], "{made}");
        assert_close(&scan.voxels, &expected, made);
        let expected = arrays.bytes(&format!("data.out.{made}_label"));
        assert_eq!(regrid.carry_annotation(&labels).unwrap().values, expected, "{made}");
        assert_eq!(regrid.carry_dense(&labels).unwrap(), expected, "{made}");
    }
}

#[test]
fn golden_probabilities_come_back_to_the_size_of_the_file() {
    let arrays = Arrays::open(FILE);
    for name in ["infer.crop", "infer.mix"] {
        let (predicted, seen) = image(&arrays, &format!("{name}.in.prob"));
        let sizes = arrays.bytes(&format!("{name}.in.shape"));
        let [rows, columns, file_rows, file_columns] = [0, 1, 2, 3].map(|i| usize::from(sizes[i]));
        let (prepared, file) = ([rows, columns], [file_rows, file_columns]);
        let canvas = Centred::cut(&predicted, seen, prepared, 0.0);
        let (expected, _) = image(&arrays, &format!("{name}.out.prob"));
        let pixels = file_rows * file_columns;
        for (canvas, expected) in
            canvas.chunks_exact(rows * columns).zip(expected.chunks_exact(pixels))
        {
            let back = rescaled(canvas.to_vec(), prepared, scale(prepared, file)).scan;
            assert_close(&back.voxels, expected, name);
        }
        // The way of a whole scan takes shares of what lies within the file, so that they add up to 1.
        let known =
            rescaled(vec![1.0; rows * columns], prepared, scale(prepared, file)).scan.voxels;
        let regrid: Regrid = rescaled(vec![0.0; pixels], file, scale(file, prepared)).regrid;
        let mut native = NativeLabels::new(regrid, predicted.len() / (seen[0] * seen[1]));
        let (mut labels, mut found) = (Vec::new(), Vec::new());
        let mut take = |slice: scrimp::preparation::NativeSlice<'_>| {
            labels.extend_from_slice(slice.labels);
            found.extend(slice.probabilities.iter().zip(known.iter().cycle()).map(|(p, k)| p * k));
            Ok(())
        };
        native.each_slice(&canvas, true, &mut take).unwrap();
        assert_eq!(labels, arrays.bytes(&format!("{name}.out.label")), "{name}");
        assert_close(&found, &expected, name);
    }
}

/// Image and labels of a slice after `transform`.
fn made(
    transform: Transform,
    (image, labels): (&[f32], &[u8]),
    shape: [usize; 2],
    to: [usize; 2],
) -> (Vec<f32>, Vec<u8>) {
    let slice = Slice { shape, image, annotation: labels, outside: 0 };
    let (mut image, mut annotation) = (vec![f32::NAN; to[0] * to[1]], vec![77; to[0] * to[1]]);
    let mut sample = Sample { shape: to, image: &mut image, annotation: &mut annotation };
    transform.apply(&slice, &mut sample);
    (image, annotation)
}

#[test]
fn golden_slices_are_cropped_and_padded_about_their_middle() {
    let arrays = Arrays::open(FILE);
    let transform = Transform { resample: Resample::None, draw: Draw::Keep, fit: Fit::Crop };
    let mut count = 0;
    while arrays.has(&format!("pad.{count}.in.image")) {
        let key = |what: &str| format!("pad.{count}.{what}");
        let ((stored, shape), labels) =
            (image(&arrays, &key("in.image")), arrays.bytes(&key("in.label")));
        let (expected, to) = image(&arrays, &key("out.image"));
        let (found, found_labels) = made(transform, (&stored, &labels), shape, to);
        assert_eq!(found, expected, "{count}");
        assert_eq!(found_labels, arrays.bytes(&key("out.label")), "{count}");
        assert_eq!(Centred::cut(&stored, shape, to, 0.0), expected, "{count}");
        count += 1;
    }
    assert!(count > 0);
}

fn rotation(degrees: f64) -> Transform {
    let full = FullRotation { flips: [false; 2], quarter_turns: 0, degrees };
    Transform { resample: Resample::FullRotation, draw: Draw::Full(full), fit: Fit::Crop }
}

/// Pixels whose nearest source is no matter of rounding.
fn decided([rows, columns]: [usize; 2], degrees: f64) -> Vec<bool> {
    let (sine, cosine) = degrees.to_radians().sin_cos();
    let (middle_row, middle_column) = ((rows as f64 - 1.0) / 2.0, (columns as f64 - 1.0) / 2.0);
    let is_decided = |row: usize, column: usize| {
        let (y, x) = (row as f64 - middle_row, column as f64 - middle_column);
        let source = [cosine * x - sine * y + middle_column, sine * x + cosine * y + middle_row];
        source.iter().all(|at| ((at - at.floor()) - 0.5).abs() > 1e-4)
    };
    (0..rows).flat_map(|row| (0..columns).map(move |column| is_decided(row, column))).collect()
}

#[test]
fn golden_slices_are_rotated_by_any_angle_and_back() {
    let arrays = Arrays::open(FILE);
    let mut compared = 0;
    for name in ["rot.even", "rot.odd"] {
        let key = |what: &str| format!("{name}.{what}");
        let ((images, shape), labels) =
            (image(&arrays, &key("in.image")), arrays.bytes(&key("in.label")));
        let pixels = shape[0] * shape[1];
        let angles = arrays.get(&key("in.angle")).1;
        let maps = labels.len() / (angles.len() * pixels);
        let expected = ["out.image", "out.back"].map(|what| image(&arrays, &key(what)).0);
        let expected_labels = ["out.label", "out.label_back"].map(|what| arrays.bytes(&key(what)));
        for (number, &degrees) in angles.iter().enumerate() {
            let stored = &images[number * pixels..][..pixels];
            for map in 0..maps {
                let place = (number * maps + map) * pixels;
                let turned =
                    made(rotation(degrees), (stored, &labels[place..][..pixels]), shape, shape);
                let back = made(rotation(-degrees), (&turned.0, &turned.1), shape, shape);
                for (way, (found, found_labels)) in [turned, back].iter().enumerate() {
                    let decided = decided(shape, if way == 0 { degrees } else { -degrees });
                    for pixel in (0..pixels).filter(|&pixel| decided[pixel]) {
                        let at = number * pixels + pixel;
                        assert!((found[pixel] - expected[way][at]).abs() < 1e-6, "{name} {pixel}");
                        assert_eq!(found_labels[pixel], expected_labels[way][place + pixel]);
                        compared += 1;
                    }
                }
            }
        }
    }
    assert!(compared > 20_000, "{compared}");
    let counted: Vec<f32> = (0..64u8).map(f32::from).collect();
    for degrees in [45, 90, 180, 270] {
        let (expected, shape) = image(&arrays, &format!("rot.grid8.out.{degrees}"));
        let (found, _) = made(rotation(f64::from(degrees)), (&counted, &[0; 64]), shape, shape);
        for (pixel, is_decided) in decided(shape, f64::from(degrees)).into_iter().enumerate() {
            assert!(
                !is_decided || (found[pixel] - expected[pixel]).abs() < 0.5,
                "{degrees}: {pixel}"
            );
        }
    }
}

#[test]
fn golden_slices_are_normalised_one_by_one() {
    let arrays = Arrays::open(FILE);
    let keys = ["norm.in.first", "norm.in.second"].map(|key| image(&arrays, key));
    let [rows, columns] = keys[0].1;
    let voxels = keys.iter().flat_map(|(voxels, _)| voxels.clone()).collect();
    let grid = Grid::unplaced([2, rows, columns], None);
    let preparation = Preparation::grey(Intensities::ZScore { over: Over::Slice });
    let found = preparation.apply(Scan { grid, channels: 1, voxels }).unwrap().scan.voxels;
    let pixels = rows * columns;
    // The deviation is that of the pixels; the reference divides by one fewer while it trains.
    let unbiased = ((pixels as f32 - 1.0) / pixels as f32).sqrt();
    let found: Vec<f32> = found.iter().map(|value| value * unbiased).collect();
    for (key, found) in ["norm.out.first", "norm.out.second_fixed"].iter().zip(found.chunks(pixels))
    {
        assert_close(found, &image(&arrays, key).0, key);
    }
}

#[test]
fn golden_dice_of_volumes() {
    let arrays = Arrays::open(FILE);
    let shape: [usize; 3] = arrays.get("met.in.gt").0.try_into().unwrap();
    let (prediction, truth) = (arrays.bytes("met.in.pred"), arrays.bytes("met.in.gt"));
    let pair = LabelPair::new(&prediction, &truth, shape, [1.0; 3]).unwrap();
    // Left ventricle, right ventricle, myocardium; where both are empty the reference counts 1.
    for (class, expected) in [3, 1, 2].into_iter().zip(arrays.get("met.out.test").1) {
        let dice = pair.overlap(class).dice().unwrap_or(1.0);
        assert!((dice - expected).abs() < 1e-12, "{class}: {dice} {expected}");
    }
}
