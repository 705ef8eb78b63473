//! A synthetic data set of two modalities: bellies of different patients in CT and in MR, few of them labelled.
//!
//! Patients of both modalities are drawn alike; contrast, noise, voxels, field of view and how a patient lies differ. Every
//! case is a pure function of (seed, modality, part, number). What it draws is frozen: a change is another phantom,
//! and would change what runs on it print.

mod anatomy;
mod picture;

use super::labelled_share::{check_share, labelled};
use super::phantom::{check_range, check_voxels};
use super::texture::Texture;
use super::{Source, prepared};
use crate::data::{Case, DENSE, Dataset};
use crate::error::Result;
use crate::limits::{EXTENT, NETWORK_SIZE, PHANTOM_CASE_VOXELS, PHANTOM_CASES, PHANTOM_VOXELS};
use crate::preparation::{
    Channel, Crop, Intensities, Interpolation, Orientation, Over, Preparation, Spacing,
};
use crate::random::{Draws, Key};
use crate::scan::{Grid, Notes, Scan};
use anatomy::{Anatomy, Place};
use picture::Appearance;
use std::collections::BTreeMap;
use std::path::Path;

/// What to generate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TwoModalityPhantom {
    /// How many patients of each modality to train on, 1 to [`PHANTOM_CASES`].
    pub cases: usize,
    /// How many patients of each modality to validate with, 1 to [`PHANTOM_CASES`]; fold 1.
    pub validation: usize,
    /// About how many slices a prepared case has, 8 to [`EXTENT`].
    pub slices: usize,
    /// About how many rows and columns its slices have before they are cropped, 32 to [`NETWORK_SIZE`].
    pub size: usize,
    /// The share of the patients to train on who are labelled, above 0 and up to 1: at least one of each modality.
    pub labelled_share: f64,
    /// Equal seeds give equal cases.
    pub seed: u64,
}

/// What a scan was taken with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Modality {
    Ct,
    Mr,
}

/// What a case is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Train { is_labelled: bool },
    Validation,
}

/// From feet to head, in the middle of the belly.
const HEIGHT_MM: f64 = 180.0;
/// Rows and columns of a slice.
const FIELD_OF_VIEW_MM: f64 = 320.0;
/// Distances of texture, in millimetres.
const TEXTURE_MM: f64 = 14.0;
/// Fields of texture from feet to head.
const FIELDS: usize = 7;

impl Modality {
    const ALL: [Self; 2] = [Self::Ct, Self::Mr];

    fn name(self) -> &'static str {
        match self {
            Self::Ct => "ct",
            Self::Mr => "mr",
        }
    }

    /// How far apart voxels of its files lie, relative to prepared ones: between slices and within them.
    fn spacing(self) -> [f64; 2] {
        match self {
            Self::Ct => [0.7, 0.85],
            Self::Mr => [1.4, 1.15],
        }
    }

    /// What becomes of its numbers: those of the CT window of Zhou et al. (MICCAI 2024), and of their MR.
    fn intensities(self) -> Intensities {
        match self {
            Self::Ct => Intensities::Window { low: -175.0, high: 250.0 },
            Self::Mr => Intensities::ZScore { over: Over::Nonzero },
        }
    }
}

/// Generates the data set in memory; see [`open`].
pub fn generate(phantom: &TwoModalityPhantom) -> Result<Dataset> {
    open(*phantom)?.collect()
}

