//! Writing the packed file: level coding, compression, and a name that appears only when all is there.

use super::destination::{Destination, Existing};
use super::read::verify;
use super::{
    CHANNEL_COUNT, CLASSES_ANNOTATED, LAYOUT, LEVELS, LongText, MODALITIES, NAME_BYTES, Name,
    PLACEMENTS, PREPARATION, Row, StoredRow, TEST_FOLD, TEXT_BYTES, UNPLACED, image_checksum,
    image_extents, modalities_checksum, placements_checksum, seal, stored_classes,
    stored_placement, table_checksum, without_locks,
};
use crate::data::{Case, Dataset, check_levels};
use crate::error::{Context, Failure, Result};
use crate::limits::{CASES, CLASSES};
use crate::preparation::Preparation;
use hdf5::types::FixedUnicode;
use hdf5::{Group, H5Type};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Deflate level. On the ACDC volumes level 1 gives 80 MB, 4 gives 77 MB, 6 gives 76 MB in
/// slightly more time each, and 9 gives 75 MB in almost twice the time.
const DEFLATE_LEVEL: u8 = 4;

/// Writes a whole data set, replacing a packed one at `path`; see [`Writer`].
pub fn write(path: &Path, dataset: &Dataset) -> Result<()> {
    let destination = Destination::claim(path, Existing::Replaced)?;
    let about = About {
        name: &dataset.name,
        provenance: &dataset.provenance,
        classes: &dataset.classes,
        preparation: dataset.preparation.as_ref(),
        levels: &dataset.levels,
        test_fold: dataset.test_fold,
    };
    let mut writer = Writer::create(destination, about)?;
    for case in &dataset.cases {
        writer.add(case)?;
    }
    writer.finish().map(|_bytes| ())
}

/// What a packed file says of all its cases together.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// Short name, for example `acdc`.
    pub name: &'a str,
    /// Where the data came from, one sentence per line.
    pub provenance: &'a str,
    /// Names of the classes by label value.
    pub classes: &'a [String],
    /// What was done to the scans, where that is known.
    pub preparation: Option<&'a Preparation>,
    /// As [`Dataset::levels`].
    pub levels: &'a [f64],
    /// As [`Dataset::test_fold`].
    pub test_fold: Option<u32>,
}

/// Writes a packed file case by case. The file has a temporary name beside the final one until
/// [`Writer::finish`]; a writer dropped before leaves nothing behind.
pub struct Writer {
    destination: Destination,
    file: hdf5::File,
    class_count: usize,
    level_count: usize,
    /// Of the preparation, else of the cases so far.
    channels: Option<usize>,
    rows: Vec<Row>,
}

impl Writer {
    /// Starts the file for `destination`.
    ///
    /// Refuses fewer than two classes, names that are longer than 256 bytes, a provenance or a preparation
    /// longer than 16 KiB, a preparation that no scan can go through, and levels that [`check_levels`] refuses.
    pub fn create(destination: Destination, about: About<'_>) -> Result<Self> {
        let path = destination.path();
        let cannot = || format!("cannot write `{}`", path.display());
        let class_count = about.classes.len();
        if !(2..=CLASSES).contains(&class_count) {
            let what = format!("expected 2 to {CLASSES} classes, found {class_count}");
            return Err(Failure::new(what).during(cannot()));
        }
        let mut builder = without_locks();
        builder.with_fcpl(|creation| creation.userblock(seal::BLOCK_BYTES));
        // The name was taken with `O_EXCL`: what is cut to nothing here is ours and empty.
        let file = destination.unlocked(|partial| builder.create(partial)).context(cannot)?;
        describe(&file, about).map_err(|failure| failure.during(cannot()))?;
        let channels = about.preparation.map(Preparation::channel_count);
        let level_count = about.levels.len();
        Ok(Self { destination, file, class_count, level_count, channels, rows: Vec::new() })
    }

