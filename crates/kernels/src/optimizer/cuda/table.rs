//! What kernels know of the tensors of a step beside their gradients: uploaded once, found again by its content.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::DeviceId;
use candle_core::{DType, Result};

use super::{Rule, THREADS};
use crate::cuda::{Arg, Buffer, Gpu, Memory, modules};

/// Values of a chunk: `OPTIMIZER_CHUNK` of optimizer_index.h.
const CHUNK: usize = 8192;
/// Tables kept per device; a run needs two or three.
const KEPT: usize = 32;

/// One tensor of a step.
pub(super) struct Part<'a> {
    pub(super) name: &'a str,
    /// What is changed.
    pub(super) target: Option<Memory<'a>>,
    pub(super) buffer: Option<Memory<'a>>,
    /// The gradient, or what a moving average follows.
    pub(super) source: Memory<'a>,
    pub(super) rule: Rule,
}

/// The tensors of a launch, as kernels see them, and room for what they find out.
pub(super) struct Table {
    /// An `Entry` of optimizer_index.h for each tensor.
    words: Vec<i64>,
    names: Vec<String>,
    chunks: usize,
    /// What the fault word is if the first tensor's gradient is bad; one more for the second.
    pub(super) code: i64,
    pub(super) entries: Buffer,
    /// The tensor of each chunk.
    pub(super) owners: Buffer,
    /// Two sums of each chunk.
    pub(super) squares: Buffer,
    /// Whether a chunk holds a number that is not finite.
    pub(super) bad: Buffer,
    /// A `Scale` for each tensor.
    pub(super) scales: Buffer,
}

impl Table {
    fn new(gpu: &Gpu, words: Vec<i64>, parts: &[Part], number: i64) -> Result<Self> {
        let mut owners = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            owners.extend(std::iter::repeat_n(i as u32, part.source.len().div_ceil(CHUNK)));
        }
        let chunks = owners.len();
        Ok(Self {
            names: parts.iter().map(|part| part.name.to_owned()).collect(),
            chunks,
            code: (number << 32) + 1,
            entries: gpu.upload(&words)?,
            owners: gpu.upload(&owners)?,
            squares: gpu.alloc(DType::F64, 2 * chunks)?,
            bad: gpu.alloc(DType::U32, chunks)?,
            scales: gpu.alloc(DType::F64, 2 * parts.len())?,
            words,
        })
    }

    /// Starts a kernel of one block per chunk.
    ///
    /// # Safety
    /// As `Gpu::launch`.
    pub(super) unsafe fn launch(&self, gpu: &Gpu, name: &str, args: &mut [Arg]) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { gpu.launch(&modules::OPTIMIZER, name, [self.chunks as u32, 1, 1], [THREADS, 1, 1], 0, args) }
    }
}

/// What the optimizers keep on a device.
pub(super) struct State {
    /// 0, or what was wrong with the first bad step; kernels that change tensors do nothing then.
    pub(super) fault: Buffer,
    /// The one used last at the end.
    tables: Vec<Arc<Table>>,
    made: i64,
}

impl State {
    /// The table of these tensors, with the number of each one's rule.
    pub(super) fn table(&mut self, gpu: &Gpu, parts: &[Part], rules: &[usize]) -> Result<Arc<Table>> {
        let mut words = Vec::with_capacity(5 * parts.len());
        let mut first = 0;
        for (part, &rule) in parts.iter().zip(rules) {
            let address = |memory: Option<Memory>| memory.map_or(0, Memory::pointer) as i64;
            let len = part.source.len();
            words.extend([address(part.target), address(part.buffer), len as i64, first, rule as i64]);
            first += len.div_ceil(CHUNK) as i64;
        }
        let same = |table: &Arc<Table>| {
            table.words == words && table.names.iter().zip(parts).all(|(name, part)| name == part.name)
        };
        let table = match self.tables.iter().position(same) {
            Some(at) => self.tables.remove(at),
            None => {
                self.made += 1;
                Arc::new(Table::new(gpu, words, parts, self.made)?)
            }
        };
        if self.tables.len() == KEPT {
            self.tables.remove(0);
        }
        self.tables.push(table.clone());
        Ok(table)
    }

    /// The tensor that a fault word names.
    pub(super) fn name(&self, code: i64) -> String {
        let table = self.tables.iter().find(|table| table.code >> 32 == code >> 32);
        let name = table.and_then(|table| table.names.get((code - table.code) as usize));
        name.cloned().unwrap_or_else(|| "a parameter that is not trained anymore".into())
    }
}

/// Calls `f` with what there is on this device; one call at a time, so that the room in tables is one call's alone.
pub(super) fn with_state<R>(gpu: &Gpu, f: impl FnOnce(&mut State) -> Result<R>) -> Result<R> {
    static STATES: Mutex<Option<HashMap<DeviceId, Arc<Mutex<State>>>>> = Mutex::new(None);
    let id = gpu.device().id();
    let state = {
        let mut states = STATES.lock().unwrap_or_else(PoisonError::into_inner);
        let states = states.get_or_insert_default();
        match states.get(&id) {
            Some(state) => state.clone(),
            None => {
                let state = State { fault: gpu.zeros(DType::I64, 1)?, tables: Vec::new(), made: 0 };
                states.entry(id).or_insert(Arc::new(Mutex::new(state))).clone()
            }
        }
    };
    // A lock of its own: `f` may wait for this device, and no other should wait with it.
    f(&mut state.lock().unwrap_or_else(PoisonError::into_inner))
}
