//! `PuzzleMix` against the released code and gco-wrapper: saliency, costs, labellings, transport and mixes;
//! and the regions that CycleMix keeps of predictions.

use crate::golden_arrays::Arrays;
use scrimp::mixing::puzzle::{
    Costs, Draw, Energy, Mix, Patches, Settings, Terms, View, block_shares, mix_all,
};
use scrimp::pseudo_labels::keep_main_regions;

const FILE: &str = "cyclemix";
/// Of single-precision sums, relative to the largest magnitude.
const TOLERANCE: f64 = 1e-6;

fn singles(golden: &Arrays, key: &str) -> Vec<f32> {
    golden.get(key).1.into_iter().map(|value| value as f32).collect()
}

fn integers(golden: &Arrays, key: &str) -> Vec<i64> {
    golden.get(key).1.into_iter().map(|value| value as i64).collect()
}

fn single(golden: &Arrays, key: &str) -> f64 {
    golden.get(key).1[0]
}

fn assert_close(what: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(found) - expected).abs();
        assert!(
            difference <= TOLERANCE * largest,
            "{what}, element {index}: {found}, expected {expected}"
        );
    }
}

#[test]
fn golden_labellings_of_blocks() {
    let golden = Arrays::open(FILE);
    let names = (0..100).map(|number| format!("gc.{number:02}"));
    let names: Vec<String> = names.filter(|name| golden.has(&format!("{name}.in.D"))).collect();
    assert!(!names.is_empty());
    for name in names {
        let shape = golden.get(&format!("{name}.in.D")).0;
        let energy = Energy::new(Costs {
            blocks: shape[0],
            labels: shape[2],
            unary: integers(&golden, &format!("{name}.in.D")),
            vertical: integers(&golden, &format!("{name}.in.wx")),
            horizontal: integers(&golden, &format!("{name}.in.wy")),
        });
        let energy = energy.unwrap();
        let labels = energy.swapped();
        assert_eq!(labels, golden.bytes(&format!("{name}.out.label")), "{name}");
        let found = energy.of(&labels);
        assert_eq!(found, single(&golden, &format!("{name}.out.energy")) as i64, "{name}");
        let least = format!("{name}.out.global_min");
        assert!(!golden.has(&least) || found >= single(&golden, &least) as i64, "{name}");
    }
}

/// The batch that is mixed with blocks of several sizes.
struct Batch {
    size: usize,
    images: Vec<f32>,
    saliency: Vec<f32>,
    partners: Vec<usize>,
}

impl Batch {
    fn open(golden: &Arrays) -> Self {
        Self {
            size: golden.get("mg.in.image").0[3],
            images: singles(golden, "mg.in.image"),
            saliency: singles(golden, "mg.in.unary"),
            partners: golden.get("mg.in.indices").1.into_iter().map(|item| item as usize).collect(),
        }
    }

    fn view(&self, item: usize) -> View<'_> {
        let pixels = self.size * self.size;
        let own = item * pixels..(item + 1) * pixels;
        View { image: &self.images[own.clone()], saliency: &self.saliency[own] }
    }

    fn pairs(&self) -> Vec<[View<'_>; 2]> {
        let of = |(item, &partner): (usize, &usize)| [self.view(item), self.view(partner)];
        self.partners.iter().enumerate().map(of).collect()
    }
}

fn draws(golden: &Arrays) -> Vec<Draw> {
    let of = |blocks| {
        let share = golden.has(&format!("mg.b{blocks}.in.lam"));
        share.then(|| Draw { blocks, share: single(golden, &format!("mg.b{blocks}.in.lam")) })
    };
    [2, 4, 8, 16].into_iter().filter_map(of).collect()
}

