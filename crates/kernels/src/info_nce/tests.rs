//! Both forms against the reference, over many tiles, and what must not matter.

use super::*;
use crate::check::{Array, Tolerance, check_op, device};
use crate::{l2_normalize, nt_xent};
use candle_core::{Device, Var};

fn check_queue(n: usize, d: usize, count: usize, temperature: f64) {
    let queue = Array::random(&[count, d], 13);
    let op = |x: &[Tensor]| info_nce(&x[0], &x[1], &queue.tensor()?, temperature);
    let reference = |x: &[Array]| Array::new(&[], vec![reference::info_nce(&x[0], &x[1], &queue, temperature)]);
    let inputs = [Array::random(&[n, d], 11), Array::random(&[n, d], 12)];
    check_op(&op, &reference, &inputs, Tolerance::default()).unwrap();
}

#[test]
fn info_nce_equals_the_reference() {
    check_queue(1, 1, 1, 0.5);
    check_queue(3, 5, 7, 0.1);
    check_queue(7, 4, 1, 0.5);
    check_queue(2, 3, 19, 2.0);
}

fn check_among(n: usize, d: usize, count: usize, pairs: &Pairs) {
    let op = |x: &[Tensor]| info_nce_among(&x[0], &x[1], pairs, 0.4);
    let excluded = pairs.excluded.as_deref();
    let reference =
        |x: &[Array]| Array::new(&[], vec![reference::info_nce_among(&x[0], &x[1], &pairs.positive, excluded, 0.4)]);
    let inputs = [Array::random(&[n, d], 11), Array::random(&[count, d], 12)];
    check_op(&op, &reference, &inputs, Tolerance::default()).unwrap();
}

#[test]
fn info_nce_among_equals_the_reference() {
    check_among(3, 4, 3, &Pairs::aligned(0, 3));
    check_among(3, 4, 8, &Pairs::aligned(4, 3));
    check_among(4, 3, 10, &Pairs::two_views(1, 2, 5));
    // Two queries want one key, and one key is nobody's.
    check_among(3, 2, 4, &Pairs { positive: vec![2, 2, 0], excluded: Some(vec![0, 3, 2]) });
}

/// The loss to 1e-6, and the derivative along the gradient, which is its squared length.
fn check_slope(op: impl Fn(&[Var]) -> Result<Tensor>, truth: impl Fn(&[Array]) -> f64, inputs: &[Array]) -> Result<()> {
    let vars: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(&x.tensor()?)).collect::<Result<_>>()?;
    let loss = op(&vars)?;
    let (value, expected) = (f64::from(loss.to_scalar::<f32>()?), truth(inputs));
    assert!((value / expected - 1.0).abs() < 1e-6, "{value} {expected}");
    let grads = loss.backward()?;
    let grads: Vec<Array> = vars.iter().map(|v| Array::of(grads.get(v).unwrap())).collect::<Result<_>>()?;
    let squares: f64 = grads.iter().flat_map(|g| &g.data).map(|v| v * v).sum();
    let h = 1e-4 / squares.sqrt();
    let along = |h: f64| {
        let walk = |(x, g): (&Array, &Array)| {
            Array::new(&x.shape, x.data.iter().zip(&g.data).map(|(x, g)| x + h * g).collect())
        };
        truth(&inputs.iter().zip(&grads).map(walk).collect::<Vec<_>>())
    };
    let slope = (along(h) - along(-h)) / (2.0 * h);
    assert!((slope / squares - 1.0).abs() < 1e-5, "{slope} {squares}");
    Ok(())
}

/// Several blocks of rows and several parts of columns, cut off in the middle.
#[test]
fn values_and_slopes_equal_the_reference_over_many_tiles() -> Result<()> {
    for (n, d, count) in [(300, 5, 70), (4, 6, 1500), (257, 3, 513)] {
        let queue = Array::random(&[count, d], 3);
        let tensor = queue.tensor()?;
        let inputs = [Array::random(&[n, d], 1), Array::random(&[n, d], 2)];
        let truth = |x: &[Array]| reference::info_nce(&x[0], &x[1], &queue, 0.2);
        check_slope(|x| info_nce(&x[0], &x[1], &tensor, 0.2), truth, &inputs)?;
    }
    for (n, d, count) in [(300, 5, 700), (600, 4, 300)] {
        let positive: Vec<u32> = (0..n as u32).map(|i| (i * 7) % count).collect();
        let excluded = Some(positive.iter().map(|p| (p + 5) % count).collect::<Vec<u32>>());
        let pairs = Pairs { positive, excluded };
        let inputs = [Array::random(&[n, d], 1), Array::random(&[count as usize, d], 2)];
        let truth =
            |x: &[Array]| reference::info_nce_among(&x[0], &x[1], &pairs.positive, pairs.excluded.as_deref(), 0.2);
        check_slope(|x| info_nce_among(&x[0], &x[1], &pairs, 0.2), truth, &inputs)?;
    }
    Ok(())
}

