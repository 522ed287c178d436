//! Pooling on a GPU: a thread has 16 bytes of channels of one pixel (maximum), or of some pixels of an image (mean).

use candle_core::{CudaStorage, DType, Layout, Result, Tensor};

use super::cpu::Window;
use super::{AVERAGE, MAX};
use crate::cuda::columns::{Columns, THREADS};
use crate::cuda::{Arg, Buffer, Gpu, Memory, modules, named};

impl From<Window> for Arg {
    /// `struct Window` of the kernels.
    fn from(window: Window) -> Self {
        let Window { input: [height, width, channels], output, kernel, stride, padding } = window;
        let pairs = [[height, width], output, [channels, kernel], [stride, padding]];
        Self::Struct(pairs.map(|[low, high]| low as u64 | (high as u64) << 32).to_vec())
    }
}

/// Blocks and threads for rows of pixels: as many threads as a part of a row has vectors.
fn rows_of_pixels(rows: usize, pixels: usize, channels: usize, width: usize) -> [[u32; 3]; 2] {
    let vectors = pixels * channels / width;
    let parts = vectors.div_ceil(THREADS);
    let threads = vectors.div_ceil(parts).next_multiple_of(32);
    [[rows as u32, parts as u32, 1], [threads as u32, 1, 1]]
}

/// Whether pixels may be read 16 bytes at a time, and how many channels a thread has then.
fn width(arrays: &[Memory], channels: usize) -> (bool, usize) {
    let vectors = arrays.iter().all(|memory| memory.vectors(channels));
    (vectors, if vectors { 16 / arrays[0].dtype().size_in_bytes() } else { 1 })
}

/// y and the places of the maxima.
fn max(gpu: &Gpu, x: Memory, images: usize, window: Window) -> Result<[Buffer; 2]> {
    let [height, width_out] = window.output;
    let channels = window.input[2];
    let len = images * height * width_out * channels;
    let (y, places) = (gpu.alloc(x.dtype(), len)?, gpu.alloc(DType::U8, len)?);
    let (vectors, width) = width(&[x, y.memory()], channels);
    let mut args = [x.into(), (&y).into(), (&places).into(), window.into(), vectors.into()];
    let [grid, block] = rows_of_pixels(images * height, width_out, channels, width);
    // SAFETY: `pool_max_forward_*` reads the windows' pixels inside of x and writes every value of y and the places.
    unsafe { gpu.launch(&modules::POOL, &named("pool_max_forward", x.dtype())?, grid, block, 0, &mut args)? };
    Ok([y, places])
}

/// [`max`] for a custom op's argument.
pub(super) fn max_of_storage(
    x: &CudaStorage,
    layout: &Layout,
    images: usize,
    window: Window,
) -> Result<(CudaStorage, Tensor)> {
    let [y, places] = max(&Gpu::new(&x.device), Memory::of_storage(MAX, x, layout)?, images, window)?;
    let len = places.memory().len();
    Ok((y.into_storage(), places.into_tensor(len)?))
}

/// y and the places of the maxima, both of this shape.
pub(super) fn max_forward(gpu: &Gpu, x: &Tensor, window: Window, shape: [usize; 4]) -> Result<(Tensor, Tensor)> {
    let [y, places] = max(gpu, Memory::of(MAX, gpu, x)?, shape[0], window)?;
    Ok((y.into_tensor(&shape)?, places.into_tensor(&shape)?))
}

/// The gradient of x from that of y and the places, contiguous.
pub(super) fn max_backward(gpu: &Gpu, dy: &Tensor, places: &Tensor, window: Window, input: &[usize]) -> Result<Tensor> {
    let [height, width_in, channels] = window.input;
    let images = input[0];
    let (dy, places) = (Memory::of(MAX, gpu, dy)?, Memory::of(MAX, gpu, places)?);
    let dx = gpu.alloc(dy.dtype(), images * height * width_in * channels)?;
    let (vectors, width) = width(&[dy, dx.memory()], channels);
    // A vector's places are as many bytes.
    let vectors = vectors && places.pointer().is_multiple_of(16);
    let width = if vectors { width } else { 1 };
    let mut args = [dy.into(), places.into(), (&dx).into(), window.into(), vectors.into()];
    let [grid, block] = rows_of_pixels(images * height, width_in, channels, width);
    // SAFETY: `pool_max_backward_*` reads dy and the places of y's shape and writes every value of dx.
    unsafe { gpu.launch(&modules::POOL, &named("pool_max_backward", dy.dtype())?, grid, block, 0, &mut args)? };
    dx.into_tensor(input)
}

/// Mean over the pixels of each image, for a custom op's argument.
pub(super) fn average(x: &CudaStorage, layout: &Layout, pixels: usize, channels: usize) -> Result<CudaStorage> {
    let gpu = Gpu::new(&x.device);
    let x = Memory::of_storage(AVERAGE, x, layout)?;
    let images = x.len() / (pixels * channels);
    let y = gpu.alloc(x.dtype(), images * channels)?;
    let columns = Columns::new(&[x, y.memory()], pixels, channels).whole();
    let mut args = [x.into(), (&y).into(), columns.into(), columns.vectors.into()];
    launch(&gpu, "pool_average", x.dtype(), columns, images, &mut args)?;
    Ok(y.into_storage())
}

/// Each pixel's share of its image's gradient.
pub(super) fn average_backward(gpu: &Gpu, dy: &Tensor, pixels: usize, input: &[usize]) -> Result<Tensor> {
    let (images, channels) = dy.dims2()?;
    let dy = Memory::of(AVERAGE, gpu, dy)?;
    let dx = gpu.alloc(dy.dtype(), images * pixels * channels)?;
    let columns = Columns::new(&[dy, dx.memory()], pixels, channels);
    let mut args = [dy.into(), (&dx).into(), columns.into(), columns.vectors.into()];
    launch(gpu, "pool_average_backward", dy.dtype(), columns, images, &mut args)?;
    dx.into_tensor(input)
}

fn launch(gpu: &Gpu, name: &str, dtype: DType, columns: Columns, images: usize, args: &mut [Arg]) -> Result<()> {
    let grid = columns.grid(images);
    // SAFETY: `pool_average_*` and its backward pass take two arrays and the division, of which one has a row for each pixel
    // and the other one for each image.
    unsafe { gpu.launch(&modules::POOL, &named(name, dtype)?, grid, [THREADS as u32, 1, 1], 0, args) }
}
