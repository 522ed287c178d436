//! The passes without a graph against the autograd op: the same bits, gradients in the memory they replace.

use super::*;
use crate::dense::Dense;
use std::sync::{Arc, Barrier, Mutex};

/// x, gamma, beta, residual and dy for a shape.
fn arguments(shape: &[usize], dtype: DType, seed: u64) -> Result<[Tensor; 5]> {
    let c = [*shape.last().unwrap()];
    let like_x = |seed| Array::random(shape, seed).tensor()?.to_dtype(dtype);
    let per_channel = |seed| Array::random(&c, seed).tensor();
    Ok([like_x(seed)?, per_channel(seed + 1)?, per_channel(seed + 2)?, like_x(seed + 3)?, like_x(seed + 4)?])
}

/// Every bit of a tensor; bf16 values as f32. 0 without its sign, which Candle loses when it adds gradients up.
fn bits(t: &Tensor) -> Result<Vec<u32>> {
    Ok(t.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?.into_iter().map(|v| (v + 0.0).to_bits()).collect())
}

fn address(t: &Tensor) -> Result<usize> {
    #[cfg(feature = "cuda")]
    if let Some(gpu) = crate::cuda::Gpu::of(t) {
        return Ok(crate::cuda::Memory::of(NAME, &gpu, t)?.pointer() as usize);
    }
    Ok(match t.dtype() {
        DType::BF16 => Dense::<half::bf16>::new(NAME, t)?.as_ptr().addr(),
        _ => Dense::<f32>::new(NAME, t)?.as_ptr().addr(),
    })
}

/// y, dx, dgamma, dbeta, dresidual of the autograd op, given the same arguments.
fn autograd(arguments: &[Tensor; 5], residual: bool, options: &Options) -> Result<Vec<Tensor>> {
    let [x, gamma, beta, r, dy] = arguments;
    let vars: Vec<Var> =
        [x, gamma, beta, r].into_iter().map(|t| Var::from_tensor(&t.copy()?)).collect::<Result<_>>()?;
    let r = residual.then_some(vars[3].as_tensor());
    let y = batch_norm_train_with(&vars[0], Some(&vars[1]), Some(&vars[2]), r, options)?.y;
    let grads = (&y * dy)?.sum_all()?.backward()?;
    let wanted = if residual { &vars[..] } else { &vars[..3] };
    Ok(std::iter::once(y.detach()).chain(wanted.iter().map(|v| grads.get(v).unwrap().clone())).collect())
}

fn explicit(arguments: &[Tensor; 5], residual: bool, options: &Options) -> Result<Vec<Tensor>> {
    let [x, gamma, beta, r, dy] = arguments;
    let (x, dy) = (x.copy()?, dy.copy()?);
    let at = [address(&x)?, address(&dy)?];
    let out = forward(&x, gamma, beta, residual.then_some(r), options)?;
    let back = backward(&out.saved, x, &out.y, dy, gamma, residual)?;
    assert_eq!(address(&back.dx)?, at[0], "dx is not where x was");
    if let Some(d) = &back.dresidual {
        assert_eq!(address(d)?, at[1], "the residual's gradient is not where dy was");
    }
    Ok([out.y, back.dx, back.dgamma, back.dbeta].into_iter().chain(back.dresidual).collect())
}

#[test]
fn explicit_passes_equal_the_autograd_op() -> Result<()> {
    for (i, shape) in
        [[4, 3, 5, 1], [2, 6, 5, 3], [2, 3, 9, 17], [4, 2, 2, 63], [6, 7, 5, 65], [2, 1, 1, 300]].iter().enumerate()
    {
        for dtype in [DType::F32, DType::BF16] {
            for (residual, relu, groups) in [(false, false, 1), (false, true, 2), (true, false, 2), (true, true, 1)] {
                let arguments = arguments(shape, dtype, i as u64)?;
                let options = Options { relu, groups, ..Options::default() };
                let (want, got) =
                    (autograd(&arguments, residual, &options)?, explicit(&arguments, residual, &options)?);
                assert_eq!(want.len(), got.len());
                for (j, (want, got)) in want.iter().zip(&got).enumerate() {
                    assert_eq!((want.dtype(), want.dims()), (got.dtype(), got.dims()));
                    assert!(
                        bits(want)? == bits(got)?,
                        "{shape:?} {dtype:?} {options:?} residual {residual}: output {j}"
                    );
                }
            }
        }
    }
    Ok(())
}

