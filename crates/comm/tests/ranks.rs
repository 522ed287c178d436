//! Ranks as threads: values, order, disagreement, and a rank that ends early.

use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Error, Result, Tensor};
use diptych_comm::threads::{RankError, run};
use diptych_comm::{Collective, Local};

/// A tensor that differs from rank to rank and is never exactly summable in f32.
fn values(rank: usize) -> Result<Tensor> {
    let values: Vec<f32> = (0..12).map(|i| 0.1 + (i * 7 + rank * 13) as f32 / 3.0).collect();
    Tensor::from_vec(values, (4, 3), &Device::Cpu)
}

fn bits(x: &Tensor) -> Result<Vec<u32>> {
    Ok(x.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
}

#[test]
fn sums_run_in_the_order_of_the_ranks_bit_for_bit() {
    for size in [1, 2, 4] {
        let mut expected = values(0).unwrap();
        for rank in 1..size {
            expected = (expected + values(rank).unwrap()).unwrap();
        }
        for round in 0..10u64 {
            let sums = run(size, |comm| {
                // Another order of arrival in each round.
                std::thread::sleep(Duration::from_micros((comm.rank() as u64 * 37 + round * 51) % 200));
                bits(&comm.all_reduce_sum(&values(comm.rank())?)?)
            });
            assert_eq!(sums.unwrap(), vec![bits(&expected).unwrap(); size]);
        }
    }
}

#[test]
fn gather_puts_rows_below_each_other_and_broadcast_takes_the_root() {
    for size in [1, 2, 4] {
        let all: Vec<Tensor> = (0..size).map(|rank| values(rank).unwrap()).collect();
        let expected = bits(&Tensor::cat(&all, 0).unwrap()).unwrap();
        let results = run(size, |comm| {
            let mine = values(comm.rank())?;
            let last = comm.broadcast(&mine, comm.size() - 1)?;
            comm.barrier()?;
            // A transposed, offset view: its values count, not its memory.
            let view = Tensor::cat(&[&mine, &mine], 0)?.t()?.contiguous()?.t()?.narrow(0, 4, 4)?;
            Ok::<_, Error>((bits(&comm.all_gather(&view)?)?, bits(&last)?))
        });
        for (gathered, last) in results.unwrap() {
            assert_eq!(gathered, expected);
            assert_eq!(last, bits(&all[size - 1]).unwrap());
        }
    }
}

#[test]
fn many_rounds_do_not_mix() {
    let totals = run(4, |comm| {
        let mut total = 0;
        for round in 0..500u32 {
            let x = Tensor::new(round * (comm.rank() as u32 + 1), &Device::Cpu)?;
            assert_eq!(comm.all_reduce_sum(&x)?.to_scalar::<u32>()?, round * 10);
            total += round;
        }
        Ok::<_, Error>(total)
    });
    assert_eq!(totals.unwrap(), [124750; 4]);
}

/// A rank may write into what it got; the others' results stay as they were.
#[test]
fn each_rank_owns_its_result() {
    let sums = run(2, |comm| {
        let sum = comm.all_reduce_sum(&Tensor::ones(3, DType::F32, &Device::Cpu)?)?;
        if comm.rank() == 0 {
            sum.zero_set()?;
        }
        comm.barrier()?;
        sum.to_vec1::<f32>()
    });
    assert_eq!(sums.unwrap(), [[0.0; 3], [2.0; 3]]);
}

/// Runs ranks that must fail, and returns the sentence; fails if that takes a rank longer than 5 seconds.
fn failure(size: usize, body: impl Fn(Arc<dyn Collective>) -> Result<()> + Sync) -> String {
    let start = Instant::now();
    let error = run(size, body).expect_err("the ranks should have failed");
    assert!(start.elapsed() < Duration::from_secs(5), "the ranks were not released in time");
    error.to_string()
}

#[test]
fn an_error_of_one_rank_releases_the_others_with_its_reason() {
    let text = failure(4, |comm| {
        if comm.rank() == 2 {
            std::thread::sleep(Duration::from_millis(20));
            return Err(Error::Msg("the disk is full".into()));
        }
        let told = comm.barrier().expect_err("rank 2 never comes");
        assert!(told.to_string().contains("rank 2 failed: the disk is full"), "{told}");
        Err(told)
    });
    assert_eq!(text, "rank 2: the disk is full");
}

#[test]
fn a_panic_of_one_rank_releases_the_others_also_at_later_calls() {
    let text = failure(3, |comm| {
        assert_ne!(comm.rank(), 1, "planted");
        std::thread::sleep(Duration::from_millis(20));
        comm.all_reduce_sum(&values(0)?).map(drop)
    });
    assert!(text.starts_with("rank 1 panicked") && text.contains("planted"), "{text}");
}

#[test]
fn a_rank_that_returns_early_is_named() {
    let text = failure(2, |comm| if comm.rank() == 0 { Ok(()) } else { comm.barrier() });
    assert!(text.contains("rank 1 waits in Barrier for rank 0, which has returned"), "{text}");
}

#[test]
fn ranks_that_disagree_are_told_so() {
    let text =
        failure(2, |comm| if comm.rank() == 0 { comm.barrier() } else { comm.all_gather(&values(1)?).map(drop) });
    assert!(text.contains("rank 0 calls Barrier, but rank 1 calls AllGather with F32 [4, 3]"), "{text}");
    let text = failure(2, |comm| comm.all_reduce_sum(&values(0)?.narrow(0, 0, 2 + comm.rank())?).map(drop));
    assert!(text.contains("F32 [2, 3]") && text.contains("F32 [3, 3]"), "{text}");
}

/// The caller gets the rank's own error value back, not its text only.
#[test]
fn the_error_keeps_its_type() {
    let error = run(2, |comm| if comm.rank() == 1 { Err::<(), u8>(3) } else { Ok(()) }).unwrap_err();
    assert!(matches!(error, RankError::Failed { rank: 1, error: 3 }));
}

#[test]
fn one_thread_equals_local() {
    let x = values(0).unwrap();
    let one = run(1, |comm| bits(&comm.all_gather(&comm.all_reduce_sum(&x)?)?)).unwrap();
    assert_eq!(one, [bits(&Local.all_reduce_sum(&x).unwrap()).unwrap()]);
}
