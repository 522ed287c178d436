//! Devices that ops run on, whatever this build has.

use candle_core::{Device, Result, Tensor};

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

/// Bytes of GPU memory that live now; their peak begins again at this. `None` where the driver does not tell, and for the CPU, whose memory
/// [`CountingAllocator`](crate::CountingAllocator) counts.
///
/// # Errors
/// If the driver does not answer.
pub fn reset_peak_memory(device: &Device) -> Result<Option<u64>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return crate::cuda::reset_peak_memory(device);
    }
    let _ = device;
    Ok(None)
}

/// The most bytes of GPU memory that lived at once since [`reset_peak_memory`], as far as the device has come: synchronize first.
///
/// # Errors
/// If the driver does not answer.
pub fn peak_memory(device: &Device) -> Result<Option<u64>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return crate::cuda::peak_memory(device);
    }
    let _ = device;
    Ok(None)
}

/// A way for bytes to a device, that a GPU computes beside: page-locked buffers, two of each, and a stream of their own.
pub struct Uploader {
    #[cfg(feature = "cuda")]
    cuda: Option<crate::cuda::Uploader>,
    device: Device,
}

impl Uploader {
    /// To `device`.
    ///
    /// # Errors
    /// If the driver has no further stream.
    pub fn new(device: &Device) -> Result<Self> {
        Ok(Self {
            #[cfg(feature = "cuda")]
            cuda: match device {
                Device::Cuda(device) => Some(crate::cuda::Uploader::new(device)?),
                _ => None,
            },
            device: device.clone(),
        })
    }

    /// Copies `parts`, one after the other, and gives `work` the u8 tensor `[bytes]` that they make.
    ///
    /// The host does not wait for a GPU. **The tensor is only for `work`**: its memory is filled again by later calls.
    ///
    /// # Errors
    /// If there is no room, or `work` fails.
    pub fn through<R>(&mut self, parts: &[&[u8]], work: impl FnOnce(&Tensor) -> Result<R>) -> Result<R> {
        #[cfg(feature = "cuda")]
        if let Some(cuda) = &mut self.cuda {
            return cuda.through(parts, work);
        }
        let bytes = parts.concat();
        let len = bytes.len();
        work(&Tensor::from_vec(bytes, len, &self.device)?)
    }
}

/// Waits until a device has done all it was asked to: for clocks, and before the process ends.
///
/// # Errors
/// If something that was asked for failed on the device.
pub fn synchronize(device: &Device) -> Result<()> {
    device.synchronize()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches of growing and shrinking sizes, whose numbers are read only after all of them were sent: no buffer was filled again while
    /// something still had to read it.
    #[test]
    fn every_batch_arrives_as_it_was_sent() -> Result<()> {
        let device = crate::check::device()?;
        let mut uploader = Uploader::new(&device)?;
        let mut arrived = Vec::new();
        for (k, len) in [5usize, 70_000, 3, 200_000, 1, 199_999, 64].into_iter().enumerate() {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + k) as u8).collect();
            let (first, second) = bytes.split_at(len / 3);
            // f32, so that the device makes something of the bytes.
            let sent = uploader.through(&[first, second], |bytes| bytes.to_dtype(candle_core::DType::F32))?;
            arrived.push((bytes, sent));
        }
        for (bytes, sent) in arrived {
            let values: Vec<u8> = sent.to_vec1::<f32>()?.into_iter().map(|v| v as u8).collect();
            assert!(values == bytes, "{} bytes", bytes.len());
        }
        Ok(())
    }

    #[test]
    fn a_device_that_is_not_there_is_refused_in_words() {
        let error = cuda(4096).unwrap_err().to_string();
        assert!(error.contains("GPU"), "{error}");
    }
}
