//! Intensities: what each scanner shows of the same tissues, and what it adds.
//!
//! Everything is blended over about a voxel at its edge. Knows nothing of labels: what is painted here and what is
//! labelled agree by the same depths.

use super::Modality;
use super::anatomy::{Anatomy, GUT_KINDS, Place, Tissue};
use crate::random::Draws;

/// The number of the air around a patient.
const CT_AIR: f64 = -1000.0;

/// What one scanner shows of one patient, as the numbers of its files.
pub(super) struct Appearance {
    modality: Modality,
    fat: f64,
    muscle: f64,
    spleen: f64,
    kidney: f64,
    liver: f64,
    stomach: f64,
    vessel: f64,
    bone: f64,
    gut: [f64; GUT_KINDS as usize],
    /// Standard deviation of noise: of the numbers of CT, of each of the two channels of an MR receiver.
    noise: f64,
    /// Relative size of the texture of tissue, or of CT in numbers.
    texture: f64,
    /// Coefficients of the place, in half metres, in the logarithm of the bias field of an MR coil.
    bias: Place,
}

impl Appearance {
    /// Draws how a patient looks: Hounsfield units of an abdomen with contrast medium, or the arbitrary units of a
    /// T1-weighted sequence, in which organs have another order from dark to bright.
    pub(super) fn draw(modality: Modality, draws: &mut Draws) -> Self {
        match modality {
            Modality::Ct => Self {
                modality,
                fat: draws.range(-115.0, -85.0),
                muscle: draws.range(45.0, 65.0),
                spleen: draws.range(100.0, 130.0),
                kidney: draws.range(130.0, 190.0),
                liver: draws.range(85.0, 120.0),
                stomach: draws.range(5.0, 45.0),
                vessel: draws.range(120.0, 180.0),
                bone: draws.range(180.0, 280.0),
                gut: [0; GUT_KINDS as usize].map(|_| draws.range(-60.0, 150.0)),
                noise: draws.range(28.0, 42.0),
                texture: 10.0,
                bias: [0.0; 3],
            },
            Modality::Mr => {
                let gain = draws.range(600.0, 1600.0);
                let mut level = |low: f64, high: f64| gain * draws.range(low, high);
                let (fat, muscle) = (level(0.75, 0.95), level(0.26, 0.34));
                let (spleen, kidney) = (level(0.24, 0.33), level(0.30, 0.40));
                let (liver, stomach) = (level(0.42, 0.54), level(0.12, 0.24));
                let (vessel, bone) = (level(0.08, 0.2), level(0.36, 0.5));
                let gut = [0; GUT_KINDS as usize].map(|_| level(0.12, 0.6));
                let noise = level(0.06, 0.09);
                let bias = [0; 3].map(|_| draws.range(-0.9, 0.9));
                Self {
                    modality,
                    fat,
                    muscle,
                    spleen,
                    kidney,
                    liver,
                    stomach,
                    vessel,
                    bone,
                    gut,
                    noise,
                    texture: 0.08,
                    bias,
                }
            }
        }
    }

    fn level(&self, tissue: Tissue) -> f64 {
        match tissue {
            Tissue::Spleen => self.spleen,
            Tissue::Kidney => self.kidney,
            Tissue::Liver => self.liver,
            Tissue::Stomach => self.stomach,
            Tissue::Vessel => self.vessel,
            Tissue::Bone => self.bone,
            Tissue::Gut(kind) => self.gut[usize::from(kind % GUT_KINDS)],
        }
    }

    /// What is at a place without noise, and its class; `edge_mm` is as wide as a voxel.
    pub(super) fn clean(&self, anatomy: &Anatomy, place: Place, edge_mm: f64) -> (f64, u8) {
        let covered = |depth: f64| (depth / edge_mm + 0.5).clamp(0.0, 1.0);
        let trunk = anatomy.trunk_depth(place);
        let air = if self.modality == Modality::Ct { CT_AIR } else { 0.0 };
        let mut value = air + covered(trunk.skin) * (self.fat - air);
        value += covered(trunk.muscle) * (self.muscle - value);
        // Between organs is fat, too.
        value += covered(trunk.cavity) * (self.fat - value);
        let mut class = 0;
        for body in &anatomy.bodies {
            let depth = body.depth(place);
            if depth > 0.0 {
                class = body.class;
            }
            value += covered(depth) * (self.level(body.tissue) - value);
        }
        (value, class)
    }

    /// What the scanner makes of it, as a whole number, with texture of deviation about 1.
    pub(super) fn exposed(&self, clean: f64, place: Place, texture: f64, draws: &mut Draws) -> f64 {
        let (first, second) = (self.noise * draws.normal(), self.noise * draws.normal());
        match self.modality {
            Modality::Ct => (clean + self.texture * texture + first).max(-1024.0).round(),
            // Outside of the patient scanners of the kind write 0.
            Modality::Mr if clean <= 0.0 => 0.0,
            Modality::Mr => {
                let bias: f64 = self.bias.iter().zip(place).map(|(a, b)| a * b / 500.0).sum();
                let clean = clean * (1.0 + self.texture * texture).max(0.0) * bias.exp();
                (clean + first).hypot(second).round().max(1.0)
            }
        }
    }
}
