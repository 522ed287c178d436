//! The weighted kNN classifier of instance discrimination.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use crate::nearest::nearest;

/// What [`knn`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Knn {
    /// Share of the test rows whose predicted class is their label, in [0, 1].
    pub accuracy: f64,
    /// One class per test row.
    pub predictions: Vec<u32>,
    /// The neighbors that voted, see [`nearest`].
    pub neighbors: Vec<Vec<(u32, f32)>>,
}

/// Weighted kNN classification (Wu et al. 2018, arXiv:1805.01978, section 3.4): each of the `k` nearest training rows votes for its class
/// with weight `exp(similarity / temperature)`.
///
/// `train`: `[M, F]`, `test`: `[Q, F]`, one label a row. The protocol of the field is `k = 20` (or 200) and temperature 0.07. Ties in
/// similarity go to the lower row, ties in votes to the lower class.
///
/// # Errors
/// As [`nearest`], and if labels and rows differ in number or the temperature is not positive.
///
/// ```
/// use candle_core::{Device, Tensor};
/// # fn main() -> candle_core::Result<()> {
/// let train = Tensor::new(&[[1f32, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]], &Device::Cpu)?;
/// let test = Tensor::new(&[[2f32, 0.1], [0.3, 5.0]], &Device::Cpu)?;
/// let found = diptych_metrics::knn(&train, &[7, 7, 3, 3], &test, &[7, 3], 2, 0.07)?;
/// assert_eq!(found.predictions, [7, 3]);
/// assert_eq!(found.accuracy, 1.0);
/// # Ok(())
/// # }
/// ```
pub fn knn(
    train: &Tensor,
    train_labels: &[u32],
    test: &Tensor,
    test_labels: &[u32],
    k: usize,
    temperature: f64,
) -> Result<Knn> {
    for (name, x, labels) in [("training", train, train_labels), ("test", test, test_labels)] {
        if x.dims().first() != Some(&labels.len()) {
            bail!("kNN: {name} features of shape {:?} with {} labels", x.dims(), labels.len())
        }
    }
    let neighbors = nearest(test, train, k)?;
    let predictions = classify(&neighbors, train_labels, k, Votes::Weighted { temperature })?;
    let accuracy = crate::accuracy(&predictions, test_labels)?;
    Ok(Knn { accuracy, predictions, neighbors })
}

/// How much each neighbor's vote counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Votes {
    /// `exp(similarity / temperature)` (Wu et al. 2018, arXiv:1805.01978, section 3.4).
    Weighted {
        /// The lower, the more the nearest count.
        temperature: f64,
    },
    /// One each.
    Uniform,
}

/// The class that the first `k` neighbors of each row vote for; `neighbors` as [`nearest`] gives them, `labels` those of the bank. Classes are those of
/// the labels, whatever their numbers. Ties go to the lower class.
///
/// One search for the largest `k` serves every smaller one and every way of voting.
///
/// # Errors
/// If the temperature is not positive, `k` is 0 or there are fewer neighbors, or one of them has no label.
pub fn classify(neighbors: &[Vec<(u32, f32)>], labels: &[u32], k: usize, votes: Votes) -> Result<Vec<u32>> {
    if let Votes::Weighted { temperature } = votes
        && !(temperature > 0.0 && temperature.is_finite())
    {
        bail!("kNN: temperature {temperature}; expected a positive number, usually 0.07")
    }
    let fewest = neighbors.iter().map(Vec::len).min().unwrap_or(k);
    if k == 0 || k > fewest {
        bail!("kNN: k = {k} with {fewest} neighbors; k must lie between 1 and that")
    }
    if let Some((row, _)) = neighbors.iter().flatten().find(|(row, _)| *row as usize >= labels.len()) {
        bail!("kNN: row {row} is a neighbor, but there are {} labels", labels.len())
    }
    Ok(neighbors.par_iter().map(|neighbors| vote(&neighbors[..k], labels, votes)).collect())
}

