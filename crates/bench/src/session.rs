//! One call: every case is checked against the peer, then timed in turns with it.

use anyhow::{Context, Result, anyhow};
use candle_core::Device;
use serde_json::Value;

use crate::case::{Case, Memory, Precision, Runner, Tensors};
use crate::compare;
use crate::machine::Machine;
use crate::measure::{self, PAUSE, median};
use crate::memory;
use crate::peer::{Launcher, Peer, PeerMemory, Unsupported};
use crate::report::{Row, Variant};

/// A variant that is this much slower than the best after [`TRIAL`] rounds has no more turns, where turns are long.
const HOPELESS: f64 = 1.25;
const TRIAL: usize = 3;
/// A run that takes longer than this is long, in seconds.
const LONG: f64 = 0.5;

/// What all cases of a call share.
pub(crate) struct Session<'a> {
    pub(crate) launcher: &'a dyn Launcher,
    pub(crate) machine: &'a Machine,
    pub(crate) device: &'a Device,
    /// Where the peer computes.
    pub(crate) peer_device: &'a str,
    /// Only variants of the peer whose names contain one of these.
    pub(crate) variants: &'a [String],
    pub(crate) threads: usize,
    pub(crate) rounds: usize,
    /// How the resident peak of a process of ours that runs only this case is found.
    pub(crate) resident: &'a dyn Fn(&str) -> Result<Value>,
    /// The peer for cases that need none of their own.
    pub(crate) peer: Option<Peer>,
}

/// How a case ended that was not timed.
pub(crate) enum Untimed {
    /// We have no such operation yet.
    NotSupported(String),
    /// It is wrong, or something broke.
    Failed(String),
}

/// A variant on its way through the rounds.
struct Contestant {
    name: &'static str,
    /// Where it runs, as an index; all the same unless each has a process of its own.
    peer: usize,
    estimate: f64,
    times: Vec<f64>,
    memory: PeerMemory,
    note: Option<String>,
}

