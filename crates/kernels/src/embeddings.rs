//! What ops on sets of embeddings ask of their inputs.

use candle_core::{DType, Result, Tensor, bail};

use crate::dense::{activation, input};

/// `z1`, `z2` as contiguous f32 tensors, when both are `[N, D]` of one shape, f32 or bf16, with N >= 2 and D >= 1.
pub(crate) fn pair(op: &str, z1: &Tensor, z2: &Tensor) -> Result<(Tensor, Tensor)> {
    check_pair(op, z1, z2)?;
    Ok((rows(op, "z1", z1)?, rows(op, "z2", z2)?))
}

/// [`pair`] for an op whose products take bf16 on a GPU: there two bf16 tensors stay what they are.
pub(crate) fn pair_for_products(op: &str, z1: &Tensor, z2: &Tensor) -> Result<(Tensor, Tensor)> {
    check_pair(op, z1, z2)?;
    let [z1, z2] = rows_for_products(op, [("z1", z1), ("z2", z2)])?;
    Ok((z1, z2))
}

fn check_pair(op: &str, z1: &Tensor, z2: &Tensor) -> Result<()> {
    if z1.dims() != z2.dims() {
        bail!("{op}: the two views must have one shape, are {:?} and {:?}", z1.dims(), z2.dims())
    }
    let &[n, d] = z1.dims() else { bail!("{op}: embeddings are [N, D], got shape {:?}", z1.dims()) };
    if n < 2 || d == 0 {
        bail!("{op}: needs at least 2 rows and 1 column, got [{n}, {d}]")
    }
    Ok(())
}

/// [`rows`] of each; but where all are bf16 on a GPU, they stay so: tensor cores take their values as they are, and the gradient is
/// rounded once, at its end.
pub(crate) fn rows_for_products<const N: usize>(op: &str, z: [(&str, &Tensor); N]) -> Result<[Tensor; N]> {
    let stay = z.iter().all(|(_, z)| z.dtype() == DType::BF16 && z.device().is_cuda());
    let mut out = Vec::with_capacity(N);
    for (name, z) in z {
        out.push(if stay { activation(op, name, z)? } else { rows(op, name, z)? });
    }
    match out.try_into() {
        Ok(rows) => Ok(rows),
        Err(_) => bail!("{op}: rows got lost"),
    }
}

/// `z` as a contiguous f32 tensor: a loss of bf16 embeddings is that of their values in f32, and the gradient goes back
/// through the conversion.
pub(crate) fn rows(op: &str, name: &str, z: &Tensor) -> Result<Tensor> {
    match z.dtype() {
        DType::BF16 => input(op, name, &z.to_dtype(DType::F32)?),
        _ => input(op, name, z),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Array;
    use candle_core::Var;

    type Loss<'a> = &'a dyn Fn(&Tensor, &Tensor) -> Result<Tensor>;

    /// Every loss of bf16 embeddings equals, bit for bit, that of the same values in f32; its gradient is the same, rounded. On a GPU,
    /// whose tensor cores multiply rounded rows, to what bf16 leaves.
    #[test]
    fn losses_take_bf16() -> Result<()> {
        let queue = Array::random(&[9, 6], 3).tensor()?;
        let losses: [Loss; 3] =
            [&|a, b| crate::nt_xent(a, b, 0.3), &|a, b| Ok(crate::barlow_twins(a, b, 0.1, 1e-5)?.total), &|a, b| {
                crate::info_nce(a, b, &queue, 0.3)
            }];
        let z = |seed| Array::random(&[5, 6], seed).tensor()?.to_dtype(DType::BF16);
        for loss in losses {
            let narrow = [Var::from_tensor(&z(1)?)?, Var::from_tensor(&z(2)?)?];
            let wide = [1, 2].map(|seed| Var::from_tensor(&z(seed).unwrap().to_dtype(DType::F32).unwrap()).unwrap());
            let (a, b) = (loss(&narrow[0], &narrow[1])?, loss(&wide[0], &wide[1])?);
            let exact = crate::check::device()?.is_cpu();
            let (of_narrow, of_wide) = (a.to_scalar::<f32>()?, b.to_scalar::<f32>()?);
            match exact {
                true => assert_eq!(of_narrow.to_bits(), of_wide.to_bits()),
                false => assert!((of_narrow / of_wide - 1.0).abs() < 5e-3, "{of_narrow} {of_wide}"),
            }
            let (a, b) = (a.backward()?, b.backward()?);
            for (narrow, wide) in narrow.iter().zip(&wide) {
                let (got, full) = (a.get(narrow).unwrap(), b.get(wide).unwrap());
                assert_eq!(got.dtype(), DType::BF16);
                if exact {
                    assert_eq!(Array::of(got)?, Array::of(&full.to_dtype(DType::BF16)?)?);
                    continue;
                }
                let (got, full) = (Array::of(got)?, Array::of(full)?);
                let largest = full.data.iter().fold(0f64, |largest, v| largest.max(v.abs()));
                for (got, full) in got.data.iter().zip(&full.data) {
                    assert!((got - full).abs() < 1e-2 * largest, "{got} {full}");
                }
            }
        }
        Ok(())
    }
}