#[test]
fn golden_costs_of_mixes() {
    let golden = Arrays::open(FILE);
    let batch = Batch::open(&golden);
    let settings = Settings::default();
    let draws = draws(&golden);
    assert!(!draws.is_empty());
    for draw in draws {
        let Draw { blocks, .. } = draw;
        let expected = |what: &str| golden.get(&format!("mg.b{blocks}.mid.{what}")).1;
        let part = |what: &str, item: usize| {
            let values = expected(what);
            let count = values.len() / batch.partners.len();
            values[item * count..][..count].to_vec()
        };
        for (item, views) in batch.pairs().into_iter().enumerate() {
            let terms = Terms::of(views, batch.size, &settings, blocks);
            let what = format!("{blocks} blocks, item {item}");
            assert_close(&what, &terms.images[0], &part("u_label0", item));
            assert_close(&what, &terms.images[1], &part("u_labelN", item));
            assert_close(&what, &terms.vertical, &part("pw_x", item));
            assert_close(&what, &terms.horizontal, &part("pw_y", item));
            let whole = |what| part(what, item).into_iter().map(|cost| cost as i64).collect();
            let costs = Costs {
                blocks,
                labels: settings.labels,
                unary: whole("D_int"),
                vertical: whole("wx_int"),
                horizontal: whole("wy_int"),
            };
            let energy = terms.energy(&settings, draw).unwrap();
            assert_eq!(energy, Energy::new(costs).unwrap(), "{what}");
        }
    }
}

/// What a mix of values `[size * size]` of two images is at a pixel.
fn mixed(mix: &Mix, images: [&[f32]; 2]) -> Vec<f32> {
    let moved = |image: usize| {
        let sources = mix.sources(image);
        let of = move |source| if source < 0 { 0.0 } else { images[image][source as usize] };
        sources.into_iter().map(of).collect::<Vec<f32>>()
    };
    let [first, second] = [0, 1].map(moved);
    let pixels = mix.shares().into_iter().zip(first).zip(second);
    pixels.map(|((share, first), second)| share * first + (1.0 - share) * second).collect()
}

#[test]
fn golden_mixes() {
    let golden = Arrays::open(FILE);
    let batch = Batch::open(&golden);
    let pixels = batch.size * batch.size;
    let labels = golden.bytes("mg.in.label");
    for draw in draws(&golden) {
        let name = format!("mg.b{}", draw.blocks);
        let expected = |what: &str| golden.get(&format!("{name}.out.{what}")).1;
        let pairs = batch.pairs();
        let mixes = mix_all(&pairs, batch.size, &Settings::default(), draw, 2).unwrap();
        for (item, (views, mix)) in pairs.iter().zip(&mixes).enumerate() {
            let what = format!("{name}, item {item}");
            let of_item = |values: &[f64]| values[item * pixels..][..pixels].to_vec();
            let shares = mix.shares();
            let codes: Vec<f64> = shares.iter().map(|share| 2.0 * f64::from(*share)).collect();
            assert_eq!(codes, of_item(&expected("mask_codes")), "{what}");
            let side = batch.size / draw.blocks;
            let block = |block: usize| {
                let (row, column) = (block / draw.blocks, block % draw.blocks);
                shares[row * side * batch.size + column * side]
            };
            let blocks: Vec<f32> = (0..draw.blocks * draw.blocks).map(block).collect();
            let of_blocks = singles(&golden, &format!("{name}.out.block_mask"));
            assert_eq!(blocks, of_blocks[item * blocks.len()..][..blocks.len()], "{what}");
            let ratio = shares.iter().sum::<f32>() / pixels as f32;
            assert_eq!(f64::from(ratio), expected("ratio")[item], "{what}");
            for image in [0, 1] {
                let sources = patches_of(mix, image, batch.size);
                let key = format!("{name}.t{}.out.src", image + 1);
                let expected = integers(&golden, &key);
                let expected = &expected[item * sources.len()..][..sources.len()];
                assert_same_sources(&format!("{what}, image {image}"), &sources, expected);
            }
            let found = mixed(mix, views.map(|view| view.image));
            let found: Vec<f64> = found.into_iter().map(f64::from).collect();
            assert_eq!(found, of_item(&expected("mixed")), "{what}");
            if golden.has(&format!("{name}.out.label_codes")) {
                let codes = expected("label_codes");
                let partner = batch.partners[item];
                for class in 0..codes.len() / (pixels * batch.partners.len()) {
                    let is_class = |item: usize, pixel: usize| {
                        f32::from(u8::from(usize::from(labels[item * pixels + pixel]) == class))
                    };
                    let share = |(pixel, &share): (usize, &f32)| {
                        let mixed = is_class(item, pixel) * share
                            + is_class(partner, pixel) * (1.0 - share);
                        f64::from(2.0 * mixed)
                    };
                    let found: Vec<f64> = shares.iter().enumerate().map(share).collect();
                    let start = (item * codes.len() / batch.partners.len()) + class * pixels;
                    assert_eq!(found, codes[start..][..pixels], "{what}, class {class}");
                }
            }
        }
    }
}

