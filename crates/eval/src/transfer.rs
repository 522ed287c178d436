//! Transfer to other data sets, each judged by the metric that papers report for it (SimCLR, Chen et al. 2020, arXiv:2002.05709, appendix B.8; BYOL, Grill et
//! al. 2020, arXiv:2006.07733, appendix D).

use std::fmt::{Display, Formatter};
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use diptych_data::Dataset;
use diptych_metrics::{AveragePrecision, accuracy, mean_per_class_accuracy};
use serde::{Deserialize, Serialize};

use crate::{EvalResult, Features, FineTune, Logistic, Probe, Targets, knn};

/// How a backbone is carried over to a data set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferProtocol {
    /// Logistic regression with a chosen penalty: one for each class where images show several things.
    #[default]
    Logistic,
    /// A linear classifier trained by SGD.
    Linear,
    /// The nearest neighbors' votes.
    Knn,
    /// Everything is trained.
    Finetune,
}

impl Display for TransferProtocol {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Logistic => "logistic",
            Self::Linear => "linear",
            Self::Knn => "knn",
            Self::Finetune => "finetune",
        })
    }
}

/// What is reported for a data set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferMetric {
    /// What the papers report for a set of this name, see [`TransferMetric::published`].
    #[default]
    Auto,
    /// Share of the test images that were classified rightly.
    Top1,
    /// Mean over the classes of each class's accuracy.
    MeanPerClass,
    /// Mean over the classes of the 11-point average precision, for images that show several things.
    Voc07Map,
}

impl TransferMetric {
    /// What SimCLR (table 8) and BYOL (appendix D) report for a data set of this name: mean per class for FGVC Aircraft, Oxford-IIIT Pets, Caltech-101 and
    /// Oxford Flowers, the 11-point mean average precision for VOC2007, top-1 for Food-101, CIFAR, Birdsnap, SUN397, Cars, DTD and all others. Case, and
    /// what is no letter or digit, is looked past.
    pub fn published(name: &str) -> Self {
        let bare: String = name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
        let has = |words: &[&str]| words.iter().any(|word| bare.contains(word));
        if has(&["aircraft", "pets", "iiitpet", "caltech101", "flowers"]) {
            Self::MeanPerClass
        } else if has(&["voc2007", "voc07"]) {
            Self::Voc07Map
        } else {
            Self::Top1
        }
    }

    /// The word for it in a result.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Top1 => "top1",
            Self::MeanPerClass => "mean_per_class",
            Self::Voc07Map => "voc07_map",
        }
    }
}

/// One data set to carry over to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransferSet {
    /// What to call it; the last part of `data` when left out.
    pub name: String,
    /// Where it is.
    pub data: String,
    /// Test images given apart.
    pub test: String,
    /// What is reported.
    pub metric: TransferMetric,
    /// How, if not as the others.
    pub protocol: Option<TransferProtocol>,
}

impl TransferSet {
    /// What to call it.
    pub fn called(&self) -> &str {
        match self.name.as_str() {
            "" => self.data.trim_end_matches('/').rsplit('/').next().unwrap_or(&self.data),
            name => name,
        }
    }
}

/// A list of data sets, and how a backbone is judged on them. Plain data; the default is SimCLR's logistic regression on no set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Transfer {
    /// How, where a set does not say otherwise.
    pub protocol: TransferProtocol,
    /// The data sets.
    pub sets: Vec<TransferSet>,
    /// The settings of `logistic`.
    pub logistic: Logistic,
    /// The settings of `linear`.
    pub linear: Probe,
    /// The settings of `finetune`.
    pub finetune: FineTune,
    /// The neighbors of `knn`.
    pub k: usize,
    /// Their temperature.
    pub temperature: f64,
}

impl Default for Transfer {
    fn default() -> Self {
        Self {
            protocol: TransferProtocol::default(),
            sets: Vec::new(),
            logistic: Logistic::default(),
            linear: Probe::default(),
            finetune: FineTune::default(),
            k: 20,
            temperature: 0.07,
        }
    }
}

/// A training and a test set.
pub type TransferData<'a> = (&'a Arc<dyn Dataset>, &'a Arc<dyn Dataset>);

impl Transfer {
    /// The metric of a set: as it says, or as published for its name; that of several labels where its images have several.
    ///
    /// # Errors
    /// If the metric and the images' labels do not go together.
    pub fn metric(&self, set: &TransferSet, (train, test): TransferData) -> Result<TransferMetric> {
        let several = !train.target_classes().is_empty() && !test.target_classes().is_empty();
        let one = !train.classes().is_empty() && !test.classes().is_empty();
        let published = TransferMetric::published(set.called());
        match set.metric {
            TransferMetric::Auto if several => Ok(TransferMetric::Voc07Map),
            TransferMetric::Auto if one && published == TransferMetric::Voc07Map => Ok(TransferMetric::Top1),
            TransferMetric::Auto if one => Ok(published),
            TransferMetric::Voc07Map if several => Ok(TransferMetric::Voc07Map),
            TransferMetric::Voc07Map if one => {
                bail!("voc07_map is for images that show several things; these have one label each, as for top1")
            }
            metric if one => Ok(metric),
            metric if several => {
                bail!("{} is for images of one label; these show several things, as for voc07_map", metric.name())
            }
            _ => bail!("it has no labels: transfer needs class folders, one per class, or a PASCAL VOC folder"),
        }
    }

