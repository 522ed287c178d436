//! The training itself.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{D, DType, Tensor};
use diptych_data::{Dataset, Loader, LoaderConfig};
use diptych_nn::{ParamStore, backward};
use diptych_optim::{Algorithm, build};

use super::labeled::labeled;
use super::{FineTune, Network};
use crate::result::BestEpoch;
use crate::rows::largest;
use crate::{Transform, features};

/// Decoded images of a small labeled set stay in memory up to this many bytes.
const CACHE: usize = 512 << 20;

/// Where a training stands, for whoever watches it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tuning {
    /// A step was taken.
    Step {
        /// Steps so far, from 1.
        step: u64,
        /// Steps in all.
        steps: u64,
        /// The epoch under way, from 1.
        epoch: u64,
        /// The loss of the step's batch.
        loss: f64,
        /// Images in it.
        images: usize,
    },
    /// The test images were classified.
    Tested {
        /// The epoch that has ended, from 1.
        epoch: u64,
        /// Epochs in all.
        epochs: u64,
        /// Mean loss of the epoch's batches.
        loss: f64,
        /// Share of the test images that were classified rightly.
        accuracy: f64,
    },
}

/// What came of a training.
#[derive(Clone, Debug)]
pub struct FineTuned {
    /// Share of the test images that were classified rightly after the last epoch.
    pub accuracy: f64,
    /// Share of the test images whose class was among the five likeliest, where there are more than five classes.
    pub top5: Option<f64>,
    /// A class for each test image, after the last epoch.
    pub predictions: Vec<u32>,
    /// The class that each test image has.
    pub truth: Vec<u32>,
    /// The best epoch, judged by the test images.
    pub best: BestEpoch,
    /// Mean loss of each epoch.
    pub losses: Vec<f64>,
    /// How many labeled images were learned from.
    pub labeled: usize,
    /// Of how many.
    pub images: usize,
    /// Images per step.
    pub batch_size: usize,
    /// The classifier: `fc.weight` `[classes, width]` and `fc.bias`.
    pub head: ParamStore,
}

impl FineTune {
    /// Trains `network` from its start on labeled images of `train`, and judges it on `test`; afterwards it holds the trained parameters. `seed` draws the
    /// labeled images, the classifier, the order and the crops.
    ///
    /// # Errors
    /// If a setting cannot be, a class has no labeled image, images cannot be read, or the loss is not finite (a learning rate too high).
    pub fn run(
        &self,
        network: &mut Network,
        (train, test): (&Arc<dyn Dataset>, &Arc<dyn Dataset>),
        transform: &Transform,
        seed: u64,
        watch: &mut dyn FnMut(Tuning),
    ) -> Result<FineTuned> {
        self.check()?;
        ensure!(!test.is_empty(), "fine-tuning: there is no test image");
        let (chosen, images, classes) = (labeled(train, self.labels, seed)?, train.len(), train.classes().len());
        let adapts = self.optimizer != Algorithm::Lars;
        let head = network.begin(classes, self.head_init, seed, adapts)?;
        let batch_size = self.batch_size.min(chosen.len());
        let steps_per_epoch = (chosen.len() / batch_size) as u64;
        let steps = steps_per_epoch * self.epochs;
        let built = |lr| build(&self.optim(lr), batch_size, steps, steps_per_epoch).map_err(Self::named);
        let ((mut trunk, trunk_lr), (mut top, head_lr)) = (built(self.trunk_lr)?, built(self.head_lr)?);
        let config = LoaderConfig {
            batch_size,
            seed,
            workers: transform.workers,
            recipe: self.views(transform),
            max_error_share: transform.max_error_share,
            cache_bytes: CACHE,
            end: Some(steps),
            ..LoaderConfig::default()
        };
        let (mut losses, mut sum, mut step) = (Vec::new(), 0.0, 0u64);
        let mut best: Option<BestEpoch> = None;
        let mut judged = None;
        for batch in Loader::new(chosen.clone(), config)? {
            let batch = batch?;
            let labels = batch.labels.context("fine-tuning needs a label for every training image")?;
            let view = batch.views.0.first().context("fine-tuning takes one view of each image")?;
            let loss = cross_entropy(&network_forward(network, view)?, &labels)?;
            let value = f64::from(loss.to_scalar::<f32>()?);
            if !value.is_finite() {
                bail!("fine-tuning: the loss is {value} at step {step}; lower finetune.trunk_lr or finetune.head_lr")
            }
            let gradients = backward(&loss)?;
            let bad = match trunk.step(network.params(), &gradients, trunk_lr.at(step))? {
                None => top.step(&head, &gradients, head_lr.at(step))?,
                bad => bad,
            };
            if let Some(name) = bad {
                bail!("fine-tuning: the gradient of {name} is not finite at step {step}; lower the learning rates")
            }
            step += 1;
            sum += value;
            let epoch = step.div_ceil(steps_per_epoch);
            watch(Tuning::Step { step, steps, epoch, loss: value, images: labels.len() });
            if !step.is_multiple_of(steps_per_epoch) {
                continue;
            }
            losses.push(std::mem::take(&mut sum) / steps_per_epoch as f64);
            if epoch.is_multiple_of(self.eval_every) || epoch == self.epochs {
                let found = judge(network, test, transform)?;
                let accuracy = found.accuracy;
                let loss = losses.last().copied().unwrap_or_default();
                watch(Tuning::Tested { epoch, epochs: self.epochs, loss, accuracy });
                // Of equal ones the first.
                if best.is_none_or(|best| accuracy > best.value) {
                    best = Some(BestEpoch { epoch: epoch as usize, value: accuracy });
                }
                judged = Some(found);
            }
        }
        let (Some(Judged { accuracy, top5, predictions, truth }), Some(best)) = (judged, best) else {
            bail!("fine-tuning took no step")
        };
        let labeled = chosen.len();
        Ok(FineTuned { accuracy, top5, predictions, truth, best, losses, labeled, images, batch_size, head })
    }
}

