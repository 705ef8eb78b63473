//! Laws of preparations: what changes nothing returns every bit, positions in millimetres stay, labels come
//! back from where they went, and annotated voxels are counted.

use proptest::prelude::*;
use scrimp::preparation::{
    Channel, Crop, Intensities, Interpolation, NativeLabels, NativeSlice, Over, Preparation,
    Regrid, Spacing,
};
use scrimp::scan::{Grid, Placement, Scan};

fn prepared_by(crop: Crop, spacing: Spacing, intensities: &[Intensities]) -> Preparation {
    let channel = |(index, &intensities): (usize, &Intensities)| Channel {
        name: format!("modality {index}"),
        intensities,
    };
    let (interpolation, channels) =
        (Interpolation::Cubic, intensities.iter().enumerate().map(channel).collect());
    let all = Preparation::grey(Intensities::AsStored);
    Preparation { crop, interpolation, spacing, channels, ..all }
}

/// Not along the axes of the patient, so that a shift along the wrong axis shows.
const PLACEMENT: Placement = Placement {
    direction: [[0.0, 0.6, 0.8], [1.0, 0.0, 0.0], [0.0, 0.8, -0.6]],
    origin_mm: [-50.0, 20.0, 7.0],
};

fn scan(shape: [usize; 3], spacing_mm: [f64; 3], value: impl Fn([usize; 3]) -> f32) -> Scan {
    let grid = Grid { shape, spacing_mm: Some(spacing_mm), placement: Some(PLACEMENT) };
    let voxels = voxels(shape).into_iter().map(value).collect();
    Scan { grid, channels: 1, voxels }
}

fn voxels([slices, rows, columns]: [usize; 3]) -> Vec<[usize; 3]> {
    let in_slice = |z| (0..rows).flat_map(move |y| (0..columns).map(move |x| [z, y, x]));
    (0..slices).flat_map(in_slice).collect()
}

fn assert_close(found: [f64; 3], expected: [f64; 3]) {
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-9, "{found} {expected}");
    }
}

/// Classes 1 and 2 in the halves of an ellipsoid that almost fills the scan.
fn blob(shape: [usize; 3], [z, y, x]: [usize; 3]) -> u8 {
    let from_middle = |at: usize, extent: usize| 2.0 * (at as f64 + 0.5) / extent as f64 - 1.0;
    let middle = [from_middle(z, shape[0]), from_middle(y, shape[1]), from_middle(x, shape[2])];
    let radius = middle.iter().map(|part| part * part).sum::<f64>().sqrt();
    if radius > 0.9 { 0 } else { 1 + u8::from(middle[2] > 0.0) }
}

fn dice(a: &[u8], b: &[u8], class: u8) -> f64 {
    let count = |labels: &[u8]| labels.iter().map(|&l| usize::from(l == class)).sum::<usize>();
    let both = a.iter().zip(b).filter(|&(&a, &b)| a == class && b == class).count();
    2.0 * both as f64 / (count(a) + count(b)).max(1) as f64
}

/// The probabilities of three classes where a network is sure of `labels`: `[classes, voxels]`.
fn sure(labels: &[u8]) -> Vec<f32> {
    (0..3).flat_map(|class| labels.iter().map(move |&l| f32::from(u8::from(l == class)))).collect()
}

/// What comes out where `probabilities` of three classes go in, `slices` at a time.
fn streamed(regrid: &Regrid, probabilities: &[f32], slices: usize) -> Vec<u8> {
    let [total, rows, columns] = regrid.prepared.shape;
    let (mut native, mut labels) = (NativeLabels::new(regrid.clone(), 3), Vec::new());
    for first in (0..total).step_by(slices) {
        let count = slices.min(total - first);
        let of_class = |class: usize| {
            &probabilities[(class * total + first) * rows * columns..][..count * rows * columns]
        };
        let slab: Vec<f32> = (0..3).flat_map(|class| of_class(class).to_vec()).collect();
        let mut take = |slice: NativeSlice<'_>| {
            let pixels = slice.labels.len();
            for (pixel, &label) in slice.labels.iter().enumerate() {
                let of = |class: usize| slice.probabilities[class * pixels + pixel];
                let chosen = of(usize::from(label));
                assert!((0..3).all(|class| of(class) < chosen || class >= usize::from(label)));
                assert!((0..3).all(|class| of(class) <= chosen), "pixel {pixel}");
            }
            labels.extend_from_slice(slice.labels);
            Ok(())
        };
        native.each_slice(&slab, true, &mut take).unwrap();
    }
    native.finish().unwrap();
    labels
}