/// Views, shared memory and broadcasts come out right: they are copied, and what they were views of stays as it was.
#[test]
fn shared_memory_is_not_written() -> Result<()> {
    let [x, gamma, beta, ..] = arguments(&[6, 4, 5], DType::F32, 9)?;
    let options = Options { relu: true, ..Options::default() };
    let want = autograd(&[x.clone(), gamma.clone(), beta.clone(), x.clone(), x.clone()], true, &options)?;
    let before = bits(&x)?;
    let out = forward(&x, &gamma, &beta, Some(&x), &options)?;
    // x as dy too: both by value, both one storage.
    let transposed = x.transpose(0, 2)?.contiguous()?.transpose(0, 2)?;
    let back = backward(&out.saved, transposed.clone(), &out.y, x.clone(), &gamma, true)?;
    assert!(bits(&want[1])? == bits(&back.dx)? && bits(&want[4])? == bits(&back.dresidual.unwrap())?);
    assert!(bits(&transposed)? == before, "a transposed view was written");
    let [x, ..] = arguments(&[6, 4, 5], DType::F32, 9)?;
    let back = backward(&out.saved, x.clone(), &out.y, x.clone(), &gamma, true)?;
    assert!(bits(&want[1])? == bits(&back.dx)? && bits(&want[4])? == bits(&back.dresidual.unwrap())?);
    Ok(())
}

/// Groups are what separate calls on the parts give, bit for bit; the gradients of gamma and beta are their sums.
#[test]
fn groups_equal_separate_calls() -> Result<()> {
    let arguments = arguments(&[6, 3, 5, 20], DType::F32, 21)?;
    for groups in [2, 3, 6] {
        let options = Options { relu: true, groups, ..Options::default() };
        let whole = explicit(&arguments, true, &options)?;
        let statistics = forward(&arguments[0], &arguments[1], &arguments[2], None, &options)?;
        let n = 6 / groups;
        let (mut dgamma, mut dbeta) = (arguments[1].zeros_like()?, arguments[1].zeros_like()?);
        for g in 0..groups {
            let part = |t: &Tensor| if t.rank() == 4 { t.narrow(0, g * n, n) } else { Ok(t.clone()) };
            let [x, gamma, beta, r, dy] = &arguments;
            let parts = [part(x)?, part(gamma)?, part(beta)?, part(r)?, part(dy)?];
            let options = Options { relu: true, ..Options::default() };
            let got = explicit(&parts, true, &options)?;
            for i in [0, 1, 4] {
                assert!(bits(&part(&whole[i])?)? == bits(&got[i])?, "group {g} of {groups}: output {i}");
            }
            (dgamma, dbeta) = ((dgamma + &got[2])?, (dbeta + &got[3])?);
            let alone = forward(&parts[0], &parts[1], &parts[2], None, &options)?;
            assert!(bits(&alone.mean)? == bits(&statistics.mean.get(g)?)?);
            assert!(bits(&alone.var)? == bits(&statistics.var.get(g)?)?);
        }
        for (sum, whole) in [(dgamma, &whole[2]), (dbeta, &whole[3])] {
            let error = (sum - whole)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(error < 1e-4, "{error}");
        }
    }
    let error =
        forward(&arguments[0], &arguments[1], &arguments[2], None, &Options { groups: 4, ..Options::default() });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("4 groups: 6 images"), "{error}");
    Ok(())
}

