//! Values and gradients over odd shapes, on every instruction set this machine has, and the errors' words.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::cpu;
use super::geometry::Geometry;
use super::{conv2d, forward, geometry, input_grad, reference, weight_grad};
use crate::check::{Array, Tolerance, check_op};
use crate::isa::Isa;

/// The op against seven f64 loops: `x` shape, `[O, kh, kw]`, stride, padding.
fn check(x: [usize; 4], [o, kh, kw]: [usize; 3], stride: usize, padding: usize) {
    let inputs = [Array::random(&x, 1), Array::random(&[o, kh, kw, x[3]], 2)];
    let reference = |at: &[Array]| reference::conv2d(&at[0], &at[1], stride, padding);
    check_op(&|at| conv2d(&at[0], &at[1], stride, padding), &reference, &inputs, Tolerance::default()).unwrap();
}

#[test]
fn three_by_three() {
    check([2, 4, 5, 3], [5, 3, 3], 1, 1);
}

#[test]
fn one_pixel_images() {
    check([1, 1, 1, 5], [3, 3, 3], 1, 1);
    check([3, 1, 1, 3], [2, 1, 1], 1, 0);
}

#[test]
fn strides_on_odd_sizes() {
    check([2, 5, 7, 3], [2, 3, 3], 2, 1);
    check([1, 5, 5, 3], [5, 1, 1], 2, 0);
    check([1, 4, 6, 2], [3, 1, 1], 3, 0);
}

/// The only output pixel of an image reads its first row, but that of the second image is not the batch's second row.
#[test]
fn strides_that_leave_one_pixel() {
    check([3, 2, 2, 4], [5, 1, 1], 2, 0);
    check([3, 2, 2, 20], [18, 3, 3], 2, 1);
    check([2, 1, 2, 3], [2, 1, 1], 2, 0);
}

#[test]
fn the_imagenet_stem() {
    check([1, 9, 7, 1], [2, 7, 7], 2, 3);
}

#[test]
fn kernels_that_are_not_square() {
    check([1, 5, 4, 2], [3, 2, 3], 2, 2);
}

#[test]
fn padding_wider_than_the_kernel_reaches() {
    check([1, 2, 3, 2], [2, 2, 2], 1, 3);
}

/// The f64 gradients of `sum(dy * conv2d(x, w))`, by the definition: dx and dw of a bilinear map are the map itself
/// with one argument swapped for unit vectors, summed up here directly.
pub(super) fn reference_grads(g: &Geometry, x: &Array, w: &Array, dy: &Array) -> (Vec<f64>, Vec<f64>) {
    let (mut dx, mut dw) = (vec![0.0; x.data.len()], vec![0.0; w.data.len()]);
    for (at, dy) in dy.data.iter().enumerate() {
        let (o, pixel) = (at % g.o, at / g.o);
        let (n, a, b) = (pixel / (g.oh * g.ow), pixel / g.ow % g.oh, pixel % g.ow);
        for i in 0..g.kh {
            for j in 0..g.kw {
                let (r, q) = ((a * g.stride + i).wrapping_sub(g.padding), (b * g.stride + j).wrapping_sub(g.padding));
                if r < g.h && q < g.w {
                    for c in 0..g.c {
                        let (at, to) = (((n * g.h + r) * g.w + q) * g.c + c, ((o * g.kh + i) * g.kw + j) * g.c + c);
                        dx[at] += dy * w.data[to];
                        dw[to] += dy * x.data[at];
                    }
                }
            }
        }
    }
    (dx, dw)
}

pub(super) fn assert_near(what: &str, got: &[f32], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1f64, |m, v| m.max(v.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((*g as f64 - e).abs() <= 5e-6 * scale, "{what}: element {i} is {g}, expected {e}");
    }
}

pub(super) fn f32s(x: &Array) -> Vec<f32> {
    x.data.iter().map(|&v| v as f32).collect()
}

/// Channels that fill no block, one block, several and a rest; pixels that fill no tile and several.
#[test]
fn every_instruction_set_equals_the_reference() {
    for (x, w, stride, padding) in [
        ([3, 9, 11, 17], [16, 3, 3, 17], 1, 1),
        ([2, 13, 12, 8], [70, 3, 3, 8], 2, 1),
        ([5, 7, 7, 13], [48, 1, 1, 13], 1, 0),
        ([4, 8, 8, 33], [40, 1, 1, 33], 2, 0),
        ([2, 20, 20, 3], [64, 7, 7, 3], 2, 3),
        ([1, 2, 2, 130], [129, 3, 3, 130], 1, 1),
        // Enough tiles for Winograd's algorithm in all passes.
        ([8, 9, 11, 33], [34, 3, 3, 33], 1, 1),
    ] {
        let g = geometry(&x, &w, stride, padding).unwrap();
        let (x, w) = (Array::random(&x, 3), Array::random(&w, 4));
        let dy = Array::random(&[g.n, g.oh, g.ow, g.o], 5);
        let y = reference::conv2d(&x, &w, stride, padding);
        let (dx, dw) = reference_grads(&g, &x, &w, &dy);
        let dx_and_x: Vec<f64> = dx.iter().zip(&x.data).map(|(dx, x)| dx + x).collect();
        let (x, w, dy) = (f32s(&x), f32s(&w), f32s(&dy));
        for isa in Isa::available() {
            assert_near(&format!("{isa:?} y {g:?}"), &cpu::forward(isa, &g, &x, &w), &y.data);
            assert_near(&format!("{isa:?} dx {g:?}"), &cpu::input_grad(isa, &g, &w, &dy, None), &dx);
            assert_near(&format!("{isa:?} dx + x {g:?}"), &cpu::input_grad(isa, &g, &w, &dy, Some(&x)), &dx_and_x);
            assert_near(&format!("{isa:?} dw {g:?}"), &cpu::weight_grad(isa, &g, &x, &dy), &dw);
        }
    }
}