#[test]
fn a_preparation_that_keeps_everything_returns_every_bit() {
    let preparation = Preparation::grey(Intensities::AsStored);
    let odd =
        scan([3, 4, 5], [9.0, 1.5, 1.25], |[z, y, x]| (z * 31 + y * 7 + x) as f32 / 3.0 - 5.0);
    let prepared = preparation.apply(odd.clone()).unwrap();
    assert_eq!(prepared.scan, odd);
    assert!(prepared.regrid.is_same());
    let labels: Vec<u8> = (0..60).map(|voxel| [0, 1, 2, 255][voxel % 4]).collect();
    let carried = prepared.regrid.carry_annotation(&labels).unwrap();
    assert_eq!((&carried.values, carried.annotated, carried.carried), (&labels, 45, 45));
    assert_eq!(prepared.regrid.carry_dense(&labels).unwrap(), labels);
    assert_eq!(prepared.regrid.file, odd.grid);
    let labels: Vec<u8> = (0..60).map(|voxel| [0, 1, 2][voxel % 3]).collect();
    assert_eq!(streamed(&prepared.regrid, &sure(&labels), 2), labels);
}

#[test]
fn intensities_keep_their_place_in_the_patient() {
    // A linear ramp along each axis in millimetres is one afterwards, away from the edges.
    let ramp = |grid: &Grid, at: [usize; 3]| {
        let [x, y, z] = grid.position_mm(at.map(|index| index as f64)).unwrap();
        (x + 2.0 * y - 0.5 * z) as f32
    };
    let mut stored = scan([14, 30, 28], [2.0, 1.0, 1.0], |_| 0.0);
    stored.voxels =
        voxels(stored.grid.shape).into_iter().map(|at| ramp(&stored.grid, at)).collect();
    let target = Spacing::Volume([1.25, 0.8, 1.5]);
    let preparation = prepared_by(Crop::None, target, &[Intensities::AsStored]);
    let prepared = preparation.apply(stored.clone()).unwrap();
    let grid = &prepared.scan.grid;
    assert_eq!(grid.shape, [22, 38, 19]);
    for (index, at) in voxels(grid.shape).into_iter().enumerate() {
        let near_edge = (0..3).any(|axis| {
            let from_edge = at[axis].min(grid.shape[axis] - 1 - at[axis]) as f64;
            from_edge * grid.spacing_mm.unwrap()[axis] < 7.0 * stored.grid.spacing_mm.unwrap()[axis]
        });
        if !near_edge {
            let (found, expected) = (prepared.scan.voxels[index], ramp(grid, at));
            assert!((found - expected).abs() < 2e-2, "{at:?}: {found} {expected}");
        }
    }
    // The corners of the field of view are where they were.
    for corner in [[0.0, 0.0, 0.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]] {
        let corner_of = |grid: &Grid| {
            let at = [0, 1, 2].map(|axis: usize| corner[axis] * grid.shape[axis] as f64 - 0.5);
            grid.position_mm(at).unwrap()
        };
        assert_close(corner_of(grid), corner_of(&stored.grid));
    }
    assert!(prepared.scan.voxels.iter().all(|value| value.is_finite()));
}

