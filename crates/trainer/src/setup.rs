//! From a recipe to everything a run works with; all bad input is found here, before any time is spent.

use std::sync::Arc;

use candle_core::Device;
use diptych_augment::{Picture, PixelFormat};
use diptych_backbones::pretrained::Adapt;
use diptych_backbones::{ResNet, pretrained};
use diptych_comm::{Collective, Local};
use diptych_data::{Dataset, OpenOptions, Sampling, Splits, Subset, statistics};
use diptych_kernels::device as kernels;
use diptych_methods::{Build, Entry, Method, Parts, find};
use diptych_nn::{Backbone, Scope};
use diptych_optim::{Optimizer, Schedule};

use crate::error::bad_input;
use crate::recipe::Precision;
use crate::{BadInput, Division, OrBadInput, Recipe, recipe};

/// A run ready to begin.
pub struct Prepared {
    /// The recipe, with the method's table filled in.
    pub recipe: Recipe,
    /// The method's entry in the registry.
    pub entry: &'static Entry,
    /// The data.
    pub splits: Splits,
    /// Where the run computes.
    pub device: Device,
    /// The method with its networks.
    pub method: Box<dyn Method>,
    /// The optimizer.
    pub optimizer: Box<dyn Optimizer>,
    /// The learning rate of each step.
    pub schedule: Box<dyn Schedule>,
    /// Steps in an epoch; the images left over at its end are not used in it.
    pub steps_per_epoch: u64,
    /// How each batch is divided.
    pub division: Division,
    /// This rank among the others. In a run of several ranks each has a `Prepared` of its own; the one that [`prepare_on`] gives stands for all
    /// and is alone.
    pub comm: Arc<dyn Collective>,
}

impl Prepared {
    /// Steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.steps_per_epoch * self.recipe.trainer.epochs
    }
}

/// Opens the data, builds the method and the optimizer, and refuses what can't work.
///
/// # Errors
/// [`BadInput`] with a sentence that names the key or the file.
pub fn prepare(recipe: Recipe) -> anyhow::Result<Prepared> {
    prepare_on(recipe, 1)
}

/// [`prepare`] for a run whose batches are shared by `ranks` ranks, threads of this process.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_on(mut recipe: Recipe, ranks: usize) -> anyhow::Result<Prepared> {
    let device = device(&recipe.trainer.device)?;
    let precision = recipe.trainer.precision;
    if precision == Precision::Tf32 && device.is_cpu() {
        bad_input!("trainer.precision = tf32 is a mode of CUDA devices; on the CPU use --precision f32 or bf16");
    }
    diptych_kernels::device::allow_tf32(precision != Precision::F32);
    let Some(entry) = find(recipe.method_name()) else {
        bad_input!("method.name = \"{}\" is not a method", recipe.method_name())
    };
    let division = Division::new(&recipe.trainer, ranks)?;
    if recipe.augment.views.len() < entry.views {
        bad_input!(
            "augment.views makes {} views of each image, {} takes at least {}",
            recipe.augment.views.len(),
            entry.name,
            entry.views
        );
    }
    let mut splits = open(&recipe)?;
    if recipe.data.sampling == Sampling::Balanced && splits.train.classes().is_empty() {
        bad_input!("data.sampling = \"balanced\" needs a label for every training image, as class folders give")
    }
    fit_to_images(&mut recipe, &mut splits)?;
    let (images, batch) = (splits.train.len(), recipe.trainer.batch_size);
    if batch > images {
        bad_input!(
            "trainer.batch_size = {batch} is larger than the {images} training images; \
             use --batch-size {images} or fewer, or more images"
        );
    }
    let steps_per_epoch = (images / batch) as u64;
    let features = recipe.backbone.architecture(recipe.augment.size).or_bad_input()?.out_dim();
    let mut table = recipe.method.clone();
    let name = table.remove("name");
    recipe.method =
        (entry.resolve)(table, features).map_err(|error| BadInput(recipe::explain_method(&sentence(&error))))?;
    if let Some(name) = name {
        recipe.method.insert("name".into(), name);
    }
    let alone: Arc<dyn Collective> = Arc::new(Local);
    let run = Blueprint { recipe, entry, splits, device, steps_per_epoch, division }.build(&alone)?;
    if let Parts::Accumulate(count @ 2..) = division.parts()
        && run.method.couples_batch()
    {
        bad_input!(
            "trainer.accumulate = {count}: the loss of {} compares every image with the rest of its batch, so gradients \
             summed over {count} micro-batches are those of a batch of {}, not of {batch}; use trainer.grad_cache = {count}, which \
             gives the gradients of the whole batch in the memory of a part",
            entry.name,
            batch / count,
        );
    }
    Ok(run)
}

/// Training images that are looked at for `augment.mean` and `augment.std`.
const MEASURED: usize = 2000;

