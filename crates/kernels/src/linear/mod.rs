//! Fully connected layer, `y = x w^T + bias`, with all of its gradients, in f32 or bf16.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};

use crate::dense::{Dense, activation, input, narrow, round, slice, tensor, widen};
use cpu::Extents;

pub mod cpu;
#[cfg(test)]
mod reference;

const NAME: &str = "linear";

/// `y = x w^T + bias`; `x`: `[N, I]`, `w`: `[O, I]` as in PyTorch, `bias`: `[O]`. Returns `[N, O]`.
///
/// `w` and `bias` are f32; y and the gradient of x have the type of `x`. Where that is bf16, products of bf16 numbers (`w`
/// is rounded to bf16 on the way) are added in f32 and the result is rounded once. The other gradients are f32.
///
/// The same bits whatever the number of threads.
///
/// # Errors
/// If a shape does not fit, an extent is 0, `x` is not f32 or bf16, another tensor is not f32, or one is not on the CPU.
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
    let w = Dense::new(NAME, &w)?;
    match dy.dtype() {
        DType::BF16 => {
            let dx = cpu::input_gradient(&widen(&Dense::new(NAME, &dy)?), &round(&w), extents);
            tensor(narrow(&dx), (rows, inputs))
        }
        _ => tensor(cpu::input_gradient(&Dense::new(NAME, &dy)?, &w, extents), (rows, inputs)),
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
    let dw = match dy.dtype() {
        DType::BF16 => cpu::weight_gradient(&widen(&Dense::new(NAME, &dy)?), &widen(&Dense::new(NAME, &x)?), extents),
        _ => cpu::weight_gradient(&Dense::new(NAME, &dy)?, &Dense::new(NAME, &x)?, extents),
    };
    tensor(dw, (outputs, inputs))
}

/// [`linear`]'s gradient for the bias, without a graph: the sum of dy's rows, `[O]` f32.
///
/// # Errors
/// If `dy` is not `[N, O]`, f32 or bf16 and on the CPU.
pub fn bias_grad(dy: &Tensor) -> Result<Tensor> {
    let &[rows, outputs] = dy.dims() else { bail!("{NAME}: dy has shape {:?}; expected [N, O]", dy.dims()) };
    let (dy, extents) = (activation(NAME, "dy", dy)?, Extents { rows, inputs: 0, outputs });
    let db = match dy.dtype() {
        DType::BF16 => cpu::bias_gradient(&widen(&Dense::new(NAME, &dy)?), extents),
        _ => cpu::bias_gradient(&Dense::new(NAME, &dy)?, extents),
    };
    tensor(db, outputs)
}

struct Linear(Extents);

impl Linear {
    /// The value, of x's type.
    fn forward(&self, x: &CpuStorage, l: &Layout, w: &[f32], bias: Option<&[f32]>) -> Result<(CpuStorage, Shape)> {
        let y = match x {
            CpuStorage::BF16(_) => {
                CpuStorage::BF16(narrow(&cpu::forward(&widen(slice(NAME, x, l)?), &round(w), bias, self.0)))
            }
            _ => CpuStorage::F32(cpu::forward(slice(NAME, x, l)?, w, bias, self.0)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Array, Tolerance, check_op, check_op_bf16};
    use candle_core::{Device, Var};

    fn check(rows: usize, inputs: usize, outputs: usize, bias: bool) {
        let op = |t: &[Tensor]| linear(&t[0], &t[1], t.get(2));
        let reference = move |a: &[Array]| {
            let bias = a.get(2).map(|b| b.data.as_slice());
            Array::new(&[rows, outputs], reference::linear(&a[0].data, &a[1].data, bias, inputs))
        };
        let mut all = vec![Array::random(&[rows, inputs], 1), Array::random(&[outputs, inputs], 2)];
        if bias {
            all.push(Array::random(&[outputs], 3));
        }
        check_op(&op, &reference, &all, Tolerance::default()).unwrap();
        // The op rounds w itself.
        all[1] = all[1].rounded();
        check_op_bf16(&op, &reference, &all, &[0], Tolerance::BF16).unwrap();
    }

    #[test]
    fn linear_equals_the_reference() {
        check(5, 7, 3, true);
        check(5, 7, 3, false);
        check(1, 33, 2, true);
        check(17, 1, 19, true);
    }

    /// The same bits from 1, 2 and 5 threads, on products large enough for gemm to share them out.
    #[test]
    fn the_number_of_threads_changes_nothing() -> Result<()> {
        let shapes = [(301, 517, 259), (64, 2048, 96), (1030, 128, 128), (16, 300, 1030)];
        for ((rows, inputs, outputs), dtype) in shapes.into_iter().flat_map(|s| [(s, DType::F32), (s, DType::BF16)]) {
            let run = || -> Result<Vec<Vec<u32>>> {
                let vars = [
                    Array::random(&[rows, inputs], 1),
                    Array::random(&[outputs, inputs], 2),
                    Array::random(&[outputs], 3),
                ]
                .map(|a| Var::from_tensor(&a.tensor().unwrap()).unwrap());
                let y = linear(&vars[0].to_dtype(dtype)?, &vars[1], Some(&vars[2]))?;
                let grads = y.sqr()?.sum_all()?.backward()?;
                std::iter::once(&y)
                    .chain(vars.iter().map(|v| grads.get(v).unwrap()))
                    .map(|t| {
                        Ok(t.to_dtype(DType::F32)?
                            .flatten_all()?
                            .to_vec1::<f32>()?
                            .into_iter()
                            .map(f32::to_bits)
                            .collect())
                    })
                    .collect()
            };
            let with = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run);
            let one = with(1)?;
            assert!(one == with(2)?, "2 threads differ from 1 on {rows} x {inputs} x {outputs}");
            assert!(one == with(5)?, "5 threads differ from 1 on {rows} x {inputs} x {outputs}");
        }
        Ok(())
    }

    #[test]
    fn wrong_shapes_are_named() -> Result<()> {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu);
        let error = linear(&zeros(&[2, 3])?, &zeros(&[4, 2])?, None).unwrap_err().to_string();
        assert!(error.contains("x has shape [2, 3] and w [4, 2]"), "{error}");
        let error = linear(&zeros(&[2, 3])?, &zeros(&[4, 3])?, Some(&zeros(&[3])?)).unwrap_err().to_string();
        assert!(error.contains("the bias has shape [3]"), "{error}");
        Ok(())
    }
}
