//! One shard: a safetensors file, written and read in a single pass that also takes its digest.
//!
//! The layout is that of <https://github.com/huggingface/safetensors>: the length of a JSON table,
//! the table, and the tensors without gaps. Any tool can read it. Knows names, no learners.

use super::FileDigest;
use crate::error::{Context, Failure, Result};
use crate::native::{with_bytes, with_slice, with_slice_mut};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes that are hashed and written at once: they stay in the cache between the two.
const CHUNK: usize = 1 << 20;
/// The table begins behind its length.
const TABLE_START: usize = 8;
const KINDS: [(&str, Kind); 3] =
    [("F32", Kind::Float), ("F64", Kind::Double), ("I64", Kind::Int64)];

/// The line of one tensor in the table.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    dtype: String,
    shape: Vec<i64>,
    data_offsets: [usize; 2],
}

type Table = BTreeMap<String, Line>;

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn digest_of(path: &Path, bytes: u64, digest: u64) -> FileDigest {
    FileDigest { name: name_of(path), bytes, xxh3: format!("{digest:016x}") }
}

/// A file that is hashed while it is written.
struct Digesting {
    path: PathBuf,
    file: BufWriter<File>,
    hash: Xxh3,
    bytes: u64,
}

impl Digesting {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        for chunk in bytes.chunks(CHUNK) {
            self.hash.update(chunk);
            self.file
                .write_all(chunk)
                .context(|| format!("cannot write `{}`", self.path.display()))?;
            self.bytes += chunk.len() as u64;
        }
        Ok(())
    }
}

/// Writes contiguous CPU tensors of kind f32, f64 or i64 and waits until they are on the disk.
pub(super) fn write(path: &Path, tensors: &[(String, Tensor)]) -> Result<FileDigest> {
    // The largest elements first, so that all of them are aligned in memory.
    let mut ordered: Vec<&(String, Tensor)> = tensors.iter().collect();
    ordered.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.kind().elt_size_in_bytes()));
    let table = table_of(&ordered)?;
    let file = File::create(path).context(|| format!("cannot make `{}`", path.display()))?;
    let file = BufWriter::with_capacity(CHUNK, file);
    let mut file = Digesting { path: path.to_owned(), file, hash: Xxh3::new(), bytes: 0 };
    file.put(&(table.len() as u64).to_le_bytes())?;
    file.put(table.as_bytes())?;
    for (_, tensor) in ordered {
        with_bytes(tensor, |bytes| file.put(bytes))??;
    }
    file.file
        .flush()
        .and_then(|()| file.file.get_ref().sync_all())
        .context(|| format!("cannot flush `{}` to disk", path.display()))?;
    Ok(digest_of(path, file.bytes, file.hash.digest()))
}

/// The table as text, padded so that the tensors behind it are aligned.
fn table_of(tensors: &[&(String, Tensor)]) -> Result<String> {
    let mut table = Table::new();
    let mut end = 0;
    for (name, tensor) in tensors {
        let start = end;
        end += tensor.numel() * tensor.kind().elt_size_in_bytes();
        let dtype = KINDS.iter().find(|(_, kind)| *kind == tensor.kind()).ok_or_else(|| {
            Failure::new(format!("`{name}` is of kind {:?}, which is not saved", tensor.kind()))
        })?;
        let line =
            Line { dtype: dtype.0.to_owned(), shape: tensor.size(), data_offsets: [start, end] };
        table.insert(name.clone(), line);
    }
    let mut text = serde_json::to_string(&table).context(|| "cannot write the table of a shard")?;
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    Ok(text)
}

/// The contents of a shard, in memory.
#[derive(Debug)]
pub(super) struct Shard {
    name: String,
    /// The whole file.
    bytes: Tensor,
    table: Table,
    tensors_start: usize,
}

/// Reads a shard. A file that is no shard is empty: its digest tells that it is damaged.
pub(super) fn read(path: &Path) -> Result<(FileDigest, Shard)> {
    let bytes = contents(path)?;
    let digest = with_slice(&bytes, |all: &[u8]| digest_of(path, all.len() as u64, xxh3_64(all)))?;
    let (table, tensors_start) = with_slice(&bytes, parse_table)?.unwrap_or_default();
    Ok((digest, Shard { name: name_of(path), bytes, table, tensors_start }))
}

/// The bytes of a file as a tensor, into which they are read without another copy.
fn contents(path: &Path) -> Result<Tensor> {
    let refused = || format!("cannot read `{}`", path.display());
    let mut file = File::open(path).context(refused)?;
    let length = file.metadata().context(refused)?.len() as i64;
    let bytes = Tensor::f_empty([length], (Kind::Uint8, Device::Cpu)).context(refused)?;
    with_slice_mut(&bytes, |all: &mut [u8]| file.read_exact(all))?.context(refused)?;
    Ok(bytes)
}

fn parse_table(bytes: &[u8]) -> Option<(Table, usize)> {
    let length = bytes.get(..TABLE_START)?.try_into().ok().map(u64::from_le_bytes)?;
    let end = TABLE_START.checked_add(usize::try_from(length).ok()?)?;
    let table = serde_json::from_slice(bytes.get(TABLE_START..end)?).ok()?;
    Some((table, end))
}

impl Shard {
    /// The tensor of this name, sharing the memory of the shard.
    pub(super) fn tensor(&self, name: &str) -> Result<Tensor> {
        let line = self
            .table
            .get(name)
            .ok_or_else(|| Failure::new(format!("`{}` lacks `{name}`", self.name)))?;
        let refused = || format!("cannot read `{name}` of `{}`", self.name);
        let kind = KINDS.iter().find(|(dtype, _)| *dtype == line.dtype).ok_or_else(|| {
            Failure::new(format!("its kind `{}` is unknown", line.dtype)).during(refused())
        })?;
        let [start, end] = line.data_offsets;
        let start = (self.tensors_start + start) as i64;
        let length = (self.tensors_start + end) as i64 - start;
        self.bytes
            .f_narrow(0, start, length)
            .and_then(|bytes| bytes.f_view_dtype(kind.1)?.f_view(line.shape.as_slice()))
            .context(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors() -> Vec<(String, Tensor)> {
        let floats = Tensor::arange(5, (Kind::Float, Device::Cpu)) / 7.0;
        let none = Tensor::zeros([0], (Kind::Double, Device::Cpu));
        let counter = Tensor::from(1_i64 << 40);
        vec![("floats".into(), floats), ("none".into(), none), ("counter".into(), counter)]
    }

    #[test]
    fn what_was_written_is_read_and_any_tool_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let written = write(&path, &tensors()).unwrap();
        let (read, shard) = read(&path).unwrap();
        assert_eq!(read, written);
        assert_eq!(written.xxh3, format!("{:016x}", xxh3_64(&std::fs::read(&path).unwrap())));
        let other: BTreeMap<_, _> = Tensor::read_safetensors(&path).unwrap().into_iter().collect();
        for (name, tensor) in tensors() {
            assert!(shard.tensor(&name).unwrap() == tensor, "{name}");
            assert!(other[&name] == tensor, "{name}");
        }
        assert_eq!(other.len(), 3);
        let failure = shard.tensor("weights").unwrap_err();
        assert_eq!(failure.message(), "`a.safetensors` lacks `weights`");
    }

    #[test]
    fn any_bytes_can_be_read_without_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        write(&path, &tensors()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let (_, shard) = read(&path).unwrap();
            let _ = shard.tensor("floats");
        }
    }
}
