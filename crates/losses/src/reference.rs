//! The losses in plain f64, term by term as the papers' equations say them: what tests measure against.
//!
//! Those of [`diptych_kernels`] (`nt_xent`, `info_nce`, `cross_correlation`) have their references there; they take rows as
//! they are, or normalized here by [`normalized`].

use diptych_kernels::check::Array;

/// Each row of `x` `[N, D]` at length 1; a row of zeros stays.
pub fn normalized(x: &Array) -> Array {
    let rows = rows(x).flat_map(|row| {
        let norm = dot(row, row).sqrt();
        row.iter().map(move |v| if norm > 0.0 { v / norm } else { 0.0 })
    });
    Array::new(&x.shape, rows.collect())
}

/// NT-Xent of dot products: `z1`, `z2` `[N, D]` as they are (SimCLR, eq. 1, without the norms of its similarity).
pub fn nt_xent_of_products(z1: &Array, z2: &Array, temperature: f64) -> f64 {
    let all: Vec<&[f64]> = rows(z1).chain(rows(z2)).collect();
    let n = z1.shape[0];
    mean((0..2 * n).map(|i| {
        let others = (0..2 * n).filter(|&j| j != i).map(|j| dot(all[i], all[j]) / temperature);
        let logits: Vec<f64> = others.collect();
        log_sum_exp(&logits) - dot(all[i], all[(i + n) % (2 * n)]) / temperature
    }))
}

/// The mean cosine similarity of the rows of `a` and `b`, `[N, D]`.
pub fn mean_cosine(a: &Array, b: &Array) -> f64 {
    let cosine = |(a, b): (&[f64], &[f64])| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    mean(rows(a).zip(rows(b)).map(cosine))
}

/// BYOL, eq. 2: the mean over rows of `2 - 2 cos(p, target)`.
pub fn normalized_mse(p: &Array, target: &Array) -> f64 {
    2.0 - 2.0 * mean_cosine(p, target)
}

/// SimSiam, eq. 1: the mean over rows of `-cos(p, z)`.
pub fn negative_cosine(p: &Array, z: &Array) -> f64 {
    -mean_cosine(p, z)
}

/// SimSiam, section 4.5: the mean over rows of `-softmax(z) . log softmax(p)`.
pub fn similarity_cross_entropy(p: &Array, z: &Array) -> f64 {
    let row = |(p, z): (&[f64], &[f64])| {
        let weights: Vec<f64> = log_softmax(z, 1.0).iter().map(|v| v.exp()).collect();
        -dot(&weights, &log_softmax(p, 1.0))
    };
    mean(rows(p).zip(rows(z)).map(row))
}

/// SwAV, eq. 2: the mean over rows of `-codes . log softmax(scores / t)`.
pub fn swapped_prediction(scores: &Array, codes: &Array, temperature: f64) -> f64 {
    mean(rows(scores).zip(rows(codes)).map(|(scores, codes)| -dot(codes, &log_softmax(scores, temperature))))
}

/// SwAV's codes for `scores` `[N, K]`, on one rank, with the matrix transposed and scaled as in the paper's listing: its
/// sum is 1, each prototype's share is brought to 1/K, then each sample's to 1/N.
pub fn sinkhorn(scores: &Array, epsilon: f64, iterations: usize) -> Array {
    let (n, k) = (scores.shape[0], scores.shape[1]);
    let mut q: Vec<Vec<f64>> =
        (0..k).map(|j| (0..n).map(|i| (scores.data[i * k + j] / epsilon).exp()).collect()).collect();
    let total: f64 = q.iter().flatten().sum();
    q.iter_mut().flatten().for_each(|v| *v /= total);
    for _ in 0..iterations {
        for prototype in &mut q {
            let share: f64 = prototype.iter().sum();
            prototype.iter_mut().for_each(|v| *v /= share * k as f64);
        }
        for i in 0..n {
            let share: f64 = q.iter().map(|prototype| prototype[i]).sum();
            q.iter_mut().for_each(|prototype| prototype[i] /= share * n as f64);
        }
    }
    let codes = (0..n).flat_map(|i| q.iter().map(move |prototype| prototype[i] * n as f64).collect::<Vec<_>>());
    Array::new(&scores.shape, codes.collect())
}

/// DeepCluster-v2: the mean over rows with a label of `-log softmax(scores / t)` at it.
pub fn prototype_cross_entropy(scores: &Array, labels: &[Option<u32>], temperature: f64) -> f64 {
    let assigned = rows(scores).zip(labels).filter_map(|(row, label)| Some((row, (*label)?)));
    mean(assigned.map(|(row, label)| -log_softmax(row, temperature)[label as usize]))
}

/// Contrastive Clustering, eq. 5 and 6, of soft assignments `[N, K]`: the contrast of clusters, and the mean over both views
/// of the entropy of the mean assignment. The loss is `contrast + 2 (ln K - entropy)`.
pub fn cluster_contrast(p1: &Array, p2: &Array, temperature: f64) -> (f64, f64) {
    let columns = |p: &Array| {
        let (n, k) = (p.shape[0], p.shape[1]);
        Array::new(&[k, n], (0..k).flat_map(|j| (0..n).map(move |i| p.data[i * k + j])).collect())
    };
    let (c1, c2) = (columns(p1), columns(p2));
    let contrast = nt_xent_of_products(&normalized(&c1), &normalized(&c2), temperature);
    let entropy = |c: &Array| {
        let total: f64 = c.data.iter().sum();
        let share = rows(c).map(|cluster| cluster.iter().sum::<f64>() / total);
        -share.map(|p| if p > 0.0 { p * p.ln() } else { 0.0 }).sum::<f64>()
    };
    (contrast, 0.5 * (entropy(&c1) + entropy(&c2)))
}

fn rows(x: &Array) -> impl Iterator<Item = &[f64]> {
    x.data.chunks(x.shape[1])
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for value in values {
        sum += value;
        count += 1;
    }
    sum / f64::from(count)
}

fn log_sum_exp(logits: &[f64]) -> f64 {
    let highest = logits.iter().fold(f64::NEG_INFINITY, |highest, &v| highest.max(v));
    highest + logits.iter().map(|v| (v - highest).exp()).sum::<f64>().ln()
}

fn log_softmax(row: &[f64], temperature: f64) -> Vec<f64> {
    let logits: Vec<f64> = row.iter().map(|v| v / temperature).collect();
    let normalizer = log_sum_exp(&logits);
    logits.iter().map(|v| v - normalizer).collect()
}
