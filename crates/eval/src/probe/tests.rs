//! Whole probes on rows that are drawn around the corners of a simplex.

use std::sync::Arc;

use super::*;
use crate::testing::{Colors, MeanColor, transform};
use crate::{features, rows::Rows};
use candle_core::{Device, Tensor};
use diptych_data::Dataset;
use diptych_kernels::linear::cpu::{Extents, forward};
use diptych_random::Stream;

/// `n` rows around the corners of a simplex, `noise` wide; the last feature is constant.
fn clusters(n: usize, classes: usize, noise: f64, seed: u64) -> Features {
    let mut stream = Stream::keyed(seed, &[1]);
    let labels: Vec<u32> = (0..n).map(|i| (i % classes) as u32).collect();
    let mut x = Vec::new();
    for &label in &labels {
        x.extend((0..classes).map(|j| (f64::from(u8::from(j == label as usize)) + noise * stream.normal()) as f32));
        x.push(7.0);
    }
    let x = Tensor::from_vec(x, (n, classes + 1), &Device::Cpu).unwrap();
    Features { x, labels: Some(labels), indices: (0..n as u32).collect(), skipped: 0 }
}

#[test]
fn separable_classes_are_learned() -> Result<()> {
    let found = Probe::default().run(&clusters(300, 5, 0.1, 1), &clusters(100, 5, 0.1, 2), 5, 0)?;
    assert_eq!((found.accuracy, found.validation_accuracy), (1.0, Some(1.0)));
    let result = Probe::default().result(&clusters(300, 5, 0.1, 1), &clusters(100, 5, 0.1, 2), 5, 0)?;
    assert_eq!((result.protocol.as_str(), result.value, result.n), ("linear", 1.0, 100));
    Ok(())
}

/// Labels that have nothing to do with the features: about 1 / classes.
#[test]
fn noise_gives_chance() -> Result<()> {
    let found = Probe::default().run(&clusters(500, 4, 1e6, 3), &clusters(1000, 4, 1e6, 4), 4, 0)?;
    assert!((found.accuracy - 0.25).abs() < 0.06, "{}", found.accuracy);
    Ok(())
}

/// Features of any scale and offset give the same classes: they are standardized.
#[test]
fn scale_and_offset_do_not_matter() -> Result<()> {
    let (train, test) = (clusters(200, 3, 0.6, 5), clusters(200, 3, 0.6, 6));
    let scaled = |f: &Features| -> Result<Features> { Ok(Features { x: f.x.affine(1e-4, 3e-4)?, ..f.clone() }) };
    let a = Probe::default().run(&train, &test, 3, 0)?;
    let b = Probe::default().run(&scaled(&train)?, &scaled(&test)?, 3, 0)?;
    assert!((a.accuracy - b.accuracy).abs() <= 0.011, "{} {}", a.accuracy, b.accuracy);
    Ok(())
}

