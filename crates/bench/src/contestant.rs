//! What takes turns with ours: a variant of the peer, or another runner of ours.

use anyhow::Result;
use candle_core::Device;

use crate::case::Runner;
use crate::measure::{self, PAUSE, median};
use crate::peer::{Peer, PeerMemory};

/// A variant on its way through the rounds.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    /// Where it runs, as an index; all the same unless each has a process of its own.
    pub(crate) peer: usize,
    /// What runs, where it is ours and no peer's.
    pub(crate) rival: Option<Box<dyn Runner>>,
    pub(crate) estimate: f64,
    pub(crate) times: Vec<f64>,
    pub(crate) memory: PeerMemory,
    /// Why it has no turns.
    pub(crate) note: Option<String>,
    /// How near its pictures are to ours.
    pub(crate) decibels: Option<f64>,
}

impl Contestant {
    /// One of the peer of this index.
    pub(crate) fn new(name: &'static str, peer: usize) -> Self {
        let (estimate, times, memory) = (0.0, Vec::new(), PeerMemory::default());
        Self { name, peer, rival: None, estimate, times, memory, note: None, decibels: None }
    }

    /// Seconds of a run, after one that is not counted.
    pub(crate) fn estimate(&mut self, peers: &mut [Peer], device: &Device) -> Result<f64> {
        match &mut self.rival {
            Some(runner) => {
                measure::time(runner.as_mut(), device, 1)?;
                measure::time(runner.as_mut(), device, 1)
            }
            None => Ok(median(&peers[self.peer].time(self.name, 1, true)?)),
        }
    }

    /// Seconds of a run, over a turn.
    pub(crate) fn turn(&mut self, peers: &mut [Peer], device: &Device) -> Result<f64> {
        if let Some(runner) = &mut self.rival {
            return measure::turn(runner.as_mut(), device, self.estimate);
        }
        std::thread::sleep(PAUSE);
        let peer = &mut peers[self.peer];
        let repeats = measure::repeats(self.estimate, peer.together);
        Ok(median(&peer.time(self.name, repeats, measure::warms_up(self.estimate))?))
    }
}

/// The variant with the least median time: of the peer's, where there is one, else of ours.
pub(crate) fn best(contestants: &[Contestant]) -> Option<usize> {
    let of = |ours: bool| {
        let timed = contestants.iter().enumerate().filter(|(_, c)| !c.times.is_empty() && c.rival.is_some() == ours);
        timed.min_by(|(_, a), (_, b)| median(&a.times).total_cmp(&median(&b.times))).map(|(i, _)| i)
    };
    of(false).or_else(|| of(true))
}
