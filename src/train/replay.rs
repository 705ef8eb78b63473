//! Steps that are recorded once and replayed: one call to the GPU in place of a thousand.
//!
//! Steps of one form do the same work on the same memory, with other numbers in it. On a CPU, where
//! there is nothing to save, a replayed step is computed again from what was recorded of it, so that
//! everything but the recording itself is the same. Knows the trait [`Method`] and no method.

use super::context::StepContext;
use super::learner::Learner;
use super::method::{Method, step_in_parts};
use super::point::{StepNumbers, StepPoint};
use super::report::StepReport;
use crate::comm::{Ranks, agree};
use crate::config::GraphChoice;
use crate::data::batch::Batch;
use crate::error::Result;
use crate::native::cuda::Graph;
use crate::runlog::{Level, RunEvent};
use std::rc::Rc;
use tch::Device;

/// Steps of a form before one is recorded: libtorch chooses its algorithms in the first ones, and ranks
/// agree on the order of their gradients.
const WARM_UP: u32 = 3;
/// Forms that are kept: steps of so many are hardly ever replayed.
const MOST_FORMS: usize = 64;

/// All recorded steps of a run on one rank.
pub struct Replay {
    forms: Vec<Form>,
    /// Where steps compute; none once they cannot be replayed.
    device: Option<Device>,
    /// Whether somebody asked for it.
    is_wanted: bool,
    news: Option<RunEvent>,
    /// Why not all steps are replayed, where it is known.
    reason: Option<String>,
    in_a_row: u32,
}

/// What a step does.
#[derive(PartialEq)]
struct Work {
    /// That of the method.
    form: u32,
    /// Whether the numbers of the step are read.
    logged: bool,
    /// The samples of each micro-batch: the last batch of an epoch may be smaller.
    samples: Vec<usize>,
}

/// Steps that do the same work.
struct Form {
    work: Work,
    /// How many were computed as they came.
    warm: u32,
    /// The most numbers that varied in one of them.
    numbers: usize,
    recording: Option<Recording>,
}

/// A recorded step.
struct Recording {
    /// None on a CPU.
    graph: Option<Graph>,
    /// What is learnt from: their memory gets the contents of every further step's.
    batches: Vec<Batch>,
    numbers: Rc<StepNumbers>,
    /// What every replay reports anew in the same place.
    report: StepReport,
    /// How often each learner was updated in it.
    updates: Vec<u64>,
    /// Goes last: NCCL ends only after all graphs that hold sums of it, and no rank leaves it before.
    _ranks: Ranks,
}

/// A step that is due.
pub struct PendingStep<'a> {
    /// This rank's part of the batch, in its micro-batches.
    pub batches: Vec<Batch>,
    /// Where in the run.
    pub point: StepPoint,
    /// Whether its numbers will be read.
    pub logged: bool,
    /// All ranks.
    pub communicator: &'a Ranks,
}

impl PendingStep<'_> {
    /// What the step does; none where it is like no other.
    fn work(&self, method: &dyn Method) -> Option<Work> {
        let samples = self.batches.iter().map(|batch| batch.global_size).collect();
        Some(Work { form: method.form(&self.point)?, logged: self.logged, samples })
    }
}

/// Computes a step.
pub fn compute(method: &mut dyn Method, due: &PendingStep<'_>) -> Result<StepReport> {
    compute_with(method, &due.batches, due, &Rc::new(StepNumbers::of(due.point)))
}

fn compute_with(
    method: &mut dyn Method,
    batches: &[Batch],
    due: &PendingStep<'_>,
    numbers: &Rc<StepNumbers>,
) -> Result<StepReport> {
    let mut cx = StepContext::with(Rc::clone(numbers), due.communicator);
    cx.logged = due.logged;
    step_in_parts(method, batches, &mut cx)?;
    Ok(cx.into_report())
}

fn updates_of(method: &dyn Method) -> Vec<u64> {
    method.learners().into_iter().map(Learner::updates).collect()
}

