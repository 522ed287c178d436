//! How much of the driver's pool of memory is in use: all tensors and buffers come from it.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{result, sys};
use candle_core::{CudaDevice, Result};

use sys::CUmemPool_attribute_enum as Attribute;

/// The bytes that live now; their peak begins again there. `None` where the driver has no pools.
pub(crate) fn reset_peak_memory(device: &CudaDevice) -> Result<Option<u64>> {
    let Some(pool) = pool(device)? else { return Ok(None) };
    let mut zero = 0u64;
    // SAFETY: the pool is the device's, and the attribute is a 64-bit number that the call reads before it returns.
    unsafe { sys::cuMemPoolSetAttribute(pool, Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH, (&raw mut zero).cast()) }
        .result()
        .w()?;
    read(pool, Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT).map(Some)
}

/// The most bytes that lived at once since then.
pub(crate) fn peak_memory(device: &CudaDevice) -> Result<Option<u64>> {
    pool(device)?.map(|pool| read(pool, Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)).transpose()
}

fn pool(device: &CudaDevice) -> Result<Option<sys::CUmemoryPool>> {
    let stream = device.cuda_stream();
    let context = stream.context();
    if !context.has_async_alloc() {
        return Ok(None);
    }
    context.bind_to_thread().w()?;
    // SAFETY: the device is open.
    Ok(Some(unsafe { result::device::get_default_mem_pool(context.cu_device()) }.w()?))
}

fn read(pool: sys::CUmemoryPool, attribute: Attribute) -> Result<u64> {
    let mut value = 0u64;
    // SAFETY: the pool is the device's, and the attribute is a 64-bit number, which the call writes.
    unsafe { sys::cuMemPoolGetAttribute(pool, attribute, (&raw mut value).cast()) }.result().w()?;
    Ok(value)
}
