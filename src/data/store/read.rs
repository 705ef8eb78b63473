//! Reading the packed file, and saying exactly what is wrong with one that is not as written.
//!
//! What a table or a header says is compared with limits and with the size of the file before memory is
//! taken for it.

use super::seal::{self, Form};
use super::text::Text;
use super::{
    BARE_LAYOUT, CHANNEL_COUNT, CLASSES_ANNOTATED, LAYOUT, LEVELS, LongText, MODALITIES,
    MOST_LEVELS, Name, PLACEMENTS, PREPARATION, Row, StoredRow, TEST_FOLD, UNPLACED,
    UNPLACED_LAYOUT, classes_annotated, fits, heap, image_checksum, image_extents,
    modalities_checksum, placement, placements_checksum, table_checksum, without_locks,
};
use crate::data::{Case, Dataset, check_levels};
use crate::error::{Context, Failure, Result};
use crate::files;
use crate::limits::{CASES, CHANNELS, CLASSES, EXTENT, GAZE_LEVELS, VOLUME_VOXELS, elements};
use crate::preparation::Preparation;
use crate::scan::{Grid, Scan};
use hdf5::types::{FloatSize, IntSize, TypeDescriptor, VarLenUnicode};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Reads a packed data set into memory; see [`each_case`].
pub fn read(path: &Path) -> Result<Dataset> {
    let mut cases = Vec::new();
    let about = each_case(path, &mut |case| cases.push(case))?;
    Ok(Dataset { cases, ..about })
}

/// Gives `take` each case of a packed data set, in ascending order of their names, one in memory at a time; returns
/// what the file says of all of them.
///
/// Refuses a missing file, one whose digest is not its own, which HDF5 then does not see, one that is no HDF5 or was cut
/// short, another layout, arrays of the wrong shape or type, values out of range, and contents unlike their checksum.
pub fn each_case(path: &Path, take: &mut dyn FnMut(Case)) -> Result<Dataset> {
    let again = "write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)";
    let file = open(path)?;
    walk(&file, path, take).map_err(|failure| {
        // Who writes a HDF5 file locks it.
        if matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)) {
            failure
                .during(format!("`{}` is being written by another process", path.display()))
                .hint("wait until it is complete, then run the same command again")
        } else {
            failure.hint(again)
        }
    })
}

fn open(path: &Path) -> Result<File> {
    match files::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::new(format!("no packed data set at `{}`", path.display()))
                .hint(format!(
                    "make one, for example `scrimp prepare phantom --to {}`",
                    path.display()
                ))
                .hint("`scrimp prepare --help` lists the other sources"))
        }
        opened => opened.context(|| format!("cannot open `{}`", path.display())),
    }
}

/// Says what the file is, after its digest was compared where it has one.
fn check(file: &File, path: &Path) -> Result<Form> {
    let form = seal::form(file).context(|| format!("cannot read `{}`", path.display()))?;
    match form {
        Form::Sealed | Form::Unplaced => seal::verify(file, path)?,
        Form::Bare => heap::verify(file, path)?,
        Form::Foreign => {
            return Err(Failure::new(format!(
                "`{}` is no packed data set: it begins neither as `scrimp prepare` writes them nor as HDF5",
                path.display()
            )));
        }
    }
    Ok(form)
}

/// Whether the file is a packed data set of any layout, be it damaged; reads little of it.
pub fn is_packed(path: &Path) -> io::Result<bool> {
    let file = files::open(path)?;
    Ok(match seal::form(&file)? {
        Form::Sealed | Form::Unplaced => true,
        Form::Bare => {
            heap::verify(&file, path).and_then(|()| Packed::open(path, Form::Bare)).is_ok()
        }
        Form::Foreign => false,
    })
}

/// How many bytes one byte of a file can unpack to: what deflate reaches at best.
const UNPACKED_BYTES: u64 = 1032;

/// Reads a packed file from its first byte to its last, and refuses what [`read`] refuses.
pub(super) fn verify(path: &Path) -> Result<()> {
    walk(&open(path)?, path, &mut drop).map(drop)
}

