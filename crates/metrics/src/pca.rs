//! The two leading principal components, for maps of embeddings.

use candle_core::{Device, Result, Tensor};

use crate::eigen::jacobi;
use crate::matrix::Matrix;

/// Directions iterated beside the two wanted, which makes the iteration converge in a few dozen rounds.
const EXTRA: usize = 8;
/// Rounds at most; a spectrum without gaps is then as good as it gets.
const ROUNDS: usize = 300;

/// What [`pca`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Pca {
    /// Each row's coordinates along the two components.
    pub points: Vec<[f32; 2]>,
    /// The components, `[F]` each, of unit length; the entry of largest magnitude is positive.
    pub components: [Vec<f64>; 2],
    /// Each component's share of the variance, in [0, 1].
    pub explained: [f64; 2],
    /// The mean that was taken away, `[F]`.
    pub mean: Vec<f64>,
}

/// The two leading principal components of `x` `[M, F]` (centered here), by subspace iteration on the smaller Gram matrix in f64.
///
/// Deterministic: the start and the signs are fixed. Components that carry no variance have the coordinate 0 and, where F is 1, the
/// direction 0.
///
/// # Errors
/// If x is not a matrix or a value is not finite.
pub fn pca(x: &Tensor) -> Result<Pca> {
    let x = Matrix::finite("pca", x)?;
    let (rows, cols) = (x.rows, x.cols);
    let mut mean = vec![0f64; cols];
    for row in x.iter() {
        mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v));
    }
    mean.iter_mut().for_each(|m| *m /= rows as f64);
    let centered: Vec<f64> = x.data.iter().enumerate().map(|(i, &v)| f64::from(v) - mean[i % cols]).collect();
    // What is left of equal rows is rounding of the mean, not variance.
    let squares: f64 = x.data.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    let total: f64 = Some(centered.iter().map(|v| v * v).sum()).filter(|&t| t > 1e-26 * squares).unwrap_or(0.0);
    let centered = Tensor::from_vec(centered, (rows, cols), &Device::Cpu)?;

    let wide = rows < cols;
    let a = if wide { centered.clone() } else { centered.t()?.contiguous()? };
    let (values, vectors) = leading(&a.matmul(&a.t()?)?)?;
    let mut components = [vec![0.0; cols], vec![0.0; cols]];
    let mut explained = [0.0; 2];
    for (i, (value, vector)) in values.into_iter().zip(vectors).take(2).enumerate() {
        if total == 0.0 || value <= 1e-24 * total {
            continue;
        }
        explained[i] = value / total;
        // From a row space to a column space: X^T u = s v.
        components[i] = match wide {
            true => {
                let u = Tensor::from_vec(vector, (1, rows), &Device::Cpu)?;
                (u.matmul(&centered)? / value.sqrt())?.flatten_all()?.to_vec1()?
            }
            false => vector,
        };
        let largest = components[i].iter().fold(0f64, |m, &v| if v.abs() > m.abs() { v } else { m });
        if largest < 0.0 {
            components[i].iter_mut().for_each(|v| *v = -*v);
        }
    }
    let basis = Tensor::from_vec(components.concat(), (2, cols), &Device::Cpu)?;
    let points = centered.matmul(&basis.t()?)?.to_vec2::<f64>()?;
    let points = points.into_iter().map(|p| [p[0] as f32, p[1] as f32]).collect();
    Ok(Pca { points, components, explained, mean })
}

/// Leading eigenvalues and eigenvectors of the positive semidefinite `gram` `[n, n]`, largest first.
fn leading(gram: &Tensor) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
    let n = gram.dims()[0];
    let width = n.min(2 + EXTRA);
    let mut state = 1u64;
    let mut basis: Vec<Vec<f64>> = (0..width)
        .map(|_| {
            (0..n)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
                })
                .collect()
        })
        .collect();
    orthonormalize(&mut basis);
    let mut values = Vec::new();
    for _ in 0..ROUNDS {
        // Rows of `image` are gram * basis; the small matrix is gram seen in the basis.
        let q = Tensor::from_vec(basis.concat(), (width, n), &Device::Cpu)?;
        let image = q.matmul(gram)?;
        let small = image.matmul(&q.t()?)?;
        let (found, mix) = jacobi(small.flatten_all()?.to_vec1()?, width);
        let mix = Tensor::from_vec(mix.concat(), (width, width), &Device::Cpu)?;
        let (q, image) = (mix.matmul(&q)?.to_vec2::<f64>()?, mix.matmul(&image)?.to_vec2::<f64>()?);
        let residual = |i: usize| -> f64 {
            image[i].iter().zip(&q[i]).map(|(a, v)| (a - found[i] * v).powi(2)).sum::<f64>().sqrt()
        };
        let done = (0..width.min(2)).all(|i| residual(i) <= 1e-11 * found[0].abs());
        values = found;
        basis = q;
        if done {
            break;
        }
        basis = image;
        orthonormalize(&mut basis);
    }
    Ok((values, basis))
}