    /// Appends one case. Refuses arrays that do not fit the shape, values outside their range,
    /// names that are not in ascending order, and cases with another number of channels than those before.
    pub fn add(&mut self, case: &Case) -> Result<()> {
        let cannot = || {
            format!("cannot write case `{}` to `{}`", case.name, self.destination.path().display())
        };
        let checked = case.check(self.class_count).and_then(|()| case.check_gaze(self.level_count));
        checked.map_err(|failure| failure.during(cannot()))?;
        if case.name.is_empty() || case.name.contains('/') {
            return Err(Failure::new("case names are not empty and hold no `/`").during(cannot()));
        }
        if let Some(last) = self.rows.last().filter(|last| last.name.as_str() >= case.name.as_str())
        {
            return Err(Failure::new(format!(
                "it comes after case `{}`, expected each name once, in ascending order",
                last.name
            ))
            .during(cannot()));
        }
        let channels = self.channels.unwrap_or(case.scan.channels);
        if channels != case.scan.channels {
            let found = case.scan.channels;
            let what =
                format!("it has {found} channels, expected {channels} as all of the data set");
            return Err(Failure::new(what).during(cannot()));
        }
        self.channels = Some(channels);
        if self.rows.is_empty() && channels != 1 {
            let channels = self.file.new_attr::<u64>().create(CHANNEL_COUNT);
            let written = channels.and_then(|attr| attr.write_scalar(&(case.scan.channels as u64)));
            written.context(cannot)?;
        }
        if self.rows.len() == CASES {
            return Err(Failure::new(format!("there are {CASES} already")).during(cannot()));
        }
        let row = row(case);
        // Whether its names are short enough, before anything is written.
        stored(&row).map_err(|failure| failure.during(cannot()))?;
        text::<NAME_BYTES>(&row.modality).map_err(|failure| failure.during(cannot()))?;
        write_arrays(&self.file, case).context(cannot)?;
        self.rows.push(row);
        Ok(())
    }

    /// Writes the case table and the digest of everything, reads all of it back, makes the file durable and
    /// gives it its name; returns its bytes.
    pub fn finish(self) -> Result<u64> {
        let Self { mut destination, file, rows, class_count, .. } = self;
        let path = destination.path().to_owned();
        let cannot = || format!("cannot write `{}`", path.display());
        let written = write_table(&file, &rows)
            .and_then(|()| write_classes_annotated(&file, &rows, class_count));
        written.map_err(|failure| failure.during(cannot()))?;
        file.close().context(cannot)?;
        let written = File::open(destination.partial.partial()).context(cannot)?;
        let block = seal::block(&written).context(cannot)?;
        destination.partial.write_all(&block).context(cannot)?;
        // HDF5 loses what it cannot write when an array is closed, for example on a disk that was full for a
        // moment.
        verify(destination.partial.partial()).map_err(|failure| failure.during(cannot()))?;
        let size_bytes = written.metadata().context(cannot)?.len();
        destination.take_place()?;
        Ok(size_bytes)
    }
}

fn describe(file: &hdf5::File, about: About<'_>) -> Result<()> {
    let wrong = || "HDF5 refuses its attributes";
    for (key, value) in [("layout", LAYOUT), ("name", about.name)] {
        let value: Name = text(value)?;
        let attribute = file.new_attr::<Name>().create(key).context(wrong)?;
        attribute.write_scalar(&value).context(wrong)?;
    }
    let mut texts = vec![("provenance", about.provenance.to_owned())];
    if let Some(preparation) = about.preparation {
        preparation.check()?;
        let written = toml::to_string(preparation);
        texts.push((PREPARATION, written.context(|| "cannot write the preparation as TOML")?));
    }
    for (key, value) in texts {
        let value: Box<LongText> = Box::new(text::<TEXT_BYTES>(&value)?);
        let attribute = file.new_attr::<LongText>().create(key).context(wrong)?;
        attribute.write_scalar(&*value).context(wrong)?;
    }
    let classes = about.classes.iter().map(|class| text(class)).collect::<Result<Vec<Name>>>()?;
    file.new_attr_builder().with_data(&classes).create("classes").context(wrong)?;
    check_levels(about.levels)?;
    if !about.levels.is_empty() {
        file.new_attr_builder().with_data(about.levels).create(LEVELS).context(wrong)?;
    }
    if let Some(fold) = about.test_fold {
        let attribute = file.new_attr::<u32>().create(TEST_FOLD).context(wrong)?;
        attribute.write_scalar(&fold).context(wrong)?;
    }
    file.create_group("volumes").context(wrong)?;
    Ok(())
}

