//! 2-d convolution, channels last, with exact gradients for input and weights, for any kernel, stride and padding.
//!
//! `y[n, a, b, o] = sum_{i, j, c} x[n, a s + i - p, b s + j - p, c] w[o, i, j, c]` (a cross-correlation, as in PyTorch).

#[cfg(target_arch = "x86_64")]
mod avx512;
mod bf16;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(all(test, feature = "cuda"))]
mod cuda_tests;
#[cfg(feature = "cuda")]
mod cudnn;
mod direct;
mod direct_grad;
mod geometry;
#[cfg(feature = "cuda")]
mod implicit;
mod outer;
mod pack;
mod portable;
mod reduce;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
mod winograd;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Result, Shape, Tensor, bail};

#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, Memory};
use crate::dense::{self, Dense, activation, input, slice};
use crate::isa::Isa;
use geometry::Geometry;

const NAME: &str = "conv2d";

/// The convolution of `x` `[N, H, W, C]` with `w` `[O, kh, kw, C]`: `[N, H', W', O]` with
/// `H' = (H + 2 padding - kh) / stride + 1`, rounded down, and W' alike. No bias, one group, no dilation.
///
/// `w` is f32; y and the gradient of x have the type of `x`. Where that is bf16, products of bf16 numbers (`w` is rounded
/// to bf16 on the way) are added in f32 and the result is rounded once. The gradient of `w` is f32.
///
/// The gradient of an input that no variable leads to (the images) is not computed.
///
/// # Which algorithm
/// Shapes alone decide. 3x3 kernels of stride 1 with at least 32 channels on both sides, outputs that fill most of their 4x4
/// tiles, and enough tiles to pay for transformed weights run by Winograd's algorithm F(4x4, 3x3), in all three passes; everything
/// else is summed as the definition reads. Both are f32 throughout. The errors of Winograd's (root mean square, against f64) are
/// 2.0 to 2.4 times those of the plain sum (measured with 64 channels): see `winograd/transform.rs`.
///
/// On a GPU kernels of one pixel and stride 1 are matrix products by cuBLAS. Other convolutions run by cuDNN, with the algorithm that was the fastest
/// on the arrays of the first call among those that give the same bits every time; where there is no cuDNN, or it refuses, or the environment
/// variable `DIPTYCH_CUDNN` is `off`, by kernels of ours. [`algorithm`] says which. Products of f32 numbers are exact, or TF32 where Candle's
/// switch (`set_gemm_reduced_precision_f32`) allows that; for bf16 numbers cuDNN may round the gradient of `w` to bf16.
///
/// # NaN and infinity
/// The plain sum does what IEEE says. Winograd's algorithm keeps every output non-finite that the definition makes so, but it may
/// give NaN for an infinity, and a non-finite value makes all outputs of the 4x4 tiles that read it non-finite, up to 4 pixels
/// away. A training step that looks for non-finite values finds them either way. Finite values beyond 1e36 may overflow in the
/// transforms.
///
/// # Errors
/// If the ranks or channels do not fit, the padded image is smaller than the kernel, a size is 0, `x` is not
/// f32 or bf16, `w` is not f32, or they lie on different devices.
pub fn conv2d(x: &Tensor, w: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    let (x, w) = (activation(NAME, "x", x)?, input(NAME, "the weight", w)?);
    let geometry = geometry(x.dims(), w.dims(), stride, padding)?;
    x.apply_op2(&w, Conv2d { geometry })
}

/// What convolutions on this device run by, in words: `cuDNN 9.19.0`, say. `diptych doctor` tells it.
pub fn algorithm(device: &Device) -> String {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return cuda::algorithm(&Gpu::new(device));
    }
    let _ = device;
    "direct sums, and Winograd's algorithm where it suits".into()
}

fn geometry(x: &[usize], w: &[usize], stride: usize, padding: usize) -> Result<Geometry> {
    let (&[n, h, width, c], &[o, kh, kw, i]) = (x, w) else {
        bail!("conv2d: x must be [N, H, W, C] and the weight [O, kh, kw, C], got {x:?} and {w:?}")
    };
    if c != i {
        bail!("conv2d: x {x:?} has {c} channels, the weight {w:?} expects {i}; are both channels last?")
    }
    if stride == 0 || x.contains(&0) || w.contains(&0) {
        bail!("conv2d: a size of 0 in x {x:?}, the weight {w:?} or stride {stride}")
    }
    let (Some(oh), Some(ow)) =
        (Geometry::out_size(h, kh, stride, padding), Geometry::out_size(width, kw, stride, padding))
    else {
        bail!("conv2d: the kernel {kh}x{kw} does not fit an image of {h}x{width} with padding {padding}")
    };
    // Tables of rows are 32 bits wide.
    if (h * width).max(oh * ow) > i32::MAX as usize {
        bail!("conv2d: an image of {h}x{width} is too large")
    }
    Ok(Geometry { n, h, w: width, c, o, kh, kw, stride, padding, oh, ow })
}

/// [`conv2d`]'s value alone, outside of Candle's graph.
///
/// # Errors
/// As [`conv2d`].
pub fn forward(x: &Tensor, w: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    let (x, w) = (activation(NAME, "x", x)?, input(NAME, "the weight", w)?);
    let g = geometry(x.dims(), w.dims(), stride, padding)?;
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(&x) {
        let y = cuda::forward(&gpu, &g, Memory::of(NAME, &gpu, &x)?, Memory::of(NAME, &gpu, &w)?)?;
        return y.into_tensor((g.n, g.oh, g.ow, g.o));
    }
    let (isa, w, shape) = (Isa::detect(), Dense::new(NAME, &w)?, (g.n, g.oh, g.ow, g.o));
    match x.dtype() {
        DType::BF16 => dense::tensor(bf16::forward(isa, &g, &Dense::new(NAME, &x)?, &w), shape),
        _ => dense::tensor(cpu::forward(isa, &g, &Dense::new(NAME, &x)?, &w), shape),
    }
}