/// PyTorch 2.15: BatchNorm1d(2, momentum=0.1) on [[1, 4], [3, 8]] ends with running_mean [0.2, 0.6] and running_var [1.1, 1.7]. With two groups,
/// the second of them [[5, 0], [5, 4]]: the mean of (mean 2, 6; var 2, 8) and (5, 2; 0, 8) is (3.5, 4; 1, 8).
#[test]
fn running_statistics_move_in_place() -> Result<()> {
    let x = Tensor::new(&[[1f32, 4.0], [3.0, 8.0], [5.0, 0.0], [5.0, 4.0]], &device()?)?;
    let (gamma, beta) = (Tensor::ones(2, DType::F32, &device()?)?, Tensor::zeros(2, DType::F32, &device()?)?);
    for (x, groups, means, vars) in
        [(x.narrow(0, 0, 2)?, 1, [0.2f32, 0.6], [1.1f32, 1.7]), (x, 2, [0.35, 0.4], [1.0, 1.7])]
    {
        let out = forward(&x, &gamma, &beta, None, &Options { groups, ..Options::default() })?;
        let (mean, var) = (Var::zeros(2, DType::F32, &device()?)?, Var::ones(2, DType::F32, &device()?)?);
        let at = address(&mean)?;
        update_running(&mean, &var, &out.mean, &out.var, out.rows, 0.1)?;
        assert_eq!(address(&mean)?, at);
        for (got, want) in mean.to_vec1::<f32>()?.iter().zip(means).chain(var.to_vec1::<f32>()?.iter().zip(vars)) {
            assert!((got - want).abs() < 1e-6, "{groups} groups: {got}, expected {want}");
        }
        assert!(update_running(&mean, &var, &out.mean, &out.var, 1, 0.1).is_err());
        assert!(update_running(&mean, &var, &Tensor::zeros(3, DType::F32, &device()?)?, &out.var, 2, 0.1).is_err());
    }
    Ok(())
}

/// Two standard threads that gather through a barrier.
struct Pair {
    slots: Mutex<[Vec<f64>; 2]>,
    barrier: Barrier,
}

struct Rank {
    index: usize,
    pair: Arc<Pair>,
}

impl Ranks for Rank {
    fn gather(&self, values: &[f64]) -> Result<Vec<Vec<f64>>> {
        self.pair.slots.lock().unwrap()[self.index] = values.to_vec();
        self.pair.barrier.wait();
        let all = self.pair.slots.lock().unwrap().to_vec();
        self.pair.barrier.wait();
        Ok(all)
    }
}

/// Two ranks with half of the batch each are one rank with all of it, at a mean of 1e4 too.
#[test]
fn two_ranks_equal_one() -> Result<()> {
    type Pass = fn(&[Tensor; 5], bool, &Options) -> Result<Vec<Tensor>>;
    for (shift, tolerance) in [(0.0, 2e-6), (1e4, 2e-6)] {
        let mut whole = arguments(&[8, 5, 7, 19], DType::F32, 31)?;
        whole[0] = (whole[0].affine(1.7, shift))?;
        // The sum is masked, so the residual keeps y away from the kink.
        whole[3] = whole[3].affine(10.0, 0.0)?;
        for pass in [explicit as Pass, autograd as Pass] {
            let options = Options { relu: true, ..Options::default() };
            let want = pass(&whole, true, &options)?;
            let pair = Arc::new(Pair { slots: Mutex::default(), barrier: Barrier::new(2) });
            let results: Vec<Vec<Tensor>> = std::thread::scope(|scope| {
                let ranks: Vec<_> = (0..2)
                    .map(|index| {
                        let (whole, pair) = (&whole, pair.clone());
                        scope.spawn(move || {
                            let half =
                                |t: &Tensor| if t.rank() == 4 { t.narrow(0, 4 * index, 4) } else { Ok(t.clone()) };
                            let [x, gamma, beta, r, dy] = whole;
                            let parts = [half(x)?, half(gamma)?, half(beta)?, half(r)?, half(dy)?];
                            let ranks: Arc<dyn Ranks> = Arc::new(Rank { index, pair });
                            pass(&parts, true, &Options { relu: true, ranks: Some(ranks), ..Options::default() })
                        })
                    })
                    .collect();
                ranks.into_iter().map(|rank| rank.join().unwrap()).collect::<Result<_>>()
            })?;
            for (i, want) in want.iter().enumerate() {
                // gamma's and beta's gradients are sums over ranks, all others parts of one array.
                let got = match want.rank() {
                    1 => (&results[0][i] + &results[1][i])?,
                    _ => Tensor::cat(&[&results[0][i], &results[1][i]], 0)?,
                };
                let scale = want.abs()?.max_all()?.to_scalar::<f32>()?.max(1.0);
                let error = (got - want)?.abs()?.max_all()?.to_scalar::<f32>()? / scale;
                assert!(f64::from(error) < tolerance, "shift {shift}: output {i} is off by {error}");
            }
        }
    }
    Ok(())
}
