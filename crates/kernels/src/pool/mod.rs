//! Max pooling and global average pooling, f32 or bf16.
//!
//! Max pooling keeps one byte per output value between forward and backward: the place of the maximum in its window. x itself need not be kept.

use std::sync::Mutex;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor, WithDType, bail};
use half::bf16;

#[cfg(feature = "cuda")]
use crate::cuda::Gpu;
use crate::dense::{Dense, activation, slice, tensor};
use cpu::Window;

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

const MAX: &str = "max_pool2d";
const AVERAGE: &str = "global_avg_pool";

/// Maximum over square windows, as PyTorch's `max_pool2d` (dilation 1, ceil_mode false): x is padded with -inf.
///
/// `x`: `[N, H, W, C]`. Returns `[N, H', W', C]` with `H' = (H + 2 padding - kernel) / stride + 1`, rounded down. The gradient goes to the
/// first maximum of a window, in row-major order. A NaN in a window is its result.
///
/// # Errors
/// If x is not of rank 4 or neither f32 nor bf16, `kernel` or `stride` is 0, `kernel` is above 15, `padding` is more than half the kernel, or the
/// window is larger than the padded image.
pub fn max_pool2d(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    let window = window(x.dims(), kernel, stride, padding)?;
    activation(MAX, "x", x)?.apply_op1(MaxPool { window, places: Mutex::new(None) })
}