/// Logits `[N, classes]`, f32, with a graph.
fn network_forward(network: &Network, view: &Tensor) -> Result<Tensor> {
    use diptych_nn::Backbone;
    let view = view.to_device(&network.device())?;
    Ok(network.forward_t(&view, true)?.to_dtype(DType::F32)?)
}

/// The mean over rows of `-log softmax(logits)[label]`; `logits` are `[N, classes]`.
fn cross_entropy(logits: &Tensor, labels: &[u32]) -> Result<Tensor> {
    let labels = Tensor::new(labels, logits.device())?.unsqueeze(1)?;
    // The largest logit of a row goes out first, so that nothing overflows; it changes no value and no gradient.
    let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(D::Minus1)?)?;
    let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    Ok((log_sum - shifted.gather(&labels, 1)?)?.mean_all()?)
}

/// What the test images say.
struct Judged {
    accuracy: f64,
    top5: Option<f64>,
    predictions: Vec<u32>,
    truth: Vec<u32>,
}

fn judge(network: &Network, test: &Arc<dyn Dataset>, transform: &Transform) -> Result<Judged> {
    let logits = features(network, test, transform)?;
    let truth = logits.labels("fine-tuning")?.to_vec();
    let rows = logits.x.to_dtype(DType::F32)?.to_vec2::<f32>()?;
    let predictions: Vec<u32> = rows.iter().map(|row| largest(row)).collect();
    let top5 = match logits.x.dim(1)? {
        6.. => Some(diptych_metrics::top_k_accuracy(&logits.x, &truth, 5)?),
        _ => None,
    };
    Ok(Judged { accuracy: diptych_metrics::accuracy(&predictions, &truth)?, top5, predictions, truth })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Probe;
    use crate::testing::{Colors, transform};
    use candle_core::Device;
    use diptych_nn::{Backbone, Conv2d, Group, global_avg_pool, relu, segment};

    /// One convolution.
    struct Convolved(Conv2d);

    impl Backbone for Convolved {
        fn forward_t(&self, x: &Tensor, train: bool) -> candle_core::Result<Tensor> {
            segment(x, train, |tape, x| {
                let y = self.0.record(tape, &x)?;
                let y = relu(tape, &y)?;
                global_avg_pool(tape, &y)
            })
        }

        fn stages(&self, _x: &Tensor, _train: bool) -> candle_core::Result<Vec<Tensor>> {
            Ok(Vec::new())
        }

        fn out_dim(&self) -> usize {
            4
        }
    }

    fn network() -> Result<Network> {
        let mut params = ParamStore::new(2, &Device::Cpu);
        let conv = Conv2d::new(&mut params.scope(Group::Trunk), 3, 4, 3, 1, 1)?;
        for (_, param) in params.trainable() {
            param.var.set(&param.var.ones_like()?.affine(0.1, 0.0)?)?;
        }
        Network::new(Box::new(Convolved(conv)), params)
    }

    fn settings() -> FineTune {
        let head_init = crate::HeadInit::Uniform;
        FineTune { epochs: 12, batch_size: 20, trunk_lr: 2.0, head_lr: 2.0, head_init, ..FineTune::default() }
    }

    /// Filters that see brightness alone do not tell colors apart; trained, they do. The same seed gives the same network, another one not.
    #[test]
    fn what_a_frozen_network_cannot_tell_is_learned() -> Result<()> {
        let (train, test): (Arc<dyn Dataset>, Arc<dyn Dataset>) =
            (Arc::new(Colors::new(120, 3)), Arc::new(Colors::new(60, 3)));
        let mut network = network()?;
        let sets = [&train, &test].map(|set| features(&network, set, &transform(32, 1)));
        let [frozen, judged] = sets;
        let probe = Probe { epochs: 20, ..Probe::default() }.run(&frozen?, &judged?, 3, 0)?.accuracy;
        let mut tested = 0;
        let mut tune = |seed| {
            let watch = &mut |told| tested += usize::from(matches!(told, Tuning::Tested { .. }));
            settings().run(&mut network, (&train, &test), &transform(32, 1), seed, watch)
        };
        let (first, other, again) = (tune(1)?, tune(2)?, tune(1)?);
        assert!(first.accuracy > 0.9 && probe < 0.6, "fine-tuned {}, linear probe {probe}", first.accuracy);
        assert!(first.losses.last() < first.losses.first(), "{:?}", first.losses);
        assert_eq!((&first.losses, &first.predictions), (&again.losses, &again.predictions));
        assert_ne!(first.losses, other.losses);
        let BestEpoch { epoch, value } = first.best;
        assert!((1..=12).contains(&epoch) && value >= first.accuracy);
        assert_eq!((first.labeled, first.images, first.batch_size, first.top5, tested), (120, 120, 20, None, 36));
        Ok(())
    }

    #[test]
    fn a_rate_too_high_is_told() -> Result<()> {
        let data: Arc<dyn Dataset> = Arc::new(Colors::new(60, 3));
        let wild = FineTune { trunk_lr: 1e30, head_lr: 1e30, ..settings() };
        let error = wild.run(&mut network()?, (&data, &data), &transform(32, 1), 0, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("lower"), "{error}");
        Ok(())
    }
}
