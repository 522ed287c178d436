//! Devices that ops run on, whatever this build has.

use candle_core::{Device, Result};

/// The GPU of this number, for all that this process does on it.
///
/// # Errors
/// In a build without the feature `cuda`, or where there is no driver or no such GPU; the sentence says which and what to do.
pub fn cuda(ordinal: usize) -> Result<Device> {
    #[cfg(feature = "cuda")]
    return crate::cuda::open(ordinal);
    #[cfg(not(feature = "cuda"))]
    candle_core::bail!(
        "there is no CUDA in this build, so GPU {ordinal} can't be used; build with the feature `cuda` (cargo xtask does for \
         --device cuda), or use --device cpu"
    )
}

/// Whether products of f32 numbers may be rounded to TF32 (10 bits of mantissa) on GPUs of this process. At first they may not.
pub fn allow_tf32(allow: bool) {
    #[cfg(feature = "cuda")]
    candle_core::cuda_backend::set_gemm_reduced_precision_f32(allow);
    #[cfg(not(feature = "cuda"))]
    let _ = allow;
}

/// What a device is, as (what, value) for people to read; empty for the CPU.
///
/// # Errors
/// If the driver does not answer.
pub fn describe(device: &Device) -> Result<Vec<(&'static str, String)>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return crate::cuda::describe(device);
    }
    let _ = device;
    Ok(Vec::new())
}

/// Waits until a device has done all it was asked to: for clocks, and before the process ends.
///
/// # Errors
/// If something that was asked for failed on the device.
pub fn synchronize(device: &Device) -> Result<()> {
    device.synchronize()
}