fn walk(file: &File, path: &Path, take: &mut dyn FnMut(Case)) -> Result<Dataset> {
    let packed = Packed::open(path, check(file, path)?)?;
    let Contents { about, rows, channels } = packed.contents()?;
    for row in &rows {
        take(packed.case(row, channels, &about)?);
    }
    Ok(about)
}

/// What a packed file says beside its arrays.
struct Contents {
    /// The data set, without its cases.
    about: Dataset,
    rows: Vec<Row>,
    channels: usize,
}

/// An open packed file.
struct Packed<'a> {
    path: &'a Path,
    file: hdf5::File,
    form: Form,
    /// How many more bytes its arrays may say to have.
    budget_bytes: Cell<u64>,
}

impl<'a> Packed<'a> {
    fn open(path: &'a Path, form: Form) -> Result<Self> {
        let cannot = || format!("cannot open `{}` as HDF5, expected a whole file", path.display());
        let file = without_locks().open(path).context(cannot)?;
        let budget_bytes = Cell::new(file.size().saturating_mul(UNPACKED_BYTES));
        let packed = Self { path, file, form, budget_bytes };
        let named = packed.file.attr_names().context(|| packed.cannot("the attributes"))?;
        if !named.iter().any(|name| name == "layout") {
            return Err(Failure::new(format!(
                "`{}` is an HDF5 file, but no packed data set: it has no attribute `layout`",
                path.display()
            )));
        }
        let (found, expected) = match form {
            Form::Sealed => (packed.text::<Name>("layout")?, LAYOUT),
            Form::Unplaced => (packed.text::<Name>("layout")?, UNPLACED_LAYOUT),
            _ => (packed.text::<VarLenUnicode>("layout")?, BARE_LAYOUT),
        };
        if found == expected {
            return Ok(packed);
        }
        Err(Failure::new(format!(
            "`{}` has layout `{found}`, expected `{expected}`",
            path.display()
        )))
    }

    /// Everything but the cases.
    fn contents(&self) -> Result<Contents> {
        let (name, provenance, classes, mut rows) = match self.form {
            Form::Sealed | Form::Unplaced => (
                self.text::<Name>("name")?,
                self.text::<LongText>("provenance")?,
                self.classes::<Name>()?,
                self.table::<Name>()?,
            ),
            _ => (
                self.text::<VarLenUnicode>("name")?,
                self.text::<VarLenUnicode>("provenance")?,
                self.classes::<VarLenUnicode>()?,
                self.table::<VarLenUnicode>()?,
            ),
        };
        let channels = self.channels()?;
        let preparation = self.preparation(channels)?;
        if self.form == Form::Sealed {
            self.place(&mut rows)?;
            self.name_modalities(&mut rows)?;
            self.name_classes(&mut rows, classes.len())?;
        }
        let (levels, test_fold, cases) = (self.levels()?, self.test_fold()?, Vec::new());
        let about = Dataset { name, classes, provenance, preparation, levels, test_fold, cases };
        Ok(Contents { about, rows, channels })
    }

    fn cannot(&self, what: &str) -> String {
        format!("cannot read {what} of `{}`", self.path.display())
    }

    fn text<S: Text>(&self, name: &str) -> Result<String> {
        let cannot = || self.cannot(&format!("attribute `{name}`"));
        let value = self.file.attr(name).and_then(|value| value.read_scalar::<S>());
        value.context(cannot)?.text().context(cannot)
    }

    fn classes<S: Text>(&self) -> Result<Vec<String>> {
        let cannot = || self.cannot("attribute `classes`");
        let attribute = self.file.attr("classes").context(cannot)?;
        let count = attribute.size();
        if !(2..=CLASSES).contains(&count) {
            return Err(Failure::new(format!(
                "expected 2 to {CLASSES} classes in `{}`, found {count}",
                self.path.display()
            )));
        }
        let names = attribute.read_raw::<S>().context(cannot)?;
        names.iter().map(Text::text).collect::<std::result::Result<_, _>>().context(cannot)
    }

    fn has_attribute(&self, name: &str) -> Result<bool> {
        let names = self.file.attr_names().context(|| self.cannot("the attributes"))?;
        Ok(names.iter().any(|other| other == name))
    }

