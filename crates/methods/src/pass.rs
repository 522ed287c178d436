//! One pass of a batch forward and back: whole, in micro-batches or in chunks, on one rank or on several.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};
use diptych_comm::Collective;
use diptych_nn::{Batch, ParamStore, backward, hold_statistics, no_grad};

use crate::{Embeddings, Forward, Method};

/// How the rows of a batch go through the networks.
///
/// Parts hold consecutive rows, and each has batch statistics of its own, which move the running ones once a part: as where the
/// batch norms of the whole batch take their statistics from so many groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parts {
    /// All at once.
    #[default]
    Whole,
    /// In so many micro-batches, each with a loss of its own; the mean of their losses is the batch's, unless the method couples the images of a
    /// batch ([`Method::couples_batch`]).
    Accumulate(usize),
    /// In so many chunks with one loss over all rows (Gao et al. 2021, arXiv:2101.06983): the chunks are embedded without a way back, the loss
    /// gives the gradient of every embedding, and each chunk is embedded again to carry its rows of it back. So a batch takes the activations
    /// of one chunk, and the time of one more forward pass.
    Cache(usize),
}

impl Parts {
    /// How many.
    pub fn count(self) -> usize {
        match self {
            Self::Whole => 1,
            Self::Accumulate(count) | Self::Cache(count) => count,
        }
    }
}

/// What a pass gives.
#[derive(Debug)]
pub struct Pass {
    /// The loss of the global batch, its parts and the method's monitors, as means over parts and ranks; no graph. The embeddings are
    /// those of this rank.
    pub forward: Forward,
    /// The mean over ranks of the parameters' gradients, the same on every rank; `None` where the loss is not finite (on a GPU nobody looks).
    pub gradients: Option<GradStore>,
}

/// Takes this rank's rows of a batch forward and back.
///
/// The objective is the mean over ranks of each rank's loss. Gradients through collectives come back as sums; the 1/W enters here, once, in the
/// mean over ranks, which is taken parameter by parameter in name order.
///
/// # Errors
/// If the rows do not divide into the parts, a tensor operation fails, or another rank fails.
pub fn pass(method: &mut dyn Method, batch: &Batch, parts: Parts, comm: &dyn Collective) -> Result<Pass> {
    let (forward, gradients) = match parts {
        Parts::Whole | Parts::Accumulate(1) | Parts::Cache(1) => whole(method, batch, comm)?,
        Parts::Accumulate(count) => accumulate(method, &batch.parts(count)?, comm)?,
        Parts::Cache(count) => cache(method, batch, &batch.parts(count)?, comm)?,
    };
    let gradients = match gradients {
        Some(mut gradients) => {
            average(method.params(), &mut gradients, comm)?;
            Some(gradients)
        }
        None => None,
    };
    Ok(Pass { forward, gradients })
}

fn whole(method: &mut dyn Method, batch: &Batch, comm: &dyn Collective) -> Result<(Forward, Option<GradStore>)> {
    let forward = method.forward(batch)?;
    let mean = mean(std::slice::from_ref(&forward), comm)?;
    let gradients = if finite(&mean)? { Some(backward(&forward.loss.total)?) } else { None };
    Ok((mean, gradients))
}

fn accumulate(method: &mut dyn Method, parts: &[Batch], comm: &dyn Collective) -> Result<(Forward, Option<GradStore>)> {
    let mut forwards = Vec::with_capacity(parts.len());
    let mut sum: Option<GradStore> = None;
    for part in parts {
        let mut forward = method.forward(part)?;
        let gradients = backward(&forward.loss.total)?;
        forward.loss.total = forward.loss.total.detach();
        forwards.push(forward);
        match &mut sum {
            Some(sum) => add(method.params(), sum, &gradients)?,
            None => sum = Some(gradients),
        }
    }
    let mean = mean(&forwards, comm)?;
    match sum {
        Some(mut sum) if finite(&mean)? => {
            scale(method.params(), &mut sum, 1.0 / parts.len() as f64)?;
            Ok((mean, Some(sum)))
        }
        _ => Ok((mean, None)),
    }
}