/// [`max_pool2d`] and the places of the maxima (u8, of y's shape: row times `kernel` plus column in the window), without a graph.
///
/// # Errors
/// As [`max_pool2d`].
pub fn max_forward(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<(Tensor, Tensor)> {
    let window = window(x.dims(), kernel, stride, padding)?;
    let x = activation(MAX, "x", x)?;
    let shape = [x.dims()[0], window.output[0], window.output[1], window.input[2]];
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(&x) {
        return cuda::max_forward(&gpu, &x, window, shape);
    }
    let (y, places) = match x.dtype() {
        DType::BF16 => {
            let (y, places) = cpu::max_pool(&Dense::<bf16>::new(MAX, &x)?, window);
            (tensor(y, &shape)?, places)
        }
        _ => {
            let (y, places) = cpu::max_pool(&Dense::<f32>::new(MAX, &x)?, window);
            (tensor(y, &shape)?, places)
        }
    };
    Ok((y, Tensor::from_vec(places, &shape, x.device())?))
}

/// The gradient of [`max_forward`] for an x of the shape `input`, from that of y and the places. Its type is that of `dy`.
///
/// # Errors
/// If `dy` or `places` do not have the shape of y, or as [`max_pool2d`].
pub fn max_backward(
    dy: &Tensor,
    places: &Tensor,
    input: [usize; 4],
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    let window = window(&input, kernel, stride, padding)?;
    let shape = [input[0], window.output[0], window.output[1], input[3]];
    if dy.dims() != shape || places.dims() != shape || places.dtype() != DType::U8 {
        bail!(
            "{MAX}: dy is {:?} and the places {:?} {:?}; expected {shape:?}, u8",
            dy.dims(),
            places.dtype(),
            places.dims()
        )
    }
    max_gradient(dy, places, window, &input)
}

/// `places`: u8, as many as dy has values.
fn max_gradient(dy: &Tensor, places: &Tensor, window: Window, input: &[usize]) -> Result<Tensor> {
    let (dy, places) = (activation(MAX, "dy", dy)?, places.contiguous()?);
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(&dy) {
        return cuda::max_backward(&gpu, &dy, &places, window, input);
    }
    let places: Vec<u8> = places.flatten_all()?.to_vec1()?;
    match dy.dtype() {
        DType::BF16 => tensor(cpu::max_pool_backward(&Dense::<bf16>::new(MAX, &dy)?, &places, window), input),
        _ => tensor(cpu::max_pool_backward(&Dense::<f32>::new(MAX, &dy)?, &places, window), input),
    }
}

fn window(x: &[usize], kernel: usize, stride: usize, padding: usize) -> Result<Window> {
    let &[_, height, width, channels] = x else { bail!("{MAX}: x has shape {x:?}; expected [N, H, W, C]") };
    if kernel == 0 || kernel > 15 || stride == 0 || padding > kernel / 2 {
        bail!(
            "{MAX}: kernel {kernel}, stride {stride}, padding {padding}; expected a kernel of 1 to 15, a stride above 0 and padding at most kernel / 2"
        )
    }
    let (h, w) = (height + 2 * padding, width + 2 * padding);
    if h < kernel || w < kernel || height * width * channels == 0 {
        bail!("{MAX}: x of shape {x:?} is smaller than the window ({kernel}, padding {padding})")
    }
    let output = [(h - kernel) / stride + 1, (w - kernel) / stride + 1];
    Ok(Window { input: [height, width, channels], output, kernel, stride, padding })
}

struct MaxPool {
    window: Window,
    /// Left by the forward pass, where x is.
    places: Mutex<Option<Tensor>>,
}

impl MaxPool {
    /// Keeps the places for the backward pass; y's shape.
    fn keep(&self, places: Tensor, x: &Layout) -> Shape {
        if let Ok(mut kept) = self.places.lock() {
            *kept = Some(places);
        }
        let [h, w] = self.window.output;
        (x.dims()[0], h, w, self.window.input[2]).into()
    }
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        MAX
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (y, places) = match storage {
            CpuStorage::BF16(_) => {
                let (y, places) = cpu::max_pool::<bf16>(slice(MAX, storage, layout)?, self.window);
                (bf16::to_cpu_storage_owned(y), places)
            }
            _ => {
                let (y, places) = cpu::max_pool::<f32>(slice(MAX, storage, layout)?, self.window);
                (f32::to_cpu_storage_owned(y), places)
            }
        };
        let len = places.len();
        Ok((y, self.keep(Tensor::from_vec(places, len, &Device::Cpu)?, layout)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (y, places) = cuda::max_of_storage(storage, layout, layout.dims()[0], self.window)?;
        Ok((y, self.keep(places, layout)))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        match self.places.lock() {
            Ok(places) => match &*places {
                Some(places) => max_gradient(dy, places, self.window, x.dims()).map(Some),
                None => bail!("{MAX}: backward before forward"),
            },
            Err(_) => bail!("{MAX}: a thread stopped in the forward pass"),
        }
    }
}

/// Mean over height and width: `[N, H, W, C]` to `[N, C]`.
///
/// # Errors
/// If x is not of rank 4, neither f32 nor bf16, or has no pixel.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    let [pixels, channels] = image(x.dims())?;
    activation(AVERAGE, "x", x)?.apply_op1(AveragePool { pixels, channels })
}

/// [`global_avg_pool`] without a graph.
///
/// # Errors
/// As [`global_avg_pool`].
pub fn average_forward(x: &Tensor) -> Result<Tensor> {
    global_avg_pool(&x.detach())
}

/// The gradient of [`average_forward`] for an x of the shape `input`, from that of the means `[N, C]`. Its type is that of `dy`.
///
/// # Errors
/// If dy is not `[N, C]` for these sizes, or neither f32 nor bf16.
pub fn average_backward(dy: &Tensor, input: [usize; 4]) -> Result<Tensor> {
    let [pixels, channels] = image(&input)?;
    if dy.dims() != [input[0], channels] {
        bail!("{AVERAGE}: dy is {:?} for an x of {input:?}; expected [{}, {channels}]", dy.dims(), input[0])
    }
    let dy = activation(AVERAGE, "dy", dy)?;
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(&dy) {
        return cuda::average_backward(&gpu, &dy, pixels, &input);
    }
    match dy.dtype() {
        DType::BF16 => tensor(cpu::average_backward(&Dense::<bf16>::new(AVERAGE, &dy)?, pixels, channels), &input),
        _ => tensor(cpu::average_backward(&Dense::<f32>::new(AVERAGE, &dy)?, pixels, channels), &input),
    }
}

/// Pixels and channels of `[N, H, W, C]`.
fn image(x: &[usize]) -> Result<[usize; 2]> {
    let &[_, height, width, channels] = x else { bail!("{AVERAGE}: x has shape {x:?}; expected [N, H, W, C]") };
    if height * width * channels == 0 {
        bail!("{AVERAGE}: x of shape {x:?} has no pixel")
    }
    Ok([height * width, channels])
}

struct AveragePool {
    pixels: usize,
    channels: usize,
}

impl CustomOp1 for AveragePool {
    fn name(&self) -> &'static str {
        AVERAGE
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (pixels, channels) = (self.pixels, self.channels);
        let y = match storage {
            CpuStorage::BF16(_) => {
                bf16::to_cpu_storage_owned(cpu::average::<bf16>(slice(AVERAGE, storage, layout)?, pixels, channels))
            }
            _ => f32::to_cpu_storage_owned(cpu::average::<f32>(slice(AVERAGE, storage, layout)?, pixels, channels)),
        };
        Ok((y, (layout.dims()[0], channels).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let y = cuda::average(storage, layout, self.pixels, self.channels)?;
        Ok((y, (layout.dims()[0], self.channels).into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let &[n, h, w, c] = x.dims() else { bail!("{AVERAGE}: x has shape {:?}; expected [N, H, W, C]", x.dims()) };
        average_backward(dy, [n, h, w, c]).map(Some)
    }
}
