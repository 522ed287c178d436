//! What measures give when rows lie evenly on the sphere: the healthy values that real embeddings are compared with.

/// The effective rank to expect of `rows` rows that lie evenly on the sphere in `dims` dimensions.
///
/// Their singular values follow the law of Marchenko and Pastur: with `q = min / max` of rows and dims, eigenvalues lie in
/// `(1 - sqrt q)^2 ..= (1 + sqrt q)^2` with density `sqrt((b - x)(x - a)) / (2 pi q x)`. The limit of large matrices is
/// within a few percent from a few rows on.
pub fn even_rank(rows: usize, dims: usize) -> f64 {
    let (small, large) = (rows.min(dims), rows.max(dims));
    if small == 0 {
        return 0.0;
    }
    let q = small as f64 / large as f64;
    let (a, b) = ((1.0 - q.sqrt()).powi(2), (1.0 + q.sqrt()).powi(2));
    // The midpoint rule in the angle, in which the density has no edges: x = middle - half cos t.
    const POINTS: usize = 2000;
    let (mut mass, mut mean, mut entropy) = (0.0, 0.0, 0.0);
    for i in 0..POINTS {
        let t = std::f64::consts::PI * (i as f64 + 0.5) / POINTS as f64;
        let x = (a + b) / 2.0 - (b - a) / 2.0 * t.cos();
        let weight = t.sin().powi(2) / x;
        let s = x.sqrt();
        mass += weight;
        mean += weight * s;
        entropy += weight * s * s.ln();
    }
    // With p = s / sum s, -sum p ln p = ln(small mean(s)) - mean(s ln s) / mean(s).
    let mean_s = mean / mass;
    (small as f64) * mean_s * (-(entropy / mean)).exp()
}

/// The uniformity (see [`crate::uniformity`]) of the even distribution on the sphere in `dims` dimensions:
/// `-4 + ln E exp(4 c)` over the cosine c of two random points, which is `sum_k 4^k / (k! (dims/2)_k)`.
pub fn even_uniformity(dims: usize) -> f64 {
    let half = dims.max(1) as f64 / 2.0;
    let (mut sum, mut term) = (1.0, 1.0);
    for k in 0..60 {
        let k = f64::from(k);
        term *= 4.0 / ((k + 1.0) * (half + k));
        sum += term;
    }
    sum.ln() - 4.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;
    use crate::{effective_rank, uniformity};
    use candle_core::Result;

    /// Gaussian rows, more and fewer than dimensions.
    #[test]
    fn random_rows_have_the_even_rank() -> Result<()> {
        for (rows, dims) in [(256, 128), (128, 256), (200, 200), (256, 16), (40, 400)] {
            let (rank, even) = (effective_rank(&random(rows, dims, 1))?, even_rank(rows, dims));
            assert!((rank / even - 1.0).abs() < 0.01, "{rows} x {dims}: {rank} {even}");
        }
        assert!((even_rank(10_000, 1) - 1.0).abs() < 1e-3 && even_rank(0, 8) == 0.0);
        Ok(())
    }

    #[test]
    fn random_rows_have_the_even_uniformity() -> Result<()> {
        for dims in [2, 3, 16, 128] {
            let (measured, even) = (uniformity(&random(3000, dims, 2))?, even_uniformity(dims));
            assert!((measured - even).abs() < 0.01, "{dims}: {measured} {even}");
        }
        Ok(())
    }

    /// By hand, on the circle's two ends: two points agree or oppose, mean (1 + exp(-8)) / 2.
    #[test]
    fn the_uniformity_of_one_dimension() {
        assert!((even_uniformity(1) - ((1.0 + (-8f64).exp()) / 2.0).ln()).abs() < 1e-12);
    }
}
