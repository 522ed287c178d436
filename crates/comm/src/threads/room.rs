//! Where the ranks meet: one call at a time, all ranks in it.
//!
//! A round has two halves. Arriving: each rank lays down its tensor; the last one computes the result. Leaving: each takes
//! a copy; the last one clears the table. A rank that is early for the next round waits until the table is clear.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use candle_core::{Device, Result, Tensor, bail};

/// Which collective a rank calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Call {
    AllReduceSum,
    AllGather,
    Broadcast { root: usize },
    Barrier,
}

/// The meeting point of all ranks.
#[derive(Debug)]
pub(super) struct Room {
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Debug)]
struct Table {
    /// What each rank has laid down in this round.
    arrived: Vec<Option<(Call, Option<Tensor>)>>,
    /// The round's result, from the last arrival to the last departure.
    result: Option<Tensor>,
    /// How many ranks have taken the result.
    taken: usize,
    /// Which ranks have returned and will not come again.
    gone: Vec<bool>,
    /// The first failure: whose, and why.
    failure: Option<(usize, String)>,
}

impl Room {
    pub(super) fn new(size: usize) -> Self {
        let arrived = (0..size).map(|_| None).collect();
        let table = Table { arrived, result: None, taken: 0, gone: vec![false; size], failure: None };
        Self { table: Mutex::new(table), changed: Condvar::new() }
    }

    pub(super) fn size(&self) -> usize {
        self.table().gone.len()
    }

    /// The rank that failed first.
    pub(super) fn culprit(&self) -> Option<usize> {
        self.table().failure.as_ref().map(|(rank, _)| *rank)
    }

    /// Ends the run: every rank that waits, or comes later, gets an error with this reason.
    pub(super) fn fail(&self, rank: usize, why: String) {
        self.table().failure.get_or_insert((rank, why));
        self.changed.notify_all();
    }

    /// This rank has returned; whoever waits for it fails.
    pub(super) fn leave(&self, rank: usize) {
        self.table().gone[rank] = true;
        self.changed.notify_all();
    }

    /// One call of one rank: waits for all ranks and returns this rank's own copy of the result.
    pub(super) fn meet(&self, rank: usize, call: Call, x: Option<&Tensor>) -> Result<Tensor> {
        let x = x.map(|x| x.detach().contiguous()).transpose()?;
        let mut table = self.wait(rank, call, self.table(), |table| table.result.is_none())?;
        table.arrived[rank] = Some((call, x));
        if table.arrived.iter().all(Option::is_some) {
            match combine(&table.arrived) {
                Ok(result) => table.result = Some(result),
                Err(error) => {
                    table.failure.get_or_insert((rank, error.to_string()));
                    self.changed.notify_all();
                    return Err(error);
                }
            }
            self.changed.notify_all();
        }
        let mut table = self.wait(rank, call, table, |table| table.result.is_some())?;
        let result = table.result.clone();
        table.taken += 1;
        if table.taken == table.gone.len() {
            table.taken = 0;
            table.result = None;
            table.arrived.iter_mut().for_each(|slot| *slot = None);
            self.changed.notify_all();
        }
        drop(table);
        match result {
            // A copy of its own: a rank may change its result in place while others still read theirs.
            Some(result) => result.force_contiguous(),
            None => bail!("{call:?}: the result is gone before rank {rank} took it"),
        }
    }

    /// Waits until `ready`, or until it can no longer come true.
    fn wait<'a>(
        &self,
        rank: usize,
        call: Call,
        mut table: MutexGuard<'a, Table>,
        ready: impl Fn(&Table) -> bool,
    ) -> Result<MutexGuard<'a, Table>> {
        loop {
            if let Some((culprit, why)) = &table.failure {
                bail!("rank {rank} stops in {call:?}, because rank {culprit} failed: {why}");
            }
            if ready(&table) {
                return Ok(table);
            }
            // In the leaving half everybody has arrived, and who takes the result and returns is not missed.
            let missed = |&other: &usize| table.gone[other] && table.arrived[other].is_none();
            if let Some(other) = (0..table.gone.len()).find(missed).filter(|_| table.result.is_none()) {
                let why = format!("rank {rank} waits in {call:?} for rank {other}, which has returned");
                table.failure = Some((rank, why.clone()));
                self.changed.notify_all();
                bail!("{why}: all ranks must call the same collectives");
            }
            table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A rank that panicked inside left the table readable, and `failure` says what happened.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The result of a round in which all ranks have arrived.
fn combine(arrived: &[Option<(Call, Option<Tensor>)>]) -> Result<Tensor> {
    let calls: Vec<_> = arrived.iter().flatten().collect();
    let Some((call, first)) = calls.first() else { bail!("a collective without ranks") };
    for (rank, (other_call, other)) in calls.iter().enumerate() {
        let same = match (first, other) {
            (Some(a), Some(b)) => a.shape() == b.shape() && a.dtype() == b.dtype(),
            (a, b) => a.is_none() && b.is_none(),
        };
        if call != other_call || !same {
            let (mine, its) = (describe(call, first.as_ref()), describe(other_call, other.as_ref()));
            bail!("rank 0 calls {mine}, but rank {rank} calls {its}: all ranks must make the same calls");
        }
    }
    let mut tensors = calls.iter().filter_map(|(_, x)| x.as_ref());
    match (call, tensors.next()) {
        // In the order of the ranks, so that the sum is the same bit for bit each time.
        (Call::AllReduceSum, Some(first)) => tensors.try_fold(first.clone(), |sum, x| sum.add(x)),
        (Call::AllGather, Some(first)) => {
            let all: Vec<&Tensor> = std::iter::once(first).chain(tensors).collect();
            Tensor::cat(&all, 0)
        }
        (Call::Broadcast { root }, Some(_)) => match &calls[*root].1 {
            Some(x) => Ok(x.clone()),
            None => bail!("broadcast without a tensor"),
        },
        _ => Tensor::new(0u8, &Device::Cpu),
    }
}

fn describe(call: &Call, x: Option<&Tensor>) -> String {
    match x {
        Some(x) => format!("{call:?} with {:?} {:?}", x.dtype(), x.dims()),
        None => format!("{call:?}"),
    }
}
