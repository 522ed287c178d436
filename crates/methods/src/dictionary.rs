//! What MoCo looks its keys up in: a queue, or a bank with an entry for every image.
//!
//! The third of the paper's dictionaries, the batch itself (end-to-end), remembers nothing.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, Var, bail};
use diptych_comm::Collective;
use diptych_kernels::l2_normalize;
use diptych_nn::{Group, Init, Param, ParamStore, Role};
use diptych_random::Stream;

/// Keeps the stream of drawn bank entries apart from every other use of the seed.
const DRAWN: u64 = u64::from_be_bytes(*b"bankdraw");

/// The last K keys (He et al. 2020, section 3.2), `[K, D]` at length 1; random ones at first.
///
/// Any K will do: a batch that reaches the end goes on at the beginning.
pub(crate) struct Queue {
    pub(crate) state: ParamStore,
    keys: Var,
    /// How many keys have come in.
    written: Var,
}

impl Queue {
    pub(crate) fn new(mut state: ParamStore, count: usize, width: usize) -> Result<Self> {
        let keys = unit_rows(&mut state, "keys", count, width)?;
        // On the host wherever the keys are: the place of the next keys depends on it in every step.
        let written = Var::zeros(1, DType::I64, &Device::Cpu)?;
        state.insert("written", Param { role: Role::Buffer, group: Group::Frozen, var: written.clone() })?;
        Ok(Self { state, keys, written })
    }

    /// The keys, `[K, D]`, as they are now.
    pub(crate) fn keys(&self) -> Tensor {
        self.keys.as_detached_tensor()
    }

    /// Puts `keys` `[N, D]` in the place of the oldest.
    pub(crate) fn push(&mut self, keys: &Tensor) -> Result<()> {
        let (count, rows) = (self.keys.dim(0)?, keys.dim(0)?);
        let written = self.written()?;
        // Of more keys than there is room for, the last remain.
        let mut row = rows.saturating_sub(count);
        while row < rows {
            let place = (written + row) % count;
            let length = (rows - row).min(count - place);
            self.keys.slice_set(&keys.narrow(0, row, length)?.contiguous()?, 0, place)?;
            row += length;
        }
        self.written.set(&Tensor::new(&[(written + rows) as i64], self.written.device())?)
    }

    /// Whether no random key of the start is left.
    pub(crate) fn is_full(&self) -> Result<bool> {
        Ok(self.written()? >= self.keys.dim(0)?)
    }

    /// How many steps ago the average key came in, at `rows` keys a step.
    pub(crate) fn age(&self, rows: usize) -> Result<Tensor> {
        let filled = self.written()?.min(self.keys.dim(0)?);
        Tensor::new(filled as f64 / rows.max(1) as f64 / 2.0, &Device::Cpu)
    }

    /// The mean length of some hundred keys; 1 unless something is wrong.
    pub(crate) fn norm(&self) -> Result<Tensor> {
        let keys = self.keys().narrow(0, 0, self.keys.dim(0)?.min(256))?;
        keys.sqr()?.sum(1)?.sqrt()?.mean_all()
    }

    fn written(&self) -> Result<usize> {
        Ok(self.written.to_vec1::<i64>()?[0] as usize)
    }
}

/// One entry for every image of the training set (Wu et al. 2018, arXiv:1805.01978), `[M, D]` at length 1; random ones at first.
pub(crate) struct MemoryBank {
    pub(crate) state: ParamStore,
    entries: Var,
}

impl MemoryBank {
    pub(crate) fn new(mut state: ParamStore, images: usize, width: usize) -> Result<Self> {
        let entries = unit_rows(&mut state, "entries", images, width)?;
        Ok(Self { state, entries })
    }

    /// The entries of these images, `[N, D]`.
    pub(crate) fn of(&self, index: &[u32]) -> Result<Tensor> {
        let index = Tensor::new(index, self.entries.device())?;
        self.entries.as_detached_tensor().index_select(&index, 0)
    }

    /// `count` entries `[K, D]` of images outside of the batch, drawn with replacement by (seed, step).
    pub(crate) fn draw(&self, count: usize, batch: &[u32], seed: u64, step: u64) -> Result<Tensor> {
        let images = self.entries.dim(0)?;
        let mut inside = vec![false; images];
        for &image in batch {
            match inside.get_mut(image as usize) {
                Some(inside) => *inside = true,
                None => bail!("image {image} has no entry in a memory bank of {images}"),
            }
        }
        if inside.iter().all(|&inside| inside) {
            bail!("a memory bank of {images} images has no negatives for a batch of all of them; use a smaller batch")
        }
        let mut stream = Stream::keyed(seed, &[DRAWN, step]);
        let mut drawn = Vec::with_capacity(count);
        while drawn.len() < count {
            let image = stream.below(images as u64) as u32;
            if !inside[image as usize] {
                drawn.push(image);
            }
        }
        self.of(&drawn)
    }

