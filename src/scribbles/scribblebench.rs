//! Strokes as ScribbleBench draws them: one inside of a component of each class, and one along its edge.
//!
//! Gotkowski, Maier-Hein and Isensee, MICCAI 2025; MIC-DKFZ/ScribbleBench, `scribble_generation.py` and
//! `scribble_conf.yml` at f292115. The released code has no seed, and draws the same only in distribution. It means to
//! cut what lies between two control points where it leaves the component, but meets it with the filled outline,
//! which is a line and no point, and so cuts nothing; here nothing is cut either. What its code fails at, a component of
//! fewer than four pixels that fills a slice, one that is cut by a corner of the slice, an edge without any bend, has
//! strokes here as all others do.

use super::outline::outlines;
use super::parts::{Touch, largest, parts};
use super::shrink::{dilate_by_sides, erode_by_disk};
use super::{Mask, UNLABELLED};
use crate::random::Draws;

/// Points at which the curve of a stroke is evaluated.
const SAMPLES: usize = 1000;

/// By how many pixels the edge may lie inward: a stroke's half width, and 1 to 4 pixels.
const INWARD: [usize; 2] = [2, 5];

/// Which share of the edge a stroke may follow.
const EDGE_SHARE: [f64; 2] = [0.07, 0.15];

/// Standard deviation of the weights that smooth bends is one point; those farther off than this count nothing.
const SMOOTHED_OVER: usize = 4;

/// Draws the strokes of class `class` of the slice `labels` into `out`, both in rows of `columns`.
///
/// Of the components of the class, whose pixels share sides or corners, one is drawn with a probability that is its share of
/// the area. It gets a quadratic B-spline with four control points, drawn uniformly from its pixels, and where
/// something is left of it that lies far enough inward, a piece of the edge of that, most likely where it bends; both three pixels
/// wide and cut to the component. A class without pixels gets nothing, and every other one at least a pixel.
pub fn scribblebench(labels: &[u8], columns: usize, class: u8, draws: &mut Draws, out: &mut [u8]) {
    let Some(component) = component(&Mask::of(labels, class, columns), draws) else { return };
    let inside = curve(&component, draws);
    for stroke in [Some(inside), edge(&component, draws)].into_iter().flatten() {
        let wide = dilate_by_sides(&cut(stroke, &component));
        for (out, is_drawn) in out.iter_mut().zip(cut(wide, &component).pixels) {
            debug_assert!(
                !is_drawn || [class, UNLABELLED].contains(out),
                "two classes claim one pixel"
            );
            if is_drawn {
                *out = class;
            }
        }
    }
}

/// One component of `mask`; none where it has no pixels.
fn component(mask: &Mask, draws: &mut Draws) -> Option<Mask> {
    let area = mask.area();
    let mut pixel = (area > 0).then(|| draws.below(area as u64) as usize)?;
    for part in parts(mask, Touch::Corners) {
        if pixel < part.len() {
            return Some(mask.empty_like().with(&part));
        }
        pixel -= part.len();
    }
    None
}

/// What of `stroke` lies in `component`.
fn cut(mut stroke: Mask, component: &Mask) -> Mask {
    stroke.pixels.iter_mut().zip(&component.pixels).for_each(|(pixel, &inside)| *pixel &= inside);
    stroke
}

/// A curve whose control points are pixels of `component`, which has some; between these it may leave it.
fn curve(component: &Mask, draws: &mut Draws) -> Mask {
    let mut pixels = (0..component.pixels.len()).collect::<Vec<_>>();
    pixels.retain(|&pixel| component.pixels[pixel]);
    let place = |pixel: usize| [pixel / component.columns, pixel % component.columns];
    let controls: [[f64; 2]; 4] = std::array::from_fn(|_| {
        place(pixels[draws.below(pixels.len() as u64) as usize]).map(|place| place as f64)
    });
    let mut drawn = component.empty_like();
    let sample = |sample: usize| on_spline(&controls, sample as f64 / (SAMPLES - 1) as f64);
    let mut last = rounded(sample(0));
    for next in (0..SAMPLES).map(|index| rounded(sample(index))) {
        for [row, column] in line(last, next) {
            drawn.pixels[row as usize * component.columns + column as usize] = true;
        }
        last = next;
    }
    drawn
}