/// The sources of patches of 4 x 4 pixels from those of pixels.
fn patches_of(mix: &Mix, image: usize, size: usize) -> Vec<i64> {
    let (sources, count) = (mix.sources(image), size / 4);
    let patch = |source: i32| {
        let source = source as usize;
        (source / size / 4 * count + source % size / 4) as i64
    };
    let of = |place: usize| {
        let source = sources[place / count * 4 * size + place % count * 4];
        if source < 0 { -1 } else { patch(source) }
    };
    (0..count * count).map(of).collect()
}

/// Compares where something is expected: -2 stands where nothing is shown.
fn assert_same_sources(what: &str, found: &[i64], expected: &[i64]) {
    let differing: Vec<_> = (0..found.len())
        .filter(|&place| expected[place] != -2 && expected[place] != found[place])
        .map(|place| (place, found[place], expected[place]))
        .collect();
    assert!(differing.is_empty(), "{what}: (place, found, expected) {differing:?}");
}

#[test]
fn golden_transport() {
    let golden = Arrays::open(FILE);
    let sides = [8, 16, 32, 64].map(|side| (side, format!("tr.{side}")));
    let groups = sides.into_iter().filter(|(_, name)| golden.has(&format!("{name}.in.unary")));
    let mixes = [2, 4, 8, 16]
        .into_iter()
        .flat_map(|blocks| [1, 2].map(|image| (16, format!("mg.b{blocks}.t{image}"))));
    for (side, name) in groups.chain(mixes) {
        let saliency = singles(&golden, &format!("{name}.in.unary"));
        let codes = format!("{name}.in.mask_codes");
        let mask = if golden.has(&codes) { codes } else { format!("{name}.in.mask") };
        let shown: Vec<bool> = golden.get(&mask).1.into_iter().map(|mask| mask > 0.0).collect();
        let expected = integers(&golden, &format!("{name}.out.src"));
        let count = side * side;
        for (item, expected) in expected.chunks_exact(count).enumerate() {
            let patches = Patches {
                side,
                saliency: &saliency[item * count..][..count],
                shown: &shown[item * count..][..count],
                distance_weight: 0.8,
            };
            let found: Vec<i64> = patches.sources().into_iter().map(i64::from).collect();
            assert_same_sources(&format!("{name}, item {item}"), &found, expected);
        }
    }
}

#[test]
fn golden_saliency_of_blocks() {
    let golden = Arrays::open(FILE);
    let (shape, gradient) = golden.get("sal.in.grad");
    let size = shape[3];
    let pixels = size * size;
    let saliency: Vec<f32> = gradient.iter().map(|slope| slope.abs() as f32).collect();
    assert_close("saliency", &saliency, &golden.get("sal.out.unary").1);
    for blocks in
        [2, 4, 8].into_iter().filter(|blocks| golden.has(&format!("sal.b{blocks}.out.blocks")))
    {
        let found: Vec<f32> = saliency
            .chunks_exact(pixels)
            .flat_map(|saliency| block_shares(saliency, size, size / blocks))
            .collect();
        assert_close("blocks", &found, &golden.get(&format!("sal.b{blocks}.out.blocks")).1);
    }
}

#[test]
fn golden_main_regions() {
    let golden = Arrays::open(FILE);
    let (shape, _) = golden.get("cc.in.label");
    let expected = golden.bytes("cc.out.label");
    let mut labels = golden.bytes("cc.in.label");
    for slice in labels.chunks_exact_mut(shape[1] * shape[2]) {
        keep_main_regions(slice, shape[2]);
    }
    assert_eq!(labels, expected);
}
