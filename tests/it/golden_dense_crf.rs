//! The dense CRF against `pydensecrf`, and what must hold for it on any picture.

use crate::golden_arrays::Arrays;
use proptest::collection::vec;
use proptest::prelude::*;
use scrimp::crf::{Bilateral, DenseCrf, Gaussian, Image, unary_costs};

/// The marginals of both are far closer where both round alike.
const TOLERANCE: f64 = 1e-4;

/// Every group of the golden file, and the iterations after which it has marginals.
const GROUPS: &[(&str, &str, &[usize])] = &[
    ("gaze", "gaze", &[1, 10]),
    ("cltn", "cltn.alpha1", &[1, 10]),
    ("cltn", "cltn.alpha4", &[1, 10]),
    ("multi", "multi", &[1, 5]),
    ("odd", "odd", &[3]),
    ("gauss", "gauss", &[1, 5]),
];

/// A field from the eight parameters of a golden group; a width of 0 means that a kernel is absent.
fn field(parameters: &[f64], iterations: usize) -> DenseCrf {
    let parameters: Vec<f32> = parameters.iter().map(|&value| value as f32).collect();
    let [width, strength, x, y, red, green, blue, compatibility] = parameters[..] else {
        panic!("{} parameters", parameters.len())
    };
    DenseCrf {
        gaussian: (width > 0.0)
            .then_some(Gaussian { widths_pixels: [width; 2], compatibility: strength }),
        bilateral: (x > 0.0).then_some(Bilateral {
            widths_pixels: [x, y],
            widths_levels: [red, green, blue],
            compatibility,
        }),
        iterations,
    }
}

#[test]
fn golden_dense_crf() {
    let golden = Arrays::open("dense-crf");
    for &(scene, group, iterations) in GROUPS {
        let pixels = golden.bytes(&format!("{scene}.in.image"));
        let columns = golden.get(&format!("{scene}.in.image")).0[1];
        let parameters = golden.get(&format!("{scene}.in.params")).1;
        let costs = unary_costs(&golden.get(&format!("{group}.in.prob")).1);
        let unary = golden.get(&format!("{group}.in.unary")).1;
        for (cost, expected) in costs.iter().zip(&unary) {
            assert!(
                (f64::from(*cost) - expected).abs() < 1e-5,
                "{group}: cost {cost}, expected {expected}"
            );
        }
        let unary: Vec<f32> = unary.iter().map(|&cost| cost as f32).collect();
        for &count in iterations {
            let image = Image { columns, pixels: &pixels };
            let marginals = field(&parameters, count).marginals(image, &unary).unwrap();
            let expected = golden.get(&format!("{group}.out.q{count}")).1;
            assert_eq!(marginals.len(), expected.len(), "{group}");
            for (index, (found, expected)) in marginals.iter().zip(expected).enumerate() {
                let difference = (f64::from(*found) - expected).abs();
                assert!(
                    difference <= TOLERANCE,
                    "{group} after {count}: element {index} is {found}, expected {expected}"
                );
            }
        }
    }
}

fn any_field() -> impl Strategy<Value = DenseCrf> {
    let gaussian = (0.5f32..9.0, 0.5f32..9.0, 0.0f32..5.0)
        .prop_map(|(x, y, compatibility)| Gaussian { widths_pixels: [x, y], compatibility });
    let bilateral = (2.0f32..90.0, 2.0f32..90.0, 3.0f32..60.0, 0.0f32..9.0).prop_map(
        |(x, y, levels, compatibility)| Bilateral {
            widths_pixels: [x, y],
            widths_levels: [levels, levels * 1.3, levels * 0.7],
            compatibility,
        },
    );
    (prop::option::of(gaussian), prop::option::of(bilateral), 0usize..6)
        .prop_map(|(gaussian, bilateral, iterations)| DenseCrf { gaussian, bilateral, iterations })
}