    /// How many channels the images have; the attribute is absent where they have one.
    fn channels(&self) -> Result<usize> {
        if !self.has_attribute(CHANNEL_COUNT)? {
            return Ok(1);
        }
        let cannot = || self.cannot(&format!("attribute `{CHANNEL_COUNT}`"));
        let channels = self.file.attr(CHANNEL_COUNT).and_then(|value| value.read_scalar::<u64>());
        let channels = channels.context(cannot)?;
        if (1..=CHANNELS as u64).contains(&channels) {
            return Ok(channels as usize);
        }
        Err(Failure::new(format!(
            "`{}` has images of {channels} channels, expected 1 to {CHANNELS}",
            self.path.display()
        )))
    }

    /// What the values of gaze stand for; the attribute is absent where there are none.
    fn levels(&self) -> Result<Vec<f64>> {
        if !self.has_attribute(LEVELS)? {
            return Ok(Vec::new());
        }
        let cannot = || self.cannot(&format!("attribute `{LEVELS}`"));
        let attribute = self.file.attr(LEVELS).context(cannot)?;
        if attribute.size() > GAZE_LEVELS {
            let what =
                format!("it has {} levels, expected at most {GAZE_LEVELS}", attribute.size());
            return Err(Failure::new(what).during(cannot()));
        }
        let levels = attribute.read_raw::<f64>().context(cannot)?;
        check_levels(&levels).map_err(|failure| failure.during(cannot()))?;
        Ok(levels)
    }

    /// Which fold no run learns from; the attribute is absent where there is none.
    fn test_fold(&self) -> Result<Option<u32>> {
        if !self.has_attribute(TEST_FOLD)? {
            return Ok(None);
        }
        let cannot = || self.cannot(&format!("attribute `{TEST_FOLD}`"));
        let fold = self.file.attr(TEST_FOLD).and_then(|value| value.read_scalar::<u32>());
        fold.map(Some).context(cannot)
    }

    /// How the scans were prepared; the attribute is absent where that is not known.
    fn preparation(&self, channels: usize) -> Result<Option<Preparation>> {
        if self.form != Form::Sealed || !self.has_attribute(PREPARATION)? {
            return Ok(None);
        }
        let cannot = || self.cannot(&format!("attribute `{PREPARATION}`"));
        let text = self.text::<LongText>(PREPARATION)?;
        let preparation: Preparation = toml::from_str(&text).context(cannot)?;
        preparation.check().map_err(|failure| failure.during(cannot()))?;
        let found = preparation.channel_count();
        if found == channels {
            return Ok(Some(preparation));
        }
        let what = format!("it names {found} channels, expected {channels} as images have");
        Err(Failure::new(what).during(cannot()))
    }

    /// Adds where cases lie to the rows of their table.
    fn place(&self, rows: &mut [Row]) -> Result<()> {
        let cannot = || self.cannot(&format!("`/{PLACEMENTS}`"));
        let array = self.volume::<f64>(&format!("/{PLACEMENTS}"), &[rows.len(), 4, 3])?;
        let numbers = array.read_raw::<f64>().context(cannot)?;
        let (placements, _) = numbers.as_chunks::<3>().0.as_chunks::<4>();
        self.verify(&array, placements_checksum(placements.iter()))?;
        for (row, placement) in rows.iter_mut().zip(placements) {
            row.placement = *placement;
        }
        Ok(())
    }

    /// Adds what cases were taken with to the rows of their table; the array is absent where nobody says it.
    fn name_modalities(&self, rows: &mut [Row]) -> Result<()> {
        if !self.file.link_exists(MODALITIES) {
            return Ok(());
        }
        let cannot = || self.cannot(&format!("`/{MODALITIES}`"));
        let array = self.volume::<Name>(&format!("/{MODALITIES}"), &[rows.len()])?;
        let names = array.read_raw::<Name>().context(cannot)?;
        for (row, name) in rows.iter_mut().zip(&names) {
            row.modality = name.text().context(cannot)?;
        }
        self.verify(&array, modalities_checksum(rows))
    }

