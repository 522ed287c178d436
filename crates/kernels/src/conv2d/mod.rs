//! 2-d convolution, channels last, with exact gradients for input and weights, for any kernel, stride and padding.
//!
//! `y[n, a, b, o] = sum_{i, j, c} x[n, a s + i - p, b s + j - p, c] w[o, i, j, c]` (a cross-correlation, as in PyTorch).

#[cfg(target_arch = "x86_64")]
mod avx512;
mod cpu;
mod portable;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use crate::dense::{input, slice};
use cpu::{Geometry, Isa};

/// The convolution of `x` `[N, H, W, C]` with `w` `[O, kh, kw, C]`: `[N, H', W', O]` with
/// `H' = (H + 2 padding - kh) / stride + 1`, rounded down, and W' alike. No bias, one group, no dilation.
///
/// The gradient of an input that no variable leads to (the images) is not computed.
///
/// # Errors
/// If the ranks or channels do not fit, the padded image is smaller than the kernel, a size is 0, or a tensor is not
/// f32 on the CPU.
pub fn conv2d(x: &Tensor, w: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    let (x, w) = (input("conv2d", "x", x)?, input("conv2d", "the weight", w)?);
    let geometry = geometry(x.dims(), w.dims(), stride, padding)?;
    x.apply_op2(&w, Conv2d { geometry })
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

/// The forward pass: arguments `x`, `w`.
struct Conv2d {
    geometry: Geometry,
}

/// The gradient for `x`: arguments `w`, `dy`.
struct InputGrad {
    geometry: Geometry,
}

/// The gradient for `w`: arguments `x`, `dy`.
struct WeightGrad {
    geometry: Geometry,
}

impl CustomOp2 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let g = &self.geometry;
        let y = cpu::forward(Isa::detect(), g, slice("conv2d", s1, l1)?, slice("conv2d", s2, l2)?);
        Ok((CpuStorage::F32(y), (g.n, g.oh, g.ow, g.o).into()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let geometry = self.geometry;
        let dy = dy.contiguous()?;
        let dx = x.track_op().then(|| w.apply_op2_no_bwd(&dy, &InputGrad { geometry })).transpose()?;
        let dw = w.track_op().then(|| x.apply_op2_no_bwd(&dy, &WeightGrad { geometry })).transpose()?;
        Ok((dx, dw))
    }
}

impl CustomOp2 for InputGrad {
    fn name(&self) -> &'static str {
        "conv2d-input-grad"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let g = &self.geometry;
        let dx = cpu::input_grad(Isa::detect(), g, slice("conv2d", s1, l1)?, slice("conv2d", s2, l2)?);
        Ok((CpuStorage::F32(dx), (g.n, g.h, g.w, g.c).into()))
    }
}

impl CustomOp2 for WeightGrad {
    fn name(&self) -> &'static str {
        "conv2d-weight-grad"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let g = &self.geometry;
        let dw = cpu::weight_grad(Isa::detect(), g, slice("conv2d", s1, l1)?, slice("conv2d", s2, l2)?);
        Ok((CpuStorage::F32(dw), (g.o, g.kh, g.kw, g.c).into()))
    }
}