/// NT-Xent of a batch on one rank is the mean over two ranks of their rows against all columns, gradients included.
#[test]
fn ranks_that_see_all_columns_have_nt_xent_as_their_mean() -> Result<()> {
    let (n, d) = (6, 4);
    let z = [1, 2].map(|seed| Var::from_tensor(&Array::random(&[n, d], seed).tensor().unwrap()).unwrap());
    let whole = nt_xent(&z[0], &z[1], 0.3)?;
    let unit = [l2_normalize(&z[0])?, l2_normalize(&z[1])?];
    let all = Tensor::cat(&unit, 0)?;
    let of_rank = |first: usize, count: usize| {
        let own = Tensor::cat(&[unit[0].narrow(0, first, count)?, unit[1].narrow(0, first, count)?], 0)?;
        info_nce_among(&own, &all, &Pairs::two_views(first, count, n), 0.3)
    };
    let mean = ((of_rank(0, 3)? + of_rank(3, 3)?)? * 0.5)?;
    assert!((mean.to_scalar::<f32>()? - whole.to_scalar::<f32>()?).abs() < 1e-6);
    let (mean, whole) = (mean.backward()?, whole.backward()?);
    for z in &z {
        let (a, b) = (Array::of(mean.get(z).unwrap())?, Array::of(whole.get(z).unwrap())?);
        a.data.iter().zip(&b.data).for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "{a} {b}"));
    }
    Ok(())
}

/// A queue is no part of the graph, and neither is a key of a network that does not learn.
#[test]
fn what_is_not_tracked_gets_no_gradient() -> Result<()> {
    let var = |n, seed| Var::from_tensor(&Array::random(&[n, 4], seed).tensor()?);
    let (q, k, queue) = (var(3, 1)?, var(3, 2)?, var(5, 3)?);
    let grads = info_nce(&q, &k.detach(), &queue, 0.2)?.backward()?;
    assert!(grads.get(&q).is_some() && grads.get(&k).is_none() && grads.get(&queue).is_none());
    let grads = info_nce_among(&q, &queue.detach(), &Pairs::aligned(1, 3), 0.2)?.backward()?;
    assert!(grads.get(&q).is_some() && grads.get(&queue).is_none());
    Ok(())
}

/// Logits of 10,000 and more; a NaN in the queue; zero rows, which cannot tell keys apart.
#[test]
fn hostile_values() -> Result<()> {
    let z = |n, seed| Array::random(&[n, 4], seed);
    let (q, k, queue) = (z(3, 1), z(3, 2), z(9, 3));
    let huge = Var::from_tensor(&q.map(|v| 1e4 * v).tensor()?)?;
    let loss = info_nce(&huge, &k.tensor()?, &queue.tensor()?, 0.5)?;
    let truth = reference::info_nce(&Array::of(&huge)?, &k, &queue, 0.5);
    assert!((f64::from(loss.to_scalar::<f32>()?) / truth - 1.0).abs() < 1e-5);
    assert!(Array::of(loss.backward()?.get(&huge).unwrap())?.data.iter().all(|v| v.is_finite()));
    let zeros = Tensor::zeros((3, 4), DType::F32, &device()?)?;
    let blind = info_nce(&zeros, &k.tensor()?, &queue.tensor()?, 0.5)?.to_scalar::<f32>()?;
    assert!((blind - 10f32.ln()).abs() < 1e-6);
    let nan = Tensor::full(f32::NAN, (1, 4), &device()?)?;
    let spoiled = Tensor::cat(&[&queue.tensor()?, &nan], 0)?;
    assert!(info_nce(&q.tensor()?, &k.tensor()?, &spoiled, 0.5)?.to_scalar::<f32>()?.is_nan());
    Ok(())
}

#[test]
fn threads_do_not_change_a_bit() -> Result<()> {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| -> Result<_> {
            let q = Var::from_tensor(&Array::random(&[300, 17], 1).tensor()?)?;
            let keys = Var::from_tensor(&Array::random(&[900, 17], 2).tensor()?)?;
            let loss = (info_nce_among(&q, &keys, &Pairs::aligned(300, 300), 0.2)? + info_nce(&q, &q, &keys, 0.2)?)?;
            let grads = loss.backward()?;
            let [dq, dk] = [&q, &keys].map(|v| grads.get(v).unwrap().to_vec2::<f32>());
            Ok((loss.to_scalar::<f32>()?, dq?, dk?))
        })
    };
    let one = run(1)?;
    assert_eq!(one, run(2)?);
    assert_eq!(one, run(5)?);
    Ok(())
}

#[test]
fn bad_arguments_are_named() -> Result<()> {
    let z = |n, d| Tensor::zeros((n, d), DType::F32, &Device::Cpu).unwrap();
    let error = |r: Result<Tensor>| r.unwrap_err().to_string();
    assert!(error(info_nce(&z(3, 4), &z(2, 4), &z(5, 4), 0.5)).contains("queries are [3, 4] and their keys [2, 4]"));
    assert!(error(info_nce(&z(3, 4), &z(3, 4), &z(5, 3), 0.5)).contains("the queue [5, 3]"));
    assert!(error(info_nce(&z(3, 4), &z(3, 4), &z(0, 4), 0.5)).contains("at least one"));
    assert!(error(info_nce(&z(3, 4), &z(3, 4), &z(5, 4), 0.0)).contains("temperature must be positive"));
    let among = |pairs| error(info_nce_among(&z(3, 4), &z(5, 4), &pairs, 0.5));
    assert!(among(Pairs::aligned(0, 2)).contains("2 indices for 3 queries"));
    assert!(among(Pairs::aligned(3, 3)).contains("index 5 of 5 keys"));
    let own = Pairs { excluded: Some(vec![1, 1, 1]), ..Pairs::aligned(0, 3) };
    assert!(among(own).contains("query 1 excludes its own key 1"));
    Ok(())
}
