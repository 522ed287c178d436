//! Fully connected layer, `y = x w^T + bias`, with all of its gradients, in f32 or bf16.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};

use half::bf16;

use crate::dense::{Dense, activation, input, slice, tensor};
use crate::isa::Isa;
use cpu::Extents;

pub mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod words;

const NAME: &str = "linear";

/// `y = x w^T + bias`; `x`: `[N, I]`, `w`: `[O, I]` as in PyTorch, `bias`: `[O]`. Returns `[N, O]`.
///
/// `w` and `bias` are f32; y and the gradient of x have the type of `x`. Where that is bf16, products of bf16 numbers (`w`
/// is rounded to bf16 on the way) are added in f32 and the result is rounded once. The other gradients are f32.
///
/// The same bits whatever the number of threads. On a GPU f32 products are exact, or TF32 where Candle's switch
/// (`set_gemm_reduced_precision_f32`) allows that.
///
/// # Errors
/// If a shape does not fit, an extent is 0, `x` is not f32 or bf16, another tensor is not f32, or they lie on different devices.
pub fn linear(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (&[rows, inputs], &[outputs, columns]) = (x.dims(), w.dims()) else {
        bail!("{NAME}: x has shape {:?} and w {:?}; expected [N, I] and [O, I]", x.dims(), w.dims())
    };
    if inputs != columns || rows * inputs * outputs == 0 {
        bail!("{NAME}: x has shape {:?} and w {:?}; expected [N, I] and [O, I], none of them 0", x.dims(), w.dims())
    }
    let (x, w, op) = (activation(NAME, "x", x)?, input(NAME, "w", w)?, Linear(Extents { rows, inputs, outputs }));
    match bias {
        None => x.apply_op2(&w, op),
        Some(b) if b.dims() == [outputs] => x.apply_op3(&w, &input(NAME, "bias", b)?, op),
        Some(b) => bail!("{NAME}: the bias has shape {:?}; w {:?} asks for [{outputs}]", b.dims(), w.dims()),
    }
}

/// [`linear`]'s gradient for `x`, without a graph: `dx = dy w`, `[N, I]` in dy's type.
///
/// # Errors
/// As [`linear`], for `dy` `[N, O]` in place of x.
pub fn input_grad(w: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (&[outputs, inputs], &[rows, columns]) = (w.dims(), dy.dims()) else {
        bail!("{NAME}: w has shape {:?} and dy {:?}; expected [O, I] and [N, O]", w.dims(), dy.dims())
    };
    if outputs != columns {
        bail!("{NAME}: w has shape {:?} and dy {:?}; expected [O, I] and [N, O]", w.dims(), dy.dims())
    }
    let (w, dy, extents) = (input(NAME, "w", w)?, activation(NAME, "dy", dy)?, Extents { rows, inputs, outputs });
    #[cfg(feature = "cuda")]
    if let Some(gpu) = crate::cuda::Gpu::of(&dy) {
        return cuda::input_grad(&gpu, &w, &dy, extents);
    }
    let w = Dense::new(NAME, &w)?;
    let isa = Isa::detect();
    match dy.dtype() {
        DType::BF16 => tensor(cpu::to_inputs::<bf16>(isa, &Dense::new(NAME, &dy)?, &w, extents), (rows, inputs)),
        _ => tensor(cpu::to_inputs::<f32>(isa, &Dense::new(NAME, &dy)?, &w, extents), (rows, inputs)),
    }
}

/// [`linear`]'s gradient for `w`, without a graph: `dw = dy^T x`, `[O, I]` f32.
///
/// # Errors
/// As [`linear`], for `dy` `[N, O]` of x's type.
pub fn weight_grad(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (&[rows, inputs], &[same, outputs]) = (x.dims(), dy.dims()) else {
        bail!("{NAME}: x has shape {:?} and dy {:?}; expected [N, I] and [N, O]", x.dims(), dy.dims())
    };
    if rows != same || x.dtype() != dy.dtype() {
        bail!(
            "{NAME}: x is {:?} {:?} and dy {:?} {:?}; expected [N, I] and [N, O] of one type",
            x.dtype(),
            x.dims(),
            dy.dtype(),
            dy.dims()
        )
    }
    let (x, dy, extents) = (activation(NAME, "x", x)?, activation(NAME, "dy", dy)?, Extents { rows, inputs, outputs });
    #[cfg(feature = "cuda")]
    if let Some(gpu) = crate::cuda::Gpu::of(&dy) {
        return cuda::weight_grad(&gpu, &x, &dy, extents);
    }
    let isa = Isa::detect();
    let dw = match dy.dtype() {
        DType::BF16 => cpu::to_weights::<bf16>(isa, &Dense::new(NAME, &dy)?, &Dense::new(NAME, &x)?, extents),
        _ => cpu::to_weights::<f32>(isa, &Dense::new(NAME, &dy)?, &Dense::new(NAME, &x)?, extents),
    };
    tensor(dw, (outputs, inputs))
}

/// [`linear`]'s gradient for the bias, without a graph: the sum of dy's rows, `[O]` f32.
///
/// # Errors
/// If `dy` is not `[N, O]`, or neither f32 nor bf16.
pub fn bias_grad(dy: &Tensor) -> Result<Tensor> {
    let &[rows, outputs] = dy.dims() else { bail!("{NAME}: dy has shape {:?}; expected [N, O]", dy.dims()) };
    let (dy, extents) = (activation(NAME, "dy", dy)?, Extents { rows, inputs: 0, outputs });
    #[cfg(feature = "cuda")]
    if let Some(gpu) = crate::cuda::Gpu::of(&dy) {
        return cuda::bias_grad(&gpu, &dy, extents);
    }
    let db = match dy.dtype() {
        DType::BF16 => cpu::to_bias::<bf16>(&Dense::new(NAME, &dy)?, extents),
        _ => cpu::to_bias::<f32>(&Dense::new(NAME, &dy)?, extents),
    };
    tensor(db, outputs)
}

struct Linear(Extents);

impl Linear {
    /// The value, of x's type.
    fn forward(&self, x: &CpuStorage, l: &Layout, w: &[f32], bias: Option<&[f32]>) -> Result<(CpuStorage, Shape)> {
        let isa = Isa::detect();
        let y = match x {
            CpuStorage::BF16(_) => CpuStorage::BF16(cpu::value(isa, slice(NAME, x, l)?, w, bias, self.0)),
            _ => CpuStorage::F32(cpu::value(isa, slice(NAME, x, l)?, w, bias, self.0)),
        };
        Ok((y, self.shape()))
    }

    /// Gradients of x and w, each only if something asks for it.
    fn gradients(&self, x: &Tensor, w: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dx = x.track_op().then(|| input_grad(w, dy)).transpose()?;
        let dw = w.track_op().then(|| weight_grad(x, dy)).transpose()?;
        Ok((dx, dw))
    }

    fn shape(&self) -> Shape {
        (self.0.rows, self.0.outputs).into()
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(s1, l1, slice(NAME, s2, l2)?, None)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout, s2: &CudaStorage, l2: &Layout) -> Result<(CudaStorage, Shape)> {
        Ok((cuda::forward((s1, l1), (s2, l2), None, self.0)?, self.shape()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.gradients(x, w, &dy.contiguous()?)
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward(s1, l1, slice(NAME, s2, l2)?, Some(slice(NAME, s3, l3)?))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        Ok((cuda::forward((s1, l1), (s2, l2), Some((s3, l3)), self.0)?, self.shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let (dx, dw) = self.gradients(x, w, &dy)?;
        Ok((dx, dw, Some(bias_grad(&dy)?)))
    }
}
