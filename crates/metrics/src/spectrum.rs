//! Singular values of embeddings and the rank they amount to.

use candle_core::{Result, Tensor, bail};

use crate::eigen::eigenvalues;
use crate::matrix::Matrix;

/// The singular values of `x` `[M, F]`, largest first: min(M, F) of them.
///
/// They come from the smaller Gram matrix in f64, so those below 1e-8 of the largest are noise.
///
/// # Errors
/// If x is not a matrix or a value is not finite.
pub fn singular_values(x: &Tensor) -> Result<Vec<f64>> {
    values_of(&Matrix::finite("singular values", x)?.double()?)
}

/// The singular values of the f64 matrix `x`.
fn values_of(x: &Tensor) -> Result<Vec<f64>> {
    let (rows, cols) = x.dims2()?;
    let (n, x) = (rows.min(cols), if rows < cols { x.clone() } else { x.t()?.contiguous()? });
    let gram = x.matmul(&x.t()?)?.flatten_all()?.to_vec1::<f64>()?;
    let mut values: Vec<f64> = eigenvalues(gram, n).into_iter().map(|v| v.max(0.0).sqrt()).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    Ok(values)
}

/// RankMe (Garrido et al. 2023, arXiv:2210.02885, eq. 2): `exp(-sum_k p_k log p_k)` with `p_k = s_k / sum s + 1e-7` over the singular
/// values s of `x` `[M, F]`, which is neither centered nor normalized. Between 1 (all rows on one line) and min(M, F); 0 if x is zero.
///
/// # Errors
/// If x is not a matrix or a value is not finite.
pub fn effective_rank(x: &Tensor) -> Result<f64> {
    let values = singular_values(x)?;
    let sum: f64 = values.iter().sum();
    if sum == 0.0 {
        return Ok(0.0);
    }
    let entropy: f64 = values.iter().map(|s| s / sum + 1e-7).map(|p| -p * p.ln()).sum();
    Ok(entropy.exp())
}

/// The eigenvalues of the covariance of the rows of `x` `[M, F]` (divided by M), largest first: min(M, F) of them.
///
/// # Errors
/// If x is not a matrix or a value is not finite.
pub fn covariance_spectrum(x: &Tensor) -> Result<Vec<f64>> {
    let x = Matrix::finite("covariance", x)?;
    Ok(values_of(&x.centered()?)?.into_iter().map(|s| s * s / x.rows as f64).collect())
}

/// `(sum l)^2 / sum l^2` over eigenvalues `l`: how many directions of equal variance would have the same spread. 0 if there is no variance.
pub fn participation_ratio(eigenvalues: &[f64]) -> f64 {
    let squares: f64 = eigenvalues.iter().map(|l| l * l).sum();
    if squares == 0.0 { 0.0 } else { eigenvalues.iter().sum::<f64>().powi(2) / squares }
}

/// How fast a spectrum decays, see [`power_law`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PowerLaw {
    /// The exponent.
    pub alpha: f64,
    /// The share of the variance of `ln l` that the line explains, in [0, 1].
    pub fit: f64,
}

