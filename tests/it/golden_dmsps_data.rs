//! What the released code of DMSPS makes of its data sets: organs and box of WORD, intensities of BraTS, padding and
//! crop of volumes, and its scores.

use crate::data::write_nifti;
use crate::golden_arrays::Arrays;
use scrimp::data::augment::{Draw, Resample};
use scrimp::data::import::{Source, word};
use scrimp::data::item::{Item, PatchDraw, PatchSample, PatchSource};
use scrimp::data::{Case, DENSE, Dataset, IGNORE, SCRIBBLE};
use scrimp::metrics::{Convention, LabelPair};
use scrimp::preparation::Intensities;
use scrimp::preparation::intensities::scale;
use scrimp::scan::{Grid, Scan};
use std::collections::BTreeMap;
use tempfile::TempDir;

const FILE: &str = "dmsps";
const TOLERANCE: f64 = 1e-5;

fn three(golden: &Arrays, key: &str) -> [usize; 3] {
    golden.get(key).1.iter().map(|&value| value as usize).collect::<Vec<_>>().try_into().unwrap()
}

fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    for (place, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let apart = (f64::from(found) - expected).abs();
        assert!(apart <= TOLERANCE * largest, "{what} at {place}: {found}, not {expected}");
    }
}

/// The data set that is made of one volume with these labels, three times in the folder of WORD.
fn packed(shape: [usize; 3], image: &[i16], labels: &[i16]) -> Dataset {
    let folder = TempDir::new().unwrap();
    for (place, name) in [
        ("imagesTr", "a"),
        ("labelsTr", "a"),
        ("scribblesTr", "a"),
        ("imagesVal", "b"),
        ("labelsVal", "b"),
    ] {
        let place = folder.path().join(place);
        std::fs::create_dir(&place).unwrap();
        let values = if place.ends_with("imagesTr") || place.ends_with("imagesVal") {
            image
        } else {
            labels
        };
        write_nifti(&place.join(format!("{name}.nii")), shape, [5.0, 1.0, 1.0], values);
    }
    word::open(folder.path(), None).and_then(Source::collect).unwrap()
}

#[test]
fn golden_organs_and_box_of_word() {
    let golden = Arrays::open(FILE);
    let integers =
        |key: &str| -> Vec<i16> { golden.get(key).1.iter().map(|&value| value as i16).collect() };
    let shape: [usize; 3] = golden.get("word.in.hu").0.try_into().unwrap();
    let dataset = packed(shape, &integers("word.in.hu"), &integers("word.in.label"));
    for case in &dataset.cases {
        assert_eq!(case.scan.grid.shape, shape, "the margin is wider than the volume");
        assert_close(&case.scan.voxels, &golden.get("word.out.image").1, "word.out.image");
        for labels in case.annotations.values() {
            assert_eq!(labels, &golden.bytes("word.out.label"));
        }
    }
    let shape = three(&golden, "word.in.box_shape");
    let pairs = |key: &str| -> Vec<[usize; 2]> {
        let bounds = golden.get(key).1;
        bounds.chunks_exact(2).map(|pair| [pair[0] as usize, pair[1] as usize]).collect()
    };
    let (organ, kept) = (pairs("word.in.box_fg"), pairs("word.out.box"));
    let mut labels = vec![0; shape.iter().product()];
    // Two opposite corners span the box.
    for corner in [0, 1] {
        let [slice, row, column] = [0, 1, 2].map(|axis| organ[axis][corner]);
        labels[(slice * shape[1] + row) * shape[2] + column] = 3;
    }
    let case = &packed(shape, &labels, &labels).cases[0];
    let extents: Vec<usize> = kept.iter().map(|[low, high]| high - low).collect();
    assert_eq!(case.scan.grid.shape.to_vec(), extents);
    let first = [0, 1, 2].map(|axis| kept[axis][0] as f64);
    let expected = [first[2], first[1], 5.0 * first[0]];
    assert_eq!(case.scan.grid.position_mm([0.0; 3]), Some(expected));
}

#[test]
fn golden_intensities_of_brats() {
    let golden = Arrays::open(FILE);
    let volume = golden.get("brats.in.volume").1;
    let scaled = scale(Intensities::PublishedBrats, &volume).unwrap();
    assert_close(&scaled, &golden.get("brats.out.norm").1, "brats.out.norm");
    // What is brighter than the cut is as bright as the cut.
    let cut = golden.get("brats.out.cut").1[0];
    let brightest = scaled.iter().copied().fold(f32::MIN, f32::max);
    let at_cut = volume.iter().position(|value| value.to_bits() == cut.to_bits());
    assert_eq!(at_cut.map(|place| scaled[place]), Some(brightest));
}

