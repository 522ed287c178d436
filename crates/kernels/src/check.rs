//! The harness that holds an op to its f64 reference: value, gradient, and every memory layout a caller may bring.
//!
//! ```
//! use diptych_kernels::check::{Array, Tolerance, check_op};
//!
//! let square = |x: &[candle_core::Tensor]| x[0].sqr();
//! let reference = |x: &[Array]| x[0].map(|v| v * v);
//! check_op(&square, &reference, &[Array::random(&[3, 4], 1)], Tolerance::default()).unwrap();
//! ```

use candle_core::{DType, Device, Result, Tensor, Var, bail};

/// A dense row-major array of f64, the reference's number type.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// The extent of each dimension; empty for a scalar.
    pub shape: Vec<usize>,
    /// The values, row-major.
    pub data: Vec<f64>,
}

impl Array {
    /// An array of this shape.
    ///
    /// # Panics
    /// If the number of values is not the shape's.
    pub fn new(shape: &[usize], data: Vec<f64>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "shape {shape:?} against {} values", data.len());
        Self { shape: shape.to_vec(), data }
    }

    /// Uniform values in [-1, 1), each exact in f32, so that the op and its reference see the same numbers.
    pub fn random(shape: &[usize], seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f64 / (1u64 << 23) as f64 - 1.0) as f32 as f64
        };
        Self::new(shape, (0..shape.iter().product()).map(|_| next()).collect())
    }

    /// The same shape with `f` applied to each value.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self::new(&self.shape, self.data.iter().map(|&v| f(v)).collect())
    }

    /// The same shape with every value rounded to bf16.
    pub fn rounded(&self) -> Self {
        // `from_f64` does not look at the lower half of a double, and takes what is just above a tie for one.
        self.map(|v| half::bf16::from_f32(v as f32).to_f64())
    }

    /// The array as an f32 tensor on the [`device`] of the tests.
    ///
    /// # Errors
    /// If Candle cannot make the tensor.
    pub fn tensor(&self) -> Result<Tensor> {
        let data: Vec<f32> = self.data.iter().map(|&v| v as f32).collect();
        Tensor::from_vec(data, self.shape.as_slice(), &device()?)
    }

    /// A tensor's values.
    ///
    /// # Errors
    /// If the tensor is not of a floating-point type.
    pub fn of(tensor: &Tensor) -> Result<Self> {
        let data = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
        Ok(Self::new(tensor.dims(), data))
    }
}

/// Where tests run: the CPU, or what the environment variable `DIPTYCH_TEST_DEVICE` names (`cpu`, `cuda`, `cuda:1`).
///
/// # Errors
/// If it names something else, or a device that is not there: a test never falls back to another one.
pub fn device() -> Result<Device> {
    match std::env::var("DIPTYCH_TEST_DEVICE").as_deref() {
        Err(_) | Ok("cpu") => Ok(Device::Cpu),
        #[cfg(feature = "cuda")]
        Ok(name) if name.starts_with("cuda") => {
            let ordinal = name.strip_prefix("cuda:").map_or(Ok(0), str::parse);
            let Ok(ordinal) = ordinal else { bail!("DIPTYCH_TEST_DEVICE is {name:?}; expected cpu, cuda or cuda:N") };
            crate::device::allow_tf32(tf32());
            crate::cuda::open(ordinal)
        }
        Ok(name) => bail!("DIPTYCH_TEST_DEVICE is {name:?}; expected cpu, or cuda in a build with that feature"),
    }
}

/// Whether `DIPTYCH_TEST_TF32=1` asks for products in TF32, where the [`device`] has them.
fn tf32() -> bool {
    std::env::var("DIPTYCH_TEST_TF32").is_ok_and(|value| value == "1")
}

/// How far a result may be from the reference, as a share of the largest expected magnitude (but at least 1).
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// For the op's value.
    pub value: f64,
    /// For its gradients.
    pub grad: f64,
}

impl Tolerance {
    /// Room for the rounding of results to bf16 (2^-9 of each value), and of sums of a few of them.
    pub const BF16: Self = Self { value: 5e-3, grad: 1e-2 };

    /// Room for products of numbers that were rounded to TF32 (2^-11 of each), and of sums of a few of them.
    pub const TF32: Self = Self { value: 2e-3, grad: 4e-3 };

    /// This, or what TF32 needs where the tests' products are of that kind.
    fn as_run(self) -> Self {
        match tf32() {
            true => Self { value: self.value.max(Self::TF32.value), grad: self.grad.max(Self::TF32.grad) },
            false => self,
        }
    }
}

