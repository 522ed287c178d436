//! The machine behind loader and evaluation: threads of its own make samples, batches come out in order.
//!
//! The unit of work is a few samples of one batch, so that all threads work on the batch that is needed first. A batch
//! lives in a slot from when its first sample is begun until it is taken; there are never more slots than `prefetch`, which
//! holds the threads back. What a batch contains depends on its step alone, never on the threads.
//!
//! The threads are plain ones: a shared pool would put decoding between the parts of a matrix product.

use std::any::Any;
use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::DataError;

/// Samples that a thread makes before it looks for the most urgent work again.
const CHUNK: usize = 8;

/// The samples of one step.
pub(crate) struct Plan {
    pub(crate) epoch: u64,
    pub(crate) indices: Vec<u32>,
}

/// What is to be made.
pub(crate) trait Job: Send + Sync + 'static {
    /// One finished sample.
    type Item: Send;
    /// One finished batch.
    type Out: Send;
    /// The samples of a step, counted from zero at the pipeline's start; `None` past the last.
    fn plan(&self, step: u64) -> Option<Plan>;
    /// Makes one sample.
    fn sample(&self, epoch: u64, index: u32) -> Result<Self::Item, DataError>;
    /// Makes the batch of its samples, which come in the plan's order.
    fn assemble(&self, items: Vec<Self::Item>) -> Result<Self::Out, DataError>;
}

/// A batch in the making.
struct Slot<J: Job> {
    plan: Arc<Plan>,
    chunks: Vec<Vec<J::Item>>,
    /// Chunks given to a thread.
    begun: usize,
    /// Chunks not yet back.
    missing: usize,
    out: Option<J::Out>,
}

struct State<J: Job> {
    slots: VecDeque<Slot<J>>,
    /// The step of the first slot.
    first: u64,
    /// Whether the last step has its slot.
    planned_all: bool,
    error: Option<DataError>,
}

struct Shared<J: Job> {
    job: Arc<J>,
    prefetch: usize,
    stop: AtomicBool,
    state: Mutex<State<J>>,
    /// There may be work, or it is time to stop.
    work: Condvar,
    /// A batch is done, or there is an error, or there are no more.
    done: Condvar,
}

/// Threads at work on a job; dropping it ends them after the sample that each is at.
pub(crate) struct Pipeline<J: Job> {
    shared: Arc<Shared<J>>,
    threads: Vec<JoinHandle<()>>,
}

impl<J: Job> Pipeline<J> {
    /// Starts `workers` threads, which keep up to `prefetch` batches ready or in the making (both at least 1).
    pub(crate) fn start(job: Arc<J>, workers: usize, prefetch: usize) -> Result<Self, DataError> {
        let state = State { slots: VecDeque::new(), first: 0, planned_all: false, error: None };
        let shared = Arc::new(Shared {
            job,
            prefetch: prefetch.max(1),
            stop: AtomicBool::new(false),
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        let mut pipeline = Self { shared, threads: Vec::new() };
        for i in 0..workers.max(1) {
            let shared = pipeline.shared.clone();
            let thread = std::thread::Builder::new()
                .name(format!("data-{i}"))
                .spawn(move || shared.run())
                .map_err(|error| DataError::Worker(format!("thread {i} of data.workers cannot be started: {error}")))?;
            pipeline.threads.push(thread);
        }
        Ok(pipeline)
    }

    /// The next batch, in order; `None` after the last one or after an error.
    pub(crate) fn next(&self) -> Option<Result<J::Out, DataError>> {
        let mut state = self.shared.lock();
        loop {
            if let Some(error) = state.error.take() {
                self.shared.stop.store(true, Ordering::Relaxed);
                self.shared.work.notify_all();
                return Some(Err(error));
            }
            if self.shared.stop.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(out) = state.slots.front_mut().and_then(|slot| slot.out.take()) {
                state.slots.pop_front();
                state.first += 1;
                self.shared.work.notify_all();
                return Some(Ok(out));
            }
            if state.planned_all && state.slots.is_empty() {
                return None;
            }
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<J: Job> Drop for Pipeline<J> {
    fn drop(&mut self) {
        {
            // Under the lock: a thread is either before its look at the flag, or waiting and woken.
            let _state = self.shared.lock();
            self.shared.stop.store(true, Ordering::Relaxed);
        }
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A panic in a job was caught and handed over; there is nothing more to learn here.
            let _ = thread.join();
        }
    }
}

impl<J: Job> Shared<J> {
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's life.
    fn run(&self) {
        while let Some((step, chunk, plan)) = self.take() {
            let result = catch_unwind(AssertUnwindSafe(|| self.make(step, chunk, &plan)))
                .unwrap_or_else(|panic| Err(DataError::Worker(message(&*panic))));
            if let Err(error) = result {
                // The first error is the one to report: others may be its consequences.
                self.lock().error.get_or_insert(error);
                self.done.notify_all();
            }
        }
    }

    /// Waits for the most urgent work; `None` when it is time to stop.
    fn take(&self) -> Option<(u64, usize, Arc<Plan>)> {
        let mut state = self.lock();
        loop {
            if self.stop.load(Ordering::Relaxed) || state.error.is_some() {
                return None;
            }
            let first = state.first;
            if let Some((i, slot)) = state.slots.iter_mut().enumerate().find(|(_, slot)| slot.begun < slot.chunks.len())
            {
                slot.begun += 1;
                return Some((first + i as u64, slot.begun - 1, slot.plan.clone()));
            }
            if !state.planned_all && state.slots.len() < self.prefetch {
                let step = first + state.slots.len() as u64;
                match self.job.plan(step).filter(|plan| !plan.indices.is_empty()) {
                    Some(plan) => {
                        let chunks = plan.indices.len().div_ceil(CHUNK);
                        let slot = Slot {
                            plan: Arc::new(plan),
                            chunks: (0..chunks).map(|_| Vec::new()).collect(),
                            begun: 0,
                            missing: chunks,
                            out: None,
                        };
                        state.slots.push_back(slot);
                        self.work.notify_all();
                    }
                    None => {
                        state.planned_all = true;
                        self.done.notify_all();
                    }
                }
                continue;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes the samples of one chunk, and the batch if it was the last one missing.
    fn make(&self, step: u64, chunk: usize, plan: &Plan) -> Result<(), DataError> {
        let range: Range<usize> = chunk * CHUNK..plan.indices.len().min((chunk + 1) * CHUNK);
        let mut items = Vec::with_capacity(range.len());
        for &index in &plan.indices[range] {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            items.push(self.job.sample(plan.epoch, index)?);
        }
        let chunks = {
            let mut state = self.lock();
            let Some(slot) = state.slot(step) else { return Ok(()) };
            slot.chunks[chunk] = items;
            slot.missing -= 1;
            if slot.missing > 0 {
                return Ok(());
            }
            // Stays at its length, so that no chunk is given out again.
            slot.chunks.iter_mut().map(std::mem::take).collect::<Vec<_>>()
        };
        let out = self.job.assemble(chunks.into_iter().flatten().collect())?;
        if let Some(slot) = self.lock().slot(step) {
            slot.out = Some(out);
        }
        self.done.notify_all();
        Ok(())
    }
}

impl<J: Job> State<J> {
    fn slot(&mut self, step: u64) -> Option<&mut Slot<J>> {
        let i = step.checked_sub(self.first)?;
        self.slots.get_mut(i as usize)
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".into())
}
