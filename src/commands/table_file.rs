//! The file that a table of scores goes to, which is known to be writable before anything is computed.

use crate::error::{Context, Failure, Result};
use crate::files::{self, FreshFile};
use std::io::Write;
use std::path::PathBuf;

/// A table of cases that is still to be written.
pub(super) struct TableFile {
    path: PathBuf,
    file: FreshFile,
}

impl TableFile {
    /// Takes a name, and makes its folder. Refuses a file that is there and no table of cases.
    pub(super) fn claim(path: PathBuf) -> Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let file = folder
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| files::refuse_foreign(&path, |start| start.starts_with(b"case,")))
            .and_then(|()| FreshFile::beside(&path))
            .context(|| format!("cannot write `{}`", path.display()))
            .map_err(elsewhere)?;
        Ok(Self { path, file })
    }

    /// Writes the table, and gives its name.
    pub(super) fn write(mut self, text: &str) -> Result<PathBuf> {
        let written = self.file.write_all(text.as_bytes());
        written
            .and_then(|()| self.file.take_place())
            .context(|| format!("cannot write `{}`", self.path.display()))
            .map_err(elsewhere)?;
        Ok(self.path)
    }
}

fn elsewhere(failure: Failure) -> Failure {
    failure.hint("write the table of cases somewhere else with `--to FILE`")
}