/// Columns, grey levels, number of labels, and scores of every label and pixel.
fn scenes() -> impl Strategy<Value = (usize, Vec<u8>, usize, Vec<f64>)> {
    (1usize..9, 1usize..9, 1usize..11).prop_flat_map(|(rows, columns, labels)| {
        let pixels = rows * columns;
        (
            Just(columns),
            vec(any::<u8>(), 3 * pixels),
            Just(labels),
            vec(0.0..1.0f64, labels * pixels),
        )
    })
}

proptest! {
    #[test]
    fn marginals_are_probabilities_and_follow_their_labels(
        (columns, pixels, labels, scores) in scenes(), field in any_field(), turn in 0usize..11,
    ) {
        let image = Image { columns, pixels: &pixels };
        let marginals = field.marginals(image, &unary_costs(&scores)).unwrap();
        prop_assert_eq!(marginals.len(), scores.len());
        let count = pixels.len() / 3;
        for pixel in 0..count {
            let sum: f32 = marginals[pixel..].iter().step_by(count).sum();
            prop_assert!((sum - 1.0).abs() < 1e-5, "pixel {pixel} sums to {sum}");
        }
        prop_assert!(marginals.iter().all(|marginal| (0.0..=1.0).contains(marginal)));
        let (mut turned_scores, mut expected) = (scores.clone(), marginals);
        turned_scores.rotate_left(turn % labels * count);
        expected.rotate_left(turn % labels * count);
        let turned = field.marginals(image, &unary_costs(&turned_scores)).unwrap();
        for (found, expected) in turned.iter().zip(expected) {
            prop_assert!((found - expected).abs() < 1e-3, "{found}, expected {expected}");
        }
    }

    #[test]
    fn what_says_nothing_stays_uniform(
        (columns, pixels, labels, _) in scenes(), field in any_field(), level in any::<u8>(),
    ) {
        let pixels = vec![level; pixels.len()];
        let unary = vec![0.7; labels * pixels.len() / 3];
        let marginals = field.marginals(Image { columns, pixels: &pixels }, &unary).unwrap();
        let share = 1.0 / labels as f32;
        prop_assert!(marginals.iter().all(|marginal| (marginal - share).abs() < 1e-6));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let gaussian = Gaussian { widths_pixels: [3.0; 2], compatibility: 3.0 };
    let field = DenseCrf { gaussian: Some(gaussian), bilateral: None, iterations: 1 };
    let message = |field: DenseCrf, columns: usize, unary: &[f32]| {
        let image = Image { columns, pixels: &[9; 18] };
        field.marginals(image, unary).unwrap_err().message().to_owned()
    };
    assert_eq!(
        message(field, 4, &[0.0; 12]),
        "a picture has 18 grey levels in rows of 4 pixels, expected whole rows of three channels"
    );
    assert_eq!(
        message(field, 3, &[0.0; 13]),
        "there are 13 unary costs for 6 pixels, expected a plane of them for every label"
    );
    assert_eq!(
        message(field, 3, &[f32::NAN; 6]),
        "the cost of label 0 in pixel 0 is NaN, expected a finite one"
    );
    let with = |gaussian| DenseCrf { gaussian: Some(gaussian), ..field };
    assert_eq!(
        message(with(Gaussian { widths_pixels: [3.0, 0.0], ..gaussian }), 3, &[0.0; 6]),
        "the width of a kernel is 0, expected a positive number"
    );
    assert_eq!(
        message(with(Gaussian { compatibility: f32::INFINITY, ..gaussian }), 3, &[0.0; 6]),
        "the compatibility of a kernel is inf, expected a finite number"
    );
    for width in [1e-12, f32::MIN_POSITIVE / 8.0] {
        let narrow = with(Gaussian { widths_pixels: [width; 2], ..gaussian });
        assert!(message(narrow, 3, &[0.0; 6]).contains("steps of the lattice"), "{width}");
    }
}
