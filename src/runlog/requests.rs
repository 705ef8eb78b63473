//! Requests to a run: files in `RUN/control` whose existence asks for something.
//!
//! Whoever wants something writes one, or makes it with `touch` or `mkdir`; the run reads who it was and
//! takes it away. What is then done is up to the run.

use super::Requested;
use super::directory::{RunDirectory, host, make_folder, plain_name};
use crate::error::{Context, Failure, Result};
use crate::files;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// What is longer than this does not say who made it, 64 KiB.
const REQUEST_BYTES: u64 = 1 << 16;

/// Who made a request.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Author {
    by: String,
    host: String,
}

impl RunDirectory {
    /// Asks the run to save and end at its next step.
    pub fn request_stop(&self) -> Result<()> {
        self.request(&self.stop_request())
    }

    /// Asks the run to save at its next step, and to go on.
    pub fn request_checkpoint(&self) -> Result<()> {
        self.request(&self.checkpoint_request())
    }

    /// A request is a file; who made it stands inside, for the run to write down.
    fn request(&self, path: &Path) -> Result<()> {
        let doing = || format!("cannot write the request `{}`", path.display());
        make_folder(&self.control()).context(doing)?;
        let author = Author { by: login(), host: host() };
        let text = serde_json::to_vec(&author).context(doing)?;
        if is_there(path) && path.is_dir() {
            // It asks for the same already.
            return Ok(());
        }
        files::replace(path, &text).context(doing)
    }

    /// The request at `path` as the run log tells it; `None` where there is none. One that was made
    /// with `touch` or `mkdir` does not say by whom.
    pub fn requested(&self, path: &Path) -> Option<Requested> {
        if !is_there(path) {
            return None;
        }
        let text = files::read_at_most(path, REQUEST_BYTES).unwrap_or_default();
        let author: Author = serde_json::from_slice(&text).unwrap_or_default();
        let request = path.file_name()?.to_string_lossy().into_owned();
        Some(Requested { request, by: plain_name(&author.by), host: plain_name(&author.host) })
    }

    /// Takes away the request at `path`, if there is one. A folder that holds something is moved aside.
    pub fn withdraw(&self, path: &Path) -> Result<()> {
        let taken = match fs::remove_file(path) {
            Err(_) if is_there(path) && path.is_dir() => {
                fs::remove_dir(path).or_else(|_| move_aside(path))
            }
            taken => taken,
        };
        match taken {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let name = path.display();
                Err(Failure::new(format!("cannot take away the request `{name}`"))
                    .because(&error)
                    .hint(format!("remove it with `rm -r {name}`")))
            }
            _ => Ok(()),
        }
    }
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn move_aside(path: &Path) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.set-aside", files::random_number()?));
    let aside = path.with_file_name(name);
    fs::rename(path, &aside)?;
    tracing::warn!("`{}` is a folder with files, now `{}`", path.display(), aside.display());
    Ok(())
}

/// The login name of whoever runs this process, empty where the system does not tell.
fn login() -> String {
    let name = |variable| std::env::var(variable).ok().filter(|name| !name.is_empty());
    name("LOGNAME").or_else(|| name("USER")).or_else(owner).unwrap_or_default()
}

/// The name of this process's user, from the list of users.
fn owner() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("Uid:"))?;
    let uid = line.split_whitespace().nth(1)?;
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let user = fields.find(|fields| fields.get(2) == Some(&uid))?;
    user.first().map(|name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, Mode, mkfifoat};

    fn by_nobody(request: &str) -> Requested {
        Requested { request: request.to_owned(), by: String::new(), host: String::new() }
    }

    #[test]
    fn a_request_says_who_made_it_unless_it_was_touched() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDirectory::new(directory.path());
        assert_eq!(run.requested(&run.checkpoint_request()), None);
        run.request_checkpoint().unwrap();
        let requested = run.requested(&run.checkpoint_request()).unwrap();
        assert_eq!((requested.request.as_str(), requested.host), ("checkpoint", host()));
        assert_eq!(requested.by, plain_name(&login()));
        fs::write(run.stop_request(), "").unwrap();
        assert_eq!(run.requested(&run.stop_request()), Some(by_nobody("stop")));
    }

    #[test]
    fn a_name_in_a_request_does_not_reach_terminals_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDirectory::new(directory.path());
        make_folder(&run.control()).unwrap();
        let by = format!("eve\u{1b}]0;x\u{7}{}", "e".repeat(1000));
        let author = Author { by, host: "h\r\nerror: x".to_owned() };
        fs::write(run.stop_request(), serde_json::to_vec(&author).unwrap()).unwrap();
        let requested = run.requested(&run.stop_request()).unwrap();
        assert!(requested.by.starts_with("eve]0;xee") && requested.by.len() == 64);
        assert_eq!(requested.host, "herror: x");
    }

    /// Whatever lies there asks, is read without waiting or filling memory, and can be taken away.
    #[test]
    fn whatever_has_the_name_of_a_request_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDirectory::new(directory.path());
        make_folder(&run.control()).unwrap();
        let makers: [fn(&Path); 6] = [
            |path| fs::create_dir(path).unwrap(),
            |path| {
                fs::create_dir(path).unwrap();
                fs::write(path.join("note"), "mine").unwrap();
            },
            |path| mkfifoat(CWD, path, Mode::from_raw_mode(0o600)).unwrap(),
            |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
            |path| std::os::unix::fs::symlink("/nowhere", path).unwrap(),
            |path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap(),
        ];
        for path in [run.stop_request(), run.checkpoint_request()] {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            for make in makers {
                make(&path);
                assert_eq!(run.requested(&path), Some(by_nobody(&name)));
                run.withdraw(&path).unwrap();
                assert_eq!(run.requested(&path), None);
                run.withdraw(&path).unwrap();
            }
        }
        let kept: Vec<_> = fs::read_dir(run.control()).unwrap().flatten().collect();
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert!(kept.iter().all(|entry| entry.path().join("note").exists()));
    }

    #[test]
    fn a_request_follows_no_link_and_makes_no_run_directory() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDirectory::new(directory.path().join("run"));
        assert!(run.request_stop().is_err());
        assert!(!run.root().exists());
        fs::create_dir_all(run.control()).unwrap();
        let precious = directory.path().join("precious");
        fs::write(&precious, "mine").unwrap();
        for name in ["stop", "stop.new"] {
            std::os::unix::fs::symlink(&precious, run.control().join(name)).unwrap();
        }
        run.request_stop().unwrap();
        assert_eq!(fs::read(&precious).unwrap(), b"mine");
        assert_eq!(run.requested(&run.stop_request()).unwrap().host, plain_name(&host()));
    }
}
