//! The augmentation of label transfer against Pillow and torchvision, level for level.

use crate::golden_arrays::Arrays;
use scrimp::data::augment::pillow;
use scrimp::data::augment::transfer::{TransferDraw, margin};

/// An `[H, W, C]` array as planes `[C, H, W]`, with its extents.
fn planes(golden: &Arrays, key: &str) -> (Vec<u8>, [usize; 3]) {
    let (shape, values) = golden.get(key);
    let [rows, columns, channels] = shape[..] else { panic!("`{key}` has shape {shape:?}") };
    let pixels = rows * columns;
    let value = |i: usize| values[(i % pixels) * channels + i / pixels] as u8;
    ((0..values.len()).map(value).collect(), [channels, rows, columns])
}

/// The stored draws, by their numbers.
fn draws(golden: &Arrays) -> Vec<(usize, TransferDraw)> {
    let stored = (0..).take_while(|number| golden.has(&format!("aug.{number}.in.params")));
    let draws: Vec<_> = stored
        .map(|number| {
            let drawn = golden.get(&format!("aug.{number}.in.params")).1;
            let draw = TransferDraw {
                flip_columns: drawn[0] > 0.5,
                flip_rows: drawn[1] > 0.5,
                crop: [drawn[2] as usize, drawn[3] as usize],
                contrast: drawn[4] as f32,
            };
            (number, draw)
        })
        .collect();
    assert!(!draws.is_empty(), "no `aug.N.in.params`");
    draws
}

#[test]
fn golden_resize() {
    let golden = Arrays::open("cltn");
    let (image, [channels, rows, columns]) = planes(&golden, "aug.in.image_u8");
    for (number, draw) in draws(&golden) {
        let (expected, [_, to_rows, to_columns]) =
            planes(&golden, &format!("aug.{number}.out.resized_u8"));
        let flipped: Vec<u8> = (0..channels * rows * columns)
            .map(|i| {
                let (row, column) = (i / columns % rows, i % columns);
                let row = if draw.flip_rows { rows - 1 - row } else { row };
                let column = if draw.flip_columns { columns - 1 - column } else { column };
                image[i / (rows * columns) * rows * columns + row * columns + column]
            })
            .collect();
        let resized = flipped
            .chunks_exact(rows * columns)
            .flat_map(|plane| pillow::resize(plane, [rows, columns], [to_rows, to_columns]));
        assert_eq!(resized.collect::<Vec<_>>(), expected, "{draw:?}");
    }
}

#[test]
fn golden_whole_augmentation() {
    let golden = Arrays::open("cltn");
    let (image, shape) = planes(&golden, "aug.in.image_u8");
    let image: Vec<f32> = image.iter().map(|&level| f32::from(level) / 255.0).collect();
    for (number, draw) in draws(&golden) {
        let (expected, [_, size, _]) = planes(&golden, &format!("aug.{number}.out.contrast_u8"));
        let enlarged = golden.get(&format!("aug.{number}.out.resized_u8")).0[0];
        assert_eq!(size + margin(size), enlarged);
        let mut out = vec![f32::NAN; expected.len()];
        draw.apply(&image, shape, (size, &mut out));
        let levels: Vec<u8> = out.iter().map(|value| (value * 255.0).round() as u8).collect();
        assert_eq!(levels, expected, "{draw:?}");
        // What the network sees: the same in [-1, 1].
        let normalised = golden.get(&format!("aug.{number}.out.x")).1;
        for (value, expected) in out.iter().zip(normalised) {
            assert!((f64::from((value - 0.5) / 0.5) - expected).abs() < 1e-6);
        }
    }
}