    /// Judges features of a set's images by every protocol but fine-tuning. `seed` gives the validation images.
    ///
    /// # Errors
    /// If the protocol and the metric do not go together, or as the protocol's own.
    pub fn judge(
        &self,
        (protocol, metric): (TransferProtocol, TransferMetric),
        (train, test): (&Features, &Features),
        data: TransferData,
        seed: u64,
    ) -> Result<EvalResult> {
        if metric == TransferMetric::Voc07Map {
            ensure!(
                protocol == TransferProtocol::Logistic,
                "images that show several things are judged by logistic regressions, one for each class, not by {protocol}"
            );
            return self.judge_several(train, test, data, seed);
        }
        let classes = data.0.classes().len();
        let truth = test.labels("transfer")?;
        let (predictions, mut result) = match protocol {
            TransferProtocol::Logistic => {
                let found = self.logistic.run(train, test, classes, seed)?;
                (found.predictions, chosen(&[("penalty", found.penalty)]))
            }
            TransferProtocol::Linear => {
                let found = self.linear.run(train, test, classes, seed)?;
                let rates = [("learning_rate", found.learning_rate), ("weight_decay", found.weight_decay)];
                (found.predictions, chosen(&rates))
            }
            TransferProtocol::Knn => (knn(train, test, self.k, self.temperature)?.predictions, chosen(&[])),
            TransferProtocol::Finetune => bail!("fine-tuning trains on images, not on features"),
        };
        value(&mut result, protocol, metric, &predictions, truth)?;
        result.words =
            format!("{} on frozen features of the center view, judged by {}", self.words(protocol), metric.name());
        Ok(result)
    }

    /// A protocol in words.
    fn words(&self, protocol: TransferProtocol) -> String {
        let (share, grid) = (100.0 * self.logistic.validation, self.logistic.penalties.len());
        match protocol {
            TransferProtocol::Logistic => {
                format!(
                    "logistic regression by L-BFGS (one of {grid} L2 penalties was chosen on {share} % of the training images)"
                )
            }
            TransferProtocol::Linear => format!("linear classifier ({} epochs, last epoch)", self.linear.epochs),
            TransferProtocol::Knn => format!("{} nearest neighbors, votes exp(s / {})", self.k, self.temperature),
            TransferProtocol::Finetune => "fine-tuning".into(),
        }
    }

    fn judge_several(&self, train: &Features, test: &Features, data: TransferData, seed: u64) -> Result<EvalResult> {
        ensure!(
            data.0.target_classes() == data.1.target_classes(),
            "the training images are told of other classes than the test images"
        );
        let (targets, truth) = (targets(data.0, train)?, targets(data.1, test)?);
        let kind = AveragePrecision::ElevenPoints;
        let found = self.logistic.one_vs_rest(train, &targets, test, kind, seed)?;
        let mut result = chosen(&[("penalty", found.penalty)]);
        result.protocol = TransferProtocol::Logistic.to_string();
        result.metric = TransferMetric::Voc07Map.name().into();
        result.value = truth.mean_average_precision(&found.scores, kind)?;
        result.top1 = None;
        result.n = truth.rows();
        let how = self.words(TransferProtocol::Logistic);
        result.words = format!(
            "{how}, one for each class, on frozen features of the center view; 11-point average precision, its mean over classes"
        );
        Ok(result)
    }

    /// A fine-tuning of the set as a result.
    ///
    /// # Errors
    /// If the metric is for images that show several things.
    pub fn tuned(&self, metric: TransferMetric, tuned: &crate::FineTuned) -> Result<EvalResult> {
        let mut result = self.finetune.result(tuned);
        value(&mut result, TransferProtocol::Finetune, metric, &tuned.predictions, &tuned.truth)?;
        if metric != TransferMetric::Top1 {
            // The best epoch was chosen by top-1.
            result.best_epoch = None;
        }
        Ok(result)
    }
}

/// A result still without a value.
fn chosen(settings: &[(&str, f64)]) -> EvalResult {
    let mut result = EvalResult::top1("", 0.0, 0);
    result.chosen = settings.iter().map(|(name, value)| (name.to_string(), *value)).collect();
    result
}

