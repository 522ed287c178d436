//! The settings of evaluations: published protocols that come with the binary, files, and single keys.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Table;

use crate::trainer::recipe::set;
use crate::trainer::{BadInput, OrBadInput};

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        /// Name (`protocol/name`) and text of every evaluation recipe in the binary.
        pub const ALL: &[(&str, &str)] = &[$(($name, include_str!(concat!("../recipes/eval/", $name, ".toml")))),*];
    };
}

embedded! {
    "cluster/raw",
    "finetune/barlow_twins_10pct",
    "finetune/barlow_twins_1pct",
    "finetune/full",
    "finetune/simclr_10pct",
    "finetune/simclr_1pct",
    "finetune/swav_10pct",
    "finetune/swav_1pct",
    "knn/dino",
    "knn/grid",
    "knn/moco",
    "knn/simsiam",
    "knn/wu",
    "linear/barlow_twins",
    "linear/byol",
    "linear/moco",
    "linear/simclr",
    "linear/simsiam",
    "linear/swav",
    "logistic/byol",
    "logistic/simclr",
    "transfer/byol",
    "transfer/simclr",
}

/// The settings of `protocol`: its defaults, over them the table `[protocol]` of `recipe` (the name of an embedded one, or a file), over that each
/// `protocol.key=value` of `keys`.
///
/// # Errors
/// [`BadInput`] if there is no such recipe, it is not TOML, or a key is unknown or of the wrong type; the sentence names it.
pub fn settings<T: Serialize + DeserializeOwned + Default>(
    protocol: &str,
    recipe: Option<&str>,
    keys: &[String],
) -> anyhow::Result<T> {
    let mut table = recipe.map_or_else(|| Ok(Table::new()), |name| find(protocol, name))?;
    keys.iter().try_for_each(|key| set(&mut table, key))?;
    let source = recipe.unwrap_or("--set");
    let known = |key: &str| key == protocol || key == "about";
    if let Some(other) = table.keys().find(|key| !known(key)) {
        let message = format!("{source}: eval {protocol} has the section [{protocol}] only, not {other}");
        return Err(BadInput(message).into());
    }
    let Some(section) = table.remove(protocol) else { return Ok(T::default()) };
    section.try_into().map_err(|error: toml::de::Error| {
        BadInput(format!("{source}: [{protocol}]: {}", error.message().replace('\n', " "))).into()
    })
}

fn find(protocol: &str, name: &str) -> anyhow::Result<Table> {
    let whole = format!("{protocol}/{name}");
    if let Some((_, text)) = ALL.iter().find(|(known, _)| *known == whole || *known == name) {
        return toml::from_str(text).with_context(|| format!("recipe {whole}"));
    }
    if !Path::new(name).is_file() {
        let names = ALL.iter().filter_map(|(known, _)| known.strip_prefix(protocol)?.strip_prefix('/'));
        let names = names.collect::<Vec<_>>().join(", ");
        let message = format!("there is no recipe {name} for eval {protocol}: neither a file nor one of {names}");
        return Err(BadInput(message).into());
    }
    let text = fs::read_to_string(name).with_context(|| format!("recipe {name} can't be read")).or_bad_input()?;
    toml::from_str(&text).map_err(|error| BadInput(format!("recipe {name} is not TOML: {}", error.message())).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{Cluster, FineTune, Logistic, Neighbors, Probe, Transfer, TransferProtocol};

    fn error<T: Serialize + DeserializeOwned + Default>(protocol: &str, recipe: Option<&str>, key: &str) -> String {
        settings::<T>(protocol, recipe, &[key.to_string()]).err().unwrap().to_string()
    }

    #[test]
    fn every_recipe_is_read_and_says_what_it_is() -> anyhow::Result<()> {
        for (name, text) in ALL {
            let (protocol, short) = name.split_once('/').context("protocol/name")?;
            let about = toml::from_str::<Table>(text)?.get("about").and_then(|about| about.as_str().map(str::len));
            assert!(about.is_some_and(|length| length > 20), "{name}");
            match protocol {
                "cluster" => assert_ne!(settings::<Cluster>(protocol, Some(short), &[])?.restarts, 0, "{name}"),
                "knn" => settings::<Neighbors>(protocol, Some(short), &[])?.check(1000)?,
                "finetune" => settings::<FineTune>(protocol, Some(short), &[])?.check()?,
                "linear" => assert_ne!(settings::<Probe>(protocol, Some(short), &[])?.epochs, 0, "{name}"),
                "logistic" => {
                    assert!(!settings::<Logistic>(protocol, Some(short), &[])?.penalties.is_empty(), "{name}")
                }
                "transfer" => {
                    let transfer = settings::<Transfer>(protocol, Some(short), &[])?;
                    assert_eq!((transfer.protocol, transfer.sets.len()), (TransferProtocol::Logistic, 0), "{name}")
                }
                other => panic!("{name}: no protocol {other}"),
            }
        }
        Ok(())
    }

    #[test]
    fn keys_are_laid_over_the_defaults() -> anyhow::Result<()> {
        let keys = ["linear.epochs=7".to_string(), "linear.learning_rates=[0.5]".to_string()];
        let probe: Probe = settings("linear", None, &keys)?;
        assert_eq!(probe, Probe { epochs: 7, learning_rates: vec![0.5], ..Probe::default() });
        Ok(())
    }

    /// One number or several, whole or not.
    #[test]
    fn a_setting_may_have_several_values() -> anyhow::Result<()> {
        use crate::eval::Values;
        let keys = ["knn.k=[1,5]".to_string(), "knn.temperature=1".to_string()];
        let found: Neighbors = settings("knn", None, &keys)?;
        assert_eq!((found.k, found.temperature), (Values::Several(vec![1, 5]), Values::One(1.0)));
        let text = error::<Neighbors>("knn", None, "knn.k=many");
        assert!(text.contains("[knn]"), "{text}");
        Ok(())
    }

    #[test]
    fn what_is_wrong_is_named() {
        let text = error::<Probe>("linear", None, "linear.epoch=7");
        assert!(text.contains("[linear]") && text.contains("epoch"), "{text}");
        let text = error::<Probe>("linear", None, "optim.lr=7");
        assert!(text.contains("has the section [linear] only, not optim"), "{text}");
        let text = error::<Logistic>("logistic", Some("nope"), "logistic.validation=0.5");
        assert!(text.contains("no recipe nope") && text.contains("simclr"), "{text}");
    }
}