impl Default for Tolerance {
    /// Room for f32 rounding in sums of a few hundred terms.
    fn default() -> Self {
        Self { value: 2e-6, grad: 5e-6 }
    }
}

/// How an input lies in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    Contiguous,
    /// First and last dimension swapped in memory.
    Transposed,
    /// Part of a larger tensor, beginning inside it.
    Offset,
    /// Every row a part of a longer row.
    Strided,
    /// One slice standing for all along the first dimension (this changes the values).
    Broadcast,
}

impl Layout {
    const ALL: [Self; 5] = [Self::Contiguous, Self::Transposed, Self::Offset, Self::Strided, Self::Broadcast];

    /// The stored tensor that [`Layout::view`] shows as `x`.
    fn store(self, x: &Tensor) -> Result<Tensor> {
        if x.rank() == 0 {
            return Ok(x.clone());
        }
        let last = x.rank() - 1;
        let junk = x.affine(0.5, 3.0)?;
        match self {
            Self::Contiguous => Ok(x.clone()),
            Self::Transposed => x.transpose(0, last)?.contiguous(),
            Self::Offset => Tensor::cat(&[&junk, x], 0),
            Self::Strided => Tensor::cat(&[&junk, x, &junk], last),
            Self::Broadcast => x.narrow(0, 0, 1)?.contiguous(),
        }
    }

    /// The view of a stored tensor (or of its gradient) with the logical shape `dims`.
    fn view(self, stored: &Tensor, dims: &[usize]) -> Result<Tensor> {
        let Some(last) = dims.len().checked_sub(1) else { return Ok(stored.clone()) };
        match self {
            Self::Contiguous => Ok(stored.clone()),
            Self::Transposed => stored.transpose(0, last),
            Self::Offset => stored.narrow(0, dims[0], dims[0]),
            Self::Strided => stored.narrow(last, dims[last], dims[last]),
            Self::Broadcast => stored.broadcast_as(dims),
        }
    }

    /// What the stored tensor's gradient should be after [`Layout::view`] (but for broadcasts, where it is the sum).
    fn expected(self, grad: &Array) -> Array {
        if self != Self::Broadcast || grad.shape.is_empty() {
            return grad.clone();
        }
        let mut shape = grad.shape.clone();
        shape[0] = 1;
        let row: usize = shape.iter().product();
        let sum = (0..row).map(|j| grad.data.iter().skip(j).step_by(row).sum()).collect();
        Array::new(&shape, sum)
    }

    fn values(self, x: &Array) -> Array {
        if self != Self::Broadcast || x.shape.is_empty() {
            return x.clone();
        }
        let row = x.data.len() / x.shape[0];
        Array::new(&x.shape, x.data[..row].repeat(x.shape[0]))
    }
}

/// The gradient of `sum(cotangent * reference(inputs))` for each input, by central differences.
fn finite_differences(reference: &dyn Fn(&[Array]) -> Array, inputs: &[Array], cotangent: &Array) -> Vec<Array> {
    let contract =
        |at: &[Array]| -> f64 { reference(at).data.iter().zip(&cotangent.data).map(|(y, c)| y * c).sum::<f64>() };
    let step = 1e-5;
    let mut at = inputs.to_vec();
    let mut grads = Vec::new();
    for i in 0..inputs.len() {
        let mut grad = inputs[i].clone();
        for j in 0..grad.data.len() {
            let v = inputs[i].data[j];
            at[i].data[j] = v + step;
            let above = contract(&at);
            at[i].data[j] = v - step;
            grad.data[j] = (above - contract(&at)) / (2.0 * step);
            at[i].data[j] = v;
        }
        grads.push(grad);
    }
    grads
}

fn compare(what: &str, got: &Array, expected: &Array, tolerance: f64) -> std::result::Result<(), String> {
    if got.shape != expected.shape {
        return Err(format!("{what}: shape {:?}, expected {:?}", got.shape, expected.shape));
    }
    let scale = expected.data.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (g, e)) in got.data.iter().zip(&expected.data).enumerate() {
        // A NaN on either side is not near.
        let near = (g - e).abs() <= tolerance * scale;
        if !near {
            return Err(format!("{what}: element {i} is {g}, expected {e} (scale {scale}, tolerance {tolerance})"));
        }
    }
    Ok(())
}

