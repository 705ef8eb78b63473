//! Pictures that somebody looked at: levels of gaze made of fixations, and masks to measure with.
//!
//! Ranks and threads share what takes long, and what each has made is a message; levels of a picture depend on the
//! picture alone. Which file is what stands in `gaze_files`, what becomes of fixations in [`crate::gaze`].

use super::gaze_files::{self, GazeFiles, Picture};
use super::{Notes, Source};
use crate::crf::{DenseCrf, Image};
use crate::data::pseudo::in_parallel;
use crate::data::{Case, DENSE, GAZE, check_levels};
use crate::error::{Exit, Failure, Result};
use crate::gaze::{FIELD, Fixation, grey_levels, heatmap, reached, refined, resized};
use crate::limits::NETWORK_SIZE;
use crate::preparation::{Intensities, Over, Preparation, Prepared};
use crate::scan::{self, Scan};
use crate::shares::local_share;
use std::collections::BTreeMap;
use std::path::Path;

/// What to pack, and how.
#[derive(Debug, Clone)]
pub struct GazeSet {
    /// Where everything lies.
    pub files: GazeFiles,
    /// Rows and columns that every picture is resized to, 16 to [`NETWORK_SIZE`].
    pub size: usize,
    /// Deviation of the smoothing in 768ths of a picture; as published where nothing is said: 70 of pictures in
    /// colour, 50 of grey ones.
    pub deviation: Option<f64>,
    /// Levels in any order; as published where there are none: 0.3 and 0.5 of pictures in colour, 0.2 and 0.4 of grey
    /// ones.
    pub levels: Vec<f64>,
    /// What masks show.
    pub class: String,
}

/// What is done to fixations.
#[derive(Debug, Clone)]
pub(super) struct Making {
    /// Whether pictures are shown in red, green and blue.
    pub(super) is_in_colour: bool,
    /// As in [`GazeSet::deviation`].
    pub(super) deviation: f64,
    pub(super) field: DenseCrf,
    /// Ascending.
    pub(super) levels: Vec<f64>,
    /// Rows and columns of what is packed.
    pub(super) size: usize,
}

/// Mean and deviation of the pictures of ImageNet in red, green and blue, as shares of white.
const IMAGENET: [[f64; 2]; 3] = [[0.485, 0.229], [0.456, 0.224], [0.406, 0.225]];

/// The largest deviation, in 768ths of a picture.
const LARGEST_DEVIATION: f64 = 768.0;

/// Smallest size that networks can be made for.
const SMALLEST_SIZE: usize = 16;

impl Making {
    /// What becomes of pictures: colours by mean and deviation of ImageNet, grey slices by their own, then resized.
    pub(super) fn preparation(&self) -> Preparation {
        let levels = |[mean, deviation]: [f64; 2]| Intensities::Fixed {
            low: 0.0,
            high: 255.0,
            mean: 255.0 * mean,
            deviation: 255.0 * deviation,
        };
        let preparation = if self.is_in_colour {
            Preparation::picture(IMAGENET.map(levels))
        } else {
            Preparation::grey(Intensities::ZScore { over: Over::Slice })
        };
        preparation.resized([self.size; 2])
    }

    /// How many levels the map of gaze reaches, `[size, size]`, from a picture of one slice.
    pub(super) fn levels_reached(&self, scan: &Scan, fixations: &[Fixation]) -> Result<Vec<u8>> {
        let [_, rows, columns] = scan.grid.shape;
        let map = heatmap(fixations, self.deviation, [rows, columns])?;
        let pixels = grey_levels(scan.slice(0), scan.channels);
        let map = refined(&map, Image { columns, pixels: &pixels }, &self.field)?;
        Ok(reached(&resized(&map, [rows, columns], [self.size; 2]), &self.levels))
    }
}

/// Pictures whose files are found.
pub struct Looked {
    making: Making,
    pictures: Vec<Picture>,
    /// Which of them have fixations.
    with_gaze: Vec<usize>,
    class: String,
    notes: Notes,
}

