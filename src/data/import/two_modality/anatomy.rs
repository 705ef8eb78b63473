//! Shapes: the organs of a belly as bodies with smooth surfaces, which differ from patient to patient.
//!
//! Lengths are millimetres from the middle of the patient, towards the head, the front and the patient's right. Knows
//! geometry only, and no modality: patients of all modalities are drawn alike.

use crate::random::Draws;
use std::f64::consts::TAU;

/// A place in the patient: towards head, front and right.
pub(super) type Place = [f64; 3];

/// What tissue a body is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tissue {
    Spleen,
    Kidney,
    Liver,
    Stomach,
    Vessel,
    Bone,
    /// One of as many kinds of contents as loops of the gut have.
    Gut(u8),
}

/// Kinds of contents that loops of the gut have.
pub(super) const GUT_KINDS: u8 = 4;

/// Loops of the gut.
const LOOPS: usize = 9;

/// One patient, in whichever scanner.
pub(super) struct Anatomy {
    /// Half of the width of the trunk from back to front and from left to right.
    trunk: [f64; 2],
    /// How thick the fat under the skin is, and the muscle behind it.
    walls: [f64; 2],
    /// From back to front: what is later hides what is earlier.
    pub(super) bodies: Vec<Body>,
}

/// How deep a place lies in the trunk, negative outside.
pub(super) struct TrunkDepth {
    pub(super) skin: f64,
    /// Behind the fat.
    pub(super) muscle: f64,
    /// Behind the muscle.
    pub(super) cavity: f64,
}

/// An ellipsoid with a wavy surface.
pub(super) struct Body {
    pub(super) tissue: Tissue,
    /// 0 where it belongs to the background.
    pub(super) class: u8,
    centre: Place,
    half: Place,
    /// Sine and cosine of its turn from the front to the right, and of its tilt from the head to the right.
    turns: [(f64, f64); 2],
    waves: [Wave; 3],
}

/// A wave over the directions from the middle of a body.
struct Wave {
    size: f64,
    along: Place,
    phase: f64,
}

/// A body of which a patient has one, before it is varied.
struct Usual {
    tissue: Tissue,
    class: u8,
    centre: Place,
    half: Place,
}

const fn usual(tissue: Tissue, class: u8, centre: Place, half: Place) -> Usual {
    Usual { tissue, class, centre, half }
}

/// What hides nothing comes first.
const USUAL: [Usual; 8] = [
    // As long as the trunk.
    usual(Tissue::Bone, 0, [0.0, -72.0, 0.0], [400.0, 20.0, 22.0]),
    usual(Tissue::Vessel, 0, [0.0, -44.0, -10.0], [400.0, 9.0, 9.0]),
    usual(Tissue::Vessel, 0, [0.0, -40.0, 14.0], [400.0, 8.0, 11.0]),
    usual(Tissue::Stomach, 0, [24.0, 36.0, -52.0], [32.0, 28.0, 36.0]),
    usual(Tissue::Spleen, 1, [22.0, -36.0, -98.0], [36.0, 32.0, 22.0]),
    usual(Tissue::Kidney, 2, [-22.0, -46.0, 58.0], [38.0, 21.0, 22.0]),
    usual(Tissue::Kidney, 3, [-14.0, -46.0, -56.0], [38.0, 21.0, 22.0]),
    usual(Tissue::Liver, 4, [26.0, 16.0, 66.0], [48.0, 58.0, 58.0]),
];

impl Anatomy {
    /// Draws a patient.
    pub(super) fn draw(draws: &mut Draws) -> Self {
        let size = draws.range(0.94, 1.06);
        let trunk = [size * draws.range(104.0, 116.0), size * draws.range(140.0, 150.0)];
        let walls = [draws.range(7.0, 16.0), draws.range(9.0, 13.0)];
        let mut bodies: Vec<Body> = (0..LOOPS)
            .map(|_| {
                let angle = draws.range(0.0, TAU);
                let away = draws.range(10.0, 75.0);
                let radius = draws.range(12.0, 24.0);
                let centre =
                    [draws.range(-85.0, 20.0), 14.0 + 0.6 * away * angle.sin(), away * angle.cos()];
                let half = [radius * draws.range(0.8, 1.4), radius, radius * draws.range(0.8, 1.4)];
                let kind = draws.below(u64::from(GUT_KINDS)) as u8;
                Body::draw(draws, &usual(Tissue::Gut(kind), 0, centre, half), size)
            })
            .collect();
        bodies.extend(USUAL.iter().map(|usual| Body::draw(draws, usual, size)));
        Self { trunk, walls, bodies }
    }

    /// How deep a place lies in the trunk.
    pub(super) fn trunk_depth(&self, [_, front, right]: Place) -> TrunkDepth {
        let inside = |wall: f64| {
            let [deep, wide] = self.trunk.map(|half| half - wall);
            (1.0 - (front / deep).hypot(right / wide)) * deep.min(wide)
        };
        let [fat, muscle] = self.walls;
        TrunkDepth { skin: inside(0.0), muscle: inside(fat), cavity: inside(fat + muscle) }
    }
}

impl Body {
    /// Varies place, size, turn and surface of what is usual in a patient of this size.
    fn draw(draws: &mut Draws, usual: &Usual, size: f64) -> Self {
        let Usual { tissue, class, centre, half } = *usual;
        let is_long = half[0] > 100.0;
        let (shift, spread) = if is_long { (2.0, 0.1) } else { (6.0, 0.18) };
        let centre = centre.map(|at| size * at + shift * draws.normal().clamp(-2.0, 2.0));
        let half = half.map(|half| size * half * draws.range(1.0 - spread, 1.0 + spread));
        let most = if is_long { 0.02 } else { 0.35 };
        let turns = [0; 2].map(|_| draws.range(-most, most).sin_cos());
        let waves = [0; 3].map(|_| Wave {
            size: if is_long { 0.0 } else { draws.range(0.0, 0.07) },
            along: [0; 3].map(|_| draws.range(-3.0, 3.0)),
            phase: draws.range(0.0, TAU),
        });
        Self { tissue, class, centre, half, turns, waves }
    }

    /// How deep a place lies in it; negative is outside. Near the surface this is about the distance to it.
    pub(super) fn depth(&self, place: Place) -> f64 {
        let [up, front, right] = [0, 1, 2].map(|axis| place[axis] - self.centre[axis]);
        let [(turn, straight), (tilt, upright)] = self.turns;
        let (front, right) = (straight * front - turn * right, turn * front + straight * right);
        let (up, right) = (upright * up - tilt * right, tilt * up + upright * right);
        let scaled = [up / self.half[0], front / self.half[1], right / self.half[2]];
        let radius = scaled.iter().map(|part| part * part).sum::<f64>().sqrt();
        let thin = self.half.iter().copied().fold(f64::INFINITY, f64::min);
        // Further away no wave reaches.
        if radius > 1.5 {
            return (1.0 - radius) * thin;
        }
        let direction = scaled.map(|part| part / radius.max(1e-6));
        let wave = |wave: &Wave| {
            let along: f64 = wave.along.iter().zip(direction).map(|(a, b)| a * b).sum();
            wave.size * (along + wave.phase).sin()
        };
        (1.0 + self.waves.iter().map(wave).sum::<f64>() - radius) * thin
    }
}