impl Session<'_> {
    /// Runs one case.
    pub(crate) fn run(&mut self, case: &dyn Case) -> Result<Row, Untimed> {
        let bf16 = case.precision() == Precision::Bf16;
        diptych_kernels::device::allow_tf32(case.precision() == Precision::Tf32);
        // What the peer holds of the last case may be needed now.
        if let Some(peer) = &mut self.peer {
            peer.forget().map_err(|error| Untimed::Failed(format!("failed: {}", sentence(&error))))?;
        }
        let ours = case.build(self.device).and_then(|mut runner| {
            let inputs = runner.inputs()?;
            let outputs = runner.outputs()?;
            Ok((runner, inputs, outputs))
        });
        let (mut runner, inputs, outputs) = match ours {
            Ok(ours) => ours,
            // Operations gain bf16 one by one; in f32 every case must run.
            Err(error) if bf16 => return Err(Untimed::NotSupported(format!("not supported: {}", sentence(&error)))),
            Err(error) => return Err(Untimed::Failed(format!("failed: {}", sentence(&error)))),
        };
        self.timed(case, runner.as_mut(), inputs, &outputs)
            .map_err(|error| Untimed::Failed(format!("not timed: {}", sentence(&error))))
    }

    fn timed(&mut self, case: &dyn Case, runner: &mut dyn Runner, inputs: Tensors, outputs: &Tensors) -> Result<Row> {
        let mut own = Vec::new();
        let apart = self.apart(case);
        let mut contestants = self.check(case, inputs, outputs, &mut own)?;
        let shared = self.peer.as_mut().map(std::slice::from_mut).unwrap_or_default();
        let peers = if own.is_empty() { shared } else { &mut own[..] };

        runner.reset(1)?;
        let live = memory::live_peak(self.device, || runner.run())?;
        let estimate = measure::time(runner, self.device, 1)?;
        for c in contestants.iter_mut().filter(|c| c.note.is_none()) {
            c.estimate = median(&peers[c.peer].time(c.name, 1, true)?);
        }
        let mut ours = Vec::new();
        for round in 0..self.rounds {
            ours.push(measure::turn(runner, self.device, estimate)?);
            let best = contestants.iter().map(|c| median(&c.times)).fold(f64::INFINITY, f64::min);
            for c in contestants.iter_mut().filter(|c| c.note.is_none()) {
                if round >= TRIAL && estimate > LONG && median(&c.times) > HOPELESS * best {
                    continue;
                }
                std::thread::sleep(PAUSE);
                let repeats = measure::repeats(c.estimate, peers[c.peer].together);
                let times = peers[c.peer].time(c.name, repeats, measure::warms_up(c.estimate));
                c.times.push(median(&times.with_context(|| c.name.to_string())?));
            }
        }
        let peer_name = peers.first().map(|peer| peer.name.clone()).unwrap_or_default();
        let best = best(&contestants).context("the peer runs none of its variants")?;
        if !apart {
            contestants[best].memory = peers[contestants[best].peer].memory(contestants[best].name)?;
        }
        drop(own);
        let mut row = self.row(case, &ours, &contestants, best);
        row.peer = peer_name;
        row.ours_peak_bytes = live;
        if apart {
            let answer = (self.resident)(&case.name())?;
            row.ours_peak_bytes = answer["peak"].as_u64();
            row.ours_process_bytes = answer["resident"].as_u64();
            row.ours_live_bytes = live;
            row.peer_process_bytes = contestants[best].memory.resident;
        }
        row.bars = case.bars().iter().map(|bar| bar.judge(&row)).collect();
        Ok(row)
    }

    /// Whether each variant of the peer has a process of its own.
    fn apart(&self, case: &dyn Case) -> bool {
        case.memory() == Memory::Resident && !self.device.is_cuda()
    }

    /// Compares every variant with ours; those that the peer cannot run get a note, any other trouble ends the case.
    fn check(
        &mut self,
        case: &dyn Case,
        inputs: Tensors,
        outputs: &Tensors,
        own: &mut Vec<Peer>,
    ) -> Result<Vec<Contestant>> {
        let mut contestants = Vec::new();
        let apart = self.apart(case);
        if !apart {
            if self.peer.is_none() {
                self.peer = Some(Peer::start(self.launcher, self.threads, self.peer_device)?);
            }
            self.shared()?.prepare(case, &inputs, false)?;
        }
        let chosen = |name: &&str| self.variants.iter().any(|text| name.contains(text.as_str()));
        let names: Vec<_> = case.variants().into_iter().filter(chosen).collect();
        for name in names {
            if apart {
                own.push(Peer::start(self.launcher, self.threads, self.peer_device)?);
            }
            let peer = own.len().saturating_sub(1);
            let current = if apart { own.last_mut().context("no peer")? } else { self.shared()? };
            if apart {
                current.prepare(case, &inputs, true)?;
            }
            let mut c =
                Contestant { name, peer, estimate: 0.0, times: Vec::new(), memory: PeerMemory::default(), note: None };
            match current.outputs(name) {
                Ok(theirs) => {
                    compare::equal(outputs, &theirs, case.tolerance()).map_err(|error| anyhow!("{name}: {error}"))?
                }
                Err(error) if error.is::<Unsupported>() => c.note = Some(format!("{error}")),
                Err(error) => return Err(error.context(name)),
            }
            if apart && c.note.is_none() {
                c.memory = current.memory(name)?;
            }
            contestants.push(c);
        }
        Ok(contestants)
    }

    fn shared(&mut self) -> Result<&mut Peer> {
        self.peer.as_mut().context("no peer is running")
    }

    fn row(&self, case: &dyn Case, ours: &[f64], contestants: &[Contestant], best: usize) -> Row {
        let unit = case.unit();
        let variants: Vec<Variant> = contestants
            .iter()
            .map(|c| Variant {
                variant: c.name.to_string(),
                value: (!c.times.is_empty()).then(|| unit.value(median(&c.times))),
                ratio: (!c.times.is_empty()).then(|| measure::ratio(ours, &c.times)),
                rounds: c.times.len(),
                peak_bytes: c.memory.peak,
                note: c.note.clone(),
            })
            .collect();
        let chosen = &variants[best];
        let (work, seconds) = (case.work(), median(ours));
        let floor = self.machine.floor(work, case.precision());
        Row {
            case: case.name(),
            ours: Some(unit.value(median(ours))),
            unit: unit.name(),
            peer_variant: Some(chosen.variant.clone()),
            peer_value: chosen.value,
            ratio: chosen.ratio,
            peer_peak_bytes: chosen.peak_bytes,
            floor_share: floor.map(|floor| floor / seconds),
            bytes_per_second: (work.bytes > 0.0).then_some(work.bytes / seconds),
            flops_per_second: (work.flops > 0.0).then_some(work.flops / seconds),
            rounds: ours.len(),
            memory: if self.apart(case) { "resident" } else { "live" },
            variants,
            ..empty(case)
        }
    }
}

/// A row for a case that was not timed.
pub(crate) fn untimed(case: &dyn Case, note: &str) -> Row {
    let row = Row { note: Some(note.to_string()), ..empty(case) };
    let bars = case.bars().iter().map(|bar| bar.judge(&row)).collect();
    Row { bars, ..row }
}

/// What a case says about itself.
fn empty(case: &dyn Case) -> Row {
    Row {
        case: case.name(),
        unit: case.unit().name(),
        dtype: if case.precision() == Precision::Bf16 { "bf16" } else { "f32" },
        precision: case.precision().name(),
        memory: if case.memory() == Memory::Live { "live" } else { "resident" },
        groups: case.groups(),
        ..Row::default()
    }
}

/// An error without the stack that Candle adds where RUST_BACKTRACE is set.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.split("\n   0: ").next().unwrap_or_default().trim().to_string()
}

/// The variant with the least median time.
fn best(contestants: &[Contestant]) -> Option<usize> {
    let timed = contestants.iter().enumerate().filter(|(_, c)| !c.times.is_empty());
    timed.min_by(|(_, a), (_, b)| median(&a.times).total_cmp(&median(&b.times))).map(|(i, _)| i)
}
