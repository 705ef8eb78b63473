//! The checkpoint that `last`, `best` or a path names, also beside a run that gives checkpoints up.
//!
//! The newest is the newest: where it is damaged it is refused, and no older one takes its place.

use crate::error::{Failure, Result};
use crate::runlog::directory::RunDirectory;
use crate::train::checkpoint::{Checkpoint, CheckpointStore, has_vanished, read_manifest};
use std::path::{Path, PathBuf};

/// How often the newest checkpoint is looked for while a run removes what was found.
const ATTEMPTS: u32 = 5;

/// The directory of the checkpoint that `name` means.
pub(super) fn path(directory: &RunDirectory, name: &str) -> Result<PathBuf> {
    let store = CheckpointStore::new(directory.checkpoints());
    let run = directory.root().display();
    if !matches!(name, "last" | "best") {
        return Ok(Path::new(name).to_owned());
    }
    let newest = store.paths()?.pop().ok_or_else(|| {
        Failure::new(format!("`{run}` holds no checkpoint"))
            .hint("train first: `scrimp train CONFIG`")
    })?;
    if name == "last" {
        return Ok(newest);
    }
    let best = read(directory, &newest)?.manifest.run.best().ok_or_else(|| {
        Failure::new(format!("`{run}` was never evaluated, so none of its checkpoints is the best"))
            .hint("use `--checkpoint last`")
    })?;
    Ok(store.path(best.step))
}

/// The checkpoint in directory `path` of a run, its manifest read.
pub(super) fn read(directory: &RunDirectory, path: &Path) -> Result<Checkpoint> {
    read_manifest(path).map_err(|failure| {
        let run = directory.root().display();
        failure.hint(format!("`scrimp checkpoint verify {run}` says which checkpoints are sound"))
    })
}

/// The checkpoint that `name` means, its manifest read.
pub(super) fn find(directory: &RunDirectory, name: &str) -> Result<Checkpoint> {
    with(directory, name, |path| read(directory, path))
}

/// Does `work` with the directory of the checkpoint that `name` means, and with the next one where a run removed it
/// meanwhile.
pub(super) fn with<T>(
    directory: &RunDirectory,
    name: &str,
    mut work: impl FnMut(&Path) -> Result<T>,
) -> Result<T> {
    let mut attempt = 1;
    loop {
        let path = path(directory, name)?;
        match work(&path) {
            Err(failure) if matches!(name, "last" | "best") && has_vanished(&path) => {
                if attempt == ATTEMPTS {
                    return Err(failure.hint("the run removes checkpoints faster than they are read: set `train.keep_checkpoints` higher"));
                }
                attempt += 1;
            }
            worked => return worked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_newest_is_looked_for_again_where_it_was_removed_and_never_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::new(folder.path());
        let store = CheckpointStore::new(directory.checkpoints());
        let failure = find(&directory, "last").unwrap_err();
        assert!(failure.message().ends_with("holds no checkpoint"), "{failure}");
        for step in [99_999_999, 100_000_000] {
            fs::create_dir_all(store.path(step)).unwrap();
        }
        assert_eq!(path(&directory, "last").unwrap(), store.path(100_000_000));
        for name in ["last", "best"] {
            let failure = find(&directory, name).unwrap_err();
            let expected = format!(
                "`{}` is no checkpoint: it holds no `manifest.json`",
                store.path(100_000_000).display()
            );
            assert_eq!(failure.message(), expected);
        }
        let mut steps = vec![];
        let removing = |path: &Path| {
            steps.push(path.to_owned());
            fs::remove_dir(path).unwrap();
            Err::<(), _>(Failure::new("gone"))
        };
        assert!(
            with(&directory, "last", removing).unwrap_err().message().ends_with("no checkpoint")
        );
        assert_eq!(steps, [100_000_000, 99_999_999].map(|step| store.path(step)));
        let mut step = 0;
        let racing = |path: &Path| {
            step += 1;
            fs::remove_dir(path).unwrap();
            fs::create_dir(store.path(step)).unwrap();
            Err::<(), _>(Failure::new("gone"))
        };
        fs::create_dir(store.path(0)).unwrap();
        let failure = with(&directory, "last", racing).unwrap_err().to_string();
        assert!(failure.contains("hint: the run removes checkpoints faster"), "{failure}");
        assert_eq!(step, u64::from(ATTEMPTS));
    }
}
