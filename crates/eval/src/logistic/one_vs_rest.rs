//! One logistic regression for each class, where images may show several: VOC07 as SimCLR and BYOL judge transfer to it.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use diptych_metrics::AveragePrecision;

use super::objective::{Classifiers, Goal, Problem};
use super::{Logistic, divided};
use crate::rows::Rows;
use crate::{Features, Targets};

/// What one regression for each class says about test images.
#[derive(Clone, Debug)]
pub struct OneVsRest {
    /// Log odds that an image shows a class, `[M, classes]` f32.
    pub scores: Tensor,
    /// The chosen L2 penalty, the same for all classes.
    pub penalty: f64,
    /// Its mean average precision on the rows that chose it.
    pub validation: f64,
}

impl Logistic {
    /// Fits one classifier for each class, "shows it" against "does not", for all penalties on a part of `train`; chooses the penalty by the mean
    /// average precision (`kind`) on the rest, fits all of `train` with it and scores `test`. Targets of -1 take no part. A row of `targets` belongs to each
    /// row of `train` ([`Targets::select`] takes those of [`Features::indices`]); `seed` gives the validation rows. The objective for a penalty `l` is
    /// `sum of binary cross entropies + l / 2 |W|^2`, and features are taken as they are.
    ///
    /// # Errors
    /// If the settings are wrong, rows and targets differ in number or sets in width, a feature is not finite, or no image that chooses shows anything.
    pub fn one_vs_rest(
        &self,
        train: &Features,
        targets: &Targets,
        test: &Features,
        kind: AveragePrecision,
        seed: u64,
    ) -> Result<OneVsRest> {
        self.check()?;
        let (train, test) = (Rows::unlabeled("training", train)?, Rows::unlabeled("test", test)?);
        let (width, n) = (train.width, train.len());
        ensure!(width == test.width, "logistic regression: {width} training features, {} of the test set", test.width);
        ensure!(
            n == targets.rows() && n >= 2,
            "logistic regression: {n} training rows, {} rows of targets; there must be as many, 2 at least",
            targets.rows()
        );
        let (held, rest) = divided(n, self.validation, seed);
        let (judged, fitted) = (targets.select(&held), targets.select(&rest));
        let (validation, rest) = (train.select(&held), train.select(&rest));
        let classes = targets.classes;
        let problem = Problem { rows: &rest, goal: Goal::Several(&fitted), classes };
        let scores = self.fit(problem, &self.penalties).0.scores(&validation)?;
        let found: Vec<f64> =
            scores.iter().map(|scores| judged.mean_average_precision(scores, kind)).collect::<Result<_>>()?;
        let best = self.best(&found);
        let problem = Problem { rows: &train, goal: Goal::Several(targets), classes };
        let scores = self.fit(problem, &self.penalties[best..=best]).0.scores(&test)?.remove(0);
        Ok(OneVsRest { scores, penalty: self.penalties[best], validation: found[best] })
    }
}

impl Classifiers {
    /// `[rows, classes]` of each classifier.
    fn scores(&self, rows: &Rows) -> Result<Vec<Tensor>> {
        let classes = self.classes();
        let mut scores = vec![Vec::with_capacity(rows.len() * classes); self.count()];
        self.judge(rows, |_, row| {
            scores.iter_mut().zip(row.chunks_exact(classes)).for_each(|(all, logits)| all.extend_from_slice(logits));
        });
        let tensor = |values| Tensor::from_vec(values, (rows.len(), classes), &Device::Cpu);
        Ok(scores.into_iter().map(tensor).collect::<candle_core::Result<_>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diptych_random::Stream;

    /// Images of two colors, either of which may be there; each has a feature that says so with noise, and a third that says nothing.
    fn drawn(n: usize, seed: u64) -> (Features, Targets) {
        let mut stream = Stream::keyed(seed, &[2]);
        let (mut x, mut values) = (Vec::new(), Vec::new());
        for _ in 0..n {
            for shown in [stream.uniform() < 0.3, stream.uniform() < 0.5] {
                values.push(i8::from(shown));
                x.push((f64::from(u8::from(shown)) + 0.2 * stream.normal()) as f32);
            }
            x.push(stream.normal() as f32);
        }
        let x = Tensor::from_vec(x, (n, 3), &Device::Cpu).unwrap();
        let features = Features { x, labels: None, indices: (0..n as u32).collect(), skipped: 0 };
        (features, Targets::new(2, values).unwrap())
    }

    #[test]
    fn each_class_is_found_among_others() -> Result<()> {
        let ((train, targets), (test, truth)) = (drawn(400, 1), drawn(300, 2));
        let kind = AveragePrecision::ElevenPoints;
        let found = Logistic::default().one_vs_rest(&train, &targets, &test, kind, 0)?;
        let map = truth.mean_average_precision(&found.scores, kind)?;
        assert!(map > 0.95 && found.validation > 0.95, "{map} {found:?}");
        Ok(())
    }

    /// What is left out changes nothing, whatever it would have been: the scores equal those of a fit in which a wrong label is left out.
    #[test]
    fn targets_that_are_left_out_take_no_part() -> Result<()> {
        let ((train, targets), (test, truth)) = (drawn(300, 3), drawn(300, 4));
        let kind = AveragePrecision::Area;
        let one = Logistic { penalties: vec![1.0], ..Logistic::default() };
        let map = |targets: &Targets| -> Result<f64> {
            truth.mean_average_precision(&one.one_vs_rest(&train, targets, &test, kind, 0)?.scores, kind)
        };
        let spoil = |value: fn(i8) -> i8| {
            let values = targets.values.iter().enumerate();
            let values = values.map(|(i, v)| if i / 2 % 3 > 0 { value(*v) } else { *v }).collect();
            Targets::new(2, values)
        };
        let (right, without, wrong) = (map(&targets)?, map(&spoil(|_| -1)?)?, map(&spoil(|v| 1 - v)?)?);
        assert!((right - without).abs() < 0.02 && wrong < 0.7, "{right} {without} {wrong}");
        Ok(())
    }

    #[test]
    fn rows_without_targets_are_refused() {
        let ((train, _), (test, targets)) = (drawn(10, 5), drawn(9, 6));
        let found = Logistic::default().one_vs_rest(&train, &targets, &test, AveragePrecision::Area, 0);
        assert!(found.unwrap_err().to_string().contains("10 training rows, 9 rows of targets"));
    }
}