/// The exponent of `l_j ~ j^-alpha`, as alpha-ReQ judges representations (Agrawal et al. 2022, NeurIPS): the slope of the least-squares line through
/// `(ln j, ln l_j)` for the ranks `first..=last` of `eigenvalues`, counted from 1 and largest first.
///
/// # Errors
/// If the range holds fewer than 2 ranks or goes beyond the eigenvalues, or one of them is not positive.
pub fn power_law(eigenvalues: &[f64], first: usize, last: usize) -> Result<PowerLaw> {
    if first == 0 || first >= last || last > eigenvalues.len() {
        bail!("power law: ranks {first} to {last} of {} eigenvalues; expected at least two of them", eigenvalues.len())
    }
    let chosen = &eigenvalues[first - 1..last];
    if let Some(bad) = chosen.iter().find(|l| !(**l > 0.0 && l.is_finite())) {
        bail!("power law: an eigenvalue among ranks {first} to {last} is {bad}; expected positive ones")
    }
    let points: Vec<(f64, f64)> = (first..=last).zip(chosen).map(|(j, l)| ((j as f64).ln(), l.ln())).collect();
    let n = points.len() as f64;
    let (x, y) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in points {
        xx += (a - x).powi(2);
        xy += (a - x) * (b - y);
        yy += (b - y).powi(2);
    }
    Ok(PowerLaw { alpha: -xy / xx, fit: if yy == 0.0 { 1.0 } else { xy * xy / (xx * yy) } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{random, rotate};
    use candle_core::Device;

    /// By hand: a diagonal matrix shows its singular values, in any shape.
    #[test]
    fn a_diagonal_shows_its_values() -> Result<()> {
        let x = Tensor::new(&[[0f32, 3.0, 0.0], [-4.0, 0.0, 0.0]], &Device::Cpu)?;
        for x in [x.clone(), x.t()?] {
            let s = singular_values(&x)?;
            assert!((s[0] - 4.0).abs() < 1e-12 && (s[1] - 3.0).abs() < 1e-12 && s.len() == 2, "{s:?}");
        }
        Ok(())
    }

    /// Equal singular values count in full, rows on a line count once.
    #[test]
    fn rank_of_known_spectra() -> Result<()> {
        let eye = Tensor::eye(16, candle_core::DType::F32, &Device::Cpu)?;
        assert!((effective_rank(&eye)? - 16.0).abs() < 1e-3);
        let line = random(40, 1, 1).matmul(&random(1, 12, 2))?;
        assert!((effective_rank(&line)? - 1.0).abs() < 1e-3, "{}", effective_rank(&line)?);
        assert_eq!(effective_rank(&eye.zeros_like()?)?, 0.0);
        Ok(())
    }

    #[test]
    fn rotation_and_scale_do_not_change_the_rank() -> Result<()> {
        let x = (random(90, 10, 3) * Tensor::arange(1f32, 11.0, &Device::Cpu)?.broadcast_as((90, 10))?)?;
        let rank = effective_rank(&x)?;
        assert!((rank - effective_rank(&rotate(&x)?)?).abs() < 1e-4);
        assert!((rank - effective_rank(&(x * 7.0)?)?).abs() < 1e-5);
        Ok(())
    }

    /// The squares of the singular values add up to the sum of squares.
    #[test]
    fn squares_add_up() -> Result<()> {
        let x = random(211, 230, 4);
        let squares: f64 = singular_values(&x)?.iter().map(|s| s * s).sum();
        let expected: f64 = x.flatten_all()?.to_vec1::<f32>()?.iter().map(|&v| f64::from(v).powi(2)).sum();
        assert!((squares / expected - 1.0).abs() < 1e-12, "{squares} {expected}");
        Ok(())
    }

    /// A spectrum that is a power law gives its exponent back; a flat one has exponent 0.
    #[test]
    fn power_laws_are_recognized() -> Result<()> {
        let law: Vec<f64> = (1..=60).map(|j| 5.0 * f64::from(j).powf(-1.25)).collect();
        let found = power_law(&law, 4, 50)?;
        assert!((found.alpha - 1.25).abs() < 1e-12 && (found.fit - 1.0).abs() < 1e-12, "{found:?}");
        assert_eq!(power_law(&[2.0; 9], 1, 9)?, PowerLaw { alpha: 0.0, fit: 1.0 });
        let error = |l: &[f64], first, last| power_law(l, first, last).unwrap_err().to_string();
        assert!(error(&law, 5, 61).contains("ranks 5 to 61 of 60"));
        assert!(error(&law, 5, 5).contains("at least two"));
        assert!(error(&[1.0, 0.0], 1, 2).contains("is 0"));
        Ok(())
    }

    /// Variances 1 and 4 of two coordinates, whatever their mean.
    #[test]
    fn the_covariance_is_around_the_mean() -> Result<()> {
        let x = Tensor::new(&[[101f32, 7.0], [99.0, 7.0], [100.0, 9.0], [100.0, 5.0]], &Device::Cpu)?;
        let found = covariance_spectrum(&x)?;
        assert!((found[0] - 2.0).abs() < 1e-12 && (found[1] - 0.5).abs() < 1e-12, "{found:?}");
        assert!((participation_ratio(&found) - 6.25 / 4.25).abs() < 1e-12);
        assert_eq!(participation_ratio(&[0.0, 0.0]), 0.0);
        Ok(())
    }
}
