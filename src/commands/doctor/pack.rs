//! A packed data set as one rank sees it: whether it is whole, and what it takes in memory.
//!
//! How the file is read and checked stands in `data::store`.

use crate::data::store;
use crate::doctor::answer::Answer;
use crate::doctor::observation::{Data, WholeData};
use crate::error::{Context, Failure, Result};
use crate::files;
use std::io::Read;
use std::path::Path;
use std::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes in front of a file by which it is told from others: they hold the digest of the rest.
const BEGINNING: u64 = 512;

/// Bytes of the file.
pub(super) fn size_of(path: &Path) -> Result<u64> {
    let cannot = || format!("cannot open `{}`", path.display());
    let file = files::open(path).context(cannot).map_err(|failure| {
        failure.hint("name a packed file that this host sees; `scrimp prepare --help` makes one")
    })?;
    Ok(file.metadata().context(cannot)?.len())
}

/// Reads it to its end and compares its checksums, or looks at its beginning alone.
pub(super) fn read(path: &Path, size: Answer<u64>, reads_all: bool) -> Result<Data> {
    let bytes = match size {
        Answer::Got(bytes) => bytes,
        Answer::Refused { why, hint } => {
            let failure = Failure::new(why);
            return Err(hint.into_iter().fold(failure, Failure::hint));
        }
        Answer::Late { seconds } => {
            let message = format!("`{}` could not be opened within {seconds} s", path.display());
            return Err(Failure::new(message).hint("look whether its file system answers"));
        }
    };
    let cannot = || format!("cannot read `{}`", path.display());
    let mut beginning = Vec::new();
    let file = files::open(path).context(cannot)?;
    file.take(BEGINNING).read_to_end(&mut beginning).context(cannot)?;
    let whole = if reads_all { Some(whole(path)?) } else { None };
    let beginning = xxh3_64(&beginning);
    Ok(Data { path: path.display().to_string(), bytes, beginning, whole })
}

fn whole(path: &Path) -> Result<WholeData> {
    let start = Instant::now();
    let (mut cases, mut memory_bytes) = (0, 0);
    store::each_case(path, &mut |case| {
        cases += 1;
        let labels = case.annotations.values().map(Vec::len).sum::<usize>();
        memory_bytes += (size_of_val(&case.scan.voxels[..]) + labels) as u64;
    })?;
    Ok(WholeData { cases, memory_bytes, seconds: start.elapsed().as_secs_f64() })
}
