//! How good features are without a label: spectra, spread and lengths.

use std::fmt::{Display, Formatter};

use anyhow::Result;
use candle_core::Tensor;
use diptych_metrics as score;
use serde::{Deserialize, Serialize};

use crate::sample::sample;

/// Eigenvalues below this share of the largest are rounding.
const NOISE: f64 = 1e-10;
/// The ranks of alpha-ReQ's line, where there are so many.
const RANKS: (usize, usize) = (11, 100);

/// Numbers about features that need no label, with the values that rows lying evenly on the sphere would have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// RankMe, see [`diptych_metrics::effective_rank`].
    pub rankme: f64,
    /// What it would be for as many rows that lie evenly.
    pub rankme_even: f64,
    /// Features of an image.
    pub dims: usize,
    /// alpha-ReQ, see [`diptych_metrics::power_law`]; none where fewer than two eigenvalues are above rounding.
    pub alpha_req: Option<f64>,
    /// How well the line fits: R^2.
    pub alpha_fit: Option<f64>,
    /// The first and last rank that it goes through.
    pub alpha_ranks: Option<(usize, usize)>,
    /// See [`diptych_metrics::participation_ratio`].
    pub participation_ratio: f64,
    /// Of a random view of some images, see [`diptych_metrics::uniformity`]; of the images themselves where no views were made.
    pub uniformity: f64,
    /// What it would be for rows that lie evenly.
    pub uniformity_even: f64,
    /// Over two random views of some images, see [`diptych_metrics::alignment`].
    pub alignment: Option<f64>,
    /// See [`diptych_metrics::embedding_std`].
    pub embedding_std: f64,
    /// What it would be for rows that lie evenly: `1 / sqrt(F)`.
    pub embedding_std_even: f64,
    /// The mean length of the features.
    pub norm_mean: f64,
    /// The standard deviation of the lengths.
    pub norm_std: f64,
    /// The images that spectra are of.
    pub spectrum_images: usize,
}

impl Quality {
    /// Measures features `x` `[M, F]`: spectra on at most `rows` of them (spread evenly), and what two views of an image have in common on `views`, see
    /// [`crate::two_views`].
    ///
    /// # Errors
    /// If there are fewer than 2 rows, or a feature is not finite.
    pub fn of(x: &Tensor, views: Option<&(Tensor, Tensor)>, rows: usize) -> Result<Self> {
        let some = sample(x, rows)?.0;
        let (n, dims) = some.dims2()?;
        let spectrum = score::covariance_spectrum(&some)?;
        let above = spectrum.iter().filter(|l| **l > NOISE * spectrum[0]).count();
        let last = above.min(RANKS.1);
        let first = if last >= 3 * RANKS.0 { RANKS.0 } else { (last / 3).max(1) };
        let law = if last > first { Some(score::power_law(&spectrum, first, last)?) } else { None };
        let spread = match views {
            Some((first, _)) => first.clone(),
            None => sample(x, 512)?.0,
        };
        let (norm_mean, norm_std) = score::norms(x)?;
        Ok(Self {
            rankme: score::effective_rank(&some)?,
            rankme_even: score::even_rank(n, dims),
            dims,
            alpha_req: law.map(|law| law.alpha),
            alpha_fit: law.map(|law| law.fit),
            alpha_ranks: law.map(|_| (first, last)),
            participation_ratio: score::participation_ratio(&spectrum),
            uniformity: score::uniformity(&spread)?,
            uniformity_even: score::even_uniformity(dims),
            alignment: views.map(|(first, second)| score::alignment(first, second)).transpose()?,
            embedding_std: score::embedding_std(x)?,
            embedding_std_even: 1.0 / (dims as f64).sqrt(),
            norm_mean,
            norm_std,
            spectrum_images: n,
        })
    }
}

impl Display for Quality {
    /// A line for each number, with how to read it.
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "RankMe {:.1} of at most {} (1: everything on one line, collapse; {:.1}: spread evenly)",
            self.rankme,
            self.dims.min(self.spectrum_images),
            self.rankme_even
        )?;
        match (self.alpha_req, self.alpha_ranks, self.alpha_fit) {
            (Some(alpha), Some((first, last)), Some(fit)) => writeln!(
                f,
                "alpha-ReQ {alpha:.2} over ranks {first} to {last}, R^2 {fit:.3} (near 1 is best; far above: few directions carry all; far below: nearly noise)"
            )?,
            _ => writeln!(f, "alpha-ReQ: none, the features vary in fewer than two directions (collapse)")?,
        }
        writeln!(f, "participation ratio {:.1} (directions that would share the variance)", self.participation_ratio)?;
        writeln!(
            f,
            "uniformity {:.2} (0: all in one place, collapse; {:.2}: spread evenly)",
            self.uniformity, self.uniformity_even
        )?;
        if let Some(alignment) = self.alignment {
            writeln!(f, "alignment {alignment:.3} (0: two views of an image agree; 2: they are strangers)")?;
        }
        writeln!(
            f,
            "embedding std {:.4} (0: collapse; {:.4}: spread evenly)",
            self.embedding_std, self.embedding_std_even
        )?;
        write!(f, "feature length {:.3} +- {:.3}", self.norm_mean, self.norm_std)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use diptych_random::Stream;

    fn random(rows: usize, dims: usize) -> Result<Tensor> {
        let mut stream = Stream::keyed(4, &[]);
        let values: Vec<f32> =
            (0..rows * dims).map(|_| (0..12).map(|_| stream.uniform()).sum::<f64>() as f32 - 6.0).collect();
        Ok(Tensor::from_vec(values, (rows, dims), &Device::Cpu)?)
    }

    /// Noise is spread evenly; a copy of one row has collapsed.
    #[test]
    fn spread_and_collapse_are_told_apart() -> Result<()> {
        let x = random(600, 40)?;
        let found = Quality::of(&x, Some(&(x.clone(), x.clone())), 10_000)?;
        assert!((found.rankme / found.rankme_even - 1.0).abs() < 0.02, "{found:?}");
        assert!((found.uniformity - found.uniformity_even).abs() < 0.02, "{found:?}");
        assert!((found.embedding_std / found.embedding_std_even - 1.0).abs() < 0.02, "{found:?}");
        assert_eq!((found.alignment, found.alpha_ranks), (Some(0.0), Some((11, 40))));
        assert!(found.participation_ratio > 30.0 && found.alpha_req.unwrap() < 0.6, "{found:?}");
        let one = x.narrow(0, 0, 1)?.broadcast_as((600, 40))?.contiguous()?;
        let found = Quality::of(&one, None, 10_000)?;
        assert!(found.rankme < 1.01 && found.uniformity.abs() < 1e-5 && found.embedding_std < 1e-6, "{found:?}");
        assert!(found.alignment.is_none() && found.norm_std < 1e-4, "{found:?}");
        assert!(found.to_string().contains("collapse"));
        Ok(())
    }

    #[test]
    fn spectra_are_of_a_sample() -> Result<()> {
        let x = random(600, 6)?;
        let found = Quality::of(&x, None, 100)?;
        assert_eq!((found.spectrum_images, found.dims), (100, 6));
        Ok(())
    }
}