/// Image and labels of a patch.
fn patch(case: &Case, kind: &str, item: &Item) -> (Vec<f32>, Vec<u8>) {
    let count: usize = item.extent.iter().product();
    let (mut image, mut annotation) = (vec![f32::NAN; count], vec![77; count]);
    let labels = &case.annotations[kind];
    let source = PatchSource { case, labels, resample: Resample::None };
    let draw = PatchDraw { in_plane: Draw::Keep, reverses: false };
    let mut sample = PatchSample { image: &mut image, annotation: &mut annotation };
    source.cut(item, draw, &mut sample);
    (image, annotation)
}

/// The released code pads a volume on all sides of each axis that is not larger than a patch and then cuts anywhere;
/// here a patch lies around an annotated voxel, and the volume in its middle where it is smaller. Where both cut at
/// the same place they agree, but for dense labels outside of the volume, which are background there.
#[test]
fn golden_patches_that_reach_beyond_a_volume() {
    let golden = Arrays::open(FILE);
    let shape: [usize; 3] = golden.get("crop3.in.image").0.try_into().unwrap();
    let extent: [usize; 3] = golden.get("crop3.out.image").0.try_into().unwrap();
    let [offset, pad] = ["crop3.in.offset", "crop3.out.pad"].map(|key| three(&golden, key));
    let first = [0, 1, 2].map(|axis| offset[axis] as i64 - pad[axis] as i64);
    let scribble = golden.bytes("crop3.in.label").into_iter();
    let scribble = scribble.map(|label| if label == 8 { IGNORE } else { label }).collect();
    let voxels = golden.get("crop3.in.image").1.into_iter().map(|value| value as f32).collect();
    let case = Case {
        name: "volume".into(),
        patient: "volume".into(),
        frame: 0,
        fold: 0,
        modality: String::new(),
        classes_annotated: Vec::new(),
        scan: Scan { grid: Grid::unplaced(shape, None), channels: 1, voxels },
        annotations: BTreeMap::from([
            (SCRIBBLE.to_owned(), scribble),
            (DENSE.to_owned(), golden.bytes("crop3.in.gt")),
        ]),
    };
    let item = Item { case: 0, first, extent };
    let (image, labels) = patch(&case, SCRIBBLE, &item);
    assert_close(&image, &golden.get("crop3.out.image").1, "crop3.out.image");
    let marked: Vec<u8> =
        labels.iter().map(|&label| if label == IGNORE { 8 } else { label }).collect();
    assert_eq!(marked, golden.bytes("crop3.out.label"));
    let (_, dense) = patch(&case, DENSE, &item);
    let mut outside = 0;
    for (index, (found, expected)) in dense.iter().zip(golden.bytes("crop3.out.gt")).enumerate() {
        let at =
            [index / (extent[1] * extent[2]), index / extent[2] % extent[1], index % extent[2]];
        let is_inside = (0..3).all(|axis| {
            let place = at[axis] as i64 + first[axis];
            (0..shape[axis] as i64).contains(&place)
        });
        outside += usize::from(!is_inside);
        let expected = if is_inside { expected } else { IGNORE };
        assert_eq!(*found, expected, "{at:?}");
    }
    assert!(outside > 0, "otherwise nothing reaches beyond");
}

#[test]
fn golden_scores_of_its_tables() {
    let golden = Arrays::open(FILE);
    let (shape, _) = golden.get("met.in.pred");
    let spacing: [f64; 3] = golden.get("met.in.spacing").1.try_into().unwrap();
    let [prediction, truth] = ["pred", "gt"].map(|of| golden.bytes(&format!("met.in.{of}")));
    let expected = golden.get("met.out.dice_asd_hd95").1;
    let voxels: usize = shape[1..].iter().product();
    let mut empty = 0;
    for (volume, expected) in expected.chunks_exact(3).enumerate() {
        let of_volume = volume * voxels..(volume + 1) * voxels;
        let (prediction, truth) = (&prediction[of_volume.clone()], &truth[of_volume]);
        let extents = [shape[1], shape[2], shape[3]];
        let pair = LabelPair::new(prediction, truth, extents, spacing).unwrap();
        let scores = Convention::Dmsps.score(&pair, 1);
        let found = [scores.dice, scores.asd, scores.hd95].map(Option::unwrap);
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{volume}: {found:?}");
        }
        empty += usize::from(!(prediction.contains(&1) && truth.contains(&1)));
    }
    assert!(empty >= 3, "prediction, truth and both are empty in one volume each");
}
