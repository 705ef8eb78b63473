//! Random-walker labels against scikit-image's direct solver.

use crate::golden_arrays::Arrays;
use scrimp::pseudo_labels::{Absent, Scribbled};

const CLASSES: usize = 4;

/// A slice of a golden file: image and scribble, where 4 means unlabelled.
struct Slice {
    shape: [usize; 2],
    image: Vec<f32>,
    scribble: Vec<u8>,
}

impl Slice {
    fn of(golden: &Arrays, image: &str, scribble: &str) -> Self {
        let (shape, values) = golden.get(image);
        let image = values.iter().map(|&value| value as f32).collect();
        Self { shape: shape.try_into().unwrap(), image, scribble: golden.bytes(scribble) }
    }

    fn scribbled(&self) -> Scribbled<'_> {
        let columns = self.shape[1];
        Scribbled { columns, image: &self.image, scribble: &self.scribble, classes: CLASSES }
    }
}

#[test]
fn golden_random_walker() {
    let golden = Arrays::open("pseudo-labels");
    let slice = Slice::of(&golden, "rw.in.image", "rw.in.scribble");
    let [rows, columns] = slice.shape;
    let [right, down] = slice.scribbled().conductances();
    let close = |found: f64, expected: f64, tolerance: f64, what: &str| {
        assert!((found - expected).abs() <= tolerance, "{what}: {found}, expected {expected}");
    };
    for (index, &expected) in golden.get("rw.out.weight_right").1.iter().enumerate() {
        let pixel = index / (columns - 1) * columns + index % (columns - 1);
        close(right[pixel], expected, 2e-5, "conductance to the right");
    }
    for (pixel, &expected) in golden.get("rw.out.weight_down").1.iter().enumerate() {
        close(down[pixel], expected, 2e-5, "conductance downwards");
    }
    let probabilities = slice.scribbled().probabilities().unwrap();
    for (index, &expected) in golden.get("rw.out.prob").1.iter().enumerate() {
        let (class, pixel) = (index / (rows * columns), index % (rows * columns));
        close(probabilities[pixel * CLASSES + class], expected, 2e-5, "probability");
    }
    let labels = slice.scribbled().random_walker(Absent::AllBackground).unwrap();
    assert_eq!(labels, golden.bytes("rw.out.label"));
}

#[test]
fn golden_random_walker_of_a_whole_slice() {
    let golden = Arrays::open("pseudo-labels");
    let slice = Slice::of(&golden, "rw_native.in.image", "rw_native.in.scribble");
    let expected = golden.bytes("rw_native.out.label");
    for absent in [Absent::AllBackground, Absent::LeftOut] {
        assert_eq!(slice.scribbled().random_walker(absent).unwrap(), expected);
    }
    let probabilities = slice.scribbled().probabilities().unwrap();
    for (class, expected) in golden.get("rw_native.out.prob_sum").1.into_iter().enumerate() {
        let sum: f64 = probabilities.iter().skip(class).step_by(CLASSES).sum();
        assert!((sum - expected).abs() < 0.05, "class {class}: {sum}, expected {expected}");
    }
}

#[test]
fn golden_random_walker_without_a_structure() {
    let golden = Arrays::open("pseudo-labels");
    let slice = Slice::of(&golden, "rw_native.in.image", "rw_missing.in.scribble");
    let labels = slice.scribbled().random_walker(Absent::AllBackground).unwrap();
    assert_eq!(labels, golden.bytes("rw_missing.out.label"));
    let labels = slice.scribbled().random_walker(Absent::LeftOut).unwrap();
    // Files made of real slices do not have it.
    if golden.has("rw_missing.out.label_left_out") {
        assert_eq!(labels, golden.bytes("rw_missing.out.label_left_out"));
    }
    assert!(labels.contains(&2) && !labels.contains(&1));
}