/// Finds the files, and looks at one picture to see whether they are in colour.
///
/// Refuses pictures to test with without masks, names in lists without pictures, a table with fixations of none of the
/// pictures, sizes and deviations out of range, and levels that are not between 0 and 1 or there twice.
pub fn open(set: &GazeSet) -> Result<Looked> {
    if !(SMALLEST_SIZE..=NETWORK_SIZE).contains(&set.size) {
        return Err(Failure::usage(format!(
            "pictures cannot be resized to {} pixels, expected {SMALLEST_SIZE} to {NETWORK_SIZE}",
            set.size
        ))
        .hint("give another one, for example `--size 224`"));
    }
    let notes = Notes::default();
    let pictures = gaze_files::find(&set.files, &notes)?;
    let with_gaze: Vec<usize> =
        (0..pictures.len()).filter(|&index| !pictures[index].fixations.is_empty()).collect();
    let first = scan::read(&pictures[with_gaze[0]].image, &Notes::default())?;
    let is_in_colour = first.channels == 3;
    let deviation = set.deviation.unwrap_or(if is_in_colour { 70.0 } else { 50.0 });
    if !(deviation > 0.0 && deviation <= LARGEST_DEVIATION) {
        return Err(Failure::usage(format!(
            "`--sigma` is {deviation}, expected a number above 0 and up to {LARGEST_DEVIATION}"
        ))
        .hint("as published it is 70 for Kvasir-SEG and 50 for NCI-ISBI 2013"));
    }
    let mut levels = set.levels.clone();
    if levels.is_empty() {
        levels = if is_in_colour { vec![0.3, 0.5] } else { vec![0.2, 0.4] };
    }
    levels.sort_by(f64::total_cmp);
    check_levels(&levels).map_err(|failure| {
        failure.exit_with(Exit::Usage).hint("name them as in `--levels 0.5,0.3`")
    })?;
    let making = Making { is_in_colour, deviation, field: FIELD, levels, size: set.size };
    Ok(Looked { making, pictures, with_gaze, class: set.class.clone(), notes })
}

impl Looked {
    /// Of how many pictures `rank` of `ranks` makes the levels.
    pub fn share_size(&self, rank: usize, ranks: usize) -> usize {
        local_share(self.with_gaze.len(), ranks, rank).len()
    }

    /// Makes the levels of this rank's pictures with `threads` threads, for [`Looked::into_source`]. Calls `note`
    /// after each, on the thread that asks.
    pub fn share(
        &self,
        (rank, ranks): (usize, usize),
        threads: usize,
        note: &dyn Fn(),
    ) -> Result<Vec<u8>> {
        let mine = &self.with_gaze[local_share(self.with_gaze.len(), ranks, rank)];
        let (making, pictures) = (&self.making, &self.pictures);
        let work = |index: usize| {
            let Picture { image, fixations, .. } = &pictures[mine[index]];
            // What is to be said of a picture is said when it is packed.
            let scan = shown(image, making.is_in_colour, &Notes::default())?;
            making.levels_reached(&scan, fixations).map_err(|failure| {
                failure.during(format!("cannot make levels of gaze for `{}`", image.display()))
            })
        };
        let made = in_parallel(mine.len(), threads, &work, note)?;
        Ok(made.into_iter().collect::<Result<Vec<_>>>()?.concat())
    }

    /// The data set, with the levels that all ranks have made, in rank order.
    pub fn into_source(self, messages: &[Vec<u8>]) -> Result<Source> {
        let Self { making, pictures, with_gaze, class, notes } = self;
        let levels = messages.concat();
        let pixels = making.size * making.size;
        if levels.len() != with_gaze.len() * pixels {
            return Err(Failure::new("the levels of gaze of some pictures came incomplete")
                .hint("run the same command again; on one process nothing has to be sent"));
        }
        let mut reached: BTreeMap<usize, Vec<u8>> = with_gaze
            .iter()
            .copied()
            .zip(levels.chunks_exact(pixels).map(<[u8]>::to_vec))
            .collect();
        let preparation = making.preparation();
        let source = Source {
            name: "gaze".into(),
            classes: vec!["background".into(), class],
            provenance: provenance(&making, &pictures, with_gaze.len()),
            preparation: Some(preparation.clone()),
            levels: making.levels.clone(),
            test_fold: None,
            case_count: pictures.len(),
            notes: notes.clone(),
            cases: Box::new(pictures.into_iter().enumerate().map(move |(index, picture)| {
                case(picture, (&making, &preparation), (reached.remove(&index), &notes))
            })),
        };
        Ok(source)
    }
}

