//! What only a GPU has: cuBLAS, cuDNN and our kernels side by side against the definition, in every arithmetic, on sizes that fill vectors and tiles
//! and on sizes that do not. On the CPU there is nothing to test here.

use candle_core::{DType, Tensor};

use super::cuda::{Ways, forward_by, input_grad_by, weight_grad_by};
use super::tests::reference_grads;
use super::{NAME, geometry, reference};
use crate::check::{Array, device};
use crate::cuda::{Gpu, Memory};

fn near(what: &str, got: Tensor, expected: &[f64], share: f64) {
    let scale = expected.iter().fold(1f64, |m, v| m.max(v.abs()));
    let got = Array::of(&got).unwrap().data;
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= share * e.abs() + 5e-6 * scale, "{what}: element {i} is {g}, expected {e}");
    }
}

/// `x` in the middle of a longer tensor: from `offset` values on.
fn placed(x: &Array, dtype: DType, offset: usize) -> Tensor {
    let flat: Vec<f64> = (0..offset).map(|_| 7.0).chain(x.data.iter().copied()).collect();
    let flat = Array::new(&[flat.len()], flat).tensor().unwrap().to_dtype(dtype).unwrap();
    flat.narrow(0, offset, x.data.len()).unwrap().reshape(x.shape.as_slice()).unwrap()
}

/// The three passes by each of the ways; inputs begin `offset` values into their memory.
fn check(x: [usize; 4], [o, kh, kw]: [usize; 3], stride: usize, padding: usize, offset: usize) {
    let w = [o, kh, kw, x[3]];
    let g = geometry(&x, &w, stride, padding).unwrap();
    // Numbers that all types have, so that the reference sees what the ops see.
    let (x, w) = (Array::random(&x, 1).rounded(), Array::random(&w, 2).rounded());
    let dy = Array::random(&[g.n, g.oh, g.ow, g.o], 3).rounded();
    let add = Array::random(&x.shape, 4).rounded();
    let y = reference::conv2d(&x, &w, stride, padding).data;
    let (dx, dw) = reference_grads(&g, &x, &w, &dy);
    let more: Vec<f64> = dx.iter().zip(&add.data).map(|(dx, add)| dx + add).collect();
    for (dtype, share) in [(DType::F32, 0.0), (DType::BF16, 4e-3)] {
        let [x, dy, add] = [&x, &dy, &add].map(|a| placed(a, dtype, offset));
        let w = placed(&w, DType::F32, offset);
        let Some(gpu) = Gpu::of(&x) else { return };
        let of = |x| Memory::of(NAME, &gpu, x).unwrap();
        for (products, cudnn) in [(false, false), (false, true), (true, true)] {
            let ways = Ways { products, cudnn, tf32: false };
            let what = |name| format!("{name} {dtype:?} by {ways:?} from {offset} on, {g:?}");
            let got = forward_by(ways, &gpu, &g, of(&x), of(&w)).unwrap().into_tensor(dy.shape()).unwrap();
            near(&what("y"), got, &y, share);
            let got = input_grad_by(ways, &gpu, &g, of(&w), of(&dy), None).unwrap().into_tensor(x.shape()).unwrap();
            near(&what("dx"), got, &dx, share);
            let got = input_grad_by(ways, &gpu, &g, of(&w), of(&dy), Some(of(&add))).unwrap();
            near(&what("dx + add"), got.into_tensor(x.shape()).unwrap(), &more, share);
            let got = weight_grad_by(ways, &gpu, &g, of(&x), of(&dy)).unwrap().into_tensor(w.shape()).unwrap();
            // cuDNN may give it in bf16.
            near(&what("dw"), got, &dw, if cudnn { share } else { 0.0 });
        }
    }
}

#[test]
fn every_way_equals_the_reference() {
    check([3, 9, 11, 16], [24, 3, 3], 1, 1, 0);
    check([2, 13, 12, 8], [72, 3, 3], 2, 1, 0);
    check([5, 7, 7, 32], [136, 1, 1], 1, 0, 0);
    check([2, 8, 8, 64], [48, 1, 1], 2, 0, 0);
    check([2, 20, 20, 3], [64, 7, 7], 2, 3, 0);
    check([1, 6, 6, 136], [64, 3, 3], 3, 1, 0);
}

/// Values one by one: channels that are no multiple of a vector, and arrays that begin in the middle of one.
#[test]
fn what_fits_no_vector_equals_the_reference_too() {
    check([3, 9, 11, 17], [13, 3, 3], 1, 1, 0);
    check([2, 7, 7, 16], [24, 3, 3], 2, 1, 1);
    check([2, 7, 5, 12], [6, 1, 1], 1, 0, 2);
    check([1, 5, 4, 2], [3, 2, 3], 2, 2, 0);
    check([1, 2, 3, 2], [2, 2, 2], 1, 3, 0);
}

/// Enough pixels that the weight gradient's sums come in parts, and enough tiles for several blocks.
#[test]
fn many_pixels_equal_the_reference() {
    check([9, 16, 16, 8], [8, 3, 3], 1, 1, 0);
}

/// TF32 has 10 bits of mantissa: sums of products of random numbers differ from exact ones, by 2^-11 of each factor at most.
#[test]
fn tf32_is_used_only_where_it_is_allowed() {
    let (x, w) = (Array::random(&[2, 6, 6, 16], 1), Array::random(&[24, 3, 3, 16], 2));
    let g = geometry(&x.shape, &w.shape, 1, 1).unwrap();
    let dy = Array::random(&[g.n, g.oh, g.ow, g.o], 3);
    let y = reference::conv2d(&x, &w, 1, 1).data;
    let (dx, dw) = reference_grads(&g, &x, &w, &dy);
    let [x, w, dy] = [x, w, dy].map(|a| a.tensor().unwrap());
    let Some(gpu) = Gpu::of(&x) else { return };
    let [x, w, dy] = [&x, &w, &dy].map(|t| Memory::of(NAME, &gpu, t).unwrap());
    let run = |tf32| {
        let ways = Ways { products: false, cudnn: false, tf32 };
        let far = |got: crate::cuda::Buffer, expected: &[f64]| {
            let got = Array::of(&got.into_tensor(expected.len()).unwrap()).unwrap().data;
            got.iter().zip(expected).map(|(got, expected)| (got - expected).abs()).fold(0.0, f64::max)
        };
        [
            far(forward_by(ways, &gpu, &g, x, w).unwrap(), &y),
            far(input_grad_by(ways, &gpu, &g, w, dy, None).unwrap(), &dx),
            far(weight_grad_by(ways, &gpu, &g, x, dy).unwrap(), &dw),
        ]
    };
    assert!(run(false).iter().all(|far| *far < 2e-5), "{:?}", run(false));
    assert!(run(true).iter().all(|far| (1e-4..2e-2).contains(far)), "{:?}", run(true));
    assert!(super::algorithm(&device().unwrap()).len() > 3);
}
