//! What images show, where one may show several things: the targets of multi-label data sets such as PASCAL VOC.

use anyhow::{Result, bail, ensure};
use candle_core::{DType, Tensor};
use diptych_metrics::AveragePrecision;

/// For each image and class whether the image shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// How many classes there are.
    pub classes: usize,
    /// Image after image, `classes` values each: 1 shows it, 0 does not, -1 is neither (VOC's "difficult") and left out of training and judgment.
    pub values: Vec<i8>,
}

impl Targets {
    /// Targets of whole rows.
    ///
    /// # Errors
    /// If there is no class, a row is cut short, or a value is not 1, 0 or -1.
    pub fn new(classes: usize, values: Vec<i8>) -> Result<Self> {
        ensure!(
            classes > 0 && values.len().is_multiple_of(classes),
            "targets: {} values are no rows of {classes} classes each",
            values.len()
        );
        if let Some(at) = values.iter().position(|value| !(-1..=1).contains(value)) {
            bail!(
                "targets: image {}, class {} has {}; it must be 1 (shown), 0 (not) or -1 (left out)",
                at / classes,
                at % classes,
                values[at]
            )
        }
        Ok(Self { classes, values })
    }

    /// How many images there are.
    pub fn rows(&self) -> usize {
        self.values.len() / self.classes.max(1)
    }

    /// The targets of one image.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn row(&self, row: usize) -> &[i8] {
        &self.values[row * self.classes..][..self.classes]
    }

    /// Those of some images, in that order.
    ///
    /// # Panics
    /// If one is not there.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        Self { classes: self.classes, values: rows.iter().flat_map(|row| self.row(*row)).copied().collect() }
    }

    /// Average precision of each class that some image shows, by `scores` `[rows, classes]` of any float type; a class that none shows has none.
    /// Images of target -1 take no part.
    ///
    /// # Errors
    /// If the shapes differ or a score is not finite.
    pub fn average_precisions(&self, scores: &Tensor, kind: AveragePrecision) -> Result<Vec<Option<f64>>> {
        let (rows, classes) = scores.dims2()?;
        ensure!(
            rows == self.rows() && classes == self.classes,
            "average precision: scores of {rows} images and {classes} classes, targets of {} and {}",
            self.rows(),
            self.classes
        );
        let scores = scores.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        (0..classes)
            .map(|class| {
                let judged: Vec<usize> = (0..rows).filter(|row| self.row(*row)[class] >= 0).collect();
                let positive: Vec<bool> = judged.iter().map(|row| self.row(*row)[class] == 1).collect();
                if !positive.contains(&true) {
                    return Ok(None);
                }
                let column: Vec<f32> = judged.iter().map(|row| scores[*row][class]).collect();
                Ok(Some(kind.of(&column, &positive)?))
            })
            .collect()
    }

    /// The mean of [`average_precisions`](Self::average_precisions) (mAP).
    ///
    /// # Errors
    /// As there, and if no image shows anything.
    pub fn mean_average_precision(&self, scores: &Tensor, kind: AveragePrecision) -> Result<f64> {
        let of: Vec<f64> = self.average_precisions(scores, kind)?.into_iter().flatten().collect();
        ensure!(!of.is_empty(), "mean average precision: no image shows any of the {} classes", self.classes);
        Ok(of.iter().sum::<f64>() / of.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// By hand: class 0 is ranked 1, 0, 1 (precision 1 and 2/3), its difficult image left out; class 1 perfectly; class 2 is nowhere.
    #[test]
    fn what_is_difficult_takes_no_part() -> Result<()> {
        let targets = Targets::new(3, vec![1, 0, 0, -1, 1, 0, 0, 0, -1, 1, 0, 0])?;
        let scores =
            Tensor::new(&[[0.9f32, 0.1, 0.0], [0.8, 0.9, 0.0], [0.7, 0.2, 0.0], [0.6, 0.3, 0.0]], &Device::Cpu)?;
        let of = targets.average_precisions(&scores, AveragePrecision::Area)?;
        assert!((of[0].unwrap() - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12, "{of:?}");
        assert_eq!(of[1..], [Some(1.0), None]);
        let mean = targets.mean_average_precision(&scores, AveragePrecision::Area)?;
        assert!((mean - (5.0 / 6.0 + 1.0) / 2.0).abs() < 1e-12);
        Ok(())
    }

    #[test]
    fn what_is_wrong_is_named() {
        let text = Targets::new(2, vec![0, 1, 2, 0]).unwrap_err().to_string();
        assert!(text.starts_with("targets: image 1, class 0 has 2"), "{text}");
        assert!(Targets::new(2, vec![0]).unwrap_err().to_string().contains("no rows of 2"));
    }
}