/// Gram and Schmidt, twice over; a vector that vanishes stays zero.
fn orthonormalize(basis: &mut [Vec<f64>]) {
    for i in 0..basis.len() {
        let (before, rest) = basis.split_at_mut(i);
        let v = &mut rest[0];
        let start = v.iter().map(|v| v * v).sum::<f64>().sqrt();
        for _ in 0..2 {
            for b in before.iter() {
                let dot: f64 = b.iter().zip(v.iter()).map(|(b, v)| b * v).sum();
                v.iter_mut().zip(b).for_each(|(v, b)| *v -= dot * b);
            }
        }
        let norm = v.iter().map(|v| v * v).sum::<f64>().sqrt();
        let factor = if norm <= 1e-13 * start || norm == 0.0 { 0.0 } else { 1.0 / norm };
        v.iter_mut().for_each(|v| *v *= factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{random, rotate};

    /// Independent columns of known scale: the components are the two widest axes, in any shape.
    #[test]
    fn axes_are_found() -> Result<()> {
        let n = 400;
        // cos(2 pi k t) are orthogonal over a full period and have mean 0.
        let wave = |t: usize, k: usize| (std::f64::consts::TAU * (t * k) as f64 / n as f64).cos();
        let scale = [0.5, 3.0, -5.0, 1.0];
        let data: Vec<f32> =
            (0..n).flat_map(|t| (0..4).map(move |c| (2.0 + scale[c] * wave(t, c + 1)) as f32)).collect();
        let found = pca(&Tensor::from_vec(data, (n, 4), &Device::Cpu)?)?;
        let expected = [[0.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]];
        for (component, expected) in found.components.iter().zip(expected) {
            assert!(component.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{component:?}");
        }
        let total = 0.25 + 9.0 + 25.0 + 1.0;
        assert!((found.explained[0] - 25.0 / total).abs() < 1e-6 && (found.explained[1] - 9.0 / total).abs() < 1e-6);
        assert!((f64::from(found.points[7][0]) + 5.0 * wave(7, 3)).abs() < 1e-4, "{:?}", found.points[7]);
        Ok(())
    }

    /// Fewer rows than features take the other Gram matrix; padding with zero columns must not change the map.
    #[test]
    fn both_gram_matrices_agree() -> Result<()> {
        let x = random(30, 20, 1);
        let padded = Tensor::cat(&[&x, &random(30, 25, 2).zeros_like()?], 1)?;
        let (a, b) = (pca(&x)?, pca(&padded)?);
        for (a, b) in a.points.iter().zip(&b.points) {
            assert!((a[0] - b[0]).abs() < 1e-5 && (a[1] - b[1]).abs() < 1e-5, "{a:?} {b:?}");
        }
        Ok(())
    }

    /// Distances on the map survive a rotation of the features (the signs of the axes may turn).
    #[test]
    fn rotation_moves_the_map_rigidly() -> Result<()> {
        let x = (random(200, 6, 3)
            * Tensor::new(&[1f32, 2.0, 3.0, 4.0, 6.0, 9.0], &Device::Cpu)?.broadcast_as((200, 6))?)?;
        let (a, b) = (pca(&x)?, pca(&rotate(&x)?)?);
        for (a, b) in a.points.iter().zip(&b.points) {
            assert!((a[0].abs() - b[0].abs()).abs() < 1e-3 && (a[1].abs() - b[1].abs()).abs() < 1e-3, "{a:?} {b:?}");
        }
        Ok(())
    }

    #[test]
    fn degenerate_sets_have_a_map() -> Result<()> {
        assert_eq!(pca(&random(1, 5, 4))?.points, [[0.0, 0.0]]);
        let column = pca(&Tensor::new(&[[1f32], [3.0]], &Device::Cpu)?)?;
        assert_eq!(column.points, [[-1.0, 0.0], [1.0, 0.0]]);
        let same = random(1, 5, 5).broadcast_as((9, 5))?.contiguous()?;
        assert_eq!(pca(&same)?.explained, [0.0, 0.0]);
        Ok(())
    }
}
