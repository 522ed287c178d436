//! The optimizers on a GPU: three launches a step (one for a moving average) for up to 432 tensors, three more for every further 432.
//!
//! Nothing here waits for the device. Whether gradients are finite is found out there, and a bad step stops all later ones there; the host
//! hears of it when it asks ([`fault`]).

use candle_core::cuda_backend::WrapErr;
use candle_core::{DType, Result, Tensor, Var, bail};

use super::{Item, LarsStep, Ratio, SgdStep};
use crate::cuda::{Arg, Gpu, Memory, modules};

mod table;

use table::{Part, State, Table, with_state};

/// Gradients whose addresses fit the arguments of a launch: `OPTIMIZER_TENSORS` of optimizer_index.h.
const TENSORS: usize = 432;
/// Different settings in a launch: `OPTIMIZER_RULES`.
const RULES: usize = 8;
/// Threads of a block; the kernels are written for this number.
const THREADS: u32 = 256;
/// Threads of the one block that judges.
const JUDGES: u32 = 1024;

/// `Rule` of optimizer_index.h.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rule {
    decay: f64,
    momentum: f64,
    inside: f64,
    outside: f64,
    eta: f64,
    rate: f64,
    kind: u64,
}

const NESTEROV: u64 = 1;
const ADAPTS: u64 = 2;
const APART: u64 = 4;
const CLIPS: u64 = 8;

impl From<&SgdStep> for Rule {
    fn from(step: &SgdStep) -> Self {
        let &SgdStep { lr, momentum, weight_decay, nesterov } = step;
        let kind = if nesterov { NESTEROV } else { 0 };
        Self { decay: weight_decay, momentum, inside: 1.0, outside: lr, kind, ..Self::default() }
    }
}

impl From<&LarsStep> for Rule {
    fn from(step: &LarsStep) -> Self {
        let &LarsStep { lr, momentum, weight_decay, eta, ratio, clip, lr_in_momentum } = step;
        let (inside, outside) = if lr_in_momentum { (lr, 1.0) } else { (1.0, lr) };
        let flags = [(eta.is_some(), ADAPTS), (ratio == Ratio::Sum, APART), (clip, CLIPS)];
        let kind = flags.iter().map(|&(set, flag)| if set { flag } else { 0 }).sum();
        Self { decay: weight_decay, momentum, inside, outside, eta: eta.unwrap_or(0.0), rate: lr, kind }
    }
}

impl Rule {
    fn words(&self) -> [u64; 7] {
        let &Self { decay, momentum, inside, outside, eta, rate, kind } = self;
        let [a, b, c, d, e, f] = [decay, momentum, inside, outside, eta, rate].map(f64::to_bits);
        [a, b, c, d, e, f, kind]
    }
}

