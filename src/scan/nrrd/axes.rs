//! The axes of an NRRD header: which of them lead through the patient and where, and which counts channels.
//!
//! Follows what ITK makes of spaces, directions and kinds; knows neither voxels nor files.

use super::fields::{Fields, vector};
use crate::error::{Failure, Result};
use crate::limits::{CHANNELS, SEGMENTS, VOLUME_VOXELS, elements};
use crate::scan::axes::{Axes, Course};
use crate::scan::content::voxels;
use crate::scan::vectors::length;
use crate::scan::voxels::Arrangement;

/// Kinds of axes that lead through space, or nothing is said.
const SPATIAL: [&str; 4] = ["space", "domain", "???", "none"];

/// The axes of an array.
#[derive(Debug, Clone)]
pub(super) struct NrrdAxes {
    /// Those through the patient.
    pub(super) spatial: Axes,
    /// Numbers of each voxel.
    pub(super) channels: usize,
    /// How the numbers follow each other.
    pub(super) arrangement: Arrangement,
    /// Whether the header does not say in which space its directions are.
    pub(super) is_space_unnamed: bool,
}

/// Understands the axes; `labelled` says that what counts no space counts layers of segments.
pub(super) fn parse(fields: &Fields, labelled: bool) -> Result<NrrdAxes> {
    let sizes = sizes(fields)?;
    let count = sizes.len();
    let directions = fields.words("space directions", count)?;
    let directions = directions.map(|words| steps(fields, &words)).transpose()?;
    let kinds = fields.words("kinds", count)?;
    let is_spatial = |axis: usize| match (&directions, &kinds) {
        (Some(directions), _) => directions[axis].is_some(),
        (None, Some(kinds)) => SPATIAL.contains(&kinds[axis].to_lowercase().as_str()),
        (None, None) => true,
    };
    let (mut spatial, others): (Vec<usize>, Vec<usize>) =
        (0..count).partition(|&axis| is_spatial(axis));
    // Of more than three the last ones may be there without leading anywhere.
    while spatial.len() > 3 && spatial.last().is_some_and(|&axis| sizes[axis] == 1) {
        spatial.pop();
    }
    let mut counted = others.iter().filter(|&&axis| sizes[axis] > 1);
    let (channel, more) = (counted.next().copied(), counted.next());
    if !(2..=3).contains(&spatial.len()) || more.is_some() {
        return Err(fields
            .wrong("sizes", "two or three axes through space, and one for channels at most")
            .hint("save each volume or channel in a file of its own"));
    }
    let channels = channel.map_or(1, |axis| sizes[axis]);
    let most = if labelled { SEGMENTS } else { CHANNELS };
    if channels > most {
        return Err(fields.wrong("sizes", &format!("at most {most} channels")));
    }
    let extents: [usize; 3] =
        std::array::from_fn(|axis| spatial.get(axis).map_or(1, |&axis| sizes[axis]));
    if voxels(&extents).and_then(|count| elements(&[count, channels], VOLUME_VOXELS)).is_none() {
        return Err(fields.wrong("sizes", &format!("at most {VOLUME_VOXELS} voxels")));
    }
    let stride = |axis: Option<&usize>| axis.map_or(1, |&axis| sizes[..axis].iter().product());
    let [x, y, z] = [0, 1, 2].map(|axis| stride(spatial.get(axis)));
    let [columns, rows, slices] = extents;
    let (axes, is_space_unnamed) = placed(fields, &spatial, extents, directions)?;
    Ok(NrrdAxes {
        spatial: axes,
        channels,
        arrangement: Arrangement {
            counts: [slices, channels, rows, columns],
            strides: [z, stride(channel.as_ref()), y, x],
        },
        is_space_unnamed,
    })
}

/// How many elements there are along each axis, the fastest first.
fn sizes(fields: &Fields) -> Result<Vec<usize>> {
    let count = usize::try_from(fields.whole(&["dimension"])?).unwrap_or(0);
    if !(2..=8).contains(&count) {
        return Err(fields.wrong("dimension", "2 to 4"));
    }
    let words = fields.words("sizes", count)?.unwrap_or_default();
    let sizes: Option<Vec<usize>> = words.iter().map(|word| word.parse().ok()).collect();
    let sizes = sizes.filter(|sizes| sizes.len() == count && !sizes.contains(&0));
    let sizes =
        sizes.ok_or_else(|| fields.wrong("sizes", &format!("{count} numbers of at least 1")))?;
    match elements(&sizes, VOLUME_VOXELS) {
        Some(_) => Ok(sizes),
        None => Err(fields.wrong("sizes", &format!("at most {VOLUME_VOXELS} numbers"))),
    }
}

