//! Streams of batches: the same whatever the threads, complete, and honest about what cannot be read.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diptych_augment::{Recipe, ViewParams, ViewRecipe};
use diptych_data::{
    Cached, DataError, Dataset, Loader, LoaderConfig, Planned, PlannedBatch, Sampler, Skipped, Unreadable, eval_batches,
};
use diptych_nn::Batch;
use diptych_random::Stream;

use crate::stream::Recorded;

fn config() -> LoaderConfig {
    LoaderConfig { batch_size: 10, seed: 3, recipe: Recipe::simclr(8), end: Some(9), ..LoaderConfig::default() }
}

/// A batch as plain numbers: bits of every view, labels, indices.
type Plain = (Vec<Vec<u32>>, Option<Vec<u32>>, Vec<u32>);

fn plain(batch: Batch) -> Plain {
    let bits = |tensor: &candle_core::Tensor| {
        assert_eq!(tensor.dims()[1..], [8, 8, 3]);
        tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    };
    (batch.views.0.iter().map(bits).collect(), batch.labels, batch.index)
}

fn all(dataset: Arc<dyn Dataset>, config: LoaderConfig) -> Vec<Plain> {
    Loader::new(dataset, config).unwrap().map(|batch| plain(batch.unwrap())).collect()
}

/// What is planned for a device is what the CPU makes: applied to the same images, the same bytes.
#[test]
fn planned_views_are_those_that_are_made() {
    let config = LoaderConfig { workers: 2, ..lenient() };
    let made = all(mixed(43), config.clone());
    let known = Unreadable::new(config.max_error_share, 43);
    let recipes = config.recipe.views();
    let planned = Loader::finishing(mixed(43), config, known, Planned).unwrap();
    let applied: Vec<Plain> = planned
        .map(|batch| {
            let PlannedBatch { images, views, rows } = batch.unwrap();
            let bits = |(params, recipe): (&Vec<ViewParams>, &ViewRecipe)| {
                let pixels = images.iter().zip(params).flat_map(|(image, params)| {
                    let mut out = vec![0f32; 8 * 8 * 3];
                    image.view(params).normalize_into(&recipe.mean, &recipe.std, &mut out);
                    out
                });
                pixels.map(f32::to_bits).collect()
            };
            (views.iter().zip(&recipes).map(bits).collect(), rows.labels, rows.index)
        })
        .collect();
    assert!(!made.is_empty());
    assert_eq!(applied, made);
}

/// Some broken images among them, so that replacements are the same, too.
fn mixed(len: usize) -> Arc<Recorded> {
    Arc::new(Recorded { broken: HashSet::from([0, 5, 17]), ..Recorded::new(len) })
}

fn lenient() -> LoaderConfig {
    LoaderConfig { max_error_share: 0.2, ..config() }
}

#[test]
fn the_stream_is_the_same_whatever_the_threads() {
    let one = all(mixed(43), LoaderConfig { prefetch: 1, ..lenient() });
    assert_eq!(one.len(), 9);
    for (workers, prefetch, cache_bytes) in [(1, 4, 0), (2, 2, 1 << 20), (5, 3, 0), (5, 1, 2000)] {
        assert!(
            one == all(mixed(43), LoaderConfig { workers, prefetch, cache_bytes, ..lenient() }),
            "{workers} workers"
        );
    }
    assert!(one != all(mixed(43), LoaderConfig { seed: 4, ..lenient() }));
}

#[test]
fn a_stream_begun_in_the_middle_is_the_tail_of_the_whole() {
    let whole = all(mixed(43), lenient());
    for start in [1, 4, 6, 9, 12] {
        let tail = all(mixed(43), LoaderConfig { start, workers: 2, ..lenient() });
        assert!(tail == whole[(start as usize).min(9)..], "from {start}");
    }
}

#[test]
fn images_of_passed_batches_are_not_decoded() {
    let dataset = Arc::new(Recorded::new(43));
    let shown: Vec<usize> = all(dataset.clone(), LoaderConfig { start: 2, end: Some(4), ..config() })
        .into_iter()
        .flat_map(|(_, _, index)| index.into_iter().map(|i| i as usize))
        .collect();
    assert_eq!(dataset.asked(), shown);
}

