//! The header of MetaImage: lines `Key = Value`, of which the last says where the voxels are.
//!
//! Knows the fields and their older names, and follows what ITK makes of them. Knows neither voxels nor files.

use crate::error::{Failure, Result};
use crate::limits::{CHANNELS, VOLUME_VOXELS, elements};
use crate::scan::axes::{Axes, Course};
use crate::scan::content::{Packing, voxels};
use crate::scan::stored::Stored;
use std::collections::BTreeMap;

/// What a header says.
#[derive(Debug, Clone)]
pub(super) struct Header {
    /// Voxels along x, y, z, and where they lie.
    pub(super) axes: Axes,
    /// Numbers of a voxel, which lie beside each other.
    pub(super) channels: usize,
    /// How numbers are stored.
    pub(super) stored: Stored,
    /// Whether the most significant byte of a number comes first.
    pub(super) big_endian: bool,
    /// How voxels are packed.
    pub(super) packing: Packing,
    /// Bytes before the voxels in a file of their own; none where they are its last bytes.
    pub(super) before: Option<u64>,
    /// The file of the voxels, where they do not follow the header.
    pub(super) data: Option<String>,
}

/// The lines of a header by their keys, and what the file is called in messages.
pub(super) struct Fields<'a> {
    /// Values without spaces around them.
    pub(super) values: BTreeMap<String, String>,
    pub(super) name: &'a str,
}

impl Fields<'_> {
    fn get(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|key| self.values.get(*key)).map(String::as_str)
    }

    fn wrong(&self, key: &str, expected: &str) -> Failure {
        let found = self.values.get(key).map_or("nothing", String::as_str);
        Failure::new(format!("{} has `{key} = {found}`, expected {expected}", self.name))
    }

    /// Whether a field is true, where it is there.
    fn is_true(&self, keys: &[&str]) -> bool {
        self.get(keys).is_some_and(|value| value.starts_with(['T', 't', '1']))
    }

    /// The finite numbers of the first of `keys` that is there, `count` of them.
    fn numbers(&self, keys: &[&str], count: usize) -> Result<Option<Vec<f64>>> {
        let Some(&key) = keys.iter().find(|key| self.values.contains_key(**key)) else {
            return Ok(None);
        };
        let words = self.values[key].split_whitespace().map(str::parse::<f64>);
        let numbers: Option<Vec<f64>> =
            words.map(|word| word.ok().filter(|number| number.is_finite())).collect();
        numbers
            .filter(|numbers| numbers.len() == count)
            .map(Some)
            .ok_or_else(|| self.wrong(key, &format!("{count} finite numbers")))
    }

    /// A whole number, where it is there.
    fn whole(&self, key: &str) -> Result<Option<i64>> {
        let number = self.values.get(key).map(|value| value.parse());
        number.transpose().map_err(|_error| self.wrong(key, "a whole number"))
    }
}