/// Holds `op` to `reference` on these inputs: the value, and the gradient of every input against central differences
/// of the f64 reference contracted with a random cotangent.
///
/// Inputs come contiguous, transposed, offset, strided and broadcast; each is tracked alone as well as all together;
/// the cotangent comes contiguous, transposed and broadcast. The inputs should be small (the reference runs twice for
/// each element) and stay 1e-4 away from kinks. What the op does not differentiate belongs into the closure, not
/// among the inputs.
///
/// # Errors
/// A sentence that names the layout, the input and the first element that is wrong.
pub fn check_op(
    op: &dyn Fn(&[Tensor]) -> Result<Tensor>,
    reference: &dyn Fn(&[Array]) -> Array,
    inputs: &[Array],
    tolerance: Tolerance,
) -> std::result::Result<(), String> {
    check(op, reference, inputs, &vec![DType::F32; inputs.len()], tolerance)
}

/// [`check_op`] in bf16: the inputs whose numbers are in `which` are rounded to bf16 and given to the op as such, the
/// others stay f32. The reference sees the same rounded numbers in f64.
///
/// The cotangent is rounded to bf16 too and given in the type of the op's value; gradients must have their input's type.
///
/// # Errors
/// As [`check_op`].
pub fn check_op_bf16(
    op: &dyn Fn(&[Tensor]) -> Result<Tensor>,
    reference: &dyn Fn(&[Array]) -> Array,
    inputs: &[Array],
    which: &[usize],
    tolerance: Tolerance,
) -> std::result::Result<(), String> {
    let rounded = |(i, x): (usize, &Array)| if which.contains(&i) { x.rounded() } else { x.clone() };
    let inputs: Vec<Array> = inputs.iter().enumerate().map(rounded).collect();
    let types: Vec<DType> =
        (0..inputs.len()).map(|i| if which.contains(&i) { DType::BF16 } else { DType::F32 }).collect();
    check(op, reference, &inputs, &types, tolerance)
}

