//! bf16 convolution against f64 on the same rounded numbers, on every instruction set that this machine has.

use candle_core::{DType, Device, Result, Tensor};
use half::bf16;

#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::check::{Array, Tolerance, check_op_bf16};
use crate::conv2d::geometry::Geometry;
use crate::conv2d::{conv2d, geometry, reference, tests::reference_grads};
use crate::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::words::Unit;

/// A way to compute: what an instruction set chooses, or a unit of multiplication by name.
#[derive(Clone, Copy, Debug)]
enum Path {
    Isa(Isa),
    #[cfg(target_arch = "x86_64")]
    Unit(Unit),
}

impl Path {
    /// All that this machine has.
    fn all() -> Vec<Self> {
        let mut all: Vec<_> = Isa::available().map(Self::Isa).collect();
        #[cfg(target_arch = "x86_64")]
        if Isa::detect() == Isa::Avx512Bf16 {
            all.extend([Self::Unit(Unit::Fma), Self::Unit(Unit::Dot)]);
        }
        all
    }

    fn forward(self, g: &Geometry, x: &[bf16], w: &[f32]) -> Vec<bf16> {
        match self {
            Self::Isa(isa) => super::forward(isa, g, x, w),
            #[cfg(target_arch = "x86_64")]
            Self::Unit(unit) => x86::forward(unit, g, x, w),
        }
    }

    fn input_grad(self, g: &Geometry, w: &[f32], dy: &[bf16], add: Option<&[bf16]>) -> Vec<bf16> {
        match self {
            Self::Isa(isa) => super::input_grad(isa, g, w, dy, add),
            #[cfg(target_arch = "x86_64")]
            Self::Unit(unit) => x86::input_grad(unit, g, w, dy, add),
        }
    }

    fn weight_grad(self, g: &Geometry, x: &[bf16], dy: &[bf16]) -> Vec<f32> {
        match self {
            Self::Isa(isa) => super::weight_grad(isa, g, x, dy),
            #[cfg(target_arch = "x86_64")]
            Self::Unit(unit) => x86::weight_grad(unit, g, x, dy),
        }
    }
}

/// The op against seven f64 loops: `x` shape, `[O, kh, kw]`, stride, padding. `w` is f32 but rounded here, as the op does.
fn check(x: [usize; 4], [o, kh, kw]: [usize; 3], stride: usize, padding: usize) {
    let inputs = [Array::random(&x, 1), Array::random(&[o, kh, kw, x[3]], 2).rounded()];
    let reference = |at: &[Array]| reference::conv2d(&at[0], &at[1], stride, padding);
    check_op_bf16(&|at| conv2d(&at[0], &at[1], stride, padding), &reference, &inputs, &[0], Tolerance::BF16).unwrap();
}

#[test]
fn bf16_equals_the_reference() {
    check([2, 4, 5, 3], [5, 3, 3], 1, 1);
    check([1, 1, 1, 5], [3, 3, 3], 1, 1);
    check([3, 1, 1, 3], [2, 1, 1], 1, 0);
    check([2, 5, 7, 4], [2, 3, 3], 2, 1);
    check([1, 5, 5, 3], [5, 1, 1], 2, 0);
    check([1, 9, 7, 1], [2, 7, 7], 2, 3);
    check([1, 5, 4, 2], [3, 2, 3], 2, 2);
}

fn bf16s(x: &Array) -> Vec<bf16> {
    x.data.iter().map(|&v| bf16::from_f64(v)).collect()
}

fn f32s(x: &Array) -> Vec<f32> {
    x.data.iter().map(|&v| v as f32).collect()
}

/// Each value within `share` of itself (its own rounding) and of `1e-5` of the largest (the sum's) of the expected one.
fn assert_near(what: &str, got: impl ExactSizeIterator<Item = f64>, expected: &[f64], share: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1f64, |m, v| m.max(v.abs()));
    for (i, (g, e)) in got.zip(expected).enumerate() {
        assert!((g - e).abs() <= share * e.abs() + 1e-5 * scale, "{what}: element {i} is {g}, expected {e}");
    }
}