/// The step along each axis in units of the header; nothing for one that leads nowhere.
fn steps(fields: &Fields, words: &[&str]) -> Result<Vec<Option<Vec<f64>>>> {
    let step = |word: &&str| {
        if word.eq_ignore_ascii_case("none") {
            return Ok(None);
        }
        let step = vector(word).filter(|step| (2..=3).contains(&step.len()));
        step.map(Some).ok_or_else(|| fields.wrong("space directions", "vectors or `none`"))
    };
    words.iter().map(step).collect()
}

/// Where the spatial axes lead, and whether the header leaves open in which space.
fn placed(
    fields: &Fields,
    spatial: &[usize],
    extents: [usize; 3],
    directions: Option<Vec<Option<Vec<f64>>>>,
) -> Result<(Axes, bool)> {
    let three = |numbers: &[f64]| -> [f64; 3] {
        std::array::from_fn(|part| numbers.get(part).copied().unwrap_or(0.0))
    };
    let unit_mm = unit_mm(fields)?;
    let Some(directions) = directions else {
        return Ok((Axes { extents, spacing_mm: spacings(fields, spatial)?, course: None }, false));
    };
    let steps: [[f64; 3]; 3] = std::array::from_fn(|axis| {
        let step = spatial.get(axis).and_then(|&axis| directions[axis].as_deref());
        step.map_or([0.0; 3], three).map(|part| part * unit_mm)
    });
    let along = |axis: usize| if axis < spatial.len() { length(&steps[axis]) } else { 1.0 };
    let spacing_mm = [0, 1, 2].map(along);
    let origin = match fields.get(&["space origin"]) {
        None => [0.0; 3],
        Some(word) => {
            let origin = vector(word).filter(|origin| origin.len() <= 3);
            three(&origin.ok_or_else(|| fields.wrong("space origin", "a vector"))?)
        }
    };
    let course = Course {
        directions: std::array::from_fn(|axis| {
            steps[axis]
                .map(|part| if spacing_mm[axis] > 0.0 { part / spacing_mm[axis] } else { 0.0 })
        }),
        origin_mm: origin.map(|part| part * unit_mm),
    };
    let (course, is_unnamed) = in_patient(fields, course)?;
    Ok((Axes { extents, spacing_mm: Some(spacing_mm), course: Some(course) }, is_unnamed))
}

/// The same in the coordinates of the patient; whether they had to be guessed, as ITK guesses them.
fn in_patient(fields: &Fields, course: Course) -> Result<(Course, bool)> {
    let space = fields.get(&["space"]).unwrap_or_default().to_lowercase();
    match space.as_str() {
        "right-anterior-superior" | "ras" => Ok((course, false)),
        "left-posterior-superior" | "lps" => Ok((course.mirrored(), false)),
        "left-anterior-superior" | "las" => {
            let mirrored = |[x, y, z]: [f64; 3]| [-x, y, z];
            let directions = course.directions.map(mirrored);
            Ok((Course { directions, origin_mm: mirrored(course.origin_mm) }, false))
        }
        "" | "scanner-xyz" | "3d-right-handed" | "3d-left-handed" => Ok((course.mirrored(), true)),
        _ => {
            Err(fields
                .wrong("space", "a space of three dimensions, such as `left-posterior-superior`"))
        }
    }
}

/// Distances along axes of which no direction is said.
fn spacings(fields: &Fields, spatial: &[usize]) -> Result<Option<[f64; 3]>> {
    let count = fields.get(&["sizes"]).map_or(0, |sizes| sizes.split_whitespace().count());
    let Some(words) = fields.words("spacings", count)? else { return Ok(None) };
    let number = |&axis: &usize| words[axis].parse::<f64>().ok().filter(|mm| mm.is_finite());
    let found: Option<Vec<f64>> = spatial.iter().map(number).collect();
    // Not said of an axis is said of none.
    let Some(found) = found else { return Ok(None) };
    Ok(Some(std::array::from_fn(|axis| found.get(axis).copied().unwrap_or(1.0))))
}

/// Millimetres in the unit of length. Refuses units that are none.
fn unit_mm(fields: &Fields) -> Result<f64> {
    let units = fields.get(&["space units"]).unwrap_or_default().replace('"', " ");
    let mut units: Vec<&str> = units.split_whitespace().collect();
    units.dedup();
    match units[..] {
        [] | ["mm" | "millimeter" | "millimeters" | ""] => Ok(1.0),
        ["cm"] => Ok(10.0),
        ["m"] => Ok(1000.0),
        ["um" | "µm" | "micron" | "microns" | "micrometer"] => Ok(0.001),
        _ => {
            let failure: Failure =
                fields.wrong("space units", "one unit of length, such as `\"mm\"`");
            Err(failure.hint(
                "the header is wrong; save the file again with the program that it comes from",
            ))
        }
    }
}
