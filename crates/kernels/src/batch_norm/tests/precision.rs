//! Both element types against f64 on odd shapes, special values, and every instruction set that the machine has.

use super::*;
use crate::check::check_op_bf16;
use half::bf16;

/// bf16 inputs that both sides see rounded; gamma and beta stay f32. Values at the ReLU's kink would not agree, so gamma is 0.7 and
/// the residual wide.
#[test]
fn bf16_equals_the_reference_on_rounded_inputs() {
    for (i, (shape, residual, relu)) in
        [([2, 3, 5], false, false), ([3, 2, 1], true, false), ([2, 2, 17], true, true), ([2, 2, 65], false, false)]
            .into_iter()
            .enumerate()
    {
        let op = move |t: &[Tensor]| Ok(batch_norm_train(&t[0], Some(&t[1]), Some(&t[2]), t.get(3), relu, EPS)?.y);
        let reference = move |a: &[Array]| {
            let residual = a.get(3).map(|r| r.data.as_slice());
            Array::new(&a[0].shape, reference::train(&a[0].data, &a[1].data, &a[2].data, residual, relu, EPS))
        };
        let mut inputs = inputs(&shape, residual, 60 + i as u64);
        if relu {
            // |residual| is 8 or more: no sum is near 0.
            inputs[3] = inputs[3].map(|v| v + 8.0 * v.signum());
        }
        check_op_bf16(&op, &reference, &inputs, &[0, 3], Tolerance { value: 5e-3, grad: 2e-2 }).unwrap();
    }
}

/// bf16 rows around 3 by 0.25: mean and variance are those of the rounded values, to f32's precision.
#[test]
fn bf16_statistics_are_exact() -> Result<()> {
    for channels in [1, 3, 17, 63, 65] {
        let x = Array::random(&[2_003, channels], 71).map(|v| v * 0.25 + 3.0).rounded();
        let out = batch_norm_train(&x.tensor()?.to_dtype(DType::BF16)?, None, None, None, false, EPS)?;
        let (mean, var) = reference::statistics(&x.data, channels);
        for (got, expected) in [(&out.mean, &mean), (&out.var, &var)] {
            assert_eq!(got.dtype(), DType::F32);
            for (got, expected) in got.to_vec1::<f32>()?.iter().zip(expected) {
                assert!(
                    (f64::from(*got) / expected - 1.0).abs() < 1e-6,
                    "{channels} channels: {got}, expected {expected}"
                );
            }
        }
    }
    Ok(())
}

/// Rows, then statistics, y and gradients as PyTorch has them: a NaN or an infinity in one channel makes all of that channel NaN, whatever
/// stands behind it, and touches no other.
#[test]
fn nan_and_infinity_stay_in_their_channel() -> Result<()> {
    for dtype in [DType::F32, DType::BF16] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x: Vec<f32> = Array::random(&[70, 3], 81).data.iter().map(|&v| v as f32).collect();
            x[3 * 69 + 1] = bad;
            let x = Tensor::from_vec(x, (70, 3), &device()?)?.to_dtype(dtype)?;
            let (gamma, beta) = (Tensor::ones(3, DType::F32, &device()?)?, Tensor::zeros(3, DType::F32, &device()?)?);
            let options = Options { relu: true, ..Options::default() };
            for residual in [None, Some(&x)] {
                let out = forward(&x, &gamma, &beta, residual, &options)?;
                let back = backward(&out.saved, x.copy()?, &out.y, x.ones_like()?, &gamma, residual.is_some())?;
                for t in [&out.y, &back.dx] {
                    for row in t.to_dtype(DType::F32)?.to_vec2::<f32>()? {
                        assert_eq!(
                            row.iter().map(|v| v.is_nan()).collect::<Vec<_>>(),
                            [false, true, false],
                            "{dtype:?} {bad}"
                        );
                    }
                }
                let nan: Vec<bool> = out.var.to_vec1::<f32>()?.iter().map(|v| v.is_nan()).collect();
                assert_eq!(nan, [false, true, false], "{dtype:?} {bad}");
            }
        }
    }
    Ok(())
}

/// y of a very small value vanishes in bf16: the mask that the backward pass takes from x agrees with it.
#[test]
fn the_mask_is_that_of_the_rounded_output() -> Result<()> {
    // Outputs are beta: at 2^-134 it rounds to 0, just above it does not.
    let least = f32::from_bits(0x8000);
    let beta = Tensor::new(&[least, f32::from_bits(0x8001), 0.0, 1.0], &device()?)?;
    let x = Tensor::zeros((2, 4), DType::BF16, &device()?)?;
    let gamma = Tensor::ones(4, DType::F32, &device()?)?;
    let out = forward(&x, &gamma, &beta, None, &Options { relu: true, ..Options::default() })?;
    let above: Vec<bool> = out.y.get(0)?.to_vec1::<bf16>()?.iter().map(|v| v.to_f32() > 0.0).collect();
    assert_eq!(above, [false, true, false, true]);
    let back = backward(&out.saved, x.copy()?, &out.y, x.ones_like()?, &gamma, false)?;
    assert_eq!(back.dbeta.to_vec1::<f32>()?, [0.0, 2.0, 0.0, 2.0]);
    Ok(())
}