#[test]
fn the_box_of_what_is_not_0_is_that_of_all_channels() {
    let shape = [5, 6, 7];
    let mut stored = scan(shape, [3.0, 1.0, 2.0], |_| 0.0);
    stored.channels = 2;
    stored.voxels = vec![0.0; 2 * 5 * 6 * 7];
    let place = |channel: usize, [z, y, x]: [usize; 3]| ((z * 2 + channel) * 6 + y) * 7 + x;
    stored.voxels[place(0, [1, 2, 5])] = 3.0;
    stored.voxels[place(1, [3, 1, 4])] = -2.0;
    let kinds = [Intensities::AsStored, Intensities::ZScore { over: Over::All }];
    let preparation = prepared_by(Crop::Nonzero, Spacing::AsStored, &kinds);
    let prepared = preparation.apply(stored.clone()).unwrap();
    assert_eq!(prepared.regrid.kept, [1..4, 1..3, 4..6]);
    assert_eq!((prepared.scan.grid.shape, prepared.scan.channels), ([3, 2, 2], 2));
    let grid = &prepared.scan.grid;
    let position_mm = |grid: &Grid, at| grid.position_mm(at).unwrap();
    assert_close(position_mm(grid, [0.0; 3]), position_mm(&stored.grid, [1.0, 1.0, 4.0]));
    // Slices, channels, rows, columns; the other channel has mean 0 and deviation 1.
    assert_eq!(prepared.scan.voxels[..4], [0.0, 0.0, 0.0, 3.0]);
    let scored: f32 = prepared.scan.voxels.chunks(4).skip(1).step_by(2).flatten().sum();
    assert!(scored.abs() < 1e-5 && prepared.scan.voxels[2 * 8 + 4] < -3.0, "{scored}");
    let empty = Scan { voxels: vec![0.0; stored.voxels.len()], ..stored };
    let all = prepared_by(Crop::Nonzero, Spacing::AsStored, &[Intensities::AsStored; 2]);
    assert_eq!(all.apply(empty).unwrap().scan.grid.shape, shape);
}

#[test]
fn voters_decide_and_the_background_is_modest() {
    let stored = scan([1, 2, 8], [1.0, 1.0, 1.0], |[_, y, x]| (y + x) as f32);
    let halved = Spacing::InPlane([2.0, 2.0]);
    let preparation = prepared_by(Crop::None, halved, &[Intensities::AsStored]);
    let regrid = preparation.apply(stored).unwrap().regrid;
    #[rustfmt::skip]
    let scribble = [
        255, 255,   0,   0,   0,   2,   255, 2,
        255, 255,   0,   1,   2,   0,   1, 255,
    ];
    let carried = regrid.carry_annotation(&scribble).unwrap();
    assert_eq!(carried.values, [255, 0, 2, 1]);
    assert_eq!((carried.annotated, carried.carried), (10, 3));
    assert!(regrid.carry_annotation(&scribble[1..]).is_err());
    // Twice as many voxels: each annotated one stays one, and what lies between stays unknown.
    let stored = scan([1, 1, 3], [1.0, 1.0, 1.0], |[_, _, x]| x as f32);
    let doubled = prepared_by(Crop::None, Spacing::InPlane([1.0, 0.5]), &[Intensities::AsStored]);
    let regrid = doubled.apply(stored).unwrap().regrid;
    let carried = regrid.carry_annotation(&[3, 255, 0]).unwrap();
    assert_eq!(carried.values, [255, 3, 255, 255, 255, 0]);
    assert_eq!((carried.annotated, carried.carried), (2, 2));
}

#[test]
fn nothing_is_interpolated_between_slices_that_lie_far_apart() {
    let stored = scan([2, 4, 4], [10.0, 1.0, 1.0], |[z, _, _]| 100.0 * z as f32);
    let fine = prepared_by(Crop::None, Spacing::Volume([2.0, 0.5, 1.0]), &[Intensities::AsStored]);
    let prepared = fine.apply(stored).unwrap();
    assert_eq!(prepared.scan.grid.shape, [10, 8, 4]);
    assert!(prepared.scan.voxels.iter().all(|&value| value == 0.0 || value == 100.0));
    let near = scan([3, 4, 4], [2.0, 1.0, 1.0], |[z, _, _]| 100.0 * f32::from(z > 0));
    let finer = prepared_by(Crop::None, Spacing::Volume([1.0; 3]), &[Intensities::AsStored]);
    let prepared = finer.apply(near).unwrap();
    assert_eq!(prepared.scan.grid.shape, [6, 4, 4]);
    assert!(prepared.scan.voxels.iter().all(|value| (0.0..=100.0).contains(value)), "cut");
    assert!(prepared.scan.voxels.iter().any(|&value| value > 1.0 && value < 99.0));
}