impl Replay {
    /// Nothing is recorded yet; steps compute on `device`. None where they are not to be replayed: on a CPU
    /// there is nothing to gain.
    pub fn chosen(choice: GraphChoice, device: Device) -> Option<Self> {
        let is_wanted = choice == GraphChoice::Always;
        let is_tried = choice == GraphChoice::Auto && device != Device::Cpu;
        (is_wanted || is_tried).then(|| Self {
            forms: Vec::new(),
            device: Some(device),
            is_wanted,
            news: None,
            reason: None,
            in_a_row: 0,
        })
    }

    /// Forgets all recordings, which count updates from where they were.
    pub fn forget(&mut self) {
        self.forms.clear();
    }

    /// What a user should know, once: a warning to who asked for replayed steps.
    pub fn take_news(&mut self) -> Option<RunEvent> {
        self.news.take()
    }

    /// How many of the last steps were replayed, one after the other.
    pub fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    /// Why steps are not replayed, where it is known.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Computes or replays a step.
    pub fn step(&mut self, method: &mut dyn Method, due: PendingStep<'_>) -> Result<StepReport> {
        let before = std::mem::take(&mut self.in_a_row);
        let Some(device) = self.device else { return compute(method, &due) };
        let Some(work) = due.work(method) else {
            self.give_up("steps of this method do not all do the same work");
            return compute(method, &due);
        };
        let is_new = self.forms.iter().all(|form| form.work != work);
        if is_new && self.forms.len() == MOST_FORMS {
            self.tell(&format!(
                "steps do more than {MOST_FORMS} kinds of work; others are computed"
            ));
            return compute(method, &due);
        }
        let form = self.form(work);
        if let Some(recording) = &mut form.recording {
            if !recording.take_in(&due.batches) {
                return compute(method, &due);
            }
            let report = recording.replay(method, &due);
            self.in_a_row = before + 1;
            return report;
        }
        if form.warm < WARM_UP {
            let numbers = Rc::new(StepNumbers::of(due.point));
            let report = compute_with(method, &due.batches, &due, &numbers)?;
            form.warm += 1;
            form.numbers = form.numbers.max(numbers.used());
            return Ok(report);
        }
        let numbers = Rc::new(StepNumbers::kept(due.point, form.numbers, device));
        if device == Device::Cpu {
            self.remember(method, due, numbers)
        } else {
            self.record(method, due, numbers)
        }
    }

    /// That of steps that do `work`, with what is known of it.
    fn form(&mut self, work: Work) -> &mut Form {
        let known = self.forms.iter().position(|form| form.work == work);
        let place = known.unwrap_or(self.forms.len());
        if known.is_none() {
            self.forms.push(Form { work, warm: 0, numbers: 0, recording: None });
        }
        &mut self.forms[place]
    }

    fn give_up(&mut self, reason: &str) {
        self.tell(&format!("{reason}; they are computed one by one"));
        self.device = None;
        self.forms.clear();
    }

    /// Remembers why steps are not replayed, and tells it if nothing was told before.
    fn tell(&mut self, reason: &str) {
        if self.reason.is_some() {
            return;
        }
        let message = format!("`train.graph`: {reason}");
        self.news = Some(if self.is_wanted {
            RunEvent::Warning { message }
        } else {
            RunEvent::Log { level: Level::Info, message }
        });
        self.reason = Some(reason.to_owned());
    }

    /// Computes a step on a CPU, which is its own recording.
    fn remember(
        &mut self,
        method: &mut dyn Method,
        mut due: PendingStep<'_>,
        numbers: Rc<StepNumbers>,
    ) -> Result<StepReport> {
        let report = compute_with(method, &due.batches, &due, &numbers)?;
        let work = due.work(method);
        let batches = std::mem::take(&mut due.batches);
        let recording = Recording {
            graph: None,
            batches,
            numbers,
            report: StepReport::default(),
            updates: Vec::new(),
            _ranks: due.communicator.clone(),
        };
        self.keep(work, recording);
        Ok(report)
    }