fn cache(
    method: &mut dyn Method,
    batch: &Batch,
    parts: &[Batch],
    comm: &dyn Collective,
) -> Result<(Forward, Option<GradStore>)> {
    let embedded: Vec<Embeddings> = parts
        .iter()
        .map(|part| {
            let mut embeddings = no_grad(|| hold_statistics(|| method.embed(part)))?;
            embeddings.live.iter_mut().for_each(|live| *live = live.detach());
            Ok(embeddings)
        })
        .collect::<Result<_>>()?;
    let mut all = Embeddings::cat(&embedded)?;
    drop(embedded);
    let leaves: Vec<Var> = all.live.iter().map(Var::from_tensor).collect::<Result<_>>()?;
    all.live = leaves.iter().map(|leaf| leaf.as_tensor().clone()).collect();
    let forward = method.objective(&all, &batch.index)?;
    let mean = mean(std::slice::from_ref(&forward), comm)?;
    if !finite(&mean)? {
        return Ok((mean, None));
    }
    // What the objective gives to parameters without a detour is in there already.
    let mut sum = backward(&forward.loss.total)?;
    let pulls: Vec<Option<Tensor>> = leaves.iter().map(|leaf| sum.remove(leaf)).collect();
    drop((forward, all, leaves));
    let mut row = 0;
    for part in parts {
        let (rows, live) = (part.index.len(), method.embed(part)?.live);
        // A function whose gradient for each embedding is the loss's.
        let mut carrier: Option<Tensor> = None;
        for (live, pull) in live.iter().zip(&pulls) {
            let Some(pull) = pull else { continue };
            let term = (live * pull.narrow(0, row, rows)?)?.sum_all()?;
            carrier = Some(match carrier {
                Some(sum) => (sum + term)?,
                None => term,
            });
        }
        if let Some(carrier) = carrier {
            add(method.params(), &mut sum, &backward(&carrier)?)?;
        }
        row += rows;
    }
    Ok((mean, Some(sum)))
}

/// Adds the gradients of `params`.
fn add(params: &ParamStore, sum: &mut GradStore, gradients: &GradStore) -> Result<()> {
    for (_, param) in params.trainable() {
        let Some(gradient) = gradients.get(&param.var) else { continue };
        let total = match sum.get(&param.var) {
            Some(before) => (before + gradient)?,
            None => gradient.clone(),
        };
        sum.insert(&param.var, total);
    }
    Ok(())
}

/// Multiplies the gradients of `params`.
fn scale(params: &ParamStore, gradients: &mut GradStore, factor: f64) -> Result<()> {
    for (_, param) in params.trainable() {
        if let Some(gradient) = gradients.get(&param.var) {
            let scaled = (gradient * factor)?;
            gradients.insert(&param.var, scaled);
        }
    }
    Ok(())
}

/// The mean over ranks of the gradients of `params`, in name order. What has no gradient has none on any rank, since no graph depends on the
/// rank.
fn average(params: &ParamStore, gradients: &mut GradStore, comm: &dyn Collective) -> Result<()> {
    if comm.size() == 1 {
        return Ok(());
    }
    for (_, param) in params.trainable() {
        if let Some(gradient) = gradients.get(&param.var) {
            let mean = (comm.all_reduce_sum(gradient)? / comm.size() as f64)?;
            gradients.insert(&param.var, mean);
        }
    }
    Ok(())
}

/// The means over parts and ranks of losses and monitors, and the embeddings of all parts.
fn mean(parts: &[Forward], comm: &dyn Collective) -> Result<Forward> {
    let [first, rest @ ..] = parts else { candle_core::bail!("a batch without parts") };
    let mut loss = first.loss.clone();
    loss.total = loss.total.detach();
    loss.parts.iter_mut().for_each(|(_, part)| *part = part.detach());
    let mut monitors = first.monitors.clone();
    if !rest.is_empty() || comm.size() > 1 {
        let mut sums = numbers(first)?;
        for part in rest {
            sums.iter_mut().zip(numbers(part)?).for_each(|(sum, number)| *sum += number);
        }
        let sums = comm.all_reduce_sum(&Tensor::new(sums, &Device::Cpu)?)?.to_vec1::<f64>()?;
        let mut means = sums.into_iter().map(|sum| sum / (parts.len() * comm.size()) as f64);
        let tensors = std::iter::once(&mut loss.total).chain(loss.parts.iter_mut().map(|(_, part)| part));
        for (tensor, mean) in tensors.zip(&mut means) {
            *tensor = Tensor::new(mean, tensor.device())?.to_dtype(tensor.dtype())?;
        }
        for ((_, monitor), mean) in monitors.iter_mut().zip(means) {
            *monitor = Tensor::new(mean, &Device::Cpu)?;
        }
    }
    let embeddings = match rest {
        [] => first.embeddings.clone(),
        _ => (0..first.embeddings.len())
            .map(|view| Tensor::cat(&parts.iter().map(|part| &part.embeddings[view]).collect::<Vec<_>>(), 0))
            .collect::<Result<_>>()?,
    };
    Ok(Forward { loss, embeddings, trivial_loss: first.trivial_loss, monitors })
}

/// The loss, its parts, and what the method watches.
fn numbers(forward: &Forward) -> Result<Vec<f64>> {
    let tensors = std::iter::once(&forward.loss.total).chain(forward.loss.parts.iter().map(|(_, part)| part));
    let monitors = forward.monitors.iter().map(|(_, monitor)| monitor);
    tensors.chain(monitors).map(|tensor| tensor.to_dtype(DType::F64)?.to_scalar::<f64>()).collect()
}

/// Whether the loss is a number that a way back can start from. A GPU is not waited for: there the optimizer finds what is not finite, on the
/// device, and changes nothing.
fn finite(forward: &Forward) -> Result<bool> {
    if !forward.loss.total.device().is_cpu() {
        return Ok(true);
    }
    Ok(forward.loss.total.to_dtype(DType::F64)?.to_scalar::<f64>()?.is_finite())
}
