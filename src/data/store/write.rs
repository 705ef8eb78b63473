//! Writing the packed file: level coding, compression, and a name that appears only when all is there.

use super::{CHANNELS, LAYOUT, Row, image_checksum, image_extents, table_checksum, without_locks};
use crate::data::{Case, Dataset};
use crate::error::{Context, Failure, Result};
use hdf5::types::VarLenUnicode;
use hdf5::{Group, H5Type};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use xxhash_rust::xxh3::xxh3_64;

/// Deflate level. On the ACDC volumes level 1 gives 80 MB, 4 gives 77 MB, 6 gives 76 MB in
/// slightly more time each, and 9 gives 75 MB in almost twice the time.
const DEFLATE_LEVEL: u8 = 4;

/// Writes a whole data set; see [`Writer`].
pub fn write(path: &Path, dataset: &Dataset) -> Result<()> {
    let mut writer = Writer::create(path, &dataset.name, &dataset.classes, &dataset.provenance)?;
    for case in &dataset.cases {
        writer.add(case)?;
    }
    writer.finish().map(|_bytes| ())
}

/// Writes a packed file case by case. The file has a temporary name beside the final one until
/// [`Writer::finish`]; a writer dropped before leaves nothing behind.
pub struct Writer {
    path: PathBuf,
    file: hdf5::File,
    partial: Partial,
    class_count: usize,
    /// Of the cases so far.
    channels: Option<usize>,
    rows: Vec<Row>,
}

impl Writer {
    /// Starts the file that will be called `path`, replacing an older one only when finished.
    ///
    /// `classes` names the classes by label value. Fails where the folder does not exist or
    /// cannot be written.
    pub fn create(path: &Path, name: &str, classes: &[String], provenance: &str) -> Result<Self> {
        let file_name = path.file_name().ok_or_else(|| {
            Failure::usage(format!("`{}` is not the name of a file", path.display()))
                .hint("name the file to write, for example `--to acdc.h5`")
        })?;
        let partial = Partial(path.with_file_name(format!(
            ".{}.{}.partial",
            file_name.to_string_lossy(),
            std::process::id()
        )));
        let cannot = || format!("cannot write `{}`", path.display());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).context(cannot)?;
        }
        let file = without_locks().create(&partial.0).context(cannot)?;
        let class_count = classes.len();
        let (channels, rows) = (None, Vec::new());
        let writer = Self { path: path.to_owned(), partial, file, class_count, channels, rows };
        describe(&writer.file, [name, provenance], classes).context(cannot)?;
        Ok(writer)
    }

    /// Appends one case. Refuses arrays that do not fit the shape, values outside their range,
    /// names that are not in ascending order, and grey and coloured cases in one file.
    pub fn add(&mut self, case: &Case) -> Result<()> {
        let cannot = || format!("cannot write case `{}` to `{}`", case.name, self.path.display());
        case.check(self.class_count).map_err(|failure| failure.during(cannot()))?;
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
        if self.channels.is_some_and(|channels| channels != case.channels) {
            let (this, others) =
                if case.channels == 1 { ("grey", "in colour") } else { ("in colour", "grey") };
            let what = format!("it is {this}, expected all {others} as the cases before it");
            return Err(Failure::new(what).during(cannot()));
        }
        if self.channels.replace(case.channels).is_none() && case.channels != 1 {
            let channels = self.file.new_attr::<u64>().create(CHANNELS);
            let written = channels.and_then(|attr| attr.write_scalar(&(case.channels as u64)));
            written.context(cannot)?;
        }
        let row = row(case).and_then(|row| write_arrays(&self.file, case).map(|()| row));
        let row = row.context(cannot)?;
        self.rows.push(row);
        Ok(())
    }

    /// Writes the case table, makes the file durable and gives it its name; returns its bytes.
    pub fn finish(self) -> Result<u64> {
        let Self { path, file, partial, rows, .. } = self;
        let cannot = || format!("cannot write `{}`", path.display());
        write_table(&file, &rows).context(cannot)?;
        file.close().context(cannot)?;
        let written = fs::File::open(&partial.0).context(cannot)?;
        written.sync_all().context(cannot)?;
        let size_bytes = written.metadata().context(cannot)?.len();
        fs::rename(&partial.0, &path).context(cannot)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        fs::File::open(folder).and_then(|folder| folder.sync_all()).context(cannot)?;
        Ok(size_bytes)
    }
}

