//! Features with labels as plain numbers, for the linear classifiers.

use anyhow::{Result, bail, ensure};
use candle_core::DType;

use crate::Features;

/// Features with labels, as plain numbers.
#[derive(Clone)]
pub(crate) struct Rows {
    /// `[rows, width]`.
    pub(crate) x: Vec<f32>,
    /// One for each row, or none at all.
    pub(crate) labels: Vec<u32>,
    pub(crate) width: usize,
}

impl Rows {
    /// Features whose labels are all below `classes`.
    pub(crate) fn new(name: &str, features: &Features, classes: usize) -> Result<Self> {
        let labels = features.labels("a linear classifier")?.to_vec();
        let rows = Self { labels, ..Self::unlabeled(name, features)? };
        ensure!(
            rows.len() == rows.labels.len(),
            "linear classifier: {} {name} rows of width {}, {} labels",
            rows.len(),
            rows.width,
            rows.labels.len()
        );
        if let Some(label) = rows.labels.iter().find(|&&l| l as usize >= classes) {
            bail!("linear classifier: the {name} set has a label {label}, there are {classes} classes")
        }
        Ok(rows)
    }

    /// Features alone; some, and all finite.
    pub(crate) fn unlabeled(name: &str, features: &Features) -> Result<Self> {
        let (rows, width) = features.x.dims2()?;
        let x = features.x.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        ensure!(rows * width > 0, "linear classifier: {rows} {name} rows of width {width}");
        if let Some(i) = x.iter().position(|v| !v.is_finite()) {
            bail!("linear classifier: {name} row {} holds {}, which is not finite", i / width, x[i])
        }
        Ok(Self { x, labels: Vec::new(), width })
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.x.len() / self.width
    }

    /// Training and test rows of the same width; at least two of the former, since some of them choose among settings.
    pub(crate) fn both(train: &Features, test: &Features, classes: usize) -> Result<(Self, Self)> {
        let (train, test) = (Self::new("training", train, classes)?, Self::new("test", test, classes)?);
        let (width, n) = (train.width, train.labels.len());
        ensure!(width == test.width, "linear classifier: {width} training features, {} of the test set", test.width);
        ensure!(n >= 2, "linear classifier: needs at least 2 training rows, got {n}");
        Ok((train, test))
    }

    pub(crate) fn select(&self, rows: &[usize]) -> Self {
        let mut x = Vec::with_capacity(rows.len() * self.width);
        rows.iter().for_each(|&r| x.extend_from_slice(&self.x[r * self.width..(r + 1) * self.width]));
        let labels = if self.labels.is_empty() { Vec::new() } else { rows.iter().map(|&r| self.labels[r]).collect() };
        Self { x, labels, width: self.width }
    }
}

/// The place of the largest value, the first of equals; 0 if they are NaN.
pub(crate) fn largest(values: &[f32]) -> u32 {
    let mut best = 0;
    for (i, v) in values.iter().enumerate() {
        if *v > values[best] {
            best = i;
        }
    }
    best as u32
}
