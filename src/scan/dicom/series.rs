//! The slices of one series, sorted by where they lie, as one grid.
//!
//! Refuses slices that are no regular stack, with the files and the places. Knows no pixels.

use super::file::{is_dicom, series_of};
use super::image::Image;
use super::plane::{Place, Plane};
use crate::error::{Context, Failure, Result};
use crate::limits::{EXTENT, VOLUME_VOXELS, elements};
use crate::scan::alignment::{FileGrid, close};
use crate::scan::axes::{Axes, Course};
use crate::scan::content::voxels;
use crate::scan::notes::Notes;
use crate::scan::vectors::{cross, distance, dot, length, unit};
use crate::words::counted;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

/// How far slices may lie from a regular stack, in distances of slices.
const TOLERANCE: f64 = 0.1;

/// Below this distance two slices lie at the same place, in millimetres.
const SAME_MM: f64 = 1e-3;

/// The cosine of directions that are the same but for rounding.
const PARALLEL: f64 = 0.9999;

/// What to do with what is not read.
const CONVERT: &str =
    "turn the series into one volume, for example by `dcm2niix -z y -o OUT FOLDER`";

/// An image of one file or of a folder.
pub(super) struct Series {
    pub(super) images: Vec<Image>,
    /// The slices in the order of the grid.
    pub(super) slices: Vec<Slice>,
    pub(super) file: FileGrid,
    pub(super) channels: usize,
}

/// One frame of one file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slice {
    /// Which of the images, and which of its frames.
    pub(super) image: usize,
    pub(super) frame: usize,
    pub(super) plane: Plane,
}

/// Where slices are sorted along.
struct Placed<'s> {
    slice: &'s Slice,
    place: Place,
    /// How far along the normal it lies.
    along_mm: f64,
}

/// Whether files of DICOM lie in a folder itself.
pub(in crate::scan) fn holds_dicom(folder: &Path) -> bool {
    folder.is_dir() && files(folder).is_ok_and(|files| files.iter().any(|file| begins(file)))
}

/// Whether a folder itself holds several files of DICOM of which some belong to the same series, so that together they
/// are one image, and not each by itself.
pub(in crate::scan) fn is_one_image(folder: &Path) -> bool {
    let mut known = BTreeSet::new();
    let files = files(folder).unwrap_or_default();
    files.iter().filter_map(|file| series_of(file)).any(|series| !known.insert(series))
}

/// The files of a folder that are not hidden, in ascending order.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot list `{}`", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).context(cannot)? {
        let entry = entry.context(cannot)?;
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !is_hidden && !entry.path().is_dir() {
            files.push(entry.path());
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn begins(file: &Path) -> bool {
    let mut start = Vec::new();
    let read = crate::files::open(file).and_then(|file| file.take(132).read_to_end(&mut start));
    read.is_ok() && is_dicom(&start)
}

/// The files of DICOM in a folder, or the only one.
pub(super) fn dicom_files(path: &Path, notes: &Notes) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let (slices, others): (Vec<PathBuf>, Vec<PathBuf>) =
        files(path)?.into_iter().partition(|file| begins(file));
    for other in others {
        note_other(&other, notes);
    }
    if slices.len() > EXTENT {
        return Err(Failure::new(format!(
            "`{}` holds {} files of DICOM, expected at most {EXTENT}",
            path.display(),
            slices.len()
        )));
    }
    Ok(slices)
}

fn note_other(file: &Path, notes: &Notes) {
    let sentence = "passed over beside the slices of a series of DICOM, for it is no image";
    notes.add(sentence, format!("`{}`", file.display()));
}

impl Series {
    /// Reads what all files say of their images, and notes which are passed over.
    pub(super) fn open(path: &Path, notes: &Notes) -> Result<Self> {
        let name = format!("`{}`", path.display());
        let mut images = Vec::new();
        for file in dicom_files(path, notes)? {
            match Image::open(&file)? {
                Some(image) => images.push(image),
                None => note_other(&file, notes),
            }
        }
        let Some(first) = images.first() else {
            return Err(Failure::new(format!("{name} holds no image of DICOM"))
                .hint("name the folder in which the slices themselves lie"));
        };
        let channels = first.form.channels;
        refuse_several(&name, &images)?;
        refuse_other_forms(&images)?;
        let slices = images.iter().enumerate().flat_map(|(index, image)| {
            let planes = image.frames.iter().cloned().enumerate();
            planes.map(move |(frame, plane)| Slice { image: index, frame, plane })
        });
        let slices: Vec<Slice> = slices.collect();
        let (slices, file) = stack(&name, &images, slices, notes)?;
        Ok(Self { images, slices, file, channels })
    }
}