    /// Adds which classes were looked for to the rows of their table; the array is absent where all were.
    fn name_classes(&self, rows: &mut [Row], class_count: usize) -> Result<()> {
        if !self.file.link_exists(CLASSES_ANNOTATED) {
            return Ok(());
        }
        let name = format!("/{CLASSES_ANNOTATED}");
        let stored = self.labels(&name, &[rows.len(), class_count])?;
        for (row, stored) in rows.iter_mut().zip(stored.chunks_exact(class_count)) {
            let classes = classes_annotated(stored);
            row.classes_annotated =
                classes.map_err(|failure| failure.during(self.cannot(&format!("`{name}`"))))?;
        }
        Ok(())
    }

    fn table<S: Text>(&self) -> Result<Vec<Row>> {
        let cannot = || self.cannot("table `/cases`");
        let table = self.dataset("/cases")?;
        self.afford::<StoredRow<S>>(&table, CASES)?;
        let columns = table.dtype().and_then(|stored| stored.to_descriptor()).context(cannot)?;
        if !fits(&columns) {
            return Err(Failure::new("its columns do not fit into its rows").during(cannot()));
        }
        let stored = table.read_raw::<StoredRow<S>>().context(cannot)?;
        let rows = stored.iter().map(|row| self.row(row)).collect::<Result<Vec<_>>>()?;
        self.verify(&table, table_checksum(&rows))?;
        Ok(rows)
    }

    /// A row whose extents are within bounds.
    fn row<S: Text>(&self, stored: &StoredRow<S>) -> Result<Row> {
        let cannot = || self.cannot("table `/cases`");
        let name = stored.name.text().context(cannot)?;
        let extents = [stored.slices, stored.rows, stored.columns];
        let shape = extents.map(|extent| usize::try_from(extent).unwrap_or(usize::MAX));
        let is_small = shape.iter().all(|&extent| extent <= EXTENT);
        if !is_small || elements(&shape, VOLUME_VOXELS).is_none() {
            return Err(Failure::new(format!(
                "case `{name}` has shape {extents:?} in table `/cases` of `{}`, expected at most {EXTENT} \
                 along each axis and {VOLUME_VOXELS} voxels",
                self.path.display()
            )));
        }
        Ok(Row {
            name,
            patient: stored.patient.text().context(cannot)?,
            frame: stored.frame,
            fold: stored.fold,
            modality: String::new(),
            classes_annotated: Vec::new(),
            shape,
            spacing_mm: [
                stored.spacing_slices_mm,
                stored.spacing_rows_mm,
                stored.spacing_columns_mm,
            ],
            placement: UNPLACED,
        })
    }

    /// One case; `about` says which labels it may have.
    fn case(&self, row: &Row, channels: usize, about: &Dataset) -> Result<Case> {
        let folder = format!("/volumes/{}", row.name);
        let group = self.file.group(&folder).context(|| self.cannot(&format!("`{folder}`")))?;
        let names = group.member_names().context(|| self.cannot(&format!("`{folder}`")))?;
        let mut annotations = BTreeMap::new();
        for kind in names.into_iter().filter(|name| name != "image" && name != "image_levels") {
            let labels = self.labels(&format!("{folder}/{kind}"), &row.shape)?;
            annotations.insert(kind, labels);
        }
        let case = Case {
            name: row.name.clone(),
            patient: row.patient.clone(),
            frame: row.frame,
            fold: row.fold,
            modality: row.modality.clone(),
            classes_annotated: row.classes_annotated.clone(),
            scan: Scan {
                grid: Grid {
                    shape: row.shape,
                    spacing_mm: (!row.spacing_mm.iter().any(|mm| mm.is_nan()))
                        .then_some(row.spacing_mm),
                    placement: placement(row.placement),
                },
                channels,
                voxels: self.image(&folder, &image_extents(row.shape, channels))?,
            },
            annotations,
        };
        case.check(about.classes.len())
            .and_then(|()| case.check_gaze(about.levels.len()))
            .map_err(|failure| failure.during(self.cannot(&format!("`{folder}`"))))?;
        Ok(case)
    }

    fn labels(&self, name: &str, extents: &[usize]) -> Result<Vec<u8>> {
        let array = self.volume::<u8>(name, extents)?;
        let labels = array.read_raw::<u8>().context(|| self.cannot(&format!("`{name}`")))?;
        self.verify(&array, xxh3_64(&labels))?;
        Ok(labels)
    }

