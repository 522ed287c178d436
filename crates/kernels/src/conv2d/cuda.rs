//! Convolution on a GPU: cuBLAS where it is a plain matrix product, else cuDNN, else our own kernels.

use std::sync::OnceLock;

use candle_core::cuda_backend::gemm_reduced_precision_f32;
use candle_core::{DType, Result, bail};

use super::cudnn::{self, Arrays, Convolution, Pass};
use super::geometry::Geometry;
use super::{NAME, implicit};
use crate::cuda::gemm::{Matrix, gemm};
use crate::cuda::{Buffer, Gpu, Memory, cast, cast_into};

/// What may be used where it can; our own kernels can all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ways {
    /// cuBLAS for kernels of one pixel and stride 1.
    pub(super) products: bool,
    pub(super) cudnn: bool,
    /// TF32 for products of f32 numbers, but in cuBLAS, which goes by Candle's switch.
    pub(super) tf32: bool,
}

impl Ways {
    /// All of them, or what `DIPTYCH_CUDNN=off` leaves.
    fn usual() -> Self {
        Self { products: true, cudnn: !switched_off(), tf32: gemm_reduced_precision_f32() }
    }
}

/// Whether `DIPTYCH_CUDNN` is `off`: asked once per process.
fn switched_off() -> bool {
    static OFF: OnceLock<bool> = OnceLock::new();
    *OFF.get_or_init(|| std::env::var("DIPTYCH_CUDNN").is_ok_and(|value| value == "off"))
}

/// What convolutions of this device run by, in words.
pub(super) fn algorithm(gpu: &Gpu) -> String {
    match (switched_off(), cudnn::version(gpu)) {
        (true, _) => "our kernels (DIPTYCH_CUDNN=off)".into(),
        (_, Some(v)) => format!("cuDNN {}.{}.{}", v / 10_000, v / 100 % 100, v % 100),
        (_, None) => "our kernels (no cuDNN found)".into(),
    }
}

/// The sizes as cuDNN and the kernels count; an error in words where 32 bits do not suffice.
fn sizes(g: &Geometry) -> Result<[i32; 11]> {
    /// Room for an index to run over the end of a list of pixels by a tile.
    const MOST: usize = i32::MAX as usize - (1 << 16);
    let pixels = g.n * (g.h * g.w).max(g.oh * g.ow);
    if pixels > MOST || g.o * g.kh * g.kw * g.c > MOST || g.stride * g.stride > 65_535 || g.kh * g.kw > 65_535 {
        bail!("{NAME}: the sizes {g:?} are too large for a GPU; take fewer images at once")
    }
    Ok([g.n, g.h, g.w, g.c, g.o, g.kh, g.kw, g.stride, g.padding, g.oh, g.ow].map(|size| size as i32))
}

/// Whether pixels are rows of a matrix and the convolution is a product.
fn pointwise(g: &Geometry) -> bool {
    (g.kh, g.kw, g.stride, g.padding) == (1, 1, 1, 0)
}

/// `y` of `x` and `w`; `w` is f32.
pub(super) fn forward(gpu: &Gpu, g: &Geometry, x: Memory, w: Memory) -> Result<Buffer> {
    forward_by(Ways::usual(), gpu, g, x, w)
}

pub(super) fn forward_by(ways: Ways, gpu: &Gpu, g: &Geometry, x: Memory, w: Memory) -> Result<Buffer> {
    let sizes = sizes(g)?;
    let w = cast(NAME, gpu, w, x.dtype())?;
    let (w, pixels) = (w.memory(), g.n * g.oh * g.ow);
    let y = gpu.alloc(x.dtype(), pixels * g.o)?;
    if ways.products && pointwise(g) {
        let (a, b, c) = (Matrix::rows(x, g.c), Matrix::rows(w, g.c).t(), Matrix::rows(y.memory(), g.o));
        gemm(NAME, gpu, [pixels, g.o, g.c], 1.0, a, b, 0.0, c)?;
    } else if !(ways.cudnn
        && cudnn::run(
            gpu,
            Convolution { pass: Pass::Forward, sizes, tf32: ways.tf32 },
            Arrays { x, w, y: y.memory() },
            None,
        )?)
    {
        implicit::forward(gpu, ways.tf32, g, x, w, y.memory())?;
    }
    Ok(y)
}