/// Fills in what follows from the images' channels: the backbone's first layer, and mean and deviation where they are to be measured. The views are
/// those that such images allow.
fn fit_to_images(recipe: &mut Recipe, splits: &mut Splits) -> anyhow::Result<()> {
    let format = splits.train.format();
    match recipe.backbone.channels {
        Some(channels) if channels != format.channels => {
            bad_input!(
                "backbone.channels = {channels}, but the images have {format}; leave the key out to follow the images"
            )
        }
        _ if format == PixelFormat::RGB => {}
        _ => recipe.backbone.channels = Some(format.channels),
    }
    if recipe.augment.mean.is_empty() && recipe.augment.std.is_empty() {
        let some: Arc<dyn Dataset> = Arc::new(Subset::by_key(splits.train.clone(), MEASURED));
        let workers = crate::fit::workers(recipe.data.workers);
        let measured = statistics(some.clone(), workers, recipe.data.max_error_share).or_bad_input()?;
        (recipe.augment.mean, recipe.augment.std) = measured.normalization();
        splits.notes.push(format!("augment.mean and augment.std were measured on {} training images", measured.images));
    }
    recipe.augment.check_for(format).or_bad_input()
}

/// What every rank builds its own networks from.
pub(crate) struct Blueprint {
    recipe: Recipe,
    entry: &'static Entry,
    splits: Splits,
    device: Device,
    steps_per_epoch: u64,
    division: Division,
}

impl Blueprint {
    /// That of a run.
    pub(crate) fn of(run: &Prepared) -> Self {
        Self {
            recipe: run.recipe.clone(),
            entry: run.entry,
            splits: run.splits.clone(),
            device: run.device.clone(),
            steps_per_epoch: run.steps_per_epoch,
            division: run.division,
        }
    }

    /// The run at its start, for one rank of it.
    pub(crate) fn build(&self, comm: &Arc<dyn Collective>) -> anyhow::Result<Prepared> {
        let (recipe, entry, device, steps_per_epoch) = (&self.recipe, self.entry, &self.device, self.steps_per_epoch);
        let total = steps_per_epoch * recipe.trainer.epochs;
        let groups = if comm.size() == 1 { self.division.groups_of_rank() } else { self.division.groups() };
        let method = build_method(recipe, entry, comm, groups, device, self.splits.train.len(), total)?;
        if let Some(weights) = &recipe.backbone.weights {
            let adapt = if recipe.backbone.adapt_weights { Adapt::Channels } else { Adapt::No };
            pretrained::load_adapted(&method.params().below("backbone."), weights, adapt).or_bad_input()?;
        }
        let (optimizer, schedule) =
            diptych_optim::build(&recipe.optim, recipe.trainer.batch_size, total, steps_per_epoch).or_bad_input()?;
        Ok(Prepared {
            recipe: recipe.clone(),
            entry,
            splits: self.splits.clone(),
            device: device.clone(),
            method,
            optimizer,
            schedule,
            steps_per_epoch,
            division: self.division,
            comm: comm.clone(),
        })
    }
}

/// What an error says, without the way to it that `RUST_BACKTRACE` adds.
fn sentence(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => sentence(inner),
        other => other.to_string(),
    }
}

/// Builds the method of a resolved recipe, whose table may or may not hold the name, with `bn_groups` groups of batch statistics over all
/// ranks of `comm`.
pub(crate) fn build_method(
    recipe: &Recipe,
    entry: &Entry,
    comm: &Arc<dyn Collective>,
    bn_groups: usize,
    device: &Device,
    dataset_len: usize,
    total_steps: u64,
) -> anyhow::Result<Box<dyn Method>> {
    let mut config = recipe.method.clone();
    config.remove("name");
    let architecture = recipe.backbone.architecture(recipe.augment.size).or_bad_input()?;
    let backbone = |scope: &mut Scope| -> candle_core::Result<Box<dyn Backbone>> {
        Ok(Box::new(ResNet::new(scope, &architecture)?))
    };
    let build = Build {
        config: &config,
        backbone: &backbone,
        comm,
        bn_groups,
        device,
        seed: recipe.trainer.seed,
        dataset_len,
        total_steps,
    };
    (entry.build)(&build).map_err(|error| BadInput(recipe::explain_method(&sentence(&error))).into())
}

/// The splits of `[data]`.
fn open(recipe: &Recipe) -> anyhow::Result<Splits> {
    let data = &recipe.data;
    let options = OpenOptions {
        test: (!data.test.is_empty()).then(|| data.test.clone().into()),
        train_size: (data.train_size > 0).then_some(data.train_size),
        test_size: (data.test_size > 0).then_some(data.test_size),
        image_size: data.image_size,
        channels: data.channels,
        subset: (!data.subset.is_empty()).then(|| data.subset.clone().into()),
        ..OpenOptions::default()
    };
    diptych_data::open(&data.path, &options).or_bad_input()
}

/// The device of this name: `auto` (the first GPU where this build and the machine have one, else the CPU), `cpu` or `cuda[:I]`.
///
/// # Errors
/// [`BadInput`] if there is no such device in this build or machine.
pub fn device(name: &str) -> anyhow::Result<Device> {
    let ordinal = match name {
        "cpu" => return Ok(Device::Cpu),
        "auto" => return Ok(kernels::cuda(0).unwrap_or(Device::Cpu)),
        "cuda" => Some(0),
        _ => name.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok()),
    };
    let Some(ordinal) = ordinal else {
        bad_input!("--device {name} is not a device; there are auto, cpu and cuda[:I]")
    };
    kernels::cuda(ordinal).map_err(|error| BadInput(format!("--device {name}: {}", sentence(&error))).into())
}

/// A picture of the report from an image.
pub(crate) fn picture(picture: &Picture) -> crate::report::Picture {
    let image = picture.to_rgb();
    crate::report::Picture::new(image.width, image.height, image.pixels)
}