/// The class with the largest weight; the lower one of equals.
fn vote(neighbors: &[(u32, f32)], labels: &[u32], how: Votes) -> u32 {
    let Some(&(_, top)) = neighbors.first() else { return 0 };
    let mut votes: Vec<(u32, f64)> = Vec::with_capacity(neighbors.len());
    for &(row, similarity) in neighbors {
        let class = labels[row as usize];
        let weight = match how {
            // Relative to the nearest, so that no temperature overflows.
            Votes::Weighted { temperature } => (f64::from(similarity - top) / temperature).exp(),
            Votes::Uniform => 1.0,
        };
        match votes.iter_mut().find(|(c, _)| *c == class) {
            Some((_, sum)) => *sum += weight,
            None => votes.push((class, weight)),
        }
    }
    let better = |a: (u32, f64), b: (u32, f64)| if b.1 > a.1 || (b.1 == a.1 && b.0 < a.0) { b } else { a };
    votes.iter().copied().reduce(better).map_or(0, |(class, _)| class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{random, rotate};
    use candle_core::Device;

    /// Scores by hand: similarity 1 for class 5 against two of similarity 0.9 for class 2; exp(1 / t) < 2 exp(0.9 / t) when t > 0.1 / ln 2.
    #[test]
    fn votes_are_weighted_by_temperature() -> Result<()> {
        let side = (1.0f32 - 0.81).sqrt();
        let train = Tensor::new(&[[1f32, 0.0, 0.0], [0.9, side, 0.0], [0.9, 0.0, side]], &Device::Cpu)?;
        let test = Tensor::new(&[[3f32, 0.0, 0.0]], &Device::Cpu)?;
        let class = |t| Ok::<_, candle_core::Error>(knn(&train, &[5, 2, 2], &test, &[5], 3, t)?.predictions[0]);
        assert_eq!(class(0.07)?, 5);
        assert_eq!(class(0.2)?, 2);
        assert_eq!(class(1e-6)?, 5);
        Ok(())
    }

    /// Three of one class outvote the nearest where all count the same.
    #[test]
    fn uniform_votes_are_counted() -> Result<()> {
        let neighbors = [vec![(0, 0.99f32), (1, 0.2), (2, 0.2), (3, 0.1)]];
        let class = |k, votes| Ok::<_, candle_core::Error>(classify(&neighbors, &[8, 3, 3, 8], k, votes)?[0]);
        assert_eq!(class(3, Votes::Uniform)?, 3);
        assert_eq!(class(4, Votes::Uniform)?, 3, "a tie goes to the lower class");
        assert_eq!(class(4, Votes::Weighted { temperature: 0.07 })?, 8);
        assert_eq!(class(1, Votes::Uniform)?, 8);
        let error = class(5, Votes::Uniform).unwrap_err().to_string();
        assert!(error.contains("k = 5 with 4 neighbors"), "{error}");
        let error = classify(&neighbors, &[1, 2], 2, Votes::Uniform).unwrap_err().to_string();
        assert!(error.contains("there are 2 labels"), "{error}");
        Ok(())
    }

    #[test]
    fn ties_in_votes_go_to_the_lower_class() -> Result<()> {
        let train = Tensor::new(&[[1f32, 0.0], [1.0, 0.0], [0.0, 1.0]], &Device::Cpu)?;
        let test = Tensor::new(&[[1f32, 0.0]], &Device::Cpu)?;
        assert_eq!(knn(&train, &[9, 4, 1], &test, &[4], 2, 0.07)?.predictions, [4]);
        assert_eq!(knn(&train, &[4, 9, 1], &test, &[4], 2, 0.07)?.predictions, [4]);
        Ok(())
    }

    /// One orthogonal matrix on bank and queries changes no prediction; neither does a scale per row.
    #[test]
    fn rotation_and_scale_change_nothing() -> Result<()> {
        let (train, test) = (random(300, 6, 5), random(50, 6, 6));
        let labels: Vec<u32> = (0..300).map(|i| i % 7).collect();
        let truth: Vec<u32> = (0..50).map(|i| i % 7).collect();
        let a = knn(&train, &labels, &test, &truth, 20, 0.07)?;
        let b = knn(&rotate(&train)?, &labels, &rotate(&test)?, &truth, 20, 0.07)?;
        let c = knn(&(train * 3.0)?, &labels, &(test * 0.25)?, &truth, 20, 0.07)?;
        assert_eq!(a.predictions, b.predictions);
        assert_eq!(a.predictions, c.predictions);
        Ok(())
    }

    #[test]
    fn separable_classes_are_found() -> Result<()> {
        let labels: Vec<u32> = (0..100).map(|i| i % 4).collect();
        let data: Vec<f32> =
            labels.iter().flat_map(|&l| (0..4).map(move |j| if j == l { 1.0 } else { 0.05 })).collect();
        let x = (Tensor::from_vec(data, (100, 4), &Device::Cpu)? + (random(100, 4, 7) * 0.2)?)?;
        let found = knn(&x, &labels, &x, &labels, 20, 0.07)?;
        assert_eq!(found.accuracy, 1.0);
        Ok(())
    }

    #[test]
    fn wrong_input_is_named() {
        let x = random(3, 2, 8);
        let error = |r: Result<Knn>| r.unwrap_err().to_string();
        let got = error(knn(&x, &[0, 1, 2], &x, &[0, 1, 2], 4, 0.07));
        assert!(got.contains("k = 4 with a bank of 3 rows"), "{got}");
        let got = error(knn(&x, &[0, 1], &x, &[0, 1, 2], 1, 0.07));
        assert!(got.contains("2 labels"), "{got}");
        let bad = Tensor::new(&[[1f32, f32::NAN]], &Device::Cpu).unwrap();
        let got = error(knn(&x, &[0, 1, 2], &bad, &[0], 1, 0.07));
        assert!(got.contains("row 0 holds NaN"), "{got}");
    }
}