/// One step over all tensors. Whether a gradient was not finite is told by [`fault`].
pub(super) fn update<'a, S>(gpu: &Gpu, op: &str, dtype: DType, items: &'a [Item<'a, S>]) -> Result<()>
where
    Rule: From<&'a S>,
{
    let gradients: Vec<_> = items.iter().map(|item| item.gradient.contiguous()).collect::<Result<_>>()?;
    let mut parts = Vec::with_capacity(items.len());
    for (item, gradient) in items.iter().zip(&gradients) {
        let place = |tensor| placed(gpu, op, item.name, tensor);
        parts.push(Part {
            name: item.name,
            target: Some(place(item.weight)?),
            buffer: item.buffer.map(|buffer| place(buffer)).transpose()?,
            source: place(gradient)?,
            rule: Rule::from(&item.step),
        });
    }
    apart(op, &parts)?;
    with_state(gpu, |state| {
        let groups = groups(gpu, state, &parts)?;
        // All are looked at before one is changed.
        look(gpu, dtype, &groups)?;
        for group in &groups {
            group.judge(gpu, state.fault.memory(), group.table.code)?;
        }
        for Group { table, sources, rules, .. } in &groups {
            let mut args = [
                sources_arg(sources),
                rules_arg(rules),
                (&table.entries).into(),
                (&table.owners).into(),
                (&table.scales).into(),
                (&state.fault).into(),
            ];
            // SAFETY: the arguments are those of the kernel; the entries name memory of this call's tensors, which outlives it in the
            // stream, and which no two of them share.
            unsafe { table.launch(gpu, &named("optimizer_update", dtype), &mut args)? };
        }
        Ok(())
    })
}

/// `target = tau target + (1 - tau) online` for all pairs.
pub(super) fn ema(gpu: &Gpu, dtype: DType, pairs: &[(&str, &Var, &Tensor)], tau: f64) -> Result<()> {
    let online: Vec<_> = pairs.iter().map(|(.., online)| online.contiguous()).collect::<Result<_>>()?;
    let mut parts = Vec::with_capacity(pairs.len());
    for (&(name, target, _), online) in pairs.iter().zip(&online) {
        let [target, source] = [placed(gpu, "ema", name, target)?, placed(gpu, "ema", name, online)?];
        parts.push(Part { name, target: Some(target), buffer: None, source, rule: Rule::default() });
    }
    apart("ema", &parts)?;
    with_state(gpu, |state| {
        for Group { table, sources, .. } in groups(gpu, state, &parts)? {
            let mut args = [
                sources_arg(&sources),
                (&table.entries).into(),
                (&table.owners).into(),
                tau.into(),
                (&state.fault).into(),
            ];
            // SAFETY: as in `update`.
            unsafe { table.launch(gpu, &named("optimizer_mix", dtype), &mut args)? };
        }
        Ok(())
    })
}

/// The index of the first tensor that holds a NaN or an infinity, all being contiguous and of one type. Waits for the device.
pub(super) fn non_finite(gpu: &Gpu, dtype: DType, tensors: &[Tensor]) -> Result<Option<usize>> {
    let op = "first_non_finite";
    let mut parts = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let source = Memory::of(op, gpu, tensor)?;
        parts.push(Part { name: "", target: None, buffer: None, source, rule: Rule::default() });
    }
    let found = gpu.zeros(DType::I64, 1)?;
    with_state(gpu, |state| {
        let groups = groups(gpu, state, &parts)?;
        look(gpu, dtype, &groups)?;
        for group in &groups {
            group.judge(gpu, found.memory(), group.start as i64 + 1)?;
        }
        Ok(())
    })?;
    Ok(match gpu.read(found.memory())?.first() {
        Some(&found) if found > 0 => Some(found as usize - 1),
        _ => None,
    })
}

/// The name of the first tensor of the first bad step since [`forget_fault`].
pub(super) fn fault(gpu: &Gpu) -> Result<Option<String>> {
    with_state(gpu, |state| {
        let code = gpu.read(state.fault.memory())?.first().copied().unwrap_or(0);
        Ok((code != 0).then(|| state.name(code)))
    })
}

pub(super) fn forget_fault(gpu: &Gpu) -> Result<()> {
    with_state(gpu, |state| gpu.fill_with_zeros(state.fault.memory()))
}

/// Tensors that one launch takes.
struct Group {
    /// The number of the first.
    start: usize,
    table: std::sync::Arc<Table>,
    sources: Vec<u64>,
    rules: Vec<Rule>,
}

/// Cuts the tensors so that each group's addresses and rules fit the arguments of a launch.
fn groups(gpu: &Gpu, state: &mut State, parts: &[Part]) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    let mut start = 0;
    while start < parts.len() {
        let mut rules: Vec<Rule> = Vec::new();
        let mut which = Vec::new();
        for part in parts[start..].iter().take(TENSORS) {
            let known = rules.iter().position(|rule| *rule == part.rule);
            if known.is_none() && rules.len() == RULES {
                break;
            }
            which.push(known.unwrap_or(rules.len()));
            if known.is_none() {
                rules.push(part.rule);
            }
        }
        let group = &parts[start..start + which.len()];
        let sources = group.iter().map(|part| part.source.pointer()).collect();
        groups.push(Group { start, table: state.table(gpu, group, &which)?, sources, rules });
        start += group.len();
    }
    Ok(groups)
}

