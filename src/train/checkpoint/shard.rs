//! One shard: a safetensors file, written in a single pass that also takes its digest, and read
//! straight to where its tensors belong.
//!
//! The layout is that of <https://github.com/huggingface/safetensors>: the length of a JSON table,
//! the table, and the tensors without gaps. Any tool can read it. Knows names, no learners.

use super::FileDigest;
use super::manifest::Expected;
use super::store::Stored;
use crate::error::{Context, Failure, Result};
use crate::files;
use crate::limits::{TENSOR_TABLE_BYTES, elements};
use crate::native::{with_bytes, with_slice_mut};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tch::{Device, Kind, Tensor};
use xxhash_rust::xxh3::Xxh3;

/// Bytes that are hashed and written at once: they stay in the cache between the two.
const CHUNK: usize = 1 << 20;
/// Bytes from which a file is flushed while it is written, and the pause between two flushes.
const LONG_FILE: usize = 1 << 26;
const FLUSH_PAUSE: Duration = Duration::from_millis(5);
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
    /// The same open file once more.
    fn handle(&self) -> std::io::Result<File> {
        self.file.get_ref().try_clone()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        for chunk in bytes.chunks(CHUNK) {
            self.hash.update(chunk);
            self.file
                .write_all(chunk)
                .stored(|| format!("cannot write `{}`", self.path.display()))?;
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
    let make = || File::options().write(true).create_new(true).open(path);
    let file = match make() {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            // What an earlier try could not remove; a link is not followed.
            std::fs::remove_file(path).and_then(|()| make())
        }
        made => made,
    };
    let file = file.stored(|| format!("cannot make `{}`", path.display()))?;
    let file = BufWriter::with_capacity(CHUNK, file);
    let mut file = Digesting { path: path.to_owned(), file, hash: Xxh3::new(), bytes: 0 };
    let flushed = || format!("cannot flush `{}` to disk", path.display());
    let bytes: usize = ordered.iter().map(|(_, tensor)| size_bytes(tensor)).sum();
    let early = if bytes < LONG_FILE { None } else { Some(file.handle().stored(flushed)?) };
    flushing_meanwhile(early, || {
        file.put(&(table.len() as u64).to_le_bytes())?;
        file.put(table.as_bytes())?;
        ordered.into_iter().try_for_each(|(_, tensor)| with_bytes(tensor, |all| file.put(all))?)
    })?
    .stored(flushed)?;
    file.file.flush().and_then(|()| file.file.get_ref().sync_all()).stored(flushed)?;
    Ok(digest_of(path, file.bytes, file.hash.digest()))
}

fn size_bytes(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.kind().elt_size_in_bytes()
}

/// Writes with `write` while another thread keeps flushing `file` to the disk, so that the disk does
/// not wait for the last byte. The inner result is that of flushing: the system reports an error of
/// the disk once, to whoever flushes first.
fn flushing_meanwhile(
    file: Option<File>,
    write: impl FnOnce() -> Result<()>,
) -> Result<std::io::Result<()>> {
    let Some(file) = file else { return write().map(Ok) };
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flusher = scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                file.sync_data()?;
                std::thread::sleep(FLUSH_PAUSE);
            }
            Ok(())
        });
        let written = write();
        is_done.store(true, Ordering::Relaxed);
        let flushed = flusher.join();
        written?;
        flushed.map_err(|_panic| Failure::new("the thread that flushes a checkpoint panicked"))
    })
}