/// Refuses images of several series, by what people call these.
fn refuse_several(name: &str, images: &[Image]) -> Result<()> {
    let mut series: BTreeMap<&str, (&Image, usize)> = BTreeMap::new();
    for image in images {
        series.entry(&image.series).or_insert((image, 0)).1 += 1;
    }
    if series.len() < 2 {
        return Ok(());
    }
    let called = |(image, count): &(&Image, usize)| {
        let called = if image.description.is_empty() { &image.series } else { &image.description };
        format!("`{called}` ({})", counted(*count, "file"))
    };
    let called: Vec<String> = series.values().map(called).collect();
    Err(Failure::new(format!(
        "{name} holds {} series, expected one: {}",
        series.len(),
        crate::scan::list(&called)
    ))
    .hint("move the files of each series into a folder of its own"))
}

/// Refuses images of other extents or channels than the first has.
fn refuse_other_forms(images: &[Image]) -> Result<()> {
    let Some(first) = images.first() else { return Ok(()) };
    let form = |image: &Image| [image.form.rows, image.form.columns, image.form.channels];
    match images.iter().find(|image| form(image) != form(first)) {
        None => Ok(()),
        Some(other) => {
            let [rows, columns, channels] = form(other);
            let expected = form(first);
            Err(Failure::new(format!(
                "{} has {rows} x {columns} pixels of {channels} channels, expected {} x {} of {} as {} of its series has",
                other.name, expected[0], expected[1], expected[2], first.name
            ))
            .hint("move what is no slice of the volume, such as a scout view, out of the folder"))
        }
    }
}

/// Sorts slices, and finds the grid that they are.
fn stack(
    name: &str,
    images: &[Image],
    slices: Vec<Slice>,
    notes: &Notes,
) -> Result<(Vec<Slice>, FileGrid)> {
    let form = &images[0].form;
    let extents = [form.columns, form.rows, slices.len()];
    if voxels(&extents).and_then(|n| elements(&[n, form.channels], VOLUME_VOXELS)).is_none() {
        return Err(Failure::new(format!(
            "{name} has {} slices of {} x {} pixels, expected at most {VOLUME_VOXELS} voxels",
            extents[2], extents[1], extents[0]
        )));
    }
    if slices.iter().any(|slice| slice.plane.place.is_none()) {
        return unplaced(name, images, slices, extents, notes);
    }
    placed(name, images, &slices, extents, notes)
}

/// The grid of slices of which none or not all say where they lie: of one file, in its order.
fn unplaced(
    name: &str,
    images: &[Image],
    slices: Vec<Slice>,
    extents: [usize; 3],
    notes: &Notes,
) -> Result<(Vec<Slice>, FileGrid)> {
    let lost = slices.iter().find(|slice| slice.plane.place.is_none());
    if let Some(lost) = lost.filter(|_| images.len() > 1) {
        return Err(Failure::new(format!(
            "{} does not say where its slice lies (`ImagePositionPatient`, `ImageOrientationPatient`), expected it of all slices of a series",
            images[lost.image].name
        ))
        .hint(CONVERT));
    }
    if slices.len() > 1 {
        let sentence = "frames do not say where they lie, and were taken as slices in their order";
        notes.add(sentence, name);
    }
    let spacing_mm = spacing(&slices[0].plane, None);
    let file = Axes { extents, spacing_mm, course: None }.grid(name)?;
    Ok((slices, file))
}

/// The grid of slices that all say where they lie, and their order on it.
fn placed(
    name: &str,
    images: &[Image],
    slices: &[Slice],
    extents: [usize; 3],
    notes: &Notes,
) -> Result<(Vec<Slice>, FileGrid)> {
    let sorted = sorted(images, slices)?;
    let (first, last) = (&sorted[0], &sorted[sorted.len() - 1]);
    let normal = normal(&first.place);
    let step = match sorted.len() {
        1 => None,
        count => Some([0, 1, 2].map(|part| {
            (last.place.origin_mm[part] - first.place.origin_mm[part]) / (count - 1) as f64
        })),
    };
    if let Some(step) = step {
        refuse_gaps(images, &sorted)?;
        refuse_crooked(images, &sorted, step)?;
        if dot(&unit(step), &normal) < PARALLEL {
            let sentence = "slices do not lie upright upon each other, as of a tilted gantry, and are placed as they are";
            notes.add(sentence, name);
        }
    }
    let [along_rows, along_columns] = first.place.directions;
    let course = Course {
        directions: [along_rows, along_columns, step.map_or(normal, unit)],
        origin_mm: first.place.origin_mm,
    };
    let spacing_mm = spacing(&first.slice.plane, step.map(|step| length(&step)));
    if spacing_mm.is_none() && sorted.len() > 1 {
        return Err(Failure::new(format!(
            "{} does not say how far its pixels are apart (`PixelSpacing`)",
            images[first.slice.image].name
        ))
        .hint(CONVERT));
    }
    let course = spacing_mm.map(|_known| course.mirrored());
    let file = Axes { extents, spacing_mm, course }.grid(name)?;
    let order = sorted.iter().map(|placed| placed.slice.clone()).collect();
    Ok((order, file))
}