/// The gradient of x, plus `add`; `w` is f32.
pub(super) fn input_grad(gpu: &Gpu, g: &Geometry, w: Memory, dy: Memory, add: Option<Memory>) -> Result<Buffer> {
    input_grad_by(Ways::usual(), gpu, g, w, dy, add)
}

pub(super) fn input_grad_by(
    ways: Ways,
    gpu: &Gpu,
    g: &Geometry,
    w: Memory,
    dy: Memory,
    add: Option<Memory>,
) -> Result<Buffer> {
    let (sizes, pixels) = (sizes(g)?, g.n * g.h * g.w);
    let dx = gpu.alloc(dy.dtype(), pixels * g.c)?;
    let x = dx.memory();
    if let Some(add) = add.filter(|add| add.dtype() != dy.dtype()) {
        bail!("{NAME}: add is {:?}, dy {:?}; expected one type", add.dtype(), dy.dtype())
    }
    if ways.products && pointwise(g) {
        let w = cast(NAME, gpu, w, dy.dtype())?;
        add.map(|add| gpu.copy(add, x)).transpose()?;
        let beta = if add.is_some() { 1.0 } else { 0.0 };
        let (a, b, c) = (Matrix::rows(dy, g.o), Matrix::rows(w.memory(), g.c), Matrix::rows(x, g.c));
        gemm(NAME, gpu, [pixels, g.c, g.o], 1.0, a, b, beta, c)?;
        return Ok(dx);
    }
    if ways.cudnn {
        let w = cast(NAME, gpu, w, dy.dtype())?;
        if cudnn::run(
            gpu,
            Convolution { pass: Pass::InputGrad, sizes, tf32: ways.tf32 },
            Arrays { x, w: w.memory(), y: dy },
            add,
        )? {
            return Ok(dx);
        }
    }
    implicit::input_grad(gpu, ways.tf32, g, w, dy, add, x)?;
    Ok(dx)
}

/// The gradient of w, f32.
pub(super) fn weight_grad(gpu: &Gpu, g: &Geometry, x: Memory, dy: Memory) -> Result<Buffer> {
    weight_grad_by(Ways::usual(), gpu, g, x, dy)
}

pub(super) fn weight_grad_by(ways: Ways, gpu: &Gpu, g: &Geometry, x: Memory, dy: Memory) -> Result<Buffer> {
    let (sizes, pixels) = (sizes(g)?, g.n * g.oh * g.ow);
    if x.dtype() != dy.dtype() {
        bail!("{NAME}: x is {:?}, dy {:?}; expected one type", x.dtype(), dy.dtype())
    }
    let dw = gpu.alloc(DType::F32, g.o * g.kh * g.kw * g.c)?;
    if ways.products && pointwise(g) {
        let (a, b, c) = (Matrix::rows(dy, g.o).t(), Matrix::rows(x, g.c), Matrix::rows(dw.memory(), g.c));
        gemm(NAME, gpu, [g.o, g.c, pixels], 1.0, a, b, 0.0, c)?;
        return Ok(dw);
    }
    let by_cudnn = |w: Memory| {
        cudnn::run(gpu, Convolution { pass: Pass::WeightGrad, sizes, tf32: ways.tf32 }, Arrays { x, w, y: dy }, None)
    };
    if ways.cudnn {
        if by_cudnn(dw.memory())? {
            return Ok(dw);
        }
        // cuDNN may have sums of bf16 products in bf16 only.
        if x.dtype() == DType::BF16 {
            let rounded = gpu.alloc(DType::BF16, g.o * g.kh * g.kw * g.c)?;
            if by_cudnn(rounded.memory())? {
                cast_into(NAME, gpu, rounded.memory(), dw.memory())?;
                return Ok(dw);
            }
        }
    }
    implicit::weight_grad(gpu, ways.tf32, g, x, dy, dw.memory())?;
    Ok(dw)
}