/// The point at `share`, in `[0, 1]`, of a quadratic B-spline with the knots 0, 0, 0, 1/2, 1, 1, 1: two parabolas that meet
/// half-way between the second and the third control point.
fn on_spline([first, second, third, last]: &[[f64; 2]; 4], share: f64) -> [f64; 2] {
    let middle: [f64; 2] = std::array::from_fn(|axis| 0.5 * (second[axis] + third[axis]));
    let (from, towards, to, along) = if share < 0.5 {
        (first, second, &middle, 2.0 * share)
    } else {
        (&middle, third, last, 2.0 * share - 1.0)
    };
    let left = 1.0 - along;
    std::array::from_fn(|axis| {
        left * left * from[axis] + 2.0 * left * along * towards[axis] + along * along * to[axis]
    })
}

/// The pixel at a point; half-way between two the one with the even number, as numpy rounds.
fn rounded(point: [f64; 2]) -> [i64; 2] {
    point.map(|place| place.round_ties_even() as i64)
}

/// The pixels of a straight line, with both ends, as Bresenham draws it.
fn line(from: [i64; 2], to: [i64; 2]) -> impl Iterator<Item = [i64; 2]> {
    let way: [i64; 2] = std::array::from_fn(|axis| to[axis] - from[axis]);
    let steps = way[0].abs().max(way[1].abs()).max(1);
    (0..=steps).map(move |step| {
        std::array::from_fn(|axis| {
            from[axis] + (2 * step * way[axis] + steps).div_euclid(2 * steps)
        })
    })
}

/// A piece of the edge of what is left of `component` some pixels inward, most likely where it bends; none where nothing
/// is left, or where it has no edge because the component fills the slice.
fn edge(component: &Mask, draws: &mut Draws) -> Option<Mask> {
    let [least, most] = INWARD;
    let radius = least + draws.below((most - least + 1) as u64) as usize;
    let points = outlines(&erode_by_disk(component, radius)).concat();
    let count = points.len();
    let lengths = EDGE_SHARE.map(|share| ((count as f64 * share) as usize).max(1));
    let length = lengths[0] + draws.below((lengths[1] - lengths[0] + 1) as u64) as usize;
    let middle = (count > 0).then(|| drawn(&smoothed(&bends(&points)), draws))?;
    let start = middle + count - length / 2;
    let mut piece = component.empty_like();
    for index in start..start + length {
        let [row, column] = rounded(points[index % count]);
        piece.pixels[row as usize * component.columns + column as usize] = true;
    }
    Some(largest(&piece, Touch::Corners))
}

/// How much a line of points bends at each: its curvature by central differences, |r′ c″ − c′ r″| / (r′² + c′²)^(3/2), and 0
/// where it stands still.
fn bends(points: &[[f64; 2]]) -> Vec<f64> {
    let speeds =
        [0, 1].map(|axis| slopes(&points.iter().map(|point| point[axis]).collect::<Vec<_>>()));
    let turns = speeds.each_ref().map(|speeds| slopes(speeds));
    let bend = |point: usize| {
        let [[down, right], [down_turn, right_turn]] =
            [&speeds, &turns].map(|of_axes| [of_axes[0][point], of_axes[1][point]]);
        let square = down * down + right * right;
        let bend = (down * right_turn - right * down_turn).abs() / (square * square.sqrt());
        if square > 0.0 { bend } else { 0.0 }
    };
    (0..points.len()).map(bend).collect()
}

/// Half the difference of the neighbours of each value, at the ends the whole difference.
fn slopes(values: &[f64]) -> Vec<f64> {
    let last = values.len().saturating_sub(1);
    let slope = |index: usize| {
        let (before, after) = (index.saturating_sub(1), (index + 1).min(last));
        (values[after] - values[before]) / (after - before).max(1) as f64
    };
    (0..values.len()).map(slope).collect()
}

