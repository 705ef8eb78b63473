//! One owner of a run directory at a time: taking it, keeping it, noticing that it is lost.
//!
//! Where the file system can, the owner holds a lock on the directory itself, which the system gives back
//! when the process ends however it ends, and a second one on `control/lock`, which network file systems
//! know how to lock. Beside that stands a sign of life with a number of its own for each claim, in
//! `control/alive.json`, for everybody else and for where there are no locks. Signs are replaced whole and
//! the last one counts; a process that finds another number than its own has lost the directory. Whether
//! the process behind a sign lives is asked of the system, or seen from whether the sign changes while one
//! watches; no two clocks are compared.
//!
//! What is done in the directory is known to those who own it.

use super::directory::{RunDirectory, make_folder};
use super::locks::{Locks, identity};
use super::sign::{Life, Seen, SignOfLife};
use crate::error::{Context, Failure, Result};
use crate::files::{self, FreshFile};
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a directory is claimed.
#[derive(Debug, Clone, Copy)]
struct Terms {
    /// Time between two signs of life.
    heartbeat: Duration,
    /// How long a sign of a process that cannot be asked is watched before it counts as dead.
    watch: Duration,
    /// Without locks: after this time the own sign must still be there.
    settle: Duration,
    /// How long a lock may be busy: a killed process takes a moment to end.
    patience: Duration,
    /// Whether locks are tried.
    locks: bool,
}

/// The terms of every run.
const TERMS: Terms = Terms {
    heartbeat: Duration::from_secs(3),
    watch: Duration::from_secs(30),
    settle: Duration::from_secs(1),
    patience: Duration::from_millis(500),
    locks: true,
};

impl RunDirectory {
    /// Takes the directory for this process until the claim is dropped; creates it if need be and
    /// withdraws requests to an earlier process. Refuses a directory that a run is writing, with exit
    /// code 1, because that passes. The sign of a process that cannot be asked, on another host for
    /// example, is watched for half a minute first.
    pub fn claim(&self) -> Result<Claim> {
        self.claim_on(TERMS)
    }

    /// A fence for another rank of the run that has just claimed the directory.
    pub fn fence(&self) -> Result<Fence> {
        let doing = || format!("cannot see whose `{}` is", self.root().display());
        let metadata = fs::metadata(self.root()).context(doing)?;
        let sign = Seen::at(&self.alive()).context(doing)?.and_then(|seen| seen.sign());
        // Where a file system shows it late, the owner itself looks all the same.
        let nonce = sign.map(|sign| sign.nonce);
        Ok(Fence::new(self, identity(&metadata), nonce, Vec::new()))
    }

    fn claim_on(&self, terms: Terms) -> Result<Claim> {
        let refused = || format!("cannot use `{}` as run directory", self.root().display());
        let elsewhere =
            |failure: Failure| failure.hint("choose another directory with `--run DIR`");
        fs::create_dir_all(self.control()).context(refused).map_err(elsewhere)?;
        let mut locks = Locks::open(self).context(refused).map_err(elsewhere)?;
        self.lock_with(&mut locks, terms)?;
        self.wait_for_death(&locks, terms)?;
        if locks.are_held() {
            files::remove_partial(&self.control());
        }
        let random = files::random_number().context(refused)?;
        let sign = SignOfLife::of_this_process(random, locks.has_directory);
        let place = || format!("cannot write `{}`", self.alive().display());
        let bytes = serde_json::to_vec(&sign).context(place)?;
        files::replace(&self.alive(), &bytes)
            .context(place)
            .map_err(|failure| elsewhere(failure.during(refused())))?;
        let fence = Fence::new(self, locks.identity, Some(sign.nonce), bytes);
        if !locks.are_held() {
            std::thread::sleep(terms.settle);
        }
        fence.check().map_err(|failure| failure.during(refused()))?;
        self.withdraw(&self.stop_request())?;
        self.withdraw(&self.checkpoint_request())?;
        Claim::keep(fence, locks, terms)
    }