/// The table as text, padded so that the tensors behind it are aligned.
fn table_of(tensors: &[&(String, Tensor)]) -> Result<String> {
    let mut table = Table::new();
    let mut end = 0;
    for (name, tensor) in tensors {
        let start = end;
        end += size_bytes(tensor);
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

/// A shard on the disk whose table was read.
#[derive(Debug)]
pub(super) struct Shard {
    path: PathBuf,
    table: Table,
    tensors_start: usize,
    /// Bytes of all tensors together.
    tensors_bytes: usize,
    /// The kind of its flat tensors, as the table names it.
    kind: String,
}

/// Reads a shard of `expected` bytes through and takes its digest; no tensor stays in memory. Of a longer
/// one it reads one byte more. Without a table that can be read there is no shard, but its digest.
pub(super) fn inspect(
    path: &Path,
    expected: u64,
) -> std::io::Result<(FileDigest, std::result::Result<Shard, String>)> {
    let mut file = files::open(path)?;
    let mut content = (&mut file).take(expected.saturating_add(1));
    let mut buffer = vec![0; CHUNK];
    let (mut hash, mut bytes) = (Xxh3::new(), 0);
    loop {
        let count = content.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        bytes += count as u64;
    }
    let shard = read_table(&mut file, bytes).map(|(table, tensors_start)| Shard {
        path: path.to_owned(),
        table,
        tensors_start,
        tensors_bytes: bytes as usize - tensors_start,
        kind: String::new(),
    });
    let shard = shard.ok_or_else(|| "has no table that can be read".to_owned());
    Ok((digest_of(path, bytes, hash.digest()), shard))
}

/// The table of a file of `bytes` bytes, and where it ends.
fn read_table(file: &mut File, bytes: u64) -> Option<(Table, usize)> {
    let mut length = [0; TABLE_START];
    file.rewind().ok()?;
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    // A damaged length may name more memory than there is.
    let length = Some(length).filter(|length| *length <= TENSOR_TABLE_BYTES)?;
    let end = Some(length + TABLE_START as u64).filter(|end| *end <= bytes)?;
    let mut text = vec![0; length as usize];
    file.read_exact(&mut text).ok()?;
    Some((serde_json::from_slice(&text).ok()?, end as usize))
}

impl Line {
    /// The bytes of a tensor of this kind and shape; `None` where there is no such tensor.
    fn size_bytes(&self) -> Option<usize> {
        let (_, kind) = KINDS.iter().find(|(dtype, _)| *dtype == self.dtype)?;
        let shape = self.shape.iter().map(|&extent| usize::try_from(extent).ok());
        let most = i64::MAX as usize / kind.elt_size_in_bytes();
        Some(elements(&shape.collect::<Option<Vec<_>>>()?, most)? * kind.elt_size_in_bytes())
    }
}

impl Shard {
    /// The kind of its flat tensors.
    pub(super) fn kind(&self) -> &str {
        &self.kind
    }

    /// Says what distinguishes the tensors from those that are expected; they lie without gaps.
    pub(super) fn check(mut self, expected: &Expected) -> std::result::Result<Self, String> {
        if let Some(name) = expected.keys().find(|name| !self.table.contains_key(*name)) {
            return Err(format!("lacks `{name}`"));
        }
        let mut lines: Vec<(&String, &Line)> = self.table.iter().collect();
        // An empty tensor lies in front of the one that begins where it ends.
        lines.sort_by_key(|(_, line)| line.data_offsets);
        let mut end: usize = 0;
        for (name, line) in lines {
            let Some(length) = expected.get(name) else {
                return Err(format!("also holds `{name}`"));
            };
            let size = line.size_bytes().and_then(|size| end.checked_add(size));
            if size.is_none_or(|size| line.data_offsets != [end, size]) {
                return Err(format!(
                    "puts `{name}`, {} {:?}, to bytes {:?}",
                    line.dtype, line.shape, line.data_offsets
                ));
            }
            end = line.data_offsets[1];
            let Some(length) = length else { continue };
            if line.shape != [*length as i64] {
                return Err(format!("holds `{name}` as {:?}, expected [{length}]", line.shape));
            }
            let is_other = !self.kind.is_empty() && line.dtype != self.kind;
            if is_other || line.dtype == "I64" {
                return Err(format!("holds `{name}` in numbers of {}", line.dtype));
            }
            self.kind.clone_from(&line.dtype);
        }
        if end != self.tensors_bytes {
            return Err(format!("has {} bytes of tensors, expected {end}", self.tensors_bytes));
        }
        Ok(self)
    }

    fn line(&self, name: &str) -> Result<(&Line, Kind)> {
        let file = name_of(&self.path);
        let line =
            self.table.get(name).ok_or_else(|| Failure::new(format!("`{file}` lacks `{name}`")))?;
        let kind = KINDS.iter().find(|(dtype, _)| *dtype == line.dtype).ok_or_else(|| {
            Failure::new(format!("its kind `{}` is unknown", line.dtype))
                .during(format!("cannot read `{name}` of `{file}`"))
        })?;
        Ok((line, kind.1))
    }

    /// Reads the tensor of this name into `target`, which is contiguous and of its shape and kind,
    /// on any device.
    pub(super) fn read_into(&self, name: &str, target: &mut Tensor) -> Result<()> {
        let (line, kind) = self.line(name)?;
        if line.shape != target.size() || kind != target.kind() {
            return Err(Failure::new(format!(
                "`{name}` is {kind:?} {:?}, expected {:?} {:?}",
                line.shape,
                target.kind(),
                target.size()
            )));
        }
        if target.device() == Device::Cpu {
            return self.read_bytes(line, target);
        }
        let host = target.empty_like().to_device(Device::Cpu);
        self.read_bytes(line, &host)?;
        tch::no_grad(|| target.f_copy_(&host)).context(|| format!("cannot restore `{name}`"))
    }

    /// The tensor of this name in memory of its own.
    pub(super) fn tensor(&self, name: &str) -> Result<Tensor> {
        let (line, kind) = self.line(name)?;
        let tensor = Tensor::f_empty(line.shape.as_slice(), (kind, Device::Cpu))
            .context(|| format!("no memory for `{name}`"))?;
        self.read_bytes(line, &tensor)?;
        Ok(tensor)
    }

    /// Fills a contiguous CPU tensor.
    fn read_bytes(&self, line: &Line, target: &Tensor) -> Result<()> {
        let refused = || format!("cannot read `{}`", self.path.display());
        if target.numel() == 0 {
            return Ok(());
        }
        let bytes = target
            .detach()
            .f_view([-1])
            .and_then(|flat| flat.f_view_dtype(Kind::Uint8))
            .context(refused)?;
        let start = (self.tensors_start + line.data_offsets[0]) as u64;
        let file = files::open(&self.path).context(refused)?;
        with_slice_mut(&bytes, |all: &mut [u8]| file.read_exact_at(all, start))?.context(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

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
        let (found, shard) = inspect(&path, written.bytes).unwrap();
        let shard = shard.unwrap();
        assert_eq!(found, written);
        assert_eq!(written.xxh3, format!("{:016x}", xxh3_64(&std::fs::read(&path).unwrap())));
        let other: BTreeMap<_, _> = Tensor::read_safetensors(&path).unwrap().into_iter().collect();
        for (name, tensor) in tensors() {
            assert!(shard.tensor(&name).unwrap() == tensor, "{name}");
            assert!(other[&name] == tensor, "{name}");
            let mut target = tensor.empty_like();
            shard.read_into(&name, &mut target).unwrap();
            assert!(target == tensor, "{name}");
        }
        assert_eq!(other.len(), 3);
        let failure = shard.tensor("weights").unwrap_err();
        assert_eq!(failure.message(), "`a.safetensors` lacks `weights`");
        let mut short = Tensor::zeros([4], (Kind::Float, Device::Cpu));
        let failure = shard.read_into("floats", &mut short).unwrap_err();
        assert_eq!(failure.message(), "`floats` is Float [5], expected Float [4]");
    }

    #[test]
    fn any_bytes_can_be_read_without_a_panic_and_no_more_than_are_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let written = write(&path, &tensors()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let (found, shard) = inspect(&path, written.bytes).unwrap();
            assert_eq!(found.bytes, length as u64);
            let _ = shard.map(|shard| shard.tensor("floats"));
        }
        std::fs::write(&path, whole.repeat(3)).unwrap();
        assert_eq!(inspect(&path, written.bytes).unwrap().0.bytes, written.bytes + 1);
        // A table that is said to be longer than any is, or than the file.
        for length in [TENSOR_TABLE_BYTES + 1, u64::MAX, u64::MAX - 7, written.bytes - 7] {
            let long = [&length.to_le_bytes(), &whole[TABLE_START..]].concat();
            std::fs::write(&path, long).unwrap();
            let expected = "has no table that can be read";
            assert_eq!(inspect(&path, written.bytes).unwrap().1.unwrap_err(), expected);
        }
    }

    #[test]
    fn a_link_in_the_way_is_replaced_and_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let [path, precious] = ["a.safetensors", "precious"].map(|name| folder.path().join(name));
        std::fs::write(&precious, "mine").unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        write(&path, &tensors()).unwrap();
        assert_eq!(std::fs::read(&precious).unwrap(), b"mine");
        assert!(std::fs::symlink_metadata(&path).unwrap().is_file());
    }
}
