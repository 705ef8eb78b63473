//! NIfTI-1 files to be written byte by byte, sound or not.

use flate2::{Compression, write::GzEncoder};
use std::io::Write;

/// x, y, z in the file.
pub(crate) const EXTENTS: [usize; 3] = [4, 3, 2];
pub(crate) const VOXELS: usize = 24;
pub(crate) const SPACING_MM: [f32; 3] = [1.5, 2.0, 8.0];

/// A matrix of the spacing alone, with an origin.
pub(crate) fn straight() -> [[f32; 4]; 3] {
    let [x, y, z] = SPACING_MM;
    [[x, 0.0, 0.0, -20.0], [0.0, y, 0.0, 30.0], [0.0, 0.0, z, 5.0]]
}

/// A file to be written.
#[derive(Clone)]
pub(crate) struct File {
    /// `datatype` of the standard.
    pub(crate) stored: i16,
    pub(crate) extents: Vec<usize>,
    pub(crate) values: Vec<f64>,
    pub(crate) big_endian: bool,
    pub(crate) pixdim: [f32; 4],
    pub(crate) offset: f32,
    /// Bytes between header and voxels.
    pub(crate) gap: usize,
    pub(crate) scaling: [f32; 2],
    pub(crate) units: u8,
    pub(crate) sform: Option<[[f32; 4]; 3]>,
    pub(crate) qform: Option<[f32; 6]>,
    /// Bytes behind the voxels.
    pub(crate) behind: Vec<u8>,
}

pub(crate) fn file(values: &[f64]) -> File {
    File {
        stored: 4,
        extents: EXTENTS.to_vec(),
        values: values.to_vec(),
        big_endian: false,
        pixdim: [1.0, SPACING_MM[0], SPACING_MM[1], SPACING_MM[2]],
        offset: 352.0,
        gap: 4,
        scaling: [1.0, 0.0],
        units: 2,
        sform: Some(straight()),
        qform: None,
        behind: Vec::new(),
    }
}

pub(crate) fn image() -> File {
    file(&(0..VOXELS).map(|voxel| (voxel * 3) as f64).collect::<Vec<_>>())
}

/// 0 background, 1 lesion, 9 unlabelled, none of them symmetric.
pub(crate) fn scribble() -> File {
    let mut values = [9.0; VOXELS];
    values[..6].copy_from_slice(&[0.0, 1.0, 1.0, 0.0, 1.0, 0.0]);
    values[20] = 1.0;
    file(&values)
}

impl File {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0u8; 348];
        let order = |mut raw: Vec<u8>| {
            if self.big_endian {
                raw.reverse();
            }
            raw
        };
        let mut put =
            |at: usize, raw: Vec<u8>| bytes[at..at + raw.len()].copy_from_slice(&order(raw));
        put(0, 348i32.to_le_bytes().into());
        put(40, (self.extents.len() as i16).to_le_bytes().into());
        for (axis, extent) in self.extents.iter().enumerate() {
            put(42 + 2 * axis, (*extent as i16).to_le_bytes().into());
        }
        put(70, self.stored.to_le_bytes().into());
        for (index, value) in self.pixdim.iter().enumerate() {
            put(76 + 4 * index, value.to_le_bytes().into());
        }
        put(108, self.offset.to_le_bytes().into());
        put(112, self.scaling[0].to_le_bytes().into());
        put(116, self.scaling[1].to_le_bytes().into());
        put(252, i16::from(self.qform.is_some()).to_le_bytes().into());
        put(254, i16::from(self.sform.is_some()).to_le_bytes().into());
        for (index, value) in self.qform.unwrap_or_default().iter().enumerate() {
            put(256 + 4 * index, value.to_le_bytes().into());
        }
        for (index, value) in self.sform.unwrap_or_default().iter().flatten().enumerate() {
            put(280 + 4 * index, value.to_le_bytes().into());
        }
        bytes[123] = self.units;
        bytes[344..348].copy_from_slice(b"n+1\0");
        bytes.extend(vec![0; self.gap]);
        for &value in &self.values {
            bytes.extend(order(match self.stored {
                2 => vec![value as u8],
                256 => vec![value as i8 as u8],
                4 => (value as i16).to_le_bytes().into(),
                512 => (value as u16).to_le_bytes().into(),
                8 => (value as i32).to_le_bytes().into(),
                768 => (value as u32).to_le_bytes().into(),
                1024 => (value as i64).to_le_bytes().into(),
                1280 => (value as u64).to_le_bytes().into(),
                16 => (value as f32).to_le_bytes().into(),
                64 => value.to_le_bytes().into(),
                other => vec![0; usize::from(other.unsigned_abs()) % 16 + 1],
            }));
        }
        bytes.extend(&self.behind);
        bytes
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The same volume stored along other axes, with a header that says so: for each of its axes the axis
/// of the plain one that it runs along, and whether it runs back.
pub(crate) fn stored_along(file: &File, axes: [usize; 3], back: [bool; 3]) -> File {
    let extents = axes.map(|axis| EXTENTS[axis]);
    let matrix = straight();
    let mut sform = [[0.0; 4]; 3];
    for row in 0..3 {
        sform[row][3] = matrix[row][3];
        for axis in 0..3 {
            let cell = matrix[row][axes[axis]];
            sform[row][axis] = if back[axis] { -cell } else { cell };
            if back[axis] {
                sform[row][3] += cell * (extents[axis] - 1) as f32;
            }
        }
    }
    let mut values = Vec::new();
    for z in 0..extents[2] {
        for y in 0..extents[1] {
            for x in 0..extents[0] {
                let mut place = [0; 3];
                for (axis, index) in [x, y, z].into_iter().enumerate() {
                    let index = if back[axis] { extents[axis] - 1 - index } else { index };
                    place[axes[axis]] = index;
                }
                values.push(file.values[place[0] + 4 * (place[1] + 3 * place[2])]);
            }
        }
    }
    let mut pixdim = [1.0; 4];
    (0..3).for_each(|axis| pixdim[axis + 1] = SPACING_MM[axes[axis]]);
    File { extents: extents.to_vec(), values, pixdim, sform: Some(sform), ..file.clone() }
}
