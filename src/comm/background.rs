//! Sums over ranks that go on while their caller does something else.
//!
//! One thread of each rank sums the tensors that it is given, one after another. It knows no ranks:
//! what a sum is, it is told when it starts.

use crate::error::{Context, Result};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use tch::Tensor;

/// Sums a tensor over the ranks, on the thread that made it.
pub(super) type Sum = Box<dyn FnMut(&Tensor)>;

/// The thread that sums.
pub(super) struct Background {
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

enum Work {
    Sum(Tensor),
    /// Says when everything before is done.
    Tell(Sender<Done>),
}

/// How the sums before went: with the panic of the one that failed, and of all after it.
type Done = std::result::Result<(), Box<dyn Any + Send>>;

impl Background {
    /// Starts the thread and waits until `open`, which runs on it, has made its way to the other ranks.
    pub(super) fn start(open: impl FnOnce() -> Result<Sum> + Send + 'static) -> Result<Self> {
        let (work, given) = mpsc::channel();
        let (opened, is_open) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("sums".into())
            .spawn(move || match open() {
                Ok(sum) => {
                    let _ = opened.send(Ok(()));
                    serve(&given, sum);
                }
                Err(failure) => drop(opened.send(Err(failure))),
            })
            .context(|| "cannot start the thread that sums over the ranks")?;
        is_open.recv().context(|| "the thread that sums over the ranks has panicked")??;
        Ok(Self { work: Some(work), thread: Some(thread) })
    }

    /// Starts to replace the contents of `tensor` by its sum over the ranks.
    pub(super) fn sum(&self, tensor: Tensor) {
        self.give(Work::Sum(tensor));
    }

    /// Waits until all sums are done. Where one panicked, so does this.
    pub(super) fn finish(&self) {
        let (tell, told) = mpsc::channel();
        self.give(Work::Tell(tell));
        if let Ok(Err(panic)) = told.recv() {
            resume_unwind(panic);
        }
    }

    /// The thread takes work for as long as this lives.
    fn give(&self, work: Work) {
        if let Some(sender) = &self.work {
            let _ = sender.send(work);
        }
    }
}

fn serve(given: &Receiver<Work>, mut sum: Sum) {
    let mut panic = None;
    for work in given {
        match work {
            Work::Sum(tensor) if panic.is_none() => {
                panic = catch_unwind(AssertUnwindSafe(|| sum(&tensor))).err();
            }
            // After a failed one nobody knows which sum another rank is in.
            Work::Sum(_) => {}
            Work::Tell(tell) => drop(tell.send(panic.take().map_or(Ok(()), Err))),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.work.take());
        if matches!(self.thread.take().map(JoinHandle::join), Some(Err(_))) {
            tracing::warn!("the thread that sums over the ranks has panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;
    use std::time::Duration;

    #[test]
    fn sums_go_on_in_order_while_the_caller_does_and_are_done_after_finish() {
        let doubles = || {
            Ok(Box::new(|tensor: &Tensor| {
                std::thread::sleep(Duration::from_millis(20));
                let _ = tensor.shallow_clone().g_mul_scalar_(2.0);
            }) as Sum)
        };
        let background = Background::start(doubles).unwrap();
        let tensor = Tensor::from(1.0f32);
        background.sum(tensor.shallow_clone());
        background.sum(tensor.shallow_clone());
        background.finish();
        assert_eq!(tensor, Tensor::from(4.0f32));
        background.finish();
    }

    #[test]
    fn a_failed_sum_panics_where_it_is_waited_for_and_stops_those_behind_it() {
        let fails = || Ok(Box::new(|_: &Tensor| -> () { resume_unwind(Box::new("torn")) }) as Sum);
        let background = Background::start(fails).unwrap();
        background.sum(Tensor::from(1.0f32));
        background.sum(Tensor::from(1.0f32));
        let panic = catch_unwind(AssertUnwindSafe(|| background.finish())).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"torn"));
    }

    #[test]
    fn what_cannot_be_opened_is_told_to_the_one_who_asked() {
        let failure = Background::start(|| Err(Failure::new("no way"))).map(|_| ()).unwrap_err();
        assert_eq!(failure.message(), "no way");
    }
}