/// Distances along columns, rows and slices; between slices what is found, else what a file says.
fn spacing(plane: &Plane, between_slices_mm: Option<f64>) -> Option<[f64; 3]> {
    let [between_rows, between_columns] = plane.spacing_mm?;
    let between_slices = between_slices_mm.or(plane.thickness_mm).unwrap_or(1.0);
    Some([between_columns, between_rows, between_slices])
}

fn normal(place: &Place) -> [f64; 3] {
    unit(cross(&place.directions[0], &place.directions[1]))
}

/// Slices by how far they lie along their normal. Refuses slices that run in other directions, or whose pixels have other
/// distances, than those of the first.
fn sorted<'s>(images: &[Image], slices: &'s [Slice]) -> Result<Vec<Placed<'s>>> {
    let placed = slices.iter().filter_map(|slice| Some((slice, slice.plane.place?)));
    let placed: Vec<(&Slice, Place)> = placed.collect();
    let Some(&(first, first_place)) = placed.first() else { return Ok(Vec::new()) };
    let normal = normal(&first_place);
    for (slice, place) in &placed {
        let is_parallel = (0..2).all(|axis| {
            let [own, expected] = [place, &first_place].map(|place| unit(place.directions[axis]));
            dot(&own, &expected) >= PARALLEL
        });
        let is_as_wide = match (slice.plane.spacing_mm, first.plane.spacing_mm) {
            (Some(own), Some(expected)) => (0..2).all(|axis| close(own[axis], expected[axis])),
            (own, expected) => own == expected,
        };
        if !is_parallel || !is_as_wide {
            let what = if is_parallel { "pixels of other distances" } else { "other directions" };
            return Err(Failure::new(format!(
                "the slice of {} has {what} than that of {} in its series, expected one stack",
                images[slice.image].name, images[first.image].name
            ))
            .hint("move each stack into a folder of its own"));
        }
    }
    let along = |(slice, place): (&'s Slice, Place)| Placed {
        slice,
        place,
        along_mm: dot(&place.origin_mm, &normal),
    };
    let mut sorted: Vec<Placed<'s>> = placed.into_iter().map(along).collect();
    sorted.sort_by(|a, b| a.along_mm.total_cmp(&b.along_mm));
    Ok(sorted)
}

/// Refuses two slices at one place, and distances of slices that differ from most.
fn refuse_gaps(images: &[Image], sorted: &[Placed<'_>]) -> Result<()> {
    let distances = sorted.windows(2).map(|pair| pair[1].along_mm - pair[0].along_mm);
    let distances: Vec<f64> = distances.collect();
    let mut ascending = distances.clone();
    ascending.sort_by(f64::total_cmp);
    let usual = ascending[ascending.len() / 2];
    for (pair, found) in sorted.windows(2).zip(distances) {
        let [one, other] = [&pair[0], &pair[1]].map(|placed| shown(images, placed));
        if found < SAME_MM.max(usual * SAME_MM) {
            return Err(Failure::new(format!("{one} and {other} show the same place"))
                .hint("a series that holds several volumes, of other times or echoes, is several images: move the slices of each into a folder of its own"));
        }
        if (found - usual).abs() > TOLERANCE * usual {
            return Err(Failure::new(format!(
                "{one} and {other} are {found:.3} mm apart, expected {usual:.3} mm as most slices of their series are"
            ))
            .hint("a slice is missing between them, or one is too many: see whether all were copied"));
        }
    }
    Ok(())
}

/// Refuses slices that are shifted against the stack that most of them are.
fn refuse_crooked(images: &[Image], sorted: &[Placed<'_>], step: [f64; 3]) -> Result<()> {
    let start = sorted[0].place.origin_mm;
    for (index, placed) in sorted.iter().enumerate() {
        let expected = [0, 1, 2].map(|part| start[part] + index as f64 * step[part]);
        let off_mm = distance(&placed.place.origin_mm, &expected);
        if off_mm > TOLERANCE * length(&step) {
            return Err(Failure::new(format!(
                "{} lies {off_mm:.3} mm beside a regular stack of the slices of its series",
                shown(images, placed)
            ))
            .hint(CONVERT));
        }
    }
    Ok(())
}

/// A slice by its file, its frame and its place.
fn shown(images: &[Image], placed: &Placed<'_>) -> String {
    let image = &images[placed.slice.image];
    let frame = if image.frames.len() > 1 {
        format!("frame {} of ", placed.slice.frame)
    } else {
        String::new()
    };
    format!("{frame}{} at {:?} mm", image.name, placed.place.origin_mm)
}