/// The gradient of `sum(dy * conv2d(x, w))` for an `x` of the shape `input`, plus `add`, which has that shape; outside of
/// Candle's graph. Its type is that of `dy`, and of `add`.
///
/// `add` joins on the way of a result to memory: where a residual block's two gradients meet, it saves a pass over both.
///
/// # Errors
/// If `dy` is not `[N, H', W', O]` for these sizes, `add` has another shape than `input`, or as [`conv2d`].
pub fn input_grad(
    w: &Tensor,
    dy: &Tensor,
    input: [usize; 4],
    stride: usize,
    padding: usize,
    add: Option<&Tensor>,
) -> Result<Tensor> {
    let (w, dy) = (dense::input(NAME, "the weight", w)?, activation(NAME, "dy", dy)?);
    let g = geometry(&input, w.dims(), stride, padding)?;
    check_dy(&g, &dy)?;
    let add = add.map(|add| activation(NAME, "add", add)).transpose()?;
    if let Some(add) = add.as_ref().filter(|add| add.dims() != input) {
        bail!("conv2d: add has the shape {:?}, the input {input:?}", add.dims())
    }
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(&dy) {
        let of = |x| Memory::of(NAME, &gpu, x);
        let dx = cuda::input_grad(&gpu, &g, of(&w)?, of(&dy)?, add.as_ref().map(of).transpose()?)?;
        return dx.into_tensor(&input[..]);
    }
    let (isa, w) = (Isa::detect(), Dense::new(NAME, &w)?);
    match dy.dtype() {
        DType::BF16 => {
            let add = add.as_ref().map(|add| Dense::new(NAME, add)).transpose()?;
            dense::tensor(bf16::input_grad(isa, &g, &w, &Dense::new(NAME, &dy)?, add.as_deref()), &input[..])
        }
        _ => {
            let add = add.as_ref().map(|add| Dense::new(NAME, add)).transpose()?;
            dense::tensor(cpu::input_grad(isa, &g, &w, &Dense::new(NAME, &dy)?, add.as_deref()), &input[..])
        }
    }
}

/// The gradient of `sum(dy * conv2d(x, w))` for a `w` of the size `kernel` (kh, kw): `[O, kh, kw, C]`; outside of Candle's graph.
///
/// # Errors
/// If `dy` is not `[N, H', W', O]` for these sizes, or as [`conv2d`].
pub fn weight_grad(x: &Tensor, dy: &Tensor, kernel: [usize; 2], stride: usize, padding: usize) -> Result<Tensor> {
    let (x, dy) = (activation(NAME, "x", x)?, activation(NAME, "dy", dy)?);
    let (&[_, _, _, c], &[_, _, _, o]) = (x.dims(), dy.dims()) else {
        bail!("conv2d: x {:?} and dy {:?} must be [N, H, W, C] and [N, H', W', O]", x.dims(), dy.dims())
    };
    let g = geometry(x.dims(), &[o, kernel[0], kernel[1], c], stride, padding)?;
    check_dy(&g, &dy)?;
    #[cfg(feature = "cuda")]
    if let Some(gpu) = Gpu::of(&x) {
        let dw = cuda::weight_grad(&gpu, &g, Memory::of(NAME, &gpu, &x)?, Memory::of(NAME, &gpu, &dy)?)?;
        return dw.into_tensor((g.o, g.kh, g.kw, g.c));
    }
    let isa = Isa::detect();
    let dw = match x.dtype() {
        DType::BF16 => bf16::weight_grad(isa, &g, &Dense::new(NAME, &x)?, &Dense::new(NAME, &dy)?),
        _ => cpu::weight_grad(isa, &g, &Dense::new(NAME, &x)?, &Dense::new(NAME, &dy)?),
    };
    dense::tensor(dw, (g.o, g.kh, g.kw, g.c))
}

fn check_dy(g: &Geometry, dy: &Tensor) -> Result<()> {
    let expected = [g.n, g.oh, g.ow, g.o];
    if dy.dims() != expected {
        bail!("conv2d: dy has the shape {:?}, the output {expected:?}", dy.dims())
    }
    Ok(())
}

/// The forward pass as a node of Candle's graph.
struct Conv2d {
    geometry: Geometry,
}

impl CustomOp2 for Conv2d {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (isa, g, w) = (Isa::detect(), &self.geometry, slice(NAME, s2, l2)?);
        let y = match s1 {
            CpuStorage::BF16(_) => CpuStorage::BF16(bf16::forward(isa, g, slice(NAME, s1, l1)?, w)),
            _ => CpuStorage::F32(cpu::forward(isa, g, slice(NAME, s1, l1)?, w)),
        };
        Ok((y, (g.n, g.oh, g.ow, g.o).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout, s2: &CudaStorage, l2: &Layout) -> Result<(CudaStorage, Shape)> {
        let (gpu, g) = (Gpu::new(&s1.device), &self.geometry);
        let (x, w) = (Memory::of_storage(NAME, s1, l1)?, Memory::of_storage(NAME, s2, l2)?);
        Ok((cuda::forward(&gpu, g, x, w)?.into_storage(), (g.n, g.oh, g.ow, g.o).into()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let g = &self.geometry;
        let dx =
            x.track_op().then(|| input_grad(w, dy, [g.n, g.h, g.w, g.c], g.stride, g.padding, None)).transpose()?;
        let dw = w.track_op().then(|| weight_grad(x, dy, [g.kh, g.kw], g.stride, g.padding)).transpose()?;
        Ok((dx, dw))
    }
}