    /// Takes the locks that there are, or says who has them.
    fn lock_with(&self, locks: &mut Locks, terms: Terms) -> Result<()> {
        let start = Instant::now();
        while terms.locks && !locks.try_take(self) {
            if start.elapsed() >= terms.patience {
                let sign = Seen::at(&self.alive()).ok().flatten().and_then(|seen| seen.sign());
                return Err(self.occupied(sign.filter(|sign| sign.life() != Life::Dead).as_ref()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Returns when the process behind the sign that lies here has ended, and fails when it has not.
    fn wait_for_death(&self, locks: &Locks, terms: Terms) -> Result<()> {
        let path = self.alive();
        let look = || match Seen::at(&path) {
            // Whatever is no file is no sign, and makes room for one or says that it cannot.
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(None),
            seen => seen.context(|| format!("cannot read `{}`", path.display())),
        };
        let life = |seen: &Seen| match seen.sign() {
            Some(sign) if locks.has_directory => sign.life_without_lock(),
            Some(sign) => sign.life(),
            None => Life::Unknown,
        };
        let Some(first) = look()? else { return Ok(()) };
        if life(&first) == Life::Unknown && (first.sign().is_some() || !locks.are_held()) {
            tracing::warn!("{}", self.watching(first.sign().as_ref(), terms.watch));
            let start = Instant::now();
            while start.elapsed() < terms.watch {
                std::thread::sleep(terms.heartbeat.min(terms.watch / 4));
                match look()? {
                    None => return Ok(()),
                    Some(now) if now != first => {
                        return match life(&now) {
                            Life::Dead => Ok(()),
                            _ => Err(self.occupied(now.sign().as_ref())),
                        };
                    }
                    Some(_) => {}
                }
            }
            return Ok(());
        }
        match life(&first) {
            Life::Alive => Err(self.occupied(first.sign().as_ref())),
            Life::Dead | Life::Unknown => Ok(()),
        }
    }

    /// What is said while a sign is watched.
    fn watching(&self, sign: Option<&SignOfLife>, watch: Duration) -> String {
        let (path, seconds) = (self.alive(), watch.as_secs());
        let path = path.display();
        match sign {
            Some(SignOfLife { host, pid, .. }) => format!(
                "`{path}` says that process {pid} on `{host}` writes here, which cannot be asked from \
                 here; watches for {seconds} s whether it gives a sign of life"
            ),
            None => format!(
                "`{path}` does not say who writes here; watches for {seconds} s whether it changes"
            ),
        }
    }

    fn occupied(&self, sign: Option<&SignOfLife>) -> Failure {
        let name = self.root().display();
        let Some(SignOfLife { host, pid, .. }) = sign else {
            return Failure::new(format!(
                "`{name}` belongs to another process, which `{}` does not name",
                self.alive().display()
            ))
            .hint(format!("`fuser -v {name} {}` shows it", self.lock().display()));
        };
        Failure::new(format!("`{name}` belongs to a run that is alive on `{host}`, process {pid}"))
            .hint(format!("look at it with `scrimp watch {name}`"))
            .hint(format!("end it with `touch {}`", self.stop_request().display()))
    }
}

/// What a claim and its fences know together.
struct Owned {
    directory: RunDirectory,
    identity: (u64, u64),
    /// The number of the claim, where it is known.
    nonce: Option<u64>,
    /// The sign, as it is written.
    bytes: Vec<u8>,
    /// How the directory was lost.
    loss: OnceLock<Loss>,
    listener: Mutex<Option<Listener>>,
}

type Listener = Box<dyn FnOnce(Failure) + Send>;

impl fmt::Debug for Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owned").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// Why a directory is no longer ours.
#[derive(Debug, Clone)]
enum Loss {
    Removed,
    Replaced,
    Taken { host: String, pid: u32 },
}

/// Tells whether a claimed directory is still that of this process. To be asked before anything in it is
/// changed.
#[derive(Debug, Clone)]
pub struct Fence(Arc<Owned>);

impl Fence {
    fn new(
        directory: &RunDirectory,
        identity: (u64, u64),
        nonce: Option<u64>,
        bytes: Vec<u8>,
    ) -> Self {
        let (directory, loss, listener) = (directory.clone(), OnceLock::new(), Mutex::new(None));
        Self(Arc::new(Owned { directory, identity, nonce, bytes, loss, listener }))
    }

    /// Fails where the directory was removed, renamed or replaced, or belongs to another process by now,
    /// and from then on.
    pub fn check(&self) -> Result<()> {
        match self.loss() {
            Some(loss) => Err(self.failure(loss)),
            None => Ok(()),
        }
    }

    fn loss(&self) -> Option<&Loss> {
        if self.0.loss.get().is_none()
            && let Some(loss) = self.look()
        {
            return Some(self.0.loss.get_or_init(|| loss));
        }
        self.0.loss.get()
    }

    /// Only what is seen counts: where a file system does not answer, nothing is lost yet.
    fn look(&self) -> Option<Loss> {
        let Owned { directory, identity: ours, nonce, .. } = &*self.0;
        match fs::metadata(directory.root()) {
            Ok(there) if identity(&there) != *ours => return Some(Loss::Replaced),
            Err(error) if is_gone(&error) => return Some(Loss::Removed),
            Ok(_) | Err(_) => {}
        }
        let sign = Seen::at(&directory.alive()).ok().flatten()?.sign()?;
        let SignOfLife { host, pid, .. } = sign;
        nonce.is_some_and(|nonce| sign.nonce != nonce).then_some(Loss::Taken { host, pid })
    }

    fn failure(&self, loss: &Loss) -> Failure {
        let name = self.0.directory.root().display();
        match loss {
            Loss::Removed => Failure::new(format!(
                "`{name}` was removed or renamed while the run was writing it; nothing more is saved"
            ))
            .hint("end a run before its directory is moved: `touch RUN/control/stop`"),
            Loss::Replaced => Failure::new(format!(
                "`{name}` is not the directory any more in which the run was started; nothing more is \
                 saved"
            ))
            .hint("end a run before its directory is moved: `touch RUN/control/stop`"),
            Loss::Taken { host, pid } => Failure::new(format!(
                "`{name}` was taken over by process {pid} on `{host}`; nothing more is saved here"
            ))
            .hint(format!("look at that run with `scrimp watch {name}`")),
        }
    }

    /// Gives a sign of life; it needs no room on the disk, and touches no sign but the own one.
    fn refresh(&self) -> io::Result<()> {
        let path = self.0.directory.alive();
        let file = match files::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return self.restore(),
            file => file?,
        };
        match Seen::of(&file)?.sign() {
            Some(sign) if Some(sign.nonce) == self.0.nonce => Ok(futimens(&file, &NOW)?),
            // The next look says by whom it was taken.
            Some(_) => Ok(()),
            None => files::replace(&path, &self.0.bytes),
        }
    }

    /// Puts the sign back that somebody removed, unless another process was quicker.
    fn restore(&self) -> io::Result<()> {
        let directory = &self.0.directory;
        make_folder(&directory.control())?;
        let mut fresh = FreshFile::beside(&directory.alive())?;
        fresh.write_all(&self.0.bytes)?;
        match fs::hard_link(fresh.partial(), directory.alive()) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes the sign away if it is the own one. It is moved first and looked at then, so that no other
    /// one is removed, whoever comes in between.
    fn remove_sign(&self) -> io::Result<()> {
        let directory = &self.0.directory;
        if self.loss().is_some() {
            return Ok(());
        }
        let moved = files::partial_path(&directory.alive())?;
        match fs::rename(directory.alive(), &moved) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            renamed => renamed?,
        }
        let sign = Seen::at(&moved)?.and_then(|seen| seen.sign());
        if sign.is_some_and(|sign| Some(sign.nonce) != self.0.nonce) {
            // A newer one that lies there by now counts.
            drop(fs::hard_link(&moved, directory.alive()));
        }
        fs::remove_file(&moved)
    }

    /// Tells the listener of a loss, once.
    fn tell(&self) {
        let Some(loss) = self.0.loss.get() else { return };
        let listener = self.0.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listener) = listener {
            listener(self.failure(loss));
        }
    }
}

const NOW: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
    last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
};

fn is_gone(error: &io::Error) -> bool {
    use ErrorKind::{NotADirectory, NotFound, StaleNetworkFileHandle};
    matches!(error.kind(), NotFound | NotADirectory | StaleNetworkFileHandle)
}

/// A run directory that belongs to this process; it is given back on drop.
#[derive(Debug)]
pub struct Claim {
    fence: Fence,
    end: Option<Sender<()>>,
    heartbeat: Option<JoinHandle<()>>,
}

impl Claim {
    fn keep(fence: Fence, locks: Locks, terms: Terms) -> Result<Self> {
        let (end, ended) = mpsc::channel();
        let beaten = fence.clone();
        let heartbeat = std::thread::Builder::new()
            .name("heartbeat".to_owned())
            .spawn(move || beat(&beaten, locks, terms.heartbeat, &ended))
            .context(|| "cannot start the thread that gives signs of life")?;
        Ok(Self { fence, end: Some(end), heartbeat: Some(heartbeat) })
    }

    /// For asking whether the directory still belongs to this process.
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Has `listener` called, on a thread of the claim, when the directory is lost; at once where it is
    /// lost already.
    pub fn when_lost(&self, listener: impl FnOnce(Failure) + Send + 'static) {
        let place = &self.fence.0.listener;
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(listener));
        self.fence.tell();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        drop(self.end.take());
        if matches!(self.heartbeat.take().map(JoinHandle::join), Some(Err(_))) {
            tracing::warn!("the thread that gives signs of life has panicked");
        }
    }
}

/// Gives signs of life until the claim ends or is lost; then gives the directory back.
fn beat(fence: &Fence, mut locks: Locks, pause: Duration, ended: &Receiver<()>) {
    let path = fence.0.directory.alive();
    let mut has_failed = false;
    while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        if fence.loss().is_some() {
            fence.tell();
            continue;
        }
        let refreshed = fence.refresh();
        if let Err(error) = &refreshed
            && !has_failed
        {
            tracing::warn!("cannot refresh `{}`: {error}", path.display());
        }
        has_failed = refreshed.is_err();
        locks.renew(&fence.0.directory);
    }
    if let Err(error) = fence.remove_sign() {
        tracing::warn!("cannot remove `{}`: {error}", path.display());
    }
    // Only now may the next one come.
    drop(locks);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runlog::directory::host;
    use std::path::Path;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Terms of a test: signs every few milliseconds, and no patience.
    const QUICK: Terms = Terms {
        heartbeat: Duration::from_millis(20),
        watch: Duration::from_millis(400),
        settle: Duration::from_millis(150),
        patience: Duration::ZERO,
        locks: true,
    };
    const NO_LOCKS: Terms = Terms { locks: false, ..QUICK };