fn look(gpu: &Gpu, dtype: DType, groups: &[Group]) -> Result<()> {
    for Group { table, sources, rules, .. } in groups {
        let mut args = [
            sources_arg(sources),
            rules_arg(rules),
            (&table.entries).into(),
            (&table.owners).into(),
            (&table.squares).into(),
            (&table.bad).into(),
        ];
        // SAFETY: the arguments are those of the kernel, which reads what the entries name and writes a value of each result per chunk.
        unsafe { table.launch(gpu, &named("optimizer_look", dtype), &mut args)? };
    }
    Ok(())
}

impl Group {
    fn judge(&self, gpu: &Gpu, fault: Memory, code: i64) -> Result<()> {
        let table = &self.table;
        let mut args = [
            rules_arg(&self.rules),
            (&table.entries).into(),
            (self.sources.len() as i32).into(),
            (&table.squares).into(),
            (&table.bad).into(),
            (&table.scales).into(),
            fault.into(),
            code.into(),
        ];
        // SAFETY: the arguments are those of the kernel, which writes a scale for each tensor, and one word.
        unsafe { gpu.launch(&modules::OPTIMIZER, "optimizer_judge", [1; 3], [JUDGES, 1, 1], 0, &mut args) }
    }
}

fn sources_arg(sources: &[u64]) -> Arg {
    let mut words = sources.to_vec();
    words.resize(TENSORS, 0);
    Arg::Struct(words)
}

fn rules_arg(rules: &[Rule]) -> Arg {
    let mut words: Vec<u64> = rules.iter().flat_map(Rule::words).collect();
    words.resize(RULES * 7, 0);
    Arg::Struct(words)
}

fn named(name: &str, dtype: DType) -> String {
    format!("{name}_{}", if dtype == DType::F64 { "f64" } else { "f32" })
}

fn placed<'a>(gpu: &Gpu, op: &str, name: &str, tensor: &'a Tensor) -> Result<Memory<'a>> {
    match Memory::of(op, gpu, tensor) {
        Ok(memory) => Ok(memory),
        Err(error) => bail!("{name}: {error}"),
    }
}

/// That what is written overlaps nothing else.
fn apart(op: &str, parts: &[Part]) -> Result<()> {
    let mut ranges = Vec::with_capacity(3 * parts.len());
    for part in parts {
        let mut add = |memory: Memory, written| {
            let start = memory.pointer();
            ranges.push((start, start + memory.bytes() as u64, written, part.name));
        };
        add(part.source, false);
        part.target.into_iter().chain(part.buffer).for_each(|memory| add(memory, true));
    }
    ranges.sort_unstable();
    let (mut any, mut written) = (0, 0);
    for (start, end, writes, name) in ranges.into_iter().filter(|(start, end, ..)| start < end) {
        if start < written || (writes && start < any) {
            bail!("{name}: {op}: a variable shares its memory with another tensor of this step")
        }
        any = any.max(end);
        if writes {
            written = written.max(end);
        }
    }
    Ok(())
}

impl Gpu {
    /// Words of 8 bytes, once all that was asked for before is done.
    fn read(&self, memory: Memory) -> Result<Vec<i64>> {
        let mut words = vec![0i64; memory.bytes() / 8];
        self.stream().context().bind_to_thread().w()?;
        // SAFETY: as many bytes as the memory has, of a type that takes any bits; the stream is waited for before they are looked at.
        unsafe {
            candle_core::cuda_backend::cudarc::driver::result::memcpy_dtoh_async(
                &mut words,
                memory.pointer(),
                self.stream().cu_stream(),
            )
            .w()?;
        }
        self.stream().synchronize().w()?;
        Ok(words)
    }
}