/// The same bits on one thread and on three, for enough pixels that the weight gradient has several chunks.
#[test]
fn thread_counts_change_no_bit() {
    let g = geometry(&[16, 24, 24, 5], &[18, 3, 3, 5], 1, 1).unwrap();
    let (x, w) = (f32s(&Array::random(&[16, 24, 24, 5], 6)), f32s(&Array::random(&[18, 3, 3, 5], 7)));
    let dy = f32s(&Array::random(&[16, 24, 24, 18], 8));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let passes = |isa| {
                let dx = cpu::input_grad(isa, &g, &w, &dy, Some(&x));
                (cpu::forward(isa, &g, &x, &w), dx, cpu::weight_grad(isa, &g, &x, &dy))
            };
            Isa::available().map(passes).collect::<Vec<_>>()
        })
    };
    assert!(run(1) == run(3));
}

/// A NaN reaches the outputs whose window holds it and no other; an infinity does too.
#[test]
fn nan_and_infinity_pass_through() -> Result<()> {
    let mut data = vec![1f32; 5 * 5];
    data[0] = f32::NAN;
    data[24] = f32::INFINITY;
    let x = Tensor::from_vec(data, (1, 5, 5, 1), &Device::Cpu)?;
    let w = Tensor::ones((1, 3, 3, 1), DType::F32, &Device::Cpu)?;
    let y = conv2d(&x, &w, 1, 1)?.reshape((5, 5))?.to_vec2::<f32>()?;
    for (i, row) in y.iter().enumerate() {
        for (j, v) in row.iter().enumerate() {
            assert_eq!(v.is_nan(), i < 2 && j < 2, "({i}, {j}): {v}");
            assert_eq!(*v == f32::INFINITY, i > 2 && j > 2, "({i}, {j}): {v}");
        }
    }
    Ok(())
}

/// The functions outside of the graph take tensors of any layout and give what the graph gives.
#[test]
fn the_explicit_passes_equal_the_graph() -> Result<()> {
    let (x, w) = (Array::random(&[2, 5, 4, 3], 9).tensor()?, Array::random(&[6, 3, 3, 3], 10).tensor()?);
    let dy = Array::random(&[6, 3, 2, 2], 11).tensor()?.transpose(0, 3)?;
    let (x, w) = (Var::from_tensor(&x)?, Var::from_tensor(&w)?);
    let y = conv2d(x.as_tensor(), w.as_tensor(), 2, 1)?;
    let grads = y.mul(&dy)?.sum_all()?.backward()?;
    let values = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
    assert_eq!(values(&forward(&x, &w, 2, 1)?)?, values(&y)?);
    let dx = input_grad(&w, &dy, [2, 5, 4, 3], 2, 1, None)?;
    assert_eq!(values(&dx)?, values(&grads.get(x.as_tensor()).unwrap().contiguous()?)?);
    assert_eq!(values(&weight_grad(&x, &dy, [3, 3], 2, 1)?)?, values(grads.get(w.as_tensor()).unwrap())?);
    assert_eq!(values(&input_grad(&w, &dy, [2, 5, 4, 3], 2, 1, Some(&x))?)?, values(&(dx + x.as_tensor())?)?);
    Ok(())
}

#[test]
fn shapes_that_do_not_fit_are_refused_in_words() -> Result<()> {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
    let error = |x: &[usize], w: &[usize], stride| -> Result<String> {
        Ok(conv2d(&zeros(x)?, &zeros(w)?, stride, 0).unwrap_err().to_string())
    };
    assert!(error(&[1, 3, 8, 8], &[4, 3, 3, 3], 1)?.contains("has 8 channels, the weight [4, 3, 3, 3] expects 3"));
    assert!(error(&[1, 2, 2, 3], &[4, 3, 3, 3], 1)?.contains("the kernel 3x3 does not fit an image of 2x2"));
    assert!(error(&[2, 2, 3], &[4, 3, 3, 3], 1)?.contains("x must be [N, H, W, C]"));
    assert!(error(&[1, 4, 4, 3], &[4, 3, 3, 3], 0)?.contains("a size of 0"));
    let (w, dy) = (zeros(&[4, 3, 3, 3])?, zeros(&[1, 4, 4, 4])?);
    let error = input_grad(&w, &dy, [1, 5, 4, 3], 1, 1, None).unwrap_err().to_string();
    assert!(error.contains("dy has the shape [1, 4, 4, 4], the output [1, 5, 4, 4]"), "{error}");
    let error = input_grad(&w, &dy, [1, 4, 4, 3], 1, 1, Some(&zeros(&[1, 4, 3, 3])?)).unwrap_err().to_string();
    assert!(error.contains("add has the shape [1, 4, 3, 3], the input [1, 4, 4, 3]"), "{error}");
    let error = weight_grad(&zeros(&[1, 4, 4, 3])?, &dy, [3, 3], 2, 1).unwrap_err().to_string();
    assert!(error.contains("dy has the shape [1, 4, 4, 4], the output [1, 2, 2, 4]"), "{error}");
    let x = Tensor::zeros((1, 4, 4, 3), DType::F64, &Device::Cpu)?;
    let error = conv2d(&x, &Tensor::zeros((1, 1, 1, 3), DType::F32, &Device::Cpu)?, 1, 0).unwrap_err().to_string();
    assert!(error.contains("only f32 and bf16"), "{error}");
    Ok(())
}