fn check(
    op: &dyn Fn(&[Tensor]) -> Result<Tensor>,
    reference: &dyn Fn(&[Array]) -> Array,
    inputs: &[Array],
    types: &[DType],
    tolerance: Tolerance,
) -> std::result::Result<(), String> {
    let tolerance = tolerance.as_run();
    let cotangent = |shape: &[usize]| {
        let values = Array::random(shape, 77);
        if types.contains(&DType::BF16) { values.rounded() } else { values }
    };
    for layout in Layout::ALL {
        let values: Vec<Array> = inputs.iter().map(|x| layout.values(x)).collect();
        let expected = reference(&values);
        for cotangent_layout in [Layout::Contiguous, Layout::Transposed, Layout::Broadcast] {
            if layout != Layout::Contiguous && cotangent_layout != Layout::Contiguous {
                continue;
            }
            let cotangent = cotangent_layout.values(&cotangent(&expected.shape));
            let expected_grads = finite_differences(reference, &values, &cotangent);
            // Which inputs are tracked: all of them, then each alone.
            for tracked in std::iter::once(None).chain((0..inputs.len()).map(Some)) {
                let what = format!("{layout:?} inputs, {cotangent_layout:?} cotangent, tracked {tracked:?}");
                let run = || -> Result<(Array, Vec<Option<Array>>)> {
                    let mut vars = Vec::new();
                    let mut views = Vec::new();
                    for (i, x) in values.iter().enumerate() {
                        let var = Var::from_tensor(&layout.store(&x.tensor()?.to_dtype(types[i])?)?)?;
                        let seen =
                            if tracked.is_none_or(|t| t == i) { var.as_tensor() } else { &var.as_detached_tensor() };
                        views.push(layout.view(seen, &x.shape)?);
                        vars.push(var);
                    }
                    let y = op(&views)?;
                    let c = cotangent_layout.store(&cotangent.tensor()?.to_dtype(y.dtype())?)?;
                    let c = cotangent_layout.view(&c, &cotangent.shape)?;
                    if y.dims() != c.dims() {
                        return Ok((Array::of(&y)?, Vec::new()));
                    }
                    // Flat, as Candle has no sum over no dimension on a GPU.
                    let grads = y.mul(&c)?.flatten_all()?.sum_all()?.backward()?;
                    let mut out = Vec::new();
                    for (var, x) in vars.iter().zip(&values) {
                        let grad = grads.get(var.as_tensor());
                        if let Some(grad) = grad.filter(|g| g.dtype() != var.dtype()) {
                            bail!("a gradient is {:?}, its input {:?}", grad.dtype(), var.dtype())
                        }
                        // A broadcast is checked where it was summed, on the stored slice.
                        let seen = grad.map(|g| match layout {
                            Layout::Broadcast => Ok(g.clone()),
                            _ => layout.view(g, &x.shape),
                        });
                        out.push(seen.transpose()?.as_ref().map(Array::of).transpose()?);
                    }
                    Ok((Array::of(&y)?, out))
                };
                let (value, grads) = run().map_err(|e| format!("{what}: {e}"))?;
                compare(&format!("{what}: value"), &value, &expected, tolerance.value)?;
                for (i, grad) in grads.iter().enumerate().filter(|(i, _)| tracked.is_none_or(|t| t == *i)) {
                    let Some(grad) = grad else { return Err(format!("{what}: input {i} has no gradient")) };
                    let expected = layout.expected(&expected_grads[i]);
                    // Candle sums a broadcast's gradient in its type, and rounds at every step of the sum.
                    let summed_in_bf16 = layout == Layout::Broadcast && types[i] == DType::BF16;
                    let tolerance = if summed_in_bf16 { 4.0 * tolerance.grad } else { tolerance.grad };
                    compare(&format!("{what}: gradient of input {i}"), grad, &expected, tolerance)?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::backend::{BackendDevice, BackendStorage};
    use candle_core::{CpuStorage, CudaStorage, CustomOp1, Shape};

    /// x^2 that takes its input for contiguous, with a backward of `factor` x, which must be 2.
    struct Square {
        factor: f64,
    }

    impl CustomOp1 for Square {
        fn name(&self) -> &'static str {
            "square"
        }

        fn cpu_fwd(&self, storage: &CpuStorage, layout: &candle_core::Layout) -> Result<(CpuStorage, Shape)> {
            let x = storage.as_slice::<f32>()?;
            let x = x[layout.start_offset()..].iter().cycle();
            let y = x.take(layout.shape().elem_count()).map(|v| v * v).collect();
            Ok((CpuStorage::F32(y), layout.shape().clone()))
        }

        /// On the CPU: what is tested is the check.
        fn cuda_fwd(&self, storage: &CudaStorage, layout: &candle_core::Layout) -> Result<(CudaStorage, Shape)> {
            let (y, shape) = self.cpu_fwd(&storage.to_cpu_storage()?, layout)?;
            Ok((storage.device().storage_from_cpu_storage(&y)?, shape))
        }

        fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
            Ok(Some((x * dy)?.affine(self.factor, 0.0)?))
        }
    }

    fn check_square(factor: f64, any_layout: bool) -> std::result::Result<(), String> {
        let op = move |x: &[Tensor]| match any_layout {
            true => x[0].contiguous()?.apply_op1(Square { factor }),
            false => x[0].apply_op1(Square { factor }),
        };
        let reference = |x: &[Array]| x[0].map(|v| v * v);
        check_op(&op, &reference, &[Array::random(&[3, 2, 5], 4)], Tolerance::default())
    }

    #[test]
    fn a_right_op_passes() {
        check_square(2.0, true).unwrap();
    }

    /// In bf16: the sum of two inputs passes; a value or a gradient that is 3 % off does not.
    #[test]
    fn bf16_is_held_to_its_own_tolerance() {
        let scaled = |factor: f64| {
            let op = move |x: &[Tensor]| (&x[0] + x[1].to_dtype(DType::BF16)?)?.affine(factor, 0.0);
            let reference =
                |x: &[Array]| Array::new(&x[0].shape, x[0].data.iter().zip(&x[1].data).map(|(a, b)| a + b).collect());
            let inputs = [Array::random(&[3, 2, 5], 4), Array::random(&[3, 2, 5], 5)];
            check_op_bf16(&op, &reference, &inputs, &[0], Tolerance::BF16)
        };
        scaled(1.0).unwrap();
        scaled(1.03).unwrap_err();
    }

    #[test]
    fn a_planted_wrong_backward_is_caught() {
        let error = check_square(2.001, true).unwrap_err();
        assert!(error.contains("gradient of input 0"), "{error}");
    }

    #[test]
    fn an_op_that_ignores_strides_is_caught() {
        let error = check_square(2.0, false).unwrap_err();
        assert!(error.contains("Transposed inputs") && error.contains("value"), "{error}");
    }

    /// Values by hand: y = a b, so da = b c and db = a c; a missing gradient (a detached input) must be reported.
    #[test]
    fn a_missing_gradient_is_caught() {
        let op = |x: &[Tensor]| x[0].mul(&x[1].detach());
        let reference =
            |x: &[Array]| Array::new(&x[0].shape, x[0].data.iter().zip(&x[1].data).map(|(a, b)| a * b).collect());
        let inputs = [Array::random(&[2, 3], 1), Array::random(&[2, 3], 2)];
        let error = check_op(&op, &reference, &inputs, Tolerance::default()).unwrap_err();
        assert!(error.contains("input 1 has no gradient"), "{error}");
    }
}
