//! From fixations to levels, and from pictures to what a network sees, against the published code of GazeMedSeg.

use crate::golden_arrays::Arrays;
use scrimp::gaze::{Canvas, FIELD, Fixation, heatmap_on, reached, refined, resized, unit_range};
use scrimp::preparation::{Intensities, Over, Preparation, Prepared};
use scrimp::scan::{Grid, Scan};

const FILE: &str = "gazesup";

/// Mean and deviation of the pictures of ImageNet in red, green and blue, as shares of white.
const IMAGENET: [[f64; 2]; 3] = [[0.485, 0.229], [0.456, 0.224], [0.406, 0.225]];

fn assert_close(found: &[f32], expected: &[f64], (tolerance, what): (f64, &str)) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(*found) - expected).abs();
        assert!(difference <= tolerance, "{what} {index}: {found}, expected {expected}");
    }
}

/// Canvas and shape of a map, its deviation, and the fixations.
fn scene(arrays: &Arrays, group: &str) -> ([usize; 2], [usize; 2], f64, Vec<Fixation>) {
    let parameters = arrays.get(&format!("{group}.in.params")).1;
    let extent = |place: usize| parameters[place] as usize;
    let points = arrays.get(&format!("{group}.in.points")).1;
    let fixations = points.as_chunks::<3>().0.iter();
    let fixation = |&[x, y, duration_ms]: &[f64; 3]| Fixation { x, y, duration_ms };
    let fixations = fixations.map(fixation).collect();
    ([extent(2), extent(3)], [extent(0), extent(1)], parameters[4], fixations)
}

#[test]
fn golden_gaze_maps_are_those_of_the_published_code_to_the_last_level() {
    let arrays = Arrays::open(FILE);
    for group in ["heat.0", "heat.1", "heat.2"] {
        let (canvas, shape, deviation, fixations) = scene(&arrays, group);
        let map = heatmap_on(canvas, &fixations, deviation, shape).unwrap();
        assert_eq!(map, arrays.bytes(&format!("{group}.out.u8")), "{group}");
    }
    let (canvas, _, deviation, fixations) = scene(&arrays, "heat.2");
    let canvas = Canvas::of(&fixations, canvas);
    let blurred = canvas.blurred(deviation);
    assert_close(&blurred, &arrays.get("heat.2.mid.blur").1, (0.0, "blurred"));
    let unit = unit_range(&blurred).unwrap();
    assert_close(&unit, &arrays.get("heat.2.mid.norm").1, (0.0, "scaled"));
    // Without any smoothing the canvas itself is left.
    let points = canvas.blurred(0.1);
    assert_close(&points, &arrays.get("heat.2.mid.points").1, (0.0, "canvas"));
}

#[test]
fn golden_gaze_levels_are_reached_where_the_published_code_says() {
    let arrays = Arrays::open(FILE);
    let (shape, expected) = arrays.get("pre.out.crf_resized");
    let to = [shape[0], shape[1]];
    let map = arrays.bytes("pre.in.crf_u8");
    let from = arrays.get("pre.in.crf_u8").0;
    let shares = resized(&map, [from[0], from[1]], to);
    for (found, expected) in shares.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
    let levels = [0.2, 0.3, 0.4, 0.5];
    let found = reached(&shares, &levels);
    for (index, name) in ["20", "30", "40", "50"].into_iter().enumerate() {
        let above: Vec<u8> =
            found.iter().map(|&value| u8::from(usize::from(value) > index)).collect();
        assert_eq!(above, arrays.bytes(&format!("pre.out.label_{name}")), "{name}");
    }
}

#[test]
fn golden_gaze_pictures_come_to_their_size_as_in_the_published_code() {
    let arrays = Arrays::open(FILE);
    let levels = |[mean, deviation]: [f64; 2]| Intensities::Fixed {
        low: 0.0,
        high: 255.0,
        mean: 255.0 * mean,
        deviation: 255.0 * deviation,
    };
    let slices = Intensities::ZScore { over: Over::Slice };
    for (picture, name, preparation) in [
        ("pre.in.image_u8", "pre.out.image", Preparation::picture(IMAGENET.map(levels))),
        ("pre.in.prostate", "pre.out.prostate", Preparation::grey(slices)),
    ] {
        let (shape, voxels) = arrays.get(picture);
        let [.., rows, columns] = shape[..] else { panic!("{shape:?}") };
        let (to, expected) = arrays.get(name);
        let [.., to_rows, to_columns] = to[..] else { panic!("{to:?}") };
        let grid = Grid::unplaced([1, rows, columns], None);
        let voxels: Vec<f32> = voxels.into_iter().map(|value| value as f32).collect();
        let scan = Scan { grid, channels: voxels.len() / (rows * columns), voxels };
        let Prepared { scan, regrid, .. } =
            preparation.resized([to_rows, to_columns]).apply(scan).unwrap();
        assert_close(&scan.voxels, &expected, (1e-5, name));
        let labels = arrays.bytes("pre.in.label_u8");
        let expected = arrays.bytes("pre.out.label_nearest");
        assert_eq!(regrid.carry_dense(&labels).unwrap(), expected, "{name}");
    }
}

#[test]
fn golden_gaze_is_refined_by_the_field_of_the_card() {
    let arrays = Arrays::open("dense-crf");
    let parameters = arrays.get("gaze.in.params").1;
    let found = FIELD.bilateral.unwrap();
    assert!(FIELD.gaussian.is_none() && FIELD.iterations == 10 && parameters[0] <= 0.0);
    let of_field = found.widths_pixels.into_iter().chain(found.widths_levels);
    let of_field: Vec<f64> = of_field.chain([found.compatibility]).map(f64::from).collect();
    assert_eq!(of_field, parameters[2..]);
    // The scores of the golden file are those of a map of levels, or near to one.
    let pixels = arrays.bytes("gaze.in.image");
    let columns = arrays.get("gaze.in.image").0[1];
    let scores = arrays.get("gaze.in.prob").1;
    let looked = &scores[scores.len() / 2..];
    let map: Vec<u8> = looked.iter().map(|share| (share * 255.0).round() as u8).collect();
    let image = scrimp::crf::Image { columns, pixels: &pixels };
    let refined = refined(&map, image, &FIELD).unwrap();
    let expected = &arrays.get("gaze.out.q10").1[map.len()..];
    for (index, (level, marginal)) in refined.iter().zip(expected).enumerate() {
        let difference = (f64::from(*level) - (255.0 * marginal).floor()).abs();
        assert!(difference <= 1.0, "pixel {index}: {level}, expected {}", 255.0 * marginal);
    }
}
