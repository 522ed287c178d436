//! What fills the gaps of a recipe.

use anyhow::Context;
use toml::{Table, Value};

use super::merge;
use crate::error::bad_input;

/// The sections of a recipe.
pub(super) const SECTIONS: &[&str] = &["method", "backbone", "data", "augment", "optim", "trainer", "report"];

/// The side of images where a recipe does not say; [`DEFAULTS`] has the same.
const IMAGE_SIZE: usize = 224;

/// What no paper says.
const DEFAULTS: &str = r#"
[backbone]
name = "resnet18"
width = 1
stem = "auto"
zero_init_residual = false
adapt_weights = false

[data]
path = "synthetic"
test = ""
image_size = 224
channels = "auto"
train_size = 0
test_size = 0
subset = ""
sampling = "shuffled"
workers = 0
cache_mib = 512
max_error_share = 0.05

[trainer]
epochs = 100
batch_size = 256
precision = "f32"
seed = 0
device = "auto"
accumulate = 1
grad_cache = 1
bn_groups = 1
checkpoint_every = 0
keep_checkpoints = 2
eval_every = 5
knn_k = 20
knn_temperature = 0.07
knn_bank = 10000
log_every = 10
on_collapse = "warn"

[report]
images = true
"#;

/// `user` over the method's published values over [`DEFAULTS`].
pub(super) fn fill(user: Table) -> anyhow::Result<Table> {
    let method = match user.get("method") {
        Some(Value::Table(method)) => method.get("name").and_then(Value::as_str),
        Some(_) => bad_input!("method must be a section, [method] with name = \"simclr\""),
        None => None,
    };
    let names = || diptych_methods::REGISTRY.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
    let Some(method) = method else { bad_input!("[method] must have a name, one of {}", names()) };
    let Some(entry) = diptych_methods::find(method) else {
        bad_input!("method.name = \"{method}\" is not a method; there are {}", names())
    };
    let mut table: Table = toml::from_str(DEFAULTS).context("the built-in defaults")?;
    // Views have the side `data.image_size` unless `augment.size` says otherwise.
    let size = user.get("data").and_then(|data| data.get("image_size")).and_then(Value::as_integer);
    let size = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(IMAGE_SIZE);
    let augment = Table::try_from((entry.augment)(size)).context("the method's published views")?;
    table.insert("augment".into(), augment.into());
    let optim: Table = toml::from_str(entry.optim).context("the method's published optimizer")?;
    table.insert("optim".into(), optim.into());
    if let Some(Value::Table(trainer)) = table.get_mut("trainer") {
        trainer.insert("bn_groups".into(), Value::Integer(entry.bn_groups as i64));
    }
    merge(&mut table, user);
    Ok(table)
}
