//! Reading the packed file, and saying exactly what is wrong with one that is not as written.

use super::{CHANNELS, LAYOUT, Row, image_checksum, image_extents, table_checksum, without_locks};
use crate::data::{Case, Dataset};
use crate::error::{Context, Failure, Result};
use hdf5::types::{FloatSize, IntSize, TypeDescriptor, VarLenUnicode};
use std::collections::BTreeMap;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Reads a packed data set into memory.
///
/// Refuses a missing file, one that is not HDF5 or was cut short, another layout, arrays of the
/// wrong shape or type, values outside their range, and contents that differ from their checksum.
pub fn read(path: &Path) -> Result<Dataset> {
    let again = "write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)";
    if !path.exists() {
        return Err(Failure::new(format!("no packed data set at `{}`", path.display()))
            .hint(format!("make one, for example `scrimp prepare phantom --to {}`", path.display()))
            .hint("`scrimp prepare --help` lists the other sources"));
    }
    let file = without_locks()
        .open(path)
        .context(|| format!("cannot open `{}` as HDF5, expected a whole file", path.display()))
        .map_err(|failure| failure.hint(again))?;
    Packed { path, file }.read().map_err(|failure| failure.hint(again))
}

/// An open packed file.
struct Packed<'a> {
    path: &'a Path,
    file: hdf5::File,
}

impl Packed<'_> {
    fn read(&self) -> Result<Dataset> {
        let layout = self.attribute("layout")?;
        if layout != LAYOUT {
            return Err(Failure::new(format!(
                "`{}` has layout `{layout}`, expected `{LAYOUT}`",
                self.path.display()
            )));
        }
        let classes = self.file.attr("classes").and_then(|classes| classes.read_raw());
        let classes: Vec<VarLenUnicode> = classes.context(|| self.cannot("attribute `classes`"))?;
        let rows = self.table()?;
        let channels = self.channels()?;
        let cases = rows.iter().map(|row| self.case(row, channels, classes.len()));
        Ok(Dataset {
            name: self.attribute("name")?,
            provenance: self.attribute("provenance")?,
            cases: cases.collect::<Result<_>>()?,
            classes: classes.iter().map(ToString::to_string).collect(),
        })
    }

    fn cannot(&self, what: &str) -> String {
        format!("cannot read {what} of `{}`", self.path.display())
    }

    fn attribute(&self, name: &str) -> Result<String> {
        let value = self.file.attr(name).and_then(|value| value.read_scalar::<VarLenUnicode>());
        let value = value.context(|| self.cannot(&format!("attribute `{name}`")))?;
        Ok(value.to_string())
    }

    /// How many channels the images have; the attribute is absent from grey data sets.
    fn channels(&self) -> Result<usize> {
        let cannot = || self.cannot(&format!("attribute `{CHANNELS}`"));
        let names = self.file.attr_names().context(cannot)?;
        if !names.iter().any(|name| name == CHANNELS) {
            return Ok(1);
        }
        let channels = self.file.attr(CHANNELS).and_then(|value| value.read_scalar::<u64>());
        Ok(channels.context(cannot)? as usize)
    }

    fn table(&self) -> Result<Vec<Row>> {
        let table = self.dataset("/cases")?;
        let rows = table.read_raw::<Row>().context(|| self.cannot("table `/cases`"))?;
        self.verify(&table, table_checksum(&rows))?;
        Ok(rows)
    }

    fn case(&self, row: &Row, channels: usize, class_count: usize) -> Result<Case> {
        let folder = format!("/volumes/{}", row.name);
        let group = self.file.group(&folder).context(|| self.cannot(&format!("`{folder}`")))?;
        let names = group.member_names().context(|| self.cannot(&format!("`{folder}`")))?;
        let shape = [row.slices, row.rows, row.columns].map(|extent| extent as usize);
        let mut annotations = BTreeMap::new();
        for kind in names.into_iter().filter(|name| name != "image" && name != "image_levels") {
            let labels = self.labels(&format!("{folder}/{kind}"), shape)?;
            annotations.insert(kind, labels);
        }
        let spacing_mm = [row.spacing_slices_mm, row.spacing_rows_mm, row.spacing_columns_mm];
        let case = Case {
            name: row.name.to_string(),
            patient: row.patient.to_string(),
            frame: row.frame,
            fold: row.fold,
            shape,
            channels,
            spacing_mm: (!spacing_mm.iter().any(|mm| mm.is_nan())).then_some(spacing_mm),
            image: self.image(&folder, &image_extents(shape, channels))?,
            annotations,
        };
        case.check(class_count)
            .map_err(|failure| failure.during(self.cannot(&format!("`{folder}`"))))?;
        Ok(case)
    }

    fn labels(&self, name: &str, shape: [usize; 3]) -> Result<Vec<u8>> {
        let array = self.volume(name, &shape)?;
        let labels = array.read_raw::<u8>().context(|| self.cannot(&format!("`{name}`")))?;
        self.verify(&array, xxh3_64(&labels))?;
        Ok(labels)
    }

    fn image(&self, folder: &str, extents: &[usize]) -> Result<Vec<f32>> {
        let name = format!("{folder}/image");
        let array = self.volume(&name, extents)?;
        let cannot = || self.cannot(&format!("`{name}`"));
        let stored = array.dtype().and_then(|stored| stored.to_descriptor()).context(cannot)?;
        let image = match stored {
            TypeDescriptor::Float(FloatSize::U4) => array.read_raw().context(cannot)?,
            TypeDescriptor::Unsigned(IntSize::U1) => {
                self.decode(folder, &array.read_raw::<u8>().context(cannot)?)?
            }
            TypeDescriptor::Unsigned(IntSize::U2) => {
                self.decode(folder, &array.read_raw::<u16>().context(cannot)?)?
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

    /// Opens an array, refusing other extents than the case table says.
    fn volume(&self, name: &str, extents: &[usize]) -> Result<hdf5::Dataset> {
        let array = self.dataset(name)?;
        if array.shape() == extents {
            return Ok(array);
        }
        Err(Failure::new(format!(
            "`{name}` of `{}` has shape {:?}, expected {extents:?} as table `/cases` says",
            self.path.display(),
            array.shape()
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
