//! Mean cosine similarities: of positive pairs, and of all others.

use candle_core::{Result, Tensor, bail};

use crate::matrix::Matrix;

/// The mean over rows of `cos(x_i, y_i)`; 1 if two views always agree. A zero row has cosine 0.
///
/// `x`, `y`: `[M, F]`, row i of both from the same image.
///
/// # Errors
/// If the shapes differ or a value is not finite.
pub fn positive_cosine(x: &Tensor, y: &Tensor) -> Result<f64> {
    let (x, y) = rows("positive cosine", x, y)?;
    Ok(diagonal(&x, &y) / x.rows as f64)
}

/// The mean over `i != j` of `cos(x_i, y_j)`: near 0 if different images are unrelated, 1 if all are one. x and y may be
/// the same tensor. It is linear in M, since a sum of products is the product of the sums.
///
/// `x`, `y`: `[M, F]` with M >= 2, row i of both from the same image.
///
/// # Errors
/// If the shapes differ, there are fewer than 2 rows, or a value is not finite.
pub fn negative_cosine(x: &Tensor, y: &Tensor) -> Result<f64> {
    let (x, y) = rows("negative cosine", x, y)?;
    if x.rows < 2 {
        bail!("negative cosine: needs at least 2 rows, got {}", x.rows)
    }
    let sum = |m: &Matrix| -> Vec<f64> {
        let mut sum = vec![0f64; m.cols];
        m.iter().for_each(|row| sum.iter_mut().zip(row).for_each(|(s, &v)| *s += f64::from(v)));
        sum
    };
    let all: f64 = sum(&x).iter().zip(sum(&y)).map(|(a, b)| a * b).sum();
    Ok((all - diagonal(&x, &y)) / (x.rows as f64 * (x.rows - 1) as f64))
}

fn rows(what: &str, x: &Tensor, y: &Tensor) -> Result<(Matrix, Matrix)> {
    if x.dims() != y.dims() {
        bail!("{what}: shapes {:?} and {:?} differ", x.dims(), y.dims())
    }
    Ok((Matrix::finite(what, x)?.normalized(), Matrix::finite(what, y)?.normalized()))
}

/// The sum over rows of their products.
fn diagonal(x: &Matrix, y: &Matrix) -> f64 {
    x.data.iter().zip(&y.data).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;
    use candle_core::Device;

    /// By hand: (1, 0) with (1, 0) is 1, (0, 1) with (1, 0) is 0; across, (1, 0) with (1, 0) and (0, 1) with (1, 0).
    #[test]
    fn cosines_of_a_hand_made_case() -> Result<()> {
        let x = Tensor::new(&[[2f32, 0.0], [0.0, 0.5]], &Device::Cpu)?;
        let y = Tensor::new(&[[9f32, 0.0], [1.0, 0.0]], &Device::Cpu)?;
        assert_eq!((positive_cosine(&x, &y)?, negative_cosine(&x, &y)?), (0.5, 0.5));
        assert_eq!((positive_cosine(&x, &x)?, negative_cosine(&x, &x)?), (1.0, 0.0));
        Ok(())
    }

    #[test]
    fn negatives_equal_a_double_loop() -> Result<()> {
        let (x, y) = (random(37, 5, 1), random(37, 5, 2));
        let (a, b) = rows("test", &x, &y)?;
        let mut sum = 0.0;
        for (i, x) in a.iter().enumerate() {
            for (j, y) in b.iter().enumerate().filter(|(j, _)| *j != i) {
                assert_ne!(i, j);
                sum += x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
            }
        }
        let expected = sum / (37.0 * 36.0);
        assert!((negative_cosine(&x, &y)? - expected).abs() < 1e-9, "{expected}");
        Ok(())
    }

    /// On the sphere, |x - y|^2 = 2 - 2 cos(x, y).
    #[test]
    fn the_positive_cosine_goes_with_alignment() -> Result<()> {
        let (x, y) = (random(70, 6, 4), random(70, 6, 5));
        assert!((crate::alignment(&x, &y)? - (2.0 - 2.0 * positive_cosine(&x, &y)?)).abs() < 1e-6);
        Ok(())
    }

    #[test]
    fn bad_shapes_are_named() {
        let (x, y) = (random(3, 4, 1), random(4, 3, 1));
        assert!(positive_cosine(&x, &y).unwrap_err().to_string().contains("[3, 4] and [4, 3] differ"));
        let one = random(1, 4, 1);
        assert!(negative_cosine(&one, &one).unwrap_err().to_string().contains("at least 2 rows, got 1"));
    }
}
