//! Eigenvalues of symmetric matrices in plain Rust: large ones without vectors, small ones with.

use rayon::prelude::*;

/// Below this many rows a step is not worth sharing out.
const PARALLEL: usize = 96;

/// All eigenvalues of the symmetric `a` `[n, n]`, in no order: Householder's tridiagonal form, then QL with implicit shifts
/// (Golub and Van Loan, sections 8.3.1 and 8.3.3). About 2 n^3 operations.
pub(crate) fn eigenvalues(mut a: Vec<f64>, n: usize) -> Vec<f64> {
    let mut diagonal = vec![0.0; n];
    let mut off = vec![0.0; n];
    for k in 0..n {
        diagonal[k] = a[k * n + k];
        let rest = n - k - 1;
        if rest == 0 {
            break;
        }
        let mut v: Vec<f64> = a[k * n + k + 1..(k + 1) * n].to_vec();
        let norm = v.iter().map(|v| v * v).sum::<f64>().sqrt();
        // The last entry is already off-diagonal.
        if rest == 1 || norm == 0.0 {
            off[k] = v[0];
            continue;
        }
        let alpha = if v[0] > 0.0 { -norm } else { norm };
        v[0] -= alpha;
        off[k] = alpha;
        let beta = 2.0 / v.iter().map(|v| v * v).sum::<f64>();
        reflect(&mut a[(k + 1) * n..], n, k + 1, &v, beta);
    }
    implicit_ql(&mut diagonal, &mut off);
    diagonal
}

/// `A <- H A H` on the square that begins at column `first`, with `H = 1 - beta v v^T`; `rows` are its rows in full length `n`.
fn reflect(rows: &mut [f64], n: usize, first: usize, v: &[f64], beta: f64) {
    let dot = |row: &[f64]| beta * row[first..].iter().zip(v).map(|(a, v)| a * v).sum::<f64>();
    let p: Vec<f64> =
        if v.len() < PARALLEL { rows.chunks(n).map(dot).collect() } else { rows.par_chunks(n).map(dot).collect() };
    let half = 0.5 * beta * p.iter().zip(v).map(|(p, v)| p * v).sum::<f64>();
    let w: Vec<f64> = p.iter().zip(v).map(|(p, v)| p - half * v).collect();
    let update = |(i, row): (usize, &mut [f64])| {
        let (vi, wi) = (v[i], w[i]);
        for ((a, v), w) in row[first..].iter_mut().zip(v).zip(&w) {
            *a -= vi * w + wi * v;
        }
    };
    if v.len() < PARALLEL {
        rows.chunks_mut(n).enumerate().for_each(update);
    } else {
        rows.par_chunks_mut(n).enumerate().for_each(update);
    }
}

/// Eigenvalues of a tridiagonal matrix, in place of its diagonal; `off[i]` stands between i and i + 1.
fn implicit_ql(d: &mut [f64], e: &mut [f64]) {
    let n = d.len();
    for l in 0..n {
        // Each eigenvalue takes a few rounds; the limit only keeps a matrix of NaNs from looping for ever.
        for _ in 0..100 {
            let m = (l..n - 1).find(|&m| e[m].abs() <= f64::EPSILON * (d[m].abs() + d[m + 1].abs())).unwrap_or(n - 1);
            if m == l {
                break;
            }
            let mut g = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let r = g.hypot(1.0);
            g = d[m] - d[l] + e[l] / (g + r.copysign(g));
            let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
            let mut vanished = false;
            for i in (l..m).rev() {
                let f = s * e[i];
                let b = c * e[i];
                let r = f.hypot(g);
                e[i + 1] = r;
                if r == 0.0 {
                    d[i + 1] -= p;
                    e[m] = 0.0;
                    vanished = true;
                    break;
                }
                s = f / r;
                c = g / r;
                let g2 = d[i + 1] - p;
                let r2 = (d[i] - g2) * s + 2.0 * c * b;
                p = s * r2;
                d[i + 1] = g2 + p;
                g = c * r2 - b;
            }
            if !vanished {
                d[l] -= p;
                e[l] = g;
                e[m] = 0.0;
            }
        }
    }
}