/// Generates the data set case by case: dense labels of spleen, kidneys and liver on labelled patients and on those to
/// validate with, nothing on the others.
///
/// Refuses counts outside their ranges, a share that is none, cases of more than [`PHANTOM_CASE_VOXELS`] and more than
/// [`PHANTOM_VOXELS`] in all.
pub fn open(phantom: TwoModalityPhantom) -> Result<Source> {
    let TwoModalityPhantom { cases, validation, slices, size, labelled_share, seed } = phantom;
    let whole = "two-modality phantom";
    check_range(whole, ("cases", cases), [1, PHANTOM_CASES])?;
    check_range(whole, ("validation", validation), [1, PHANTOM_CASES])?;
    check_range(whole, ("slices", slices), [8, EXTENT])?;
    check_range(whole, ("size", size), [32, NETWORK_SIZE])?;
    // Before they are resampled CT has more voxels.
    check_voxels(whole, &[2, slices, size, size], ("one case", PHANTOM_CASE_VOXELS))?;
    check_voxels(
        whole,
        &[2 * (cases + validation), slices, size, size],
        ("all cases", PHANTOM_VOXELS),
    )?;
    check_share(labelled_share)?;
    let preparation = preparation(&phantom);
    let (done, notes) = (preparation.clone(), Notes::default());
    let noted = notes.clone();
    // In the order of the names of cases.
    let drawn = Modality::ALL.into_iter().flat_map(move |modality| {
        let key = Key::new(seed).purpose("labelled").purpose(modality.name());
        let train = labelled(key, cases, labelled_share).into_iter();
        let train = train.map(|is_labelled| Part::Train { is_labelled }).enumerate();
        let validation = (0..validation).map(|number| (number, Part::Validation));
        train.chain(validation).map(move |(number, part)| (modality, part, number))
    });
    let drawn = drawn.map(move |(modality, part, number)| {
        let case = stored(&phantom, modality, part, number);
        let path = Path::new(&case.name).to_owned();
        prepared(case, &done.of_modality(Some(modality.name()))?, &path, &noted)
    });
    Ok(Source {
        name: "two-modality-phantom".into(),
        classes: ["background", "spleen", "right kidney", "left kidney", "liver"]
            .map(String::from)
            .to_vec(),
        preparation: Some(preparation),
        levels: Vec::new(),
        test_fold: None,
        provenance: format!(
            "Synthetic bellies in CT and in MR, {cases} patients of each to train on, a share of {labelled_share} \
             labelled, {validation} of each to validate, seed {seed}."
        ),
        case_count: 2 * (cases + validation),
        notes,
        cases: Box::new(drawn),
    })
}

/// Distances of prepared slices, rows, columns.
fn spacing_mm(phantom: &TwoModalityPhantom) -> [f64; 3] {
    let in_plane = FIELD_OF_VIEW_MM / phantom.size as f64;
    [HEIGHT_MM / phantom.slices as f64, in_plane, in_plane]
}

fn preparation(phantom: &TwoModalityPhantom) -> Preparation {
    let modality = |modality: Modality| {
        let name = modality.name().to_owned();
        (name.clone(), vec![Channel { name, intensities: modality.intensities() }])
    };
    Preparation {
        orientation: Orientation::AsStored,
        crop: Crop::Foreground,
        interpolation: Interpolation::Linear,
        spacing: Spacing::Volume(spacing_mm(phantom)),
        channels: Vec::new(),
        modalities: Modality::ALL.map(modality).into(),
    }
}

/// A case as its scanner stores it.
fn stored(phantom: &TwoModalityPhantom, modality: Modality, part: Part, number: usize) -> Case {
    let (prefix, fold) = match part {
        Part::Train { .. } => ("train", 0),
        Part::Validation => ("val", 1),
    };
    let name = format!("{}-{prefix}-{:04}", modality.name(), number + 1);
    let key = Key::new(phantom.seed).purpose("two-modality phantom").purpose(&name);
    let anatomy = Anatomy::draw(&mut key.purpose("anatomy").draws());
    let lies = Position::draw(&mut key.purpose("position").draws());
    let grid = lies.grid(phantom, modality);
    let (voxels, labels) = painted(&anatomy, (modality, &lies), &grid, key);
    let is_labelled = part != Part::Train { is_labelled: false };
    let dense = is_labelled.then(|| (DENSE.to_owned(), labels));
    Case {
        // Another seed draws other bellies: these are other people.
        patient: format!("seed{}-{name}", phantom.seed),
        name,
        frame: 0,
        fold,
        modality: modality.name().to_owned(),
        classes_annotated: Vec::new(),
        scan: Scan { grid, channels: 1, voxels },
        annotations: BTreeMap::from_iter(dense),
    }
}