/// The unfinished file, gone when dropped.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // After a rename nothing has this name any more, and otherwise there is nobody to tell.
        drop(fs::remove_file(&self.0));
    }
}

fn describe(
    file: &hdf5::File,
    [name, provenance]: [&str; 2],
    classes: &[String],
) -> hdf5::Result<()> {
    for (key, value) in [("layout", LAYOUT), ("name", name), ("provenance", provenance)] {
        file.new_attr::<VarLenUnicode>().create(key)?.write_scalar(&text(value)?)?;
    }
    let classes: Vec<_> = classes.iter().map(|class| text(class)).collect::<hdf5::Result<_>>()?;
    file.new_attr_builder().with_data(&classes).create("classes")?;
    file.create_group("volumes")?;
    Ok(())
}

fn write_table(file: &hdf5::File, rows: &[Row]) -> hdf5::Result<()> {
    let table = file.new_dataset_builder().with_data(rows).create("cases")?;
    write_checksum(&table, table_checksum(rows))
}

fn text(value: &str) -> hdf5::Result<VarLenUnicode> {
    VarLenUnicode::from_str(value).map_err(|error| format!("{error} in {value:?}").into())
}

fn row(case: &Case) -> hdf5::Result<Row> {
    let [slices, rows, columns] = case.shape.map(|extent| extent as u64);
    let spacing_mm = case.spacing_mm.unwrap_or([f64::NAN; 3]);
    Ok(Row {
        name: text(&case.name)?,
        patient: text(&case.patient)?,
        frame: case.frame,
        fold: case.fold,
        slices,
        rows,
        columns,
        spacing_slices_mm: spacing_mm[0],
        spacing_rows_mm: spacing_mm[1],
        spacing_columns_mm: spacing_mm[2],
    })
}

fn write_arrays(file: &hdf5::File, case: &Case) -> hdf5::Result<()> {
    let group = file.create_group(&format!("volumes/{}", case.name))?;
    let checksum = image_checksum(&case.image);
    let levels = levels(&case.image);
    let code = |value: &f32| levels.partition_point(|level| level.to_bits() < value.to_bits());
    let extents = image_extents(case.shape, case.channels);
    let image = match levels.len() {
        0..=0x100 => {
            let codes: Vec<u8> = case.image.iter().map(|value| code(value) as u8).collect();
            write_volume(&group, "image", &extents, &codes)?
        }
        0x101..=0x1_0000 => {
            let codes: Vec<u16> = case.image.iter().map(|value| code(value) as u16).collect();
            write_volume(&group, "image", &extents, &codes)?
        }
        _ => write_volume(&group, "image", &extents, &case.image)?,
    };
    write_checksum(&image, checksum)?;
    if levels.len() <= 0x1_0000 {
        group.new_dataset_builder().with_data(&levels).create("image_levels")?;
    }
    for (kind, labels) in &case.annotations {
        let array = write_volume(&group, kind, &case.shape, labels)?;
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
    let chunk: Vec<usize> = std::iter::once(1).chain(extents.iter().skip(1).copied()).collect();
    let array = group
        .new_dataset::<T>()
        .shape(extents)
        .chunk(chunk)
        .shuffle()
        .deflate(DEFLATE_LEVEL)
        .create(name)?;
    array.write_raw(values)?;
    Ok(array)
}

fn write_checksum(array: &hdf5::Dataset, checksum: u64) -> hdf5::Result<()> {
    array.new_attr::<u64>().create("xxh3")?.write_scalar(&checksum)
}
