//! Laws of the metrics, on random small volumes with random voxel spacing.

use proptest::collection::vec;
use proptest::prelude::*;
use scrimp::metrics::{Distances, LabelPair, Measures};

/// A random prediction and truth of classes 0..=2 on one grid.
#[derive(Debug, Clone)]
struct Volumes {
    prediction: Vec<u8>,
    truth: Vec<u8>,
    shape: [usize; 3],
    spacing: [f64; 3],
}

impl Volumes {
    fn measure(&self) -> Measures {
        LabelPair::new(&self.prediction, &self.truth, self.shape, self.spacing).unwrap().measure(1)
    }

    fn exchanged(&self) -> Self {
        Self { prediction: self.truth.clone(), truth: self.prediction.clone(), ..self.clone() }
    }
}

/// Volumes from nearly empty to nearly full, so that both far and touching surfaces occur.
fn volumes() -> impl Strategy<Value = Volumes> {
    let shape = [1..5usize, 1..9usize, 1..11usize];
    let spacing = [0.3..12.0f64, 0.3..3.0f64, 0.3..3.0f64];
    (shape, spacing, 0.02..0.9f64).prop_flat_map(|(shape, spacing, share)| {
        let voxels = shape.iter().product::<usize>();
        let label = prop::bool::weighted(share).prop_flat_map(|inside| {
            if inside { Just(1).boxed() } else { prop_oneof![Just(0u8), Just(2)].boxed() }
        });
        (vec(label.clone(), voxels), vec(label, voxels))
            .prop_map(move |(prediction, truth)| Volumes { prediction, truth, shape, spacing })
    })
}

/// Surface voxels of class 1, straight from the definition.
fn surface_by_definition(labels: &[u8], shape: [usize; 3]) -> Vec<[usize; 3]> {
    let inside = |z: isize, y: isize, x: isize| {
        let [depth, height, width] = shape.map(isize::try_from).map(Result::unwrap);
        let on_grid =
            (0..depth).contains(&z) && (0..height).contains(&y) && (0..width).contains(&x);
        on_grid && labels[((z * height + y) * width + x) as usize] == 1
    };
    let neighbours = [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]];
    let voxels = (0..labels.len()).map(|index| {
        [index / (shape[1] * shape[2]), index / shape[2] % shape[1], index % shape[2]]
    });
    voxels
        .filter(|&voxel| {
            let [z, y, x] = voxel.map(|position| position as isize);
            inside(z, y, x) && neighbours.iter().any(|[dz, dy, dx]| !inside(z + dz, y + dy, x + dx))
        })
        .collect()
}

/// Distances from each voxel of `from` to the nearest of `to`, by trying all.
fn distances_by_trying_all(from: &[[usize; 3]], to: &[[usize; 3]], spacing: [f64; 3]) -> Vec<f64> {
    let distance = |a: &[usize; 3], b: &[usize; 3]| {
        (0..3).map(|axis| (a[axis].abs_diff(b[axis]) as f64 * spacing[axis]).powi(2)).sum::<f64>()
    };
    from.iter()
        .map(|a| to.iter().map(|b| distance(a, b)).fold(f64::INFINITY, f64::min).sqrt())
        .collect()
}

/// Distances from the predicted surface to the true one, and back.
fn both_ways_by_trying_all(volumes: &Volumes) -> [Vec<f64>; 2] {
    let prediction = surface_by_definition(&volumes.prediction, volumes.shape);
    let truth = surface_by_definition(&volumes.truth, volumes.shape);
    [(&prediction, &truth), (&truth, &prediction)]
        .map(|(from, to)| distances_by_trying_all(from, to, volumes.spacing))
}

fn measured_by_trying_all(volumes: &Volumes) -> Option<Distances> {
    let [forth, back] = both_ways_by_trying_all(volumes);
    if forth.is_empty() || back.is_empty() {
        return None;
    }
    let mut both = [forth.clone(), back].concat();
    both.sort_by(f64::total_cmp);
    let position = 0.95 * (both.len() - 1) as f64;
    let (low, high) = (both[position.floor() as usize], both[position.ceil() as usize]);
    Some(Distances {
        hd: both[both.len() - 1],
        hd95: low + (high - low) * position.fract(),
        asd: forth.iter().sum::<f64>() / forth.len() as f64,
        assd: both.iter().sum::<f64>() / both.len() as f64,
    })
}

fn numbers(distances: Distances) -> [f64; 4] {
    [distances.hd, distances.hd95, distances.asd, distances.assd]
}

