//! What the lesion phantom promises: it is frozen, hides its truth, and no brightness finds lesions.

use scrimp::data::import::lesion_phantom::{LesionPhantom, generate};
use scrimp::data::{Case, DENSE, IMAGE_LABEL};
use xxhash_rust::xxh3::xxh3_64;

const SMALL: LesionPhantom =
    LesionPhantom { cases: 3, healthy: 2, validation: 2, test: 1, size: 64, seed: 1 };

/// 32 held-out images.
fn held_out() -> Vec<Case> {
    let many = LesionPhantom { cases: 1, healthy: 1, validation: 20, test: 12, ..SMALL };
    let cases = generate(&many).unwrap().cases;
    cases.into_iter().filter(|case| case.fold > 0).collect()
}

fn levels(case: &Case) -> Vec<u8> {
    case.scan.voxels.iter().map(|value| (255.0 * value).round() as u8).collect()
}

#[test]
fn the_same_seed_draws_the_same_images_for_ever() {
    let dataset = generate(&SMALL).unwrap();
    let bytes = dataset.cases.iter().flat_map(|case| {
        levels(case).into_iter().chain(case.annotations.values().flatten().copied())
    });
    // Frozen: changing this changes every number measured on the phantom.
    assert_eq!(xxh3_64(&bytes.collect::<Vec<u8>>()), 15_746_168_378_231_522_821);
}

#[test]
fn only_held_out_images_have_their_truth() {
    let dataset = generate(&SMALL).unwrap();
    let described = dataset.cases.iter().map(|case| {
        case.check(dataset.classes.len()).unwrap();
        let (kind, labels) = case.annotations.iter().next().unwrap();
        assert_eq!(case.annotations.len(), 1);
        let most = labels.iter().copied().max().unwrap();
        (case.name.as_str(), case.fold, kind.as_str(), most)
    });
    assert_eq!(
        described.collect::<Vec<_>>(),
        [
            ("test-0001", 2, DENSE, 1),
            ("train-diseased-0001", 0, IMAGE_LABEL, 1),
            ("train-diseased-0002", 0, IMAGE_LABEL, 1),
            ("train-diseased-0003", 0, IMAGE_LABEL, 1),
            ("train-healthy-0001", 0, IMAGE_LABEL, 0),
            ("train-healthy-0002", 0, IMAGE_LABEL, 0),
            ("val-0001", 1, DENSE, 1),
            ("val-0002", 1, DENSE, 1),
        ]
    );
    let more = generate(&LesionPhantom { cases: 4, healthy: 5, test: 3, ..SMALL }).unwrap();
    assert_eq!(
        more.cases[3].scan.voxels, dataset.cases[1].scan.voxels,
        "not how many there are, but which"
    );
}

#[test]
fn lesions_are_2_to_12_per_cent_of_the_image_and_inside_the_organ() {
    for case in held_out() {
        let (image, truth) = (levels(&case), &case.annotations[DENSE]);
        let lesion: Vec<usize> = (0..truth.len()).filter(|&pixel| truth[pixel] == 1).collect();
        let share = lesion.len() as f64 / truth.len() as f64;
        assert!((0.02..=0.12).contains(&share), "{}: {share}", case.name);
        assert!(lesion.iter().all(|&pixel| image[pixel] > 8), "{}", case.name);
    }
}

/// Pixels of each level, outside and inside the lesion.
type Histogram = [[usize; 2]; 256];

fn dice(both: usize, predicted: usize, lesion: usize) -> f64 {
    2.0 * both as f64 / (predicted + lesion).max(1) as f64
}

