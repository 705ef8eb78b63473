//! Simulated scribbles against the published generator: pixel for pixel, with its recorded draws.

use crate::golden_arrays::Arrays;
use scrimp::scribbles::{
    Chance, Mask, UNLABELLED, cut_branches, erode, rotate, scribble, shift, shorten, thin,
};
use std::collections::VecDeque;

/// Masks of `[N, rows, columns]`.
fn masks(golden: &Arrays, key: &str) -> Vec<Mask> {
    let (shape, values) = golden.get(key);
    let [rows, columns] = shape[shape.len() - 2..] else { panic!("`{key}` has shape {shape:?}") };
    let pixels: Vec<bool> = values.iter().map(|&value| value > 0.0).collect();
    let mask = |part: &[bool]| Mask { columns, pixels: part.to_vec() };
    pixels.chunks_exact(rows * columns).map(mask).collect()
}

fn mask(golden: &Arrays, key: &str) -> Mask {
    masks(golden, key).remove(0)
}

/// Draws that were recorded, each in the order in which it was used.
struct Recorded {
    shares: VecDeque<f64>,
    directions: VecDeque<u8>,
    shifts: VecDeque<isize>,
    degrees: VecDeque<f64>,
}

impl Recorded {
    fn of(golden: &Arrays, prefix: &str) -> Self {
        let key = |name: &str| format!("{prefix}.in.{name}");
        let has_shares = golden.has(&key("u"));
        let shares = if has_shares { golden.get(&key("u")).1 } else { Vec::new() };
        let directions = golden.get(&key("picks")).1.into_iter().filter(|&code| code >= 0.0);
        let shifts = golden.get(&key("shift_yx")).1.into_iter().filter(|&by| by > -99.0);
        let degrees = golden.get(&key("angle")).1.into_iter().filter(|&angle| angle < 999.0);
        Self {
            shares: shares.into_iter().filter(|&share| share >= 0.0).collect(),
            directions: directions.map(|code| code as u8).collect(),
            shifts: shifts.map(|by| by as isize).collect(),
            degrees: degrees.collect(),
        }
    }

    fn assert_used_up(&self) {
        let left =
            [self.shares.len(), self.directions.len(), self.shifts.len(), self.degrees.len()];
        assert_eq!(left, [0; 4], "draws that nobody asked for");
    }
}

impl Chance for Recorded {
    fn erosion_share(&mut self) -> f64 {
        self.shares.pop_front().expect("no such draw was recorded")
    }

    fn direction(&mut self, open: &[u8]) -> u8 {
        let chosen = self.directions.pop_front().expect("no such draw was recorded");
        assert!(open.contains(&chosen), "{chosen} is none of {open:?}");
        chosen
    }

    fn shift(&mut self) -> [isize; 2] {
        let mut next = || self.shifts.pop_front().expect("no such draw was recorded");
        [next(), next()]
    }

    fn degrees(&mut self) -> f64 {
        self.degrees.pop_front().expect("no such draw was recorded")
    }
}

#[test]
fn golden_skeletons_and_erosions() {
    let golden = Arrays::open("scribbles");
    let given = masks(&golden, "skel.in.mask");
    let expected = masks(&golden, "skel.out.skel");
    for (number, (mask, expected)) in given.iter().zip(&expected).enumerate() {
        assert!(thin(mask) == *expected, "skeleton {number}");
    }
    let expected = masks(&golden, "erode.out.mask");
    let iterations = golden.get("erode.in.iterations").1;
    let per_count = expected.len() / iterations.len();
    for (number, expected) in expected.iter().enumerate() {
        let eroded = erode(&given[number % per_count], iterations[number / per_count] as usize);
        assert!(eroded == *expected, "erosion {number}");
    }
}

#[test]
fn golden_shifts_and_rotations() {
    let golden = Arrays::open("scribbles");
    let given = masks(&golden, "skel.in.mask");
    let offsets = golden.get("move.in.shift_xy").1;
    let degrees = golden.get("move.in.angle").1;
    let shifted = masks(&golden, "move.out.shifted");
    let rotated = masks(&golden, "move.out.rotated");
    for number in 0..shifted.len() {
        let [right, down] = [offsets[2 * number] as isize, offsets[2 * number + 1] as isize];
        assert!(shift(&given[number], [down, right]) == shifted[number], "shift {number}");
        assert!(rotate(&shifted[number], degrees[number]) == rotated[number], "rotation {number}");
    }
}

#[test]
fn golden_walks() {
    let golden = Arrays::open("scribbles");
    let numbers: Vec<usize> =
        (0..1000).take_while(|number| golden.has(&format!("cut.{number}.in.skel"))).collect();
    assert!(!numbers.is_empty());
    for number in numbers {
        let prefix = format!("cut.{number}");
        let [skeleton, structure] =
            ["in.skel", "in.seg"].map(|key| mask(&golden, &format!("{prefix}.{key}")));
        let mut draws = Recorded::of(&golden, &prefix);
        let walk = cut_branches(&skeleton, &structure, &mut draws);
        assert!(walk.visited == mask(&golden, &format!("{prefix}.out.walk")), "walk {number}");
        assert!(walk.stroke == mask(&golden, &format!("{prefix}.out.scribble")), "stroke {number}");
    }
}

#[test]
fn golden_whole_scribble_generator() {
    let golden = Arrays::open("scribbles");
    for (prefix, every) in [("gen", 1), ("genper2", 2)] {
        // Both start from the same labels.
        let (shape, labels) = (golden.get("gen.in.label").0, golden.bytes("gen.in.label"));
        let [slices, rows, columns] = shape[..] else { panic!("{shape:?}") };
        let class_count = usize::from(labels.iter().copied().max().unwrap()) + 1;
        let mut drawn = vec![UNLABELLED; labels.len()];
        let mut draws = Recorded::of(&golden, prefix);
        for class in 0..class_count as u8 {
            for slice in (0..slices).step_by(every) {
                let part = slice * rows * columns..(slice + 1) * rows * columns;
                let out = &mut drawn[part.clone()];
                scribble(&labels[part], columns, (class, class_count), &mut draws, out);
            }
        }
        assert!(drawn == golden.bytes(&format!("{prefix}.out.scribble")), "{prefix}");
        draws.assert_used_up();
    }
}

#[test]
fn golden_shortened_scribbles() {
    let golden = Arrays::open("scribbles");
    let (shape, values) = golden.get("reduce.in.scribble");
    let [_, rows, columns] = shape[..] else { panic!("{shape:?}") };
    let coded = |value: f64| if value == 4.0 { UNLABELLED } else { value as u8 };
    let mut scribbles: Vec<u8> = values.into_iter().map(coded).collect();
    for key in ["half", "quarter", "eighth"] {
        for slice in scribbles.chunks_exact_mut(rows * columns) {
            shorten(slice, columns, 4);
        }
        let expected = golden.get(&format!("reduce.out.{key}")).1;
        assert!(scribbles.iter().copied().eq(expected.into_iter().map(coded)), "{key}");
    }
}