fn provenance(making: &Making, pictures: &[Picture], with_gaze: usize) -> String {
    let masks = pictures.iter().filter(|picture| picture.mask.is_some()).count();
    format!(
        "{} pictures, {with_gaze} with fixations and {masks} with masks.\n\
         Maps of gaze as in GazeMedSeg (Zhong et al., MICCAI 2024): deviation {} of {} cells, refined by a dense CRF, \
         levels {:?}; resized to {} x {} by straight lines.",
        pictures.len(),
        making.deviation,
        crate::gaze::CANVAS,
        making.levels,
        making.size,
        making.size
    )
}

/// A picture of one slice, in three channels where pictures are in colour. Refuses others.
fn shown(path: &Path, is_in_colour: bool, notes: &Notes) -> Result<Scan> {
    let scan = scan::read(path, notes)?;
    let slices = scan.grid.shape[0];
    if slices != 1 {
        return Err(Failure::new(format!(
            "`{}` has {slices} slices, expected a picture",
            path.display()
        ))
        .hint("save each slice that somebody looked at as a picture of its own"));
    }
    if let Some(level) = scan.voxels.iter().find(|level| !(0.0..=255.0).contains(*level)) {
        return Err(Failure::new(format!(
            "`{}` has a pixel of level {level}, expected 0 to 255",
            path.display()
        ))
        .hint("turn it into 8 bits, for example by `magick FILE -depth 8 FILE`"));
    }
    let scan = if is_in_colour { scan.into_colours() } else { scan };
    let expected = if is_in_colour { 3 } else { 1 };
    if scan.channels == expected {
        return Ok(scan);
    }
    Err(Failure::new(format!(
        "`{}` has {} channels, expected {expected} as the first picture",
        path.display(),
        scan.channels
    ))
    .hint("pack grey pictures and coloured ones apart"))
}

fn case(
    picture: Picture,
    (making, preparation): (&Making, &Preparation),
    (reached, notes): (Option<Vec<u8>>, &Notes),
) -> Result<Case> {
    let scan = shown(&picture.image, making.is_in_colour, notes)?;
    let mask = picture.mask.as_deref().map(|mask| read_mask(mask, scan.grid.shape, notes));
    let mask = mask.transpose()?;
    let Prepared { scan, regrid, .. } = preparation.apply(scan).map_err(|failure| {
        failure.during(format!("cannot prepare `{}`", picture.image.display()))
    })?;
    let mut annotations = BTreeMap::new();
    if let Some(mask) = mask {
        annotations.insert(DENSE.to_owned(), regrid.carry_dense(&mask)?);
    }
    if let Some(reached) = reached {
        annotations.insert(GAZE.to_owned(), reached);
    }
    let Picture { name, patient, fold, .. } = picture;
    Ok(Case {
        name,
        patient,
        frame: 0,
        fold,
        modality: String::new(),
        classes_annotated: Vec::new(),
        scan,
        annotations,
    })
}

/// A mask on the grid of its picture: 1 where it is brighter than half of 255, or 1 in a mask of 0 and 1; else 0.
///
/// Refuses one of another shape, a coloured one, and one whose largest number is dark but neither 0 nor 1, which is
/// coded in another way.
fn read_mask(path: &Path, shape: [usize; 3], notes: &Notes) -> Result<Vec<u8>> {
    let numbers = scan::read_numbers(path, notes)?;
    let found = numbers.grid().shape;
    if found != shape {
        return Err(Failure::new(format!(
            "`{}` has {} x {} pixels, expected {} x {} as its picture",
            path.display(),
            found[2],
            found[1],
            shape[2],
            shape[1]
        )));
    }
    let largest = numbers.values.iter().copied().fold(0.0, f64::max);
    let least = if largest <= 1.0 { 0.5 } else { 127.5 };
    if largest > 1.0 && largest < least {
        return Err(Failure::new(format!(
            "the brightest pixel of `{}` is {largest}, expected a mask of 0, background, and 255",
            path.display()
        ))
        .hint("write what the mask shows as 255"));
    }
    Ok(numbers.values.iter().map(|&value| u8::from(value > least)).collect())
}
