//! Small functions of rows that several losses share.

use candle_core::{D, Result, Tensor, bail};

/// Whether `a` and `b` are `[N, width]` of one shape, with at least one row and one column.
pub(crate) fn check_pair(loss: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.dims() != b.dims() {
        bail!("{loss}: both inputs must have one shape, are {:?} and {:?}", a.dims(), b.dims())
    }
    match a.dims() {
        &[n, d] if n > 0 && d > 0 => Ok(()),
        dims => bail!("{loss}: needs [rows, columns] with at least one of both, got shape {dims:?}"),
    }
}

/// Whether a softmax can be taken at this temperature.
pub(crate) fn check_temperature(loss: &str, temperature: f64) -> Result<()> {
    if !(temperature.is_finite() && temperature > 0.0) {
        bail!("{loss}: the temperature must be positive and finite, is {temperature}")
    }
    Ok(())
}

/// The logarithm of each row's softmax, `[N, K]`, from differences to the row's maximum: no exponential overflows.
pub(crate) fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.detach().max_keepdim(D::Minus1)?)?;
    let normalizer = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    shifted.broadcast_sub(&normalizer)
}

/// The mean over rows of `-sum_k weights_k logs_k`, `[]`.
pub(crate) fn cross_entropy(weights: &Tensor, logs: &Tensor) -> Result<Tensor> {
    (weights * logs)?.sum(1)?.mean_all()?.neg()
}

/// `x log x`, 0 at 0.
pub(crate) fn x_log_x(x: &Tensor) -> Result<Tensor> {
    x * x.maximum(f64::from(f32::MIN_POSITIVE))?.log()?
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    /// Logits far beyond what an exponential holds, and far apart.
    #[test]
    fn log_softmax_is_safe() -> Result<()> {
        let x = Var::new(&[[1000f32, 1000.0, -1000.0], [-200.0, -200.0, -200.0]], &Device::Cpu)?;
        let y = log_softmax(&x)?;
        let rows = y.to_vec2::<f32>()?;
        assert!((rows[0][0] + 2f32.ln()).abs() < 1e-6 && rows[0][2] < -1999.0 && rows[0][2].is_finite());
        assert!((rows[1][1] + 3f32.ln()).abs() < 1e-6);
        let gradient = y.backward()?.get(&x).unwrap().to_vec2::<f32>()?;
        assert!(gradient.iter().flatten().all(|v| v.is_finite()));
        Ok(())
    }

    #[test]
    fn x_log_x_is_0_at_0() -> Result<()> {
        let x = Var::new(&[0f32, 0.5, 1.0], &Device::Cpu)?;
        let y = x_log_x(&x)?;
        assert_eq!(y.to_vec1::<f32>()?, [0.0, 0.5 * 0.5f32.ln(), 0.0]);
        let gradient = y.backward()?.get(&x).unwrap().to_vec1::<f32>()?;
        assert!(gradient[0].is_finite() && gradient[0] < -80.0 && (gradient[2] - 1.0).abs() < 1e-6);
        Ok(())
    }
}