fn write_table(file: &hdf5::File, rows: &[Row]) -> Result<()> {
    let wrong = || "HDF5 refuses table `/cases`";
    if rows.is_empty() {
        return Err(Failure::new("there are no cases"));
    }
    let stored = rows.iter().map(stored).collect::<Result<Vec<_>>>()?;
    let table = file.new_dataset::<StoredRow<Name>>().shape(rows.len());
    // Names are mostly the zeros behind them.
    let table = table.chunk(rows.len().min(ROWS_PER_CHUNK)).deflate(DEFLATE_LEVEL).create("cases");
    let table = table.context(wrong)?;
    table.write_raw(&stored).context(wrong)?;
    write_checksum(&table, table_checksum(rows)).context(wrong)?;
    let placements: Vec<f64> = rows.iter().flat_map(|row| row.placement).flatten().collect();
    let array = file.new_dataset::<f64>().shape((rows.len(), 4, 3));
    let array = array.chunk((rows.len().min(ROWS_PER_CHUNK), 4, 3)).deflate(DEFLATE_LEVEL);
    let array = array.create(PLACEMENTS).context(wrong)?;
    array.write_raw(&placements).context(wrong)?;
    let checksum = placements_checksum(rows.iter().map(|row| &row.placement));
    write_checksum(&array, checksum).context(wrong)?;
    write_modalities(file, rows)
}

/// Writes what cases were taken with, where one of them says so.
fn write_modalities(file: &hdf5::File, rows: &[Row]) -> Result<()> {
    let wrong = || "HDF5 refuses the modalities";
    if rows.iter().all(|row| row.modality.is_empty()) {
        return Ok(());
    }
    let names = rows.iter().map(|row| text(&row.modality)).collect::<Result<Vec<Name>>>()?;
    let array = file.new_dataset::<Name>().shape(rows.len());
    let array = array.chunk(rows.len().min(ROWS_PER_CHUNK)).deflate(DEFLATE_LEVEL);
    let array = array.create(MODALITIES).context(wrong)?;
    array.write_raw(&names).context(wrong)?;
    write_checksum(&array, modalities_checksum(rows)).context(wrong)
}

/// Writes which classes were looked for, where some were not.
fn write_classes_annotated(file: &hdf5::File, rows: &[Row], class_count: usize) -> Result<()> {
    let wrong = || "HDF5 refuses the classes that were looked for";
    let stored = rows.iter().flat_map(|row| stored_classes(&row.classes_annotated, class_count));
    let stored: Vec<u8> = stored.collect();
    if stored.iter().all(|&flag| flag == 1) {
        return Ok(());
    }
    let array = file.new_dataset::<u8>().shape((rows.len(), class_count));
    let array = array.chunk((rows.len().min(ROWS_PER_CHUNK), class_count)).deflate(DEFLATE_LEVEL);
    let array = array.create(CLASSES_ANNOTATED).context(wrong)?;
    array.write_raw(&stored).context(wrong)?;
    write_checksum(&array, xxh3_64(&stored)).context(wrong)
}

/// Rows of the case table that are compressed together.
const ROWS_PER_CHUNK: usize = 1 << 10;

/// A string of `N` bytes at most; zeros at its end, which are filled up with, could not be told from it.
fn text<const N: usize>(value: &str) -> Result<FixedUnicode<N>> {
    if value.contains('\0') {
        return Err(Failure::new(format!("{value:?} holds the character NUL")));
    }
    value.parse().map_err(|_too_long| {
        let start: String = value.chars().take(40).collect();
        Failure::new(format!(
            "`{start}…` has {} bytes, expected at most {N} for a name or a description",
            value.len()
        ))
    })
}

fn row(case: &Case) -> Row {
    Row {
        name: case.name.clone(),
        patient: case.patient.clone(),
        frame: case.frame,
        fold: case.fold,
        modality: case.modality.clone(),
        classes_annotated: case.classes_annotated.clone(),
        shape: case.scan.grid.shape,
        spacing_mm: case.scan.grid.spacing_mm.unwrap_or([f64::NAN; 3]),
        placement: case.scan.grid.placement.map_or(UNPLACED, stored_placement),
    }
}

fn stored(row: &Row) -> Result<StoredRow<Name>> {
    let [slices, rows, columns] = row.shape.map(|extent| extent as u64);
    Ok(StoredRow {
        name: text(&row.name)?,
        patient: text(&row.patient)?,
        frame: row.frame,
        fold: row.fold,
        slices,
        rows,
        columns,
        spacing_slices_mm: row.spacing_mm[0],
        spacing_rows_mm: row.spacing_mm[1],
        spacing_columns_mm: row.spacing_mm[2],
    })
}