/// How a patient lies in the scanner.
struct Position {
    /// How much larger the field of view is than usual.
    zoom: [f64; 2],
    shift: Place,
    /// Sine and cosine of the turn from the front to the right.
    turn: (f64, f64),
}

impl Position {
    fn draw(draws: &mut Draws) -> Self {
        let zoom = [draws.range(0.92, 1.08), draws.range(0.97, 1.08)];
        let shift = [8.0, 5.0, 5.0].map(|mm| mm * draws.normal().clamp(-2.0, 2.0));
        Self { zoom, shift, turn: draws.range(-0.12, 0.12).sin_cos() }
    }

    fn grid(&self, phantom: &TwoModalityPhantom, modality: Modality) -> Grid {
        let ([height, width], [between, within]) = (self.zoom, modality.spacing());
        let [slices, rows, columns] = spacing_mm(phantom);
        let spacing_mm = [slices * between, rows * within, columns * within];
        let count = |mm: f64, of: f64| ((mm / of).round() as usize).max(1);
        let [slice_mm, row_mm, column_mm] = spacing_mm;
        let shape = [
            count(height * HEIGHT_MM, slice_mm),
            count(width * FIELD_OF_VIEW_MM, row_mm),
            count(width * FIELD_OF_VIEW_MM, column_mm),
        ];
        Grid::unplaced(shape, Some(spacing_mm))
    }

    /// Where the voxel lies in the patient.
    fn place(&self, voxel: [usize; 3], grid: &Grid) -> Place {
        let spacing_mm = grid.spacing_mm.unwrap_or([1.0; 3]);
        let [up, front, right] = [0, 1, 2].map(|axis| {
            let middle = (grid.shape[axis] as f64 - 1.0) / 2.0;
            (voxel[axis] as f64 - middle) * spacing_mm[axis] + self.shift[axis]
        });
        let (sine, cosine) = self.turn;
        [up, cosine * front - sine * right, sine * front + cosine * right]
    }
}