/// A grid with one useless rate chooses the other: the choice is made by the validation rows.
#[test]
fn the_better_rate_is_chosen() -> Result<()> {
    let probe = Probe { learning_rates: vec![1e-30, 0.1], weight_decays: vec![0.0], ..Probe::default() };
    let found = probe.run(&clusters(300, 4, 0.3, 7), &clusters(100, 4, 0.3, 8), 4, 0)?;
    assert_eq!(found.learning_rate, 0.1);
    assert!(found.accuracy > 0.8, "{}", found.accuracy);
    let diverging = Probe { learning_rates: vec![1e30, 0.1], weight_decays: vec![1e-2], ..Probe::default() };
    assert_eq!(diverging.run(&clusters(300, 4, 0.3, 7), &clusters(100, 4, 0.3, 8), 4, 0)?.learning_rate, 0.1);
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_classes() -> Result<()> {
    let (train, test) = (clusters(300, 6, 0.9, 9), clusters(300, 6, 0.9, 10));
    let run = |seed| Probe::default().run(&train, &test, 6, seed);
    assert_eq!(run(1)?, run(1)?);
    assert_ne!(run(1)?.predictions, run(2)?.predictions);
    Ok(())
}

/// Long training without decay on rows that are not separable: the gradient of the mean cross entropy vanishes.
#[test]
fn training_ends_at_a_stationary_point() -> Result<()> {
    let rows = clusters(120, 3, 0.8, 11);
    let probe = Probe { epochs: 2000, learning_rates: vec![0.3], weight_decays: vec![0.0], ..Probe::default() };
    let found = probe.run(&rows, &rows, 3, 0)?;
    let scaled = scaling::Scaler::new(Scaling::Standardized, &Rows::new("", &rows, 3)?);
    let rows = scaled.apply(Rows::new("", &rows, 3)?);
    let extents = Extents { rows: 120, inputs: 4, outputs: 3 };
    let logits = forward(&rows.x, &found.weights, Some(&found.biases), extents);
    let mut gradient = [0f64; 12];
    for ((logits, x), label) in logits.chunks(3).zip(rows.x.chunks(4)).zip(&rows.labels) {
        let sum: f64 = logits.iter().map(|v| f64::from(*v).exp()).sum();
        for class in 0..3 {
            let p = f64::from(logits[class]).exp() / sum - f64::from(u8::from(class == *label as usize));
            (0..4).for_each(|j| gradient[class * 4 + j] += p * f64::from(x[j]) / 120.0);
        }
    }
    assert!(gradient.iter().all(|g| g.abs() < 1e-3), "{gradient:?}");
    assert!(found.weights.iter().any(|w| w.abs() > 0.3), "nothing was learned: {:?}", found.weights);
    Ok(())
}

/// One setting is not chosen, and the best of the epochs is told apart from the last.
#[test]
fn last_and_best_epoch_are_told() -> Result<()> {
    let probe = Probe { learning_rates: vec![3.0], weight_decays: vec![0.0], epochs: 12, ..Probe::default() };
    let (train, test) = (clusters(300, 7, 0.8, 20), clusters(300, 7, 0.8, 21));
    let (found, result) = (probe.run(&train, &test, 7, 0)?, probe.result(&train, &test, 7, 0)?);
    assert_eq!((found.validation_accuracy, found.epochs.len(), result.chosen.len()), (None, 12, 0));
    assert_eq!(found.epochs[11], found.accuracy);
    let best = result.best_epoch.unwrap();
    assert_eq!(best.value, found.epochs.iter().fold(0.0, |m: f64, v| m.max(*v)));
    assert_eq!(found.epochs.iter().position(|v| *v == best.value), Some(best.epoch - 1));
    let top5 = result.top5.unwrap();
    assert!(top5 > result.value && top5 <= 1.0 && top5 > 0.8, "{result:?}");
    assert!(result.words.contains("learning rate 3, weight decay 0, nothing chosen"), "{}", result.words);
    assert_eq!(probe.run(&clusters(50, 5, 0.5, 1), &clusters(50, 5, 0.5, 2), 5, 0)?.top5, None);
    Ok(())
}

/// Every way to prepare features learns what is easy, at a rate that suits it.
#[test]
fn every_scaling_and_optimizer_learns() -> Result<()> {
    let cases = [(Scaling::Raw, 0.3, 6.0), (Scaling::BatchNorm, 0.1, 10.0), (Scaling::L2, 30.0, 100.0)];
    for (features, of_sgd, of_lars) in cases {
        for (optimizer, lr) in [(Optimizer::Sgd, of_sgd), (Optimizer::Lars, of_lars)] {
            let (learning_rates, weight_decays, init) = (vec![lr], vec![0.0], Init::Normal);
            let probe = Probe { features, optimizer, init, learning_rates, weight_decays, ..Probe::default() };
            let found = probe.run(&clusters(300, 4, 0.15, 22), &clusters(200, 4, 0.15, 23), 4, 0)?;
            assert!(found.accuracy > 0.97, "{features:?} {optimizer:?}: {}", found.accuracy);
        }
    }
    Ok(())
}

/// Augmented images give rows of their own in each epoch, and the same ones for the same seed, whatever the number of threads.
#[test]
fn images_are_augmented_in_each_epoch() -> Result<()> {
    let (train, test): (Arc<dyn Dataset>, Arc<dyn Dataset>) =
        (Arc::new(Colors::new(60, 3)), Arc::new(Colors::new(30, 3)));
    let pairs = |workers| -> Result<(Features, Features)> {
        let transform = transform(8, workers);
        Ok((features(&MeanColor, &train, &transform)?, features(&MeanColor, &test, &transform)?))
    };
    let run = |augment, workers, seed| -> Result<Fitted> {
        let probe = Probe { augment, epochs: 15, batch_size: 16, learning_rates: vec![0.01, 0.1], ..Probe::default() };
        let transform = transform(8, workers);
        let images = Images { backbone: &MeanColor, dataset: &train, transform: &transform };
        let (train, test) = pairs(workers)?;
        probe.run_on_images(&images, &train, &test, 3, seed)
    };
    let found = run(Augment::CropFlip, 1, 0)?;
    assert_eq!(found.accuracy, 1.0);
    assert_eq!(found, run(Augment::CropFlip, 3, 0)?);
    assert_ne!(found.weights, run(Augment::CropFlip, 1, 1)?.weights);
    assert_ne!(found.weights, run(Augment::None, 1, 0)?.weights);
    let (train, test) = pairs(1)?;
    let augmented = Probe { augment: Augment::CropFlip, ..Probe::default() };
    let text = augmented.run(&train, &test, 3, 0).unwrap_err().to_string();
    assert!(text.contains("needs images and a backbone"), "{text}");
    Ok(())
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let rows = clusters(10, 2, 0.1, 12);
    let refused = |probe: Probe, part: &str| {
        let text = probe.run(&rows, &rows, 2, 0).unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    };
    refused(Probe { validation: 0.0, ..Probe::default() }, "linear.validation is 0, but there are 28");
    refused(Probe { learning_rates: vec![-1.0], ..Probe::default() }, "linear.learning_rates is [-1.0]");
    refused(Probe { weight_decays: Vec::new(), ..Probe::default() }, "linear.weight_decays is []");
    refused(Probe { epochs: 0, ..Probe::default() }, "linear.epochs is 0");
    refused(Probe { momentum: 1.0, ..Probe::default() }, "linear.momentum is 1");
}

#[test]
fn wrong_input_is_named() {
    let rows = clusters(10, 2, 0.1, 12);
    let error = |r: Result<EvalResult>| r.unwrap_err().to_string();
    let got = error(Probe::default().result(&rows, &rows, 1, 0));
    assert!(got.contains("a label 1, there are 1 classes"), "{got}");
    let unlabeled = Features { labels: None, ..rows.clone() };
    let got = error(Probe::default().result(&rows, &unlabeled, 2, 0));
    assert!(got.contains("needs a label"), "{got}");
}