/// Understands the lines of a header.
pub(super) fn parse(fields: &Fields<'_>) -> Result<Header> {
    if let Some(kind) = fields.get(&["ObjectType"]).filter(|kind| *kind != "Image") {
        return Err(Failure::new(format!("{} holds `{kind}`, expected an image", fields.name)));
    }
    if fields.values.contains_key("BinaryData") && !fields.is_true(&["BinaryData"]) {
        return Err(fields
            .wrong("BinaryData", "voxels that are not written as text")
            .hint("save it again with ITK or Slicer"));
    }
    for (key, neutral) in
        [("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)]
    {
        let number = fields.numbers(&[key], 1)?;
        if number.is_some_and(|number| number != [neutral]) {
            // ITK passes it over, other programs apply it.
            return Err(fields
                .wrong(key, &format!("{neutral}"))
                .hint("apply it, and save it again"));
        }
    }
    let channels = fields.whole("ElementNumberOfChannels")?.unwrap_or(1);
    let channels = usize::try_from(channels).ok().filter(|count| (1..=CHANNELS).contains(count));
    let channels = channels
        .ok_or_else(|| fields.wrong("ElementNumberOfChannels", &format!("1 to {CHANNELS}")))?;
    let (dimensions, extents) = extents(fields, channels)?;
    let is_packed = fields.is_true(&["CompressedData"]);
    let data = fields.get(&["ElementDataFile"]).unwrap_or_default();
    let is_local = ["LOCAL", "Local", "local"].contains(&data);
    Ok(Header {
        axes: axes(fields, dimensions, extents)?,
        channels,
        stored: stored(fields)?,
        big_endian: fields.is_true(&["BinaryDataByteOrderMSB", "ElementByteOrderMSB"]),
        packing: if is_packed { Packing::Zlib } else { Packing::None },
        before: before(fields, is_local || is_packed)?,
        data: if is_local { None } else { Some(data_file(fields, data)?) },
    })
}

/// How many dimensions there are, and voxels along x, y, z: further dimensions must have extent 1.
fn extents(fields: &Fields<'_>, channels: usize) -> Result<(usize, [usize; 3])> {
    let dimensions = fields.whole("NDims")?.unwrap_or(0);
    let dimensions = usize::try_from(dimensions).ok().filter(|count| (2..=7).contains(count));
    let dimensions = dimensions.ok_or_else(|| fields.wrong("NDims", "2 or 3"))?;
    let words = fields.get(&["DimSize"]).unwrap_or_default().split_whitespace();
    let found: Option<Vec<usize>> = words.map(|word| word.parse().ok()).collect();
    let found = found.filter(|found| found.len() == dimensions && !found.contains(&0));
    let found = found.ok_or_else(|| {
        fields.wrong("DimSize", &format!("{dimensions} numbers of at least one voxel"))
    })?;
    if found.iter().skip(3).any(|&extent| extent != 1) {
        return Err(fields
            .wrong("DimSize", "two or three dimensions")
            .hint("save each volume or channel in a file of its own"));
    }
    let extents = std::array::from_fn(|axis| found.get(axis).copied().unwrap_or(1));
    let count = voxels(&extents).and_then(|count| elements(&[count, channels], VOLUME_VOXELS));
    match count {
        Some(_) => Ok((dimensions, extents)),
        None => Err(fields.wrong("DimSize", &format!("at most {VOLUME_VOXELS} voxels"))),
    }
}

fn axes(fields: &Fields<'_>, dimensions: usize, extents: [usize; 3]) -> Result<Axes> {
    // An axis that the header does not know has distance 1 and no direction.
    let three = |numbers: &[f64], missing: f64| -> [f64; 3] {
        std::array::from_fn(|axis| numbers.get(axis).copied().unwrap_or(missing))
    };
    let spacing = fields.numbers(&["ElementSpacing", "ElementSize"], dimensions)?;
    let matrix =
        fields.numbers(&["TransformMatrix", "Rotation", "Orientation"], dimensions * dimensions)?;
    let origin = fields.numbers(&["Offset", "Position", "Origin"], dimensions)?;
    let says_where = matrix.is_some() || origin.is_some();
    let directions = std::array::from_fn(|axis| match &matrix {
        _ if axis >= dimensions => [0.0; 3],
        // Each row of what is written is the direction of one axis.
        Some(matrix) => three(&matrix[axis * dimensions..][..dimensions], 0.0),
        None => std::array::from_fn(|part| if part == axis { 1.0 } else { 0.0 }),
    });
    let course = Course { directions, origin_mm: three(&origin.unwrap_or_default(), 0.0) };
    Ok(Axes {
        extents,
        spacing_mm: spacing.map(|spacing| three(&spacing, 1.0)),
        course: says_where.then(|| course.mirrored()),
    })
}

fn stored(fields: &Fields<'_>) -> Result<Stored> {
    let kind = fields.get(&["ElementType"]).unwrap_or_default();
    Ok(match kind.strip_suffix("_ARRAY").unwrap_or(kind) {
        "MET_UCHAR" => Stored::U8,
        "MET_CHAR" | "MET_ASCII_CHAR" => Stored::I8,
        "MET_USHORT" => Stored::U16,
        "MET_SHORT" => Stored::I16,
        // Of 32 bits whatever the machine calls long.
        "MET_UINT" | "MET_ULONG" => Stored::U32,
        "MET_INT" | "MET_LONG" => Stored::I32,
        "MET_ULONG_LONG" => Stored::U64,
        "MET_LONG_LONG" => Stored::I64,
        "MET_FLOAT" => Stored::F32,
        "MET_DOUBLE" => Stored::F64,
        _ => {
            return Err(fields
                .wrong("ElementType", "integers of 8 to 64 bits, or floats of 32 or 64")
                .hint("save it with another type, for example as 32-bit floats"));
        }
    })
}

/// Bytes before the voxels; `stands_first` where there can be none.
fn before(fields: &Fields<'_>, stands_first: bool) -> Result<Option<u64>> {
    match fields.whole("HeaderSize")?.unwrap_or(0) {
        0 => Ok(Some(0)),
        -1 if !stands_first => Ok(None),
        bytes if bytes > 0 && !stands_first => Ok(Some(bytes as u64)),
        _ => Err(fields.wrong("HeaderSize", "none where voxels are packed or follow the header")),
    }
}

fn data_file(fields: &Fields<'_>, data: &str) -> Result<String> {
    if data.starts_with("LIST") || data.contains('%') {
        return Err(fields
            .wrong("ElementDataFile", "all voxels in one file")
            .hint("save it as `.mha`, for example with ITK or Slicer"));
    }
    Ok(data.to_owned())
}