    fn run_in(folder: &tempfile::TempDir) -> RunDirectory {
        RunDirectory::new(folder.path().join("run"))
    }

    fn message(result: Result<Claim>, root: &Path) -> String {
        result.unwrap_err().to_string().replace(&root.display().to_string(), "DIR")
    }

    fn leave_sign(run: &RunDirectory, sign: &SignOfLife) {
        fs::create_dir_all(run.control()).unwrap();
        fs::write(run.alive(), serde_json::to_vec(sign).unwrap()).unwrap();
    }

    fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::yield_now();
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_claimed_directory_is_refused_until_the_claim_is_dropped() {
        for terms in [QUICK, NO_LOCKS] {
            let folder = tempfile::tempdir().unwrap();
            let run = run_in(&folder);
            let claim = run.claim_on(terms).unwrap();
            claim.fence().check().unwrap();
            run.fence().unwrap().check().unwrap();
            assert_eq!(run.writer().unwrap().pid, std::process::id());
            let refused = run.claim_on(terms);
            assert_eq!(refused.as_ref().unwrap_err().exit(), crate::error::Exit::Failed);
            let refusal = message(refused, folder.path());
            let refusal = refusal.replace(&std::process::id().to_string(), "PID");
            insta::allow_duplicates! {
                insta::assert_snapshot!(refusal.replace(&host(), "HOST"), @r"
                error: `DIR/run` belongs to a run that is alive on `HOST`, process PID

                hint: look at it with `scrimp watch DIR/run`
                hint: end it with `touch DIR/run/control/stop`
                ");
            }
            drop(claim);
            assert_eq!(run.writer(), None);
            drop(run.claim_on(terms).unwrap());
            let left = if terms.locks { vec!["lock"] } else { vec![] };
            assert_eq!(names(&run.control()), left);
        }
    }

    /// Two hundred claims in rounds of twenty, the slow ones slow in different places.
    #[test]
    fn of_many_that_come_at_once_one_gets_it() {
        for terms in [QUICK, NO_LOCKS] {
            let folder = tempfile::tempdir().unwrap();
            let run = run_in(&folder);
            for round in 0..10 {
                // What a killed process left, which everybody sees and wants to replace.
                leave_sign(&run, &SignOfLife::of_a_dead_process(u32::MAX));
                let (start, refused) = (Barrier::new(20), AtomicUsize::new(0));
                let claim = |number: u64| {
                    start.wait();
                    std::thread::sleep(Duration::from_micros(number * (round % 3) * 500));
                    let claim = run.claim_on(terms);
                    if claim.is_err() {
                        refused.fetch_add(1, Ordering::SeqCst);
                    }
                    // Nobody gives it back before all have tried.
                    start.wait();
                    claim.ok().filter(|claim| claim.fence().check().is_ok())
                };
                let owners = std::thread::scope(|scope| {
                    let claims: Vec<_> =
                        (0..20).map(|number| scope.spawn(move || claim(number))).collect();
                    claims.into_iter().filter_map(|claim| claim.join().unwrap()).count()
                });
                assert_eq!(owners, 1, "in round {round}, locks: {}", terms.locks);
                if terms.locks {
                    assert_eq!(refused.into_inner(), 19);
                }
            }
        }
    }

    #[test]
    fn what_a_dead_process_left_is_swept_away_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let run = run_in(&folder);
        // A process that is gone, and one that had this process's number before.
        for pid in [u32::MAX, std::process::id()] {
            for terms in [QUICK, NO_LOCKS] {
                leave_sign(&run, &SignOfLife::of_a_dead_process(pid));
                run.request_stop().unwrap();
                fs::create_dir(run.checkpoint_request()).unwrap();
                let terms = Terms { watch: Duration::from_hours(1), ..terms };
                drop(run.claim_on(terms).unwrap());
                assert!(!run.stop_request().exists() && !run.checkpoint_request().exists());
                assert!(!run.alive().exists());
            }
        }
        // One of a container of this host, which would have kept its lock.
        leave_sign(&run, &SignOfLife::of_another_container(true));
        drop(run.claim_on(Terms { watch: Duration::from_hours(1), ..QUICK }).unwrap());
    }