#[test]
fn what_cannot_be_prepared_is_refused() {
    let stored = || scan([2, 4, 4], [10.0, 1.0, 1.0], |[_, y, x]| (y + x) as f32);
    let said =
        |preparation: &Preparation, scan: Scan| preparation.apply(scan).unwrap_err().to_string();
    let volume =
        |mm: f64| prepared_by(Crop::None, Spacing::Volume([mm; 3]), &[Intensities::Robust]);
    insta::assert_snapshot!(said(&Preparation::colours(), stored()), @"error: the scan has 1 channels, expected 3: `red`, `green`, `blue`");
    let mut unplaced = stored();
    unplaced.grid.spacing_mm = None;
    insta::assert_snapshot!(said(&volume(1.0), unplaced), @r"
    error: the file does not say how far apart its voxels are, and the preparation resamples them

    hint: save it in a format that holds the spacing, such as NIfTI
    ");
    insta::assert_snapshot!(said(&volume(1e-4), stored()), @r"
    error: with voxels [0.0001, 0.0001, 0.0001] mm apart instead of [10.0, 1.0, 1.0] the scan has shape [200000, 40000, 40000], expected at most 65536 along each axis and 1073741824 voxels

    hint: prepare the data with larger distances between voxels
    ");
    let mut odd = stored();
    odd.voxels[3] = f32::NAN;
    insta::assert_snapshot!(said(&volume(1.0), odd), @"error: voxel 3 of the image is NaN, expected finite intensities");
    let flat = scan([2, 4, 4], [1.0; 3], |_| 7.0);
    insta::assert_snapshot!(said(&volume(1.0), flat), @"error: all voxels of the image are 7, expected more than one intensity");
    for (text, expected) in [
        ("channels = []", "expected 1 to 64 channels, found 0"),
        ("channels = [{ name = '', intensities = 'robust' }]", "channel 0 has no name"),
        (
            "spacing = { in_plane = [1.0, 0.0] }\nchannels = [{ name = 'a', intensities = 'robust' }]",
            "voxels lie 0 mm apart, expected more than 0",
        ),
        (
            "channels = [{ name = 'a', intensities = { window = { low = 2.0, high = 1.0 } } }]",
            "cannot scale channel `a`",
        ),
    ] {
        let preparation: Preparation = toml::from_str(text).unwrap();
        assert_eq!(preparation.check().unwrap_err().message(), expected);
    }
}

#[test]
fn probabilities_come_back_slice_by_slice() {
    let stored = scan([3, 4, 4], [1.0, 1.0, 1.0], |[z, y, x]| f32::from(z > 0 && y > 0 && x > 0));
    let preparation =
        prepared_by(Crop::Nonzero, Spacing::Volume([0.5, 1.0, 1.0]), &[Intensities::AsStored]);
    let regrid = preparation.apply(stored).unwrap().regrid;
    assert_eq!(regrid.prepared.shape, [4, 3, 3]);
    let mut native = NativeLabels::new(regrid.clone(), 2);
    // Class 1 has 0.2, 0.7, 0.6, 0.5 in the four prepared slices: 0.45 and 0.55 in the two of the box.
    let slab = |shares: &[f32]| -> Vec<f32> {
        let of = |share: f32| vec![share; 9];
        let background = shares.iter().flat_map(|share| of(1.0 - share));
        background.chain(shares.iter().flat_map(|share| of(*share))).collect()
    };
    let push = |native: &mut NativeLabels, slab: &[f32]| {
        let mut labels = Vec::new();
        let mut take = |slice: NativeSlice<'_>| {
            labels.extend_from_slice(slice.labels);
            Ok(())
        };
        native.each_slice(slab, false, &mut take).map(|()| labels)
    };
    assert_eq!(push(&mut native, &slab(&[0.2])).unwrap(), vec![0; 16], "in front of the box");
    assert!(push(&mut native, &slab(&[0.2, 0.2])[1..]).is_err());
    assert_eq!(push(&mut native, &slab(&[0.7])).unwrap(), vec![0; 16]);
    let mut half = NativeLabels::new(regrid, 2);
    push(&mut half, &slab(&[0.2, 0.7])).unwrap();
    assert_eq!(
        half.finish().unwrap_err().message(),
        "2 prepared slices came, of which 2 slices of the file were made, expected all 3"
    );
    let mut expected = vec![0; 16];
    for pixel in [5, 6, 7, 9, 10, 11, 13, 14, 15] {
        expected[pixel] = 1;
    }
    assert_eq!(push(&mut native, &slab(&[0.6, 0.5])).unwrap(), expected);
    assert!(push(&mut native, &slab(&[0.6])).is_err());
    native.finish().unwrap();
}

/// Shape, spacing and wished spacing.
fn grids() -> impl Strategy<Value = ([usize; 3], [f64; 3], [f64; 3])> {
    let extents = (10usize..16, 24usize..40, 24usize..40);
    let spacing = (1.0f64..2.2, 0.6f64..1.6, 0.6f64..1.6);
    let factor = (0.5f64..1.15, 0.5f64..1.15, 0.5f64..1.15);
    (extents, spacing, factor).prop_map(|(extents, spacing, factor)| {
        let (spacing, factor): ([f64; 3], [f64; 3]) = (spacing.into(), factor.into());
        (extents.into(), spacing, [0, 1, 2].map(|axis| spacing[axis] * factor[axis]))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn labels_come_back_from_where_they_went(
        (shape, spacing, target) in grids(),
        first in 0usize..3,
        slab in 1usize..5,
        crops in any::<bool>(),
    ) {
        // What lies in front of `first` is 0.
        let stored = scan(shape, spacing, |at| {
            if at.iter().any(|&index| index < first) { 0.0 } else { 1.0 + (at[1] * at[2]) as f32 }
        });
        let crop = if crops { Crop::Nonzero } else { Crop::None };
        let preparation = prepared_by(crop, Spacing::Volume(target), &[Intensities::Robust]);
        let prepared = preparation.apply(stored.clone()).unwrap();
        let regrid = &prepared.regrid;
        prop_assert!(prepared.scan.voxels.iter().all(|value| (0.0..=1.0).contains(value)));
        prop_assert_eq!(prepared.scan.voxels.len(), prepared.scan.grid.voxels());
        let largest = preparation.largest_shape(&stored.grid).unwrap();
        prop_assert!(largest == regrid.prepared.shape || crops);
        prop_assert!((0..3).all(|axis| regrid.prepared.shape[axis] <= largest[axis]));
        let edge = if crops { first } else { 0 };
        prop_assert_eq!(&regrid.kept, &shape.map(|extent| edge..extent));
        let truth: Vec<u8> = voxels(shape).into_iter().map(|at| blob(shape, at)).collect();
        let carried = regrid.carry_dense(&truth).unwrap();
        let back = streamed(regrid, &sure(&carried), slab);
        prop_assert_eq!(back.len(), truth.len());
        for (at, label) in voxels(shape).into_iter().zip(&back) {
            let is_outside = at.iter().any(|&index| index < edge);
            prop_assert!(!is_outside || *label == 0);
        }
        for class in [1, 2] {
            let mut expected = truth.clone();
            for (at, label) in voxels(shape).into_iter().zip(&mut expected) {
                if at.iter().any(|&index| index < edge) {
                    *label = 0;
                }
            }
            let score = dice(&back, &expected, class);
            // A coarser grid holds less of a boundary.
            let least = if target.iter().zip(spacing).all(|(t, s)| *t <= s) { 0.9 } else { 0.8 };
            prop_assert!(score > least, "class {class}: {score}");
        }
        // However many slices come at once.
        let all = streamed(regrid, &sure(&carried), regrid.prepared.shape[0]);
        prop_assert_eq!(streamed(regrid, &sure(&carried), slab), all);
        // Each annotated voxel within the box goes somewhere, and no class is made up.
        let scribble: Vec<u8> = truth.iter().enumerate()
            .map(|(index, &label)| if index % 7 == 0 { label } else { 255 }).collect();
        let annotation = regrid.carry_annotation(&scribble).unwrap();
        let known = annotation.values.iter().filter(|&&label| label != 255).count();
        prop_assert_eq!(known, annotation.carried);
        prop_assert!(known <= annotation.annotated && known > 0);
        prop_assert_eq!(annotation.annotated, scribble.iter().filter(|&&label| label != 255).count());
    }

    #[test]
    fn where_the_grid_stays_labels_are_exact(
        shape in (1usize..4, 1usize..9, 1usize..9),
        seed in any::<u64>(),
        slab in 1usize..3,
    ) {
        let shape: [usize; 3] = shape.into();
        let stored = scan(shape, [5.0, 1.0, 1.0], |at| at[2] as f32);
        let preparation = prepared_by(Crop::None, Spacing::AsStored, &[Intensities::AsStored]);
        let regrid = preparation.apply(stored).unwrap().regrid;
        let voxel_count = shape.iter().product::<usize>();
        let draw = |index: usize| (seed.wrapping_mul(2 * index as u64 + 1) >> 40) as f32 / 16_777_216.0;
        let probabilities: Vec<f32> = (0..3 * voxel_count).map(draw).collect();
        let expected: Vec<u8> = (0..voxel_count).map(|voxel| {
            let of = |class: usize| probabilities[class * voxel_count + voxel];
            (0..3u8).fold(0, |best, class| {
                if of(usize::from(class)) > of(usize::from(best)) { class } else { best }
            })
        }).collect();
        prop_assert_eq!(streamed(&regrid, &probabilities, slab), expected);
    }
}

/// From the command line to the packed file.
#[cfg(feature = "hdf5")]
mod packed {
    use super::*;
    use crate::cli::{complaint, scrimp};
    use crate::nifti_files::{File, file};
    use scrimp::data::{DENSE, SCRIBBLE, store};
    use scrimp::scan::{Notes, read};
    use std::fs;
    use std::path::Path;
    use tempfile::TempDir;

    /// x, y, z in the file; slices lie far apart.
    const EXTENTS: [usize; 3] = [12, 10, 3];

    /// A file of one number for each voxel `[z, y, x]`.
    fn volume(value: impl Fn([usize; 3]) -> f64) -> File {
        let [columns, rows, slices] = EXTENTS;
        let values = voxels([slices, rows, columns]).into_iter().map(value).collect::<Vec<_>>();
        File { extents: EXTENTS.to_vec(), ..file(&values) }
    }

    fn structure([_, y, x]: [usize; 3]) -> bool {
        (3..7).contains(&y) && (4..9).contains(&x)
    }

    /// Two cases of two channels with a margin of 0, in folders as nnU-Net has them.
    fn written(folder: &Path) {
        for name in ["images", "scribbles", "dense"] {
            fs::create_dir(folder.join(name)).unwrap();
        }
        for (case, brightness) in [("a", 100.0), ("b", 200.0)] {
            let inside = |[_, y, x]: [usize; 3]| (1..10).contains(&y) && (2..12).contains(&x);
            let image = |scale: f64| {
                volume(move |at| {
                    let content = scale * (1.0 + f64::from(u8::from(structure(at))) + at[2] as f64);
                    if inside(at) { content.round() } else { 0.0 }
                })
            };
            let scribble = volume(|at| match at {
                [_, 5, 4..=7] => 1.0,
                [_, 8, _] => 0.0,
                _ => 9.0,
            });
            let dense = volume(|at| f64::from(u8::from(structure(at))));
            for (path, file) in [
                (format!("images/{case}_0000.nii"), image(brightness)),
                (format!("images/{case}_0001.nii"), image(-0.5 * brightness)),
                (format!("scribbles/{case}.nii"), scribble),
                (format!("dense/{case}.nii"), dense),
            ] {
                fs::write(folder.join(path), file.bytes()).unwrap();
            }
        }
    }

    fn prepare(folder: &Path, arguments: &[&str]) -> String {
        let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let [images, scribbles, dense, to] = ["images", "scribbles", "dense", "set.h5"].map(at);
        let from = ["prepare", "own-data", "--images", &images, "--scribbles", &scribbles];
        let labels = ["--dense", &dense, "--classes", "background,lesion", "--unlabelled", "9"];
        let output = scrimp(&[&from[..], &labels, &["--to", &to], arguments].concat());
        complaint(&output).replace(folder.to_str().unwrap(), "FOLDER")
    }

    #[test]
    fn what_the_command_did_is_recorded_and_can_be_done_again_and_undone() {
        let folder = TempDir::new().unwrap();
        written(folder.path());
        let said = prepare(
            folder.path(),
            &["--modalities", "ct,pet", "--spacing", "4,3", "--crop", "nonzero"]
                .into_iter()
                .chain(["--intensities", "fixed", "--intensities", "z-score-nonzero"])
                .collect::<Vec<_>>(),
        );
        insta::assert_snapshot!(said, @r"
        exit code 0
        warning: annotated voxels met in one prepared voxel or lay outside of what is kept: `a` keeps 21 of 48, `b` keeps 21 of 48
        ");
        let dataset = store::read(&folder.path().join("set.h5")).unwrap();
        let preparation = dataset.preparation.clone().unwrap();
        insta::assert_snapshot!(toml::to_string(&preparation).unwrap(), @r#"
        crop = "nonzero"

        [spacing]
        in_plane = [4.0, 3.0]

        [[channels]]
        name = "ct"

        [channels.intensities.fixed]
        low = 600.0
        high = 1800.0
        mean = 1125.0
        deviation = 414.578098794425

        [[channels]]
        name = "pet"

        [channels.intensities.z_score]
        over = "nonzero"
        "#);
        let case = &dataset.cases[1];
        assert_eq!(case.scan.grid.shape, [3, 5, 5]);
        let known = |labels: &[u8]| labels.iter().filter(|&&label| label != 255).count();
        // Each slice: 4 voxels of the lesion end in 2, 10 of the background in 5.
        assert_eq!(known(&case.annotations[SCRIBBLE]), 3 * (2 + 5));
        // A scan that is read again goes the same way, to the last bit.
        let files = ["images/b_0000.nii", "images/b_0001.nii"].map(|name| folder.path().join(name));
        let scan = scrimp::scan::read_channels(&files, &Notes::default()).unwrap();
        let prepared = preparation.apply(scan).unwrap();
        assert_eq!(prepared.scan, case.scan);
        // And labels come back onto the file's voxels.
        let back = streamed(&prepared.regrid, &sure(&case.annotations[DENSE]), 1);
        let file = read(&folder.path().join("dense/b.nii"), &Notes::default()).unwrap();
        assert_eq!(prepared.regrid.file, file.grid);
        let truth: Vec<u8> = file.voxels.iter().map(|&label| label as u8).collect();
        assert!(dice(&back, &truth, 1) > 0.7);
    }

    #[test]
    fn what_the_command_cannot_do_is_refused() {
        let folder = TempDir::new().unwrap();
        written(folder.path());
        let refused = |arguments: &[&str]| {
            let said = prepare(folder.path(), arguments);
            assert!(!folder.path().join("set.h5").exists());
            said
        };
        insta::assert_snapshot!(refused(&["--spacing", "2,2,2,2"]), @r"
        exit code 2
        error: `--spacing` has 4 distances, expected 1 to 3

        hint: name one for rows and columns, or those of slices, rows and columns: `--spacing 0.8`
        ");
        insta::assert_snapshot!(refused(&["--spacing", "2,0"]), @r"
        exit code 2
        error: invalid value '0' for '--spacing <MM>': expected millimetres above 0

        For more information, try '--help'.
        ");
        insta::assert_snapshot!(refused(&["--intensities", "window:3"]), @r"
        exit code 2
        error: `--intensities` is `window:3`, expected `robust`, `published`, `z-score`, `z-score-nonzero`, `z-score-slices`, `window:LOW,HIGH`, `fixed` or `as-stored`
        ");
        insta::assert_snapshot!(refused(&["--intensities", "window:7,3"]), @r"
        exit code 1
        error: cannot scale channel `0000`
          caused by: the window goes from 7 to 3, expected a larger number last
        ");
        let three =
            ["--intensities", "robust", "--intensities", "robust", "--intensities", "robust"];
        insta::assert_snapshot!(refused(&three), @r"
        exit code 2
        error: 3 ways to scale intensities for 2 channels, expected one for all or one for each

        hint: channels are `NAME_0000`, `NAME_0001` and so on; give `--intensities` once for each
        ");
    }
}