    fn image(&self, folder: &str, extents: &[usize]) -> Result<Vec<f32>> {
        let name = format!("{folder}/image");
        let cannot = || self.cannot(&format!("`{name}`"));
        let stored = self.dataset(&name)?.dtype().and_then(|stored| stored.to_descriptor());
        let (array, image) = match stored.context(cannot)? {
            TypeDescriptor::Float(FloatSize::U4) => {
                let array = self.volume::<f32>(&name, extents)?;
                let image = array.read_raw().context(cannot)?;
                (array, image)
            }
            TypeDescriptor::Unsigned(IntSize::U1) => {
                let array = self.volume::<u8>(&name, extents)?;
                let codes = array.read_raw::<u8>().context(cannot)?;
                (array, self.decode(folder, &codes)?)
            }
            TypeDescriptor::Unsigned(IntSize::U2) => {
                let array = self.volume::<u16>(&name, extents)?;
                let codes = array.read_raw::<u16>().context(cannot)?;
                (array, self.decode(folder, &codes)?)
            }
            other => {
                return Err(Failure::new(format!(
                    "`{name}` of `{}` holds {other}, expected codes of 1 or 2 bytes, or float32",
                    self.path.display()
                )));
            }
        };
        self.verify(&array, image_checksum(&image))?;
        Ok(image)
    }

    fn decode<T: Copy + Into<usize>>(&self, folder: &str, codes: &[T]) -> Result<Vec<f32>> {
        let name = format!("{folder}/image_levels");
        let levels = self.dataset(&name)?;
        self.afford::<f32>(&levels, MOST_LEVELS)?;
        let levels: Vec<f32> = levels.read_raw().context(|| self.cannot(&format!("`{name}`")))?;
        let decoded = codes.iter().map(|&code| levels.get(code.into()).copied());
        decoded.collect::<Option<_>>().ok_or_else(|| {
            Failure::new(format!(
                "`{folder}/image` of `{}` holds codes without a level, expected 0 to {}",
                self.path.display(),
                levels.len().saturating_sub(1)
            ))
        })
    }

    fn dataset(&self, name: &str) -> Result<hdf5::Dataset> {
        self.file.dataset(name).context(|| self.cannot(&format!("`{name}`")))
    }

    /// Opens an array of `T`, refusing other extents than the case table says.
    fn volume<T>(&self, name: &str, extents: &[usize]) -> Result<hdf5::Dataset> {
        let array = self.dataset(name)?;
        if array.shape() == extents {
            self.afford::<T>(&array, CHANNELS * VOLUME_VOXELS)?;
            return Ok(array);
        }
        Err(Failure::new(format!(
            "`{name}` of `{}` has shape {:?}, expected {extents:?} as table `/cases` says",
            self.path.display(),
            array.shape()
        )))
    }

    /// Refuses an array that says to have more elements than `most`, or more bytes than can be stored in
    /// what the file has for it.
    fn afford<T>(&self, array: &hdf5::Dataset, most: usize) -> Result<()> {
        let (name, shape, stored_bytes) = (array.name(), array.shape(), array.storage_size());
        let bytes = elements(&shape, most).map(|count| (count * size_of::<T>()) as u64);
        let left = bytes
            .filter(|&bytes| bytes <= stored_bytes.saturating_mul(UNPACKED_BYTES))
            .and_then(|bytes| self.budget_bytes.get().checked_sub(bytes));
        if let Some(left) = left {
            self.budget_bytes.set(left);
            return Ok(());
        }
        Err(Failure::new(format!(
            "`{name}` of `{}` says that it has shape {shape:?}, which is more than the {stored_bytes} bytes \
             that are stored of it can hold",
            self.path.display()
        )))
    }

    fn verify(&self, array: &hdf5::Dataset, found: u64) -> Result<()> {
        let name = array.name();
        let expected = array.attr("xxh3").and_then(|checksum| checksum.read_scalar::<u64>());
        let expected = expected.context(|| self.cannot(&format!("the checksum of `{name}`")))?;
        if found == expected {
            return Ok(());
        }
        Err(Failure::new(format!(
            "`{name}` of `{}` is damaged: its checksum is {found:016x}, expected {expected:016x}",
            self.path.display()
        )))
    }
}
