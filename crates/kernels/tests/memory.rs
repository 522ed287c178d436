//! The most memory that losses take above their inputs, counted by this program's allocator.
//!
//! Counted is what is asked for, live at once, from before the forward pass until after the backward pass, gradients
//! included. A loss called through Candle's graph pays for its way of adding gradients up too: beside each gradient that an
//! op returns it holds zeros and their sum.

use candle_core::{Device, Result, Tensor, Var};
use diptych_kernels::info_nce::Pairs;
use diptych_kernels::{CountingAllocator, barlow_twins, cross_correlation, info_nce, info_nce_among, nt_xent};
use rayon::ThreadPoolBuilder;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const MIB: usize = 1 << 20;

/// The peak above what lives before, in bytes, with two threads (each has a scratch of its own).
fn peak<T: Send>(run: impl FnOnce() -> Result<T> + Send) -> usize {
    let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    pool.install(|| {
        let before = CountingAllocator::reset_peak();
        let result = run().unwrap();
        let peak = CountingAllocator::peak() - before;
        drop(result);
        peak
    })
}

fn views(n: usize, d: usize) -> [Var; 2] {
    [(); 2].map(|()| Var::from_tensor(&Tensor::randn(0f32, 1.0, (n, d), &Device::Cpu).unwrap()).unwrap())
}

/// One test, since they would count each other's memory.
#[test]
fn losses_stay_within_their_memory() {
    // 2N = 8192, D = 128: the matrix of similarities would take 256 MiB, one copy of the views 4.
    let [z1, z2] = views(4096, 128);
    let peak_of_nt_xent = peak(|| nt_xent(&z1, &z2, 0.1)?.backward());
    assert!(peak_of_nt_xent < 20 * MIB, "nt_xent: {peak_of_nt_xent}");

    // The logits would take 128 MiB, the queue takes 16.
    let [q, k] = views(512, 64);
    let queue = Tensor::randn(0f32, 1.0, (65_536, 64), &Device::Cpu).unwrap();
    let peak_of_info_nce = peak(|| info_nce(&q, &k, &queue, 0.2)?.backward());
    assert!(peak_of_info_nce < 12 * MIB, "info_nce: {peak_of_info_nce}");
    // Both gradients and Candle's sums; the logits would take 64 MiB.
    let [q, keys] = views(4096, 64);
    let pairs = Pairs::aligned(0, 4096);
    let peak_of_info_nce = peak(|| info_nce_among(&q, &keys, &pairs, 0.2)?.backward());
    assert!(peak_of_info_nce < 12 * MIB, "info_nce_among: {peak_of_info_nce}");

    // N = 256, D = 8192: a D x D matrix takes 256 MiB, a view 8. The bar is a tenth of the matrix, both gradients included.
    let [z1, z2] = views(256, 8192);
    let peak_of_barlow_twins = peak(|| cross_correlation::loss_and_gradients(&z1, &z2, 0.0051, 1e-5));
    assert!(peak_of_barlow_twins * 10 < 8192 * 8192 * 4, "barlow_twins: {peak_of_barlow_twins}");
    // Through Candle's graph: one gradient, and of the other zeros, gradient and sum, 8 MiB each, beside what is left of the op.
    let through_the_graph = peak(|| barlow_twins(&z1, &z2, 0.0051, 1e-5)?.total.backward());
    assert!(through_the_graph < 40 * MIB, "barlow_twins through the graph: {through_the_graph}");
    println!(
        "nt_xent {:.1} MiB, barlow_twins {:.1} MiB, through the graph {:.1} MiB",
        peak_of_nt_xent as f64 / MIB as f64,
        peak_of_barlow_twins as f64 / MIB as f64,
        through_the_graph as f64 / MIB as f64
    );
}
