//! Max pooling and global average pooling.
//!
//! Max pooling keeps nothing between forward and backward: the place of each maximum is found again from x, which costs one more read
//! of it and saves an index per output element.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, bail};

use crate::dense::{Dense, input, slice};
use cpu::Window;

pub mod cpu;
#[cfg(test)]
mod reference;

const MAX: &str = "max_pool2d";
const AVERAGE: &str = "global_avg_pool";

/// Maximum over square windows, as PyTorch's `max_pool2d` (dilation 1, ceil_mode false): x is padded with -inf.
///
/// `x`: `[N, H, W, C]`. Returns `[N, H', W', C]` with `H' = (H + 2 padding - kernel) / stride + 1`, rounded down. The gradient goes to the
/// first maximum of a window, in row-major order. A NaN in a window is its result.
///
/// # Errors
/// If x is not of rank 4, f32 and on the CPU, `kernel` or `stride` is 0, `padding` is more than half the kernel, or the window is larger than
/// the padded image.
pub fn max_pool2d(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    let &[_, height, width, channels] = x.dims() else {
        bail!("{MAX}: x has shape {:?}; expected [N, H, W, C]", x.dims())
    };
    if kernel == 0 || stride == 0 || padding > kernel / 2 {
        bail!(
            "{MAX}: kernel {kernel}, stride {stride}, padding {padding}; expected kernel and stride above 0 and padding at most kernel / 2"
        )
    }
    let (h, w) = (height + 2 * padding, width + 2 * padding);
    if h < kernel || w < kernel || channels == 0 {
        bail!("{MAX}: x of shape {:?} is smaller than the window ({kernel}, padding {padding})", x.dims())
    }
    let output = [(h - kernel) / stride + 1, (w - kernel) / stride + 1];
    input(MAX, "x", x)?.apply_op1(MaxPool(Window { input: [height, width, channels], output, kernel, stride, padding }))
}

struct MaxPool(Window);

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        MAX
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = cpu::max_pool(slice(MAX, storage, layout)?, self.0);
        let [h, w] = self.0.output;
        Ok((CpuStorage::F32(y), (layout.dims()[0], h, w, self.0.input[2]).into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let dx = cpu::max_pool_backward(&Dense::new(MAX, &dy)?, &Dense::new(MAX, x)?, self.0);
        Tensor::from_vec(dx, x.shape(), &Device::Cpu).map(Some)
    }
}

/// Mean over height and width: `[N, H, W, C]` to `[N, C]`.
///
/// # Errors
/// If x is not of rank 4, f32 and on the CPU, or has no pixel.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    let &[_, height, width, channels] = x.dims() else {
        bail!("{AVERAGE}: x has shape {:?}; expected [N, H, W, C]", x.dims())
    };
    if height * width * channels == 0 {
        bail!("{AVERAGE}: x of shape {:?} has no pixel", x.dims())
    }
    input(AVERAGE, "x", x)?.apply_op1(AveragePool { pixels: height * width, channels })
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
        let y = cpu::average(slice(AVERAGE, storage, layout)?, self.pixels, self.channels);
        Ok((CpuStorage::F32(y), (layout.dims()[0], self.channels).into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let dx = cpu::average_backward(&Dense::new(AVERAGE, &dy)?, self.pixels, self.channels);
        Tensor::from_vec(dx, x.shape(), &Device::Cpu).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Array, Tolerance, check_op};
    use candle_core::Var;

    fn check_max(shape: [usize; 4], kernel: usize, stride: usize, padding: usize) {
        let reference = move |a: &[Array]| {
            let [n, height, width, channels] = shape;
            let output = [height, width].map(|v| (v + 2 * padding - kernel) / stride + 1);
            let window = Window { input: [height, width, channels], output, kernel, stride, padding };
            Array::new(&[n, output[0], output[1], channels], reference::max_pool(&a[0].data, n, window))
        };
        // A shuffled grid: values far enough from each other that a finite difference meets no tie.
        let n: usize = shape.iter().product();
        let x = Array::new(&shape, (0..n).map(|i| (i * 7919 % n) as f64 / 64.0 - 1.0).collect());
        check_op(&|t| max_pool2d(&t[0], kernel, stride, padding), &reference, &[x], Tolerance::default()).unwrap();
    }

    #[test]
    fn max_pool_equals_the_reference() {
        check_max([2, 7, 5, 3], 3, 2, 1);
        check_max([1, 5, 6, 2], 2, 2, 0);
        check_max([2, 4, 3, 1], 3, 1, 1);
        check_max([1, 3, 7, 2], 1, 3, 0);
    }

    #[test]
    fn average_equals_the_reference() {
        let reference = |a: &[Array]| {
            let s = &a[0].shape;
            Array::new(&[s[0], s[3]], reference::average(&a[0].data, s[1] * s[2], s[3]))
        };
        for (shape, seed) in [([3, 2, 5, 7], 1), ([1, 1, 1, 3], 2)] {
            check_op(&|t| global_avg_pool(&t[0]), &reference, &[Array::random(&shape, seed)], Tolerance::default())
                .unwrap();
        }
    }

    fn gradient_of_sum(x: &[f32], side: usize, kernel: usize) -> Result<Vec<f32>> {
        let x = Var::from_slice(x, (1, side, side, 1), &Device::Cpu)?;
        let grads = max_pool2d(&x, kernel, 1, 0)?.sum_all()?.backward()?;
        grads.get(&x).unwrap().flatten_all()?.to_vec1()
    }

    /// PyTorch 2.15: F.max_pool2d(torch.ones(1, 1, 3, 3), 2, 1).sum() has gradient [[1, 1, 0], [1, 1, 0], [0, 0, 0]].
    #[test]
    fn ties_give_the_gradient_to_the_first() -> Result<()> {
        assert_eq!(gradient_of_sum(&[1.0; 9], 3, 2)?, [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(gradient_of_sum(&[f32::NEG_INFINITY; 4], 2, 2)?, [1.0, 0.0, 0.0, 0.0]);
        Ok(())
    }

    /// PyTorch 2.15: the same on [[1, nan], [nan, 3]] gives nan and gradient [[0, 0], [1, 0]].
    #[test]
    fn nan_propagates() -> Result<()> {
        let x = [1.0, f32::NAN, f32::NAN, 3.0];
        let y = max_pool2d(&Tensor::from_slice(&x, (1, 2, 2, 1), &Device::Cpu)?, 2, 1, 0)?;
        assert!(y.flatten_all()?.to_vec1::<f32>()?[0].is_nan());
        assert_eq!(gradient_of_sum(&x, 2, 2)?, [0.0, 0.0, 1.0, 0.0]);
        Ok(())
    }

    #[test]
    fn impossible_windows_are_refused() -> Result<()> {
        let x = Tensor::zeros((1, 2, 2, 1), candle_core::DType::F32, &Device::Cpu)?;
        for (kernel, stride, padding) in [(3, 1, 0), (0, 1, 0), (2, 0, 0), (2, 1, 2)] {
            assert!(max_pool2d(&x, kernel, stride, padding).is_err(), "{kernel} {stride} {padding}");
        }
        Ok(())
    }
}
