//! How good the backbone is, while it trains and at its end.

use std::collections::HashSet;
use std::fmt::{Display, Formatter};
use std::sync::Arc;

use anyhow::Result;
use diptych_comm::{Collective, Local};
use diptych_data::{Dataset, Subset};
use diptych_eval::{Transform, features, knn, two_views};
use diptych_metrics as score;
use serde_json::Value;

use crate::fit::workers;
use crate::log::{Row, metrics};
use crate::report::{Map, Query};
use crate::setup::build_method;
use crate::{Prepared, Recipe, Shown};

/// Test images that the report shows with their neighbors.
const QUERIES: usize = 8;
/// Neighbors of each.
const NEIGHBORS: usize = 6;
/// Points of the map.
const POINTS: usize = 1000;

/// One look at the backbone. Accuracies are fractions.
#[derive(Clone, Debug, Default)]
pub struct Evaluation {
    /// 20-NN accuracy on the test split, where there are labels.
    pub knn: Option<f64>,
    /// Alignment of representations of two views (Wang and Isola 2020, eq. 2).
    pub alignment: f64,
    /// Their uniformity (eq. 3).
    pub uniformity: f64,
    /// Effective rank of the representations.
    pub effective_rank: f64,
    /// The places of test images that could not be decoded, and were left out.
    pub skipped: Vec<u32>,
    /// Test images and what is nearest to them.
    pub neighbors: Vec<Query>,
    /// The 2-d map.
    pub map: Option<Map>,
}

impl Evaluation {
    /// Names and values for a row of metrics.
    pub fn numbers(&self) -> Vec<(&'static str, f64)> {
        let mut numbers = vec![
            ("alignment", self.alignment),
            ("uniformity", self.uniformity),
            ("effective_rank", self.effective_rank),
        ];
        numbers.extend(self.knn.map(|knn| ("knn_top1", knn)));
        numbers
    }
}

impl Display for Evaluation {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        if let Some(knn) = self.knn {
            write!(f, "20-NN accuracy {:.1} %, ", 100.0 * knn)?;
        }
        write!(
            f,
            "alignment {:.3}, uniformity {:.3}, effective rank {:.1}",
            self.alignment, self.uniformity, self.effective_rank
        )
    }
}

/// What no training gives: raw pixels and random weights under the same protocol.
#[derive(Clone, Copy, Debug)]
pub struct Baselines {
    /// 20-NN accuracy of raw pixels.
    pub raw: f64,
    /// 20-NN accuracy of the backbone's initial weights, with statistics estimated on training images.
    pub random: f64,
}

impl Baselines {
    /// As the first row of metrics.
    pub fn row(&self) -> Row {
        let mut row = metrics::row(0, 0);
        row.insert("raw_knn_top1".into(), self.raw.into());
        row.insert("random_knn_top1".into(), self.random.into());
        row
    }

    /// From the rows of a run.
    pub fn find(rows: &[Row]) -> Option<Self> {
        let value = |row: &Row, key: &str| row.get(key).and_then(Value::as_f64);
        rows.iter()
            .find_map(|row| Some(Self { raw: value(row, "raw_knn_top1")?, random: value(row, "random_knn_top1")? }))
    }
}

impl Display for Baselines {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "before training: 20-NN accuracy of raw pixels {:.1} %, of the random backbone {:.1} %",
            100.0 * self.raw,
            100.0 * self.random
        )
    }
}

/// Measures the baselines of a run.
///
/// # Errors
/// If the data can't be read.
pub fn baselines(run: &Prepared) -> Result<Baselines> {
    let (recipe, transform) = (&run.recipe, transform(&run.recipe));
    let Some(test) = &run.splits.test else { return Ok(Baselines { raw: 0.0, random: 0.0 }) };
    let bank = bank(run);
    let (a, b) = (diptych_eval::pixels(&bank, &transform)?, diptych_eval::pixels(test, &transform)?);
    let raw = knn(&a, &b, recipe.trainer.knn_k, recipe.trainer.knn_temperature)?.accuracy;
    let comm: Arc<dyn Collective> = Arc::new(Local);
    // One group: statistics are estimated on batches of any size.
    let method = build_method(recipe, run.entry, &comm, 1, &run.device, run.splits.train.len(), run.total_steps())?;
    diptych_eval::estimate_statistics(method.backbone(), &bank, &transform)?;
    let (a, b) = (features(method.backbone(), &bank, &transform)?, features(method.backbone(), test, &transform)?);
    let random = knn(&a, &b, recipe.trainer.knn_k, recipe.trainer.knn_temperature)?.accuracy;
    Ok(Baselines { raw, random })
}

/// Evaluates the backbone as it is: kNN where there are labels, geometry and pictures always.
///
/// # Errors
/// If the data can't be read or a tensor operation fails.
pub fn evaluate(run: &Prepared) -> Result<Evaluation> {
    look(run, false)
}

/// [`evaluate`]; at the end of a run (`last`) the map has t-SNE and pictures too, which take a second or two.
pub(crate) fn look(run: &Prepared, last: bool) -> Result<Evaluation> {
    let (recipe, backbone, transform) = (&run.recipe, run.method.backbone(), transform(&run.recipe));
    let bank = bank(run);
    let test = run.splits.test.clone().unwrap_or_else(|| bank.clone());
    let (train_features, test_features) =
        (features(backbone, &bank, &transform)?, features(backbone, &test, &transform)?);
    let k = recipe.trainer.knn_k.min(bank.len());
    let knn = match run.splits.labeled() {
        true => Some(knn(&train_features, &test_features, k, recipe.trainer.knn_temperature)?.accuracy),
        false => None,
    };
    let (h1, h2) = two_views(backbone, test.as_ref(), &recipe.augment)?;
    let shown = Shown::new(&test_features, test.as_ref());
    let neighbors = match recipe.report.images {
        true => shown.queries(&Shown::new(&train_features, bank.as_ref()), QUERIES, NEIGHBORS)?,
        false => Vec::new(),
    };
    let seen: HashSet<u32> = test_features.indices.iter().copied().collect();
    Ok(Evaluation {
        knn,
        skipped: (0..test.len() as u32).filter(|index| !seen.contains(index)).collect(),
        alignment: score::alignment(&h1, &h2)?,
        uniformity: score::uniformity(&h1)?,
        effective_rank: score::effective_rank(&test_features.x)?,
        neighbors,
        map: Some(shown.map(POINTS, last, last && recipe.report.images)?),
    })
}

/// The middle of each image, normalized as in training.
pub(crate) fn transform(recipe: &Recipe) -> Transform {
    Transform {
        size: recipe.augment.size,
        mean: recipe.augment.mean,
        std: recipe.augment.std,
        batch_size: 256,
        workers: workers(recipe.data.workers),
        max_error_share: recipe.data.max_error_share,
    }
}

/// The labeled training images that vote, at most `trainer.knn_bank`.
fn bank(run: &Prepared) -> Arc<dyn Dataset> {
    let bank = run.splits.bank();
    match run.recipe.trainer.knn_bank {
        n if n > 0 && n < bank.len() => Arc::new(Subset::by_key(bank.clone(), n)),
        _ => bank.clone(),
    }
}