    /// Moves the entries of these images towards `keys` `[N, D]`: `momentum entry + (1 - momentum) key`, at length 1.
    pub(crate) fn follow(&mut self, index: &[u32], keys: &Tensor, momentum: f64) -> Result<()> {
        let moved = l2_normalize(&((self.of(index)? * momentum)? + (keys * (1.0 - momentum))?)?)?;
        set_rows(&self.entries, index, &moved)
    }
}

/// Puts `rows` `[N, D]` in the places `index` of `table` `[M, D]`. Of rows for one place (an image that stands in for a broken one) the last stays,
/// on every device.
pub(crate) fn set_rows(table: &Var, index: &[u32], rows: &Tensor) -> Result<()> {
    let last: BTreeMap<u32, u32> = index.iter().copied().zip(0..).collect();
    let device = rows.device();
    let rows = match last.len() == index.len() {
        true => rows.contiguous()?,
        false => rows.index_select(&Tensor::new(last.values().copied().collect::<Vec<_>>(), device)?, 0)?,
    };
    let index = if last.len() == index.len() { index.to_vec() } else { last.into_keys().collect() };
    let places = Tensor::new(index, device)?.unsqueeze(1)?.broadcast_as(rows.shape())?.contiguous()?;
    table.scatter_set(&places, &rows, 0)
}

/// The rows of all ranks, and the indices that go with them.
pub(crate) fn gather_index(index: &[u32], comm: &dyn Collective) -> Result<Vec<u32>> {
    let own = Tensor::new(index, &Device::Cpu)?;
    comm.all_gather(&own)?.to_vec1()
}

fn unit_rows(state: &mut ParamStore, name: &str, rows: usize, width: usize) -> Result<Var> {
    let var = state.scope(Group::Frozen).get(name, &[rows, width], Role::Buffer, Init::Normal(1.0))?;
    var.set(&l2_normalize(&var.as_detached_tensor())?)?;
    Ok(var)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: impl IntoIterator<Item = f32>) -> Result<Tensor> {
        let values: Vec<f32> = values.into_iter().collect();
        Tensor::from_vec(values.clone(), (values.len(), 1), &Device::Cpu)
    }

    /// Against a plain list that drops its oldest: batches that wrap, batches longer than the queue.
    #[test]
    fn the_queue_holds_the_last_keys() -> Result<()> {
        let mut queue = Queue::new(ParamStore::new(0, &Device::Cpu), 7, 1)?;
        let mut next = 10f32;
        for batch in [3usize, 3, 3, 5, 7, 1, 9, 20, 2] {
            queue.push(&rows((0..batch).map(|i| next + i as f32))?)?;
            next += batch as f32;
            let mut held = queue.keys().flatten_all()?.to_vec1::<f32>()?;
            held.sort_by(f32::total_cmp);
            let real = ((next - 10.0) as usize).min(7);
            let expected: Vec<f32> = (0..real).map(|i| next - (real - i) as f32).collect();
            assert_eq!(held[7 - real..], expected, "after {batch}");
        }
        assert_eq!(queue.age(7)?.to_scalar::<f64>()?, 0.5);
        Ok(())
    }

    #[test]
    fn the_bank_keeps_unit_entries_and_draws_none_of_the_batch() -> Result<()> {
        let mut bank = MemoryBank::new(ParamStore::new(0, &Device::Cpu), 6, 4)?;
        let before = bank.of(&[2])?;
        let key = l2_normalize(&Tensor::new(&[[1f32, 2.0, -1.0, 0.5]], &Device::Cpu)?)?;
        bank.follow(&[2], &key, 0.5)?;
        let after = bank.of(&[2])?;
        assert!((after.sqr()?.sum_all()?.to_scalar::<f32>()? - 1.0).abs() < 1e-6);
        let cosine = |a: &Tensor| (a * &key)?.sum_all()?.to_scalar::<f32>();
        assert!(cosine(&after)? > cosine(&before)?);
        let drawn = bank.draw(50, &[2, 3], 1, 1)?.to_vec2::<f32>()?;
        let kept: Vec<Vec<f32>> = bank.of(&[0, 1, 4, 5])?.to_vec2()?;
        assert!(drawn.iter().all(|row| kept.contains(row)));
        assert!(bank.draw(1, &[0, 1, 2, 3, 4, 5], 1, 1).unwrap_err().to_string().contains("smaller batch"));
        Ok(())
    }

    /// By hand: of two rows for place 2, the second stays.
    #[test]
    fn of_rows_for_one_place_the_last_stays() -> Result<()> {
        let table = Var::zeros((4, 1), DType::F32, &Device::Cpu)?;
        set_rows(&table, &[2, 0, 2], &Tensor::new(&[[1f32], [2.0], [3.0]], &Device::Cpu)?)?;
        assert_eq!(table.flatten_all()?.to_vec1::<f32>()?, [2.0, 0.0, 3.0, 0.0]);
        set_rows(&table, &[3, 1], &Tensor::new(&[[4f32], [5.0]], &Device::Cpu)?)?;
        assert_eq!(table.flatten_all()?.to_vec1::<f32>()?, [2.0, 5.0, 3.0, 4.0]);
        Ok(())
    }
}
