//! One call: every case is checked against the peer, then timed in turns with it.

use anyhow::{Context, Result, anyhow, bail};
use candle_core::Device;
use serde_json::Value;

use crate::case::{Case, Memory, Named, Precision, Runner, Tensors};
use crate::compare;
use crate::contestant::{Contestant, best};
use crate::machine::Machine;
use crate::measure::{self, median};
use crate::memory;
use crate::peer::{Launcher, Peer, Unsupported};
use crate::report::{Row, Variant};

/// A variant that is this much slower than the best after [`TRIAL`] rounds has no more turns, where ours are long.
const HOPELESS: f64 = 1.25;
/// The same where its own are.
const FAR_BEHIND: f64 = 3.0;
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
        contestants.extend(self.rivals(case, outputs)?);
        let shared = self.peer.as_mut().map(std::slice::from_mut).unwrap_or_default();
        let peers = if own.is_empty() { shared } else { &mut own[..] };

        runner.reset(1)?;
        let live = memory::live_peak(self.device, || runner.run())?;
        let estimate = measure::time(runner, self.device, 1)?;
        for c in contestants.iter_mut().filter(|c| c.note.is_none()) {
            c.estimate = c.estimate(peers, self.device)?;
        }
        let (mut ours, bars) = (Vec::new(), case.bars());
        for round in 0..self.rounds {
            ours.push(measure::turn(runner, self.device, estimate)?);
            let peer = contestants.iter().filter(|c| c.rival.is_none());
            let best = peer.map(|c| median(&c.times)).fold(f64::INFINITY, f64::min);
            for c in contestants.iter_mut().filter(|c| c.note.is_none()) {
                let behind = median(&c.times) / best;
                let hopeless = (estimate > LONG && behind > HOPELESS) || (c.estimate > LONG && behind > FAR_BEHIND);
                if round >= TRIAL && hopeless && !bars.iter().any(|bar| bar.names(c.name)) {
                    continue;
                }
                let time = c.turn(peers, self.device).with_context(|| c.name.to_string())?;
                c.times.push(time);
            }
        }
        let best = best(&contestants);
        if best.is_none() && !contestants.is_empty() {
            bail!("the peer runs none of its variants")
        }
        let mut peer_name = String::new();
        if let Some(c) = best.map(|best| &mut contestants[best]) {
            peer_name = if c.rival.is_some() { "diptych".into() } else { peers[c.peer].name.clone() };
            if case.memory() == Memory::Live || (case.memory() == Memory::Resident && !apart) {
                c.memory = peers[c.peer].memory(c.name)?;
            }
        }
        drop(own);
        let mut row = self.row(case, &ours, &contestants, best);
        row.peer = peer_name;
        row.ours_peak_bytes = live;
        if apart || case.memory() == Memory::Anonymous {
            let answer = (self.resident)(&case.name())?;
            row.ours_peak_bytes = answer["peak"].as_u64();
            row.ours_process_bytes = answer["resident"].as_u64();
            row.ours_live_bytes = live;
            row.peer_process_bytes = best.and_then(|best| contestants[best].memory.resident);
        }
        row.bars = bars.iter().map(|bar| bar.judge(&row)).collect();
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
        if case.variants().is_empty() {
            return Ok(contestants);
        }
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
            let mut c = Contestant::new(name, peer);
            match current.outputs(name) {
                Ok(theirs) => c.decibels = held_to(case, name, outputs, &theirs)?,
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

    /// Those of ours, after a look at what they make.
    fn rivals(&self, case: &dyn Case, outputs: &Tensors) -> Result<Vec<Contestant>> {
        let rival = |(name, mut runner): Named| {
            let decibels = held_to(case, name, outputs, &runner.outputs()?)?;
            Ok(Contestant { decibels, rival: Some(runner), ..Contestant::new(name, 0) })
        };
        case.rivals(self.device)?.into_iter().map(rival).collect()
    }

    fn shared(&mut self) -> Result<&mut Peer> {
        self.peer.as_mut().context("no peer is running")
    }

    fn row(&self, case: &dyn Case, ours: &[f64], contestants: &[Contestant], best: Option<usize>) -> Row {
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
                decibels: c.decibels,
            })
            .collect();
        let chosen = best.map(|best| &variants[best]);
        let (work, seconds) = (case.work(), median(ours));
        let floor = self.machine.floor(work, case.precision());
        Row {
            case: case.name(),
            ours: Some(unit.value(median(ours))),
            unit: unit.name(),
            peer_variant: chosen.map(|chosen| chosen.variant.clone()),
            peer_value: chosen.and_then(|chosen| chosen.value),
            ratio: chosen.and_then(|chosen| chosen.ratio),
            peer_peak_bytes: chosen.and_then(|chosen| chosen.peak_bytes),
            floor_share: floor.map(|floor| floor / seconds),
            bytes_per_second: (work.bytes > 0.0).then_some(work.bytes / seconds),
            flops_per_second: (work.flops > 0.0).then_some(work.flops / seconds),
            rounds: ours.len(),
            memory: if case.memory() == Memory::Resident && !self.apart(case) { "live" } else { case.memory().name() },
            variants,
            ..empty(case)
        }
    }
}

/// Fails unless what a variant made equals ours, as far as the case says; how near pictures are.
fn held_to(case: &dyn Case, name: &str, ours: &Tensors, theirs: &Tensors) -> Result<Option<f64>> {
    let found = match case.decibels(name) {
        Some(least) => compare::pictures(ours, theirs, least).map(Some),
        None => compare::equal(ours, theirs, case.tolerance()).map(|()| None),
    };
    found.map_err(|error| anyhow!("{name}: {error}"))
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
        memory: case.memory().name(),
        groups: case.groups(),
        ..Row::default()
    }
}

/// An error without the stack that Candle adds where RUST_BACKTRACE is set.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.split("\n   0: ").next().unwrap_or_default().trim().to_string()
}
