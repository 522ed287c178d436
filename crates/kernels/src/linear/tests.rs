//! Values and gradients over odd shapes, in every type, on every instruction set; bits over numbers of threads.

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
            let vars =
                [Array::random(&[rows, inputs], 1), Array::random(&[outputs, inputs], 2), Array::random(&[outputs], 3)]
                    .map(|a| Var::from_tensor(&a.tensor().unwrap()).unwrap());
            let y = linear(&vars[0].to_dtype(dtype)?, &vars[1], Some(&vars[2]))?;
            let grads = y.sqr()?.sum_all()?.backward()?;
            std::iter::once(&y)
                .chain(vars.iter().map(|v| grads.get(v).unwrap()))
                .map(|t| {
                    Ok(t.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
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

fn f64s<T: cpu::Number>(values: Vec<T>) -> Vec<f64> {
    values.into_iter().map(|v| f64::from(v.widen())).collect()
}

fn assert_near(what: &str, got: Vec<f64>, expected: &[f64], share: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1f64, |m, v| m.max(v.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= share * e.abs() + 1e-5 * scale, "{what}: element {i} is {g}, expected {e}");
    }
}

fn transposed(a: &[f64], columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|c| a.iter().skip(c).step_by(columns).copied()).collect()
}

/// The three products in one type on every instruction set; `share` is the type's own rounding.
fn check_paths<T: cpu::Number>(e: Extents, share: f64) {
    let of = |a: &Array| -> Vec<T> { a.data.iter().map(|&v| T::narrow(v as f32)).collect() };
    let x = Array::random(&[e.rows, e.inputs], 1).rounded();
    let w = Array::random(&[e.outputs, e.inputs], 2).rounded();
    let dy = Array::random(&[e.rows, e.outputs], 3).rounded();
    let bias = Array::random(&[e.outputs], 4);
    let y = reference::linear(&x.data, &w.data, Some(&bias.data), e.inputs);
    let dx = reference::linear(&dy.data, &transposed(&w.data, e.inputs), None, e.outputs);
    let dw = reference::linear(&transposed(&dy.data, e.outputs), &transposed(&x.data, e.inputs), None, e.rows);
    let (x, dy) = (of(&x), of(&dy));
    let [w, bias] = [w, bias].map(|a| a.data.iter().map(|&v| v as f32).collect::<Vec<f32>>());
    for isa in Isa::available() {
        let what = |name| format!("{isa:?} {:?} {name} {e:?}", T::DTYPE);
        assert_near(&what("y"), f64s(cpu::value(isa, &x, &w, Some(&bias), e)), &y, share);
        assert_near(&what("dx"), f64s(cpu::to_inputs(isa, &dy, &w, e)), &dx, share);
        assert_near(&what("dw"), f64s(cpu::to_weights(isa, &dy, &x, e)), &dw, 0.0);
    }
    #[cfg(target_arch = "x86_64")]
    if T::DTYPE == DType::BF16 && Isa::detect() == Isa::Avx512Bf16 {
        use crate::words::Unit::Dot;
        let what = |name| format!("pairs {name} {e:?}");
        let (x, dy) = (T::values(&x), T::values(&dy));
        let narrow = |sum: f32| -> T { T::narrow(sum) };
        let got = words::product(Dot, x, &w, [e.rows, e.inputs, e.outputs], true, |k, sum| narrow(sum + bias[k]));
        assert_near(&what("y"), f64s(got), &y, share);
        let got = words::product(Dot, dy, &w, [e.rows, e.outputs, e.inputs], false, |_, sum| narrow(sum));
        assert_near(&what("dx"), f64s(got), &dx, share);
        assert_near(&what("dw"), f64s(words::weight_gradient(Dot, dy, x, e)), &dw, 0.0);
    }
}

/// Extents that fill no block, one, several and a rest, with whole lines between rows (which stream) and without.
#[test]
fn every_instruction_set_equals_the_reference() {
    for (rows, inputs, outputs) in
        [(5, 7, 3), (33, 300, 130), (1, 513, 64), (50, 1040, 200), (1100, 48, 33), (130, 31, 1100)]
    {
        let e = Extents { rows, inputs, outputs };
        check_paths::<f32>(e, 1e-6);
        check_paths::<bf16>(e, 4e-3);
    }
}

/// A NaN in x reaches its row and no other, one in w its column.
#[test]
fn nan_stays_in_its_row_and_column() {
    let e = Extents { rows: 20, inputs: 130, outputs: 70 };
    let (mut x, mut w) = (vec![bf16::ONE; 20 * 130], vec![1.0; 70 * 130]);
    (x[3 * 130 + 129], w[69 * 130 + 128]) = (bf16::NAN, f32::NAN);
    for isa in Isa::available() {
        for (i, v) in cpu::value(isa, &x, &w, None, e).into_iter().enumerate() {
            assert_eq!(v.is_nan(), i / 70 == 3 || i % 70 == 69, "{isa:?} {i}: {v}");
        }
    }
}

/// Value and gradients on the tests' device, for extents that fill vectors, tiles and parts of the device's kernels and that leave a rest.
#[test]
fn the_device_equals_the_reference() -> Result<()> {
    for (rows, inputs, outputs) in [(300, 24, 264), (129, 16, 130), (5, 8, 3)] {
        let all = [[rows, inputs], [outputs, inputs], [rows, outputs]];
        let [x, w, dy] = [0, 1, 2].map(|i| Array::random(&all[i], i as u64).rounded());
        let bias = Array::random(&[outputs], 4);
        let y = reference::linear(&x.data, &w.data, Some(&bias.data), inputs);
        let dx = reference::linear(&dy.data, &transposed(&w.data, inputs), None, outputs);
        let dw = reference::linear(&transposed(&dy.data, outputs), &transposed(&x.data, inputs), None, rows);
        let db: Vec<f64> = transposed(&dy.data, outputs).chunks(rows).map(|column| column.iter().sum()).collect();
        for (dtype, share) in [(DType::F32, 1e-6), (DType::BF16, 4e-3)] {
            let what = |name| format!("{dtype:?} {name} [{rows}, {inputs}, {outputs}]");
            let values = |t: Tensor| -> Result<Vec<f64>> { Ok(Array::of(&t)?.data) };
            let (x, dy) = (x.tensor()?.to_dtype(dtype)?, dy.tensor()?.to_dtype(dtype)?);
            let (w, bias) = (w.tensor()?, bias.tensor()?);
            assert_near(&what("y"), values(linear(&x, &w, Some(&bias))?)?, &y, share);
            assert_near(&what("dx"), values(input_grad(&w, &dy)?)?, &dx, share);
            assert_near(&what("dw"), values(weight_grad(&x, &dy)?)?, &dw, 1e-6);
            assert_near(&what("db"), values(bias_grad(&dy)?)?, &db, 1e-6);
        }
    }
    Ok(())
}
