//! What must hold for scribbles, points and random-walker labels of any label map and image.

use proptest::collection::vec;
use proptest::prelude::*;
use scrimp::pseudo_labels::{Absent, Scribbled};
use scrimp::random::Key;
use scrimp::scribbles::{UNLABELLED, points, scribble, scribblebench, shorten};

/// A label map of 1 to 4 classes in blocks of up to 9 pixels, so that there is something to thin.
fn label_maps() -> impl Strategy<Value = (Vec<u8>, usize)> {
    (0usize..5, 1usize..5, 1usize..10, 0u8..3).prop_flat_map(|(down, right, block, noise)| {
        (vec(0u8..4, down * right), vec(0u8..20, down * right * block * block)).prop_map(
            move |(coarse, fine)| {
                let columns = right * block;
                let label = |index: usize| {
                    let (row, column) = (index / columns, index % columns);
                    let own = coarse[row / block * right + column / block];
                    if fine[index] < noise { fine[index] } else { own }
                };
                ((0..down * block * columns).map(label).collect(), columns)
            },
        )
    })
}

fn drawn(labels: &[u8], columns: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![UNLABELLED; labels.len()];
    for class in 0..4 {
        let mut draws = Key::new(seed).number(u64::from(class)).draws();
        scribble(labels, columns, (class, 4), &mut draws, &mut out);
    }
    out
}

fn lies_inside(drawn: &[u8], labels: &[u8]) -> bool {
    drawn.iter().zip(labels).all(|(drawn, label)| *drawn == UNLABELLED || drawn == label)
}

proptest! {
    #[test]
    fn scribbles_lie_in_their_class_and_repeat_with_their_seed(
        (labels, columns) in label_maps(), seed in any::<u64>(),
    ) {
        let mut scribbles = drawn(&labels, columns, seed);
        prop_assert!(lies_inside(&scribbles, &labels));
        prop_assert_eq!(&scribbles, &drawn(&labels, columns, seed));
        let count = |labels: &[u8]| labels.iter().filter(|&&label| label != UNLABELLED).count();
        for _ in 0..3 {
            let before = scribbles.clone();
            shorten(&mut scribbles, columns, 4);
            prop_assert!(lies_inside(&scribbles, &before));
            prop_assert!(count(&scribbles) <= count(&before));
        }
    }

    #[test]
    fn every_class_has_strokes_of_scribblebench_inside_of_it_that_repeat_with_their_seed(
        (labels, columns) in label_maps(), seed in any::<u64>(),
    ) {
        let drawn = || {
            let mut out = vec![UNLABELLED; labels.len()];
            for class in 0..4 {
                let mut draws = Key::new(seed).number(u64::from(class)).draws();
                scribblebench(&labels, columns, class, &mut draws, &mut out);
            }
            out
        };
        let strokes = drawn();
        prop_assert!(lies_inside(&strokes, &labels));
        prop_assert!((0..4).all(|class| strokes.contains(&class) == labels.contains(&class)));
        prop_assert_eq!(strokes, drawn());
    }

    #[test]
    fn there_are_as_many_points_as_asked_for_or_as_the_class_has_pixels(
        (labels, columns) in label_maps(), seed in any::<u64>(), count in 1usize..4,
    ) {
        let mut out = vec![UNLABELLED; labels.len()];
        for class in 0..4 {
            points(&labels, columns, (class, count), &mut Key::new(seed).draws(), &mut out);
            let has = |labels: &[u8]| labels.iter().filter(|label| [class].contains(label)).count();
            prop_assert_eq!(has(&out), count.min(has(&labels)));
        }
        prop_assert!(lies_inside(&out, &labels));
    }

    #[test]
    fn random_walker_labels_keep_the_scribble_and_name_every_pixel(
        (labels, columns) in label_maps(),
        sparse in vec(0u8..4, 1..50),
        intensities in vec(0.0f32..1.0, 1..50),
    ) {
        let keep = |index: usize| sparse[index % sparse.len()] == 0;
        let scribble: Vec<u8> = labels.iter().enumerate()
            .map(|(index, &label)| if keep(index) { label } else { UNLABELLED }).collect();
        let image: Vec<f32> =
            (0..labels.len()).map(|index| intensities[index * 7 % intensities.len()]).collect();
        let slice = Scribbled { columns, image: &image, scribble: &scribble, classes: 4 };
        let found = slice.random_walker(Absent::LeftOut).unwrap();
        let seeded = scribble.iter().any(|&label| label != UNLABELLED);
        for (found, drawn) in found.iter().zip(&scribble) {
            prop_assert!(drawn == found || *drawn == UNLABELLED);
            prop_assert!(scribble.contains(found) || !seeded && *found == 0);
        }
        for row in slice.probabilities().unwrap().chunks_exact(
            (0..4).filter(|class| scribble.contains(class)).count().max(1),
        ) {
            prop_assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            prop_assert!(row.iter().all(|&probability| (0.0..=1.0 + 1e-12).contains(&probability)));
        }
        slice.random_walker(Absent::AllBackground).unwrap();
    }
}

#[test]
fn a_slice_of_one_intensity_is_shared_out_by_distance() {
    // Two ends of a line: every pixel goes to the nearer one, the middle to the lower class.
    let (mut scribble, image) = (vec![UNLABELLED; 9], vec![0.5; 9]);
    (scribble[0], scribble[8]) = (1, 2);
    let slice = Scribbled { columns: 9, image: &image, scribble: &scribble, classes: 3 };
    let labels = slice.random_walker(Absent::LeftOut).unwrap();
    assert_eq!((&labels[..4], &labels[5..]), (&[1; 4][..], &[2; 4][..]));
    let probabilities = slice.probabilities().unwrap();
    for (pixel, row) in probabilities.chunks_exact(2).enumerate() {
        assert!((row[1] - pixel as f64 / 8.0).abs() < 1e-12, "{row:?}");
    }
}

#[test]
fn slices_that_cannot_be_labelled_are_refused() {
    let refused = |columns, image: &[f32], scribble: &[u8], classes| {
        let slice = Scribbled { columns, image, scribble, classes };
        slice.random_walker(Absent::LeftOut).unwrap_err().message().to_owned()
    };
    insta::assert_snapshot!(refused(2, &[0.0, f32::NAN], &[0, 1], 2), @"the intensity at row 0, column 1 is NaN, expected a finite one");
    insta::assert_snapshot!(refused(2, &[0.0; 3], &[0; 3], 2), @"an image of 3 pixels in rows of 2 has a scribble of 3 pixels, expected whole rows and as many");
    insta::assert_snapshot!(refused(0, &[], &[], 2), @"an image of 0 pixels in rows of 0 has a scribble of 0 pixels, expected whole rows and as many");
    insta::assert_snapshot!(refused(2, &[0.0; 2], &[0; 2], 255), @"there are 255 classes, expected at most 254");
}