/// Means of neighbouring values by Gaussian weights; beyond its ends the row goes on with its last values.
fn smoothed(values: &[f64]) -> Vec<f64> {
    let weights: Vec<f64> = (0..=2 * SMOOTHED_OVER)
        .map(|place| (-0.5 * (place as f64 - SMOOTHED_OVER as f64).powi(2)).exp())
        .collect();
    let sum: f64 = weights.iter().sum();
    let last = values.len().saturating_sub(1);
    let mean = |index: usize| {
        let value = |place: usize| values[(index + place).saturating_sub(SMOOTHED_OVER).min(last)];
        weights.iter().enumerate().map(|(place, weight)| weight * value(place)).sum::<f64>() / sum
    };
    (0..values.len()).map(mean).collect()
}

/// An index with a probability that is proportional to how far its value lies above the least of all; any where all are
/// equal.
fn drawn(values: &[f64], draws: &mut Draws) -> usize {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let sum: f64 = values.iter().map(|value| value - least).sum();
    if sum <= 0.0 {
        return draws.below(values.len() as u64) as usize;
    }
    let mut left = draws.uniform() * sum;
    let found = values.iter().position(|value| {
        left -= value - least;
        left < 0.0
    });
    found.unwrap_or(values.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    fn mask(picture: &[&str]) -> Mask {
        let pixels = picture.concat().bytes().map(|letter| letter == b'#').collect();
        Mask { columns: picture[0].len(), pixels }
    }

    /// What is drawn of class 1 of a mask, with so many seeds.
    fn drawn_of(mask: &Mask, seeds: u64) -> impl Iterator<Item = Mask> {
        let labels: Vec<u8> = mask.pixels.iter().map(|&pixel| u8::from(pixel)).collect();
        let columns = mask.columns;
        (0..seeds).map(move |seed| {
            let mut out = vec![UNLABELLED; labels.len()];
            scribblebench(&labels, columns, 1, &mut Key::new(seed).draws(), &mut out);
            Mask::of(&out, 1, columns)
        })
    }

    #[test]
    fn components_are_drawn_by_their_area() {
        // Nine pixels that touch by corners too, and three.
        let both = mask(&["#.......", ".##..#..", ".###.#..", ".###.#.."]);
        let of = |seed| component(&both, &mut Key::new(seed).draws()).unwrap().area();
        let areas: Vec<usize> = (0..2000).map(of).collect();
        assert!(areas.iter().all(|area| [9, 3].contains(area)));
        let share = areas.iter().filter(|&&area| area == 9).count() as f64 / 2000.0;
        // Five standard deviations.
        assert!((share - 0.75).abs() < 0.05, "{share}");
    }

    #[test]
    fn splines_begin_and_end_in_control_points_and_lines_have_no_gaps() {
        let controls = [[0.0, 0.0], [4.0, 0.0], [4.0, 8.0], [0.0, 8.0]];
        let at = |share| on_spline(&controls, share);
        assert_eq!(
            [0.0, 0.25, 0.5, 0.75, 1.0].map(at),
            [[0.0, 0.0], [3.0, 1.0], [4.0, 4.0], [3.0, 7.0], [0.0, 8.0]]
        );
        assert_eq!(
            line([0, 0], [2, -4]).collect::<Vec<_>>(),
            [[0, 0], [1, -1], [1, -2], [2, -3], [2, -4]]
        );
        assert_eq!(line([3, 3], [3, 3]).collect::<Vec<_>>(), [[3, 3], [3, 3]]);
    }

    #[test]
    fn bends_are_found_where_they_are() {
        let straight: Vec<[f64; 2]> = (0..6).map(|place| [f64::from(place), 2.0]).collect();
        assert_eq!(bends(&straight), [0.0; 6]);
        // By hand: r = 0 1 2 2 2, c = 0 0 0 1 2.
        let corner = [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [2.0, 1.0], [2.0, 2.0]];
        // r' = 1 1 1/2 0 0 and c' = 0 0 1/2 1 1, r" = 0 -1/4 -1/2 -1/4 0 and c" = 0 1/4 1/2 1/4 0.
        let expected = [0.0, 0.25, 0.5 / 0.5f64.powf(1.5), 0.25, 0.0];
        let found = bends(&corner);
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
        assert_eq!(bends(&[[1.0, 1.0]; 3]), [0.0; 3]);
        let even = smoothed(&[2.0; 3]);
        assert!(even.iter().all(|value| (value - 2.0).abs() < 1e-12));
        let mut draws = Key::new(1).draws();
        assert!((0..50).all(|_| drawn(&[1.0, 1.0, 3.0, 1.0], &mut draws) == 2));
        let any: Vec<usize> = (0..50).map(|_| drawn(&[1.0; 3], &mut draws)).collect();
        assert!((0..3).all(|index| any.contains(&index)));
    }

    /// Seeds with which something is drawn that lies at least two pixels inward of a square, and how large it is.
    #[test]
    fn pieces_of_the_edge_have_the_length_and_the_place_that_they_should() {
        let square = |side: usize| Mask {
            columns: side + 2,
            pixels: {
                let inside = |place: usize| (1..=side).contains(&place);
                let columns = side + 2;
                (0..columns * columns)
                    .map(|pixel| inside(pixel / columns) && inside(pixel % columns))
                    .collect()
            },
        };
        let component = square(40);
        for seed in 0..200 {
            let piece = edge(&component, &mut Key::new(seed).draws()).unwrap();
            // Of a square of 30 to 36 there are 4 · side + 1 points, of which 0.07 to 0.15; rounding may part them.
            assert!((4..=22).contains(&piece.area()), "{}", piece.area());
            assert_eq!(parts(&piece, Touch::Corners).len(), 1);
            let depth = |pixel: usize| {
                let (row, column) = (pixel / 42, pixel % 42);
                [row, column, 41 - row, 41 - column].into_iter().min().unwrap()
            };
            let pixels: Vec<usize> =
                (0..piece.pixels.len()).filter(|&pixel| piece.pixels[pixel]).collect();
            // Half-way points lie 2 to 6 pixels inward of the outermost ones.
            assert!(pixels.iter().all(|&pixel| (2..=6).contains(&depth(pixel))));
            let at_corner = |pixel: &&usize| {
                let (row, column) = (**pixel / 42, **pixel % 42);
                let end = |place: usize| !(11..=30).contains(&place);
                end(row) && end(column)
            };
            // A square bends at its corners alone.
            assert!(pixels.iter().any(|pixel| at_corner(&pixel)), "seed {seed}");
        }
        assert!(edge(&square(4), &mut Key::new(1).draws()).is_none());
    }

    #[test]
    fn whatever_the_component_it_gets_something_and_nothing_beyond_it() {
        let pictures: [&[&str]; 6] = [
            &["....", ".#..", "...."],
            &["#"],
            &["....#", "....#", "....#"],
            &["######", "######", "######"],
            &["#..#.", ".##..", "#..#."],
            &["##...", "#....", "....."],
        ];
        for picture in pictures {
            let component = mask(picture);
            for drawn in drawn_of(&component, 20) {
                assert!(drawn.area() > 0, "{picture:?}");
                assert_eq!(cut(drawn.clone(), &component), drawn);
            }
        }
        assert!(drawn_of(&mask(&["...", "..."]), 3).all(|drawn| drawn.area() == 0));
        let single = mask(&["....", ".#..", "...."]);
        assert!(drawn_of(&single, 3).all(|drawn| drawn == single));
    }

    #[test]
    fn what_is_drawn_depends_on_the_seed_alone() {
        let disk = Mask {
            columns: 30,
            pixels: (0..900)
                .map(|pixel: i32| (pixel / 30 - 15).pow(2) + (pixel % 30 - 15).pow(2) < 150)
                .collect(),
        };
        let [one, other] = [(); 2].map(|()| drawn_of(&disk, 10).collect::<Vec<_>>());
        assert!(one == other && one[0] != one[1]);
        // Not all of the disk, and most of it two strokes.
        assert!(one.iter().all(|drawn| drawn.area() < disk.area() / 2));
        assert!(one.iter().filter(|drawn| parts(drawn, Touch::Corners).len() == 2).count() > 1);
    }
}