fn write_arrays(file: &hdf5::File, case: &Case) -> hdf5::Result<()> {
    let group = file.create_group(&format!("volumes/{}", case.name))?;
    let checksum = image_checksum(&case.scan.voxels);
    let levels = levels(&case.scan.voxels);
    let code = |value: &f32| levels.partition_point(|level| level.to_bits() < value.to_bits());
    let extents = image_extents(case.scan.grid.shape, case.scan.channels);
    let image = match levels.len() {
        0..=0x100 => {
            let codes: Vec<u8> = case.scan.voxels.iter().map(|value| code(value) as u8).collect();
            write_volume(&group, "image", &extents, &codes)?
        }
        0x101..=0x1_0000 => {
            let codes: Vec<u16> = case.scan.voxels.iter().map(|value| code(value) as u16).collect();
            write_volume(&group, "image", &extents, &codes)?
        }
        _ => write_volume(&group, "image", &extents, &case.scan.voxels)?,
    };
    write_checksum(&image, checksum)?;
    if levels.len() <= 0x1_0000 {
        group.new_dataset_builder().with_data(&levels).create("image_levels")?;
    }
    for (kind, labels) in &case.annotations {
        let array = write_volume(&group, kind, &case.scan.grid.shape, labels)?;
        write_checksum(&array, xxh3_64(labels))?;
    }
    Ok(())
}

/// The distinct intensities, ascending by bits, so that lossless means `-0.0` too.
fn levels(image: &[f32]) -> Vec<f32> {
    let mut bits: Vec<u32> = image.iter().map(|value| value.to_bits()).collect();
    bits.sort_unstable();
    bits.dedup();
    bits.into_iter().map(f32::from_bits).collect()
}

fn write_volume<T: H5Type>(
    group: &Group,
    name: &str,
    extents: &[usize],
    values: &[T],
) -> hdf5::Result<hdf5::Dataset> {
    let array = group
        .new_dataset::<T>()
        .shape(extents)
        .chunk(chunk(extents))
        .shuffle()
        .deflate(DEFLATE_LEVEL)
        .create(name)?;
    array.write_raw(values)?;
    Ok(array)
}

/// Slices, rows and columns of the largest chunk of a volume.
const CHUNK: [usize; 3] = [16, 64, 64];

/// The extents of a chunk of an array of slices, where there are any channels, rows, columns.
fn chunk(extents: &[usize]) -> Vec<usize> {
    if extents[0] == 1 {
        return extents.to_vec();
    }
    let last = extents.len() - 1;
    let most = |axis: usize| match axis {
        0 => CHUNK[0],
        axis if axis + 1 >= last => CHUNK[1 + usize::from(axis == last)],
        _ => 1,
    };
    extents.iter().enumerate().map(|(axis, &extent)| extent.min(most(axis))).collect()
}

fn write_checksum(array: &hdf5::Dataset, checksum: u64) -> hdf5::Result<()> {
    array.new_attr::<u64>().create("xxh3")?.write_scalar(&checksum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DENSE, SCRIBBLE};
    use crate::random::Key;
    use crate::scan::{Grid, Scan};
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_a_disk_lost_is_found_before_the_file_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        let classes = ["background", "heart"].map(String::from);
        let about = About {
            name: "a",
            provenance: "",
            preparation: None,
            levels: &[],
            test_fold: None,
            classes: &classes,
        };
        let mut writer =
            Writer::create(Destination::claim(&path, Existing::Refused).unwrap(), about).unwrap();
        let shape = [4, 64, 64];
        let mut draws = Key::new(1).draws();
        let voxels = (0..4 * 64 * 64).map(|_| draws.uniform() as f32).collect();
        let annotations = [SCRIBBLE, DENSE].map(|kind| (kind.to_owned(), vec![1; 4 * 64 * 64]));
        let case = Case {
            name: "one".into(),
            patient: "one".into(),
            frame: 0,
            modality: String::new(),
            classes_annotated: Vec::new(),
            fold: 0,
            scan: Scan { grid: Grid::unplaced(shape, None), channels: 1, voxels },
            annotations: annotations.into(),
        };
        writer.add(&case).unwrap();
        writer.file.flush().unwrap();
        let partial = writer.destination.partial.partial().to_owned();
        let written = File::options().write(true).open(&partial).unwrap();
        let middle = written.metadata().unwrap().len() / 2;
        written.write_all_at(&[0; 64], middle).unwrap();
        let refused = writer.finish().unwrap_err().to_string();
        assert!(refused.contains("volumes/one/image"), "{refused}");
        assert!(!path.exists() && !partial.exists());
    }
}
