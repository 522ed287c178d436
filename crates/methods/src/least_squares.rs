//! The linear map that fits best.

use candle_core::{DType, Result, Tensor, bail};
use diptych_comm::Collective;

/// Ridge relative to the mean of the diagonal: keeps the map defined where a batch spans fewer dimensions than there are.
const RIDGE: f64 = 1e-4;

/// The `W` `[D, E]` of least `||z W - y||^2` over the rows of all ranks, `z` `[N, D]`, `y` `[N, E]`, f32; a value without a graph.
///
/// `W = (z^T z + ridge)^-1 z^T y` by a Cholesky decomposition in f64.
pub(crate) fn least_squares(z: &Tensor, y: &Tensor, comm: &dyn Collective) -> Result<Tensor> {
    let (z, y) = (z.detach().to_dtype(DType::F64)?, y.detach().to_dtype(DType::F64)?);
    let t = z.t()?.contiguous()?;
    let gram = comm.all_reduce_sum(&t.matmul(&z)?)?;
    let right = comm.all_reduce_sum(&t.matmul(&y)?)?;
    let (d, e) = right.dims2()?;
    let mut a = gram.flatten_all()?.to_vec1::<f64>()?;
    let mut b = right.flatten_all()?.to_vec1::<f64>()?;
    let ridge = RIDGE * (0..d).map(|i| a[i * d + i]).sum::<f64>() / d as f64 + f64::MIN_POSITIVE;
    (0..d).for_each(|i| a[i * d + i] += ridge);
    decompose(&mut a, d)?;
    substitute(&a, &mut b, d, e);
    Tensor::from_vec(b, (d, e), z.device())?.to_dtype(DType::F32)
}

/// The lower triangle of `a` `[d, d]` becomes L with `L L^T = a`.
fn decompose(a: &mut [f64], d: usize) -> Result<()> {
    for i in 0..d {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| a[i * d + k] * a[j * d + k]).sum();
            let rest = a[i * d + j] - dot;
            if i != j {
                a[i * d + j] = rest / a[j * d + j];
            } else if rest > 0.0 {
                a[i * d + i] = rest.sqrt();
            } else {
                bail!("least squares: the embeddings are not finite or all zero")
            }
        }
    }
    Ok(())
}

/// Solves `L L^T x = b` in place, `b` `[d, e]`.
fn substitute(l: &[f64], b: &mut [f64], d: usize, e: usize) {
    let eliminate = |b: &mut [f64], i: usize, k: usize, factor: f64| {
        for column in 0..e {
            b[i * e + column] -= factor * b[k * e + column];
        }
    };
    for i in 0..d {
        (0..i).for_each(|k| eliminate(b, i, k, l[i * d + k]));
        b[i * e..(i + 1) * e].iter_mut().for_each(|v| *v /= l[i * d + i]);
    }
    for i in (0..d).rev() {
        (i + 1..d).for_each(|k| eliminate(b, i, k, l[k * d + i]));
        b[i * e..(i + 1) * e].iter_mut().for_each(|v| *v /= l[i * d + i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use diptych_comm::Local;
    use diptych_nn::Init;

    /// Where a map made the goals, it is found again.
    #[test]
    fn a_linear_map_is_recovered() -> Result<()> {
        let draw = |shape: &[usize], name: &str| Init::Normal(1.0).draw(shape, 3, name, &Device::Cpu);
        let (z, map) = (draw(&[40, 6], "z")?, draw(&[6, 3], "map")?);
        let found = least_squares(&z, &z.matmul(&map)?, &Local)?;
        let error = (found - map)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(error < 1e-3, "{error}");
        Ok(())
    }
}