    /// Records a step on a GPU and replays it. Where one rank cannot record it, no rank replays: all compute.
    fn record(
        &mut self,
        method: &mut dyn Method,
        mut due: PendingStep<'_>,
        numbers: Rc<StepNumbers>,
    ) -> Result<StepReport> {
        let before = updates_of(method);
        let mut graphs = self.forms.iter().filter_map(|form| form.recording.as_ref());
        let pool = graphs.find_map(|recording| recording.graph.as_ref());
        let recorded = Graph::record(pool, || {
            Ok(compute_with(method, &due.batches, &due, &numbers)?.gathered())
        });
        // What one rank computes while another replays it need not add up to the same bits on both.
        let recorded = agree(&**due.communicator, recorded);
        let after = updates_of(method);
        // Nothing has been updated yet.
        for (learner, updates) in method.learners().into_iter().zip(&before) {
            learner.restore_updates(*updates);
        }
        let (graph, report) = match recorded {
            Ok(recorded) => recorded,
            Err(failure) => {
                self.give_up(&format!("steps cannot be recorded: {}", failure.message()));
                return compute(method, &due);
            }
        };
        let updates = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        let work = due.work(method);
        let batches = std::mem::take(&mut due.batches);
        let ranks = due.communicator.clone();
        let recording =
            Recording { graph: Some(graph), batches, numbers, report, updates, _ranks: ranks };
        let report = recording.replay(method, &due)?;
        self.keep(work, recording);
        Ok(report)
    }

    fn keep(&mut self, work: Option<Work>, recording: Recording) {
        if let Some(work) = work {
            self.form(work).recording = Some(recording);
        }
    }
}

impl Recording {
    /// Copies the contents of `batches` over its own; false where they are not of one shape.
    fn take_in(&mut self, batches: &[Batch]) -> bool {
        let fits = self.batches.len() == batches.len()
            && self.batches.iter().zip(batches).all(|(own, batch)| own.is_like(batch));
        if fits {
            self.batches.iter_mut().zip(batches).for_each(|(own, batch)| own.take_in(batch));
        }
        fits
    }

    fn replay(&self, method: &mut dyn Method, due: &PendingStep<'_>) -> Result<StepReport> {
        self.numbers.renew(&due.point);
        let Some(graph) = &self.graph else {
            return compute_with(method, &self.batches, due, &self.numbers);
        };
        graph.replay()?;
        for (learner, updates) in method.learners().into_iter().zip(&self.updates) {
            learner.restore_updates(learner.updates() + updates);
        }
        Ok(self.report.gathered())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::{Communicator, Solo, TensorSums, threads};
    use crate::error::{Exit, Failure};
    use crate::native::GroupSum;
    use crate::random::Key;
    use crate::train::ForwardMode;
    use std::cell::{Cell, RefCell};
    use std::rc::Weak;
    use std::sync::Arc;
    use tch::Tensor;

    /// A method whose steps do nothing but count.
    struct Counting(u32);

    impl Method for Counting {
        fn form(&self, _point: &StepPoint) -> Option<u32> {
            Some(0)
        }
        fn step(&mut self, _batch: &Batch, _cx: &mut StepContext<'_>) -> Result<()> {
            self.0 += 1;
            Ok(())
        }
        fn forward(&self, image: &Tensor, _mode: ForwardMode) -> Result<Tensor> {
            Ok(image.shallow_clone())
        }
        fn learners(&self) -> Vec<&Learner> {
            Vec::new()
        }
    }

    fn point(step: u64) -> StepPoint {
        StepPoint::new(step, 10, Key::new(3))
    }

    fn due(step: u64, communicator: &Ranks) -> PendingStep<'_> {
        PendingStep { batches: Vec::new(), point: point(step), logged: false, communicator }
    }

    thread_local! {
        /// The numbers of a recording that is watched.
        static NUMBERS: RefCell<Weak<StepNumbers>> = RefCell::default();
        /// Whether they were gone when its ranks went, once these have.
        static FIRST_GONE: Cell<Option<bool>> = const { Cell::new(None) };
    }

    /// Notes when it goes.
    struct Noting;