#[test]
fn ranks_share_out_the_rows_of_a_batch_and_decode_their_own() {
    let whole = all(mixed(43), lenient());
    for ranks in [2, 5] {
        let parts: Vec<_> = (0..ranks)
            .map(|rank| {
                let dataset = mixed(43);
                let stream = all(dataset.clone(), LoaderConfig { rank, ranks, workers: 2, ..lenient() });
                // Besides its own, a rank asks for replacements of unreadable images alone.
                assert!(dataset.asked().len() <= 9 * 10 / ranks + 3 * 9, "rank {rank} of {ranks}");
                stream
            })
            .collect();
        for (step, (views, labels, index)) in whole.iter().enumerate() {
            let joined: Vec<u32> = parts.iter().flat_map(|part| part[step].2.clone()).collect();
            assert_eq!(joined, *index);
            assert_eq!(labels.is_some(), parts[0][step].1.is_some());
            for (view, pixels) in views.iter().enumerate() {
                let joined: Vec<u32> = parts.iter().flat_map(|part| part[step].0[view].clone()).collect();
                assert!(joined == *pixels, "view {view} of step {step} on {ranks} ranks");
            }
        }
    }
    let uneven = LoaderConfig { ranks: 3, ..config() };
    let error = Loader::new(mixed(43), uneven).err().unwrap().to_string();
    assert!(error.contains("batch_size = 10 is shared by 3 ranks"), "{error}");
}

/// Ranks of one process know together what cannot be read: each image is told once, and the share is that of all.
#[test]
fn loaders_can_share_what_they_know_of_unreadable_images() {
    let known = Unreadable::new(0.2, 43);
    let mut told = Vec::new();
    for rank in 0..2 {
        let config = LoaderConfig { rank, ranks: 2, ..config() };
        let mut loader = Loader::with_known(mixed(43), config, known.clone()).unwrap();
        loader.by_ref().for_each(|batch| drop(batch.unwrap()));
        told.extend(loader.take_skipped());
    }
    let mut places: Vec<u32> = told.iter().map(|skipped: &Skipped| skipped.index).collect();
    places.sort_unstable();
    assert_eq!(places, [0, 5, 17]);
}

