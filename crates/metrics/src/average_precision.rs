//! Average precision, for images that may have several labels.

use candle_core::{Result, Tensor, bail};

use crate::matrix::Matrix;

/// How the curve of precision over recall becomes a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AveragePrecision {
    /// The mean, over the recalls 0, 0.1, ..., 1, of the highest precision at that recall or beyond: PASCAL VOC 2007 (Everingham et al. 2010, eq. 1).
    ElevenPoints,
    /// The sum of precisions, each weighted by the recall that it adds: VOC since 2010 without interpolation, and scikit-learn.
    Area,
}

impl AveragePrecision {
    /// That of one class: `scores` rank the rows, `positive` says which are of the class. Rows of equal score come together. Of no positive row, 0.
    ///
    /// # Errors
    /// If the numbers differ or are 0, or a score is not finite.
    pub fn of(self, scores: &[f32], positive: &[bool]) -> Result<f64> {
        if scores.len() != positive.len() || scores.is_empty() {
            bail!("average precision: {} scores with {} labels", scores.len(), positive.len())
        }
        if let Some(score) = scores.iter().find(|score| !score.is_finite()) {
            bail!("average precision: a score is {score}")
        }
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let all = positive.iter().filter(|positive| **positive).count() as f64;
        if all == 0.0 {
            return Ok(0.0);
        }
        // (recall, precision) after each group of equal scores.
        let (mut found, mut seen, mut curve) = (0.0, 0.0, Vec::new());
        for (place, &row) in order.iter().enumerate() {
            seen += 1.0;
            found += f64::from(u8::from(positive[row]));
            if order.get(place + 1).is_none_or(|next| scores[*next] != scores[row]) {
                curve.push((found / all, found / seen));
            }
        }
        Ok(match self {
            Self::Area => {
                let mut before = 0.0;
                curve
                    .iter()
                    .map(|&(recall, precision)| (recall - std::mem::replace(&mut before, recall)) * precision)
                    .sum()
            }
            Self::ElevenPoints => {
                let at = |least: f64| {
                    let beyond = curve.iter().filter(|(recall, _)| *recall >= least).map(|(_, precision)| *precision);
                    beyond.fold(0.0, f64::max)
                };
                (0..=10).map(|tenth| at(f64::from(tenth) / 10.0)).sum::<f64>() / 11.0
            }
        })
    }

    /// The mean over the classes: `scores` `[M, classes]`, and for each row a truth for each class.
    ///
    /// # Errors
    /// As [`of`](Self::of); and if the shapes differ.
    pub fn mean(self, scores: &Tensor, positive: &[Vec<bool>]) -> Result<f64> {
        let scores = Matrix::finite("average precision: the scores", scores)?;
        if scores.rows != positive.len() || positive.iter().any(|row| row.len() != scores.cols) {
            bail!(
                "average precision: scores of {} rows and {} classes, labels of {} rows",
                scores.rows,
                scores.cols,
                positive.len()
            )
        }
        let of_class = |class: usize| {
            let column: Vec<f32> = scores.data.iter().skip(class).step_by(scores.cols).copied().collect();
            self.of(&column, &positive.iter().map(|row| row[class]).collect::<Vec<_>>())
        };
        Ok((0..scores.cols).map(of_class).collect::<Result<Vec<f64>>>()?.iter().sum::<f64>() / scores.cols as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: hits at places 1 and 3 of four.
    #[test]
    fn a_short_list() -> Result<()> {
        let (scores, positive) = ([0.9, 0.8, 0.7, 0.1], [true, false, true, false]);
        assert!((AveragePrecision::Area.of(&scores, &positive)? - (0.5 + 0.5 * 2.0 / 3.0)).abs() < 1e-12);
        // Six of the eleven recalls (0 to 0.5) reach precision 1, five 2/3.
        assert!(
            (AveragePrecision::ElevenPoints.of(&scores, &positive)? - (6.0 + 5.0 * 2.0 / 3.0) / 11.0).abs() < 1e-12
        );
        Ok(())
    }

    #[test]
    fn equal_scores_come_together_whatever_their_order() -> Result<()> {
        for kind in [AveragePrecision::Area, AveragePrecision::ElevenPoints] {
            let a = kind.of(&[0.5, 0.5, 0.2], &[true, false, true])?;
            assert_eq!(a, kind.of(&[0.5, 0.5, 0.2], &[false, true, true])?);
            assert_eq!(kind.of(&[0.5, 0.4], &[false, false])?, 0.0);
            assert_eq!(kind.of(&[0.5, 0.4], &[true, true])?, 1.0);
            assert!(kind.of(&[f32::NAN], &[true]).is_err());
            assert!(kind.of(&[], &[]).is_err());
        }
        Ok(())
    }
}