    impl Drop for Noting {
        fn drop(&mut self) {
            let gone = NUMBERS.with_borrow(|numbers| numbers.upgrade().is_none());
            FIRST_GONE.set(Some(gone));
        }
    }

    impl GroupSum for Noting {
        fn ranks(&self) -> usize {
            1
        }
        fn sum(&self, _tensor: &Tensor) {}
    }

    impl TensorSums for Noting {
        fn broadcast(&self, root: usize, tensor: &Tensor) -> Result<()> {
            Solo.broadcast(root, tensor)
        }
    }

    impl Communicator for Noting {
        fn rank(&self) -> usize {
            0
        }
        fn ranks(&self) -> usize {
            1
        }
        fn barrier(&self) -> Result<()> {
            Ok(())
        }
        fn max(&self, value: i64) -> Result<i64> {
            Ok(value)
        }
        fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
            Solo.gather(message)
        }
        fn abort(&self, exit: Exit) -> ! {
            Solo.abort(exit)
        }
    }

    /// NCCL waits for recorded sums when it ends: with the ranks gone first, a run would never end.
    #[test]
    fn ranks_outlive_what_was_recorded_of_their_sums() {
        let ranks = Ranks::of(Arc::new(Noting));
        let mut replay = Replay::chosen(GraphChoice::Always, Device::Cpu).unwrap();
        for step in 1..=u64::from(WARM_UP) + 1 {
            replay.step(&mut Counting(0), due(step, &ranks)).unwrap();
        }
        let recording = replay.forms[0].recording.as_ref().unwrap();
        NUMBERS.set(Rc::downgrade(&recording.numbers));
        drop(ranks);
        assert_eq!(FIRST_GONE.get(), None);
        drop(replay);
        assert_eq!(FIRST_GONE.get(), Some(true));
    }

    #[test]
    fn where_steps_cannot_be_recorded_all_ranks_compute_them_and_say_so_once() {
        let outcomes = threads::run(2, |ranks| {
            let mut method = Counting(0);
            let mut replay = Replay::chosen(GraphChoice::Always, Device::Cuda(0)).unwrap();
            // No machine records what is enqueued on no GPU.
            let numbers = Rc::new(StepNumbers::kept(point(4), 0, Device::Cpu));
            replay.record(&mut method, due(4, &ranks), numbers)?;
            let news = replay.take_news();
            replay.step(&mut method, due(5, &ranks))?;
            assert!(replay.forms.is_empty() && replay.take_news().is_none());
            news.ok_or_else(|| Failure::new("nothing was said"))
        });
        for outcome in outcomes {
            let RunEvent::Warning { message } = outcome.unwrap() else { panic!("no warning") };
            assert!(message.starts_with("`train.graph`: steps cannot be recorded: "), "{message}");
        }
    }

    #[test]
    fn steps_are_replayed_where_that_was_asked_for_and_on_gpus_unless_it_was_refused() {
        use GraphChoice::{Always, Auto, Never};
        let is_tried = |choice| {
            [Device::Cpu, Device::Cuda(0)].map(|device| Replay::chosen(choice, device).is_some())
        };
        assert_eq!([Always, Auto, Never].map(is_tried), [[true; 2], [false, true], [false; 2]]);
    }

    #[test]
    fn who_asked_for_replayed_steps_is_warned_and_others_are_told_once() {
        for (choice, is_warning) in [(GraphChoice::Always, true), (GraphChoice::Auto, false)] {
            let mut replay = Replay::chosen(choice, Device::Cuda(0)).unwrap();
            assert!(replay.reason().is_none() && replay.take_news().is_none());
            replay.give_up("they differ");
            let message = "`train.graph`: they differ; they are computed one by one".to_owned();
            let level = Level::Info;
            let expected = if is_warning {
                RunEvent::Warning { message }
            } else {
                RunEvent::Log { level, message }
            };
            assert_eq!(replay.take_news(), Some(expected));
            assert_eq!(replay.reason(), Some("they differ; they are computed one by one"));
            replay.give_up("they differ again");
            assert_eq!(replay.take_news(), None);
        }
    }
}