    #[test]
    fn a_sign_that_cannot_be_asked_counts_while_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let run = run_in(&folder);
        for sign in [SignOfLife::of_another_host(), SignOfLife::of_another_container(false)] {
            leave_sign(&run, &sign);
            let (end, ended) = mpsc::channel::<()>();
            let path = run.alive();
            let owner = std::thread::spawn(move || {
                let mut age = Duration::from_hours(24);
                while ended.recv_timeout(QUICK.heartbeat) == Err(RecvTimeoutError::Timeout) {
                    // A clock that is a day ahead.
                    age += Duration::from_millis(20);
                    let file = fs::File::options().write(true).open(&path).unwrap();
                    file.set_modified(std::time::SystemTime::now() + age).unwrap();
                }
            });
            let refusal = message(run.claim_on(QUICK), folder.path());
            let expected = format!("belongs to a run that is alive on `{}`", sign.host);
            assert!(refusal.contains(&expected), "{refusal}");
            drop(end);
            owner.join().unwrap();
            drop(run.claim_on(QUICK).unwrap());
        }
        assert_eq!(
            run.watching(Some(&SignOfLife::of_another_host()), TERMS.watch)
                .replace(&folder.path().display().to_string(), "DIR"),
            "`DIR/run/control/alive.json` says that process 7 on `elsewhere` writes here, which cannot \
             be asked from here; watches for 30 s whether it gives a sign of life"
        );
    }

    #[test]
    fn the_lock_holds_without_the_folder_that_tells_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let run = run_in(&folder);
        let slow = Terms { heartbeat: Duration::from_hours(1), ..QUICK };
        let claim = run.claim_on(slow).unwrap();
        fs::remove_dir_all(run.control()).unwrap();
        let refusal = message(run.claim_on(QUICK), folder.path());
        insta::assert_snapshot!(refusal, @r"
        error: `DIR/run` belongs to another process, which `DIR/run/control/alive.json` does not name

        hint: `fuser -v DIR/run DIR/run/control/lock` shows it
        ");
        claim.fence().check().unwrap();
        drop(claim);
        drop(run.claim_on(QUICK).unwrap());
    }

    #[test]
    fn a_sign_that_was_removed_or_spoilt_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let run = run_in(&folder);
        for terms in [QUICK, NO_LOCKS] {
            let claim = run.claim_on(terms).unwrap();
            let own = run.writer().unwrap();
            fs::remove_dir_all(run.control()).unwrap();
            eventually("it does not come back", || run.writer().as_ref() == Some(&own));
            fs::write(run.alive(), "{").unwrap();
            eventually("it does not come back", || run.writer().as_ref() == Some(&own));
            claim.fence().check().unwrap();
            drop(claim);
        }
    }

    /// A process that was suspended for so long that another host took the directory.
    #[test]
    fn whoever_was_displaced_notices_and_touches_nothing_more() {
        let folder = tempfile::tempdir().unwrap();
        let run = run_in(&folder);
        let claim = run.claim_on(QUICK).unwrap();
        let (fence, of_another_rank) = (claim.fence(), run.fence().unwrap());
        let (tell, told) = mpsc::channel();
        claim.when_lost(move |failure| tell.send(failure.to_string()).unwrap());
        let other = SignOfLife::of_another_host();
        files::replace(&run.alive(), &serde_json::to_vec(&other).unwrap()).unwrap();
        let told = told.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(fence.check().unwrap_err().to_string(), told);
        assert!(of_another_rank.check().is_err());
        insta::assert_snapshot!(told.replace(&folder.path().display().to_string(), "DIR"), @r"
        error: `DIR/run` was taken over by process 7 on `elsewhere`; nothing more is saved here

        hint: look at that run with `scrimp watch DIR/run`
        ");
        drop(claim);
        assert_eq!(Seen::at(&run.alive()).unwrap().unwrap().sign(), Some(other));
        assert!(fence.check().is_err());
    }

    #[test]
    fn a_directory_that_was_removed_or_renamed_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let run = run_in(&folder);
        let moved = folder.path().join("moved");
        let ways: [&dyn Fn(); 3] = [
            &|| fs::remove_dir_all(run.root()).unwrap(),
            &|| fs::rename(run.root(), &moved).unwrap(),
            &|| {
                fs::rename(run.root(), folder.path().join("moved, too")).unwrap();
                fs::create_dir(run.root()).unwrap();
            },
        ];
        for lose in ways {
            let claim = run.claim_on(QUICK).unwrap();
            let (tell, told) = mpsc::channel();
            lose();
            claim.when_lost(move |failure| tell.send(failure).unwrap());
            assert!(claim.fence().check().is_err());
            let failure = told.recv_timeout(Duration::from_secs(20)).unwrap();
            assert_eq!(failure.exit(), crate::error::Exit::Failed);
            assert!(failure.message().ends_with("nothing more is saved"), "{failure}");
            drop(claim);
            let left: Vec<_> = run.root().read_dir().into_iter().flatten().collect();
            assert!(left.is_empty(), "{left:?}");
        }
        assert!(moved.join("control/alive.json").exists());
    }

    #[test]
    fn no_link_and_no_predictable_name_is_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let run = run_in(&folder);
        fs::create_dir_all(run.control()).unwrap();
        let precious = folder.path().join("precious");
        fs::write(&precious, "mine").unwrap();
        for name in ["alive.json", "alive.json.new", "lock"] {
            std::os::unix::fs::symlink(&precious, run.control().join(name)).unwrap();
        }
        let claim = run.claim_on(QUICK).unwrap();
        eventually("no sign", || run.writer().is_some());
        drop(claim);
        assert_eq!(fs::read(&precious).unwrap(), b"mine");
    }

    #[test]
    fn what_cannot_be_a_directory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let run = RunDirectory::new(folder.path().join("file"));
        insta::assert_snapshot!(message(run.claim_on(QUICK), folder.path()), @r"
        error: cannot use `DIR/file` as run directory
          caused by: Not a directory (os error 20)

        hint: choose another directory with `--run DIR`
        ");
        let run = run_in(&folder);
        fs::create_dir_all(run.alive()).unwrap();
        insta::assert_snapshot!(message(run.claim_on(QUICK), folder.path()), @r"
        error: cannot use `DIR/run` as run directory
          caused by: cannot write `DIR/run/control/alive.json`
          caused by: Is a directory (os error 21)

        hint: choose another directory with `--run DIR`
        ");
    }
}
