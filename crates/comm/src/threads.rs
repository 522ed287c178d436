//! Ranks as threads of one process.
//!
//! [`run`] starts the ranks, each on a standard thread of its own (never a task of a pool: a rank waits for the others,
//! and a waiting task would block the pool), and hands each its end of the collective.
//!
//! The first rank that fails, panics, or returns while others wait for it ends the run: each of the others gets an error
//! at its next collective, at once if it already waits in one.

use std::fmt::{self, Debug, Display};
use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use crate::Collective;
use room::{Call, Room};

mod room;

/// Why a run of ranks ended: the first rank that failed, with its own error.
#[derive(Debug)]
pub enum RankError<E> {
    /// The rank returned an error.
    Failed {
        /// Which rank.
        rank: usize,
        /// What it returned.
        error: E,
    },
    /// The rank panicked.
    Panicked {
        /// Which rank.
        rank: usize,
        /// The panic's message.
        message: String,
    },
    /// The rank's thread could not be started.
    Spawn(std::io::Error),
}

impl<E: Display> Display for RankError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { rank, error } => write!(f, "rank {rank}: {error}"),
            Self::Panicked { rank, message } => write!(f, "rank {rank} panicked: {message}"),
            Self::Spawn(error) => write!(f, "cannot start a thread for a rank: {error}"),
        }
    }
}

impl<E: Display + Debug> std::error::Error for RankError<E> {}

/// Runs `body` on `size` ranks and returns what each returned, in the order of the ranks.
///
/// # Errors
/// The error or panic of the rank that failed first; the errors that it caused in others are dropped.
pub fn run<T, E, F>(size: usize, body: F) -> std::result::Result<Vec<T>, RankError<E>>
where
    T: Send,
    E: Send + Display,
    F: Fn(Arc<dyn Collective>) -> std::result::Result<T, E> + Sync,
{
    let room = Arc::new(Room::new(size));
    let mut failures = Vec::new();
    let mut results = Vec::with_capacity(size);
    std::thread::scope(|scope| {
        let mut handles = Vec::with_capacity(size);
        for rank in 0..size {
            let (own, body) = (room.clone(), &body);
            let thread = std::thread::Builder::new().name(format!("rank-{rank}"));
            let spawned = thread.spawn_scoped(scope, move || one_rank(&own, rank, body));
            match spawned {
                Ok(handle) => handles.push((rank, handle)),
                Err(error) => {
                    room.fail(rank, error.to_string());
                    failures.push((rank, RankError::Spawn(error)));
                    break;
                }
            }
        }
        for (rank, handle) in handles {
            match handle.join() {
                Ok(Ok(result)) => results.push(result),
                Ok(Err(error)) => failures.push((rank, RankError::Failed { rank, error })),
                Err(panic) => {
                    failures.push((rank, RankError::Panicked { rank, message: message_of(panic.as_ref()) }));
                }
            }
        }
    });
    let culprit = room.culprit();
    let first = failures.iter().position(|(rank, _)| Some(*rank) == culprit).unwrap_or(0);
    if failures.is_empty() { Ok(results) } else { Err(failures.swap_remove(first).1) }
}

fn one_rank<T, E: Display>(
    room: &Arc<Room>,
    rank: usize,
    body: impl Fn(Arc<dyn Collective>) -> std::result::Result<T, E>,
) -> std::result::Result<T, E> {
    /// Tells the others when this rank's thread unwinds.
    struct OnPanic<'a>(&'a Room, usize);
    impl Drop for OnPanic<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.fail(self.1, "it panicked".into());
            }
        }
    }
    let _guard = OnPanic(room, rank);
    let result = body(Arc::new(Rank { rank, room: room.clone() }));
    match &result {
        Ok(_) => room.leave(rank),
        Err(error) => room.fail(rank, error.to_string()),
    }
    result
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
}

/// One rank's end.
#[derive(Debug)]
struct Rank {
    rank: usize,
    room: Arc<Room>,
}

impl Collective for Rank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.room.size()
    }

    fn all_reduce_sum(&self, x: &Tensor) -> Result<Tensor> {
        self.room.meet(self.rank, Call::AllReduceSum, Some(x))
    }

    fn all_gather(&self, x: &Tensor) -> Result<Tensor> {
        if x.rank() == 0 {
            bail!("all_gather needs rows, but its tensor has no dimension");
        }
        self.room.meet(self.rank, Call::AllGather, Some(x))
    }

    fn broadcast(&self, x: &Tensor, root: usize) -> Result<Tensor> {
        if root >= self.size() {
            bail!("broadcast from rank {root}, but there are {} ranks", self.size());
        }
        self.room.meet(self.rank, Call::Broadcast { root }, Some(x))
    }

    fn barrier(&self) -> Result<()> {
        self.room.meet(self.rank, Call::Barrier, None).map(drop)
    }
}
