//! Scores of lesions and the steps from a mask to its labels, against mlcb-jlu/MedImgSeg and the
//! libraries that it calls.

use crate::golden_arrays::Arrays;
use proptest::collection::vec;
use proptest::prelude::*;
use scrimp::metrics::LesionScores;
use scrimp::pseudo_labels::lesion::{
    SoftLesion, crf_scores, cut_corners, dark_pixels_cleared, is_lesion, reversed_levels,
    stored_grey, stretched_levels, watershed_label,
};

const FIVE: [&str; 8] = [
    "blob",
    "empty_pred",
    "empty_target",
    "both_empty",
    "one_voxel",
    "one_voxel_hit",
    "full",
    "gray128_127",
];

fn assert_close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() <= 1e-6, "{what}: {found}, expected {expected}");
}

fn floats(golden: &Arrays, key: &str) -> Vec<f32> {
    golden.get(key).1.into_iter().map(|value| value as f32).collect()
}

/// From planes of channels to the channels of each pixel.
fn interleaved<T: Copy>(planes: &[T]) -> Vec<T> {
    let pixels = planes.len() / 3;
    (0..planes.len()).map(|index| planes[index % 3 * pixels + index / 3]).collect()
}

#[test]
fn golden_lesion_scores() {
    let golden = Arrays::open("cltn");
    for case in FIVE {
        let levels = |key: &str| {
            let values = golden.get(&format!("five.{case}.in.{key}")).1;
            let map: Vec<bool> =
                values.iter().map(|value| is_lesion((value * 255.0).round() as u8)).collect();
            let expected: Vec<bool> = values.iter().map(|&value| value > 0.5).collect();
            assert_eq!(map, expected, "five.{case}.in.{key}");
            map
        };
        let scores = LesionScores::of(&levels("pred"), &levels("target")).unwrap();
        let LesionScores { jaccard, accuracy, dice, sensitivity, specificity } = scores;
        let found = [jaccard, accuracy, dice, sensitivity, specificity];
        for (found, expected) in found.into_iter().zip(golden.get(&format!("five.{case}.out")).1) {
            assert_close(found, expected, case);
        }
    }
    let failure = LesionScores::of(&[true; 2], &[true; 3]).unwrap_err();
    assert_eq!(failure.message(), "the prediction has 2 pixels, expected 3 as in the truth");
}

#[test]
fn golden_lesion_reversed_mask() {
    let golden = Arrays::open("cltn");
    // What is not black in the golden file may be darker than the first grey level.
    let level = |value: f32| if value > -1.0 { 255 } else { 0 };
    let image: Vec<u8> =
        interleaved(&floats(&golden, "test.in.real")).into_iter().map(level).collect();
    let mask = floats(&golden, "test.in.att");
    let masked = dark_pixels_cleared(&image, &mask[..mask.len() / 3]);
    assert_eq!(masked, interleaved(&floats(&golden, "test.out.masked")));
    let reversed = reversed_levels(&masked);
    assert_eq!(reversed, golden.bytes("test.out.reverse_u8"));
    assert_eq!(stored_grey(&reversed), golden.bytes("test.out.reverse_gray_u8"));
}

#[test]
fn golden_lesion_crf_scores() {
    let golden = Arrays::open("cltn");
    let grey = golden.bytes("test.out.reverse_gray_u8");
    let lesion = golden.get("crfin.out.lesion").1;
    for alpha in [1, 4, 8] {
        let background = golden.get(&format!("crfin.out.bg_alpha{alpha}")).1;
        let expected = background.iter().chain(&lesion);
        for (found, &expected) in crf_scores(&grey, alpha).into_iter().zip(expected) {
            assert_close(found, expected, "score");
        }
    }
}