fn value(
    result: &mut EvalResult,
    protocol: TransferProtocol,
    metric: TransferMetric,
    predictions: &[u32],
    truth: &[u32],
) -> Result<()> {
    result.protocol = protocol.to_string();
    result.metric = metric.name().into();
    result.value = match metric {
        TransferMetric::MeanPerClass => mean_per_class_accuracy(predictions, truth)?,
        TransferMetric::Auto | TransferMetric::Top1 => accuracy(predictions, truth)?,
        TransferMetric::Voc07Map => bail!("voc07_map is measured on scores, by logistic regressions"),
    };
    result.top1 = (metric == TransferMetric::Top1).then_some(result.value);
    result.n = truth.len();
    Ok(())
}

/// What the images of the features' rows show.
fn targets(data: &Arc<dyn Dataset>, features: &Features) -> Result<Targets> {
    let mut values = Vec::new();
    for &i in &features.indices {
        match data.targets(i as usize) {
            Some(row) => values.extend_from_slice(row),
            None => bail!("nothing is said of what image {} shows", data.name(i as usize)),
        }
    }
    Targets::new(data.target_classes().len(), values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Colors, MeanColor, transform};
    use crate::{features, knn_result};

    #[test]
    fn names_have_their_published_metrics() {
        use TransferMetric::{MeanPerClass, Top1, Voc07Map};
        for (name, metric) in [
            ("food-101", Top1),
            ("CIFAR10", Top1),
            ("cifar-100-binary", Top1),
            ("stanford_cars", Top1),
            ("dtd", Top1),
            ("fgvc-aircraft-2013b", MeanPerClass),
            ("oxford-iiit-pet", MeanPerClass),
            ("Caltech-101", MeanPerClass),
            ("caltech256", Top1),
            ("flowers_102", MeanPerClass),
            ("VOC2007", Voc07Map),
            ("mine", Top1),
        ] {
            assert_eq!(TransferMetric::published(name), metric, "{name}");
        }
        let set = TransferSet { data: "images/oxford-flowers/".into(), ..TransferSet::default() };
        assert_eq!(set.called(), "oxford-flowers");
    }

    /// Classes of 30, 20 and 10 images: of the same predictions, the mean over classes is another number than the share.
    #[test]
    fn each_metric_is_its_own() -> Result<()> {
        let mut result = chosen(&[]);
        let truth: Vec<u32> = (0..60).map(|i| if i < 30 { 0 } else { u32::from(i >= 50) + 1 }).collect();
        let predictions: Vec<u32> = truth.iter().map(|&class| if class == 2 { 0 } else { class }).collect();
        value(&mut result, TransferProtocol::Knn, TransferMetric::MeanPerClass, &predictions, &truth)?;
        assert!((result.value - 2.0 / 3.0).abs() < 1e-12 && result.top1.is_none() && result.n == 60);
        value(&mut result, TransferProtocol::Knn, TransferMetric::Top1, &predictions, &truth)?;
        assert!((result.value - 50.0 / 60.0).abs() < 1e-12 && result.top1 == Some(result.value));
        Ok(())
    }

    /// The same as the protocol by itself; several labels and one label are not confused.
    #[test]
    fn a_set_is_judged_by_its_protocol() -> Result<()> {
        let data: Arc<dyn Dataset> = Arc::new(Colors::new(60, 3));
        let found = features(&MeanColor, &data, &transform(32, 1))?;
        let transfer = Transfer::default();
        let pair = (&data, &data);
        let set = |name: &str, metric| TransferSet { name: name.into(), metric, ..TransferSet::default() };
        assert_eq!(transfer.metric(&set("flowers", TransferMetric::Auto), pair)?, TransferMetric::MeanPerClass);
        assert_eq!(transfer.metric(&set("voc2007", TransferMetric::Auto), pair)?, TransferMetric::Top1);
        let error = transfer.metric(&set("mine", TransferMetric::Voc07Map), pair).unwrap_err().to_string();
        assert!(error.contains("these have one label each"), "{error}");
        for protocol in [TransferProtocol::Knn, TransferProtocol::Linear, TransferProtocol::Logistic] {
            let result = transfer.judge((protocol, TransferMetric::Top1), (&found, &found), pair, 0)?;
            assert_eq!((result.protocol, result.n, result.value), (protocol.to_string(), 60, 1.0));
        }
        let by_hand = knn_result(&found, &found, 20, 0.07)?.value;
        let knn = transfer.judge((TransferProtocol::Knn, TransferMetric::Top1), (&found, &found), pair, 0)?;
        assert_eq!(knn.value, by_hand);
        let several = (TransferProtocol::Knn, TransferMetric::Voc07Map);
        assert!(transfer.judge(several, (&found, &found), pair, 0).unwrap_err().to_string().contains("not by knn"));
        Ok(())
    }
}