/// Eigenvalues, largest first, and eigenvectors (one a row) of a small symmetric matrix, by Jacobi rotations.
pub(crate) fn jacobi(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<Vec<f64>>) {
    let mut v: Vec<f64> = (0..n * n).map(|i| f64::from(u8::from(i / n == i % n))).collect();
    let total: f64 = a.iter().map(|a| a * a).sum();
    for _ in 0..60 {
        let off: f64 = (0..n * n).filter(|i| i / n != i % n).map(|i| a[i] * a[i]).sum();
        if off <= 1e-32 * total {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                if a[p * n + q] == 0.0 {
                    continue;
                }
                let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * a[p * n + q]);
                let t = 1.0f64.copysign(theta) / (theta.abs() + theta.hypot(1.0));
                let c = 1.0 / t.hypot(1.0);
                let s = t * c;
                for k in 0..n {
                    let (x, y) = (a[k * n + p], a[k * n + q]);
                    (a[k * n + p], a[k * n + q]) = (c * x - s * y, s * x + c * y);
                }
                for k in 0..n {
                    let (x, y) = (a[p * n + k], a[q * n + k]);
                    (a[p * n + k], a[q * n + k]) = (c * x - s * y, s * x + c * y);
                    let (x, y) = (v[p * n + k], v[q * n + k]);
                    (v[p * n + k], v[q * n + k]) = (c * x - s * y, s * x + c * y);
                }
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[j * n + j].total_cmp(&a[i * n + i]));
    (order.iter().map(|&i| a[i * n + i]).collect(), order.iter().map(|&i| v[i * n..(i + 1) * n].to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    fn symmetric(n: usize, seed: u64) -> Vec<f64> {
        let x = random(n, n, seed).to_vec2::<f32>().unwrap();
        (0..n * n).map(|i| f64::from(x[i / n][i % n]) + f64::from(x[i % n][i / n])).collect()
    }

    /// The second difference matrix has the eigenvalues 2 - 2 cos(pi k / (n + 1)).
    #[test]
    fn eigenvalues_of_the_second_difference() {
        let n: usize = 57;
        let a = (0..n * n).map(|i| match (i / n).abs_diff(i % n) {
            0 => 2.0,
            1 => -1.0,
            _ => 0.0,
        });
        let mut got = eigenvalues(a.collect(), n);
        got.sort_by(f64::total_cmp);
        for (k, got) in got.iter().enumerate() {
            let expected = 2.0 - 2.0 * (std::f64::consts::PI * (k + 1) as f64 / (n + 1) as f64).cos();
            assert!((got - expected).abs() < 1e-13, "{got} {expected}");
        }
    }

    /// Two unlike algorithms agree, the first above the size from which it works in parallel.
    #[test]
    fn both_methods_agree() {
        for (n, seed) in [(1, 1), (2, 2), (3, 3), (20, 4), (PARALLEL + 9, 5)] {
            let a = symmetric(n, seed);
            let mut ql = eigenvalues(a.clone(), n);
            ql.sort_by(|a, b| b.total_cmp(a));
            let (values, _) = jacobi(a, n);
            for (a, b) in ql.iter().zip(&values) {
                assert!((a - b).abs() < 1e-10 * n as f64, "n = {n}: {a} {b}");
            }
        }
    }

    #[test]
    fn vectors_satisfy_their_equation() {
        let (n, a) = (9, symmetric(9, 6));
        let (values, vectors) = jacobi(a.clone(), n);
        for (value, vector) in values.iter().zip(&vectors) {
            for (row, x) in a.chunks(n).zip(vector) {
                let image: f64 = row.iter().zip(vector).map(|(a, v)| a * v).sum();
                assert!((image - value * x).abs() < 1e-12, "{image} {}", value * x);
            }
        }
    }

    #[test]
    fn degenerate_matrices_are_fine() {
        assert_eq!(eigenvalues(vec![0.0; 16], 4), [0.0; 4]);
        let mut ones = eigenvalues(vec![1.0; 25], 5);
        ones.sort_by(f64::total_cmp);
        assert!((ones[4] - 5.0).abs() < 1e-14 && ones[..4].iter().all(|v| v.abs() < 1e-14), "{ones:?}");
    }
}