/// The promise that makes resume and other loaders possible, spelled out.
#[test]
fn a_view_is_a_function_of_seed_epoch_index_and_view() {
    let dataset = Recorded::new(43);
    let sampler = Sampler { len: 43, batch_size: 10, seed: 3, drop_last: true, classes: None };
    let stream = all(Arc::new(Recorded::new(43)), config());
    for (step, (views, labels, index)) in stream.into_iter().enumerate() {
        let (epoch, batch) = sampler.position(step as u64);
        assert_eq!(index, sampler.batch(&sampler.order(epoch), batch));
        assert_eq!(labels.unwrap(), index.iter().map(|i| i % 3).collect::<Vec<_>>());
        for (v, bits) in views.iter().enumerate() {
            for (&i, bits) in index.iter().zip(bits.chunks(8 * 8 * 3)) {
                let recipe = &config().recipe.views()[v];
                let mut random = Stream::keyed(3, &[epoch, u64::from(i), v as u64]);
                let mut expected = vec![0.0; 8 * 8 * 3];
                let made = dataset.get(i as usize).unwrap().random_view(recipe, &mut random);
                made.normalize_into(&recipe.mean, &recipe.std, &mut expected);
                assert_eq!(bits, expected.into_iter().map(f32::to_bits).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn a_short_last_batch_is_kept_if_asked_for() {
    let batches = all(Arc::new(Recorded::new(43)), LoaderConfig { drop_last: false, end: Some(5), ..config() });
    assert_eq!(batches.iter().map(|batch| batch.2.len()).collect::<Vec<_>>(), [10, 10, 10, 10, 3]);
    let mut seen: Vec<u32> = batches.into_iter().flat_map(|batch| batch.2).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..43).collect::<Vec<_>>());
}

#[test]
fn broken_images_are_replaced_and_named_once() {
    let mut loader = Loader::new(mixed(43), LoaderConfig { end: Some(40), workers: 2, ..lenient() }).unwrap();
    let mut skipped = Vec::new();
    while let Some(batch) = loader.next() {
        let batch = batch.unwrap();
        assert_eq!(batch.index.len(), 10);
        assert!(!batch.index.iter().any(|i| [0, 5, 17].contains(i)));
        assert_eq!(batch.labels.unwrap(), batch.index.iter().map(|i| i % 3).collect::<Vec<_>>());
        skipped.extend(loader.take_skipped());
    }
    skipped.sort_by_key(|skipped| skipped.index);
    let expected = [0, 5, 17].map(|i| Skipped { index: i, name: format!("picture {i}"), reason: "torn".into() });
    assert_eq!(skipped, expected);
    assert_eq!(loader.skipped(), 3);
}

#[test]
fn too_many_broken_images_stop_the_stream() {
    let dataset = Arc::new(Recorded { broken: (0..9).collect(), ..Recorded::new(43) });
    let mut loader = Loader::new(dataset, LoaderConfig { end: None, ..lenient() }).unwrap();
    let error = loader.find_map(Result::err).unwrap();
    assert!(
        error.to_string().starts_with("9 of 43 images could not be read, more than the 20.0 % that data.max_error_share allows; the last: picture "),
        "{error}"
    );
    assert!(loader.next().is_none(), "the stream ends with the error");
}

/// At the very share itself the run goes on.
#[test]
fn as_many_broken_images_as_allowed_do_not_stop_the_stream() {
    let dataset = Arc::new(Recorded { broken: (0..8).collect(), ..Recorded::new(40) });
    assert_eq!(all(dataset, lenient()).len(), 9);
}

#[test]
fn nothing_readable_is_an_error_even_if_all_may_fail() {
    let dataset = Arc::new(Recorded { broken: (0..43).collect(), ..Recorded::new(43) });
    let mut loader = Loader::new(dataset, LoaderConfig { max_error_share: 1.0, ..config() }).unwrap();
    let error = loader.next().unwrap().unwrap_err();
    assert!(error.to_string().contains("no readable image found"), "{error}");
}

#[test]
fn a_panic_in_a_worker_is_an_error() {
    let dataset = Arc::new(Recorded { panics_at: Some(7), ..Recorded::new(43) });
    let mut loader = Loader::new(dataset, LoaderConfig { workers: 2, ..config() }).unwrap();
    let error = loader.find_map(Result::err).unwrap();
    assert_eq!(error.to_string(), "a data worker failed: image 7 is cursed");
    assert!(loader.next().is_none());
}

#[test]
fn an_error_of_the_whole_set_is_not_skipped() {
    let dataset = Arc::new(Recorded { fails_at: Some(7), ..Recorded::new(43) });
    let error = Loader::new(dataset, config()).unwrap().find_map(Result::err).unwrap();
    assert_eq!(error.to_string(), "the disk is gone at 7");
}

#[test]
fn threads_do_not_run_ahead_further_than_prefetch() {
    let dataset = Arc::new(Recorded::new(43));
    let mut loader =
        Loader::new(dataset.clone(), LoaderConfig { workers: 2, prefetch: 2, end: None, ..config() }).unwrap();
    loader.next().unwrap().unwrap();
    let begun = Instant::now();
    while dataset.asked().len() < 30 && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(dataset.asked().len(), 30, "one batch taken, two ahead");
}

#[test]
fn dropping_a_loader_ends_its_threads_at_the_next_image() {
    let dataset = Arc::new(Recorded { delay: Duration::from_millis(20), ..Recorded::new(600) });
    let weak = Arc::downgrade(&dataset);
    let loader = Loader::new(dataset, LoaderConfig { batch_size: 600, workers: 2, end: None, ..config() }).unwrap();
    std::thread::sleep(Duration::from_millis(30));
    let begun = Instant::now();
    drop(loader);
    // The batch alone would take 6 seconds.
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(weak.upgrade().is_none(), "no thread holds the data set any more");
}

#[test]
fn waiting_is_measured() {
    let dataset = Arc::new(Recorded { delay: Duration::from_millis(5), ..Recorded::new(43) });
    let mut loader = Loader::new(dataset, config()).unwrap();
    loader.next().unwrap().unwrap();
    assert!(loader.wait_seconds() >= 0.04, "{}", loader.wait_seconds());
}

#[test]
fn the_cache_asks_for_each_image_once_while_there_is_room() {
    let dataset = Arc::new(Recorded::new(43));
    all(dataset.clone(), LoaderConfig { end: Some(40), cache_bytes: 1 << 20, workers: 2, ..config() });
    assert_eq!(dataset.asked().len(), 43);

    let dataset = Arc::new(Recorded::new(43));
    let cached = Cached::new(dataset.clone(), 10 * 360 + 100);
    (0..2).for_each(|_| (0..43).for_each(|i| drop(cached.get(i).unwrap())));
    assert_eq!((cached.used(), dataset.asked().len()), (3600, 43 + 33));
}

#[test]
fn bad_configurations_are_refused_with_a_sentence() {
    let refusal = |config| match Loader::new(Arc::new(Recorded::new(43)), config) {
        Err(DataError::Invalid(sentence)) => sentence,
        _ => panic!("expected a refusal"),
    };
    let sentence = refusal(LoaderConfig { batch_size: 64, ..config() });
    assert_eq!(sentence, "trainer.batch_size is 64, more than the 43 training images: use at most 43, or more images");
    assert!(refusal(LoaderConfig { batch_size: 0, ..config() }).contains("trainer.batch_size is 0"));
    assert!(refusal(LoaderConfig { max_error_share: 1.5, ..config() }).contains("data.max_error_share is 1.5"));
    assert!(
        refusal(LoaderConfig { recipe: Recipe { views: vec![], ..Recipe::simclr(8) }, ..config() }).contains("views")
    );
    assert!(
        refusal(LoaderConfig { recipe: Recipe { size: 0, ..Recipe::simclr(8) }, ..config() }).starts_with("augment")
    );
}

#[test]
fn evaluation_shows_all_in_order_and_leaves_out_what_is_broken() {
    for workers in [1, 3] {
        let dataset = Arc::new(Recorded { broken: HashSet::from([1, 20, 21, 22]), ..Recorded::new(100) });
        let mut batches =
            eval_batches(dataset.clone(), 3, 8, [0.5; 3].into(), [0.25; 3].into(), workers, 0.05).unwrap();
        let mut seen = Vec::new();
        for batch in &mut batches {
            let batch = batch.unwrap();
            assert_eq!(batch.images.dims(), [batch.indices.len(), 8, 8, 3]);
            assert_eq!(batch.labels.unwrap(), batch.indices.iter().map(|i| i % 3).collect::<Vec<_>>());
            let red = batch
                .images
                .get(0)
                .unwrap()
                .get(7)
                .unwrap()
                .get(7)
                .unwrap()
                .get(0)
                .unwrap()
                .to_scalar::<f32>()
                .unwrap();
            assert!((red - (batch.indices[0] as f32 / 255.0 - 0.5) / 0.25).abs() < 1e-5);
            seen.extend(batch.indices);
        }
        assert_eq!(seen, (0..100).filter(|i| ![1, 20, 21, 22].contains(i)).collect::<Vec<_>>());
        assert_eq!((batches.skipped(), batches.take_skipped().len()), (4, 4));
    }
    let dataset = Arc::new(Recorded { broken: (10..16).collect(), ..Recorded::new(100) });
    let error =
        eval_batches(dataset, 7, 8, [0.5; 3].into(), [0.25; 3].into(), 2, 0.05).unwrap().find_map(Result::err).unwrap();
    assert!(matches!(error, DataError::TooManyErrors { failed: 6, total: 100, .. }), "{error}");
}