/// Channels that fill no block, one, several and a rest, even and odd; pixels that fill no tile and several; a tail
/// read past the end of the tensor would be seen by the tools, and by the NaN that follows each tensor here.
#[test]
fn every_instruction_set_equals_the_reference() {
    for (x, w, stride, padding) in [
        ([3, 9, 11, 17], [16, 3, 3, 17], 1, 1),
        ([2, 13, 12, 8], [70, 3, 3, 8], 2, 1),
        ([5, 7, 7, 13], [48, 1, 1, 13], 1, 0),
        ([4, 8, 8, 33], [41, 1, 1, 33], 2, 0),
        ([2, 20, 20, 3], [64, 7, 7, 3], 2, 3),
        ([1, 2, 2, 130], [129, 3, 3, 130], 1, 1),
        ([17, 4, 4, 40], [96, 3, 3, 40], 1, 1),
        ([8, 3, 3, 300], [20, 3, 3, 300], 1, 1),
        ([7, 2, 2, 1030], [3, 1, 1, 1030], 1, 0),
        ([300, 1, 2, 5], [7, 1, 1, 5], 1, 0),
        ([1, 30, 31, 6], [9, 5, 3, 6], 3, 2),
    ] {
        let g = geometry(&x, &w, stride, padding).unwrap();
        let (x, w) = (Array::random(&x, 3).rounded(), Array::random(&w, 4).rounded());
        let dy = Array::random(&[g.n, g.oh, g.ow, g.o], 5).rounded();
        let add = Array::random(&x.shape, 6).rounded();
        let y = reference::conv2d(&x, &w, stride, padding);
        let (dx, dw) = reference_grads(&g, &x, &w, &dy);
        let with_add: Vec<f64> = dx.iter().zip(&add.data).map(|(a, b)| a + b).collect();
        // Each slice is followed by NaN, so that a read past its end shows.
        let fenced = |a: &Array| -> Vec<bf16> { bf16s(a).into_iter().chain([bf16::NAN; 64]).collect() };
        let (fx, w, fdy, fadd) = (fenced(&x), f32s(&w), fenced(&dy), fenced(&add));
        let (bx, bdy, badd) = (&fx[..x.data.len()], &fdy[..dy.data.len()], &fadd[..x.data.len()]);
        let wide = |v: Vec<bf16>| v.into_iter().map(bf16::to_f64).collect::<Vec<_>>().into_iter();
        for path in Path::all() {
            let what = |name| format!("{path:?} {name} {g:?}");
            assert_near(&what("y"), wide(path.forward(&g, bx, &w)), &y.data, 4e-3);
            assert_near(&what("dx"), wide(path.input_grad(&g, &w, bdy, None)), &dx, 4e-3);
            assert_near(&what("dx + add"), wide(path.input_grad(&g, &w, bdy, Some(badd))), &with_add, 4e-3);
            let got: Vec<f64> = path.weight_grad(&g, bx, bdy).into_iter().map(f64::from).collect();
            assert_near(&what("dw"), got.into_iter(), &dw, 0.0);
        }
    }
}

/// Weights are rounded to the nearest bf16, not cut: 1 + 2^-8 + 2^-9 becomes 1 + 2^-7.
#[test]
fn weights_are_rounded_to_nearest() -> Result<()> {
    let x = Tensor::ones((1, 1, 1, 2), DType::BF16, &Device::Cpu)?;
    let w = Tensor::new(&[1.0 + 2f32.powi(-8) + 2f32.powi(-9), 0.0], &Device::Cpu)?.reshape((1, 1, 1, 2))?;
    let y = conv2d(&x, &w, 1, 0)?.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    assert_eq!(y, [1.0 + 2f32.powi(-7)]);
    Ok(())
}

/// The same bits on one thread and on three, for enough pixels that the weight gradient has several chunks.
#[test]
fn thread_counts_change_no_bit() {
    for (x, w) in [([16, 24, 24, 5], [18, 3, 3, 5]), ([80, 16, 16, 24], [70, 1, 1, 24])] {
        let g = geometry(&x, &w, 1, w[1] / 2).unwrap();
        let (x, w) = (bf16s(&Array::random(&x, 6)), f32s(&Array::random(&w, 7)));
        let dy = bf16s(&Array::random(&[g.n, g.oh, g.ow, g.o], 8));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let all = |path: Path| {
                    (path.forward(&g, &x, &w), path.input_grad(&g, &w, &dy, None), path.weight_grad(&g, &x, &dy))
                };
                Path::all().into_iter().map(all).collect::<Vec<_>>()
            })
        };
        assert!(run(1) == run(3));
    }
}

/// A NaN reaches the outputs whose window holds it and no other; an infinity does too.
#[test]
fn nan_and_infinity_pass_through() {
    let g = geometry(&[1, 5, 5, 1], &[1, 3, 3, 1], 1, 1).unwrap();
    let mut x = vec![bf16::ONE; 5 * 5];
    x[0] = bf16::NAN;
    x[24] = bf16::INFINITY;
    for path in Path::all() {
        for (i, v) in path.forward(&g, &x, &[1.0; 9]).into_iter().enumerate() {
            let (i, j) = (i / 5, i % 5);
            assert_eq!(v.is_nan(), i < 2 && j < 2, "{path:?} ({i}, {j}): {v}");
            assert_eq!(v == bf16::INFINITY, i > 2 && j > 2, "{path:?} ({i}, {j}): {v}");
        }
    }
}

#[test]
fn other_types_are_refused_in_words() -> Result<()> {
    let tensor = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu);
    let w = tensor(&[1, 1, 1, 3], DType::BF16)?;
    let error = conv2d(&tensor(&[1, 4, 4, 3], DType::BF16)?, &w, 1, 0).unwrap_err().to_string();
    assert!(error.contains("the weight is BF16; only f32"), "{error}");
    let (x, dy) = (tensor(&[1, 4, 4, 3], DType::BF16)?, tensor(&[1, 4, 4, 2], DType::F32)?);
    let error = crate::conv2d::weight_grad(&x, &dy, [1, 1], 1, 0).unwrap_err().to_string();
    assert!(error.contains("F32 where BF16 is expected"), "{error}");
    Ok(())
}