/// The best Dice of any threshold on `histograms`, in either direction: pooled, or meaned over images.
fn best_of_thresholds(histograms: &[Histogram]) -> f64 {
    let scores = |levels: std::ops::Range<usize>| {
        let counts = histograms.iter().map(|histogram| {
            let of =
                |part: &[[usize; 2]]| part.iter().fold([0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
            let [outside, both] = of(&histogram[levels.clone()]);
            [both, outside + both, of(histogram)[1]]
        });
        let counts: Vec<[usize; 3]> = counts.collect();
        let mean = counts.iter().map(|c| dice(c[0], c[1], c[2])).sum::<f64>() / counts.len() as f64;
        let pooled = [0, 1, 2].map(|i| counts.iter().map(|c| c[i]).sum::<usize>());
        mean.max(dice(pooled[0], pooled[1], pooled[2]))
    };
    (0..256).flat_map(|level| [scores(level..256), scores(0..level)]).fold(0.0, f64::max)
}

#[test]
fn no_threshold_on_brightness_finds_lesions() {
    let cases = held_out();
    let mut best: f64 = 0.0;
    for channel in 0..3 {
        for without_black in [false, true] {
            let histogram = |case: &Case| {
                let (image, truth) = (levels(case), &case.annotations[DENSE]);
                let mut histogram = [[0; 2]; 256];
                for (level, &label) in image[channel * truth.len()..].iter().zip(truth) {
                    if !without_black || *level > 0 {
                        histogram[usize::from(*level)][usize::from(label)] += 1;
                    }
                }
                histogram
            };
            best = best.max(best_of_thresholds(&cases.iter().map(histogram).collect::<Vec<_>>()));
        }
    }
    println!("the best threshold reaches Dice {best:.3}");
    assert!((0.2..=0.4).contains(&best), "{best}");
}

/// The mean of the pixels of `plane` around each pixel by a Gaussian weight, black ones left out.
fn blurred(plane: &[f64], size: usize, deviation: f64) -> Vec<f64> {
    let reach = (3.0 * deviation).ceil() as isize;
    let along = |values: &[f64], step: isize| {
        let at = |pixel: usize| {
            let place = if step == 1 { pixel % size } else { pixel / size } as isize;
            let weighted = (-reach..=reach).filter(|d| (0..size as isize).contains(&(place + d)));
            let term = |d: isize| {
                let weight = (-0.5 * (d as f64 / deviation).powi(2)).exp();
                weight * values[pixel.wrapping_add_signed(d * step)]
            };
            weighted.map(term).sum::<f64>()
        };
        (0..values.len()).map(at).collect::<Vec<f64>>()
    };
    let both = |values: &[f64]| along(&along(values, 1), size as isize);
    let weights: Vec<f64> = plane.iter().map(|&value| f64::from(u8::from(value > 8.0))).collect();
    let inside: Vec<f64> =
        plane.iter().zip(&weights).map(|(value, weight)| value * weight).collect();
    both(&inside).iter().zip(both(&weights)).map(|(sum, weight)| sum / weight.max(1e-9)).collect()
}

#[test]
fn what_is_brighter_than_its_surroundings_is_mostly_lesion() {
    let (size, mut scores) = (64, Vec::new());
    for case in held_out() {
        let (image, truth) = (levels(&case), &case.annotations[DENSE]);
        let plane: Vec<f64> = image[..truth.len()].iter().map(|&level| f64::from(level)).collect();
        let (near, wide) = (blurred(&plane, size, 1.0), blurred(&plane, size, 0.16 * size as f64));
        let brighter = (0..plane.len()).map(|i| plane[i] > 8.0 && near[i] > 1.15 * wide[i]);
        let brighter: Vec<bool> = brighter.collect();
        let both = (0..plane.len()).filter(|&i| brighter[i] && truth[i] == 1).count();
        let found = brighter.iter().filter(|&&found| found).count();
        scores.push(dice(both, found, truth.iter().map(|&label| usize::from(label)).sum()));
    }
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    println!("comparing with the surroundings reaches Dice {mean:.3}");
    assert!(mean > 0.6, "{mean}");
}

#[test]
fn nothing_to_generate_is_a_mistake_of_the_command_line() {
    let failure = generate(&LesionPhantom { healthy: 0, ..SMALL }).unwrap_err();
    assert_eq!(
        failure.message(),
        "a lesion phantom with `healthy` = 0 cannot be made, expected 1 or more"
    );
    assert!(generate(&LesionPhantom { test: 0, ..SMALL }).is_ok());
}
