//! The numbers of a step's embeddings.

use anyhow::Result;
use candle_core::{Device, Tensor};
use diptych_metrics as metrics;

use super::keys;
use crate::log::Row;

/// Rows that the measures with a cost beyond linear look at. A look then costs some milliseconds, whatever the batch.
pub(crate) const MOST_ROWS: usize = 256;

/// How the embeddings of a step lie. What can't be measured is NaN: pairs where there is one view, all where a value is
/// not finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measures {
    /// Mean over dimensions of the standard deviation of L2-normalized rows.
    pub(crate) std: f64,
    /// Effective rank of up to 256 rows.
    pub(crate) rank: f64,
    /// Mean squared distance of the two views of an image, on the sphere.
    pub(crate) alignment: f64,
    /// Log of the mean Gaussian potential of up to 256 rows.
    pub(crate) uniformity: f64,
    /// Mean cosine of the two views of an image.
    pub(crate) positive: f64,
    /// Mean cosine of views of different images.
    pub(crate) negative: f64,
}

impl Measures {
    /// Looks at the first two views' embeddings, `[N, D]` each; with them N and D. `None` without embeddings.
    pub(crate) fn of(embeddings: &[Tensor]) -> Result<Option<([usize; 2], Self)>> {
        let Some(first) = embeddings.first() else { return Ok(None) };
        let &[n, d] = first.dims() else { return Ok(None) };
        let first = first.to_device(&Device::Cpu)?;
        let second = embeddings.get(1).filter(|second| second.dims() == [n, d]);
        let second = second.map(|second| second.to_device(&Device::Cpu)).transpose()?;
        let mut measures = Self::NONE;
        measures.std = metrics::embedding_std(&first)?;
        let whole = match &second {
            Some(second) => metrics::embedding_std(second)?.is_finite(),
            None => true,
        };
        if n < 2 || !(measures.std.is_finite() && whole) {
            return Ok(Some(([n, d], Self { std: measures.std, ..Self::NONE })));
        }
        let some = first.narrow(0, 0, n.min(MOST_ROWS))?;
        measures.rank = metrics::effective_rank(&some)?;
        measures.uniformity = metrics::uniformity(&some)?;
        measures.negative = metrics::negative_cosine(&first, second.as_ref().unwrap_or(&first))?;
        if let Some(second) = &second {
            measures.alignment = metrics::alignment(&first, second)?;
            measures.positive = metrics::positive_cosine(&first, second)?;
        }
        Ok(Some(([n, d], measures)))
    }

    const NONE: Self = Self {
        std: f64::NAN,
        rank: f64::NAN,
        alignment: f64::NAN,
        uniformity: f64::NAN,
        positive: f64::NAN,
        negative: f64::NAN,
    };

    fn named(self) -> [(&'static str, f64); 6] {
        [
            (keys::STD, self.std),
            (keys::RANK, self.rank),
            (keys::ALIGNMENT, self.alignment),
            (keys::UNIFORMITY, self.uniformity),
            (keys::POSITIVE, self.positive),
            (keys::NEGATIVE, self.negative),
        ]
    }

    /// Writes the numbers into a row of metrics; a std that is not finite as null, others not at all.
    pub(crate) fn fill(self, row: &mut Row) {
        for (key, value) in self.named() {
            if value.is_finite() || key == keys::STD {
                row.insert(key.into(), value.into());
            }
        }
    }

    /// What [`Self::fill`] wrote; `None` of a row that has no std.
    pub(crate) fn of_row(row: &Row) -> Option<Self> {
        row.get(keys::STD)?;
        let number = |key: &str| row.get(key).and_then(serde_json::Value::as_f64).unwrap_or(f64::NAN);
        Some(Self {
            std: number(keys::STD),
            rank: number(keys::RANK),
            alignment: number(keys::ALIGNMENT),
            uniformity: number(keys::UNIFORMITY),
            positive: number(keys::POSITIVE),
            negative: number(keys::NEGATIVE),
        })
    }
}