#[test]
fn golden_lesion_corners_and_levels() {
    let golden = Arrays::open("cltn");
    let mut values = vec![1.0; 256 * 256];
    cut_corners(&mut values, 256);
    let cut = |row: &[f32]| row.iter().filter(|&&value| value == 0.0).count() as f64;
    let found: Vec<f64> = values.chunks_exact(256).map(cut).collect();
    assert_eq!(found, golden.get("crfin.cut_area_rowsum").1);
    let marginals = floats(&golden, "stretch.in.prob");
    assert_eq!(stretched_levels(&marginals), golden.bytes("stretch.out.u8"));
    // Multiplied by 255 these are still in [0, 1], or all one value.
    assert_eq!(stretched_levels(&[0.0, 0.5 / 255.0, 1.0 / 255.0]), [0, 127, 255]);
    assert_eq!(stretched_levels(&[0.5; 3]), [127; 3]);
}

#[test]
fn golden_lesion_watershed() {
    let golden = Arrays::open("cltn");
    for case in 0..2 {
        let (shape, _) = golden.get(&format!("water.{case}.in.u8"));
        let reversed: Vec<u8> =
            golden.bytes(&format!("water.{case}.in.u8")).into_iter().flat_map(|v| [v; 3]).collect();
        let label = watershed_label(&reversed, shape[1]).unwrap();
        let expected: Vec<u8> = golden
            .bytes(&format!("water.{case}.out.u8"))
            .into_iter()
            .flat_map(|level| [level; 3])
            .collect();
        assert_eq!(label, expected, "water.{case}");
    }
}

/// A bright lesion on a dark ground, seen by a mask that is not sure of itself.
#[test]
fn a_lesion_is_found_where_the_mask_and_the_image_agree() {
    const SIZE: usize = 96;
    let inside = |pixel: usize| {
        let (down, across) = ((pixel / SIZE).abs_diff(48), (pixel % SIZE).abs_diff(44));
        down * down + across * across < 14 * 14
    };
    let image: Vec<u8> =
        (0..SIZE * SIZE).flat_map(|pixel| [if inside(pixel) { 180 } else { 60 }; 3]).collect();
    let ripple = |pixel: usize| 0.2 * (pixel as f32 * 0.7).sin();
    let mask: Vec<f32> = (0..SIZE * SIZE)
        .map(|pixel| ripple(pixel) + if inside(pixel) { 0.7 } else { 0.25 })
        .collect();
    let lesion = SoftLesion { columns: SIZE, image: &image, mask: &mask };
    let truth: Vec<bool> = (0..SIZE * SIZE).map(inside).collect();
    let label = lesion.crf_label(1).unwrap();
    assert!(LesionScores::of(&label, &truth).unwrap().dice > 0.99);
    let painted = lesion.watershed_label().unwrap();
    assert_eq!(painted.len(), image.len());
    let short = SoftLesion { mask: &mask[1..], ..lesion };
    assert!(short.crf_label(1).unwrap_err().message().starts_with("a mask of 9215 pixels"));
    let beyond = vec![1.5; mask.len()];
    let failure = SoftLesion { mask: &beyond, ..lesion }.watershed_label().unwrap_err();
    assert_eq!(
        failure.message(),
        "the mask at row 0, column 0 is 1.5, expected a number from 0 to 1"
    );
}

proptest! {
    #[test]
    fn labels_have_the_shape_of_their_image_and_a_frame_without_lesion(
        columns in 1usize..40, rows in 1usize..40, seed in vec(0.0f32..=1.0, 40 * 40),
        levels in vec(any::<u8>(), 3 * 40 * 40),
    ) {
        let pixels = rows * columns;
        let lesion = SoftLesion { columns, image: &levels[..3 * pixels], mask: &seed[..pixels] };
        prop_assert_eq!(lesion.crf_label(2).unwrap().len(), pixels);
        let label = lesion.watershed_label().unwrap();
        prop_assert_eq!(label.len(), 3 * pixels);
        for (pixel, channels) in label.chunks_exact(3).enumerate() {
            let (row, column) = (pixel / columns, pixel % columns);
            let frame = row == 0 || row + 1 == rows || column == 0 || column + 1 == columns;
            prop_assert!(!frame || channels == [0; 3]);
        }
    }
}