/// Fails the property unless both measure the same, up to the order of summation.
fn same(left: Option<Distances>, right: Option<Distances>) -> Result<(), TestCaseError> {
    prop_assert_eq!(left.is_some(), right.is_some());
    if let (Some(left), Some(right)) = (left.map(numbers), right.map(numbers)) {
        for (a, b) in left.into_iter().zip(right) {
            prop_assert!((a - b).abs() <= 1e-12 * b, "{left:?} against {right:?}");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn distances_are_those_of_trying_all_pairs(volumes in volumes()) {
        same(volumes.measure().surface.distances(), measured_by_trying_all(&volumes))?;
    }

    #[test]
    fn objects_in_far_corners_are_measured_as_by_trying_all_pairs(
        volumes in volumes(), between in [0..6usize, 5..20, 5..20], strewn in any::<bool>(),
    ) {
        let wider = [0, 1, 2].map(|axis| 2 * volumes.shape[axis] + between[axis]);
        let placed = |labels: &[u8], at: [usize; 3], wider: [usize; 3]| {
            let mut placed = vec![0u8; wider.iter().product()];
            for (index, &label) in labels.iter().enumerate() {
                let [_, height, width] = volumes.shape;
                let [z, y, x] = [index / (height * width), index / width % height, index % width];
                let line = (at[0] + z) * wider[1] + at[1] + y;
                placed[line * wider[2] + at[2] + x] = label;
            }
            placed
        };
        let opposite = [0, 1, 2].map(|axis| wider[axis] - volumes.shape[axis]);
        let mut prediction = placed(&volumes.prediction, [0; 3], wider);
        if strewn {
            // Every third voxel is surface, and most lie far from the truth.
            prediction.iter_mut().step_by(3).for_each(|label| *label = 1);
        }
        let truth = placed(&volumes.truth, opposite, wider);
        let far = Volumes { prediction, truth, shape: wider, spacing: volumes.spacing };
        same(far.measure().surface.distances(), measured_by_trying_all(&far))?;
    }

    #[test]
    fn the_surface_dice_counts_voxels_within_the_tolerance(
        volumes in volumes(), tolerance in 0.0..8.0f64,
    ) {
        let pair =
            LabelPair::new(&volumes.prediction, &volumes.truth, volumes.shape, volumes.spacing);
        let found = pair.unwrap().score(1, tolerance).nsd;
        let [forth, back] = both_ways_by_trying_all(&volumes);
        let both = [forth, back].concat();
        let near = both.iter().filter(|&&distance| distance <= tolerance).count();
        // To nothing there is an infinite distance.
        let expected = (!both.is_empty()).then(|| near as f64 / both.len() as f64);
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn exchanging_the_sides_changes_only_the_asd(volumes in volumes()) {
        let (here, there) = (volumes.measure(), volumes.exchanged().measure());
        prop_assert_eq!(here.overlap.dice(), there.overlap.dice());
        prop_assert_eq!(here.overlap.jaccard(), there.overlap.jaccard());
        let ignore_asd = |measures: Measures| {
            measures.surface.distances().map(|distances| Distances { asd: 0.0, ..distances })
        };
        same(ignore_asd(here), ignore_asd(there))?;
    }

    #[test]
    fn scores_stay_in_their_ranges(volumes in volumes()) {
        let measures = volumes.measure();
        for share in [measures.overlap.dice(), measures.overlap.jaccard()].into_iter().flatten() {
            prop_assert!((0.0..=1.0).contains(&share));
        }
        if let Some(distances) = measures.surface.distances() {
            prop_assert!(distances.hd95 <= distances.hd && distances.assd <= distances.hd);
            prop_assert!(numbers(distances).into_iter().all(|distance| distance >= 0.0));
            prop_assert!(distances.hd.is_finite());
        }
    }

    #[test]
    fn a_volume_compared_with_itself_is_perfect(volumes in volumes()) {
        let truth = volumes.truth.clone();
        let measures = Volumes { prediction: truth, ..volumes }.measure();
        prop_assert!(measures.overlap.dice().is_none_or(|dice| dice == 1.0));
        let distances = measures.surface.distances();
        prop_assert_eq!(distances.is_some(), measures.overlap.truth > 0);
        prop_assert!(distances.is_none_or(|distances| numbers(distances) == [0.0; 4]));
    }

    #[test]
    fn moving_both_objects_together_changes_nothing(
        volumes in volumes(), margins in [0..3usize, 0..4, 0..4], rest in [0..3usize, 0..4, 0..4],
    ) {
        let wider = [0, 1, 2].map(|axis| margins[axis] + volumes.shape[axis] + rest[axis]);
        let moved = |labels: &[u8]| {
            let mut moved = vec![0u8; wider.iter().product()];
            for (index, &label) in labels.iter().enumerate() {
                let [_, height, width] = volumes.shape;
                let z = index / (height * width) + margins[0];
                let y = index / width % height + margins[1];
                moved[(z * wider[1] + y) * wider[2] + index % width + margins[2]] = label;
            }
            moved
        };
        let elsewhere = Volumes {
            prediction: moved(&volumes.prediction),
            truth: moved(&volumes.truth),
            shape: wider,
            spacing: volumes.spacing,
        };
        prop_assert_eq!(volumes.measure(), elsewhere.measure());
    }

    #[test]
    fn distances_grow_with_the_spacing(volumes in volumes(), factor in 0.1..10.0f64) {
        let spacing = volumes.spacing.map(|step| step * factor);
        let stretched = Volumes { spacing, ..volumes.clone() }.measure().surface.distances();
        let expected = volumes.measure().surface.distances().map(|d| Distances {
            hd: d.hd * factor, hd95: d.hd95 * factor, asd: d.asd * factor, assd: d.assd * factor,
        });
        same(stretched, expected)?;
    }
}