/// The numbers of a scan and the class of each voxel.
fn painted(
    anatomy: &Anatomy,
    (modality, lies): (Modality, &Position),
    grid: &Grid,
    key: Key,
) -> (Vec<f32>, Vec<u8>) {
    let appearance = Appearance::draw(modality, &mut key.purpose("appearance").draws());
    let [slices, rows, columns] = grid.shape;
    let [_, edge_mm, _] = grid.spacing_mm.unwrap_or([1.0; 3]);
    let mut draws = key.purpose("texture").draws();
    let fields: Vec<Texture> = (0..FIELDS)
        .map(|_| Texture::draw(&mut draws, rows.max(columns), TEXTURE_MM / edge_mm))
        .collect();
    let (mut voxels, mut labels) = (Vec::new(), Vec::new());
    for slice in 0..slices {
        let mut noise = key.purpose("noise").number(slice as u64).draws();
        let height = slice as f64 / slices.max(2).saturating_sub(1) as f64 * (FIELDS - 1) as f64;
        let below = (height as usize).min(FIELDS - 2);
        let (above, weight) = ((height - below as f64) * std::f64::consts::FRAC_PI_2).sin_cos();
        for row in 0..rows {
            for column in 0..columns {
                let place = lies.place([slice, row, column], grid);
                let texture = weight * fields[below].at(row, column)
                    + above * fields[below + 1].at(row, column);
                let (clean, class) = appearance.clean(anatomy, place, edge_mm);
                voxels.push(appearance.exposed(clean, place, texture, &mut noise) as f32);
                labels.push(class);
            }
        }
    }
    (voxels, labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    const SMALL: TwoModalityPhantom = TwoModalityPhantom {
        cases: 3,
        validation: 1,
        slices: 10,
        size: 32,
        labelled_share: 0.4,
        seed: 1,
    };

    #[test]
    fn the_same_seed_draws_the_same_bellies_for_ever() {
        // Frozen: changing this changes every number measured on the phantom.
        let bytes = generate(&SMALL).unwrap().cases.into_iter().flat_map(|case| {
            let image = case.scan.voxels.into_iter().flat_map(f32::to_le_bytes);
            image.chain(case.annotations.into_values().flatten()).collect::<Vec<u8>>()
        });
        assert_eq!(xxh3_64(&bytes.collect::<Vec<u8>>()), 12_452_528_957_704_108_189);
    }

    #[test]
    fn few_are_labelled_and_those_to_validate_with_show_every_organ() {
        let dataset = generate(&SMALL).unwrap();
        let told = dataset.cases.iter().map(|case| {
            case.check(5).unwrap();
            let is_labelled = case.annotations.contains_key(DENSE);
            format!("{} {} {} {is_labelled}", case.name, case.modality, case.fold)
        });
        let told: Vec<String> = told.collect();
        let expected = [
            "ct-train-0001 ct 0 true",
            "ct-train-0002 ct 0 false",
            "ct-train-0003 ct 0 false",
            "ct-val-0001 ct 1 true",
            "mr-train-0001 mr 0 false",
            "mr-train-0002 mr 0 false",
            "mr-train-0003 mr 0 true",
            "mr-val-0001 mr 1 true",
        ];
        assert_eq!(told, expected);
        for case in dataset.cases.iter().filter(|case| case.fold == 1) {
            let dense = &case.annotations[DENSE];
            for class in 1..5 {
                let count: usize = dense.iter().map(|&label| usize::from(label == class)).sum();
                assert!(count > 10, "{} {class}: {count}", case.name);
            }
        }
        let spacing = |case: &Case| case.scan.grid.spacing_mm.unwrap();
        let near = |mm: f64, expected: f64| (mm / expected - 1.0).abs() < 0.1;
        assert!(dataset.cases.iter().all(|case| near(spacing(case)[0], 18.0)));
        assert!(dataset.cases.iter().all(|case| near(spacing(case)[2], 10.0)));
        let shapes: std::collections::BTreeSet<[usize; 3]> =
            dataset.cases.iter().map(|case| case.scan.grid.shape).collect();
        assert!(shapes.len() > 2, "patients lie in different ways");
    }

    #[test]
    fn organs_have_another_order_from_dark_to_bright_in_each_modality() {
        let large = TwoModalityPhantom { cases: 1, slices: 18, size: 48, ..SMALL };
        let dataset = generate(&large).unwrap();
        let median = |modality: &str, class: u8| {
            let cases = dataset.cases.iter().filter(|case| case.modality == modality);
            let case = cases.clone().find(|case| case.fold == 1).unwrap();
            let pairs = case.scan.voxels.iter().zip(&case.annotations[DENSE]);
            let mut own: Vec<f32> =
                pairs.filter(|(_, label)| **label == class).map(|(value, _)| *value).collect();
            own.sort_by(f32::total_cmp);
            own[own.len() / 2]
        };
        let [spleen, liver] = [1, 4];
        assert!(median("ct", spleen) > median("ct", liver));
        assert!(median("mr", liver) > median("mr", spleen));
        assert!(median("ct", spleen) > 0.5 && median("mr", spleen) < -0.5);
    }

    #[test]
    fn nothing_to_draw_is_refused() {
        let refused =
            |phantom: TwoModalityPhantom| generate(&phantom).unwrap_err().message().to_owned();
        assert_eq!(
            refused(TwoModalityPhantom { labelled_share: 0.0, ..SMALL }),
            "a share of 0 of the cases cannot be labelled, expected more than 0 and up to 1"
        );
        assert_eq!(
            refused(TwoModalityPhantom { slices: 2, ..SMALL }),
            "a two-modality phantom with `slices` = 2 cannot be made, expected 8 or more"
        );
        assert!(
            refused(TwoModalityPhantom { size: 8192, slices: 65536, ..SMALL }).contains("voxels")
        );
    }
}
