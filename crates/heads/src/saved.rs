//! The layers of a saved perceptron, told by the names and shapes of its tensors.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use candle_core::Tensor;
use diptych_nn::Bias;

use crate::{Block, Norm};

/// Tensors that are no perceptron of linear layers, batch norms and ReLUs: a sentence that names the tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedError(String);

impl fmt::Display for SavedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SavedError {}

macro_rules! bail {
    ($($what:tt)*) => { return Err(SavedError(format!($($what)*))) };
}

/// A perceptron as a file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Width of its input.
    pub inputs: usize,
    /// Its layers.
    pub blocks: Vec<Block>,
}

impl Saved {
    /// What [`crate::Mlp::new`] was given when it made tensors of these names (`0.weight`, `1.running_mean`, `3.weight`, ..., without a prefix).
    ///
    /// A ReLU has no tensors: it is the place left out before the next layer, so none is found behind the last one, where no projector of the papers
    /// has one. Whether a bias was frozen is not told either; it is taken as trained.
    ///
    /// # Errors
    /// If the names are not those of linear layers, batch norms and ReLUs in turn, or two widths do not meet; the message names the tensor.
    pub fn of(tensors: &HashMap<String, Tensor>) -> Result<Self, SavedError> {
        let mut modules: BTreeMap<usize, BTreeMap<&str, &[usize]>> = BTreeMap::new();
        for (name, value) in tensors {
            match name.split_once('.').and_then(|(place, rest)| Some((place.parse().ok()?, rest))) {
                Some((place, rest)) => modules.entry(place).or_default().insert(rest, value.dims()),
                None => bail!("{name} is not a tensor of a projector, whose names look like 0.weight"),
            };
        }
        let (mut place, mut blocks, mut inputs, mut width) = (0, Vec::new(), 0, 0);
        while !modules.is_empty() {
            let Some(linear) = modules.remove(&place) else {
                bail!("{place}.weight is missing: no layer is known there")
            };
            let Some(&[outputs, wide]) = linear.get("weight").copied() else {
                bail!("{place}.weight is not the weight of a linear layer, [outputs, inputs]")
            };
            if blocks.is_empty() {
                inputs = wide;
            } else if wide != width {
                bail!("{place}.weight has {wide} inputs, the layer before it {width} outputs")
            }
            width = outputs;
            place += 1;
            let norm = match modules.get(&place) {
                Some(norm) if norm.contains_key("running_mean") => {
                    match (norm.contains_key("weight"), norm.contains_key("bias")) {
                        (true, true) => Norm::ScaleShift,
                        (true, false) => Norm::Scale,
                        (false, _) => Norm::Plain,
                    }
                }
                _ => Norm::None,
            };
            if norm != Norm::None {
                modules.remove(&place);
                place += 1;
            }
            let relu = !modules.is_empty() && !modules.contains_key(&place);
            place += usize::from(relu);
            let bias = if linear.contains_key("bias") { Bias::Trained } else { Bias::None };
            blocks.push(Block { width, bias, norm, relu });
        }
        Ok(Self { inputs, blocks })
    }

    /// The first `count` layers.
    ///
    /// # Errors
    /// If there are not so many; the message says how many there are.
    pub fn first(mut self, count: usize) -> Result<Self, SavedError> {
        if count > self.blocks.len() {
            bail!("the projector has {} layers, not {count}", self.blocks.len())
        }
        self.blocks.truncate(count);
        Ok(self)
    }

    /// Places that the layers take in a `Sequential`: the number of the module behind them.
    pub fn places(&self) -> usize {
        self.blocks.iter().map(|b| 1 + usize::from(b.norm != Norm::None) + usize::from(b.relu)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mlp, projector};
    use candle_core::{Device, Result};
    use diptych_nn::{Group, Layout, ParamStore};

    fn saved(blocks: &[Block]) -> Result<HashMap<String, Tensor>> {
        let mut store = ParamStore::new(0, &Device::Cpu);
        Mlp::new(&mut store.scope(Group::Projector), 7, blocks)?;
        Ok(store.tensors(Layout::Ohwi)?.into_iter().collect())
    }

    /// Every projector of the papers is read back as it was described.
    #[test]
    fn what_was_built_is_what_is_read() -> Result<()> {
        let widths = [6, 5, 4];
        let all = [
            projector::simclr(&widths),
            projector::moco(&widths),
            projector::byol(&widths),
            projector::barlow_twins(&widths),
            projector::swav(&widths),
            projector::simsiam_with(&widths, false, false),
            projector::simsiam_with(&widths, false, true),
        ];
        for blocks in all {
            let expected: Vec<Block> = blocks
                .iter()
                .map(|b| Block { bias: if b.bias == Bias::Frozen { Bias::Trained } else { b.bias }, ..*b })
                .collect();
            assert_eq!(Saved::of(&saved(&blocks)?), Ok(Saved { inputs: 7, blocks: expected }));
        }
        let two = Saved::of(&saved(&projector::simclr(&widths))?).and_then(|all| all.first(2)).unwrap();
        assert_eq!((two.blocks.len(), two.places()), (2, 6));
        Ok(())
    }

    #[test]
    fn other_names_are_refused() -> Result<()> {
        let mut tensors = saved(&projector::byol(&[6, 5]))?;
        let weight = tensors.remove("3.weight").unwrap();
        assert!(Saved::of(&tensors).is_ok_and(|saved| saved.blocks.len() == 1));
        tensors.insert("4.weight".into(), weight.clone());
        assert!(Saved::of(&tensors).unwrap_err().to_string().contains("3.weight is missing"));
        tensors.insert("head".into(), weight);
        assert!(Saved::of(&tensors).unwrap_err().to_string().contains("head is not a tensor of a projector"));
        let short = Saved::of(&saved(&projector::byol(&[6, 5]))?).unwrap().first(3).unwrap_err().to_string();
        assert!(short.contains("has 2 layers, not 3"), "{short}");
        Ok(())
    }
}
