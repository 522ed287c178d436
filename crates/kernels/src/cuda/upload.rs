//! Bytes to the device while it computes.

use std::sync::Arc;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaEvent, CudaStream, result};
use candle_core::{CudaDevice, DType, Result, Tensor};
use rayon::prelude::*;

use super::{Gpu, Memory};

const NAME: &str = "upload";

/// Two buffers of page-locked memory, each with its buffer on the device, and a stream for the copies alone.
///
/// This is the one place where work is not in the device's stream. What keeps the two in order are three events for each pair of buffers:
/// the host fills a buffer once its last copy has ended, a copy begins once the device has used what lay there before, and
/// the device's stream goes on once the copy has ended. So the copy of one batch and the step on the batch before run side by side.
pub(crate) struct Uploader {
    gpu: Gpu,
    copies: Arc<CudaStream>,
    slots: [Option<Slot>; 2],
    next: usize,
}

struct Slot {
    host: PageLocked,
    /// `[capacity]`, u8.
    device: Tensor,
    copied: CudaEvent,
    used: CudaEvent,
}

impl Uploader {
    pub(crate) fn new(device: &CudaDevice) -> Result<Self> {
        let gpu = Gpu::new(device);
        let copies = gpu.stream().context().new_stream().w()?;
        Ok(Self { gpu, copies, slots: [None, None], next: 0 })
    }

    /// Copies `parts`, one after the other, and gives `work` the u8 tensor that they make. The tensor's memory is written again after `work` has returned: what
    /// `work` asks of the device may read it, what comes later may not.
    pub(crate) fn through<R>(&mut self, parts: &[&[u8]], work: impl FnOnce(&Tensor) -> Result<R>) -> Result<R> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let slot = &mut self.slots[self.next];
        self.next = 1 - self.next;
        if slot.as_ref().is_none_or(|slot| slot.host.len < len) {
            // Nobody may still read what is let go.
            self.copies.synchronize().w()?;
            *slot = None;
        }
        let slot = match slot {
            Some(slot) => slot,
            None => slot.insert(Slot::new(&self.gpu, len.next_power_of_two().max(1 << 16))?),
        };
        slot.copied.synchronize().w()?;
        slot.host.fill(parts);
        let view = slot.device.narrow(0, 0, len)?;
        self.copies.wait(&slot.used).w()?;
        let target = Memory::of(NAME, &self.gpu, &view)?.pointer();
        // SAFETY: both buffers have room for `len` bytes; the host's is not changed before `copied`, nor is the device's read.
        unsafe { result::memcpy_htod_async(target, &slot.host.bytes()[..len], self.copies.cu_stream()) }.w()?;
        slot.copied.record(&self.copies).w()?;
        self.gpu.stream().wait(&slot.copied).w()?;
        let result = work(&view);
        slot.used.record(self.gpu.stream()).w()?;
        result
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        // A copy may still read the host's buffers. Where the driver fails, there is nobody left to tell.
        let _ = self.copies.synchronize();
    }
}

impl Slot {
    fn new(gpu: &Gpu, capacity: usize) -> Result<Self> {
        let context = gpu.stream().context();
        let device = gpu.alloc(DType::U8, capacity)?.into_tensor(capacity)?;
        // The allocation takes its place in the device's stream; the stream of copies must not run ahead of it.
        gpu.stream().synchronize().w()?;
        let event = || context.new_event(None).w();
        Ok(Self { host: PageLocked::new(context, capacity)?, device, copied: event()?, used: event()? })
    }
}

/// Memory of the host that copies to a device need no detour for.
struct PageLocked {
    start: *mut u8,
    len: usize,
    context: Arc<CudaContext>,
}

// SAFETY: the memory belongs to this value alone, and the driver frees it from any thread.
unsafe impl Send for PageLocked {}

impl PageLocked {
    fn new(context: &Arc<CudaContext>, len: usize) -> Result<Self> {
        context.bind_to_thread().w()?;
        // SAFETY: the driver gives `len` bytes or an error.
        let start = unsafe { result::malloc_host(len, 0) }.w()?.cast::<u8>();
        // SAFETY: it gave them; with zeros they are initialized.
        unsafe { start.write_bytes(0, len) };
        Ok(Self { start, len, context: context.clone() })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` initialized bytes that live as long as this value.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    /// Writes the parts one after the other, in parallel.
    fn fill(&mut self, parts: &[&[u8]]) {
        // SAFETY: as in `bytes`, and nobody else refers to them.
        let mut rest = unsafe { std::slice::from_raw_parts_mut(self.start, self.len) };
        let mut places = Vec::with_capacity(parts.len());
        for part in parts {
            let (place, behind) = std::mem::take(&mut rest).split_at_mut(part.len());
            places.push((place, *part));
            rest = behind;
        }
        places.into_par_iter().with_min_len(8).for_each(|(place, part)| place.copy_from_slice(part));
    }
}

impl Drop for PageLocked {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: the driver gave this memory, and the uploader has waited for all copies from it.
            let _ = unsafe { result::free_host(self.start.cast()) };
        }
    }
}
